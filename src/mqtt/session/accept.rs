//! The end of CONNECT: CONNACK, and the steps after it. If the store is strict, CONNACK waits until the
//! session is on disk, so that a crash does not break the promise of CONNACK.
//!
//! | the disk | CONNACK |
//! |---|---|
//! | has the session | accepts |
//! | takes nothing now | accepts if no new session is to be kept: the client may make room by acknowledging; refuses a new session, which ends |
//! | does not answer within `handshake_timeout` | is not sent: the connection ends |
//!
//! Meanwhile the connection has its session, which queues publications (`mqtt/sessions.rs`).

use super::connack::{Accepted, ConnAck};
use super::{Open, Session, State};
use crate::app::{App, DeferredOrders, Peer};
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decisions, Stored};
use crate::mqtt::ReasonCode;
use crate::mqtt::environment::Environment;
use crate::mqtt::sessions::SessionRef;
use crate::mqtt::settings::MqttSettings;

/// A client whose CONNACK waits for the disk.
#[derive(Debug)]
pub(super) struct Accepting {
    open: Open,
    accepted: Accepted,
    /// The orders that the application gave when it admitted the client.
    orders: DeferredOrders,
    since: Uptime,
}

impl Accepting {
    pub(super) fn new(open: Open, accepted: Accepted, orders: DeferredOrders, now: Now) -> Accepting {
        Accepting {
            open,
            accepted,
            orders,
            since: now.uptime,
        }
    }

    /// When it began to wait.
    pub(super) fn since(&self) -> Uptime {
        self.since
    }

    /// Its session among those of the core.
    pub(super) fn session(&self) -> SessionRef {
        self.open.session
    }

    /// How many bytes it keeps.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Accepting>() + self.orders.bytes()
    }

    /// Appends the refusal for a client whose connection ends because the server stops: no other packet may
    /// be the first.
    pub(super) fn write_farewell(&self, reason: CloseReason, settings: &MqttSettings, out: &mut Vec<u8>) {
        if reason == CloseReason::Draining {
            let reference = settings.server_reference.as_deref();
            let code = match reference {
                Some(_) => ReasonCode::UseAnotherServer,
                None => ReasonCode::ServerUnavailable,
            };
            self.connack()
                .write_refusal(code, reason.in_words()[0], reference, out);
        }
    }

    fn connack(&self) -> ConnAck {
        ConnAck::to(&self.open)
    }
}

impl Session {
    /// The session of the client is on disk, or cannot be now: a
    /// [`Decision::SaveSession`](crate::decision::Decision) was carried out.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub(crate) fn saved<A: App>(
        &mut self,
        outcome: Stored,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let accepting = match std::mem::replace(&mut self.state, State::Ended) {
            State::Saving(accepting) => accepting,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        let session = accepting.open.session;
        let begins = !accepting.accepted.is_present && env.sessions.expiry_s(session).is_some_and(|s| s > 0);
        if outcome != Stored::Yes && begins {
            let text = "a new session cannot be stored now; connect again later";
            let reference = env.settings.server_reference.as_deref();
            accepting
                .connack()
                .refuse(ReasonCode::ServerUnavailable, text, reference, decisions);
            env.sessions.refuse(session, env.common.address);
            return Err(CloseReason::MqttRefused);
        }
        let Accepting {
            open,
            accepted,
            orders,
            since: _,
        } = *accepting;
        self.heard = env.common.now.uptime;
        env.sessions.accept(session, env.common.address);
        self.begin(env);
        env.common.scratch.app.put_back_orders(orders);
        self.accept(open, &accepted, env, decisions)
    }

    /// Goes through the filters of a resumed session, sends CONNACK, and carries out the orders of the
    /// application.
    pub(super) fn accept<A: App>(
        &mut self,
        open: Open,
        accepted: &Accepted,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let connack = ConnAck::to(&open);
        self.state = State::Open(open);
        if accepted.is_present {
            self.begin_resuming(env, decisions);
        }
        connack.accept(accepted, env.settings, decisions)?;
        self.carry_out_orders(env, decisions)?;
        self.begin(env);
        env.common.app.connected(&mut Peer::new(
            self.id,
            self.claims.as_deref(),
            None,
            &mut env.common.scratch.app,
        ));
        self.settle(env)?;
        self.carry_out_orders(env, decisions)
    }
}
