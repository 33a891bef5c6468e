//! The store's face: opens the store, takes appends and records, reads back.
//!
//! Appends and records only touch memory and hand the rest to the writing thread; reads of sealed
//! packs go to the disk themselves.

use super::Condition;
use super::Heir;
use super::Keeper;
use super::NewPiece;
use super::Params;
use super::Piece;
use super::Put;
use super::Record;
use super::StoreError;
use super::Usage;
use super::files;
use super::files::File;
use super::folder::Folder;
use super::folder::failed;
use super::journal;
use super::journal::Line;
use super::journal::Part;
use super::lock;
use super::pack;
use super::pack::Contents;
use super::pack::Sealed;
use super::pack::rounded;
use super::replay;
use super::replay::Begun;
use super::survey::Holdings;
use super::table::Pack;
use super::table::Table;
use super::table::Way;
use super::writer;
use super::writer::HANG_TICKS;
use super::writer::Job;
use super::writer::Threads;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use hashbrown::HashMap;
use quick_cache::sync::Cache;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A line of packs that are written one after the other.
///
/// Small bodies share one; a body of more than one segment fills packs of its own, so that when
/// it goes, whole packs go with it. A lane that is dropped without [`Store::finish`] takes its
/// open pack with it: what was appended to it is gone. Packs it had filled before stay.
#[derive(Debug)]
pub struct Lane {
    open: Option<PackId>,
    moving: bool,
    shared: Arc<Shared>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut table = self.shared.write();
        table.remove_lane();
        if let Some(open) = self.open.take()
            && let Some(Pack::Open(_)) = table.get(open)
        {
            drop(table.remove(open));
            // Puts may wait for it.
            self.shared.send(Job::Seal(open));
        }
    }
}

/// The store of one directory, locked for this process. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// What the writing thread will need, until it is started.
    waiting: Mutex<Option<(mpsc::Receiver<Job>, Begun)>>,
    threads: Mutex<Option<Threads>>,
    snapshot: Mutex<()>,
    newest: Sequence,
}

/// What the store's face, its lanes and its threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) contents: Contents,
    pub(super) folder: Mutex<Folder>,
    pub(super) files: Cache<PackId, Arc<File>>,
    /// Files of packs that another process may delete while somebody reads them.
    kept_open: Mutex<HashMap<PackId, Arc<File>>>,
    table: RwLock<Table>,
    jobs: mpsc::Sender<Job>,
    /// Ticks since the writing thread last gave a sign of life.
    pub(super) unheeded: AtomicU32,
    /// Lines handed in since it hangs.
    held: AtomicU64,
    /// Some were left out.
    lacks: AtomicBool,
    pub(super) write_errors: AtomicU64,
    read_errors: AtomicU64,
    corrupt: AtomicU64,
}

impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job to the writing thread. When that has ended nobody waits for it: what must be
    /// answered is answered by its dropped reply.
    fn send(&self, job: Job) {
        drop(self.jobs.send(job));
    }

    /// As [`send`](Self::send), for so many lines. While the disk hangs only a bounded number is held:
    /// after that the journal lacks some, and must begin anew.
    fn send_lines(&self, job: Job, lines: usize) {
        let lines = u64::try_from(lines).unwrap_or(u64::MAX);
        if self.hangs() && self.held.fetch_add(lines, Ordering::Relaxed) >= HELD_LINES_MAX {
            self.lacks.store(true, Ordering::Relaxed);
        } else {
            self.send(job);
        }
    }

    /// Has the writing thread given no sign of life for long?
    fn hangs(&self) -> bool {
        self.unheeded.load(Ordering::Relaxed) > HANG_TICKS
    }

    /// Notes a sign of life of the writing thread; says whether lines were left out before.
    pub(super) fn heed(&self) -> bool {
        self.unheeded.store(0, Ordering::Relaxed);
        self.held.store(0, Ordering::Relaxed);
        self.lacks.swap(false, Ordering::Relaxed)
    }
}

impl Store {
    /// Opens (or makes) the store, takes its lock, skips damage in the journal, sweeps temporary
    /// files, drops contents no surviving put names, and hands every surviving record to `heir`
    /// in order. Records whose pack is missing or short are left out. A disk that can be read but
    /// not written, as a full one, is passed through. Blocking.
    pub fn open(params: &Params, heir: &mut dyn Heir) -> Result<Self, StoreError> {
        Self::open_folder(params, Folder::open(&params.dir)?, heir)
    }

