//! The generator's clock: nanoseconds since the first call in the process, the same for all threads.
#![allow(clippy::disallowed_methods)] // this is where a bench reads it

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the first call.
pub(crate) fn now_ns() -> u64 {
    let started = *START.get_or_init(Instant::now);
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

static START: OnceLock<Instant> = OnceLock::new();

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A duration in nanoseconds.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
