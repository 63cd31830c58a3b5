//! The control plane with fake cores, which only have a mailbox and a status, over real loopback connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::broker::{Numbering, RingBytes, RingPlan, broker_with_outside};
use crate::config::KeylessProbes;
use crate::config::secret::Secret;
use crate::cores::operators::mailbox::{CoreStatus, Mailbox, mailbox};
use crate::handle::HandleThread;
use crate::session::MqttUse;

/// A core that only has a mailbox.
struct FakeCore {
    mailbox: Mailbox,
    poll: mio::Poll,
    handle_thread: Option<HandleThread>,
}

impl FakeCore {
    fn new() -> (CoreHandle, FakeCore) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (handle, mailbox) = mailbox(Arc::new(waker), 1);
        mailbox.set_status(CoreStatus::Serving);
        let core = FakeCore {
            mailbox,
            poll,
            handle_thread: None,
        };
        (handle, core)
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

const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    admin: SocketAddr,
    core: FakeCore,
    handle: ControlHandle,
    thread: JoinHandle<Result<Exit, ControlError>>,
}

/// A control plane that asks even probes for its key.
fn keyed() -> Config {
    let mut config = Config::default();
    config.admin.key = Some(Secret::new("open sesame"));
    config.admin.probes_without_key = KeylessProbes::Off;
    config
}

fn run(config: Config) -> Running {
    let ((control, handle, admin), core) = with_listener(config);
    let thread = std::thread::spawn(|| control.run(|| {}));
    Running {
        admin,
        core,
        handle,
        thread,
    }
}

/// A control plane that does not run.
fn control(config: Config) -> (Control, FakeCore) {
    let ((control, ..), core) = with_listener(config);
    (control, core)
}

fn with_listener(config: Config) -> ((Control, ControlHandle, SocketAddr), FakeCore) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap();
    let (core_handle, mut core) = FakeCore::new();
    let clock = Clock::begin();
    let bytes = RingBytes {
        cores_max: 1 << 20,
        outside_max: 1 << 20,
    };
    let (_, outside) = broker_with_outside(RingPlan {
        cores: 1,
        observers: 0,
        slots: 16,
        bytes,
        numbering: Numbering::new(),
    });
    let (handle, handle_thread) = Handle::start(
        vec![core_handle.clone()],
        outside,
        Arc::default(),
        None,
        &config.limits,
        MqttUse::Off,
        clock,
    )
    .unwrap();
    core.handle_thread = Some(handle_thread);
    let policy = Arc::new(Policy::open(&config).unwrap());
    let settings = ControlSettings {
        config,
        listener: Some(listener),
        sockets: Vec::new(),
        signals: SignalHandling::ByProgram,
        reload: None,
        policy,
        audit: Arc::new(Audit::new(10)),
        memory: None,
        keys: None,
        handle,
        store: None,
        clock,
    };
    let (control, handle) = Control::new(settings, vec![core_handle]);
    ((control, handle, admin), core)
}