    /// As [`open`](Self::open), but nothing that lies there is believed: it is deleted. Blocking.
    pub fn open_anew(params: &Params, heir: &mut dyn Heir) -> Result<Self, StoreError> {
        let folder = Folder::open(&params.dir)?;
        journal::delete_all(&folder.journal()).map_err(failed("empty", &folder.journal()))?;
        Self::open_folder(params, folder, heir)
    }

    fn open_folder(
        params: &Params,
        folder: Folder,
        heir: &mut dyn Heir,
    ) -> Result<Self, StoreError> {
        journal::check_versions(&folder.journal())?;
        let contents = Contents::new(&params.dir);
        let (table, begun) = replay::replay(&folder, &contents, params.disk_bytes_max, heir)?;
        let damaged = begun.damaged;
        let newest = begun.newest;
        let (jobs, receiver) = mpsc::channel();
        let shared = Shared {
            contents,
            folder: Mutex::new(folder),
            files: Cache::new(FILES_OPEN_MAX),
            kept_open: Mutex::default(),
            table: RwLock::new(table),
            jobs,
            unheeded: AtomicU32::new(0),
            held: AtomicU64::new(0),
            lacks: AtomicBool::new(false),
            write_errors: AtomicU64::new(0),
            read_errors: AtomicU64::new(0),
            corrupt: AtomicU64::new(damaged),
        };
        Ok(Self {
            shared: Arc::new(shared),
            waiting: Mutex::new(Some((receiver, begun))),
            threads: Mutex::new(None),
            snapshot: Mutex::new(()),
            newest,
        })
    }

    /// The newest sequence that the journal named when it was opened, also of what was not handed
    /// on: none of them may be given out again.
    pub fn newest(&self) -> Sequence {
        self.newest
    }

    /// Starts the writing thread. Until then appends stay in memory, and what waits for the disk
    /// (purges, flushes, snapshots) fails at once. A second call does nothing.
    pub fn start(&self, keeper: Arc<dyn Keeper>) {
        let Some((jobs, begun)) = lock(&self.waiting).take() else {
            return;
        };
        let ticks = self.shared.jobs.clone();
        let shared = Arc::clone(&self.shared);
        match writer::start(shared, keeper, begun, jobs, ticks) {
            Ok(threads) => *lock(&self.threads) = Some(threads),
            Err(error) => {
                tracing::warn!(%error, "could not start the store's threads");
                let reason = Arc::from("its threads could not be started");
                let mut table = self.shared.write();
                table.set_condition(Condition::PassThrough(reason), false);
            }
        }
    }

    /// A lane of its own for a large body; fails with `NoRoom` like [`append`](Self::append), and
    /// when there are too many.
    pub fn lane(&self) -> Result<Lane, StoreError> {
        self.shared.write().add_lane()?;
        Ok(self.new_lane(false))
    }

    /// A lane for what is moved so that packs can go: it may use room that is kept back for it. One
    /// at a time, and [`settle`](Self::settle) before the next.
    pub fn moving_lane(&self) -> Lane {
        self.shared.write().add_moving_lane();
        self.new_lane(true)
    }

