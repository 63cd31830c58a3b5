//! Services that speak MQTT 5, with the real binary on 1, 2 and 8 cores: they subscribe to procedures, and get the
//! calls of clients of both protocols.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use support::folder::Folder;
use support::mqtt::{
    DISCONNECT, Message, Mqtt, Over, body, connect_with, publish, string, subscribe, unsubscribe,
};
use support::process::Process;
use support::{Client, eventually};

const KEY: &str = "a key for the tests of services over MQTT";
const ANSWER: &str = "$rpc/$answer";

const RULES: &str = r#"
[[rules]]
allow = ["subscribe", "publish", "invoke", "transmit"]
channels = ["**"]
procedures = ["**"]
[[rules]]
allow = ["serve"]
procedures = ["**"]
to = { claim = "role", is = "service" }
"#;

/// Calls of the names of a test have an end also while there is no service.
const ENTRY: &str = "[[services]]\npattern = \"*\"\ntimeout_ms = 20000\n";

struct Scene {
    process: Process,
    folder: Folder,
}

impl Scene {
    fn new(cores: u32, config: &str, settings: &[(&str, &str)]) -> Scene {
        let folder = Folder::new();
        let file = folder.write("ringcast.toml", &format!("{RULES}{config}"));
        let cores = cores.to_string();
        let mut all = vec![
            ("RINGCAST_CONFIG", file.to_str().unwrap()),
            ("RINGCAST_AUTH_KEY", KEY),
            ("RINGCAST_CORES", &cores),
            ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt"),
        ];
        all.extend(settings);
        Scene {
            process: Process::start(&all),
            folder,
        }
    }

    fn reload(&self, config: &str) {
        self.process.reload(&self.folder.file("ringcast.toml"), config);
    }

    /// A client that sends this CONNECT: the flags, the properties, and the claims of the token that is its password.
    fn connect(&self, version: u8, flags: u8, props: &[u8], id: &str, claims: &Value) -> Mqtt {
        let mut payload = string(id);
        payload.extend(string("user"));
        payload.extend(string(token(claims)));
        let mut client = Mqtt::over(Client::connect(self.process.address), Over::Tcp, version);
        client.send(&connect_with(version, flags | 0xc0, 0, props, &payload));
        client
    }

    /// A service, connected with a clean start.
    fn service(&self, id: &str) -> Mqtt {
        let mut client = self.connect(5, 0x02, &[], id, &json!({"sub": id, "role": "service"}));
        client.accepted();
        client
    }

    /// A SocketCluster client that has logged in.
    fn user(&self, user: &str) -> Client {
        let mut client = self.process.client();
        let token = json!(token(&json!({"sub": user, "x": [1]})));
        let answer = client.call("#authenticate", &token.to_string());
        assert!(answer.contains("true"), "{answer}");
        client
    }
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn token(claims: &Value) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let unix_ms = u64::try_from(since.as_millis()).unwrap();
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    tokens.sign(&claims.to_string(), Some(3600), unix_ms).unwrap()
}

fn user_property(name: &str, value: &str) -> Vec<u8> {
    [&[0x26][..], &string(name), &string(value)].concat()
}

/// The code of SUBACK.
#[track_caller]
fn serve_with(service: &mut Mqtt, version: u8, props: &[u8], filter: &str) -> u8 {
    service.send(&subscribe(version, 9, props, &[(filter, 1)]));
    let answer = service.packet();
    assert_eq!(answer[0], 0x90, "{answer:x?}");
    *answer.last().unwrap()
}

#[track_caller]
fn serve(service: &mut Mqtt, pattern: &str) {
    let code = serve_with(service, 5, &[], &format!("$share/group/$rpc/{pattern}"));
    // Calls come with QoS 0.
    assert_eq!(code, 0);
}

/// A call as a service gets it.
#[derive(Debug, Default)]
struct Asked {
    topic: String,
    payload: String,
    response_topic: Option<String>,
    correlation: Vec<u8>,
    expires_in_s: u32,
    user: Vec<(String, String)>,
    ids: Vec<u8>,
}

