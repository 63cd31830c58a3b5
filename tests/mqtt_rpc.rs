//! Procedures for MQTT clients: a publication to `$rpc/NAME` is a call, and its answer a publication to the Response
//! Topic.

#![allow(clippy::unwrap_used, clippy::disallowed_types)] // a test, which waits for locks

mod support;

use std::sync::{Arc, Mutex};

use ringcast::app::{AllowedPublish, CloseReason};
use ringcast::app::{App, AppError, Call, CallAnswer, Client, Deferred, Name, Peer, RawJson, Refusal};
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::services::{ServiceSpec, Terms};
use ringcast::internals::decision::Limit;
use support::mqtt::{Message, Mqtt, MqttServer, ack, body, publish, string};
use support::{eventually, mqtt};

/// The calls that the procedures of all cores have received, and the calls without an answer.
#[derive(Clone, Default)]
struct Procedures(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    events: Vec<String>,
    deferred: Vec<Deferred>,
    has_left: bool,
}

impl App for Procedures {
    fn publish(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        match channel.as_str() {
            Some("denied") => Err(AppError::new("no").into()),
            Some("changed") => Ok(peer.rewrite("other")),
            _ => Ok(AllowedPublish::as_sent()),
        }
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let data = call.data.map_or("-", RawJson::as_str).to_owned();
        match call.event.as_str() {
            Some("echo") => match call.data {
                Some(data) => peer.reply(&data),
                None => peer.reply_empty(),
            },
            Some("fail") => peer.refuse(&AppError::new("no room").named("RoomError")),
            Some("a/b") => peer.reply("a/b"),
            Some("publish") => {
                peer.publish("news", "from the procedure");
                peer.reply_empty()
            }
            Some("later") => {
                let (answer, deferred) = peer.defer();
                let mut seen = self.0.lock().unwrap();
                seen.events.push(format!("later {data}"));
                seen.deferred.push(deferred);
                answer
            }
            _ => CallAnswer::silent(),
        }
    }

    fn transmit(&mut self, call: &Call<'_>, _peer: &mut Peer<'_>) {
        let event = call.event.as_str().unwrap_or_default();
        let data = call.data.map_or("-", RawJson::as_str);
        self.0.lock().unwrap().events.push(format!("{event} {data}"));
    }

    fn disconnected(&mut self, _client: &mut Client<'_>, _reason: CloseReason) {
        self.0.lock().unwrap().has_left = true;
    }
}

fn server(change: impl FnOnce(&mut ringcast::config::Config)) -> (MqttServer, Procedures) {
    let procedures = Procedures::default();
    let app = procedures.clone();
    (MqttServer::start_with(change, move |_| app.clone()), procedures)
}

/// The properties of a request.
fn reply_to(topic: &str, correlation: Option<&[u8]>) -> Vec<u8> {
    let mut properties = vec![0x08];
    properties.extend(string(topic));
    if let Some(correlation) = correlation {
        properties.push(0x09);
        properties.extend(string(correlation));
    }
    properties
}

