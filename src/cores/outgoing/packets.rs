//! The publication under way as PUBLISH packets of MQTT.
//!
//! ```text
//!   ring: publication ──► columns:  version 3 or 5 | QoS | with or without the frame of a WebSocket
//! ```
//! A column is made when the publication first meets a subscriber of this core that needs it. With QoS 0 all
//! of these subscribers get the same bytes. With QoS 1 and 2 each gets a copy with its own packet identifier.
//! Subscription identifiers and the RETAIN flag of live publications are rare: a packet with one of them is
//! written for its subscriber alone.
//!
//! Limits: the bytes that are made here count against the copies of a turn.

use std::num::NonZeroU16;

use crate::broker::{Origin, Publication};
use crate::mqtt::Version;
use crate::mqtt::encode::{AckKind, Delivery, PublishHead, PublishProperties, ack};
use crate::mqtt::sessions::{Alias, Content, Outbound, Quotes};
use crate::mqtt::{ReasonCode, publication, topic};
use crate::protocols::Framing;

/// The content of a publication for MQTT subscribers.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Original<'a> {
    pub(in crate::cores) topic: &'a str,
    pub(in crate::cores) content: Content<'a>,
    pub(in crate::cores) qos: u8,
    pub(in crate::cores) retain: bool,
    /// The serial number of the publisher's session; 0 for none.
    pub(in crate::cores) publisher: u64,
}

impl<'a> Original<'a> {
    /// `None` if the name of the channel is not a valid topic, so that MQTT clients cannot see it.
    pub(in crate::cores) fn read(publication: &Publication<'a>) -> Option<Original<'a>> {
        let name = publication.channel();
        if name.is_empty() || name.len() > usize::from(u16::MAX) {
            return None;
        }
        let topic = topic::name(name).ok()?;
        let content = |properties, payload, expires_at, is_utf8| Content {
            topic: name,
            properties,
            payload,
            expires_at,
            is_utf8,
            quotes: Quotes::Kept,
        };
        Some(match publication.origin() {
            Origin::Mqtt => {
                let view = publication::read(publication.frame())?;
                let head = view.head;
                Original {
                    topic,
                    content: content(view.properties, view.payload, head.expires_at_ms, head.is_text),
                    qos: head.qos,
                    retain: head.retain,
                    publisher: head.publisher,
                }
            }
            Origin::SocketCluster => Original {
                topic,
                content: content(&[], publication.payload(), None, true),
                qos: QOS_OF_SOCKETCLUSTER,
                retain: publication.is_retained(),
                publisher: 0,
            },
        })
    }
}

/// The form in which a subscriber gets the publication under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct PacketForm {
    version: Version,
    framing: Framing,
    qos: u8,
}

impl PacketForm {
    pub(in crate::cores) const fn new(version: Version, framing: Framing, qos: u8) -> PacketForm {
        PacketForm {
            version,
            framing,
            qos,
        }
    }

    /// The column of this form in tables. Forms with QoS 0 come first: [`PacketForm::SHARED`].
    #[inline]
    pub(in crate::cores) const fn index(self) -> usize {
        let has_properties = self.version.has_properties() as usize;
        let is_framed = matches!(self.framing, Framing::MqttOverWebSocket) as usize;
        self.qos as usize * PacketForm::SHARED + has_properties * 2 + is_framed
    }

    /// The number of forms whose subscribers all get the same bytes.
    pub(in crate::cores) const SHARED: usize = 4;
    const COUNT: usize = 3 * PacketForm::SHARED;
}

/// The packets of the publication under way.
#[derive(Debug, Default)]
pub(in crate::cores) struct Packets {
    columns: [Column; PacketForm::COUNT],
    /// Which columns are made, by their index.
    made: u32,
}

#[derive(Debug, Default)]
struct Column {
    bytes: Vec<u8>,
    packet_bytes: usize,
    /// Where the packet identifier stands, with QoS 1 and 2.
    id_at: usize,
}

/// A packet in one form, with the frame around it.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Packed<'p> {
    pub(in crate::cores) bytes: &'p [u8],
    /// The size of the packet without a frame.
    pub(in crate::cores) packet_bytes: usize,
    id_at: usize,
}

impl Packed<'_> {
    /// Appends the packet, with this packet identifier.
    #[inline]
    pub(in crate::cores) fn write(&self, packet_id: u16, out: &mut Vec<u8>) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(self.bytes);
        out[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
    }
}

impl Packets {
    /// Prepares for the next publication. Frees the memory of large packets.
    #[inline]
    pub(in crate::cores) fn end_publication(&mut self) {
        while self.made != 0 {
            let column = &mut self.columns[self.made.trailing_zeros() as usize];
            if column.bytes.capacity() > KEPT_BYTES_MAX {
                column.bytes = Vec::new();
            }
            self.made &= self.made - 1;
        }
    }

