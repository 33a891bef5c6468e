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
//!   packs are read for damage, at a bounded rate, if so configured
//! ```
//!
//! All of it runs on one thread of its own; requests meet it only where they wait for room.

use super::Shelf;
use super::lock;
use super::upkeep::Task;
use crate::clock;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::tag::TagKey;
use crate::store::NewPiece;
use crate::store::PACK_BYTES_MAX;
use crate::store::Piece;
use crate::store::Record;
use crate::store::StoreError;
use crate::store::head;
use bytes::Bytes;
use hashbrown::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

/// The room kept free below a limit, so that fills seldom wait: four packs, or a part of the limit.
pub(super) fn slack(limit: u64) -> u64 {
    (4 * PACK_BYTES).max(limit / 32).min(limit / 2)
}

/// Starts the thread. It ends after [`close`].
/// It reads as many bytes a second of the packs, to find damage; 0 for none.
pub fn start(
    shelf: &Arc<Shelf>,
    scrub_bytes_per_second: u64,
) -> io::Result<thread::JoinHandle<()>> {
    let shelf = Arc::clone(shelf);
    let scrubber = Scrubber::new(scrub_bytes_per_second, clock::instant());
    thread::Builder::new()
        .name("larder-space".to_owned())
        .spawn(move || run(&shelf, scrubber))
}

/// Asks the thread to end.
pub fn close(shelf: &Shelf) {
    lock(&shelf.wanting.0).close = true;
    shelf.wanting.1.notify_one();
}

fn run(shelf: &Arc<Shelf>, mut scrubber: Scrubber) {
    let mut next_sweep = None;
    let mut snapshots = Snapshots::default();
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
        shelf.upkeep.begin(Task::Sweeping);
        next_sweep = shelf.sweep(next_sweep.unwrap_or(0));
        shelf.make_room();
        shelf.room.notify_waiters();
        shelf.drop_empty_packs();
        shelf.merge_small_packs();
        snapshots.tend(shelf, clock::instant());
        shelf.upkeep.begin(Task::Scrubbing);
        scrubber.tend(shelf, clock::instant());
        shelf.upkeep.begin(Task::Resting);
    }
    if let Some(running) = snapshots.running {
        // A snapshot that panicked has left the old journal in place.
        drop(running.join());
    }
}

/// Writes snapshots of the journal, one at a time and on a thread of its own.
#[derive(Default)]
struct Snapshots {
    running: Option<thread::JoinHandle<bool>>,
    /// Not before: one that failed would most likely fail again at once.
    rest_until: Option<Instant>,
}

impl Snapshots {
    fn tend(&mut self, shelf: &Arc<Shelf>, now: Instant) {
        if let Some(ended) = self.running.take_if(|running| running.is_finished())
            && !ended.join().unwrap_or(false)
        {
            self.rest_until = Some(now + SNAPSHOT_REST);
        }
        let rests = self.rest_until.is_some_and(|until| now < until);
        if self.running.is_none() && !rests && shelf.store.wants_snapshot() {
            let shelf = Arc::clone(shelf);
            self.running = thread::Builder::new()
                .name("larder-snapshot".to_owned())
                .spawn(move || shelf.snapshot())
                .ok();
        }
    }
}

