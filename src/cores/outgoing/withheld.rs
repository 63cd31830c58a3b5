//! Positions of publications that the application has withheld from subscribers.
//!
//! A publication that a client gets tells its position, and the client asks for recovery with the position of the last one.
//! One that is withheld tells nothing: if many follow one another, the history loses what lies behind the client's position,
//! and the client would be told of a gap in which nothing is that it may have. So the position of the last one that was
//! withheld is noted here, for each subscription, and told to the client once in a while (`recovery/positions.rs`).
//!
//! A publication that the client gets makes a position before it superfluous. While the subscription is not live yet, the
//! client is told nothing: what it still has to get may lie before the position.
//!
//! Limits: one position for each subscription, of which `channels_per_connection_max` bounds the number.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::recoveries::SubscriptionKey;
use crate::clock::Uptime;

/// The positions of one core.
#[derive(Debug)]
pub(in crate::cores) struct WithheldPositions {
    /// The offset of each, by connection and channel.
    offsets: BTreeMap<(u32, u32), u64>,
    /// The subscription at which the round goes on, if one is under way.
    at: Option<(u32, u32)>,
    due: Uptime,
}

impl Default for WithheldPositions {
    fn default() -> WithheldPositions {
        WithheldPositions {
            offsets: BTreeMap::new(),
            at: None,
            due: Uptime::NEVER,
        }
    }
}

impl WithheldPositions {
    /// A publication with this offset was withheld from a subscriber.
    pub(in crate::cores) fn note(&mut self, place: SubscriptionKey, offset: u64, now: Uptime) {
        if self.offsets.is_empty() {
            self.due = now + TOLD_EVERY;
        }
        let noted = self.offsets.entry(key(place)).or_insert(offset);
        *noted = offset.max(*noted);
    }

    /// A subscriber gets a publication with this offset, or is told of a position with it.
    #[inline]
    pub(in crate::cores) fn pass(&mut self, place: SubscriptionKey, offset: u64) {
        if !self.offsets.is_empty()
            && self
                .offsets
                .get(&key(place))
                .is_some_and(|&noted| noted <= offset)
        {
            self.forget(place);
        }
    }

    /// A subscription has ended, or its client asks for recovery.
    pub(in crate::cores) fn forget(&mut self, place: SubscriptionKey) {
        self.offsets.remove(&key(place));
        self.note_removed();
    }

    /// A connection has ended.
    pub(in crate::cores) fn end_connection(&mut self, connection: u32) {
        while let Some((&key, _)) = self
            .offsets
            .range((connection, 0)..=(connection, u32::MAX))
            .next()
        {
            self.offsets.remove(&key);
        }
        self.note_removed();
    }

    fn note_removed(&mut self) {
        if self.offsets.is_empty() {
            (self.at, self.due) = (None, Uptime::NEVER);
        }
    }

    /// Whether there is none.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// When clients are to be told next; `NEVER` if there is nothing to tell.
    pub(in crate::cores) fn due(&self) -> Uptime {
        self.due
    }

    /// Goes on with the round that is due: returns the next positions, at most `max`. The caller gives each position that
    /// it has sent to [`WithheldPositions::pass`]; the others come again in the next round.
    pub(in crate::cores) fn next_of_round(&mut self, max: usize, now: Uptime) -> Vec<(SubscriptionKey, u64)> {
        let from = self.at.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.offsets.range((from, Bound::Unbounded)).take(max);
        let next: Vec<_> = next
            .map(|(&(connection, channel), &offset)| (SubscriptionKey { connection, channel }, offset))
            .collect();
        let is_over = next.len() < max;
        self.at = next.last().map(|(place, _)| key(*place)).filter(|_| !is_over);
        self.due = if is_over { now + TOLD_EVERY } else { now };
        self.note_removed();
        next
    }
}

fn key(place: SubscriptionKey) -> (u32, u32) {
    (place.connection, place.channel)
}

/// The time between two rounds. A client that recovers before its round asks from an older position; the withheld
/// publications behind that position are withheld again.
const TOLD_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn place(connection: u32, channel: u32) -> SubscriptionKey {
        SubscriptionKey { connection, channel }
    }

    fn told(withheld: &mut WithheldPositions, max: usize, now: Uptime) -> Vec<(SubscriptionKey, u64)> {
        let round = withheld.next_of_round(max, now);
        round
            .iter()
            .for_each(|&(place, offset)| withheld.pass(place, offset));
        round
    }

    #[test]
    fn the_last_position_is_told_unless_the_client_gets_a_later_publication() {
        let mut withheld = WithheldPositions::default();
        let now = Uptime::default();
        assert_eq!(withheld.due(), Uptime::NEVER);
        for offset in [5, 7, 6] {
            withheld.note(place(1, 1), offset, now);
        }
        withheld.note(place(2, 1), 7, now);
        withheld.note(place(3, 1), 7, now);
        withheld.note(place(3, 2), 8, now);
        assert_eq!(withheld.due(), now + TOLD_EVERY);
        // One before the position leaves it, one behind it makes it superfluous.
        withheld.pass(place(1, 1), 6);
        withheld.pass(place(2, 1), 9);
        assert_eq!(told(&mut withheld, 2, now), [(place(1, 1), 7), (place(3, 1), 7)]);
        assert_eq!(withheld.due(), now, "the round goes on in the next turn");
        withheld.note(place(1, 1), 10, now);
        assert_eq!(told(&mut withheld, 2, now), [(place(3, 2), 8)]);
        assert_eq!(withheld.due(), now + TOLD_EVERY);
        withheld.end_connection(1);
        assert!(withheld.is_empty());
        assert_eq!(withheld.due(), Uptime::NEVER);
    }

    #[test]
    fn what_is_not_told_comes_in_the_next_round() {
        let mut withheld = WithheldPositions::default();
        let now = Uptime::default();
        withheld.note(place(1, 1), 5, now);
        for _ in 0..2 {
            assert_eq!(withheld.next_of_round(1, now), [(place(1, 1), 5)]);
            assert!(withheld.next_of_round(1, now).is_empty());
        }
        withheld.forget(place(1, 1));
        assert_eq!((withheld.is_empty(), withheld.due()), (true, Uptime::NEVER));
    }
}
