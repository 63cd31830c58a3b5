//! Each trap of `mqtt.md` about sessions: the client of a session, how long it lasts, and its publications in
//! flight. `tests/` has wills, queues, and random lives.
#![expect(clippy::cast_possible_truncation, reason = "random numbers below small ones")]

mod lives;
mod queues;
mod wills;

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
        claims: None,
    }))
}

fn content(payload: &[u8]) -> Content<'_> {
    Content {
        topic: b"t",
        properties: b"",
        payload,
        expires_at: None,
        is_utf8: false,
        quotes: Quotes::Kept,
    }
}

const fn qos(qos: u8) -> Outbound {
    Outbound { qos, retain: false }
}

/// The delays of the wills that are due, which stand in their payloads.
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
    let place = CoreLocation {
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
    // Traps 1 to 4: expiry, clean start and delay of the will, and the end of a session that is taken over.
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
fn a_session_outlives_its_connection_as_long_as_its_client_has_asked() {
    // Traps 24 to 28: expiry and clean start are independent.
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
                // Whether the core has tended its sessions meanwhile or not.
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
            // Two publications of each lap are never acknowledged.
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
    // A resuming client brings its own room.
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

/// A session with these numbers of filters, groups of its own and waiting publications, whose connection was
/// lost.
fn left_alone(sessions: &mut Sessions, client_id: &str, parts: [usize; 3], expiry_s: u32) -> SessionRef {
    let [filters, groups, queued] = parts;
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
    let connect = Connect {
        expiry_s,
        ..by(client_id, 1)
    };
    let session = connected(sessions, connect, 0);
    for filter in 0..filters {
        let subscriber = Subscriber::Session(session.number);
        let filter = filter.to_string();
        sessions
            .subscriptions
            .subscribe(subscriber, &filter, options, limits);
    }
    for group in 0..groups {
        let text = format!("$share/{client_id}/{group}");
        sessions.join_group(session, &text, options, limits, 0);
    }
    for _ in 0..queued {
        sessions.offer(session, qos(1), &content(b"x"), &[], false);
        sessions.end_publication();
    }
    sessions.disconnect(session, 1, End::Lost, now(0));
    session
}

/// Filters of sessions, groups, and publications.
fn things(sessions: &Sessions) -> usize {
    // The filter of a group is a subscription, too.
    usize::try_from(sessions.subscriptions.len()).unwrap() + sessions.kept.len()
}

#[test]
fn a_turn_goes_through_a_bounded_part_of_the_sessions_that_end() {
    const STEPS_MAX: usize = 300;
    for parts in [[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100], [40, 30, 30]] {
        for expiry_s in [0, 100] {
            let mut sessions = sessions(BOUNDS);
            sessions.begin_turn(usize::from(expiry_s > 0) * usize::MAX);
            for number in 0..50 {
                let session = left_alone(&mut sessions, &number.to_string(), parts, expiry_s);
                assert_eq!(sessions.exists(session), expiry_s > 0);
            }
            let total = things(&sessions);
            let mut turns = 0;
            while sessions.next_due() <= now(100).uptime {
                let before = things(&sessions);
                sessions.begin_turn(STEPS_MAX);
                sessions.end_due(now(100).uptime);
                assert!(before - things(&sessions) <= STEPS_MAX, "{parts:?}");
                turns += 1;
            }
            assert_eq!(total, 50 * parts.iter().sum::<usize>(), "{expiry_s}");
            assert!((total / STEPS_MAX..=total / STEPS_MAX + 1).contains(&turns) || total == 0);
            assert!(sessions.is_empty() && sessions.states.iter().next().is_none());
            assert_eq!((things(&sessions), sessions.kept_bytes()), (0, 0));
            assert_eq!(sessions.shares.groups_len(), 0);
        }
    }
}

#[test]
fn a_session_that_ends_step_by_step_has_ended_for_everybody_at_once() {
    let mut sessions = sessions(BOUNDS);
    let old = left_alone(&mut sessions, "c", [10, 10, 10], 100);
    sessions.begin_turn(3);
    let connect = Connect {
        clean_start: true,
        ..by("c", 2)
    };
    let new = sessions.connect(connect, now(1)).unwrap();
    assert!(!new.is_present && sessions.has_ending());
    let mut turns = 0;
    while sessions.has_ending() {
        assert!(!sessions.exists(old) && sessions.find("c") == Some(new.session.number));
        assert_ne!(new.session.number, old.number, "its number is not free");
        assert_eq!(
            sessions.subscriber(old.number, u64::MAX),
            None,
            "nothing is delivered to it"
        );
        assert_eq!(
            sessions.offer(old, qos(1), &content(b"late"), &[], true),
            Offer::Dropped
        );
        sessions.begin_turn(3);
        sessions.end_due(now(1).uptime);
        turns += 1;
    }
    // 30 things, of which the first turn has done 3.
    assert_eq!(turns, 9);
    assert_eq!(
        (things(&sessions), sessions.kept_bytes(), sessions.len()),
        (0, 0, 1)
    );
    let next = connected(&mut sessions, by("d", 3), 1);
    assert_eq!(next.number, old.number, "its number is free");
    assert!(sent(&mut sessions, UNIX_MS).is_empty());
}

#[test]
fn a_client_that_has_come_back_is_sent_nothing_while_its_filters_are_checked() {
    let mut sessions = sessions(BOUNDS);
    let session = connected(&mut sessions, by("c", 1), 0);
    sessions.disconnect(session, 1, End::Lost, now(0));
    sessions.offer(session, qos(1), &content(b"before"), &[], false);
    sessions.end_publication();
    for is_cut in [true, false] {
        assert!(sessions.connect(by("c", 2), now(1)).unwrap().is_present);
        sessions.begin_check(session);
        let client = sessions.client(session.number, session.serial);
        assert_eq!((client, sessions.is_of(session, 2)), (None, true));
        assert_eq!(
            sessions.offer(session, qos(1), &content(b"meanwhile"), &[], true),
            Offer::Waits
        );
        sessions.end_publication();
        assert!(sent(&mut sessions, UNIX_MS).is_empty());
        if is_cut {
            sessions.disconnect(session, 2, End::Lost, now(1));
        }
    }
    sessions.accept(session, 2);
    let payloads = [&b"before"[..], b"meanwhile", b"meanwhile"];
    let expected: Vec<_> = (1..)
        .zip(payloads)
        .map(|(id, payload)| publish(payload, 1, id, false))
        .collect();
    assert_eq!(sent(&mut sessions, UNIX_MS), expected);
    assert!(sessions.client(session.number, session.serial).is_some());
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
