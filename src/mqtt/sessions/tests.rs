//! Each trap of `mqtt.md` about sessions, and random lives of a session beside a small model of its client.
#![expect(clippy::cast_possible_truncation, reason = "random numbers below small ones")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::broker::SubscriptionLimits;
use crate::config::QueueFull;
use crate::mqtt::Qos;
use crate::mqtt::subscriptions::Options;

const BOUNDS: Bounds = Bounds {
    sessions_max: 100,
    queue_messages_max: 1000,
    queue_bytes_max: 1 << 20,
    queues_bytes_max: 1 << 24,
    in_flight_max: 100,
    wills_bytes_max: 1 << 20,
    queue_full: QueueFull::DropNewest,
    queues_qos0: false,
};

const NEVER: u32 = u32::MAX;

fn now(seconds: u64) -> Now {
    Now {
        uptime: Uptime::from_ms(seconds * 1000),
        unix_ms: UNIX_MS + seconds * 1000,
    }
}

const UNIX_MS: u64 = 1_700_000_000_000;

fn by(client_id: &str, address: usize) -> Connect<'_> {
    Connect {
        client_id,
        user: None,
        version: Version::V5,
        address,
        clean_start: false,
        expiry_s: 100,
        receive_maximum: u16::MAX,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        will: None,
    }
}

fn will(delay_s: u32) -> Option<Box<Will>> {
    Some(Box::new(Will {
        topic: (*b"will").into(),
        payload: delay_s.to_string().into_bytes().into(),
        properties: Box::default(),
        qos: 0,
        retain: false,
        is_utf8: false,
        expiry_s: None,
        delay_s,
    }))
}

fn content(payload: &[u8]) -> Content<'_> {
    Content {
        topic: b"t",
        properties: b"",
        payload,
        expires_at: None,
        is_utf8: false,
    }
}

const fn qos(qos: u8) -> Outbound {
    Outbound { qos, retain: false }
}

/// The delays of the wills that are due, as these wills' payloads say.
fn due(sessions: &mut Sessions) -> Vec<u32> {
    let wills = std::iter::from_fn(|| sessions.take_will());
    let delay = |due: DueWill| std::str::from_utf8(&due.will.payload).unwrap().parse().unwrap();
    wills.map(delay).collect()
}

/// A packet as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Publish {
        payload: Vec<u8>,
        qos: u8,
        id: u16,
        dup: bool,
    },
    Release(u16),
}

/// Everything that sessions send now.
fn sent(sessions: &mut Sessions, unix_ms: u64) -> Vec<Got> {
    let mut got = Vec::new();
    while let Some(session) = sessions.next_ready() {
        while sessions.send_next(session, unix_ms, |_, packet| {
            got.push(read(packet));
            Written::Queued
        }) == Sent::One
        {}
    }
    got
}

fn read(packet: &Packet<'_>) -> Got {
    match packet {
        Packet::Release { packet_id } => Got::Release(*packet_id),
        Packet::Publish {
            content,
            outbound,
            packet_id,
            dup,
            ..
        } => Got::Publish {
            payload: content.payload.to_vec(),
            qos: outbound.qos,
            id: packet_id.unwrap_or(0),
            dup: *dup,
        },
    }
}

fn publish(payload: &[u8], qos: u8, id: u16, dup: bool) -> Got {
    Got::Publish {
        payload: payload.to_vec(),
        qos,
        id,
        dup,
    }
}

fn sessions(bounds: Bounds) -> Sessions {
    let place = Place {
        core: 0,
        cores: 1,
        hasher: ChannelHasher::with_key(1),
    };
    Sessions::new(bounds, place)
}

fn connected(sessions: &mut Sessions, connect: Connect<'_>, at: u64) -> SessionRef {
    sessions.connect(connect, now(at)).unwrap().session
}

#[test]
fn a_take_over_keeps_the_session_and_publishes_the_wills_that_have_no_delay() {
    // Traps 1 to 4: expiry, clean start and delay of the will, and what the taken-over session leaves.
    for (expiry_s, clean_start, delay_s, is_present, published) in [
        (0, false, 0, false, true),
        (0, false, 30, false, true),
        (0, true, 30, false, true),
        (100, false, 0, true, true),
        (100, false, 30, true, false),
        (100, true, 0, false, true),
        (100, true, 30, false, true),
    ] {
        let mut sessions = sessions(BOUNDS);
        let old = Connect {
            expiry_s,
            will: will(delay_s),
            ..by("c", 1)
        };
        let old = connected(&mut sessions, old, 0);
        let new = Connect {
            clean_start,
            will: will(7),
            ..by("c", 2)
        };
        let new = sessions.connect(new, now(1)).unwrap();
        assert_eq!((new.is_present, new.displaced), (is_present, Some(1)));
        assert_eq!(old == new.session, is_present);
        let expected = if published { vec![delay_s] } else { vec![] };
        assert_eq!(due(&mut sessions), expected, "{expiry_s} {clean_start} {delay_s}");
        // Traps 13 and 20: the late end of the old connection changes nothing.
        sessions.disconnect(old, 1, End::Lost, now(2));
        assert!(due(&mut sessions).is_empty() && sessions.is_of(new.session, 2));
        let client = sessions.client(new.session.number, new.session.serial);
        assert_eq!(client.map(|client| client.address), Some(2));
        assert!(!sessions.is_of(new.session, 1) && sessions.connected_len() == 1);
        sessions.disconnect(new.session, 2, End::Lost, now(3));
        sessions.end_due(now(10).uptime);
        assert_eq!(due(&mut sessions), [7]);
    }
}

