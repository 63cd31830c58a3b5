//! The state of one connection, which checks everything that it receives.
//!
//! A connection is small, because there may be a million: while it waits, it owns no buffer. It reads into the buffer
//! of its thread and writes its messages into another buffer of the thread. The connection itself keeps only incomplete
//! input, bytes that the socket did not accept, and the times of calls if more than one is in flight.
//!
//! ```text
//!   Connecting ─► Upgrading ─► Handshaking ─► Subscribing ─► Open ─► Closing
//!                                      └──────────(not a subscriber)──▲
//! ```
//!
//! It checks the answer to the upgrade; that replies arrive in the order of their calls, once each; that the count in
//! the replies to pings grows; and that publications arrive in the order of their channel (`order`). An MQTT client has
//! no upgrade, its handshake is CONNECT, and its calls are PINGREQs and publications with QoS 1 or 2
//! (`client/mqtt.rs`).

mod mqtt;

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::crowd::{Crowd, Role};
use super::mqtt::Speech;
use super::mqtt::flow::Flow;
use super::order::Orders;
use super::tally::Tally;
use super::wire::{self, Message, Publication};

/// One connection, or a vacant place for one.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Option<TcpStream>,
    /// Its number among all clients of the run.
    number: u32,
    role: Role,
    stage: Stage,
    next_cid: u32,
    /// The call that the next reply must answer.
    awaited: u32,
    /// Publications received on its channel.
    place: u32,
    /// The count in the last reply to a ping.
    count: u64,
    /// The time at which the oldest unanswered call was due; while the connection opens, the start of the connect.
    since: u64,
    rest: Option<Box<Rest>>,
}

/// The protocol of the clients.
#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    /// With this upgrade request.
    SocketCluster(Vec<u8>),
    /// `group` distinguishes the clients from those of other threads and crews.
    Mqtt { speech: Speech, group: u32 },
}

/// State that only a busy connection needs.
#[derive(Debug, Default)]
struct Rest {
    input: Vec<u8>,
    output: Vec<u8>,
    /// The times at which the calls after the oldest unanswered one were due.
    since: VecDeque<u64>,
    /// With MQTT and QoS 1 or 2.
    flow: Option<Flow>,
}

/// The stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is no connection.
    Vacant,
    Connecting,
    Upgrading,
    Handshaking,
    Subscribing,
    Open,
    /// Our close frame is sent.
    Closing,
}

/// Buffers and counters of the thread, which its clients use.
pub(crate) struct Shared<'a> {
    pub(crate) crowd: &'a Crowd,
    pub(crate) orders: &'a mut Orders,
    pub(crate) tally: &'a mut Tally,
    pub(crate) latency_of_second: &'a mut super::tally::Times,
    /// Deliveries that have not been reported to the crowd yet, by channel.
    pub(crate) delivered: &'a mut Vec<(u32, u32)>,
    pub(crate) protocol: &'a Protocol,
    /// The buffer for reads.
    pub(crate) inbox: &'a mut [u8],
    /// Bytes that the client is about to send.
    pub(crate) outbox: &'a mut Vec<u8>,
    pub(crate) now: u64,
}

/// The reason why a connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The server has answered our close frame, as planned.
    Closed,
    /// The server closed the connection, with this code if there was one.
    ByServer(Option<u16>),
    /// The server sent something unexpected, so the client has dropped the connection.
    Fault(String),
}

