//! The one place where the index, the disk and the memory tier change together.
//!
//! ```text
//! lookup ─► Found ─► hot: memory tier ─ miss ─► load: head (and a small body) from disk, checked
//! keep(small body) / Draft(large body) ─► store.append ─► index.insert ─► journal, once on disk
//! purge ─► mark in the index ─► memory tier ─► journal ─► receipt
//! ```
//!
//! Locks, in the order they may be taken: `tidying`, then `gate`, then `index`, then `pending` or
//! `pins`. The store is never called while `index`, `pending` or `pins` is held: it calls back into
//! them.

pub mod catalog;
mod draft;
mod keep;
mod lend;
mod load;
#[cfg(test)]
mod model;
mod patience;
mod pins;
mod record;
mod search;
pub mod space;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod trials;
#[cfg(test)]
mod trouble;
pub mod upkeep;

use self::record::Replay;
use self::record::Witness;
use self::upkeep::Upkeep;
use crate::rules::address::PackId;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::stored::StoredResponse;
use crate::state::eviction;
use crate::state::index::Found;
use crate::state::index::Index;
use crate::state::index::Lookup;
use crate::state::index::Refused;
use crate::state::marks::Verdict;
use crate::store::Condition;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Usage;
use crate::store::memory::Memory;
use bytes::Bytes;
use hashbrown::HashMap;
use http::HeaderMap;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

pub use self::draft::Draft;
pub use self::pins::Pins;
/// Stored responses: what they are, where they lie, and the hot ones themselves.
#[derive(Debug)]
pub struct Shelf {
    pub(super) index: RwLock<Index>,
    pub(super) store: Store,
    /// Shared with the shelves of the other directories, as the sequence is.
    pub(super) memory: Arc<Memory>,
    /// Held for reading from an append to its index change; who drops packs holds it for writing.
    pub(super) gate: RwLock<()>,
    /// Held by who moves and drops packs: one that another is emptying must not go before the new
    /// places are in the journal.
    tidying: Mutex<()>,
    /// Entries with records that are not written yet, and how many of them.
    pending: Mutex<HashMap<Sequence, (PrimaryKey, u32)>>,
    /// Packs that somebody is reading or filling; they must not be dropped.
    pins: Mutex<HashMap<PackId, u32>>,
    lanes: AtomicUsize,
    lanes_max: usize,
    /// Reads that were given up and still stand on their threads.
    overdue: Arc<AtomicUsize>,
    sequence: Arc<AtomicU64>,
    /// The newest mark that the index does not show, so that most hits need not ask for it.
    newest_mark: AtomicU64,
    scrub_bytes_per_second: AtomicU64,
    pub(super) upkeep: Upkeep,
    /// Wakes the thread that makes room.
    pub(super) wanting: (Mutex<Wanting>, Condvar),
    /// Tells those who wait that room was made.
    pub(super) room: Notify,
}

/// What the thread that makes room has been asked for.
#[derive(Debug, Default)]
pub(super) struct Wanting {
    pub(super) room: bool,
    pub(super) close: bool,
}

/// A stored response, loaded.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which entry it is.
    pub found: Found,
    /// Its head.
    pub response: Arc<StoredResponse>,
    /// Its body.
    pub body: StoredBody,
}

/// Where a stored body's bytes are to be had.
#[derive(Clone, Debug)]
pub enum StoredBody {
    /// Here, whole and checked.
    Memory(Bytes),
    /// On disk, in these parts, each to be checked when it is read.
    Segments(Arc<[Segment]>, Arc<Pins>),
}

/// Why a response was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It is larger than the store allows.
    BodyTooLarge,
    /// No room could be made in time.
    NoRoom,
    /// A purge came while it was under way, or a newer response.
    Purged,
    /// The disk has failed.
    StoreFailed,
}

/// What the shelves of all directories have in common.
#[derive(Clone, Debug)]
pub struct Common {
    memory: Arc<Memory>,
    sequence: Arc<AtomicU64>,
}

impl Common {
    /// A memory tier of so many bytes, and sequences from the first on.
    pub fn new(memory_bytes_max: u64) -> Self {
        Self {
            memory: Arc::new(Memory::new(memory_bytes_max)),
            sequence: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The memory tier.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes the next sequence.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.sequence.fetch_add(1, Ordering::SeqCst))
    }

