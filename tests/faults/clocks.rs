//! The wall clock jumps: a day forward, and two days back. Deadlines and heartbeats use another clock and must not be
//! affected; tokens use the wall clock.
//!
//! Debian's libfaketime stands between the server and the system, and reads the offset from a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringcast::internals::auth::Tokens;
use ringcast::internals::clock::Clock;

use super::harness::{on_stage, size};
use super::healthy::Window;
use super::support::process::Process;
use super::support::secure::Files;
use super::support::{Client, eventually};

const KEY: &str = "a key that tests share";

#[test]
fn of_the_wall_jump() {
    let files = Files::new();
    let offset = files.write("offset", "+0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let settings = [
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_PING_INTERVAL_MS", "200"),
        // Far below the jumps, and far above the time for which a busy machine keeps the silent bearer waiting.
        ("RINGCAST_PING_TIMEOUT_MS", "60000"),
    ];
    let process = Process::spawn(command, &settings);
    on_stage(process, "the wall clock jumps", "+1 d, then −2 d", |stage| {
        let closes = stage.closes("pong_timeout");
        let mut bearer = stage.process.client();
        let token = token(unix_s() + 3600);
        authenticate(&mut bearer, &token);
        jump(&offset, "+86400");
        // The token has expired, and the server removes it when the client sends something.
        eventually("the token is taken away", || {
            bearer.message().contains("#removeAuthToken")
        });
        stage.crew.works(Window::Beside, size(100, 1500));
        jump(&offset, "-86400");
        // The clock is before the token was signed. The token is valid: without `nbf` a token is valid at any time
        // before its `exp`.
        authenticate(&mut bearer, &token);
        stage.crew.works(Window::Beside, size(100, 1500));
        jump(&offset, "+0");
        bearer.ping();
        assert_eq!(stage.closes("pong_timeout"), closes);
    });
}

/// Replaces the file in one step, because libfaketime may read it at any moment.
fn jump(offset: &Path, to: &str) {
    let next = offset.with_extension("next");
    fs::write(&next, to).unwrap();
    fs::rename(&next, offset).unwrap();
}

fn unix_s() -> u64 {
    Clock::begin().now().unix_ms / 1000
}

fn token(exp_unix_s: u64) -> String {
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let claims = format!(r#"{{"sub":"ann","exp":{exp_unix_s}}}"#);
    tokens.sign(&claims, None, 0).unwrap()
}

#[track_caller]
fn authenticate(client: &mut Client, token: &str) {
    let answer = client.call("#authenticate", &format!("\"{token}\""));
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
}

/// The library of the package `faketime`.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut names = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    names
        .find(|name| name.exists())
        .expect("the package faketime is installed")
}
