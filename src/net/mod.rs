//! The client side: listeners, limits, the PROXY protocol, TLS, hyper's HTTP/1.1 and `h2`'s HTTP/2.
//!
//! `net` does not know who answers: it is given a handler.

pub mod body;
mod duplex;
mod frames;
mod http2;
pub mod introduction;
pub mod io;
pub mod listen;
pub mod room;
pub mod serve;
pub mod switch;
pub mod tls;

use crate::net::introduction::Unintroduced;
use crate::net::tls::HandshakeFailure;
use crate::rules::guard::Network;
use crate::rules::identity::Identity;
use crate::rules::request::Cipher;
use crate::rules::request::Scheme;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bounds on connections and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Most open client connections over all listeners; more wait in the backlog.
    pub connections_max: usize,
    /// Most fields in a request head; more are refused with 431.
    pub headers_max: usize,
    /// Largest request head in bytes; larger is refused with 431.
    pub header_bytes_max: usize,
    /// Longest time from the first byte of a request head to its last.
    pub header_timeout: Duration,
    /// Longest time a kept-alive connection may be silent between requests.
    pub idle_timeout: Duration,
    /// Longest time between two reads of a request body.
    pub body_read_timeout: Duration,
    /// Longest time a write to a client may make no progress.
    pub write_timeout: Duration,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for in-flight responses when draining.
    pub drain_timeout: Duration,
    /// Whose connections begin with a PROXY protocol header; nobody else's may.
    pub proxy_protocol_from: Vec<Network>,
    /// What HTTP/2 clients may do.
    pub http2: Http2,
}

/// Bounds on one HTTP/2 connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Spoken by prior knowledge on listeners without TLS (RFC 9113 §3.3).
    pub clear_text: bool,
    /// Most streams open at a time; more are refused.
    pub streams_max: u32,
    /// Bytes of one request's body that may be under way unread; at most 2³¹ − 1.
    pub stream_window: u32,
    /// The same for all requests of a connection together.
    pub connection_window: u32,
    /// Streams cancelled beyond one for each response that went out and what ten seconds refill;
    /// more cut the connection. As many streams may break the protocol.
    pub resets_max: u32,
    /// Frames that ask for nothing, such as PING, beyond what responses explain and ten seconds
    /// refill; more cut the connection.
    pub control_frames_max: u32,
    /// A CONNECT may ask for another protocol on its stream (RFC 8441).
    pub extended_connect: bool,
}

/// Who sent a request, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address, as a proxy told it if one has to.
    pub address: SocketAddr,
    /// Our address it connected to.
    pub local: SocketAddr,
    /// Clear text or TLS.
    pub scheme: Scheme,
    /// What the handshake found out, where the site asked for has rules for client certificates.
    pub identity: Option<Arc<Identity>>,
    /// What the handshake agreed on, over TLS.
    pub cipher: Option<Cipher>,
}

/// What the net room sees that no handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    Accept,
    /// A connection ended.
    Close,
    /// Bytes that are no HTTP request; hyper answered with this status (0: closed without one).
    Malformed(u16),
    /// A head or body that took too long.
    RequestTimeout,
    /// A client that read too slowly.
    WriteTimeout,
    /// A proxy introduced its connection.
    Introduced,
    /// A connection was cut because its proxy did not introduce it.
    Unintroduced(Unintroduced),
    /// A TLS handshake that ended.
    Handshake(Handshake),
    /// An HTTP/2 client was cut because it sent too much beside requests.
    Flood,
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// There is no connection.
    Failed(HandshakeFailure),
    /// With a certificate and a new session.
    Full,
    /// It was only for a proof that a name is ours (RFC 8737); there is no connection.
    Proof,
    /// With a session from before.
    Resumed,
}

/// Where a server is in its life; sent over a `watch` channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits to be told to serve; connections wait in the system.
    Hold,
    /// Accepts and serves.
    Serve,
    /// Accepts nothing new, answers requests that are under way or about to come, and closes
    /// connections behind them.
    Drain,
    /// Cuts what is left.
    Stop,
}

/// Why a listener could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address cannot be bound.
    #[error("could not listen on {address}: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("could not use certificate {}: {reason}", file.display())]
    Certificate {
        /// Which file.
        file: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
}
