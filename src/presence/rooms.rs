//! The rooms that one core owns, and their members.
//!
//! ```text
//!   names  name → room       rooms[room]                    members[member]
//!                            name, count                    user, connections, since, info
//!   index  identity → member places   [ m4 m9 -- m2 ]  ◄──► place
//!                            changed  [ m9 ]                known, is_there
//!   due     rooms with changes, by the time of their event
//!   absent  members without connections, by the end of their grace
//!   doubtful  the same for members with connections that may have been refused
//! ```
//!
//! Invariants
//! 1. A member that is there has a connection, or is in `absent` or `doubtful` under its present `absence`.
//! 2. A member whose state subscribers do not know is in `changed` of its room, once, and its room is in `due`, once.
//! 3. A member that has left is forgotten after the event about it ([`Rooms::event_is_told`]), and a room with its last
//!    member. So each room in `due` exists.
//! 4. `count` of a room is the number of its members that are there; `weight` is the sum of the weights of all members.
//! 5. `due`, `absent`, and `doubtful` are in the order of their times, since tick and grace never change.
//!
//! Limits: `presence_members_max`, here as a weight; `presence_info_bytes_max` is checked before.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use hashbrown::HashTable;

use super::event::{Draft, Due};
use super::identity::Identity;
use super::member::{Connections, Known, Member, PendingEvent, weight_of};
use super::page::{CONNECTIONS_LISTED_MAX, Page, PageMember};
use super::places::Places;
use super::refusals::{DOUBT, Refusals};
use crate::app::SessionId;
use crate::broker::{ChannelHash, ChannelHasher};
use crate::clock::{Now, Uptime};
use crate::slab::Slab;

/// The rooms of one core.
#[derive(Debug)]
pub struct Rooms {
    pub(super) settings: RoomSettings,
    /// The hasher that all cores share.
    hasher: ChannelHasher,
    names: HashTable<u32>,
    pub(super) rooms: Slab<Room>,
    index: HashTable<u32>,
    pub(super) members: Slab<Member>,
    pub(super) due: VecDeque<Due>,
    absent: VecDeque<Absent>,
    doubtful: VecDeque<Absent>,
    /// The number of the last absence.
    absences: u32,
    weight: u64,
    /// How many members are there, in all rooms.
    there: u64,
    pub(super) draft: Draft,
    tally: Tally,
    pub(super) refusals: Refusals,
    /// The weight of the member that [`Rooms::refuses`] has refused last.
    pub(super) refused_weight: u64,
    /// Members that have joined or left since these were last taken, while webhooks want them.
    changes: Option<Vec<MemberChange>>,
}

/// A member that has joined or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The name of the room's channel.
    pub channel: Box<[u8]>,
    /// The user; `None` for a client without one.
    pub user: Option<Box<str>>,
    /// A connection of the member, if it has one.
    pub session: Option<SessionId>,
    /// Whether it is there now.
    pub is_there: bool,
    /// How many members are there now.
    pub count: u32,
}

/// How rooms are kept.
#[derive(Clone, Copy, Debug)]
pub struct RoomSettings {
    /// Most members. Each further connection of a member counts as one more, and so do each further 256 bytes of its
    /// name and info. So this bounds the memory.
    pub members_max: u32,
    /// How long a user whose last connection has ended remains a member.
    pub grace: Duration,
    /// The time from a change to its event.
    pub tick: Duration,
    /// In a room of more members, events do not name all changes.
    pub sampled_over: u32,
}

/// A client that joins.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its connection.
    pub session: SessionId,
    /// The user, if it is authenticated.
    pub user: Option<&'a str>,
}

/// The outcome of [`Rooms::join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The client is in the room, now or since before.
    Joined,
    /// There are `members_max` members.
    Refused,
}

/// How a connection leaves a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The client or the server has ended the subscription. If it was the user's last one, the user leaves now.
    Unsubscribed,
    /// The connection has ended. The user may come back within the grace.
    Ended,
}

