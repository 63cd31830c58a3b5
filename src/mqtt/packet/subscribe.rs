//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 and 3.10.

use super::{PacketId, PacketOrWill, Qos};
use crate::mqtt::fault::Fault;
use crate::mqtt::properties::{Properties, Property};
use crate::mqtt::reader::Reader;
use crate::mqtt::topic;
use crate::mqtt::version::Version;

/// The client subscribes to one or more filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier.
    pub packet_id: PacketId,
    /// The subscription identifier for all of them.
    pub subscription_id: Option<u32>,
    /// The properties.
    pub properties: Properties<'a>,
    /// How many filters there are: at least one.
    pub count: usize,
    version: Version,
    filters: &'a [u8],
}

/// The options of a subscription to one filter: section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS.
    pub qos: Qos,
    /// The client does not get its own publications.
    pub no_local: bool,
    /// Messages keep the RETAIN flag with which they were published.
    pub retain_as_published: bool,
    /// The retained messages that the client gets at once.
    pub retain_handling: RetainHandling,
}

/// The retained messages that a client gets when it subscribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    Always,
    /// All that match, if the client has not been subscribed to the filter.
    IfNew,
    /// None.
    Never,
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Subscribe<'a>, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::take(version, &mut reader, PacketOrWill::Subscribe)?;
        let subscription_id = properties.number(Property::SubscriptionIdentifier);
        let filters = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            take_entry(&mut reader, version)?;
            count += 1;
        }
        if count == 0 {
            return Err(Fault::Protocol); // MQTT-3.8.3-2
        }
        Ok(Subscribe {
            packet_id,
            subscription_id,
            properties,
            count,
            version,
            filters,
        })
    }

    /// The filters in order. [`topic::Filter::parse`] checks whether a filter is legal.
    pub fn filters(self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> {
        let mut reader = Reader::new(self.filters);
        std::iter::from_fn(move || take_entry(&mut reader, self.version).ok()).take(self.count)
    }
}

/// Takes a filter and its options.
fn take_entry<'a>(reader: &mut Reader<'a>, version: Version) -> Result<(&'a str, SubscribeOptions), Fault> {
    let filter = reader.topic_filter()?;
    let options = SubscribeOptions::decode(version, reader.u8()?)?;
    if options.no_local && topic::shared_part(filter).is_some() {
        return Err(Fault::Protocol); // MQTT-3.8.3-4
    }
    Ok((filter, options))
}

impl SubscribeOptions {
    fn decode(version: Version, byte: u8) -> Result<SubscribeOptions, Fault> {
        let qos = Qos::from_bits(byte);
        let only_qos = |qos| SubscribeOptions {
            qos,
            ..SubscribeOptions::default()
        };
        match version {
            Version::V3 => qos.map(only_qos).ok_or(Fault::Malformed),
            // MQTT-3.8.3-4 of 3.1.1: other bits are reserved, and 3 is no QoS.
            Version::V4 if byte > 2 => Err(Fault::Malformed),
            Version::V4 => qos.map(only_qos).ok_or(Fault::Malformed),
            Version::V5 if byte & 0b1100_0000 != 0 => Err(Fault::Malformed), // MQTT-3.8.3-5
            Version::V5 => Ok(SubscribeOptions {
                qos: qos.ok_or(Fault::Protocol)?,
                no_local: byte & 0b0100 != 0,
                retain_as_published: byte & 0b1000 != 0,
                retain_handling: match byte >> 4 {
                    0 => RetainHandling::Always,
                    1 => RetainHandling::IfNew,
                    2 => RetainHandling::Never,
                    _ => return Err(Fault::Protocol),
                },
            }),
        }
    }
}

/// The client unsubscribes from one or more filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier.
    pub packet_id: PacketId,
    /// The properties.
    pub properties: Properties<'a>,
    /// How many filters there are: at least one.
    pub count: usize,
    filters: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Unsubscribe<'a>, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let properties = Properties::take(version, &mut reader, PacketOrWill::Unsubscribe)?;
        let filters = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            reader.topic_filter()?;
            count += 1;
        }
        if count == 0 {
            return Err(Fault::Protocol); // MQTT-3.10.3-2
        }
        Ok(Unsubscribe {
            packet_id,
            properties,
            count,
            filters,
        })
    }

    /// The filters in order.
    pub fn filters(self) -> impl Iterator<Item = &'a str> {
        let mut reader = Reader::new(self.filters);
        std::iter::from_fn(move || reader.topic_filter().ok()).take(self.count)
    }
}
