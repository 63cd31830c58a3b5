//! What an application asks of its peer besides answering: settled before the answer, carried out after it.

use super::{Environment, Session, send};
use crate::app::{App, Order};
use crate::decision::{CloseReason, Decision, Decisions};
use crate::socketcluster::{encode, string};

impl Session {
    /// Signs the tokens and does the deauthentications that the application has ordered. This comes before the answer:
    /// if signing fails there is none, as in the reference.
    pub(super) fn settle_claims<A: App>(&mut self, env: &mut Environment<'_, A>) -> Result<(), CloseReason> {
        for at in 0..env.scratch.orders.len() {
            match env.scratch.orders[at] {
                Order::SetAuthToken { claims, expires_in } => {
                    let token = self.sign(claims, expires_in, env)?;
                    let token = env.scratch.keep(&token);
                    env.scratch.orders[at] = Order::GiveToken { token };
                }
                Order::Deauthenticate => self.claims = None,
                Order::Transmit { .. }
                | Order::Publish { .. }
                | Order::GiveToken { .. }
                | Order::KickOut { .. }
                | Order::Disconnect(_) => {}
            }
        }
        Ok(())
    }

    /// Does what the application has asked for besides answering.
    pub(super) fn carry_out_orders<A: App>(
        &self,
        env: &Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let scratch = &*env.scratch;
        let disconnect = scratch.orders.iter().find_map(|order| match order {
            Order::Disconnect(code) => Some(*code),
            Order::Transmit { .. }
            | Order::Publish { .. }
            | Order::SetAuthToken { .. }
            | Order::GiveToken { .. }
            | Order::Deauthenticate
            | Order::KickOut { .. } => None,
        });
        for &order in &scratch.orders {
            // A client that is being disconnected is sent nothing more: wire reference, section 12.
            if disconnect.is_some() && !matches!(order, Order::Publish { .. }) {
                continue;
            }
            match order {
                Order::Publish { channel, data } => {
                    let name = scratch.piece(channel).as_bytes();
                    let data = data.map(|data| scratch.piece(data));
                    let channel = decisions.write(|out| out.extend_from_slice(name));
                    let message = decisions
                        .write(|out| encode::publish(|out| string::write_json(name, out), data, out));
                    decisions.push(Decision::Publish { channel, message });
                }
                Order::Transmit { event, data } => {
                    let data = data.map(|data| scratch.piece(data));
                    send(decisions, |out| {
                        encode::event(scratch.piece(event).as_bytes(), data, out)
                    });
                }
                Order::GiveToken { token } => {
                    send(decisions, |out| encode::set_auth_token(scratch.piece(token), out));
                }
                Order::Deauthenticate => {
                    send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
                }
                Order::KickOut { channel, message } => {
                    kick_out(
                        channel.map(|channel| scratch.piece(channel)),
                        message.map(|message| scratch.piece(message)),
                        decisions,
                    );
                }
                // Signed before, and done below.
                Order::SetAuthToken { .. } | Order::Disconnect(_) => {}
            }
        }
        disconnect.map_or(Ok(()), |code| Err(CloseReason::Application(code)))
    }
}

fn kick_out(channel: Option<&str>, message: Option<&str>, decisions: &mut Decisions) {
    let Some(channel) = channel.map(str::as_bytes) else {
        let reason = message.map(|message| decisions.write(|out| out.extend_from_slice(message.as_bytes())));
        decisions.push(Decision::KickOutAll { reason });
        return;
    };
    let message = decisions.write(|out| encode::kick_out(channel, message, out));
    let channel = decisions.write(|out| out.extend_from_slice(channel));
    decisions.push(Decision::KickOut { channel, message });
}
