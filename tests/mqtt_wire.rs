//! What the specifications of MQTT 3.1.1 and 5.0 say about packets, as bytes to a real server and back. The tests were
//! written from the specifications, whose statements stand in brackets, and from public reports of other servers'
//! mistakes, which are named by repository and number.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::Duration;

use support::mqtt::{
    Mqtt, MqttServer, Over, PINGREQ, ack, body, connect, connect_with, packet, properties, publish, string,
    subscribe, unsubscribe,
};

const EVERYTHING: [Over; 3] = [Over::Tcp, Over::Tls, Over::WebSocket];
const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;

fn server() -> MqttServer {
    MqttServer::start(|_| {})
}

/// Sends a packet behind CONNECT; the server must end the connection with this code.
#[track_caller]
fn ends(server: &MqttServer, over: Over, version: u8, bytes: &[u8], code: u8) {
    let mut client = server.connect_over(over, version, "hostile");
    client.send(bytes);
    let packet = client.next();
    if version == 5 {
        let came = packet.as_deref().map(|packet| (packet[0], body(packet)[0]));
        assert_eq!(came, Some((0xe0, code)), "{bytes:x?}: {packet:x?}");
        assert_eq!(client.next(), None, "{bytes:x?}");
    } else {
        assert_eq!(packet, None, "{bytes:x?}");
    }
}

mod connecting {
    use super::*;

    #[test]
    fn each_version_is_greeted_in_its_own_form() {
        let server = server();
        for over in EVERYTHING {
            for version in [3, 4] {
                let mut client = server.open(over, version);
                client.send(&connect(version, "a"));
                client.expect(&[0x20, 2, 0, 0]);
                client.ping();
            }
            let mut client = server.open(over, 5);
            client.send(&connect(5, "a"));
            let answer = client.packet();
            assert_eq!((answer[0], &body(&answer)[..2]), (0x20, &[0, 0][..]));
            client.ping();
        }
    }

    /// [MQTT-3.1.2-2]. The answer is one that every version reads.
    #[test]
    fn a_version_that_the_server_does_not_speak_is_refused_with_a_code() {
        let server = server();
        for level in [0, 1, 2, 6, 7, 0x84, 0xff] {
            let mut client = server.open(Over::Tcp, 4);
            client.send(&packet(
                0x10,
                &[&string("MQTT")[..], &[level, 2, 0, 0, 0, 0]].concat(),
            ));
            if matches!(level, 6 | 7) {
                assert_eq!(client.packet()[..4][2..], [0, 0x84]);
            } else {
                client.expect(&[0x20, 2, 0, 1]);
            }
            client.expect_end(0);
        }
    }

    /// [MQTT-3.1.0-1]; FlashMQ#104: PINGREQ was answered. mosquitto#2163: CONNACK of a client.
    #[test]
    fn a_packet_before_connect_ends_the_connection_without_an_answer() {
        let server = server();
        for over in EVERYTHING {
            for first in [
                PINGREQ.to_vec(),
                packet(0x20, &[0, 0]),
                publish(4, 0, "a", 0, &[], b""),
                subscribe(4, 1, &[], &[("a", 0)]),
                packet(0xe0, &[]),
                packet(0xf0, &[]),
            ] {
                let mut client = server.open(over, 4);
                client.send(&first);
                client.expect_end(0);
            }
        }
    }

    /// codepr/sol#16: packets after a refused CONNECT were processed.
    #[test]
    fn nothing_behind_a_refused_connect_is_processed() {
        let server = server();
        let mut listener = server.connect(4, "listener");
        listener.subscribe("secret", 0);
        let message = publish(4, 0, "secret", 0, &[], b"x");
        for refused in [
            connect_with(4, 0x00, 0, &[], &string("")),
            connect_with(4, 0x01, 0, &[], &string("a")),
            packet(0x10, &[&string("MQTT")[..], &[9, 2, 0, 0, 0, 0]].concat()),
        ] {
            let mut client = server.open(Over::Tcp, 4);
            client.send(&[refused, message.clone()].concat());
            while client.next().is_some() {}
        }
        listener.ping();
    }

    /// [MQTT-3.1.0-2]
    #[test]
    fn a_second_connect_ends_the_connection() {
        let server = server();
        for version in [3, 4, 5] {
            ends(
                &server,
                Over::Tcp,
                version,
                &connect(version, "hostile"),
                PROTOCOL,
            );
        }
    }

