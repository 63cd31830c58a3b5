//! The control plane of a real process: stuck cores, slow files and slow readers, and signals.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use support::folder::Folder;
use support::process::{Admin, Held, Process};
use support::{Client, PATIENCE, Received, close_frame, eventually};

/// Sends a request, closes its sending side, and reads to the end.
fn ask(admin: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The status, and the body as JSON.
fn revoke(admin: SocketAddr, what: &str) -> (u16, Value) {
    let length = what.len();
    let answer = ask(
        admin,
        &format!(
            "POST /revoke HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{what}"
        ),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

const KEY: &str = "a key for tests that is long enough";

fn authenticated(process: &Process, user: &str) -> Client {
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let now = ringcast::internals::clock::Clock::begin().now().unix_ms;
    let token = tokens
        .sign(&json!({ "sub": user }).to_string(), None, now)
        .unwrap();
    let mut client = process.client();
    let answer = client.call("#authenticate", &format!("\"{token}\""));
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
    client
}

/// The gauge, in seconds.
fn stuck_seconds(admin: &mut Admin) -> f64 {
    let (_, metrics) = admin.get("/metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("ringcast_core_stuck_seconds "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_stuck_core_is_named_and_does_not_delay_reloads_and_revocations_on_the_others() {
    let process = Process::start(&[
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_LIVENESS_TIMEOUT_MS", "1000"),
    ]);
    let mut of_ann: Vec<Client> = (0..10).map(|_| authenticated(&process, "ann")).collect();
    let mut admin = process.admin();
    let on_core = |admin: &mut Admin, core| admin.metric(&format!("ringcast_connections{{core=\"{core}\"}}"));
    let (turning, standing) = (on_core(&mut admin, 0), on_core(&mut admin, 1));
    assert!(turning > 0 && standing > 0);
    assert_eq!((admin.get("/healthz").0, admin.get("/readyz").0), (200, 200));

    let held = Held::thread(process.pid(), "core 1");
    eventually("/healthz says so", || admin.get("/healthz").0 == 503);
    for path in ["/healthz", "/readyz"] {
        let (status, body) = admin.get(path);
        assert_eq!(status, 503);
        assert!(
            body.starts_with("core 1 has not turned for ") && !body.contains("core 0"),
            "{body}"
        );
    }
    assert!(stuck_seconds(&mut admin) >= 1.0);
    process.logged("core 1 has not turned for");
    // More orders than its mailbox holds.
    for _ in 0..20 {
        process.signal(Signal::SIGHUP);
        process.logged("SIGHUP: reloaded");
    }
    let (status, answer) = revoke(process.admin, r#"{"sub":"ann"}"#);
    assert_eq!(
        (status, &answer["connections"], &answer["unanswered"]),
        (202, &json!(turning), &json!([1])),
        "{answer}"
    );
    assert_eq!(admin.metric("ringcast_closes_total{reason=\"revoked\"}"), turning);

    drop(held);
    eventually("all cores turn again", || {
        (admin.get("/healthz").0, admin.get("/readyz").0) == (200, 200)
    });
    eventually("the gauge falls", || stuck_seconds(&mut admin) < 1.0);
    process.logged("core 1 turns again");
    // Its orders have waited for it.
    for client in &mut of_ann {
        assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
        assert_eq!(client.event(), Received::Close(Some(4032), "revoked".to_owned()));
        client.send_bytes(&close_frame(4032, ""));
    }
    assert_eq!(
        admin.metric("ringcast_closes_total{reason=\"revoked\"}"),
        turning + standing
    );
}

#[test]
fn a_process_that_was_stopped_reports_no_stuck_core() {
    let process = Process::start(&[("RINGCAST_LIVENESS_TIMEOUT_MS", "200")]);
    let mut admin = process.admin();
    for _ in 0..5 {
        process.signal(Signal::SIGSTOP);
        // This test is about the passing of time.
        thread::sleep(std::time::Duration::from_millis(600));
        process.signal(Signal::SIGCONT);
        let answer = admin.get("/healthz");
        assert_eq!(answer, (200, "ok\n".to_owned()));
    }
}

/// A file may be large, or on a disk that does not answer; here a pipe blocks the thread that reads it.
#[test]
fn a_slow_reload_delays_nothing_else() {
    let mut process = Process::start(&[("RINGCAST_AUTH_KEY", KEY), ("RINGCAST_DRAIN_SECONDS", "0")]);
    let mut admin = process.admin();
    // The thread stays for some seconds, for the next reload.
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    let reader = Held::idle_threads(process.pid(), "control files");
    process.signal(Signal::SIGHUP);
    for path in ["/healthz", "/readyz", "/metrics", "/stats"] {
        assert_eq!(admin.get(path).0, 200, "{path}");
    }
    // A revocation made meanwhile is still in force after the reload.
    let (status, answer) = revoke(process.admin, r#"{"sub":"ann"}"#);
    assert_eq!(status, 200, "{answer}");
    drop(reader);
    process.logged("SIGHUP: reloaded");
    assert_eq!(admin.metric("ringcast_revocations"), 1);
    let reader = Held::idle_threads(process.pid(), "control files");
    process.signal(Signal::SIGHUP);
    process.signal(Signal::SIGTERM);
    process.logged("drained");
    drop(reader);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_slow_file_of_revocations_is_reported_and_delays_nothing_else() {
    let folder = Folder::new();
    let file = folder.file("revoked");
    let process = Process::start(&[
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_REVOCATIONS_FILE", file.to_str().unwrap()),
    ]);
    let mut client = authenticated(&process, "ann");
    // The thread that reads and writes files stays for some seconds.
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    let writer = Held::idle_threads(process.pid(), "control files");
    let address = process.admin;
    let revoking = thread::spawn(move || revoke(address, r#"{"sub":"ann"}"#));
    // Connections are closed, and other requests are answered, while the file blocks.
    assert_eq!(client.close_frame().0, Some(4032));
    assert_eq!(process.admin().get("/healthz").0, 200);
    let (status, answer) = revoking.join().unwrap();
    assert_eq!((status, &answer["connections"]), (500, &json!(1)), "{answer}");
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("could not be written within 5 s"), "{error}");
    drop(writer);
    eventually("it is finally written", || {
        fs::read_to_string(&file).unwrap().contains(r#""ann""#)
    });
    let (status, answer) = revoke(process.admin, r#"{"sub":"bob"}"#);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn every_page_answers_a_client_that_has_closed_its_sending_side() {
    let process = Process::start(&[]);
    let (_, index) = process.admin().get("/");
    let pages: Vec<&str> = index
        .lines()
        .filter_map(|line| line.strip_prefix('/')?.split_whitespace().next())
        .collect();
    assert!(pages.len() >= 8, "{index}");
    for page in pages.iter().chain(&["", "nowhere"]) {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let request = format!(
                "{method} /{page} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            );
            let answer = ask(process.admin, &request);
            assert!(answer.starts_with("HTTP/1.1 "), "{method} /{page}: {answer:?}");
        }
    }
    let (status, answer) = revoke(process.admin, r#"{"sub":"ann"}"#);
    assert_eq!((status, &answer["connections"]), (200, &json!(0)));
}

#[test]
fn a_signal_without_a_meaning_is_only_logged() {
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "0")]);
    let mut client = process.client();
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGXFSZ] {
        process.signal(signal);
        process.logged(&format!("{} is ignored", signal.as_str()));
    }
    // Whatever its default action is.
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGCONT,
        Signal::SIGWINCH,
        Signal::SIGURG,
        Signal::SIGCHLD,
    ] {
        process.signal(signal);
    }
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    client.ping();
    drop(client);
    process.signal(Signal::SIGQUIT);
    process.logged("SIGQUIT: draining");
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn a_signal_during_the_start_is_handled_after_the_start() {
    // The start waits for the answer to its first fetch of keys.
    let keys = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", keys.local_addr().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .env("RINGCAST_LISTEN", "127.0.0.1:0")
        .env("RINGCAST_ADMIN", "off")
        .env("RINGCAST_JWKS_URL", url)
        .env("RINGCAST_CORES", "1")
        .env("RINGCAST_DRAIN_SECONDS", "0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let process = Pid::from_raw(child.id().cast_signed());
    let (asking, _) = keys.accept().unwrap();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        kill(process, signal).unwrap();
    }
    drop((asking, keys));
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let mut bytes = [0; 4096];
    while !(log.contains("SIGHUP: reloaded") && log.contains("SIGUSR1 is") && log.contains("SIGUSR2 is")) {
        let count = stderr.read(&mut bytes).unwrap();
        assert!(count > 0, "the process has ended: {log}");
        log.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    kill(process, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The service manager may have stopped reading.
#[test]
fn a_service_manager_that_reads_nothing_delays_nothing() {
    let folder = Folder::new();
    let socket = folder.file("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut process = Process::start(&[
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "40000"),
        ("RINGCAST_DRAIN_SECONDS", "0"),
    ]);
    // As many datagrams as the socket holds: a further write would block.
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    eventually("the socket is full", || {
        sender.send_to(b"FULL=1", &socket).is_err()
    });
    for _ in 0..3 {
        process.signal(Signal::SIGHUP);
        process.logged("SIGHUP: reloaded");
        assert_eq!(process.admin().get("/healthz").0, 200);
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code(), Some(0));
    drop(manager);
}
