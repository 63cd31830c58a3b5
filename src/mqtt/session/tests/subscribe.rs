//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 and 3.10.

use super::client::{NextStep, connect, core, packet, sent, split, string, subscribe};
use crate::decision::{CloseReason, Limit};
use crate::mqtt::Qos;
use crate::mqtt::subscriptions::Subscriber;

#[test]
fn each_filter_has_a_code_of_its_own() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    let filters = [("a/b", 0), ("a/#/b", 1), ("+/b", 1), ("a+", 0), ("#", 2)];
    let did = core.receive(&mut client, &subscribe(5, 10, &[], &filters));
    let bytes = sent(&did)[0];
    assert_eq!(bytes[0], 0x90);
    assert_eq!(bytes[2..4], [0, 10]);
    assert_eq!(bytes[bytes.len() - 5..], [0, 0x8f, 1, 0x8f, 2]);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    assert_eq!(core.sessions.subscriptions.count_of(subscriber), 3);
}

#[test]
fn before_mqtt_5_a_misplaced_wildcard_ends_the_connection() {
    for filter in ["a/#/b", "a+", "", "#/"] {
        for first in [0x82, 0xa2] {
            let mut core = core();
            let mut client = core.open(&connect(4, "a").bytes());
            let options: &[u8] = if first == 0x82 { &[0] } else { &[] };
            let body = [&[0, 1][..], &string("ok"), options, &string(filter), options];
            let did = core.receive(&mut client, &packet(first, &body));
            assert_eq!(did, [NextStep::Close(CloseReason::MalformedMqtt)], "{filter}");
            let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
            assert_eq!(core.sessions.subscriptions.count_of(subscriber), 0);
        }
    }
}

/// 3.1.1 has no shared subscriptions, and such a filter breaks none of its rules.
#[test]
fn before_mqtt_5_a_shared_filter_that_is_none_is_refused() {
    for filter in ["$share/", "$share/g", "$share//a", "$share/+/a"] {
        let mut core = core();
        let mut client = core.open(&connect(4, "a").bytes());
        let did = core.receive(&mut client, &subscribe(4, 1, &[], &[(filter, 1), ("a", 1)]));
        assert_eq!(sent(&did), [[0x90, 4, 0, 1, 0x80, 1]], "{filter}");
    }
}

/// MQTT-3.1.2-24: the answer is not sent if it is too large for the client, and the connection goes on.
#[test]
fn an_answer_that_is_too_large_for_the_client_is_not_sent() {
    let mut core = core();
    let mut packet_of = connect(5, "a");
    packet_of.properties = vec![0x27, 0, 0, 0, 20];
    let mut client = core.open(&packet_of.bytes());
    for count in [15, 16] {
        let filters: Vec<String> = (0..count).map(|number| format!("{number}")).collect();
        let pairs: Vec<(&str, u8)> = filters.iter().map(|filter| (&**filter, 0)).collect();
        let did = core.receive(&mut client, &subscribe(5, 1, &[], &pairs));
        let sizes: Vec<usize> = sent(&did).iter().map(|bytes| bytes.len()).collect();
        assert_eq!(sizes, vec![20; usize::from(count == 15)]);
        let names: Vec<Vec<u8>> = filters.iter().map(string).collect();
        let did = core.receive(&mut client, &packet(0xa2, &[&[0, 2, 0], &names.concat()]));
        assert_eq!(sent(&did).len(), usize::from(count == 15));
    }
    assert_eq!(sent(&core.receive(&mut client, &[0xc0, 0])), [[0xd0, 0]]);
}