    /// CONNECT that no version reads: nothing is answered before MQTT 5, there the code.
    #[test]
    fn a_connect_that_cannot_be_read_is_refused() {
        let server = server();
        let will = [string("w"), string("x")].concat();
        let will_5 = [&[0][..], &will].concat();
        let id = string("id");
        let bad: [(&str, u8, Vec<u8>, Vec<u8>); 13] = [
            // [MQTT-3.1.2-3]; FlashMQ#170
            ("reserved flag", 0x03, vec![], vec![]),
            // [MQTT-3.1.2-11], [MQTT-3.1.2-13]; FlashMQ#103
            ("QoS of no will", 0x0a, vec![], vec![]),
            ("RETAIN of no will", 0x22, vec![], vec![]),
            // [MQTT-3.1.2-12]; mosquitto#3629
            ("QoS 3 of the will", 0x1e, will.clone(), will_5.clone()),
            ("no will, but its flag", 0x06, vec![], vec![]),
            ("no user name, but its flag", 0x82, vec![], vec![]),
            ("no password, but its flag", 0xc2, string("u"), string("u")),
            // mosquitto#730, mosquitto#731
            ("bytes behind the packet", 0x02, vec![0], vec![0]),
            ("an ill-formed user name", 0x82, string(b"\xff"), string(b"\xff")),
            ("U+0000 in the user name", 0x82, string(b"\0"), string(b"\0")),
            // wolfMQTT#535
            (
                "U+0000 in the will's topic",
                0x06,
                [string(b"a\0"), string("x")].concat(),
                [vec![0], string(b"a\0"), string("x")].concat(),
            ),
            (
                "a wildcard in the will's topic",
                0x06,
                [string("a/+"), string("x")].concat(),
                [vec![0], string("a/+"), string("x")].concat(),
            ),
            ("half a will", 0x06, string("w"), [vec![0], string("w")].concat()),
        ];
        for (what, flags, rest, rest_5) in bad {
            let mut client = server.open(Over::Tcp, 4);
            client.send(&connect_with(4, flags, 0, &[], &[&id[..], &rest].concat()));
            assert_eq!(client.next(), None, "{what}");
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect_with(5, flags, 0, &[], &[&id[..], &rest_5].concat()));
            refused(&mut client, MALFORMED, what);
        }
        // emqx#17159
        for id in [&b"a\0b"[..], b"\xed\xa0\x80", b"\xc3"] {
            let mut client = server.open(Over::Tcp, 4);
            client.send(&connect_with(4, 2, 0, &[], &string(id)));
            assert_eq!(client.next(), None, "{id:x?}");
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect_with(5, 2, 0, &[], &string(id)));
            refused(&mut client, MALFORMED, "the client identifier");
        }
    }

    #[track_caller]
    fn refused(client: &mut Mqtt, code: u8, what: &str) {
        let answer = client.next();
        let came = answer
            .as_deref()
            .map(|answer| (answer[0], body(answer)[0], body(answer)[1]));
        assert_eq!(came, Some((0x20, 0, code)), "{what}: {answer:x?}");
        assert_eq!(client.next(), None, "{what}");
    }

    #[test]
    fn properties_of_connect_that_are_not_legal_are_refused_with_their_code() {
        let server = server();
        let number = |id: u8, bytes: &[u8]| [&[id][..], bytes].concat();
        for (what, properties, code) in [
            // nanomq#626
            ("twice", number(0x11, &[0, 0, 0, 1]).repeat(2), PROTOCOL),
            ("receive maximum 0", number(0x21, &[0, 0]), PROTOCOL),
            ("maximum packet size 0", number(0x27, &[0, 0, 0, 0]), PROTOCOL),
            ("2 for a boolean", number(0x17, &[2]), PROTOCOL),
            (
                "data without a method",
                [vec![0x16], string("x")].concat(),
                PROTOCOL,
            ),
            ("one of PUBLISH", number(0x23, &[0, 1]), MALFORMED),
            ("one of CONNACK", number(0x24, &[1]), MALFORMED),
            ("one of the will", number(0x18, &[0, 0, 0, 1]), MALFORMED),
            ("an unknown one", number(0x04, &[0]), MALFORMED),
            ("one that is cut", number(0x11, &[0, 0]), MALFORMED),
            // [MQTT-4.12.0-1]
            (
                "an authentication method",
                [vec![0x15], string("SCRAM")].concat(),
                0x8c,
            ),
        ] {
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect_with(5, 2, 0, &properties, &string("id")));
            refused(&mut client, code, what);
        }
    }

    /// 3.1.1 [MQTT-3.1.2-22], emqx#17913; in MQTT 5 a password alone is legal (section 3.1.2.9).
    #[test]
    fn a_password_without_a_user_name_is_malformed_before_mqtt_5() {
        let server = server();
        let payload = [string("id"), string("secret")].concat();
        let mut client = server.open(Over::Tcp, 4);
        client.send(&connect_with(4, 0x42, 0, &[], &payload));
        assert_eq!(client.next(), None);
        let mut client = server.open(Over::Tcp, 5);
        client.send(&connect_with(5, 0x42, 0, &[], &payload));
        let answer = client.packet();
        assert_eq!(answer[0], 0x20);
        assert_ne!(body(&answer)[1], MALFORMED);
    }

    /// 3.1.1 [MQTT-3.1.3-8]; emqx#599, vernemq#15, aedes#1095.
    #[test]
    fn an_empty_client_identifier_needs_a_clean_session_before_mqtt_5() {
        let server = server();
        let mut client = server.open(Over::Tcp, 4);
        client.send(&connect_with(4, 0, 0, &[], &string("")));
        client.expect(&[0x20, 2, 0, 2]);
        client.expect_end(0);
        let mut client = server.open(Over::Tcp, 4);
        client.send(&connect_with(4, 2, 0, &[], &string("")));
        client.expect(&[0x20, 2, 0, 0]);
        client.ping();
    }

    /// [MQTT-3.1.3-6], [MQTT-3.2.2-16]; rmqtt#27: all clients without an identifier shared one session.
    #[test]
    fn an_empty_client_identifier_is_replaced_by_one_of_its_own() {
        let server = server();
        let mut clients = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        for flags in [2, 2, 0] {
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect_with(5, flags, 0, &[], &string("")));
            let answer = client.packet();
            assert_eq!(&body(&answer)[..2], [0, 0]);
            let id = property(&body(&answer)[2..], 0x12).expect("an assigned identifier");
            assert!(ids.insert(id));
            clients.push(client);
        }
        clients.iter_mut().for_each(Mqtt::ping);
    }

    /// Identifiers of 1 to 23 letters and digits must be taken [MQTT-3.1.3-5]; others may be, and are.
    #[test]
    fn client_identifiers_may_have_any_characters() {
        let server = server();
        for id in [
            "a",
            "0123456789abcdefghijABC",
            "with space",
            "ä€😀",
            "a/b+#",
            &"x".repeat(200),
        ] {
            for version in [3, 4, 5] {
                server.connect(version, id).ping();
            }
        }
    }

    /// [MQTT-3.1.4-3], [MQTT-3.1.4-2]; LabOverWire/mqtt-lib#147, nanomq#2336.
    #[test]
    fn the_older_connection_of_a_client_identifier_ends_with_its_code() {
        let server = server();
        for version in [4, 5] {
            let mut old = server.connect(version, "same");
            let mut new = server.connect(5, "same");
            old.expect_end(0x8e);
            new.ping();
        }
    }
}

/// The first property of this identifier among properties with their length: a string.
fn property(properties: &[u8], id: u8) -> Option<String> {
    let mut rest = &properties[1..];
    while let [found, value @ ..] = rest {
        let length = match found {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => 1,
            0x13 | 0x21..=0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x26 => {
                let name = 2 + usize::from(u16::from_be_bytes([value[0], value[1]]));
                name + 2 + usize::from(u16::from_be_bytes([value[name], value[name + 1]]))
            }
            _ => 2 + usize::from(u16::from_be_bytes([value[0], value[1]])),
        };
        if *found == id {
            return Some(String::from_utf8_lossy(&value[2..length]).into_owned());
        }
        rest = &value[length..];
    }
    None
}

mod malformed {
    use super::*;

