//! Webhooks: a real receiver gets the events of real clients, in order, each event at least once; whatever the receiver
//! does, and over restarts and crashes with `data_dir`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which prints its seed

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, PresencePolicy};
use ringcast::config::secret::Secret;
use ringcast::config::target_url::TargetUrl;
use ringcast::config::webhooks::{WebhookEvent, WebhookSpec};
use ringcast::config::{Config, Placement, SlowConsumer};
use ringcast::internals::auth::Tokens;
use serde_json::Value;
use support::folder::Folder;
use support::mqtt::{self, Mqtt, MqttServer};
use support::process::Process;
use support::{Client, PATIENCE, Server, ask, eventually};

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Take,
    /// Takes the events, and answers with more than anybody wants to read.
    TakeAndTalk,
    Status(u16),
    /// Reads the request, and answers nothing.
    Hang,
    /// Ends the connection without an answer.
    Close,
    /// Names another address, which would take it.
    Redirect,
}

/// A request as the receiver got it.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

#[derive(Debug)]
struct Shared {
    mode: RwLock<Mode>,
    /// All requests.
    seen: RwLock<Vec<Request>>,
    /// The events of requests that were answered with 200.
    taken: RwLock<Vec<Value>>,
    is_over: AtomicBool,
}

/// A small HTTP server: one thread for each connection.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn new() -> Receiver {
        Receiver::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(address: SocketAddr) -> Receiver {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: RwLock::new(Mode::Take),
            seen: RwLock::default(),
            taken: RwLock::default(),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || {
                    // A broken connection is the business of the server.
                    let _ = serve(&stream.unwrap(), &shared, address);
                });
            }
        });
        Receiver {
            address,
            shared,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    fn set(&self, mode: Mode) {
        *self.shared.mode.write().unwrap() = mode;
    }

    fn requests(&self) -> Vec<Request> {
        self.shared.seen.read().unwrap().clone()
    }

    fn taken(&self) -> Vec<Value> {
        self.shared.taken.read().unwrap().clone()
    }

    /// The events that were taken, without repetitions, in words: event, channel.
    fn words(&self) -> Vec<String> {
        let mut ids = BTreeSet::new();
        let mut events = self.taken();
        events.retain(|event| ids.insert(event["id"].as_str().unwrap().to_owned()));
        events.iter().map(in_words).collect()
    }

    /// Waits until an event of this kind has been taken; returns it.
    #[track_caller]
    fn event(&self, kind: &str) -> Value {
        let find = || self.taken().into_iter().find(|event| event["event"] == kind);
        eventually(kind, || find().is_some());
        find().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn in_words(event: &Value) -> String {
    let kind = event["event"].as_str().unwrap();
    match event["channel"].as_str() {
        Some(channel) => format!("{kind} {channel}"),
        None => kind.to_owned(),
    }
}

fn serve(stream: &TcpStream, shared: &Shared, address: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let request = Request {
            head,
            body: String::new(),
        };
        let length = request.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = Request {
            body: String::from_utf8(body).unwrap(),
            ..request
        };
        if shared.is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mode = *shared.mode.read().unwrap();
        shared.seen.write().unwrap().push(request.clone());
        let answer = match mode {
            Mode::Take => {
                let events = request.json()["events"].as_array().unwrap().clone();
                shared.taken.write().unwrap().extend(events);
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()
            }
            Mode::TakeAndTalk => {
                let events = request.json()["events"].as_array().unwrap().clone();
                shared.taken.write().unwrap().extend(events);
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
                // The other end closes the connection before all is said.
                while stream.write_all(&[b' '; 65536]).is_ok() {}
                return Ok(());
            }
            Mode::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
            Mode::Hang => {
                while *shared.mode.read().unwrap() == Mode::Hang && !shared.is_over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                return Ok(());
            }
            Mode::Close => return Ok(()),
            Mode::Redirect => {
                format!("HTTP/1.1 307 X\r\nLocation: http://{address}/elsewhere\r\nContent-Length: 0\r\n\r\n")
            }
        };
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
    }
}

fn webhook(receiver: &Receiver, events: &[WebhookEvent], channels: &[&str]) -> WebhookSpec {
    WebhookSpec {
        name: "test".to_owned(),
        url: TargetUrl::new(receiver.url()),
        events: events.to_vec(),
        channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        interval: Duration::from_millis(5),
        ..WebhookSpec::default()
    }
}

fn presence(config: &mut Config, names: &str) {
    config.channels.push(ChannelSpec {
        names: vec![names.to_owned()],
        policy: ChannelPolicy {
            presence: PresencePolicy::Members,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    });
    config.limits.presence_grace = Duration::ZERO;
}

/// The value of a metric, with its labels.
fn metric(server: &Server, series: &str) -> u64 {
    metric_at(server.running().admin_address().unwrap(), series).expect("the metric")
}

fn metrics(admin: SocketAddr) -> String {
    ask(
        admin,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
}

/// `None` until the series is there: the thread of the webhooks adds the series of a webhook when it has read the
/// configuration.
fn metric_at(admin: SocketAddr, series: &str) -> Option<u64> {
    let page = metrics(admin);
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

fn with_admin(config: &mut Config) {
    config.admin.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
}

#[test]
fn a_receiver_is_told_of_all_that_a_client_does() {
    let receiver = Receiver::new();
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(3);
        config.limits.webhook_vacated_delay = Duration::from_millis(20);
        presence(config, "room.*");
        config
            .webhooks
            .push(webhook(&receiver, &WebhookEvent::ALL, &["room.*"]));
    });
    let mut client = server.client();
    let connected = receiver.event("connected");
    assert_eq!(connected["connection"], client.id);
    assert_eq!(
        (&connected["protocol"], &connected["address"]),
        (&"socketcluster".into(), &"127.0.0.1".into())
    );
    assert_eq!(connected["user"], Value::Null);
    client.subscribe("room.1");
    client.subscribe("other");
    assert_eq!(receiver.event("channel_occupied")["channel"], "room.1");
    let joined = receiver.event("member_joined");
    assert_eq!(
        (&joined["channel"], &joined["count"]),
        (&"room.1".into(), &1.into())
    );
    assert_eq!(joined["connection"], client.id);
    client.publish("other", "1");
    client.publish("room.1", r#"{"a":[1,"\u00e9"]}"#);
    let publication = receiver.event("publication");
    assert_eq!(
        (&publication["channel"], &publication["data"]["a"][1]),
        (&"room.1".into(), &"é".into())
    );
    let will = client.call("$will", r#"{"channel":"room.2","data":"gone"}"#);
    assert!(!will.contains("error"), "{will}");
    let id = client.id.clone();
    client.reset();
    let sent = receiver.event("will_sent");
    assert_eq!(
        (&sent["channel"], &sent["data"], &sent["connection"]),
        (&"room.2".into(), &"gone".into(), &id.clone().into())
    );
    assert_eq!(receiver.event("channel_vacated")["channel"], "room.1");
    assert_eq!(receiver.event("member_left")["count"], 0);
    let ended = receiver.event("disconnected");
    assert_eq!(ended["connection"], id);
    assert_eq!(ended["reason"], "peer_vanished");
    assert!(
        ended["bytes_in"].as_u64() > Some(100) && ended["lasted_ms"].is_u64(),
        "{ended}"
    );
    let events = receiver.taken();
    assert!(
        events.iter().all(|event| event["channel"] != "other"),
        "{events:?}"
    );
    let ids: BTreeSet<_> = events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), events.len());
}

#[test]
fn mqtt_clients_are_told_of_as_well() {
    let receiver = Receiver::new();
    let server = MqttServer::start(|config| {
        config.limits.webhook_vacated_delay = Duration::from_millis(20);
        let mut spec = webhook(&receiver, &WebhookEvent::ALL, &["**"]);
        spec.channels.push("$none".to_owned());
        config.webhooks.push(spec);
    });
    let mut device = server.connect(5, "device");
    let connected = receiver.event("connected");
    assert_eq!(connected["protocol"], "mqtt");
    device.subscribe("a/b", 1);
    device.subscribe("wild/#", 0);
    assert_eq!(receiver.event("channel_occupied")["channel"], "a/b");
    // A SocketCluster client on the same channel: it stays occupied when the device leaves.
    let mut client = server.server.client();
    client.subscribe("a/b");
    device.send(&mqtt::publish(5, 0, "a/b", 0, &[], b"hello"));
    let publication = receiver.event("publication");
    assert_eq!(
        (&publication["channel"], &publication["data"]),
        (&"a/b".into(), &"hello".into())
    );
    drop(device);
    assert_eq!(
        receiver.event("disconnected")["connection"],
        connected["connection"]
    );
    client.call("#unsubscribe", r#""a/b""#);
    receiver.event("channel_vacated");
    let words = receiver.words();
    let of_channels: Vec<_> = words.iter().filter(|word| word.starts_with("channel_")).collect();
    assert_eq!(
        of_channels,
        ["channel_occupied a/b", "channel_vacated a/b"],
        "{words:?}"
    );
}

/// What each webhook is told alternates, and ends with the truth, over all cores and while clients come and go.
#[test]
fn occupied_and_vacated_are_exact_over_all_cores() {
    let receiver = Receiver::new();
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(4);
        config.limits.webhook_vacated_delay = Duration::from_millis(3);
        let events = [WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated];
        config.webhooks.push(webhook(&receiver, &events, &[]));
    });
    let mut clients: Vec<Client> = (0..12).map(|_| server.client()).collect();
    let mut held: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut random = support::seed() | 1;
    for _ in 0..1500 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (client, channel) = ((random >> 33) as usize % 12, (random >> 45) as usize % 5);
        if held.insert((client, channel)) {
            clients[client].subscribe(&format!("c{channel}"));
        } else {
            held.remove(&(client, channel));
            clients[client].call("#unsubscribe", &format!("\"c{channel}\""));
        }
    }
    let truth: BTreeSet<String> = held.iter().map(|(_, channel)| format!("c{channel}")).collect();
    let mut told: BTreeMap<String, bool> = BTreeMap::new();
    eventually("what is told is the truth", || {
        told.clear();
        for event in receiver.taken() {
            let is_occupied = event["event"] == "channel_occupied";
            let before = told.insert(event["channel"].as_str().unwrap().to_owned(), is_occupied);
            assert_eq!(before.unwrap_or(false), !is_occupied, "{event}");
        }
        told.iter()
            .filter(|(_, is_occupied)| **is_occupied)
            .map(|(name, _)| name.clone())
            .collect::<BTreeSet<_>>()
            == truth
    });
    drop(clients);
    eventually("all channels are vacated", || {
        let events = receiver.taken();
        let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).count();
        of("channel_occupied") == of("channel_vacated")
    });
}

