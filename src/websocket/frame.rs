//! Frame headers, and the mask.
//!
//! From clients: [`parse_header`] reads a header and refuses everything that a server must refuse; [`unmask`] then
//! decodes the payload. To clients: [`write_header`]; frames of the server are never masked and never fragmented.
//! [`next_frame_len`] finds the end of a frame of our own among bytes that wait to be sent.
//!
//! The checks are made in the order of the reference's engine, so that a header with two errors gets the same close
//! code: reserved bits, op code, control frame rules, mask (all 1002), then the length. RFC 6455 section 5.2.

use std::ops::Range;

use crate::decision::CloseReason;

/// Longest payload of a control frame: RFC 6455 section 5.5.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Longest header: two bytes, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The first of the reserved bits: the message is compressed. RFC 7692 section 6.
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Longest payload that the reference's engine can count; a longer payload is too big whatever the limit. RFC 6455
/// itself allows up to 2^63 bytes.
const PAYLOAD_BYTES_MAX: u64 = (1 << 53) - 1;

/// The kind of a frame: RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// Continues the message that a text or binary frame began.
    Continuation = 0x0,
    /// Begins a text message.
    Text = 0x1,
    /// Begins a binary message.
    Binary = 0x2,
    /// Begins or answers the close handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or shows that the peer is alive.
    Pong = 0xa,
}

impl OpCode {
    fn from_bits(bits: u8) -> Option<OpCode> {
        Some(match bits {
            0x0 => OpCode::Continuation,
            0x1 => OpCode::Text,
            0x2 => OpCode::Binary,
            0x8 => OpCode::Close,
            0x9 => OpCode::Ping,
            0xa => OpCode::Pong,
            _ => return None,
        })
    }

    /// True for a control frame, which may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The data frames that are legal at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No message is open, so a text or binary frame may begin one.
    Message,
    /// No message is open, and the next one may be compressed.
    CompressedMessage,
    /// A message is open, so only a continuation is legal.
    Continuation,
}

/// The header of a client's frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// True if this is the last frame of its message.
    pub fin: bool,
    /// True if the frame begins a compressed message.
    pub compressed: bool,
    /// The kind of the frame.
    pub opcode: OpCode,
    /// Bytes of payload after the header.
    pub payload_len: u64,
    /// The mask of the payload.
    pub mask: Mask,
    /// Bytes of the header itself.
    pub header_len: usize,
}

/// The four bytes of a client's mask, rotated so that the first one applies to the next byte of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask([u8; 4]);

impl Mask {
    /// The mask as a frame carries it.
    pub const fn new(bytes: [u8; 4]) -> Mask {
        Mask(bytes)
    }

    /// The mask for the payload after its first `bytes` bytes.
    #[must_use]
    pub const fn after(self, bytes: usize) -> Mask {
        let [a, b, c, d] = self.0;
        Mask(match bytes % 4 {
            0 => [a, b, c, d],
            1 => [b, c, d, a],
            2 => [c, d, a, b],
            _ => [d, a, b, c],
        })
    }
}

/// Reads the header of a client's frame; `None` if it is not complete yet.
///
/// # Errors
/// `ProtocolError` as soon as the first two bytes, or the length, are illegal. `MessageTooBig` if the length is above
/// every limit.
#[inline]
pub fn parse_header(input: &[u8], expect: Expect) -> Result<Option<Header>, CloseReason> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    let opcode = check_start(*first, *second, expect)?;
    let (payload_len, mask, header_len) = match *second & LENGTH {
        LENGTH_16 => {
            let Some((&length, rest)) = rest.split_first_chunk::<2>() else {
                return Ok(None);
            };
            let length = u64::from(u16::from_be_bytes(length));
            if length < u64::from(LENGTH_16) {
                return Err(CloseReason::ProtocolError);
            }
            (length, rest.first_chunk::<4>(), 8)
        }
        LENGTH_64 => {
            let Some((&length, rest)) = rest.split_first_chunk::<8>() else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(length);
            if length > PAYLOAD_BYTES_MAX {
                return Err(CloseReason::MessageTooBig);
            }
            if length <= u64::from(u16::MAX) {
                return Err(CloseReason::ProtocolError);
            }
            (length, rest.first_chunk::<4>(), 14)
        }
        short => (u64::from(short), rest.first_chunk::<4>(), 6),
    };
    Ok(mask.map(|&mask| Header {
        fin: first & FIN != 0,
        compressed: first & COMPRESSED != 0,
        opcode,
        payload_len,
        mask: Mask(mask),
        header_len,
    }))
}

/// True if a frame that begins with this byte is neither a control frame nor a fragment with more to follow.
#[inline]
pub const fn is_whole_message(first: u8) -> bool {
    first & (FIN | OpCode::Close as u8) == FIN
}