    /// Packets that end the connection in each version, with a description and the code in MQTT 5.
    fn packets(version: u8) -> Vec<(Vec<u8>, u8)> {
        let none = properties(version, &[]);
        let with = |first: u8, parts: &[&[u8]]| packet(first, &parts.concat());
        let mut packets = vec![
            // Section 2.1: reserved types and flags.
            (vec![0x00, 0], MALFORMED),
            (vec![0xc1, 0], MALFORMED),
            (with(0x41, &[&[0, 1]]), MALFORMED),
            (with(0x60, &[&[0, 1]]), MALFORMED), // [MQTT-3.6.1-1]
            (with(0x80, &[&[0, 1], &none, &string("a"), &[0]]), MALFORMED), // [MQTT-3.8.1-1]
            (with(0xa0, &[&[0, 1], &none, &string("a")]), MALFORMED), // [MQTT-3.10.1-1]
            (vec![0xe1, 0], MALFORMED),          // [MQTT-3.14.1-1]
            (vec![0xc0, 0xff, 0xff, 0xff, 0xff], MALFORMED), // a length of five bytes
            // Packets of servers.
            (with(0x20, &[&[0, 0]]), PROTOCOL),
            (with(0x90, &[&[0, 1], &none, &[0]]), PROTOCOL),
            (with(0xb0, &[&[0, 1], &none]), PROTOCOL),
            (vec![0xd0, 0], PROTOCOL),
            // PUBLISH.
            (publish(version, 0x06, "a", 1, &[], b""), MALFORMED), // [MQTT-3.3.1-4]
            (publish(version, 0x08, "a", 1, &[], b""), MALFORMED), // [MQTT-3.3.1-2]
            (publish(version, 0, "a/+", 0, &[], b""), MALFORMED),  // [MQTT-3.3.2-2]
            (publish(version, 0, "#", 0, &[], b""), MALFORMED),
            (publish(version, 0, "a\0b", 0, &[], b""), MALFORMED), // [MQTT-1.5.4-2]; hmq#104
            (with(0x30, &[&string(b"\xff"), &none]), MALFORMED),   // [MQTT-1.5.4-1]
            (with(0x30, &[&string(b"\xed\xa0\x80"), &none]), MALFORMED),
            (with(0x30, &[b"\0\x05ab"]), MALFORMED),
            (with(0x30, &[b"\0"]), MALFORMED),
            (with(0x32, &[&string("a")]), MALFORMED), // nanomq#2270
            (publish(version, 0x02, "a", 0, &[], b""), PROTOCOL), // [MQTT-2.2.1-3]
            // Acknowledgements.
            (with(0x40, &[&[0]]), MALFORMED),
            (with(0x40, &[]), MALFORMED),
            (with(0x62, &[&[0, 0]]), PROTOCOL),
            // SUBSCRIBE, UNSUBSCRIBE.
            (with(0x82, &[&[0, 1], &none]), PROTOCOL), // [MQTT-3.8.3-2]
            (with(0xa2, &[&[0, 1], &none]), PROTOCOL), // [MQTT-3.10.3-2]
            (with(0x82, &[&[0, 1], &none, &string("a")]), MALFORMED), // nanomq#2268
            (with(0x82, &[&[0, 1], &none, b"\0\x09a"]), MALFORMED), // mochi#501
            (with(0x82, &[&[0, 1], &none, &string(""), &[0]]), MALFORMED), // [MQTT-4.7.3-1]
            (with(0x82, &[&[0, 1], &none, &string("a\0"), &[0]]), MALFORMED), // mosquitto#693
            (with(0x82, &[&[0, 1], &none, &string(b"\xc3"), &[0]]), MALFORMED),
            (
                with(0x82, &[&[0, 1], &none, &string("a"), &[0], &string("b")]),
                MALFORMED,
            ),
            (with(0x82, &[&[0, 0], &none, &string("a"), &[0]]), PROTOCOL), // [MQTT-2.2.1-3]
            (with(0xa2, &[&[0, 1], &none, &string("")]), MALFORMED),
            (with(0xa2, &[&[0, 1], &none, b"\0\x09a"]), MALFORMED),
            (with(0xa2, &[&[0, 1], &none, &string("a\0")]), MALFORMED),
            (with(0xc0, &[&[0]]), MALFORMED),
        ];
        if version < 5 {
            packets.extend([
                (publish(4, 0, "", 0, &[], b""), 0),             // CVE-2021-34432
                (with(0x82, &[&[0, 1], &string("a"), &[3]]), 0), // [MQTT-3.8.3-4] of 3.1.1
                (with(0x82, &[&[0, 1], &string("a"), &[4]]), 0),
                (with(0x40, &[&[0, 1, 0]]), 0),
                (vec![0xe0, 1, 0], 0),
                (vec![0xf0, 0], 0),
            ]);
        } else {
            packets.extend(packets_of_5());
        }
        packets
    }

    fn packets_of_5() -> Vec<(Vec<u8>, u8)> {
        let publish = |props: &[u8]| publish(5, 0, "a", 0, props, b"x");
        let subscribe = |props: &[u8], options| subscribe(5, 1, props, &[("a", options)]);
        vec![
            // Properties of PUBLISH.
            (publish(b"\x01\x01\x01\x01"), PROTOCOL), // twice
            (publish(b"\x02\0\0\0\x01\x02\0\0\0\x01"), PROTOCOL),
            (publish(b"\x01\x02"), PROTOCOL),
            (publish(b"\x23\0\0"), 0x94), // section 3.3.2.3.4; nanomq#2336
            (publish(b"\x23\xff\xff"), 0x94),
            (publish(b"\x0b\x01"), PROTOCOL), // [MQTT-3.3.4-6]; mosquitto#3319
            (publish(b"\x08\0\x01#"), PROTOCOL), // [MQTT-3.3.2-14]
            (publish(b"\x11\0\0\0\x01"), MALFORMED), // section 2.2.2.2
            (publish(b"\x04\0"), MALFORMED),
            (publish(b"\x26\0\x01a"), MALFORMED),
            (publish(b"\x26\0\x01\0\0\0"), MALFORMED),
            (packet(0x30, b"\0\x01a\x05\x01\x01"), MALFORMED), // more properties than packet
            (packet(0x30, b"\0\x01a\xff\xff\xff\xff"), MALFORMED),
            (super::publish(5, 0, "", 0, &[], b""), PROTOCOL), // section 3.3.2.1
            (super::publish(5, 0, "", 0, b"\x23\0\x01", b""), PROTOCOL), // comqtt#166: an alias that stands for nothing
            // Options of SUBSCRIBE.
            (subscribe(&[], 0x03), PROTOCOL),
            (subscribe(&[], 0x30), PROTOCOL),
            (subscribe(&[], 0x40), MALFORMED), // [MQTT-3.8.3-5]; nanomq#2336
            (subscribe(&[], 0x80), MALFORMED),
            (subscribe(b"\x0b\0", 0), PROTOCOL), // mosquitto#3319
            (subscribe(b"\x0b\x01\x0b\x02", 0), PROTOCOL),
            (subscribe(b"\x0b\xff\xff\xff\xff\x01", 0), MALFORMED),
            (subscribe(b"\x23\0\x01", 0), MALFORMED),
            // [MQTT-3.8.3-4]; emqx#11074
            (super::subscribe(5, 1, &[], &[("$share/g/a", 4)]), PROTOCOL),
            // Reason codes.
            (packet(0x40, &[0, 1, 0x01]), MALFORMED),
            (packet(0x50, &[0, 1, 0x93]), MALFORMED), // emqx#6447
            (packet(0x62, &[0, 1, 0x80]), MALFORMED),
            (packet(0xe0, &[0xff]), MALFORMED), // mosquitto#3743, nanomq#2442, vernemq#2553
            (packet(0xe0, &[0x01]), MALFORMED),
            (packet(0xe0, &[0x8b]), PROTOCOL),
            (packet(0xe0, b"\0\x04\x1c\0\x01s"), PROTOCOL),
            (packet(0xe0, b"\0\0\0"), MALFORMED),
            // [MQTT-4.12.0-6], AUTH without an authentication method in CONNECT.
            (packet(0xf0, b"\x18\x04\x15\0\x01m"), PROTOCOL),
            (packet(0xf0, b""), PROTOCOL),
            (packet(0xf2, b"\x18\x04\x15\0\x01m"), MALFORMED),
        ]
    }

    #[test]
    fn each_ends_its_connection_with_its_code_and_no_other() {
        let server = server();
        let mut neighbour = server.connect(5, "neighbour");
        neighbour.subscribe("still", 1);
        for version in [4, 5] {
            for (bytes, code) in packets(version) {
                ends(&server, Over::Tcp, version, &bytes, code);
            }
        }
        neighbour.send(&publish(5, 0x02, "still", 7, &[], b"served"));
        let came = [neighbour.packet(), neighbour.packet()];
        assert!(came.iter().any(|packet| packet[0] == 0x40), "{came:x?}");
        assert!(came.iter().any(|packet| packet.ends_with(b"served")), "{came:x?}");
    }

    #[test]
    fn they_do_so_over_tls_and_in_websockets_too() {
        let server = server();
        for over in [Over::Tls, Over::WebSocket] {
            for version in [4, 5] {
                for (bytes, code) in packets(version).into_iter().step_by(5) {
                    ends(&server, over, version, &bytes, code);
                }
            }
        }
    }

