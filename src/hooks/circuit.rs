//! Whether requests to a target are paused, because it has failed again and again.
//!
//! ```text
//!            failures_max failures                     the pause is over
//!   closed ────────────────────────► open (pause) ────────────────────────► trying: one request
//!      ▲                              ▲                                        │
//!      └── success ───────────────────┼────────────────────────────────────────┤
//!                                     └── failure: the pause doubles ──────────┘
//! ```
//! Pure: takes the time.

use std::time::Duration;

use tokio::time::Instant;

/// The state of one target.
#[derive(Debug)]
pub(super) struct Circuit {
    failures_max: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Requests are sent; so many have failed since the last one that has not.
    Closed { failures: u32 },
    /// No request is sent before `until`.
    Open { until: Instant, pause: Duration },
    /// One request is on its way.
    Trying { since: Instant, pause: Duration },
}

/// What an outcome has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Requests to the target are paused from now on.
    Opened,
    /// It answers again.
    Closed,
}

impl Circuit {
    /// A target that has not failed. With a `failures_max` of 0, requests are never paused.
    pub(super) fn new(failures_max: u32) -> Circuit {
        Circuit {
            failures_max,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether a request may be sent. If so, the caller reports its outcome.
    pub(super) fn allows_request(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, pause } if now >= until => {
                self.state = State::Trying { since: now, pause };
                true
            }
            // The outcome was never reported: the runtime has dropped the request.
            State::Trying { since, pause } if now >= since + PAUSE_MAX => {
                self.state = State::Trying { since: now, pause };
                true
            }
            State::Open { .. } | State::Trying { .. } => false,
        }
    }

    /// A request was answered as it should be.
    pub(super) fn succeeded(&mut self) -> Change {
        match std::mem::replace(&mut self.state, State::Closed { failures: 0 }) {
            State::Closed { .. } => Change::None,
            State::Open { .. } | State::Trying { .. } => Change::Closed,
        }
    }

    /// A request has failed.
    pub(super) fn failed(&mut self, now: Instant) -> Change {
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if self.failures_max == 0 || *failures < self.failures_max {
                    return Change::None;
                }
                self.state = State::Open {
                    until: now + PAUSE_MIN,
                    pause: PAUSE_MIN,
                };
                Change::Opened
            }
            State::Trying { pause, .. } => {
                let pause = (*pause * 2).min(PAUSE_MAX);
                self.state = State::Open {
                    until: now + pause,
                    pause,
                };
                Change::None
            }
            // A request that was sent before.
            State::Open { .. } => Change::None,
        }
    }
}

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_fails_is_tried_by_one_request_after_each_pause() {
        let mut now = Instant::now();
        let mut circuit = Circuit::new(3);
        for _ in 0..2 {
            assert_eq!(circuit.failed(now), Change::None);
        }
        assert_eq!(circuit.succeeded(), Change::None);
        let outcomes: Vec<Change> = (0..3).map(|_| circuit.failed(now)).collect();
        assert_eq!(outcomes, [Change::None, Change::None, Change::Opened]);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            now += Duration::from_secs(seconds) - Duration::from_millis(1);
            assert!(!circuit.allows_request(now), "{seconds}");
            now += Duration::from_millis(1);
            assert!(circuit.allows_request(now) && !circuit.allows_request(now), "one");
            assert_eq!(circuit.failed(now), Change::None);
            assert_eq!(circuit.failed(now), Change::None, "one of before");
        }
        now += PAUSE_MAX;
        assert!(circuit.allows_request(now));
        assert_eq!(circuit.succeeded(), Change::Closed);
        assert!(circuit.allows_request(now) && circuit.allows_request(now));
    }

    #[test]
    fn a_request_whose_outcome_is_never_told_does_not_close_the_target_for_ever() {
        let now = Instant::now();
        let mut circuit = Circuit::new(1);
        assert_eq!(circuit.failed(now), Change::Opened);
        assert!(circuit.allows_request(now + PAUSE_MIN));
        assert!(!circuit.allows_request(now + PAUSE_MAX));
        assert!(circuit.allows_request(now + PAUSE_MIN + PAUSE_MAX));
    }

    #[test]
    fn without_a_bound_a_target_is_never_left_alone() {
        let mut circuit = Circuit::new(0);
        for _ in 0..1000 {
            assert_eq!(circuit.failed(Instant::now()), Change::None);
        }
        assert!(circuit.allows_request(Instant::now()));
    }
}
