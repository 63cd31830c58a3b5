//! The counts and times of one thread.

use std::collections::HashMap;

use hdrhistogram::Histogram;

use super::order::Digest;
use super::result::{Counts, Faults, Latency};

/// Counts and times of a part of a run, of one thread or several.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// From pings to replies.
    pub(crate) latency: Times,
    /// From publications to deliveries.
    pub(crate) delivery: Times,
    /// From connects to the last answer of the opening.
    pub(crate) opening: Times,
    /// From due times to sends.
    pub(crate) lateness: Times,
    /// The times of the first and the last delivery, by the generator's clock.
    pub(crate) deliveries_from_to: Option<(u64, u64)>,
    /// Wall time; of several threads, the longest.
    pub(crate) elapsed_ns: u64,
    /// CPU time of each thread.
    pub(crate) cpu_ns: Vec<u64>,
    pub(crate) faults: Faults,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            counts: Counts::default(),
            latency: Times::new(),
            delivery: Times::new(),
            opening: Times::new(),
            lateness: Times::new(),
            deliveries_from_to: None,
            elapsed_ns: 0,
            cpu_ns: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// Counts a delivery of a publication that was due at `at`.
    pub(crate) fn delivered(&mut self, at: u64, now: u64) {
        self.counts.deliveries += 1;
        self.delivery.note(at, now);
        let (first, _) = self.deliveries_from_to.unwrap_or((now, now));
        self.deliveries_from_to = Some((first, now));
    }

    /// Adds the results of another thread.
    pub(crate) fn merge(&mut self, other: &Tally) {
        self.counts.merge(&other.counts);
        self.latency.merge(&other.latency);
        self.delivery.merge(&other.delivery);
        self.opening.merge(&other.opening);
        self.lateness.merge(&other.lateness);
        self.deliveries_from_to = match (self.deliveries_from_to, other.deliveries_from_to) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, another) => one.or(another),
        };
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.cpu_ns.extend_from_slice(&other.cpu_ns);
        self.faults.merge(&other.faults);
    }
}

impl Counts {
    pub(crate) fn merge(&mut self, other: &Counts) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.closed_by_server += other.closed_by_server;
        self.pings += other.pings;
        self.replies += other.replies;
        self.publications += other.publications;
        self.deliveries += other.deliveries;
        self.heartbeats += other.heartbeats;
        self.withheld += other.withheld;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
    }

    /// Number of pings, replies, publications and deliveries.
    pub(crate) fn messages(&self) -> u64 {
        self.pings + self.replies + self.publications + self.deliveries
    }
}

/// A histogram of times: nanoseconds, 3 digits, from a microsecond to ten minutes.
///
/// It has its largest size, 86 KB, from the start; only the parts that are used take memory. A histogram that grew left
/// freed blocks of every size behind: 4 MB in each thread.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u32>);

impl Times {
    pub(crate) fn new() -> Times {
        Times(Histogram::new_with_bounds(LEAST_NS, MOST_NS, DIGITS).expect("the bounds are in order"))
    }

    /// Counts the time between the two.
    #[inline]
    pub(crate) fn note(&mut self, from_ns: u64, to_ns: u64) {
        self.0
            .record(to_ns.saturating_sub(from_ns).min(MOST_NS))
            .expect("no value is above its bound");
    }

    pub(crate) fn merge(&mut self, other: &Times) {
        self.0.add(&other.0).expect("no value is above its bound");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of microseconds that this share of the values does not exceed; `None` without values.
    pub(crate) fn quantile_us(&self, share: f64) -> Option<f64> {
        (!self.is_empty()).then(|| microseconds(self.0.value_at_quantile(share)))
    }

    /// The percentiles; `None` without values.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let at = |share| self.quantile_us(share);
        Some(Latency {
            count: self.0.len(),
            mean_us: self.0.mean() / 1000.0,
            p50_us: at(0.5)?,
            p90_us: at(0.9)?,
            p99_us: at(0.99)?,
            p999_us: at(0.999)?,
            max_us: microseconds(self.0.max()),
            curve: self
                .0
                .iter_quantiles(TICKS_PER_HALF)
                .map(|step| (step.quantile(), microseconds(step.value_iterated_to())))
                .collect(),
        })
    }
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

const LEAST_NS: u64 = 1_000;
const MOST_NS: u64 = 600_000_000_000;
const DIGITS: u8 = 3;
/// Number of points of the curve for each halving of the remaining values.
const TICKS_PER_HALF: u32 = 5;

/// For each channel, the publications that a thread's subscribers received.
pub(crate) type Digests = HashMap<u32, Digest>;