    fn new_lane(&self, moving: bool) -> Lane {
        Lane {
            open: None,
            moving,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Appends pieces to the lane's open pack (`None`: the shared lane), all to the same pack and
    /// next to each other, and returns their places at once; the write to disk comes later. Never
    /// waits for the disk: when too many packs wait to be written it fails with `NoRoom`. Large
    /// pieces are kept as they are, not copied, until their pack is on disk.
    pub fn append(
        &self,
        lane: Option<&mut Lane>,
        sequence: Sequence,
        key: PrimaryKey,
        pieces: &[NewPiece],
    ) -> Result<Vec<Location>, StoreError> {
        let way = match lane.as_ref() {
            Some(lane) if lane.moving => Way::Moving(lane.open),
            Some(lane) => Way::Own(lane.open),
            None => Way::Shared,
        };
        let appended = self.shared.write().append(way, sequence, key, pieces)?;
        if let Some(lane) = lane {
            lane.open = appended.open;
        }
        for pack in appended.closed {
            self.shared.send(Job::Seal(pack));
        }
        Ok(appended.locations)
    }

    /// Ends a lane: its open pack is written now.
    pub fn finish(&self, mut lane: Lane) {
        if let Some(open) = lane.open.take()
            && self.shared.write().close(open)
        {
            self.shared.send(Job::Seal(open));
        }
    }

    /// Journals `put` once every pack it names is on disk and if its entry is still wanted then.
    /// When one of those packs is lost or dropped first, nothing is journaled. When one is gone by
    /// now the put is given back, and the keeper is not asked: it may have been told of the loss
    /// before it had the entry.
    pub fn record_put(&self, put: Put) -> Option<Put> {
        let bytes = journal::put_bytes(&put);
        let mut table = self.shared.write();
        // The writing thread is not woken for each: it looks when it has written the pack.
        let placed = table.wait(put);
        if let Some((put, false)) = placed {
            return Some(put);
        }
        table.journal.queued = table.journal.queued.saturating_add(bytes);
        drop(table);
        if let Some((put, _)) = placed {
            self.shared.send(Job::Put(put));
        }
        None
    }

    /// Journals a removal, soon.
    pub fn record_remove(&self, sequence: Sequence) {
        let line = Line::Record(Record::Remove(sequence));
        self.shared.send_lines(Job::Line(line), 1);
    }

    /// Journals a purge and returns when its records are written (not before). After an error, which
    /// comes at once when the disk hangs, they are written when it recovers. Dropped half-way: once polled, they are written all the
    /// same.
    pub async fn record_purge(&self, mark: Mark, selectors: &[Selector]) -> Result<(), StoreError> {
        let (reply, written) = oneshot::channel();
        let line = |selector: &Selector| {
            let selector = selector.clone();
            Line::Record(Record::Purge { mark, selector })
        };
        self.check_started()?;
        let lines = selectors.iter().map(line).collect();
        self.shared
            .send_lines(Job::Purge(lines, reply), selectors.len());
        if self.shared.hangs() {
            return Err(StoreError::Slow);
        }
        written.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// Writes the open packs now and returns when they and their records are written. Dropped
    /// half-way: once polled, they are written all the same.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (reply, written) = oneshot::channel();
        self.check_started()?;
        self.shared.send(Job::Flush(reply));
        written.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// Returns when what was handed in before is done: packs that were closed and the records that
    /// can be are written. Packs that are open stay so. Dropped half-way it changes nothing.
    pub async fn settle(&self) -> Result<(), StoreError> {
        let (reply, written) = oneshot::channel();
        self.check_started()?;
        self.shared.send(Job::Settle(reply));
        written.await.unwrap_or_else(|_| Err(self.ended()))
    }

    /// Reads bytes back, from memory or from disk; not checked: callers know the digest. A run
    /// over several pieces is read in one go. Blocking: call it off the request's thread unless
    /// the pack is in memory.
    pub fn read(&self, location: Location) -> Result<Bytes, StoreError> {
        let sealed = match self.shared.read().get(location.pack) {
            None => return Err(StoreError::Missing(location.pack)),
            Some(Pack::Open(builder)) => return within(builder.read(location), location),
            Some(Pack::Closed(builder)) => return within(builder.read(location), location),
            Some(Pack::Sealed(sealed)) => *sealed,
        };
        let end = location.offset.checked_add(location.bytes);
        if location.offset < pack::HEADER_BYTES || end.is_none_or(|end| end > sealed.bytes) {
            return Err(StoreError::Corrupt { location });
        }
        let file = self.file(location.pack, sealed)?;
        let mut bytes = vec![0; usize::try_from(location.bytes).unwrap_or_default()];
        match file.read_exact_at(&mut bytes, location.offset.into()) {
            Ok(()) => Ok(Bytes::from(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(StoreError::Corrupt { location })
            }
            Err(error) => Err(self.unreadable(location.pack, sealed, error)),
        }
    }

    /// Reads bytes back without blocking, when they are still in memory.
    pub fn read_open(&self, location: Location) -> Option<Bytes> {
        match self.shared.read().get(location.pack)? {
            Pack::Open(builder) => builder.read(location),
            Pack::Closed(builder) => builder.read(location),
            Pack::Sealed(_) => None,
        }
    }

    /// Reads the table at the end of a sealed pack, and checks that it is this pack's; of a pack
    /// in memory, tells what it holds so far. Blocking.
    pub fn pieces(&self, pack: PackId) -> Result<Vec<Piece>, StoreError> {
        let sealed = match self.shared.read().get(pack) {
            None => return Err(StoreError::Missing(pack)),
            Some(Pack::Open(builder)) => return Ok(builder.pieces()),
            Some(Pack::Closed(builder)) => return Ok(builder.pieces()),
            Some(Pack::Sealed(sealed)) => *sealed,
        };
        let file = self.file(pack, sealed)?;
        let corrupt = StoreError::Corrupt {
            location: Location {
                pack,
                offset: 0,
                bytes: sealed.bytes,
            },
        };
        match pack::read_table(&file, pack, sealed.bytes) {
            Ok(Some(pieces)) => Ok(pieces),
            Ok(None) => Err(corrupt),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(corrupt),
            Err(error) => Err(self.unreadable(pack, sealed, error)),
        }
    }

    /// Reads a whole sealed pack and says whether every bit of it is as it was written, also those
    /// that no request reads. Packs in memory are. Blocking.
    pub fn is_intact(&self, pack: PackId) -> Result<bool, StoreError> {
        let sealed = match self.shared.read().get(pack) {
            None => return Err(StoreError::Missing(pack)),
            Some(Pack::Open(_) | Pack::Closed(_)) => return Ok(true),
            Some(Pack::Sealed(sealed)) => *sealed,
        };
        match self.shared.contents.is_intact(sealed) {
            Ok(intact) => Ok(intact),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing(pack)),
            Err(error) => Err(self.unreadable(pack, sealed, error)),
        }
    }

    /// Deletes a pack, wherever it is: an open one is forgotten with all it holds, a sealed one's
    /// file is deleted. Readers that hold it open finish. `false` when the file could not be deleted:
    /// then the pack stays, for it takes its room. Blocking.
    pub fn drop_pack(&self, pack: PackId) -> bool {
        if self.is_lent() {
            return false;
        }
        let mut removed = {
            let mut table = self.shared.write();
            match table.get(pack) {
                Some(Pack::Open(_) | Pack::Closed(_)) => table.remove(pack),
                Some(Pack::Sealed(sealed)) => Some(Pack::Sealed(*sealed)),
                None => None,
            }
        };
        match &mut removed {
            Some(Pack::Sealed(sealed)) => {
                if let Err(error) = self.shared.contents.remove(sealed.address) {
                    tracing::warn!(pack = pack.0, %error, "could not delete a pack's file");
                    return false;
                }
                drop(self.shared.write().remove(pack));
                self.shared.files.remove(&pack);
                self.shared.send(Job::Line(Line::Dropped(pack)));
            }
            // Puts may wait for it.
            Some(Pack::Open(_) | Pack::Closed(_)) => self.shared.send(Job::Seal(pack)),
            None => {}
        }
        true
    }

    /// Starts a new journal and writes a snapshot: `next` hands out the live puts, and the purges
    /// that are still needed, some at a time, until it returns an empty vector. Blocking; run it on a thread of its own. After an error
    /// the old snapshot and journals go on to count, and another try should wait a while.
    pub fn snapshot(&self, next: &mut dyn FnMut() -> Vec<Record>) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.snapshot);
        self.check_started()?;
        let (reply, rotated) = mpsc::sync_channel(1);
        self.shared.send(Job::Rotate(reply));
        let number = rotated.recv().map_err(|_| self.ended())??;
        let (failures, earlier, parts) = {
            let journal = &self.shared.read().journal;
            (journal.failures, journal.earlier, journal.parts)
        };
        let path = lock(&self.shared.folder).journal();
        let unfinished = path.join(format!("{number}.new"));
        let written = self
            .write_snapshot(&unfinished, &Part::Snapshot(number).copy_path(&path), next)
            // It names packs that are open, and what it replaces may say where the same entries lay
            // before.
            .and_then(|bytes| self.flush_blocking().map(|()| bytes))
            .and_then(|bytes| self.put_in_place(&unfinished, &path, number, failures, bytes));
        let mut table = self.shared.write();
        table.journal.writing = 0;
        match written {
            Ok(bytes) => {
                table.written.add_journal(bytes);
                table.journal.snapshot = bytes;
                table.journal.earlier = table.journal.earlier.saturating_sub(earlier);
                table.journal.parts = table.journal.parts.saturating_sub(parts).saturating_add(1);
                table.journal.mended = failures;
                Ok(())
            }
            Err(error) => {
                drop(table);
                if matches!(error, StoreError::Io { .. }) {
                    self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
                }
                drop(files::remove_file(&unfinished));
                drop(files::remove_file(&Part::Snapshot(number).copy_path(&path)));
                Err(error)
            }
        }
    }

    /// As [`flush`](Self::flush), for a thread that may wait.
    pub fn flush_blocking(&self) -> Result<(), StoreError> {
        self.check_started()?;
        let (reply, written) = mpsc::sync_channel(1);
        self.shared.send(Job::FlushBlocking(reply));
        written.recv().map_err(|_| self.ended())?
    }

    /// Gives a whole snapshot its name and deletes what it replaces.
    fn put_in_place(
        &self,
        unfinished: &Path,
        folder: &Path,
        number: u64,
        failures: u64,
        bytes: u64,
    ) -> Result<u64, StoreError> {
        // No journal begins while this is held.
        let _folder = lock(&self.shared.folder);
        if self.shared.read().journal.failures != failures {
            let reason = "the journal failed while a snapshot was written";
            return Err(StoreError::PassThrough(reason.into()));
        }
        let path = Part::Snapshot(number).path(folder);
        files::rename(unfinished, &path).map_err(failed("rename", unfinished))?;
        // The files it replaces are deleted next: its name must be on disk before.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(failed("sync", folder))?;
        let (_, outdated) = journal::parts(folder).map_err(failed("list", folder))?;
        for part in outdated {
            drop(part.delete(folder));
        }
        Ok(bytes)
    }

    /// Writes all sealed packs and all records to `path` and the purges among them to `copy`, and
    /// returns the room of both.
    fn write_snapshot(
        &self,
        path: &Path,
        copy: &Path,
        next: &mut dyn FnMut() -> Vec<Record>,
    ) -> Result<u64, StoreError> {
        let mut file = File::create(path).map_err(failed("create", path))?;
        let table = self.shared.read();
        let mut buffer = journal::new_header(table.next_pack());
        let mut purges = buffer.clone();
        for (pack, sealed) in table.sealed() {
            Line::Sealed(pack, sealed.address, sealed.bytes).encode(&mut buffer);
        }
        drop(table);
        let mut total = 0_u64;
        loop {
            let records = next();
            let last = records.is_empty();
            for record in records {
                let is_purge = matches!(record, Record::Purge { .. });
                let line = Line::Record(record);
                line.encode(&mut buffer);
                if is_purge {
                    line.encode(&mut purges);
                }
            }
            if last || buffer.len() >= SNAPSHOT_WRITE_BYTES {
                total = total.saturating_add(buffer.len().try_into().unwrap_or(u64::MAX));
                if !self.shared.write().grow_snapshot(total) {
                    return Err(StoreError::NoRoom);
                }
                file.write_all(&buffer).map_err(failed("write", path))?;
                buffer.clear();
            }
            if last {
                break;
            }
        }
        file.sync_all().map_err(failed("sync", path))?;
        let more = rounded(u64::try_from(purges.len()).unwrap_or(u64::MAX));
        total = total.saturating_add(more);
        if !self.shared.write().grow_snapshot(total) {
            return Err(StoreError::NoRoom);
        }
        let copied = File::create(copy).and_then(|mut file| {
            file.write_all(&purges)?;
            file.sync_all()
        });
        copied.map_err(failed("write", copy))?;
        Ok(total)
    }

    /// Is the journal long enough for a snapshot to pay?
    pub fn wants_snapshot(&self) -> bool {
        self.shared.read().wants_snapshot()
    }

    /// How many allocated bytes must be freed, by dropping packs, before another pack can be
    /// begun. 0: there is room, and a `NoRoom` came from the disk being slow.
    pub fn room_needed(&self) -> u64 {
        self.shared.read().room_needed()
    }

    /// Names this store among all that this machine has, as
    /// [`identity`](super::survey::identity) does.
    pub fn identity(&self) -> Result<String, StoreError> {
        lock(&self.shared.folder).identity()
    }

    /// What lies on disk: the journal is read, packs are looked at. Damage in the journal is counted
    /// and asks for a snapshot, which replaces it. Blocking.
    pub fn holdings(&self) -> Result<Holdings, StoreError> {
        // No file of the journal goes while a snapshot cannot be written.
        let _no_snapshot = lock(&self.snapshot);
        let path = lock(&self.shared.folder).journal();
        let (damaged, journal_bytes) = replay::inspect(&path)?;
        let mut table = self.shared.write();
        if damaged > 0 && table.journal.failures <= table.journal.mended {
            self.shared.corrupt.fetch_add(damaged, Ordering::Relaxed);
            table.journal.failures = table.journal.mended.saturating_add(1);
        }
        drop(table);
        let sealed = self.shared.read().sealed();
        let (packs, missing) = sealed.into_iter().partition(|(_, sealed)| {
            match self.shared.contents.look(sealed.address) {
                Ok(there) => there.bytes == sealed.bytes,
                // What cannot be looked at now may be there.
                Err(error) => {
                    error.raw_os_error().is_some() && error.kind() != io::ErrorKind::NotFound
                }
            }
        });
        let mut holdings = Holdings::new(packs, missing, damaged, journal_bytes);
        // One that was dropped meanwhile is not missed.
        let table = self.shared.read();
        holdings.missing.retain(|pack| table.get(*pack).is_some());
        Ok(holdings)
    }

    /// Would the store write more if there were more room? Not while the disk fails otherwise: what
    /// lies on it may be all that can be served.
    pub fn can_use_room(&self) -> bool {
        let table = self.shared.read();
        table.is_full() || *table.condition() == Condition::Healthy
    }

    /// Counts a failed check, for metrics.
    pub fn count_corrupt(&self) {
        self.shared.corrupt.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a read that failed or was given up, for metrics; not each of them is logged.
    pub fn count_read_error(&self, error: &StoreError) {
        let earlier = self.shared.read_errors.fetch_add(1, Ordering::Relaxed);
        let count = earlier.saturating_add(1);
        if count.is_power_of_two() {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, count, "stored bytes could not be read");
        }
    }

    /// The condition of the disk.
    pub fn condition(&self) -> Condition {
        self.shared.read().condition().clone()
    }

    /// Sizes and counts.
    pub fn usage(&self) -> Usage {
        Usage {
            corrupt: self.shared.corrupt.load(Ordering::Relaxed),
            read_errors: self.shared.read_errors.load(Ordering::Relaxed),
            write_errors: self.shared.write_errors.load(Ordering::Relaxed),
            ..self.shared.read().usage()
        }
    }

    /// Sealed packs and their allocated bytes.
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        let sealed = self.shared.read().sealed();
        let allocated = |(pack, sealed): (PackId, Sealed)| (pack, u64::from(sealed.allocated));
        sealed.into_iter().map(allocated).collect()
    }

