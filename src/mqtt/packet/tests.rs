//! Each rule about the bytes of a packet: which bytes are accepted, and which are refused with which fault.
//! Written from the specifications; the numbers in brackets are their statements. Public reports about faults
//! of other servers stand beside the bytes in question.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::mqtt::properties::{Properties, Property, put_length_at};
use crate::mqtt::reason::ReasonCode;

const MALFORMED: Option<Fault> = Some(Fault::Malformed);
const PROTOCOL: Option<Fault> = Some(Fault::Protocol);
const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

/// Decodes, and compares the fault; `None`: the packet is accepted.
#[track_caller]
fn expect(version: Version, first: u8, body: &[u8], fault: Option<Fault>) {
    assert_eq!(
        decode(version, first, body).err(),
        fault,
        "{version:?} {first:#04x} {body:x?}"
    );
}

#[track_caller]
fn expect_connect(body: &[u8], fault: Option<Fault>) {
    assert_eq!(
        decode_connect(0x10, body).err().map(|refused| refused.fault),
        fault,
        "{body:x?}"
    );
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

mod connect {
    use super::*;

    fn body(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut body = match version {
            Version::V3 => b"\0\x06MQIsdp\x03".to_vec(),
            Version::V4 => b"\0\x04MQTT\x04".to_vec(),
            Version::V5 => b"\0\x04MQTT\x05".to_vec(),
        };
        body.extend_from_slice(&[flags, 0, 60]);
        body.extend_from_slice(rest);
        body
    }

    #[test]
    fn all_fields_are_read() {
        let rest = b"\0\x02id\0\x03w/t\0\x02\0\xff\0\x04user\0\x02p\0";
        for version in [Version::V3, Version::V4] {
            let body = body(version, 0xf6, rest);
            let read = decode_connect(0x10, &body).unwrap();
            let will = Will {
                qos: Qos::ExactlyOnce,
                retain: true,
                topic: "w/t",
                payload: b"\0\xff",
                properties: Properties::NONE,
            };
            let expected = Connect {
                version,
                clean: true,
                keep_alive: 60,
                client_id: "id",
                will: Some(will),
                user_name: Some("user"),
                password: Some(b"p\0"),
                properties: Properties::NONE,
            };
            assert_eq!(read, expected);
        }
        let rest = b"\x05\x11\0\0\0\x0a\0\x02id\x05\x18\0\0\0\x05\0\x01t\0\0\0\x01u";
        let body = body(Version::V5, 0x8c, rest);
        let read = decode_connect(0x10, &body).unwrap();
        assert_eq!(read.properties.number(Property::SessionExpiryInterval), Some(10));
        let will = read.will.unwrap();
        assert_eq!(
            (will.qos, will.retain, will.topic, will.payload),
            (Qos::AtLeastOnce, false, "t", &b""[..])
        );
        assert_eq!(will.properties.number(Property::WillDelayInterval), Some(5));
        assert_eq!(
            (read.clean, read.user_name, read.password),
            (false, Some("u"), None)
        );
    }

    #[test]
    fn a_packet_that_is_cut_anywhere_or_goes_on_is_malformed() {
        let whole = [
            body(Version::V3, 0xf6, b"\0\x02id\0\x01t\0\x01m\0\x01u\0\x01p"),
            body(Version::V4, 0xf6, b"\0\x02id\0\x01t\0\x01m\0\x01u\0\x01p"),
            body(
                Version::V5,
                0xf6,
                b"\x03\x21\0\x01\0\x02id\x02\x01\x01\0\x01t\0\x01m\0\x01u\0\x01p",
            ),
        ];
        for body in whole {
            expect_connect(&body, None);
            for cut in 0..body.len() {
                expect_connect(&body[..cut], MALFORMED);
            }
            expect_connect(&[body.as_slice(), b"\0"].concat(), MALFORMED); // mosquitto#730, mosquitto#731
        }
    }

    #[test]
    fn another_level_is_a_version_that_this_server_does_not_speak_and_another_name_another_protocol() {
        const LEVEL: Fault = Fault::UnsupportedVersion;
        const NAME: Fault = Fault::OtherProtocol;
        for (bytes, fault) in [
            (b"\0\x04MQTT\x03\x02\0\0\0\0".as_slice(), LEVEL),
            (b"\0\x04MQTT\x06\x02\0\0\0\0", LEVEL),
            (b"\0\x04MQTT\x00\x02\0\0\0\0", LEVEL),
            (b"\0\x04MQTT\x84\x02\0\0\0\0", LEVEL),
            (b"\0\x06MQIsdp\x04\x02\0\0\0\0", LEVEL),
            (b"\0\x04mqtt\x04\x02\0\0\0\0", NAME),
            (b"\0\x03MQT\x04\x02\0\0\0\0", NAME),
            (b"\0\x05MQTTT\x04\x02\0\0\0\0", NAME),
            (b"\0\0\x04", NAME),
        ] {
            let refused = Refused { fault, version: None };
            assert_eq!(decode_connect(0x10, bytes), Err(refused), "{bytes:x?}");
        }
    }

    #[test]
    fn flags_that_do_not_go_together_are_malformed() {
        for flags in 0..=u8::MAX {
            for version in VERSIONS {
                let mut rest = if version == Version::V5 {
                    b"\0\0\0".to_vec()
                } else {
                    b"\0\0".to_vec()
                };
                if flags & 0x04 != 0 {
                    rest.extend_from_slice(if version == Version::V5 {
                        b"\0\0\x01t\0\0"
                    } else {
                        b"\0\x01t\0\0"
                    });
                }
                for flag in [0x80, 0x40] {
                    rest.extend_from_slice(if flags & flag != 0 { b"\0\x01x" } else { b"" });
                }
                let is_legal = (flags & 0x01 == 0 || version == Version::V3) // [MQTT-3.1.2-3]
                    && (flags & 0x04 != 0 || flags & 0x38 == 0) // [MQTT-3.1.2-11, -13]; FlashMQ#103, FlashMQ#170
                    && flags & 0x18 != 0x18 // [MQTT-3.1.2-12]; mosquitto#3629
                    && (version == Version::V5 || flags & 0xc0 != 0x40); // 3.1.1 [MQTT-3.1.2-22]; emqx#17913
                expect_connect(
                    &body(version, flags, &rest),
                    if is_legal { None } else { MALFORMED },
                );
            }
        }
    }

    #[test]
    fn ill_formed_strings_and_will_topics_are_malformed() {
        for (version, none) in [(Version::V4, &b""[..]), (Version::V5, &b"\0"[..])] {
            for (flags, rest) in [
                (0x02, b"\0\x01\0".as_slice()), // emqx#17159
                (0x02, b"\0\x02\xed\xa0"),
                (0x82, b"\0\x01c\0\x01\0"),
                (0x82, b"\0\x01c\0\x01\xff"),
            ] {
                expect_connect(&body(version, flags, &[none, rest].concat()), MALFORMED);
            }
            for topic in [
                b"\0\0".as_slice(),
                b"\0\x01\0",
                b"\0\x01+",
                b"\0\x03a/#",
                b"\0\x01\xff",
            ] {
                // wolfMQTT#535
                let rest = [none, b"\0\x01c", none, topic, b"\0\0"].concat();
                expect_connect(&body(version, 0x06, &rest), MALFORMED);
            }
        }
    }

    #[test]
    fn properties_of_connect_and_of_the_will_are_not_mixed_up() {
        let with = |connect: &[u8], will: &[u8]| {
            let (mut connect, mut will) = (connect.to_vec(), will.to_vec());
            put_length_at(&mut connect, 0);
            put_length_at(&mut will, 0);
            body(
                Version::V5,
                0x06,
                &[&connect, &b"\0\x01c"[..], &will, b"\0\x01t\0\0"].concat(),
            )
        };
        expect_connect(&with(b"\x11\0\0\0\x01", b"\x18\0\0\0\x01"), None);
        expect_connect(&with(b"\x18\0\0\0\x01", b""), MALFORMED);
        expect_connect(&with(b"", b"\x11\0\0\0\x01"), MALFORMED);
        expect_connect(&with(b"\x11\0\0\0\x01\x11\0\0\0\x01", b""), PROTOCOL); // nanomq#626
        expect_connect(&with(b"\x21\0\0", b""), PROTOCOL); // section 3.1.2.11.3
        expect_connect(&with(b"\x27\0\0\0\0", b""), PROTOCOL); // section 3.1.2.11.4
        expect_connect(&with(b"\x16\0\x01x", b""), PROTOCOL); // data without a method: section 3.1.2.11.10
        expect_connect(&with(b"\x15\0\x01m\x16\0\x01x", b""), None);
        expect_connect(&with(b"", b"\x08\0\0"), PROTOCOL); // [MQTT-4.7.3-1]: a topic without characters
        let many = b"\x26\0\x01n\0\x01v".repeat(10_000);
        expect_connect(&with(&many, &many), None);
    }

    #[test]
    fn the_first_packet_is_a_connect_packet_and_no_later_one_is() {
        let body = body(Version::V4, 0x02, b"\0\0");
        for first in (0x20..=0xf0).step_by(0x10) {
            let refused = Refused {
                fault: Fault::Protocol,
                version: None,
            };
            assert_eq!(decode_connect(first, &body), Err(refused)); // FlashMQ#104
        }
        for flags in 1..=15 {
            let refused = Refused {
                fault: Fault::Malformed,
                version: Some(Version::V4),
            };
            assert_eq!(decode_connect(0x10 | flags, &body), Err(refused));
        }
        for version in VERSIONS {
            expect(version, 0x10, &body, PROTOCOL); // [MQTT-3.1.0-2]
        }
    }

    #[test]
    fn the_client_identifier_is_seen_without_the_rest_of_the_packet() {
        let bodies = [
            (body(Version::V3, 0x02, b"\0\x05idid3"), Version::V3, "idid3"),
            (body(Version::V4, 0x82, b"\0\x02id\0\x01u"), Version::V4, "id"),
            (
                body(Version::V5, 0x82, b"\x07\x26\0\x01n\0\x01v\0\x02id\0\x01u"),
                Version::V5,
                "id",
            ),
            (body(Version::V4, 0x02, b"\0\0"), Version::V4, ""),
        ];
        for (body, version, client_id) in bodies {
            assert_eq!(client_of(&body), Some((version, client_id)), "{body:x?}");
        }
        for refused in [
            b"\0\x04MQTT\x09\x02\0\0\0\0".as_slice(),
            b"\0\x04M",
            b"\0\x04MQTT\x04\x02\0\0\0\x01\xff",
        ] {
            assert_eq!(client_of(refused), None, "{refused:x?}");
        }
    }
}

#[test]
fn a_message_is_read() {
    let publish = |version, first, body| match decode(version, first, body) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    };
    for version in [Version::V3, Version::V4] {
        let read = publish(version, 0x3b, b"\0\x03a/b\x01\x02\0\xff");
        let expected = Publish {
            dup: true,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "a/b",
            packet_id: Some(id(0x102)),
            properties: Properties::NONE,
            payload: b"\0\xff",
        };
        assert_eq!(read, expected);
    }
    let read = publish(Version::V5, 0x34, b"\0\x01t\0\x01\x03\x23\0\x07payload");
    assert_eq!(
        (read.qos, read.dup, read.retain, read.payload),
        (Qos::ExactlyOnce, false, false, &b"payload"[..])
    );
    assert_eq!(read.properties.number_16(Property::TopicAlias), Some(7));
    let read = publish(Version::V5, 0x30, b"\0\x01t\0");
    assert_eq!((read.packet_id, read.payload), (None, &b""[..]));
}

