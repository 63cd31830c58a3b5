//! The queue of attempts that wait for a password check. It is bounded, and a flood from one network cannot
//! keep other clients out.
//!
//! | | familiar attempts | unfamiliar attempts |
//! |---|---|---|
//! | from | users that have logged in from that address within 30 days | all others |
//! | are checked | first, except for one turn in four while unfamiliar ones wait | in that turn, and when no familiar one waits |
//! | are displaced when the queue is full | only by other familiar ones | before any familiar one |
//!
//! Within both classes, turns rotate by network: among the providers (/32 of IPv6, /16 of IPv4), within a
//! provider among its sites (/48, /24), within a site among its customers (/56), then among addresses (/64, a
//! whole IPv4 address) and users. When the queue is full, the displaced attempt is found in the same way: it
//! is the youngest attempt of the provider, site, customer, address and user with the most waiting attempts.
//! So a client that sends more attempts only displaces more of its own. The new attempt itself is displaced
//! if it belongs to that network.
//!
//! Invariants
//! 1. There are never more than `waiting_max` attempts here; each leaves exactly once, by [`Queue::pop`] or
//!    displaced by another.
//! 2. A group in the tree is never empty; its count is the number of attempts below it.
//!
//! Pure. Costs: `push` and `pop` look at all groups of each level on their path, whose number `waiting_max`
//! bounds.

use std::collections::{HashMap, VecDeque};

/// The place of an attempt in the tree, as keys: its networks, the widest first, then its user.
pub(super) type Path = [u64; LEVELS];

/// Four widths of networks, and the user.
pub(super) const LEVELS: usize = 5;

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    familiar: Group<T>,
    unfamiliar: Group<T>,
    waiting_max: usize,
    /// Turns that familiar attempts have had since the last unfamiliar one.
    familiar_turns: u32,
    /// How many attempts have come. Also the number of the youngest.
    pushed: u64,
}

/// The attempt that was displaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Displaced<T> {
    /// The new one: its own network has the most waiting attempts.
    New(T),
    /// One that waited.
    Waiting(T),
}

/// All attempts below one network, or of one user.
#[derive(Debug)]
struct Group<T> {
    count: usize,
    /// The keys of the groups of the level below, in the order of their turns.
    turns: VecDeque<u64>,
    groups: HashMap<u64, Group<T>>,
    /// At the lowest level: the attempts with their numbers, the oldest first.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(super) fn new(waiting_max: usize) -> Queue<T> {
        Queue {
            familiar: Group::new(),
            unfamiliar: Group::new(),
            waiting_max: waiting_max.max(1),
            familiar_turns: 0,
            pushed: 0,
        }
    }

    /// How many attempts wait.
    pub(super) fn len(&self) -> usize {
        self.familiar.count + self.unfamiliar.count
    }

    /// Adds an attempt. Returns the attempt that was displaced, if the queue was full.
    pub(super) fn push(&mut self, path: &Path, is_familiar: bool, attempt: T) -> Option<Displaced<T>> {
        self.pushed += 1;
        let group = if is_familiar {
            &mut self.familiar
        } else {
            &mut self.unfamiliar
        };
        group.push(path, (self.pushed, attempt));
        if self.len() <= self.waiting_max {
            return None;
        }
        let from = if self.unfamiliar.count == 0 {
            &mut self.familiar
        } else {
            &mut self.unfamiliar
        };
        from.displace().map(|(number, attempt)| {
            if number == self.pushed {
                Displaced::New(attempt)
            } else {
                Displaced::Waiting(attempt)
            }
        })
    }

    /// Takes the attempt whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let is_unfamiliar_turn = self.familiar.count == 0 || self.familiar_turns >= FAMILIAR_TURNS_MAX;
        let group = if is_unfamiliar_turn && self.unfamiliar.count > 0 {
            self.familiar_turns = 0;
            &mut self.unfamiliar
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

    /// The oldest attempt of the group whose turn it is; that group is last in the next round.
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

    /// The youngest attempt of the largest group; of equally large groups, the one whose turn is last.
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

/// Turns that familiar attempts may have in a row while unfamiliar ones wait.
const FAMILIAR_TURNS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A path with the same wider networks for all, and this address and user.
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
    fn only_attempts_of_the_network_that_sends_most_are_displaced() {
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
            assert_eq!(queue.push(&path(1), false, 4), Some(Displaced::New(4)));
            assert_eq!(queue.push(&path(2), false, 20), Some(Displaced::Waiting(3)));
            assert_eq!(queue.push(&path(3), false, 30), Some(Displaced::Waiting(2)));
            for index in 5..100 {
                assert_eq!(queue.push(&path(1), false, index), Some(Displaced::New(index)));
            }
            assert_eq!(served(&mut queue), [0, 20, 30, 1], "level {level}");
        }
    }

    #[test]
    fn many_addresses_of_one_network_gain_nothing() {
        // A provider's customer with a /48 sends from each of its addresses, as each of many users.
        let mut queue = Queue::new(64);
        for index in 0..10_000_u64 {
            let path = [1, 1, index / 256 % 256, index, index];
            queue.push(&path, false, index);
        }
        assert_eq!(queue.len(), 64);
        // A neighbour at the same provider, and a client of another provider.
        assert!(matches!(
            queue.push(&[1, 2, 1, 1, 1], false, 77_777),
            Some(Displaced::Waiting(_))
        ));
        assert!(matches!(
            queue.push(&[2, 1, 1, 1, 1], false, 88_888),
            Some(Displaced::Waiting(_))
        ));
        let order = served(&mut queue);
        let turn = |attempt| order.iter().position(|&one| one == attempt).unwrap();
        assert!(turn(88_888) <= 1 && turn(77_777) <= 3, "{order:?}");
    }

    #[test]
    fn familiar_attempts_come_first_and_unfamiliar_ones_do_not_wait_for_ever() {
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
        // Among familiar attempts only, networks count again, and an unfamiliar attempt finds no room.
        for index in 0..8 {
            queue.push(&at(1, index), true, index);
        }
        assert_eq!(queue.push(&at(2, 1), false, 50), Some(Displaced::New(50)));
        assert_eq!(queue.push(&at(3, 1), true, 60), Some(Displaced::Waiting(7)));
    }

    proptest! {
        #[test]
        fn no_attempt_is_lost_and_the_bound_holds(
            steps in prop::collection::vec(
                (any::<bool>(), prop::array::uniform5(0..3_u64), any::<bool>()), 0..300),
            waiting_max in 1..20_usize,
        ) {
            let mut queue = Queue::new(waiting_max);
            let (mut pushed, mut left) = (0, Vec::new());
            for (is_push, path, is_familiar) in steps {
                if is_push {
                    match queue.push(&path, is_familiar, pushed) {
                        Some(Displaced::New(one)) => {
                            prop_assert_eq!(one, pushed);
                            left.push(one);
                        }
                        Some(Displaced::Waiting(one)) => left.push(one),
                        None => {}
                    }
                    pushed += 1;
                } else {
                    left.extend(queue.pop());
                }
                prop_assert!(queue.len() <= waiting_max);
                prop_assert_eq!(queue.len() + left.len(), pushed);
            }
            left.extend(std::iter::from_fn(|| queue.pop()));
            left.sort_unstable();
            prop_assert_eq!(left, (0..pushed).collect::<Vec<_>>());
            prop_assert!(queue.familiar.groups.is_empty() && queue.unfamiliar.groups.is_empty());
        }
    }
}
