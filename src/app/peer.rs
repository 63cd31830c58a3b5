//! The client that an application is being asked about, and the answers that the application may give.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::calls::{CallId, CallRefused};
use super::context::{Context, UpgradeRequest};
use super::data::RawJson;
use super::deferred::Deferred;
use super::deferred_decision::DeferredDecision;
use super::error::{AppError, Refusal, Refused, write_silent};
use super::scratch::{PeerOrder, Piece, Scratch};
use super::session_id::SessionId;
use super::timers::{TimerId, TimerRefused};
use crate::auth::Claims;
use crate::decision::CloseCode;

/// The client whose packet the application handles.
#[derive(Debug)]
pub struct Peer<'a> {
    id: SessionId,
    claims: Option<&'a Claims>,
    token_expired: Option<f64>,
    scratch: &'a mut Scratch,
}

impl<'a> Peer<'a> {
    pub(crate) fn new(
        id: SessionId,
        claims: Option<&'a Claims>,
        token_expired: Option<f64>,
        scratch: &'a mut Scratch,
    ) -> Peer<'a> {
        Peer {
            id,
            claims,
            token_expired,
            scratch,
        }
    }

    /// The id of its session, which the handshake tells the client.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The claims of the client's token; `None` if the client is not authenticated.
    pub fn claims(&self) -> Option<&'a Claims> {
        self.claims
    }

    /// The `exp` of its token, if the session has found with this packet that the token has expired. The
    /// server handles the packet nevertheless; an application that does not want that must refuse it.
    pub fn token_expired(&self) -> Option<f64> {
        self.token_expired
    }

    /// The request by which the client's connection was opened, if [`App::context`](super::App::context) has kept it.
    pub fn request(&self) -> Option<&UpgradeRequest> {
        self.context()?.request()
    }

    /// The value of the connection, if [`App::context`](super::App::context) has kept one of this type.
    pub fn value<T: Any>(&self) -> Option<&T> {
        self.context()?.value()
    }

    /// The same, to be changed.
    pub fn value_mut<T: Any>(&mut self) -> Option<&mut T> {
        let address = self.scratch.call.address();
        self.scratch.contexts.get_mut(address)?.value_mut()
    }

    /// The parts of the connection's request that hooks are told of.
    pub(crate) fn passed_on(&self) -> Option<&Arc<UpgradeRequest>> {
        self.context()?.passed_on()
    }

    fn context(&self) -> Option<&Context> {
        self.scratch.contexts.get(self.scratch.call.address())
    }

    /// Answers a call with `value`. A value without a JSON form is not answered, as in the reference.
    pub fn reply(&mut self, value: &(impl Serialize + ?Sized)) -> CallAnswer {
        let kind = self
            .scratch
            .write_json(value)
            .map_or(AnswerKind::Silent, AnswerKind::Reply);
        self.answer(kind)
    }

    /// Answers a call with the JSON that `write` writes.
    pub(super) fn reply_written(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> CallAnswer {
        let kind = AnswerKind::Reply(self.scratch.write(write));
        self.answer(kind)
    }

    /// Answers the call later. Outside of [`App::invoke`](super::App::invoke) there is nothing to answer, but
    /// the late answer may still give orders to its peer.
    pub fn defer(&mut self) -> (CallAnswer, Deferred) {
        (CallAnswer::silent(), self.scratch.defer())
    }

    /// Says that the application has handled the event, or the call that it answers with
    /// [`CallAnswer::silent`]. Otherwise it goes on to a service, if one serves its name.
    pub fn handled(&mut self) {
        self.scratch.call.note_handled();
    }

    /// Decides later, in the methods that return a [`Refusal`]: they return the refusal that they get from
    /// here. The packet waits, and with it everything that the client sends after it; other clients do not.
    /// After `decision_timeout_ms` the client is refused.
    pub fn defer_decision(&mut self) -> (Refusal, DeferredDecision) {
        self.scratch.defer_decision()
    }

    fn answer(&self, kind: AnswerKind) -> CallAnswer {
        CallAnswer {
            kind,
            generation: self.scratch.generation(),
        }
    }

    /// Answers a call without data.
    pub fn reply_empty(&mut self) -> CallAnswer {
        self.answer(AnswerKind::Empty)
    }

    /// Answers a call with an error.
    pub fn refuse(&mut self, error: &AppError) -> CallAnswer {
        let kind = AnswerKind::Refuse(self.scratch.write(|out| error.write_json(out)));
        self.answer(kind)
    }

    /// Answers a call with the error of middleware that blocks without one.
    pub fn block(&mut self) -> CallAnswer {
        let kind = AnswerKind::Refuse(self.scratch.write(|out| write_silent(Refused::Invoke, out)));
        self.answer(kind)
    }

    /// Allows a publish with other data. Data without a JSON form is left out.
    pub fn rewrite(&mut self, data: &(impl Serialize + ?Sized)) -> AllowedPublish {
        AllowedPublish {
            kind: AllowedPublishKind::Rewritten(self.scratch.write_json(data)),
            generation: self.scratch.generation(),
        }
    }

    /// Answers a call with this JSON, without asking the application.
    pub(crate) fn answered(&mut self, answer: &RawValue) -> AllowedPublish {
        let kind = self
            .scratch
            .write_json(answer)
            .map_or(AnswerKind::Empty, AnswerKind::Reply);
        AllowedPublish {
            kind: AllowedPublishKind::Answered(kind),
            generation: self.scratch.generation(),
        }
    }

    /// Sends the client an event.
    pub fn transmit(&mut self, event: &str, data: &(impl Serialize + ?Sized)) {
        if let Some(data) = self.scratch.write_json(data) {
            let event = self.name(event);
            self.order(PeerOrder::Transmit {
                event,
                data: Some(data),
            });
        }
    }

    /// Sends the client an event with the JSON that `write` writes.
    pub(super) fn transmit_written(&mut self, event: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let data = Some(self.scratch.write(write));
        let event = self.name(event);
        self.order(PeerOrder::Transmit { event, data });
    }

    /// Sends the client an event without data.
    pub fn transmit_empty(&mut self, event: &str) {
        let event = self.name(event);
        self.order(PeerOrder::Transmit { event, data: None });
    }

    /// Calls a procedure of the client. The answer, or the reason why there is none, comes to
    /// [`App::answered`](super::App::answered).
    ///
    /// # Errors
    /// The call was not made, and there will be no answer.
    pub fn invoke(&mut self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<CallId, CallRefused> {
        let data = self.scratch.write_json(data).ok_or(CallRefused::NoJson)?;
        self.call(event, Some(data))
    }

    /// Calls a procedure of the client, without data.
    ///
    /// # Errors
    /// The call was not made, and there will be no answer.
    pub fn invoke_empty(&mut self, event: &str) -> Result<CallId, CallRefused> {
        self.call(event, None)
    }

    /// Calls [`App::timer`](super::App::timer) for this client after this time, to about 10 ms. The timer
    /// ends with the connection. A timer that is set before the client is connected is not due before that.
    ///
    /// # Errors
    /// The timer is not set.
    pub fn set_timer(&mut self, after: Duration) -> Result<TimerId, TimerRefused> {
        self.scratch.set_timer(after)
    }

    /// Cancels a timer of this client. False if it has come already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.scratch.cancel_timer(timer)
    }

    /// Sends all packets for this client that this packet causes as one array: the packets that the
    /// application has ordered, in that order, then the answer. Publications and kick outs follow separately.
    pub fn batch(&mut self) {
        self.order(PeerOrder::Batch);
    }

    /// Publishes to all subscribers of a channel; to this client as well if it is one.
    pub fn publish(&mut self, channel: &str, data: &(impl Serialize + ?Sized)) {
        if let Some(data) = self.scratch.write_json(data) {
            let channel = self.name(channel);
            self.order(PeerOrder::Publish {
                channel,
                data: Some(data),
            });
        }
    }

    /// Signs a token with these claims and sends it to the client, which is authenticated from then on.
    /// `expires_in` is in seconds; without it, the configured time. If the claims have an `exp`, that counts
    /// instead.
    pub fn set_auth_token(&mut self, claims: &(impl Serialize + ?Sized), expires_in: Option<u64>) {
        if let Some(claims) = self.scratch.write_json(claims) {
            self.order(PeerOrder::SetAuthToken {
                claims,
                expires_in,
                call: None,
            });
        }
    }

    /// As [`Peer::set_auth_token`], with claims that are the text of a JSON object.
    pub(crate) fn set_claims(&mut self, json: &str, expires_in: Option<u64>) {
        let claims = self.scratch.keep(json);
        self.order(PeerOrder::SetAuthToken {
            claims,
            expires_in,
            call: None,
        });
    }

    /// As [`Peer::set_auth_token`], by a call: [`App::answered`](super::App::answered) learns whether the token has
    /// arrived. The client is authenticated at once, as in the reference (`rejectOnFailedDelivery`).
    ///
    /// # Errors
    /// The client has been given no token.
    pub fn set_auth_token_confirmed(
        &mut self,
        claims: &(impl Serialize + ?Sized),
        expires_in: Option<u64>,
    ) -> Result<CallId, CallRefused> {
        let claims = self.scratch.write_json(claims).ok_or(CallRefused::NoJson)?;
        let call = self.scratch.next_call()?;
        self.order(PeerOrder::SetAuthToken {
            claims,
            expires_in,
            call: Some(call),
        });
        Ok(call)
    }

    /// Gives the client these claims, without a token: it is authenticated by them until its connection ends,
    /// or until their `exp`, if they have one. Claims that are not a JSON object change nothing. A client of
    /// SocketCluster learns of it only while it connects, from the answer to its handshake.
    pub fn authenticate_as(&mut self, claims: &(impl Serialize + ?Sized)) {
        if let Some(claims) = self.scratch.write_json(claims) {
            self.order(PeerOrder::AuthenticateAs { claims });
        }
    }

    /// Subscribes the client to a channel, if the rules allow it. A client of SocketCluster gets the event
    /// `$subscribed`. For a client of MQTT the channel is a filter, with QoS 1, and the client gets no packet
    /// about it.
    pub fn subscribe(&mut self, channel: &str) {
        let channel = self.name(channel);
        self.order(PeerOrder::Subscribe { channel });
    }

    /// Takes the client's token away. Its subscriptions stay.
    pub fn deauthenticate(&mut self) {
        self.order(PeerOrder::Deauthenticate { call: None });
    }

    /// As [`Peer::deauthenticate`], by a call: [`App::answered`](super::App::answered) learns whether the client has
    /// dropped its token.
    ///
    /// # Errors
    /// The client keeps its token.
    pub fn deauthenticate_confirmed(&mut self) -> Result<CallId, CallRefused> {
        let call = self.scratch.next_call()?;
        self.order(PeerOrder::Deauthenticate { call: Some(call) });
        Ok(call)
    }

    /// Ends the client's subscription to a channel, or to all channels with `None`, and tells the client the
    /// reason.
    pub fn kick_out(&mut self, channel: Option<&str>, message: Option<&str>) {
        let channel = channel.map(|channel| self.name(channel));
        let message = message.and_then(|message| self.scratch.write_json(message));
        self.order(PeerOrder::KickOut { channel, message });
    }

    /// Closes the connection after the packet was answered. Other packets to this client are dropped, as in the
    /// reference; publications are not. The close frame holds as much of `reason` as fits: 123 bytes.
    pub fn disconnect(&mut self, code: CloseCode, reason: &str) {
        let reason = self.name(reason);
        self.order(PeerOrder::Disconnect { code, reason });
    }

    fn call(&mut self, event: &str, data: Option<Piece>) -> Result<CallId, CallRefused> {
        let call = self.scratch.next_call()?;
        let event = self.name(event);
        self.order(PeerOrder::Invoke { call, event, data });
        Ok(call)
    }

    fn name(&mut self, name: &str) -> Piece {
        self.scratch.keep(name)
    }

    fn order(&mut self, order: PeerOrder) {
        self.scratch.orders.push(order);
    }
}

