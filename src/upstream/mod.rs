//! The origin side: backends, their connections, and folders served as origins.
//!
//! ```text
//! Upstream ─► pool ─► connect ─► tls    a connection, reused or new
//!    │         ├────► exchange ─► body   one request and its response
//!    │         └────► session ─► stream ─► body   the same, many on one connection of HTTP/2
//!    └──────► file ─────────────► body   a folder answers by itself
//! ```
//!
//! A caller names a backend and gets its answer or an [`UpstreamError`]. Which backend to ask, and
//! whether to ask another, is decided by `flow` with `rules/balance` and `state/health`.

pub mod body;
pub mod connect;
pub mod error;
pub mod exchange;
pub mod file;
pub mod pool;
#[cfg(test)]
mod script;
pub mod session;
pub mod stream;
pub mod switched;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::header::UPGRADE;
use http_body_util::combinators::UnsyncBoxBody;

pub use body::Body;
pub use error::ConnectFailure;
pub use error::UpstreamError;
pub use pool::Connections;
pub use switched::Switched;
pub use tls::Security;

use self::connect::HTTP1;
use self::connect::HTTP2;
use self::connect::Target;
use self::file::Folder;
use self::pool::Pool;

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
    /// `https://host:port`.
    Https {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// How to speak TLS with it.
        security: Arc<Security>,
    },
}

impl Backend {
    /// The backend's name for logs: `http://host:port`, `https://host:port` or `file:path`.
    pub fn name(&self) -> String {
        let (scheme, host, port) = match self {
            Self::File(path) => return format!("file:{}", path.display()),
            Self::Http { host, port } => ("http", host, port),
            Self::Https { host, port, .. } => ("https", host, port),
        };
        match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// Which protocol a backend is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What ALPN comes to where there is TLS, HTTP/2 before HTTP/1.1; HTTP/1.1 in clear text.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN where there is TLS, by prior knowledge in clear text (RFC 9113 §3.3).
    Http2,
}

/// Bounds on what one upstream may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The backends, in the config's order.
    pub backends: Vec<Backend>,
    /// Which protocol they are spoken to in.
    pub protocol: Protocol,
    /// Longest wait for DNS, TCP, TLS and the greeting of HTTP/2; also for a connection to become
    /// free.
    pub connect_timeout: Duration,
    /// Longest wait from the request's last byte to the response's head.
    pub first_byte_timeout: Duration,
    /// Longest wait between two reads of a body.
    pub between_bytes_timeout: Duration,
    /// Most connections to one backend; at least 1.
    pub connections_max: usize,
    /// Most requests that wait for a connection to one backend; more get `Saturated` at once.
    pub queue_max: usize,
    /// Most idle connections kept to one backend.
    pub idle_max: usize,
    /// Most requests at a time that only refresh what was purged; `flow` sees to it.
    pub refreshes_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Most fields in a response head; at least 1, at most 10,000.
    pub headers_max: usize,
    /// Largest response head in bytes.
    pub header_bytes_max: usize,
    /// Most requests at once on one connection of HTTP/2; at least 1.
    pub streams_max: usize,
    /// Bytes of one response on HTTP/2 that are taken in before they are read; at least 1. A
    /// connection costs at most this many for each of its streams.
    pub stream_window_bytes: u32,
    /// After how long a silence a connection of HTTP/2 is asked for a sign of life; zero: never.
    pub ping_interval: Duration,
    /// How long that sign may take.
    pub ping_timeout: Duration,
}

/// One upstream: its backends and their pools.
#[derive(Debug)]
pub struct Upstream {
    origins: Vec<Origin>,
}

#[derive(Debug)]
struct Origin {
    name: Arc<str>,
    access: Access,
}

#[derive(Debug)]
enum Access {
    File(Arc<Folder>),
    Http {
        pool: Arc<Pool>,
        /// Where connections are of HTTP/1.1, for requests that are to leave HTTP; none where those
        /// of the other pool are.
        upgrades: Option<Arc<Pool>>,
    },
}

impl Access {
    fn http(
        host: &str,
        port: u16,
        name: &Arc<str>,
        security: Option<&Arc<Security>>,
        params: &Arc<Params>,
    ) -> Self {
        let pool = |protocol| {
            let offered: &[&[u8]] = match protocol {
                Protocol::Auto => &[HTTP2, HTTP1],
                Protocol::Http1 => &[HTTP1],
                Protocol::Http2 => &[HTTP2],
            };
            let connector = security.map(|security| security.connector(host, offered));
            let target = Target::new(host, port, Arc::clone(name), connector, protocol);
            Arc::new(Pool::new(target, Arc::clone(params)))
        };
        let both = params.protocol == Protocol::Auto && security.is_some();
        Self::Http {
            pool: pool(params.protocol),
            upgrades: both.then(|| pool(Protocol::Http1)),
        }
    }
}

impl Drop for Upstream {
    /// Idle connections hold their pool, which holds them: somebody has to let go.
    fn drop(&mut self) {
        self.retire();
    }
}

