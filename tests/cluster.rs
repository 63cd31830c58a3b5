//! Several nodes joined by a real server of NATS, on loopback: what travels between them, once and no further, and what
//! happens when NATS or a node stands still, ends, or comes back.
//!
//! Without the program `nats-server` these tests do nothing, and say so (`tests/run` installs it).

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use support::folder::Folder;
use support::mqtt::{Mqtt, publish};
use support::process::Process;
use support::{Client, eventually};

/// A server of NATS, which is killed when the value is dropped.
struct Nats {
    child: Child,
    port: u16,
    arguments: Vec<String>,
}

impl Nats {
    /// `None` if there is no such program.
    #[allow(clippy::print_stdout)] // why a test does nothing
    fn start(arguments: &[&str]) -> Option<Nats> {
        let Some(program) = program() else {
            println!("skipped: there is no nats-server here");
            return None;
        };
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, port) = spawn(&program, -1, &arguments);
        Some(Nats {
            child,
            port,
            arguments,
        })
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same port.
    fn restart(&mut self) {
        (self.child, _) = spawn(&program().unwrap(), i32::from(self.port), &self.arguments);
    }

    /// A node of the cluster, with these settings besides.
    fn node(&self, id: &str, settings: &[(&str, &str)]) -> Node {
        Node::start(&self.url(), id, settings)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended, or stand still.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin"));
    let mut programs = folders.into_iter().map(|folder| folder.join("nats-server"));
    programs.find(|program| program.is_file())
}

fn spawn(program: &Path, port: i32, arguments: &[String]) -> (Child, u16) {
    let mut child = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let port = loop {
        let line = lines.next().expect("it starts").unwrap();
        if let Some((_, port)) = line.split_once("Listening for client connections on 127.0.0.1:") {
            break port.trim().parse().unwrap();
        }
    };
    thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (child, port)
}

/// A node, with a port for MQTT.
struct Node {
    process: Process,
    mqtt: SocketAddr,
}

impl Node {
    fn start(url: &str, id: &str, settings: &[(&str, &str)]) -> Node {
        let mut all = vec![
            ("RINGCAST_CLUSTER_URL", url),
            ("RINGCAST_NODE_ID", id),
            ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0"),
            ("RINGCAST_DRAIN_SECONDS", "0"),
        ];
        all.extend_from_slice(settings);
        Node::of(Process::start(&all))
    }

    fn of(process: Process) -> Node {
        let line = process.logged("and mqtt://");
        let mqtt = line.rsplit("mqtt://").next().unwrap().trim().parse().unwrap();
        Node { process, mqtt }
    }

    fn metric(&self, name: &str) -> u64 {
        self.process.admin().metric(&format!("ringcast_cluster_{name}"))
    }

    #[track_caller]
    fn knows(&self, nodes: u64) {
        eventually(&format!("it knows {nodes} others"), || {
            self.metric("nodes") == nodes
        });
    }

    /// Waits until so much is wanted of it.
    #[track_caller]
    fn is_asked_for(&self, subjects: u64) {
        eventually(&format!("others want {subjects}"), || {
            self.metric("wanted_by_others") == subjects
        });
    }

