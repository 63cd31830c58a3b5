//! CONNECT and CONNACK: sections 3.1 and 3.2.

use std::time::Duration;

use super::client::{Connect, NextStep, connect, core, packet, publish, sent, string};
use crate::decision::{CloseReason, Stored};

#[test]
fn each_version_gets_its_own_connack() {
    for (level, connack) in [
        (3, vec![0x20, 2, 0, 0]),
        (4, vec![0x20, 2, 0, 0]),
        // Receive Maximum 1024, Maximum Packet Size 64 MiB, Topic Alias Maximum 10.
        (
            5,
            vec![0x20, 14, 0, 0, 11, 0x21, 4, 0, 0x27, 4, 0, 0, 0, 0x22, 0, 10],
        ),
    ] {
        let mut core = core();
        let mut client = core.client();
        let did = core.receive(&mut client, &connect(level, "a").bytes());
        assert_eq!(sent(&did), [connack], "{level}");
        assert!(client.session.is_open());
    }
}

#[test]
fn a_first_packet_that_is_not_connect_ends_the_connection_without_an_answer() {
    for first in [vec![0xc0, 0], publish(0, "a", 0, None, b""), vec![0x20, 2, 0, 0]] {
        let mut core = core();
        let mut client = core.client();
        assert_eq!(
            core.receive(&mut client, &first),
            [NextStep::Close(CloseReason::NotMqtt)]
        );
        assert!(core.farewell(&client, CloseReason::NotMqtt, "").is_empty());
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for level in [4, 5] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        let did = core.receive(&mut client, &connect(level, "a").bytes());
        assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
    }
}

#[test]
fn a_version_that_is_not_supported_is_answered_with_return_code_1() {
    for (name, level) in [("MQTT", 2), ("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 2)] {
        let mut core = core();
        let mut client = core.client();
        let body = [&string(name)[..], &[level, 2, 0, 0], &string("a")].concat();
        let did = core.receive(&mut client, &packet(0x10, &[&body]));
        let expected = [
            NextStep::Send(vec![0x20, 2, 0, 1]),
            NextStep::Close(CloseReason::MqttRefused),
        ];
        assert_eq!(did, expected, "{name} {level}");
    }
}

/// MQTT-3.1.2-1: a client that names another protocol may not understand an answer of this one.
#[test]
fn another_protocol_is_not_answered() {
    for name in ["HTTP", "", "mqtt", "MQT", "MQTTT"] {
        let mut core = core();
        let mut client = core.client();
        let body = [&string(name)[..], &[4, 2, 0, 0], &string("a")].concat();
        let did = core.receive(&mut client, &packet(0x10, &[&body]));
        assert_eq!(did, [NextStep::Close(CloseReason::NotMqtt)], "{name}");
    }
}

/// MQTT 3.1 has no flag for a present session.
#[test]
fn a_client_of_3_1_is_not_told_of_its_session() {
    for (level, flag) in [(3, 0), (4, 1)] {
        let mut core = core();
        for flags in [0, flag] {
            let mut client = core.client();
            let mut packet = connect(level, "a");
            packet.clean = false;
            let did = core.receive(&mut client, &packet.bytes());
            assert_eq!(sent(&did), [[0x20, 2, flags, 0]]);
            core.end(&mut client, CloseReason::PeerVanished);
        }
    }
}

#[test]
fn a_version_of_the_future_is_answered_as_mqtt_5_has_it() {
    let mut core = core();
    let mut client = core.client();
    let body = [&string("MQTT")[..], &[6, 2, 0, 0, 0], &string("a")].concat();
    let did = core.receive(&mut client, &packet(0x10, &[&body]));
    assert!(
        matches!(&did[0], NextStep::Send(bytes) if bytes[2..4] == [0, 0x84]),
        "{did:?}"
    );
    assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));
}

#[test]
fn a_client_that_takes_no_connack_is_not_sent_one() {
    let mut core = core();
    let mut client = core.client();
    let mut packet = connect(5, "a");
    packet.properties = vec![0x27, 0, 0, 0, 2];
    let did = core.receive(&mut client, &packet.bytes());
    assert_eq!(did, [NextStep::Close(CloseReason::MqttRefused)]);
}

#[test]
fn a_malformed_connect_is_answered_in_mqtt_5_only() {
    for (level, answer) in [(4, None), (5, Some(0x81))] {
        let mut core = core();
        let mut client = core.client();
        let mut bytes = connect(level, "a").bytes();
        // The reserved flag (MQTT-3.1.2-3).
        bytes[9] |= 1;
        let did = core.receive(&mut client, &bytes);
        match answer {
            None => assert_eq!(did, [NextStep::Close(CloseReason::MalformedMqtt)]),
            Some(code) => {
                assert!(matches!(&did[0], NextStep::Send(bytes) if bytes[..4] == [0x20, bytes[1], 0, code]));
                assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));
            }
        }
    }
}