/// The answer to a call, made by the methods of [`Peer`].
#[derive(Debug)]
#[must_use = "an answer that is not returned is not sent"]
pub struct CallAnswer {
    kind: AnswerKind,
    /// The packet for which it was made.
    generation: u64,
}

impl CallAnswer {
    /// No answer of the application: a service gets the call, if one serves its name and [`Peer::handled`]
    /// was not called. Otherwise there is no answer, and the client's call will time out.
    pub fn silent() -> CallAnswer {
        CallAnswer {
            kind: AnswerKind::Silent,
            generation: 0,
        }
    }

    /// The answer to send. An answer that was made for another packet does not count: its bytes are gone.
    pub(crate) fn kind(&self, scratch: &Scratch) -> AnswerKind {
        if self.generation == scratch.generation() {
            self.kind
        } else {
            AnswerKind::Silent
        }
    }
}

/// The kinds of answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnswerKind {
    Silent,
    Empty,
    Reply(Piece),
    Refuse(Piece),
}

/// The permission to publish, and the data that subscribers get.
#[derive(Debug)]
#[must_use = "a publication that is not returned is not published"]
pub struct AllowedPublish {
    kind: AllowedPublishKind,
    /// The packet for which it was made.
    generation: u64,
}

impl AllowedPublish {
    /// Subscribers get the data that the client sent.
    pub fn as_sent() -> AllowedPublish {
        AllowedPublish {
            kind: AllowedPublishKind::AsSent,
            generation: 0,
        }
    }

