//! The rooms in which the MQTT clients of this core are, and the changes that their owners have yet to be
//! told.
//!
//! A client is a member of a channel with presence while it is connected and has a filter that names exactly
//! this channel. A filter with wildcards makes no member, nor does a shared subscription: neither stands for
//! one particular channel. The session says when such a filter is added or removed
//! ([`Decision::EnterRoom`](crate::decision::Decision::EnterRoom)).
//!
//! A client may be in ten thousand rooms. When its connection ends it leaves some of them in each turn, as a
//! connection of SocketCluster does (`lifecycle/unsubscribing.rs`). When it becomes another member, it becomes
//! that in some of its rooms in each turn.
//!
//! A reload may turn presence on or off for channels that clients have filters for, and an owner may have
//! refused a client for lack of room. Then a *review* goes along all MQTT connections of the core, some in
//! each turn: it ends memberships that no longer apply, begins those that are missing, and tells owners again
//! about clients that they have refused.
//!
//! Invariants
//! 1. A connection has an entry in `by_connection` while it is in a room, and only connections of MQTT have one.
//! 2. The rooms of a connection that has ended are in `leaving` until the changes for their owners are
//!    queued.
//!
//! Limits: `channels_per_connection_max`, which bounds the filters of a session; `CHANNELS_PER_TURN_MAX`
//! (`lifecycle/unsubscribing.rs`) for the rooms that connections leave by their end; [`REFUSED_NAMES_MAX`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use super::memberships::{MemberOf, Memberships};
use crate::app::SessionId;
use crate::broker::{ChannelHash, ChannelHasher};
use crate::presence::{Departure, Identity, Message};

/// The rooms of this core's MQTT connections.
#[derive(Debug, Default)]
pub(in crate::cores) struct MqttRooms {
    /// By the index of the connection.
    by_connection: HashMap<u32, ConnectionRooms>,
    /// Connections that have ended and have rooms to leave, in the order of their ends.
    leaving: VecDeque<ConnectionRooms>,
    /// The place at which the present review goes on.
    review: Option<ReviewPosition>,
    /// Whether another review is to follow it.
    is_review_due: bool,
    /// The channels whose subscribers owners have refused for lack of room.
    refused: Refused,
    /// The part of these channels whose subscribers the review offers to the owners again.
    again: Refused,
}

/// Names of channels.
#[derive(Debug)]
enum Refused {
    Some(BTreeSet<Box<[u8]>>),
    /// Too many names: all channels count as refused.
    All,
}

/// A place in a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cores) struct ReviewPosition {
    /// The connection, by its index.
    pub(in crate::cores) connection: u32,
    pub(in crate::cores) stage: ReviewStage,
}

/// The stage of a review at one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cores) enum ReviewStage {
    /// It looks at the rooms in which the connection is: at those after this name.
    Rooms(Option<Box<[u8]>>),
    /// It looks at the filters of the connection's session: at those from this one on.
    Filters(u32),
}

/// A connection that is in rooms.
#[derive(Debug)]
struct ConnectionRooms {
    session: SessionId,
    /// The member as which it has joined.
    identity: Identity,
    /// By the name of the channel.
    rooms: BTreeMap<Box<[u8]>, Room>,
    /// The rooms in which it is still its former member.
    renaming: Option<Box<Renaming>>,
}

/// A connection that is another member than before.
#[derive(Debug)]
struct Renaming {
    /// As which member it has joined these rooms.
    before: Identity,
    /// By the name of the channel.
    rooms: BTreeMap<Box<[u8]>, Room>,
    /// The member that it is to be.
    member: MemberOf,
}

#[derive(Debug)]
struct Room {
    hash: ChannelHash,
    /// JSON that identifies this client to other clients.
    info: Box<[u8]>,
}

impl MqttRooms {
    /// A connection joins a room, unless it is in it.
    pub(in crate::cores) fn join(
        &mut self,
        connection: u32,
        name: &[u8],
        info: &[u8],
        member: MemberOf,
        hasher: &ChannelHasher,
        memberships: &mut Memberships,
    ) {
        let identity = Identity::of(hasher, member.user.as_deref(), &member.session);
        let guest = self
            .by_connection
            .entry(connection)
            .or_insert_with(|| ConnectionRooms {
                session: member.session,
                identity,
                rooms: BTreeMap::new(),
                renaming: None,
            });
        if guest.is_in(name) {
            return;
        }
        let room = Room {
            hash: hasher.hash(name),
            info: info.into(),
        };
        room.tell_joining(name, &member, guest.identity, memberships);
        guest.rooms.insert(name.into(), room);
    }

