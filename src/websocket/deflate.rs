//! permessage-deflate: messages that are compressed one by one.
//!
//! In: whole messages, from the clients of one core. Out: the same, inflated ([`Inflater`]) or as a frame with its first
//! reserved bit set ([`Deflater`]). What is agreed on at the upgrade is `negotiation`'s affair; how compressed fragments
//! become one message, `message`'s.
//!
//! ```text
//!   Receiver: compressed payload ─► Inflater ─► message       payload ─► Deflater ─► frame
//!              + 00 00 ff ff        one per core                         one per core: a window of 15 bits, one of 9
//! ```
//! A connection keeps no context: a compressor takes 380 KB with the largest window and 251 KB with the smallest, a
//! decompressor 48 KB, and they are made when the first message needs one. So every message begins afresh in both
//! directions, which the answer to the upgrade demands (`*_no_context_takeover`).
//!
//! Invariants
//! 1. What was inflated never takes more than the bound it was given and one byte; a message that would is refused then,
//!    not when all of it has been seen.
//! 2. When the work has been taken, no more than `KEPT_BYTES_MAX` of output is kept, however large a message was.
//!
//! A client that asks for a window between 9 and 14 bits gets 9: RFC 7692 section 7.1.2.1 allows a smaller one than was
//! asked for, and two compressors bound what a core keeps and how often it compresses one publication.
//!
//! Limits: `message_bytes_max`, for what is sent and for what comes of it. It also bounds the time that one message takes:
//! 1 MiB of the most laborious payload 48 ms.
//!
//! RFC 7692 sections 7.2 and 7.2.3. Where that leaves a choice, the npm package `ws` decides: bytes that cannot be
//! inflated close with 1007, too many with 1009, and the payload as it was sent is bounded as well. Unlike `ws`, which
//! hands out what came before it, a stream that ends in the middle of a block is refused.

mod negotiation;

use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

pub(super) use negotiation::is_token_byte;
pub use negotiation::{Agreement, Malformed, agree};

use super::frame::{self, OpCode};
use crate::decision::CloseReason;
use crate::wipe::wipe_and_drop;

/// What was agreed on with a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Nothing is compressed.
    #[default]
    Off,
    /// Both sides may compress; the client inflates with a window of 32 KiB.
    Large,
    /// The client inflates with a smaller window: ours is 512 bytes.
    Small,
}

impl Compression {
    /// How many there are, for tables by [`Compression::index`].
    pub const COUNT: usize = 3;

    /// Whether messages may be compressed.
    #[inline]
    pub const fn is_on(self) -> bool {
        !matches!(self, Compression::Off)
    }

    /// The place in tables.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What has been done since somebody last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Messages.
    pub messages: u64,
    /// Bytes of their payloads before.
    pub bytes_before: u64,
    /// Bytes of their payloads after.
    pub bytes_after: u64,
}

impl Work {
    fn add(&mut self, before: usize, after: usize) {
        self.messages += 1;
        self.bytes_before += before as u64;
        self.bytes_after += after as u64;
    }
}

/// Inflates the messages of all connections of a core.
#[derive(Default)]
pub struct Inflater {
    state: Option<Decompress>,
    made: Vec<u8>,
    work: Work,
    share: u64,
}

