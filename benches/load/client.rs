//! The state of one connection, and the check of everything that comes on it.
//!
//! Small, since there may be a million: a connection that waits owns no buffer. What it reads lies in its thread's
//! buffer, what it sends is put together in its thread's buffer; only what is left over of either, and the times of
//! more than one call in flight, are kept with the connection until they are done.
//!
//! ```text
//!   Connecting ─► Upgrading ─► Handshaking ─► Subscribing ─► Open ─► Closing
//!                                      └──────────(not a subscriber)──▲
//! ```
//!
//! Checks: the answer to the upgrade; replies come in the order of their calls, once each; the count in a ping's reply
//! grows with every reply on the connection; publications come in their channel's order (`order`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::crowd::{Crowd, Role};
use super::order::Orders;
use super::tally::Tally;
use super::wire::{self, Message};

/// One connection, or the place for one.
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
    /// The last ping's.
    count: u64,
    /// When the oldest unanswered call was meant to leave; while opening, when the connect began.
    since: u64,
    rest: Option<Box<Rest>>,
}

/// What only a busy connection has.
#[derive(Debug, Default)]
struct Rest {
    input: Vec<u8>,
    output: Vec<u8>,
    /// When the calls after the oldest unanswered one were meant to leave.
    since: VecDeque<u64>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none.
    Vacant,
    Connecting,
    Upgrading,
    Handshaking,
    Subscribing,
    Open,
    /// Our close frame is sent.
    Closing,
}

/// What a thread lends its clients.
pub(crate) struct Lent<'a> {
    pub(crate) crowd: &'a Crowd,
    pub(crate) orders: &'a mut Orders,
    pub(crate) tally: &'a mut Tally,
    pub(crate) latency_of_second: &'a mut super::tally::Times,
    /// Deliveries since they were last told to the crowd, by channel.
    pub(crate) delivered: &'a mut Vec<(u32, u32)>,
    pub(crate) upgrade_request: &'a [u8],
    /// Read into this.
    pub(crate) inbox: &'a mut [u8],
    /// What the client is about to send.
    pub(crate) outbox: &'a mut Vec<u8>,
    pub(crate) now: u64,
}

/// Why a connection is no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As planned: our close was answered.
    Closed,
    /// The server closed it, with this code if it said one.
    ByServer(Option<u16>),
    /// What came is not what a client may expect; the connection is given up.
    Fault(String),
}

impl Client {
    /// A place for the client with this number.
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

    /// How many publications of its channel it has received.
    pub(crate) fn place(&self) -> u32 {
        self.place
    }

    /// Calls without a reply.
    pub(crate) fn in_flight(&self) -> u32 {
        self.next_cid - self.awaited
    }

    /// Begins with a socket whose connect is under way.
    pub(crate) fn connecting(&mut self, stream: TcpStream, lent: &mut Lent<'_>) -> Result<(), Ended> {
        *self = Client {
            stream: Some(stream),
            stage: Stage::Connecting,
            since: lent.now,
            ..Client::vacant(self.number, self.role)
        };
        self.writable(lent)
    }

