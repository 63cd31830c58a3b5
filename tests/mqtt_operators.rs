//! MQTT clients have all that operators know of SocketCluster clients: reports, the budget of memory, policies for slow
//! consumers, revocation, the audit trail, restarts, a take-over of the port, and sockets of a service manager.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use ringcast::config::limits::MemoryMax;
use ringcast::config::rules::{Action, Effect, RuleSpec};
use ringcast::config::{Config, Placement, SlowConsumer};
use ringcast::internals::decision::{CloseReason, Limit};
use ringcast::internals::metrics::block::HeldKind;
use ringcast::server::{Answers, ClientFailure, HandleError, Selection};
use support::folder::Folder;
use support::mqtt::{Mqtt, Over, ack, connect, connect_with, packet, publish, string, subscribe};
use support::process::{Held, Process};
use support::{Client, PATIENCE, Server, eventually, now};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn server(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.cores.placement = Placement::Count(1);
        config.mqtt.listen = Some(ANY);
        config.mqtt.sys_interval_seconds = 0;
        config.limits.outbox_bytes_max = 64 * 1024;
        change(config);
    })
}

fn client(server: &Server, version: u8, id: &str) -> Mqtt {
    Mqtt::at(server.running().mqtt_address().unwrap(), version, id)
}

/// A subscriber of everything whose sockets hold few bytes, with this QoS.
fn narrow(server: &Server, id: &str, qos: u8) -> Mqtt {
    let socket = Client::connect_narrow(server.running().mqtt_address().unwrap());
    let mut client = Mqtt::over(socket, Over::Tcp, 5);
    client.send(&connect(5, id));
    client.accepted();
    client.subscribe("#", qos);
    client
}

/// Publishes with this QoS until something has happened, each time with the number of the publication. A healthy
/// subscriber gets all of them at once.
fn publish_until(server: &Server, qos: u8, mut has_happened: impl FnMut() -> bool) -> usize {
    let mut publisher = client(server, 4, "publisher");
    let mut healthy = client(server, 4, "healthy");
    healthy.subscribe("#", 0);
    let deadline = now() + PATIENCE;
    let mut count = 0;
    while !has_happened() {
        let topic = ["a", "b"][count % 2];
        let payload = format!("{count:08}{}", "x".repeat(4000));
        let id = u16::try_from(count % 60_000 + 1).unwrap();
        publisher.send(&publish(4, qos << 1, topic, id, &[], payload.as_bytes()));
        let got = healthy.message();
        assert_eq!((got.topic.as_str(), got.payload), (topic, payload.into_bytes()));
        if qos == 1 {
            publisher.expect(&ack(0x40, id));
        }
        count += 1;
        assert!(now() < deadline, "it does not happen");
    }
    count
}

/// The numbers in the publications of a client, until `last` has come for its topic.
fn numbers_until(client: &mut Mqtt, last: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let message = client.message();
        if message.qos == 1 {
            client.send(&ack(0x40, message.id));
        }
        numbers.push(str::from_utf8(&message.payload[..8]).unwrap().parse().unwrap());
    }
    numbers
}

#[test]
fn a_subscriber_with_qos_0_that_never_reads_is_closed_and_delays_no_other() {
    let server = server(|_| {});
    let _slow = narrow(&server, "slow", 0);
    publish_until(&server, 0, || server.closes(CloseReason::SlowConsumer) == 1);
    assert_eq!(server.limit_hits(Limit::OutboxBytes), 1);
}

#[test]
fn with_the_policies_skip_and_conflate_a_subscriber_that_goes_on_has_missed_some_and_nothing_goes_backward() {
    for policy in [SlowConsumer::Skip, SlowConsumer::Conflate] {
        let server = server(|config| config.delivery.slow_consumer = policy);
        let mut slow = narrow(&server, "slow", 0);
        let missed = || {
            server.total(|core| &core.publications_skipped)
                + server.total(|core| &core.publications_conflated)
        };
        let count = publish_until(&server, 0, || missed() >= 20);
        if policy == SlowConsumer::Skip {
            // It has not got the last ones.
            slow.send(&[0xc0, 0]);
            let mut got = 0;
            while slow.packet()[0] != 0xd0 {
                got += 1;
            }
            assert!(got < count, "{got} of {count}");
        } else {
            // It gets the newest of each of the two topics.
            let numbers = numbers_until(&mut slow, count - 1);
            assert!(numbers.is_sorted(), "{numbers:?}");
            assert_eq!(numbers[numbers.len() - 2], count - 2);
            assert!(numbers.len() < count);
        }
        assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
    }
}