#[test]
fn the_options_are_kept_and_a_second_subscribe_replaces_them() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    // Subscription identifier 300; QoS 2, No Local, Retain As Published.
    let first = subscribe(5, 1, &[0x0b, 0xac, 2], &[("a", 0b0000_1110)]);
    assert_eq!(sent(&core.receive(&mut client, &first)), [[0x90, 4, 0, 1, 0, 2]]);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    let options = |core: &super::client::Core<_>| {
        let (filters, _) = core.sessions.subscriptions.some_filters_of(subscriber, 0, 10);
        assert_eq!(filters.len(), 1);
        filters[0].1
    };
    let kept = options(&core);
    assert_eq!((kept.qos, kept.id), (Qos::ExactlyOnce, 300));
    assert!(kept.no_local && kept.retain_as_published);
    core.receive(&mut client, &subscribe(5, 2, &[], &[("a", 0)]));
    let kept = options(&core);
    assert_eq!((kept.qos, kept.id), (Qos::AtMostOnce, 0));
    assert!(!kept.no_local && !kept.retain_as_published);
}

/// Traps 54 to 56 of other brokers: a filter with wildcards may be shared, one bad filter does not affect the
/// others, and a shared subscription and a plain one of the same filter are two subscriptions.
#[test]
fn shared_subscriptions_are_granted_and_ended_like_others() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    let filters = [
        ("$share/g/a/#", 1),
        ("$share//a", 1),
        ("$share/g/a#", 1),
        ("$share/g", 1),
        ("a/#", 0),
        ("$share/h/a/#", 2),
    ];
    let did = core.receive(&mut client, &subscribe(5, 1, &[], &filters));
    let bytes = sent(&did)[0];
    assert_eq!((bytes[0], &bytes[2..4]), (0x90, &[0, 1][..]));
    assert_eq!(bytes[bytes.len() - 6..], [1, 0x8f, 0x8f, 0x8f, 0, 2]);
    let session = client.session.session_ref().unwrap();
    let texts = |core: &super::client::Core<_>| core.sessions.shares.texts_of(session, 0, usize::MAX);
    assert_eq!(texts(&core), ["$share/g/a/#", "$share/h/a/#"].map(Box::from));
    assert_eq!(core.sessions.shares.groups_len(), 2);
    let gone = ["$share/g/a/#", "$share/g/a/#", "$share/x/a"]
        .map(string)
        .concat();
    let did = core.receive(&mut client, &packet(0xa2, &[&[0, 2, 0], &gone]));
    assert_eq!(sent(&did), [[0xb0, 6, 0, 2, 0, 0, 0x11, 0x11]]);
    assert_eq!(texts(&core), ["$share/h/a/#"].map(Box::from));
    let subscriber = Subscriber::Session(session.number);
    assert_eq!(core.sessions.subscriptions.count_of(subscriber), 1);
}

#[test]
fn no_local_with_a_shared_subscription_is_a_protocol_error() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    let did = core.receive(&mut client, &subscribe(5, 1, &[], &[("b", 0), ("$share/g/a", 4)]));
    assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    assert_eq!(core.sessions.subscriptions.count_of(subscriber), 0);
}

#[test]
fn a_subscribe_that_is_not_legal_ends_the_connection() {
    let filter = string("a");
    for (level, body, reason) in [
        // No filter, no options, reserved bits of the options, Retain Handling 3, QoS 3.
        (4, vec![0, 1], CloseReason::MqttProtocolError),
        (5, vec![0, 1, 0], CloseReason::MqttProtocolError),
        (4, [&[0, 1][..], &filter].concat(), CloseReason::MalformedMqtt),
        (
            4,
            [&[0, 1][..], &filter, &[4]].concat(),
            CloseReason::MalformedMqtt,
        ),
        (
            5,
            [&[0, 1, 0][..], &filter, &[0xc0]].concat(),
            CloseReason::MalformedMqtt,
        ),
        (
            5,
            [&[0, 1, 0][..], &filter, &[0x30]].concat(),
            CloseReason::MqttProtocolError,
        ),
        // Subscription Identifier 0 (trap 90).
        (
            5,
            [&[0, 1, 2, 0x0b, 0][..], &filter, &[0]].concat(),
            CloseReason::MqttProtocolError,
        ),
    ] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        let did = core.receive(&mut client, &packet(0x82, &[&body]));
        assert_eq!(did, [NextStep::Close(reason)], "{body:?}");
    }
}

