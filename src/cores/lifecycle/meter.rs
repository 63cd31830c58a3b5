//! Measures one connection: whether it keeps to its rates, and how long it has been idle.
//!
//! A rate is a bucket that fills evenly and holds the burst (GCRA: one time is the whole state). A connection
//! that has emptied its bucket is not read until there is room again, so TCP flow control slows its client
//! down. A connection is closed when its paused time exceeds its unpaused time by `rate_grace`. The meter
//! takes the number of messages and bytes that were read, and the time. It returns how much more may be read,
//! and the action that is due; `receive.rs` and `visits.rs` carry it out.
//!
//! ```text
//!   paused    ▁▂▃▄▅▆▇ closed at rate_grace      grows with the time that it is paused
//!   in excess ▁▂▃▂▁▂▃▂▁▁▂▁                      shrinks with the time that it is not paused, down to zero
//! ```
//!
//! A connection has a meter only while one of these limits is on: [`Measures::new_meter`].
//!
//! Limits: `messages_per_second_max`, `bytes_per_second_max`, with `rate_burst` and `rate_grace`; `idle_timeout`.

use std::time::Duration;

use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::decision::CloseReason;

/// The settings for rates and idle time.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Measures {
    messages: Rate,
    bytes: Rate,
    /// `None` pauses without ever closing.
    grace: Option<Duration>,
    idle: Option<Duration>,
}

/// A limit on messages or bytes: in the long run, and at once.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// 0 for any number.
    per_second: u64,
    burst_ns: u64,
}

/// The measurements of one connection.
#[derive(Debug)]
pub(in crate::cores) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// If it is paused: when it is read again.
    resume: Option<Uptime>,
    /// By how much its paused time exceeds its unpaused time, as of `noted`; never below zero.
    excess: Duration,
    noted: Uptime,
    heartbeats: u64,
    /// The count of messages without heartbeats at `looked`. It last changed at `active`. Comparing counts now and then
    /// costs a message nothing.
    seen: u64,
    looked: Uptime,
    active: Uptime,
}

/// A bucket, as the time at which it will be full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_ns: u64,
}

/// The action that is due for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Due {
    Nothing,
    /// It may be read again.
    Resume,
    Close(CloseReason),
}

impl Measures {
    /// Whether the messages or bytes of a connection per second are limited.
    pub(in crate::cores) fn have_rate(&self) -> bool {
        self.messages.per_second != 0 || self.bytes.per_second != 0
    }

    pub(in crate::cores) fn new(limits: &Limits) -> Measures {
        let rate = |per_second| Rate {
            per_second,
            burst_ns: u64::try_from(limits.rate_burst.as_nanos()).unwrap_or(u64::MAX),
        };
        let unless_zero = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Measures {
            messages: rate(u64::from(limits.messages_per_second_max)),
            bytes: rate(limits.bytes_per_second_max),
            grace: unless_zero(limits.rate_grace),
            idle: unless_zero(limits.idle_timeout),
        }
    }

    /// The meter of a new connection, if any of the limits is on.
    pub(in crate::cores) fn new_meter(&self, now: Uptime) -> Option<Box<Meter>> {
        let is_on = self.messages.per_second != 0 || self.bytes.per_second != 0 || self.idle.is_some();
        is_on.then(|| {
            Box::new(Meter {
                messages: Bucket { full_ns: 0 },
                bytes: Bucket { full_ns: 0 },
                resume: None,
                excess: Duration::ZERO,
                noted: now,
                heartbeats: 0,
                seen: 0,
                looked: now,
                active: now,
            })
        })
    }
}

impl Meter {
    /// Whether it is paused.
    pub(in crate::cores) fn is_paused(&self) -> bool {
        self.resume.is_some()
    }

    /// How many messages and control frames it may still send.
    pub(in crate::cores) fn messages_left(&self, measures: &Measures, now: Uptime) -> u64 {
        self.messages.left(measures.messages, now)
    }

    /// How many bytes it may still send.
    pub(in crate::cores) fn bytes_left(&self, measures: &Measures, now: Uptime) -> u64 {
        self.bytes.left(measures.bytes, now)
    }

    pub(in crate::cores) fn charge_messages(&mut self, count: u64, measures: &Measures, now: Uptime) {
        self.messages.charge(count, measures.messages, now);
    }

    pub(in crate::cores) fn charge_bytes(&mut self, count: u64, measures: &Measures, now: Uptime) {
        self.bytes.charge(count, measures.bytes, now);
    }

    /// Counts messages that were pings and pongs: they do not end idle time.
    pub(in crate::cores) fn count_heartbeats(&mut self, count: u64) {
        self.heartbeats += count;
    }

    /// Pauses a connection that is over a rate, until there is room. False if it was paused already.
    pub(in crate::cores) fn pause(&mut self, measures: &Measures, now: Uptime) -> bool {
        if self.is_paused() {
            return false;
        }
        self.excess = self.excess.saturating_sub(now.since(self.noted));
        self.noted = now;
        let room_at = self
            .messages
            .room_at(measures.messages)
            .max(self.bytes.room_at(measures.bytes));
        self.resume = Some(room_at.max(now));
        true
    }

