//! PUBLISH from the client: section 3.3.
//!
//! A publication is decided, then acknowledged. If it is refused, the acknowledgement says so in MQTT 5. A
//! client of 3.1.1 gets the same acknowledgement as for an accepted publication, since it has no other
//! (MQTT-3.3.5-2 there). Publications with QoS 0 are dropped without an answer. All refused publications are
//! counted.
//!
//! A publication with QoS 2 is published at once, and its identifier is kept until PUBREL: an earlier packet
//! with the same identifier is the same publication (section 4.3.3, method B).

use super::aliases::AliasFault;
use super::permissions::AllowedPayload;
use super::{Denied, Refused, Session, State, call, close_saying, refused};
use crate::app::App;
use crate::broker::Origin;
use crate::config::channels::RetainPolicy;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Publish as PublishDecision, Span, Stored};
use crate::mqtt::ReasonCode;
use crate::mqtt::encode::AckKind;
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::{Ack, PacketId, Publish, Qos, first_byte};
use crate::mqtt::properties::{Properties, Property};
use crate::mqtt::publication::{self, Head, takes_payload};
use crate::mqtt::sessions::{Acknowledged, SessionRef, Sessions};
use crate::mqtt::settings::ReceiveExcess;
use crate::session::{self, MqttMarks};

impl Session {
    /// The client publishes.
    pub(super) fn publish<A: App>(
        &mut self,
        publish: &Publish<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let topic = if publish.properties.has(Property::TopicAlias) {
            match self.resolve_alias(publish, env.settings.topic_aliases_max, decisions) {
                Ok(topic) => topic,
                Err(fault) => return close_by_alias(fault, decisions),
            }
        } else {
            decisions.write(|out| out.extend_from_slice(publish.topic.as_bytes()))
        };
        if publish.qos == Qos::ExactlyOnce && self.is_duplicate(publish, env) {
            self.await_saved(env, decisions);
            self.acknowledge_publication(publish, None, decisions);
            return Ok(());
        }
        self.check_retain(publish, env, decisions)?;
        self.check_receive_maximum(publish, env, decisions)?;
        self.begin(env);
        if decisions.bytes(topic).starts_with(call::PREFIX) {
            return self.call(publish, topic, env, decisions);
        }
        match self.may_publish_packet(publish, decisions.bytes(topic), env) {
            Ok(allowed) => {
                self.settle(env)?;
                self.decide_publication(publish, topic, allowed, env, decisions);
            }
            Err(Denied::Refused(refusal)) => {
                self.settle(env)?;
                self.refuse_publication(publish, refusal, env, decisions);
            }
            Err(Denied::Deferred { number, .. }) => {
                self.await_decision(number, Vec::new(), env);
                return Ok(());
            }
        }
        self.carry_out_orders(env, decisions)
    }

    /// The topic for a packet's alias; the same packet may assign the topic to the alias.
    fn resolve_alias(
        &mut self,
        publish: &Publish<'_>,
        max: u16,
        decisions: &mut Decisions,
    ) -> Result<Span, AliasFault> {
        let alias = publish.properties.number_16(Property::TopicAlias).unwrap_or(0);
        let aliases = self
            .open_mut()
            .ok_or(AliasFault::Unknown)?
            .extras_mut()
            .aliases
            .get_or_insert_default();
        if !publish.topic.is_empty() {
            aliases.set(alias, publish.topic, max)?;
        }
        let topic = aliases.topic(alias, max)?;
        Ok(decisions.write(|out| out.extend_from_slice(topic.as_bytes())))
    }

    /// Whether a publication with QoS 2 has come before and was not released yet.
    fn is_duplicate<A: App>(&self, publish: &Publish<'_>, env: &mut Environment<'_, '_, A>) -> bool {
        match (self.session_ref(), publish.packet_id) {
            (Some(session), Some(id)) => env.sessions.is_repeated(session, id.get(), publish.dup),
            (_, _) => false,
        }
    }

    /// Checks that the client does not set RETAIN if CONNACK has said that it is not available (section
    /// 3.2.2.3.5). Clients of 3.1.1 cannot be told, and their publications are only delivered.
    fn check_retain<A: App>(
        &self,
        publish: &Publish<'_>,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let was_told = matches!(&self.state, State::Open(open) if open.version.has_properties());
        if publish.retain && !env.settings.retain_available && was_told {
            return close_saying(
                decisions,
                CloseReason::RetainNotSupported,
                "RETAIN 1, but CONNACK said that nothing is retained here",
            );
        }
        Ok(())
    }

