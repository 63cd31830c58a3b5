//! Delivery to MQTT subscribers over real sockets, without a core.

use std::io::Read;
use std::net::{TcpListener, TcpStream as Peer};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;

use super::*;
use crate::broker::publication::{self, Facts, Kind, Marks, Origin, Sequence};
use crate::broker::{ChannelHasher, SubscriptionLimits};
use crate::client::ClientAddress;
use crate::clock::{Now, Uptime};
use crate::config::{QueueFull, SlowConsumer};
use crate::cores::connections::Bounds;
use crate::cores::connections::delivery_inspector::NoInspector;
use crate::cores::connections::retained::Handed;
use crate::cores::lifecycle::connection::Phase;
use crate::metrics::block::CoreMetrics;
use crate::mqtt::publication::{Head, write_head};
use crate::mqtt::sessions::{Connect, Content, CoreLocation, End};
use crate::mqtt::subscriptions::Options;
use crate::mqtt::{Qos, Version, sessions};
use crate::protocols::Framing;
use crate::transport::port::Port;

const LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: 100,
    names_bytes_max: 10_000,
};

/// A core's connections, with a client for each.
struct Table {
    connections: Connections,
    hasher: ChannelHasher,
    clients: Vec<TestClient>,
}

struct TestClient {
    peer: Peer,
    id: ConnectionId,
    session: SessionRef,
}

fn options(qos: Qos) -> Options {
    Options {
        qos,
        no_local: false,
        retain_as_published: false,
        id: 0,
    }
}

const HEAD: Head = Head {
    qos: 0,
    retain: false,
    is_text: false,
    payload_rule: crate::config::channels::MqttPayload::Auto,
    publisher: 0,
    client_hash: 0,
    expires_at_ms: None,
};

impl Table {
    fn new(outbox_bytes_max: u32) -> Table {
        Table::with_policy(outbox_bytes_max, SlowConsumer::Close)
    }

    fn with_policy(outbox_bytes_max: u32, slow_consumer: SlowConsumer) -> Table {
        let hasher = ChannelHasher::with_key(1);
        let bounds = sessions::Bounds {
            sessions_max: 5000,
            queue_messages_max: 1000,
            queue_bytes_max: 1 << 24,
            queues_bytes_max: 1 << 28,
            in_flight_max: 1000,
            wills_bytes_max: 1000,
            queue_full: QueueFull::DropNewest,
            queues_qos0: false,
        };
        let place = CoreLocation {
            core: 0,
            cores: 1,
            hasher: hasher.clone(),
        };
        let connections = Connections::new(
            &Bounds {
                batches: None,
                outbox_bytes_max,
                held_bytes_max: usize::MAX,
                write_timeout: Duration::ZERO,
            },
            slow_consumer,
            None,
            Some(Sessions::new(bounds, place)),
            Arc::new(CoreMetrics::default()),
        );
        Table {
            connections,
            hasher,
            clients: Vec::new(),
        }
    }

    fn sessions(&mut self) -> &mut Sessions {
        self.connections.mqtt.as_deref_mut().unwrap()
    }

    /// A new client; returns its number.
    fn connect(&mut self, version: Version, framing: Framing) -> usize {
        self.connect_with_aliases(version, framing, 0)
    }

    fn connect_with_aliases(
        &mut self,
        version: Version,
        framing: Framing,
        topic_alias_maximum: u16,
    ) -> usize {
        let client_id = &self.clients.len().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let phase = Phase::Request {
            deadline: Uptime::NEVER,
            port: Port::Main,
            sent_continue: false,
        };
        let stream = TcpStream::from_std(socket);
        let inserted = self
            .connections
            .insert(stream, ClientAddress::UNKNOWN, phase, |_, _| Ok(()));
        let id = inserted.unwrap();
        self.connections.get_mut(id).unwrap().framing = framing;
        let connect = Connect {
            client_id,
            user: None,
            version,
            address: id.token().0,
            clean_start: false,
            expiry_s: 60,
            receive_maximum: 100,
            packet_bytes_max: 2000,
            topic_alias_maximum,
            will: None,
        };
        let now = Now {
            uptime: Uptime::default(),
            unix_ms: 0,
        };
        let session = self.sessions().connect(connect, now).unwrap().session;
        self.clients.push(TestClient { peer, id, session });
        self.clients.len() - 1
    }

