//! How the bytes of an open connection are framed: a connection is a transport, a wire and a session.
//!
//! The [`Framing`], a byte, says which kind of wire a connection has: the outbox, the end of the connection
//! and deliveries need it to build and parse the frames that are sent. The [`Wire`] keeps the received part
//! of an incomplete frame or message. A core has both for each connection and looks into neither, except
//! where it reads messages from the wire (`cores/input/intake.rs`) and where the wire is agreed on
//! (`cores/arrivals/upgrade.rs`, `cores/arrivals/mqtt.rs`).

use crate::decision::CloseReason;
use crate::mqtt::frame::packet_len;
use crate::session::ClientProtocol;
use crate::websocket::close::CloseFrame;
use crate::websocket::deflate::Compression;
use crate::websocket::frame::{self, OpCode};
use crate::websocket::message::Receiver;

/// The state that an open connection keeps between two reads of its input: the received part of an incomplete
/// frame of RFC 6455, if there are frames. The [`Framing`] says which kind of wire it is: a second word would
/// take another cache line of each connection. The received part of an incomplete MQTT packet is with its
/// session ([`MqttClient`](super::MqttClient)).
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) receiver: Receiver,
}

/// How the bytes are framed that are sent to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Frames of RFC 6455, with the compression that client and server agreed on.
    WebSocket(Compression),
    /// Frames of RFC 6455, uncompressed, with the packets of SocketCluster as the codec `min-bin` writes them.
    MinBin,
    /// Packets of MQTT, one behind the other.
    Mqtt,
    /// Packets of MQTT, each in a binary frame of RFC 6455.
    MqttOverWebSocket,
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

/// The last bytes of a connection, in the form in which the wire announces its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Farewell<'a> {
    /// A close frame.
    WebSocket(CloseFrame<'a>),
    /// The last packet of the session, whole.
    Mqtt(&'a [u8]),
    /// The last packet of the session, which may be none, and a close frame.
    MqttOverWebSocket(&'a [u8], CloseFrame<'a>),
}

impl Wire {
    /// Bytes of memory that an incomplete message takes.
    #[inline]
    pub(crate) fn assembly_bytes(&self) -> usize {
        self.receiver.assembly_bytes()
    }
}

impl Framing {
    /// The framing of a connection before its request is answered.
    pub(crate) const UNKNOWN: Framing = Framing::WebSocket(Compression::Off);

    /// The length of the frame that `bytes` begin with; `None` if its header is not complete.
    pub(crate) fn next_len(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Framing::WebSocket(_) | Framing::MinBin | Framing::MqttOverWebSocket => {
                frame::next_frame_len(bytes)
            }
            Framing::Mqtt => packet_len(bytes),
        }
    }

    /// The compression that client and server agreed on.
    #[inline]
    pub(crate) const fn compression(self) -> Compression {
        match self {
            Framing::WebSocket(compression) => compression,
            Framing::MinBin | Framing::Mqtt | Framing::MqttOverWebSocket => Compression::Off,
        }
    }

    /// The bytes that tell the peer why its connection ends; `None` if there are none. `text` is cut to fit,
    /// and `last_packet` is the last packet of the session in its own protocol.
    pub(crate) fn farewell<'a>(
        self,
        reason: CloseReason,
        text: &'a str,
        last_packet: &'a [u8],
    ) -> Option<Farewell<'a>> {
        let close = reason.code().map(|code| CloseFrame {
            code: Some(code),
            reason: text,
        });
        match self {
            Framing::WebSocket(_) | Framing::MinBin => close.map(Farewell::WebSocket),
            Framing::Mqtt => (!last_packet.is_empty()).then_some(Farewell::Mqtt(last_packet)),
            Framing::MqttOverWebSocket => close.map(|close| Farewell::MqttOverWebSocket(last_packet, close)),
        }
    }

    /// Appends the header that stands before a binary message of this size.
    #[inline]
    pub(crate) fn write_header(self, message_bytes: usize, out: &mut Vec<u8>) {
        match self {
            Framing::WebSocket(_) | Framing::MinBin | Framing::MqttOverWebSocket => {
                frame::write_header(out, OpCode::Binary, message_bytes);
            }
            Framing::Mqtt => {}
        }
    }

    /// The message in an uncompressed frame of this server; empty if `frame` is not a frame.
    pub(crate) fn message_in(self, frame: &[u8]) -> &[u8] {
        match self {
            Framing::WebSocket(_) | Framing::MinBin | Framing::MqttOverWebSocket => {
                frame::parts(frame).map_or(&[], |(_, message)| message)
            }
            Framing::Mqtt => frame,
        }
    }

    /// The protocol of the messages in the frames.
    pub(crate) const fn protocol(self) -> ClientProtocol {
        match self {
            Framing::WebSocket(_) | Framing::MinBin => ClientProtocol::SocketCluster,
            Framing::Mqtt | Framing::MqttOverWebSocket => ClientProtocol::Mqtt,
        }
    }

    /// Whether the peer answers our farewell with one of its own.
    pub(crate) const fn has_farewells(self) -> bool {
        match self {
            Framing::WebSocket(_) | Framing::MinBin | Framing::MqttOverWebSocket => true,
            // DISCONNECT has no answer: the side that sends it closes the connection (section 3.14).
            Framing::Mqtt => false,
        }
    }
}

impl Content {
    /// Whether this is a message of the client's protocol, rather than of the wire.
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
    /// Whether the peer that has sent this farewell leaves on purpose, like a client whose application
    /// disconnects: with code 1000 or without a code. A browser that leaves the page sends 1001.
    pub(crate) fn is_orderly(&self) -> bool {
        match self {
            Farewell::WebSocket(close) => close.code.is_none_or(|code| code.as_u16() == 1000),
            // For MQTT, the session has read DISCONNECT itself.
            Farewell::Mqtt(_) | Farewell::MqttOverWebSocket(..) => false,
        }
    }

    /// Appends its frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Farewell::WebSocket(close) => close.write(out),
            Farewell::Mqtt(packet) => out.extend_from_slice(packet),
            Farewell::MqttOverWebSocket(packet, close) => {
                if !packet.is_empty() {
                    frame::write(out, OpCode::Binary, packet);
                }
                close.write(out);
            }
        }
    }
}