impl Asked {
    fn read(message: &Message) -> Asked {
        assert_eq!((message.qos, message.retain), (0, false));
        let mut asked = Asked {
            topic: message.topic.clone(),
            payload: String::from_utf8(message.payload.clone()).unwrap(),
            ..Asked::default()
        };
        let mut rest = &message.properties[..];
        let text = |rest: &mut &[u8]| {
            let (length, behind) = rest.split_at(2);
            let (text, behind) = behind.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
            *rest = behind;
            text.to_vec()
        };
        let utf8 = |bytes| String::from_utf8(bytes).unwrap();
        while let Some((id, behind)) = rest.split_first() {
            rest = behind;
            match id {
                0x01 => rest = &rest[1..],
                0x02 => {
                    asked.expires_in_s = u32::from_be_bytes(rest[..4].try_into().unwrap());
                    rest = &rest[4..];
                }
                0x08 => asked.response_topic = Some(utf8(text(&mut rest))),
                0x09 => asked.correlation = text(&mut rest),
                0x0b => {
                    asked.ids.push(rest[0]);
                    rest = &rest[1..];
                }
                0x26 => {
                    let name = utf8(text(&mut rest));
                    asked.user.push((name, utf8(text(&mut rest))));
                }
                other => panic!("property {other:x}"),
            }
        }
        asked
    }

    fn of(service: &mut Mqtt) -> Asked {
        Asked::read(&service.message())
    }

