//! MQTT and SocketCluster clients on one channel, and retained publications: the data for each client, and its order.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringcast::config::channels::{
    ChannelPolicy, ChannelSpec, HistoryPolicy, MqttPayload, MqttPolicy, PresencePolicy, RetainPolicy,
    StringPolicy,
};
use ringcast::config::{Config, Placement};
use ringcast::internals::decision::Limit;
use serde_json::{Value, json};
use support::mqtt::{Over, connect_with, string};
use support::{Client, Server, eventually};

/// Three cores: most topics are owned by another core than that of their subscriber.
fn server(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(3);
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.mqtt.sys_interval_seconds = 0;
        change(config);
    })
}

fn policy(name: &str, policy: ChannelPolicy) -> ChannelSpec {
    ChannelSpec {
        names: vec![name.to_owned()],
        policy,
        ..ChannelSpec::default()
    }
}

/// An MQTT 5 client that acknowledges publications.
struct Mqtt {
    mqtt: support::mqtt::Mqtt,
    last_id: u16,
}

/// A PUBLISH that a client has got.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Published {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    /// Its properties, as they came.
    properties: Vec<u8>,
}

impl Mqtt {
    fn connect(server: &Server, id: &str) -> Mqtt {
        Mqtt::connect_with(server, id, 2, &[])
    }

    /// Connects with these flags and properties.
    fn connect_with(server: &Server, id: &str, flags: u8, properties: &[u8]) -> Mqtt {
        let client = Client::connect(server.running().mqtt_address().unwrap());
        let mut mqtt = support::mqtt::Mqtt::over(client, Over::Tcp, 5);
        mqtt.send(&connect_with(5, flags, 0, properties, &string(id)));
        mqtt.accepted();
        Mqtt { mqtt, last_id: 0 }
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % 60_000 + 1;
        self.last_id
    }

    /// The next packet that is no publication, which must be the answer of this type to the request with this id.
    fn answer(&mut self, first: u8, id: u16) -> Vec<u8> {
        let mut packet = self.mqtt.packet();
        while packet[0] >> 4 == 3 {
            packet = self.mqtt.packet();
        }
        let body = support::mqtt::body(&packet);
        assert_eq!((packet[0], &body[..2]), (first, &id.to_be_bytes()[..]));
        body[2..].to_vec()
    }

    /// Subscribes with these options, and these properties. Publications that come before SUBACK are forgotten.
    fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) {
        let id = self.next_id();
        self.mqtt
            .send(&support::mqtt::subscribe(5, id, properties, &[(filter, options)]));
        let codes = self.answer(0x90, id);
        assert!(codes[1] <= 2, "{codes:?}");
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.subscribe_with(filter, qos, &[]);
    }

    fn unsubscribe(&mut self, filter: &str) {
        let id = self.next_id();
        self.mqtt.send(&support::mqtt::unsubscribe(5, id, &[filter]));
        self.answer(0xb0, id);
    }

    /// Publishes with QoS 1, and returns the reason code of PUBACK. Publications that come before it are forgotten.
    fn publish(&mut self, topic: &str, payload: &[u8], retain: bool, properties: &[u8]) -> u8 {
        let (id, flags) = (self.next_id(), 0x02 | u8::from(retain));
        self.mqtt
            .send(&support::mqtt::publish(5, flags, topic, id, properties, payload));
        self.answer(0x40, id).first().copied().unwrap_or(0)
    }

    fn retain(&mut self, topic: &str, payload: &[u8]) {
        assert_eq!(self.publish(topic, payload, true, &[]), 0);
    }

    /// The next publication. One with QoS 1 is acknowledged.
    fn published(&mut self) -> Published {
        let message = self.mqtt.message();
        if message.qos > 0 {
            self.mqtt.send(&support::mqtt::ack(0x40, message.id));
        }
        Published {
            topic: message.topic,
            payload: String::from_utf8(message.payload).unwrap(),
            qos: message.qos,
            retain: message.retain,
            properties: message.properties,
        }
    }

    /// Asserts that nothing has come up to now.
    fn has_nothing(&mut self) {
        self.mqtt.ping();
    }
}

fn topic_and_payload(published: &Published) -> (&str, &str) {
    (&published.topic, &published.payload)
}

