//! What may a stored response do for the request in hand? (RFC 9111 §4, RFC 5861)

use super::directives::RequestDirectives;
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
    /// It is stale and has no validator: ask for a new one.
    Forward {
        /// How long it has been stale.
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
    /// Decides, most generous answer first. `soft_purged` makes a fresh response stale.
    pub fn decide(
        _stored: &StoredResponse,
        _request: &RequestDirectives,
        _client: ClientCacheControl,
        _now: SystemTime,
    ) -> Self {
        todo!()
    }

    /// May the stale response be served because the origin failed? (RFC 5861 §4, RFC 9111 §4.2.4)
    /// Returns how long it has been stale when it may.
    pub fn stale_if_error(_stored: &StoredResponse, _now: SystemTime) -> Option<Duration> {
        todo!()
    }
}