#[test]
fn filters_have_bounds_in_number_length_and_levels() {
    let mut core = core();
    core.settings.subscription_limits.channels_max = 2;
    core.settings.levels_max = 3;
    core.common.channel_name_bytes_max = 20;
    let mut client = core.open(&connect(5, "a").bytes());
    let filters = [
        ("1/2/3/4", 0),
        ("123456789012345678901", 0),
        ("a", 0),
        ("b", 0),
        ("c", 0),
        ("a", 1),
    ];
    let did = core.receive(&mut client, &subscribe(5, 1, &[], &filters));
    let bytes = sent(&did)[0];
    assert_eq!(bytes[bytes.len() - 6..], [0x8f, 0x8f, 0, 0, 0x97, 1]);
    let hits = core.scratch.take_hits();
    for limit in [
        Limit::MqttLevels,
        Limit::ChannelNameBytes,
        Limit::ChannelsPerConnection,
    ] {
        assert_eq!(hits.of(limit), 1, "{limit:?}");
    }
}

#[test]
fn unsubscribe_says_for_each_filter_whether_there_was_one() {
    for (level, codes) in [(4, &[][..]), (5, &[0, 0x00, 0x11][..])] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        core.receive(&mut client, &subscribe(level, 1, &[], &[("a/#", 0)]));
        let no_properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let body = [&[0, 2][..], no_properties, &string("a/#"), &string("b")];
        let did = core.receive(&mut client, &packet(0xa2, &body));
        let expected = packet(0xb0, &[&[0, 2], codes]);
        assert_eq!(sent(&did), [expected]);
        let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
        assert_eq!(core.sessions.subscriptions.count_of(subscriber), 0);
    }
}

/// The other decisions may have to wait, for the store or for presence, while publications come live. Those
/// would be sent once more as retained ones.
#[test]
fn retained_publications_are_asked_for_before_anything_else_is_done() {
    let mut core = core();
    let mut client = core.open(&connect(5, "c").bytes());
    let did = core.receive(&mut client, &subscribe(5, 1, &[], &[("a", 0), ("b", 1)]));
    let asked = |filter: &str, qos| NextStep::SendRetained(filter.to_owned(), qos, 0);
    assert_eq!(did[..2], [asked("a", 0), asked("b", 1)]);
    assert!(matches!(did[2..], [NextStep::Send(_)]), "{did:?}");
}

#[test]
fn retained_publications_are_asked_for_as_retain_handling_says() {
    let mut core = core();
    let mut client = core.open(&connect(5, "c").bytes());
    let asked = |did: &[NextStep]| {
        let asked = did.iter().filter_map(|did| match did {
            NextStep::SendRetained(filter, qos, _) => Some((filter.clone(), *qos)),
            NextStep::Send(_)
            | NextStep::Publish(..)
            | NextStep::EndOther(..)
            | NextStep::Login(..)
            | NextStep::Acknowledge(_)
            | NextStep::SaveSession
            | NextStep::Close(_) => None,
        });
        asked.collect::<Vec<_>>()
    };
    // Retain Handling 0 always asks, 1 if the subscription is new, 2 never.
    for (options, is_asked) in [(0x20, false), (0x10, false), (0x01, true), (0x02, true)] {
        let did = core.receive(&mut client, &subscribe(5, 1, &[], &[("a/+", options)]));
        let expected = is_asked.then(|| ("a/+".to_owned(), options & 3));
        assert_eq!(asked(&did), Vec::from_iter(expected), "{options:#x}");
    }
    let did = core.receive(&mut client, &subscribe(5, 2, &[], &[("new", 0x11)]));
    assert_eq!(asked(&did), [("new".to_owned(), 1)]);
}

