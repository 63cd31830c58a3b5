//! An MQTT client of a simulation: it has one client id, and one session at most, over many connections. It
//! sends packets, acknowledges at any time, and checks what it receives.
//!
//! ```text
//!   mod.rs      the packets that it sends, and the handling of each packet that it gets
//!   link.rs     one connection          packets.rs  bytes
//!   session.rs  which publications must come, may come, and have come
//! ```
//! When a newer connection has begun, the client only reads the older one to its end, as real clients do: it
//! no longer knows which of its packets count. `lives.rs` says which session goes on, and `shares.rs` which
//! member of a group gets which publication.

mod ends;
mod link;
pub(super) mod packets;
mod session;

use std::os::unix::net::UnixStream;

use self::link::{Link, Mark};
use self::packets::{Ack, Connect, Packet, Publish, Version, Will};
pub(super) use self::session::filler;
use self::session::{Outgoing, Sent, Session, Verdict};
use super::lives::{Asked, Disconnect};
use super::log::{SHARED, Sender, channel_name, number_in_payload};
use super::world::GroundTruth;

/// One client id.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) index: usize,
    version: Version,
    /// Its connections; only the last one counts.
    links: Vec<Link>,
    session: Session,
    /// Whether it acknowledges at once.
    pub(super) is_prompt: bool,
    next_id: u16,
}

impl Device {
    pub(super) fn new(index: usize, is_version_5: bool) -> Device {
        Device {
            index,
            version: if is_version_5 { Version::V5 } else { Version::V4 },
            links: Vec::new(),
            session: Session::new(usize::MAX, 0),
            is_prompt: true,
            next_id: 0,
        }
    }

