//! What the upkeep of the store has done since start, and what it does now: for metrics.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Counts of what making room and tidying up came to. Relaxed: no other memory hangs on them.
#[derive(Debug, Default)]
pub struct Upkeep {
    dropped: AtomicU64,
    emptied: AtomicU64,
    evicted: [AtomicU64; Eviction::ALL.len()],
    moved: AtomicU64,
    snapshots: AtomicU64,
    doing: AtomicU8,
}

/// Why an entry went that nobody asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Room was needed.
    Room,
    /// A purge had covered it.
    Purged,
    /// It could serve nothing any more.
    Spent,
    /// Its pack could not be read, or not be moved for want of room.
    Lost,
}

impl Eviction {
    /// Every reason there is, for the tables of counters.
    pub const ALL: [Self; 4] = [Self::Room, Self::Purged, Self::Spent, Self::Lost];

    /// The fixed word that names the reason in metrics.
    pub fn token(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Purged => "purged",
            Self::Spent => "spent",
            Self::Lost => "lost",
        }
    }
}

/// The sums so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Packs that went.
    pub dropped: u64,
    /// Packs that something was moved out of, so that they could go.
    pub emptied: u64,
    /// Entries that went, by reason, in the order of [`Eviction::ALL`].
    pub evicted: [u64; Eviction::ALL.len()],
    /// Bytes of heads and bodies that were written again in another pack.
    pub moved_bytes: u64,
    /// Snapshots of the journal that were written.
    pub snapshots: u64,
}

/// What the thread that makes room is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// It waits to be asked.
    #[default]
    Resting,
    /// It looks for what a purge covers or what can serve nothing.
    Sweeping,
    /// It evicts entries.
    Evicting,
    /// It moves entries out of packs.
    Compacting,
    /// It deletes packs.
    Dropping,
    /// It reads packs for damage.
    Scrubbing,
}

impl Done {
    /// Adds what another directory's has done.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_add(other.dropped),
            emptied: self.emptied.saturating_add(other.emptied),
            evicted: std::array::from_fn(|reason| {
                let of = |done: &Self| done.evicted.get(reason).copied().unwrap_or_default();
                of(&self).saturating_add(of(&other))
            }),
            moved_bytes: self.moved_bytes.saturating_add(other.moved_bytes),
            snapshots: self.snapshots.saturating_add(other.snapshots),
        }
    }

    /// How many went for a reason.
    pub fn evicted(&self, reason: Eviction) -> u64 {
        self.evicted
            .get(reason as usize)
            .copied()
            .unwrap_or_default()
    }
}

impl Upkeep {
    /// The sums so far.
    pub fn done(&self) -> Done {
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Done {
            dropped: sum(&self.dropped),
            emptied: sum(&self.emptied),
            evicted: std::array::from_fn(|reason| self.evicted.get(reason).map_or(0, sum)),
            moved_bytes: sum(&self.moved),
            snapshots: sum(&self.snapshots),
        }
    }

    /// What goes on now.
    pub fn doing(&self) -> Task {
        let doing = self.doing.load(Ordering::Relaxed);
        let task = TASKS.iter().find(|task| **task as u8 == doing);
        task.copied().unwrap_or_default()
    }

    pub(super) fn begin(&self, task: Task) {
        self.doing.store(task as u8, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_emptied(&self) {
        self.emptied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_evicted(&self, reason: Eviction, entries: usize) {
        if let Some(evicted) = self.evicted.get(reason as usize) {
            evicted.fetch_add(entries as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn count_moved(&self, bytes: u32) {
        self.moved.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    pub(super) fn count_snapshot(&self) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
    }
}

const TASKS: [Task; 6] = [
    Task::Resting,
    Task::Sweeping,
    Task::Evicting,
    Task::Compacting,
    Task::Dropping,
    Task::Scrubbing,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_go_are_counted_by_reason() {
        let upkeep = Upkeep::default();
        for (number, reason) in Eviction::ALL.into_iter().enumerate() {
            upkeep.count_evicted(reason, number + 1);
        }
        let done = upkeep.done().and(upkeep.done());
        for (number, reason) in Eviction::ALL.into_iter().enumerate() {
            assert_eq!(done.evicted(reason), 2 * (number as u64 + 1), "{reason:?}");
        }
    }

    #[test]
    fn what_is_begun_is_what_is_done_now() {
        let upkeep = Upkeep::default();
        assert_eq!(upkeep.doing(), Task::Resting);
        for task in TASKS {
            upkeep.begin(task);
            assert_eq!(upkeep.doing(), task);
        }
    }
}
