//! Turns what hyper parsed into a request the rest of the house can trust, or refuses it.

use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::request::Parts;

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// There is none.
    Empty,
    /// `Content-Length`, not zero.
    Length(u64),
}

/// Bounds on what a request may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Longest accepted request body in bytes; a longer one is refused with 413.
    pub body_bytes_max: u64,
    /// Longest accepted request target in bytes; a longer one is refused with 414.
    pub target_bytes_max: usize,
}

/// A request after normalisation. Private fields, one constructor: to hold one is to know it passed.
#[derive(Clone, Debug)]
pub struct NormalRequest {
    method: Method,
    scheme: Scheme,
    authority: String,
    target: String,
    headers: HeaderMap,
    body: RequestBody,
    http10: bool,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Placeholder until the file is written.
    #[error("bad host")]
    BadHost,
}

impl Refusal {
    /// The status to answer with.
    pub fn status(self) -> StatusCode {
        todo!()
    }
    /// The fixed word that names the reason in metrics, logs and `Cache-Status`.
    pub fn token(self) -> &'static str {
        todo!()
    }
}

impl NormalRequest {
    /// Normalises and checks a request head; takes hop-by-hop fields off.
    pub fn new(_parts: Parts, _scheme: Scheme, _params: &Params) -> Result<Self, Refusal> {
        todo!()
    }
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }
    /// How the client reached us.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
    /// Host in lower case, and the port unless it is the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }
    /// The authority without its port.
    pub fn host(&self) -> &str {
        todo!()
    }
    /// Path and query exactly as they will be forwarded; `*` for `OPTIONS *`.
    pub fn target(&self) -> &str {
        &self.target
    }
    /// End-to-end fields; Host is not among them.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
    /// How the body is delimited.
    pub fn body(&self) -> RequestBody {
        self.body
    }
    /// The client speaks HTTP/1.0.
    pub fn http10(&self) -> bool {
        self.http10
    }
    /// May be answered from the store at all: GET or HEAD without a body (RFC 9111 §3, §4).
    pub fn cacheable(&self) -> bool {
        todo!()
    }
}