    /// Writes what is pending and stops the thread. Appends fail from then on; reads still work.
    /// Blocking. Dropping the store does the same; a store that was never started writes nothing.
    pub fn close(&self) {
        let threads = lock(&self.threads).take();
        if let Some(threads) = threads {
            self.shared.send(Job::Close);
            threads.join();
        }
    }

    /// Has the writing thread do what it does each half second, and returns when it is done.
    #[cfg(test)]
    pub(crate) fn tick(&self) {
        let (reply, done) = oneshot::channel();
        self.shared.send(Job::Tick);
        self.shared.send(Job::Purge(Vec::new(), reply));
        drop(done.blocking_recv());
    }

    /// Writes everything, waits until it is on disk, and writes nothing more until the store is
    /// [taken back](Self::take_back): appends fail, records are kept in memory, within bounds, nothing
    /// is deleted. Reads go on. An error leaves everything as it was; a disk that takes longer than
    /// `wait` is one. Blocking.
    pub fn lend(&self, wait: Duration) -> Result<(), StoreError> {
        let lent = self.stop_writing(wait, false);
        if matches!(lent, Err(StoreError::Slow)) {
            // It is done when the disk answers, and undone next.
            let (reply, _nobody) = mpsc::sync_channel(1);
            self.shared.send(Job::TakeBack(reply));
        }
        lent
    }

