//! Publications for MQTT subscribers: into the outboxes of their connections, or into the queues of their sessions.
//!
//! ```text
//!   ring ─► matches, merged by session ─┬─ QoS 0, connected ────────────────► bytes that all outboxes share
//!                                       ├─ QoS 1 and 2, few in flight ──────► a copy with its own packet identifier
//!                                       └─ else: the session's queue ── acknowledgement, or a new connection ──► a packet
//! ```
//! The walk along the matches follows the walk along SocketCluster subscribers, and may pause between turns
//! like it. Sessions may end meanwhile, and may get other connections. So each match is looked up when its
//! turn comes.
//!
//! With QoS 0, `slow_consumer` decides about a full outbox. With QoS 1 and 2 the publication waits in the
//! session's queue, and the connection is not closed. Waiting publications are sent only while the outbox is
//! below the bound for histories, so that they alone never make the client a slow consumer.
//!
//! Limits: `mqtt_in_flight_max`, `mqtt_queue_messages_max` and the other limits of sessions
//! (`mqtt/sessions.rs`); the Maximum Packet Size of each client.

mod shared;

use std::collections::HashMap;

use mio::Token;

use super::Connections;
use super::delivery_inspector::{DeliveryInspector, content_with, data_of};
use super::publications::list_in_bulk;
use crate::app::{OutboundKind, RawJson};
use crate::broker::{ChannelHash, Publication};
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::reading::Why;
use crate::cores::outgoing::packets::{
    ALIAS_BYTES, Original, PacketForm, Packets, PublishPacket, write_release,
};
use crate::cores::outgoing::shared_frames::FrameSpan;
use crate::json::{Unquoted, unquote};
use crate::mqtt::Sessions;
use crate::mqtt::sessions::{Client, Content, Offer, Outbound, Packet, Quotes, Sent, SessionRef, Written};
use crate::mqtt::subscriptions::{Match, Merged, Subscriber};
use crate::protocols::Framing;

/// The walk of the publication under way along MQTT subscribers.
#[derive(Debug, Default)]
pub(in crate::cores) struct MqttWalk {
    /// The subscriptions that match; none when the walk is over.
    found: Vec<Match>,
    /// The index of the next match.
    at: usize,
    has_begun: bool,
    /// Sessions with greater serial numbers began after the walk.
    last_serial: u64,
    /// Groups of shared subscriptions with greater generations began after the walk.
    last_group: u64,
    packets: Packets,
    /// Whether MQTT clients get a string without its quotes.
    unquotes: bool,
    /// If the payload is such a string: the bytes that it means.
    unquoted: Option<(Unquoted, Vec<u8>)>,
    /// The packets that outboxes share, by [`PacketForm::index`]. `None` for a form that no subscriber has
    /// had yet, or that has no room.
    shared: [Option<SharedPacket>; PacketForm::SHARED],
    scratch: Scratch,
    /// Sessions that have more to send while their sockets are full, by the index of the connection.
    pub(super) blocked: HashMap<u32, SessionRef>,
}

#[cfg(test)]
impl MqttWalk {
    /// How many shared spans the publication under way holds.
    pub(super) fn spans_held(&self) -> usize {
        self.shared.iter().flatten().count()
    }
}

/// A packet that outboxes share.
#[derive(Clone, Copy, Debug)]
struct SharedPacket {
    span: FrameSpan,
    /// The size of the packet without a frame.
    packet_bytes: usize,
}

#[derive(Debug, Default)]
struct Scratch {
    ids: Vec<u32>,
    others: Vec<Match>,
    packet: Vec<u8>,
}

/// The connection to which one step of the walk delivers.
#[derive(Clone, Copy)]
struct Target {
    session: SessionRef,
    client: Client,
    /// The index of the connection.
    index: u32,
}

/// The facts of the publication that one step of the walk needs.
#[derive(Clone, Copy)]
struct UnderWay<'a> {
    original: Original<'a>,
    /// A number for the topic. Publications of one topic lie one behind the other where outboxes share them.
    channel: u32,
    unix_ms: u64,
    last_serial: u64,
    last_group: u64,
    leaves_out: bool,
    /// Its data in the form in which the application looks at it.
    data: Option<RawJson<'a>>,
}

