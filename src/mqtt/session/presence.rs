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
use crate::mqtt::subscriptions::Subscriber;

impl Session {
    /// The client has subscribed to a filter: it is a member of the channel with this name, if that has presence.
    pub(super) fn enter_room<A: App>(
        &self,
        filter: &str,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let channels = &env.common.policy.channels;
        if !channels.has_presence() || filter.contains(['+', '#']) {
            return;
        }
        let policy = channels.find(filter.as_bytes());
        if policy.is_none_or(|policy| !policy.presence.is_on()) {
            return;
        }
        let client_id = self
            .session_ref()
            .and_then(|session| env.sessions.client_id(session))
            .unwrap_or_default();
        let bytes_max = env.common.settings.presence_info_bytes_max as usize;
        let channel = decisions.write(|out| out.extend_from_slice(filter.as_bytes()));
        let info = decisions.write(|out| {
            let start = out.len();
            out.extend_from_slice(b"{\"client_id\":");
            string::write_json(client_id.as_bytes(), out);
            out.push(b'}');
            if out.len() - start > bytes_max {
                out.truncate(start);
            }
        });
        decisions.push(Decision::EnterRoom { channel, info });
    }

    /// The client has come back to its session, with the filters of before. Looks at all of them, which are
    /// `channels_per_connection_max` at most.
    pub(super) fn enter_rooms<A: App>(&self, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
        let Some(session) = self
            .session_ref()
            .filter(|_| env.common.policy.channels.has_presence())
        else {
            return;
        };
        let subscriber = Subscriber::Session(session.number);
        let (filters, _) = env
            .sessions
            .subscriptions
            .some_filters_of(subscriber, 0, usize::MAX);
        for (filter, _) in filters {
            // A filter is text.
            self.enter_room(&String::from_utf8_lossy(&filter), env, decisions);
        }
    }
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
