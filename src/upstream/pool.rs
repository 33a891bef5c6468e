//! Connections to one backend: a cap, a wait queue, the most recently used first.
//!
//! ```text
//! checkout ─ a connection of HTTP/2 that has room       ─► Grant::Stream
//!          ─ an idle connection that is open and quiet  ─► Grant::Reused
//!          ─ fewer than connections_max are open       ─► Grant::Fresh   the caller opens one
//!          ─ room in the queue                         ─► waits for either
//!          ─ queue is full, or waited too long         ─► Saturated
//! check_in ─ somebody waits ─► handed over    ─ nobody ─► idle, at most idle_max of them
//! ```
//!
//! A `Slot` is the permission to have one connection open. It lives in its `Connection` and
//! passes itself to whoever waits when it is dropped, so no path of failure can lose one. Dropping
//! a connection closes it at once. The threads of a process share a pool; a connection opened by
//! the runtime that asks is preferred, because a wake across threads costs. A connection whose
//! runtime is gone is closed and never handed out.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Params;
use super::UpstreamError;
use super::connect::Probe;
use super::connect::Target;
use super::connect::Wire;
use super::exchange::Outgoing;
use super::session::Session;

/// The connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    params: Arc<Params>,
    /// Interim (1xx) responses that were swallowed.
    interim: Arc<AtomicU64>,
    /// Connections that were opened so far.
    opened: AtomicU64,
    state: Mutex<State>,
}

/// The connections to one backend, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Those of them that carry nothing. One of HTTP/2 is never idle: it waits to be shared.
    pub idle: u64,
    /// Requests that wait for one.
    pub waiting: u64,
    /// Opened so far.
    pub opened: u64,
}

impl Connections {
    /// Adds those of another pool.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            open: self.open.saturating_add(other.open),
            idle: self.idle.saturating_add(other.idle),
            waiting: self.waiting.saturating_add(other.waiting),
            opened: self.opened.saturating_add(other.opened),
        }
    }
}

