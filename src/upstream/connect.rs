//! Opens connections to backends: names, TCP, TLS, time limits.
//!
//! A name is resolved for every new connection, so a changed address is followed as soon as old
//! connections are gone. Its addresses are tried in turn, each with a fair share of the time that
//! is left; what the first that answers leaves of it is for the TLS handshake. What is then said on
//! the connection is left to [`exchange`](super::exchange), who keeps it to [`pool`](super::pool).

use std::io;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use rustls::ClientConnection;
use socket2::SockRef;
use socket2::Socket;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::ConnectFailure;
use super::Protocol;
use super::UpstreamError;
use super::tls;
use super::tls::Connector;

/// Whom to connect to, and how.
#[derive(Debug)]
pub(crate) struct Target {
    host: String,
    port: u16,
    name: Arc<str>,
    connector: Option<Connector>,
    protocol: Protocol,
    /// What was told of last, and when, so that it is not told for every request.
    told: Mutex<Option<(ConnectFailure, Instant)>>,
}

impl Target {
    /// A backend at `host`, a name or an address without brackets; in clear text where there is no
    /// connector, which is to offer what the protocol says. `name` is for people.
    pub(crate) fn new(
        host: &str,
        port: u16,
        name: Arc<str>,
        connector: Option<Connector>,
        protocol: Protocol,
    ) -> Self {
        Self {
            host: String::from(host),
            port,
            name,
            connector,
            protocol,
            told: Mutex::new(None),
        }
    }

    /// It is spoken to with TLS.
    pub(crate) fn is_secured(&self) -> bool {
        self.connector.is_some()
    }

    /// A connection may turn out to be one of HTTP/2, which many can share.
    pub(crate) fn may_share(&self) -> bool {
        match self.protocol {
            Protocol::Auto => self.is_secured(),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
        }
    }

    /// Opens a connection: name, TCP, TLS.
    ///
    /// Dropping the future abandons the attempt.
    pub(crate) async fn open(&self, deadline: Instant) -> Result<Wire, UpstreamError> {
        let opened = self.attempt(deadline).await;
        opened.map_err(|reason| self.failed(reason))
    }

    /// Whether HTTP/2 is to be spoken on a connection (RFC 9113 §3.2, §3.3).
    pub(crate) fn agreed_on_http2(&self, wire: &Wire) -> Result<bool, UpstreamError> {
        let agreed = match self.is_secured() {
            true => wire.protocol().is_some_and(|name| name == HTTP2),
            // Known, not agreed on.
            false => self.protocol == Protocol::Http2,
        };
        if self.protocol == Protocol::Http2 && !agreed {
            let reason = Arc::from("it did not choose h2 by ALPN");
            return Err(self.failed(ConnectFailure::TlsProtocol(reason)));
        }
        Ok(agreed)
    }

    /// Makes an error of a failure, and tells of it.
    pub(crate) fn failed(&self, reason: ConnectFailure) -> UpstreamError {
        self.tell(&reason);
        UpstreamError::Connect {
            address: self.name.to_string(),
            reason,
        }
    }

    async fn attempt(&self, deadline: Instant) -> Result<Wire, ConnectFailure> {
        let stream = dial(&self.host, self.port, deadline).await?;
        let Some(connector) = &self.connector else {
            return Ok(Wire::new(Channel::Clear(stream)));
        };
        match tokio::time::timeout_at(deadline, connector.handshake(stream)).await {
            Ok(made) => Ok(Wire::new(Channel::Secured(Box::new(Mutex::new(made?))))),
            Err(_elapsed) => Err(ConnectFailure::Timeout),
        }
    }

    /// Tells the operator what is wrong with TLS or HTTP/2; the same thing once in a while.
    pub(crate) fn tell(&self, failure: &ConnectFailure) {
        if !failure.is_for_operators() {
            return;
        }
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let again = told.as_ref().is_some_and(|(known, since)| {
            known == failure && now.duration_since(*since) < TELL_INTERVAL
        });
        if !again {
            *told = Some((failure.clone(), now));
            drop(told);
            tracing::warn!(backend = %self.name, "{failure}");
        }
    }
}

