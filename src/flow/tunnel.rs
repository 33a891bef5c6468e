//! Upgrades: a connection that carries another protocol after a 101, and the count of them.
//!
//! ```text
//! admitted ─► a place? ─► exchange, asking for one protocol ─┬─ 101 ─► Tunnel ─► client ⇄ origin
//!               └─ 503                                       └─ else ─► a response like any other
//! ```
//!
//! Nothing of it touches the store. A tunnel ends when both sides have ended, when either fails,
//! when no byte passed for the idle timeout, or when it is dropped because the server stops; its
//! report is handed in then. Where an upgrade that was passed on came to nothing, the connection
//! closes: what its client may have sent ahead was not meant as a request.

use super::Answer;
use super::Engine;
use super::ask::Ask;
use super::body::Body;
use super::body::Log;
use super::body::Source;
use super::deliver;
use super::lookup::failed;
use super::origin::FetchError;
use super::refuse;
use crate::clock;
use crate::rules::cache_status::Detail;
use crate::rules::cache_status::Forward;
use crate::rules::cache_status::Outcome;
use crate::rules::request::Refusal;
use crate::rules::upgrade::Protocol;
use crate::rules::upgrade::websocket_accept;
use crate::rules::upgrade::websocket_key;
use crate::upstream::Switched;
use crate::upstream::UpstreamError;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

/// What tunnels there were and are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// Open now.
    pub open: u64,
    /// Opened so far.
    pub opened: u64,
    /// Bytes from clients.
    pub from_clients: u64,
    /// Bytes to clients.
    pub to_clients: u64,
}

/// Counts tunnels, those that are being asked for included.
#[derive(Debug, Default)]
pub(super) struct Counts {
    places: AtomicUsize,
    open: AtomicU64,
    opened: AtomicU64,
    from_clients: AtomicU64,
    to_clients: AtomicU64,
}

/// One of the places for tunnels.
#[derive(Debug)]
struct Place {
    counts: Arc<Counts>,
    /// The origin agreed.
    open: bool,
}

impl Counts {
    fn place(self: &Arc<Self>, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then(|| taken.saturating_add(1));
        let taken = self
            .places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Place {
            counts: Arc::clone(self),
            open: false,
        })
    }

    pub(super) fn read(&self) -> Tunnels {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tunnels {
            open: read(&self.open),
            opened: read(&self.opened),
            from_clients: read(&self.from_clients),
            to_clients: read(&self.to_clients),
        }
    }
}

impl Place {
    fn opened(mut self) -> Self {
        self.open = true;
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.places.fetch_sub(1, Ordering::Relaxed);
        if self.open {
            self.counts.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The origin's end of a tunnel, ready to be joined to the client's.
#[derive(Debug)]
pub struct Tunnel {
    origin: Switched,
    idle: Duration,
    passage: Passage,
}

/// What passes through one tunnel; hands in its report when it is dropped.
#[derive(Debug)]
struct Passage {
    place: Place,
    log: Option<Box<Log>>,
    begun: Instant,
    /// When a byte last passed, in milliseconds from the beginning.
    moved: AtomicU64,
    to_client: AtomicU64,
}

impl Tunnel {
    /// Has the report handed in when the tunnel ends.
    pub(super) fn report_to(&mut self, log: Box<Log>) {
        self.passage.log = Some(log);
    }

    /// Carries bytes both ways to the end. One side's end is passed on, and the other may go on.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            mut origin,
            idle,
            mut passage,
        } = self;
        passage.begun = clock::instant();
        let mut client = Metered {
            inner: client,
            passage: &passage,
        };
        let carried = tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut origin,
            BUFFER_BYTES,
            BUFFER_BYTES,
        );
        let complete = tokio::select! {
            carried = carried => carried.is_ok(),
            () = passage.silence(idle) => false,
        };
        if let Some(log) = &mut passage.log {
            log.report.complete = complete;
        }
    }
}

impl Passage {
    fn new(place: Place) -> Self {
        Self {
            place,
            log: None,
            begun: clock::instant(),
            moved: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        }
    }

    fn age(&self) -> Duration {
        clock::instant().duration_since(self.begun)
    }

