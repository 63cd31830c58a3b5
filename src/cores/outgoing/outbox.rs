//! The bytes a connection still has to send.
//!
//! Replies and deliveries fill it, and `flush` empties it. All frames that were queued since the last flush lie behind
//! one another in one buffer and leave with one system call. While only publications of one channel wait, that buffer
//! is one that all of their subscribers share (`shared_frames.rs`). Otherwise it is a buffer from the core's pool,
//! which goes back with its last byte. An idle connection owns no buffer.
//!
//! ```text
//!   long backlog: earlier [ own 64 KiB | shared | shared | own ]   bytes [ newest ... ]
//!                            ▲ sent
//! ```
//! The backlog of a slow reader lies in pieces: a buffer that has grown to [`PIECE_BYTES`] is put behind the
//! earlier pieces and a new one begins; a long publication stays in the buffer that all of its subscribers
//! share. So bytes are moved at most once after they were queued, no matter how long the backlog is and how
//! little the socket takes at a time.
//!
//! Invariants
//! 1. Bytes leave in the order they were queued; a frame is never split by another.
//! 2. After a write that the socket took only in part the outbox is `blocked`: the poll is edge-triggered and tells
//!    once when there is room again ([`Outbox::unblock`]).
//! 3. TLS may hold encrypted records of its own. The outbox then has an empty buffer, so that it is still flushed, or
//!    marked blocked.
//! 4. `begun` counts the bytes at the front that belong to a frame already sent in part (or to the HTTP response head);
//!    the bytes behind them can be discarded without breaking the stream. A frame lies in one piece.
//! 5. Conflated publications are sent after all bytes that are queued in the outbox ([`Outbox::flush`] says
//!    when). While there are any, no other publication enters the outbox ([`Outbox::takes`]).
//! 6. A span that may hold several publications has never been sent in part: the outbox copies it before
//!    that. A publication alone in its buffer is never copied.
//!
//! Sharing instead of copying saved 10 to 14 % of the instructions of a delivery. It also saved the cache misses of a
//! thousand copies for a thousand subscribers: up to 8 % of the CPU time of a delivery, the kernel's included, where
//! caches are contended. A gathered write of slices in the ring was not possible: an `iovec` costs the kernel more than
//! copying a small frame (4 ns), and a slow subscriber would hold the ring.
//!
//! One file, since each transition of an outbox (empty, shared, own, blocked, in pieces) must keep all of these
//! invariants.
//! Not here: which subscriber is skipped, conflated or closed when its outbox is full. `publications.rs` decides that.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use crate::clock::Uptime;
use crate::protocols::Framing;

use crate::cores::outgoing::conflated::{Conflated, Conflation, Key};
use crate::cores::outgoing::shared_frames::{FrameSpan, SharedFrames};

/// The bytes that wait to be sent to one connection.
#[derive(Debug, Default)]
pub(in crate::cores) enum Outbox {
    #[default]
    Empty,
    /// Publications only, in a buffer that subscribers share. The socket is not known to be full.
    Shared(FrameSpan),
    /// Any bytes, in a buffer of its own.
    Own(Box<Queued>),
    /// No bytes, and it takes no publication: see [`Outbox::stop_publications`].
    Sealed,
}

#[derive(Debug)]
pub(in crate::cores) struct Queued {
    /// The pieces before `bytes`; none unless the backlog is long.
    earlier: VecDeque<Piece>,
    /// The bytes of all pieces in `earlier`, including the part of the first piece that has been sent.
    earlier_bytes: usize,
    bytes: Vec<u8>,
    /// How many bytes of the first piece have been sent; if there are no pieces, how many of `bytes`. A
    /// shared piece begins with its first unsent byte.
    sent: usize,
    begun: usize,
    blocked: bool,
    /// Whether no publication is taken: [`Outbox::stop_publications`].
    sealed: bool,
    /// The time since which the socket has not taken all waiting bytes; `NEVER` if the last flush sent
    /// everything. For reports.
    blocked_since: Uptime,
    /// The time by which the socket must have taken some bytes, or the peer acknowledged some that the socket
    /// took before.
    taken_by: Uptime,
    /// How many bytes the peer had not acknowledged when `taken_by` was set.
    unacknowledged: u32,
    /// The publications that follow when all bytes are sent.
    conflated: Option<Box<Conflated>>,
}