#[test]
fn a_client_that_has_sent_disconnect_has_left_though_its_connection_has_not_ended() {
    for (expiry_s, wishes_s, with_will, is_present) in [
        (100, None, false, true),
        (100, None, true, true),
        (100, Some(50), false, true),
        (100, Some(0), false, false),
        (100, Some(0), true, false),
        (0, None, false, false),
        (0, Some(0), true, false),
    ] {
        let mut sessions = sessions(BOUNDS);
        let old = Connect {
            expiry_s,
            will: will(0),
            ..by("c", 1)
        };
        let old = connected(&mut sessions, old, 0);
        let end = End::Orderly {
            with_will,
            expiry_s: wishes_s,
        };
        sessions.leave(old, 2, end);
        assert_eq!(sessions.expiry_s(old), Some(expiry_s), "another connection's");
        sessions.leave(old, 1, end);
        let new = sessions.connect(by("c", 2), now(1)).unwrap();
        assert_eq!((new.is_present, new.displaced), (is_present, Some(1)));
        let expected = if with_will { vec![0] } else { vec![] };
        assert_eq!(
            due(&mut sessions),
            expected,
            "{expiry_s} {wishes_s:?} {with_will}"
        );
        sessions.disconnect(old, 1, end, now(2));
        assert!(due(&mut sessions).is_empty() && sessions.is_of(new.session, 2));
        assert_eq!(sessions.wills_bytes, 0);
    }
}

#[test]
fn a_will_is_published_after_its_delay_or_with_the_end_of_the_session() {
    // Traps 5 and 6, and MQTT-3.1.3-9.
    for (expiry_s, delay_s, at) in [
        (0, 0, 0),
        (0, 30, 0),
        (5, 30, 5),
        (30, 5, 5),
        (NEVER, 5, 5),
        (5, 5, 5),
        (5, NEVER, 5),
    ] {
        let mut sessions = sessions(BOUNDS);
        let connect = Connect {
            expiry_s,
            will: will(delay_s),
            ..by("c", 1)
        };
        let session = connected(&mut sessions, connect, 10);
        sessions.disconnect(session, 1, End::Lost, now(10));
        if at > 0 {
            assert_eq!(sessions.next_due(), now(10 + at).uptime);
            sessions.end_due(now(10 + at - 1).uptime);
            assert!(due(&mut sessions).is_empty());
        }
        sessions.end_due(now(10 + at).uptime);
        assert_eq!(due(&mut sessions), [delay_s]);
        assert_eq!(sessions.is_empty(), at == u64::from(expiry_s));
        if expiry_s == 30 {
            assert_eq!(sessions.next_due(), now(40).uptime);
            sessions.end_due(now(40).uptime);
            assert!(sessions.is_empty() && due(&mut sessions).is_empty());
        }
        assert_eq!(sessions.wills_bytes, 0);
    }
}

#[test]
fn a_client_that_comes_back_in_time_cancels_its_will_and_a_disconnect_deletes_it() {
    let mut sessions = sessions(BOUNDS);
    let connect = Connect {
        will: will(10),
        ..by("c", 1)
    };
    let session = connected(&mut sessions, connect, 0);
    sessions.disconnect(session, 1, End::Lost, now(1));
    assert!(sessions.connect(by("c", 2), now(5)).unwrap().is_present);
    sessions.end_due(now(50).uptime);
    assert!(due(&mut sessions).is_empty());
    // A core that is late comes to the connection first, and the delay has passed all the same.
    let connect = Connect {
        will: will(10),
        ..by("c", 6)
    };
    let session = connected(&mut sessions, connect, 10);
    sessions.disconnect(session, 6, End::Lost, now(11));
    assert!(sessions.connect(by("c", 7), now(21)).unwrap().is_present);
    assert_eq!(due(&mut sessions), [10]);
    // Traps 7 and 8: only a DISCONNECT without 0x04 deletes it.
    for with_will in [false, true] {
        let connect = Connect {
            will: will(0),
            ..by("c", 3)
        };
        let session = connected(&mut sessions, connect, 50);
        let end = End::Orderly {
            with_will,
            expiry_s: None,
        };
        sessions.disconnect(session, 3, end, now(51));
        assert_eq!(due(&mut sessions).len(), usize::from(with_will));
    }
    // A clean start ends the session that waits, and so publishes its will.
    let connect = Connect {
        will: will(10),
        ..by("c", 4)
    };
    let session = connected(&mut sessions, connect, 60);
    sessions.disconnect(session, 4, End::Lost, now(60));
    let connect = Connect {
        clean_start: true,
        ..by("c", 5)
    };
    assert!(!sessions.connect(connect, now(61)).unwrap().is_present);
    assert_eq!(due(&mut sessions), [10]);
}

