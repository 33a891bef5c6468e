//! What may a stored response do for the request in hand? (RFC 9111 §4, RFC 5861)
//!
//! The stored response already matches the request by key and variant. What is left to ask is its
//! age: is it fresh, may it be served stale all the same, can the origin be asked about it? The
//! answers are given most generous first; who acts on them, and what `only-if-cached` makes of
//! having to ask the origin, is `flow`'s business.

use super::directives::RequestDirectives;
use super::freshness::Freshness;
use super::stored::StoredResponse;
use super::validation::Validators;
use std::time::Duration;
use std::time::SystemTime;

/// What was compared to find out what a stored response may do, and what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Weighed {
    /// How old it is (RFC 9111 §4.2.3).
    pub current_age: Duration,
    /// What that leaves of its freshness lifetime.
    pub freshness: Freshness,
    /// What decided.
    pub basis: Basis,
}

/// What decides whether a stored response may be served unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// It may: it is fresh (RFC 9111 §4.2).
    Fresh,
    /// It may: the client accepts it stale (RFC 9111 §5.2.1.2).
    MaxStale,
    /// It may not, for this reason.
    NotReusable(NotReusable),
    /// It may: it is in the window of `stale-while-revalidate` (RFC 5861 §3).
    StaleWhileRevalidate,
}

/// Why a stored response may not be served unasked; its token appears in Cache-Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotReusable {
    /// The clock was set back since it arrived, so nobody knows how old it is.
    ClockSetBack,
    /// Its freshness lifetime is over, and so is every window in which it may be served stale.
    Expired,
    /// It could be served stale, were it not for `must-revalidate` or its kin.
    MustRevalidate,
    /// `no-cache` in the response.
    NoCache,
    /// The client accepts nothing so old, or nothing stale (`max-age`).
    RequestMaxAge,
    /// The client accepts nothing that has been stale for so long (`max-stale`).
    RequestMaxStale,
    /// The client wants something that stays fresh for longer (`min-fresh`).
    RequestMinFresh,
    /// The client wants the origin to be asked (`no-cache`).
    RequestNoCache,
    /// The client wants to go past every cache (`no-store`).
    RequestNoStore,
}

impl NotReusable {
    /// Every reason, for tables that need one row each.
    pub const ALL: [Self; 9] = [
        Self::ClockSetBack,
        Self::Expired,
        Self::MustRevalidate,
        Self::NoCache,
        Self::RequestMaxAge,
        Self::RequestMaxStale,
        Self::RequestMinFresh,
        Self::RequestNoCache,
        Self::RequestNoStore,
    ];

    /// The fixed word that names the reason.
    pub fn token(self) -> &'static str {
        match self {
            Self::ClockSetBack => "clock-set-back",
            Self::Expired => "expired",
            Self::MustRevalidate => "must-revalidate",
            Self::NoCache => "no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMaxStale => "request-max-stale",
            Self::RequestMinFresh => "request-min-fresh",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestNoStore => "request-no-store",
        }
    }
}

/// What a stored response may do for the request in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reuse {
    /// Serve it as it is (RFC 9111 §4.2).
    Serve {
        /// What remains of its freshness lifetime.
        ttl: Duration,
    },
    /// Serve it now and validate it behind the client's back (RFC 5861 §3).
    ServeStaleAndValidate {
        /// How long it has been stale.
        stale_by: Duration,
    },
    /// Ask the origin whether it still stands (RFC 9111 §4.3).
    Validate {
        /// What the conditional request carries.
        validators: Validators,
        /// How long it has been stale; zero when fresh but bound to be validated.
        stale_by: Duration,
    },
    /// It may not be served and has no validator: ask for a new one.
    Forward {
        /// How long it has been stale; zero when fresh but bound to be validated.
        stale_by: Duration,
    },
}

/// Whether clients' Cache-Control counts for freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// An accelerator speaks for the origin: no-cache, max-age and the like are ignored.
    #[default]
    Ignore,
    /// Every directive of RFC 9111 §5.2.1 counts, and `stale-if-error` (RFC 5861 §4).
    Honour,
}

impl Reuse {
    /// Decides, most generous answer first.
    pub fn decide(
        stored: &StoredResponse,
        request: &RequestDirectives,
        client: ClientCacheControl,
        now: SystemTime,
    ) -> Self {
        Weighed::new(stored, request, client, now).reuse(stored)
    }