#[test]
fn flags_of_a_message() {
    for version in VERSIONS {
        for flags in 0..=15 {
            let body: &[u8] = match (flags & 0x06 != 0, version) {
                (false, Version::V5) => b"\0\x01t\0",
                (false, _) => b"\0\x01t",
                (true, Version::V5) => b"\0\x01t\0\x01\0",
                (true, _) => b"\0\x01t\0\x01",
            };
            // [MQTT-3.3.1-4], [MQTT-3.3.1-2]
            let is_legal = flags & 0x06 != 0x06 && (flags & 0x0e != 0x08);
            expect(
                version,
                0x30 | flags,
                body,
                if is_legal { None } else { MALFORMED },
            );
        }
    }
}

#[test]
fn a_message_that_is_not_complete_or_not_legal() {
    for version in VERSIONS {
        for body in [
            b"".as_slice(),
            b"\0",
            b"\0\x02t",
            b"\0\x01t",     // nanomq#2270
            b"\0\x01t\x01", // half an identifier
        ] {
            expect(version, 0x32, body, MALFORMED);
        }
        let zero = [
            b"\0\x01t\0\0".as_slice(),
            if version == Version::V5 { b"\0" } else { b"" },
        ]
        .concat();
        expect(version, 0x32, &zero, PROTOCOL); // [MQTT-2.2.1-3]
        for topic in [
            b"\0\x01\0".as_slice(),
            b"\0\x02a+",
            b"\0\x01#",
            b"\0\x01\xff",
            b"\0\x03\xed\xa0\x80",
        ] {
            let body = [topic, if version == Version::V5 { b"\0" } else { b"" }].concat();
            expect(version, 0x30, &body, MALFORMED); // [MQTT-3.3.2-2], [MQTT-1.5.4-1], [MQTT-1.5.4-2]; hmq#104
        }
    }
    // CVE-2021-34432: an empty topic.
    expect(Version::V3, 0x30, b"\0\0x", MALFORMED);
    expect(Version::V4, 0x30, b"\0\0x", MALFORMED);
    expect(Version::V5, 0x30, b"\0\0\0x", PROTOCOL); // section 3.3.2.1
    expect(Version::V5, 0x30, b"\0\0\x03\x23\0\x01x", None);
    expect(Version::V5, 0x30, b"\0\0\x03\x23\0\0x", Some(Fault::TopicAlias)); // nanomq#2336
    expect(
        Version::V5,
        0x30,
        b"\0\x01t\x03\x23\0\0x",
        Some(Fault::TopicAlias),
    );
    expect(Version::V5, 0x30, b"\0\x01t", MALFORMED); // no length of properties
    expect(Version::V5, 0x30, b"\0\x01t\x02\x0b\x01x", PROTOCOL); // [MQTT-3.3.4-6]; mosquitto#3319
    expect(Version::V5, 0x30, b"\0\x01t\x05\x11\0\0\0\x01", MALFORMED);
    expect(Version::V5, 0x30, b"\0\x01t\x03\x23\0", MALFORMED);
}

