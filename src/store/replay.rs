//! What a start finds: reads the journal, keeps what is whole, and sweeps away the rest.
//!
//! Twice over the files: first for packs, because a pack may be dropped long after the puts that
//! name it; then for records, of which those are handed on whose packs are all there.
//!
//! Damage must never undo a purge. Where a journal file is damaged its copy says which purges it
//! held. Where both are, nobody knows what was purged: then everything from before the damage is
//! purged. Lost puts are misses; a lost removal can bring back at most a response that was replaced
//! or evicted, for as long as it would have served without.

use super::Condition;
use super::Heir;
use super::Put;
use super::Record;
use super::StoreError;
use super::files;
use super::files::File;
use super::folder::Folder;
use super::folder::failed;
use super::folder::is_full;
use super::is_damage;
use super::journal;
use super::journal::Journal;
use super::journal::Line;
use super::journal::Part;
use super::journal::Scan;
use super::pack::Address;
use super::pack::Contents;
use super::pack::Sealed;
use super::pack::rounded;
use super::table::Table;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use hashbrown::HashMap;
use hashbrown::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Reads the journal and hands puts and purges to `heir`, in order, puts left out that were removed
/// or whose packs are missing or short. Deletes contents that no surviving put names. Starts a journal file of its own, and
/// passes a disk through that refuses it, as a full one does. Blocking.
pub(super) fn replay(
    folder: &Folder,
    contents: &Contents,
    disk_bytes_max: u64,
    heir: &mut dyn Heir,
) -> Result<(Table, Begun), StoreError> {
    folder.sweep_tmp();
    let path = folder.journal();
    sweep_unfinished(&path);
    let (parts, outdated) = journal::parts(&path).map_err(failed("list", &path))?;
    for part in &outdated {
        drop(part.delete(&path));
    }
    let mut found = Packs::default();
    let mut kept = Vec::new();
    for part in parts.iter().copied() {
        let read = Kept::read(&path, part, &mut found)?;
        if !(read.is_empty() && part.delete(&path).is_ok()) {
            kept.push(read);
        }
    }
    let mut packs = found.on_disk(contents)?;
    heir.expect(
        found
            .puts
            .saturating_sub(found.removed.len().try_into().unwrap_or(0)),
    );
    let named = hand_on(&path, &kept, &found, &packs, heir)?;
    drop_unnamed(contents, &mut packs, |pack| {
        named.contains(&pack) || heir.needs(pack)
    });
    let newest = parts
        .iter()
        .chain(&outdated)
        .map(|part| part.number())
        .max();
    let number = newest.map_or(1, |newest| newest.saturating_add(1));
    let mut table = Table::new(packs, found.next_pack, disk_bytes_max);
    table.journal.parts = kept.len();
    let damaged = kept.iter().map(Kept::stretches).sum();
    // Counted as a failure, so that a snapshot soon replaces what is damaged.
    table.journal.failures = u64::from(damaged > 0);
    for kept in kept {
        let bytes = kept
            .file
            .scan
            .bytes
            .saturating_add(rounded(kept.copy.scan.bytes));
        match kept.part {
            Part::Journal(_) => {
                let earlier = &mut table.journal.earlier;
                *earlier = earlier.saturating_add(rounded(bytes));
            }
            Part::Snapshot(_) => table.journal.snapshot = bytes,
        }
    }
    let begun = begin(&path, number, damaged, found.newest, &mut table);
    Ok((table, begun))
}

/// Hands on the puts and purges of all files, in order: puts left out that were removed or whose
/// packs are not whole. Says which packs the others name that no purge covers.
fn hand_on(
    folder: &Path,
    kept: &[Kept],
    found: &Packs,
    packs: &HashMap<PackId, Sealed>,
    heir: &mut dyn Heir,
) -> Result<HashSet<PackId>, StoreError> {
    let mut named = HashSet::new();
    for kept in kept {
        kept.hand_on(folder, &mut |record| {
            if found.passes(packs, &record, &mut named) {
                heir.take(record);
            }
        })?;
    }
    Ok(named)
}

/// What [`look`] found.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) packs: HashMap<PackId, Sealed>,
    /// Packs that are named and not there or not whole.
    pub(super) missing: Vec<PackId>,
    pub(super) damaged: u64,
    pub(super) journal_bytes: u64,
}

