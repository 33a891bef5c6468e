//! The journal: an append-only, checksummed log of what is stored, and its snapshot.
//!
//! ```text
//! file   magic 8 │ version 4 │ next pack 4 │ CRC-32 of these 4 │ records
//! record mark 2 │ length 4 │ CRC-32 of length and payload 4 │ payload: kind 1 │ fields
//! ```
//!
//! Journal `n` follows snapshot `n`, or journal `n - 1` where there is no such snapshot. What is
//! in them counts in this order. A record that fails its check is skipped: the next one is found
//! by its mark. Kinds of later versions are skipped by their length.
//!
//! Each file has a *copy* beside it, of the same form, with its purges alone, so that damage in one
//! of the two undoes none: `replay` says what is believed when both are damaged.

use super::Put;
use super::Record;
use super::StoreError;
use super::codec::Cursor;
use super::codec::length;
use super::codec::put_run;
use super::files;
use super::files::File;
use super::folder::failed;
use super::pack::Address;
use super::pack::rounded;
use crate::rules::address::BodyName;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Parts;
use crate::rules::address::Segment;
use crate::rules::address::Sequence;
use crate::rules::invalidate::Mark;
use crate::rules::invalidate::Selector;
use crate::rules::key::PrimaryKey;
use crate::rules::key::VariantKey;
use crate::rules::tag::Signature;
use http::HeaderName;
use std::io;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// What one record says: the caller's records, and the store's own about packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A pack is gone.
    Dropped(PackId),
    /// One of the caller's.
    Record(Record),
    /// A pack is on disk, at this address, this long.
    Sealed(PackId, Address, u32),
}

impl Line {
    /// Appends this line as one record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Dropped(pack) => frame(out, |out| {
                out.push(KIND_DROPPED);
                out.extend_from_slice(&pack.0.to_le_bytes());
            }),
            Self::Record(Record::Put(put)) => encode_put(put, out),
            Self::Record(Record::Remove(sequence)) => frame(out, |out| {
                out.push(KIND_REMOVE);
                out.extend_from_slice(&sequence.0.to_le_bytes());
            }),
            Self::Record(Record::Purge { mark, selector }) => frame(out, |out| {
                out.push(KIND_PURGE);
                out.extend_from_slice(&mark.sequence.0.to_le_bytes());
                out.extend_from_slice(&mark.micros().to_le_bytes());
                out.push(u8::from(mark.soft));
                selector.write(out);
            }),
            Self::Sealed(pack, address, bytes) => frame(out, |out| {
                out.push(KIND_SEALED);
                out.extend_from_slice(&pack.0.to_le_bytes());
                out.extend_from_slice(&address.0.to_le_bytes());
                out.extend_from_slice(&bytes.to_le_bytes());
            }),
        }
    }

    /// Reads a payload that passed its check. `None`: a kind or form of another version.
    fn decode(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let line = match cursor.u8()? {
            KIND_DROPPED => Self::Dropped(PackId(cursor.u32()?)),
            KIND_PURGE => Self::Record(Record::Purge {
                mark: Mark {
                    sequence: Sequence(cursor.u64()?),
                    at: Mark::time(cursor.u64()?),
                    soft: match cursor.u8()? {
                        0 => false,
                        1 => true,
                        _ => return None,
                    },
                },
                selector: cursor.read(Selector::read)?,
            }),
            KIND_PUT => Self::Record(Record::Put(decode_put(&mut cursor)?)),
            KIND_REMOVE => Self::Record(Record::Remove(Sequence(cursor.u64()?))),
            KIND_SEALED => Self::Sealed(
                PackId(cursor.u32()?),
                Address(cursor.u128()?),
                cursor.u32()?,
            ),
            _ => return None,
        };
        cursor.is_empty().then_some(line)
    }
}

