//! One stream of HTTP/2 as a connection: DATA both ways, END_STREAM as the end (RFC 8441 §5).
//!
//! From a stream whose request asked for a tunnel and whose response granted it. Flow control is
//! the client's and the reader's: what was not read holds back its own stream.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::SendStream;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::net::io::Timer;

/// A stream that carries another protocol. Dropped before it was shut down it is reset.
pub(super) struct Duplex {
    incoming: RecvStream,
    /// What came and was not read yet.
    ahead: Bytes,
    outgoing: SendStream<Bytes>,
    write_timeout: Duration,
    timer: Timer,
    stalled: bool,
    shut: bool,
}

impl Duplex {
    /// `write_timeout` is how long the client may make no room.
    pub(super) fn new(
        incoming: RecvStream,
        outgoing: SendStream<Bytes>,
        write_timeout: Duration,
    ) -> Self {
        Self {
            incoming,
            ahead: Bytes::new(),
            outgoing,
            write_timeout,
            timer: Timer::default(),
            stalled: false,
            shut: false,
        }
    }

    /// Waits for room, up to `wanted` bytes of it.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.outgoing.reserve_capacity(wanted);
        let room = match self.outgoing.capacity() {
            0 => self.outgoing.poll_capacity(cx),
            room => Poll::Ready(Some(Ok(room))),
        };
        if room.is_ready() {
            self.stalled = false;
        } else if !self.stalled {
            self.stalled = true;
            self.timer.start(self.write_timeout);
        }
        match room {
            Poll::Ready(Some(room)) => Poll::Ready(room.map_err(io::Error::other)),
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Pending => {
                ready!(self.timer.poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.ahead.has_remaining() {
            match ready!(this.incoming.poll_data(cx)) {
                Some(bytes) => this.ahead = bytes.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead.split_to(taken));
        let window = this.incoming.flow_control();
        Poll::Ready(window.release_capacity(taken).map_err(io::Error::other))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wanted = buf.len().min(STEP_BYTES);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(this.poll_room(cx, wanted))?;
        let part = buf.get(..room.min(wanted)).unwrap_or_default();
        let sent = this.outgoing.send_data(Bytes::copy_from_slice(part), false);
        Poll::Ready(sent.map(|()| part.len()).map_err(io::Error::other))
    }

    /// Whoever drives the connection sends what there is.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.shut, true) {
            return Poll::Ready(Ok(()));
        }
        let ended = this.outgoing.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        if !self.shut {
            self.outgoing.send_reset(Reason::CANCEL);
        }
    }
}

/// How much window of the connection is asked for at a time: one frame, so that streams take turns.
const STEP_BYTES: usize = 16 * 1024;
