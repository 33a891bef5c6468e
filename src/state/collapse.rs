//! One trip to the origin for many requests that want the same thing.
//!
//! ```text
//! join(key)  ─ nobody is fetching ─► Role::Leader     makes the trip
//!            ─ room in the queue  ─► Role::Follower   shares it
//!            ─ queue is full      ─► Role::Alone      goes by itself, does not store
//! open(key, trip)   ─► there is something to read: all who come now share it, none waits
//! finish(key, trip) ─► the next request for the key leads again
//! ```
//!
//! Nothing here waits or wakes. A *trip* is whatever the owner shares between the requests, such
//! as the far end of a channel; the table only says who shares which.

use std::collections::HashMap;
use std::hash::Hash;

/// What a request must do after asking for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Role<T> {
    /// Forward the request alone: too many share the trip already.
    Alone,
    /// Share this trip.
    Follower(T),
    /// Make this trip, and [`Table::finish`] it whatever happens.
    Leader(T),
}

/// Who is fetching what.
#[derive(Debug)]
pub struct Table<K, T> {
    /// Each with how many wait for it; `None` once it is open.
    trips: HashMap<K, (T, Option<usize>)>,
    followers_max: usize,
}

impl<K: Eq + Hash, T: Clone + PartialEq> Table<K, T> {
    /// Makes an empty table; `followers_max` bounds how many wait for one trip with its leader.
    pub fn new(followers_max: usize) -> Self {
        Self {
            trips: HashMap::new(),
            followers_max,
        }
    }

    /// Sets how many wait for one trip; those who wait already go on.
    pub fn limit(&mut self, followers_max: usize) {
        self.followers_max = followers_max;
    }

    /// Gives a request its role for `key`; `trip` is called when it leads.
    pub fn join(&mut self, key: K, trip: impl FnOnce() -> T) -> Role<T> {
        match self.trips.get_mut(&key) {
            None => {
                let trip = trip();
                self.trips.insert(key, (trip.clone(), Some(0)));
                Role::Leader(trip)
            }
            Some((_, Some(waiting))) if *waiting >= self.followers_max => Role::Alone,
            Some((trip, waiting)) => {
                if let Some(waiting) = waiting {
                    *waiting += 1;
                }
                Role::Follower(trip.clone())
            }
        }
    }

    /// Makes a trip that its leader does not wait for, unless one is under way.
    pub fn lead(&mut self, key: K, trip: impl FnOnce() -> T) -> Option<T> {
        if self.trips.contains_key(&key) {
            return None;
        }
        let trip = trip();
        self.trips.insert(key, (trip.clone(), Some(0)));
        Some(trip)
    }

    /// Notes that `trip` has brought something to read while it goes on.
    pub fn open(&mut self, key: &K, trip: &T) {
        if let Some((current, waiting)) = self.trips.get_mut(key)
            && current == trip
        {
            *waiting = None;
        }
    }

    /// Ends `trip`. A later trip under the same key is left alone.
    pub fn finish(&mut self, key: &K, trip: &T) {
        if self
            .trips
            .get(key)
            .is_some_and(|(current, _)| current == trip)
        {
            self.trips.remove(key);
        }
    }

    /// Ends every trip whose key `is_it` picks; those who share one are not disturbed.
    pub fn finish_where(&mut self, is_it: impl Fn(&K) -> bool) {
        self.trips.retain(|key, _| !is_it(key));
    }

    /// Ends every trip.
    pub fn clear(&mut self) {
        self.trips.clear();
    }

    /// Is somebody fetching this?
    pub fn is_underway(&self, key: &K) -> bool {
        self.trips.contains_key(key)
    }

    /// How many trips are under way.
    pub fn len(&self) -> usize {
        self.trips.len()
    }

    /// No trip is under way.
    pub fn is_empty(&self) -> bool {
        self.trips.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_leads_and_the_next_share_its_trip() {
        let mut table = Table::new(8);
        assert_eq!(table.join("/a", || 1), Role::Leader(1));
        assert_eq!(table.join("/a", || 2), Role::Follower(1));
        assert_eq!(table.join("/b", || 3), Role::Leader(3));
    }

    #[test]
    fn a_full_queue_sends_requests_on_alone() {
        let mut table = Table::new(1);
        assert_eq!(table.join("/a", || 1), Role::Leader(1));
        assert_eq!(table.join("/a", || 2), Role::Follower(1));
        assert_eq!(table.join("/a", || 3), Role::Alone);
    }

    #[test]
    fn once_there_is_something_to_read_all_share_it() {
        let mut table = Table::new(1);
        assert_eq!(table.join("/a", || 1), Role::Leader(1));
        table.open(&"/a", &2);
        assert_eq!(table.join("/a", || 3), Role::Follower(1));
        assert_eq!(table.join("/a", || 4), Role::Alone);
        table.open(&"/a", &1);
        assert_eq!(table.join("/a", || 5), Role::Follower(1));
    }

    #[test]
    fn a_trip_nobody_waits_for_is_made_once() {
        let mut table = Table::new(1);
        assert_eq!(table.lead("/a", || 1), Some(1));
        assert_eq!(table.lead("/a", || 2), None);
        assert_eq!(table.join("/a", || 3), Role::Follower(1));
    }

    #[test]
    fn after_the_end_somebody_leads_again() {
        let mut table = Table::new(1);
        assert_eq!(table.join("/a", || 1), Role::Leader(1));
        assert!(table.is_underway(&"/a") && !table.is_underway(&"/b"));
        table.finish(&"/a", &1);
        assert!(table.is_empty() && !table.is_underway(&"/a"));
        assert_eq!(table.join("/a", || 2), Role::Leader(2));
    }

    #[test]
    fn a_late_end_does_not_end_the_next_trip() {
        let mut table = Table::new(1);
        assert_eq!(table.join("/a", || 1), Role::Leader(1));
        table.finish(&"/a", &1);
        assert_eq!(table.join("/a", || 2), Role::Leader(2));
        table.finish(&"/a", &1);
        assert_eq!(table.join("/a", || 3), Role::Follower(2));
    }
}
