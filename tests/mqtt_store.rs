//! `data_dir` for MQTT: retained publications and sessions after a restart, a crash and a full disk.
//!
//! The tests read the file with redb itself, not with the code that wrote it, by the tables in the head of
//! `src/store/database.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which prints its seed

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use support::api::{JSON, Key, write_config};
use support::eventually;
use support::folder::Folder;
use support::mqtt::{self, Mqtt};
use support::process::{Held, Process, fill_disk, with_small_disk};

/// A folder with a place for the store.
struct Place {
    folder: Folder,
    data: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = Folder::new();
        let data = folder.file("data");
        Place { folder, data }
    }

    fn start(&self, settings: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command.stdin(Stdio::null());
        self.spawn(command, settings)
    }

    /// Starts a server by a command of the test, which must end with the path of the binary.
    fn spawn(&self, mut command: Command, settings: &[(&str, &str)]) -> Process {
        command
            .env("RINGCAST_DATA_DIR", &self.data)
            .env("RINGCAST_CLIENT_PROTOCOLS", "socketcluster,mqtt")
            .env("RINGCAST_STORE_FLUSH_MS", "5")
            .env("RINGCAST_DRAIN_SECONDS", "0")
            .env("RINGCAST_CLOSE_TIMEOUT_MS", "200");
        Process::spawn(command, settings)
    }

    /// The topics with a retained publication on disk, and their payloads. The server has ended.
    fn retained(&self) -> BTreeMap<String, String> {
        let copy = self.folder.file("copy.redb");
        fs::copy(self.data.join("store.redb"), &copy).unwrap();
        let database = Database::open(&copy).unwrap();
        let retained: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("retained");
        let Ok(table) = database.begin_read().unwrap().open_table(retained) else {
            return BTreeMap::new();
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = table.iter().unwrap().map(|entry| {
            let (topic, value) = entry.unwrap();
            let properties = u32::from_le_bytes(value.value()[19..23].try_into().unwrap());
            let payload = text(&value.value()[23 + properties as usize..]);
            (text(topic.value()), payload)
        });
        entries.collect()
    }
}

/// A client that sends this CONNECT and is accepted.
#[track_caller]
fn connect_with(server: &Process, version: u8, connect: &[u8]) -> Mqtt {
    let mut client = Mqtt::over_tcp(server.connect(), version);
    client.send(connect);
    let answer = client.packet();
    assert_eq!((answer[0], mqtt::body(&answer)[1]), (0x20, 0), "{answer:x?}");
    client
}

/// A client with a clean start.
#[track_caller]
fn connect(server: &Process, version: u8, id: &str) -> Mqtt {
    connect_with(server, version, &mqtt::connect(version, id))
}

/// Publishes with QoS 1 and RETAIN 1; the server acknowledges.
#[track_caller]
fn retain(client: &mut Mqtt, topic: &str, properties: &[u8], payload: &str) {
    client.send(&mqtt::publish(5, 0x03, topic, 7, properties, payload.as_bytes()));
    let answer = client.packet();
    // No subscribers (0x10) is a success, too.
    assert_eq!(
        (answer[0], &mqtt::body(&answer)[..2]),
        (0x40, &[0, 7][..]),
        "{answer:x?}"
    );
    assert!(
        mqtt::body(&answer).get(2).is_none_or(|code| *code < 0x80),
        "{answer:x?}"
    );
}

/// The payloads of the retained publications that a filter matches: as many as there must be.
#[track_caller]
fn retained(server: &Process, filter: &str, count: usize) -> BTreeMap<String, String> {
    let mut client = connect(server, 5, "reader");
    client.subscribe(filter, 1);
    let mut found = BTreeMap::new();
    while found.len() < count {
        let message = client.message();
        assert!(message.retain, "{message:?}");
        found.insert(message.topic, String::from_utf8(message.payload).unwrap());
    }
    client.ping();
    found
}

#[test]
fn retained_publications_survive_an_end_and_a_crash_of_a_strict_server_on_other_cores() {
    let place = Place::new();
    let mut expected = BTreeMap::new();
    for round in 0..4_u32 {
        let cores = (round % 3 + 1).to_string();
        let mut server = place.start(&[
            ("RINGCAST_STORE_MODE", "strict"),
            ("RINGCAST_CORES", &cores),
            ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "1"),
        ]);
        assert_eq!(
            retained(&server, "site/#", expected.len()),
            expected,
            "round {round}"
        );
        let mut client = connect(&server, 5, "publisher");
        for number in 0..20 {
            let (topic, payload) = (format!("site/{number}"), format!("{round}-{number}"));
            let is_cleared = number % 5 == 0 && round % 2 == 0 && round > 0;
            retain(&mut client, &topic, &[], if is_cleared { "" } else { &payload });
            if is_cleared {
                expected.remove(&topic);
            } else {
                expected.insert(topic, payload);
            }
        }
        // A SocketCluster client has its answer when it is on disk, too.
        let mut browser = server.client();
        let topic = format!("site/browser/{round}");
        let data = format!(r#"{{"channel":"{topic}","data":"{round}"}}"#);
        let answer = browser.call("$retain", &data);
        assert!(
            answer.starts_with("{\"rid\":") && !answer.contains("error"),
            "{answer}"
        );
        expected.insert(topic, format!("\"{round}\""));
        if round % 2 == 0 {
            server.signal(Signal::SIGKILL);
            assert_eq!(server.exit_code(), None);
        } else {
            server.signal(Signal::SIGTERM);
            assert_eq!(server.exit_code(), Some(0));
        }
        assert_eq!(
            place.retained(),
            expected,
            "round {round}: there are no topics of the server"
        );
    }
}

