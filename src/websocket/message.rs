//! Joins the bytes of one connection to whole messages.
//!
//! In: bytes from the socket, in the read buffer that all connections of a core share. Out: one message at a time. The
//! message borrows from that buffer, or, if it did not arrive in one piece, from the connection's own `Assembly`.
//!
//! ```text
//!               whole frame, no fragments: unmasked and checked in the buffer
//!   Idle ──────────────────────────────────────────────────────────────────────► message
//!    │ part of a frame, or a fragment           last byte of the last fragment      ▲
//!    └────────────► Payload ⇄ Between ───────────► HandedOut ───────────────────────┘
//!                   (control frames pass)          freed by the next call
//! ```
//!
//! Invariants
//! 1. A connection without an unfinished message owns one null pointer. The call after the one that returned an
//!    assembled message frees the assembly, so a caller that calls until `Incomplete` never leaves one behind.
//! 2. After `Incomplete`, the rest of the input is shorter than one header, or than one control frame: at most 6 + 125
//!    bytes. It is unchanged.
//! 3. The memory of the assembly grows with the bytes that have arrived, not with the length that a header announces.
//!    The length is checked when the header is read, before its payload arrives: the whole message against
//!    `message_bytes_max`, the frame against `frame_bytes_max`.
//! 4. The messages and errors do not depend on where the input is cut.
//! 5. A compressed message is inflated when all of it has arrived, because the inflater belongs to the core and keeps
//!    nothing for a connection between turns. Until then its bytes count as they were sent; afterwards the inflated
//!    bytes count.
//!
//! Text is checked as it arrives: a byte that cannot be part of UTF-8 ends the connection at once, even in the middle
//! of a frame. Compressed text is checked after inflation. RFC 6455 sections 5.4 to 5.6 and 8.1, RFC 7692 section 6.2.

use std::ops::Range;

use simdutf8::basic::from_utf8;

use super::close::CloseFrame;
use super::deflate::{Compression, Inflater};
use super::frame::{self, Expect, Header, Mask, OpCode};
use crate::decision::CloseReason;
use crate::unicode;
use crate::wipe::wipe_and_drop;

/// Limits of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one message, over all its fragments.
    pub message_bytes_max: usize,
    /// Most bytes of one frame's payload; not over `message_bytes_max`.
    pub frame_bytes_max: usize,
    /// Most fragments of one message.
    pub fragments_max: u32,
}

/// One message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, which must be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong: the client is alive.
    Pong,
    /// A close frame, which must be answered with the same code and reason. The client sends nothing after it.
    Close(CloseFrame<'a>),
}

/// The result of reading from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// One message. The caller goes on with the input after `consumed`.
    Message {
        /// The message.
        received: Received<'a>,
        /// Number of input bytes that have been read and are not needed any more.
        consumed: usize,
    },
    /// The input holds no further message. The caller keeps the bytes after `consumed` and calls again when more have
    /// arrived.
    Incomplete {
        /// Number of input bytes that have been read and are not needed any more.
        consumed: usize,
    },
}

/// The result of skipping over input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipResult {
    /// The input begins with a message or a control frame of this many bytes.
    Frame(usize),
    /// A close frame.
    Close,
    /// The frame is incomplete. This many bytes of input are not needed any more.
    Incomplete(usize),
}

/// The receiving half of one connection.
#[derive(Debug, Default)]
pub struct Receiver {
    assembly: Option<Box<Assembly>>,
}

/// The result of [`Receiver::advance`], which borrows nothing; the caller borrows the message afterwards.
enum Found {
    Whole {
        opcode: OpCode,
        compressed: bool,
        payload: Range<usize>,
    },
    Assembled,
    Nothing,
}

impl Receiver {
    /// The receiver of a new connection.
    pub const fn new() -> Receiver {
        Receiver { assembly: None }
    }