    /// Checks that the client has not more publications in flight than CONNACK allows (MQTT-3.3.4-7). Those with QoS 1 are
    /// not counted: a client cannot know whether PUBACK had left when the server read the next packet.
    fn check_receive_maximum<A: App>(
        &mut self,
        publish: &Publish<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(open) = self.open_mut() else {
            return Ok(());
        };
        if publish.qos == Qos::AtMostOnce
            || !open.version.has_properties()
            || open.in_flight < env.settings.receive_maximum
        {
            return Ok(());
        }
        env.common.scratch.hit(Limit::MqttReceiveMaximum);
        match env.settings.receive_excess {
            ReceiveExcess::Count => Ok(()),
            ReceiveExcess::Disconnect => close_saying(
                decisions,
                CloseReason::ReceiveMaximumExceeded,
                "more publications with QoS 1 and 2 in flight than the Receive Maximum of CONNACK",
            ),
        }
    }

    /// Whether the client may publish this, the payload that subscribers get, and the policy of the topic.
    fn may_publish_packet<A: App>(
        &mut self,
        publish: &Publish<'_>,
        topic: &[u8],
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(AllowedPayload, MqttMarks), Denied> {
        if env.settings.checks_payload_format && !publish.has_valid_payload() {
            return refused(ReasonCode::PayloadFormatInvalid, "the payload is not UTF-8");
        }
        let marks = session::mqtt_marks(
            &env.common.policy.channels,
            &mut env.common.scratch.channels,
            topic,
            env.settings.payload,
        );
        if !takes_payload(marks.payload, publish.payload) {
            return refused(
                ReasonCode::PayloadFormatInvalid,
                "the payload is not JSON, which publications to this topic must be",
            );
        }
        let payload = self.may_publish(0, topic, publish.payload, env)?;
        Ok((payload, marks))
    }

    fn decide_publication<A: App>(
        &mut self,
        publish: &Publish<'_>,
        topic: Span,
        (payload, policy): (AllowedPayload, MqttMarks),
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let Some(open) = self.open_mut() else { return };
        let properties = publish.properties;
        let MqttMarks {
            marks,
            payload: payload_rule,
            retain,
        } = policy;
        let is_retained = publish.retain && env.settings.retain_available && retain == RetainPolicy::Kept;
        let expires_in_s = properties.number(Property::MessageExpiryInterval);
        let head = Head {
            qos: publish.qos as u8,
            retain: publish.retain,
            is_text: properties.number(Property::PayloadFormatIndicator) == Some(1),
            publisher: open.session.serial,
            client_hash: match is_retained || marks.remembered {
                true => open.client_hash(env.sessions),
                false => 0,
            },
            expires_at_ms: expires_in_s
                .map(|seconds| env.common.now.unix_ms.saturating_add(u64::from(seconds) * 1000)),
            payload_rule,
        };
        let bytes = payload.bytes(publish.payload, env);
        let message = decisions.write(|out| {
            if properties.number(Property::PayloadFormatIndicator) == Some(0) {
                publication::write_head(&head, &passed_on(properties), out);
            } else {
                publication::write_head_of(&head, properties, out);
            }
            out.extend_from_slice(bytes);
        });
        let decided = PublishDecision::of_mqtt(topic, message, bytes, marks, is_retained);
        decisions.push(Decision::Publish(decided));
        if publish.qos == Qos::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            env.sessions.receive_qos2(open.session, id.get());
            open.in_flight = open.in_flight.saturating_add(1);
        }
        if let Some(id) = publish.packet_id
            && ((marks.remembered && env.common.settings.has_store) || env.settings.is_durable)
        {
            // A store may make the acknowledgement wait, or refuse the publication.
            let token = decisions.write(|out| write_token(publish.qos, id, out));
            decisions.push(Decision::Acknowledge { token });
        } else {
            self.acknowledge_publication(publish, None, decisions);
        }
    }

    /// The publication is dropped.
    pub(super) fn refuse_publication<A: App>(
        &mut self,
        publish: &Publish<'_>,
        refusal: Refused,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        env.common.scratch.count_publication_refused();
        let Some(open) = self.open_mut() else { return };
        let is_told = open.version.has_properties();
        if publish.qos == Qos::ExactlyOnce
            && !is_told
            && let Some(id) = publish.packet_id
        {
            // The client goes on with PUBREL, which gives its place back.
            env.sessions.receive_qos2(open.session, id.get());
            open.in_flight = open.in_flight.saturating_add(1);
        }
        self.acknowledge_publication(publish, is_told.then_some(refusal), decisions);
    }

