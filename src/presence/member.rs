//! One member of a room.

use crate::app::SessionId;

/// A user in a room, or a client without a user. 64 bytes, since a room may have 100,000.
#[derive(Debug)]
pub(super) struct Member {
    /// The user; `None` for a client without one, whose only connection is its identity.
    pub(super) user: Option<Box<str>>,
    /// The connections of the member. A client without a user keeps its connection here after it has left.
    pub(super) connections: Connections,
    /// When it joined, in milliseconds since 1970.
    pub(super) since: u64,
    /// Its own info, as JSON.
    pub(super) info: Option<Box<Box<[u8]>>>,
    pub(super) room: u32,
    pub(super) place: u32,
    /// The number of the absence that may end its membership; 0 while it has connections.
    pub(super) absence: u32,
    pub(super) is_there: bool,
    /// How subscribers to the events may know that it is there.
    pub(super) known: Known,
    /// Whether it is among the members that the next event is about.
    pub(super) is_listed: bool,
    /// Whether its info, or the time at which it joined, has changed since the last event.
    pub(super) has_changed: bool,
}

/// How clients know of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// They do not know of it.
    No,
    /// A page has shown it, and no event has named it yet. If it leaves before its event, an event must say so.
    FromPage,
    /// An event has named it.
    FromEvent,
}

/// The changes of a member that no event has had yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingEvent {
    /// Nothing: the changes since the last event have cancelled each other.
    Nothing,
    Joined,
    Left,
    Changed,
}

/// The connections of one member, in order. One needs no allocation.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "16 bytes instead of 32")]
pub(super) enum Connections {
    None,
    One(SessionId),
    Many(Box<Vec<SessionId>>),
}

const _: () = assert!(size_of::<Option<Member>>() == 64);

impl Member {
    pub(super) fn pending_event(&self) -> PendingEvent {
        match (self.known, self.is_there) {
            (Known::No | Known::FromPage, true) => PendingEvent::Joined,
            (Known::FromPage | Known::FromEvent, false) => PendingEvent::Left,
            (Known::FromEvent, true) if self.has_changed => PendingEvent::Changed,
            (Known::FromEvent, true) | (Known::No, false) => PendingEvent::Nothing,
        }
    }

    /// A page has shown the member, or has left it out because it is not there. This differs from the state in earlier
    /// events: so the next event must name the member even if it is back at its former state by then.
    pub(super) fn note_paged(&mut self) {
        match (self.known, self.is_there) {
            (Known::No, true) => self.known = Known::FromPage,
            (Known::FromEvent, false) => self.has_changed = true,
            (Known::FromPage | Known::FromEvent, true) | (Known::No | Known::FromPage, false) => {}
        }
    }

    /// The part of a core's room for members that it takes: see [`super::RoomSettings::members_max`].
    pub(super) fn weight(&self) -> u64 {
        let user = self.user.as_ref().map_or(0, |user| user.len());
        let info = self.info.as_ref().map_or(0, |info| info.len());
        weight_of(user + info, self.connections.as_slice().len())
    }
}

/// The weight of a member with this many bytes of name and info, and this many connections.
pub(super) fn weight_of(bytes: usize, connections: usize) -> u64 {
    let more_connections = connections.saturating_sub(1);
    (1 + bytes / BYTES_PER_WEIGHT + more_connections) as u64
}

impl Connections {
    pub(super) fn as_slice(&self) -> &[SessionId] {
        match self {
            Connections::None => &[],
            Connections::One(connection) => std::slice::from_ref(connection),
            Connections::Many(connections) => connections,
        }
    }

    pub(super) fn contains(&self, connection: &SessionId) -> bool {
        self.as_slice().binary_search(connection).is_ok()
    }

    /// Adds a connection. False if it is there already.
    pub(super) fn insert(&mut self, connection: SessionId) -> bool {
        let Err(at) = self.as_slice().binary_search(&connection) else {
            return false;
        };
        match self {
            Connections::None => *self = Connections::One(connection),
            Connections::One(first) => {
                let mut both = vec![*first];
                both.insert(at, connection);
                *self = Connections::Many(Box::new(both));
            }
            Connections::Many(connections) => connections.insert(at, connection),
        }
        true
    }

    /// Removes a connection. False if it is not there.
    pub(super) fn remove(&mut self, connection: &SessionId) -> bool {
        let Ok(at) = self.as_slice().binary_search(connection) else {
            return false;
        };
        match self {
            Connections::None => {}
            Connections::One(_) => *self = Connections::None,
            Connections::Many(connections) => {
                connections.remove(at);
                if let [last] = connections[..] {
                    *self = Connections::One(last);
                } else if connections.len() < connections.capacity() / 4 {
                    connections.shrink_to(connections.len() * 2);
                }
            }
        }
        true
    }
}

/// Names and infos of a member beyond so many bytes count as further members.
pub(super) const BYTES_PER_WEIGHT: usize = 256;
