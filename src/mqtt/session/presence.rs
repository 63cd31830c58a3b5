//! The channels with presence of which the client is a member while it is connected: those that one of its
//! filters names exactly. A filter with wildcards and a shared subscription make no member.
//!
//! Other clients know it by its user, like a SocketCluster client, and by its info, `{"client_id":"…"}`.
//!
//! Limit: `presence_info_bytes_max`; a client with a longer info has none.

use super::Session;
use crate::app::App;
use crate::decision::{Decision, Decisions};
use crate::json::string;
use crate::mqtt::environment::Environment;

impl Session {
    /// The client has subscribed to a filter: it is a member of the channel with this name, if that has presence.
    pub(super) fn enter_room<A: App>(
        &self,
        filter: &str,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        if let Some(room) = room_of(filter, env) {
            let channel = decisions.write(|out| out.extend_from_slice(room.as_bytes()));
            let info = decisions.write(|out| self.write_info(env, out));
            decisions.push(Decision::EnterRoom { channel, info });
        }
    }

    /// Appends the JSON that identifies this client to other clients, unless it is too long.
    pub fn write_info<A: App>(&self, env: &Environment<'_, '_, A>, out: &mut Vec<u8>) {
        let session = self.session_ref();
        let client_id = session.and_then(|session| env.sessions.client_id(session));
        let bytes_max = env.common.settings.presence_info_bytes_max as usize;
        write_member_info(client_id.unwrap_or_default(), bytes_max, out);
    }
}

/// The channel with presence of which this filter makes the client a member, if there is one.
pub(super) fn room_of<A: App>(filter: &str, env: &Environment<'_, '_, A>) -> Option<Box<str>> {
    let channels = &env.common.policy.channels;
    if !channels.has_presence() || !makes_member(filter.as_bytes()) {
        return None;
    }
    let policy = channels.find(filter.as_bytes())?;
    policy.presence.is_on().then(|| filter.into())
}

/// Whether a filter names exactly one channel.
pub(crate) fn makes_member(filter: &[u8]) -> bool {
    !filter.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

/// Appends the info of a client, unless it is longer than `bytes_max`.
pub(crate) fn write_member_info(client_id: &str, bytes_max: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"{\"client_id\":");
    string::write_json(client_id.as_bytes(), out);
    out.push(b'}');
    if out.len() - start > bytes_max {
        out.truncate(start);
    }
}

/// A filter of the client has ended. On a server whose policies have no presence, the client is in no room, or a review
/// after a reload is about to end its memberships.
pub(super) fn leave_room<A: App>(filter: &str, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
    if env.common.policy.channels.has_presence() {
        let channel = decisions.write(|out| out.extend_from_slice(filter.as_bytes()));
        decisions.push(Decision::LeaveRoom { channel });
    }
}
