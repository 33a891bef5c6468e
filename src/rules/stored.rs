//! A stored response without its body: everything a hit needs, computed once when it was stored.

use super::address::Digest;
use super::address::Location;
use super::address::Segment;
use super::address::Sequence;
use super::freshness::Timing;
use super::key::PrimaryKey;
use super::key::VariantKey;
use super::validation::Validators;
use http::HeaderMap;
use http::HeaderName;
use http::StatusCode;
use std::time::Duration;

/// The head of a stored response and the verdicts reached about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The key it answers (RFC 9111 §2).
    pub key: PrimaryKey,
    /// Which variant of that key it is (RFC 9111 §4.1).
    pub variant: VariantKey,
    /// The fields its `Vary` named, lower case, sorted, without repeats; empty when it had none.
    pub vary: Vec<HeaderName>,
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end fields, in order, repeats kept; without Age, hop-by-hop and
    /// Connection-named fields and Content-Length.
    pub headers: HeaderMap,
    /// When it travelled.
    pub timing: Timing,
    /// The freshness lifetime it was granted (RFC 9111 §4.2.1, §4.2.2).
    pub lifetime: Duration,
    /// How long past its freshness it may still be served.
    pub stale: StaleWindow,
    /// It must be validated before each use (`no-cache` without field names).
    pub validate_always: bool,
    /// It must not be served stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub must_revalidate: bool,
    /// What lets the origin recognise it.
    pub validators: Option<Validators>,
    /// The length of its body.
    pub body_bytes: u64,
    /// The name of its body.
    pub body: Digest,
}

/// How long past its freshness a response may still be served (RFC 5861).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleWindow {
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub while_revalidate: Duration,
    /// `stale-if-error` (RFC 5861 §4).
    pub if_error: Duration,
}

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