#[test]
fn a_session_outlives_its_connection_as_long_as_its_client_has_asked() {
    // Traps 24 to 28: expiry and clean start are two things.
    for (expiry_s, replaced, ends_after) in [
        (0, None, Some(0)),
        (0, Some(50), Some(0)),
        (10, None, Some(10)),
        (10, Some(20), Some(20)),
        (10, Some(0), Some(0)),
        (10, Some(NEVER), None),
        (NEVER, None, None),
        (NEVER, Some(5), Some(5)),
    ] {
        for clean_start in [false, true] {
            let mut sessions = sessions(BOUNDS);
            let connect = Connect {
                expiry_s,
                clean_start,
                ..by("c", 1)
            };
            let session = connected(&mut sessions, connect, 0);
            let end = End::Orderly {
                with_will: false,
                expiry_s: replaced,
            };
            sessions.disconnect(session, 1, end, now(1000));
            let last = match ends_after {
                Some(0) => None,
                Some(seconds) => Some(1000 + seconds - 1),
                None => Some(u64::from(u32::MAX) * 2),
            };
            if let Some(last) = last {
                sessions.end_due(now(last).uptime);
                assert!(sessions.exists(session), "{expiry_s} {replaced:?}");
            }
            if let Some(seconds) = ends_after {
                // Whether the core has looked after its sessions or not.
                let back = sessions.connect(by("c", 2), now(1000 + seconds)).unwrap();
                assert!(!back.is_present && back.displaced.is_none());
            } else {
                let back = sessions.connect(by("c", 2), now(last.unwrap())).unwrap();
                assert!(back.is_present && back.session == session);
            }
            assert_eq!(sessions.len(), 1);
        }
    }
}

#[test]
fn a_session_belongs_to_the_user_who_has_made_it() {
    // Trap 29.
    let mut sessions = sessions(BOUNDS);
    let as_user = |user: Option<&'static str>, address| Connect {
        user,
        clean_start: true,
        ..by("c", address)
    };
    connected(&mut sessions, as_user(Some("ann"), 1), 0);
    for other in [Some("bob"), None] {
        let refused = sessions.connect(as_user(other, 2), now(1));
        assert_eq!(refused, Err(ConnectRefused::OtherUser));
    }
    assert_eq!(
        sessions
            .connect(as_user(Some("ann"), 3), now(1))
            .unwrap()
            .displaced,
        Some(1)
    );
}

#[test]
fn what_is_not_acknowledged_is_sent_again_in_order_with_dup() {
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    for (payload, level) in [(b"a", 1), (b"b", 2), (b"c", 1), (b"d", 2), (b"e", 2)] {
        let offer = sessions.offer(session, qos(level), &content(payload), &[], true);
        assert!(matches!(offer, Offer::Send { .. }));
        sessions.end_publication();
    }
    assert_eq!(sessions.puback(session, 3), Acknowledged::Known);
    assert_eq!(sessions.pubrec(session, 4, false), Acknowledged::Known);
    assert_eq!(sessions.pubrec(session, 5, true), Acknowledged::Known);
    sessions.disconnect(session, 1, End::Lost, now(1));
    // The publications of that time follow.
    assert_eq!(
        sessions.offer(session, qos(1), &content(b"f"), &[], false),
        Offer::Waits
    );
    sessions.end_publication();
    assert_eq!(
        sessions.offer(session, qos(0), &content(b"0"), &[], false),
        Offer::Dropped
    );
    assert!(sessions.connect(by("c", 2), now(2)).unwrap().is_present);
    assert_eq!(
        sent(&mut sessions, 0),
        [
            publish(b"a", 1, 1, true),
            publish(b"b", 2, 2, true),
            Got::Release(4),
            publish(b"f", 1, 6, false),
        ]
    );
    for (outcome, expected) in [
        (sessions.puback(session, 1), Acknowledged::Known),
        (sessions.puback(session, 1), Acknowledged::Unknown),
        (sessions.puback(session, 2), Acknowledged::OutOfTurn),
        (sessions.pubcomp(session, 2), Acknowledged::OutOfTurn),
        (sessions.pubrec(session, 2, false), Acknowledged::Known),
        (sessions.pubrec(session, 2, false), Acknowledged::Known),
        (sessions.pubcomp(session, 2), Acknowledged::Known),
        (sessions.pubcomp(session, 4), Acknowledged::Known),
        (sessions.puback(session, 6), Acknowledged::Known),
    ] {
        assert_eq!(outcome, expected);
    }
    assert_eq!(sessions.outgoing_len(session), (0, 0));
    assert_eq!((sessions.kept.len(), sessions.kept_bytes()), (0, 0));
}

#[test]
fn a_client_has_no_more_in_flight_than_its_receive_maximum() {
    // Traps 98, 99 and 101: quotas begin anew with a connection, and unknown acknowledgements raise none.
    let mut sessions = sessions(BOUNDS);
    for receive_maximum in [1, 2, 65_535] {
        let most = usize::from(receive_maximum.min(BOUNDS.in_flight_max));
        let connect = |address| Connect {
            receive_maximum,
            clean_start: address == 1,
            ..by("c", address)
        };
        let session = connected(&mut sessions, connect(1), 0);
        for number in 0..200_u8 {
            let offer = sessions.offer(session, qos(1 + number % 2), &content(&[number]), &[], true);
            assert_eq!(matches!(offer, Offer::Send { .. }), usize::from(number) < most);
            sessions.end_publication();
        }
        sessions.disconnect(session, 1, End::Lost, now(1));
        connected(&mut sessions, connect(2), 2);
        let mut got = sent(&mut sessions, 0);
        for unknown in [0, 60_000] {
            assert_eq!(sessions.puback(session, unknown), Acknowledged::Unknown);
            assert_eq!(sessions.pubcomp(session, unknown), Acknowledged::Unknown);
        }
        assert!(sent(&mut sessions, 0).is_empty());
        assert_eq!(got.len(), most);
        let mut payloads = Vec::new();
        while !got.is_empty() {
            let Got::Publish { payload, qos, id, .. } = got.remove(0) else {
                panic!("{got:?}");
            };
            payloads.extend(payload);
            if qos == 1 {
                sessions.puback(session, id);
            } else {
                // A release still counts: it is the PUBCOMP that lets the next one go.
                sessions.pubrec(session, id, false);
                assert!(sent(&mut sessions, 0).is_empty());
                sessions.pubcomp(session, id);
            }
            got.extend(sent(&mut sessions, 0));
        }
        assert_eq!(payloads, (0..200).collect::<Vec<u8>>());
    }
}

