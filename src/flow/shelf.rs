//! The one place where the index, the disk and the memory tier change together.
//!
//! ```text
//! lookup ─► Found ─► hot: memory tier ─ miss ─► load: head (and a small body) from disk, checked
//! keep(small body) / Draft(large body) ─► store.append ─► index.insert ─► journal, once on disk
//! purge ─► mark in the index ─► memory tier ─► journal ─► receipt
//! ```
//!
//! Locks, in the order they may be taken: `gate`, then `index`, then `pending` or `pins`. The store
//! is never called while `index`, `pending` or `pins` is held: it calls back into them.

use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::stored::StoredResponse;
use crate::state::index::Found;
use crate::state::index::Index;
use crate::state::index::Lookup;
use crate::state::index::Refused;
use crate::store::Condition;
use crate::store::Keeper;
use crate::store::NewPiece;
use crate::store::Record;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Usage;
use crate::store::head;
use crate::store::memory::Hot;
use crate::store::memory::Memory;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::HashMap;
use std::collections::HashSet;
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
use std::time::SystemTime;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Stored responses: what they are, where they lie, and the hot ones themselves.
#[derive(Debug)]
pub struct Shelf {
    pub(super) index: RwLock<Index>,
    pub(super) store: Store,
    pub(super) memory: Memory,
    /// Held for reading from an append to its index change; who drops packs holds it for writing.
    pub(super) gate: RwLock<()>,
    /// Entries with records that are not written yet, and how many of them.
    pending: Mutex<HashMap<Sequence, (PrimaryKey, u32)>>,
    /// Packs that somebody is reading or filling; they must not be dropped.
    pins: Mutex<HashMap<PackId, u32>>,
    lanes: AtomicUsize,
    lanes_max: usize,
    sequence: AtomicU64,
    pub(super) evicted: AtomicU64,
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

/// Keeps packs from being dropped while somebody reads or fills them.
#[derive(Debug)]
pub struct Pins {
    shelf: Arc<Shelf>,
    packs: Vec<PackId>,
}

/// A large body on its way to disk, segment by segment.
#[derive(Debug)]
pub struct Draft {
    shelf: Arc<Shelf>,
    sequence: Sequence,
    key: PrimaryKey,
    /// `None`: too many lanes are open, it shares the common one.
    lane: Option<crate::store::Lane>,
    hasher: Box<blake3::Hasher>,
    segments: Vec<Segment>,
    bytes: u64,
    pins: Pins,
}

impl Shelf {
    /// Opens the store and fills the index from its journal.
    pub fn open(
        params: &crate::store::Params,
        memory_bytes_max: u64,
        fill_bytes_max: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let mut replay = Replay::default();
        let store = Store::open(params, &mut |record| replay.take(record))?;
        // What a purge of everything covers has lost its packs: its bodies must not be counted on.
        drop(replay.index.sweep(0, u32::MAX, 0));
        let lanes_max = (fill_bytes_max.min(params.disk_bytes_max / 4) / LANE_BYTES).clamp(1, 64);
        let shelf = Arc::new(Self {
            index: RwLock::new(replay.index),
            store,
            memory: Memory::new(memory_bytes_max),
            gate: RwLock::new(()),
            pending: Mutex::default(),
            pins: Mutex::default(),
            lanes: AtomicUsize::new(0),
            lanes_max: usize::try_from(lanes_max).unwrap_or(1),
            sequence: AtomicU64::new(replay.newest.0 + 1),
            evicted: AtomicU64::new(0),
            wanting: (Mutex::default(), Condvar::new()),
            room: Notify::new(),
        });
        shelf.store.start(Arc::new(Witness(Arc::downgrade(&shelf))));
        Ok(shelf)
    }

