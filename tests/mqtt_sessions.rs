//! Random lives of MQTT sessions on a server with several cores: clients that connect, are cut off, come back, take
//! over from themselves, and acknowledge when they like. Whatever happens, a session gets each publication with QoS 2
//! exactly once, each with QoS 1 at least once, and each topic in order.
//!
//! Each run prints its seed; `TEST_SEED=7 cargo test --test mqtt_sessions` repeats it.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which prints its seed

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringcast::config::Placement;
use ringcast::internals::decision::Limit;
use support::Server;

/// How long a test waits for a packet that must come, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: u8 = 3;

/// Random numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// A connection of a client.
struct Wire(TcpStream);

impl Wire {
    fn open(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire(stream)
    }

    fn send(&mut self, first: u8, parts: &[&[u8]]) {
        let body = parts.concat();
        let length = u8::try_from(body.len()).unwrap();
        assert!(length < 0x80, "one byte says the length");
        // The server may have closed the connection: then the client learns it when it reads.
        let _ = self.0.write_all(&[&[first, length], &body[..]].concat());
    }

    /// The next packet; `None` if the server has closed the connection.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no packet came within {PATIENCE:?}")
            }
            Err(_) => return None,
        }
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// Whether the beginning of a packet, or the end, has come.
    fn has_some(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

/// A client with a session that lasts, and the publications that it has got so far.
struct Subscriber {
    id: String,
    version: u8,
    wire: Option<Wire>,
    has_session: bool,
    /// QoS 2 publications that are not released.
    received: BTreeSet<[u8; 2]>,
    /// Acknowledgements that it has not sent yet.
    owed: VecDeque<(u8, [u8; 2])>,
    /// The publications that its application has got: topic, QoS and number.
    got: Vec<(u8, u8, u32)>,
}

impl Subscriber {
    /// Connects, and takes over from its own older connection if it has one.
    fn connect(&mut self, address: SocketAddr, receive_maximum: u8) {
        let mut wire = Wire::open(address);
        let mut body = string("MQTT");
        body.extend([self.version, 0, 0, 0]);
        if self.version == 5 {
            // The session lasts for 1,000 s, and so many publications may be in flight.
            body.extend([8, 0x11, 0, 0, 3, 0xe8, 0x21, 0, receive_maximum]);
        }
        wire.send(0x10, &[&body, &string(&self.id)]);
        let (first, connack) = wire.next().expect("CONNACK comes first");
        assert_eq!((first, connack[1]), (0x20, 0));
        assert_eq!(connack[0] == 1, self.has_session, "{}", self.id);
        if let Some(mut old) = self.wire.replace(wire) {
            while old.next().is_some() {}
        }
        self.owed.clear();
        if !self.has_session {
            self.has_session = true;
            let no_properties: &[u8] = if self.version == 5 { &[0] } else { &[] };
            let wire = self.wire.as_mut().unwrap();
            wire.send(0x82, &[&[0, 1], no_properties, &string("t/#"), &[2]]);
            assert_eq!(wire.next().unwrap().0, 0x90);
        }
    }

    fn cut(&mut self) {
        self.wire = None;
        self.owed.clear();
    }

    /// Reads one packet. False if the server has closed the connection.
    fn read(&mut self) -> bool {
        let Some((first, body)) = self.wire.as_mut().unwrap().next() else {
            self.cut();
            return false;
        };
        match first >> 4 {
            3 => self.take(first >> 1 & 3, &body),
            6 => {
                let id = [body[0], body[1]];
                self.received.remove(&id);
                self.owed.push_back((0x70, id));
            }
            14 => assert_eq!(self.version, 5),
            _ => panic!("{first:x} {body:?}"),
        }
        true
    }

    fn take(&mut self, qos: u8, body: &[u8]) {
        let (topic, rest) = body[2..].split_at(3);
        let (id, rest) = rest.split_at(2);
        let id = [id[0], id[1]];
        let payload = if self.version == 5 { &rest[1..] } else { rest };
        let number = u32::from_be_bytes(payload.try_into().unwrap());
        if qos == 1 || self.received.insert(id) {
            self.got.push((topic[2] - b'0', qos, number));
        }
        self.owed.push_back((if qos == 1 { 0x40 } else { 0x50 }, id));
    }

    fn acknowledge(&mut self) {
        if let (Some(wire), Some((first, id))) = (&mut self.wire, self.owed.pop_front()) {
            wire.send(first, &[&id]);
        }
    }

    /// What it has got of a topic with a QoS, each publication where it came first.
    fn firsts(&self, topic: u8, qos: u8) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        let all = self.got.iter().filter(|got| (got.0, got.1) == (topic, qos));
        all.map(|got| got.2)
            .filter(|&number| seen.insert(number))
            .collect()
    }
}

