//! How the bytes of an open connection are framed: a connection is a transport, a wire and a session.
//!
//! The input side is the [`Wire`]: what is kept of a frame or message that has come in part. The output side is the
//! [`Framing`], a byte: what the outbox, the connection's end and its deliveries must know of the frames that are sent.
//! A core has both for each connection and looks into neither, except where it reads messages from the wire
//! (`cores/input/intake.rs`) and where it answers the request that has agreed on it (`cores/arrivals/upgrade.rs`).

use crate::decision::CloseReason;
use crate::websocket::close::CloseFrame;
use crate::websocket::deflate::Compression;
use crate::websocket::frame::{self, OpCode};
use crate::websocket::message::Receiver;

/// The state that an open connection keeps between two reads of its input.
#[derive(Debug)]
pub(crate) enum Wire {
    /// Frames of RFC 6455, from a client.
    WebSocket(Receiver),
}

/// How the bytes are framed that are sent to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Frames of RFC 6455, with what was agreed on about compression.
    WebSocket(Compression),
}

/// The kind of the payload of a frame that the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A message of text.
    Text,
    /// A message of bytes.
    Binary,
    /// The answer to a ping of the wire.
    Pong,
}

/// The last bytes of a connection: the wire's way to say that it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Farewell<'a> {
    /// A close frame.
    WebSocket(CloseFrame<'a>),
}

impl Wire {
    /// Bytes of memory that a message takes which has come in part.
    #[inline]
    pub(crate) fn assembly_bytes(&self) -> usize {
        match self {
            Wire::WebSocket(receiver) => receiver.assembly_bytes(),
        }
    }
}

impl Framing {
    /// The framing of a connection before its request is answered.
    pub(crate) const UNKNOWN: Framing = Framing::WebSocket(Compression::Off);

    /// The length of the frame that `bytes` begin with; `None` if its header is not complete.
    pub(crate) fn next_len(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Framing::WebSocket(_) => frame::next_frame_len(bytes),
        }
    }

    /// The compression that client and server agreed on.
    #[inline]
    pub(crate) const fn compression(self) -> Compression {
        match self {
            Framing::WebSocket(compression) => compression,
        }
    }

    /// The bytes that tell the peer why its connection ends; `None` if this reason has none. `text` is cut to fit.
    pub(crate) fn farewell(self, reason: CloseReason, text: &str) -> Option<Farewell<'_>> {
        let code = reason.code()?;
        match self {
            Framing::WebSocket(_) => Some(Farewell::WebSocket(CloseFrame {
                code: Some(code),
                reason: text,
            })),
        }
    }
}

impl Content {
    /// Whether it is a message of the client's protocol, rather than of the wire.
    #[inline]
    pub(crate) const fn is_message(self) -> bool {
        match self {
            Content::Text | Content::Binary => true,
            Content::Pong => false,
        }
    }

    /// The op code of its frame on a WebSocket.
    #[inline]
    pub(crate) const fn opcode(self) -> OpCode {
        match self {
            Content::Text => OpCode::Text,
            Content::Binary => OpCode::Binary,
            Content::Pong => OpCode::Pong,
        }
    }
}

impl Farewell<'_> {
    /// Whether the peer that has sent this farewell leaves of its own accord, as a client whose application disconnects
    /// it: with code 1000 or without a code. A browser that leaves the page sends 1001.
    pub(crate) fn is_orderly(&self) -> bool {
        match self {
            Farewell::WebSocket(close) => close.code.is_none_or(|code| code.as_u16() == 1000),
        }
    }

    /// Appends its frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Farewell::WebSocket(close) => close.write(out),
        }
    }
}