/// A client that reconnects at once is a flap of its channels, of which nobody is told.
#[test]
fn a_channel_that_is_vacated_for_a_moment_is_told_of_once() {
    let receiver = Receiver::new();
    let server = Server::start(|config| {
        config.limits.webhook_vacated_delay = Duration::from_secs(600);
        let events = [WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated];
        config.webhooks.push(webhook(&receiver, &events, &[]));
        with_admin(config);
    });
    for _ in 0..20 {
        let mut client = server.client();
        client.subscribe("a");
        drop(client);
    }
    server.settles_at(0, 0);
    let mut client = server.client();
    client.subscribe("b");
    eventually("b is told of", || {
        receiver.words().contains(&"channel_occupied b".to_owned())
    });
    assert_eq!(receiver.words(), ["channel_occupied a", "channel_occupied b"]);
    eventually("flaps are counted", || {
        metric(&server, "ringcast_webhook_flaps_total") > 0
    });
    // At the end of the server no channel has subscribers.
    drop(server);
    let mut words = receiver.words();
    words[2..].sort();
    assert_eq!(words[2..], ["channel_vacated a", "channel_vacated b"]);
}

/// Accepted events are not sent again, whatever the body of the receiver's answer is.
#[test]
fn the_status_of_an_answer_decides_however_long_its_body_is() {
    let receiver = Receiver::new();
    receiver.set(Mode::TakeAndTalk);
    let server = Server::start(|config| {
        config
            .webhooks
            .push(webhook(&receiver, &[WebhookEvent::Publication], &["**"]));
        with_admin(config);
    });
    let mut client = server.client();
    let delivered = || metric(&server, "ringcast_webhook_delivered_total{webhook=\"test\"}");
    for number in 1..=3 {
        client.publish("news", &number.to_string());
        eventually("the event is delivered", || delivered() == number);
    }
    assert_eq!(receiver.taken().len(), 3);
    assert!(
        receiver
            .requests()
            .iter()
            .all(|request| request.json()["attempt"] == 1)
    );
}

