//! What a purge covers, and what an unsafe request makes invalid (RFC 9111 §4.4).

use super::key::PrimaryKey;
use super::request::NormalRequest;
use http::HeaderMap;
use http::StatusCode;

/// What a purge covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Everything.
    All,
    /// All variants of one target.
    Url(PrimaryKey),
}

/// Path-and-query targets on the request's own authority that a non-error response to an unsafe
/// method invalidates: the target, and same-origin Location and Content-Location.
pub fn invalidated_targets(
    _request: &NormalRequest,
    _status: StatusCode,
    _response_headers: &HeaderMap,
) -> Vec<String> {
    todo!()
}
