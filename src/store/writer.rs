//! The thread that writes: packs, then the records that name them.
//!
//! ```text
//! Seal ─► content renamed in place ─► "sealed" record ─► puts that waited for it, if wanted
//! an error ─► pass-through ─(probe, each tick)─► healthy ─► once more; in vain, the pack is lost
//! ```
//!
//! A second thread sends a tick every half second; it stands for the clock, which this room does
//! not read. When the writing thread gives no sign of life for some ticks the disk hangs: then that
//! second thread has the store pass through, and the first tick that is heeded ends it.

use super::Condition;
use super::Keeper;
use super::Put;
use super::Record;
use super::StoreError;
use super::disk::Shared;
use super::folder::failed;
use super::folder::is_full;
use super::journal;
use super::journal::Journal;
use super::journal::Line;
use super::journal::Part;
use super::lock;
use super::pack::Sealed;
use super::replay::Begun;
use super::table::LENT;
use super::table::Pack;
use crate::rules::address::PackId;
use hashbrown::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// What the writing thread is asked to do, in order.
#[derive(Debug)]
pub(super) enum Job {
    /// Write everything, then end.
    Close,
    /// Write all packs in memory and their records.
    Flush(oneshot::Sender<Result<(), StoreError>>),
    /// Write everything, then nothing more until it is taken back; also when not everything can be
    /// written, if so told.
    Lend(bool, mpsc::SyncSender<Result<(), StoreError>>),
    /// Write a record.
    Line(Line),
    /// Write some records and say when they are written.
    Purge(Vec<Line>, oneshot::Sender<Result<(), StoreError>>),
    /// Write a record: its packs are on disk, or gone.
    Put(Put),
    /// Begin the next journal file and say its number.
    Rotate(mpsc::SyncSender<Result<u64, StoreError>>),
    /// Write the records kept so far and say when they are written.
    Settle(oneshot::Sender<Result<(), StoreError>>),
    /// Write a closed pack; of one that is gone, forget the puts that waited for it.
    Seal(PackId),
    /// As `Flush`, for a thread that waits.
    FlushBlocking(mpsc::SyncSender<Result<(), StoreError>>),
    /// Write again, after another process may have had the store; says whether the disk works.
    TakeBack(mpsc::SyncSender<bool>),
    /// Half a second has gone by.
    Tick,
}

/// The store's threads, while they run.
#[derive(Debug)]
pub(super) struct Threads {
    writer: JoinHandle<()>,
    ticker: JoinHandle<()>,
    stop: mpsc::Sender<()>,
}

impl Threads {
    /// Waits for both to end; the writing thread must have been told to. On that thread itself,
    /// where a keeper may let go of the last handle to the store, nothing is waited for.
    pub(super) fn join(self) {
        drop(self.stop);
        if self.writer.thread().id() == thread::current().id() {
            return;
        }
        if self.writer.join().is_err() || self.ticker.join().is_err() {
            tracing::error!("a thread of the store ended in a panic");
        }
    }
}

/// Starts both threads.
pub(super) fn start(
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    begun: Begun,
    jobs: mpsc::Receiver<Job>,
    ticks: mpsc::Sender<Job>,
) -> io::Result<Threads> {
    let (stop, stopped) = mpsc::channel::<()>();
    let watched = Arc::clone(&shared);
    let ticker = thread::Builder::new()
        .name("store-tick".into())
        .spawn(move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                let unheeded = watched.unheeded.fetch_add(1, Ordering::Relaxed);
                if unheeded == HANG_TICKS {
                    pass_through(&watched, "the disk does not answer", false);
                }
                // One that was not heeded yet will do.
                if unheeded == 0 && ticks.send(Job::Tick).is_err() {
                    break;
                }
            }
        })?;
    let writer = Writer {
        shared,
        keeper,
        journal: begun.journal,
        number: begun.number,
        records: Vec::new(),
        purges: Vec::new(),
        puts: 0,
        overflown: false,
        tried: HashMap::new(),
        shared_before: None,
        ticks_low: 0,
        lent: false,
        touched: false,
    };
    let writer = thread::Builder::new()
        .name("store-write".into())
        .spawn(move || writer.run(&jobs))?;
    Ok(Threads {
        writer,
        ticker,
        stop,
    })
}

