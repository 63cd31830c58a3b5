//! MQTT clients of a running server: authentication, permissions, and publications to each other and to
//! SocketCluster clients. What follows from the packets alone is tested with the session (`src/mqtt/session/tests`).

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;

use ringcast::config::{Anonymous, Config, Placement};
use ringcast::internals::decision::CloseReason;
use support::folder::Folder;
use support::{Client, Received, Server, eventually};

/// A server with one core, which speaks MQTT.
fn start(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cores.placement = Placement::Count(1);
        change(config);
    })
}

struct Mqtt {
    client: Client,
    version: u8,
}

fn string(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(out[1] < 0x80, "one byte says the length");
    out.extend(body);
    out
}

impl Mqtt {
    /// A connection that has sent nothing.
    fn new(server: &Server, version: u8) -> Mqtt {
        Mqtt {
            client: Client::connect(server.running().mqtt_address().unwrap()),
            version,
        }
    }

    /// A client that was accepted.
    fn open(server: &Server, version: u8, id: &str) -> Mqtt {
        let mut mqtt = Mqtt::new(server, version);
        let connect = mqtt.connect(id, None);
        mqtt.send(&connect);
        assert_eq!(mqtt.connack(), 0);
        mqtt
    }

    fn connect(&self, id: &str, user: Option<(&str, &str)>) -> Vec<u8> {
        let flags = 2 | if user.is_some() { 0xc0 } else { 0 };
        let mut body = string("MQTT");
        body.extend([self.version, flags, 0, 0]);
        body.extend(self.no_properties());
        body.extend(string(id));
        if let Some((user, password)) = user {
            body.extend(string(user));
            body.extend(string(password));
        }
        packet(0x10, &[&body])
    }

    fn no_properties(&self) -> &'static [u8] {
        if self.version == 5 { &[0] } else { &[] }
    }

    fn publish(&self, qos: u8, topic: &str, id: u16, payload: &str) -> Vec<u8> {
        let id = if qos == 0 {
            Vec::new()
        } else {
            id.to_be_bytes().to_vec()
        };
        packet(
            0x30 | qos << 1,
            &[&string(topic), &id, self.no_properties(), payload.as_bytes()],
        )
    }

    fn subscribe(&self, filter: &str, qos: u8) -> Vec<u8> {
        packet(0x82, &[&[0, 1], self.no_properties(), &string(filter), &[qos]])
    }

    fn send(&mut self, bytes: &[u8]) {
        self.client.send_bytes(bytes);
    }

    fn next(&mut self) -> Vec<u8> {
        let mut packet = self.client.read_bytes(2);
        packet.extend(self.client.read_bytes(usize::from(packet[1])));
        packet
    }

    /// The code of CONNACK.
    #[track_caller]
    fn connack(&mut self) -> u8 {
        let packet = self.next();
        assert_eq!(packet[0], 0x20, "{packet:?}");
        packet[3]
    }

    /// Subscribes, and returns the code of SUBACK.
    fn granted(&mut self, filter: &str, qos: u8) -> u8 {
        let subscribe = self.subscribe(filter, qos);
        self.send(&subscribe);
        let packet = self.next();
        assert_eq!(packet[0], 0x90, "{packet:?}");
        *packet.last().unwrap()
    }

    /// The QoS, topic and payload of the next packet, which is a PUBLISH. It is acknowledged.
    #[track_caller]
    fn published(&mut self) -> (u8, String, String) {
        let bytes = self.next();
        assert_eq!(bytes[0] >> 4, 3, "{bytes:?}");
        let qos = bytes[0] >> 1 & 3;
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let (topic, mut rest) = bytes[4..].split_at(length);
        if qos > 0 {
            let (id, behind) = rest.split_at(2);
            rest = behind;
            match qos {
                1 => self.send(&packet(0x40, &[id])),
                _ => {
                    self.send(&packet(0x50, &[id]));
                    assert_eq!(self.next(), packet(0x62, &[id]));
                    self.send(&packet(0x70, &[id]));
                }
            }
        }
        if self.version == 5 {
            let properties = usize::from(rest[0]);
            rest = &rest[1 + properties..];
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (qos, text(topic), text(rest))
    }
}

#[test]
fn publications_reach_subscribers_of_all_versions_with_the_lower_qos() {
    let server = start(|_| {});
    let mut subscribers: Vec<_> = [(3, 0), (4, 1), (5, 2)]
        .into_iter()
        .map(|(version, qos)| {
            // MQTT 3.1 has another name of the protocol: 3.1.1 stands for it.
            let mut mqtt = Mqtt::open(&server, version.max(4), &format!("s{version}"));
            assert_eq!(mqtt.granted("a/+", qos), qos);
            (mqtt, qos)
        })
        .collect();
    for version in [4, 5] {
        let mut publisher = Mqtt::open(&server, version, &format!("p{version}"));
        for sent in 0..3 {
            let payload = format!("{version} {sent}");
            let publish = publisher.publish(sent, "a/b", 7, &payload);
            publisher.send(&publish);
            match sent {
                0 => {}
                1 => assert_eq!(publisher.next(), [0x40, 2, 0, 7]),
                _ => {
                    assert_eq!(publisher.next(), [0x50, 2, 0, 7]);
                    publisher.send(&[0x62, 2, 0, 7]);
                    assert_eq!(publisher.next(), [0x70, 2, 0, 7]);
                }
            }
            for (subscriber, granted) in &mut subscribers {
                let expected = (sent.min(*granted), "a/b".to_owned(), payload.clone());
                assert_eq!(subscriber.published(), expected);
            }
        }
    }
}