/// Each of the first four is away in another way; the others are told everything meanwhile.
#[test]
fn receivers_that_are_away_take_nothing_from_healthy_ones_beside_them() {
    const COUNT: usize = 150;
    let receivers: Vec<Receiver> = (0..6).map(|_| Receiver::new()).collect();
    for (receiver, mode) in receivers
        .iter()
        .zip([Mode::Hang, Mode::Close, Mode::Status(500), Mode::Redirect])
    {
        receiver.set(mode);
    }
    let server = Server::start(|config| {
        // More events wait for all webhooks than there is room for: events of receivers that are away are dropped.
        config.limits.webhook_bytes_max = 6 << 20;
        for (number, receiver) in receivers.iter().enumerate() {
            config.webhooks.push(WebhookSpec {
                name: format!("w{number}"),
                timeout: Duration::from_secs(60),
                ..webhook(receiver, &[WebhookEvent::Publication], &["**"])
            });
        }
        with_admin(config);
    });
    let mut client = server.client();
    let data = format!("\"{}\"", "x".repeat(10_000));
    for number in 1..=COUNT {
        client.publish("news", &data);
        // One after the other, so that the healthy ones have no reason to drop anything.
        for healthy in &receivers[4..] {
            eventually("a healthy receiver is told", || healthy.taken().len() == number);
        }
    }
    let dropped = |number: usize| {
        let series = format!("ringcast_webhook_dropped_total{{webhook=\"w{number}\",reason=\"memory\"}}");
        metric(&server, &series)
    };
    assert!(
        (0..4).all(|number| dropped(number) > 0),
        "they had to drop something"
    );
    assert_eq!((dropped(4), dropped(5)), (0, 0));
    assert!(receivers[..4].iter().all(|away| away.taken().is_empty()));
    // Each comes back, gets the events that have waited, and learns how many are missing.
    for receiver in &receivers[..4] {
        receiver.set(Mode::Take);
    }
    client.publish("news", "1");
    for (number, receiver) in receivers[..4].iter().enumerate() {
        let told = || {
            let missing = |event: &Value| event["dropped_before"].as_u64().unwrap_or(0);
            receiver
                .taken()
                .iter()
                .map(|event| 1 + missing(event))
                .sum::<u64>()
        };
        eventually("nothing is missing without a word", || told() == COUNT as u64 + 1);
        assert_eq!((COUNT + 1 - receiver.taken().len()) as u64, dropped(number));
    }
}

