//! Packs: many segments in one cacache content. The only file that names cacache.
//!
//! ```text
//! magic 12 │ version 4 │ nonce 16 │ pieces, back to back │ table of pieces │ trailer 28
//! ```
//!
//! A pack grows in memory as a [`Builder`], is written once and in one go, and never changes
//! again. The nonce makes every pack's content its own, so no two share an address. The trailer
//! says which pack this is: a file in another's place is found out. What the pieces hold is
//! checked by those who know their digests.

use super::NewPiece;
use super::Piece;
use super::codec::Cursor;
use super::codec::length;
use super::files;
use super::files::File;
use super::files::Step;
use super::files::write_once;
use super::is_damage;
use super::lock;
use crate::rules::address::Digest;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::address::Sequence;
use crate::rules::key::PrimaryKey;
use bytes::Bytes;
use cacache::Algorithm;
use cacache::Integrity;
use cacache::WriteOpts;
use hashbrown::HashMap;
use std::fs;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

/// The longest pack file, in bytes: nonce, pieces, table and trailer.
pub(super) const PACK_BYTES_MAX: u32 = 8 << 20;

/// The length up to which packs grow in a small store.
pub const PACK_BYTES_MIN: u32 = 4 << 20;

/// The most that one append can hold, in bytes, counted by [`room_of`].
pub(super) const APPEND_BYTES_MAX: u64 = (PACK_BYTES_MIN as u64) - FRAME_BYTES;

/// Where the pieces of the first append begin.
pub(super) const HEADER_BYTES: u32 = 32;

/// Names a pack's file: the XXH3 (128 bits) of its content, as cacache computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address(pub(super) u128);

/// A pack in memory: it grows, and it can be read.
#[derive(Debug)]
pub(super) struct Builder {
    pack: PackId,
    bytes_max: u32,
    /// The bytes of the pieces, and where in the pack each part begins.
    parts: Vec<(u32, Part)>,
    /// The table's lines.
    table: Vec<u8>,
    count: u32,
    end: u32,
}

/// Some bytes of a pack in memory.
#[derive(Debug)]
enum Part {
    /// Small pieces, copied together: what they were made of is free again at once, and leaves no
    /// holes in the memory between what stays.
    Run(Vec<u8>),
    /// A large piece, as it was given.
    Whole(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Run(run) => run,
            Self::Whole(piece) => piece,
        }
    }
}

/// The bytes that `pieces` take in a pack, their lines in the table included.
pub(super) fn room_of(pieces: &[NewPiece]) -> u64 {
    let sizes = pieces.iter().map(|piece| match piece {
        NewPiece::Head(bytes) => (bytes.len(), HEAD_LINE_BYTES),
        NewPiece::Segment(_, bytes) => (bytes.len(), SEGMENT_LINE_BYTES),
    });
    sizes
        .map(|(bytes, line)| {
            u64::try_from(bytes)
                .unwrap_or(u64::MAX)
                .saturating_add(line.into())
        })
        .fold(0, u64::saturating_add)
}

impl Builder {
    /// Begins the pack numbered `pack`, of at most so many bytes.
    pub(super) fn new(pack: PackId, bytes_max: u32) -> Self {
        Self {
            pack,
            bytes_max,
            parts: Vec::new(),
            table: Vec::new(),
            count: 0,
            end: HEADER_BYTES,
        }
    }

    /// The length of the file it would become now.
    pub(super) fn file_bytes(&self) -> u32 {
        self.end
            .saturating_add(length(self.table.len()))
            .saturating_add(TRAILER_BYTES)
    }

    /// Will all of `pieces` fit?
    pub(super) fn fits(&self, pieces: &[NewPiece]) -> bool {
        room_of(pieces).saturating_add(self.file_bytes().into()) <= self.bytes_max.into()
    }

    /// Adds one piece and tells its place. `None`, and nothing added, when it does not fit.
    pub(super) fn push(
        &mut self,
        sequence: Sequence,
        key: PrimaryKey,
        piece: &NewPiece,
    ) -> Option<Location> {
        if !self.fits(std::slice::from_ref(piece)) {
            return None;
        }
        let (NewPiece::Head(bytes) | NewPiece::Segment(_, bytes)) = piece;
        let location = Location {
            pack: self.pack,
            offset: self.end,
            bytes: length(bytes.len()),
        };
        let line = match piece {
            NewPiece::Head(_) => Piece::Head {
                sequence,
                key,
                location,
            },
            NewPiece::Segment(digest, _) => Piece::Segment {
                digest: *digest,
                sequence,
                key,
                location,
            },
        };
        put_line(&mut self.table, &line);
        self.count = self.count.saturating_add(1);
        self.put(location.offset, bytes);
        self.end = self.end.saturating_add(location.bytes);
        Some(location)
    }

