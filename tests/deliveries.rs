//! The look of an application at what clients get of a channel (`App::deliver`), for all that is kept before a client gets
//! it: histories, last values, retained publications, queues of MQTT sessions, and shared subscriptions. What a client must
//! not see it sees nowhere, what is rewritten is rewritten once, and nobody is told of a gap in which nothing was for it.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;

use ringcast::app::{
    App, Call, CallAnswer, Client as AppClient, Context, Name, Outbound, Peer, RawJson, Upgrade,
};
use ringcast::config::channels::{
    ChannelPolicy, ChannelSpec, HistoryPolicy, MqttPayload, MqttPolicy, StringPolicy,
};
use ringcast::config::{Config, Placement, SlowConsumer};
use serde_json::{Value, json};
use support::folder::Folder;
use support::mqtt::{self, Message, Mqtt};
use support::{Client, Server, UPGRADE, eventually};

/// An application that withholds strings with "secret", and marks strings with "draft". Clients that ask for `who=staff` get
/// all. Data that is not there, or no string, it does not know: it withholds that.
struct Censor;

impl App for Censor {
    const LOOKS_AT_DELIVERIES: bool = true;

    fn context(&mut self, request: &Upgrade<'_>) -> Context {
        Context::none().with(request.query == "who=staff")
    }

    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        peer.reply(&json!({"count": 1}))
    }

    fn deliver(
        &mut self,
        _channel: Name<'_>,
        data: Option<RawJson<'_>>,
        client: &mut AppClient<'_>,
    ) -> Outbound {
        if client.value::<bool>() == Some(&true) {
            return Outbound::pass();
        }
        match data.and_then(|data| serde_json::from_str::<String>(data.as_str()).ok()) {
            Some(text) if text.contains("draft") => Outbound::instead(&format!("marked {text}")),
            Some(text) if !text.contains("secret") => Outbound::pass(),
            Some(_) | None => Outbound::withhold(),
        }
    }
}

fn remembers(name: &str, entries: u32, last_value: bool) -> ChannelSpec {
    ChannelSpec {
        names: vec![name.to_owned()],
        policy: ChannelPolicy {
            history: (entries > 0).then_some(HistoryPolicy {
                entries_max: entries,
                bytes_max: 16 << 20,
                age_ms_max: 600_000,
            }),
            last_value,
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    }
}

/// Three cores: most channels are owned by another core than that of their subscriber.
fn start(change: impl FnOnce(&mut Config)) -> Server {
    Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(3);
            config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.channels = vec![
                remembers("room.*", 10_000, false),
                remembers("short.*", 3, false),
                remembers("price.*", 0, true),
                ChannelSpec {
                    names: vec!["plain".to_owned()],
                    policy: ChannelPolicy {
                        mqtt: MqttPolicy {
                            payload: Some(MqttPayload::Text),
                            strings: StringPolicy::Unquoted,
                            ..MqttPolicy::default()
                        },
                        ..ChannelPolicy::default()
                    },
                    ..ChannelSpec::default()
                },
            ];
            change(config);
        },
        |_| Censor,
    )
}