    fn subscribe(&mut self, client: usize, filter: &str, options: Options) {
        let number = self.clients[client].session.number;
        let subscriber = Subscriber::Session(number);
        self.sessions()
            .subscriptions
            .subscribe(subscriber, filter, options, LIMITS);
    }

    /// Delivers a publication by an MQTT client, at most `copies` in each turn. Returns how many turns it took.
    fn publish(&mut self, topic: &str, head: Head, payload: &[u8], copies: usize) -> usize {
        let mut frame = Vec::new();
        write_head(&head, b"", &mut frame);
        frame.extend_from_slice(payload);
        self.deliver(topic, Origin::Mqtt, head.retain, &frame, payload.len(), copies)
    }

    fn deliver(
        &mut self,
        topic: &str,
        origin: Origin,
        retain: bool,
        frame: &[u8],
        payload_bytes: usize,
        copies: usize,
    ) -> usize {
        self.deliver_with(topic, origin, retain, frame, payload_bytes, copies, |_| {})
    }

    /// As [`Table::deliver`], but calls `between` between two turns.
    #[expect(clippy::too_many_arguments, reason = "the facts of a publication")]
    fn deliver_with(
        &mut self,
        topic: &str,
        origin: Origin,
        retain: bool,
        frame: &[u8],
        payload_bytes: usize,
        copies: usize,
        mut between: impl FnMut(&mut Table),
    ) -> usize {
        let facts = Facts {
            at_ns: 0,
            kind: match origin {
                Origin::Mqtt => Kind::Opaque,
                Origin::SocketCluster => Kind::Json,
            },
            origin,
            payload_bytes: u32::try_from(payload_bytes).unwrap(),
            marks: Marks {
                remembered: false,
                positioned: false,
            },
            retain,
        };
        let mut buffer = Vec::new();
        publication::write(&mut buffer, facts, topic.as_bytes(), &[frame]);
        let publication = publication::Publication::new(Sequence(1), &buffer);
        let hash = self.hasher.hash(topic.as_bytes());
        for turn in 1.. {
            let mut copies_left = copies;
            let has_begun = self
                .connections
                .begin_mqtt_walk(hash, &publication, || false, &mut copies_left);
            let is_over = !has_begun
                || self
                    .connections
                    .deliver_to_mqtt(hash, &publication, &mut NoInspector, &mut copies_left)
                    .1;
            if is_over {
                return turn;
            }
            between(self);
        }
        unreachable!()
    }

    /// Everything that a client has been sent, once all outboxes are empty.
    fn received(&mut self, client: usize) -> Vec<u8> {
        self.connections.send_waiting_mqtt(&mut NoInspector);
        self.connections.flush(|| false);
        let peer = &mut self.clients[client].peer;
        peer.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        // Loopback delivers before `write` returns.
        let _ = peer.read_to_end(&mut bytes);
        bytes
    }
}

/// A PUBLISH packet to topic `t`, of version 3.1.1.
fn packet(first: u8, id: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(3 + id.len() + payload.len()).unwrap();
    [&[first, length, 0, 1, b't'], id, payload].concat()
}

