//! A publication: a payload and facts about it, in a frame of its publisher's protocol.
//!
//! ```text
//!   buffer  [ time, kind, origin, marks, retain 8 | channel length 4 | payload length 4 | channel … | frame: … payload … ]
//! ```
//! The publisher writes one buffer once, and every core reads it in place: one pointer leads to all of it. A core that
//! is not interested needs the hash only, which is in the slot, and never touches these bytes.
//!
//! The publisher's core encodes the frame once, and subscribers of the same protocol are sent these very
//! bytes. The buffer also says where in the frame the payload lies, its kind, and the protocol of the frame.
//! So a reading core can make another form of the publication for the subscribers that need one
//! (`cores/outgoing/forms.rs`).
//!
//! The frame of a publication with [`Marks`] has blanks, into which more is written later without moving a
//! byte:
//!
//! ```text
//!   {"event":"#publish","data":{"channel":"x","position":{"epoch":"k3j9x0ab","offset":123             }                ,"data":…}}
//!                                                                                    └ its offset: 16 ┘ └ replayed: 16 ┘
//! ```
//! The publisher of the ring writes the offset once the place in the order is known ([`write_offset`]). A
//! history writes `,"replayed":true` over the other blanks. Both are found from the end of the frame.
//!
//! The frame of an MQTT client's publication is not a packet of MQTT, since the packets that subscribers get
//! differ in too many fields. The frame consists of the facts that MQTT passes on, and then the payload
//! (`mqtt/publication.rs`). It has no blanks: the core that makes its SocketCluster form knows its position.
//!
//! Invariant: a channel's name and a frame are shorter than 4 GiB each. Kept by the caller of [`write()`]. Both
//! come from decisions, whose bytes are fewer, or from an MQTT packet, which has fewer than 256 MiB and grows
//! to at most six times as much.

use std::ops::Range;

/// Bytes before the channel's name.
const HEADER_BYTES: usize = 16;
/// Where in the header the lengths stand, counted in numbers of 32 bits.
const CHANNEL_BYTES_AT: usize = 2;
const PAYLOAD_BYTES_AT: usize = 3;
/// The lowest byte of the time holds the kind, the origin, the marks and whether it is retained. So a
/// publication is timed to 256 ns.
const TIME_MASK: u64 = !0xff;
const KIND_MASK: u64 = 0b11;
const ORIGIN_SHIFT: u32 = 2;
const ORIGIN_MASK: u64 = 0b111;
const REMEMBERED: u64 = 1 << 5;
const POSITIONED: u64 = 1 << 6;
const RETAIN: u64 = 1 << 7;

/// The length of the field in which an offset is written: offsets have at most 16 digits (2^53), and blanks follow.
pub const OFFSET_BYTES: usize = 16;
/// The length of the blanks that become `,"replayed":true`.
pub const BLANKS: usize = 16;

/// The place of a publication in the one total order of all publications. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub(crate) u64);

impl Sequence {
    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The place behind this one.
    pub const fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// The kind of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON text, or nothing: SocketCluster clients may publish without data.
    Json,
    /// Bytes whose meaning only the clients know.
    Opaque,
}

/// The protocol of a publication's publisher: its frame is a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The frame is a WebSocket text frame with a `#publish` packet.
    SocketCluster,
    /// The frame is in the form that `mqtt/publication.rs` writes.
    Mqtt,
}

impl Origin {
    /// Its number in a store: it never changes.
    pub const fn number(self) -> u8 {
        match self {
            Origin::SocketCluster => 0,
            Origin::Mqtt => 1,
        }
    }

    /// The origin with this number in a store.
    pub const fn of_number(number: u8) -> Option<Origin> {
        match number {
            0 => Some(Origin::SocketCluster),
            1 => Some(Origin::Mqtt),
            _ => None,
        }
    }

    /// How many bytes of each frame lie behind the payload.
    const fn bytes_behind_payload(self) -> usize {
        match self {
            Origin::SocketCluster => b"}}".len(),
            Origin::Mqtt => 0,
        }
    }

    /// The payload in a frame of this protocol.
    pub(crate) fn payload(self, frame: &[u8], payload_bytes: usize) -> &[u8] {
        let end = frame.len().saturating_sub(self.bytes_behind_payload());
        &frame[end.saturating_sub(payload_bytes)..end]
    }

