//! The attempts that wait for their password to be checked: a bounded queue in which nobody's flood keeps others out.
//!
//! | | familiar ones | strangers |
//! |---|---|---|
//! | are | users who have logged in from that address within 30 days | all others |
//! | are checked | first, but for one turn in four while strangers wait | in that turn, and when no familiar one waits |
//! | give way when the queue is full | only to one another | before any familiar one |
//!
//! Within both, turns go round by network: a provider (/32 of IPv6, /16 of IPv4) after the other, in it a site (/48, /24)
//! after the other, in it a customer (/56), an address (/64, a whole IPv4 address) and a user there. When the queue is
//! full, the attempt that gives way is found the same way: it is the youngest of the user, address, customer, site and
//! provider that have most waiting. So whoever sends more only loses more of its own; the one that comes gives way itself
//! if its network is the one.
//!
//! Invariants
//! 1. There are never more than `waiting_max` attempts here; each of them leaves once, by [`Queue::pop`] or for another.
//! 2. A group in the tree has a member; its count is the number of attempts below it.
//!
//! Pure. Costs: `push` and `pop` look at as many groups as there are beside one another, which `waiting_max` bounds.

use std::collections::{HashMap, VecDeque};

/// Where an attempt waits: its networks, the widest first, and its user at the end, as keys.
pub(super) type Path = [u64; LEVELS];

/// Four widths of networks, and the user.
pub(super) const LEVELS: usize = 5;

/// What waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    familiar: Group<T>,
    strangers: Group<T>,
    waiting_max: usize,
    /// Turns that familiar ones have had since a stranger had one.
    familiar_turns: u32,
    /// How many have come: the number of the youngest.
    came: u64,
}

/// Which one gave way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Displaced<T> {
    /// The one that has just come: its own network has most waiting.
    Newcomer(T),
    /// One that waited.
    Waiting(T),
}

/// All that wait below one network, or of one user.
#[derive(Debug)]
struct Group<T> {
    count: usize,
    /// The keys of the groups of the level below, in the order of their turns.
    turns: VecDeque<u64>,
    groups: HashMap<u64, Group<T>>,
    /// At the lowest level, the oldest first; each with its number.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Queue<T> {
    /// An empty one.
    pub(super) fn new(waiting_max: usize) -> Queue<T> {
        Queue {
            familiar: Group::new(),
            strangers: Group::new(),
            waiting_max: waiting_max.max(1),
            familiar_turns: 0,
            came: 0,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.familiar.count + self.strangers.count
    }

    /// Lets one wait; the one that had to give way, if there was no room.
    pub(super) fn push(&mut self, path: &Path, is_familiar: bool, attempt: T) -> Option<Displaced<T>> {
        self.came += 1;
        let group = match is_familiar {
            true => &mut self.familiar,
            false => &mut self.strangers,
        };
        group.push(path, (self.came, attempt));
        if self.len() <= self.waiting_max {
            return None;
        }
        let from = match self.strangers.count {
            0 => &mut self.familiar,
            _ => &mut self.strangers,
        };
        from.displace()
            .map(|(number, attempt)| match number == self.came {
                true => Displaced::Newcomer(attempt),
                false => Displaced::Waiting(attempt),
            })
    }

    /// The one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let is_strangers_turn = self.familiar.count == 0 || self.familiar_turns >= FAMILIAR_TURNS_MAX;
        let group = if is_strangers_turn && self.strangers.count > 0 {
            self.familiar_turns = 0;
            &mut self.strangers
        } else {
            self.familiar_turns = self.familiar_turns.saturating_add(1);
            &mut self.familiar
        };
        group.pop().map(|(_, attempt)| attempt)
    }
}

