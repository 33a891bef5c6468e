//! Targets with more variants than are kept: who they are, and how often it happened.
//!
//! A table of fixed size. When it is full, a newcomer takes the place of the one that was counted
//! least and goes on from its count: so the worst are in it whatever else comes and goes, and a
//! count may be too high, never too low.

use http::HeaderName;
use std::time::Duration;
use std::time::SystemTime;

/// A target, and how often a variant of it was pushed out by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Authority and target, cut to [`TARGET_BYTES_MAX`].
    pub target: String,
    /// The fields by which its responses vary.
    pub vary: Vec<HeaderName>,
    /// How often; an upper bound.
    pub pushed_out: u64,
}

/// Counts crowded targets.
#[derive(Debug)]
pub struct Crowds {
    crowds: Vec<(Crowd, Option<SystemTime>)>,
    places: usize,
    total: u64,
    /// When any target was last spoken of.
    said: Option<SystemTime>,
}

impl Crowds {
    /// Makes a table of `places`, at least one.
    pub fn new(places: usize) -> Self {
        Self {
            crowds: Vec::new(),
            places: places.max(1),
            total: 0,
            said: None,
        }
    }

    /// Counts that a variant was pushed out. Says whether an operator should be told: at most every
    /// [`QUIET`], and of the same target at most every [`QUIET_ABOUT_ONE`].
    pub fn count(
        &mut self,
        authority: &str,
        target: &str,
        vary: &[HeaderName],
        now: SystemTime,
    ) -> bool {
        self.total = self.total.saturating_add(1);
        let mut name = format!("{authority}{target}");
        while name.len() > TARGET_BYTES_MAX {
            name.pop();
        }
        let place = self.place(name);
        let Some((crowd, said)) = self.crowds.get_mut(place) else {
            return false;
        };
        crowd.pushed_out = crowd.pushed_out.saturating_add(1);
        crowd.vary = vary.to_vec();
        let quiet = is_within(self.said, QUIET, now) || is_within(*said, QUIET_ABOUT_ONE, now);
        if !quiet {
            *said = Some(now);
            self.said = Some(now);
        }
        !quiet
    }

    /// How often it happened, to whatever target.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The `count` worst, the worst first.
    pub fn worst(&self, count: usize) -> Vec<Crowd> {
        let mut worst: Vec<Crowd> = self.crowds.iter().map(|(crowd, _)| crowd.clone()).collect();
        worst.sort_by(|one, other| {
            let by_count = other.pushed_out.cmp(&one.pushed_out);
            by_count.then_with(|| one.target.cmp(&other.target))
        });
        worst.truncate(count);
        worst
    }

    /// Finds a target's place, or gives it one.
    fn place(&mut self, target: String) -> usize {
        let known = self
            .crowds
            .iter()
            .position(|(crowd, _)| crowd.target == target);
        if let Some(place) = known {
            return place;
        }
        let mut crowd = Crowd {
            target,
            vary: Vec::new(),
            pushed_out: 0,
        };
        if self.crowds.len() < self.places {
            self.crowds.push((crowd, None));
            return self.crowds.len() - 1;
        }
        let places = self.crowds.iter().enumerate();
        let least = places.min_by_key(|(_, (crowd, _))| crowd.pushed_out);
        let (place, pushed_out) =
            least.map_or((0, 0), |(place, (least, _))| (place, least.pushed_out));
        crowd.pushed_out = pushed_out;
        if let Some(slot) = self.crowds.get_mut(place) {
            *slot = (crowd, None);
        }
        place
    }
}

/// Is `now` less than `span` after the last time? Not when the clock was set back.
fn is_within(last: Option<SystemTime>, span: Duration, now: SystemTime) -> bool {
    let since = last.and_then(|last| now.duration_since(last).ok());
    since.is_some_and(|since| since < span)
}

/// How much of a target's name is kept, in bytes.
pub const TARGET_BYTES_MAX: usize = 256;
/// Between two words about crowds.
pub const QUIET: Duration = Duration::from_secs(10);
/// Between two words about the same one.
pub const QUIET_ABOUT_ONE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    const NOON: SystemTime = SystemTime::UNIX_EPOCH;

    fn count(crowds: &mut Crowds, target: &str, seconds: u64) -> bool {
        let now = NOON + Duration::from_secs(seconds);
        crowds.count("a.test", target, &[header::USER_AGENT], now)
    }

    #[test]
    fn the_worst_come_first() {
        let mut crowds = Crowds::new(8);
        for target in ["/a", "/b", "/c", "/b", "/b", "/c"] {
            count(&mut crowds, target, 0);
        }
        let worst = crowds.worst(2);
        let names: Vec<_> = worst
            .iter()
            .map(|c| (c.target.as_str(), c.pushed_out))
            .collect();
        assert_eq!(names, [("a.test/b", 3), ("a.test/c", 2)]);
        assert_eq!(worst[0].vary, [header::USER_AGENT]);
        assert_eq!(crowds.total(), 6);
    }

    #[test]
    fn a_full_table_keeps_the_worst() {
        let mut crowds = Crowds::new(4);
        for n in 0..100 {
            count(&mut crowds, "/worst", 0);
            count(&mut crowds, &format!("/{n}"), 0);
        }
        assert_eq!(crowds.crowds.len(), 4);
        assert_eq!(crowds.worst(1)[0].target, "a.test/worst");
        assert!(crowds.worst(1)[0].pushed_out >= 100);
    }

    #[test]
    fn operators_are_told_now_and_then() {
        let mut crowds = Crowds::new(4);
        assert!(count(&mut crowds, "/a", 0));
        assert!(!count(&mut crowds, "/b", 9));
        assert!(count(&mut crowds, "/b", 10));
        assert!(!count(&mut crowds, "/a", 599));
        assert!(count(&mut crowds, "/a", 600));
    }

    #[test]
    fn a_long_target_is_cut_between_characters() {
        let mut crowds = Crowds::new(1);
        count(
            &mut crowds,
            &format!("/{}", "é".repeat(TARGET_BYTES_MAX)),
            0,
        );
        let target = &crowds.worst(1)[0].target;
        assert!(target.len() <= TARGET_BYTES_MAX && target.ends_with('é'));
    }
}
