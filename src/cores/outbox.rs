//! The bytes a connection still has to send.
//!
//! Filled by replies and by ring delivery, emptied by `flush`. What has come since the last flush lies behind one another
//! in one buffer and leaves with one system call. The buffer comes from the core's pool with the first byte and goes
//! back with the last, so an idle connection owns none.
//!
//! Invariants
//! 1. Bytes leave in the order they were queued; a frame is never split by another.
//! 2. After a write that the socket took only in part the outbox is `blocked`: the poll is edge-triggered and tells
//!    once when there is room again ([`Outbox::unblock`]).
//! 3. What is not here but waits in the stream (the records of TLS) is an empty buffer here: blocked, or to be flushed.
//! 4. `begun` counts the bytes at the front that belong to a frame already sent in part (or to the HTTP response head);
//!    whatever lies behind them can be discarded without breaking the stream.
//!
//! 4. Publications that were conflated come behind all bytes that were queued before they leave ([`Outbox::flush`] says
//!    when they do), and nothing else is published into the outbox while there are any ([`Outbox::takes`]).
//!
//! Copying was chosen over a gathered write of slices in the ring: a small frame costs less to copy (4 ns) than an
//! `iovec` costs the kernel, and a slow subscriber then pins nothing but its own bytes.
//!
//! Not here: which subscriber is skipped, conflated or closed when its outbox is full. That is `connections.rs`'s decision.

use std::io::{self, Write};

use crate::clock::Uptime;
use crate::websocket::frame;

use super::conflated::{Conflated, Conflation};

/// Empty, or a buffer of the pool.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queued: Option<Box<Queued>>,
}

#[derive(Debug)]
pub(super) struct Queued {
    bytes: Vec<u8>,
    /// How many of `bytes` have been sent.
    sent: usize,
    begun: usize,
    blocked: bool,
    /// Since when the socket has never taken all; `NEVER` if it has. For those who look.
    blocked_since: Uptime,
    /// What follows when all is sent.
    conflated: Option<Box<Conflated>>,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// All is sent.
    Empty,
    /// The socket took no more; the poll will tell when it does.
    Blocked,
    /// All is sent, and so many publications that were conflated are queued now.
    Refilled(usize),
}

/// Buffers of one core, waiting for their next use.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "the box itself is what is lent: an outbox is one pointer"
)]
pub(super) struct Pool {
    free: Vec<Box<Queued>>,
}

impl Outbox {
    /// Bytes not yet sent.
    pub(super) fn len(&self) -> usize {
        self.queued
            .as_ref()
            .map_or(0, |queued| queued.bytes.len() - queued.sent)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_none()
    }

    /// Whether so many bytes more are within its limit. An empty one takes any one frame.
    pub(super) fn takes(&self, bytes: usize, bytes_max: usize) -> bool {
        let Some(queued) = &self.queued else { return true };
        let waiting = queued.bytes.len() - queued.sent;
        queued.conflated.is_none() && (waiting == 0 || waiting + bytes <= bytes_max)
    }

    /// Keeps a publication that it does not take, as the newest of its channel.
    pub(super) fn conflate(&mut self, channel: u32, frame: &[u8], bytes_max: usize) -> Conflation {
        let queued = self
            .queued
            .as_mut()
            .expect("an outbox without a buffer takes anything");
        queued
            .conflated
            .get_or_insert_default()
            .keep(channel, frame, bytes_max)
    }

    /// What has been conflated and waits.
    pub(super) fn conflated(&self) -> Option<&Conflated> {
        self.queued.as_ref()?.conflated.as_deref()
    }

    /// Drops what waits of a channel.
    pub(super) fn forget_conflated(&mut self, channel: u32) {
        if let Some(queued) = &mut self.queued
            && let Some(conflated) = &mut queued.conflated
        {
            conflated.forget(channel);
            if conflated.len() == 0 {
                queued.conflated = None;
            }
        }
    }