impl Shelf {
    pub(super) fn make_room(&self) {
        for _ in 0..ROUNDS_MAX {
            let usage = self.store.usage();
            let slack = slack(usage.limit);
            if usage.allocated + slack <= usage.limit || !self.store.can_use_room() {
                return;
            }
            let (dropped, refused) = self.drop_empty();
            if refused {
                // Evicting would make no room.
                return;
            }
            if dropped > 0 {
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
        self.upkeep.begin(Task::Evicting);
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
            self.upkeep.count_evicted(gone.len());
            if gone.len() < BATCH || live <= until {
                return any;
            }
        }
    }

    pub(in crate::flow) fn drop_empty_packs(&self) -> usize {
        self.drop_empty().0
    }

    /// Drops the packs with nothing alive; how many, and whether the disk refused to delete one.
    fn drop_empty(&self) -> (usize, bool) {
        if !self.store.can_use_room() {
            return (0, false);
        }
        self.upkeep.begin(Task::Dropping);
        let packs = self.store.packs();
        let mut empty: Vec<PackId> = {
            let index = self.read_index();
            let packs = packs.iter().map(|(pack, _)| *pack);
            packs.filter(|pack| index.live(*pack) == 0).collect()
        };
        if !empty.is_empty() {
            // Nobody is between an append and its index change while this is held. Requests wait
            // for it: only those few packs are looked at again.
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let index = self.read_index();
            empty.retain(|pack| index.live(*pack) == 0 && !self.is_pinned(*pack));
        }
        // Where one cannot be deleted, as on a disk that became read-only, nor can the others.
        let dropped = empty.iter().take_while(|pack| self.store.drop_pack(**pack));
        let dropped = dropped.inspect(|_| self.upkeep.count_dropped()).count();
        (dropped, dropped < empty.len())
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
    pub(super) fn compact(&self, packs: &[PackId], keep: Keep) -> bool {
        self.upkeep.begin(Task::Compacting);
        let mut moved = Moved::default();
        let mut emptied = Vec::new();
        for pack in packs {
            match self.empty(*pack, keep, &mut moved) {
                Ok(()) => {
                    self.upkeep.count_emptied();
                    emptied.push(*pack);
                }
                Err(StoreError::NoRoom | StoreError::PassThrough(_)) => break,
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "a pack cannot be compacted now");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a pack could not be compacted; what it held is dropped");
                    self.clear(&[*pack]);
                }
            }
        }
        // The new places are journaled before the old ones go.
        for put in self.places(&moved) {
            self.journal(put);
        }
        let flushed = block_on(self.store.flush());
        if !emptied.is_empty() && flushed {
            self.drop_empty_packs();
        }
        !emptied.is_empty()
    }

    /// Where the parts of what was moved are now.
    fn places(&self, moved: &Moved) -> Vec<Put> {
        let places = moved.entries.iter();
        let mut places: Vec<Put> = places
            .filter_map(|(key, sequence)| self.read_index().place(*key, *sequence))
            .collect();
        if !moved.shared.is_empty() {
            places.extend(self.residents(&moved.shared));
        }
        places
    }

