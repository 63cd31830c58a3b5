//! One connection to one of the servers, which checks everything that it receives.
//!
//! ```text
//!   Connecting ─► Upgrading ─► Greeting ─┬─────────────────► Open ─► Closing
//!                                        └─► Subscribing ─────▲
//! ```
//!
//! Replies must arrive in the order of their calls, and publications of a channel in their order, each once. With the
//! bare echo, the handshake is a ping, and the reply to a ping is the ping itself. With MQTT there is no upgrade: the
//! greeting is CONNECT, and the server closes the socket after DISCONNECT. Anything else is an error.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::super::mqtt::flow::Flow;
use super::super::mqtt::wire as packets;
use super::super::mqtt::wire::Packet;
use super::super::mqtt::{Filters, Qos, Speech};
use super::super::wire::{self, Message, Publication};

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    SocketCluster,
    /// It sends each message back.
    Echo,
    Mqtt(Speech),
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    /// Its number among the links of the load.
    number: u32,
    stage: Stage,
    /// The channel to subscribe to before the link is open.
    channel: Option<u32>,
    next_cid: u32,
    /// The call that the next reply must answer.
    awaited: u32,
    /// The number that the next publication must have.
    next_number: u32,
    /// The same for each channel, if the link receives those of all channels.
    next_numbers: Vec<u32>,
    /// The beginning of an incomplete frame.
    rest: Vec<u8>,
    /// With QoS 1 or 2.
    flow: Option<Box<Flow>>,
    /// Whether the server must have kept the session.
    is_returning: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Open,
    Closing,
    Ended,
}

/// State that all links to a server share.
pub(crate) struct Shared {
    pub(crate) dialect: Dialect,
    pub(crate) request: Vec<u8>,
    pub(crate) inbox: Vec<u8>,
    /// Bytes that the current link is about to send.
    pub(crate) outbox: Vec<u8>,
    /// Deliveries by channel that the load has not counted yet.
    pub(crate) delivered: Vec<(u32, u32)>,
    /// Distinguishes the MQTT clients of this load from those of other loads on the same server.
    pub(crate) group: u32,
    /// Padding of the payload of publications.
    pub(crate) pad: String,
}

/// The received messages, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) opened: bool,
    pub(crate) replies: u32,
    pub(crate) deliveries: u32,
    /// Publications of this link, which the server has acknowledged.
    pub(crate) acknowledged: u32,
    pub(crate) ended: bool,
}

impl Link {
    /// A link with a socket that is connecting.
    pub(crate) fn new(stream: TcpStream, number: u32, channel: Option<u32>) -> Link {
        Link {
            stream,
            number,
            stage: Stage::Connecting,
            channel,
            next_cid: 1,
            awaited: 1,
            next_number: 0,
            next_numbers: Vec::new(),
            rest: Vec::new(),
            flow: None,
            is_returning: false,
        }
    }

    /// Connects again with this socket, and expects that the server has kept the session.
    pub(crate) fn return_with(&mut self, stream: TcpStream) {
        self.stream = stream;
        self.stage = Stage::Connecting;
        self.rest = Vec::new();
        self.flow = None;
        self.is_returning = true;
    }

    /// Sends the request, if the socket is connected and the request was not sent before.
    pub(crate) fn connected(&mut self, shared: &mut Shared) -> Result<(), String> {
        if self.stage != Stage::Connecting {
            return Ok(());
        }
        let next = match shared.dialect {
            Dialect::SocketCluster | Dialect::Echo => Stage::Upgrading,
            Dialect::Mqtt(speech) => {
                shared.request.clear();
                packets::connect(
                    &mut shared.request,
                    shared.group,
                    self.number,
                    speech.keep_alive_s,
                    &speech,
                );
                Stage::Greeting
            }
        };
        match self.stream.write(&shared.request) {
            Ok(count) if count == shared.request.len() => self.stage = next,
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

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Puts a ping into the outbox.
    pub(crate) fn ping(&mut self, shared: &mut Shared) {
        wire::ping(&mut shared.outbox, self.next_cid);
        self.next_cid += 1;
    }

    /// Puts a close frame or DISCONNECT into the outbox; messages before the end are ignored.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        match shared.dialect {
            Dialect::SocketCluster | Dialect::Echo => wire::close(&mut shared.outbox),
            Dialect::Mqtt(_) => packets::disconnect(&mut shared.outbox),
        }
        self.stage = Stage::Closing;
    }

    /// Puts a publication into the outbox.
    pub(crate) fn publish(&mut self, publication: &Publication, shared: &mut Shared) {
        match shared.dialect {
            Dialect::SocketCluster | Dialect::Echo => {
                wire::publish(&mut shared.outbox, publication, &shared.pad);
            }
            Dialect::Mqtt(speech) => {
                let id = (speech.qos != Qos::Zero).then(|| self.flow.get_or_insert_default().begin());
                packets::publish(&mut shared.outbox, publication, id, &shared.pad, &speech);
            }
        }
    }

