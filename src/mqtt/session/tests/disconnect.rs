//! DISCONNECT, and the end of the connection: section 3.14.

use super::client::{Connect, NextStep, connect, core, packet};
use crate::decision::CloseReason;

/// CONNECT of MQTT 5 with a will, and this session expiry.
fn with_will(id: &'static str, expiry: u32) -> Connect {
    let mut packet = connect(5, id);
    packet.properties = [&[0x11][..], &expiry.to_be_bytes()].concat();
    packet.will = Some((0, Vec::new(), "gone", b"x"));
    packet
}

fn disconnect(code: u8, expiry: Option<u32>) -> Vec<u8> {
    let expiry = expiry.map_or_else(Vec::new, |expiry| [&[0x11][..], &expiry.to_be_bytes()].concat());
    let length = u8::try_from(expiry.len()).unwrap();
    packet(0xe0, &[&[code, length], &expiry])
}

#[test]
fn only_success_takes_the_will_away() {
    // Traps 7 to 12.
    for (bytes, reason, is_published) in [
        (packet(0xe0, &[]), CloseReason::MqttDisconnected, false),
        (packet(0xe0, &[&[0]]), CloseReason::MqttDisconnected, false),
        (packet(0xe0, &[&[4]]), CloseReason::MqttDisconnected, true),
        (packet(0xe0, &[&[0x80]]), CloseReason::MqttDisconnected, true),
        (packet(0xe0, &[&[0xff]]), CloseReason::MalformedMqtt, true),
        (packet(0xc1, &[]), CloseReason::MalformedMqtt, true),
    ] {
        let mut core = core();
        let mut client = core.open(&with_will("a", 0).bytes());
        let did = core.receive(&mut client, &bytes);
        assert_eq!(did, [NextStep::Close(reason)]);
        core.end(&mut client, reason);
        assert_eq!(core.sessions.take_will().is_some(), is_published, "{bytes:?}");
        assert!(!client.session.is_open());
    }
    let mut core = core();
    let mut client = core.open(&with_will("a", 0).bytes());
    core.end(&mut client, CloseReason::PeerVanished);
    assert_eq!(&*core.sessions.take_will().unwrap().will.topic, b"gone");
}

#[test]
fn disconnect_changes_the_session_expiry_unless_connect_had_none() {
    // Trap 25.
    for (at_connect, at_disconnect, reason, lives_on) in [
        (100, None, CloseReason::MqttDisconnected, true),
        (100, Some(0), CloseReason::MqttDisconnected, false),
        (100, Some(5), CloseReason::MqttDisconnected, true),
        (0, Some(0), CloseReason::MqttDisconnected, false),
        (0, Some(5), CloseReason::MqttProtocolError, false),
    ] {
        let mut core = core();
        let mut client = core.open(&with_will("a", at_connect).bytes());
        let session = client.session.session_ref().unwrap();
        let did = core.receive(&mut client, &disconnect(0, at_disconnect));
        assert_eq!(did, [NextStep::Close(reason)]);
        core.end(&mut client, reason);
        assert_eq!(core.sessions.exists(session), lives_on, "{at_disconnect:?}");
        if let (true, Some(seconds)) = (lives_on, at_disconnect) {
            assert_eq!(core.sessions.expiry_s(session), Some(seconds));
        }
    }
}

#[test]
fn a_session_expiry_of_disconnect_is_bounded_too() {
    let mut core = core();
    core.settings.session_expiry_s_max = 50;
    let mut client = core.open(&with_will("a", 10).bytes());
    let session = client.session.session_ref().unwrap();
    core.receive(&mut client, &disconnect(0, Some(u32::MAX)));
    core.end(&mut client, CloseReason::MqttDisconnected);
    assert_eq!(core.sessions.expiry_s(session), Some(50));
}

#[test]
fn a_disconnect_of_a_server_has_the_code_of_its_reason_and_words() {
    let mut core = core();
    let client = core.open(&connect(5, "a").bytes());
    for (reason, code) in [
        (CloseReason::MalformedMqtt, 0x81),
        (CloseReason::MqttProtocolError, 0x82),
        (CloseReason::KeepAliveTimeout, 0x8d),
        (CloseReason::TakenOver, 0x8e),
        (CloseReason::ReceiveMaximumExceeded, 0x93),
        (CloseReason::TopicAliasInvalid, 0x94),
        (CloseReason::MessageTooBig, 0x95),
        (CloseReason::RateExceeded, 0x96),
        (CloseReason::Revoked, 0x87),
        (CloseReason::NoLongerAllowed, 0x87),
    ] {
        let bytes = core.farewell(&client, reason, "because");
        assert_eq!((bytes[0], bytes[2]), (0xe0, code), "{reason:?}");
        assert!(bytes.ends_with(b"because"));
    }
    // The client has left, or has got CONNACK.
    for reason in [CloseReason::MqttDisconnected, CloseReason::PeerVanished] {
        assert!(core.farewell(&client, reason, "").is_empty());
    }
}