    /// Drops all that has been conflated.
    pub(super) fn forget_all_conflated(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.conflated = None;
        }
    }

    /// Queues what has been conflated behind all that waits, now. Returns how many publications that is.
    pub(super) fn settle_conflated(&mut self) -> usize {
        self.queued.as_mut().map_or(0, |queued| queued.settle())
    }

    /// Since when the socket has never taken all that waits.
    pub(super) fn blocked_since(&self) -> Option<Uptime> {
        let since = self.queued.as_ref()?.blocked_since;
        (since != Uptime::NEVER).then_some(since)
    }

    /// A flush has found the socket full.
    pub(super) fn note_blocked(&mut self, now: Uptime) {
        if let Some(queued) = &mut self.queued
            && queued.blocked_since == Uptime::NEVER
        {
            queued.blocked_since = now;
        }
    }

    /// Whether the socket is known to take no more.
    pub(super) fn is_blocked(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.blocked)
    }

    /// Queues whole frames, written by `write`.
    pub(super) fn push(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.queued.get_or_insert_with(|| pool.take()).bytes);
    }

    /// Queues bytes that are no frame, before all frames: the response head.
    pub(super) fn push_head(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        let queued = self.queued.get_or_insert_with(|| pool.take());
        write(&mut queued.bytes);
        queued.begun = queued.bytes.len() - queued.sent;
    }

    /// Writes as much as the socket takes, with one call.
    pub(super) fn flush(&mut self, socket: &mut impl Write, pool: &mut Pool) -> io::Result<(usize, Flush)> {
        let Some(queued) = &mut self.queued else {
            return Ok((0, Flush::Empty));
        };
        let written = loop {
            match socket.write(&queued.bytes[queued.sent..]) {
                Ok(0) if queued.bytes.len() > queued.sent => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => break written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    queued.blocked = true;
                    return Ok((0, Flush::Blocked));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if queued.sent + written == queued.bytes.len() {
            if queued.conflated.is_some() {
                queued.reset();
                return Ok((written, Flush::Refilled(queued.settle())));
            }
            self.release(pool);
            return Ok((written, Flush::Empty));
        }
        queued.advance(written);
        queued.blocked = true;
        Ok((written, Flush::Blocked))
    }

    /// Has the poll told when the socket takes more, for something to send that is not here.
    pub(super) fn block(&mut self, pool: &mut Pool) {
        self.queued.get_or_insert_with(|| pool.take()).blocked = true;
    }

    /// The first `bytes` are on their way, though the socket has not taken all of them: the frames they belong to have
    /// begun to leave.
    pub(super) fn hold(&mut self, bytes: usize) {
        if let Some(queued) = &mut self.queued {
            queued.begun = queued.frame_end(queued.sent + bytes) - queued.sent;
        }
    }

    /// The poll says that the socket takes more.
    pub(super) fn unblock(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.blocked = false;
        }
    }

    /// Forgets all frames that have not begun to leave.
    pub(super) fn discard_unsent_frames(&mut self, pool: &mut Pool) {
        if let Some(queued) = &mut self.queued {
            queued.conflated = None;
            queued.bytes.truncate(queued.sent + queued.begun);
            queued.bytes.shrink_to_fit();
            if queued.begun == 0 {
                self.release(pool);
            }
        }
    }

    /// Gives the buffer back, sent or not.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        if let Some(queued) = self.queued.take() {
            pool.give(queued);
        }
    }
}

impl Queued {
    /// As it was when it came.
    fn reset(&mut self) {
        self.bytes.clear();
        (self.sent, self.begun, self.blocked) = (0, 0, false);
        self.blocked_since = Uptime::NEVER;
    }

    fn settle(&mut self) -> usize {
        let Some(conflated) = self.conflated.take() else {
            return 0;
        };
        let frames = conflated.into_frames();
        let count = frames.len();
        for frame in frames {
            self.bytes.extend_from_slice(&frame);
        }
        count
    }