#[test]
fn packet_identifiers_wrap_and_leave_out_those_in_use() {
    // Traps 36 and 37.
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    let next = |sessions: &mut Sessions| match sessions.offer(session, qos(1), &content(b"x"), &[], true) {
        Offer::Send { packet_id } => packet_id,
        other => panic!("{other:?}"),
    };
    let mut in_use = BTreeSet::new();
    for lap in 0..3_u32 {
        for step in 0..65_535_u32 {
            let id = next(&mut sessions);
            assert!(id != 0 && in_use.insert(id), "{lap} {step} {id}");
            // Two of each lap are never acknowledged.
            if step != lap && step != 40_000 {
                sessions.puback(session, id);
                in_use.remove(&id);
            }
        }
    }
    assert_eq!(in_use.len(), 6);
    for id in std::mem::take(&mut in_use) {
        assert_eq!(sessions.puback(session, id), Acknowledged::Known);
    }
    assert!(sessions.states[0].traffic_mut().outgoing.has_lapped());
    next(&mut sessions);
    assert!(!sessions.states[0].traffic_mut().outgoing.has_lapped());
}

#[test]
fn the_client_s_identifiers_and_the_server_s_are_apart() {
    // Traps 30 to 35 and 38.
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    let offer = sessions.offer(session, qos(2), &content(b"x"), &[], true);
    assert_eq!(offer, Offer::Send { packet_id: 1 });
    assert_eq!(sessions.receive_qos2(session, 1), Incoming::New);
    for _ in 0..3 {
        assert_eq!(sessions.receive_qos2(session, 1), Incoming::Duplicate);
    }
    sessions.disconnect(session, 1, End::Lost, now(0));
    connected(&mut sessions, by("c", 2), 1);
    assert_eq!(sessions.receive_qos2(session, 1), Incoming::Duplicate);
    assert_eq!(sessions.pubrec(session, 1, false), Acknowledged::Known);
    assert_eq!(sessions.pubcomp(session, 1), Acknowledged::Known);
    assert!(sessions.has_received_qos2(session, 1));
    assert!(sessions.release_qos2(session, 1) && !sessions.release_qos2(session, 1));
    assert_eq!(sessions.receive_qos2(session, 1), Incoming::New);
    assert_eq!(sessions.incoming_len(session), 1);
}

#[test]
fn what_expires_before_it_is_sent_is_dropped_and_what_was_sent_is_still_owed() {
    // Trap 39.
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    let expiring = |payload| Content {
        expires_at: Some(5000),
        ..content(payload)
    };
    for payload in [b"a", b"b"] {
        sessions.offer(session, qos(2), &expiring(payload), &[], true);
        sessions.end_publication();
    }
    sessions.pubrec(session, 2, false);
    sessions.disconnect(session, 1, End::Lost, now(0));
    for payload in [b"c", b"d"] {
        sessions.offer(session, qos(2), &expiring(payload), &[], true);
        sessions.end_publication();
    }
    sessions.offer(session, qos(1), &content(b"e"), &[], true);
    sessions.end_publication();
    connected(&mut sessions, by("c", 2), 1);
    assert_eq!(
        sent(&mut sessions, 5000),
        [
            publish(b"a", 2, 1, true),
            Got::Release(2),
            publish(b"e", 1, 3, false)
        ]
    );
    assert_eq!(sessions.take_counts().dropped_expired, 2);
}

#[test]
fn a_publication_that_is_too_large_for_a_client_does_not_hold_up_the_others() {
    // Traps 61, 64 and 65.
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    sessions.disconnect(session, 1, End::Lost, now(0));
    for payload in [&b"small"[..], &[0; 1000], b"too"] {
        sessions.offer(session, qos(1), &content(payload), &[], true);
        sessions.end_publication();
    }
    connected(&mut sessions, by("c", 2), 1);
    let mut payloads = Vec::new();
    let session = sessions.next_ready().unwrap();
    let write = |_: Client, packet: &Packet<'_>| match packet {
        Packet::Publish { content, .. } if content.payload.len() < 100 => {
            payloads.push(content.payload.to_vec());
            Written::Queued
        }
        Packet::Publish { .. } | Packet::Release { .. } => Written::TooLarge,
    };
    let mut write = write;
    while sessions.send_next(session, 0, &mut write) == Sent::One {}
    assert_eq!(payloads, [b"small".to_vec(), b"too".to_vec()]);
    assert_eq!(sessions.outgoing_len(session), (2, 0));
    assert_eq!(sessions.take_counts().dropped_too_large, 1);
}