struct Writer {
    shared: Arc<Shared>,
    keeper: Arc<dyn Keeper>,
    /// `None` after it failed, until a new one is begun.
    journal: Option<Journal>,
    /// The number of the newest journal file.
    number: u64,
    /// Encoded records to be written next; while the journal has failed, what it lacks.
    records: Vec<u8>,
    /// The purges among them, once more, for the journal's copy.
    purges: Vec<u8>,
    /// How many puts are among them.
    puts: u64,
    /// There was more to keep than `records` may hold: the files on disk must not be read again.
    overflown: bool,
    /// How often packs that are still in memory could not be written.
    tried: HashMap<PackId, u32>,
    /// The shared lane's open pack at the tick before.
    shared_before: Option<PackId>,
    /// Ticks since the limit was lowered or raised.
    ticks_low: u32,
    /// Another process may have the store: nothing is written.
    lent: bool,
    /// Another process may have changed what lies in the store.
    touched: bool,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let mut more = self.take(job);
            for _ in 0..BATCH_JOBS {
                match jobs.try_recv() {
                    Ok(job) if more => more = self.take(job),
                    _ => break,
                }
            }
            // An error is told by the condition; what was not written is kept.
            drop(self.write_records());
            if !more {
                return;
            }
        }
    }

    /// Does one job. False: it was the last.
    fn take(&mut self, job: Job) -> bool {
        if self.shared.heed() {
            self.lack();
        }
        match job {
            Job::Close => {
                drop(self.write_all());
                return false;
            }
            Job::Flush(reply) => drop(reply.send(self.write_all())),
            Job::Lend(anyhow, reply) => drop(reply.send(self.lend(anyhow))),
            Job::Line(line) => self.keep(&line),
            Job::Purge(lines, reply) => {
                for line in &lines {
                    self.keep(line);
                }
                drop(reply.send(self.write_records()));
            }
            Job::Put(put) => self.place(vec![put]),
            Job::Rotate(reply) => drop(reply.send(self.rotate())),
            Job::Seal(pack) => self.seal(pack),
            Job::FlushBlocking(reply) => drop(reply.send(self.write_all())),
            Job::Settle(reply) => drop(reply.send(self.write_records())),
            Job::TakeBack(reply) => drop(reply.send(self.take_back())),
            Job::Tick if self.lent => {}
            Job::Tick => self.tick(),
        }
        true
    }

    /// Keeps a record to be written with the next.
    fn keep(&mut self, line: &Line) {
        line.encode(&mut self.records);
        if let Line::Record(Record::Purge { .. }) = line {
            line.encode(&mut self.purges);
        }
        self.kept();
    }

    fn kept(&mut self) {
        if self.records.len() < RECORDS_BYTES_MAX {
            return;
        }
        drop(self.write_records());
        if self.records.len() >= RECORDS_BYTES_MAX {
            self.forget();
        }
    }

    /// There was more to write than could be kept.
    fn forget(&mut self) {
        self.records.clear();
        self.purges.clear();
        self.puts = 0;
        self.overflown = true;
    }

    /// Lines were left out while the disk hung: among them may have been purges, so nothing older
    /// may be read again.
    fn lack(&mut self) {
        self.forget();
        self.journal = None;
        let slow = io::Error::from(io::ErrorKind::TimedOut);
        self.fail("writing the journal", &slow);
    }

    /// Writes the records kept so far. After an error they are kept on.
    fn write_records(&mut self) -> Result<(), StoreError> {
        let Some(journal) = &mut self.journal else {
            return Err(self.passing());
        };
        if self.records.is_empty() {
            return Ok(());
        }
        match journal.append(&self.records, &self.purges) {
            Ok(()) => {
                let mut table = self.shared.write();
                table.journal.current = journal.bytes();
                table.journaled = table.journaled.saturating_add(self.puts);
                let bytes = self.records.len().saturating_add(self.purges.len());
                table
                    .written
                    .add_journal(bytes.try_into().unwrap_or(u64::MAX));
                self.records.clear();
                self.purges.clear();
                self.puts = 0;
                Ok(())
            }
            Err(error) => {
                let path = journal.path().to_path_buf();
                self.journal = None;
                self.fail("writing the journal", &error);
                Err(failed("write", &path)(error))
            }
        }
    }

    /// Closes and writes every pack in memory, then the records.
    fn write_all(&mut self) -> Result<(), StoreError> {
        if !self.healthy() {
            return Err(self.passing());
        }
        let closed = {
            let mut table = self.shared.write();
            for pack in table.open() {
                table.close(pack);
            }
            table.closed()
        };
        for pack in closed {
            self.seal(pack);
        }
        self.write_records()?;
        if self.healthy() {
            Ok(())
        } else {
            Err(self.passing())
        }
    }

    /// Writes one closed pack and what waited for it. While the disk has failed it waits on, also
    /// when it is this pack that could not be written: until it has been tried some times.
    fn seal(&mut self, pack: PackId) {
        let builder = match self.shared.read().get(pack) {
            Some(Pack::Closed(builder)) => Some(Arc::clone(builder)),
            Some(Pack::Open(_) | Pack::Sealed(_)) | None => None,
        };
        let Some(builder) = builder else {
            self.tried.remove(&pack);
            self.release(pack);
            return;
        };
        if !self.healthy() {
            return;
        }
        let sealed = match self.shared.contents.write(&builder) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.fail("writing a pack", &error);
                let tries = self.tried.entry(pack).or_default();
                *tries = tries.saturating_add(1);
                if *tries >= TRIES_MAX {
                    self.tried.remove(&pack);
                    self.lose(&[pack]);
                }
                return;
            }
        };
        self.tried.remove(&pack);
        if self.shared.write().seal(pack, sealed) {
            self.keep(&Line::Sealed(pack, sealed.address, sealed.bytes));
            self.keeper.sealed(pack, sealed.allocated.into());
        } else if let Err(error) = self.shared.contents.remove(sealed.address) {
            tracing::warn!(pack = pack.0, %error, "could not delete a dropped pack's file");
        }
        self.release(pack);
    }

    /// Looks again at the puts that waited for a pack.
    fn release(&mut self, pack: PackId) {
        let puts = self.shared.write().take_waiting(pack);
        self.place(puts);
    }

    /// Journals puts, lets them wait for another pack, or forgets them when a pack of theirs is gone.
    fn place(&mut self, puts: Vec<Put>) {
        let mut settled = Vec::with_capacity(puts.len());
        {
            let mut table = self.shared.write();
            for put in puts {
                if let Some((put, whole)) = table.wait(put) {
                    let bytes = journal::put_bytes(&put);
                    table.journal.queued = table.journal.queued.saturating_sub(bytes);
                    settled.push((put, whole));
                }
            }
        }
        for (put, whole) in settled {
            let wanted = self.keeper.wanted(put.sequence);
            // Without a journal, the snapshot that follows the next one brings it.
            if wanted && whole && self.journal.is_some() {
                self.puts = self.puts.saturating_add(1);
                self.keep(&Line::Record(Record::Put(put)));
            }
        }
    }

    fn rotate(&mut self) -> Result<u64, StoreError> {
        if !self.healthy() {
            return Err(self.passing());
        }
        self.write_records()?;
        // After a snapshot that failed, or that nothing followed, the file is as good as new.
        if !self.journal.as_ref().is_some_and(Journal::is_empty) {
            self.begin_journal()?;
        }
        Ok(self.number)
    }

    /// Begins the next journal file with the records kept so far.
    fn begin_journal(&mut self) -> Result<(), StoreError> {
        let folder = lock(&self.shared.folder);
        let path = folder.journal();
        let (counting, outdated) = journal::parts(&path).map_err(failed("list", &path))?;
        let newest = counting.iter().map(|part| part.number()).max().unwrap_or(0);
        let number = newest.max(self.number).saturating_add(1);
        let next_pack = self.shared.read().next_pack();
        let journal = Journal::create(&path, number, next_pack)
            .map_err(failed("create a journal in", &path))?;
        if self.overflown {
            for part in counting.iter().chain(&outdated) {
                let file = part.path(&path);
                part.delete(&path).map_err(failed("delete", &file))?;
            }
        }
        drop(folder);
        self.shared
            .write()
            .journal
            .begin(journal.bytes(), self.overflown);
        self.overflown = false;
        self.number = number;
        self.journal = Some(journal);
        let written = self.write_records();
        if written.is_err() {
            // The next try begins another one.
            drop(Part::Journal(number).delete(&path));
        }
        written
    }

    fn tick(&mut self) {
        if !self.healthy() {
            self.recover();
            return;
        }
        if !self.journal.as_ref().is_some_and(Journal::is_in_place) {
            self.journal = None;
            let gone = io::Error::from(io::ErrorKind::NotFound);
            self.fail("looking for the journal", &gone);
            return;
        }
        let open = self.shared.read().shared();
        // Seen at two ticks: between a quarter and half a second old.
        let old = open.filter(|open| self.shared_before == Some(*open));
        self.shared_before = open;
        if let Some(old) = old
            && self.shared.write().close(old)
        {
            self.seal(old);
        }
        self.ticks_low = self.ticks_low.saturating_add(1);
        if self.ticks_low >= LIMIT_TICKS {
            self.ticks_low = 0;
            self.shared.write().raise_limit();
        }
    }

    /// Writes everything, down to the disk, and then nothing more. Records that come meanwhile are
    /// kept.
    fn lend(&mut self, anyhow: bool) -> Result<(), StoreError> {
        self.shared.write().lend(true);
        let written = self.write_all().and_then(|()| {
            let journal = self.journal.as_ref();
            let synced = journal.map_or(Ok(()), Journal::sync);
            synced.map_err(failed("sync", &lock(&self.shared.folder).journal()))
        });
        if written.is_err() && !anyhow {
            self.shared.write().lend(false);
            return written;
        }
        self.journal = None;
        self.lent = true;
        let lent = Condition::PassThrough(LENT.into());
        self.shared.write().set_condition(lent, false);
        Ok(())
    }

    /// Goes on with a journal of its own, as after a disk has failed: a snapshot will replace what
    /// another process may have written.
    fn take_back(&mut self) -> bool {
        self.shared.write().lend(false);
        if std::mem::take(&mut self.lent) {
            self.touched = true;
            self.recover();
        }
        self.healthy()
    }

    /// Tries whether the disk works again, and makes whole what it lacks.
    fn recover(&mut self) {
        let full = self.shared.read().is_full();
        if let Err(error) = self.restore(full) {
            tracing::debug!(%error, "the store still passes through");
            return;
        }
        if full {
            self.shared.write().prove_room();
        } else if std::mem::take(&mut self.touched) {
            self.lose_deleted();
        } else {
            self.lose_missing();
        }
        self.shared.write().set_condition(Condition::Healthy, false);
        tracing::warn!("the store has recovered");
        let closed = self.shared.read().closed();
        for pack in closed {
            self.seal(pack);
        }
    }

    fn restore(&mut self, full: bool) -> Result<(), StoreError> {
        let pack_bytes = self.shared.read().pack_bytes();
        {
            let mut folder = lock(&self.shared.folder);
            folder.restore()?;
            folder.lock_again()?;
            folder
                .probe(if full { pack_bytes } else { PROBE_BYTES })
                .map_err(failed("probe", &folder.journal()))?;
        }
        if self.journal.as_ref().is_some_and(Journal::is_in_place) {
            return Ok(());
        }
        self.journal = None;
        // The journal lacks what happened meanwhile until a snapshot is written.
        self.shared.write().journal.failures += 1;
        self.begin_journal()
    }

    /// Gives up packs whose files were taken away with the disk.
    fn lose_missing(&mut self) {
        let mut sealed = self.shared.read().sealed();
        sealed.retain(
            |(_, expected)| match self.shared.contents.look(expected.address) {
                Ok(found) => found.bytes != expected.bytes,
                // Any other error may pass; who reads the pack will learn.
                Err(error) => matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ),
            },
        );
        let missing: Vec<PackId> = sealed.into_iter().map(|(pack, _)| pack).collect();
        for packs in missing.chunks(LOST_AT_ONCE) {
            self.lose(packs);
        }
    }

    /// Gives up packs that another process has deleted, and deletes what it has left.
    fn lose_deleted(&mut self) {
        let sealed = self.shared.read().sealed();
        let known = sealed.iter().map(|(pack, sealed)| (sealed.address, *pack));
        let Ok(found) = self.shared.contents.sweep(&known.collect()) else {
            return self.lose_missing();
        };
        let is_there = |(pack, sealed): &(PackId, Sealed)| {
            found
                .get(pack)
                .is_some_and(|found| found.bytes == sealed.bytes)
        };
        let gone: Vec<PackId> = sealed
            .iter()
            .filter(|pack| !is_there(pack))
            .map(|(pack, _)| *pack)
            .collect();
        for packs in gone.chunks(LOST_AT_ONCE) {
            self.lose(packs);
        }
    }

    fn lose(&mut self, packs: &[PackId]) {
        for pack in packs {
            let removed = self.shared.write().remove(*pack);
            self.shared.files.remove(pack);
            if let Some(Pack::Sealed(sealed)) = removed {
                // What is left of it would lie on disk uncounted.
                drop(self.shared.contents.remove(sealed.address));
                self.keep(&Line::Dropped(*pack));
            }
            self.release(*pack);
        }
        self.keeper.lost(packs);
    }

    fn fail(&mut self, action: &str, error: &io::Error) {
        self.ticks_low = 0;
        pass_through(&self.shared, &format!("{action}: {error}"), is_full(error));
    }

    fn healthy(&self) -> bool {
        *self.shared.read().condition() == Condition::Healthy
    }

    fn passing(&self) -> StoreError {
        let reason = match self.shared.read().condition() {
            Condition::PassThrough(reason) => Arc::clone(reason),
            Condition::Healthy => "it has no journal".into(),
        };
        StoreError::PassThrough(reason)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread ends in a panic: nothing would be written any more.
        let reason = Arc::from("its writing thread has ended");
        let condition = Condition::PassThrough(reason);
        self.shared.write().set_condition(condition, false);
    }
}

/// From now on nothing is appended, until the writing thread finds that the disk works again.
fn pass_through(shared: &Shared, reason: &str, full: bool) {
    shared.write_errors.fetch_add(1, Ordering::Relaxed);
    let condition = Condition::PassThrough(reason.into());
    if shared.write().set_condition(condition, full) {
        tracing::warn!(reason, "the store passes through");
    }
}

/// What is stored is on disk within two ticks and the time that takes: well within a second.
const TICK: Duration = Duration::from_millis(250);
const PROBE_BYTES: u32 = 4096;
/// Two seconds: a disk that works answers sooner, also when it is busy.
pub(super) const HANG_TICKS: u32 = 8;
/// How often a pack is tried to be written before it is given up.
const TRIES_MAX: u32 = 4;
const BATCH_JOBS: usize = 4096;
/// Bounds what the keeper must hold of their entries.
const LOST_AT_ONCE: usize = 256;
const RECORDS_BYTES_MAX: usize = 1 << 20;
/// Two minutes: a disk that is really smaller than the limit loses one pack in this time.
const LIMIT_TICKS: u32 = 480;
