//! All directories change hands, and come back when the other process could not keep them.
//!
//! ```text
//! lend: the watch ends ─► no more room is made ─► each store is written and unlocked
//!       purges from here on go to the heir, which answers when they hold there
//! take back: each store ─► sequences the other may have used are left out ─► rosters ─► as before
//! ```
//!
//! A purge that comes while the stores are lent is handed to their writers too, which keep it, and to
//! whoever has them; who waits for it waits until it holds there, or, when the stores have come back,
//! until it is written here.

use super::Shelves;
use super::Watcher;
use super::watch::Watch;
use crate::clock;
use crate::flow::shelf::lock;
use crate::flow::shelf::space;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::store::StoreError;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout_at;

/// Another process that serves the same responses for a while.
pub trait Peer: Debug + Send + Sync {
    /// Tells it of a purge, which gets a sequence of its own there. The answer says that it holds there,
    /// durably if it has the store; none comes when the other has ended.
    fn tell(&self, mark: Mark, selectors: &[Selector]) -> oneshot::Receiver<bool>;
}

/// What another process is to this one.
#[derive(Clone, Debug)]
pub enum Beside {
    /// It takes the stores over; it must learn of purges once they are lent.
    Heir(Arc<dyn Peer>),
    /// It had the stores before and still serves from them; it must learn of every purge.
    Elder(Arc<dyn Peer>),
}

impl Shelves {
    /// Says who else serves the same responses now, if anybody does.
    pub fn stand_beside(&self, beside: Option<Beside>) {
        let mut place = self.beside.write().unwrap_or_else(PoisonError::into_inner);
        *place = beside;
    }

    pub(super) fn beside(&self) -> Option<Beside> {
        let place = self.beside.read().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }

    /// Writes everything and lets all directories go, for another process to use. From here on
    /// nothing is stored or deleted. Returns the sequence from which on the other may count. An error,
    /// as when a directory that is in use has trouble, leaves everything as it was. Blocking.
    pub fn lend(self: &Arc<Self>) -> Result<Sequence, StoreError> {
        self.rest();
        if !self.is_quiet() {
            self.take_back();
            return Err(StoreError::Slow);
        }
        let members = self.read_spread().members();
        for (number, place) in self.places.iter().enumerate() {
            let Some(shelf) = place.shelf.get() else {
                continue;
            };
            let is_in = members.contains(&number) || self.places.len() == 1;
            if !is_in {
                shelf.abandon();
            } else if let Err(error) = shelf.lend() {
                self.take_back();
                return Err(error);
            }
        }
        Ok(self.next_sequence())
    }

    /// Takes all directories back, whatever the other process did with them; says whether something
    /// can be stored again. Blocking.
    pub fn take_back(self: &Arc<Self>) -> bool {
        for shelf in self.opened().filter(|shelf| shelf.is_lent()) {
            shelf.take_back();
        }
        self.common.leave_out(SEQUENCES_LEFT_OUT);
        self.wake();
        self.pass_through().is_none()
    }

    /// May another process have the stores?
    pub fn is_lent(&self) -> bool {
        self.opened().any(|shelf| shelf.is_lent())
    }

    /// Sequences from here on are later than what another process has used.
    pub fn count_from(&self, next: Sequence) {
        self.common.count_from(next);
    }

    /// As a purge is written while another process serves beside this one; see
    /// [`record_purge`](Self::record_purge).
    pub(super) async fn record_beside(
        self: &Arc<Self>,
        beside: &Beside,
        mark: Mark,
        selectors: &[Selector],
    ) -> bool {
        match beside {
            Beside::Heir(heir) => self.record_or_tell(&**heir, mark, selectors).await,
            Beside::Elder(elder) => {
                let told = elder.tell(mark, selectors);
                let durable = self.record_here(mark, selectors).await;
                let until = Instant::now() + ELDER_WAIT;
                if timeout_at(until, told).await.is_err() {
                    tracing::warn!("the process before this one does not answer to a purge");
                }
                durable
            }
        }
    }

    async fn record_or_tell(
        self: &Arc<Self>,
        heir: &dyn Peer,
        mark: Mark,
        selectors: &[Selector],
    ) -> bool {
        let until = Instant::now() + HEIR_WAIT;
        while !self.is_lent() {
            let durable = self.record_here(mark, selectors).await;
            if durable || !self.is_lent() {
                return durable;
            }
        }
        self.hand_over(mark, selectors).await;
        loop {
            let told = timeout_at(until, heir.tell(mark, selectors)).await;
            if matches!(told, Ok(Ok(true))) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            // It has ended, or failed: then the stores come back.
            let soon = until.min(Instant::now() + THAW_WAIT);
            drop(timeout_at(soon, self.changes.subscribe().changed()).await);
            if !self.is_lent() {
                return self.record_here(mark, selectors).await;
            }
        }
    }

    /// Hands a purge to all writers, which write it when they can.
    async fn hand_over(&self, mark: Mark, selectors: &[Selector]) {
        for shelf in self.opened() {
            let now = Instant::now();
            shelf.record_purge_until(mark, selectors, now).await;
        }
    }

    /// Ends the threads that watch and that make room.
    pub(super) fn rest(&self) {
        let watcher = lock(&self.watch).take();
        if let Some(Watcher { thread, poke }) = watcher {
            drop(poke);
            match thread.join() {
                Ok(watch) => *lock(&self.resting) = Some(watch),
                Err(_) => tracing::error!("the thread that watches the directories had panicked"),
            }
        }
        for shelf in self.opened() {
            space::close(shelf);
        }
        for place in &self.places {
            if let Some(space) = lock(&place.space).take()
                && space.join().is_err()
            {
                tracing::error!("a thread that makes room had panicked");
            }
        }
    }

    /// Starts them again. What cannot be started is missed, and said.
    fn wake(self: &Arc<Self>) {
        for (number, place) in self.places.iter().enumerate() {
            if let Some(shelf) = place.shelf.get()
                && let Err(error) = self.start_space(number, shelf)
            {
                tracing::error!(%error, "no room is made in a directory");
            }
        }
        if let Some(mut watch) = lock(&self.resting).take() {
            watch.come_back(self);
            if let Err(error) = self.start_watch(watch) {
                tracing::error!(%error, "nobody watches the directories");
            }
        }
        self.changes.send_replace(());
    }

    /// Has everything that the watch had begun on a disk ended, in bounded time? Blocking.
    fn is_quiet(&self) -> bool {
        let until = clock::instant() + QUIET_WAIT;
        loop {
            let quiet = lock(&self.resting).as_mut().is_none_or(Watch::is_quiet);
            if quiet || clock::instant() >= until {
                return quiet;
            }
            thread::sleep(QUIET_STEP);
        }
    }
}

/// How long a purge waits for the process that takes over to open the stores.
const HEIR_WAIT: Duration = Duration::from_secs(20);
/// How long a purge waits for the process before, which is about to end.
const ELDER_WAIT: Duration = Duration::from_secs(1);
/// How soon a purge is tried again when the other process could not be told.
const THAW_WAIT: Duration = Duration::from_millis(200);
/// Many times what another process can use while it takes over and fails.
const SEQUENCES_LEFT_OUT: u64 = 1 << 40;
/// As long as opening a directory may take.
const QUIET_WAIT: Duration = Duration::from_secs(10);
const QUIET_STEP: Duration = Duration::from_millis(10);