    /// May the stale response be served because the origin failed? (RFC 5861 §4, RFC 9111 §4.2.4)
    /// Returns how long it has been stale when it may; zero when it is fresh after all.
    ///
    /// A client that is listened to may open a wider window than the origin did.
    pub fn stale_if_error(
        stored: &StoredResponse,
        request: &RequestDirectives,
        client: ClientCacheControl,
        now: SystemTime,
    ) -> Option<Duration> {
        if stored.validate_always {
            return None;
        }
        let wished = Wishes::new(request, client).stale_if_error;
        let window = stored.stale.if_error.max(wished.unwrap_or_default());
        match stored.freshness(now) {
            Freshness::Fresh { .. } => Some(Duration::ZERO),
            Freshness::Stale { by } => (!stored.must_revalidate && by < window).then_some(by),
        }
    }
}

impl Weighed {
    /// Compares what counts.
    ///
    /// `only-if-cached` plays no part: it changes what is done about a response that may not be
    /// served. Nor does `no-store` where clients are ignored: it forbids to store what the origin
    /// answers, not to use what is stored (RFC 9111 §5.2.1.5).
    pub fn new(
        stored: &StoredResponse,
        request: &RequestDirectives,
        client: ClientCacheControl,
        now: SystemTime,
    ) -> Self {
        let current_age = stored.timing.current_age(now);
        let freshness = stored.freshness_at(current_age, now);
        let wishes = Wishes::new(request, client);
        let window = stored.stale.while_revalidate;
        let basis = match freshness {
            _ if stored.validate_always => Err(NotReusable::NoCache),
            Freshness::Fresh { ttl } => wishes.take_fresh(current_age, ttl),
            Freshness::Stale { by } => match wishes.take_stale(current_age, by, window) {
                Ok(_) if stored.must_revalidate => Err(NotReusable::MustRevalidate),
                Err(NotReusable::Expired) if stored.timing.is_ahead_of(now) => {
                    Err(NotReusable::ClockSetBack)
                }
                basis => basis,
            },
        };
        Self {
            current_age,
            freshness,
            basis: basis.unwrap_or_else(Basis::NotReusable),
        }
    }

    /// What follows from it for the response that was weighed.
    pub fn reuse(&self, stored: &StoredResponse) -> Reuse {
        let stale_by = match self.freshness {
            Freshness::Fresh { ttl } if self.basis == Basis::Fresh => return Reuse::Serve { ttl },
            Freshness::Fresh { .. } => Duration::ZERO,
            Freshness::Stale { by } => by,
        };
        match (self.basis, stored.validators.clone()) {
            (Basis::MaxStale | Basis::StaleWhileRevalidate, _) => {
                Reuse::ServeStaleAndValidate { stale_by }
            }
            (Basis::Fresh | Basis::NotReusable(_), Some(validators)) => Reuse::Validate {
                validators,
                stale_by,
            },
            (Basis::Fresh | Basis::NotReusable(_), None) => Reuse::Forward { stale_by },
        }
    }
}

/// What the client wishes, as far as it is listened to.
#[derive(Default)]
struct Wishes {
    something_new: Option<NotReusable>,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
    max_stale: Option<Duration>,
    stale_if_error: Option<Duration>,
}

impl Wishes {
    fn new(request: &RequestDirectives, client: ClientCacheControl) -> Self {
        match client {
            ClientCacheControl::Ignore => Self::default(),
            ClientCacheControl::Honour => Self {
                // "the no-store request directive does not apply to the already stored response"
                // (RFC 9111 §5.2.1.5), so it could be used; but a client that says so wants an
                // exchange that goes past every cache, as browsers take the same word.
                something_new: match (request.no_cache, request.no_store) {
                    (true, _) => Some(NotReusable::RequestNoCache),
                    (false, true) => Some(NotReusable::RequestNoStore),
                    (false, false) => None,
                },
                max_age: request.max_age,
                min_fresh: request.min_fresh,
                max_stale: request.max_stale,
                stale_if_error: request.stale_if_error,
            },
        }
    }