impl Running {
    fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
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

/// A request head with the content type that a page of another origin cannot send.
fn as_json(head: &str) -> String {
    format!("{head}\r\nContent-Type: application/json")
}

#[test]
fn every_page_answers_get_and_refuses_other_methods() {
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
        assert_eq!(running.status(&format!("POST {path} HTTP/1.1")), 415, "{path}");
        assert_eq!(
            running.status(&as_json(&format!("POST {path} HTTP/1.1"))),
            405,
            "{path}"
        );
    }
    assert!(
        running
            .request(&as_json("POST /stats HTTP/1.1"))
            .contains("allow: GET,HEAD")
    );
    assert_eq!(running.status("GET /nothing HTTP/1.1"), 404);
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn every_page_needs_the_key() {
    let running = run(keyed());
    for path in ["/", "/metrics", "/healthz", "/readyz", "/stats", "/nothing"] {
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
fn probes_need_no_key_on_loopback_or_where_the_configuration_says_so() {
    let beyond = Some(SocketAddr::from(([0, 0, 0, 0], 9464)));
    for (admin, probes_without_key, status) in [
        (Config::default().admin.address, KeylessProbes::Auto, 200),
        (beyond, KeylessProbes::Auto, 401),
        (beyond, KeylessProbes::On, 200),
    ] {
        let mut config = keyed();
        config.admin.address = admin;
        config.admin.probes_without_key = probes_without_key;
        let running = run(config);
        for path in ["/healthz", "/readyz"] {
            assert_eq!(running.status(&format!("GET {path} HTTP/1.1")), status, "{path}");
            assert_eq!(running.status(&format!("HEAD {path} HTTP/1.1")), status, "{path}");
            assert_eq!(running.status(&format!("POST {path} HTTP/1.1")), 401, "{path}");
        }
        assert_eq!(running.status("GET /metrics HTTP/1.1"), 401);
        running.end();
    }
}

/// A new page needs no code of its own for this: the guard wraps the router, and also paths without a page.
#[tokio::test]
async fn every_page_is_guarded_also_an_added_one() {
    let paths = [
        "/", "/metrics", "/healthz", "/readyz", "/stats", "/slow", "/closed", "/revoke", "/revoked",
        "/added", "/nothing",
    ];
    for config in [Config::default(), keyed()] {
        let has_key = config.admin.key.is_some();
        let (control, _core) = control(config);
        let pages = routes::pages().route("/added", any(async || "a secret"));
        let router = TowerToHyperService::new(routes::guarded(pages, &control.shared));
        let status = async |method: &str, path: &str, host: &str| {
            let request = Request::builder().method(method).uri(path).header("host", host);
            let request = request.body(Body::empty()).unwrap();
            router.call(request).await.unwrap().status().as_u16()
        };
        for path in paths {
            for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS"] {
                let refused = if has_key { 401 } else { 403 };
                assert_eq!(
                    status(method, path, "evil.example").await,
                    refused,
                    "{method} {path}"
                );
                let is_probe = method == "OPTIONS" && ["/healthz", "/readyz"].contains(&path);
                if !["GET", "HEAD"].contains(&method) && !is_probe {
                    // As the form of a page of another origin would be.
                    let refused = if has_key { 401 } else { 415 };
                    assert_eq!(
                        status(method, path, "127.0.0.1").await,
                        refused,
                        "{method} {path}"
                    );
                }
            }
        }
        if !has_key {
            assert_eq!(status("GET", "/added", "127.0.0.1").await, 200);
        }
    }
}

#[test]
fn on_every_page_a_body_has_a_time_limit_and_a_size_limit_and_must_be_complete() {
    let running = run(Config::default());
    let head = |path: &str, length: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    let sent = |bytes: String, and_ends: bool| {
        let mut stream = TcpStream::connect(running.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        if and_ends {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        stream
    };
    let status = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        // The connection of a client that is still sending may end with a reset.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer)
            .unwrap()
            .get(9..12)
            .unwrap()
            .parse::<u16>()
            .unwrap()
    };
    let bytes = |count: usize| " ".repeat(count);
    // All at once, since each takes as long as the time limit.
    let slow =
        ["/revoke", "/metrics", "/nothing"].map(|path| sent(head(path, "Content-Length: 10") + "{", false));
    let trickled = sent(
        head("/revoke", "Transfer-Encoding: chunked") + "1\r\n{\r\n",
        false,
    );
    for path in ["/revoke", "/metrics", "/nothing"] {
        assert_eq!(
            status(sent(head(path, "Content-Length: 4097") + &bytes(4097), false)),
            413,
            "{path}"
        );
        let chunk = format!("1001\r\n{}\r\n0\r\n\r\n", bytes(4097));
        assert_eq!(
            status(sent(head(path, "Transfer-Encoding: chunked") + &chunk, false)),
            413,
            "{path}"
        );
        assert_eq!(
            status(sent(head(path, "Content-Length: 10") + "{", true)),
            400,
            "{path}"
        );
    }
    for stream in slow.into_iter().chain([trickled]) {
        assert_eq!(status(stream), 408);
    }
    // Not /healthz: this core does not turn, so it counts as stuck after a while.
    assert_eq!(running.status("GET /metrics HTTP/1.1"), 200);
    running.end();
}

#[test]
fn stats_show_settings_without_secrets() {
    let mut config = Config::default();
    config.auth.key = Some(Secret::new("topsecret"));
    let running = run(config);
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
    assert_eq!(within, Config::default().restart.drain);
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
    let mut config = Config::default();
    config.restart.drain = Duration::ZERO;
    config.limits.close_timeout = Duration::from_millis(1);
    let mut running = run(config);
    running.handle.drain();
    let within = running.next_drain();
    assert_eq!(within, Duration::ZERO);
    assert!(matches!(running.core.next_order(), Order::Stop));
    assert_eq!(running.thread.join().unwrap().unwrap(), Exit::Overdue);
}

/// The core tells its last events when it gets the order to stop, and stops then.
#[test]
fn a_drain_that_is_cut_off_sends_all_webhook_events_until_the_cores_stop() {
    use crate::config::target_url::TargetUrl;
    use crate::config::webhooks::{WebhookEvent, WebhookSpec};
    use crate::webhooks::{DatedEvent, Event};

    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::default();
    config.restart.drain = Duration::ZERO;
    config.limits.close_timeout = Duration::from_millis(1);
    config.webhooks.push(WebhookSpec {
        name: "a".to_owned(),
        url: TargetUrl::new(format!("http://{}/", receiver.local_addr().unwrap())),
        events: vec![WebhookEvent::LimitHit],
        timeout: PATIENCE,
        ..WebhookSpec::default()
    });
    let ((control, handle, _), mut core) = with_listener(config);
    let intake = control.shared.policy.now().webhooks.intake().cloned().unwrap();
    let thread = std::thread::spawn(|| control.run(|| {}));
    handle.drain();
    assert!(matches!(core.next_order(), Order::Drain { .. }));
    assert!(matches!(core.next_order(), Order::Stop));
    let told = DatedEvent {
        unix_ms: 0,
        core: 0,
        event: Event::LimitHit {
            limit: "last",
            hits: 1,
        },
    };
    assert!(intake.put(told).is_ok());
    core.becomes(CoreStatus::Stopped);
    let (mut stream, _) = receiver.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"]}") {
        let mut piece = [0; 1000];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the connection ends before the event");
        request.extend_from_slice(&piece[..count]);
    }
    assert!(String::from_utf8_lossy(&request).contains("last"));
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert_eq!(thread.join().unwrap().unwrap(), Exit::Overdue);
}

#[test]
fn a_core_that_ends_by_itself_ends_the_process() {
    let running = run(Config::default());
    running.core.becomes(CoreStatus::Stopped);
    assert_eq!(running.thread.join().unwrap().unwrap(), Exit::CoreLost);
}

#[test]
fn exit_codes_tell_a_drain_from_a_failure() {
    assert_eq!(Exit::Drained.code(), 0);
    assert_eq!(Exit::Overdue.code(), 0);
    assert_eq!(Exit::CutShort { signal: 2 }.code(), 130);
    assert_eq!(Exit::CutShort { signal: 15 }.code(), 143);
    assert_eq!(Exit::CoreLost.code(), 70);
}

#[test]
fn a_connection_over_the_limit_evicts_the_one_silent_for_longest() {
    let running = run(Config::default());
    let connect = || {
        let stream = TcpStream::connect(running.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let ask = |stream: &mut TcpStream| {
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "it is answered");
    };
    // The first has sent a request, so the second is the one that has been silent for longest.
    let mut admitted: Vec<_> = (0..admin_slots::ADMIN_SLOTS_MAX).map(|_| connect()).collect();
    ask(&mut admitted[0]);
    let mut over = connect();
    ask(&mut over);
    assert_eq!(
        admitted[1].read(&mut [0; 1024]).unwrap(),
        0,
        "it has been evicted"
    );
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
fn a_connection_without_a_request_is_closed() {
    let running = run(Config::default());
    let mut silent = TcpStream::connect(running.admin).unwrap();
    let mut slow = TcpStream::connect(running.admin).unwrap();
    write!(slow, "GET /healthz HT").unwrap();
    for stream in [&mut silent, &mut slow] {
        // Well before the minute that is allowed between two requests.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Unlike `read`, it retries when a wait is interrupted, as when the machine is paused for a moment.
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    assert_eq!(running.end(), Exit::Drained);
}

#[test]
fn a_core_that_does_not_answer_is_listed_and_gets_only_a_few_questions() {
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
    // Not /healthz: this core does not turn, so it counts as stuck after a while.
    assert_eq!(running.status("GET /metrics HTTP/1.1"), 200);
    running.end();
}
