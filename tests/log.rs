//! A stopped reader of the log: standard error is a full pipe that is not read. The server must not be
//! affected.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringcast::config::Placement;
use ringcast::prelude::*;
use support::process::Admin;
use support::{Client, eventually};

/// A server whose log was read up to the addresses. From then on the pipe is full.
struct Unread {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    log: BufReader<PipeReader>,
}

impl Unread {
    fn start(settings: &[(&str, &str)]) -> Unread {
        Unread::start_by(Command::new(env!("CARGO_BIN_EXE_ringcast")), settings)
    }

    /// Starts a server by this command.
    fn start_by(mut command: Command, settings: &[(&str, &str)]) -> Unread {
        let (reader, writer) = pipe().unwrap();
        let mut child = command
            .env("RINGCAST_LISTEN", "127.0.0.1:0")
            .env("RINGCAST_ADMIN", "127.0.0.1:0")
            .env("RINGCAST_CORES", "2")
            .env("RINGCAST_AUTH_KEY", "a key that is only for this test")
            .env("RINGCAST_DRAIN_SECONDS", "0")
            .env("RINGCAST_CLOSE_TIMEOUT_MS", "500")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stderr(writer.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut log = BufReader::with_capacity(1, reader);
        let mut address_after = |start: &str| loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap() == 0 {
                panic!("the server did not start: {:?}", child.wait());
            }
            if let Some((_, rest)) = line.split_once(start) {
                break rest.split('/').next().unwrap().parse().unwrap();
            }
        };
        let address = address_after("ws://");
        let admin = address_after("control plane on http://");
        fill(writer);
        Unread {
            child,
            address,
            admin,
            log,
        }
    }

    fn client(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.upgrade();
        client.handshake();
        client
    }

    fn admin(&self) -> Admin {
        Admin::connect(self.admin)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self) -> Option<i32> {
        exit_code(&mut self.child)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn exit_code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

/// Fills a pipe completely. Its write end shares its flags only with the server's standard error, which is
/// non-blocking meanwhile and blocking again afterwards.
fn fill(mut writer: PipeWriter) {
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    for chunk in [&[b'.'; 4096][..], b"."] {
        while (&writer).write(chunk).is_ok() {}
    }
    assert_eq!(writer.write(b".").unwrap_err().kind(), ErrorKind::WouldBlock);
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
}

/// Opens and closes this many connections, each of which is logged at `debug`.
fn come_and_go(address: SocketAddr, count: usize) {
    for _ in 0..count {
        let stream = TcpStream::connect(address).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
}

#[test]
fn a_stopped_reader_of_the_log_stops_nothing_at_any_level() {
    for level in ["info", "debug", "trace"] {
        let mut server = Unread::start(&[("RINGCAST_LOG", level)]);
        let mut admin = server.admin();
        let mut client = server.client();
        // A log line for each connection; more than the queue holds.
        come_and_go(server.address, 5000);
        eventually("all connections are closed", || {
            admin.metric("ringcast_connections") == 1
        });
        client.ping();
        server.client().ping();
        assert_eq!(admin.get("/healthz").0, 200);
        let dropped = admin.metric("ringcast_log_lines_dropped_total");
        assert_eq!(dropped > 0, level != "info", "{dropped} at {level}");
        server.signal(Signal::SIGHUP);
        client.ping();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), Some(0), "{level}");
    }
}

/// An application that panics when it is told to.
struct Panics;

impl App for Panics {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        assert_ne!(call.event.as_str(), Some("panic"), "as the client wants");
        peer.reply_empty()
    }
}

/// The process of the next test.
#[test]
#[ignore = "run by the next test"]
fn a_server_whose_application_panics() {
    let mut config = Config::default();
    config.cores.placement = Placement::Count(2);
    config.listen.address = ([127, 0, 0, 1], 0).into();
    config.admin.address = Some(([127, 0, 0, 1], 0).into());
    let server = Server::start(&config, Embedding::whole_process(), |_| Panics).unwrap();
    server.wait().unwrap();
}

