//! The file in a store's directory that says which directories were in use together.
//!
//! Text that others make and read; here it is only written whole or not at all. It is no part of the
//! journal, since it says whether the journal can be believed.

use super::StoreError;
use super::files;
use super::files::File;
use super::folder::failed;
use std::path::Path;

/// Reads the roster of the store in `dir`. `None` when there is none that can be read. Blocking.
pub fn read(dir: &Path) -> Option<String> {
    let file = File::open(&dir.join(NAME)).ok()?;
    String::from_utf8(file.read_start(BYTES_MAX).ok()?).ok()
}

/// Writes the roster of the store in `dir`, in place of the one before. Blocking.
pub fn write(dir: &Path, text: &str) -> Result<(), StoreError> {
    let (path, new) = (dir.join(NAME), dir.join(NEW));
    let written = File::create(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| files::rename(&new, &path));
    written.map_err(failed("write", &path))
}

const NAME: &str = "roster";
const NEW: &str = "roster.new";
/// Many times what sixteen directories need.
const BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        write(dir.path(), "one").unwrap();
        write(dir.path(), "other").unwrap();
        assert_eq!(read(dir.path()).as_deref(), Some("other"));
        assert!(write(&dir.path().join("none"), "one").is_err());
    }
}