/// A client that gets all.
fn staff(server: &Server) -> Client {
    let mut client = server.connect();
    let request = UPGRADE.replacen("/socketcluster/ ", "/socketcluster/?who=staff ", 1);
    client.send_bytes(request.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.handshake();
    client
}

fn device(server: &Server, connect: &[u8]) -> Mqtt {
    let client = Client::connect(server.running().mqtt_address().unwrap());
    let mut device = Mqtt::over_tcp(client, 5);
    device.send(connect);
    device.accepted();
    device
}

/// CONNECT of MQTT 5 for a session that lasts, of a client that may have so many in flight.
fn lasting(id: &str, in_flight: u16) -> Vec<u8> {
    let [high, low] = in_flight.to_be_bytes();
    let properties = [0x11, 0, 0, 0x0e, 0x10, 0x21, high, low];
    mqtt::connect_with(5, 0, 0, &properties, &mqtt::string(id))
}

/// Publishes strings, each when the server has the one before.
fn publish<T: AsRef<str>>(client: &mut Client, channel: &str, texts: impl IntoIterator<Item = T>) {
    for text in texts {
        client.call(
            "#publish",
            &json!({"channel": channel, "data": text.as_ref()}).to_string(),
        );
    }
}

/// Subscribes with this data, and returns the data of the answer.
#[track_caller]
fn subscribe_with(client: &mut Client, channel: &str, data: &Value) -> Value {
    let call = json!({"channel": channel, "data": data}).to_string();
    let cid = client.begin_call("#subscribe", &call);
    let answer: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(answer["rid"], cid, "{answer}");
    answer["data"].clone()
}

#[track_caller]
fn next(client: &mut Client) -> Value {
    serde_json::from_str(&client.message()).unwrap()
}

/// The next message is a publication with this data, from a history or live; returns its position.
#[track_caller]
fn expect(client: &mut Client, data: &str, replayed: bool) -> Value {
    let message = next(client);
    assert_eq!(message["event"], "#publish", "{message}");
    assert_eq!(message["data"]["data"], data, "{message}");
    assert_eq!(message["data"]["replayed"] == true, replayed, "{message}");
    message["data"]["position"].clone()
}

/// The next message is the event that tells a position.
#[track_caller]
fn told_position(client: &mut Client, channel: &str) -> Value {
    let message = next(client);
    assert_eq!(message["event"], "$position", "{message}");
    assert_eq!(message["data"]["channel"], channel, "{message}");
    message["data"]["position"].clone()
}

/// The payloads of the next messages of a device, which it acknowledges.
#[track_caller]
fn payloads(device: &mut Mqtt, count: usize) -> Vec<String> {
    let messages = std::iter::repeat_with(|| taken(device)).take(count);
    messages
        .map(|message| String::from_utf8(message.payload).unwrap())
        .collect()
}

/// The next message of a device, which acknowledges it.
#[track_caller]
fn taken(device: &mut Mqtt) -> Message {
    let message = device.message();
    match message.qos {
        0 => {}
        1 => device.send(&mqtt::ack(0x40, message.id)),
        _ => {
            device.send(&mqtt::ack(0x50, message.id));
            assert_eq!(device.packet()[0], 0x62, "PUBREL");
            device.send(&mqtt::ack(0x70, message.id));
        }
    }
    message
}

/// Nothing has come to a device.
#[track_caller]
fn is_idle(device: &mut Mqtt) {
    device.send(mqtt::PINGREQ);
    assert_eq!(device.packet(), mqtt::PINGRESP);
}

const SOME: [&str; 5] = ["a", "secret b", "draft c", "d", "secret e"];

#[test]
fn a_history_is_as_the_client_may_see_it_whatever_it_asks_for() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for number in 0..12 {
        // Channels of all cores.
        let channel = &*format!("room.{number}");
        let mut reader = staff(&server);
        let begin = subscribe_with(&mut reader, channel, &json!({"recover": null}))["position"].clone();
        publish(&mut publisher, channel, SOME);
        for text in SOME {
            expect(&mut reader, text, false);
        }
        let questions = [json!({"recover": begin}), json!({"last": 5}), json!({"since": 1})];
        let mut client = server.client();
        let answer = subscribe_with(&mut client, channel, &questions[number % 3]);
        assert_eq!(answer["recovered"], true, "{answer}");
        assert_eq!(answer["publications"], 5, "at most so many: {answer}");
        for text in ["a", "marked draft c", "d"] {
            expect(&mut client, text, true);
        }
        // It has all up to there, and what is live comes next.
        let told = told_position(&mut client, channel);
        client.call("#unsubscribe", &json!(channel).to_string());
        let answer = subscribe_with(&mut client, channel, &json!({"recover": told}));
        assert_eq!(
            (&answer["recovered"], &answer["publications"]),
            (&json!(true), &json!(0))
        );
        publish(&mut publisher, channel, ["secret live", "live"]);
        expect(&mut client, "live", false);
        for text in ["secret live", "live"] {
            expect(&mut reader, text, false);
        }
    }
}

