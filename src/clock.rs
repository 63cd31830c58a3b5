//! The clock: time is read once per turn and passed down.
//!
//! Protocol code gets [`Now`] as an argument and never asks the system. Deadlines are [`Uptime`]:
//! milliseconds since the process began, in 8 bytes, and independent of changes of the wall clock. `unix_ms`
//! is wall time, only for tokens.
//!
//! The system's clocks are read as nanoseconds, without `Instant` and `SystemTime`: the arithmetic of those
//! types took 40 of the 60 instructions of each reading, and a turn reads the clock five times.

#[cfg(test)]
pub(crate) mod simulated;

use std::time::Duration;

use nix::time::ClockId;

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
    /// The reading of the system's monotonic clock when this clock began.
    begin_ns: u64,
    /// The time of a simulation, instead of the system's.
    #[cfg(test)]
    simulated: Option<&'static simulated::Time>,
}

impl Clock {
    /// A clock that begins now.
    pub fn begin() -> Clock {
        Clock {
            begin_ns: read_ns(ClockId::CLOCK_MONOTONIC),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        self.now_and_ns().0
    }

    /// Reads both clocks. The second value is what [`Clock::elapsed_ns`] would return at this moment.
    pub fn now_and_ns(&self) -> (Now, u64) {
        #[cfg(test)]
        if let Some(time) = self.simulated {
            return (time.now(), time.peek_ns());
        }
        let elapsed_ns = self.elapsed_ns();
        let now = Now {
            uptime: uptime_at(elapsed_ns),
            unix_ms: read_ns(ClockId::CLOCK_REALTIME) / NS_PER_MS,
        };
        (now, elapsed_ns)
    }

    /// Reads only the monotonic clock.
    pub fn uptime(&self) -> Uptime {
        uptime_at(self.elapsed_ns())
    }

    /// Nanoseconds since the clock began, for measuring durations.
    pub fn elapsed_ns(&self) -> u64 {
        #[cfg(test)]
        if let Some(time) = self.simulated {
            return time.elapsed_ns();
        }
        read_ns(ClockId::CLOCK_MONOTONIC).saturating_sub(self.begin_ns)
    }
}

fn uptime_at(elapsed_ns: u64) -> Uptime {
    Uptime::from_ms(elapsed_ns / NS_PER_MS)
}

/// Reads a clock of the system. A wall clock set to a time before 1970 counts as zero.
fn read_ns(clock: ClockId) -> u64 {
    let time = clock.now().expect("every system has these two clocks");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds * NS_PER_SECOND + nanoseconds
}

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;
