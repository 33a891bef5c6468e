//! One exchange with an upstream: which backend, how many tries, and what its health learns.

use super::Engine;
use super::ask::Ask;
use super::meter::Histogram;
use super::meter::Reading;
use super::span::Step;
use super::upload::no_body;
use crate::clock;
use crate::rules::balance::round_robin;
use crate::rules::proxy_status::ProxyError;
use crate::rules::targeted::Targeted;
use crate::state::health::Health;
use crate::state::health::Params as HealthParams;
use crate::upstream;
use crate::upstream::Body;
use crate::upstream::Connections;
use crate::upstream::RequestBody;
use crate::upstream::Upstream;
use crate::upstream::UpstreamError;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;

/// An upstream and what is known of it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) upstream: Upstream,
    health: Mutex<Health>,
    /// A permit for each request that refreshes what was purged.
    pub(super) refreshes: Arc<Semaphore>,
    ticket: AtomicU64,
    /// Of each backend.
    tallies: Vec<Tally>,
}

/// What came of asking one backend. Relaxed: no other memory hangs on it.
#[derive(Debug, Default)]
struct Tally {
    /// By the first digit of the status.
    answers: [AtomicU64; CLASSES],
    /// In the order of [`ProxyError::ALL`].
    errors: [AtomicU64; ProxyError::ALL.len()],
    /// From the decision to ask to the head of an answer.
    took: Histogram,
}

/// One backend, and what came of asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// The upstream it belongs to.
    pub upstream: String,
    /// Its address, as the config has it.
    pub name: Arc<str>,
    /// It is asked.
    pub usable: bool,
    /// Responses by the first digit of their status, from 1 on.
    pub answers: [u64; CLASSES],
    /// Exchanges without a response, by the reason's token.
    pub errors: Vec<(&'static str, u64)>,
    /// How long responses took to begin.
    pub took: Reading,
    /// Interim (1xx) responses; they go no further.
    pub interim: u64,
    /// The connections to it.
    pub connections: Connections,
}

/// A response and who gave it.
pub(super) struct Exchange {
    pub(super) response: Response<Body>,
    pub(super) backend: Arc<str>,
}

/// Why there is no response from an origin.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The request that led the fetch went wrong in a way that says nothing of the origin.
    #[error("the fetch was given up")]
    Abandoned,
    /// No backend may be asked.
    #[error("no backend may be asked")]
    NoBackend,
    /// A response came, but one that `stale-if-error` covers (RFC 5861 §4).
    #[error("the origin answered {0}")]
    Status(StatusCode),
    /// The exchange failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Origin {
    pub(super) fn new(params: upstream::Params) -> Self {
        let refreshes = Arc::new(Semaphore::new(params.refreshes_max));
        let upstream = Upstream::new(params);
        let backends = upstream.backends();
        Self {
            upstream,
            refreshes,
            health: Mutex::new(Health::new(backends, HealthParams::default())),
            ticket: AtomicU64::new(0),
            tallies: (0..backends).map(|_| Tally::default()).collect(),
        }
    }

    /// Each backend, under the name of this upstream.
    pub(super) fn stats(&self, upstream: &str) -> Vec<BackendStats> {
        let now = clock::now();
        let health = super::shelf::lock(&self.health);
        let tallies = self.tallies.iter().enumerate();
        let stats = tallies.map(|(backend, tally)| BackendStats {
            upstream: upstream.to_owned(),
            name: self.upstream.name(backend),
            usable: health.is_usable(backend, now),
            interim: self.upstream.interim(backend),
            connections: self.upstream.connections(backend),
            ..tally.read()
        });
        stats.collect()
    }

    /// Picks a backend that was not tried yet.
    fn pick(&self, tried: &[usize]) -> Option<usize> {
        let now = clock::now();
        let mut health = super::shelf::lock(&self.health);
        let mut usable = health.usable(now);
        for tried in tried {
            if let Some(usable) = usable.get_mut(*tried) {
                *usable = false;
            }
        }
        let backend = round_robin(self.ticket.fetch_add(1, Ordering::Relaxed), &usable)?;
        health.ask(backend, now);
        Some(backend)
    }
}

impl Tally {
    fn count(&self, result: Result<StatusCode, &UpstreamError>, took: Duration) {
        let cell = match result {
            Ok(status) => {
                self.took.record(took);
                let class = usize::from(status.as_u16() / 100);
                self.answers.get(class.saturating_sub(1))
            }
            Err(error) => {
                let error = error.proxy_error();
                let place = ProxyError::ALL.iter().position(|known| *known == error);
                place.and_then(|place| self.errors.get(place))
            }
        };
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) -> BackendStats {
        let mut stats = BackendStats {
            took: self.took.read(),
            ..BackendStats::default()
        };
        for (read, count) in stats.answers.iter_mut().zip(&self.answers) {
            *read = count.load(Ordering::Relaxed);
        }
        for (error, count) in ProxyError::ALL.iter().zip(&self.errors) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                stats.errors.push((error.token(), count));
            }
        }
        stats
    }
}