impl Connections {
    /// Begins the walk along the MQTT subscribers of a publication, unless it has begun. Returns whether there are any.
    #[inline]
    pub(in crate::cores) fn begin_mqtt_walk(
        &mut self,
        hash: ChannelHash,
        publication: &Publication<'_>,
        unquotes: impl FnOnce() -> bool,
        copies_left: &mut usize,
    ) -> bool {
        let (Some(sessions), Some(walk)) = (self.mqtt.as_deref_mut(), &mut self.mqtt_walk) else {
            return false;
        };
        if walk.has_begun {
            return true;
        }
        let steps = sessions
            .subscriptions
            .matches(hash, || publication.channel(), &mut walk.found);
        *copies_left = copies_left.saturating_sub(steps / STEPS_PER_COPY);
        if walk.found.is_empty() {
            return false;
        }
        walk.has_begun = true;
        walk.last_serial = sessions.last_serial();
        walk.last_group = sessions.shares.last_generation();
        walk.unquotes = unquotes();
        if walk.unquotes {
            let mut payload = Vec::new();
            let kind = unquote(publication.payload(), &mut payload);
            walk.unquoted = kind.map(|kind| (kind, payload));
        }
        true
    }

    /// Goes on delivering a publication to MQTT subscribers, with as many copies as are left. The walk has begun. Returns
    /// how many outboxes took it, and whether all subscribers have it.
    pub(in crate::cores) fn deliver_to_mqtt(
        &mut self,
        hash: ChannelHash,
        publication: &Publication<'_>,
        inspector: &mut impl DeliveryInspector,
        copies_left: &mut usize,
    ) -> (u64, bool) {
        let (Some(mut sessions), Some(mut walk)) = (self.mqtt.take(), self.mqtt_walk.take()) else {
            return (0, true);
        };
        let taken = self.go_on(
            &mut sessions,
            &mut walk,
            (hash, publication),
            inspector,
            copies_left,
        );
        let is_over = walk.at >= walk.found.len();
        if is_over {
            self.end_mqtt_walk(&mut sessions, &mut walk);
        }
        (self.mqtt, self.mqtt_walk) = (Some(sessions), Some(walk));
        self.metrics.messages_sent.add(taken);
        self.metrics.deliveries.add(taken);
        (taken, is_over)
    }