#[test]
fn an_empty_client_id_needs_clean_session_before_mqtt_5() {
    for (level, clean, refused) in [
        (3, true, true),
        (4, false, true),
        (4, true, false),
        (5, false, false),
        (5, true, false),
    ] {
        let mut core = core();
        let mut client = core.client();
        let mut packet = connect(level, "");
        packet.clean = clean;
        let did = core.receive(&mut client, &packet.bytes());
        if refused {
            let expected = [
                NextStep::Send(vec![0x20, 2, 0, 2]),
                NextStep::Close(CloseReason::MqttRefused),
            ];
            assert_eq!(did, expected, "{level} {clean}");
        } else {
            assert!(client.session.is_open(), "{level} {clean}");
        }
    }
}

#[test]
fn clients_without_an_id_get_different_ones_and_those_of_mqtt_5_are_told_theirs() {
    let mut core = core();
    let mut assigned = Vec::new();
    for _ in 0..2 {
        let mut client = core.client();
        let did = core.receive(&mut client, &connect(5, "").bytes());
        let connack = sent(&did)[0].to_vec();
        let at = connack.iter().position(|byte| *byte == 0x12).unwrap();
        let length = usize::from(connack[at + 2]);
        assigned.push(connack[at + 3..at + 3 + length].to_vec());
        let session = client.session.session_ref().unwrap();
        assert_eq!(
            core.sessions.client_id(session).unwrap().as_bytes(),
            assigned.last().unwrap()
        );
    }
    assert_ne!(assigned[0], assigned[1]);
    assert!(assigned[0].starts_with(b"rc-"));
}

#[test]
fn enhanced_authentication_is_refused_and_auth_is_a_protocol_error() {
    let mut core = core();
    let mut client = core.client();
    let mut packet = connect(5, "a");
    packet.properties = [&[0x15][..], &string("SCRAM-SHA-1")].concat();
    let did = core.receive(&mut client, &packet.bytes());
    assert!(
        matches!(&did[0], NextStep::Send(bytes) if bytes[3] == 0x8c),
        "{did:?}"
    );
    assert_eq!(did[1], NextStep::Close(CloseReason::MqttRefused));

    let mut client = core.open(&connect(5, "a").bytes());
    let auth = [0xf0, 6, 0x19, 4, 0x15, 0, 1, b'x'];
    let did = core.receive(&mut client, &auth);
    assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
}

#[test]
fn a_client_is_silent_for_one_and_a_half_times_its_keep_alive_before_the_connection_ends() {
    let mut core = core();
    let mut packet = connect(4, "a");
    packet.keep_alive = 10;
    let mut client = core.open(&packet.bytes());
    assert_eq!(client.session.silence_max(), Duration::from_secs(15));
    core.wait_s(14);
    assert_eq!(core.tick(&mut client), []);
    assert_eq!(sent(&core.receive(&mut client, &[0xc0, 0])), [[0xd0, 0]]);
    core.wait_s(14);
    assert_eq!(core.tick(&mut client), []);
    core.wait_s(1);
    assert_eq!(
        core.tick(&mut client),
        [NextStep::Close(CloseReason::KeepAliveTimeout)]
    );
    // Without a keep alive it may be silent for ever.
    let mut client = core.open(&connect(4, "b").bytes());
    assert_eq!(client.session.silence_max(), Duration::MAX);
    core.wait_s(1_000_000);
    assert_eq!(core.tick(&mut client), []);
}

#[test]
fn a_keep_alive_above_the_maximum_is_replaced_announced_and_used() {
    for (asked, announced) in [(10, None), (60, None), (61, Some(60)), (0, Some(60))] {
        let mut core = core();
        core.settings.keep_alive_s_max = 60;
        let mut client = core.client();
        let mut packet = connect(5, "a");
        packet.keep_alive = asked;
        let did = core.receive(&mut client, &packet.bytes());
        let says = sent(&did)[0].windows(3).any(|bytes| bytes == [0x13, 0, 60]);
        assert_eq!(says, announced.is_some(), "{asked}");
        let used = announced.unwrap_or_else(|| u64::from(asked));
        core.wait_s(used * 3 / 2);
        assert_eq!(
            core.tick(&mut client),
            [NextStep::Close(CloseReason::KeepAliveTimeout)]
        );
    }
}

