//! Conditions, both ways: ours to the origin, the clients' to us; and what a 304 changes.
//!
//! ```text
//! stale ── Validators::condition ──► origin ─┬─ 304 to GET ── selects ──► freshen ─► fresh again
//!                                            └─ 200 to HEAD ─ describes ─► freshen ─► fresh again
//! client's If-* ── Condition::evaluate ──► the response, or 304 (not_modified_fields)
//! ```
//!
//! Ranges and If-Range are evaluated in [`range`](super::range); when to validate is decided in
//! [`reuse`](super::reuse).

use super::directives::ResponseDirectives;
use super::freshness::Timing;
use super::freshness::date_field;
use super::key::Vary;
use super::range::strong_validator;
use super::storable::StorePolicy;
use super::stored::StoredResponse;
use super::stored::kept_fields;
use super::stored::withhold_cookies;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::header::CONTENT_ENCODING;
use http::header::CONTENT_LENGTH;
use http::header::CONTENT_LOCATION;
use http::header::CONTENT_RANGE;
use http::header::DATE;
use http::header::ETAG;
use http::header::EXPIRES;
use http::header::IF_MATCH;
use http::header::IF_MODIFIED_SINCE;
use http::header::IF_NONE_MATCH;
use http::header::IF_RANGE;
use http::header::IF_UNMODIFIED_SINCE;
use http::header::LAST_MODIFIED;
use http::header::RANGE;
use http::header::VARY;
use http::response::Parts;
use std::iter::from_fn;
use std::time::Duration;
use std::time::SystemTime;

/// What lets the origin recognise a stored response. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validators {
    /// Only an entity tag.
    ETag(HeaderValue),
    /// Only a date.
    LastModified(HeaderValue),
    /// Both; the entity tag wins (RFC 9110 §13.2.2).
    Both {
        /// Goes out as `If-None-Match`.
        etag: HeaderValue,
        /// Goes out as `If-Modified-Since`.
        last_modified: HeaderValue,
    },
}

/// What a client's conditions come to against a stored response (RFC 9110 §13.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Condition {
    /// Answer as if there were no condition.
    Proceed,
    /// 304.
    NotModified,
}

impl Validators {
    /// Reads them from a response: an entity tag of valid form, a date that can be read. One that
    /// is given twice is none.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let etag = entity_tag(headers).map(|(value, _)| value.clone());
        let last_modified = date_field(headers, &LAST_MODIFIED)
            .and_then(|_| headers.get(LAST_MODIFIED))
            .cloned();
        match (etag, last_modified) {
            (Some(etag), Some(last_modified)) => Some(Self::Both {
                etag,
                last_modified,
            }),
            (Some(etag), None) => Some(Self::ETag(etag)),
            (None, Some(last_modified)) => Some(Self::LastModified(last_modified)),
            (None, None) => None,
        }
    }

    /// Puts our conditions on a request to the origin, in place of the client's own.
    ///
    /// Both go out when there are both: an origin that does not know entity tags uses the date
    /// (RFC 9111 §4.3.1).
    pub fn condition(&self, request_headers: &mut HeaderMap) {
        unconditional(request_headers);
        let (etag, last_modified) = match self {
            Self::ETag(etag) => (Some(etag), None),
            Self::LastModified(last_modified) => (None, Some(last_modified)),
            Self::Both {
                etag,
                last_modified,
            } => (Some(etag), Some(last_modified)),
        };
        if let Some(etag) = etag {
            request_headers.insert(IF_NONE_MATCH, etag.clone());
        }
        if let Some(last_modified) = last_modified {
            request_headers.insert(IF_MODIFIED_SINCE, last_modified.clone());
        }
    }
}

impl Condition {
    /// Evaluates the client's conditions on a GET or HEAD against a stored response.
    ///
    /// Only a response that would be 2xx without them is subject to them (RFC 9110 §13.2.1).
    /// If-Match and If-Unmodified-Since are not looked at: a cache "MUST NOT evaluate conditional
    /// header fields that only apply to an origin server" (RFC 9111 §4.3.2). What they protect,
    /// [`permits_part`] does.
    pub fn evaluate(request_headers: &HeaderMap, stored: &StoredResponse) -> Self {
        if stored.status.is_success() && unchanged(request_headers, stored) {
            return Self::NotModified;
        }
        Self::Proceed
    }
}

/// Returns whether a part of the stored response may answer: not where If-Match or
/// If-Unmodified-Since names another one. Whoever resumes a download with them must not be given
/// another one's bytes; the whole response harms nobody, as "a server MAY ignore the Range header
/// field" (RFC 9110 §14.2).
pub fn permits_part(request_headers: &HeaderMap, stored: &StoredResponse) -> bool {
    if request_headers.contains_key(IF_MATCH) {
        return any_tag(
            request_headers,
            &IF_MATCH,
            stored,
            EntityTag::matches_strongly,
        );
    }
    if !request_headers.contains_key(IF_UNMODIFIED_SINCE) {
        return true;
    }
    let since = date_field(request_headers, &IF_UNMODIFIED_SINCE);
    let modified = date_field(&stored.headers, &LAST_MODIFIED);
    since
        .zip(modified)
        .is_some_and(|(since, modified)| modified <= since)
}

