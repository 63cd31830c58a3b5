//! The HTTP API of a real process: each request of `openapi.json`, keys and their limits, and the publications that
//! subscribers get. Each answer is checked against the document (`support/api.rs`).

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::thread;

use nix::sys::signal::Signal;
use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use support::api::{Answer, ApiServer, JSON, Key, OPENAPI, ask, write_config};
use support::mqtt::{Mqtt, string, subscribe};
use support::process::Held;
use support::{Client, eventually};

/// Clients on both cores, subscribed to these channels.
fn subscribers(server: &ApiServer, channels: &[&str]) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..4).map(|_| server.process.client()).collect();
    for client in &mut clients {
        for channel in channels {
            client.subscribe(channel);
        }
    }
    clients
}

#[test]
fn every_request_of_the_document_is_answered_as_it_says() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], CHANNELS, &[]);
    let paths = server.document()["paths"].as_object().unwrap().clone();
    let mut count = 0;
    for (path, operations) in &paths {
        for (method, operation) in operations.as_object().unwrap() {
            let example = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if example.is_null() {
                String::new()
            } else {
                example.to_string()
            };
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let query: Vec<String> = parameters
                .iter()
                .filter(|parameter| parameter["required"] == true)
                .map(|parameter| {
                    let example = match &parameter["example"] {
                        Value::Array(list) => list[0].clone(),
                        example => example.clone(),
                    };
                    format!(
                        "{}={}",
                        parameter["name"].as_str().unwrap(),
                        example.as_str().unwrap()
                    )
                })
                .collect();
            let path = match query.is_empty() {
                true => path.clone(),
                false => format!("{path}?{}", query.join("&")),
            };
            let method = method.to_uppercase();
            let authorization = format!("Authorization: Bearer {}", key.key);
            let headers: &[&str] = if body.is_empty() {
                &[&authorization]
            } else {
                &[&authorization, JSON]
            };
            let answer = server.ask_with(&method, &path, headers, &body);
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
            count += 1;
        }
    }
    assert!(count >= 4);
    assert_eq!(server.get(&key, "/api/v1/openapi.json").text, OPENAPI);
}

#[test]
fn a_publication_reaches_all_subscribers_as_it_was_written() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut clients = subscribers(&server, &["news", "sport"]);
    let answer = server.post(
        &key,
        "/api/v1/publish",
        r#"{"channel":"news","data":{"b": 1.50,"a":[null]}}"#,
    );
    assert_eq!((answer.status, answer.json), (200, json!({"published": 1})));
    let batch: Vec<Value> = (0..100)
        .map(|number| json!({"channel": "sport", "data": number}))
        .collect();
    let answer = server.post(
        &key,
        "/api/v1/publications",
        &json!({ "publications": batch }).to_string(),
    );
    assert_eq!((answer.status, answer.json), (200, json!({"published": 100})));
    let answer = server.post(
        &key,
        "/api/v1/broadcast",
        r#"{"channels":["news","nobody","sport"],"data":null}"#,
    );
    assert_eq!((answer.status, answer.json), (200, json!({"published": 3})));
    for client in &mut clients {
        assert_eq!(client.publication("news"), r#"{"b": 1.50,"a":[null]}"#);
        for number in 0..100 {
            assert_eq!(client.publication("sport"), number.to_string());
        }
        assert_eq!(client.publication("news"), "null");
        assert_eq!(client.publication("sport"), "null");
    }
}

#[test]
fn answers_have_the_positions_that_subscribers_see_and_repetitions_the_same() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], CHANNELS, &[]);
    let mut clients = subscribers(&server, &["shop.a", "shop.b", "news"]);
    let authorization = format!("Authorization: Bearer {}", key.key);
    let post = |path: &str, body: &Value| {
        let idempotency = format!("Idempotency-Key: {path}");
        let headers = [&*authorization, JSON, &idempotency];
        let answer = server.ask_with("POST", path, &headers, &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text);
        let again = server.ask_with("POST", path, &headers, &body.to_string());
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.text, answer.text);
        answer.json
    };
    let one = post("/api/v1/publish", &json!({"channel": "shop.a", "data": 1}));
    let batch = json!({"publications": [
        {"channel": "shop.b", "data": 2}, {"channel": "news", "data": 3}, {"channel": "shop.a", "data": 4},
    ]});
    let batch = post("/api/v1/publications", &batch);
    let broadcast = post(
        "/api/v1/broadcast",
        &json!({"channels": ["news", "shop.b"], "data": 5}),
    );
    let seen = |client: &mut Client, channel: &str, data: u64| {
        let packet: Value = serde_json::from_str(&client.message()).unwrap();
        assert_eq!(
            (&packet["data"]["channel"], &packet["data"]["data"]),
            (&json!(channel), &json!(data))
        );
        packet["data"]["position"].clone()
    };
    for client in &mut clients {
        let [first, second, third] =
            [("shop.a", 1), ("shop.b", 2), ("news", 3)].map(|(channel, data)| seen(client, channel, data));
        let [fourth, fifth, sixth] =
            [("shop.a", 4), ("news", 5), ("shop.b", 5)].map(|(channel, data)| seen(client, channel, data));
        assert_eq!((&third, &fifth), (&Value::Null, &Value::Null));
        assert_eq!(one, json!({"published": 1, "position": first}));
        assert_eq!(
            batch,
            json!({"published": 3, "positions": [second, null, fourth]})
        );
        assert_eq!(broadcast, json!({"published": 2, "positions": [null, sixth]}));
    }
}