    fn status(&self) -> Value {
        let (status, body) = self.process.admin().get("/cluster");
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    fn client(&self) -> Client {
        self.process.client()
    }

    fn mqtt(&self, id: &str) -> Mqtt {
        Mqtt::at(self.mqtt, 5, id)
    }
}

/// The two nodes of most tests.
fn two(settings: &[(&str, &str)]) -> Option<(Nats, Node, Node)> {
    let nats = Nats::start(&[])?;
    let (a, b) = (nats.node("a", settings), nats.node("b", settings));
    a.knows(1);
    b.knows(1);
    Some((nats, a, b))
}

#[test]
fn clients_of_all_kinds_on_two_nodes_of_nats_get_each_publication_once_and_whole() {
    let Some((_nats, a, b)) = two(&[]) else { return };
    let (mut near, mut far) = (a.client(), b.client());
    let (mut near_device, mut far_device) = (a.mqtt("near"), b.mqtt("far"));
    near.subscribe("rooms/1");
    far.subscribe("rooms/1");
    near_device.subscribe("rooms/+", 0);
    // Three of its filters match: it gets one copy for each node that publishes, no more.
    for filter in ["rooms/#", "+/1", "rooms/1"] {
        far_device.subscribe(filter, 0);
    }
    a.is_asked_for(3);
    b.is_asked_for(2);
    let mut publisher = a.client();
    publisher.publish("rooms/1", r#"{"a":[1,"é"]}"#);
    assert_eq!(far.publication("rooms/1"), r#"{"a":[1,"é"]}"#);
    let properties = b"\x03\x00\x0atext/plain\x26\x00\x01k\x00\x01v";
    let mut device = b.mqtt("publisher");
    device.send(&publish(5, 0, "rooms/1", 0, properties, b"plain"));
    assert_eq!(far.publication("rooms/1"), "\"plain\"");
    device.send(&publish(5, 0, "rooms/1", 0, &[], b"\xff\x00"));
    assert_eq!(far.publication("rooms/1"), r#"{"base64":true,"data":"/wA="}"#);
    for expected in [
        r#"{"a":[1,"é"]}"#,
        "\"plain\"",
        r#"{"base64":true,"data":"/wA="}"#,
    ] {
        assert_eq!(near.publication("rooms/1"), expected);
    }
    for device in [&mut near_device, &mut far_device] {
        let messages = [device.message(), device.message(), device.message()];
        let payloads = messages.each_ref().map(|message| &message.payload[..]);
        assert_eq!(payloads, [r#"{"a":[1,"é"]}"#.as_bytes(), b"plain", b"\xff\x00"]);
        assert!(
            messages[1].properties.ends_with(&properties[..]),
            "{:?}",
            messages[1].properties
        );
        assert!(
            messages
                .iter()
                .all(|message| message.topic == "rooms/1" && !message.retain)
        );
    }
    // What follows comes next: nothing came twice, and nothing came back.
    publisher.publish("rooms/1", "2");
    for client in [&mut near, &mut far] {
        assert_eq!(client.publication("rooms/1"), "2");
    }
    for device in [&mut near_device, &mut far_device] {
        assert_eq!(device.message().payload, b"2");
    }
    assert_eq!((a.metric("sent_total"), a.metric("received_total")), (2, 2));
    assert_eq!((b.metric("sent_total"), b.metric("received_total")), (2, 2));
    for node in [&a, &b] {
        assert_eq!(
            node.metric("lost_total") + node.metric("missed_total") + node.metric("gaps_total"),
            0
        );
    }
}

#[test]
fn of_three_nodes_at_nats_only_those_with_subscribers_get_a_publication() {
    let Some(nats) = Nats::start(&[]) else { return };
    let linger = [("RINGCAST_CLUSTER_INTEREST_LINGER_MS", "0")];
    let nodes = ["a", "b", "c"].map(|id| nats.node(id, &linger));
    nodes.iter().for_each(|node| node.knows(2));
    let (mut on_b, mut on_c) = (nodes[1].client(), nodes[2].client());
    on_b.subscribe("b");
    on_c.subscribe("c");
    on_c.subscribe("both");
    on_b.subscribe("both");
    nodes[0].is_asked_for(4);
    let mut publisher = nodes[0].client();
    for channel in ["nobody", "b", "c", "both"] {
        publisher.publish(channel, &format!("\"{channel}\""));
    }
    assert_eq!(on_b.publication("b"), "\"b\"");
    assert_eq!(on_b.publication("both"), "\"both\"");
    assert_eq!(on_c.publication("c"), "\"c\"");
    assert_eq!(on_c.publication("both"), "\"both\"");
    assert_eq!(nodes[0].metric("sent_total"), 4);
    assert_eq!(
        (
            nodes[1].metric("received_total"),
            nodes[2].metric("received_total")
        ),
        (2, 2)
    );
    // The last subscriber leaves.
    drop(on_c);
    nodes[0].is_asked_for(2);
    publisher.publish("c", "1");
    publisher.publish("b", "1");
    assert_eq!(on_b.publication("b"), "1");
    assert_eq!(nodes[2].metric("received_total"), 2);
    let status = nodes[0].status();
    assert_eq!(
        (&status["node_id"], &status["connected"]),
        (&"a".into(), &true.into())
    );
    let mut ids: Vec<&str> = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["node_id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "c"]);
}

#[test]
fn many_publications_of_both_nodes_of_nats_come_in_order_and_once() {
    const COUNT: usize = 3000;
    let Some((_nats, a, b)) = two(&[]) else { return };
    let mut subscribers = [a.client(), b.client()];
    subscribers.iter_mut().for_each(|client| client.subscribe("load"));
    a.is_asked_for(1);
    b.is_asked_for(1);
    let publishers = [&a, &b].map(|node| {
        let mut client = node.client();
        let node = if std::ptr::eq(node, &a) { "a" } else { "b" };
        thread::spawn(move || {
            for number in 0..COUNT {
                client.publish("load", &format!("\"{node}{number}\""));
            }
        })
    });
    let readers = subscribers.map(|mut client| {
        thread::spawn(move || {
            let mut next = [0, 0];
            while next != [COUNT, COUNT] {
                let data = client.publication("load");
                let publisher = usize::from(data.as_bytes()[1] == b'b');
                assert_eq!(
                    data.trim_matches('"')[1..].parse::<usize>().unwrap(),
                    next[publisher]
                );
                next[publisher] += 1;
            }
        })
    });
    publishers.into_iter().for_each(|thread| thread.join().unwrap());
    readers.into_iter().for_each(|thread| thread.join().unwrap());
    for node in [&a, &b] {
        assert_eq!(node.metric("received_total"), COUNT as u64);
        assert_eq!(node.metric("lost_total") + node.metric("missed_total"), 0);
    }
}

#[test]
fn while_nats_is_away_clients_of_one_node_go_on_and_then_the_nodes_find_each_other_again() {
    let settings = [
        ("RINGCAST_CLUSTER_READY", "on"),
        ("RINGCAST_CLUSTER_NODE_TIMEOUT_MS", "1000"),
    ];
    let Some((mut nats, a, b)) = two(&settings) else {
        return;
    };
    let (mut near, mut far) = (a.client(), b.client());
    near.subscribe("x");
    far.subscribe("x");
    a.is_asked_for(1);
    let mut publisher = a.client();
    publisher.publish("x", "1");
    assert_eq!(
        (near.publication("x"), far.publication("x")),
        ("1".into(), "1".into())
    );
    assert_eq!(a.process.admin().get("/readyz").0, 200);
    nats.kill();
    eventually("it is not ready", || a.process.admin().get("/readyz").0 == 503);
    assert_eq!(a.process.admin().get("/healthz").0, 200);
    a.knows(0);
    publisher.publish("x", "2");
    assert_eq!(near.publication("x"), "2");
    nats.restart();
    eventually("it is ready again", || a.process.admin().get("/readyz").0 == 200);
    a.knows(1);
    a.is_asked_for(1);
    publisher.publish("x", "3");
    assert_eq!(
        (near.publication("x"), far.publication("x")),
        ("3".into(), "3".into())
    );
    assert_eq!(a.metric("connects_total"), 2);
}

#[test]
fn while_nats_stands_still_nothing_waits_and_what_has_no_room_is_counted_on_both_sides() {
    let settings = [
        ("RINGCAST_CLUSTER_QUEUE_BYTES_MAX", "65536"),
        ("RINGCAST_CLUSTER_NODE_TIMEOUT_MS", "600000"),
    ];
    let Some((nats, a, b)) = two(&settings) else {
        return;
    };
    let (mut near, mut far) = (a.client(), b.client());
    near.subscribe("x");
    far.subscribe("x");
    a.is_asked_for(1);
    nats.signal(Signal::SIGSTOP);
    let mut publisher = a.client();
    let data = format!("\"{}\"", "x".repeat(30_000));
    let mut count = 0_u64;
    eventually("the queue is full", || {
        publisher.publish("x", &data);
        assert_eq!(near.publication("x"), data);
        count += 1;
        a.metric("lost_total") > 3
    });
    nats.signal(Signal::SIGCONT);
    eventually(
        "all that was sent has come, and the rest is known to be missing",
        || b.metric("received_total") + b.metric("missed_total") == count,
    );
    assert!(b.metric("missed_total") > 3 && b.metric("gaps_total") > 0);
    assert!(
        b.process
            .logged("publications of the node a are missing here")
            .contains("missed")
    );
    for _ in 0..b.metric("received_total") {
        assert_eq!(far.publication("x"), data);
    }
    publisher.publish("x", "\"last\"");
    assert_eq!(far.publication("x"), "\"last\"");
}

#[test]
fn a_node_at_nats_that_is_killed_is_forgotten_and_its_successor_is_known() {
    let settings = [("RINGCAST_CLUSTER_NODE_TIMEOUT_MS", "1000")];
    let Some((nats, a, b)) = two(&settings) else {
        return;
    };
    let mut far = b.client();
    far.subscribe("x");
    a.is_asked_for(1);
    b.process.signal(Signal::SIGKILL);
    a.knows(0);
    a.is_asked_for(0);
    a.process.logged("it is taken for ended");
    let b = nats.node("b", &settings);
    a.knows(1);
    let mut far = b.client();
    far.subscribe("x");
    a.is_asked_for(1);
    a.client().publish("x", "1");
    assert_eq!(far.publication("x"), "1");
    // Frozen, it is taken for ended; when it goes on, it is known again.
    b.process.signal(Signal::SIGSTOP);
    a.knows(0);
    b.process.signal(Signal::SIGCONT);
    a.knows(1);
    b.knows(1);
    a.is_asked_for(1);
    a.client().publish("x", "2");
    assert_eq!(far.publication("x"), "2");
    assert_eq!(a.metric("duplicate_ids"), 0);
    // One that ends in order says so.
    b.process.signal(Signal::SIGTERM);
    a.process.logged("the node b has ended");
    a.knows(0);
}

#[test]
fn two_nodes_at_nats_with_one_id_are_named_and_both_go_on() {
    let settings = [("RINGCAST_CLUSTER_NODE_TIMEOUT_MS", "1000")];
    let Some((nats, a, b)) = two(&settings) else {
        return;
    };
    let twin = nats.node("b", &settings);
    a.knows(2);
    eventually("all see it", || {
        [&a, &b, &twin].map(|node| node.metric("duplicate_ids")) == [2, 1, 1]
    });
    a.process.logged("two processes are the node b");
    let mut clients = [b.client(), twin.client()];
    clients.iter_mut().for_each(|client| client.subscribe("x"));
    a.is_asked_for(2);
    a.client().publish("x", "1");
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.publication("x"), "1"));
}

#[test]
fn what_nodes_at_nats_do_not_share_stays_on_its_node() {
    let folder = Folder::new();
    let config = folder.write(
        "node.toml",
        "[[channels]]\nnames = [\"history\"]\nhistory_entries = 10\n",
    );
    let settings = [("RINGCAST_CONFIG", config.to_str().unwrap())];
    let Some((_nats, a, b)) = two(&settings) else {
        return;
    };
    let mut far = b.client();
    let mut device = b.mqtt("device");
    far.subscribe("history");
    far.subscribe("plain");
    device.subscribe("#", 0);
    a.is_asked_for(3);
    let mut publisher = a.client();
    publisher.publish("history", "1");
    let mut sender = a.mqtt("sender");
    // A retained publication is delivered on the other node, and retained on its own.
    sender.send(&publish(5, 1, "state", 0, &[], b"on"));
    let message = device.message();
    assert_eq!((&*message.topic, &message.payload[..]), ("state", &b"on"[..]));
    publisher.publish("plain", "2");
    assert_eq!(far.publication("plain"), "2");
    let mut late = b.mqtt("late");
    late.subscribe("state", 0);
    late.ping();
    let mut late = a.mqtt("late");
    late.subscribe("state", 0);
    assert_eq!(late.message().payload, b"on");
    assert_eq!((a.metric("sent_total"), b.metric("lost_total")), (2, 0));
}

#[test]
fn a_node_authenticates_itself_at_nats_and_shows_no_secret() {
    let folder = Folder::new();
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let users =
        format!("authorization {{ users: [ {{ nkey: {public} }}, {{ user: node, password: topsecret }} ] }}");
    let config = folder.write("nats.conf", &users);
    let Some(nats) = Nats::start(&["-c", config.to_str().unwrap()]) else {
        return;
    };
    let by_password = format!("nats://node:topsecret@127.0.0.1:{}", nats.port);
    let a = Node::start(&by_password, "a", &[]);
    let nkey = folder.write("node.nk", &format!("{seed}\n"));
    let b = nats.node("b", &[("RINGCAST_CLUSTER_NKEY_FILE", nkey.to_str().unwrap())]);
    a.knows(1);
    b.knows(1);
    for page in ["/stats", "/cluster", "/metrics"] {
        assert!(!a.process.admin().get(page).1.contains("topsecret"), "{page}");
    }
    let wrong = format!("nats://node:wrongsecret@127.0.0.1:{}", nats.port);
    let c = Node::start(&wrong, "c", &[]);
    let lines = c.process.logged_until("uthorization");
    assert!(
        lines.iter().all(|line| !line.contains("wrongsecret")),
        "{lines:?}"
    );
    assert_eq!((c.metric("connected"), a.metric("nodes")), (0, 1));
}

#[test]
fn the_id_of_a_node_at_nats_is_kept_and_differing_configurations_are_named() {
    let folder = Folder::new();
    let Some(nats) = Nats::start(&[]) else { return };
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let url = nats.url();
    let settings = [
        ("RINGCAST_CLUSTER_URL", &*url),
        ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0"),
        ("RINGCAST_DATA_DIR", data.to_str().unwrap()),
    ];
    let ids = [(); 2].map(|()| Node::of(Process::start(&settings)).status()["node_id"].clone());
    assert_eq!(ids[0], ids[1]);
    assert!(ids[0].as_str().unwrap().starts_with("node-"));
    let config = folder.write(
        "other.toml",
        "[[channels]]\nnames = [\"a\"]\nhistory_entries = 10\n",
    );
    let (a, b) = (
        nats.node("a", &[]),
        nats.node("b", &[("RINGCAST_CONFIG", config.to_str().unwrap())]),
    );
    a.process.logged("the node b has other [[channels]]");
    b.process.logged("the node a has other [[channels]]");
    eventually("it is on the page", || {
        a.status()["nodes"][0]["differs_in"][0] == "channels"
    });
}

#[test]
fn the_example_of_two_nodes_at_nats_works_as_the_page_says() {
    let Some(nats) = Nats::start(&[]) else { return };
    let page = include_str!("../docs/cluster.md");
    let folder = Folder::new();
    let nodes = ["node-a", "node-b"].map(|name| {
        let begin = format!("```toml\n# {name}.toml\n");
        let (_, rest) = page.split_once(&begin).unwrap();
        let text = rest.split("```").next().unwrap();
        assert!(text.contains("nats://127.0.0.1:4222"));
        let text = text.replace("nats://127.0.0.1:4222", &nats.url());
        let file = folder.write(&format!("{name}.toml"), &text);
        // Ports of this machine may be in use: those of the environment come before those of the file.
        Node::of(Process::start(&[
            ("RINGCAST_CONFIG", file.to_str().unwrap()),
            ("RINGCAST_MQTT_LISTEN", "127.0.0.1:0"),
        ]))
    });
    let [a, b] = nodes;
    a.knows(1);
    assert_eq!(
        (a.status()["node_id"].clone(), b.status()["node_id"].clone()),
        ("a".into(), "b".into())
    );
    let mut far = b.client();
    far.subscribe("news");
    a.is_asked_for(1);
    a.client().publish("news", "\"hello\"");
    assert_eq!(far.publication("news"), "\"hello\"");
}
