//! The audit trail of the real binary: one line for each kind of event, no secret in any line, and a flood of
//! events gives few lines.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use ringcast::app::{App, AppError, Claims, Peer, Refusal, Upgrade, UpgradeRefused};
use ringcast::config::secret::Secret;
use ringcast::internals::auth::Tokens;
use ringcast::internals::auth::passwords::{PasswordFile, PasswordHash};
use serde_json::Value;
use support::process::Process;
use support::secure::{ALL, Authority, Pair, client, connect};
use support::{Client, PATIENCE, Server, UPGRADE, eventually};

/// The files of a server with one user, `ann` with the password `right`, which may publish to one channel.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("ringcast-audit-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut users = PasswordFile::default();
        let hash = PasswordHash::pbkdf2(b"right", [7; 12], 101).unwrap();
        users.set("ann", &hash).unwrap();
        fs::write(folder.join("users"), users.text()).unwrap();
        let rules = "[[rules]]\nallow = [\"publish\", \"subscribe\"]\nchannels = \"open\"\n";
        fs::write(folder.join("ringcast.toml"), rules).unwrap();
        Files(folder)
    }

    fn start(&self, settings: &[(&str, &str)]) -> Process {
        let (users, config) = (self.0.join("users"), self.0.join("ringcast.toml"));
        let mut all = vec![
            ("RINGCAST_PASSWORD_FILE", users.to_str().unwrap()),
            ("RINGCAST_CONFIG", config.to_str().unwrap()),
            ("RINGCAST_AUTH_KEY", KEY),
            ("RINGCAST_ADMIN_KEY", ADMIN_KEY),
            ("RINGCAST_LOG_FORMAT", "text"),
        ];
        all.extend(settings);
        Process::start(&all)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Left-over files are in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const KEY: &str = "the key of all tokens";
const ADMIN_KEY: &str = "the key of all operators";

/// Requests a page from the clients' port or from the control plane, and reads the whole answer.
fn ask(address: std::net::SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let rest = format!("Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(format!("{head}\r\n{rest}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn log_in(process: &Process, user: &str, password: &str) -> String {
    let body = serde_json::json!({ "user": user, "password": password }).to_string();
    let head = "POST /login HTTP/1.1\r\nContent-Type: application/json";
    ask(process.address, head, &body)
}

/// The line that begins like this after its time, as an operator's filter would find it.
#[track_caller]
fn line(process: &Process, level: &str, start: &str) -> String {
    let line = process.logged(start);
    let (_, rest) = line.split_once(level).expect("the level comes first");
    let rest = rest.trim_start();
    assert!(rest.starts_with("ringcast::audit: "), "{line}");
    assert!(rest["ringcast::audit: ".len()..].starts_with(start), "{line}");
    line
}

#[test]
fn each_kind_of_event_has_a_line_and_no_line_contains_a_secret() {
    let files = Files::new("kinds");
    let process = files.start(&[]);
    let mut lines = Vec::new();
    let mut expect = |level, start: &str, parts: &[&str]| {
        let found = line(&process, level, start);
        for part in parts {
            assert!(found.contains(part), "{part} in {found}");
        }
        lines.push(found);
    };

    assert!(log_in(&process, "ann", "wrong").starts_with("HTTP/1.1 401"));
    expect(
        "WARN",
        r#"login refused event="login_refused" address=127.0.0.1 reason="credentials" by="page" user="ann""#,
        &[],
    );
    let answer = log_in(&process, "ann", "right");
    assert!(answer.starts_with("HTTP/1.1 200"));
    expect(
        "INFO",
        r#"login accepted event="login_accepted" address=127.0.0.1 user="ann" by="page""#,
        &[],
    );
    let token = answer
        .split("ringcast=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();

    // Text that a client sends cannot end a field or a line.
    let mut client = process.client();
    let forged = r#"{"user":"x\" address=6.6.6.6\n2026 WARN ringcast::audit: login refused address=7.7.7.7","pw":"guess"}"#;
    client.call("login", forged);
    expect(
        "WARN",
        r#"login refused event="login_refused" address=127.0.0.1 reason="credentials" by="call" user="x\" address"#,
        &[r"\n2026 WARN"],
    );

    let bad = format!("{token}x");
    client.call("#authenticate", &format!("\"{bad}\""));
    expect(
        "WARN",
        r#"token refused event="token_refused" address=127.0.0.1 reason="signature" by="authenticate""#,
        &[],
    );
    let whoami = ask(
        process.address,
        &format!("GET /whoami HTTP/1.1\r\nCookie: ringcast={bad}"),
        "",
    );
    assert!(whoami.starts_with("HTTP/1.1 401"));
    expect("WARN", "token refused", &[r#"reason="signature" by="page""#]);

    client.call("login", r#"{"user":"ann","pw":"right"}"#);
    client.message();
    expect("INFO", "login accepted", &[r#"user="ann" by="call""#]);
    client.call("#publish", r#"{"channel":"closed","data":"the payload"}"#);
    expect(
        "WARN",
        r#"action refused event="action_refused" address=127.0.0.1 reason="rules" action="publish" user="ann" name="closed""#,
        &[],
    );

    let foreign = process.connect();
    drop(foreign);
    let revoke = |key: &str, body: &str| {
        let head =
            format!("POST /revoke HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}");
        ask(process.admin, &head, body)
    };
    assert!(revoke("a guess at it", "{}").starts_with("HTTP/1.1 401"));
    expect(
        "WARN",
        r#"operator refused event="operator_refused" address=127.0.0.1 reason="key" method="POST" path="/revoke""#,
        &[],
    );
    assert!(revoke(ADMIN_KEY, r#"{"sub":"ann"}"#).starts_with("HTTP/1.1 200"));
    expect(
        "INFO",
        r#"revocation event="revocation" action="revoked" connections=1 claim="sub" value="\"ann\"""#,
        &[],
    );
    expect(
        "INFO",
        r#"operator request event="operator_request" address=127.0.0.1 status=200 method="POST" path="/revoke""#,
        &[],
    );
    let mut revoked = Client::connect(process.address);
    revoked.send_bytes(
        UPGRADE
            .replacen("\r\n\r\n", &format!("\r\nCookie: ringcast={token}\r\n\r\n"), 1)
            .as_bytes(),
    );
    expect("WARN", "token refused", &[r#"reason="revoked" by="cookie""#]);

    process.signal(Signal::SIGHUP);
    expect(
        "INFO",
        r#"operation event="operation" action="reload" by="SIGHUP""#,
        &[],
    );
    process.signal(Signal::SIGTERM);
    expect(
        "INFO",
        r#"operation event="operation" action="drain" by="SIGTERM""#,
        &[],
    );

    let lines = lines.concat();
    let signature = token.rsplit('.').next().unwrap();
    for secret in [
        "wrong",
        "right",
        "guess",
        "the payload",
        KEY,
        ADMIN_KEY,
        signature,
    ] {
        assert!(!lines.contains(secret), "{secret} in {lines}");
    }
}

#[test]
fn refused_upgrades_of_foreign_pages_and_clients_without_a_token_are_logged() {
    let files = Files::new("strangers");
    let settings = [
        ("RINGCAST_ALLOW_ANONYMOUS", "off"),
        ("RINGCAST_ALLOWED_ORIGINS", "https://example.com"),
        ("RINGCAST_LOG_FORMAT", "json"),
    ];
    let process = files.start(&settings);
    let mut client = process.client();
    client.call("#subscribe", r#"{"channel":"open"}"#);
    let refused: Value = serde_json::from_str(&process.logged("action_refused")).unwrap();
    assert_eq!(refused["target"], "ringcast::audit");
    assert_eq!(refused["message"], "action refused");
    assert_eq!(refused["address"], "127.0.0.1");
    assert_eq!(
        (&refused["reason"], &refused["action"]),
        (&"anonymous".into(), &"subscribe".into())
    );
    let mut foreign = process.connect();
    foreign.send_bytes(
        UPGRADE
            .replacen("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n", 1)
            .as_bytes(),
    );
    assert!(foreign.rest().starts_with("HTTP/1.1 403"));
    let refused: Value = serde_json::from_str(&process.logged("request_refused")).unwrap();
    assert_eq!(
        (&refused["reason"], &refused["origin"]),
        (&"origin".into(), &"https://evil.example".into())
    );
}

/// A certificate that is not accepted, and one whose user is revoked.
#[test]
fn refused_certificates_of_clients_are_logged() {
    let files = Files::new("certificates");
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = servers.server(&["localhost"]);
    let write = |name: &str, text: &str| {
        let file = files.0.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (write("cert.pem", &pair.certificate), write("key.pem", &pair.key));
    let authority = write("clients.pem", &clients.pem());
    let process = files.start(&[
        ("RINGCAST_LISTEN_TLS", "shared"),
        ("RINGCAST_TLS_CERTIFICATE_FILES", &certificate),
        ("RINGCAST_TLS_KEY_FILES", &key),
        ("RINGCAST_TLS_CLIENT_AUTH", "optional"),
        ("RINGCAST_TLS_CLIENT_CA_FILE", &authority),
    ]);
    let trust = |pair: &Pair| std::sync::Arc::new(servers.trust(ALL, Some(pair)));
    let foreign = Authority::new("clients").client("mallory", (2020, 2090));
    let mut refused = connect(process.address, &trust(&foreign), "localhost");
    // In TLS 1.3 the client's handshake is complete before the server has checked its certificate.
    let tls = refused.tls.as_mut().unwrap();
    let _ = tls.complete_io(&mut refused.stream);
    line(
        &process,
        "WARN",
        r#"token refused event="token_refused" address=127.0.0.1 reason="certificate" by="tls""#,
    );
    let head = format!(
        "POST /revoke HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {ADMIN_KEY}"
    );
    assert!(ask(process.admin, &head, r#"{"sub":"alice"}"#).starts_with("HTTP/1.1 200"));
    let alice = client(process.address, &trust(&clients.client("alice", (2020, 2090))));
    line(
        &process,
        "WARN",
        r#"token refused event="token_refused" address=127.0.0.1 reason="revoked" by="certificate""#,
    );
    drop(alice);
}

/// An application that refuses the upgrades of one path's query, and all tokens.
struct Strict;

impl App for Strict {
    fn upgrade(&mut self, request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        match request.query {
            "stranger" => Err(UpgradeRefused {
                message: "not you".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn authenticate(&mut self, _claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Err(Refusal::from(AppError::new("not with this")))
    }
}

/// The lines that the server in this process has logged.
#[derive(Clone, Default)]
struct Logged(std::sync::Arc<std::sync::RwLock<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_application_refuses_is_logged() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    subscriber.init();
    let server = Server::start_with(|config| config.auth.key = Some(Secret::new(KEY)), |_| Strict);
    let has_line = |text: &str| {
        eventually(text, || {
            let bytes = logged.0.read().unwrap();
            String::from_utf8_lossy(&bytes).contains(text)
        });
    };
    let mut stranger = server.connect();
    let request = UPGRADE.replacen("/socketcluster/", "/socketcluster/?stranger", 1);
    stranger.send_bytes(request.as_bytes());
    assert!(stranger.rest().starts_with("HTTP/1.1 401"));
    has_line(r#"request refused event="request_refused" address=127.0.0.1 reason="application""#);
    let mut client = server.client();
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let token = tokens.sign(r#"{"sub":"ann"}"#, None, 0).unwrap();
    client.call("#authenticate", &format!("\"{token}\""));
    has_line(
        r#"token refused event="token_refused" address=127.0.0.1 reason="application" by="authenticate""#,
    );
}

#[test]
fn of_a_flood_few_lines_are_logged_and_the_rest_is_counted() {
    let files = Files::new("flood");
    let process = files.start(&[("RINGCAST_AUDIT_LINES_PER_SECOND_MAX", "1")]);
    let mut client = process.client();
    let count = 2000;
    for _ in 0..count {
        client.call("#publish", r#"{"channel":"closed","data":1}"#);
    }
    let mut admin = process.admin_with_key(ADMIN_KEY);
    let left_out = admin.metric(r#"ringcast_audit_left_out_total{event="action_refused"}"#);
    assert!(left_out > count / 2, "{left_out}");
    // The flood is over when nothing more is left out within a second.
    let mut reported = 0;
    eventually("all omissions are logged", || {
        let line = process.logged("lines left out");
        assert!(
            line.contains(r#"event="left_out" of="action_refused" count="#),
            "{line}"
        );
        reported += line
            .rsplit("count=")
            .next()
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap();
        reported == left_out
    });
}
