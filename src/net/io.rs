//! The IO wrapper that adds what hyper lacks: read and write timeouts.
//!
//! Two layers, so that both hold with and without TLS:
//!
//! ```text
//! hyper ── ClientIo   who is to speak next, and for how long the client may be silent
//!            │        (above TLS: records without requests in them do not count)
//!          [TLS]
//!            │
//!          Socket     how long a write may make no progress
//! ```
//!
//! A `ClientIo` that is dropped before it was shut down resets its connection: whatever cut a
//! response short (an error in its body, a panic, a drain that took too long), a client that was
//! promised no length must not take the end of the connection for the end of the body.
//!
//! What follows a timeout (an answer, an event) is `serve`'s.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::net::switch::Switch;

/// Who is to speak next on a connection, and whether the clock already runs for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Turn {
    /// The client, for the first time: it owes a whole head, but no byte has come.
    Opening = 0,
    /// The client may send a next request or not; the clock does not run yet.
    Between = 1,
    /// As the two above, with the clock running.
    BetweenTimed = 2,
    /// The client has begun a head; the clock does not run yet.
    Head = 3,
    /// The client has begun a head, and the clock runs.
    HeadTimed = 4,
    /// We: a head is complete, its response has not ended.
    Reply = 5,
}

/// What one connection's reader, handler and response body tell each other.
///
/// All of them run on the connection's task, except a request body that a handler gave away, so
/// nothing here needs more than relaxed order.
#[derive(Debug)]
pub(super) struct Progress {
    turn: AtomicU8,
    body_unread: AtomicBool,
    body_late: AtomicBool,
    switch: Mutex<Option<Switch>>,
}

impl Progress {
    fn new() -> Self {
        Self {
            turn: AtomicU8::new(Turn::Opening as u8),
            body_unread: AtomicBool::new(false),
            body_late: AtomicBool::new(false),
            switch: Mutex::new(None),
        }
    }

    /// Returns whose turn it is.
    pub(super) fn turn(&self) -> Turn {
        match self.turn.load(Ordering::Relaxed) {
            0 => Turn::Opening,
            1 => Turn::Between,
            2 => Turn::BetweenTimed,
            3 => Turn::Head,
            4 => Turn::HeadTimed,
            _ => Turn::Reply,
        }
    }

    fn set(&self, turn: Turn) {
        self.turn.store(turn as u8, Ordering::Relaxed);
    }

    /// A request head is complete: until the reply is dropped no read timeout runs.
    pub(super) fn reply(self: &Arc<Self>) -> Reply {
        self.body_unread.store(false, Ordering::Relaxed);
        self.set(Turn::Reply);
        Reply(Arc::clone(self))
    }

    /// The handler let go of a request body before its end.
    pub(super) fn leave_body_unread(&self) {
        self.body_unread.store(true, Ordering::Relaxed);
    }

    /// The latest request's body was not read to its end, so the client may still be sending it.
    pub(super) fn body_unread(&self) -> bool {
        self.body_unread.load(Ordering::Relaxed)
    }

    /// A request body took too long.
    pub(super) fn body_came_late(&self) {
        self.body_late.store(true, Ordering::Relaxed);
        self.leave_body_unread();
    }

    /// The connection is to be something else after this response.
    pub(super) fn switch_to(&self, switch: Switch) {
        *self.switch.lock().unwrap_or_else(PoisonError::into_inner) = Some(switch);
    }

    /// What the connection is to be after the latest response, if not HTTP's.
    pub(super) fn take_switch(&self) -> Option<Switch> {
        let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        switch.take()
    }

    /// A request body of this connection took too long.
    pub(super) fn body_late(&self) -> bool {
        self.body_late.load(Ordering::Relaxed)
    }
}

/// Held from the end of a request's head to the end of its response.
#[derive(Debug)]
pub(super) struct Reply(Arc<Progress>);

impl Reply {
    /// As [`Progress::body_unread`].
    pub(super) fn body_unread(&self) -> bool {
        self.0.body_unread()
    }

    /// As [`Progress::switch_to`].
    pub(super) fn switch_to(&self, switch: Switch) {
        self.0.switch_to(switch);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.0.set(Turn::Between);
    }
}

/// Bounds on a client's silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// From the first byte of a head to its last.
    pub(super) header: Duration,
    /// Without a byte between two requests. A new connection has the lesser of the two.
    pub(super) idle: Duration,
}

/// What carries bytes to a client over a [`Socket`]: the socket itself, or TLS on it.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {
    /// Returns the socket underneath.
    fn socket(&self) -> &Socket;
}

