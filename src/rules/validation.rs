//! Conditions, both ways: ours to the origin, the clients' to us; and what a 304 changes.
//!
//! ```text
//! stale ── Validators::condition ──► origin ── 304 ── selects ── freshen ──► fresh again
//! client's If-* ── Condition::evaluate ──► 200, 304 (not_modified_fields) or 412
//! ```
//!
//! Ranges and If-Range are evaluated in [`range`](super::range); when to validate is decided in
//! [`reuse`](super::reuse).

use super::directives::ResponseDirectives;
use super::freshness::Timing;
use super::freshness::date_field;
use super::key::Vary;
use super::storable::StorePolicy;
use super::stored::StoredResponse;
use super::stored::kept_fields;
use super::stored::withhold_cookies;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http::header::CONTENT_ENCODING;
use http::header::CONTENT_LOCATION;
use http::header::CONTENT_RANGE;
use http::header::CONTENT_TYPE;
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
    /// 412.
    PreconditionFailed,
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
    pub fn evaluate(request_headers: &HeaderMap, stored: &StoredResponse) -> Self {
        if !stored.status.is_success()
            || !CONDITIONS.iter().any(|c| request_headers.contains_key(c))
        {
            return Self::Proceed;
        }
        // The steps of §13.2.2, in their order.
        if !permitted(request_headers, stored) {
            return Self::PreconditionFailed;
        }
        if unchanged(request_headers, stored) {
            return Self::NotModified;
        }
        Self::Proceed
    }
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

/// Freshens a stored response with a 304 that [`selects`] it (RFC 9111 §3.2, §4.3.4).
///
/// Every field of the 304 replaces all lines of its name. Kept as they were are those that
/// describe the stored bytes, Content-Encoding, Content-Range and Content-Type, which §3.2 lets a
/// cache "automatically omit", and those never stored. All verdicts are reached anew.
///
/// A 304 can also withdraw what the response allowed: by `no-store`, `private`, an unreadable
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

/// If-Match, or else If-Unmodified-Since: does the client still want the answer?
///
/// RFC 9111 §4.3.2 calls both "not applicable to a cache", which may ignore them; they are
/// evaluated because a client that resumes a download must not be given another one's bytes.
fn permitted(request_headers: &HeaderMap, stored: &StoredResponse) -> bool {
    if request_headers.contains_key(IF_MATCH) {
        return any_tag(
            request_headers,
            &IF_MATCH,
            stored,
            EntityTag::matches_strongly,
        );
    }
    let since = date_field(request_headers, &IF_UNMODIFIED_SINCE);
    let modified = date_field(&stored.headers, &LAST_MODIFIED);
    match (since, modified) {
        (Some(since), Some(modified)) => modified <= since,
        _ => true,
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
    let modified = date_field(&stored.headers, &LAST_MODIFIED).unwrap_or(stored.timing.date_value);
    date_field(request_headers, &IF_MODIFIED_SINCE).is_some_and(|since| modified <= since)
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
const OF_THE_BYTES: [HeaderName; 3] = [CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE];
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
    use http::StatusCode;
    use http::header::AGE;
    use http::header::SET_COOKIE;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;
    use std::time::Duration;

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
    fn the_date_stands_in_for_last_modified() {
        let asked = |since| evaluate(&[("if-modified-since", since)], &[]);
        assert_eq!(asked(NOON), Condition::NotModified);
        assert_eq!(asked(EARLY), Condition::Proceed);
    }

    #[test]
    fn if_none_match_silences_if_modified_since() {
        let asked = [("if-none-match", "\"b\""), ("if-modified-since", LATE)];
        let own = [("etag", "\"a\""), ("last-modified", NOON)];
        assert_eq!(evaluate(&asked, &own), Condition::Proceed);
    }

    #[test]
    fn if_match_compares_strongly() {
        let asked = |tag| evaluate(&[("if-match", tag)], &[("etag", "\"a\"")]);
        assert_eq!(asked("\"a\""), Condition::Proceed);
        assert_eq!(asked("*"), Condition::Proceed);
        assert_eq!(asked("\"b\""), Condition::PreconditionFailed);
        assert_eq!(asked("W/\"a\""), Condition::PreconditionFailed);
        let weak = evaluate(&[("if-match", "W/\"a\"")], &[("etag", "W/\"a\"")]);
        assert_eq!(weak, Condition::PreconditionFailed);
    }

    #[test]
    fn if_unmodified_since_fails_when_modified_later() {
        let own = [("last-modified", NOON)];
        let asked = |since| evaluate(&[("if-unmodified-since", since)], &own);
        assert_eq!(asked(EARLY), Condition::PreconditionFailed);
        assert_eq!(asked(NOON), Condition::Proceed);
        assert_eq!(asked("yesterday"), Condition::Proceed);
        let undated = evaluate(&[("if-unmodified-since", EARLY)], &[]);
        assert_eq!(undated, Condition::Proceed);
    }

    #[test]
    fn if_match_silences_if_unmodified_since() {
        let asked = [("if-match", "\"a\""), ("if-unmodified-since", EARLY)];
        let own = [("etag", "\"a\""), ("last-modified", NOON)];
        assert_eq!(evaluate(&asked, &own), Condition::Proceed);
    }

    #[test]
    fn a_failed_precondition_stands_before_not_modified() {
        let asked = [("if-match", "\"b\""), ("if-none-match", "\"a\"")];
        let verdict = evaluate(&asked, &[("etag", "\"a\"")]);
        assert_eq!(verdict, Condition::PreconditionFailed);
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
    fn a_304_does_not_redescribe_the_stored_bytes() {
        let own = stored(&[("content-type", "text/css"), ("etag", "\"a\"")]);
        let new = freshened(
            &own,
            &[
                ("content-type", "text/html"),
                ("content-encoding", "gzip"),
                ("content-range", "bytes 0-1/2"),
                ("content-length", "0"),
            ],
        );
        assert_eq!(lines(&new.headers, "content-type"), ["text/css"]);
        for name in ["content-encoding", "content-range", "content-length"] {
            assert!(!new.headers.contains_key(name), "{name}");
        }
        assert_eq!((new.body_bytes, new.body), (own.body_bytes, own.body));
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