/// Resolves `host` and connects to the first of its addresses that answers.
async fn dial(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ConnectFailure> {
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
    channel: Arc<Channel>,
    gauge: Arc<Gauge>,
}

impl Wire {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Arc::new(channel),
            gauge: Arc::new(Gauge {
                received: AtomicU64::new(0),
                limit: AtomicU64::new(u64::MAX),
                failure: OnceLock::new(),
            }),
        }
    }

    /// Makes a view of this stream that does not keep it open.
    pub(crate) fn probe(&self) -> Probe {
        Probe {
            channel: Arc::downgrade(&self.channel),
            gauge: Arc::clone(&self.gauge),
        }
    }

    /// The protocol that was agreed on by ALPN (RFC 7301), if any was.
    pub(crate) fn protocol(&self) -> Option<Vec<u8>> {
        match &*self.channel {
            Channel::Clear(_) => None,
            Channel::Secured(stream) => {
                let stream = lock(stream);
                stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
            }
        }
    }
}

/// What bytes go through. A [`Wire`] reads and writes it, and probes look at it in between.
#[derive(Debug)]
enum Channel {
    Clear(TcpStream),
    /// The lock is for the probes, and held for no longer than a read or write that does not wait.
    Secured(Box<Mutex<TlsStream<TcpStream>>>),
}

impl Channel {
    /// It is open, and nothing has come that would be read as content.
    fn quiet(&self) -> bool {
        match self {
            Self::Clear(stream) => {
                let mut byte = [MaybeUninit::uninit()];
                let peeked = SockRef::from(stream).peek(&mut byte);
                matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Self::Secured(stream) => {
                let mut stream = lock(stream);
                let (stream, session) = stream.get_mut();
                settled(&SockRef::from(&*stream), session)
            }
        }
    }
}

impl Drop for Channel {
    /// Says goodbye, so that the other side can tell an end from a cut (RFC 8446 §6.1).
    fn drop(&mut self) {
        if let Self::Secured(stream) = self {
            let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
            let (stream, session) = stream.get_mut();
            session.send_close_notify();
            let stream = SockRef::from(&*stream);
            let mut socket: &Socket = &stream;
            // The connection closes in any case.
            let _written = session.write_tls(&mut socket);
        }
    }
}

/// Takes in what has arrived: tickets and new keys are no content, and a session goes on with them
/// (RFC 8446 §4.6); a goodbye, anything that a message could begin with, and anything wrong end it.
fn settled(stream: &Socket, session: &mut ClientConnection) -> bool {
    let mut socket = stream;
    for _ in 0..READS_MAX {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            Ok(_) | Err(_) => return false,
        }
        match session.read_tls(&mut socket) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    false
}

fn lock(stream: &Mutex<TlsStream<TcpStream>>) -> MutexGuard<'_, TlsStream<TcpStream>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes arrived since the request was sent, and how many may.
#[derive(Debug)]
struct Gauge {
    received: AtomicU64,
    limit: AtomicU64,
    /// Why TLS failed, once it has.
    failure: OnceLock<ConnectFailure>,
}

/// Looks at a connection that somebody else reads and writes.
#[derive(Debug)]
pub(crate) struct Probe {
    channel: Weak<Channel>,
    gauge: Arc<Gauge>,
}

impl Probe {
    /// The connection is open and nothing has arrived that is content.
    ///
    /// The receive queue is asked directly, because readiness is only noticed when the runtime next
    /// polls its driver: until then, bytes that nobody asked for would be taken for the answer to
    /// the next request.
    pub(crate) fn quiet(&self) -> bool {
        self.channel
            .upgrade()
            .is_some_and(|channel| channel.quiet())
    }

    /// Why TLS failed on this connection, if it has.
    pub(crate) fn failure(&self) -> Option<ConnectFailure> {
        self.gauge.failure.get().cloned()
    }