    fn put(&mut self, at: u32, bytes: &Bytes) {
        if bytes.len() >= WHOLE_BYTES {
            self.parts.push((at, Part::Whole(bytes.clone())));
            return;
        }
        match self.parts.last_mut() {
            Some((_, Part::Run(run)))
                if run.capacity().saturating_sub(run.len()) >= bytes.len() =>
            {
                run.extend_from_slice(bytes);
            }
            _ => {
                let mut run = Vec::with_capacity(RUN_BYTES);
                run.extend_from_slice(bytes);
                self.parts.push((at, Part::Run(run)));
            }
        }
    }

    /// Reads bytes back: a large piece as it was given, without a copy, all else copied together.
    pub(super) fn read(&self, location: Location) -> Option<Bytes> {
        let end = location.offset.checked_add(location.bytes)?;
        if location.offset < HEADER_BYTES || end > self.end {
            return None;
        }
        let first = self.parts.partition_point(|(at, part)| {
            at.saturating_add(length(part.bytes().len())) <= location.offset
                && *at < location.offset
        });
        let mut run = Vec::new();
        let mut wanted = location.bytes;
        let mut from = location.offset;
        for (at, part) in self.parts.get(first..)? {
            let skip = usize::try_from(from.checked_sub(*at)?).ok()?;
            let rest = part.bytes().len().checked_sub(skip)?;
            let take = rest.min(usize::try_from(wanted).ok()?);
            let range = skip..skip.checked_add(take)?;
            if let Part::Whole(piece) = part
                && take == usize::try_from(location.bytes).ok()?
            {
                return Some(piece.slice(range));
            }
            run.extend_from_slice(part.bytes().get(range)?);
            from = from.checked_add(length(take))?;
            wanted = wanted.checked_sub(length(take))?;
            if wanted == 0 {
                return Some(Bytes::from(run));
            }
        }
        // Only an empty run may begin where the last piece ends.
        (wanted == 0).then(|| Bytes::from(run))
    }

    /// What it holds.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut lines = Cursor::new(&self.table);
        std::iter::from_fn(|| line(&mut lines, self.pack, self.end)).collect()
    }

    fn header(&self) -> Vec<u8> {
        let chance = RandomState::new();
        let more = RandomState::new();
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&chance.hash_one(self.pack).to_le_bytes());
        out.extend_from_slice(&more.hash_one(self.pack).to_le_bytes());
        out
    }

    fn table(&self) -> Vec<u8> {
        let mut out = self.table.clone();
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.pack.0.to_le_bytes());
        let check = crc32fast::hash(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }
}

fn put_line(out: &mut Vec<u8>, piece: &Piece) {
    let (kind, sequence, key, location) = match piece {
        Piece::Head {
            sequence,
            key,
            location,
        } => (KIND_HEAD, sequence, key, location),
        Piece::Segment {
            sequence,
            key,
            location,
            ..
        } => (KIND_SEGMENT, sequence, key, location),
    };
    out.push(kind);
    out.extend_from_slice(&sequence.0.to_le_bytes());
    out.extend_from_slice(&key.0);
    out.extend_from_slice(&location.offset.to_le_bytes());
    out.extend_from_slice(&location.bytes.to_le_bytes());
    if let Piece::Segment { digest, .. } = piece {
        out.extend_from_slice(&digest.0);
    }
}

/// Reads and checks the table and trailer of `file`, which should be `pack` and `file_bytes`
/// long. `Ok(None)` when it is not, or any bit of the table is not as it was written. Blocking.
pub(super) fn read_table(
    file: &File,
    pack: PackId,
    file_bytes: u32,
) -> io::Result<Option<Vec<Piece>>> {
    let Some(trailer_at) = file_bytes.checked_sub(TRAILER_BYTES) else {
        return Ok(None);
    };
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact_at(&mut trailer, trailer_at.into())?;
    let mut cursor = Cursor::new(&trailer);
    let (Some(table_at), Some(_count), Some(id)) = (cursor.u32(), cursor.u32(), cursor.u32())
    else {
        return Ok(None);
    };
    let known = id == pack.0 && table_at >= HEADER_BYTES && file_bytes <= PACK_BYTES_MAX;
    let Some(table_bytes) = file_bytes.checked_sub(table_at).filter(|_| known) else {
        return Ok(None);
    };
    let mut table = vec![0; usize::try_from(table_bytes).unwrap_or(0)];
    file.read_exact_at(&mut table, table_at.into())?;
    Ok(parse_table(&table, pack, table_at))
}

