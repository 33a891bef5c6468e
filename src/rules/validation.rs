//! Conditions, both ways: ours to the origin, the clients' to us; and 304 freshening.

use super::storable::StorePolicy;
use super::stored::StoredResponse;
use http::HeaderMap;
use http::HeaderValue;
use http::response::Parts;
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
    /// Reads them from a response.
    pub fn read(_headers: &HeaderMap) -> Option<Self> {
        todo!()
    }
    /// Puts our conditions on a request to the origin, in place of the client's own.
    pub fn condition(&self, _request_headers: &mut HeaderMap) {
        todo!()
    }
}

impl Condition {
    /// Evaluates the client's conditions against a stored response.
    pub fn evaluate(_request_headers: &HeaderMap, _stored: &StoredResponse) -> Self {
        todo!()
    }
}

/// Takes conditional and range fields off, so that the origin sends the whole response.
pub fn unconditional(_request_headers: &mut HeaderMap) {
    todo!()
}

/// Freshens a stored response with a 304 (RFC 9111 §3.2, §4.3.4).
pub fn freshen(
    _stored: &StoredResponse,
    _not_modified: &Parts,
    _policy: &StorePolicy,
    _request_time: SystemTime,
    _response_time: SystemTime,
) -> StoredResponse {
    todo!()
}

/// The fields a 304 made from a stored response carries (RFC 9110 §15.4.5).
pub fn not_modified_fields(_stored: &HeaderMap) -> HeaderMap {
    todo!()
}
