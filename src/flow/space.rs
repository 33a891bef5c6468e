//! Makes room on disk before it is needed, and tidies up behind the requests.
//!
//! ```text
//! asked, or once a second:
//!   entries that a purge covers or that can serve nothing are swept, some at a time
//!   packs with nothing alive ─► dropped
//!   more alive than may be   ─► evict the coldest entries, so that packs empty out
//!   the emptiest packs       ─► their used entries move to the open pack, the rest go; dropped
//!   small packs of quiet times are merged the same way
//!   a long journal gets a snapshot
//! ```
//!
//! All of it runs on one thread of its own; requests meet it only where they wait for room.

use super::shelf::Shelf;
use super::shelf::lock;
use crate::clock;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::store::NewPiece;
use crate::store::Piece;
use crate::store::StoreError;
use crate::store::head;
use bytes::Bytes;
use hashbrown::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

/// The room kept free below a limit, so that fills seldom wait: four packs, or a part of the limit.
pub(super) fn slack(limit: u64) -> u64 {
    (4 * PACK_BYTES).max(limit / 32).min(limit / 2)
}

/// Starts the thread. It ends after [`close`].
pub(super) fn start(shelf: &Arc<Shelf>) -> io::Result<thread::JoinHandle<()>> {
    let shelf = Arc::clone(shelf);
    thread::Builder::new()
        .name("larder-space".to_owned())
        .spawn(move || run(&shelf))
}

/// Asks the thread to end.
pub(super) fn close(shelf: &Shelf) {
    lock(&shelf.wanting.0).close = true;
    shelf.wanting.1.notify_one();
}

fn run(shelf: &Arc<Shelf>) {
    let mut next_sweep = None;
    let mut snapshot: Option<thread::JoinHandle<()>> = None;
    loop {
        let wanting = lock(&shelf.wanting.0);
        let (mut wanting, _) = shelf
            .wanting
            .1
            .wait_timeout_while(wanting, TICK, |w| !w.room && !w.close)
            .unwrap_or_else(PoisonError::into_inner);
        if wanting.close {
            break;
        }
        wanting.room = false;
        drop(wanting);
        next_sweep = shelf.sweep(next_sweep.unwrap_or(0));
        shelf.make_room();
        shelf.room.notify_waiters();
        shelf.drop_empty_packs();
        shelf.merge_small_packs();
        if snapshot
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
            && shelf.store.wants_snapshot()
        {
            let shelf = Arc::clone(shelf);
            snapshot = thread::Builder::new()
                .name("larder-snapshot".to_owned())
                .spawn(move || shelf.snapshot())
                .ok();
        }
    }
    if let Some(snapshot) = snapshot {
        // A snapshot that panicked has left the old journal in place.
        drop(snapshot.join());
    }
}

impl Shelf {
    fn make_room(&self) {
        for _ in 0..ROUNDS_MAX {
            let usage = self.store.usage();
            let slack = slack(usage.limit);
            if usage.allocated + slack <= usage.limit {
                return;
            }
            if self.drop_empty_packs() > 0 {
                continue;
            }
            let room = usage.limit - slack;
            // A tenth of the room is for what has died in packs that still hold living parts.
            let live_max = room / 10 * 9;
            let live = self.read_index().live_bytes();
            if live > live_max && self.evict((live - live_max).max(PACK_BYTES)) {
                continue;
            }
            let emptiest = self.emptiest_packs(|live, allocated| live * 4 <= allocated * 3);
            if emptiest.is_empty() {
                if !self.evict(PACK_BYTES) {
                    return;
                }
            } else if !self.compact(&emptiest, Keep::Used) {
                self.clear(&emptiest);
            }
        }
    }

