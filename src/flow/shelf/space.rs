//! Makes room on disk before it is needed, and tidies up behind the requests.
//!
//! ```text
//! asked, or once a second:
//!   entries that a purge covers or that can serve nothing are swept, some at a time; those that a
//!     purge covers by what their heads say are looked for, see `search`
//!   packs with nothing alive ─► dropped
//!   no pack empty enough     ─► evict the coldest entries, so that packs empty out
//!   the emptiest packs       ─► what is alive in them moves into one pack; dropped
//!   small packs of quiet times are merged the same way
//!   a long journal gets a snapshot
//!   packs are read for damage, at a bounded rate, if so configured
//! ```
//!
//! All of it runs on one thread of its own; requests meet it only where they wait for room, and at the
//! locks, which it holds for a bounded number of entries or packs at a time.

use super::Shelf;
use super::catalog::Finding;
use super::lock;
use super::search::Search;
use super::upkeep::Eviction;
use super::upkeep::Task;
use crate::clock;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use crate::state::index::Index;
use crate::store::Lane;
use crate::store::NewPiece;
use crate::store::PACK_BYTES_MIN;
use crate::store::Piece;
use crate::store::Record;
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
use std::time::Instant;
use std::time::SystemTime;

/// The room kept free below a limit, so that fills seldom wait: four packs or a thirty-second part of
/// the limit, and at most a quarter of it.
pub(super) fn slack(limit: u64) -> u64 {
    (4 * PACK_BYTES).max(limit / 32).min(limit / 4)
}

