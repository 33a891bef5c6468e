//! The addresses where clients are served, and what becomes of them when the config changes.
//!
//! ```text
//! wanted ─┬─ served already ──────────────────────────► left alone
//!         ├─ served, but in clear text or over TLS now ► the same sockets, served anew
//!         └─ new ─────────────────────────────────────► bound, or nothing changes
//! no longer wanted ─► accepts nothing more, its connections drain
//! ```
//!
//! Each worker has a socket of each listener; which worker serves what is told it by a channel, and a
//! worker ends when its channel has and everything it serves. A listener has a phase of its own, which
//! follows that of the process.

use crate::net::NetError;
use crate::net::Phase;
use crate::net::listen;
use crate::net::tls::Front;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::sync::watch;

/// A socket to serve, told to a worker.
pub(super) struct Assignment {
    pub(super) socket: TcpListener,
    pub(super) tls: Option<Arc<Front>>,
    pub(super) phase: watch::Receiver<Phase>,
}

/// An address in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

/// Everything that is served.
pub(super) struct Listeners {
    /// For each worker, where it is told what to serve. Empty once the end has begun.
    workers: Vec<mpsc::Sender<Assignment>>,
    open: Vec<Listener>,
    /// Phases of listeners that are gone from the config and whose connections drain.
    leaving: Vec<watch::Sender<Phase>>,
}

struct Listener {
    wanted: Wanted,
    /// What it is bound to, where the config leaves the port to the system.
    bound: SocketAddr,
    /// One for each worker. While they are held the port is.
    sockets: Vec<TcpListener>,
    phase: watch::Sender<Phase>,
}

/// Listeners for another config, all of them bound.
pub(super) struct Next {
    open: Vec<Planned>,
}

enum Planned {
    /// The one in this place stays.
    Kept(usize),
    New(Listener),
}

impl Listeners {
    /// No listeners, for workers that are told through these.
    pub(super) fn new(workers: Vec<mpsc::Sender<Assignment>>) -> Self {
        Self {
            workers,
            open: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Binds what is wanted and not served. Serves nothing yet; dropped, it leaves all as it is.
    /// Fails with every address that could not be bound.
    pub(super) fn prepare(&self, wanted: &[Wanted]) -> Result<Next, Vec<String>> {
        if self.workers.is_empty() {
            return Err(vec!["the process is about to end".to_owned()]);
        }
        let mut planned: Vec<Option<Planned>> = Vec::new();
        let mut kept = vec![false; self.open.len()];
        for wanted in wanted {
            let mut all = kept.iter_mut().enumerate().zip(&self.open);
            let same = all.find(|((_, kept), open)| !**kept && open.wanted == *wanted);
            planned.push(same.map(|((place, kept), _)| {
                *kept = true;
                Planned::Kept(place)
            }));
        }
        let mut errors = Vec::new();
        let mut open = Vec::new();
        for (wanted, planned) in wanted.iter().zip(planned) {
            // One that serves the same address otherwise gives its sockets.
            let mut all = kept.iter_mut().zip(&self.open);
            match planned {
                Some(planned) => open.push(planned),
                None => {
                    let other = all.find(|(kept, open)| {
                        !**kept
                            && wanted.address.port() != 0
                            && open.wanted.address == wanted.address
                    });
                    let sockets = match other {
                        Some((_, other)) => other.clone_sockets(),
                        None => listen::bind_each(wanted.address, self.workers.len()),
                    };
                    match sockets.and_then(|sockets| Listener::new(*wanted, sockets)) {
                        Ok(listener) => open.push(Planned::New(listener)),
                        Err(error) => errors.push(error.to_string()),
                    }
                }
            }
        }
        match errors.is_empty() {
            true => Ok(Next { open }),
            false => Err(errors),
        }
    }

    /// Serves what was prepared and lets the rest drain. Blocks while workers are behind.
    pub(super) fn adopt(&mut self, next: Next, tls: Option<&Arc<Front>>) {
        if self.workers.is_empty() {
            return;
        }
        let mut before: Vec<Option<Listener>> = self.open.drain(..).map(Some).collect();
        for planned in next.open {
            let listener = match planned {
                Planned::Kept(place) => before.get_mut(place).and_then(Option::take),
                Planned::New(listener) => {
                    let tls = tls.filter(|_| listener.wanted.tls);
                    listener.assign(&self.workers, tls);
                    Some(listener)
                }
            };
            self.open.extend(listener);
        }
        self.leaving.retain(|phase| !phase.is_closed());
        for gone in before.into_iter().flatten() {
            gone.phase.send_replace(Phase::Drain);
            self.leaving.push(gone.phase);
        }
    }

    /// Lets everything drain, or cuts it: the end of the process begins or is hurried.
    pub(super) fn end(&mut self, phase: Phase) {
        self.workers.clear();
        let open = self.open.drain(..).map(|listener| listener.phase);
        self.leaving.extend(open);
        for leaving in &self.leaving {
            leaving.send_replace(phase);
        }
    }

    /// Every address, with whether it is served over TLS.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        self.open.iter().map(|open| (open.bound, open.wanted.tls))
    }
}

impl Listener {
    fn new(wanted: Wanted, sockets: Vec<TcpListener>) -> Result<Self, NetError> {
        let address = wanted.address;
        let bound = sockets.first().map(TcpListener::local_addr).transpose();
        let bound = bound.map_err(|source| NetError::Bind { address, source })?;
        Ok(Self {
            wanted,
            bound: bound.unwrap_or(address),
            sockets,
            phase: watch::Sender::new(Phase::Serve),
        })
    }

    fn clone_sockets(&self) -> Result<Vec<TcpListener>, NetError> {
        let address = self.bound;
        let clones = self.sockets.iter().map(TcpListener::try_clone);
        let clones = clones.collect::<Result<_, _>>();
        clones.map_err(|source| NetError::Bind { address, source })
    }

    fn assign(&self, workers: &[mpsc::Sender<Assignment>], tls: Option<&Arc<Front>>) {
        for (worker, socket) in workers.iter().zip(&self.sockets) {
            let assigned = socket.try_clone().map(|socket| Assignment {
                socket,
                tls: tls.cloned(),
                phase: self.phase.subscribe(),
            });
            match assigned {
                Ok(assignment) => {
                    if worker.blocking_send(assignment).is_err() {
                        tracing::error!("a worker is gone");
                    }
                }
                Err(error) => tracing::error!(%error, "could not serve a listener"),
            }
        }
    }
}