impl Inflater {
    /// Inflates the payload of one message. What comes of it is kept until the next call.
    ///
    /// # Errors
    /// `InflatedTooBig` as soon as more than `bytes_max` bytes have come of it, `BadCompression` if it is no DEFLATE
    /// stream or ends within a block.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], CloseReason> {
        self.made.clear();
        // Some send nothing for nothing, though there should be one byte (section 7.2.3.6).
        if !payload.is_empty() {
            let state = self.state.get_or_insert_with(|| Decompress::new(false));
            state.reset(false);
            // A stream may end before the payload does, and another follows (section 7.2.3.5); one that ends with it lacks
            // the empty block that was to follow, and is complete all the same.
            let mut rest = payload;
            let mut has_ended = false;
            while !rest.is_empty() {
                if has_ended {
                    state.reset(false);
                }
                (rest, has_ended) = run(state, rest, &mut self.made, bytes_max)?;
            }
            // A block that was not complete swallows some of this.
            if !has_ended && run(state, TAIL_AND_END, &mut self.made, bytes_max)? != (&[][..], true) {
                return Err(CloseReason::BadCompression);
            }
        }
        self.work.add(payload.len(), self.made.len());
        self.share += self.made.len() as u64 + PAYLOAD_WEIGHT * payload.len() as u64;
        Ok(&self.made)
    }

    /// Wipes what has come of the last message.
    pub fn wipe(&mut self) {
        wipe_and_drop(std::mem::take(&mut self.made));
    }

    /// Begins to count what comes of the messages of one connection in one turn.
    #[inline]
    pub fn begin_share(&mut self) {
        self.share = 0;
    }

    /// What has been done since [`Inflater::begin_share`], in bytes that came of messages; those that were sent count four
    /// times, since some that become nothing cost twenty times as much as others.
    #[inline]
    pub fn share(&self) -> u64 {
        self.share
    }

    /// What has been done since the last call. Gives back what large messages took.
    pub fn take_work(&mut self) -> Work {
        give_back(&mut self.made);
        std::mem::take(&mut self.work)
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

/// Inflates as much as can be; returns what follows the stream, and whether that has ended.
fn run<'p>(
    state: &mut Decompress,
    mut input: &'p [u8],
    made: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(&'p [u8], bool), CloseReason> {
    loop {
        if made.len() == made.capacity() {
            let room = made.len().max(2 * input.len()).max(ROOM_BYTES_MIN);
            made.reserve_exact(room.min(bytes_max + 1 - made.len()));
        }
        let before = state.total_in();
        let status = state
            .decompress_vec(input, made, FlushDecompress::Sync)
            .map_err(|_| CloseReason::BadCompression)?;
        let taken = usize::try_from(state.total_in() - before).map_err(|_| CloseReason::BadCompression)?;
        input = &input[taken..];
        if made.len() > bytes_max {
            return Err(CloseReason::InflatedTooBig);
        }
        if status == Status::StreamEnd {
            return Ok((input, true));
        }
        // With room left it has stopped for want of input.
        if made.len() < made.capacity() {
            return if input.is_empty() {
                Ok((input, false))
            } else {
                Err(CloseReason::BadCompression)
            };
        }
    }
}

/// Compresses messages for all connections of a core.
#[derive(Default)]
pub struct Deflater {
    bytes_min: usize,
    large: Option<Compress>,
    small: Option<Compress>,
    made: Vec<u8>,
    work: Work,
}

impl Deflater {
    /// One that leaves payloads shorter than `bytes_min` as they are.
    pub fn new(bytes_min: usize) -> Deflater {
        Deflater {
            bytes_min,
            ..Deflater::default()
        }
    }

    /// Whether a payload is long enough to be compressed.
    #[inline]
    pub fn takes(&self, payload_len: usize) -> bool {
        payload_len >= self.bytes_min
    }

    /// Appends a whole message frame, compressed if so much was agreed on and it is long enough. That may make it longer,
    /// by five bytes for 16 KiB of noise: text hardly ever is, and it would have to be compressed to know.
    pub fn write(&mut self, out: &mut Vec<u8>, compression: Compression, opcode: OpCode, payload: &[u8]) {
        debug_assert!(!opcode.is_control());
        if compression.is_on() && self.takes(payload.len()) && self.deflate(compression, payload) {
            frame::write_compressed(out, opcode, &self.made);
            self.work.add(payload.len(), self.made.len());
        } else {
            frame::write(out, opcode, payload);
        }
    }

    /// What has been compressed since the last call. Gives back what large messages took.
    pub fn take_work(&mut self) -> Work {
        give_back(&mut self.made);
        std::mem::take(&mut self.work)
    }

    /// Compresses into `made`; whether that could be done.
    fn deflate(&mut self, compression: Compression, payload: &[u8]) -> bool {
        let (state, window_bits) = match compression {
            Compression::Off => return false,
            Compression::Large => (&mut self.large, LARGE_WINDOW_BITS),
            Compression::Small => (&mut self.small, SMALL_WINDOW_BITS),
        };
        let state = state.get_or_insert_with(|| {
            Compress::new_with_window_bits(flate2::Compression::new(LEVEL), false, window_bits)
        });
        state.reset();
        self.made.clear();
        // More than can come of it: zlib-rs has panicked where level 1 found its output full.
        self.made
            .reserve(payload.len() + payload.len() / 8 + ROOM_BYTES_MIN);
        let flushed = state.compress_vec(payload, &mut self.made, FlushCompress::Sync);
        let is_done = flushed.is_ok()
            && state.total_in() == payload.len() as u64
            && self.made.len() < self.made.capacity()
            && self.made.ends_with(TAIL);
        debug_assert!(is_done, "there is more room than the output can take");
        self.made.truncate(self.made.len().saturating_sub(TAIL.len()));
        is_done
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater")
            .field("bytes_min", &self.bytes_min)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

fn give_back(made: &mut Vec<u8>) {
    if made.capacity() > KEPT_BYTES_MAX {
        *made = Vec::new();
    }
}

/// What every compressed payload ends with and leaves out: the rest of an empty block. Section 7.2.1.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// The tail and one more empty block, the last of its stream: only where a block may begin does that end it.
const TAIL_AND_END: &[u8] = &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
const LARGE_WINDOW_BITS: u8 = 15;
/// The smallest that a raw stream can have: zlib knows no 8.
const SMALL_WINDOW_BITS: u8 = 9;
/// Of 9. JSON of 64 KiB becomes 17,200 bytes at level 1, which does not fit its codes to the message, 12,400 at this one,
/// 11,500 at 6, in 3.2, 4.5 and 12.7 ns for each byte.
const LEVEL: u32 = 2;
/// The most laborious payload, blocks that say how they are coded and hold nothing, takes 48 ns a byte, ordinary ones 2 ns
/// for each byte that comes of them.
const PAYLOAD_WEIGHT: u64 = 4;
/// The least that output is given.
const ROOM_BYTES_MIN: usize = 1024;
/// Output that grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
