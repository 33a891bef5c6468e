//! Which stored response goes when room is needed: S3-FIFO, by bytes.
//!
//! ```text
//!            new ─► small (a tenth) ── asked for again ──► main ◄── new, but evicted lately
//!                     │ not                                 │ ▲
//!                     ▼                                     │ └─ asked for since: another round
//!                  evicted, remembered for a while          ▼
//!                                                         evicted
//! ```
//!
//! A hit only marks: one relaxed atomic store, so that readers need no lock for writing. Objects
//! that are asked for once pass through the small queue and never disturb the main one, which is
//! what keeps a scan from emptying the cache.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

/// The queues. Ids are the caller's: small numbers, reused.
#[derive(Debug)]
pub struct Queues {
    nodes: Vec<Node>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
}

/// One id's place in a queue. Sizes count in units of [`UNIT`] bytes.
#[derive(Debug)]
struct Node {
    newer: u32,
    older: u32,
    units: u32,
    place: Place,
    marks: AtomicU8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Main,
    Out,
    Small,
}

#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    units: u64,
}

impl Queues {
    /// Makes empty queues.
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            small: Queue::new(),
            main: Queue::new(),
            ghosts: Ghosts::new(),
        }
    }

    /// Takes in a new id of `bytes`; `fingerprint` names its target, so that one evicted too early
    /// is known when it comes back.
    pub fn insert(&mut self, id: u32, bytes: u64, fingerprint: u64) {
        self.remove(id);
        while self.nodes.len() <= id as usize {
            self.nodes.push(Node::out());
        }
        self.ghosts.fit(self.nodes.len());
        let place = if self.ghosts.take(fingerprint) {
            Place::Main
        } else {
            Place::Small
        };
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.units = u32::try_from(bytes.div_ceil(UNIT))
                .unwrap_or(u32::MAX)
                .max(1);
            *node.marks.get_mut() = 0;
        }
        self.push(id, place);
    }

    /// Remembers that `id` was asked for.
    pub fn mark(&self, id: u32) {
        if let Some(node) = self.nodes.get(id as usize) {
            let marks = node.marks.load(Ordering::Relaxed);
            if marks < MARKS_MAX {
                node.marks.store(marks + 1, Ordering::Relaxed);
            }
        }
    }

    /// Was `id` asked for since it was last looked at?
    pub fn is_marked(&self, id: u32) -> bool {
        self.nodes
            .get(id as usize)
            .is_some_and(|node| node.marks.load(Ordering::Relaxed) > 0)
    }

    /// Forgets that `id` was asked for.
    pub fn unmark(&mut self, id: u32) {
        self.set_marks(id, 0);
    }

    /// Forgets `id`.
    pub fn remove(&mut self, id: u32) {
        self.unlink(id);
    }

    /// Picks the id to evict next and takes it out. `fingerprint` tells an id's target.
    pub fn victim(&mut self, fingerprint: impl Fn(u32) -> u64) -> Option<u32> {
        // Each round evicts, or moves to main, or takes one of at most three marks away.
        loop {
            let total = self.small.units + self.main.units;
            let from_small = self.main.oldest == NONE || self.small.units * SMALL_SHARE > total;
            if from_small && self.small.oldest != NONE {
                let id = self.small.oldest;
                let marks = self.marks(id);
                self.unlink(id);
                if marks == 0 {
                    self.ghosts.add(fingerprint(id));
                    return Some(id);
                }
                self.set_marks(id, 0);
                self.push(id, Place::Main);
            } else if self.main.oldest != NONE {
                let id = self.main.oldest;
                let marks = self.marks(id);
                self.unlink(id);
                if marks == 0 {
                    return Some(id);
                }
                self.set_marks(id, marks - 1);
                self.push(id, Place::Main);
            } else {
                return None;
            }
        }
    }

    /// Bytes in both queues, rounded up object by object.
    pub fn bytes(&self) -> u64 {
        (self.small.units + self.main.units) * UNIT
    }

    fn marks(&self, id: u32) -> u8 {
        self.nodes
            .get(id as usize)
            .map_or(0, |node| node.marks.load(Ordering::Relaxed))
    }

    fn set_marks(&mut self, id: u32, marks: u8) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            *node.marks.get_mut() = marks;
        }
    }

    fn push(&mut self, id: u32, place: Place) {
        let queue = match place {
            Place::Main => &mut self.main,
            Place::Small => &mut self.small,
            Place::Out => return,
        };
        let second = queue.newest;
        let Some(node) = self.nodes.get_mut(id as usize) else {
            return;
        };
        node.place = place;
        node.newer = NONE;
        node.older = second;
        queue.newest = id;
        queue.units += u64::from(node.units);
        match self.nodes.get_mut(second as usize) {
            Some(second) => second.newer = id,
            None => queue.oldest = id,
        }
    }

    fn unlink(&mut self, id: u32) {
        let Some(node) = self.nodes.get_mut(id as usize) else {
            return;
        };
        let queue = match node.place {
            Place::Main => &mut self.main,
            Place::Small => &mut self.small,
            Place::Out => return,
        };
        node.place = Place::Out;
        let (newer, older, units) = (node.newer, node.older, node.units);
        queue.units -= u64::from(units);
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => queue.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => queue.oldest = newer,
        }
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue {
    fn new() -> Self {
        Self {
            newest: NONE,
            oldest: NONE,
            units: 0,
        }
    }
}

