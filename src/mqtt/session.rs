//! One MQTT client's session: packets in, decisions out.

use super::environment::Environment;
use super::settings::Settings;
use crate::app::{App, SessionId};
use crate::auth::Claims;
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decision, Decisions};
use crate::session;

/// The session of one MQTT client, as long as its connection.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    state: State,
    /// When the last packet came.
    heard: Uptime,
    claims: Option<Box<Claims>>,
}

#[derive(Debug)]
enum State {
    /// Only CONNECT is legal.
    AwaitingConnect { since: Uptime },
    /// CONNACK was sent.
    Open { level: u8, keep_alive_s: u16 },
    /// The connection has ended.
    Ended,
}

impl Session {
    /// The session of a connection whose CONNECT has not come yet. `claims` are those of a certificate, or of the
    /// request of a WebSocket.
    pub fn new(id: SessionId, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session {
            id,
            state: State::AwaitingConnect { since: now.uptime },
            heard: now.uptime,
            claims,
        }
    }

    /// The id of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether CONNECT was accepted and the end has not come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whose session it is, if the client is authenticated.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_deref()
    }

    /// Whether a login is being checked: no packet is handled before its answer.
    pub fn is_waiting(&self) -> bool {
        false
    }

    /// Handles a packet: its first byte, and the bytes behind its fixed header.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive<A: App>(
        &mut self,
        first: u8,
        body: &[u8],
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.heard = env.common.now.uptime;
        match (&self.state, first) {
            (State::AwaitingConnect { .. }, 0x10) => self.connect(body, decisions),
            (State::AwaitingConnect { .. }, _) => Err(CloseReason::NotMqtt),
            (State::Open { .. }, 0xc0) => {
                send(decisions, &[0xd0, 0]);
                Ok(())
            }
            (State::Open { .. }, 0xe0) => Err(CloseReason::MqttDisconnected),
            (State::Open { .. } | State::Ended, _) => Err(CloseReason::MqttProtocolError),
        }
    }

    fn connect(&mut self, body: &[u8], decisions: &mut Decisions) -> Result<(), CloseReason> {
        let [_, _, _, _, _, _, level @ 3..=5, _, high, low, ..] = *body else {
            return Err(CloseReason::MalformedMqtt);
        };
        self.state = State::Open {
            level,
            keep_alive_s: u16::from_be_bytes([high, low]),
        };
        match level {
            5 => send(decisions, &[0x20, 3, 0, 0, 0]),
            _ => send(decisions, &[0x20, 2, 0, 0]),
        }
        Ok(())
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, common: &session::Settings) -> Uptime {
        match self.state {
            State::AwaitingConnect { since } => since + common.handshake_timeout,
            State::Open { keep_alive_s: 0, .. } | State::Ended => Uptime::NEVER,
            State::Open { keep_alive_s, .. } => {
                self.heard + std::time::Duration::from_millis(u64::from(keep_alive_s) * 1500)
            }
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        _decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if self.next_deadline(env.common.settings) > env.common.now.uptime {
            return Ok(());
        }
        match self.state {
            State::AwaitingConnect { .. } => Err(CloseReason::HandshakeTimeout),
            State::Open { .. } | State::Ended => Err(CloseReason::KeepAliveTimeout),
        }
    }

    /// The server has not read the connection up to now.
    pub fn reset_silence_timer(&mut self, now: Now) {
        self.heard = now.uptime;
    }

    /// Whether nothing has been heard from the client since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        self.heard < moment
    }

    /// Appends the last packet to the client: DISCONNECT with the code of the reason, if the client speaks MQTT 5.
    pub fn write_farewell(&self, reason: CloseReason, _text: &str, settings: &Settings, out: &mut Vec<u8>) {
        let (State::Open { level: 5, .. }, Some(code)) = (&self.state, reason.reason_code()) else {
            return;
        };
        match (reason, &settings.server_reference) {
            // A longer name needs a header of more bytes.
            (CloseReason::Draining, Some(server)) if server.len() <= 120 => {
                let length = u8::try_from(server.len()).unwrap_or(0);
                out.extend_from_slice(&[0xe0, length + 5, 0x9c, length + 3, 0x1c, 0, length]);
                out.extend_from_slice(server.as_bytes());
            }
            (_, _) => out.extend_from_slice(&[0xe0, 1, code]),
        }
    }

    /// The connection has ended, whatever the cause.
    pub fn ended<A: App>(&mut self, _env: &mut Environment<'_, '_, A>, _reason: CloseReason) {
        self.state = State::Ended;
    }
}

fn send(decisions: &mut Decisions, packet: &[u8]) {
    let message = decisions.write(|out| out.extend_from_slice(packet));
    decisions.push(Decision::Send { message });
}