#[test]
fn payloads_cross_between_protocols_by_the_rule_of_the_channel() {
    let rule = |payload| ChannelPolicy {
        mqtt: MqttPolicy {
            payload: Some(payload),
            ..MqttPolicy::default()
        },
        ..ChannelPolicy::default()
    };
    let server = server(|config| {
        config.channels = vec![
            policy("text/x", rule(MqttPayload::Text)),
            policy("json/x", rule(MqttPayload::Json)),
            policy("binary/x", rule(MqttPayload::Binary)),
        ];
    });
    let mut old = server.client();
    let mut new = Mqtt::connect(&server, "publisher");
    let mut reader = Mqtt::connect(&server, "reader");
    for channel in ["auto/x", "text/x", "json/x", "binary/x"] {
        old.subscribe(channel);
        reader.subscribe(channel, 1);
    }
    for (channel, payload, expected) in [
        ("auto/x", "{\"a\":1}", "{\"a\":1}"),
        ("auto/x", "on", "\"on\""),
        ("auto/x", "", "null"),
        ("text/x", "12", "\"12\""),
        ("json/x", "[12]", "[12]"),
        ("binary/x", "12", "{\"base64\":true,\"data\":\"MTI=\"}"),
    ] {
        assert_eq!(new.publish(channel, payload.as_bytes(), false, &[]), 0);
        assert_eq!(old.publication(channel), expected);
        let got = reader.published();
        assert_eq!(topic_and_payload(&got), (channel, payload));
        assert!(!got.retain);
    }
    assert_eq!(new.publish("json/x", b"on", false, &[]), 0x99);
    old.publish("auto/x", "{\"b\":[2]}");
    assert_eq!(topic_and_payload(&reader.published()), ("auto/x", "{\"b\":[2]}"));
    reader.has_nothing();
}

#[test]
fn a_history_keeps_mqtt_publications_in_the_form_for_socketcluster_clients() {
    let server = server(|config| {
        let history = HistoryPolicy {
            entries_max: 10,
            bytes_max: 65_536,
            age_ms_max: 600_000,
        };
        config.channels = vec![policy(
            "room/**",
            ChannelPolicy {
                history: Some(history),
                position: true,
                ..ChannelPolicy::default()
            },
        )];
        config.permissions.rules_separator = '/';
    });
    let mut live = server.client();
    live.subscribe("room/1");
    let mut publisher = Mqtt::connect(&server, "publisher");
    for payload in ["1", "two"] {
        assert_eq!(publisher.publish("room/1", payload.as_bytes(), false, &[]), 0);
    }
    let publication = |client: &mut Client| {
        let message: Value = serde_json::from_str(&client.message()).unwrap();
        message["data"].clone()
    };
    let first = publication(&mut live);
    assert_eq!(first["data"], 1);
    let second = publication(&mut live);
    assert_eq!(second["data"], "two");
    let offset = |data: &Value| data["position"]["offset"].as_u64().unwrap();
    assert!(offset(&first) < offset(&second));

    let mut late = server.client();
    let data = json!({"channel": "room/1", "data": {"recover": first["position"]}});
    late.begin_call("#subscribe", &data.to_string());
    let answer: Value = serde_json::from_str(&late.message()).unwrap();
    assert_eq!(answer["data"]["recovered"], true, "{answer}");
    let again = publication(&mut late);
    assert_eq!(
        (&again["data"], &again["replayed"]),
        (&json!("two"), &json!(true))
    );
    assert_eq!(again["position"], second["position"]);
}

#[test]
fn a_subscriber_gets_the_retained_publications_that_its_filter_matches() {
    let server = server(|_| {});
    let mut publisher = Mqtt::connect(&server, "publisher");
    for (topic, payload) in [
        ("site/1/t", "old"),
        ("site/1/t", "20"),
        ("site/2/t", "21"),
        ("site/2/h", "55"),
        ("site", "up"),
        ("gone", "x"),
        ("$own/a", "y"),
    ] {
        publisher.retain(topic, payload.as_bytes());
    }
    publisher.retain("gone", b"");
    for (filter, expected) in [
        ("site/1/t", vec![("site/1/t", "20")]),
        ("gone", vec![]),
        ("site/+/t", vec![("site/1/t", "20"), ("site/2/t", "21")]),
        (
            "site/#",
            vec![
                ("site", "up"),
                ("site/1/t", "20"),
                ("site/2/h", "55"),
                ("site/2/t", "21"),
            ],
        ),
        (
            "#",
            vec![
                ("site", "up"),
                ("site/1/t", "20"),
                ("site/2/h", "55"),
                ("site/2/t", "21"),
            ],
        ),
        ("$own/#", vec![("$own/a", "y")]),
    ] {
        let mut subscriber = Mqtt::connect(&server, "subscriber");
        // Subscription identifier 7.
        subscriber.subscribe_with(filter, 1, &[0x0b, 7]);
        let mut got: Vec<Published> = expected.iter().map(|_| subscriber.published()).collect();
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert_eq!(
            got.iter().map(topic_and_payload).collect::<Vec<_>>(),
            expected,
            "{filter}"
        );
        for one in &got {
            assert_eq!(
                (one.retain, one.qos, &one.properties[..]),
                (true, 1, &[0x0b, 7][..])
            );
        }
        subscriber.has_nothing();
    }
    // A live publication says nothing of being retained.
    let mut subscriber = Mqtt::connect(&server, "subscriber");
    subscriber.subscribe("site/9/#", 0);
    publisher.retain("site/9/t", b"1");
    let got = subscriber.published();
    assert_eq!((got.retain, got.qos, got.payload.as_str()), (false, 0, "1"));
}