    /// A faulty packet is refused wherever it is cut, and packets before it in the same write are handled.
    #[test]
    fn a_wrong_packet_behind_good_ones_in_one_write() {
        let server = server();
        let mut listener = server.connect(4, "listener");
        listener.subscribe("a", 0);
        for over in EVERYTHING {
            let mut client = server.connect_over(over, 5, "writer");
            let message = publish(5, 0, "a", 0, &[], b"good");
            client.send(&[&message[..], &[0x00, 0], &message].concat());
            client.expect_end(MALFORMED);
            assert_eq!(listener.message().payload, b"good");
            listener.ping();
        }
    }
}

mod receive_maximum {
    use super::*;

    /// [MQTT-3.3.4-9], section 3.3.4; mosquitto#3588, and mosquitto#3674: acknowledgements of nothing raised the quota.
    #[test]
    fn a_client_that_exceeds_the_servers_is_closed_with_its_code() {
        let server = MqttServer::start(|config| config.mqtt.receive_max = 3);
        let mut client = server.connect(5, "a");
        for id in 1..=3 {
            client.send(&publish(5, 0x04, "a", id, &[], b""));
            assert_eq!(client.packet()[..4], ack(0x50, id));
        }
        client.send(&ack(0x70, 9));
        client.send(&ack(0x40, 9));
        client.send(&publish(5, 0x04, "a", 4, &[], b""));
        client.expect_end(0x93);
    }

    /// FlashMQ#173: a new connection starts with the whole quota. The session keeps received publications, and does not
    /// count them twice.
    #[test]
    fn what_is_released_makes_room_and_a_new_connection_has_all_of_it() {
        let server = MqttServer::start(|config| config.mqtt.receive_max = 2);
        let mut client = server.connect(5, "a");
        for id in 1..=20 {
            client.send(&publish(5, 0x04, "a", id, &[], b""));
            assert_eq!(client.packet()[..4], ack(0x50, id));
            client.send(&ack(0x62, id));
            client.expect(&ack(0x70, id));
        }
        for id in [1, 2] {
            client.send(&publish(5, 0x04, "a", id, &[], b""));
            client.packet();
        }
        let mut client = server.connect(5, "a");
        for id in [3, 4] {
            client.send(&publish(5, 0x04, "a", id, &[], b""));
            assert_eq!(client.packet()[..4], ack(0x50, id));
        }
        client.ping();
    }

    /// [MQTT-3.3.4-7]; mosquitto#1332: a quota of 1 was spent on CONNACK.
    #[test]
    fn the_server_keeps_within_the_clients() {
        let server = server();
        for (maximum, id) in [(1u16, "one"), (2, "two")] {
            let props = [&[0x21][..], &maximum.to_be_bytes()].concat();
            let mut client = server.connect_with(Over::Tcp, 5, &connect_with(5, 2, 0, &props, &string(id)));
            client.subscribe("quota", 2);
            let mut publisher = server.connect(4, "publisher");
            for number in 1..=5u8 {
                publisher.send(&publish(4, 0x02, "quota", u16::from(number), &[], &[number]));
                publisher.expect(&ack(0x40, u16::from(number)));
            }
            let mut waiting = Vec::new();
            for number in 1..=5u8 {
                let message = client.message();
                assert_eq!((message.qos, message.payload), (1, vec![number]));
                waiting.push(message.id);
                if waiting.len() == usize::from(maximum) {
                    // No more comes, though more are there.
                    client.ping();
                    client.send(&ack(0x40, waiting.remove(0)));
                }
            }
            publisher.send(&packet(0xe0, &[]));
        }
    }

    /// FlashMQ#159: 65,535 read as a signed number lifted the limit, or stopped all.
    #[test]
    fn the_greatest_receive_maximum_is_one() {
        let server = server();
        let props = b"\x21\xff\xff";
        let mut client = server.connect_with(Over::Tcp, 5, &connect_with(5, 2, 0, props, &string("a")));
        client.subscribe("t", 1);
        for id in 1..=50 {
            client.send(&publish(5, 0x02, "t", id, &[], b"x"));
        }
        let mut kinds = [0; 16];
        for _ in 0..100 {
            kinds[usize::from(client.packet()[0] >> 4)] += 1;
        }
        assert_eq!((kinds[3], kinds[4]), (50, 50));
    }
}

mod topic_aliases {
    use super::*;

    fn aliased(topic: &str, alias: u16, payload: &[u8]) -> Vec<u8> {
        publish(
            5,
            0,
            topic,
            0,
            &[&[0x23][..], &alias.to_be_bytes()].concat(),
            payload,
        )
    }

    /// hivemq-mqtt-client#631, KMQTT#62: the alias of the publisher reached subscribers, whose maximum is 0.
    #[test]
    fn an_alias_stands_for_its_topic_and_does_not_reach_subscribers() {
        let server = server();
        let mut listener = server.connect(5, "listener");
        listener.subscribe("#", 0);
        let mut client = server.connect(5, "publisher");
        for (topic, alias) in [
            ("a", 1),
            ("", 1),
            ("b", 2),
            ("", 1),
            ("", 2),
            ("c", 1),
            ("", 1),
            ("d", 0),
        ] {
            client.send(&match alias {
                0 => publish(5, 0, topic, 0, &[], b"x"),
                alias => aliased(topic, alias, b"x"),
            });
        }
        for topic in ["a", "a", "b", "a", "b", "c", "c", "d"] {
            let message = listener.message();
            assert_eq!(
                (message.topic.as_str(), &message.properties[..]),
                (topic, &[][..])
            );
        }
    }

    /// [MQTT-3.3.2-7]; mosquitto#2494.
    #[test]
    fn aliases_end_with_their_connection() {
        let server = server();
        let mut client = server.connect(5, "publisher");
        client.send(&aliased("a", 1, b"x"));
        client.ping();
        let mut client = server.connect(5, "publisher");
        client.send(&aliased("", 1, b"x"));
        client.expect_end(PROTOCOL);
    }

    /// [MQTT-3.2.2-17], [MQTT-3.2.2-18]
    #[test]
    fn an_alias_above_the_maximum_of_connack_ends_the_connection() {
        for maximum in [0, 1, 7] {
            let server = MqttServer::start(|config| config.mqtt.topic_aliases_max = maximum);
            let mut client = server.connect(5, "a");
            if maximum > 0 {
                client.send(&aliased("t", maximum, b""));
                client.ping();
            }
            client.send(&aliased("t", maximum + 1, b""));
            client.expect_end(0x94);
        }
    }
}

mod packet_size {
    use super::*;

    /// Section 3.1.2.11.4, [MQTT-3.1.2-24], [MQTT-3.1.2-25]; mosquitto#3503: the limit includes the fixed header, and a
    /// message that is too large counts as sent. rmqtt#513: it does not block later messages. mosquitto#1168.
    #[test]
    fn messages_larger_than_the_client_takes_are_left_out() {
        let server = server();
        let props = [0x27, 0, 0, 0, 60];
        for options in [0, 1, 2] {
            let connect = connect_with(5, 2, 0, &props, &string("small"));
            let mut client = server.connect_with(Over::Tcp, 5, &connect);
            client.subscribe("t", options);
            let mut publisher = server.connect(5, "publisher");
            // Fixed header 2, topic 3, identifier 2 if there is one, length of properties 1.
            let head = if options == 0 { 6 } else { 8 };
            for (id, payload) in [(1u16, 60 - head), (2, 61 - head), (3, 5_000), (4, 1)] {
                publisher.send(&publish(5, options << 1, "t", id, &[], &vec![b'x'; payload]));
            }
            publisher.ping_behind(options);
            for payload in [60 - head, 1] {
                let message = client.message();
                assert_eq!((message.qos, message.payload.len()), (options, payload));
            }
            client.ping();
        }
    }