    /// Number of bytes that have arrived of an incomplete message.
    pub fn assembly_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.body.len())
    }

    /// Reads one message from the input, which it unmasks in place. Call it again with the rest of the input until it
    /// returns `Incomplete`. If the input holds a whole frame, nothing is copied or allocated.
    ///
    /// # Errors
    /// The reason to close the connection for. Do not call it again afterwards.
    #[inline]
    pub fn receive<'a>(&'a mut self, input: &'a mut [u8], limits: &Limits) -> Result<Step<'a>, CloseReason> {
        if self.assembly.is_none()
            && let Some((payload, mask)) = frame::short_text(input)
            && payload.len() <= limits.frame_bytes_max
        {
            let consumed = payload.end;
            let payload = &mut input[payload];
            frame::unmask(payload, mask);
            let text = unicode::text(payload).ok_or(CloseReason::InvalidUtf8)?;
            let received = Received::Text(text);
            return Ok(Step::Message { received, consumed });
        }
        self.receive_any(input, limits, None)
    }

    /// Like [`Receiver::receive`], for a connection whose messages may be compressed.
    ///
    /// # Errors
    /// The reason to close the connection for. Do not call it again afterwards.
    pub fn receive_compressed<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: &Limits,
        inflater: &'a mut Inflater,
    ) -> Result<Step<'a>, CloseReason> {
        self.receive_any(input, limits, Some(inflater))
    }

    #[inline]
    fn receive_any<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: &Limits,
        inflater: Option<&'a mut Inflater>,
    ) -> Result<Step<'a>, CloseReason> {
        let first = match inflater {
            None => Expect::Message,
            Some(_) => Expect::CompressedMessage,
        };
        let (found, consumed) = self.advance(input, limits, first)?;
        let (opcode, compressed, payload) = match found {
            Found::Whole {
                opcode,
                compressed,
                payload,
            } => (opcode, compressed, &input[payload]),
            Found::Assembled => {
                let assembly = self.assembly.as_ref().expect("a message was assembled just now");
                match &assembly.body {
                    Body::Text { checked, .. } => {
                        let received = Received::Text(checked);
                        return Ok(Step::Message { received, consumed });
                    }
                    Body::Binary(bytes) => (OpCode::Binary, false, &bytes[..]),
                    Body::Compressed { opcode, bytes } => (*opcode, true, &bytes[..]),
                }
            }
            Found::Nothing => return Ok(Step::Incomplete { consumed }),
        };
        let payload = match (compressed, inflater) {
            (false, _) => payload,
            (true, Some(inflater)) => inflater.inflate(payload, limits.message_bytes_max)?,
            (true, None) => return Err(CloseReason::ProtocolError),
        };
        let received = read(opcode, payload)?;
        Ok(Step::Message { received, consumed })
    }

    /// Frees the memory of the last message: its reader has made a copy.
    pub fn forget_handed_out(&mut self) {
        if self
            .assembly
            .as_ref()
            .is_some_and(|assembly| assembly.progress == Progress::HandedOut)
        {
            self.assembly = None;
        }
    }

    /// Skips one message or control frame. Only close frames are recognised.
    ///
    /// # Errors
    /// The frame is illegal, so the input after it cannot be read.
    pub fn pass(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        compression: Compression,
    ) -> Result<SkipResult, CloseReason> {
        let first = match compression {
            Compression::Off => Expect::Message,
            Compression::Large | Compression::Small => Expect::CompressedMessage,
        };
        let (found, consumed) = self.advance(input, limits, first)?;
        Ok(match found {
            Found::Whole {
                opcode: OpCode::Close,
                ..
            } => SkipResult::Close,
            Found::Whole { .. } | Found::Assembled => SkipResult::Frame(consumed),
            Found::Nothing => SkipResult::Incomplete(consumed),
        })
    }

    fn advance(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        first: Expect,
    ) -> Result<(Found, usize), CloseReason> {
        self.forget_handed_out();
        let mut consumed = 0;
        loop {
            if let Some(assembly) = &mut self.assembly {
                consumed += assembly.absorb(&mut input[consumed..])?;
                match assembly.progress {
                    Progress::Payload { .. } => return Ok((Found::Nothing, consumed)),
                    Progress::HandedOut => return Ok((Found::Assembled, consumed)),
                    Progress::Between => {}
                }
            }
            let expect = match self.assembly {
                None => first,
                Some(_) => Expect::Continuation,
            };
            let Some(header) = frame::parse_header(&input[consumed..], expect)? else {
                return Ok((Found::Nothing, consumed));
            };
            let start = consumed + header.header_len;
            let is_control = header.opcode.is_control();
            let length = if is_control {
                usize::try_from(header.payload_len).map_err(|_| CloseReason::ProtocolError)?
            } else {
                self.checked_len(&header, limits)?
            };
            let is_whole = length <= input.len() - start;
            if is_control && !is_whole {
                return Ok((Found::Nothing, consumed));
            }
            if is_control || (is_whole && header.fin && expect != Expect::Continuation) {
                let payload = start..start + length;
                frame::unmask(&mut input[payload.clone()], header.mask);
                consumed = payload.end;
                let found = Found::Whole {
                    opcode: header.opcode,
                    compressed: header.compressed,
                    payload,
                };
                return Ok((found, consumed));
            }
            self.assembly
                .get_or_insert_with(|| Box::new(Assembly::new(&header)))
                .begin_frame(&header, length);
            consumed = start;
        }
    }

    /// The payload length of a data frame, if the message may still grow by this length and by one fragment.
    #[inline]
    fn checked_len(&self, header: &Header, limits: &Limits) -> Result<usize, CloseReason> {
        let (arrived, fragments) = match &self.assembly {
            None => (0, 0),
            Some(assembly) => (assembly.body.len(), assembly.fragments),
        };
        let length = usize::try_from(header.payload_len).map_err(|_| CloseReason::MessageTooBig)?;
        // An empty frame adds nothing, so it is never too big: the bytes before it were checked when they arrived.
        if length > limits.message_bytes_max.saturating_sub(arrived) {
            return Err(CloseReason::MessageTooBig);
        }
        if length > limits.frame_bytes_max {
            return Err(CloseReason::FrameTooBig);
        }
        if fragments >= limits.fragments_max {
            return Err(CloseReason::TooManyFragments);
        }
        Ok(length)
    }
}