impl<T> Group<T> {
    fn new() -> Group<T> {
        Group {
            count: 0,
            turns: VecDeque::new(),
            groups: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    fn push(&mut self, path: &[u64], entry: (u64, T)) {
        self.count += 1;
        let Some((key, rest)) = path.split_first() else {
            return self.waiting.push_back(entry);
        };
        let turns = &mut self.turns;
        let group = self.groups.entry(*key).or_insert_with(|| {
            turns.push_back(*key);
            Group::new()
        });
        group.push(rest, entry);
    }

    /// The oldest of the group whose turn it is, which is last in the next round.
    fn pop(&mut self) -> Option<(u64, T)> {
        let entry = match self.turns.pop_front() {
            Some(key) => {
                let group = self.groups.get_mut(&key)?;
                let entry = group.pop();
                if group.count == 0 {
                    self.groups.remove(&key);
                } else {
                    self.turns.push_back(key);
                }
                entry
            }
            None => self.waiting.pop_front(),
        };
        self.count -= usize::from(entry.is_some());
        entry
    }

    /// The youngest of the largest group; of equally large ones, of the one whose turn is last.
    fn displace(&mut self) -> Option<(u64, T)> {
        let count_of = |key| self.groups.get(key).map_or(0, |group| group.count);
        let largest = self.turns.iter().enumerate().max_by_key(|(_, key)| count_of(key));
        let entry = match largest.map(|(at, key)| (at, *key)) {
            Some((at, key)) => {
                let group = self.groups.get_mut(&key)?;
                let entry = group.displace();
                if group.count == 0 {
                    self.groups.remove(&key);
                    self.turns.remove(at);
                }
                entry
            }
            None => self.waiting.pop_back(),
        };
        self.count -= usize::from(entry.is_some());
        entry
    }
}

/// Turns of familiar ones in a row while strangers wait.
const FAMILIAR_TURNS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everybody at the same place in each wider network, but for the last two numbers.
    fn at(address: u64, user: u64) -> Path {
        [1, 1, 1, address, user]
    }

    fn served(queue: &mut Queue<u64>) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn turns_go_round_by_network_at_every_width() {
        for level in 0..LEVELS {
            let mut queue = Queue::new(100);
            for (network, count) in [(1, 5), (2, 1), (3, 2)] {
                let mut path = [7; LEVELS];
                path[level] = network;
                for index in 0..count {
                    assert_eq!(queue.push(&path, false, network * 10 + index), None);
                }
            }
            assert_eq!(
                served(&mut queue),
                [10, 20, 30, 11, 31, 12, 13, 14],
                "level {level}"
            );
        }
    }

    #[test]
    fn who_sends_most_gives_way_and_nobody_else() {
        for level in 0..LEVELS {
            let mut queue = Queue::new(4);
            let path = |network| {
                let mut path = [7; LEVELS];
                path[level] = network;
                path
            };
            for index in 0..4 {
                assert_eq!(queue.push(&path(1), false, index), None);
            }
            assert_eq!(queue.push(&path(1), false, 4), Some(Displaced::Newcomer(4)));
            assert_eq!(queue.push(&path(2), false, 20), Some(Displaced::Waiting(3)));
            assert_eq!(queue.push(&path(3), false, 30), Some(Displaced::Waiting(2)));
            for index in 5..100 {
                assert_eq!(
                    queue.push(&path(1), false, index),
                    Some(Displaced::Newcomer(index))
                );
            }
            assert_eq!(served(&mut queue), [0, 20, 30, 1], "level {level}");
        }
    }

    #[test]
    fn a_network_that_divides_itself_gains_nothing() {
        // A provider's customer with a /48 sends from each of its addresses, as each of many users.
        let mut queue = Queue::new(64);
        for index in 0..10_000_u64 {
            let path = [1, 1, index / 256 % 256, index, index];
            queue.push(&path, false, index);
        }
        assert_eq!(queue.len(), 64);
        // Its neighbour at the same provider, and somebody of another.
        assert!(matches!(
            queue.push(&[1, 2, 1, 1, 1], false, 77_777),
            Some(Displaced::Waiting(_))
        ));
        assert!(matches!(
            queue.push(&[2, 1, 1, 1, 1], false, 88_888),
            Some(Displaced::Waiting(_))
        ));
        let order = served(&mut queue);
        let turn = |wanted| order.iter().position(|&one| one == wanted).unwrap();
        assert!(turn(88_888) <= 1 && turn(77_777) <= 3, "{order:?}");
    }

    #[test]
    fn familiar_ones_come_first_and_strangers_do_not_wait_for_ever() {
        let mut queue = Queue::new(8);
        for index in 0..8 {
            queue.push(&at(index, 1), false, index);
        }
        for index in 0..6 {
            let displaced = queue.push(&at(50 + index, 1), true, 100 + index);
            assert!(
                matches!(displaced, Some(Displaced::Waiting(0..8))),
                "{displaced:?}"
            );
        }
        assert_eq!(served(&mut queue), [100, 101, 102, 0, 103, 104, 105, 1]);
        // Among familiar ones alone, networks count again, and a stranger finds no room.
        for index in 0..8 {
            queue.push(&at(1, index), true, index);
        }
        assert_eq!(queue.push(&at(2, 1), false, 50), Some(Displaced::Newcomer(50)));
        assert_eq!(queue.push(&at(3, 1), true, 60), Some(Displaced::Waiting(7)));
    }

    proptest! {
        #[test]
        fn none_is_lost_and_there_are_never_too_many(
            steps in prop::collection::vec(
                (any::<bool>(), prop::array::uniform5(0..3_u64), any::<bool>()), 0..300),
            waiting_max in 1..20_usize,
        ) {
            let mut queue = Queue::new(waiting_max);
            let (mut came, mut left) = (0, Vec::new());
            for (comes, path, is_familiar) in steps {
                if comes {
                    match queue.push(&path, is_familiar, came) {
                        Some(Displaced::Newcomer(one)) => {
                            prop_assert_eq!(one, came);
                            left.push(one);
                        }
                        Some(Displaced::Waiting(one)) => left.push(one),
                        None => {}
                    }
                    came += 1;
                } else {
                    left.extend(queue.pop());
                }
                prop_assert!(queue.len() <= waiting_max);
                prop_assert_eq!(queue.len() + left.len(), came);
            }
            left.extend(std::iter::from_fn(|| queue.pop()));
            left.sort_unstable();
            prop_assert_eq!(left, (0..came).collect::<Vec<_>>());
            prop_assert!(queue.familiar.groups.is_empty() && queue.strangers.groups.is_empty());
        }
    }
}
