//! A stored response without its body: everything a hit needs, computed once when it was stored.
//!
//! [`storable`](super::storable) makes one from what the origin sent, and
//! [`validation`](super::validation) makes the next one from a 304. Both leave it to this file
//! which fields are kept (RFC 9111 §3.1) and what the kept response may do.

use super::address::Digest;
use super::directives::DELTA_SECONDS_MAX;
use super::directives::ResponseDirectives;
use super::fields::connection_options;
use super::fields::is_hop_by_hop;
use super::freshness::Freshness;
use super::freshness::Lifetime;
use super::freshness::Timing;
use super::freshness::date_field;
use super::freshness::freshness_lifetime;
use super::freshness::write_date;
use super::key::PrimaryKey;
use super::key::VariantKey;
use super::part::Part;
use super::selecting::BEST_LANGUAGE;
use super::selecting::content_language;
use super::storable::StorePolicy;
use super::tag::Names;
use super::validation::Validators;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header::ACCEPT_LANGUAGE;
use http::header::AGE;
use http::header::CONTENT_LENGTH;
use http::header::CONTENT_RANGE;
use http::header::DATE;
use http::header::SET_COOKIE;
use std::time::Duration;
use std::time::SystemTime;

/// The head of a stored response and the verdicts reached about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The key it answers (RFC 9111 §2).
    pub key: PrimaryKey,
    /// Which variant of that key it is (RFC 9111 §4.1).
    pub variant: VariantKey,
    /// The fields its `Vary` named, lower case, sorted, without repeats; empty when it had none.
    pub vary: Vec<HeaderName>,
    /// What purges find it by.
    pub names: Names,
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end fields, in order, repeats kept; without Age, hop-by-hop and
    /// Connection-named fields and Content-Length. There is always one readable Date.
    pub headers: HeaderMap,
    /// When it travelled.
    pub timing: Timing,
    /// The freshness lifetime it was granted (RFC 9111 §4.2.1, §4.2.2).
    pub lifetime: Duration,
    /// How long past its freshness it may still be served.
    pub stale: StaleWindow,
    /// It must be validated before each use (`no-cache` without field names).
    pub validate_always: bool,
    /// It must not be served stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub must_revalidate: bool,
    /// What lets the origin recognise it.
    pub validators: Option<Validators>,
    /// The length of its body.
    pub body_bytes: u64,
    /// The name of its body.
    pub body: Digest,
    /// Which part of the representation the body is; none when it is all of it.
    pub part: Option<Part>,
}

/// How long past its freshness a response may still be served (RFC 5861).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleWindow {
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub while_revalidate: Duration,
    /// `stale-if-error` (RFC 5861 §4).
    pub if_error: Duration,
}

/// What the fields of a response say about its freshness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'p> {
    /// The lifetime they grant; none when they grant none and none may be guessed.
    pub lifetime: Option<Lifetime>,
    /// The targeted field that decides (RFC 9213 §2.2); none where it is Cache-Control.
    pub field: Option<&'p HeaderName>,
}

impl StoredResponse {
    /// Adds fields to select by to those that its `Vary` named.
    pub fn select_by(&mut self, fields: &[HeaderName], request_headers: &HeaderMap) {
        if fields.iter().all(|name| self.vary.contains(name)) {
            return;
        }
        self.vary.extend_from_slice(fields);
        self.vary
            .sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        self.vary.dedup();
        self.variant = VariantKey::new(&self.vary, request_headers);
    }

    /// The same response as an answer for whoever likes its language best, if it is complete, in one
    /// language, and varies by Accept-Language.
    ///
    /// It can be used while it is fresh only: what the origin makes of another client's preferences
    /// after that is asked anew.
    pub fn by_language(&self, request_headers: &HeaderMap) -> Option<Self> {
        let language = content_language(&self.headers).filter(|_| self.part.is_none())?;
        let mut vary = self.vary.clone();
        *vary.iter_mut().find(|name| **name == ACCEPT_LANGUAGE)? = BEST_LANGUAGE;
        let mut selecting = request_headers.clone();
        selecting.insert(ACCEPT_LANGUAGE, language.clone());
        Some(Self {
            variant: VariantKey::new(&vary, &selecting),
            vary,
            stale: StaleWindow::default(),
            validators: None,
            ..self.clone()
        })
    }

    /// Is it one of those that [`by_language`](Self::by_language) makes?
    pub fn is_by_language(&self) -> bool {
        self.vary.contains(&BEST_LANGUAGE)
    }

    /// Copies the field values into one buffer of their own: those that were read from a connection
    /// are parts of a larger one, which they would keep in memory.
    pub fn detach(&mut self) {
        let bytes = self.headers.values().map(HeaderValue::len).sum();
        let mut buffer = BytesMut::with_capacity(bytes);
        for value in self.headers.values_mut() {
            buffer.extend_from_slice(value.as_bytes());
            // A value stays what it was; the check cannot fail.
            if let Ok(copy) = HeaderValue::from_maybe_shared(buffer.split().freeze()) {
                *value = copy;
            }
        }
    }