    /// The data to publish. Data that was written for another packet is not published: its bytes are gone.
    pub(crate) fn kind(&self, scratch: &Scratch) -> AllowedPublishKind {
        match self.kind {
            AllowedPublishKind::Rewritten(_) | AllowedPublishKind::Answered(_)
                if self.generation != scratch.generation() =>
            {
                AllowedPublishKind::AsSent
            }
            kind => kind,
        }
    }
}

/// The kinds of permissions to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AllowedPublishKind {
    AsSent,
    Rewritten(Option<Piece>),
    /// A call, with its answer. For a publication the same as `AsSent`.
    Answered(AnswerKind),
}

impl RawJson<'_> {
    /// Parses the data as a value of a Rust type.
    ///
    /// # Errors
    /// The data is not such a value. simd-json parses first. `serde_json` then parses data that simd-json
    /// refuses although the grammar allows it (long integers, halves of surrogate pairs), and its error is
    /// returned.
    pub fn parse<T: DeserializeOwned>(self, peer: &mut Peer<'_>) -> Result<T, serde_json::Error> {
        let Scratch { input, json, .. } = &mut *peer.scratch;
        input.clear();
        input.extend_from_slice(self.as_str().as_bytes());
        simd_json::serde::from_slice_with_buffers(input, json)
            .or_else(|_| serde_json::from_str(self.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_peer<T>(ask: impl FnOnce(&mut Peer<'_>) -> T) -> (T, Scratch) {
        let mut scratch = Scratch::default();
        let id = SessionId::new([0; SessionId::BYTES]);
        let answer = ask(&mut Peer::new(id, None, None, &mut scratch));
        (answer, scratch)
    }

    #[test]
    fn a_value_without_a_json_form_is_not_answered() {
        let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
        let (answer, _) = with_peer(|peer| peer.reply(&unwritable));
        assert!(matches!(answer.kind, AnswerKind::Silent));
        let (answer, scratch) = with_peer(|peer| peer.reply("x"));
        assert!(matches!(answer.kind, AnswerKind::Reply(piece) if scratch.piece(piece) == "\"x\""));
    }

    #[test]
    fn an_answer_that_was_kept_for_another_packet_is_none() {
        let (answer, mut scratch) = with_peer(|peer| peer.reply("x"));
        assert!(matches!(answer.kind(&scratch), AnswerKind::Reply(_)));
        scratch.clear(0);
        assert!(matches!(answer.kind(&scratch), AnswerKind::Silent));
    }

    #[test]
    fn data_is_parsed_even_where_simd_json_gives_up() {
        let parse = |text: &str| with_peer(|peer| RawJson::new(text).parse::<f64>(peer).ok()).0;
        assert_eq!(parse("1.5"), Some(1.5));
        assert_eq!(
            parse("123456789012345678901234567890"),
            Some(1.2345678901234568e29)
        );
        assert_eq!(parse("\"x\""), None);
    }
}