    /// LabOverWire/mqtt-lib#129: words in an acknowledgement made it larger than the client takes [MQTT-3.4.2-2].
    #[test]
    fn acknowledgements_are_no_larger_than_the_client_takes() {
        let server = server();
        let connect = connect_with(5, 2, 0, &[0x27, 0, 0, 0, 20], &string("small"));
        let mut client = server.connect_with(Over::Tcp, 5, &connect);
        client.send(&publish(5, 0x02, "t", 1, &[1, 1], b"\xff"));
        client.expect(&[0x40, 3, 0, 1, 0x99]);
        client.send(&subscribe(5, 2, &[], &[("a#", 0)]));
        client.expect(&[0x90, 4, 0, 2, 0, 0x8f]);
        client.send(&[0, 0]);
        client.expect(&[0xe0, 1, 0x81]);
    }

    /// [MQTT-3.2.2-15]; mosquitto#3515.
    #[test]
    fn packets_larger_than_the_server_takes_end_the_connection() {
        let server = MqttServer::start(|config| config.limits.message_bytes_max = 200);
        let mut client = server.open(Over::Tcp, 5);
        client.send(&connect(5, "a"));
        let answer = client.packet();
        let at = answer
            .windows(5)
            .position(|window| window == [0x27, 0, 0, 0, 200]);
        assert!(at.is_some(), "CONNACK says Maximum Packet Size: {answer:x?}");
        // Fixed header 3, topic 3, length of properties 1.
        client.send(&publish(5, 0, "t", 0, &[], &[b'x'; 193]));
        client.ping();
        client.send(&publish(5, 0, "t", 0, &[], &[b'x'; 194]));
        client.expect_end(0x95);
    }

    impl Mqtt {
        /// Waits until all publications with this QoS have been acknowledged.
        fn ping_behind(&mut self, qos: u8) {
            let (mut answers, wanted) = (0, [1, 4, 8][usize::from(qos)]);
            if qos == 0 {
                self.send(PINGREQ);
            }
            while answers < wanted {
                let answer = self.packet();
                answers += 1;
                if answer[0] == 0x50 {
                    self.send(&ack(0x62, u16::from_be_bytes([answer[2], answer[3]])));
                }
            }
        }
    }
}

mod wills {
    use super::*;

    /// [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.14.4-3]: only DISCONNECT with success takes the will away. rmqtt#514,
    /// vernemq#1291: 0x04. mosquitto#3743, nanomq#2442, vernemq#2553: a reserved code. fluxmq#635: a protocol error.
    #[test]
    fn every_end_but_an_orderly_one_publishes_the_will() {
        let server = server();
        let mut listener = server.connect(4, "listener");
        listener.subscribe("w/#", 0);
        let ends: [(&str, u8, Option<Vec<u8>>); 9] = [
            ("orderly", 4, Some(packet(0xe0, &[]))),
            ("orderly", 5, Some(packet(0xe0, &[]))),
            ("orderly", 5, Some(packet(0xe0, &[0]))),
            ("with the will", 5, Some(packet(0xe0, &[4]))),
            ("an error", 5, Some(packet(0xe0, &[0x80]))),
            ("a reserved code", 5, Some(packet(0xe0, &[0xff]))),
            ("malformed", 4, Some(vec![0, 0])),
            ("a second CONNECT", 5, Some(connect(5, "mortal"))),
            ("lost", 4, None),
        ];
        for (number, (what, version, end)) in ends.iter().enumerate() {
            let none = properties(*version, &[]);
            let topic = string(format!("w/{number}"));
            let payload = [&string("mortal")[..], &none, &topic, &string(*what)].concat();
            let connect = connect_with(*version, 0x06, 0, &[], &payload);
            let mut client = server.connect_with(Over::Tcp, *version, &connect);
            match end {
                Some(end) => {
                    client.send(end);
                    while client.next().is_some() {}
                }
                None => client.client.reset(),
            }
            if *what != "orderly" {
                let message = listener.message();
                assert_eq!(message.topic, format!("w/{number}"), "{what}");
                assert_eq!(message.payload, what.as_bytes());
            }
        }
        listener.ping();
    }

    /// mosquitto#1244; section 3.1.3.2: the properties of the will are passed on with its message.
    #[test]
    fn the_properties_of_a_will_are_passed_on() {
        let server = server();
        let mut listener = server.connect(5, "listener");
        listener.subscribe("w", 2);
        let user = [vec![0x26], string("n"), string("v")].concat();
        let will = [&[0x03][..], &string("t"), &user, &[0x01, 1]].concat();
        let payload = [string("mortal"), properties(5, &will), string("w"), string("bye")].concat();
        let mut client = server.connect_with(Over::Tcp, 5, &connect_with(5, 0x16, 0, &[], &payload));
        client.send(&packet(0xe0, &[4]));
        let message = listener.message();
        assert_eq!((message.qos, &message.payload[..]), (2, &b"bye"[..]));
        for part in [&b"\x03\0\x01t"[..], &user, &[1, 1]] {
            assert!(
                message
                    .properties
                    .windows(part.len())
                    .any(|window| window == part),
                "{message:x?}"
            );
        }
    }
}

mod retained {
    use super::*;

    /// async_mqtt#442: a wildcard in the middle leads to several branches. nats-server#4919: `#` finds all. emqx#1784: a
    /// shared subscription gets nothing that was retained before.
    #[test]
    fn wildcards_find_all_branches_and_shared_subscriptions_nothing() {
        let server = server();
        let mut publisher = server.connect(5, "publisher");
        let topics = ["a/1/b", "a/2/b/c", "a/2/d", "a/b"];
        for (topic, id) in topics.into_iter().zip(1..) {
            publisher.send(&publish(5, 0x03, topic, id, &[], b"x"));
            assert_eq!(publisher.packet()[..4], ack(0x40, id));
        }
        let mut client = server.connect(5, "client");
        for filter in ["$share/g/a/+/b/#", "$share/g/#", "$share/g/a/b"] {
            client.subscribe(filter, 0);
            client.ping();
        }
        for (filter, found) in [("a/+/b/#", &topics[..2]), ("#", &topics[..])] {
            client.subscribe(filter, 0);
            let mut came: Vec<String> = found
                .iter()
                .map(|_| {
                    let message = client.message();
                    assert!(message.retain, "{message:x?}");
                    message.topic
                })
                .collect();
            came.sort();
            assert_eq!(came, found, "{filter}");
            client.ping();
        }
    }

    /// vernemq#2551: Retain As Published holds for what has waited while the client was away. rumqtt#1069: a client that
    /// comes back to its session and subscribes again with Retain Handling 0 is sent what is retained, again.
    #[test]
    fn what_waits_keeps_its_retain_flag_for_whom_asks() {
        let server = server();
        let connect = connect_with(5, 0, 0, &[0x11, 0, 0, 1, 0], &string("away"));
        let mut client = server.connect_with(Over::Tcp, 5, &connect);
        client.subscribe("kept", 0x09);
        client.subscribe("cleared", 0x01);
        client.send(&packet(0xe0, &[]));
        assert_eq!(client.next(), None);
        let mut publisher = server.connect(5, "publisher");
        for (topic, id) in [("kept", 1), ("cleared", 2)] {
            publisher.send(&publish(5, 0x03, topic, id, &[], b"x"));
            assert_eq!(publisher.packet()[..4], ack(0x40, id));
        }
        let mut client = server.connect_with(Over::Tcp, 5, &connect);
        for expected in [("kept", true), ("cleared", false)] {
            let message = client.message();
            assert_eq!((message.topic.as_str(), message.retain), expected);
            client.send(&ack(0x40, message.id));
        }
        client.ping();
        client.subscribe("cleared", 0x01);
        let message = client.message();
        assert_eq!((message.topic.as_str(), message.retain), ("cleared", true));
    }
}

