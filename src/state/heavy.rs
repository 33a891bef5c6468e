//! Which few of very many keys weigh most, in bounded room and without knowing them beforehand?
//!
//! ```text
//! add(key, weight) ─┬─ has a place ─► its weight grows
//!                   ├─ there is room ─► it gets a place
//!                   └─ full ─► the middle weight is taken off every key; who has nothing left goes
//! ```
//!
//! What was taken off altogether is [`lost`](Heavy::lost): a weight is never told too high, and too
//! low by that at most, so every key that weighs more is in. Each time it grows by some weight, half
//! of the places at least give up as much: of all that was added it is never more than two parts in
//! as many as there are places. That is also why an addition costs a look on the mean: one in half a
//! table goes through all of it. Space-Saving tells the same from the other side, with weights never
//! too low, but has to find the lightest for each newcomer.
//!
//! [`Recent`] has two of them and forgets by periods, which are the caller's numbers.

use hashbrown::HashMap;

/// The heaviest of what was added.
#[derive(Debug)]
pub struct Heavy<N> {
    places: HashMap<u64, (u64, N)>,
    places_max: usize,
    lost: u64,
}

/// A key's weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed<N> {
    /// The key.
    pub key: u64,
    /// What was added, or less.
    pub weight: u64,
    /// What it is called.
    pub name: N,
}

impl<N: Clone> Heavy<N> {
    /// Makes an empty table of so many places, at least two.
    pub fn new(places_max: usize) -> Self {
        Self {
            places: HashMap::new(),
            places_max: places_max.max(2),
            lost: 0,
        }
    }

    /// Adds to a key's weight. `name` is asked for when the key gets a place.
    pub fn add(&mut self, key: u64, weight: u64, name: impl FnOnce() -> N) {
        if let Some((weighs, _)) = self.places.get_mut(&key) {
            *weighs = weighs.saturating_add(weight);
            return;
        }
        let left = match self.places.len() < self.places_max || weight == 0 {
            true => weight,
            false => weight.saturating_sub(self.take_off()),
        };
        if left > 0 {
            self.places.insert(key, (left, name()));
        }
    }

    /// By how much a weight may be told too low, and the most that a key weighs which has no place.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// All that have a place, in no order.
    pub fn all(&self) -> impl Iterator<Item = Weighed<N>> {
        self.places.iter().map(|(key, (weight, name))| Weighed {
            key: *key,
            weight: *weight,
            name: name.clone(),
        })
    }

    /// Takes the middle weight off every key, which frees half of the places, and says how much.
    fn take_off(&mut self) -> u64 {
        let mut weights: Vec<u64> = self.places.values().map(|(weight, _)| *weight).collect();
        let middle = weights.len() / 2;
        let (_, middle, _) = weights.select_nth_unstable(middle);
        let off = *middle;
        self.lost = self.lost.saturating_add(off);
        self.places.retain(|_, (weight, _)| {
            *weight = weight.saturating_sub(off);
            *weight > 0
        });
        off
    }
}

/// The heaviest of this period and of the one before.
#[derive(Debug)]
pub struct Recent<N> {
    now: Heavy<N>,
    before: Heavy<N>,
    period: u64,
    places_max: usize,
}

impl<N: Clone> Recent<N> {
    /// Makes empty tables of so many places each.
    pub fn new(places_max: usize) -> Self {
        Self {
            now: Heavy::new(places_max),
            before: Heavy::new(places_max),
            period: 0,
            places_max,
        }
    }

    /// Adds to a key's weight in a period. One that is over counts for the current.
    pub fn add(&mut self, period: u64, key: u64, weight: u64, name: impl FnOnce() -> N) {
        self.turn(period);
        self.now.add(key, weight, name);
    }

    /// Forgets what is older than the period before this one.
    pub fn turn(&mut self, period: u64) {
        if period <= self.period {
            return;
        }
        let fresh = Heavy::new(self.places_max);
        let ended = std::mem::replace(&mut self.now, fresh);
        self.before = match self.period.checked_add(1) {
            Some(next) if next == period => ended,
            Some(_) | None => Heavy::new(self.places_max),
        };
        self.period = period;
    }

    /// All that have a place, in no order; one that has two comes twice.
    pub fn all(&self) -> impl Iterator<Item = Weighed<N>> {
        self.before.all().chain(self.now.all())
    }

    /// By how much a weight may be told too low.
    pub fn lost(&self) -> u64 {
        self.now.lost().saturating_add(self.before.lost())
    }
}

