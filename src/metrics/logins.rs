//! What comes of logins: the counters of the login password_checks.
//!
//! Cores count what finds the password_checks full, its threads the rest: all of it is rare, and an atomic addition is right.

use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Counter, Histogram};

/// The counters of a login password_checks.
#[derive(Debug, Default)]
pub struct LoginMetrics {
    outcomes: [AtomicU64; LoginOutcome::COUNT],
    /// From the question to the answer. Written under the lock of the password_checks.
    pub seconds: Histogram,
    /// Accounts of failures forgotten for want of room. Written under the lock of the password_checks.
    pub accounts_forgotten: Counter,
}

/// How an attempt to log in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The password was right.
    Welcome,
    /// There is no such user, or the password was wrong.
    Refused,
    /// Too many have failed before: it was not tried.
    TooSoon,
    /// `logins_waiting_max`: it found no room, since its own network has most that wait.
    Busy,
    /// `logins_waiting_max`: it waited, and gave way to one of another network or to a familiar one.
    Displaced,
}

impl LoginMetrics {
    /// Counts one, on any thread.
    pub fn count(&self, outcome: LoginOutcome) {
        // Relaxed: a scrape needs no order between counters.
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many ended so.
    pub fn value(&self, outcome: LoginOutcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }
}

impl LoginOutcome {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// All of them.
    pub const ALL: [LoginOutcome; Self::COUNT] = [
        LoginOutcome::Welcome,
        LoginOutcome::Refused,
        LoginOutcome::TooSoon,
        LoginOutcome::Busy,
        LoginOutcome::Displaced,
    ];

    /// The value of the metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            LoginOutcome::Welcome => "welcome",
            LoginOutcome::Refused => "refused",
            LoginOutcome::TooSoon => "too_soon",
            LoginOutcome::Busy => "busy",
            LoginOutcome::Displaced => "displaced",
        }
    }
}
