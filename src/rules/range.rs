//! What a range request selects of a stored response (RFC 9110 §14).
//!
//! ```text
//! If-Range does not match, Range absent or not understood ─► Whole
//! nothing of it lies inside the body ──────────────────────► Unsatisfiable
//! one span, after overlapping and adjacent ones are joined ► Part
//! several spans ───────────────────────────────────────────► Several, as multipart/byteranges
//! ```
//!
//! Joined spans do not overlap, so no request is answered with more than the body and the heads
//! of [`SPECS_MAX`] parts; a set with more members is ignored, as §14.2 allows. Whether the method
//! is GET, and the conditions that come first (§13.2.2), are for the caller. Which bytes a stored
//! response holds is [`part`](super::part)'s business.

use super::stored::StoredResponse;
use super::validation::is_strong_date;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header;

/// Bytes `first..=last` of a body of known length; never empty, never outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// Makes the span of a body of `complete` bytes; a `last` beyond its end means its end.
    /// `None` when there is no such byte as `first`, or `last` lies before it.
    pub fn new(first: u64, last: u64, complete: u64) -> Option<Self> {
        let last = last.min(complete.checked_sub(1)?);
        (first <= last).then_some(Self { first, last })
    }

    /// Makes a span that has at least its first byte.
    pub(super) fn from_to(first: u64, last: u64) -> Self {
        let last = last.max(first);
        Self { first, last }
    }

    /// The first byte's offset.
    pub fn first(self) -> u64 {
        self.first
    }

    /// The last byte's offset.
    pub fn last(self) -> u64 {
        self.last
    }

    /// How many bytes.
    pub fn bytes(self) -> u64 {
        // Cannot saturate: a body's length is a u64 too, so `last` is below u64::MAX.
        (self.last - self.first).saturating_add(1)
    }

    /// `Content-Range` for a body of `complete` bytes.
    pub fn content_range(self, complete: u64) -> HeaderValue {
        field_value(format!("bytes {}-{}/{complete}", self.first, self.last))
    }
}

/// What a request's Range field comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Selection {
    /// No Range, one to be ignored, or If-Range did not match: 200.
    Whole,
    /// 206 with this part.
    Part(Span),
    /// 206 with these parts, at least two and at most [`SPECS_MAX`], none touching another, in the
    /// order they were asked for (RFC 9110 §15.3.7.2).
    Several(Vec<Span>),
    /// 416.
    Unsatisfiable,
}

impl Selection {
    /// Evaluates Range and If-Range of a GET against a stored 200.
    ///
    /// A stored response of any other status is always served whole.
    pub fn evaluate(request_headers: &HeaderMap, stored: &StoredResponse) -> Self {
        let mut lines = request_headers.get_all(header::RANGE).iter();
        let Some(line) = lines.next() else {
            return Self::Whole;
        };
        if lines.next().is_some() || stored.status != StatusCode::OK {
            return Self::Whole;
        }
        if !if_range_matches(request_headers, stored) {
            return Self::Whole;
        }
        Self::of(line.as_bytes(), stored.complete_bytes())
    }

    /// Reads a Range value against a body of `complete` bytes.
    pub fn of(value: &[u8], complete: u64) -> Self {
        let Some(specs) = parse(value) else {
            return Self::Whole;
        };
        // A suffix of an empty body is the empty body (§14.1.2), which no span can say.
        if complete == 0 && specs.iter().any(|spec| matches!(spec, Spec::Suffix(1..))) {
            return Self::Whole;
        }
        let mut spans: Vec<Span> = Vec::new();
        for span in specs.into_iter().filter_map(|spec| spec.within(complete)) {
            join(&mut spans, span);
        }
        match *spans.as_slice() {
            [] => Self::Unsatisfiable,
            [span] => Self::Part(span),
            _ => Self::Several(spans),
        }
    }
}

/// Adds a span to others that do not touch one another; it takes the place of the first it touches.
fn join(spans: &mut Vec<Span>, mut span: Span) {
    let touches = |one: &Span, other: &Span| {
        one.first <= other.last.saturating_add(1) && other.first <= one.last.saturating_add(1)
    };
    let mut place = spans.len();
    while let Some(at) = spans.iter().position(|other| touches(&span, other)) {
        let other = spans.remove(at);
        span.first = span.first.min(other.first);
        span.last = span.last.max(other.last);
        place = place.min(at);
    }
    spans.insert(place.min(spans.len()), span);
}

