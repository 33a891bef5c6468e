//! Which packs there are, in what state, and how much room they and the journal take.
//!
//! ```text
//! open ──(full, old, lane ended)──► closed ──(writer)──► sealed
//!   │  in memory, grows              │  in memory         │  on disk
//!   └──────────────┬─────────────────┴────────────────────┘
//!                  └─(dropped, lost)──► gone
//! ```
//!
//! The limit is held by setting room aside before bytes are written: a whole pack's for each open
//! pack, a file's for each closed one, and for the journal twice its length, so that a snapshot
//! can be written beside it. Pure bookkeeping: no file is touched here.

use super::Condition;
use super::NewPiece;
use super::Put;
use super::StoreError;
use super::Usage;
use super::pack::APPEND_BYTES_MAX;
use super::pack::Builder;
use super::pack::FOLDER_BYTES;
use super::pack::PACK_BYTES_MAX;
use super::pack::PACK_BYTES_MIN;
use super::pack::Sealed;
use super::pack::reserve_for;
use super::pack::room_of;
use super::pack::rounded;
use super::replay::places;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use hashbrown::HashMap;
use std::sync::Arc;

/// One pack.
#[derive(Debug)]
pub(super) enum Pack {
    /// Takes appends.
    Open(Builder),
    /// Waits to be written, or is being written.
    Closed(Arc<Builder>),
    /// On disk.
    Sealed(Sealed),
}

/// What the journal's files take.
#[derive(Debug, Default)]
pub(super) struct JournalRoom {
    /// Bytes of the newest snapshot.
    pub(super) snapshot: u64,
    /// Bytes of journal files since, the current one not counted.
    pub(super) earlier: u64,
    /// Files that a start would read, the current one not counted.
    pub(super) parts: usize,
    /// Bytes of the current journal file.
    pub(super) current: u64,
    /// Bytes of puts that were handed in and are not written yet.
    pub(super) queued: u64,
    /// Bytes of the snapshot being written.
    pub(super) writing: u64,
    /// How often the journal failed: its files do not say all that they should.
    pub(super) failures: u64,
    /// How many of these failures a snapshot has made good.
    pub(super) mended: u64,
}

impl JournalRoom {
    fn files(&self) -> u64 {
        rounded(self.snapshot)
            .saturating_add(rounded(self.earlier))
            .saturating_add(rounded(self.current))
    }

    /// Counts a new current file; all others are gone when the journal began `anew`.
    pub(super) fn begin(&mut self, bytes: u64, anew: bool) {
        let ended = std::mem::replace(&mut self.current, bytes);
        if anew {
            self.snapshot = 0;
            self.earlier = 0;
            self.parts = 0;
        } else {
            self.earlier = self.earlier.saturating_add(rounded(ended));
            self.parts = self.parts.saturating_add(1);
        }
    }

    fn charge(&self) -> u64 {
        let now = self.files().saturating_add(self.queued);
        now.saturating_add(now.max(rounded(self.writing)))
    }

    /// What a snapshot may become long without asking for more room.
    fn foreseen(&self) -> u64 {
        self.files().saturating_add(self.queued)
    }
}

/// How much came in and was written since start, in bytes.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Pieces appended.
    appended: u64,
    /// Pack files.
    packs: u64,
    /// Journal files, their copies and snapshots.
    journal: u64,
}

impl Written {
    /// Counts a journal file's growth.
    pub(super) fn add_journal(&mut self, bytes: u64) {
        self.journal = self.journal.saturating_add(bytes);
    }
}