mod publishing {
    use super::*;

    /// mosquitto#3599, mosquitto#3602, FlashMQ#171, MQTTnet#1540, wolfMQTT#506: a QoS 2 message that comes again before
    /// PUBREL is acknowledged again, with success, and not delivered again [MQTT-4.3.3-10].
    #[test]
    fn a_qos_2_message_is_delivered_once_however_often_it_comes() {
        let server = server();
        for version in [4, 5] {
            let mut listener = server.connect(4, "listener");
            listener.subscribe("t", 0);
            let mut client = server.connect(version, "publisher");
            for flags in [0x04, 0x0c, 0x0c, 0x04] {
                client.send(&publish(version, flags, "t", 7, &[], b"once"));
                let answer = client.packet();
                assert_eq!((answer[0], &answer[2..4]), (0x50, &[0, 7][..]));
                assert!(answer.get(4).is_none_or(|code| *code < 0x80), "{answer:x?}");
            }
            client.send(&ack(0x62, 7));
            client.expect(&ack(0x70, 7));
            // The identifier is free: a new message.
            client.send(&publish(version, 0x04, "t", 7, &[], b"twice"));
            client.packet();
            client.send(&ack(0x62, 7));
            client.packet();
            assert_eq!(listener.message().payload, b"once");
            assert_eq!(listener.message().payload, b"twice");
            listener.ping();
        }
    }

    /// [MQTT-3.3.1-3], [MQTT-3.8.4-8]: the DUP flag of a publisher is not passed on, and the QoS is the lower one.
    #[test]
    fn a_delivery_has_its_own_dup_flag_and_the_lower_qos() {
        let server = server();
        let mut listeners: Vec<Mqtt> = (0..=2u8)
            .map(|qos| {
                let mut listener = server.connect(4, &format!("listener-{qos}"));
                listener.subscribe("t", qos);
                listener
            })
            .collect();
        let mut client = server.connect(4, "publisher");
        for published in 0..=2 {
            let dup = if published == 0 { 0 } else { 0x08 };
            client.send(&publish(4, published << 1 | dup, "t", 7, &[], b"x"));
            for (qos, listener) in listeners.iter_mut().enumerate() {
                let message = listener.message();
                assert_eq!(
                    (message.dup, usize::from(message.qos)),
                    (false, qos.min(published.into()))
                );
            }
        }
    }

    /// [MQTT-1.5.4-3]: U+FEFF is a character. So are control characters and characters outside the basic plane.
    #[test]
    fn topics_keep_all_their_characters() {
        let server = server();
        let mut listener = server.connect(5, "listener");
        listener.subscribe("t/#", 0);
        let mut client = server.connect(4, "publisher");
        for topic in ["t/\u{feff}a", "t/\u{1}\u{7f}\u{9f}", "t/😀/ ", "t/$x", "t//"] {
            client.send(&publish(4, 0, topic, 0, &[], b""));
            assert_eq!(listener.message().topic, topic);
        }
    }

    /// Identifiers of the two directions are two spaces; mochi#545.
    #[test]
    fn the_same_identifier_in_both_directions_is_two() {
        let server = server();
        let mut client = server.connect(4, "a");
        client.subscribe("t", 2);
        client.send(&publish(4, 0x04, "t", 1, &[], b"x"));
        let mut id = 0;
        for _ in 0..2 {
            let packet = client.packet();
            match packet[0] {
                0x50 => assert_eq!(packet, ack(0x50, 1)),
                0x34 => id = u16::from_be_bytes([body(&packet)[3], body(&packet)[4]]),
                other => panic!("{other:x}"),
            }
        }
        client.send(&ack(0x50, id));
        client.expect(&ack(0x62, id));
        client.send(&ack(0x62, 1));
        client.expect(&ack(0x70, 1));
        client.send(&ack(0x70, id));
        client.ping();
    }

    /// Sections 3.6.2.1 and 3.7.2.1.
    #[test]
    fn acknowledgements_of_nothing_are_answered_and_harm_nothing() {
        let server = server();
        for version in [4, 5] {
            let mut client = server.connect(version, "a");
            client.send(&ack(0x40, 77));
            client.send(&ack(0x70, 77));
            client.send(&ack(0x62, 77));
            let answer = client.packet();
            let code = if version == 5 { &[0x92][..] } else { &[] };
            assert_eq!((answer[0], &body(&answer)[..2]), (0x70, &[0, 77][..]));
            assert!(body(&answer)[2..].starts_with(code), "{answer:x?}");
            client.send(&ack(0x50, 77));
            let answer = client.packet();
            assert_eq!((answer[0], &body(&answer)[..2]), (0x62, &[0, 77][..]));
            assert!(body(&answer)[2..].starts_with(code), "{answer:x?}");
            client.ping();
        }
    }

    /// [MQTT-3.3.2-15] to [MQTT-3.3.2-20]: the properties of the message are passed on unchanged and in order.
    #[test]
    fn properties_of_the_message_are_passed_on_in_order() {
        let server = server();
        let mut five = server.connect(5, "five");
        five.subscribe("t", 0);
        let mut four = server.connect(4, "four");
        four.subscribe("t", 0);
        let user = |name: &str, value: &str| [vec![0x26], string(name), string(value)].concat();
        let first = [user("b", "1"), user("a", "2"), user("b", "3"), user("", "")].concat();
        let rest = [
            [vec![0x03], string("text/plain")].concat(),
            [vec![0x08], string("answers/here")].concat(),
            [vec![0x09], string(b"\0\xff")].concat(),
        ]
        .concat();
        let mut publisher = server.connect(5, "publisher");
        publisher.send(&publish(
            5,
            0,
            "t",
            0,
            &[first, rest, vec![0x01, 1]].concat(),
            b"hi",
        ));
        let message = five.message();
        assert_eq!(message.payload, b"hi");
        for part in [
            &b"\x03\0\x0atext/plain"[..],
            b"\x08\0\x0canswers/here",
            b"\x09\0\x02\0\xff",
            b"\x01\x01",
            b"\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x26\0\x01b\0\x013\x26\0\0\0\0",
        ] {
            let found = message
                .properties
                .windows(part.len())
                .any(|window| window == part);
            assert!(found, "{part:x?} in {:x?}", message.properties);
        }
        assert_eq!(four.message().payload, b"hi");
    }

    /// Section 3.3.2.3.2: 0x99.
    #[test]
    fn a_payload_that_is_marked_as_utf8_and_is_not_is_refused() {
        let server = server();
        let mut client = server.connect(5, "a");
        client.send(&publish(5, 0x02, "t", 1, &[1, 1], b"\xff"));
        let answer = client.packet();
        assert_eq!((answer[0], body(&answer)[2]), (0x40, 0x99), "{answer:x?}");
        client.send(&publish(5, 0x02, "t", 2, &[1, 0], b"\xff"));
        let answer = client.packet();
        assert!(
            body(&answer).get(2).is_none_or(|code| *code < 0x80),
            "{answer:x?}"
        );
        client.send(&publish(5, 0x02, "t", 3, &[1, 1], "ä".as_bytes()));
        client.packet();
        client.ping();
    }

