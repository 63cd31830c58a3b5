//! The packets that a server sends. Each function appends one packet to `out`, except [`PublishHead`], whose
//! payload the caller appends.
//!
//! Packets of 3.1 and 3.1.1 are the same. SUBACK of 3.1 has no code for a failure; its clients get 0x80, too.

use super::frame::{REMAINING_LENGTH_MAX, variable_bytes};
use super::packet::{PacketId, PacketOrWill, Qos, kind};
use super::properties::{Property, Writer, put_binary, put_length_at, put_variable};
use super::reason::{ReasonCode, ReturnCode};
use super::version::Version;

/// The facts about the server and the connection in the CONNACK packet of MQTT 5: section 3.2.2.3. `None` leaves
/// the default of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Seconds for which the session outlives its connection, if not as many as the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// How many QoS 1 and QoS 2 messages the server takes at once, if not 65,535.
    pub receive_maximum: Option<u16>,
    /// The highest QoS, if not 2.
    pub maximum_qos: Option<Qos>,
    /// Whether messages can be retained.
    pub retain_available: Option<bool>,
    /// The size of the largest packet that the server takes.
    pub maximum_packet_size: Option<u32>,
    /// The client identifier, if the client sent none.
    pub assigned_client_id: Option<&'a str>,
    /// The greatest topic alias that the server takes, if not 0.
    pub topic_alias_maximum: Option<u16>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// Whether there are wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether there are subscription identifiers.
    pub subscription_identifier_available: Option<bool>,
    /// Whether there are shared subscriptions.
    pub shared_subscription_available: Option<bool>,
    /// The keep alive that the client is to use.
    pub server_keep_alive: Option<u16>,
    /// The text from which the client makes its response topics.
    pub response_information: Option<&'a str>,
    /// Another server.
    pub server_reference: Option<&'a str>,
}

/// Whether the server has a session of the client from before: MQTT-3.2.2-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPresent {
    /// The session begins with this connection.
    No,
    /// The session goes on.
    Yes,
}

/// Writes CONNACK of MQTT 3.1 and 3.1.1. MQTT 3.1 has no flag for a present session.
pub fn connack(out: &mut Vec<u8>, session: SessionPresent, code: ReturnCode) {
    let flags = u8::from(session == SessionPresent::Yes && code == ReturnCode::Accepted);
    out.extend_from_slice(&[kind::CONNACK << 4, 2, flags, code as u8]);
}

/// Writes CONNACK of MQTT 5.
pub fn connack_5(
    out: &mut Vec<u8>,
    session: SessionPresent,
    reason: ReasonCode,
    properties: &ConnAckProperties<'_>,
) {
    debug_assert!(reason.may_stand_in(PacketOrWill::ConnAck), "{reason:?}");
    let start = begin(out, kind::CONNACK << 4);
    // MQTT-3.2.2-6
    out.push(u8::from(
        session == SessionPresent::Yes && reason == ReasonCode::Success,
    ));
    out.push(reason.as_u8());
    let mut writer = Writer::new(out, PacketOrWill::ConnAck);
    let p = properties;
    let numbers = [
        (Property::SessionExpiryInterval, p.session_expiry_interval),
        (Property::ReceiveMaximum, p.receive_maximum.map(u32::from)),
        (
            Property::MaximumQos,
            p.maximum_qos.map(|qos| u32::from(qos as u8)),
        ),
        (Property::RetainAvailable, p.retain_available.map(u32::from)),
        (Property::MaximumPacketSize, p.maximum_packet_size),
        (Property::TopicAliasMaximum, p.topic_alias_maximum.map(u32::from)),
        (
            Property::WildcardSubscriptionAvailable,
            p.wildcard_subscription_available.map(u32::from),
        ),
        (
            Property::SubscriptionIdentifierAvailable,
            p.subscription_identifier_available.map(u32::from),
        ),
        (
            Property::SharedSubscriptionAvailable,
            p.shared_subscription_available.map(u32::from),
        ),
        (Property::ServerKeepAlive, p.server_keep_alive.map(u32::from)),
    ];
    for (property, value) in numbers {
        if let Some(value) = value {
            writer.number(property, value);
        }
    }
    let texts = [
        (Property::AssignedClientIdentifier, p.assigned_client_id),
        (Property::ReasonString, p.reason_string),
        (Property::ResponseInformation, p.response_information),
        (Property::ServerReference, p.server_reference),
    ];
    for (property, value) in texts {
        if let Some(value) = value {
            writer.bytes(property, value.as_bytes());
        }
    }
    writer.end();
    put_length_at(out, start);
}

