//! Permissions, over the wire: a file with rules, the real binary, and clients with tokens.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use ringcast::app::{App, Call, Peer};
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::internals::auth::Tokens;
use ringcast::internals::auth::passwords::{PasswordFile, PasswordHash};
use serde_json::json;
use support::process::Process;
use support::{Client, Received, Server, eventually};

const KEY: &str = "a key for the tests of permissions";

const RULES: &str = r#"
[[rules]]
deny = "*"
channels = ["room.closed.**", "admin"]

[[rules]]
allow = ["subscribe", "publish"]
channels = ["room.*", "user.{sub}.**", "list.{rooms}"]
to = "authenticated"

[[rules]]
allow = "subscribe"
channels = "news"

[[rules]]
allow = "invoke"
procedures = ["ping"]
to = [{ claim = "role", is = "caller" }, { claim = "roles", contains = "caller" }]
"#;

/// A file of its own, removed with the value.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> File {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ringcast-rules-{}-{}.toml",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let file = File(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    /// Replaces the file at once: a server that reads meanwhile sees the old text or the new one.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Left-over files are in the folder for temporary files.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn start(file: &File, settings: &[(&str, &str)]) -> Process {
    let mut all = vec![("RINGCAST_CONFIG", file.name()), ("RINGCAST_AUTH_KEY", KEY)];
    all.extend(settings);
    Process::start(&all)
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn token(claims: &str, expires_in: u64) -> String {
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    tokens.sign(claims, Some(expires_in), unix_ms()).unwrap()
}

/// A client whose token has these claims; without claims, a client without a token.
fn client(process: &Process, claims: &str) -> Client {
    let mut client = process.client();
    if !claims.is_empty() {
        authenticate(&mut client, claims);
    }
    client
}

fn authenticate(client: &mut Client, claims: &str) {
    let answer = client.call("#authenticate", &json!(token(claims, 3600)).to_string());
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
}