impl Node {
    fn out() -> Self {
        Self {
            newer: NONE,
            older: NONE,
            units: 0,
            place: Place::Out,
            marks: AtomicU8::new(0),
        }
    }
}

/// Targets evicted lately: a table with one place for each fingerprint's home, newest wins.
#[derive(Debug)]
struct Ghosts {
    places: Vec<u32>,
}

impl Ghosts {
    fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Grows with the number of objects, by halves of its bound; growing forgets.
    fn fit(&mut self, objects: usize) {
        if objects > self.places.len() && self.places.len() < GHOSTS_MAX {
            let len = (objects * 2)
                .next_power_of_two()
                .clamp(GHOSTS_MIN, GHOSTS_MAX);
            self.places = vec![0; len];
        }
    }

    fn add(&mut self, fingerprint: u64) {
        let (place, mark) = self.place(fingerprint);
        if let Some(slot) = self.places.get_mut(place) {
            *slot = mark;
        }
    }

    fn take(&mut self, fingerprint: u64) -> bool {
        let (place, mark) = self.place(fingerprint);
        match self.places.get_mut(place) {
            Some(slot) if *slot == mark => {
                *slot = 0;
                true
            }
            _ => false,
        }
    }

    fn place(&self, fingerprint: u64) -> (usize, u32) {
        let [a, b, c, d, e, f, g, h] = fingerprint.to_le_bytes();
        let home = u32::from_le_bytes([a, b, c, d]) as usize;
        let mark = u32::from_le_bytes([e, f, g, h]) | 1;
        (home & self.places.len().saturating_sub(1), mark)
    }
}

/// The bytes a size counts in: 64, so that 32 bits reach 256 GiB.
const UNIT: u64 = 64;
/// No node.
const NONE: u32 = u32::MAX;
/// The small queue gets one part in this many.
const SMALL_SHARE: u64 = 10;
/// How many hits are remembered.
const MARKS_MAX: u8 = 3;
const GHOSTS_MIN: usize = 1 << 10;
const GHOSTS_MAX: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn fingerprint(id: u32) -> u64 {
        u64::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn filled(ids: std::ops::Range<u32>) -> Queues {
        let mut queues = Queues::new();
        for id in ids {
            queues.insert(id, 1024, fingerprint(id));
        }
        queues
    }

    #[test]
    fn the_oldest_unasked_goes_first() {
        let mut queues = filled(0..4);
        assert_eq!(queues.victim(fingerprint), Some(0));
        assert_eq!(queues.victim(fingerprint), Some(1));
    }

    #[test]
    fn one_that_was_asked_for_stays() {
        let mut queues = filled(0..4);
        queues.mark(0);
        assert_eq!(queues.victim(fingerprint), Some(1));
        assert_eq!(queues.victim(fingerprint), Some(2));
        assert_eq!(queues.victim(fingerprint), Some(3));
        assert_eq!(queues.victim(fingerprint), Some(0));
        assert_eq!(queues.victim(fingerprint), None);
    }

    #[test]
    fn one_evicted_lately_comes_back_to_the_main_queue() {
        let mut queues = filled(0..20);
        assert_eq!(queues.victim(fingerprint), Some(0));
        queues.insert(0, 1024, fingerprint(0));
        for id in 1..20 {
            assert_eq!(queues.victim(fingerprint), Some(id));
        }
        assert_eq!(queues.victim(fingerprint), Some(0));
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_asked_for() {
        let mut queues = filled(0..50);
        for id in 0..50 {
            queues.mark(id);
        }
        for id in 1000..11_000 {
            queues.insert(id, 1024, fingerprint(id));
            while queues.bytes() > 100 * 1024 {
                let victim = queues.victim(fingerprint).unwrap();
                assert!(victim >= 1000, "the scan evicted {victim}");
            }
            for hot in 0..50 {
                queues.mark(hot);
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_are_the_sum_of_what_is_in_whatever_happens(
            steps in prop::collection::vec((0u8..4, 0u32..32, 1u64..10_000), 0..200)
        ) {
            let mut queues = Queues::new();
            let mut inside = BTreeMap::new();
            for (step, id, bytes) in steps {
                match step {
                    0 => {
                        queues.insert(id, bytes, fingerprint(id));
                        inside.insert(id, bytes.div_ceil(UNIT) * UNIT);
                    }
                    1 => queues.mark(id),
                    2 => {
                        queues.remove(id);
                        inside.remove(&id);
                    }
                    _ => {
                        let victim = queues.victim(fingerprint);
                        prop_assert_eq!(victim.is_none(), inside.is_empty());
                        if let Some(victim) = victim {
                            prop_assert!(inside.remove(&victim).is_some());
                        }
                    }
                }
                prop_assert_eq!(queues.bytes(), inside.values().sum::<u64>());
            }
        }
    }
}