    /// Goes on with this sequence, unless later ones were taken already.
    pub fn count_from(&self, next: Sequence) {
        self.sequence.fetch_max(next.0, Ordering::SeqCst);
    }

    /// Leaves out so many sequences: another process may have used them.
    pub fn leave_out(&self, sequences: u64) {
        self.sequence.fetch_add(sequences, Ordering::SeqCst);
    }
}

impl Shelf {
    /// Opens the store of one directory that has no others beside it, and fills the index from its
    /// journal.
    pub fn open(
        params: &crate::store::Params,
        memory_bytes_max: u64,
        fill_bytes_max: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let common = Common::new(memory_bytes_max);
        Self::open_beside(params, true, &common, fill_bytes_max)
    }

    /// Opens the store of one directory among several. One that is not `believed` begins empty.
    pub fn open_beside(
        params: &crate::store::Params,
        believed: bool,
        common: &Common,
        fill_bytes_max: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let mut replay = Replay::default();
        let store = if believed {
            Store::open(params, &mut replay)?
        } else {
            Store::open_anew(params, &mut replay)?
        };
        let (index, untold) = replay.finish();
        let next = store.newest().0.saturating_add(1);
        common.sequence.fetch_max(next, Ordering::SeqCst);
        let newest_mark = AtomicU64::new(index.marks().newest().0);
        let lanes_max = (fill_bytes_max.min(params.disk_bytes_max / 4) / LANE_BYTES).clamp(1, 64);
        let shelf = Arc::new(Self {
            index: RwLock::new(index),
            store,
            memory: Arc::clone(&common.memory),
            gate: RwLock::new(()),
            tidying: Mutex::default(),
            pending: Mutex::default(),
            pins: Mutex::default(),
            lanes: AtomicUsize::new(0),
            overdue: Arc::default(),
            lanes_max: usize::try_from(lanes_max).unwrap_or(1),
            sequence: Arc::clone(&common.sequence),
            newest_mark,
            scrub_bytes_per_second: AtomicU64::new(0),
            upkeep: Upkeep::default(),
            wanting: (Mutex::default(), Condvar::new()),
            room: Notify::new(),
        });
        shelf.store.start(Arc::new(Witness(Arc::downgrade(&shelf))));
        if !untold.is_empty() {
            for put in untold {
                shelf.journal(put);
            }
            // A disk in trouble drops nothing before it has recovered.
            drop(shelf.store.flush_blocking());
        }
        Ok(shelf)
    }

    /// Sets how many bytes a second are read to find damage; 0 for none.
    pub fn scrub_at(&self, bytes_per_second: u64) {
        self.scrub_bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
    }

    /// Sets what goes first when room is needed, and what is let in.
    pub fn choose_by(&self, params: eviction::Params) {
        self.write_index().choose_by(params);
    }

