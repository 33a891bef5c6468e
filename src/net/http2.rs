//! HTTP/2 over one connection: its life, its streams, and what one client may make us do.
//!
//! ```text
//! converse ─ preface ─ accept ─┬─ stream ─ handler ─ head ─ body, piece by piece
//!    ▲                         ├─ stream …
//!    │                         └─ …
//!    ├─ FrameIo ── counts frames, times header blocks, lingers at the end
//!    └─ phase, idleness ── GOAWAY
//! ```
//!
//! From a connection on which the client is known to speak HTTP/2, and a handler. Framing, HPACK,
//! flow control and the states of streams are the `h2` crate's, and so is every refusal that RFC 9113
//! asks for; this file adds what `h2` leaves open:
//!
//! - a budget for frames that ask for nothing ([`frames`](super::frames));
//! - a bound on the time a header block may take, and on idleness;
//! - streams that do not starve each other: nobody holds window of the connection that it does not
//!   use, and a stream whose client does not read is reset after
//!   [`Params::write_timeout`](crate::net::Params), the others go on.
//!
//! A response that breaks off ends in RST_STREAM, which nobody can take for its end.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::SendStream;
use h2::server::Builder;
use h2::server::Connection;
use h2::server::SendResponse;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body::Body;
use http_body::Frame;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::Event;
use crate::net::Params;
use crate::net::Peer;
use crate::net::Phase;
use crate::net::body::BoxError;
use crate::net::body::RequestBody;
use crate::net::duplex::Duplex;
use crate::net::frames::Budget;
use crate::net::frames::Frames;
use crate::net::io::Carrier;
use crate::net::io::LINGER;
use crate::net::io::LINGER_BYTES;
use crate::net::io::Timer;
use crate::net::serve::Front;
use crate::net::serve::later_than;
use crate::net::serve::past_grace;
use crate::net::switch::Stream;
use crate::net::switch::Switch;
use crate::rules::freshness::write_date;
use crate::rules::request::ExtendedConnect;
use crate::rules::request::StreamEnded;

/// Speaks HTTP/2 with one client to the end.
///
/// Dropped half-way, it cuts the connection, and every stream's task finds that out and ends.
pub(super) async fn converse<C, H, F, B>(
    carrier: C,
    peer: Peer,
    front: &Arc<Front<H>>,
    mut phase: watch::Receiver<Phase>,
) where
    C: Carrier,
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let params = &front.params;
    let shared = Arc::new(Shared::new(params));
    let io = FrameIo::new(carrier, params.header_timeout, &shared);
    let opening = params.idle_timeout.min(params.header_timeout);
    let opening = tokio::time::timeout(opening, builder(params).handshake(io));
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = past_grace(&mut phase) => return,
    };
    let http = match opened {
        Ok(Ok(http)) => http,
        Ok(Err(error)) => return tell(&error, &shared, &*front.events),
        Err(_) => return,
    };
    let ended = attend(http, peer, front, &shared, phase).await;
    if let Err(error) = ended {
        tell(&error, &shared, &*front.events);
    }
}

/// Takes the connection's requests until it ends; each becomes a task of its own.
async fn attend<C, H, F, B>(
    mut http: Connection<FrameIo<C>, Bytes>,
    peer: Peer,
    front: &Arc<Front<H>>,
    shared: &Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), h2::Error>
where
    C: Carrier,
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let idle_timeout = front.params.idle_timeout;
    let mut idle = pin!(tokio::time::sleep(idle_timeout));
    let mut seen = Phase::Serve;
    let mut closing = false;
    let mut taken = 0;
    loop {
        if taken == TAKEN_IN_A_TURN {
            taken = 0;
            tokio::task::yield_now().await;
        }
        if let Some(fault) = shared.fault() {
            (front.events)(fault.event());
            return close(http, fault.reason()).await;
        }
        tokio::select! {
            biased;
            accepted = http.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    taken += 1;
                    take(request, respond, &peer, front, shared);
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = poll_fn(|_| shared.poll_fault()) => {}
            now = later_than(&mut phase, seen) => {
                if now == Phase::Stop {
                    return Ok(());
                }
                seen = now;
                closing = true;
                http.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + LINGER);
            }
            () = &mut idle => {
                let Some(quiet) = shared.quiet() else {
                    idle.as_mut().reset(Instant::now() + if closing { LINGER } else { idle_timeout });
                    continue;
                };
                match idle_timeout.checked_sub(quiet) {
                    // It has been told to go and does not answer.
                    _ if closing => return close(http, Reason::NO_ERROR).await,
                    Some(left) if !left.is_zero() => idle.as_mut().reset(Instant::now() + left),
                    Some(_) | None => {
                        closing = true;
                        http.graceful_shutdown();
                        idle.as_mut().reset(Instant::now() + LINGER);
                    }
                }
            }
        }
    }
}