/// The kind of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// Of a QoS 1 message.
    PubAck,
    /// Of a QoS 2 message.
    PubRec,
    /// The server will not send its QoS 2 message again.
    PubRel,
    /// The end of a QoS 2 message.
    PubComp,
}

impl AckKind {
    const fn first_byte(self) -> u8 {
        match self {
            AckKind::PubAck => kind::PUBACK << 4,
            AckKind::PubRec => kind::PUBREC << 4,
            AckKind::PubRel => kind::PUBREL << 4 | 0b0010,
            AckKind::PubComp => kind::PUBCOMP << 4,
        }
    }

    const fn place(self) -> PacketOrWill {
        match self {
            AckKind::PubAck => PacketOrWill::PubAck,
            AckKind::PubRec => PacketOrWill::PubRec,
            AckKind::PubRel => PacketOrWill::PubRel,
            AckKind::PubComp => PacketOrWill::PubComp,
        }
    }
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP. Versions before MQTT 5 have no reason code; success is left out, as
/// section 3.4.2.1 allows. The reason in words is for clients that have not refused it (MQTT-3.1.2-29).
#[inline]
pub fn ack(
    out: &mut Vec<u8>,
    version: Version,
    ack: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
    reason_string: Option<&str>,
) {
    debug_assert!(reason.may_stand_in(ack.place()), "{reason:?} in {ack:?}");
    let [high, low] = packet_id.get().to_be_bytes();
    let first = ack.first_byte();
    match (version, reason_string) {
        (Version::V3 | Version::V4, _) => out.extend_from_slice(&[first, 2, high, low]),
        (Version::V5, None) if reason == ReasonCode::Success => out.extend_from_slice(&[first, 2, high, low]),
        (Version::V5, None) => out.extend_from_slice(&[first, 3, high, low, reason.as_u8()]),
        (Version::V5, Some(text)) => {
            let start = begin(out, first);
            out.extend_from_slice(&[high, low, reason.as_u8()]);
            put_reason_string(out, ack.place(), Some(text));
            put_length_at(out, start);
        }
    }
}

/// Writes SUBACK: one code for each filter of the SUBSCRIBE packet, in order.
pub fn suback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
) {
    let start = begin(out, kind::SUBACK << 4);
    out.extend_from_slice(&packet_id.get().to_be_bytes());
    if version.has_properties() {
        put_reason_string(out, PacketOrWill::SubAck, reason_string);
    }
    out.extend(reasons.iter().map(|reason| {
        debug_assert!(reason.may_stand_in(PacketOrWill::SubAck), "{reason:?}");
        // MQTT-3.9.3-2 of 3.1.1: 0x80 is the only failure.
        if version.has_properties() {
            reason.as_u8()
        } else {
            reason.as_u8().min(0x80)
        }
    }));
    put_length_at(out, start);
}

/// Writes UNSUBACK: one code for each filter of the UNSUBSCRIBE packet, in order; none before MQTT 5.
pub fn unsuback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
) {
    let start = begin(out, kind::UNSUBACK << 4);
    out.extend_from_slice(&packet_id.get().to_be_bytes());
    if version.has_properties() {
        put_reason_string(out, PacketOrWill::UnsubAck, reason_string);
        out.extend(reasons.iter().map(|reason| {
            debug_assert!(reason.may_stand_in(PacketOrWill::UnsubAck), "{reason:?}");
            reason.as_u8()
        }));
    }
    put_length_at(out, start);
}

/// Writes PINGRESP.
#[inline]
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// Writes DISCONNECT of MQTT 5; earlier versions have no such packet of a server.
pub fn disconnect(
    out: &mut Vec<u8>,
    reason: ReasonCode,
    reason_string: Option<&str>,
    server_reference: Option<&str>,
) {
    debug_assert!(
        reason.may_stand_in(PacketOrWill::DisconnectByServer),
        "{reason:?}"
    );
    let start = begin(out, kind::DISCONNECT << 4);
    out.push(reason.as_u8());
    if reason_string.is_some() || server_reference.is_some() {
        let mut writer = Writer::new(out, PacketOrWill::DisconnectByServer);
        if let Some(text) = reason_string {
            writer.bytes(Property::ReasonString, text.as_bytes());
        }
        if let Some(server) = server_reference {
            writer.bytes(Property::ServerReference, server.as_bytes());
        }
        writer.end();
    }
    put_length_at(out, start);
}

