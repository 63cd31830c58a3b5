//! Puts retained publications into the outboxes of MQTT connections, as far as there is room. Live
//! publications have priority.

use super::Connections;
use super::delivery_inspector::{DeliveryInspector, content_with};
use crate::app::OutboundKind;
use crate::cores::outgoing::packets::PublishPacket;
use crate::mqtt::Sessions;
use crate::mqtt::sessions::{Client, Content, Offer, Outbound, SessionRef};
use crate::mqtt::subscriptions::Subscriber;

/// The outcome of a retained publication for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Handed {
    /// The client gets it, or it was dropped and counted.
    Over,
    /// The application withholds it from the client.
    Withheld,
    /// There is no room for it now.
    Full,
    /// The socket takes no more, or the client has to acknowledge other publications first: an event reports
    /// when it has ([`Connections::watch_for_retained`]).
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
        inspector: &mut impl DeliveryInspector,
    ) -> Handed {
        let Some(mut sessions) = self.mqtt.take() else {
            return Handed::Ended;
        };
        let handed = self.hand_retained(&mut sessions, session, content, qos, id, unix_ms, inspector);
        self.mqtt = Some(sessions);
        handed
    }

    /// Whether a session could be sent a retained publication with this QoS now: [`Handed::Over`] if it
    /// could.
    pub(in crate::cores) fn takes_retained(&mut self, session: SessionRef, qos: u8) -> Handed {
        let Some(sessions) = self.mqtt.take() else {
            return Handed::Ended;
        };
        let target = self.target_of(&sessions, session, qos);
        self.mqtt = Some(sessions);
        target.err().unwrap_or(Handed::Over)
    }

    /// Whether a session exists and has a filter.
    pub(in crate::cores) fn has_filter(&self, session: SessionRef, filter: &str) -> bool {
        self.mqtt.as_deref().is_some_and(|sessions| {
            let subscriber = Subscriber::Session(session.number);
            sessions.exists(session) && sessions.subscriptions.has(subscriber, filter)
        })
    }

    /// Asks for an event when a session that was [`Handed::Blocked`] or [`Handed::Offline`] may go on:
    /// [`Sessions::next_woken`](crate::mqtt::Sessions::next_woken).
    pub(in crate::cores) fn watch_for_retained(&mut self, session: SessionRef) {
        let sessions = self.mqtt.as_deref();
        let client = sessions.and_then(|sessions| sessions.client(session.number, session.serial));
        if let Some(index) = client.and_then(|client| self.index_of(client))
            && self.is_blocked(index)
            && let Some(walk) = &mut self.mqtt_walk
        {
            walk.blocked.insert(index, session);
        }
        if let Some(sessions) = &mut self.mqtt {
            sessions.watch(session);
        }
    }

    /// The client that a session has now, and the index of its connection, if it takes a retained
    /// publication.
    fn target_of(&self, sessions: &Sessions, session: SessionRef, qos: u8) -> Result<(Client, u32), Handed> {
        let Some(client) = sessions.client(session.number, session.serial) else {
            return Err(match sessions.exists(session) {
                true => Handed::Offline,
                false => Handed::Ended,
            });
        };
        let Some(index) = self.index_of(client) else {
            return Err(Handed::Offline);
        };
        if self.replay_room(index) == 0 {
            return Err(match self.is_blocked(index) {
                true => Handed::Blocked,
                false => Handed::Full,
            });
        }
        // Retained publications do not wait in the session: they would take the room of live ones, and might
        // be dropped.
        if qos > 0 && !sessions.sends_at_once(session) {
            return Err(Handed::Blocked);
        }
        Ok((client, index))
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of a packet")]
    fn hand_retained<L: DeliveryInspector>(
        &mut self,
        sessions: &mut Sessions,
        session: SessionRef,
        content: &Content<'_>,
        qos: u8,
        id: u32,
        unix_ms: u64,
        inspector: &mut L,
    ) -> Handed {
        let (client, index) = match self.target_of(sessions, session, qos) {
            Ok(target) => target,
            Err(handed) => return handed,
        };
        let (mut replaced, mut payload) = (None, Vec::new());
        if L::INSPECTS {
            match self.look_at(index, content, inspector) {
                OutboundKind::Pass => {}
                OutboundKind::Withhold => return Handed::Withheld,
                OutboundKind::Instead(json) => replaced = Some(json),
            }
        }
        let shown = match &replaced {
            Some(json) => content_with(content, json, &mut payload),
            None => *content,
        };
        let outbound = Outbound { qos, retain: true };
        let ids = &[id][usize::from(id == 0)..];
        let mut packet = PublishPacket {
            version: client.version,
            topic: std::str::from_utf8(content.topic).unwrap_or_default(),
            content: &shown,
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
            // It is neither the publication under way nor the previous one.
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
