//! One request and its response: tries, and what is particular to HTTP/1.1.
//!
//! ```text
//! frame the request ─► checkout ─► send ─► wait for the final head ─► judge its framing ─► Body
//!                          ▲         │
//!                          └─ once ──┘  a reused connection was closed under the request
//! ```
//!
//! An origin closes idle connections when it likes, so a request on a reused one may meet a close
//! on its way (RFC 9112 §9.3.1). It is sent once more, on a new connection, when none of it was
//! sent, or when it is idempotent, has no body and not a byte of an answer came. What HTTP/2 did not
//! take up is sent once more whatever it is, while its body can be had again.
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
use std::sync::atomic::Ordering;
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
use http::header::UPGRADE;
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
use super::pool::Opened;
use super::pool::Pool;
use super::pool::Slot;
use super::stream;
use super::switched::Switched;
use crate::rules::upgrade::granted;

/// Sends a request to the pool's backend and returns the final response.
///
/// Dropping the future closes the connection.
pub(crate) async fn exchange(
    pool: &Arc<Pool>,
    request: Request<RequestBody>,
) -> Result<Response<Body>, UpstreamError> {
    let request = framed(request);
    let grant = pool.checkout().await?;
    let lost = match travel(pool, grant, request).await {
        Ok(response) => return Ok(response),
        Err(lost) => lost,
    };
    let Some(request) = lost.again else {
        return Err(lost.error);
    };
    let grant = match lost.slot {
        Some(slot) => Grant::Fresh(slot),
        None => pool.checkout().await?,
    };
    let travelled = travel(pool, grant, request).await;
    travelled.map_err(|lost| lost.error)
}

/// A request that got no response.
struct Lost {
    error: UpstreamError,
    /// The request, when it may be sent once more.
    again: Option<Request<Outgoing>>,
    /// The permission to open the connection that it goes on then; without one it may share.
    slot: Option<Slot>,
}

impl From<UpstreamError> for Box<Lost> {
    fn from(error: UpstreamError) -> Self {
        Self::new(Lost {
            error,
            again: None,
            slot: None,
        })
    }
}