/// Returns whether a request has a condition, If-Range included: its answer hangs on more than the
/// Range.
pub fn is_conditional(request_headers: &HeaderMap) -> bool {
    let mut names = CONDITIONS.iter().chain([&IF_RANGE]);
    names.any(|name| request_headers.contains_key(name))
}

/// Takes conditional and range fields off, so that the origin sends the whole response.
pub fn unconditional(request_headers: &mut HeaderMap) {
    for name in CONDITIONS {
        request_headers.remove(name);
    }
    request_headers.remove(IF_RANGE);
    request_headers.remove(RANGE);
}

/// Returns whether a 304 speaks of this stored response (RFC 9111 §4.3.4).
///
/// An entity tag decides where the 304 has one, by strong comparison if it is strong; then
/// Last-Modified; a 304 without either answers the condition we sent. When it does not speak of
/// this response it changes nothing, and the request has to be sent again without a condition.
pub fn selects(not_modified: &Parts, stored: &StoredResponse) -> bool {
    let headers = &not_modified.headers;
    if let Some((_, new)) = entity_tag(headers) {
        return entity_tag(&stored.headers).is_some_and(|(_, old)| {
            new.matches_strongly(old) || (new.weak && new.matches_weakly(old))
        });
    }
    match date_field(headers, &LAST_MODIFIED) {
        Some(new) => date_field(&stored.headers, &LAST_MODIFIED) == Some(new),
        None => true,
    }
}

/// Returns whether an answer with this status to our conditional request says that what is stored
/// no longer stands, also when the answer itself is not stored.
///
/// "A full response […] indicates that none of the stored responses nominated in the conditional
/// request are suitable" (RFC 9111 §4.3.3). Other errors speak of the request or of the origin's
/// state; an answer in parts is no full one.
pub fn supersedes(status: StatusCode) -> bool {
    match status {
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => false,
        StatusCode::NOT_FOUND | StatusCode::GONE => true,
        status => status.is_success() || status.is_redirection(),
    }
}

/// Returns whether a 304 speaks of this stored response too, beside the one it was asked about:
/// by "one of those same strong validators" (RFC 9111 §4.3.4).
pub fn selects_strongly(not_modified: &Parts, stored: &StoredResponse) -> bool {
    let headers = &not_modified.headers;
    match (entity_tag(headers), entity_tag(&stored.headers)) {
        (Some((_, new)), Some((_, old))) => new.matches_strongly(old),
        (Some(_), None) => false,
        (None, _) => date_field(headers, &LAST_MODIFIED).is_some_and(|modified| {
            date_field(&stored.headers, &LAST_MODIFIED) == Some(modified)
                && is_strong_date(modified, stored.timing.date_value)
        }),
    }
}

/// Returns whether a 200 to a HEAD describes this stored response (RFC 9111 §4.3.5): every
/// validator it has is the stored one's, and so is the length where it gives one.
///
/// `None` when it gives neither validator nor length: then nothing is known, and a page that
/// changes would be freshened for ever by whoever asks for its head.
pub fn describes(head: &Parts, stored: &StoredResponse) -> Option<bool> {
    let headers = &head.headers;
    let tag = headers.get(ETAG).map(|_| {
        let old = entity_tag(&stored.headers).map(|(_, tag)| tag);
        let new = entity_tag(headers).map(|(_, tag)| tag);
        new.zip(old)
            .is_some_and(|(new, old)| new.weak == old.weak && new.matches_weakly(old))
    });
    let modified = headers.get(LAST_MODIFIED).map(|_| {
        let new = date_field(headers, &LAST_MODIFIED);
        new.is_some() && new == date_field(&stored.headers, &LAST_MODIFIED)
    });
    let length = headers.get(CONTENT_LENGTH).map(|_| {
        let mut lines = headers.get_all(CONTENT_LENGTH).iter();
        let own = stored.complete_bytes().to_string();
        lines.all(|line| line.as_bytes().trim_ascii() == own.as_bytes())
    });
    [tag, modified, length]
        .into_iter()
        .flatten()
        .reduce(|one, other| one && other)
}

