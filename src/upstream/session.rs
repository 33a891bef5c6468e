//! One HTTP/2 connection to a backend: many requests at once, each on a stream of its own.
//!
//! ```text
//! open ─► preface, SETTINGS, PING ─► the backend's SETTINGS, PONG ─► Session, in its pool
//!            └─ something else, nothing in time ─► it does not speak HTTP/2
//! drive ─ idle for too long ─► leaves the pool, closes when the last stream has ended
//!       ─ silent for too long ─► PING ─ still silent ─► given up, its streams fail
//!       ─ GOAWAY, closed ─► leaves the pool
//! ```
//!
//! No request goes out before the backend's SETTINGS are known: they are all in when the PING is
//! answered, so its limit on streams holds from the first one on, and whoever does not speak HTTP/2
//! is found out before a request is at stake. How many streams are in use is counted by
//! [`pool`](super::pool), under its lock; what travels on one is [`stream`](super::stream)'s.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use h2::Ping;
use h2::PingPong;
use h2::client::Connection;
use h2::client::SendRequest;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::ConnectFailure;
use super::Params;
use super::connect::Probe;
use super::connect::Wire;
use super::pool::Pool;
use super::pool::Slot;

/// An open HTTP/2 connection. It closes when this is dropped and the last stream has ended.
#[derive(Debug)]
pub(crate) struct Session {
    sender: SendRequest<Bytes>,
    probe: Probe,
    home: Handle,
    streams_max: usize,
    /// Streams in use; changed under the pool's lock only.
    used: AtomicUsize,
    /// It has carried one since it was last looked at.
    stirred: AtomicBool,
    /// It takes no more streams.
    retired: AtomicBool,
    slot: OnceLock<Slot>,
}

impl Session {
    /// Greets the backend over `wire` and returns when it has answered.
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn open(
        wire: Wire,
        pool: &Arc<Pool>,
        deadline: Instant,
    ) -> Result<Arc<Self>, ConnectFailure> {
        let params = Arc::clone(pool.params());
        let probe = wire.probe();
        let greeting = async {
            let (sender, mut connection) = builder(&params).handshake(wire).await?;
            let mut pings = connection.ping_pong();
            let mut connection = Box::pin(connection);
            if let Some(pings) = &mut pings {
                tokio::select! {
                    biased;
                    ended = &mut connection => {
                        ended?;
                        return Err(h2::Error::from(h2::Reason::NO_ERROR));
                    }
                    answered = pings.ping(Ping::opaque()) => {
                        let _pong = answered?;
                    }
                }
            }
            Ok((sender, connection, pings))
        };
        let greeted = match tokio::time::timeout_at(deadline, greeting).await {
            Ok(greeted) => greeted,
            Err(_elapsed) => return Err(ConnectFailure::Timeout),
        };
        let (sender, connection, pings) = greeted.map_err(|error: h2::Error| {
            let told = || ConnectFailure::Http2(Arc::from(error.to_string()));
            probe.failure().unwrap_or_else(told)
        })?;
        let session = Arc::new(Self {
            sender,
            probe,
            home: Handle::current(),
            streams_max: params.streams_max.max(1),
            used: AtomicUsize::new(0),
            stirred: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            slot: OnceLock::new(),
        });
        let driver = Driver {
            connection,
            pings,
            session: Arc::downgrade(&session),
            pool: Arc::downgrade(pool),
            params,
        };
        drop(tokio::spawn(driver.run()));
        Ok(session)
    }

    /// Keeps the permission to be open for as long as it is.
    pub(crate) fn hold(&self, slot: Slot) {
        // A session is opened for one slot, which is given to it once.
        let _kept = self.slot.set(slot);
    }

    /// Takes requests.
    pub(crate) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// Looks at the connection.
    pub(crate) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// It was opened by this runtime.
    pub(crate) fn is_of(&self, home: &Handle) -> bool {
        self.home.id() == home.id()
    }

    /// Streams in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// It may carry one more stream, by our limit and by the backend's (RFC 9113 §5.1.2).
    pub(crate) fn has_room(&self) -> bool {
        let max = self.sender.current_max_send_streams().min(self.streams_max);
        self.used() < max && self.is_open()
    }

    /// It takes streams: neither retired nor said goodbye to, and with identifiers left.
    pub(crate) fn is_open(&self) -> bool {
        let mut sender = self.sender.clone();
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.retired.load(Ordering::Relaxed) && matches!(ready, Poll::Ready(Ok(())))
    }

