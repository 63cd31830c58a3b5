//! The table of properties compared with the table of the specification, and its consequences.

use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use super::*;
use crate::mqtt::topic;

/// Table 2-4 of the specification, written down apart from the rows: identifier, type, packets. C CONNECT, W will,
/// A CONNACK, P PUBLISH, a PUBACK, r PUBREC, l PUBREL, c PUBCOMP, S SUBSCRIBE, s SUBACK, U UNSUBSCRIBE, u UNSUBACK,
/// D DISCONNECT, H AUTH.
const TABLE: &[(u8, Kind, &str)] = &[
    (1, Kind::Byte, "PW"),
    (2, Kind::U32, "PW"),
    (3, Kind::Text, "PW"),
    (8, Kind::Text, "PW"),
    (9, Kind::Binary, "PW"),
    (11, Kind::Variable, "PS"),
    (17, Kind::U32, "CAD"),
    (18, Kind::Text, "A"),
    (19, Kind::U16, "A"),
    (21, Kind::Text, "CAH"),
    (22, Kind::Binary, "CAH"),
    (23, Kind::Byte, "C"),
    (24, Kind::U32, "W"),
    (25, Kind::Byte, "C"),
    (26, Kind::Text, "A"),
    (28, Kind::Text, "AD"),
    (31, Kind::Text, "AarlcsuDH"),
    (33, Kind::U16, "CA"),
    (34, Kind::U16, "CA"),
    (35, Kind::U16, "P"),
    (36, Kind::Byte, "A"),
    (37, Kind::Byte, "A"),
    (38, Kind::Pair, "CAPWarlcSsUuDH"),
    (39, Kind::U32, "CA"),
    (40, Kind::Byte, "A"),
    (41, Kind::Byte, "A"),
    (42, Kind::Byte, "A"),
];

const PLACES: [(PacketOrWill, char); 17] = [
    (PacketOrWill::Connect, 'C'),
    (PacketOrWill::Will, 'W'),
    (PacketOrWill::ConnAck, 'A'),
    (PacketOrWill::PublishByClient, 'P'),
    (PacketOrWill::PublishByServer, 'P'),
    (PacketOrWill::PubAck, 'a'),
    (PacketOrWill::PubRec, 'r'),
    (PacketOrWill::PubRel, 'l'),
    (PacketOrWill::PubComp, 'c'),
    (PacketOrWill::Subscribe, 'S'),
    (PacketOrWill::SubAck, 's'),
    (PacketOrWill::Unsubscribe, 'U'),
    (PacketOrWill::UnsubAck, 'u'),
    (PacketOrWill::DisconnectByClient, 'D'),
    (PacketOrWill::DisconnectByServer, 'D'),
    (PacketOrWill::AuthByClient, 'H'),
    (PacketOrWill::AuthByServer, 'H'),
];

/// Properties that only one side may send, though the table has them for the packet: MQTT-3.3.4-6,
/// MQTT-3.14.2-2, section 3.14.2.2.5.
const ONE_SIDED: [(u8, PacketOrWill); 3] = [
    (11, PacketOrWill::PublishByClient),
    (17, PacketOrWill::DisconnectByServer),
    (28, PacketOrWill::DisconnectByClient),
];

/// A property with a legal value.
fn legal(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Byte => b"\x01",
        Kind::U16 => b"\x01\x02",
        Kind::U32 => b"\x01\x02\x03\x04",
        Kind::Variable => b"\x81\x02",
        Kind::Text => b"\x00\x03a/b",
        Kind::Binary => b"\x00\x02\x00\xff",
        Kind::Pair => b"\x00\x01n\x00\x00",
    }
}

fn with_length(properties: &[u8]) -> Vec<u8> {
    let mut bytes = properties.to_vec();
    put_length_at(&mut bytes, 0);
    bytes
}

fn take(bytes: &[u8], place: PacketOrWill) -> Result<Properties<'_>, Fault> {
    let mut reader = Reader::new(bytes);
    let properties = Properties::take(Version::V5, &mut reader, place)?;
    reader.end()?;
    Ok(properties)
}

