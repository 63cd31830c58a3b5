//! Acknowledgements of publications of the server, and packets that no client may send.

use super::client::{NextStep, connect, core, packet};
use crate::decision::CloseReason;

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    for level in [4, 5] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        assert_eq!(core.receive(&mut client, &[0x40, 2, 0, 1]), []);
        assert_eq!(core.receive(&mut client, &[0x70, 2, 0, 1]), []);
    }
}

#[test]
fn an_error_in_pubrec_ends_the_exchange_also_if_there_was_none() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    assert_eq!(core.receive(&mut client, &[0x50, 3, 0, 1, 0x87]), []);
}

#[test]
fn packets_of_servers_are_protocol_errors_and_reserved_types_malformed() {
    for (first, reason) in [
        (0x20, CloseReason::MqttProtocolError),
        (0x90, CloseReason::MqttProtocolError),
        (0xb0, CloseReason::MqttProtocolError),
        (0xd0, CloseReason::MqttProtocolError),
        // A reserved flag in PINGREQ, and AUTH in 3.1.1.
        (0xc1, CloseReason::MalformedMqtt),
        (0xf0, CloseReason::MalformedMqtt),
    ] {
        let mut core = core();
        let mut client = core.open(&connect(4, "a").bytes());
        let did = core.receive(&mut client, &packet(first, &[]));
        assert_eq!(did, [NextStep::Close(reason)], "{first:#x}");
    }
}
