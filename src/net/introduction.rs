//! Who a connection is from when a proxy says so: the PROXY protocol, before everything else.
//!
//! From an accepted connection and the blocks of those that must introduce it. What the bytes mean
//! is `rules::proxy_protocol`'s. A peer outside these blocks is not listened to: what it sends is
//! taken for what it wants to say, so nobody can make up an address for himself.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::net::Peer;
use crate::net::io::Socket;
use crate::net::listen::canonical;
use crate::rules::guard::Network;
use crate::rules::proxy_protocol;
use crate::rules::proxy_protocol::BYTES_MAX;
use crate::rules::proxy_protocol::Flaw;

/// Why a connection that should have been introduced was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unintroduced {
    /// The connection ended.
    Closed,
    /// What came is no header.
    Flawed(Flaw),
    /// The header took too long.
    Timeout,
}

impl Unintroduced {
    /// The fixed word that names the reason in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Flawed(Flaw::Checksum) => "checksum",
            Self::Flawed(Flaw::Malformed) => "malformed",
            Self::Flawed(Flaw::Missing) => "missing",
            Self::Flawed(Flaw::TooLarge) => "too-large",
            Self::Timeout => "timeout",
        }
    }
}

/// Whether `peer` must introduce its connections.
pub(super) fn is_due(peer: &Peer, proxies: &[Network]) -> bool {
    let address = peer.address.ip();
    proxies.iter().any(|proxy| proxy.contains(address))
}

/// Reads the header that comes first, within `limit`, and returns who the peer is by it. What
/// comes behind the header stays to be read.
pub(super) async fn introduce(
    socket: &mut Socket,
    peer: &Peer,
    limit: Duration,
) -> Result<Peer, Unintroduced> {
    let header = tokio::time::timeout(limit, header(socket)).await;
    let ends = header.map_err(|_| Unintroduced::Timeout)??;
    let mut peer = peer.clone();
    if let Some(ends) = ends {
        peer.address = canonical(ends.source);
        peer.local = canonical(ends.destination);
    }
    Ok(peer)
}

async fn header(socket: &mut Socket) -> Result<Option<proxy_protocol::Ends>, Unintroduced> {
    let mut bytes = Vec::with_capacity(FIRST_READ);
    loop {
        match proxy_protocol::read(&bytes).map_err(Unintroduced::Flawed)? {
            Some(header) => {
                socket.unread(bytes.split_off(header.bytes.min(bytes.len())));
                return Ok(header.ends);
            }
            None => {
                let room = BYTES_MAX.saturating_sub(bytes.len());
                let read = (&mut *socket).take(room as u64).read_buf(&mut bytes).await;
                if !read.is_ok_and(|read| read > 0) {
                    return Err(Unintroduced::Closed);
                }
            }
        }
    }
}

/// Bytes of the first read: a line, or a block with some values behind it.
const FIRST_READ: usize = 256;
