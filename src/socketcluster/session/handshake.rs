//! The handshake: whether a client is admitted, and the answer to it (wire reference, section 5).

use super::timers::next_tick;
use super::tokens::{AuthFailure, TOO_MANY_TOKENS, VERIFICATIONS_MAX, handshake_token};
use super::{About, Environment, Session, State, invalid_action, send};
use crate::app::{App, Peer, SessionId};
use crate::clock::Uptime;
use crate::decision::{CloseReason, Decision, Decisions};
use crate::hooks::Subject;
use crate::session::Asked;
use crate::socketcluster::encode;
use crate::socketcluster::number::NumberText;
use crate::socketcluster::packet::Event;

impl Session {
    pub(super) fn handshake<A: App>(
        &mut self,
        cid: &NumberText,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let first = match self.state {
            State::AwaitingHandshake { created } => Some(created),
            State::Open { .. } | State::Ended => None,
        };
        if first.is_none() && env.common.scratch.count_verification() > VERIFICATIONS_MAX {
            invalid_action(Some(*cid), TOO_MANY_TOKENS, decisions);
            return Ok(());
        }
        // A handshake without a token is not an error. The claims of the request hold if the handshake offers
        // no token.
        let offered = handshake_token(event.data.as_ref()).map(|token| token.verify(env));
        let brought = first.and_then(|_| self.claims.take());
        let keeps_brought = offered.is_none();
        let verified = offered.or_else(|| brought.as_deref().cloned().map(Ok));
        if first.is_some() {
            let client = Asked {
                id: self.id,
                claims: verified.as_ref().and_then(|result| result.as_ref().ok()),
                token_expired: None,
            };
            let asked = env.common.ask(
                0,
                client,
                Subject::Connect(None),
                |app, peer| app.handshake(peer),
                |_| (),
            );
            if let Err(refusal) = asked {
                if let Some(number) = refusal.decision_number() {
                    self.claims = brought;
                    self.await_decision(number, About::event(event), Vec::new(), env);
                    return Ok(());
                }
                self.await_answers(env);
                let code = refusal.handshake_code();
                send(decisions, |out| {
                    let error = |out: &mut Vec<u8>| refusal.write_handshake_json(out);
                    encode::handshake_refused(cid.as_bytes(), error, code.as_u16(), out);
                });
                return Err(CloseReason::HandshakeRefused(code));
            }
        }
        let failure = match verified {
            Some(result) => match self.accept(usize::from(first.is_some()), result, env) {
                Err(AuthFailure::Deferred(number)) => {
                    if keeps_brought && first.is_some() {
                        self.claims = brought;
                    }
                    let decided = first.map(|_| Ok(())).into_iter().collect();
                    self.await_decision(number, About::event(event), decided, env);
                    return Ok(());
                }
                accepted => accepted.err(),
            },
            None => {
                self.claims = None;
                None
            }
        };
        if first.is_none() {
            decisions.push(Decision::UserChanged);
        }
        if let Some(created) = first {
            let next_ping = next_tick(created, env.settings.ping_interval, env.common.now.uptime);
            self.state = State::Open {
                next_ping,
                subscribed: false,
                authenticated: false,
                rules: env.common.policy.rules.id(),
                watch: Session::first_watch(env.common.settings, env.common.now),
            };
        }
        if let Err(reason) = self.settle(env) {
            return Err(self.end_before_connected(first, reason));
        }
        send(decisions, |out| {
            encode::handshake_response(
                cid.as_bytes(),
                self.id.write(&mut [0; SessionId::TEXT_BYTES]),
                u64::try_from(env.settings.ping_timeout.as_millis()).unwrap_or(u64::MAX),
                failure
                    .as_ref()
                    .map(|failure| |out: &mut Vec<u8>| failure.write_json(out)),
                self.claims.is_some(),
                out,
            );
        });
        if failure.is_some_and(|failure| failure.is_bad_token()) {
            send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
        }
        if let Err(reason) = self.carry_out_orders(None, env, decisions) {
            return Err(self.end_before_connected(first, reason));
        }
        if first.is_none() {
            return Ok(());
        }
        self.begin(env);
        env.common.app.connected(&mut Peer::new(
            self.id,
            self.claims.as_deref(),
            None,
            &mut env.common.scratch.app,
        ));
        self.settle(env)?;
        self.carry_out_orders(None, env, decisions)
    }

    /// The connection ends in its first handshake: the application is told neither of its beginning nor of
    /// its end.
    fn end_before_connected(&mut self, first: Option<Uptime>, reason: CloseReason) -> CloseReason {
        if let Some(created) = first {
            self.state = State::AwaitingHandshake { created };
        }
        reason
    }
}