/// The position of the payload and its mask, if the input begins with the most common kind of frame and has all of it:
/// a text message of at most 125 bytes in one frame. Use [`parse_header`] for all other frames.
#[inline]
pub(super) fn short_text(input: &[u8]) -> Option<(Range<usize>, Mask)> {
    let &[first, second, a, b, c, d, ref rest @ ..] = input else {
        return None;
    };
    let length = second ^ MASKED;
    let is_whole = usize::from(length) <= rest.len();
    (first == FIN | OpCode::Text as u8 && length < LENGTH_16 && is_whole)
        .then(|| (6..6 + usize::from(length), Mask([a, b, c, d])))
}

#[inline]
fn check_start(first: u8, second: u8, expect: Expect) -> Result<OpCode, CloseReason> {
    if first & RESERVED != 0 && !may_be_compressed(first, expect) {
        return Err(CloseReason::ProtocolError);
    }
    let opcode = OpCode::from_bits(first & OPCODE).ok_or(CloseReason::ProtocolError)?;
    let length = second & LENGTH;
    let legal = match opcode {
        OpCode::Continuation => expect == Expect::Continuation,
        OpCode::Text | OpCode::Binary => expect != Expect::Continuation,
        // The payload of a close frame begins with a code of two bytes, so one byte is illegal.
        OpCode::Close => first & FIN != 0 && length < LENGTH_16 && length != 1,
        OpCode::Ping | OpCode::Pong => first & FIN != 0 && length < LENGTH_16,
    };
    if legal && second & MASKED != 0 {
        Ok(opcode)
    } else {
        Err(CloseReason::ProtocolError)
    }
}

/// True if the only reserved bit that is set is the one of a compressed message, and such a message may begin here.
#[cold]
fn may_be_compressed(first: u8, expect: Expect) -> bool {
    first & RESERVED == COMPRESSED
        && expect == Expect::CompressedMessage
        && matches!(
            OpCode::from_bits(first & OPCODE),
            Some(OpCode::Text | OpCode::Binary)
        )
}