/// Whatever the receiver does, each event arrives in the end, in order, and repetitions can be told by their ids.
#[test]
fn a_receiver_that_fails_in_every_way_misses_nothing() {
    let receiver = Receiver::new();
    let server = Server::start(|config| {
        let mut spec = webhook(&receiver, &[WebhookEvent::Publication], &["**"]);
        spec.batch_events = 7;
        spec.timeout = Duration::from_millis(100);
        config.webhooks.push(spec);
        with_admin(config);
    });
    let mut client = server.client();
    let mut published = 0;
    let mut publish = |count: usize| {
        for _ in 0..count {
            client.publish("news", &published.to_string());
            published += 1;
        }
    };
    let outcome = |name: &str| {
        metric(
            &server,
            &format!("ringcast_webhook_requests_total{{webhook=\"test\",outcome=\"{name}\"}}"),
        )
    };
    publish(10);
    for (mode, counted_as) in [
        (Mode::Status(500), "status"),
        (Mode::Redirect, "status"),
        (Mode::Hang, "timeout"),
        (Mode::Close, "unreachable"),
        (Mode::Status(404), "status"),
    ] {
        let before = outcome(counted_as);
        receiver.set(mode);
        publish(10);
        eventually("the failure is counted", || outcome(counted_as) > before);
        receiver.set(Mode::Take);
    }
    // It goes away altogether, and comes back at the same address.
    let address = receiver.address;
    eventually("all so far are taken", || receiver.words().len() == 60);
    let first = receiver.taken();
    drop(receiver);
    publish(10);
    let before = outcome("unreachable");
    eventually("nobody is there", || outcome("unreachable") > before);
    assert_eq!(metric(&server, "ringcast_webhook_failing{webhook=\"test\"}"), 1);
    let receiver = Receiver::at(address);
    publish(10);
    eventually("the rest is taken", || receiver.words().len() == 20);
    let mut ids = BTreeSet::new();
    let mut events: Vec<Value> = first.into_iter().chain(receiver.taken()).collect();
    events.retain(|event| ids.insert(event["id"].as_str().unwrap().to_owned()));
    let data: Vec<u64> = events
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert_eq!(data, (0..80).collect::<Vec<u64>>(), "in order");
    assert!(events.iter().all(|event| event["dropped_before"].is_null()));
    let requests = receiver.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.head.starts_with("POST /events HTTP/1.1")),
        "no redirect is followed"
    );
    assert!(
        requests
            .iter()
            .any(|request| request.json()["attempt"].as_u64() > Some(1))
    );
    eventually("the last answer is counted", || {
        metric(&server, "ringcast_webhook_delivered_total{webhook=\"test\"}") == 80
    });
}

/// Clients notice nothing of a receiver that does not answer, and every event that is not delivered is counted.
#[test]
fn a_flood_with_a_receiver_that_hangs_costs_clients_nothing_and_is_counted() {
    let receiver = Receiver::new();
    receiver.set(Mode::Hang);
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(2);
        let mut spec = webhook(&receiver, &[WebhookEvent::Publication], &["flood"]);
        spec.queue_events = 500;
        config.webhooks.push(spec);
        config.limits.webhook_events_waiting_max = 100;
        with_admin(config);
    });
    const COUNT: u64 = 20_000;
    let mut subscriber = server.client();
    subscriber.subscribe("flood");
    let mut publisher = server.client();
    let reader = thread::spawn(move || {
        for number in 0..COUNT {
            assert_eq!(subscriber.publication("flood"), number.to_string());
        }
    });
    for number in 0..COUNT {
        publisher.publish("flood", &number.to_string());
    }
    publisher.ping();
    reader.join().unwrap();
    let lost = || metric(&server, "ringcast_webhook_lost_total{event=\"publication\"}");
    let dropped = || {
        metric(
            &server,
            "ringcast_webhook_dropped_total{webhook=\"test\",reason=\"queue_full\"}",
        )
    };
    let queued = || metric(&server, "ringcast_webhook_queued_total{webhook=\"test\"}");
    eventually("all are queued, dropped or lost", || {
        lost() + dropped() + queued() == COUNT
    });
    // On a busy machine, the thread of the webhooks may not fill the queue in time: then the cores count lost events.
    let waiting = usize::try_from(queued()).unwrap();
    assert!((1..=500).contains(&waiting), "{waiting}");
    assert_eq!(
        server.limit_hits(ringcast::internals::decision::Limit::WebhookEventsWaiting),
        lost()
    );
    receiver.set(Mode::Take);
    eventually("the first are delivered", || receiver.words().len() == waiting);
    let numbers: Vec<u64> = receiver
        .taken()
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "in order");
    publisher.publish("flood", "\"after\"");
    eventually("the next is delivered", || receiver.words().len() == waiting + 1);
    let told: u64 = receiver
        .taken()
        .iter()
        .filter_map(|event| event["dropped_before"].as_u64())
        .sum();
    assert_eq!(
        told,
        COUNT - waiting as u64,
        "the receiver knows how many it has missed"
    );
}

