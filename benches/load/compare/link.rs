//! One connection to one of the servers, which checks everything that it receives.
//!
//! ```text
//!   Connecting ─► Upgrading ─► Greeting ─┬─────────────────► Open ─► Closing
//!                                        └─► Subscribing ─────▲
//! ```
//!
//! Replies must arrive in the order of their calls, and publications of a channel in their order, each once. With the
//! bare echo, the handshake is a ping, and the reply to a ping is the ping itself. Anything else is an error.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::super::wire::{self, Message};

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    SocketCluster,
    /// It sends each message back.
    Echo,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    stage: Stage,
    /// The channel to subscribe to before the link is open.
    channel: Option<u32>,
    next_cid: u32,
    /// The call that the next reply must answer.
    awaited: u32,
    /// The number that the next publication must have.
    next_number: u32,
    /// The beginning of an incomplete frame.
    rest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Open,
    Closing,
}

/// State that all links to a server share.
pub(crate) struct Shared {
    pub(crate) dialect: Dialect,
    pub(crate) request: Vec<u8>,
    pub(crate) inbox: Vec<u8>,
    /// Bytes that the current link is about to send.
    pub(crate) outbox: Vec<u8>,
}

/// The received messages, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) opened: bool,
    pub(crate) replies: u32,
    pub(crate) deliveries: u32,
    pub(crate) ended: bool,
}

impl Link {
    /// A link with a socket that is connecting.
    pub(crate) fn new(stream: TcpStream, channel: Option<u32>) -> Link {
        Link {
            stream,
            stage: Stage::Connecting,
            channel,
            next_cid: 1,
            awaited: 1,
            next_number: 0,
            rest: Vec::new(),
        }
    }

    /// Sends the request, if the socket is connected and the request was not sent before.
    pub(crate) fn connected(&mut self, shared: &Shared) -> Result<(), String> {
        if self.stage != Stage::Connecting {
            return Ok(());
        }
        match self.stream.write(&shared.request) {
            Ok(count) if count == shared.request.len() => self.stage = Stage::Upgrading,
            Ok(count) => return Err(format!("a fresh socket took {count} bytes")),
            // The poll will report when the socket is connected.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) => {}
            Err(error) => return Err(format!("connect: {error}")),
        }
        Ok(())
    }

    /// Puts a ping into the outbox.
    pub(crate) fn ping(&mut self, shared: &mut Shared) {
        wire::ping(&mut shared.outbox, self.next_cid);
        self.next_cid += 1;
    }