/// Whole frames of a long outbox.
#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    /// The frame of one publication.
    Shared(FrameSpan),
}

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Flush {
    /// All bytes are sent.
    Empty,
    /// The socket took no more; the poll reports when it does.
    Blocked,
    /// All bytes are sent, and this many conflated publications are queued now.
    Refilled(usize),
}

/// The buffers of one core's outboxes: the free ones, and the shared ones.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "the pool lends the box itself, since an outbox is one pointer"
)]
pub(in crate::cores) struct FramePool {
    free: Vec<Box<Queued>>,
    /// The smallest number of free buffers since the last [`FramePool::give_back`]: that many were not
    /// needed.
    unused: usize,
    /// The frames of publications that outboxes share.
    pub(in crate::cores) shared: SharedFrames,
}

impl Outbox {
    /// Bytes not yet sent.
    #[inline]
    pub(in crate::cores) fn len(&self) -> usize {
        match self {
            Outbox::Empty | Outbox::Sealed => 0,
            Outbox::Shared(span) => span.len(),
            Outbox::Own(queued) => queued.len(),
        }
    }

    /// Whether no bytes wait.
    pub(in crate::cores) fn is_empty(&self) -> bool {
        matches!(self, Outbox::Empty | Outbox::Sealed)
    }

    /// Whether there is room for `bytes` more below the limit `bytes_max`. An empty outbox takes any single
    /// frame.
    pub(in crate::cores) fn takes(&self, bytes: usize, bytes_max: usize) -> bool {
        match self {
            Outbox::Empty => true,
            Outbox::Shared(span) => span.len() + bytes <= bytes_max,
            Outbox::Own(queued) => {
                let waiting = queued.len();
                let has_room = waiting == 0 || waiting + bytes <= bytes_max;
                has_room && queued.conflated.is_none() && !queued.sealed
            }
            Outbox::Sealed => false,
        }
    }

    /// How many shared spans it holds.
    #[cfg(test)]
    pub(in crate::cores) fn spans_held(&self) -> usize {
        self.spans().count()
    }

    /// The bytes that it shares with other outboxes.
    #[cfg(test)]
    pub(in crate::cores) fn shared_bytes(&self) -> usize {
        self.spans().map(FrameSpan::len).sum()
    }

    #[cfg(test)]
    fn spans(&self) -> impl Iterator<Item = FrameSpan> {
        let own = match self {
            Outbox::Shared(span) => Some(*span),
            Outbox::Empty | Outbox::Own(_) | Outbox::Sealed => None,
        };
        let earlier = self.queued().into_iter().flat_map(|queued| &queued.earlier);
        own.into_iter().chain(earlier.filter_map(|piece| match piece {
            Piece::Own(_) => None,
            Piece::Shared(span) => Some(*span),
        }))
    }

    fn queued(&self) -> Option<&Queued> {
        match self {
            Outbox::Empty | Outbox::Shared(_) | Outbox::Sealed => None,
            Outbox::Own(queued) => Some(queued),
        }
    }

    fn queued_mut(&mut self) -> Option<&mut Queued> {
        match self {
            Outbox::Empty | Outbox::Shared(_) | Outbox::Sealed => None,
            Outbox::Own(queued) => Some(queued),
        }
    }

    /// The outbox's own buffer. If it has none, it gets one, which takes over its shared frames: short ones are
    /// copied, a publication alone becomes a piece.
    fn own(&mut self, pool: &mut FramePool) -> &mut Queued {
        if !matches!(self, Outbox::Own(_)) {
            let mut queued = pool.take();
            match *self {
                Outbox::Shared(span) => queued.keep(span, &mut pool.shared),
                Outbox::Sealed => queued.sealed = true,
                Outbox::Empty | Outbox::Own(_) => {}
            }
            *self = Outbox::Own(queued);
        }
        self.queued_mut().expect("it has been given one")
    }

    /// Keeps a publication for which it has no room, as the newest of its channel.
    pub(in crate::cores) fn conflate(&mut self, channel: Key, frame: &[u8], bytes_max: usize) -> Conflation {
        let queued = self.queued_mut().expect("its socket is full");
        queued
            .conflated
            .get_or_insert_default()
            .keep(channel, frame, bytes_max)
    }

