//! Connections whose messages are collected for a moment and sent as one array: for a while after the handshake, if
//! `batch_on_handshake` is on (wire reference, section 3).
//!
//! Such a connection is in [`Lane::Batch`](crate::cores::lifecycle::connection::Lane::Batch), so that no
//! flush takes its outbox. When its interval is over, the packets that wait there become one array, which is
//! flushed.
//!
//! Invariant: all connections have the same interval, so the first connection in the queue is due first.
//!
//! Limits: each outbox has its own (`outbox_bytes_max`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Uptime;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::protocols::{Framing, Joiner};

/// How long connections collect their messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two arrays.
    pub(crate) interval: Duration,
    /// From the handshake to the last of them.
    pub(crate) duration: Duration,
}

/// The connections of one core that collect their messages.
#[derive(Debug)]
pub(in crate::cores) struct Batches {
    pace: Pace,
    queue: VecDeque<Batching>,
    joiner: Joiner,
}

/// A connection that collects its messages.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Batching {
    pub(in crate::cores) connection: ConnectionId,
    /// When the connection sends the messages that it has collected by then.
    due: Uptime,
    /// When it stops collecting.
    until: Uptime,
}

impl Batches {
    pub(in crate::cores) fn new(pace: Pace) -> Batches {
        Batches {
            pace,
            queue: VecDeque::new(),
            joiner: Joiner::default(),
        }
    }

    /// A connection begins to collect.
    pub(in crate::cores) fn begin(&mut self, connection: ConnectionId, now: Uptime) {
        self.queue.push_back(Batching {
            connection,
            due: now + self.pace.interval.min(self.pace.duration),
            until: now + self.pace.duration,
        });
    }

    /// When the next connection is due; `NEVER` if there is none.
    pub(in crate::cores) fn next_due(&self) -> Uptime {
        self.queue.front().map_or(Uptime::NEVER, |next| next.due)
    }

    /// How many connections collect.
    pub(in crate::cores) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a connection collects.
    #[cfg(test)]
    pub(in crate::cores) fn has(&self, connection: ConnectionId) -> bool {
        self.queue.iter().any(|one| one.connection == connection)
    }

    /// Takes out the next connection, due or not.
    pub(in crate::cores) fn take_next(&mut self) -> Option<Batching> {
        self.queue.pop_front()
    }

    /// A connection that was taken out goes on collecting, if its time is not over. Returns whether it does.
    pub(in crate::cores) fn go_on(&mut self, batching: Batching, now: Uptime) -> bool {
        let goes_on = batching.until > now;
        if goes_on {
            self.queue.push_back(Batching {
                due: (now + self.pace.interval).min(batching.until),
                ..batching
            });
        }
        goes_on
    }

    /// The frames of an outbox, with its packets joined into arrays.
    pub(in crate::cores) fn join(&mut self, framing: Framing, frames: &[u8]) -> &[u8] {
        self.joiner.join(framing, frames)
    }

    /// Frees the memory of large outboxes.
    pub(in crate::cores) fn shrink(&mut self) {
        self.joiner.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_millis(50),
        duration: Duration::from_millis(120),
    };

    #[test]
    fn a_connection_is_due_each_interval_until_its_time_is_over() {
        let mut batches = Batches::new(PACE);
        let id = ConnectionId::new(1, 1);
        let mut now = Uptime::default();
        batches.begin(id, now);
        let mut waited = Vec::new();
        loop {
            waited.push(batches.next_due().since(now).as_millis());
            now = batches.next_due();
            let batching = batches.take_next().expect("one is in");
            assert_eq!(batching.connection, id);
            if !batches.go_on(batching, now) {
                break;
            }
        }
        assert_eq!(waited, [50, 50, 20]);
        assert_eq!((batches.len(), batches.next_due()), (0, Uptime::NEVER));
    }
}
