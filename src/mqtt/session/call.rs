//! Calls of procedures by PUBLISH to `$rpc/NAME`: the request and the response of MQTT 5 (section 4.10), with
//! the same procedures of the application that SocketCluster clients call.
//!
//! ```text
//!   PUBLISH $rpc/NAME, Response Topic R, Correlation Data C ──► App::invoke(NAME, data) ──► PUBLISH R, Correlation Data C
//!   PUBLISH $rpc/NAME                                       ──► App::transmit(NAME, data)
//! ```
//! A request with a Response Topic is a call, and needs the action `invoke`, as in SocketCluster. A request
//! without one is a one-way event, and needs `transmit`. Clients before MQTT 5, which have no Response Topic,
//! can send only such events. The payload becomes data by `mqtt_payload`, and the answer is the payload of
//! the response. An error is a response with the user property `error` of the value `1`.
//!
//! The response is a publication in the client's name: the rules and the application must let the client
//! publish to the topic. All subscribers of the topic get it. It has the QoS of the request.
//!
//! The acknowledgement of the request says whether the call was accepted: 0x87 if the rules forbid it, 0x97
//! if too many are open, 0x10 if no procedure answers. It comes before the response.
//!
//! An answer may come later (`Peer::defer`). If the connection has ended by then, there is no response.
//! Whether the response may be published is decided at once: if the application defers that decision
//! (`Peer::defer_decision`), that counts as a refusal.
//!
//! `$rpc/$answer` is no procedure: services that speak MQTT publish their answers there (`serve.rs`).
//!
//! If the application does not answer, a service may (`crate::services`): its answer becomes the response,
//! and a call without an answer becomes an error.
//!
//! Limits: `channel_name_bytes_max` for both topics; `client_calls_max` for calls that wait for an answer.

use super::publish::acknowledgement;
use super::{Denied, Refused, Session, refused, serve};
use crate::app::{
    AllowedPublish, AllowedPublishKind, AnswerKind, App, AppError, Call, Late, LateAnswer, Name, Peer,
    RawJson, Refusal, TimerId,
};
use crate::config::channels::MqttPayload;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Publish as PublishDecision, Span};
use crate::hooks::Subject;
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::{Publish, Qos};
use crate::mqtt::properties::{Property, put_binary};
use crate::mqtt::publication::{self, Head, takes_payload};
use crate::mqtt::{ReasonCode, payload};
use crate::services::{Ended, Token};
use crate::session::{self, ServiceCaller};

/// The beginning of the topics to which a publication is a call; the name of the procedure follows.
pub(super) const PREFIX: &[u8] = b"$rpc/";

/// The destination of an answer. It travels with a call whose answer comes later, in the form of [`ReplyTo::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReplyTo<'a> {
    qos: u8,
    topic: &'a [u8],
    correlation: Option<&'a [u8]>,
}

impl<'a> ReplyTo<'a> {
    /// The destination that a request names; `None` if it is a one-way event.
    fn of(publish: &Publish<'a>) -> Option<ReplyTo<'a>> {
        Some(ReplyTo {
            qos: publish.qos as u8,
            topic: publish.properties.text(Property::ResponseTopic)?.as_bytes(),
            correlation: publish.properties.binary(Property::CorrelationData),
        })
    }

    /// Appends the destination: the QoS, the length of the topic, the topic, and the correlation data with a
    /// 1 before it, or a 0.
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.qos);
        put_binary(out, self.topic);
        out.push(u8::from(self.correlation.is_some()));
        out.extend_from_slice(self.correlation.unwrap_or_default());
    }

    fn read(bytes: &'a [u8]) -> Option<ReplyTo<'a>> {
        let (&[qos, high, low], rest) = bytes.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        let (&has_correlation, rest) = rest.split_first()?;
        Some(ReplyTo {
            qos,
            topic,
            correlation: (has_correlation == 1).then_some(rest),
        })
    }
}