/// Freshens a stored response with a 304 that [`selects`] it, or with the head that
/// [`describes`] it (RFC 9111 §3.2, §4.3.4, §4.3.5).
///
/// Every field of the new head replaces all lines of its name, but for those never stored (§3.1),
/// Content-Length, and those that belong to the bytes at hand: Content-Encoding, which "the
/// cache's stored response depends upon", Content-Range, which an implementation "MAY
/// automatically omit", and the digests of a message's content, of which a 304 and a HEAD have
/// none. Content-Type is none of them: "the Content-* prefix is not a signal". All verdicts are
/// reached anew.
///
/// A new head can also withdraw what the response allowed: by `no-store`, `private`, an unreadable
/// Cache-Control, or a Vary that names fields under which the stored response was not filed. The
/// result then answers the request that was under way and is [condemned](StoredResponse::condemn):
/// ask [`StoredResponse::worth_keeping`] before keeping it.
pub fn freshen(
    stored: &StoredResponse,
    not_modified: &Parts,
    policy: &StorePolicy,
    request_time: SystemTime,
    response_time: SystemTime,
) -> StoredResponse {
    let brought = ResponseDirectives::read_targeted(&not_modified.headers, &policy.targeted);
    let mut update = kept_fields(&not_modified.headers, &brought, response_time);
    withhold_cookies(&mut update, policy);
    let mut merged = merge(&stored.headers, &update);
    let directives = ResponseDirectives::read_targeted(&merged, &policy.targeted);
    merged = kept_fields(&merged, &directives, response_time);
    let mut freshened = StoredResponse {
        headers: merged,
        timing: Timing::read(&not_modified.headers, request_time, response_time),
        ..stored.clone()
    };
    freshened.judge(&directives, policy);
    let proven = strong_validator(&freshened) == strong_validator(stored);
    if let Some(part) = freshened.part.as_mut().filter(|_| !proven) {
        // Parts that were fetched under another validator are not known to be of this one.
        part.series = None;
    }
    if withdrawn(&directives) || !same_selection(&update, stored) {
        freshened.condemn();
    }
    freshened
}

/// The fields a 304 made from a stored response carries (RFC 9110 §15.4.5): those that guide
/// caches, and of the rest only what lets the client recognise the response.
pub fn not_modified_fields(stored: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(NOT_MODIFIED_FIELDS.len());
    for name in &NOT_MODIFIED_FIELDS {
        copy_all(stored, name, &mut fields);
    }
    if !fields.contains_key(ETAG) {
        copy_all(stored, &LAST_MODIFIED, &mut fields);
    }
    fields
}

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntityTag<'a> {
    weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads one entity tag from the start of `text`; returns it and what follows.
    fn read(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inside = quoted.strip_prefix(b"\"")?;
        let end = inside.iter().position(|byte| !is_etagc(*byte))?;
        let (opaque, rest) = quoted.split_at_checked(end.saturating_add(2))?;
        opaque
            .ends_with(b"\"")
            .then_some((Self { weak, opaque }, rest))
    }

    /// Weak comparison (RFC 9110 §8.8.3.2).
    fn matches_weakly(self, other: Self) -> bool {
        self.opaque == other.opaque
    }

    /// Strong comparison (RFC 9110 §8.8.3.2).
    fn matches_strongly(self, other: Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }
}

/// If-None-Match, or else If-Modified-Since: does the client have the response already?
///
/// Without Last-Modified the date of the response stands in for it (RFC 9111 §4.3.2).
fn unchanged(request_headers: &HeaderMap, stored: &StoredResponse) -> bool {
    if request_headers.contains_key(IF_NONE_MATCH) {
        return any_tag(
            request_headers,
            &IF_NONE_MATCH,
            stored,
            EntityTag::matches_weakly,
        );
    }
    // Read first: most requests carry none, and a hit should read nothing else.
    let Some(since) = date_field(request_headers, &IF_MODIFIED_SINCE) else {
        return false;
    };
    date_field(&stored.headers, &LAST_MODIFIED).unwrap_or(stored.timing.date_value) <= since
}

/// Returns whether `*` or any listed entity tag matches the stored one. A list is read up to the
/// first member that is no entity tag.
fn any_tag<'a>(
    request_headers: &'a HeaderMap,
    name: &HeaderName,
    stored: &'a StoredResponse,
    matches: fn(EntityTag<'a>, EntityTag<'a>) -> bool,
) -> bool {
    let own = entity_tag(&stored.headers).map(|(_, tag)| tag);
    request_headers.get_all(name).iter().any(|line| {
        let text = line.as_bytes().trim_ascii();
        text == b"*" || own.is_some_and(|own| tags(text).any(|tag| matches(tag, own)))
    })
}

/// The entity tags of one line of a list.
fn tags(line: &[u8]) -> impl Iterator<Item = EntityTag<'_>> {
    let mut rest = line;
    from_fn(move || {
        let start = rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let (tag, after) = EntityTag::read(rest.get(start..)?)?;
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
        Some(tag)
    })
}

/// The entity tag of a response; `None` when it is absent, malformed or given twice.
fn entity_tag(headers: &HeaderMap) -> Option<(&HeaderValue, EntityTag<'_>)> {
    let mut lines = headers.get_all(ETAG).iter();
    let value = lines.next()?;
    let (tag, rest) = EntityTag::read(value.as_bytes())?;
    (rest.is_empty() && lines.next().is_none()).then_some((value, tag))
}

/// Whether a Last-Modified date is a strong validator: the origin's clock had passed it by a
/// second, so a second change in the same second would have shown (RFC 9110 §8.8.2.2).
pub(super) fn is_strong_date(modified: SystemTime, date_value: SystemTime) -> bool {
    date_value
        .duration_since(modified)
        .is_ok_and(|margin| margin >= Duration::from_secs(1))
}