#[test]
fn requests_are_signed_and_a_reload_replaces_secrets_and_webhooks() {
    let receiver = Receiver::new();
    let other = Receiver::new();
    let folder = Folder::new();
    let secret = folder.write("secret", "0123456789abcdef0123456789abcdef\n");
    let entry = |name: &str, receiver: &Receiver, more: &str| {
        format!(
            "[[webhooks]]\nname = \"{name}\"\nurl = \"{}\"\nevents = [\"connected\", \"channel_occupied\"]\ninterval_ms = 0\n{more}\n",
            receiver.url()
        )
    };
    let signed = format!("secret_file = {secret:?}");
    let config = folder.write("ringcast.toml", &entry("a", &receiver, &signed));
    let server = Process::start(&[
        ("RINGCAST_CONFIG", config.to_str().unwrap()),
        ("RINGCAST_CORES", "3"),
    ]);
    let mut client = server.client();
    client.subscribe("held");
    receiver.event("channel_occupied");
    let check = |request: &Request, secret: &str| {
        let header = request.header("ringcast-signature").unwrap();
        let (time, signature) = header.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&signature[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        aws_lc_rs::hmac::verify(&key, format!("{time}.{}", request.body).as_bytes(), &bytes).is_ok()
    };
    let requests = receiver.requests();
    assert!(
        requests
            .iter()
            .all(|request| check(request, "0123456789abcdef0123456789abcdef"))
    );
    assert!(!check(&requests[0], "0123456789abcdef0123456789abcdee"));
    assert_eq!(requests[0].json()["webhook"], "a");

    // Another secret, and another webhook: it gets the channels that are occupied now.
    let file = folder.file("ringcast.toml");
    folder.write("secret", "another secret of this server\n");
    server.reload(
        &file,
        &[entry("a", &receiver, &signed), entry("b", &other, "")].concat(),
    );
    eventually("b is told of the channel", || {
        other.words() == ["channel_occupied held"]
    });
    let seen = receiver.requests().len();
    let _second = server.client();
    eventually("a request with the other secret", || {
        receiver.requests()[seen..]
            .iter()
            .any(|request| check(request, "another secret of this server"))
    });
    assert_eq!(
        receiver
            .words()
            .iter()
            .filter(|word| word.starts_with("channel"))
            .count(),
        1,
        "a knew"
    );

    // Without webhooks nothing is sent any more, and with them again, all goes on.
    let channels = || metric_at(server.admin, "ringcast_webhook_channels");
    eventually("the channel is counted", || channels() == Some(1));
    server.reload(&file, "");
    eventually("the thread knows", || channels() == Some(0));
    let seen = (receiver.requests().len(), other.requests().len());
    let _third = server.client();
    client.subscribe("unseen");
    server.reload(&file, &entry("b", &other, ""));
    eventually("b is told what is occupied", || {
        let words = other.words();
        words[1..].iter().any(|word| word == "channel_occupied unseen")
            && words[1..].iter().any(|word| word == "channel_occupied held")
    });
    assert_eq!(receiver.requests().len(), seen.0);
}

/// Events on disk survive a crash and a restart, and come before new events.
#[test]
fn events_survive_a_crash_and_a_restart_with_data_dir() {
    let receiver = Receiver::new();
    let folder = Folder::new();
    let config = folder.write(
        "ringcast.toml",
        &format!(
            "[[webhooks]]\nname = \"a\"\nurl = \"{}\"\nevents = \"publication\"\nchannels = \"**\"\ninterval_ms = 0\n\
             queue_bytes = 2048\nbatch_events = 5\ntimeout_ms = 1000\n",
            receiver.url()
        ),
    );
    let data = folder.file("data");
    let start = || {
        Process::start(&[
            ("RINGCAST_CONFIG", config.to_str().unwrap()),
            ("RINGCAST_DATA_DIR", data.to_str().unwrap()),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ])
    };
    let publish = |server: &Process, from: u64, to: u64| {
        let mut client = server.client();
        for number in from..to {
            client.publish("news", &number.to_string());
        }
        client.ping();
        // Until they are queued and committed: three times the time between two commits.
        let admin = server.admin;
        let wanted = to - from;
        eventually("all are queued", || {
            metric_at(admin, "ringcast_webhook_queued_total{webhook=\"a\"}") == Some(wanted)
        });
    };
    receiver.set(Mode::Status(503));
    let mut crashed = start();
    publish(&crashed, 0, 100);
    eventually("all are on disk", || on_disk(&folder, &data) == 100);
    crashed.signal(Signal::SIGKILL);
    assert_eq!(crashed.exit_code(), None);

    let mut stopped = start();
    stopped.logged("webhook a: 100 events wait on disk");
    publish(&stopped, 100, 200);
    stopped.signal(Signal::SIGTERM);
    stopped.logged("events wait on disk for the next start");
    assert_eq!(stopped.exit_code(), Some(0));
    assert!(receiver.taken().is_empty());

    receiver.set(Mode::Take);
    let last = start();
    last.logged("webhook a: 200 events wait on disk");
    publish(&last, 200, 300);
    eventually("all are taken", || receiver.words().len() == 300);
    let mut ids = BTreeSet::new();
    let mut events = receiver.taken();
    events.retain(|event| ids.insert(event["id"].as_str().unwrap().to_owned()));
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..300).collect::<Vec<u64>>());
    // What was delivered is not delivered again after another crash.
    eventually("nothing is on disk", || on_disk(&folder, &data) == 0);
    let mut last = last;
    last.signal(Signal::SIGKILL);
    last.exit_code();
    let taken = receiver.taken().len();
    let next = start();
    publish(&next, 300, 301);
    eventually("the next is taken", || receiver.taken().len() > taken);
    assert_eq!(receiver.taken().len(), taken + 1);
}