#[test]
fn a_subscription_gets_nothing_live_that_was_acknowledged_before_it_was_asked_for() {
    let server = server(|_| {});
    let mut publisher = Mqtt::connect(&server, "publisher");
    let mut subscribers: Vec<_> = (0..6)
        .map(|number| Mqtt::connect(&server, &format!("subscriber {number}")))
        .collect();
    for round in 0..100 {
        let topic = format!("before/{round}");
        publisher.retain(&topic, b"1");
        let subscriber = &mut subscribers[round % 6];
        subscriber.subscribe(&topic, 0);
        assert!(subscriber.published().retain, "round {round}");
    }
    for subscriber in &mut subscribers {
        subscriber.has_nothing();
    }
}

#[test]
fn clients_that_acknowledge_nothing_keep_no_other_from_its_retained_publications() {
    let server = server(|config| {
        config.cores.placement = Placement::Count(1);
        config.mqtt.in_flight_max = 2;
        config.mqtt.queue_bytes_max = 1024;
    });
    let mut publisher = Mqtt::connect(&server, "publisher");
    for number in 0..10 {
        publisher.retain(&format!("r/{number}"), &[b'x'; 600]);
    }
    let mut hostile: Vec<_> = (0..40)
        .map(|number| {
            let mut client = Mqtt::connect(&server, &format!("hostile {number}"));
            client.subscribe("r/#", 1);
            client
        })
        .collect();
    let mut healthy = Mqtt::connect(&server, "healthy");
    healthy.subscribe("r/#", 1);
    for _ in 0..10 {
        assert!(healthy.published().retain);
    }
    healthy.has_nothing();
    // Each of the others gets all of them as soon as it acknowledges, also if they are more than its queue takes.
    for client in &mut hostile {
        for _ in 0..10 {
            assert!(client.published().retain);
        }
        client.has_nothing();
    }
    assert_eq!(server.limit_hits(Limit::MqttQueue), 0);
}

#[test]
fn a_client_that_unsubscribes_gets_no_more_retained_publications() {
    let server = server(|config| config.mqtt.in_flight_max = 1);
    let mut publisher = Mqtt::connect(&server, "publisher");
    for number in 0..10 {
        publisher.retain(&format!("r/{number}"), b"1");
    }
    let mut subscriber = Mqtt::connect(&server, "subscriber");
    subscriber.subscribe("r/#", 1);
    let first = subscriber.mqtt.message();
    let id = subscriber.next_id();
    subscriber.mqtt.send(&support::mqtt::unsubscribe(5, id, &["r/#"]));
    subscriber.answer(0xb0, id);
    subscriber.mqtt.send(&support::mqtt::ack(0x40, first.id));
    subscriber.has_nothing();
    subscriber.has_nothing();
}

#[test]
fn retain_handling_says_when_retained_publications_are_sent() {
    let server = server(|_| {});
    Mqtt::connect(&server, "publisher").retain("a", b"1");
    let mut subscriber = Mqtt::connect(&server, "subscriber");
    // 2: never; 1: if it is new, which it is not; 0: always.
    for (handling, comes) in [(2, false), (1, false), (0, true), (0, true), (1, false)] {
        subscriber.subscribe("a", handling << 4);
        if comes {
            assert_eq!(topic_and_payload(&subscriber.published()), ("a", "1"));
        }
        subscriber.has_nothing();
    }
    let mut other = Mqtt::connect(&server, "other");
    other.subscribe("a", 1 << 4);
    assert!(other.published().retain);
}