/// Why an info was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoRefused {
    /// The connection is not in the room.
    NotThere,
    /// There are `members_max` members; a large info counts as several.
    Full,
}

/// Counts since they were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members that have joined.
    pub joined: u64,
    /// Members that have left.
    pub left: u64,
    /// Members whose changes have cancelled each other before an event.
    pub coalesced: u64,
    /// Joins and infos refused because of `members_max`.
    pub refused: u64,
}

/// A channel with presence.
#[derive(Debug)]
pub struct Room {
    pub(super) name: Box<[u8]>,
    hash: ChannelHash,
    pub(super) places: Places,
    /// How many members are there.
    pub(super) count: u32,
    /// Members whose state subscribers may not know.
    pub(super) changed: Vec<u32>,
    pub(super) is_due: bool,
}

/// A member without connections, and when it leaves.
#[derive(Clone, Copy, Debug)]
struct Absent {
    until: Uptime,
    member: u32,
    absence: u32,
}

impl Rooms {
    /// No rooms.
    pub fn new(settings: RoomSettings, hasher: ChannelHasher) -> Rooms {
        Rooms {
            settings,
            hasher,
            names: HashTable::new(),
            rooms: Slab::new(),
            index: HashTable::new(),
            members: Slab::new(),
            due: VecDeque::new(),
            absent: VecDeque::new(),
            doubtful: VecDeque::new(),
            absences: 0,
            weight: 0,
            there: 0,
            draft: Draft::default(),
            tally: Tally::default(),
            refusals: Refusals::new(),
            refused_weight: 0,
            changes: None,
        }
    }

    /// A connection joins a room. If the connection is there, nothing changes.
    pub fn join(&mut self, name: &[u8], hash: ChannelHash, client: Client<'_>, now: Now) -> Joined {
        let identity = Identity::of(&self.hasher, client.user, &client.session);
        let room = self.find_room(name, hash);
        let known = room.and_then(|room| {
            self.find(room, identity, |member| match client.user {
                Some(user) => member.user.as_deref() == Some(user),
                None => member.user.is_none() && member.connections.contains(&client.session),
            })
        });
        match known {
            Some(member) => self.join_again(member, client.session, now),
            None => {
                let weight = weight_of(client.user.map_or(0, str::len), 1);
                if self.refuses(weight) {
                    return Joined::Refused;
                }
                let room = room.unwrap_or_else(|| self.create_room(name, hash));
                self.insert(room, client, identity, now);
                Joined::Joined
            }
        }
    }

    /// A connection leaves a room. Nothing happens if it is not there.
    pub fn leave(
        &mut self,
        (name, hash): (&[u8], ChannelHash),
        session: SessionId,
        identity: Identity,
        departure: Departure,
        now: Uptime,
    ) {
        let Some(id) = self.find_connection(name, hash, session, identity) else {
            return;
        };
        let member = &mut self.members[id as usize];
        if member.user.is_none() {
            // No later connection can be this client's.
            self.go(id, now);
            return;
        }
        let before = member.weight();
        member.connections.remove(&session);
        self.weight = self.weight - before + member.weight();
        if !member.connections.as_slice().is_empty() {
            return;
        }
        let grace = match departure {
            Departure::Unsubscribed => Duration::ZERO,
            Departure::Ended => self.settings.grace,
        };
        let is_doubtful = self.refusals.are_open(now);
        if is_doubtful {
            self.refusals.note_unconnected_user();
        } else if grace.is_zero() {
            self.go(id, now);
            return;
        }
        let (queue, grace) = if is_doubtful && grace < DOUBT {
            (&mut self.doubtful, DOUBT)
        } else {
            (&mut self.absent, grace)
        };
        // 0 is no absence.
        self.absences = self.absences.checked_add(1).unwrap_or(1);
        self.members[id as usize].absence = self.absences;
        queue.push_back(Absent {
            until: now + grace,
            member: id,
            absence: self.absences,
        });
    }

