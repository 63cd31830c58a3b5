//! Last wills: publications that a client leaves behind, for the case that its connection ends without its consent.
//!
//! ```text
//!   client ──$will──► held_wills.rs   the wills of the connections of a core
//!                       │ the connection ends
//!                       ├─ by the client's own close ─────► dropped
//!                       ├─ no delay, no session key ──────► published
//!                       └─ else ──► sessions.rs            at the core that owns the session key
//!                                     ├─ the session comes back in time ──► dropped
//!                                     └─ the delay has passed ────────────► published
//! ```
//! A session key names a session that outlives its connections. The client chooses it, and it is bound to the client's
//! user: [`SessionKey`]. Each connection that uses the key is a *generation* of the session, named by its socket id,
//! which no other connection ever has. Only the will of the last generation counts, in whatever order the owner of the
//! key learns of beginnings and ends: see `sessions.rs`.
//!
//! Nothing here does I/O or knows a core. A will holds the data as the client sent it; the message is made when it is
//! published, by the channel policies of that moment.
//!
//! Limits: `wills_bytes_max`, of each core, for the wills of its connections, and once more for wills that wait there.

mod held_wills;
mod sessions;

use std::mem::size_of;
use std::time::Duration;

pub use held_wills::{HeldWill, HeldWills, NoRoom};
pub use sessions::{Former, RestoredWill, Sessions, WillPlan};

/// A publication that a client leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The channel's name, in WTF-8.
    pub channel: Box<[u8]>,
    /// The data, a JSON text; `None` publishes without data.
    pub data: Option<Box<[u8]>>,
    /// The time between the end of the connection and the publication.
    pub delay: Duration,
    /// Whether it is to be the retained publication of the channel.
    pub retain: bool,
    /// The claims of the client, JSON, if it had any: a will whose client has been revoked is not published.
    pub claims: Option<Box<str>>,
}

/// Why a client's will was not set, or not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFault {
    /// There is no room for it: the client keeps the will that it had.
    NoRoom,
    /// It cannot be stored now: the client keeps the will that it had.
    NotNow,
    /// It is set, and it could not be stored.
    NotStored,
}

impl From<NoRoom> for WillFault {
    fn from(NoRoom: NoRoom) -> WillFault {
        WillFault::NoRoom
    }
}

impl Will {
    /// Bytes of memory that the will takes.
    pub fn bytes(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |data| data.len());
        let claims = self.claims.as_ref().map_or(0, |claims| claims.len());
        size_of::<Will>() + self.channel.len() + data + claims
    }
}

/// The name of a session that outlives its connections, bound to its user: two users with the same key have two
/// sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(Box<[u8]>);

impl SessionKey {
    /// The session that `key` names for a user, or for a client without a user.
    pub fn new(user: Option<&[u8]>, key: &[u8]) -> SessionKey {
        let mut bytes = Vec::with_capacity(1 + size_of::<u32>() + user.map_or(0, <[u8]>::len) + key.len());
        match user {
            None => bytes.push(0),
            Some(user) => {
                bytes.push(1);
                // With its length before it, no user's name can reach into the key.
                let length = u32::try_from(user.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(user);
            }
        }
        bytes.extend_from_slice(key);
        SessionKey(bytes.into())
    }

    /// The bytes by which the owner of the session is found.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes of memory that the key takes.
    pub fn bytes(&self) -> usize {
        size_of::<SessionKey>() + self.0.len()
    }
}