/// Handles a whole frame in the input.
#[inline]
fn read(opcode: OpCode, payload: &[u8]) -> Result<Received<'_>, CloseReason> {
    Ok(match opcode {
        OpCode::Text => Received::Text(unicode::text(payload).ok_or(CloseReason::InvalidUtf8)?),
        OpCode::Binary | OpCode::Continuation => Received::Binary(payload),
        OpCode::Ping => Received::Ping(payload),
        OpCode::Pong => Received::Pong,
        OpCode::Close => Received::Close(CloseFrame::parse(payload)?),
    })
}

/// A message that arrives in pieces.
#[derive(Debug)]
struct Assembly {
    body: Body,
    fragments: u32,
    progress: Progress,
}

/// The position of an assembly in the frames of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// In the payload of a frame.
    Payload { remaining: usize, mask: Mask, fin: bool },
    /// After a fragment that is not the last.
    Between,
    /// The message is complete and has been handed out.
    HandedOut,
}

impl Assembly {
    fn new(first: &Header) -> Assembly {
        let body = if first.compressed {
            Body::Compressed {
                opcode: first.opcode,
                bytes: Vec::new(),
            }
        } else if first.opcode == OpCode::Text {
            Body::Text {
                checked: String::new(),
                tail: Tail::default(),
            }
        } else {
            Body::Binary(Vec::new())
        };
        Assembly {
            body,
            fragments: 0,
            progress: Progress::Between,
        }
    }

    fn begin_frame(&mut self, header: &Header, length: usize) {
        self.fragments += 1;
        self.progress = Progress::Payload {
            remaining: length,
            mask: header.mask,
            fin: header.fin,
        };
    }

    /// Reads the bytes of the frame in progress from the input, and returns their number.
    fn absorb(&mut self, input: &mut [u8]) -> Result<usize, CloseReason> {
        let Progress::Payload { remaining, mask, fin } = self.progress else {
            return Ok(0);
        };
        let taken = remaining.min(input.len());
        let payload = &mut input[..taken];
        frame::unmask(payload, mask);
        self.body.append(payload)?;
        self.progress = if taken < remaining {
            Progress::Payload {
                remaining: remaining - taken,
                mask: mask.after(taken),
                fin,
            }
        } else if fin {
            self.body.finish()?;
            Progress::HandedOut
        } else {
            Progress::Between
        };
        Ok(taken)
    }
}