/// Parses a table with its trailer: the file's bytes from `table_at` to the end.
fn parse_table(table: &[u8], pack: PackId, table_at: u32) -> Option<Vec<Piece>> {
    let (checked, rest) =
        table.split_at_checked(table.len().checked_sub(CHECK_AND_MAGIC_BYTES)?)?;
    let mut rest = Cursor::new(rest);
    if rest.u32()? != crc32fast::hash(checked) || rest.array()? != MAGIC {
        return None;
    }
    let (lines, sums) = checked.split_at_checked(checked.len().checked_sub(SUMS_BYTES)?)?;
    let mut sums = Cursor::new(sums);
    let (end, count, id) = (sums.u32()?, sums.u32()?, sums.u32()?);
    if end != table_at || id != pack.0 {
        return None;
    }
    let mut lines = Cursor::new(lines);
    let pieces: Option<Vec<Piece>> = (0..count).map(|_| line(&mut lines, pack, end)).collect();
    pieces.filter(|_| lines.is_empty())
}

fn line(cursor: &mut Cursor<'_>, pack: PackId, end: u32) -> Option<Piece> {
    let kind = cursor.u8()?;
    let sequence = Sequence(cursor.u64()?);
    let key = PrimaryKey(cursor.array()?);
    let location = Location {
        pack,
        offset: cursor.u32()?,
        bytes: cursor.u32()?,
    };
    let inside = location.offset >= HEADER_BYTES
        && location
            .offset
            .checked_add(location.bytes)
            .is_some_and(|to| to <= end);
    match kind {
        _ if !inside => None,
        KIND_HEAD => Some(Piece::Head {
            sequence,
            key,
            location,
        }),
        KIND_SEGMENT => Some(Piece::Segment {
            digest: Digest(cursor.array()?),
            sequence,
            key,
            location,
        }),
        _ => None,
    }
}

/// A pack on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Its file's name.
    pub(super) address: Address,
    /// Its file's length.
    pub(super) bytes: u32,
    /// What it takes on disk, the folder it lies in included.
    pub(super) allocated: u32,
}

/// The pack files of one store. All methods block.
#[derive(Debug)]
pub(super) struct Contents {
    dir: PathBuf,
    /// Held while a file is put in place and while an empty folder is taken away: cacache makes
    /// the folder first and renames into it second.
    folders: Mutex<()>,
}