#[test]
fn a_last_value_that_a_client_must_not_see_does_not_come() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for (text, seen) in [
        ("a", Some("a")),
        ("draft b", Some("marked draft b")),
        ("secret c", None),
    ] {
        publish(&mut publisher, "price.gold", [text]);
        let mut client = server.client();
        client.subscribe("price.gold");
        if let Some(seen) = seen {
            expect(&mut client, seen, true);
        }
        let mut reader = staff(&server);
        reader.subscribe("price.gold");
        expect(&mut reader, text, true);
        client.ping();
    }
}

#[test]
fn a_call_of_history_tells_what_the_client_may_see_and_where_to_go_on() {
    let server = start(|_| {});
    let mut publisher = server.client();
    let mut reader = staff(&server);
    let begin = subscribe_with(&mut reader, "room.h", &json!({"recover": null}))["position"].clone();
    // More that must not be seen than one answer looks at.
    publish(&mut publisher, "room.h", ["first"]);
    for number in 0..2500 {
        publisher.publish("room.h", &format!("\"secret {number}\""));
    }
    publish(&mut publisher, "room.h", ["draft last"]);
    let history = |client: &mut Client, question: Value| -> Value {
        let answer: Value = serde_json::from_str(&client.call("$history", &question.to_string())).unwrap();
        answer["data"].clone()
    };
    let (mut seen, mut position, mut answers) = (Vec::new(), begin, 0);
    loop {
        let answer = history(&mut publisher, json!({"channel": "room.h", "recover": position}));
        assert_eq!(answer["recovered"], true, "{answer}");
        answers += 1;
        let publications = answer["publications"].as_array().unwrap();
        seen.extend(
            publications
                .iter()
                .map(|one| one["data"].as_str().unwrap().to_owned()),
        );
        if answer.get("more").is_none() {
            assert_eq!(answer.get("after"), None);
            break;
        }
        let last = publications
            .last()
            .map_or(Value::Null, |last| last["offset"].clone());
        position["offset"] = answer.get("after").cloned().unwrap_or(last);
    }
    assert_eq!(
        (&*seen[0], &*seen[1], seen.len(), answers),
        ("first", "marked draft last", 2, 3)
    );
    let answer = history(&mut publisher, json!({"channel": "room.h", "last": 3}));
    assert_eq!(answer["publications"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!((answer.get("more"), answer.get("after")), (None, None));
    let answer = history(
        &mut publisher,
        json!({"channel": "room.h", "since": 1, "limit": 5}),
    );
    assert_eq!(answer["publications"][0]["data"], "marked draft last", "{answer}");
    assert_eq!((&answer["more"], answer.get("after")), (&json!(true), None));
    let answer = history(
        &mut staff(&server),
        json!({"channel": "room.h", "last": 2, "limit": 5}),
    );
    assert_eq!(answer["publications"][0]["data"], "secret 2499", "{answer}");
}

/// Publishes what `client` must not see, and waits until it is told the position of the last, which `reader` gets.
fn withhold(publisher: &mut Client, channel: &str, reader: &mut Client, client: &mut Client) -> Value {
    publish(publisher, channel, ["secret"; 5]);
    let positions = std::iter::repeat_with(|| expect(reader, "secret", false)).take(5);
    let last = positions.last().unwrap();
    // On a slow machine it is told of one before the last, too.
    while told_position(client, channel) != last {}
    last
}

#[test]
fn a_client_from_which_all_was_withheld_for_long_is_told_of_no_gap() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for channel in ["short.1", "short.2", "short.3", "short.4"] {
        let (mut client, mut reader) = (server.client(), staff(&server));
        let begin = subscribe_with(&mut client, channel, &json!({"recover": null}))["position"].clone();
        reader.subscribe(channel);
        publish(&mut publisher, channel, ["a"]);
        expect(&mut reader, "a", false);
        expect(&mut client, "a", false);
        withhold(&mut publisher, channel, &mut reader, &mut client);
        publish(&mut publisher, channel, ["b"]);
        expect(&mut client, "b", false);
        expect(&mut reader, "b", false);
        let told = withhold(&mut publisher, channel, &mut reader, &mut client);
        for (position, is_known) in [(told, true), (begin, false)] {
            client.call("#unsubscribe", &json!(channel).to_string());
            let answer = subscribe_with(&mut client, channel, &json!({"recover": position}));
            assert_eq!(answer["recovered"], is_known, "{answer}");
        }
    }
}

#[test]
fn a_client_that_reads_on_gets_from_the_history_what_it_may_see() {
    let server = start(|config| {
        config.delivery.slow_consumer = SlowConsumer::Skip;
        config.limits.outbox_bytes_max = 64 * 1024;
    });
    let mut publisher = server.client();
    let mut client = Client::connect_narrow(server.running().address());
    client.upgrade();
    client.handshake();
    subscribe_with(&mut client, "room.slow", &json!({"recover": null}));
    let filler = "x".repeat(2000);
    let count = 3000;
    for number in 0..count {
        let text = match number % 3 {
            0 => format!("secret {number}"),
            1 => format!("draft {number} {filler}"),
            _ => format!("{number} {filler}"),
        };
        publisher.publish("room.slow", &json!(text).to_string());
    }
    publisher.ping();
    assert!(
        server.total(|core| &core.catch_ups) > 0,
        "the client has fallen behind"
    );
    let mut replayed = 0;
    for number in (0..count).filter(|number| number % 3 > 0) {
        let message = next(&mut client);
        let text = message["data"]["data"].as_str().unwrap().to_owned();
        let begin = match number % 3 {
            1 => format!("marked draft {number} "),
            _ => format!("{number} "),
        };
        assert!(text.starts_with(&begin), "{begin}: {text}");
        replayed += usize::from(message["data"]["replayed"] == true);
    }
    assert!(replayed > 0);
}

#[test]
fn retained_publications_come_as_each_subscriber_may_see_them() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for (topic, text) in [
        ("r/a", "a"),
        ("r/b", "secret b"),
        ("r/c", "draft c"),
        ("plain", "draft p"),
    ] {
        publisher.call("$retain", &json!({"channel": topic, "data": text}).to_string());
    }
    for qos in 0..3 {
        let mut late = device(&server, &lasting(&format!("late-{qos}"), 100));
        late.send(&mqtt::subscribe(5, 1, &[], &[("r/+", qos), ("plain", qos)]));
        assert_eq!(late.packet()[0], 0x90);
        let mut got = payloads(&mut late, 3);
        got.sort();
        assert_eq!(
            got,
            ["\"a\"", "\"marked draft c\"", "marked draft p"],
            "QoS {qos}"
        );
        is_idle(&mut late);
    }
    for (topic, seen) in [("r/a", Some("a")), ("r/b", None), ("r/c", Some("marked draft c"))] {
        let mut client = server.client();
        assert_eq!(
            subscribe_with(&mut client, topic, &json!({"last": 1})),
            Value::Null
        );
        if let Some(seen) = seen {
            expect(&mut client, seen, true);
        }
        client.ping();
        let mut reader = staff(&server);
        subscribe_with(&mut reader, topic, &json!({"last": 1}));
        assert_eq!(next(&mut reader)["data"]["replayed"], true);
    }
}