/// Ends a connection now: GOAWAY, and what is left to send is not waited for long.
async fn close<C: Carrier>(
    mut http: Connection<FrameIo<C>, Bytes>,
    reason: Reason,
) -> Result<(), h2::Error> {
    http.abrupt_shutdown(reason);
    let ending = async { while let Some(Ok(_)) = http.accept().await {} };
    // Late or not: it is dropped next.
    let _late = tokio::time::timeout(LINGER, ending).await;
    Ok(())
}

/// Tells what a connection's failure was, if it is the client's.
fn tell(error: &h2::Error, shared: &Shared, events: &(dyn Fn(Event) + Send + Sync)) {
    if shared.write_late.load(Ordering::Relaxed) {
        events(Event::WriteTimeout);
    } else if error.is_remote() || error.is_io() {
        tracing::debug!(%error, "a client broke off");
    } else if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
        events(Event::Flood);
    } else {
        events(Event::Malformed(0));
    }
}

fn builder(params: &Params) -> Builder {
    let limits = &params.http2;
    let resets = usize::try_from(limits.resets_max).unwrap_or(usize::MAX);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(params.header_bytes_max).unwrap_or(u32::MAX))
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(resets.min(PENDING_RESETS_MAX))
        .max_local_error_reset_streams(Some(resets))
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_REMEMBERED_FOR);
    if limits.extended_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Begins the task of one stream.
fn take<H, F, B>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: &Peer,
    front: &Arc<Front<H>>,
    shared: &Arc<Shared>,
) where
    H: Fn(Request<RequestBody>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let params = &front.params;
    if request.headers().values().any(padded) {
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    if fields(request.headers()) > params.headers_max {
        (front.events)(Event::Malformed(431));
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response.headers_mut().insert(header::CONTENT_LENGTH, ZERO);
        if let Err(error) = respond.send_response(response, true) {
            tracing::debug!(%error, "a client broke off");
        }
        return;
    }
    let (mut head, stream) = request.into_parts();
    if stream.is_end_stream() {
        head.extensions.insert(StreamEnded);
    }
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let (go_on, asked) = match head.headers.get(header::EXPECT) {
        Some(expected) if expected.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            let (go_on, asked) = oneshot::channel();
            (Some(go_on), Some(asked))
        }
        Some(_) | None => (None, None),
    };
    let timeout = params.body_read_timeout;
    let (body, incoming) = match extended_connect(&mut head) {
        true => (RequestBody::none(), Some(stream)),
        false => {
            let body = RequestBody::http2(stream, length, go_on, timeout, &front.events);
            (body, None)
        }
    };
    let reply = Reply {
        incoming,
        head_only: head.method == Method::HEAD,
        now: front.now,
        write_timeout: params.write_timeout,
        events: Arc::clone(&front.events),
        presence: Presence::new(shared),
    };
    let (front, peer) = (Arc::clone(front), peer.clone());
    tokio::spawn(async move {
        // Made where it is pinned: what is made outside and moved in takes its room twice.
        let answer = pin!((front.handler)(Request::from_parts(head, body), peer));
        if let Some(response) = answered(answer, &mut respond, asked).await
            && let Err(error) = reply.send(response, respond).await
        {
            tracing::debug!(%error, "a response broke off");
        }
    });
}

