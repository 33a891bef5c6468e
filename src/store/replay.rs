//! What a start finds: reads the journal, keeps what is whole, and sweeps away the rest.
//!
//! Twice over the files: first for packs, because a pack may be dropped long after the puts that
//! name it; then for records, of which those are handed on whose packs are all there.

use super::Condition;
use super::Heir;
use super::Put;
use super::Record;
use super::StoreError;
use super::folder::Folder;
use super::folder::failed;
use super::folder::is_full;
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
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use hashbrown::HashMap;
use hashbrown::HashSet;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

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
        drop(fs::remove_file(part.path(&path)));
    }
    let mut found = Packs::default();
    let mut kept = Vec::new();
    for part in &parts {
        let (bytes, scan) = read(&path, *part, &mut |line| found.note(&line));
        found.note_scan(scan);
        let empty = scan.records == 0 && matches!(part, Part::Journal(_));
        if !(empty && fs::remove_file(part.path(&path)).is_ok()) {
            kept.push((*part, bytes));
        }
    }
    let mut packs = found.on_disk(contents);
    heir.expect(
        found
            .puts
            .saturating_sub(found.removed.len().try_into().unwrap_or(0)),
    );
    let mut named = HashSet::new();
    for (part, _) in &kept {
        read_again(&path, *part, &mut |record| {
            if let Record::Put(put) = &record {
                if found.removed.contains(&put.sequence) || !lies_in_all(&packs, put) {
                    return;
                }
                if !found.is_purged(put) {
                    named.extend(places(put).map(|place| place.pack));
                }
            }
            heir.take(record);
        });
    }
    drop_unnamed(contents, &mut packs, &named);
    let newest = parts
        .iter()
        .chain(&outdated)
        .map(|part| part.number())
        .max();
    let number = newest.map_or(1, |newest| newest.saturating_add(1));
    let mut table = Table::new(packs, found.next_pack, disk_bytes_max);
    table.journal.parts = kept.len();
    for (part, bytes) in kept {
        match part {
            Part::Journal(_) => {
                let earlier = &mut table.journal.earlier;
                *earlier = earlier.saturating_add(rounded(bytes));
            }
            Part::Snapshot(_) => table.journal.snapshot = bytes,
        }
    }
    let begun = begin(&path, number, &mut table);
    Ok((table, begun))
}

/// The journal file that a start begins.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its number.
    pub(super) number: u64,
    /// `None` when the disk refused it.
    pub(super) journal: Option<Journal>,
}

fn begin(folder: &Path, number: u64, table: &mut Table) -> Begun {
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
    Begun { number, journal }
}

/// Reads one file for its packs, and says how long it is. What cannot be read counts as empty.
fn read(folder: &Path, part: Part, each: &mut dyn FnMut(Line)) -> (u64, Scan) {
    let path = part.path(folder);
    let scanned = File::open(&path).and_then(|mut file| journal::scan(&mut file, each));
    let scan = match scanned {
        Ok(scan) => scan,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "could not read a journal file");
            // Not empty, so that it is left for someone to look at.
            let unread = Scan {
                records: 1,
                damaged: 1,
                ..Scan::default()
            };
            return (0, unread);
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
    (scan.bytes, scan)
}

fn read_again(folder: &Path, part: Part, each: &mut dyn FnMut(Record)) {
    let mut each_line = |line| match line {
        // What was removed is known by now.
        Line::Record(Record::Remove(_)) | Line::Dropped(_) | Line::Sealed(..) => {}
        Line::Record(record) => each(record),
    };
    let scanned =
        File::open(part.path(folder)).and_then(|mut file| journal::scan(&mut file, &mut each_line));
    // An error was told when it was read first.
    drop(scanned);
}

/// Deletes snapshots whose writing was cut short.
fn sweep_unfinished(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "new") {
            drop(fs::remove_file(path));
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

fn drop_unnamed(contents: &Contents, packs: &mut HashMap<PackId, Sealed>, named: &HashSet<PackId>) {
    packs.retain(|pack, sealed| {
        let keep = named.contains(pack) || contents.remove(sealed.address).is_err();
        if !keep {
            tracing::debug!(pack = pack.0, "dropped a pack that nothing names");
        }
        keep
    });
}

/// What the journal says about packs, and about what is no longer needed of them.
#[derive(Debug, Default)]
struct Packs {
    puts: u32,
    /// No put of such a sequence comes after its removal, so the order does not count.
    removed: HashSet<Sequence>,
    purged_all: Sequence,
    purged_urls: HashMap<PrimaryKey, Sequence>,
    sealed: HashMap<PackId, (Address, u32)>,
    dropped: HashSet<PackId>,
    next_pack: u32,
}

impl Packs {
    fn note(&mut self, line: &Line) {
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
            Line::Record(Record::Purge { sequence, selector }) => match selector {
                Selector::All => self.purged_all = self.purged_all.max(*sequence),
                // Which responses bear a tag only their heads say: they stay, and are found out.
                Selector::Tag(_) => {}
                Selector::Url(key) => {
                    let newest = self.purged_urls.entry(*key).or_default();
                    *newest = (*newest).max(*sequence);
                }
            },
        }
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
        }
    }

    /// Those that are on disk, as long as they were written. All other contents are deleted.
    fn on_disk(&self, contents: &Contents) -> HashMap<PackId, Sealed> {
        let alive = self
            .sealed
            .iter()
            .filter(|(pack, _)| !self.dropped.contains(*pack));
        let known = alive
            .map(|(pack, (address, _))| (*address, *pack))
            .collect();
        let mut found = contents.sweep(&known);
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
        found
    }
}

const DAMAGE_NUMBERS: u32 = 1 << 16;
