//! Disk and memory: keeps bytes under their addresses and a journal of what they mean.
//!
//! ```text
//! append(lane, pieces) ─► open pack in memory ──(full, 1 s old, or asked)──► cacache content
//! record(put, after packs) ────────waits for the seal of its packs──────────► journal
//! read(location) ◄─ open pack in memory, or pread from the sealed pack's file
//! ```
//!
//! The store does not decide what is worth keeping: its [`Keeper`] does. It checks neither heads
//! nor segments when it reads them: callers hold the digests. A disk that fails makes it pass
//! through, and it comes back by itself.
//!
//! | file | answers |
//! |---|---|
//! | `disk` | the store's face: appends, reads, records |
//! | `files` | every step on the file system |
//! | `folder` | whose directory is it, is it locked, can it be written |
//! | `table` | which packs there are and how much room is taken; no IO |
//! | `pack` | many pieces in one cacache content |
//! | `journal` | records as bytes, and the files they are in |
//! | `replay` | what a start finds, keeps and sweeps away |
//! | `roster` | the file that says which directories were used together |
//! | `survey` | what a stopped store holds, for tools |
//! | `writer` | the thread that writes |
//! | `head`, `memory` | heads as bytes; hot responses in memory |

mod codec;
mod disk;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod files;
mod folder;
pub mod head;
mod journal;
pub mod memory;
#[cfg(test)]
pub(crate) mod model;
mod pack;
mod replay;
pub mod roster;
pub mod survey;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

pub use crate::rules::address::Put;
pub use disk::Lane;
pub use disk::Store;
pub use pack::PACK_BYTES_MIN;

/// Where and how much to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The store's directory; made when missing, refused when it holds something else.
    pub dir: PathBuf,
    /// Hard limit in allocated bytes, everything below `dir` counted; at least 32 MiB.
    pub disk_bytes_max: u64,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A response was stored (or its head replaced: same sequence, newer place).
    Put(Put),
    /// An entry was removed. Not handed out at a start: what it says has been heeded.
    Remove(Sequence),
    /// A purge: entries it covers with a smaller sequence are gone, or stale.
    Purge {
        /// When it was made, and how it treats them.
        mark: Mark,
        /// What it covers.
        selector: Selector,
    },
}

/// Who is told at a start what is stored.
pub trait Heir {
    /// So many puts may follow; told first. As good as any number to make room by.
    fn expect(&mut self, puts: u32) {
        let _unused = puts;
    }
    /// The next record.
    fn take(&mut self, record: Record);
    /// Does anything lie in this pack, after all that was taken? Such a pack stays, also when no
    /// record names it any more that is not purged.
    fn needs(&self, pack: PackId) -> bool {
        let _unused = pack;
        false
    }
}

impl<F: FnMut(Record)> Heir for F {
    fn take(&mut self, record: Record) {
        self(record);
    }
}

/// What a pack holds, as the table at its end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The head of the entry `sequence` under `key`.
    Head {
        /// Which entry.
        sequence: Sequence,
        /// Its key.
        key: PrimaryKey,
        /// Where in this pack.
        location: Location,
    },
    /// Segment number `number` of `body`.
    Segment {
        /// The body's name (its first fill's sequence when the whole digest is not yet known).
        digest: Digest,
        /// Which entry's fill wrote it.
        sequence: Sequence,
        /// The key that entry had.
        key: PrimaryKey,
        /// Where in this pack.
        location: Location,
    },
}

/// Bytes to append, and what they are.
#[derive(Clone, Debug)]
pub enum NewPiece {
    /// An encoded head (see [`head`]).
    Head(Bytes),
    /// A segment and its digest.
    Segment(Digest, Bytes),
}

/// Whom the store asks and tells, from its own threads. Implementations must not block for long
/// and must not call back into the store except where said.
pub trait Keeper: Send + Sync {
    /// Is this entry still in the index? Asked once for each recorded put: just before its record
    /// is written, or, with the answer ignored, when it turned out that none can be.
    fn wanted(&self, sequence: Sequence) -> bool;
    /// Packs could not be written, or their files were taken away: everything in them is lost and
    /// must be forgotten. Many are told at once, for who looks them up looks at everything.
    fn lost(&self, packs: &[PackId]);
    /// A pack is on disk; `allocated` bytes of it.
    fn sealed(&self, pack: PackId, allocated: u64);
}

