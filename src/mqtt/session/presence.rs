//! The channels with presence of which the client is a member: those that one of its filters names exactly, while it is
//! connected. A filter with wildcards and a shared subscription make no member.
//!
//! Other clients know it by its user, as they know SocketCluster clients, and by its info, `{"client_id":"…"}`.
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

    /// Appends the JSON by which other clients know this one, unless it is too long.
    pub fn write_info<A: App>(&self, env: &Environment<'_, '_, A>, out: &mut Vec<u8>) {
        let session = self.session_ref();
        let client_id = session.and_then(|session| env.sessions.client_id(session));
        let start = out.len();
        out.extend_from_slice(b"{\"client_id\":");
        string::write_json(client_id.unwrap_or_default().as_bytes(), out);
        out.push(b'}');
        if out.len() - start > env.common.settings.presence_info_bytes_max as usize {
            out.truncate(start);
        }
    }
}

/// The channel of which a client with this filter is a member, if there is one.
pub(super) fn room_of<A: App>(filter: &str, env: &Environment<'_, '_, A>) -> Option<Box<str>> {
    let channels = &env.common.policy.channels;
    if !channels.has_presence() || filter.contains(['+', '#']) {
        return None;
    }
    let policy = channels.find(filter.as_bytes())?;
    policy.presence.is_on().then(|| filter.into())
}

/// A filter of the client has ended, or all of them.
pub(super) fn leave_room<A: App>(
    filter: Option<&str>,
    env: &Environment<'_, '_, A>,
    decisions: &mut Decisions,
) {
    if env.common.policy.channels.has_presence() {
        let channel = filter.map(|filter| decisions.write(|out| out.extend_from_slice(filter.as_bytes())));
        decisions.push(Decision::LeaveRoom { channel });
    }
}
