//! Matches topics with a filter, for a walk over topics in their order; and finds the topic to look at next, so that
//! the walk skips topics that the filter cannot match.
//!
//! A walk of `a/+/c` over a million topics `a/N/b` looks at each N once; one of `a/b/#` looks at the topics below
//! `a/b`.

use super::entry::{LEVEL, write_key};

/// A filter without `$share`.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The levels, with [`LEVEL`] between them as in topics, without `#`.
    levels: Box<[u8]>,
    /// Whether it has no wildcard.
    is_exact: bool,
    /// Whether `#` follows the levels.
    has_rest: bool,
    /// Whether it is `#` alone.
    is_all: bool,
}

/// The next step of the walk at a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The filter matches it. The next one follows.
    Take,
    /// The filter does not match it, and the next topic that it may match is this one or one behind it.
    Seek(Vec<u8>),
    /// The filter matches no topic from this one on.
    End,
}

impl Filter {
    /// A filter that is legal (`mqtt/topic.rs`).
    pub fn new(text: &str) -> Filter {
        let is_all = text == "#";
        let levels = if is_all { Some("") } else { text.strip_suffix("/#") };
        let mut key = Vec::with_capacity(text.len());
        write_key(levels.unwrap_or(text).as_bytes(), &mut key);
        let is_exact = levels.is_none() && !text.split('/').any(|level| level == "+");
        Filter {
            levels: key.into(),
            is_exact,
            has_rest: levels.is_some(),
            is_all,
        }
    }

    /// The one topic that it can match, as entries have it.
    pub(super) fn exact(&self) -> Option<&[u8]> {
        self.is_exact.then_some(&self.levels)
    }

    /// Where a walk begins.
    pub(super) fn first(&self) -> Vec<u8> {
        if self.is_all {
            return Vec::new();
        }
        let fixed = self.levels().take_while(|level| *level != b"+");
        fixed.collect::<Vec<_>>().join(&LEVEL)
    }

    fn levels(&self) -> impl Iterator<Item = &[u8]> {
        self.levels.split(|&byte| byte == LEVEL)
    }

    /// The step at a topic, as entries have it.
    pub(super) fn step(&self, topic: &[u8]) -> Step {
        let begins_with_wildcard = self.is_all || self.levels().next() == Some(b"+");
        if begins_with_wildcard && topic.first() == Some(&b'$') {
            // MQTT-4.7.2-1
            return Step::Seek(vec![b'$' + 1]);
        }
        if self.is_all {
            return Step::Take;
        }
        // The part of the topic that has been compared.
        let mut compared = 0;
        let mut rest = Some(topic);
        for (index, wanted) in self.levels().enumerate() {
            let Some(levels) = rest else {
                // The topic ends here: the next one with this level is below it.
                let mut next = topic.to_vec();
                next.push(LEVEL);
                if wanted != b"+" {
                    next.extend_from_slice(wanted);
                }
                return Step::Seek(next);
            };
            let length = levels.iter().position(|&byte| byte == LEVEL);
            let level = &levels[..length.unwrap_or(levels.len())];
            if wanted != b"+" && level != wanted {
                if level < wanted {
                    return Step::Seek([&topic[..compared], wanted].concat());
                }
                return match index {
                    0 => Step::End,
                    _ => Step::Seek(behind(&topic[..compared - 1])),
                };
            }
            compared += level.len() + 1;
            rest = length.map(|length| &levels[length + 1..]);
        }
        if rest.is_none() || self.has_rest {
            return Step::Take;
        }
        Step::Seek(behind(&topic[..compared - 1]))
    }
}

/// The first topic behind a level and all that is below it.
fn behind(level: &[u8]) -> Vec<u8> {
    let mut next = level.to_vec();
    next.push(LEVEL + 1);
    next
}
