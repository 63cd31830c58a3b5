//! The retained publication of a channel for a SocketCluster client that asks for it when it subscribes.
//!
//! It is sent in the same way as a history (`serve.rs`): publications from a place on are collected, the
//! owner of the channel answers with the publication that was retained before that place, and the client gets
//! this one and then the collected ones. So it gets each publication once, and the retained one first. The
//! SocketCluster form of the publication is made here from the MQTT form, by the rule for payloads under
//! which it was published.

use std::sync::Arc;

use crate::app::App;
use crate::broker::{Origin, Position, Sequence};
use crate::history::{NewPublication, Reading};
use crate::mqtt::payload::write_json;
use crate::protocols;
use crate::retained::{Entry, Filter};

use crate::cores::CoreId;
use crate::cores::core::Core;
use crate::cores::post::letter::{Letter, RetainedPurpose, RetainedQuestion};

impl<A: App> Core<A> {
    /// The owner of a channel has answered the question `number` with its retained publication, if there is one.
    pub(super) fn retained_was_read(&mut self, number: u64, retained: Option<&Entry>) {
        let place = self.connections.recoveries.place_of(number);
        let Some((_, from)) = place.and_then(|place| self.live_from(place)) else {
            return;
        };
        let up_to = self.delivery.numbering().position_before(from);
        let reading = match retained {
            Some(entry) => reading_of(entry, self.delivery.numbering().offset(entry.sequence()), up_to),
            None => Reading::empty(up_to),
        };
        self.history_was_read(number, reading);
    }
}

/// The question for the retained publication of a channel, whose name is that of a topic, from before a place.
pub(super) fn retained_question(asker: CoreId, number: u64, name: &[u8], before: Sequence) -> Letter {
    let topic = String::from_utf8_lossy(name);
    Letter::RetainedQuestion(Box::new(RetainedQuestion {
        asker,
        purpose: RetainedPurpose::Recovery(number),
        filter: Arc::new(Filter::new(&topic)),
        from: None,
        before,
        read_up_to: before,
        entries_max: 1,
    }))
}

fn reading_of(entry: &Entry, offset: u64, up_to: Position) -> Reading {
    let (mut topic, mut data) = (Vec::new(), Vec::new());
    entry.write_topic(&mut topic);
    let facts = entry.facts();
    if facts.is_json {
        data.extend_from_slice(entry.payload());
    } else {
        write_json(facts.payload_rule, entry.payload(), &mut data);
    }
    let frame = protocols::replayed_frame(&topic, &data);
    let payload_bytes =
        u32::try_from(data.len()).expect("a packet in base64 or as a string is shorter than 4 GiB");
    let publication = NewPublication::restored(offset, 0, 0, Origin::SocketCluster, &frame, payload_bytes);
    Reading::of_one(&publication, up_to)
}
