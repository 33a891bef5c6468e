//! What stored bytes are called and where they lie.
//!
//! A *digest* names bytes by their content; a *location* says where in which *pack* a copy of
//! them is. Both travel between the index, which remembers them, and the store, which obeys them.

use super::key::PrimaryKey;
use super::key::VariantKey;
use super::tag::Signature;
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

    /// Its first half.
    pub fn name(&self) -> BodyName {
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.0;
        BodyName(half)
    }
}

/// Names a body by the first half of its digest.
///
/// Enough to find one like it: who makes two bodies of one name needs 2⁶⁴ tries, and harms only
/// these two, since what is read is checked against the whole digest in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyName(pub [u8; 16]);

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

impl Location {
    /// Does `other` begin where this ends?
    pub fn is_before(self, other: Self) -> bool {
        self.pack == other.pack && self.offset.checked_add(self.bytes) == Some(other.offset)
    }
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
    /// The bits of the names in its head.
    pub signature: Signature,
    /// The field names its `Vary` listed, as in the head.
    pub vary: Vec<HeaderName>,
    /// Where its head lies.
    pub head: Location,
    /// The name of its body.
    pub body: BodyName,
    /// The parts of its body.
    pub parts: Parts,
    /// When it stops being useful: end of freshness and of every stale window, in seconds since
    /// the epoch.
    pub useless_at: u64,
}

/// Where a body lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// It is empty.
    None,
    /// In one segment, whose digest is the body's: most bodies.
    One(Location),
    /// In segments, in order.
    Many(Vec<Segment>),
}

impl Parts {
    /// The places of all parts, in order.
    pub fn locations(&self) -> impl Iterator<Item = Location> + '_ {
        let (one, many) = match self {
            Self::None => (None, [].as_slice()),
            Self::One(location) => (Some(*location), [].as_slice()),
            Self::Many(segments) => (None, segments.as_slice()),
        };
        let many = many.iter().map(|segment| segment.location);
        one.into_iter().chain(many)
    }

    /// The parts of the body called `digest`, in order.
    pub fn segments(self, digest: Digest) -> Vec<Segment> {
        match self {
            Self::None => Vec::new(),
            Self::One(location) => vec![Segment { digest, location }],
            Self::Many(segments) => segments,
        }
    }

    /// As [`segments`](Self::segments) gave them.
    pub fn of(digest: Digest, segments: Vec<Segment>) -> Self {
        match segments.as_slice() {
            [] => Self::None,
            [one] if one.digest == digest => Self::One(one.location),
            _ => Self::Many(segments),
        }
    }
}

/// The longest segment: what one read from disk brings in and verifies at once.
pub const SEGMENT_BYTES_MAX: usize = 1 << 20;
