//! PUBLISH from the client: section 3.3.

use super::client::{NextStep, connect, core, packet, properties, publish, sent, split, string};
use crate::decision::{CloseReason, Limit, Stored};
use crate::mqtt::settings::ReceiveExcess;
use crate::policy::channels::{ChannelPolicy, ChannelSpec, Channels, HistoryPolicy};

/// PUBLISH flags for a QoS.
const QOS: [u8; 3] = [0, 2, 4];

fn published(topic: &str, qos: u8, payload: &[u8]) -> NextStep {
    NextStep::Publish(topic.to_owned(), qos, false, payload.to_vec())
}

#[test]
fn a_publication_is_decided_before_its_acknowledgement() {
    for (level, properties) in [(3, None), (4, None), (5, Some(&b""[..]))] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        for (qos, answer) in [(0, None), (1, Some(0x40)), (2, Some(0x50))] {
            let bytes = publish(QOS[usize::from(qos)], "a/b", 7, properties, b"x");
            let did = core.receive(&mut client, &bytes);
            let mut expected = vec![published("a/b", qos, b"x")];
            expected.extend(answer.map(|first| NextStep::Send(vec![first, 2, 0, 7])));
            assert_eq!(did, expected, "{level} {qos}");
        }
    }
}

#[test]
fn a_publication_with_qos_2_is_published_once_until_it_is_released() {
    for (level, properties) in [(4, None), (5, Some(&b""[..]))] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        let bytes = publish(4, "a", 9, properties, b"x");
        assert_eq!(core.receive(&mut client, &bytes).len(), 2);
        // Two duplicates, and one without the flag (traps 30 to 32).
        let mut dup = bytes.clone();
        dup[0] |= 8;
        for again in [&dup, &dup, &bytes] {
            assert_eq!(sent(&core.receive(&mut client, again)), [[0x50, 2, 0, 9]]);
        }
        let pubrel = [0x62, 2, 0, 9];
        assert_eq!(sent(&core.receive(&mut client, &pubrel)), [[0x70, 2, 0, 9]]);
        assert_eq!(core.receive(&mut client, &bytes)[0], published("a", 2, b"x"));
    }
}

/// MQTT-4.3.3-2: a publication that got no place in the order is no duplicate when it is sent again.
#[test]
fn a_publication_that_is_dropped_with_its_connection_can_be_sent_again_with_qos_2() {
    let bytes = publish(4, "a", 9, None, b"x");
    let (first, body) = split(&bytes);
    let pubrec = || NextStep::Send(vec![0x50, 2, 0, 9]);
    // Neither decision was carried out; or the publication was, and its acknowledgement was not.
    for (at, expected) in [(0, vec![published("a", 2, b"x"), pubrec()]), (1, vec![pubrec()])] {
        let mut core = core();
        let mut client = core.open(&connect(4, "a").bytes());
        core.run(&mut client, |session, env, decisions| {
            session.receive(first, body, env, decisions)?;
            session.publications_dropped(decisions, at, env.sessions);
            Ok(())
        });
        let mut again = bytes.clone();
        again[0] |= 8;
        assert_eq!(core.receive(&mut client, &again), expected);
    }
}

/// Section 3.2.2.3.5: CONNACK has said that nothing is retained. A client of 3.1.1 was not told.
#[test]
fn a_client_that_was_told_so_may_not_ask_for_what_is_not_retained() {
    for (level, properties) in [(4, None), (5, Some(&b""[..]))] {
        let mut core = core();
        core.settings.retain_available = false;
        let mut client = core.open(&connect(level, "a").bytes());
        let did = core.receive(&mut client, &publish(1, "a", 0, properties, b"x"));
        match level {
            4 => assert_eq!(did, [NextStep::Publish("a".into(), 0, true, b"x".to_vec())]),
            _ => {
                assert_eq!(did, [NextStep::Close(CloseReason::RetainNotSupported)]);
                let farewell = core.farewell(&client, CloseReason::RetainNotSupported, "");
                assert_eq!(farewell[2], 0x9a);
            }
        }
        let did = core.receive(&mut client, &publish(0, "a", 0, properties, b"x"));
        assert_eq!(did, [published("a", 0, b"x")]);
    }
}

