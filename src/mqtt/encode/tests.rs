//! The bytes of each packet that a server sends, and their way back through the decoder where a client may send such a
//! packet too.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::mqtt::frame::{Frame, PACKET_BYTES_MAX, frame};
use crate::mqtt::packet::{Packet, decode};
use crate::mqtt::properties::Properties;
use crate::mqtt::reader::Reader;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out);
    let packet = out.split_off(6);
    assert_eq!(out, b"before");
    let whole = frame(&packet, PACKET_BYTES_MAX);
    assert!(
        matches!(whole, Ok(Frame::Whole { length, .. }) if length == packet.len()),
        "{packet:x?}"
    );
    packet
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn connack_of_old_versions() {
    let connack = |session, code| written(|out| connack(out, session, code));
    assert_eq!(connack(SessionPresent::No, ReturnCode::Accepted), [0x20, 2, 0, 0]);
    assert_eq!(
        connack(SessionPresent::Yes, ReturnCode::Accepted),
        [0x20, 2, 1, 0]
    );
    // [MQTT-3.2.2-4] of 3.1.1
    assert_eq!(
        connack(SessionPresent::Yes, ReturnCode::NotAuthorized),
        [0x20, 2, 0, 5]
    );
}

#[test]
fn connack_of_mqtt_5() {
    let none = ConnAckProperties::default();
    let connack = |session, reason, properties| written(|out| connack_5(out, session, reason, properties));
    assert_eq!(
        connack(SessionPresent::Yes, ReasonCode::Success, &none),
        [0x20, 3, 1, 0, 0]
    );
    assert_eq!(
        connack(SessionPresent::Yes, ReasonCode::Banned, &none),
        [0x20, 3, 0, 0x8a, 0]
    );
    let all = ConnAckProperties {
        session_expiry_interval: Some(1),
        receive_maximum: Some(2),
        maximum_qos: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(5),
        assigned_client_id: Some("id"),
        topic_alias_maximum: Some(7),
        reason_string: Some("why"),
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(12),
        response_information: Some("r"),
        server_reference: Some("s"),
    };
    let packet = connack(SessionPresent::No, ReasonCode::Success, &all);
    let mut reader = Reader::new(&packet[4..]);
    let read = Properties::take(Version::V5, &mut reader, PacketOrWill::ConnAck).unwrap();
    reader.end().unwrap();
    assert_eq!(read.iter().count(), 14);
    for (property, number) in [
        (Property::SessionExpiryInterval, 1),
        (Property::ReceiveMaximum, 2),
        (Property::MaximumQos, 1),
        (Property::RetainAvailable, 0),
        (Property::MaximumPacketSize, 5),
        (Property::TopicAliasMaximum, 7),
        (Property::WildcardSubscriptionAvailable, 1),
        (Property::SubscriptionIdentifierAvailable, 0),
        (Property::SharedSubscriptionAvailable, 1),
        (Property::ServerKeepAlive, 12),
    ] {
        assert_eq!(read.number(property), Some(number), "{property:?}");
    }
    for (property, text) in [
        (Property::AssignedClientIdentifier, "id"),
        (Property::ReasonString, "why"),
        (Property::ResponseInformation, "r"),
        (Property::ServerReference, "s"),
    ] {
        assert_eq!(read.text(property), Some(text), "{property:?}");
    }
}

#[test]
fn a_text_of_more_than_127_bytes_makes_the_lengths_in_front_of_it_wider() {
    let text = "x".repeat(300);
    let packet = written(|out| disconnect(out, ReasonCode::QuotaExceeded, Some(&text), None));
    // 1 reason + 2 length of properties + 3 head of the string + 300
    assert_eq!(
        packet[..9],
        [0xe0, 0xb2, 0x02, 0x97, 0xaf, 0x02, 0x1f, 0x01, 0x2c]
    );
    assert_eq!(packet.len(), 3 + 306);
}

#[test]
fn acknowledgements() {
    let write = |version, kind, reason, text| written(|out| ack(out, version, kind, id(0x102), reason, text));
    let ok = ReasonCode::Success;
    for version in [Version::V3, Version::V4, Version::V5] {
        assert_eq!(write(version, AckKind::PubAck, ok, None), [0x40, 2, 1, 2]);
        assert_eq!(write(version, AckKind::PubRec, ok, None), [0x50, 2, 1, 2]);
        assert_eq!(write(version, AckKind::PubRel, ok, None), [0x62, 2, 1, 2]);
        assert_eq!(write(version, AckKind::PubComp, ok, None), [0x70, 2, 1, 2]);
    }
    let denied = ReasonCode::NotAuthorized;
    assert_eq!(
        write(Version::V4, AckKind::PubAck, denied, Some("no")),
        [0x40, 2, 1, 2]
    );
    assert_eq!(
        write(Version::V5, AckKind::PubAck, denied, None),
        [0x40, 3, 1, 2, 0x87]
    );
    assert_eq!(
        write(Version::V5, AckKind::PubRel, ReasonCode::PacketIdNotFound, None),
        [0x62, 3, 1, 2, 0x92]
    );
    let with_text = write(Version::V5, AckKind::PubRec, denied, Some("no"));
    assert_eq!(with_text, [0x50, 9, 1, 2, 0x87, 5, 0x1f, 0, 2, b'n', b'o']);
}