    /// Returns whether it is fresh at `now`.
    ///
    /// One that seems to have arrived later than now is as stale as can be: the clock was set back,
    /// and counting on from there would keep it fresh for as long as the step was.
    pub fn freshness(&self, now: SystemTime) -> Freshness {
        self.freshness_at(self.timing.current_age(now), now)
    }

    /// As [`freshness`](Self::freshness), where its current age at `now` is known.
    pub fn freshness_at(&self, current_age: Duration, now: SystemTime) -> Freshness {
        if self.timing.is_ahead_of(now) {
            let by = DELTA_SECONDS_MAX;
            return Freshness::Stale { by };
        }
        Freshness::new(self.lifetime, current_age)
    }

    /// The same response as one that is stale since `since`, unless it is stale for longer. What it
    /// may do then is what it may do when it is stale.
    #[must_use]
    pub fn stale_since(&self, since: SystemTime) -> Self {
        let reached = self.timing.current_age(since);
        Self {
            lifetime: self.lifetime.min(reached),
            ..self.clone()
        }
    }

    /// The length of the representation, of which the body may be a part.
    pub fn complete_bytes(&self) -> u64 {
        self.part.map_or(self.body_bytes, |part| part.complete)
    }

    /// Returns whether it can ever answer a request after `now`: it is still fresh, may be served
    /// stale, or can be validated. One that cannot only takes up room.
    pub fn worth_keeping(&self, now: SystemTime) -> bool {
        if self.validators.is_some() {
            return true;
        }
        if self.validate_always {
            return false;
        }
        match self.freshness(now) {
            Freshness::Fresh { .. } => true,
            Freshness::Stale { .. } if self.must_revalidate => false,
            Freshness::Stale { by } => by < self.stale.while_revalidate.max(self.stale.if_error),
        }
    }

    /// What its fields say about its freshness under `policy`. That may be another than the one it was
    /// stored under: then [`lifetime`](Self::lifetime) is what counts.
    pub fn grant<'p>(&self, policy: &'p StorePolicy) -> Grant<'p> {
        let (directives, field) =
            ResponseDirectives::read_speaking(&self.headers, &policy.targeted);
        let lifetime = freshness_lifetime(
            self.status,
            &self.headers,
            &directives,
            self.timing.date_value,
            policy.heuristic_max,
        );
        Grant { lifetime, field }
    }

    /// Takes every permission away: [`worth_keeping`](Self::worth_keeping) is false from now on
    /// and [`Reuse::decide`](super::reuse::Reuse::decide) always forwards.
    pub fn condemn(&mut self) {
        self.validate_always = true;
        self.validators = None;
        self.stale = StaleWindow::default();
    }

    /// Reaches every verdict that hangs on the fields, the timing and the origin's directives.
    ///
    /// Returns whether a freshness lifetime was granted or guessed; without one it is zero.
    pub(super) fn judge(&mut self, directives: &ResponseDirectives, policy: &StorePolicy) -> bool {
        let lifetime = freshness_lifetime(
            self.status,
            &self.headers,
            directives,
            self.timing.date_value,
            policy.heuristic_max,
        );
        self.lifetime = lifetime.map_or(Duration::ZERO, |lifetime| lifetime.length);
        self.stale = StaleWindow {
            while_revalidate: directives
                .stale_while_revalidate
                .unwrap_or(policy.stale_while_revalidate),
            if_error: directives.stale_if_error.unwrap_or(policy.stale_if_error),
        };
        self.validate_always = directives.no_cache.is_whole();
        self.must_revalidate = directives.forbid_stale();
        self.validators = Validators::read(&self.headers);
        lifetime.is_some()
    }
}

/// Copies the fields of a received response that may be kept (RFC 9111 §3.1), repeats included.
///
/// Left out are hop-by-hop fields and those that Connection names, Age and Content-Length, which
/// are computed anew for each answer, and what `private` or `no-cache` lists. A Date that is
/// missing or unreadable is replaced by the time of arrival (RFC 9110 §6.6.1).
pub(super) fn kept_fields(
    received: &HeaderMap,
    directives: &ResponseDirectives,
    response_time: SystemTime,
) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(received.keys_len());
    let named = connection_options(received);
    for (name, value) in received {
        let computed = *name == AGE || *name == CONTENT_LENGTH;
        if !computed
            && !is_hop_by_hop(name.as_str())
            && !named.contains(name)
            && !directives.withhold(name)
        {
            kept.append(name.clone(), value.clone());
        }
    }
    if date_field(&kept, &DATE).is_none() {
        kept.insert(DATE, write_date(response_time));
    }
    kept
}

/// The fields of a received response that are not kept because they are for the one who asked: what
/// `private` or `no-cache` lists (RFC 9111 §5.2.2.4, §5.2.2.7), and cookies unless the policy keeps
/// them. The answer to that one is to have them, but for what is computed anew for each answer: of
/// the origin's own body it may get a part.
pub fn withheld_fields(received: &HeaderMap, policy: &StorePolicy) -> HeaderMap {
    let directives = ResponseDirectives::read_targeted(received, &policy.targeted);
    let mut withheld = end_to_end(received);
    let kept: Vec<HeaderName> = withheld
        .keys()
        .filter(|name| {
            let own = directives.withhold(name) || (!policy.set_cookie && **name == SET_COOKIE);
            !own || COMPUTED.contains(name)
        })
        .cloned()
        .collect();
    for name in kept {
        withheld.remove(name);
    }
    withheld
}

