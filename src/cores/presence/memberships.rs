//! Which of this core's channels have presence, and the changes that the owners of these channels have yet to
//! be told.
//!
//! A channel is marked while it has subscribers on this core and presence. A channel that is not marked costs
//! nothing. A reload that turns presence on or off for a channel with subscribers changes the channel's mark,
//! and a walk tells the owner about each subscriber, some in each turn. Meanwhile connections subscribe and
//! unsubscribe. So the owner may be told twice that a connection joins or leaves, which changes nothing.
//!
//! Invariants
//! 1. A mark belongs to a channel that has subscribers on this core: it is removed before the last one leaves.
//! 2. Each subscriber of a channel that is marked [`Mark::On`] is a member at the owner, or will be when all
//!    waiting changes have been told and the walk along the channel is over.
//! 3. A connection that may be a member of any room has its identity in `identities`, and is that member in
//!    all rooms once a change of its identity is over ([`Renaming`]): of ten thousand rooms, some are told in
//!    each turn.
//!
//! Waits: an owner that does not keep up is told nothing more ([`UNDER_WAY_MAX`]). Then the changes wait
//! here, and clients that subscribe wait for room ([`Memberships::is_congested`]). The changes of connections
//! that end are added in any case: they are no more than the changes that these connections caused before.
//! The owner waits for nothing.
//!
//! Limits: [`MESSAGES_WAITING_MAX`], [`UNDER_WAY_MAX`] for each owner.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::app::SessionId;
use crate::broker::{ChannelHash, ChannelHasher, Subscriptions};
use crate::presence::{Departure, Identity, Message, RoomMessage};
use crate::slab::Slab;

/// The memberships of one core's connections.
#[derive(Debug)]
pub(in crate::cores) struct Memberships {
    /// Whether any policy has presence.
    is_on: bool,
    /// The marked channels, by their numbers.
    marks: Slab<Mark>,
    /// The member that each connection is when it joins rooms, by its index.
    identities: Slab<Identity>,
    /// The changes to tell, by the owner's core.
    outgoing: Box<[Outgoing]>,
    /// How many changes are to be told, to all owners.
    outgoing_count: usize,
    walks: VecDeque<Walk>,
    /// Channels along which another walk is to go: their owners have room again for subscribers that they
    /// have refused.
    again: VecDeque<BTreeSet<u32>>,
    /// The next channel to be compared with new policies.
    unreviewed: Option<u32>,
    /// The connections that have become other members and whose owners have not all been told: by their
    /// indexes.
    renaming: HashMap<u32, Renaming>,
    /// The order in which they are handled. Some of them may have ended.
    renames: VecDeque<u32>,
}

/// A connection that has become another member. In the channels before `next` it is the member in
/// [`Memberships::identity`]; in each other channel it may still be a former one.
#[derive(Debug)]
struct Renaming {
    member: MemberOf,
    former_identities: Vec<Identity>,
    next: u32,
    /// The connection has ended: it leaves its rooms, and joins none any more.
    has_ended: bool,
}

/// The changes to tell one owner.
#[derive(Debug, Default)]
struct Outgoing {
    told: VecDeque<RoomMessage>,
    /// How many changes it was told and has not handled yet.
    under_way: usize,
    /// Channels, by their numbers, whose subscribers the owner has refused for lack of room. Some may have no
    /// subscribers any more.
    refused: BTreeSet<u32>,
    has_stopped: bool,
}

/// A mark of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It has presence.
    On,
    /// It had presence, and a walk has not told yet that all of its subscribers leave.
    Ending,
}

/// A walk along the subscribers of a channel whose mark has changed.
#[derive(Clone, Copy, Debug)]
struct Walk {
    channel: u32,
    /// It has still to reach the subscribers before this place.
    end: u32,
}

/// A client in the form in which owners know it.
#[derive(Clone, Debug)]
pub(in crate::cores) struct MemberOf {
    pub(in crate::cores) session: SessionId,
    pub(in crate::cores) user: Option<Box<str>>,
}

/// The next step of a walk.
#[derive(Debug)]
pub(in crate::cores) struct WalkStep {
    pub(in crate::cores) channel: u32,
    /// Whether the subscribers join; otherwise they leave.
    pub(in crate::cores) joins: bool,
    /// Connections, by their indexes.
    pub(in crate::cores) subscribers: Vec<u32>,
}

