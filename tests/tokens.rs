//! Changing keys, fetched keys, demands, and revocation: with the binary, real files, a real HTTP server for
//! keys, and clients over TCP.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use nix::sys::signal::Signal;
use ringcast::internals::auth::{KeySet, SetOrigin, Tokens};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use support::folder::Folder;
use support::mqtt::{Mqtt, connect_with, string};
use support::process::Process;
use support::secure::{Authority, Files, Pair};
use support::{Client, Received, eventually};

/// The keys of `tests/data/jwt/jwks.json`, which jose made.
fn jwk(algorithm: &str, member: &str) -> Value {
    let vectors: Value = serde_json::from_str(include_str!("data/jwt/jwks.json")).unwrap();
    let pairs = vectors["pairs"].as_array().unwrap();
    pairs.iter().find(|pair| pair["alg"] == algorithm).unwrap()[member].clone()
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Tokens that sign with the private key of that algorithm.
fn signer(algorithm: &str) -> Tokens {
    let set = KeySet::parse(&set(&[jwk(algorithm, "private_jwk")]), SetOrigin::Own).unwrap();
    Tokens::default().with_set(set, None).unwrap()
}

fn sign(tokens: &Tokens, claims: &str) -> String {
    tokens.sign(claims, None, now_ms()).unwrap()
}

fn now_ms() -> u64 {
    ringcast::internals::clock::Clock::begin().now().unix_ms
}

/// The answer to `#authenticate`.
fn authenticate(client: &mut Client, token: &str) -> Value {
    let answer = client.call("#authenticate", &format!("\"{token}\""));
    serde_json::from_str(&answer).unwrap()
}

fn is_accepted(process: &Process, token: &str) -> bool {
    authenticate(&mut process.client(), token)["data"]["isAuthenticated"] == true
}

/// The name and the message of the error that a token gets, and whether the client must drop it.
#[track_caller]
fn refusal(client: &mut Client, token: &str) -> (String, String, bool) {
    let answer = authenticate(client, token);
    let error = match &answer["error"] {
        Value::Null => &answer["data"]["authError"],
        error => error,
    };
    assert!(error.is_object(), "the token was accepted: {answer}");
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (text("name"), text("message"), error["isBadToken"] == true)
}

/// A request to the control plane; returns the status and the body.
fn request(admin: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = std::net::TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    (head[9..12].parse().unwrap(), body)
}

const JSON: &str = "Content-Type: application/json\r\n";

fn revoke(process: &Process, what: &str) -> (u16, Value) {
    request(process.admin, "POST", "/revoke", JSON, what)
}

const KEY: &str = "a key for the tests of tokens, long";

// --- keys in files

#[test]
fn a_changed_key_file_is_read_at_sighup_and_a_bad_one_changes_nothing() {
    let folder = Folder::new();
    let file = folder.write("keys.json", &set(&[jwk("ES256", "public_jwk")]));
    let file = file.to_str().unwrap().to_owned();
    let process = Process::start(&[("RINGCAST_JWKS_FILE", &file)]);
    let old = sign(&signer("ES256"), r#"{"sub":"ann"}"#);
    let new = sign(&signer("RS256"), r#"{"sub":"bob"}"#);
    let mut connected = process.client();
    assert_eq!(
        authenticate(&mut connected, &old)["data"]["isAuthenticated"],
        true
    );
    assert_eq!(
        refusal(&mut process.client(), &new),
        ("AuthTokenInvalidError".into(), "invalid signature".into(), true)
    );

    // Each of these is wrong in another way, and with each the old key stays.
    for bad in [
        "",
        "{\"keys\":[]}",
        "<html>",
        &set(&[
            json!({"kty": "oct", "k": ""}),
            json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
        ]),
    ] {
        folder.write("keys.json", bad);
        process.signal(Signal::SIGHUP);
        process.logged("SIGHUP: nothing is reloaded");
        assert!(
            is_accepted(&process, &old) && !is_accepted(&process, &new),
            "{bad}"
        );
    }

    folder.write("keys.json", &set(&[jwk("RS256", "public_jwk")]));
    process.signal(Signal::SIGHUP);
    eventually("the new key is known", || is_accepted(&process, &new));
    eventually("the old key is forgotten", || !is_accepted(&process, &old));
    // A client that was authenticated with the old key stays connected.
    connected.ping();
}

#[test]
fn tokens_name_the_key_issuer_and_audience_and_others_are_refused() {
    let settings = [
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_AUTH_KEY_ID", "2026-11"),
        ("RINGCAST_AUTH_ISSUER", "https://id.example/,https://old.example/"),
        ("RINGCAST_AUTH_AUDIENCE", "chat"),
        ("RINGCAST_AUTH_LEEWAY_SECONDS", "60"),
    ];
    let token = |more: &[&str], settings: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        let output = command
            .arg("token")
            .args(more)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let process = Process::start(&settings);
    let good = token(&["--claims", r#"{"sub":"ann"}"#], &settings);
    assert!(
        good.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjIwMjYtMTEifQ."),
        "{good}"
    );
    assert!(is_accepted(&process, &good));
    // The reference's tokens have no kid.
    assert!(is_accepted(
        &process,
        &token(
            &["--claims", r#"{"iss":"https://old.example/","aud":["x","chat"]}"#],
            &settings[..1]
        )
    ));
    let mut client = process.client();
    for (claims, settings, message) in [
        ("{}", &settings[..1], "jwt audience invalid. expected: chat"),
        (
            r#"{"aud":"chat"}"#,
            &settings[..1],
            "jwt issuer invalid. expected: https://id.example/,https://old.example/",
        ),
        (
            r#"{"aud":"Chat","iss":"https://id.example/"}"#,
            &settings[..2],
            "jwt audience invalid. expected: chat",
        ),
        (
            r#"{"aud":"chat","iss":"https://id.example"}"#,
            &settings[..2],
            "jwt issuer invalid. expected: https://id.example/,https://old.example/",
        ),
    ] {
        let refused = refusal(&mut client, &token(&["--claims", claims], settings));
        assert_eq!(
            refused,
            ("AuthTokenInvalidError".into(), message.into(), true),
            "{claims}"
        );
        assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
    }
    let mut renamed = settings;
    renamed[1].1 = "2026-12";
    let refused = refusal(&mut client, &token(&[], &renamed));
    assert_eq!(
        refused,
        ("AuthTokenInvalidError".into(), "invalid signature".into(), true)
    );
    assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);

    // Sixty seconds of leeway and no more.
    let now = now_ms() / 1000;
    // `ringcast token` does not sign a token that would be refused.
    let signs = Tokens::from_secret(KEY.as_bytes(), None)
        .unwrap()
        .with_key_id("2026-11");
    let expired = |ago: u64| {
        let claims = json!({"exp": now - ago, "aud": "chat", "iss": "https://id.example/"});
        sign(&signs, &claims.to_string())
    };
    assert!(is_accepted(&process, &expired(5)));
    assert_eq!(refusal(&mut client, &expired(61)).1, "jwt expired");
}

// --- keys that are fetched

/// A server of keys with configurable answers, which counts requests.
struct KeyServer {
    scheme: &'static str,
    address: SocketAddr,
    answer: Arc<RwLock<String>>,
    request_count: Arc<AtomicUsize>,
}

impl KeyServer {
    fn start(keys: &[Value]) -> KeyServer {
        KeyServer::start_with(keys, None)
    }

    /// Under TLS, if there is a certificate.
    fn start_with(keys: &[Value], pair: Option<&Pair>) -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, request_count) = (
            Arc::new(RwLock::new(String::new())),
            Arc::new(AtomicUsize::new(0)),
        );
        let server = KeyServer {
            scheme: if pair.is_some() { "https" } else { "http" },
            address,
            answer: Arc::clone(&answer),
            request_count: Arc::clone(&request_count),
        };
        server.answers(&good(keys));
        let tls = pair.map(|pair| Arc::new(pair.server_config()));
        // Ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let answer = answer.read().unwrap().clone();
                let is_request = match &tls {
                    None => serve(stream, &answer),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(connection, stream), &answer)
                    }
                };
                request_count.fetch_add(usize::from(is_request), Ordering::SeqCst);
            }
        });
        server
    }

    fn answers(&self, answer: &str) {
        answer.clone_into(&mut self.answer.write().unwrap());
    }

    fn request_count(&self) -> usize {
        self.request_count.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("{}://{}/keys?of=ringcast", self.scheme, self.address)
    }
}

