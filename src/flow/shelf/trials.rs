//! Bits flipped at random, over a whole shelf: no wrong byte, nothing unnoticed, all healed.

use super::Shelf;
use super::StoredBody;
use super::catalog::Finding;
use super::tests::found;
use super::tests::keep_bytes;
use super::tests::open_at;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

/// xorshift: chance that comes the same in every run.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap();
}

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

pub(super) fn key(n: u8) -> PrimaryKey {
    PrimaryKey([n; 16])
}

/// The one body that `n` has; every third shares it with the one before.
pub(super) fn body(n: u8) -> Bytes {
    let seed = if n.is_multiple_of(3) {
        n
    } else {
        n / 3 * 3 + 1
    };
    let mut bytes = vec![0; 200 + usize::from(seed) * 9];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    Bytes::from(bytes)
}

pub(super) const COUNT: u8 = 24;
pub(super) const PURGED: u8 = 200;

pub(super) fn fill(shelf: &Arc<Shelf>, n: u8) {
    wait(keep_bytes(shelf, key(n), body(n)));
}

/// Is `n` a hit? Then with the right bytes.
pub(super) fn is_hit(shelf: &Arc<Shelf>, n: u8) -> bool {
    let Some(found) = found(shelf, key(n)) else {
        return false;
    };
    let Some(stored) = wait(shelf.load(found)) else {
        return false;
    };
    assert_eq!(stored.response.key, key(n), "another key's head");
    match stored.body {
        StoredBody::Memory(bytes) => assert_eq!(bytes, body(n), "a wrong byte"),
        StoredBody::Segments(segments, _pins) => {
            for segment in segments.iter() {
                let Ok(bytes) = wait(shelf.read_segment(*segment, false)) else {
                    shelf.remove(found);
                    return false;
                };
                assert_eq!(bytes, body(n), "a wrong byte");
            }
        }
    }
    true
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
}

/// Flips one bit of one file, and says which.
fn flip_one(folder: &Path, chance: &mut Chance) -> (PathBuf, usize) {
    let mut all = Vec::new();
    files(folder, &mut all);
    let path = all.swap_remove(chance.below(all.len()));
    let mut bytes = fs::read(&path).unwrap();
    let bit = chance.below(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    (path, bit)
}

/// Flips bits in packs under an open shelf, `trials` times.
fn flip_packs(seed: u64, trials: usize) {
    let dir = TempDir::new().unwrap();
    let shelf = open_at(dir.path());
    let mut chance = Chance(seed);
    for n in 0..COUNT {
        fill(&shelf, n);
        if n % 6 == 5 {
            wait(shelf.store.flush()).unwrap();
        }
    }
    for trial in 0..trials {
        let before = shelf.usage().corrupt;
        let flipped = flip_one(&dir.path().join("content-v2"), &mut chance);
        let lost: Vec<u8> = (0..COUNT).filter(|n| !is_hit(&shelf, *n)).collect();
        // What no request reads a scrub does; what one has found is dead and stays.
        for (pack, _) in shelf.store.packs() {
            shelf.scrub(pack);
        }
        let counted = shelf.usage().corrupt - before;
        assert!(counted >= 1, "trial {trial}: {flipped:?} went unnoticed");
        assert!(lost.len() <= 3, "trial {trial}: one bit cost {lost:?}");
        for n in 0..COUNT {
            if !is_hit(&shelf, n) {
                fill(&shelf, n);
            }
        }
        wait(shelf.store.flush()).unwrap();
        assert!(
            (0..COUNT).all(|n| is_hit(&shelf, n)),
            "trial {trial}: not healed"
        );
        for (pack, _) in shelf.store.packs() {
            assert!(
                matches!(shelf.scrub(pack), Finding::Intact),
                "trial {trial}: {flipped:?} is still there"
            );
        }
    }
}

#[test]
fn a_bit_flipped_in_any_pack_costs_who_needs_it_is_counted_and_heals() {
    std::thread::scope(|scope| {
        scope.spawn(|| flip_packs(1, 350));
        scope.spawn(|| flip_packs(2, 350));
    });
}

/// A closed store with entries, of which one was purged, half of them in a snapshot.
pub(super) fn closed(dir: &Path) {
    let shelf = open_at(dir);
    for n in [PURGED, PURGED + 1] {
        fill(&shelf, n);
    }
    for n in 0..COUNT / 2 {
        fill(&shelf, n);
    }
    wait(shelf.store.flush()).unwrap();
    assert!(shelf.snapshot());
    let selectors = [Selector::Url(key(PURGED))];
    let mark = shelf.purge(&selectors);
    assert!(wait(shelf.record_purge(mark, &selectors)));
    for n in COUNT / 2..COUNT {
        fill(&shelf, n);
    }
    shelf.close();
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Flips bits in the journal, its snapshot and their copies, with a start after each time.
fn flip_journals(seed: u64, trials: usize, bits: usize) {
    let template = TempDir::new().unwrap();
    closed(template.path());
    let mut chance = Chance(seed);
    for trial in 0..trials {
        let dir = TempDir::new().unwrap();
        copy(template.path(), dir.path());
        let flipped: Vec<_> = (0..bits)
            .map(|_| flip_one(&dir.path().join("journal"), &mut chance))
            .collect();
        let shelf = open_at(dir.path());
        assert!(!is_hit(&shelf, PURGED), "{flipped:?} undid a purge");
        // The length of a file's last record, made longer, looks like what a kill leaves.
        let last = flipped.iter().all(|(path, bit)| {
            let bytes = usize::try_from(fs::metadata(path).map_or(0, |m| m.len())).unwrap();
            bytes.saturating_sub(bit / 8) <= 220
        });
        let counted = shelf.usage().corrupt > 0;
        assert!(counted || last, "trial {trial}: {flipped:?} went unnoticed");
        for n in 0..COUNT {
            if !is_hit(&shelf, n) {
                fill(&shelf, n);
            }
        }
        assert!(
            (0..COUNT).all(|n| is_hit(&shelf, n)),
            "trial {trial}: not healed"
        );
        // The next start comes over the same damage, or over what replaced it.
        if trial % 4 == 0 {
            shelf.close();
            drop(shelf);
            let shelf = open_at(dir.path());
            assert!(!is_hit(&shelf, PURGED), "{flipped:?} undid a purge later");
            assert!(
                (0..COUNT).all(|n| is_hit(&shelf, n)),
                "trial {trial}: lost again"
            );
        }
    }
}

#[test]
fn a_bit_flipped_in_the_journal_undoes_no_purge_is_counted_and_heals() {
    std::thread::scope(|scope| {
        scope.spawn(|| flip_journals(3, 200, 1));
        scope.spawn(|| flip_journals(4, 100, 12));
    });
}