/// Sends a request with QoS 1, and returns the code of PUBACK.
#[track_caller]
fn request(client: &mut Mqtt, name: &str, properties: &[u8], payload: &[u8]) -> u8 {
    client.send(&publish(5, 0x02, &format!("$rpc/{name}"), 7, properties, payload));
    let answer = client.packet();
    assert_eq!(
        (answer[0], &body(&answer)[..2]),
        (0x40, &[0, 7][..]),
        "{answer:x?}"
    );
    body(&answer).get(2).copied().unwrap_or(0)
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[test]
fn the_answer_of_a_procedure_is_published_to_the_response_topic() {
    let (server, _) = server(|_| {});
    let mut client = server.connect(5, "caller");
    // No Local: the answer is the server's.
    client.subscribe("replies/caller", 0x04);
    for (name, payload, expected) in [
        ("echo", &b"{\"a\":[1]}"[..], "{\"a\":[1]}"),
        ("echo", b"on", "\"on\""),
        ("echo", b"\xff", "{\"base64\":true,\"data\":\"/w==\"}"),
        ("echo", b"", ""),
        ("a/b", b"", "\"a/b\""),
    ] {
        let properties = reply_to("replies/caller", Some(b"\0\x07"));
        assert_eq!(request(&mut client, name, &properties, payload), 0);
        let answer = client.message();
        assert_eq!((&answer.topic[..], text(&answer)), ("replies/caller", expected));
        // Payload Format Indicator 1, and the correlation data.
        assert_eq!(answer.properties, [&[1, 1, 9, 0, 2, 0, 7][..]].concat());
    }
    // The error of a procedure has a user property.
    let properties = reply_to("replies/caller", None);
    assert_eq!(request(&mut client, "fail", &properties, b""), 0);
    let answer = client.message();
    assert_eq!(text(&answer), r#"{"message":"no room","name":"RoomError"}"#);
    let user = [&[1, 1, 0x26][..], &string("error"), &string("1")].concat();
    assert_eq!(answer.properties, user);
    // The application may rewrite publications, and publish itself.
    client.subscribe("#", 0);
    assert_eq!(request(&mut client, "echo", &reply_to("changed", None), b"1"), 0);
    assert_eq!(text(&client.message()), "\"other\"");
    assert_eq!(
        request(&mut client, "publish", &reply_to("replies/x", None), b""),
        0
    );
    let topics = [client.message().topic, client.message().topic];
    assert_eq!(topics, ["replies/x", "news"]);
}

#[test]
fn a_response_has_the_qos_of_its_request_and_a_request_is_handled_once() {
    let (server, procedures) = server(|_| {});
    let mut client = server.connect(5, "caller");
    client.subscribe("replies", 2);
    let properties = reply_to("replies", None);
    // QoS 0 has no acknowledgement.
    client.send(&publish(5, 0, "$rpc/echo", 0, &properties, b"0"));
    let answer = client.message();
    assert_eq!((answer.qos, text(&answer)), (0, "0"));
    let twice = publish(5, 0x04, "$rpc/later", 9, &properties, b"2");
    client.send(&twice);
    client.expect(&ack(0x50, 9));
    client.send(&twice);
    client.expect(&ack(0x50, 9));
    client.send(&ack(0x62, 9));
    client.expect(&ack(0x70, 9));
    assert_eq!(procedures.0.lock().unwrap().events, ["later 2"]);
    let deferred = procedures.0.lock().unwrap().deferred.pop().unwrap();
    deferred.reply("late").unwrap();
    let answer = client.message();
    assert_eq!((answer.qos, text(&answer)), (2, "\"late\""));
}

#[test]
fn what_cannot_be_called_is_refused_with_a_code() {
    let (server, procedures) = server(|config| {
        let rule = |actions: &[Action], channels: Option<&str>, procedures: Option<&str>| RuleSpec {
            effect: Effect::Allow,
            actions: actions.to_vec(),
            channels: channels.map(|name| vec![name.to_owned()]),
            procedures: procedures.map(|name| vec![name.to_owned()]),
            ..RuleSpec::default()
        };
        config.permissions.rules_separator = '/';
        config.permissions.rules = vec![
            rule(&[Action::Invoke], None, Some("echo")),
            rule(&[Action::Invoke], None, Some("unknown")),
            rule(&[Action::Publish, Action::Subscribe], Some("replies/**"), None),
            rule(&[Action::Publish], Some("denied"), None),
            rule(&[Action::Publish], Some("$SYS/**"), None),
        ];
    });
    let mut client = server.connect(5, "caller");
    client.subscribe("replies/#", 1);
    for (name, topic, code) in [
        ("echo", "replies/1", 0),
        ("fail", "replies/1", 0x87),
        ("unknown", "replies/1", 0x10),
        ("", "replies/1", 0x90),
        ("echo", "elsewhere", 0x87),
        ("echo", "$rpc/echo", 0x90),
        ("echo", "$SYS/x", 0x87),
        // The application is asked about the answer, not about the call.
        ("echo", "denied", 0),
    ] {
        let found = request(&mut client, name, &reply_to(topic, None), b"1");
        assert_eq!(found, code, "{name:?} {topic}");
        if (name, topic) == ("echo", "replies/1") {
            assert_eq!(text(&client.message()), "1");
        }
    }
    // A one-way event is another action.
    assert_eq!(request(&mut client, "echo", &[], b"1"), 0x87);
    client.ping();
    assert!(procedures.0.lock().unwrap().events.is_empty());
    // A will is no call.
    let will = mqtt::connect_with(
        5,
        0x06,
        0,
        &[],
        &[string("id"), vec![0], string("$rpc/echo"), string("x")].concat(),
    );
    let mut other = server.open(mqtt::Over::Tcp, 5);
    other.send(&will);
    let answer = other.packet();
    assert_eq!((answer[0], body(&answer)[1]), (0x20, 0x87), "{answer:x?}");
}

#[test]
fn a_publication_without_a_response_topic_is_a_one_way_event() {
    let (server, procedures) = server(|_| {});
    let mut seen = server.connect(5, "seen");
    seen.subscribe("$rpc/#", 0);
    let mut new = server.connect(5, "new");
    assert_eq!(request(&mut new, "note", &[], b"on"), 0);
    let mut old = server.connect(4, "old");
    old.send(&publish(4, 0x03, "$rpc/note", 3, &[], b"[2]"));
    old.expect(&ack(0x40, 3));
    old.send(&publish(4, 0, "$rpc/note", 0, &[], b""));
    old.ping();
    let events = procedures.0.lock().unwrap().events.clone();
    assert_eq!(events, ["note \"on\"", "note [2]", "note -"]);
    // Nobody else sees it, and nothing is retained.
    seen.ping();
    let mut late = server.connect(5, "late");
    late.subscribe("$rpc/#", 0);
    late.ping();
}

#[test]
fn answers_that_come_later_are_bounded_and_end_with_the_connection() {
    let (server, procedures) = server(|config| config.limits.client_calls_max = 2);
    let mut client = server.connect(5, "caller");
    client.subscribe("replies", 1);
    let properties = |number: u8| reply_to("replies", Some(&[number]));
    for number in 0..2 {
        assert_eq!(request(&mut client, "later", &properties(number), b""), 0);
    }
    assert_eq!(request(&mut client, "later", &properties(2), b""), 0x97);
    assert_eq!(request(&mut client, "echo", &properties(3), b""), 0x97);
    assert_eq!(server.server.limit_hits(Limit::ClientCalls), 2);
    let take = || procedures.0.lock().unwrap().deferred.remove(0);
    take().refuse(AppError::text("too late")).unwrap();
    let answer = client.message();
    assert_eq!(text(&answer), "\"too late\"");
    assert!(
        answer.properties.starts_with(&[1, 1, 9, 0, 1, 0, 0x26]),
        "{answer:?}"
    );
    assert_eq!(request(&mut client, "echo", &properties(4), b"1"), 0);
    assert_eq!(text(&client.message()), "1");
    // The client vanishes: its answer goes nowhere, and another client of its name gets nothing.
    drop(client);
    eventually("the end is seen", || procedures.0.lock().unwrap().has_left);
    let mut again = server.connect(5, "caller");
    again.subscribe("replies", 1);
    drop(take().reply("late"));
    again.ping();
    // A right that is dropped is no open call any more.
    for number in 0..2 {
        assert_eq!(request(&mut again, "later", &properties(number), b""), 0);
    }
    procedures.0.lock().unwrap().deferred.clear();
    assert_eq!(request(&mut again, "later", &properties(5), b""), 0);
}

#[test]
fn ping_of_the_binary_answers_mqtt_clients() {
    let server = MqttServer::start(|_| {});
    let mut client = server.connect(5, "caller");
    client.subscribe("replies", 0);
    assert_eq!(request(&mut client, "ping", &reply_to("replies", None), b""), 0);
    assert_eq!(text(&client.message()), "{\"count\":1}");
    assert_eq!(
        request(&mut client, "other", &reply_to("replies", None), b""),
        0x10
    );
}

#[test]
fn a_service_answers_mqtt_clients_as_it_answers_others() {
    let (server, _) = server(|config| {
        config.permissions.rules = vec![RuleSpec {
            effect: Effect::Allow,
            ..RuleSpec::default()
        }];
        config.services = vec![ServiceSpec {
            pattern: "absent".to_owned(),
            terms: Terms::default(),
            file: None,
            line: 0,
        }];
    });
    let mut service = server.server.client();
    let served = service.call("$serve", r#"{"procedure":"math.*"}"#);
    assert!(served.contains(r#""window":64"#), "{served}");
    let mut client = server.connect(5, "caller");
    client.subscribe("replies", 0);
    let correlation = [7; 200];
    let properties = reply_to("replies", Some(&correlation));
    assert_eq!(request(&mut client, "math.add", &properties, b"[1,2]"), 0);
    let call = service.message();
    let expected = r#"{"event":"math.add","cid":1,"data":{"data":[1,2],"caller":{"id":""#;
    assert!(call.starts_with(expected), "{call}");
    service.send_text(r#"{"rid":1,"data":{"sum":3}}"#);
    let answer = client.message();
    assert_eq!((&answer.topic[..], text(&answer)), ("replies", r#"{"sum":3}"#));
    assert!(answer.properties.ends_with(&correlation), "{answer:?}");
    // An error of the service, one of the server, and an event.
    assert_eq!(
        request(&mut client, "math.add", &reply_to("replies", None), b""),
        0
    );
    service.message();
    service.send_text(r#"{"rid":2,"error":{"name":"E","message":"no"}}"#);
    let answer = client.message();
    assert_eq!(text(&answer), r#"{"name":"E","message":"no"}"#);
    assert_eq!(request(&mut client, "absent", &reply_to("replies", None), b""), 0);
    let answer = client.message();
    assert!(text(&answer).contains("NoServiceError"), "{answer:?}");
    assert!(
        answer.properties.ends_with(b"\x26\0\x05error\0\x011"),
        "{answer:?}"
    );
    assert_eq!(request(&mut client, "math.note", &[], b"on"), 0);
    let event = service.message();
    assert!(
        event.starts_with(r#"{"event":"math.note","data":{"data":"on","#),
        "{event}"
    );
    // The caller goes: the service is told.
    assert_eq!(request(&mut client, "math.add", &properties, b""), 0);
    service.message();
    drop(client);
    assert_eq!(service.message(), r#"{"event":"$cancel","data":{"rid":3}}"#);
}