/// Tells the handler what protocol a CONNECT asks for (RFC 8441 §4), if it does.
fn extended_connect(head: &mut Parts) -> bool {
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let protocol = protocol.filter(|_| head.method == Method::CONNECT);
    let protocol = protocol.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let asks = protocol.map(|name| head.extensions.insert(ExtendedConnect(name)));
    asks.is_some()
}

/// Counts the fields of a head. Cookie counts as one, into however many lines it was split so that
/// they compress better (RFC 9113 §8.2.3).
fn fields(headers: &HeaderMap) -> usize {
    let cookies = headers.get_all(header::COOKIE).iter().count();
    headers.len() - cookies.saturating_sub(1)
}

/// Whether a value begins or ends with white space, which makes its message malformed (RFC 9113
/// §8.2.1).
fn padded(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.trim_ascii().len() != bytes.len()
}

/// Waits for the handler's answer; `None` when the stream has been reset. One that was reset before
/// its turn came costs no answer: a client can make many such at once.
async fn answered<B>(
    mut answer: Pin<&mut impl Future<Output = Response<B>>>,
    respond: &mut SendResponse<Bytes>,
    asked: Option<oneshot::Receiver<()>>,
) -> Option<Response<B>> {
    if let Some(asked) = asked {
        tokio::select! {
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return None,
            response = &mut answer => return Some(response),
            asked = asked => {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                if asked.is_ok() && let Err(error) = respond.send_informational(go_on) {
                    tracing::debug!(%error, "a client broke off");
                }
            }
        }
    }
    tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => None,
        response = answer => Some(response),
    }
}

/// What sends one response.
struct Reply {
    /// What the client sends on a stream that may become a tunnel.
    incoming: Option<RecvStream>,
    head_only: bool,
    now: fn() -> std::time::SystemTime,
    write_timeout: Duration,
    events: Arc<dyn Fn(Event) + Send + Sync>,
    presence: Presence,
}

impl Reply {
    async fn send<B>(
        mut self,
        response: Response<B>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = response.into_parts();
        for name in CONNECTION_FIELDS {
            head.headers.remove(name);
        }
        if !head.headers.contains_key(header::DATE) {
            head.headers.insert(header::DATE, write_date((self.now)()));
        }
        if let Some(switch) = head.extensions.remove::<Switch>()
            && let Some(incoming) = self.incoming.take()
        {
            head.headers.remove(header::CONTENT_LENGTH);
            let outgoing = respond.send_response(Response::from_parts(head, ()), false)?;
            let duplex = Duplex::new(incoming, outgoing, self.write_timeout);
            switch.run(Stream::of_http2(duplex, &self.events)).await;
            self.presence.shared.budget.earn_response();
            return Ok(());
        }
        let bodiless = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let ended = self.head_only || bodiless || body.is_end_stream();
        if let Some(length) = body.size_hint().exact()
            && !bodiless
            && !(self.head_only && length == 0)
            && !head.headers.contains_key(header::CONTENT_LENGTH)
        {
            head.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let head = Response::from_parts(head, ());
        let stream = respond.send_response(head, ended)?;
        if !ended {
            self.send_body(body, stream).await?;
        }
        self.presence.shared.budget.earn_response();
        Ok(())
    }

    async fn send_body<B>(&self, body: B, mut stream: SendStream<Bytes>) -> Result<(), h2::Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        loop {
            // One byte's room, so that a client that does not read has no part of the body read,
            // and one that waits for the body holds no more of the connection's window.
            self.room(&mut stream, 1).await?;
            let frame = tokio::select! {
                biased;
                frame = poll_fn(|cx| body.as_mut().poll_frame(cx).map(in_box)) => frame,
                reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(reset?.into()),
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response is cut");
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    return Err(Reason::INTERNAL_ERROR.into());
                }
                None => return stream.send_data(Bytes::new(), true),
            };
            match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    self.send_data(data, last, &mut stream).await?;
                    if last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            }
        }
    }

    /// Sends one piece of a body as the client makes room for it.
    async fn send_data(
        &self,
        mut data: Bytes,
        last: bool,
        stream: &mut SendStream<Bytes>,
    ) -> Result<(), h2::Error> {
        while !data.is_empty() {
            let wanted = data.len().min(STEP_BYTES);
            let room = self.room(stream, wanted).await?;
            let part = data.split_to(room.min(wanted));
            if part.len() >= DATA_BYTES_EARNING || data.is_empty() {
                self.presence.shared.budget.earn_data();
            }
            let ends = last && data.is_empty();
            stream.send_data(part, ends)?;
        }
        Ok(())
    }

    /// Waits until the client takes some of `wanted` bytes, and says how many. A client that takes
    /// none for too long, although the connection is free, has its stream reset.
    async fn room(
        &self,
        stream: &mut SendStream<Bytes>,
        wanted: usize,
    ) -> Result<usize, h2::Error> {
        stream.reserve_capacity(wanted);
        let mut timer = Timer::default();
        loop {
            let blocked = self.presence.shared.blocked();
            let room = poll_fn(|cx| {
                let room = match stream.capacity() {
                    0 => stream.poll_capacity(cx),
                    room => Poll::Ready(Some(Ok(room))),
                };
                if room.is_pending() {
                    timer.start_once(self.write_timeout);
                    ready!(timer.poll(cx));
                    return Poll::Ready(None);
                }
                room.map(Some)
            });
            match room.await {
                Some(Some(room)) => return room,
                // The stream is no longer open for sending.
                Some(None) => return Err(Reason::CANCEL.into()),
                // What is before it in the connection's buffers may be in its way: how long that
                // may take is the socket's matter.
                None if !self.presence.shared.undisturbed(blocked) => timer = Timer::default(),
                None => {
                    (self.events)(Event::WriteTimeout);
                    stream.send_reset(Reason::CANCEL);
                    return Err(Reason::CANCEL.into());
                }
            }
        }
    }
}