    /// How many bytes of a frame with marks lie behind its blanks; `None` if frames of this protocol have no blanks.
    const fn bytes_behind_blanks(self, payload_bytes: usize) -> Option<usize> {
        match (self, payload_bytes) {
            // The member for the payload is absent.
            (Origin::SocketCluster, 0) => Some(self.bytes_behind_payload()),
            (Origin::SocketCluster, _) => {
                Some(b",\"data\":".len() + payload_bytes + self.bytes_behind_payload())
            }
            (Origin::Mqtt, _) => None,
        }
    }
}

/// The properties that the policy of a channel gives to its publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The owner of the channel remembers the publication.
    pub remembered: bool,
    /// The publication carries its position.
    pub positioned: bool,
}

impl Marks {
    /// Whether any mark is set. Then the frame has [`BLANKS`].
    pub const fn is_any(self) -> bool {
        self.remembered || self.positioned
    }

    const fn bits(self) -> u64 {
        ((self.remembered as u64) << REMEMBERED.trailing_zeros())
            | ((self.positioned as u64) << POSITIONED.trailing_zeros())
    }
}

/// The facts of a publication that the publisher knows, besides its channel and its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it was published, by the publisher's clock in nanoseconds.
    pub at_ns: u64,
    /// The kind of the payload.
    pub kind: Kind,
    /// The protocol of the frame.
    pub origin: Origin,
    /// The payload's length. The end of the payload in the frame follows from the origin.
    pub payload_bytes: u32,
    /// The marks by the policy of the channel.
    pub marks: Marks,
    /// Whether its publisher wants it to be the retained publication of the channel.
    pub retain: bool,
}

/// A publication, read in place in the memory of the core that published it.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    sequence: Sequence,
    buffer: &'a [u8],
}

impl<'a> Publication<'a> {
    /// A view of a buffer that [`write()`] has filled.
    pub(crate) fn new(sequence: Sequence, buffer: &'a [u8]) -> Publication<'a> {
        Publication { sequence, buffer }
    }

    /// The same publication in the form of another protocol, as [`Publication::write_translated`] has written it.
    pub(crate) fn translated(&self, buffer: &'a [u8]) -> Publication<'a> {
        Publication {
            sequence: self.sequence,
            buffer,
        }
    }

    /// Writes the same publication in the form of another protocol into an empty buffer, gathering the parts
    /// of its frame. `offset` is the offset in the publication's position.
    pub(crate) fn write_translated(
        &self,
        kind: Kind,
        origin: Origin,
        payload_bytes: usize,
        frame: &[&[u8]],
        offset: u64,
        buffer: &mut Vec<u8>,
    ) {
        let facts = Facts {
            at_ns: self.at_ns(),
            kind,
            origin,
            payload_bytes: u32::try_from(payload_bytes).expect("the invariant at the head"),
            marks: self.marks(),
            retain: self.is_retained(),
        };
        write(buffer, facts, self.channel(), frame);
        if facts.marks.positioned {
            write_offset(buffer, &facts, offset);
        }
    }

    /// Its place in the order.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The channel's name.
    #[inline]
    pub fn channel(&self) -> &'a [u8] {
        &self.buffer[HEADER_BYTES..self.frame_start()]
    }

    /// One whole frame, as subscribers of the publisher's protocol get it.
    #[inline]
    pub fn frame(&self) -> &'a [u8] {
        &self.buffer[self.frame_start()..]
    }