    fn caller(&self, name: &str) -> Option<&str> {
        let mut found = self.user.iter().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Publishes an answer with QoS 1, and returns the code of PUBACK.
#[track_caller]
fn answer_with(service: &mut Mqtt, correlation: &[u8], more: &[u8], payload: &str) -> u8 {
    let props = [&[0x09][..], &string(correlation), more].concat();
    service.send(&publish(5, 0x02, ANSWER, 5, &props, payload.as_bytes()));
    let answer = service.packet();
    assert_eq!(answer[0], 0x40, "{answer:x?}");
    body(&answer).get(2).copied().unwrap_or(0)
}

#[track_caller]
fn answer(service: &mut Mqtt, asked: &Asked, payload: &str) {
    assert_eq!(answer_with(service, &asked.correlation, &[], payload), 0);
}

/// The answer to a call of a SocketCluster client.
#[track_caller]
fn end(caller: &mut Client, cid: u64) -> Value {
    loop {
        let message: Value = serde_json::from_str(&caller.message()).unwrap();
        if message["rid"] == cid {
            return message;
        }
    }
}

#[track_caller]
fn error(caller: &mut Client, cid: u64) -> String {
    let end = end(caller, cid);
    end["error"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Calls a procedure until the caller's core knows a service for it: before, the core itself answers at once.
#[track_caller]
fn call_once_served(caller: &mut Client, name: &str) -> u64 {
    loop {
        let cid = caller.begin_call(name, "0");
        let mut has_ended = false;
        for _ in 0..2 {
            let ping = caller.begin_call("ping", "null");
            loop {
                let message: Value = serde_json::from_str(&caller.message()).unwrap();
                has_ended |= message["rid"] == cid;
                if message["rid"] == ping {
                    break;
                }
            }
        }
        if !has_ended {
            return cid;
        }
    }
}

#[test]
fn calls_of_clients_of_both_protocols_reach_a_service_that_speaks_mqtt_on_any_core() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, ENTRY, &[]);
        let mut service = scene.service("server");
        let code = serve_with(&mut service, 5, &[0x0b, 7], "$share/group/$rpc/math.*");
        assert_eq!(code, 0);
        for at in 0..12_u32 {
            let mut caller = match at % 2 {
                0 => scene.process.client(),
                _ => scene.user("ann\u{1}\"ü"),
            };
            let cid = caller.begin_call("math.add", &format!("[{at},\"ü\u{2028}\"]"));
            let asked = Asked::of(&mut service);
            assert_eq!(
                (&*asked.topic, &*asked.payload),
                ("$rpc/math.add", &*format!("[{at},\"ü\u{2028}\"]"))
            );
            assert_eq!(asked.response_topic.as_deref(), Some(ANSWER));
            assert_eq!(asked.ids, [7], "{asked:?}");
            assert!((1..=20).contains(&asked.expires_in_s), "{asked:?}");
            assert_eq!(asked.caller("caller_id"), Some(caller.id.as_str()));
            let user = (at % 2 == 1).then_some("ann\u{1}\"ü");
            assert_eq!(asked.caller("caller_user"), user);
            let claims = asked.caller("caller_claims");
            let claims = claims.map(|json| serde_json::from_str::<Value>(json).unwrap()["x"].clone());
            assert_eq!(claims, user.map(|_| json!([1])));
            if at % 3 == 0 {
                let code = answer_with(
                    &mut service,
                    &asked.correlation,
                    &user_property("error", "1"),
                    r#"{"name":"MathError","message":"odd"}"#,
                );
                assert_eq!(code, 0);
                let expected = json!({"name": "MathError", "message": "odd"});
                assert_eq!(end(&mut caller, cid)["error"], expected);
            } else {
                answer(&mut service, &asked, r#"{"sum":3}"#);
                assert_eq!(end(&mut caller, cid)["data"], json!({"sum": 3}));
            }
        }
        // A client of MQTT calls, and one that sends events; data that is absent stays so.
        let mut device = scene.connect(5, 0x02, &[], "device", &json!({"sub": "device"}));
        device.accepted();
        device.subscribe("replies", 0);
        for (payload, answered) in [("[1,2]", "3"), ("", "")] {
            let props = [&[0x08][..], &string("replies"), &[0x09], &string([0, 1, 2])].concat();
            device.send(&publish(5, 0, "$rpc/math.add", 0, &props, payload.as_bytes()));
            let asked = Asked::of(&mut service);
            assert_eq!(
                (&*asked.payload, asked.caller("caller_user")),
                (payload, Some("device"))
            );
            answer(&mut service, &asked, answered);
            let reply = device.message();
            assert_eq!(
                (&*reply.topic, reply.payload),
                ("replies", answered.as_bytes().to_vec())
            );
            assert!(reply.properties.ends_with(&[0, 1, 2]), "{:?}", reply.properties);
        }
        device.send(&publish(5, 0, "$rpc/math.note", 0, &[], b"on"));
        let event = Asked::of(&mut service);
        assert_eq!((&*event.topic, &*event.payload), ("$rpc/math.note", "\"on\""));
        assert_eq!((event.response_topic, event.correlation.len()), (None, 0));
        assert_eq!(event.user[1], ("caller_user".to_owned(), "device".to_owned()));
        let mut caller = scene.process.client();
        caller.send_text(r#"{"event":"math.note"}"#);
        assert_eq!(Asked::of(&mut service).payload, "");
        // A text that is no JSON becomes a string, and an error without a value one with the text of the property.
        let cid = caller.begin_call("math.text", "1");
        let asked = Asked::of(&mut service);
        answer(&mut service, &asked, "two words");
        assert_eq!(end(&mut caller, cid)["data"], "two words");
        let cid = caller.begin_call("math.text", "1");
        let asked = Asked::of(&mut service);
        answer_with(
            &mut service,
            &asked.correlation,
            &user_property("error", "no room"),
            "",
        );
        assert_eq!(
            end(&mut caller, cid)["error"],
            json!({"name": "Error", "message": "no room"})
        );
    }
}

#[test]
fn services_of_both_protocols_are_one_pool_and_windows_bound_both() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, ENTRY, &[]);
        let mut old = scene.user("old");
        let claims = json!({"sub": "old", "role": "service"});
        assert!(
            old.call("#authenticate", &json!(token(&claims)).to_string())
                .contains("true")
        );
        old.call("$serve", r#"{"procedure":"jobs/*","window":1}"#);
        // The filter of MQTT for the same pattern. The Receive Maximum is smaller than the window.
        let props = [0x21, 0, 2];
        let mut new = scene.connect(5, 0x02, &props, "new", &claims);
        new.accepted();
        let window = user_property("window", "10");
        assert_eq!(serve_with(&mut new, 5, &window, "$share/any/$rpc/jobs/#"), 0);
        let mut caller = scene.process.client();
        let calls: Vec<u64> = (0..5)
            .map(|at| caller.begin_call("jobs/a/b", &at.to_string()))
            .collect();
        let first = [Asked::of(&mut new), Asked::of(&mut new)];
        let by_old: Value = serde_json::from_str(&old.message()).unwrap();
        assert_eq!(by_old["event"], "jobs/a/b");
        // The others wait: nobody has room.
        new.ping();
        eventually("two calls wait", || {
            scene.process.admin().metric("ringcast_service_calls_waiting") == 2
        });
        answer(&mut new, &first[1], "\"new\"");
        let third = Asked::of(&mut new);
        new.ping();
        old.send_text(&json!({"rid": by_old["cid"], "data": "old"}).to_string());
        let fourth: Value = serde_json::from_str(&old.message()).unwrap();
        old.send_text(&json!({"rid": fourth["cid"], "data": "old"}).to_string());
        answer(&mut new, &first[0], "\"new\"");
        answer(&mut new, &third, "\"new\"");
        let mut answers = calls.iter().map(|_| {
            let message: Value = serde_json::from_str(&caller.message()).unwrap();
            message["data"].as_str().unwrap().to_owned()
        });
        assert_eq!(answers.by_ref().filter(|who| who == "old").count(), 2);
    }
}

#[test]
fn what_a_client_may_not_serve_is_refused_with_a_code() {
    let scene = Scene::new(2, "", &[("RINGCAST_SERVICES_PER_CONNECTION_MAX", "2")]);
    let mut stranger = scene.connect(5, 0x02, &[], "stranger", &json!({"sub": "stranger"}));
    stranger.accepted();
    let filter = |pattern: &str| format!("$share/g/$rpc/{pattern}");
    for pattern in ["math.add", "math.*", "#"] {
        assert_eq!(
            serve_with(&mut stranger, 5, &[], &filter(pattern)),
            0x87,
            "{pattern}"
        );
    }
    let mut old = scene.connect(4, 0x02, &[], "old", &json!({"role": "service"}));
    old.accepted();
    assert_eq!(serve_with(&mut old, 4, &[], &filter("math.add")), 0x80);
    let mut service = scene.service("service");
    for pattern in ["a/+", "+", "a*b", "$answer", "#a", ""] {
        assert_eq!(
            serve_with(&mut service, 5, &[], &filter(pattern)),
            0x8f,
            "{pattern}"
        );
    }
    for (name, value) in [
        ("window", "0"),
        ("window", "many"),
        ("weight", "-1"),
        ("weight", "1.5"),
    ] {
        let props = user_property(name, value);
        assert_eq!(
            serve_with(&mut service, 5, &props, &filter("a")),
            0x83,
            "{name} {value}"
        );
    }
    // A filter of its own is allowed beside one that is not, and the codes are in order.
    let filters = [
        ("$share/g/$rpc/a*b", 0),
        ("$share/g/$rpc/b", 2),
        ("plain", 2),
        ("$share/g/$rpc/a", 0),
    ];
    let meta = format!("\"{}\"", "m".repeat(1000));
    let props =
        [("window", "3"), ("weight", "2"), ("meta", &*meta)].map(|(name, value)| user_property(name, value));
    service.send(&subscribe(5, 3, &props.concat(), &filters));
    let answer = service.packet();
    assert!(answer.ends_with(&[0x8f, 0, 2, 0]), "{answer:x?}");
    // Filters that are handled in parts may not serve.
    let plain: Vec<String> = (0..100).map(|at| format!("plain/{at}")).collect();
    let mut many: Vec<(&str, u8)> = plain.iter().map(|filter| (&**filter, 0)).collect();
    many.push(("$share/g/$rpc/late", 0));
    service.send(&subscribe(5, 3, &[], &many));
    let answer = service.packet();
    assert!(answer.ends_with(&[0, 0, 0x97]), "{answer:x?}");
    // As many as it may. What is refused is no filter of the client.
    assert_eq!(serve_with(&mut service, 5, &[], &filter("c")), 0x97);
    service.send(&unsubscribe(5, 4, &["$share/g/$rpc/c", "$share/g/$rpc/a"]));
    assert!(service.packet().ends_with(&[0x11, 0]));
    serve(&mut service, "c");
    // Rules that do not name the action let nobody serve.
    let plain = Scene::new(1, "", &[]);
    plain.reload("[[rules]]\nallow = \"*\"\nchannels = [\"**\"]\nprocedures = [\"**\"]\n");
    let mut service = plain.service("service");
    assert_eq!(serve_with(&mut service, 5, &[], &filter("a")), 0x87);
}

#[test]
fn an_answer_counts_only_from_the_service_that_has_the_call_and_only_once() {
    for cores in [1, 8] {
        let config = format!("{ENTRY}[[services]]\npattern = \"slow\"\ntimeout_ms = 300\n");
        let scene = Scene::new(cores, &config, &[("RINGCAST_SERVICE_CANCEL_MS", "60000")]);
        let mut service = scene.service("service");
        serve(&mut service, "#");
        serve(&mut service, "slow");
        let mut thief = scene.service("thief");
        serve(&mut thief, "other");
        // No client reads the calls of others.
        let mut curious = scene.connect(5, 0x02, &[], "curious", &json!({"sub": "curious"}));
        curious.accepted();
        curious.subscribe("$rpc/#", 0);
        curious.subscribe("#", 0);
        let mut caller = scene.process.client();
        let slow = caller.begin_call("slow", "1");
        let late = Asked::of(&mut service);
        assert_eq!(answer_with(&mut thief, &late.correlation, &[], "1"), 0x10);
        assert_eq!(answer_with(&mut curious, &late.correlation, &[], "1"), 0x10);
        assert_eq!(answer_with(&mut service, b"99", &[], "1"), 0x10);
        assert_eq!(answer_with(&mut service, b"x", &[], "1"), 0x10);
        assert_eq!(error(&mut caller, slow), "TimeoutError");
        // Too late: the call ends for the service, and nobody hears of it.
        answer(&mut service, &late, "1");
        assert_eq!(answer_with(&mut service, &late.correlation, &[], "1"), 0x10);
        let cid = caller.begin_call("quick", "1");
        let asked = Asked::of(&mut service);
        answer(&mut service, &asked, "\"in time\"");
        assert_eq!(
            answer_with(&mut service, &asked.correlation, &[], "\"again\""),
            0x10
        );
        assert_eq!(end(&mut caller, cid)["data"], "in time");
        curious.ping();
        // The end of a caller ends its calls, and nothing tells the service.
        caller.begin_call("slow", "1");
        let asked = Asked::of(&mut service);
        drop(caller);
        service.ping();
        answer(&mut service, &asked, "1");
        eventually("nothing is open", || {
            scene.process.admin().metric("ringcast_service_calls_open") == 0
        });
    }
}

#[test]
fn a_service_ends_with_its_connection_and_serves_again_when_it_comes_back_to_its_session() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, ENTRY, &[]);
        let claims = json!({"sub": "server", "role": "service"});
        let lasting = [0x11, 0, 0, 1, 0];
        let mut service = scene.connect(5, 0x02, &lasting, "server", &claims);
        service.accepted();
        let window = user_property("window", "1");
        assert_eq!(serve_with(&mut service, 5, &window, "$share/g/$rpc/a.*"), 0);
        let mut caller = scene.process.client();
        let open = caller.begin_call("a.b", "1");
        Asked::of(&mut service);
        let waiting = caller.begin_call("a.b", "2");
        service.send(DISCONNECT);
        assert_eq!(service.next(), None);
        for _ in 0..2 {
            let message: Value = serde_json::from_str(&caller.message()).unwrap();
            let expected = if message["rid"] == open {
                "ServiceGoneError"
            } else {
                assert_eq!(message["rid"], waiting);
                "NoServiceError"
            };
            assert_eq!(message["error"]["name"], expected);
        }
        let offline = caller.begin_call("a.b", "3");
        assert_eq!(error(&mut caller, offline), "NoServiceError");
        // It comes back, with the window that it had; a second connection takes the session over, and the first one is
        // no service any more.
        let mut back = scene.connect(5, 0, &lasting, "server", &claims);
        assert_eq!(body(&back.packet())[..2], [1, 0]);
        let calls = [
            call_once_served(&mut caller, "a.b"),
            caller.begin_call("a.b", "5"),
        ];
        let asked = Asked::of(&mut back);
        back.ping();
        answer(&mut back, &asked, "4");
        let asked = Asked::of(&mut back);
        answer(&mut back, &asked, "5");
        assert_eq!(calls.map(|cid| end(&mut caller, cid)["data"].clone()), [4, 5]);
        let held = caller.begin_call("a.b", "6");
        Asked::of(&mut back);
        let mut newest = scene.connect(5, 0, &lasting, "server", &claims);
        assert_eq!(body(&newest.packet())[..2], [1, 0]);
        assert_eq!(error(&mut caller, held), "ServiceGoneError");
        assert_eq!(serve_with(&mut newest, 5, &window, "$share/g/$rpc/a.*"), 0);
        let cid = caller.begin_call("a.b", "7");
        let asked = Asked::of(&mut newest);
        answer(&mut newest, &asked, "7");
        assert_eq!(end(&mut caller, cid)["data"], 7);
        // A clean start ends the session, and the service with it.
        newest.send(DISCONNECT);
        assert_eq!(newest.next(), None);
        scene.service("server").ping();
        eventually("nobody serves", || {
            scene.process.admin().metric("ringcast_service_members") == 0
        });
    }
}