    /// Sets the info of the member that this connection belongs to; `None` removes it. `info` is JSON.
    ///
    /// # Errors
    /// The connection is not in the room, or there is no room for the info.
    pub fn set_info(
        &mut self,
        (name, hash): (&[u8], ChannelHash),
        session: SessionId,
        identity: Identity,
        info: Option<&[u8]>,
        now: Uptime,
    ) -> Result<(), InfoRefused> {
        let id = self
            .find_connection(name, hash, session, identity)
            .ok_or(InfoRefused::NotThere)?;
        let member = &self.members[id as usize];
        if member.info.as_ref().map(|info| &***info) == info {
            return Ok(());
        }
        let bytes = member.user.as_ref().map_or(0, |user| user.len()) + info.map_or(0, <[u8]>::len);
        let weight = weight_of(bytes, member.connections.as_slice().len());
        let before = member.weight();
        if weight > before && self.refuses(weight - before) {
            return Err(InfoRefused::Full);
        }
        let member = &mut self.members[id as usize];
        member.info = info.map(|info| Box::new(info.into()));
        member.has_changed = true;
        self.weight = self.weight - before + weight;
        self.list(id, now);
        Ok(())
    }

    /// How many members a room has.
    pub fn count(&self, name: &[u8], hash: ChannelHash) -> u32 {
        self.find_room(name, hash)
            .map_or(0, |room| self.rooms[room as usize].count)
    }

    /// At most `limit` members of a room, from the place `after` on. A page may have fewer members or none although
    /// more follow: then `next` is set. With a limit of 0 it has only the number of members.
    ///
    /// Later events take the page into account: a client that applies them to the page comes to the right members.
    pub fn page(&mut self, name: &[u8], hash: ChannelHash, after: u32, limit: usize) -> Page {
        let Some(room) = self.find_room(name, hash) else {
            return Page::default();
        };
        let room = &self.rooms[room as usize];
        let mut page = Page {
            count: room.count,
            ..Page::default()
        };
        if limit == 0 {
            return page;
        }
        let limit = limit.min(PAGE_MEMBERS_MAX);
        let end = room.places.end().min(after.saturating_add(PLACES_PER_PAGE_MAX));
        let mut bytes = 0;
        let mut at = after;
        while at < end && page.members.len() < limit && bytes < PAGE_BYTES_MAX {
            if let Some(id) = room.places.at(at) {
                let member = &mut self.members[id as usize];
                member.note_paged();
                if member.is_there {
                    let member = PageMember::of(member);
                    bytes += member.bytes();
                    page.members.push(member);
                }
            }
            at += 1;
        }
        page.next = (at < room.places.end()).then_some(at);
        page
    }

    /// Lets members leave whose grace has ended, at most `max`.
    pub fn end_graces(&mut self, now: Uptime, max: usize) {
        for _ in 0..max {
            let is_over = |absent: &mut Absent| absent.until <= now;
            let absent = self.absent.pop_front_if(is_over);
            let Some(absent) = absent.or_else(|| self.doubtful.pop_front_if(is_over)) else {
                return;
            };
            let is_absent = self
                .members
                .get(absent.member as usize)
                .is_some_and(|member| member.absence == absent.absence);
            if is_absent {
                self.go(absent.member, now);
            }
        }
    }

    /// A core has reported that members of its clients were refused, of this weight at least.
    pub fn note_refusal_known(&mut self, core: usize, weight: u64) {
        self.refusals.note_known(core, weight);
    }

    /// The cores that are to learn that there is room again for some refused members. They report their members of
    /// these channels again.
    pub fn take_retries(&mut self, now: Uptime) -> BTreeSet<usize> {
        self.refusals.take_due(self.room_left(), now)
    }

    /// When there is something to do next: an event to write, a grace that ends, or cores that are to be told of room.
    pub fn next_due(&self) -> Uptime {
        let event = self.due.front().map_or(Uptime::NEVER, |due| due.at);
        let until = |queue: &VecDeque<Absent>| queue.front().map_or(Uptime::NEVER, |absent| absent.until);
        let grace = until(&self.absent).min(until(&self.doubtful));
        event.min(grace).min(self.refusals.next_due(self.room_left()))
    }

