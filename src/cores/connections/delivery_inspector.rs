//! The look of the application at publications on their way to each subscriber (`App::deliver`): it lets them pass,
//! withholds them, or replaces their data for one client.
//!
//! Delivery is compiled for the application. The constant [`DeliveryInspector::INSPECTS`] decides at compile time: if the
//! application does not look at publications, the compiler removes the code of this file.
//!
//! The application is asked about everything that a client gets of a channel, when it is about to be queued for the client:
//! live publications, histories and last values, retained publications, what has waited for an MQTT session, and what a
//! group of a shared subscription has given to a member. Whatever is kept is kept as it was published, so the answer is that
//! of the moment at which the client gets it.

use crate::app::{self, App, Name, OutboundKind, RawJson};
use crate::broker::{Origin, Publication};
use crate::config::channels::MqttPayload;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Phase};
use crate::cores::outgoing::forms;
use crate::cores::outgoing::recoveries::SubscriptionKey;
use crate::history::Remembered;
use crate::json::{Unquoted, string, unquote};
use crate::mqtt::payload;
use crate::mqtt::sessions::{Content as MqttContent, Quotes};

use super::Connections;

/// Decides about each delivery.
pub(in crate::cores) trait DeliveryInspector {
    /// Whether `look` is to be called.
    const INSPECTS: bool;

    /// The publication that the client of a connection gets: the same, none, or one with other data.
    fn inspect(&mut self, connection: &Connection, channel: &[u8], data: Option<RawJson<'_>>)
    -> OutboundKind;
}

/// The application of this core.
#[derive(Debug)]
pub(in crate::cores) struct AppInspector<'a, A> {
    pub(in crate::cores) app: &'a mut A,
    pub(in crate::cores) scratch: &'a mut app::Scratch,
}

impl<A: App> DeliveryInspector for AppInspector<'_, A> {
    const INSPECTS: bool = A::LOOKS_AT_DELIVERIES;

    fn inspect(
        &mut self,
        connection: &Connection,
        channel: &[u8],
        data: Option<RawJson<'_>>,
    ) -> OutboundKind {
        let Phase::Open(open) = &connection.phase else {
            // The connection has ended, and its subscriptions are about to.
            return OutboundKind::Withhold;
        };
        let Some(id) = open.session.id() else {
            return OutboundKind::Withhold;
        };
        let address = connection.id.token().0;
        let mut client = self.scratch.client(id, open.session.claims(), address);
        self.app
            .deliver(Name::new(channel), data, &mut client)
            .into_kind()
    }
}

/// Whether a client gets a publication, in whatever form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Yes,
    No,
}

/// No look, for tests of parts.
#[cfg(test)]
pub(in crate::cores) struct NoInspector;

#[cfg(test)]
impl DeliveryInspector for NoInspector {
    const INSPECTS: bool = false;

    fn inspect(&mut self, _: &Connection, _: &[u8], _: Option<RawJson<'_>>) -> OutboundKind {
        OutboundKind::Pass
    }
}

/// The data of a SocketCluster publication as the application sees it; `None` if there is none.
pub(in crate::cores) fn data_in(payload: &[u8]) -> Option<RawJson<'_>> {
    match payload {
        [] => None,
        // It was checked when it was published.
        json => std::str::from_utf8(json).ok().map(RawJson::new),
    }
}

/// The data of a publication for MQTT clients as the application sees it, which is what SocketCluster clients have
/// published if one of them has; `None` if it is not JSON. `json` is empty and may take the data.
fn data_for_mqtt<'a>(content: &MqttContent<'a>, json: &'a mut Vec<u8>) -> Option<RawJson<'a>> {
    match content.quotes {
        Quotes::Kept | Quotes::Absent => RawJson::in_payload(content.payload),
        Quotes::Removed => {
            match content.is_utf8 {
                true => string::write_json(content.payload, json),
                false => payload::write_json(MqttPayload::Binary, content.payload, json),
            }
            data_in(json)
        }
    }
}

/// The same publication for MQTT clients with data of the application, which is JSON. `bytes` may take the payload.
pub(super) fn content_with<'a>(
    content: &MqttContent<'a>,
    json: &'a str,
    bytes: &'a mut Vec<u8>,
) -> MqttContent<'a> {
    let kind = match content.quotes {
        Quotes::Kept => None,
        Quotes::Absent | Quotes::Removed => unquote(json.as_bytes(), bytes),
    };
    let (payload, is_utf8) = match kind {
        None => (json.as_bytes(), true),
        Some(kind) => (&**bytes, kind == Unquoted::Text),
    };
    MqttContent {
        payload,
        is_utf8,
        ..*content
    }
}

/// The data of a publication as the application sees it; `None` if there is none, or if it is not JSON.
pub(super) fn data_of<'a>(publication: &Publication<'a>) -> Option<RawJson<'a>> {
    let payload = publication.payload();
    match publication.origin() {
        Origin::SocketCluster => data_in(payload),
        Origin::Mqtt => RawJson::in_payload(payload),
    }
}