    fn go_on<L: DeliveryInspector>(
        &mut self,
        sessions: &mut Sessions,
        walk: &mut MqttWalk,
        (hash, publication): (ChannelHash, &Publication<'_>),
        inspector: &mut L,
        copies_left: &mut usize,
    ) -> u64 {
        let Some(mut original) = Original::read(publication) else {
            self.metrics.publications_invisible.add(1);
            walk.at = walk.found.len();
            return 0;
        };
        if let Some((kind, payload)) = &walk.unquoted {
            original.content.payload = payload;
            original.content.is_utf8 = *kind == Unquoted::Text;
            original.content.quotes = Quotes::Removed;
        } else if walk.unquotes {
            original.content.quotes = Quotes::Absent;
        }
        if original.content.expires_at.is_some_and(|at| at <= self.unix_ms) {
            // The publication may have expired since an earlier turn, which made packets of it.
            sessions.count_expired();
            walk.at = walk.found.len();
            return 0;
        }
        let under_way = UnderWay {
            original,
            channel: channel_of(hash),
            unix_ms: self.unix_ms,
            last_serial: walk.last_serial,
            last_group: walk.last_group,
            leaves_out: self.leaves_out(),
            data: if L::INSPECTS { data_of(publication) } else { None },
        };
        let frame_bytes = publication.frame().len();
        let (mut taken, mut room) = (0, 0);
        while let Some(merged) = Merged::first(&walk.found[walk.at..]) {
            if room == 0 {
                room = self.room(frame_bytes).min(*copies_left);
                if room == 0 || (taken > 0 && self.must_shed()) {
                    break;
                }
            }
            (room, *copies_left) = (room - 1, *copies_left - 1);
            let count = merged.count();
            let parts = (&mut walk.packets, &mut walk.shared, &mut walk.scratch);
            taken += self.deliver_to_session(sessions, parts, merged, &under_way, inspector);
            walk.at += count;
        }
        taken
    }

    #[inline]
    fn end_mqtt_walk(&mut self, sessions: &mut Sessions, walk: &mut MqttWalk) {
        sessions.end_publication();
        walk.packets.end_publication();
        for shared in &mut walk.shared {
            if let Some(shared) = shared.take() {
                self.pool.shared.finish(shared.span);
            }
        }
        walk.found.clear();
        walk.found.shrink_to(MATCHES_KEPT_MAX);
        (walk.unquotes, walk.unquoted) = (false, None);
        (walk.at, walk.has_begun) = (0, false);
    }

    /// Delivers the publication under way to one session; `merged` are its subscriptions that match. Returns
    /// how many outboxes took it: one or none.
    #[inline]
    fn deliver_to_session<L: DeliveryInspector>(
        &mut self,
        sessions: &mut Sessions,
        (packets, shared, scratch): (
            &mut Packets,
            &mut [Option<SharedPacket>; PacketForm::SHARED],
            &mut Scratch,
        ),
        merged: Merged<'_>,
        under_way: &UnderWay<'_>,
        inspector: &mut L,
    ) -> u64 {
        let number = match merged.subscriber() {
            Subscriber::Session(number) => number,
            Subscriber::Group(group) => {
                give_to_group(sessions, group, under_way);
                return 0;
            }
        };
        let Some((session, client)) = sessions.subscriber(number, under_way.last_serial) else {
            return 0;
        };
        let Scratch { ids, others, packet } = scratch;
        let merged = if session.serial == under_way.original.publisher {
            others.clear();
            others.extend(merged.iter().filter(|one| !one.options().no_local));
            match Merged::first(others) {
                Some(merged) => merged,
                None => return 0,
            }
        } else {
            merged
        };
        let ids: &[u32] = if merged.has_ids() {
            ids.clear();
            ids.extend(merged.ids());
            ids
        } else {
            &[]
        };
        let outbound = Outbound {
            qos: under_way.original.qos.min(merged.qos() as u8),
            retain: under_way.original.retain && merged.retain_as_published(),
        };
        let target = client.and_then(|client| {
            let index = self.index_of(client)?;
            Some(Target {
                session,
                client,
                index,
            })
        });
        let Some(target) = target else {
            sessions.offer(session, outbound, &under_way.original.content, ids, false);
            return 0;
        };
        let content = &under_way.original.content;
        let waits = match outbound.qos {
            0 => sessions.queues_qos0(session),
            _ => L::INSPECTS && !sessions.sends_at_once(session),
        };
        if waits {
            // An application that looks sees it when it is sent.
            sessions.offer(session, outbound, content, ids, false);
            return 0;
        }
        if L::INSPECTS {
            let (connection, channel) = (&self.slab[target.index as usize], under_way.original.topic);
            match inspector.inspect(connection, channel.as_bytes(), under_way.data) {
                OutboundKind::Pass => {}
                OutboundKind::Withhold => {
                    self.metrics.publications_withheld.add(1);
                    return 0;
                }
                OutboundKind::Instead(json) => {
                    let mut bytes = Vec::new();
                    let shown = content_with(content, &json, &mut bytes);
                    return self.deliver_alone(sessions, packet, target, outbound, ids, under_way, &shown);
                }
            }
        }
        let is_common = ids.is_empty() && !outbound.retain && !target.client.takes_aliases;
        match (outbound.qos, is_common) {
            (0, true) if self.share_packet(shared, &target) => 1,
            (0, true) => self.deliver_shared(sessions, packets, shared, target, under_way),
            (qos, true) => self.deliver_copy(sessions, packets, target, qos, under_way),
            (_, false) => self.deliver_alone(sessions, packet, target, outbound, ids, under_way, content),
        }
    }

    /// QoS 0: all outboxes share one packet. True if this subscriber's outbox can share it: an earlier
    /// subscriber had the same packet, and the outbox holds nothing but shared bytes. Always inlined: a call
    /// costs 5 % of a delivery.
    #[inline(always)]
    fn share_packet(&mut self, shared: &[Option<SharedPacket>; PacketForm::SHARED], target: &Target) -> bool {
        let Some(connection) = self.slab.get_mut(target.index as usize) else {
            return false;
        };
        let form = PacketForm::new(target.client.version, connection.framing, 0);
        let Some(SharedPacket { span, packet_bytes }) = shared[form.index()] else {
            return false;
        };
        if packet_bytes > target.client.packet_bytes_max as usize
            || !connection
                .outbox
                .try_share(&mut self.pool.shared, span, self.outbox_bytes_max)
        {
            return false;
        }
        connection.tally.queue(1);
        self.queued_bytes += span.len();
        self.unflushed_bytes += span.len();
        list_in_bulk(connection, &mut self.bulk, target.index);
        true
    }

    /// QoS 0, for the first subscriber of a form, or for a subscriber whose outbox cannot just share the
    /// packet.
    #[inline(never)]
    fn deliver_shared(
        &mut self,
        sessions: &mut Sessions,
        packets: &mut Packets,
        shared: &mut [Option<SharedPacket>; PacketForm::SHARED],
        target: Target,
        under_way: &UnderWay<'_>,
    ) -> u64 {
        let Target { client, index, .. } = target;
        let framing = self.slab[index as usize].framing;
        let form = PacketForm::new(client.version, framing, 0);
        if shared[form.index()].is_none() {
            shared[form.index()] = self.write_shared(form, framing, under_way);
            if self.share_packet(shared, &target) {
                return 1;
            }
        }
        let packed = packets.packet(form, &under_way.original, under_way.unix_ms);
        let Some(packed) = packed.filter(|packed| packed.packet_bytes <= client.packet_bytes_max as usize)
        else {
            sessions.count_too_large();
            return 0;
        };
        let span = shared[form.index()].map(|shared| shared.span);
        self.deliver_apart(
            index,
            under_way.channel,
            packed.bytes,
            span,
            under_way.leaves_out,
            None,
        )
    }

    /// Writes the packet that outboxes share; `None` if there is no room, or no packet can be as large.
    #[inline]
    fn write_shared(
        &mut self,
        form: PacketForm,
        framing: Framing,
        under_way: &UnderWay<'_>,
    ) -> Option<SharedPacket> {
        let packet = PublishPacket::in_form(form, &under_way.original, under_way.unix_ms);
        let mut written = None;
        let span = self
            .pool
            .shared
            .write_with(under_way.channel, packet.bytes_max(), |bytes| {
                written = packet.write(framing, bytes);
            })?;
        match written {
            Some(packet_bytes) => Some(SharedPacket { span, packet_bytes }),
            None => {
                self.pool.shared.finish(span);
                None
            }
        }
    }

    /// QoS 1 and 2: a copy of the packet with a packet identifier, now or later.
    #[inline]
    fn deliver_copy(
        &mut self,
        sessions: &mut Sessions,
        packets: &mut Packets,
        Target {
            session,
            client,
            index,
        }: Target,
        qos: u8,
        under_way: &UnderWay<'_>,
    ) -> u64 {
        let form = PacketForm::new(client.version, self.slab[index as usize].framing, qos);
        let packed = packets.packet(form, &under_way.original, under_way.unix_ms);
        let Some(packed) = packed.filter(|packed| packed.packet_bytes <= client.packet_bytes_max as usize)
        else {
            sessions.count_too_large();
            return 0;
        };
        let has_room = self.takes_now(index, packed.bytes.len());
        let outbound = Outbound { qos, retain: false };
        match sessions.offer(session, outbound, &under_way.original.content, &[], has_room) {
            Offer::Send { packet_id } => {
                self.push_packet(index, |bytes| packed.write(packet_id, bytes));
                1
            }
            Offer::Waits | Offer::Dropped => 0,
        }
    }

    /// A packet with subscription identifiers, with the RETAIN flag, for a client that takes topic aliases, or with data of
    /// the application's own for this client: `shown` is what the client gets. The session keeps it as it was published.
    #[expect(clippy::too_many_arguments, reason = "the facts of a packet")]
    fn deliver_alone(
        &mut self,
        sessions: &mut Sessions,
        bytes: &mut Vec<u8>,
        Target {
            session,
            client,
            index,
        }: Target,
        outbound: Outbound,
        ids: &[u32],
        under_way: &UnderWay<'_>,
        shown: &Content<'_>,
    ) -> u64 {
        let framing = self.slab[index as usize].framing;
        let kept = &under_way.original.content;
        let mut packet = PublishPacket {
            version: client.version,
            topic: under_way.original.topic,
            content: shown,
            outbound,
            packet_id: 1,
            dup: false,
            ids,
            alias: None,
            unix_ms: under_way.unix_ms,
        };
        let Some(packet_bytes) = packet
            .packet_bytes()
            .filter(|&bytes| bytes <= client.packet_bytes_max as usize)
        else {
            sessions.count_too_large();
            return 0;
        };
        let has_room = self.takes_now(index, packet_bytes + ALIAS_BYTES);
        if outbound.qos > 0 {
            let Offer::Send { packet_id } = sessions.offer(session, outbound, kept, ids, has_room) else {
                return 0;
            };
            packet.packet_id = packet_id;
        }
        if has_room {
            // The client learns the alias only from a packet that it gets.
            if packet_bytes + ALIAS_BYTES <= client.packet_bytes_max as usize {
                packet.alias = sessions.alias(session, packet.topic);
            }
            self.push_packet(index, |bytes| {
                packet.write(framing, bytes);
            });
            return 1;
        }
        bytes.clear();
        packet.write(framing, bytes);
        let taken = self.deliver_apart(index, under_way.channel, bytes, None, under_way.leaves_out, None);
        bytes.shrink_to(PACKET_KEPT_BYTES_MAX);
        taken
    }

    /// Whether the search for matching filters of MQTT sessions has been made for the publication under way.
    pub(in crate::cores) fn has_begun_mqtt_walk(&self) -> bool {
        self.mqtt_walk.as_ref().is_some_and(|walk| walk.has_begun)
    }

    /// The next watched session that has had an event, and whether it still exists.
    pub(in crate::cores) fn next_woken_mqtt(&mut self) -> Option<(SessionRef, bool)> {
        let sessions = self.mqtt.as_mut()?;
        let session = sessions.next_woken()?;
        Some((session, sessions.exists(session)))
    }

    /// Sends the publications that wait in sessions, as far as outboxes have room for them.
    pub(in crate::cores) fn send_waiting_mqtt(&mut self, inspector: &mut impl DeliveryInspector) {
        if self
            .mqtt
            .as_ref()
            .is_none_or(|sessions| sessions.ready_len() == 0)
        {
            return;
        }
        let (Some(mut sessions), Some(mut walk)) = (self.mqtt.take(), self.mqtt_walk.take()) else {
            return;
        };
        let mut packets_left = PACKETS_PER_TURN_MAX;
        for _ in 0..sessions.ready_len().min(SESSIONS_PER_TURN_MAX) {
            let Some(session) = sessions.next_ready() else {
                break;
            };
            self.send_waiting_of(&mut sessions, session, &mut walk, &mut packets_left, inspector);
        }
        (self.mqtt, self.mqtt_walk) = (Some(sessions), Some(walk));
    }

    /// Sends the publications that wait in one session. If more wait, the session is listed again: now, or
    /// when its socket takes more.
    fn send_waiting_of(
        &mut self,
        sessions: &mut Sessions,
        session: SessionRef,
        walk: &mut MqttWalk,
        packets_left: &mut usize,
        inspector: &mut impl DeliveryInspector,
    ) {
        let client = sessions.client(session.number, session.serial);
        let Some(index) = client.and_then(|client| self.index_of(client)) else {
            return;
        };
        loop {
            if *packets_left == 0 || self.replay_room(index) == 0 || self.room(1) == 0 {
                if self.is_blocked(index) {
                    walk.blocked.insert(index, session);
                } else {
                    sessions.put_back(session);
                }
                return;
            }
            *packets_left -= 1;
            let unix_ms = self.unix_ms;
            let ids = &mut walk.scratch.ids;
            let sent = sessions.send_next(session, unix_ms, |client, packet| {
                self.write_waiting(client, index, packet, ids, unix_ms, inspector)
            });
            if sent == Sent::Nothing {
                sessions.wake(session);
                return;
            }
        }
    }

    fn write_waiting<L: DeliveryInspector>(
        &mut self,
        client: Client,
        index: u32,
        packet: &Packet<'_>,
        all_ids: &mut Vec<u32>,
        unix_ms: u64,
        inspector: &mut L,
    ) -> Written {
        let framing = self.slab[index as usize].framing;
        let (mut content, ids, outbound, packet_id, dup) = match *packet {
            Packet::Release { packet_id } => {
                self.push_packet(index, |bytes| {
                    write_release(packet_id, client.version, framing, bytes);
                });
                self.metrics.messages_sent.add(1);
                return Written::Queued;
            }
            Packet::Publish {
                content,
                ids,
                outbound,
                packet_id,
                dup,
            } => (content, ids, outbound, packet_id.unwrap_or(0), dup),
        };
        let (mut replaced, mut bytes) = (None, Vec::new());
        if L::INSPECTS {
            match self.look_at(index, &content, inspector) {
                OutboundKind::Pass => {}
                OutboundKind::Withhold => return Written::Withheld,
                OutboundKind::Instead(json) => replaced = Some(json),
            }
        }
        if let Some(json) = &replaced {
            content = content_with(&content, json, &mut bytes);
        }
        all_ids.clear();
        all_ids.extend(ids.iter());
        let packet = PublishPacket {
            version: client.version,
            topic: std::str::from_utf8(content.topic).unwrap_or_default(),
            content: &content,
            outbound,
            packet_id,
            dup,
            ids: all_ids,
            alias: None,
            unix_ms,
        };
        let size = packet.packet_bytes();
        if size.is_none_or(|size| size > client.packet_bytes_max as usize) {
            return Written::TooLarge;
        }
        self.push_packet(index, |bytes| {
            packet.write(framing, bytes);
        });
        self.metrics.messages_sent.add(1);
        self.metrics.deliveries.add(1);
        Written::Queued
    }

    /// The socket of a connection takes more, so its session may send again.
    #[cold]
    pub(super) fn unblock_mqtt(&mut self, index: u32) {
        if let (Some(sessions), Some(walk)) = (&mut self.mqtt, &mut self.mqtt_walk)
            && let Some(session) = walk.blocked.remove(&index)
        {
            sessions.put_back(session);
        }
    }

    /// Whether sessions have work for the next turn even if no event comes.
    #[inline]
    pub(in crate::cores) fn has_mqtt_work(&self) -> bool {
        let sessions = self.mqtt.as_ref();
        sessions.is_some_and(|sessions| {
            sessions.ready_len() > 0
                || sessions.has_due_wills()
                || sessions.shares.has_work()
                || sessions.has_woken()
                || sessions.has_more_to_save()
        })
    }

    /// Whether the store is to be told more of sessions in the next turn.
    pub(in crate::cores) fn has_more_to_save(&self) -> bool {
        let sessions = self.mqtt.as_ref();
        sessions.is_some_and(|sessions| sessions.has_more_to_save())
    }

    /// The index of a session's connection, unless that is about to end.
    #[inline]
    pub(super) fn index_of(&self, client: Client) -> Option<u32> {
        let id = ConnectionId::from_token(Token(client.address));
        // Not by `get`, which is not inlined and would cost a call for each delivery.
        let connection = self.slab.get(id.index() as usize)?;
        (connection.id == id && !connection.reading.is_paused_by(Why::Ending)).then_some(id.index())
    }

    /// Whether the outbox of a connection has room for `bytes`, and its socket is not known to be full.
    #[inline]
    fn takes_now(&self, index: u32, bytes: usize) -> bool {
        let outbox = &self.slab[index as usize].outbox;
        outbox.takes(bytes, self.outbox_bytes_max) && !outbox.is_blocked()
    }

    /// Queues one packet, which `write` appends, in the frame of the connection.
    #[inline]
    pub(super) fn push_packet(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let connection = &mut self.slab[index as usize];
        let before = connection.outbox.len();
        connection.outbox.push(&mut self.pool, write);
        let queued = connection.outbox.len() - before;
        connection.tally.queue(1);
        self.note_queued(index, queued);
    }
}

/// Gives the publication to one member of the group.
#[cold]
fn give_to_group(sessions: &mut Sessions, group: u32, under_way: &UnderWay<'_>) {
    let Original {
        content, qos, retain, ..
    } = &under_way.original;
    let published = Outbound {
        qos: *qos,
        retain: *retain,
    };
    sessions
        .shares
        .dispatch(group, under_way.last_group, content, published);
}

/// A number for a topic, which few other topics have.
#[expect(clippy::cast_possible_truncation, reason = "a part of the hash is enough")]
const fn channel_of(hash: ChannelHash) -> u32 {
    hash.as_u64() as u32
}

/// This many steps through filters with wildcards count like one copy. Clients can make thousands of filters
/// that begin like a topic.
const STEPS_PER_COPY: usize = 16;
/// Sessions whose waiting publications one turn sends.
const SESSIONS_PER_TURN_MAX: usize = 1024;
/// Waiting publications that one turn sends.
const PACKETS_PER_TURN_MAX: usize = 4096;
/// A list of matches that grew past this gives memory back.
const MATCHES_KEPT_MAX: usize = 16 * 1024;
/// A buffer for one packet that grew past this gives memory back.
const PACKET_KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