#[test]
fn what_waits_for_a_session_is_looked_at_when_its_client_gets_it_also_after_a_restart() {
    let folder = Folder::new();
    let start = || start(|config| config.store.data_dir = Some(folder.path().to_owned()));
    let server = start();
    let mut publisher = server.client();
    for qos in [1, 2] {
        let id = format!("device-{qos}");
        let mut away = device(&server, &lasting(&id, 100));
        away.subscribe("q", qos);
        away.subscribe("plain", qos);
        away.send(mqtt::DISCONNECT);
    }
    eventually("the devices are away", || server.connections() == 1);
    publish(&mut publisher, "q", SOME);
    // Without its quotes it looks like another kind of data.
    publish(&mut publisher, "plain", ["draft p", "7", "secret"]);
    let mut plain = mqtt::Mqtt::at(server.running().mqtt_address().unwrap(), 5, "plain");
    // An MQTT payload that is JSON, and one that is not.
    for payload in ["\"draft m\"", "no JSON"] {
        plain.send(&mqtt::publish(5, 2, "q", 9, &[], payload.as_bytes()));
        assert_eq!(plain.packet()[0], 0x40, "PUBACK");
    }
    let expected = [
        "\"a\"",
        "\"marked draft c\"",
        "\"d\"",
        "marked draft p",
        "7",
        "\"marked draft m\"",
    ];
    let read = |server: &Server, id: &str| {
        let mut back = device(server, &lasting(id, 100));
        // Nothing is acknowledged: all of it comes again.
        let got = std::iter::repeat_with(|| back.message()).take(expected.len());
        let got: Vec<String> = got
            .map(|message| String::from_utf8(message.payload).unwrap())
            .collect();
        is_idle(&mut back);
        got
    };
    for id in ["device-1", "device-2"] {
        assert_eq!(read(&server, id), expected, "{id}");
        assert_eq!(read(&server, id), expected, "{id}, once more");
    }
    drop((publisher, plain));
    drop(server);
    let server = start();
    for id in ["device-1", "device-2"] {
        assert_eq!(read(&server, id), expected, "{id}, after a restart");
        let mut back = device(&server, &lasting(id, 100));
        assert_eq!(payloads(&mut back, expected.len()), expected);
        is_idle(&mut back);
    }
}

