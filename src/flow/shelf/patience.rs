//! How long a fill waits for room, and what for.

use super::Shelf;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::timeout;

/// How long a fill waits for room before it gives up storing.
pub(super) struct Patience {
    /// Time left for room on disk, which is made by evicting.
    room: Duration,
    /// Time left for the writing thread, which holds back an origin that is faster than the disk.
    writer: Duration,
}

impl Patience {
    /// For a part of a body: the origin can wait for the disk.
    pub(super) fn for_part() -> Self {
        Self {
            room: ROOM_WAIT,
            writer: WRITER_WAIT,
        }
    }

    /// For a whole response: clients wait for it.
    pub(super) fn for_whole() -> Self {
        Self {
            room: ROOM_WAIT,
            writer: ROOM_WAIT,
        }
    }

    /// Waits for room to be made or for a pack to be written; `false` when patience has run out.
    /// Being woken for nothing, as when others were faster, takes no more of it than the time.
    pub(super) async fn wait(&mut self, shelf: &Shelf) -> bool {
        let made = shelf.room.notified();
        let left = if shelf.store.room_needed() == 0 {
            &mut self.writer
        } else {
            shelf.ask_for_room();
            &mut self.room
        };
        if left.is_zero() {
            return false;
        }
        let start = Instant::now();
        // Whether or not it was made, the append that follows will tell.
        drop(timeout(WAIT.min(*left), made).await);
        *left = left.saturating_sub(start.elapsed());
        true
    }
}

const WAIT: Duration = Duration::from_millis(250);
const ROOM_WAIT: Duration = Duration::from_secs(1);
const WRITER_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;
    use tempfile::TempDir;

    #[tokio::test]
    async fn being_woken_often_does_not_use_up_patience() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let mut patience = Patience::for_whole();
        for _ in 0..100 {
            let woken = async { shelf.room.notify_waiters() };
            let (waited, ()) = tokio::join!(patience.wait(&shelf), woken);
            assert!(waited);
        }
    }

    #[tokio::test]
    async fn patience_ends() {
        let dir = TempDir::new().unwrap();
        let shelf = open(&dir);
        let mut patience = Patience {
            room: Duration::from_millis(1),
            writer: Duration::from_millis(1),
        };
        while patience.wait(&shelf).await {}
    }
}