/// Hands every record that a start would hand on to `each`, and changes nothing. Blocking.
pub(super) fn look(
    folder: &Path,
    contents: &Contents,
    heir: &mut dyn Heir,
) -> Result<Looked, StoreError> {
    let (parts, _) = journal::parts(folder).map_err(failed("list", folder))?;
    let mut found = Packs::default();
    let kept = parts
        .iter()
        .map(|part| Kept::read(folder, *part, &mut found))
        .collect::<Result<Vec<Kept>, _>>()?;
    let mut packs = HashMap::new();
    let mut missing = Vec::new();
    for (pack, address, bytes) in found.alive() {
        match contents.look(address) {
            Ok(sealed) if sealed.bytes == bytes => drop(packs.insert(pack, sealed)),
            _ => missing.push(pack),
        }
    }
    missing.sort_unstable();
    hand_on(folder, &kept, &found, &packs, heir)?;
    Ok(Looked {
        packs,
        missing,
        damaged: kept.iter().map(Kept::stretches).sum(),
        journal_bytes: kept
            .iter()
            .map(|kept| kept.file.scan.bytes.saturating_add(kept.copy.scan.bytes))
            .sum(),
    })
}

/// Counts the damaged places in the journal's files, and their bytes, and changes nothing. Records
/// that are being written are none. Blocking.
pub(super) fn inspect(folder: &Path) -> Result<(u64, u64), StoreError> {
    let (parts, _) = journal::parts(folder).map_err(failed("list", folder))?;
    let mut totals = (0_u64, 0_u64);
    for part in parts {
        let kept = Kept {
            part,
            file: read(&part.path(folder), &mut |_| {})?,
            copy: read(&part.copy_path(folder), &mut |_| {})?,
            doubtful: None,
        };
        totals.0 = totals.0.saturating_add(kept.stretches());
        totals.1 = totals.1.saturating_add(kept.file.scan.bytes);
        totals.1 = totals.1.saturating_add(kept.copy.scan.bytes);
    }
    Ok(totals)
}

/// The journal file that a start begins.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its number.
    pub(super) number: u64,
    /// `None` when the disk refused it.
    pub(super) journal: Option<Journal>,
    /// Damaged places found in the journal's files.
    pub(super) damaged: u64,
    /// The newest sequence of any record, also of those that were not handed on.
    pub(super) newest: Sequence,
}

fn begin(folder: &Path, number: u64, damaged: u64, newest: Sequence, table: &mut Table) -> Begun {
    let journal = match Journal::create(folder, number, table.next_pack()) {
        Ok(journal) => {
            table.journal.current = journal.bytes();
            Some(journal)
        }
        Err(error) => {
            let reason: Arc<str> = format!("beginning a journal: {error}").into();
            tracing::warn!(%reason, "the store passes through");
            table.set_condition(Condition::PassThrough(reason), is_full(&error));
            None
        }
    };
    Begun {
        number,
        journal,
        damaged,
        newest,
    }
}

/// A file as it was read first.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// What was in it.
    scan: Scan,
    /// There is no such file.
    missing: bool,
}

/// A journal file that counts, and its copy.
#[derive(Clone, Copy, Debug)]
struct Kept {
    part: Part,
    file: Seen,
    copy: Seen,
    /// Nobody knows which purges it held: everything older than this is purged.
    doubtful: Option<Sequence>,
}

impl Kept {
    /// Reads both and notes what they say about packs and purges.
    fn read(folder: &Path, part: Part, found: &mut Packs) -> Result<Self, StoreError> {
        let file = read(&part.path(folder), &mut |line| found.note(&line))?;
        let copy = read(&part.copy_path(folder), &mut |line| {
            if let Line::Record(Record::Purge { .. }) = line {
                found.note(&line);
            }
        })?;
        found.note_scan(file.scan);
        let mut kept = Self {
            part,
            file,
            copy,
            doubtful: None,
        };
        if kept.is_doubtful() {
            tracing::warn!(
                path = %part.path(folder).display(),
                "a journal file and its copy are damaged; what is older is purged"
            );
            kept.doubtful = Some(found.purge_all());
        }
        Ok(kept)
    }

    /// Is it a journal that nothing was written to?
    fn is_empty(&self) -> bool {
        let clean =
            self.file.scan.damaged == 0 && (self.copy.scan.damaged == 0 || self.copy.missing);
        let records = self
            .file
            .scan
            .records
            .saturating_add(self.copy.scan.records);
        clean && records == 0 && matches!(self.part, Part::Journal(_))
    }

