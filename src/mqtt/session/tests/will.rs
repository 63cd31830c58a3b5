//! The will in CONNECT: section 3.1.2.5, and the rules that hold for it.

use std::time::Duration;

use super::client::{NextStep, allow, connect, core, string};
use crate::decision::{CloseReason, Limit};

fn code_of(did: &[NextStep]) -> u8 {
    match did {
        [NextStep::Send(bytes), ..] => bytes[3],
        _ => panic!("{did:?}"),
    }
}

#[test]
fn the_will_is_kept_as_it_came() {
    let user = [&[0x26][..], &string("k"), &string("v")].concat();
    let given = [&[1, 1][..], &[2, 0, 0, 0, 9], &[0x18, 0, 0, 0, 7], &user].concat();
    let mut core = core();
    let mut packet = connect(5, "a");
    packet.properties = vec![0x11, 0, 0, 1, 0];
    // QoS 2, retained.
    packet.will = Some((0x30, given, "last/will", b"bye"));
    let mut client = core.open(&packet.bytes());
    core.end(&mut client, CloseReason::PeerVanished);
    core.wait_s(8);
    core.sessions.end_due(core.now.uptime);
    let due = core.sessions.take_will().expect("its delay has passed");
    let will = &due.will;
    assert_eq!((&*will.topic, &*will.payload), (&b"last/will"[..], &b"bye"[..]));
    assert_eq!((will.qos, will.retain, will.is_utf8), (2, true, true));
    assert_eq!((will.expiry_s, will.delay_s), (Some(9), 7));
    assert_eq!(&*will.properties, user);
}

#[test]
fn a_will_is_refused_with_connect_if_it_could_not_be_published() {
    let will = |flags: u8, of_it: &[u8], topic: &'static str, payload: &'static [u8]| {
        Some((flags, of_it.to_vec(), topic, payload))
    };
    for (will, code) in [
        (will(0, &[], "$SYS/x", b""), 0x87),
        (will(0, &[], "forbidden", b""), 0x87),
        (will(0, &[1, 1], "allowed", &b"\xff"[..]), 0x99),
        (will(0, &[], "allowed", b"x"), 0),
    ] {
        let mut core = core();
        core.allow(&[allow(&["allowed"])]);
        let mut packet = connect(5, "a");
        packet.will = will;
        let mut client = core.client();
        let did = core.receive(&mut client, &packet.bytes());
        assert_eq!(code_of(&did), code, "{did:?}");
        assert_eq!(client.session.is_open(), code == 0);
    }
    let mut core = core();
    core.allow(&[]);
    core.settings.retain_available = false;
    let mut packet = connect(5, "a");
    packet.will = will(0x20, &[], "a", b"x");
    let mut client = core.client();
    // Trap 14.
    assert_eq!(code_of(&core.receive(&mut client, &packet.bytes())), 0x9a);
}

#[test]
fn wills_have_a_bound_in_bytes_and_in_delay() {
    let mut core = core();
    let large = vec![b'x'; 5000].leak();
    let mut packet = connect(5, "a");
    packet.will = Some((0, Vec::new(), "a", large));
    let mut client = core.client();
    assert_eq!(code_of(&core.receive(&mut client, &packet.bytes())), 0x97);
    assert_eq!(core.scratch.take_hits().of(Limit::WillsBytes), 1);

    core.common.will_delay_max = Duration::from_secs(5);
    let mut packet = connect(5, "b");
    packet.properties = vec![0x11, 0, 0, 1, 0];
    packet.will = Some((0, vec![0x18, 0, 0, 1, 0], "a", b"x"));
    let mut client = core.open(&packet.bytes());
    assert_eq!(core.scratch.take_hits().of(Limit::WillDelay), 1);
    core.end(&mut client, CloseReason::PeerVanished);
    core.wait_s(6);
    core.sessions.end_due(core.now.uptime);
    assert!(core.sessions.take_will().is_some());

    core.common.will_bytes_max = 1000;
    for (bytes, code, hits) in [(999, 0, 0), (1000, 0x97, 1)] {
        let mut packet = connect(5, "long");
        packet.will = Some((0, Vec::new(), "a", vec![b'x'; bytes].leak()));
        let mut client = core.client();
        assert_eq!(code_of(&core.receive(&mut client, &packet.bytes())), code);
        assert_eq!(core.scratch.take_hits().of(Limit::WillBytes), hits);
    }

    core.common.wills = false;
    let mut client = core.client();
    let mut packet = connect(5, "c");
    packet.will = Some((0, Vec::new(), "a", b"x"));
    assert_eq!(code_of(&core.receive(&mut client, &packet.bytes())), 0x97);
}
