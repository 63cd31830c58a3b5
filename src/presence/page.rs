//! A page of a room's members: the answer to `$presence`.

use crate::app::SessionId;

/// Some members of a room, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many members the room has.
    pub count: u32,
    /// The members of this page.
    pub members: Vec<PageMember>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<u32>,
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMember {
    /// The user; `None` for a client without one.
    pub user: Option<Box<str>>,
    /// Its own info, as JSON.
    pub info: Option<Box<[u8]>>,
    /// When it joined, in milliseconds since 1970.
    pub since: u64,
    /// Its connections, at most 100. Empty while it may still come back after its last connection has ended.
    pub connections: Vec<SessionId>,
}

impl Page {
    /// Appends `{"count":n,"members":[…],"next":n}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"count\":");
        write_number(u64::from(self.count), out);
        out.extend_from_slice(b",\"members\":[");
        for (at, member) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let PageMember {
                user,
                info,
                since,
                connections,
            } = member;
            write_member(user.as_deref(), info.as_deref(), *since, Some(connections), out);
        }
        out.push(b']');
        if let Some(next) = self.next {
            out.extend_from_slice(b",\"next\":");
            write_number(u64::from(next), out);
        }
        out.push(b'}');
    }
}

/// Appends `{"user":U,"info":I,"since":T,"connections":[…]}`. Info and connections may be absent.
pub(super) fn write_member(
    user: Option<&str>,
    info: Option<&[u8]>,
    since: u64,
    connections: Option<&[SessionId]>,
    out: &mut Vec<u8>,
) {
    write_user(user, out);
    if let Some(info) = info {
        out.extend_from_slice(b",\"info\":");
        out.extend_from_slice(info);
    }
    out.extend_from_slice(b",\"since\":");
    write_number(since, out);
    if let Some(connections) = connections {
        write_connections(connections, out);
    }
    out.push(b'}');
}

/// Appends `{"user":U}`, or `{"user":null,"connections":["…"]}` for a client without a user.
pub(super) fn write_identity(user: Option<&str>, connections: &[SessionId], out: &mut Vec<u8>) {
    write_user(user, out);
    if user.is_none() {
        write_connections(connections, out);
    }
    out.push(b'}');
}

fn write_user(user: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"user\":");
    match user {
        // Writing text into a vector does not fail.
        Some(user) => drop(serde_json::to_writer(out, user)),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_connections(connections: &[SessionId], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"connections\":[");
    for (at, connection) in connections.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(connection.write(&mut [0; SessionId::TEXT_BYTES]).as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Most connections of one member that a page lists.
pub(super) const CONNECTIONS_LISTED_MAX: usize = 100;