#[test]
fn each_property_is_accepted_in_the_packets_of_the_specification_and_refused_in_all_others() {
    assert_eq!(Property::ALL.len(), 27);
    assert_eq!(TABLE.len(), 27);
    for id in 0..=u8::MAX {
        let row = TABLE.iter().find(|(known, ..)| *known == id);
        let kind = row.map_or(Kind::Byte, |(_, kind, _)| *kind);
        assert!(row.is_none() || Property::from_id(id).is_some_and(|property| property.kind() == kind));
        let bytes = with_length(&[&[id], legal(kind)].concat());
        for (place, letter) in PLACES {
            let is_there = row.is_some_and(|(.., packets)| packets.contains(letter));
            let taken = take(&bytes, place);
            let expected = match is_there {
                true if ONE_SIDED.contains(&(id, place)) => Err(Fault::Protocol),
                true => Ok(()),
                false => Err(Fault::Malformed),
            };
            assert_eq!(taken.map(|_| ()), expected, "{id} in {place:?}");
            if let (Ok(taken), Some(property)) = (taken, Property::from_id(id)) {
                assert!(taken.has(property));
                assert_eq!(taken.iter().count(), 1);
            }
        }
    }
}

#[test]
fn a_second_one_of_a_kind_is_a_protocol_error_except_user_properties_and_a_servers_subscription_ids() {
    for &(id, kind, packets) in TABLE {
        let one = [&[id], legal(kind)].concat();
        let two = with_length(&[one.as_slice(), &one].concat());
        for (place, letter) in PLACES {
            if !packets.contains(letter) || ONE_SIDED.contains(&(id, place)) {
                continue;
            }
            let may_repeat = id == 38 || (id == 11 && place == PacketOrWill::PublishByServer);
            let expected = if may_repeat { Ok(2) } else { Err(Fault::Protocol) };
            assert_eq!(
                take(&two, place).map(|taken| taken.iter().count()),
                expected,
                "{id} in {place:?}"
            );
        }
    }
}