#[test]
fn a_retained_publication_expires_while_no_server_runs() {
    let place = Place::new();
    let server = place.start(&[("RINGCAST_STORE_MODE", "strict")]);
    let mut client = connect(&server, 5, "publisher");
    retain(&mut client, "short", &[2, 0, 0, 0, 1], "x");
    retain(&mut client, "long", &[2, 0, 0, 0x0e, 0x10], "y");
    server.signal(Signal::SIGKILL);
    drop(server);
    eventually("the short one has expired", || {
        let server = place.start(&[("RINGCAST_STORE_MODE", "strict")]);
        let mut admin = server.admin();
        let count = admin.metric("ringcast_mqtt_retained");
        drop(server);
        count == 1
    });
    let server = place.start(&[]);
    let mut client = connect(&server, 5, "reader");
    client.subscribe("long", 1);
    let message = client.message();
    let (&[2, a, b, c, d], "y") = (
        &message.properties[..],
        &*String::from_utf8_lossy(&message.payload),
    ) else {
        panic!("{message:?}")
    };
    assert!(
        (3500..=3600).contains(&u32::from_be_bytes([a, b, c, d])),
        "{message:?}"
    );
    drop(server);
    assert_eq!(place.retained().into_keys().collect::<Vec<_>>(), ["long"]);
}

#[test]
fn a_retained_publication_goes_with_the_policy_that_has_had_it_kept() {
    let place = Place::new();
    let file = |lines: &str| place.folder.write("ringcast.toml", lines);
    let price = "[[channels]]\nnames = [\"price.*\"]\nlast_value = true\n";
    let config = file(price).to_str().unwrap().to_owned();
    let settings = [
        ("RINGCAST_CONFIG", &*config),
        ("RINGCAST_CORES", "3"),
        ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "0"),
    ];
    let mut server = place.start(&settings);
    let mut publisher = connect(&server, 5, "publisher");
    for topic in ["price.a", "price.b", "other"] {
        retain(&mut publisher, topic, &[], "by a client");
    }
    let mut browser = server.client();
    for channel in ["price.b", "price.c", "price.d"] {
        browser.publish(channel, "\"by the policy\"");
    }
    browser.ping();
    assert_eq!(retained(&server, "#", 5)["price.b"], "\"by the policy\"");
    let count = |server: &Process| server.admin().metric("ringcast_mqtt_retained");
    // The next process has another policy.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(place.retained().len(), 5);
    file("[[channels]]\nnames = [\"price.c\"]\nlast_value = true\n");
    let mut server = place.start(&settings);
    eventually("the others are gone", || count(&server) == 3);
    assert!(retained(&server, "#", 3).contains_key("price.c"));
    // Its own clients are known in the next process as well.
    let mut own = connect(&server, 5, "publisher");
    own.subscribe("#", 4);
    assert_eq!(own.message().topic, "price.c");
    own.ping();
    // A policy that forbids to retain publications.
    file("[[channels]]\nnames = [\"price.*\"]\nmqtt_retain = false\n");
    server.signal(Signal::SIGHUP);
    eventually("all but one are gone", || count(&server) == 1);
    assert_eq!(retained(&server, "#", 1)["other"], "by a client");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(place.retained().into_keys().collect::<Vec<_>>(), ["other"]);
}

/// The HTTP API and [`Handle::retain`](ringcast::server::Handle) wait in the same place.
#[test]
fn an_operator_is_told_that_a_publication_is_retained_when_it_is_on_disk() {
    let place = Place::new();
    let key = Key::for_all();
    let config = place.folder.file("ringcast.toml");
    write_config(&config, &[&key], "");
    let settings = [
        ("RINGCAST_CONFIG", config.to_str().unwrap()),
        ("RINGCAST_STORE_MODE", "strict"),
        ("RINGCAST_CORES", "2"),
        ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "0"),
    ];
    let request = |data: u32| {
        let body = format!("{{\"channel\":\"a\",\"data\":{data},\"retain\":true}}");
        format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             {JSON}\r\nContent-Length: {}\r\n\r\n{body}",
            key.key,
            body.len()
        )
    };
    for round in 0..3 {
        let server = place.start(&settings);
        if round > 0 {
            assert_eq!(retained(&server, "a", 1)["a"], "0", "it was on disk");
        }
        let answer = support::ask(server.admin, &request(0));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        if round == 1 {
            let store = Held::thread(server.pid(), "store");
            let mut asking = TcpStream::connect(server.admin).unwrap();
            asking.write_all(request(1).as_bytes()).unwrap();
            // Each look is a client of its own: one that is subscribed may get the publication before its next SUBACK.
            eventually("it is retained", || {
                let mut reader = connect(&server, 5, "reader");
                reader.subscribe("a", 0);
                reader.message().payload == b"1"
            });
            server.signal(Signal::SIGKILL);
            drop(store);
            let mut answer = String::new();
            // Or the connection is reset.
            let _ = asking.read_to_string(&mut answer);
            assert_eq!(answer, "", "it was not on disk");
        } else {
            server.signal(Signal::SIGKILL);
        }
    }
}