    /// Counts `written` bytes as sent, and finds out how much of a frame has been begun.
    fn advance(&mut self, written: usize) {
        let end = self.sent + written;
        self.begun = self.frame_end(end) - end;
        self.sent = end;
        if self.sent >= COMPACT_AT {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Where the frame ends that reaches to `place` or beyond.
    fn frame_end(&self, place: usize) -> usize {
        let mut boundary = self.sent + self.begun;
        while boundary < place {
            let length =
                frame::next_frame_len(&self.bytes[boundary..]).expect("only whole frames are queued");
            boundary += length;
        }
        boundary
    }
}

impl Pool {
    fn take(&mut self) -> Box<Queued> {
        self.free.pop().unwrap_or_else(|| {
            Box::new(Queued {
                bytes: Vec::with_capacity(BUFFER_BYTES),
                sent: 0,
                begun: 0,
                blocked: false,
                blocked_since: Uptime::NEVER,
                conflated: None,
            })
        })
    }

    fn give(&mut self, mut queued: Box<Queued>) {
        if self.free.len() < POOLED_BUFFERS_KEPT && queued.bytes.capacity() <= POOLED_BYTES_MAX {
            queued.reset();
            queued.conflated = None;
            self.free.push(queued);
        }
    }
}

/// Sent bytes at the front are cut off when they are this many.
const COMPACT_AT: usize = 64 * 1024;
/// What a buffer begins with: a turn's small replies to one connection, without growing.
const BUFFER_BYTES: usize = 512;
/// As many buffers as publications may fill before some are flushed.
pub(super) const POOLED_BUFFERS_MAX: usize = 8192;
/// As many as a core keeps for the next turn: with all of them, twelve cores kept 48 MB after one publication to
/// everybody. To allocate and free one costs a hundredth of the write that empties it.
const POOLED_BUFFERS_KEPT: usize = 1024;
/// A buffer that grew past this is freed rather than kept.
const POOLED_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then blocks.
    struct Socket {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room);
            if written == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= written;
            self.taken.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An unmasked text frame with a short payload.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81, u8::try_from(payload.len()).unwrap()];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn bytes_leave_in_order_however_little_the_socket_takes() {
        for step in 1..20 {
            let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
            let mut wanted = Vec::new();
            let mut socket = Socket {
                taken: Vec::new(),
                room: 0,
            };
            for payload in [&b"one"[..], b"", b"three"] {
                wanted.extend(frame(payload));
                outbox.push(&mut pool, |bytes| bytes.extend(frame(payload)));
                socket.room = step;
                outbox.flush(&mut socket, &mut pool).unwrap();
            }
            while !outbox.is_empty() {
                assert!(outbox.is_blocked());
                outbox.unblock();
                socket.room = step;
                outbox.flush(&mut socket, &mut pool).unwrap();
            }
            assert_eq!(socket.taken, wanted);
        }
    }

    #[test]
    fn discarding_keeps_the_rest_of_a_frame_that_has_begun_to_leave() {
        for sent in 0..12 {
            let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
            outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
            outbox.push(&mut pool, |bytes| bytes.extend(frame(b"def")));
            let mut socket = Socket {
                taken: Vec::new(),
                room: sent,
            };
            let all = outbox.flush(&mut socket, &mut pool).unwrap().1 == Flush::Empty;
            assert_eq!(all, sent >= 10);
            outbox.discard_unsent_frames(&mut pool);
            outbox.push(&mut pool, |bytes| bytes.extend(frame(b"end")));
            socket.room = usize::MAX;
            outbox.flush(&mut socket, &mut pool).unwrap();
            let whole = |count| [frame(b"abc"), frame(b"def")].concat()[..count].to_vec();
            let begun = if sent == 0 {
                0
            } else if sent <= 5 {
                5
            } else {
                10
            };
            assert_eq!(
                socket.taken,
                [whole(begun), frame(b"end")].concat(),
                "{sent} bytes sent"
            );
        }
    }

    #[test]
    fn a_response_head_is_never_discarded_in_part() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.push_head(&mut pool, |bytes| bytes.extend(b"HTTP/1.1 101\r\n\r\n"));
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
        let mut socket = Socket {
            taken: Vec::new(),
            room: 4,
        };
        outbox.flush(&mut socket, &mut pool).unwrap();
        outbox.discard_unsent_frames(&mut pool);
        socket.room = 100;
        outbox.flush(&mut socket, &mut pool).unwrap();
        assert_eq!(socket.taken, b"HTTP/1.1 101\r\n\r\n");
    }

    #[test]
    fn an_empty_outbox_owns_no_buffer_and_the_pool_lends_it_again() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
        let mut socket = Socket {
            taken: Vec::new(),
            room: 100,
        };
        assert_eq!(outbox.flush(&mut socket, &mut pool).unwrap(), (5, Flush::Empty));
        assert!(outbox.is_empty());
        assert_eq!((size_of::<Outbox>(), pool.free.len()), (8, 1));
    }
}