    /// The data that the publisher published, without the frame around it.
    pub fn payload(&self) -> &'a [u8] {
        self.origin().payload(self.frame(), self.payload_bytes() as usize)
    }

    /// The length of the payload.
    pub fn payload_bytes(&self) -> u32 {
        self.length(PAYLOAD_BYTES_AT)
    }

    /// Where in the frame the blanks are that become `,"replayed":true`.
    #[inline]
    pub fn blanks(&self) -> Option<Range<usize>> {
        let marks = self.first_word() & (REMEMBERED | POSITIONED);
        if marks == 0 {
            return None;
        }
        let behind = self.origin().bytes_behind_blanks(self.payload_bytes() as usize)?;
        let end = self.frame().len().checked_sub(behind)?;
        Some(end.checked_sub(BLANKS)?..end)
    }

    /// Whether the owner of the channel remembers it.
    #[inline]
    pub fn is_remembered(&self) -> bool {
        self.first_word() & REMEMBERED != 0
    }

    /// The marks by the policy of the channel.
    pub fn marks(&self) -> Marks {
        Marks {
            remembered: self.is_remembered(),
            positioned: self.first_word() & POSITIONED != 0,
        }
    }

    /// Whether its publisher wants it to be the retained publication of the channel.
    #[inline]
    pub fn is_retained(&self) -> bool {
        self.first_word() & RETAIN != 0
    }

    /// The kind of the payload.
    pub fn kind(&self) -> Kind {
        match self.first_word() & KIND_MASK {
            0 => Kind::Json,
            1 => Kind::Opaque,
            other => unreachable!("kind {other}, which `write` has never written"),
        }
    }

    /// The protocol of the frame.
    #[inline]
    pub fn origin(&self) -> Origin {
        match self.first_word() >> ORIGIN_SHIFT & ORIGIN_MASK {
            0 => Origin::SocketCluster,
            1 => Origin::Mqtt,
            other => unreachable!("origin {other}, which `write` has never written"),
        }
    }

    /// When it was published, by the publisher's clock in nanoseconds, rounded down to a multiple of 256.
    pub fn at_ns(&self) -> u64 {
        self.first_word() & TIME_MASK
    }

    #[inline]
    fn frame_start(&self) -> usize {
        HEADER_BYTES + self.length(CHANNEL_BYTES_AT) as usize
    }

    /// Time, kind, origin, marks and whether it is retained.
    #[inline]
    fn first_word(&self) -> u64 {
        let (words, _) = self.buffer.as_chunks();
        u64::from_ne_bytes(words[0])
    }

    #[inline]
    fn length(&self, at: usize) -> u32 {
        let (numbers, _) = self.buffer.as_chunks();
        u32::from_ne_bytes(numbers[at])
    }
}

/// How many bytes [`write()`] will write.
#[inline]
pub(crate) fn encoded_bytes(channel: &[u8], frame: &[&[u8]]) -> usize {
    HEADER_BYTES + channel.len() + frame.iter().map(|part| part.len()).sum::<usize>()
}

/// Writes a publication into an empty buffer, gathering the parts of its frame. Always inlined: as a separate
/// call, with the facts in memory, it cost 28 more instructions per publication.
#[inline(always)]
pub(crate) fn write(buffer: &mut Vec<u8>, facts: Facts, channel: &[u8], frame: &[&[u8]]) {
    let kind_and_origin = facts.kind as u64 | (facts.origin as u64) << ORIGIN_SHIFT;
    let retain = (facts.retain as u64) << RETAIN.trailing_zeros();
    let first = facts.at_ns & TIME_MASK | kind_and_origin | facts.marks.bits() | retain;
    let channel_bytes = u32::try_from(channel.len()).expect("the invariant at the head");
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&first.to_ne_bytes());
    header[8..12].copy_from_slice(&channel_bytes.to_ne_bytes());
    header[12..].copy_from_slice(&facts.payload_bytes.to_ne_bytes());
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(channel);
    for part in frame {
        buffer.extend_from_slice(part);
    }
}