    /// Evicts entries of `bytes` altogether; `false` when there was nothing to evict.
    fn evict(&self, bytes: u64) -> bool {
        let mut any = false;
        let start = self.read_index().live_bytes();
        let until = start.saturating_sub(bytes);
        loop {
            // In batches, so that lookups get in between.
            let mut gone = Vec::new();
            let live = {
                let mut index = self.write_index();
                while index.live_bytes() > until && gone.len() < BATCH {
                    let Some(found) = index.evict() else {
                        break;
                    };
                    gone.push(found.sequence);
                }
                index.live_bytes()
            };
            self.forget_hot(&gone);
            for sequence in &gone {
                self.store.record_remove(*sequence);
            }
            any |= !gone.is_empty();
            self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
            if gone.len() < BATCH || live <= until {
                return any;
            }
        }
    }

    pub(super) fn drop_empty_packs(&self) -> usize {
        let empty: Vec<PackId> = {
            // Nobody is between an append and its index change while this is held.
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let packs = self.store.packs();
            let index = self.read_index();
            packs
                .into_iter()
                .map(|(pack, _)| pack)
                .filter(|pack| index.live(*pack) == 0 && !self.is_pinned(*pack))
                .collect()
        };
        for pack in &empty {
            self.store.drop_pack(*pack);
        }
        empty.len()
    }

    /// The packs with the least alive among those that `worth` picks by live and allocated bytes;
    /// together they hold no more than one pack's worth.
    fn emptiest_packs(&self, worth: impl Fn(u64, u64) -> bool) -> Vec<PackId> {
        let mut packs: Vec<(u64, PackId)> = {
            let packs = self.store.packs();
            let index = self.read_index();
            packs
                .into_iter()
                .map(|(pack, allocated)| (index.live(pack), allocated, pack))
                .filter(|(live, allocated, _)| worth(*live, *allocated))
                .map(|(live, _, pack)| (live, pack))
                .collect()
        };
        packs.retain(|(_, pack)| !self.is_pinned(*pack));
        packs.sort_unstable();
        let mut sum = 0;
        packs
            .into_iter()
            .take_while(|(live, _)| {
                sum += live;
                sum <= PACK_BYTES
            })
            .map(|(_, pack)| pack)
            .collect()
    }

    /// Moves what is alive (or used) out of `packs` and drops them; `false` when there was no room
    /// to move anything to.
    fn compact(&self, packs: &[PackId], keep: Keep) -> bool {
        let mut moved = HashSet::new();
        let mut emptied = Vec::new();
        for pack in packs {
            match self.empty(*pack, keep, &mut moved) {
                Ok(()) => emptied.push(*pack),
                Err(StoreError::NoRoom | StoreError::PassThrough(_)) => break,
                Err(error) => {
                    tracing::warn!(%error, "a pack could not be compacted; what it held is dropped");
                    self.clear(&[*pack]);
                }
            }
        }
        // The new places are journaled before the old ones go.
        for put in self.read_index_residents(&moved) {
            self.journal(put);
        }
        let flushed = block_on(self.store.flush());
        if !emptied.is_empty() && flushed {
            self.drop_empty_packs();
        }
        !emptied.is_empty()
    }

    fn read_index_residents(&self, packs: &HashSet<PackId>) -> Vec<Put> {
        if packs.is_empty() {
            return Vec::new();
        }
        self.read_index().residents(packs)
    }

    /// Moves every living part of one pack; entries nobody asked for lately go instead when `keep`
    /// says so. The packs that took parts in are added to `moved`.
    fn empty(
        &self,
        pack: PackId,
        keep: Keep,
        moved: &mut HashSet<PackId>,
    ) -> Result<(), StoreError> {
        let pieces = self.store.pieces(pack)?;
        if keep == Keep::Used {
            self.evict_unused(&pieces);
        }
        for piece in pieces {
            let to = match piece {
                Piece::Head { key, location, .. } => {
                    if self.read_index().head_at(key, location).is_none() {
                        continue;
                    }
                    let bytes = self.store.read(location)?;
                    head::decode(&bytes).ok_or(StoreError::Corrupt { location })?;
                    self.relocate(&piece, NewPiece::Head(bytes))?
                }
                Piece::Segment {
                    digest, location, ..
                } => {
                    if !self.read_index().segment_at(digest, location) {
                        continue;
                    }
                    let bytes = self.checked(digest, location)?;
                    self.relocate(&piece, NewPiece::Segment(digest, bytes))?
                }
            };
            moved.insert(to);
        }
        Ok(())
    }