    /// Takes the next sequence.
    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.sequence.fetch_add(1, Ordering::Relaxed))
    }

    /// Finds an entry.
    pub fn lookup(&self, key: PrimaryKey, request_headers: &HeaderMap) -> Lookup {
        self.read_index().lookup(key, request_headers)
    }

    /// Is this entry still here, and not purged?
    pub fn contains(&self, found: Found) -> bool {
        self.read_index().contains(found.key, found.sequence)
    }

    /// Loads what was found, from memory or from disk. `None` when it is gone or fails its check:
    /// then it has been forgotten, and the request is a miss.
    pub async fn load(self: &Arc<Self>, found: Found) -> Option<Stored> {
        if let Some(hot) = self.memory.get(found.sequence)
            && let Some(stored) = self.stored(found, hot)
        {
            return Some(stored);
        }
        for _ in 0..LOADS_MAX {
            let place = self.read_index().place(found.key, found.sequence)?;
            match self.load_from(&place).await {
                Ok(hot) => {
                    self.memory.insert(found.sequence, hot.clone());
                    return self.stored(found, hot);
                }
                // It was moved to another pack meanwhile: look there.
                Err(_) if self.read_index().place(found.key, found.sequence) != Some(place) => {}
                Err(error) => {
                    self.forget(found, &error);
                    return None;
                }
            }
        }
        None
    }

    async fn load_from(self: &Arc<Self>, place: &Put) -> Result<Hot, StoreError> {
        if let Some(loaded) = self.load_open(place) {
            return loaded;
        }
        let shelf = Arc::clone(self);
        let head_pack = place.head.pack;
        let place = place.clone();
        tokio::task::spawn_blocking(move || shelf.load_disk(&place))
            .await
            .unwrap_or(Err(StoreError::Missing(head_pack)))
    }

    /// Reads one segment of a large body and checks it.
    pub async fn read_segment(self: &Arc<Self>, segment: Segment) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.store.read_open(segment.location) {
            return Ok(bytes);
        }
        let shelf = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let bytes = shelf.store.read(segment.location)?;
            shelf.check(segment, bytes)
        })
        .await
        .unwrap_or(Err(StoreError::Missing(segment.location.pack)))
    }

    /// Keeps a response whose whole body is in memory and at most one segment long.
    /// Dropped half-way, it has either been kept or not.
    pub async fn keep(
        self: &Arc<Self>,
        sequence: Sequence,
        response: Arc<StoredResponse>,
        body: Bytes,
    ) -> Result<Stored, NotKept> {
        let mut patience = Patience::for_whole();
        loop {
            match self.try_keep(sequence, &response, Some(&body)) {
                Err(StoreError::NoRoom) if patience.wait(self).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(put) => {
                    let put = put?;
                    let hot = Hot {
                        response: Arc::clone(&response),
                        body: Some(body.clone()),
                    };
                    self.memory.insert(sequence, hot);
                    return Ok(Stored {
                        found: Found {
                            sequence,
                            key: put.key,
                            variant: put.variant,
                        },
                        response,
                        body: StoredBody::Memory(body),
                    });
                }
            }
        }
    }

    /// Keeps a new head for a body that is stored already, as after a 304. The sequence is that of
    /// the request it answers: a purge since then covers it.
    pub async fn keep_head(
        self: &Arc<Self>,
        sequence: Sequence,
        old: &Stored,
        response: Arc<StoredResponse>,
    ) -> Result<Stored, NotKept> {
        if let StoredBody::Memory(body) = &old.body {
            return self.keep(sequence, response, body.clone()).await;
        }
        let mut patience = Patience::for_whole();
        loop {
            match self.try_keep(sequence, &response, None) {
                Err(StoreError::NoRoom) if patience.wait(self).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(put) => {
                    let put = put?;
                    let found = Found {
                        sequence,
                        key: put.key,
                        variant: put.variant,
                    };
                    let hot = Hot {
                        response,
                        body: None,
                    };
                    self.memory.insert(sequence, hot.clone());
                    return self.stored(found, hot).ok_or(NotKept::Purged);
                }
            }
        }
    }

    /// Starts a large body.
    pub fn draft(self: &Arc<Self>, sequence: Sequence, key: PrimaryKey) -> Draft {
        let has_lane = self
            .lanes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lanes| {
                (lanes < self.lanes_max).then_some(lanes + 1)
            })
            .is_ok();
        let lane = if has_lane {
            self.store.lane().ok()
        } else {
            None
        };
        if has_lane && lane.is_none() {
            self.lanes.fetch_sub(1, Ordering::Relaxed);
        }
        Draft {
            shelf: Arc::clone(self),
            sequence,
            key,
            lane,
            hasher: Box::new(blake3::Hasher::new()),
            segments: Vec::new(),
            bytes: 0,
            pins: Pins {
                shelf: Arc::clone(self),
                packs: Vec::new(),
            },
        }
    }

    /// The largest body that will be kept: half of the disk's limit.
    pub fn body_bytes_max(&self) -> u64 {
        self.store.usage().limit / 2
    }

    /// Why nothing can be stored now, if so.
    pub fn pass_through(&self) -> Option<Arc<str>> {
        match self.store.condition() {
            Condition::Healthy => None,
            Condition::PassThrough(reason) => Some(reason),
        }
    }

    /// Removes all variants of `keys`, at once; says how many entries went.
    pub fn purge_keys(&self, keys: &[PrimaryKey]) -> (Sequence, u64) {
        let sequence = self.next_sequence();
        let gone: Vec<Sequence> = {
            let mut index = self.write_index();
            keys.iter()
                .flat_map(|key| index.mark_key(*key, sequence))
                .collect()
        };
        self.forget_hot(&gone);
        (sequence, gone.len() as u64)
    }

    /// Removes everything, at once, by a mark.
    pub fn purge_all(&self) -> Sequence {
        let sequence = self.next_sequence();
        self.write_index().mark_all(sequence);
        self.memory.clear();
        self.ask_for_room();
        sequence
    }

    /// Writes a purge to the journal; says whether it is durable.
    pub async fn record_purge(&self, sequence: Sequence, selectors: &[Selector]) -> bool {
        let mut durable = true;
        for selector in selectors {
            let written = self.store.record_purge(sequence, selector.clone()).await;
            durable &= written.is_ok();
        }
        durable
    }

    /// Removes one entry, as when a validation withdrew what it allowed.
    pub fn remove(&self, found: Found) {
        if self.write_index().remove(found.key, found.sequence) {
            self.store.record_remove(found.sequence);
        }
        self.memory.remove(found.sequence);
    }

    /// How many responses are stored.
    pub fn entries(&self) -> usize {
        self.read_index().len()
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

    pub(super) fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops entries that are gone from the index out of memory.
    pub(super) fn forget_hot(&self, gone: &[Sequence]) {
        for sequence in gone {
            self.memory.remove(*sequence);
        }
    }

    /// Wakes the thread that makes room.
    pub(super) fn ask_for_room(&self) {
        lock(&self.wanting.0).room = true;
        self.wanting.1.notify_one();
    }

    pub(super) fn is_pinned(&self, pack: PackId) -> bool {
        lock(&self.pins).contains_key(&pack)
    }

    /// Hands an entry's record to the journal.
    pub(super) fn journal(&self, put: Put) {
        lock(&self.pending)
            .entry(put.sequence)
            .or_insert((put.key, 0))
            .1 += 1;
        self.store.record_put(put);
    }

    /// One record fewer is waiting for this entry; says whose it was.
    fn settle(&self, sequence: Sequence) -> Option<PrimaryKey> {
        let mut pending = lock(&self.pending);
        let (key, records) = pending.get_mut(&sequence)?;
        let key = *key;
        *records -= 1;
        if *records == 0 {
            pending.remove(&sequence);
        }
        Some(key)
    }

    /// Removes an entry that turned out unreadable.
    pub(super) fn forget(&self, found: Found, error: &StoreError) {
        tracing::warn!(%error, "a stored response could not be read; it is forgotten");
        if matches!(error, StoreError::Corrupt { .. }) {
            self.store.count_corrupt();
        }
        self.remove(found);
    }

    fn stored(self: &Arc<Self>, found: Found, hot: Hot) -> Option<Stored> {
        let body = match hot.body {
            Some(body) => StoredBody::Memory(body),
            None if hot.response.body_bytes == 0 => StoredBody::Memory(Bytes::new()),
            None => {
                // Pinned while the gate is held, so that no pack goes between look and pin.
                let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                let place = self.read_index().place(found.key, found.sequence)?;
                let pins = self.pin(place.segments.iter().map(|s| s.location.pack));
                StoredBody::Segments(place.segments.into(), Arc::new(pins))
            }
        };
        Some(Stored {
            found,
            response: hot.response,
            body,
        })
    }

    fn pin(self: &Arc<Self>, packs: impl Iterator<Item = PackId>) -> Pins {
        let packs: HashSet<PackId> = packs.collect();
        let mut pins = lock(&self.pins);
        for pack in &packs {
            *pins.entry(*pack).or_default() += 1;
        }
        Pins {
            shelf: Arc::clone(self),
            packs: packs.into_iter().collect(),
        }
    }

    /// Loads from the packs that are still in memory. `None`: go to the disk.
    fn load_open(&self, place: &Put) -> Option<Result<Hot, StoreError>> {
        let head = self.store.read_open(place.head)?;
        let body = match place.segments.as_slice() {
            [] => Some(Bytes::new()),
            [one] => Some(self.store.read_open(one.location)?),
            _ => None,
        };
        Some(self.decode(place, &head, body))
    }

    /// Loads from disk: one read when head and body lie side by side, as small ones do.
    fn load_disk(&self, place: &Put) -> Result<Hot, StoreError> {
        let head_at = place.head;
        let [segment] = place.segments.as_slice() else {
            let head = self.store.read(head_at)?;
            let body = place.segments.is_empty().then(Bytes::new);
            return self.decode(place, &head, body);
        };
        let body_at = segment.location;
        let adjacent = body_at.pack == head_at.pack
            && head_at.offset.checked_add(head_at.bytes) == Some(body_at.offset);
        let joined = head_at
            .bytes
            .checked_add(body_at.bytes)
            .filter(|_| adjacent);
        let (head, body) = match joined {
            Some(bytes) => {
                let mut both = self.store.read(Location { bytes, ..head_at })?;
                let head = both.split_to(both.len().min(head_at.bytes as usize));
                (head, both)
            }
            None => (self.store.read(head_at)?, self.store.read(body_at)?),
        };
        let body = self.check(*segment, body)?;
        self.decode(place, &head, Some(body))
    }

    fn decode(&self, place: &Put, head: &[u8], body: Option<Bytes>) -> Result<Hot, StoreError> {
        let corrupt = || StoreError::Corrupt {
            location: place.head,
        };
        let (_, response) = head::decode(head).ok_or_else(corrupt)?;
        // A head in the wrong place is as wrong as a damaged one.
        let is_it = response.key == place.key
            && response.variant == place.variant
            && response.body == place.body;
        if !is_it {
            return Err(corrupt());
        }
        Ok(Hot {
            response: Arc::new(response),
            body,
        })
    }

    fn check(&self, segment: Segment, bytes: Bytes) -> Result<Bytes, StoreError> {
        if Digest::of(&bytes) == segment.digest {
            return Ok(bytes);
        }
        Err(StoreError::Corrupt {
            location: segment.location,
        })
    }

    /// Appends a head, and the body unless it is stored already, and takes the response in.
    fn try_keep(
        &self,
        sequence: Sequence,
        response: &StoredResponse,
        body: Option<&Bytes>,
    ) -> Result<Result<Put, NotKept>, StoreError> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let known = self.read_index().body(response.body);
        let mut pieces = vec![NewPiece::Head(head::encode(sequence, response))];
        match (&known, body) {
            (None, Some(body)) if !body.is_empty() => {
                pieces.push(NewPiece::Segment(response.body, body.clone()));
            }
            (None, None) => return Ok(Err(NotKept::Purged)),
            (Some(_), _) | (None, Some(_)) => {}
        }
        let places = self.store.append(None, sequence, response.key, &pieces)?;
        let [head, rest @ ..] = places.as_slice() else {
            return Err(StoreError::NoRoom);
        };
        let mut segments = known.unwrap_or_default();
        segments.extend(rest.iter().map(|location| Segment {
            digest: response.body,
            location: *location,
        }));
        Ok(self.insert(put_of(sequence, response, *head, segments)))
    }

    fn insert(&self, put: Put) -> Result<Put, NotKept> {
        let (gone, put) = {
            let mut index = self.write_index();
            let gone = index.insert(&put).map_err(NotKept::from)?;
            // Another response may have brought the same body: then its place counts.
            let put = index.place(put.key, put.sequence).unwrap_or(put);
            (gone, put)
        };
        self.forget_hot(&gone);
        for sequence in gone {
            // Else it would be back after a start that no longer finds what replaced it.
            self.store.record_remove(sequence);
        }
        self.journal(put.clone());
        Ok(put)
    }
}