/// CVE-2021-41039, and the same fault in other packets.
#[test]
fn user_properties_have_a_bound_in_each_packet() {
    let user = |count: usize| properties(&[&b"\x26\0\x01n\0\x01v".repeat(count)]);
    let packets = |count| {
        let user = user(count);
        let user = user.as_slice();
        [
            packet(0x30, &[&string("a"), user]),
            packet(0x40, &[&[0, 1, 0], user]),
            packet(0x50, &[&[0, 1, 0], user]),
            packet(0x62, &[&[0, 1, 0], user]),
            packet(0x70, &[&[0, 1, 0], user]),
            packet(0x82, &[&[0, 1], user, &string("a"), &[0]]),
            packet(0xa2, &[&[0, 1], user, &string("a")]),
            packet(0xe0, &[&[0], user]),
        ]
    };
    for (bytes, more) in packets(3).iter().zip(packets(4)) {
        let mut core = core();
        core.settings.user_properties_max = 3;
        let mut client = core.open(&connect(5, "a").bytes());
        let did = core.receive(&mut client, &more);
        assert_eq!(
            did,
            [NextStep::Close(CloseReason::TooManyUserProperties)],
            "{more:x?}"
        );
        let farewell = core.farewell(&client, CloseReason::TooManyUserProperties, "");
        assert_eq!(farewell[2], 0x97);
        let did = core.receive(&mut client, bytes);
        assert!(
            !did.contains(&NextStep::Close(CloseReason::TooManyUserProperties)),
            "{bytes:x?}"
        );
    }
    let mut core = core();
    core.settings.user_properties_max = 3;
    for (of_connect, of_will, code) in [(3, 3, 0), (4, 0, 0x97), (0, 4, 0x97)] {
        let mut with_will = connect(5, "a");
        with_will.properties = user(of_connect)[1..].to_vec();
        with_will.will = Some((0, user(of_will)[1..].to_vec(), "w", b"x"));
        let mut client = core.client();
        let did = core.receive(&mut client, &with_will.bytes());
        assert!(
            matches!(&did[0], NextStep::Send(connack) if connack[3] == code),
            "{did:?}"
        );
    }
    assert_eq!(core.scratch.take_hits().of(Limit::MqttUserProperties), 2);
}

#[test]
fn the_release_of_nothing_is_answered_and_mqtt_5_says_that_it_is_nothing() {
    for (level, answer) in [(4, &[0x70, 2, 0, 9][..]), (5, &[0x70][..])] {
        let mut core = core();
        let mut client = core.open(&connect(level, "a").bytes());
        let did = core.receive(&mut client, &[0x62, 2, 0, 9]);
        let bytes = sent(&did)[0];
        assert!(bytes.starts_with(answer));
        if level == 5 {
            assert_eq!(bytes[2..5], [0, 9, 0x92]);
        }
    }
}

#[test]
fn packet_identifier_0_is_a_protocol_error() {
    let mut core = core();
    let mut client = core.open(&connect(4, "a").bytes());
    let did = core.receive(&mut client, &publish(2, "a", 0, None, b""));
    assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
}

#[test]
fn the_identifiers_of_both_directions_are_apart() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    core.receive(&mut client, &publish(4, "a", 1, Some(b""), b"x"));
    // PUBACK, PUBREC, PUBCOMP for publications that the server has not sent.
    assert_eq!(core.receive(&mut client, &[0x40, 2, 0, 1]), []);
    assert_eq!(core.receive(&mut client, &[0x70, 2, 0, 1]), []);
    let did = core.receive(&mut client, &[0x50, 2, 0, 1]);
    assert_eq!(sent(&did)[0][..5], [0x62, sent(&did)[0][1], 0, 1, 0x92]);
    // The exchange of the client goes on.
    assert_eq!(
        sent(&core.receive(&mut client, &[0x62, 2, 0, 1])),
        [[0x70, 2, 0, 1]]
    );
}

