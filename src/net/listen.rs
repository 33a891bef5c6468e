//! Listening sockets (`SO_REUSEPORT`, one a worker), the accept loop, and its limits.
//!
//! Binding is synchronous, so that every address is known to be good before the first worker
//! starts. What is done with a connection is `serve`'s.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::net::NetError;

/// Binds a listener, ready to be handed to a runtime with `tokio::net::TcpListener::from_std`.
///
/// With `reuse_port`, further listeners that ask for it may bind the same address, and the system
/// spreads connections over all of them.
pub fn bind(address: SocketAddr, reuse_port: bool) -> Result<std::net::TcpListener, NetError> {
    open(address, reuse_port).map_err(|source| NetError::Bind { address, source })
}

/// Binds one listener for each of `workers` on the same address.
///
/// With port 0 the system chooses a port once, and all of them share it. A single worker keeps its
/// address to itself.
pub fn bind_each(
    address: SocketAddr,
    workers: usize,
) -> Result<Vec<std::net::TcpListener>, NetError> {
    let reuse_port = workers > 1;
    let first = bind(address, reuse_port)?;
    let resolved = first
        .local_addr()
        .map_err(|source| NetError::Bind { address, source })?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(bind(resolved, reuse_port)?);
    }
    Ok(listeners)
}

/// Waits for the next connection, however long the system refuses to give one.
///
/// Running out of descriptors or memory is answered by a short pause: other connections will end,
/// and the kernel's backlog holds what comes meanwhile. Dropping this half-way loses nothing.
pub(super) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut warned = false;
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => return (tcp, canonical(address)),
            Err(error) if of_one_client(error.kind()) => {}
            Err(error) => {
                if !warned {
                    tracing::warn!(%error, "could not accept connections for now");
                    warned = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Returns `address` with an IPv4 address that an IPv6 socket shows as `::ffff:a.b.c.d` unwrapped,
/// so that address rules match whichever listener a client came by.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn open(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The connection that was to be accepted failed, not accepting.
fn of_one_client(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Most connections that wait in the kernel; `net.core.somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// How long to leave the system alone after it could not give a connection.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn workers_share_the_port_that_the_first_was_given() {
        let listeners = bind_each(any(), 3).unwrap();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
    }

    #[test]
    fn a_single_worker_keeps_its_address_to_itself() {
        let listeners = bind_each(any(), 1).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(matches!(bind(address, true), Err(NetError::Bind { .. })));
    }

    #[test]
    fn an_address_in_use_is_named_in_the_error() {
        let taken = bind(any(), false).unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, false).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        let mapped = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "192.0.2.1:80".parse().unwrap());
    }

    #[test]
    fn running_out_of_descriptors_is_not_blamed_on_one_client() {
        let emfile = io::Error::from_raw_os_error(24);
        assert!(!of_one_client(emfile.kind()));
    }

    #[tokio::test]
    async fn a_connection_is_accepted_with_its_address() {
        let listener = TcpListener::from_std(bind(any(), false).unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (_tcp, address) = accept(&listener).await;
        assert_eq!(address, client.local_addr().unwrap());
    }
}