impl Memberships {
    pub(in crate::cores) fn new(cores: usize, is_on: bool) -> Memberships {
        Memberships {
            is_on,
            marks: Slab::new(),
            identities: Slab::new(),
            outgoing: (0..cores).map(|_| Outgoing::default()).collect(),
            outgoing_count: 0,
            walks: VecDeque::new(),
            again: VecDeque::new(),
            unreviewed: None,
            renaming: HashMap::new(),
            renames: VecDeque::new(),
        }
    }

    /// Whether a channel may have presence.
    #[inline]
    pub(in crate::cores) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether any channel of this core is marked.
    #[inline]
    pub(in crate::cores) fn has_marks(&self) -> bool {
        self.marks.len() > 0
    }

    /// Whether as many changes wait as may: no more subscribers may join before some changes have been told.
    #[inline]
    pub(in crate::cores) fn is_congested(&self) -> bool {
        self.outgoing_count >= messages_waiting_max()
    }

    /// Whether changes wait to be told.
    pub(in crate::cores) fn has_outgoing(&self) -> bool {
        self.outgoing_count > 0
    }

    /// Whether a review of the channels, a walk along one, or a change of members is under way.
    pub(in crate::cores) fn has_work(&self) -> bool {
        let walks = !self.walks.is_empty() || !self.again.is_empty();
        self.unreviewed.is_some() || walks || !self.renames.is_empty()
    }

    /// The member that a connection is in its rooms.
    pub(in crate::cores) fn identity(&self, connection: u32) -> Option<Identity> {
        self.identities.get(connection as usize).copied()
    }

    /// A connection has just subscribed to a channel. Returns whether the channel has presence, so that the
    /// connection is to join. `has_presence` looks the policy up; it is called only if the channel is not
    /// marked.
    pub(in crate::cores) fn mark(
        &mut self,
        channel: u32,
        subscriptions: &Subscriptions,
        has_presence: impl FnOnce() -> bool,
    ) -> bool {
        match self.marks.get(channel as usize) {
            Some(Mark::On) => return true,
            Some(Mark::Ending) => {}
            None if subscriptions.subscriber_count(channel) == 1 => {
                let joins = has_presence();
                if joins {
                    self.marks.insert_at(channel as usize, Mark::On);
                }
                return joins;
            }
            None => {}
        }
        // A review has not reached the channel yet: its earlier subscribers have not been told to the owner.
        let joins = has_presence();
        self.compare(channel, joins, subscriptions);
        joins
    }

    /// A connection joins a channel that is marked.
    pub(in crate::cores) fn join(
        &mut self,
        (name, hash): (&[u8], ChannelHash),
        connection: u32,
        hasher: &ChannelHasher,
        member: MemberOf,
    ) {
        let identity = Identity::of(hasher, member.user.as_deref(), &member.session);
        self.identities.insert_at(connection as usize, identity);
        self.tell(name, hash, member.session, Message::Joins(member.user));
    }

    /// A connection is about to leave a channel.
    pub(in crate::cores) fn leave(
        &mut self,
        channel: u32,
        connection: u32,
        session: SessionId,
        departure: Departure,
        subscriptions: &Subscriptions,
    ) {
        if self.marks.get(channel as usize).is_none() || !subscriptions.has(connection, channel) {
            return;
        }
        self.tell_leaving(channel, connection, session, departure, subscriptions);
        if subscriptions.subscriber_count(channel) == 1 {
            self.unmark(channel);
        }
    }

    /// A connection has ended, and is about to leave at most `max` of its channels, those that
    /// [`Subscriptions::unsubscribe_some`] ends. Returns whether it was in any room.
    pub(in crate::cores) fn leave_some(
        &mut self,
        connection: u32,
        session: Option<SessionId>,
        max: usize,
        subscriptions: &Subscriptions,
    ) -> bool {
        if self.identity(connection).is_none() {
            return false;
        }
        if let Some(renaming) = self.renaming.get_mut(&connection) {
            renaming.has_ended = true;
        }
        if let Some(session) = session {
            for channel in subscriptions.some_numbers_of(connection, 0, max) {
                self.leave(channel, connection, session, Departure::Ended, subscriptions);
            }
        }
        if subscriptions.count_of(connection) <= max {
            self.identities.remove(connection as usize);
            self.renaming.remove(&connection);
        }
        true
    }

