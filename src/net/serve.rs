//! Connections: accepting, which HTTP is spoken, and hyper's server over one of them.
//!
//! ```text
//! serve ─ accept ─ permit ─┬─ connection ─ [PROXY] ─┬─ [TLS] ───┬─ converse ─ hyper ⇄ handler
//!                          ├─ connection …          └─ [preface] │      └─ farewell: what hyper leaves unsaid
//!                          └─ …                                  └─ http2::converse
//! ```
//!
//! Over TLS the client's choice by ALPN decides what is spoken (RFC 9113 §3.2), else the first bytes,
//! where HTTP/2 by prior knowledge is allowed (RFC 9113 §3.3).
//!
//! From a listener and a handler; what a request means and what it is answered is the handler's.
//! hyper itself refuses what is no HTTP/1 (400, 414, 431); this file counts that, answers a head
//! that came too slowly (408) and HTTP/2 by prior knowledge (505), and closes.

use std::convert::Infallible;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header::CONNECTION;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::Event;
use crate::net::Handshake;
use crate::net::Params;
use crate::net::Peer;
use crate::net::Phase;
use crate::net::body::BoxError;
use crate::net::body::RequestBody;
use crate::net::frames::PREFACE;
use crate::net::http2;
use crate::net::introduction;
use crate::net::io::Carrier;
use crate::net::io::ClientIo;
use crate::net::io::ReadLimits;
use crate::net::io::Reply;
use crate::net::io::Socket;
use crate::net::listen;
use crate::net::room::Place;
use crate::net::room::Room;
use crate::net::switch::Stream;
use crate::net::switch::Switch;
use crate::net::tls;
use crate::net::tls::Protocol;
use crate::rules::request::Scheme;

/// What all listeners of a process share. A connection keeps the front it was accepted with.
pub struct Front<H> {
    /// Bounds on connections and messages.
    pub params: Params,
    /// Answers requests.
    pub handler: H,
    /// Takes what no handler sees. Called on the serving threads: must be quick.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    /// Places for open connections: [`Params::connections_max`] of them, over all workers.
    pub room: Arc<Room>,
    /// The wall clock, for responses without Date.
    pub now: fn() -> SystemTime,
}

impl<H: Clone> Front<H> {
    /// The front for other bounds. The room is the same and has other bounds from now on.
    pub fn with(&self, params: Params) -> Self {
        self.room.resize(params.connections_max);
        Self {
            params,
            handler: self.handler.clone(),
            events: Arc::clone(&self.events),
            room: Arc::clone(&self.room),
            now: self.now,
        }
    }
}

/// Serves `listener` until it is told to drain or stop by `outer`, whose dropped sender means
/// [`Phase::Stop`], and returns when its last connection ended. The front of now is for the next
/// connection.
///
/// Draining takes at most [`Params::drain_timeout`]; then what is left is cut, visibly: a response
/// that had not ended ends in a reset. Each worker may hold one accepted connection more than there
/// are permits; the backlog holds the rest. Dropping this half-way closes the listener and cuts
/// every connection.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    tls: Option<Arc<tls::Front>>,
    front: Arc<ArcSwap<Front<H>>>,
    mut outer: watch::Receiver<Phase>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if later_than(&mut outer, Phase::Hold).await == Phase::Stop {
        return;
    }
    // One channel a listener: connections of different workers share no lock. It also counts them:
    // it is closed when the last connection has dropped its receiver.
    let (phase, connections) = watch::channel(Phase::Serve);
    accept_all(listener, tls.as_ref(), &front, &mut outer, connections).await;

    phase.send_replace(Phase::Drain);
    let drain_timeout = front.load().params.drain_timeout;
    tokio::select! {
        biased;
        () = phase.closed() => {}
        _ = later_than(&mut outer, Phase::Drain) => {}
        () = tokio::time::sleep(drain_timeout) => {}
    }
    phase.send_replace(Phase::Stop);
    phase.closed().await;
}

