//! What paths lately said by No-Vary-Search.
//!
//! A response says which queries it answers only once it is found, so a cache must remember what
//! the responses of a path said to find them at all. The newest word counts, as the draft allows. To
//! forget costs a miss: what was stored under a forgotten variance is found again once a response
//! of the path has repeated it.
//!
//! Two generations of at most so many paths each: when the young one is full it becomes the old one,
//! and what a response repeats is in the young again.

use crate::rules::key::PrimaryKey;
use crate::rules::search::SearchVariance;
use hashbrown::HashMap;
use std::sync::Arc;

/// Variances by path.
#[derive(Debug)]
pub struct Variances {
    young: HashMap<PrimaryKey, Arc<SearchVariance>>,
    old: HashMap<PrimaryKey, Arc<SearchVariance>>,
    paths_max: usize,
}

impl Variances {
    /// Makes a table of at most twice `paths_max` (at least one) paths.
    pub fn new(paths_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            paths_max: paths_max.max(1),
        }
    }

    /// The newest word of the path whose [family](PrimaryKey::family) this is.
    pub fn of(&self, family: PrimaryKey) -> Option<&Arc<SearchVariance>> {
        self.young.get(&family).or_else(|| self.old.get(&family))
    }

    /// Takes note of what a response said.
    pub fn learn(&mut self, family: PrimaryKey, variance: SearchVariance) {
        if self
            .young
            .get(&family)
            .is_some_and(|known| **known == variance)
        {
            return;
        }
        if self.young.len() >= self.paths_max && !self.young.contains_key(&family) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(family, Arc::new(variance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::HeaderValue;

    fn path(n: u8) -> PrimaryKey {
        PrimaryKey([n; 16]).family()
    }

    fn variance(field: &'static str) -> SearchVariance {
        let mut headers = HeaderMap::new();
        headers.insert("no-vary-search", HeaderValue::from_static(field));
        SearchVariance::read(&headers).unwrap()
    }

    #[test]
    fn the_newest_word_of_a_path_counts() {
        let mut table = Variances::new(4);
        assert_eq!(table.of(path(1)), None);
        table.learn(path(1), variance("params"));
        table.learn(path(1), variance("key-order"));
        table.learn(path(2), variance("params"));
        assert_eq!(**table.of(path(1)).unwrap(), variance("key-order"));
    }

    #[test]
    fn a_full_table_forgets_what_nobody_said_lately() {
        let mut table = Variances::new(2);
        for n in 1..=5 {
            table.learn(path(n), variance("params"));
            table.learn(path(1), variance("params"));
        }
        assert!(table.young.len() <= 2 && table.old.len() <= 2);
        assert!(table.of(path(1)).is_some() && table.of(path(5)).is_some());
        assert!(table.of(path(2)).is_none());
    }
}
