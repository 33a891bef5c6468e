//! A request's body as handlers see it, whichever version of HTTP brings it.
//!
//! Adds one thing to what hyper and `h2` deliver: an end to waiting for a client that sends nothing.
//! What a body may be (its length, its trailers) is asked by whoever reads it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::net::Event;
use crate::net::io::Progress;
use crate::net::io::Timer;

/// An error of any kind, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body: fails when the client is silent for longer than
/// [`Params::body_read_timeout`](crate::net::Params) while it is waited for.
///
/// That failure is a [`std::io::Error`] of kind `TimedOut`; every other one is the client's
/// breaking off or breaking the protocol. After either the connection (HTTP/1) or the stream
/// (HTTP/2) ends with the response.
pub struct RequestBody {
    source: Source,
    timeout: Duration,
    timer: Timer,
    waiting: bool,
}

enum Source {
    /// The last frame was read, or there was an error.
    Ended,
    Http1(Incoming, Arc<Progress>),
    Http2(Stream),
}

/// A body on its way over HTTP/2.
struct Stream {
    stream: RecvStream,
    /// Bytes left by Content-Length, which `h2` has the client keep to (RFC 9113 §8.1.1).
    left: Option<u64>,
    /// All of it was read; what may follow is trailers.
    read: bool,
    /// Asks for `100 Continue`, if the client waits for that.
    go_on: Option<oneshot::Sender<()>>,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl RequestBody {
    pub(super) fn http1(incoming: Incoming, timeout: Duration, progress: &Arc<Progress>) -> Self {
        Self::new(
            timeout,
            match incoming.is_end_stream() {
                true => Source::Ended,
                false => Source::Http1(incoming, Arc::clone(progress)),
            },
        )
    }

    /// There is none.
    pub(super) fn none() -> Self {
        Self::new(Duration::ZERO, Source::Ended)
    }

    /// `go_on` is told when the body is first waited for. A body that comes too late is told to
    /// `events`.
    pub(super) fn http2(
        stream: RecvStream,
        length: Option<u64>,
        go_on: Option<oneshot::Sender<()>>,
        timeout: Duration,
        events: &Arc<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Self::new(
            timeout,
            match stream.is_end_stream() {
                true => Source::Ended,
                false => Source::Http2(Stream {
                    stream,
                    left: length,
                    read: false,
                    go_on,
                    events: Arc::clone(events),
                }),
            },
        )
    }

    fn new(timeout: Duration, source: Source) -> Self {
        Self {
            source,
            timeout,
            timer: Timer::default(),
            waiting: false,
        }
    }

    /// Gives the body up before its end.
    fn leave(&mut self) {
        if let Source::Http1(_, progress) = &self.source {
            progress.leave_body_unread();
        }
        self.source = Source::Ended;
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Ended => Poll::Ready(None),
            Self::Http1(incoming, _) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Self::Http2(stream) => stream.poll(cx),
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.read {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // What the handler took may come again: a handler that takes nothing holds
                    // back its own stream, by its window.
                    self.stream.flow_control().release_capacity(bytes.len())?;
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(bytes.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.read = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = this.source.poll(cx) {
            this.waiting = false;
            match &frame {
                Some(Ok(_)) => {}
                Some(Err(_)) => this.leave(),
                None => this.source = Source::Ended,
            }
            return Poll::Ready(frame);
        }
        if !this.waiting {
            this.waiting = true;
            this.timer.start(this.timeout);
            if let Source::Http2(stream) = &mut this.source
                && let Some(go_on) = stream.go_on.take()
                && go_on.send(()).is_err()
            {
                tracing::debug!("a stream ended while its body was waited for");
            }
        }
        ready!(this.timer.poll(cx));
        match &this.source {
            Source::Ended => {}
            Source::Http1(_, progress) => progress.body_came_late(),
            Source::Http2(stream) => (stream.events)(Event::RequestTimeout),
        }
        this.source = Source::Ended;
        let late = io::Error::new(io::ErrorKind::TimedOut, "the client sends no body");
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ended => true,
            Source::Http1(incoming, _) => incoming.is_end_stream(),
            Source::Http2(stream) => stream.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Http1(incoming, _) => incoming.size_hint(),
            Source::Http2(stream) => stream
                .left
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.leave();
        }
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.source {
            Source::Ended => "RequestBody(ended)",
            Source::Http1(..) => "RequestBody(HTTP/1)",
            Source::Http2(_) => "RequestBody(HTTP/2)",
        })
    }
}