/// Accepts connections until the server drains; each becomes a task of its own.
async fn accept_all<H, F, B>(
    listener: TcpListener,
    tls: Option<&Arc<tls::Front>>,
    fronts: &ArcSwap<Front<H>>,
    outer: &mut watch::Receiver<Phase>,
    phase: watch::Receiver<Phase>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let over = later_than(outer, Phase::Serve);
    tokio::pin!(over);
    let mut goes_on = true;
    while goes_on {
        let (tcp, address) = tokio::select! {
            biased;
            _ = &mut over => return,
            accepted = listen::accept(&listener) => accepted,
        };
        let room = Arc::clone(&fronts.load().room);
        let place = tokio::select! {
            biased;
            place = room.place() => place,
            _ = &mut over => None,
        };
        // One that was accepted is served, also when it has to wait until another has ended.
        goes_on = place.is_some();
        let local = tcp.local_addr().unwrap_or(address);
        let peer = Peer {
            address,
            local: listen::canonical(local),
            scheme: tls.map_or(Scheme::Http, |_| Scheme::Https),
            identity: None,
            cipher: None,
        };
        let arrival = Arrival { tcp, peer, place };
        tokio::spawn(connection(
            arrival,
            tls.cloned(),
            fronts.load_full(),
            phase.clone(),
        ));
    }
}

/// Waits for room for a connection that has none yet, unless it is told to stop first.
async fn in_place(
    place: Option<Place>,
    room: &Arc<Room>,
    phase: &mut watch::Receiver<Phase>,
) -> Option<Place> {
    if place.is_some() {
        return place;
    }
    tokio::select! {
        biased;
        place = room.place() => place,
        _ = later_than(phase, Phase::Drain) => None,
    }
}

/// Waits for a phase later than `seen`.
pub(super) async fn later_than(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    match phase.wait_for(|phase| *phase > seen).await {
        Ok(phase) => *phase,
        Err(_) => Phase::Stop,
    }
}

/// Waits until a drain has gone on for so long that what was about to come has come.
pub(super) async fn past_grace(phase: &mut watch::Receiver<Phase>) {
    if later_than(phase, Phase::Serve).await == Phase::Drain {
        // Told to stop meanwhile, it waits no longer.
        drop(tokio::time::timeout(DRAIN_GRACE, later_than(phase, Phase::Drain)).await);
    }
}

/// An accepted connection with its place among the permitted ones.
struct Arrival {
    tcp: TcpStream,
    peer: Peer,
    /// None when it has to be waited for.
    place: Option<Place>,
}

/// Says that a connection was accepted, and that it ended, however it does.
struct Presence(Arc<dyn Fn(Event) + Send + Sync>);

impl Presence {
    fn new(events: &Arc<dyn Fn(Event) + Send + Sync>) -> Self {
        events(Event::Accept);
        Self(Arc::clone(events))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        (self.0)(Event::Close);
    }
}

