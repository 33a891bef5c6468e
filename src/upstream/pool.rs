//! Connections to one backend: a cap, a wait queue, the most recently used first.
//!
//! ```text
//! checkout ─ an idle connection that is open and quiet ─► Grant::Reused
//!          ─ fewer than connections_max are open       ─► Grant::Fresh   the caller opens one
//!          ─ room in the queue                         ─► waits for either
//!          ─ queue is full, or waited too long         ─► Saturated
//! check_in ─ somebody waits ─► handed over    ─ nobody ─► idle, at most idle_max of them
//! ```
//!
//! A [`Slot`] is the permission to have one connection open. It lives in its [`Connection`] and
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
use super::connect;
use super::connect::Probe;
use super::connect::Wire;
use super::exchange::Outgoing;

/// The connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    host: String,
    port: u16,
    name: Arc<str>,
    params: Arc<Params>,
    state: Mutex<State>,
}

/// What is behind the lock. While somebody waits, nothing is idle and every slot is taken.
#[derive(Debug, Default)]
struct State {
    /// Open connections, idle or not; as many slots exist.
    open: usize,
    /// The oldest first.
    idle: VecDeque<Idle>,
    /// By arrival.
    waiting: BTreeMap<u64, oneshot::Sender<Grant>>,
    arrivals: u64,
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
}

/// What the lock's holder decided.
enum Step {
    Granted(Grant),
    /// Drop it without the lock, then ask again.
    Discard(Connection),
    Wait(Waiting),
}

impl Pool {
    /// Makes an empty pool; opens nothing. `name` is for error messages.
    pub(crate) fn new(host: String, port: u16, name: Arc<str>, params: Arc<Params>) -> Self {
        Self {
            host,
            port,
            name,
            params,
            state: Mutex::new(State::default()),
        }
    }

    /// The bounds this pool keeps.
    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    /// Finds a connection or the permission to open one; waits in line for at most
    /// `connect_timeout` when all are busy. Dropping the future leaves the line.
    pub(crate) async fn checkout(self: &Arc<Self>) -> Result<Grant, UpstreamError> {
        let waiting = loop {
            match self.step()? {
                Step::Granted(grant) => return Ok(grant),
                Step::Discard(connection) => drop(connection),
                Step::Wait(waiting) => break waiting,
            }
        };
        match tokio::time::timeout(self.params.connect_timeout, waiting).await {
            // It may have closed on its way; its slot is as good for a new one.
            Ok(Some(Grant::Reused(connection))) if !connection.usable() => {
                Ok(Grant::Fresh(connection.into_slot()))
            }
            Ok(Some(grant)) => Ok(grant),
            Ok(None) | Err(_) => Err(UpstreamError::Saturated),
        }
    }

    fn step(self: &Arc<Self>) -> Result<Step, UpstreamError> {
        let home = Handle::current().id();
        let mut state = self.lock();
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
        if state.open < self.params.connections_max.max(1) {
            state.open = state.open.saturating_add(1);
            return Ok(Step::Granted(Grant::Fresh(Slot::new(self))));
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

    /// Opens a connection to the backend. Dropping the future gives the slot back.
    pub(crate) async fn open(&self, slot: Slot) -> Result<Connection, UpstreamError> {
        let failed = |reason| UpstreamError::Connect {
            address: self.name.to_string(),
            reason,
        };
        let stream = connect::dial(&self.host, self.port, self.params.connect_timeout)
            .await
            .map_err(failed)?;
        let wire = Wire::new(stream);
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
            let _ended = connection.await;
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
            match waiter.send(Grant::Reused(connection)) {
                Err(Grant::Reused(unclaimed)) => connection = unclaimed,
                Ok(()) | Err(Grant::Fresh(_)) => return,
            }
        }
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
        if params.idle_max == 0 {
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
    /// None once it has passed itself on.
    pool: Option<Arc<Pool>>,
}

impl Slot {
    fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Some(Arc::clone(pool)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else {
            return;
        };
        loop {
            let mut state = pool.lock();
            let Some((_, waiter)) = state.waiting.pop_first() else {
                state.open = state.open.saturating_sub(1);
                return;
            };
            drop(state);
            match waiter.send(Grant::Fresh(Self::new(&pool))) {
                // Nobody listens any more: take the permission out, so that it does not come here
                // again, and go on with the next.
                Err(Grant::Fresh(mut unclaimed)) => drop(unclaimed.pool.take()),
                Ok(()) | Err(Grant::Reused(_)) => return,
            }
        }
    }
}

/// A place in the line; leaving it early takes the name off the list.
struct Waiting {
    pool: Arc<Pool>,
    ticket: u64,
    receiver: oneshot::Receiver<Grant>,
}

impl Future for Waiting {
    type Output = Option<Grant>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Grant>> {
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