/// Whether the disk can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Reads and writes work.
    Healthy,
    /// Pass-through: nothing is written until a probe succeeds. Carries the reason.
    PassThrough(Arc<str>),
}

/// Sizes, for stats and for making room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes: sealed packs with their folders, the journal twice (its next snapshot is
    /// written beside it), and the room set aside for packs in memory. Never less than what lies
    /// on disk.
    pub allocated: u64,
    /// The hard limit, in bytes; lower than the one given when the disk turned out smaller.
    pub limit: u64,
    /// Sealed packs.
    pub packs: u64,
    /// Entries whose record was written to the journal since start.
    pub journaled: u64,
    /// Bytes of heads and segments that were appended since start.
    pub appended: u64,
    /// Bytes of packs written since start.
    pub packs_written: u64,
    /// Bytes of journals and snapshots written since start.
    pub journal_written: u64,
    /// Segments or heads that failed their check since start.
    pub corrupt: u64,
    /// Reads that the disk refused or did not answer in time, since start.
    pub read_errors: u64,
    /// Writes that the disk refused or did not answer in time, since start.
    pub write_errors: u64,
}

impl Usage {
    /// Adds up two stores.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            allocated: sum(self.allocated, other.allocated),
            limit: sum(self.limit, other.limit),
            packs: sum(self.packs, other.packs),
            journaled: sum(self.journaled, other.journaled),
            appended: sum(self.appended, other.appended),
            packs_written: sum(self.packs_written, other.packs_written),
            journal_written: sum(self.journal_written, other.journal_written),
            corrupt: sum(self.corrupt, other.corrupt),
            read_errors: sum(self.read_errors, other.read_errors),
            write_errors: sum(self.write_errors, other.write_errors),
        }
    }
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes read are not the bytes written.
    #[error("stored bytes at {location:?} fail their check")]
    Corrupt {
        /// Where.
        location: Location,
    },
    /// The directory holds something that is not a Larder store.
    #[error("{} is not empty and not a larder store; nothing was changed", dir.display())]
    Foreign {
        /// Which directory.
        dir: PathBuf,
    },
    /// There is no store.
    #[error("{} holds no larder store", dir.display())]
    None {
        /// Which directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done: a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// Which directory.
        dir: PathBuf,
    },
    /// The pack is gone: dropped, lost or never written.
    #[error("pack {0:?} is gone")]
    Missing(PackId),
    /// The limit leaves no room for another pack; make room and try again.
    #[error("no room for another pack")]
    NoRoom,
    /// The disk has failed; nothing is stored until it recovers.
    #[error("the store passes through: {0}")]
    PassThrough(Arc<str>),
    /// The disk has not answered in time.
    #[error("the disk does not answer")]
    Slow,
    /// The pieces of one append do not fit into any pack; they never will.
    #[error("{bytes} bytes do not fit into one pack")]
    TooLarge {
        /// What they would take, in bytes.
        bytes: u64,
    },
    /// A newer or older larder wrote a file of its journal.
    #[error("{} has journal version {found}, this larder writes {expected}; nothing was changed", path.display())]
    JournalVersion {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version written here.
        expected: u32,
    },
    /// A newer or older larder wrote it.
    #[error("{} has store format {found}, this larder writes {expected}; nothing was changed", dir.display())]
    Version {
        /// Which directory.
        dir: PathBuf,
        /// The format found.
        found: String,
        /// The format written here.
        expected: u32,
    },
}

impl StoreError {
    /// Does the error say nothing of the bytes? As when this process is short of something, such
    /// as file descriptors or a permission, or the disk hangs.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { source, .. } => !is_damage(source),
            Self::Slow => true,
            Self::Corrupt { .. }
            | Self::Foreign { .. }
            | Self::JournalVersion { .. }
            | Self::Locked { .. }
            | Self::Missing(_)
            | Self::NoRoom
            | Self::None { .. }
            | Self::PassThrough(_)
            | Self::TooLarge { .. }
            | Self::Version { .. } => false,
        }
    }
}

/// Does the system say that the bytes cannot be had from the disk any more? Everything else that it
/// refuses it may grant later.
fn is_damage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_none_or(|errno| {
        // A device, and a file system that finds its own structure or sums damaged.
        matches!(
            errno,
            Errno::IO | Errno::NODATA | Errno::UCLEAN | Errno::BADMSG
        )
    })
}

/// Locks, whatever became of the thread that held the lock before: the bookkeeping behind these
/// locks is whole between any two statements that could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