    /// The conflated publications.
    pub(in crate::cores) fn conflated(&self) -> Option<&Conflated> {
        self.queued()?.conflated.as_deref()
    }

    /// The bytes of the conflated publications.
    pub(in crate::cores) fn conflated_bytes(&self) -> usize {
        self.conflated().map_or(0, Conflated::bytes)
    }

    /// Drops the conflated publication of a channel.
    pub(in crate::cores) fn forget_conflated(&mut self, channel: u32) {
        if let Some(queued) = self.queued_mut()
            && let Some(conflated) = &mut queued.conflated
        {
            conflated.forget(channel);
            if conflated.len() == 0 {
                queued.conflated = None;
            }
        }
    }

    /// Drops all conflated publications.
    pub(in crate::cores) fn forget_all_conflated(&mut self) {
        if let Some(queued) = self.queued_mut() {
            queued.conflated = None;
        }
    }

    /// Queues the conflated publications now, behind all waiting bytes. Returns how many there were.
    pub(in crate::cores) fn settle_conflated(&mut self) -> usize {
        self.queued_mut().map_or(0, Queued::settle)
    }

    /// The time since which the socket has not taken all waiting bytes.
    pub(in crate::cores) fn blocked_since(&self) -> Option<Uptime> {
        let since = self.queued()?.blocked_since;
        (since != Uptime::NEVER).then_some(since)
    }

    /// The span of the shared buffer, if only publications wait: then the socket is not known to be full.
    #[inline]
    pub(in crate::cores) fn shared(&self) -> Option<FrameSpan> {
        match self {
            Outbox::Shared(span) => Some(*span),
            Outbox::Empty | Outbox::Own(_) | Outbox::Sealed => None,
        }
    }

    /// Whether the socket was found full, and not all bytes have been sent since.
    #[inline]
    pub(in crate::cores) fn is_slow(&self) -> bool {
        self.queued()
            .is_some_and(|queued| queued.blocked_since != Uptime::NEVER)
    }

    /// Notes that a flush has found the socket full. True if it is the first since all bytes were sent.
    pub(in crate::cores) fn note_blocked(&mut self, now: Uptime) -> bool {
        let Some(queued) = self.queued_mut() else {
            return false;
        };
        let is_first = queued.blocked_since == Uptime::NEVER;
        if is_first {
            queued.blocked_since = now;
        }
        is_first
    }

    /// Sets the deadline by which the peer must have taken some bytes. `unacknowledged` is how many it has yet to
    /// acknowledge now.
    pub(in crate::cores) fn expect_progress(&mut self, by: Uptime, unacknowledged: u32) {
        if let Some(queued) = self.queued_mut() {
            (queued.taken_by, queued.unacknowledged) = (by, unacknowledged);
        }
    }

    /// The deadline by which the peer must have taken some bytes; `NEVER` unless the outbox is blocked.
    pub(in crate::cores) fn taken_by(&self) -> Uptime {
        match self.queued() {
            Some(queued) if queued.blocked => queued.taken_by,
            Some(_) | None => Uptime::NEVER,
        }
    }

    /// How many bytes the peer had not acknowledged when the deadline was set.
    pub(in crate::cores) fn unacknowledged(&self) -> u32 {
        self.queued().map_or(0, |queued| queued.unacknowledged)
    }

    /// Whether the socket is known to take no more.
    pub(in crate::cores) fn is_blocked(&self) -> bool {
        self.queued().is_some_and(|queued| queued.blocked)
    }

    /// Queues whole frames, written by `write`.
    pub(in crate::cores) fn push(&mut self, pool: &mut FramePool, write: impl FnOnce(&mut Vec<u8>)) {
        let queued = self.own(pool);
        queued.make_piece_of(PIECE_BYTES);
        write(&mut queued.bytes);
    }

