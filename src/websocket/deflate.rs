//! permessage-deflate: compresses and inflates single messages.
//!
//! In: whole messages of the clients of one core. Out: the same messages, inflated ([`Inflater`]), or compressed as a
//! frame with the first reserved bit set ([`Deflater`]). `negotiation` decides at the upgrade what both sides may do;
//! `message` joins compressed fragments to one message.
//!
//! ```text
//!   Receiver: compressed payload ─► Inflater ─► message       payload ─► Deflater ─► frame
//!              + 00 00 ff ff        one per core                         one per core: a window of 15 bits, one of 9
//! ```
//! A connection keeps no context, because contexts are large: a compressor takes 380 KB with the largest window and 251
//! KB with the smallest, a decompressor 48 KB. A core makes its own when the first message needs one. So each message
//! is compressed independently of earlier ones, in both directions, and the answer to the upgrade demands this
//! (`*_no_context_takeover`).
//!
//! Invariants
//! 1. Inflated bytes never take more than the given bound and one byte: a message that would is refused at this point,
//!    not after all of it has been inflated.
//! 2. After `take_work`, at most `KEPT_BYTES_MAX` of output are kept, however large a message was.
//!
//! A client that asks for a window between 9 and 14 bits gets 9. RFC 7692 section 7.1.2.1 allows a smaller window than
//! requested, and with only two compressors the memory of a core, and the number of times that it compresses a
//! publication, are bounded.
//!
//! Limits: `message_bytes_max`, for the payload as it is sent and for the inflated message. It also bounds the time
//! that one message takes: 48 ms for 1 MiB of the most expensive payload.
//!
//! RFC 7692 sections 7.2 and 7.2.3. Where the RFC leaves a choice, the code does what the npm package `ws` does: bytes
//! that cannot be inflated close the connection with 1007, too many bytes with 1009, and the payload as it was sent has
//! a limit too. There is one difference: if a stream ends in the middle of a block, `ws` delivers the part before; here
//! it is refused.

mod negotiation;

use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

pub(super) use negotiation::is_token_byte;
pub use negotiation::{Agreement, Malformed, agree};

use super::frame::{self, OpCode};
use crate::decision::CloseReason;
use crate::wipe::wipe_and_drop;

/// The compression that client and server have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// No compression.
    #[default]
    Off,
    /// Both sides may compress. The client inflates with a window of 32 KiB.
    Large,
    /// Both sides may compress. The client inflates with a smaller window; the server compresses with one of 512 bytes.
    Small,
}

impl Compression {
    /// Number of variants, for tables by [`Compression::index`].
    pub const COUNT: usize = 3;

    /// True if messages may be compressed.
    #[inline]
    pub const fn is_on(self) -> bool {
        !matches!(self, Compression::Off)
    }

    /// The index in tables.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Work since the last call of `take_work`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Number of messages.
    pub messages: u64,
    /// Bytes of their payloads before the work.
    pub bytes_before: u64,
    /// Bytes of their payloads after the work.
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
    /// Inflates the payload of one message. The result is kept until the next call.
    ///
    /// # Errors
    /// `InflatedTooBig` as soon as the result is longer than `bytes_max`. `BadCompression` if the payload is not a
    /// DEFLATE stream or ends within a block.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], CloseReason> {
        self.made.clear();
        // Some clients send no bytes for an empty message, although section 7.2.3.6 asks for one byte.
        if !payload.is_empty() {
            let state = self.state.get_or_insert_with(|| Decompress::new(false));
            state.reset(false);
            // A stream may end before the payload does, and another one may follow (section 7.2.3.5). A stream that
            // ends with the payload lacks the empty block that should follow, but is complete.
            let mut rest = payload;
            let mut has_ended = false;
            while !rest.is_empty() {
                if has_ended {
                    state.reset(false);
                }
                (rest, has_ended) = run(state, rest, &mut self.made, bytes_max)?;
            }
            // If a block was incomplete, it takes some of these bytes as its own.
            if !has_ended && run(state, TAIL_AND_END, &mut self.made, bytes_max)? != (&[][..], true) {
                return Err(CloseReason::BadCompression);
            }
        }
        self.work.add(payload.len(), self.made.len());
        self.share += self.made.len() as u64 + PAYLOAD_WEIGHT * payload.len() as u64;
        Ok(&self.made)
    }

    /// Wipes the result of the last message from memory.
    pub fn wipe(&mut self) {
        wipe_and_drop(std::mem::take(&mut self.made));
    }

    /// Begins to count the work for one connection in one turn.
    #[inline]
    pub fn begin_share(&mut self) {
        self.share = 0;
    }

    /// The work since [`Inflater::begin_share`], as a number of bytes: inflated bytes, and the bytes that were sent
    /// times `PAYLOAD_WEIGHT`, because some payloads inflate to nothing and cost twenty times as much as others.
    #[inline]
    pub fn share(&self) -> u64 {
        self.share
    }

    /// Returns the work since the last call, and frees memory that large messages took.
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

/// Inflates as much as possible. Returns the bytes that follow the stream, and whether the stream has ended.
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
        // There is room left, so it has stopped because it needs more input.
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
    /// A compressor that leaves payloads shorter than `bytes_min` uncompressed.
    pub fn new(bytes_min: usize) -> Deflater {
        Deflater {
            bytes_min,
            ..Deflater::default()
        }
    }

    /// True if a payload is long enough to be compressed.
    #[inline]
    pub fn takes(&self, payload_len: usize) -> bool {
        payload_len >= self.bytes_min
    }

    /// Appends a whole message frame, compressed if the client agreed to it and the payload is long enough. Compression
    /// may make a payload longer, by five bytes for 16 KiB of noise; text hardly ever gets longer, and the only way to
    /// know is to compress it.
    pub fn write(&mut self, out: &mut Vec<u8>, compression: Compression, opcode: OpCode, payload: &[u8]) {
        debug_assert!(!opcode.is_control());
        if compression.is_on() && self.takes(payload.len()) && self.deflate(compression, payload) {
            frame::write_compressed(out, opcode, &self.made);
            self.work.add(payload.len(), self.made.len());
        } else {
            frame::write(out, opcode, payload);
        }
    }

    /// Returns the work since the last call, and frees memory that large messages took.
    pub fn take_work(&mut self) -> Work {
        give_back(&mut self.made);
        std::mem::take(&mut self.work)
    }

    /// Compresses into `made`; returns true if this was possible.
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
        // This is more room than the output needs: zlib-rs has panicked when level 1 found its output full.
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

/// The end of every compressed payload, which is not sent: the rest of an empty block. Section 7.2.1.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// The tail and one more empty block, the last of its stream. This ends the stream only where a block may begin.
const TAIL_AND_END: &[u8] = &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
const LARGE_WINDOW_BITS: u8 = 15;
/// The smallest window of a raw stream: zlib does not support 8 bits.
const SMALL_WINDOW_BITS: u8 = 9;
/// The level, of 9. JSON of 64 KiB becomes 17,200 bytes at level 1 (whose codes do not adapt to the message), 12,400 at
/// level 2 and 11,500 at level 6, in 3.2, 4.5 and 12.7 ns for each byte.
const LEVEL: u32 = 2;
/// Weight of a sent byte, compared with an inflated byte. The most expensive payload (blocks that contain their codes
/// and no data) takes 48 ns for each sent byte; ordinary payloads take 2 ns for each inflated byte.
const PAYLOAD_WEIGHT: u64 = 4;
/// Smallest free room that is offered for output.
const ROOM_BYTES_MIN: usize = 1024;
/// If the output buffer has grown beyond this, its memory is freed.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
