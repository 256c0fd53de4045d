//! Times, counted in buckets.

use serde::{Deserialize, Serialize};

/// Upper bounds of buckets, microseconds.
pub mod buckets {
    /// What a disk or the way to it takes: 0.25 ms to 10 s.
    pub const QUICK: &[u64] = &[
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];
    /// What a receiver makes one wait: 10 ms to three days, for it may be away that long.
    pub const PATIENT: &[u64] = &[
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
        1_800_000_000,
        7_200_000_000,
        36_000_000_000,
        86_400_000_000,
        259_200_000_000,
    ];
}

/// How often a time fell into which bucket. Its buckets are those it is first counted with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// One for each bound, and one for what is above all.
    counts: Vec<u64>,
    /// Of all times, microseconds.
    sum: u64,
}

impl Histogram {
    /// Counts one time.
    pub fn observe(&mut self, bounds: &[u64], micros: u64) {
        if self.counts.len() != bounds.len() + 1 {
            self.counts = vec![0; bounds.len() + 1];
        }
        let bucket = bounds.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(micros);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Of all times, microseconds.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// How many were at most each bound.
    pub fn cumulative<'a>(&'a self, bounds: &'a [u64]) -> impl Iterator<Item = (u64, u64)> + 'a {
        let mut below = 0;
        bounds.iter().enumerate().map(move |(bucket, bound)| {
            below += self.counts.get(bucket).copied().unwrap_or(0);
            (*bound, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_time_is_at_most_the_bound_of_its_bucket(times in prop::collection::vec(0u64..20_000_000, 0..60)) {
            let mut histogram = Histogram::default();
            for time in &times {
                histogram.observe(buckets::QUICK, *time);
            }
            for (bound, below) in histogram.cumulative(buckets::QUICK) {
                prop_assert_eq!(below, times.iter().filter(|time| **time <= bound).count() as u64);
            }
            prop_assert_eq!(histogram.count(), times.len() as u64);
            prop_assert_eq!(histogram.sum(), times.iter().sum::<u64>());
        }
    }

    #[test]
    fn bounds_rise() {
        for bounds in [buckets::QUICK, buckets::PATIENT] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
