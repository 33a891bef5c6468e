//! What a store on disk holds, for tools: found as a start finds it, without a change to any file.
//!
//! The store is locked while it is looked at, so that no process begins to use it meanwhile; several
//! may look at the same time.

use super::Heir;
use super::StoreError;
use super::folder::Folder;
use super::folder::failed;
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
    /// Packs that the journal names and that are not there or not whole, by number.
    pub missing: Vec<PackId>,
    /// Damaged places in the journal's files.
    pub damaged: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    _folder: Folder,
}

impl Survey {
    /// Opens a store that no process uses and hands every record that a start would hand on to
    /// `heir`, in order. Blocking.
    pub fn open(dir: &Path, heir: &mut dyn Heir) -> Result<Self, StoreError> {
        let folder = Folder::look(dir)?;
        let contents = Contents::new(dir);
        let journal = folder.journal();
        let found = replay::look(&journal, &contents, heir)?;
        Ok(Self {
            contents,
            packs: found.packs,
            missing: found.missing,
            damaged: found.damaged,
            journal_bytes: found.journal_bytes,
            _folder: folder,
        })
    }

    /// The packs that are there: number, length of the file, and allocated bytes; in order.
    pub fn packs(&self) -> Vec<(PackId, u64, u64)> {
        let sizes = |(pack, sealed): (&PackId, &Sealed)| {
            (*pack, u64::from(sealed.bytes), u64::from(sealed.allocated))
        };
        let mut packs: Vec<_> = self.packs.iter().map(sizes).collect();
        packs.sort_unstable();
        packs
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