#[test]
fn a_subscriber_with_qos_1_that_does_not_read_has_its_queue_and_is_not_closed() {
    for policy in [SlowConsumer::Close, SlowConsumer::Skip, SlowConsumer::Conflate] {
        let server = server(|config| {
            config.delivery.slow_consumer = policy;
            config.mqtt.queue_messages_max = 50;
            config.mqtt.in_flight_max = 5;
        });
        let mut slow = narrow(&server, "slow", 1);
        publish_until(&server, 1, || server.limit_hits(Limit::MqttQueue) >= 10);
        // Five in flight and fifty that have waited, in order.
        let numbers = numbers_until(&mut slow, 54);
        assert_eq!(numbers, (0..55).collect::<Vec<_>>());
        slow.ping();
        assert_eq!(server.closes(CloseReason::SlowConsumer), 0);
    }
}

#[test]
fn the_bytes_of_all_connections_are_bounded_and_mqtt_connections_that_hold_most_are_closed() {
    const TOTAL_MAX: u64 = 1 << 20;
    let server = server(|config| {
        config.limits.outbox_bytes_max = 512 * 1024;
        config.limits.outbox_bytes_total_max = MemoryMax::Bytes(TOTAL_MAX);
        config.limits.close_timeout = PATIENCE;
    });
    let _slow: Vec<Mqtt> = (0..20)
        .map(|number| narrow(&server, &format!("slow-{number}"), 0))
        .collect();
    let held = || -> u64 {
        let kinds = 0..HeldKind::COUNT;
        kinds
            .map(|kind| server.total(|core| &core.held_bytes[kind]))
            .sum()
    };
    publish_until(&server, 0, || {
        assert!(held() <= 2 * TOTAL_MAX, "{} bytes are held", held());
        server.closes(CloseReason::HoldsMost) >= 5
    });
    // Packets that never end count as well.
    let mut half: Vec<Mqtt> = (0..10)
        .map(|number| client(&server, 4, &format!("half-{number}")))
        .collect();
    let closed = server.closes(CloseReason::HoldsMost);
    let packet = publish(4, 0, "half", 0, &[], &vec![b'x'; 900_000]);
    for client in &mut half {
        client.try_send(&packet[..800_000]);
    }
    eventually("some of them are closed", || {
        server.closes(CloseReason::HoldsMost) > closed
    });
    client(&server, 4, "healthy").ping();
}

/// The settings of a process that speaks MQTT at the port for all clients.
const MQTT: (&str, &str) = ("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt");

#[test]
fn operators_find_slow_and_closed_mqtt_connections() {
    let process = Process::start(&[MQTT, ("RINGCAST_CORES", "1"), ("RINGCAST_SLOW_CONSUMER", "skip")]);
    let mut admin = process.admin();
    let mut slow = Mqtt::over(Client::connect_narrow(process.address), Over::Tcp, 5);
    slow.send(&connect(5, "slow"));
    slow.accepted();
    slow.subscribe("#", 0);
    let mut publisher = Mqtt::at(process.address, 4, "publisher");
    eventually("it is listed as slow", || {
        publisher.send(&publish(4, 0, "t", 0, &[], &[b'x'; 30_000]));
        publisher.ping();
        let (status, rows) = admin.get("/slow");
        assert_eq!(status, 200);
        rows.contains("\"mqtt\"")
    });
    drop((slow, publisher));
    for (id, bytes) in [("malformed", &[0x00, 0x00][..]), ("orderly", &[0xe0, 0x00])] {
        let mut client = Mqtt::at(process.address, 4, id);
        client.send(bytes);
        assert_eq!(client.next(), None);
    }
    let mut rows = String::new();
    eventually("their ends are listed", || {
        rows = admin.get("/closed").1;
        rows.contains("malformed_mqtt") && rows.contains("mqtt_disconnected")
    });
    assert!(rows.contains("\"mqtt\""), "{rows}");
}