#[test]
fn a_connection_without_connect_ends_after_the_handshake_timeout() {
    let mut core = core();
    let mut client = core.client();
    core.wait_s(9);
    assert_eq!(core.tick(&mut client), []);
    core.wait_s(1);
    assert_eq!(
        core.tick(&mut client),
        [NextStep::Close(CloseReason::HandshakeTimeout)]
    );
}

#[test]
fn the_older_connection_of_a_client_id_ends_before_connack_is_sent() {
    let mut core = core();
    let mut old = core.open(&connect(5, "a").bytes());
    let mut new = core.client();
    let did = core.receive(&mut new, &connect(4, "a").bytes());
    assert_eq!(did[0], NextStep::EndOther(old.address, CloseReason::TakenOver));
    assert!(matches!(&did[1], NextStep::Send(bytes) if bytes[0] == 0x20));
    let farewell = core.farewell(&old, CloseReason::TakenOver, "");
    assert_eq!((farewell[0], farewell[2]), (0xe0, 0x8e));
    // Its late end does not touch the session of the newer one.
    core.end(&mut old, CloseReason::TakenOver);
    assert!(core.sessions.exists(new.session.session_ref().unwrap()));
}

#[test]
fn a_session_is_present_if_it_has_outlived_the_last_connection_and_start_is_not_clean() {
    // Clean start, session expiry in seconds, then whether the next CONNECT without Clean Start finds the session.
    for (level, clean, expiry, present) in [
        (4, true, None, false),
        (4, false, None, true),
        (5, true, Some(300_u32), true),
        (5, true, None, false),
        (5, false, Some(0), false),
    ] {
        let mut core = core();
        let mut packet = connect(level, "a");
        packet.clean = clean;
        if let Some(seconds) = expiry {
            packet.properties = [&[0x11][..], &seconds.to_be_bytes()].concat();
        }
        let mut client = core.open(&packet.bytes());
        core.end(&mut client, CloseReason::PeerVanished);
        packet.clean = false;
        let mut client = core.client();
        let did = core.receive(&mut client, &packet.bytes());
        assert_eq!(sent(&did)[0][2], u8::from(present), "{level} {clean} {expiry:?}");
    }
}

#[test]
fn a_session_expiry_above_the_maximum_is_replaced_and_announced() {
    let mut core = core();
    core.settings.session_expiry_s_max = 100;
    for (asked, granted) in [(99_u32, None), (u32::MAX, Some(100_u32))] {
        let mut packet = connect(5, "a");
        packet.properties = [&[0x11][..], &asked.to_be_bytes()].concat();
        let mut client = core.client();
        let did = core.receive(&mut client, &packet.bytes());
        let NextStep::Send(connack) = did.last().unwrap() else {
            panic!("{did:?}")
        };
        let says = granted.map(|granted| [&[0x11][..], &granted.to_be_bytes()].concat());
        match says {
            None => assert_ne!(connack[5], 0x11),
            Some(says) => assert_eq!(connack[5..10], says),
        }
        let session = client.session.session_ref().unwrap();
        assert_eq!(core.sessions.expiry_s(session), Some(asked.min(100)));
    }
}