    /// [MQTT-3.3.2-5], [MQTT-3.3.2-6]: an interval of zero seconds has passed at once, a long one is passed on.
    #[test]
    fn the_expiry_of_a_message_is_passed_on() {
        let server = server();
        let mut listener = server.connect(5, "listener");
        listener.subscribe("t", 0);
        let mut client = server.connect(5, "publisher");
        client.send(&publish(5, 0, "t", 0, b"\x02\0\0\x03\xe8", b"x"));
        let message = listener.message();
        let [0x02, bytes @ ..] = &message.properties[..] else {
            panic!("{message:x?}")
        };
        let seconds = u32::from_be_bytes(bytes.try_into().unwrap());
        assert!((990..=1000).contains(&seconds), "{seconds}");
    }

    /// mochi#251, [MQTT-3.3.1-9] of 3.1.1, [MQTT-3.3.1-12], [MQTT-3.3.1-13]: RETAIN is 0 for live messages, but for
    /// those that ask for it as published.
    #[test]
    fn the_retain_flag_of_live_messages() {
        let server = server();
        let mut four = server.connect(4, "four");
        four.subscribe("t", 0);
        let mut plain = server.connect(5, "plain");
        plain.subscribe("t", 0);
        let mut kept = server.connect(5, "as-published");
        kept.subscribe("t", 0x08);
        let mut publisher = server.connect(4, "publisher");
        for flags in [1, 0] {
            publisher.send(&publish(4, flags, "t", 0, &[], b"x"));
            assert!(!four.message().retain);
            assert!(!plain.message().retain);
            assert_eq!(kept.message().retain, flags == 1);
        }
        publisher.send(&publish(4, 1, "t", 0, &[], b""));
    }

    /// Request Problem Information 0 [MQTT-3.1.2-29]; mosquitto#3604.
    #[test]
    fn acknowledgements_say_no_words_to_a_client_that_wants_none() {
        let server = server();
        let connect = connect_with(5, 2, 0, &[0x17, 0], &string("a"));
        let mut client = server.connect_with(Over::Tcp, 5, &connect);
        client.send(&publish(5, 0x02, "t", 1, &[1, 1], b"\xff"));
        client.expect(&[0x40, 3, 0, 1, 0x99]);
        client.send(&subscribe(5, 2, &[], &[("a#", 0)]));
        client.expect(&[0x90, 4, 0, 2, 0, 0x8f]);
        client.send(&ack(0x62, 9));
        client.expect(&[0x70, 3, 0, 9, 0x92]);
    }
}

mod subscribing {
    use super::*;

    /// rmqtt#492: a filter that is not legal has a code of its own, and does not keep the others from being granted.
    #[test]
    fn each_filter_has_its_own_code() {
        let server = server();
        let filters = [("a", 0), ("b/#", 1), ("c+", 0), ("+/d", 2), ("e/#/f", 0)];
        // Before MQTT 5 a filter that is not well-formed ends the connection (section 4.8 of 3.1.1).
        let mut client = server.connect(4, "four");
        client.send(&subscribe(4, 9, &[], &filters));
        client.expect_end(0);
        let mut client = server.connect(5, "five");
        client.send(&subscribe(5, 9, &[], &filters));
        let answer = client.packet();
        assert!(answer.ends_with(&[0, 1, 0x8f, 2, 0x8f]), "{answer:x?}");
        client.send(&unsubscribe(5, 10, &["a", "never", "b/#"]));
        client.expect(&[0xb0, 6, 0, 10, 0, 0, 0x11, 0]);
        let mut client = server.connect(4, "four");
        client.send(&unsubscribe(4, 10, &["a", "never"]));
        client.expect(&ack(0xb0, 10));
    }

    /// Section 4.7.2; hivemq-ce#749, aedes#135, aedes#221, vernemq#14, hbmqtt#28.
    #[test]
    fn filters_that_begin_with_a_wildcard_do_not_match_names_that_begin_with_a_dollar_sign() {
        let server = server();
        let mut client = server.connect(4, "a");
        for filter in ["#", "+/x", "+/#", "+"] {
            client.subscribe(filter, 0);
        }
        let mut exact = server.connect(4, "exact");
        exact.subscribe("$own/x", 0);
        exact.subscribe("$own/#", 0);
        let mut publisher = server.connect(4, "publisher");
        publisher.send(&publish(4, 0, "$own/x", 0, &[], b"hidden"));
        publisher.send(&publish(4, 0, "own/x", 0, &[], b"seen"));
        assert_eq!(client.message().payload, b"seen");
        assert_eq!(exact.message().payload, b"hidden");
    }

    /// paho.mqtt.testing#56, aedes#1090, mosquitto#3319, home-assistant/core#169604, [MQTT-3.3.4-2], [MQTT-3.3.4-3]:
    /// filters that overlap give one copy with the highest QoS and the identifiers of all of them, and of no other
    /// client.
    #[test]
    fn overlapping_filters_give_one_message_with_all_identifiers() {
        let server = server();
        let mut other = server.connect(5, "other");
        other.send(&subscribe(5, 1, &[0x0b, 99], &[("a/#", 0)]));
        other.packet();
        let mut client = server.connect(5, "a");
        for (id, filter, options) in [(1, "a/b", 0), (2, "a/+", 2), (3, "#", 1)] {
            client.send(&subscribe(5, 1, &[0x0b, id], &[(filter, options)]));
            client.packet();
        }
        client.subscribe("a/b/#", 0); // without an identifier
        let mut publisher = server.connect(4, "publisher");
        publisher.send(&publish(4, 0x04, "a/b", 5, &[], b"x"));
        let message = client.message();
        assert_eq!(message.qos, 2);
        let mut ids: Vec<u8> = message.properties.chunks(2).map(|pair| pair[1]).collect();
        assert!(
            message.properties.chunks(2).all(|pair| pair[0] == 0x0b),
            "{message:x?}"
        );
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
        client.ping();
        assert_eq!(other.message().properties, [0x0b, 99]);
    }

    /// [MQTT-3.8.3-3]
    #[test]
    fn no_local_keeps_a_clients_own_messages_from_it() {
        let server = server();
        let mut client = server.connect(5, "a");
        client.subscribe("t", 0x04);
        let mut other = server.connect(5, "b");
        client.send(&publish(5, 0, "t", 0, &[], b"own"));
        client.ping();
        other.send(&publish(5, 0, "t", 0, &[], b"other"));
        assert_eq!(client.message().payload, b"other");
    }

    /// [MQTT-3.8.4-3]: a second subscription to a filter takes the place of the first.
    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_first() {
        let server = server();
        let mut client = server.connect(5, "a");
        client.subscribe("t", 2);
        client.subscribe("t", 0);
        client.send(&publish(5, 0x02, "t", 1, &[], b"x"));
        let mut came = [client.packet(), client.packet()];
        came.sort();
        assert_eq!((came[0][0], came[1][0]), (0x30, 0x40));
        client.ping();
        client.send(&unsubscribe(5, 2, &["t"]));
        client.packet();
        client.send(&publish(5, 0, "t", 0, &[], b"x"));
        client.ping();
    }

