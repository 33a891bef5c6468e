//! What the journal is told, and what it tells at the next start.

use super::Shelf;
use super::lock;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::state::index::Index;
use crate::store::Heir;
use crate::store::Keeper;
use crate::store::Record;
use std::sync::Weak;

/// Builds the index from the journal.
#[derive(Default)]
pub(super) struct Replay {
    index: Index,
    /// Puts to be taken in together: that is twice as fast.
    waiting: Vec<Put>,
}

impl Replay {
    /// The index as it was.
    pub(super) fn finish(mut self) -> Index {
        self.settle();
        // What a purge of everything covers has lost its packs: its bodies must not be counted on.
        drop(self.index.sweep(0, u32::MAX, 0));
        self.index
    }

    fn settle(&mut self) {
        self.index.restore_all(&self.waiting);
        self.waiting.clear();
    }
}

impl Heir for Replay {
    fn expect(&mut self, puts: u32) {
        self.index.reserve(puts);
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Put(put) => {
                self.waiting.push(put);
                if self.waiting.len() >= TOGETHER {
                    self.settle();
                }
            }
            Record::Remove(_) => {}
            Record::Purge { sequence, selector } => {
                self.settle();
                match selector {
                    Selector::All => self.index.mark_all(sequence),
                    Selector::Tag(tag) => self.index.mark_tag(tag, sequence),
                    Selector::Url(key) => drop(self.index.mark_key(key, sequence)),
                }
            }
        }
    }
}

impl Shelf {
    /// Hands an entry's record to the journal.
    pub(super) fn journal(&self, put: Put) {
        lock(&self.pending)
            .entry(put.sequence)
            .or_insert((put.key, 0))
            .1 += 1;
        self.store.record_put(put);
    }

    /// One record fewer is waiting for this entry; says whose it was.
    pub(super) fn settle(&self, sequence: Sequence) -> Option<PrimaryKey> {
        let mut pending = lock(&self.pending);
        let (key, records) = pending.get_mut(&sequence)?;
        let key = *key;
        *records -= 1;
        if *records == 0 {
            pending.remove(&sequence);
        }
        Some(key)
    }
}

/// Answers the store's questions for as long as the shelf stands.
pub(super) struct Witness(pub(super) Weak<Shelf>);

impl Keeper for Witness {
    fn wanted(&self, sequence: Sequence) -> bool {
        let Some(shelf) = self.0.upgrade() else {
            return false;
        };
        let key = shelf.settle(sequence);
        key.is_some_and(|key| shelf.read_index().contains(key, sequence))
    }

    fn lost(&self, packs: &[PackId]) {
        let Some(shelf) = self.0.upgrade() else {
            return;
        };
        let packs = packs.iter().copied().collect();
        let residents = shelf.residents(&packs);
        // In batches, so that lookups get in between.
        for puts in residents.chunks(BATCH) {
            let mut index = shelf.write_index();
            for put in puts {
                index.remove(put.key, put.sequence);
                shelf.memory.remove(put.sequence);
            }
        }
    }

    fn sealed(&self, _pack: PackId, _allocated: u64) {
        if let Some(shelf) = self.0.upgrade() {
            shelf.room.notify_waiters();
            let usage = shelf.store.usage();
            if usage.allocated + super::space::slack(usage.limit) > usage.limit {
                shelf.ask_for_room();
            }
        }
    }
}

const BATCH: usize = 256;
const TOGETHER: usize = 64;
