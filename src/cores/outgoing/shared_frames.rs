//! Frames of publications that all subscribers of a channel share: a core writes each once, and every outbox refers to
//! it.
//!
//! An outbox holds a [`FrameSpan`] of a buffer here until it has been sent. Short publications of one channel
//! lie behind one another. If a publication follows before the earlier ones have been sent, it makes the span
//! of a subscriber longer, and leaves with the same system call. An outbox copies its span to a buffer of its
//! own when publications of other channels or replies follow it, or when the socket does not take all of it.
//! So a slow subscriber keeps none of these buffers.
//!
//! A publication of [`ALONE_BYTES_MIN`] or more has a buffer alone, which exists as long as an outbox holds
//! it. Slow subscribers share it as well: when they did not, 200 subscribers that did not read publications
//! of 16 KB kept 200 copies of each, 2.5 GB in all; now they keep one.
//!
//! Invariants
//! 1. The bytes of a span do not change while an outbox or the delivery holds it.
//! 2. A buffer of which no span is held is empty, or freed.
//! 3. `lent_bytes` is the sum of the unsent bytes of all spans that outboxes hold; `alone_bytes` is the sum of the
//!    buffers of publications alone.
//!
//! Limits: [`BUFFERS`] of [`BUFFER_BYTES_MAX`] for short publications; a publication without room is copied
//! into each outbox. Publications alone count for `outbox_bytes_total_max` (`held_memory.rs`).

use crate::slab::Slab;

/// The buffers of one core.
#[derive(Debug)]
pub(in crate::cores) struct SharedFrames {
    buffers: Box<[Buffer; BUFFERS as usize]>,
    /// The buffers of publications alone. Their numbers come behind those of `buffers`.
    alone: Slab<Buffer>,
    lent_bytes: usize,
    alone_bytes: usize,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// How many spans of it are held.
    held: u32,
}

/// Whole frames that lie behind one another in one buffer, or the unsent rest of a publication alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct FrameSpan {
    buffer: u32,
    start: u32,
    end: u32,
}

impl FrameSpan {
    pub(in crate::cores) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it is a publication alone in its buffer, and so may be held for any time.
    pub(in crate::cores) fn is_alone(self) -> bool {
        self.buffer >= BUFFERS
    }

    /// Both spans as one, if `next` begins where this one ends.
    fn join(self, next: FrameSpan) -> Option<FrameSpan> {
        let joined = FrameSpan {
            end: next.end,
            ..self
        };
        (self.buffer == next.buffer && self.end == next.start).then_some(joined)
    }
}

impl Default for SharedFrames {
    fn default() -> SharedFrames {
        SharedFrames {
            buffers: Box::new(std::array::from_fn(|_| Buffer::default())),
            alone: Slab::new(),
            lent_bytes: 0,
            alone_bytes: 0,
        }
    }
}

impl SharedFrames {
    /// Writes a whole frame, which the delivery holds until [`SharedFrames::finish`]. `None` if there is no room now.
    pub(in crate::cores) fn write(&mut self, channel: u32, frame: &[u8]) -> Option<FrameSpan> {
        self.write_with(channel, frame.len(), |bytes| bytes.extend_from_slice(frame))
    }