#[test]
fn the_payload_is_compared_with_its_format_indicator_on_request() {
    for (body, is_valid) in [
        (b"\0\x01t\0\xff".as_slice(), true),
        (b"\0\x01t\x02\x01\0\xff", true),
        (b"\0\x01t\x02\x01\x01\xff", false),
        (b"\0\x01t\x02\x01\x01\xc3\xa4\0", true),
        (b"\0\x01t\x02\x01\x01", true),
    ] {
        let Ok(Packet::Publish(publish)) = decode(Version::V5, 0x30, body) else {
            panic!("{body:x?}")
        };
        assert_eq!(publish.has_valid_payload(), is_valid, "{body:x?}");
    }
}

#[test]
fn acknowledgements() {
    let ack = |packet| match packet {
        Ok(Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) => ack,
        other => panic!("{other:?}"),
    };
    for first in [0x40, 0x50, 0x62, 0x70] {
        for version in VERSIONS {
            let read = ack(decode(version, first, b"\x12\x34"));
            assert_eq!((read.packet_id, read.reason), (id(0x1234), ReasonCode::Success));
            expect(version, first, b"", MALFORMED);
            expect(version, first, b"\x12", MALFORMED);
            expect(version, first, b"\0\0", PROTOCOL);
        }
        expect(Version::V3, first, b"\0\x01\0", MALFORMED);
        expect(Version::V4, first, b"\0\x01\0", MALFORMED);
        expect(Version::V5, first, b"\0\x01\0", None);
        expect(Version::V5, first, b"\0\x01\0\0", None);
        expect(Version::V5, first, b"\0\x01\0\0\0", MALFORMED);
        expect(Version::V5, first, b"\0\x01\0\x06\x1f\0\x03why", None);
        expect(Version::V5, first, b"\0\x01\0\x06\x1f\0\x03why\0", MALFORMED);
        expect(Version::V5, first, b"\0\x01\0\x03\x23\0\x01", MALFORMED);
        for code in 0..=u8::MAX {
            let legal: &[u8] = match first {
                0x40 | 0x50 => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
                _ => &[0x00, 0x92],
            };
            let fault = if legal.contains(&code) { None } else { MALFORMED }; // emqx#6447: 0x93
            expect(Version::V5, first, &[0, 1, code], fault);
        }
    }
}