/// How a process ends before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    InOrder,
    Crash,
    TakeOver,
}

/// CONNECT of a client whose session lasts.
fn lasting(version: u8, id: &str) -> Vec<u8> {
    // Session Expiry Interval: 1000 s.
    let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 3, 0xe8] } else { &[] };
    mqtt::connect_with(version, 0, 0, properties, &mqtt::string(id))
}

/// Connects a client whose session lasts; returns whether the server had the session.
#[track_caller]
fn resume(server: &Process, version: u8, id: &str) -> (Mqtt, bool) {
    let mut client = Mqtt::over_tcp(server.connect(), version);
    client.send(&lasting(version, id));
    let answer = client.packet();
    assert_eq!((answer[0], mqtt::body(&answer)[1]), (0x20, 0), "{answer:x?}");
    let is_present = mqtt::body(&answer)[0] == 1;
    (client, is_present)
}

/// Publishes with QoS 2, with the whole exchange.
#[track_caller]
fn publish_exactly_once(client: &mut Mqtt, topic: &str, payload: &str) {
    client.send(&mqtt::publish(5, 0x04, topic, 9, &[], payload.as_bytes()));
    client.expect(&mqtt::ack(0x50, 9));
    client.send(&mqtt::ack(0x62, 9));
    client.expect(&mqtt::ack(0x70, 9));
}

#[track_caller]
fn expect_message(client: &mut Mqtt, payload: &str, qos: u8, dup: bool) -> u16 {
    let message = client.message();
    let text = String::from_utf8_lossy(&message.payload).into_owned();
    assert_eq!(
        (&*text, message.qos, message.dup),
        (payload, qos, dup),
        "{message:?}"
    );
    message.id
}

#[test]
fn a_session_goes_on_in_the_next_process_where_it_was() {
    for (ends, mode, version) in [
        (Ends::InOrder, "strict", 4),
        (Ends::InOrder, "relaxed", 5),
        (Ends::Crash, "strict", 5),
        (Ends::TakeOver, "relaxed", 4),
        (Ends::TakeOver, "strict", 5),
    ] {
        let place = Place::new();
        let mut old = place.start(&[("RINGCAST_STORE_MODE", mode), ("RINGCAST_CORES", "3")]);
        let (mut subscriber, is_present) = resume(&old, version, "subscriber");
        assert!(!is_present);
        subscriber.subscribe("t/#", 2);
        let mut publisher = connect(&old, 5, "publisher");
        retain(&mut publisher, "t/1", &[], "one");
        publish_exactly_once(&mut publisher, "t/2", "two");
        let first = expect_message(&mut subscriber, "one", 1, false);
        let second = expect_message(&mut subscriber, "two", 2, false);
        subscriber.send(&mqtt::ack(0x50, second));
        subscriber.expect(&mqtt::ack(0x62, second));
        drop(subscriber);
        let mut admin = old.admin();
        eventually("the subscriber has gone", || {
            admin.metric("ringcast_mqtt_sessions_connected") == 1
        });
        retain(&mut publisher, "t/3", &[], "three");
        publish_exactly_once(&mut publisher, "t/4", "four");
        let listen = old.address.to_string();
        let mut settings = vec![("RINGCAST_STORE_MODE", mode), ("RINGCAST_CORES", "2")];
        let mut new = match ends {
            Ends::InOrder => {
                old.signal(Signal::SIGTERM);
                assert_eq!(old.exit_code(), Some(0));
                place.start(&settings)
            }
            Ends::Crash => {
                old.signal(Signal::SIGKILL);
                assert_eq!(old.exit_code(), None);
                place.start(&settings)
            }
            Ends::TakeOver => {
                settings.extend([("RINGCAST_LISTEN", &*listen), ("RINGCAST_TAKE_OVER", "on")]);
                let new = place.start(&settings);
                publisher.expect_end(0x8b);
                old.signal(Signal::SIGTERM);
                assert_eq!(old.exit_code(), Some(0));
                new
            }
        };
        let (mut subscriber, is_present) = resume(&new, version, "subscriber");
        assert!(is_present, "{ends:?} {mode}");
        // Publications in flight come again, in order, with the same identifiers; then the waiting ones.
        assert_eq!(expect_message(&mut subscriber, "one", 1, true), first);
        subscriber.expect(&mqtt::ack(0x62, second));
        let third = expect_message(&mut subscriber, "three", 1, false);
        let fourth = expect_message(&mut subscriber, "four", 2, false);
        assert!(![first, second].contains(&third) && ![first, second, third].contains(&fourth));
        for ack in [
            mqtt::ack(0x40, first),
            mqtt::ack(0x70, second),
            mqtt::ack(0x40, third),
            mqtt::ack(0x50, fourth),
        ] {
            subscriber.send(&ack);
        }
        subscriber.expect(&mqtt::ack(0x62, fourth));
        subscriber.send(&mqtt::ack(0x70, fourth));
        // The subscription is there, and so are retained publications.
        let mut publisher = connect(&new, 5, "publisher");
        publish_exactly_once(&mut publisher, "t/5", "five");
        expect_message(&mut subscriber, "five", 2, false);
        assert_eq!(retained(&new, "t/#", 2).len(), 2);
        // A clean start ends the session, on disk as well.
        drop((subscriber, connect(&new, version, "subscriber")));
        new.signal(Signal::SIGTERM);
        assert_eq!(new.exit_code(), Some(0));
        let server = place.start(&settings[..1]);
        let (mut subscriber, is_present) = resume(&server, version, "subscriber");
        assert!(!is_present);
        subscriber.ping();
    }
}