    /// PUBACK or PUBREC, if the publication is to have one.
    fn acknowledge_publication(
        &self,
        publish: &Publish<'_>,
        refusal: Option<Refused>,
        decisions: &mut Decisions,
    ) {
        if let Some((kind, id)) = acknowledgement(publish) {
            self.answer(kind, id, refusal, decisions);
        }
    }

    /// A [`Decision::Acknowledge`] was carried out. Returns the acknowledgement.
    ///
    /// # Errors
    /// It is not stored, and the version of the client has no acknowledgement that says so.
    pub fn stored<A: App>(
        &mut self,
        token: Span,
        outcome: Stored,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<Span, CloseReason> {
        let refusal = match outcome {
            Stored::Yes => None,
            Stored::NotNow => Some(Refused {
                code: ReasonCode::QuotaExceeded,
                text: "the publication cannot be stored now; try again later",
            }),
            Stored::Elsewhere => Some(Refused {
                code: ReasonCode::ImplementationSpecific,
                text: "another process has the channels now; connect again and publish it there",
            }),
            Stored::Unknown => Some(Refused {
                code: ReasonCode::Unspecified,
                text: "it was published, but could not be stored, so that a crash may lose it",
            }),
        };
        let Some((kind, id)) = read_token(decisions.bytes(token)) else {
            return Ok(decisions.write(|_| {}));
        };
        let Some(open) = self.open_mut() else {
            return Ok(decisions.write(|_| {}));
        };
        let can_be_told = open.version.has_properties();
        // An error in PUBREC ends the exchange. A client that cannot be told sends the publication again;
        // that is a duplicate if it was published.
        let ends = can_be_told || outcome != Stored::Unknown;
        if refusal.is_some() && kind == AckKind::PubRec && ends {
            env.sessions.release_qos2(open.session, id.get());
            open.in_flight = open.in_flight.saturating_sub(1);
        }
        if refusal.is_some() && !can_be_told {
            return Err(CloseReason::NotStored);
        }
        Ok(self.write_answer(kind, id, refusal, decisions))
    }

    /// The connection ends, and the publications of `unsent` from the decision `at` on were dropped before
    /// they had a place in the order. The client does not get their PUBREC, so publications that it sends
    /// again are no duplicates (MQTT-4.3.3-2).
    pub fn publications_dropped(&self, unsent: &Decisions, at: usize, sessions: &mut Sessions) {
        let Some(session) = self.session_ref() else {
            return;
        };
        // The acknowledgement follows its publication. Any other PUBREC is that of a duplicate, which was
        // published before.
        for (decision, next) in unsent.list()[at..].iter().zip(&unsent.list()[at + 1..]) {
            let Decision::Publish(publish) = *decision else {
                continue;
            };
            let view = publication::read(unsent.bytes(publish.message));
            if publish.origin != Origin::Mqtt || view.is_none_or(|view| view.head.qos < 2) {
                continue;
            }
            let id = if let Decision::Send { message } = *next {
                pubrec_id(unsent.bytes(message))
            } else if let Decision::Acknowledge { token } = *next {
                read_token(unsent.bytes(token)).map(|(_, id)| id)
            } else {
                None
            };
            if let Some(id) = id {
                sessions.release_qos2(session, id.get());
            }
        }
    }

    /// The client releases a publication with QoS 2.
    pub(super) fn receive_pubrel<A: App>(
        &mut self,
        ack: Ack<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let Some(open) = self.open_mut() else { return };
        let is_known = env.sessions.release_qos2(open.session, ack.packet_id.get());
        if is_known {
            open.in_flight = open.in_flight.saturating_sub(1);
        }
        let refusal = (!is_known).then_some(UNKNOWN_ID);
        self.await_saved(env, decisions);
        self.answer(AckKind::PubComp, ack.packet_id, refusal, decisions);
    }

    /// The last step of the client in an exchange about a publication of the server: PUBACK with QoS 1,
    /// PUBCOMP with QoS 2. `acknowledge` is the method of [`Sessions`] for it.
    pub(super) fn end_exchange<A: App>(
        &self,
        ack: Ack<'_>,
        acknowledge: fn(&mut Sessions, SessionRef, u16) -> Acknowledged,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(session) = self.session_ref() else {
            return Ok(());
        };
        match acknowledge(env.sessions, session, ack.packet_id.get()) {
            // An acknowledgement without a publication changes nothing.
            Acknowledged::Known | Acknowledged::Unknown => Ok(()),
            Acknowledged::OutOfTurn => close_out_of_turn(decisions),
        }
    }

    /// The client has a publication with QoS 2 of the server, or refuses it.
    pub(super) fn receive_pubrec<A: App>(
        &self,
        ack: Ack<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let Some(session) = self.session_ref() else {
            return Ok(());
        };
        let is_error = ack.reason.is_error();
        let outcome = env.sessions.pubrec(session, ack.packet_id.get(), is_error);
        match (outcome, is_error) {
            // The exchange has ended, or there was none.
            (Acknowledged::Known | Acknowledged::Unknown, true) => {}
            (Acknowledged::Known, false) => {
                self.await_saved(env, decisions);
                self.answer(AckKind::PubRel, ack.packet_id, None, decisions);
            }
            (Acknowledged::Unknown, false) => {
                self.answer(AckKind::PubRel, ack.packet_id, Some(UNKNOWN_ID), decisions);
            }
            (Acknowledged::OutOfTurn, _) => return close_out_of_turn(decisions),
        }
        Ok(())
    }
}

/// The packet that acknowledges a publication; `None` for one with QoS 0.
#[inline]
pub(super) fn acknowledgement(publish: &Publish<'_>) -> Option<(AckKind, PacketId)> {
    match (publish.qos, publish.packet_id) {
        (Qos::AtLeastOnce, Some(id)) => Some((AckKind::PubAck, id)),
        (Qos::ExactlyOnce, Some(id)) => Some((AckKind::PubRec, id)),
        (_, _) => None,
    }
}

fn close_out_of_turn(decisions: &mut Decisions) -> Result<(), CloseReason> {
    close_saying(
        decisions,
        CloseReason::MqttProtocolError,
        "an acknowledgement that is not the next step of the exchange with this packet identifier",
    )
}

/// The properties that are passed on, in their order. A Payload Format Indicator of 0 is one of them, since
/// it is passed on as it is (MQTT-3.3.2-4); a value of 1 becomes the fact `is_text`.
pub(super) fn passed_on(properties: Properties<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + properties.passed_on_bytes());
    if properties.number(Property::PayloadFormatIndicator) == Some(0) {
        bytes.extend_from_slice(&[Property::PayloadFormatIndicator.id(), 0]);
    }
    properties
        .passed_on()
        .for_each(|property| bytes.extend_from_slice(property));
    bytes
}