impl Session {
    /// The client publishes to `$rpc/NAME`, which is `topic`. The caller has called [`Session::begin`].
    pub(super) fn call<A: App>(
        &mut self,
        publish: &Publish<'_>,
        topic: Span,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let reply_to = ReplyTo::of(publish);
        let name = decisions.bytes(topic)[PREFIX.len()..].to_vec();
        if name == serve::ANSWER {
            return self.answer_as_service(publish, env, decisions);
        }
        if let Err(refusal) = self.may_call(publish, &name, reply_to, env) {
            self.settle(env)?;
            self.refuse_publication(publish, refusal, env, decisions);
            return self.carry_out_orders(env, decisions);
        }
        let mut data = Vec::new();
        if !publish.payload.is_empty() {
            payload::write_json(env.settings.payload, publish.payload, &mut data);
        }
        let call = Call {
            event: Name::new(&name),
            data: RawJson::in_payload(&data),
        };
        let subject = match (reply_to, call.data.map(RawJson::as_str)) {
            (Some(_), data) => Subject::Invoke {
                procedure: &name,
                data,
            },
            (None, data) => Subject::Transmit { event: &name, data },
        };
        match env.common.decided_elsewhere(0, self.asked(), subject) {
            None => self.hand_on(publish, &call, reply_to, env, decisions),
            Some(decided) => self.follow_hook(decided, publish, call, reply_to, env, decisions),
        }
    }

    /// Handles a call as a hook has decided, or keeps it until the decision comes.
    #[cold]
    fn follow_hook<A: App>(
        &mut self,
        decided: Result<AllowedPublish, Refusal>,
        publish: &Publish<'_>,
        call: Call<'_>,
        reply_to: Option<ReplyTo<'_>>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let text = "the backend refuses the call";
        let denied = |refusal| Denied::by_application(&refusal, 0, ReasonCode::NotAuthorized, text);
        let allowed = match decided.map_err(denied) {
            Ok(allowed) => allowed,
            Err(Denied::Deferred { number, .. }) => {
                self.await_decision(number, Vec::new(), env);
                return Ok(());
            }
            Err(Denied::Refused(refusal)) => {
                self.settle(env)?;
                self.refuse_publication(publish, refusal, env, decisions);
                return self.carry_out_orders(env, decisions);
            }
        };
        let data;
        let mut call = call;
        match allowed.kind(&env.common.scratch.app) {
            AllowedPublishKind::AsSent => {}
            AllowedPublishKind::Rewritten(piece) => {
                data = piece.map(|piece| env.common.scratch.app.piece(piece).to_owned());
                call.data = data.as_deref().map(RawJson::new);
            }
            AllowedPublishKind::Answered(kind) => {
                self.settle(env)?;
                self.take_request(publish, None, env, decisions);
                if let Some(reply_to) = reply_to {
                    self.respond(reply_to, kind, env, decisions);
                }
                return self.carry_out_orders(env, decisions);
            }
        }
        self.settle(env)?;
        self.hand_on(publish, &call, reply_to, env, decisions)
    }

