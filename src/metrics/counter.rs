//! Counters that one thread writes and others read.
//!
//! The owning core writes with relaxed loads and stores (0.4 ns, no read-modify-write); the control plane reads when it
//! is scraped.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning core calls this: two writers would lose counts.
    pub fn add(&self, count: u64) {
        // Relaxed: a scrape needs no order between counters.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Replaces the value, for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, for a scrape.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by the index of an enum.
#[derive(Debug)]
pub struct Counters<const COUNT: usize>([Counter; COUNT]);

impl<const COUNT: usize> Default for Counters<COUNT> {
    fn default() -> Counters<COUNT> {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const COUNT: usize> Deref for Counters<COUNT> {
    type Target = [Counter; COUNT];

    fn deref(&self) -> &[Counter; COUNT] {
        &self.0
    }
}

/// Durations in buckets whose upper bounds are powers of two, from 1 µs to 8.4 s; the last bucket has no bound.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BUCKETS],
    sum_ns: Counter,
}

impl Histogram {
    /// Number of buckets; the last one takes all longer durations.
    pub const BUCKETS: usize = 25;

    /// Counts one duration.
    pub fn record_ns(&self, ns: u64) {
        self.record_many_ns(ns, 1);
    }

    /// Counts `count` equal durations.
    pub fn record_many_ns(&self, ns: u64, count: u64) {
        self.buckets[Self::bucket(ns)].add(count);
        self.sum_ns.add(ns.saturating_mul(count));
    }

    /// Upper bound of a bucket in nanoseconds; `None` for the last.
    pub const fn upper_bound_ns(bucket: usize) -> Option<u64> {
        if bucket + 1 < Self::BUCKETS {
            Some(1000 << bucket)
        } else {
            None
        }
    }

    /// The counts of all buckets, not cumulated, for a scrape.
    pub fn counts(&self) -> [u64; Self::BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].value())
    }

    /// The sum of all recorded durations in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.value()
    }

    fn bucket(ns: u64) -> usize {
        // The first bucket whose bound 1000 << b is not below ns.
        let thousands = ns.div_ceil(1000).max(1);
        (thousands.next_power_of_two().trailing_zeros() as usize).min(Self::BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_is_not_shorter() {
        for (ns, bucket) in [
            (0, 0),
            (1000, 0),
            (1001, 1),
            (2000, 1),
            (2001, 2),
            (u64::MAX, Histogram::BUCKETS - 1),
        ] {
            assert_eq!(Histogram::bucket(ns), bucket, "{ns} ns");
            assert!(Histogram::upper_bound_ns(bucket).is_none_or(|bound| ns <= bound));
        }
    }
}