#[test]
fn a_long_packet_is_handled_in_parts_and_answered_once_with_the_codes_of_all_filters() {
    const COUNT: usize = 1000;
    for level in [4, 5] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
        let names: Vec<String> = (0..COUNT)
            .map(|number| match number {
                500 => "$share/g/x".to_owned(),
                700 if level == 5 => "not/#/a/filter".to_owned(),
                _ => format!("w/+/{number}"),
            })
            .collect();
        let filters: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
        let of_it: &[u8] = if level == 5 { &[0x0b, 0x85, 0x01] } else { &[] };
        let before = core.scratch.packets_of_arrays();
        let mut parts = vec![core.receive(&mut client, &subscribe(level, 9, of_it, &filters))];
        let mut had = 0;
        while client.session.has_more() {
            let has = core.sessions.subscriptions.count_of(subscriber);
            assert!(has > had && has - had <= 64, "{has} {had}");
            had = has;
            assert!(sent(parts.last().unwrap()).is_empty(), "the answer comes last");
            let more = core.run(&mut client, |session, env, decisions| {
                session.receive_more(env, decisions)
            });
            parts.push(more);
        }
        assert_eq!(parts.len(), COUNT.div_ceil(64));
        let counted = core.scratch.packets_of_arrays() - before;
        assert_eq!(
            counted,
            (COUNT - parts.len()) as u64,
            "each filter counts as a message"
        );
        let answers: Vec<_> = parts.iter().flat_map(|did| sent(did)).collect();
        let mut codes = vec![1; COUNT];
        if level == 5 {
            codes[700] = 0x8f;
        }
        assert_eq!(answers.len(), 1);
        assert!(answers[0].ends_with(&codes) && split(answers[0]).1[..2] == [0, 9]);
        let plain = COUNT - 1 - usize::from(level == 5);
        assert_eq!(core.sessions.subscriptions.count_of(subscriber), plain);
        let id = core
            .sessions
            .subscriptions
            .options_of(subscriber, "w/+/999")
            .unwrap()
            .id;
        assert_eq!(id, if level == 5 { 133 } else { 0 });
        // The next packet is a short one.
        let did = core.receive(&mut client, &subscribe(level, 10, &[], &[("z", 0)]));
        assert!(sent(&did)[0].ends_with(&[0]));
        let mut body = vec![0, 11];
        if level == 5 {
            body.push(0);
        }
        names.iter().for_each(|name| body.extend(string(name)));
        let parts = core.receive_parts(&mut client, &packet(0xa2, &[&body]));
        assert_eq!(parts.len(), COUNT.div_ceil(64));
        let answers: Vec<_> = parts.iter().flat_map(|did| sent(did)).collect();
        assert_eq!((answers.len(), answers[0][0]), (1, 0xb0));
        assert_eq!(core.sessions.subscriptions.count_of(subscriber), 1);
    }
}

#[test]
fn a_malformed_filter_of_a_long_packet_ends_the_connection_when_its_part_comes() {
    let mut core = core();
    let mut client = core.open(&connect(4, "a").bytes());
    let filters = vec![("a/long/filter", 0); 100];
    let mut body = split(&subscribe(4, 1, &[], &filters)).1.to_vec();
    body.truncate(body.len() - 3);
    let parts = core.receive_parts(&mut client, &packet(0x82, &[&body]));
    assert_eq!(parts.len(), 2);
    assert_eq!(
        parts[1].last(),
        Some(&NextStep::Close(CloseReason::MalformedMqtt))
    );
    core.end(&mut client, CloseReason::MalformedMqtt);
    // Before any filter was looked at, as in a short packet: the identifier 0, and properties that do not end.
    for (begin, reason) in [
        (&[0, 0][..], CloseReason::MqttProtocolError),
        (&[0, 1, 0xff, 0xff, 0xff], CloseReason::MalformedMqtt),
    ] {
        let mut client = core.open(&connect(5, "a").bytes());
        let long = [begin, &[b'x'; 600]].concat();
        let did = core.receive(&mut client, &packet(0x82, &[&long]));
        assert_eq!(did, [NextStep::Close(reason)]);
        assert!(!client.session.has_more());
    }
}