impl Connections {
    /// Asks `inspector` about each of `subscribers`, and queues the publication for each that the inspector does not
    /// withhold it from, as it is or with other data. Returns how many outboxes took it.
    pub(in crate::cores) fn deliver_inspected(
        &mut self,
        subscribers: &[u32],
        channel: u32,
        publication: Publication<'_>,
        inspector: &mut impl DeliveryInspector,
    ) -> u64 {
        let mut passed = Vec::with_capacity(subscribers.len());
        let data = data_of(&publication);
        let mut taken = 0;
        for &index in subscribers {
            match inspector.inspect(&self.slab[index as usize], publication.channel(), data) {
                OutboundKind::Pass => {
                    self.note_position(index, channel, &publication, Seen::Yes);
                    passed.push(index);
                }
                OutboundKind::Withhold => {
                    self.metrics.publications_withheld.add(1);
                    self.note_position(index, channel, &publication, Seen::No);
                }
                OutboundKind::Instead(json) => {
                    self.note_position(index, channel, &publication, Seen::Yes);
                    taken += self.deliver_instead(index, channel, publication, &json);
                }
            }
        }
        if !passed.is_empty() {
            taken += self.deliver_or_collect(&passed, channel, publication);
        }
        taken
    }

    /// Notes that a subscriber gets a publication, or does not get it, if publications of its channel tell their positions.
    fn note_position(&mut self, index: u32, channel: u32, publication: &Publication<'_>, seen: Seen) {
        if !publication.marks().positioned || (seen == Seen::Yes && self.withheld.is_empty()) {
            return;
        }
        let Some(histories) = &self.histories else { return };
        let offset = histories.numbering.offset(publication.sequence());
        let place = SubscriptionKey {
            connection: index,
            channel,
        };
        match seen {
            Seen::Yes => self.withheld.pass(place, offset),
            Seen::No => self.withheld.note(place, offset, self.now),
        }
    }

    /// The application's decision about a publication for MQTT clients, for the client of one connection.
    pub(super) fn look_at(
        &self,
        index: u32,
        content: &MqttContent<'_>,
        inspector: &mut impl DeliveryInspector,
    ) -> OutboundKind {
        let mut json = Vec::new();
        let data = data_for_mqtt(content, &mut json);
        let looked = inspector.inspect(&self.slab[index as usize], content.topic, data);
        if looked == OutboundKind::Withhold {
            self.metrics.publications_withheld.add(1);
        }
        looked
    }

    /// Queues a publication with other data for one subscriber. Returns how many outboxes took it: one or
    /// none.
    fn deliver_instead(&mut self, index: u32, channel: u32, publication: Publication<'_>, json: &str) -> u64 {
        let mut replaced = Vec::new();
        forms::write_replaced(
            publication.frame(),
            publication.payload().len(),
            json,
            &mut replaced,
        );
        let place = SubscriptionKey {
            connection: index,
            channel,
        };
        if self.recoveries.has(place) {
            let sequence = publication.sequence();
            self.recoveries
                .collect(place, sequence, &replaced, self.outbox_bytes_max);
            self.note_held(index);
            return 0;
        }
        let mut frame = Vec::new();
        let framing = self.slab[index as usize].framing;
        forms::write_frames(self.forms.as_deref_mut(), framing, &mut frame, &replaced);
        let leaves_out = self.leaves_out();
        let taken = self.deliver_apart(index, channel, &frame, None, leaves_out, Some(&publication));
        self.metrics.messages_sent.add(taken);
        self.metrics.deliveries.add(taken);
        taken
    }

    /// Shows the application the next publication of a history for a subscriber, and sends it as the application decides.
    /// Returns the number of bytes sent.
    pub(super) fn replay_looked_at(
        &mut self,
        place: SubscriptionKey,
        name: &[u8],
        remembered: &Remembered<'_>,
        follows: bool,
        inspector: &mut impl DeliveryInspector,
    ) -> usize {
        let Some(connection) = self.slab.get(place.connection as usize) else {
            return 0;
        };
        let id = connection.id;
        match inspector.inspect(connection, name, data_in(remembered.payload)) {
            OutboundKind::Withhold => {
                self.metrics.publications_withheld.add(1);
                // The publications that were collected behind the history have later positions.
                if !follows && self.tells_positions(name) {
                    self.withheld.note(place, remembered.offset, self.now);
                }
                0
            }
            OutboundKind::Pass => self.send_replayed(id, place, remembered, remembered.frame),
            OutboundKind::Instead(json) => {
                let mut frame = Vec::new();
                forms::write_replaced(remembered.frame, remembered.payload.len(), &json, &mut frame);
                self.send_replayed(id, place, remembered, &frame)
            }
        }
    }

    fn send_replayed(
        &mut self,
        id: ConnectionId,
        place: SubscriptionKey,
        remembered: &Remembered<'_>,
        frame: &[u8],
    ) -> usize {
        self.withheld.pass(place, remembered.offset);
        self.metrics.publications_replayed.add(1);
        self.send_frames(id, frame, 1);
        frame.len()
    }

    /// Whether publications of a channel tell their positions.
    fn tells_positions(&self, name: &[u8]) -> bool {
        let histories = self.histories.as_deref();
        let policy = histories.and_then(|histories| histories.channels.find(name));
        policy.is_some_and(|policy| policy.history.is_some() && policy.position)
    }
}
