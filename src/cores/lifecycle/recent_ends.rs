//! The last connections that have ended, for operators (`/closed`).
//!
//! Limits: [`ENDS_KEPT`], in memory that is allocated once.

use std::time::Duration;

use crate::client::ClientAddress;
use crate::decision::CloseReason;
use crate::session::{ClientProtocol, SessionId};

use crate::cores::lifecycle::tally::Tally;

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) reason: CloseReason,
    /// In milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// The protocol of its session, if it has had one.
    pub(crate) protocol: Option<ClientProtocol>,
    /// The socket's id, if it has had one.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    pub(crate) age: Duration,
    /// The tally at the end. Bytes that waited then may have been written since.
    pub(crate) tally: Tally,
}

/// The last ends of a core.
#[derive(Debug)]
pub(in crate::cores) struct RecentEnds {
    ring: Vec<End>,
    /// The place of the next end, once the list has [`ENDS_KEPT`] of them.
    oldest: usize,
}

impl RecentEnds {
    pub(in crate::cores) fn new() -> RecentEnds {
        RecentEnds {
            ring: Vec::with_capacity(ENDS_KEPT),
            oldest: 0,
        }
    }

    pub(in crate::cores) fn note(&mut self, end: End) {
        if self.ring.len() < ENDS_KEPT {
            self.ring.push(end);
            return;
        }
        self.ring[self.oldest] = end;
        self.oldest = (self.oldest + 1) % ENDS_KEPT;
    }

    pub(in crate::cores) fn latest_first(&self) -> Vec<End> {
        let (later, earlier) = self.ring.split_at(self.oldest);
        later.iter().rev().chain(earlier.iter().rev()).copied().collect()
    }
}

/// RecentEnds that a core remembers.
pub(crate) const ENDS_KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ends_are_kept_and_the_latest_comes_first() {
        let mut ends = RecentEnds::new();
        let room = ends.ring.capacity();
        for count in 1..=2 * ENDS_KEPT as u64 + 7 {
            ends.note(End {
                protocol: None,
                reason: CloseReason::PeerClosed,
                at_unix_ms: count,
                id: None,
                client: ClientAddress::UNKNOWN,
                age: Duration::ZERO,
                tally: Tally::default(),
            });
            if [1, 999, 1000, 1001, 2007].contains(&count) {
                let kept: Vec<u64> = ends.latest_first().iter().map(|end| end.at_unix_ms).collect();
                let expected: Vec<u64> = (1..=count).rev().take(ENDS_KEPT).collect();
                assert_eq!(kept, expected);
            }
        }
        assert_eq!(ends.ring.capacity(), room, "asked for once");
    }
}