/// Sends a request on what it was granted, in the protocol that is spoken there.
async fn travel(
    pool: &Arc<Pool>,
    grant: Grant,
    request: Request<Outgoing>,
) -> Result<Response<Body>, Box<Lost>> {
    let lease = match grant {
        Grant::Stream(lease) => lease,
        Grant::Reused(connection) => {
            let spare = copy(&request);
            return attempt(pool, connection, request).await.map_err(|failure| {
                let spare = spare.filter(|_| failure.unanswered);
                Box::new(Lost {
                    error: failure.error,
                    again: failure.unsent.or(spare),
                    slot: Some(failure.slot),
                })
            });
        }
        Grant::Fresh(slot) => match pool.open(slot).await? {
            Opened::Http2(lease) => lease,
            Opened::Http1(connection) => {
                let sent = attempt(pool, connection, request).await;
                return sent.map_err(|failure| failure.error.into());
            }
        },
    };
    stream::attempt(pool, lease, request)
        .await
        .map_err(|failure| {
            Box::new(Lost {
                error: failure.error,
                again: failure.again,
                slot: None,
            })
        })
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
    mut request: Request<Outgoing>,
) -> Result<Response<Body>, Box<Failure>> {
    let params = pool.params();
    let method = request.method().clone();
    let asked = request.headers().get(UPGRADE).cloned();
    let sending = request.body().sending();
    let head_bytes_max = u64::try_from(params.header_bytes_max).unwrap_or(u64::MAX);
    connection
        .probe
        .restart(head_bytes_max.saturating_add(INTERIM_BYTES_MAX));
    // They are for the one client that asked, and most stores outlive it: swallowed, and counted.
    let interim = Arc::clone(pool.interim());
    hyper::ext::on_informational(&mut request, move |_| {
        interim.fetch_add(1, Ordering::Relaxed);
    });
    let reply = pin!(connection.sender.try_send_request(request));
    let replied = wait(reply, sending.as_deref(), params.first_byte_timeout).await;
    let (error, unsent) = match replied {
        Ok(Ok(response)) => {
            connection.probe.lift();
            if let Some(asked) = asked.filter(|_| switches(&response)) {
                return switch(response, &asked, connection, params.first_byte_timeout).await;
            }
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
            let error = classify(&failed.into_error(), pool, &connection, sending.as_deref());
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

fn switches(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS && response.version() == Version::HTTP_11
}

/// Takes the connection out of HTTP, when it switches to what was asked for.
async fn switch(
    mut response: Response<Incoming>,
    asked: &HeaderValue,
    connection: Connection,
    limit: Duration,
) -> Result<Response<Body>, Box<Failure>> {
    let switched = match granted(asked, response.headers()) {
        false => Err(UpstreamError::protocol("an upgrade to something else")),
        true => {
            let upgraded = hyper::upgrade::on(&mut response);
            let upgraded = tokio::time::timeout(limit, upgraded).await;
            upgraded
                .map_err(|_| UpstreamError::FirstByteTimeout)
                .and_then(|upgraded| upgraded.map_err(|_| UpstreamError::Closed))
        }
    };
    let slot = connection.into_slot();
    match switched {
        Ok(upgraded) => {
            let (mut head, _) = response.into_parts();
            head.extensions.clear();
            // It has no body (RFC 9110 §15.2.2).
            head.headers.remove(CONTENT_LENGTH);
            head.headers.remove(TRANSFER_ENCODING);
            let body = Body::switched(Switched::new(upgraded, slot));
            Ok(Response::from_parts(head, body))
        }
        Err(error) => Err(Box::new(Failure {
            error,
            unsent: None,
            unanswered: false,
            slot,
        })),
    }
}

/// Waits for `reply` until `limit` has passed since the last byte of the request was taken.
pub(crate) async fn wait<F: Future>(
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
    pool: &Pool,
    connection: &Connection,
    sending: Option<&Sending>,
) -> UpstreamError {
    if sending.is_some_and(|sending| sending.progress().failed) || error.is_body_write_aborted() {
        UpstreamError::ClientBody
    } else if connection.probe.overrun() {
        UpstreamError::protocol("interim responses without end")
    } else if let Some(failure) = connection.probe.failure() {
        pool.target().tell(&failure);
        UpstreamError::Tls(failure)
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
pub(crate) struct Framing {
    /// Bytes of the body, when declared; zero when there is none.
    pub(crate) length: Option<u64>,
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
pub(crate) fn framing(
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
    // other removed, the connection not used again (RFC 9112 §6.1). The same goes for a body that
    // is announced where none can be: it may follow, and would answer the next request.
    let no_content = status == StatusCode::NO_CONTENT;
    let bodied = chunked || length.is_some_and(|length| length > 0);
    let ambiguous = chunked && length.is_some() || no_content && bodied;
    if ambiguous || no_content {
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
    let kept = Kept::default();
    Request::from_parts(
        head,
        Outgoing::Body {
            body,
            sending,
            kept,
        },
    )
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
        /// Its beginning.
        kept: Kept,
    },
}

/// The beginning of a request body, for when it has to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What has been read of the body; nothing once that is too much.
    pieces: Vec<Bytes>,
    bytes: usize,
    /// How many of the pieces are to be read before the body is.
    ahead: usize,
    /// More was read than is kept.
    lost: bool,
}

impl Kept {
    fn keep(&mut self, piece: &Bytes) {
        self.bytes = self.bytes.saturating_add(piece.len());
        self.lost |= self.bytes > KEPT_BYTES_MAX || self.pieces.len() >= KEPT_PIECES_MAX;
        match self.lost {
            true => self.pieces.clear(),
            false => self.pieces.push(piece.clone()),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let place = self.pieces.len().checked_sub(self.ahead)?;
        let piece = self.pieces.get(place)?.clone();
        self.ahead = self.ahead.saturating_sub(1);
        Some(piece)
    }
}

impl Outgoing {
    /// Begins again; false when too much of it is gone.
    pub(crate) fn rewind(&mut self) -> bool {
        match self {
            Self::Empty => true,
            Self::Body { sending, kept, .. } => {
                kept.ahead = kept.pieces.len();
                !kept.lost && !sending.progress().failed
            }
        }
    }

    pub(crate) fn sending(&self) -> Option<Arc<Sending>> {
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
            Self::Body {
                body,
                sending,
                kept,
            } => {
                if let Some(piece) = kept.next() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                sending.progress().starved = true;
                let frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(piece) = frame.data_ref()
                {
                    kept.keep(piece);
                }
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
            Self::Body { body, kept, .. } => kept.ahead == 0 && body.is_end_stream(),
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

/// The beginning of a request body that is kept until there is a response, in bytes and pieces.
const KEPT_BYTES_MAX: usize = 64 * 1024;
const KEPT_PIECES_MAX: usize = 64;
/// Bytes of interim (1xx) responses before the final head. A reader of the body's first bytes may
/// be late, so it is larger than a read.
const INTERIM_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::super::Params;
    use super::super::Upstream;
    use super::super::script::*;
    use super::*;
    use http_body_util::Full;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use tokio::sync::Notify;

    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    fn hang() -> Vec<Act> {
        vec![Act::Hear(0), Act::Hang]
    }

    fn then_hang(mut acts: Vec<Act>) -> Vec<Act> {
        acts.push(Act::Hang);
        acts
    }

    /// The answer to a request of this method when the origin says `said` and closes.
    async fn answered(method: &str, said: &str) -> Result<Response<Body>, UpstreamError> {
        let origin = Origin::playing(vec![answer(said.to_owned())]).await;
        origin.upstream().exchange(0, request(method, "/")).await
    }

    async fn refused(said: &str) -> UpstreamError {
        answered("GET", said).await.err().unwrap()
    }

    fn is_protocol(error: &UpstreamError) -> bool {
        matches!(error, UpstreamError::Protocol(_))
    }

    struct Pieces(std::collections::VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// A body of these pieces, as the driver reads it.
    fn outgoing(pieces: Vec<Bytes>) -> Outgoing {
        let body = http_body_util::BodyExt::map_err(Pieces(pieces.into()), Into::into);
        Outgoing::Body {
            body: RequestBody::new(body),
            sending: Arc::new(Sending::new()),
            kept: Kept::default(),
        }
    }

    /// What `count` looks at a body give, or all of them.
    async fn looks(body: &mut Outgoing, count: usize) -> Vec<u8> {
        let mut read = Vec::new();
        for _ in 0..count {
            let Some(frame) = http_body_util::BodyExt::frame(body).await else {
                break;
            };
            read.extend(frame.unwrap().into_data().unwrap());
        }
        read
    }

    proptest! {
        #[test]
        fn a_body_that_begins_again_is_the_same(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 1..9),
            looked in prop::collection::vec(0_usize..9, 0..4),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = pieces.concat();
            let mut body = outgoing(pieces.into_iter().map(Bytes::from).collect());
            for count in looked {
                let part = runtime.block_on(looks(&mut body, count));
                prop_assert!(all.starts_with(&part));
                prop_assert!(body.rewind());
            }
            prop_assert_eq!(runtime.block_on(looks(&mut body, 99)), all);
        }
    }

    #[tokio::test]
    async fn a_body_begins_again_only_while_little_of_it_was_read() {
        let half = Bytes::from(vec![b'x'; KEPT_BYTES_MAX / 2]);
        let mut body = outgoing(vec![half.clone(), half.clone(), half]);
        looks(&mut body, 2).await;
        assert!(body.rewind());
        looks(&mut body, 3).await;
        assert!(!body.rewind());
        let mut body = outgoing(vec![Bytes::from("x"); KEPT_PIECES_MAX + 1]);
        looks(&mut body, KEPT_PIECES_MAX).await;
        assert!(body.rewind());
        looks(&mut body, KEPT_PIECES_MAX + 1).await;
        assert!(!body.rewind());
    }

    #[tokio::test]
    async fn a_response_arrives_with_its_fields_and_body() {
        let response = answered("GET", HELLO).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.body().length(), Some(5));
        assert!(response.body().framed());
        assert_eq!(read(response).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn repeated_fields_stay_repeated() {
        let said = "HTTP/1.1 204 No\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
        let response = answered("GET", said).await.unwrap();
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[tokio::test]
    async fn the_request_goes_out_in_origin_form_with_the_callers_host() {
        let origin = Origin::playing(vec![answer(HELLO)]).await;
        let mut sent = request("GET", "/a?b=c");
        *sent.version_mut() = Version::HTTP_2;
        origin.upstream().exchange(0, sent).await.unwrap();
        let (_, heard) = origin.heard().remove(0);
        assert_eq!(heard, "GET /a?b=c HTTP/1.1\r\nhost: t.test\r\n\r\n");
    }

    #[tokio::test]
    async fn a_body_of_known_length_goes_out_with_its_length() {
        let script = vec![Act::Hear(4), Act::Say(Bytes::from(HELLO))];
        let origin = Origin::playing(vec![script]).await;
        let mut sent = with_body("POST", "/", Full::new(Bytes::from("body")));
        let headers = sent.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(9));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
        origin.upstream().exchange(0, sent).await.unwrap();
        let (_, heard) = origin.heard().remove(0);
        assert!(heard.ends_with("content-length: 4\r\n\r\nbody"), "{heard}");
        assert!(!heard.contains("transfer-encoding"), "{heard}");
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_goes_out_in_chunks_even_with_get() {
        let script = vec![Act::Hear(14), Act::Say(Bytes::from(HELLO))];
        let origin = Origin::playing(vec![script]).await;
        let piece = async { Ok::<_, Infallible>(Frame::data(Bytes::from("body"))) };
        let sent = with_body("GET", "/", one_by_one(vec![piece]));
        let response = origin.upstream().exchange(0, sent).await.unwrap();
        assert_eq!(read(response).await.unwrap(), "hello");
        let (_, heard) = origin.heard().remove(0);
        assert!(
            heard.ends_with("chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            "{heard}"
        );
    }

    #[tokio::test]
    async fn an_empty_post_says_that_it_is_empty() {
        let origin = Origin::playing(vec![answer(HELLO)]).await;
        let sent = request("POST", "/");
        origin.upstream().exchange(0, sent).await.unwrap();
        assert!(origin.heard()[0].1.contains("content-length: 0\r\n"));
    }

    #[tokio::test]
    async fn two_hundred_interim_responses_are_swallowed() {
        let said = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(200) + HELLO;
        let response = answered("GET", &said).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(read(response).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_storm_of_interim_responses_is_bounded() {
        let storm = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(50_000) + HELLO;
        let error = refused(&storm).await;
        assert_eq!(
            error,
            UpstreamError::protocol("interim responses without end")
        );
    }

    #[tokio::test]
    async fn a_body_larger_than_the_bound_on_interim_responses_passes() {
        let body = vec![b'a'; 3 << 20];
        let mut said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        said.push_str(std::str::from_utf8(&body).unwrap());
        let response = answered("GET", &said).await.unwrap();
        assert_eq!(read(response).await.unwrap().len(), body.len());
    }

    #[tokio::test]
    async fn an_unsolicited_upgrade_breaks_the_protocol() {
        let said = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        assert!(is_protocol(&refused(said).await));
    }

    #[tokio::test]
    async fn a_length_beside_chunks_is_removed_and_the_connection_closed() {
        let said = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5\r\nhello\r\n0\r\n\r\n";
        let closed = Arc::new(Notify::new());
        let mut script = answer(said);
        script.push(Act::Farewell(Arc::clone(&closed)));
        let origin = Origin::playing(vec![script, answer(HELLO)]).await;
        let upstream = origin.upstream();
        let response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(response.body().length(), None);
        assert!(response.body().framed());
        assert_eq!(read(response).await.unwrap(), "hello");
        closed.notified().await;
        get(&upstream, "/").await.unwrap();
        assert_eq!(origin.connections(), [0, 1]);
    }

    #[tokio::test]
    async fn equal_lengths_become_one() {
        for lengths in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello");
            let response = answered("GET", &said).await.unwrap();
            let stated: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(stated, ["5"]);
            assert_eq!(read(response).await.unwrap(), "hello");
        }
    }

    #[tokio::test]
    async fn lengths_that_differ_or_mean_nothing_break_the_protocol() {
        for lengths in [
            "Content-Length: 5\r\nContent-Length: 9",
            "Content-Length: 5, 9",
            "Content-Length: 99999999999999999999999",
            "Content-Length: +5",
            "Content-Length: ",
            "Content-Length: five",
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhelloEVIL");
            assert!(is_protocol(&refused(&said).await), "{lengths}");
        }
    }

    #[tokio::test]
    async fn a_transfer_coding_other_than_chunked_breaks_the_protocol() {
        for coding in ["blegh", "gzip, chunked", "chunked, chunked", "identity"] {
            let said = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\nhello");
            assert!(is_protocol(&refused(&said).await), "{coding}");
        }
        let twice = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n";
        assert!(is_protocol(
            &refused(&format!("{twice}\r\n0\r\n\r\n")).await
        ));
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(is_protocol(&refused(old).await));
    }

    #[tokio::test]
    async fn a_status_line_that_is_none_breaks_the_protocol() {
        for said in [
            "GARBAGE\r\n\r\nhello",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 abc OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 000 OK\r\n\r\n",
        ] {
            let error = refused(said).await;
            assert!(is_protocol(&error), "{said}: {error}");
        }
    }

    #[tokio::test]
    async fn folded_fields_and_blanks_before_colons_break_the_protocol() {
        for field in [
            "X-A: a\r\n b",
            "Content-Length : 5",
            "X-A: a\0b",
            "X-A: a\rb",
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 5\r\n\r\nhello");
            assert!(is_protocol(&refused(&said).await), "{field:?}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused_as_such() {
        let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(5000));
        assert_eq!(refused(&long).await, UpstreamError::HeadTooLarge);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: a\r\n".repeat(21));
        assert_eq!(refused(&many).await, UpstreamError::HeadTooLarge);
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "X-A: a\r\n".repeat(5_000));
        assert_eq!(refused(&endless).await, UpstreamError::HeadTooLarge);
    }

    #[tokio::test]
    async fn a_head_just_within_the_bounds_passes() {
        let many = format!("HTTP/1.1 204 No\r\n{}\r\n", "X-A: a\r\n".repeat(20));
        assert!(answered("GET", &many).await.is_ok());
    }

    #[tokio::test]
    async fn responses_without_a_body_end_at_their_head() {
        for (method, said) in [
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            (
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            ),
            (
                "GET",
                "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            ),
        ] {
            let origin = Origin::playing(vec![
                [answer(said), answer(HELLO), vec![Act::Hang]].concat(),
            ])
            .await;
            let upstream = origin.upstream();
            let response = upstream.exchange(0, request(method, "/")).await.unwrap();
            assert_eq!(response.body().length(), Some(0), "{said}");
            assert!(response.body().framed());
            assert!(response.body().is_end_stream());
            let kept = response.headers().contains_key(CONTENT_LENGTH);
            assert_eq!(kept, response.status() != 204, "{said}");
            assert_eq!(get(&upstream, "/").await.unwrap(), "hello");
            assert_eq!(origin.connections(), [0, 0], "{said}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_closed_after_no_content_that_announces_some() {
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let said = format!("HTTP/1.1 204 No Content\r\n{framing}\r\n\r\n");
            let first = [answer(said), answer("HTTP/1.1 200 OK\r\n\r\nEVIL")].concat();
            let origin = Origin::playing(vec![first, answer(HELLO)]).await;
            let upstream = origin.upstream();
            assert_eq!(get(&upstream, "/1").await.unwrap(), "");
            assert_eq!(get(&upstream, "/2").await.unwrap(), "hello", "{framing}");
            assert_eq!(origin.connections(), [0, 1], "{framing}");
        }
    }

    #[tokio::test]
    async fn a_body_may_end_with_its_connection_and_is_then_unproven() {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let said = format!("{version} 200 OK\r\n\r\nhello");
            let response = answered("GET", &said).await.unwrap();
            assert!(!response.body().framed());
            assert_eq!(response.body().length(), None);
            assert_eq!(read(response).await.unwrap(), "hello");
        }
    }

    #[tokio::test]
    async fn a_close_without_an_answer_is_told() {
        assert_eq!(refused("").await, UpstreamError::Closed);
        assert_eq!(
            refused("HTTP/1.1 200 OK\r\nX-").await,
            UpstreamError::Closed
        );
        let origin = Origin::playing(vec![vec![Act::Hear(0), Act::Reset]]).await;
        let error = get(&origin.upstream(), "/").await.unwrap_err();
        assert_eq!(error, UpstreamError::Closed);
    }

    #[tokio::test]
    async fn a_reused_connection_that_closes_under_a_get_is_replaced_once() {
        let first = [answer(HELLO), vec![Act::Hear(0)]].concat();
        let origin = Origin::playing(vec![first, answer(HELLO)]).await;
        let upstream = origin.upstream();
        get(&upstream, "/1").await.unwrap();
        assert_eq!(get(&upstream, "/2").await.unwrap(), "hello");
        assert_eq!(origin.connections(), [0, 0, 1]);
    }

    #[tokio::test]
    async fn a_new_connection_that_closes_is_not_replaced() {
        let origin = Origin::playing(vec![vec![Act::Hear(0)], answer(HELLO)]).await;
        let error = get(&origin.upstream(), "/").await.unwrap_err();
        assert_eq!(error, UpstreamError::Closed);
        assert_eq!(origin.connections(), [0]);
    }

    #[tokio::test]
    async fn a_post_on_a_connection_that_closes_is_not_sent_twice() {
        let first = [answer(HELLO), vec![Act::Hear(0)]].concat();
        let origin = Origin::playing(vec![first, answer(HELLO)]).await;
        let upstream = origin.upstream();
        get(&upstream, "/1").await.unwrap();
        let error = upstream.exchange(0, request("POST", "/2")).await.err();
        assert_eq!(error, Some(UpstreamError::Closed));
        assert_eq!(origin.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn a_get_that_was_partly_answered_is_not_sent_twice() {
        let part = vec![Act::Hear(0), Act::Say(Bytes::from("HTTP/1.1 2"))];
        let first = [answer(HELLO), part].concat();
        let origin = Origin::playing(vec![first, answer(HELLO)]).await;
        let upstream = origin.upstream();
        get(&upstream, "/1").await.unwrap();
        let error = get(&upstream, "/2").await.unwrap_err();
        assert_eq!(error, UpstreamError::Closed);
        assert_eq!(origin.connections(), [0, 0]);
    }

    #[tokio::test]
    async fn an_origin_that_never_answers_times_out() {
        let closed = Arc::new(Notify::new());
        let script = vec![Act::Hear(0), Act::Farewell(Arc::clone(&closed))];
        let origin = Origin::playing(vec![script]).await;
        let error = get(&impatient(&origin), "/").await.unwrap_err();
        assert_eq!(error, UpstreamError::FirstByteTimeout);
        closed.notified().await;
    }

    #[tokio::test]
    async fn interim_responses_do_not_extend_the_time() {
        let hint = Act::Say(Bytes::from("HTTP/1.1 103 Early Hints\r\n\r\n"));
        let origin = Origin::playing(vec![vec![Act::Hear(0), hint, Act::Hang]]).await;
        let error = get(&impatient(&origin), "/").await.unwrap_err();
        assert_eq!(error, UpstreamError::FirstByteTimeout);
    }

    #[tokio::test]
    async fn the_time_to_answer_begins_with_the_bodys_last_piece() {
        let origin = Origin::playing(vec![hang()]).await;
        let pieces = (0..6).map(|_| async {
            tokio::time::sleep(IMPATIENCE / 2).await; // waits because the pieces come slowly
            Ok::<_, Infallible>(Frame::data(Bytes::from("piece")))
        });
        let sent = with_body("POST", "/", one_by_one(pieces.collect()));
        let began = Instant::now();
        let error = impatient(&origin).exchange(0, sent).await.err();
        assert_eq!(error, Some(UpstreamError::FirstByteTimeout));
        assert!(began.elapsed() >= IMPATIENCE * 4);
    }

    #[tokio::test]
    async fn a_client_that_stalls_its_body_is_to_blame_itself() {
        let origin = Origin::playing(vec![hang()]).await;
        let sent = with_body("POST", "/", stalled());
        let error = impatient(&origin).exchange(0, sent).await.err();
        assert_eq!(error, Some(UpstreamError::ClientBody));
    }

    #[tokio::test]
    async fn a_client_body_that_fails_is_told_and_closes_the_connection() {
        let closed = Arc::new(Notify::new());
        let script = vec![Act::Farewell(Arc::clone(&closed))];
        let origin = Origin::playing(vec![script]).await;
        let failing = one_by_one(vec![async { Err::<Frame<Bytes>, _>("gone") }]);
        let sent = with_body("POST", "/", failing);
        let error = origin.upstream().exchange(0, sent).await.err();
        assert_eq!(error, Some(UpstreamError::ClientBody));
        closed.notified().await;
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_body_is_taken() {
        let said = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
        let origin = Origin::playing(vec![then_hang(answer(said))]).await;
        let sent = with_body("POST", "/", stalled());
        let response = origin.upstream().exchange(0, sent).await.unwrap();
        assert_eq!(response.status(), 413);
    }

    #[tokio::test]
    async fn dropping_the_exchange_closes_the_connection() {
        let asked = Arc::new(Notify::new());
        let closed = Arc::new(Notify::new());
        let script = vec![
            Act::Hear(0),
            Act::Tell(Arc::clone(&asked)),
            Act::Farewell(Arc::clone(&closed)),
        ];
        let origin = Origin::playing(vec![script]).await;
        let upstream = origin.upstream();
        tokio::select! {
            _ = upstream.exchange(0, request("GET", "/")) => unreachable!(),
            () = asked.notified() => {}
        }
        closed.notified().await;
    }

    /// How long the tests of time limits wait.
    const IMPATIENCE: Duration = Duration::from_millis(300);

    fn impatient(origin: &Origin) -> Upstream {
        Upstream::new(Params {
            first_byte_timeout: IMPATIENCE,
            ..origin.params()
        })
    }

    fn stalled() -> OneByOne<impl Future<Output = Result<Frame<Bytes>, Infallible>>> {
        one_by_one(vec![std::future::pending()])
    }

    /// Yields the outputs of futures, one after the other.
    fn one_by_one<F: Future>(futures: Vec<F>) -> OneByOne<F> {
        OneByOne(futures.into_iter().rev().map(Box::pin).collect())
    }

    struct OneByOne<F>(Vec<Pin<Box<F>>>);

    impl<F: Future<Output = Result<Frame<Bytes>, E>>, E> http_body::Body for OneByOne<F> {
        type Data = Bytes;
        type Error = E;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
            let Some(next) = self.0.last_mut() else {
                return Poll::Ready(None);
            };
            let frame = ready!(next.as_mut().poll(context));
            self.0.pop();
            Poll::Ready(Some(frame))
        }
    }

    proptest! {
        #[test]
        fn any_framing_fields_are_judged_without_panic(
            lengths in prop::collection::vec("[0-9 ,+a]{0,12}", 0..3),
            codings in prop::collection::vec("(chunked|gzip|[ ,a]{0,3})", 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for length in &lengths {
                headers.append(CONTENT_LENGTH, HeaderValue::from_str(length).unwrap());
            }
            for coding in &codings {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_str(coding).unwrap());
            }
            let judged = framing(&Method::GET, StatusCode::OK, Version::HTTP_11, &mut headers);
            if let Ok(framing) = judged {
                let stated = headers.get_all(CONTENT_LENGTH).iter().count()
                    + headers.get_all(TRANSFER_ENCODING).iter().count();
                prop_assert!(stated <= 1);
                prop_assert_eq!(framing.proven, stated == 1);
            }
        }
    }
}