    /// Whether no connection is in any room.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.by_connection.is_empty()
    }

    /// The policies of channels have changed, or an owner has room again: begins a review.
    pub(in crate::cores) fn begin_review(&mut self) {
        match self.review {
            None => self.start_review(),
            Some(_) => self.is_review_due = true,
        }
    }

    fn start_review(&mut self) {
        self.review = Some(ReviewPosition::of(0));
        self.again = std::mem::take(&mut self.refused);
    }

    /// Whether a review is under way.
    pub(in crate::cores) fn has_work(&self) -> bool {
        self.review.is_some()
    }

    /// Takes the place at which the review goes on. The caller puts the next one back, or ends the review.
    pub(in crate::cores) fn take_place(&mut self) -> Option<ReviewPosition> {
        self.review.take()
    }

    /// The review is to go on here.
    pub(in crate::cores) fn go_on_at(&mut self, place: ReviewPosition) {
        self.review = Some(place);
    }

    /// The review has seen all connections.
    pub(in crate::cores) fn end_review(&mut self) {
        self.again = Refused::default();
        if std::mem::take(&mut self.is_review_due) {
            self.start_review();
        }
    }

    /// An owner had no room for some subscribers of these channels. Some of them may be connections of MQTT.
    pub(in crate::cores) fn note_refused(&mut self, channels: &[Box<[u8]>]) {
        if self.by_connection.is_empty() {
            return;
        }
        for channel in channels {
            self.refused.add(channel);
        }
    }

    /// An owner has room again.
    pub(in crate::cores) fn try_again(&mut self) {
        if !self.refused.is_empty() {
            self.begin_review();
        }
    }

    /// Looks at no more than `max` of the rooms in which a connection is, beginning after this name. The
    /// connection leaves a room unless it `stays`; if the owner has refused subscribers of a room, it is told
    /// again. Returns the last name, if there may be more, and how many rooms were looked at.
    pub(in crate::cores) fn review_some(
        &mut self,
        connection: u32,
        (after, max): (Option<&[u8]>, usize),
        member: &MemberOf,
        stays: impl Fn(&[u8]) -> bool,
        memberships: &mut Memberships,
    ) -> (Option<Box<[u8]>>, usize) {
        let Some(guest) = self.by_connection.get(&connection) else {
            return (None, 0);
        };
        let names = guest.some_names(after, max);
        for name in &names {
            if !stays(name) {
                self.leave(connection, name, memberships);
            } else if self.again.has(name)
                && let Some(guest) = self.by_connection.get(&connection)
                && let Some(room) = guest.rooms.get(name)
            {
                room.tell_joining(name, member, guest.identity, memberships);
            }
        }
        let count = names.len();
        (names.into_iter().last().filter(|_| count == max), count)
    }

    /// A connection that goes on leaves a room, if it is in it.
    pub(in crate::cores) fn leave(&mut self, connection: u32, name: &[u8], memberships: &mut Memberships) {
        let Some(guest) = self.by_connection.get_mut(&connection) else {
            return;
        };
        if let Some((room, identity)) = guest.take(name) {
            let leaves = Message::Leaves(identity, Departure::Unsubscribed);
            memberships.tell(name, room.hash, guest.session, leaves);
        }
        if guest.is_in_none() {
            self.by_connection.remove(&connection);
        }
    }

    /// A connection has ended: it leaves its rooms by [`MqttRooms::leave_some`].
    pub(in crate::cores) fn end(&mut self, connection: u32) {
        self.leaving.extend(self.by_connection.remove(&connection));
    }

    /// Whether connections that have ended have rooms to leave.
    #[inline]
    pub(in crate::cores) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Connections that have ended leave some rooms, at most `max`. Returns how many.
    pub(in crate::cores) fn leave_some(&mut self, max: usize, memberships: &mut Memberships) -> usize {
        let mut left = 0;
        while left < max
            && let Some(guest) = self.leaving.front_mut()
        {
            if let Some((name, room, identity)) = guest.pop() {
                let leaves = Message::Leaves(identity, Departure::Ended);
                memberships.tell(&name, room.hash, guest.session, leaves);
                left += 1;
            } else {
                self.leaving.pop_front();
            }
        }
        self.leaving.pop_front_if(|guest| guest.is_in_none());
        left
    }

    /// The member that a connection is may have changed: then its rooms are told by
    /// [`MqttRooms::rename_some`]. No earlier change is under way.
    pub(in crate::cores) fn rename(&mut self, connection: u32, member: MemberOf, hasher: &ChannelHasher) {
        let Some(guest) = self.by_connection.get_mut(&connection) else {
            return;
        };
        let identity = Identity::of(hasher, member.user.as_deref(), &member.session);
        let before = std::mem::replace(&mut guest.identity, identity);
        if before == identity {
            return;
        }
        debug_assert!(guest.renaming.is_none(), "one change ends before the next begins");
        guest.renaming = Some(Box::new(Renaming {
            before,
            rooms: std::mem::take(&mut guest.rooms),
            member,
        }));
    }

    /// Whether rooms are to be told that a connection is another member.
    pub(in crate::cores) fn is_renaming(&self, connection: u32) -> bool {
        let guest = self.by_connection.get(&connection);
        guest.is_some_and(|guest| guest.renaming.is_some())
    }

    /// Tells some rooms that a connection is another member, at most `max`. Returns how many.
    pub(in crate::cores) fn rename_some(
        &mut self,
        connection: u32,
        max: usize,
        memberships: &mut Memberships,
    ) -> usize {
        let Some(guest) = self.by_connection.get_mut(&connection) else {
            return 0;
        };
        let Some(renaming) = &mut guest.renaming else {
            return 0;
        };
        let mut told = 0;
        while told < max
            && let Some((name, room)) = renaming.rooms.pop_first()
        {
            let leaves = Message::Leaves(renaming.before, Departure::Unsubscribed);
            memberships.tell(&name, room.hash, guest.session, leaves);
            room.tell_joining(&name, &renaming.member, guest.identity, memberships);
            guest.rooms.insert(name, room);
            told += 1;
        }
        if renaming.rooms.is_empty() {
            guest.renaming = None;
        }
        told
    }
}