impl Contents {
    /// Names the contents below `dir`; touches nothing.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            folders: Mutex::new(()),
        }
    }

    /// Writes a pack, in one go, and says where it came to lie. After an error nothing of it is
    /// left.
    pub(super) fn write(&self, builder: &Builder) -> io::Result<Sealed> {
        files::meet(Step::Create, &self.dir)?;
        let mut writer = WriteOpts::new()
            .algorithm(Algorithm::Xxh3)
            .open_hash_sync(&self.dir)
            .map_err(into_io)?;
        write_once(&mut writer, &self.dir, &builder.header())?;
        for (_, part) in &builder.parts {
            write_once(&mut writer, &self.dir, part.bytes())?;
        }
        write_once(&mut writer, &self.dir, &builder.table())?;
        let integrity = {
            let _folders = lock(&self.folders);
            files::meet(Step::Rename, &self.dir)?;
            writer.commit().map_err(into_io)?
        };
        let (_, hex) = integrity.to_hex();
        let address = u128::from_str_radix(&hex, 16)
            .map(Address)
            .map_err(io::Error::other)?;
        let sealed = self.look(address)?;
        if sealed.bytes != builder.file_bytes() {
            self.remove(address)?;
            return Err(io::Error::other(
                "pack file has another length than was written",
            ));
        }
        Ok(sealed)
    }

    /// Opens a pack's file for reading.
    pub(super) fn open(&self, address: Address) -> io::Result<File> {
        File::open(&content_path(&self.dir, address))
    }

    /// Where a pack's file lies.
    pub(super) fn path(&self, address: Address) -> PathBuf {
        content_path(&self.dir, address)
    }

    /// Reads a whole pack's file and says whether every bit of it is as it was written.
    pub(super) fn is_intact(&self, sealed: Sealed) -> io::Result<bool> {
        let bytes = files::read(&content_path(&self.dir, sealed.address))?;
        let hex = format!("{:032x}", sealed.address.0);
        let name = Integrity::from_hex(hex, Algorithm::Xxh3).map_err(io::Error::other)?;
        Ok(name.check(&bytes).is_ok())
    }

    /// Looks at a pack's file without opening it.
    pub(super) fn look(&self, address: Address) -> io::Result<Sealed> {
        let metadata = files::look(&content_path(&self.dir, address))?;
        sealed_as(address, &metadata).ok_or_else(|| io::Error::other("not a pack file"))
    }

    /// Deletes a pack's file and the folders it leaves empty. A missing file is no error.
    pub(super) fn remove(&self, address: Address) -> io::Result<()> {
        let path = content_path(&self.dir, address);
        match files::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let _folders = lock(&self.folders);
        let emptied = path.ancestors().skip(1).take(2);
        for folder in emptied {
            // Fails when it is not empty, which is the question.
            if files::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Walks all content files: tells `known` ones' state and deletes the others, with the empty
    /// folders. What the disk has lost and what cannot be deleted is passed over; what it may tell
    /// another time is an error.
    pub(super) fn sweep(
        &self,
        known: &HashMap<Address, PackId>,
    ) -> io::Result<HashMap<PackId, Sealed>> {
        let mut found = HashMap::new();
        self.sweep_folder(&self.folder(), 0, known, &mut found)?;
        Ok(found)
    }

    /// Where all content files lie.
    pub(super) fn folder(&self) -> PathBuf {
        self.dir.join(CONTENT_FOLDER)
    }

    fn sweep_folder(
        &self,
        folder: &Path,
        depth: usize,
        known: &HashMap<Address, PackId>,
        found: &mut HashMap<PackId, Sealed>,
    ) -> io::Result<()> {
        for entry in unless_lost(files::read_dir(folder))?.into_iter().flatten() {
            let Some(path) = unless_lost(entry)?.map(|entry| entry.path()) else {
                continue;
            };
            let Some(metadata) = unless_lost(files::look(&path))? else {
                continue;
            };
            if metadata.is_dir() {
                // cacache makes three levels; deeper ones are nobody's.
                if depth < 3 {
                    self.sweep_folder(&path, depth.saturating_add(1), known, found)?;
                    drop(files::remove_dir(&path));
                }
                continue;
            }
            let address = address_of(&self.dir, &path);
            let pack = address.and_then(|address| Some((address, *known.get(&address)?)));
            let sealed = pack.and_then(|(address, _)| sealed_as(address, &metadata));
            if let (Some((_, pack)), Some(sealed)) = (pack, sealed) {
                found.insert(pack, sealed);
            } else if files::remove_file(&path).is_err() {
                tracing::warn!(path = %path.display(), "could not delete an unknown content");
            }
        }
        Ok(())
    }
}

/// `None` for what is not there or what the disk has lost.
fn unless_lost<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sealed_as(address: Address, metadata: &fs::Metadata) -> Option<Sealed> {
    let bytes = u32::try_from(metadata.len()).ok()?;
    if !metadata.is_file() {
        return None;
    }
    // Some file systems report fewer blocks before they write; those must not make room.
    let blocks = metadata.blocks().saturating_mul(512);
    let allocated = blocks
        .max(rounded(bytes.into()))
        .saturating_add(FOLDER_BYTES);
    Some(Sealed {
        address,
        bytes,
        allocated: u32::try_from(allocated).unwrap_or(u32::MAX),
    })
}

/// The room to set aside for a pack's file of `file_bytes` before it is written.
pub(super) fn reserve_for(file_bytes: u32) -> u64 {
    rounded(file_bytes.into()).saturating_add(2 * FOLDER_BYTES)
}

/// `bytes` rounded up to whole blocks of a file system.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// The path of a content in cacache's `content-v2` layout: two folders of one byte each, in hex,
/// so that no folder grows long.
fn content_path(dir: &Path, address: Address) -> PathBuf {
    let hex = format!("{:032x}", address.0);
    let (first, rest) = hex.split_at_checked(2).unwrap_or_default();
    let (second, rest) = rest.split_at_checked(2).unwrap_or_default();
    let algorithm = dir.join(CONTENT_FOLDER).join("xxh3");
    algorithm.join(first).join(second).join(rest)
}

/// The address whose path this is.
fn address_of(dir: &Path, path: &Path) -> Option<Address> {
    let names = path
        .strip_prefix(dir.join(CONTENT_FOLDER).join("xxh3"))
        .ok()?;
    let mut hex = String::new();
    for name in names.components() {
        hex.push_str(name.as_os_str().to_str()?);
    }
    let address = Address(u128::from_str_radix(&hex, 16).ok()?);
    (content_path(dir, address) == path).then_some(address)
}

fn into_io(error: cacache::Error) -> io::Error {
    match error {
        cacache::Error::IoError(source, _) => source,
        other @ (cacache::Error::EntryNotFound(..)
        | cacache::Error::SizeMismatch(..)
        | cacache::Error::SerdeError(..)
        | cacache::Error::IntegrityError(_)) => io::Error::other(other.to_string()),
    }
}

/// The folder in which cacache keeps contents.
pub(super) const CONTENT_FOLDER: &str = "content-v2";
/// What a folder takes on disk.
pub(super) const FOLDER_BYTES: u64 = 4096;

const BLOCK_BYTES: u64 = 4096;
const MAGIC: [u8; 12] = *b"larder-pack\n";
const VERSION: u32 = 1;
const KIND_HEAD: u8 = 1;
const KIND_SEGMENT: u8 = 2;
const HEAD_LINE_BYTES: u32 = 33;
const SEGMENT_LINE_BYTES: u32 = 65;
const SUMS_BYTES: usize = 12;
const CHECK_AND_MAGIC_BYTES: usize = 16;
const TRAILER_BYTES: u32 = 28;
const FRAME_BYTES: u64 = (HEADER_BYTES + TRAILER_BYTES) as u64;
/// Smaller pieces are copied together.
const WHOLE_BYTES: usize = 64 << 10;
const RUN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const KEY: PrimaryKey = PrimaryKey([3; 16]);

    fn segment(bytes: &'static [u8]) -> NewPiece {
        NewPiece::Segment(Digest::of(bytes), Bytes::from_static(bytes))
    }

    fn built() -> (Builder, Vec<Location>) {
        let mut builder = Builder::new(PackId(5), PACK_BYTES_MIN);
        let pieces = [
            NewPiece::Head(Bytes::from_static(b"head")),
            segment(b"one"),
            segment(b""),
            segment(b"three"),
        ];
        let places = pieces
            .iter()
            .map(|piece| builder.push(Sequence(8), KEY, piece).unwrap())
            .collect();
        (builder, places)
    }

    #[test]
    fn a_content_lies_where_cacache_puts_it() {
        let dir = tempfile::tempdir().unwrap();
        let integrity = WriteOpts::new().algorithm(Algorithm::Xxh3);
        let mut writer = integrity.open_hash_sync(dir.path()).unwrap();
        writer.write_all(b"some bytes").unwrap();
        let (_, hex) = writer.commit().unwrap().to_hex();
        let address = Address(u128::from_str_radix(&hex, 16).unwrap());
        let path = content_path(dir.path(), address);
        assert_eq!(fs::read(&path).unwrap(), b"some bytes");
        assert_eq!(address_of(dir.path(), &path), Some(address));
    }

    #[test]
    fn an_address_with_leading_zeroes_keeps_its_length() {
        let path = content_path(Path::new("/x"), Address(0xab));
        let expected = "/x/content-v2/xxh3/00/00/000000000000000000000000".to_owned() + "00ab";
        assert_eq!(path, Path::new(&expected));
    }

    #[test]
    fn a_builder_reads_back_pieces_and_runs_over_them() {
        let (builder, places) = built();
        let texts: Vec<_> = places.iter().map(|at| builder.read(*at).unwrap()).collect();
        assert_eq!(texts, ["head", "one", "", "three"]);
        let run = |offset, bytes| {
            builder.read(Location {
                pack: PackId(5),
                offset,
                bytes,
            })
        };
        assert_eq!(run(HEADER_BYTES, 12).unwrap(), "headonethree");
        assert_eq!(run(HEADER_BYTES + 2, 4).unwrap(), "adon");
        assert_eq!(run(HEADER_BYTES + 12, 0).unwrap(), "");
        assert_eq!(run(HEADER_BYTES, 13), None);
        assert_eq!(run(HEADER_BYTES - 1, 2), None);
        assert_eq!(run(u32::MAX, 2), None);
    }

    #[test]
    fn a_written_pack_holds_its_pieces_and_their_table() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path());
        let (builder, places) = built();
        let sealed = contents.write(&builder).unwrap();
        assert_eq!(sealed.bytes, builder.file_bytes());
        let file = contents.open(sealed.address).unwrap();
        for place in places {
            let mut bytes = vec![0; place.bytes as usize];
            file.read_exact_at(&mut bytes, place.offset.into()).unwrap();
            assert_eq!(builder.read(place).unwrap(), bytes);
        }
        let table = read_table(&file, PackId(5), sealed.bytes).unwrap();
        assert_eq!(table.as_deref(), Some(builder.pieces().as_slice()));
        assert_eq!(read_table(&file, PackId(6), sealed.bytes).unwrap(), None);
    }

    #[test]
    fn equal_packs_have_addresses_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path());
        let (builder, _) = built();
        let first = contents.write(&builder).unwrap();
        let second = contents.write(&builder).unwrap();
        assert_ne!(first.address, second.address);
    }

    #[test]
    fn a_removed_pack_leaves_no_folder_behind() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path());
        let sealed = contents.write(&built().0).unwrap();
        contents.remove(sealed.address).unwrap();
        contents.remove(sealed.address).unwrap();
        let xxh3 = dir.path().join("content-v2/xxh3");
        assert_eq!(fs::read_dir(xxh3).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_keeps_what_is_known_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let contents = Contents::new(dir.path());
        let kept = contents.write(&built().0).unwrap();
        let gone = contents.write(&built().0).unwrap();
        fs::write(dir.path().join("content-v2/stray"), b"x").unwrap();
        let found = contents
            .sweep(&HashMap::from([(kept.address, PackId(5))]))
            .unwrap();
        assert_eq!(found, HashMap::from([(PackId(5), kept)]));
        assert!(contents.open(gone.address).is_err());
        assert!(!dir.path().join("content-v2/stray").exists());
    }

    #[test]
    fn a_pack_is_never_longer_than_its_bound() {
        let mut builder = Builder::new(PackId(0), PACK_BYTES_MIN);
        let large = NewPiece::Head(Bytes::from(vec![0; 1_000_000]));
        while builder.push(Sequence(0), KEY, &large).is_some() {}
        let small = NewPiece::Head(Bytes::from_static(b"0123456"));
        while builder.push(Sequence(0), KEY, &small).is_some() {}
        assert!(builder.file_bytes() <= PACK_BYTES_MIN);
        assert!(builder.file_bytes() > PACK_BYTES_MIN - 40);
        let dir = tempfile::tempdir().unwrap();
        let sealed = Contents::new(dir.path()).write(&builder).unwrap();
        assert_eq!(sealed.bytes, builder.file_bytes());
    }

    #[test]
    fn the_longest_append_fits_into_an_empty_pack() {
        let bytes = usize::try_from(APPEND_BYTES_MAX).unwrap() - HEAD_LINE_BYTES as usize;
        let fits = [NewPiece::Head(Bytes::from(vec![0; bytes]))];
        let over = [NewPiece::Head(Bytes::from(vec![0; bytes + 1]))];
        assert!(Builder::new(PackId(0), PACK_BYTES_MIN).fits(&fits));
        assert!(!Builder::new(PackId(0), PACK_BYTES_MIN).fits(&over));
    }

    #[test]
    fn every_changed_bit_of_a_table_is_found() {
        let (builder, _) = built();
        let table = builder.table();
        let parsed = parse_table(&table, PackId(5), builder.end);
        assert_eq!(parsed.as_deref(), Some(builder.pieces().as_slice()));
        for at in 0..table.len() {
            let mut changed = table.clone();
            changed[at] ^= 4;
            assert_eq!(parse_table(&changed, PackId(5), builder.end), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_table_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<u32>(),
        ) {
            prop_assert_eq!(parse_table(&bytes, PackId(1), at), None);
        }
    }
}
