//! The methods of an application, over real connections of both protocols: its data about a connection, events, later
//! decisions, periodic work, timers, and its look at deliveries. Tests the example `examples/tenants`.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringcast::app::{
    App, AppError, Call, CallAnswer, DeferredDecision, Name, Outbound, Peer, RawJson, Refusal, TimerId,
    TimerRefused,
};
use ringcast::config::Placement;
use ringcast::internals::decision::Limit;
use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, UPGRADE, mqtt};
use tenants_app::{About, Question};

#[path = "../examples/tenants/app.rs"]
mod tenants_app;

/// The example, and its audit trail.
fn tenants() -> (Server, Receiver<String>) {
    tenants_with(&tenants_app::directory(), Duration::from_secs(60))
}

/// The example with a directory of the test.
fn tenants_with(directory: &SyncSender<Question>, timeout: Duration) -> (Server, Receiver<String>) {
    let (audit, lines) = sync_channel(1024);
    let server = Server::start_with(
        |config| {
            config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.limits.decision_timeout = timeout;
        },
        |_| tenants_app::Tenants::new(audit.clone(), directory.clone()),
    );
    (server, lines)
}

#[track_caller]
fn expect(lines: &Receiver<String>, line: &str) {
    assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), line);
}

fn request(query: &str) -> String {
    let headers = "HTTP/1.1\r\nUser-Agent: test\r\n";
    UPGRADE
        .replacen("/socketcluster/ ", &format!("/socketcluster/{query} "), 1)
        .replacen("HTTP/1.1\r\n", headers, 1)
}

/// A client of a tenant.
fn client_of(server: &Server, tenant: &str) -> Client {
    let mut client = upgraded(server, tenant);
    client.handshake();
    client
}

