//! Publications that wait in the outboxes of many: written once, sent to each from the same memory.
//!
//! An outbox holds a [`Span`] of a buffer here until it has been sent. Publications of one channel lie behind one another,
//! so that those which follow before the first has left make the span of a subscriber longer, and leave with the same
//! system call. A subscriber of several channels, or one that is answered meanwhile, copies its span to a buffer of its
//! own, as does one whose socket does not take all of it: a slow subscriber pins nothing here.
//!
//! Invariants
//! 1. The bytes of a span do not change while somebody holds it.
//! 2. A buffer that nobody holds a span of is empty.
//!
//! Limits: [`BUFFERS`] of [`BUFFER_BYTES_MAX`], or of one publication that is larger; what has no room is copied.

/// The buffers of one core.
#[derive(Debug)]
pub(super) struct Shared {
    buffers: Box<[Buffer]>,
}

#[derive(Clone, Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// How many spans of it are held.
    held: u32,
}

/// Whole frames that lie behind one another in one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    buffer: u32,
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Both together, if `next` begins where this ends.
    pub(super) fn join(self, next: Span) -> Option<Span> {
        let joined = Span {
            end: next.end,
            ..self
        };
        (self.buffer == next.buffer && self.end == next.start).then_some(joined)
    }
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            buffers: vec![Buffer::default(); BUFFERS as usize].into(),
        }
    }
}

impl Shared {
    /// Writes a whole frame, which the caller holds once from then on. `None` if there is no room now.
    pub(super) fn write(&mut self, channel: u32, frame: &[u8]) -> Option<Span> {
        // Channels that meet in a buffer only keep each other's spans from growing.
        let number = channel % BUFFERS;
        let buffer = &mut self.buffers[number as usize];
        if buffer.held > 0 && buffer.bytes.len() + frame.len() > BUFFER_BYTES_MAX {
            return None;
        }
        let start = u32::try_from(buffer.bytes.len()).ok()?;
        let end = u32::try_from(buffer.bytes.len() + frame.len()).ok()?;
        buffer.bytes.extend_from_slice(frame);
        buffer.held += 1;
        Some(Span {
            buffer: number,
            start,
            end,
        })
    }

    /// Holds a span that somebody holds, once more.
    pub(super) fn hold(&mut self, span: Span) {
        self.buffers[span.buffer as usize].held += 1;
    }

    /// Holds a span once less.
    pub(super) fn let_go(&mut self, span: Span) {
        let buffer = &mut self.buffers[span.buffer as usize];
        buffer.held -= 1;
        if buffer.held == 0 {
            buffer.bytes.clear();
            buffer.bytes.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// What a span names.
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.buffers[span.buffer as usize].bytes[span.start as usize..span.end as usize]
    }

    /// How many spans are held in all.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.held as usize).sum()
    }
}

/// As many channels can be published to at a time without copying.
const BUFFERS: u32 = 256;
/// Of one buffer: half of a first-level cache, since it is read once for each subscriber.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// What a buffer keeps while it is empty; a mebibyte for all.
const BUFFER_BYTES_KEPT: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_of_a_channel_lie_behind_one_another_until_nobody_holds_any() {
        let mut shared = Shared::default();
        let first = shared.write(7, b"one").unwrap();
        let other = shared.write(8, b"other").unwrap();
        let second = shared.write(7, b"two").unwrap();
        assert_eq!(first.join(other), None);
        assert_eq!(second.join(first), None);
        let both = first.join(second).unwrap();
        assert_eq!((shared.bytes(both), both.len()), (&b"onetwo"[..], 6));
        shared.hold(both);
        shared.let_go(first);
        shared.let_go(second);
        assert_eq!(shared.bytes(both), b"onetwo");
        shared.let_go(both);
        assert_eq!(shared.held(), 1);
        let again = shared.write(7, b"again").unwrap();
        assert_eq!((again.start, shared.bytes(again)), (0, &b"again"[..]));
        assert_eq!(shared.bytes(other), b"other");
    }

    #[test]
    fn a_buffer_that_is_held_grows_no_further_than_its_limit_and_an_empty_one_takes_a_frame_of_any_size() {
        let mut shared = Shared::default();
        let large = vec![1; 10 * BUFFER_BYTES_MAX];
        let held = shared.write(0, &large).unwrap();
        assert_eq!(shared.write(0, b"more"), None);
        shared.let_go(held);
        assert!(shared.buffers[0].bytes.capacity() <= BUFFER_BYTES_KEPT);
        let held = shared.write(0, &large[..BUFFER_BYTES_MAX - 4]).unwrap();
        assert!(shared.write(0, b"more").is_some());
        assert_eq!(shared.write(0, b"!"), None);
        // Another channel of the same buffer.
        assert_eq!(shared.write(BUFFERS, b"!"), None);
        assert!(shared.write(1, b"!").is_some());
        assert_eq!(shared.bytes(held), &large[..BUFFER_BYTES_MAX - 4]);
    }
}