/// Writes the offset into the field for it, in a buffer that [`write()`] has filled, if its frame has one.
pub(crate) fn write_offset(buffer: &mut [u8], facts: &Facts, offset: u64) {
    let Some(behind) = facts.origin.bytes_behind_blanks(facts.payload_bytes as usize) else {
        return;
    };
    let behind = behind + BLANKS + b"}".len();
    let end = buffer.len().saturating_sub(behind);
    let field = &mut buffer[end.saturating_sub(OFFSET_BYTES)..end];
    debug_assert!(field.iter().all(|&byte| byte == b' '), "the frame has room there");
    let mut text = itoa::Buffer::new();
    let digits = text.format(offset).as_bytes();
    // A number of 53 bits fits.
    if let Some(field) = field.get_mut(..digits.len()) {
        field.copy_from_slice(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for (channel, frame, payload) in [
            (&b"news"[..], &[&b"\x81\x07"[..], b"", b"{x:hi}}"][..], &b"hi"[..]),
            (b"news", &[b"{without}}"], b""),
            (b"", &[b"x"], b""),
            (b"c", &[], b""),
            (b"", &[], b""),
        ] {
            let mut buffer = Vec::new();
            let at_ns = u64::MAX - 256;
            let facts = Facts {
                at_ns,
                kind: Kind::Json,
                origin: Origin::SocketCluster,
                payload_bytes: u32::try_from(payload.len()).unwrap(),
                marks: Marks::default(),
                retain: false,
            };
            write(&mut buffer, facts, channel, frame);
            assert_eq!(buffer.len(), encoded_bytes(channel, frame));
            let publication = Publication::new(Sequence(3), &buffer);
            assert_eq!(publication.channel(), channel);
            assert_eq!(publication.frame(), frame.concat());
            assert_eq!(publication.payload(), payload);
            assert_eq!(publication.kind(), Kind::Json);
            assert_eq!(publication.origin(), Origin::SocketCluster);
            assert!((at_ns - 255..=at_ns).contains(&publication.at_ns()));
            assert_eq!(publication.sequence().as_u64(), 3);
            assert!(!publication.is_remembered() && publication.blanks().is_none());
        }
    }

    #[test]
    fn each_fact_is_read_whatever_the_others_are() {
        let both = [false, true];
        for (retain, remembered, positioned) in both
            .into_iter()
            .flat_map(|a| both.map(|b| both.map(|c| (a, b, c))).into_iter().flatten())
        {
            let marks = Marks {
                remembered,
                positioned,
            };
            let facts = Facts {
                at_ns: 512,
                kind: Kind::Opaque,
                origin: Origin::Mqtt,
                payload_bytes: 3,
                marks,
                retain,
            };
            let mut buffer = Vec::new();
            write(&mut buffer, facts, b"c", &[b"", b"head", b"\xff00"]);
            write_offset(&mut buffer, &facts, 7);
            let publication = Publication::new(Sequence(1), &buffer);
            assert_eq!(
                publication.frame(),
                b"head\xff00",
                "there is no field for an offset"
            );
            assert_eq!(publication.payload(), b"\xff00");
            assert_eq!(
                (publication.kind(), publication.origin()),
                (Kind::Opaque, Origin::Mqtt)
            );
            assert_eq!((publication.marks(), publication.is_retained()), (marks, retain));
            assert_eq!((publication.at_ns(), publication.blanks()), (512, None));
        }
    }

    #[test]
    fn marks_are_read_and_the_offset_stands_in_its_field() {
        let position = format!(r#","position":{{"epoch":"01234567","offset":{:16}}}"#, "");
        for (marks, payload) in
            [(true, true), (true, false), (false, true)]
                .into_iter()
                .flat_map(|(remembered, positioned)| {
                    let marks = Marks {
                        remembered,
                        positioned,
                    };
                    [(marks, "[1]"), (marks, "")]
                })
        {
            let position = if marks.positioned { &position } else { "" };
            let blanks = " ".repeat(BLANKS);
            let data = match payload {
                "" => String::new(),
                payload => format!(r#","data":{payload}"#),
            };
            let frame =
                format!(r##"??{{"event":"#publish","data":{{"channel":"c"{position}{blanks}{data}}}}}"##);
            let facts = Facts {
                at_ns: 256,
                kind: Kind::Json,
                origin: Origin::SocketCluster,
                payload_bytes: u32::try_from(payload.len()).unwrap(),
                marks,
                retain: false,
            };
            for (offset, digits) in [(0, "0"), (7, "7"), ((1 << 53) - 1, "9007199254740991")] {
                let mut buffer = Vec::new();
                write(&mut buffer, facts, b"c", &[frame.as_bytes()]);
                if marks.positioned {
                    write_offset(&mut buffer, &facts, offset);
                }
                let publication = Publication::new(Sequence(1), &buffer);
                assert_eq!(publication.is_remembered(), marks.remembered);
                assert_eq!(publication.payload(), payload.as_bytes());
                let expected = frame.replace(
                    &format!("\"offset\":{:16}}}", ""),
                    &format!("\"offset\":{digits:16}}}"),
                );
                assert_eq!(std::str::from_utf8(publication.frame()).unwrap(), expected);
                let mut replayed = publication.frame().to_vec();
                replayed[publication.blanks().unwrap()].copy_from_slice(b",\"replayed\":true");
                let replayed = String::from_utf8(replayed).unwrap();
                assert!(
                    replayed.contains(&format!(r#","replayed":true{data}}}}}"#)),
                    "{replayed}"
                );
            }
        }
    }
}