impl Draft {
    /// Writes the next segment. Waits while there is no room, within bounds; dropped half-way, the
    /// segment was either written or not and the draft must be given up.
    pub async fn segment(&mut self, bytes: Bytes) -> Result<Segment, NotKept> {
        let length = self.bytes + bytes.len() as u64;
        if length > self.shelf.body_bytes_max() {
            return Err(NotKept::BodyTooLarge);
        }
        let digest = Digest::of(&bytes);
        let piece = [NewPiece::Segment(digest, bytes.clone())];
        let mut patience = Patience::for_part();
        loop {
            match self.append(&piece) {
                Err(StoreError::NoRoom) if patience.wait(&self.shelf).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(location) => {
                    self.hasher.update(&bytes);
                    self.bytes = length;
                    let segment = Segment { digest, location };
                    self.segments.push(segment);
                    return Ok(segment);
                }
            }
        }
    }

    /// Writes the head and takes the response in.
    pub async fn finish(&mut self, mut response: StoredResponse) -> Result<Stored, NotKept> {
        response.detach();
        response.body = Digest(*self.hasher.finalize().as_bytes());
        response.body_bytes = self.bytes;
        let pieces = [NewPiece::Head(head::encode(self.sequence, &response))];
        let mut patience = Patience::for_part();
        let head = loop {
            match self.append(&pieces) {
                Err(StoreError::NoRoom) if patience.wait(&self.shelf).await => {}
                Err(error) => return Err(NotKept::from(&error)),
                Ok(location) => break location,
            }
        };
        let segments = std::mem::take(&mut self.segments);
        self.end_lane();
        let put = self
            .shelf
            .insert(put_of(self.sequence, &response, head, segments))?;
        let hot = Hot {
            response: Arc::new(response),
            body: None,
        };
        self.shelf.memory.insert(self.sequence, hot.clone());
        let found = Found {
            sequence: put.sequence,
            key: put.key,
            variant: put.variant,
        };
        self.shelf.stored(found, hot).ok_or(NotKept::Purged)
    }