/// What stands before one part of a `multipart/byteranges` body (RFC 9110 §14.6).
pub fn part_head(
    boundary: &str,
    content_type: Option<&HeaderValue>,
    span: Span,
    complete: u64,
) -> Vec<u8> {
    let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
    if let Some(content_type) = content_type {
        head.extend_from_slice(b"Content-Type: ");
        head.extend_from_slice(content_type.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"Content-Range: ");
    head.extend_from_slice(span.content_range(complete).as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// What stands behind the last part.
pub fn parts_end(boundary: &str) -> Vec<u8> {
    format!("\r\n--{boundary}--\r\n").into_bytes()
}

/// `Content-Type` of a response in several parts.
pub fn parts_type(boundary: &str) -> HeaderValue {
    field_value(format!("multipart/byteranges; boundary={boundary}"))
}

/// The validator that proves two parts to be of one representation, byte for byte: a strong entity
/// tag, else a Last-Modified that is one (RFC 9110 §8.8.1). Goes out as If-Range.
pub fn strong_validator(stored: &StoredResponse) -> Option<HeaderValue> {
    let etag = sole(&stored.headers, &header::ETAG).filter(|etag| etag.starts_with(b"\""));
    let modified = || {
        let modified = sole(&stored.headers, &header::LAST_MODIFIED);
        modified.filter(|modified| is_strong(modified, stored))
    };
    HeaderValue::from_bytes(etag.or_else(modified)?).ok()
}

/// The fields of a 416 for a body of `complete` bytes (RFC 9110 §15.5.17).
///
/// It answers this request's ranges and describes no representation: with the stored freshness and
/// validators a cache nearer the client could keep it and give it to those who want the whole. What
/// stays is what a script needs to be allowed to see it.
pub fn unsatisfied_fields(stored: &HeaderMap, complete: u64) -> HeaderMap {
    let says_nothing_of_the_body = |name: &HeaderName| {
        name == header::DATE || name == header::VARY || name.as_str().starts_with("access-control-")
    };
    let mut fields = HeaderMap::new();
    for (name, value) in stored {
        if says_nothing_of_the_body(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    let length = field_value(format!("bytes */{complete}"));
    fields.insert(header::CONTENT_RANGE, length);
    fields
}

/// One `range-spec` of the `bytes` unit (§14.1.2). Numbers too large for 64 bits are the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    /// `FIRST-`.
    From(u64),
    /// `FIRST-LAST`, in that order.
    FromTo(u64, u64),
    /// `-COUNT`.
    Suffix(u64),
}

impl Spec {
    /// Reads one; `None` when it is malformed.
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        let (first, last) = text.split_at_checked(dash)?;
        let last = last.strip_prefix(b"-")?;
        match (first, last) {
            (b"", count) => Some(Self::Suffix(decimal(count)?)),
            (first, b"") => Some(Self::From(decimal(first)?)),
            (first, last) => {
                let (first, last) = (decimal(first)?, decimal(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// Returns what it selects of a body of `complete` bytes; `None` when nothing.
    fn within(self, complete: u64) -> Option<Span> {
        match self {
            Self::From(first) => Span::new(first, u64::MAX, complete),
            Self::FromTo(first, last) => Span::new(first, last, complete),
            Self::Suffix(0) => None,
            Self::Suffix(count) => Span::new(complete.saturating_sub(count), u64::MAX, complete),
        }
    }
}

/// Reads a `ranges-specifier` of the `bytes` unit; `None` when it is to be ignored: malformed,
/// another unit, or more than [`SPECS_MAX`] members.
pub(super) fn parse(value: &[u8]) -> Option<Vec<Spec>> {
    let equals = value.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = value.split_at_checked(equals)?;
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let set = set.strip_prefix(b"=")?;
    let mut specs = Vec::new();
    for (count, member) in set.split(|byte| *byte == b',').enumerate() {
        if count == SPECS_MAX {
            return None;
        }
        let member = member.trim_ascii();
        // Empty members of a list are passed over (§5.6.1.2).
        if !member.is_empty() {
            specs.push(Spec::parse(member)?);
        }
    }
    (!specs.is_empty()).then_some(specs)
}

/// Reads `1*DIGIT`; a number too large for 64 bits is the largest.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        Some(number.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}

/// Whether If-Range lets Range count: it is absent, or names this very representation (§13.1.5).
fn if_range_matches(request_headers: &HeaderMap, stored: &StoredResponse) -> bool {
    let mut lines = request_headers.get_all(header::IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let line = line.as_bytes().trim_ascii();
    if line.starts_with(b"W/") {
        return false;
    }
    if line.starts_with(b"\"") {
        // A weak stored tag begins with `W/`, so equal bytes are a strong match (§8.8.3.2).
        let etag = sole(&stored.headers, &header::ETAG);
        return etag.is_some_and(|etag| etag == line);
    }
    let modified = sole(&stored.headers, &header::LAST_MODIFIED);
    modified.is_some_and(|modified| modified == line && is_strong(modified, stored))
}

/// Whether the text of a Last-Modified is a strong validator of this response.
fn is_strong(modified: &[u8], stored: &StoredResponse) -> bool {
    let modified = std::str::from_utf8(modified).ok();
    modified
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .is_some_and(|modified| is_strong_date(modified, stored.timing.date_value))
}

/// Returns the value of a field that has exactly one line.
pub(super) fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then(|| line.as_bytes().trim_ascii())
}

/// Makes a field value of visible characters.
fn field_value(text: String) -> HeaderValue {
    // Digits and punctuation are always a valid value; the empty one is never reached.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Most members of a Range that is looked at; a longer one is ignored.
pub const SPECS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::address::Digest;
    use crate::rules::freshness::Timing;
    use crate::rules::key::PrimaryKey;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use crate::rules::tag::Names;
    use proptest::prelude::*;
    use std::time::Duration;
    use std::time::SystemTime;

    const MODIFIED: &str = "Thu, 01 Jan 1970 00:00:10 GMT";

    /// A stored 200 of 1000 bytes with a strong tag, changed ten seconds and dated twenty seconds
    /// after the epoch.
    fn stored() -> StoredResponse {
        let twenty = SystemTime::UNIX_EPOCH + Duration::from_secs(20);
        StoredResponse {
            key: PrimaryKey([0; 16]),
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            names: Names::default(),
            status: StatusCode::OK,
            headers: headers(&[("etag", "\"v1\""), ("last-modified", MODIFIED)]),
            timing: Timing {
                request_time: twenty,
                response_time: twenty,
                date_value: twenty,
                age_value: Duration::ZERO,
            },
            lifetime: Duration::ZERO,
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: None,
            body_bytes: 1000,
            body: Digest([0; 32]),
            part: None,
        }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn range(value: &str) -> Selection {
        Selection::evaluate(&headers(&[("range", value)]), &stored())
    }

    fn part(first: u64, last: u64) -> Selection {
        Selection::Part(Span { first, last })
    }

    fn several(spans: &[(u64, u64)]) -> Selection {
        let spans = spans.iter().map(|(first, last)| Span {
            first: *first,
            last: *last,
        });
        Selection::Several(spans.collect())
    }

    /// What `bytes=0-9` comes to under this If-Range.
    fn if_range(value: &str, stored: &StoredResponse) -> Selection {
        let request = headers(&[("range", "bytes=0-9"), ("if-range", value)]);
        Selection::evaluate(&request, stored)
    }

    #[test]
    fn without_range_the_whole_is_served() {
        let selection = Selection::evaluate(&HeaderMap::new(), &stored());
        assert_eq!(selection, Selection::Whole);
    }

    #[test]
    fn first_and_last_select_a_part() {
        assert_eq!(range("bytes=100-199"), part(100, 199));
    }

    #[test]
    fn first_alone_selects_to_the_end() {
        assert_eq!(range("bytes=990-"), part(990, 999));
    }

    #[test]
    fn a_suffix_selects_the_last_bytes() {
        assert_eq!(range("bytes=-100"), part(900, 999));
    }

    #[test]
    fn a_suffix_longer_than_the_body_selects_it_all() {
        assert_eq!(range("bytes=-5000"), part(0, 999));
    }

    #[test]
    fn a_last_beyond_the_end_means_the_end() {
        assert_eq!(range("bytes=5-99999999999999999999999"), part(5, 999));
    }

    #[test]
    fn a_first_beyond_the_end_is_unsatisfiable() {
        assert_eq!(range("bytes=1000-"), Selection::Unsatisfiable);
    }

    #[test]
    fn a_first_too_large_for_a_number_is_unsatisfiable() {
        let selection = range("bytes=99999999999999999999999-");
        assert_eq!(selection, Selection::Unsatisfiable);
    }

    #[test]
    fn a_suffix_of_no_bytes_is_unsatisfiable() {
        assert_eq!(range("bytes=-0"), Selection::Unsatisfiable);
    }

    #[test]
    fn an_empty_body_has_no_first_byte() {
        assert_eq!(Selection::of(b"bytes=0-", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn a_suffix_of_an_empty_body_is_the_empty_body() {
        assert_eq!(Selection::of(b"bytes=-5", 0), Selection::Whole);
    }

    #[test]
    fn case_does_not_count_in_the_unit() {
        assert_eq!(range("Bytes=0-0"), part(0, 0));
    }

    #[test]
    fn malformed_ranges_are_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=,,,",
            "bytes=abc",
            "bytes=5-1",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes=0-1,x",
            "bytes 0-1",
            "lines=0-1",
        ] {
            assert_eq!(range(value), Selection::Whole, "{value:?}");
        }
    }

    #[test]
    fn two_range_lines_are_ignored() {
        let request = headers(&[("range", "bytes=0-1"), ("range", "bytes=0-1")]);
        assert_eq!(Selection::evaluate(&request, &stored()), Selection::Whole);
    }

    #[test]
    fn only_a_stored_200_has_parts() {
        let mut stored = stored();
        stored.status = StatusCode::NOT_FOUND;
        let request = headers(&[("range", "bytes=0-1")]);
        assert_eq!(Selection::evaluate(&request, &stored), Selection::Whole);
    }

    #[test]
    fn overlapping_ranges_join() {
        assert_eq!(range("bytes=50-99, 0-60"), part(0, 99));
    }

    #[test]
    fn adjacent_ranges_join() {
        assert_eq!(range("bytes=0-4,5-9"), part(0, 9));
    }

    #[test]
    fn a_range_inside_another_joins_it() {
        assert_eq!(range("bytes=0-99,10-20,90-95"), part(0, 99));
    }

    #[test]
    fn ranges_with_a_gap_are_served_as_several_parts() {
        assert_eq!(range("bytes=0-4,6-9"), several(&[(0, 4), (6, 9)]));
    }

    #[test]
    fn parts_come_in_the_order_they_were_asked_for() {
        assert_eq!(range("bytes=-1,0-4"), several(&[(999, 999), (0, 4)]));
    }

    #[test]
    fn a_range_that_closes_a_gap_takes_the_place_of_the_first_it_touches() {
        assert_eq!(
            range("bytes=0-4,50-59,10-14,5-9"),
            several(&[(0, 14), (50, 59)])
        );
    }

    #[test]
    fn unsatisfiable_ranges_among_others_are_left_out() {
        assert_eq!(range("bytes=0-4,1000-,6-9"), several(&[(0, 4), (6, 9)]));
        assert_eq!(range("bytes=0-4,1000-"), part(0, 4));
    }

    #[test]
    fn a_strong_validator_is_a_strong_tag_or_else_an_old_enough_date() {
        let mut stored = stored();
        assert_eq!(strong_validator(&stored).unwrap(), "\"v1\"");
        stored
            .headers
            .insert("etag", HeaderValue::from_static("W/\"v1\""));
        assert_eq!(strong_validator(&stored).unwrap(), MODIFIED);
        stored.timing.date_value = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(strong_validator(&stored), None);
    }

    #[test]
    fn the_heads_of_parts_say_what_they_are() {
        let text = HeaderValue::from_static("text/plain");
        let head = part_head("b", Some(&text), Span { first: 1, last: 2 }, 10);
        let expected = "\r\n--b\r\nContent-Type: text/plain\r\nContent-Range: bytes 1-2/10\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
        assert_eq!(parts_end("b"), b"\r\n--b--\r\n");
        assert_eq!(parts_type("b"), "multipart/byteranges; boundary=b");
    }

    #[test]
    fn unsatisfiable_members_do_not_count_beside_satisfiable_ones() {
        assert_eq!(range("bytes=5000-,0-4"), part(0, 4));
    }

    #[test]
    fn empty_members_are_passed_over() {
        assert_eq!(range("bytes=, 0-4 ,"), part(0, 4));
    }

    #[test]
    fn sixteen_ranges_are_looked_at() {
        assert_eq!(
            range(&format!("bytes={}", ["0-"; 16].join(","))),
            part(0, 999)
        );
    }

    #[test]
    fn seventeen_ranges_are_ignored() {
        let selection = range(&format!("bytes={}", ["0-"; 17].join(",")));
        assert_eq!(selection, Selection::Whole);
    }

    #[test]
    fn the_same_strong_tag_lets_range_count() {
        assert_eq!(if_range("\"v1\"", &stored()), part(0, 9));
    }

    #[test]
    fn another_tag_does_not() {
        assert_eq!(if_range("\"v2\"", &stored()), Selection::Whole);
    }

    #[test]
    fn a_weak_tag_does_not() {
        let mut stored = stored();
        stored.headers = headers(&[("etag", "W/\"v1\"")]);
        assert_eq!(if_range("W/\"v1\"", &stored), Selection::Whole);
        assert_eq!(if_range("\"v1\"", &stored), Selection::Whole);
    }

    #[test]
    fn the_same_date_lets_range_count() {
        assert_eq!(if_range(MODIFIED, &stored()), part(0, 9));
    }

    #[test]
    fn a_later_date_does_not() {
        let later = "Thu, 01 Jan 1970 00:00:11 GMT";
        assert_eq!(if_range(later, &stored()), Selection::Whole);
    }

    #[test]
    fn a_date_in_the_second_of_the_response_does_not() {
        let mut stored = stored();
        stored.timing.date_value = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        assert_eq!(if_range(MODIFIED, &stored), Selection::Whole);
    }

    #[test]
    fn what_is_no_date_does_not_even_where_the_origin_sent_the_same() {
        let mut stored = stored();
        stored.headers = headers(&[("last-modified", "yesterday")]);
        assert_eq!(if_range("yesterday", &stored), Selection::Whole);
    }

    #[test]
    fn if_range_does_not_count_without_something_to_match() {
        let mut stored = stored();
        stored.headers = HeaderMap::new();
        assert_eq!(if_range("\"v1\"", &stored), Selection::Whole);
    }

    #[test]
    fn two_if_range_lines_match_nothing() {
        let lines = [
            ("range", "bytes=0-9"),
            ("if-range", "\"v1\""),
            ("if-range", "\"v1\""),
        ];
        let selection = Selection::evaluate(&headers(&lines), &stored());
        assert_eq!(selection, Selection::Whole);
    }

    #[test]
    fn a_part_says_where_it_lies() {
        let span = Span::new(100, 199, 1000).unwrap();
        assert_eq!(span.content_range(1000), "bytes 100-199/1000");
        assert_eq!(span.bytes(), 100);
    }

    #[test]
    fn an_unsatisfied_range_says_how_long_the_body_is_and_nothing_else_of_it() {
        let mut stored = HeaderMap::new();
        for (name, value) in [
            ("date", "Tue, 15 Nov 2022 12:00:00 GMT"),
            ("cache-control", "max-age=60"),
            ("cdn-cache-control", "max-age=60"),
            ("etag", "\"1\""),
            ("content-type", "text/plain"),
            ("access-control-allow-origin", "*"),
        ] {
            stored.insert(name, HeaderValue::from_static(value));
        }
        let fields = unsatisfied_fields(&stored, 1000);
        let mut names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["access-control-allow-origin", "content-range", "date"]
        );
        assert_eq!(fields["content-range"], "bytes */1000");
    }

    proptest! {
        #[test]
        fn a_part_lies_inside_the_body(value in "bytes=[0-9, -]{0,40}", complete: u64) {
            if let Selection::Part(span) = Selection::of(value.as_bytes(), complete) {
                prop_assert!(span.first() <= span.last() && span.last() < complete);
                prop_assert!(span.bytes() <= complete);
            }
        }

        #[test]
        fn no_bytes_in_a_range_make_it_panic(
            value in proptest::collection::vec(any::<u8>(), 0..40),
            complete: u64,
        ) {
            let selection = Selection::of(&value, complete);
            prop_assert!(selection != Selection::Unsatisfiable || value.contains(&b'='));
        }

        #[test]
        fn any_two_ends_inside_the_body_select_what_they_say(first in 0_u64..500, bytes in 1_u64..500) {
            let last = first + bytes - 1;
            let value = format!("bytes={first}-{last}");
            prop_assert_eq!(Selection::of(value.as_bytes(), 1000), part(first, last));
        }
    }
}