    /// Puts a further SUBSCRIBE into the outbox, and expects its answer.
    pub(crate) fn subscribe_again(&mut self, speech: &Speech, shared: &mut Shared) {
        packets::subscribe(&mut shared.outbox, self.channel.unwrap_or(0), speech);
        self.stage = Stage::Subscribing;
        self.next_numbers.clear();
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
        if matches!(self.stage, Stage::Connecting | Stage::Ended) {
            return Ok(progress);
        }
        loop {
            let kept = self.rest.len();
            shared.inbox[..kept].copy_from_slice(&self.rest);
            let count = match self.stream.read(&mut shared.inbox[kept..]) {
                Ok(0) if self.stage == Stage::Closing => {
                    self.stage = Stage::Ended;
                    progress.ended = true;
                    return Ok(progress);
                }
                Ok(0) => return Err(format!("closed by the server while {:?}", self.stage)),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(progress),
                    io::ErrorKind::ConnectionReset if self.stage == Stage::Closing => {
                        self.stage = Stage::Ended;
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
        if let Dialect::Mqtt(speech) = shared.dialect {
            return self.take_packets(bytes, &speech, shared, progress);
        }
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some(count) = wire::upgraded(bytes)? else {
                return Ok(0);
            };
            taken = count;
            self.stage = Stage::Greeting;
            if shared.dialect == Dialect::Echo {
                self.ping(shared);
            } else {
                wire::handshake(&mut shared.outbox, self.next_cid);
                self.next_cid += 1;
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
        let message = if shared.dialect == Dialect::Echo {
            echoed(text).ok_or_else(|| wire::shown(text))?
        } else {
            wire::message(text, "")?
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
                note(&mut shared.delivered, publication.channel);
            }
            Message::Heartbeat => wire::masked(&mut shared.outbox, wire::TEXT, |_| {}),
            Message::HeartbeatV1 => {
                wire::masked(&mut shared.outbox, wire::TEXT, |out| out.extend_from_slice(b"#2"));
            }
        }
        Ok(())
    }

    /// Handles whole MQTT packets; returns their length in bytes.
    fn take_packets(
        &mut self,
        bytes: &[u8],
        speech: &Speech,
        shared: &mut Shared,
        progress: &mut Progress,
    ) -> Result<usize, String> {
        let mut taken = 0;
        while let Some((packet, length)) = packets::packet(&bytes[taken..], &shared.pad, speech)? {
            taken += length;
            match (packet, self.stage) {
                (_, Stage::Closing) => {}
                (Packet::ConnAck { session_present }, Stage::Greeting) => {
                    if session_present != self.is_returning {
                        return Err(format!("CONNACK with Session Present {session_present}"));
                    }
                    match self.channel {
                        Some(channel) if !self.is_returning => {
                            packets::subscribe(&mut shared.outbox, channel, speech);
                            self.stage = Stage::Subscribing;
                        }
                        Some(_) | None => {
                            self.stage = Stage::Open;
                            progress.opened = true;
                        }
                    }
                }
                (Packet::SubAck, Stage::Subscribing) => {
                    self.stage = Stage::Open;
                    progress.opened = true;
                }
                // Retained publications may come before SUBACK.
                (Packet::Publish { id, publication }, Stage::Open | Stage::Subscribing) => {
                    self.check(&publication, speech)?;
                    progress.deliveries += 1;
                    note(&mut shared.delivered, publication.channel);
                    if id != 0 {
                        let flow = self.flow.get_or_insert_default();
                        flow.delivered(speech.qos, id, &mut shared.outbox)?;
                    }
                }
                (Packet::Answer { kind, id }, Stage::Open) => {
                    let flow = self.flow.get_or_insert_default();
                    let is_complete = flow.answered(kind, id, speech.qos, &mut shared.outbox)?;
                    progress.acknowledged += u32::from(is_complete);
                }
                (packet, stage) => return Err(format!("{packet:?} while {stage:?}")),
            }
        }
        Ok(taken)
    }

    /// Checks that a publication is the next one of its channel, and that this link has subscribed to it.
    fn check(&mut self, publication: &Publication, speech: &Speech) -> Result<(), String> {
        let next = match speech.filters {
            Filters::Exact | Filters::Wildcard if Some(publication.channel) != self.channel => {
                let channel = self.channel;
                return Err(format!("{publication:?} to a subscriber of channel {channel:?}"));
            }
            Filters::Exact | Filters::Wildcard => &mut self.next_number,
            Filters::Everything | Filters::Prefix => {
                let index = publication.channel as usize;
                if index >= self.next_numbers.len() {
                    self.next_numbers.resize(index + 1, 0);
                }
                &mut self.next_numbers[index]
            }
        };
        if publication.number != *next {
            return Err(format!("{publication:?}, due was number {next}"));
        }
        *next += 1;
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

/// Counts a delivery on a channel.
fn note(delivered: &mut Vec<(u32, u32)>, channel: u32) {
    match delivered.last_mut() {
        Some((last, count)) if *last == channel => *count += 1,
        Some(_) | None => delivered.push((channel, 1)),
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
