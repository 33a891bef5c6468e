//! A shelf whose store another process takes over, or gives back.
//!
//! Lent, it goes on to serve what it has: from memory, and from packs. The other process may delete
//! those at any time, which makes their entries misses; so whoever begins to read a body in parts
//! holds its packs open first, and it ends whole.

use super::Shelf;
use super::lock;
use crate::rules::address::PackId;
use crate::store::StoreError;
use std::time::Duration;

impl Shelf {
    /// Writes everything, keeps open what is being read, and lets the lock go. An error leaves
    /// everything as it was. The threads that make room and watch must have ended. Blocking.
    pub fn lend(&self) -> Result<(), StoreError> {
        // Nobody moves or drops packs, as a tool may ask for.
        let _tidying = lock(&self.tidying);
        self.store.lend(LEND_WAIT)?;
        let pinned: Vec<PackId> = lock(&self.pins).keys().copied().collect();
        for pack in pinned {
            self.store.hold(pack);
        }
        if self.store.unlock() {
            return Ok(());
        }
        self.store.take_back();
        Err(StoreError::Slow)
    }

    /// As [`lend`](Self::lend), for a directory that is out: whoever comes next begins it empty, so
    /// what waits to be written there is not waited for. Its lock stays while its disk hangs.
    pub fn abandon(&self) {
        let _tidying = lock(&self.tidying);
        if self.store.abandon(LEND_WAIT) {
            self.store.unlock();
        }
    }

    /// Takes the store back, whatever the other process did with it; says whether it can be used.
    /// Blocking.
    pub fn take_back(&self) -> bool {
        self.store.take_back()
    }

    /// May another process have the store?
    pub fn is_lent(&self) -> bool {
        self.store.is_lent()
    }

    /// Sees to it that packs can be read to the end, whatever another process does. False when one
    /// is gone.
    pub(super) fn hold(&self, packs: impl IntoIterator<Item = PackId>) -> bool {
        !self.is_lent() || packs.into_iter().all(|pack| self.store.hold(pack))
    }
}

/// A disk that works has written everything sooner.
const LEND_WAIT: Duration = Duration::from_secs(10);