    /// `max-age` accepts an age "less than or equal to" it (RFC 9111 §5.2.1.1), `min-fresh` a
    /// lifetime "no less than" the age plus it (§5.2.1.3).
    fn take_fresh(&self, current_age: Duration, ttl: Duration) -> Result<Basis, NotReusable> {
        if let Some(objection) = self.something_new {
            return Err(objection);
        }
        if !self.accept_age(current_age) {
            return Err(NotReusable::RequestMaxAge);
        }
        match self.min_fresh {
            Some(min) if ttl < min => Err(NotReusable::RequestMinFresh),
            Some(_) | None => Ok(Basis::Fresh),
        }
    }

    /// `max-stale` accepts "no more than" it (RFC 9111 §5.2.1.2). Without it the origin's stale
    /// window holds, unless `max-age` or `min-fresh` ask for something fresh (§5.2.1.1, §5.2.1.3).
    fn take_stale(
        &self,
        current_age: Duration,
        by: Duration,
        window: Duration,
    ) -> Result<Basis, NotReusable> {
        let basis = match self.max_stale {
            Some(max_stale) if by <= max_stale => Basis::MaxStale,
            Some(_) if by < window => return Err(NotReusable::RequestMaxStale),
            None if by < window => Basis::StaleWhileRevalidate,
            Some(_) | None => return Err(NotReusable::Expired),
        };
        if let Some(objection) = self.something_new {
            return Err(objection);
        }
        if self.min_fresh.is_some() {
            return Err(NotReusable::RequestMinFresh);
        }
        let wants_fresh = self.max_age.is_some() && self.max_stale.is_none();
        if wants_fresh || !self.accept_age(current_age) {
            return Err(NotReusable::RequestMaxAge);
        }
        Ok(basis)
    }

    fn accept_age(&self, current_age: Duration) -> bool {
        self.max_age.is_none_or(|max| current_age <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::address::Digest;
    use crate::rules::directives::DELTA_SECONDS_MAX;
    use crate::rules::freshness::Timing;
    use crate::rules::key::PrimaryKey;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use crate::rules::tag::Names;
    use http::HeaderMap;
    use http::HeaderValue;
    use http::StatusCode;
    use proptest::prelude::any;
    use proptest::prelude::proptest;
    use proptest::prop_assert;
    use proptest::prop_assert_eq;
    use proptest::prop_compose;
    use proptest::test_runner::TestCaseError;

    const BORN: SystemTime = SystemTime::UNIX_EPOCH;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn etag() -> Validators {
        Validators::ETag(HeaderValue::from_static("\"a\""))
    }

    fn good_for_a_minute() -> StoredResponse {
        StoredResponse {
            key: PrimaryKey([0; 16]),
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            names: Names::default(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            timing: Timing {
                request_time: BORN,
                response_time: BORN,
                date_value: BORN,
                age_value: secs(0),
            },
            lifetime: secs(60),
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: None,
            body_bytes: 0,
            body: Digest([0; 32]),
            part: None,
        }
    }

    fn with_windows() -> StoredResponse {
        StoredResponse {
            stale: StaleWindow {
                while_revalidate: secs(10),
                if_error: secs(20),
            },
            ..good_for_a_minute()
        }
    }

    fn decide(stored: &StoredResponse, age: u64) -> Reuse {
        asked(stored, "", ClientCacheControl::Ignore, age)
    }

    fn honour(stored: &StoredResponse, cache_control: &str, age: u64) -> Reuse {
        asked(stored, cache_control, ClientCacheControl::Honour, age)
    }

    fn asked(stored: &StoredResponse, text: &str, client: ClientCacheControl, age: u64) -> Reuse {
        Reuse::decide(stored, &directives(text), client, BORN + secs(age))
    }

    fn directives(text: &str) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        headers.append("cache-control", HeaderValue::from_str(text).unwrap());
        RequestDirectives::read(&headers)
    }

    /// What is left of a stored response when the origin has failed.
    fn failed(stored: &StoredResponse, now: SystemTime) -> Option<Duration> {
        let request = RequestDirectives::default();
        Reuse::stale_if_error(stored, &request, ClientCacheControl::Ignore, now)
    }

    /// What decides about a stored response for a client that is listened to.
    fn basis(stored: &StoredResponse, cache_control: &str, age: u64) -> Basis {
        let request = directives(cache_control);
        let now = BORN + secs(age);
        Weighed::new(stored, &request, ClientCacheControl::Honour, now).basis
    }

    #[test]
    fn what_decides_has_a_name() {
        use NotReusable as Not;
        let windows = with_windows();
        for (cache_control, age, reason) in [
            ("", 80, Not::Expired),
            ("no-cache", 5, Not::RequestNoCache),
            ("no-cache", 65, Not::RequestNoCache),
            ("no-cache", 80, Not::Expired),
            ("no-store", 5, Not::RequestNoStore),
            ("max-age=4", 5, Not::RequestMaxAge),
            ("max-age=100", 65, Not::RequestMaxAge),
            ("min-fresh=56", 5, Not::RequestMinFresh),
            ("min-fresh=1", 65, Not::RequestMinFresh),
            ("max-stale=4", 65, Not::RequestMaxStale),
            ("max-stale=4", 80, Not::Expired),
            ("max-stale, max-age=9", 65, Not::RequestMaxAge),
        ] {
            let wanted = Basis::NotReusable(reason);
            assert_eq!(
                basis(&windows, cache_control, age),
                wanted,
                "{cache_control} {age}"
            );
        }
        assert_eq!(basis(&windows, "", 5), Basis::Fresh);
        assert_eq!(basis(&windows, "", 65), Basis::StaleWhileRevalidate);
        assert_eq!(basis(&windows, "max-stale=5", 65), Basis::MaxStale);
        let always = StoredResponse {
            validate_always: true,
            ..with_windows()
        };
        assert_eq!(basis(&always, "", 5), Basis::NotReusable(Not::NoCache));
    }

    #[test]
    fn must_revalidate_is_the_reason_only_where_it_makes_the_difference() {
        let stored = StoredResponse {
            must_revalidate: true,
            ..with_windows()
        };
        let must = Basis::NotReusable(NotReusable::MustRevalidate);
        assert_eq!(basis(&stored, "", 65), must);
        assert_eq!(basis(&stored, "max-stale", 100), must);
        let over = Basis::NotReusable(NotReusable::Expired);
        assert_eq!(basis(&stored, "", 100), over);
    }

    #[test]
    fn a_clock_that_was_set_back_is_the_reason() {
        let mut stored = good_for_a_minute();
        stored.timing.response_time = BORN + secs(100);
        let back = Basis::NotReusable(NotReusable::ClockSetBack);
        assert_eq!(basis(&stored, "", 0), back);
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words = NotReusable::ALL.map(NotReusable::token).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), NotReusable::ALL.len());
    }