impl Upstream {
    /// Makes the pools; opens nothing.
    pub fn new(params: Params) -> Self {
        let params = Arc::new(params);
        let origins = params.backends.iter().map(|backend| {
            let name: Arc<str> = Arc::from(backend.name());
            let access = match backend {
                Backend::File(path) => Access::File(Arc::new(Folder::new(path.clone()))),
                Backend::Http { host, port } => Access::http(host, *port, &name, None, &params),
                Backend::Https {
                    host,
                    port,
                    security,
                } => {
                    if !security.verifies() {
                        tracing::warn!(
                            backend = %name,
                            "verify = false: whoever is on the way to it can be it"
                        );
                    }
                    Access::http(host, *port, &name, Some(security), &params)
                }
            };
            Origin { name, access }
        });
        Self {
            origins: origins.collect(),
        }
    }

    /// How many backends there are.
    pub fn backends(&self) -> usize {
        self.origins.len()
    }

    /// A backend's name for logs: `http://host:port` or `file:path`; empty when there is no such
    /// backend.
    pub fn name(&self, backend: usize) -> Arc<str> {
        match self.origins.get(backend) {
            Some(origin) => Arc::clone(&origin.name),
            None => Arc::from(""),
        }
    }

    /// How many interim (1xx) responses came from a backend; they go no further.
    pub fn interim(&self, backend: usize) -> u64 {
        match self.origins.get(backend).map(|origin| &origin.access) {
            Some(Access::Http { pool, upgrades }) => {
                let interim = |pool: &Arc<Pool>| pool.interim().load(Ordering::Relaxed);
                interim(pool).saturating_add(upgrades.as_ref().map_or(0, interim))
            }
            Some(Access::File(_)) | None => 0,
        }
    }

    /// What connections there are to a backend.
    pub fn connections(&self, backend: usize) -> Connections {
        match self.origins.get(backend).map(|origin| &origin.access) {
            Some(Access::Http { pool, upgrades }) => {
                let others = upgrades.as_ref().map(|pool| pool.connections());
                pool.connections().and(others.unwrap_or_default())
            }
            Some(Access::File(_)) | None => Connections::default(),
        }
    }

    /// Keeps nothing idle from now on: for an upstream that the config no longer has. Requests under
    /// way end as if nothing had happened.
    pub fn retire(&self) {
        for origin in &self.origins {
            if let Access::Http { pool, upgrades } = &origin.access {
                pool.retire();
                if let Some(upgrades) = upgrades {
                    upgrades.retire();
                }
            }
        }
    }

    /// Sends a request to one backend and returns the head of the final response; 1xx are
    /// swallowed. `request` has an origin-form target and a Host field; its Content-Length and
    /// Transfer-Encoding are replaced by what its body says. A request without a body
    /// and with an idempotent method is retried once, on a new connection, when a reused
    /// connection closes before the first byte; on HTTP/2 any request is, once, that was not
    /// taken up. Dropping the future closes the connection, or resets the stream.
    ///
    /// One with an Upgrade field, which names one protocol, may be answered with a 101 that switches
    /// to it: its body then has the connection.
    pub async fn exchange(
        &self,
        backend: usize,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, UpstreamError> {
        let Some(origin) = self.origins.get(backend) else {
            return Err(UpstreamError::Connect {
                address: format!("backend {backend}"),
                reason: ConnectFailure::Other(Arc::from("no such backend")),
            });
        };
        match &origin.access {
            Access::Http { pool, upgrades } => {
                // On HTTP/2 nothing can be upgraded (RFC 9113 §8.6).
                let leaves = request.headers().contains_key(UPGRADE);
                let upgrades = upgrades.as_ref().filter(|_| leaves);
                exchange::exchange(upgrades.unwrap_or(pool), request).await
            }
            Access::File(folder) => {
                let (head, _) = request.into_parts();
                file::respond(folder, &origin.name, &head).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::script::params;
    use super::script::request;
    use super::*;

    fn upstream(backends: Vec<Backend>) -> Upstream {
        Upstream::new(Params {
            backends,
            ..params(0)
        })
    }

    #[test]
    fn backends_are_named_as_in_the_config() {
        let http = |host: &str| Backend::Http {
            host: String::from(host),
            port: 80,
        };
        let upstream = upstream(vec![
            http("origin"),
            http("::1"),
            Backend::File(PathBuf::from("fixtures/site")),
        ]);
        assert_eq!(upstream.backends(), 3);
        assert_eq!(&*upstream.name(0), "http://origin:80");
        assert_eq!(&*upstream.name(1), "http://[::1]:80");
        assert_eq!(&*upstream.name(2), "file:fixtures/site");
        assert_eq!(&*upstream.name(3), "");
    }

    #[tokio::test]
    async fn a_backend_that_does_not_exist_cannot_be_connected_to() {
        let answer = upstream(Vec::new()).exchange(0, request("GET", "/")).await;
        assert!(matches!(answer, Err(UpstreamError::Connect { .. })));
    }
}
