//! The control plane with cores that only have a status, over real loopback connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use super::*;
use crate::config::secret::Secret;
use crate::cores::mailbox::{CoreStatus, Mailbox, mailbox};

/// A core that only has a mailbox.
struct FakeCore {
    mailbox: Mailbox,
    poll: mio::Poll,
}

impl FakeCore {
    fn new() -> (CoreHandle, FakeCore) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (handle, mailbox) = mailbox(Arc::new(waker));
        mailbox.set_status(CoreStatus::Serving);
        (handle, FakeCore { mailbox, poll })
    }

    fn becomes(&self, status: CoreStatus) {
        self.mailbox.set_status(status);
    }

    fn next_order(&mut self) -> Order {
        loop {
            if let Some(order) = self.mailbox.try_receive() {
                return order;
            }
            self.poll
                .poll(&mut mio::Events::with_capacity(1), Some(PATIENCE))
                .unwrap();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    admin: SocketAddr,
    core: FakeCore,
    handle: ControlHandle,
    thread: JoinHandle<Result<Exit, ControlError>>,
}

fn run(config: Config) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap();
    let (core_handle, core) = FakeCore::new();
    let settings = Settings {
        config,
        listener: Some(listener),
        signals: SignalsFrom::Elsewhere,
        reload: None,
        doors: Arc::new(Doors::open(&Config::default()).unwrap()),
        memory: None,
        keys: None,
        clock: Clock::begin(),
    };
    let (control, handle) = Control::new(settings, vec![core_handle]);
    let thread = std::thread::spawn(|| control.run());
    Running {
        admin,
        core,
        handle,
        thread,
    }
}

impl Running {
    fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{head}\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn status(&self, head: &str) -> u16 {
        self.request(head)[9..12].parse().unwrap()
    }

    fn next_drain(&mut self) -> Duration {
        match self.core.next_order() {
            Order::Drain { within } => within,
            other => panic!("{other:?}"),
        }
    }

    fn end(self) -> Exit {
        self.handle.drain();
        self.core.becomes(CoreStatus::Stopped);
        self.thread.join().unwrap().unwrap()
    }
}

#[test]
fn operators_find_what_there_is() {
    let running = run(Config::default());
    let metrics = running.request("GET /metrics HTTP/1.1");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4"),
        "{metrics}"
    );
    assert!(metrics.contains("\nringcast_connections{core=\"0\"} 0\n"));
    let index = running.request("GET / HTTP/1.1");
    for path in ["/metrics", "/healthz", "/readyz", "/stats"] {
        assert!(index.contains(path));
        assert_eq!(running.status(&format!("GET {path} HTTP/1.1")), 200, "{path}");
        assert_eq!(running.status(&format!("HEAD {path} HTTP/1.1")), 200, "{path}");
        assert_eq!(running.status(&format!("POST {path} HTTP/1.1")), 405, "{path}");
    }
    assert!(
        running
            .request("POST /stats HTTP/1.1")
            .contains("allow: GET,HEAD")
    );
    assert_eq!(running.status("GET /nothing HTTP/1.1"), 404);
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn a_key_is_asked_for_everywhere() {
    let running = run(Config {
        admin_key: Some(Secret::new("open sesame")),
        ..Config::default()
    });
    for path in ["/", "/metrics", "/healthz", "/stats", "/nothing"] {
        assert_eq!(running.status(&format!("GET {path} HTTP/1.1")), 401, "{path}");
    }
    for (authorization, status) in [
        ("Bearer open sesame", 200),
        ("bearer open sesame", 200),
        ("Bearer open sesam", 401),
        ("Bearer ", 401),
        ("Basic open sesame", 401),
        ("open sesame", 401),
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nAuthorization: {authorization}");
        assert_eq!(running.status(&head), status, "{authorization}");
    }
    running.end();
}

#[test]
fn stats_show_settings_without_secrets() {
    let running = run(Config {
        auth_key: Some(Secret::new("topsecret")),
        ..Config::default()
    });
    let answer = running.request("GET /stats HTTP/1.1");
    let stats: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(stats["settings"]["auth_key"], "…");
    assert_eq!(stats["settings"]["admin_key"], serde_json::Value::Null);
    assert_eq!(stats["settings"]["limits.ring_slots"], "65536");
    assert_eq!(stats["cores"][0]["status"], "serving");
    assert_eq!(stats["cores"][0]["closes"]["slow_consumer"], 0);
    assert_eq!(stats["cores"][0]["turn_seconds"]["count"], 0);
    assert!(!answer.contains("topsecret"));
    running.end();
}

