//! A response body on its way from an origin.
//!
//! Whatever the origin is, the body ends well only when it is complete: every byte of a declared
//! length, the last chunk, or, for a body delimited by closing, the end of the connection. A
//! connection goes back to its pool the moment its body ends well, even when the reader does not
//! ask for the end after the last byte; it is closed in every other case.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::UpstreamError;
use super::file::Reader;
use super::pool::Connection;
use super::pool::Pool;

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
        let ended = length == Some(0) || http_body::Body::is_end_stream(&transfer.incoming);
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
            Kind::Ended => return Poll::Ready(None),
            Kind::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::File(reader) => reader.poll_frame(context),
            Kind::Http(transfer) => transfer.poll_frame(context),
        };
        let over = match &self.kind {
            Kind::Ended | Kind::Bytes(_) => true,
            Kind::File(reader) => reader.remaining() == 0,
            Kind::Http(transfer) => transfer.lease.is_none(),
        };
        if over || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.kind = Kind::Ended;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Ended => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::File(_) | Kind::Http(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match &self.kind {
            Kind::Ended => Some(0),
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
    incoming: Incoming,
    /// Bytes still to come, when a length was declared.
    remaining: Option<u64>,
    /// The connection and, when it may be used again, where to.
    lease: Option<(Connection, Option<Arc<Pool>>)>,
    limit: Duration,
    /// Since when nothing has come although it was asked for.
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
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
            incoming,
            remaining,
            lease: Some((connection, home)),
            limit,
            waiting_since: None,
            timer: None,
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match http_body::Body::poll_frame(Pin::new(&mut self.incoming), context) {
            Poll::Pending => self.poll_stalled(context).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting_since = None;
                Poll::Ready(Some(self.count(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(&error)))),
            Poll::Ready(None) if self.remaining.unwrap_or(0) > 0 => {
                Poll::Ready(Some(Err(UpstreamError::Incomplete)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UpstreamError> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if let Some(remaining) = self.remaining {
            let left = u64::try_from(bytes)
                .ok()
                .and_then(|bytes| remaining.checked_sub(bytes));
            let Some(left) = left else {
                return Err(UpstreamError::protocol("more bytes than the length"));
            };
            self.remaining = Some(left);
            if left == 0 {
                self.complete();
            }
        }
        Ok(frame)
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
        if let Some((connection, Some(home))) = self.lease.take() {
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