/// Settings with one user, `ann` with the password `right`, and one channel that clients may use.
#[test]
fn a_program_unsubscribes_mqtt_clients_changes_their_claims_and_gets_errors_for_operations_that_mqtt_lacks() {
    let server = server(|config| {
        config.permissions.rules = vec![RuleSpec {
            effect: Effect::Allow,
            actions: vec![Action::Subscribe, Action::Publish],
            channels: Some(vec!["a".to_owned(), "own.{sub}".to_owned()]),
            ..RuleSpec::default()
        }];
    });
    let handle = server.running().handle();
    let mut device = client(&server, 5, "device");
    device.subscribe("a", 0);
    let all = Selection::All;
    let not_in_protocol = Err(HandleError::NotInProtocol);
    assert_eq!(handle.transmit(&all, "hello", &1).wait(), not_in_protocol);
    assert_eq!(handle.subscribe_connections(&all, "a").wait(), not_in_protocol);
    let answers = handle.call_clients(&all, "hello", &1, PATIENCE, Answers::All);
    let answers = answers.wait().unwrap().answers;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].result, Err(ClientFailure::NoCalls));
    assert_eq!(
        handle.call(answers[0].id, "hello", &1, PATIENCE).wait(),
        Err(HandleError::NotInProtocol)
    );
    // With another client, that one alone counts.
    let mut other = server.client();
    assert_eq!(handle.transmit(&all, "hello", &1).wait(), Ok(1));
    assert_eq!(other.message(), r#"{"event":"hello","data":1}"#);
    drop(other);

    let unsubscribe = |filter| handle.unsubscribe_connections(&all, filter, None).wait();
    assert_eq!(unsubscribe(Some("b")), Ok(0));
    assert_eq!(unsubscribe(Some("a")), Ok(1));
    assert_eq!(unsubscribe(None), Ok(0));
    handle.publish("a", &1).wait().unwrap();
    device.ping();
    device.subscribe("a", 0);
    handle.publish("a", &2).wait().unwrap();
    assert_eq!(device.message().payload, b"2");

    let it = Selection::Session(answers[0].id);
    assert_eq!(handle.remove_token(&it).wait(), Ok(0));
    let claims = serde_json::json!({"sub": "ann"});
    assert_eq!(handle.set_claims(&it, &claims, None).wait(), Ok(1));
    device.subscribe("own.ann", 0);
    let ann = Selection::User("ann".to_owned());
    assert_eq!(handle.connections(&ann, None, 10).wait().unwrap().items.len(), 1);
    // The rules do not allow the new user its subscription, and in MQTT the server can only end the connection then.
    assert_eq!(handle.remove_token(&it).wait(), Ok(1));
    device.expect_end(0x87);
}

fn users(folder: &Folder) -> Vec<(&'static str, String)> {
    let passwords = folder.write_user("ann", "right", 101);
    let rules = "[[rules]]\nallow = [\"publish\", \"subscribe\"]\nchannels = \"open\"\n";
    let config = folder.write("ringcast.toml", rules);
    let path = |file: PathBuf| file.into_os_string().into_string().unwrap();
    vec![
        ("RINGCAST_PASSWORD_FILE", path(passwords)),
        ("RINGCAST_CONFIG", path(config)),
        ("RINGCAST_AUTH_KEY", "the key of all tokens".to_owned()),
        ("RINGCAST_ADMIN_KEY", ADMIN_KEY.to_owned()),
        ("RINGCAST_LOG_FORMAT", "text".to_owned()),
        ("RINGCAST_ALLOW_ANONYMOUS", "off".to_owned()),
        (MQTT.0, MQTT.1.to_owned()),
    ]
}

