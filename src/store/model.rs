//! The store without threads and files, for tests that choose the order of every step: the table of
//! packs and the rules of a start as they are, a set for the disk, and lists for the journal.
//!
//! Each method is one step: in the store nobody gets in between either, because a lock is held or
//! because one system call does it.

use super::Heir;
use super::NewPiece;
use super::Piece;
use super::Record;
use super::pack::Address;
use super::pack::Builder;
use super::pack::Sealed;
use super::replay::Packs;
use super::replay::places;
use super::table::Pack;
use super::table::Table;
use super::table::Way;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use super::journal::Line;

/// What survives a kill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    packs: HashMap<PackId, (Sealed, Arc<Builder>)>,
    /// The journal's files, the oldest first; the last one is written to.
    files: Vec<Vec<Line>>,
}

/// What the writing thread is asked to do, in order.
#[derive(Debug)]
pub(crate) enum Task {
    Line(Line),
    Put(Put),
    Seal(PackId),
}

/// A store on paper.
#[derive(Debug)]
pub(crate) struct Paper {
    table: Table,
    pub(crate) disk: Disk,
    pub(crate) tasks: VecDeque<Task>,
    /// Records that are not written yet.
    kept: Vec<Line>,
    /// The newest sequence of any record at the start.
    pub(crate) newest: Sequence,
}

impl Paper {
    /// Starts over what a kill left, with the rules of a start.
    pub(crate) fn start(mut disk: Disk, heir: &mut dyn Heir) -> Self {
        let mut found = Packs::default();
        let lines = || disk.files.iter().flatten();
        lines().for_each(|line| found.note(line));
        heir.expect(0);
        let expected: HashMap<PackId, u32> = found
            .alive()
            .map(|(pack, _, bytes)| (pack, bytes))
            .collect();
        let mut packs: HashMap<PackId, Sealed> = HashMap::new();
        for (pack, (sealed, _)) in &disk.packs {
            if expected.get(pack) == Some(&sealed.bytes) {
                packs.insert(*pack, *sealed);
            }
        }
        let mut named = HashSet::new();
        for line in lines() {
            let Line::Record(record @ (Record::Put(_) | Record::Purge { .. })) = line else {
                continue;
            };
            if found.passes(&packs, record, &mut named) {
                heir.take(record.clone());
            }
        }
        packs.retain(|pack, _| named.contains(pack) || heir.needs(*pack));
        disk.packs.retain(|pack, _| packs.contains_key(pack));
        disk.files.push(Vec::new());
        Self {
            table: Table::new(packs, found.next_pack, 1 << 30),
            disk,
            tasks: VecDeque::new(),
            kept: Vec::new(),
            newest: found.newest,
        }
    }

    pub(crate) fn append(
        &mut self,
        sequence: Sequence,
        key: PrimaryKey,
        pieces: &[NewPiece],
    ) -> Vec<Location> {
        let appended = self
            .table
            .append(Way::Shared, sequence, key, pieces)
            .unwrap();
        self.tasks
            .extend(appended.closed.into_iter().map(Task::Seal));
        appended.locations
    }

    /// As `Store::record_put`.
    pub(crate) fn record_put(&mut self, put: Put) -> Option<Put> {
        match self.table.wait(put) {
            Some((put, false)) => return Some(put),
            Some((put, true)) => self.tasks.push_back(Task::Put(put)),
            None => {}
        }
        None
    }

    pub(crate) fn read(&self, location: Location) -> Option<Bytes> {
        match self.table.get(location.pack)? {
            Pack::Open(builder) => builder.read(location),
            Pack::Closed(builder) => builder.read(location),
            Pack::Sealed(_) => self.disk.packs.get(&location.pack)?.1.read(location),
        }
    }

    pub(crate) fn pieces(&self, pack: PackId) -> Vec<Piece> {
        let pack = self.disk.packs.get(&pack);
        pack.map(|(_, builder)| builder.pieces())
            .unwrap_or_default()
    }

    pub(crate) fn sealed(&self) -> Vec<PackId> {
        let mut packs: Vec<PackId> = self
            .table
            .sealed()
            .into_iter()
            .map(|(pack, _)| pack)
            .collect();
        packs.sort_unstable();
        packs
    }

