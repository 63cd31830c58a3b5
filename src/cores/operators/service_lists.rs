//! Questions about services: the patterns that a core owns with their members, and facts about the members
//! that are clients of the core.

use std::collections::BTreeMap;

use crate::services::PoolView;
use crate::session::{ClientProtocol, SessionId};

use crate::cores::operators::questions::Answer;

/// A walk through the patterns of a core.
#[derive(Debug)]
pub(crate) struct ListServices {
    /// Only patterns behind this one are listed.
    after: Option<Box<[u8]>>,
    /// The list ends with the pattern that brings it to this many members.
    members_max: usize,
    /// The next place of the table.
    pub(super) next: usize,
    /// The first patterns found so far.
    found: BTreeMap<Box<[u8]>, PoolView>,
    /// How many members these patterns have.
    members: usize,
    answer: Answer<Vec<PoolView>>,
}

/// A question about some members: connections of the core, each with its pattern.
#[derive(Debug)]
pub(crate) struct DescribeMembers {
    pub(super) asked: Vec<MemberName>,
    pub(super) found: Vec<Option<MemberRow>>,
    answer: Answer<Vec<Option<MemberRow>>>,
}

/// A connection of the core, and a pattern that it serves.
pub(crate) type MemberName = (usize, Box<[u8]>);

/// A client that is a service.
#[derive(Debug)]
pub(crate) struct MemberRow {
    pub(crate) id: SessionId,
    pub(crate) protocol: ClientProtocol,
    /// As JSON.
    pub(crate) user: Option<Box<str>>,
    /// Its description of itself, as JSON.
    pub(crate) meta: Option<Box<str>>,
}

impl ListServices {
    /// The first patterns behind `after`, until they have `members_max` members.
    pub(crate) fn new(
        after: Option<&str>,
        members_max: usize,
        answer: Answer<Vec<PoolView>>,
    ) -> ListServices {
        ListServices {
            after: after.map(|after| after.as_bytes().into()),
            members_max,
            next: 0,
            found: BTreeMap::new(),
            members: 0,
            answer,
        }
    }

    /// Whether a pattern is among the first.
    pub(super) fn wants(&self, pattern: &[u8]) -> bool {
        let is_behind = self.after.as_deref().is_none_or(|after| pattern > after);
        let is_full = self.members >= self.members_max;
        let last = self.found.last_key_value();
        is_behind && (!is_full || last.is_some_and(|(last, _)| pattern < &**last))
    }

    pub(super) fn note(&mut self, pool: PoolView) {
        self.members += pool.members.len();
        self.found.insert(pool.pattern.clone(), pool);
        while let Some(last) = self.found.last_entry() {
            let left = self.members - last.get().members.len();
            if left < self.members_max {
                break;
            }
            self.members = left;
            last.remove();
        }
    }

    /// Answers with the patterns that were found.
    pub(super) fn conclude(self) {
        self.answer.give(self.found.into_values().collect());
    }
}

impl DescribeMembers {
    pub(crate) fn new(asked: Vec<MemberName>, answer: Answer<Vec<Option<MemberRow>>>) -> DescribeMembers {
        DescribeMembers {
            asked,
            found: Vec::new(),
            answer,
        }
    }

    /// Answers with the facts about the members, in their order.
    pub(super) fn conclude(self) {
        self.answer.give(self.found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(pattern: &str, members: usize) -> PoolView {
        let member = crate::services::MemberView {
            key: crate::services::MemberKey {
                core: 0,
                connection: 1,
            },
            offer: crate::services::Offer { weight: 1, window: 1 },
            in_flight: 0,
            is_slow: false,
            is_full: false,
        };
        PoolView {
            pattern: pattern.as_bytes().into(),
            waiting: 0,
            members: vec![member; members],
        }
    }

    #[test]
    fn the_first_patterns_are_found_until_they_have_members_enough() {
        let pools = [("c", 1), ("a", 2), ("e", 1), ("b", 1), ("d", 3)];
        for (after, max, expected) in [
            (None, 1, &["a"][..]),
            (None, 2, &["a"]),
            (None, 3, &["a", "b"]),
            (None, 4, &["a", "b", "c"]),
            (Some("a"), 3, &["b", "c", "d"]),
            (Some("c"), 100, &["d", "e"]),
            (Some("e"), 1, &[]),
        ] {
            let mut list = ListServices::new(after, max, Answer::new(|_| {}));
            for (pattern, members) in pools {
                if list.wants(pattern.as_bytes()) {
                    list.note(pool(pattern, members));
                }
            }
            let found: Vec<_> = list.found.keys().map(|pattern| &**pattern).collect();
            let expected: Vec<_> = expected.iter().map(|pattern| pattern.as_bytes()).collect();
            assert_eq!(found, expected, "{after:?} {max}");
        }
    }
}
