//! The topic aliases that the server has given to one client (section 3.3.2.3.4), for as long as its connection lasts.
//!
//! The first topics that the client gets are given aliases, as many as the client takes. Most clients take
//! none. For a client that does, each packet is written for it alone: its aim is to save bytes on its
//! network.
//!
//! Limits: [`ALIASES_MAX`] for each client, [`TOPIC_BYTES_MAX`].

use std::collections::HashMap;

/// The alias in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The packet gives it to the topic that it names.
    New(u16),
    /// An earlier packet of the connection has given it to the topic, which this packet does not name.
    Known(u16),
}

/// The aliases of one client.
#[derive(Debug)]
pub(super) struct Aliases {
    max: u16,
    numbers: HashMap<Box<[u8]>, u16>,
}

impl Aliases {
    /// No aliases yet, for a client that takes `topic_alias_maximum`; `None` if it takes none.
    pub(super) fn new(topic_alias_maximum: u16) -> Option<Box<Aliases>> {
        let max = topic_alias_maximum.min(ALIASES_MAX);
        (max > 0).then(|| {
            Box::new(Aliases {
                max,
                numbers: HashMap::new(),
            })
        })
    }

    /// The alias of a topic, if it has one or gets one now. In the latter case the packet must be sent.
    pub(super) fn alias(&mut self, topic: &[u8]) -> Option<Alias> {
        if let Some(&alias) = self.numbers.get(topic) {
            return Some(Alias::Known(alias));
        }
        let next = u16::try_from(self.numbers.len()).ok()?.checked_add(1)?;
        if next > self.max || !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len()) {
            return None;
        }
        self.numbers.insert(topic.into(), next);
        Some(Alias::New(next))
    }
}

/// Most aliases of one client, however many it takes: the server keeps the topics.
const ALIASES_MAX: u16 = 32;
/// The alias takes three bytes.
const TOPIC_BYTES_MIN: usize = 4;
/// A longer topic gets no alias.
const TOPIC_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_have_aliases_as_many_as_the_client_takes() {
        // Traps 57 to 59: never 0, never more than the receiver's maximum.
        assert!(Aliases::new(0).is_none());
        for (maximum, given) in [(1, 1), (3, 3), (u16::MAX, ALIASES_MAX)] {
            let mut aliases = Aliases::new(maximum).unwrap();
            for _ in 0..2 {
                assert_eq!(aliases.alias(b"a/b"), None, "it would save nothing");
            }
            for number in 1..=100 {
                let topic = format!("topic/{number}");
                let first = aliases.alias(topic.as_bytes());
                let second = aliases.alias(topic.as_bytes());
                let has_one = number <= given;
                assert_eq!(first, has_one.then_some(Alias::New(number)));
                assert_eq!(second, has_one.then_some(Alias::Known(number)));
            }
        }
    }
}