/// All packs and all room of one store.
#[derive(Debug)]
pub(super) struct Table {
    packs: HashMap<PackId, Pack>,
    /// Puts by the pack in memory they wait for.
    waiting: HashMap<PackId, Vec<Put>>,
    shared: Option<PackId>,
    next_pack: u32,
    lanes: usize,
    closed: usize,
    /// Bytes of pieces in open and closed packs: they are in memory.
    unsealed_bytes: u64,
    /// Room set aside for open and closed packs.
    reserved: u64,
    sealed_bytes: u64,
    sealed: u64,
    limit: u64,
    limit_given: u64,
    /// How long packs become.
    pack_bytes: u32,
    condition: Condition,
    full: bool,
    /// Another process may have the store: nothing is taken in.
    lent: bool,
    /// What the journal takes.
    pub(super) journal: JournalRoom,
    /// Records written since start.
    pub(super) journaled: u64,
    /// Bytes since start.
    pub(super) written: Written,
}

/// Where an append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To what is moved so that packs can go, and its open pack: it may use the room kept back.
    Moving(Option<PackId>),
    /// To a large body of its own, and its open pack.
    Own(Option<PackId>),
    /// To the pack that small bodies share.
    Shared,
}

/// What an append came to.
#[derive(Debug)]
pub(super) struct Appended {
    /// Where the pieces lie.
    pub(super) locations: Vec<Location>,
    /// The pack they lie in; `None` when it was closed at once.
    pub(super) open: Option<PackId>,
    /// Packs to be written now.
    pub(super) closed: Vec<PackId>,
}

impl Table {
    /// Makes a table of the packs found at start.
    pub(super) fn new(found: HashMap<PackId, Sealed>, next_pack: u32, limit: u64) -> Self {
        let sealed_bytes = found.values().map(|pack| u64::from(pack.allocated)).sum();
        let sealed = found.len().try_into().unwrap_or(u64::MAX);
        let packs = found
            .into_iter()
            .map(|(id, pack)| (id, Pack::Sealed(pack)))
            .collect();
        Self {
            packs,
            waiting: HashMap::new(),
            shared: None,
            next_pack,
            lanes: 0,
            closed: 0,
            unsealed_bytes: 0,
            reserved: 0,
            sealed_bytes,
            sealed,
            limit,
            limit_given: limit,
            pack_bytes: u32::try_from(limit / PACKS_MIN)
                .unwrap_or(PACK_BYTES_MAX)
                .clamp(PACK_BYTES_MIN, PACK_BYTES_MAX),
            condition: Condition::Healthy,
            full: false,
            lent: false,
            journal: JournalRoom::default(),
            journaled: 0,
            written: Written::default(),
        }
    }

    /// Finds a pack.
    pub(super) fn get(&self, pack: PackId) -> Option<&Pack> {
        self.packs.get(&pack)
    }

    /// The number that the next pack will bear.
    pub(super) fn next_pack(&self) -> u32 {
        self.next_pack
    }

    /// The shared lane's open pack.
    pub(super) fn shared(&self) -> Option<PackId> {
        self.shared
    }

    /// All packs on disk.
    pub(super) fn sealed(&self) -> Vec<(PackId, Sealed)> {
        let sealed = |(id, pack): (&PackId, &Pack)| match pack {
            Pack::Sealed(sealed) => Some((*id, *sealed)),
            Pack::Open(_) | Pack::Closed(_) => None,
        };
        self.packs.iter().filter_map(sealed).collect()
    }

    /// All packs that wait to be written, oldest first.
    pub(super) fn closed(&self) -> Vec<PackId> {
        self.having(|pack| matches!(pack, Pack::Closed(_)))
    }

    /// All packs that take appends, oldest first.
    pub(super) fn open(&self) -> Vec<PackId> {
        self.having(|pack| matches!(pack, Pack::Open(_)))
    }