    /// Counts one more stream.
    pub(crate) fn take(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
        self.stirred.store(true, Ordering::Relaxed);
    }

    /// It has carried no stream since this was last asked.
    fn rested(&self) -> bool {
        let stirred = self.stirred.swap(false, Ordering::Relaxed);
        !stirred && self.used() == 0
    }

    /// Counts one stream less.
    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on it takes no stream.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

fn builder(params: &Params) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    let window = params.stream_window_bytes.clamp(1, WINDOW_MAX);
    let streams = u32::try_from(params.streams_max.max(1)).unwrap_or(u32::MAX);
    let header_bytes = u32::try_from(params.header_bytes_max).unwrap_or(u32::MAX);
    builder
        .enable_push(false)
        .initial_window_size(window)
        // As many windows as there are streams: however many of them wait for their readers, one
        // more still has its whole window.
        .initial_connection_window_size(window.saturating_mul(streams).min(WINDOW_MAX))
        .max_header_list_size(header_bytes)
        .max_send_buffer_size(SEND_BYTES_MAX)
        // Of a response that nobody wants some may be on its way; it is told from an answer to
        // nothing while its stream is remembered.
        .max_concurrent_reset_streams(params.streams_max.max(1))
        .reset_stream_duration(RESET_MEMORY);
    builder
}

/// What reads and writes a connection until its end.
struct Driver {
    connection: Pin<Box<Connection<Wire, Bytes>>>,
    pings: Option<PingPong>,
    session: Weak<Session>,
    pool: Weak<Pool>,
    params: Arc<Params>,
}

impl Driver {
    async fn run(mut self) {
        let ping_after = self.params.ping_interval;
        let shortest = match ping_after.is_zero() {
            true => self.params.idle_timeout,
            false => ping_after.min(self.params.idle_timeout),
        };
        let look = (shortest / 2).clamp(LOOK_MIN, LOOK_MAX);
        let (mut heard, mut silent, mut idle) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                // What went wrong is told to the requests that are on it.
                _ended = &mut self.connection => break,
                () = tokio::time::sleep(look) => {}
            }
            let Some(session) = self.session.upgrade() else {
                // Nobody has use for it; it has said so, and is closed even if nobody listens.
                let _closed = tokio::time::timeout(GOODBYE_MAX, &mut self.connection).await;
                return;
            };
            idle = match session.rested() {
                true => idle.saturating_add(look),
                false => Duration::ZERO,
            };
            if idle >= self.params.idle_timeout {
                self.leave();
            }
            let received = session.probe.received();
            drop(session);
            silent = match received == heard {
                true => silent.saturating_add(look),
                false => Duration::ZERO,
            };
            heard = received;
            if !ping_after.is_zero() && silent >= ping_after {
                if !self.answers().await {
                    break;
                }
                silent = Duration::ZERO;
            }
        }
        self.leave();
    }

    /// Asks for a sign of life and says whether one came in time (RFC 9113 §6.7).
    async fn answers(&mut self) -> bool {
        let received = |session: &Weak<Session>| {
            let session = session.upgrade();
            session.map(|session| session.probe.received())
        };
        let before = received(&self.session);
        let Some(pings) = &mut self.pings else {
            return true;
        };
        tokio::select! {
            biased;
            _ended = &mut self.connection => return false,
            // One that is still under way from the last time is as good.
            Ok(_pong) = pings.ping(Ping::opaque()) => return true,
            () = tokio::time::sleep(self.params.ping_timeout) => {}
        }
        received(&self.session) != before
    }

    /// Takes the connection out of its pool.
    fn leave(&self) {
        if let (Some(pool), Some(session)) = (self.pool.upgrade(), self.session.upgrade()) {
            pool.close(&session);
        }
    }
}