/// All of a PUBLISH packet but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// The version of the receiver.
    pub version: Version,
    /// The server has sent the packet before.
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
    /// The quality of service, with the packet identifier if it has one.
    pub delivery: Delivery,
    /// The name of the topic; empty if a topic alias stands for it.
    pub topic: &'a str,
    /// The size of the payload.
    pub payload_bytes: usize,
    /// The properties; not used before MQTT 5.
    pub properties: PublishProperties<'a>,
}

/// A QoS, and the packet identifier that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    #[inline]
    const fn parts(self) -> (Qos, Option<PacketId>) {
        match self {
            Delivery::AtMostOnce => (Qos::AtMostOnce, None),
            Delivery::AtLeastOnce(packet_id) => (Qos::AtLeastOnce, Some(packet_id)),
            Delivery::ExactlyOnce(packet_id) => (Qos::ExactlyOnce, Some(packet_id)),
        }
    }
}

/// The properties of a PUBLISH packet of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// The payload is UTF-8.
    pub payload_is_utf8: bool,
    /// Seconds until the message expires.
    pub message_expiry_interval: Option<u32>,
    /// The number for the topic.
    pub topic_alias: Option<u16>,
    /// The identifiers of all subscriptions that match.
    pub subscription_ids: &'a [u32],
    /// The properties that are passed on as they came: [`super::properties::Properties::passed_on`].
    pub passed_on: &'a [u8],
}

impl PublishProperties<'_> {
    #[inline]
    fn bytes(&self) -> usize {
        let ids = self
            .subscription_ids
            .iter()
            .map(|id| 1 + variable_bytes(*id as usize));
        2 * usize::from(self.payload_is_utf8)
            + 5 * usize::from(self.message_expiry_interval.is_some())
            + 3 * usize::from(self.topic_alias.is_some())
            + ids.sum::<usize>()
            + self.passed_on.len()
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        if self.payload_is_utf8 {
            out.extend_from_slice(&[Property::PayloadFormatIndicator.id(), 1]);
        }
        if let Some(seconds) = self.message_expiry_interval {
            out.push(Property::MessageExpiryInterval.id());
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        if let Some(alias) = self.topic_alias {
            out.push(Property::TopicAlias.id());
            out.extend_from_slice(&alias.to_be_bytes());
        }
        for id in self.subscription_ids {
            out.push(Property::SubscriptionIdentifier.id());
            put_variable(out, *id as usize);
        }
        out.extend_from_slice(self.passed_on);
    }
}

impl PublishHead<'_> {
    /// The size of the whole packet, payload and fixed header included, as it counts against the maximum
    /// packet size of the receiver (section 3.1.2.11.4). `None` if it would be too large for MQTT.
    #[inline]
    pub fn packet_bytes(&self) -> Option<usize> {
        let remaining = self.remaining_bytes();
        (remaining <= REMAINING_LENGTH_MAX).then(|| 1 + variable_bytes(remaining) + remaining)
    }

    /// Appends the packet up to its payload, which the caller appends.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let (qos, packet_id) = self.delivery.parts();
        let remaining = self.remaining_bytes();
        debug_assert!(remaining <= REMAINING_LENGTH_MAX);
        let flags = u8::from(self.dup) << 3 | (qos as u8) << 1 | u8::from(self.retain);
        out.push(kind::PUBLISH << 4 | flags);
        put_variable(out, remaining);
        put_binary(out, self.topic.as_bytes());
        if let Some(packet_id) = packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if self.version.has_properties() {
            put_variable(out, self.properties.bytes());
            self.properties.write(out);
        }
    }

    #[inline]
    fn remaining_bytes(&self) -> usize {
        let properties = if self.version.has_properties() {
            let bytes = self.properties.bytes();
            variable_bytes(bytes) + bytes
        } else {
            0
        };
        let (_, packet_id) = self.delivery.parts();
        2 + self.topic.len() + 2 * usize::from(packet_id.is_some()) + properties + self.payload_bytes
    }
}

/// Writes the first byte of a packet; returns where the bytes behind its fixed header begin.
fn begin(out: &mut Vec<u8>, first: u8) -> usize {
    out.push(first);
    out.len()
}

/// Writes properties that are a reason in words, or none.
fn put_reason_string(out: &mut Vec<u8>, place: PacketOrWill, reason_string: Option<&str>) {
    let mut writer = Writer::new(out, place);
    if let Some(text) = reason_string {
        writer.bytes(Property::ReasonString, text.as_bytes());
    }
    writer.end();
}

#[cfg(test)]
mod tests;