#[test]
fn a_topic_alias_stands_for_the_topic_that_came_with_it() {
    let mut core = core();
    core.settings.topic_aliases_max = 2;
    let mut client = core.open(&connect(5, "a").bytes());
    let alias = |number: u8| [0x23, 0, number];
    let send = |core: &mut super::client::Core<_>, client: &mut _, topic: &str, number| {
        core.receive(client, &publish(0, topic, 0, Some(&alias(number)), b"x"))
    };
    assert_eq!(send(&mut core, &mut client, "a", 1), [published("a", 0, b"x")]);
    assert_eq!(send(&mut core, &mut client, "", 1), [published("a", 0, b"x")]);
    assert_eq!(send(&mut core, &mut client, "b", 1), [published("b", 0, b"x")]);
    assert_eq!(send(&mut core, &mut client, "", 1), [published("b", 0, b"x")]);
    // Traps 57 and 60.
    for (topic, number, reason) in [
        ("a", 0, CloseReason::TopicAliasInvalid),
        ("a", 3, CloseReason::TopicAliasInvalid),
        ("", 2, CloseReason::MqttProtocolError),
    ] {
        let did = send(&mut core, &mut client, topic, number);
        assert_eq!(did, [NextStep::Close(reason)], "{topic} {number}");
    }
    let did = core.receive(&mut client, &publish(0, "", 0, Some(b""), b"x"));
    assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
    // Another connection knows no alias (mosquitto#2494).
    let mut client = core.open(&connect(5, "a").bytes());
    let did = send(&mut core, &mut client, "", 1);
    assert_eq!(did, [NextStep::Close(CloseReason::MqttProtocolError)]);
}

#[test]
fn more_publications_in_flight_than_the_receive_maximum_end_the_connection_or_are_counted() {
    for (level, excess, ends) in [
        (5, ReceiveExcess::Disconnect, true),
        (5, ReceiveExcess::Count, false),
        (4, ReceiveExcess::Disconnect, false),
    ] {
        let mut core = core();
        core.settings.receive_maximum = 2;
        core.settings.receive_excess = excess;
        let mut client = core.open(&connect(level, "a").bytes());
        let properties = (level == 5).then_some(&b""[..]);
        let mut send = |core: &mut super::client::Core<_>, id| {
            core.receive(&mut client, &publish(4, "a", id, properties, b"x"))
        };
        assert_eq!(send(&mut core, 1).len(), 2);
        assert_eq!(send(&mut core, 2).len(), 2);
        // A duplicate is not another one.
        assert_eq!(send(&mut core, 2).len(), 1);
        let did = send(&mut core, 3);
        assert_eq!(
            did == [NextStep::Close(CloseReason::ReceiveMaximumExceeded)],
            ends,
            "{did:?}"
        );
        let hits = core.scratch.take_hits().of(Limit::MqttReceiveMaximum);
        assert_eq!(hits, u32::from(level == 5));
    }
}

#[test]
fn a_released_publication_gives_its_place_back_and_an_unknown_one_does_not() {
    let mut core = core();
    core.settings.receive_maximum = 1;
    let mut client = core.open(&connect(5, "a").bytes());
    let send = |core: &mut super::client::Core<_>, client: &mut _, id| {
        core.receive(client, &publish(4, "a", id, Some(b""), b"x"))
    };
    for id in 1..5 {
        assert_eq!(send(&mut core, &mut client, id).len(), 2);
        let [high, low] = id.to_be_bytes();
        core.receive(&mut client, &[0x62, 2, high, low]);
    }
    send(&mut core, &mut client, 9);
    // Trap 98.
    core.receive(&mut client, &[0x62, 2, 0, 8]);
    let did = send(&mut core, &mut client, 10);
    assert_eq!(did, [NextStep::Close(CloseReason::ReceiveMaximumExceeded)]);
}