    fn having(&self, wanted: impl Fn(&Pack) -> bool) -> Vec<PackId> {
        let chosen = self.packs.iter().filter(|(_, pack)| wanted(pack));
        let mut ids: Vec<PackId> = chosen.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Lets a put wait for a pack of it that is in memory. Gives it back when none is, or one is
    /// gone, and says whether they are all on disk.
    pub(super) fn wait(&mut self, put: Put) -> Option<(Put, bool)> {
        let (mut gone, mut in_memory) = (false, None);
        for Location { pack, .. } in places(&put) {
            match self.packs.get(&pack) {
                None => gone = true,
                Some(Pack::Open(_) | Pack::Closed(_)) => in_memory = Some(pack),
                Some(Pack::Sealed(_)) => {}
            }
        }
        match in_memory {
            Some(pack) if !gone => {
                self.waiting.entry(pack).or_default().push(put);
                None
            }
            _ => Some((put, !gone)),
        }
    }

    /// The puts that waited for a pack.
    pub(super) fn take_waiting(&mut self, pack: PackId) -> Vec<Put> {
        self.waiting.remove(&pack).unwrap_or_default()
    }

    /// Counts a new lane, if there may be one.
    pub(super) fn add_lane(&mut self) -> Result<(), StoreError> {
        self.check_condition()?;
        if self.lanes >= LANES_MAX || self.room_needed() > 0 {
            return Err(StoreError::NoRoom);
        }
        self.lanes = self.lanes.saturating_add(1);
        Ok(())
    }

    /// Counts a lane that takes nothing from the others' room.
    pub(super) fn add_moving_lane(&mut self) {
        self.lanes = self.lanes.saturating_add(1);
    }

    /// Counts a lane that ended.
    pub(super) fn remove_lane(&mut self) {
        self.lanes = self.lanes.saturating_sub(1);
    }

    /// Appends all pieces to one pack: the one that is open if they fit, else a new one.
    pub(super) fn append(
        &mut self,
        way: Way,
        sequence: Sequence,
        key: PrimaryKey,
        pieces: &[NewPiece],
    ) -> Result<Appended, StoreError> {
        let needed = room_of(pieces);
        if needed > APPEND_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: needed });
        }
        self.check_condition()?;
        let in_memory = self.unsealed_bytes.saturating_add(needed);
        // What is moved waits for each pack to be written: it cannot pile up.
        let many = in_memory > UNSEALED_BYTES_MAX && !matches!(way, Way::Moving(_));
        if many || self.allocated() > self.limit {
            return Err(StoreError::NoRoom);
        }
        let mut closed = Vec::new();
        let current = match way {
            Way::Moving(open) | Way::Own(open) => open,
            Way::Shared => self.shared,
        };
        let pack = match current.and_then(|id| self.packs.get(&id).map(|pack| (id, pack))) {
            Some((id, Pack::Open(builder))) if builder.fits(pieces) => id,
            _ => {
                let next = self.begin(way)?;
                closed.extend(current.filter(|full| self.close(*full)));
                next
            }
        };
        let Some(Pack::Open(builder)) = self.packs.get_mut(&pack) else {
            return Err(StoreError::Missing(pack));
        };
        let before = builder.file_bytes();
        let locations: Vec<Location> = pieces
            .iter()
            .filter_map(|piece| builder.push(sequence, key, piece))
            .collect();
        let more = builder.file_bytes().saturating_sub(before);
        let bytes = locations.iter().map(|piece| u64::from(piece.bytes));
        self.written.appended = self.written.appended.saturating_add(bytes.sum());
        self.unsealed_bytes = self.unsealed_bytes.saturating_add(more.into());
        let early = self.unsealed_bytes > UNSEALED_BYTES_EASY && matches!(way, Way::Own(_));
        if early && self.check_queue().is_ok() {
            self.close(pack);
            closed.push(pack);
        }
        let open = (closed.last() != Some(&pack)).then_some(pack);
        Ok(Appended {
            locations,
            open,
            closed,
        })
    }

    fn begin(&mut self, way: Way) -> Result<PackId, StoreError> {
        if let Way::Moving(_) = way {
            if self.room_lacking(self.open_room()) > 0 {
                return Err(StoreError::NoRoom);
            }
        } else {
            self.check_queue()?;
            if self.room_needed() > 0 {
                return Err(StoreError::NoRoom);
            }
        }
        let pack = PackId(self.next_pack);
        let Some(next) = self.next_pack.checked_add(1) else {
            return Err(StoreError::PassThrough(
                "all pack numbers are used up".into(),
            ));
        };
        self.next_pack = next;
        let builder = Builder::new(pack, self.pack_bytes);
        self.unsealed_bytes = self
            .unsealed_bytes
            .saturating_add(builder.file_bytes().into());
        self.reserved = self.reserved.saturating_add(self.open_room());
        self.packs.insert(pack, Pack::Open(builder));
        if way == Way::Shared {
            self.shared = Some(pack);
        }
        Ok(pack)
    }

    /// How long packs become.
    pub(super) fn pack_bytes(&self) -> u32 {
        self.pack_bytes
    }

    /// What an open pack may come to take, with its folders.
    fn open_room(&self) -> u64 {
        u64::from(self.pack_bytes) + 2 * FOLDER_BYTES
    }

    /// Ends a pack's growth. False when it was not open.
    pub(super) fn close(&mut self, pack: PackId) -> bool {
        let Some(Pack::Open(_)) = self.packs.get(&pack) else {
            return false;
        };
        if self.shared == Some(pack) {
            self.shared = None;
        }
        let Some(Pack::Open(builder)) = self.packs.remove(&pack) else {
            return false;
        };
        self.reserved = self
            .reserved
            .saturating_sub(self.open_room())
            .saturating_add(reserve_for(builder.file_bytes()));
        self.closed = self.closed.saturating_add(1);
        self.packs.insert(pack, Pack::Closed(Arc::new(builder)));
        true
    }

    /// Notes that a closed pack is on disk. False when it is gone meanwhile.
    pub(super) fn seal(&mut self, pack: PackId, sealed: Sealed) -> bool {
        self.written.packs = self.written.packs.saturating_add(sealed.bytes.into());
        let Some(Pack::Closed(_)) = self.packs.get(&pack) else {
            return false;
        };
        self.remove(pack);
        self.packs.insert(pack, Pack::Sealed(sealed));
        self.sealed = self.sealed.saturating_add(1);
        self.sealed_bytes = self.sealed_bytes.saturating_add(sealed.allocated.into());
        true
    }

    /// Takes a pack out, in whatever state it is.
    pub(super) fn remove(&mut self, pack: PackId) -> Option<Pack> {
        let removed = self.packs.remove(&pack)?;
        match &removed {
            Pack::Open(builder) => {
                self.reserved = self.reserved.saturating_sub(self.open_room());
                self.forget_memory(builder);
            }
            Pack::Closed(builder) => {
                let room = reserve_for(builder.file_bytes());
                self.reserved = self.reserved.saturating_sub(room);
                self.closed = self.closed.saturating_sub(1);
                self.forget_memory(builder);
            }
            Pack::Sealed(sealed) => {
                self.sealed = self.sealed.saturating_sub(1);
                self.sealed_bytes = self.sealed_bytes.saturating_sub(sealed.allocated.into());
            }
        }
        if self.shared == Some(pack) {
            self.shared = None;
        }
        Some(removed)
    }

    fn forget_memory(&mut self, builder: &Builder) {
        let bytes = u64::from(builder.file_bytes());
        self.unsealed_bytes = self.unsealed_bytes.saturating_sub(bytes);
    }

    fn check_queue(&self) -> Result<(), StoreError> {
        if self.closed < CLOSED_MAX {
            Ok(())
        } else {
            Err(StoreError::NoRoom)
        }
    }

    fn check_condition(&self) -> Result<(), StoreError> {
        if self.lent {
            return Err(StoreError::PassThrough(LENT.into()));
        }
        match &self.condition {
            Condition::Healthy => Ok(()),
            // Making room is what helps a full disk.
            Condition::PassThrough(_) if self.full && self.room_needed() > 0 => {
                Err(StoreError::NoRoom)
            }
            Condition::PassThrough(reason) => Err(StoreError::PassThrough(reason.clone())),
        }
    }

    /// What is on disk now, at most.
    fn on_disk(&self) -> u64 {
        // cacache spreads contents over 256 folders, and each over folders counted with the packs.
        let spread = self.sealed.min(256).saturating_mul(FOLDER_BYTES);
        FIXED_BYTES
            .saturating_add(spread)
            .saturating_add(self.sealed_bytes)
            .saturating_add(self.journal.files())
    }

    fn allocated(&self) -> u64 {
        self.on_disk()
            .saturating_sub(self.journal.files())
            .saturating_add(self.journal.charge())
            .saturating_add(self.reserved)
    }

    /// The bytes that must go before another pack can be begun; 0 when one can. Room for one is
    /// kept back: what is alive in several packs moves there, so that they can go.
    pub(super) fn room_needed(&self) -> u64 {
        self.room_lacking(2 * self.open_room())
    }

    fn room_lacking(&self, room: u64) -> u64 {
        self.allocated()
            .saturating_add(room)
            .saturating_sub(self.limit)
    }

    /// Sets room aside for a snapshot that has grown to `bytes`. False when there is none.
    pub(super) fn grow_snapshot(&mut self, bytes: u64) -> bool {
        self.journal.writing = bytes;
        bytes <= self.journal.foreseen() || self.allocated() <= self.limit
    }

    /// Is the journal long enough for a snapshot to pay?
    pub(super) fn wants_snapshot(&self) -> bool {
        let journal = &self.journal;
        let since = journal.earlier.saturating_add(journal.current);
        let least = JOURNAL_BYTES_EASY.min(self.limit_given / 64);
        self.condition == Condition::Healthy
            && (journal.failures > journal.mended
                || journal.parts > PARTS_EASY
                || since > least.max(journal.snapshot))
    }

    /// From now on nothing is taken in, or again is. While it is lent another process may begin
    /// packs: their numbers are left out afterwards.
    pub(super) fn lend(&mut self, lent: bool) {
        if self.lent && !lent {
            self.next_pack = self.next_pack.saturating_add(PACKS_LEFT_OUT);
        }
        self.lent = lent;
    }

    /// May another process have the store?
    pub(super) fn is_lent(&self) -> bool {
        self.lent
    }

    /// The condition of the disk.
    pub(super) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Is the disk passed through because it is full?
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Changes the condition. True when it was another before. A full disk lowers the limit below
    /// what lies on it now, so that making room makes room for a pack.
    pub(super) fn set_condition(&mut self, condition: Condition, full: bool) -> bool {
        if full {
            let less = self.on_disk().saturating_sub(self.open_room());
            self.limit = self.limit.min(less);
        }
        let healthy = condition == Condition::Healthy;
        let changed = healthy != (self.condition == Condition::Healthy);
        self.full = !healthy && (full || self.full);
        if changed {
            self.condition = condition;
        }
        changed
    }

    /// A whole pack's bytes were just written to a disk that was full: so much room there is.
    pub(super) fn prove_room(&mut self) {
        let proven = self.allocated().saturating_add(2 * self.open_room());
        self.limit = self.limit.max(proven).min(self.limit_given);
    }

    /// Takes back some of what a full disk lowered the limit by.
    pub(super) fn raise_limit(&mut self) {
        let gap = self.limit_given.saturating_sub(self.limit);
        let step = (gap / 8).max(self.open_room());
        self.limit = self.limit.saturating_add(step).min(self.limit_given);
    }

    /// Sizes and counts; what failed is counted elsewhere.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            allocated: self.allocated(),
            limit: self.limit,
            packs: self.sealed,
            journaled: self.journaled,
            appended: self.written.appended,
            packs_written: self.written.packs,
            journal_written: self.written.journal,
            ..Usage::default()
        }
    }
}