/// The client's side as hyper sees it: reads time out by whose turn it is.
///
/// A read that timed out looks like an end of file, which hyper takes as it should: between
/// requests it closes quietly, within a head it fails. Only hyper knows whether bytes of a next
/// head came together with the last request; such a head is given the idle timeout, and the header
/// timeout from its next byte on.
#[derive(Debug)]
pub(super) struct ClientIo<C: Carrier> {
    carrier: C,
    progress: Arc<Progress>,
    limits: ReadLimits,
    timer: Timer,
    /// Bytes wait to be written: the write timeout rules, and reads have none.
    writing: bool,
    expired: bool,
    shut: bool,
}

impl<C: Carrier> ClientIo<C> {
    /// Wraps a connection on which nothing has been read yet.
    pub(super) fn new(carrier: C, limits: ReadLimits) -> Self {
        Self {
            carrier,
            progress: Arc::new(Progress::new()),
            limits,
            timer: Timer::default(),
            writing: false,
            expired: false,
            shut: false,
        }
    }

    /// Returns what the connection's parts share.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The client was silent for too long.
    pub(super) fn read_expired(&self) -> bool {
        self.expired
    }

    /// The client took nothing for too long.
    pub(super) fn write_expired(&self) -> bool {
        self.carrier.socket().write_expired()
    }

    /// Reads and forgets what the client still sends, until it ends or the bounds are met.
    ///
    /// To close a socket with unread bytes in it resets the connection, and a reset can overtake
    /// the answer that was sent just before. Dropping this half-way only closes sooner.
    pub(super) async fn linger(&mut self) {
        self.progress.set(Turn::Reply);
        let discard = async {
            let mut buffer = vec![0; 4096]; // on the heap: the task of every connection has this size
            let mut left = LINGER_BYTES;
            while left > 0 {
                match self.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => left = left.saturating_sub(n),
                }
            }
        };
        // Late or not: the connection is closed next.
        let _late = tokio::time::timeout(LINGER, discard).await;
    }

    fn poll_flush_carrier(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.carrier).poll_flush(cx);
        self.writing = flushed.is_pending();
        flushed
    }

    /// Runs the clock that the turn asks for; ready when it has run out.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.writing {
            return Poll::Pending;
        }
        let ReadLimits { header, idle } = self.limits;
        let (limit, timed) = match self.progress.turn() {
            Turn::Opening => (Some(idle.min(header)), Turn::BetweenTimed),
            Turn::Between => (Some(idle), Turn::BetweenTimed),
            Turn::Head => (Some(header), Turn::HeadTimed),
            Turn::BetweenTimed | Turn::HeadTimed => (None, self.progress.turn()),
            Turn::Reply => return Poll::Pending,
        };
        if let Some(limit) = limit {
            self.timer.start(limit);
            self.progress.set(timed);
        }
        self.timer.poll(cx)
    }
}

impl<C: Carrier> AsyncRead for ClientIo<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.carrier).poll_read(cx, buf) {
            let waited = matches!(
                this.progress.turn(),
                Turn::Opening | Turn::Between | Turn::BetweenTimed
            );
            if waited && buf.filled().len() > filled {
                this.progress.set(Turn::Head);
            }
            return Poll::Ready(result);
        }
        ready!(this.poll_silence(cx));
        this.expired = true;
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> AsyncWrite for ClientIo<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.carrier).poll_write(cx, buf);
        this.writing = written.is_pending();
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.carrier).poll_write_vectored(cx, bufs);
        this.writing = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.carrier.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flush_carrier(cx))?;
        // hyper does not read again when the last read had to wait, so it is here that the time
        // between two requests begins.
        if this.progress.turn() == Turn::Between && this.poll_silence(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.carrier).poll_shutdown(cx))?;
            this.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> Drop for ClientIo<C> {
    fn drop(&mut self) {
        if !self.shut {
            self.carrier.socket().reset_on_close();
        }
    }
}

/// A TCP connection whose writes fail when the client takes nothing for too long.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    /// Bytes that were read and put back.
    ahead: Vec<u8>,
    limit: Duration,
    timer: Timer,
    stalled: bool,
    expired: bool,
}

impl Socket {
    /// Wraps an accepted connection; `limit` is the longest time a write may make no progress.
    pub(super) fn new(tcp: TcpStream, limit: Duration) -> Self {
        Self {
            tcp,
            ahead: Vec::new(),
            limit,
            timer: Timer::default(),
            stalled: false,
            expired: false,
        }
    }

    /// The client took nothing for too long.
    pub(super) fn write_expired(&self) -> bool {
        self.expired
    }

    /// Puts back what was read last; it is read again before anything else.
    pub(super) fn unread(&mut self, mut bytes: Vec<u8>) {
        bytes.append(&mut self.ahead);
        self.ahead = bytes;
    }