#[test]
fn a_full_queue_drops_by_its_policy() {
    for (queue_full, kept) in [
        (QueueFull::DropNewest, [0, 1, 2]),
        (QueueFull::DropOldest, [7, 8, 9]),
    ] {
        for bounds in [
            Bounds {
                queue_messages_max: 3,
                queue_full,
                ..BOUNDS
            },
            Bounds {
                queue_bytes_max: 3 * 120,
                queue_full,
                ..BOUNDS
            },
            Bounds {
                queues_bytes_max: 3 * 150,
                queue_full,
                ..BOUNDS
            },
        ] {
            let mut sessions = sessions(bounds);
            let session = connected(&mut sessions, by("c", 1), 0);
            sessions.disconnect(session, 1, End::Lost, now(0));
            for number in 0..10 {
                sessions.offer(session, qos(1), &content(&[number; 100]), &[], false);
                sessions.end_publication();
            }
            connected(&mut sessions, by("c", 2), 1);
            let payloads: Vec<u8> = sent(&mut sessions, 0)
                .iter()
                .map(|got| match got {
                    Got::Publish { payload, .. } => payload[0],
                    Got::Release(_) => unreachable!(),
                })
                .collect();
            assert_eq!(payloads, kept, "{bounds:?}");
            let counts = sessions.take_counts();
            assert_eq!(counts.dropped_queue + counts.dropped_total, 7);
        }
    }
}

/// The payloads that wait for a session, or are sent to its client and not acknowledged.
fn all_of(sessions: &Sessions, session: SessionRef) -> Vec<Vec<u8>> {
    let traffic = sessions.states[session.number as usize].traffic.as_deref();
    let kept = traffic.into_iter().flat_map(|traffic| traffic.outgoing.oldest());
    kept.map(|kept| sessions.kept.get(kept).0.payload.to_vec())
        .collect()
}

fn waiting_sessions(sessions: &mut Sessions, count: usize) -> Vec<SessionRef> {
    let ids = (0..count).map(|number| number.to_string());
    ids.enumerate()
        .map(|(number, id)| {
            let session = connected(sessions, by(&id, number), 0);
            sessions.disconnect(session, number, End::Lost, now(0));
            session
        })
        .collect()
}

#[test]
fn at_the_limit_of_all_queues_each_session_gives_its_oldest_for_the_newest() {
    let mut sessions = sessions(Bounds {
        queues_bytes_max: 10 * 150,
        queue_full: QueueFull::DropOldest,
        ..BOUNDS
    });
    let all = waiting_sessions(&mut sessions, 50);
    for number in 0..30_u8 {
        for &session in &all {
            sessions.offer(session, qos(1), &content(&[number; 100]), &[], false);
        }
        sessions.end_publication();
        assert!(sessions.kept_bytes() <= 10 * 150);
    }
    let first = all_of(&sessions, all[0]);
    assert!(first.len() > 5 && first.last().unwrap()[0] == 29, "{first:?}");
    for &session in &all {
        assert_eq!(all_of(&sessions, session), first);
    }
    // One that shares its queue with the others gets what it can, and loses nothing that would free no memory.
    for number in 100..120_u8 {
        let before = all_of(&sessions, all[0]).len();
        sessions.offer(all[0], qos(1), &content(&[number; 100]), &[], false);
        sessions.end_publication();
        assert!(sessions.kept_bytes() <= 10 * 150 + 150);
        assert!(all_of(&sessions, all[0]).len() + 1 >= before.max(first.len()));
    }
}

