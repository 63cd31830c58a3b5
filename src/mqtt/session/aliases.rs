//! Topic aliases of the client: numbers that stand for topics in its PUBLISH packets (section 3.3.2.3.4). They last as
//! long as the connection and have nothing to do with the aliases that the server uses.
//!
//! Limits: `mqtt_topic_aliases_max`, which CONNACK announces; [`BYTES_MAX`] for the topics together.

/// Most bytes of the topics that one client has given aliases.
const BYTES_MAX: usize = 64 * 1024;

/// The topics, by alias from 1.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    topics: Vec<Option<Box<str>>>,
    bytes: usize,
}

/// Why an alias is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AliasFault {
    /// It is greater than the maximum, or 0.
    OutOfRange,
    /// It stands for no topic (MQTT 5.0 section 3.3.4).
    Unknown,
    /// The topics of all aliases are too long together.
    TooLong,
}

impl Aliases {
    /// Lets the alias stand for the topic, instead of the one that it stood for.
    pub(super) fn set(&mut self, alias: u16, topic: &str, max: u16) -> Result<(), AliasFault> {
        if alias == 0 || alias > max {
            return Err(AliasFault::OutOfRange);
        }
        let index = usize::from(alias) - 1;
        let before = self.topics.get(index).and_then(Option::as_deref);
        if before == Some(topic) {
            return Ok(());
        }
        let bytes = self.bytes - before.map_or(0, str::len) + topic.len();
        if bytes > BYTES_MAX {
            return Err(AliasFault::TooLong);
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        self.topics[index] = Some(topic.into());
        self.bytes = bytes;
        Ok(())
    }

    /// The topic that the alias stands for.
    pub(super) fn topic(&self, alias: u16, max: u16) -> Result<&str, AliasFault> {
        if alias == 0 || alias > max {
            return Err(AliasFault::OutOfRange);
        }
        self.topics
            .get(usize::from(alias) - 1)
            .and_then(Option::as_deref)
            .ok_or(AliasFault::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_the_topic_that_it_was_given_last() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.topic(1, 2), Err(AliasFault::Unknown));
        for alias in [0, 3] {
            assert_eq!(aliases.set(alias, "a", 2), Err(AliasFault::OutOfRange));
            assert_eq!(aliases.topic(alias, 2), Err(AliasFault::OutOfRange));
        }
        aliases.set(2, "a", 2).unwrap();
        assert_eq!(
            (aliases.topic(1, 2), aliases.topic(2, 2)),
            (Err(AliasFault::Unknown), Ok("a"))
        );
        aliases.set(2, "b", 2).unwrap();
        assert_eq!(aliases.topic(2, 2), Ok("b"));
    }

    #[test]
    fn the_topics_of_all_aliases_have_a_bound_and_another_topic_gives_room_back() {
        let mut aliases = Aliases::default();
        let half = "x".repeat(BYTES_MAX / 2);
        aliases.set(1, &half, 3).unwrap();
        aliases.set(2, &half, 3).unwrap();
        assert_eq!(aliases.set(3, "y", 3), Err(AliasFault::TooLong));
        aliases.set(1, "", 3).unwrap();
        aliases.set(3, "y", 3).unwrap();
        assert_eq!(aliases.topic(2, 3), Ok(&*half));
    }
}