#[test]
fn what_waits_for_acknowledgements_is_rewritten_once() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for qos in [1, 2] {
        let mut slow = device(&server, &lasting(&format!("slow-{qos}"), 1));
        slow.subscribe("q", qos);
        publish(&mut publisher, "q", SOME);
        assert_eq!(
            payloads(&mut slow, 3),
            ["\"a\"", "\"marked draft c\"", "\"d\""],
            "QoS {qos}"
        );
        is_idle(&mut slow);
        slow.send(&mqtt::unsubscribe(5, 2, &["q"]));
        assert_eq!(slow.packet()[0], 0xb0);
    }
}

/// Takes what has come to a device, and acknowledges it.
fn take_all(device: &mut Mqtt, payloads: &mut Vec<String>) {
    device.send(mqtt::PINGREQ);
    loop {
        let packet = device.packet();
        if packet == mqtt::PINGRESP {
            return;
        }
        if packet[0] == 0x62 {
            // PUBREL
            device.send(&mqtt::ack(0x70, u16::from_be_bytes([packet[2], packet[3]])));
            continue;
        }
        let message = Message::read(5, &packet);
        match message.qos {
            0 => {}
            1 => device.send(&mqtt::ack(0x40, message.id)),
            _ => device.send(&mqtt::ack(0x50, message.id)),
        }
        payloads.push(String::from_utf8(message.payload).unwrap());
    }
}

#[test]
fn a_member_of_a_group_gets_what_it_may_see_and_the_rest_goes_to_nobody() {
    let server = start(|_| {});
    let mut publisher = server.client();
    for qos in 0..3 {
        // Each group has a topic of its own: its owner may be behind with what was published to another.
        let (topic, group) = (format!("s{qos}"), format!("$share/g/s{qos}"));
        // One at a time: most of it waits in the sessions of the members.
        let mut members: Vec<_> = (0..3)
            .map(|number| {
                let mut member = device(&server, &lasting(&format!("member-{qos}-{number}"), 1));
                member.subscribe(&group, qos);
                member
            })
            .collect();
        let texts = (0..30).map(|number| match number % 3 {
            0 => format!("secret {number}"),
            1 => format!("draft {number}"),
            _ => format!("{number}"),
        });
        publish(&mut publisher, &topic, texts);
        let mut got = Vec::new();
        eventually("the members have what they may see", || {
            members.iter_mut().for_each(|member| take_all(member, &mut got));
            got.len() >= 20
        });
        let mut expected: Vec<_> = (0..30)
            .filter(|number| number % 3 > 0)
            .map(|number| match number % 3 {
                1 => format!("\"marked draft {number}\""),
                _ => format!("\"{number}\""),
            })
            .collect();
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "QoS {qos}");
    }
    eventually("all others are withheld", || {
        server.total(|core| &core.publications_withheld) == 30
    });
}
