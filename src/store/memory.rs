//! The memory tier: hot heads and bodies, ready to serve, under a byte limit.

use crate::rules::address::Sequence;
use crate::rules::stored::StoredResponse;
use bytes::Bytes;
use std::sync::Arc;

/// A stored response in memory.
#[derive(Clone, Debug)]
pub struct Hot {
    /// Its head.
    pub response: Arc<StoredResponse>,
    /// Its whole body, when it is small enough to be kept in memory.
    pub body: Option<Bytes>,
}

/// Hot responses by the sequence that names their entry.
#[derive(Debug)]
pub struct Memory {}

impl Memory {
    /// Makes an empty tier of at most `bytes_max` bytes, heads and bookkeeping included.
    pub fn new(_bytes_max: u64) -> Self {
        todo!()
    }
    /// Finds a response; marks it as used.
    pub fn get(&self, _sequence: Sequence) -> Option<Hot> {
        todo!()
    }
    /// Keeps a response. A body over an eighth of the tier is left out.
    pub fn insert(&self, _sequence: Sequence, _hot: Hot) {
        todo!()
    }
    /// Forgets a response.
    pub fn remove(&self, _sequence: Sequence) {
        todo!()
    }
    /// Forgets everything.
    pub fn clear(&self) {
        todo!()
    }
    /// The largest body worth inserting, in bytes.
    pub fn body_bytes_max(&self) -> u64 {
        todo!()
    }
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