/// MQTT-3.8.3-3: whichever of the client's sessions has published it.
#[test]
fn a_client_without_its_own_publications_gets_the_retained_ones_of_others() {
    const NO_LOCAL: u8 = 4;
    let server = server(|config| {
        let last_value = ChannelPolicy {
            last_value: true,
            ..ChannelPolicy::default()
        };
        config.channels = vec![policy("r/price", last_value)];
    });
    let mut own = Mqtt::connect(&server, "own");
    own.retain("r/mine", b"1");
    assert_eq!(own.publish("r/price", b"2", false, &[]), 0);
    // A will, of which CONNECT says that it is retained: on the topic r/will.
    let will = [&[0][..], &string("r/will"), &string("3")].concat();
    let connect = connect_with(5, 0x26, 0, &[], &[&string("own")[..], &will].concat());
    let mut dying = support::mqtt::Mqtt::over(
        Client::connect(server.running().mqtt_address().unwrap()),
        Over::Tcp,
        5,
    );
    dying.send(&connect);
    dying.accepted();
    drop(dying);
    eventually("the will is published", || {
        server.total(|core| &core.wills_published) == 1
    });
    Mqtt::connect(&server, "other").retain("r/other", b"4");
    let mut browser = server.client();
    browser.call("$retain", "{\"channel\":\"r/browser\",\"data\":5}");
    let gets = |id: &str, filter: &str, options: u8, count: usize| {
        let mut client = Mqtt::connect(&server, id);
        client.subscribe(filter, options);
        let mut topics: Vec<String> = (0..count).map(|_| client.published().topic).collect();
        client.has_nothing();
        topics.sort();
        topics
    };
    let all = ["r/browser", "r/mine", "r/other", "r/price", "r/will"];
    assert_eq!(gets("own", "r/#", 1, 5), all);
    assert_eq!(gets("own", "r/#", NO_LOCAL | 1, 2), ["r/browser", "r/other"]);
    assert_eq!(
        gets("other", "r/#", NO_LOCAL | 1, 4),
        ["r/browser", "r/mine", "r/price", "r/will"]
    );
    assert_eq!(gets("own", "r/mine", NO_LOCAL, 0), [""; 0]);
    assert_eq!(gets("own", "r/other", NO_LOCAL, 1), ["r/other"]);
}

#[test]
fn nobody_sees_an_older_retained_publication_after_a_newer_one() {
    const TOPICS: usize = 2000;
    let server = server(|_| {});
    let mut publisher = Mqtt::connect(&server, "publisher");
    for topic in 0..TOPICS {
        publisher.retain(&format!("many/{topic}"), b"0");
    }
    /// Ends the publisher however the test ends.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                let topic = (number * 7919) % TOPICS;
                publisher.retain(&format!("many/{topic}"), number.to_string().as_bytes());
            }
            publisher.retain("many/end", b"end");
        });
        let _ends = Ends(&is_over);
        for (round, qos) in [0, 1, 0].into_iter().enumerate() {
            let mut subscriber = Mqtt::connect(&server, &format!("subscriber-{round}"));
            subscriber.subscribe("many/#", qos);
            let mut newest = HashMap::new();
            while newest.len() < TOPICS {
                let got = subscriber.published();
                let number: u64 = got.payload.parse().unwrap();
                let before = newest.insert(got.topic.clone(), number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "{got:?} after {before:?}"
                );
            }
        }
    });
}

#[test]
fn a_retained_publication_expires() {
    let server = server(|_| {});
    let mut publisher = Mqtt::connect(&server, "publisher");
    // Message Expiry Interval: 1 s, and one hour.
    assert_eq!(publisher.publish("short", b"x", true, &[2, 0, 0, 0, 1]), 0);
    assert_eq!(publisher.publish("long", b"x", true, &[2, 0, 0, 0x0e, 0x10]), 0);
    let retained = || server.total(|core| &core.mqtt_retained_expired);
    eventually("one has expired", || retained() == 1);
    let mut subscriber = Mqtt::connect(&server, "subscriber");
    subscriber.subscribe("#", 0);
    let got = subscriber.published();
    assert_eq!(got.topic, "long");
    assert_eq!(got.properties[..4], [2, 0, 0, 0x0e], "what is left of the hour");
    subscriber.has_nothing();
}

#[test]
fn what_has_no_room_is_delivered_and_not_retained() {
    let server = server(|config| {
        config.cores.placement = Placement::Count(1);
        config.mqtt.retained_count_max = 2;
        config.channels = vec![policy(
            "never",
            ChannelPolicy {
                mqtt: MqttPolicy {
                    retain: RetainPolicy::NotKept,
                    ..MqttPolicy::default()
                },
                ..ChannelPolicy::default()
            },
        )];
    });
    let mut live = Mqtt::connect(&server, "live");
    live.subscribe("#", 0);
    let mut publisher = Mqtt::connect(&server, "publisher");
    for topic in ["never", "1", "2", "3"] {
        publisher.publish(topic, b"x", true, &[]);
        assert_eq!(live.published().topic, topic);
    }
    assert_eq!(server.limit_hits(Limit::MqttRetainedCount), 1);
    let mut late = Mqtt::connect(&server, "late");
    late.subscribe("#", 0);
    assert_eq!([late.published().topic, late.published().topic], ["1", "2"]);
    late.has_nothing();
}