    /// When [`Meter::due`] must be called next.
    pub(in crate::cores) fn deadline(&self, measures: &Measures) -> Uptime {
        let resume = match (self.resume, measures.grace) {
            (None, _) => Uptime::NEVER,
            (Some(at), None) => at,
            (Some(at), Some(grace)) => at.min(self.noted + grace.saturating_sub(self.excess)),
        };
        let idle = match measures.idle {
            None => Uptime::NEVER,
            Some(timeout) => (self.active + timeout).min(self.looked + look_every(timeout)),
        };
        resume.min(idle)
    }

    /// The action that is due now. `messages` is the number of messages in both directions since the connection began.
    pub(in crate::cores) fn due(&mut self, messages: u64, measures: &Measures, now: Uptime) -> Due {
        if let Some(timeout) = measures.idle {
            self.looked = now;
            let seen = messages.wrapping_sub(self.heartbeats);
            if seen != self.seen {
                (self.seen, self.active) = (seen, now);
            } else if self.active + timeout <= now {
                return Due::Close(CloseReason::IdleTimeout);
            }
        }
        let Some(at) = self.resume else {
            return Due::Nothing;
        };
        let excess = self.excess + now.since(self.noted);
        if measures.grace.is_some_and(|grace| excess >= grace) {
            return Due::Close(CloseReason::RateExceeded);
        }
        if now < at {
            return Due::Nothing;
        }
        (self.resume, self.excess, self.noted) = (None, excess, now);
        Due::Resume
    }
}

impl Rate {
    /// How long an empty bucket takes to fill. It holds the burst, and at least one message or byte.
    fn holds_ns(self) -> u64 {
        self.burst_ns.max(self.cost_ns(1))
    }