impl Drop for Assembly {
    /// Wipes a short text from memory, because it may be a login that came in pieces.
    fn drop(&mut self) {
        if let Body::Text { checked, .. } = &mut self.body
            && checked.capacity() <= WIPED_BYTES_MAX
        {
            wipe_and_drop(std::mem::take(checked).into_bytes());
        }
    }
}

/// The payload so far.
#[derive(Debug)]
enum Body {
    /// Text up to the last complete character, and the beginning of the next character.
    Text {
        checked: String,
        tail: Tail,
    },
    Binary(Vec<u8>),
    /// A compressed payload, text or binary, as it was sent.
    Compressed {
        opcode: OpCode,
        bytes: Vec<u8>,
    },
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Body::Text { checked, tail } => checked.len() + tail.len,
            Body::Binary(bytes) | Body::Compressed { bytes, .. } => bytes.len(),
        }
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        match self {
            Body::Binary(bytes) | Body::Compressed { bytes, .. } => {
                bytes.extend_from_slice(payload);
                Ok(())
            }
            Body::Text { checked, tail } => {
                let payload = tail.complete(payload, checked)?;
                let (whole, rest) = payload.split_at(payload.len() - unfinished_len(payload));
                let whole = from_utf8(whole).map_err(|_| CloseReason::InvalidUtf8)?;
                if checked.len() <= WIPED_BYTES_MAX && checked.capacity() - checked.len() < whole.len() {
                    // Not `String::reserve`: it would free the old buffer without wiping it.
                    let capacity = (2 * checked.capacity()).max(checked.len() + whole.len());
                    let mut larger = String::with_capacity(capacity);
                    larger.push_str(checked);
                    wipe_and_drop(std::mem::replace(checked, larger).into_bytes());
                }
                checked.push_str(whole);
                tail.begin(rest)
            }
        }
    }

    /// Fails if the text ends within a character.
    fn finish(&self) -> Result<(), CloseReason> {
        match self {
            Body::Text { tail, .. } if tail.len > 0 => Err(CloseReason::InvalidUtf8),
            Body::Text { .. } | Body::Binary(_) | Body::Compressed { .. } => Ok(()),
        }
    }
}

/// The first bytes of a character whose last bytes have not arrived.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; 4],
    len: usize,
}

impl Tail {
    /// Adds bytes of `payload` until the character is complete, moves it to `checked`, and returns the rest of
    /// `payload`.
    fn complete<'p>(&mut self, mut payload: &'p [u8], checked: &mut String) -> Result<&'p [u8], CloseReason> {
        while self.len > 0
            && let Some((&byte, rest)) = payload.split_first()
        {
            payload = rest;
            self.bytes[self.len] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.bytes[..self.len]) {
                Ok(character) => {
                    checked.push_str(character);
                    self.len = 0;
                }
                Err(error) if error.error_len().is_some() => return Err(CloseReason::InvalidUtf8),
                Err(_) => {}
            }
        }
        Ok(payload)
    }

    /// Keeps the beginning of a character; fails if no character begins with these bytes.
    fn begin(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        if let Err(error) = std::str::from_utf8(bytes) {
            if error.error_len().is_some() {
                return Err(CloseReason::InvalidUtf8);
            }
            self.bytes[..bytes.len()].copy_from_slice(bytes);
            self.len = bytes.len();
        }
        Ok(())
    }
}

/// Longest text that is wiped when its assembly is dropped. This is more than a login takes by default
/// (`login_body_bytes_max`), and wiping it costs no more than a few copies.
const WIPED_BYTES_MAX: usize = 16 * 1024;

/// Number of bytes at the end of `text` that are the beginning of an incomplete character: 0 to 3.
fn unfinished_len(text: &[u8]) -> usize {
    for (back, &byte) in text.iter().rev().take(3).enumerate() {
        let character_len = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x00..=0x7f => 1,
        };
        return if character_len > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests;
