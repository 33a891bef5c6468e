//! How a response was handled, as `Cache-Status` tells it (RFC 9211).

use http::HeaderValue;
use http::StatusCode;
use std::time::Duration;

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// The cache was configured not to handle this request.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// There was nothing for the target.
    UriMiss,
    /// There was something, but not for these header fields.
    VaryMiss,
    /// There was something, but it was stale.
    Stale,
    /// The request's own directives required it.
    Request,
}

/// What happened to a request, in the words of RFC 9211.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Satisfied from the store without forwarding.
    pub hit: bool,
    /// Forwarded, and why.
    pub fwd: Option<Forward>,
    /// The origin's status, where it differs from the one sent.
    pub fwd_status: Option<StatusCode>,
    /// The response was stored.
    pub stored: bool,
    /// The request was collapsed with another.
    pub collapsed: bool,
    /// Remaining freshness in seconds; negative when served stale.
    pub ttl: Option<i64>,
    /// One of a fixed vocabulary.
    pub detail: Option<Detail>,
}

/// The fixed vocabulary of `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// Completed by its owner; wraps NotStorable reasons, refusals and the like.
    HitForMiss,
}

impl Detail {
    /// The token on the wire.
    pub fn token(self) -> &'static str {
        todo!()
    }
}

impl Outcome {
    /// Writes the field value, `identifier` first.
    pub fn field_value(&self, _identifier: &str) -> HeaderValue {
        todo!()
    }
}

/// Whole seconds of a remaining lifetime, as `ttl` carries it.
pub fn ttl_seconds(_ttl: Duration) -> i64 {
    todo!()
}
