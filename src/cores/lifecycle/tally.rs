//! Counts the messages and bytes of one connection, for `/slow`, `/closed` and its idle time.
//!
//! A core counts them where it counts for its metrics: once for each read and each flush, and by one addition for each
//! message that it queues.

use std::time::Duration;

use crate::clock::Uptime;

/// The messages and bytes of a connection since it began. Messages are WebSocket messages, heartbeats included. Bytes
/// are those of the socket, with heads and frame headers. Messages are counted modulo 2^32, so that the tally fits into
/// the first cache line of a connection (`connection.rs`).
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
    /// Counts messages that were received.
    #[expect(clippy::cast_possible_truncation, reason = "messages are counted modulo 2^32")]
    pub(in crate::cores) fn take_in(&mut self, messages: u64) {
        self.messages_in = self.messages_in.wrapping_add(messages as u32);
    }

    /// Counts messages that are to be sent.
    #[expect(clippy::cast_possible_truncation, reason = "messages are counted modulo 2^32")]
    pub(in crate::cores) fn queue(&mut self, messages: u64) {
        self.messages_out = self.messages_out.wrapping_add(messages as u32);
    }

    /// A number that changes with each message.
    pub(in crate::cores) fn messages(&self) -> u64 {
        u64::from(self.messages_in) + u64::from(self.messages_out)
    }
}

/// When a connection began, in hundredths of a second: 4 bytes for each connection. Ages are correct up to 497 days,
/// however long the server runs.
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