/// A panic of a core ends the process, whether or not its log is read, so that a service manager starts a whole one.
/// The log says so if it is read.
#[test]
fn a_panic_ends_the_process_also_when_the_log_is_full() {
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "a_server_whose_application_panics",
            "--ignored",
            "--nocapture",
        ]);
        Unread::start_by(command, &[])
    };
    let mut unread = start();
    let mut client = unread.client();
    assert!(client.call("other", "null").starts_with(r#"{"rid":"#));
    client.begin_call("panic", "null");
    assert_eq!(unread.exit_code(), Some(70));

    let mut read = start();
    let mut client = read.client();
    // The bytes that fill the pipe are read first.
    let mut log = std::mem::replace(&mut read.log, BufReader::new(pipe().unwrap().0));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    client.begin_call("panic", "null");
    assert_eq!(read.exit_code(), Some(70));
    let log = reader.join().unwrap();
    for part in [
        " panicked at ",
        "as the client wants",
        " cannot go on: it panicked",
    ] {
        assert!(
            log.contains(part),
            "{part:?} is not in the log: {}",
            log.trim_start_matches('.')
        );
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once_although_the_log_is_not_read() {
    let mut server = Unread::start(&[("RINGCAST_LOG", "debug"), ("RINGCAST_DRAIN_SECONDS", "3600")]);
    let mut admin = server.admin();
    let _clients = [server.client(), server.client(), server.client()];
    server.signal(Signal::SIGTERM);
    eventually("it drains", || admin.get("/readyz").0 == 503);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(143));
}

#[test]
fn waiting_lines_are_written_at_the_end_when_the_log_is_read_again() {
    let mut server = Unread::start(&[("RINGCAST_LOG", "debug")]);
    let mut admin = server.admin();
    come_and_go(server.address, 5000);
    eventually("lines are dropped", || {
        admin.metric("ringcast_connections") == 0 && admin.metric("ringcast_log_lines_dropped_total") > 0
    });
    server.signal(Signal::SIGTERM);
    let mut rest = String::new();
    server.log.read_to_string(&mut rest).unwrap();
    assert_eq!(server.exit_code(), Some(0));
    let lines: Vec<&str> = rest.trim_start_matches('.').lines().collect();
    let at = |part: &str| {
        lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("{part}"))
    };
    for line in &lines {
        assert!(line.contains(" ringcast"), "a whole line: {line}");
    }
    assert!(at("log lines were dropped") > at("connection closed"));
    assert!(at("drained 0 connections") > at("connection closed"));
}

#[test]
fn a_server_that_cannot_start_reports_it_to_a_reader_and_also_ends_without_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (settings, code) in [
        (&[("RINGCAST_LISTEN", address.as_str())][..], 1),
        (&[("RINGCAST_LOG", "=")], 78),
        (&[("RINGCAST_PASSWORD_FILE", "/nonexistent")], 78),
    ] {
        for is_read in [true, false] {
            let (mut reader, writer) = pipe().unwrap();
            let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
                .env("RINGCAST_ADMIN", "off")
                .envs(settings.iter().copied())
                .stderr(writer.try_clone().unwrap())
                .spawn()
                .unwrap();
            if is_read {
                drop(writer);
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                assert!(text.lines().last().unwrap().starts_with("ringcast: "), "{text}");
            } else {
                fill(writer);
            }
            assert_eq!(exit_code(&mut child), Some(code), "{settings:?}");
        }
    }
}

#[test]
fn with_log_format_json_lines_are_objects() {
    let (reader, writer) = pipe().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .env("RINGCAST_LISTEN", "127.0.0.1:0")
        .env("RINGCAST_ADMIN", "off")
        .env("RINGCAST_LOG_FORMAT", "json")
        // The limits are logged at this level.
        .env("RINGCAST_LOG", "debug")
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut capacity = None;
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap();
        let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(object[key].is_string(), "{line}");
        }
        // The last line of a start, which contains a number as a field.
        if object["connections_max"].is_number() {
            capacity = Some(object);
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        }
    }
    let message = capacity.unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(" cores on CPUs "), "{message}");
    assert_eq!(exit_code(&mut child), Some(0));
}

#[test]
fn no_log_level_of_an_old_server_hides_how_its_environment_was_read() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for level in ["0", "1", "2"] {
        let (reader, writer) = pipe().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            // Another program's address: the log ends with the start.
            .env("RINGCAST_LISTEN", &address)
            .env("RINGCAST_ADMIN", "off")
            .env("SOCKETCLUSTER_LOG_LEVEL", level)
            .env("SOCKETCLUSTER_OPTIONS", r#"{"mine":1,"pingInterval":5000}"#)
            .stderr(writer)
            .spawn()
            .unwrap();
        let lines: Vec<String> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_ne!(exit_code(&mut child), Some(0));
        for name in [
            "SOCKETCLUSTER_LOG_LEVEL is read as",
            "OPTIONS.mine is not used",
            "OPTIONS.pingInterval is read as",
        ] {
            assert!(lines.iter().any(|line| line.contains(name)), "{level}: {lines:?}");
        }
    }
}