    /// Takes the next sequence.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.sequence.fetch_add(1, Ordering::SeqCst))
    }

    /// Finds an entry for one of `keys`, rather one with `Vary`.
    pub fn lookup(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Lookup {
        self.read_index().lookup(keys, request_headers)
    }

    /// Finds the newest entry for one of `keys`, with or without `Vary`.
    pub fn lookup_newest(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Lookup {
        self.read_index().lookup_newest(keys, request_headers)
    }

    /// The entries that could answer a request; at most one a variant (RFC 9111 §4.3.4).
    pub fn candidates(
        &self,
        keys: impl IntoIterator<Item = PrimaryKey>,
        request_headers: &HeaderMap,
    ) -> Vec<Found> {
        self.read_index().candidates(keys, request_headers)
    }

    /// Is this entry still here, and not purged?
    pub fn contains(&self, stored: &Stored) -> bool {
        let Found { key, sequence, .. } = stored.found;
        self.read_index().contains(key, sequence)
            && self.verdict(sequence, &stored.response) != Verdict::Gone
    }

    /// What marks make of a response, as far as its names are concerned.
    pub fn verdict(&self, sequence: Sequence, response: &StoredResponse) -> Verdict {
        // The common case: one compare.
        if sequence.0 >= self.newest_mark.load(Ordering::Relaxed) {
            return Verdict::Clear;
        }
        let (key, names) = (response.key, &response.names);
        self.read_index().verdict(sequence, key, names)
    }

    /// The marks that cover a response, oldest first.
    pub fn marks_on(&self, sequence: Sequence, response: &StoredResponse) -> Vec<(Mark, Selector)> {
        let index = self.read_index();
        index
            .marks()
            .covering(sequence, response.key, &response.names)
    }

    /// The largest body that will be kept: half of the disk's limit.
    pub fn body_bytes_max(&self) -> u64 {
        self.store.usage().limit / 2
    }

    /// May a body of so many bytes be stored for `key`? If not, it may at the next request.
    pub fn admit(&self, key: PrimaryKey, body_bytes: u64) -> bool {
        let small = self.read_index().admits_at_once(body_bytes);
        small || self.write_index().admit(key, body_bytes)
    }

    /// Would [`admit`](Self::admit) say yes? Nothing is remembered.
    pub fn would_admit(&self, key: PrimaryKey, body_bytes: u64) -> bool {
        self.read_index().would_admit(key, body_bytes)
    }

    /// Why nothing can be stored now, if so.
    pub fn pass_through(&self) -> Option<Arc<str>> {
        match self.store.condition() {
            Condition::Healthy => None,
            Condition::PassThrough(reason) => Some(reason),
        }
    }

    /// Why the directory is of no use now, if so: it passes through, or its reads hang.
    pub fn trouble(&self) -> Option<Arc<str>> {
        let hangs = || self.reads_hang().then(|| "its reads hang".into());
        self.pass_through().or_else(hangs)
    }

    /// Do so many reads hang that more should not be begun where others may have the answer?
    pub fn reads_hang(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) >= OVERDUE_MANY
    }

    /// Sets a mark on all that `selectors` cover, in this directory only. Returns what went at once: it
    /// is to be forgotten when the index is no longer locked; and how many entries are covered, where
    /// that is known.
    pub fn mark(
        &self,
        index: &mut Index,
        mark: Mark,
        selectors: &[Selector],
    ) -> (Vec<Sequence>, Option<u64>) {
        let (mut gone, mut covered) = (Vec::new(), Some(0));
        for selector in selectors {
            let (went, entries) = index.mark(mark, selector);
            gone.extend(went);
            covered = covered.zip(entries).map(|(one, other)| one + other);
        }
        self.note_newest(index);
        (gone, covered)
    }

    /// Has lookups know of the newest mark.
    pub(super) fn note_newest(&self, index: &Index) {
        let newest = index.marks().newest().0;
        self.newest_mark.store(newest, Ordering::Relaxed);
    }

    /// Removes all variants of a key that are older than `mark`: what replaces them is stored in
    /// another directory.
    pub fn give_up_key(&self, key: PrimaryKey, mark: Sequence) {
        let gone = self.write_index().mark_key(key, mark);
        self.forget_hot(&gone);
        for sequence in gone {
            self.store.record_remove(sequence);
        }
    }

    /// Writes a purge to the journal; says whether it is durable. A disk that hangs is not waited
    /// for: then the purge is written when it goes on.
    pub async fn record_purge(&self, mark: Mark, selectors: &[Selector]) -> bool {
        let until = Instant::now() + PURGE_WAIT;
        self.record_purge_until(mark, selectors, until).await
    }

    /// As [`record_purge`](Self::record_purge), but waits until then.
    pub async fn record_purge_until(
        &self,
        mark: Mark,
        selectors: &[Selector],
        until: Instant,
    ) -> bool {
        // It is handed to the store, also when there is no time left to wait for it.
        let written = self.store.record_purge(mark, selectors);
        matches!(timeout_at(until, written).await, Ok(Ok(())))
    }

    /// Removes one entry, as when a validation withdrew what it allowed.
    pub fn remove(&self, found: Found) {
        if self.write_index().remove(found.key, found.sequence) {
            self.store.record_remove(found.sequence);
        }
        self.memory.remove(found.sequence);
    }

    /// Writes everything that is pending; says whether it is all written in time. Blocking.
    pub fn write_all(&self, wait: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let flush = async { timeout(wait, self.store.flush()).await };
        runtime.is_ok_and(|runtime| matches!(runtime.block_on(flush), Ok(Ok(()))))
    }

    /// How many responses are stored.
    pub fn entries(&self) -> usize {
        self.read_index().len()
    }

    /// Bytes of heads and bodies alive.
    pub fn live_bytes(&self) -> u64 {
        self.read_index().live_bytes()
    }

    /// What making room and tidying up has come to.
    pub fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Writes everything that is pending and ends the store's thread. Blocks for as long as that
    /// takes.
    pub fn close(&self) {
        self.store.close();
    }

    /// Sizes on disk.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }

    pub(in crate::flow) fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::flow) fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops entries that are gone from the index out of memory.
    pub(in crate::flow) fn forget_hot(&self, gone: &[Sequence]) {
        for sequence in gone {
            self.memory.remove(*sequence);
        }
    }

    /// Wakes the thread that makes room.
    pub(in crate::flow) fn ask_for_room(&self) {
        lock(&self.wanting.0).room = true;
        self.wanting.1.notify_one();
    }
}