    /// A connection becomes another member, if it is not that member already. [`Memberships::rename_some`]
    /// tells the owners of its rooms.
    pub(in crate::cores) fn rename(&mut self, connection: u32, hasher: &ChannelHasher, member: &MemberOf) {
        let identity = Identity::of(hasher, member.user.as_deref(), &member.session);
        let Some(before) = self.identity(connection).filter(|before| *before != identity) else {
            return;
        };
        self.identities.insert_at(connection as usize, identity);
        let renaming = self.renaming.entry(connection).or_insert_with(|| {
            self.renames.push_back(connection);
            Renaming {
                member: member.clone(),
                former_identities: Vec::new(),
                next: 0,
                has_ended: false,
            }
        });
        renaming.member = member.clone();
        renaming.next = 0;
        if !renaming.former_identities.contains(&before) {
            renaming.former_identities.push(before);
        }
    }

    /// Whether the owners of a connection's rooms are being told that it is another member now.
    pub(in crate::cores) fn is_renaming(&self, connection: u32) -> bool {
        self.renaming.contains_key(&connection)
    }

    /// Goes on with connections that have become other members: looks at `max` of their channels at most.
    /// Returns at how many.
    pub(in crate::cores) fn rename_some(&mut self, max: usize, subscriptions: &Subscriptions) -> usize {
        let mut looks = 0;
        while looks < max
            && let Some(&connection) = self.renames.front()
        {
            let Some(renaming) = self.renaming.get(&connection).filter(|one| !one.has_ended) else {
                self.renames.pop_front();
                continue;
            };
            let member = renaming.member.clone();
            let channels = subscriptions.some_numbers_of(connection, renaming.next, max - looks);
            let is_last = channels.len() < max - looks;
            for channel in channels {
                looks += 1;
                self.rename_in(channel, connection, &member, subscriptions);
                if let Some(renaming) = self.renaming.get_mut(&connection) {
                    renaming.next = channel.saturating_add(1);
                }
            }
            if is_last {
                self.renames.pop_front();
                self.renaming.remove(&connection);
            }
        }
        looks
    }

    fn rename_in(&mut self, channel: u32, connection: u32, member: &MemberOf, subscriptions: &Subscriptions) {
        let (Some(mark), Some((name, hash))) = (
            self.marks.get(channel as usize).copied(),
            subscriptions.name_of(channel),
        ) else {
            return;
        };
        for before in self.former_identities(connection, channel) {
            let leaves = Message::Leaves(before, Departure::Unsubscribed);
            self.tell(name, hash, member.session, leaves);
        }
        match mark {
            Mark::On => self.tell(name, hash, member.session, Message::Joins(member.user.clone())),
            // The channel no longer has presence, and the connection has already left it as the former
            // member.
            Mark::Ending => {}
        }
    }

    /// The other members, besides its present one, that a connection may be in a channel's room.
    fn former_identities(&self, connection: u32, channel: u32) -> Vec<Identity> {
        if self.renaming.is_empty() {
            return Vec::new();
        }
        let renaming = self.renaming.get(&connection).filter(|one| channel >= one.next);
        let former_identities = renaming.map_or(&[][..], |renaming| &renaming.former_identities);
        let now = self.identity(connection);
        former_identities
            .iter()
            .copied()
            .filter(|before| Some(*before) != now)
            .collect()
    }

    /// Adds a change for the owner of a channel.
    pub(in crate::cores) fn tell(
        &mut self,
        name: &[u8],
        hash: ChannelHash,
        session: SessionId,
        message: Message,
    ) {
        let owner = hash.owner(self.outgoing.len());
        let outgoing = &mut self.outgoing[owner];
        if outgoing.has_stopped {
            return;
        }
        self.outgoing_count += 1;
        outgoing.told.push_back(RoomMessage {
            channel: name.into(),
            hash,
            session,
            message,
        });
    }

