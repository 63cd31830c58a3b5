//! The simulated time: it only moves when a simulation advances it or code reads it.
//!
//! Each reading advances it by a small random amount (seeded), so that work with a time budget ends at points
//! that the seed determines. Each thread has one time, since clocks are copied freely and must refer to it
//! without a lifetime.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Now, Uptime};

/// The time of one thread's simulation. All atomics are relaxed: only one thread uses it, although its type
/// allows more.
#[derive(Debug, Default)]
pub(crate) struct Time {
    ns: AtomicU64,
    /// The wall clock when `ns` was 0, in milliseconds since 1970.
    unix_ms: AtomicU64,
    /// The largest amount by which a reading advances it.
    creep_ns_max: AtomicU64,
    random: AtomicU64,
}

thread_local! {
    static TIME: &'static Time = Box::leak(Box::default());
}

impl Time {
    /// Resets this thread's time.
    pub(crate) fn begin(seed: u64, creep_ns_max: u64) -> &'static Time {
        let time = TIME.with(|time| *time);
        // A core's first tick lies before this time.
        time.ns.store(1_000_000_000, Ordering::Relaxed);
        time.unix_ms.store(1_700_000_000_000, Ordering::Relaxed);
        time.creep_ns_max.store(creep_ns_max, Ordering::Relaxed);
        time.random.store(seed | 1, Ordering::Relaxed);
        time
    }

    /// A clock that shows this time.
    pub(crate) fn clock(&'static self) -> Clock {
        Clock {
            simulated: Some(self),
            ..Clock::begin()
        }
    }

    /// The time, without advancing it.
    pub(crate) fn peek(&self) -> Now {
        let ms = self.peek_ns() / 1_000_000;
        Now {
            uptime: Uptime::from_ms(ms),
            unix_ms: self.unix_ms.load(Ordering::Relaxed).saturating_add(ms),
        }
    }

    /// Nanoseconds since the beginning, without advancing.
    pub(crate) fn peek_ns(&self) -> u64 {
        self.ns.load(Ordering::Relaxed)
    }

    /// Advances the time.
    pub(crate) fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.ns
            .store(self.peek_ns().saturating_add(ns), Ordering::Relaxed);
    }

    /// Moves the wall clock.
    pub(crate) fn set_wall(&self, by_ms: i64) {
        let unix_ms = self.unix_ms.load(Ordering::Relaxed);
        self.unix_ms
            .store(unix_ms.saturating_add_signed(by_ms), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Now {
        self.advance_a_little();
        self.peek()
    }

    pub(super) fn elapsed_ns(&self) -> u64 {
        self.advance_a_little();
        self.peek_ns()
    }

    fn advance_a_little(&self) {
        let max = self.creep_ns_max.load(Ordering::Relaxed);
        if max == 0 {
            return;
        }
        let mut random = self.random.load(Ordering::Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Ordering::Relaxed);
        self.advance(Duration::from_nanos(random % max));
    }
}