#[test]
fn flags_of_other_packets() {
    for packet in [0x4, 0x5, 0x6, 0x7, 0x8, 0xa, 0xc, 0xe, 0xf] {
        let body = |version| -> &[u8] {
            match (packet, version) {
                (0x4..=0x7, _) => b"\0\x01",
                (0x8, Version::V5) => b"\0\x01\0\0\x01t\0",
                (0x8, _) => b"\0\x01\0\x01t\0",
                (0xa, Version::V5) => b"\0\x01\0\0\x01t",
                (0xa, _) => b"\0\x01\0\x01t",
                (0xf, _) => b"\x19\x04\x15\0\x01m",
                _ => b"",
            }
        };
        let legal = if [0x6, 0x8, 0xa].contains(&packet) { 2 } else { 0 };
        for flags in 0..=15 {
            // [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
            let fault = if flags == legal { None } else { MALFORMED };
            expect(Version::V5, packet << 4 | flags, body(Version::V5), fault);
            if packet == 0xf {
                expect(Version::V4, 0xf0 | flags, body(Version::V4), MALFORMED); // no AUTH before MQTT 5
                expect(Version::V3, 0xf0 | flags, body(Version::V3), MALFORMED);
            } else {
                expect(Version::V4, packet << 4 | flags, body(Version::V4), fault);
                expect(Version::V3, packet << 4 | flags, body(Version::V3), None);
            }
        }
    }
}

