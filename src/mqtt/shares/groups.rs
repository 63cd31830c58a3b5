//! The groups that one core owns, and the order of their members' turns.
//!
//! Invariants
//! 1. `by_text` has the number of each group, and a group has members.
//! 2. `order` has each member of the group once, with its present values.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::FilterChange;
use crate::mqtt::sessions::SessionRef;
use crate::mqtt::subscriptions::Options;
use crate::slab::Slab;

/// Names a group. It never names a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupRef {
    number: u32,
    generation: u64,
}

#[derive(Debug)]
pub(super) struct Groups {
    groups: Slab<Group>,
    by_text: HashMap<Box<str>, u32>,
    last_generation: u64,
    in_flight_max: u32,
    changes: VecDeque<FilterChange>,
}

#[derive(Debug)]
struct Group {
    generation: u64,
    text: Box<str>,
    /// By the serial number of the session.
    members: BTreeMap<u64, Member>,
    order: BTreeSet<Turn>,
    last_turn: u64,
}

/// Members that come first get the next publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    is_away: bool,
    in_flight: u32,
    last: u64,
    serial: u64,
}

/// The place before all members without a connection.
const FIRST_AWAY: Turn = Turn {
    is_away: true,
    in_flight: 0,
    last: 0,
    serial: 0,
};

/// A session in a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) core: usize,
    pub(super) session: SessionRef,
    pub(super) options: Options,
    is_connected: bool,
    in_flight: u32,
    last: u64,
}

/// The member that gets a publication.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chosen {
    Member(Member),
    /// There is no such group any more.
    None,
    /// Each member has as much in flight as it may.
    Full,
}

impl Member {
    pub(super) fn new(core: usize, session: SessionRef, options: Options, is_connected: bool) -> Member {
        Member {
            core,
            session,
            options,
            is_connected,
            in_flight: 0,
            last: 0,
        }
    }

    fn turn(&self) -> Turn {
        Turn {
            is_away: !self.is_connected,
            in_flight: self.in_flight,
            last: self.last,
            serial: self.session.serial,
        }
    }
}

