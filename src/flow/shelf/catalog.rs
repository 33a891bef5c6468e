//! The responses in a store, for tools: of one that no larder uses, or of the running one.
//!
//! A stopped store is only read. In a running one what turns out damaged is treated as a request or
//! the scrub would: it is counted and forgotten, and what is sound moves out of a damaged pack.

use super::Shelf;
use super::pins::Pins;
use super::record::Replay;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::address::Segment;
use crate::rules::key::PrimaryKey;
use crate::rules::stored::StoredResponse;
use crate::state::index::Found;
use crate::state::index::Index;
use crate::state::marks::Verdict;
use crate::store::StoreError;
use crate::store::head;
use crate::store::survey::Holdings;
use crate::store::survey::Survey;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// All responses of a store. Every method but the figures of the index blocks.
#[derive(Debug)]
pub struct Catalog(Source);

#[derive(Debug)]
enum Source {
    Stopped {
        survey: Box<Survey>,
        index: Box<Index>,
    },
    Running(Arc<Shelf>),
}

/// A response whose parts stay where they are for as long as this is held.
#[derive(Debug)]
pub struct Held<'c> {
    catalog: &'c Catalog,
    put: Put,
    _pins: Option<Pins>,
}

/// What a check of a pack found.
#[derive(Debug)]
pub enum Finding {
    /// Every bit is as it was written.
    Intact,
    /// Some are not.
    Damaged,
    /// Its file is gone.
    Missing,
    /// It is no part of the store any more.
    Dropped,
    /// It could not be read now.
    Unread(StoreError),
}

impl Catalog {
    /// Reads the journal of the stopped store in `dir`.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut replay = Replay::default();
        let survey = Box::new(Survey::open(dir, &mut replay)?);
        let index = Box::new(replay.finish().0);
        Ok(Self(Source::Stopped { survey, index }))
    }

    pub(in crate::flow) fn of(shelf: &Arc<Shelf>) -> Self {
        Self(Source::Running(Arc::clone(shelf)))
    }

    /// What lies on disk. In a running store, damage in the journal asks for a new one.
    pub fn holdings(&self) -> Result<Holdings, StoreError> {
        match &self.0 {
            Source::Stopped { survey, .. } => Ok(survey.holdings().clone()),
            Source::Running(shelf) => shelf.store.holdings(),
        }
    }

    /// How many responses there are.
    pub fn entries(&self) -> usize {
        self.with_index(Index::len)
    }

    /// How many distinct bodies there are.
    pub fn bodies(&self) -> usize {
        self.with_index(Index::bodies)
    }

    /// Bytes of heads and bodies that are alive.
    pub fn live_bytes(&self) -> u64 {
        self.with_index(Index::live_bytes)
    }

    /// Some responses, from a place on, in the order of their heads, those among them whose names
    /// were purged; and where to go on. The index is locked for `PLACES` places.
    ///
    /// What is there all the while is met once. What is stored or renewed meanwhile may be passed
    /// over or, as two responses, be met twice.
    pub fn page(&self, from: u32) -> (Vec<Put>, Option<u32>) {
        let (mut puts, next) = self.with_index(|index| index.page(from, PLACES));
        puts.sort_unstable_by_key(|put| (put.head.pack, put.head.offset));
        (puts, next)
    }

    /// All responses under one key.
    pub fn variants(&self, key: PrimaryKey) -> Vec<Put> {
        self.with_index(|index| index.variants(key))
    }

    /// Keeps a response where it is; `None` when it is gone.
    pub fn hold(&self, put: &Put) -> Option<Held<'_>> {
        let (put, pins) = match &self.0 {
            Source::Stopped { .. } => (put.clone(), None),
            Source::Running(shelf) => {
                // Pinned while the index is held, so that no pack goes between look and pin.
                let index = shelf.read_index();
                let put = index.place(put.key, put.sequence)?;
                let pins = shelf.pin(packs(&put));
                (put, Some(pins))
            }
        };
        Some(Held {
            catalog: self,
            put,
            _pins: pins,
        })
    }

    /// Checks every bit of a pack; in a running store as the scrub does.
    pub fn check(&self, pack: PackId) -> Finding {
        match &self.0 {
            Source::Stopped { survey, .. } => match survey.is_intact(pack) {
                Ok(true) => Finding::Intact,
                Ok(false) => Finding::Damaged,
                Err(StoreError::Missing(_)) => Finding::Missing,
                Err(error) => Finding::Unread(error),
            },
            Source::Running(shelf) => shelf.check_pack(pack),
        }
    }

    fn with_index<T>(&self, ask: impl FnOnce(&Index) -> T) -> T {
        match &self.0 {
            Source::Stopped { index, .. } => ask(index),
            Source::Running(shelf) => ask(&shelf.read_index()),
        }
    }

    fn read(&self, location: Location) -> Result<Bytes, StoreError> {
        match &self.0 {
            Source::Stopped { survey, .. } => survey.read(location),
            Source::Running(shelf) => shelf.store.read(location),
        }
    }
}