/// The answer to a packet with call id 99, or nothing if the answer to the next call comes first.
fn answer(client: &mut Client, packet: &str) -> String {
    client.send_text(packet);
    client.send_text(r##"{"event":"#unsubscribe","data":"no such","cid":1000}"##);
    let mut all = String::new();
    loop {
        let message = client.message();
        if message.contains(r#""rid":1000,"#) {
            return all;
        }
        all.push_str(&message);
    }
}

fn subscribe(channel: &str) -> String {
    json!({ "event": "#subscribe", "data": { "channel": channel }, "cid": 99 }).to_string()
}

fn publish(channel: &str) -> String {
    json!({ "event": "#publish", "data": { "channel": channel, "data": 1 }, "cid": 99 }).to_string()
}

fn blocked(kind: &str) -> String {
    format!(
        "{{\"rid\":99,\"error\":{{\"message\":\"The {kind} AGAction was blocked by inbound middleware\",\
         \"name\":\"SilentMiddlewareBlockedError\",\"type\":\"inbound\"}}}}"
    )
}

const DONE: &str = r#"{"rid":99}"#;

#[test]
fn allowed_actions_are_done_and_others_are_refused_as_by_middleware() {
    let file = File::new(RULES);
    for protocol in ["1", "2"] {
        let process = start(&file, &[("RINGCAST_PROTOCOL", protocol)]);
        let (mut anonymous, mut ann) = (
            client(&process, ""),
            client(&process, r#"{"sub":"ann","rooms":["a"]}"#),
        );
        for (channel, by_anonymous, by_ann) in [
            ("room.lobby", false, true),
            ("room.closed.x", false, false),
            ("room.closed", false, false),
            ("room", false, false),
            ("room.", false, false),
            ("room.a.b", false, false),
            ("user.ann", false, true),
            ("user.ann.mail", false, true),
            ("user.bob", false, false),
            ("user.annie", false, false),
            ("list.a", false, true),
            ("list.b", false, false),
            ("admin", false, false),
            ("", false, false),
            ("__proto__", false, false),
        ] {
            for (client, is_allowed) in [(&mut anonymous, by_anonymous), (&mut ann, by_ann)] {
                let subscribed = if is_allowed {
                    DONE.to_owned()
                } else {
                    blocked("subscribe")
                };
                assert_eq!(answer(client, &subscribe(channel)), subscribed, "{channel}");
                let published = if is_allowed {
                    DONE.to_owned()
                } else {
                    blocked("publishIn")
                };
                let found = answer(client, &publish(channel));
                // The publisher's own copy comes as well.
                assert!(found.contains(&published), "{channel}: {found}");
                assert_eq!(found == published, !is_allowed, "{channel}: {found}");
            }
        }
        assert_eq!(answer(&mut anonymous, &subscribe("news")), DONE);
        assert_eq!(answer(&mut anonymous, &publish("news")), blocked("publishIn"));
        let ping = r#"{"event":"ping","data":null,"cid":99}"#;
        assert_eq!(answer(&mut anonymous, ping), blocked("invoke"));
        assert_eq!(answer(&mut ann, ping), blocked("invoke"));
        for claims in [r#"{"role":"caller"}"#, r#"{"roles":["x","caller"]}"#] {
            let found = answer(&mut client(&process, claims), ping);
            assert!(found.starts_with(r#"{"rid":99,"data":{"count":"#), "{found}");
        }
    }
}

#[test]
fn a_token_gives_no_access_to_the_channel_of_another_user() {
    let file = File::new(RULES);
    let process = start(&file, &[]);
    for claims in [
        r#"{"sub":"bob.**"}"#,
        r#"{"sub":"*"}"#,
        r#"{"sub":"**"}"#,
        r#"{"sub":".."}"#,
        r#"{"sub":""}"#,
        r#"{"sub":"ann.mail"}"#,
        r#"{"sub":"аnn"}"#,
        r#"{"sub":"ann\u0000"}"#,
        r#"{"sub":["x","ann.mail"]}"#,
        r#"{"sub":{"sub":"ann"}}"#,
        r#"{"__proto__":{"sub":"ann"}}"#,
        r#"{"sub":null}"#,
        "{}",
    ] {
        let mut other = client(&process, claims);
        for channel in [
            "user.ann",
            "user.ann.mail",
            "user.bob",
            "user.bob.x",
            "user.",
            "user",
            "user..",
            "user.null",
        ] {
            assert_eq!(
                answer(&mut other, &subscribe(channel)),
                blocked("subscribe"),
                "{claims} {channel}"
            );
            assert_eq!(
                answer(&mut other, &publish(channel)),
                blocked("publishIn"),
                "{claims} {channel}"
            );
        }
    }
    // Escapes in names are decoded before the comparison, in packets and in tokens.
    let mut ann = client(&process, r#"{"s\u0075b":"\u0061nn"}"#);
    let escaped = r##"{"event":"\u0023subscribe","data":{"channel":"us\u0065r.\u0061nn"},"cid":99}"##;
    assert_eq!(answer(&mut ann, escaped), DONE);
    let admin = r##"{"event":"#subscribe","data":{"channel":"\u0061dmin"},"cid":99}"##;
    assert_eq!(answer(&mut ann, admin), blocked("subscribe"));
    let twice = r##"{"event":"#subscribe","data":{"channel":"room.a","channel":"admin"},"cid":99}"##;
    assert_eq!(answer(&mut ann, twice), blocked("subscribe"));
    let half = r##"{"event":"#subscribe","data":{"channel":"user.\ud800"},"cid":99}"##;
    assert_eq!(
        answer(&mut client(&process, r#"{"sub":"\ud800"}"#), half),
        blocked("subscribe")
    );
}

#[test]
fn packets_of_an_array_are_decided_one_by_one_with_the_claims_at_that_moment() {
    let file = File::new(RULES);
    let process = start(&file, &[]);
    let mut ann = client(&process, r#"{"sub":"ann"}"#);
    let found = answer(
        &mut ann,
        r##"[{"event":"#subscribe","data":{"channel":"admin"},"cid":91},{"event":"#subscribe","data":{"channel":"user.ann"},"cid":92},{"event":"#removeAuthToken"},{"event":"#publish","data":{"channel":"user.ann"},"cid":93},{"event":"#publish","data":{"channel":"user.ann"}}]"##,
    );
    let (refused, rest) = found.split_at(blocked("subscribe").len());
    assert_eq!(refused, blocked("subscribe").replace("99", "91"));
    // The subscription was allowed when it was made, and ended with the token.
    assert_eq!(
        rest,
        format!(
            "{}{}{}",
            r#"{"rid":92}"#,
            blocked("publishIn").replace("99", "93"),
            kicked_out("user.ann")
        )
    );
    assert_eq!(process.admin().metric("ringcast_subscriptions"), 0);
    // The second publish had no call id: it is refused silently and counted.
    assert_eq!(
        process
            .admin()
            .metric(r#"ringcast_rules_denied_total{action="publish"}"#),
        2
    );
    assert_eq!(
        process
            .admin()
            .metric(r#"ringcast_rules_denied_total{action="subscribe"}"#),
        1
    );
    assert_eq!(process.admin().metric("ringcast_rules_kick_outs_total"), 1);
}

fn kicked_out(channel: &str) -> String {
    format!(
        r##"{{"event":"#kickOut","data":{{"channel":"{channel}","message":"The subscription is no longer allowed"}}}}"##
    )
}

#[test]
fn subscriptions_end_with_the_claims_that_allowed_them() {
    let file = File::new(RULES);
    let process = start(&file, &[("RINGCAST_PING_INTERVAL_MS", "50")]);
    let mut ann = client(&process, r#"{"sub":"ann"}"#);
    for channel in ["user.ann.mail", "room.lobby", "news"] {
        ann.subscribe(channel);
    }
    // The same user again keeps all subscriptions.
    authenticate(&mut ann, r#"{"sub":"ann","x":1}"#);
    assert_eq!(answer(&mut ann, &publish("user.ann.x")), DONE);
    assert_eq!(process.admin().metric("ringcast_subscriptions"), 3);
    authenticate(&mut ann, r#"{"sub":"bob"}"#);
    assert_eq!(ann.message(), kicked_out("user.ann.mail"));
    ann.publish("room.lobby", "1");
    assert_eq!(ann.publication("room.lobby"), "1");
    // An invalid token removes the one before.
    let refused = ann.call("#authenticate", "\"none\"");
    assert!(refused.contains("AuthTokenInvalidError"), "{refused}");
    assert_eq!(ann.message(), r##"{"event":"#removeAuthToken"}"##);
    assert_eq!(ann.message(), kicked_out("room.lobby"));
    assert_eq!(process.admin().metric("ringcast_subscriptions"), 1);
}

#[test]
fn a_login_as_another_user_ends_the_subscriptions_of_the_first() {
    let mut users = PasswordFile::default();
    let hash = PasswordHash::pbkdf2(b"secret", [7; 12], 101).unwrap();
    users.set("bob", &hash).unwrap();
    let passwords = File::new(&users.text());
    // A login is handled by the server itself, so no rule has to allow it.
    let file = File::new("[[rules]]\nallow = \"*\"\nchannels = \"user.{sub}\"\n");
    let process = start(&file, &[("RINGCAST_PASSWORD_FILE", passwords.name())]);
    let mut client = client(&process, r#"{"sub":"ann"}"#);
    client.subscribe("user.ann");
    client.begin_call("login", r#"{"user":"bob","password":"secret"}"#);
    let mut messages = [client.message(), client.message(), client.message()];
    messages.sort();
    assert!(
        messages[0].starts_with(r##"{"event":"#kickOut""##),
        "{messages:?}"
    );
    assert!(
        messages[1].starts_with(r##"{"event":"#setAuthToken""##),
        "{messages:?}"
    );
    assert!(messages[2].starts_with(r#"{"rid":"#), "{messages:?}");
    assert_eq!(answer(&mut client, &publish("user.ann")), blocked("publishIn"));
    client.subscribe("user.bob");
}

#[test]
fn an_expired_token_is_noticed_without_a_pong() {
    let file = File::new(RULES);
    let process = start(
        &file,
        &[("RINGCAST_PING_INTERVAL_MS", "50"), ("RINGCAST_PROTOCOL", "2")],
    );
    let mut ann = process.client();
    let expiring = json!(token(r#"{"sub":"ann"}"#, 2)).to_string();
    assert!(
        ann.call("#authenticate", &expiring)
            .contains(r#""isAuthenticated":true"#)
    );
    ann.subscribe("user.ann");
    let mut texts = Vec::new();
    while texts.len() < 2 {
        // Traffic that is neither a pong nor an application's packet keeps the connection open but not the
        // token valid.
        ann.send_text("null");
        match ann.next() {
            Received::Text(text) if text.is_empty() => {}
            Received::Text(text) => texts.push(text),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        texts,
        [
            r##"{"event":"#removeAuthToken"}"##.to_owned(),
            kicked_out("user.ann")
        ]
    );
}

#[test]
fn shadow_rules_are_counted_and_not_enforced() {
    let shadow = "[[rules]]\nallow = \"*\"\nchannels = [\"a\", \"b\"]\n[[shadow_rules]]\nallow = \"*\"\n\
                  channels = [\"b\", \"c\"]\n";
    let file = File::new(shadow);
    let process = start(&file, &[]);
    let mut client = process.client();
    for (channel, is_allowed) in [("a", true), ("b", true), ("c", false), ("d", false)] {
        let expected = if is_allowed {
            DONE.to_owned()
        } else {
            blocked("publishIn")
        };
        assert_eq!(answer(&mut client, &publish(channel)), expected, "{channel}");
    }
    let mut admin = process.admin();
    for (metric, count) in [
        (r#"ringcast_rules_denied_total{action="publish"}"#, 2),
        (r#"ringcast_rules_would_deny_total{action="publish"}"#, 1),
        (r#"ringcast_rules_would_allow_total{action="publish"}"#, 1),
        (r#"ringcast_rules_denied_total{action="subscribe"}"#, 0),
    ] {
        assert_eq!(admin.metric(metric), count, "{metric}");
    }
    // Without rules, shadow rules refuse nothing.
    let file = File::new("[[shadow_rules]]\ndeny = \"*\"\n");
    let process = start(&file, &[]);
    let mut client = process.client();
    assert_eq!(answer(&mut client, &subscribe("a")), DONE);
    client.ping();
    client.send_text(r#"{"event":"note"}"#);
    client.ping();
    let mut admin = process.admin();
    for (action, count) in [("subscribe", 1), ("invoke", 2), ("transmit", 1), ("publish", 0)] {
        let metric = format!("ringcast_rules_would_deny_total{{action=\"{action}\"}}");
        assert_eq!(admin.metric(&metric), count, "{action}");
    }
    assert_eq!(admin.metric("ringcast_rules_denied_total"), 0);
}

#[test]
fn a_reload_replaces_the_rules_and_checks_all_subscriptions_again() {
    let file = File::new("");
    let process = start(&file, &[("RINGCAST_PINGS", "off")]);
    let mut clients: Vec<Client> = (0..600).map(|_| process.client()).collect();
    for client in &mut clients {
        client.subscribe("old");
        client.subscribe("both");
    }
    let reload = |text: &str| {
        file.write(text);
        process.signal(Signal::SIGHUP);
    };
    reload("[[rules]]\nallow = \"*\"\nchannels = [\"new\", \"both\"]\n");
    // All subscriptions, although the clients send nothing.
    for client in &mut clients {
        assert_eq!(client.message(), kicked_out("old"));
    }
    let mut client = clients.pop().unwrap();
    assert_eq!(answer(&mut client, &subscribe("old")), blocked("subscribe"));
    assert_eq!(answer(&mut client, &subscribe("new")), DONE);
    assert_eq!(process.admin().metric("ringcast_subscriptions"), 601);

    // A faulty file changes nothing.
    reload("[[rules]]\nallow = \"*\"\nchannels = [\"room-*\"]\n");
    reload("[[rules]]\nallow = \"*\"\nchanels = [\"old\"]\n");
    assert_eq!(answer(&mut client, &subscribe("old")), blocked("subscribe"));
    reload("");
    eventually("everything is allowed again", || {
        answer(&mut client, &subscribe("old")) == DONE
    });
}

/// An application that publishes and answers everything.
struct Free;

impl App for Free {
    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        peer.publish("told", call.event.as_str().unwrap());
    }
}

#[test]
fn rules_are_applied_before_the_application_and_not_to_the_application() {
    let server = Server::start_with(
        |config| {
            config.permissions.rules = vec![
                RuleSpec {
                    effect: Effect::Allow,
                    actions: vec![Action::Subscribe],
                    channels: Some(vec!["told".to_owned()]),
                    ..RuleSpec::default()
                },
                RuleSpec {
                    effect: Effect::Allow,
                    actions: vec![Action::Transmit],
                    procedures: Some(vec!["tell.*".to_owned()]),
                    ..RuleSpec::default()
                },
            ];
        },
        |_| Free,
    );
    let mut client = server.client();
    client.subscribe("told");
    client.send_text(r#"{"event":"whisper"}"#);
    client.send_text(r#"{"event":"tell.all"}"#);
    assert_eq!(client.publication("told"), r#""tell.all""#);
    // A rule about one-way events does not apply to calls.
    assert_eq!(
        answer(&mut client, r#"{"event":"tell.all","cid":99}"#),
        blocked("invoke")
    );
    assert_eq!(
        server.total(|core| &core.rules_denied[Action::Transmit.index()]),
        1
    );
    // Version 14 ends with an event of its own, which is not an action.
    client.send_text(r##"{"event":"#disconnect","data":{"code":1000}}"##);
    assert_eq!(client.publication("told"), r##""#disconnect""##);
    assert_eq!(
        server.total(|core| &core.rules_denied[Action::Transmit.index()]),
        1
    );
}

fn run(words: &[&str], file: &File) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .args(words)
        .env("RINGCAST_CONFIG", file.name())
        .env("RINGCAST_AUTH_KEY", KEY)
        .output()
        .unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code(), text)
}

#[test]
fn rules_test_shows_which_rule_decides_and_why() {
    let file = File::new(&format!("{RULES}\n[[shadow_rules]]\nallow = \"*\"\n"));
    let ann = token(r#"{"sub":"ann"}"#, 3600);
    let (code, text) = run(
        &["rules", "test", "--token", &ann, "publish", "user.ann.mail"],
        &file,
    );
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text,
        "publish \"user.ann.mail\" of an authenticated client\n\
         rules:\n  \
         1 (line 2): deny subscribe, publish, history, presence on room.closed.**, admin: does not match: the name matches none of room.closed.**, admin\n  \
         2 (line 6): allow subscribe, publish on room.*, user.{sub}.**, list.{rooms}: decides: the name matches user.{sub}.**\n  \
         allowed by number 2\n\
         shadow_rules:\n  \
         1 (line 20): allow subscribe, publish, invoke, transmit, history, presence: decides: the rule is about every name\n  \
         allowed by number 1\n\
         allowed\n"
    );
    let (code, text) = run(&["rules", "test", "publish", "user.ann.mail"], &file);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "of a client without a token\n",
        "does not match: the rule is only about authenticated\n",
        "not about publish\n",
        "\ndenied\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let claims = r#"{"sub":"ann.mail"}"#;
    let (code, text) = run(
        &["rules", "test", "--claims", claims, "subscribe", "user.ann.mail"],
        &file,
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("user.{sub}.** (sub: no value of this claim is one segment)"),
        "{text}"
    );
    let expired = Tokens::from_secret(KEY.as_bytes(), None)
        .unwrap()
        .sign("{}", Some(1), 0)
        .unwrap();
    for (words, expected, part) in [
        (
            &["rules", "test", "--token", &expired, "publish", "a"][..],
            65,
            "AuthTokenExpiredError",
        ),
        (
            &["rules", "test", "--token", "x", "publish", "a"],
            65,
            "the token is not accepted: ",
        ),
        (
            &["rules", "test", "--token", "x", "--claims", "{}", "publish", "a"],
            64,
            "--token and --claims",
        ),
        (
            &["rules", "test", "--claims", "[]", "publish", "a"],
            64,
            "not a JSON object",
        ),
        (
            &["rules", "test", "pubish", "a"],
            64,
            "actions are subscribe, publish, invoke, transmit, history, presence",
        ),
        (
            &["rules", "test", "publish"],
            64,
            "expected rules list, or rules test",
        ),
        (
            &["rules", "list"],
            0,
            "  4 (line 15): allow invoke, transmit on ping to claim role is \"caller\", claim roles contains \"caller\"\n  else deny\n",
        ),
        (&["check"], 0, "rules: 4\nshadow_rules: 1\nchannels: 0\n"),
    ] {
        let (code, text) = run(words, &file);
        assert_eq!(code, Some(expected), "{text}");
        assert!(text.contains(part), "{text}");
    }
    let faulty = File::new("\n[[rules]]\nallow = \"*\"\nchannels = [\"room-*\"]\n");
    for words in [&["check"][..], &["rules", "list"], &["serve"]] {
        let (code, text) = run(words, &faulty);
        assert_eq!(code, Some(78), "{text}");
        assert!(
            text.contains("line 2: rules number 1: channels: \"room-*\""),
            "{text}"
        );
    }
}

#[test]
fn the_command_judges_a_prefix_of_a_service_as_the_server_does() {
    let file = File::new(
        r#"
[[rules]]
deny = "serve"
procedures = ["math.secret"]
to = { claim = "sub", is = "guest" }
[[rules]]
allow = "serve"
procedures = ["math.*", "music.**"]
"#,
    );
    for (claims, pattern, code, part) in [
        ("{}", "math.add", 0, "decides: the name matches math.*"),
        (
            "{}",
            "math.*",
            1,
            "none of math.*, music.** covers all names that begin like this",
        ),
        (
            "{}",
            "music.*",
            0,
            "decides: music.** covers all names that begin like this",
        ),
        ("{}", "music.a*", 0, "allowed by number 2"),
        ("{}", "*", 1, "denied: no rule matches"),
        (
            r#"{"sub":"guest"}"#,
            "math.s*",
            1,
            "decides: names that begin like this may match math.secret",
        ),
        (
            r#"{"sub":"guest"}"#,
            "music.*",
            0,
            "no name that begins like this matches math.secret",
        ),
        ("{}", "a*b", 1, "no client serves this name"),
        ("{}", "$answer", 1, "no client serves this name"),
    ] {
        let (found, text) = run(&["rules", "test", "--claims", claims, "serve", pattern], &file);
        assert_eq!(found, Some(code), "{pattern}: {text}");
        assert!(text.contains(part), "{pattern}: {text}");
    }
    let (code, text) = run(&["rules", "test", "serve", "a"], &File::new(""));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no client can serve anything"), "{text}");
}
