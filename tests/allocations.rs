//! In the steady state a core allocates nothing: not for a ping, not for a publication however many subscribers it has,
//! not for a subscription to a channel that exists already, not for a call that a service answers. The connections are
//! real; only allocations of cores count.

mod support {
    pub(crate) mod client;
    pub(crate) mod counting;
    pub(crate) mod frame;
}

use std::net::Ipv4Addr;
use std::time::Duration;

use ringcast::config::Config;
use ringcast::config::rules::{Effect, RuleSpec};
use ringcast::config::secret::Secret;
use ringcast::internals::app::builtin::Builtin;
use ringcast::internals::auth::Tokens;
use ringcast::internals::mqtt::encode::{AckKind, Delivery, PublishHead, PublishProperties, ack};
use ringcast::internals::mqtt::frame::{Frame, frame};
use ringcast::internals::mqtt::packet::{Packet, Qos, decode};
use ringcast::internals::mqtt::{ReasonCode, Version};
use support::client::Client;
use support::counting::{asked, count_this_thread, start};

/// Number of rounds that are counted. A single allocation in all of them fails the test.
const ROUNDS: usize = 500;
/// Rounds that are sent at once before, so that no counted round needs more buffers at a time.
const BURST: usize = 100;
/// Rounds between the burst and the counted rounds.
const WARM_UP_ROUNDS: usize = 50;
/// How often the test counts, at most. On a busy machine a counted round may be the first in which a core answers all
/// its clients in one turn, and allocates for this once. Code that allocates in the steady state does so each time.
const ATTEMPTS: usize = 5;

#[test]
fn in_the_steady_state_cores_allocate_nothing() {
    // Before the server: allocations of its cores at their start count, too.
    mqtt_packets_are_decoded_and_written_without_an_allocation();
    calls_of_users_are_answered_by_services_without_an_allocation();
    let server = start(2, late, Builtin::new);
    let mut clients: Vec<_> = (0..10)
        .map(|_| Client::connect(Ipv4Addr::LOCALHOST, server.address()))
        .collect();
    let cores = server.cores().iter();
    let connections: Vec<_> = cores.map(|core| core.metrics().connections.value()).collect();
    assert_eq!(connections, [5, 5], "both cores take part");

    let subscribe = r##"{"event":"#subscribe","data":{"channel":"news"},"cid":3}"##;
    let unsubscribe = r##"{"event":"#unsubscribe","data":"news","cid":4}"##;
    for client in &mut clients {
        client.call(subscribe);
    }
    // This runs first, because it lends a buffer to every connection of a core at once.
    let publish = r##"{"event":"#publish","data":{"channel":"news","data":{"text":"hello"}}}"##;
    assert_nothing_is_allocated(
        "a publication to ten clients on two cores",
        &mut clients,
        &[publish],
        Senders::First,
    );

    let ping = r#"{"event":"ping","data":{"param":"hello"},"cid":2}"#;
    assert_nothing_is_allocated("a ping that is called", &mut clients, &[ping], Senders::All);
    let ping = r#"{"event":"ping","data":{"param":"hello"}}"#;
    assert_nothing_is_allocated("a ping that is transmitted", &mut clients, &[ping], Senders::All);

    // Six clients stay subscribed, so that the channel exists on both cores while other clients subscribe and
    // unsubscribe.
    assert_nothing_is_allocated(
        "an unsubscribe and a subscribe",
        &mut clients[6..],
        &[unsubscribe, subscribe],
        Senders::All,
    );
}

/// A message of an MQTT client, with properties, its acknowledgement, and the message for a subscriber.
fn mqtt_packets_are_decoded_and_written_without_an_allocation() {
    let packet = b"\x32\x1b\0\x03a/b\0\x07\x0e\x01\x01\x23\0\x01\x26\0\x01n\0\x03v=1hello";
    let mut out = Vec::with_capacity(1_000);
    let before = asked();
    count_this_thread(true);
    for _ in 0..ROUNDS {
        let Ok(Frame::Whole { first, body, .. }) = frame(packet, 1_000) else {
            panic!("a whole packet");
        };
        let Ok(Packet::Publish(publish)) = decode(Version::V5, first, &packet[body]) else {
            panic!("a message");
        };
        let (Qos::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) else {
            panic!("QoS 1");
        };
        out.clear();
        ack(
            &mut out,
            Version::V5,
            AckKind::PubAck,
            packet_id,
            ReasonCode::Success,
            None,
        );
        for version in [Version::V4, Version::V5] {
            let passed_on = publish.properties.passed_on().next().unwrap_or_default();
            let head = PublishHead {
                version,
                dup: false,
                retain: false,
                delivery: Delivery::AtLeastOnce(packet_id),
                topic: publish.topic,
                payload_bytes: publish.payload.len(),
                properties: PublishProperties {
                    passed_on,
                    ..PublishProperties::default()
                },
            };
            head.write(&mut out);
            out.extend_from_slice(publish.payload);
        }
    }
    count_this_thread(false);
    assert_eq!(asked(), before);
}