    /// Hands a call or a one-way event to the application, and answers.
    fn hand_on<A: App>(
        &mut self,
        publish: &Publish<'_>,
        call: &Call<'_>,
        reply_to: Option<ReplyTo<'_>>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(reply_to) = reply_to else {
            let mut peer = Peer::new(self.id, self.claims.as_deref(), None, &mut env.common.scratch.app);
            env.common.app.transmit(call, &mut peer);
            if !env.common.scratch.app.call.is_handled() {
                self.call_service(call, None, env);
            }
            self.settle(env)?;
            self.take_request(publish, None, env, decisions);
            return self.carry_out_orders(env, decisions);
        };
        let mut token = Vec::new();
        reply_to.write(&mut token);
        let owed = self.open().and_then(|open| open.extras()?.owed.clone());
        env.common.scratch.app.call.answering(&token, owed);
        let mut peer = Peer::new(self.id, self.claims.as_deref(), None, &mut env.common.scratch.app);
        let answer = env.common.app.invoke(call, &mut peer);
        let kind = answer.kind(&env.common.scratch.app);
        let is_handled = env.common.scratch.app.call.is_handled();
        self.keep_owed(env);
        self.settle(env)?;
        let is_unanswered = matches!(kind, AnswerKind::Silent) && !is_handled;
        let nobody = is_unanswered && !self.call_service(call, Some(&token), env);
        self.take_request(publish, nobody.then_some(NOT_ANSWERED), env, decisions);
        self.respond(reply_to, kind, env, decisions);
        self.carry_out_orders(env, decisions)
    }

    /// Orders a call or an event that the application has not answered to be carried to a service. False if
    /// there is none.
    fn call_service<A: App>(
        &self,
        call: &Call<'_>,
        reply_to: Option<&[u8]>,
        env: &mut Environment<'_, '_, A>,
    ) -> bool {
        if !env.common.scratch.services.is_used {
            return false;
        }
        let caller = ServiceCaller {
            connection: env.common.address,
            id: self.id,
            claims: self.claims.as_deref(),
        };
        let rows = &env.common.policy.services;
        env.common
            .scratch
            .call_service(call, caller, reply_to.map(Token::new), rows)
    }

    /// The client's call of a service has ended: publishes the answer, if the client may still publish it.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn service_ended<A: App>(
        &mut self,
        token: &[u8],
        ended: Ended<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(reply_to) = ReplyTo::read(token).filter(|_| self.is_open()) else {
            return Ok(());
        };
        self.begin(env);
        if self.may(Action::Publish, reply_to.topic, env) {
            let mut error = Vec::new();
            let (answer, is_error) = match ended {
                Ended::Answered(data) => (data.unwrap_or_default(), false),
                Ended::Refused(error) => (error, true),
                Ended::Failed(failure) => {
                    AppError::new(failure.message())
                        .named(failure.name())
                        .write_json(&mut error);
                    (&error[..], true)
                }
            };
            self.publish_response(reply_to, answer, is_error, env, decisions);
        }
        self.settle(env)?;
        self.carry_out_orders(env, decisions)
    }

    /// Whether the client may call the procedure, and publish the answer to the topic that it names.
    fn may_call<A: App>(
        &mut self,
        publish: &Publish<'_>,
        name: &[u8],
        reply_to: Option<ReplyTo<'_>>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), Refused> {
        let bytes_max = env.common.settings.channel_name_bytes_max as usize;
        let response = reply_to.map_or(&b""[..], |reply_to| reply_to.topic);
        if name.len().max(response.len()) > bytes_max {
            env.common.scratch.hit(Limit::ChannelNameBytes);
            return refused(
                ReasonCode::TopicNameInvalid,
                "the topic or the Response Topic is longer than the server allows",
            );
        }
        if name.is_empty() {
            return refused(
                ReasonCode::TopicNameInvalid,
                "$rpc/ needs the name of a procedure",
            );
        }
        if env.settings.checks_payload_format && !publish.has_valid_payload() {
            return refused(ReasonCode::PayloadFormatInvalid, "the payload is not UTF-8");
        }
        if !takes_payload(env.settings.payload, publish.payload) {
            return refused(ReasonCode::PayloadFormatInvalid, "the payload is not JSON");
        }
        let action = match reply_to {
            Some(_) => Action::Invoke,
            None => Action::Transmit,
        };
        if !self.may(action, name, env) {
            return refused(ReasonCode::NotAuthorized, "the rules do not allow the call");
        }
        if reply_to.is_none() {
            return Ok(());
        }
        if !session::is_topic(response) || response.starts_with(PREFIX) {
            return refused(
                ReasonCode::TopicNameInvalid,
                "the Response Topic is none that an answer can be published to",
            );
        }
        super::permissions::check_reserved(response, env.common.policy)?;
        if !self.may(Action::Publish, response, env) {
            return refused(
                ReasonCode::NotAuthorized,
                "the rules do not allow the client to publish to the Response Topic",
            );
        }
        let asked = Subject::PublishBytes {
            topic: response,
            payload: b"",
        };
        let mut hooks = env.common.policy.hooks.iter();
        if hooks.any(|hooks| hooks.find(&asked).is_some()) {
            // The answer is published at once, and could not wait for the hook.
            return refused(
                ReasonCode::NotAuthorized,
                "a hook decides what is published to the Response Topic",
            );
        }
        let calls_max = env.settings.client_calls_max as usize;
        let owed = self.open().and_then(|open| open.extras()?.owed.as_ref());
        if owed.is_some_and(|owed| owed.count() >= calls_max) {
            env.common.scratch.hit(Limit::ClientCalls);
            return refused(ReasonCode::QuotaExceeded, "too many calls wait for their answers");
        }
        Ok(())
    }

    /// Acknowledges a request that was handled.
    pub(super) fn take_request<A: App>(
        &mut self,
        publish: &Publish<'_>,
        reason: Option<Refused>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let Some(open) = self.open_mut() else { return };
        if publish.qos == Qos::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            env.sessions.receive_qos2(open.session, id.get());
            open.in_flight = open.in_flight.saturating_add(1);
        }
        let reason = reason.filter(|_| open.version.has_properties());
        if let Some((kind, id)) = acknowledgement(publish) {
            self.answer(kind, id, reason, decisions);
        }
    }

    /// An answer or a decision that was deferred has come.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn answer_late<A: App>(
        &mut self,
        late: LateAnswer,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let (token, owed, answer) = match late.answer {
            Late::Call { token, owed, answer } => (token, owed, answer),
            Late::Decision { number, decide } => return self.decided(number, decide, env, decisions),
        };
        if !self.is_open() {
            return Ok(());
        }
        self.begin(env);
        env.common.scratch.app.call.answering(&token, owed);
        let mut peer = Peer::new(self.id, self.claims.as_deref(), None, &mut env.common.scratch.app);
        let answer = answer(&mut peer);
        let kind = answer.kind(&env.common.scratch.app);
        self.keep_owed(env);
        self.settle(env)?;
        // The client may be another user by now, or the rules may have changed.
        if let Some(reply_to) = ReplyTo::read(&token)
            && self.may(Action::Publish, reply_to.topic, env)
        {
            self.respond(reply_to, kind, env, decisions);
        }
        self.carry_out_orders(env, decisions)
    }

    /// A timer of the application has come.
    pub(crate) fn timer<A: App>(
        &mut self,
        timer: TimerId,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.begin(env);
        let scratch = &mut env.common.scratch.app;
        let mut peer = Peer::new(self.id, self.claims.as_deref(), None, scratch);
        env.common.app.timer(timer, &mut peer);
        self.settle(env)?;
        self.carry_out_orders(env, decisions)
    }

    /// Counts the calls that the application will answer later, after it was asked.
    fn keep_owed<A: App>(&mut self, env: &mut Environment<'_, '_, A>) {
        if let Some(owed) = env.common.scratch.app.call.take_owed()
            && let Some(open) = self.open_mut()
        {
            open.extras_mut().owed = Some(owed);
        }
    }

    /// Decides the publication of an answer, if there is one and the application lets the client publish it.
    fn respond<A: App>(
        &self,
        reply_to: ReplyTo<'_>,
        kind: AnswerKind,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let scratch = &env.common.scratch;
        let (answer, is_error) = match kind {
            AnswerKind::Silent => return,
            AnswerKind::Empty => (Vec::new(), false),
            AnswerKind::Reply(piece) => (scratch.app.piece_bytes(piece).to_vec(), false),
            AnswerKind::Refuse(piece) => (scratch.app.piece_bytes(piece).to_vec(), true),
        };
        self.publish_response(reply_to, &answer, is_error, env, decisions);
    }

    /// Decides the publication of an answer or an error, if the application lets the client publish it.
    fn publish_response<A: App>(
        &self,
        reply_to: ReplyTo<'_>,
        answer: &[u8],
        is_error: bool,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let scratch = &mut *env.common.scratch;
        let mut peer = Peer::new(self.id, self.claims.as_deref(), None, &mut scratch.app);
        let topic = Name::new(reply_to.topic);
        let Ok(allowed) = env.common.app.publish_bytes(topic, answer, &mut peer) else {
            return scratch.count_publication_refused();
        };
        let answer = match allowed.kind(&scratch.app) {
            AllowedPublishKind::AsSent | AllowedPublishKind::Answered(_) => answer,
            AllowedPublishKind::Rewritten(piece) => {
                piece.map_or(&[][..], |piece| scratch.app.piece_bytes(piece))
            }
        };
        let marks = session::marks(&env.common.policy.channels, &mut scratch.channels, reply_to.topic);
        let head = Head {
            qos: reply_to.qos,
            is_text: true,
            payload_rule: MqttPayload::Json,
            ..Head::default()
        };
        let mut properties = Vec::new();
        if let Some(correlation) = reply_to.correlation {
            properties.push(Property::CorrelationData.id());
            put_binary(&mut properties, correlation);
        }
        if is_error {
            properties.push(Property::UserProperty.id());
            put_binary(&mut properties, b"error");
            put_binary(&mut properties, b"1");
        }
        let topic = decisions.write(|out| out.extend_from_slice(reply_to.topic));
        let message = decisions.write(|out| {
            publication::write_head(&head, &properties, out);
            out.extend_from_slice(answer);
        });
        let publish = PublishDecision::of_mqtt(topic, message, answer, marks, false);
        decisions.push(Decision::Publish(publish));
    }
}

/// The reason in the acknowledgement of a call that no procedure answers.
const NOT_ANSWERED: Refused = Refused {
    code: ReasonCode::NoMatchingSubscribers,
    text: "no procedure has this name",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_read_as_it_was_written() {
        for correlation in [None, Some(&b""[..]), Some(b"\0\x01")] {
            for topic in [&b"a/b"[..], b""] {
                let reply_to = ReplyTo {
                    qos: 2,
                    topic,
                    correlation,
                };
                let mut bytes = Vec::new();
                reply_to.write(&mut bytes);
                assert_eq!(ReplyTo::read(&bytes), Some(reply_to));
            }
        }
        for bytes in [&b""[..], b"\x01\0", b"\x01\0\x05abc", b"\x01\0\x03abc"] {
            assert_eq!(ReplyTo::read(bytes), None);
        }
    }
}
