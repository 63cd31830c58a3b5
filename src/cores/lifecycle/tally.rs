//! What is counted of one connection, for those who look at it: `/slow`, `/closed`, and its idle time.
//!
//! Counted where a core counts for its metrics as well: once for each read and each flush, and one addition for each
//! message that is queued.

use std::time::Duration;

use crate::clock::Uptime;

/// What has passed through a connection since it came. Messages are WebSocket messages, heartbeats included; bytes are
/// those of its socket, heads and frames' headers included. Messages are counted modulo 2^32, so that this has its
/// place in the first line of a connection (`connection.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Whole messages received.
    pub(crate) messages_in: u32,
    /// Messages queued for sending.
    pub(crate) messages_out: u32,
    /// Bytes read.
    pub(crate) bytes_in: u64,
    /// Bytes written.
    pub(crate) bytes_out: u64,
}

impl Tally {
    /// Counts messages that have come.
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is what is counted")]
    pub(in crate::cores) fn take_in(&mut self, messages: u64) {
        self.messages_in = self.messages_in.wrapping_add(messages as u32);
    }

    /// Counts messages that are to be sent.
    #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is what is counted")]
    pub(in crate::cores) fn queue(&mut self, messages: u64) {
        self.messages_out = self.messages_out.wrapping_add(messages as u32);
    }

    /// A number that changes with each message.
    pub(in crate::cores) fn messages(&self) -> u64 {
        u64::from(self.messages_in) + u64::from(self.messages_out)
    }
}

/// When a connection came: in hundredths of a second, since there is one of these for each connection. Ages are right
/// up to 497 days, however long the server runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Opened(u32);

impl Opened {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the high bits cancel out in `age`"
    )]
    pub(in crate::cores) const fn at(now: Uptime) -> Opened {
        Opened((now.as_ms() / UNIT_MS) as u32)
    }

    /// How long ago that was.
    pub(in crate::cores) const fn age(self, now: Uptime) -> Duration {
        let units = Opened::at(now).0.wrapping_sub(self.0);
        Duration::from_millis(units as u64 * UNIT_MS)
    }
}

const UNIT_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_right_when_the_count_of_hundredths_wraps() {
        let wrap_ms = (1 << 32) * UNIT_MS;
        for opened in [0, 5_000, wrap_ms - 100, wrap_ms, 3 * wrap_ms + 40] {
            for age in [0, 10, 990, 1000, 86_400_000] {
                let opened_at = Opened::at(Uptime::from_ms(opened));
                let now = Uptime::from_ms(opened + age);
                assert_eq!(opened_at.age(now), Duration::from_millis(age), "{opened} {age}");
            }
        }
    }
}
