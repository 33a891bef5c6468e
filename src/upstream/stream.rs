//! One request and its response on a stream of an HTTP/2 connection.
//!
//! ```text
//! Request ─► HEADERS ─► pump: DATA as the windows allow ─┐
//!                └────► 1xx, counted ─► final head ─► judge ─► Body, DATA as it is read
//! refused, or above GOAWAY's last stream ─► Unprocessed: nothing of it was acted on
//! ```
//!
//! `h2` keeps the rules of frames, fields and lengths (RFC 9113 §8.1.1, §8.2): what breaks them ends
//! the stream with an error of its own. A stream that is dropped before its end is reset, and nothing
//! else on the connection is. Which request is sent again is [`exchange`](super::exchange)'s to say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use http::uri::Authority;
use http::uri::PathAndQuery;
use http::uri::Scheme;
use http_body::Body as _;
use tokio::task::AbortHandle;

use super::Body;
use super::UpstreamError;
use super::body::Transfer;
use super::exchange::Outgoing;
use super::exchange::framing;
use super::exchange::wait;
use super::pool::Lease;
use super::pool::Pool;

/// An attempt that came to nothing, and what is left of it.
pub(crate) struct Failure {
    pub(crate) error: UpstreamError,
    /// The request, when it may be sent again on another stream.
    pub(crate) again: Option<Request<Outgoing>>,
}

/// Sends a request on a stream and returns the final response.
///
/// Dropping the future resets the stream.
pub(crate) async fn attempt(
    pool: &Arc<Pool>,
    lease: Lease,
    request: Request<Outgoing>,
) -> Result<Response<Body>, Box<Failure>> {
    let params = pool.params();
    let (head, body) = request.into_parts();
    let failed = |error, again| Box::new(Failure { error, again });
    let Some(outgoing) = outgoing(&head, pool.target().is_secured()) else {
        let error = UpstreamError::protocol("an authority that HTTP/2 cannot carry");
        return Err(failed(error, None));
    };
    let sending = body.sending();
    let heard = lease.session().probe().received();
    let sent = lease
        .session()
        .sender()
        .send_request(outgoing, body.is_end_stream());
    let Ok((response, stream)) = sent else {
        // The connection said goodbye or has no identifier left: no frame was written.
        lease.session().retire();
        let again = Some(Request::from_parts(head, body));
        return Err(failed(UpstreamError::Unprocessed, again));
    };
    let mut reply = Reply {
        pump: Some(Pump::new(stream, body)),
        response,
        interim: Arc::clone(pool.interim()),
        interim_seen: 0,
    };
    let limit = params.first_byte_timeout;
    let replied = wait(Pin::new(&mut reply), sending.as_deref(), limit).await;
    let error = match replied {
        Ok(Ok(response)) => match judge(response, &head.method, params.headers_max) {
            Ok((answer, incoming, length)) => {
                let uploading = reply
                    .pump
                    .take()
                    .filter(|pump| !pump.done)
                    .map(Uploading::new);
                let limit = params.between_bytes_timeout;
                let transfer = Transfer::stream(incoming, length, lease, uploading, limit);
                return Ok(Response::from_parts(answer, Body::http(transfer, true)));
            }
            Err(error) => error,
        },
        Ok(Err(error)) => error,
        Err(error) => {
            if lease.session().probe().received() == heard {
                // Nothing at all came: perhaps nobody is there any more.
                lease.session().retire();
            }
            error
        }
    };
    let error = explained(pool, &lease, error);
    let body = reply.pump.take().and_then(Pump::rewound);
    let again = body.filter(|body| may_repeat(&error, &lease, &head.method, body));
    let again = again.map(|body| Request::from_parts(head, body));
    Err(failed(error, again))
}

/// Puts what TLS says in the place of a mere end.
fn explained(pool: &Pool, lease: &Lease, error: UpstreamError) -> UpstreamError {
    match lease.session().probe().failure() {
        Some(failure) if error == UpstreamError::Closed => {
            pool.target().tell(&failure);
            UpstreamError::Tls(failure)
        }
        Some(_) | None => error,
    }
}

/// Whether a request may be sent once more after this.
fn may_repeat(error: &UpstreamError, lease: &Lease, method: &Method, body: &Outgoing) -> bool {
    // As on a connection of HTTP/1.1 that the backend closed when it liked.
    let idle = lease.is_reused() && method.is_idempotent() && matches!(body, Outgoing::Empty);
    *error == UpstreamError::Unprocessed || *error == UpstreamError::Closed && idle
}

/// Makes the head as HTTP/2 has it (RFC 9113 §8.3.1): the authority in front, and nothing that is
/// about a connection (§8.2.2).
fn outgoing(head: &http::request::Parts, secured: bool) -> Option<Request<()>> {
    let host = head.headers.get(header::HOST)?;
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secured { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    let root = || PathAndQuery::from_static("/");
    parts.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or_else(root));
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.clone_from(&head.headers);
    for name in OF_A_CONNECTION {
        headers.remove(*name);
    }
    Some(request)
}

