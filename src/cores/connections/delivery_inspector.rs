//! The look of the application at publications on their way to each subscriber (`App::deliver`): it lets them pass,
//! withholds them, or replaces their data for one client.
//!
//! Delivery is compiled for the application. The constant [`DeliveryInspector::INSPECTS`] decides at compile time: if the
//! application does not look at publications, the compiler removes the code of this file.
//!
//! The application is asked about clients that are connected when the publication is delivered. Stored
//! publications are stored as they were published: in histories, as retained publications, in queues of MQTT
//! sessions without a connection, in groups of shared subscriptions.

use crate::app::{self, App, Name, OutboundKind, RawJson};
use crate::broker::{Origin, Publication};
use crate::cores::lifecycle::connection::{Connection, Phase};
use crate::cores::outgoing::forms;
use crate::cores::outgoing::recoveries::SubscriptionKey;

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

/// The data of a publication as the application sees it; `None` if there is none, or if it is not JSON.
pub(super) fn data_of<'a>(publication: &Publication<'a>) -> Option<RawJson<'a>> {
    let payload = publication.payload();
    match publication.origin() {
        // The data was checked when it was published.
        Origin::SocketCluster if payload.is_empty() => None,
        Origin::SocketCluster => std::str::from_utf8(payload).ok().map(RawJson::new),
        Origin::Mqtt => RawJson::in_payload(payload),
    }
}

impl Connections {
    /// Asks `look` about each of `subscribers`, and queues the publication, as it is or with other data, for
    /// those that are to get it. Returns how many outboxes took it.
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
                OutboundKind::Pass => passed.push(index),
                OutboundKind::Withhold => self.metrics.publications_withheld.add(1),
                OutboundKind::Instead(json) => {
                    taken += self.deliver_instead(index, channel, publication, &json);
                }
            }
        }
        if !passed.is_empty() {
            taken += self.deliver_or_collect(&passed, channel, publication);
        }
        taken
    }

    /// Queues a publication with other data for one subscriber. Returns how many outboxes took it: one or
    /// none.
    fn deliver_instead(&mut self, index: u32, channel: u32, publication: Publication<'_>, json: &str) -> u64 {
        let mut replaced = Vec::new();
        forms::write_replaced(&publication, json, &mut replaced);
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
}
