//! Whether each core turns.
//!
//! A core that has nothing to do sleeps, and a sleeping core is well. So a core whose count of turns has not changed
//! since the last look is woken, and the time from then until it turns is the time for which it has stood still.
//!
//! `/healthz`, `/readyz`, `/metrics` and the watchdog of the service manager all ask here. A task looks once a second at
//! the least (`watch`), and `/healthz` looks again before it answers.
//!
//! Invariants
//! 1. Time in which nobody looked counts against no core: while the process was stopped, or had no CPU, the cores had
//!    none either, and may turn as soon as this thread does (`look`).
//! 2. Nothing here waits for a core: a look reads counters and writes to eventfds.
//!
//! Limits: `liveness_timeout_ms`; the metric is `ringcast_core_stuck_seconds`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::ControlState;
use crate::clock::Uptime;
use crate::cores::operators::mailbox::CoreHandle;

/// What is known of the turns of all cores.
#[derive(Debug)]
pub(super) struct Liveness {
    /// From when on a core counts as stuck.
    timeout: Duration,
    look_every: Duration,
    seen: RwLock<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked_at: Uptime,
    cores: Vec<SeenCore>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenCore {
    /// Its turns at the last look.
    turns: Option<u64>,
    /// When it was woken, if it has not been seen to turn since.
    woken_at: Option<Uptime>,
}

/// A core that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) core: usize,
    /// For how long so far.
    pub(super) time: Duration,
}

impl Liveness {
    pub(super) fn new(timeout: Duration, cores: usize, now: Uptime) -> Liveness {
        Liveness {
            timeout,
            look_every: (timeout / LOOKS_PER_TIMEOUT).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX),
            seen: RwLock::new(Seen {
                looked_at: now,
                cores: vec![SeenCore::default(); cores],
            }),
        }
    }

    /// Looks at each core, and wakes those that have not turned since the last look.
    pub(super) fn look(&self, cores: &[CoreHandle], now: Uptime) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let is_late = now.since(seen.looked_at) > self.look_every * 2;
        seen.looked_at = now;
        for (core, seen) in cores.iter().zip(&mut seen.cores) {
            let turns = core.metrics().turns.value();
            if seen.turns != Some(turns) {
                *seen = SeenCore {
                    turns: Some(turns),
                    woken_at: None,
                };
                continue;
            }
            if is_late || seen.woken_at.is_none() {
                seen.woken_at = Some(now);
            }
            core.nudge();
        }
    }

    /// The cores that have stood still for at least `time`, by what the last look saw and what the cores have done since.
    pub(super) fn stuck_for(&self, time: Duration, cores: &[CoreHandle], now: Uptime) -> Vec<Stuck> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let standing = cores.iter().zip(&seen.cores).enumerate();
        standing
            .filter(|(_, (core, seen))| {
                !core.has_stopped() && seen.turns == Some(core.metrics().turns.value())
            })
            .filter_map(|(core, (_, seen))| {
                let time = now.since(seen.woken_at?);
                Some(Stuck { core, time })
            })
            .filter(|stuck| stuck.time >= time)
            .collect()
    }
}

impl ControlState {
    /// The cores that have stood still for `liveness_timeout`, as they are now.
    pub(super) fn stuck_cores(&self) -> Vec<Stuck> {
        let now = self.clock.now().uptime;
        self.liveness.look(&self.cores, now);
        self.liveness.stuck_for(self.liveness.timeout, &self.cores, now)
    }

    /// For how long the core that has stood still for longest has done so.
    pub(super) fn longest_stuck(&self) -> Duration {
        let now = self.clock.now().uptime;
        let standing = self.liveness.stuck_for(Duration::ZERO, &self.cores, now);
        standing.iter().map(|stuck| stuck.time).max().unwrap_or_default()
    }
}

/// Looks for as long as the runtime lives, and logs when a core stands still and when it turns again.
pub(super) async fn watch(shared: Arc<ControlState>) {
    let mut look = interval(shared.liveness.look_every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = vec![false; shared.cores.len()];
    loop {
        look.tick().await;
        let stuck = shared.stuck_cores();
        for (core, told) in told.iter_mut().enumerate() {
            let time = stuck
                .iter()
                .find(|stuck| stuck.core == core)
                .map(|stuck| stuck.time);
            match (time, *told) {
                (Some(time), false) => error!(
                    "core {core} has not turned for {:.1} s: its clients are not served, and /healthz answers 503",
                    time.as_secs_f64()
                ),
                (None, true) => info!("core {core} turns again"),
                (Some(_), true) | (None, false) => {}
            }
            *told = time.is_some();
        }
    }
}

/// A core that is late once is not yet stuck.
const LOOKS_PER_TIMEOUT: u32 = 4;
/// However short the timeout.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);
/// However long it is. A core that sleeps is woken at every other look, so that looks are rare.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::operators::mailbox::{Mailbox, mailbox};

    struct Core {
        mailbox: Mailbox,
        _poll: mio::Poll,
    }

    fn core() -> (CoreHandle, Core) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (handle, mailbox) = mailbox(Arc::new(waker), 1);
        (handle, Core { mailbox, _poll: poll })
    }

    const fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn a_core_that_does_not_turn_after_it_was_woken_is_stuck_and_a_sleeping_one_is_not() {
        let ((first, _first), (second, _second)) = (core(), core());
        let cores = [first, second];
        let liveness = Liveness::new(TIMEOUT, 2, at(0));
        for second in 0..7 {
            liveness.look(&cores, at(second * 1000));
            cores[0].metrics().turns.add(1);
        }
        let stuck = liveness.stuck_for(TIMEOUT, &cores, at(6000));
        // Woken at the second look, since at the first nothing was known.
        assert_eq!(
            stuck,
            [Stuck {
                core: 1,
                time: Duration::from_secs(5)
            }]
        );
        assert!(liveness.stuck_for(TIMEOUT, &cores, at(5999)).is_empty());
        // It has slept since the last look: that it turns is seen at once, by whoever asks.
        cores[1].metrics().turns.add(1);
        assert!(liveness.stuck_for(Duration::ZERO, &cores, at(6000)).is_empty());
    }

    #[test]
    fn time_in_which_nobody_looked_counts_against_no_core() {
        let (handle, _core) = core();
        let cores = [handle];
        let liveness = Liveness::new(TIMEOUT, 1, at(0));
        liveness.look(&cores, at(0));
        liveness.look(&cores, at(1000));
        // The process was stopped for an hour.
        let late = 3_600_000;
        liveness.look(&cores, at(late));
        assert!(liveness.stuck_for(TIMEOUT, &cores, at(late)).is_empty());
        for second in 1..=5 {
            liveness.look(&cores, at(late + second * 1000));
        }
        assert_eq!(liveness.stuck_for(TIMEOUT, &cores, at(late + 5000)).len(), 1);
    }

    #[test]
    fn a_core_that_has_ended_is_not_stuck() {
        let (handle, core) = core();
        let cores = [handle];
        let liveness = Liveness::new(TIMEOUT, 1, at(0));
        liveness.look(&cores, at(0));
        liveness.look(&cores, at(1));
        core.mailbox
            .set_status(crate::cores::operators::mailbox::CoreStatus::Stopped);
        assert!(liveness.stuck_for(Duration::ZERO, &cores, at(10)).is_empty());
    }
}
