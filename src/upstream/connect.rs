//! Opens connections to backends: names, TCP, time limits.
//!
//! A name is resolved for every new connection, so a changed address is followed as soon as old
//! connections are gone. Its addresses are tried in turn, each with a fair share of the time that
//! is left. What is then said on the connection is left to [`exchange`](super::exchange), who
//! keeps it to [`pool`](super::pool).

use std::io;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::ConnectFailure;

/// Resolves `host` and connects to the first of its addresses that answers, within `limit`.
///
/// Dropping the future abandons the attempt.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, ConnectFailure> {
    let deadline = Instant::now() + limit;
    let found = tokio::time::timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
    let Ok(found) = found else {
        return Err(ConnectFailure::Timeout);
    };
    let Ok(addresses) = found else {
        return Err(ConnectFailure::Dns);
    };
    let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
    let mut failure = ConnectFailure::Dns;
    for (tried, address) in addresses.iter().enumerate() {
        let untried = addresses.len().saturating_sub(tried);
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(untried).unwrap_or(1).max(1);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request is written in one piece, so there is nothing for Nagle to gather.
                let _ignored = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failure = ConnectFailure::from(&error),
            Err(_elapsed) => failure = ConnectFailure::Timeout,
        }
    }
    Err(failure)
}

/// The byte stream of one connection: counts what arrives and can be looked at from outside.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    gauge: Arc<Gauge>,
}

impl Wire {
    /// Wraps a connected stream.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Arc::new(stream),
            gauge: Arc::new(Gauge {
                received: AtomicU64::new(0),
                limit: AtomicU64::new(u64::MAX),
            }),
        }
    }

    /// Makes a view of this stream that does not keep it open.
    pub(crate) fn probe(&self) -> Probe {
        Probe {
            stream: Arc::downgrade(&self.stream),
            gauge: Arc::clone(&self.gauge),
        }
    }
}

/// How many bytes arrived since the request was sent, and how many may.
#[derive(Debug)]
struct Gauge {
    received: AtomicU64,
    limit: AtomicU64,
}

/// Looks at a connection that somebody else reads and writes.
#[derive(Debug)]
pub(crate) struct Probe {
    stream: Weak<TcpStream>,
    gauge: Arc<Gauge>,
}

impl Probe {
    /// The connection is open and its receive queue is empty.
    ///
    /// The queue is asked directly, because readiness is only noticed when the runtime next polls
    /// its driver: until then, bytes that nobody asked for would be taken for the answer to the
    /// next request.
    pub(crate) fn quiet(&self) -> bool {
        let Some(stream) = self.stream.upgrade() else {
            return false;
        };
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&*stream).peek(&mut byte);
        matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Starts counting from nothing; more than `limit` bytes from here on fail the connection.
    pub(crate) fn restart(&self, limit: u64) {
        self.gauge.received.store(0, Ordering::Relaxed);
        self.gauge.limit.store(limit, Ordering::Relaxed);
    }

    /// Lifts the limit.
    pub(crate) fn lift(&self) {
        self.gauge.limit.store(u64::MAX, Ordering::Relaxed);
    }

    /// Nothing arrived since the last `restart`.
    pub(crate) fn untouched(&self) -> bool {
        self.gauge.received.load(Ordering::Relaxed) == 0
    }

    /// More arrived than the limit allows.
    pub(crate) fn overrun(&self) -> bool {
        self.gauge.overrun()
    }
}

impl Gauge {
    fn overrun(&self) -> bool {
        self.received.load(Ordering::Relaxed) > self.limit.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.received.fetch_add(bytes, Ordering::Relaxed);
        if self.overrun() {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "too many bytes before the final response head",
            ));
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Ok(bytes) => return Poll::Ready(self.gauge.count(bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

/// Addresses tried of one name; more would leave each too little time.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;
    use socket2::Socket;
    use socket2::Type;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_name_is_resolved_and_connected_to_without_delay_for_small_writes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = dial("localhost", port, LONG).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let failure = dial("127.0.0.1", port, LONG).await.unwrap_err();
        assert_eq!(failure, ConnectFailure::Refused);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_not_resolved() {
        let failure = dial("no such name", 80, LONG).await.unwrap_err();
        assert_eq!(failure, ConnectFailure::Dns);
    }

    #[tokio::test]
    async fn a_listener_that_accepts_nobody_times_out() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&anywhere.into()).unwrap();
        socket.listen(0).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let limit = Duration::from_millis(50);
        let mut queued = Vec::new();
        let failure = loop {
            match dial("127.0.0.1", port, limit).await {
                Ok(stream) => queued.push(stream),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure, ConnectFailure::Timeout);
        assert!(queued.len() < 8);
    }
}