    fn is_doubtful(&self) -> bool {
        // What a kill cuts short was not answered yet: a cut end alone has lost no purge. A copy
        // begins before its file, so that a kill leaves none without its header.
        let headless = self.copy.scan.bytes < HEADER_BYTES;
        let copy_is_sound = !headless && !self.copy.missing && self.copy.scan.stretches == 0;
        !self.file.missing && self.file.scan.stretches > 0 && !copy_is_sound
            || self.file.missing && !self.copy.missing && self.copy.scan.stretches > 0
    }

    /// Damaged places. That an older larder wrote no copy is no damage.
    fn stretches(&self) -> u64 {
        let copy = if self.copy.missing {
            0
        } else {
            self.copy.scan.stretches
        };
        self.file.scan.stretches.saturating_add(copy)
    }

    /// Hands on its puts and purges, and those of the copy where it is damaged: there they may come
    /// twice. What was removed is known by now.
    fn hand_on(&self, folder: &Path, each: &mut dyn FnMut(Record)) -> Result<(), StoreError> {
        let mut records = |line| match line {
            Line::Record(Record::Remove(_)) | Line::Dropped(_) | Line::Sealed(..) => {}
            Line::Record(record) => each(record),
        };
        let again = read(&self.part.path(folder), &mut records)?;
        if again.scan.damaged > 0 {
            read(&self.part.copy_path(folder), &mut records)?;
        }
        if let Some(sequence) = self.doubtful {
            each(Record::Purge {
                mark: Mark::hard(sequence, SystemTime::UNIX_EPOCH),
                selector: Selector::All,
            });
        }
        Ok(())
    }
}

/// Reads one file. What the disk has lost counts as damaged; what it may give another time is an
/// error, for a start without it would give up all that it names.
fn read(path: &Path, each: &mut dyn FnMut(Line)) -> Result<Seen, StoreError> {
    let scanned = File::open(path).and_then(|mut file| journal::scan(&mut file, each));
    let scan = match scanned {
        Ok(scan) => scan,
        Err(error) => {
            let missing = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
            );
            if !missing && !is_damage(&error) {
                return Err(failed("read", path)(error));
            }
            if !missing {
                tracing::warn!(path = %path.display(), %error, "could not read a journal file");
            }
            let scan = Scan {
                damaged: 1,
                stretches: 1,
                ..Scan::default()
            };
            return Ok(Seen { scan, missing });
        }
    };
    if scan.damaged > 0 {
        tracing::warn!(
            path = %path.display(),
            damaged_bytes = scan.damaged,
            records = scan.records,
            "skipped damage in a journal file"
        );
    }
    Ok(Seen {
        scan,
        missing: false,
    })
}

/// Deletes snapshots whose writing was cut short.
fn sweep_unfinished(folder: &Path) {
    let Ok(entries) = files::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let lonely = |end: &OsStr| end == "marks" && !path.with_extension("snapshot").exists();
        if path
            .extension()
            .is_some_and(|end| end == "new" || lonely(end))
        {
            drop(files::remove_file(&path));
        }
    }
}

/// All the places a put names.
pub(super) fn places(put: &Put) -> impl Iterator<Item = Location> + '_ {
    std::iter::once(put.head).chain(put.parts.locations())
}

fn lies_in_all(packs: &HashMap<PackId, Sealed>, put: &Put) -> bool {
    places(put).all(|place| lies_in(packs, place))
}

fn lies_in(packs: &HashMap<PackId, Sealed>, place: Location) -> bool {
    let end = place.offset.checked_add(place.bytes);
    packs
        .get(&place.pack)
        .zip(end)
        .is_some_and(|(sealed, end)| end <= sealed.bytes)
}

fn drop_unnamed(
    contents: &Contents,
    packs: &mut HashMap<PackId, Sealed>,
    named: impl Fn(PackId) -> bool,
) {
    packs.retain(|pack, sealed| {
        let keep = named(*pack) || contents.remove(sealed.address).is_err();
        if !keep {
            tracing::debug!(pack = pack.0, "dropped a pack that nothing names");
        }
        keep
    });
}

/// What the journal says about packs, and about what is no longer needed of them.
#[derive(Debug, Default)]
pub(super) struct Packs {
    puts: u32,
    /// No put of such a sequence comes after its removal, so the order does not count.
    removed: HashSet<Sequence>,
    /// The newest sequence of any record.
    pub(super) newest: Sequence,
    purged_all: Sequence,
    purged_urls: HashMap<PrimaryKey, Sequence>,
    sealed: HashMap<PackId, (Address, u32)>,
    dropped: HashSet<PackId>,
    pub(super) next_pack: u32,
}