#[test]
fn a_filter_that_ends_gives_its_pattern_up_unless_another_one_stands_for_it() {
    for cores in [1, 8] {
        let scene = Scene::new(cores, ENTRY, &[]);
        let mut service = scene.service("server");
        serve(&mut service, "a/#");
        assert_eq!(serve_with(&mut service, 5, &[], "$share/other/$rpc/a/*"), 0);
        let mut caller = scene.process.client();
        service.send(&unsubscribe(5, 2, &["$share/group/$rpc/a/#"]));
        assert!(service.packet().ends_with(&[0]));
        let cid = caller.begin_call("a/b", "1");
        let asked = Asked::of(&mut service);
        service.send(&unsubscribe(5, 2, &["$share/other/$rpc/a/*"]));
        assert!(service.packet().ends_with(&[0]));
        // The call that it has may still be answered.
        answer(&mut service, &asked, "1");
        assert_eq!(end(&mut caller, cid)["data"], 1);
        eventually("nobody serves", || {
            scene.process.admin().metric("ringcast_service_members") == 0
        });
        let cid = caller.begin_call("a/b", "1");
        assert_eq!(error(&mut caller, cid), "NoServiceError");
        // Rules that take the right away end the connection, and the filter: MQTT has no other packet for that.
        serve(&mut service, "b");
        scene.reload(&format!(
            "{}{ENTRY}",
            RULES.replace("[\"**\"]\nto", "[\"c.**\"]\nto")
        ));
        service.expect_end(0x87);
        let cid = caller.begin_call("b", "1");
        assert_eq!(error(&mut caller, cid), "NoServiceError");
    }
}

#[test]
fn a_call_that_no_packet_can_carry_is_refused() {
    let scene = Scene::new(2, ENTRY, &[]);
    let claims = json!({"sub": "small", "role": "service"});
    // It takes packets of 400 bytes.
    let mut service = scene.connect(5, 0x02, &[0x27, 0, 0, 1, 0x90], "small", &claims);
    service.accepted();
    serve(&mut service, "#");
    let mut caller = scene.process.client();
    let long = json!("x".repeat(400)).to_string();
    for (name, data) in [("a", &*long), ("a+b", "1"), ("a#", "1")] {
        let cid = caller.begin_call(name, data);
        assert_eq!(error(&mut caller, cid), "InvalidArgumentsError", "{name}");
    }
    caller.send_text(r#"{"event":"a+b","data":1}"#);
    let cid = caller.begin_call("a", "\"short\"");
    let asked = Asked::of(&mut service);
    assert_eq!(asked.payload, "\"short\"");
    answer(&mut service, &asked, "1");
    assert_eq!(end(&mut caller, cid)["data"], 1);
}
