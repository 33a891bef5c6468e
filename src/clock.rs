//! Where time comes from: the only file that reads it.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads time"
)]

use std::time::Instant;
use std::time::SystemTime;

/// Returns the wall clock's time.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the time that never steps back, for measuring how long something took.
pub fn instant() -> Instant {
    Instant::now()
}