impl Packs {
    pub(super) fn note(&mut self, line: &Line) {
        if let Line::Record(
            Record::Put(Put { sequence, .. })
            | Record::Remove(sequence)
            | Record::Purge {
                mark: Mark { sequence, .. },
                ..
            },
        ) = line
        {
            self.newest = self.newest.max(*sequence);
        }
        match line {
            Line::Dropped(pack) => {
                self.note_number(*pack);
                self.dropped.insert(*pack);
            }
            Line::Sealed(pack, address, bytes) => {
                self.note_number(*pack);
                self.sealed.insert(*pack, (*address, *bytes));
            }
            // Also packs that were never sealed: their numbers must not come again, or this put
            // would name another pack's bytes.
            Line::Record(Record::Put(put)) => {
                self.puts = self.puts.saturating_add(1);
                places(put).for_each(|place| self.note_number(place.pack));
            }
            Line::Record(Record::Remove(sequence)) => {
                self.removed.insert(*sequence);
            }
            // What is stale stays.
            Line::Record(Record::Purge { mark, .. }) if mark.soft => {}
            Line::Record(Record::Purge { mark, selector }) => match selector {
                Selector::All => self.purged_all = self.purged_all.max(mark.sequence),
                // What these cover only heads say: it stays, and is found out.
                Selector::Prefix(_)
                | Selector::Regex(..)
                | Selector::Site(_)
                | Selector::Tag(..) => {}
                Selector::Url(key) => {
                    let newest = self.purged_urls.entry(*key).or_default();
                    *newest = (*newest).max(mark.sequence);
                }
            },
        }
    }

    /// Purges everything noted so far; answers the purge's sequence.
    fn purge_all(&mut self) -> Sequence {
        self.newest = Sequence(self.newest.0.saturating_add(1));
        self.purged_all = self.newest;
        self.newest
    }

    /// Is a record to be handed on? Then the packs of a put that no purge covers are `named`.
    pub(super) fn passes(
        &self,
        packs: &HashMap<PackId, Sealed>,
        record: &Record,
        named: &mut HashSet<PackId>,
    ) -> bool {
        let Record::Put(put) = record else {
            return true;
        };
        if self.removed.contains(&put.sequence) || !lies_in_all(packs, put) {
            return false;
        }
        if !self.is_purged(put) {
            named.extend(places(put).map(|place| place.pack));
        }
        true
    }

    fn is_purged(&self, put: &Put) -> bool {
        let purged = self.purged_urls.get(&put.key).copied();
        put.sequence < purged.unwrap_or_default().max(self.purged_all)
    }

    fn note_number(&mut self, pack: PackId) {
        self.next_pack = self.next_pack.max(pack.0.saturating_add(1));
    }

    fn note_scan(&mut self, scan: Scan) {
        self.next_pack = self.next_pack.max(scan.next_pack);
        if scan.damaged > 0 {
            // The damaged records may have named higher numbers; far fewer than these.
            self.next_pack = self.next_pack.saturating_add(DAMAGE_NUMBERS);
            self.newest = Sequence(self.newest.0.saturating_add(DAMAGE_SEQUENCES));
        }
    }

    /// Those that were not dropped: number, address and length.
    pub(super) fn alive(&self) -> impl Iterator<Item = (PackId, Address, u32)> + '_ {
        self.sealed
            .iter()
            .filter(|(pack, _)| !self.dropped.contains(*pack))
            .map(|(pack, (address, bytes))| (*pack, *address, *bytes))
    }

    /// Those that are on disk, as long as they were written. All other contents are deleted.
    fn on_disk(&self, contents: &Contents) -> Result<HashMap<PackId, Sealed>, StoreError> {
        let alive = self.alive();
        let known = alive.map(|(pack, address, _)| (address, pack)).collect();
        let mut found = contents
            .sweep(&known)
            .map_err(failed("list", &contents.folder()))?;
        found.retain(|pack, sealed| {
            let expected = self.sealed.get(pack).map(|(_, bytes)| *bytes);
            let whole = expected == Some(sealed.bytes);
            if !whole {
                tracing::warn!(
                    pack = pack.0,
                    bytes = sealed.bytes,
                    expected,
                    "dropped a pack of the wrong length"
                );
            }
            whole || contents.remove(sealed.address).is_err()
        });
        Ok(found)
    }
}

const HEADER_BYTES: u64 = journal::HEADER_BYTES as u64;
const DAMAGE_NUMBERS: u32 = 1 << 16;
const DAMAGE_SEQUENCES: u64 = 1 << 32;