/// Appends a put as one record, without taking it.
fn encode_put(put: &Put, out: &mut Vec<u8>) {
    frame(out, |out| {
        out.push(KIND_PUT);
        out.extend_from_slice(&put.sequence.0.to_le_bytes());
        out.extend_from_slice(&put.key.0);
        out.extend_from_slice(&put.variant.0.to_le_bytes());
        out.extend_from_slice(&put.signature.0.to_le_bytes());
        out.extend_from_slice(&put.body.0);
        out.extend_from_slice(&put.useless_at.to_le_bytes());
        put_place(out, put.head);
        out.extend_from_slice(&length(put.vary.len()).to_le_bytes());
        for name in &put.vary {
            put_run(out, name.as_str().as_bytes());
        }
        match &put.parts {
            Parts::None => out.push(PARTS_NONE),
            Parts::One(location) => {
                out.push(PARTS_ONE);
                put_place(out, *location);
            }
            Parts::Many(segments) => {
                out.push(PARTS_MANY);
                out.extend_from_slice(&length(segments.len()).to_le_bytes());
                for segment in segments {
                    out.extend_from_slice(&segment.digest.0);
                    put_place(out, segment.location);
                }
            }
        }
    });
}

/// The most that a put takes as a record, in bytes.
pub(super) fn put_bytes(put: &Put) -> u64 {
    let names: usize = put.vary.iter().map(|name| name.as_str().len() + 4).sum();
    let parts = match &put.parts {
        Parts::None => 1,
        Parts::One(_) => 13,
        Parts::Many(segments) => segments.len().saturating_mul(44).saturating_add(5),
    };
    let total = names.saturating_add(parts).saturating_add(91);
    total.try_into().unwrap_or(u64::MAX)
}

fn decode_put(cursor: &mut Cursor<'_>) -> Option<Put> {
    Some(Put {
        sequence: Sequence(cursor.u64()?),
        key: PrimaryKey(cursor.array()?),
        variant: VariantKey(cursor.u64()?),
        signature: Signature(cursor.u64()?),
        body: BodyName(cursor.array()?),
        useless_at: cursor.u64()?,
        head: place(cursor)?,
        vary: vary(cursor)?,
        parts: match cursor.u8()? {
            PARTS_NONE => Parts::None,
            PARTS_ONE => Parts::One(place(cursor)?),
            PARTS_MANY => Parts::Many(segments(cursor)?),
            _ => return None,
        },
    })
}

// Every name and segment takes bytes of its own, so a false count ends with the payload.

fn vary(cursor: &mut Cursor<'_>) -> Option<Vec<HeaderName>> {
    (0..cursor.u32()?)
        .map(|_| HeaderName::from_lowercase(cursor.run()?).ok())
        .collect()
}

fn segments(cursor: &mut Cursor<'_>) -> Option<Vec<Segment>> {
    (0..cursor.u32()?)
        .map(|_| {
            Some(Segment {
                digest: Digest(cursor.array()?),
                location: place(cursor)?,
            })
        })
        .collect()
}

fn put_place(out: &mut Vec<u8>, location: Location) {
    out.extend_from_slice(&location.pack.0.to_le_bytes());
    out.extend_from_slice(&location.offset.to_le_bytes());
    out.extend_from_slice(&location.bytes.to_le_bytes());
}

fn place(cursor: &mut Cursor<'_>) -> Option<Location> {
    Some(Location {
        pack: PackId(cursor.u32()?),
        offset: cursor.u32()?,
        bytes: cursor.u32()?,
    })
}

/// Writes one record round the payload that `fill` appends.
fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&MARK);
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    fill(out);
    let Some(record) = out.get_mut(start..) else {
        return;
    };
    let Some((sizes, payload)) = record.split_first_chunk_mut::<8>() else {
        return;
    };
    let count = length(payload.len()).to_le_bytes();
    let check = check(count, payload).to_le_bytes();
    let (first, second) = sizes.split_at_mut(4);
    first.copy_from_slice(&count);
    second.copy_from_slice(&check);
}

fn check(count: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&count);
    hasher.update(payload);
    hasher.finalize()
}

/// What reading a journal file came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Records that passed their check, of whatever kind.
    pub(super) records: u64,
    /// Bytes that no valid record covers, the header's among them when it is damaged.
    pub(super) damaged: u64,
    /// Runs of damage, the half record that a kill leaves at the end not among them.
    pub(super) stretches: u64,
    /// How long the file is.
    pub(super) bytes: u64,
    /// No pack before this one may be numbered anew; 0 when the header is damaged.
    pub(super) next_pack: u32,
}