impl Client {
    /// A vacant place for the client with this number.
    pub(crate) fn vacant(number: u32, role: Role) -> Client {
        Client {
            stream: None,
            number,
            role,
            stage: Stage::Vacant,
            next_cid: 1,
            awaited: 1,
            place: 0,
            count: 0,
            since: 0,
            rest: None,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Number of publications of its channel that it has received.
    pub(crate) fn place(&self) -> u32 {
        self.place
    }

    /// Number of calls without a reply; with MQTT also of publications that are not acknowledged.
    pub(crate) fn in_flight(&self) -> u32 {
        self.next_cid - self.awaited
    }

    /// Begins with a socket that is connecting.
    pub(crate) fn connecting(&mut self, stream: TcpStream, shared: &mut Shared<'_>) -> Result<(), Ended> {
        *self = Client {
            stream: Some(stream),
            stage: Stage::Connecting,
            since: shared.now,
            ..Client::vacant(self.number, self.role)
        };
        self.writable(shared)
    }

    /// The socket is writable: sends the remaining bytes, or the request after the connect.
    pub(crate) fn writable(&mut self, shared: &mut Shared<'_>) -> Result<(), Ended> {
        if self.stage == Stage::Connecting {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let (request, next) = match shared.protocol {
                Protocol::SocketCluster(request) => (request, Stage::Upgrading),
                Protocol::Mqtt { speech, group } => {
                    shared.outbox.clear();
                    mqtt::connect(shared.outbox, self.number, self.role, *group, speech);
                    (&*shared.outbox, Stage::Handshaking)
                }
            };
            let written = stream.write(request);
            let length = request.len();
            if matches!(shared.protocol, Protocol::Mqtt { .. }) {
                shared.outbox.clear();
            }
            match written {
                Ok(count) if count == length => {
                    shared.tally.counts.sent_bytes += count as u64;
                    self.stage = next;
                    Ok(())
                }
                Ok(count) => Err(Ended::Fault(format!("a fresh socket took {count} bytes"))),
                // Still connecting: the poll will report when the socket is writable.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    Ok(())
                }
                Err(error) => Err(Ended::Fault(format!("connect: {error}"))),
            }
        } else if self.rest.as_ref().is_some_and(|rest| !rest.output.is_empty()) {
            self.write_rest(shared)
        } else {
            Ok(())
        }
    }

    /// Reads and handles all input; answers wait in the outbox for [`Client::flush`].
    ///
    /// A read that does not fill the buffer has emptied the socket. If the connection is about to end, it reads to the
    /// end.
    pub(crate) fn readable(&mut self, to_the_end: bool, shared: &mut Shared<'_>) -> Result<(), Ended> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let count = match stream.read(shared.inbox) {
                Ok(0) => return Err(self.ended(None)),
                Ok(count) => count,
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => Ok(()),
                        io::ErrorKind::Interrupted => continue,
                        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(self.ended(None)),
                        _ => Err(Ended::Fault(format!("read: {error}"))),
                    };
                }
            };
            shared.tally.counts.received_bytes += count as u64;
            shared.now = super::clock::now_ns();
            self.receive(count, shared)?;
            if count < shared.inbox.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Calls `ping`; the call was due at `intended`.
    pub(crate) fn ping(&mut self, intended: u64, shared: &mut Shared<'_>) {
        if self.in_flight() == 0 {
            self.since = intended;
        } else {
            self.rest.get_or_insert_default().since.push_back(intended);
        }
        let cid = self.take_cid();
        match shared.protocol {
            Protocol::SocketCluster(_) => wire::ping(shared.outbox, cid),
            Protocol::Mqtt { .. } => mqtt::ping(shared.outbox),
        }
        shared.tally.counts.pings += 1;
    }

    /// Publishes.
    pub(crate) fn publish(&mut self, publication: &Publication, shared: &mut Shared<'_>) {
        match shared.protocol {
            Protocol::SocketCluster(_) => wire::publish(shared.outbox, publication, &shared.crowd.pad),
            Protocol::Mqtt { speech, .. } => self.publish_packet(publication, speech, shared),
        }
    }

    /// Sends a close frame or DISCONNECT.
    pub(crate) fn close(&mut self, shared: &mut Shared<'_>) {
        self.stage = Stage::Closing;
        match shared.protocol {
            Protocol::SocketCluster(_) => wire::close(shared.outbox),
            Protocol::Mqtt { .. } => mqtt::disconnect(shared.outbox),
        }
    }

    /// Sends the outbox, and keeps the bytes that the socket does not accept.
    pub(crate) fn flush(&mut self, shared: &mut Shared<'_>) -> Result<(), Ended> {
        if shared.outbox.is_empty() {
            return Ok(());
        }
        let waiting = self.rest.as_ref().is_some_and(|rest| !rest.output.is_empty());
        let written = match &mut self.stream {
            Some(stream) if !waiting => stream.write(shared.outbox),
            Some(_) | None => Ok(0),
        };
        let written = self.written(written)?;
        shared.tally.counts.sent_bytes += written as u64;
        if written < shared.outbox.len() {
            let rest = self.rest.get_or_insert_default();
            rest.output.extend_from_slice(&shared.outbox[written..]);
        }
        shared.outbox.clear();
        Ok(())
    }

    /// Drops the socket, with any data on it.
    pub(crate) fn vacate(&mut self) {
        *self = Client::vacant(self.number, self.role);
    }

    /// True if bytes are waiting to be sent.
    pub(crate) fn is_writing(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.output.is_empty())
    }

    /// Frees memory that only a busy connection needs.
    pub(crate) fn slim(&mut self) {
        let empty = |rest: &Rest| {
            rest.input.is_empty() && rest.output.is_empty() && rest.since.is_empty() && rest.flow.is_none()
        };
        if self.rest.as_deref().is_some_and(empty) {
            self.rest = None;
        }
    }

    fn write_rest(&mut self, shared: &mut Shared<'_>) -> Result<(), Ended> {
        let (Some(stream), Some(rest)) = (&mut self.stream, &mut self.rest) else {
            return Ok(());
        };
        let written = stream.write(&rest.output);
        let written = self.written(written)?;
        shared.tally.counts.sent_bytes += written as u64;
        if let Some(rest) = &mut self.rest {
            rest.output.drain(..written);
        }
        Ok(())
    }

    /// Number of bytes written: 0 if the socket is full.
    fn written(&self, outcome: io::Result<usize>) -> Result<usize, Ended> {
        match outcome {
            Ok(count) => Ok(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(self.ended(None)),
                _ => Err(Ended::Fault(format!("write: {error}"))),
            },
        }
    }

    /// Handles `count` bytes of the inbox, after the incomplete input of earlier reads.
    fn receive(&mut self, count: usize, shared: &mut Shared<'_>) -> Result<(), Ended> {
        // Moved out, so that messages can borrow from it while the other fields are borrowed mutably.
        let inbox = std::mem::take(&mut shared.inbox);
        let outcome = match self.rest.as_mut().filter(|rest| !rest.input.is_empty()) {
            None => self.take_all(&inbox[..count], shared).map(|taken| {
                if taken < count {
                    let rest = self.rest.get_or_insert_default();
                    rest.input.extend_from_slice(&inbox[taken..count]);
                }
            }),
            Some(rest) => {
                let mut input = std::mem::take(&mut rest.input);
                input.extend_from_slice(&inbox[..count]);
                self.take_all(&input, shared).map(|taken| {
                    input.drain(..taken);
                    if let Some(rest) = &mut self.rest {
                        rest.input = input;
                    }
                })
            }
        };
        shared.inbox = inbox;
        outcome
    }

    /// Handles whole frames; returns their length in bytes.
    fn take_all(&mut self, bytes: &[u8], shared: &mut Shared<'_>) -> Result<usize, Ended> {
        if let Protocol::Mqtt { speech, .. } = shared.protocol {
            return self.take_packets(bytes, speech, shared);
        }
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            match wire::upgraded(bytes) {
                Ok(Some(count)) => taken = count,
                Ok(None) => return Ok(0),
                Err(text) => return Err(Ended::Fault(text)),
            }
            self.stage = Stage::Handshaking;
            let cid = self.take_cid();
            wire::handshake(shared.outbox, cid);
        }
        while let Some(frame) = wire::frame(&bytes[taken..]).map_err(Ended::Fault)? {
            taken += frame.bytes;
            match frame.opcode {
                wire::TEXT => self.take(frame.payload, shared)?,
                wire::CLOSE => {
                    let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Err(self.ended(code));
                }
                wire::PING => {
                    wire::masked(shared.outbox, wire::PONG, |out| {
                        out.extend_from_slice(frame.payload)
                    });
                    shared.tally.counts.heartbeats += 1;
                }
                wire::PONG => {}
                other => return Err(Ended::Fault(format!("a frame with op code {other}"))),
            }
        }
        Ok(taken)
    }

    fn take(&mut self, text: &[u8], shared: &mut Shared<'_>) -> Result<(), Ended> {
        match wire::message(text, &shared.crowd.pad) {
            Ok(Message::Reply { rid, count }) => self.take_reply(rid, count, shared),
            Ok(Message::Publication(publication)) => self.take_publication(&publication, shared),
            Ok(Message::Heartbeat) => {
                wire::masked(shared.outbox, wire::TEXT, |_| ());
                shared.tally.counts.heartbeats += 1;
                Ok(())
            }
            Ok(Message::HeartbeatV1) => {
                wire::masked(shared.outbox, wire::TEXT, |out| out.extend_from_slice(b"#2"));
                shared.tally.counts.heartbeats += 1;
                Ok(())
            }
            Err(text) => Err(Ended::Fault(format!(
                "client {} while {:?}: {text}",
                self.number, self.stage
            ))),
        }
    }

    fn take_publication(&mut self, publication: &Publication, shared: &mut Shared<'_>) -> Result<(), Ended> {
        if self.role != Role::Subscriber(publication.channel) {
            return Err(Ended::Fault(format!(
                "client {} is not subscribed: {publication:?}",
                self.number
            )));
        }
        shared.orders.check(publication, self.place).map_err(|text| {
            Ended::Fault(format!(
                "client {}, channel {}, publication {}: {text}",
                self.number, publication.channel, self.place
            ))
        })?;
        self.place += 1;
        shared.tally.delivered(publication.at, shared.now);
        match shared.delivered.last_mut() {
            Some((channel, count)) if *channel == publication.channel => *count += 1,
            Some(_) | None => shared.delivered.push((publication.channel, 1)),
        }
        Ok(())
    }

    fn take_reply(&mut self, rid: u32, count: Option<u64>, shared: &mut Shared<'_>) -> Result<(), Ended> {
        if rid != self.awaited || self.in_flight() == 0 {
            return Err(Ended::Fault(format!(
                "client {}: a reply to call {rid}, due was {}, calls made {}",
                self.number,
                self.awaited,
                self.next_cid - 1
            )));
        }
        self.awaited += 1;
        match self.stage {
            Stage::Handshaking => {
                if let Role::Subscriber(channel) = self.role {
                    self.stage = Stage::Subscribing;
                    let cid = self.take_cid();
                    wire::subscribe(shared.outbox, channel, cid);
                } else {
                    self.opened(shared);
                }
                Ok(())
            }
            Stage::Subscribing => {
                self.opened(shared);
                Ok(())
            }
            Stage::Open | Stage::Closing => self.take_pong(rid, count, shared),
            Stage::Vacant | Stage::Connecting | Stage::Upgrading => {
                Err(Ended::Fault(format!("a reply while {:?}", self.stage)))
            }
        }
    }

    fn take_pong(&mut self, rid: u32, count: Option<u64>, shared: &mut Shared<'_>) -> Result<(), Ended> {
        let Some(count) = count.filter(|count| *count > self.count) else {
            return Err(Ended::Fault(format!(
                "client {}: call {rid} was answered with count {count:?}, the one before with {}",
                self.number, self.count
            )));
        };
        self.count = count;
        self.note_pong(shared);
        Ok(())
    }

    /// Counts the answer to the oldest ping.
    fn note_pong(&mut self, shared: &mut Shared<'_>) {
        shared.tally.counts.replies += 1;
        shared.tally.latency.note(self.since, shared.now);
        shared.latency_of_second.note(self.since, shared.now);
        if let Some(since) = self.rest.as_mut().and_then(|rest| rest.since.pop_front()) {
            self.since = since;
        }
    }

    fn opened(&mut self, shared: &mut Shared<'_>) {
        self.stage = Stage::Open;
        shared.tally.counts.opened += 1;
        shared.tally.opening.note(self.since, shared.now);
    }

    fn take_cid(&mut self) -> u32 {
        let cid = self.next_cid;
        self.next_cid += 1;
        cid
    }

    /// The reason of the end, given the stage of the connection.
    fn ended(&self, code: Option<u16>) -> Ended {
        if self.stage == Stage::Closing {
            Ended::Closed
        } else {
            Ended::ByServer(code)
        }
    }
}
