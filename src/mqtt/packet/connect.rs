//! CONNECT: section 3.1.

use super::{PacketOrWill, Qos, kind};
use crate::mqtt::fault::Fault;
use crate::mqtt::properties::{Properties, Property};
use crate::mqtt::reader::Reader;
use crate::mqtt::topic;
use crate::mqtt::version::Version;

/// A client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version of all packets of the connection.
    pub version: Version,
    /// Clean Start; Clean Session before MQTT 5.
    pub clean: bool,
    /// The keep alive in seconds: the client counts as gone after one and a half times as long without a
    /// packet. 0: never.
    pub keep_alive: u16,
    /// The client identifier; it may be empty.
    pub client_id: &'a str,
    /// The will.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// The properties.
    pub properties: Properties<'a>,
}

/// The message that the server publishes when the client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// The quality of service.
    pub qos: Qos,
    /// The server keeps the message for later subscribers.
    pub retain: bool,
    /// The name of the topic.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The properties.
    pub properties: Properties<'a>,
}

impl Will<'_> {
    /// Whether the payload agrees with the Payload Format Indicator (section 3.1.3.2.3). If not, code 0x99 is
    /// the answer.
    pub fn has_valid_payload(&self) -> bool {
        self.properties.allow_payload(self.payload)
    }
}

/// A CONNECT packet that is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The fault.
    pub fault: Fault,
    /// The version, if the packet names one that this server speaks. The answer in a CONNACK packet depends on it.
    pub version: Option<Version>,
}

mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const WILL_BITS: u8 = 0x38;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

/// Decodes the first packet of a connection. `first` is its first byte, `body` the bytes behind the fixed header.
///
/// # Errors
/// If the packet is not a CONNECT packet (MQTT-3.1.0-1), or not legal.
pub fn decode_connect(first: u8, body: &[u8]) -> Result<Connect<'_>, Refused> {
    let refused = |version| move |fault| Refused { fault, version };
    if first >> 4 != kind::CONNECT {
        return Err(refused(None)(Fault::Protocol));
    }
    let mut reader = Reader::new(body);
    let version = take_version(&mut reader).map_err(refused(None))?;
    if first & 0x0f != 0 && version.checks_reserved_bits() {
        return Err(refused(Some(version))(Fault::Malformed));
    }
    decode_rest(version, reader).map_err(refused(Some(version)))
}

/// Takes the protocol name and level.
fn take_version(reader: &mut Reader<'_>) -> Result<Version, Fault> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    Version::from_wire(name, level)
}

/// Decodes the fields behind the protocol level.
fn decode_rest(version: Version, mut reader: Reader<'_>) -> Result<Connect<'_>, Fault> {
    let flags = reader.u8()?;
    check_flags(version, flags)?;
    let keep_alive = reader.u16()?;
    let properties = Properties::take(version, &mut reader, PacketOrWill::Connect)?;
    let has = |property| properties.has(property);
    if has(Property::AuthenticationData) && !has(Property::AuthenticationMethod) {
        return Err(Fault::Protocol); // section 3.1.2.11.10
    }
    let client_id = reader.text()?;
    let will = match flags & flag::WILL != 0 {
        true => {
            let properties = Properties::take(version, &mut reader, PacketOrWill::Will)?;
            let topic = reader.topic_name()?;
            if topic.is_empty() {
                return Err(Fault::Malformed); // MQTT-4.7.3-1
            }
            Some(Will {
                qos: Qos::from_bits(flags >> 3).ok_or(Fault::Malformed)?, // MQTT-3.1.2-12
                retain: flags & flag::WILL_RETAIN != 0,
                topic,
                payload: reader.binary()?,
                properties,
            })
        }
        false => None,
    };
    let user_name = (flags & flag::USER_NAME != 0)
        .then(|| reader.text())
        .transpose()?;
    let password = (flags & flag::PASSWORD != 0)
        .then(|| reader.binary())
        .transpose()?;
    reader.end()?;
    let clean = flags & flag::CLEAN != 0;
    Ok(Connect {
        version,
        clean,
        keep_alive,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// Checks which flags go together: section 3.1.2.3.
fn check_flags(version: Version, flags: u8) -> Result<(), Fault> {
    let is_set = |flag| flags & flag != 0;
    // MQTT-3.1.2-3
    let reserved = is_set(flag::RESERVED) && version.checks_reserved_bits();
    // MQTT-3.1.2-11, MQTT-3.1.2-13
    let will_bits = !is_set(flag::WILL) && is_set(flag::WILL_BITS);
    // MQTT-3.1.2-22 of 3.1.1; legal in MQTT 5.
    let password = is_set(flag::PASSWORD) && !is_set(flag::USER_NAME) && !version.has_properties();
    if reserved || will_bits || password {
        Err(Fault::Malformed)
    } else {
        Ok(())
    }
}

/// The version and the client identifier, which may be empty, of a whole CONNECT packet; `None` if they
/// cannot be read. `body` follows the fixed header. Only [`decode_connect`] checks whether the rest is legal.
pub fn client_of(body: &[u8]) -> Option<(Version, &str)> {
    let version = take_version(&mut Reader::new(body)).ok()?;
    let client_id = take_client_id(Reader::new(body)).ok()?;
    Some((version, topic::text(client_id).ok()?))
}

fn take_client_id(mut reader: Reader<'_>) -> Result<&[u8], Fault> {
    let version = take_version(&mut reader)?;
    reader.u8()?; // flags
    reader.u16()?; // keep alive
    if version.has_properties() {
        let length = reader.variable()?;
        reader.bytes(length as usize)?;
    }
    reader.binary()
}