/// The `count` heaviest of what several tables have, the heaviest first; equal keys are one.
pub fn heaviest<N>(all: impl IntoIterator<Item = Weighed<N>>, count: usize) -> Vec<Weighed<N>> {
    let mut sums: HashMap<u64, Weighed<N>> = HashMap::new();
    for weighed in all {
        match sums.get_mut(&weighed.key) {
            Some(sum) => sum.weight = sum.weight.saturating_add(weighed.weight),
            None => drop(sums.insert(weighed.key, weighed)),
        }
    }
    let mut sums: Vec<Weighed<N>> = sums.into_values().collect();
    // By key too, so that equals do not change places from look to look.
    sums.sort_unstable_by_key(|sum| (std::cmp::Reverse(sum.weight), sum.key));
    sums.truncate(count);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn add(heavy: &mut Heavy<u64>, key: u64, weight: u64) {
        heavy.add(key, weight, || key);
    }

    fn keys(told: &[Weighed<u64>]) -> Vec<(u64, u64)> {
        told.iter().map(|told| (told.key, told.weight)).collect()
    }

    #[test]
    fn the_heaviest_come_first_and_equals_by_key() {
        let mut heavy = Heavy::new(8);
        for key in [3, 1, 2, 1, 4, 1, 4] {
            add(&mut heavy, key, 10);
        }
        assert_eq!(keys(&heaviest(heavy.all(), 3)), [(1, 30), (4, 20), (2, 10)]);
        assert_eq!(heavy.lost(), 0);
    }

    #[test]
    fn a_table_holds_no_more_than_its_places_whatever_comes() {
        let mut heavy = Heavy::new(16);
        for key in 0..10_000 {
            add(&mut heavy, key, 1);
            assert!(heavy.places.len() <= 16);
        }
        assert!(heavy.places.capacity() < 64, "{}", heavy.places.capacity());
    }

    #[test]
    fn one_that_comes_often_stays_through_a_flood_of_others() {
        let mut heavy = Heavy::new(64);
        for key in 1..100_000 {
            add(&mut heavy, key, 1);
            if key % 10 == 0 {
                add(&mut heavy, 0, 1);
            }
        }
        let told = heaviest(heavy.all(), 1);
        assert_eq!(told[0].key, 0);
        let (least, most) = (told[0].weight, told[0].weight + heavy.lost());
        assert!(least <= 9_999 && 9_999 <= most, "{least} to {most}");
    }

    #[test]
    fn a_name_is_made_only_for_who_gets_a_place() {
        let mut heavy = Heavy::new(4);
        let mut made = 0;
        for key in [1, 1, 1, 2, 2] {
            heavy.add(key, 5, || made += 1);
        }
        for key in 3..5 {
            heavy.add(key, 9, || made += 1);
        }
        assert_eq!(made, 4);
        // There is nothing left of one that weighs less than the middle.
        heavy.add(9, 1, || made += 1);
        assert_eq!(made, 4);
    }

    #[test]
    fn what_weighs_nothing_takes_no_place() {
        let mut heavy = Heavy::new(4);
        add(&mut heavy, 1, 0);
        assert_eq!(heavy.all().count(), 0);
    }

    #[test]
    fn two_periods_are_told_together_and_what_is_older_is_forgotten() {
        let mut recent = Recent::new(4);
        recent.add(7, 1, 10, || ());
        recent.add(8, 1, 5, || ());
        recent.add(8, 2, 1, || ());
        let told = |recent: &Recent<()>| {
            let told = heaviest(recent.all(), 9);
            told.iter().map(|t| (t.key, t.weight)).collect::<Vec<_>>()
        };
        assert_eq!(told(&recent), [(1, 15), (2, 1)]);
        // A clock that was set back changes nothing.
        recent.turn(3);
        assert_eq!(told(&recent), [(1, 15), (2, 1)]);
        recent.turn(9);
        assert_eq!(told(&recent), [(1, 5), (2, 1)]);
        recent.turn(11);
        assert!(told(&recent).is_empty());
    }

    proptest! {
        #[test]
        fn no_weight_is_told_too_high_or_lower_than_by_what_was_lost(
            places in 2..20_usize,
            added in prop::collection::vec((0..40_u64, 1..1000_u64), 1..400),
        ) {
            let mut heavy = Heavy::new(places);
            let mut exact: BTreeMap<u64, u64> = BTreeMap::new();
            for (key, weight) in added {
                add(&mut heavy, key, weight);
                *exact.entry(key).or_default() += weight;
            }
            let all: u64 = exact.values().sum();
            prop_assert!(heavy.lost() <= all * 2 / places as u64);
            let told: BTreeMap<u64, u64> = heavy.all().map(|t| (t.key, t.weight)).collect();
            for (key, weight) in exact {
                let low = told.get(&key).copied().unwrap_or_default();
                prop_assert!(low <= weight && weight <= low + heavy.lost());
            }
        }
    }
}