/// The client that publishes, and all that it has published.
struct Publisher {
    wire: Wire,
    published: Vec<(u8, u8, u32)>,
}

impl Publisher {
    fn publish(&mut self, topic: u8, qos: u8) {
        let number = u32::try_from(self.published.len()).unwrap();
        let name = format!("t/{topic}");
        self.wire
            .send(0x30 | qos << 1, &[&string(&name), &[0, 1], &number.to_be_bytes()]);
        self.published.push((topic, qos, number));
        if qos == 1 {
            assert_eq!(self.wire.next().unwrap(), (0x40, vec![0, 1]));
        } else {
            assert_eq!(self.wire.next().unwrap(), (0x50, vec![0, 1]));
            self.wire.send(0x62, &[&[0, 1]]);
            assert_eq!(self.wire.next().unwrap(), (0x70, vec![0, 1]));
        }
    }

    fn numbers(&self, topic: u8, qos: u8) -> Vec<u32> {
        let all = self.published.iter().filter(|one| (one.0, one.1) == (topic, qos));
        all.map(|one| one.2).collect()
    }
}

fn live(seed: u64) {
    println!("TEST_SEED={seed}");
    let mut random = Random(seed);
    let server = Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.mqtt.in_flight_max = 3;
        config.cores.placement = Placement::Count(3);
    });
    let address = server.running().mqtt_address().unwrap();
    let mut subscribers: Vec<Subscriber> = (0..6)
        .map(|number| Subscriber {
            id: format!("client-{seed}-{number}"),
            version: 4 + number % 2,
            wire: None,
            has_session: false,
            received: BTreeSet::new(),
            owed: VecDeque::new(),
            got: Vec::new(),
        })
        .collect();
    for subscriber in &mut subscribers {
        subscriber.connect(address, 2);
    }
    let mut wire = Wire::open(address);
    wire.send(0x10, &[&string("MQTT"), &[4, 2, 0, 0], &string("publisher")]);
    assert_eq!(wire.next().unwrap(), (0x20, vec![0, 0]));
    let mut publisher = Publisher {
        wire,
        published: Vec::new(),
    };
    for _ in 0..800 {
        let at = usize::try_from(random.below(6)).unwrap();
        let subscriber = &mut subscribers[at];
        match random.below(10) {
            0 => subscriber.cut(),
            1 => subscriber.connect(address, 1 + u8::try_from(random.below(5)).unwrap()),
            2..=4 => {
                let topic = u8::try_from(random.below(TOPICS.into())).unwrap();
                publisher.publish(topic, 1 + u8::try_from(random.below(2)).unwrap());
            }
            5..=7 => {
                if subscriber.wire.as_ref().is_some_and(Wire::has_some) {
                    subscriber.read();
                }
            }
            _ => subscriber.acknowledge(),
        }
    }
    // The last of each topic comes after all others of that topic and QoS.
    for topic in 0..TOPICS {
        publisher.publish(topic, 1);
        publisher.publish(topic, 2);
    }
    for subscriber in &mut subscribers {
        subscriber.connect(address, 5);
        let has_all = |subscriber: &Subscriber| {
            (0..TOPICS).all(|topic| {
                (1..3).all(|qos| subscriber.firsts(topic, qos).last() == publisher.numbers(topic, qos).last())
            })
        };
        while !has_all(subscriber) {
            assert!(subscriber.read(), "the connection goes on");
            while !subscriber.owed.is_empty() {
                subscriber.acknowledge();
            }
        }
        for topic in 0..TOPICS {
            assert_eq!(subscriber.firsts(topic, 1), publisher.numbers(topic, 1));
            let exactly: Vec<u32> = subscriber
                .got
                .iter()
                .filter(|got| (got.0, got.1) == (topic, 2))
                .map(|got| got.2)
                .collect();
            assert_eq!(exactly, publisher.numbers(topic, 2));
        }
    }
    assert_eq!(
        server.limit_hits(Limit::MqttQueue),
        0,
        "the queues have room for all"
    );
}

#[test]
fn sessions_lose_nothing_and_repeat_nothing_whatever_becomes_of_their_connections() {
    match std::env::var("TEST_SEED") {
        Ok(seed) => live(seed.parse().unwrap()),
        Err(_) => (1..=4).for_each(live),
    }
}
