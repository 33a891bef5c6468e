//! A response body on its way from an origin.
//!
//! Whatever the origin is, the body ends well only when it is complete: every byte of a declared
//! length, the last chunk, or, for a body delimited by closing, the end of the connection. A
//! connection goes back to its pool the moment its body ends well, even when the reader does not
//! ask for the end after the last byte; it is closed in every other case. Trailers are no part of
//! it: they are read and forgotten.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::UpstreamError;
use super::file::Reader;
use super::pool::Connection;
use super::pool::Lease;
use super::pool::Pool;
use super::stream;
use super::stream::Uploading;
use super::switched::Switched;

/// A response body from an origin; returns its connection to the pool when it ends well.
///
/// Data frames from HTTP origins are slices of the connection's read buffer, of 8 to 256 KiB: a
/// holder of a small frame keeps the whole buffer.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    length: Option<u64>,
    framed: bool,
}

#[derive(Debug)]
enum Kind {
    /// Nothing more to come.
    Ended,
    Bytes(Bytes),
    File(Reader),
    Http(Box<Transfer>),
    /// Nothing, and then a connection.
    Switched(Box<Switched>),
}

impl Body {
    /// The body's length when the origin declared it; zero for a response that has no body, such
    /// as one to HEAD, whatever its Content-Length says.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Completeness can be proven: length or chunked framing, not close-delimited.
    pub fn framed(&self) -> bool {
        self.framed
    }

    /// A body without a byte.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Ended,
            length: Some(0),
            framed: true,
        }
    }

    /// No body, and what a 101 leaves of the connection.
    pub(crate) fn switched(switched: Switched) -> Self {
        Self {
            kind: Kind::Switched(Box::new(switched)),
            ..Self::empty()
        }
    }

    /// Takes out the connection that a 101 has switched to what was asked for.
    pub fn take_switched(&mut self) -> Option<Switched> {
        if !matches!(self.kind, Kind::Switched(_)) {
            return None;
        }
        let Kind::Switched(switched) = std::mem::replace(&mut self.kind, Kind::Ended) else {
            return None;
        };
        Some(*switched)
    }

    /// A body that is in memory.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self {
            length: u64::try_from(bytes.len()).ok(),
            kind: Kind::Bytes(bytes),
            framed: true,
        }
    }

    /// A body that is read from a file.
    pub(crate) fn file(reader: Reader) -> Self {
        Self {
            length: Some(reader.remaining()),
            kind: Kind::File(reader),
            framed: true,
        }
    }

    /// A body that arrives on a connection.
    pub(crate) fn http(mut transfer: Transfer, framed: bool) -> Self {
        let length = transfer.remaining;
        let ended = length == Some(0) || transfer.source.is_over();
        if ended {
            transfer.complete();
        }
        Self {
            kind: if ended {
                Kind::Ended
            } else {
                Kind::Http(Box::new(transfer))
            },
            length,
            framed,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let polled = match &mut self.kind {
            Kind::Ended | Kind::Switched(_) => return Poll::Ready(None),
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::File(reader) => reader.poll_frame(context),
            Kind::Http(transfer) => transfer.poll_frame(context),
        };
        let over = match &self.kind {
            Kind::Ended | Kind::Bytes(_) | Kind::Switched(_) => true,
            Kind::File(reader) => reader.remaining() == 0,
            Kind::Http(transfer) => transfer.hold.is_none(),
        };
        if over || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.kind = Kind::Ended;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Ended | Kind::Switched(_) => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::File(_) | Kind::Http(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match &self.kind {
            Kind::Ended | Kind::Switched(_) => Some(0),
            Kind::Bytes(bytes) => u64::try_from(bytes.len()).ok(),
            Kind::File(reader) => Some(reader.remaining()),
            Kind::Http(transfer) => transfer.remaining,
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A body that is being received, and the connection it comes on.
#[derive(Debug)]
pub(crate) struct Transfer {
    source: Source,
    /// Bytes still to come, when a length was declared.
    remaining: Option<u64>,
    /// None when the body has ended well.
    hold: Option<Hold>,
    limit: Duration,
    /// Since when nothing has come although it was asked for.
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    Http1(Incoming),
    Http2(RecvStream),
}

/// What a body keeps for itself until it has ended.
#[derive(Debug)]
enum Hold {
    /// A connection and, when it may be used again, where it goes.
    Connection(Connection, Option<Arc<Pool>>),
    /// A stream, and the rest of the request.
    Stream {
        _lease: Lease,
        _upload: Option<Uploading>,
    },
}

impl Source {
    /// The next bytes; `remaining` of them are still to come, when a length was declared.
    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        remaining: Option<u64>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        match self {
            Self::Http1(incoming) => loop {
                match ready!(http_body::Body::poll_frame(Pin::new(incoming), context)) {
                    // Trailer fields may be discarded, and must not be taken for header fields
                    // (RFC 9110 §6.5.1): nobody behind here could use them.
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                        Err(_trailers) => {}
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error)))),
                    None => return Poll::Ready(None),
                }
            },
            Self::Http2(incoming) => match ready!(incoming.poll_data(context)) {
                Some(Ok(bytes)) => {
                    // Read is read: the backend may send as much again. An error means that the
                    // stream is over, which the next look finds.
                    let _released = incoming.flow_control().release_capacity(bytes.len());
                    Poll::Ready(Some(Ok(bytes)))
                }
                // The whole response came before the request was sent, and the rest of that is not
                // wanted (RFC 9113 §8.1). Only a length tells this from a cut.
                Some(Err(error)) if remaining == Some(0) && stream::is_stop(&error) => {
                    Poll::Ready(None)
                }
                Some(Err(error)) => Poll::Ready(Some(Err(stream::broken(&error)))),
                None => Poll::Ready(None),
            },
        }
    }

    /// Nothing more comes, not even an end.
    fn is_over(&self) -> bool {
        match self {
            Self::Http1(incoming) => http_body::Body::is_end_stream(incoming),
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }
}