/// The publication before DISCONNECT waits for the disk, and so does the end of the connection.
#[test]
fn a_client_has_left_when_it_has_sent_disconnect_whatever_its_connection_waits_for() {
    let place = Place::new();
    let server = place.start(&[("RINGCAST_STORE_MODE", "strict"), ("RINGCAST_CORES", "1")]);
    let will = [
        mqtt::string("leaver"),
        vec![0],
        mqtt::string("will"),
        mqtt::string("gone"),
    ]
    .concat();
    let mut watcher = connect(&server, 5, "watcher");
    watcher.subscribe("will", 0);
    let mut leaver = Mqtt::over_tcp(server.connect(), 5);
    leaver.send(&mqtt::connect_with(5, 0x04, 0, &[0x11, 0, 0, 3, 0xe8], &will));
    leaver.accepted();
    let store = Held::thread(server.pid(), "store");
    // RETAIN 1, QoS 1; and DISCONNECT with the Session Expiry Interval 0.
    let last = mqtt::publish(5, 0x03, "a", 7, &[], b"1");
    leaver.send(&[last, vec![0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]].concat());
    let mut admin = server.admin();
    eventually("the publication is retained", || {
        admin.metric("ringcast_publications_total") > 0
    });
    let mut next = Mqtt::over_tcp(server.connect(), 5);
    next.send(&lasting(5, "leaver"));
    eventually("the next connection has the client id", || {
        admin.metric("ringcast_mqtt_take_overs_total") == 1
    });
    drop(store);
    let answer = next.packet();
    let is_new = (answer[0], &mqtt::body(&answer)[..2]) == (0x20, &[0, 0]);
    assert!(is_new, "the client has ended the session: {answer:x?}");
    next.ping();
    watcher.ping();
}

/// CONNACK waits, and so do packets after CONNECT. Other clients do not wait.
#[test]
fn connack_of_a_strict_server_and_all_that_follows_wait_for_the_disk_in_order() {
    let place = Place::new();
    let server = place.start(&[
        ("RINGCAST_STORE_MODE", "strict"),
        ("RINGCAST_CORES", "1"),
        ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "0"),
    ]);
    let mut admin = server.admin();
    let mut other = connect(&server, 5, "other");
    let store = Held::thread(server.pid(), "store");
    let mut older = Mqtt::over_tcp(server.connect(), 5);
    older.send(&lasting(5, "c"));
    eventually("it has a session", || admin.metric("ringcast_mqtt_sessions") == 2);
    let mut client = Mqtt::over_tcp(server.connect(), 5);
    let packets = [
        lasting(5, "c"),
        mqtt::subscribe(5, 1, &[], &[("t", 0)]),
        mqtt::publish(5, 0x02, "t", 7, &[], b"1"),
    ];
    client.send(&packets.concat());
    // It is taken over, and has got no packet, since CONNACK would be the first.
    assert_eq!(older.next(), None);
    other.ping();
    assert_eq!(admin.metric("ringcast_publications_total"), 0);
    assert_eq!(admin.metric("ringcast_mqtt_sessions_connected"), 2);
    drop(store);
    let answer = client.packet();
    assert_eq!((answer[0], &mqtt::body(&answer)[..2]), (0x20, &[0, 0][..]));
    assert_eq!(client.packet()[0], 0x90);
    let mut last = [client.packet()[0], client.packet()[0]];
    last.sort_unstable();
    assert_eq!(last, [0x30, 0x40]);
}

