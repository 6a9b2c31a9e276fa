//! Durations counted in buckets, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations by the smallest bound that they do not exceed. Cheap enough for every request: three additions.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    /// One count for each bound, and one for longer durations.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

/// The content of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// Upper bounds in seconds, each with the number of durations that do not exceed it.
    pub up_to: Vec<(f64, u64)>,
    /// The number of all durations.
    pub count: u64,
    /// The sum of all durations in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Creates a histogram with these upper bounds in seconds, which ascend.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            sum_micros: AtomicU64::default(),
        }
    }

    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns what was counted so far.
    pub fn read(&self) -> Buckets {
        let mut count = 0;
        let mut counts = self.counts.iter().map(|counted| {
            count += counted.load(Ordering::Relaxed);
            count
        });
        let up_to = self.bounds.iter().copied().zip(&mut counts).collect();
        let all = counts.next().unwrap_or_default();
        Buckets {
            up_to,
            count: all,
            sum: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_contain_durations_up_to_their_bound() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for millis in [50, 100, 101, 5_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let expected = Buckets {
            up_to: vec![(0.1, 2), (1.0, 3)],
            count: 4,
            sum: 5.251,
        };
        assert_eq!(histogram.read(), expected);
    }
}