/// The packets in `docs/mqtt.md`, in their order, of one client: lines with `>` are sent, lines with `<` must come.
#[test]
fn the_packets_of_the_documentation_match_the_server() {
    let page = include_str!("../docs/mqtt.md");
    let server = server(|_| {});
    let mut browser = server.client();
    let mut count = 0;
    for block in page.split("```packets\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            count += 1;
            match line.strip_prefix("> ") {
                Some(packet) => browser.send_text(packet),
                None => assert_eq!(browser.message(), line.strip_prefix("< ").unwrap()),
            }
        }
    }
    assert!(count >= 10, "the page has its packets in blocks of `packets`");
}

/// Subscribes with `{"last":1}`, and returns the answer.
fn subscribe_for_last(client: &mut Client, channel: &str) -> String {
    let data = json!({"channel": channel, "data": {"last": 1}});
    client.call("#subscribe", &data.to_string())
}

fn data_of(message: &str) -> Value {
    serde_json::from_str::<Value>(message).unwrap()["data"].clone()
}

#[test]
fn a_browser_that_asks_gets_the_retained_publication_of_a_device() {
    let server = server(|config| {
        config.channels = vec![policy(
            "text",
            ChannelPolicy {
                mqtt: MqttPolicy {
                    payload: Some(MqttPayload::Text),
                    ..MqttPolicy::default()
                },
                ..ChannelPolicy::default()
            },
        )];
    });
    let mut device = Mqtt::connect(&server, "device");
    for (channel, payload, expected) in [
        ("auto", &b"{\"on\":true}"[..], json!({"on": true})),
        ("words", b"on", json!("on")),
        ("bytes", b"\xff\0", json!({"base64": true, "data": "/wA="})),
        ("text", b"12", json!("12")),
    ] {
        device.retain(channel, payload);
        let mut browser = server.client();
        let answer = subscribe_for_last(&mut browser, channel);
        assert_eq!(
            answer.find("\"data\""),
            None,
            "that of any subscription: {answer}"
        );
        assert_eq!(
            data_of(&browser.message()),
            json!({"channel": channel, "replayed": true, "data": expected})
        );
        // Live publications follow, each once, and are not marked.
        device.publish(channel, b"7", false, &[]);
        let live = if channel == "text" { json!("7") } else { json!(7) };
        assert_eq!(
            data_of(&browser.message()),
            json!({"channel": channel, "data": live})
        );
        browser.ping();
        // A client that does not ask gets nothing but that.
        let mut other = server.client();
        other.subscribe(channel);
        other.ping();
    }
    device.retain("words", b"");
    for channel in ["words", "never retained", "a/+"] {
        let mut browser = server.client();
        subscribe_for_last(&mut browser, channel);
        browser.ping();
    }
}

#[test]
fn a_browser_and_an_operator_retain_for_devices() {
    let server = server(|_| {});
    let mut browser = server.client();
    let mut device = Mqtt::connect(&server, "device");
    let retain = |browser: &mut Client, data: Value| browser.call("$retain", &data.to_string());
    let retained = |topic: &str| {
        let mut subscriber = Mqtt::connect(&server, "subscriber");
        subscriber.subscribe(topic, 1);
        let got = subscriber.published();
        assert!(got.retain, "{got:?}");
        subscriber.has_nothing();
        got.payload
    };
    device.subscribe("#", 1);
    let answer = retain(&mut browser, json!({"channel": "set/1", "data": {"on": true}}));
    assert!(answer.starts_with("{\"rid\":"), "{answer}");
    assert!(!answer.contains("error"), "{answer}");
    assert_eq!(topic_and_payload(&device.published()), ("set/1", "{\"on\":true}"));
    assert_eq!(retained("set/1"), "{\"on\":true}");
    // The newest counts, whichever client has published it.
    Mqtt::connect(&server, "other").retain("set/1", b"{\"on\":null}");
    assert_eq!(device.published().payload, "{\"on\":null}");
    assert_eq!(retained("set/1"), "{\"on\":null}");
    let handle = server.running().handle();
    handle.retain("set/1", &json!(false)).wait().unwrap();
    assert_eq!(device.published().payload, "false");
    assert_eq!(retained("set/1"), "false");
    handle.publish("set/1", &json!(1)).wait().unwrap();
    assert_eq!(device.published().payload, "1");
    assert_eq!(retained("set/1"), "false", "only published");
    // Without data, it is taken away.
    retain(&mut browser, json!({"channel": "set/1"}));
    assert_eq!(topic_and_payload(&device.published()), ("set/1", ""));
    let mut late = Mqtt::connect(&server, "late");
    late.subscribe("set/1", 1);
    late.has_nothing();
    for (result, expected) in [
        (handle.publish("$SYS/x", &1), "Only the server publishes to $SYS"),
        (handle.retain("a/#", &1), "not that of an MQTT topic"),
    ] {
        let error = result.wait().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The first publication that a browser gets is the retained publication from before its subscription, and then each
/// live one, while a device retains without pause.
#[test]
fn a_browser_gets_the_retained_value_and_all_after_it_once_and_in_order() {
    let server = server(|_| {});
    let mut device = Mqtt::connect(&server, "device");
    device.retain("busy", b"0");
    let is_over = AtomicBool::new(false);
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                device.retain("busy", number.to_string().as_bytes());
            }
        });
        let _ends = Ends(&is_over);
        for round in 0..200 {
            let mut browser = server.client();
            subscribe_for_last(&mut browser, "busy");
            let first = data_of(&browser.message());
            let mut last = first["data"].as_u64().unwrap();
            for _ in 0..3 {
                let next = data_of(&browser.message());
                assert_eq!(next["replayed"], Value::Null, "round {round}: {first} {next}");
                last += 1;
                assert_eq!(next["data"], last, "round {round}: {first}");
            }
        }
    });
}