    /// How many members all rooms have.
    pub fn members(&self) -> u64 {
        self.there
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.len() == 0
    }

    /// Bytes of memory that the tables take, without names, infos, and lists.
    pub(crate) fn table_bytes(&self) -> usize {
        self.names.allocation_size()
            + self.index.allocation_size()
            + self.rooms.memory_bytes()
            + self.members.memory_bytes()
    }

    /// The counts since the last call of this.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Begins or ends noting members that join and leave.
    pub fn watch_members(&mut self, is_on: bool) {
        match is_on {
            true => _ = self.changes.get_or_insert_default(),
            false => self.changes = None,
        }
    }

    /// The members that have joined or left since the last call, in their order.
    pub fn take_changes(&mut self) -> Vec<MemberChange> {
        self.changes.as_mut().map_or_else(Vec::new, std::mem::take)
    }

    /// Notes that a member has joined or left, if webhooks want it.
    fn note_change(&mut self, id: u32) {
        let Some(changes) = &mut self.changes else { return };
        let member = &self.members[id as usize];
        let room = &self.rooms[member.room as usize];
        changes.push(MemberChange {
            channel: room.name.clone(),
            user: member.user.clone(),
            session: member.connections.as_slice().first().copied(),
            is_there: member.is_there,
            count: room.count,
        });
    }

    /// Subscribers know the state of this member. If it has left, it is forgotten.
    pub(super) fn member_is_told(&mut self, id: u32) {
        let member = &mut self.members[id as usize];
        if member.pending_event() == PendingEvent::Nothing {
            self.tally.coalesced += 1;
        }
        member.is_listed = false;
        member.has_changed = false;
        member.known = if member.is_there {
            Known::FromEvent
        } else {
            Known::No
        };
        if !member.is_there {
            self.forget(id);
        }
    }

    pub(super) fn remove_room(&mut self, room: u32) {
        let Some(removed) = self.rooms.remove(room as usize) else {
            return;
        };
        if let Ok(entry) = self
            .names
            .find_entry(removed.hash.as_u64(), |&other| other == room)
        {
            entry.remove();
        }
        if self.names.len() < self.names.capacity() / 8 {
            let rooms = &self.rooms;
            let capacity = self.names.len() * 2;
            self.names
                .shrink_to(capacity, |&other| rooms[other as usize].hash.as_u64());
        }
    }

    /// One more connection of a known member, which may be absent or have left.
    fn join_again(&mut self, id: u32, session: SessionId, now: Now) -> Joined {
        let member = &self.members[id as usize];
        let is_new = !member.connections.contains(&session);
        if is_new && !member.connections.as_slice().is_empty() && self.refuses(1) {
            return Joined::Refused;
        }
        let member = &mut self.members[id as usize];
        let before = member.weight();
        member.connections.insert(session);
        member.absence = 0;
        self.weight = self.weight - before + member.weight();
        if !member.is_there {
            member.is_there = true;
            member.has_changed |= member.since != now.unix_ms;
            member.since = now.unix_ms;
            self.enter(id, now.uptime);
        }
        Joined::Joined
    }

    fn insert(&mut self, room: u32, client: Client<'_>, identity: Identity, now: Now) {
        let id = number(self.members.vacant());
        let place = self.rooms[room as usize].places.insert(id);
        self.members.insert(Member {
            user: client.user.map(Box::from),
            connections: Connections::One(client.session),
            since: now.unix_ms,
            info: None,
            room,
            place,
            absence: 0,
            is_there: true,
            known: Known::No,
            is_listed: false,
            has_changed: false,
        });
        self.weight += self.members[id as usize].weight();
        let (members, rooms, hasher) = (&self.members, &self.rooms, &self.hasher);
        let hash = index_hash(&rooms[room as usize], identity);
        self.index.insert_unique(hash, id, |&other| {
            index_hash_of(&members[other as usize], rooms, hasher)
        });
        self.enter(id, now.uptime);
    }

