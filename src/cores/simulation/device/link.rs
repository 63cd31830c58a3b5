//! One connection of an MQTT client: bytes, frames of a WebSocket, packets.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::packets::{self, Ack, Packet, Version};
use crate::cores::simulation::random::Random;
use crate::cores::simulation::wire::{BINARY, CLOSE, push_frame, response_head, take_frame};
use crate::cores::simulation::world::GroundTruth;

#[derive(Debug)]
pub(super) struct Link {
    /// Its number among all connections of MQTT clients.
    pub(super) number: usize,
    pub(super) socket: Option<UnixStream>,
    version: Version,
    /// Whether the server has yet to agree on the WebSocket; `None` without one.
    upgrading: Option<bool>,
    out: Vec<u8>,
    /// How many bytes were queued, and how many of them the socket has taken.
    queued: usize,
    written: usize,
    raw: Vec<u8>,
    input: Vec<u8>,
    /// The ends, in the stream of queued bytes, of packets for which the model must know when they are
    /// written.
    marks: VecDeque<(usize, Mark)>,
    pub(super) is_open: bool,
    /// The server has ended the WebSocket.
    pub(super) has_close: bool,
    /// It has got an answer of HTTP, and no packet.
    is_refused: bool,
    pub(super) attentive: bool,
    /// It was not attentive for a time.
    pub(super) dozed: bool,
    pub(super) sent_fin: bool,
    pub(super) sent_garbage: bool,
    pub(super) sent_disconnect: bool,
    pub(super) keep_alive_s: u16,
    /// Most publications that it has said it takes at a time, and how many it has not acknowledged.
    pub(super) receive_maximum: u16,
    pub(super) in_flight: usize,
    /// Most publications that the server takes at a time.
    pub(super) server_maximum: u16,
    /// The end of the ring when it was known to be open.
    pub(super) opened_at: u64,
    /// Acknowledgements that it has not sent.
    pub(super) owed: Vec<(Ack, u16)>,
    /// The code of the server's DISCONNECT.
    pub(super) code: Option<u8>,
}

/// A packet that has left altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// SUBSCRIBE or UNSUBSCRIBE with this identifier.
    Filter(u16),
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: simulation\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\n\r\n";

impl Link {
    pub(super) fn new(number: usize, socket: UnixStream, version: Version, in_websocket: bool) -> Link {
        let out = if in_websocket {
            REQUEST.as_bytes().to_vec()
        } else {
            Vec::new()
        };
        Link {
            number,
            socket: Some(socket),
            version,
            upgrading: in_websocket.then_some(true),
            queued: out.len(),
            out,
            written: 0,
            raw: Vec::new(),
            input: Vec::new(),
            marks: VecDeque::new(),
            is_open: false,
            has_close: false,
            is_refused: false,
            attentive: true,
            dozed: false,
            sent_fin: false,
            sent_garbage: false,
            sent_disconnect: false,
            keep_alive_s: 0,
            receive_maximum: u16::MAX,
            in_flight: 0,
            server_maximum: u16::MAX,
            opened_at: 0,
            owed: Vec::new(),
            code: None,
        }
    }

    /// Whether the server may still handle what the client sends.
    pub(super) fn may_send(&self) -> bool {
        self.socket.is_some() && !self.sent_fin && !self.sent_disconnect && !self.sent_garbage
    }

    pub(super) fn unwritten(&self) -> usize {
        self.out.len()
    }

    /// Queues a packet, in a WebSocket in one or more frames.
    pub(super) fn queue(&mut self, random: &mut Random, packet: &[u8]) {
        let before = self.out.len();
        if self.upgrading.is_none() {
            self.out.extend(packet);
        } else {
            let mut rest = packet;
            while !rest.is_empty() {
                let end = if random.chance(3, 4) {
                    rest.len()
                } else {
                    random.below(rest.len() + 1)
                };
                let (part, behind) = rest.split_at(end);
                push_frame(&mut self.out, random, 0x80 | BINARY, part);
                rest = behind;
            }
        }
        self.queued += self.out.len() - before;
    }

    /// The model must know when the bytes queued last are written.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push_back((self.queued, mark));
    }

    /// Writes as much as the socket takes, `max` bytes at most. Returns whether anything left.
    pub(super) fn write(&mut self, max: usize) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let max = max.min(self.out.len());
        if max == 0 || self.sent_fin {
            return false;
        }
        match socket.write(&self.out[..max]) {
            Ok(count) => {
                self.out.drain(..count);
                self.written += count;
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The server has ended the connection; the bytes that it sent before can still be read.
            Err(_) => {
                self.out.clear();
                self.sent_fin = true;
                true
            }
        }
    }

    /// The next marked packet that has left altogether.
    pub(super) fn next_mark(&mut self) -> Option<Mark> {
        let written = self.written;
        self.marks
            .pop_front_if(|(end, _)| *end <= written)
            .map(|(_, mark)| mark)
    }

    /// Reads at most `max` bytes. `Some(true)` if any came, `Some(false)` at the end of the connection.
    pub(super) fn read(&mut self, max: usize) -> Option<bool> {
        let socket = self.socket.as_mut()?;
        let mut buffer = [0; 8192];
        let room = max.min(buffer.len());
        match socket.read(&mut buffer[..room]) {
            Ok(count @ 1..) => {
                self.raw.extend_from_slice(&buffer[..count]);
                Some(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Ok(_) | Err(_) => Some(false),
        }
    }

    /// The next packet that has come.
    pub(super) fn next_packet(&mut self, truth: &GroundTruth) -> Option<Packet> {
        // The server had no room, before it knew the protocol.
        self.is_refused |= !self.is_open && self.upgrading.is_none() && self.raw.starts_with(b"H");
        if self.is_refused {
            self.raw.clear();
            return None;
        }
        if let Some(is_upgrading) = &mut self.upgrading {
            if *is_upgrading {
                let (status, end) = response_head(&self.raw)?;
                if status != 101 {
                    // The body says why.
                    self.raw.clear();
                    return None;
                }
                *is_upgrading = false;
                self.raw.drain(..end);
            }
            loop {
                match take_frame(&self.raw) {
                    Ok(Some((frame, length))) => {
                        self.raw.drain(..length);
                        if frame.opcode == BINARY {
                            self.input.extend(frame.payload);
                        }
                        self.has_close |= frame.opcode == CLOSE;
                    }
                    Ok(None) => break,
                    Err(error) => truth.fail(&format!("connection {}: {error}", self.number)),
                }
            }
        } else {
            self.input.append(&mut self.raw);
        }
        match packets::take(self.version, &self.input) {
            Ok(Some((packet, length))) => {
                self.input.drain(..length);
                Some(packet)
            }
            Ok(None) => None,
            Err(error) => truth.fail(&format!("connection {}: {error}", self.number)),
        }
    }

    /// Ends its own direction.
    pub(super) fn send_fin(&mut self) {
        if let Some(socket) = &self.socket {
            // It may have been reset.
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.sent_fin = true;
        self.out.clear();
    }

    /// Disappears without a packet; with a reset, if some bytes have not been read.
    pub(super) fn disappear(&mut self) {
        self.socket = None;
        self.is_open = false;
    }
}
