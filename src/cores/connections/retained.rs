//! Retained publications into the outboxes of MQTT connections, as far as there is room: below what is live in priority.

use super::Connections;
use crate::cores::outgoing::packets::PublishPacket;
use crate::mqtt::sessions::{Content, Offer, Outbound, SessionRef};

/// The outcome of a retained publication for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Handed {
    /// The client gets it, or it was dropped and counted.
    Over,
    /// There is no room for it now.
    Full,
    /// The socket takes no more, or the client has to acknowledge others first: an event tells when.
    Blocked,
    /// The session has no connection.
    Offline,
    /// The session has ended.
    Ended,
}

impl Connections {
    /// Sends a session a retained publication. `id` is the subscription identifier, or 0.
    pub(in crate::cores) fn send_retained(
        &mut self,
        session: SessionRef,
        content: &Content<'_>,
        qos: u8,
        id: u32,
        unix_ms: u64,
    ) -> Handed {
        let Some(mut sessions) = self.mqtt.take() else {
            return Handed::Ended;
        };
        let handed = self.hand_retained(&mut sessions, session, content, qos, id, unix_ms);
        self.mqtt = Some(sessions);
        handed
    }

    fn hand_retained(
        &mut self,
        sessions: &mut crate::mqtt::Sessions,
        session: SessionRef,
        content: &Content<'_>,
        qos: u8,
        id: u32,
        unix_ms: u64,
    ) -> Handed {
        let Some(client) = sessions.client(session.number, session.serial) else {
            return match sessions.exists(session) {
                true => Handed::Offline,
                false => Handed::Ended,
            };
        };
        let Some(index) = self.index_of(client) else {
            return Handed::Offline;
        };
        if self.replay_room(index) == 0 {
            return match self.is_blocked(index) {
                true => Handed::Blocked,
                false => Handed::Full,
            };
        }
        let outbound = Outbound { qos, retain: true };
        let ids = &[id][usize::from(id == 0)..];
        let mut packet = PublishPacket {
            version: client.version,
            topic: std::str::from_utf8(content.topic).unwrap_or_default(),
            content,
            outbound,
            packet_id: 1,
            dup: false,
            ids,
            alias: None,
            unix_ms,
        };
        if packet
            .packet_bytes()
            .is_none_or(|bytes| bytes > client.packet_bytes_max as usize)
        {
            sessions.count_too_large();
            return Handed::Over;
        }
        if qos > 0 {
            if sessions.outgoing_len(session).1 > 0 {
                return Handed::Blocked;
            }
            // It is another publication than the one under way, and than the one before.
            sessions.end_publication();
            let offer = sessions.offer(session, outbound, content, ids, true);
            sessions.end_publication();
            match offer {
                Offer::Send { packet_id } => packet.packet_id = packet_id,
                Offer::Waits | Offer::Dropped => return Handed::Over,
            }
        }
        let framing = self.slab[index as usize].framing;
        self.push_packet(index, |bytes| {
            packet.write(framing, bytes);
        });
        self.metrics.messages_sent.add(1);
        self.metrics.deliveries.add(1);
        self.metrics.mqtt_retained_sent.add(1);
        Handed::Over
    }
}