#[test]
fn each_subscriber_gets_one_copy_with_the_highest_qos_and_its_version_and_framing() {
    let mut table = Table::new(1 << 20);
    let v4 = table.connect(Version::V4, Framing::Mqtt);
    let v5 = table.connect(Version::V5, Framing::Mqtt);
    let web = table.connect(Version::V4, Framing::MqttOverWebSocket);
    for client in [v4, v5, web] {
        table.subscribe(client, "t", options(Qos::AtMostOnce));
        table.subscribe(client, "+", options(Qos::ExactlyOnce));
    }
    let with_id = Options {
        id: 200,
        ..options(Qos::AtLeastOnce)
    };
    table.subscribe(v5, "#", with_id);
    for (qos, first, id) in [(0, 0x30, &[][..]), (1, 0x32, &[0, 1]), (2, 0x34, &[0, 2])] {
        let head = Head { qos, ..HEAD };
        assert_eq!(table.publish("t", head, b"hi", usize::MAX), 1);
        let plain = packet(first, id, b"hi");
        assert_eq!(table.received(v4), plain);
        let framed = [&[0x82, u8::try_from(plain.len()).unwrap()], &plain[..]].concat();
        assert_eq!(table.received(web), framed);
        let properties = [id, &[3, 0x0b, 0xc8, 1]].concat();
        assert_eq!(table.received(v5), packet(first, &properties, b"hi"));
    }
    assert_eq!(table.publish("$SYS/t", HEAD, b"no", usize::MAX), 1);
    assert!(table.received(v4).is_empty());
}

#[test]
fn the_retain_flag_is_kept_for_whom_asks_and_own_publications_are_left_out_with_no_local() {
    // Traps 40 and 94.
    let mut table = Table::new(1 << 20);
    let client = table.connect(Version::V4, Framing::Mqtt);
    let retained = Head { retain: true, ..HEAD };
    table.subscribe(client, "t", options(Qos::AtMostOnce));
    table.publish("t", retained, b"1", usize::MAX);
    assert_eq!(table.received(client), packet(0x30, &[], b"1"));
    let as_published = Options {
        retain_as_published: true,
        ..options(Qos::AtMostOnce)
    };
    table.subscribe(client, "t", as_published);
    table.publish("t", retained, b"2", usize::MAX);
    table.publish("t", HEAD, b"3", usize::MAX);
    assert_eq!(
        table.received(client),
        [packet(0x31, &[], b"2"), packet(0x30, &[], b"3")].concat()
    );
    let no_local = Options {
        no_local: true,
        ..options(Qos::AtMostOnce)
    };
    table.subscribe(client, "t", no_local);
    let own = Head {
        publisher: table.clients[client].session.serial,
        ..HEAD
    };
    table.publish("t", own, b"4", usize::MAX);
    assert!(table.received(client).is_empty());
    // Another filter of the same session has no such option.
    table.subscribe(client, "#", options(Qos::AtMostOnce));
    table.publish("t", own, b"5", usize::MAX);
    assert_eq!(table.received(client), packet(0x30, &[], b"5"));
}

#[test]
fn a_client_that_takes_aliases_gets_the_name_of_a_topic_once() {
    let mut table = Table::new(1 << 20);
    let client = table.connect_with_aliases(Version::V5, Framing::Mqtt, 1);
    let other = table.connect(Version::V5, Framing::Mqtt);
    for client in [client, other] {
        table.subscribe(client, "#", options(Qos::AtMostOnce));
    }
    for (topic, expected) in [
        ("first", &b"\x30\x0c\0\x05first\x03\x23\0\x01x"[..]),
        ("first", b"\x30\x07\0\0\x03\x23\0\x01x"),
        ("second", b"\x30\x0a\0\x06second\0x"),
        ("first", b"\x30\x07\0\0\x03\x23\0\x01x"),
    ] {
        table.publish(topic, HEAD, b"x", usize::MAX);
        assert_eq!(table.received(client), expected);
        let plain = table.received(other);
        assert_eq!(plain[4..4 + topic.len()], *topic.as_bytes());
    }
}

