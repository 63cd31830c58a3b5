//! Publications that groups of shared subscriptions have given to sessions of this core, and SUBACK packets
//! that have waited for the owners of groups (`mqtt/shares.rs`).
//!
//! A publication that the application withholds from a member goes to no other member, as if the member had refused it
//! (MQTT-4.8.2-6).

use super::{Connections, Target};
use crate::app::OutboundKind;
use crate::cores::connections::delivery_inspector::{DeliveryInspector, content_with};
use crate::cores::outgoing::packets::PublishPacket;
use crate::mqtt::sessions::{Content, Offer, Outbound};
use crate::mqtt::shares::{Handed, WaitingAnswer};
use crate::mqtt::{Sessions, Version};

impl Connections {
    /// Delivers the publications that groups have given to sessions of this core, as many as a turn may, and
    /// sends the SUBACK packets.
    pub(in crate::cores) fn deliver_handed(&mut self, inspector: &mut impl DeliveryInspector) {
        let Some(mut sessions) = self.mqtt.take_if(|sessions| sessions.shares.has_work()) else {
            return;
        };
        while let Some(answer) = sessions.shares.next_answer() {
            self.send_answer(&sessions, &answer);
        }
        let mut taken = 0;
        for _ in 0..HANDED_PER_TURN_MAX {
            if self.room(1) == 0 {
                break;
            }
            let Some(handed) = sessions.shares.next_handed() else {
                break;
            };
            taken += self.deliver_one(&mut sessions, handed, inspector);
        }
        self.mqtt = Some(sessions);
        self.metrics.messages_sent.add(taken);
        self.metrics.deliveries.add(taken);
    }

    /// Delivers one publication. Returns how many outboxes took it: one or none.
    fn deliver_one<L: DeliveryInspector>(
        &mut self,
        sessions: &mut Sessions,
        handed: Handed,
        inspector: &mut L,
    ) -> u64 {
        let session = handed.tag.session;
        if !sessions.exists(session) {
            sessions.shares.give_back(handed.tag, handed.publication);
            return 0;
        }
        let content = handed.publication.content();
        if content.expires_at.is_some_and(|at| at <= self.unix_ms) {
            sessions.count_expired();
            sessions.shares.settle(handed.tag);
            return 0;
        }
        let client = sessions.client(session.number, session.serial);
        let Some(target) = client.and_then(|client| {
            let index = self.index_of(client)?;
            Some(Target {
                session,
                client,
                index,
            })
        }) else {
            sessions.offer_handed(handed, false, |_, _| {});
            return 0;
        };
        let (mut replaced, mut payload) = (None, Vec::new());
        if L::INSPECTS {
            if handed.outbound.qos > 0 && !sessions.sends_at_once(session) {
                // The application looks at it when it is sent.
                sessions.offer_handed(handed, false, |_, _| {});
                return 0;
            }
            match self.look_at(target.index, &content, inspector) {
                OutboundKind::Pass => {}
                OutboundKind::Withhold => {
                    sessions.shares.settle(handed.tag);
                    return 0;
                }
                OutboundKind::Instead(json) => replaced = Some(json),
            }
        }
        let shown = match &replaced {
            Some(json) => content_with(&content, json, &mut payload),
            None => content,
        };
        let (outbound, unix_ms) = (handed.outbound, self.unix_ms);
        let id = [handed.publication.id()];
        let ids = if id == [0] { &[] } else { &id[..] };
        let packet = packet_of(&shown, ids, outbound, target.client.version, unix_ms);
        let bytes_max = target.client.packet_bytes_max as usize;
        let Some(packet_bytes) = packet.packet_bytes().filter(|&bytes| bytes <= bytes_max) else {
            sessions.count_too_large();
            sessions.shares.settle(handed.tag);
            return 0;
        };
        let framing = self.slab[target.index as usize].framing;
        let has_room = self.takes_now(target.index, packet_bytes);
        if outbound.qos > 0 {
            let offer = sessions.offer_handed(handed, has_room, |packet_id, kept| {
                let mut payload = Vec::new();
                let shown = match &replaced {
                    Some(json) => content_with(kept, json, &mut payload),
                    None => *kept,
                };
                let packet = packet_of(&shown, ids, outbound, target.client.version, unix_ms);
                self.push_packet(target.index, |bytes| {
                    PublishPacket { packet_id, ..packet }.write(framing, bytes);
                });
            });
            return u64::from(matches!(offer, Offer::Send { .. }));
        }
        let taken = if has_room {
            self.push_packet(target.index, |bytes| {
                packet.write(framing, bytes);
            });
            1
        } else {
            let mut bytes = Vec::new();
            packet.write(framing, &mut bytes);
            let leaves_out = self.leaves_out();
            self.deliver_apart(target.index, NO_CHANNEL, &bytes, None, leaves_out, None)
        };
        sessions.shares.settle(handed.tag);
        taken
    }

    /// Sends SUBACK, if the connection that has subscribed still has the session.
    fn send_answer(&mut self, sessions: &Sessions, answer: &WaitingAnswer) {
        let client = sessions.client(answer.session.number, answer.session.serial);
        let Some(client) = client.filter(|client| client.address == answer.address) else {
            return;
        };
        let Some(index) = self.index_of(client) else {
            return;
        };
        let framing = self.slab[index as usize].framing;
        self.push_packet(index, |bytes| {
            framing.write_header(answer.packet.len(), bytes);
            bytes.extend_from_slice(&answer.packet);
        });
        self.metrics.messages_sent.add(1);
    }
}

fn packet_of<'a>(
    content: &'a Content<'a>,
    ids: &'a [u32],
    outbound: Outbound,
    version: Version,
    unix_ms: u64,
) -> PublishPacket<'a> {
    PublishPacket {
        version,
        topic: std::str::from_utf8(content.topic).unwrap_or_default(),
        content,
        outbound,
        packet_id: 1,
        dup: false,
        ids,
        alias: None,
        unix_ms,
    }
}

/// Publications of groups that one turn delivers.
const HANDED_PER_TURN_MAX: usize = 4096;
/// Given to these publications instead of a topic's number: each of them has an entry of its own where
/// outboxes share bytes.
const NO_CHANNEL: u32 = u32::MAX;
