//! The properties of MQTT 5: section 2.2.2.
//!
//! One row for each of the 27 properties: its identifier, the type of its value, the values that are allowed, the
//! packets in which it may stand, and the packets in which it may stand several times. Decoding, the check for
//! duplicates, and encoding all follow the rows.
//!
//! Decoded properties are the bytes that arrived, checked once, with the set of the properties among them. To
//! read an absent property costs a test of a bit; to read any other costs a walk over the properties before
//! it.

use super::fault::Fault;
use super::frame::variable_bytes;
use super::packet::PacketOrWill;
use super::reader::Reader;
use super::version::Version;

/// Makes [`Property`] from its rows:
/// `Variant = identifier, type, allowed values, [places], [places in which it may stand several times];`
macro_rules! properties {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident = $id:literal, $kind:ident, $values:ident, [$($place:ident),+], [$($repeats:ident),*];
    )+) => {
        /// A property.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Property {
            $($(#[doc = $doc])+ $variant = $id,)+
        }

        impl Property {
            /// All properties, in the order of their identifiers.
            pub const ALL: &[Property] = &[$(Property::$variant,)+];

            const fn from_id(id: u8) -> Option<Property> {
                match id {
                    $($id => Some(Property::$variant),)+
                    _ => None,
                }
            }

            /// The type of the value.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Property::$variant => Kind::$kind,)+
                }
            }

            /// The values that are allowed.
            const fn values(self) -> Values {
                match self {
                    $(Property::$variant => Values::$values,)+
                }
            }

            const fn places(self) -> u32 {
                match self {
                    $(Property::$variant => $(PacketOrWill::$place.bit())|+,)+
                }
            }

            const fn repeats(self) -> u32 {
                match self {
                    $(Property::$variant => 0 $(| PacketOrWill::$repeats.bit())*,)+
                }
            }
        }
    };
}

properties! {
    /// 1: the payload is UTF-8.
    PayloadFormatIndicator = 0x01, Byte, ZeroOrOne, [PublishByClient, PublishByServer, Will], [];
    /// Seconds after which the message is not to be delivered any more.
    MessageExpiryInterval = 0x02, U32, All, [PublishByClient, PublishByServer, Will], [];
    /// The type of the payload, such as a MIME type.
    ContentType = 0x03, Text, All, [PublishByClient, PublishByServer, Will], [];
    /// The topic for an answer.
    ResponseTopic = 0x08, Text, TopicName, [PublishByClient, PublishByServer, Will], [];
    /// Bytes that the answer repeats.
    CorrelationData = 0x09, Binary, All, [PublishByClient, PublishByServer, Will], [];
    /// The number of the subscription to which the message belongs.
    SubscriptionIdentifier = 0x0b, Variable, NotZero, [PublishByServer, Subscribe], [PublishByServer];
    /// Seconds for which the session outlives its connection.
    SessionExpiryInterval = 0x11, U32, All, [Connect, ConnAck, DisconnectByClient], [];
    /// The client identifier that the server has chosen.
    AssignedClientIdentifier = 0x12, Text, All, [ConnAck], [];
    /// The keep alive, in seconds, that the client is to use.
    ServerKeepAlive = 0x13, U16, All, [ConnAck], [];
    /// The name of the method of enhanced authentication.
    AuthenticationMethod = 0x15, Text, All, [Connect, ConnAck, AuthByClient, AuthByServer], [];
    /// The data of that method.
    AuthenticationData = 0x16, Binary, All, [Connect, ConnAck, AuthByClient, AuthByServer], [];
    /// 0: no Reason String and no User Property, except in PUBLISH, CONNACK and DISCONNECT packets.
    RequestProblemInformation = 0x17, Byte, ZeroOrOne, [Connect], [];
    /// Seconds after which the will is published.
    WillDelayInterval = 0x18, U32, All, [Will], [];
    /// 1: the client wants Response Information.
    RequestResponseInformation = 0x19, Byte, ZeroOrOne, [Connect], [];
    /// The text from which the client makes its response topics.
    ResponseInformation = 0x1a, Text, All, [ConnAck], [];
    /// Another server.
    ServerReference = 0x1c, Text, All, [ConnAck, DisconnectByServer], [];
    /// The reason in words.
    ReasonString = 0x1f, Text, All,
        [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, DisconnectByClient, DisconnectByServer,
         AuthByClient, AuthByServer], [];
    /// How many QoS 1 and QoS 2 messages the sender takes at once.
    ReceiveMaximum = 0x21, U16, NotZero, [Connect, ConnAck], [];
    /// The greatest topic alias that the sender takes.
    TopicAliasMaximum = 0x22, U16, All, [Connect, ConnAck], [];
    /// A number for the topic.
    TopicAlias = 0x23, U16, Alias, [PublishByClient, PublishByServer], [];
    /// The highest QoS that the server supports, if that is not 2.
    MaximumQos = 0x24, Byte, ZeroOrOne, [ConnAck], [];
    /// 0: no retained messages.
    RetainAvailable = 0x25, Byte, ZeroOrOne, [ConnAck], [];
    /// A name and a value.
    UserProperty = 0x26, Pair, All,
        [Connect, ConnAck, PublishByClient, PublishByServer, Will, PubAck, PubRec, PubRel, PubComp, Subscribe, SubAck,
         Unsubscribe, UnsubAck, DisconnectByClient, DisconnectByServer, AuthByClient, AuthByServer],
        [Connect, ConnAck, PublishByClient, PublishByServer, Will, PubAck, PubRec, PubRel, PubComp, Subscribe, SubAck,
         Unsubscribe, UnsubAck, DisconnectByClient, DisconnectByServer, AuthByClient, AuthByServer];
    /// The size of the largest packet that the sender takes.
    MaximumPacketSize = 0x27, U32, NotZero, [Connect, ConnAck], [];
    /// 0: no wildcards.
    WildcardSubscriptionAvailable = 0x28, Byte, ZeroOrOne, [ConnAck], [];
    /// 0: no subscription identifiers.
    SubscriptionIdentifierAvailable = 0x29, Byte, ZeroOrOne, [ConnAck], [];
    /// 0: no shared subscriptions.
    SharedSubscriptionAvailable = 0x2a, Byte, ZeroOrOne, [ConnAck], [];
}