    /// Every pack there is, and every pack on disk: the same when all is quiet.
    pub(crate) fn packs(&self) -> (HashSet<PackId>, HashSet<PackId>) {
        let known = self
            .sealed()
            .into_iter()
            .chain(self.table.open())
            .chain(self.table.closed());
        (known.collect(), self.disk.packs.keys().copied().collect())
    }

    /// Ends the open packs, as a tick or a flush does.
    pub(crate) fn close_open(&mut self) {
        for pack in self.table.open() {
            self.table.close(pack);
        }
        self.tasks
            .extend(self.table.closed().into_iter().map(Task::Seal));
    }

    /// The next task of the writing thread.
    pub(crate) fn next_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// Renames a closed pack into place; false when it is no longer there to be written.
    pub(crate) fn write_pack(&mut self, pack: PackId) -> bool {
        let Some(Pack::Closed(builder)) = self.table.get(pack) else {
            return false;
        };
        let sealed = Sealed {
            address: Address(pack.0.into()),
            bytes: builder.file_bytes(),
            allocated: builder.file_bytes(),
        };
        let builder = Arc::clone(builder);
        self.disk.packs.insert(pack, (sealed, builder));
        true
    }

    /// Notes that a written pack is on disk.
    pub(crate) fn seal(&mut self, pack: PackId) {
        let Some((sealed, _)) = self.disk.packs.get(&pack) else {
            return;
        };
        let sealed = *sealed;
        if self.table.seal(pack, sealed) {
            self.kept
                .push(Line::Sealed(pack, sealed.address, sealed.bytes));
        } else {
            self.disk.packs.remove(&pack);
        }
    }

    /// The disk refuses a pack.
    pub(crate) fn lose(&mut self, pack: PackId) {
        drop(self.table.remove(pack));
        self.disk.packs.remove(&pack);
    }

    /// The puts that waited for a pack and need not wait any more, and whether their packs are there.
    pub(crate) fn release(&mut self, pack: PackId) -> Vec<(Put, bool)> {
        let puts = self.table.take_waiting(pack);
        puts.into_iter()
            .filter_map(|put| self.table.wait(put))
            .collect()
    }

    pub(crate) fn place(&mut self, put: Put) -> Vec<(Put, bool)> {
        self.table.wait(put).into_iter().collect()
    }

    pub(crate) fn keep(&mut self, line: Line) {
        self.kept.push(line);
    }

    /// Writes the records kept so far, and says which.
    pub(crate) fn write_records(&mut self) -> Vec<Line> {
        let written = std::mem::take(&mut self.kept);
        if let Some(file) = self.disk.files.last_mut() {
            file.extend(written.iter().cloned());
        }
        written
    }

    /// Takes a pack out of the table; true when its file is to be deleted next.
    pub(crate) fn remove(&mut self, pack: PackId) -> bool {
        matches!(self.table.remove(pack), Some(Pack::Sealed(_)))
    }

    pub(crate) fn delete(&mut self, pack: PackId) {
        self.disk.packs.remove(&pack);
        self.tasks.push_back(Task::Line(Line::Dropped(pack)));
    }

    /// Begins the next journal file; says how many there were, and what a snapshot begins with.
    pub(crate) fn rotate(&mut self) -> (usize, Vec<Line>) {
        let before = self.disk.files.len();
        self.disk.files.push(Vec::new());
        let sealed = self.table.sealed().into_iter();
        let lines = sealed.map(|(pack, sealed)| Line::Sealed(pack, sealed.address, sealed.bytes));
        (before, lines.collect())
    }

    /// Puts a snapshot in the place of the files that were there when it was begun.
    pub(crate) fn put_in_place(&mut self, before: usize, snapshot: Vec<Line>) {
        self.disk.files.splice(..before, [snapshot]);
    }

    /// Which packs a put names that are not there.
    pub(crate) fn missing(&self, put: &Put) -> Vec<PackId> {
        let packs = places(put).map(|place| place.pack);
        packs
            .filter(|pack| self.table.get(*pack).is_none())
            .collect()
    }
}
