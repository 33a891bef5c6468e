//! How old is a stored response, and how long may it be used? (RFC 9111 §4.2)

use std::time::Duration;
use std::time::SystemTime;

/// Whether a stored response may be served without asking the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Younger than its freshness lifetime; `ttl` is what remains of it.
    Fresh {
        /// The remaining freshness lifetime.
        ttl: Duration,
    },
    /// At or past its freshness lifetime.
    Stale {
        /// How long ago it stopped being fresh.
        by: Duration,
    },
}

/// When a stored response travelled, as this cache saw it (RFC 9111 §4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When the request that fetched it was sent.
    pub request_time: SystemTime,
    /// When its header section arrived.
    pub response_time: SystemTime,
    /// The origin's `Date`, or the time of arrival.
    pub date_value: SystemTime,
    /// The `Age` that caches nearer the origin had already counted.
    pub age_value: Duration,
}