    /// Ends the draft, finished or not; what it wrote can be read for as long as the pins are held.
    pub fn into_pins(mut self) -> Pins {
        self.end_lane();
        let none = Pins {
            shelf: Arc::clone(&self.shelf),
            packs: Vec::new(),
        };
        std::mem::replace(&mut self.pins, none)
    }

    fn append(&mut self, pieces: &[NewPiece]) -> Result<Location, StoreError> {
        let _gate = self
            .shelf
            .gate
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let places =
            self.shelf
                .store
                .append(self.lane.as_mut(), self.sequence, self.key, pieces)?;
        let location = *places.first().ok_or(StoreError::NoRoom)?;
        if self.pins.packs.last() != Some(&location.pack) {
            *lock(&self.shelf.pins).entry(location.pack).or_default() += 1;
            self.pins.packs.push(location.pack);
        }
        Ok(location)
    }

    fn end_lane(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.shelf.store.finish(lane);
            self.shelf.lanes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.end_lane();
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = lock(&self.shelf.pins);
        for pack in &self.packs {
            if let Some(count) = pins.get_mut(pack) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(pack);
                }
            }
        }
    }
}

impl From<&StoreError> for NotKept {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::NoRoom => Self::NoRoom,
            StoreError::Corrupt { .. }
            | StoreError::Foreign { .. }
            | StoreError::Io { .. }
            | StoreError::Locked { .. }
            | StoreError::Missing(_)
            | StoreError::PassThrough(_)
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

/// How long a fill waits for room before it gives up storing.
struct Patience {
    /// Waits left for room on disk, which is made by evicting.
    room: u32,
    /// Waits left for the writing thread, which holds back an origin that is faster than the disk.
    writer: u32,
}

impl Patience {
    /// For a part of a body: the origin can wait for the disk.
    fn for_part() -> Self {
        Self {
            room: ROOM_WAITS,
            writer: WRITER_WAITS,
        }
    }