/// A store of 128 times as much has packs of the full length; in smaller ones room is made by
/// smaller steps.
const PACKS_MIN: u64 = 128;
/// The store's own folders, marker, lock and probe, and slack for the blocks between files.
const FIXED_BYTES: u64 = 128 << 10;
/// Packs that may wait for the disk.
const CLOSED_MAX: usize = 8;
/// Large bodies that may be written side by side.
const LANES_MAX: usize = 64;
/// From here on lanes close their packs early: more and smaller packs, less memory.
const UNSEALED_BYTES_EASY: u64 = 48 << 20;
/// Bytes in packs that are not on disk yet.
const UNSEALED_BYTES_MAX: u64 = 96 << 20;
/// Many times what can be written while a process takes over and fails.
const PACKS_LEFT_OUT: u32 = 1 << 16;
/// Why nothing is taken in while another process may have the store.
pub(super) const LENT: &str = "another process takes the store over";
/// A shorter journal is read fast enough.
const JOURNAL_BYTES_EASY: u64 = 4 << 20;
/// Each start leaves a journal file behind; a snapshot gathers them.
const PARTS_EASY: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::pack::Address;
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const LIMIT: u64 = 64 << 20;
    const KEY: PrimaryKey = PrimaryKey([0; 16]);

    fn table() -> Table {
        Table::new(HashMap::new(), 0, LIMIT)
    }

    fn head(bytes: usize) -> [NewPiece; 1] {
        [NewPiece::Head(Bytes::from(vec![0; bytes]))]
    }

    fn sealed(bytes: u32) -> Sealed {
        Sealed {
            address: Address(1),
            bytes,
            allocated: bytes,
        }
    }

    fn add_sealed(table: &mut Table) -> PackId {
        let appended = table
            .append(Way::Shared, Sequence(0), KEY, &head(1))
            .unwrap();
        let pack = appended.open.unwrap();
        assert!(table.close(pack));
        assert!(table.seal(pack, sealed(4 << 20)));
        pack
    }

    #[test]
    fn room_is_set_aside_when_a_pack_is_begun() {
        let mut table = table();
        let before = table.usage().allocated;
        table
            .append(Way::Shared, Sequence(0), KEY, &head(1))
            .unwrap();
        assert_eq!(table.usage().allocated, before + table.open_room());
        table
            .append(Way::Shared, Sequence(0), KEY, &head(1))
            .unwrap();
        assert_eq!(table.usage().allocated, before + table.open_room());
    }

    #[test]
    fn storing_goes_on_when_a_full_disk_has_room_again_though_little_was_stored() {
        let mut table = table();
        let trouble = || Condition::PassThrough("full".into());
        table.set_condition(trouble(), true);
        table.set_condition(Condition::Healthy, false);
        let refused = table.append(Way::Shared, Sequence(0), KEY, &head(1));
        assert!(matches!(refused, Err(StoreError::NoRoom)));
        table.prove_room();
        table
            .append(Way::Shared, Sequence(0), KEY, &head(1))
            .unwrap();
        assert!(table.usage().allocated <= table.usage().limit);
        let limit = table.usage().limit;
        table.set_condition(trouble(), false);
        table.prove_room();
        assert!(table.usage().limit <= LIMIT && table.usage().limit >= limit);
    }

    #[test]
    fn a_pack_is_not_begun_beyond_the_limit() {
        let mut table = table();
        let mut packs = Vec::new();
        while table.room_needed() == 0 {
            packs.push(add_sealed(&mut table));
        }
        let refused = table.append(Way::Shared, Sequence(0), KEY, &head(1));
        assert!(matches!(refused, Err(StoreError::NoRoom)));
        assert!(table.usage().allocated <= LIMIT);
        drop(table.remove(packs[0]));
        assert_eq!(table.room_needed(), 0);
        add_sealed(&mut table);
    }

    #[test]
    fn room_for_one_pack_is_kept_back_for_what_is_moved() {
        let mut table = table();
        while table.room_needed() == 0 {
            add_sealed(&mut table);
        }
        let appended = table.append(Way::Moving(None), Sequence(0), KEY, &head(1));
        let open = appended.unwrap().open;
        assert!(open.is_some());
        assert!(table.usage().allocated <= LIMIT);
        let second = table.append(Way::Moving(None), Sequence(0), KEY, &head(1));
        assert!(matches!(second, Err(StoreError::NoRoom)));
        table
            .append(Way::Moving(open), Sequence(0), KEY, &head(1))
            .unwrap();
    }

    #[test]
    fn a_journal_that_grows_takes_its_room_twice() {
        let mut table = table();
        let before = table.usage().allocated;
        table.journal.current = 8192;
        assert_eq!(table.usage().allocated, before + 2 * 8192);
        assert!(table.grow_snapshot(8192));
        assert_eq!(table.usage().allocated, before + 2 * 8192);
        assert!(table.grow_snapshot(LIMIT / 2));
        assert!(!table.grow_snapshot(LIMIT));
    }

    #[test]
    fn a_full_disk_lowers_the_limit_until_a_pack_fits() {
        let mut table = table();
        let mut packs: Vec<_> = (0..4).map(|_| add_sealed(&mut table)).collect();
        let full = Condition::PassThrough("full".into());
        assert!(table.set_condition(full.clone(), true));
        assert!(!table.set_condition(full, true));
        assert!(table.usage().limit < table.usage().allocated);
        let refused = table.append(Way::Shared, Sequence(0), KEY, &head(1));
        assert!(matches!(refused, Err(StoreError::NoRoom)));
        while table.room_needed() > 0 {
            drop(table.remove(packs.pop().unwrap()));
        }
        let refused = table.append(Way::Shared, Sequence(0), KEY, &head(1));
        assert!(matches!(refused, Err(StoreError::PassThrough(_))));
        assert!(table.set_condition(Condition::Healthy, false));
        table
            .append(Way::Shared, Sequence(0), KEY, &head(1))
            .unwrap();
    }

    #[test]
    fn a_lowered_limit_comes_back_step_by_step() {
        let mut table = table();
        table.set_condition(Condition::PassThrough("full".into()), true);
        table.set_condition(Condition::Healthy, false);
        assert_eq!(table.usage().limit, 0);
        for _ in 0..100 {
            table.raise_limit();
        }
        assert_eq!(table.usage().limit, LIMIT);
    }

    #[test]
    fn pack_numbers_end_without_a_panic() {
        let mut table = Table::new(HashMap::new(), u32::MAX, LIMIT);
        let refused = table.append(Way::Shared, Sequence(0), KEY, &head(1));
        assert!(matches!(refused, Err(StoreError::PassThrough(_))));
    }

    proptest! {
        #[test]
        fn room_adds_up_whatever_happens(steps in prop::collection::vec(0..6_u8, 1..120)) {
            let mut table = table();
            let empty = table.usage().allocated;
            let mut lane = None;
            for step in steps {
                match step {
                    0 => drop(table.append(Way::Shared, Sequence(0), KEY, &head(900_000))),
                    1 => {
                        if let Ok(appended) = table.append(Way::Own(lane), Sequence(0), KEY, &head(1 << 20)) {
                            lane = appended.open;
                        }
                    }
                    2 => drop(lane.take().map(|pack| table.close(pack))),
                    3 => {
                        if let Some(pack) = table.closed().first().copied() {
                            prop_assert!(table.seal(pack, sealed(4 << 20)));
                        }
                    }
                    4 => drop(table.sealed().first().map(|(pack, _)| table.remove(*pack))),
                    _ => drop(table.open().first().map(|pack| table.remove(*pack))),
                }
                prop_assert!(table.usage().allocated <= LIMIT);
            }
            for pack in table.having(|_| true) {
                drop(table.remove(pack));
            }
            prop_assert_eq!(table.usage().allocated, empty);
            prop_assert_eq!((table.unsealed_bytes, table.closed), (0, 0));
        }
    }
}