#[test]
fn packets_of_servers_are_refused() {
    for version in VERSIONS {
        for (first, body) in [
            (0x20, b"\0\0".as_slice()), // mosquitto#2163
            (0x90, b"\0\x01\0"),
            (0xb0, b"\0\x01"),
            (0xd0, b""),
        ] {
            for flags in 0..=15 {
                expect(version, first | flags, body, PROTOCOL);
            }
        }
        expect(version, 0x00, b"", MALFORMED);
    }
}

#[test]
fn subscriptions_are_read() {
    let subscribe = |version, body| match decode(version, 0x82, body) {
        Ok(Packet::Subscribe(subscribe)) => subscribe,
        other => panic!("{other:?}"),
    };
    for version in [Version::V3, Version::V4] {
        let read = subscribe(version, b"\x12\x34\0\x03a/#\x02\0\x01b\0");
        assert_eq!(
            (read.packet_id, read.count, read.subscription_id),
            (id(0x1234), 2, None)
        );
        let filters: Vec<_> = read
            .filters()
            .map(|(filter, options)| (filter, options.qos))
            .collect();
        assert_eq!(filters, [("a/#", Qos::ExactlyOnce), ("b", Qos::AtMostOnce)]);
    }
    let read = subscribe(Version::V5, b"\x12\x34\x02\x0b\x07\0\x01a\x2d\0\x01b\x10");
    assert_eq!((read.count, read.subscription_id), (2, Some(7)));
    let options = |qos, no_local, retain_as_published, retain_handling| SubscribeOptions {
        qos,
        no_local,
        retain_as_published,
        retain_handling,
    };
    let expected = [
        ("a", options(Qos::AtLeastOnce, true, true, RetainHandling::Never)),
        ("b", options(Qos::AtMostOnce, false, false, RetainHandling::IfNew)),
    ];
    assert_eq!(read.filters().collect::<Vec<_>>(), expected);
}

