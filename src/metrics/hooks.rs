//! The counters of a hook, by outcome. The thread of the hooks counts answers, and cores count questions that were
//! never asked.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::Histogram;
use crate::labels::labels;

/// The counters of one hook.
#[derive(Debug, Default)]
pub struct HookMetrics {
    outcomes: [AtomicU64; HookOutcome::COUNT],
    cached: AtomicU64,
    requests: AtomicU64,
    /// From the question to its end, without answers that were kept. Written by the thread of the hooks.
    pub seconds: Histogram,
}

/// One hook at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct HookSample<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// Its counters.
    pub metrics: &'a HookMetrics,
    /// Questions that are open.
    pub open: u64,
}

labels! {
    /// How a question to a hook ended.
    pub enum HookOutcome {
        /// The answer allows the action, or answers the call.
        Allowed = "allowed",
        /// The answer refuses it.
        Refused = "refused",
        /// The target cannot be reached, or does not speak HTTP.
        Unreachable = "unreachable",
        /// `timeout_ms`.
        TimeOver = "timeout",
        /// The answer had another status than 200.
        Status = "status",
        /// The answer was none to a question.
        Invalid = "invalid",
        /// `failures_max`: the target is not asked for a while.
        CircuitOpen = "circuit_open",
        /// `waiting_max` or `waiting_bytes_max`: too many questions were open.
        Busy = "busy",
    }
}

impl HookMetrics {
    /// Counts an outcome, on any thread.
    pub fn count(&self, outcome: HookOutcome) {
        // Relaxed, here and below: a scrape needs no order between counters.
        self.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many questions had this outcome.
    pub fn value(&self, outcome: HookOutcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    /// Counts an answer that was used again.
    pub fn count_cached(&self) {
        self.cached.fetch_add(1, Ordering::Relaxed);
    }

    /// How many answers were used again.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// Counts a request to the target.
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were sent.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}