/// A frame whose error may go from thread to thread.
fn in_box<E: Into<BoxError>>(
    frame: Option<Result<Frame<Bytes>, E>>,
) -> Option<Result<Frame<Bytes>, BoxError>> {
    frame.map(|frame| frame.map_err(E::into))
}

/// What a connection's reader, its accept loop and its streams tell each other.
struct Shared {
    budget: Budget,
    /// Why the connection is to end; the first reason counts.
    fault: OnceLock<Fault>,
    /// The client takes nothing at all.
    write_late: AtomicBool,
    /// How often a write had to wait for the client; odd while one does.
    blocked: AtomicU32,
    streams: Mutex<Streams>,
}

/// Streams that are being answered.
struct Streams {
    open: usize,
    /// When the last of them ended, or the connection began.
    since: Instant,
}

/// Why we end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The budget is used up.
    Flood,
    /// A header block took too long.
    HeadLate,
    /// A frame that may not come.
    Wrong(Reason),
}

impl Fault {
    fn event(self) -> Event {
        match self {
            Self::Flood => Event::Flood,
            Self::HeadLate => Event::RequestTimeout,
            Self::Wrong(_) => Event::Malformed(0),
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Flood => Reason::ENHANCE_YOUR_CALM,
            Self::HeadLate => Reason::NO_ERROR,
            Self::Wrong(reason) => reason,
        }
    }
}

