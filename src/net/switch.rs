//! A connection that stops being HTTP's: what a handler has done with it after its 101.
//!
//! From a response that bears a [`Switch`] among its extensions; hyper has then said the 101 and
//! let go of the connection. What is spoken on it, and for how long, is the switch's owner's: here
//! it only goes on, with what the client said meanwhile, until it ends or the server stops.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;

use bytes::Buf;
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::net::io::Carrier;
use crate::net::io::ClientIo;
use crate::net::io::Reply;

type Run = Box<dyn FnOnce(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a connection is for after a 101: put among that response's extensions. What it holds is
/// dropped when the response does not go out.
#[derive(Clone)]
pub struct Switch(Arc<Mutex<Option<Run>>>);

impl Switch {
    /// Has `run` speak on the connection.
    pub fn new<F>(run: impl FnOnce(Stream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|stream| {
            Box::pin(run(stream))
        })))))
    }

    /// Speaks to the end. Dropping this half-way cuts the connection.
    pub(super) async fn run(self, stream: Stream) {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = run {
            run(stream).await;
        }
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Switch")
    }
}

/// A client's connection that is no longer HTTP's. Reads have no timeout, writes have the usual
/// one; dropped before it was shut down it resets.
pub struct Stream {
    /// What the client said before it knew of the switch.
    ahead: Bytes,
    io: Box<dyn Duplex>,
    /// Keeps the clocks of HTTP from running.
    _reply: Reply,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: Carrier> Duplex for ClientIo<C> {}

impl Stream {
    pub(super) fn new<C: Carrier + 'static>(io: ClientIo<C>, ahead: Bytes) -> Self {
        Self {
            ahead,
            _reply: io.progress().reply(),
            io: Box::new(io),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let taken = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