    /// Counts a member that is there now.
    fn enter(&mut self, id: u32, now: Uptime) {
        let room = self.members[id as usize].room;
        self.rooms[room as usize].count += 1;
        self.there += 1;
        self.tally.joined += 1;
        self.note_change(id);
        self.list(id, now);
    }

    /// A member leaves.
    fn go(&mut self, id: u32, now: Uptime) {
        let member = &mut self.members[id as usize];
        let before = member.weight();
        member.is_there = false;
        member.absence = 0;
        if member.info.take().is_some() {
            member.has_changed = true;
        }
        self.weight = self.weight - before + member.weight();
        self.rooms[member.room as usize].count -= 1;
        self.there -= 1;
        self.tally.left += 1;
        self.note_change(id);
        self.list(id, now);
    }

    /// The next event of the room is about this member.
    fn list(&mut self, id: u32, now: Uptime) {
        let member = &mut self.members[id as usize];
        if std::mem::replace(&mut member.is_listed, true) {
            return;
        }
        let at = member.room;
        let room = &mut self.rooms[at as usize];
        room.changed.push(id);
        if !std::mem::replace(&mut room.is_due, true) {
            self.due.push_back(Due {
                at: now + self.settings.tick,
                room: at,
            });
        }
    }

    /// Forgets a member that has left.
    fn forget(&mut self, id: u32) {
        let hash = index_hash_of(&self.members[id as usize], &self.rooms, &self.hasher);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        let Some(member) = self.members.remove(id as usize) else {
            return;
        };
        self.weight -= member.weight();
        self.rooms[member.room as usize].places.remove(member.place);
        if self.index.len() < self.index.capacity() / 8 {
            let (members, rooms, hasher) = (&self.members, &self.rooms, &self.hasher);
            let capacity = self.index.len() * 2;
            self.index.shrink_to(capacity, |&other| {
                index_hash_of(&members[other as usize], rooms, hasher)
            });
        }
    }

    /// Whether there is no room for this much more. Counts that.
    fn refuses(&mut self, weight: u64) -> bool {
        let refuses = weight > self.room_left();
        if refuses {
            self.tally.refused += 1;
            self.refused_weight = weight;
        }
        refuses
    }

    fn room_left(&self) -> u64 {
        u64::from(self.settings.members_max).saturating_sub(self.weight)
    }

    fn find_room(&self, name: &[u8], hash: ChannelHash) -> Option<u32> {
        let same = |&room: &u32| *self.rooms[room as usize].name == *name;
        self.names.find(hash.as_u64(), same).copied()
    }

    fn create_room(&mut self, name: &[u8], hash: ChannelHash) -> u32 {
        let room = number(self.rooms.insert(Room {
            name: name.into(),
            hash,
            places: Places::default(),
            count: 0,
            changed: Vec::new(),
            is_due: false,
        }));
        let rooms = &self.rooms;
        self.names
            .insert_unique(hash.as_u64(), room, |&other| rooms[other as usize].hash.as_u64());
        room
    }

    /// The member with this connection, if it is in the room.
    fn find_connection(
        &self,
        name: &[u8],
        hash: ChannelHash,
        session: SessionId,
        identity: Identity,
    ) -> Option<u32> {
        let room = self.find_room(name, hash)?;
        self.find(room, identity, |member| {
            member.is_there && member.connections.contains(&session)
        })
    }

    fn find(&self, room: u32, identity: Identity, is_it: impl Fn(&Member) -> bool) -> Option<u32> {
        let hash = index_hash(&self.rooms[room as usize], identity);
        let same = |&id: &u32| {
            let member = &self.members[id as usize];
            member.room == room && is_it(member)
        };
        self.index.find(hash, same).copied()
    }