/// Reads all lines of a journal file, skipping what is damaged, some at a time.
pub(super) fn scan(file: &mut impl Read, each: &mut dyn FnMut(Line)) -> io::Result<Scan> {
    let mut result = Scan::default();
    let mut blocks = Blocks::new(file);
    while blocks.rest().len() < HEADER_BYTES && blocks.more()? {}
    let begun = blocks.rest().len().min(HEADER_BYTES);
    match header(blocks.rest()) {
        Some(next_pack) => result.next_pack = next_pack,
        None => {
            result.damaged = count(begun);
            result.stretches = u64::from(begun >= HEADER_BYTES);
        }
    }
    blocks.skip(begun);
    // Whether what is being skipped could be a record whose end is missing, as a kill leaves it.
    let mut stretch: Option<bool> = None;
    while !blocks.rest().is_empty() || blocks.more()? {
        match blocks.record() {
            Next::Record(payload, whole) => {
                result.records = result.records.saturating_add(1);
                if let Some(line) = blocks.rest().get(payload).and_then(Line::decode) {
                    each(line);
                }
                blocks.skip(whole);
                let ended = u64::from(stretch.take().is_some());
                result.stretches = result.stretches.saturating_add(ended);
            }
            Next::Cut if blocks.more()? => {}
            next @ (Next::Cut | Next::Damage) => {
                stretch.get_or_insert(matches!(next, Next::Cut));
                let skipped = blocks.to_mark();
                result.damaged = result.damaged.saturating_add(count(skipped));
                blocks.skip(skipped);
            }
        }
    }
    let last = u64::from(stretch.is_some_and(|torn| !torn));
    result.stretches = result.stretches.saturating_add(last);
    result.bytes = blocks.bytes;
    Ok(result)
}

fn count(bytes: usize) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}

/// A file, as much of it as is looked at.
struct Blocks<'a, R> {
    file: &'a mut R,
    buffer: Vec<u8>,
    /// Where what is still to be looked at begins.
    at: usize,
    /// Bytes read so far.
    bytes: u64,
    /// Looking for the next record costs a checksum for each mark: bounded, for files made to harm,
    /// by what was read.
    budget: usize,
}

impl<'a, R: Read> Blocks<'a, R> {
    fn new(file: &'a mut R) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            at: 0,
            bytes: 0,
            budget: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.buffer.len());
    }

    /// Reads on; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let block = self.file.by_ref().take(BLOCK_BYTES);
        let read = { block }.read_to_end(&mut self.buffer)?;
        self.bytes = self.bytes.saturating_add(count(read));
        self.budget = self.budget.saturating_add(read.saturating_mul(4));
        Ok(read > 0)
    }

    fn record(&mut self) -> Next {
        let bytes = self.buffer.get(self.at..).unwrap_or_default();
        if !bytes.starts_with(&MARK) && !MARK.starts_with(bytes) {
            return Next::Damage;
        }
        let Some((frame, rest)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
            return Next::Cut;
        };
        let [_, _, count @ .., c, d, e, f] = *frame;
        let length = usize::try_from(u32::from_le_bytes(count)).unwrap_or(usize::MAX);
        if length > RECORD_BYTES_MAX {
            return Next::Damage;
        }
        let Some(payload) = rest.get(..length) else {
            return Next::Cut;
        };
        self.budget = self.budget.saturating_sub(length);
        let whole = FRAME_BYTES.saturating_add(length);
        if self.budget > 0 && check(count, payload) == u32::from_le_bytes([c, d, e, f]) {
            Next::Record(FRAME_BYTES..whole, whole)
        } else {
            Next::Damage
        }
    }

    /// How far it is to where the next record may begin.
    fn to_mark(&self) -> usize {
        let rest = self.rest();
        if self.budget == 0 {
            return rest.len();
        }
        let [first, _] = MARK;
        let next = rest.iter().skip(1).position(|byte| *byte == first);
        next.map_or(rest.len(), |at| at.saturating_add(1))
    }
}

fn header(bytes: &[u8]) -> Option<u32> {
    let (version, next_pack) = any_header(bytes)?;
    (version == VERSION).then_some(next_pack)
}

/// The version and the next pack's number of an intact header.
fn any_header(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let mut cursor = Cursor::new(header);
    let known = cursor.array::<8>()? == MAGIC;
    let (version, next_pack) = (cursor.u32()?, cursor.u32()?);
    let intact = cursor.u32()? == crc32fast::hash(header.get(..HEADER_BYTES - 4)?);
    (known && intact).then_some((version, next_pack))
}