#[test]
fn devices_get_strings_without_quotes_where_the_policy_says_so() {
    let server = server(|config| {
        let unquoted = |payload| MqttPolicy {
            payload: Some(payload),
            strings: StringPolicy::Unquoted,
            ..MqttPolicy::default()
        };
        config.channels = vec![policy(
            "plain",
            ChannelPolicy {
                mqtt: unquoted(MqttPayload::Text),
                ..ChannelPolicy::default()
            },
        )];
    });
    let mut browser = server.client();
    let mut device = Mqtt::connect(&server, "device");
    device.subscribe("plain", 1);
    device.subscribe("quoted", 1);
    // A Payload Format Indicator of 1 says that the payload is text.
    for (channel, data, expected, is_text) in [
        ("plain", json!("on"), "on", true),
        ("plain", json!("é\n\"x"), "é\n\"x", true),
        ("plain", json!(12), "12", true),
        ("plain", json!(["on"]), "[\"on\"]", true),
        ("plain", json!({"base64": true, "data": "b24="}), "on", false),
        ("quoted", json!("on"), "\"on\"", true),
        (
            "quoted",
            json!({"base64": true, "data": "b24="}),
            "{\"base64\":true,\"data\":\"b24=\"}",
            true,
        ),
    ] {
        let call = json!({"channel": channel, "data": data}).to_string();
        browser.call("$retain", &call);
        let mut late = Mqtt::connect(&server, "late");
        late.subscribe(channel, 1);
        let indicator: &[u8] = if is_text { &[1, 1] } else { &[] };
        for got in [device.published(), late.published()] {
            assert_eq!(topic_and_payload(&got), (channel, expected));
            assert_eq!(got.properties, indicator, "{data}");
        }
    }
    // And back: with `text`, a browser gets the same string.
    browser.subscribe("plain");
    device.publish("plain", b"on", false, &[]);
    assert_eq!(browser.publication("plain"), "\"on\"");
}

#[test]
fn channels_that_are_no_topics_are_counted_where_devices_would_see_them() {
    let server = server(|config| config.cores.placement = Placement::Count(1));
    let mut device = Mqtt::connect(&server, "device");
    device.subscribe("#", 0);
    let mut browser = server.client();
    for channel in ["a+b", "a/#", "", "topic"] {
        browser.publish(channel, "1");
    }
    browser.ping();
    assert_eq!(topic_and_payload(&device.published()), ("topic", "1"));
    assert_eq!(server.total(|core| &core.publications_invisible), 3);
}

#[test]
fn a_will_that_is_no_json_is_refused_where_publications_must_be() {
    let server = server(|config| {
        config.channels = vec![policy(
            "json/x",
            ChannelPolicy {
                mqtt: MqttPolicy {
                    payload: Some(MqttPayload::Json),
                    ..MqttPolicy::default()
                },
                ..ChannelPolicy::default()
            },
        )];
    });
    for (payload, code) in [(&b"on"[..], 0x99), (b"[1]", 0), (b"", 0)] {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        // A client id, no properties of the will, its topic and its payload.
        let body = [&string("id")[..], b"\x00", &string("json/x"), &string(payload)].concat();
        client.send_bytes(&connect_with(5, 0x06, 0, &[], &body));
        assert_eq!(client.read_bytes(4)[3], code, "{payload:?}");
    }
}