impl FetchError {
    /// The status a client gets.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Abandoned => StatusCode::BAD_GATEWAY,
            Self::Status(status) => *status,
            Self::Upstream(error) if error.timed_out() => StatusCode::GATEWAY_TIMEOUT,
            Self::NoBackend
            | Self::Upstream(UpstreamError::Saturated | UpstreamError::Unprocessed) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// May an origin have seen some of the request?
    pub(super) fn may_have_arrived(&self) -> bool {
        match self {
            Self::NoBackend => false,
            Self::Abandoned | Self::Status(_) => true,
            Self::Upstream(error) => error.may_have_arrived(),
        }
    }

    /// What Proxy-Status calls it.
    pub(super) fn proxy_error(&self) -> ProxyError {
        match self {
            Self::Abandoned => ProxyError::ProxyInternalError,
            Self::NoBackend => ProxyError::DestinationUnavailable,
            Self::Status(_) => ProxyError::ProxyInternalResponse,
            Self::Upstream(error) => error.proxy_error(),
        }
    }
}

impl Engine {
    /// The fields to send on: the client's end-to-end fields, and what tells the origin who asks.
    pub(super) fn forwarded_fields(&self, ask: &Ask) -> HeaderMap {
        let mut headers = ask.request.headers().clone();
        let authority = ask.request.authority();
        if let Ok(host) = HeaderValue::from_str(authority) {
            headers.insert(header::HOST, host);
        }
        ask.sender
            .tell(&mut headers, authority, &ask.setup.params.forwarded);
        ask.setup.hop.sign(&mut headers, ask.request.version());
        headers
    }

    /// Sends a request without a body, trying other backends while that is safe.
    pub(super) async fn exchange(
        &self,
        ask: &Ask,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Exchange, FetchError> {
        let origin = ask.origin();
        let mut tried = Vec::new();
        let mut failed = FetchError::NoBackend;
        loop {
            let Some(backend) = origin.pick(&tried) else {
                return Err(failed);
            };
            let request = self.outgoing(ask, method, headers, no_body());
            let error = match self.try_backend(ask, origin, backend, request).await {
                Ok(exchange) => return Ok(exchange),
                Err(error) => error,
            };
            tried.push(backend);
            let more = tried.len() < ask.setup.params.tries_max.min(origin.upstream.backends());
            let again = more && error.retry(method.is_idempotent());
            // Of several failures the one that got furthest is told.
            if !failed.may_have_arrived() {
                failed = error.into();
            }
            if !again {
                return Err(failed);
            }
        }
    }

    /// Sends a request with a body: once, since a body can be sent only once.
    pub(super) async fn exchange_body(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Exchange, FetchError> {
        let origin = ask.origin();
        let Some(backend) = origin.pick(&[]) else {
            return Err(FetchError::NoBackend);
        };
        let request = self.outgoing(ask, ask.request.method(), headers, body);
        Ok(self.try_backend(ask, origin, backend, request).await?)
    }

    fn outgoing(
        &self,
        ask: &Ask,
        method: &Method,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers.clone();
        let targeted = &ask.site().store.targeted;
        if let Some(capability) = targeted.iter().find_map(Targeted::capability) {
            let headers = request.headers_mut();
            headers.insert(SURROGATE_CAPABILITY, capability.clone());
        }
        if let Ok(uri) = ask.request.target().parse() {
            *request.uri_mut() = uri;
        }
        request
    }

    async fn try_backend(
        &self,
        ask: &Ask,
        origin: &Origin,
        backend: usize,
        mut request: Request<RequestBody>,
    ) -> Result<Exchange, UpstreamError> {
        let span = self.begin_span(ask);
        if let (Some(trace), Some(span)) = (&ask.trace, &span) {
            trace.tell(request.headers_mut(), span.id());
        }
        let method = request.method().clone();
        let asked = clock::instant();
        let result = origin.upstream.exchange(backend, request).await;
        self.end_span(span, || Step::Exchange {
            method,
            backend: origin.upstream.name(backend),
            result: result
                .as_ref()
                .map(Response::status)
                .map_err(UpstreamError::proxy_error),
        });
        if let Some(tally) = origin.tallies.get(backend) {
            let status = result.as_ref().map(Response::status);
            tally.count(status, clock::instant().duration_since(asked));
        }
        let mut health = super::shelf::lock(&origin.health);
        match &result {
            Ok(_) => health.success(backend),
            Err(error) if error.blames_backend() => health.failure(backend, clock::now()),
            Err(_) => {}
        }
        drop(health);
        Ok(Exchange {
            response: result?,
            backend: origin.upstream.name(backend),
        })
    }
}

/// The first digits a status can have.
const CLASSES: usize = 5;
/// How a surrogate says to the origin that directives may be meant for it (Edge Architecture §2.1).
const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
