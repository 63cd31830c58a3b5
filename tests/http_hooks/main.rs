//! Decisions of a backend over HTTP (`[[hooks]]`) about real clients of both protocols: all kinds of answers, the order
//! of packets, clients that must not wait, and backends that do not answer.

#![allow(clippy::unwrap_used, clippy::disallowed_types)] // a test, which waits for locks

mod batches;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringcast::config::hooks::{CacheBy, HookAction, HookSpec, WhenAway};
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::{Anonymous, Config};
use ringcast::internals::decision::Limit;
use serde_json::{Value, json};
use support::backend::{Asked, Backend};
use support::folder::Folder;
use support::mqtt::{MqttServer, publish, subscribe};
use support::process::Process;
use support::schema;
use support::secure::Authority;
use support::{Client, PATIENCE, Server, UPGRADE, eventually};

use HookAction::{Authenticate, Connect, Disconnect, Invoke, Publish, Subscribe, Transmit};

/// A hook for these actions on all channels and procedures.
fn hook(url: &str, actions: &[HookAction]) -> HookSpec {
    let all = |is_some: bool| {
        if is_some {
            vec!["**".to_owned()]
        } else {
            Vec::new()
        }
    };
    HookSpec {
        actions: actions.to_vec(),
        channels: all(actions.iter().any(|action| action.is_on_channel())),
        procedures: all(actions.iter().any(|action| action.is_on_procedure())),
        timeout: Duration::from_secs(50),
        ..HookSpec::new("backend", url)
    }
}

/// A backend that checks questions and answers by the schema.
fn backend_that(answer: impl Fn(&Asked) -> Value + Send + Sync + 'static) -> Backend {
    let text = include_str!("../../docs/hooks.schema.json");
    let schemas: Value = serde_json::from_str(text).unwrap();
    let check = move |name: &str, value: &Value| {
        let schema = &schemas["$defs"][name];
        assert_eq!(schema::difference(&schemas, schema, value), None, "{value}");
    };
    Backend::start(move |asked| {
        let (question, answers) = match asked.json {
            Value::Array(_) => ("questions", "answers"),
            _ => ("question", "answer"),
        };
        check(question, &asked.json);
        let answer = answer(asked);
        check(answers, &answer);
        answer
    })
}

fn asking(backend: &Backend, actions: &[HookAction], change: impl FnOnce(&mut HookSpec)) -> Server {
    let mut hook = hook(&backend.url(), actions);
    change(&mut hook);
    Server::start(|config| with_hook(config, hook))
}

fn with_hook(config: &mut Config, hook: HookSpec) {
    config.limits.decision_timeout = Duration::from_secs(60);
    config.hooks.push(hook);
}

