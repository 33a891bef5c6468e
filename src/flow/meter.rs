//! How long something took, kept as counts by steps: recorded without a lock, read while it goes on.
//!
//! A reading may be of a moment in the middle of a record: its sum may lack what a count has already,
//! or the other way round. Whoever renders it takes the counts for the truth.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counts of durations by step, and their sum. Relaxed: no other memory hangs on them.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; STEPS],
    nanos: AtomicU64,
}

/// What a histogram held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How many there were of each step of [`BOUNDS`], and behind them of those that took longer.
    pub counts: [u64; STEPS],
    /// All of them together, in nanoseconds.
    pub nanos: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let step = BOUNDS.partition_point(|(bound, _)| *bound < nanos);
        if let Some(count) = self.counts.get(step) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn read(&self) -> Reading {
        let mut reading = Reading {
            nanos: self.nanos.load(Ordering::Relaxed),
            ..Reading::default()
        };
        for (read, count) in reading.counts.iter_mut().zip(&self.counts) {
            *read = count.load(Ordering::Relaxed);
        }
        reading
    }
}

impl Reading {
    /// Adds what another held.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

/// The steps: at most so many nanoseconds, and the same in seconds as operators are told it.
pub const BOUNDS: [(u64, &str); STEPS - 1] = [
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
    (30_000_000_000, "30.0"),
];
/// The steps with bounds, and what is over the last of them.
const STEPS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_step_that_holds_it() {
        let histogram = Histogram::default();
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(25_000), 0),
            (Duration::from_nanos(25_001), 1),
            (Duration::from_secs(30), STEPS - 2),
            (Duration::from_secs(31), STEPS - 1),
            (Duration::MAX, STEPS - 1),
        ];
        for (number, (took, step)) in cases.into_iter().enumerate() {
            let before = histogram.read().counts[step];
            histogram.record(took);
            let reading = histogram.read();
            assert_eq!(reading.counts[step], before + 1, "{took:?}");
            assert_eq!(reading.counts.iter().sum::<u64>(), number as u64 + 1);
        }
    }

    #[test]
    fn steps_grow_and_are_told_as_the_seconds_they_are() {
        assert!(BOUNDS.is_sorted());
        for (nanos, told) in BOUNDS {
            let seconds: f64 = told.parse().unwrap();
            assert_eq!(
                Duration::from_secs_f64(seconds),
                Duration::from_nanos(nanos)
            );
        }
    }

    #[test]
    fn readings_add_up() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(3));
        let mut sum = histogram.read();
        sum.add(&histogram.read());
        assert_eq!(sum.nanos, 6_000_000);
        assert_eq!(sum.counts.iter().sum::<u64>(), 2);
    }
}