    #[test]
    fn levels_may_be_empty_and_names_are_compared_byte_by_byte() {
        let server = server();
        let mut client = server.connect(4, "a");
        for filter in ["/", "+/+/x", "/a", "Ä"] {
            client.subscribe(filter, 0);
        }
        let mut publisher = server.connect(4, "publisher");
        for topic in ["/", "//x", "a//x", "/a", "Ä", "ä", "a", "/A", "a/", "///x"] {
            publisher.send(&publish(4, 0, topic, 0, &[], topic.as_bytes()));
        }
        for topic in ["/", "//x", "a//x", "/a", "Ä"] {
            assert_eq!(client.message().topic, topic);
        }
        publisher.ping();
        client.ping();
    }
}

mod keep_alive {
    use super::*;

    /// [MQTT-3.1.2-22]; vernemq#275: one and a half times the keep alive, at the earliest. MQTTnet#1883: a part of a
    /// packet is no packet.
    #[test]
    fn a_silent_client_ends_after_one_and_a_half_times_its_keep_alive() {
        let server = server();
        for (version, parts) in [(4, 0), (5, 0), (5, 12)] {
            let connect = connect_with(version, 2, 1, &[], &string("a"));
            let begin = support::now();
            let mut client = server.connect_with(Over::Tcp, version, &connect);
            if parts > 0 {
                client.send(&publish(5, 0, "t", 0, &[], &[0; 200])[..20]);
            }
            client.expect_end(0x8d);
            assert!(
                begin.elapsed() >= Duration::from_millis(1499),
                "{:?}",
                begin.elapsed()
            );
        }
    }
    /// Section 3.2.2.3.14; mqtt-lib#80, emqx#12233: a server that imposes a keep alive says so, and goes by it.
    #[test]
    fn a_keep_alive_that_the_server_imposes_is_announced_and_used() {
        let server = MqttServer::start(|config| config.mqtt.keep_alive_max_seconds = 1);
        for asked in [0, 600] {
            let connect = connect_with(5, 2, asked, &[], &string("a"));
            let begin = support::now();
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect);
            let answer = client.packet();
            let is_announced = answer.windows(3).any(|window| window == [0x13, 0, 1]);
            assert!(is_announced, "{answer:x?}");
            client.expect_end(0x8d);
            assert!(
                begin.elapsed() >= Duration::from_millis(1499),
                "{:?}",
                begin.elapsed()
            );
        }
    }
}

/// Clients that cost as much as they can, beside two that stay served.
mod hostile {
    use super::*;

    /// A pair of clients that must be served, whatever others do.
    struct Healthy {
        from: Mqtt,
        to: Mqtt,
        sent: u32,
    }

    impl Healthy {
        fn new(server: &MqttServer) -> Healthy {
            let mut to = server.connect(5, "healthy-to");
            to.subscribe("healthy", 1);
            Healthy {
                from: server.connect(4, "healthy-from"),
                to,
                sent: 0,
            }
        }

        #[track_caller]
        fn is_served(&mut self) {
            self.sent += 1;
            self.from
                .send(&publish(4, 0x02, "healthy", 1, &[], &self.sent.to_be_bytes()));
            self.from.expect(&ack(0x40, 1));
            let message = self.to.message();
            assert_eq!(message.payload, self.sent.to_be_bytes());
            self.to.send(&ack(0x40, message.id));
        }
    }

    #[test]
    fn half_packets_and_single_bytes() {
        let server = server();
        let mut healthy = Healthy::new(&server);
        let mut others = Vec::new();
        for number in 0..100 {
            let over = EVERYTHING[number % 3];
            let mut client = server.open(over, 4);
            let connect = connect(4, &format!("slow-{number}"));
            if number % 2 == 0 {
                for byte in &connect {
                    client.send(&[*byte]);
                }
                assert_eq!(client.packet()[0], 0x20);
                client.send(&publish(4, 0, "t", 0, &[], &[b'x'; 1000])[..500]);
            } else {
                client.send(&connect[..number % connect.len()]);
            }
            others.push(client);
            healthy.is_served();
        }
    }

    #[test]
    fn floods_of_subscriptions() {
        let server = MqttServer::start(|config| config.limits.channels_per_connection_max = 1_000);
        let mut healthy = Healthy::new(&server);
        let mut client = server.connect(5, "flood");
        let mut refused = 0;
        for round in 0..20 {
            let mut bytes = Vec::new();
            for number in 0..200 {
                let filter = format!("flood/{round}/+/{number}/#");
                bytes.extend(subscribe(5, 1, &[], &[(&filter, 0)]));
            }
            client.send(&bytes);
            for _ in 0..200 {
                let answer = client.packet();
                assert_eq!(answer[0], 0x90);
                refused += usize::from(answer.ends_with(&[0x97]));
            }
            healthy.is_served();
        }
        assert!(refused > 0, "the number of filters has a limit");
    }

    /// CVE-2021-41039: very many user properties cost quadratic time.
    #[test]
    fn endless_user_properties() {
        let server = server();
        let mut healthy = Healthy::new(&server);
        let user = b"\x26\0\x01n\0\x01v".repeat(9_000);
        for _ in 0..10 {
            let mut client = server.open(Over::Tcp, 5);
            client.send(&connect_with(5, 2, 0, &user, &string("many")));
            while client.next().is_some_and(|packet| packet[0] != 0x20) {}
            healthy.is_served();
        }
        let mut client = server.connect(5, "many");
        client.subscribe("many", 0);
        for _ in 0..10 {
            if client.try_send(&publish(5, 0, "many", 0, &user, b"x")) {
                healthy.is_served();
            }
        }
    }

    #[test]
    fn as_many_topic_aliases_as_there_are() {
        let server = MqttServer::start(|config| config.mqtt.topic_aliases_max = u16::MAX);
        let mut healthy = Healthy::new(&server);
        let mut client = server.connect(5, "aliases");
        for start in (1..=u16::MAX).step_by(4096) {
            let mut bytes = Vec::new();
            for alias in start..=start.saturating_add(4095) {
                let topic = format!("some/topic/{alias}");
                bytes.extend(publish(
                    5,
                    0,
                    &topic,
                    0,
                    &[&[0x23][..], &alias.to_be_bytes()].concat(),
                    b"",
                ));
            }
            let _ = client.try_send(&bytes);
            healthy.is_served();
        }
    }

    #[test]
    fn qos_2_that_is_never_completed() {
        let server = server();
        let mut healthy = Healthy::new(&server);
        let mut client = server.connect(5, "never");
        let mut end = None;
        for id in 1..=2_000 {
            if !client.try_send(&publish(5, 0x04, "t", id, &[], b"")) {
                break;
            }
            end = client.next();
            if end.as_ref().is_none_or(|packet| packet[0] != 0x50) {
                break;
            }
        }
        assert_eq!(
            end.map(|packet| (packet[0], body(&packet)[0])),
            Some((0xe0, 0x93))
        );
        healthy.is_served();
        // A client of 3.1.1 knows no maximum.
        let mut client = server.connect(4, "never");
        for start in (1..=u16::MAX).step_by(4096) {
            let bytes: Vec<u8> = (start..=start.saturating_add(4095))
                .flat_map(|id| publish(4, 0x04, "t", id, &[], b""))
                .collect();
            if !client.try_send(&bytes) {
                break;
            }
            for _ in start..=start.saturating_add(4095) {
                if client.next().is_none() {
                    break;
                }
            }
            healthy.is_served();
        }
    }
}