impl Property {
    /// The identifier on the wire.
    pub const fn id(self) -> u8 {
        self as u8
    }

    const fn bit(self) -> u64 {
        1 << self.id()
    }

    /// Whether the property may stand in a packet.
    pub const fn may_stand_in(self, place: PacketOrWill) -> bool {
        self.places() & place.bit() != 0
    }

    /// Whether the property may stand in a packet several times.
    pub const fn may_repeat_in(self, place: PacketOrWill) -> bool {
        self.repeats() & place.bit() != 0
    }
}

/// The type of a value: section 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One byte.
    Byte,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// One to four bytes.
    Variable,
    /// A string.
    Text,
    /// Bytes with their number.
    Binary,
    /// Two strings.
    Pair,
}

/// Values that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    All,
    /// Anything else is a protocol error.
    ZeroOrOne,
    /// 0 is a protocol error.
    NotZero,
    /// 0 is an invalid topic alias.
    Alias,
    /// A wildcard (MQTT-3.3.2-14), or no character at all (MQTT-4.7.3-1), is a protocol error.
    TopicName,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of any width.
    Number(u32),
    /// A string.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A name and a value.
    Pair(&'a str, &'a str),
}

impl Values {
    #[inline]
    fn check(self, value: Value<'_>) -> Result<(), Fault> {
        match (self, value) {
            (Values::ZeroOrOne, Value::Number(2..)) | (Values::NotZero, Value::Number(0)) => {
                Err(Fault::Protocol)
            }
            (Values::Alias, Value::Number(0)) => Err(Fault::TopicAlias),
            (Values::TopicName, Value::Text(name)) if name.is_empty() || name.contains(['+', '#']) => {
                Err(Fault::Protocol)
            }
            (Values::All | Values::ZeroOrOne | Values::NotZero | Values::Alias | Values::TopicName, _) => {
                Ok(())
            }
        }
    }
}

/// The properties of a packet: the bytes that arrived, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
    /// The bits of the properties that are present.
    present: u64,
    /// How many user properties are present.
    users: u32,
}

