//! One request and its response over a connection to an HTTP/1.1 origin.
//!
//! ```text
//! frame the request ─► checkout ─► send ─► wait for the final head ─► judge its framing ─► Body
//!                          ▲         │
//!                          └─ once ──┘  a reused connection was closed under the request
//! ```
//!
//! An origin closes idle connections when it likes, so a request on a reused one may meet a close
//! on its way (RFC 9112 §9.3.1). It is sent once more, on a new connection, when none of it was
//! sent, or when it is idempotent, has no body and not a byte of an answer came.
//!
//! Framing is judged here (RFC 9112 §6): what passes has one meaning. What the fields mean is left
//! to `rules`.

use std::error::Error;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header::CONTENT_LENGTH;
use http::header::TRANSFER_ENCODING;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Body;
use super::RequestBody;
use super::UpstreamError;
use super::body::Transfer;
use super::pool::Connection;
use super::pool::Grant;
use super::pool::Pool;
use super::pool::Slot;

/// Sends a request to the pool's backend and returns the final response.
///
/// Dropping the future closes the connection.
pub(crate) async fn exchange(
    pool: &Arc<Pool>,
    request: Request<RequestBody>,
) -> Result<Response<Body>, UpstreamError> {
    let mut request = framed(request);
    let slot = match pool.checkout().await? {
        Grant::Fresh(slot) => slot,
        Grant::Reused(connection) => {
            let spare = copy(&request);
            match attempt(pool, connection, request).await {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    let spare = spare.filter(|_| failure.unanswered);
                    let Some(again) = failure.unsent.or(spare) else {
                        return Err(failure.error);
                    };
                    request = again;
                    failure.slot
                }
            }
        }
    };
    let connection = pool.open(slot).await?;
    attempt(pool, connection, request)
        .await
        .map_err(|failure| failure.error)
}

/// An attempt that came to nothing, and what is left of it.
struct Failure {
    error: UpstreamError,
    /// The request, when none of it was sent.
    unsent: Option<Request<Outgoing>>,
    /// The connection closed before a byte of an answer.
    unanswered: bool,
    slot: Slot,
}

async fn attempt(
    pool: &Arc<Pool>,
    mut connection: Connection,
    request: Request<Outgoing>,
) -> Result<Response<Body>, Box<Failure>> {
    let params = pool.params();
    let method = request.method().clone();
    let sending = request.body().sending();
    let head_bytes_max = u64::try_from(params.header_bytes_max).unwrap_or(u64::MAX);
    connection
        .probe
        .restart(head_bytes_max.saturating_add(INTERIM_BYTES_MAX));
    let reply = pin!(connection.sender.try_send_request(request));
    let replied = wait(reply, sending.as_deref(), params.first_byte_timeout).await;
    let (error, unsent) = match replied {
        Ok(Ok(response)) => {
            connection.probe.lift();
            match judge(response, &method) {
                Ok((head, incoming, framing)) => {
                    let home = framing.reusable.then(|| Arc::clone(pool));
                    let length = framing.length;
                    let limit = params.between_bytes_timeout;
                    let transfer = Transfer::new(incoming, length, connection, home, limit);
                    let body = Body::http(transfer, framing.proven);
                    return Ok(Response::from_parts(head, body));
                }
                Err(error) => (error, None),
            }
        }
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message();
            let error = classify(&failed.into_error(), &connection, sending.as_deref());
            (error, unsent)
        }
        Err(error) => (error, None),
    };
    Err(Box::new(Failure {
        unanswered: error == UpstreamError::Closed && connection.probe.untouched(),
        error,
        unsent,
        slot: connection.into_slot(),
    }))
}

/// Waits for `reply` until `limit` has passed since the last byte of the request was taken.
async fn wait<F: Future>(
    mut reply: Pin<&mut F>,
    sending: Option<&Sending>,
    limit: Duration,
) -> Result<F::Output, UpstreamError> {
    let mut deadline = Instant::now() + limit;
    loop {
        if let Ok(replied) = tokio::time::timeout_at(deadline, reply.as_mut()).await {
            return Ok(replied);
        }
        let progress = sending.map(|sending| *sending.progress());
        match progress {
            Some(progress) if progress.moved + limit > deadline => {
                deadline = progress.moved + limit;
            }
            Some(progress) if progress.starved => return Err(UpstreamError::ClientBody),
            Some(_) | None => return Err(UpstreamError::FirstByteTimeout),
        }
    }
}

/// Finds whose fault it was that there is no response.
fn classify(
    error: &hyper::Error,
    connection: &Connection,
    sending: Option<&Sending>,
) -> UpstreamError {
    if sending.is_some_and(|sending| sending.progress().failed) || error.is_body_write_aborted() {
        UpstreamError::ClientBody
    } else if connection.probe.overrun() {
        UpstreamError::protocol("interim responses without end")
    } else if error.is_parse_too_large() {
        UpstreamError::HeadTooLarge
    } else if error.is_parse() {
        UpstreamError::Protocol(Arc::from(error.to_string()))
    } else {
        UpstreamError::Closed
    }
}