/// The members of a channel, as `$presence` gives them: user, client id, number of connections.
fn members(browser: &mut Client, channel: &str) -> Vec<(Value, Value, usize)> {
    let answer: Value =
        serde_json::from_str(&browser.call("$presence", &json!({ "channel": channel }).to_string())).unwrap();
    let members = answer["data"]["members"].as_array().unwrap().iter();
    let mut members: Vec<_> = members
        .map(|member| {
            let connections = member["connections"].as_array().unwrap().len();
            (
                member["user"].clone(),
                member["info"]["client_id"].clone(),
                connections,
            )
        })
        .collect();
    members.sort_by_key(|(_, client_id, _)| client_id.to_string());
    members
}

#[test]
fn devices_are_members_of_the_channels_that_their_filters_name() {
    let server = server(|config| {
        config.limits.presence_grace = Duration::ZERO;
        config.limits.presence_tick = Duration::from_millis(10);
        config.permissions.rules_separator = '/';
        config.channels = vec![policy(
            "room/*",
            ChannelPolicy {
                presence: PresencePolicy::MembersAndEvents,
                ..ChannelPolicy::default()
            },
        )];
    });
    let mut browser = server.client();
    let mut watcher = Mqtt::connect(&server, "watcher");
    watcher.subscribe("$presence/room/1", 1);
    let mut event = |what: &str| {
        let got = watcher.published();
        assert_eq!(got.topic, "$presence/room/1");
        let event: Value = serde_json::from_str(&got.payload).unwrap();
        let members = event[what].as_array().unwrap_or_else(|| panic!("{event}"));
        (
            members.len(),
            members[0]["info"]["client_id"].clone(),
            event["count"].clone(),
        )
    };
    let mut lamp = Mqtt::connect(&server, "lamp");
    let mut door = Mqtt::connect(&server, "door");
    for filter in ["room/1", "room/1", "other/1", "room/2"] {
        lamp.subscribe(filter, 0);
    }
    assert_eq!(event("joined"), (1, json!("lamp"), json!(1)));
    // Filters with wildcards and shared subscriptions make no members.
    for filter in ["room/+", "room/#", "#", "$share/group/room/1"] {
        door.subscribe(filter, 0);
    }
    browser.subscribe("room/2");
    let lamp_alone = [(Value::Null, json!("lamp"), 1)];
    eventually("the lamp is there", || {
        members(&mut browser, "room/1") == lamp_alone
    });
    eventually("both protocols", || members(&mut browser, "room/2").len() == 2);
    door.subscribe("room/1", 0);
    assert_eq!(event("joined"), (1, json!("door"), json!(2)));
    door.unsubscribe("room/1");
    assert_eq!(event("left").2, json!(1));
    // A client that ends, by whatever cause, leaves; and one that comes back to its session joins again.
    drop(lamp);
    assert_eq!(event("left").2, json!(0));
    eventually("nobody is left", || members(&mut browser, "room/1").is_empty());
    assert_eq!(members(&mut browser, "room/2").len(), 1);
    let mut keeper = Mqtt::connect_with(&server, "keeper", 0, &[0x11, 0, 0, 0, 60]);
    keeper.subscribe("room/1", 1);
    assert_eq!(event("joined").1, json!("keeper"));
    drop(keeper);
    assert_eq!(event("left").2, json!(0));
    let _keeper = Mqtt::connect_with(&server, "keeper", 0, &[0x11, 0, 0, 0, 60]);
    assert_eq!(event("joined").1, json!("keeper"));
    // Only the server publishes members.
    assert_eq!(door.publish("$presence/room/1", b"{}", false, &[]), 0x87);
}

#[test]
fn wills_cross_between_protocols_and_may_be_retained() {
    let server = server(|_| {});
    let mut browser = server.client();
    browser.subscribe("status/lamp");
    let mut device = Mqtt::connect(&server, "device");
    device.subscribe("status/#", 1);
    // A device is cut off: its will has RETAIN 1.
    let mut lamp = Client::connect(server.running().mqtt_address().unwrap());
    // A client id, no properties of the will, its topic and its payload.
    let body = [
        &string("lamp")[..],
        b"\x00",
        &string("status/lamp"),
        &string("off"),
    ]
    .concat();
    lamp.send_bytes(&connect_with(5, 0x26, 0, &[], &body));
    assert_eq!(lamp.read_bytes(4)[3], 0);
    lamp.reset();
    assert_eq!(browser.publication("status/lamp"), "\"off\"");
    assert_eq!(topic_and_payload(&device.published()), ("status/lamp", "off"));
    let mut late = server.client();
    subscribe_for_last(&mut late, "status/lamp");
    assert_eq!(data_of(&late.message())["data"], "off");
    // A browser is cut off.
    let will = json!({"channel": "status/tab", "data": {"on": false}, "retain": true});
    let mut tab = server.client();
    let answer = tab.call("$will", &will.to_string());
    assert!(!answer.contains("error"), "{answer}");
    tab.reset();
    let expected = ("status/tab", "{\"on\":false}");
    assert_eq!(topic_and_payload(&device.published()), expected);
    let mut late = Mqtt::connect(&server, "late");
    late.subscribe("status/tab", 1);
    let got = late.published();
    assert_eq!((topic_and_payload(&got), got.retain), (expected, true));
    let refused = json!({"channel": "status/#", "data": 1, "retain": true});
    let answer = browser.call("$will", &refused.to_string());
    assert!(answer.contains("not that of an MQTT topic"), "{answer}");
}

