//! Retained publications: the client asks for one when it subscribes, and sets one with `$retain`.

use super::*;
use crate::config::channels::{MqttPolicy, RetainPolicy};
use crate::session::MqttUse;

/// A client of a server that retains publications, except those of `never`, and keeps the history of `room`.
fn client() -> Client<Probe> {
    let spec = |name: &str, policy: ChannelPolicy| ChannelSpec {
        names: vec![name.to_owned()],
        policy,
        ..ChannelSpec::default()
    };
    let never = MqttPolicy {
        retain: RetainPolicy::NotKept,
        ..MqttPolicy::default()
    };
    let history = HistoryPolicy {
        entries_max: 10,
        bytes_max: 1000,
        age_ms_max: 1000,
    };
    let specs = [
        spec(
            "never",
            ChannelPolicy {
                mqtt: never,
                ..ChannelPolicy::default()
            },
        ),
        spec(
            "room",
            ChannelPolicy {
                history: Some(history),
                ..ChannelPolicy::default()
            },
        ),
    ];
    let mut client = Client::open(Probe::default());
    client.policy.channels = Channels::compile(&specs, b'.', None).unwrap();
    client.common.mqtt = MqttUse::WithRetained;
    client
}

fn subscribe_with(client: &mut Client<Probe>, channel: &str, data: &str) -> Outcome {
    client.text(&format!(
        r##"{{"event":"#subscribe","data":{{"channel":"{channel}","data":{data}}},"cid":7}}"##
    ))
}

fn retain(client: &mut Client<Probe>, data: &str) -> Outcome {
    client.text(&format!(r##"{{"event":"$retain","data":{data},"cid":7}}"##))
}

#[test]
fn only_a_client_that_asks_gets_the_retained_publication_of_a_channel_without_memory() {
    let mut client = client();
    for (channel, data, expected) in [
        ("any", r#"{"last":1}"#, "subscribe any 7 Retained"),
        ("any", r#"{"last":10}"#, "subscribe any 7 Retained"),
        ("never", r#"{"last":1}"#, "subscribe never 7 Retained"),
        ("room", r#"{"last":1}"#, "subscribe room 7 Last(1)"),
        ("any", r#"{"last":0}"#, "subscribe any 7"),
        ("any", r#"{"last":"x"}"#, "subscribe any 7"),
        ("any", r#"{"last":1,"since":5}"#, "subscribe any 7"),
        ("any", r#"{"recover":null}"#, "subscribe any 7"),
        ("any", "null", "subscribe any 7"),
        ("a/+", r#"{"last":1}"#, "subscribe a/+ 7"),
    ] {
        let outcome = subscribe_with(&mut client, channel, data);
        assert_eq!(outcome, [expected], "{channel} {data}");
    }
    for mqtt in [MqttUse::Off, MqttUse::WithoutRetained] {
        client.common.mqtt = mqtt;
        let outcome = subscribe_with(&mut client, "any", r#"{"last":1}"#);
        assert_eq!(outcome, ["subscribe any 7"], "{mqtt:?}");
    }
}

#[test]
fn retain_publishes_and_is_answered() {
    let mut client = client();
    assert_eq!(
        retain(&mut client, r#"{"channel":"a","data":{"x": 1}}"#),
        [
            r##"publish and retain a {"event":"#publish","data":{"channel":"a","data":{"x": 1}}}"##,
            r#"{"rid":7}"#
        ]
    );
    assert_eq!(
        retain(&mut client, r#"{"channel":"a"}"#),
        [
            r##"publish and retain a {"event":"#publish","data":{"channel":"a"}}"##,
            r#"{"rid":7}"#
        ]
    );
    assert_eq!(
        retain(&mut client, r#"{"channel":"changed","data":null}"#)[0],
        *r##"publish and retain changed {"event":"#publish","data":{"channel":"changed","data":[null]}}"##
    );
    // Without a call id there is no answer.
    assert_eq!(
        client
            .text(r##"{"event":"$retain","data":{"channel":"a","data":1}}"##)
            .0
            .len(),
        1
    );
}

#[test]
fn what_cannot_be_retained_is_refused() {
    let mut client = client();
    for (data, expected) in [
        ("null", "Expected an object"),
        ("5", "Expected an object"),
        (r#"{"data":1}"#, "Expected an object"),
        (r#"{"channel":5}"#, "Expected an object"),
        (r#"{"channel":"a","dat":1}"#, "Expected an object"),
        (r#"{"channel":"never","data":1}"#, "mqtt_retain"),
        (r#"{"channel":"","data":1}"#, "not that of an MQTT topic"),
        (r#"{"channel":"a/#","data":1}"#, "not that of an MQTT topic"),
        (r#"{"channel":"\ud800","data":1}"#, "not that of an MQTT topic"),
        (r#"{"channel":"$SYS/x","data":1}"#, "Only the server publishes"),
        (r#"{"channel":"denied","data":1}"#, r#""message":"no""#),
    ] {
        let outcome = retain(&mut client, data);
        assert_eq!(outcome.0.len(), 1, "{outcome:?}");
        assert!(
            outcome[0].starts_with(r#"{"rid":7,"error":"#) && outcome[0].contains(expected),
            "{data}: {outcome:?}"
        );
    }
    client.policy.rules = rules(&[Action::Subscribe]);
    assert!(retain(&mut client, r#"{"channel":"a","data":1}"#)[0].contains("SilentMiddlewareBlockedError"));
}

#[test]
fn without_retained_publications_it_is_an_event_of_the_application() {
    let mut client = client();
    client.common.mqtt = MqttUse::WithoutRetained;
    assert_eq!(retain(&mut client, r#"{"channel":"a"}"#), NOTHING);
}

#[test]
fn nobody_publishes_to_sys_where_mqtt_is_spoken() {
    let mut client = client();
    let publish = r##"{"event":"#publish","data":{"channel":"$SYS/broker/uptime","data":1},"cid":7}"##;
    assert_eq!(
        client.text(publish),
        [error("7", "Only the server publishes to $SYS")]
    );
    let will = client.text(r##"{"event":"$will","data":{"channel":"$SYS/x","data":1},"cid":7}"##);
    assert!(will[0].contains("Only the server publishes to $SYS"), "{will:?}");
    client.common.mqtt = MqttUse::Off;
    assert_eq!(client.text(publish).0.len(), 2, "a channel like any other");
}