#[test]
fn a_key_allows_its_actions_and_channels_and_nothing_else() {
    let shop = Key::new("shop", &["--actions", "publish", "--channels", "shop.**"]);
    let closer = Key::new("closer", &["--actions", "disconnect"]);
    let server = ApiServer::start(&[&shop, &closer], "", &[]);
    let publish = |key: &Key, channel: &str| {
        let body = json!({"channel": channel, "data": 1}).to_string();
        server.post(key, "/api/v1/publish", &body)
    };
    assert_eq!(publish(&shop, "shop.a").status, 200);
    for channel in ["news", "$presence/shop.a", "shops"] {
        let refused = publish(&shop, channel);
        assert_eq!((refused.status, refused.code()), (403, "channel_not_allowed"));
        assert!(
            refused.message().contains("the key shop does not allow publish"),
            "{}",
            refused.text
        );
    }
    // Nothing of a batch is published if one channel of it is not allowed.
    let mut client = server.process.client();
    client.subscribe("shop.a");
    for (path, body) in [
        (
            "/api/v1/publications",
            r#"{"publications":[{"channel":"shop.a","data":1},{"channel":"news","data":1}]}"#,
        ),
        ("/api/v1/broadcast", r#"{"channels":["shop.a","news"],"data":1}"#),
    ] {
        assert_eq!(server.post(&shop, path, body).code(), "channel_not_allowed");
    }
    assert_eq!(publish(&shop, "shop.a").status, 200);
    assert_eq!(client.publication("shop.a"), "1");
    let refused = publish(&closer, "shop.a");
    assert_eq!((refused.status, refused.code()), (403, "action_not_allowed"));
    let wrong = Key {
        key: format!("{}x", shop.key),
        ..shop.clone()
    };
    let refused = publish(&wrong, "shop.a");
    assert_eq!((refused.status, refused.code()), (401, "key_unknown"));
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    let refused = server.ask_with("POST", "/api/v1/publish", &[JSON], "{}");
    assert_eq!((refused.status, refused.code()), (401, "key_missing"));
}

#[test]
fn a_key_over_its_rate_is_told_when_to_come_again() {
    let key = Key::new(
        "slow",
        &[
            "--actions",
            "publish",
            "--channels",
            "**",
            "--rate",
            "1",
            "--burst",
            "5",
        ],
    );
    let server = ApiServer::start(&[&key], "", &[]);
    let mut outcomes: Vec<Answer> = (0..100)
        .map(|_| server.post(&key, "/api/v1/publish", r#"{"channel":"a","data":1}"#))
        .collect();
    assert!(outcomes[..5].iter().all(|answer| answer.status == 200));
    let refused = outcomes.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(
        (refused.code(), refused.header("retry-after")),
        ("rate_exceeded", Some("1"))
    );
    let accepted = |answers: &[Answer]| answers.iter().filter(|answer| answer.status == 200).count();
    assert!(accepted(&outcomes) < 100);
    outcomes.clear();
    eventually("the rate is refilled", || {
        server
            .post(&key, "/api/v1/publish", r#"{"channel":"a","data":1}"#)
            .status
            == 200
    });
}

#[test]
fn a_reload_adds_and_removes_keys_and_without_any_the_api_is_off() {
    let (first, second) = (
        Key::for_all(),
        Key::new("second", &["--actions", "publish", "--channels", "**"]),
    );
    let server = ApiServer::start(&[], "", &[]);
    let publish = |key: &Key| server.post(key, "/api/v1/publish", r#"{"channel":"a","data":1}"#);
    let off = publish(&first);
    assert_eq!((off.status, off.code()), (403, "api_off"));
    assert!(off.message().contains("ringcast api-key"), "{}", off.text);
    let reload = |keys: &[&Key]| {
        write_config(&server.config(), keys, "");
        server.process.signal(Signal::SIGHUP);
        server.process.logged("SIGHUP: reloaded");
    };
    reload(&[&first]);
    assert_eq!((publish(&first).status, publish(&second).status), (200, 401));
    reload(&[&second]);
    assert_eq!((publish(&first).status, publish(&second).status), (401, 200));
    fs::write(server.config(), "[[api_keys]]\nname = \"a\"\n").unwrap();
    server.process.signal(Signal::SIGHUP);
    server.process.logged("nothing is reloaded");
    assert_eq!(publish(&second).status, 200, "a wrong file changes nothing");
    reload(&[]);
    assert_eq!(publish(&second).code(), "api_off");
}

#[test]
fn wrong_requests_are_refused_with_what_to_do() {
    let key = Key::for_all();
    let server = ApiServer::start(
        &[&key],
        "",
        &[
            ("RINGCAST_API_BODY_BYTES_MAX", "2048"),
            ("RINGCAST_API_ITEMS_MAX", "3"),
            ("RINGCAST_MESSAGE_BYTES_MAX", "1024"),
            ("RINGCAST_CHANNEL_NAME_BYTES_MAX", "16"),
        ],
    );
    let mut client = server.process.client();
    client.subscribe("a");
    let filled = |bytes: usize| {
        let body = r#"{"channel":"a","data":1}"#;
        format!("{}{body}", " ".repeat(bytes - body.len()))
    };
    let channels = |count: usize| json!({"channels": vec!["a"; count], "data": 1}).to_string();
    let data = |bytes: usize| json!({"channel": "b", "data": "x".repeat(bytes)}).to_string();
    let named = |bytes: usize| json!({"channel": "x".repeat(bytes), "data": 1}).to_string();
    let deep = |depth: usize| {
        format!(
            r#"{{"channel":"a","data":{}1{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let publish = "/api/v1/publish";
    for (path, body, status, code) in [
        (publish, filled(2048), 200, ""),
        (publish, filled(2049), 413, "body_too_large"),
        ("/api/v1/broadcast", channels(3), 200, ""),
        ("/api/v1/broadcast", channels(4), 413, "too_many_items"),
        ("/api/v1/broadcast", channels(0), 400, "invalid_body"),
        (publish, data(900), 200, ""),
        (publish, data(1024), 413, "message_too_large"),
        (publish, named(16), 200, ""),
        (publish, named(17), 400, "invalid_channel"),
        (publish, deep(100), 200, ""),
        (publish, String::new(), 400, "invalid_body"),
        (publish, "{".to_owned(), 400, "invalid_body"),
        (publish, "[]".to_owned(), 400, "invalid_body"),
        (publish, "{}".to_owned(), 400, "invalid_body"),
        (publish, r#"{"channel":"a"}"#.to_owned(), 400, "invalid_body"),
        (
            publish,
            r#"{"channel":7,"data":1}"#.to_owned(),
            400,
            "invalid_body",
        ),
        (
            publish,
            r#"{"channel":"a","data":01}"#.to_owned(),
            400,
            "invalid_body",
        ),
        (
            publish,
            r#"{"channel":"a","data":1,"more":1}"#.to_owned(),
            400,
            "invalid_body",
        ),
        (
            publish,
            r#"{"channel":"\ud800","data":1}"#.to_owned(),
            400,
            "invalid_body",
        ),
        ("/api/v1/nowhere", "{}".to_owned(), 404, "unknown_path"),
        ("/api", "{}".to_owned(), 404, "unknown_path"),
        ("/api/v1/openapi.json", "{}".to_owned(), 405, "method_not_allowed"),
    ] {
        let answer = server.post(&key, path, &body);
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {body} {}",
            answer.text
        );
    }
    let authorization = format!("Authorization: Bearer {}", key.key);
    for headers in [
        &[&*authorization][..],
        &[&authorization, "Content-Type: text/plain"],
    ] {
        let answer = server.ask_with("POST", publish, headers, r#"{"channel":"a","data":1}"#);
        assert_eq!((answer.status, answer.code()), (415, "not_json"));
    }
    let answer = server.get(&key, publish);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let wrong = [
        "Idempotency-Key: a b",
        "Idempotency-Key:",
        &format!("Idempotency-Key: {}", "x".repeat(256)),
    ];
    for header in wrong {
        let answer = server.ask_with(
            "POST",
            publish,
            &[&authorization, JSON, header],
            r#"{"channel":"a","data":1}"#,
        );
        assert_eq!(
            (answer.status, answer.code()),
            (400, "invalid_parameter"),
            "{header}"
        );
    }
    // One client got the accepted publications on its channel: 1 and 3 of the broadcast, and the deep one.
    let expected = ["1", "1", "1", "1"].map(str::to_owned);
    assert_eq!([(); 4].map(|()| client.publication("a")), expected);
    assert!(client.publication("a").starts_with("[[["));
}

#[test]
fn web_pages_and_foreign_names_are_refused_and_a_key_opens_only_the_api() {
    let key = Key::for_all();
    let body = r#"{"channel":"a","data":1}"#;
    for settings in [
        &[][..],
        &[
            ("RINGCAST_ADMIN_KEY", "open sesame"),
            ("RINGCAST_PROBES_WITHOUT_KEY", "off"),
        ],
    ] {
        let folder = support::folder::Folder::new();
        let file = folder.file("ringcast.toml");
        write_config(&file, &[&key], "");
        let mut all = vec![("RINGCAST_CONFIG", file.to_str().unwrap())];
        all.extend(settings);
        let process = support::process::Process::start(&all);
        let admin = process.admin;
        let authorization = format!("Authorization: Bearer {}", key.key);
        let post = |headers: &[&str]| ask(admin, "POST", "/api/v1/publish", headers, body);
        let evil = "Host: evil.example";
        for (headers, status, code) in [
            (&[&*authorization, JSON][..], 200, ""),
            // No browser adds the key by itself.
            (&[&authorization, JSON, "Host: ringcast.example"], 200, ""),
            (&[JSON, evil], 403, "foreign_host"),
            (&[JSON, "Authorization: Bearer wrong", evil], 403, "foreign_host"),
            (&[&authorization, JSON, "Host: a b"], 400, "invalid_host"),
            (
                &[&authorization, JSON, "Host: localhost", "Host: localhost"],
                400,
                "invalid_host",
            ),
            (
                &[&authorization, JSON, "Origin: https://evil.example"],
                403,
                "foreign_page",
            ),
            (
                &[&authorization, JSON, "Sec-Fetch-Site: cross-site"],
                403,
                "foreign_page",
            ),
            (&[JSON, "Origin: https://evil.example"], 403, "foreign_page"),
            (&[JSON, "Authorization: Bearer open sesame"], 401, "key_unknown"),
            (&[JSON, "Authorization: Basic open sesame"], 401, "key_unknown"),
            (&[JSON], 401, "key_missing"),
        ] {
            let answer = post(headers);
            assert_eq!(
                (answer.status, answer.code()),
                (status, code),
                "{headers:?} {}",
                answer.text
            );
        }
        // A page of another origin cannot ask before it sends the key either.
        let options = ask(
            admin,
            "OPTIONS",
            "/api/v1/publish",
            &["Origin: https://evil.example"],
            "",
        );
        assert_eq!(options.status, 403);
        assert!(options.header("access-control-allow-origin").is_none());
        let page = |path: &str, headers: &[&str]| ask(admin, "GET", path, headers, "").status;
        let (open, closed) = if settings.is_empty() {
            (200, 200)
        } else {
            (200, 401)
        };
        assert_eq!(page("/metrics", &[&authorization]), closed);
        assert_eq!(page("/healthz", &[&authorization]), closed);
        assert_eq!(page("/metrics", &["Authorization: Bearer open sesame"]), open);
        assert_eq!(page("/api/v1/openapi.json", &[]), closed);
        assert_eq!(page("/api/v1/openapi.json", &[&authorization]), 200);
        assert_eq!(
            page("/api/v1/openapi.json", &["Authorization: Bearer open sesame"]),
            200
        );
        assert_eq!(page("/api/v1/openapi.json", &[evil]), 403);
    }
}

#[test]
fn a_repeated_request_is_carried_out_once_and_gets_the_first_answer() {
    let (key, other) = (
        Key::for_all(),
        Key::new("other", &["--actions", "publish", "--channels", "**"]),
    );
    let server = ApiServer::start(&[&key, &other], "", &[("RINGCAST_API_IDEMPOTENCY_KEYS_MAX", "3")]);
    let mut client = server.process.client();
    client.subscribe("a");
    let post = |key: &Key, idempotency_key: &str, body: &str| {
        let authorization = format!("Authorization: Bearer {}", key.key);
        let repeated = format!("Idempotency-Key: {idempotency_key}");
        server.ask_with(
            "POST",
            "/api/v1/publish",
            &[&authorization, JSON, &repeated],
            body,
        )
    };
    let body = |number: u32| format!(r#"{{"channel":"a","data":{number}}}"#);
    let first = post(&key, "one", &body(1));
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    for _ in 0..10 {
        let again = post(&key, "one", &body(1));
        assert_eq!((again.status, &again.json), (200, &first.json));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    let reused = post(&key, "one", &body(2));
    assert_eq!((reused.status, reused.code()), (422, "idempotency_key_reused"));
    // The keys of another API key are its own.
    assert_eq!(post(&other, "one", &body(3)).status, 200);
    // What was refused is not remembered.
    assert_eq!(post(&key, "two", "{}").status, 400);
    assert_eq!(post(&key, "two", &body(4)).status, 200);
    let full = post(&key, "three", &body(5));
    assert_eq!((full.status, full.code()), (503, "idempotency_keys_full"));
    assert_eq!(
        post(&key, "two", &body(4)).header("idempotency-replayed"),
        Some("true")
    );
    server.post(&key, "/api/v1/publish", &body(6));
    assert_eq!(
        [(); 4].map(|()| client.publication("a")),
        ["1", "3", "4", "6"].map(str::to_owned)
    );
}

/// The other cores have carried the request out, and this one still will.
#[test]
fn a_request_that_a_core_has_not_answered_is_not_carried_out_twice_for_its_clients() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[("RINGCAST_LIVENESS_TIMEOUT_MS", "3600000")]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.process.client()).collect();
    let authorization = format!("Authorization: Bearer {}", key.key);
    let transmit = |idempotency_key: &str, event: &str| {
        let repeated = format!("Idempotency-Key: {idempotency_key}");
        let body = json!({"address": "127.0.0.1", "event": event}).to_string();
        let headers = [&*authorization, JSON, &repeated];
        server.ask_with("POST", "/api/v1/transmit", &headers, &body)
    };
    let held = Held::thread(server.process.pid(), "core 1");
    for is_repetition in [false, true] {
        let answer = transmit("one", "first");
        assert_eq!(
            (answer.status, answer.code()),
            (503, "cores_unanswered"),
            "{}",
            answer.text
        );
        assert_eq!(answer.header("idempotency-replayed").is_some(), is_repetition);
    }
    drop(held);
    eventually("all cores answer", || {
        server.get(&key, "/api/v1/connections").status == 200
    });
    assert_eq!(transmit("two", "second").json, json!({"connections": 8}));
    for client in &mut clients {
        assert_eq!(client.message(), r#"{"event":"first"}"#);
        assert_eq!(client.message(), r#"{"event":"second"}"#);
    }
}

#[test]
fn many_repetitions_at_once_are_carried_out_once() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut client = server.process.client();
    client.subscribe("a");
    let admin = server.process.admin;
    let authorization = format!("Authorization: Bearer {}", key.key);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let headers = [&*authorization, JSON, "Idempotency-Key: same"];
                    ask(
                        admin,
                        "POST",
                        "/api/v1/publish",
                        &headers,
                        r#"{"channel":"a","data":1}"#,
                    )
                    .status
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200));
    server.post(&key, "/api/v1/publish", r#"{"channel":"a","data":2}"#);
    assert_eq!([client.publication("a"), client.publication("a")], ["1", "2"]);
}

#[test]
fn a_full_ring_is_an_error_that_says_which_publications_were_made() {
    let key = Key::for_all();
    let policy = "[[channels]]\nnames = [\"a\"]\nhistory_entries = 20\n";
    let server = ApiServer::start(&[&key], policy, &[("RINGCAST_OUTSIDE_BYTES_MAX", "65536")]);
    let mut client = server.process.client();
    client.subscribe("a");
    client.subscribe("b");
    client.ping();
    let held = Held::thread(server.process.pid(), "core 0");
    let held_too = Held::thread(server.process.pid(), "core 1");
    let batch: Vec<Value> = (0..20)
        .map(|number| json!({"channel": "a", "data": format!("{number} {}", "x".repeat(10_000))}))
        .collect();
    let body = json!({ "publications": batch }).to_string();
    let authorization = format!("Authorization: Bearer {}", key.key);
    let headers = [&*authorization, JSON, "Idempotency-Key: batch"];
    let answer = server.ask_with("POST", "/api/v1/publications", &headers, &body);
    assert_eq!(
        (answer.status, answer.code()),
        (503, "ring_full"),
        "{}",
        answer.text
    );
    let published = answer.json["error"]["published"].as_u64().unwrap();
    assert!((1..20).contains(&published), "{}", answer.text);
    let positions = answer.json["error"]["positions"].as_array().unwrap();
    assert_eq!(positions.len() as u64, published);
    assert!(
        answer.message().contains("send the others again"),
        "{}",
        answer.text
    );
    // Some were made, so a repetition must not make them again.
    let again = server.ask_with("POST", "/api/v1/publications", &headers, &body);
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (503, Some("true"))
    );
    assert_eq!(again.json, answer.json);
    let one = server.post(&key, "/api/v1/publish", &batch[0].to_string());
    assert_eq!((one.status, one.code()), (503, "ring_full"));
    drop((held, held_too));
    for (number, position) in positions.iter().enumerate() {
        let packet: Value = serde_json::from_str(&client.message()).unwrap();
        let data = packet["data"]["data"].as_str().unwrap();
        assert!(data.starts_with(&format!("{number} ")));
        assert_eq!(packet["data"]["position"], *position);
    }
    eventually("there is room again", || {
        server
            .post(&key, "/api/v1/publish", r#"{"channel":"b","data":"last"}"#)
            .status
            == 200
    });
    assert_eq!(client.publication("b"), "\"last\"");
}

#[test]
fn requests_are_counted_and_recorded_and_no_key_is_shown_anywhere() {
    let key = Key::new("shop", &["--actions", "publish", "--channels", "shop.**"]);
    let server = ApiServer::start(
        &[&key],
        "",
        &[("RINGCAST_LOG", "trace"), ("RINGCAST_ADMIN_KEY", "open sesame")],
    );
    let wrong = Key {
        key: "rc_wrong-but-secret".to_owned(),
        ..key.clone()
    };
    let publish = |key: &Key, channel: &str| {
        let body = json!({"channel": channel, "data": "payload"}).to_string();
        server.post(key, "/api/v1/publish", &body)
    };
    let answers = [
        publish(&key, "shop.a"),
        publish(&key, "news"),
        publish(&wrong, "shop.a"),
    ];
    assert_eq!([200, 403, 401], answers.clone().map(|answer| answer.status));
    let mut admin = server.process.admin_with_key("open sesame");
    let (_, metrics) = admin.get("/metrics");
    for (outcome, count) in [("ok", 1), ("forbidden", 1), ("key", 1), ("rate", 0)] {
        let sample =
            format!("ringcast_api_requests_total{{route=\"publish\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&sample), "{sample}");
    }
    let log = server.process.logged_until("reason=\"key_unknown\"").concat();
    for part in [
        "api request event=\"api_publish\" address=127.0.0.1 key=\"shop\" status=200 method=\"POST\" path=\"/api/v1/publish\" subject=\"shop.a\"",
        "api refused event=\"api_refused\" address=127.0.0.1 key=\"shop\" reason=\"channel_not_allowed\" status=403",
        "api refused event=\"api_refused\" address=127.0.0.1 reason=\"key_unknown\" status=401",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let (_, stats) = admin.get("/stats");
    let hash = key.entry.split("sha256:").nth(1).unwrap()[..64].to_owned();
    let answers = answers.map(|answer| answer.text).concat();
    for secret in [&*key.key, &key.key[3..], &wrong.key, &hash] {
        for (place, text) in [
            ("log", &log),
            ("/stats", &stats),
            ("/metrics", &metrics),
            ("answers", &answers),
        ] {
            assert!(!text.contains(secret), "{place} shows {secret}: {text}");
        }
    }
    assert!(!log.contains("payload"), "{log}");
}

#[test]
fn a_flood_of_requests_does_not_flood_the_audit_trail() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[("RINGCAST_AUDIT_LINES_PER_SECOND_MAX", "1")]);
    for _ in 0..300 {
        assert_eq!(
            server
                .post(&key, "/api/v1/publish", r#"{"channel":"a","data":1}"#)
                .status,
            200
        );
        assert_eq!(server.post(&key, "/api/v1/publish", "{}").status, 400);
    }
    let lines = server.process.logged_until("of=\"api_publish\"");
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert!(
        count("event=\"api_publish\"") < 200,
        "{}",
        count("event=\"api_publish\"")
    );
    assert!(count("event=\"api_refused\"") < 200);
}

/// A token with this user.
fn token(user: &str) -> String {
    let tokens = Tokens::from_secret(AUTH_KEY.as_bytes(), None).unwrap();
    let now = ringcast::internals::clock::Clock::begin().now().unix_ms;
    tokens
        .sign(&json!({ "sub": user }).to_string(), None, now)
        .unwrap()
}

const AUTH_KEY: &str = "a key for tests that is long enough";

fn client_of(server: &ApiServer, user: &str) -> Client {
    let mut client = server.process.client();
    let answer = client.call("#authenticate", &format!("\"{}\"", token(user)));
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
    client
}

/// All items of all pages.
fn pages(server: &ApiServer, key: &Key, path: &str, list: &str) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let answer = server.get(key, &format!("{path}{after}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        items.extend(answer.json[list].as_array().unwrap().iter().cloned());
        match answer.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return items,
        }
    }
}

#[test]
fn channels_and_connections_are_listed_by_page_and_only_those_that_the_key_names() {
    let (key, shop) = (
        Key::for_all(),
        Key::new(
            "shop",
            &["--actions", "channels,connections", "--channels", "shop.*"],
        ),
    );
    let server = ApiServer::start(&[&key, &shop], "", &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut ann: Vec<Client> = (0..3).map(|_| client_of(&server, "ann")).collect();
    let mut bob = client_of(&server, "bob");
    let mut nobody = server.process.client();
    for client in &mut ann {
        client.subscribe("shop.a");
    }
    for channel in ["shop.a", "shop.b", "news"] {
        bob.subscribe(channel);
    }
    nobody.subscribe("other");
    let channels = pages(&server, &key, "/api/v1/channels?limit=1", "channels");
    let expected: Vec<Value> = [("news", 1), ("other", 1), ("shop.a", 4), ("shop.b", 1)]
        .map(|(channel, subscribers)| json!({"channel": channel, "subscribers": subscribers}))
        .to_vec();
    assert_eq!(channels, expected);
    assert_eq!(
        pages(&server, &key, "/api/v1/channels?prefix=shop.&limit=1", "channels"),
        expected[2..]
    );
    assert_eq!(
        pages(&server, &shop, "/api/v1/channels?limit=1", "channels"),
        expected[2..]
    );

    let ids = |path: &str| {
        let mut ids: Vec<String> = pages(&server, &key, path, "connections")
            .iter()
            .map(|connection| connection["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let sorted = |clients: &[&Client]| {
        let mut ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
        ids.sort();
        ids
    };
    let of_ann: Vec<&Client> = ann.iter().collect();
    assert_eq!(ids("/api/v1/connections?user=ann&limit=1"), sorted(&of_ann));
    let of_shop: Vec<&Client> = ann.iter().chain([&bob]).collect();
    assert_eq!(
        ids("/api/v1/connections?channel=shop.a&limit=2"),
        sorted(&of_shop)
    );
    let all: Vec<&Client> = ann.iter().chain([&bob, &nobody]).collect();
    assert_eq!(ids("/api/v1/connections?limit=2"), sorted(&all));
    assert_eq!(ids("/api/v1/connections?address=127.0.0.1&limit=2"), sorted(&all));
    assert_eq!(
        ids("/api/v1/connections?address=127.0.0.2&limit=2"),
        Vec::<String>::new()
    );
    let one = server
        .get(&key, &format!("/api/v1/connections?connection={}", bob.id))
        .json;
    let one = &one["connections"][0];
    assert_eq!((&one["user"], &one["subscriptions"]), (&json!("bob"), &json!(3)));
    let local = bob.stream.local_addr().unwrap();
    assert_eq!(
        (&one["address"], &one["port"]),
        (&json!("127.0.0.1"), &json!(local.port()))
    );
    let anonymous = server
        .get(&key, &format!("/api/v1/connections?connection={}", nobody.id))
        .json;
    assert_eq!(anonymous["connections"][0].get("user"), None);

    for (path, status, code) in [
        ("/api/v1/connections?channel=shop.a", 200, ""),
        ("/api/v1/connections?channel=news", 403, "channel_not_allowed"),
        (
            "/api/v1/connections?user=ann&channel=shop.a",
            400,
            "invalid_parameter",
        ),
        ("/api/v1/connections?users=ann", 400, "invalid_parameter"),
        ("/api/v1/connections?connection=short", 400, "invalid_parameter"),
        (
            "/api/v1/connections?address=127.0.0.1:5",
            400,
            "invalid_parameter",
        ),
        ("/api/v1/connections?after=x", 400, "invalid_parameter"),
        ("/api/v1/connections?limit=0", 400, "invalid_parameter"),
        ("/api/v1/channels?limit=1001", 400, "invalid_parameter"),
        ("/api/v1/channels?limit=1&limit=2", 400, "invalid_parameter"),
    ] {
        let answer = server.get(&shop, path);
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {}",
            answer.text
        );
    }
}

#[test]
fn connections_are_closed_subscribed_and_unsubscribed_by_user_id_and_address() {
    let (key, shop) = (
        Key::for_all(),
        Key::new(
            "shop",
            &["--actions", "subscribe,unsubscribe", "--channels", "shop.*"],
        ),
    );
    let server = ApiServer::start(&[&key, &shop], "", &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut ann: Vec<Client> = (0..4).map(|_| client_of(&server, "ann")).collect();
    let mut bob = client_of(&server, "bob");
    let post = |path: &str, body: Value| server.post(&key, &format!("/api/v1/{path}"), &body.to_string());
    let answer = post("subscribe", json!({"user": "ann", "channel": "shop.a"}));
    assert_eq!(
        (answer.status, &answer.json),
        (200, &json!({"connections": 4})),
        "{}",
        answer.text
    );
    for client in &mut ann {
        let event = client.message();
        assert!(
            event.contains("$subscribed") && event.contains("shop.a"),
            "{event}"
        );
    }
    post("publish", json!({"channel": "shop.a", "data": 1}));
    for client in &mut ann {
        assert_eq!(client.publication("shop.a"), "1");
    }
    let answer = post(
        "unsubscribe",
        json!({"connection": ann[0].id, "channel": "shop.a", "message": "moved"}),
    );
    assert_eq!(answer.json, json!({"connections": 1}), "{}", answer.text);
    let kicked = ann[0].message();
    assert!(
        kicked.contains("#kickOut") && kicked.contains("moved"),
        "{kicked}"
    );
    post("publish", json!({"channel": "shop.a", "data": 2}));
    for client in &mut ann[1..] {
        assert_eq!(client.publication("shop.a"), "2");
    }
    let answer = post(
        "disconnect",
        json!({"user": "ann", "code": 4100, "reason": "moved"}),
    );
    assert_eq!(answer.json, json!({"connections": 4}), "{}", answer.text);
    for client in &mut ann {
        assert_eq!(client.close_frame(), (Some(4100), "moved".to_owned()));
    }
    bob.ping();
    assert_eq!(
        post("disconnect", json!({"address": "127.0.0.9"})).json,
        json!({"connections": 0})
    );
    assert_eq!(
        post("disconnect", json!({"address": "127.0.0.1"})).json["connections"],
        1
    );
    assert_eq!(bob.close_frame().0, Some(1000));
    server.process.logged("event=\"api_request\" address=127.0.0.1 key=\"all\" status=200 method=\"POST\" path=\"/api/v1/disconnect\" subject=\"user ann\"");

    for (key, path, body, status, code) in [
        (
            &shop,
            "subscribe",
            json!({"user": "ann", "channel": "news"}),
            403,
            "channel_not_allowed",
        ),
        (
            &shop,
            "unsubscribe",
            json!({"user": "ann", "channel": "news"}),
            403,
            "channel_not_allowed",
        ),
        (
            &shop,
            "disconnect",
            json!({"user": "ann"}),
            403,
            "action_not_allowed",
        ),
        (&key, "disconnect", json!({}), 400, "invalid_body"),
        (
            &key,
            "disconnect",
            json!({"user": "ann", "address": "::1"}),
            400,
            "invalid_body",
        ),
        (
            &key,
            "disconnect",
            json!({"user": "ann", "code": 1006}),
            400,
            "invalid_body",
        ),
        (
            &key,
            "disconnect",
            json!({"connection": "short"}),
            400,
            "invalid_body",
        ),
        (&key, "subscribe", json!({"channel": "news"}), 400, "invalid_body"),
        (&key, "subscribe", json!({"user": "ann"}), 400, "invalid_body"),
    ] {
        let answer = server.post(key, &format!("/api/v1/{path}"), &body.to_string());
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {body} {}",
            answer.text
        );
    }
}

/// Answers a call of this procedure with the rest of a packet.
#[track_caller]
fn answer(client: &mut Client, procedure: &str, rest: &str) {
    let packet: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(packet["event"], procedure);
    client.send_text(&format!("{{\"rid\":{},{rest}}}", packet["cid"]));
}

#[test]
fn clients_are_called_and_sent_events_by_keys_that_allow_it() {
    let (key, caller) = (
        Key::for_all(),
        Key::new("caller", &["--actions", "call,transmit"]),
    );
    let server = ApiServer::start(&[&key, &caller], "", &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut ann: Vec<Client> = (0..2).map(|_| client_of(&server, "ann")).collect();
    let post = |path: &str, body: Value| server.post(&caller, &format!("/api/v1/{path}"), &body.to_string());
    let call = |ann: &mut [Client], body: Value| {
        thread::scope(|scope| {
            let called = scope.spawn(|| post("call", body));
            answer(&mut ann[1], "price", r#""error":{"message": "no"}"#);
            answer(&mut ann[0], "price", r#""data":{"b": 1.50,"a":1}"#);
            called.join().unwrap()
        })
    };
    let called = call(
        &mut ann,
        json!({"user": "ann", "procedure": "price", "data": null}),
    );
    // As the client has written it.
    assert!(
        called.text.contains(r#""data":{"b": 1.50,"a":1}"#),
        "{}",
        called.text
    );
    let answers = called.json["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2, "{}", called.text);
    let refused = answers.iter().find(|one| one.get("failure").is_some()).unwrap();
    assert_eq!(
        (&refused["failure"], &refused["error"]),
        (&json!("refused"), &json!({"message": "no"}))
    );
    let first = call(
        &mut ann,
        json!({"user": "ann", "procedure": "price", "answers": "first"}),
    );
    assert_eq!(
        first.json["answers"].as_array().unwrap().len(),
        1,
        "{}",
        first.text
    );
    assert_eq!(first.json["answers"][0]["data"]["a"], 1);
    let id = ann[0].id.clone();
    let late = post(
        "call",
        json!({"connection": id, "procedure": "price", "timeout_ms": 300}),
    );
    assert_eq!(
        late.json["answers"],
        json!([{"connection": id, "failure": "no_answer"}]),
        "{}",
        late.text
    );
    assert!(ann[0].message().contains("price"));
    let nobody = post("call", json!({"user": "bob", "procedure": "price"}));
    assert_eq!(nobody.json, json!({"answers": []}));
    let sent = post(
        "transmit",
        json!({"user": "ann", "event": "notice", "data": [1, null]}),
    );
    assert_eq!(sent.json, json!({"connections": 2}), "{}", sent.text);
    let sent = post(
        "transmit",
        json!({"connection": id, "event": "null", "data": null}),
    );
    assert_eq!(sent.json, json!({"connections": 1}), "{}", sent.text);
    for client in &mut ann {
        assert_eq!(client.message(), r#"{"event":"notice","data":[1,null]}"#);
    }
    assert_eq!(ann[0].message(), r#"{"event":"null","data":null}"#);
    let (forbidden, invalid) = ((403, "action_not_allowed"), (400, "invalid_body"));
    for (path, body, refusal) in [
        ("set-claims", json!({"user": "ann", "claims": {}}), forbidden),
        ("refresh-token", json!({"user": "ann"}), forbidden),
        ("remove-token", json!({"user": "ann"}), forbidden),
        (
            "call",
            json!({"user": "ann", "procedure": "#disconnect"}),
            invalid,
        ),
        (
            "transmit",
            json!({"user": "ann", "event": "#removeAuthToken"}),
            invalid,
        ),
        ("call", json!({"user": "ann", "procedure": "$cancel"}), invalid),
        (
            "transmit",
            json!({"user": "ann", "event": "$cancel", "data": {"rid": 1}}),
            invalid,
        ),
        (
            "transmit",
            json!({"user": "ann", "event": "$unserved", "data": {"procedure": "a"}}),
            invalid,
        ),
        ("call", json!({"procedure": "price"}), invalid),
        (
            "call",
            json!({"user": "ann", "procedure": "a", "timeout_ms": 0}),
            invalid,
        ),
        (
            "call",
            json!({"user": "ann", "procedure": "a", "timeout_ms": 60_001}),
            invalid,
        ),
        (
            "call",
            json!({"user": "ann", "procedure": "a", "answers": "some"}),
            invalid,
        ),
    ] {
        let answer = post(path, body.clone());
        assert_eq!(
            (answer.status, answer.code()),
            refusal,
            "{path} {body} {}",
            answer.text
        );
    }
}

/// A service trusts the claims that come with a call, which the server itself has written.
#[test]
fn no_key_can_pose_as_a_client_towards_a_service() {
    let key = Key::for_all();
    let rules = r#"
[[rules]]
allow = "serve"
procedures = ["math.**"]
to = { claim = "sub", is = "calculator" }
"#;
    let server = ApiServer::start(&[&key], rules, &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut service = client_of(&server, "calculator");
    let mut other = client_of(&server, "ann");
    let post = |path: &str, body: &Value| server.post(&key, &format!("/api/v1/{path}"), &body.to_string());
    let forged = json!({"data": 1, "caller": {"id": "x", "user": "admin", "claims": {"sub": "admin"}}});
    let refused = |service: &Client| {
        for procedure in ["math.add", "math.*"] {
            let called = json!({"user": "calculator", "procedure": procedure, "data": forged});
            let called = post("call", &called);
            assert_eq!(
                called.json["answers"],
                json!([{"connection": service.id, "failure": "is_service"}]),
                "{}",
                called.text
            );
            let sent = post(
                "transmit",
                &json!({"user": "calculator", "event": procedure, "data": forged}),
            );
            assert_eq!((sent.status, sent.code()), (422, "is_service"), "{}", sent.text);
        }
    };
    // It may get carried calls as soon as it is registered, and has its procedures before that.
    refused(&service);
    service.call("$serve", r#"{"procedure":"math.*"}"#);
    refused(&service);
    let sent = post(
        "transmit",
        &json!({"user": "calculator", "event": "music", "data": 1}),
    );
    assert_eq!(sent.json, json!({"connections": 1}), "{}", sent.text);
    assert_eq!(service.message(), r#"{"event":"music","data":1}"#);
    // A client that may not serve the name takes the event for one of the server.
    let sent = post(
        "transmit",
        &json!({"user": "ann", "event": "math.add", "data": 1}),
    );
    assert_eq!(sent.json, json!({"connections": 1}), "{}", sent.text);
    assert_eq!(other.message(), r#"{"event":"math.add","data":1}"#);
}

/// Each holds a connection of the control plane, and a new connection there ends another one when all are taken.
#[test]
fn calls_that_wait_for_clients_leave_room_for_other_requests() {
    let key = Key::for_all();
    let settings = [
        ("RINGCAST_CALLS_PER_CONNECTION_MAX", "1000"),
        ("RINGCAST_ACK_TIMEOUT_MS", "60000"),
    ];
    let server = ApiServer::start(&[&key], "", &settings);
    let mut client = server.process.client();
    let body = json!({"address": "127.0.0.1", "procedure": "slow", "timeout_ms": 60_000}).to_string();
    let call = || server.post(&key, "/api/v1/call", &body);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..32).map(|_| scope.spawn(call)).collect();
        let packets: Vec<Value> = (0..32)
            .map(|_| serde_json::from_str(&client.message()).unwrap())
            .collect();
        let busy = call();
        assert_eq!((busy.status, busy.code()), (503, "busy"), "{}", busy.text);
        for _ in 0..64 {
            assert_eq!(server.get(&key, "/api/v1/connections").status, 200);
        }
        for packet in packets {
            client.send_text(&format!("{{\"rid\":{},\"data\":1}}", packet["cid"]));
        }
        for call in calls {
            let answer = call.join().unwrap();
            assert_eq!(answer.json["answers"][0]["data"], 1, "{}", answer.text);
        }
    });
    assert!(call_is_free(&server, &key));
}

/// Whether another call may begin.
fn call_is_free(server: &ApiServer, key: &Key) -> bool {
    let nobody = json!({"user": "nobody", "procedure": "slow"}).to_string();
    server.post(key, "/api/v1/call", &nobody).status == 200
}

#[test]
fn tokens_of_clients_are_set_refreshed_and_taken_away() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut ann = client_of(&server, "ann");
    let id = ann.id.clone();
    let post = |path: &str, body: Value| server.post(&key, &format!("/api/v1/{path}"), &body.to_string());
    let claims = |client: &mut Client| {
        let packet: Value = serde_json::from_str(&client.message()).unwrap();
        assert_eq!(packet["event"], "#setAuthToken");
        let token = packet["data"]["token"].as_str().unwrap().to_owned();
        let tokens = Tokens::from_secret(AUTH_KEY.as_bytes(), None).unwrap();
        let now = ringcast::internals::clock::Clock::begin().now().unix_ms;
        let claims = tokens.verify(&token, now).unwrap();
        serde_json::from_str::<Value>(claims.json()).unwrap()
    };
    let one = json!({"connections": 1});
    let set = json!({"connection": id, "claims": {"sub": "bob", "plan": "gold"}, "expires_in": 60});
    assert_eq!(post("set-claims", set).json, one);
    let set = claims(&mut ann);
    assert_eq!((&set["sub"], &set["plan"]), (&json!("bob"), &json!("gold")));
    assert_eq!(set["exp"].as_u64(), set["iat"].as_u64().map(|at| at + 60));
    assert_eq!(
        post("refresh-token", json!({"user": "ann"})).json,
        json!({"connections": 0})
    );
    let refreshed = post("refresh-token", json!({"user": "bob", "expires_in": 120}));
    assert_eq!(refreshed.json, one, "{}", refreshed.text);
    let refreshed = claims(&mut ann);
    assert_eq!(
        (&refreshed["sub"], &refreshed["plan"]),
        (&json!("bob"), &json!("gold"))
    );
    assert_eq!(
        refreshed["exp"].as_u64(),
        refreshed["iat"].as_u64().map(|at| at + 120)
    );
    assert_eq!(post("remove-token", json!({"user": "bob"})).json, one);
    assert_eq!(ann.message(), r##"{"event":"#removeAuthToken"}"##);
    server
        .process
        .logged("path=\"/api/v1/set-claims\" subject=\"connection");
    for (path, body, status, code) in [
        (
            "set-claims",
            json!({"user": "ann", "claims": [1]}),
            400,
            "invalid_body",
        ),
        ("set-claims", json!({"user": "ann"}), 400, "invalid_body"),
        (
            "set-claims",
            json!({"connection": id, "claims": {"exp": "soon"}}),
            422,
            "not_signed",
        ),
        (
            "refresh-token",
            json!({"user": "ann", "expires_in": 0}),
            400,
            "invalid_body",
        ),
        (
            "refresh-token",
            json!({"user": "ann", "expires_in": u64::MAX}),
            400,
            "invalid_body",
        ),
        ("remove-token", json!({}), 400, "invalid_body"),
    ] {
        let answer = post(path, body.clone());
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {body} {}",
            answer.text
        );
    }
    ann.ping();
}

#[test]
fn a_core_that_does_not_answer_is_named() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[("RINGCAST_LIVENESS_TIMEOUT_MS", "3600000")]);
    let held = Held::thread(server.process.pid(), "core 1");
    let answer = server.get(&key, "/api/v1/connections");
    assert_eq!(
        (answer.status, answer.code()),
        (503, "cores_unanswered"),
        "{}",
        answer.text
    );
    assert!(answer.message().contains("core 1"), "{}", answer.text);
    drop(held);
    eventually("it answers", || {
        server.get(&key, "/api/v1/connections").status == 200
    });
}

#[test]
fn a_client_that_the_server_has_subscribed_gets_the_last_value_by_its_own_first_subscribe() {
    let key = Key::for_all();
    let config = "[[channels]]\nnames = [\"shop.**\"]\nlast_value = true\n";
    let server = ApiServer::start(&[&key], config, &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let post = |path: &str, body: Value| server.post(&key, &format!("/api/v1/{path}"), &body.to_string());
    let mut ann = client_of(&server, "ann");
    let mut subscribe = |cid: u32, messages: usize| {
        ann.send_text(&format!(
            r##"{{"event":"#subscribe","data":{{"channel":"shop.a"}},"cid":{cid}}}"##
        ));
        let got: Vec<String> = (0..messages).map(|_| ann.message()).collect();
        ann.ping();
        got.concat()
    };
    assert_eq!(
        post("publish", json!({"channel": "shop.a", "data": 1})).status,
        200
    );
    let act =
        |what: &str| post(what, json!({"user": "ann", "channel": "shop.a"})).json["connections"].clone();
    let has = |got: &str, parts: &[&str]| parts.iter().all(|&part| got.contains(part));
    assert_eq!(act("subscribe"), 1);
    let got = subscribe(100, 3);
    assert!(
        has(&got, &["$subscribed", r#""data":1"#, r#"{"rid":100}"#]),
        "{got}"
    );
    // It has asked for the channel now: a later subscribe changes nothing.
    assert_eq!(subscribe(101, 1), r#"{"rid":101}"#);
    // A subscription of the client stays its own.
    assert_eq!(act("subscribe"), 1);
    let got = subscribe(102, 2);
    assert!(has(&got, &["$subscribed", r#"{"rid":102}"#]), "{got}");
    assert_eq!(act("unsubscribe"), 1);
    let got = subscribe(103, 3);
    assert!(has(&got, &["#kickOut", r#""data":1"#, r#"{"rid":103}"#]), "{got}");
}

/// Policies of channels.
const CHANNELS: &str =
    "[[channels]]\nnames = [\"shop.**\"]\nhistory_entries = 5\nhistory_ms = 60000\npresence = true\n";

#[test]
fn the_history_of_a_channel_is_read_as_it_was_published_and_removed() {
    let (key, reader) = (
        Key::for_all(),
        Key::new("reader", &["--actions", "history", "--channels", "shop.*"]),
    );
    let server = ApiServer::start(&[&key, &reader], CHANNELS, &[]);
    let get = |query: &str| server.get(&reader, &format!("/api/v1/history?channel=shop.a{query}"));
    let data = |answer: &Answer| -> Vec<String> {
        let publications = answer.json["publications"].as_array().unwrap().iter();
        publications
            .map(|publication| publication["data"].to_string())
            .collect()
    };
    let empty = get("").json;
    assert_eq!(empty["publications"], json!([]));
    let (epoch, first) = (
        empty["position"]["epoch"].as_str().unwrap(),
        &empty["position"]["offset"],
    );
    let mut client = server.process.client();
    client.call("#publish", r#"{"channel":"shop.a","data":{"b": 1.50}}"#);
    for number in 1..5 {
        let body = json!({"channel": "shop.a", "data": number}).to_string();
        // A caller finds its own publication in the history.
        assert_eq!(server.post(&key, "/api/v1/publish", &body).status, 200);
        assert_eq!(get("&last=1").json["publications"][0]["data"], json!(number));
    }
    let all = get("");
    assert_eq!(data(&all), [r#"{"b":1.5}"#, "1", "2", "3", "4"]);
    assert!(
        all.text.contains(r#""data":{"b": 1.50}"#),
        "as it was written: {}",
        all.text
    );
    let publications = all.json["publications"].as_array().unwrap();
    let offsets: Vec<u64> = publications
        .iter()
        .map(|one| one["offset"].as_u64().unwrap())
        .collect();
    assert!(
        offsets.is_sorted() && offsets[0] > first.as_u64().unwrap(),
        "{offsets:?}"
    );
    assert_eq!(data(&get("&last=2")), ["3", "4"]);
    assert_eq!(data(&get("&limit=3")), ["2", "3", "4"]);
    let since = get("&since=0");
    assert_eq!((data(&since).len(), &since.json["recovered"]), (5, &json!(true)));
    let newest = get("&since=0&limit=3");
    assert_eq!(data(&newest), ["2", "3", "4"]);
    assert_eq!(newest.json["reason"], "too many");
    assert_eq!(
        data(&get(&format!("&since={}", u64::MAX >> 11))),
        Vec::<String>::new()
    );
    let after = get(&format!("&epoch={epoch}&offset={}", offsets[2]));
    assert_eq!(
        (data(&after), &after.json["recovered"]),
        (vec!["3".to_owned(), "4".to_owned()], &json!(true))
    );
    assert_eq!(all.json.get("recovered"), None);
    for (query, reason) in [
        (format!("&epoch=00000000&offset={}", offsets[2]), "other epoch"),
        ("&epoch=no-epoch&offset=1".to_owned(), "other epoch"),
        (
            format!("&epoch={epoch}&offset=9007199254740991"),
            "unknown position",
        ),
        (
            format!("&epoch={epoch}&offset={}&limit=1", offsets[2]),
            "too many",
        ),
    ] {
        let answer = get(&query);
        assert_eq!(
            (&answer.json["recovered"], &answer.json["reason"]),
            (&json!(false), &json!(reason)),
            "{query}"
        );
        assert_eq!(data(&answer), Vec::<String>::new());
    }
    // The policy keeps five: the oldest goes.
    server.post(&key, "/api/v1/publish", r#"{"channel":"shop.a","data":5}"#);
    assert_eq!(data(&get("")), ["1", "2", "3", "4", "5"]);
    let evicted = get(&format!("&epoch={epoch}&offset={first}"));
    assert_eq!(
        (&evicted.json["recovered"], &evicted.json["reason"]),
        (&json!(false), &json!("evicted"))
    );

    let authorization = format!("Authorization: Bearer {}", key.key);
    let remove = |key: &str, channel: &str| {
        let path = format!("/api/v1/history?channel={channel}");
        server.ask_with("DELETE", &path, &[key], "")
    };
    let refused = remove(&format!("Authorization: Bearer {}", reader.key), "shop.a");
    assert_eq!((refused.status, refused.code()), (403, "action_not_allowed"));
    assert_eq!(remove(&authorization, "shop.a").json, json!({"removed": 5}));
    assert_eq!(remove(&authorization, "shop.a").json, json!({"removed": 0}));
    assert_eq!(data(&get("")), Vec::<String>::new());
    let removed = get(&format!("&epoch={epoch}&offset={}", offsets[2]));
    assert_eq!(
        (&removed.json["recovered"], &removed.json["reason"]),
        (&json!(false), &json!("evicted"))
    );

    for (key, path, status, code) in [
        (&reader, "channel=news", 403, "channel_not_allowed"),
        (&key, "channel=news", 404, "no_history"),
        (&key, "", 400, "invalid_parameter"),
        (&key, "channel=shop.a&last=0", 400, "invalid_parameter"),
        (&key, "channel=shop.a&last=1&since=1", 400, "invalid_parameter"),
        (&key, "channel=shop.a&epoch=k3j9x0ab", 400, "invalid_parameter"),
        (&key, "channel=shop.a&offset=1", 400, "invalid_parameter"),
        (&key, "channel=shop.a&channel=shop.b", 400, "invalid_parameter"),
    ] {
        let answer = server.get(key, &format!("/api/v1/history?{path}"));
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {}",
            answer.text
        );
    }
}

#[test]
fn a_history_that_is_too_large_for_an_answer_is_given_in_parts() {
    let key = Key::for_all();
    let lines = "[[channels]]\nnames = [\"a\"]\nhistory_entries = 100\nhistory_bytes = 100000000\n";
    let server = ApiServer::start(&[&key], lines, &[("RINGCAST_API_BODY_BYTES_MAX", "4000000")]);
    let body = json!({"channel": "a", "data": "x".repeat(900_000)}).to_string();
    for _ in 0..20 {
        assert_eq!(server.post(&key, "/api/v1/publish", &body).status, 200);
    }
    let answer = server.get(&key, "/api/v1/history?channel=a");
    assert_eq!(
        (answer.status, answer.code()),
        (413, "answer_too_large"),
        "{}",
        answer.text
    );
    let answer = server.get(&key, "/api/v1/history?channel=a&limit=5");
    assert_eq!(answer.json["publications"].as_array().unwrap().len(), 5);
}

#[test]
fn the_members_of_a_channel_are_listed_by_page_and_counted() {
    let (key, other) = (
        Key::for_all(),
        Key::new("other", &["--actions", "presence", "--channels", "news"]),
    );
    let events = Key::new(
        "events",
        &["--actions", "publish", "--channels", "$presence/shop.*"],
    );
    let keys = [&key, &other, &events];
    let server = ApiServer::start(&keys, CHANNELS, &[("RINGCAST_AUTH_KEY", AUTH_KEY)]);
    let mut clients: Vec<Client> = ["ann", "ann", "bob"].map(|user| client_of(&server, user)).into();
    clients.push(server.process.client());
    for client in &mut clients {
        client.subscribe("shop.a");
    }
    clients[2].call(
        "$presence_info",
        r#"{"channel":"shop.a","info":{"status": "away"}}"#,
    );
    let count = || {
        server
            .get(&key, "/api/v1/presence/counts?channel=shop.a&channel=shop.b")
            .json
    };
    let counts = |members| json!({"counts": [{"channel": "shop.a", "members": members}, {"channel": "shop.b", "members": 0}]});
    eventually("all are members", || count() == counts(3));
    let mut members = pages(
        &server,
        &key,
        "/api/v1/presence?channel=shop.a&limit=1",
        "members",
    );
    members.sort_by_key(|member| member["user"].to_string());
    let users: Vec<&Value> = members.iter().map(|member| &member["user"]).collect();
    assert_eq!(users, [&json!("ann"), &json!("bob"), &Value::Null]);
    assert_eq!(members[0]["connections"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&members[1]["info"], members[0].get("info")),
        (&json!({"status": "away"}), None)
    );
    assert_eq!(members[2]["connections"], json!([clients[3].id]));
    assert_eq!(
        server.get(&key, "/api/v1/presence?channel=shop.a").json["count"],
        3
    );
    for (key, path, status, code) in [
        (&key, "presence?channel=news", 404, "no_presence"),
        (&other, "presence?channel=shop.a", 403, "channel_not_allowed"),
        (
            &other,
            "presence/counts?channel=news&channel=shop.a",
            404,
            "no_presence",
        ),
        (&key, "presence", 400, "invalid_parameter"),
        (&key, "presence/counts", 400, "invalid_parameter"),
        (&key, "presence?channel=shop.a&after=x", 400, "invalid_parameter"),
    ] {
        let answer = server.get(key, &format!("/api/v1/{path}"));
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path} {}",
            answer.text
        );
    }
    // Only the server publishes there.
    let event = r#"{"channel":"$presence/shop.a","data":1}"#;
    let answer = server.post(&events, "/api/v1/publish", event);
    assert_eq!((answer.status, answer.code()), (400, "invalid_channel"));
    let (code, out) = {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args([
                "presence",
                "shop.a",
                "--url",
                &format!("http://{}", server.process.admin),
                "--key",
                &key.key,
            ])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert!(
        code == Some(0) && out.contains("bob") && out.ends_with("members: 3\n"),
        "{out}"
    );
}

#[test]
fn the_last_value_that_mqtt_clients_get_goes_with_the_history() {
    let key = Key::for_all();
    let policy = "[[channels]]\nnames = [\"a\", \"b\"]\nlast_value = true\n";
    let mqtt = ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0");
    let sys = ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "0");
    let server = ApiServer::start(&[&key], policy, &[mqtt, sys]);
    for (channel, retain) in [("a", false), ("b", true)] {
        let body = json!({"channel": channel, "data": 1, "retain": retain});
        assert_eq!(
            server.post(&key, "/api/v1/publish", &body.to_string()).status,
            200
        );
    }
    let retained = || server.process.admin().metric("ringcast_mqtt_retained");
    eventually("both are retained", || retained() == 2);
    for channel in ["a", "b"] {
        let path = format!("/api/v1/history?channel={channel}");
        let header = format!("Authorization: Bearer {}", key.key);
        assert_eq!(server.ask_with("DELETE", &path, &[&header], "").status, 200);
    }
    // The other one was retained by its publisher's wish.
    eventually("the last value is gone", || retained() == 1);
}

#[test]
fn a_publication_is_retained_for_subscribers_to_come() {
    let channels = "**,$SYS/broker/uptime,$SYS/x";
    let key = Key::new("all", &["--actions", "*", "--channels", channels, "--rate", "0"]);
    let policy = "[[channels]]\nnames = \"never\"\nmqtt_retain = false\n";
    let mqtt = ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0");
    let server = ApiServer::start(&[&key], policy, &[mqtt]);
    let publish = |path: &str, body: Value| server.post(&key, &format!("/api/v1/{path}"), &body.to_string());
    // The publication that a new subscriber gets before it is live, if it asks.
    let retained = |channel: &str| {
        let mut client = server.process.client();
        let data = json!({"channel": channel, "data": {"last": 1}});
        client.call("#subscribe", &data.to_string());
        client.begin_call("ping", "null");
        let message: Value = serde_json::from_str(&client.message()).unwrap();
        match message["data"]["replayed"].as_bool() {
            Some(true) => message["data"]["data"].clone(),
            Some(false) | None => json!("nothing"),
        }
    };
    let lamp = |data: Value| json!({"channel": "lamp", "data": data, "retain": true});
    assert_eq!(publish("publish", lamp(json!({"on": 1}))).status, 200);
    assert_eq!(retained("lamp"), json!({"on": 1}));
    assert_eq!(
        publish("publish", json!({"channel": "lamp", "data": 2})).status,
        200
    );
    assert_eq!(retained("lamp"), json!({"on": 1}), "that one was published only");
    assert_eq!(
        publish("publications", json!({"publications": [lamp(json!(null))]})).status,
        200
    );
    assert_eq!(retained("lamp"), json!(null));
    let channels = json!({"channels": ["lamp", "door"], "data": "x", "retain": true});
    assert_eq!(publish("broadcast", channels).status, 200);
    assert_eq!((retained("lamp"), retained("door")), (json!("x"), json!("x")));
    assert_eq!(
        publish("publish", json!({"channel": "lamp", "retain": true})).status,
        200
    );
    assert_eq!(retained("lamp"), json!("nothing"));
    for (body, code, says) in [
        (json!({"channel": "lamp"}), "invalid_body", "data"),
        (
            json!({"channel": "never", "data": 1, "retain": true}),
            "invalid_channel",
            "mqtt_retain",
        ),
        (
            json!({"channel": "a/#", "data": 1, "retain": true}),
            "invalid_channel",
            "MQTT topic",
        ),
        (
            json!({"channel": "$SYS/broker/uptime", "data": 1}),
            "invalid_channel",
            "$SYS",
        ),
    ] {
        let answer = publish("publish", body.clone());
        assert_eq!(
            (answer.status, answer.code()),
            (400, code),
            "{body}: {}",
            answer.text
        );
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    // Nothing of a request is published if a part of it cannot be.
    let some = json!({"channels": ["door", "never"], "data": "y", "retain": true});
    assert_eq!(publish("broadcast", some).status, 400);
    assert_eq!(retained("door"), json!("x"));
    // Without MQTT nothing is retained.
    let without = ApiServer::start(&[&key], "", &[]);
    let answer = without.post(&key, "/api/v1/publish", &lamp(json!(1)).to_string());
    assert_eq!((answer.status, answer.code()), (400, "invalid_channel"));
    let sys = json!({"channel": "$SYS/x", "data": 1}).to_string();
    assert_eq!(
        without.post(&key, "/api/v1/publish", &sys).status,
        200,
        "a channel like others"
    );
}

#[test]
fn a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut stream = std::net::TcpStream::connect(server.process.admin).unwrap();
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{JSON}\r\nContent-Length: \
         1000000000\r\nExpect: 100-continue\r\n\r\n",
        key.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 413 "), "{line}");
}

/// Everybody calls and serves, whatever the name.
const SERVE_ALL: &str = r#"
[[rules]]
allow = ["invoke", "serve", "subscribe"]
channels = ["**"]
procedures = ["**"]
[[services]]
pattern = "slow"
timeout_ms = 50
[[services]]
pattern = "*"
timeout_ms = 60000
"#;

#[test]
fn services_are_listed_with_their_user_and_open_calls() {
    for cores in ["1", "4"] {
        let (key, other) = (Key::for_all(), Key::new("other", &["--actions", "connections"]));
        let settings = [
            ("RINGCAST_AUTH_KEY", AUTH_KEY),
            ("RINGCAST_CORES", cores),
            ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt"),
        ];
        let server = ApiServer::start(&[&key, &other], SERVE_ALL, &settings);
        assert_eq!(server.get(&other, "/api/v1/services").status, 403);
        assert_eq!(server.get(&key, "/api/v1/services").json, json!({"services": []}));
        let serve = |client: &mut Client, data: &Value| {
            let answer = client.call("$serve", &data.to_string());
            assert!(answer.contains("window"), "{answer}");
        };
        let (mut ann, mut nobody) = (client_of(&server, "ann"), server.process.client());
        let meta = json!({"version": "1.4", "list": [1, null]});
        serve(
            &mut ann,
            &json!({"procedure": "a.*", "window": 1, "weight": 2, "meta": meta}),
        );
        serve(&mut nobody, &json!({"procedure": "a.*", "window": 1}));
        serve(&mut nobody, &json!({"procedure": "slow", "meta": "old"}));
        serve(&mut nobody, &json!({"procedure": "slow", "meta": "new"}));
        let mut device = Mqtt::at(server.process.address, 5, "device");
        let meta_of_device = [&[0x26][..], &string("meta"), &string("plain")].concat();
        device.send(&subscribe(5, 1, &meta_of_device, &[("$share/g/$rpc/m/#", 0)]));
        assert!(device.packet().ends_with(&[0x83]), "meta is JSON");
        let meta_of_device = [&[0x26][..], &string("meta"), &string("[7]")].concat();
        device.send(&subscribe(5, 1, &meta_of_device, &[("$share/g/$rpc/m/#", 0)]));
        assert!(device.packet().ends_with(&[0]));
        let mut caller = server.process.client();
        for _ in 0..3 {
            caller.begin_call("a.x", "1");
        }
        caller.begin_call("slow", "1");
        assert!(caller.message().contains("TimeoutError"));
        let mut services = Value::Null;
        eventually("a call waits, and a service is slow", || {
            services = server.get(&key, "/api/v1/services").json["services"].take();
            services[0]["waiting"] == 1 && services[2]["members"][0]["slow"] == true
        });
        let of = |at: usize| services[at]["members"].as_array().unwrap();
        let patterns: Vec<_> = services
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["pattern"])
            .collect();
        assert_eq!(patterns, ["a.*", "m/*", "slow"]);
        let mut first = of(0)[0].clone();
        assert!(first["core"].as_u64() < cores.parse().ok(), "{first}");
        first["core"].take();
        assert_eq!(
            first,
            json!({
                "connection": ann.id, "protocol": "socketcluster", "user": "ann", "core": null, "weight": 2, "window": 1,
                "in_flight": 1, "slow": false, "full": false, "meta": meta
            })
        );
        assert_eq!(of(0)[1]["connection"], *nobody.id);
        assert!(
            of(0)[1].get("user").is_none() && of(0)[1].get("meta").is_none(),
            "{services}"
        );
        assert_eq!(
            (&of(1)[0]["protocol"], &of(1)[0]["meta"]),
            (&json!("mqtt"), &json!([7]))
        );
        assert_eq!(of(2)[0]["meta"], "new");
        // By page: each has all services of its patterns.
        let names = |path: &str| -> Vec<Value> {
            let services = pages(&server, &key, path, "services");
            services
                .into_iter()
                .map(|mut one| one["pattern"].take())
                .collect()
        };
        for limit in 1..4 {
            assert_eq!(
                names(&format!("/api/v1/services?limit={limit}")),
                ["a.*", "m/*", "slow"]
            );
        }
        let page = server.get(&key, "/api/v1/services?limit=1").json;
        assert_eq!(
            (page["services"].as_array().unwrap().len(), &page["next"]),
            (1, &json!("a.*"))
        );
        let refused = server.process.client().call(
            "$serve",
            &json!({"procedure": "b", "meta": "m".repeat(1023)}).to_string(),
        );
        assert!(refused.contains("InvalidActionError"), "{refused}");
        drop(ann);
        eventually("it is gone", || {
            let services = server.get(&key, "/api/v1/services").json["services"].take();
            services[0]["members"].as_array().map(Vec::len) == Some(1)
        });
    }
}