impl ConnectionRooms {
    fn is_in(&self, name: &[u8]) -> bool {
        let is_former = |renaming: &Renaming| renaming.rooms.contains_key(name);
        self.rooms.contains_key(name) || self.renaming.as_deref().is_some_and(is_former)
    }

    fn is_in_none(&self) -> bool {
        self.rooms.is_empty()
            && self
                .renaming
                .as_ref()
                .is_none_or(|renaming| renaming.rooms.is_empty())
    }

    /// Takes a room out, with the member that it has joined as.
    fn take(&mut self, name: &[u8]) -> Option<(Room, Identity)> {
        if let Some(room) = self.rooms.remove(name) {
            return Some((room, self.identity));
        }
        let renaming = self.renaming.as_mut()?;
        Some((renaming.rooms.remove(name)?, renaming.before))
    }

    /// Takes out any room.
    fn pop(&mut self) -> Option<(Box<[u8]>, Room, Identity)> {
        if let Some((name, room)) = self.rooms.pop_first() {
            return Some((name, room, self.identity));
        }
        let renaming = self.renaming.as_mut()?;
        let (name, room) = renaming.rooms.pop_first()?;
        Some((name, room, renaming.before))
    }

    /// The names of at most `max` rooms, those after this name.
    fn some_names(&self, after: Option<&[u8]>, max: usize) -> Vec<Box<[u8]>> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let former = self
            .renaming
            .iter()
            .flat_map(|one| one.rooms.range::<[u8], _>(range).take(max));
        let rooms = self.rooms.range::<[u8], _>(range).take(max).chain(former);
        let mut names: Vec<Box<[u8]>> = rooms.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names.truncate(max);
        names
    }
}

impl Default for Refused {
    fn default() -> Refused {
        Refused::Some(BTreeSet::new())
    }
}

impl Refused {
    fn add(&mut self, channel: &[u8]) {
        if let Refused::Some(names) = self {
            names.insert(channel.into());
            if names.len() > REFUSED_NAMES_MAX {
                *self = Refused::All;
            }
        }
    }

