//! The store's only way to the file system: each step is one of [`Step`], so that a test can make
//! any of them fail, fall short or hang (`faults`). Outside tests nothing is added to what the
//! standard library does.
//!
//! What cacache does inside is met at its edges: creating, writing and putting a pack in place.

#[cfg(test)]
use super::faults::allowed;
#[cfg(test)]
pub(super) use super::faults::meet;
use std::fs;
use std::fs::Metadata;
use std::fs::ReadDir;
use std::fs::TryLockError;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;

/// One thing that is asked of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Making a file and opening it for writing.
    Create,
    /// Listing a folder.
    List,
    /// Asking for a file's length, room and number.
    Look,
    /// Making a folder.
    MakeFolder,
    /// Opening a file for reading.
    Open,
    /// Reading from an open file.
    Read,
    /// Deleting a file or an empty folder.
    Remove,
    /// Giving a file its name.
    Rename,
    /// Waiting until a file is on disk.
    Sync,
    /// Writing to an open file.
    Write,
}

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    file: fs::File,
    #[cfg(test)]
    path: PathBuf,
}

impl File {
    /// Opens for reading.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        meet(Step::Open, path)?;
        Ok(Self::of(fs::File::open(path)?, path))
    }

    /// Makes an empty file, whatever was there.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        meet(Step::Create, path)?;
        Ok(Self::of(fs::File::create(path)?, path))
    }

    /// Makes a file that grows at its end; one that is there already is an error.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        meet(Step::Create, path)?;
        let file = fs::File::options().append(true).create_new(true).open(path);
        Ok(Self::of(file?, path))
    }

    /// Opens for writing, makes it when it is missing, and leaves its bytes as they are.
    pub(super) fn keep(path: &Path) -> io::Result<Self> {
        meet(Step::Create, path)?;
        let mut options = fs::File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        Ok(Self::of(file?, path))
    }

    #[cfg_attr(
        not(test),
        expect(unused_variables, reason = "only faults ask for the path")
    )]
    fn of(file: fs::File, path: &Path) -> Self {
        Self {
            file,
            #[cfg(test)]
            path: path.to_path_buf(),
        }
    }

    #[cfg(test)]
    fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests it says which file this is")]
    fn path(&self) -> &Path {
        Path::new("")
    }

    /// Fills `bytes` from `offset` on.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        meet(Step::Read, self.path())?;
        self.file.read_exact_at(bytes, offset)
    }

    /// Reads from the start, at most so many bytes.
    pub(super) fn read_start(self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes all of it. After an error some of it may have been written.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let part = allowed(Step::Write, self.path(), bytes)?;
        self.file.write_all(part)?;
        whole(part, bytes)
    }

    /// Waits until everything written is on disk.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        meet(Step::Sync, self.path())?;
        self.file.sync_all()
    }

    /// What the system knows of it.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        meet(Step::Look, self.path())?;
        self.file.metadata()
    }

    /// Locks it against all others.
    pub(super) fn try_lock(&self) -> Result<(), TryLockError> {
        self.file.try_lock()
    }

    /// Locks it against those who want it for themselves.
    pub(super) fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.file.try_lock_shared()
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        meet(Step::Read, self.path())?;
        self.file.read(bytes)
    }
}

/// One `write` to a file in `dir`, whole or an error: cacache hashes a buffer before it writes it,
/// so the rest of a short write can never be made good.
pub(super) fn write_once(writer: &mut impl Write, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = allowed(Step::Write, dir, bytes)?;
    let written = writer.write(part)?;
    whole(part.get(..written).unwrap_or_default(), bytes)
}

fn whole(written: &[u8], bytes: &[u8]) -> io::Result<()> {
    if written.len() == bytes.len() {
        Ok(())
    } else {
        // In practice the disk is full: the kernel wrote what still fitted.
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// Makes a folder and those above it.
pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
    meet(Step::MakeFolder, path)?;
    fs::create_dir_all(path)
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    meet(Step::Open, path)?;
    meet(Step::Read, path)?;
    fs::read(path)
}

/// Lists a folder.
pub(super) fn read_dir(path: &Path) -> io::Result<ReadDir> {
    meet(Step::List, path)?;
    fs::read_dir(path)
}

/// What the system knows of a file; of a link, what it knows of the link.
pub(super) fn look(path: &Path) -> io::Result<Metadata> {
    meet(Step::Look, path)?;
    fs::symlink_metadata(path)
}

/// Gives a file another name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    meet(Step::Rename, from)?;
    fs::rename(from, to)
}

/// Deletes a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    meet(Step::Remove, path)?;
    fs::remove_file(path)
}

/// Deletes an empty folder.
pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    meet(Step::Remove, path)?;
    fs::remove_dir(path)
}

/// Called before a step: outside tests there are no faults but true ones.
#[cfg(not(test))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
pub(super) const fn meet(_: Step, _: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
const fn allowed<'a>(_: Step, _: &Path, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    Ok(bytes)
}