/// `etagc`: %x21, %x23-7E and obs-text.
fn is_etagc(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

/// Replaces in `old` all lines of each name that `update` has; order and repeats are kept.
fn merge(old: &HeaderMap, update: &HeaderMap) -> HeaderMap {
    let replaced = |name: &HeaderName| update.contains_key(name) && !OF_THE_BYTES.contains(name);
    let mut merged = HeaderMap::with_capacity(old.keys_len());
    for (name, value) in old {
        if !replaced(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    for (name, value) in update {
        if replaced(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

fn withdrawn(directives: &ResponseDirectives) -> bool {
    let no_store = directives.no_store && !directives.must_understand;
    directives.malformed || no_store || directives.private.is_whole()
}

/// Returns whether the 304 selects by no other fields than the stored response was filed under.
/// Fewer are fine: the response then stays filed under more fields than it need be.
fn same_selection(update: &HeaderMap, stored: &StoredResponse) -> bool {
    if !update.contains_key(VARY) {
        return true;
    }
    match Vary::read(update) {
        Vary::Any => false,
        Vary::Fields(fields) => fields.iter().all(|name| stored.vary.contains(name)),
    }
}

fn copy_all(from: &HeaderMap, name: &HeaderName, to: &mut HeaderMap) {
    for value in from.get_all(name) {
        to.append(name.clone(), value.clone());
    }
}

/// The request fields of RFC 9110 §13.1 that make a whole request conditional.
const CONDITIONS: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];
/// Fields that describe the stored bytes, which a 304 does not bring anew.
const OF_THE_BYTES: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    CONTENT_RANGE,
];
/// What a 304 repeats of the 200 (RFC 9110 §15.4.5); the last is its targeted kin (RFC 9213).
const NOT_MODIFIED_FIELDS: [HeaderName; 7] = [
    CACHE_CONTROL,
    CONTENT_LOCATION,
    DATE,
    ETAG,
    EXPIRES,
    VARY,
    HeaderName::from_static("cdn-cache-control"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::address::Digest;
    use crate::rules::key::PrimaryKey;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use crate::rules::tag::Names;
    use http::header::AGE;
    use http::header::SET_COOKIE;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;

    /// Fields of every kind that a 304 may bring and that change no verdict.
    const NAMES: [&str; 8] = [
        "content-digest",
        "content-encoding",
        "content-md5",
        "content-range",
        "content-type",
        "link",
        "set-cookie",
        "x",
    ];
    const EARLY: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 16:00:00 GMT";

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn at(date: &str) -> SystemTime {
        httpdate::parse_http_date(date).unwrap()
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn stored(lines: &[(&'static str, &str)]) -> StoredResponse {
        StoredResponse {
            key: PrimaryKey([0; 16]),
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            names: Names::default(),
            status: StatusCode::OK,
            headers: fields(lines),
            timing: Timing {
                request_time: at(NOON),
                response_time: at(NOON),
                date_value: at(NOON),
                age_value: secs(7),
            },
            lifetime: secs(60),
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: Validators::read(&fields(lines)),
            body_bytes: 5,
            body: Digest([1; 32]),
            part: None,
        }
    }

    fn parts(lines: &[(&'static str, &str)]) -> Parts {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers = fields(lines);
        parts
    }

    fn freshened(old: &StoredResponse, lines: &[(&'static str, &str)]) -> StoredResponse {
        let policy = StorePolicy::default();
        freshen(old, &parts(lines), &policy, at(LATE) - secs(1), at(LATE))
    }

    fn evaluate(request: &[(&'static str, &str)], response: &[(&'static str, &str)]) -> Condition {
        Condition::evaluate(&fields(request), &stored(response))
    }

    fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn validators_are_read_alone_and_together() {
        let etag = HeaderValue::from_static("W/\"a\"");
        let last_modified = HeaderValue::from_static(NOON);
        let only_tag = fields(&[("etag", "W/\"a\"")]);
        assert_eq!(
            Validators::read(&only_tag),
            Some(Validators::ETag(etag.clone()))
        );
        let only_date = fields(&[("last-modified", NOON)]);
        assert_eq!(
            Validators::read(&only_date),
            Some(Validators::LastModified(last_modified.clone()))
        );
        let both = fields(&[("etag", "W/\"a\""), ("last-modified", NOON)]);
        assert_eq!(
            Validators::read(&both),
            Some(Validators::Both {
                etag,
                last_modified
            })
        );
        assert_eq!(Validators::read(&HeaderMap::new()), None);
    }

    #[test]
    fn a_malformed_entity_tag_is_no_validator() {
        for value in [
            "a", "\"a", "a\"", "'a'", "w/\"a\"", "W/a", "\"a b\"", "\"a\"b", "", "*",
        ] {
            assert_eq!(
                Validators::read(&fields(&[("etag", value)])),
                None,
                "{value}"
            );
        }
    }

    #[test]
    fn validators_given_twice_are_none() {
        let twice = [("etag", "\"a\""), ("etag", "\"b\"")];
        assert_eq!(Validators::read(&fields(&twice)), None);
        let twice = [("last-modified", EARLY), ("last-modified", NOON)];
        assert_eq!(Validators::read(&fields(&twice)), None);
    }

    #[test]
    fn our_conditions_take_the_place_of_the_clients() {
        let mut request = fields(&[
            ("if-none-match", "\"mine\""),
            ("if-none-match", "\"mine2\""),
            ("if-modified-since", LATE),
            ("if-match", "\"mine\""),
            ("if-unmodified-since", LATE),
            ("if-range", "\"mine\""),
            ("range", "bytes=0-1"),
            ("accept", "*/*"),
        ]);
        let ours = [("etag", "\"a\""), ("last-modified", NOON)];
        Validators::read(&fields(&ours))
            .unwrap()
            .condition(&mut request);
        let wanted = [
            ("accept", "*/*"),
            ("if-none-match", "\"a\""),
            ("if-modified-since", NOON),
        ];
        assert_eq!(request, fields(&wanted));
    }

    #[test]
    fn without_conditions_the_whole_response_is_asked_for() {
        let mut request = fields(&[("if-none-match", "*"), ("range", "bytes=0-1"), ("a", "b")]);
        unconditional(&mut request);
        assert_eq!(request, fields(&[("a", "b")]));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (asked, own) in [
            ("\"a\"", "\"a\""),
            ("W/\"a\"", "\"a\""),
            ("\"a\"", "W/\"a\""),
            ("\"x\", W/\"y\",\"a\"", "\"a\""),
            (" ,\"x\" ,, \"a\" ", "\"a\""),
            ("\"x,y\", \"a\"", "\"a\""),
            ("*", "\"a\""),
        ] {
            let verdict = evaluate(&[("if-none-match", asked)], &[("etag", own)]);
            assert_eq!(verdict, Condition::NotModified, "{asked} {own}");
        }
    }

    #[test]
    fn another_entity_tag_gets_the_response() {
        for asked in [
            "\"b\"",
            "a",
            "\"A\"",
            "\"x\" \"a\"",
            "\"*\"",
            "",
            "\"a\"\"b\", x",
        ] {
            let verdict = evaluate(&[("if-none-match", asked)], &[("etag", "\"a\"")]);
            assert_eq!(verdict, Condition::Proceed, "{asked}");
        }
    }

    #[test]
    fn all_lines_of_if_none_match_count() {
        let asked = [("if-none-match", "\"x\""), ("if-none-match", "\"a\"")];
        let verdict = evaluate(&asked, &[("etag", "\"a\"")]);
        assert_eq!(verdict, Condition::NotModified);
    }

    #[test]
    fn if_modified_since_compares_with_last_modified() {
        let own = [("last-modified", NOON)];
        for (since, wanted) in [
            (EARLY, Condition::Proceed),
            (NOON, Condition::NotModified),
            (LATE, Condition::NotModified),
            ("yesterday", Condition::Proceed),
        ] {
            assert_eq!(
                evaluate(&[("if-modified-since", since)], &own),
                wanted,
                "{since}"
            );
        }
    }

    #[test]
    fn if_modified_since_is_read_in_all_three_forms() {
        let own = [("last-modified", NOON)];
        for since in ["Sunday, 06-Nov-94 12:00:00 GMT", "Sun Nov  6 12:00:00 1994"] {
            let verdict = evaluate(&[("if-modified-since", since)], &own);
            assert_eq!(verdict, Condition::NotModified, "{since}");
        }
        for since in [
            "Sunday, 06-Nov-94 08:00:00 GMT",
            "Sun Nov  6 08:00:00 1994",
            "Sun, 06 Nov 1994 16:00:00 +0000",
            "784123200",
        ] {
            let verdict = evaluate(&[("if-modified-since", since)], &own);
            assert_eq!(verdict, Condition::Proceed, "{since}");
        }
    }

    #[test]
    fn if_modified_since_given_twice_is_ignored() {
        let asked = [("if-modified-since", LATE), ("if-modified-since", LATE)];
        let verdict = evaluate(&asked, &[("last-modified", NOON)]);
        assert_eq!(verdict, Condition::Proceed);
    }

    #[test]
    fn a_malformed_if_none_match_still_silences_if_modified_since() {
        let asked = [("if-none-match", "a"), ("if-modified-since", LATE)];
        let own = [("etag", "\"a\""), ("last-modified", NOON)];
        assert_eq!(evaluate(&asked, &own), Condition::Proceed);
    }

    #[test]
    fn the_date_stands_in_for_last_modified() {
        let asked = |since| evaluate(&[("if-modified-since", since)], &[]);
        assert_eq!(asked(NOON), Condition::NotModified);
        assert_eq!(asked(LATE), Condition::NotModified);
        // Made after the client's: "modified since", whatever it was made from.
        assert_eq!(asked(EARLY), Condition::Proceed);
    }

    #[test]
    fn if_none_match_silences_if_modified_since() {
        let asked = [("if-none-match", "\"b\""), ("if-modified-since", LATE)];
        let own = [("etag", "\"a\""), ("last-modified", NOON)];
        assert_eq!(evaluate(&asked, &own), Condition::Proceed);
    }

    #[test]
    fn what_is_for_the_origin_only_is_not_evaluated() {
        let own = [("etag", "\"a\""), ("last-modified", NOON)];
        for asked in [
            &[("if-match", "\"b\"")][..],
            &[("if-unmodified-since", EARLY)],
        ] {
            assert_eq!(evaluate(asked, &own), Condition::Proceed, "{asked:?}");
        }
        let both = [("if-match", "\"b\""), ("if-none-match", "\"a\"")];
        assert_eq!(evaluate(&both, &own), Condition::NotModified);
    }

    #[test]
    fn no_part_answers_who_names_another_response() {
        let own = stored(&[("etag", "\"a\""), ("last-modified", NOON)]);
        for (asked, wanted) in [
            (&[][..], true),
            (&[("if-match", "\"a\"")], true),
            (&[("if-match", "*")], true),
            (&[("if-match", "\"b\"")], false),
            (&[("if-match", "W/\"a\"")], false),
            (&[("if-unmodified-since", NOON)], true),
            (&[("if-unmodified-since", EARLY)], false),
            (&[("if-unmodified-since", "yesterday")], false),
            // If-Match counts alone where there are both (RFC 9110 §13.2.2).
            (
                &[("if-match", "\"a\""), ("if-unmodified-since", EARLY)],
                true,
            ),
        ] {
            assert_eq!(permits_part(&fields(asked), &own), wanted, "{asked:?}");
        }
        assert!(!permits_part(
            &fields(&[("if-unmodified-since", NOON)]),
            &stored(&[])
        ));
    }

    #[test]
    fn conditions_do_not_apply_to_what_is_no_success() {
        let not_found = StoredResponse {
            status: StatusCode::NOT_FOUND,
            ..stored(&[("etag", "\"a\"")])
        };
        let asked = fields(&[("if-none-match", "\"a\"")]);
        assert_eq!(Condition::evaluate(&asked, &not_found), Condition::Proceed);
    }

    #[test]
    fn a_full_answer_supersedes_and_a_passing_error_does_not() {
        for (status, wanted) in [
            (200, true),
            (204, true),
            (301, true),
            (404, true),
            (410, true),
            (206, false),
            (304, false),
            (403, false),
            (416, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(supersedes(status), wanted, "{status}");
        }
    }

    #[test]
    fn a_304_selects_by_its_strongest_validator() {
        let own = stored(&[("etag", "\"a\""), ("last-modified", NOON)]);
        for (brought, wanted) in [
            (&[("etag", "\"a\""), ("last-modified", LATE)][..], true),
            (&[("etag", "W/\"a\"")], true),
            (&[("etag", "\"b\""), ("last-modified", NOON)], false),
            (&[("last-modified", NOON)], true),
            (&[("last-modified", LATE)], false),
            (&[("etag", "unquoted")], true),
            (&[], true),
        ] {
            assert_eq!(selects(&parts(brought), &own), wanted, "{brought:?}");
        }
    }

    #[test]
    fn a_strong_tag_does_not_select_a_weakly_tagged_response() {
        let own = stored(&[("etag", "W/\"a\"")]);
        assert!(!selects(&parts(&[("etag", "\"a\"")]), &own));
        assert!(!selects(&parts(&[("etag", "\"a\"")]), &stored(&[])));
    }

    #[test]
    fn fields_of_a_304_replace_all_lines_of_their_name() {
        let own = stored(&[
            ("link", "<a>"),
            ("link", "<b>"),
            ("x", "kept"),
            ("etag", "\"a\""),
        ]);
        let new = freshened(&own, &[("link", "<c>"), ("link", "<d>"), ("y", "new")]);
        assert_eq!(lines(&new.headers, "link"), ["<c>", "<d>"]);
        assert_eq!(lines(&new.headers, "x"), ["kept"]);
        assert_eq!(lines(&new.headers, "y"), ["new"]);
    }

    #[test]
    fn a_304_does_not_say_anew_how_the_stored_bytes_are_coded() {
        let own = stored(&[("content-md5", "old"), ("etag", "\"a\"")]);
        let new = freshened(
            &own,
            &[
                ("content-encoding", "gzip"),
                ("content-range", "bytes 0-1/2"),
                ("content-length", "0"),
                ("content-digest", "sha-256=:new:"),
                ("content-md5", "new"),
            ],
        );
        for name in ["content-encoding", "content-range", "content-digest"] {
            assert!(!new.headers.contains_key(name), "{name}");
        }
        assert!(!new.headers.contains_key("content-length"));
        assert_eq!(lines(&new.headers, "content-md5"), ["old"]);
        assert_eq!((new.body_bytes, new.body), (own.body_bytes, own.body));
    }

    #[test]
    fn a_304_updates_every_other_field_whatever_its_name_begins_with() {
        let own = stored(&[("content-type", "text/css"), ("etag", "\"a\"")]);
        for name in [
            "content-type",
            "content-language",
            "content-location",
            "content-disposition",
            "content-foo",
            "set-cookie2",
            "clear-site-data",
        ] {
            let new = freshened(&own, &[(name, "new")]);
            assert_eq!(lines(&new.headers, name), ["new"]);
        }
    }

    #[test]
    fn two_vary_lines_come_through_a_304() {
        let own = StoredResponse {
            vary: vec![HeaderName::from_static("a"), HeaderName::from_static("b")],
            ..stored(&[
                ("vary", "a"),
                ("vary", "b"),
                ("cache-control", "max-age=60"),
            ])
        };
        let kept = freshened(&own, &[]);
        assert_eq!(lines(&kept.headers, "vary"), ["a", "b"]);
        let again = freshened(&own, &[("vary", "b"), ("vary", "a")]);
        assert_eq!(lines(&again.headers, "vary"), ["b", "a"]);
        assert_eq!(again.vary, own.vary);
        assert!(again.worth_keeping(at(LATE)));
    }

    #[test]
    fn a_304_selects_others_by_strong_validators_only() {
        let own = stored(&[("etag", "\"a\""), ("last-modified", EARLY)]);
        for (brought, wanted) in [
            (&[("etag", "\"a\"")][..], true),
            (&[("etag", "W/\"a\"")], false),
            (&[("etag", "\"b\""), ("last-modified", EARLY)], false),
            (&[("last-modified", EARLY)], true),
            (&[("last-modified", NOON)], false),
            (&[], false),
        ] {
            assert_eq!(
                selects_strongly(&parts(brought), &own),
                wanted,
                "{brought:?}"
            );
        }
        // Dated in the second in which it was modified: it may have changed again in it.
        let weak = stored(&[("last-modified", NOON)]);
        assert!(!selects_strongly(&parts(&[("last-modified", NOON)]), &weak));
        assert!(!selects_strongly(&parts(&[("etag", "\"a\"")]), &weak));
    }

    #[test]
    fn a_head_describes_what_has_its_validators_and_its_length() {
        let own = stored(&[("etag", "\"a\""), ("last-modified", NOON)]);
        for (brought, wanted) in [
            (&[("etag", "\"a\"")][..], Some(true)),
            (&[("last-modified", NOON)], Some(true)),
            (&[("content-length", "5")], Some(true)),
            (&[("etag", "\"a\""), ("content-length", "5")], Some(true)),
            (&[("etag", "\"a\""), ("content-length", "6")], Some(false)),
            (&[("etag", "\"b\""), ("content-length", "5")], Some(false)),
            (&[("etag", "W/\"a\"")], Some(false)),
            (&[("etag", "a")], Some(false)),
            (&[("etag", "\"a\""), ("last-modified", LATE)], Some(false)),
            (&[("last-modified", "today")], Some(false)),
            (
                &[("content-length", "5"), ("content-length", "6")],
                Some(false),
            ),
            (&[("x", "y")], None),
        ] {
            assert_eq!(describes(&parts(brought), &own), wanted, "{brought:?}");
        }
        let plain = stored(&[]);
        assert_eq!(describes(&parts(&[("etag", "\"a\"")]), &plain), Some(false));
        assert_eq!(
            describes(&parts(&[("content-length", "5")]), &plain),
            Some(true)
        );
    }

    #[test]
    fn hop_by_hop_and_connection_named_fields_of_a_304_are_not_merged() {
        let own = stored(&[("x-hop", "old"), ("etag", "\"a\"")]);
        let new = freshened(
            &own,
            &[
                ("connection", "X-Hop, close"),
                ("x-hop", "new"),
                ("keep-alive", "timeout=5"),
            ],
        );
        assert_eq!(lines(&new.headers, "x-hop"), ["old"]);
        assert!(!new.headers.contains_key("connection"));
        assert!(!new.headers.contains_key("keep-alive"));
    }

    #[test]
    fn a_304_starts_a_new_life() {
        let own = stored(&[("cache-control", "max-age=60"), ("date", NOON)]);
        let new = freshened(
            &own,
            &[
                ("cache-control", "max-age=90, stale-if-error=5"),
                ("date", LATE),
                ("age", "3"),
            ],
        );
        assert_eq!(new.lifetime, secs(90));
        assert_eq!(new.stale.if_error, secs(5));
        assert_eq!(
            new.timing,
            Timing {
                request_time: at(LATE) - secs(1),
                response_time: at(LATE),
                date_value: at(LATE),
                age_value: secs(3),
            }
        );
        assert!(!new.headers.contains_key(AGE));
    }

    #[test]
    fn a_304_without_directives_renews_the_old_lifetime() {
        let own = stored(&[("cache-control", "max-age=60"), ("date", NOON)]);
        let new = freshened(&own, &[]);
        assert_eq!(new.lifetime, secs(60));
        assert_eq!(new.timing.current_age(at(LATE)), secs(1));
        assert_eq!(lines(&new.headers, "date"), [LATE]);
    }

    #[test]
    fn a_304_can_bring_a_new_validator() {
        let own = stored(&[("cache-control", "max-age=60"), ("last-modified", NOON)]);
        let new = freshened(&own, &[("etag", "\"b\"")]);
        assert_eq!(new.validators, Validators::read(&new.headers));
        assert!(matches!(new.validators, Some(Validators::Both { .. })));
    }

    #[test]
    fn a_304_that_withdraws_condemns_the_stored_response() {
        let own = stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
        for text in ["no-store, max-age=60", "private", "max-age=\"60"] {
            let new = freshened(&own, &[("cache-control", text)]);
            assert!(!new.worth_keeping(at(LATE)), "{text}");
        }
    }

    #[test]
    fn a_304_that_selects_by_more_fields_condemns_the_stored_response() {
        let own = StoredResponse {
            vary: vec![HeaderName::from_static("accept-language")],
            ..stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")])
        };
        for (vary, kept) in [
            ("Accept-Language", true),
            ("", true),
            ("accept-language, accept", false),
            ("*", false),
        ] {
            let new = freshened(&own, &[("vary", vary)]);
            assert_eq!(new.worth_keeping(at(LATE)), kept, "{vary}");
            assert_eq!((new.variant, &new.vary), (own.variant, &own.vary));
        }
    }

    #[test]
    fn cookies_of_a_304_are_not_kept() {
        let own = stored(&[("cache-control", "max-age=60"), ("etag", "\"a\"")]);
        let new = freshened(&own, &[("set-cookie", "a=b")]);
        assert!(!new.headers.contains_key(SET_COOKIE));
    }

    #[test]
    fn fields_that_a_304_makes_private_are_taken_off() {
        let own = stored(&[("x-user", "u"), ("etag", "\"a\"")]);
        let text = "max-age=60, private=\"x-user\"";
        let new = freshened(&own, &[("cache-control", text), ("x-user", "v")]);
        assert!(!new.headers.contains_key("x-user"));
        assert!(new.worth_keeping(at(LATE)));
    }

    #[test]
    fn a_304_gives_as_many_fields_as_a_200_would() {
        let own = fields(&[
            ("cache-control", "max-age=60"),
            ("content-location", "/a"),
            ("date", NOON),
            ("etag", "\"a\""),
            ("expires", LATE),
            ("vary", "a"),
            ("vary", "b"),
            ("cdn-cache-control", "max-age=9"),
        ]);
        let mut all = own.clone();
        for name in ["last-modified", "content-type", "set-cookie", "x-other"] {
            all.append(name, HeaderValue::from_static("x"));
        }
        assert_eq!(not_modified_fields(&all), own);
    }

    #[test]
    fn a_304_gives_last_modified_where_there_is_no_entity_tag() {
        let own = fields(&[("last-modified", NOON), ("content-type", "text/css")]);
        let wanted = fields(&[("last-modified", NOON)]);
        assert_eq!(not_modified_fields(&own), wanted);
    }

    proptest! {
        #[test]
        fn no_condition_makes_the_evaluation_panic(
            name in 0..CONDITIONS.len(),
            text in any::<Vec<u8>>(),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                let mut request = HeaderMap::new();
                request.append(CONDITIONS[name].clone(), value);
                let own = stored(&[("etag", "\"a\""), ("last-modified", NOON)]);
                let _verdict = Condition::evaluate(&request, &own);
            }
        }

        #[test]
        fn a_304_replaces_the_fields_it_has_and_no_others(
            old in proptest::collection::vec((0..NAMES.len(), "[a-z]{0,3}"), 0..12),
            new in proptest::collection::vec((0..NAMES.len(), "[a-z]{0,3}"), 0..12),
        ) {
            let named = |lines: &[(usize, String)]| {
                let mut headers = fields(&[("date", NOON)]);
                for (name, value) in lines {
                    let value = HeaderValue::from_str(value).unwrap();
                    headers.append(HeaderName::from_static(NAMES[*name]), value);
                }
                headers
            };
            let own = StoredResponse { headers: named(&old), ..stored(&[]) };
            let mut head = parts(&[]);
            head.headers = named(&new);
            let policy = StorePolicy { set_cookie: true, ..StorePolicy::default() };
            let fresh = freshen(&own, &head, &policy, at(LATE), at(LATE));
            let again = freshen(&fresh, &head, &policy, at(LATE), at(LATE));
            prop_assert_eq!(&again, &fresh);
            prop_assert_eq!((fresh.body, fresh.body_bytes), (own.body, own.body_bytes));
            for name in NAMES.map(HeaderName::from_static) {
                let brought = head.headers.contains_key(&name) && !OF_THE_BYTES.contains(&name);
                let from = if brought { &head.headers } else { &own.headers };
                let wanted: Vec<_> = from.get_all(&name).iter().collect();
                let got: Vec<_> = fresh.headers.get_all(&name).iter().collect();
                prop_assert_eq!(got, wanted, "{}", name);
            }
        }

        #[test]
        fn every_well_formed_entity_tag_is_read_whole(
            weak in any::<bool>(),
            inside in "[!#-~]{0,20}",
        ) {
            let text = format!("{}\"{inside}\"", if weak { "W/" } else { "" });
            let (tag, rest) = EntityTag::read(text.as_bytes()).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(tag.weak, weak);
            prop_assert_eq!(tag.opaque.len(), inside.len() + 2);
        }
    }
}