#[test]
fn options_of_subscriptions() {
    for byte in 0..=u8::MAX {
        let old = [b"\0\x01\0\x01t".as_slice(), &[byte]].concat();
        let five = [b"\0\x01\0\0\x01t".as_slice(), &[byte]].concat();
        expect(
            Version::V3,
            0x82,
            &old,
            if byte & 3 < 3 { None } else { MALFORMED },
        );
        expect(Version::V4, 0x82, &old, if byte < 3 { None } else { MALFORMED });
        let fault = match byte {
            0x40.. => MALFORMED,                                   // [MQTT-3.8.3-5]; nanomq#2336
            _ if byte & 3 == 3 || byte & 0x30 == 0x30 => PROTOCOL, // section 3.8.3.1
            _ => None,
        };
        expect(Version::V5, 0x82, &five, fault);
    }
    // [MQTT-3.8.3-4]; emqx#11074
    expect(Version::V5, 0x82, b"\0\x01\0\0\x0a$share/g/t\x04", PROTOCOL);
    expect(Version::V5, 0x82, b"\0\x01\0\0\x0a$share/g/t\x01", None);
}

#[test]
fn subscriptions_that_are_not_complete_or_not_legal() {
    for version in VERSIONS {
        let none: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
        for (first, options) in [(0x82, &b"\0"[..]), (0xa2, &b""[..])] {
            let body = |id: &[u8], rest: &[u8]| [id, none, rest].concat();
            expect(
                version,
                first,
                &body(b"\0\x01", &[b"\0\x01t", options].concat()),
                None,
            );
            expect(
                version,
                first,
                &body(b"\0\0", &[b"\0\x01t", options].concat()),
                PROTOCOL,
            );
            expect(version, first, &body(b"\0\x01", b""), PROTOCOL); // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
            expect(version, first, b"", MALFORMED);
            expect(version, first, b"\0", MALFORMED);
            for rest in [
                b"\0".as_slice(),
                b"\0\x02t",    // mochi#501
                b"\0\0\0",     // [MQTT-4.7.3-1]
                b"\0\x01\0\0", // mosquitto#693
                b"\0\x01\xff\0",
                b"\0\x01t\0\0\x01", // the second one is cut
            ] {
                expect(version, first, &body(b"\0\x01", rest), MALFORMED);
            }
        }
        expect(version, 0x82, &[b"\0\x01", none, b"\0\x01t"].concat(), MALFORMED); // nanomq#2268
    }
    expect(Version::V5, 0x82, b"\0\x01", MALFORMED); // no length of properties
    expect(Version::V5, 0x82, b"\0\x01\x02\x0b\0\0\x01t\0", PROTOCOL);
    expect(
        Version::V5,
        0x82,
        b"\0\x01\x04\x0b\x01\x0b\x02\0\x01t\0",
        PROTOCOL,
    );
    expect(Version::V5, 0xa2, b"\0\x01\x02\x0b\x01\0\x01t", MALFORMED);
}

#[test]
fn unsubscribing_is_read() {
    let Ok(Packet::Unsubscribe(read)) = decode(Version::V4, 0xa2, b"\0\x07\0\x01a\0\x03b/+") else {
        panic!()
    };
    assert_eq!((read.packet_id, read.count), (id(7), 2));
    assert_eq!(read.filters().collect::<Vec<_>>(), ["a", "b/+"]);
    let Ok(Packet::Unsubscribe(read)) = decode(Version::V5, 0xa2, b"\0\x07\x07\x26\0\x01n\0\x01v\0\x01a")
    else {
        panic!()
    };
    assert_eq!(read.filters().collect::<Vec<_>>(), ["a"]);
    assert_eq!(read.properties.user().collect::<Vec<_>>(), [("n", "v")]);
}

