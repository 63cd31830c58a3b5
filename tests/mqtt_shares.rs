//! Shared subscriptions of MQTT, on a server with four cores: groups, their members and publishers on any of them.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ringcast::config::Placement;
use support::{Client, Server, eventually};

fn start() -> Server {
    Server::start(|config| {
        config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cores.placement = Placement::Count(4);
    })
}

/// A client of MQTT 3.1.1 with a clean session.
struct Mqtt(Client);

fn string(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = vec![first, u8::try_from(body.len()).unwrap()];
    out.extend(body);
    out
}

impl Mqtt {
    fn open(server: &Server, id: &str) -> Mqtt {
        let mut mqtt = Mqtt(Client::connect(server.running().mqtt_address().unwrap()));
        let connect = packet(0x10, &[b"\x00\x04MQTT\x04\x02\x00\x00", &string(id)]);
        mqtt.0.send_bytes(&connect);
        assert_eq!(mqtt.next(), [0x20, 2, 0, 0]);
        mqtt
    }

    fn next(&mut self) -> Vec<u8> {
        let mut packet = self.0.read_bytes(2);
        packet.extend(self.0.read_bytes(usize::from(packet[1])));
        packet
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        self.0
            .send_bytes(&packet(0x82, &[&[0, 1], &string(filter), &[qos]]));
        assert_eq!(self.next(), [0x90, 3, 0, 1, qos]);
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.0.send_bytes(&packet(0xa2, &[&[0, 2], &string(filter)]));
        assert_eq!(self.next(), [0xb0, 2, 0, 2]);
    }

    /// Publishes with QoS 1, and waits for the acknowledgement.
    fn publish(&mut self, topic: &str, payload: &str) {
        let publish = packet(0x32, &[&string(topic), &[0, 9], payload.as_bytes()]);
        self.0.send_bytes(&publish);
        assert_eq!(self.next(), [0x40, 2, 0, 9]);
    }

    /// The payloads of the next publications, which have QoS 1. They are not acknowledged.
    fn payloads(&mut self, count: usize) -> Vec<String> {
        let payload = |bytes: Vec<u8>| {
            assert_eq!(bytes[0], 0x32, "QoS 1, not sent before: {bytes:?}");
            let topic = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            String::from_utf8(bytes[4 + topic + 2..].to_vec()).unwrap()
        };
        (0..count).map(|_| payload(self.next())).collect()
    }
}

#[test]
fn each_publication_goes_to_one_member_and_unacknowledged_ones_of_ended_members_to_others() {
    let server = start();
    let mut all = Mqtt::open(&server, "all");
    all.subscribe("s/#", 1);
    let mut members: Vec<Mqtt> = (0..8)
        .map(|number| {
            let mut member = Mqtt::open(&server, &format!("member{number}"));
            member.subscribe("$share/g/s/+", 1);
            member
        })
        .collect();
    let mut publishers: Vec<Mqtt> = (0..4)
        .map(|number| Mqtt::open(&server, &format!("publisher{number}")))
        .collect();
    let sent: BTreeSet<String> = (0..80).map(|number| number.to_string()).collect();
    for (number, payload) in sent.iter().enumerate() {
        publishers[number % 4].publish(&format!("s/{number}"), payload);
        // Whether all publications are dispatched in this order does not matter; that each is, does.
    }
    assert_eq!(all.payloads(80).into_iter().collect::<BTreeSet<_>>(), sent);
    // Nothing is acknowledged, so each member has as much as the others.
    let got: Vec<Vec<String>> = members.iter_mut().map(|member| member.payloads(10)).collect();
    assert_eq!(got.concat().into_iter().collect::<BTreeSet<_>>(), sent);
    let left_behind: BTreeSet<String> = got[..4].concat().into_iter().collect();
    members.drain(..4);
    let again: Vec<Vec<String>> = members.iter_mut().map(|member| member.payloads(10)).collect();
    assert_eq!(again.concat().into_iter().collect::<BTreeSet<_>>(), left_behind);
    // Some went to members that were about to end as well.
    assert!(server.total(|core| &core.mqtt_shared_redispatched) >= 40);
}

#[test]
fn a_member_that_has_left_gets_nothing_more_and_a_group_ends_with_its_last_member() {
    let server = start();
    let mut first = Mqtt::open(&server, "first");
    let mut second = Mqtt::open(&server, "second");
    let mut publisher = Mqtt::open(&server, "publisher");
    for group in ["$share/one/t", "$share/two/t"] {
        first.subscribe(group, 1);
    }
    second.subscribe("$share/one/t", 1);
    eventually("there are two groups", || {
        server.total(|core| &core.mqtt_groups) == 2
    });
    first.unsubscribe("$share/one/t");
    // A group with members on other cores learns of it before what is published after UNSUBACK, or a little later: the
    // second group shows that the first client is served.
    for payload in ["1", "2", "3", "4"] {
        publisher.publish("t", payload);
    }
    assert_eq!(first.payloads(4).len(), 4);
    drop(first);
    eventually("one group is left", || {
        server.total(|core| &core.mqtt_groups) == 1
    });
    publisher.publish("t", "5");
    let mut last = String::new();
    while last != "5" {
        last = second.payloads(1).remove(0);
    }
    drop(second);
    eventually("no group is left", || server.total(|core| &core.mqtt_groups) == 0);
}