    /// Puts a close frame into the outbox; messages before its answer are ignored.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        wire::close(&mut shared.outbox);
        self.stage = Stage::Closing;
    }

    /// Sends the outbox. It is so short that a socket which does not take all of it is a fault.
    pub(crate) fn flush(&mut self, shared: &mut Shared) -> Result<(), String> {
        if shared.outbox.is_empty() {
            return Ok(());
        }
        let written = self.stream.write(&shared.outbox);
        let wanted = shared.outbox.len();
        shared.outbox.clear();
        match written {
            Ok(count) if count == wanted => Ok(()),
            Ok(count) => Err(format!("the socket took {count} of {wanted} bytes")),
            Err(error) => Err(format!("write: {error}")),
        }
    }

    /// Reads messages, and puts answers that the protocol requires into the outbox.
    pub(crate) fn readable(&mut self, shared: &mut Shared) -> Result<Progress, String> {
        let mut progress = Progress::default();
        if self.stage == Stage::Connecting {
            return Ok(progress);
        }
        loop {
            let kept = self.rest.len();
            shared.inbox[..kept].copy_from_slice(&self.rest);
            let count = match self.stream.read(&mut shared.inbox[kept..]) {
                Ok(0) if self.stage == Stage::Closing => {
                    progress.ended = true;
                    return Ok(progress);
                }
                Ok(0) => return Err(format!("closed by the server while {:?}", self.stage)),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(progress),
                    io::ErrorKind::ConnectionReset if self.stage == Stage::Closing => {
                        progress.ended = true;
                        return Ok(progress);
                    }
                    _ => return Err(format!("read: {error}")),
                },
            };
            let filled = kept + count == shared.inbox.len();
            // Moved out, so that messages can borrow from it while the other fields are borrowed mutably.
            let inbox = std::mem::take(&mut shared.inbox);
            let taken = self.take_all(&inbox[..kept + count], shared, &mut progress);
            self.rest.clear();
            if let Ok(taken) = taken {
                self.rest.extend_from_slice(&inbox[taken..kept + count]);
            }
            shared.inbox = inbox;
            taken?;
            if progress.ended || !filled {
                return Ok(progress);
            }
        }
    }

    /// Handles whole frames; returns their length in bytes.
    fn take_all(
        &mut self,
        bytes: &[u8],
        shared: &mut Shared,
        progress: &mut Progress,
    ) -> Result<usize, String> {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some(count) = wire::upgraded(bytes)? else {
                return Ok(0);
            };
            taken = count;
            self.stage = Stage::Greeting;
            match shared.dialect {
                Dialect::SocketCluster => {
                    wire::handshake(&mut shared.outbox, self.next_cid);
                    self.next_cid += 1;
                }
                Dialect::Echo => self.ping(shared),
            }
        }
        while let Some(frame) = wire::frame(&bytes[taken..])? {
            taken += frame.bytes;
            match (frame.opcode, self.stage) {
                (wire::CLOSE, Stage::Closing) => {
                    progress.ended = true;
                    return Ok(taken);
                }
                (_, Stage::Closing) => {}
                (wire::TEXT, _) => self.take(frame.payload, shared, progress)?,
                (wire::PING, _) => {
                    wire::masked(&mut shared.outbox, wire::PONG, |out| {
                        out.extend_from_slice(frame.payload);
                    });
                }
                (opcode, stage) => return Err(format!("a frame with op code {opcode} while {stage:?}")),
            }
        }
        Ok(taken)
    }

    fn take(&mut self, text: &[u8], shared: &mut Shared, progress: &mut Progress) -> Result<(), String> {
        let message = match shared.dialect {
            Dialect::SocketCluster => wire::message(text, "")?,
            Dialect::Echo => echoed(text).ok_or_else(|| wire::shown(text))?,
        };
        match message {
            Message::Reply { rid, count } => {
                if rid != self.awaited {
                    return Err(format!("the reply to {rid} instead of {}", self.awaited));
                }
                self.awaited += 1;
                match (self.stage, count) {
                    (Stage::Greeting, _) => self.greeted(shared, progress),
                    (Stage::Subscribing, _) => {
                        self.stage = Stage::Open;
                        progress.opened = true;
                    }
                    (Stage::Open, Some(_)) => progress.replies += 1,
                    (stage, count) => {
                        return Err(format!("the reply to {rid} while {stage:?}, count {count:?}"));
                    }
                }
            }
            Message::Publication(publication) => {
                if Some(publication.channel) != self.channel || publication.number != self.next_number {
                    let (channel, next) = (self.channel, self.next_number);
                    return Err(format!(
                        "{publication:?} instead of {next} on channel {channel:?}"
                    ));
                }
                self.next_number += 1;
                progress.deliveries += 1;
            }
            Message::Heartbeat => wire::masked(&mut shared.outbox, wire::TEXT, |_| {}),
            Message::HeartbeatV1 => {
                wire::masked(&mut shared.outbox, wire::TEXT, |out| out.extend_from_slice(b"#2"));
            }
        }
        Ok(())
    }

    fn greeted(&mut self, shared: &mut Shared, progress: &mut Progress) {
        if let Some(channel) = self.channel {
            wire::subscribe(&mut shared.outbox, channel, self.next_cid);
            self.next_cid += 1;
            self.stage = Stage::Subscribing;
        } else {
            self.stage = Stage::Open;
            progress.opened = true;
        }
    }
}

/// The reply of the echo: the ping itself.
fn echoed(text: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(text).ok()?;
    let (ping, cid) = text.strip_suffix('}')?.rsplit_once(r#","cid":"#)?;
    (ping == r#"{"event":"ping","data":{"param":"hello"}"#).then_some(())?;
    let rid = cid.parse().ok()?;
    Some(Message::Reply { rid, count: Some(0) })
}
