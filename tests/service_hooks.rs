//! Hooks with a `service`: a client of the server decides about actions of other clients.

#![allow(clippy::unwrap_used)] // a test

mod support;

use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use support::folder::Folder;
use support::mqtt::{Mqtt, publish};
use support::process::Process;
use support::{Client, schema};

const KEY: &str = "a key for the tests of hooks of services";

/// Users may serve the policy; everybody may do everything else, if the service says so.
const CONFIGURATION: &str = r#"
client_protocols = "socketcluster,mqtt"
[[rules]]
allow = ["subscribe", "publish", "invoke", "transmit"]
channels = ["**"]
procedures = ["**"]
[[rules]]
allow = ["serve"]
procedures = ["policy"]
to = "authenticated"
[[hooks]]
name = "policy"
actions = ["publish", "invoke"]
channels = ["room.**"]
procedures = ["sum", "ping"]
service = "policy"
"#;

struct Scene {
    process: Process,
    _folder: Folder,
}

impl Scene {
    fn new(configuration: &str) -> Scene {
        let folder = Folder::new();
        let file = folder.write("ringcast.toml", configuration);
        let process = Process::start(&[
            ("RINGCAST_CONFIG", file.to_str().unwrap()),
            ("RINGCAST_AUTH_KEY", KEY),
        ]);
        Scene {
            process,
            _folder: folder,
        }
    }

    /// The service that decides.
    fn policy(&self) -> Client {
        let mut client = self.process.client();
        let answer = client.call("#authenticate", &format!("{:?}", token()));
        assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
        let answer = client.call("$serve", r#"{"procedure":"policy"}"#);
        assert!(answer.contains(r#""procedure":"policy""#), "{answer}");
        client
    }
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    tokens
        .sign(
            r#"{"sub":"policy"}"#,
            Some(60),
            u64::try_from(now.as_millis()).unwrap(),
        )
        .unwrap()
}

/// The next question to a service, with the number of the call.
fn question(service: &mut Client) -> (u64, Value) {
    let call: Value = serde_json::from_str(&service.message()).unwrap();
    assert_eq!(call["event"], "policy", "{call}");
    let schemas: Value = serde_json::from_str(include_str!("../docs/hooks.schema.json")).unwrap();
    let question = call["data"]["data"].clone();
    let difference = schema::difference(&schemas, &schemas["$defs"]["question"], &question);
    assert_eq!(difference, None, "{question}");
    assert_eq!(question["client"]["id"], call["data"]["caller"]["id"]);
    (call["cid"].as_u64().unwrap(), question)
}

fn answer(service: &mut Client, rid: u64, answer: &Value) {
    service.send_text(&json!({"rid": rid, "data": answer}).to_string());
}

#[test]
fn a_service_allows_rewrites_refuses_and_answers_for_clients_of_both_protocols() {
    let scene = Scene::new(CONFIGURATION);
    let mut policy = scene.policy();
    let mut client = scene.process.client();
    client.subscribe("room.a");
    client.publish("room.a", "1");
    let (rid, asked) = question(&mut policy);
    assert_eq!(
        (&asked["action"], &asked["channel"], &asked["data"]),
        (&json!("publish"), &json!("room.a"), &json!(1))
    );
    answer(
        &mut policy,
        rid,
        &json!({"allow": true, "data": {"by": "policy"}}),
    );
    assert_eq!(client.publication("room.a"), r#"{"by":"policy"}"#);

    let cid = client.begin_call("#publish", r#"{"channel":"room.a","data":2}"#);
    let (rid, _) = question(&mut policy);
    policy.send_text(&format!(
        r#"{{"rid":{rid},"error":{{"name":"Closed","message":"at night"}}}}"#
    ));
    let refused: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(
        refused,
        json!({"rid": cid, "error": {"name": "Closed", "message": "at night"}})
    );

    let cid = client.begin_call("sum", "[1,2]");
    let (rid, _) = question(&mut policy);
    answer(&mut policy, rid, &json!({"answer": 3}));
    assert_eq!(client.message(), format!(r#"{{"rid":{cid},"data":3}}"#));

    let mut lamp = Mqtt::at(scene.process.address, 5, "lamp");
    lamp.send(&publish(5, 0, "room.a", 0, &[], b"on"));
    let (rid, asked) = question(&mut policy);
    assert_eq!(asked["payload"], "b24=");
    answer(&mut policy, rid, &json!({"allow": true}));
    assert_eq!(client.publication("room.a"), r#""on""#);
}

#[test]
fn the_service_that_decides_is_not_asked_about_itself() {
    let scene = Scene::new(CONFIGURATION);
    let mut policy = scene.policy();
    policy.subscribe("room.a");
    policy.publish("room.a", "1");
    assert_eq!(policy.publication("room.a"), "1");
}

#[test]
fn without_a_service_when_away_decides_at_once() {
    let scene = Scene::new(CONFIGURATION);
    let mut client = scene.process.client();
    let refused = client.call("#publish", r#"{"channel":"room.a","data":1}"#);
    assert!(refused.contains("HookUnavailableError"), "{refused}");
    // A service that vanishes with a question.
    let mut policy = scene.policy();
    client.begin_call("#publish", r#"{"channel":"room.a","data":1}"#);
    question(&mut policy);
    drop(policy);
    let refused = client.message();
    assert!(refused.contains("HookUnavailableError"), "{refused}");
    let allowing = Scene::new(&format!("{CONFIGURATION}when_away = \"allow\"\n"));
    let mut client = allowing.process.client();
    client.subscribe("room.a");
    client.publish("room.a", "1");
    assert_eq!(client.publication("room.a"), "1");
    client.ping();
}

#[test]
fn a_client_that_leaves_takes_its_question_along() {
    let scene = Scene::new(CONFIGURATION);
    let mut policy = scene.policy();
    let mut client = scene.process.client();
    client.begin_call("#publish", r#"{"channel":"room.a","data":1}"#);
    let (rid, _) = question(&mut policy);
    drop(client);
    assert_eq!(
        policy.message(),
        format!(r#"{{"event":"$cancel","data":{{"rid":{rid}}}}}"#)
    );
    answer(&mut policy, rid, &json!({"allow": true}));
    policy.ping();
    assert_eq!(scene.process.admin().metric("ringcast_hook_open"), 0);
}