#[test]
fn a_walk_pauses_and_reaches_each_session_once_while_sessions_come_and_go() {
    let mut table = Table::new(1 << 20);
    let clients: Vec<usize> = (0..20)
        .map(|_| table.connect(Version::V4, Framing::Mqtt))
        .collect();
    for &client in &clients {
        table.subscribe(client, "t", options(Qos::AtMostOnce));
    }
    let mut frame = Vec::new();
    write_head(&HEAD, b"", &mut frame);
    frame.push(b'x');
    assert_eq!(table.deliver("t", Origin::Mqtt, false, &frame, 1, 3), 7);
    for &client in &clients {
        assert_eq!(table.received(client), packet(0x30, &[], b"x"));
    }
    let delivered = &table.connections.metrics.deliveries;
    assert_eq!(delivered.value(), 20);
}

#[test]
fn a_publication_by_a_socketcluster_client_is_its_json_and_a_name_that_is_no_topic_is_not_seen() {
    let mut table = Table::new(1 << 20);
    let client = table.connect(Version::V4, Framing::Mqtt);
    table.subscribe(client, "#", options(Qos::ExactlyOnce));
    let message = br##"{"event":"#publish","data":{"channel":"t","data":{"a":1}}}"##;
    let mut frame = vec![0x81, u8::try_from(message.len()).unwrap()];
    frame.extend_from_slice(message);
    for name in ["", "a/#", "t\0"] {
        table.deliver(name, Origin::SocketCluster, false, &frame, 7, usize::MAX);
        assert!(table.received(client).is_empty(), "{name:?}");
    }
    table.deliver("t", Origin::SocketCluster, false, &frame, 7, usize::MAX);
    assert_eq!(table.received(client), packet(0x32, &[0, 1], br#"{"a":1}"#));
}

#[test]
fn what_is_too_large_for_a_client_counts_as_sent() {
    let mut table = Table::new(1 << 20);
    let client = table.connect(Version::V4, Framing::Mqtt);
    table.subscribe(client, "t", options(Qos::AtLeastOnce));
    for qos in [0, 1] {
        let head = Head { qos, ..HEAD };
        // The fixed header counts towards the size.
        table.publish(
            "t",
            head,
            &vec![b'x'; 2000 - 2 * usize::from(qos) - 5],
            usize::MAX,
        );
        assert!(table.received(client).is_empty());
        table.publish(
            "t",
            head,
            &vec![b'x'; 2000 - 2 * usize::from(qos) - 6],
            usize::MAX,
        );
        assert_eq!(table.received(client).len(), 2000);
    }
    assert_eq!(table.sessions().take_counts().dropped_too_large, 2);
}

#[test]
fn what_an_outbox_does_not_take_waits_and_is_sent_in_order() {
    let mut table = Table::new(300);
    let client = table.connect(Version::V4, Framing::Mqtt);
    table.subscribe(client, "t", options(Qos::AtLeastOnce));
    let head = Head { qos: 1, ..HEAD };
    for number in 0..50_u8 {
        table.publish("t", head, &[number; 50], usize::MAX);
    }
    let mut got = Vec::new();
    for _ in 0..100 {
        got.extend(table.received(client));
    }
    let expected: Vec<u8> = (0..50_u8)
        .flat_map(|number| packet(0x32, &[0, number + 1], &[number; 50]))
        .collect();
    assert_eq!(got, expected);
    assert!(table.connections.next_ending().is_none() && !table.connections.has_mqtt_work());
}

#[test]
fn a_client_whose_socket_is_full_goes_on_when_the_socket_takes_more() {
    let mut table = Table::new(1 << 16);
    let client = table.connect(Version::V4, Framing::Mqtt);
    table.subscribe(client, "t", options(Qos::AtLeastOnce));
    let head = Head { qos: 1, ..HEAD };
    let session = table.clients[client].session;
    let (mut got, mut acknowledged, mut published) = (Vec::new(), 0, 0_u16);
    while table.connections.slab[table.clients[client].id.index() as usize]
        .outbox
        .is_blocked()
        .eq(&false)
    {
        table.publish("t", head, &[b'x'; 1500], usize::MAX);
        published += 1;
        table.connections.send_waiting_mqtt(&mut NoInspector);
        table.connections.flush(|| false);
        // The client acknowledges without having read, so that only its socket delays further packets.
        table.sessions().puback(session, published);
        acknowledged += 1;
    }
    assert_eq!(acknowledged, published);
    // More than an outbox takes of waiting publications.
    for _ in 0..60 {
        table.publish("t", head, &[b'y'; 1500], usize::MAX);
    }
    table.connections.send_waiting_mqtt(&mut NoInspector);
    assert!(!table.connections.has_mqtt_work(), "it waits for the socket");
    let id = table.clients[client].id;
    let expected = (usize::from(published) + 60) * (3 + 3 + 2 + 1500);
    while got.len() < expected {
        got.extend(table.received(client));
        table.connections.writable(id);
    }
    assert_eq!(got.len(), expected);
}

#[test]
fn a_publication_that_expires_while_its_walk_pauses_leaves_nothing_behind() {
    let mut table = Table::new(1 << 20);
    let clients: Vec<usize> = (0..6)
        .map(|number| {
            let client = table.connect(Version::V4, Framing::Mqtt);
            let qos = [Qos::AtMostOnce, Qos::AtLeastOnce][number % 2];
            table.subscribe(client, "t", options(qos));
            client
        })
        .collect();
    let expires = Head {
        qos: 1,
        expires_at_ms: Some(1000),
        ..HEAD
    };
    let mut frame = Vec::new();
    write_head(&expires, b"", &mut frame);
    frame.extend_from_slice(b"old");
    let turns = table.deliver_with("t", Origin::Mqtt, false, &frame, 3, 4, |table| {
        table.connections.unix_ms = 1000;
    });
    assert_eq!(turns, 2);
    let head = Head { qos: 1, ..HEAD };
    table.publish("t", head, b"new", usize::MAX);
    for (at, &client) in clients.iter().enumerate() {
        let (first, mut id) = ([0x30, 0x32][at % 2], vec![0, 1]);
        let mut expected = Vec::new();
        id.truncate(2 * (at % 2));
        if at < 4 {
            expected.extend(packet(first, &id, b"old"));
            id.iter_mut().skip(1).for_each(|id| *id += 1);
        }
        expected.extend(packet(first, &id, b"new"));
        assert_eq!(table.received(client), expected, "client {at}");
    }
    // The copy for the next connection is a new one as well.
    let session = table.clients[clients[5]].session;
    assert_eq!(table.sessions().outgoing_len(session), (1, 0));
    let connect = Connect {
        client_id: "5",
        user: None,
        version: Version::V4,
        address: table.clients[clients[5]].id.token().0,
        clean_start: false,
        expiry_s: 60,
        receive_maximum: 100,
        packet_bytes_max: 2000,
        topic_alias_maximum: 0,
        will: None,
    };
    let now = Now {
        uptime: Uptime::default(),
        unix_ms: 1000,
    };
    assert!(table.sessions().connect(connect, now).unwrap().is_present);
    assert_eq!(table.received(clients[5]), packet(0x3a, &[0, 1], b"new"));
}

#[test]
fn conflation_tells_topics_apart_whose_hashes_begin_alike() {
    let mut table = Table::with_policy(3000, SlowConsumer::Conflate);
    // The hasher's key is fixed, and among these names two have the same 32 bits.
    let mut seen = std::collections::HashMap::new();
    let (one, other) = (0..)
        .find_map(|number| {
            let name = format!("t{number}");
            let part = channel_of(table.hasher.hash(name.as_bytes()));
            seen.insert(part, name.clone()).map(|before| (before, name))
        })
        .unwrap();
    for framing in [Framing::Mqtt, Framing::MqttOverWebSocket] {
        let client = table.connect(Version::V4, framing);
        table.subscribe(client, "#", options(Qos::AtMostOnce));
        let index = table.clients[client].id.index() as usize;
        while !table.connections.slab[index].outbox.is_blocked() {
            table.publish("fill", HEAD, &[b'x'; 1500], usize::MAX);
            table.connections.flush(|| false);
        }
        while table.connections.slab[index].outbox.conflated().is_none() {
            table.publish("fill", HEAD, &[b'x'; 1500], usize::MAX);
        }
        for payload in [b"1", b"2"] {
            for topic in [&one, &other] {
                table.publish(topic, HEAD, payload, usize::MAX);
            }
        }
        let id = table.clients[client].id;
        let mut got = Vec::new();
        for _ in 0..1000 {
            got.extend(table.received(client));
            table.connections.writable(id);
        }
        for topic in [&one, &other] {
            let newest = [topic.as_bytes(), b"2"].concat();
            assert!(got.windows(newest.len()).any(|part| part == newest), "{topic}");
            let older = [topic.as_bytes(), b"1"].concat();
            assert!(!got.windows(older.len()).any(|part| part == older), "{topic}");
        }
        let number = table.clients[client].session.number;
        table
            .sessions()
            .subscriptions
            .end(Subscriber::Session(number), usize::MAX);
    }
}

#[test]
fn a_retained_publication_waits_for_acknowledgements_and_never_in_the_queue_of_its_session() {
    let mut table = Table::new(1 << 20);
    let client = table.connect(Version::V4, Framing::Mqtt);
    let session = table.clients[client].session;
    let content = Content {
        topic: b"t",
        properties: b"",
        payload: b"x",
        expires_at: None,
        is_utf8: false,
        quotes: Quotes::Kept,
    };
    let send = |table: &mut Table| {
        table.received(client);
        table
            .connections
            .send_retained(session, &content, 1, 0, 0, &mut NoInspector)
    };
    for _ in 0..100 {
        assert_eq!(send(&mut table), Handed::Over);
    }
    assert_eq!(send(&mut table), Handed::Blocked);
    assert_eq!(table.sessions().outgoing_len(session), (100, 0));
    table.connections.watch_for_retained(session);
    assert_eq!(table.connections.next_woken_mqtt(), None);
    table.sessions().puback(session, 7);
    assert_eq!(table.connections.next_woken_mqtt(), Some((session, true)));
    assert_eq!(send(&mut table), Handed::Over);
    assert_eq!(send(&mut table), Handed::Blocked);
    table.connections.watch_for_retained(session);
    let now = Now {
        uptime: Uptime::default(),
        unix_ms: 0,
    };
    let address = table.clients[client].id.token().0;
    let expiry_s = Some(0);
    let end = End::Orderly {
        with_will: false,
        expiry_s,
    };
    table.sessions().disconnect(session, address, end, now);
    assert_eq!(table.connections.next_woken_mqtt(), Some((session, false)));
    assert_eq!(send(&mut table), Handed::Ended);
}

#[test]
fn a_session_that_begins_while_a_walk_pauses_gets_nothing_of_it_under_the_number_of_another() {
    let mut table = Table::new(1 << 20);
    let clients: Vec<usize> = (0..4)
        .map(|_| table.connect(Version::V4, Framing::Mqtt))
        .collect();
    for &client in &clients {
        table.subscribe(client, "t", options(Qos::AtMostOnce));
    }
    let mut frame = Vec::new();
    write_head(&HEAD, b"", &mut frame);
    frame.push(b'x');
    let (session, id) = (table.clients[3].session, table.clients[3].id);
    let mut new_client = None;
    table.deliver_with("t", Origin::Mqtt, false, &frame, 1, 2, |table| {
        let end = End::Orderly {
            with_will: false,
            expiry_s: Some(0),
        };
        let now = Now {
            uptime: Uptime::default(),
            unix_ms: 0,
        };
        table.sessions().disconnect(session, id.token().0, end, now);
        let client = table.connect(Version::V4, Framing::Mqtt);
        table.subscribe(client, "t", options(Qos::AtMostOnce));
        new_client = Some(client);
    });
    let new_client = new_client.unwrap();
    assert_eq!(table.clients[new_client].session.number, session.number);
    assert!(table.received(new_client).is_empty());
    assert_eq!(table.received(clients[2]), packet(0x30, &[], b"x"));
}
