//! The rules: the same set as for SocketCluster clients.

use super::client::{NextStep, allow, connect, core, publish, sent, subscribe};
use crate::config::rules::{Audience, RuleSpec};
use crate::decision::CloseReason;
use crate::mqtt::sessions::{Content, Outbound, Quotes};
use crate::mqtt::subscriptions::Subscriber;

fn to(who: Audience, rule: RuleSpec) -> RuleSpec {
    RuleSpec {
        to: vec![who],
        ..rule
    }
}

#[test]
fn publications_that_no_rule_allows_are_dropped_and_only_mqtt_5_is_told() {
    let mut core = core();
    core.allow(&[allow(&["mine/{sub}", "open/**"])]);
    for (level, properties) in [(4, None), (5, Some(&b""[..]))] {
        let mut client = core.client_with(Some(r#"{"sub":"ann"}"#));
        core.receive(&mut client, &connect(level, "a").bytes());
        for (topic, is_allowed) in [("mine/ann", true), ("mine/bob", false), ("open/a/b", true)] {
            let did = core.receive(&mut client, &publish(2, topic, 1, properties, b"x"));
            if is_allowed {
                assert!(matches!(did[0], NextStep::Publish(..)), "{topic}");
                continue;
            }
            match level {
                4 => assert_eq!(sent(&did), [[0x40, 2, 0, 1]]),
                _ => assert_eq!(sent(&did)[0][4], 0x87),
            }
        }
        core.end(&mut client, CloseReason::PeerVanished);
    }
    assert_eq!(core.scratch.take_mqtt_counts().publications_refused, 2);
}

#[test]
fn a_filter_is_granted_only_if_rules_allow_all_that_it_could_match() {
    let mut core = core();
    core.allow(&[
        RuleSpec {
            channels: Some(vec!["open/secret".to_owned()]),
            ..RuleSpec::default()
        },
        allow(&["open/**", "levels/+/x"]),
    ]);
    let mut client = core.open(&connect(5, "a").bytes());
    for (filter, code) in [
        ("open/a", 0),
        ("open/secret", 0x87),
        ("open/#", 0x87),
        ("open/a/#", 0),
        ("levels/+/x", 0),
        ("levels/#", 0x87),
        ("#", 0x87),
    ] {
        let did = core.receive(&mut client, &subscribe(5, 1, &[], &[(filter, 0)]));
        assert_eq!(sent(&did)[0].last(), Some(&code), "{filter}");
    }
}

#[test]
fn a_reload_that_forbids_a_filter_drops_it_and_looks_at_a_few_at_a_time() {
    let mut core = core();
    core.allow(&[allow(&["**"])]);
    let mut client = core.open(&connect(5, "a").bytes());
    let filters = [("a/#", 0), ("b", 0), ("$share/g/a/#", 0), ("$share/h/s", 0)];
    core.receive(&mut client, &subscribe(5, 1, &[], &filters));
    // Whether a check of this many at a time drops filters, and in how many steps.
    let changed = |core: &mut super::client::Core<_>, client: &mut super::client::Client| {
        let (mut from, mut steps, mut has_dropped) = (Some(0), 0, false);
        while let Some(at) = from {
            core.run(client, |session, env, _| {
                let checked = session.recheck_filters(at, 1, env);
                has_dropped |= checked.has_dropped;
                from = checked.next;
                Ok(())
            });
            steps += 1;
        }
        (has_dropped, steps)
    };
    core.allow(&[allow(&["a/**", "b", "s"])]);
    // One that is full, one that is not known to be the last, and the two of groups with the end behind each.
    assert_eq!(changed(&mut core, &mut client), (false, 6));
    core.allow(&[allow(&["a/b", "b", "s"])]);
    assert_eq!(changed(&mut core, &mut client), (true, 6));
    core.allow(&[allow(&["b"])]);
    assert!(changed(&mut core, &mut client).0);
    let session = client.session.session_ref().unwrap();
    assert_eq!(core.sessions.shares.count_of(session), 0);
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    assert_eq!(core.sessions.subscriptions.count_of(subscriber), 1);
    assert_eq!(core.scratch.take_mqtt_counts().filters_dropped, 3);
}

#[test]
fn a_client_that_comes_back_keeps_only_the_filters_that_it_may_have_now() {
    let mut core = core();
    core.allow(&[
        to(
            Audience::Contains("groups".to_owned(), vec![text("staff")]),
            allow(&["staff/**"]),
        ),
        allow(&["open/**"]),
    ]);
    let mut packet = connect(4, "a");
    packet.clean = false;
    let mut client = core.client_with(Some(r#"{"sub":"ann","groups":["staff"]}"#));
    core.receive(&mut client, &packet.bytes());
    core.receive(
        &mut client,
        &subscribe(4, 1, &[], &[("staff/#", 0), ("open/#", 0)]),
    );
    let session = client.session.session_ref().unwrap();
    core.end(&mut client, CloseReason::PeerVanished);
    for topic in ["staff/a", "open/a", "staff/b"] {
        let content = Content {
            topic: topic.as_bytes(),
            properties: b"",
            payload: b"x",
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        let outbound = Outbound {
            qos: 1,
            retain: false,
        };
        core.sessions.offer(session, outbound, &content, &[], false);
        core.sessions.end_publication();
    }
    let mut client = core.client_with(Some(r#"{"sub":"ann","groups":[]}"#));
    assert_eq!(
        sent(&core.receive(&mut client, &packet.bytes())),
        [[0x20, 2, 1, 0]]
    );
    let subscriber = Subscriber::Session(client.session.session_ref().unwrap().number);
    let (filters, _) = core.sessions.subscriptions.some_filters_of(subscriber, 0, 10);
    let names: Vec<_> = filters.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, [b"open/#"]);
    // The publications that have waited are dropped, too.
    assert_eq!(core.sessions.outgoing_len(session), (0, 1));
    assert_eq!(core.sessions.take_counts().dropped_forbidden, 2);
}

#[test]
fn a_client_that_comes_back_has_its_filters_and_what_waits_gone_through_a_few_at_a_time_before_connack() {
    let mut core = core();
    core.allow(&[allow(&["**"])]);
    let mut packet = connect(4, "a");
    packet.clean = false;
    let mut client = core.open(&packet.bytes());
    let filters: Vec<String> = (0..20)
        .map(|number| format!("a/{number}"))
        .chain((0..10).map(|number| format!("b/{number}")))
        .chain((0..5).map(|number| format!("$share/g/b/{number}")))
        .collect();
    let filters: Vec<_> = filters.iter().map(|filter| (&**filter, 0)).collect();
    core.receive(&mut client, &subscribe(4, 1, &[], &filters));
    let session = client.session.session_ref().unwrap();
    core.end(&mut client, CloseReason::PeerVanished);
    let outbound = Outbound {
        qos: 1,
        retain: false,
    };
    for number in 0..10 {
        let topic = format!("{}/{number}", if number % 2 == 0 { "a" } else { "b" });
        let content = Content {
            topic: topic.as_bytes(),
            properties: b"",
            payload: b"x",
            expires_at: None,
            is_utf8: false,
            quotes: Quotes::Kept,
        };
        core.sessions.offer(session, outbound, &content, &[], false);
        core.sessions.end_publication();
    }
    // How many steps of 7 it takes: 30 filters, the shared ones that are left, and the waiting publications
    // if a filter was dropped.
    for (allowed, steps, left) in [("**", 5 + 1, (30, 5, 10)), ("a/**", 5 + 1 + 2, (20, 0, 5))] {
        core.allow(&[allow(&[allowed])]);
        core.resumed_per_turn = 7;
        let mut client = core.client();
        let did = core.receive(&mut client, &packet.bytes());
        assert_eq!(sent(&did), [[0x20, 2, 1, 0]]);
        assert_eq!(core.resumed_in, steps, "{allowed}");
        let subscriber = Subscriber::Session(session.number);
        assert_eq!(core.sessions.subscriptions.count_of(subscriber), left.0);
        assert_eq!(core.sessions.shares.count_of(session), left.1);
        assert_eq!(core.sessions.outgoing_len(session), (0, left.2));
        assert_eq!(
            core.sessions.next_ready(),
            Some(session),
            "it is sent what waits now"
        );
        core.end(&mut client, CloseReason::PeerVanished);
    }
}

fn text(text: &str) -> crate::config::rules::Scalar {
    crate::config::rules::Scalar::Text(text.to_owned())
}

#[test]
fn clients_may_not_publish_where_that_is_switched_off() {
    let mut core = core();
    core.common.allow_client_publish = false;
    let mut client = core.open(&connect(5, "a").bytes());
    let did = core.receive(&mut client, &publish(2, "a", 1, Some(b""), b"x"));
    assert_eq!(sent(&did)[0][4], 0x87);
}