impl<'a> Properties<'a> {
    /// The properties of a packet that has none.
    pub const NONE: Properties<'static> = Properties {
        bytes: &[],
        present: 0,
        users: 0,
    };

    /// Takes the length of the properties and the properties; nothing before MQTT 5.
    ///
    /// # Errors
    /// `Malformed` if the bytes cannot be read, and for a property that has no place in such a packet.
    /// `Protocol` for a second property of the same kind, for one that only the other side may send, and for
    /// a value that is not allowed.
    #[inline]
    pub(super) fn take(
        version: Version,
        reader: &mut Reader<'a>,
        place: PacketOrWill,
    ) -> Result<Properties<'a>, Fault> {
        if !version.has_properties() {
            return Ok(Properties::NONE);
        }
        let length = reader.variable()?;
        let bytes = reader.bytes(length as usize)?;
        if bytes.is_empty() {
            return Ok(Properties::NONE);
        }
        Properties::check(bytes, place)
    }

    fn check(bytes: &'a [u8], place: PacketOrWill) -> Result<Properties<'a>, Fault> {
        let mut reader = Reader::new(bytes);
        let (mut present, mut users) = (0, 0);
        while !reader.is_empty() {
            let (property, value) = take_one(&mut reader)?;
            if !property.may_stand_in(place) {
                let other_side = place.of_the_other_side();
                return Err(
                    match other_side.is_some_and(|place| property.may_stand_in(place)) {
                        true => Fault::Protocol,
                        false => Fault::Malformed,
                    },
                );
            }
            if present & property.bit() != 0 && !property.may_repeat_in(place) {
                return Err(Fault::Protocol);
            }
            property.values().check(value)?;
            present |= property.bit();
            users += u32::from(property == Property::UserProperty);
        }
        Ok(Properties {
            bytes,
            present,
            users,
        })
    }

    /// Whether a property is there.
    #[inline]
    pub const fn has(self, property: Property) -> bool {
        self.present & property.bit() != 0
    }

    /// How many user properties there are.
    #[inline]
    pub const fn user_count(self) -> u32 {
        self.users
    }

    /// The bytes of all properties, without their length.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// All properties in the order of the wire.
    pub fn iter(self) -> impl Iterator<Item = (Property, Value<'a>)> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || take_one(&mut reader).ok())
    }

    /// The number in a property.
    #[inline]
    pub fn number(self, property: Property) -> Option<u32> {
        match self.find(property)? {
            Value::Number(number) => Some(number),
            Value::Text(_) | Value::Binary(_) | Value::Pair(..) => None,
        }
    }

    /// The number in a property of two bytes.
    #[inline]
    pub fn number_16(self, property: Property) -> Option<u16> {
        self.number(property)
            .and_then(|number| u16::try_from(number).ok())
    }

    /// The string in a property.
    #[inline]
    pub fn text(self, property: Property) -> Option<&'a str> {
        match self.find(property)? {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Binary(_) | Value::Pair(..) => None,
        }
    }

    /// The bytes in a property.
    #[inline]
    pub fn binary(self, property: Property) -> Option<&'a [u8]> {
        match self.find(property)? {
            Value::Binary(bytes) => Some(bytes),
            Value::Number(_) | Value::Text(_) | Value::Pair(..) => None,
        }
    }

    /// The user properties, in order.
    pub fn user(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(|(_, value)| match value {
            Value::Pair(name, value) => Some((name, value)),
            Value::Number(_) | Value::Text(_) | Value::Binary(_) => None,
        })
    }

    /// The properties that a server passes on unchanged with a message, in the order of the wire, as slices
    /// to be joined: content type, response topic, correlation data, user properties (MQTT-3.3.2-15 to
    /// MQTT-3.3.2-20).
    pub fn passed_on(self) -> impl Iterator<Item = &'a [u8]> {
        let properties = self.as_they_came();
        properties
            .filter(|(property, _)| property.is_passed_on())
            .map(|(_, bytes)| bytes)
    }

    /// The size of all slices of [`Properties::passed_on`] together.
    #[inline]
    pub fn passed_on_bytes(self) -> usize {
        if self.present & !PASSED_ON == 0 {
            return self.bytes.len();
        }
        self.passed_on().map(<[u8]>::len).sum()
    }

    /// Whether the payload is UTF-8, if the Payload Format Indicator says so (section 3.3.2.3.2).
    pub(super) fn allow_payload(self, payload: &[u8]) -> bool {
        self.number(Property::PayloadFormatIndicator) != Some(1)
            || simdutf8::basic::from_utf8(payload).is_ok()
    }

    #[inline]
    fn find(self, property: Property) -> Option<Value<'a>> {
        if !self.has(property) {
            return None;
        }
        self.find_present(property)
    }

    #[inline(never)]
    fn find_present(self, property: Property) -> Option<Value<'a>> {
        let (_, bytes) = self.as_they_came().find(|(found, _)| *found == property)?;
        take_one(&mut Reader::new(bytes)).ok().map(|(_, value)| value)
    }

    /// All properties, each with the bytes that it came in. They have been checked, so none is left out.
    fn as_they_came(self) -> impl Iterator<Item = (Property, &'a [u8])> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            let before = reader.rest();
            let property = Property::from_id(reader.u8().ok()?)?;
            property.kind().skip(&mut reader).ok()?;
            Some((property, &before[..before.len() - reader.rest().len()]))
        })
    }
}

impl Property {
    /// Whether a server passes the property on with a message as it came.
    const fn is_passed_on(self) -> bool {
        PASSED_ON & self.bit() != 0
    }
}