    fn count(&self, total: &AtomicU64, bytes: usize) {
        let millis = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
        total.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until no byte has passed for `limit`.
    async fn silence(&self, limit: Duration) {
        loop {
            let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
            let left = limit.saturating_sub(self.age().saturating_sub(moved));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(mut log) = self.log.take() {
            log.report.body_bytes = self.to_client.load(Ordering::Relaxed);
            log.hand_in();
        }
    }
}

/// The client's end, with what passes counted.
struct Metered<'p, C> {
    inner: C,
    passage: &'p Passage,
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<'_, C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let bytes = buffer.filled().len().saturating_sub(filled);
        if bytes > 0 {
            let counts = &self.passage.place.counts;
            self.passage.count(&counts.from_clients, bytes);
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<'_, C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = written {
            let counts = &self.passage.place.counts;
            self.passage.count(&counts.to_clients, bytes);
            let to_client = &self.passage.to_client;
            to_client.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl Engine {
    /// Asks the origin for an upgrade to `protocol`.
    pub(super) async fn upgrade(&self, ask: Box<Ask>, protocol: Protocol) -> Answer {
        let outcome = Outcome {
            fwd: Some(Forward::Bypass),
            detail: Some(Detail::Upgrade),
            ..Outcome::default()
        };
        let Some(place) = self.tunnels.place(ask.setup.params.upgrades_max) else {
            return refuse(Refusal::TooManyUpgrades);
        };
        let mut headers = self.forwarded_fields(&ask);
        headers.insert(header::UPGRADE, protocol.field().clone());
        headers.insert(header::CONNECTION, UPGRADE);
        if ask.request.connects() {
            return self.connect(ask, &protocol, headers, place, outcome).await;
        }
        let mut answer = match self.exchange(&ask, &Method::GET, &headers).await {
            Err(error) => failed(&error, outcome),
            Ok(exchange) => {
                let (head, mut body) = exchange.response.into_parts();
                let switched = body.take_switched();
                let mut response = deliver::private(&head, body);
                if let Some(origin) = switched {
                    *response.body_mut() = Body::tunnel(&ask, origin, place);
                    let headers = response.headers_mut();
                    headers.insert(header::UPGRADE, protocol.field().clone());
                    headers.insert(header::CONNECTION, UPGRADE);
                }
                Answer::new(response, outcome).by(exchange.backend)
            }
        };
        if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let headers = answer.response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Asks the origin for the WebSocket that a client asks for by CONNECT on a stream of HTTP/2
    /// (RFC 8441 §5): the keys of the handshake are ours, since that has none.
    async fn connect(
        &self,
        ask: Box<Ask>,
        protocol: &Protocol,
        mut headers: HeaderMap,
        place: Place,
        outcome: Outcome,
    ) -> Answer {
        if !protocol.is_websocket() {
            return refuse(Refusal::ConnectMethod);
        }
        let key = websocket_key(self.nonce());
        let accept = websocket_accept(&key);
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        let exchange = match self.exchange(&ask, &Method::GET, &headers).await {
            Ok(exchange) => exchange,
            Err(error) => return failed(&error, outcome),
        };
        let (head, mut body) = exchange.response.into_parts();
        let accepted = head.headers.get(header::SEC_WEBSOCKET_ACCEPT);
        let accepted = accepted.is_some_and(|accepted| accepted == accept.as_str());
        let response = match body.take_switched() {
            Some(origin) if accepted => {
                let mut response = deliver::private(&head, body);
                *response.status_mut() = StatusCode::OK;
                let headers = response.headers_mut();
                headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                *response.body_mut() = Body::tunnel(&ask, origin, place);
                response
            }
            // A success would tell the client that there is a tunnel.
            switched if switched.is_some() || head.status.is_success() => {
                let error =
                    FetchError::Upstream(UpstreamError::Protocol(Arc::from("no WebSocket")));
                return failed(&error, outcome).by(exchange.backend);
            }
            _ => deliver::private(&head, body),
        };
        Answer::new(response, outcome).by(exchange.backend)
    }
}

impl Body {
    /// No body, and then a tunnel to the origin.
    fn tunnel(ask: &Ask, origin: Switched, place: Place) -> Self {
        let tunnel = Tunnel {
            origin,
            idle: ask.setup.params.upgrade_idle_timeout,
            passage: Passage::new(place.opened()),
        };
        Self::new(Source::Tunnel(Box::new(tunnel)), Some(0))
    }
}

const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
/// Bytes on their way in each direction.
const BUFFER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let counts = Arc::new(Counts::default());
        let first = counts.place(2).unwrap();
        let second = counts.place(2).unwrap().opened();
        assert!(counts.place(2).is_none());
        assert_eq!((counts.read().open, counts.read().opened), (1, 1));
        drop(first);
        let third = counts.place(2).unwrap().opened();
        drop((second, third));
        assert_eq!((counts.read().open, counts.read().opened), (0, 2));
        assert!(counts.place(0).is_none());
    }
}