    /// How many owners there are: as many as cores.
    pub(in crate::cores) fn owners(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether an owner can be told changes now.
    pub(in crate::cores) fn may_tell(&self, owner: usize) -> bool {
        let outgoing = &self.outgoing[owner];
        !outgoing.told.is_empty() && outgoing.under_way < UNDER_WAY_MAX
    }

    /// Takes changes for an owner, at most [`TOLD_PER_LETTER_MAX`].
    pub(in crate::cores) fn take_outgoing(&mut self, owner: usize) -> Vec<RoomMessage> {
        let outgoing = &mut self.outgoing[owner];
        let count = outgoing.told.len().min(TOLD_PER_LETTER_MAX);
        let taken: Vec<RoomMessage> = outgoing.told.drain(..count).collect();
        outgoing.under_way += count;
        self.outgoing_count -= count;
        if outgoing.told.is_empty() {
            outgoing.told.shrink_to(TOLD_PER_LETTER_MAX);
        }
        taken
    }

    /// An owner has handled `count` of its changes.
    pub(in crate::cores) fn note_done(&mut self, owner: usize, count: usize) {
        let outgoing = &mut self.outgoing[owner];
        outgoing.under_way = outgoing.under_way.saturating_sub(count);
    }

    /// Whether a core has stopped, so that it is told nothing.
    pub(in crate::cores) fn has_stopped(&self, owner: usize) -> bool {
        self.outgoing[owner].has_stopped
    }

    /// An owner has no room for some subscriber of this channel.
    pub(in crate::cores) fn note_refused(&mut self, owner: usize, channel: u32) {
        self.outgoing[owner].refused.insert(channel);
    }

    /// An owner has room again: it is told again about the subscribers of all channels for which it has
    /// refused some.
    pub(in crate::cores) fn try_again(&mut self, owner: usize) {
        let refused = std::mem::take(&mut self.outgoing[owner].refused);
        if !refused.is_empty() {
            self.again.push_back(refused);
        }
    }

    /// A core has stopped: it is told nothing more.
    pub(in crate::cores) fn note_stopped(&mut self, owner: usize) {
        let outgoing = &mut self.outgoing[owner];
        self.outgoing_count -= outgoing.told.len();
        *outgoing = Outgoing {
            has_stopped: true,
            ..Outgoing::default()
        };
    }

    /// The policies of channels have changed: begins a review.
    pub(in crate::cores) fn begin_review(&mut self, is_on: bool) {
        self.is_on = is_on;
        if is_on || self.has_marks() {
            self.unreviewed = Some(0);
        }
    }

    /// Compares some more channels with the new policies.
    pub(in crate::cores) fn review_some(
        &mut self,
        subscriptions: &Subscriptions,
        has_presence: impl Fn(&[u8]) -> bool,
    ) {
        let Some(from) = self.unreviewed else { return };
        let end = from
            .saturating_add(REVIEWED_PER_TURN_MAX)
            .min(subscriptions.places());
        for channel in from..end {
            if let Some((name, _)) = subscriptions.name_of(channel) {
                self.compare(channel, has_presence(name), subscriptions);
            }
        }
        self.unreviewed = (end < subscriptions.places()).then_some(end);
    }

    /// The next step of the walks that are under way. The caller carries it out and then calls
    /// [`Memberships::note_step`].
    pub(in crate::cores) fn next_step(&mut self, subscriptions: &Subscriptions) -> Option<WalkStep> {
        if self.walks.is_empty() {
            self.walk_next_refused(subscriptions);
        }
        let walk = self.walks.front_mut()?;
        let (subscribers, end) = subscriptions.some_subscribers(walk.channel, walk.end, WALKED_PER_TURN_MAX);
        walk.end = end;
        Some(WalkStep {
            channel: walk.channel,
            joins: self.marks.get(walk.channel as usize) == Some(&Mark::On),
            subscribers: subscribers.to_vec(),
        })
    }

    /// Tells the owner that a subscriber that a walk has reached leaves.
    pub(in crate::cores) fn step_leaves(
        &mut self,
        step: &WalkStep,
        connection: u32,
        session: SessionId,
        subscriptions: &Subscriptions,
    ) {
        self.tell_leaving(
            step.channel,
            connection,
            session,
            Departure::Unsubscribed,
            subscriptions,
        );
    }

    /// A step was carried out. The last one of a walk ends it.
    pub(in crate::cores) fn note_step(&mut self, step: &WalkStep) {
        if self.walks.front().is_none_or(|walk| walk.end > 0) {
            return;
        }
        self.walks.pop_front();
        if !step.joins {
            self.marks.remove(step.channel as usize);
        }
    }

    /// Bytes of memory that the tables take.
    pub(in crate::cores) fn table_bytes(&self) -> usize {
        self.marks.memory_bytes() + self.identities.memory_bytes()
    }

    fn tell_leaving(
        &mut self,
        channel: u32,
        connection: u32,
        session: SessionId,
        departure: Departure,
        subscriptions: &Subscriptions,
    ) {
        if let (Some(identity), Some((name, hash))) =
            (self.identity(connection), subscriptions.name_of(channel))
        {
            // If the member is not in the room, the owner ignores the change.
            for before in self.former_identities(connection, channel) {
                self.tell(name, hash, session, Message::Leaves(before, departure));
            }
            self.tell(name, hash, session, Message::Leaves(identity, departure));
        }
    }

    /// Changes the mark of a channel if its policy demands it, and begins a walk along the channel's
    /// subscribers if there are more than one or presence ends.
    fn compare(&mut self, channel: u32, has_presence: bool, subscriptions: &Subscriptions) {
        let mark = match (self.marks.get(channel as usize), has_presence) {
            (None, false) | (Some(Mark::On), true) | (Some(Mark::Ending), false) => return,
            (None | Some(Mark::Ending), true) => Mark::On,
            (Some(Mark::On), false) => Mark::Ending,
        };
        self.marks.insert_at(channel as usize, mark);
        self.walks.retain(|walk| walk.channel != channel);
        self.walks.push_back(Walk {
            channel,
            end: subscriptions.subscriber_count(channel),
        });
    }

    /// Begins the walk along the next channel for which an owner has refused subscribers, if it still has
    /// presence.
    fn walk_next_refused(&mut self, subscriptions: &Subscriptions) {
        for _ in 0..WALKED_PER_TURN_MAX {
            let Some(channels) = self.again.front_mut() else {
                return;
            };
            let Some(channel) = channels.pop_first() else {
                self.again.pop_front();
                continue;
            };
            if self.marks.get(channel as usize) == Some(&Mark::On) {
                let end = subscriptions.subscriber_count(channel);
                self.walks.push_back(Walk { channel, end });
                return;
            }
        }
    }

    fn unmark(&mut self, channel: u32) {
        self.marks.remove(channel as usize);
        if !self.walks.is_empty() {
            self.walks.retain(|walk| walk.channel != channel);
        }
    }
}

/// [`MESSAGES_WAITING_MAX`]; in a simulation, as many as it has room for letters.
#[inline]
fn messages_waiting_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.letters_waiting_max;
    }
    MESSAGES_WAITING_MAX
}