impl Transfer {
    /// `remaining` is the declared length; `home` is where the connection goes when the body has
    /// ended well, unless it must be closed; `limit` bounds the wait for the next bytes.
    pub(crate) fn new(
        incoming: Incoming,
        remaining: Option<u64>,
        connection: Connection,
        home: Option<Arc<Pool>>,
        limit: Duration,
    ) -> Self {
        Self {
            source: Source::Http1(incoming),
            remaining,
            hold: Some(Hold::Connection(connection, home)),
            limit,
            waiting_since: None,
            timer: None,
        }
    }

    /// The same for a body on a stream of HTTP/2, which is given back when the body ends, and reset
    /// when that is early.
    pub(crate) fn stream(
        incoming: RecvStream,
        remaining: Option<u64>,
        lease: Lease,
        uploading: Option<Uploading>,
        limit: Duration,
    ) -> Self {
        Self {
            source: Source::Http2(incoming),
            remaining,
            hold: Some(Hold::Stream {
                _lease: lease,
                _upload: uploading,
            }),
            limit,
            waiting_since: None,
            timer: None,
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self.source.poll_data(context, self.remaining) {
            Poll::Pending => self.poll_stalled(context).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(bytes))) => {
                self.waiting_since = None;
                Poll::Ready(Some(self.count(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) if self.remaining.unwrap_or(0) > 0 => {
                Poll::Ready(Some(Err(UpstreamError::Incomplete)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn count(&mut self, bytes: Bytes) -> Result<Frame<Bytes>, UpstreamError> {
        if let Some(remaining) = self.remaining {
            let left = u64::try_from(bytes.len())
                .ok()
                .and_then(|bytes| remaining.checked_sub(bytes));
            let Some(left) = left else {
                return Err(UpstreamError::protocol("more bytes than the length"));
            };
            self.remaining = Some(left);
        }
        // On HTTP/1.1 what follows the length is the next message's. On a stream of HTTP/2 it would
        // be this one's, and too much: the end has to be seen.
        let ended = match self.source {
            Source::Http1(_) => self.remaining == Some(0),
            Source::Http2(_) => self.remaining.unwrap_or(0) == 0 && self.source.is_over(),
        };
        if ended {
            self.complete();
        }
        Ok(Frame::data(bytes))
    }

    /// The timer is made when a wait begins and moved only when it rings too early, so a body
    /// that flows never touches the timer wheel.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<UpstreamError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(UpstreamError::BetweenBytesTimeout);
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Gives the connection back, or closes it when it is to be used no more.
    fn complete(&mut self) {
        if let Some(Hold::Connection(connection, Some(home))) = self.hold.take() {
            home.give_back(connection);
        }
    }
}

/// Tells nonsense from an early end.
fn broken(error: &hyper::Error) -> UpstreamError {
    let kind = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            UpstreamError::protocol("malformed chunk")
        }
        _ => UpstreamError::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Params;
    use super::super::Upstream;
    use super::super::script::*;
    use super::*;
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use tokio::sync::Notify;

    const HEAD: &str = "HTTP/1.1 200 OK\r\n";

    /// What reading the body comes to when the origin says this and closes.
    async fn received(fields: &str, body: &str) -> Result<Bytes, UpstreamError> {
        let said = format!("{HEAD}{fields}\r\n\r\n{body}");
        let origin = Origin::playing(vec![answer(said)]).await;
        get(&origin.upstream(), "/").await
    }

    #[tokio::test]
    async fn a_body_shorter_than_its_length_is_incomplete() {
        for body in ["", "hell"] {
            let received = received("Content-Length: 5", body).await;
            assert_eq!(received, Err(UpstreamError::Incomplete), "{body}");
        }
    }

    #[tokio::test]
    async fn a_chunked_body_cut_anywhere_is_incomplete() {
        let whole = "5\r\nhello\r\n0\r\n\r\n";
        for cut in 0..whole.len() {
            let part = whole.get(..cut).unwrap();
            let received = received("Transfer-Encoding: chunked", part).await;
            assert_eq!(received, Err(UpstreamError::Incomplete), "{part:?}");
        }
        let received = received("Transfer-Encoding: chunked", whole).await;
        assert_eq!(received.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_chunk_without_a_size_breaks_the_protocol() {
        let received = received("Transfer-Encoding: chunked", "zz\r\nhello\r\n0\r\n\r\n").await;
        assert!(matches!(received, Err(UpstreamError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_reset_connection_makes_the_body_incomplete() {
        let read_on = Arc::new(Notify::new());
        let script = vec![
            Act::Hear(0),
            Act::Say(Bytes::from(format!("{HEAD}\r\nhello"))),
            Act::Await(Arc::clone(&read_on)),
            Act::Reset,
        ];
        let origin = Origin::playing(vec![script]).await;
        let upstream = origin.upstream();
        let mut response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        read_on.notify_one();
        assert_eq!(read(response).await, Err(UpstreamError::Incomplete));
    }

    #[tokio::test]
    async fn trailers_are_read_and_forgotten() {
        let said =
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
        let script = [
            answer(said),
            answer(format!("{HEAD}Content-Length: 2\r\n\r\nok")),
        ];
        let origin = Origin::playing(vec![script.concat()]).await;
        let upstream = origin.upstream();
        let response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers(), None);
        assert_eq!(collected.to_bytes(), "hello");
        // They were all of the message: its connection carries the next one.
        let response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        assert_eq!(read(response).await.unwrap(), "ok");
    }

    #[tokio::test]
    async fn trailers_without_end_cut_the_body() {
        let trailers = "X-Sum: 1\r\n".repeat(10_000);
        let said =
            format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n");
        let origin = Origin::playing(vec![answer(said)]).await;
        let upstream = origin.upstream();
        let response = upstream.exchange(0, request("GET", "/")).await.unwrap();
        assert!(read(response).await.is_err());
    }

    #[tokio::test]
    async fn the_size_hint_counts_down_to_the_end() {
        let said = format!("{HEAD}Content-Length: 5\r\n\r\nhello");
        let origin = Origin::playing(vec![answer(said)]).await;
        let upstream = origin.upstream();
        let mut body = upstream
            .exchange(0, request("GET", "/"))
            .await
            .unwrap()
            .into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
        assert_eq!(body.length(), Some(5));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_stalls_times_out_and_closes_the_connection() {
        let closed = Arc::new(Notify::new());
        let script = vec![
            Act::Hear(0),
            Act::Say(Bytes::from(format!("{HEAD}Content-Length: 9\r\n\r\nhell"))),
            Act::Farewell(Arc::clone(&closed)),
        ];
        let origin = Origin::playing(vec![script]).await;
        let upstream = Upstream::new(Params {
            between_bytes_timeout: Duration::from_millis(30),
            ..origin.params()
        });
        let received = get(&upstream, "/").await;
        assert_eq!(received, Err(UpstreamError::BetweenBytesTimeout));
        closed.notified().await;
    }

    #[tokio::test]
    async fn a_body_that_drips_may_take_longer_than_the_limit() {
        let told: Vec<_> = (0..4).map(|_| Arc::new(Notify::new())).collect();
        let mut script = vec![
            Act::Hear(0),
            Act::Say(Bytes::from(format!("{HEAD}Content-Length: 4\r\n\r\n"))),
        ];
        for notify in &told {
            script.extend([Act::Await(Arc::clone(notify)), Act::Say(Bytes::from("x"))]);
        }
        let origin = Origin::playing(vec![script]).await;
        let limit = Duration::from_secs(1);
        let upstream = Upstream::new(Params {
            between_bytes_timeout: limit,
            ..origin.params()
        });
        let dripping = async {
            for notify in &told {
                tokio::time::sleep(limit / 2).await; // waits because it drips
                notify.notify_one();
            }
        };
        let (received, ()) = tokio::join!(get(&upstream, "/"), dripping);
        assert_eq!(received.unwrap(), "xxxx");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_closes_the_connection() {
        let closed = Arc::new(Notify::new());
        let script = vec![
            Act::Hear(0),
            Act::Say(Bytes::from(format!("{HEAD}Content-Length: 9\r\n\r\nhell"))),
            Act::Farewell(Arc::clone(&closed)),
        ];
        let origin = Origin::playing(vec![script]).await;
        let upstream = origin.upstream();
        drop(upstream.exchange(0, request("GET", "/")).await.unwrap());
        closed.notified().await;
    }
}