    /// Replaces the frames that wait with the frames that `rewrite` makes of them. Does nothing if the socket
    /// is full, if some frames have begun to leave, if the backlog is in pieces, or if there are conflated
    /// publications.
    pub(in crate::cores) fn rewrite<'r>(
        &mut self,
        pool: &mut FramePool,
        rewrite: impl FnOnce(&[u8]) -> &'r [u8],
    ) {
        if self.is_empty() {
            return;
        }
        let queued = self.own(pool);
        let is_simple = !queued.blocked
            && queued.earlier.is_empty()
            && (queued.sent, queued.begun) == (0, 0)
            && queued.conflated.is_none();
        if is_simple {
            let frames = rewrite(&queued.bytes);
            queued.bytes.clear();
            queued.bytes.extend_from_slice(frames);
        }
    }

    /// Queues the frame of a publication in the usual case: the outbox is empty, or holds only publications that lie
    /// directly before this one in the shared buffer. Returns false, and changes nothing, in other cases and if the
    /// bytes would be over the limit.
    #[inline(always)]
    pub(in crate::cores) fn try_share(
        &mut self,
        shared: &mut SharedFrames,
        span: FrameSpan,
        bytes_max: usize,
    ) -> bool {
        match self {
            Outbox::Empty => {
                shared.hold(span);
                *self = Outbox::Shared(span);
                true
            }
            Outbox::Shared(before) => before.len() + span.len() <= bytes_max && shared.extend(before, span),
            Outbox::Own(_) | Outbox::Sealed => false,
        }
    }

    /// Makes the outbox take no publications any more, whether bytes wait or not: its connection has ended,
    /// and is still among the subscribers of some channels. Frames of other kinds are taken, and all waiting
    /// bytes are sent.
    pub(in crate::cores) fn stop_publications(&mut self, pool: &mut FramePool) {
        match self {
            Outbox::Empty => *self = Outbox::Sealed,
            Outbox::Shared(_) | Outbox::Own(_) => self.own(pool).sealed = true,
            Outbox::Sealed => {}
        }
    }

    /// Undoes [`Outbox::stop_publications`].
    pub(in crate::cores) fn resume_publications(&mut self) {
        match self {
            Outbox::Own(queued) => queued.sealed = false,
            Outbox::Sealed => *self = Outbox::Empty,
            Outbox::Empty | Outbox::Shared(_) => {}
        }
    }

    /// Whether the outbox takes no publications.
    pub(in crate::cores) fn takes_no_publications(&self) -> bool {
        match self {
            Outbox::Own(queued) => queued.sealed,
            Outbox::Sealed => true,
            Outbox::Empty | Outbox::Shared(_) => false,
        }
    }

    /// Queues the frame of a publication, which lies in the pool as `span`.
    pub(in crate::cores) fn push_shared(&mut self, pool: &mut FramePool, span: FrameSpan) {
        match self {
            Outbox::Empty => {
                pool.shared.hold(span);
                *self = Outbox::Shared(span);
                return;
            }
            Outbox::Shared(before) => {
                if pool.shared.extend(before, span) {
                    return;
                }
            }
            Outbox::Own(_) | Outbox::Sealed => {}
        }
        pool.shared.hold(span);
        self.own(pool);
        if let Outbox::Own(queued) = self {
            queued.keep(span, &mut pool.shared);
        }
    }

    /// A copy of the bytes that have not been sent.
    pub(in crate::cores) fn unsent(&self, pool: &FramePool) -> Vec<u8> {
        match self {
            Outbox::Empty | Outbox::Sealed => Vec::new(),
            Outbox::Shared(span) => pool.shared.bytes(*span).to_vec(),
            Outbox::Own(queued) => {
                let pieces = queued.earlier.iter().map(|piece| piece.bytes(&pool.shared));
                let mut bytes: Vec<u8> = pieces.chain([&queued.bytes[..]]).flatten().copied().collect();
                bytes.drain(..queued.sent);
                bytes
            }
        }
    }

    /// Queues bytes that are no frame, before all frames: the response head.
    pub(in crate::cores) fn push_head(&mut self, pool: &mut FramePool, write: impl FnOnce(&mut Vec<u8>)) {
        let queued = self.own(pool);
        debug_assert!(queued.earlier.is_empty(), "heads come before anything long");
        write(&mut queued.bytes);
        queued.begun = queued.bytes.len() - queued.sent;
    }

    /// Writes as much as the socket takes: with one call, unless the bytes lie in many pieces.
    pub(in crate::cores) fn flush(
        &mut self,
        framing: Framing,
        socket: &mut impl Write,
        pool: &mut FramePool,
    ) -> io::Result<(usize, Flush)> {
        let waiting = match self {
            Outbox::Empty | Outbox::Sealed => return Ok((0, Flush::Empty)),
            Outbox::Shared(span) => pool.shared.bytes(*span),
            Outbox::Own(queued) if queued.earlier.is_empty() => &queued.bytes[queued.sent..],
            Outbox::Own(_) => return self.flush_pieces(framing, socket, pool),
        };
        let count = waiting.len();
        let written = write_some(socket, waiting)?;
        if written == Some(count) {
            return Ok((count, self.all_is_sent(pool)));
        }
        Ok(self.block_after(written, framing, pool))
    }

    /// [`Outbox::flush`] for an outbox that holds only publications, which lie in the pool as `span`.
    #[inline]
    pub(in crate::cores) fn flush_shared(
        &mut self,
        span: FrameSpan,
        framing: Framing,
        socket: &mut impl Write,
        pool: &mut FramePool,
    ) -> io::Result<(usize, Flush)> {
        debug_assert!(matches!(self, Outbox::Shared(own) if *own == span));
        let written = write_some(socket, pool.shared.bytes(span))?;
        if written == Some(span.len()) {
            pool.shared.release(span);
            *self = Outbox::Empty;
            return Ok((span.len(), Flush::Empty));
        }
        Ok(self.block_after(written, framing, pool))
    }

    /// Notes that the socket has taken only `written` bytes of the first piece. The poll reports when it takes more.
    #[cold]
    fn block_after(
        &mut self,
        written: Option<usize>,
        framing: Framing,
        pool: &mut FramePool,
    ) -> (usize, Flush) {
        let queued = self.own(pool);
        queued.blocked = true;
        if let Some(written) = written {
            queued.advance(written, framing, &mut pool.shared);
        }
        (written.unwrap_or(0), Flush::Blocked)
    }

    #[cold]
    fn flush_pieces(
        &mut self,
        framing: Framing,
        socket: &mut impl Write,
        pool: &mut FramePool,
    ) -> io::Result<(usize, Flush)> {
        let queued = self.own(pool);
        let mut sent = 0;
        while queued.len() > 0 {
            let written = queued.write_pieces(socket, &pool.shared)?.unwrap_or(0);
            sent += written;
            // If the last written byte is the last of a piece, the writer may not have looked at the next
            // piece.
            let ends_within = queued.advance(written, framing, &mut pool.shared);
            if written == 0 || ends_within {
                queued.blocked = true;
                return Ok((sent, Flush::Blocked));
            }
        }
        Ok((sent, self.all_is_sent(pool)))
    }

    #[inline]
    fn all_is_sent(&mut self, pool: &mut FramePool) -> Flush {
        if let Outbox::Own(queued) = self
            && queued.conflated.is_some()
        {
            queued.reset();
            return Flush::Refilled(queued.settle());
        }
        self.release(pool);
        Flush::Empty
    }

    /// Marks the outbox blocked because of bytes that wait in the stream: the poll reports when the socket
    /// takes more.
    pub(in crate::cores) fn block(&mut self, pool: &mut FramePool) {
        self.own(pool).blocked = true;
    }

    /// Notes that the first `bytes` are on their way, though the socket has not taken all of them: the frames
    /// they belong to have begun to leave.
    pub(in crate::cores) fn hold(&mut self, framing: Framing, bytes: usize, pool: &FramePool) {
        if let Some(queued) = self.queued_mut() {
            queued.begun = queued.frame_end(queued.sent + bytes, framing, &pool.shared) - queued.sent;
        }
    }

    /// The poll reports that the socket takes more.
    pub(in crate::cores) fn unblock(&mut self) {
        if let Some(queued) = self.queued_mut() {
            queued.blocked = false;
        }
    }

    /// Forgets all frames that have not begun to leave.
    pub(in crate::cores) fn discard_unsent_frames(&mut self, pool: &mut FramePool) {
        if let Some(queued) = self.queued_mut() {
            queued.conflated = None;
            if queued.begun > 0 {
                queued.keep_begun(&mut pool.shared);
                return;
            }
        }
        self.release(pool);
    }

    /// Gives the buffer back, sent or not.
    pub(in crate::cores) fn release(&mut self, pool: &mut FramePool) {
        match std::mem::take(self) {
            Outbox::Empty => {}
            Outbox::Sealed => *self = Outbox::Sealed,
            Outbox::Shared(span) => pool.shared.release(span),
            Outbox::Own(queued) => {
                if queued.sealed {
                    *self = Outbox::Sealed;
                }
                pool.give(queued);
            }
        }
    }
}

