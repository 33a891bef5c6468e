//! The store's directory: whose it is, its lock, and whether it can be written.
//!
//! ```text
//! larder-store   says that this is a store, and in which format
//! lock           locked by the process that uses it
//! journal/       see `journal`
//! content-v2/    packs, as cacache lays them out
//! tmp/           packs being written
//! ```

use super::StoreError;
use super::files;
use super::files::File;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// A directory that is a store of this format, locked for this process. All methods block.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// None while another process may have it.
    lock: Option<File>,
    /// Where the disk is mounted that it lies on; none when it is the system's own.
    mount: Option<PathBuf>,
}

impl Folder {
    /// Makes the store's directory when it is missing or empty, checks that it is one of ours
    /// otherwise, and locks it. Nothing is changed in a directory that is not.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        files::create_dir_all(dir).map_err(failed("make", dir))?;
        let marked = check_marker(dir)?;
        if !marked && !is_blank(dir)? {
            return Err(StoreError::Foreign {
                dir: dir.to_path_buf(),
            });
        }
        let lock = take_lock(dir)?;
        let folder = Self {
            dir: dir.to_path_buf(),
            lock: Some(lock),
            mount: mount_of(dir),
        };
        // Another process may have been first between the look and the lock.
        if !check_marker(dir)? {
            folder
                .write_marker()
                .map_err(failed("mark", &dir.join(MARKER)))?;
        }
        folder.make_folders().map_err(failed("make", dir))?;
        Ok(folder)
    }

    /// Opens a store's directory to look at it, locked against those who would use it, and changes
    /// nothing.
    pub(super) fn look(dir: &Path) -> Result<Self, StoreError> {
        let none = || StoreError::None {
            dir: dir.to_path_buf(),
        };
        if !check_marker(dir)? {
            return Err(none());
        }
        let path = dir.join(LOCK);
        let lock = File::open(&path).map_err(failed("open", &path))?;
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self {
                dir: dir.to_path_buf(),
                lock: Some(lock),
                mount: None,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                dir: dir.to_path_buf(),
            }),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    /// Names this store among all that this machine has.
    pub(super) fn identity(&self) -> Result<String, StoreError> {
        let Some(lock) = &self.lock else {
            return identity(&self.dir);
        };
        let lock = lock.metadata();
        Ok(name_of(
            &lock.map_err(failed("look at", &self.dir.join(LOCK)))?,
        ))
    }

    /// Where the journal lies.
    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Deletes what was left half written. What cannot be deleted stays.
    pub(super) fn sweep_tmp(&self) {
        let Ok(entries) = files::read_dir(&self.tmp()) else {
            return;
        };
        for entry in entries.flatten() {
            drop(files::remove_file(&entry.path()));
        }
    }

    /// Makes whole again what someone took away, folders and marker, and deletes what a write left
    /// that failed.
    ///
    /// While its disk is not mounted nothing is made: that would fill another disk.
    pub(super) fn restore(&self) -> Result<(), StoreError> {
        if let Some(mount) = self.mount.as_ref().filter(|mount| !is_mounted(mount)) {
            let gone = io::Error::from(io::ErrorKind::NotFound);
            return Err(failed("find a disk at", mount)(gone));
        }
        self.sweep_tmp();
        self.make_folders().map_err(failed("make", &self.dir))?;
        if !check_marker(&self.dir)? {
            self.write_marker()
                .map_err(failed("mark", &self.dir.join(MARKER)))?;
        }
        Ok(())
    }

    /// Does the lock that others would meet still belong to this process?
    pub(super) fn holds_lock(&self) -> bool {
        let ours = self.lock.as_ref().map(File::metadata);
        match (files::look(&self.dir.join(LOCK)), ours) {
            (Ok(there), Some(Ok(ours))) => there.ino() == ours.ino() && there.dev() == ours.dev(),
            _ => false,
        }
    }

    /// Takes the lock again, after it was deleted with its file or let go.
    pub(super) fn lock_again(&mut self) -> Result<(), StoreError> {
        if !self.holds_lock() {
            self.lock = Some(take_lock(&self.dir)?);
        }
        Ok(())
    }

    /// Lets the lock go, so that another process can take it.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Does what writing a pack takes, in `tmp`: makes a file of so many bytes, gives it another name
    /// and deletes it.
    pub(super) fn probe(&self, bytes: u32) -> io::Result<()> {
        let path = self.tmp().join("probe");
        let bytes = usize::try_from(bytes).unwrap_or_default();
        let tried = File::create(&path).and_then(|mut file| file.write_all(&vec![0x55; bytes]));
        let renamed = tried.and_then(|()| files::rename(&path, &self.tmp().join("probed")));
        let left = if renamed.is_ok() { "probed" } else { "probe" };
        let deleted = files::remove_file(&self.tmp().join(left));
        renamed.and(deleted)
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn make_folders(&self) -> io::Result<()> {
        files::create_dir_all(&self.journal())?;
        files::create_dir_all(&self.tmp())
    }

    /// Whole or not at all, also when the power fails: a half marker would be taken for another
    /// version's, and no start would come past it.
    fn write_marker(&self) -> io::Result<()> {
        let new = self.dir.join(MARKER_NEW);
        let mut file = File::create(&new)?;
        file.write_all(format!("{MARKER_TEXT}{FORMAT}\n").as_bytes())?;
        file.sync_all()?;
        files::rename(&new, &self.dir.join(MARKER))
    }
}