const ADMIN_KEY: &str = "the key of all operators";

/// Asks the control plane to revoke `ann`, and returns the answer.
fn revoke(process: &Process) -> String {
    let body = r#"{"sub":"ann"}"#;
    let mut stream = TcpStream::connect(process.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST /revoke HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {ADMIN_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// CONNECT with a user name and a password.
fn login(version: u8, id: &str, user: &str, password: &str) -> Vec<u8> {
    let payload = [string(id), string(user), string(password)].concat();
    connect_with(version, 0xc2, 0, &[], &payload)
}

#[test]
fn the_audit_trail_has_logins_refusals_and_revocations_of_mqtt_clients_and_no_secret() {
    let folder = Folder::new();
    let settings = users(&folder);
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let process = Process::start(&settings);
    let mut lines = Vec::new();
    let mut expect = |start: &str, parts: &[&str]| {
        let line = process.logged(start);
        for part in parts {
            assert!(line.contains(part), "{part} in {line}");
        }
        lines.push(line);
    };
    let open = |version| Mqtt::over(process.connect(), Over::Tcp, version);
    let mut refused = open(5);
    refused.send(&login(5, "bad", "ann", "a wrong guess"));
    assert_eq!(refused.packet()[3], 0x86);
    expect(
        "login refused",
        &[r#"by="connect""#, r#"user="ann""#, r#"reason="credentials""#],
    );
    let mut anonymous = open(4);
    anonymous.send(&connect(4, "nobody"));
    assert_eq!(anonymous.packet(), [0x20, 2, 0, 5]);
    expect(
        "action refused",
        &[
            r#"reason="anonymous""#,
            r#"action="connect""#,
            "address=127.0.0.1",
        ],
    );
    let mut token = open(4);
    token.send(&login(
        4,
        "token",
        "ann",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2VjcmV0",
    ));
    assert_eq!(token.packet(), [0x20, 2, 0, 4]);
    expect("token refused", &[r#"by="connect""#, "address=127.0.0.1"]);
    let mut ann: Vec<Mqtt> = [3, 4, 5].map(open).into();
    for (number, client) in ann.iter_mut().enumerate() {
        let version = u8::try_from(number).unwrap() + 3;
        client.send(&login(version, &format!("ann-{number}"), "ann", "right"));
        client.accepted();
        expect("login accepted", &[r#"user="ann""#, r#"by="connect""#]);
    }
    ann[2].send(&subscribe(5, 1, &[], &[("closed", 0)]));
    assert_eq!(ann[2].packet().last(), Some(&0x87));
    expect(
        "action refused",
        &[r#"user="ann""#, r#"action="subscribe""#, r#"name="closed""#],
    );
    assert!(revoke(&process).starts_with("HTTP/1.1 200"));
    expect("revocation", &[r#"action="revoked""#, "connections=3"]);
    // Only MQTT 5 has a packet for it.
    ann.remove(2).expect_end(0x87);
    for client in &mut ann {
        assert_eq!(client.next(), None);
    }
    let lines = lines.concat();
    for secret in ["a wrong guess", "right", "c2VjcmV0", ADMIN_KEY] {
        assert!(!lines.contains(secret), "{secret} in {lines}");
    }
}

#[test]
fn a_client_that_is_revoked_while_its_connection_moves_is_closed() {
    // Half of the connections are accepted by the first core, and half of those have an identifier of the second.
    const CLIENTS: u64 = 64;
    let folder = Folder::new();
    let mut settings = users(&folder);
    settings.push(("RINGCAST_FD_TABLES", "auto".to_owned()));
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let process = Process::start(&settings);
    // The request of a WebSocket has the cookie of a login in a browser.
    let body = r#"{"user":"ann","password":"right"}"#;
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = support::ask(process.address, &request);
    let token = answer
        .split("ringcast=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let mut clients: Vec<Mqtt> = (0..CLIENTS)
        .map(|_| {
            let mut client = process.connect();
            let headers = format!("\r\nSec-WebSocket-Protocol: mqtt\r\nCookie: ringcast={token}\r\n\r\n");
            let request = support::UPGRADE
                .replace("/socketcluster/", "/mqtt")
                .replace("\r\n\r\n", &headers);
            client.send_bytes(request.as_bytes());
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            Mqtt::over(client, Over::WebSocket, 5)
        })
        .collect();
    let mut admin = process.admin_with_key(ADMIN_KEY);
    let held = Held::thread(process.pid(), "core 1");
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&connect(5, &format!("client-{number}")));
    }
    eventually("some are on their way to the core that stands still", || {
        admin.metric("ringcast_connections") <= CLIENTS - 2
    });
    let revoking = std::thread::scope(|scope| {
        let revoking = scope.spawn(|| revoke(&process));
        eventually("the other core has closed its own", || {
            admin.metric("ringcast_closes_total{reason=\"revoked\"}") > 0
        });
        drop(held);
        revoking.join().unwrap()
    });
    assert!(revoking.starts_with("HTTP/1.1 200"), "{revoking}");
    eventually("all are closed", || admin.metric("ringcast_connections") == 0);
    assert_eq!(admin.metric("ringcast_closes_total{reason=\"revoked\"}"), CLIENTS);
}

#[test]
fn a_subscription_gets_nothing_live_that_was_acknowledged_before_also_on_a_core_that_has_fallen_behind() {
    let process = Process::start(&[MQTT, ("RINGCAST_RING_SLOTS", "65536")]);
    let mut clients: Vec<Mqtt> = (0..16)
        .map(|number| Mqtt::at(process.address, 4, &format!("client-{number}")))
        .collect();
    let held = Held::thread(process.pid(), "core 1");
    for client in &mut clients {
        client.send(&[0xc0, 0]);
    }
    // A client of the other core answers.
    let at = (0..).map(|at| at % 16).find(|&at| {
        let socket = &clients[at].client.stream;
        socket.set_nonblocking(true).unwrap();
        let has_come = socket.peek(&mut [0]).is_ok();
        socket.set_nonblocking(false).unwrap();
        has_come
    });
    let mut publisher = clients.remove(at.unwrap());
    publisher.expect(&[0xd0, 0]);
    // More than a turn delivers.
    let one = publish(4, 0, "t", 0, &[], b"before");
    for _ in 0..20 {
        publisher.send(&one.repeat(1000));
        publisher.ping();
    }
    for client in &mut clients {
        client.send(&subscribe(4, 1, &[], &[("t", 0)]));
    }
    drop(held);
    for client in &mut clients {
        client.expect(&[0xd0, 0]);
        client.expect(&[0x90, 3, 0, 1, 0]);
        client.ping();
    }
    publisher.send(&publish(4, 0, "t", 0, &[], b"after"));
    for client in &mut clients {
        assert_eq!(client.message().payload, b"after");
    }
}

#[test]
fn a_new_process_takes_the_mqtt_port_over_and_the_old_one_names_the_other_server() {
    let port = TcpListener::bind(ANY).unwrap().local_addr().unwrap().to_string();
    let mqtt = [
        ("RINGCAST_MQTT_LISTEN", port.as_str()),
        ("RINGCAST_MQTT_SERVER_REFERENCE", "other.example:1883"),
        ("RINGCAST_TAKE_OVER", "on"),
    ];
    let mut old = Process::start(&mqtt);
    let address: SocketAddr = port.parse().unwrap();
    let (mut new_version, mut old_version) = (Mqtt::at(address, 5, "five"), Mqtt::at(address, 4, "four"));
    let listen = old.address.to_string();
    let new = Process::start(&[&mqtt[..], &[("RINGCAST_LISTEN", listen.as_str())]].concat());
    old.signal(Signal::SIGTERM);
    let farewell = new_version.packet();
    assert_eq!((farewell[0], farewell[2]), (0xe0, 0x9c));
    let reference = b"\x1c\x00\x12other.example:1883";
    assert!(farewell.windows(reference.len()).any(|part| part == reference));
    assert_eq!(new_version.next(), None);
    assert_eq!(old_version.next(), None);
    assert_eq!(old.exit_code(), Some(0));
    // All come to the new process now.
    for number in 0..8 {
        Mqtt::at(address, 5, &format!("again-{number}")).ping();
    }
    assert!(new.admin().metric("ringcast_accepts_total") >= 8);
}

#[test]
fn a_socket_of_the_service_manager_speaks_mqtt_and_a_restart_refuses_no_client() {
    let (listen, mqtt) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
    let start = || {
        let mut command = Command::new("sh");
        let script = format!(
            "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec {}",
            env!("CARGO_BIN_EXE_ringcast")
        );
        command
            .args(["-c", &script])
            .stdin(OwnedFd::from(listen.try_clone().unwrap()))
            .stdout(OwnedFd::from(mqtt.try_clone().unwrap()))
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "listen:mqtt");
        Process::spawn(command, &[("RINGCAST_DRAIN_SECONDS", "0")])
    };
    let address = mqtt.local_addr().unwrap();
    let mut process = start();
    let mut before: Vec<Mqtt> = (0..8)
        .map(|number| Mqtt::at(address, 5, &format!("client-{number}")))
        .collect();
    process.signal(Signal::SIGTERM);
    for client in &mut before {
        client.expect_end(0x8b);
    }
    assert_eq!(process.exit_code(), Some(0));
    let mut waiting = Mqtt::over(Client::connect(address), Over::Tcp, 5);
    waiting.send(&connect(5, "waiting"));
    let _next = start();
    waiting.accepted();
    waiting.ping();
}

/// Clients that do not do as they should, beside clients that get all that is published.
#[test]
fn hostile_mqtt_clients_do_not_disturb_the_others() {
    for cores in [1, 3] {
        let server = server(|config| {
            config.cores.placement = Placement::Count(cores);
            config.limits.outbox_bytes_max = 256 * 1024;
            config.mqtt.queue_messages_max = 100;
        });
        let mut healthy: Vec<Mqtt> = (0..6)
            .map(|number| {
                let mut client = client(&server, 5, &format!("healthy-{number}"));
                client.subscribe("news/#", 1);
                client
            })
            .collect();
        let mut hostile: Vec<Mqtt> = (0..24)
            .map(|number| client(&server, 5, &format!("hostile-{number}")))
            .collect();
        let topics: Vec<String> = (0..200).map(|number| format!("news/{number}/#")).collect();
        let many: Vec<(&str, u8)> = topics.iter().map(|topic| (topic.as_str(), 1)).collect();
        let property = [&[0x26][..], &string("name"), &string("value")].concat();
        for round in 0..30_u16 {
            for (number, client) in hostile.iter_mut().enumerate() {
                let id = round + 1;
                let bytes = match number % 6 {
                    // A packet that comes byte by byte and never ends.
                    0 if round == 0 => vec![0x30, 0xff, 0xff, 0x03],
                    0 => vec![b'x'],
                    1 => subscribe(5, id, &[], &many),
                    2 => publish(5, 0, "noise", 0, &property.repeat(500), b""),
                    // QoS 2 that is never completed.
                    3 => publish(5, 0x04, "noise", id, &[], b"x"),
                    // Retained publications are asked for again and again, and not acknowledged.
                    4 => [
                        subscribe(5, id, &[], &[("#", 1)]),
                        publish(5, 0x01, "noise/x", 0, &[], b"x"),
                    ]
                    .concat(),
                    _ => packet(0xc0, &[]).repeat(200),
                };
                client.try_send(&bytes);
            }
            let mut publisher = client(&server, 5, "publisher");
            let payload = round.to_string();
            publisher.send(&publish(5, 0x02, "news/1/x", 1, &[], payload.as_bytes()));
            assert_eq!(publisher.packet()[0], 0x40);
            for client in &mut healthy {
                let got = client.message();
                assert_eq!(got.payload, payload.as_bytes(), "cores {cores}, round {round}");
                client.send(&ack(0x40, got.id));
            }
        }
        for client in &mut healthy {
            client.ping();
        }
    }
}