/// Writes as much as the socket takes; `None` if it takes nothing now.
#[inline]
fn write_some(socket: &mut impl Write, bytes: &[u8]) -> io::Result<Option<usize>> {
    match retry(|| socket.write(bytes))? {
        Some(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// Calls `write`, again if a signal interrupts it; `None` if the socket takes nothing now.
#[inline]
fn retry(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match write() {
            Ok(written) => return Ok(Some(written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Queued {
    fn len(&self) -> usize {
        self.earlier_bytes + self.bytes.len() - self.sent
    }

    /// Resets the buffer to its first state. Its pieces have been sent, or released.
    fn reset(&mut self) {
        if self.earlier.capacity() > 0 {
            self.earlier = VecDeque::new();
        }
        self.earlier_bytes = 0;
        self.bytes.clear();
        (self.sent, self.begun) = (0, 0);
        (self.blocked, self.sealed) = (false, false);
        (self.blocked_since, self.taken_by) = (Uptime::NEVER, Uptime::NEVER);
    }

    fn settle(&mut self) -> usize {
        let Some(conflated) = self.conflated.take() else {
            return 0;
        };
        let frames = conflated.into_frames();
        let count = frames.len();
        for frame in frames {
            self.make_piece_of(PIECE_BYTES);
            self.bytes.extend_from_slice(&frame);
        }
        count
    }

    /// Queues a span that the outbox holds: without a copy, if it may be held for long.
    fn keep(&mut self, span: FrameSpan, shared: &mut SharedFrames) {
        if span.is_alone() {
            self.make_piece_of(1);
            self.earlier_bytes += span.len();
            self.earlier.push_back(Piece::Shared(span));
            return;
        }
        self.make_piece_of(PIECE_BYTES);
        self.bytes.extend_from_slice(shared.bytes(span));
        shared.release(span);
    }

    /// Puts the newest bytes behind the earlier pieces, if there are at least `bytes_min`.
    fn make_piece_of(&mut self, bytes_min: usize) {
        if self.bytes.len() < bytes_min {
            return;
        }
        let mut piece = std::mem::take(&mut self.bytes);
        #[cfg(test)]
        tests::MOVED.set(tests::MOVED.get() + piece.len());
        piece.shrink_to_fit();
        self.earlier_bytes += piece.len();
        self.earlier.push_back(Piece::Own(piece));
    }

    /// Writes from the first pieces with one call; `None` if the socket takes nothing now.
    fn write_pieces(&self, socket: &mut impl Write, shared: &SharedFrames) -> io::Result<Option<usize>> {
        let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE_MAX];
        let mut sent = self.sent;
        let pieces = self.earlier.iter().map(|piece| piece.bytes(shared));
        let pieces = pieces.chain([&self.bytes[..]]).filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&piece[std::mem::take(&mut sent)..]);
            count += 1;
        }
        match retry(|| socket.write_vectored(&slices[..count]))? {
            Some(0) => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    /// Counts `written` bytes as sent, and finds out how much of a frame has begun to leave. True if the last
    /// written byte is in the middle of a piece.
    fn advance(&mut self, mut written: usize, framing: Framing, shared: &mut SharedFrames) -> bool {
        while let Some(first) = self.earlier.front_mut() {
            let left = first.bytes(shared).len() - self.sent;
            if written < left {
                break;
            }
            written -= left;
            self.earlier_bytes -= self.sent + left;
            (self.sent, self.begun) = (0, 0);
            if let Some(Piece::Shared(span)) = self.earlier.pop_front() {
                shared.release(span);
            }
        }
        let end = self.sent + written;
        self.begun = self.frame_end(end, framing, shared) - end;
        if let Some(Piece::Shared(span)) = self.earlier.front_mut() {
            shared.advance(span, written);
            self.earlier_bytes -= written;
        } else {
            self.sent = end;
        }
        written > 0 && self.len() > 0
    }

    /// Drops everything behind the bytes that have begun to leave.
    fn keep_begun(&mut self, shared: &mut SharedFrames) {
        let kept = self.sent + self.begun;
        let first = self.earlier.pop_front();
        self.let_go_of_pieces(shared);
        match first {
            None => {
                self.bytes.truncate(kept);
                self.bytes.shrink_to_fit();
                return;
            }
            Some(Piece::Own(mut piece)) => {
                piece.truncate(kept);
                piece.shrink_to_fit();
                self.earlier.push_back(Piece::Own(piece));
            }
            Some(Piece::Shared(mut span)) => {
                shared.cut(&mut span, kept);
                self.earlier.push_back(Piece::Shared(span));
            }
        }
        self.earlier_bytes = kept;
        self.bytes = Vec::new();
    }

    fn let_go_of_pieces(&mut self, shared: &mut SharedFrames) {
        for piece in std::mem::take(&mut self.earlier) {
            if let Piece::Shared(span) = piece {
                shared.release(span);
            }
        }
        self.earlier_bytes = 0;
    }

    /// The end of the frame of the first piece that reaches to `place` or beyond.
    fn frame_end(&self, place: usize, framing: Framing, shared: &SharedFrames) -> usize {
        let bytes = match self.earlier.front() {
            None => &self.bytes[..],
            Some(first) => first.bytes(shared),
        };
        let mut boundary = self.sent + self.begun;
        while boundary < place {
            let length = framing
                .next_len(&bytes[boundary..])
                .expect("only whole frames are queued");
            boundary += length;
        }
        boundary
    }
}

impl Piece {
    fn bytes<'p>(&'p self, shared: &'p SharedFrames) -> &'p [u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(span) => shared.bytes(*span),
        }
    }
}

impl FramePool {
    fn take(&mut self) -> Box<Queued> {
        let pooled = self.free.pop();
        self.unused = self.unused.min(self.free.len());
        pooled.unwrap_or_else(|| {
            Box::new(Queued {
                earlier: VecDeque::new(),
                earlier_bytes: 0,
                bytes: Vec::with_capacity(BUFFER_BYTES),
                sent: 0,
                begun: 0,
                blocked: false,
                sealed: false,
                blocked_since: Uptime::NEVER,
                taken_by: Uptime::NEVER,
                unacknowledged: 0,
                conflated: None,
            })
        })
    }

    /// Frees half of the buffers that were not needed since the last call. To be called now and then.
    pub(in crate::cores) fn give_back(&mut self) {
        let beyond = self.free.len().saturating_sub(POOLED_BUFFERS_MIN);
        let unused = self.unused.min(beyond);
        self.free.truncate(self.free.len() - unused.div_ceil(2));
        self.unused = self.free.len();
    }

    fn give(&mut self, mut queued: Box<Queued>) {
        if !queued.earlier.is_empty() {
            queued.let_go_of_pieces(&mut self.shared);
        }
        if self.free.len() < POOLED_BUFFERS_KEPT && queued.bytes.capacity() <= POOLED_BYTES_MAX {
            queued.reset();
            queued.conflated = None;
            self.free.push(queued);
        }
    }
}

/// A buffer of this many bytes becomes a piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that one system call writes.
const PIECES_PER_WRITE_MAX: usize = 64;
/// The first capacity of a buffer: a turn's small replies to one connection, without growing.
const BUFFER_BYTES: usize = 512;
/// Most connections for which publications may be queued before some are flushed.
pub(in crate::cores) const POOLED_BUFFERS_MAX: usize = 8192;
/// Most free buffers that a core keeps for the next turn. When cores kept all of them, twelve cores kept 48
/// MB after one publication to all clients. To allocate and free a buffer costs a hundredth of the write that
/// empties it.
const POOLED_BUFFERS_KEPT: usize = 1024;
/// This many free buffers are kept, however long they are not needed.
const POOLED_BUFFERS_MIN: usize = 64;
/// A buffer that grew past this is freed rather than kept.
const POOLED_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
