//! A publication: a payload with facts, in the frame that its publisher's protocol made of it.
//!
//! ```text
//!   buffer  [ time, kind, origin 8 | channel length 4 | payload length 4 | channel … | frame: … payload … ]
//! ```
//! The publisher writes one buffer once, and every core reads it in place: one pointer leads to all of it. A core that
//! is not interested needs the hash only, which is in the slot, and never touches these bytes.
//!
//! The publisher's core encodes the frame once, and subscribers of the same protocol are sent just these bytes. The
//! buffer also says where in the frame the payload lies, what it is, and whose frame it is. So a reading core can make
//! another form of the publication for the subscribers that need one (`cores/outgoing/forms.rs`).
//!
//! Invariant: a channel's name and a frame are shorter than 4 GiB each. Kept by the caller of [`write`]: both come from
//! decisions, whose bytes are fewer.

/// Bytes before the channel's name.
const HEADER_BYTES: usize = 16;
/// Where in the header the lengths stand, counted in numbers of 32 bits.
const CHANNEL_BYTES_AT: usize = 2;
const PAYLOAD_BYTES_AT: usize = 3;
/// The lowest byte of the time holds the kind and the origin: a publication is timed to 256 ns.
const TIME_MASK: u64 = !0xff;
const ORIGIN_SHIFT: u32 = 4;
const NIBBLE: u64 = 0xf;

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
}

/// The protocol of a publication's publisher: its frame is a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The frame is a WebSocket text frame with a `#publish` packet.
    SocketCluster,
}

impl Origin {
    /// How many bytes of each frame lie behind the payload.
    const fn bytes_behind_payload(self) -> usize {
        match self {
            Origin::SocketCluster => b"}}".len(),
        }
    }
}

/// The facts of a publication that the publisher knows, besides its channel and its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it was published, by the publisher's clock in nanoseconds.
    pub at_ns: u64,
    /// The kind of the payload.
    pub kind: Kind,
    /// Whose frame it is.
    pub origin: Origin,
    /// The payload's length. Where in the frame it ends follows from the origin.
    pub payload_bytes: u32,
}

/// A publication, read in place in the memory of the core that published it.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    sequence: Sequence,
    buffer: &'a [u8],
}

impl<'a> Publication<'a> {
    /// A view of what [`write`] wrote.
    pub(crate) fn new(sequence: Sequence, buffer: &'a [u8]) -> Publication<'a> {
        Publication { sequence, buffer }
    }

    /// Its place in the order.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The channel's name.
    pub fn channel(&self) -> &'a [u8] {
        &self.buffer[HEADER_BYTES..self.frame_start()]
    }

    /// One whole frame, as subscribers of the publisher's protocol get it.
    pub fn frame(&self) -> &'a [u8] {
        &self.buffer[self.frame_start()..]
    }

    /// The data that the publisher published, without the frame around it.
    pub fn payload(&self) -> &'a [u8] {
        let frame = self.frame();
        let end = frame.len().saturating_sub(self.origin().bytes_behind_payload());
        &frame[end.saturating_sub(self.length(PAYLOAD_BYTES_AT) as usize)..end]
    }

    /// The kind of the payload.
    pub fn kind(&self) -> Kind {
        match self.first_word() & NIBBLE {
            0 => Kind::Json,
            other => unreachable!("kind {other}, which `write` has never written"),
        }
    }

    /// Whose frame it is.
    pub fn origin(&self) -> Origin {
        match self.first_word() >> ORIGIN_SHIFT & NIBBLE {
            0 => Origin::SocketCluster,
            other => unreachable!("origin {other}, which `write` has never written"),
        }
    }

    /// When it was published, by the publisher's clock in nanoseconds, rounded down to a multiple of 256.
    pub fn at_ns(&self) -> u64 {
        self.first_word() & TIME_MASK
    }

    fn frame_start(&self) -> usize {
        HEADER_BYTES + self.length(CHANNEL_BYTES_AT) as usize
    }

    /// Time, kind and origin.
    fn first_word(&self) -> u64 {
        let (words, _) = self.buffer.as_chunks();
        u64::from_ne_bytes(words[0])
    }

    fn length(&self, at: usize) -> u32 {
        let (numbers, _) = self.buffer.as_chunks();
        u32::from_ne_bytes(numbers[at])
    }
}

/// How many bytes [`write`] will write.
pub(crate) fn encoded_bytes(channel: &[u8], frame: &[&[u8]]) -> usize {
    HEADER_BYTES + channel.len() + frame.iter().map(|part| part.len()).sum::<usize>()
}

/// Writes a publication into an empty buffer, gathering the parts of its frame.
pub(crate) fn write(buffer: &mut Vec<u8>, facts: Facts, channel: &[u8], frame: &[&[u8]]) {
    let first = facts.at_ns & TIME_MASK | facts.kind as u64 | (facts.origin as u64) << ORIGIN_SHIFT;
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
        }
    }
}
