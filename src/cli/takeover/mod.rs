//! A new binary takes over from the one that runs, without a refused connection.
//!
//! ```text
//! SIGUSR2 ─► giver: starts the binary that lies at its own path now, with the same arguments
//!              │  one end of a socket pair as its standard input; listeners travel over it
//!              ▼
//!            taker: reads the config, the certificates, the listeners ─► asks for the stores
//! giver: lends them ─► taker: opens them, starts its workers ─► giver: "go", accepts no more, drains
//! ```
//!
//! Both processes hold the same listening sockets, so a connection that neither has accepted yet waits
//! in the system for whoever does. Which message means what is `state/takeover`'s; here are the
//! sockets, the processes and the threads.
//!
//! | file | answers |
//! |---|---|
//! | `wire` | how messages and sockets travel, and purges are answered |
//! | `giver` | what the process does that runs |
//! | `taker` | what the process does that was started; also where inherited listeners come from |

pub(super) mod giver;
pub(super) mod taker;
mod wire;

use self::giver::Estate;
use self::giver::Handing;
use self::giver::Outcome;
use crate::ops::reload::Pause;
use crate::ops::reload::Reloads;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// Who came before this process, and who comes after it.
pub(super) struct Succession {
    /// What is handed over.
    estate: Estate,
    /// Where reloads are asked for: a take-over waits for those that are under way, and they for it,
    /// since both processes must read one config and have one set of sockets.
    reloads: Reloads,
    /// A take-over that waits, and what it waits for.
    waiting: Option<oneshot::Receiver<Pause>>,
    pause: Option<Pause>,
    /// The process before still serves.
    elder: Arc<AtomicBool>,
    handing: Option<Handing>,
    handed_over: bool,
    tell: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

impl Succession {
    /// Nobody comes after it yet.
    pub(super) fn new(estate: Estate, reloads: Reloads, elder: Arc<AtomicBool>) -> Self {
        let (tell, outcomes) = mpsc::unbounded_channel();
        Self {
            estate,
            reloads,
            waiting: None,
            pause: None,
            elder,
            handing: None,
            handed_over: false,
            tell,
            outcomes,
        }
    }

    /// Hands over to a new process, unless another take-over is under way: one at a time, so that
    /// there are never more than two to tell of a purge.
    pub(super) fn begin(&mut self) {
        if self.handing.is_some() || self.waiting.is_some() {
            tracing::warn!("SIGUSR2: a take-over is under way already");
        } else if self.elder.load(Ordering::Relaxed) {
            tracing::warn!("SIGUSR2: the process before still drains; try again when it has ended");
        } else {
            self.waiting = self.reloads.pause();
            if self.waiting.is_none() {
                tracing::warn!("SIGUSR2: too many reloads are waiting");
            }
        }
    }

    /// Hands over, now that nothing changes.
    fn hand(&mut self, pause: Pause) {
        match Handing::begin(&self.estate, self.tell.clone()) {
            Ok(handing) => (self.handing, self.pause) = (Some(handing), Some(pause)),
            Err(error) => {
                self.estate.metrics.takeovers_failed.add(1);
                tracing::error!("the take-over failed; going on as before: {error:#}");
            }
        }
    }

    /// Waits until a take-over has come out; says whether another process serves now. Dropping this
    /// half-way loses nothing.
    pub(super) async fn handed_over(&mut self) -> bool {
        if let Some(waiting) = &mut self.waiting {
            let pause = waiting.await;
            self.waiting = None;
            // Else whoever reloads is gone, and the process about to end.
            if let Ok(pause) = pause {
                self.hand(pause);
            }
        }
        // A sender is kept here: there is always another one to wait for.
        let outcome = self.outcomes.recv().await;
        self.pause = None;
        self.handed_over = outcome == Some(Outcome::HandedOver);
        if !self.handed_over
            && let Some(handing) = self.handing.take()
        {
            handing.join();
        }
        self.handed_over
    }

    /// This process is to end: so does a take-over that has not come out yet.
    pub(super) fn stop(&mut self) {
        self.waiting = None;
        if let Some(handing) = &self.handing {
            handing.stop();
        }
    }

    /// Waits until a take-over that was ended is over. Blocking.
    pub(super) fn end(self) {
        let Self {
            handing,
            handed_over,
            mut outcomes,
            ..
        } = self;
        let handed_over = handed_over || outcomes.try_recv() == Ok(Outcome::HandedOver);
        if let Some(handing) = handing.filter(|_| !handed_over) {
            handing.join();
        }
    }
}

/// Set for a process that was started to take over; its standard input is the socket.
const VARIABLE: &str = "LARDER_TAKE_OVER";
