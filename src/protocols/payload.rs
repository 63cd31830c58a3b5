//! Translates publications of MQTT clients, whose payloads are bytes, for SocketCluster clients, whose data
//! is JSON. The rule for payloads is in `mqtt/payload.rs`.
//!
//! Each core that has subscribers which need a SocketCluster message of a publication makes it once. This
//! module knows no subscribers.

use crate::broker::{Kind, Numbering, Origin, Publication};
use crate::config::channels::MqttPayload;
use crate::json::string;
use crate::mqtt::payload::write_json;
use crate::mqtt::publication;
use crate::socketcluster::encode;
use crate::socketcluster::session::write_publish;
use crate::websocket::frame::{self, OpCode};

/// The frame of a publication that was made before its receiver subscribed, for SocketCluster clients. `data` is JSON.
pub(crate) fn replayed_frame(channel: &[u8], data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    encode::publish_replayed(channel, data, &mut message);
    let mut out = Vec::new();
    frame::write(&mut out, OpCode::Text, &message);
    out
}

/// Translates MQTT publications to SocketCluster publications; keeps its buffers.
#[derive(Debug, Default)]
pub(crate) struct Translator {
    data: Vec<u8>,
    message: Vec<u8>,
    frame_head: Vec<u8>,
}

impl Translator {
    /// Writes the SocketCluster form of an MQTT publication into `out`, which is empty, as it would lie in
    /// the ring.
    pub(crate) fn translate(
        &mut self,
        publication: Publication<'_>,
        numbering: Numbering,
        out: &mut Vec<u8>,
    ) {
        let Translator {
            data,
            message,
            frame_head,
        } = self;
        let (rule, payload) = match publication::read(publication.frame()) {
            Some(view) => (view.head.payload_rule, view.payload),
            None => (MqttPayload::Auto, &b""[..]),
        };
        data.clear();
        write_json(rule, payload, data);
        message.clear();
        let name = |out: &mut Vec<u8>| string::write_json(publication.channel(), out);
        write_publish(name, publication.marks(), numbering.epoch, Some(data), message);
        frame_head.clear();
        frame::write_header(frame_head, OpCode::Text, message.len());
        publication.write_translated(
            Kind::Json,
            Origin::SocketCluster,
            data.len(),
            &[frame_head, message],
            numbering.offset(publication.sequence()),
            out,
        );
    }

    /// Bytes of memory that its buffers take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.data.capacity() + self.message.capacity() + self.frame_head.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::publication::{self as ring, Facts, Marks, Sequence};
    use crate::mqtt::publication::{Head, write_head};

    #[test]
    fn a_translated_publication_is_what_a_socketcluster_client_would_have_published() {
        let numbering = Numbering::new();
        let both = [false, true];
        for (remembered, positioned) in both.into_iter().flat_map(|a| both.map(|b| (a, b))) {
            let marks = Marks {
                remembered,
                positioned,
            };
            let mut facts = Facts {
                at_ns: 512,
                kind: Kind::Opaque,
                origin: Origin::Mqtt,
                payload_bytes: 2,
                marks,
                retain: true,
            };
            let mut head = Vec::new();
            write_head(&Head::default(), b"properties", &mut head);
            let mut mqtt = Vec::new();
            ring::write(&mut mqtt, facts, b"a/\"b", &[&head, b"hi"]);
            let publication = Publication::new(Sequence(9), &mqtt);
            let mut buffer = Vec::new();
            Translator::default().translate(publication, numbering, &mut buffer);
            let translated = publication.translated(&buffer);

            let mut message = Vec::new();
            let name = |out: &mut Vec<u8>| string::write_json(b"a/\"b", out);
            write_publish(name, marks, numbering.epoch, Some(b"\"hi\""), &mut message);
            let mut frame = Vec::new();
            frame::write(&mut frame, OpCode::Text, &message);
            facts = Facts {
                kind: Kind::Json,
                origin: Origin::SocketCluster,
                payload_bytes: 4,
                ..facts
            };
            let mut expected = Vec::new();
            ring::write(&mut expected, facts, b"a/\"b", &[&frame]);
            if positioned {
                ring::write_offset(&mut expected, &facts, numbering.offset(Sequence(9)));
            }
            assert_eq!(buffer, expected);
            assert_eq!(translated.payload(), b"\"hi\"");
            assert_eq!(translated.blanks().is_some(), marks.is_any());
            assert_eq!(translated.sequence(), publication.sequence());
        }
    }
}
