//! Which backend of an upstream takes the next request.

/// Picks by round robin among the usable backends, given a ticket that grows by one a request.
/// `usable[i]` says whether backend `i` may be asked. `None` when none may.
pub fn round_robin(_ticket: u64, _usable: &[bool]) -> Option<usize> {
    todo!()
}