/// What is behind the lock. While somebody waits, nothing is idle, no stream is to be had, and every
/// slot is taken or a connection is being opened that many can share.
#[derive(Debug, Default)]
struct State {
    /// Connections that are open, idle or not, or being opened; as many slots exist.
    open: usize,
    /// How many of them are being opened.
    opening: usize,
    /// Those of HTTP/2.
    sessions: Vec<Arc<Session>>,
    /// The backend turned out not to speak HTTP/2, when it was last asked.
    alone: bool,
    /// The oldest first.
    idle: VecDeque<Idle>,
    /// By arrival.
    waiting: BTreeMap<u64, oneshot::Sender<Result<Grant, UpstreamError>>>,
    arrivals: u64,
    /// Nothing becomes idle any more.
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// What a request gets to travel on.
#[derive(Debug)]
pub(crate) enum Grant {
    /// A connection that has carried a request before.
    Reused(Connection),
    /// Permission to open a connection.
    Fresh(Slot),
    /// A place on a connection of HTTP/2.
    Stream(Lease),
}

/// A new connection, in the protocol that was agreed on.
#[derive(Debug)]
pub(crate) enum Opened {
    /// For one request at a time.
    Http1(Connection),
    /// A place on one that others share.
    Http2(Lease),
}

/// What the lock's holder decided.
enum Step {
    Granted(Grant),
    /// Drop it without the lock, then ask again.
    Discard(Connection),
    /// The same for one that others may still use.
    Close(Arc<Session>),
    Wait(Waiting),
}

impl Pool {
    /// Makes an empty pool; opens nothing.
    pub(crate) fn new(target: Target, params: Arc<Params>) -> Self {
        Self {
            target,
            params,
            interim: Arc::default(),
            opened: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    /// The bounds this pool keeps.
    pub(crate) fn params(&self) -> &Arc<Params> {
        &self.params
    }

    /// Whom it leads to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Counts the interim (1xx) responses that were swallowed.
    pub(crate) fn interim(&self) -> &Arc<AtomicU64> {
        &self.interim
    }

    /// What connections there are.
    pub(crate) fn connections(&self) -> Connections {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let state = self.lock();
        Connections {
            open: count(state.open.saturating_sub(state.opening)),
            idle: count(state.idle.len()),
            waiting: count(state.waiting.len()),
            opened: self.opened.load(Ordering::Relaxed),
        }
    }

    /// Finds a connection or the permission to open one; waits in line for at most
    /// `connect_timeout` when all are busy. Dropping the future leaves the line.
    pub(crate) async fn checkout(self: &Arc<Self>) -> Result<Grant, UpstreamError> {
        let waiting = loop {
            match self.step()? {
                Step::Granted(grant) => return Ok(grant),
                Step::Discard(connection) => drop(connection),
                Step::Close(session) => drop(session),
                Step::Wait(waiting) => break waiting,
            }
        };
        match tokio::time::timeout(self.params.connect_timeout, waiting).await {
            // It may have closed on its way; its slot is as good for a new one.
            Ok(Some(Ok(Grant::Reused(connection)))) if !connection.usable() => {
                Ok(Grant::Fresh(connection.into_slot()))
            }
            Ok(Some(granted)) => granted,
            Ok(None) | Err(_) => Err(UpstreamError::Saturated),
        }
    }

    fn step(self: &Arc<Self>) -> Result<Step, UpstreamError> {
        let home = Handle::current().id();
        let mut state = self.lock();
        if let Some(place) = state.sessions.iter().position(|known| !known.is_open()) {
            return Ok(Step::Close(state.sessions.swap_remove(place)));
        }
        if let Some(lease) = self.lease(&state) {
            return Ok(Step::Granted(Grant::Stream(lease)));
        }
        let newest = state.idle.len().checked_sub(1);
        let ours = state
            .idle
            .iter()
            .rposition(|idle| idle.connection.home.id() == home);
        let found = ours
            .or(newest)
            .and_then(|position| state.idle.remove(position));
        if let Some(idle) = found {
            let fresh = idle.since.elapsed() < self.params.idle_timeout;
            return Ok(if fresh && idle.connection.usable() {
                Step::Granted(Grant::Reused(idle.connection))
            } else {
                Step::Discard(idle.connection)
            });
        }
        if self.may_open(&state) {
            return Ok(Step::Granted(Grant::Fresh(Slot::new(self, &mut state))));
        }
        if state.waiting.len() >= self.params.queue_max {
            return Err(UpstreamError::Saturated);
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = state.arrivals;
        state.arrivals = state.arrivals.wrapping_add(1);
        state.waiting.insert(ticket, sender);
        Ok(Step::Wait(Waiting {
            pool: Arc::clone(self),
            ticket,
            receiver,
        }))
    }

    /// Finds a place on a connection of HTTP/2, one of this runtime's if there is one.
    fn lease(self: &Arc<Self>, state: &State) -> Option<Lease> {
        if state.sessions.is_empty() {
            return None;
        }
        let home = Handle::try_current().ok();
        let near = |session: &&Arc<Session>| home.as_ref().is_some_and(|home| session.is_of(home));
        let with_room = || state.sessions.iter().filter(|session| session.has_room());
        let found = with_room().find(near).or_else(|| with_room().next())?;
        Some(Lease::new(self, found, true))
    }

    /// One more connection may be opened: there is a slot, and those who wait are more than can share
    /// the connections that are being opened.
    fn may_open(&self, state: &State) -> bool {
        let shared = self.target.may_share() && !state.alone;
        let expected = state.opening.saturating_mul(self.params.streams_max.max(1));
        let enough = shared && state.waiting.len() < expected;
        state.open < self.params.connections_max.max(1) && !enough
    }

    /// Opens a connection to the backend. Dropping the future gives the slot back.
    pub(crate) async fn open(self: &Arc<Self>, mut slot: Slot) -> Result<Opened, UpstreamError> {
        let opened = self.attempt(&mut slot).await;
        if let Err(error) = &opened {
            self.fail_waiting(error);
        }
        opened
    }

    async fn attempt(self: &Arc<Self>, slot: &mut Slot) -> Result<Opened, UpstreamError> {
        let deadline = Instant::now() + self.params.connect_timeout;
        let wire = self.target.open(deadline).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.target.agreed_on_http2(&wire)? {
            let session = Session::open(wire, self, deadline).await;
            let session = session.map_err(|reason| self.target.failed(reason))?;
            return Ok(Opened::Http2(self.share(session, slot.take())));
        }
        let connection = self.greet(wire, slot.take()).await?;
        let newly = !std::mem::replace(&mut self.lock().alone, true);
        if newly {
            // Those who wait have hoped to share it.
            self.serve_waiting();
        }
        Ok(Opened::Http1(connection))
    }

    /// Takes a new connection of HTTP/2 in, and the first place on it.
    fn share(self: &Arc<Self>, session: Arc<Session>, slot: Slot) -> Lease {
        session.hold(slot);
        let mut state = self.lock();
        state.alone = false;
        let lease = Lease::new(self, &session, false);
        if !state.retired {
            state.sessions.push(session);
        }
        drop(state);
        self.serve_waiting();
        lease
    }

    /// Lets a connection of HTTP/2 take no more streams; it closes when the last one has ended.
    pub(crate) fn close(self: &Arc<Self>, session: &Arc<Session>) {
        session.retire();
        let mut state = self.lock();
        let place = state
            .sessions
            .iter()
            .position(|known| Arc::ptr_eq(known, session));
        let gone = place.map(|place| state.sessions.swap_remove(place));
        drop(state);
        // Its slot takes the lock again.
        drop(gone);
        self.serve_waiting();
    }

    /// Tells those who wait for a connection that there will be none.
    fn fail_waiting(self: &Arc<Self>, error: &UpstreamError) {
        let mut state = self.lock();
        let others = state.opening > 1 || !state.sessions.is_empty();
        if state.alone || others || !self.target.may_share() {
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waiter in waiting.into_values() {
            // Who does not listen needs no answer.
            let _told = waiter.send(Err(error.clone()));
        }
    }

    /// Gives to those who wait what there is to give.
    fn serve_waiting(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.waiting.is_empty() {
                return;
            }
            let grant = match self.lease(&state) {
                Some(lease) => Grant::Stream(lease),
                None if self.may_open(&state) => Grant::Fresh(Slot::new(self, &mut state)),
                None => return,
            };
            let waiter = state.waiting.pop_first();
            drop(state);
            if let Some((_, waiter)) = waiter
                && let Err(Ok(unclaimed)) = waiter.send(Ok(grant))
            {
                // Nobody listens any more. What it was given is taken back here, since its own end
                // would come back here.
                self.take_back(unclaimed);
            }
        }
    }

    fn take_back(&self, grant: Grant) {
        match grant {
            Grant::Fresh(mut slot) => {
                let mut state = self.lock();
                slot.settle(&mut state);
                state.open = state.open.saturating_sub(1);
                drop(state);
                slot.forget();
            }
            Grant::Stream(mut lease) => drop(lease.release()),
            Grant::Reused(connection) => drop(connection),
        }
    }

    async fn greet(&self, wire: Wire, slot: Slot) -> Result<Connection, UpstreamError> {
        let probe = wire.probe();
        let handshake = http1::Builder::new()
            .max_headers(self.params.headers_max.clamp(1, FIELDS_MAX))
            .max_header_size(self.params.header_bytes_max)
            .max_buf_size(self.params.header_bytes_max.max(READ_BYTES_MAX))
            .handshake(TokioIo::new(wire))
            .await;
        let Ok((sender, connection)) = handshake else {
            return Err(UpstreamError::Closed);
        };
        let task = tokio::spawn(async move {
            // What went wrong is told to the request that is on the connection.
            let _ended = connection.with_upgrades().await;
        });
        Ok(Connection {
            sender,
            probe,
            home: Handle::current(),
            _driver: Driver(task.abort_handle()),
            slot,
        })
    }

    /// Takes back a connection whose response has been read to its end. It is kept only when the
    /// driver is done with the exchange and nothing more has arrived.
    pub(crate) fn give_back(self: &Arc<Self>, mut connection: Connection) {
        if connection.sender.is_ready() {
            self.check_in(connection);
        } else if !connection.sender.is_closed() {
            // The driver, perhaps on another thread, has not come round yet, or the request's body
            // is still on its way.
            let pool = Arc::clone(self);
            let home = connection.home.clone();
            drop(home.spawn(async move {
                let ready = tokio::time::timeout(SETTLE_WAIT_MAX, connection.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.check_in(connection);
                }
            }));
        }
    }

    fn check_in(&self, mut connection: Connection) {
        loop {
            let mut state = self.lock();
            let Some((_, waiter)) = state.waiting.pop_first() else {
                let discarded = state.keep(connection, &self.params);
                // Closing takes the lock again.
                drop(state);
                drop(discarded);
                return;
            };
            drop(state);
            match waiter.send(Ok(Grant::Reused(connection))) {
                Err(Ok(Grant::Reused(unclaimed))) => connection = unclaimed,
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Panics unless every stream and every permission is back.
    #[cfg(test)]
    pub(crate) fn assert_at_rest(&self) {
        let state = self.lock();
        assert_eq!((state.waiting.len(), state.opening), (0, 0));
        assert_eq!(state.open, state.sessions.len() + state.idle.len());
        for session in &state.sessions {
            assert_eq!(session.used(), 0);
        }
    }

    /// Closes what is idle, and from now on what would become so.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        let idle = std::mem::take(&mut state.idle);
        let sessions = std::mem::take(&mut state.sessions);
        // Closing takes the lock again.
        drop(state);
        drop((idle, sessions));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a connection idle; returns what must go for it, to be dropped without the lock.
    fn keep(&mut self, connection: Connection, params: &Params) -> Vec<Connection> {
        let mut discarded = Vec::new();
        if params.idle_max == 0 || self.retired {
            discarded.push(connection);
            return discarded;
        }
        let now = Instant::now();
        while let Some(oldest) = self.idle.front() {
            let expired = now.duration_since(oldest.since) >= params.idle_timeout
                || oldest.connection.sender.is_closed();
            if !expired && self.idle.len() < params.idle_max {
                break;
            }
            discarded.extend(self.idle.pop_front().map(|idle| idle.connection));
        }
        self.idle.push_back(Idle {
            connection,
            since: now,
        });
        discarded
    }
}

/// The permission to have one connection open.
#[derive(Debug)]
pub(crate) struct Slot {
    /// None once it is nobody's.
    pool: Option<Arc<Pool>>,
    /// The connection is not there yet.
    opening: bool,
}

impl Slot {
    fn new(pool: &Arc<Pool>, state: &mut State) -> Self {
        state.open = state.open.saturating_add(1);
        state.opening = state.opening.saturating_add(1);
        Self {
            pool: Some(Arc::clone(pool)),
            opening: true,
        }
    }

    /// The connection is there.
    fn settle(&mut self, state: &mut State) {
        if std::mem::take(&mut self.opening) {
            state.opening = state.opening.saturating_sub(1);
        }
    }

    /// Passes the permission on as one whose connection is there.
    fn take(&mut self) -> Self {
        let pool = self.pool.take();
        if let Some(pool) = &pool {
            self.settle(&mut pool.lock());
        }
        Self {
            pool,
            opening: false,
        }
    }

    /// It has been taken back.
    fn forget(mut self) {
        drop(self.pool.take());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else {
            return;
        };
        let mut state = pool.lock();
        self.settle(&mut state);
        state.open = state.open.saturating_sub(1);
        drop(state);
        pool.serve_waiting();
    }
}

/// A place on a connection of HTTP/2. Dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Lease {
    /// None once it has been given back.
    pool: Option<Arc<Pool>>,
    session: Arc<Session>,
    reused: bool,
}

impl Lease {
    /// Under the pool's lock.
    fn new(pool: &Arc<Pool>, session: &Arc<Session>, reused: bool) -> Self {
        session.take();
        Self {
            pool: Some(Arc::clone(pool)),
            session: Arc::clone(session),
            reused,
        }
    }

    /// The connection.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The connection was there before it was asked for.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    fn release(&mut self) -> Option<Arc<Pool>> {
        let pool = self.pool.take()?;
        let state = pool.lock();
        self.session.give_back();
        drop(state);
        Some(pool)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.release() {
            pool.serve_waiting();
        }
    }
}

/// A place in the line; leaving it early takes the name off the list.
struct Waiting {
    pool: Arc<Pool>,
    ticket: u64,
    receiver: oneshot::Receiver<Result<Grant, UpstreamError>>,
}

impl Future for Waiting {
    type Output = Option<Result<Grant, UpstreamError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(Result::ok)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A grant that is already in the channel is dropped with it and passes itself on.
        let left = self.pool.lock().waiting.remove(&self.ticket);
        drop(left);
    }
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Takes requests.
    pub(crate) sender: SendRequest<Outgoing>,
    /// Looks at the stream.
    pub(crate) probe: Probe,
    home: Handle,
    _driver: Driver,
    slot: Slot,
}

impl Connection {
    /// Closes the connection and keeps the permission to have one.
    pub(crate) fn into_slot(self) -> Slot {
        self.slot
    }

    /// It can carry a request now: not closed, between messages, and nothing has arrived that
    /// would be taken for the answer.
    fn usable(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed() && self.probe.quiet()
    }
}

/// The task that reads and writes a connection; it ends when this is dropped.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A header map cannot hold more than about 24,000 fields.
const FIELDS_MAX: usize = 10_000;
/// Largest read of a body, in bytes; hyper starts with 8 KiB and grows to this when reads fill up.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long a connection may take to settle after its response has ended.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::super::Upstream;
    use super::super::script::*;
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tokio::sync::Notify;

    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";

    /// A connection that answers so many requests alike.
    fn answering(times: usize) -> Vec<Act> {
        let mut script: Vec<Act> = (0..times).flat_map(|_| answer(HELLO)).collect();
        script.push(Act::Hang);
        script
    }

    fn with(origin: &Origin, change: impl FnOnce(&mut Params)) -> Arc<Upstream> {
        let mut params = origin.params();
        change(&mut params);
        Arc::new(Upstream::new(params))
    }

    fn is_send_and_sync<T: Send + Sync>(_: &T) {}

    #[tokio::test]
    async fn an_upstream_can_be_shared_by_threads() {
        let origin = Origin::playing(vec![]).await;
        is_send_and_sync(&origin.upstream());
    }

    #[tokio::test]
    async fn a_connection_is_used_again_after_its_response() {
        let origin = Origin::playing(vec![answering(3)]).await;
        let upstream = origin.upstream();
        for _ in 0..3 {
            assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
        }
        assert_eq!(origin.connections(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_reader_need_not_ask_for_the_end_after_the_last_byte() {
        let origin = Origin::playing(vec![answering(2)]).await;
        let upstream = origin.upstream();
        let mut response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        get(&upstream, "/").await.unwrap();
        assert_eq!(origin.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn the_connection_used_last_is_used_first() {
        let origin = Origin::playing(vec![answering(9), answering(9)]).await;
        let upstream = origin.upstream();
        let first = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let second = upstream.exchange(0, request("GET", "/2")).await.unwrap();
        read(second).await.unwrap();
        read(first).await.unwrap();
        get(&upstream, "/3").await.unwrap();
        get(&upstream, "/4").await.unwrap();
        assert_eq!(origin.connections(), [0, 1, 0, 0]);
    }

    #[tokio::test]
    async fn an_origin_that_wants_to_close_is_not_asked_again() {
        let said = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        let closing = [answer(said), vec![Act::Hang]].concat();
        let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello";
        let ancient = [answer(old), vec![Act::Hang]].concat();
        let origin = Origin::playing(vec![closing, ancient, answering(1)]).await;
        let upstream = origin.upstream();
        for _ in 0..3 {
            get(&upstream, "/").await.unwrap();
        }
        assert_eq!(origin.connections(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn bytes_after_a_response_are_never_the_next_answer() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        for (method, first) in [
            ("GET", HELLO),
            ("GET", chunked),
            ("HEAD", head),
            ("GET", "HTTP/1.1 204 No\r\n\r\n"),
            ("GET", "HTTP/1.1 304 No\r\n\r\n"),
        ] {
            let poisoned = [answer(format!("{first}{POISON}")), vec![Act::Hang]].concat();
            let origin = Origin::playing(vec![poisoned, answering(1)]).await;
            let upstream = origin.upstream();
            let response = upstream.exchange(0, request(method, "/")).await.unwrap();
            read(response).await.unwrap();
            assert_eq!(get(&upstream, "/victim").await.unwrap(), "hello", "{first}");
            assert_eq!(origin.connections(), [0, 1], "{first}");
        }
    }

    #[tokio::test]
    async fn bytes_on_an_idle_connection_are_never_the_next_answer() {
        let idle = Arc::new(Notify::new());
        let said = Arc::new(Notify::new());
        let mut late = answer(HELLO);
        late.extend([
            Act::Await(Arc::clone(&idle)),
            Act::Say(Bytes::from(POISON)),
            Act::Tell(Arc::clone(&said)),
            Act::Hang,
        ]);
        let origin = Origin::playing(vec![late, answering(1)]).await;
        let upstream = origin.upstream();
        get(&upstream, "/").await.unwrap();
        idle.notify_one();
        said.notified().await;
        assert_eq!(get(&upstream, "/victim").await.unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn bytes_that_the_runtime_has_not_noticed_are_seen_at_checkout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::new("127.0.0.1", port, Arc::from("it"), None, Protocol::Auto);
        let deadline = Instant::now() + Duration::from_secs(20);
        let wire = target.open(deadline).await.unwrap();
        let probe = wire.probe();
        let (mut peer, _) = listener.accept().unwrap();
        assert!(probe.quiet());
        std::io::Write::write_all(&mut peer, POISON.as_bytes()).unwrap();
        // No await in between: the runtime's driver has had no chance to look.
        assert!(!probe.quiet());
        drop(wire);
        assert!(!probe.quiet());
    }

    #[tokio::test]
    async fn an_idle_connection_that_the_origin_closed_is_not_used() {
        let closed = Arc::new(Notify::new());
        let mut first = answer(HELLO);
        first.push(Act::Await(Arc::clone(&closed)));
        let origin = Origin::playing(vec![first, answering(1)]).await;
        let upstream = origin.upstream();
        get(&upstream, "/").await.unwrap();
        closed.notify_one();
        // A POST may not be sent twice, so it would fail on the closed connection.
        while Arc::strong_count(&closed) > 1 {
            tokio::task::yield_now().await;
        }
        let response = upstream.exchange(0, request("POST", "/")).await.unwrap();
        assert_eq!(read(response).await.unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn a_connection_idle_for_too_long_is_closed() {
        let closed = Arc::new(Notify::new());
        let mut first = answer(HELLO);
        first.push(Act::Farewell(Arc::clone(&closed)));
        let origin = Origin::playing(vec![first, answering(1)]).await;
        let upstream = with(&origin, |params| params.idle_timeout = Duration::ZERO);
        get(&upstream, "/").await.unwrap();
        get(&upstream, "/").await.unwrap();
        closed.notified().await;
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn no_more_than_idle_max_are_kept_and_the_oldest_goes() {
        let closed = Arc::new(Notify::new());
        let mut first = answer(HELLO);
        first.push(Act::Farewell(Arc::clone(&closed)));
        let origin = Origin::playing(vec![first, answering(2)]).await;
        let upstream = with(&origin, |params| params.idle_max = 1);
        let one = upstream.exchange(0, request("GET", "/")).await.unwrap();
        let two = upstream.exchange(0, request("GET", "/")).await.unwrap();
        read(one).await.unwrap();
        read(two).await.unwrap();
        closed.notified().await;
        get(&upstream, "/").await.unwrap();
        assert_eq!(origin.connections(), [0, 1, 1]);
    }

    #[tokio::test]
    async fn a_retired_pool_closes_what_is_idle_and_what_comes_back() {
        let idle = Arc::new(Notify::new());
        let busy = Arc::new(Notify::new());
        let saying_farewell = |closed: &Arc<Notify>| {
            let mut acts = answer(HELLO);
            acts.push(Act::Farewell(Arc::clone(closed)));
            acts
        };
        let plays = vec![saying_farewell(&idle), saying_farewell(&busy)];
        let origin = Origin::playing(plays).await;
        let upstream = origin.upstream();
        let one = upstream.exchange(0, request("GET", "/")).await.unwrap();
        let two = upstream.exchange(0, request("GET", "/")).await.unwrap();
        read(one).await.unwrap();
        upstream.retire();
        idle.notified().await;
        // A response under way is read to its end.
        assert_eq!(read(two).await.unwrap(), "hello");
        busy.notified().await;
    }

    #[tokio::test]
    async fn none_is_kept_when_none_may_be_idle() {
        let origin = Origin::playing(vec![answering(1), answering(1)]).await;
        let upstream = with(&origin, |params| params.idle_max = 0);
        get(&upstream, "/").await.unwrap();
        get(&upstream, "/").await.unwrap();
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn a_request_over_the_cap_waits_for_the_connection_to_come_back() {
        let origin = Origin::playing(vec![answering(2)]).await;
        let upstream = with(&origin, |params| params.connections_max = 1);
        let first = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let second = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { get(&upstream, "/2").await }
        });
        tokio::task::yield_now().await;
        read(first).await.unwrap();
        assert_eq!(second.await.unwrap().unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn a_request_over_the_cap_opens_a_new_connection_when_one_is_lost() {
        let origin = Origin::playing(vec![answering(1), answering(1)]).await;
        let upstream = with(&origin, |params| params.connections_max = 1);
        let first = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let second = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { get(&upstream, "/2").await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(second.await.unwrap().unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn a_request_beyond_the_queue_is_refused_at_once() {
        let origin = Origin::playing(vec![answering(2)]).await;
        let upstream = with(&origin, |params| {
            params.connections_max = 1;
            params.queue_max = 1;
        });
        let held = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let queued = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { get(&upstream, "/2").await }
        });
        tokio::task::yield_now().await;
        let refused = get(&upstream, "/3").await;
        assert_eq!(refused, Err(UpstreamError::Saturated));
        read(held).await.unwrap();
        queued.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_leaves_the_queue_makes_room() {
        let origin = Origin::playing(vec![answering(3)]).await;
        let upstream = with(&origin, |params| {
            params.connections_max = 1;
            params.queue_max = 1;
        });
        let held = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let left = tokio::time::timeout(Duration::from_millis(5), get(&upstream, "/2")).await;
        assert!(left.is_err());
        let queued = tokio::spawn({
            let upstream = Arc::clone(&upstream);
            async move { get(&upstream, "/3").await }
        });
        tokio::task::yield_now().await;
        read(held).await.unwrap();
        assert_eq!(queued.await.unwrap().unwrap(), "hello");
        assert_eq!(get(&upstream, "/4").await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn waiting_in_the_queue_is_bounded_in_time() {
        let origin = Origin::playing(vec![answering(2)]).await;
        let upstream = with(&origin, |params| {
            params.connections_max = 1;
            params.connect_timeout = Duration::from_millis(20);
        });
        let _held = upstream.exchange(0, request("GET", "/1")).await.unwrap();
        let refused = get(&upstream, "/2").await;
        assert_eq!(refused, Err(UpstreamError::Saturated));
    }

    #[tokio::test]
    async fn failed_connections_give_their_slots_back() {
        let origin = Origin::playing(vec![vec![], vec![Act::Hear(0)], answering(1)]).await;
        let upstream = with(&origin, |params| {
            params.connections_max = 1;
            params.queue_max = 0;
        });
        assert!(get(&upstream, "/").await.is_err());
        assert!(get(&upstream, "/").await.is_err());
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
    }

    /// Sends a GET from a thread with a runtime of its own, which is gone afterwards.
    async fn get_elsewhere(upstream: &Arc<Upstream>) -> Result<Bytes, UpstreamError> {
        let upstream = Arc::clone(upstream);
        let elsewhere = tokio::task::spawn_blocking(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async { get(&upstream, "/").await })
        });
        elsewhere.await.unwrap()
    }

    #[tokio::test]
    async fn a_connection_whose_runtime_is_gone_is_not_used() {
        let origin = Origin::playing(vec![answering(2), answering(1)]).await;
        let upstream = with(&origin, |_| {});
        assert_eq!(get_elsewhere(&upstream).await.unwrap(), "hello");
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn a_connection_of_another_runtime_is_used_when_there_is_none_of_ours() {
        let origin = Origin::playing(vec![answering(2)]).await;
        let upstream = with(&origin, |_| {});
        assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
        assert_eq!(get_elsewhere(&upstream).await.unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn a_hundred_requests_side_by_side_keep_to_the_cap() {
        let scripts = (0..8).map(|_| answering(100)).collect();
        let origin = Origin::playing(scripts).await;
        let upstream = with(&origin, |params| params.queue_max = 100);
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let upstream = Arc::clone(&upstream);
                tokio::spawn(async move { get(&upstream, "/").await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), "hello");
        }
        assert!(origin.connections().into_iter().max() < Some(8));
    }
}