    /// For a whole response: clients wait for it.
    fn for_whole() -> Self {
        Self {
            room: ROOM_WAITS,
            writer: ROOM_WAITS,
        }
    }

    /// Waits for room to be made or for a pack to be written; `false` when patience has run out.
    async fn wait(&mut self, shelf: &Shelf) -> bool {
        let made = shelf.room.notified();
        let waits = if shelf.store.room_needed() == 0 {
            &mut self.writer
        } else {
            shelf.ask_for_room();
            &mut self.room
        };
        let Some(left) = waits.checked_sub(1) else {
            return false;
        };
        *waits = left;
        // Whether or not it was made, the append that follows will tell.
        drop(timeout(WAIT, made).await);
        true
    }
}

/// Builds the index from the journal.
#[derive(Default)]
struct Replay {
    index: Index,
    keys: HashMap<Sequence, PrimaryKey>,
    newest: Sequence,
}

impl Replay {
    fn take(&mut self, record: Record) {
        match record {
            Record::Put(put) => {
                self.newest = self.newest.max(put.sequence);
                self.keys.insert(put.sequence, put.key);
                // Refused when a later purge covers it or a newer response is there already.
                let _refused = self.index.restore(&put);
            }
            Record::Remove(sequence) => {
                if let Some(key) = self.keys.remove(&sequence) {
                    self.index.remove(key, sequence);
                }
            }
            Record::Purge { sequence, selector } => {
                self.newest = self.newest.max(sequence);
                match selector {
                    Selector::All => self.index.mark_all(sequence),
                    Selector::Url(key) => drop(self.index.mark_key(key, sequence)),
                }
            }
        }
    }
}

/// Answers the store's questions for as long as the shelf stands.
struct Witness(std::sync::Weak<Shelf>);

impl Keeper for Witness {
    fn wanted(&self, sequence: Sequence) -> bool {
        let Some(shelf) = self.0.upgrade() else {
            return false;
        };
        let key = shelf.settle(sequence);
        key.is_some_and(|key| shelf.read_index().contains(key, sequence))
    }

