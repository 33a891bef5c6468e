//! A connection to an origin that has switched to another protocol (RFC 9110 §7.8).
//!
//! It has left its pool for good and keeps its place among the connections to the backend. What is
//! spoken on it is the caller's.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::pool::Slot;

/// A connection that is no longer HTTP's. Dropping it closes it.
#[derive(Debug)]
pub struct Switched {
    io: TokioIo<Upgraded>,
    _slot: Slot,
}

impl Switched {
    pub(super) fn new(upgraded: Upgraded, slot: Slot) -> Self {
        Self {
            io: TokioIo::new(upgraded),
            _slot: slot,
        }
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