/// Largest flow-control window (RFC 9113 §6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Bytes of a request body that wait to be written, for each stream.
const SEND_BYTES_MAX: usize = 128 * 1024;
/// How long frames of a stream that was reset are expected.
const RESET_MEMORY: Duration = Duration::from_secs(10);
/// How often a connection is looked at, at most and at least.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::super::Protocol;
    use super::super::Upstream;
    use super::super::script::get;
    use super::super::script::params;
    use super::super::script::request;
    use super::*;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    /// A backend of HTTP/2 that allows so many streams, answers while the gate is open, and counts
    /// its connections.
    struct Backend {
        port: u16,
        gate: watch::Sender<bool>,
        connections: Arc<AtomicUsize>,
    }

    impl Backend {
        async fn new(streams_max: u32) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let gate = watch::Sender::new(true);
            let connections = Arc::new(AtomicUsize::new(0));
            let (counted, opened) = (Arc::clone(&connections), gate.clone());
            tokio::spawn(async move {
                while let Ok((wire, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(serve(wire, streams_max, opened.clone()));
                }
            });
            Self {
                port,
                gate,
                connections,
            }
        }

        fn upstream(&self, change: impl FnOnce(&mut Params)) -> Arc<Upstream> {
            let mut params = Params {
                protocol: Protocol::Http2,
                queue_max: 1_000,
                ..params(self.port)
            };
            change(&mut params);
            Arc::new(Upstream::new(params))
        }
    }

    async fn serve(wire: tokio::net::TcpStream, streams_max: u32, gate: watch::Sender<bool>) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(streams_max);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(wire).await else {
            return;
        };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut gate = gate.subscribe();
            tokio::spawn(async move {
                drop(gate.wait_for(|open| *open).await);
                if let Ok(mut stream) = respond.send_response(http::Response::new(()), false) {
                    drop(stream.send_data(Bytes::from("hello"), true));
                }
            });
        }
    }

    fn pool(upstream: &Upstream) -> &Arc<Pool> {
        match upstream.origins.first().map(|origin| &origin.access) {
            Some(Access::Http { pool, .. }) => pool,
            Some(Access::File(_)) | None => panic!("it is no folder"),
        }
    }

    #[tokio::test]
    async fn requests_that_are_given_up_anywhere_leave_nothing_behind() {
        let backend = Backend::new(3).await;
        let upstream = backend.upstream(|params| params.connections_max = 2);
        for round in 0..20_u64 {
            let tasks: Vec<_> = (0..40_u64)
                .map(|number| {
                    let upstream = Arc::clone(&upstream);
                    let patience = Duration::from_micros((round * 131 + number * 97) % 3_000);
                    tokio::spawn(async move {
                        tokio::time::timeout(patience, get(&upstream, "/"))
                            .await
                            .is_ok()
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
        pool(&upstream).assert_at_rest();
    }

    #[tokio::test]
    async fn those_who_wait_are_served_when_streams_end() {
        let backend = Backend::new(2).await;
        let upstream = backend.upstream(|params| params.connections_max = 1);
        backend.gate.send_replace(false);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let upstream = Arc::clone(&upstream);
                tokio::spawn(async move { get(&upstream, "/").await })
            })
            .collect();
        tokio::task::yield_now().await;
        backend.gate.send_replace(true);
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), "hello");
        }
        assert_eq!(backend.connections.load(Ordering::Relaxed), 1);
        pool(&upstream).assert_at_rest();
    }

    #[tokio::test]
    async fn a_stream_is_held_until_its_body_has_ended() {
        let backend = Backend::new(1).await;
        let upstream = backend.upstream(|params| {
            params.connections_max = 1;
            params.queue_max = 0;
        });
        let held = upstream.exchange(0, request("GET", "/")).await.unwrap();
        assert_eq!(
            get(&upstream, "/").await,
            Err(super::super::UpstreamError::Saturated)
        );
        drop(held);
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_connection_closes_when_nobody_needs_the_upstream_any_more() {
        let backend = Backend::new(1).await;
        let upstream = backend.upstream(|_| {});
        get(&upstream, "/").await.unwrap();
        let pool = Arc::downgrade(pool(&upstream));
        drop(upstream);
        assert!(pool.upgrade().is_none());
    }

    #[tokio::test]
    async fn a_connection_whose_runtime_is_gone_is_not_used() {
        let backend = Backend::new(100).await;
        let upstream = backend.upstream(|_| {});
        let elsewhere = {
            let upstream = Arc::clone(&upstream);
            tokio::task::spawn_blocking(move || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build().unwrap();
                runtime.block_on(async { get(&upstream, "/").await })
            })
        };
        assert_eq!(elsewhere.await.unwrap().unwrap(), "hello");
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
        assert_eq!(backend.connections.load(Ordering::Relaxed), 2);
        pool(&upstream).assert_at_rest();
    }
}