/// The events on disk, read from a copy of the file with redb itself.
fn on_disk(folder: &Folder, data: &std::path::Path) -> usize {
    use redb::{ReadableDatabase, ReadableTableMetadata};
    let copy = folder.file("copy.redb");
    std::fs::copy(data.join("webhooks.redb"), &copy).unwrap();
    // The copy may have caught a commit under way.
    let Ok(database) = redb::Database::open(&copy) else {
        return usize::MAX;
    };
    let events: redb::TableDefinition<'_, (u32, u64), &[u8]> = redb::TableDefinition::new("events");
    let table = database.begin_read().unwrap().open_table(events);
    table.map_or(0, |table| usize::try_from(table.len().unwrap()).unwrap())
}

/// A process that takes over sends nothing before the older process has ended: the events that it left come first.
#[test]
fn a_process_that_takes_over_goes_on_with_waiting_events() {
    let receiver = Receiver::new();
    receiver.set(Mode::Status(503));
    let folder = Folder::new();
    let config = folder.write(
        "ringcast.toml",
        &format!(
            "[[webhooks]]\nname = \"a\"\nurl = \"{}\"\nevents = \"publication\"\nchannels = \"**\"\ninterval_ms = 0\n",
            receiver.url()
        ),
    );
    let data = folder.file("data");
    let start = |more: &[(&str, &str)]| {
        let mut settings = vec![
            ("RINGCAST_CONFIG", config.to_str().unwrap()),
            ("RINGCAST_DATA_DIR", data.to_str().unwrap()),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
            ("RINGCAST_TAKE_OVER", "on"),
        ];
        settings.extend(more);
        Process::start(&settings)
    };
    let queued = |server: &Process| metric_at(server.admin, "ringcast_webhook_queued_total{webhook=\"a\"}");
    let mut old = start(&[]);
    let mut client = old.client();
    client.publish("news", "1");
    client.ping();
    eventually("the first is queued", || queued(&old) == Some(1));
    let listen = old.address.to_string();
    let new = start(&[("RINGCAST_LISTEN", &listen)]);
    new.logged("webhooks: another process has the file in data_dir");
    client.publish("news", "2");
    client.ping();
    eventually("the second is queued", || queued(&old) == Some(2));
    drop(client);
    old.signal(Signal::SIGTERM);
    assert_eq!(old.exit_code(), Some(0));
    let mut client = new.client();
    client.publish("news", "3");
    client.ping();
    new.logged("webhook a: 2 events wait on disk");
    receiver.set(Mode::Take);
    eventually("all are taken", || receiver.taken().len() >= 3);
    let data: Vec<u64> = receiver
        .taken()
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert_eq!(data, [1, 2, 3]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn a_client_is_told_of_with_its_user() {
    let receiver = Receiver::new();
    const KEY: &str = "a key for the tests of webhooks";
    let server = Server::start(|config| {
        config.auth.key = Some(Secret::new(KEY));
        presence(config, "room.*");
        config
            .webhooks
            .push(webhook(&receiver, &WebhookEvent::ALL, &["room.*"]));
    });
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(since.as_millis()).unwrap();
    let token = tokens.sign(r#"{"sub":"alice"}"#, Some(3600), now).unwrap();
    let mut client = server.client();
    let answer = client.call("#authenticate", &format!("\"{token}\""));
    assert!(answer.contains("\"isAuthenticated\":true"), "{answer}");
    client.subscribe("room.1");
    let joined = receiver.event("member_joined");
    assert_eq!(
        (&joined["user"], &joined["connection"]),
        (&"alice".into(), &Value::Null)
    );
    drop(client);
    assert_eq!(receiver.event("disconnected")["user"], "alice");
    assert_eq!(
        receiver.event("connected")["user"],
        Value::Null,
        "it had no token then"
    );
    assert_eq!(receiver.event("member_left")["user"], "alice");
    // The requests contain no token and no key.
    let sent: String = receiver
        .requests()
        .iter()
        .map(|request| [&*request.head, &*request.body].concat())
        .collect();
    assert!(!sent.contains(&token) && !sent.contains(KEY));
}

#[test]
fn without_data_dir_events_that_wait_at_the_end_are_counted_in_the_log() {
    let receiver = Receiver::new();
    receiver.set(Mode::Status(500));
    let folder = Folder::new();
    let config = folder.write(
        "ringcast.toml",
        &format!(
            "[[webhooks]]\nname = \"a\"\nurl = \"{}\"\nevents = \"connected\"\n",
            receiver.url()
        ),
    );
    let mut server = Process::start(&[
        ("RINGCAST_CONFIG", config.to_str().unwrap()),
        ("RINGCAST_DRAIN_SECONDS", "0"),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
    ]);
    let _client = server.client();
    server.logged("webhook a: a request has failed: the answer is 500");
    server.signal(Signal::SIGTERM);
    server.logged("webhook a: 1 events were not delivered before the end of the server, and are lost");
    assert_eq!(server.exit_code(), Some(0));
}

/// The last events are delivered when the server ends.
#[test]
fn a_server_that_drains_tells_of_the_end_of_its_clients() {
    let receiver = Receiver::new();
    let server = Server::start(|config| {
        let events = [
            WebhookEvent::Disconnected,
            WebhookEvent::ChannelVacated,
            WebhookEvent::ChannelOccupied,
        ];
        let mut spec = webhook(&receiver, &events, &[]);
        spec.interval = Duration::from_secs(60);
        config.webhooks.push(spec);
    });
    let mut client = server.client();
    client.subscribe("a");
    server.running().drain();
    assert_eq!(
        client.event(),
        support::Received::Close(Some(1001), String::new())
    );
    drop(client);
    server.wait();
    let words = receiver.words();
    assert_eq!(words, ["channel_occupied a", "disconnected", "channel_vacated a"]);
    assert_eq!(receiver.event("disconnected")["reason"], "draining");
    assert_eq!(receiver.event("disconnected")["code"], 1001);
}

#[test]
fn slow_consumers_and_limits_are_told_of() {
    for (policy, outcome) in [
        (SlowConsumer::Close, "closed"),
        (SlowConsumer::Skip, "skipped"),
        (SlowConsumer::Conflate, "conflated"),
    ] {
        let receiver = Receiver::new();
        let server = Server::start(|config| {
            config.limits.outbox_bytes_max = 64 * 1024;
            config.delivery.slow_consumer = policy;
            let events = [WebhookEvent::SlowConsumer, WebhookEvent::LimitHit];
            config.webhooks.push(webhook(&receiver, &events, &[]));
        });
        let mut slow = Client::connect_narrow(server.address);
        slow.upgrade();
        slow.handshake();
        slow.subscribe("news");
        let mut publisher = server.client();
        let data = format!("\"{}\"", "x".repeat(4096));
        let deadline = support::now() + PATIENCE;
        while !receiver.words().contains(&"slow_consumer".to_owned()) {
            publisher.publish("news", &data);
            publisher.ping();
            assert!(support::now() < deadline, "{policy:?}");
        }
        let event = receiver.event("slow_consumer");
        assert_eq!(
            (&event["connection"], &event["outcome"]),
            (&slow.id.clone().into(), &outcome.into())
        );
        let hit = receiver.event("limit_hit");
        assert_eq!(hit["limit"], "outbox_bytes");
        assert!(hit["hits"].as_u64() > Some(0));
        let told = receiver
            .words()
            .iter()
            .filter(|word| *word == "slow_consumer")
            .count();
        assert_eq!(told, 1, "{policy:?}");
    }
}

/// Addresses of the machine, such as the metadata service of a cloud, get no request unless the operator allows it.
#[test]
fn a_url_that_leads_to_the_machine_itself_gets_no_request() {
    let folder = Folder::new();
    let config = folder.write(
        "ringcast.toml",
        "[[webhooks]]\nname = \"a\"\nurl = \"http://169.254.169.254/latest\"\nevents = \"connected\"\n",
    );
    let server = Process::start(&[("RINGCAST_CONFIG", config.to_str().unwrap())]);
    let _client = server.client();
    let line = server.logged("webhook a: a request has failed");
    assert!(line.contains("169.254.169.254 is link-local"), "{line}");
}

#[test]
fn the_command_hooks_test_sends_one_event_of_each_kind() {
    let receiver = Receiver::new();
    let folder = Folder::new();
    let secret = folder.write("secret", "0123456789abcdef0123456789abcdef");
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args([
                "hooks",
                "test",
                &receiver.url(),
                "--secret-file",
                secret.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = run();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text.matches("delivered in").count(),
        WebhookEvent::COUNT,
        "{text}"
    );
    let mut kinds: Vec<String> = receiver
        .taken()
        .iter()
        .map(|event| event["event"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    let mut all = WebhookEvent::LABELS.map(str::to_owned);
    all.sort();
    assert_eq!(kinds, all);
    assert!(
        receiver
            .requests()
            .iter()
            .all(|request| request.header("ringcast-signature").is_some())
    );
    receiver.set(Mode::Status(500));
    let (code, text) = run();
    assert_eq!(code, Some(69), "{text}");
    assert!(
        text.contains("failed: the answer is 500") && !text.contains("0123456789"),
        "{text}"
    );
}

#[test]
fn a_session_of_a_device_that_is_away_holds_its_channels() {
    let receiver = Receiver::new();
    let server = MqttServer::start(|config| {
        config.limits.webhook_vacated_delay = Duration::ZERO;
        let events = [
            WebhookEvent::ChannelOccupied,
            WebhookEvent::ChannelVacated,
            WebhookEvent::Disconnected,
        ];
        config.webhooks.push(webhook(&receiver, &events, &[]));
    });
    // Session Expiry Interval: an hour.
    let connect = mqtt::connect_with(5, 0, 60, &[0x11, 0, 0, 0x0e, 0x10], &mqtt::string("device"));
    let mut device: Mqtt = server.connect_with(mqtt::Over::Tcp, 5, &connect);
    device.subscribe("a/b", 1);
    receiver.event("channel_occupied");
    drop(device);
    receiver.event("disconnected");
    let mut client = server.server.client();
    client.subscribe("mark");
    eventually("the mark is told", || {
        receiver.words().contains(&"channel_occupied mark".to_owned())
    });
    assert!(
        !receiver
            .words()
            .iter()
            .any(|word| word.starts_with("channel_vacated")),
        "{:?}",
        receiver.words()
    );
}

/// The programs in `docs/webhooks.md` accept requests that are signed with their secret, and refuse others.
#[test]
fn the_receivers_of_the_page_take_signed_requests_and_no_others() {
    let page = include_str!("../docs/webhooks.md");
    for (language, file, program) in [
        ("js", "webhook.js", "node webhook.js"),
        ("python", "webhook.py", "python3 webhook.py"),
        ("php", "webhook.php", "php -S 127.0.0.1:$PORT webhook.php"),
    ] {
        let name = program.split(' ').next().unwrap();
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .output()
            .unwrap();
        if !found.status.success() {
            // Machines of developers may lack PHP; Node.js and Python are used by other tests as well.
            assert_eq!(language, "php", "{program} is missing");
            println!("php is missing: its receiver was not run");
            continue;
        }
        let code = page
            .split(&format!("```{language}\n"))
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let folder = Folder::new();
        folder.write(file, code);
        let right = folder.write("right", "0123456789abcdef0123456789abcdef");
        let both = folder.write(
            "both",
            "a secret that replaces it\n0123456789abcdef0123456789abcdef\n",
        );
        let wrong = folder.write("wrong", "0123456789abcdef0123456789abcdee");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut receiver = Command::new("sh")
            .args(["-c", &format!("exec {program}")])
            .current_dir(folder.path())
            .env("PORT", port.to_string())
            .env("SECRET", "0123456789abcdef0123456789abcdef")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("the receiver listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let sends = |secret: &std::path::Path| {
            let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
                .args([
                    "hooks",
                    "test",
                    &format!("http://127.0.0.1:{port}/"),
                    "--secret-file",
                    secret.to_str().unwrap(),
                ])
                .output()
                .unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        let texts = [sends(&right), sends(&both), sends(&wrong)];
        receiver.kill().unwrap();
        receiver.wait().unwrap();
        for (text, delivered) in texts.iter().zip([WebhookEvent::COUNT, WebhookEvent::COUNT, 0]) {
            assert_eq!(
                text.matches("delivered in").count(),
                delivered,
                "{language}: {text}"
            );
        }
        assert_eq!(
            texts[2].matches("the answer is 401").count(),
            WebhookEvent::COUNT,
            "{language}: {}",
            texts[2]
        );
    }
}
