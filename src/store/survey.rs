//! What a store on disk holds, for tools: found as a start finds it, without a change to any file.
//!
//! The store is locked while it is looked at, so that no process begins to use it meanwhile; several
//! may look at the same time.

use super::Heir;
use super::StoreError;
use super::folder;
use super::folder::Folder;
use super::folder::failed;
use super::journal;
use super::pack::Contents;
use super::pack::Sealed;
use super::replay;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use bytes::Bytes;
use hashbrown::HashMap;
use std::io;
use std::path::Path;

/// A store that is only read.
#[derive(Debug)]
pub struct Survey {
    contents: Contents,
    packs: HashMap<PackId, Sealed>,
    holdings: Holdings,
    _folder: Folder,
}

/// What lies on disk, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The packs that are there, in order: number, length of the file, and allocated bytes.
    pub packs: Vec<(PackId, u64, u64)>,
    /// Packs that are named and not there or not whole, in order.
    pub missing: Vec<PackId>,
    /// Damaged places in the journal's files.
    pub damaged: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
}

impl Holdings {
    pub(super) fn new(
        packs: Vec<(PackId, Sealed)>,
        missing: Vec<(PackId, Sealed)>,
        damaged: u64,
        journal_bytes: u64,
    ) -> Self {
        let sizes = |(pack, sealed): (PackId, Sealed)| {
            (pack, u64::from(sealed.bytes), u64::from(sealed.allocated))
        };
        let mut packs: Vec<_> = packs.into_iter().map(sizes).collect();
        packs.sort_unstable();
        let mut missing: Vec<PackId> = missing.into_iter().map(|(pack, _)| pack).collect();
        missing.sort_unstable();
        Self {
            packs,
            missing,
            damaged,
            journal_bytes,
        }
    }
}

/// Names the store in `dir` among all that this machine has, whoever uses it. Blocking.
pub fn identity(dir: &Path) -> Result<String, StoreError> {
    folder::identity(dir)
}

impl Survey {
    /// Opens a store that no process uses and hands every record that a start would hand on to
    /// `heir`, in order. Blocking.
    pub fn open(dir: &Path, heir: &mut dyn Heir) -> Result<Self, StoreError> {
        let folder = Folder::look(dir)?;
        let contents = Contents::new(dir);
        let journal = folder.journal();
        journal::check_versions(&journal)?;
        let found = replay::look(&journal, &contents, heir)?;
        let packs = found.packs.iter().map(|(pack, sealed)| (*pack, *sealed));
        let mut holdings = Holdings::new(
            packs.collect(),
            Vec::new(),
            found.damaged,
            found.journal_bytes,
        );
        holdings.missing = found.missing;
        Ok(Self {
            contents,
            packs: found.packs,
            holdings,
            _folder: folder,
        })
    }

    /// What lies on disk.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Reads a whole pack and says whether every bit of it is as it was written. Blocking.
    pub fn is_intact(&self, pack: PackId) -> Result<bool, StoreError> {
        let sealed = self.sealed(pack)?;
        let path = self.contents.path(sealed.address);
        self.contents
            .is_intact(sealed)
            .map_err(failed("read", &path))
    }

    /// Reads bytes; not checked: callers know the digest. Blocking.
    pub fn read(&self, location: Location) -> Result<Bytes, StoreError> {
        let sealed = self.sealed(location.pack)?;
        let path = self.contents.path(sealed.address);
        let corrupt = || StoreError::Corrupt { location };
        let end = location.offset.checked_add(location.bytes);
        if end.is_none_or(|end| end > sealed.bytes) {
            return Err(corrupt());
        }
        let mut bytes = vec![0; usize::try_from(location.bytes).unwrap_or_default()];
        let file = self.contents.open(sealed.address);
        match file.and_then(|file| file.read_exact_at(&mut bytes, location.offset.into())) {
            Ok(()) => Ok(Bytes::from(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(corrupt()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn sealed(&self, pack: PackId) -> Result<Sealed, StoreError> {
        let sealed = self.packs.get(&pack).copied();
        sealed.ok_or(StoreError::Missing(pack))
    }
}
