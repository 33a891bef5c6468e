//! May this response be stored? (RFC 9111 §3, §3.5) If so, with which verdicts?

use super::key::PrimaryKey;
use super::request::NormalRequest;
use super::stored::StoredResponse;
use http::response::Parts;
use std::time::Duration;
use std::time::SystemTime;

/// A site's policy on what to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePolicy {
    /// Store responses that carry Set-Cookie.
    pub set_cookie: bool,
    /// Store bodies that end when the connection closes, which cannot be proven complete.
    pub close_delimited: bool,
    /// Upper bound on a heuristic freshness lifetime (RFC 9111 §4.2.2).
    pub heuristic_max: Duration,
    /// `stale-while-revalidate` for responses that do not say.
    pub stale_while_revalidate: Duration,
    /// `stale-if-error` for responses that do not say.
    pub stale_if_error: Duration,
}

/// How the origin delimited the body, as the upstream room saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// Length or chunked framing: completeness can be proven.
    Framed,
    /// Ends when the connection closes.
    Close,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Storable {
    /// Store it, as this. `body_bytes` and `body` are filled in when the body is complete.
    Store(Box<StoredResponse>),
    /// Do not, for this reason.
    Refuse(NotStorable),
}

/// Why a response may not be stored; its token appears in Cache-Status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotStorable {
    /// `no-store` in the response or the request.
    NoStore,
}

impl NotStorable {
    /// The fixed word that names the reason.
    pub fn token(self) -> &'static str {
        todo!()
    }
}

impl Storable {
    /// Decides about a final response (`Parts` as received, hop-by-hop fields still on).
    pub fn decide(
        _key: PrimaryKey,
        _request: &NormalRequest,
        _response: &Parts,
        _end: BodyEnd,
        _policy: &StorePolicy,
        _request_time: SystemTime,
        _response_time: SystemTime,
    ) -> Self {
        todo!()
    }
}
