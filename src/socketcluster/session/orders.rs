//! The orders that an application gives beside its answer: settled before the answer is sent, and carried out
//! after it, or together with it as one array.

use super::channels::{by_server, reserved, write_publish};
use super::{Environment, Session};
use crate::app::{AnswerKind, App, PeerOrder, REMOVE_AUTH_TOKEN, Scratch};
use crate::auth::Claims;
use crate::decision::{CloseReason, Decision, Decisions, Publish};
use crate::session;
use crate::socketcluster::number::NumberText;
use crate::socketcluster::{encode, string};

impl Session {
    /// Notes the calls that the application has ordered, signs the tokens and does the deauthentications. This comes
    /// before the answer: if signing fails there is no answer, as in the reference.
    #[inline(always)]
    pub(super) fn settle<A: App>(&mut self, env: &mut Environment<'_, '_, A>) -> Result<(), CloseReason> {
        if env.common.scratch.app.has_orders() {
            self.settle_orders(env)
        } else {
            Ok(())
        }
    }

    fn settle_orders<A: App>(&mut self, env: &mut Environment<'_, '_, A>) -> Result<(), CloseReason> {
        self.await_answers(env);
        let mut at = 0;
        while let Some(order) = env.common.scratch.app.orders.get(at) {
            match *order {
                PeerOrder::SetAuthToken {
                    claims,
                    expires_in,
                    call,
                } => {
                    let token = self.sign(claims, expires_in, env)?;
                    let token = env.common.scratch.app.keep(&token);
                    env.common.scratch.app.orders[at] = PeerOrder::GiveToken { token, call };
                }
                PeerOrder::AuthenticateAs { claims } => {
                    if let Some(claims) = Claims::of_object(env.common.scratch.app.piece(claims)) {
                        self.claims = Some(Box::new(claims));
                    }
                }
                PeerOrder::Deauthenticate { .. } => self.claims = None,
                PeerOrder::Subscribe { channel } => {
                    let name = env.common.scratch.app.piece_bytes(channel);
                    let bytes_max = env.common.settings.channel_name_bytes_max as usize;
                    if name.len() > bytes_max || !self.lets_subscribe(name, env) {
                        env.common.scratch.app.orders.remove(at);
                        continue;
                    }
                }
                PeerOrder::Batch
                | PeerOrder::Transmit { .. }
                | PeerOrder::Invoke { .. }
                | PeerOrder::Publish { .. }
                | PeerOrder::GiveToken { .. }
                | PeerOrder::KickOut { .. }
                | PeerOrder::Disconnect { .. } => {}
            }
            at += 1;
        }
        Ok(())
    }

    /// Answers a call, and carries out the orders of the application.
    #[inline]
    pub(super) fn carry_out_orders<A: App>(
        &self,
        answer: Option<(&NumberText, AnswerKind)>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let scratch = &env.common.scratch.app;
        if !scratch.has_orders() {
            if let Some((cid, kind)) = answer {
                send_if_any(decisions, |out| write_answer(cid, kind, scratch, out));
            }
            return Ok(());
        }
        self.send_orders(answer, env, decisions)
    }

    /// Answers a call, and carries out the orders of the application, of which there is at least one.
    fn send_orders<A: App>(
        &self,
        answer: Option<(&NumberText, AnswerKind)>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let scratch = &env.common.scratch.app;
        let disconnect = scratch.orders.iter().find_map(|order| match *order {
            PeerOrder::Disconnect { code, reason } => Some((code, scratch.piece(reason))),
            PeerOrder::Batch
            | PeerOrder::Transmit { .. }
            | PeerOrder::Invoke { .. }
            | PeerOrder::Publish { .. }
            | PeerOrder::SetAuthToken { .. }
            | PeerOrder::GiveToken { .. }
            | PeerOrder::AuthenticateAs { .. }
            | PeerOrder::Subscribe { .. }
            | PeerOrder::Deauthenticate { .. }
            | PeerOrder::KickOut { .. } => None,
        });
        // A client that is being disconnected is sent the answer and nothing else: wire reference, section 12.
        let is_sent = |order: &PeerOrder| disconnect.is_none() || matches!(order, PeerOrder::Publish { .. });
        let in_batch = scratch
            .orders
            .iter()
            .any(|order| matches!(order, PeerOrder::Batch));
        if in_batch {
            let orders = scratch.orders.iter().copied().filter(is_sent);
            send_array(orders, answer, scratch, decisions);
        } else if let Some((cid, kind)) = answer {
            send_if_any(decisions, |out| write_answer(cid, kind, scratch, out));
        }
        let has_other_user = |order: &PeerOrder| {
            matches!(
                order,
                PeerOrder::GiveToken { .. }
                    | PeerOrder::AuthenticateAs { .. }
                    | PeerOrder::Deauthenticate { .. }
            )
        };
        if scratch.orders.iter().any(has_other_user) {
            decisions.push(Decision::UserChanged);
        }
        // The reference sends these packets through a queue, so that every answer of the same message
        // overtakes them.
        for order in scratch.orders.iter().copied().filter(is_sent) {
            match order {
                PeerOrder::Publish { channel, data } => {
                    let name = scratch.piece_bytes(channel);
                    if reserved(name, env).is_some() {
                        continue;
                    }
                    let data = data.map(|data| scratch.piece_bytes(data));
                    let (policies, recent) = (&env.common.policy.channels, &mut env.common.scratch.channels);
                    let (marks, epoch) = (session::marks(policies, recent, name), env.common.settings.epoch);
                    let channel = decisions.write(|out| out.extend_from_slice(name));
                    let name = |out: &mut Vec<u8>| string::write_json(name, out);
                    let message = decisions.write(|out| write_publish(name, marks, epoch, data, out));
                    let publish = Publish::new(channel, message, data.unwrap_or_default(), marks);
                    decisions.hold(Decision::Publish(publish));
                }
                PeerOrder::KickOut { channel, message } => {
                    kick_out(
                        channel.map(|channel| scratch.piece_bytes(channel)),
                        message.map(|message| scratch.piece_bytes(message)),
                        decisions,
                    );
                }
                PeerOrder::Transmit { .. }
                | PeerOrder::Invoke { .. }
                | PeerOrder::GiveToken { .. }
                | PeerOrder::Deauthenticate { .. } => {
                    if !in_batch
                        && let Some(packet) = written(decisions, |out| write_packet(order, scratch, out))
                    {
                        decisions.hold(packet);
                    }
                }
                PeerOrder::Subscribe { channel } => {
                    let decision = by_server(scratch.piece_bytes(channel), decisions);
                    decisions.hold(decision);
                }
                // `settle` has signed the token or changed the claims; a disconnect comes last, below; a
                // batch was handled above.
                PeerOrder::SetAuthToken { .. }
                | PeerOrder::AuthenticateAs { .. }
                | PeerOrder::Disconnect { .. }
                | PeerOrder::Batch => {}
            }
        }
        let Some((code, text)) = disconnect else {
            return Ok(());
        };
        let reason = CloseReason::Application(code);
        if !text.is_empty() {
            let text = decisions.write(|out| out.extend_from_slice(text.as_bytes()));
            decisions.push_held_publications();
            decisions.push(Decision::Close { reason, text });
        }
        Err(reason)
    }
}

