//! In which rooms the MQTT clients of this core are, and what their owners are to be told.
//!
//! A client is a member of a channel with presence while it is connected and has a filter that names exactly this channel.
//! A filter with wildcards makes no member, nor does a shared subscription: who has one is in no channel in particular. The
//! session says when such a filter comes and goes ([`Decision::EnterRoom`](crate::decision::Decision::EnterRoom)).
//!
//! Invariant: a connection has an entry while it is in a room, and only connections of MQTT have one.
//!
//! Limit: `channels_per_connection_max`, which bounds the filters of a session.

use std::collections::{BTreeMap, HashMap};

use super::memberships::{MemberOf, Memberships};
use crate::app::SessionId;
use crate::broker::{ChannelHash, ChannelHasher};
use crate::presence::{Departure, Identity, What};

/// The rooms of this core's MQTT connections, by the index of the connection.
#[derive(Debug, Default)]
pub(in crate::cores) struct MqttRooms(HashMap<u32, Guest>);

/// A connection that is in rooms.
#[derive(Debug)]
struct Guest {
    session: SessionId,
    /// As which member it has joined.
    identity: Identity,
    /// By the name of the channel.
    rooms: BTreeMap<Box<[u8]>, Room>,
}

#[derive(Debug)]
struct Room {
    hash: ChannelHash,
    /// JSON by which other clients know this one.
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
        let guest = self.0.entry(connection).or_insert_with(|| Guest {
            session: member.session,
            identity,
            rooms: BTreeMap::new(),
        });
        if guest.rooms.contains_key(name) {
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
        self.0.is_empty()
    }

    /// A connection leaves a room, if it is in it; or all rooms.
    pub(in crate::cores) fn leave(
        &mut self,
        connection: u32,
        name: Option<&[u8]>,
        departure: Departure,
        memberships: &mut Memberships,
    ) {
        let Some(guest) = self.0.get_mut(&connection) else {
            return;
        };
        let (session, identity) = (guest.session, guest.identity);
        let mut tell = |name: &[u8], room: &Room| {
            memberships.tell(name, room.hash, session, What::Leaves(identity, departure));
        };
        match name {
            Some(name) => {
                if let Some(room) = guest.rooms.remove(name) {
                    tell(name, &room);
                }
            }
            None => {
                for (name, room) in std::mem::take(&mut guest.rooms) {
                    tell(&name, &room);
                }
            }
        }
        if guest.rooms.is_empty() {
            self.0.remove(&connection);
        }
    }

    /// A connection may be another member from now on.
    pub(in crate::cores) fn rename(
        &mut self,
        connection: u32,
        member: &MemberOf,
        hasher: &ChannelHasher,
        memberships: &mut Memberships,
    ) {
        let Some(guest) = self.0.get_mut(&connection) else {
            return;
        };
        let identity = Identity::of(hasher, member.user.as_deref(), &member.session);
        let before = std::mem::replace(&mut guest.identity, identity);
        if before == identity {
            return;
        }
        for (name, room) in &guest.rooms {
            let leaves = What::Leaves(before, Departure::Unsubscribed);
            memberships.tell(name, room.hash, guest.session, leaves);
            room.tell_joining(name, member, identity, memberships);
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
        let joins = What::Joins(member.user.clone());
        memberships.tell(name, self.hash, member.session, joins);
        if !self.info.is_empty() {
            let says = What::Says(identity, self.info.clone());
            memberships.tell(name, self.hash, member.session, says);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(memberships: &mut Memberships) -> Vec<String> {
        let told = memberships.take_outgoing(0);
        let lines = told.iter().map(|told| {
            let what = match &told.what {
                What::Joins(user) => format!("joins as {}", user.as_deref().unwrap_or("-")),
                What::Leaves(_, departure) => format!("leaves {departure:?}"),
                What::Says(_, info) => format!("says {}", String::from_utf8_lossy(info)),
                What::Asks(_) => "asks".to_owned(),
            };
            format!("{} {what}", String::from_utf8_lossy(&told.channel))
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
        rooms.leave(3, Some(b"c"), Departure::Unsubscribed, &mut memberships);
        rooms.leave(4, None, Departure::Ended, &mut memberships);
        rooms.rename(3, &member(None), &hasher, &mut memberships);
        assert!(told(&mut memberships).is_empty());
        rooms.leave(3, Some(b"b"), Departure::Unsubscribed, &mut memberships);
        rooms.rename(3, &member(Some("ann")), &hasher, &mut memberships);
        rooms.leave(3, None, Departure::Ended, &mut memberships);
        rooms.leave(3, None, Departure::Ended, &mut memberships);
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
}
