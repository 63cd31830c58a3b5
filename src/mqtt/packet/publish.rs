//! PUBLISH: section 3.3.

use super::{PacketId, PacketOrWill, Qos};
use crate::mqtt::fault::Fault;
use crate::mqtt::properties::{Properties, Property};
use crate::mqtt::reader::Reader;
use crate::mqtt::version::Version;

/// A message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The client has sent the packet before.
    pub dup: bool,
    /// The quality of service.
    pub qos: Qos,
    /// The server is to keep the message for later subscribers.
    pub retain: bool,
    /// The name of the topic. It is empty if `properties` has a topic alias that stands for it.
    pub topic: &'a str,
    /// The packet identifier: some if the QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// The properties.
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn decode(version: Version, first: u8, body: &'a [u8]) -> Result<Publish<'a>, Fault> {
        let dup = first & DUP != 0;
        let qos = Qos::from_bits(first >> 1).ok_or(Fault::Malformed)?; // MQTT-3.3.1-4
        if dup && qos == Qos::AtMostOnce {
            return Err(Fault::Malformed); // MQTT-3.3.1-2
        }
        let mut reader = Reader::new(body);
        let topic = reader.topic_name()?;
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.packet_id()?),
        };
        let properties = Properties::take(version, &mut reader, PacketOrWill::PublishByClient)?;
        if topic.is_empty() {
            match version {
                // Section 3.3.2.1.
                Version::V5 if properties.has(Property::TopicAlias) => {}
                Version::V5 => return Err(Fault::Protocol),
                Version::V3 | Version::V4 => return Err(Fault::Malformed), // MQTT-4.7.3-1
            }
        }
        let retain = first & RETAIN != 0;
        Ok(Publish {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Whether the payload agrees with the Payload Format Indicator (section 3.3.2.3.2). If not, the answer
    /// is code 0x99. Decoding does not check this, since it means a walk over the payload.
    #[inline]
    pub fn has_valid_payload(&self) -> bool {
        self.properties.allow_payload(self.payload)
    }
}