    /// The entries that have a part in one of `packs`. Looks at every entry, some at a time, so that
    /// requests get in between.
    pub(super) fn residents(&self, packs: &HashSet<PackId>) -> Vec<Put> {
        let mut residents = Vec::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let (puts, next) = self.read_index().residents(packs, start, SWEEP);
            residents.extend(puts);
            from = next;
        }
        residents
    }

    /// Moves every living part of one pack; entries nobody asked for lately go instead when `keep`
    /// says so.
    fn empty(&self, pack: PackId, keep: Keep, moved: &mut Moved) -> Result<(), StoreError> {
        let pieces = match self.store.pieces(pack) {
            Err(StoreError::Corrupt { .. }) => {
                self.store.count_corrupt();
                self.parts_in(pack)
            }
            Err(error @ StoreError::Io { .. }) if !error.may_pass() => self.parts_in(pack),
            pieces => pieces?,
        };
        if keep == Keep::Used {
            self.evict_unused(&pieces);
        }
        for piece in pieces {
            let sound = match &piece {
                Piece::Head { key, location, .. } => {
                    if self.read_index().head_at(*key, *location).is_none() {
                        continue;
                    }
                    self.sound_head(*location).map(NewPiece::Head)
                }
                Piece::Segment {
                    digest, location, ..
                } => {
                    if !self.read_index().segment_at(*digest, *location) {
                        continue;
                    }
                    let bytes = self.sound_segment(*digest, *location);
                    bytes.map(|bytes| NewPiece::Segment(*digest, bytes))
                }
            };
            match sound {
                Ok(bytes) => self.relocate(&piece, bytes, moved)?,
                Err(StoreError::Corrupt { location }) => self.give_up(location),
                Err(error @ StoreError::Io { .. }) if !error.may_pass() => {
                    let (Piece::Head { location, .. } | Piece::Segment { location, .. }) = piece;
                    self.give_up(location);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is alive in a pack whose own table cannot be read. Looks at every entry.
    fn parts_in(&self, pack: PackId) -> Vec<Piece> {
        let residents = self.residents(&HashSet::from_iter([pack]));
        let mut pieces = Vec::new();
        for put in residents {
            let (sequence, key) = (put.sequence, put.key);
            if put.head.pack == pack {
                let location = put.head;
                pieces.push(Piece::Head {
                    sequence,
                    key,
                    location,
                });
            }
            if !put.parts.locations().any(|place| place.pack == pack) {
                continue;
            }
            // What several entries share comes several times; once moved it is passed over.
            let Some(segments) = self.segments(put) else {
                continue;
            };
            let inside = segments.iter().filter(|s| s.location.pack == pack);
            pieces.extend(inside.map(|segment| Piece::Segment {
                digest: segment.digest,
                sequence,
                key,
                location: segment.location,
            }));
        }
        pieces
    }

    /// The parts of an entry's body. Only the head knows the digest of one in a single segment: an
    /// entry whose head is damaged is forgotten.
    fn segments(&self, put: Put) -> Option<Vec<Segment>> {
        if let Parts::Many(segments) = put.parts {
            return Some(segments);
        }
        match self.sound_head(put.head) {
            Ok(bytes) => {
                let (_, head) = head::decode(&bytes)?;
                Some(put.parts.segments(head.body))
            }
            Err(StoreError::Corrupt { location }) => {
                self.give_up(location);
                None
            }
            Err(_) => None,
        }
    }

    fn sound_head(&self, location: Location) -> Result<Bytes, StoreError> {
        let bytes = self.store.read(location)?;
        head::decode(&bytes).ok_or(StoreError::Corrupt { location })?;
        Ok(bytes)
    }

    fn sound_segment(&self, digest: Digest, location: Location) -> Result<Bytes, StoreError> {
        let bytes = self.store.read(location)?;
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        Err(StoreError::Corrupt { location })
    }

    /// Removes the entries with a part at `location`, which is damaged, and counts it. Looks at
    /// every entry.
    fn give_up(&self, location: Location) {
        tracing::warn!(
            ?location,
            "stored bytes are damaged; who needs them is forgotten"
        );
        self.store.count_corrupt();
        let residents = self.residents(&HashSet::from_iter([location.pack]));
        for put in residents {
            if places(&put).any(|place| place == location)
                && self.write_index().remove(put.key, put.sequence)
            {
                self.memory.remove(put.sequence);
                self.store.record_remove(put.sequence);
            }
        }
    }

    /// Checks every bit of a pack, and moves what is sound out of one that is damaged. Returns
    /// whether it was intact.
    pub(super) fn scrub(&self, pack: PackId) -> bool {
        match self.store.is_intact(pack) {
            Ok(true) => true,
            Ok(false) => {
                tracing::warn!(
                    pack = pack.0,
                    "a pack is damaged; what is sound moves out of it"
                );
                let before = self.store.usage().corrupt;
                self.compact(&[pack], Keep::All);
                if self.store.usage().corrupt == before {
                    // It was in no part that is alive.
                    self.store.count_corrupt();
                }
                false
            }
            Err(StoreError::Missing(_)) => {
                if self.store.packs().iter().any(|(known, _)| *known == pack) {
                    tracing::warn!(pack = pack.0, "a pack's file is gone");
                    self.store.count_corrupt();
                    self.clear(&[pack]);
                }
                false
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(pack = pack.0, %error, "a pack could not be read now");
                false
            }
            Err(error) => {
                tracing::warn!(pack = pack.0, %error, "what can be read moves out of a pack");
                self.compact(&[pack], Keep::All);
                false
            }
        }
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
        self.upkeep.count_evicted(gone.len());
    }

    fn relocate(
        &self,
        piece: &Piece,
        bytes: NewPiece,
        moved: &mut Moved,
    ) -> Result<(), StoreError> {
        let (Piece::Head { sequence, key, .. } | Piece::Segment { sequence, key, .. }) = *piece;
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let places = self.store.append(None, sequence, key, &[bytes])?;
        let to = *places.first().ok_or(StoreError::NoRoom)?;
        self.upkeep.count_moved(to.bytes);
        let mut index = self.write_index();
        // What went away in the meantime leaves a dead piece behind, no more.
        match *piece {
            Piece::Head { location, .. } => {
                if index.move_head(key, location, to)
                    && let Some((sequence, _)) = index.head_at(key, to)
                {
                    moved.entries.insert((key, sequence));
                }
            }
            Piece::Segment {
                digest, location, ..
            } => {
                if index.move_segment(digest, location, to) {
                    match index.sole_users(key, digest, to) {
                        Some(users) => moved.entries.extend(users.into_iter().map(|s| (key, s))),
                        None => {
                            moved.shared.insert(to.pack);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes every entry with a part in `packs`, and drops them.
    fn clear(&self, packs: &[PackId]) {
        let packs: HashSet<PackId> = packs.iter().copied().collect();
        let residents = self.residents(&packs);
        for put in &residents {
            self.write_index().remove(put.key, put.sequence);
            self.memory.remove(put.sequence);
            self.store.record_remove(put.sequence);
        }
        self.upkeep.count_evicted(residents.len());
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
            let (gone, next, mark) = {
                let mut index = self.write_index();
                let (gone, next) = index.sweep(from, SWEEP, now.as_secs());
                (gone, next, index.mark())
            };
            self.forget_hot(&gone);
            // What a mark covers, the record of its purge covers too.
            for sequence in gone.iter().filter(|sequence| **sequence >= mark) {
                self.store.record_remove(*sequence);
            }
            if gone.len() < SWEEP_MANY {
                return next;
            }
            from = next?;
        }
    }

    pub(super) fn snapshot(&self) -> bool {
        let mut from = Some(0);
        let mut marks = true;
        let written = self.store.snapshot(&mut || {
            // Taken after the new journal began: later marks are in that.
            if std::mem::take(&mut marks) {
                let marks = self.read_index().tag_marks();
                if !marks.is_empty() {
                    return marks.into_iter().map(marked).collect();
                }
            }
            while let Some(start) = from {
                let (puts, next) = self.read_index().page(start, SWEEP);
                from = next;
                if !puts.is_empty() {
                    return puts.into_iter().map(Record::Put).collect();
                }
            }
            Vec::new()
        });
        match &written {
            Ok(()) => self.upkeep.count_snapshot(),
            Err(error) => tracing::warn!(%error, "the journal's snapshot could not be written"),
        }
        written.is_ok()
    }
}

/// All the places a put names.
fn places(put: &Put) -> impl Iterator<Item = Location> + '_ {
    std::iter::once(put.head).chain(put.parts.locations())
}

/// Reads packs that nobody may have read for long, round and round, at a bounded rate.
#[derive(Debug)]
struct Scrubber {
    bytes_per_second: u64,
    /// Bytes that may be read now, in thousandths; below zero after a pack larger than that.
    credit: i128,
    /// Where the round goes on.
    next: PackId,
    before: Instant,
}

impl Scrubber {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            bytes_per_second,
            credit: 0,
            next: PackId(0),
            before: now,
        }
    }

    /// Checks as many packs as the time since the last call allows; at most a second's worth.
    fn tend(&mut self, shelf: &Shelf, now: Instant) {
        if self.bytes_per_second == 0 {
            return;
        }
        let second = i128::from(self.bytes_per_second).saturating_mul(1000);
        let passed = now.saturating_duration_since(self.before).as_millis();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let earned = passed.saturating_mul(self.bytes_per_second.into());
        self.before = now;
        self.credit = self.credit.saturating_add(earned).min(second);
        if self.credit <= 0 {
            return;
        }
        let mut packs = shelf.store.packs();
        packs.sort_unstable();
        let from = packs.partition_point(|(pack, _)| *pack < self.next);
        packs.rotate_left(from);
        for (pack, allocated) in packs {
            if self.credit <= 0 {
                return;
            }
            shelf.scrub(pack);
            self.next = PackId(pack.0.saturating_add(1));
            self.credit -= i128::from(allocated).saturating_mul(1000);
        }
    }
}

/// The record of a mark on a tag.
fn marked((tag, sequence): (TagKey, Sequence)) -> Record {
    Record::Purge {
        sequence,
        selector: Selector::Tag(tag),
    }
}

/// What a compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Everything alive.
    All,
    /// What was asked for lately.
    Used,
}

/// What a compaction has moved, and whose records must say so.
#[derive(Default)]
struct Moved {
    entries: HashSet<(PrimaryKey, Sequence)>,
    /// Packs that took in bodies which other keys use too: all who have a part there are told.
    shared: HashSet<PackId>,
}

/// Waits for the store on this thread, which may block.
fn block_on<T>(flush: impl Future<Output = Result<T, StoreError>>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.is_ok_and(|runtime| runtime.block_on(flush).is_ok())
}

const PACK_BYTES: u64 = PACK_BYTES_MAX as u64;
const TICK: Duration = Duration::from_secs(1);
const ROUNDS_MAX: usize = 1024;
const BATCH: usize = 256;
const SWEEP: u32 = 4096;
const SWEEP_MANY: usize = 2048;
const MERGE_MIN: usize = 32;
const SNAPSHOT_REST: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::super::StoredBody;
    use super::super::tests::found;
    use super::super::tests::keep;
    use super::super::tests::open;
    use super::*;
    use tempfile::TempDir;

    const KEYS: [PrimaryKey; 3] = [
        PrimaryKey([1; 16]),
        PrimaryKey([2; 16]),
        PrimaryKey([3; 16]),
    ];

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    fn body_of(shelf: &Arc<Shelf>, key: PrimaryKey) -> Option<Bytes> {
        let stored = wait(shelf.load(found(shelf, key)?))?;
        match stored.body {
            StoredBody::Memory(body) => Some(body),
            StoredBody::Segments(..) => None,
        }
    }

    #[test]
    fn what_a_compaction_moved_is_found_now_and_after_a_start() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        wait(keep(&shelf, KEYS[0], "goes"));
        // Two keys with one body: both must learn where it went.
        wait(keep(&shelf, KEYS[1], "stays"));
        wait(keep(&shelf, KEYS[2], "stays"));
        wait(shelf.store.flush()).unwrap();
        let gone = found(&shelf, KEYS[0]).unwrap();
        shelf.remove(gone);
        let before: Vec<PackId> = shelf.store.packs().iter().map(|(pack, _)| *pack).collect();
        assert!(shelf.compact(&before, Keep::All));
        let after = shelf.store.packs();
        assert!(after.iter().all(|(pack, _)| !before.contains(pack)));
        assert_eq!(body_of(&shelf, KEYS[1]).unwrap(), "stays");
        shelf.close();
        drop(shelf);
        let shelf = open(&dir);
        assert_eq!(found(&shelf, KEYS[0]), None);
        assert_eq!(body_of(&shelf, KEYS[1]).unwrap(), "stays");
        assert_eq!(body_of(&shelf, KEYS[2]).unwrap(), "stays");
    }

    #[test]
    fn a_compaction_under_pressure_keeps_only_what_was_asked_for() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        wait(keep(&shelf, KEYS[0], "unasked"));
        wait(keep(&shelf, KEYS[1], "asked"));
        wait(shelf.store.flush()).unwrap();
        assert!(found(&shelf, KEYS[1]).is_some());
        let packs: Vec<PackId> = shelf.store.packs().iter().map(|(pack, _)| *pack).collect();
        assert!(shelf.compact(&packs, Keep::Used));
        assert_eq!(found(&shelf, KEYS[0]), None);
        assert_eq!(body_of(&shelf, KEYS[1]).unwrap(), "asked");
    }

    #[test]
    fn a_snapshot_that_failed_is_not_tried_again_at_once() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        // A long journal asks for a snapshot.
        for sequence in 0..70_000 {
            shelf.store.record_remove(Sequence(sequence));
        }
        wait(shelf.store.flush()).unwrap();
        // A folder where the snapshot belongs: as good as a broken disk.
        let journal = dir.path().join("store/journal");
        std::fs::create_dir(journal.join("2.new")).unwrap();
        let mut snapshots = Snapshots::default();
        let now = clock::instant();
        snapshots.tend(&shelf, now);
        while !snapshots.running.as_ref().unwrap().is_finished() {
            thread::yield_now();
        }
        snapshots.tend(&shelf, now);
        assert!(snapshots.running.is_none());
        assert!(shelf.store.wants_snapshot());
        std::fs::remove_dir(journal.join("2.new")).unwrap();
        snapshots.tend(&shelf, now + SNAPSHOT_REST);
        assert!(snapshots.running.unwrap().join().unwrap());
    }
}
