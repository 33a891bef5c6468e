//! The origin side: backends, their connections, and folders served as origins.

pub mod connect;
pub mod file;
pub mod pool;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

/// A request body on its way to the origin.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// One address of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A folder served as an origin.
    File(PathBuf),
    /// `http://host:port`.
    Http {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Bounds on what one upstream may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The backends, in the config's order.
    pub backends: Vec<Backend>,
    /// Longest wait for DNS and TCP (and TLS).
    pub connect_timeout: Duration,
    /// Longest wait from the request's last byte to the response's head.
    pub first_byte_timeout: Duration,
    /// Longest wait between two reads of a body.
    pub between_bytes_timeout: Duration,
    /// Most connections to one backend.
    pub connections_max: usize,
    /// Most requests that wait for a connection to one backend; more get `Saturated` at once.
    pub queue_max: usize,
    /// Most idle connections kept to one backend.
    pub idle_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Most fields in a response head.
    pub headers_max: usize,
    /// Largest response head in bytes.
    pub header_bytes_max: usize,
}

/// One upstream: its backends and their pools.
#[derive(Debug)]
pub struct Upstream {}

impl Upstream {
    /// Makes the pools; opens nothing.
    pub fn new(_params: Params) -> Self {
        todo!()
    }

    /// How many backends there are.
    pub fn backends(&self) -> usize {
        todo!()
    }

    /// A backend's name for logs: `http://host:port` or `file:path`.
    pub fn name(&self, _backend: usize) -> Arc<str> {
        todo!()
    }

    /// Sends a request to one backend and returns the head of the final response; 1xx are
    /// swallowed. `request` has an origin-form target and a Host field. A request without a body
    /// and with an idempotent method is retried once, on a new connection, when a reused
    /// connection closes before the first byte. Dropping the future closes the connection.
    pub async fn exchange(
        &self,
        _backend: usize,
        _request: Request<RequestBody>,
    ) -> Result<Response<Body>, UpstreamError> {
        todo!()
    }
}

/// A response body from an origin; returns its connection to the pool when it ends well.
#[derive(Debug)]
pub struct Body {}

impl Body {
    /// The body's length when the origin declared it.
    pub fn length(&self) -> Option<u64> {
        todo!()
    }
    /// Completeness can be proven: length or chunked framing, not close-delimited.
    pub fn framed(&self) -> bool {
        todo!()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = UpstreamError;
    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, UpstreamError>>> {
        todo!()
    }
}

/// Why an exchange failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The client's request body failed or timed out while it was being sent.
    #[error("the client's request body failed")]
    ClientBody,
    /// No connection within the time, or refused.
    #[error("could not connect to {address}: {reason}")]
    Connect {
        /// Whom.
        address: String,
        /// Why; decides the Proxy-Status type.
        reason: ConnectFailure,
    },
    /// The backend closed or reset the connection before the head.
    #[error("the connection closed before the response")]
    Closed,
    /// The response broke the protocol.
    #[error("the response broke the protocol: {0}")]
    Protocol(Arc<str>),
    /// The body ended before its length or last chunk.
    #[error("the response body is incomplete")]
    Incomplete,
    /// The head is larger than allowed.
    #[error("the response head is too large")]
    HeadTooLarge,
    /// Too many requests wait for this backend.
    #[error("too many requests wait for this backend")]
    Saturated,
    /// No head within the time.
    #[error("no response within the time")]
    FirstByteTimeout,
    /// The body stalled.
    #[error("the response body stalled")]
    BetweenBytesTimeout,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The name could not be resolved.
    #[error("name not resolved")]
    Dns,
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// It took too long.
    #[error("timed out")]
    Timeout,
    /// No route, or anything else the system said.
    #[error("{0}")]
    Other(Arc<str>),
}

impl UpstreamError {
    /// May the same request be sent to another backend? Only when no byte of it can have been
    /// acted on, or the method is idempotent and the body empty (`safe_to_repeat`).
    pub fn retry(&self, _safe_to_repeat: bool) -> bool {
        todo!()
    }
    /// Was it a time limit (504) rather than a fault (502)?
    pub fn timed_out(&self) -> bool {
        todo!()
    }
    /// Does it speak against the backend (counted by state/health)?
    pub fn blames_backend(&self) -> bool {
        todo!()
    }
}

#[expect(dead_code, reason = "the skeleton names it for the address type")]
fn _address(_: SocketAddr) {}
