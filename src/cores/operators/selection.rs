//! The connections that an operation is about, and a core's progress in finding them.
//!
//! A core goes through its table of connections in the order of their places. A connection keeps its place to
//! its end. So it is found exactly once, however many turns the walk takes and however many other connections
//! begin and end meanwhile.

use std::net::IpAddr;

use crate::session::SessionId;

use crate::cores::lifecycle::connection::ConnectionId;

/// The connections that an operation is about: of clients that have completed their handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All connections.
    All,
    /// The connections of a user: those whose tokens have this `sub`, as a text or as a number.
    User(String),
    /// The connections that are subscribed to a channel.
    Channel(String),
    /// The connections of a client's address, with any port.
    Address(IpAddr),
    /// The connection with the session of this id.
    Session(SessionId),
}

/// A walk through the table of connections.
#[derive(Debug)]
pub(crate) struct Selecting {
    pub(super) selection: Selection,
    /// The user's name in the form of claims: as JSON.
    pub(super) user: String,
    /// The next place to look at.
    pub(super) next: u32,
}

/// The next step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Selected {
    /// A connection that is selected.
    Found(ConnectionId),
    /// The turn has spent its effort.
    Later,
    /// There are no more.
    End,
}

impl Selecting {
    /// A walk that begins at this place.
    pub(crate) fn new(selection: Selection, from: u32) -> Selecting {
        let user = match &selection {
            Selection::User(name) => serde_json::Value::from(name.as_str()).to_string(),
            Selection::All | Selection::Channel(_) | Selection::Address(_) | Selection::Session(_) => {
                String::new()
            }
        };
        Selecting {
            selection,
            user,
            next: from,
        }
    }

    /// Whether this is the user that the selection names, if it names one. A number may be given as its text.
    pub(super) fn is_user(&self, user: &str) -> bool {
        match &self.selection {
            Selection::User(name) => user == self.user || user == name,
            Selection::All | Selection::Channel(_) | Selection::Address(_) | Selection::Session(_) => false,
        }
    }
}
