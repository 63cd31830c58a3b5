//! One encoded frame, its channel, its place in the order.
//!
//! ```text
//!   buffer  [ at_ns 8 | channel length 8 | channel … | frame … ]
//! ```
//! One buffer, written once by the producer and read in place by every core: following one pointer, a reader has all
//! of it. What an uninterested core needs (the hash) is in the slot instead, so it never touches these bytes.

/// Bytes before the channel's name.
const HEADER_BYTES: usize = 16;

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

    /// The bytes that each subscriber gets: one whole encoded frame.
    pub fn frame(&self) -> &'a [u8] {
        &self.buffer[self.frame_start()..]
    }

    /// When it was published, by the publisher's clock in nanoseconds.
    pub fn at_ns(&self) -> u64 {
        self.word(0)
    }

    fn frame_start(&self) -> usize {
        let channel_bytes =
            usize::try_from(self.word(1)).expect("the length of a slice, as `write` wrote it");
        HEADER_BYTES + channel_bytes
    }

    fn word(&self, index: usize) -> u64 {
        let (words, _) = self.buffer.as_chunks();
        u64::from_ne_bytes(words[index])
    }
}

/// How many bytes [`write`] will write.
pub(crate) fn encoded_bytes(channel: &[u8], frame: &[&[u8]]) -> usize {
    HEADER_BYTES + channel.len() + frame.iter().map(|part| part.len()).sum::<usize>()
}

/// Writes a publication into an empty buffer, gathering the parts of its frame.
pub(crate) fn write(buffer: &mut Vec<u8>, at_ns: u64, channel: &[u8], frame: &[&[u8]]) {
    buffer.extend_from_slice(&at_ns.to_ne_bytes());
    buffer.extend_from_slice(&(channel.len() as u64).to_ne_bytes());
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
        for (channel, frame) in [
            (&b"news"[..], &[&b"\x81\x02"[..], b"", b"hi"][..]),
            (b"", &[b"x"]),
            (b"c", &[]),
            (b"", &[]),
        ] {
            let mut buffer = Vec::new();
            write(&mut buffer, 7, channel, frame);
            assert_eq!(buffer.len(), encoded_bytes(channel, frame));
            let publication = Publication::new(Sequence(3), &buffer);
            assert_eq!(publication.channel(), channel);
            assert_eq!(publication.frame(), frame.concat());
            assert_eq!((publication.at_ns(), publication.sequence().as_u64()), (7, 3));
        }
    }
}