#[test]
fn pings_and_farewells() {
    for version in VERSIONS {
        expect(version, 0xc0, b"", None);
        expect(version, 0xc0, b"\0", MALFORMED);
        expect(version, 0xe0, b"", None);
    }
    expect(Version::V3, 0xe0, b"\0", MALFORMED);
    expect(Version::V4, 0xe0, b"\0", MALFORMED);
    for code in 0..=u8::MAX {
        // Table 3-10. mosquitto#3743, nanomq#2442, vernemq#2553: 0xff is reserved.
        let fault = match code {
            0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => None,
            0x87 | 0x89 | 0x8b..=0x8f | 0x9a..=0xa2 => PROTOCOL, // of servers alone
            _ => MALFORMED,
        };
        expect(Version::V5, 0xe0, &[code], fault);
    }
    expect(Version::V5, 0xe0, b"\0\0", None);
    expect(Version::V5, 0xe0, b"\0\0\0", MALFORMED);
    expect(Version::V5, 0xe0, b"\x04\x05\x11\0\0\0\x05", None);
    expect(Version::V5, 0xe0, b"\x04\x04\x11\0\0\0", MALFORMED);
    expect(Version::V5, 0xe0, b"\0\x04\x1c\0\x01s", PROTOCOL); // the reference of a server
    let Ok(Packet::Disconnect(read)) = decode(Version::V5, 0xe0, b"\x04\x05\x11\0\0\0\x05") else {
        panic!()
    };
    assert_eq!(read.reason, ReasonCode::DisconnectWithWill);
    assert_eq!(read.properties.number(Property::SessionExpiryInterval), Some(5));
}

#[test]
fn steps_of_an_authentication() {
    let Ok(Packet::Auth(read)) = decode(Version::V5, 0xf0, b"\x18\x08\x15\0\x01m\x16\0\x01d") else {
        panic!()
    };
    assert_eq!(
        (read.reason, read.method),
        (ReasonCode::ContinueAuthentication, "m")
    );
    assert_eq!(
        read.properties.binary(Property::AuthenticationData),
        Some(&b"d"[..])
    );
    expect(Version::V5, 0xf0, b"", PROTOCOL); // success: of servers alone
    expect(Version::V5, 0xf0, b"\0\x04\x15\0\x01m", PROTOCOL);
    expect(Version::V5, 0xf0, b"\x18", PROTOCOL); // no method
    expect(Version::V5, 0xf0, b"\x18\0", PROTOCOL);
    expect(Version::V5, 0xf0, b"\x04\x04\x15\0\x01m", MALFORMED);
}

proptest! {
    /// Any bytes are decoded or refused, and iterators return as many entries as the packet announces.
    #[test]
    fn any_bytes_are_decoded_or_refused(first in any::<u8>(), body in any::<Vec<u8>>()) {
        for version in VERSIONS {
            match decode(version, first, &body) {
                Ok(Packet::Subscribe(subscribe)) => prop_assert_eq!(subscribe.filters().count(), subscribe.count),
                Ok(Packet::Unsubscribe(packet)) => prop_assert_eq!(packet.filters().count(), packet.count),
                Ok(_) | Err(_) => {}
            }
        }
        let _ = decode_connect(0x10, &body);
    }

    /// If a CONNECT packet is legal, the identifier that is read early is its identifier.
    #[test]
    fn the_early_look_sees_the_identifier_of_the_packet(
        five in any::<bool>(), flags in any::<u8>(), rest in any::<Vec<u8>>(),
    ) {
        let head: &[u8] = if five { b"\0\x04MQTT\x05" } else { b"\0\x04MQTT\x04" };
        let body = [head, &[flags], &rest].concat();
        if let Ok(connect) = decode_connect(0x10, &body) {
            prop_assert_eq!(client_of(&body), Some((connect.version, connect.client_id)));
        }
    }
}