/// Sends the packets of orders and an answer as one array; an empty array is not sent.
fn send_array(
    orders: impl Iterator<Item = PeerOrder>,
    answer: Option<(&NumberText, AnswerKind)>,
    scratch: &Scratch,
    decisions: &mut Decisions,
) {
    send_if_any(decisions, |out| {
        let begin = out.len();
        for order in orders {
            out.push(b',');
            if !write_packet(order, scratch, out) {
                out.pop();
            }
        }
        if let Some((cid, kind)) = answer {
            out.push(b',');
            if !write_answer(cid, kind, scratch, out) {
                out.pop();
            }
        }
        let Some(first) = out.get_mut(begin) else {
            return false;
        };
        *first = b'[';
        out.push(b']');
        true
    });
}

/// Writes the packet that an order sends to the client itself; false if it sends none.
fn write_packet(order: PeerOrder, scratch: &Scratch, out: &mut Vec<u8>) -> bool {
    match order {
        PeerOrder::Transmit { event, data } => {
            let data = data.map(|data| scratch.piece_bytes(data));
            encode::event(scratch.piece_bytes(event), data, out);
        }
        PeerOrder::Invoke { call, event, data } => {
            let data = data.map(|data| scratch.piece_bytes(data));
            encode::call(scratch.piece_bytes(event), call.as_u64(), data, out);
        }
        PeerOrder::GiveToken { token, call } => {
            encode::set_auth_token(scratch.piece(token), call.map(|call| call.as_u64()), out);
        }
        PeerOrder::Deauthenticate { call: None } => out.extend_from_slice(encode::REMOVE_AUTH_TOKEN),
        PeerOrder::Deauthenticate { call: Some(call) } => {
            encode::call(REMOVE_AUTH_TOKEN.as_bytes(), call.as_u64(), None, out);
        }
        PeerOrder::Batch
        | PeerOrder::Publish { .. }
        | PeerOrder::AuthenticateAs { .. }
        | PeerOrder::Subscribe { .. }
        | PeerOrder::KickOut { .. }
        | PeerOrder::SetAuthToken { .. }
        | PeerOrder::Disconnect { .. } => return false,
    }
    true
}

/// Writes the answer to a call; false if there is none.
fn write_answer(cid: &NumberText, kind: AnswerKind, scratch: &Scratch, out: &mut Vec<u8>) -> bool {
    let cid = cid.as_bytes();
    match kind {
        AnswerKind::Silent => return false,
        AnswerKind::Empty => encode::response(cid, None, out),
        AnswerKind::Reply(piece) => encode::response(cid, Some(scratch.piece_bytes(piece)), out),
        AnswerKind::Refuse(piece) => {
            let error = scratch.piece_bytes(piece);
            encode::error(cid, |out| out.extend_from_slice(error), out);
        }
    }
    true
}

/// Decides to send the message that `write` writes. If `write` returns false it has written nothing, and
/// nothing is sent.
fn send_if_any(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    if let Some(send) = written(decisions, write) {
        decisions.push(send);
    }
}

/// The decision to send the message that `write` writes. If `write` returns false it has written nothing, and
/// there is no decision.
fn written(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Decision> {
    let mut is_any = false;
    let message = decisions.write(|out| is_any = write(out));
    is_any.then_some(Decision::Send { message })
}

fn kick_out(channel: Option<&[u8]>, message: Option<&[u8]>, decisions: &mut Decisions) {
    let Some(channel) = channel else {
        let reason = message.map(|message| decisions.write(|out| out.extend_from_slice(message)));
        decisions.hold(Decision::KickOutAll { reason });
        return;
    };
    let message = decisions.write(|out| encode::kick_out(channel, message, out));
    let channel = decisions.write(|out| out.extend_from_slice(channel));
    decisions.hold(Decision::KickOut { channel, message });
}
