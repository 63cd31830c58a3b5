//! Clients that miss publications, or get them late, because they do not read fast enough: reports for
//! webhooks.
//!
//! A client is reported once, and at most once per [`AGAIN`] after that.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Uptime;
use crate::webhooks::event::Slow;

use crate::cores::lifecycle::connection::ConnectionId;

/// Clients that do not keep up.
#[derive(Debug, Default)]
pub(in crate::cores) struct SlowConsumers {
    /// When each client was last reported, by the index of its connection.
    told: HashMap<u32, (ConnectionId, Uptime)>,
    unreported: Vec<(ConnectionId, Slow)>,
}

impl SlowConsumers {
    /// Notes that a client does not get a publication, or gets it later.
    #[cold]
    pub(in crate::cores) fn note(&mut self, id: ConnectionId, slow: Slow, now: Uptime) {
        let is_told = self
            .told
            .get(&id.index())
            .is_some_and(|(told, at)| *told == id && now.since(*at) < AGAIN);
        if !is_told {
            self.told.insert(id.index(), (id, now));
            self.unreported.push((id, slow));
        }
    }

    /// The clients to report since the last call.
    pub(in crate::cores) fn take_unreported(&mut self) -> Vec<(ConnectionId, Slow)> {
        std::mem::take(&mut self.unreported)
    }
}

/// How soon a client is reported again.
const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_of_once_a_minute() {
        let mut slow = SlowConsumers::default();
        let (one, next) = (ConnectionId::new(3, 1), ConnectionId::new(3, 2));
        for ms in [0, 1, 59_999] {
            slow.note(one, Slow::Skipped, Uptime::from_ms(ms));
        }
        assert_eq!(slow.take_unreported(), [(one, Slow::Skipped)]);
        slow.note(one, Slow::Conflated, Uptime::from_ms(60_000));
        slow.note(next, Slow::Skipped, Uptime::from_ms(60_000));
        assert_eq!(
            slow.take_unreported(),
            [(one, Slow::Conflated), (next, Slow::Skipped)]
        );
        assert!(slow.take_unreported().is_empty());
    }
}
