//! What happened to one request: the one value that Cache-Status, access log, metrics and stats
//! render, so that they cannot disagree.

use super::span::Span;
use crate::rules::cache_status::Outcome;
use crate::rules::key::PrimaryKey;
use crate::rules::proxy_status::ProxyError;
use crate::rules::request::Cipher;
use crate::rules::request::Refusal;
use crate::rules::trace::Trace;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use http::request::Parts;
use http::uri::Authority;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// What happened to one request. Cache-Status, access log, metrics and stats all render this.
#[derive(Clone, Debug)]
pub struct Report {
    /// The client's address; the port is 0 when a trusted proxy stands between it and us.
    pub client: SocketAddr,
    /// When the request arrived.
    pub at: SystemTime,
    /// From arrival to the head of the response.
    pub head_after: Duration,
    /// From arrival to the last byte handed to the connection.
    pub took: Duration,
    /// Method, as received.
    pub method: Method,
    /// Target, as received; over HTTP/2 `:path`.
    pub uri: Uri,
    /// Protocol version.
    pub version: Version,
    /// Host, as received; over HTTP/2 `:authority`.
    pub host: Option<HeaderValue>,
    /// Referer, as received.
    pub referer: Option<HeaderValue>,
    /// User-Agent, as received.
    pub user_agent: Option<HeaderValue>,
    /// What names its target in the store, if it was let in.
    pub primary: Option<PrimaryKey>,
    /// The length of the stored body that it was answered from, in bytes.
    pub stored_bytes: Option<u64>,
    /// What the handshake of its connection agreed on, over TLS.
    pub cipher: Option<Cipher>,
    /// The trace it belongs to, where there are such.
    pub trace: Option<Trace>,
    /// The name of the site it belonged to.
    pub site: Option<Arc<str>>,
    /// The URL it is stored under, where Cache-Status is to say it.
    pub key: Option<String>,
    /// The status sent.
    pub status: StatusCode,
    /// Body bytes handed to the connection.
    pub body_bytes: u64,
    /// The body was sent whole.
    pub complete: bool,
    /// How the cache handled it.
    pub outcome: Outcome,
    /// Why it was refused before anything was looked up.
    pub refusal: Option<Refusal>,
    /// The error of ours it ended in.
    pub error: Option<ProxyError>,
    /// The backend that was asked.
    pub backend: Option<Arc<str>>,
}

impl Report {
    pub(super) fn new(parts: &Parts, client: SocketAddr, at: SystemTime) -> Self {
        let field = |name: &HeaderName| parts.headers.get(name).cloned();
        let (uri, authority) = match parts.version {
            Version::HTTP_2 => split(&parts.uri),
            _ => (parts.uri.clone(), None),
        };
        Self {
            client,
            at,
            head_after: Duration::ZERO,
            took: Duration::ZERO,
            method: parts.method.clone(),
            uri,
            version: parts.version,
            host: authority.or_else(|| field(&header::HOST)),
            referer: field(&header::REFERER),
            user_agent: field(&header::USER_AGENT),
            cipher: None,
            trace: None,
            site: None,
            primary: None,
            stored_bytes: None,
            key: None,
            status: StatusCode::OK,
            body_bytes: 0,
            complete: false,
            outcome: Outcome::default(),
            refusal: None,
            error: None,
            backend: None,
        }
    }
}

/// What HTTP/2 sends apart and `h2` puts together (RFC 9113 §8.3.1).
fn split(uri: &Uri) -> (Uri, Option<HeaderValue>) {
    let authority = uri.authority().map(Authority::as_str);
    // Without userinfo, which may hold a password.
    let authority = authority.and_then(|authority| authority.rsplit('@').next());
    let authority = authority.and_then(|authority| HeaderValue::from_str(authority).ok());
    let path = uri.path_and_query().cloned();
    (path.map_or_else(|| uri.clone(), Uri::from), authority)
}

/// Takes the reports; called once a request, when its body has ended. Must be quick.
pub trait Sink: Send + Sync {
    /// Takes one.
    fn take(&self, report: Report);

    /// Takes a step of a request that is told of; called when it has ended. Must be quick.
    fn tell(&self, span: Span) {
        drop(span);
    }
}