    /// Bytes that have arrived, since the last `restart` if there was one.
    pub(crate) fn received(&self) -> u64 {
        self.gauge.received.load(Ordering::Relaxed)
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
        self.received() == 0
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

    /// Keeps what an error says of TLS.
    fn note<T>(&self, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &moved
            && let Some(failure) = tls::failure(error)
        {
            // The first failure is the cause of those after it.
            let _later = self.failure.set(failure);
        }
        moved
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
        let before = buffer.filled().len();
        match &*self.channel {
            Channel::Clear(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match stream.try_read_buf(buffer) {
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            },
            Channel::Secured(stream) => {
                let read = Pin::new(&mut *lock(stream)).poll_read(context, buffer);
                ready!(self.gauge.note(read))?;
            }
        }
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.gauge.count(read))
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
        match &*self.channel {
            Channel::Clear(stream) => loop {
                ready!(stream.poll_write_ready(context))?;
                match stream.try_write_vectored(slices) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                }
            },
            Channel::Secured(stream) => {
                let stream = &mut *lock(stream);
                let written = Pin::new(stream).poll_write_vectored(context, slices);
                self.gauge.note(written)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.channel {
            Channel::Clear(_) => Poll::Ready(Ok(())),
            Channel::Secured(stream) => {
                let flushed = Pin::new(&mut *lock(stream)).poll_flush(context);
                self.gauge.note(flushed)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.channel {
            Channel::Clear(stream) => {
                Poll::Ready(SockRef::from(stream).shutdown(std::net::Shutdown::Write))
            }
            Channel::Secured(stream) => Pin::new(&mut *lock(stream)).poll_shutdown(context),
        }
    }
}

/// The name of HTTP/2 in ALPN (RFC 9113 §3.1).
pub(crate) const HTTP2: &[u8] = b"h2";
/// The name of HTTP/1.1 in ALPN (RFC 7301 §6).
pub(crate) const HTTP1: &[u8] = b"http/1.1";
/// Addresses tried of one name; more would leave each too little time.
const ADDRESSES_MAX: usize = 8;
/// How long a failure that goes on is not told again.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Reads of up to a record each, on a connection that has nothing to say; one that goes on is not
/// quiet.
const READS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Domain;
    use socket2::Type;

    const LONG: Duration = Duration::from_secs(20);

    async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, ConnectFailure> {
        super::dial(host, port, Instant::now() + limit).await
    }

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

    /// A backend with TLS that does what `play` says once it has shaken hands, and a connection to
    /// it whose client has read nothing since.
    async fn secured(
        play: impl FnOnce(&mut rustls::ServerConnection, &mut std::net::TcpStream) + Send + 'static,
    ) -> Wire {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec![String::from("a.test")]).unwrap();
        let own = own.self_signed(&key).unwrap().der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own], key.into())
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let security = tls::Security::new(tls::Settings {
            authorities: None,
            server_name: None,
            client: None,
            verify: false,
        });
        let connector = security.unwrap().connector("127.0.0.1", &[]);
        let target = Target::new(
            "127.0.0.1",
            port,
            Arc::from("it"),
            Some(connector),
            Protocol::Http1,
        );
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            while session.is_handshaking() || session.wants_write() {
                session.complete_io(&mut stream).unwrap();
            }
            play(&mut session, &mut stream);
            while session.wants_write() {
                session.write_tls(&mut stream).unwrap();
            }
            stream
        });
        let wire = target.open(Instant::now() + LONG).await.unwrap();
        let stream = tokio::task::spawn_blocking(|| serving.join().unwrap());
        // It stays open.
        std::mem::forget(stream.await.unwrap());
        wire
    }

    /// Returns when there are bytes in the receive queue, whatever they are.
    async fn something_waits(wire: &Wire) {
        let Channel::Secured(stream) = &*wire.channel else {
            panic!("it has TLS");
        };
        let mut byte = [MaybeUninit::uninit()];
        while SockRef::from(lock(stream).get_ref().0)
            .peek(&mut byte)
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when what has come is no longer taken for nothing.
    async fn is_found(wire: &Wire) {
        while wire.probe().quiet() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn tickets_that_wait_are_no_content() {
        let wire = secured(|_, _| {}).await;
        something_waits(&wire).await;
        let probe = wire.probe();
        assert!(probe.quiet());
        assert!(probe.quiet());
        drop(wire);
        assert!(!probe.quiet());
    }

    #[tokio::test]
    async fn new_keys_are_no_content() {
        let wire = secured(|session, _| session.refresh_traffic_keys().unwrap()).await;
        something_waits(&wire).await;
        assert!(wire.probe().quiet());
    }

    #[tokio::test]
    async fn content_that_nobody_asked_for_is_found_behind_tickets() {
        let wire = secured(|session, _| {
            io::Write::write_all(&mut session.writer(), b"HTTP/1.1 200 OK").unwrap();
        });
        is_found(&wire.await).await;
    }

    #[tokio::test]
    async fn a_goodbye_is_found_behind_tickets() {
        let wire = secured(|session, _| session.send_close_notify()).await;
        is_found(&wire).await;
    }

    #[tokio::test]
    async fn what_is_no_tls_is_not_quiet() {
        let wire = secured(|_, stream| {
            io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        });
        is_found(&wire.await).await;
    }

    #[tokio::test]
    async fn a_connection_that_does_not_fall_silent_is_not_quiet() {
        let wire = secured(|session, stream| {
            for _ in 0..2_000 {
                session.refresh_traffic_keys().unwrap();
                session.write_tls(stream).unwrap();
            }
        });
        is_found(&wire.await).await;
    }
}