#[test]
fn topics_of_the_server_and_long_topics_are_refused() {
    let mut core = core();
    core.common.channel_name_bytes_max = 10;
    let mut client = core.open(&connect(5, "a").bytes());
    let mut old = core.open(&connect(4, "b").bytes());
    for (topic, code) in [
        ("$SYS/x", 0x87),
        ("$SYS", 0x87),
        ("$share/g/a", 0x87),
        ("12345678901", 0x90),
    ] {
        for (flags, first) in [(2, 0x40), (4, 0x50)] {
            let did = core.receive(&mut client, &publish(flags, topic, 3, Some(b""), b"x"));
            let bytes = sent(&did)[0].to_vec();
            assert_eq!((bytes[0], &bytes[2..5]), (first, &[0, 3, code][..]), "{topic}");
            // The exchange has ended: the identifier is free.
            let did = core.receive(&mut client, &publish(flags, "a", 3, Some(b""), b"x"));
            assert_eq!(did[0], published("a", flags >> 1, b"x"));
            core.receive(&mut client, &[0x62, 2, 0, 3]);

            let did = core.receive(&mut old, &publish(flags, topic, 3, None, b"x"));
            assert_eq!(sent(&did), [[first, 2, 0, 3]], "3.1.1 has no code");
            core.receive(&mut old, &[0x62, 2, 0, 3]);
        }
        assert_eq!(
            core.receive(&mut client, &publish(0, topic, 0, Some(b""), b"x")),
            []
        );
    }
    assert_eq!(core.scratch.take_mqtt_counts().publications_refused, 4 * 5);
    // Other names that begin with $ are ordinary names.
    let did = core.receive(&mut client, &publish(0, "$a", 0, Some(b""), b"x"));
    assert_eq!(did, [published("$a", 0, b"x")]);
}

#[test]
fn a_payload_that_is_said_to_be_utf_8_is_checked_if_that_is_set() {
    for (checks, indicator, payload, is_refused) in [
        (true, 1, &b"\xff"[..], true),
        (true, 1, b"text", false),
        (true, 0, b"\xff", false),
        (false, 1, b"\xff", false),
    ] {
        let mut core = core();
        core.settings.checks_payload_format = checks;
        let mut client = core.open(&connect(5, "a").bytes());
        let did = core.receive(&mut client, &publish(2, "a", 1, Some(&[1, indicator]), payload));
        if is_refused {
            assert_eq!(sent(&did)[0][4], 0x99);
        } else {
            assert_eq!(did[0], published("a", 1, payload));
        }
    }
}

#[test]
fn acknowledgements_have_no_words_if_the_client_does_not_want_any() {
    let mut core = core();
    let mut packet = connect(5, "a");
    packet.properties = vec![0x17, 0];
    let mut client = core.open(&packet.bytes());
    let did = core.receive(&mut client, &publish(2, "$SYS/x", 1, Some(b""), b"x"));
    assert_eq!(sent(&did), [[0x40, 3, 0, 1, 0x87]]);
    let mut client = core.open(&connect(5, "b").bytes());
    let did = core.receive(&mut client, &publish(2, "$SYS/x", 1, Some(b""), b"x"));
    assert!(sent(&did)[0].ends_with(&string("Only the server publishes to $SYS")));
}