#[test]
fn answers_to_subscriptions() {
    let reasons = [
        ReasonCode::GrantedQos2,
        ReasonCode::TopicFilterInvalid,
        ReasonCode::Success,
    ];
    let suback = |version, text| written(|out| suback(out, version, id(7), &reasons, text));
    assert_eq!(suback(Version::V4, Some("no")), [0x90, 5, 0, 7, 2, 0x80, 0]); // [MQTT-3.9.3-2] of 3.1.1
    assert_eq!(suback(Version::V5, None), [0x90, 6, 0, 7, 0, 2, 0x8f, 0]);
    assert_eq!(
        suback(Version::V5, Some("no")),
        [0x90, 11, 0, 7, 5, 0x1f, 0, 2, b'n', b'o', 2, 0x8f, 0]
    );
    let reasons = [ReasonCode::NoSubscriptionExisted, ReasonCode::Success];
    let unsuback = |version| written(|out| unsuback(out, version, id(7), &reasons, None));
    assert_eq!(unsuback(Version::V3), [0xb0, 2, 0, 7]);
    assert_eq!(unsuback(Version::V5), [0xb0, 5, 0, 7, 0, 0x11, 0]);
}

#[test]
fn pings_and_farewells() {
    assert_eq!(written(pingresp), [0xd0, 0]);
    let disconnect = |reason, text, server| written(|out| disconnect(out, reason, text, server));
    assert_eq!(
        disconnect(ReasonCode::SessionTakenOver, None, None),
        [0xe0, 1, 0x8e]
    );
    let moved = disconnect(ReasonCode::UseAnotherServer, None, Some("b"));
    assert_eq!(moved, [0xe0, 6, 0x9c, 4, 0x1c, 0, 1, b'b']);
}

#[test]
fn a_message_is_written_with_what_belongs_to_its_receiver() {
    let head = PublishHead {
        version: Version::V4,
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic: "a/b",
        payload_bytes: 2,
        properties: PublishProperties::default(),
    };
    let write = |head: PublishHead<'_>| {
        let packet = written(|out| {
            head.write(out);
            out.extend_from_slice(b"hi");
        });
        assert_eq!(head.packet_bytes(), Some(packet.len()));
        packet
    };
    assert_eq!(write(head), b"\x30\x07\0\x03a/bhi");
    let again = PublishHead {
        dup: true,
        retain: true,
        delivery: Delivery::ExactlyOnce(id(9)),
        ..head
    };
    assert_eq!(write(again), b"\x3d\x09\0\x03a/b\0\x09hi");
    assert_eq!(
        write(PublishHead {
            version: Version::V5,
            ..head
        }),
        b"\x30\x08\0\x03a/b\0hi"
    );
    let all = PublishHead {
        version: Version::V5,
        delivery: Delivery::AtLeastOnce(id(0x102)),
        topic: "",
        properties: PublishProperties {
            payload_is_utf8: true,
            message_expiry_interval: Some(60),
            topic_alias: Some(3),
            subscription_ids: &[1, 300],
            passed_on: b"\x26\0\x01n\0\x01v",
        },
        ..head
    };
    let expected =
        b"\x32\x1d\0\0\x01\x02\x16\x01\x01\x02\0\0\0\x3c\x23\0\x03\x0b\x01\x0b\xac\x02\x26\0\x01n\0\x01vhi";
    assert_eq!(write(all), expected);
    let too_large = PublishHead {
        payload_bytes: 268_435_455,
        ..head
    };
    assert_eq!(too_large.packet_bytes(), None);
}

proptest! {
    /// A message that a server writes is read back as the same message, with the properties to pass on in the
    /// order in which they came.
    #[test]
    fn messages_that_are_written_are_read_back(
        version in proptest::sample::select(&[Version::V3, Version::V4, Version::V5][..]),
        (qos, number, retain, dup) in (0..3u8, 1..=u16::MAX, any::<bool>(), any::<bool>()),
        topic in "[a-z/ä]{1,200}",
        payload in any::<Vec<u8>>(),
        (payload_is_utf8, message_expiry_interval) in (any::<bool>(), any::<Option<u32>>()),
        topic_alias in proptest::option::of(1..=u16::MAX),
        user in proptest::collection::vec(("[a-z]{0,9}", "[a-z]{0,99}"), 0..4),
    ) {
        let delivery = match qos {
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce(id(number)),
            _ => Delivery::ExactlyOnce(id(number)),
        };
        let mut passed_on = Vec::new();
        for (name, value) in &user {
            passed_on.push(Property::UserProperty.id());
            put_binary(&mut passed_on, name.as_bytes());
            put_binary(&mut passed_on, value.as_bytes());
        }
        let properties = PublishProperties {
            payload_is_utf8, message_expiry_interval, topic_alias, subscription_ids: &[], passed_on: &passed_on,
        };
        let dup = dup && qos > 0;
        let payload_bytes = payload.len();
        let head = PublishHead { version, dup, retain, delivery, topic: &topic, payload_bytes, properties };
        let packet = written(|out| {
            head.write(out);
            out.extend_from_slice(&payload);
        });
        prop_assert_eq!(head.packet_bytes(), Some(packet.len()));
        let Ok(Frame::Whole { first, body, .. }) = frame(&packet, PACKET_BYTES_MAX) else { unreachable!() };
        let Ok(Packet::Publish(read)) = decode(version, first, &packet[body]) else { panic!("{packet:x?}") };
        prop_assert_eq!((read.dup, read.retain, read.qos as u8), (dup, retain, qos));
        prop_assert_eq!(read.packet_id, (qos > 0).then(|| id(number)));
        prop_assert_eq!((read.topic, read.payload), (topic.as_str(), payload.as_slice()));
        if version == Version::V5 {
            prop_assert_eq!(read.properties.number(Property::MessageExpiryInterval), message_expiry_interval);
            prop_assert_eq!(read.properties.number_16(Property::TopicAlias), topic_alias);
            prop_assert_eq!(read.properties.has(Property::PayloadFormatIndicator), payload_is_utf8);
            let read: Vec<u8> = read.properties.passed_on().flatten().copied().collect();
            prop_assert_eq!(read, passed_on);
        }
    }
}