    /// Begins a connection, and queues CONNECT.
    pub(super) fn connect(
        &mut self,
        truth: &mut GroundTruth,
        socket: UnixStream,
        is_clean: bool,
        expiry_s: u32,
    ) {
        let random = &mut truth.random;
        let in_websocket = random.chance(1, 3);
        let keep_alive_s = random.of(&[0, 0, 0, 2]);
        let is_5 = self.version == Version::V5;
        let receive_maximum = random.of(&[None, Some(1), Some(2), Some(20)]).filter(|_| is_5);
        // In 3.1.1 Clean Session concerns both ends of the session.
        let expiry_s = match (self.version, is_clean) {
            (Version::V5, _) => expiry_s,
            (Version::V4, true) => 0,
            (Version::V4, false) => truth.plan.session_expiry_s_max,
        };
        let delay_s = random.of(&[0, 0, 1, 5]) * u32::from(is_5);
        let has_will = random.chance(1, 2);
        let channel = random.below(truth.plan.channels);
        let will = has_will.then(|| (truth.log.begin(Sender::Will, channel), channel));
        truth.log.end_message();
        let number = truth.lives.ask(
            self.index,
            Asked {
                is_clean,
                expiry_s,
                will: will.map(|(number, _)| (number, delay_s)),
            },
        );
        let claims = format!(r#"{{"sub":"device {}","connection":{number}}}"#, self.index);
        let unix_ms = truth.time.peek().unix_ms;
        let token = truth.tokens.sign(&claims, None, unix_ms).expect("there is a key");
        let (topic, payload) = will.map_or_else(Default::default, |(number, channel)| {
            (channel_name(channel), format!("\"{number}:w\"").into_bytes())
        });
        let mut packet = Vec::new();
        packets::connect(
            self.version,
            &Connect {
                client_id: &self.client_id(),
                is_clean,
                expiry_s,
                keep_alive_s,
                receive_maximum,
                topic_aliases: truth.random.of(&[0, 3]),
                will: has_will.then(|| Will {
                    topic: &topic,
                    payload: &payload,
                    qos: truth.random.of(&[0, 1, 2]),
                    retain: truth.random.chance(1, 8),
                    delay_s,
                }),
                token: &token,
            },
            &mut packet,
        );
        if let Some(last) = self.links.last_mut().filter(|last| !last.is_open) {
            // The client drops a connection attempt before it makes the next.
            last.disappear();
        }
        let mut link = Link::new(number, socket, self.version, in_websocket);
        link.keep_alive_s = keep_alive_s;
        link.receive_maximum = receive_maximum.unwrap_or(u16::MAX);
        link.queue(&mut truth.random, &packet);
        self.links.push(link);
    }

    fn client_id(&self) -> String {
        format!("device {}", self.index)
    }

    fn link(&mut self) -> Option<&mut Link> {
        self.links.last_mut()
    }

    /// Whether its last connection is there, and whether CONNACK has come.
    pub(super) fn is_connecting(&self) -> bool {
        self.links.last().is_some_and(|link| link.socket.is_some())
    }

    pub(super) fn is_open(&self) -> bool {
        self.links
            .last()
            .is_some_and(|link| link.is_open && link.may_send())
    }

    /// Whether none of its connections is left.
    pub(super) fn is_gone(&self) -> bool {
        self.links.iter().all(|link| link.socket.is_none())
    }

    pub(super) fn unwritten(&self) -> usize {
        self.links.last().map_or(0, Link::unwritten)
    }

    pub(super) fn toggle_polling(&mut self) {
        if let Some(link) = self.link() {
            link.attentive ^= true;
            link.dozed |= !link.attentive;
        }
    }

    pub(super) fn poll(&mut self) {
        self.is_prompt = true;
        if let Some(link) = self.link() {
            link.attentive = true;
        }
    }

    /// Older connections are dropped.
    pub(super) fn drop_older(&mut self) {
        if let Some((_, older)) = self.links.split_last_mut() {
            older.iter_mut().for_each(Link::disappear);
        }
    }

    /// The connection is lost: at once, or after the queued bytes.
    pub(super) fn cut(&mut self, with_fin: bool) {
        if let Some(link) = self.link() {
            if with_fin {
                link.send_fin();
            } else {
                link.disappear();
            }
        }
    }

    pub(super) fn ping(&mut self, truth: &mut GroundTruth) {
        if let Some(link) = self.links.last_mut().filter(|link| link.may_send()) {
            link.queue(&mut truth.random, &packets::PINGREQ);
        }
    }

    /// Queues bytes that are no packet, or a packet that no client may send.
    pub(super) fn send_garbage(&mut self, truth: &mut GroundTruth) {
        let garbage = truth
            .random
            .of::<&[u8]>(&[b"\xF0\x00", b"\x30\x01x", b"\x10\x00"]);
        if let Some(link) = self.links.last_mut().filter(|link| link.may_send()) {
            link.queue(&mut truth.random, garbage);
            link.sent_garbage = true;
        }
    }

    pub(super) fn disconnect(&mut self, truth: &mut GroundTruth, with_will: bool, expiry_s: Option<u32>) {
        let is_5 = self.version == Version::V5;
        let disconnect = Disconnect {
            code: if with_will && is_5 { 4 } else { 0 },
            expiry_s: expiry_s.filter(|_| is_5 && truth.lives.may_change_expiry(self.number())),
        };
        let mut packet = Vec::new();
        packets::disconnect(self.version, disconnect.code, disconnect.expiry_s, &mut packet);
        if let Some(link) = self.links.last_mut().filter(|link| link.may_send()) {
            truth.lives.note_disconnect(link.number, disconnect);
            link.queue(&mut truth.random, &packet);
            link.sent_disconnect = true;
        }
    }

    fn number(&self) -> usize {
        self.links.last().map_or(usize::MAX, |link| link.number)
    }

    /// Publishes something of its own.
    pub(super) fn publish(&mut self, truth: &mut GroundTruth, channel: usize) {
        let qos = truth.random.of(&[0, 1, 1, 2, 2]);
        self.publish_with(truth, channel, qos);
    }

    pub(super) fn publish_with(&mut self, truth: &mut GroundTruth, channel: usize, qos: u8) {
        let maximum = self.links.last().map_or(0, |link| link.server_maximum);
        let retain = channel < SHARED && truth.random.chance(1, 5);
        if qos > 0 && self.session.outgoing.len() >= usize::from(maximum) {
            return;
        }
        if retain && !truth.plan.memory.is_some() && truth.random.chance(1, 4) {
            self.clear(truth, channel);
            return;
        }
        let expiry_s = truth.random.of(&[None, None, None, Some(1)]);
        let expiry_s = expiry_s.filter(|_| self.version == Version::V5 && !retain);
        let sent = Sent {
            channel,
            retain,
            padding: truth.random.below(truth.plan.padding_max),
        };
        let number = self.begin(truth, channel);
        let id = if qos > 0 { self.new_id() } else { 0 };
        if qos > 0 {
            self.session.outgoing.push_back(Outgoing {
                id,
                qos,
                numbers: vec![number],
                sent,
                is_received: false,
            });
        }
        self.queue_publish(truth, number, sent, (qos, id, false), expiry_s);
    }

    fn begin(&self, truth: &mut GroundTruth, channel: usize) -> usize {
        let number = truth.log.begin(Sender::Device(self.index), channel);
        truth.log.end_message();
        number
    }

    fn queue_publish(
        &mut self,
        truth: &mut GroundTruth,
        number: usize,
        sent: Sent,
        (qos, id, dup): (u8, u16, bool),
        expiry_s: Option<u32>,
    ) {
        let publish = Publish {
            topic: channel_name(sent.channel),
            payload: format!("\"{number}:{}\"", "p".repeat(sent.padding)).into_bytes(),
            qos,
            retain: sent.retain,
            dup,
            id,
            expiry_s,
        };
        self.queue(truth, |version, out| packets::publish(version, &publish, out));
    }

    /// Clears the retained publication of a channel.
    fn clear(&mut self, truth: &mut GroundTruth, channel: usize) {
        let publish = Publish {
            topic: channel_name(channel),
            payload: Vec::new(),
            qos: 0,
            retain: true,
            dup: false,
            id: 0,
            expiry_s: None,
        };
        self.queue(truth, |version, out| packets::publish(version, &publish, out));
    }

    fn queue(&mut self, truth: &mut GroundTruth, write: impl FnOnce(Version, &mut Vec<u8>)) {
        let mut packet = Vec::new();
        write(self.version, &mut packet);
        if let Some(link) = self.links.last_mut().filter(|link| link.may_send()) {
            link.queue(&mut truth.random, &packet);
        }
    }

    fn new_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            let id = self.next_id;
            if self.session.outgoing.iter().all(|outgoing| outgoing.id != id) {
                return id;
            }
        }
    }

    /// Subscribes to these filters with one packet, each with its QoS.
    pub(super) fn subscribe(&mut self, truth: &mut GroundTruth, filters: &[(String, u8)]) {
        let id = self.new_id();
        self.session.subscribe(id, filters);
        self.queue(truth, |version, out| {
            packets::subscribe(version, id, filters, out)
        });
        self.mark(id);
    }

    /// Unsubscribes from these filters with one packet.
    pub(super) fn unsubscribe(&mut self, truth: &mut GroundTruth, filters: &[String]) {
        let id = self.new_id();
        self.session.unsubscribe(id, filters);
        self.queue(truth, |version, out| {
            packets::unsubscribe(version, id, filters, out)
        });
        self.mark(id);
    }

    fn mark(&mut self, id: u16) {
        if let Some(link) = self.link() {
            link.mark(Mark::Filter(id));
        }
    }

    /// Whether the answer to a SUBSCRIBE or UNSUBSCRIBE is missing: then the client sends no other.
    pub(super) fn is_asking(&self) -> bool {
        self.session.is_asking()
    }

    /// Sends some of the acknowledgements that it owes, in any order.
    pub(super) fn acknowledge(&mut self, truth: &mut GroundTruth, count: usize) -> bool {
        let Some(link) = self.links.last_mut() else {
            return false;
        };
        let count = count.min(link.owed.len());
        for _ in 0..count {
            let at = if self.is_prompt {
                0
            } else {
                truth.random.below(link.owed.len())
            };
            let (ack, id) = link.owed.remove(at);
            if matches!(ack, Ack::Acknowledged | Ack::Complete) {
                link.in_flight = link.in_flight.saturating_sub(1);
            }
            let mut packet = Vec::new();
            packets::ack(ack, id, &mut packet);
            if link.may_send() {
                link.queue(&mut truth.random, &packet);
            }
        }
        count > 0
    }

    /// Writes as much as the socket takes, `max` bytes at most. Returns whether anything left.
    pub(super) fn write(&mut self, truth: &GroundTruth, max: usize) -> bool {
        let Some(link) = self.links.last_mut() else {
            return false;
        };
        let has_left = link.write(max);
        while let Some(Mark::Filter(id)) = link.next_mark() {
            self.session.note_written(id, truth.undelivered);
        }
        has_left
    }

    /// Acts as an attentive client on all connections. Returns whether there was something to do.
    pub(super) fn poll_all(&mut self, truth: &mut GroundTruth) -> bool {
        let mut is_busy = false;
        let newest = self.links.len().saturating_sub(1);
        for at in 0..self.links.len() {
            if at < newest || self.links[at].attentive {
                is_busy |= self.read_link(truth, at, usize::MAX);
            }
        }
        // A connection that is over is of no more use.
        if self.links.len() > 1 {
            self.links.retain({
                let mut at = 0;
                move |link| {
                    at += 1;
                    link.socket.is_some() || at > newest
                }
            });
        }
        if self.is_prompt {
            is_busy |= self.acknowledge(truth, usize::MAX);
        }
        if self.links.last().is_some_and(|link| link.attentive) {
            is_busy |= self.write(truth, usize::MAX);
        }
        is_busy
    }

    /// Reads at most `max` bytes from its last connection.
    pub(super) fn read(&mut self, truth: &mut GroundTruth, max: usize) {
        if let Some(newest) = self.links.len().checked_sub(1) {
            self.read_link(truth, newest, max);
        }
    }

    fn read_link(&mut self, truth: &mut GroundTruth, at: usize, max: usize) -> bool {
        let Some(has_come) = self.links[at].read(max) else {
            return false;
        };
        truth.trace.mix(u64::from(has_come));
        let is_newest = at + 1 == self.links.len();
        while let Some(packet) = self.links[at].next_packet(truth) {
            match packet {
                Packet::Disconnect { code } => self.links[at].code = Some(code),
                packet if is_newest => self.take(truth, packet),
                // Packets behind the end of a connection are void if the client has not read them by now.
                _ => {}
            }
        }
        if !has_come || self.links[at].has_close {
            self.end_link(truth, at);
        }
        true
    }

    /// Takes a packet of its newest connection.
    fn take(&mut self, truth: &mut GroundTruth, packet: Packet) {
        let claimed = truth.log.claimed();
        let number = self.number();
        let what = format!("device {}, connection {number}", self.index);
        match packet {
            Packet::ConnAck {
                is_present,
                code,
                receive_maximum,
            } => self.take_connack(truth, is_present, code, receive_maximum),
            Packet::Publish(publish) => self.take_publish(truth, &publish),
            Packet::Ack { ack, id, code } => self.take_ack(truth, ack, id, code),
            Packet::SubAck { id, codes } => {
                truth.trace.mix(u64::from(id));
                truth.long_subacks += u64::from(codes.len() > 1);
                let result = self.session.note_subscribed(id, &codes, claimed, number);
                truth.expect_of(&what, result);
            }
            Packet::UnsubAck { id, codes } => {
                let result = self.session.note_unsubscribed(id, &codes, claimed);
                truth.expect_of(&what, result);
            }
            Packet::PingResp => {}
            Packet::Disconnect { code } => truth.fail(&format!("{what}: DISCONNECT {code:02x}")),
        }
    }

    fn take_connack(&mut self, truth: &mut GroundTruth, is_present: bool, code: u8, receive_maximum: u16) {
        let number = self.number();
        let what = format!("device {}, connection {number}", self.index);
        if code != 0 {
            // The server had no room for it.
            if !matches!(code, 3 | 0x88 | 0x89 | 0x97) || truth.lives.has_begun(number) {
                truth.fail(&format!("{what}: CONNACK {code:02x}"));
            }
            return;
        }
        truth.trace.mix(u64::from(is_present));
        let claimed = truth.log.claimed();
        // Another connection, which has come to the server in between, may have begun the session.
        let key = truth.lives.key_of(number).filter(|_| is_present);
        if key == Some(self.session.key) {
            self.session.go_on();
        } else {
            self.session = Session::new(key.unwrap_or(number), claimed);
        }
        if !is_present {
            truth.lives.note_begun(self.index, number);
        }
        let result = truth.lives.check_connack(number, is_present);
        truth.expect_of(&what, result);
        let Some(link) = self.links.last_mut() else { return };
        (link.is_open, link.opened_at, link.server_maximum) = (true, claimed, receive_maximum);
        if !is_present {
            return;
        }
        // Section 4.4: everything that is not acknowledged, in its order.
        for at in 0..self.session.outgoing.len() {
            let Outgoing {
                id,
                qos,
                sent,
                is_received,
                ..
            } = self.session.outgoing[at];
            if is_received {
                self.queue(truth, |_, out| packets::ack(Ack::Release, id, out));
                continue;
            }
            let number = if qos == 1 {
                let number = self.begin(truth, sent.channel);
                self.session.outgoing[at].numbers.push(number);
                number
            } else {
                let number = self.session.outgoing[at].numbers[0];
                truth.log.send_again(number);
                number
            };
            self.queue_publish(truth, number, sent, (qos, id, true), None);
        }
    }

    fn take_publish(&mut self, truth: &mut GroundTruth, publish: &Publish) {
        let number = self.number();
        let what = format!("device {}, connection {number}", self.index);
        let Some(link) = self.links.last_mut() else { return };
        if !link.is_open {
            truth.fail(&format!("{what}: {publish:?} before CONNACK"));
        }
        if publish.qos > 0 {
            link.in_flight += 1;
            if link.in_flight > usize::from(link.receive_maximum) {
                truth.fail(&format!("{what}: {} in flight", link.in_flight));
            }
            let ack = if publish.qos == 1 {
                Ack::Acknowledged
            } else {
                Ack::Received
            };
            link.owed.push((ack, publish.id));
        }
        let payload = String::from_utf8_lossy(&publish.payload);
        let published = number_in_payload(&payload);
        if published.is_none() && !payload.is_empty() {
            truth.fail(&format!("{what}: {publish:?}"));
        }
        if publish.qos == 2 {
            if let Some(&before) = self.session.incoming.get(&publish.id) {
                if before != published || !publish.dup {
                    truth.fail(&format!("{what}: {before:?} is not released: {publish:?}"));
                }
                return;
            }
            self.session.incoming.insert(publish.id, published);
        }
        let Some(published) = published else { return };
        truth.trace.mix(published as u64);
        truth.device_deliveries += 1;
        match self.session.take(publish, published, &truth.log) {
            Ok(Verdict::Fine) => {}
            Ok(Verdict::Shared) => {
                let (key, now) = (self.session.key, truth.time.peek().uptime);
                let result = truth
                    .shares
                    .take(published, (self.index, key), publish.qos, |(device, key)| {
                        truth.lives.may_be_over(device, key, now)
                    });
                truth.expect_of(&what, result);
            }
            Err(error) => {
                let lives: Vec<_> = truth.lives.of(self.index).collect();
                truth.fail(&format!("{what}: {error}: {lives:?}"));
            }
        }
    }

    fn take_ack(&mut self, truth: &mut GroundTruth, ack: Ack, id: u16, code: u8) {
        truth.trace.mix(u64::from(id));
        let what = format!("device {}, connection {}", self.index, self.number());
        let is_right = match ack {
            // 0x10: there were no subscribers.
            Ack::Acknowledged | Ack::Received => matches!(code, 0 | 0x10),
            Ack::Release | Ack::Complete => matches!(code, 0 | 0x92),
        };
        if !is_right {
            truth.fail(&format!("{what}: {ack:?} {id} {code:02x}"));
        }
        let outgoing = &mut self.session.outgoing;
        let at = outgoing.iter().position(|one| one.id == id);
        match (ack, at) {
            (Ack::Release, _) => {
                self.session.incoming.remove(&id);
                if let Some(link) = self.links.last_mut() {
                    link.owed.push((Ack::Complete, id));
                }
            }
            (Ack::Acknowledged, Some(at)) if outgoing[at].qos == 1 => {
                let done = outgoing.remove(at);
                truth.acknowledged.extend(done.map(|done| done.numbers));
            }
            (Ack::Received, Some(at)) if outgoing[at].qos == 2 => {
                if !outgoing[at].is_received {
                    outgoing[at].is_received = true;
                    truth.acknowledged.push(outgoing[at].numbers.clone());
                }
                self.queue(truth, |_, out| packets::ack(Ack::Release, id, out));
            }
            // The server may have released it before, and PUBCOMP was lost.
            (Ack::Complete, Some(at)) if outgoing[at].is_received => {
                outgoing.remove(at);
            }
            (Ack::Acknowledged | Ack::Received | Ack::Complete, _) => {
                truth.fail(&format!("{what}: {ack:?} {id}, which nobody has asked for"));
            }
        }
    }
}
