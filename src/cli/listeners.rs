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
//! follows that of the process. Nothing is accepted before the process serves; and another process may
//! be given all sockets, the operators' too.

use crate::net::NetError;
use crate::net::Phase;
use crate::net::listen;
use crate::net::listen::Inherited;
use crate::net::tls::Front;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
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
    /// Where operators are answered.
    desk: Option<Desk>,
    /// What a listener begins in: it holds until the process serves.
    begins: Phase,
    /// How long a process that takes these over may take for a step.
    heir_wait: Duration,
}

/// Where operators are answered: to be handed on, and to be left when another process answers them.
pub(super) struct Desk {
    /// As the config has it.
    pub(super) listen: SocketAddr,
    pub(super) socket: TcpListener,
    pub(super) phase: watch::Sender<Phase>,
}

struct Listener {
    wanted: Wanted,
    /// What it is bound to, where the config leaves the port to the system.
    bound: SocketAddr,
    /// One for each worker, or more. While they are held the port is.
    sockets: listen::Listeners,
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
            desk: None,
            begins: Phase::Hold,
            heir_wait: Duration::ZERO,
        }
    }

    /// Binds what is wanted and neither served nor inherited. Serves nothing yet; dropped, it leaves
    /// all as it is. Fails with every address that could not be bound.
    pub(super) fn prepare(
        &self,
        wanted: &[Wanted],
        inherited: &mut Inherited,
    ) -> Result<Next, Vec<String>> {
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
                        None => inherited.bind_each(wanted.address, self.workers.len()),
                    };
                    match sockets.and_then(|sockets| Listener::new(*wanted, sockets, self.begins)) {
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

    /// Accepts connections from now on.
    pub(super) fn serve(&mut self) {
        self.begins = Phase::Serve;
        let phases = self.open.iter().map(|open| &open.phase);
        for phase in phases.chain(self.desk.as_ref().map(|desk| &desk.phase)) {
            phase.send_replace(Phase::Serve);
        }
    }

    /// What a listener that is begun now begins in.
    pub(super) fn begins(&self) -> Phase {
        self.begins
    }

    /// Says how long a process that takes these over may take for a step.
    pub(super) fn wait_for_heir(&mut self, wait: Duration) {
        self.heir_wait = wait;
    }

    /// How long it may.
    pub(super) fn heir_wait(&self) -> Duration {
        self.heir_wait
    }

    /// Says where operators are answered.
    pub(super) fn seat(&mut self, desk: Option<Desk>) {
        self.desk = desk;
    }

    /// Every socket once more, with the address of the config that it was bound for. A process that
    /// is about to end has none to hand on.
    pub(super) fn sockets(&self) -> std::io::Result<Vec<(SocketAddr, TcpListener)>> {
        let mut sockets = Vec::new();
        for open in &self.open {
            for socket in open.sockets.all.iter().take(open.sockets.sockets) {
                sockets.push((open.wanted.address, socket.try_clone()?));
            }
        }
        if let Some(desk) = &self.desk {
            sockets.push((desk.listen, desk.socket.try_clone()?));
        }
        Ok(sockets)
    }

    /// Another process accepts from now on, operators too: lets everything drain.
    pub(super) fn hand_over(&mut self) {
        if let Some(desk) = &self.desk {
            desk.phase.send_replace(Phase::Drain);
        }
        self.end(Phase::Drain);
    }

    /// Lets everything drain, or cuts it: the end of the process begins or is hurried.
    pub(super) fn end(&mut self, phase: Phase) {
        self.desk = None;
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
    fn new(wanted: Wanted, sockets: listen::Listeners, begins: Phase) -> Result<Self, NetError> {
        let address = wanted.address;
        let bound = sockets.all.first().map(TcpListener::local_addr).transpose();
        let bound = bound.map_err(|source| NetError::Bind { address, source })?;
        Ok(Self {
            wanted,
            bound: bound.unwrap_or(address),
            sockets,
            phase: watch::Sender::new(begins),
        })
    }

    fn clone_sockets(&self) -> Result<listen::Listeners, NetError> {
        let address = self.bound;
        let clones = self.sockets.all.iter().map(TcpListener::try_clone);
        let clones = clones.collect::<Result<_, _>>();
        Ok(listen::Listeners {
            all: clones.map_err(|source| NetError::Bind { address, source })?,
            sockets: self.sockets.sockets,
        })
    }

    fn assign(&self, workers: &[mpsc::Sender<Assignment>], tls: Option<&Arc<Front>>) {
        // There may be more of them than workers.
        for (worker, socket) in workers.iter().cycle().zip(&self.sockets.all) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::Receiver;

    /// Listeners of so many workers, and what the workers are told.
    fn listeners(workers: usize) -> (Listeners, Vec<Receiver<Assignment>>) {
        let (tell, told) = (0..workers).map(|_| mpsc::channel(8)).unzip();
        let mut listeners = Listeners::new(tell);
        listeners.serve();
        (listeners, told)
    }

    fn wanted(address: SocketAddr, tls: bool) -> Wanted {
        Wanted { address, tls }
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// An address that is held, but can be bound by listeners for several workers.
    fn held() -> (Vec<TcpListener>, SocketAddr) {
        let held = listen::bind_each(any(), 2).unwrap();
        let address = held[0].local_addr().unwrap();
        (held, address)
    }

    fn prepare(listeners: &Listeners, to: &[Wanted]) -> Result<Next, Vec<String>> {
        listeners.prepare(to, &mut Inherited::default())
    }

    fn change(listeners: &mut Listeners, to: &[Wanted]) {
        let next = prepare(listeners, to).unwrap();
        listeners.adopt(next, None);
    }

    fn addresses(listeners: &Listeners) -> Vec<SocketAddr> {
        listeners.addresses().map(|(address, _)| address).collect()
    }

    #[test]
    fn each_worker_is_told_of_each_new_listener_and_of_no_other() {
        let (mut listeners, mut told) = listeners(3);
        let one = wanted(any(), false);
        change(&mut listeners, &[one]);
        let first = addresses(&listeners);
        for told in &mut told {
            let assigned = told.try_recv().unwrap();
            assert_eq!(assigned.socket.local_addr().unwrap(), first[0]);
            assert!(told.try_recv().is_err());
        }
        change(&mut listeners, &[one, one]);
        let both = addresses(&listeners);
        assert_eq!(both[0], first[0]);
        for told in &mut told {
            let assigned = told.try_recv().unwrap();
            assert_eq!(assigned.socket.local_addr().unwrap(), both[1]);
            assert!(told.try_recv().is_err());
        }
    }

    #[test]
    fn one_that_is_not_wanted_any_more_drains_and_the_rest_serve_on() {
        let (mut listeners, mut told) = listeners(2);
        let ((_one, stays), (_other, goes)) = (held(), held());
        let (stays, goes) = (wanted(stays, false), wanted(goes, false));
        change(&mut listeners, &[stays, goes]);
        let stays_phase = told[0].try_recv().unwrap().phase;
        let goes_phase = told[0].try_recv().unwrap().phase;
        change(&mut listeners, &[stays]);
        assert_eq!(*stays_phase.borrow(), Phase::Serve);
        assert_eq!(*goes_phase.borrow(), Phase::Drain);
        assert_eq!(addresses(&listeners), [stays.address]);
        // Those that have drained are forgotten.
        drop((goes_phase, told));
        change(&mut listeners, &[stays]);
        assert!(listeners.leaving.is_empty());
    }

    #[test]
    fn what_was_prepared_and_given_up_leaves_all_as_it_was() {
        let (mut listeners, mut told) = listeners(1);
        change(&mut listeners, &[wanted(any(), false)]);
        let phase = told[0].try_recv().unwrap().phase;
        let before = addresses(&listeners);
        drop(prepare(
            &listeners,
            &[wanted(any(), false), wanted(any(), true)],
        ));
        drop(prepare(&listeners, &[]));
        assert_eq!(addresses(&listeners), before);
        assert_eq!(*phase.borrow(), Phase::Serve);
        assert!(told[0].try_recv().is_err());
    }

    #[test]
    fn an_address_that_is_served_otherwise_keeps_its_sockets() {
        let (mut listeners, mut told) = listeners(2);
        let (_held, address) = held();
        change(&mut listeners, &[wanted(address, false)]);
        let before = told.iter_mut().map(|told| told.try_recv().unwrap().phase);
        let before: Vec<_> = before.collect();
        change(&mut listeners, &[wanted(address, true)]);
        let now: Vec<_> = listeners.addresses().collect();
        assert_eq!(now, [(address, true)]);
        for (phase, told) in before.iter().zip(&mut told) {
            assert_eq!(*phase.borrow(), Phase::Drain);
            let assigned = told.try_recv().unwrap();
            assert_eq!(assigned.socket.local_addr().unwrap(), address);
            assert_eq!(*assigned.phase.borrow(), Phase::Serve);
        }
    }

    #[test]
    fn every_address_that_cannot_be_bound_is_told() {
        let (listeners, _told) = listeners(1);
        let holder = TcpListener::bind(any()).unwrap();
        let taken = holder.local_addr().unwrap();
        let abroad = SocketAddr::from(([192, 0, 2, 1], 1));
        let all = [taken, any(), abroad].map(|address| wanted(address, false));
        let Err(errors) = prepare(&listeners, &all) else {
            panic!("two of them cannot be bound");
        };
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains(&taken.to_string()), "{errors:?}");
        assert!(errors[1].contains(&abroad.to_string()), "{errors:?}");
    }

    #[test]
    fn once_the_end_has_begun_nothing_is_served_anew() {
        let (mut listeners, mut told) = listeners(1);
        change(&mut listeners, &[wanted(any(), false)]);
        let phase = told[0].try_recv().unwrap().phase;
        let late = prepare(&listeners, &[wanted(any(), false), wanted(any(), false)]);
        listeners.end(Phase::Drain);
        assert_eq!(*phase.borrow(), Phase::Drain);
        listeners.adopt(late.unwrap(), None);
        assert!(addresses(&listeners).is_empty());
        assert!(prepare(&listeners, &[]).is_err());
        listeners.end(Phase::Stop);
        assert_eq!(*phase.borrow(), Phase::Stop);
    }
}
