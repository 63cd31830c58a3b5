//! The commands of the command line that ask a running server by its HTTP API.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use support::api::{ApiServer, Key};
use support::eventually;
use support::folder::Folder;
use support::secure::Authority;

/// The exit code, standard output and standard error of a command.
fn run_with(environment: &[(&str, &str)], words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .args(words)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Runs a command that asks this server, with the key in the environment.
fn run(server: &ApiServer, key: &Key, words: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", server.process.admin);
    run_with(
        &[("RINGCAST_API_URL", &url), ("RINGCAST_API_KEY", &key.key)],
        words,
        "",
    )
}

#[test]
fn publish_retains_and_takes_away() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[("RINGCAST_MQTT_LISTEN", "127.0.0.1:0")]);
    let next = || {
        let mut client = server.process.client();
        client.call("#subscribe", r#"{"channel":"lamp","data":{"last":1}}"#);
        client.begin_call("ping", "null");
        client.message()
    };
    for words in [
        &["publish", "--retain", "lamp", "{\"on\":1}"][..],
        &["publish", "lamp", "2"],
    ] {
        let (code, out, _) = run(&server, &key, words);
        assert_eq!((code, out.as_str()), (0, "published: 1\n"), "{words:?}");
        assert!(next().contains(r#""replayed":true,"data":{"on":1}"#), "{words:?}");
    }
    assert_eq!(run(&server, &key, &["publish", "--retain", "lamp"]).0, 0);
    assert!(
        next().contains("count"),
        "nothing comes before the answer to ping"
    );
    let (code, _, error) = run(&server, &key, &["publish", "lamp"]);
    assert_eq!(code, 64);
    assert!(error.contains("DATA is missing"), "{error}");
}

#[test]
fn publish_sends_data_as_it_is_written() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut client = server.process.client();
    client.subscribe("a b/ü");
    let publish = |words: &[&str]| {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!(
            (code, out.as_str(), error.as_str()),
            (0, "published: 1\n", ""),
            "{words:?}"
        );
    };
    publish(&["publish", "a b/ü", r#"{"b": 1.50,"a":[null]}"#]);
    publish(&["publish", "--text", "a b/ü", "say \"hi\""]);
    publish(&["publish", "--text", "a b/ü", "--", "--json"]);
    publish(&["publish", "--idempotency-key", "one", "a b/ü", "1"]);
    publish(&["publish", "--idempotency-key", "one", "a b/ü", "1"]);
    let url = format!("http://{}/", server.process.admin);
    let file = server.folder.write("key", &format!("{}\n", key.key));
    let by_flags = [
        "publish",
        "--json",
        "--url",
        &url,
        "--key-file",
        file.to_str().unwrap(),
        "a b/ü",
        "-",
    ];
    let (code, out, error) = run_with(
        &[("RINGCAST_API_KEY", "wrong")],
        &by_flags,
        "\"from\\u0020input\"\n",
    );
    assert_eq!(
        (code, out.as_str(), error.as_str()),
        (0, "{\"published\":1}\n", "")
    );
    let by_file = [
        ("RINGCAST_API_KEY_FILE", file.to_str().unwrap()),
        ("RINGCAST_API_URL", &url),
    ];
    assert_eq!(run_with(&by_file, &["publish", "a b/ü", "2"], "").0, 0);
    let by_key = ["publish", "--key", &key.key, "--url", &url, "a b/ü", "3"];
    assert_eq!(run_with(&[], &by_key, "").0, 0);
    for expected in [
        r#"{"b": 1.50,"a":[null]}"#,
        r#""say \"hi\"""#,
        "\"--json\"",
        "1",
        "\"from\\u0020input\"",
        "2",
        "3",
    ] {
        assert_eq!(client.publication("a b/ü"), expected);
    }
}

#[test]
fn errors_have_exit_codes_and_say_what_to_do() {
    let key = Key::new(
        "shop",
        &[
            "--actions",
            "publish",
            "--channels",
            "shop.**",
            "--rate",
            "1",
            "--burst",
            "5",
        ],
    );
    let server = ApiServer::start(&[&key], "", &[]);
    let wrong = Key {
        key: "rc_wrong".to_owned(),
        ..key.clone()
    };
    for (key, words, code, part) in [
        (
            &key,
            &["publish", "news", "1"][..],
            77,
            "ringcast: channel_not_allowed: the key shop does not allow",
        ),
        (
            &wrong,
            &["publish", "news", "1"],
            77,
            "ringcast: key_unknown: the key is not one of [[api_keys]]",
        ),
        (
            &key,
            &["publish", "shop.a", "hello"],
            64,
            "a text needs quotes of its own",
        ),
        (
            &key,
            &["publish", "shop.a"],
            64,
            "DATA is missing; expected publish",
        ),
        (&key, &["publish", "shop.a", "1", "2"], 64, "unexpected \"2\""),
        (
            &key,
            &["publish", "--to", "shop.a", "1"],
            64,
            "--to is not known; it takes publish [--text]",
        ),
        (
            &key,
            &["publish", "--url", "localhost:9464", "shop.a", "1"],
            64,
            "not the URL of a server",
        ),
        (
            &key,
            &["publish", "--url", "http://localhost/path", "a", "1"],
            64,
            "not the URL of a server",
        ),
        (
            &key,
            &["publish", "--key-file", "/nowhere", "a", "1"],
            64,
            "/nowhere: cannot be read",
        ),
    ] {
        let (found, out, error) = run(&server, key, words);
        assert_eq!((found, out.as_str()), (code, ""), "{words:?} {error}");
        assert!(
            error.contains(part) && error.lines().count() == 1,
            "{words:?} {error}"
        );
        assert!(!error.contains(&key.key), "{error}");
    }
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(run(&server, &key, &["publish", "shop.a", &deep]).0, 65);
    let mut last = (0, String::new(), String::new());
    for _ in 0..20 {
        last = run(&server, &key, &["publish", "shop.a", "1"]);
        if last.0 != 0 {
            break;
        }
    }
    assert_eq!(last.0, 75, "{last:?}");
    assert!(
        last.2.contains("rate_exceeded") && last.2.contains("(try again after 1 s)"),
        "{last:?}"
    );
    let (code, _, error) = run_with(&[], &["publish", "a", "1"], "");
    assert_eq!(code, 64);
    assert!(error.contains("no API key: set RINGCAST_API_KEY"), "{error}");
}

#[test]
fn a_server_that_is_not_there_or_is_another_is_named() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let (code, _, error) = run_with(
        &[("RINGCAST_API_KEY", "k")],
        &["publish", "--url", &url, "a", "1"],
        "",
    );
    assert_eq!(code, 69);
    assert!(
        error.contains(&url) && error.contains("is the server running"),
        "{error}"
    );
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let clients = format!("http://{}", server.process.address);
    let (code, _, error) = run(&server, &key, &["publish", "--url", &clients, "a", "1"]);
    assert_eq!(code, 69);
    assert!(error.contains("not one of the HTTP API"), "{error}");
}

#[test]
fn variables_of_these_commands_do_not_stop_a_server() {
    let (code, out, error) = run_with(
        &[
            ("RINGCAST_API_URL", "x"),
            ("RINGCAST_API_KEY", "y"),
            ("RINGCAST_API_KEY_FILE", "z"),
        ],
        &["check"],
        "",
    );
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("api_keys: 0") && !out.contains("RINGCAST_API"),
        "{out}"
    );
    let (_, help, _) = run_with(&[], &["publish", "--help"], "");
    assert!(help.contains("ringcast publish [--text]"), "{help}");
}

#[test]
fn channels_and_connections_are_tables_and_disconnect_closes() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut clients: Vec<_> = (0..3).map(|_| server.process.client()).collect();
    for client in &mut clients {
        client.subscribe("a&b=c ü");
    }
    clients[0].subscribe("news");
    let out = |words: &[&str]| {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
        out
    };
    let table = "SUBSCRIBERS  CHANNEL\n3            \"a&b=c ü\"\n1            news\n";
    assert_eq!(out(&["channels"]), table);
    assert_eq!(out(&["channels", "a&b"]).lines().count(), 2);
    let page = out(&["channels", "--limit", "1"]);
    assert!(page.ends_with("more: --after \"a&b=c ü\"\n"), "{page}");
    assert!(out(&["channels", "--after", "a&b=c ü"]).ends_with("\n1            news\n"));
    let list = out(&["connections", "--channel", "news"]);
    let line = list.lines().nth(1).unwrap();
    assert!(
        line.starts_with(&clients[0].id) && line.contains("  127.0.0.1  "),
        "{list}"
    );
    assert_eq!(out(&["connections"]).lines().count(), 4);
    assert!(out(&["connections", "--user", "ann", "--json"]).starts_with("{\"connections\":[]}"));
    let closed = out(&[
        "disconnect",
        "--connection",
        &clients[0].id,
        "--code",
        "4100",
        "--reason",
        "moved",
    ]);
    assert_eq!(closed, "connections closed: 1\n");
    assert_eq!(clients[0].close_frame(), (Some(4100), "moved".to_owned()));
    let (code, _, error) = run(&server, &key, &["disconnect"]);
    assert_eq!(code, 65, "{error}");
    assert!(
        error.contains("name the connections by user, connection or address"),
        "{error}"
    );
    for words in [
        &["disconnect", "--code", "x"][..],
        &["connections", "a"],
        &["channels", "a", "b"],
    ] {
        assert_eq!(run(&server, &key, words).0, 64, "{words:?}");
    }
}

