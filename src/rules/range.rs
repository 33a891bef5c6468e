//! Range requests answered from a complete stored response (RFC 9110 §14).

use super::stored::StoredResponse;
use http::HeaderMap;
use http::HeaderValue;

/// Bytes `first..=last` of a body of known length; never empty, never outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// The first byte's offset.
    pub fn first(self) -> u64 {
        self.first
    }
    /// How many bytes.
    pub fn bytes(self) -> u64 {
        self.last - self.first + 1
    }
    /// `Content-Range` for a body of `complete` bytes.
    pub fn content_range(self, _complete: u64) -> HeaderValue {
        todo!()
    }
}

/// What a request's Range field comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Selection {
    /// No Range, one to be ignored, or If-Range did not match: 200.
    Whole,
    /// 206 with this part.
    Part(Span),
    /// 416.
    Unsatisfiable,
}

impl Selection {
    /// Evaluates Range and If-Range of a GET against a stored 200.
    pub fn evaluate(_request_headers: &HeaderMap, _stored: &StoredResponse) -> Self {
        todo!()
    }
}

/// `Content-Range` of a 416 for a body of `complete` bytes.
pub fn unsatisfied_range(_complete: u64) -> HeaderValue {
    todo!()
}