/// Starts the thread, also again. It ends after [`close`].
pub fn start(shelf: &Arc<Shelf>) -> io::Result<thread::JoinHandle<()>> {
    let shelf = Arc::clone(shelf);
    let scrubber = Scrubber::new(clock::instant());
    lock(&shelf.wanting.0).close = false;
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
    let mut search = Search::default();
    let mut wait = TICK;
    loop {
        let wanting = lock(&shelf.wanting.0);
        let (mut wanting, _) = shelf
            .wanting
            .1
            .wait_timeout_while(wanting, wait, |w| !w.room && !w.close)
            .unwrap_or_else(PoisonError::into_inner);
        if wanting.close {
            break;
        }
        wanting.room = false;
        drop(wanting);
        let tidying = lock(&shelf.tidying);
        shelf.upkeep.begin(Task::Sweeping);
        next_sweep = shelf.sweep(next_sweep.unwrap_or(0));
        wait = match search.tend(shelf, clock::instant()) {
            true => SEARCH_TICK,
            false => TICK,
        };
        shelf.make_room();
        shelf.room.notify_waiters();
        shelf.drop_empty_packs();
        shelf.merge_small_packs();
        snapshots.tend(shelf, clock::instant());
        shelf.upkeep.begin(Task::Scrubbing);
        scrubber.tend(shelf, clock::instant());
        shelf.upkeep.begin(Task::Resting);
        drop(tidying);
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
            let full = usage.allocated + slack(usage.limit) > usage.limit;
            if !full || !self.store.can_use_room() {
                return;
            }
            let (dropped, refused) = self.drop_empty();
            if refused {
                // Evicting would make no room.
                return;
            }
            if dropped > 0 {
                self.room.notify_waiters();
                continue;
            }
            let moved = self.upkeep.done().moved_bytes;
            let share = share_to_move(usage.appended.saturating_sub(moved), moved, usage.limit);
            let emptiest = self.emptiest_packs(|live, allocated| live * 100 <= allocated * share);
            if emptiest.is_empty() {
                if !self.evict(PACK_BYTES) {
                    return;
                }
            } else if !self.compact(&emptiest) {
                self.clear(&emptiest);
            }
        }
    }

    /// Evicts entries of `bytes` altogether; `false` when there was nothing to evict.
    fn evict(&self, bytes: u64) -> bool {
        self.upkeep.begin(Task::Evicting);
        let mut any = false;
        let until = self.live_bytes().saturating_sub(bytes);
        loop {
            let (gone, more) = self.write_index().evict(until, LOOKS);
            self.forget_hot(&gone);
            for sequence in &gone {
                self.store.record_remove(*sequence);
            }
            any |= !gone.is_empty();
            self.upkeep.count_evicted(Eviction::Room, gone.len());
            if !more {
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
            // Nobody is between an append and its index change while the gate is held, and nobody
            // between a look at the index and a pin while that is. Requests wait for both: only
            // those few packs are looked at again.
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let index = self.write_index();
            empty.retain(|pack| index.live(*pack) == 0 && !self.is_pinned(*pack));
        }
        // Where one cannot be deleted, as on a disk that became read-only, nor can the others.
        let dropped = empty.iter().take_while(|pack| self.store.drop_pack(**pack));
        let dropped = dropped.inspect(|_| self.upkeep.count_dropped()).count();
        (dropped, dropped < empty.len())
    }

    /// The packs with the smallest part alive among those that `worth` picks by live and allocated
    /// bytes; what is alive in them fits into one pack.
    fn emptiest_packs(&self, worth: impl Fn(u64, u64) -> bool) -> Vec<PackId> {
        let mut packs: Vec<(u64, u64, PackId)> = {
            let packs = self.store.packs();
            let index = self.read_index();
            packs
                .into_iter()
                .map(|(pack, allocated)| (index.live(pack), allocated, pack))
                .filter(|(live, allocated, _)| worth(*live, *allocated))
                .map(|(live, allocated, pack)| (live * 1024 / allocated.max(1), live, pack))
                .collect()
        };
        packs.retain(|(_, _, pack)| !self.is_pinned(*pack));
        packs.sort_unstable();
        let mut sum = 0;
        packs
            .into_iter()
            .take_while(|(_, live, _)| {
                sum += live;
                sum <= MOVED_BYTES_MAX
            })
            .map(|(_, _, pack)| pack)
            .collect()
    }

    /// Moves what is alive out of `packs` and drops them; `false` when there was no room
    /// to move anything to.
    pub(super) fn compact(&self, packs: &[PackId]) -> bool {
        self.upkeep.begin(Task::Compacting);
        let mut moved = Moved::default();
        let mut emptied = Vec::new();
        let mut broken = Vec::new();
        // A pack of its own: what was kept once will most likely be kept again, and not die among
        // what is new.
        let mut lane = self.store.moving_lane();
        for pack in packs {
            match self.empty(*pack, &mut lane, &mut moved) {
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
                    broken.push(*pack);
                }
            }
        }
        self.store.finish(lane);
        // The new places are journaled before the old ones go.
        for put in self.places(&moved) {
            self.journal(put);
        }
        let settled = block_on(self.store.settle());
        if !broken.is_empty() {
            self.clear(&broken);
        } else if !emptied.is_empty() && settled {
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

    /// Moves every living part of one pack.
    fn empty(&self, pack: PackId, lane: &mut Lane, moved: &mut Moved) -> Result<(), StoreError> {
        let pieces = match self.store.pieces(pack) {
            Err(StoreError::Corrupt { .. }) => {
                self.store.count_corrupt();
                self.parts_in(pack)
            }
            Err(error @ StoreError::Io { .. }) if !error.may_pass() => self.parts_in(pack),
            pieces => pieces?,
        };
        // A head, and the body right behind it.
        let mut together = Vec::new();
        for piece in pieces {
            let Some(bytes) = self.alive(&piece)? else {
                continue;
            };
            if !together
                .last()
                .is_some_and(|(last, _)| are_one(last, &piece))
            {
                self.relocate(&together, lane, moved)?;
                together.clear();
            }
            together.push((piece, bytes));
        }
        self.relocate(&together, lane, moved)
    }

    /// A piece's bytes; `None` when nobody needs it, or it is damaged and was given up.
    fn alive(&self, piece: &Piece) -> Result<Option<NewPiece>, StoreError> {
        let sound = match *piece {
            Piece::Head { key, location, .. } => {
                if self.read_index().head_at(key, location).is_none() {
                    return Ok(None);
                }
                self.sound_head(location).map(NewPiece::Head)
            }
            Piece::Segment {
                digest, location, ..
            } => {
                if !self.read_index().segment_at(digest, location) {
                    return Ok(None);
                }
                let bytes = self.sound_segment(digest, location);
                bytes.map(|bytes| NewPiece::Segment(digest, bytes))
            }
        };
        match sound {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Corrupt { location }) => {
                self.give_up(location);
                Ok(None)
            }
            Err(error @ StoreError::Io { .. }) if !error.may_pass() => {
                let (Piece::Head { location, .. } | Piece::Segment { location, .. }) = *piece;
                self.give_up(location);
                Ok(None)
            }
            Err(error) => Err(error),
        }
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

    /// Checks every bit of a pack for a tool, on a thread that is not the one that makes room.
    pub(super) fn check_pack(&self, pack: PackId) -> Finding {
        if matches!(self.store.is_intact(pack), Ok(true)) {
            return Finding::Intact;
        }
        let _tidying = lock(&self.tidying);
        if self.is_lent() {
            // What becomes of it is another process's matter.
            return Finding::Dropped;
        }
        self.scrub(pack)
    }

    /// Checks every bit of a pack, and moves what is sound out of one that is damaged.
    pub(super) fn scrub(&self, pack: PackId) -> Finding {
        match self.store.is_intact(pack) {
            Ok(true) => Finding::Intact,
            Ok(false) => {
                tracing::warn!(
                    pack = pack.0,
                    "a pack is damaged; what is sound moves out of it"
                );
                let before = self.store.usage().corrupt;
                self.compact(&[pack]);
                if self.store.usage().corrupt == before {
                    // It was in no part that is alive.
                    self.store.count_corrupt();
                }
                Finding::Damaged
            }
            Err(StoreError::Missing(_)) => {
                if !self.store.packs().iter().any(|(known, _)| *known == pack) {
                    return Finding::Dropped;
                }
                tracing::warn!(pack = pack.0, "a pack's file is gone");
                self.store.count_corrupt();
                self.clear(&[pack]);
                Finding::Missing
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(pack = pack.0, %error, "a pack could not be read now");
                Finding::Unread(error)
            }
            Err(error) => {
                tracing::warn!(pack = pack.0, %error, "what can be read moves out of a pack");
                self.compact(&[pack]);
                Finding::Unread(error)
            }
        }
    }

    /// Writes pieces of one entry that lie side by side into the lane, and points the index there.
    fn relocate(
        &self,
        pieces: &[(Piece, NewPiece)],
        lane: &mut Lane,
        moved: &mut Moved,
    ) -> Result<(), StoreError> {
        let Some((Piece::Head { sequence, key, .. } | Piece::Segment { sequence, key, .. }, _)) =
            pieces.first()
        else {
            return Ok(());
        };
        let (sequence, key) = (*sequence, *key);
        let bytes: Vec<NewPiece> = pieces.iter().map(|(_, bytes)| bytes.clone()).collect();
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let places = self.store.append(Some(lane), sequence, key, &bytes)?;
        let mut index = self.write_index();
        if let ([(head, _), (body, _)], [to_head, to_body]) = (pieces, places.as_slice())
            && index.move_both(key, [place_of(head), place_of(body)], [*to_head, *to_body])
        {
            moved.head(&index, key, *to_head);
        } else {
            // What went away in the meantime leaves a dead piece behind, no more.
            for ((piece, _), to) in pieces.iter().zip(&places) {
                moved.piece(&mut index, piece, *to);
            }
        }
        drop(index);
        for place in places {
            self.upkeep.count_moved(place.bytes);
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
        self.upkeep.count_evicted(Eviction::Lost, residents.len());
        self.drop_empty_packs();
    }

    fn merge_small_packs(&self) {
        let small = self.emptiest_packs(|_, allocated| allocated < PACK_BYTES / 8);
        if small.len() >= MERGE_MIN {
            self.compact(&small);
        }
    }

    /// Sweeps some places, and goes on for as long as most of what it finds must go, as after a
    /// purge of everything: nothing that is wanted is to be evicted before.
    fn sweep(&self, from: u32) -> Option<u32> {
        let mut from = from;
        let mut steps = 0;
        loop {
            let (gone, next) = self.sweep_some(from, SWEEP);
            steps += 1;
            if gone < SWEEP_MANY && steps >= SWEEPS {
                return next;
            }
            from = next?;
        }
    }

    /// Sweeps so many places; says how much went, and where to go on.
    pub(super) fn sweep_some(&self, from: u32, places: u32) -> (usize, Option<u32>) {
        let now = clock::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let (gone, next, mark) = {
            let mut index = self.write_index();
            let (gone, next) = index.sweep(from, places, now.as_secs());
            (gone, next, index.mark_on_everything())
        };
        self.forget_hot(&gone);
        // What a mark covers, the record of its purge covers too.
        let mut spent = 0_usize;
        for sequence in gone.iter().filter(|sequence| **sequence >= mark) {
            self.store.record_remove(*sequence);
            spent = spent.saturating_add(1);
        }
        self.upkeep.count_evicted(Eviction::Spent, spent);
        let purged = gone.len().saturating_sub(spent);
        self.upkeep.count_evicted(Eviction::Purged, purged);
        (gone.len(), next)
    }

    pub(super) fn snapshot(&self) -> bool {
        let mut from = Some(0);
        let mut marks = true;
        let written = self.store.snapshot(&mut || {
            // Taken after the new journal began: later marks are in that.
            if std::mem::take(&mut marks) {
                let marks = self.read_index().marks().all();
                if !marks.is_empty() {
                    let record = |(mark, selector)| Record::Purge { mark, selector };
                    return marks.into_iter().map(record).collect();
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
    /// Bytes that may be read now, in thousandths; below zero after a pack larger than that.
    credit: i128,
    /// Where the round goes on.
    next: PackId,
    before: Instant,
}

impl Scrubber {
    fn new(now: Instant) -> Self {
        Self {
            credit: 0,
            next: PackId(0),
            before: now,
        }
    }

    /// Checks as many packs as the time since the last call allows; at most a second's worth.
    fn tend(&mut self, shelf: &Shelf, now: Instant) {
        let rate = shelf.scrub_bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            // What is asked for later is not owed for the time before.
            self.before = now;
            return;
        }
        let second = i128::from(rate).saturating_mul(1000);
        let passed = now.saturating_duration_since(self.before).as_millis();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let earned = passed.saturating_mul(rate.into());
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

/// What a compaction has moved, and whose records must say so.
#[derive(Default)]
struct Moved {
    entries: HashSet<(PrimaryKey, Sequence)>,
    /// Packs that took in bodies which other keys use too: all who have a part there are told.
    shared: HashSet<PackId>,
}

/// How much of a pack may be alive, in per cent, for it to be emptied.
///
/// What is moved is written twice, so it has a budget: a part of the bytes `stored`. Of a pack that
/// is a quarter alive the other three are won, so that little may always be moved, and comes to the
/// same part. The more of the budget is left, the fuller a pack may be; where it is used up entries
/// are evicted instead, until packs are empty enough.
fn share_to_move(stored: u64, moved: u64, limit: u64) -> u64 {
    let left = (stored / MOVED_PARTS).saturating_sub(moved);
    let most = (limit / 16).max(1);
    SHARE_MIN + (SHARE_MAX - SHARE_MIN) * left.min(most) / most
}

impl Moved {
    /// Points the index at one piece's new place.
    fn piece(&mut self, index: &mut Index, piece: &Piece, to: Location) {
        match *piece {
            Piece::Head { key, location, .. } => {
                if index.move_head(key, location, to) {
                    self.head(index, key, to);
                }
            }
            Piece::Segment {
                digest,
                location,
                key,
                ..
            } => {
                if index.move_segment(digest, location, to) {
                    match index.sole_users(key, digest, to) {
                        Some(users) => self.entries.extend(users.into_iter().map(|s| (key, s))),
                        None => {
                            self.shared.insert(to.pack);
                        }
                    }
                }
            }
        }
    }

    /// The entry whose head is there has moved.
    fn head(&mut self, index: &Index, key: PrimaryKey, to: Location) {
        if let Some(sequence) = index.head_at(key, to) {
            self.entries.insert((key, sequence));
        }
    }
}

fn place_of(piece: &Piece) -> Location {
    let (Piece::Head { location, .. } | Piece::Segment { location, .. }) = piece;
    *location
}

/// Is this a head, and that the body right behind it?
fn are_one(head: &Piece, body: &Piece) -> bool {
    match (head, body) {
        (Piece::Head { location: head, .. }, Piece::Segment { location: body, .. }) => {
            head.is_before(*body)
        }
        (Piece::Segment { .. }, _) | (_, Piece::Head { .. }) => false,
    }
}

/// Waits for the store on this thread, which may block.
fn block_on<T>(done: impl Future<Output = Result<T, StoreError>>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.is_ok_and(|runtime| runtime.block_on(done).is_ok())
}

const PACK_BYTES: u64 = PACK_BYTES_MIN as u64;
const TICK: Duration = Duration::from_secs(1);
/// The same while purges are looked for.
const SEARCH_TICK: Duration = Duration::from_millis(50);
const ROUNDS_MAX: usize = 1024;
/// What is alive in the packs that are emptied at once: with its table it fits into one pack.
const MOVED_BYTES_MAX: u64 = PACK_BYTES / 16 * 15;
/// One byte in this many that are stored may be moved.
const MOVED_PARTS: u64 = 3;
/// How much of a pack may be alive for it to be emptied, in per cent.
const SHARE_MIN: u64 = 25;
/// As above, while little was moved.
const SHARE_MAX: u64 = 75;
/// Entries that are looked at while the index is locked.
const LOOKS: u32 = 128;
/// Places that are looked at while the index is locked.
const SWEEP: u32 = 1024;
const SWEEP_MANY: usize = 512;
/// So often, each time.
const SWEEPS: u32 = 4;
const MERGE_MIN: usize = 32;
const SNAPSHOT_REST: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::super::StoredBody;
    use super::super::catalog::Catalog;
    use super::super::tests::found;
    use super::super::tests::keep;
    use super::super::tests::keep_bytes;
    use super::super::tests::open;
    use super::super::trials::copy;
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
        assert!(shelf.compact(&before));
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
    fn what_a_tool_holds_can_be_read_though_it_was_moved() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        wait(keep(&shelf, KEYS[0], "stays"));
        wait(shelf.store.flush()).unwrap();
        let catalog = Catalog::of(&shelf);
        let put = catalog.variants(KEYS[0]).remove(0);
        let held = catalog.hold(&put).unwrap();
        assert!(shelf.compact(&[put.head.pack]));
        assert_ne!(catalog.variants(KEYS[0])[0].head.pack, put.head.pack);
        let head = held.head().unwrap().unwrap();
        let parts: Vec<Bytes> = held.parts(&head).map(Result::unwrap).collect();
        assert_eq!(parts, ["stays"]);
        drop(held);
        assert_eq!(shelf.drop_empty_packs(), 1);
        // Who asks by the old place is given the new one.
        assert!(catalog.hold(&put).unwrap().head().unwrap().is_some());
    }

    #[test]
    fn the_less_was_moved_the_fuller_a_pack_may_be() {
        const LIMIT: u64 = 160 << 20;
        const MOVED: u64 = 1 << 30;
        let share = |stored| share_to_move(stored, MOVED, LIMIT);
        assert_eq!(share(0), SHARE_MIN);
        assert_eq!(share(MOVED_PARTS * MOVED), SHARE_MIN);
        assert_eq!(share(MOVED_PARTS * (MOVED + (5 << 20))), 50);
        assert_eq!(share(MOVED_PARTS * (MOVED + (10 << 20))), SHARE_MAX);
        assert_eq!(share(u64::MAX), SHARE_MAX);
    }

    #[test]
    fn what_a_compaction_moves_is_counted_and_lies_side_by_side() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        for key in KEYS {
            let body = Bytes::copy_from_slice(&key.0);
            wait(keep_bytes(&shelf, key, body));
        }
        wait(shelf.store.flush()).unwrap();
        shelf.remove(found(&shelf, KEYS[0]).unwrap());
        let packs: Vec<PackId> = shelf.store.packs().iter().map(|(pack, _)| *pack).collect();
        let live = shelf.live_bytes();
        assert!(shelf.compact(&packs));
        let done = shelf.upkeep().done();
        assert_eq!((done.moved_bytes, done.emptied), (live, 1));
        for key in &KEYS[1..] {
            let found = found(&shelf, *key).unwrap();
            let put = shelf.read_index().place(*key, found.sequence).unwrap();
            let behind = put.parts.locations().next().unwrap();
            assert!(put.head.is_before(behind));
        }
        assert_eq!(shelf.read_index().bodies(), 2);
    }

    /// The store as a kill leaves it now, and a shelf over it.
    fn killed(dir: &TempDir) -> (TempDir, Arc<Shelf>) {
        let left = TempDir::new().unwrap();
        copy(&dir.path().join("store"), &left.path().join("store"));
        let shelf = open(&left);
        (left, shelf)
    }

    #[test]
    fn a_pack_that_a_kill_kept_from_being_dropped_goes_soon_after_the_start() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        wait(keep(&shelf, KEYS[0], "moves"));
        wait(shelf.store.flush()).unwrap();
        let before: Vec<PackId> = shelf.store.packs().iter().map(|(pack, _)| *pack).collect();
        // All is moved and written, and the old pack still there.
        let pins = shelf.pin(before.iter().copied());
        assert!(shelf.compact(&before));
        let (_left, again) = killed(&dir);
        drop(pins);
        let named: Vec<PackId> = again.store.packs().iter().map(|(pack, _)| *pack).collect();
        assert!(before.iter().all(|pack| named.contains(pack)));
        assert_eq!(again.read_index().live(before[0]), 0);
        // The first thing the thread does that makes room, but for sweeping.
        assert_eq!(again.drop_empty_packs(), before.len());
        assert_eq!(body_of(&again, KEYS[0]).unwrap(), "moves");
        assert_eq!(again.store.packs().len(), 1);
    }

    #[test]
    fn a_kill_after_a_snapshot_leaves_what_was_being_moved() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        wait(keep(&shelf, KEYS[0], "moves"));
        wait(shelf.store.flush()).unwrap();
        let pack = shelf.store.packs()[0].0;
        let mut moved = Moved::default();
        let mut lane = shelf.store.moving_lane();
        shelf.empty(pack, &mut lane, &mut moved).unwrap();
        // It names the new place, and the records of the old one go.
        assert!(shelf.snapshot());
        let (_left, again) = killed(&dir);
        assert_eq!(body_of(&again, KEYS[0]).unwrap(), "moves");
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