impl From<&StoreError> for NotKept {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::NoRoom => Self::NoRoom,
            StoreError::Corrupt { .. }
            | StoreError::Foreign { .. }
            | StoreError::Io { .. }
            | StoreError::JournalVersion { .. }
            | StoreError::Locked { .. }
            | StoreError::Missing(_)
            | StoreError::None { .. }
            | StoreError::PassThrough(_)
            | StoreError::Slow
            | StoreError::TooLarge { .. }
            | StoreError::Version { .. } => Self::StoreFailed,
        }
    }
}

impl From<Refused> for NotKept {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Covered | Refused::Superseded => Self::Purged,
            Refused::Full => Self::NoRoom,
        }
    }
}

/// Locks a mutex whose holder may have panicked: what it guards is counts and maps, each changed
/// in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one lane may hold in memory.
const LANE_BYTES: u64 = 8 << 20;
/// One may be chance.
const OVERDUE_MANY: usize = 4;
/// A disk that works answers sooner, also when it is busy.
const PURGE_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(in crate::flow) mod tests {
    use super::*;
    use crate::rules::address::Digest;
    use crate::rules::freshness::Timing;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use crate::rules::tag::Names;
    use crate::rules::tag::TagKey;
    use bytes::Bytes;
    use http::StatusCode;
    use std::path::Path;
    use std::time::SystemTime;
    use tempfile::TempDir;

    const KEY: PrimaryKey = PrimaryKey([7; 16]);

    pub(in crate::flow) fn open(dir: &TempDir) -> Arc<Shelf> {
        open_at(&dir.path().join("store"))
    }

    pub(super) fn open_at(dir: &Path) -> Arc<Shelf> {
        let params = crate::store::Params {
            dir: dir.to_path_buf(),
            disk_bytes_max: 64 << 20,
        };
        // No memory tier: everything comes from disk.
        Shelf::open(&params, 0, 8 << 20).unwrap()
    }

    pub(in crate::flow) async fn keep(
        shelf: &Arc<Shelf>,
        key: PrimaryKey,
        body: &'static str,
    ) -> Stored {
        keep_bytes(shelf, key, Bytes::from_static(body.as_bytes())).await
    }

    pub(super) async fn keep_bytes(shelf: &Arc<Shelf>, key: PrimaryKey, body: Bytes) -> Stored {
        try_keep_bytes(shelf, key, body).await.unwrap()
    }

    pub(super) async fn try_keep_bytes(
        shelf: &Arc<Shelf>,
        key: PrimaryKey,
        body: Bytes,
    ) -> Result<Stored, NotKept> {
        let response = Arc::new(response(key, &body));
        shelf.keep(shelf.next_sequence(), response, body).await
    }

    /// What is stored with `body` under `key`.
    pub(in crate::flow) fn response(key: PrimaryKey, body: &[u8]) -> StoredResponse {
        StoredResponse {
            key,
            variant: VariantKey::ONLY,
            vary: Vec::new(),
            names: Names::default(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            timing: Timing {
                request_time: SystemTime::UNIX_EPOCH,
                response_time: SystemTime::UNIX_EPOCH,
                date_value: SystemTime::UNIX_EPOCH,
                age_value: Duration::ZERO,
            },
            lifetime: Duration::from_secs(60),
            stale: StaleWindow::default(),
            validate_always: false,
            must_revalidate: false,
            validators: None,
            body_bytes: body.len() as u64,
            body: Digest::of(body),
            part: None,
        }
    }

    pub(in crate::flow) fn found(shelf: &Shelf, key: PrimaryKey) -> Option<Found> {
        match shelf.lookup([key], &HeaderMap::new()) {
            Lookup::Found(found) => Some(found),
            Lookup::UriMiss | Lookup::VaryMiss => None,
        }
    }

    impl Shelf {
        /// Purges in this directory.
        pub(in crate::flow) fn purge(&self, selectors: &[Selector]) -> Mark {
            self.purge_softly(None, selectors)
        }

        /// Purges softly in this directory, if a time is given.
        pub(super) fn purge_softly(&self, at: Option<SystemTime>, selectors: &[Selector]) -> Mark {
            let mark = Mark {
                sequence: self.next_sequence(),
                at: at.unwrap_or(SystemTime::UNIX_EPOCH),
                soft: at.is_some(),
            };
            let (gone, _) = self.mark(&mut self.write_index(), mark, selectors);
            self.forget_hot(&gone);
            if selectors.contains(&Selector::All) {
                self.memory.clear();
            }
            mark
        }
    }

    #[tokio::test]
    async fn what_was_replaced_is_not_back_after_a_start() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let old = keep(&shelf, KEY, "old").await;
        // Keeps the old one's pack alive.
        keep(&shelf, PrimaryKey([8; 16]), "neighbour").await;
        shelf.store.flush().await.unwrap();
        let new = keep(&shelf, KEY, "new").await;
        shelf.store.flush().await.unwrap();
        shelf.remove(new.found);
        assert!(shelf.drop_empty_packs() > 0);
        shelf.close();
        drop((shelf, old, new));
        assert_eq!(found(&open(&dir), KEY), None);
    }

    #[tokio::test]
    async fn a_body_that_was_purged_with_everything_is_written_anew_after_a_start() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        keep(&shelf, KEY, "body").await;
        shelf.store.flush().await.unwrap();
        let mark = shelf.purge(&[Selector::All]);
        assert!(shelf.record_purge(mark, &[Selector::All]).await);
        shelf.close();
        drop(shelf);
        let shelf = open(&dir);
        assert_eq!(shelf.entries(), 0);
        keep(&shelf, KEY, "body").await;
        let found = found(&shelf, KEY).unwrap();
        let stored = shelf.load(found).await.unwrap();
        assert!(matches!(stored.body, StoredBody::Memory(body) if body == "body"));
    }

    /// Keeps a response that bears `tags`.
    async fn keep_tagged(shelf: &Arc<Shelf>, n: u8, tags: &[TagKey]) -> Stored {
        let plain = keep(shelf, PrimaryKey([n; 16]), "body").await;
        let response = StoredResponse {
            names: Names {
                tags: tags.to_vec(),
                ..Names::default()
            },
            ..StoredResponse::clone(&plain.response)
        };
        let sequence = shelf.next_sequence();
        let kept = shelf.keep(sequence, Arc::new(response), Bytes::from_static(b"body"));
        kept.await.unwrap()
    }

    #[tokio::test]
    async fn a_mark_on_a_tag_is_found_out_when_the_head_is_loaded() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let (one, other) = (TagKey([1; 16]), TagKey([2; 16]));
        let covered = keep_tagged(&shelf, 1, &[one, other]).await;
        let kept = keep_tagged(&shelf, 2, &[other]).await;
        let plain = keep(&shelf, KEY, "body").await;
        shelf.purge(&[Selector::Tag(None, one)]);
        assert!(!shelf.contains(&covered));
        assert!(shelf.contains(&kept) && shelf.contains(&plain));
        assert!(shelf.load(covered.found).await.is_none());
        assert!(shelf.load(kept.found).await.is_some());
        assert!(shelf.load(plain.found).await.is_some());
        assert_eq!(shelf.entries(), 2, "what was covered is gone");
    }

    #[tokio::test]
    async fn what_was_under_way_when_its_tag_was_marked_is_not_kept() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let tag = TagKey([1; 16]);
        let before = keep_tagged(&shelf, 1, &[tag]).await;
        let sequence = shelf.next_sequence();
        shelf.purge(&[Selector::Tag(None, tag)]);
        let late = shelf.keep_head(sequence, &before, Arc::clone(&before.response));
        assert_eq!(late.await.unwrap_err(), NotKept::Purged);
        let mut draft = shelf.draft(sequence, PrimaryKey([1; 16]));
        let response = StoredResponse::clone(&before.response);
        assert_eq!(draft.finish(response).await.unwrap_err(), NotKept::Purged);
        keep_tagged(&shelf, 1, &[tag]).await;
    }

    #[tokio::test]
    async fn marks_on_tags_are_in_the_snapshot() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let tag = TagKey([1; 16]);
        let covered = keep_tagged(&shelf, 1, &[tag]).await;
        let kept = keep_tagged(&shelf, 2, &[TagKey([2; 16])]).await;
        shelf.store.flush().await.unwrap();
        let selector = Selector::Tag(None, tag);
        let mark = shelf.purge(std::slice::from_ref(&selector));
        assert!(
            shelf
                .record_purge(mark, std::slice::from_ref(&selector))
                .await
        );
        assert!(shelf.snapshot());
        shelf.close();
        let (covered, kept) = (covered.found, kept.found);
        drop(shelf);
        let shelf = open(&dir);
        assert_eq!(shelf.read_index().marks().all(), [(mark, selector)]);
        assert!(shelf.load(covered).await.is_none());
        assert!(shelf.load(kept).await.is_some());
    }

    #[tokio::test]
    async fn a_sequence_whose_removal_is_on_record_is_not_given_out_again() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let neighbour = keep(&shelf, PrimaryKey([8; 16]), "neighbour").await;
        let gone = keep(&shelf, KEY, "gone").await;
        shelf.store.flush().await.unwrap();
        shelf.remove(gone.found);
        shelf.close();
        let removed = gone.found.sequence;
        drop((shelf, neighbour, gone));
        let shelf = open(&dir);
        let next = keep(&shelf, KEY, "next").await;
        assert!(next.found.sequence > removed);
        shelf.close();
        drop((shelf, next));
        assert!(found(&open(&dir), KEY).is_some());
    }

    #[tokio::test]
    async fn as_many_variants_as_were_let_in_come_back_after_a_start() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let many = crate::state::index::VARIANTS_MAX as u64 + 8;
        shelf.write_index().limit_variants(100);
        let plain = keep(&shelf, PrimaryKey([8; 16]), "body").await;
        for n in 0..many {
            let response = StoredResponse {
                key: KEY,
                variant: VariantKey(n),
                vary: vec![http::header::ACCEPT],
                ..StoredResponse::clone(&plain.response)
            };
            let sequence = shelf.next_sequence();
            let kept = shelf.keep(sequence, Arc::new(response), Bytes::from_static(b"body"));
            kept.await.unwrap();
        }
        shelf.close();
        drop((shelf, plain));
        assert_eq!(open(&dir).entries() as u64, many + 1);
    }

    #[test]
    fn a_purge_does_not_wait_for_a_store_that_hangs_and_is_written_later() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().unwrap();
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        runtime.block_on(keep(&shelf, KEY, "body"));
        let mark = Mark::hard(shelf.next_sequence(), SystemTime::UNIX_EPOCH);
        let selectors = [Selector::All, Selector::Url(KEY)];
        // The writing thread stands still where it asks whether the entry is wanted.
        let index = shelf.write_index();
        runtime.block_on(async {
            let now = Instant::now();
            assert!(timeout_at(now, shelf.store.flush()).await.is_err());
            assert!(!shelf.record_purge_until(mark, &selectors, now).await);
        });
        drop(index);
        shelf.close();
        drop(shelf);
        assert_eq!(open(&dir).entries(), 0);
    }
}