    /// As [`lend`](Self::lend), but what cannot be written is not waited for. False while the disk
    /// hangs: then it happens when that answers. Blocking.
    pub fn abandon(&self, wait: Duration) -> bool {
        self.stop_writing(wait, true).is_ok()
    }

    fn stop_writing(&self, wait: Duration, anyhow: bool) -> Result<(), StoreError> {
        let _no_snapshot = lock(&self.snapshot);
        self.check_started()?;
        let (reply, lent) = mpsc::sync_channel(1);
        self.shared.send(Job::Lend(anyhow, reply));
        match lent.recv_timeout(wait) {
            Ok(lent) => lent,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.ended()),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(StoreError::Slow),
        }
    }

    /// Lets the lock of a lent store go. False while the disk hangs: then it is kept.
    pub fn unlock(&self) -> bool {
        let folder = self.shared.folder.try_lock();
        folder.map(|mut folder| folder.unlock()).is_ok()
    }

    /// Takes a lent store back, lock and all: what another process deleted is lost, what it left is
    /// deleted, and records that were kept are written. False while another process has the lock, or
    /// the disk fails: then the store passes through until it can be used. Blocking.
    pub fn take_back(&self) -> bool {
        let (reply, works) = mpsc::sync_channel(1);
        self.shared.send(Job::TakeBack(reply));
        let works = works.recv().unwrap_or(false);
        lock(&self.shared.kept_open).clear();
        works
    }

    /// May another process have the store?
    pub fn is_lent(&self) -> bool {
        self.shared.read().is_lent()
    }

    /// Keeps a pack's file open until the store is taken back, so that it can be read even when
    /// another process has deleted it. False when it cannot be opened.
    pub fn hold(&self, pack: PackId) -> bool {
        let sealed = match self.shared.read().get(pack) {
            None => return false,
            Some(Pack::Open(_) | Pack::Closed(_)) => return true,
            Some(Pack::Sealed(sealed)) => *sealed,
        };
        if lock(&self.shared.kept_open).contains_key(&pack) {
            return true;
        }
        let Ok(file) = self.file(pack, sealed) else {
            return false;
        };
        lock(&self.shared.kept_open).insert(pack, file);
        true
    }

    fn check_started(&self) -> Result<(), StoreError> {
        if lock(&self.waiting).is_some() {
            return Err(StoreError::PassThrough("it is not started yet".into()));
        }
        Ok(())
    }

    fn ended(&self) -> StoreError {
        StoreError::PassThrough("its writing thread has ended".into())
    }

    /// A pack's file, open.
    fn file(&self, pack: PackId, sealed: Sealed) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.shared.files.get(&pack) {
            return Ok(file);
        }
        if let Some(file) = lock(&self.shared.kept_open).get(&pack) {
            return Ok(Arc::clone(file));
        }
        let opened = self.shared.contents.open(sealed.address);
        let file = Arc::new(opened.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                StoreError::Missing(pack)
            } else {
                self.unreadable(pack, sealed, error)
            }
        })?);
        self.shared.files.insert(pack, Arc::clone(&file));
        if self.shared.read().get(pack).is_none() {
            // Dropped meanwhile: an open file would keep its bytes on disk.
            self.shared.files.remove(&pack);
        }
        Ok(file)
    }

    fn unreadable(&self, pack: PackId, sealed: Sealed, error: io::Error) -> StoreError {
        // A disk that was away and is back is met by opening anew.
        self.shared.files.remove(&pack);
        let error = failed("read", &self.shared.contents.path(sealed.address))(error);
        self.count_read_error(&error);
        error
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// A run outside a pack in memory can only come from a location that was never handed out.
fn within(bytes: Option<Bytes>, location: Location) -> Result<Bytes, StoreError> {
    bytes.ok_or(StoreError::Corrupt { location })
}

const FILES_OPEN_MAX: usize = 256;
/// Lines held while the disk hangs.
pub(super) const HELD_LINES_MAX: u64 = 1 << 16;
const SNAPSHOT_WRITE_BYTES: usize = 256 << 10;