/// If this many changes wait, clients that subscribe have to wait.
const MESSAGES_WAITING_MAX: usize = 8192;
/// Most changes in one letter.
const TOLD_PER_LETTER_MAX: usize = 1024;
/// An owner that has not handled this many changes of this core is told nothing more, so that the changes
/// that wait at an owner are bounded.
const UNDER_WAY_MAX: usize = 8192;
/// Channels that one turn compares with new policies: a look-up takes 0.1 to 1 µs.
const REVIEWED_PER_TURN_MAX: u32 = 512;
/// Subscribers that one turn's walk tells about.
const WALKED_PER_TURN_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::broker::{CoreBroker, SubscriptionLimits, broker};

    const CONNECTION: u32 = 7;
    const CHANNELS: usize = 100;

    /// A connection in many rooms, and the rooms in the view of their owner.
    struct World {
        broker: CoreBroker,
        memberships: Memberships,
        /// By channel, the identities in its room.
        rooms: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
    }

    fn member(user: &str) -> MemberOf {
        MemberOf {
            session: SessionId::new([7; SessionId::BYTES]),
            user: Some(user.into()),
        }
    }

    impl World {
        fn new() -> World {
            let mut world = World {
                broker: broker(1, 16, 1 << 20).remove(0),
                memberships: Memberships::new(1, true),
                rooms: BTreeMap::new(),
            };
            let limits = SubscriptionLimits {
                channels_max: 10_000,
                names_bytes_max: 1 << 20,
            };
            for number in 0..CHANNELS {
                let name = format!("{number:03}");
                let hash = world.broker.hasher.hash(name.as_bytes());
                let subscriptions = &mut world.broker.subscriptions;
                subscriptions.subscribe(CONNECTION, name.as_bytes(), hash, limits);
                let channel = subscriptions.number_of(name.as_bytes(), hash).unwrap();
                // Every tenth channel has no presence.
                if world.memberships.mark(channel, subscriptions, || number % 10 > 0) {
                    let hasher = &world.broker.hasher;
                    world
                        .memberships
                        .join((name.as_bytes(), hash), CONNECTION, hasher, member("ann"));
                }
            }
            world
        }

        fn identity(&self, user: &str) -> u64 {
            let member = member(user);
            identity_number(Identity::of(&self.broker.hasher, Some(user), &member.session))
        }

        fn rename(&mut self, user: &str) {
            self.memberships
                .rename(CONNECTION, &self.broker.hasher, &member(user));
        }

        fn go_on(&mut self, max: usize) -> usize {
            self.memberships.rename_some(max, &self.broker.subscriptions)
        }

        fn unsubscribe(&mut self, name: &str) {
            let hash = self.broker.hasher.hash(name.as_bytes());
            let subscriptions = &mut self.broker.subscriptions;
            let channel = subscriptions.number_of(name.as_bytes(), hash).unwrap();
            let (session, departure) = (member("").session, Departure::Unsubscribed);
            self.memberships
                .leave(channel, CONNECTION, session, departure, subscriptions);
            subscriptions.unsubscribe(CONNECTION, name.as_bytes(), hash);
        }

        /// Tells the owner. Returns how many changes there were.
        fn tell(&mut self) -> usize {
            let mut count = 0;
            while self.memberships.has_outgoing() {
                for told in self.memberships.take_outgoing(0) {
                    count += 1;
                    let room = self.rooms.entry(told.channel).or_default();
                    match told.message {
                        Message::Joins(user) => {
                            let identity = Identity::of(&self.broker.hasher, user.as_deref(), &told.session);
                            room.insert(identity_number(identity));
                        }
                        Message::Leaves(identity, _) => {
                            room.remove(&identity_number(identity));
                        }
                        Message::Says(..) | Message::Asks(_) => {
                            unreachable!("the model neither says nor asks")
                        }
                    }
                }
            }
            self.rooms.retain(|_, room| !room.is_empty());
            count
        }
    }

    fn identity_number(identity: Identity) -> u64 {
        let text = format!("{identity:?}");
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    #[test]
    fn a_connection_becomes_another_member_of_some_rooms_in_each_turn_and_leaves_as_the_member_that_it_is() {
        let mut world = World::new();
        world.tell();
        assert_eq!(world.rooms.len(), 90);
        world.rename("bob");
        assert_eq!(world.go_on(30), 30);
        assert!(world.tell() <= 60, "two things for each room");
        // The connection leaves a room in which it is the new member, and one in which it is the former one.
        for name in ["001", "099"] {
            world.unsubscribe(name);
        }
        world.tell();
        assert_eq!(world.rooms.len(), 88);
        // It becomes another member again before all rooms know of the first change.
        world.rename("eve");
        assert!(world.memberships.is_renaming(CONNECTION));
        let mut turns = 0;
        while world.memberships.has_work() {
            assert!(world.go_on(30) <= 30);
            world.tell();
            turns += 1;
        }
        assert_eq!(turns, 98_usize.div_ceil(30));
        assert!(!world.memberships.is_renaming(CONNECTION));
        let eve = BTreeSet::from([world.identity("eve")]);
        assert!(world.rooms.len() == 88 && world.rooms.values().all(|room| *room == eve));
    }

    #[test]
    fn a_connection_that_ends_while_it_becomes_another_member_joins_nothing_more_and_is_nowhere() {
        let mut world = World::new();
        world.rename("bob");
        world.go_on(50);
        world.tell();
        let session = Some(member("").session);
        loop {
            let subscriptions = &mut world.broker.subscriptions;
            world
                .memberships
                .leave_some(CONNECTION, session, 40, subscriptions);
            if subscriptions.unsubscribe_some(CONNECTION, 40) == 0 {
                break;
            }
            let before = world.rooms.len();
            world.go_on(10);
            world.tell();
            assert!(world.rooms.len() < before);
        }
        world.go_on(10);
        world.tell();
        assert!(world.rooms.is_empty(), "{:?}", world.rooms);
        assert!(!world.memberships.has_work() && !world.memberships.is_renaming(CONNECTION));
        assert_eq!(world.memberships.identity(CONNECTION), None);
    }
}