#[test]
fn a_browser_and_a_device_speak_on_one_channel() {
    let server = start(|_| {});
    let mut browser = server.client();
    browser.subscribe("room/1");
    let mut device = Mqtt::open(&server, 5, "device");
    assert_eq!(device.granted("room/#", 1), 1);
    for (payload, data) in [("{\"on\":true}", "{\"on\":true}"), ("on", "\"on\""), ("", "null")] {
        let publish = device.publish(0, "room/1", 0, payload);
        device.send(&publish);
        assert_eq!(
            browser.message(),
            format!(r##"{{"event":"#publish","data":{{"channel":"room/1","data":{data}}}}}"##)
        );
        assert_eq!(device.published(), (0, "room/1".to_owned(), payload.to_owned()));
    }
    browser.publish("room/1", "[1,\"x\"]");
    let (_, topic, payload) = device.published();
    assert_eq!((&*topic, &*payload), ("room/1", "[1,\"x\"]"));
}

#[test]
fn a_password_is_checked_and_the_packets_behind_connect_wait_for_it() {
    let folder = Folder::new();
    let file = folder.write_user("ann", "secret", 101);
    let server = start(|config| {
        config.login.password_file = Some(file);
        config.permissions.allow_anonymous = Anonymous::Off;
        config.limits.login_failures_max = 10_000;
    });
    for (version, wrong, nobody) in [(4, 4, 5), (5, 0x86, 0x87)] {
        let mut mqtt = Mqtt::new(&server, version);
        let stream = [
            mqtt.connect("a", Some(("ann", "secret"))),
            mqtt.subscribe("x", 0),
            mqtt.publish(0, "x", 0, "hello"),
        ];
        mqtt.send(&stream.concat());
        assert_eq!(mqtt.connack(), 0);
        assert_eq!(mqtt.next()[0], 0x90);
        assert_eq!(mqtt.published().2, "hello");
        mqtt.send(&[0xe0, 0]);
        assert_eq!(mqtt.client.next(), Received::End);

        for (user, code) in [
            (Some(("ann", "wrong")), wrong),
            (Some(("bob", "secret")), wrong),
            (None, nobody),
        ] {
            let mut mqtt = Mqtt::new(&server, version);
            let stream = [mqtt.connect("a", user), vec![0xc0, 0]];
            mqtt.send(&stream.concat());
            assert_eq!(mqtt.connack(), code);
            assert_eq!(mqtt.client.next(), Received::End);
        }
    }
    assert_eq!(server.closes(CloseReason::MqttRefused), 6);
}

#[test]
fn a_failed_login_has_the_next_one_wait() {
    let folder = Folder::new();
    let file = folder.write_user("ann", "secret", 101);
    let server = start(|config| {
        config.login.password_file = Some(file);
        config.limits.login_failures_max = 1;
    });
    for (password, code) in [("wrong", 4), ("wrong", 4), ("secret", 4)] {
        let mut mqtt = Mqtt::new(&server, 4);
        let connect = mqtt.connect("a", Some(("ann", password)));
        mqtt.send(&connect);
        assert_eq!(mqtt.connack(), code, "{password}");
    }
}

#[test]
fn the_older_connection_of_a_client_id_is_told_why_it_ends() {
    let server = start(|_| {});
    let mut old = Mqtt::open(&server, 5, "a");
    let mut new = Mqtt::open(&server, 5, "a");
    assert_eq!(old.next()[2], 0x8e);
    assert_eq!(old.client.next(), Received::End);
    new.send(&[0xc0, 0]);
    assert_eq!(new.next(), [0xd0, 0]);
    assert_eq!(server.closes(CloseReason::TakenOver), 1);
}

#[test]
fn a_will_is_published_when_its_client_vanishes_and_not_when_it_leaves() {
    let server = start(|_| {});
    let mut browser = server.client();
    browser.subscribe("gone");
    for leaves in [true, false] {
        let mut mqtt = Mqtt::new(&server, 4);
        let mut body = string("MQTT");
        body.extend([4, 6, 0, 0]);
        body.extend([string("a"), string("gone"), string(&format!("{leaves}"))].concat());
        mqtt.send(&packet(0x10, &[&body]));
        assert_eq!(mqtt.connack(), 0);
        if leaves {
            mqtt.send(&[0xe0, 0]);
        }
        drop(mqtt);
    }
    let message = browser.message();
    assert!(message.contains(r#""channel":"gone","data":false"#), "{message}");
    eventually("both have ended", || server.total(|core| &core.sessions) == 1);
}