    /// All connections in all rooms, with the names of their channels.
    #[cfg(test)]
    pub(crate) fn all_connections(&self) -> impl Iterator<Item = (&[u8], SessionId)> {
        let members = self.members.iter().map(|(_, member)| member);
        let there = members.filter(|member| member.is_there);
        there.flat_map(|member| {
            let name = &*self.rooms[member.room as usize].name;
            let connections = member.connections.as_slice().iter();
            connections.map(move |connection| (name, *connection))
        })
    }

    /// All members: the name of the channel, the user, the first connection, and the info.
    #[cfg(test)]
    #[expect(
        clippy::type_complexity,
        reason = "only the simulation takes it apart, at once"
    )]
    pub(crate) fn all_infos(
        &self,
    ) -> impl Iterator<Item = (&[u8], Option<&str>, Option<SessionId>, Option<&[u8]>)> {
        let members = self.members.iter().map(|(_, member)| member);
        members.filter(|member| member.is_there).map(|member| {
            let name = &*self.rooms[member.room as usize].name;
            let info = member.info.as_ref().map(|info| &***info);
            let connection = member.connections.as_slice().first().copied();
            (name, member.user.as_deref(), connection, info)
        })
    }

    #[cfg(test)]
    pub(super) fn weight_left(&self) -> u64 {
        self.weight
    }

    /// The bytes that all rooms and members take, with everything that belongs to them.
    #[cfg(test)]
    pub(super) fn counted_bytes(&self) -> usize {
        let members = self.members.iter().map(|(_, member)| {
            let many = match &member.connections {
                Connections::Many(many) => size_of::<Vec<SessionId>>() + many.capacity() * SessionId::BYTES,
                Connections::None | Connections::One(_) => 0,
            };
            let info = member.info.as_ref();
            let info = info.map_or(0, |info| size_of::<Box<[u8]>>() + info.len());
            member.user.as_ref().map_or(0, |user| user.len()) + many + info
        });
        let rooms = self
            .rooms
            .iter()
            .map(|(_, room)| room.name.len() + room.places.memory_bytes() + room.changed.capacity() * 4);
        let queues = self.due.capacity() * size_of::<Due>()
            + (self.absent.capacity() + self.doubtful.capacity()) * size_of::<Absent>();
        self.table_bytes() + members.sum::<usize>() + rooms.sum::<usize>() + queues
    }
}

impl PageMember {
    fn of(member: &Member) -> PageMember {
        let connections = member.connections.as_slice().iter();
        PageMember {
            user: member.user.clone(),
            info: member.info.as_ref().map(|info| (**info).clone()),
            since: member.since,
            connections: connections.take(CONNECTIONS_LISTED_MAX).copied().collect(),
        }
    }

    /// About how many bytes it takes in an answer.
    fn bytes(&self) -> usize {
        let user = self.user.as_ref().map_or(0, |user| user.len());
        let info = self.info.as_ref().map_or(0, |info| info.len());
        user + info + self.connections.len() * SessionId::TEXT_BYTES
    }
}

/// Mixes the room's name in, since a user is in many rooms.
fn index_hash(room: &Room, identity: Identity) -> u64 {
    (room.hash.as_u64() ^ identity.as_u64().rotate_left(32)).wrapping_mul(ODD)
}

fn index_hash_of(member: &Member, rooms: &Slab<Room>, hasher: &ChannelHasher) -> u64 {
    // A client without a user keeps its one connection.
    let none = SessionId::new([0; SessionId::BYTES]);
    let session = member.connections.as_slice().first().unwrap_or(&none);
    let identity = Identity::of(hasher, member.user.as_deref(), session);
    index_hash(&rooms[member.room as usize], identity)
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("4 billion members do not fit into memory")
}

/// 2⁶⁴ divided by the golden ratio: spreads the sum of two hashes over all bits.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
/// Most members of one page.
pub(super) const PAGE_MEMBERS_MAX: usize = 1000;
/// A page that has grown to this size gets no further member.
const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Places that one page looks at.
const PLACES_PER_PAGE_MAX: u32 = 16_384;