impl Groups {
    pub(super) fn new(in_flight_max: u32) -> Groups {
        Groups {
            groups: Slab::new(),
            by_text: HashMap::new(),
            last_generation: 0,
            in_flight_max,
            changes: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether [`Groups::next_change`] has one.
    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn next_change(&mut self) -> Option<FilterChange> {
        self.changes.pop_front()
    }

    /// The group that has a number now. `None` if it is newer than the one with the generation `last`: then another
    /// group had the number before.
    pub(super) fn reference(&self, number: u32, last: u64) -> Option<GroupRef> {
        let generation = self.groups.get(number as usize)?.generation;
        (generation <= last).then_some(GroupRef { number, generation })
    }

    /// The generation of the newest group: later ones have greater generations.
    pub(super) fn last_generation(&self) -> u64 {
        self.last_generation
    }

    /// Adds a member, or changes its options.
    pub(super) fn join(&mut self, text: Box<str>, member: Member) {
        let number = match self.by_text.get(&text) {
            Some(&number) => number,
            None => self.create(text),
        };
        let group = &mut self.groups[number as usize];
        match group.members.get_mut(&member.session.serial) {
            Some(old) => old.options = member.options,
            None => {
                group.order.insert(member.turn());
                group.members.insert(member.session.serial, member);
            }
        }
    }

    pub(super) fn leave(&mut self, text: &str, serial: u64) {
        if let Some(&number) = self.by_text.get(text) {
            self.groups[number as usize].remove(serial);
            self.remove_if_empty(number);
        }
    }

    /// A session has ended: removes it, if it was a member.
    pub(super) fn remove_member(&mut self, group: GroupRef, serial: u64) {
        if let Some(found) = self.get_mut(group) {
            found.remove(serial);
            self.remove_if_empty(group.number);
        }
    }

    pub(super) fn set_connected(&mut self, text: &str, serial: u64, is_connected: bool) {
        if let Some(&number) = self.by_text.get(text) {
            self.groups[number as usize].change(serial, |member| member.is_connected = is_connected);
        }
    }

    /// The member that gets the next publication. It counts as in flight from now on.
    pub(super) fn choose(&mut self, group: GroupRef) -> Chosen {
        let in_flight_max = self.in_flight_max;
        let Some(group) = self.get_mut(group) else {
            return Chosen::None;
        };
        // Behind the connected members come the others, which may have room when no connected one has.
        let first = group.order.first().copied();
        let first_away = group.order.range(FIRST_AWAY..).next().copied();
        let mut turns = first.into_iter().chain(first_away);
        let Some(turn) = turns.find(|turn| turn.in_flight < in_flight_max) else {
            return Chosen::Full;
        };
        group.last_turn += 1;
        let last = group.last_turn;
        let chosen = group.change(turn.serial, |member| {
            member.in_flight += 1;
            member.last = last;
        });
        chosen.map_or(Chosen::None, Chosen::Member)
    }

    /// A member has one less in flight.
    pub(super) fn settle(&mut self, group: GroupRef, serial: u64) {
        if let Some(group) = self.get_mut(group) {
            group.change(serial, |member| {
                member.in_flight = member.in_flight.saturating_sub(1)
            });
        }
    }

    /// Removes all members of a core.
    pub(super) fn remove_core(&mut self, core: usize) {
        let numbers: Vec<u32> = self.by_text.values().copied().collect();
        for number in numbers {
            let group = &mut self.groups[number as usize];
            let members = group.members.values().filter(|member| member.core == core);
            let serials: Vec<u64> = members.map(|member| member.session.serial).collect();
            serials.into_iter().for_each(|serial| group.remove(serial));
            self.remove_if_empty(number);
        }
    }

    /// The number of a group.
    #[cfg(test)]
    pub(super) fn by_text(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// Whether each member has a connection.
    #[cfg(test)]
    pub(super) fn connected_members(&self) -> Vec<bool> {
        let members = self.groups.iter().flat_map(|(_, group)| group.members.values());
        members.map(|member| member.is_connected).collect()
    }

    /// How many publications each member has in flight, by the group and the serial number of its session.
    #[cfg(test)]
    pub(super) fn in_flight_of_members(&self) -> Vec<(GroupRef, u64, u32)> {
        let groups = self.groups.iter();
        groups
            .flat_map(|(number, group)| {
                let group_ref = GroupRef {
                    number: u32::try_from(number).unwrap_or(u32::MAX),
                    generation: group.generation,
                };
                let members = group.members.iter();
                members.map(move |(&serial, member)| (group_ref, serial, member.in_flight))
            })
            .collect()
    }

    /// The number of publications that all members have in flight. Checks invariant 2, too.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u32 {
        let groups = self.groups.iter();
        groups
            .map(|(_, group)| {
                let turns: BTreeSet<Turn> = group.members.values().map(Member::turn).collect();
                assert_eq!(group.order, turns);
                turns.iter().map(|turn| turn.in_flight).sum::<u32>()
            })
            .sum()
    }

    fn get_mut(&mut self, group: GroupRef) -> Option<&mut Group> {
        let found = self.groups.get_mut(group.number as usize)?;
        (found.generation == group.generation).then_some(found)
    }

    fn create(&mut self, text: Box<str>) -> u32 {
        self.last_generation += 1;
        let number = self.groups.insert(Group {
            generation: self.last_generation,
            text: text.clone(),
            members: BTreeMap::new(),
            order: BTreeSet::new(),
            last_turn: 0,
        });
        let number = u32::try_from(number).expect("4 billion groups do not fit into memory");
        self.changes.push_back(FilterChange::Added(number, text.clone()));
        self.by_text.insert(text, number);
        number
    }

    fn remove_if_empty(&mut self, number: u32) {
        if self.groups[number as usize].members.is_empty()
            && let Some(group) = self.groups.remove(number as usize)
        {
            self.by_text.remove(&group.text);
            self.changes.push_back(FilterChange::Removed(number));
        }
    }
}

impl Group {
    fn remove(&mut self, serial: u64) {
        if let Some(member) = self.members.remove(&serial) {
            self.order.remove(&member.turn());
        }
    }

    /// Changes a member and its place in the order. Returns the changed member.
    fn change(&mut self, serial: u64, change: impl FnOnce(&mut Member)) -> Option<Member> {
        let member = self.members.get_mut(&serial)?;
        self.order.remove(&member.turn());
        change(member);
        self.order.insert(member.turn());
        Some(*member)
    }
}
