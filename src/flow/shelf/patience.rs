//! How long a fill waits for room, and what for.

use super::Shelf;
use std::time::Duration;
use tokio::time::timeout;

/// How long a fill waits for room before it gives up storing.
pub(super) struct Patience {
    /// Waits left for room on disk, which is made by evicting.
    room: u32,
    /// Waits left for the writing thread, which holds back an origin that is faster than the disk.
    writer: u32,
}

impl Patience {
    /// For a part of a body: the origin can wait for the disk.
    pub(super) fn for_part() -> Self {
        Self {
            room: ROOM_WAITS,
            writer: WRITER_WAITS,
        }
    }

    /// For a whole response: clients wait for it.
    pub(super) fn for_whole() -> Self {
        Self {
            room: ROOM_WAITS,
            writer: ROOM_WAITS,
        }
    }

    /// Waits for room to be made or for a pack to be written; `false` when patience has run out.
    pub(super) async fn wait(&mut self, shelf: &Shelf) -> bool {
        let made = shelf.room.notified();
        let waits = if shelf.store.room_needed() == 0 {
            &mut self.writer
        } else {
            shelf.ask_for_room();
            &mut self.room
        };
        let Some(left) = waits.checked_sub(1) else {
            return false;
        };
        *waits = left;
        // Whether or not it was made, the append that follows will tell.
        drop(timeout(WAIT, made).await);
        true
    }
}

const WAIT: Duration = Duration::from_millis(250);
const ROOM_WAITS: u32 = 4;
const WRITER_WAITS: u32 = 120;
