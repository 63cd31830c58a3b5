//! DISCONNECT, and the end of the connection: section 3.14.

use super::{Session, State, close_saying};
use crate::app::App;
use crate::decision::{CloseReason, Decisions};
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::Disconnect;
use crate::mqtt::properties::Property;
use crate::mqtt::sessions::End;
use crate::mqtt::settings::MqttSettings;
use crate::mqtt::{ReasonCode, encode};

impl Session {
    /// The client sends DISCONNECT.
    pub(super) fn leave<A: App>(
        &self,
        disconnect: &Disconnect<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(open) = self.open() else {
            return Err(CloseReason::MqttProtocolError);
        };
        let expiry_s = disconnect.properties.number(Property::SessionExpiryInterval);
        if expiry_s.is_some_and(|seconds| seconds > 0) && !open.outlives {
            // MQTT-3.14.2-2. The client violates the protocol, so its will is published.
            return close_saying(
                decisions,
                CloseReason::MqttProtocolError,
                "DISCONNECT asks for a session expiry, but CONNECT had 0",
            );
        }
        let end = End::Orderly {
            // MQTT-3.14.4-3: only success drops the will.
            with_will: disconnect.reason != ReasonCode::Success,
            expiry_s: expiry_s.map(|seconds| seconds.min(env.settings.session_expiry_s_max)),
        };
        env.sessions.leave(open.session, env.common.address, end);
        Err(CloseReason::MqttDisconnected)
    }

    /// Appends the last packet to the client: DISCONNECT of MQTT 5, or CONNACK if that has not been sent.
    /// `text` gives more details than the reason.
    pub fn write_farewell(
        &self,
        reason: CloseReason,
        text: &str,
        settings: &MqttSettings,
        out: &mut Vec<u8>,
    ) {
        if let State::Saving(accepting) = &self.state {
            return accepting.write_farewell(reason, settings, out);
        }
        let State::Open(open) = &self.state else { return };
        let Some(code) = reason.reason_code().and_then(ReasonCode::from_u8) else {
            return;
        };
        if !open.version.has_properties() {
            return;
        }
        let (code, server) = match (reason, settings.server_reference.as_deref()) {
            (CloseReason::Draining, Some(server)) => (ReasonCode::UseAnotherServer, Some(server)),
            (_, _) => (code, None),
        };
        let text = match text {
            "" => reason.in_words()[0],
            text => text,
        };
        let start = out.len();
        encode::disconnect(out, code, Some(text), server);
        if out.len() - start > open.packet_bytes_max as usize {
            out.truncate(start);
            encode::disconnect(out, code, None, None);
        }
    }

    /// The connection has ended, whatever the cause. The application is told, if it was told of the client.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, '_, A>, reason: CloseReason) {
        let wait = self.wait_of_parts();
        let mut open = match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(open) => open,
            State::Saving(accepting) => {
                let (sessions, address) = (&mut *env.sessions, env.common.address);
                return sessions.disconnect(accepting.session(), address, End::Lost, env.common.now);
            }
            State::AwaitingConnect { .. } | State::LoggingIn(_) | State::Deciding(..) | State::Ended => {
                return;
            }
        };
        if let Some(serving) = open.extras.as_mut().and_then(|extras| extras.serving.take()) {
            Session::end_serving(*serving, env);
        }
        if let Some(wait) = wait {
            env.sessions.shares.forget_wait(wait);
        }
        // What the client has said with DISCONNECT holds already: `leave`.
        env.sessions
            .disconnect(open.session, env.common.address, End::Lost, env.common.now);
        let (claims, address) = (self.claims.as_deref(), env.common.address);
        let mut client = env.common.scratch.app.client(self.id, claims, address);
        env.common.app.disconnected(&mut client, reason);
        env.common.tell_disconnected(self.id, claims, reason);
    }
}