/// The fields of a response that is passed on without being stored: all but those that belong to
/// the connection it came over (RFC 9110 §7.6.1). A Date that is missing or unreadable is replaced
/// by the time of arrival (RFC 9110 §6.6.1).
pub fn passed_fields(received: &HeaderMap, response_time: SystemTime) -> HeaderMap {
    let mut passed = end_to_end(received);
    if date_field(&passed, &DATE).is_none() {
        passed.insert(DATE, write_date(response_time));
    }
    passed
}

/// Copies the fields that do not belong to the connection (RFC 9110 §7.6.1), repeats included.
fn end_to_end(received: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(received.keys_len());
    let named = connection_options(received);
    for (name, value) in received {
        if !is_hop_by_hop(name.as_str()) && !named.contains(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// Fields that each answer has of its own, by its age and by what it takes of the body.
const COMPUTED: [HeaderName; 3] = [AGE, CONTENT_LENGTH, CONTENT_RANGE];

/// Takes off Set-Cookie unless the policy keeps it.
pub(super) fn withhold_cookies(headers: &mut HeaderMap, policy: &StorePolicy) {
    if !policy.set_cookie {
        headers.remove(SET_COOKIE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn kept(lines: &[(&'static str, &str)]) -> HeaderMap {
        let received = fields(lines);
        kept_fields(&received, &ResponseDirectives::read(&received), noon())
    }

    #[test]
    fn a_passed_response_has_one_date_that_can_be_read() {
        let date = |lines: &[(&'static str, &str)]| {
            let passed = passed_fields(&fields(lines), noon());
            let dates = passed.get_all("date").iter().cloned();
            dates.collect::<Vec<_>>()
        };
        assert_eq!(date(&[]), [NOON]);
        assert_eq!(date(&[("date", "yesterday")]), [NOON]);
        let early = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(date(&[("date", early)]), [early]);
    }

    #[test]
    fn a_passed_response_leaves_the_connections_fields_behind() {
        let lines = [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "etag"),
            ("upgrade", "h2c"),
            ("link", "<a>"),
            ("link", "<b>"),
            ("date", NOON),
        ];
        let passed = passed_fields(&fields(&lines), noon());
        let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["link", "link", "date"]);
    }

    #[test]
    fn repeated_lines_are_kept_in_order() {
        let lines = [("date", NOON), ("link", "<b>"), ("x", "1"), ("link", "<a>")];
        assert_eq!(kept(&lines), fields(&lines));
    }

    #[test]
    fn hop_by_hop_and_computed_fields_are_left_out() {
        let mut lines = vec![("date", NOON), ("age", "5"), ("content-length", "7")];
        lines.extend(
            super::super::fields::HOP_BY_HOP
                .iter()
                .map(|name| (*name, "x")),
        );
        assert_eq!(kept(&lines), fields(&[("date", NOON)]));
    }

    #[test]
    fn fields_that_connection_names_are_left_out() {
        let lines = [
            ("connection", "close, X-One"),
            ("connection", "x-two,,@"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("date", NOON),
        ];
        assert_eq!(kept(&lines), fields(&[("x-three", "3"), ("date", NOON)]));
    }

    #[test]
    fn fields_that_directives_withhold_are_left_out() {
        let cc = "private=\"x-user\", no-cache=\"set-cookie\", max-age=60";
        let lines = [
            ("cache-control", cc),
            ("x-user", "1"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("date", NOON),
        ];
        assert_eq!(
            kept(&lines),
            fields(&[("cache-control", cc), ("date", NOON)])
        );
    }

    #[test]
    fn what_is_withheld_from_the_store_is_for_the_one_who_asked() {
        let received = fields(&[
            (
                "cache-control",
                "private=\"x-user, connection, x-hop\", max-age=60",
            ),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-user", "1"),
            ("x-user", "2"),
            ("x-other", "1"),
            ("set-cookie", "a"),
        ]);
        let policy = StorePolicy::default();
        let users = [("x-user", "1"), ("x-user", "2"), ("set-cookie", "a")];
        assert_eq!(withheld_fields(&received, &policy), fields(&users));
        let policy = StorePolicy {
            set_cookie: true,
            ..policy
        };
        assert_eq!(withheld_fields(&received, &policy), fields(&users[..2]));
    }

    #[test]
    fn a_missing_unreadable_or_repeated_date_is_replaced() {
        let wanted = fields(&[("date", NOON)]);
        assert_eq!(kept(&[]), wanted);
        assert_eq!(kept(&[("date", "today")]), wanted);
        let late = "Sun, 06 Nov 1994 16:00:00 GMT";
        assert_eq!(kept(&[("date", late), ("date", late)]), wanted);
        assert_eq!(kept(&[("date", late)]), fields(&[("date", late)]));
    }
}
