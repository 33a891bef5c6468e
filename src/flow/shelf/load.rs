//! Stored responses on their way out: from the memory tier, else from disk, checked.

use super::Shelf;
use super::Stored;
use super::StoredBody;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::tag::Names;
use crate::state::index::Found;
use crate::state::marks::Verdict;
use crate::store::StoreError;
use crate::store::head;
use crate::store::memory::Hot;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

impl Shelf {
    /// Loads what was found, from memory or from disk. `None` when it is gone or fails its check:
    /// then it has been forgotten, and the request is a miss.
    ///
    /// A mark on one of its names makes it gone, or stale: that shows here, where they are known.
    pub async fn load(self: &Arc<Self>, found: Found) -> Option<Stored> {
        if let Some(hot) = self.memory.get(found.sequence) {
            let hot = self.judged(found, hot)?;
            if let Some(stored) = self.stored(found, hot) {
                return Some(stored);
            }
        }
        for _ in 0..LOADS_MAX {
            let place = self.read_index().place(found.key, found.sequence)?;
            match self.load_from(&place).await {
                Ok(hot) => {
                    self.memory.insert(found.sequence, hot.clone());
                    return self.stored(found, self.judged(found, hot)?);
                }
                // It was moved to another pack meanwhile: look there.
                Err(_) if self.read_index().place(found.key, found.sequence) != Some(place) => {}
                Err(error) if error.may_pass() => return None,
                Err(error) => {
                    self.forget(found, &error);
                    return None;
                }
            }
        }
        None
    }

    /// As [`load`](Self::load), but nothing changes: it is not marked as used, not taken into memory,
    /// and not forgotten when it cannot be read. What marks made gone is loaded too; says what they
    /// make of it.
    pub async fn view(self: &Arc<Self>, found: Found) -> Option<(Stored, Verdict)> {
        let hot = match self.memory.peek(found.sequence) {
            Some(hot) => hot,
            None => {
                let place = self.read_index().place(found.key, found.sequence)?;
                self.load_from(&place).await.ok()?
            }
        };
        let verdict = self.verdict(found.sequence, &hot.response);
        let hot = match verdict {
            Verdict::Stale(since) => Hot {
                response: Arc::new(hot.response.stale_since(since)),
                ..hot
            },
            Verdict::Clear | Verdict::Gone => hot,
        };
        Some((self.stored(found, hot)?, verdict))
    }

    /// What marks make of a response that was loaded. What was looked at once, up to the newest mark,
    /// is not looked at again for as long as it is hot.
    fn judged(&self, found: Found, hot: Hot) -> Option<Hot> {
        let newest = Sequence(self.newest_mark.load(Ordering::Relaxed));
        // The common case: one compare.
        if found.sequence >= newest || hot.checked >= newest {
            return Some(hot);
        }
        let names = &hot.response.names;
        let verdict = self.read_index().verdict(found.sequence, found.key, names);
        let judged = match verdict {
            Verdict::Clear => hot,
            Verdict::Stale(since) => Hot {
                response: Arc::new(hot.response.stale_since(since)),
                ..hot
            },
            Verdict::Gone => {
                self.remove_purged(found, names);
                return None;
            }
        };
        let judged = Hot {
            checked: newest,
            ..judged
        };
        self.memory.insert(found.sequence, judged.clone());
        Some(judged)
    }

    /// Removes an entry that turned out to be purged.
    fn remove_purged(&self, found: Found, names: &Names) {
        let mut index = self.write_index();
        if index.remove(found.key, found.sequence) {
            let marks = index.marks_mut();
            marks.count_gone(found.sequence, found.key, names);
            drop(index);
            self.store.record_remove(found.sequence);
        }
        self.memory.remove(found.sequence);
    }

    async fn load_from(self: &Arc<Self>, place: &Put) -> Result<Hot, StoreError> {
        if let Some(loaded) = self.load_open(place) {
            return loaded;
        }
        let shelf = Arc::clone(self);
        let place = place.clone();
        self.off_thread(place.head.pack, READ_WAIT, move || shelf.load_disk(&place))
            .await
    }