impl Held<'_> {
    /// Where its parts are.
    pub fn put(&self) -> &Put {
        &self.put
    }

    /// Reads and checks its head. `None` when it was purged by one of its names.
    pub fn head(&self) -> Result<Option<StoredResponse>, StoreError> {
        let put = &self.put;
        let response = self.noted(self.read_head())?;
        let verdict = |index: &Index| index.verdict(put.sequence, put.key, &response.names);
        Ok(match self.catalog.with_index(verdict) {
            Verdict::Clear => Some(response),
            Verdict::Stale(since) => Some(response.stale_since(since)),
            Verdict::Gone => None,
        })
    }

    /// Reads and checks its body, part by part. Its head says what the body is called.
    pub fn parts(
        &self,
        head: &StoredResponse,
    ) -> impl Iterator<Item = Result<Bytes, StoreError>> + '_ {
        let segments = self.put.parts.clone().segments(head.body).into_iter();
        segments.map(|segment| self.noted(self.read_part(&segment)))
    }

    fn read_head(&self) -> Result<StoredResponse, StoreError> {
        let put = &self.put;
        let location = put.head;
        let bytes = self.catalog.read(location)?;
        head::decode(&bytes)
            .map(|(_, response)| response)
            .filter(|response| response.key == put.key && response.variant == put.variant)
            .filter(|response| response.body.name() == put.body)
            .ok_or(StoreError::Corrupt { location })
    }

    fn read_part(&self, segment: &Segment) -> Result<Bytes, StoreError> {
        let location = segment.location;
        let bytes = self.catalog.read(location)?;
        if Digest::of(&bytes) == segment.digest {
            return Ok(bytes);
        }
        Err(StoreError::Corrupt { location })
    }

    /// Forgets a damaged response of a running store, as a request would. What is only out of reach
    /// stays: a tool meets all of it, and the disk may come back.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let (Err(error @ StoreError::Corrupt { .. }), Source::Running(shelf)) =
            (&read, &self.catalog.0)
        {
            let found = Found {
                sequence: self.put.sequence,
                key: self.put.key,
                variant: self.put.variant,
            };
            shelf.forget(found, error);
        }
        read
    }
}

fn packs(put: &Put) -> impl Iterator<Item = PackId> + '_ {
    let places = std::iter::once(put.head).chain(put.parts.locations());
    places.map(|place| place.pack)
}

/// Places of the index that are looked at while it is locked.
const PLACES: u32 = 64;

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::super::tests::keep;
    use super::super::tests::keep_bytes;
    use super::super::tests::open;
    use super::*;
    use std::collections::HashSet;
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    const KEY: PrimaryKey = PrimaryKey([1; 16]);

    /// The one pack's file.
    fn pack_file(dir: &TempDir) -> PathBuf {
        let mut path = dir.path().join("store/content-v2");
        while path.is_dir() {
            path = fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
        }
        path
    }

    #[tokio::test]
    async fn pages_meet_everything_once_and_none_is_long() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        for n in 0..200 {
            keep(&shelf, PrimaryKey([n; 16]), "same").await;
        }
        let catalog = Catalog::of(&shelf);
        let (mut from, mut met) = (Some(0), Vec::new());
        while let Some(place) = from {
            let (puts, next) = catalog.page(place);
            assert!(puts.len() <= usize::try_from(PLACES).unwrap());
            met.extend(puts.iter().map(|put| put.key));
            from = next;
        }
        assert_eq!((met.len(), catalog.entries()), (200, 200));
        assert_eq!(met.into_iter().collect::<HashSet<_>>().len(), 200);
        assert_eq!(catalog.bodies(), 1);
    }

    #[tokio::test]
    async fn what_is_in_memory_is_told_before_it_is_on_disk() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        keep(&shelf, KEY, "body").await;
        let catalog = Catalog::of(&shelf);
        let held = catalog.hold(&catalog.variants(KEY)[0]).unwrap();
        let head = held.head().unwrap().unwrap();
        let parts: Result<Vec<Bytes>, StoreError> = held.parts(&head).collect();
        assert_eq!(parts.unwrap(), ["body"]);
    }

    #[tokio::test]
    async fn a_tool_forgets_what_is_damaged_and_keeps_what_is_out_of_reach() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        keep_bytes(&shelf, KEY, Bytes::from(vec![7; 5000])).await;
        shelf.store.flush().await.unwrap();
        let catalog = Catalog::of(&shelf);
        let put = catalog.variants(KEY).remove(0);
        let (file, aside) = (pack_file(&dir), dir.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        let gone = catalog.hold(&put).unwrap().head();
        assert!(matches!(gone, Err(StoreError::Missing(_))));
        assert!(found(&shelf, KEY).is_some());
        let mut bytes = fs::read(&aside).unwrap();
        let at = usize::try_from(put.head.offset + put.head.bytes / 2).unwrap();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let damaged = catalog.hold(&put).unwrap().head();
        assert!(matches!(damaged, Err(StoreError::Corrupt { .. })));
        assert!(found(&shelf, KEY).is_none());
        assert_eq!(shelf.usage().corrupt, 1);
        assert!(catalog.hold(&put).is_none());
    }

    #[tokio::test]
    async fn a_pack_that_was_dropped_is_no_damage() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        keep(&shelf, KEY, "body").await;
        shelf.store.flush().await.unwrap();
        let catalog = Catalog::of(&shelf);
        let (pack, _) = shelf.store.packs()[0];
        assert!(matches!(catalog.check(pack), Finding::Intact));
        shelf.remove(found(&shelf, KEY).unwrap());
        assert_eq!(shelf.drop_empty_packs(), 1);
        assert!(matches!(catalog.check(pack), Finding::Dropped));
        assert_eq!(shelf.usage().corrupt, 0);
        assert_eq!(catalog.holdings().unwrap().missing, []);
    }
}