impl Shared {
    fn new(params: &Params) -> Self {
        Self {
            budget: Budget::new(params.http2.control_frames_max, params.http2.resets_max),
            fault: OnceLock::new(),
            write_late: AtomicBool::new(false),
            blocked: AtomicU32::new(0),
            streams: Mutex::new(Streams {
                open: 0,
                since: Instant::now(),
            }),
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    fn fail(&self, fault: Fault) {
        self.fault.get_or_init(|| fault);
    }

    /// Ready when there is a fault. Needs no waker: only the accept loop reads, and it looks here
    /// whenever it has read.
    fn poll_fault(&self) -> Poll<()> {
        match self.fault() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// How often a write has waited; `None` while one does.
    fn blocked(&self) -> Option<u32> {
        let blocked = self.blocked.load(Ordering::Relaxed);
        blocked.is_multiple_of(2).then_some(blocked)
    }

    /// No write has waited since `before`.
    fn undisturbed(&self, before: Option<u32>) -> bool {
        before.is_some() && before == self.blocked()
    }

    fn write_waits(&self, waits: bool) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if waits == blocked.is_multiple_of(2) {
            self.blocked
                .store(blocked.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// How long no stream has been open; `None` while one is.
    fn quiet(&self) -> Option<Duration> {
        let streams = self.streams();
        (streams.open == 0).then(|| streams.since.elapsed())
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a stream's task.
struct Presence {
    shared: Arc<Shared>,
}

impl Presence {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut streams = shared.streams();
        streams.open = streams.open.saturating_add(1);
        drop(streams);
        Self {
            shared: Arc::clone(shared),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut streams = self.shared.streams();
        streams.open = streams.open.saturating_sub(1);
        streams.since = Instant::now();
    }
}

/// The client's side as `h2` sees it: frames are counted, header blocks timed.
///
/// After a fault nothing more is read: whoever drives the connection finds the fault and ends it.
struct FrameIo<C: Carrier> {
    carrier: C,
    frames: Frames,
    header_timeout: Duration,
    /// Runs while the client owes the rest of a head.
    timer: Option<Timer>,
    /// When time was last paid into the budget.
    refilled: Instant,
    shared: Arc<Shared>,
    ending: Ending,
}

/// How far the end of a connection is.
enum Ending {
    Open,
    /// We have ended; the client may still be sending, so many bytes at most.
    Lingering(Timer, usize),
    Over,
}

impl<C: Carrier> FrameIo<C> {
    fn new(carrier: C, header_timeout: Duration, shared: &Arc<Shared>) -> Self {
        Self {
            carrier,
            frames: Frames::new(),
            header_timeout,
            timer: None,
            refilled: Instant::now(),
            shared: Arc::clone(shared),
            ending: Ending::Open,
        }
    }

    /// Counts what came; false when it must not be read.
    fn count(&mut self, bytes: &[u8]) -> bool {
        let whole = self.frames.whole();
        let (budget, refilled) = (&self.shared.budget, &mut self.refilled);
        let mut fault = None;
        self.frames.read(bytes, |cost| {
            let cost = match cost {
                _ if fault.is_some() => return,
                Ok(cost) => cost,
                Err(reason) => return fault = Some(Fault::Wrong(reason)),
            };
            if budget.pay(cost) {
                return;
            }
            let now = Instant::now();
            budget.refill(now.duration_since(*refilled));
            *refilled = now;
            if !budget.pay(cost) {
                fault = Some(Fault::Flood);
            }
        });
        if let Some(fault) = fault {
            self.shared.fail(fault);
        }
        if self.frames.whole() != whole || !self.frames.owes_head() {
            self.timer = None;
        }
        fault.is_none()
    }

    fn note_write<T>(&self, written: &Poll<io::Result<T>>) {
        self.shared.write_waits(written.is_pending());
        if matches!(written, Poll::Ready(Err(_))) && self.carrier.socket().write_expired() {
            self.shared.write_late.store(true, Ordering::Relaxed);
        }
    }
}

impl<C: Carrier> AsyncRead for FrameIo<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.fault().is_some() {
            return Poll::Pending;
        }
        let filled = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.carrier).poll_read(cx, buf) {
            if !this.count(buf.filled().get(filled..).unwrap_or_default()) {
                buf.set_filled(filled);
                return Poll::Pending;
            }
            return Poll::Ready(result);
        }
        if this.frames.owes_head() {
            let timer = this.timer.get_or_insert_default();
            timer.start_once(this.header_timeout);
            ready!(timer.poll(cx));
            this.shared.fail(Fault::HeadLate);
        }
        Poll::Pending
    }
}

impl<C: Carrier> AsyncWrite for FrameIo<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.carrier).poll_write(cx, buf);
        this.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.carrier).poll_write_vectored(cx, bufs);
        this.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.carrier.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.carrier).poll_flush(cx);
        this.note_write(&flushed);
        flushed
    }

    /// Ends our side, then reads and forgets what the client still sends: closing with unread bytes
    /// would reset the connection, and a reset can overtake the GOAWAY that says why.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.ending {
                Ending::Open => {
                    ready!(Pin::new(&mut this.carrier).poll_shutdown(cx))?;
                    let mut timer = Timer::default();
                    timer.start_once(LINGER);
                    this.ending = Ending::Lingering(timer, LINGER_BYTES);
                }
                Ending::Lingering(timer, left) => {
                    let mut bytes = [0; 8 * 1024];
                    let mut buf = ReadBuf::new(&mut bytes);
                    match Pin::new(&mut this.carrier).poll_read(cx, &mut buf) {
                        Poll::Ready(Ok(())) if !buf.filled().is_empty() && *left > 0 => {
                            *left = left.saturating_sub(buf.filled().len());
                            continue;
                        }
                        Poll::Ready(_) => {}
                        Poll::Pending => ready!(timer.poll(cx)),
                    }
                    this.ending = Ending::Over;
                }
                Ending::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Largest frame that is taken: the least that may be announced (RFC 9113 §6.5.2).
