//! What the journal is told, and what it tells at the next start.

use super::Shelf;
use super::lock;
use crate::rules::address::BodyName;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use crate::state::index::Index;
use crate::state::index::VARIANTS_MAX;
use crate::store::Heir;
use crate::store::Keeper;
use crate::store::Record;
use hashbrown::HashMap;
use hashbrown::HashSet;
use std::sync::Weak;

/// Builds the index from the journal.
#[derive(Default)]
pub(super) struct Replay {
    index: Index,
    /// Puts to be taken in together: that is twice as fast.
    waiting: Vec<Put>,
    /// Shared bodies that a record has moved, and whose records say so: a kill between the records
    /// of a compaction leaves some that name the old place.
    moved: HashMap<BodyName, HashSet<(PrimaryKey, Sequence)>>,
}

impl Replay {
    /// The index as it was, and the entries that must be recorded anew before a pack is dropped:
    /// what the journal says of them would be lost with it.
    pub(super) fn finish(mut self) -> (Index, Vec<Put>) {
        self.settle();
        // What a purge of everything covers has lost its packs: its bodies must not be counted on.
        drop(self.index.sweep(0, u32::MAX, 0));
        self.index.limit_variants(VARIANTS_MAX);
        let index = self.index;
        self.moved.retain(|body, told| {
            told.retain(|(key, sequence)| index.contains(*key, *sequence));
            u32::try_from(told.len()).is_ok_and(|told| told < index.references(*body))
        });
        let untold = if self.moved.is_empty() {
            Vec::new()
        } else {
            let (mut puts, _) = index.page(0, u32::MAX);
            puts.retain(|put| self.moved.contains_key(&put.body));
            puts
        };
        (index, untold)
    }

    fn settle(&mut self) {
        let moved = &mut self.moved;
        self.index.restore_all(&self.waiting, |put, others| {
            if others {
                moved.insert(put.body, HashSet::new());
            }
            if let Some(told) = moved.get_mut(&put.body) {
                told.insert((put.key, put.sequence));
            }
        });
        self.waiting.clear();
    }
}

impl Heir for Replay {
    fn expect(&mut self, puts: u32) {
        self.index.reserve(puts);
        // As many were let in as there are; how many may be is said when all are here.
        self.index.limit_variants(usize::MAX);
    }

    fn needs(&self, pack: PackId) -> bool {
        self.index.live(pack) > 0
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
            Record::Purge { mark, selector } => {
                self.settle();
                self.index.restore_mark(mark, &selector);
            }
        }
    }
}

impl Shelf {
    /// Hands an entry's record to the journal. False when a pack of it was lost before its entry
    /// could be found there: then it is forgotten.
    pub(super) fn journal(&self, put: Put) -> bool {
        lock(&self.pending)
            .entry(put.sequence)
            .or_insert((put.key, 0))
            .1 += 1;
        let Some(put) = self.store.record_put(put) else {
            return true;
        };
        self.settle(put.sequence);
        let mut index = self.write_index();
        if index.place(put.key, put.sequence).as_ref() != Some(&put) {
            // It has moved, and another record says where to.
            return true;
        }
        index.remove(put.key, put.sequence);
        drop(index);
        self.memory.remove(put.sequence);
        false
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