#[test]
fn what_has_expired_reaches_neither_protocol_later() {
    let server = server(|_| {});
    let mut publisher = Mqtt::connect(&server, "publisher");
    // A session that is away keeps both publications; one expires in a second.
    let mut away = Mqtt::connect_with(&server, "away", 0, &[0x11, 0, 0, 0, 60]);
    away.subscribe("x/#", 1);
    drop(away);
    eventually("it is away", || {
        server.total(|core| &core.mqtt_sessions_connected) == 1
    });
    let mut live = server.client();
    for (channel, expiry) in [("x/short", 1), ("x/long", 100)] {
        live.subscribe(channel);
        assert_eq!(publisher.publish(channel, b"1", true, &[2, 0, 0, 0, expiry]), 0);
        assert_eq!(live.publication(channel), "1", "what is live comes at once");
    }
    let gone = || server.total(|core| &core.mqtt_retained_expired);
    eventually("one has expired", || gone() == 1);
    for (channel, comes) in [("x/short", false), ("x/long", true)] {
        let mut browser = server.client();
        subscribe_for_last(&mut browser, channel);
        if comes {
            assert_eq!(data_of(&browser.message())["data"], 1);
        }
        browser.ping();
    }
    let mut away = Mqtt::connect_with(&server, "away", 0, &[0x11, 0, 0, 0, 60]);
    let got = away.published();
    assert_eq!((&got.topic[..], got.properties[0]), ("x/long", 2));
    assert!(got.properties[4] < 100, "what is left of its time: {got:?}");
    away.has_nothing();
}

#[test]
fn the_last_value_of_a_channel_is_retained() {
    let server = server(|config| {
        config.channels = vec![policy(
            "price",
            ChannelPolicy {
                last_value: true,
                ..ChannelPolicy::default()
            },
        )];
    });
    let mut old = server.client();
    old.publish("price", "{\"gold\":1}");
    old.publish("price", "{\"gold\":2}");
    old.ping();
    let mut subscriber = Mqtt::connect(&server, "subscriber");
    subscriber.subscribe("price", 1);
    let got = subscriber.published();
    assert_eq!(
        (topic_and_payload(&got), got.retain),
        (("price", "{\"gold\":2}"), true)
    );
    Mqtt::connect(&server, "publisher").publish("price", b"3", false, &[]);
    assert_eq!(subscriber.published().payload, "3");
    let mut late = server.client();
    late.subscribe("price");
    assert!(late.message().ends_with("\"data\":3}}"));
}

#[test]
fn dashboards_find_the_topics_of_mosquitto_under_sys() {
    let server = server(|config| config.mqtt.sys_interval_seconds = 1);
    let mut subscriber = Mqtt::connect(&server, "dashboard");
    // The other client first: this helper drops packets before a SUBACK.
    subscriber.subscribe("#", 0);
    subscriber.subscribe("$SYS/#", 0);
    let mut values = HashMap::new();
    let wanted = [
        "version",
        "uptime",
        "clients/connected",
        "clients/total",
        "messages/received",
        "publish/messages/sent",
        "bytes/sent",
        "subscriptions/count",
        "retained messages/count",
        "load/messages/received/1min",
    ];
    let value =
        |values: &HashMap<String, String>, name: &str| values.get(&format!("$SYS/broker/{name}")).cloned();
    while wanted.iter().any(|name| value(&values, name).is_none())
        || value(&values, "clients/connected").unwrap() != "1"
        || value(&values, "subscriptions/count").unwrap() != "2"
    {
        let got = subscriber.published();
        values.insert(got.topic, got.payload);
    }
    assert!(
        values.keys().all(|topic| topic.starts_with("$SYS/")),
        "{values:?}"
    );
    assert!(value(&values, "version").unwrap().starts_with("ringcast"));
    assert_eq!(subscriber.publish("$SYS/broker/version", b"x", true, &[]), 0x87);
}