/// Refuses a folder with a file or a copy of another version: read as damage, it would be replaced.
/// Blocking.
pub(super) fn check_versions(folder: &Path) -> Result<(), StoreError> {
    let (parts, _) = parts(folder).map_err(failed("list", folder))?;
    let paths = |part: &Part| [part.path(folder), part.copy_path(folder)];
    for path in parts.iter().flat_map(paths) {
        // One that cannot be read, or ends in its header, is dealt with as damage.
        let begin = File::open(&path).and_then(|file| file.read_start(HEADER_BYTES as u64));
        let version = begin.ok().and_then(|begin| any_header(&begin));
        if let Some((found, _)) = version.filter(|(version, _)| *version != VERSION) {
            return Err(StoreError::JournalVersion {
                path,
                found,
                expected: VERSION,
            });
        }
    }
    Ok(())
}

/// What begins with some bytes.
enum Next {
    /// A record: where its payload is, and how long it is altogether.
    Record(Range<usize>, usize),
    /// Something that may be a record, but ends too early.
    Cut,
    /// No record.
    Damage,
}

/// A file of the journal, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Everything alive when it was written. Comes before the journal of the same number.
    Snapshot(u64),
    /// What happened since.
    Journal(u64),
}

impl Part {
    /// Its number.
    pub(super) fn number(self) -> u64 {
        let (Self::Snapshot(number) | Self::Journal(number)) = self;
        number
    }

