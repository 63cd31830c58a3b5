//! Detects cores that have stopped turning.
//!
//! A core without work sleeps, and a sleeping core is healthy. So a core whose count of turns has not changed
//! since the last check is woken. From then until its next turn it counts as standing still.
//!
//! `/healthz`, `/readyz`, `/metrics` and the watchdog of the service manager use this. A task (`watch`)
//! checks all cores at least once a second, and `/healthz` checks them again before it answers.
//!
//! Invariants
//! 1. Time without checks counts against no core: while the process was stopped, or had no CPU, the cores had
//!    none either, and may turn as soon as this thread does (`check`).
//! 2. Nothing here waits for a core: a check reads counters and writes to eventfds.
//!
//! Limits: `liveness_timeout_ms`; the metric is `ringcast_core_stuck_seconds`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use super::ControlState;
use crate::clock::Uptime;
use crate::cores::operators::mailbox::CoreHandle;

/// The last known turns of all cores.
#[derive(Debug)]
pub(super) struct Liveness {
    /// A core that has stood still for this long counts as stuck.
    timeout: Duration,
    check_every: Duration,
    seen: RwLock<Seen>,
}

#[derive(Debug)]
struct Seen {
    checked_at: Uptime,
    cores: Vec<SeenCore>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenCore {
    /// Its count of turns at the last check.
    turns: Option<u64>,
    /// When it was woken, if it has not turned since.
    woken_at: Option<Uptime>,
}

/// A core that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StalledCore {
    pub(super) core: usize,
    /// How long it has stood still so far.
    pub(super) time: Duration,
}

impl Liveness {
    pub(super) fn new(timeout: Duration, cores: usize, now: Uptime) -> Liveness {
        Liveness {
            timeout,
            check_every: (timeout / CHECKS_PER_TIMEOUT).clamp(CHECK_EVERY_MIN, CHECK_EVERY_MAX),
            seen: RwLock::new(Seen {
                checked_at: now,
                cores: vec![SeenCore::default(); cores],
            }),
        }
    }

    /// Checks each core, and wakes the cores that have not turned since the last check.
    pub(super) fn check(&self, cores: &[CoreHandle], now: Uptime) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let is_late = now.since(seen.checked_at) > self.check_every * 2;
        seen.checked_at = now;
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
            core.request_turn();
        }
    }

    /// The cores that have stood still for at least `time`, by the last check and the turns since.
    pub(super) fn stuck_for(&self, time: Duration, cores: &[CoreHandle], now: Uptime) -> Vec<StalledCore> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let standing = cores.iter().zip(&seen.cores).enumerate();
        standing
            .filter(|(_, (core, seen))| {
                !core.has_stopped() && seen.turns == Some(core.metrics().turns.value())
            })
            .filter_map(|(core, (_, seen))| {
                let time = now.since(seen.woken_at?);
                Some(StalledCore { core, time })
            })
            .filter(|stuck| stuck.time >= time)
            .collect()
    }
}

impl ControlState {
    /// Checks the cores now; returns those that have stood still for `liveness_timeout`.
    pub(super) fn stuck_cores(&self) -> Vec<StalledCore> {
        let now = self.clock.now().uptime;
        self.liveness.check(&self.cores, now);
        self.liveness.stuck_for(self.liveness.timeout, &self.cores, now)
    }

    /// The longest time for which a core has stood still.
    pub(super) fn longest_stuck(&self) -> Duration {
        let now = self.clock.now().uptime;
        let standing = self.liveness.stuck_for(Duration::ZERO, &self.cores, now);
        standing.iter().map(|stuck| stuck.time).max().unwrap_or_default()
    }
}

/// Checks for as long as the runtime lives. Logs when a core stands still, and when it turns again.
pub(super) async fn watch(shared: Arc<ControlState>) {
    let mut check = interval(shared.liveness.check_every);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = vec![false; shared.cores.len()];
    loop {
        check.tick().await;
        let stuck = shared.stuck_cores();
        for (core, reported) in reported.iter_mut().enumerate() {
            let time = stuck
                .iter()
                .find(|stuck| stuck.core == core)
                .map(|stuck| stuck.time);
            match (time, *reported) {
                (Some(time), false) => error!(
                    "core {core} has not turned for {:.1} s: it serves none of its clients, and /healthz \
                     answers 503",
                    time.as_secs_f64()
                ),
                (None, true) => info!("core {core} turns again"),
                (Some(_), true) | (None, false) => {}
            }
            *reported = time.is_some();
        }
    }
}

/// Several checks per timeout, so that one late turn does not yet count as stuck.
const CHECKS_PER_TIMEOUT: u32 = 4;
/// The shortest time between two checks, however short the timeout.
const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);
/// The longest, however long the timeout. A sleeping core is woken at every second check, so checks are rare.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(1);

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
            liveness.check(&cores, at(second * 1000));
            cores[0].metrics().turns.add(1);
        }
        let stuck = liveness.stuck_for(TIMEOUT, &cores, at(6000));
        // The second check woke it: at the first its earlier turns were not known.
        assert_eq!(
            stuck,
            [StalledCore {
                core: 1,
                time: Duration::from_secs(5)
            }]
        );
        assert!(liveness.stuck_for(TIMEOUT, &cores, at(5999)).is_empty());
        // A turn since the last check is seen at once.
        cores[1].metrics().turns.add(1);
        assert!(liveness.stuck_for(Duration::ZERO, &cores, at(6000)).is_empty());
    }

    #[test]
    fn time_without_checks_counts_against_no_core() {
        let (handle, _core) = core();
        let cores = [handle];
        let liveness = Liveness::new(TIMEOUT, 1, at(0));
        liveness.check(&cores, at(0));
        liveness.check(&cores, at(1000));
        // The process was stopped for an hour.
        let late = 3_600_000;
        liveness.check(&cores, at(late));
        assert!(liveness.stuck_for(TIMEOUT, &cores, at(late)).is_empty());
        for second in 1..=5 {
            liveness.check(&cores, at(late + second * 1000));
        }
        assert_eq!(liveness.stuck_for(TIMEOUT, &cores, at(late + 5000)).len(), 1);
    }

    #[test]
    fn a_core_that_has_ended_is_not_stuck() {
        let (handle, core) = core();
        let cores = [handle];
        let liveness = Liveness::new(TIMEOUT, 1, at(0));
        liveness.check(&cores, at(0));
        liveness.check(&cores, at(1));
        core.mailbox
            .set_status(crate::cores::operators::mailbox::CoreStatus::Stopped);
        assert!(liveness.stuck_for(Duration::ZERO, &cores, at(10)).is_empty());
    }
}