    fn has(&self, channel: &[u8]) -> bool {
        match self {
            Refused::Some(names) => names.contains(channel),
            Refused::All => true,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Refused::Some(names) => names.is_empty(),
            Refused::All => false,
        }
    }
}

impl ReviewPosition {
    /// The beginning of a connection, by its index.
    pub(in crate::cores) fn of(connection: u32) -> ReviewPosition {
        ReviewPosition {
            connection,
            stage: ReviewStage::Rooms(None),
        }
    }
}

impl Room {
    fn tell_joining(
        &self,
        name: &[u8],
        member: &MemberOf,
        identity: Identity,
        memberships: &mut Memberships,
    ) {
        let joins = Message::Joins(member.user.clone());
        memberships.tell(name, self.hash, member.session, joins);
        if !self.info.is_empty() {
            let says = Message::Says(identity, self.info.clone());
            memberships.tell(name, self.hash, member.session, says);
        }
    }
}

/// This many names of channels are kept whose subscribers owners have refused.
const REFUSED_NAMES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(memberships: &mut Memberships) -> Vec<String> {
        let told = memberships.take_outgoing(0);
        let lines = told.iter().map(|told| {
            let text = match &told.message {
                Message::Joins(user) => format!("joins as {}", user.as_deref().unwrap_or("-")),
                Message::Leaves(_, departure) => format!("leaves {departure:?}"),
                Message::Says(_, info) => format!("says {}", String::from_utf8_lossy(info)),
                Message::Asks(_) => "asks".to_owned(),
            };
            format!("{} {text}", String::from_utf8_lossy(&told.channel))
        });
        lines.collect()
    }

    #[test]
    fn a_connection_is_in_a_room_once_and_leaves_all_it_is_in() {
        let hasher = ChannelHasher::new();
        let mut memberships = Memberships::new(1, true);
        let mut rooms = MqttRooms::default();
        let member = |user: Option<&str>| MemberOf {
            session: SessionId::new([7; SessionId::BYTES]),
            user: user.map(Box::from),
        };
        for name in [&b"a"[..], b"b", b"a"] {
            rooms.join(3, name, b"{}", member(None), &hasher, &mut memberships);
        }
        assert_eq!(
            told(&mut memberships),
            ["a joins as -", "a says {}", "b joins as -", "b says {}"]
        );
        // A review, one room at a time: owners are told again about the subscribers that they have refused.
        rooms.note_refused(&[Box::from(*b"a"), Box::from(*b"b")]);
        rooms.try_again();
        let review = |rooms: &mut MqttRooms, after, memberships: &mut Memberships| {
            rooms.review_some(3, (after, 1), &member(None), |name| name != b"b", memberships)
        };
        let name = |name: &[u8]| (Some(Box::from(name)), 1);
        assert_eq!(review(&mut rooms, None, &mut memberships), name(b"a"));
        assert_eq!(told(&mut memberships), ["a joins as -", "a says {}"]);
        assert_eq!(review(&mut rooms, Some(&b"a"[..]), &mut memberships), name(b"b"));
        assert_eq!(review(&mut rooms, Some(&b"b"[..]), &mut memberships), (None, 0));
        assert_eq!(told(&mut memberships), ["b leaves Unsubscribed"]);
        rooms.end_review();
        assert_eq!(review(&mut rooms, None, &mut memberships), name(b"a"));
        assert!(told(&mut memberships).is_empty());
        rooms.join(3, b"b", b"", member(None), &hasher, &mut memberships);
        assert_eq!(told(&mut memberships), ["b joins as -"]);
        rooms.leave(3, b"c", &mut memberships);
        rooms.end(4);
        rooms.rename(3, member(None), &hasher);
        assert!(told(&mut memberships).is_empty() && !rooms.is_renaming(3));
        rooms.leave(3, b"b", &mut memberships);
        rooms.rename(3, member(Some("ann")), &hasher);
        assert_eq!(rooms.rename_some(3, 10, &mut memberships), 1);
        for _ in 0..2 {
            rooms.end(3);
            rooms.leave_some(usize::MAX, &mut memberships);
        }
        assert_eq!(
            told(&mut memberships),
            [
                "b leaves Unsubscribed",
                "a leaves Unsubscribed",
                "a joins as ann",
                "a says {}",
                "a leaves Ended"
            ]
        );
        assert!(rooms.is_empty());
    }

    #[test]
    fn a_connection_becomes_another_member_in_a_bounded_number_of_rooms_in_each_turn() {
        let hasher = ChannelHasher::new();
        let mut memberships = Memberships::new(1, true);
        let mut rooms = MqttRooms::default();
        let member = |user: Option<&str>| MemberOf {
            session: SessionId::new([7; SessionId::BYTES]),
            user: user.map(Box::from),
        };
        for name in [b"a", b"b", b"c", b"d", b"e", b"f", b"g"] {
            rooms.join(3, name, b"", member(None), &hasher, &mut memberships);
        }
        let identities = [None, Some("ann")].map(|user| {
            let member = member(user);
            Identity::of(&hasher, user, &member.session)
        });
        told(&mut memberships);
        rooms.rename(3, member(Some("ann")), &hasher);
        assert!(rooms.is_renaming(3) && told(&mut memberships).is_empty());
        assert_eq!(rooms.rename_some(3, 3, &mut memberships), 3);
        assert_eq!(
            told(&mut memberships),
            [
                "a leaves Unsubscribed",
                "a joins as ann",
                "b leaves Unsubscribed",
                "b joins as ann",
                "c leaves Unsubscribed",
                "c joins as ann"
            ]
        );
        // It is in each of its rooms once, and leaves each as the member that it is there.
        rooms.join(3, b"e", b"", member(Some("ann")), &hasher, &mut memberships);
        assert!(told(&mut memberships).is_empty());
        let leave = |rooms: &mut MqttRooms, memberships: &mut Memberships, name: &[u8]| {
            rooms.leave(3, name, memberships);
            match memberships.take_outgoing(0).pop().unwrap().message {
                Message::Leaves(identity, Departure::Unsubscribed) => identity,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(leave(&mut rooms, &mut memberships, b"a"), identities[1]);
        assert_eq!(leave(&mut rooms, &mut memberships, b"g"), identities[0]);
        // A review sees the rooms of both.
        let (last, count) = rooms.review_some(
            3,
            (Some(b"b"), 2),
            &member(None),
            |name| name != b"d",
            &mut memberships,
        );
        assert_eq!((last, count), (Some(Box::from(*b"d")), 2));
        assert_eq!(told(&mut memberships), ["d leaves Unsubscribed"]);
        assert_eq!(rooms.rename_some(3, 1, &mut memberships), 1);
        assert!(rooms.is_renaming(3));
        told(&mut memberships);
        rooms.end(3);
        rooms.leave_some(usize::MAX, &mut memberships);
        assert_eq!(
            told(&mut memberships),
            ["b", "c", "e", "f"].map(|name| format!("{name} leaves Ended"))
        );
        assert!(rooms.is_empty() && !rooms.has_leaving());
    }

    #[test]
    fn connections_that_have_ended_leave_a_bounded_number_of_rooms_in_each_turn_and_their_places_are_free() {
        let hasher = ChannelHasher::new();
        let mut memberships = Memberships::new(1, true);
        let mut rooms = MqttRooms::default();
        let member = |byte| MemberOf {
            session: SessionId::new([byte; SessionId::BYTES]),
            user: None,
        };
        for (connection, count) in [(1, 9), (2, 3)] {
            for number in 0..count {
                let (name, member) = (format!("{connection}/{number}"), member(1));
                rooms.join(
                    connection,
                    name.as_bytes(),
                    b"",
                    member,
                    &hasher,
                    &mut memberships,
                );
            }
            rooms.end(connection);
        }
        // The next connection, which has the place of the first one.
        rooms.join(1, b"new", b"", member(2), &hasher, &mut memberships);
        assert_eq!(told(&mut memberships).len(), 13);
        let mut turns = Vec::new();
        while rooms.has_leaving() {
            let left = rooms.leave_some(5, &mut memberships);
            let told = told(&mut memberships);
            assert!(
                told.iter()
                    .all(|line| line.ends_with("leaves Ended") && !line.starts_with("new"))
            );
            assert_eq!(told.len(), left);
            turns.push(left);
        }
        assert_eq!(turns, [5, 5, 2]);
        assert!(!rooms.is_empty(), "the next connection is where it was");
    }
}
