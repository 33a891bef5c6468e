//! What stored bytes are called and where they lie.
//!
//! A *digest* names bytes by their content; a *location* says where in which *pack* a copy of
//! them is. Both travel between the index, which remembers them, and the store, which obeys them.

use super::key::PrimaryKey;
use super::key::VariantKey;
use http::HeaderName;
use std::fmt;

/// The BLAKE3 digest that names a body or a segment by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Numbers the packs of one store; never reused, so an old location can never name a new pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub u32);

/// A run of bytes inside a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack that holds the bytes.
    pub pack: PackId,
    /// Bytes from the start of the pack.
    pub offset: u32,
    /// Length in bytes.
    pub bytes: u32,
}

/// A part of a body, at most [`SEGMENT_BYTES_MAX`] long, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Names the segment's bytes; checked before the first of them is served.
    pub digest: Digest,
    /// Where the bytes lie.
    pub location: Location,
}

/// Orders everything that happens to the store: each fill and each purge takes the next number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// A stored response and where its parts lie: what the index holds of it and the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Orders it among fills and purges; names the entry.
    pub sequence: Sequence,
    /// Its primary key.
    pub key: PrimaryKey,
    /// Its variant.
    pub variant: VariantKey,
    /// The field names its `Vary` listed, as in the head.
    pub vary: Vec<HeaderName>,
    /// Where its head lies.
    pub head: Location,
    /// The name of its body.
    pub body: Digest,
    /// The parts of its body, in order; none for an empty body.
    pub segments: Vec<Segment>,
    /// When it stops being useful: end of freshness and of every stale window, in seconds since
    /// the epoch.
    pub useless_at: u64,
}

/// The longest segment: what one read from disk brings in and verifies at once.
pub const SEGMENT_BYTES_MAX: usize = 1 << 20;