/// Answers one request, if one comes.
fn serve(mut stream: impl Read + Write, answer: &str) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return false;
        }
        head.push(byte[0]);
    }
    // A client that does not want all of a large answer disconnects.
    let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
    true
}

fn good(keys: &[Value]) -> String {
    answer("200 OK", &set(keys))
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn keys_are_fetched_before_the_first_client_and_once_more_for_an_unknown_key() {
    let keys = KeyServer::start(&[jwk("ES256", "public_jwk")]);
    let process = Process::start(&[("RINGCAST_JWKS_URL", &keys.url())]);
    assert_eq!(keys.request_count(), 1);
    let token = sign(&signer("ES256"), r#"{"sub":"ann"}"#);
    let new = sign(&signer("RS256"), r#"{"sub":"bob"}"#);
    assert!(is_accepted(&process, &token));

    // The key changes, and many clients bring tokens signed by the new one: one fetch brings it, and no
    // client loses its token.
    keys.answers(&good(&[jwk("RS256", "public_jwk"), jwk("HS256", "private_jwk")]));
    let mut clients: Vec<Client> = (0..20).map(|_| process.client()).collect();
    for client in &mut clients {
        assert_eq!(
            refusal(client, &new),
            ("AuthTokenInvalidError".into(), "invalid signature".into(), false)
        );
    }
    eventually("the new key is fetched", || is_accepted(&process, &new));
    assert_eq!(keys.request_count(), 2);
    assert!(!is_accepted(&process, &token));
    // A published secret signs nothing.
    assert!(!is_accepted(
        &process,
        &sign(&signer("HS256"), r#"{"sub":"mallory"}"#)
    ));
    let mut admin = process.admin();
    assert_eq!(admin.metric("ringcast_jwks_keys"), 1);
    assert_eq!(admin.metric("ringcast_jwks_failures_total"), 0);
}

#[test]
fn after_a_bad_answer_such_as_a_redirect_the_current_keys_stay() {
    let keys = KeyServer::start(&[jwk("ES256", "public_jwk")]);
    let process = Process::start(&[("RINGCAST_JWKS_URL", &keys.url())]);
    let token = sign(&signer("ES256"), r#"{"sub":"ann"}"#);
    let elsewhere = KeyServer::start(&[jwk("RS256", "public_jwk")]);
    keys.answers(&format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    ));
    let mut admin = process.admin();
    assert!(!is_accepted(&process, &sign(&signer("RS256"), "{}")));
    eventually("the bad answer is counted", || {
        admin.metric("ringcast_jwks_failures_total") == 1
    });
    assert!(is_accepted(&process, &token));
    assert_eq!((keys.request_count(), elsewhere.request_count()), (2, 0));
}

#[test]
fn an_unusable_key_is_logged_and_counted_and_a_set_without_a_usable_key_changes_nothing() {
    let folder = Folder::new();
    let broken = json!({"kty": "RSA", "kid": "old", "n": "%", "e": "AQAB"});
    let foreign = json!({"kty": "OKP", "crv": "X25519", "kid": "mail", "use": "enc", "x": "AA"});
    let mut twin = jwk("RS256", "public_jwk");
    twin["kid"] = jwk("ES256", "public_jwk")["kid"].clone();
    let file = folder.write("keys.json", &set(&[broken.clone(), jwk("EdDSA", "public_jwk")]));
    let file = file.to_str().unwrap().to_owned();
    // With a byte order mark, as one real server of keys sends it.
    let body = set(&[foreign.clone(), twin, broken.clone(), jwk("ES256", "public_jwk")]);
    let keys = KeyServer::start(&[]);
    keys.answers(&answer("200 OK", &format!("\u{feff}{body}")));
    let process = Process::start(&[("RINGCAST_JWKS_FILE", &file), ("RINGCAST_JWKS_URL", &keys.url())]);
    process.logged("jwks_url: key 1 (kid \"mail\") is not used: its use or key_ops say");
    process.logged("jwks_url: key 3 (kid \"old\") is not used: its n is not base64url");
    process.logged("keys.json: key 1 (kid \"old\") is not used: its n is not base64url");
    let mut admin = process.admin();
    assert_eq!(admin.metric("ringcast_jwks_keys_left_out"), 3);
    let tokens = ["EdDSA", "ES256"].map(|alg| sign(&signer(alg), r#"{"sub":"ann"}"#));
    assert!(tokens.iter().all(|token| is_accepted(&process, token)));

    keys.answers(&good(&[foreign, broken]));
    assert!(!is_accepted(&process, &sign(&signer("HS256"), "{}")));
    process.logged("it contains no usable key; key 1 (kid \"mail\") is not used");
    assert!(tokens.iter().all(|token| is_accepted(&process, token)));
    assert_eq!(admin.metric("ringcast_jwks_failures_total"), 1);
    assert_eq!(admin.metric("ringcast_jwks_keys"), 2);
}

#[test]
fn keys_are_fetched_over_https_if_this_machine_trusts_the_server() {
    let (authority, untrusted, files) = (Authority::new("ours"), Authority::new("theirs"), Files::new());
    let trusted = files.write("authorities.pem", &authority.pem());
    let token = sign(&signer("ES256"), r#"{"sub":"ann"}"#);
    for (pair, is_good) in [
        (authority.server(&["127.0.0.1"]), true),
        (authority.server(&["keys.example"]), false),
        (untrusted.server(&["127.0.0.1"]), false),
    ] {
        let keys = KeyServer::start_with(&[jwk("ES256", "public_jwk")], Some(&pair));
        let process = Process::start(&[
            ("RINGCAST_JWKS_URL", &keys.url()),
            ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ]);
        assert_eq!(keys.request_count(), usize::from(is_good));
        assert_eq!(is_accepted(&process, &token), is_good);
        let failures = process.admin().metric("ringcast_jwks_failures_total");
        assert_eq!(failures > 0, !is_good);
    }
}

#[test]
fn a_server_starts_without_keys_that_cannot_be_fetched() {
    let body = format!("{{\"keys\":[{}]}}", " ".repeat(256 * 1024));
    for bad in [
        answer("500 Internal Server Error", &set(&[jwk("ES256", "public_jwk")])),
        answer("200 OK", "<html>"),
        answer("200 OK", ""),
        answer("200 OK", &body),
        good(&[jwk("HS256", "private_jwk")]),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        "no HTTP\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off".to_owned(),
    ] {
        let keys = KeyServer::start(&[]);
        keys.answers(&bad);
        let process = Process::start(&[("RINGCAST_JWKS_URL", &keys.url())]);
        let start = &bad[..bad.len().min(60)];
        assert_eq!(keys.request_count(), 1, "{start}");
        process.logged("starting without these keys");
        assert_eq!(
            process.admin().metric("ringcast_jwks_failures_total"),
            1,
            "{start}"
        );
        let (_, message, is_bad) = refusal(&mut process.client(), &sign(&signer("ES256"), "{}"));
        assert_eq!(
            (message.as_str(), is_bad),
            ("invalid signature", false),
            "{start}"
        );
    }
}

// --- revocation

/// Clients that authenticate with this token in their handshakes.
fn clients_of(process: &Process, token: &str, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = process.client();
            assert_eq!(authenticate(&mut client, token)["data"]["isAuthenticated"], true);
            client.subscribe("hall");
            client
        })
        .collect()
}

#[test]
fn a_revocation_closes_all_connections_of_a_user_on_every_core_and_no_others() {
    let process = Process::start(&[("RINGCAST_AUTH_KEY", KEY), ("RINGCAST_CORES", "4")]);
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let (ann, bob) = (
        sign(&tokens, r#"{"sub":"ann"}"#),
        sign(&tokens, r#"{"sub":"bob"}"#),
    );
    let mut of_ann = clients_of(&process, &ann, 100);
    let mut of_bob = clients_of(&process, &bob, 100);
    let mut admin = process.admin();
    for core in 0..4 {
        // Both users have connections on all cores.
        assert!(admin.metric(&format!("ringcast_connections{{core=\"{core}\"}}")) > 40);
    }

    let (status, answer) = revoke(&process, r#"{"sub":"ann"}"#);
    assert_eq!(
        (status, &answer),
        (200, &json!({"revoked": {"sub": "ann"}, "connections": 100}))
    );
    // The answer comes when all of that is done.
    assert_eq!(admin.metric("ringcast_closes_total{reason=\"revoked\"}"), 100);
    assert_eq!(admin.metric("ringcast_revocations"), 1);
    for client in &mut of_ann {
        assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
        assert_eq!(client.event(), Received::Close(Some(4032), "revoked".to_owned()));
    }
    of_bob[0].publish("hall", "1");
    for client in &mut of_bob {
        assert_eq!(client.publication("hall"), "1");
    }

    // The token is refused from now on, on every core.
    let revoked = || ("AuthTokenRevokedError".to_owned(), "jwt revoked".to_owned(), true);
    for _ in 0..8 {
        assert_eq!(refusal(&mut process.client(), &ann), revoked());
    }
    let mut client = process.connect();
    client.upgrade();
    client.send_text(&format!(
        r##"{{"event":"#handshake","data":{{"authToken":"{ann}"}},"cid":1}}"##
    ));
    let answer: Value = serde_json::from_str(&client.message()).unwrap();
    assert_eq!(answer["data"]["isAuthenticated"], false);
    assert_eq!(answer["data"]["authError"]["name"], "AuthTokenRevokedError");
    assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
    assert!(is_accepted(&process, &bob));
    // A token that is issued later is accepted.
    let later = tokens.sign(r#"{"sub":"ann"}"#, None, now_ms() + 5000).unwrap();
    assert!(is_accepted(&process, &later));

    let (status, list) = request(process.admin, "GET", "/revoked", "", "");
    assert_eq!(
        (status, &list["count"], &list["revoked"][0]["value"]),
        (200, &json!(1), &json!("ann"))
    );
    assert_eq!(
        request(process.admin, "DELETE", "/revoke", JSON, r#"{"sub":"ann"}"#).0,
        200
    );
    assert_eq!(
        request(process.admin, "DELETE", "/revoke", JSON, r#"{"sub":"ann"}"#).0,
        404
    );
    assert!(is_accepted(&process, &ann));
}

#[test]
fn a_single_token_is_revoked_by_its_id() {
    let process = Process::start(&[("RINGCAST_AUTH_KEY", KEY)]);
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let [phone, laptop] =
        ["phone", "laptop"].map(|id| sign(&tokens, &format!(r#"{{"sub":"ann","jti":"{id}"}}"#)));
    let mut of_phone = clients_of(&process, &phone, 2);
    let mut of_laptop = clients_of(&process, &laptop, 2);
    assert_eq!(revoke(&process, r#"{"jti":"phone"}"#).1["connections"], 2);
    for client in &mut of_phone {
        assert_eq!(client.close_frame().0, Some(4032));
    }
    for client in &mut of_laptop {
        client.ping();
    }
    assert!(!is_accepted(&process, &phone) && is_accepted(&process, &laptop));
}

#[test]
fn revocations_survive_a_restart_and_a_reload() {
    let folder = Folder::new();
    let file = folder.file("revoked").to_str().unwrap().to_owned();
    let settings = [
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_REVOCATIONS_FILE", file.as_str()),
        ("RINGCAST_REVOCATIONS_MAX", "2"),
    ];
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let [ann, bob] = ["ann", "bob"].map(|user| sign(&tokens, &format!(r#"{{"sub":"{user}"}}"#)));
    let mut process = Process::start(&settings);
    assert_eq!(revoke(&process, r#"{"sub":"ann"}"#).0, 200);
    assert_eq!(revoke(&process, r#"{"sub":"bob"}"#).0, 200);
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    assert!(!is_accepted(&process, &ann) && !is_accepted(&process, &bob));
    // There is room for two, and the same revocation again is not a third.
    assert_eq!(revoke(&process, r#"{"sub":"bob"}"#).0, 200);
    let (status, answer) = revoke(&process, r#"{"sub":"eve"}"#);
    assert_eq!(status, 507, "{answer}");
    assert_eq!(process.admin().metric("ringcast_revocations_refused_total"), 1);
    assert_eq!(
        request(process.admin, "DELETE", "/revoke", JSON, r#"{"sub":"bob"}"#).0,
        200
    );
    process.signal(Signal::SIGTERM);
    process.exit_code();

    let process = Process::start(&settings);
    assert!(!is_accepted(&process, &ann) && is_accepted(&process, &bob));
    assert_eq!(process.admin().metric("ringcast_revocations"), 1);
}

/// A client of this user has left a will for the channel `news`, and is cut.
fn leave_will(process: &Process, token: &str, data: &str, delay_ms: u32) {
    let mut client = process.client();
    assert_eq!(authenticate(&mut client, token)["data"]["isAuthenticated"], true);
    let will = json!({"channel": "news", "data": data, "delay_ms": delay_ms, "session": data});
    let answer = client.call("$will", &will.to_string());
    assert!(!answer.contains("error"), "{answer}");
    client.reset();
}

/// The same for an MQTT client, whose session waits for it.
fn leave_mqtt_will(process: &Process, token: &str, payload: &str, delay_s: u32) {
    let mut client = Mqtt::over_tcp(Client::connect(process.address), 5);
    let will_properties = [&[5, 0x18][..], &delay_s.to_be_bytes()].concat();
    let parts = [string(payload), will_properties, string("news"), string(payload)];
    let payload = [parts.concat(), string("any"), string(token)].concat();
    // A user name, a password, a will, and a clean start.
    client.send(&connect_with(5, 0xc6, 0, &[0x11, 0, 0, 1, 0], &payload));
    client.accepted();
}

#[test]
fn a_will_that_waits_ends_with_the_token_of_its_client_also_on_disk() {
    let folder = Folder::new();
    let path = |name: &str| folder.file(name).to_str().unwrap().to_owned();
    let (revoked, data) = (path("revoked"), path("data"));
    let settings = [
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_REVOCATIONS_FILE", revoked.as_str()),
        ("RINGCAST_DATA_DIR", data.as_str()),
        ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt"),
        ("RINGCAST_CORES", "2"),
    ];
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let [ann, bob] = ["ann", "bob"].map(|user| sign(&tokens, &format!(r#"{{"sub":"{user}"}}"#)));
    let mut process = Process::start(&settings);
    let mut subscriber = process.client();
    subscriber.subscribe("news");
    // The wills of bob are due before the wills of ann.
    for (user, token) in [("bob", &bob), ("ann", &ann)] {
        for seconds in [6, 16] {
            leave_will(&process, token, &format!("{user} {seconds}"), seconds * 1000);
            leave_mqtt_will(&process, token, &format!("{user} {seconds} by MQTT"), seconds);
        }
    }
    eventually("the wills wait", || {
        let mut admin = process.admin();
        admin.metric("ringcast_wills_waiting") == 4 && admin.metric("ringcast_connections") == 1
    });
    assert_eq!(
        revoke(&process, r#"{"sub":"bob"}"#).1["connections"],
        0,
        "all are gone"
    );
    let mut got = [subscriber.publication("news"), subscriber.publication("news")];
    got.sort();
    assert_eq!(got, [r#""ann 6 by MQTT""#, r#""ann 6""#]);
    // A drain waits for clients, and publishes wills that are due meanwhile.
    drop(subscriber);
    process.signal(Signal::SIGTERM);
    process.exit_code();

    let process = Process::start(&settings);
    let mut admin = process.admin();
    // They may be due before any client can be there to get them.
    eventually("those of bob are dropped", || {
        admin.metric("ringcast_wills_cancelled_total") == 2
            && admin.metric("ringcast_wills_published_total") == 2
            && admin.metric("ringcast_wills_waiting") == 0
    });
}

#[test]
fn no_web_page_in_an_operators_browser_can_revoke() {
    let process = Process::start(&[("RINGCAST_AUTH_KEY", KEY)]);
    let what = r#"{"sub":"ann"}"#;
    for (headers, status) in [
        ("", 415),
        ("Content-Type: text/plain\r\n", 415),
        (
            "Content-Type: application/json\r\nOrigin: http://evil.example\r\n",
            403,
        ),
        (
            "Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n",
            403,
        ),
        (JSON, 200),
    ] {
        assert_eq!(
            request(process.admin, "POST", "/revoke", headers, what).0,
            status,
            "{headers}"
        );
    }
    for bad in ["", "{}", "[]", r#"{"sub":"ann","jti":"x"}"#, r#"{"sub":null}"#] {
        assert_eq!(revoke(&process, bad).0, 400, "{bad}");
    }
    assert_eq!(
        revoke(&process, &format!(r#"{{"sub":"{}"}}"#, "x".repeat(5000))).0,
        413
    );
    assert_eq!(request(process.admin, "GET", "/revoke", "", "").0, 405);
    assert_eq!(process.admin().metric("ringcast_revocations"), 1);
}

#[test]
fn a_server_without_a_key_warns_and_in_detail_if_it_is_not_a_trial() {
    Process::start(&[]).logged("ends with this process; fine for a trial, else set RINGCAST_AUTH_KEY");
    let process = Process::start(&[("RINGCAST_ALLOW_ANONYMOUS", "on")]);
    process.logged("RINGCAST_AUTH_KEY=$(openssl rand -hex 32)");
}