const UNKNOWN_ID: Refused = Refused {
    code: ReasonCode::PacketIdNotFound,
    text: "no exchange with this packet identifier is under way",
};

fn close_by_alias(fault: AliasFault, decisions: &mut Decisions) -> Result<(), CloseReason> {
    let (reason, text) = match fault {
        AliasFault::OutOfRange => (
            CloseReason::TopicAliasInvalid,
            "the topic alias is greater than the Topic Alias Maximum of CONNACK",
        ),
        AliasFault::Unknown => (
            CloseReason::MqttProtocolError,
            "an empty topic, and the topic alias stands for none",
        ),
        AliasFault::TooLong => (
            CloseReason::TopicAliasInvalid,
            "the topics of all topic aliases are longer than 64 KiB together",
        ),
    };
    close_saying(decisions, reason, text)
}

/// The packet identifier, if the packet is PUBREC. It is short: its length is the second byte.
fn pubrec_id(packet: &[u8]) -> Option<PacketId> {
    match *packet {
        [first_byte::PUBREC, _, high, low, ..] => PacketId::new(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// The token of [`Decision::Acknowledge`].
fn write_token(qos: Qos, id: PacketId, out: &mut Vec<u8>) {
    out.push(qos as u8);
    out.extend_from_slice(&id.get().to_be_bytes());
}

fn read_token(token: &[u8]) -> Option<(AckKind, PacketId)> {
    let &[qos, high, low] = token else { return None };
    let kind = match Qos::from_bits(qos)? {
        Qos::AtMostOnce => return None,
        Qos::AtLeastOnce => AckKind::PubAck,
        Qos::ExactlyOnce => AckKind::PubRec,
    };
    Some((kind, PacketId::new(u16::from_be_bytes([high, low]))?))
}