    fn cost_ns(self, count: u64) -> u64 {
        let ns = u128::from(count) * NS_PER_SECOND / u128::from(self.per_second.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    fn left(self, rate: Rate, now: Uptime) -> u64 {
        if rate.per_second == 0 {
            return u64::MAX;
        }
        let debt_ns = self.full_ns.saturating_sub(ns(now));
        let left_ns = rate.holds_ns().saturating_sub(debt_ns);
        let left = u128::from(left_ns) * u128::from(rate.per_second) / NS_PER_SECOND;
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    fn charge(&mut self, count: u64, rate: Rate, now: Uptime) {
        if rate.per_second != 0 {
            self.full_ns = self.full_ns.max(ns(now)).saturating_add(rate.cost_ns(count));
        }
    }

    /// When there is room for one message or byte and for a share of the burst. Without the share, a client
    /// above its rate would be read byte by byte.
    fn room_at(self, rate: Rate) -> Uptime {
        if rate.per_second == 0 {
            return Uptime::default();
        }
        let holds_ns = rate.holds_ns();
        let room_ns = (rate.cost_ns(1) + 1).max(holds_ns / RESUMED_SHARE);
        let at_ns = self.full_ns.saturating_sub(holds_ns.saturating_sub(room_ns));
        Uptime::from_ms(at_ns.div_ceil(NS_PER_MS))
    }
}

fn ns(time: Uptime) -> u64 {
    time.as_ms().saturating_mul(NS_PER_MS)
}

/// How often a connection is checked for being idle. It is closed at most this much too late.
fn look_every(timeout: Duration) -> Duration {
    (timeout / 8).max(Duration::from_millis(1))
}

const NS_PER_SECOND: u128 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;
/// A connection that was over its rate is read again when it may send this share of its burst.
const RESUMED_SHARE: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn measures(change: impl FnOnce(&mut Limits)) -> Measures {
        let mut limits = Limits {
            rate_burst: Duration::from_secs(1),
            rate_grace: Duration::from_secs(5),
            ..Limits::default()
        };
        change(&mut limits);
        Measures::new(&limits)
    }

    fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    /// Sends as much as it may as soon as it may, for `for_ms`; returns how much that was, and why it was
    /// closed.
    fn pushed(measures: &Measures, from_ms: u64, for_ms: u64) -> (u64, Option<CloseReason>) {
        let (mut meter, mut sent) = (measures.new_meter(at(from_ms)).unwrap(), 0);
        for ms in from_ms..from_ms + for_ms {
            match meter.due(sent, measures, at(ms)) {
                Due::Close(reason) => return (sent, Some(reason)),
                Due::Nothing | Due::Resume => {}
            }
            if !meter.is_paused() {
                let left = meter.messages_left(measures, at(ms));
                assert!(left > 0, "it is read again when it may send something");
                meter.charge_messages(left, measures, at(ms));
                sent += left;
                meter.pause(measures, at(ms));
            }
        }
        (sent, None)
    }

    #[test]
    fn a_burst_and_then_the_rate_is_what_passes_and_no_more() {
        for per_second in [1, 3, 7, 10, 999, 1000, 100_000] {
            for from_ms in [0, 1, 777_777] {
                let measures = measures(|limits| {
                    limits.messages_per_second_max = per_second;
                    limits.rate_grace = Duration::ZERO;
                });
                let (sent, _) = pushed(&measures, from_ms, 10_001);
                let per_second = u64::from(per_second);
                let may = per_second + 10 * per_second;
                // Messages that a client sends together, for one reading, may still be on their way.
                let least = may - per_second.div_ceil(16) - 1;
                assert!((least..=may).contains(&sent), "{per_second}: {sent} of {may}");
            }
        }
    }

    #[test]
    fn at_least_one_passes_however_short_the_burst() {
        let measures = measures(|limits| {
            limits.messages_per_second_max = 1;
            limits.rate_burst = Duration::from_millis(1);
        });
        let mut meter = measures.new_meter(at(50)).unwrap();
        assert_eq!(meter.messages_left(&measures, at(50)), 1);
        meter.charge_messages(1, &measures, at(50));
        for (ms, left) in [(50, 0), (1049, 0), (1050, 1), (99_000, 1)] {
            assert_eq!(meter.messages_left(&measures, at(ms)), left, "{ms}");
        }
    }

    #[test]
    fn what_was_read_too_much_is_waited_for() {
        let measures = measures(|limits| limits.bytes_per_second_max = 1000);
        let mut meter = measures.new_meter(at(0)).unwrap();
        meter.charge_bytes(3000, &measures, at(0));
        assert!(meter.pause(&measures, at(0)));
        assert!(!meter.pause(&measures, at(0)), "it is paused already");
        // Full at 3 s; room for a sixteenth of a second's worth before.
        assert_eq!(meter.deadline(&measures), at(2063));
        assert_eq!(meter.due(0, &measures, at(2062)), Due::Nothing);
        assert_eq!(meter.bytes_left(&measures, at(2062)), 62);
        assert_eq!(meter.due(0, &measures, at(2063)), Due::Resume);
        assert_eq!(meter.messages_left(&measures, at(0)), u64::MAX);
    }

    #[test]
    fn a_client_that_is_always_paused_is_closed_when_the_grace_is_over_and_not_before() {
        let measures = measures(|limits| limits.messages_per_second_max = 10);
        assert_eq!(pushed(&measures, 100, 5000).1, None);
        assert_eq!(pushed(&measures, 100, 5001).1, Some(CloseReason::RateExceeded));
    }

    #[test]
    fn a_client_that_is_paused_less_than_half_of_the_time_is_never_closed() {
        let measures = measures(|limits| limits.messages_per_second_max = 10);
        for (pause_ms, may_go_on) in [(400, true), (500, true), (600, false)] {
            let mut meter = measures.new_meter(at(0)).unwrap();
            let mut went_on = true;
            for second in 0..100 {
                let begin = second * 1000;
                meter.charge_messages(20, &measures, at(begin));
                meter.resume = None;
                meter.pause(&measures, at(begin));
                meter.resume = Some(at(begin + pause_ms));
                went_on &= meter.due(0, &measures, at(begin + pause_ms)) == Due::Resume;
            }
            assert_eq!(went_on, may_go_on, "{pause_ms} ms of each second");
        }
    }

    #[test]
    fn without_grace_nobody_is_closed() {
        let measures = measures(|limits| {
            limits.messages_per_second_max = 10;
            limits.rate_grace = Duration::ZERO;
        });
        assert_eq!(pushed(&measures, 0, 100_000).1, None);
    }

    #[test]
    fn heartbeats_keep_nobody_from_being_idle_and_messages_do() {
        let measures = measures(|limits| limits.idle_timeout = Duration::from_secs(8));
        let mut meter = measures.new_meter(at(0)).unwrap();
        let mut messages = 3;
        assert_eq!(meter.due(messages, &measures, at(1000)), Due::Nothing);
        for second in 2..9 {
            messages += 2;
            meter.count_heartbeats(2);
            assert_eq!(meter.deadline(&measures), at(second * 1000));
            assert_eq!(meter.due(messages, &measures, at(second * 1000)), Due::Nothing);
        }
        assert_eq!(meter.due(messages, &measures, at(8999)), Due::Nothing);
        assert_eq!(meter.deadline(&measures), at(9000));
        let idle = Due::Close(CloseReason::IdleTimeout);
        assert_eq!(meter.due(messages, &measures, at(9000)), idle);
        // After one more message, the connection is as if it had just begun.
        assert_eq!(meter.due(messages + 1, &measures, at(9000)), Due::Nothing);
        assert_eq!(meter.due(messages + 1, &measures, at(16_999)), Due::Nothing);
        assert_eq!(meter.due(messages + 1, &measures, at(17_000)), idle);
    }

    #[test]
    fn without_any_of_these_limits_there_is_no_meter() {
        let off = measures(|_| {});
        assert!(off.new_meter(at(0)).is_none());
        for on in [
            measures(|limits| limits.messages_per_second_max = 1),
            measures(|limits| limits.bytes_per_second_max = 1),
            measures(|limits| limits.idle_timeout = Duration::from_millis(1)),
        ] {
            assert!(on.new_meter(at(0)).is_some());
        }
    }
}