#[test]
fn a_session_belongs_to_the_user_who_made_it() {
    let mut core = core();
    let mut packet = connect(4, "a");
    packet.clean = false;
    for (claims, code) in [
        (Some(r#"{"sub":"ann"}"#), 0),
        (Some(r#"{"sub":"bob"}"#), 5),
        (None, 5),
        (Some(r#"{"sub":"ann"}"#), 0),
    ] {
        let mut client = core.client_with(claims);
        let did = core.receive(&mut client, &packet.bytes());
        let connack = did.iter().find_map(|did| match did {
            NextStep::Send(bytes) => Some(bytes[3]),
            _ => None,
        });
        assert_eq!(connack, Some(code), "{claims:?}");
    }
}

#[test]
fn reasons_in_words_are_left_out_where_the_client_takes_no_packet_of_that_size() {
    let mut core = core();
    let mut client = core.client();
    let mut packet = connect(5, "a");
    packet.properties = [&[0x15][..], &string("x"), &[0x27, 0, 0, 0, 20]].concat();
    let did = core.receive(&mut client, &packet.bytes());
    assert_eq!(did[0], NextStep::Send(vec![0x20, 3, 0, 0x8c, 0]));

    let mut packet = connect(5, "a");
    packet.properties = vec![0x27, 0, 0, 0, 20];
    let client = core.open(&packet.bytes());
    let farewell = core.farewell(&client, CloseReason::KeepAliveTimeout, "");
    assert_eq!(farewell, [0xe0, 1, 0x8d]);
}

#[test]
fn a_stopping_server_names_the_other_server() {
    let mut core = core();
    let client = core.open(&connect(5, "a").bytes());
    assert_eq!(core.farewell(&client, CloseReason::Draining, "")[2], 0x8b);
    core.settings.server_reference = Some("other:1883".to_owned());
    let farewell = core.farewell(&client, CloseReason::Draining, "");
    assert_eq!(farewell[2], 0x9c);
    assert!(farewell.ends_with(&[&[0x1c][..], &string("other:1883")].concat()));
    let old = core.open(&connect(4, "b").bytes());
    assert!(core.farewell(&old, CloseReason::Draining, "").is_empty());
}

/// CONNECT of a client whose session outlives its connection.
fn lasting(level: u8) -> Vec<u8> {
    let properties = match level {
        5 => vec![0x11, 0, 0, 0, 100],
        _ => Vec::new(),
    };
    Connect {
        clean: false,
        properties,
        will: Some((0, Vec::new(), "gone", b"1")),
        ..connect(level, "a")
    }
    .bytes()
}

#[test]
fn connack_waits_until_a_strict_store_has_the_session() {
    for level in [4, 5] {
        let mut core = core();
        core.sessions.begin_saving(true, 0);
        let mut client = core.client();
        assert_eq!(
            core.receive(&mut client, &lasting(level)),
            [NextStep::SaveSession]
        );
        assert!(client.session.is_waiting() && !client.session.is_open());
        let did = core.saved(&mut client, Stored::Yes);
        assert_eq!(sent(&did)[0][2..4], [0, 0]);
        assert!(!client.session.is_waiting() && client.session.is_open());
        // The application is told once.
        assert_eq!(core.saved(&mut client, Stored::Yes), []);
        // Another connection gets the session: the first one ends at once, and CONNACK waits.
        let mut next = core.client();
        let did = core.receive(&mut next, &lasting(level));
        let end = NextStep::EndOther(client.address, CloseReason::TakenOver);
        assert_eq!(did, [end, NextStep::SaveSession]);
        core.end(&mut client, CloseReason::TakenOver);
        let did = core.saved(&mut next, Stored::Yes);
        assert_eq!(sent(&did)[0][2..4], [1, 0]);
        // A session that ends with its connection is on no disk.
        let mut brief = core.client();
        let did = core.receive(&mut brief, &connect(level, "b").bytes());
        assert_eq!(sent(&did)[0][2..4], [0, 0]);
    }
}

#[test]
fn a_disk_that_takes_nothing_refuses_new_sessions_and_lets_the_others_in() {
    for (level, code) in [(4, 3), (5, 0x88)] {
        let mut core = core();
        core.sessions.begin_saving(true, 0);
        let mut client = core.client();
        core.receive(&mut client, &lasting(level));
        let did = core.saved(&mut client, Stored::Unknown);
        let [NextStep::Send(connack), NextStep::Close(CloseReason::MqttRefused)] = &did[..] else {
            panic!("{did:?}");
        };
        assert_eq!((connack[0], &connack[2..4]), (0x20, &[0, code][..]));
        assert!(core.farewell(&client, CloseReason::MqttRefused, "").is_empty());
        core.end(&mut client, CloseReason::MqttRefused);
        assert!(core.sessions.is_empty() && core.sessions.take_will().is_none());

        let mut client = core.client();
        core.receive(&mut client, &lasting(level));
        core.saved(&mut client, Stored::Yes);
        let mut next = core.client();
        core.receive(&mut next, &lasting(level));
        core.end(&mut client, CloseReason::TakenOver);
        let did = core.saved(&mut next, Stored::Unknown);
        assert_eq!(sent(&did)[0][2..4], [1, 0], "it may make room");
    }
}

#[test]
fn a_connection_ends_without_a_packet_but_connack_while_that_waits_for_the_disk() {
    let mut core = core();
    core.sessions.begin_saving(true, 0);
    let mut client = core.client();
    core.receive(&mut client, &lasting(5));
    assert_eq!(core.tick(&mut client), []);
    assert!(core.farewell(&client, CloseReason::TakenOver, "").is_empty());
    let farewell = core.farewell(&client, CloseReason::Draining, "");
    assert_eq!((farewell[0], farewell[3]), (0x20, 0x88));
    core.settings.server_reference = Some("b".into());
    assert_eq!(core.farewell(&client, CloseReason::Draining, "")[3], 0x9c);
    let deadline = client.session.next_deadline(&core.common);
    assert_eq!(deadline, core.now.uptime + core.common.handshake_timeout);
    core.now.uptime = deadline;
    assert_eq!(
        core.tick(&mut client),
        [NextStep::Close(CloseReason::HandshakeTimeout)]
    );
    core.end(&mut client, CloseReason::HandshakeTimeout);
    assert!(core.sessions.is_empty() && core.sessions.take_will().is_some());
}
