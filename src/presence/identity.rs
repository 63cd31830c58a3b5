//! The number by which a core names a member to the owner of its rooms.

use std::num::NonZeroU64;

use crate::app::SessionId;
use crate::broker::ChannelHasher;

/// A keyed hash of a member's identity: of the user's name, or of the session id of a client without a user. A core
/// keeps it for each connection, in 8 bytes. So it can name the member as which a connection leaves, even if the client
/// has another user by then. Two members may share an identity: the owner compares the connections, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(NonZeroU64);

impl Identity {
    /// The identity of a client. All cores have clones of one `hasher`.
    pub fn of(hasher: &ChannelHasher, user: Option<&str>, session: &SessionId) -> Identity {
        let hash = match user {
            Some(user) => hasher.hash(user.as_bytes()),
            None => hasher.hash(session.as_bytes()),
        };
        Identity(NonZeroU64::new(hash.as_u64()).unwrap_or(NonZeroU64::MIN))
    }

    pub(super) fn as_u64(self) -> u64 {
        self.0.get()
    }
}