/// A client of a tenant before its handshake.
fn upgraded(server: &Server, tenant: &str) -> Client {
    let mut client = server.connect();
    client.send_bytes(request(&format!("?a=b&tenant={tenant}")).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client
}

const HANDSHAKE: &str = r##"{"event":"#handshake","data":{},"cid":1}"##;

#[test]
fn what_the_application_keeps_about_a_connection_is_there_until_its_end() {
    let (server, lines) = tenants();
    let mut stranger = server.connect();
    stranger.send_bytes(request("?tenant=").as_bytes());
    assert!(stranger.read_head().starts_with("HTTP/1.1 401 "));
    let mut clients = ["blue", "green"].map(|tenant| (tenant, client_of(&server, tenant)));
    for calls in 1..=3 {
        for (tenant, client) in &mut clients {
            let answer: Value = serde_json::from_str(&client.call("me", "null")).unwrap();
            let expected =
                json!({"tenant": *tenant, "calls": calls, "address": "127.0.0.1", "agent": "test"});
            assert_eq!(answer["data"], expected);
        }
    }
    let [(_, mut blue), (_, green)] = clients;
    blue.subscribe("blue/1");
    assert!(
        blue.call("#subscribe", r#"{"channel":"green/1"}"#)
            .contains("another tenant")
    );
    drop(blue);
    expect(&lines, "blue: gone, peer_vanished");
    drop(green);
    expect(&lines, "green: gone, peer_vanished");
}

#[test]
fn the_application_is_told_of_each_subscription_that_ends_while_its_client_is_connected() {
    let (server, lines) = tenants();
    let mut client = client_of(&server, "blue");
    for channel in ["blue/room", "blue/hall", "blue/attic"] {
        client.subscribe(channel);
    }
    client.call("#unsubscribe", "\"blue/hall\"");
    expect(&lines, "blue: unsubscribed from blue/hall");
    // It is subscribed no more: that is an error, and ends nothing.
    assert!(
        client
            .call("#unsubscribe", "\"blue/hall\"")
            .contains("BrokerError")
    );
    client.call("leave", "\"blue/room\"");
    expect(&lines, "blue: unsubscribed from blue/room");
    drop(client);
    expect(&lines, "blue: gone, peer_vanished");
}

#[test]
fn the_application_is_told_when_a_client_becomes_another_user() {
    let (server, lines) = tenants();
    let mut client = client_of(&server, "blue");
    client.call("log in", "null");
    expect(&lines, "blue: is ann now");
    assert!(client.message().contains("#setAuthToken"));
    client.send_text(r##"{"event":"#removeAuthToken"}"##);
    expect(&lines, "blue: is nobody now");
    client.call("log in", "null");
    expect(&lines, "blue: is ann now");
    assert!(client.message().contains("#setAuthToken"));
    client.call("log out", "null");
    expect(&lines, "blue: is nobody now");
    client.call("#authenticate", "\"no token\"");
    expect(&lines, "blue: is nobody now");
}

#[test]
fn an_mqtt_client_has_a_context_on_whichever_core_its_session_is() {
    let (server, lines) = tenants();
    // Each id has an owner among the two cores, to which the connection moves.
    for number in 0..8 {
        let mut client = Client::connect(server.running().mqtt_address().unwrap());
        client.send_bytes(&mqtt::connect(4, &format!("device {number}")));
        assert_eq!(client.read_bytes(4), [0x20, 2, 0, 0]);
        client.send_bytes(&mqtt::subscribe(4, 1, &[], &[("devices/+", 0), ("blue/1", 0)]));
        assert_eq!(client.read_bytes(6), [0x90, 4, 0, 1, 0, 0x80]);
        client.send_bytes(&mqtt::unsubscribe(4, 2, &["devices/+", "none"]));
        assert_eq!(client.read_bytes(4), [0xb0, 2, 0, 2]);
        expect(&lines, "devices: unsubscribed from devices/+");
        client.send_bytes(&[0xe0, 0]);
        expect(&lines, "devices: gone, mqtt_disconnected");
    }
    assert!(server.total(|core| &core.moves) > 0, "no connection has moved");
}

#[test]
fn each_core_ticks_again_and_again_although_no_client_does_anything() {
    let (server, _lines) = tenants();
    let mut client = client_of(&server, "blue");
    client.subscribe("blue/online");
    for _ in 0..3 {
        let (_core, online): (usize, u32) = serde_json::from_str(&client.publication("blue/online")).unwrap();
        assert_eq!(online, 1);
    }
}

#[test]
fn the_directory_decides_about_connections_subscriptions_and_publications() {
    let (server, _lines) = tenants();
    let mut suspended = upgraded(&server, "suspended");
    suspended.send_text(HANDSHAKE);
    assert!(suspended.message().contains("SuspendedError"));
    assert_eq!(suspended.close_frame().0, Some(4008));

    let mut client = client_of(&server, "blue");
    let refused = client.call("#subscribe", r#"{"channel":"blue/private/secret"}"#);
    assert!(refused.contains("SilentMiddlewareBlockedError"), "{refused}");
    client.subscribe("blue/private/1");
    let mut device = Client::connect(server.running().mqtt_address().unwrap());
    device.send_bytes(&mqtt::connect(4, "device"));
    assert_eq!(device.read_bytes(4), [0x20, 2, 0, 0]);
    device.send_bytes(&mqtt::subscribe(
        4,
        1,
        &[],
        &[("devices/private/secret", 1), ("devices/private/a", 1)],
    ));
    assert_eq!(device.read_bytes(6), [0x90, 4, 0, 1, 0x80, 1]);
    device.send_bytes(&mqtt::publish(4, 2, "devices/private/a", 5, &[], b"\"darn it\""));
    let got = device.read_bytes(2 + 2 + "devices/private/a".len() + 2 + "\"**** it\"".len());
    assert!(got.ends_with(b"\"**** it\""), "{got:?}");
    assert_eq!(device.read_bytes(4), [0x40, 2, 0, 5]);
    client.publish("blue/private/1", "\"darn\"");
    assert_eq!(client.publication("blue/private/1"), "\"****\"");
}

/// The next question, which must be about this.
#[track_caller]
fn next(questions: &Receiver<Question>, about: &str) -> DeferredDecision {
    let question = questions.recv_timeout(PATIENCE).unwrap();
    let (About::Tenant(text) | About::Private(text) | About::Text(text)) = question.about;
    assert_eq!(text, about);
    question.decision
}

#[test]
fn a_client_waits_for_a_decision_with_all_that_it_sends_and_no_other_client_waits() {
    let (directory, questions) = sync_channel(1024);
    let (server, _lines) = tenants_with(&directory, Duration::from_secs(3600));
    // The handshake and all behind it lie in the server's buffers.
    let mut waiting = upgraded(&server, "slow");
    waiting.send_text(HANDSHAKE);
    waiting.send_text(r##"{"event":"#subscribe","data":{"channel":"slow/private/1"},"cid":2}"##);
    waiting.send_text(r##"[{"event":"me","cid":3},{"event":"#publish","data":{"channel":"slow/private/1","data":"one"},"cid":4},{"event":"me","cid":5}]"##);
    waiting.send_text(r#"{"event":"me","cid":6}"#);
    let handshake = next(&questions, "slow");
    // Meanwhile a hundred others come and go, on the same cores.
    for number in 0..100 {
        let mut other = upgraded(&server, "quick");
        other.send_text(HANDSHAKE);
        next(&questions, "quick").allow().unwrap();
        assert!(other.message().contains("isAuthenticated"));
        other.subscribe(&format!("quick/{number}"));
    }
    handshake.allow().unwrap();
    assert!(waiting.message().starts_with(r#"{"rid":1,"#));
    let subscribe = next(&questions, "slow/private/1");
    subscribe.allow().unwrap();
    assert_eq!(waiting.message(), r#"{"rid":2}"#);
    assert!(waiting.message().starts_with(r#"{"rid":3,"#));
    let publish = next(&questions, "one");
    publish.decide(|peer| Ok(peer.rewrite("two"))).unwrap();
    assert_eq!(waiting.publication("slow/private/1"), "\"two\"");
    for rid in 4..=6 {
        assert!(waiting.message().starts_with(&format!(r#"{{"rid":{rid}"#)));
    }
}

#[test]
fn a_client_whose_decision_never_comes_is_refused_and_goes_on() {
    let (directory, questions) = sync_channel(1024);
    let (server, lines) = tenants_with(&directory, Duration::from_millis(50));
    let mut late = upgraded(&server, "slow");
    late.send_text(HANDSHAKE);
    let kept = next(&questions, "slow");
    assert!(late.message().contains("TimeoutError"));
    assert_eq!(late.close_frame().0, Some(4008));
    // It decides about a client that has gone.
    let _ = kept.allow();

    let mut device = Client::connect(server.running().mqtt_address().unwrap());
    device.send_bytes(&mqtt::connect(5, "device"));
    let kept = next(&questions, "devices");
    let connack = device.read_bytes(4);
    assert_eq!((connack[0], connack[3]), (0x20, 0x88));
    drop(kept);

    let mut client = upgraded(&server, "blue");
    client.send_text(HANDSHAKE);
    next(&questions, "blue").allow().unwrap();
    assert!(client.message().contains("isAuthenticated"));
    let refused = client.call("#subscribe", r#"{"channel":"blue/private/1"}"#);
    assert!(refused.contains("TimeoutError"), "{refused}");
    client.subscribe("blue/1");
    client.send_text(r##"{"event":"#publish","data":{"channel":"blue/1","data":"one"},"cid":9}"##);
    next(&questions, "blue/private/1").allow().unwrap();
    next(&questions, "one").refuse(AppError::new("no")).unwrap();
    assert!(client.message().contains(r#""message":"no""#));
    assert_eq!(server.limit_hits(Limit::DecisionTime), 3);
    // A client that goes while it waits is gone when its deadline has passed, at the latest.
    client.begin_call("#subscribe", r#"{"channel":"blue/private/2"}"#);
    drop(client);
    expect(&lines, "blue: gone, peer_vanished");
}

/// An application that sets timers for its clients: `in` so many milliseconds. When they come, it tells the client.
struct Alarms;

impl App for Alarms {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        peer.set_timer(Duration::ZERO)
            .map(|_| ())
            .map_err(|_| Refusal::silent())
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let number = call.data.and_then(|data| data.parse::<u64>(peer).ok());
        match (call.event.as_str(), number) {
            (Some("in"), Some(ms)) => match peer.set_timer(Duration::from_millis(ms)) {
                Ok(timer) => peer.reply(&timer.as_u64()),
                Err(refused) => peer.refuse(&AppError::new(refused.to_string())),
            },
            // Sets one and cancels it, twice.
            (Some("never"), _) => {
                let timer = peer.set_timer(Duration::from_millis(1)).unwrap();
                let cancelled = [peer.cancel_timer(timer), peer.cancel_timer(timer)];
                peer.reply(&cancelled)
            }
            _ => peer.reply_empty(),
        }
    }

    fn timer(&mut self, timer: TimerId, peer: &mut Peer<'_>) {
        peer.transmit("alarm", &timer.as_u64());
        peer.publish("alarms", &timer.as_u64());
    }
}

fn alarm(timer: &Value) -> String {
    format!(r#"{{"event":"alarm","data":{timer}}}"#)
}

/// The number of the timer that an answer to `in` gives.
#[track_caller]
fn timer_in(answer: &str) -> Value {
    serde_json::from_str::<Value>(answer).unwrap()["data"].clone()
}

#[test]
fn timers_of_clients_come_in_their_order_unless_they_are_cancelled_and_end_with_the_connection() {
    let server = Server::start_with(|config| config.limits.timers_per_connection_max = 3, |_| Alarms);
    let mut client = server.connect();
    client.upgrade();
    client.send_text(HANDSHAKE);
    // The timer that `handshake` has set waits for the end of the handshake, although its time has come.
    assert!(client.message().contains("\"rid\":1"));
    assert!(client.message().contains("alarm"));
    let mut watcher = server.client();
    watcher.message();
    watcher.subscribe("alarms");

    let never = client.call("never", "0");
    assert!(never.contains("[true,false]"), "{never}");
    let (late, soon) = (client.call("in", "200"), client.call("in", "20"));
    let (late, soon) = (timer_in(&late), timer_in(&soon));
    client.call("in", "3600000");
    let refused = client.call("in", "1");
    assert!(refused.contains(&TimerRefused::TooMany.to_string()), "{refused}");
    assert_eq!(server.limit_hits(Limit::Timers), 1);
    for timer in [&soon, &late] {
        assert_eq!(client.message(), alarm(timer));
        assert_eq!(watcher.publication("alarms"), timer.to_string());
    }
    // There is room again, and the one of an hour is still there.
    for _ in 0..2 {
        let timer = timer_in(&client.call("in", "10"));
        assert_eq!(client.message(), alarm(&timer));
        assert_eq!(watcher.publication("alarms"), timer.to_string());
    }
    // The timers of a connection end with it: the next of another client is the next of all.
    client.call("in", "1");
    client.message();
    watcher.publication("alarms");
    client.call("in", "300");
    drop(client);
    server.settles_at(1, 1);
    let mut other = server.client();
    other.message();
    watcher.publication("alarms");
    let timer = timer_in(&other.call("in", "600"));
    assert_eq!(watcher.publication("alarms"), timer.to_string());
}

/// An application that sets as many timers for one moment as a client names. At the first, it says so and waits for the
/// test.
struct Crowd {
    came: Vec<u64>,
    begun: SyncSender<()>,
    go_on: Receiver<()>,
}

impl App for Crowd {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let Some(count) = call.data.and_then(|data| data.parse::<u64>(peer).ok()) else {
            return peer.reply(&self.came.len());
        };
        for _ in 0..count {
            peer.set_timer(Duration::from_millis(1)).unwrap();
        }
        peer.reply_empty()
    }

    fn timer(&mut self, timer: TimerId, peer: &mut Peer<'_>) {
        if self.came.is_empty() {
            self.begun.send(()).unwrap();
            self.go_on.recv_timeout(PATIENCE).unwrap();
        }
        self.came.push(timer.as_u64());
        if self.came.len() == CROWD as usize {
            peer.transmit("came", &self.came.is_sorted());
        }
    }
}

/// More timers than a core runs in one turn.
const CROWD: u32 = 20_000;

#[test]
fn timers_of_one_moment_come_in_their_order_and_leave_turns_to_others() {
    let (begun, begins) = sync_channel(1);
    let (go, go_on) = sync_channel(1);
    let mut gate = Some((begun, go_on));
    let server = Server::start_with(
        |config| {
            config.cores.placement = Placement::Count(1);
            config.limits.timers_per_connection_max = CROWD;
        },
        move |_| {
            let (begun, go_on) = gate.take().unwrap();
            Crowd {
                came: Vec::new(),
                begun,
                go_on,
            }
        },
    );
    let (mut client, mut other) = (server.client(), server.client());
    client.call("set", &CROWD.to_string());
    begins.recv_timeout(PATIENCE).unwrap();
    // The core stands at the first timer: it finds the call of the other client in the next turn.
    other.begin_call("came", "null");
    go.send(()).unwrap();
    let answer = other.message();
    let came = timer_in(&answer).as_u64().unwrap();
    assert!((1..u64::from(CROWD) / 2).contains(&came), "{answer}");
    assert_eq!(client.message(), r#"{"event":"came","data":true}"#);
}

/// An application that lets the clients of "staff" see all of an order, "guests" all but the price, and "strangers"
/// nothing. A client names its user by its claims, or by the query of its request.
struct Counter;

impl App for Counter {
    const LOOKS_AT_DELIVERIES: bool = true;

    fn context(&mut self, request: &ringcast::app::Upgrade<'_>) -> ringcast::app::Context {
        ringcast::app::Context::none().with(request.query.to_owned())
    }

    fn deliver(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        client: &mut ringcast::app::Client<'_>,
    ) -> Outbound {
        if channel != *"orders" {
            return Outbound::pass();
        }
        let order = data.and_then(|data| serde_json::from_str::<Value>(data.as_str()).ok());
        match client.value::<String>().map(String::as_str) {
            Some("who=staff") => Outbound::pass(),
            Some("who=stranger") => Outbound::withhold(),
            // Guests, among them all clients of MQTT on its own port.
            _ => Outbound::instead(
                &order.map_or_else(|| json!("nothing"), |order| json!({ "id": order["id"] })),
            ),
        }
    }
}

#[test]
fn each_subscriber_gets_the_part_of_a_publication_that_the_application_allows() {
    for core_count in [1, 3] {
        let server = Server::start_with(
            |config| {
                config.cores.placement = ringcast::config::Placement::Count(core_count);
                config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            },
            |_| Counter,
        );
        let client = |who: &str| {
            let mut client = server.connect();
            let request = UPGRADE.replacen("/socketcluster/ ", &format!("/socketcluster/?who={who} "), 1);
            client.send_bytes(request.as_bytes());
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            client.handshake();
            client.subscribe("orders");
            client.subscribe("news");
            client
        };
        let mut all: Vec<(&str, Client)> = ["staff", "guest", "stranger", "guest", "staff", "stranger"]
            .map(|who| (who, client(who)))
            .into();
        let mut devices: Vec<mqtt::Mqtt> = (0..3_u8)
            .map(|qos| {
                let address = server.running().mqtt_address().unwrap();
                let mut device = mqtt::Mqtt::at(address, 5, &format!("device-{qos}"));
                device.subscribe("orders", qos);
                device.subscribe("news", qos);
                device
            })
            .collect();
        let order = r#"{"id": 7,"price":9}"#;
        let mut publisher = server.client();
        for (channel, data) in [
            ("orders", order),
            ("orders", ""),
            ("news", "1"),
            ("orders", "\"text\""),
        ] {
            let member = if data.is_empty() {
                String::new()
            } else {
                format!(",\"data\":{data}")
            };
            publisher.call("#publish", &format!("{{\"channel\":\"{channel}\"{member}}}"));
        }
        let mut device = mqtt::Mqtt::at(server.running().mqtt_address().unwrap(), 5, "publisher");
        device.send(&mqtt::publish(5, 2, "orders", 9, &[], order.as_bytes()));
        assert_eq!(device.packet()[0], 0x40, "PUBACK");
        for (who, client) in &mut all {
            let orders: &[&str] = match *who {
                "staff" => &[order, "", "news", "\"text\"", order],
                "guest" => &["{\"id\":7}", "\"nothing\"", "news", "{\"id\":null}", "{\"id\":7}"],
                _ => &["news"],
            };
            for expected in orders {
                match *expected {
                    "news" => assert_eq!(client.publication("news"), "1", "{who}"),
                    "" => assert!(client.message().ends_with(r#"{"channel":"orders"}}"#), "{who}"),
                    data => assert_eq!(client.publication("orders"), data, "{who}"),
                }
            }
        }
        for (qos, device) in (0..).zip(&mut devices) {
            let messages: Vec<_> = std::iter::from_fn(|| Some(device.message())).take(5).collect();
            let payloads: Vec<&str> = messages
                .iter()
                .map(|message| std::str::from_utf8(&message.payload).unwrap())
                .collect();
            let guest = ["{\"id\":7}", "\"nothing\"", "1", "{\"id\":null}", "{\"id\":7}"];
            assert_eq!(payloads, guest, "QoS {qos}");
        }
        assert_eq!(server.total(|core| &core.publications_withheld), 8);
    }
}