    /// The publication in a form; `None` if the packet would be too large for MQTT.
    #[inline]
    pub(in crate::cores) fn packet(
        &mut self,
        form: PacketForm,
        original: &Original<'_>,
        unix_ms: u64,
    ) -> Option<Packed<'_>> {
        let index = form.index();
        if self.made & 1 << index == 0 {
            self.make(form, original, unix_ms)?;
        }
        let column = &self.columns[index];
        Some(Packed {
            bytes: &column.bytes,
            packet_bytes: column.packet_bytes,
            id_at: column.id_at,
        })
    }

    fn make(&mut self, form: PacketForm, original: &Original<'_>, unix_ms: u64) -> Option<()> {
        let column = &mut self.columns[form.index()];
        column.bytes.clear();
        let packet = PublishPacket::in_form(form, original, unix_ms);
        column.packet_bytes = packet.write(form.framing, &mut column.bytes)?;
        if form.qos > 0 {
            // Behind the frame header, the fixed header and the topic.
            let fixed = column.bytes.len() - column.packet_bytes + 1;
            column.id_at = fixed + length_bytes(&column.bytes[fixed..]) + 2 + original.topic.len();
        }
        self.made |= 1 << form.index();
        Some(())
    }
}

/// A PUBLISH packet for one subscriber.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct PublishPacket<'a> {
    pub(in crate::cores) version: Version,
    pub(in crate::cores) topic: &'a str,
    pub(in crate::cores) content: &'a Content<'a>,
    pub(in crate::cores) outbound: Outbound,
    /// Not used with QoS 0.
    pub(in crate::cores) packet_id: u16,
    pub(in crate::cores) dup: bool,
    pub(in crate::cores) ids: &'a [u32],
    /// The alias of the topic for this subscriber.
    pub(in crate::cores) alias: Option<Alias>,
    pub(in crate::cores) unix_ms: u64,
}

impl<'a> PublishPacket<'a> {
    /// The publication in a form.
    #[inline]
    pub(in crate::cores) fn in_form(
        form: PacketForm,
        original: &'a Original<'a>,
        unix_ms: u64,
    ) -> PublishPacket<'a> {
        PublishPacket {
            version: form.version,
            topic: original.topic,
            content: &original.content,
            outbound: Outbound {
                qos: form.qos,
                retain: false,
            },
            packet_id: 1,
            dup: false,
            ids: &[],
            alias: None,
            unix_ms,
        }
    }

    /// How many bytes it has at most without subscription identifiers, with the frame around it.
    #[inline]
    pub(in crate::cores) fn bytes_max(&self) -> usize {
        let content = self.content;
        HEAD_BYTES_MAX + content.topic.len() + content.properties.len() + content.payload.len()
    }

    fn head(&self) -> PublishHead<'_> {
        let id = NonZeroU16::new(self.packet_id).unwrap_or(NonZeroU16::MIN);
        let content = self.content;
        let (topic, alias) = match self.alias {
            None => (self.topic, None),
            Some(Alias::New(alias)) => (self.topic, Some(alias)),
            Some(Alias::Known(alias)) => ("", Some(alias)),
        };
        PublishHead {
            version: self.version,
            dup: self.dup,
            retain: self.outbound.retain,
            delivery: match self.outbound.qos {
                0 => Delivery::AtMostOnce,
                1 => Delivery::AtLeastOnce(id),
                _ => Delivery::ExactlyOnce(id),
            },
            topic,
            payload_bytes: content.payload.len(),
            properties: PublishProperties {
                payload_is_utf8: content.is_utf8,
                message_expiry_interval: content.expires_at.map(|at| remaining_s(at, self.unix_ms)),
                topic_alias: alias,
                subscription_ids: self.ids,
                passed_on: content.properties,
            },
        }
    }

    /// The size of the packet; `None` if it would be too large for MQTT.
    pub(in crate::cores) fn packet_bytes(&self) -> Option<usize> {
        self.head().packet_bytes()
    }

    /// Appends the packet, in the frame of the connection. Returns the size of the packet. If the packet
    /// would be too large for MQTT, returns `None` and appends nothing.
    pub(in crate::cores) fn write(&self, framing: Framing, out: &mut Vec<u8>) -> Option<usize> {
        let head = self.head();
        let packet_bytes = head.packet_bytes()?;
        out.reserve(packet_bytes + FRAME_HEADER_BYTES_MAX);
        framing.write_header(packet_bytes, out);
        head.write(out);
        out.extend_from_slice(self.content.payload);
        Some(packet_bytes)
    }
}

