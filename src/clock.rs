//! The clock: time is read once per turn and passed down.
//!
//! Protocol code gets [`Now`] as an argument and never asks the system. Deadlines are [`Uptime`]:
//! milliseconds since the process began, in 8 bytes, and independent of changes of the wall clock. `unix_ms`
//! is wall time, only for tokens.

#[cfg(test)]
pub(crate) mod simulated;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, for deadlines.
    pub uptime: Uptime,
    /// Wall time in milliseconds since 1970, for `exp`, `nbf` and `iat`.
    pub unix_ms: u64,
}

/// Milliseconds since the clock of this process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Uptime(u64);

impl Uptime {
    /// A deadline that never comes.
    pub const NEVER: Uptime = Uptime(u64::MAX);

    /// The given number of milliseconds after the clock began.
    pub const fn from_ms(ms: u64) -> Uptime {
        Uptime(ms)
    }

    /// Milliseconds since the clock began.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this; zero if this is not later.
    pub fn since(self, earlier: Uptime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Uptime {
    type Output = Uptime;

    fn add(self, duration: Duration) -> Uptime {
        Uptime(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// The clock of one thread. All clones of one clock agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin: Instant,
    /// The time of a simulation, instead of the system's.
    #[cfg(test)]
    simulated: Option<&'static simulated::Time>,
}

impl Clock {
    /// A clock that begins now.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn begin() -> Clock {
        Clock {
            begin: Instant::now(),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> Now {
        #[cfg(test)]
        if let Some(time) = self.simulated {
            return time.now();
        }
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Now {
            uptime: Uptime::from_ms(self.elapsed_ms()),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Nanoseconds since the clock began, for measuring durations.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn elapsed_ns(&self) -> u64 {
        #[cfg(test)]
        if let Some(time) = self.simulated {
            return time.elapsed_ns();
        }
        u64::try_from(Instant::now().duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn elapsed_ms(&self) -> u64 {
        self.elapsed_ns() / 1_000_000
    }
}