/// Names the store in `dir`, whoever uses it, as that one does. Blocking.
pub(super) fn identity(dir: &Path) -> Result<String, StoreError> {
    let path = dir.join(LOCK);
    let lock = files::look(&path).map_err(failed("look at", &path))?;
    Ok(name_of(&lock))
}

/// Paths differ with links and mounts; which file is locked does not.
fn name_of(lock: &Metadata) -> String {
    format!("{:x}-{:x}", lock.dev(), lock.ino())
}

/// Where the disk is mounted that `dir` lies on; none when it is the system's own.
fn mount_of(dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    let device = files::look(&dir).ok()?.dev();
    let same = |path: &&Path| files::look(path).is_ok_and(|found| found.dev() == device);
    let mount = dir.ancestors().take_while(same).last()?;
    mount.parent().map(|_| mount.to_path_buf())
}

/// Is a disk mounted here?
fn is_mounted(mount: &Path) -> bool {
    let device = |path: &Path| files::look(path).map(|found| found.dev());
    let above = mount.parent().and_then(|above| device(above).ok());
    matches!((device(mount), above), (Ok(own), Some(above)) if own != above)
}

/// Is there a marker of this format? An error when there is one of another.
fn check_marker(dir: &Path) -> Result<bool, StoreError> {
    let path = dir.join(MARKER);
    let bytes = match File::open(&path).and_then(|file| file.read_start(100)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read", &path)(error)),
        Ok(bytes) => bytes,
    };
    let text = String::from_utf8_lossy(&bytes);
    let found = text.strip_prefix(MARKER_TEXT).unwrap_or(&text).trim();
    if found == FORMAT.to_string() {
        return Ok(true);
    }
    Err(StoreError::Version {
        dir: dir.to_path_buf(),
        found: found.escape_default().to_string(),
        expected: FORMAT,
    })
}

/// Does the directory hold nothing, or only what an opening that was cut short left?
fn is_blank(dir: &Path) -> Result<bool, StoreError> {
    let entries = files::read_dir(dir).map_err(failed("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(failed("list", dir))?;
        let name = entry.file_name();
        let ours = name == OsStr::new(LOCK) || name == OsStr::new(MARKER_NEW);
        let small = entry
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() <= 100);
        // What a file system makes of itself, and what keeps an empty folder in version control.
        let none = name == OsStr::new("lost+found") || name == OsStr::new(".gitignore");
        if !(none || ours && small) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    // On a disk that cannot be written to, what is there can be locked and served all the same.
    let file = File::keep(&path)
        .or_else(|error| File::open(&path).map_err(|_| error))
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            dir: dir.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

/// Says what was being done to which file when the system refused.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}

/// Is it for want of room that the system refused?
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The format this larder writes.
pub(super) const FORMAT: u32 = 1;

const MARKER: &str = "larder-store";
const MARKER_NEW: &str = "larder-store.new";
const MARKER_TEXT: &str = "larder store, format ";
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_missing_directory_is_made_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        drop(Folder::open(&inner).unwrap());
        drop(Folder::open(&inner).unwrap());
        let marker = fs::read_to_string(inner.join(MARKER)).unwrap();
        assert_eq!(marker, "larder store, format 1\n");
    }

    #[test]
    fn what_is_mounted_is_told_from_what_is_not() {
        assert_eq!(mount_of(Path::new("/proc/self")), Some("/proc".into()));
        assert!(is_mounted(Path::new("/proc")));
        assert_eq!(mount_of(Path::new("/")), None);
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mounted(dir.path()));
        assert!(mount_of(dir.path()).is_none_or(|mount| is_mounted(&mount)));
    }

    #[test]
    fn a_fresh_file_system_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn an_opening_cut_short_can_be_done_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), b"").unwrap();
        fs::write(dir.path().join(MARKER_NEW), b"lard").unwrap();
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), b"words").unwrap();
        let refused = Folder::open(dir.path());
        assert!(matches!(refused, Err(StoreError::Foreign { .. })));
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn another_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "larder store, format 2\n").unwrap();
        let refused = Folder::open(dir.path());
        let Err(StoreError::Version { found, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(found, "2");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_second_opening_meets_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        let second = Folder::open(dir.path());
        assert!(matches!(second, Err(StoreError::Locked { .. })));
        drop(first);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_that_was_let_go_can_be_taken_by_another_and_then_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Folder::open(dir.path()).unwrap();
        let name = first.identity().unwrap();
        first.unlock();
        assert!(!first.holds_lock());
        assert_eq!(first.identity().unwrap(), name);
        let second = Folder::open(dir.path()).unwrap();
        assert!(matches!(first.lock_again(), Err(StoreError::Locked { .. })));
        drop(second);
        first.lock_again().unwrap();
        assert!(first.holds_lock());
    }

    #[test]
    fn a_store_has_one_name_by_every_path_and_no_other_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (here, other) = (dir.path().join("a"), dir.path().join("b"));
        let folder = Folder::open(&here).unwrap();
        let _other = Folder::open(&other).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&here, &link).unwrap();
        assert_eq!(folder.identity().unwrap(), identity(&link).unwrap());
        assert_ne!(folder.identity().unwrap(), identity(&other).unwrap());
        assert!(identity(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_directory_taken_away_is_made_again_and_locked_again() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("store");
        let mut folder = Folder::open(&inner).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        assert!(!folder.holds_lock());
        assert!(folder.probe(4096).is_err());
        folder.restore().unwrap();
        folder.lock_again().unwrap();
        assert!(folder.holds_lock());
        folder.probe(1 << 20).unwrap();
        let second = Folder::open(&inner);
        assert!(matches!(second, Err(StoreError::Locked { .. })));
    }
}
