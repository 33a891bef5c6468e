//! A stored response's head as bytes: versioned, bound to its entry, BLAKE3-checked.

use crate::rules::address::Sequence;
use crate::rules::stored::StoredResponse;
use bytes::Bytes;

/// Encodes a head for the pack.
pub fn encode(_sequence: Sequence, _response: &StoredResponse) -> Bytes {
    todo!()
}

/// Decodes and checks a head. `None` when any bit of it is not as it was written, or it is of
/// another version.
pub fn decode(_bytes: &[u8]) -> Option<(Sequence, StoredResponse)> {
    todo!()
}