/// The life of one connection.
async fn connection<H, F, B>(
    arrival: Arrival,
    tls: Option<Arc<tls::Front>>,
    front: Arc<Front<H>>,
    mut phase: watch::Receiver<Phase>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (tcp, mut peer) = (arrival.tcp, arrival.peer);
    let Some(_place) = in_place(arrival.place, &front.room, &mut phase).await else {
        return;
    };
    let _presence = Presence::new(&front.events);
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let params = &front.params;
    let limits = ReadLimits {
        header: params.header_timeout,
        idle: params.idle_timeout,
    };
    let opening = params.header_timeout.min(params.idle_timeout);
    let mut socket = Socket::new(tcp, params.write_timeout);
    if introduction::is_due(&peer, &params.proxy_protocol_from) {
        let told = tokio::select! {
            biased;
            told = introduction::introduce(&mut socket, &peer, opening) => told,
            () = past_grace(&mut phase) => return,
        };
        match told {
            Ok(told) => peer = told,
            Err(reason) => return (front.events)(Event::Unintroduced(reason)),
        }
        (front.events)(Event::Introduced);
    }
    let Some(tls) = tls else {
        if params.http2.clear_text {
            let opening = tokio::time::timeout(opening, knows_http2(&mut socket));
            let known = tokio::select! {
                biased;
                known = opening => known,
                () = past_grace(&mut phase) => return,
            };
            match known {
                Ok(Ok(true)) => return http2::converse(socket, peer, &front, phase).await,
                Ok(Ok(false)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        return converse(ClientIo::new(socket, limits), peer, &front, phase).await;
    };
    let done = tokio::select! {
        biased;
        done = tls.accept(socket, params.handshake_timeout) => done,
        () = past_grace(&mut phase) => return,
    };
    (front.events)(Event::Handshake(match &done {
        Ok(None) => Handshake::Proof,
        Ok(Some(secured)) if secured.resumed => Handshake::Resumed,
        Ok(Some(_)) => Handshake::Full,
        Err(failure) => Handshake::Failed(*failure),
    }));
    let Ok(Some(secured)) = done else {
        return;
    };
    let peer = Peer {
        identity: secured.identity,
        cipher: secured.cipher,
        ..peer
    };
    match secured.protocol {
        Protocol::Http1 => {
            converse(ClientIo::new(secured.stream, limits), peer, &front, phase).await;
        }
        Protocol::Http2 => http2::converse(secured.stream, peer, &front, phase).await,
    }
}

/// Reads until it is clear whether the client begins as HTTP/2 does, and puts back what it read.
async fn knows_http2(socket: &mut Socket) -> std::io::Result<bool> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
        let room = PREFACE.len() - begun.len();
        if (&mut *socket)
            .take(room as u64)
            .read_buf(&mut begun)
            .await?
            == 0
        {
            break;
        }
    }
    let known = begun == PREFACE;
    socket.unread(begun);
    Ok(known)
}

/// Speaks HTTP/1 with one client to the end.
async fn converse<C, H, F, B>(
    io: ClientIo<C>,
    peer: Peer,
    front: &Arc<Front<H>>,
    mut phase: watch::Receiver<Phase>,
) where
    C: Carrier + 'static,
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let progress = Arc::clone(io.progress());
    let timeout = front.params.body_read_timeout;
    let leaving = AtomicBool::new(false);
    let leaving = &leaving;
    let service = service_fn(|request: Request<Incoming>| {
        let reply = progress.reply();
        let request = request.map(|body| RequestBody::http1(body, timeout, &progress));
        let peer = peer.clone();
        async move {
            // Made where it is awaited: what is made outside and moved in takes its room twice.
            let mut response = (front.handler)(request, peer).await;
            let mut closes = leaving.load(Ordering::Relaxed);
            if let Some(switch) = response.extensions_mut().remove::<Switch>() {
                reply.switch_to(switch);
                closes = false;
            }
            if closes || reply.body_unread() {
                // hyper closes a connection whose body was not read, but does not say so.
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok::<_, Infallible>(response.map(|inner| ReplyBody { inner, reply }))
        }
    });
    let mut http = builder(&front.params).serve_connection(TokioIo::new(io), service);
    let mut seen = Phase::Serve;
    let mut grace = pin!(tokio::time::sleep(DRAIN_GRACE));
    let result = loop {
        tokio::select! {
            biased;
            result = &mut http => break result,
            now = later_than(&mut phase, seen) => {
                if now == Phase::Stop {
                    return;
                }
                seen = now;
                // A request may be on its way: to close at once would lose it.
                leaving.store(true, Ordering::Relaxed);
                grace.as_mut().reset(Instant::now() + DRAIN_GRACE);
            }
            () = &mut grace, if seen == Phase::Drain && !grace.is_elapsed() => {
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    };
    let http1::Parts { io, read_buf, .. } = http.into_parts();
    if result.is_ok()
        && let Some(switch) = progress.take_switch()
    {
        let stream = Stream::new(io.into_inner(), read_buf, &front.events);
        tokio::select! {
            biased;
            () = switch.run(stream) => {}
            _ = later_than(&mut phase, Phase::Drain) => {}
        }
        return;
    }
    tokio::select! {
        biased;
        () = farewell(io.into_inner(), result, &read_buf, &*front.events) => {}
        _ = later_than(&mut phase, Phase::Drain) => {}
    }
}

fn builder(params: &Params) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's own header timeout would run between requests too, and allocates for each.
    builder
        .header_read_timeout(None)
        .half_close(false)
        .keep_alive(true)
        .max_header_size(params.header_bytes_max)
        .max_buf_size(params.header_bytes_max.max(BUFFER_BYTES_MIN));
    if params.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(params.headers_max);
    }
    builder
}

/// Ends a connection that hyper is done with: says what is left to say, tells what happened.
///
/// `unparsed` is what hyper had read and not understood.
async fn farewell<C: Carrier>(
    mut io: ClientIo<C>,
    result: hyper::Result<()>,
    unparsed: &[u8],
    events: &(dyn Fn(Event) + Send + Sync),
) {
    if io.progress().body_late() {
        events(Event::RequestTimeout);
    }
    let Err(error) = result else {
        // hyper leaves this out on a connection that once asked for an upgrade.
        if io.shutdown().await.is_ok() && io.progress().body_unread() {
            io.linger().await;
        }
        return;
    };
    if error.is_parse_version_h2() {
        events(Event::Malformed(505));
        answer(&mut io, HTTP_VERSION_NOT_SUPPORTED).await;
    } else if error.is_parse() {
        events(Event::Malformed(refused_with(&error, unparsed)));
        io.linger().await;
    } else if io.write_expired() {
        events(Event::WriteTimeout);
    } else if error.is_incomplete_message() && !unparsed.is_empty() {
        if io.read_expired() {
            events(Event::RequestTimeout);
            answer(&mut io, REQUEST_TIMEOUT).await;
        } else {
            events(Event::Malformed(0));
        }
    }
}

/// Sends a whole response, and nothing after it.
async fn answer<C: Carrier>(io: &mut ClientIo<C>, response: &[u8]) {
    if io.write_all(response).await.is_ok() && io.shutdown().await.is_ok() {
        io.linger().await;
    }
}

/// Returns the status that hyper answered a parse error with.
fn refused_with(error: &hyper::Error, unparsed: &[u8]) -> u16 {
    let mut words = unparsed.split(|byte| byte.is_ascii_whitespace());
    let target = words.nth(1).unwrap_or_default();
    match error.is_parse_too_large() {
        false => 400,
        true if target.len() > HYPER_TARGET_BYTES_MAX && words.next().is_some() => 414,
        true => 431,
    }
}

pin_project! {
    /// A response's body, which gives the turn back to the client when hyper drops it.
    struct ReplyBody<B> {
        #[pin]
        inner: B,
        reply: Reply,
    }
}

impl<B> Body for ReplyBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Least size of hyper's buffers; a connection holds one of each kind at most. Room for a few
/// chunks of a body, whatever the bound on heads.
const BUFFER_BYTES_MIN: usize = 128 * 1024;

/// hyper's own bound on header fields, which it holds on the stack.
const HYPER_HEADERS_MAX: usize = 100;

/// hyper's own bound on request targets.
const HYPER_TARGET_BYTES_MAX: usize = 65_534;

/// How long a client that was about to send a request may take, when its connection is to end. Whoever
/// sends at the very moment an idle connection is closed is never safe, but this much later few do.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const HTTP_VERSION_NOT_SUPPORTED: &[u8] =
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    use crate::net::Http2;
    use crate::net::tls::HandshakeFailure;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use http_body_util::Either;
    use http_body_util::Full;
    use std::collections::VecDeque;
    use std::io;
    use std::io::Write;
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWrite;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn params() -> Params {
        Params {
            connections_max: 100,
            headers_max: 20,
            header_bytes_max: 16 * 1024,
            header_timeout: LONG,
            idle_timeout: LONG,
            body_read_timeout: LONG,
            write_timeout: LONG,
            handshake_timeout: LONG,
            drain_timeout: LONG,
            proxy_protocol_from: Vec::new(),
            http2: Http2 {
                clear_text: false,
                streams_max: 10,
                stream_window: 65_535,
                connection_window: 65_535,
                resets_max: 20,
                extended_connect: false,
                control_frames_max: 100,
            },
        }
    }

    /// Frames given in advance; an `Err` is the body's failure. Of unknown length.
    struct Frames(VecDeque<Result<Bytes, io::Error>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Ready(self.0.pop_front().map(|next| next.map(Frame::data)))
        }
    }

    type Answer = Response<Either<Full<Bytes>, Frames>>;

    fn full(status: u16, body: impl Into<Bytes>) -> Answer {
        let body = Either::Left(Full::new(body.into()));
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    /// What the tests ask for, by path.
    async fn site(request: Request<RequestBody>, peer: Peer) -> Answer {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/peer" => full(200, format!("{} {:?}", peer.address, peer.scheme)),
            "/large" => full(200, vec![b'x'; LARGE]),
            "/hang" => std::future::pending().await,
            "/panic" => panic!("as the test asks"),
            "/refuse" => full(413, "no"),
            "/echo" => match request.into_body().collect().await {
                Ok(body) => full(200, body.to_bytes()),
                Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                    Some(io::ErrorKind::TimedOut) => full(408, ""),
                    _ => full(400, ""),
                },
            },
            "/cut" => {
                let cut = Err(io::Error::other("the origin broke off"));
                let frames = [Ok(Bytes::from_static(b"half")), cut];
                Response::new(Either::Right(Frames(frames.into())))
            }
            other => full(200, other.to_owned()),
        }
    }

    const LARGE: usize = 8 * 1024 * 1024;

    struct Rig {
        address: SocketAddr,
        phase: watch::Sender<Phase>,
        events: mpsc::UnboundedReceiver<Event>,
        server: JoinHandle<()>,
    }

    impl Rig {
        async fn new(params: Params) -> Self {
            Self::with(params, None).await
        }

        async fn with(params: Params, tls: Option<Arc<tls::Front>>) -> Self {
            let (phase, receiver) = watch::channel(Phase::Serve);
            let (sender, events) = mpsc::unbounded_channel();
            let front = Front {
                room: Room::new(params.connections_max),
                params,
                handler: site,
                events: Arc::new(move |event| sender.send(event).unwrap_or(())),
                now: || SystemTime::UNIX_EPOCH,
            };
            let front = Arc::new(ArcSwap::from_pointee(front));
            let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, tls, front, receiver));
            Self {
                address,
                phase,
                events,
                server,
            }
        }

        /// Connects and sends `request` before the server, on this thread, can see either: so no
        /// timeout of the server can come first, however slow the machine is.
        fn client(&self, request: &str) -> TcpStream {
            let mut tcp = std::net::TcpStream::connect(self.address).unwrap();
            tcp.write_all(request.as_bytes()).unwrap();
            tcp.set_nonblocking(true).unwrap();
            TcpStream::from_std(tcp).unwrap()
        }

        /// Sends `request` and reads until the server closes.
        async fn exchange(&self, request: &str) -> String {
            rest(&mut self.client(request)).await
        }

        /// Waits until `wanted` is told.
        async fn told(&mut self, wanted: Event) {
            while self.events.recv().await.unwrap() != wanted {}
        }

        /// Waits until the latest connection ended and returns what was told till then.
        async fn story(&mut self) -> Vec<Event> {
            let mut story = Vec::new();
            loop {
                let event = self.events.recv().await.unwrap();
                if event == Event::Close {
                    return story;
                }
                story.push(event);
            }
        }

        async fn ends(self) {
            self.server.await.unwrap();
        }
    }

    async fn rest(client: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads up to and with `end`.
    async fn until(client: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            bytes.push(client.read_u8().await.unwrap());
        }
        String::from_utf8(bytes).unwrap()
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
    }

    fn get_and_close(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_another() {
        let mut rig = Rig::new(params()).await;
        let mut client = rig.client("");
        for path in ["/one", "/two", "/three"] {
            client.write_all(get(path).as_bytes()).await.unwrap();
            assert!(
                until(&mut client, path)
                    .await
                    .starts_with("HTTP/1.1 200 OK")
            );
        }
        drop(client);
        assert_eq!(rig.story().await, [Event::Accept]);
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_order() {
        let rig = Rig::new(params()).await;
        let all = rig
            .exchange(&[get("/one"), get("/two"), get_and_close("/three")].concat())
            .await;
        let bodies: Vec<_> = ["/one", "/two", "/three"].map(|path| all.find(path)).into();
        assert!(
            bodies.iter().all(Option::is_some) && bodies.is_sorted(),
            "{all}"
        );
    }

    #[tokio::test]
    async fn a_handler_learns_who_asks() {
        let rig = Rig::new(params()).await;
        let mut client = rig.client(&get_and_close("/peer"));
        let own = client.local_addr().unwrap();
        assert!(rest(&mut client).await.ends_with(&format!("{own} Http")));
    }

    #[tokio::test]
    async fn http_1_0_closes_unless_it_asks_otherwise() {
        let rig = Rig::new(params()).await;
        let once = rig.exchange("GET /a HTTP/1.0\r\n\r\n").await;
        assert!(
            once.starts_with("HTTP/1.0 200 OK") && once.ends_with("/a"),
            "{once}"
        );

        let mut client = rig.client("");
        let keep = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        for _ in 0..2 {
            client.write_all(keep.as_bytes()).await.unwrap();
            until(&mut client, "/a").await;
        }
    }

    #[tokio::test]
    async fn a_body_is_asked_for_with_100_continue() {
        let rig = Rig::new(params()).await;
        let mut client = rig.client("");
        let head =
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(
            until(&mut client, "\r\n\r\n").await,
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        client.write_all(b"hi").await.unwrap();
        assert!(
            until(&mut client, "hi")
                .await
                .starts_with("HTTP/1.1 200 OK")
        );
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_for_one_to_end() {
        let rig = Rig::new(Params {
            connections_max: 1,
            ..params()
        })
        .await;
        let mut first = rig.client(&get("/one"));
        until(&mut first, "/one").await;

        let mut second = rig.client(&get("/two"));
        let mut byte = [0];
        let early = tokio::time::timeout(SHORT, second.read(&mut byte)).await;
        assert!(early.is_err());

        drop(first);
        until(&mut second, "/two").await;
    }

    #[tokio::test]
    async fn a_head_that_trickles_is_cut_with_408() {
        let mut rig = Rig::new(Params {
            header_timeout: SHORT,
            ..params()
        })
        .await;
        let (mut reader, writer) = rig.client("GET / HTTP/1.1\r\nX: ").into_split();
        let trickle = tokio::spawn(trickle(writer));
        let mut bytes = [0; 12];
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"HTTP/1.1 408");
        rig.told(Event::RequestTimeout).await;
        trickle.abort();
    }

    /// Sends a byte now and then until the connection is gone.
    async fn trickle(mut writer: impl AsyncWrite + Unpin) {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await; // waits because it trickles
        }
    }

    #[tokio::test]
    async fn the_header_timeout_holds_for_the_second_head_too() {
        let rig = Rig::new(Params {
            header_timeout: SHORT,
            ..params()
        })
        .await;
        let mut client = rig.client(&get("/one"));
        until(&mut client, "/one").await;
        client.write_all(b"GET /two HT").await.unwrap();
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 408"));
    }

    #[tokio::test]
    async fn a_head_begun_before_the_last_response_ended_has_the_idle_timeout() {
        let mut rig = Rig::new(Params {
            idle_timeout: SHORT,
            ..params()
        })
        .await;
        let all = rig.exchange(&(get("/one") + "GET /two HT")).await;
        assert!(all.contains("/oneHTTP/1.1 408"), "{all}");
        rig.told(Event::RequestTimeout).await;
    }

    #[tokio::test]
    async fn a_new_connection_that_says_nothing_is_closed_quietly() {
        let mut rig = Rig::new(Params {
            header_timeout: SHORT,
            ..params()
        })
        .await;
        assert_eq!(rig.exchange("").await, "");
        assert_eq!(rig.story().await, [Event::Accept]);
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_quietly() {
        let mut rig = Rig::new(Params {
            idle_timeout: SHORT,
            ..params()
        })
        .await;
        assert!(rig.exchange(&get("/one")).await.ends_with("/one"));
        assert_eq!(rig.story().await, [Event::Accept]);
    }

    #[tokio::test]
    async fn an_idle_connection_outlives_the_header_timeout() {
        let rig = Rig::new(Params {
            header_timeout: SHORT,
            ..params()
        })
        .await;
        let mut client = rig.client(&get("/one"));
        until(&mut client, "/one").await;
        tokio::time::sleep(2 * SHORT).await; // waits because the time must pass
        client.write_all(get("/two").as_bytes()).await.unwrap();
        until(&mut client, "/two").await;
    }

    #[tokio::test]
    async fn a_client_that_still_reads_its_response_is_not_idle() {
        let rig = Rig::new(Params {
            header_timeout: SHORT,
            idle_timeout: SHORT,
            ..params()
        })
        .await;
        let mut client = rig.client(&get("/large"));
        tokio::time::sleep(3 * SHORT).await; // waits because the time must pass
        assert!(rest(&mut client).await.len() > LARGE);
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_an_error_to_the_handler_and_ends_the_connection() {
        let mut rig = Rig::new(Params {
            body_read_timeout: SHORT,
            ..params()
        })
        .await;
        let all = rig
            .exchange("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhi")
            .await;
        assert!(all.starts_with("HTTP/1.1 408"), "{all}");
        assert!(all.contains("connection: close"), "{all}");
        rig.told(Event::RequestTimeout).await;
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_cut() {
        let mut rig = Rig::new(Params {
            write_timeout: SHORT,
            ..params()
        })
        .await;
        let _client = rig.client(&get("/large"));
        rig.told(Event::WriteTimeout).await;
        rig.told(Event::Close).await;
    }

    #[tokio::test]
    async fn an_early_answer_reaches_a_client_that_is_still_sending() {
        let rig = Rig::new(params()).await;
        let mut client = rig.client("");
        let head = "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = until(&mut client, "no").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        client.write_all(&[0; 500_000]).await.unwrap();
        assert_eq!(rest(&mut client).await, "");
    }

    #[tokio::test]
    async fn a_response_that_breaks_off_is_cut_visibly() {
        let rig = Rig::new(params()).await;
        for version in ["1.0", "1.1"] {
            let mut client = rig.client("");
            let request = format!("GET /cut HTTP/{version}\r\nHost: a\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_panic_cuts_its_own_connection_only() {
        let mut rig = Rig::new(params()).await;
        let mut client = rig.client(&get("/panic"));
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        rig.told(Event::Close).await;
        assert!(rig.exchange(&get_and_close("/one")).await.ends_with("/one"));
    }

    #[tokio::test]
    async fn a_client_that_closes_its_side_early_gets_no_answer() {
        let rig = Rig::new(params()).await;
        let mut client = rig.client(&get("/hang"));
        client.shutdown().await.unwrap();
        assert!(client.read_to_end(&mut Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn draining_closes_idle_connections_and_lets_requests_finish() {
        let rig = Rig::new(params()).await;
        let mut idle = rig.client(&get("/one"));
        until(&mut idle, "/one").await;
        let mut busy = rig.client("");
        let head =
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        busy.write_all(head.as_bytes()).await.unwrap();
        until(&mut busy, "\r\n\r\n").await;

        rig.phase.send_replace(Phase::Drain);
        assert_eq!(rest(&mut idle).await, "");
        busy.write_all(b"hi").await.unwrap();
        let answer = rest(&mut busy).await;
        assert!(
            answer.contains("connection: close") && answer.ends_with("hi"),
            "{answer}"
        );
        assert!(TcpStream::connect(rig.address).await.is_err());
        rig.ends().await;
    }

    #[tokio::test]
    async fn a_request_on_its_way_when_a_drain_begins_is_answered_and_the_last() {
        let mut rig = Rig::new(params()).await;
        let mut kept = rig.client(&get("/one"));
        until(&mut kept, "/one").await;
        rig.told(Event::Accept).await;
        let mut fresh = rig.client("");
        rig.told(Event::Accept).await;
        rig.phase.send_replace(Phase::Drain);
        for client in [&mut kept, &mut fresh] {
            client.write_all(get("/two").as_bytes()).await.unwrap();
            let answer = rest(client).await;
            assert!(
                answer.contains("connection: close") && answer.ends_with("/two"),
                "{answer}"
            );
        }
        rig.ends().await;
    }

    #[tokio::test]
    async fn draining_is_bounded() {
        let mut rig = Rig::new(Params {
            drain_timeout: SHORT,
            ..params()
        })
        .await;
        let mut client = rig.client(&get("/hang"));
        rig.told(Event::Accept).await;
        rig.phase.send_replace(Phase::Drain);
        assert!(client.read_to_end(&mut Vec::new()).await.is_err());
        rig.ends().await;
    }

    #[tokio::test]
    async fn stopping_cuts_at_once() {
        let mut rig = Rig::new(params()).await;
        let mut client = rig.client(&get("/hang"));
        rig.told(Event::Accept).await;
        rig.phase.send_replace(Phase::Drain);
        rig.phase.send_replace(Phase::Stop);
        assert!(client.read_to_end(&mut Vec::new()).await.is_err());
        rig.ends().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_runtime_of_many_threads_serves_as_well() {
        let rig = Rig::new(params()).await;
        assert!(rig.exchange(&get_and_close("/one")).await.ends_with("/one"));
        rig.phase.send_replace(Phase::Drain);
        rig.ends().await;
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_counted_and_closed() {
        let mut rig = Rig::new(params()).await;
        for (request, status) in MALFORMED {
            let answer = rig.exchange(request).await;
            let line = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&line), "{request:?}: {answer}");
            assert_eq!(
                rig.story().await,
                [Event::Accept, Event::Malformed(*status)]
            );
        }
    }

    const MALFORMED: &[(&str, u16)] = &[
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/4294967297.1\r\nHost: a\r\n\r\n", 400),
        ("GET  /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("G<T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n X: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX\t: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551621\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, x\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ];

    #[tokio::test]
    async fn a_head_that_breaks_off_is_counted_without_a_status() {
        let mut rig = Rig::new(params()).await;
        let mut client = rig.client("");
        client.write_all(b"GET / HT").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rig.story().await, [Event::Accept, Event::Malformed(0)]);
    }

    #[tokio::test]
    async fn too_many_fields_are_refused_with_431() {
        let mut rig = Rig::new(params()).await;
        let answer = rig
            .exchange(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(21)))
            .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        rig.told(Event::Malformed(431)).await;
    }

    #[tokio::test]
    async fn a_head_as_large_as_the_bound_is_taken_and_a_larger_one_refused_with_431() {
        let mut rig = Rig::new(params()).await;
        let frame = "GET / HTTP/1.1\r\nConnection: close\r\nX: \r\n\r\n".len();
        for (more, status) in [(0, 200), (1, 431), (1_000_000, 431)] {
            let value = "a".repeat(params().header_bytes_max - frame + more);
            let answer = rig
                .exchange(&format!(
                    "GET / HTTP/1.1\r\nConnection: close\r\nX: {value}\r\n\r\n"
                ))
                .await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{more}: {answer}"
            );
        }
        rig.told(Event::Malformed(431)).await;
    }

    #[tokio::test]
    async fn a_target_beyond_hypers_bound_is_refused_with_414() {
        let mut rig = Rig::new(Params {
            header_bytes_max: 100_000,
            ..params()
        })
        .await;
        let answer = rig
            .exchange(&get(&"/".repeat(HYPER_TARGET_BYTES_MAX + 1)))
            .await;
        assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
        rig.told(Event::Malformed(414)).await;
    }

    #[tokio::test]
    async fn requests_are_served_over_tls() {
        let (front, tls) = tls::tests::front_and_client();
        let rig = Rig::with(params(), Some(front)).await;
        let mut client = tls.connect(rig.client("")).await;
        client.write_all(get("/peer").as_bytes()).await.unwrap();
        until(&mut client, " Https").await;
        client
            .write_all(get_and_close("/large").as_bytes())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.len() > LARGE);
    }

    #[tokio::test]
    async fn a_head_that_takes_too_long_over_tls_is_cut() {
        let (front, tls) = tls::tests::front_and_client();
        let params = Params {
            header_timeout: SHORT,
            ..params()
        };
        let mut rig = Rig::with(params, Some(front)).await;
        let mut client = tls.connect(rig.client("")).await;
        client.write_all(b"GET / HT").await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        drop(client);
        rig.told(Event::Close).await;
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_over_tls_is_cut() {
        let (front, tls) = tls::tests::front_and_client();
        let params = Params {
            write_timeout: SHORT,
            ..params()
        };
        let mut rig = Rig::with(params, Some(front)).await;
        let mut client = tls.connect(rig.client("")).await;
        client.write_all(get("/large").as_bytes()).await.unwrap();
        rig.told(Event::WriteTimeout).await;
    }

    #[tokio::test]
    async fn a_failed_handshake_is_told() {
        let (front, _) = tls::tests::front_and_client();
        let mut rig = Rig::with(params(), Some(front)).await;
        let _client = rig.client(&get("/one"));
        let failed = Event::Handshake(Handshake::Failed(HandshakeFailure::Malformed));
        assert_eq!(rig.story().await, [Event::Accept, failed]);
    }

    #[tokio::test]
    async fn a_handshake_that_takes_too_long_is_cut() {
        let (front, _) = tls::tests::front_and_client();
        let params = Params {
            handshake_timeout: SHORT,
            ..params()
        };
        let mut rig = Rig::with(params, Some(front)).await;
        let mut client = rig.client("");
        assert_eq!(rest(&mut client).await, "");
        let failed = Event::Handshake(Handshake::Failed(HandshakeFailure::Timeout));
        assert_eq!(rig.story().await, [Event::Accept, failed]);
    }
}