    /// Reads on a thread of its own, and waits no longer than a disk may take, or than `longest`
    /// where nobody else has the bytes. A read that hangs keeps its thread until it ends; when many
    /// do, none is begun that others could answer.
    async fn off_thread<T: Send + 'static>(
        &self,
        pack: PackId,
        longest: Duration,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if longest <= READ_WAIT && self.overdue.load(Ordering::Relaxed) >= OVERDUE_MAX {
            return Err(StoreError::Slow);
        }
        let mut reading = tokio::task::spawn_blocking(read);
        let gone = Err(StoreError::Missing(pack));
        if let Ok(ended) = timeout(READ_WAIT, &mut reading).await {
            return ended.unwrap_or(gone);
        }
        let overdue = Overdue::count(&self.overdue);
        self.store.count_read_error(&StoreError::Slow);
        let more = longest.saturating_sub(READ_WAIT);
        if let Ok(ended) = timeout(more, &mut reading).await {
            return ended.unwrap_or(gone);
        }
        tokio::spawn(async move {
            drop(reading.await);
            drop(overdue);
        });
        Err(StoreError::Slow)
    }

    /// Reads one segment of a large body and checks it. What comes before it may have been sent
    /// already: then a disk that hangs is waited for, since the response would have to be cut.
    pub async fn read_segment(
        self: &Arc<Self>,
        segment: Segment,
        begun: bool,
    ) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.store.read_open(segment.location) {
            return Ok(bytes);
        }
        let shelf = Arc::clone(self);
        let longest = if begun { READ_WAIT_BEGUN } else { READ_WAIT };
        self.off_thread(segment.location.pack, longest, move || {
            let bytes = shelf.store.read(segment.location)?;
            shelf.check(segment, bytes)
        })
        .await
    }

    /// Removes an entry that turned out unreadable.
    pub(in crate::flow) fn forget(&self, found: Found, error: &StoreError) {
        tracing::warn!(%error, "a stored response could not be read; it is forgotten");
        if matches!(error, StoreError::Corrupt { .. }) {
            self.store.count_corrupt();
        }
        self.remove(found);
    }

    pub(super) fn stored(self: &Arc<Self>, found: Found, hot: Hot) -> Option<Stored> {
        let body = match hot.body {
            Some(body) => StoredBody::Memory(body),
            None if hot.response.body_bytes == 0 => StoredBody::Memory(Bytes::new()),
            None => {
                // Pinned while the index is held, so that no pack goes between look and pin.
                let index = self.read_index();
                let place = index.place(found.key, found.sequence)?;
                let pins = self.pin(place.parts.locations().map(|at| at.pack));
                drop(index);
                if !self.hold(place.parts.locations().map(|at| at.pack)) {
                    return None;
                }
                let segments = place.parts.segments(hot.response.body);
                StoredBody::Segments(segments.into(), Arc::new(pins))
            }
        };
        Some(Stored {
            found,
            response: hot.response,
            body,
        })
    }

    /// Loads from the packs that are still in memory. `None`: go to the disk.
    fn load_open(&self, place: &Put) -> Option<Result<Hot, StoreError>> {
        let head = self.store.read_open(place.head)?;
        let body = match place.parts {
            Parts::None => Some(Bytes::new()),
            Parts::One(location) => Some(self.store.read_open(location)?),
            Parts::Many(_) => None,
        };
        Some(self.decode(place, &head, body))
    }

    /// Loads from disk: one read when head and body lie side by side, as small ones do.
    fn load_disk(&self, place: &Put) -> Result<Hot, StoreError> {
        let head_at = place.head;
        let body_at = match place.parts {
            Parts::One(location) => location,
            Parts::None | Parts::Many(_) => {
                let head = self.store.read(head_at)?;
                let body = (place.parts == Parts::None).then(Bytes::new);
                return self.decode(place, &head, body);
            }
        };
        let joined = head_at
            .bytes
            .checked_add(body_at.bytes)
            .filter(|_| head_at.is_before(body_at));
        let (head, body) = match joined {
            Some(bytes) => {
                let mut both = self.store.read(Location { bytes, ..head_at })?;
                let head = both.split_to(both.len().min(head_at.bytes as usize));
                (head, both)
            }
            None => (self.store.read(head_at)?, self.store.read(body_at)?),
        };
        let hot = self.decode(place, &head, None)?;
        let segment = Segment {
            digest: hot.response.body,
            location: body_at,
        };
        let body = Some(self.check(segment, body)?);
        Ok(Hot { body, ..hot })
    }

    fn decode(&self, place: &Put, head: &[u8], body: Option<Bytes>) -> Result<Hot, StoreError> {
        let corrupt = || StoreError::Corrupt {
            location: place.head,
        };
        let (_, response) = head::decode(head).ok_or_else(corrupt)?;
        // A head in the wrong place is as wrong as a damaged one.
        let is_it = response.key == place.key
            && response.variant == place.variant
            && response.body.name() == place.body;
        if !is_it {
            return Err(corrupt());
        }
        Ok(Hot::new(Arc::new(response), body))
    }

    fn check(&self, segment: Segment, bytes: Bytes) -> Result<Bytes, StoreError> {
        if Digest::of(&bytes) == segment.digest {
            return Ok(bytes);
        }
        Err(StoreError::Corrupt {
            location: segment.location,
        })
    }
}

/// Counts a read that is late, for as long as it stands on its thread.
struct Overdue(Arc<AtomicUsize>);

impl Overdue {
    fn count(reads: &Arc<AtomicUsize>) -> Self {
        reads.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(reads))
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A disk that works answers sooner; the origin is asked instead.
const READ_WAIT: Duration = Duration::from_secs(2);
/// As long as a client waits for an origin that pauses.
const READ_WAIT_BEGUN: Duration = Duration::from_secs(30);
/// Reads that may hang at the same time: each keeps a thread.
const OVERDUE_MAX: usize = 16;
/// How often a load follows an entry that is being moved.
const LOADS_MAX: usize = 4;