    #[test]
    fn a_fresh_response_is_served() {
        let verdict = decide(&good_for_a_minute(), 59);
        assert_eq!(verdict, Reuse::Serve { ttl: secs(1) });
    }

    #[test]
    fn a_stale_response_without_validator_is_replaced() {
        let verdict = decide(&good_for_a_minute(), 60);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(0) });
    }

    #[test]
    fn a_stale_response_with_a_validator_is_validated() {
        let stored = StoredResponse {
            validators: Some(etag()),
            ..good_for_a_minute()
        };
        let wanted = Reuse::Validate {
            validators: etag(),
            stale_by: secs(7),
        };
        assert_eq!(decide(&stored, 67), wanted);
    }

    #[test]
    fn the_stale_window_ends_on_its_last_second() {
        let inside = decide(&with_windows(), 69);
        assert_eq!(inside, Reuse::ServeStaleAndValidate { stale_by: secs(9) });
        let outside = decide(&with_windows(), 70);
        assert_eq!(outside, Reuse::Forward { stale_by: secs(10) });
    }

    #[test]
    fn must_revalidate_closes_every_stale_window() {
        let stored = StoredResponse {
            must_revalidate: true,
            ..with_windows()
        };
        assert_eq!(decide(&stored, 61), Reuse::Forward { stale_by: secs(1) });
        assert_eq!(failed(&stored, BORN + secs(61)), None);
        let verdict = honour(&stored, "max-stale", 61);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(1) });
    }

    #[test]
    fn what_must_always_be_validated_is_never_served_unasked() {
        let stored = StoredResponse {
            validate_always: true,
            validators: Some(etag()),
            ..with_windows()
        };
        for (age, stale_by) in [(1, 0), (61, 1)] {
            let wanted = Reuse::Validate {
                validators: etag(),
                stale_by: secs(stale_by),
            };
            assert_eq!(decide(&stored, age), wanted);
            assert_eq!(failed(&stored, BORN + secs(age)), None);
        }
    }

    #[test]
    fn an_error_opens_its_own_window() {
        let stored = with_windows();
        let at = |age| failed(&stored, BORN + secs(age));
        assert_eq!(at(59), Some(secs(0)));
        assert_eq!(at(79), Some(secs(19)));
        assert_eq!(at(80), None);
    }

    #[test]
    fn clients_are_not_listened_to_unless_the_site_says_so() {
        for text in ["no-cache", "max-age=0", "min-fresh=100", "no-store"] {
            let verdict = asked(&good_for_a_minute(), text, ClientCacheControl::Ignore, 30);
            assert_eq!(verdict, Reuse::Serve { ttl: secs(30) }, "{text}");
        }
        let verdict = asked(
            &good_for_a_minute(),
            "max-stale",
            ClientCacheControl::Ignore,
            61,
        );
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(1) });
    }

    #[test]
    fn an_honoured_client_can_ask_for_validation() {
        let verdict = honour(&good_for_a_minute(), "no-cache", 1);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(0) });
    }

    #[test]
    fn an_honoured_client_can_bound_the_age() {
        let stored = good_for_a_minute();
        let serve = Reuse::Serve { ttl: secs(50) };
        assert_eq!(honour(&stored, "max-age=10", 10), serve);
        let forward = Reuse::Forward { stale_by: secs(0) };
        assert_eq!(honour(&stored, "max-age=9", 10), forward);
    }

    #[test]
    fn an_honoured_client_can_ask_for_freshness_to_come() {
        let stored = good_for_a_minute();
        let serve = Reuse::Serve { ttl: secs(50) };
        assert_eq!(honour(&stored, "min-fresh=50", 10), serve);
        let forward = Reuse::Forward { stale_by: secs(0) };
        assert_eq!(honour(&stored, "min-fresh=51", 10), forward);
    }

    #[test]
    fn an_honoured_client_can_accept_staleness() {
        let stored = good_for_a_minute();
        let serve = Reuse::ServeStaleAndValidate { stale_by: secs(5) };
        assert_eq!(honour(&stored, "max-stale=5", 65), serve);
        assert_eq!(honour(&stored, "max-stale", 65), serve);
        let forward = Reuse::Forward { stale_by: secs(5) };
        assert_eq!(honour(&stored, "max-stale=4", 65), forward);
    }

    #[test]
    fn an_honoured_max_stale_narrows_the_origins_window() {
        let verdict = honour(&with_windows(), "max-stale=4", 65);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(5) });
    }

    #[test]
    fn an_honoured_wish_for_something_fresh_closes_the_stale_window() {
        let forward = Reuse::Forward { stale_by: secs(5) };
        for text in ["max-age=600", "min-fresh=1", "no-cache"] {
            assert_eq!(honour(&with_windows(), text, 65), forward, "{text}");
        }
    }

    #[test]
    fn max_age_still_bounds_what_max_stale_accepts() {
        let verdict = honour(&good_for_a_minute(), "max-stale, max-age=64", 65);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(5) });
    }

    #[test]
    fn an_honoured_no_store_goes_past_the_store() {
        let verdict = honour(&good_for_a_minute(), "no-store", 30);
        assert_eq!(verdict, Reuse::Forward { stale_by: secs(0) });
    }

    #[test]
    fn an_honoured_client_can_open_the_window_for_errors_but_not_against_the_origin() {
        let listen = |stored: &StoredResponse, client, text| {
            let asked = directives(text);
            Reuse::stale_if_error(stored, &asked, client, BORN + secs(85))
        };
        let stored = with_windows();
        let (honour, ignore) = (ClientCacheControl::Honour, ClientCacheControl::Ignore);
        assert_eq!(listen(&stored, honour, "stale-if-error=26"), Some(secs(25)));
        assert_eq!(listen(&stored, honour, "stale-if-error=25"), None);
        assert_eq!(listen(&stored, ignore, "stale-if-error=26"), None);
        let closed = StoredResponse {
            must_revalidate: true,
            ..stored
        };
        assert_eq!(listen(&closed, honour, "stale-if-error=26"), None);
    }

    #[test]
    fn after_the_clock_was_set_back_nothing_is_served_unasked() {
        let stored = with_windows();
        let ignore = ClientCacheControl::Ignore;
        let asked = RequestDirectives::default();
        let before = BORN - secs(60);
        let stale_by = DELTA_SECONDS_MAX;
        let verdict = Reuse::decide(&stored, &asked, ignore, before);
        assert_eq!(verdict, Reuse::Forward { stale_by });
        assert_eq!(failed(&stored, before), None);
        assert!(!stored.worth_keeping(before));
        let a_moment = BORN - Duration::from_millis(500);
        let verdict = Reuse::decide(&stored, &asked, ignore, a_moment);
        assert_eq!(verdict, Reuse::Serve { ttl: secs(60) });
    }

    #[test]
    fn what_is_condemned_is_always_replaced() {
        let mut stored = with_windows();
        stored.validators = Some(etag());
        stored.condemn();
        assert_eq!(decide(&stored, 1), Reuse::Forward { stale_by: secs(0) });
        assert_eq!(failed(&stored, BORN + secs(1)), None);
        assert!(!stored.worth_keeping(BORN));
    }

    #[test]
    fn what_is_spent_and_cannot_be_validated_is_not_worth_keeping() {
        let stored = with_windows();
        assert!(stored.worth_keeping(BORN + secs(59)));
        assert!(stored.worth_keeping(BORN + secs(79)));
        assert!(!stored.worth_keeping(BORN + secs(80)));
    }

    prop_compose! {
        fn stored_responses()(
            lifetime in 0_u64..100,
            while_revalidate in 0_u64..100,
            if_error in 0_u64..100,
            validate_always in any::<bool>(),
            must_revalidate in any::<bool>(),
            tagged in any::<bool>(),
        ) -> StoredResponse {
            StoredResponse {
                lifetime: secs(lifetime),
                stale: StaleWindow {
                    while_revalidate: secs(while_revalidate),
                    if_error: secs(if_error),
                },
                validate_always,
                must_revalidate,
                validators: tagged.then(etag),
                ..good_for_a_minute()
            }
        }
    }

    proptest! {
        #[test]
        fn what_forbids_staleness_is_obeyed_whatever_the_client_says(
            stored in stored_responses(),
            wishes in "((no-cache|no-store|max-age=[0-9]{1,2}|min-fresh=[0-9]{1,2}|max-stale|max-stale=[0-9]{1,2}|stale-if-error=[0-9]{1,2})(, )?){0,3}",
            age in 0_u64..300,
        ) {
            let fresh = age < stored.lifetime.as_secs();
            for client in [ClientCacheControl::Honour, ClientCacheControl::Ignore] {
                match asked(&stored, &wishes, client, age) {
                    Reuse::Serve { ttl } => {
                        prop_assert!(fresh && !stored.validate_always);
                        prop_assert_eq!(ttl, stored.lifetime - secs(age));
                    }
                    Reuse::ServeStaleAndValidate { stale_by } => {
                        prop_assert!(!fresh && !stored.validate_always && !stored.must_revalidate);
                        prop_assert_eq!(stale_by, secs(age) - stored.lifetime);
                    }
                    Reuse::Validate { .. } => prop_assert!(stored.validators.is_some()),
                    Reuse::Forward { .. } => prop_assert!(stored.validators.is_none()),
                }
                let now = BORN + secs(age);
                if let Some(stale_by) =
                    Reuse::stale_if_error(&stored, &directives(&wishes), client, now)
                {
                    prop_assert!(!stored.validate_always);
                    prop_assert!(stale_by.is_zero() || !stored.must_revalidate);
                }
            }
        }

        #[test]
        fn what_clients_say_changes_nothing_where_they_are_ignored(
            stored in stored_responses(),
            wishes in "[a-z=0-9, \"-]{0,40}",
            age in 0_u64..300,
        ) {
            let ignore = ClientCacheControl::Ignore;
            let heard = asked(&stored, &wishes, ignore, age);
            prop_assert_eq!(heard, decide(&stored, age));
            let now = BORN + secs(age);
            let failure = Reuse::stale_if_error(&stored, &directives(&wishes), ignore, now);
            prop_assert_eq!(failure, failed(&stored, now));
        }

        #[test]
        fn what_is_not_worth_keeping_is_never_served_again(
            stored in stored_responses(),
            age in 0_u64..300,
            later in 0_u64..300,
        ) {
            if !stored.worth_keeping(BORN + secs(age)) {
                let Reuse::Forward { stale_by } = decide(&stored, age + later) else {
                    return Err(TestCaseError::fail("it would be used"));
                };
                prop_assert!(stale_by <= secs(age + later));
                prop_assert_eq!(failed(&stored, BORN + secs(age + later)), None);
            }
        }
    }
}