const PASSED_ON: u64 = Property::ContentType.bit()
    | Property::ResponseTopic.bit()
    | Property::CorrelationData.bit()
    | Property::UserProperty.bit();

impl Kind {
    /// Takes a value without a look at it.
    #[inline]
    fn skip(self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        match self {
            Kind::Byte => reader.u8().map(|_| ()),
            Kind::U16 => reader.u16().map(|_| ()),
            Kind::U32 => reader.u32().map(|_| ()),
            Kind::Variable => reader.variable().map(|_| ()),
            Kind::Text | Kind::Binary => reader.binary().map(|_| ()),
            Kind::Pair => reader.binary().and_then(|_| reader.binary()).map(|_| ()),
        }
    }
}

/// Takes one property. All known identifiers fit in one byte, so a longer one is unknown. Always inlined: a
/// call costs 45 of the 150 instructions that `Properties::check` takes for a property.
#[inline(always)]
fn take_one<'a>(reader: &mut Reader<'a>) -> Result<(Property, Value<'a>), Fault> {
    let property = Property::from_id(reader.u8()?).ok_or(Fault::Malformed)?;
    let value = match property.kind() {
        Kind::Byte => Value::Number(u32::from(reader.u8()?)),
        Kind::U16 => Value::Number(u32::from(reader.u16()?)),
        Kind::U32 => Value::Number(reader.u32()?),
        Kind::Variable => Value::Number(reader.variable()?),
        Kind::Text => Value::Text(reader.text()?),
        Kind::Binary => Value::Binary(reader.binary()?),
        Kind::Pair => Value::Pair(reader.text()?, reader.text()?),
    };
    Ok((property, value))
}

/// Appends the properties of one packet to `out`; [`Writer::end`] writes their length in front of them.
#[derive(Debug)]
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    place: PacketOrWill,
    start: usize,
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, place: PacketOrWill) -> Writer<'o> {
        let start = out.len();
        Writer { out, place, start }
    }

    /// Writes a number, in the width that the property has.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the callers give numbers of the property's width"
    )]
    pub(super) fn number(&mut self, property: Property, value: u32) {
        self.id(property);
        match property.kind() {
            Kind::Byte => self.out.push(value as u8),
            Kind::U16 => self.out.extend_from_slice(&(value as u16).to_be_bytes()),
            Kind::U32 => self.out.extend_from_slice(&value.to_be_bytes()),
            Kind::Variable => put_variable(self.out, value as usize),
            Kind::Text | Kind::Binary | Kind::Pair => debug_assert!(false, "{property:?} is no number"),
        }
    }

    /// Writes a string, or bytes.
    pub(super) fn bytes(&mut self, property: Property, value: &[u8]) {
        debug_assert!(
            matches!(property.kind(), Kind::Text | Kind::Binary),
            "{property:?}"
        );
        self.id(property);
        put_binary(self.out, value);
    }

    /// Writes a user property: this server has none of its own.
    #[cfg(test)]
    pub(super) fn user(&mut self, name: &str, value: &str) {
        self.id(Property::UserProperty);
        put_binary(self.out, name.as_bytes());
        put_binary(self.out, value.as_bytes());
    }

    fn id(&mut self, property: Property) {
        debug_assert!(
            property.may_stand_in(self.place),
            "{property:?} in {:?}",
            self.place
        );
        self.out.push(property.id());
    }

    /// Writes the length in front of the properties.
    pub(super) fn end(self) {
        put_length_at(self.out, self.start);
    }
}

/// Writes the number of bytes from `start` on in front of them.
pub(super) fn put_length_at(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let width = variable_bytes(length);
    out.extend_from_slice(&[0; 4][..width]);
    out.copy_within(start..start + length, start + width);
    write_variable(&mut out[start..start + width], length);
}

/// Writes a variable byte integer: section 1.5.5.
#[inline]
pub(super) fn put_variable(out: &mut Vec<u8>, value: usize) {
    if let Ok(byte @ ..0x80) = u8::try_from(value) {
        out.push(byte);
        return;
    }
    let mut bytes = [0; 4];
    let width = variable_bytes(value);
    write_variable(&mut bytes[..width], value);
    out.extend_from_slice(&bytes[..width]);
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits")]
fn write_variable(bytes: &mut [u8], mut value: usize) {
    let last = bytes.len() - 1;
    for (index, byte) in bytes.iter_mut().enumerate() {
        let more = if index < last { 0x80 } else { 0 };
        *byte = (value & 0x7f) as u8 | more;
        value >>= 7;
    }
}

/// Writes bytes with their number in front: at most 65,535, the rest is cut off. (Strings come from packets, settings
/// and this program, and have been checked there.)
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(usize::from(length), bytes.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

#[cfg(test)]
mod tests;