    fn checked(&self, digest: Digest, location: Location) -> Result<Bytes, StoreError> {
        let bytes = self.store.read(location)?;
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        self.store.count_corrupt();
        Err(StoreError::Corrupt { location })
    }

    fn evict_unused(&self, pieces: &[Piece]) {
        let mut gone = Vec::new();
        for piece in pieces {
            let Piece::Head { key, location, .. } = piece else {
                continue;
            };
            let mut index = self.write_index();
            if let Some((sequence, false)) = index.head_at(*key, *location)
                && index.remove(*key, sequence)
            {
                gone.push(sequence);
            }
        }
        self.forget_hot(&gone);
        for sequence in &gone {
            self.store.record_remove(*sequence);
        }
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
    }

    fn relocate(&self, piece: &Piece, bytes: NewPiece) -> Result<PackId, StoreError> {
        let (Piece::Head { sequence, key, .. } | Piece::Segment { sequence, key, .. }) = piece;
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let places = self.store.append(None, *sequence, *key, &[bytes])?;
        let to = *places.first().ok_or(StoreError::NoRoom)?;
        let mut index = self.write_index();
        // What went away in the meantime leaves a dead piece behind, no more.
        match *piece {
            Piece::Head { key, location, .. } => index.move_head(key, location, to),
            Piece::Segment {
                digest, location, ..
            } => index.move_segment(digest, location, to),
        };
        Ok(to.pack)
    }

    /// Removes every entry with a part in `packs`, and drops them.
    fn clear(&self, packs: &[PackId]) {
        let packs: HashSet<PackId> = packs.iter().copied().collect();
        let residents = self.read_index().residents(&packs);
        for put in &residents {
            self.write_index().remove(put.key, put.sequence);
            self.memory.remove(put.sequence);
            self.store.record_remove(put.sequence);
        }
        self.evicted
            .fetch_add(residents.len() as u64, Ordering::Relaxed);
        self.drop_empty_packs();
    }

    fn merge_small_packs(&self) {
        let small = self.emptiest_packs(|_, allocated| allocated < PACK_BYTES / 8);
        if small.len() >= MERGE_MIN {
            self.compact(&small, Keep::All);
        }
    }

    /// Sweeps some places, and goes on for as long as most of what it finds must go, as after a
    /// purge of everything: nothing that is wanted is to be evicted before.
    fn sweep(&self, from: u32) -> Option<u32> {
        let now = clock::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let mut from = from;
        loop {
            let (gone, next) = self.write_index().sweep(from, SWEEP, now.as_secs());
            self.forget_hot(&gone);
            for sequence in &gone {
                self.store.record_remove(*sequence);
            }
            if gone.len() < SWEEP_MANY {
                return next;
            }
            from = next?;
        }
    }

    fn snapshot(&self) {
        let mut from = Some(0);
        let written = self.store.snapshot(&mut || {
            while let Some(start) = from {
                let (puts, next) = self.read_index().page(start, SWEEP);
                from = next;
                if !puts.is_empty() {
                    return puts;
                }
            }
            Vec::new()
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the journal's snapshot could not be written");
        }
    }
}

/// What a compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Everything alive.
    All,
    /// What was asked for lately.
    Used,
}

/// Waits for the store on this thread, which may block.
fn block_on<T>(flush: impl Future<Output = Result<T, StoreError>>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.is_ok_and(|runtime| runtime.block_on(flush).is_ok())
}

const PACK_BYTES: u64 = 4 << 20;
const TICK: Duration = Duration::from_secs(1);
const ROUNDS_MAX: usize = 1024;
const BATCH: usize = 256;
const SWEEP: u32 = 4096;
const SWEEP_MANY: usize = 2048;
const MERGE_MIN: usize = 32;