/// Opens a WebSocket with these lines in the head.
fn upgraded(server: &Server, lines: &str) -> Client {
    let mut client = server.connect();
    let request = UPGRADE.replacen("HTTP/1.1\r\n", &format!("HTTP/1.1\r\n{lines}"), 1);
    client.send_bytes(request.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client
}

/// The answer to a handshake, as JSON.
fn handshake(client: &mut Client) -> Value {
    client.send_text(HANDSHAKE);
    parsed(&client.message())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const HANDSHAKE: &str = r##"{"event":"#handshake","data":{},"cid":1}"##;

/// Answers by the session cookie of the client's upgrade.
fn by_cookie(asked: &Asked) -> Value {
    match asked.text("/client/cookies/session") {
        "ann's" => json!({
            "allow": true,
            "claims": {"sub": "ann", "exp": 4_000_000_000_u64},
            "subscribe": ["user.ann", "news"],
        }),
        "bea's" => json!({"allow": true, "token": {"claims": {"sub": "bea"}, "expires_in": 60}}),
        _ => json!({"error": {"name": "NoSession", "message": "log in first"}, "code": 4501}),
    }
}

#[test]
fn the_cookie_of_the_upgrade_makes_a_client_the_user_whom_the_backend_knows() {
    let backend = backend_that(by_cookie);
    let server = asking(&backend, &[Connect], |hook| {
        hook.cookies = vec!["session".to_owned()];
    });
    let mut ann = upgraded(&server, "Cookie: other=1; session=ann's; third=2\r\n");
    let answer = handshake(&mut ann);
    assert_eq!(
        answer.pointer("/data/isAuthenticated"),
        Some(&json!(true)),
        "{answer}"
    );
    for channel in ["user.ann", "news"] {
        assert_eq!(
            ann.message(),
            format!(r#"{{"event":"$subscribed","data":{{"channel":"{channel}"}}}}"#)
        );
    }
    let published = server.running().handle().publish("user.ann", &"hello");
    published.wait().unwrap();
    assert_eq!(ann.publication("user.ann"), r#""hello""#);

    let mut bea = upgraded(&server, "Cookie: session=bea's\r\n");
    assert_eq!(
        handshake(&mut bea).pointer("/data/isAuthenticated"),
        Some(&json!(true))
    );
    let token = bea.message();
    assert!(
        token.starts_with(r##"{"event":"#setAuthToken","data":{"token":"ey"##),
        "{token}"
    );

    let mut stranger = upgraded(&server, "Cookie: session=forged\r\n");
    let refused = handshake(&mut stranger);
    let expected = json!({"name": "NoSession", "message": "log in first", "statusCode": 4501});
    assert_eq!(refused.get("error"), Some(&expected));
    assert_eq!(stranger.close_frame().0, Some(4501));
}

/// A browser adds the cookies of its user to the request of any page.
#[test]
fn a_page_of_another_origin_does_not_act_by_the_cookies_of_its_visitor() {
    let backend = backend_that(|asked| {
        // Not of the credentials that the browser adds.
        assert_eq!(asked.json["client"]["headers"], json!({"x-own": "1"}));
        by_cookie(asked)
    });
    let server = asking(&backend, &[Connect], |hook| {
        hook.cookies = vec!["session".to_owned()];
        hook.headers = vec!["authorization".to_owned(), "x-own".to_owned()];
    });
    let lines =
        "Origin: https://evil.example\r\nCookie: session=ann's\r\nAuthorization: Basic eDp5\r\nX-Own: 1\r\n";
    let mut victim = upgraded(&server, lines);
    assert_eq!(
        handshake(&mut victim).pointer("/error/name"),
        Some(&json!("NoSession"))
    );
}

#[test]
fn a_question_has_the_client_and_the_configured_parts_of_its_request() {
    let (tell, told) = sync_channel(10);
    let backend = backend_that(move |asked| {
        tell.send((
            asked.json.clone(),
            asked.header("ringcast-signature").map(str::to_owned),
        ))
        .unwrap();
        json!({"allow": true})
    });
    let server = asking(&backend, &[Connect, Publish], |hook| {
        hook.headers = vec!["x-tag".to_owned(), "x-absent".to_owned()];
        hook.query = true;
    });
    let mut client = server.connect();
    let lines = "HTTP/1.1\r\nX-Tag: a\"\u{e9}b\r\nX-Other: secret\r\nCookie: s=1\r\n";
    let request = UPGRADE
        .replacen("/socketcluster/ ", "/socketcluster/?tenant=7 ", 1)
        .replacen("HTTP/1.1\r\n", lines, 1);
    client.send_bytes(request.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.handshake();
    let (mut question, signature) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(signature, None);
    assert!(question["id"].take().is_string());
    assert_eq!(
        question,
        json!({
            "id": null,
            "hook": "backend",
            "action": "connect",
            "client": {
                "id": client.id,
                "claims": null,
                "address": "127.0.0.1",
                "path": "/socketcluster/",
                "query": "tenant=7",
                "headers": {"x-tag": "a\"\u{e9}b"},
            },
        })
    );
    client.publish("room.a", r#"{ "text" : "\u00e9\\" }"#);
    let (question, _) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(question["channel"], "room.a");
    assert_eq!(question["data"], json!({"text": "\u{e9}\\"}));
}

/// A backend whose answers wait for the test.
fn held() -> (Backend, Receiver<String>, SyncSender<Value>) {
    let (tell, told) = sync_channel(100);
    let (answer, answers) = sync_channel(100);
    let answers = Mutex::new(answers);
    let backend = backend_that(move |asked| {
        tell.send(asked.text("/channel").to_owned()).unwrap();
        answers.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    });
    (backend, told, answer)
}

#[test]
fn packets_keep_their_order_behind_a_question_and_other_clients_do_not_wait() {
    let (backend, told, answer) = held();
    let server = asking(&backend, &[Publish], |hook| {
        hook.channels = vec!["asked.**".to_owned()];
    });
    let mut reader = server.client();
    for channel in ["asked.1", "free", "asked.2"] {
        reader.subscribe(channel);
    }
    let mut writer = server.client();
    writer.publish("asked.1", "1");
    writer.publish("free", "2");
    writer.publish("asked.2", "3");
    let call = writer.begin_call("ping", "null");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "asked.1");
    for _ in 0..3 {
        server.client().ping();
        reader.ping();
    }
    answer.send(json!({"allow": true})).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "asked.2");
    answer
        .send(json!({"allow": true, "data": {"by": "backend"}}))
        .unwrap();
    assert_eq!(reader.publication("asked.1"), "1");
    assert_eq!(reader.publication("free"), "2");
    assert_eq!(reader.publication("asked.2"), r#"{"by":"backend"}"#);
    assert!(
        writer
            .message()
            .starts_with(&format!(r#"{{"rid":{call},"data":"#))
    );
}

#[test]
fn a_backend_refuses_and_rewrites_publications_and_refuses_subscriptions() {
    let backend = backend_that(|asked| match (asked.text("/action"), asked.text("/channel")) {
        (_, "silent") => json!({"allow": false}),
        (_, "told") => json!({"error": {"message": "not you", "retry": 7}}),
        ("publish", "null") => json!({"allow": true, "data": null}),
        (_, _) => json!({"allow": true}),
    });
    let server = asking(&backend, &[Subscribe, Publish], |_| {});
    let mut client = server.client();
    client.subscribe("null");
    for event in ["#subscribe", "#publish"] {
        let answer = parsed(&client.call(event, r#"{"channel":"told"}"#));
        assert_eq!(answer["error"], json!({"message": "not you", "retry": 7}));
        let answer = parsed(&client.call(event, r#"{"channel":"silent"}"#));
        assert_eq!(answer["error"]["name"], "SilentMiddlewareBlockedError");
    }
    client.publish("null", "17");
    assert_eq!(client.publication("null"), "null");
}

#[test]
fn calls_are_answered_passed_on_or_refused_and_events_are_dropped() {
    let backend = backend_that(|asked| match asked.text("/procedure") {
        "sum" => {
            let numbers = asked.json["data"].as_array().unwrap();
            json!({"answer": numbers.iter().filter_map(Value::as_i64).sum::<i64>()})
        }
        "ping" => json!({"allow": true}),
        "login" => json!({"answer": "welcome", "token": {"claims": {"sub": "ann"}}}),
        _ => json!({"error": "no such procedure"}),
    });
    let server = asking(&backend, &[Invoke, Transmit], |_| {});
    let mut client = server.client();
    let cid = client.begin_call("sum", "[1,2,39]");
    assert_eq!(client.message(), format!(r#"{{"rid":{cid},"data":42}}"#));
    client.ping();
    let cid = client.begin_call("other", "1");
    assert_eq!(
        client.message(),
        format!(r#"{{"rid":{cid},"error":"no such procedure"}}"#)
    );
    let cid = client.begin_call("login", "1");
    assert_eq!(client.message(), format!(r#"{{"rid":{cid},"data":"welcome"}}"#));
    assert!(client.message().starts_with(r##"{"event":"#setAuthToken""##));
    client.send_text(r#"{"event":"unknown","data":1}"#);
    client.send_text(r#"{"event":"ping","data":1}"#);
    // The event that was refused has no effect, and the other one is answered by an event.
    assert!(client.message().starts_with(r#"{"event":"pong""#));
}

#[test]
fn a_user_whom_the_backend_does_not_know_is_not_authenticated() {
    let backend = backend_that(|asked| match asked.text("/client/claims/sub") {
        "ann" => json!({"allow": true}),
        _ => json!({"error": {"message": "unknown user", "isBadToken": true}}),
    });
    let mut hook = hook(&backend.url(), &[Authenticate]);
    hook.cache = PATIENCE * 10;
    hook.cache_by = vec![CacheBy::Claims];
    let key = "0123456789abcdef0123456789abcdef";
    let server = Server::start(|config| {
        with_hook(config, hook);
        config.auth.key = Some(ringcast::config::secret::Secret::new(key));
    });
    let token = |user: &str| support_token(key, user);
    for _ in 0..3 {
        let mut ann = upgraded(&server, "");
        let data = format!(
            r##"{{"event":"#handshake","data":{{"authToken":"{}"}},"cid":1}}"##,
            token("ann")
        );
        ann.send_text(&data);
        let answer = parsed(&ann.message());
        assert_eq!(
            answer.pointer("/data/isAuthenticated"),
            Some(&json!(true)),
            "{answer}"
        );
    }
    assert_eq!(backend.asked(), 1, "an answer is used again");
    let mut eve = server.client();
    let answer = parsed(&eve.call("#authenticate", &format!("{:?}", token("eve"))));
    let expected = json!({"message": "unknown user", "isBadToken": true});
    assert_eq!(answer.get("error"), Some(&expected), "{answer}");
    assert_eq!(backend.asked(), 2, "and not for another user");
}

/// A token with the claim `sub`, signed with HS256.
fn support_token(key: &str, user: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let head = part(json!({"alg": "HS256", "typ": "JWT"}));
    let signed = format!("{head}.{}", part(json!({"sub": user, "exp": 4_000_000_000_u64})));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn the_backend_is_told_of_the_end_of_a_client_that_was_connected() {
    let (tell, told) = sync_channel(10);
    let backend = backend_that(move |asked| {
        tell.send(asked.json.clone()).unwrap();
        json!({"allow": true})
    });
    let server = asking(&backend, &[Disconnect], |_| {});
    let mut unfinished = server.connect();
    unfinished.upgrade();
    drop(unfinished);
    let client = server.client();
    let id = client.id.clone();
    drop(client);
    let question = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (&question["action"], &question["client"]["id"]),
        (&json!("disconnect"), &json!(id))
    );
    assert!(question["reason"].is_string());
}

/// A backend that is told of many ends, and says nothing to them, is asked about subscriptions all the same.
#[test]
fn what_the_backend_answers_to_the_end_of_a_client_does_not_count() {
    let (tell, told) = sync_channel(100);
    let backend = Backend::raw(move |asked, stream| {
        let answer = match asked.text("/action") {
            "disconnect" => {
                tell.send(()).unwrap();
                "HTTP/1.1 204 No Content\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"allow\":true}",
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let server = asking(&backend, &[Subscribe, Disconnect], |hook| {
        hook.failures_max = 2;
        hook.cache = PATIENCE;
        hook.cache_by = vec![CacheBy::Claims];
    });
    for _ in 0..5 {
        drop(server.client());
        told.recv_timeout(PATIENCE).unwrap();
    }
    server.client().subscribe("a");
}

#[test]
fn neither_history_nor_members_nor_a_response_topic_lead_past_a_hook() {
    let backend = backend_that(|asked| json!({"allow": asked.text("/channel") == "room.open"}));
    let hook = HookSpec {
        channels: vec!["room.**".to_owned()],
        ..hook(&backend.url(), &[Subscribe, Publish])
    };
    let server = MqttServer::start(|config| {
        with_hook(config, hook);
        config.channels = vec![ringcast::config::channels::ChannelSpec {
            names: vec!["room.**".to_owned()],
            policy: ringcast::config::channels::ChannelPolicy {
                last_value: true,
                presence: ringcast::config::channels::PresencePolicy::MembersAndEvents,
                ..Default::default()
            },
            ..Default::default()
        }];
    });
    let mut client = server.server.client();
    for (event, data) in [
        ("$history", json!({"channel": "room.NAME", "last": 1})),
        ("$presence", json!({"channel": "room.NAME"})),
        ("#subscribe", json!({"channel": "$presence/room.NAME"})),
    ] {
        for (name, is_allowed) in [("closed", false), ("open", event != "#subscribe")] {
            let data = data.to_string().replace("NAME", name);
            let answer = parsed(&client.call(event, &data));
            assert_eq!(
                answer.get("error").is_none(),
                is_allowed,
                "{event} {data}: {answer}"
            );
        }
    }
    let mut lamp = server.connect(5, "lamp");
    let topic = support::mqtt::string("room.closed");
    lamp.send(&publish(5, 2, "$rpc/ping", 7, &[&[8][..], &topic].concat(), b""));
    let answer = lamp.packet();
    assert_eq!((answer[0], answer[4]), (0x40, 0x87), "{answer:?}");
}

/// What a target does with a request, and the outcome that is counted.
fn faults() -> Vec<(&'static str, Backend)> {
    let refuses = || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut backend = Backend::raw(|_, _| true);
        backend.address = listener.local_addr().unwrap();
        backend
    };
    let says = |text: &'static str| Backend::raw(move |_, stream| stream.write_all(text.as_bytes()).is_ok());
    let fills = || {
        Backend::raw(|_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
            let piece = vec![b' '; 100_000];
            stream.write_all(head.as_bytes()).is_ok() && (0..1000).all(|_| stream.write_all(&piece).is_ok())
        })
    };
    let trickles = || {
        Backend::raw(|_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
            let mut goes_on = stream.write_all(head.as_bytes()).is_ok();
            while goes_on {
                goes_on = stream.write_all(b" ").is_ok();
                thread::sleep(Duration::from_millis(5));
            }
            false
        })
    };
    vec![
        ("unreachable", refuses()),
        ("unreachable", Backend::raw(|_, _| false)),
        ("unreachable", says("SSH-2.0-x\r\n")),
        ("unreachable", fills()),
        ("timeout", Backend::raw(|_, _| true)),
        ("timeout", trickles()),
        (
            "status",
            says("HTTP/1.1 500 Oh\r\nContent-Length: 14\r\n\r\n{\"allow\":true}"),
        ),
        (
            "status",
            says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("invalid", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")),
        (
            "invalid",
            says("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"allow\":\"true\""),
        ),
    ]
}

#[test]
fn without_an_answer_the_configuration_decides_and_nobody_hangs() {
    for (outcome, backend) in faults() {
        for when_away in [WhenAway::Refuse, WhenAway::Allow] {
            let server = asking(&backend, &[Subscribe], |hook| {
                hook.when_away = when_away;
                hook.failures_max = 0;
                if outcome == "timeout" {
                    hook.timeout = Duration::from_millis(50);
                }
            });
            let mut client = server.client();
            let answer = parsed(&client.call("#subscribe", r#"{"channel":"a"}"#));
            match when_away {
                WhenAway::Allow => assert_eq!(answer.get("error"), None, "{outcome}"),
                WhenAway::Refuse => assert_eq!(answer["error"]["name"], "HookUnavailableError", "{outcome}"),
            }
            client.ping();
        }
    }
}

#[test]
fn a_target_that_fails_is_left_alone() {
    let backend = Backend::raw(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
            .is_ok()
    });
    let server = asking(&backend, &[Subscribe], |hook| hook.failures_max = 3);
    let mut client = server.client();
    for _ in 0..50 {
        let answer = parsed(&client.call("#subscribe", r#"{"channel":"a"}"#));
        assert_eq!(answer["error"]["name"], "HookUnavailableError");
    }
    // Three failures, and one more for each second that has passed on a slow machine.
    assert!((3..20).contains(&backend.asked()), "{}", backend.asked());
}

#[test]
fn connections_to_a_target_are_used_again() {
    let backend = backend_that(|_| json!({"allow": true}));
    let server = asking(&backend, &[Subscribe], |_| {});
    let mut client = server.client();
    for number in 0..20 {
        client.subscribe(&format!("a{number}"));
    }
    assert_eq!((backend.asked(), backend.connections()), (20, 1));
}

/// Other servers close idle connections when they like, also when a question is on its way to them.
#[test]
fn a_backend_that_dies_on_idle_connections_decides_every_question_once() {
    let seen = Arc::new(Mutex::new((BTreeSet::new(), Vec::new())));
    let shared = Arc::clone(&seen);
    let backend = Backend::raw(move |asked, stream| {
        let (connections, ids) = &mut *shared.lock().unwrap();
        ids.push(asked.text("/id").to_owned());
        // The second question of a connection is not answered.
        connections.insert(stream.peer_addr().unwrap())
            && stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"allow\":true}")
                .is_ok()
    });
    let server = asking(&backend, &[Subscribe], |hook| hook.failures_max = 1);
    let mut client = server.client();
    for number in 0..20 {
        client.subscribe(&format!("a{number}"));
    }
    let seen = seen.lock().unwrap();
    let ids: BTreeSet<&String> = seen.1.iter().collect();
    assert_eq!(
        (ids.len(), seen.1.len()),
        (20, 39),
        "the same id when it is sent again"
    );
}

#[test]
fn a_backend_is_asked_through_tls_if_its_certificate_is_right() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let pair = ours.server(&["127.0.0.1"]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let config = Arc::new(pair.server_config());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let tls = rustls::ServerConnection::new(config).unwrap();
                let mut stream = BufReader::new(rustls::StreamOwned::new(tls, stream.unwrap()));
                while support::backend::read(&mut stream).is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"allow\":true}";
                    stream.get_mut().write_all(answer).unwrap();
                }
            });
        }
    });
    let folder = Folder::new();
    for (authority, is_trusted) in [(&ours, true), (&others, false)] {
        let hook = HookSpec {
            ca_file: Some(folder.write("ca.pem", &authority.pem())),
            ..hook(&url, &[Subscribe])
        };
        let server = Server::start(|config| with_hook(config, hook));
        let mut client = server.client();
        let answer = parsed(&client.call("#subscribe", r#"{"channel":"a"}"#));
        let error = &answer["error"]["name"];
        assert_eq!(error.is_null(), is_trusted, "{answer}");
        assert!(is_trusted || error == "HookUnavailableError", "{answer}");
    }
}

#[test]
fn a_question_on_its_way_is_decided_by_its_hook_whatever_a_reload_has_done() {
    let (backend, told, answer) = held();
    let folder = Folder::new();
    let gate = |more: &str| {
        format!(
            "[[hooks]]\nname = \"gate\"\nactions = \"subscribe\"\nchannels = \"**\"\nurl = \"{}\"\n{more}",
            backend.url()
        )
    };
    let file = folder.write("ringcast.toml", &gate("timeout_ms = 4000\nconcurrency = 1\n"));
    let process = Process::start(&[("RINGCAST_CONFIG", file.to_str().unwrap())]);
    // Another hook with the name, and then none at all.
    for next in [gate("timeout_ms = 4000\nconcurrency = 2\n"), String::new()] {
        let mut client = process.client();
        client.send_text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":7}"##);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "a");
        folder.write("ringcast.toml", &next);
        process.signal(nix::sys::signal::Signal::SIGHUP);
        process.logged("SIGHUP: reloaded");
        answer.send(json!({"error": "closed"})).unwrap();
        let decided = parsed(&client.message());
        assert_eq!(
            (&decided["rid"], &decided["error"]),
            (&json!(7), &json!("closed"))
        );
    }
    let mut client = process.client();
    client.subscribe("b");
    assert_eq!(backend.asked(), 2, "there is no hook any more");
}

#[test]
fn more_questions_than_may_wait_are_decided_at_once_and_counted() {
    let (backend, told, answer) = held();
    let server = asking(&backend, &[Publish], |hook| {
        (hook.concurrency, hook.waiting_max) = (1, 1);
    });
    let mut clients: Vec<(Client, u64)> = (0..3)
        .map(|_| {
            let mut client = server.client();
            let call = client.begin_call("#publish", r#"{"channel":"a","data":1}"#);
            (client, call)
        })
        .collect();
    told.recv_timeout(PATIENCE).unwrap();
    eventually("one question is too many", || {
        server.limit_hits(Limit::HookQuestions) == 1
    });
    for _ in 0..2 {
        answer.send(json!({"allow": true})).unwrap();
    }
    let mut refused = 0;
    for (client, call) in &mut clients {
        let answer = client.message();
        if answer != format!(r#"{{"rid":{call}}}"#) {
            assert_eq!(parsed(&answer)["error"]["name"], "HookUnavailableError");
            refused += 1;
        }
    }
    assert_eq!(refused, 1);
}

#[test]
fn an_unanswered_question_ends_with_its_connection_and_leaves_nothing() {
    let (backend, told, answer) = held();
    let server = asking(&backend, &[Publish], |_| {});
    for _ in 0..10 {
        let mut client = server.client();
        client.begin_call("#publish", r#"{"channel":"a","data":1}"#);
        told.recv_timeout(PATIENCE).unwrap();
        drop(client);
    }
    server.settles_at(0, 0);
    for _ in 0..10 {
        answer.send(json!({"allow": true})).unwrap();
    }
    let mut client = server.client();
    answer.send(json!({"allow": true})).unwrap();
    client.call("#publish", r#"{"channel":"a","data":1}"#);
}

#[test]
fn clients_of_mqtt_are_asked_about_as_well() {
    let backend = backend_that(|asked| {
        let client = &asked.json["client"];
        match (asked.text("/action"), asked.text("/channel")) {
            ("connect", _) if client["mqtt_password"] == "right" => {
                json!({"allow": true, "claims": {"sub": client["mqtt_user_name"]}, "subscribe": ["for/lamp"]})
            }
            ("connect", _) => json!({"allow": false}),
            ("publish", "bytes") => json!({"allow": asked.json["payload"] == "//4="}),
            ("publish", "json") => json!({"allow": true, "data": {"sub": client["claims"]["sub"]}}),
            ("publish", _) => json!({"allow": true}),
            ("subscribe", "#") => json!({"allow": false}),
            (_, _) => json!({"allow": true}),
        }
    });
    let hook = HookSpec {
        mqtt_password: true,
        ..hook(&backend.url(), &[Connect, Subscribe, Publish])
    };
    let server = MqttServer::start(|config| {
        with_hook(config, hook);
        config.permissions.allow_anonymous = Anonymous::Off;
    });
    let connect = |password: &str| {
        let names = [
            support::mqtt::string("lamp"),
            support::mqtt::string("ann"),
            support::mqtt::string(password),
        ];
        support::mqtt::connect_with(5, 0xc2, 60, &[], &names.concat())
    };
    let over = support::mqtt::Over::Tcp;
    let mut refused = server.open(over, 5);
    refused.send(&connect("wrong"));
    let connack = refused.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0x87));
    let mut lamp = server.connect_with(over, 5, &connect("right"));
    lamp.send(&subscribe(5, 1, &[], &[("#", 0), ("json", 0), ("bytes", 0)]));
    let suback = lamp.packet();
    assert_eq!(&suback[suback.len() - 3..], &[0x87, 0, 0], "{suback:?}");
    lamp.send(&publish(5, 0, "json", 0, &[], b"1"));
    let message = lamp.message();
    assert_eq!(
        (&message.topic[..], &message.payload[..]),
        ("json", &br#"{"sub":"ann"}"#[..])
    );
    lamp.send(&publish(5, 0, "bytes", 0, &[], b"\xff\xfe"));
    assert_eq!(lamp.message().payload, b"\xff\xfe");
    lamp.send(&publish(5, 0, "for/lamp", 0, &[], b"2"));
    assert_eq!(lamp.message().topic, "for/lamp");
}

/// The rules are asked about a will again when the answer about it has come.
#[test]
fn a_will_is_judged_by_the_claims_of_the_hook_also_when_a_hook_is_asked_about_it() {
    let backend = backend_that(|asked| match asked.text("/action") {
        "connect" => json!({"allow": true, "claims": {"sub": "ann"}}),
        _ => json!({"allow": true, "data": asked.json["client"]["claims"]["sub"]}),
    });
    let hook = hook(&backend.url(), &[Connect, Publish]);
    let server = MqttServer::start(|config| {
        with_hook(config, hook);
        config.permissions.allow_anonymous = Anonymous::Off;
        config.permissions.rules = vec![RuleSpec {
            effect: Effect::Allow,
            actions: vec![Action::Publish],
            channels: Some(vec!["{sub}".to_owned()]),
            ..RuleSpec::default()
        }];
    });
    for (topic, code) in [("ann", 0), ("bea", 0x87)] {
        let mut lamp = server.open(support::mqtt::Over::Tcp, 5);
        let string = support::mqtt::string;
        let will = [string("lamp"), vec![0], string(topic), string("1")];
        lamp.send(&support::mqtt::connect_with(5, 0x06, 60, &[], &will.concat()));
        let connack = lamp.packet();
        assert_eq!((connack[0], connack[3]), (0x20, code), "{topic}: {connack:?}");
    }
}

#[test]
fn an_answer_after_its_time_changes_nothing() {
    let (backend, told, answer) = held();
    let server = asking(&backend, &[Publish], |hook| {
        hook.timeout = Duration::from_millis(50)
    });
    let mut client = server.client();
    let refused = parsed(&client.call("#publish", r#"{"channel":"a","data":1}"#));
    assert_eq!(refused["error"]["name"], "HookUnavailableError");
    told.recv_timeout(PATIENCE).unwrap();
    answer.send(json!({"allow": true})).unwrap();
    client.subscribe("a");
    client.ping();
}

/// The backend of docs/hooks.md, with the configuration that stands there, in processes of their own.
#[test]
fn the_example_of_the_documentation_decides_as_it_says() {
    let folder = Folder::new();
    let secret = folder.path().join("ringcast-hook-secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    for more in ["", "batch_max = 20\n"] {
        the_example_decides(&folder, &secret, more);
    }
}

/// With these lines at the end of the configuration.
fn the_example_decides(folder: &Folder, secret: &Path, more: &str) {
    let (_backend, port) = example(secret);
    let text = (CONFIGURATION.to_owned() + more)
        .replace("127.0.0.1:9000", &format!("127.0.0.1:{port}"))
        .replace("/etc/ringcast/hook-secret", secret.to_str().unwrap());
    let file = folder.path().join("ringcast.toml");
    fs::write(&file, text).unwrap();
    let process = Process::start(&[("RINGCAST_CONFIG", file.to_str().unwrap())]);
    let connect = |session: &str| {
        let mut client = process.connect();
        let lines = format!("HTTP/1.1\r\nCookie: session={session}\r\n");
        client.send_bytes(UPGRADE.replacen("HTTP/1.1\r\n", &lines, 1).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        client
    };
    assert_eq!(handshake(&mut connect("unknown"))["error"]["name"], "NoSession");
    let [mut ann, mut bea] = ["c0ffee", "7ea"].map(|session| {
        let mut client = connect(session);
        client.handshake();
        assert!(
            client
                .message()
                .starts_with(r#"{"event":"$subscribed","data":{"channel":"user."#)
        );
        client
    });
    ann.subscribe("room.blue");
    for client in [&mut ann, &mut bea] {
        client.subscribe("room.red");
    }
    let refused = parsed(&bea.call("#subscribe", r#"{"channel":"room.blue"}"#));
    assert_eq!(refused["error"]["message"], "bea is not in room.blue");
    ann.publish("room.red", r#""hello""#);
    for client in [&mut ann, &mut bea] {
        assert_eq!(
            parsed(&client.publication("room.red")),
            json!({"text": "hello", "from": "ann"})
        );
    }
    let rooms = parsed(&ann.call("rooms", "null"));
    assert_eq!(rooms["data"], json!(["room.blue", "room.red"]));
    let (_, metrics) = process.admin().get("/metrics");
    assert!(
        metrics.contains("ringcast_hook_questions_total{hook=\"backend\",outcome=\"refused\"} 2\n"),
        "{metrics}"
    );
}

/// The configuration that docs/hooks.md shows first.
const CONFIGURATION: &str = r#"[[hooks]]
name = "backend"
actions = ["connect", "subscribe", "publish", "invoke"]
channels = ["room.**"]
procedures = ["rooms"]
url = "http://127.0.0.1:9000/"
secret_file = "/etc/ringcast/hook-secret"
cookies = ["session"]
when_away = "refuse"
"#;

/// Starts the example, which ends when the value is dropped. Returns its port as well.
fn example(secret: &Path) -> (Ended, String) {
    let mut child = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hooks/backend.py"))
        .arg("0")
        .arg(secret)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line.trim().rsplit(' ').next().unwrap().to_owned();
    (Ended(child), port)
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_documentation_shows_the_example_that_is_tested() {
    let page = include_str!("../../docs/hooks.md");
    assert!(page.contains(CONFIGURATION), "the configuration");
    let code = include_str!("../../examples/hooks/backend.py");
    let function = code.find("def is_signed").unwrap();
    let function = &code[function..code.find("class Handler").unwrap()];
    assert!(page.contains(function.trim_end()), "the check of a signature");
}

#[test]
fn a_reload_replaces_hooks_and_neither_the_log_nor_a_check_shows_a_secret() {
    let refusing = backend_that(|_| json!({"error": "closed"}));
    let folder = Folder::new();
    let secret = "topsecret-topsecret-topsecret";
    let secrets = folder.path().join("secret");
    fs::write(&secrets, secret).unwrap();
    let file = folder.path().join("ringcast.toml");
    let hook = |more: &str| {
        format!(
            "[[hooks]]\nname = \"gate\"\nactions = \"subscribe\"\nchannels = \"**\"\nurl = \"{}?token={secret}\"\n\
             secret_file = \"{}\"\n{more}",
            refusing.url(),
            secrets.display()
        )
    };
    fs::write(&file, "log = \"debug\"\n").unwrap();
    let process = Process::start(&[
        ("RINGCAST_CONFIG", file.to_str().unwrap()),
        ("RINGCAST_LOG", "debug"),
    ]);
    let mut client = process.client();
    client.subscribe("a");
    fs::write(&file, hook("")).unwrap();
    process.signal(nix::sys::signal::Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    let mut is_refused = |expected: bool| {
        eventually("each core has the new hooks", || {
            let answer = parsed(&client.call("#subscribe", r#"{"channel":"b"}"#));
            (answer["error"] == "closed") == expected
        });
    };
    is_refused(true);
    // A file with a fault changes nothing.
    fs::write(&file, hook("timeout_ms = 1\n")).unwrap();
    process.signal(nix::sys::signal::Signal::SIGHUP);
    let fault = process.logged("nothing is reloaded");
    assert!(fault.contains("line 7: hooks number 1: timeout_ms"), "{fault}");
    is_refused(true);
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args(["check", "--config", file.to_str().unwrap()])
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let shown = check(&hook(""));
    assert!(
        shown.contains(&format!("hooks: 1\n  gate: subscribe: {}\n", refusing.url())),
        "{shown}"
    );
    assert!(!shown.contains(secret), "{shown}");
    fs::write(&secrets, "short").unwrap();
    let shown = check(&hook(""));
    assert!(
        shown.contains("line 1: hooks number 1: secret_file:") && shown.contains("shorter"),
        "{shown}"
    );
    fs::write(&file, "").unwrap();
    process.signal(nix::sys::signal::Signal::SIGHUP);
    let lines = process.logged_until("SIGHUP: reloaded");
    assert!(lines.iter().all(|line| !line.contains(secret)), "{lines:?}");
    is_refused(false);
}