    fn reset_on_close(&self) {
        if let Err(error) = self.tcp.set_zero_linger() {
            tracing::debug!(%error, "a connection could not be set to reset");
        }
    }

    /// Takes the outcome of a write; when it must wait, runs the clock, and `probe`s at its end.
    ///
    /// The system calls a socket writable only when a third of its buffer is free, which a slow
    /// reader of a large buffer may not reach for minutes. So the last word has a write past
    /// tokio's readiness: it takes bytes as soon as the client has taken any.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        probe: impl FnOnce(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.timer.start(self.limit);
        }
        ready!(self.timer.poll(cx));
        self.stalled = false;
        let probed = probe(SockRef::from(&self.tcp));
        Poll::Ready(probed.map_err(|error| {
            if error.kind() != io::ErrorKind::WouldBlock {
                return error;
            }
            self.expired = true;
            io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")
        }))
    }
}

impl Carrier for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let taken = this.ahead.len().min(buf.remaining());
            let rest = this.ahead.split_off(taken);
            buf.put_slice(&this.ahead);
            this.ahead = rest;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.watch(cx, written, |socket| socket.send(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.watch(cx, written, |socket| socket.send_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// A clock that costs nothing until it is first started, and one allocation for good then.
///
/// To start it again for a later time takes no lock: tokio only notes the new deadline.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Starts the clock unless it has been started before.
    pub(super) fn start_once(&mut self, limit: Duration) {
        if self.0.is_none() {
            self.start(limit);
        }
    }

    /// Starts the clock, or starts it anew.
    pub(super) fn start(&mut self, limit: Duration) {
        let now = Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now + FOR_EVER);
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.0 = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    /// Ready when the time is over; never before it was started.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Stands for a limit that overflows the clock.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Longest time a closed connection waits for the client to end.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Most bytes read and forgotten on a closed connection.
pub(super) const LINGER_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;
    use std::io::Read;
    use std::task::Waker;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const CHUNK: &[u8] = &[7; 64 * 1024];

    async fn pair(limit: Duration) -> (Socket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.writable().await.unwrap();
        (Socket::new(tcp, limit), client)
    }

    /// Writes until the system takes no more.
    fn fill(socket: &mut Socket) {
        let mut cx = Context::from_waker(Waker::noop());
        while Pin::new(&mut *socket).poll_write(&mut cx, CHUNK).is_ready() {}
    }

    async fn write(socket: &mut Socket) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, CHUNK)).await
    }

    #[tokio::test]
    async fn a_write_fails_when_the_client_takes_nothing() {
        let (mut socket, _client) = pair(Duration::from_millis(20)).await;
        fill(&mut socket);
        // The system may find room for a little more after all.
        let error = loop {
            if let Err(error) = write(&mut socket).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(socket.expired);
    }

    #[tokio::test]
    async fn a_vectored_write_fails_when_the_client_takes_nothing() {
        let (mut socket, _client) = pair(Duration::from_millis(20)).await;
        fill(&mut socket);
        let bufs = [IoSlice::new(CHUNK), IoSlice::new(CHUNK)];
        let error = loop {
            let write = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &bufs));
            if let Err(error) = write.await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_little_progress_saves_a_write_though_the_system_reports_none() {
        let (mut socket, mut client) = pair(Duration::from_millis(20)).await;
        fill(&mut socket);
        client.read_exact(&mut vec![0; 300_000]).unwrap();
        assert!(write(&mut socket).await.unwrap() > 0);
        assert!(!socket.expired);
    }

    #[tokio::test]
    async fn a_client_io_dropped_before_it_was_shut_down_resets_the_connection() {
        let (socket, mut client) = pair(Duration::from_secs(9)).await;
        drop(ClientIo::new(socket, limits()));
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_client_io_that_was_shut_down_ends_the_connection_in_order() {
        let (socket, mut client) = pair(Duration::from_secs(9)).await;
        let mut io = ClientIo::new(socket, limits());
        io.shutdown().await.unwrap();
        drop(io);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn no_read_timeout_runs_while_a_reply_is_held() {
        let (socket, _client) = pair(Duration::from_secs(9)).await;
        let mut io = ClientIo::new(socket, limits());
        let reply = io.progress().reply();
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(Duration::from_millis(100), io.read(&mut buffer)).await;
        assert!(read.is_err());
        drop(reply);
        assert_eq!(io.read(&mut buffer).await.unwrap(), 0);
        assert!(io.read_expired());
    }

    #[tokio::test]
    async fn a_limit_beyond_the_end_of_time_is_no_panic() {
        let mut timer = Timer::default();
        timer.start(Duration::MAX);
        assert!(
            timer
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }

    fn limits() -> ReadLimits {
        ReadLimits {
            header: Duration::from_millis(20),
            idle: Duration::from_millis(20),
        }
    }
}
