//! Traps 50 to 52 of other brokers: the publications of a group that a session has at its end.

use super::*;
use crate::broker::ChannelHasher;
use crate::clock::{Now, Uptime};
use crate::config::QueueFull;
use crate::mqtt::Version;
use crate::mqtt::sessions::{Bounds, Connect, Content, CoreLocation, End, Outbound, Quotes, SessionRef};

const GROUP: &str = "$share/g/a/+";

fn sessions() -> Sessions {
    let bounds = Bounds {
        sessions_max: 10,
        queue_messages_max: 10,
        queue_bytes_max: 1 << 20,
        queues_bytes_max: 1 << 20,
        in_flight_max: 3,
        wills_bytes_max: 0,
        queue_full: QueueFull::DropNewest,
        queues_qos0: false,
    };
    let place = CoreLocation {
        core: 0,
        cores: 1,
        hasher: ChannelHasher::with_key(1),
    };
    Sessions::new(bounds, place)
}

const NOW: Now = Now {
    uptime: Uptime::from_ms(0),
    unix_ms: 0,
};

/// A new client, whose session is a member of the group.
fn member(sessions: &mut Sessions, client_id: &str, address: usize, expiry_s: u32) -> SessionRef {
    let connect = Connect {
        client_id,
        user: None,
        version: Version::V5,
        address,
        clean_start: false,
        expiry_s,
        receive_maximum: 3,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        will: None,
    };
    let session = sessions.connect(connect, NOW).unwrap().session;
    let options = Options {
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        id: 0,
    };
    let limits = SubscriptionLimits {
        channels_max: 10,
        names_bytes_max: 100,
    };
    sessions.join_group(session, GROUP, options, limits, 0);
    session
}

/// The owner of the group gets a publication.
fn publish(sessions: &mut Sessions, topic: &[u8], qos: u8) {
    let mut found = Vec::new();
    let hash = sessions.place.hasher.hash(topic);
    sessions.subscriptions.matches(hash, || topic, &mut found);
    let content = Content {
        topic,
        properties: b"",
        payload: topic,
        expires_at: None,
        is_utf8: false,
        quotes: Quotes::Kept,
    };
    for one in found {
        let Subscriber::Group(group) = one.subscriber() else {
            unreachable!("only groups subscribe")
        };
        let published = Outbound { qos, retain: false };
        sessions.shares.dispatch(group, u64::MAX, &content, published);
    }
}

/// Delivers the publications that have come for sessions. Returns their topics and the outcomes.
fn deliver(sessions: &mut Sessions) -> Vec<(SessionRef, Vec<u8>, Offer)> {
    let mut got = Vec::new();
    while let Some(handed) = sessions.shares.next_handed() {
        let (session, topic) = (handed.tag.session, handed.publication.content().topic.to_vec());
        let mut sent = None;
        let offer = sessions.offer_handed(handed, true, |_, content| sent = Some(content.topic.to_vec()));
        assert_eq!(matches!(offer, Offer::Send { .. }), sent.is_some());
        assert!(sent.is_none_or(|sent| sent == topic));
        got.push((session, topic, offer));
    }
    got
}

fn topics(got: &[(SessionRef, Vec<u8>, Offer)], session: SessionRef) -> Vec<&[u8]> {
    let own = got.iter().filter(|(other, _, _)| *other == session);
    own.map(|(_, topic, _)| &topic[..]).collect()
}

#[test]
fn at_the_end_of_a_session_all_but_qos_2_that_was_sent_goes_to_another_member() {
    for expiry_s in [0, 100] {
        let mut sessions = sessions();
        let first = member(&mut sessions, "first", 1, expiry_s);
        publish(&mut sessions, b"a/1", 1);
        publish(&mut sessions, b"a/2", 2);
        publish(&mut sessions, b"a/acknowledged", 1);
        publish(&mut sessions, b"a/queued1", 1);
        publish(&mut sessions, b"a/queued2", 2);
        publish(&mut sessions, b"b/1", 1);
        let offers: Vec<_> = deliver(&mut sessions)
            .into_iter()
            .map(|(_, _, offer)| offer)
            .collect();
        let send = |packet_id| Offer::Send { packet_id };
        assert_eq!(offers, [send(1), send(2), send(3), Offer::Waits, Offer::Waits]);
        sessions.puback(first, 3);
        sessions.tell_groups();
        let second = member(&mut sessions, "second", 2, 0);
        sessions.disconnect(first, 1, End::Lost, NOW);
        sessions.end_due(Uptime::from_ms(200_000));
        let got = deliver(&mut sessions);
        assert_eq!(topics(&got, second), [&b"a/1"[..], b"a/queued1", b"a/queued2"]);
        assert_eq!(got.len(), 3);
        assert_eq!(sessions.shares.take_counts(), (3, 0));
        // The first session is gone without a trace, and the next member is chosen as if it had never
        // existed.
        publish(&mut sessions, b"a/4", 0);
        assert_eq!(topics(&deliver(&mut sessions), second), [b"a/4"]);
        sessions.disconnect(second, 2, End::Lost, NOW);
        assert_eq!((sessions.shares.groups_len(), sessions.kept_bytes()), (0, 0));
        publish(&mut sessions, b"a/5", 1);
        assert!(deliver(&mut sessions).is_empty());
    }
}

#[test]
fn a_member_that_comes_back_gets_what_it_has_in_flight_and_new_ones_go_to_connected_members_meanwhile() {
    let mut sessions = sessions();
    let first = member(&mut sessions, "first", 1, 100);
    publish(&mut sessions, b"a/1", 1);
    deliver(&mut sessions);
    sessions.disconnect(first, 1, End::Lost, NOW);
    let second = member(&mut sessions, "second", 2, 0);
    for _ in 0..3 {
        publish(&mut sessions, b"a/2", 1);
    }
    assert_eq!(topics(&deliver(&mut sessions), second).len(), 3);
    let again = member(&mut sessions, "first", 3, 100);
    assert_eq!(again, first);
    assert_eq!(sessions.outgoing_len(first), (1, 0));
    publish(&mut sessions, b"a/3", 1);
    assert_eq!(topics(&deliver(&mut sessions), first), [b"a/3"]);
}

#[test]
fn what_is_handed_to_sessions_of_this_core_is_bounded_in_bytes() {
    let mut sessions = sessions();
    let member = member(&mut sessions, "member", 1, 0);
    let big = vec![b'x'; 500_000];
    let mut handed = 0;
    for _ in 0..2 {
        for _ in 0..5 {
            let mut found = Vec::new();
            let hash = sessions.place.hasher.hash(b"a/b");
            sessions.subscriptions.matches(hash, || b"a/b", &mut found);
            let content = Content {
                topic: b"a/b",
                properties: b"",
                payload: &big,
                expires_at: None,
                is_utf8: false,
                quotes: Quotes::Kept,
            };
            let Subscriber::Group(group) = found[0].subscriber() else {
                unreachable!("only groups subscribe")
            };
            let published = Outbound {
                qos: 0,
                retain: false,
            };
            sessions.shares.dispatch(group, u64::MAX, &content, published);
        }
        // Three fit into a megabyte, and one more that exceeds it.
        handed += topics(&deliver(&mut sessions), member).len();
    }
    assert_eq!(handed, 6);
    assert_eq!(sessions.shares.take_counts(), (0, 4));
}
