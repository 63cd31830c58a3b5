//! The packets that a client may send, decoded in place: strings and payloads are slices of the input.
//!
//! [`decode_connect`] decodes the first packet of a connection, which names the version; [`decode`] decodes
//! all others. Neither allocates. A decoded packet is complete and legal in itself. The session decides
//! whether it is legal in the state of its connection (packet identifiers, topic aliases, quotas).

mod ack;
mod connect;
mod disconnect;
mod publish;
mod subscribe;

use std::num::NonZeroU16;

pub use ack::Ack;
pub use connect::{Connect, Refused, Will, client_of, decode_connect};
pub use disconnect::{Auth, Disconnect};
pub use publish::Publish;
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};

use super::fault::Fault;
use super::properties::Properties;
use super::reader::Reader;
use super::version::Version;

/// A packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// A QoS 1 message of the server has arrived.
    PubAck(Ack<'a>),
    /// A QoS 2 message of the server has arrived.
    PubRec(Ack<'a>),
    /// The client has got PUBREC, and will not send its QoS 2 message again.
    PubRel(Ack<'a>),
    /// The client has got PUBREL.
    PubComp(Ack<'a>),
    /// The client subscribes.
    Subscribe(Subscribe<'a>),
    /// The client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// The client asks for PINGRESP.
    PingReq,
    /// The client disconnects.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication; MQTT 5.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// The properties of the packet; none before MQTT 5.
    #[inline]
    pub fn properties(&self) -> Properties<'a> {
        match self {
            Packet::Publish(publish) => publish.properties,
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                ack.properties
            }
            Packet::Subscribe(subscribe) => subscribe.properties,
            Packet::Unsubscribe(unsubscribe) => unsubscribe.properties,
            Packet::PingReq => Properties::NONE,
            Packet::Disconnect(disconnect) => disconnect.properties,
            Packet::Auth(auth) => auth.properties,
        }
    }
}

/// A packet identifier: section 2.2.1.
pub type PacketId = NonZeroU16;

/// How often a message arrives: section 4.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS in the two lowest bits; `None` for 3.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Qos> {
        match bits & 0b11 {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// The types of packets: section 2.1.2.
pub(super) mod kind {
    pub(in super::super) const CONNECT: u8 = 1;
    pub(in super::super) const CONNACK: u8 = 2;
    pub(in super::super) const PUBLISH: u8 = 3;
    pub(in super::super) const PUBACK: u8 = 4;
    pub(in super::super) const PUBREC: u8 = 5;
    pub(in super::super) const PUBREL: u8 = 6;
    pub(in super::super) const PUBCOMP: u8 = 7;
    pub(in super::super) const SUBSCRIBE: u8 = 8;
    pub(in super::super) const SUBACK: u8 = 9;
    pub(in super::super) const UNSUBSCRIBE: u8 = 10;
    pub(in super::super) const UNSUBACK: u8 = 11;
    pub(in super::super) const PINGREQ: u8 = 12;
    pub(in super::super) const PINGRESP: u8 = 13;
    pub(in super::super) const DISCONNECT: u8 = 14;
    pub(in super::super) const AUTH: u8 = 15;
}

/// The first bytes of packets: the type, and the flags that it must have.
pub(crate) mod first_byte {
    use super::kind;

    pub(crate) const CONNECT: u8 = kind::CONNECT << 4;
    pub(crate) const PUBREC: u8 = kind::PUBREC << 4;
    pub(crate) const SUBSCRIBE: u8 = kind::SUBSCRIBE << 4 | 2;
    pub(crate) const UNSUBSCRIBE: u8 = kind::UNSUBSCRIBE << 4 | 2;
}

/// The places in which properties and reason codes stand: the packets of MQTT 5, by their sender where that
/// matters, and the will in a CONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketOrWill {
    /// CONNECT.
    Connect,
    /// The will in CONNECT.
    Will,
    /// CONNACK.
    ConnAck,
    /// PUBLISH of a client.
    PublishByClient,
    /// PUBLISH of a server.
    PublishByServer,
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
    /// SUBSCRIBE.
    Subscribe,
    /// SUBACK.
    SubAck,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNSUBACK.
    UnsubAck,
    /// DISCONNECT of a client.
    DisconnectByClient,
    /// DISCONNECT of a server.
    DisconnectByServer,
    /// AUTH of a client.
    AuthByClient,
    /// AUTH of a server.
    AuthByServer,
}

impl PacketOrWill {
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The same packet, sent by the other side.
    pub(super) const fn of_the_other_side(self) -> Option<PacketOrWill> {
        match self {
            PacketOrWill::PublishByClient => Some(PacketOrWill::PublishByServer),
            PacketOrWill::PublishByServer => Some(PacketOrWill::PublishByClient),
            PacketOrWill::DisconnectByClient => Some(PacketOrWill::DisconnectByServer),
            PacketOrWill::DisconnectByServer => Some(PacketOrWill::DisconnectByClient),
            PacketOrWill::AuthByClient => Some(PacketOrWill::AuthByServer),
            PacketOrWill::AuthByServer => Some(PacketOrWill::AuthByClient),
            PacketOrWill::Connect
            | PacketOrWill::Will
            | PacketOrWill::ConnAck
            | PacketOrWill::PubAck
            | PacketOrWill::PubRec
            | PacketOrWill::PubRel
            | PacketOrWill::PubComp
            | PacketOrWill::Subscribe
            | PacketOrWill::SubAck
            | PacketOrWill::Unsubscribe
            | PacketOrWill::UnsubAck => None,
        }
    }
}

/// Decodes a packet after the CONNECT packet. `first` is its first byte, `body` the bytes behind the fixed header.
///
/// # Errors
/// The packet is not legal in itself, or only a server may send it, or it is a second CONNECT (MQTT-3.1.0-2).
#[inline]
pub fn decode(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let packet = first >> 4;
    if packet == kind::PUBLISH {
        return Publish::decode(version, first, body).map(Packet::Publish);
    }
    let reserved = match packet {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        kind::CONNECT | kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => {
            return Err(Fault::Protocol);
        }
        _ => 0,
    };
    if first & 0x0f != reserved && version.checks_reserved_bits() {
        return Err(Fault::Malformed); // MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1
    }
    match packet {
        kind::PUBACK => Ack::decode(version, PacketOrWill::PubAck, body).map(Packet::PubAck),
        kind::PUBREC => Ack::decode(version, PacketOrWill::PubRec, body).map(Packet::PubRec),
        kind::PUBREL => Ack::decode(version, PacketOrWill::PubRel, body).map(Packet::PubRel),
        kind::PUBCOMP => Ack::decode(version, PacketOrWill::PubComp, body).map(Packet::PubComp),
        kind::SUBSCRIBE => Subscribe::decode(version, body).map(Packet::Subscribe),
        kind::UNSUBSCRIBE => Unsubscribe::decode(version, body).map(Packet::Unsubscribe),
        kind::PINGREQ => Reader::new(body).end().map(|()| Packet::PingReq),
        kind::DISCONNECT => Disconnect::decode(version, body).map(Packet::Disconnect),
        kind::AUTH if version.has_properties() => Auth::decode(body).map(Packet::Auth),
        // Type 0, and AUTH before MQTT 5: reserved.
        _ => Err(Fault::Malformed),
    }
}

#[cfg(test)]
mod tests;