/// The topic in a PUBLISH packet of this server that names its topic, in the frame of the connection.
pub(in crate::cores) fn topic_in(frame: &[u8], framing: Framing) -> &[u8] {
    let topic = || {
        let (_, rest) = framing.message_in(frame).split_first()?;
        let (length, rest) = rest.get(length_bytes(rest)..)?.split_first_chunk()?;
        rest.get(..usize::from(u16::from_be_bytes(*length)))
    };
    topic().unwrap_or_default()
}

/// How many bytes the Remaining Length takes at the beginning.
fn length_bytes(bytes: &[u8]) -> usize {
    1 + bytes.iter().take_while(|&&byte| byte & 0x80 != 0).count()
}

/// Appends PUBREL, in the frame of the connection.
pub(in crate::cores) fn write_release(packet_id: u16, version: Version, framing: Framing, out: &mut Vec<u8>) {
    let Some(packet_id) = NonZeroU16::new(packet_id) else {
        return;
    };
    framing.write_header(RELEASE_BYTES, out);
    let before = out.len();
    ack(
        out,
        version,
        AckKind::PubRel,
        packet_id,
        ReasonCode::Success,
        None,
    );
    debug_assert_eq!(out.len() - before, RELEASE_BYTES);
}

/// The seconds until a publication expires. A packet that was sent before is sent again even if it has
/// expired.
fn remaining_s(expires_at: u64, unix_ms: u64) -> u32 {
    let seconds = expires_at.saturating_sub(unix_ms).div_ceil(1000);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// SocketCluster has no QoS. A client that publishes with a call gets an answer, which corresponds to "at
/// least once".
const QOS_OF_SOCKETCLUSTER: u8 = 1;
/// How much larger an alias makes a packet.
pub(in crate::cores) const ALIAS_BYTES: usize = 3;
/// PUBREL without a reason code.
const RELEASE_BYTES: usize = 4;
const FRAME_HEADER_BYTES_MAX: usize = 10;
/// The parts of a packet beside the topic, the properties that are passed on and the payload: the frame header, the
/// fixed header, the length of the topic, the packet identifier, the length of the properties, and the properties of the
/// server.
const HEAD_BYTES_MAX: usize = FRAME_HEADER_BYTES_MAX + 5 + 2 + 2 + 4 + 2 + 5 + ALIAS_BYTES;
/// A column whose packet grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content<'_> = Content {
        topic: b"a/b",
        properties: b"\x26\x00\x01k\x00\x01v",
        payload: b"21",
        expires_at: Some(61_000),
        is_utf8: true,
        quotes: Quotes::Kept,
    };

    const ORIGINAL: Original<'_> = Original {
        topic: "a/b",
        content: CONTENT,
        qos: 2,
        retain: true,
        publisher: 0,
    };

    #[test]
    fn each_form_is_the_packet_that_is_written_for_one_subscriber() {
        let mut packets = Packets::default();
        for payload in [&b"21"[..], &[b'x'; 20_000], &[b'y'; 200]] {
            let content = Content { payload, ..CONTENT };
            let original = Original { content, ..ORIGINAL };
            packets.end_publication();
            for version in [Version::V3, Version::V4, Version::V5] {
                for framing in [Framing::Mqtt, Framing::MqttOverWebSocket] {
                    for qos in 0..3 {
                        let form = PacketForm::new(version, framing, qos);
                        let packed = packets.packet(form, &original, 1000).unwrap();
                        let mut shared = Vec::new();
                        match qos {
                            0 => shared.extend_from_slice(packed.bytes),
                            _ => packed.write(0x1234, &mut shared),
                        }
                        let packet = PublishPacket {
                            version,
                            topic: "a/b",
                            content: &content,
                            outbound: Outbound { qos, retain: false },
                            packet_id: 0x1234,
                            dup: false,
                            ids: &[],
                            alias: None,
                            unix_ms: 1000,
                        };
                        let mut alone = Vec::new();
                        let packet_bytes = packet.write(framing, &mut alone).unwrap();
                        assert_eq!(shared, alone, "{form:?}");
                        assert_eq!(packed.packet_bytes, packet_bytes);
                        assert_eq!(framing.next_len(&alone), Some(alone.len()));
                        assert_eq!(topic_in(&alone, framing), b"a/b");
                    }
                }
            }
        }
    }

    #[test]
    fn what_expires_soon_says_how_soon_and_never_zero() {
        for (expires_at, seconds) in [
            (61_000, 60),
            (60_001, 60),
            (1001, 1),
            (1000, 1),
            (0, 1),
            (u64::MAX, u32::MAX),
        ] {
            assert_eq!(remaining_s(expires_at, 1000), seconds);
        }
    }
}