#[test]
fn history_shows_each_publication_on_a_line() {
    let key = Key::for_all();
    let lines = "[[channels]]\nnames = [\"a b\"]\nhistory_entries = 5\n";
    let server = ApiServer::start(&[&key], lines, &[]);
    let mut published = String::new();
    for data in ["1", r#"{"text":"x y"}"#] {
        let (code, out, error) = run(&server, &key, &["publish", "a b", data]);
        assert_eq!((code, error.as_str()), (0, ""));
        published = out;
    }
    let (code, out, error) = run(&server, &key, &["history", "a b"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].ends_with(" 1") && lines[1].ends_with(r#" {"text":"x y"}"#),
        "{out}"
    );
    assert_eq!(
        published,
        format!("published: 1\n{}\n", lines[2]),
        "the newest one's position"
    );
    let (_, position) = lines[2].split_once("position: ").unwrap();
    let mut words = vec!["history", "a b"];
    words.extend(position.split(' '));
    let (code, out, _) = run(&server, &key, &words);
    assert_eq!(
        (code, out.lines().count()),
        (0, 1),
        "nothing has been published since then: {out}"
    );
    let (code, out, _) = run(
        &server,
        &key,
        &["history", "a b", "--epoch", "00000000", "--offset", "1"],
    );
    assert!(
        code == 0 && out.starts_with("not complete: other epoch\n"),
        "{out}"
    );
    let (code, _, error) = run(&server, &key, &["history", "news"]);
    assert!(code == 65 && error.contains("no_history"), "{error}");
}

#[test]
fn presence_shows_each_member_of_a_channel_on_a_line_page_by_page() {
    let key = Key::for_all();
    let lines = "[[channels]]\nnames = [\"a b\"]\npresence = true\n";
    let server = ApiServer::start(&[&key], lines, &[]);
    let out = |words: &[&str]| {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
        out
    };
    let heads = "USER  SINCE_UNIX_MS  CONNECTIONS  INFO\n";
    assert_eq!(out(&["presence", "a b"]), format!("{heads}members: 0\n"));
    let mut clients: Vec<_> = (0..3).map(|_| server.process.client()).collect();
    for client in &mut clients {
        client.subscribe("a b");
    }
    let info = r#"{"channel":"a b","info":{"name":"x y"}}"#;
    let answer = clients[0].call("$presence_info", info);
    assert!(!answer.contains("error"), "{answer}");
    let mut page = String::new();
    eventually("all are members, and one has an info", || {
        page = out(&["presence", "a b"]);
        page.ends_with("members: 3\n") && page.contains("x y")
    });
    let rows: Vec<&str> = page.lines().collect();
    assert_eq!(rows.len(), 5, "{page}");
    for client in &clients {
        let rows: Vec<&&str> = rows.iter().filter(|row| row.contains(&client.id)).collect();
        let is_first = client.id == clients[0].id;
        let [row] = &rows[..] else {
            panic!("{} has one row: {page}", client.id);
        };
        // It has no user.
        assert!(row.starts_with("-  "), "{row}");
        assert!(
            row.ends_with(if is_first { r#"{"name":"x y"}"# } else { "  -" }),
            "{row}"
        );
    }
    // Page by page.
    let mut words = vec!["presence".to_owned(), "--limit".to_owned(), "2".to_owned()];
    let mut seen = Vec::new();
    loop {
        let mut all: Vec<&str> = words.iter().map(String::as_str).collect();
        all.push("a b");
        let page = out(&all);
        let ids = clients.iter().map(|client| client.id.clone());
        seen.extend(ids.filter(|id| page.contains(id)));
        let Some((_, next)) = page.split_once("more: --after ") else {
            break;
        };
        words.truncate(3);
        words.extend(["--after".to_owned(), next.trim_end().to_owned()]);
    }
    seen.sort_unstable();
    let mut ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    ids.sort_unstable();
    assert_eq!(seen, ids);
    assert!(out(&["presence", "--json", "a b"]).contains(r#""count":3"#));
    for (words, exit, part) in [
        (&["presence", "news"][..], 65, "no_presence"),
        (&["presence"], 64, "CHANNEL is missing; expected presence"),
        (&["presence", "--last", "1", "a b"], 64, "--last is not known"),
        (&["presence", "--after", "x", "a b"], 65, "invalid_parameter"),
    ] {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!((code, out.as_str()), (exit, ""), "{words:?} {error}");
        assert!(error.contains(part), "{words:?} {error}");
    }
}

#[test]
fn subscriptions_of_others_begin_and_end() {
    let key = Key::for_all();
    let server = ApiServer::start(&[&key], "", &[]);
    let mut client = server.process.client();
    let id = client.id.clone();
    let (code, out, error) = run(&server, &key, &["subscribe", "--connection", &id, "a&b ü"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "connections subscribed: 1\n"),
        "{error}"
    );
    assert!(client.message().contains("$subscribed"));
    assert_eq!(run(&server, &key, &["publish", "a&b ü", "1"]).0, 0);
    assert_eq!(client.publication("a&b ü"), "1");
    let words = [
        "unsubscribe",
        "--connection",
        &id,
        "--message",
        "moved \"on\"",
        "a&b ü",
    ];
    let (code, out, error) = run(&server, &key, &words);
    assert_eq!(
        (code, out.as_str()),
        (0, "connections unsubscribed: 1\n"),
        "{error}"
    );
    let told = client.message();
    assert!(
        told.contains("#kickOut") && told.contains("moved \\\"on\\\""),
        "{told}"
    );
    let (code, out, error) = run(&server, &key, &["channels"]);
    assert_eq!((code, out.as_str()), (0, "SUBSCRIBERS  CHANNEL\n"), "{error}");
    let (_, out, _) = run(
        &server,
        &key,
        &["unsubscribe", "--connection", &id, "--json", "a&b ü"],
    );
    assert!(out.starts_with(r#"{"connections":"#), "{out}");
    for (words, exit, part) in [
        (
            &["unsubscribe", "a"][..],
            65,
            "name the connections by user, connection or address",
        ),
        (
            &["unsubscribe", "--user", "ann"],
            64,
            "CHANNEL is missing; expected unsubscribe",
        ),
        (
            &["subscribe", "--user", "ann", "--message", "x", "a"],
            64,
            "--message is not known",
        ),
    ] {
        let (code, _, error) = run(&server, &key, words);
        assert!(code == exit && error.contains(part), "{words:?} {code} {error}");
    }
}

#[test]
fn clients_are_called_and_sent_events_and_their_tokens_change() {
    let key = Key::for_all();
    let settings = [("RINGCAST_AUTH_KEY", "a key for tests that is long enough")];
    let server = ApiServer::start(&[&key], "", &settings);
    let mut client = server.process.client();
    let id = client.id.clone();
    let call = |client: &mut support::Client, words: &[&str], rest: &str| {
        let words: Vec<&str> = ["call", "--connection", &id]
            .iter()
            .chain(words)
            .copied()
            .collect();
        thread::scope(|scope| {
            let called = scope.spawn(|| run(&server, &key, &words));
            let message = client.message();
            let (_, cid) = message.split_once("\"cid\":").unwrap();
            let cid: String = cid.chars().take_while(char::is_ascii_digit).collect();
            client.send_text(&format!("{{\"rid\":{cid},{rest}}}"));
            (message, called.join().unwrap())
        })
    };
    let words = ["price", r#"{"b": 1,"a":2}"#];
    let (message, (code, out, error)) = call(&mut client, &words, "\"data\":[7]");
    assert!(
        message.contains(r#""event":"price""#) && message.contains(r#""data":{"b": 1,"a":2}"#),
        "{message}"
    );
    let expected = format!("{id} [7]\nconnections called: 1\n");
    assert_eq!((code, out), (0, expected), "{error}");
    let words = ["--first", "--timeout-ms", "20000", "--text", "price", "a'b"];
    let refused = "\"error\":{\"message\":\"no\"}";
    let (message, (code, out, error)) = call(&mut client, &words, refused);
    assert!(message.contains("\"data\":\"a'b\""), "{message}");
    let expected = format!("{id} refused: {{\"message\":\"no\"}}\nconnections called: 1\n");
    assert_eq!((code, out), (0, expected), "{error}");
    for (words, expected, told) in [
        (
            &["transmit", "--connection", &id, "notice"][..],
            "connections sent to: 1\n",
            "{\"event\":\"notice\"}",
        ),
        (
            &[
                "set-claims",
                "--connection",
                &id,
                "--expires-in",
                "60",
                "{\"sub\":\"ann\"}",
            ],
            "tokens given: 1\n",
            "#setAuthToken",
        ),
        (
            &["refresh-token", "--user", "ann", "--expires-in", "60"],
            "tokens given: 1\n",
            "#setAuthToken",
        ),
        (
            &["remove-token", "--user", "ann"],
            "tokens taken away: 1\n",
            "#removeAuthToken",
        ),
    ] {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!((code, &*out), (0, expected), "{words:?} {error}");
        let message = client.message();
        assert!(message.contains(told), "{message}");
    }
    for (words, exit, part) in [
        (
            &["call", "price"][..],
            65,
            "name the connections by user, connection or address",
        ),
        (
            &["call", "--user", "ann"],
            64,
            "PROCEDURE is missing; expected call",
        ),
        (&["call", "--user", "ann", "price", "x"], 64, "DATA is not JSON"),
        (&["set-claims", "--user", "ann", "x"], 64, "CLAIMS is not JSON"),
        (
            &["set-claims", "--user", "ann", "[]"],
            65,
            "expected a JSON object",
        ),
        (
            &["refresh-token", "--user", "ann", "--expires-in", "soon"],
            64,
            "expected a whole number",
        ),
        (&["transmit", "--user", "ann", "#x"], 65, "begins with #"),
    ] {
        let (code, _, error) = run(&server, &key, words);
        assert!(code == exit && error.contains(part), "{words:?} {code} {error}");
    }
}

#[test]
fn a_removed_history_is_gone_and_removed_once_by_an_idempotency_key() {
    let key = Key::for_all();
    let lines = "[[channels]]\nnames = [\"a b\"]\nhistory_entries = 5\n";
    let server = ApiServer::start(&[&key], lines, &[]);
    let out = |words: &[&str]| {
        let (code, out, error) = run(&server, &key, words);
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
        out
    };
    let remove = ["remove-history", "--idempotency-key", "one", "a b"];
    for data in ["1", "2"] {
        out(&["publish", "a b", data]);
    }
    assert_eq!(out(&remove), "publications removed: 2\n");
    assert_eq!(
        out(&["history", "a b"]).lines().count(),
        1,
        "only the position is left"
    );
    out(&["publish", "a b", "3"]);
    assert_eq!(
        out(&remove),
        "publications removed: 2\n",
        "the first answer again"
    );
    assert_eq!(out(&["history", "a b"]).lines().count(), 2);
    assert_eq!(out(&["remove-history", "--json", "a b"]), "{\"removed\":1}\n");
    assert_eq!(out(&["remove-history", "news"]), "publications removed: 0\n");
}

#[test]
fn a_control_plane_under_tls_is_asked_if_its_authority_is_trusted() {
    let key = Key::for_all();
    let (authority, other) = (Authority::new("trusted"), Authority::new("other"));
    let pair = authority.server(&["127.0.0.1"]);
    let files = Folder::new();
    let certificate = files.write("cert.pem", &pair.certificate);
    let private_key = files.write("key.pem", &pair.key);
    let (trusted, untrusted) = (
        files.write("trusted.pem", &authority.pem()),
        files.write("other.pem", &other.pem()),
    );
    let server = ApiServer::start(
        &[&key],
        "",
        &[
            ("RINGCAST_ADMIN_TLS", "on"),
            ("RINGCAST_TLS_CERTIFICATE_FILES", certificate.to_str().unwrap()),
            ("RINGCAST_TLS_KEY_FILES", private_key.to_str().unwrap()),
        ],
    );
    let url = format!("https://{}", server.process.admin);
    let publish = |authorities: &std::path::Path| {
        let environment = [
            ("RINGCAST_API_URL", url.as_str()),
            ("RINGCAST_API_KEY", &key.key),
            ("SSL_CERT_FILE", authorities.to_str().unwrap()),
        ];
        run_with(&environment, &["publish", "a", "1"], "")
    };
    let (code, out, error) = publish(&trusted);
    assert_eq!((code, out.as_str(), error.as_str()), (0, "published: 1\n", ""));
    let (code, _, error) = publish(&untrusted);
    assert_eq!(code, 69);
    assert!(
        error.contains("certificate") && !error.contains(&key.key),
        "{error}"
    );
}

#[test]
fn services_are_shown_as_a_table() {
    let key = Key::for_all();
    let rules = "[[rules]]\nallow = [\"invoke\", \"serve\"]\nprocedures = [\"**\"]\n";
    let server = ApiServer::start(&[&key], rules, &[]);
    let (code, out, _) = run(&server, &key, &["services"]);
    assert_eq!((code, out.lines().count()), (0, 1), "{out}");
    let mut service = server.process.client();
    service.call(
        "$serve",
        r#"{"procedure":"math.*","window":8,"meta":{"host":"a"}}"#,
    );
    service.call("$serve", r#"{"procedure":"music"}"#);
    let (code, out, _) = run(&server, &key, &["services", "--limit", "1"]);
    assert_eq!(code, 0, "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let heads = "PATTERN WAITING CONNECTION USER PROTOCOL CORE WEIGHT WINDOW IN_FLIGHT STATE META";
    assert_eq!(words(lines[0]).join(" "), heads);
    let row = words(lines[1]);
    assert_eq!(row[..4], ["math.*", "0", service.id.as_str(), "-"]);
    assert_eq!(row[6..], ["1", "8", "0", "ready", r#"{"host":"a"}"#]);
    assert_eq!(lines[2..], ["more: --after math.*"]);
    let (_, out, _) = run(&server, &key, &["services", "--after", "math.*"]);
    assert!(
        out.lines().nth(1).is_some_and(|line| line.starts_with("music")),
        "{out}"
    );
    let (_, json, _) = run(&server, &key, &["services", "--json"]);
    assert!(json.starts_with(r#"{"services":[{"#), "{json}");
}
