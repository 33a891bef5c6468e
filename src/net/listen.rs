//! Listening sockets (`SO_REUSEPORT`, one a worker), the accept loop, and its limits.
//!
//! Binding is synchronous, so that every address is known to be good before the first worker
//! starts. A listener may also come from another process, which had bound it: then every one of
//! its sockets is accepted from by somebody, for the system has spread connections over all of them,
//! and workers that get none of their own share one. What is done with a connection is `serve`'s.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::SockRef;
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

/// Listeners that another process had bound: a service manager, or the process before this one.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Bound>,
}

/// A listening socket, and the address that it was asked for.
#[derive(Debug)]
struct Bound {
    /// The port may be 0, where the system chose it.
    asked: SocketAddr,
    local: SocketAddr,
    listener: std::net::TcpListener,
}

/// The listeners of one address.
#[derive(Debug)]
pub struct Listeners {
    /// At least one for each worker, and each of the address's sockets at least once.
    pub all: Vec<std::net::TcpListener>,
    /// How many sockets there are: the first so many; the others share these.
    pub sockets: usize,
}

impl Inherited {
    /// Takes a listener in, bound for `asked` if the other process says so. What does not listen, and
    /// cannot, is an error.
    pub fn add(
        &mut self,
        listener: std::net::TcpListener,
        asked: Option<SocketAddr>,
    ) -> io::Result<()> {
        let local = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        // A service manager's backlog may be short.
        SockRef::from(&listener).listen(BACKLOG)?;
        self.sockets.push(Bound {
            asked: asked.unwrap_or(local),
            local,
            listener,
        });
        Ok(())
    }

    /// The listeners for an address of the config, for each of `workers`: inherited ones where there
    /// are some, newly bound ones else. There may be more of them than workers.
    pub fn bind_each(
        &mut self,
        address: SocketAddr,
        workers: usize,
    ) -> Result<Listeners, NetError> {
        let exact = |bound: &&Bound| bound.local == address;
        let asked = |bound: &&Bound| bound.asked == address;
        let mut sockets = self.sockets.iter();
        // Where the system chose several ports, they come in the order of the config.
        let first = sockets.clone().find(exact).or_else(|| sockets.find(asked));
        let local = first.map(|bound| bound.local);
        let mut all: Vec<std::net::TcpListener> = self
            .sockets
            .extract_if(.., |bound| Some(bound.local) == local)
            .map(|bound| bound.listener)
            .collect();
        if all.is_empty() {
            all = bind_each(address, workers)?;
        }
        let sockets = all.len();
        for number in 0..workers.saturating_sub(sockets) {
            let shared = all.get(number).map(std::net::TcpListener::try_clone);
            let shared = shared.transpose();
            all.extend(shared.map_err(|source| NetError::Bind { address, source })?);
        }
        Ok(Listeners { all, sockets })
    }

    /// Binds an address of the config now, unless it was inherited, to be taken later: what cannot be
    /// bound is known early.
    pub fn ensure(&mut self, address: SocketAddr, workers: usize) -> Result<(), NetError> {
        let here = |bound: &Bound| bound.local == address || bound.asked == address;
        if self.sockets.iter().any(here) {
            return Ok(());
        }
        for listener in bind_each(address, workers)? {
            let added = self.add(listener, Some(address));
            added.map_err(|source| NetError::Bind { address, source })?;
        }
        Ok(())
    }

    /// The addresses of those that nobody wanted; they are closed.
    pub fn unwanted(self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> =
            self.sockets.into_iter().map(|bound| bound.local).collect();
        addresses.dedup();
        addresses
    }
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

    fn accepts(listener: &std::net::TcpListener) -> bool {
        listener.accept().is_ok()
    }

    #[test]
    fn an_inherited_listener_is_found_by_its_address_and_only_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add(listener, None).unwrap();
        let found = inherited.bind_each(address, 1).unwrap().all;
        assert_eq!(found.len(), 1);
        drop(std::net::TcpStream::connect(address).unwrap());
        assert!(accepts(&found[0]));
        assert!(inherited.bind_each(address, 1).is_err(), "it is in use");
        assert_eq!(inherited.unwanted(), []);
    }

    #[test]
    fn a_port_that_the_system_chose_is_found_by_what_was_asked_for() {
        let listener = bind(any(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add(listener, Some(any())).unwrap();
        let other = bind(any(), false).unwrap();
        let behind = other.local_addr().unwrap();
        inherited.add(other, Some(any())).unwrap();
        for expected in [address, behind] {
            let found = inherited.bind_each(any(), 2).unwrap().all;
            assert!(found.iter().all(|l| l.local_addr().unwrap() == expected));
        }
    }

    #[test]
    fn each_inherited_socket_is_given_to_somebody_and_each_worker_gets_one() {
        for (sockets, workers) in [(1, 3), (3, 1), (2, 5)] {
            let bound = bind_each(any(), sockets).unwrap();
            let address = bound[0].local_addr().unwrap();
            let mut inherited = Inherited::default();
            for listener in bound {
                inherited.add(listener, Some(address)).unwrap();
            }
            let found = inherited.bind_each(address, workers).unwrap();
            assert_eq!(found.sockets, sockets);
            let found = found.all;
            assert_eq!(found.len(), sockets.max(workers));
            // However the system spreads them, all are accepted by the first of each socket.
            let clients: Vec<_> = (0..40)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect();
            let accepted = found
                .iter()
                .map(|l| std::iter::from_fn(|| l.accept().ok()).count());
            assert_eq!(accepted.sum::<usize>(), clients.len());
        }
    }

    #[test]
    fn what_is_ensured_is_bound_once_and_taken_later() {
        let mut inherited = Inherited::default();
        inherited.ensure(any(), 2).unwrap();
        inherited.ensure(any(), 2).unwrap();
        assert_eq!(inherited.bind_each(any(), 2).unwrap().sockets, 2);
        assert_eq!(inherited.unwanted(), []);
        let taken = bind(any(), false).unwrap().local_addr().unwrap();
        let _holder = bind(taken, false).unwrap();
        assert!(Inherited::default().ensure(taken, 1).is_err());
    }

    #[test]
    fn what_no_address_names_is_told() {
        let listener = bind(any(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add(listener, None).unwrap();
        inherited.bind_each(any(), 1).unwrap();
        assert_eq!(inherited.unwanted(), [address]);
        assert!(
            std::net::TcpStream::connect(address).is_err(),
            "it is closed"
        );
    }

    #[test]
    fn what_cannot_listen_is_refused() {
        let listener = bind(any(), false).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let not_one = std::net::TcpListener::from(std::os::fd::OwnedFd::from(client));
        assert!(Inherited::default().add(not_one, None).is_err());
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
