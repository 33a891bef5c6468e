//! The stores change hands: what the engine does for a process that takes over, or for one that hands
//! over.
//!
//! Who says what to whom, and when, is `state/takeover`'s; here is only what each step does.

use super::Engine;
use super::StoreError;
use super::purge::Manner;
use super::shelves::handover::Beside;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;

impl Engine {
    /// Says who else serves the same responses now, if anybody does.
    pub fn stand_beside(&self, beside: Option<Beside>) {
        self.shelf.stand_beside(beside);
    }

    /// Writes everything and lets the stores go, for another process to use: from here on nothing is
    /// stored, and what is stored is served. Returns the sequence from which on the other may count.
    /// After an error all is as before. Blocking.
    pub fn lend(&self) -> Result<Sequence, StoreError> {
        self.shelf.lend()
    }

    /// Takes the stores back, whatever the other process did with them; says whether something can
    /// be stored again. Blocking.
    pub fn take_back(&self) -> bool {
        self.shelf.take_back()
    }

    /// Sequences from here on are later than what another process has used.
    pub fn count_from(&self, next: Sequence) {
        self.shelf.count_from(next);
    }

    /// Heeds a purge that another process told of; says whether it is durable, if this process has
    /// the stores. Dropped half-way, it holds until a restart.
    pub async fn heed(&self, soft: bool, selectors: &[Selector]) -> bool {
        let how = if soft { Manner::Soft } else { Manner::Hard };
        let (mark, _) = self.shelf.purge(how, selectors);
        self.leave_trips(mark, selectors);
        self.shelf.is_lent() || self.shelf.record_here(mark, selectors).await
    }
}