/// Connects clients again and again while strict servers are killed. A session that CONNACK has told of is there, and
/// one of whose end it has told is not.
#[test]
fn killed_strict_servers_have_the_sessions_of_which_connack_has_told_and_no_others() {
    let mut random = Random(support::seed());
    let place = Place::new();
    let settings = [("RINGCAST_STORE_MODE", "strict"), ("RINGCAST_CORES", "2")];
    let mut told: BTreeMap<String, bool> = BTreeMap::new();
    let (mut there, mut ended) = (0, 0);
    let kills = from_environment("STORE_KILLS", 50) / 5;
    let mut round = 0;
    // On a slow machine, few clients have got CONNACK before a kill.
    while round < kills || there <= 20 || ended <= 5 {
        assert!(
            round < 20 * kills,
            "{there} sessions were there, {ended} had ended"
        );
        let server = place.start(&settings);
        for (id, is_there) in &mut told {
            let (_, is_present) = resume(&server, 5, id);
            assert_eq!(is_present, *is_there, "{id}, round {round}");
            *if is_present { &mut there } else { &mut ended } += 1;
            *is_there = true;
        }
        let wait = Duration::from_micros(random.below(40_000));
        let mut own: Vec<BTreeMap<String, bool>> = vec![BTreeMap::new(); 3];
        for (at, (id, is_there)) in std::mem::take(&mut told).into_iter().enumerate() {
            // The rest would make the test long.
            if at < 60 {
                own[at % 3].insert(id, is_there);
            }
        }
        thread::scope(|scope| {
            for (number, told) in own.iter_mut().enumerate() {
                let (server, mut random) = (&server, Random(random.0 + number as u64));
                scope.spawn(move || {
                    for next in 0..40 {
                        let old = told
                            .keys()
                            .nth(usize::try_from(random.below(8)).unwrap())
                            .cloned();
                        let id = old.unwrap_or_else(|| format!("{round}-{number}-{next}"));
                        // Until CONNACK comes, nobody knows.
                        told.remove(&id);
                        let lasts = random.below(3) > 0;
                        let packet = match lasts {
                            true => lasting(5, &id),
                            false => mqtt::connect(5, &id),
                        };
                        let Ok(stream) = TcpStream::connect(server.address) else {
                            return;
                        };
                        let mut client = Mqtt::over_tcp(support::Client::over(stream), 5);
                        if !client.try_send(&packet) || client.next().is_none() {
                            return;
                        }
                        told.insert(id, lasts);
                    }
                });
            }
            thread::sleep(wait);
            server.signal(Signal::SIGKILL);
        });
        told = own.into_iter().flatten().collect();
        round += 1;
    }
    println!("{there} sessions were there, {ended} had ended");
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A client that publishes 0, 1, 2, …, each until it is acknowledged, over as many connections as that takes.
struct Publisher {
    name: &'static str,
    qos: u8,
    /// The number under way, if there is one, and whether it was released.
    under_way: Option<bool>,
    next: u32,
}

impl Publisher {
    /// Publishes until the connection ends, or until so many are acknowledged.
    fn run(&mut self, mut client: Mqtt, until: u32) {
        // The server may be gone already.
        if !client.try_send(&lasting(4, self.name)) || client.next().is_none() {
            return;
        }
        let mut is_first = true;
        while self.next < until {
            let id = u16::try_from(self.next % 60_000).unwrap() + 1;
            let dup = if is_first && self.under_way.is_some() {
                8
            } else {
                0
            };
            is_first = false;
            let packet = match self.under_way {
                Some(true) => mqtt::ack(0x62, id),
                _ => {
                    let payload = self.next.to_string();
                    mqtt::publish(
                        4,
                        self.qos << 1 | dup,
                        &format!("t/{}", self.name),
                        id,
                        &[],
                        payload.as_bytes(),
                    )
                }
            };
            self.under_way.get_or_insert(false);
            if !client.try_send(&packet) {
                return;
            }
            let Some(answer) = client.next() else { return };
            match answer[0] {
                0x50 => self.under_way = Some(true),
                0x40 | 0x70 => (self.under_way, self.next) = (None, self.next + 1),
                other => panic!("{other:x}"),
            }
        }
    }
}

/// A client with a session that lasts: it takes everything, and acknowledges it.
#[derive(Default)]
struct Subscriber {
    is_subscribed: bool,
    unreleased: std::collections::BTreeSet<u16>,
    /// The numbers that have come, by topic.
    got: BTreeMap<String, Vec<u32>>,
}

impl Subscriber {
    /// Takes messages until the connection ends, or until `is_enough`.
    fn run(&mut self, mut client: Mqtt, is_enough: impl Fn(&Subscriber) -> bool) {
        client.try_send(&lasting(4, "subscriber"));
        let Some(connack) = client.next() else { return };
        assert!(
            !self.is_subscribed || mqtt::body(&connack)[0] == 1,
            "the session is lost"
        );
        if !self.is_subscribed {
            client.try_send(&mqtt::subscribe(4, 1, &[], &[("t/#", 2)]));
        }
        while !is_enough(self)
            && let Some(packet) = client.next()
        {
            let id = |at: usize| u16::from_be_bytes([mqtt::body(&packet)[at], mqtt::body(&packet)[at + 1]]);
            match packet[0] >> 4 {
                9 => self.is_subscribed = true,
                6 => {
                    self.unreleased.remove(&id(0));
                    client.try_send(&mqtt::ack(0x70, id(0)));
                }
                3 => {
                    let message = mqtt::Message::read(4, &packet);
                    let is_new = message.qos < 2 || self.unreleased.insert(message.id);
                    if is_new {
                        let number = String::from_utf8(message.payload).unwrap().parse().unwrap();
                        self.got.entry(message.topic).or_default().push(number);
                    }
                    client.try_send(&mqtt::ack(if message.qos == 2 { 0x50 } else { 0x40 }, message.id));
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// Kills strict servers again and again while clients publish. Nothing that was acknowledged is lost, and nothing comes
/// out of order; with QoS 2, on one core, nothing comes twice.
fn kill_again_and_again(cores: &str, kills: u64) {
    let mut random = Random(support::seed());
    let place = Place::new();
    let settings = [("RINGCAST_STORE_MODE", "strict"), ("RINGCAST_CORES", cores)];
    let mut publishers = [("one", 1), ("two", 2), ("three", 2)].map(|(name, qos)| Publisher {
        name,
        qos,
        under_way: None,
        next: 0,
    });
    let mut subscriber = Subscriber::default();
    for _ in 0..kills {
        let server = place.start(&settings);
        let wait = Duration::from_micros(random.below(80_000));
        thread::scope(|scope| {
            let client = Mqtt::over_tcp(server.connect(), 4);
            scope.spawn(|| subscriber.run(client, |_| false));
            for publisher in &mut publishers {
                let client = Mqtt::over_tcp(server.connect(), 4);
                scope.spawn(move || publisher.run(client, u32::MAX));
            }
            thread::sleep(wait);
            server.signal(Signal::SIGKILL);
        });
    }
    let server = place.start(&settings);
    let counts: BTreeMap<String, u32> = publishers
        .iter_mut()
        .map(|publisher| {
            let until = publisher.next + 1;
            publisher.run(Mqtt::over_tcp(server.connect(), 4), until);
            assert_eq!(publisher.next, until);
            (format!("t/{}", publisher.name), until)
        })
        .collect();
    subscriber.run(Mqtt::over_tcp(server.connect(), 4), |subscriber| {
        let has_last = |(topic, count): (&String, &u32)| {
            let got = subscriber.got.get(topic);
            got.is_some_and(|got| got.contains(&(count - 1)))
        };
        counts.iter().all(has_last) || subscriber.got.is_empty() && !subscriber.is_subscribed
    });
    println!("{kills} kills, {cores} cores: {counts:?}");
    for (topic, count) in &counts {
        let got = &subscriber.got[topic];
        let mut once = got.clone();
        once.dedup();
        // Before the subscription was acknowledged, some may have been missed.
        let begin = got[0];
        if topic == "t/one" || cores != "1" {
            let mut seen = std::collections::BTreeSet::new();
            once = got
                .iter()
                .copied()
                .filter(|number| seen.insert(*number))
                .collect();
        } else {
            assert_eq!(&once, got, "{topic} has one twice");
        }
        assert_eq!(once, (begin..*count).collect::<Vec<_>>(), "{topic}");
    }
}

/// The publications wait for a session whose client is away. Nothing that was acknowledged is lost, in memory
/// meanwhile.
#[test]
fn a_session_outlasts_a_full_disk_with_all_that_was_acknowledged() {
    for mode in ["strict", "relaxed"] {
        let place = Place::new();
        let Some(command) = with_small_disk(&place.data) else {
            return;
        };
        let settings = [
            ("RINGCAST_STORE_MODE", mode),
            ("RINGCAST_CORES", "2"),
            ("RINGCAST_MQTT_QUEUE_BYTES_MAX", "50000000"),
            ("RINGCAST_MQTT_QUEUE_MESSAGES_MAX", "100000"),
        ];
        let server = place.spawn(command, &settings);
        let (mut subscriber, _) = resume(&server, 5, "subscriber");
        subscriber.subscribe("t", 1);
        drop(subscriber);
        let mut admin = server.admin();
        eventually("the subscriber has gone", || {
            admin.metric("ringcast_mqtt_sessions_connected") == 0
        });
        let (disk, filler) = fill_disk(&server, &place.data);
        let mut publisher = connect(&server, 5, "publisher");
        let text = "x".repeat(3000);
        let mut publish = |number: u32| {
            let payload = format!("{number} {text}");
            publisher.send(&mqtt::publish(5, 0x02, "t", 7, &[], payload.as_bytes()));
            let answer = publisher.packet();
            mqtt::body(&answer).get(2).copied().unwrap_or(0)
        };
        let (mut next, mut acknowledged) = (0, Vec::new());
        eventually("a commit fails", || {
            for _ in 0..50 {
                match publish(next) {
                    0 => acknowledged.push(next),
                    code => assert!(mode == "strict" && [0x80, 0x97].contains(&code), "{code:x}"),
                }
                next += 1;
            }
            admin.metric("ringcast_store_failing") == 1
        });
        if mode == "strict" {
            assert_eq!(publish(next), 0x97, "it is not published");
            next += 1;
            // A new session cannot be stored, and needs no room if it ends with its connection.
            for (version, code) in [(4, 3), (5, 0x88)] {
                let mut new = Mqtt::over_tcp(server.connect(), version);
                new.send(&lasting(version, "new"));
                let answer = new.packet();
                assert_eq!((answer[0], &mqtt::body(&answer)[..2]), (0x20, &[0, code][..]));
                assert_eq!(new.next(), None);
                connect(&server, version, "new").ping();
            }
            // One that is on disk goes on.
            assert!(resume(&server, 5, "subscriber").1);
        }
        fs::remove_file(&filler).unwrap();
        server.logged("commits succeed again");
        let last = next;
        assert_eq!(publish(last), 0, "{mode}");
        let (mut subscriber, is_present) = resume(&server, 5, "subscriber");
        assert!(is_present, "{mode}");
        let mut got = Vec::new();
        while got.last() != Some(&last) {
            let message = subscriber.message();
            subscriber.send(&mqtt::ack(0x40, message.id));
            let text = String::from_utf8(message.payload).unwrap();
            got.push(text.split_once(' ').unwrap().0.parse::<u32>().unwrap());
        }
        // And some that were published and not stored.
        assert!(got.is_sorted(), "{mode}");
        for number in acknowledged {
            assert!(got.contains(&number), "{mode}: {number}");
        }
        // The disk ends with the process, so the next one has a copy.
        let copy = Place::new();
        eventually("the copy is whole", || {
            fs::create_dir_all(&copy.data).unwrap();
            fs::copy(disk.join("store.redb"), copy.data.join("store.redb")).unwrap();
            let next = copy.start(&settings);
            resume(&next, 5, "subscriber").1
        });
    }
}

/// Waits until the content of the file is less than it was.
fn content_falls(server: &Process, before: u64) {
    let mut admin = server.admin();
    eventually("the content is less", || {
        admin.metric("ringcast_store_content_bytes") < before
    });
}

/// A file that few publications fill, and queues that have room for far more.
fn settings_of_a_small_file(store_mode: &str) -> [(&str, &str); 6] {
    [
        ("RINGCAST_STORE_MODE", store_mode),
        ("RINGCAST_STORE_BYTES_MAX", "4200000"),
        ("RINGCAST_CORES", "2"),
        ("RINGCAST_MQTT_QUEUE_BYTES_MAX", "50000000"),
        ("RINGCAST_MQTT_QUEUE_MESSAGES_MAX", "100000"),
        ("RINGCAST_MQTT_SYS_INTERVAL_SECONDS", "0"),
    ]
}

/// A change that adds entries is refused before a commit fails, and a change that removes entries is not. When clients
/// have read what waited for them, there is room without a restart.
#[test]
fn with_a_full_file_strict_refuses_what_it_would_have_to_keep_and_takes_all_that_makes_room() {
    let place = Place::new();
    let settings = settings_of_a_small_file("strict");
    let server = place.start(&settings);
    let mut admin = server.admin();
    for (id, filter) in [("subscriber", "t"), ("ended", "u")] {
        let (mut client, _) = resume(&server, 5, id);
        client.subscribe(filter, 1);
        client.subscribe("v", 1);
    }
    let mut publisher = connect(&server, 5, "publisher");
    let text = "x".repeat(3000);
    let mut publish = |topic: &str, retain: u8, payload: &str| {
        publisher.send(&mqtt::publish(
            5,
            0x02 | retain,
            topic,
            7,
            &[],
            payload.as_bytes(),
        ));
        let answer = publisher.packet();
        mqtt::body(&answer).get(2).copied().unwrap_or(0)
    };
    assert_eq!((publish("r", 1, &text), publish("u", 0, &text)), (0, 0));
    let mut stored = 0;
    let refusal = loop {
        match publish("t", 0, &format!("{stored} {text}")) {
            0 => stored += 1,
            code => break code,
        }
    };
    assert_eq!(refusal, 0x97, "it is not published");
    server.logged("nearly full");
    // To a session and retained; but not where nothing would be kept.
    assert_eq!((publish("t", 0, "1"), publish("r", 1, "2")), (0x97, 0x97));
    assert_eq!(publish("nobody", 0, "3"), 0);
    let mut old = connect(&server, 4, "old");
    old.send(&mqtt::publish(4, 0x02, "t", 7, &[], b"4"));
    assert_eq!(old.next(), None);
    for (name, value) in [
        ("ringcast_store_full", 1),
        ("ringcast_store_failing", 0),
        ("ringcast_store_failures_total", 0),
        ("ringcast_limit_hits_total{limit=\"store_bytes\"}", 4),
    ] {
        assert_eq!(admin.metric(name), value, "{name}");
    }
    // A retained publication that is cleared, a filter, a session that a clean start ends.
    let content = |admin: &mut support::process::Admin| admin.metric("ringcast_store_content_bytes");
    let before = content(&mut admin);
    assert_eq!(publish("r", 1, ""), 0);
    content_falls(&server, before);
    let before = content(&mut admin);
    let (mut ended, is_present) = resume(&server, 5, "ended");
    assert!(is_present);
    ended.message();
    ended.send(&mqtt::unsubscribe(5, 2, &["v"]));
    assert_eq!(ended.packet()[0], 0xb0);
    content_falls(&server, before);
    let before = content(&mut admin);
    connect(&server, 5, "ended").ping();
    content_falls(&server, before);
    // The client comes back, and reads.
    let (mut subscriber, is_present) = resume(&server, 5, "subscriber");
    assert!(is_present);
    for number in 0..stored {
        let message = subscriber.message();
        subscriber.send(&mqtt::ack(0x40, message.id));
        let text = String::from_utf8(message.payload).unwrap();
        assert_eq!(text.split_once(' ').unwrap().0, number.to_string());
    }
    server.logged("there is room again");
    assert_eq!(publish("t", 0, "last"), 0);
    expect_message(&mut subscriber, "last", 1, false);
    // Nobody has acknowledged the last one, so that the next process has it, and no other.
    server.signal(Signal::SIGKILL);
    drop(server);
    let server = place.start(&settings);
    let (mut subscriber, is_present) = resume(&server, 5, "subscriber");
    assert!(is_present);
    expect_message(&mut subscriber, "last", 1, true);
    assert!(!resume(&server, 5, "ended").1);
    assert!(place.data.join("store.redb").metadata().unwrap().len() <= 4_200_000);
}

/// A relaxed server goes on in memory. What clients have read makes room, and then all is on disk.
#[test]
fn with_a_full_file_relaxed_goes_on_in_memory_until_clients_have_made_room() {
    let place = Place::new();
    let settings = settings_of_a_small_file("relaxed");
    let server = place.start(&settings);
    let mut admin = server.admin();
    let (mut subscriber, _) = resume(&server, 5, "subscriber");
    subscriber.subscribe("t", 1);
    drop(subscriber);
    let mut publisher = connect(&server, 5, "publisher");
    let text = "x".repeat(3000);
    let mut next = 0;
    eventually("a commit fails", || {
        for _ in 0..50 {
            retain(&mut publisher, "t", &[], &format!("{next} {text}"));
            next += 1;
        }
        admin.metric("ringcast_store_failing") == 1
    });
    let (mut subscriber, is_present) = resume(&server, 5, "subscriber");
    assert!(is_present);
    for number in 0..next {
        let message = subscriber.message();
        subscriber.send(&mqtt::ack(0x40, message.id));
        let text = String::from_utf8(message.payload).unwrap();
        assert_eq!(text.split_once(' ').unwrap().0, number.to_string());
    }
    server.logged("commits succeed again");
    eventually("there is room", || admin.metric("ringcast_store_full") == 0);
    assert_eq!(admin.metric("ringcast_store_failing"), 0);
}

/// Kills relaxed servers while clients publish, and ends every third one in order. Publications to a server that ends
/// in order arrive, and publications arrive in order the first time. Of the others, some may be missing or come again.
#[test]
fn killed_relaxed_servers_keep_sessions_in_order_and_all_that_was_on_disk() {
    let seed = from_environment("STORE_SEED", u64::from(std::process::id()));
    println!("STORE_SEED={seed}");
    let mut random = Random(seed);
    let place = Place::new();
    let settings = [("RINGCAST_STORE_MODE", "relaxed"), ("RINGCAST_CORES", "2")];
    let mut publishers = [("one", 1), ("two", 2), ("three", 2)].map(|(name, qos)| Publisher {
        name,
        qos,
        under_way: None,
        next: 0,
    });
    let mut subscriber = Subscriber::default();
    // The numbers that were published to servers that ended in order.
    let mut safe: BTreeMap<&str, Vec<std::ops::Range<u32>>> = BTreeMap::new();
    for round in 0..=from_environment("STORE_KILLS", 50) / 2 {
        let mut server = place.start(&settings);
        let is_orderly = round % 3 == 0;
        let wait = Duration::from_micros(random.below(80_000));
        if round == 0 {
            let client = Mqtt::over_tcp(server.connect(), 4);
            subscriber.run(client, |subscriber| subscriber.is_subscribed);
        }
        thread::scope(|scope| {
            let client = Mqtt::over_tcp(server.connect(), 4);
            scope.spawn(|| subscriber.run(client, |_| false));
            let until = |publisher: &Publisher| match is_orderly {
                true => publisher.next + 20,
                false => u32::MAX,
            };
            let publishing: Vec<_> = publishers
                .iter_mut()
                .map(|publisher| {
                    let client = Mqtt::over_tcp(server.connect(), 4);
                    // One that was under way may have come to the server before.
                    let range = publisher.next + 1..until(publisher);
                    if is_orderly {
                        safe.entry(publisher.name).or_default().push(range.clone());
                    }
                    scope.spawn(move || publisher.run(client, range.end))
                })
                .collect();
            if is_orderly {
                publishing.into_iter().for_each(|one| one.join().unwrap());
                server.signal(Signal::SIGTERM);
            } else {
                thread::sleep(wait);
                server.signal(Signal::SIGKILL);
            }
        });
        assert_eq!(server.exit_code(), is_orderly.then_some(0));
        if !is_orderly {
            // The server may not know of these identifiers any more, and give them to other publications.
            subscriber.unreleased.clear();
        }
    }
    let server = place.start(&settings);
    let ends: BTreeMap<String, u32> = publishers
        .iter_mut()
        .map(|publisher| {
            let until = publisher.next + 2;
            publisher.run(Mqtt::over_tcp(server.connect(), 4), until);
            assert_eq!(publisher.next, until);
            (format!("t/{}", publisher.name), until - 1)
        })
        .collect();
    subscriber.run(Mqtt::over_tcp(server.connect(), 4), |subscriber| {
        ends.iter().all(|(topic, end)| {
            let got = subscriber.got.get(topic);
            got.is_some_and(|got| got.contains(end))
        })
    });
    for (name, ranges) in safe {
        let mut seen = std::collections::BTreeSet::new();
        let got = subscriber.got[&format!("t/{name}")].iter().copied();
        let first: Vec<u32> = got.filter(|number| seen.insert(*number)).collect();
        assert!(first.is_sorted(), "seed {seed}: {name} {first:?}");
        for number in ranges.into_iter().flatten() {
            assert!(seen.contains(&number), "seed {seed}: {name} {number}");
        }
    }
}

#[test]
fn killed_strict_servers_lose_nothing_that_they_have_acknowledged_and_send_nothing_twice_with_qos_2() {
    kill_again_and_again("1", from_environment("STORE_KILLS", 50) / 2);
}

#[test]
fn killed_strict_servers_with_several_cores_lose_nothing_that_they_have_acknowledged() {
    kill_again_and_again("2", from_environment("STORE_KILLS", 50) / 2);
}