/// The first deadlines of connections come after the end of the test.
fn late(config: &mut Config) {
    config.socketcluster.ping_interval = Duration::from_secs(14);
    config.limits.request_timeout = Duration::from_secs(15);
}

/// The service gets the user and the claims of the caller with each call. Both are on different cores.
fn calls_of_users_are_answered_by_services_without_an_allocation() {
    let server = start(
        2,
        |config| {
            late(config);
            config.auth.key = Some(Secret::new(KEY));
            config.permissions.rules = vec![RuleSpec {
                effect: Effect::Allow,
                ..RuleSpec::default()
            }];
        },
        Builtin::new,
    );
    let [mut caller, mut service] = [(); 2].map(|()| Client::connect(Ipv4Addr::LOCALHOST, server.address()));
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).expect("a key");
    let claims = r#"{"sub":"a\""}"#;
    let token = tokens.sign(claims, None, 0).expect("a token");
    let answer = caller.call(&format!(
        r##"{{"event":"#authenticate","data":"{token}","cid":1}}"##
    ));
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
    service.call(r#"{"event":"$serve","data":{"procedure":"a*"},"cid":1}"#);
    let mut rounds = |count: usize| {
        for _ in 0..count {
            caller.send(&[r#"{"event":"a","cid":2}"#]);
            let call = service.receive();
            assert!(call.contains(r#""user":"a\"","claims":{"sub":"a\"""#), "{call}");
            let (_, cid) = call.split_once(r#""cid":"#).expect("it wants an answer");
            let digits = cid.split(|digit: char| !digit.is_ascii_digit()).next();
            service.send(&[&format!(r#"{{"rid":{},"data":3}}"#, digits.unwrap_or_default())]);
            assert_eq!(caller.receive(), r#"{"rid":2,"data":3}"#);
        }
    };
    rounds(WARM_UP_ROUNDS);
    let mut between = [asked(), asked()];
    for _ in 0..ATTEMPTS {
        let before = asked();
        rounds(ROUNDS);
        between = [before, asked()];
        if between[0] == between[1] {
            break;
        }
    }
    assert_eq!(between[0], between[1], "{ROUNDS} calls of a service");
    server.drain();
    server.wait().expect("it ends in order");
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Senders {
    All,
    First,
}

/// Sends the messages again and again. Each client receives as many messages as one client sends.
fn assert_nothing_is_allocated(what: &str, clients: &mut [Client], messages: &[&str], senders: Senders) {
    exchange(clients, messages, senders, BURST);
    // A client may read a reply before its core has put the buffer back; these rounds give the core time for that.
    for _ in 0..WARM_UP_ROUNDS {
        exchange(clients, messages, senders, 1);
    }
    let mut between = [asked(), asked()];
    for _ in 0..ATTEMPTS {
        let before = asked();
        for _ in 0..ROUNDS {
            exchange(clients, messages, senders, 1);
        }
        between = [before, asked()];
        if between[0] == between[1] {
            return;
        }
    }
    let [before, after] = between;
    assert_eq!(
        after,
        before,
        "{ROUNDS} times {what}, by {} clients",
        clients.len()
    );
}

fn exchange(clients: &mut [Client], messages: &[&str], senders: Senders, times: usize) {
    let count = match senders {
        Senders::All => clients.len(),
        Senders::First => 1,
    };
    let messages = messages.repeat(times);
    for client in &mut clients[..count] {
        client.send(&messages);
    }
    for client in clients {
        for _ in &messages {
            client.receive();
        }
    }
}