    /// Its path in the journal's folder.
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        match self {
            Self::Snapshot(number) => folder.join(format!("{number:016}.snapshot")),
            Self::Journal(number) => folder.join(format!("{number:016}.journal")),
        }
    }

    /// The path of its copy.
    pub(super) fn copy_path(self, folder: &Path) -> PathBuf {
        match self {
            Self::Snapshot(number) => folder.join(format!("{number:016}.marks")),
            Self::Journal(number) => folder.join(format!("{number:016}.purges")),
        }
    }

    /// Deletes it and its copy. Blocking.
    pub(super) fn delete(self, folder: &Path) -> io::Result<()> {
        for path in [self.path(folder), self.copy_path(folder)] {
            match files::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn of(path: &Path) -> Option<Self> {
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        match path.extension()?.to_str()? {
            // Its purges count also when the journal itself is gone.
            "journal" | "purges" => Some(Self::Journal(number)),
            "snapshot" => Some(Self::Snapshot(number)),
            _ => None,
        }
    }
}

/// The files in the journal's folder, in the order in which they count, from the newest snapshot
/// on, and those before it, which count no more. Blocking.
pub(super) fn parts(folder: &Path) -> io::Result<(Vec<Part>, Vec<Part>)> {
    let mut found = Vec::new();
    for entry in files::read_dir(folder)? {
        found.extend(Part::of(&entry?.path()));
    }
    found.sort_by_key(|part| (part.number(), *part));
    found.dedup();
    let newest = |part: &Part| matches!(part, Part::Snapshot(_));
    let first = found.iter().rposition(newest).unwrap_or(0);
    let counting = found.split_off(first);
    Ok((counting, found))
}

/// Deletes every file in the journal's folder that counts. Blocking.
pub(super) fn delete_all(folder: &Path) -> io::Result<()> {
    let (counting, outdated) = parts(folder)?;
    outdated
        .into_iter()
        .chain(counting)
        .try_for_each(|part| part.delete(folder))
}

/// The journal file that is being written, and its copy. All methods block.
#[derive(Debug)]
pub(super) struct Journal {
    file: Growing,
    copy: Growing,
}

#[derive(Debug)]
struct Growing {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Journal {
    /// Starts journal `number`. An earlier file of that name is an error.
    pub(super) fn create(folder: &Path, number: u64, next_pack: u32) -> io::Result<Self> {
        let part = Part::Journal(number);
        let copy = Growing::create(part.copy_path(folder), next_pack)?;
        match Growing::create(part.path(folder), next_pack) {
            Ok(file) => Ok(Self { file, copy }),
            Err(error) => {
                drop(files::remove_file(&copy.path));
                Err(error)
            }
        }
    }

    /// Its length, and the room of its copy.
    pub(super) fn bytes(&self) -> u64 {
        self.file.bytes.saturating_add(rounded(self.copy.bytes))
    }

    /// Does it hold no records?
    pub(super) fn is_empty(&self) -> bool {
        self.file.bytes <= u64::try_from(HEADER_BYTES).unwrap_or(0)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Appends whole records, and the purges among them to the copy first: of the two, a kill cuts
    /// only one short. After an error a file may end in half a record, which a start cuts; nothing
    /// more may be appended.
    pub(super) fn append(&mut self, records: &[u8], purges: &[u8]) -> io::Result<()> {
        if !purges.is_empty() {
            self.copy.append(purges)?;
        }
        self.file.append(records)
    }

    /// Waits until all that was appended is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.copy.file.sync_all()?;
        self.file.file.sync_all()
    }

    /// Are the files still where a start would look for them?
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_in_place() && self.copy.is_in_place()
    }
}

impl Growing {
    fn create(path: PathBuf, next_pack: u32) -> io::Result<Self> {
        let mut file = File::begin(&path)?;
        let header = new_header(next_pack);
        file.write_all(&header)?;
        let bytes = header.len().try_into().unwrap_or(u64::MAX);
        Ok(Self { file, path, bytes })
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        let more = u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    fn is_in_place(&self) -> bool {
        match (files::look(&self.path), self.file.metadata()) {
            (Ok(there), Ok(open)) => there.ino() == open.ino() && there.dev() == open.dev(),
            _ => false,
        }
    }
}

/// The first bytes of a journal or a snapshot.
pub(super) fn new_header(next_pack: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&next_pack.to_le_bytes());
    let check = crc32fast::hash(&out);
    out.extend_from_slice(&check.to_le_bytes());
    out
}

const MAGIC: [u8; 8] = *b"ldr-jrnl";
const VERSION: u32 = 2;
/// The length of a file without records.
pub(super) const HEADER_BYTES: usize = 20;
/// Two bytes that no text holds side by side.
const MARK: [u8; 2] = [0xf5, 0x1b];
/// Mark, length and check.
const FRAME_BYTES: usize = 10;
/// The put of a body of 256 GiB is shorter.
const RECORD_BYTES_MAX: usize = 16 << 20;
const BLOCK_BYTES: u64 = 1 << 20;
const KIND_REMOVE: u8 = 2;
const KIND_PURGE: u8 = 3;
const KIND_SEALED: u8 = 4;
const KIND_DROPPED: u8 = 5;
const KIND_PUT: u8 = 6;
const PARTS_NONE: u8 = 0;
const PARTS_ONE: u8 = 1;
const PARTS_MANY: u8 = 2;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rules::invalidate::Pattern;
    use crate::rules::tag::TagKey;
    use proptest::prelude::*;
    use std::fs;

    pub(in crate::store) fn put(sequence: u64, places: &[Location]) -> Put {
        let body = Digest::of(&sequence.to_le_bytes());
        let (head, segments) = places.split_first().unwrap();
        let segments = segments.iter().map(|location| Segment {
            digest: body,
            location: *location,
        });
        Put {
            sequence: Sequence(sequence),
            key: PrimaryKey([u8::try_from(sequence % 256).unwrap(); 16]),
            variant: VariantKey(sequence),
            signature: Signature(sequence),
            vary: vec![HeaderName::from_static("accept-encoding")],
            head: *head,
            body: body.name(),
            parts: Parts::of(body, segments.collect()),
            useless_at: 99,
        }
    }

    fn at(pack: u32) -> Location {
        Location {
            pack: PackId(pack),
            offset: 32,
            bytes: 7,
        }
    }

    fn purge(sequence: u64, soft: bool, selector: Selector) -> Line {
        Line::Record(Record::Purge {
            mark: Mark {
                sequence: Sequence(sequence),
                at: Mark::time(1_700_000_000_123_456),
                soft,
            },
            selector,
        })
    }

    fn lines() -> Vec<Line> {
        let large = put(2, &[at(1), at(2), at(3)]);
        vec![
            Line::Sealed(PackId(1), Address(u128::MAX - 5), 77),
            Line::Record(Record::Put(put(1, &[at(1), at(1)]))),
            Line::Record(Record::Put(large)),
            Line::Record(Record::Put(put(3, &[at(1)]))),
            Line::Record(Record::Remove(Sequence(1))),
            purge(4, false, Selector::All),
            purge(5, false, Selector::Url(PrimaryKey([9; 16]))),
            purge(8, true, Selector::Tag(None, TagKey([9; 16]))),
            purge(9, true, Selector::prefix("a.test/b").unwrap()),
            purge(9, false, Selector::Site(TagKey([7; 16]))),
            purge(
                10,
                false,
                Selector::Regex(Some(TagKey([7; 16])), Pattern::new("/a.*b$").unwrap()),
            ),
            Line::Dropped(PackId(1)),
        ]
    }

    /// A file of all lines, and where each record ends.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut out = new_header(12);
        let mut ends = vec![out.len()];
        for line in lines() {
            line.encode(&mut out);
            ends.push(out.len());
        }
        (out, ends)
    }

    fn read(bytes: &[u8]) -> (Vec<Line>, Scan) {
        let mut found = Vec::new();
        let scan = scan(&mut &*bytes, &mut |line| found.push(line)).unwrap();
        (found, scan)
    }

    #[test]
    fn every_line_comes_back_as_it_was() {
        let (found, scan) = read(&file().0);
        assert_eq!(found, lines());
        assert_eq!((scan.records, scan.damaged, scan.next_pack), (12, 0, 12));
    }

    #[test]
    fn a_put_takes_no_more_than_was_foreseen() {
        for line in lines() {
            let Line::Record(Record::Put(put)) = line else {
                continue;
            };
            let mut out = Vec::new();
            encode_put(&put, &mut out);
            assert!(out.len() as u64 <= put_bytes(&put));
        }
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let (bytes, ends) = file();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (found, _) = read(&bytes[..cut]);
            assert_eq!(found, lines()[..whole.saturating_sub(1)], "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_costs_at_most_its_own_record() {
        let (bytes, ends) = file();
        for at in ends[0]..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let hurt = ends.iter().filter(|end| **end <= at).count() - 1;
            let mut expected = lines();
            expected.remove(hurt);
            let (found, scan) = read(&changed);
            assert_eq!(found, expected, "byte {at}");
            assert!(scan.damaged > 0);
        }
    }

    #[test]
    fn a_damaged_header_costs_no_record() {
        let (bytes, ends) = file();
        for at in 0..ends[0] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let (found, scan) = read(&changed);
            assert_eq!(found, lines());
            assert_eq!(scan.next_pack, 0);
        }
    }

    #[test]
    fn an_unknown_kind_is_skipped() {
        let mut bytes = new_header(0);
        frame(&mut bytes, |out| out.extend_from_slice(&[200, 1, 2, 3]));
        Line::Dropped(PackId(3)).encode(&mut bytes);
        let (found, scan) = read(&bytes);
        assert_eq!(found, [Line::Dropped(PackId(3))]);
        assert_eq!((scan.records, scan.damaged), (2, 0));
    }

    #[test]
    fn a_file_full_of_false_marks_ends_soon() {
        let mut bytes = new_header(0);
        for _ in 0..200_000 {
            bytes.extend_from_slice(&MARK);
            bytes.extend_from_slice(&1_000_000_u32.to_le_bytes());
        }
        assert_eq!(read(&bytes).0, []);
    }

    #[test]
    fn parts_count_from_the_newest_snapshot_on() {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            Part::Journal(1),
            Part::Snapshot(2),
            Part::Journal(2),
            Part::Snapshot(3),
            Part::Journal(3),
            Part::Journal(4),
        ];
        for part in all {
            fs::write(part.path(dir.path()), b"").unwrap();
        }
        fs::write(dir.path().join("else"), b"").unwrap();
        let (counting, before) = parts(dir.path()).unwrap();
        assert_eq!(counting, all[3..]);
        assert_eq!(before, all[..3]);
    }

    #[test]
    fn a_journal_notices_that_it_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), 1, 0).unwrap();
        assert!(journal.is_in_place());
        fs::remove_file(journal.path()).unwrap();
        assert!(!journal.is_in_place());
        fs::write(journal.path(), b"").unwrap();
        assert!(!journal.is_in_place());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&bytes);
            let mut framed = new_header(1);
            frame(&mut framed, |out| out.append(&mut bytes));
            read(&framed);
        }
    }
}