#[test]
fn readiness_follows_the_cores_and_ends_with_the_drain() {
    let mut running = run(Config::default());
    assert_eq!(running.status("GET /readyz HTTP/1.1"), 200);
    running.core.becomes(CoreStatus::Starting);
    assert_eq!(running.status("GET /readyz HTTP/1.1"), 503);
    assert_eq!(running.status("GET /healthz HTTP/1.1"), 200);
    running.core.becomes(CoreStatus::Serving);
    running.handle.drain();
    let within = running.next_drain();
    assert_eq!(within, Config::default().drain);
    assert_eq!(running.status("GET /readyz HTTP/1.1"), 503);
    assert_eq!(running.status("GET /healthz HTTP/1.1"), 200);
    assert!(
        running
            .request("GET /metrics HTTP/1.1")
            .contains("\nringcast_draining 1\n")
    );
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn a_drain_that_does_not_end_is_cut_off() {
    let mut config = Config {
        drain: Duration::ZERO,
        ..Config::default()
    };
    config.limits.close_timeout = Duration::from_millis(1);
    let mut running = run(config);
    running.handle.drain();
    let within = running.next_drain();
    assert_eq!(within, Duration::ZERO);
    assert!(matches!(running.core.next_order(), Order::Stop));
    assert_eq!(running.thread.join().unwrap().unwrap(), Exit::Overdue);
}

#[test]
fn a_core_that_ends_by_itself_ends_the_process() {
    let running = run(Config::default());
    running.core.becomes(CoreStatus::Stopped);
    assert_eq!(running.thread.join().unwrap().unwrap(), Exit::CoreLost);
}

#[test]
fn exit_codes_tell_a_drain_from_what_went_wrong() {
    assert_eq!(Exit::Drained.code(), 0);
    assert_eq!(Exit::Overdue.code(), 0);
    assert_eq!(Exit::CutShort { signal: 2 }.code(), 130);
    assert_eq!(Exit::CutShort { signal: 15 }.code(), 143);
    assert_eq!(Exit::CoreLost.code(), 70);
}

#[test]
fn an_operator_over_the_bound_takes_the_place_of_the_longest_silent() {
    let running = run(Config::default());
    let connect = || {
        let stream = TcpStream::connect(running.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let ask = |stream: &mut TcpStream| {
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "it is answered");
    };
    // The first has asked, so that it is the second that has been silent for longest.
    let mut admitted: Vec<_> = (0..places::PLACES_MAX).map(|_| connect()).collect();
    ask(&mut admitted[0]);
    let mut over = connect();
    ask(&mut over);
    assert_eq!(admitted[1].read(&mut [0; 1024]).unwrap(), 0, "it has given way");
    ask(&mut admitted[0]);
    ask(&mut admitted[2]);
    ask(&mut over);
    drop(admitted);
    let metrics = running.request("GET /metrics HTTP/1.1");
    assert!(
        metrics.contains("\nringcast_admin_connections_ended_total 1\n"),
        "{metrics}"
    );
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn who_asks_for_nothing_is_not_waited_for() {
    let running = run(Config::default());
    let mut silent = TcpStream::connect(running.admin).unwrap();
    let mut slow = TcpStream::connect(running.admin).unwrap();
    write!(slow, "GET /healthz HT").unwrap();
    for stream in [&mut silent, &mut slow] {
        // Well before the minute that there is between two requests.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0; 1024]).unwrap(), 0);
    }
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn a_core_that_does_not_answer_is_named_and_takes_no_more_questions_than_a_few() {
    let running = run(Config::default());
    let lists = ["/slow", "/closed", "/slow?limit=7"];
    for path in lists.repeat(2) {
        let answer = running.request(&format!("GET {path} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.ends_with(r#"{"connections":[],"unanswered":[0]}"#),
            "{answer}"
        );
    }
    assert_eq!(running.status("GET /healthz HTTP/1.1"), 200);
    running.end();
}