/// How a response says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Framing {
    /// Bytes of the body, when declared; zero when there is none.
    length: Option<u64>,
    /// The end can be told from a cut.
    proven: bool,
    /// The connection may carry another request.
    reusable: bool,
}

fn judge(
    response: Response<Incoming>,
    method: &Method,
) -> Result<(http::response::Parts, Incoming, Framing), UpstreamError> {
    let (mut head, incoming) = response.into_parts();
    // A reason phrase of the origin's own, and hyper's handle for an upgrade, go no further.
    head.extensions.clear();
    let framing = framing(method, head.status, head.version, &mut head.headers)?;
    Ok((head, incoming, framing))
}

/// Reads the framing of a response (RFC 9112 §6.3) and leaves at most one field that states it.
fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Framing, UpstreamError> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpstreamError::protocol("an upgrade that was not asked for"));
    }
    let chunked = chunked(headers, version)?;
    let length = content_length(headers)?;
    // Two framings in one head are an attempt at smuggling: the stronger one is believed, the
    // other removed, the connection not used again (RFC 9112 §6.1).
    let ambiguous = chunked && length.is_some();
    if ambiguous || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    let bodyless = *method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let length = match length {
        _ if bodyless => Some(0),
        length if !chunked => length,
        _ => None,
    };
    let proven = chunked || length.is_some();
    Ok(Framing {
        length,
        proven,
        // hyper would speak HTTP/1.0 to a peer that once did, and could not send it a body of
        // unknown length.
        reusable: proven && !ambiguous && version == Version::HTTP_11,
    })
}

fn chunked(headers: &HeaderMap, version: Version) -> Result<bool, UpstreamError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(false);
    };
    let known = coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    if known && codings.next().is_none() && version == Version::HTTP_11 {
        Ok(true)
    } else {
        Err(UpstreamError::protocol("unknown Transfer-Encoding"))
    }
}

/// Reads Content-Length; several that agree are made one (RFC 9110 §8.6).
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, UpstreamError> {
    let invalid = || UpstreamError::protocol("invalid Content-Length");
    let mut length = None;
    let mut stated = 0_usize;
    for value in headers.get_all(CONTENT_LENGTH) {
        for number in value.as_bytes().split(|byte| *byte == b',') {
            let number = decimal(number.trim_ascii()).ok_or_else(invalid)?;
            if length.is_some_and(|length| length != number) {
                return Err(invalid());
            }
            length = Some(number);
            stated = stated.saturating_add(1);
        }
    }
    if let Some(number) = length.filter(|_| stated > 1) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(number));
    }
    Ok(length)
}

/// Reads `1*DIGIT`: no sign, no blank.
fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Makes the fields of a request agree with its body, so that the origin and we cannot differ on
/// where it ends.
fn framed(request: Request<RequestBody>) -> Request<Outgoing> {
    let (mut head, body) = request.into_parts();
    head.version = Version::HTTP_11;
    head.extensions.clear();
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    if body.is_end_stream() {
        // Without it some origins wait for a body that never comes (RFC 9110 §8.6).
        if [Method::POST, Method::PUT, Method::PATCH].contains(&head.method) {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        return Request::from_parts(head, Outgoing::Empty);
    }
    match body.size_hint().exact() {
        Some(length) => head
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => head
            .headers
            .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
    let sending = Arc::new(Sending::new());
    Request::from_parts(head, Outgoing::Body { body, sending })
}

/// Copies a request that may be sent twice.
fn copy(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    let repeatable = request.method().is_idempotent() && matches!(request.body(), Outgoing::Empty);
    repeatable.then(|| {
        let mut copied = Request::new(Outgoing::Empty);
        *copied.method_mut() = request.method().clone();
        *copied.uri_mut() = request.uri().clone();
        *copied.version_mut() = request.version();
        *copied.headers_mut() = request.headers().clone();
        copied
    })
}

/// A request body as the connection's driver reads it.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// No body.
    Empty,
    /// A body, and what the exchange wants to know about it.
    Body {
        /// The client's.
        body: RequestBody,
        /// How far it is.
        sending: Arc<Sending>,
    },
}

impl Outgoing {
    fn sending(&self) -> Option<Arc<Sending>> {
        match self {
            Self::Empty => None,
            Self::Body { sending, .. } => Some(Arc::clone(sending)),
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Body { body, sending } => {
                sending.progress().starved = true;
                let frame = ready!(Pin::new(body).poll_frame(context));
                let mut progress = sending.progress();
                progress.starved = false;
                progress.moved = Instant::now();
                progress.failed = matches!(frame, Some(Err(_)));
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Body { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Body { body, .. } => body.size_hint(),
        }
    }
}

/// How far a request body is.
#[derive(Debug)]
pub(crate) struct Sending(Mutex<Progress>);

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// When the driver last took a piece.
    moved: Instant,
    /// The driver waits for the client.
    starved: bool,
    /// The client failed.
    failed: bool,
}

impl Sending {
    fn new() -> Self {
        Self(Mutex::new(Progress {
            moved: Instant::now(),
            starved: false,
            failed: false,
        }))
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of interim (1xx) responses before the final head. A reader of the body's first bytes may
/// be late, so it is larger than a read.
const INTERIM_BYTES_MAX: u64 = 1024 * 1024;
