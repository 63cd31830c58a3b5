//! Who owns a port: a server shares a port only if it is configured to, and otherwise names the process that
//! has it.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use ringcast::config::{Config, FdTables, Placement};
use ringcast::server::{self, Embedding, StartError};
use socket2::{Domain, Socket, Type};
use support::process::Process;
use support::{Received, Server, close_frame, eventually};

/// A start that may be refused; the process is killed with the value.
struct Attempt {
    child: Child,
    log: Arc<RwLock<String>>,
}

impl Attempt {
    /// A start with these addresses.
    fn new(listen: SocketAddr, admin: &str, settings: &[(&str, &str)]) -> Attempt {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .env("RINGCAST_LISTEN", listen.to_string())
            .env("RINGCAST_ADMIN", admin)
            .env("RINGCAST_CORES", "2")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Arc::new(RwLock::new(String::new()));
        let read = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                read.write()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Attempt { child, log }
    }

    fn log(&self) -> String {
        self.log.read().unwrap().clone()
    }

    fn code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().and_then(|status| status.code())
    }

    /// Its message when it does not start.
    #[track_caller]
    fn refusal(mut self) -> String {
        eventually("the start is refused", || self.code().is_some());
        assert_eq!(self.code(), Some(1));
        eventually("the reason is logged", || self.log().contains("ringcast: "));
        self.log()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_ip(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[test]
fn a_second_server_on_a_port_is_refused_and_names_the_process_that_has_it() {
    let first = Process::start(&[]);
    let named = format!("process {} (ringcast)", first.pid());
    let overlapping = [
        // It would listen beyond loopback, but it does not start.
        ("127.0.0.1", "RINGCAST_LISTEN"),
        ("0.0.0.0", "RINGCAST_LISTEN"),
        ("::", "RINGCAST_LISTEN"),
    ];
    for (ip, setting) in overlapping {
        let everybody = [("RINGCAST_ALLOW_ANONYMOUS", "on")];
        let text = Attempt::new(with_ip(ip, first.address.port()), "127.0.0.1:0", &everybody).refusal();
        for part in [named.as_str(), setting, "--take-over"] {
            assert!(text.contains(part), "{ip}: {text}");
        }
    }
    let free = "127.0.0.1:0".parse().unwrap();
    let text = Attempt::new(free, &first.admin.to_string(), &[]).refusal();
    for part in [named.as_str(), "RINGCAST_ADMIN"] {
        assert!(text.contains(part), "{text}");
    }
    // All clients are still connected to the first server.
    let clients: Vec<_> = (0..20).map(|_| first.client()).collect();
    assert_eq!(first.admin().metric("ringcast_connections"), 20);
    drop(clients);
    // With another address and the same port there is no conflict.
    Process::start(&[(
        "RINGCAST_LISTEN",
        &with_ip("127.0.0.2", first.address.port()).to_string(),
    )])
    .client()
    .ping();
}

#[test]
fn a_listener_of_another_program_is_named_whether_or_not_it_shares_its_port() {
    for shares in [true, false] {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        other.set_reuse_port(shares).unwrap();
        other.bind(&with_ip("127.0.0.1", 0).into()).unwrap();
        other.listen(1).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        let mut text = vec![Attempt::new(address, "127.0.0.1:0", &[]).refusal()];
        if !shares {
            // A port cannot be taken over from a program that does not share it.
            text.push(Attempt::new(address, "127.0.0.1:0", &[("RINGCAST_TAKE_OVER", "on")]).refusal());
        }
        for text in text {
            let named = format!("process {} (", std::process::id());
            assert!(text.contains(&named), "{text}");
        }
    }
}

#[test]
fn of_several_starts_at_once_one_serves() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut attempts: Vec<_> = (0..4).map(|_| Attempt::new(port, "127.0.0.1:0", &[])).collect();
    eventually("all but one have been refused", || {
        let ended = attempts.iter_mut().filter_map(Attempt::code);
        ended.inspect(|code| assert_eq!(*code, 1)).count() == 3
    });
    let serving = attempts
        .iter_mut()
        .filter_map(|attempt| attempt.code().is_none().then_some(&*attempt))
        .next();
    let serving = serving.expect("one serves");
    eventually("it serves", || {
        serving.log().contains("ringcast serves") && TcpStream::connect(port).is_ok()
    });
}

#[test]
fn lingering_connections_and_a_draining_process_do_not_prevent_a_start() {
    let mut before = Process::start(&[("RINGCAST_DRAIN_SECONDS", "3600")]);
    let (mut closed, _open) = (before.client(), before.client());
    before.signal(Signal::SIGTERM);
    // The drain closes the first connection of a core at once, and the server closes first: so the connection
    // lingers in TIME_WAIT.
    assert_eq!(closed.event(), Received::Close(Some(1001), String::new()));
    closed.send_bytes(&close_frame(1001, ""));
    assert_eq!(closed.next(), Received::End);
    eventually("nobody listens", || TcpStream::connect(before.address).is_err());
    // Connections of the draining process have the same local address.
    let next = Process::start(&[("RINGCAST_LISTEN", &before.address.to_string())]);
    next.client().ping();
    before.signal(Signal::SIGTERM);
    assert_eq!(before.exit_code(), Some(143));
}

#[test]
fn a_take_over_with_a_random_key_warns_that_tokens_become_invalid() {
    let first = Process::start(&[]);
    let listen = first.address.to_string();
    let settings = [("RINGCAST_LISTEN", listen.as_str()), ("RINGCAST_TAKE_OVER", "on")];
    let second = Process::start(&settings);
    second.logged("listening with the process that serves already");
    drop(second);
    let mut attempt = Attempt::new(first.address, "127.0.0.1:0", &settings[1..]);
    eventually("it serves", || attempt.log().contains("ringcast serves"));
    assert!(
        attempt.log().contains("has made a key of its own"),
        "{}",
        attempt.log()
    );
    assert_eq!(attempt.code(), None);
}

#[test]
fn an_embedding_program_shares_a_port_only_if_configured() {
    let first = Server::start(|config| config.admin.address = Some("127.0.0.1:0".parse().unwrap()));
    let admin = first.running().admin_address().unwrap();
    let config = |listen, admin, take_over| {
        let mut config = Config::default();
        config.cores.placement = Placement::Count(1);
        config.cores.fd_tables = FdTables::Shared;
        config.listen.address = listen;
        config.admin.address = admin;
        config.restart.take_over = take_over;
        config.restart.drain = Duration::ZERO;
        config
    };
    let start = |config: &Config| {
        server::Server::start(config, Embedding::default(), |_| {
            ringcast::internals::app::builtin::Builtin::new()
        })
    };
    let free = "127.0.0.1:0".parse().unwrap();
    for (listen, admin) in [(first.address, None), (free, Some(admin))] {
        match start(&config(listen, admin, false)) {
            Err(StartError::Served {
                owner: Some(owner), ..
            }) => {
                assert_eq!(owner.process, std::process::id().cast_signed());
            }
            other => panic!("{other:?}"),
        }
        let second = start(&config(listen, admin, true)).unwrap();
        second.drain();
        second.wait().unwrap();
    }
    first.client().ping();
}