#[test]
fn a_property_that_is_cut_anywhere_is_malformed() {
    for &(id, kind, packets) in TABLE {
        let one = [&[id], legal(kind)].concat();
        for cut in 1..one.len() {
            let bytes = with_length(&one[..cut]);
            for (place, letter) in PLACES {
                if packets.contains(letter) {
                    assert_eq!(take(&bytes, place), Err(Fault::Malformed), "{id} cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn values_that_the_specification_forbids_are_refused_with_its_code() {
    let protocol = Err(Fault::Protocol);
    let malformed = Err(Fault::Malformed);
    let alias = Err(Fault::TopicAlias);
    let cases: &[(PacketOrWill, &[u8], Result<(), Fault>)] = &[
        (PacketOrWill::PublishByClient, b"\x01\x00", Ok(())),
        (PacketOrWill::PublishByClient, b"\x01\x02", protocol),
        (PacketOrWill::Connect, b"\x17\x02", protocol),
        (PacketOrWill::Connect, b"\x19\xff", protocol),
        (PacketOrWill::ConnAck, b"\x24\x02", protocol),
        (PacketOrWill::Connect, b"\x21\x00\x00", protocol),
        (PacketOrWill::Connect, b"\x21\xff\xff", Ok(())),
        (PacketOrWill::Connect, b"\x22\x00\x00", Ok(())),
        (PacketOrWill::Connect, b"\x27\x00\x00\x00\x00", protocol),
        (PacketOrWill::Connect, b"\x27\x00\x00\x00\x01", Ok(())),
        (PacketOrWill::PublishByClient, b"\x23\x00\x00", alias),
        (PacketOrWill::PublishByClient, b"\x23\xff\xff", Ok(())),
        (PacketOrWill::Subscribe, b"\x0b\x00", protocol), // mosquitto#3319
        (PacketOrWill::Subscribe, b"\x0b\x01", Ok(())),
        (PacketOrWill::Subscribe, b"\x0b\xff\xff\xff\x7f", Ok(())),
        (PacketOrWill::Subscribe, b"\x0b\xff\xff\xff\xff\x01", malformed),
        (PacketOrWill::Subscribe, b"\x0b\x81\x00", malformed), // MQTT-1.5.5-1
        (PacketOrWill::PublishByClient, b"\x08\x00\x01+", protocol),
        (PacketOrWill::Will, b"\x08\x00\x03a/#", protocol),
        (PacketOrWill::PublishByClient, b"\x08\x00\x02a\x00", malformed),
        (PacketOrWill::PublishByClient, b"\x03\x00\x01\xff", malformed),
        (
            PacketOrWill::PublishByClient,
            b"\x26\x00\x01\xff\x00\x00",
            malformed,
        ),
        (
            PacketOrWill::PublishByClient,
            b"\x26\x00\x00\x00\x01\x00",
            malformed,
        ),
        (PacketOrWill::PublishByClient, b"\x81\x00\x01", malformed), // an identifier of two bytes
    ];
    for (place, bytes, expected) in cases {
        let with_length = with_length(bytes);
        assert_eq!(
            take(&with_length, *place).map(|_| ()),
            *expected,
            "{bytes:x?} in {place:?}"
        );
    }
    assert_eq!(
        take(b"\x80\x00", PacketOrWill::Connect),
        malformed.map(|()| Properties::NONE),
        "longer than needed"
    );
    assert_eq!(
        take(b"\x05\x26\x00", PacketOrWill::Connect),
        malformed.map(|()| Properties::NONE),
        "longer than the packet"
    );
    assert_eq!(
        take(b"", PacketOrWill::Connect),
        malformed.map(|()| Properties::NONE),
        "no length"
    );
}

#[test]
fn before_mqtt_5_there_are_no_properties() {
    for version in [Version::V3, Version::V4] {
        let mut reader = Reader::new(b"\x03\x21\x00\x00");
        assert_eq!(
            Properties::take(version, &mut reader, PacketOrWill::Connect),
            Ok(Properties::NONE)
        );
        assert_eq!(reader.rest().len(), 4);
    }
}

#[test]
fn what_is_passed_on_keeps_its_order_and_its_bytes() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, PacketOrWill::PublishByClient);
    writer.user("k", "1");
    writer.number(Property::MessageExpiryInterval, 60);
    writer.bytes(Property::CorrelationData, b"\0\xff");
    writer.number(Property::TopicAlias, 7);
    writer.user("k", "2");
    writer.number(Property::PayloadFormatIndicator, 1);
    writer.bytes(Property::ContentType, b"t");
    writer.bytes(Property::ResponseTopic, b"r");
    writer.end();
    let taken = take(&bytes, PacketOrWill::PublishByClient).unwrap();
    let passed_on: Vec<u8> = taken.passed_on().flatten().copied().collect();
    let expected =
        b"\x26\x00\x01k\x00\x011\x09\x00\x02\x00\xff\x26\x00\x01k\x00\x012\x03\x00\x01t\x08\x00\x01r";
    assert_eq!(passed_on, expected);
    assert_eq!(taken.passed_on_bytes(), expected.len());
    assert_eq!(taken.number(Property::MessageExpiryInterval), Some(60));
    assert_eq!(taken.number_16(Property::TopicAlias), Some(7));
    assert_eq!(taken.text(Property::ResponseTopic), Some("r"));
    assert_eq!(taken.binary(Property::CorrelationData), Some(&b"\0\xff"[..]));
    assert_eq!(taken.text(Property::ReasonString), None);
    assert_eq!(taken.user().collect::<Vec<_>>(), [("k", "1"), ("k", "2")]);
}

/// A property that may stand in a packet of some kind, with a legal value of its type.
#[derive(Clone, Debug)]
enum Owned {
    Number(u32),
    Text(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

fn any_text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace(['\0', '+', '#'], "ä"))
}

fn any_value(property: Property) -> proptest::prelude::BoxedStrategy<Owned> {
    let max = match (property.values(), property.kind()) {
        (Values::ZeroOrOne, _) => 1,
        (_, Kind::Byte) => u32::from(u8::MAX),
        (_, Kind::U16) => u32::from(u16::MAX),
        (_, Kind::Variable) => 268_435_455,
        (_, Kind::U32 | Kind::Text | Kind::Binary | Kind::Pair) => u32::MAX,
    };
    let min = u32::from(matches!(property.values(), Values::NotZero | Values::Alias));
    match property.kind() {
        Kind::Byte | Kind::U16 | Kind::U32 | Kind::Variable => (min..=max).prop_map(Owned::Number).boxed(),
        // MQTT-4.7.3-1: a topic has one character at least.
        Kind::Text if property.values() == Values::TopicName => any_text()
            .prop_map(|text| Owned::Text(format!("t{text}")))
            .boxed(),
        Kind::Text => any_text().prop_map(Owned::Text).boxed(),
        Kind::Binary => any::<Vec<u8>>().prop_map(Owned::Binary).boxed(),
        Kind::Pair => (any_text(), any_text())
            .prop_map(|(name, value)| Owned::Pair(name, value))
            .boxed(),
    }
}

fn any_properties() -> impl Strategy<Value = (PacketOrWill, Vec<(Property, Owned)>)> {
    proptest::sample::select(&PLACES[..]).prop_flat_map(|(place, _)| {
        let mut list = Vec::new();
        for property in Property::ALL
            .iter()
            .copied()
            .filter(|property| property.may_stand_in(place))
        {
            let times = if property.may_repeat_in(place) {
                0..=3
            } else {
                0..=1
            };
            list.push(proptest::collection::vec(
                any_value(property).prop_map(move |value| (property, value)),
                times,
            ));
        }
        let list = list.prop_map(|lists| lists.concat()).prop_shuffle();
        (proptest::prelude::Just(place), list)
    })
}

proptest! {
    /// Whatever is written is read back: the same properties in the same order, and by name.
    #[test]
    fn properties_that_are_written_are_read_back((place, written) in any_properties()) {
        let mut bytes = b"before".to_vec();
        let mut writer = Writer::new(&mut bytes, place);
        for (property, value) in &written {
            match value {
                Owned::Number(number) => writer.number(*property, *number),
                Owned::Text(text) => writer.bytes(*property, text.as_bytes()),
                Owned::Binary(bytes) => writer.bytes(*property, bytes),
                Owned::Pair(name, value) => writer.user(name, value),
            }
        }
        writer.end();
        let taken = take(&bytes[6..], place).unwrap();
        let read: Vec<_> = taken.iter().collect();
        let expected: Vec<_> = written.iter().map(|(property, value)| (*property, match value {
            Owned::Number(number) => Value::Number(*number),
            Owned::Text(text) => Value::Text(text),
            Owned::Binary(bytes) => Value::Binary(bytes),
            Owned::Pair(name, value) => Value::Pair(name, value),
        })).collect();
        prop_assert_eq!(&read, &expected);
        for property in Property::ALL {
            let first = expected.iter().find(|(written, _)| written == property).map(|(_, value)| *value);
            prop_assert_eq!(taken.find(*property), first);
        }
    }

    /// Any bytes: the same answer from the strings as from the standard library, and no panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), (place, _) in proptest::sample::select(&PLACES[..])) {
        if let Ok(taken) = take(&bytes, place) {
            let all: usize = taken.as_they_came().map(|(_, bytes)| bytes.len()).sum();
            prop_assert_eq!(all, taken.bytes().len());
            prop_assert_eq!(taken.as_they_came().count(), taken.iter().count());
            let passed_on: usize = taken.passed_on().map(<[u8]>::len).sum();
            prop_assert_eq!(taken.passed_on_bytes(), passed_on);
        }
        let is_text = str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
        prop_assert_eq!(topic::text(&bytes).is_ok(), is_text);
    }
}
