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
    /// RFC 9111 §5.2.1 to the letter.
    Honour,
}

impl Reuse {
    /// Decides, most generous answer first.
    ///
    /// `no-store` in the request plays no part: it forbids to store what the origin answers, not
    /// to use what is stored (RFC 9111 §5.2.1.5). Nor does `only-if-cached`: it changes what is
    /// done about `Validate` and `Forward`.
    pub fn decide(
        stored: &StoredResponse,
        request: &RequestDirectives,
        client: ClientCacheControl,
        now: SystemTime,
    ) -> Self {
        let current_age = stored.timing.current_age(now);
        let freshness = Freshness::new(stored.lifetime, current_age);
        let wishes = Wishes::new(request, client);
        match freshness {
            _ if stored.validate_always => Self::ask(stored, freshness),
            Freshness::Fresh { ttl } if wishes.accept_fresh(current_age, ttl) => {
                Self::Serve { ttl }
            }
            Freshness::Stale { by }
                if !stored.must_revalidate && wishes.accept_stale(stored, by) =>
            {
                Self::ServeStaleAndValidate { stale_by: by }
            }
            Freshness::Fresh { .. } | Freshness::Stale { .. } => Self::ask(stored, freshness),
        }
    }

    /// May the stale response be served because the origin failed? (RFC 5861 §4, RFC 9111 §4.2.4)
    /// Returns how long it has been stale when it may; zero when it is fresh after all.
    pub fn stale_if_error(stored: &StoredResponse, now: SystemTime) -> Option<Duration> {
        if stored.validate_always {
            return None;
        }
        match Freshness::new(stored.lifetime, stored.timing.current_age(now)) {
            Freshness::Fresh { .. } => Some(Duration::ZERO),
            Freshness::Stale { by } => {
                (!stored.must_revalidate && by < stored.stale.if_error).then_some(by)
            }
        }
    }

    fn ask(stored: &StoredResponse, freshness: Freshness) -> Self {
        let stale_by = match freshness {
            Freshness::Fresh { .. } => Duration::ZERO,
            Freshness::Stale { by } => by,
        };
        match stored.validators.clone() {
            Some(validators) => Self::Validate {
                validators,
                stale_by,
            },
            None => Self::Forward { stale_by },
        }
    }
}

/// What the client wishes, as far as it is listened to.
#[derive(Default)]
struct Wishes {
    no_cache: bool,
    max_age: Option<Duration>,
    min_fresh: Option<Duration>,
    max_stale: Option<Duration>,
}

impl Wishes {
    fn new(request: &RequestDirectives, client: ClientCacheControl) -> Self {
        match client {
            ClientCacheControl::Ignore => Self::default(),
            ClientCacheControl::Honour => Self {
                no_cache: request.no_cache,
                max_age: request.max_age,
                min_fresh: request.min_fresh,
                max_stale: request.max_stale,
            },
        }
    }

    /// `max-age` accepts an age "less than or equal to" it (RFC 9111 §5.2.1.1), `min-fresh` a
    /// lifetime "no less than" the age plus it (§5.2.1.3).
    fn accept_fresh(&self, current_age: Duration, ttl: Duration) -> bool {
        !self.no_cache
            && self.accept_age(current_age)
            && self.min_fresh.is_none_or(|min| ttl >= min)
    }

    /// `max-stale` accepts "no more than" it (RFC 9111 §5.2.1.2). The stale window is the origin's
    /// word; it holds for clients that do not ask for something fresher.
    fn accept_stale(&self, stored: &StoredResponse, by: Duration) -> bool {
        if self.no_cache || self.min_fresh.is_some() {
            return false;
        }
        match (self.max_stale, self.max_age) {
            (Some(max_stale), _) => by <= max_stale || by < stored.stale.while_revalidate,
            (None, Some(_)) => false,
            (None, None) => by < stored.stale.while_revalidate,
        }
    }

    fn accept_age(&self, current_age: Duration) -> bool {
        self.max_age.is_none_or(|max| current_age <= max)
    }
}