    /// The same for a frame that `write` appends, of at most `bytes_max` bytes.
    #[inline]
    pub(in crate::cores) fn write_with(
        &mut self,
        channel: u32,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<FrameSpan> {
        if bytes_max >= ALONE_BYTES_MIN {
            let mut frame = Vec::with_capacity(bytes_max);
            write(&mut frame);
            return self.add_alone(frame);
        }
        // Two channels may share a buffer. The only effect is that each keeps the other's spans from growing.
        let number = channel % BUFFERS;
        let buffer = &mut self.buffers[number as usize];
        if buffer.held > 0 && buffer.bytes.len() + bytes_max > BUFFER_BYTES_MAX {
            return None;
        }
        let start = u32::try_from(buffer.bytes.len()).ok()?;
        write(&mut buffer.bytes);
        let end = u32::try_from(buffer.bytes.len()).ok()?;
        buffer.held += 1;
        Some(FrameSpan {
            buffer: number,
            start,
            end,
        })
    }

    fn add_alone(&mut self, frame: Vec<u8>) -> Option<FrameSpan> {
        let end = u32::try_from(frame.len()).ok()?;
        let number = u32::try_from(self.alone.vacant()).ok()?.checked_add(BUFFERS)?;
        self.alone_bytes += frame.len();
        self.alone.insert(Buffer {
            bytes: frame,
            held: 1,
        });
        Some(FrameSpan {
            buffer: number,
            start: 0,
            end,
        })
    }

    /// The publication has been delivered to all of its subscribers: from now on only outboxes hold it.
    pub(in crate::cores) fn finish(&mut self, span: FrameSpan) {
        self.release_bytes(span);
    }

    /// Counts one more outbox that holds a span, which is held already.
    #[inline]
    pub(in crate::cores) fn hold(&mut self, span: FrameSpan) {
        self.lent_bytes += span.len();
        self.buffer_mut(span).held += 1;
    }

    /// Appends the span `next` to the span of an outbox; false if `next` does not lie directly behind it.
    #[inline]
    pub(in crate::cores) fn extend(&mut self, span: &mut FrameSpan, next: FrameSpan) -> bool {
        let Some(joined) = span.join(next) else {
            return false;
        };
        self.lent_bytes += next.len();
        *span = joined;
        true
    }

    /// The first `count` bytes of a span that an outbox holds have been sent.
    pub(in crate::cores) fn advance(&mut self, span: &mut FrameSpan, count: usize) {
        debug_assert!(count <= span.len());
        self.lent_bytes -= count;
        span.start += u32::try_from(count).unwrap_or(0);
    }

    /// Only the first `count` bytes of a span that an outbox holds will be sent.
    pub(in crate::cores) fn cut(&mut self, span: &mut FrameSpan, count: usize) {
        let end = span.start + u32::try_from(count.min(span.len())).unwrap_or(0);
        self.lent_bytes -= (span.end - end) as usize;
        span.end = end;
    }

    /// An outbox holds a span no longer.
    #[inline]
    pub(in crate::cores) fn release(&mut self, span: FrameSpan) {
        self.lent_bytes -= span.len();
        self.release_bytes(span);
    }

    #[inline]
    fn release_bytes(&mut self, span: FrameSpan) {
        let buffer = self.buffer_mut(span);
        buffer.held -= 1;
        if buffer.held == 0 {
            self.empty(span);
        }
    }

    #[inline(never)]
    fn empty(&mut self, span: FrameSpan) {
        let buffer = self.buffer_mut(span);
        if span.is_alone() {
            self.alone_bytes -= buffer.bytes.len();
            self.alone.remove((span.buffer - BUFFERS) as usize);
        } else {
            buffer.bytes.clear();
            buffer.bytes.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    #[inline]
    fn buffer_mut(&mut self, span: FrameSpan) -> &mut Buffer {
        if span.is_alone() {
            &mut self.alone[(span.buffer - BUFFERS) as usize]
        } else {
            &mut self.buffers[span.buffer as usize]
        }
    }

    /// The bytes of a span.
    #[inline]
    pub(in crate::cores) fn bytes(&self, span: FrameSpan) -> &[u8] {
        let buffer = if span.is_alone() {
            &self.alone[(span.buffer - BUFFERS) as usize]
        } else {
            &self.buffers[span.buffer as usize]
        };
        &buffer.bytes[span.start as usize..span.end as usize]
    }

    /// Bytes of spans that outboxes hold and have not sent: a byte counts once for each outbox that holds it.
    pub(in crate::cores) fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Bytes of the publications alone: each counts once. The other buffers take 4 MiB at most.
    pub(in crate::cores) fn alone_bytes(&self) -> usize {
        self.alone_bytes
    }

    /// How many spans are held in all.
    #[cfg(test)]
    pub(in crate::cores) fn held(&self) -> usize {
        let alone = self.alone.iter().map(|(_, buffer)| buffer);
        let all = self.buffers.iter().chain(alone);
        all.map(|buffer| buffer.held as usize).sum()
    }
}

/// The number of buffers for short publications: this many channels can have publications under way without
/// copies.
const BUFFERS: u32 = 256;
/// Most bytes of one buffer: half of a first-level cache, since each subscriber's write reads it.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// The memory that an empty buffer keeps: a mebibyte for all together.
const BUFFER_BYTES_KEPT: usize = 4 * 1024;
/// From this length on, a publication has a buffer alone. A copy of a shorter one in the buffer of a slow subscriber
/// takes little more memory than a reference to it.
const ALONE_BYTES_MIN: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_of_a_channel_lie_behind_one_another_until_nobody_holds_any() {
        let mut shared = SharedFrames::default();
        let first = shared.write(7, b"one").unwrap();
        let other = shared.write(8, b"other").unwrap();
        let second = shared.write(7, b"two").unwrap();
        shared.hold(first);
        assert_eq!(first.join(other), None);
        assert_eq!(second.join(first), None);
        let mut both = first;
        assert!(!shared.extend(&mut both, other) && shared.extend(&mut both, second));
        assert_eq!((shared.bytes(both), both.len()), (&b"onetwo"[..], 6));
        shared.finish(first);
        shared.finish(second);
        assert_eq!((shared.bytes(both), shared.lent_bytes()), (&b"onetwo"[..], 6));
        shared.release(both);
        assert_eq!((shared.held(), shared.lent_bytes()), (1, 0));
        let again = shared.write(7, b"again").unwrap();
        assert_eq!((again.start, shared.bytes(again)), (0, &b"again"[..]));
        assert_eq!(shared.bytes(other), b"other");
    }

    #[test]
    fn a_buffer_that_is_held_grows_no_further_than_its_limit() {
        let mut shared = SharedFrames::default();
        let part = vec![1; BUFFER_BYTES_MAX / 8];
        for _ in 0..7 {
            assert!(shared.write(0, &part).is_some());
        }
        assert!(shared.write(0, &part[4..]).is_some());
        assert!(shared.write(0, b"more").is_some());
        assert_eq!(shared.write(0, b"!"), None);
        // Another channel of the same buffer.
        assert_eq!(shared.write(BUFFERS, b"!"), None);
        assert!(shared.write(1, b"!").is_some());
    }

    #[test]
    fn a_long_publication_is_there_once_for_all_who_hold_it_and_gone_with_the_last() {
        let mut shared = SharedFrames::default();
        let frames = [vec![1; ALONE_BYTES_MIN], vec![2; 10 * ALONE_BYTES_MIN]];
        let [first, second] = frames.each_ref().map(|frame| shared.write(7, frame).unwrap());
        assert!(first.is_alone() && second.is_alone());
        assert_eq!(shared.write(7, &frames[0][1..]).unwrap().buffer, 7, "a short one");
        let mut held: Vec<FrameSpan> = (0..100).map(|_| second).collect();
        held.iter().for_each(|&span| shared.hold(span));
        assert_eq!(shared.lent_bytes(), 1000 * ALONE_BYTES_MIN);
        assert_eq!(shared.alone_bytes(), 11 * ALONE_BYTES_MIN);
        shared.finish(first);
        shared.finish(second);
        assert_eq!(shared.alone_bytes(), 10 * ALONE_BYTES_MIN);
        // One outbox has sent a part of the span, and another will send no more than its beginning.
        shared.advance(&mut held[0], 5);
        shared.cut(&mut held[1], 3);
        assert_eq!(shared.bytes(held[0]), &frames[1][5..]);
        assert_eq!(shared.bytes(held[1]), &frames[1][..3]);
        held.iter().for_each(|&span| shared.release(span));
        assert_eq!((shared.lent_bytes(), shared.alone_bytes()), (0, 0));
        assert_eq!(shared.held(), 1);
    }
}