#[test]
fn a_publication_that_finds_no_room_leaves_the_queue_as_it_was_and_another_drops_as_little_as_it_can() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let bounds = Bounds {
            queue_messages_max: 1 + random.below(12) as usize,
            queue_bytes_max: 300 + random.below(1500) as u32,
            queues_bytes_max: 500 + random.below(4000) as usize,
            queue_full: QueueFull::DropOldest,
            in_flight_max: 4,
            ..BOUNDS
        };
        let mut sessions = sessions(bounds);
        let all = waiting_sessions(&mut sessions, 1 + random.below(5) as usize);
        let bytes_max = 400;
        for step in 0..200_u64 {
            let payload = vec![step as u8; random.below(bytes_max) as usize];
            let content = content(&payload);
            for (number, &session) in all.iter().enumerate() {
                match random.below(8) {
                    0 => {
                        connected(&mut sessions, by(&number.to_string(), number), 0);
                        sent(&mut sessions, 0);
                    }
                    1 => sessions.disconnect(session, number, End::Lost, now(0)),
                    2 => drop(sessions.puback(session, random.below(200) as u16)),
                    3 => {}
                    _ => {
                        let before = all_of(&sessions, session);
                        let offer = sessions.offer(session, qos(1), &content, &[], false);
                        let mut after = all_of(&sessions, session);
                        if offer == Offer::Dropped {
                            assert_eq!(after, before, "seed {seed}, step {step}");
                            continue;
                        }
                        assert_eq!(after.pop(), Some(payload.clone()), "seed {seed}, step {step}");
                        assert!(before.ends_with(&after), "seed {seed}, step {step}");
                        let dropped = &before[..before.len() - after.len()];
                        let room = bounds.queue_bytes_max as usize;
                        let is_full = before.len() == bounds.queue_messages_max;
                        let sum = |some: &[Vec<u8>]| some.iter().map(Vec::len).sum::<usize>();
                        if let [but_one @ .., _] = dropped
                            && !is_full
                            && sum(&before) + payload.len() + 40 * before.len() < room
                        {
                            assert!(sum(but_one) <= payload.len(), "seed {seed}, step {step}");
                        }
                    }
                }
            }
            sessions.end_publication();
            let most = bounds.queues_bytes_max + bytes_max as usize + 100;
            assert!(sessions.kept_bytes() <= most, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn what_is_in_flight_does_not_have_the_waiting_ones_dropped_for_nothing() {
    let mut sessions = sessions(Bounds {
        queue_bytes_max: 1000,
        in_flight_max: 2,
        queue_full: QueueFull::DropOldest,
        ..BOUNDS
    });
    let session = connected(&mut sessions, by("c", 1), 0);
    for number in 0..2_u8 {
        let offer = sessions.offer(session, qos(1), &content(&[number; 350]), &[], true);
        assert!(matches!(offer, Offer::Send { .. }));
        sessions.end_publication();
    }
    sessions.offer(session, qos(1), &content(&[2; 100]), &[], true);
    sessions.end_publication();
    let offer = sessions.offer(session, qos(1), &content(&[3; 400]), &[], true);
    assert_eq!((offer, all_of(&sessions, session).len()), (Offer::Dropped, 1));
    let offer = sessions.offer(session, qos(1), &content(&[4; 200]), &[], true);
    assert_eq!(
        (offer, all_of(&sessions, session)),
        (Offer::Waits, vec![vec![4; 200]])
    );
}

#[test]
fn sessions_and_wills_are_bounded() {
    let bytes = will(0).unwrap().bytes();
    let mut sessions = sessions(Bounds {
        sessions_max: 2,
        wills_bytes_max: 2 * bytes,
        ..BOUNDS
    });
    let with_will = |id, address| Connect {
        will: will(0),
        ..by(id, address)
    };
    let first = connected(&mut sessions, with_will("a", 1), 0);
    connected(&mut sessions, with_will("b", 2), 0);
    assert_eq!(
        sessions.connect(by("c", 3), now(0)),
        Err(ConnectRefused::SessionsFull)
    );
    // A client that comes back brings its own room.
    assert!(sessions.connect(with_will("b", 4), now(0)).is_ok());
    sessions.disconnect(first, 1, End::Lost, now(0));
    assert_eq!(
        sessions.connect(by("c", 3), now(99)),
        Err(ConnectRefused::SessionsFull)
    );
    sessions.end_due(now(100).uptime);
    assert!(sessions.connect(with_will("c", 5), now(100)).is_ok());
    sessions.bounds.sessions_max = 3;
    assert_eq!(
        sessions.connect(with_will("d", 6), now(100)),
        Err(ConnectRefused::WillsFull)
    );
    assert_eq!(sessions.len(), 2);
}

#[test]
fn sessions_share_the_publications_that_wait_for_them() {
    let mut sessions = sessions(Bounds {
        sessions_max: usize::MAX,
        ..BOUNDS
    });
    let all: Vec<_> = (0..100)
        .map(|number| {
            let session = connected(&mut sessions, by(&number.to_string(), number), 0);
            sessions.disconnect(session, number, End::Lost, now(0));
            session
        })
        .collect();
    for _ in 0..10 {
        for &session in &all {
            sessions.offer(session, qos(1), &content(&[b'x'; 64]), &[], false);
        }
        sessions.end_publication();
    }
    assert_eq!(sessions.kept.len(), 10);
    assert!(sessions.kept_bytes() < 10 * 160);
    sessions.end_due(now(1000).uptime);
    assert_eq!((sessions.len(), sessions.kept_bytes()), (0, 0));
}

/// MQTT-4.6.0-6: with the same QoS, the publications of a topic come in their order.
#[test]
fn what_comes_with_qos_0_queues_behind_what_has_waited_with_qos_0() {
    let bounds = Bounds {
        queues_qos0: true,
        in_flight_max: 1,
        ..BOUNDS
    };
    let mut sessions = sessions(bounds);
    let session = connected(&mut sessions, by("c", 1), 0);
    sessions.disconnect(session, 1, End::Lost, now(0));
    for (number, level) in [(0, 1), (1, 1), (2, 0)] {
        sessions.offer(session, qos(level), &content(&[number]), &[], false);
        sessions.end_publication();
    }
    let session = connected(&mut sessions, by("c", 2), 1);
    let payloads = |got: Vec<Got>| -> Vec<u8> {
        got.iter()
            .map(|got| match got {
                Got::Publish { payload, .. } => payload[0],
                Got::Release(_) => unreachable!(),
            })
            .collect()
    };
    assert_eq!(payloads(sent(&mut sessions, 0)), [0]);
    assert!(sessions.queues_qos0(session));
    assert_eq!(
        sessions.offer(session, qos(0), &content(&[3]), &[], true),
        Offer::Waits
    );
    sessions.end_publication();
    sessions.puback(session, 1);
    assert_eq!(payloads(sent(&mut sessions, 0)), [1, 2, 3]);
    assert!(!sessions.queues_qos0(session));
    assert_eq!(
        sessions.offer(session, qos(0), &content(&[4]), &[], true),
        Offer::Dropped
    );
}

/// Random numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A client as the specification has it, and the network between it and the server.
#[derive(Default)]
struct ModelClient {
    /// Packets that the server has sent and the client has not read.
    to_client: VecDeque<Got>,
    /// QoS 2 publications that the client has and that are not released.
    received: BTreeSet<u16>,
    /// The packets that the client has still to answer, in any order.
    owed: Vec<(Answer, u16)>,
    /// The client's own publications with QoS 2: identifier, and whether PUBREC has come.
    own: BTreeMap<u16, bool>,
    /// Every publication that its application got, by QoS.
    got: [Vec<u32>; 3],
}

struct Life {
    random: Random,
    sessions: Sessions,
    client: ModelClient,
    session: Option<SessionRef>,
    address: usize,
    expiry_s: u32,
    receive_maximum: u16,
    at_ms: u64,
    ends_at: Option<u64>,
    /// The publications that the session accepted, by QoS.
    accepted: [Vec<u32>; 3],
    next: u32,
}

impl Life {
    fn now(&self) -> Now {
        Now {
            uptime: Uptime::from_ms(self.at_ms),
            unix_ms: UNIX_MS + self.at_ms,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.cut(),
            1 | 2 => self.connect(),
            3..=9 => self.publish(),
            10..=15 => self.read_and_answer(),
            16 => self.at_ms += self.random.below(3_000),
            17 => self.send_own(),
            18 => self.sessions.end_due(self.now().uptime),
            _ => self.flush(false),
        }
        self.check();
    }

    /// The session is over on both sides: nothing of it is owed any more.
    fn forget(&mut self) {
        self.client = ModelClient::default();
        self.accepted = Default::default();
        self.session = None;
    }

    fn cut(&mut self) {
        if self.address == 0 {
            return;
        }
        let address = std::mem::take(&mut self.address);
        let end = match self.random.below(3) {
            0 => End::Lost,
            with => End::Orderly {
                with_will: with == 1,
                expiry_s: None,
            },
        };
        let session = self.session.unwrap();
        let now = self.now();
        self.sessions.disconnect(session, address, end, now);
        self.client.to_client.clear();
        self.client.owed.clear();
        if self.expiry_s == 0 {
            self.forget();
        } else {
            self.ends_at = (self.expiry_s != NEVER).then(|| self.at_ms + u64::from(self.expiry_s) * 1000);
        }
    }

    fn connect(&mut self) {
        let clean_start = self.random.one_in(5);
        let expiry_s = [0, 2, 5, NEVER][self.random.below(4) as usize];
        let receive_maximum = [1, 3, 65_535][self.random.below(3) as usize];
        let address = 1 + self.random.below(1 << 40) as usize;
        let is_over =
            self.ends_at.is_some_and(|at| at <= self.at_ms) || (self.address != 0 && self.expiry_s == 0);
        let connect = Connect {
            clean_start,
            expiry_s,
            receive_maximum,
            ..by("c", address)
        };
        let now = self.now();
        let connected = self.sessions.connect(connect, now).unwrap();
        let is_present = self.session.is_some() && !is_over && !clean_start;
        assert_eq!(connected.is_present, is_present);
        assert_eq!(connected.displaced, (self.address != 0).then_some(self.address));
        self.client.to_client.clear();
        self.client.owed.clear();
        if !is_present {
            self.forget();
        }
        (self.session, self.address, self.ends_at) = (Some(connected.session), address, None);
        (self.expiry_s, self.receive_maximum) = (expiry_s, receive_maximum);
        // The client goes on with its own publications.
        for (id, is_received) in self.client.own.clone() {
            if is_received {
                assert!(self.sessions.release_qos2(connected.session, id), "{id}");
                self.client.own.remove(&id);
            } else {
                assert_eq!(
                    self.sessions.receive_qos2(connected.session, id),
                    Incoming::Duplicate
                );
            }
        }
    }

    fn publish(&mut self) {
        let Some(session) = self.session else { return };
        if self.ends_at.is_some_and(|at| at <= self.at_ms) {
            return;
        }
        let level = 1 + self.random.below(2) as u8;
        let number = self.next;
        self.next += 1;
        let bytes = number.to_be_bytes();
        let has_room = !self.random.one_in(4);
        match self
            .sessions
            .offer(session, qos(level), &content(&bytes), &[], has_room)
        {
            Offer::Send { packet_id } => {
                assert!(self.address != 0 && has_room);
                self.client
                    .to_client
                    .push_back(publish(&bytes, level, packet_id, false));
                self.accepted[level as usize].push(number);
            }
            Offer::Waits => self.accepted[level as usize].push(number),
            Offer::Dropped => {
                assert!(self.sessions.outgoing_len(session).1 >= BOUNDS.queue_messages_max.min(20))
            }
        }
        self.sessions.end_publication();
    }

    /// The core sends what waits: all, or as much as the outbox takes.
    fn flush(&mut self, all: bool) {
        let unix_ms = self.now().unix_ms;
        while let Some(session) = self.sessions.next_ready() {
            let mut room = if all { u64::MAX } else { self.random.below(4) };
            loop {
                if room == 0 {
                    self.sessions.put_back(session);
                    return;
                }
                room -= 1;
                let to_client = &mut self.client.to_client;
                let write = |client: Client, packet: &Packet<'_>| {
                    assert_eq!(client.address, self.address);
                    to_client.push_back(read(packet));
                    Written::Queued
                };
                if self.sessions.send_next(session, unix_ms, write) == Sent::Nothing {
                    break;
                }
            }
        }
    }

    fn read_and_answer(&mut self) {
        let Some(session) = self.session.filter(|_| self.address != 0) else {
            return;
        };
        let client = &mut self.client;
        for _ in 0..self.random.below(4) {
            match client.to_client.pop_front() {
                None => break,
                Some(Got::Publish { payload, qos, id, .. }) => {
                    let number = u32::from_be_bytes(payload.try_into().unwrap());
                    if qos == 1 || client.received.insert(id) {
                        client.got[qos as usize].push(number);
                    }
                    client.owed.push(match qos {
                        1 => (Answer::Acknowledged, id),
                        _ => (Answer::Received, id),
                    });
                }
                Some(Got::Release(id)) => {
                    client.received.remove(&id);
                    client.owed.push((Answer::Complete, id));
                }
            }
        }
        for _ in 0..self.random.below(4) {
            if client.owed.is_empty() {
                break;
            }
            // MQTT-4.6.0-2 and -3: a client acknowledges in order; one that does not must not break the session.
            let at = if self.random.one_in(4) {
                self.random.below(client.owed.len() as u64) as usize
            } else {
                0
            };
            match client.owed.remove(at) {
                (Answer::Acknowledged, id) => {
                    self.sessions.puback(session, id);
                }
                (Answer::Received, id) => {
                    if self.sessions.pubrec(session, id, false) == Acknowledged::Known {
                        client.to_client.push_back(Got::Release(id));
                    }
                }
                (_, id) => {
                    self.sessions.pubcomp(session, id);
                }
            }
        }
    }

    fn send_own(&mut self) {
        let Some(session) = self.session.filter(|_| self.address != 0) else {
            return;
        };
        let id = 1 + self.random.below(5) as u16;
        match self.client.own.get(&id) {
            None => {
                assert_eq!(self.sessions.receive_qos2(session, id), Incoming::New);
                self.client.own.insert(id, false);
            }
            Some(false) => {
                assert_eq!(self.sessions.receive_qos2(session, id), Incoming::Duplicate);
                self.client.own.insert(id, true);
            }
            Some(true) => {
                assert!(self.sessions.release_qos2(session, id));
                self.client.own.remove(&id);
            }
        }
        assert_eq!(self.sessions.incoming_len(session), self.client.own.len());
    }

    fn check(&self) {
        let is_over = self.ends_at.is_some_and(|at| at <= self.at_ms);
        if let Some(session) = self.session
            && !is_over
        {
            assert!(self.sessions.exists(session));
            let (in_flight, _) = self.sessions.outgoing_len(session);
            assert!(in_flight <= 3 * usize::from(BOUNDS.in_flight_max));
        }
        let client = &self.client;
        // With QoS 2 exactly once, and in order. With QoS 1, the first time that each comes is in order.
        assert!(
            client.got[2]
                .iter()
                .eq(self.accepted[2].iter().take(client.got[2].len()))
        );
        let mut first = BTreeSet::new();
        let firsts = client.got[1].iter().filter(|&&number| first.insert(number));
        let firsts: Vec<u32> = firsts.copied().collect();
        assert!(firsts.iter().eq(self.accepted[1].iter().take(firsts.len())));
    }

    /// In the end a client that stays connected gets everything.
    fn settle(&mut self) {
        while self.address == 0 {
            self.connect();
        }
        for _ in 0..10_000 {
            self.flush(true);
            self.read_and_answer();
        }
        self.check();
        let session = self.session.unwrap();
        assert_eq!(self.sessions.outgoing_len(session), (0, 0));
        assert_eq!(self.client.got[2], self.accepted[2]);
        let got: BTreeSet<_> = self.client.got[1].iter().collect();
        assert!(got.into_iter().eq(&self.accepted[1]));
        assert_eq!((self.sessions.kept.len(), self.sessions.kept_bytes()), (0, 0));
        assert!(self.sessions.deadlines.is_empty());
    }
}

#[test]
fn random_lives_of_a_session_agree_with_the_client() {
    let seeds = match std::env::var("RINGCAST_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=300_u64,
    };
    for seed in seeds {
        println!("RINGCAST_SEED={seed}");
        let mut random = Random(seed);
        let bounds = Bounds {
            queue_messages_max: [20, 1000][random.below(2) as usize],
            in_flight_max: [1, 7, 100][random.below(3) as usize],
            ..BOUNDS
        };
        let mut life = Life {
            random,
            sessions: sessions(bounds),
            client: ModelClient::default(),
            session: None,
            address: 0,
            expiry_s: 0,
            receive_maximum: 0,
            at_ms: 0,
            ends_at: None,
            accepted: Default::default(),
            next: 0,
        };
        for _ in 0..1000 {
            life.step();
        }
        life.settle();
    }
}

#[test]
fn a_step_ends_the_fewer_sessions_the_more_they_have() {
    for (filters, queued) in [(0, 0), (100, 0), (0, 100)] {
        let mut sessions = sessions(BOUNDS);
        let limits = SubscriptionLimits {
            channels_max: 1000,
            names_bytes_max: 100_000,
        };
        let options = Options {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            id: 0,
        };
        for number in 0..100 {
            let id = number.to_string();
            let session = sessions.connect(by(&id, number), now(0)).unwrap().session;
            for filter in 0..filters {
                let subscriber = Subscriber::Session(session.number);
                let filter = filter.to_string();
                sessions
                    .subscriptions
                    .subscribe(subscriber, &filter, options, limits);
            }
            sessions.disconnect(session, number, End::Lost, now(0));
            for _ in 0..queued {
                sessions.offer(session, qos(1), &content(b"x"), &[], false);
                sessions.end_publication();
            }
        }
        sessions.end_due(now(100).uptime);
        let has_nothing = filters + queued == 0;
        assert_eq!(sessions.is_empty(), has_nothing, "{filters} {queued}");
        let mut steps = 1;
        while sessions.next_due() <= now(100).uptime {
            sessions.end_due(now(100).uptime);
            steps += 1;
        }
        assert!(sessions.is_empty() && steps <= 4, "{steps}");
        assert_eq!((sessions.kept_bytes(), sessions.subscriptions.len()), (0, 0));
    }
}