    fn lost(&self, pack: PackId) {
        let Some(shelf) = self.0.upgrade() else {
            return;
        };
        let mut packs = hashbrown::HashSet::new();
        packs.insert(pack);
        let residents = shelf.read_index().residents(&packs);
        let mut index = shelf.write_index();
        for put in residents {
            index.remove(put.key, put.sequence);
            shelf.memory.remove(put.sequence);
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

fn put_of(
    sequence: Sequence,
    response: &StoredResponse,
    head: Location,
    segments: Vec<Segment>,
) -> Put {
    let useful = response.lifetime
        + response
            .stale
            .while_revalidate
            .max(response.stale.if_error)
            .max(if response.validators.is_some() {
                VALIDATABLE
            } else {
                Duration::ZERO
            });
    let born = response
        .timing
        .response_time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Put {
        sequence,
        key: response.key,
        variant: response.variant,
        vary: response.vary.clone(),
        head,
        body: response.body,
        segments,
        useless_at: born.saturating_add(useful).as_secs(),
    }
}

/// Locks a mutex whose holder may have panicked: what it guards is counts and maps, each changed
/// in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a load follows an entry that is being moved.
const LOADS_MAX: usize = 4;
/// What one lane may hold in memory.
const LANE_BYTES: u64 = 8 << 20;
const WAIT: Duration = Duration::from_millis(250);
const ROOM_WAITS: u32 = 4;
const WRITER_WAITS: u32 = 120;
/// How long past its freshness a response with a validator is worth its room.
const VALIDATABLE: Duration = Duration::from_secs(30 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::freshness::Timing;
    use crate::rules::key::VariantKey;
    use crate::rules::stored::StaleWindow;
    use http::StatusCode;
    use tempfile::TempDir;

    const KEY: PrimaryKey = PrimaryKey([7; 16]);

    fn open(dir: &TempDir) -> Arc<Shelf> {
        let params = crate::store::Params {
            dir: dir.path().join("store"),
            disk_bytes_max: 64 << 20,
        };
        // No memory tier: everything comes from disk.
        Shelf::open(&params, 0, 8 << 20).unwrap()
    }

    async fn keep(shelf: &Arc<Shelf>, key: PrimaryKey, body: &'static str) -> Stored {
        let response = StoredResponse {
            key,
            variant: VariantKey::ONLY,
            vary: Vec::new(),
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
            body: Digest::of(body.as_bytes()),
        };
        let sequence = shelf.next_sequence();
        let body = Bytes::from_static(body.as_bytes());
        let kept = shelf.keep(sequence, Arc::new(response), body).await;
        kept.unwrap()
    }

    fn found(shelf: &Shelf, key: PrimaryKey) -> Option<Found> {
        match shelf.lookup(key, &HeaderMap::new()) {
            Lookup::Found(found) => Some(found),
            Lookup::UriMiss | Lookup::VaryMiss => None,
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
        let sequence = shelf.purge_all();
        assert!(shelf.record_purge(sequence, &[Selector::All]).await);
        shelf.close();
        drop(shelf);
        let shelf = open(&dir);
        assert_eq!(shelf.entries(), 0);
        keep(&shelf, KEY, "body").await;
        let found = found(&shelf, KEY).unwrap();
        let stored = shelf.load(found).await.unwrap();
        assert!(matches!(stored.body, StoredBody::Memory(body) if body == "body"));
    }
}
