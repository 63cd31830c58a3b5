//! The newest publication of each channel, for a subscriber that has not kept up.
//!
//! With the policy `conflate`, a publication is kept here while the outbox of its subscriber is over its limit. When
//! the outbox has been sent, the kept publications follow, in the order in which they were last replaced. While any
//! publication waits here, all later ones for the same subscriber are kept here too. So the order of a channel never
//! goes backward, and the newest publication of all is sent last.
//!
//! Limits: as many publications as the connection has subscriptions, and as many bytes as `outbox_bytes_max` allows the
//! outbox itself. A connection that needs more is closed.

use std::collections::HashMap;

/// The publications that wait for one connection.
#[derive(Debug, Default)]
pub(in crate::cores) struct Conflated {
    newest: HashMap<Key, Newest>,
    bytes: usize,
    /// How many publications have been kept: the place of the next in the order.
    count: u64,
}

#[derive(Debug)]
struct Newest {
    frame: Vec<u8>,
    place: u64,
}

/// The name of a channel for a [`Conflated`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cores) enum Key {
    /// The number that [`Subscriptions`](crate::broker::Subscriptions) gives the channel. It stands for the
    /// same channel as long as the connection is subscribed to it.
    Channel(u32),
    /// The topic, for an MQTT client. Its subscriptions have no number for a topic: many topics may match one filter.
    Topic(Box<[u8]>),
}

/// The outcome of [`Conflated::keep`] for a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Conflation {
    /// The publication waits; no other of its channel did.
    Added,
    /// The publication waits in the place of an older one, which will not be sent.
    Replaced,
    /// There is no room for the publication.
    Full,
}

impl Conflated {
    /// Keeps a publication, a whole frame, as the newest of its channel. A single publication may be of any
    /// size.
    pub(in crate::cores) fn keep(&mut self, channel: Key, frame: &[u8], bytes_max: usize) -> Conflation {
        let older = self.newest.get(&channel).map(|older| older.frame.len());
        let others = self.bytes - older.unwrap_or(0);
        if others > 0 && others + frame.len() > bytes_max {
            return Conflation::Full;
        }
        self.bytes = others + frame.len();
        let newest = self.newest.entry(channel).or_insert_with(|| Newest {
            frame: Vec::new(),
            place: 0,
        });
        newest.frame.clear();
        newest.frame.extend_from_slice(frame);
        newest.place = self.count;
        self.count += 1;
        match older {
            Some(_) => Conflation::Replaced,
            None => Conflation::Added,
        }
    }

    /// Drops the publication of a channel, if one waits.
    pub(in crate::cores) fn forget(&mut self, channel: u32) {
        if let Some(gone) = self.newest.remove(&Key::Channel(channel)) {
            self.bytes -= gone.frame.len();
        }
    }

    /// The bytes of all frames that wait.
    pub(in crate::cores) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many channels have a publication that waits.
    pub(in crate::cores) fn len(&self) -> usize {
        self.newest.len()
    }

    /// All frames that wait, in order.
    pub(in crate::cores) fn into_frames(self) -> impl ExactSizeIterator<Item = Vec<u8>> {
        let mut all: Vec<Newest> = self.newest.into_values().collect();
        all.sort_unstable_by_key(|newest| newest.place);
        all.into_iter().map(|newest| newest.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(conflated: Conflated) -> Vec<Vec<u8>> {
        conflated.into_frames().collect()
    }

    #[test]
    fn of_each_channel_the_newest_is_kept_and_they_follow_in_the_order_of_their_last_update() {
        let mut conflated = Conflated::default();
        for (channel, frame, outcome) in [
            (7, "a1", Conflation::Added),
            (3, "b1", Conflation::Added),
            (7, "a2", Conflation::Replaced),
            (9, "c1", Conflation::Added),
            (3, "b2 is longer", Conflation::Replaced),
        ] {
            assert_eq!(
                conflated.keep(Key::Channel(channel), frame.as_bytes(), 100),
                outcome,
                "{frame}"
            );
        }
        assert_eq!((conflated.len(), conflated.bytes()), (3, 2 + 2 + 12));
        assert_eq!(frames(conflated), [&b"a2"[..], b"c1", b"b2 is longer"]);
    }

    #[test]
    fn the_bound_is_exact_and_one_alone_may_be_of_any_size() {
        let mut conflated = Conflated::default();
        assert_eq!(conflated.keep(Key::Channel(1), &[1; 20], 10), Conflation::Added);
        assert_eq!(
            conflated.keep(Key::Channel(1), &[2; 30], 10),
            Conflation::Replaced
        );
        assert_eq!(conflated.keep(Key::Channel(2), &[3; 1], 10), Conflation::Full);
        assert_eq!(conflated.keep(Key::Channel(1), &[4; 4], 10), Conflation::Replaced);
        assert_eq!(conflated.keep(Key::Channel(2), &[5; 7], 10), Conflation::Full);
        assert_eq!(conflated.keep(Key::Channel(2), &[5; 6], 10), Conflation::Added);
        assert_eq!(
            conflated.keep(Key::Channel(1), &[6; 5], 10),
            Conflation::Full,
            "what waited is kept"
        );
        assert_eq!(frames(conflated), [vec![4; 4], vec![5; 6]]);
    }

    #[test]
    fn nothing_is_left_of_a_channel_that_was_forgotten() {
        let mut conflated = Conflated::default();
        conflated.keep(Key::Channel(1), b"one", 100);
        conflated.keep(Key::Channel(2), b"two", 100);
        conflated.forget(1);
        conflated.forget(5);
        assert_eq!((conflated.len(), conflated.bytes()), (1, 3));
        assert_eq!(conflated.keep(Key::Channel(1), b"again", 100), Conflation::Added);
        assert_eq!(frames(conflated), [&b"two"[..], b"again"]);
    }
}