const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// Most bytes of a response that wait in `h2` for the socket.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// How much window of the connection a stream asks for at a time: one frame, so that many streams
/// take turns.
const STEP_BYTES: usize = 16 * 1024;

/// A piece of a body smaller than this, of something longer, was made small by the client's window.
const DATA_BYTES_EARNING: usize = 1024;

/// How many requests a connection begins before others have their turn: a client can send hundreds
/// at once, and reset them to send hundreds more.
const TAKEN_IN_A_TURN: u32 = 16;

/// Most streams that were reset before we looked at them.
const PENDING_RESETS_MAX: usize = 20;

/// For how many streams that we reset, and how long, late frames are forgiven (RFC 9113 §5.1).
const RESETS_REMEMBERED: usize = 50;
const RESET_REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// Fields that HTTP/2 has no place for (RFC 9113 §8.2.2).
const CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const ZERO: HeaderValue = HeaderValue::from_static("0");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_cookie_in_many_lines_counts_as_one_field() {
        assert_eq!(fields(&headers(&[])), 0);
        assert_eq!(fields(&headers(&[("a", "1"), ("a", "2"), ("b", "3")])), 3);
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("x", "y")];
        assert_eq!(fields(&headers(&crumbs)), 2);
    }

    #[test]
    fn a_value_may_have_white_space_inside_but_not_around_it() {
        for (value, wrong) in [("", false), ("a b", false), (" a", true), ("a\t", true)] {
            assert_eq!(padded(&HeaderValue::from_static(value)), wrong, "{value:?}");
        }
    }

    fn shared() -> Shared {
        Shared::new(&Params {
            connections_max: 1,
            headers_max: 1,
            header_bytes_max: 1,
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            body_read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            handshake_timeout: Duration::ZERO,
            drain_timeout: Duration::ZERO,
            proxy_protocol_from: Vec::new(),
            http2: crate::net::Http2 {
                clear_text: true,
                streams_max: 1,
                stream_window: 1,
                connection_window: 1,
                resets_max: 1,
                extended_connect: false,
                control_frames_max: 1,
            },
        })
    }

    #[tokio::test]
    async fn a_stream_is_not_blamed_for_a_connection_that_waits_or_has_waited() {
        let shared = shared();
        let before = shared.blocked();
        assert!(shared.undisturbed(before));
        shared.write_waits(true);
        assert!(!shared.undisturbed(before));
        assert!(!shared.undisturbed(shared.blocked()), "it still waits");
        shared.write_waits(true);
        shared.write_waits(false);
        assert!(!shared.undisturbed(before), "it has waited");
        assert!(shared.undisturbed(shared.blocked()));
    }

    #[tokio::test]
    async fn a_connection_is_quiet_when_its_last_stream_has_ended() {
        let shared = Arc::new(shared());
        assert!(shared.quiet().is_some());
        let (one, two) = (Presence::new(&shared), Presence::new(&shared));
        drop(one);
        assert!(shared.quiet().is_none());
        drop(two);
        assert!(shared.quiet().is_some());
    }

    #[tokio::test]
    async fn the_first_fault_is_the_one_that_counts() {
        let shared = shared();
        assert!(shared.poll_fault().is_pending());
        shared.fail(Fault::Flood);
        shared.fail(Fault::HeadLate);
        assert_eq!(shared.fault(), Some(Fault::Flood));
        assert!(shared.poll_fault().is_ready());
    }
}
