//! The counters of logins with a password, by outcome.
//!
//! Cores count logins that find the intake of the password checks full, and the threads of the password checks
//! count all others. Logins are rare, so that an atomic addition is cheap enough.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::{Counter, Histogram};
use crate::labels::labels;

/// The counters of the password checks.
#[derive(Debug, Default)]
pub struct LoginMetrics {
    outcomes: [AtomicU64; LoginOutcome::COUNT],
    /// From the submission of a login to its answer. Written under a lock of the password checks.
    pub seconds: Histogram,
    /// Records of failures that were dropped for lack of room. Written under a lock of the password checks.
    pub accounts_forgotten: Counter,
}

labels! {
    /// How an attempt to log in ended.
    pub enum LoginOutcome {
        /// The password was right.
        Accepted = "accepted",
        /// There is no such user, or the password was wrong.
        Refused = "refused",
        /// There were too many failures before: the password was not checked.
        TooSoon = "too_soon",
        /// `logins_waiting_max`: the queue was full, and its own network had the most waiting attempts.
        Busy = "busy",
        /// `logins_waiting_max`: it waited, and an attempt of another network or a familiar one displaced it.
        Displaced = "displaced",
    }
}

impl LoginMetrics {
    /// Counts an outcome, on any thread.
    pub fn count(&self, outcome: LoginOutcome) {
        // Relaxed: a scrape needs no order between counters.
        self.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many attempts had this outcome.
    pub fn value(&self, outcome: LoginOutcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }
}