/// Masks or unmasks `payload` in place, eight bytes at a time.
#[inline]
pub fn unmask(payload: &mut [u8], mask: Mask) {
    let [a, b, c, d] = mask.0;
    let mask = [a, b, c, d, a, b, c, d];
    let word = u64::from_ne_bytes(mask);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Length in bytes of the header of a server frame with `payload_len` bytes of payload.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Appends the header of a whole, unmasked frame. Always inlined, for the same reason as [`write()`].
#[inline(always)]
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize) {
    let first = FIN | opcode as u8;
    if let Ok(short) = u8::try_from(payload_len)
        && short < LENGTH_16
    {
        out.extend_from_slice(&[first, short]);
    } else if let Ok(length) = u16::try_from(payload_len) {
        let [high, low] = length.to_be_bytes();
        out.extend_from_slice(&[first, LENGTH_16, high, low]);
    } else {
        out.extend_from_slice(&[first, LENGTH_64]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Appends a whole, unmasked frame. Always inlined: as a call of its own it makes each reply cost 11 instructions more.
#[inline(always)]
pub fn write(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_PAYLOAD_BYTES_MAX);
    out.reserve(header_len(payload.len()) + payload.len());
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a whole, unmasked frame with a compressed message.
pub fn write_compressed(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let start = out.len();
    write(out, opcode, payload);
    out[start] |= COMPRESSED;
}

/// The kind and the payload of a whole, uncompressed server frame; `None` if `frame` is something else.
pub fn parts(frame: &[u8]) -> Option<(OpCode, &[u8])> {
    let (&[first, length], _) = frame.split_first_chunk::<2>()?;
    let header_len = match length & LENGTH {
        LENGTH_16 => 4,
        LENGTH_64 => 10,
        _ => 2,
    };
    let opcode = OpCode::from_bits(first & OPCODE).filter(|_| first & (FIN | RESERVED) == FIN)?;
    Some((opcode, frame.get(header_len..)?))
}

/// Length in bytes of the first server frame in `frames`, header included; `None` if the frame is not complete.
pub fn next_frame_len(frames: &[u8]) -> Option<usize> {
    let (&[_, length], rest) = frames.split_first_chunk::<2>()?;
    let frame_len = match length & LENGTH {
        LENGTH_16 => 4 + usize::from(u16::from_be_bytes(*rest.first_chunk()?)),
        LENGTH_64 => {
            let payload_len = usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?;
            payload_len.checked_add(10)?
        }
        short => 2 + usize::from(short),
    };
    (frame_len <= frames.len()).then_some(frame_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn parse(bytes: &[u8]) -> Result<Option<Header>, CloseReason> {
        parse_header(bytes, Expect::Message)
    }

    #[test]
    fn a_header_is_complete_with_its_last_mask_byte() {
        for (start, payload_len) in [
            (&[0x81, 0x80 | 125][..], 125),
            (&[0x81, 0x80 | 126, 0, 126], 126),
            (&[0x81, 0x80 | 126, 0xff, 0xff], 0xffff),
            (&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0], 0x1_0000),
            (
                &[0x81, 0x80 | 127, 0, 0x1f, 255, 255, 255, 255, 255, 255],
                PAYLOAD_BYTES_MAX,
            ),
        ] {
            let bytes = [start, &MASK].concat();
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
            let expected = Header {
                fin: true,
                compressed: false,
                opcode: OpCode::Text,
                payload_len,
                mask: Mask(MASK),
                header_len: bytes.len(),
            };
            assert_eq!(parse(&bytes), Ok(Some(expected)));
        }
    }

    #[test]
    fn lengths_that_are_not_minimal_are_refused() {
        for start in [
            &[0x81, 0x80 | 126, 0, 125][..],
            &[0x81, 0x80 | 126, 0, 0],
            &[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            &[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(parse(start), Err(CloseReason::ProtocolError), "{start:?}");
        }
    }

    #[test]
    fn lengths_beyond_counting_are_too_big() {
        for start in [
            [0x81, 0x80 | 127, 0, 0x20, 0, 0, 0, 0, 0, 0],
            [0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(parse(&start), Err(CloseReason::MessageTooBig), "{start:?}");
        }
    }

    /// All 65,536 first pairs of bytes against the rules as RFC 6455 section 5.2 words them.
    #[test]
    fn the_first_two_bytes_are_checked_by_the_rfc() {
        for [first, second] in (0..=u16::MAX).map(u16::to_be_bytes) {
            for expect in [Expect::Message, Expect::CompressedMessage, Expect::Continuation] {
                let (opcode, length) = (first & 15, second & 127);
                let known = [0, 1, 2, 8, 9, 10].contains(&opcode);
                let control = opcode >= 8;
                // RFC 7692 section 6: on the first frame of a message only.
                let compressed =
                    first & 0x70 == 0x40 && expect == Expect::CompressedMessage && [1, 2].contains(&opcode);
                let legal = (first & 0x70 == 0 || compressed)
                    && known
                    && second & 0x80 != 0
                    && (!control || (first & 0x80 != 0 && length <= 125))
                    && (control || (opcode == 0) == (expect == Expect::Continuation))
                    && !(opcode == 8 && length == 1);
                let expected = if legal {
                    Ok(None)
                } else {
                    Err(CloseReason::ProtocolError)
                };
                assert_eq!(
                    parse_header(&[first, second], expect),
                    expected,
                    "{first:x} {second:x} {expect:?}"
                );
            }
        }
    }

    #[test]
    fn the_mask_is_applied_at_any_length_and_offset() {
        let plain: Vec<u8> = (0..100).collect();
        for length in 0..plain.len() {
            let expected: Vec<u8> = plain[..length]
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ MASK[at % 4])
                .collect();
            for cut in 0..=length {
                let mut masked = plain[..length].to_vec();
                let (start, end) = masked.split_at_mut(cut);
                unmask(start, Mask(MASK));
                unmask(end, Mask(MASK).after(cut));
                assert_eq!(masked, expected, "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn server_frames_are_minimal_and_found_again() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 0x1_0001] {
            let mut out = Vec::new();
            write(&mut out, OpCode::Binary, &vec![7; length]);
            assert_eq!(out.len(), header_len(length) + length);
            assert_eq!(out[0], 0x82);
            for cut in [0, 1, header_len(length) - 1, out.len() - 1] {
                assert_eq!(next_frame_len(&out[..cut]), None, "{length} cut at {cut}");
            }
            let frame_len = out.len();
            assert_eq!(next_frame_len(&out), Some(frame_len));
            assert_eq!(parts(&out), Some((OpCode::Binary, &vec![7; length][..])));
            let mut compressed = Vec::new();
            write_compressed(&mut compressed, OpCode::Binary, &vec![7; length]);
            assert_eq!(compressed[0], 0xc2);
            assert_eq!(compressed[1..], out[1..]);
            assert_eq!(next_frame_len(&compressed), Some(frame_len));
            assert_eq!(parts(&compressed), None);
            write(&mut out, OpCode::Text, b"next");
            assert_eq!(next_frame_len(&out), Some(frame_len));
            assert_eq!(next_frame_len(&out[frame_len..]), Some(6));
        }
        assert_eq!(
            next_frame_len(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
            None
        );
    }
}