    /// The socket takes bytes: those left over, or the request after the connect.
    pub(crate) fn writable(&mut self, lent: &mut Lent<'_>) -> Result<(), Ended> {
        if self.stage == Stage::Connecting {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            match stream.write(lent.upgrade_request) {
                Ok(count) if count == lent.upgrade_request.len() => {
                    lent.tally.counts.sent_bytes += count as u64;
                    self.stage = Stage::Upgrading;
                    Ok(())
                }
                Ok(count) => Err(Ended::Fault(format!("a fresh socket took {count} bytes"))),
                // On its way: a socket that can be written will say so.
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
            self.write_rest(lent)
        } else {
            Ok(())
        }
    }

    /// Reads what there is and takes it in; answers wait in the outbox for [`Client::flush`].
    ///
    /// A read that fills less than it could has emptied the socket, unless its end is known to be near.
    pub(crate) fn readable(&mut self, to_the_end: bool, lent: &mut Lent<'_>) -> Result<(), Ended> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let count = match stream.read(lent.inbox) {
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
            lent.tally.counts.received_bytes += count as u64;
            lent.now = super::clock::now_ns();
            self.receive(count, lent)?;
            if count < lent.inbox.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Calls `ping`, meant to leave at `intended`.
    pub(crate) fn ping(&mut self, intended: u64, lent: &mut Lent<'_>) {
        if self.in_flight() == 0 {
            self.since = intended;
        } else {
            self.rest.get_or_insert_default().since.push_back(intended);
        }
        let cid = self.take_cid();
        wire::ping(lent.outbox, cid);
        lent.tally.counts.pings += 1;
    }

    /// Says that it will send no more.
    pub(crate) fn close(&mut self, lent: &mut Lent<'_>) {
        self.stage = Stage::Closing;
        wire::close(lent.outbox);
    }

    /// Sends what the outbox holds, and keeps what the socket does not take.
    pub(crate) fn flush(&mut self, lent: &mut Lent<'_>) -> Result<(), Ended> {
        if lent.outbox.is_empty() {
            return Ok(());
        }
        let waiting = self.rest.as_ref().is_some_and(|rest| !rest.output.is_empty());
        let written = match &mut self.stream {
            Some(stream) if !waiting => stream.write(lent.outbox),
            Some(_) | None => Ok(0),
        };
        let written = self.written(written)?;
        lent.tally.counts.sent_bytes += written as u64;
        if written < lent.outbox.len() {
            let rest = self.rest.get_or_insert_default();
            rest.output.extend_from_slice(&lent.outbox[written..]);
        }
        lent.outbox.clear();
        Ok(())
    }

    /// Gives up the socket, whatever there is on it.
    pub(crate) fn vacate(&mut self) {
        *self = Client::vacant(self.number, self.role);
    }

    /// Whether bytes are still to be sent.
    pub(crate) fn is_writing(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.output.is_empty())
    }

    /// Gives back what only a busy connection needs.
    pub(crate) fn slim(&mut self) {
        let empty = |rest: &Rest| rest.input.is_empty() && rest.output.is_empty() && rest.since.is_empty();
        if self.rest.as_deref().is_some_and(empty) {
            self.rest = None;
        }
    }

    fn write_rest(&mut self, lent: &mut Lent<'_>) -> Result<(), Ended> {
        let (Some(stream), Some(rest)) = (&mut self.stream, &mut self.rest) else {
            return Ok(());
        };
        let written = stream.write(&rest.output);
        let written = self.written(written)?;
        lent.tally.counts.sent_bytes += written as u64;
        if let Some(rest) = &mut self.rest {
            rest.output.drain(..written);
        }
        Ok(())
    }

    /// What a write did: nothing if the socket is full.
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

    /// Takes in `count` bytes of the inbox, behind those left over before.
    fn receive(&mut self, count: usize, lent: &mut Lent<'_>) -> Result<(), Ended> {
        // Taken out, so that the messages may lie in it while the rest is lent to them.
        let inbox = std::mem::take(&mut lent.inbox);
        let outcome = match self.rest.as_mut().filter(|rest| !rest.input.is_empty()) {
            None => self.take_all(&inbox[..count], lent).map(|taken| {
                if taken < count {
                    let rest = self.rest.get_or_insert_default();
                    rest.input.extend_from_slice(&inbox[taken..count]);
                }
            }),
            Some(rest) => {
                let mut input = std::mem::take(&mut rest.input);
                input.extend_from_slice(&inbox[..count]);
                self.take_all(&input, lent).map(|taken| {
                    input.drain(..taken);
                    if let Some(rest) = &mut self.rest {
                        rest.input = input;
                    }
                })
            }
        };
        lent.inbox = inbox;
        outcome
    }

    /// Takes in whole frames; how many bytes they were.
    fn take_all(&mut self, bytes: &[u8], lent: &mut Lent<'_>) -> Result<usize, Ended> {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            match wire::upgraded(bytes) {
                Ok(Some(count)) => taken = count,
                Ok(None) => return Ok(0),
                Err(text) => return Err(Ended::Fault(text)),
            }
            self.stage = Stage::Handshaking;
            let cid = self.take_cid();
            wire::handshake(lent.outbox, cid);
        }
        while let Some(frame) = wire::frame(&bytes[taken..]).map_err(Ended::Fault)? {
            taken += frame.bytes;
            match frame.opcode {
                wire::TEXT => self.take(frame.payload, lent)?,
                wire::CLOSE => {
                    let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Err(self.ended(code));
                }
                wire::PING => {
                    wire::masked(lent.outbox, wire::PONG, |out| {
                        out.extend_from_slice(frame.payload)
                    });
                    lent.tally.counts.heartbeats += 1;
                }
                wire::PONG => {}
                other => return Err(Ended::Fault(format!("a frame with op code {other}"))),
            }
        }
        Ok(taken)
    }

    fn take(&mut self, text: &[u8], lent: &mut Lent<'_>) -> Result<(), Ended> {
        match wire::message(text, &lent.crowd.pad) {
            Ok(Message::Reply { rid, count }) => self.take_reply(rid, count, lent),
            Ok(Message::Publication(publication)) => {
                if self.role != Role::Subscriber(publication.channel) {
                    return Err(Ended::Fault(format!(
                        "client {} is not subscribed: {publication:?}",
                        self.number
                    )));
                }
                lent.orders.check(&publication, self.place).map_err(|text| {
                    Ended::Fault(format!(
                        "client {}, channel {}, publication {}: {text}",
                        self.number, publication.channel, self.place
                    ))
                })?;
                self.place += 1;
                lent.tally.delivered(publication.at, lent.now);
                match lent.delivered.last_mut() {
                    Some((channel, count)) if *channel == publication.channel => *count += 1,
                    Some(_) | None => lent.delivered.push((publication.channel, 1)),
                }
                Ok(())
            }
            Ok(Message::Heartbeat) => {
                wire::masked(lent.outbox, wire::TEXT, |_| ());
                lent.tally.counts.heartbeats += 1;
                Ok(())
            }
            Ok(Message::HeartbeatV1) => {
                wire::masked(lent.outbox, wire::TEXT, |out| out.extend_from_slice(b"#2"));
                lent.tally.counts.heartbeats += 1;
                Ok(())
            }
            Err(text) => Err(Ended::Fault(format!(
                "client {} while {:?}: {text}",
                self.number, self.stage
            ))),
        }
    }

    fn take_reply(&mut self, rid: u32, count: Option<u64>, lent: &mut Lent<'_>) -> Result<(), Ended> {
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
                    wire::subscribe(lent.outbox, channel, cid);
                } else {
                    self.opened(lent);
                }
                Ok(())
            }
            Stage::Subscribing => {
                self.opened(lent);
                Ok(())
            }
            Stage::Open | Stage::Closing => self.take_pong(rid, count, lent),
            Stage::Vacant | Stage::Connecting | Stage::Upgrading => {
                Err(Ended::Fault(format!("a reply while {:?}", self.stage)))
            }
        }
    }

    fn take_pong(&mut self, rid: u32, count: Option<u64>, lent: &mut Lent<'_>) -> Result<(), Ended> {
        let Some(count) = count.filter(|count| *count > self.count) else {
            return Err(Ended::Fault(format!(
                "client {}: call {rid} was answered with count {count:?}, the one before with {}",
                self.number, self.count
            )));
        };
        self.count = count;
        lent.tally.counts.replies += 1;
        lent.tally.latency.note(self.since, lent.now);
        lent.latency_of_second.note(self.since, lent.now);
        if let Some(since) = self.rest.as_mut().and_then(|rest| rest.since.pop_front()) {
            self.since = since;
        }
        Ok(())
    }

    fn opened(&mut self, lent: &mut Lent<'_>) {
        self.stage = Stage::Open;
        lent.tally.counts.opened += 1;
        lent.tally.opening.note(self.since, lent.now);
    }

    fn take_cid(&mut self) -> u32 {
        let cid = self.next_cid;
        self.next_cid += 1;
        cid
    }

    /// The end of the connection, as it looks from where it stands.
    fn ended(&self, code: Option<u16>) -> Ended {
        if self.stage == Stage::Closing {
            Ended::Closed
        } else {
            Ended::ByServer(code)
        }
    }
}