/// A request on its way and the response that is waited for.
struct Reply {
    /// None once there is nothing more to send.
    pump: Option<Pump>,
    response: ResponseFuture,
    /// Where interim responses are counted.
    interim: Arc<AtomicU64>,
    interim_seen: u32,
}

impl Future for Reply {
    type Output = Result<Response<RecvStream>, UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = &mut *self;
        if let Some(pump) = &mut reply.pump
            && let Poll::Ready(Err(error)) = Pin::new(pump).poll(context)
        {
            return Poll::Ready(Err(error));
        }
        loop {
            match ready!(reply.response.poll_informational(context)) {
                Some(Ok(interim)) => {
                    reply.interim.fetch_add(1, Ordering::Relaxed);
                    reply.interim_seen = reply.interim_seen.saturating_add(1);
                    if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                        let error = UpstreamError::protocol("an upgrade that HTTP/2 does not have");
                        return Poll::Ready(Err(error));
                    }
                    if reply.interim_seen > INTERIM_MAX {
                        let error = UpstreamError::protocol("interim responses without end");
                        return Poll::Ready(Err(error));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(unanswered(&error))),
                None => break,
            }
        }
        let response = ready!(Pin::new(&mut reply.response).poll(context));
        Poll::Ready(response.map_err(|error| unanswered(&error)))
    }
}

/// Why there is no response (RFC 9113 §8.7). `h2` gives GOAWAY as the reason only to streams above
/// the last one that it names.
fn unanswered(error: &h2::Error) -> UpstreamError {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (error.is_go_away() || refused) {
        UpstreamError::Unprocessed
    } else if error.is_io() {
        UpstreamError::Closed
    } else {
        UpstreamError::Protocol(Arc::from(error.to_string()))
    }
}

/// The backend wants no more of the request, and had nothing against it.
pub(crate) fn is_stop(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}

/// Why a body ends early.
pub(crate) fn broken(error: &h2::Error) -> UpstreamError {
    match error.is_library() {
        true => UpstreamError::Protocol(Arc::from(error.to_string())),
        // It was reset, or its connection is gone.
        false => UpstreamError::Incomplete,
    }
}

/// What a response is when its head is one: its parts, and the bytes that its body has.
fn judge(
    response: Response<RecvStream>,
    method: &Method,
    headers_max: usize,
) -> Result<(http::response::Parts, RecvStream, Option<u64>), UpstreamError> {
    let (mut head, incoming) = response.into_parts();
    head.extensions.clear();
    if head.headers.len() > headers_max {
        return Err(UpstreamError::HeadTooLarge);
    }
    let framing = framing(method, head.status, head.version, &mut head.headers)?;
    Ok((head, incoming, framing.length))
}

/// Sends a body, as fast as the client and the windows allow.
pub(crate) struct Pump {
    stream: SendStream<Bytes>,
    body: Outgoing,
    /// What the client gave and the windows have not let through yet.
    piece: Bytes,
    done: bool,
}

impl Pump {
    fn new(stream: SendStream<Bytes>, body: Outgoing) -> Self {
        Self {
            stream,
            done: body.is_end_stream(),
            body,
            piece: Bytes::new(),
        }
    }

    /// The body from its beginning, when it can be had again.
    fn rewound(mut self) -> Option<Outgoing> {
        self.body.rewind().then_some(self.body)
    }

    /// Sends what is in hand; an error ends the sending, and why is the response's to tell.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.piece.is_empty() {
            self.stream.reserve_capacity(self.piece.len());
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(context)) {
                    Some(room) => room?,
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                },
                room => room,
            };
            let part = self.piece.split_to(room.min(self.piece.len()));
            if !part.is_empty() {
                self.stream.send_data(part, false)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Pump {
    type Output = Result<(), UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while !self.done {
            if ready!(self.poll_piece(context)).is_err() {
                self.done = true;
                break;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // Trailers of a request end here, as with HTTP/1.1.
                    self.piece = frame.into_data().unwrap_or_default();
                }
                Some(Err(_)) => {
                    self.done = true;
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(UpstreamError::ClientBody));
                }
                None => {
                    self.done = true;
                    // An error is the response's to tell.
                    let _ended = self.stream.send_data(Bytes::new(), true);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A body that is still being sent while the response is read; the sending ends with it.
#[derive(Debug)]
pub(crate) struct Uploading(AbortHandle);

impl Uploading {
    fn new(pump: Pump) -> Self {
        let task = tokio::spawn(async move {
            // The response is there: what becomes of the rest of the request is the backend's.
            let _sent = pump.await;
        });
        Self(task.abort_handle())
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Fields that are about a connection and have no place in HTTP/2 (RFC 9113 §8.2.2), and the one
/// that `:authority` takes the place of.
const OF_A_CONNECTION: &[&str] = &[
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Interim (1xx) responses before the final head.
const INTERIM_MAX: u32 = 1024;
