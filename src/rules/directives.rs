//! Cache-Control and its kin, read strictly and failing towards not storing (RFC 9111 §5.2).

use http::HeaderMap;
use std::time::Duration;

/// Response directives (RFC 9111 §5.2.2, RFC 5861). Repeats: the most restrictive wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    // Completed by its owner: no_store, no_cache, private, public, must_revalidate, ...
}

/// Request directives (RFC 9111 §5.2.1), and `Pragma` where there is no Cache-Control.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    // Completed by its owner: no_cache, max_age, min_fresh, max_stale.
}

impl ResponseDirectives {
    /// Reads all Cache-Control lines of a response.
    pub fn read(_headers: &HeaderMap) -> Self {
        todo!()
    }
}

impl RequestDirectives {
    /// Reads all Cache-Control lines of a request.
    pub fn read(_headers: &HeaderMap) -> Self {
        todo!()
    }
}
