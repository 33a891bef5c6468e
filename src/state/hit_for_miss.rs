//! Targets that turned out not storable: requests for them must not wait for one another.
//!
//! A small table with a fixed number of places, each the home of many keys. A newer key takes the
//! place of an older one; forgetting costs one collapsed wait, nothing else.

use crate::rules::key::PrimaryKey;
use std::time::Duration;
use std::time::SystemTime;

/// Remembers keys for a while.
#[derive(Debug)]
pub struct HitForMiss {
    places: Vec<Option<(PrimaryKey, SystemTime)>>,
    keep: Duration,
}

impl HitForMiss {
    /// Makes a table of `places` (at least one) that remembers each key for `keep`.
    pub fn new(places: usize, keep: Duration) -> Self {
        Self {
            places: vec![None; places.max(1)],
            keep,
        }
    }

    /// Remembers that a response for `key` was not storable at `now`.
    pub fn mark(&mut self, key: PrimaryKey, now: SystemTime) {
        let until = now + self.keep;
        let place = self.place(key);
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some((key, until));
        }
    }

    /// Forgets `key`: a response for it was stored.
    pub fn clear(&mut self, key: PrimaryKey) {
        let place = self.place(key);
        if let Some(slot) = self.places.get_mut(place)
            && slot.is_some_and(|(held, _)| held == key)
        {
            *slot = None;
        }
    }

    /// Was the last response for `key` not storable, lately?
    pub fn contains(&self, key: PrimaryKey, now: SystemTime) -> bool {
        matches!(self.places.get(self.place(key)), Some(Some((held, until)))
            if *held == key && now < *until)
    }

    fn place(&self, key: PrimaryKey) -> usize {
        let [a, b, c, d, ..] = key.0;
        u32::from_le_bytes([a, b, c, d]) as usize % self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(n: u8) -> PrimaryKey {
        PrimaryKey([n; 16])
    }

    #[test]
    fn a_marked_key_is_remembered_for_its_time() {
        let mut table = HitForMiss::new(64, Duration::from_secs(10));
        table.mark(key(1), NOON);
        assert!(table.contains(key(1), NOON + Duration::from_secs(9)));
        assert!(!table.contains(key(1), NOON + Duration::from_secs(10)));
        assert!(!table.contains(key(2), NOON));
    }

    #[test]
    fn a_stored_response_clears_the_mark() {
        let mut table = HitForMiss::new(64, Duration::from_secs(10));
        table.mark(key(1), NOON);
        table.clear(key(1));
        assert!(!table.contains(key(1), NOON));
    }

    #[test]
    fn a_full_table_forgets_the_older_key() {
        let mut table = HitForMiss::new(1, Duration::from_secs(10));
        table.mark(key(1), NOON);
        table.mark(key(2), NOON);
        assert!(!table.contains(key(1), NOON));
        assert!(table.contains(key(2), NOON));
    }
}