#[test]
fn properties_for_subscribers_are_passed_on_in_their_order_and_the_others_are_not() {
    let user = |name: &str, value: &str| [&[0x26][..], &string(name), &string(value)].concat();
    let passed_on = [
        &user("b", "1")[..],
        &[&[0x08][..], &string("answers/here")].concat(),
        &[&[0x09][..], &string(b"\x00\xff")].concat(),
        &user("a", "2"),
        &[&[0x03][..], &string("text/plain")].concat(),
        &user("b", "3"),
    ]
    .concat();
    // Payload format, message expiry, topic alias.
    let others = [&[1, 1][..], &[2, 0, 0, 0, 60], &[0x23, 0, 1]].concat();
    for given in [passed_on.clone(), [&others[..], &passed_on].concat()] {
        let has_others = given.len() > passed_on.len();
        let mut core = core();
        let mut client = core.open(&connect(5, "a").bytes());
        let bytes = publish(1, "a", 0, Some(&given), b"x");
        let heads = std::cell::RefCell::new(Vec::new());
        let now_ms = core.now.unix_ms;
        core.run(&mut client, |session, env, decisions| {
            let behind = bytes[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 2;
            let (first, body) = (bytes[0], &bytes[behind..]);
            let result = session.receive(first, body, env, decisions);
            let Some(crate::decision::Decision::Publish(publish)) = decisions.decision(0) else {
                panic!()
            };
            let view = crate::mqtt::publication::read(decisions.bytes(publish.message)).unwrap();
            heads.borrow_mut().push((view.head, view.properties.to_vec()));
            result
        });
        let (head, properties) = heads.into_inner().remove(0);
        assert_eq!(properties, passed_on);
        assert!(head.retain);
        assert_eq!(head.is_text, has_others);
        assert_eq!(head.expires_at_ms, has_others.then_some(now_ms + 60_000));
        assert_eq!(head.publisher, client.session.session_ref().unwrap().serial);
    }
}

#[test]
fn a_payload_format_indicator_of_0_is_passed_on_as_it_is() {
    let mut core = core();
    let mut client = core.open(&connect(5, "a").bytes());
    let bytes = publish(0, "a", 0, Some(&[1, 0]), b"x");
    core.run(&mut client, |session, env, decisions| {
        let result = session.receive(bytes[0], &bytes[2..], env, decisions);
        let Some(crate::decision::Decision::Publish(publish)) = decisions.decision(0) else {
            panic!("{decisions:?}")
        };
        let view = crate::mqtt::publication::read(decisions.bytes(publish.message)).unwrap();
        assert_eq!((view.head.is_text, view.properties), (false, &[1, 0][..]));
        result
    });
}

#[test]
fn a_publication_to_a_remembered_channel_is_acknowledged_by_the_store() {
    let spec = ChannelSpec {
        names: vec!["kept".to_owned()],
        policy: ChannelPolicy {
            history: Some(HistoryPolicy {
                entries_max: 10,
                bytes_max: 1000,
                age_ms_max: 1000,
            }),
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    };
    let mut core = core();
    core.common.has_store = true;
    core.policy.channels = Channels::compile(&[spec], b'/', None).unwrap();
    let mut client = core.open(&connect(5, "a").bytes());
    for (flags, first) in [(2, 0x40), (4, 0x50)] {
        for (outcome, code) in [
            (Stored::Yes, None),
            (Stored::NotNow, Some(0x97)),
            (Stored::Elsewhere, Some(0x83)),
            (Stored::Unknown, Some(0x80)),
        ] {
            let did = core.receive(&mut client, &publish(flags, "kept", 5, Some(b""), b"x"));
            assert_eq!(did[0], published("kept", flags >> 1, b"x"));
            let NextStep::Acknowledge(token) = &did[1] else {
                panic!("{did:?}")
            };
            let answered = core.run(&mut client, |session, env, decisions| {
                let token = decisions.write(|out| out.extend_from_slice(token));
                let message = session.stored(token, outcome, env, decisions)?;
                decisions.push(crate::decision::Decision::Send { message });
                Ok(())
            });
            let bytes = sent(&answered)[0];
            match code {
                None => assert_eq!(bytes, [first, 2, 0, 5]),
                Some(code) => assert_eq!((bytes[0], &bytes[2..5]), (first, &[0, 5, code][..])),
            }
            if code.is_none() {
                core.receive(&mut client, &[0x62, 2, 0, 5]);
            }
        }
    }
    assert_eq!(
        core.sessions.incoming_len(client.session.session_ref().unwrap()),
        0
    );
}

#[test]
fn an_older_client_gets_no_acknowledgement_of_what_is_not_stored_and_can_send_it_again() {
    let mut core = core();
    let mut client = core.open(&connect(4, "a").bytes());
    for (first, outcome, is_kept) in [
        (0x40, Stored::NotNow, false),
        (0x50, Stored::NotNow, false),
        (0x50, Stored::Elsewhere, false),
        // It was published: the same once more is a duplicate.
        (0x50, Stored::Unknown, true),
    ] {
        let flags = if first == 0x40 { 2 } else { 4 };
        core.receive(&mut client, &publish(flags, "kept", 5, None, b"x"));
        let did = core.run(&mut client, |session, env, decisions| {
            let token = decisions.write(|out| out.extend_from_slice(&[flags >> 1, 0, 5]));
            session.stored(token, outcome, env, decisions).map(drop)
        });
        assert_eq!(did, [NextStep::Close(CloseReason::NotStored)]);
        let session = client.session.session_ref().unwrap();
        assert_eq!(core.sessions.incoming_len(session), usize::from(is_kept));
    }
}
