//! A client of SocketCluster in a simulation. It sends packets, and checks what it receives.
//!
//! It compares each message with the promises of the protocol and the design: replies come in the order of
//! its calls, publications are those that `following.rs` expects, pings come and must be answered, a close
//! frame has the code of its cause, and no bytes follow it.

mod answers;
mod calls;
mod ends;
mod history;
mod presence;
mod services;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use serde_json::Value;

pub(super) use self::calls::Asked;
pub(super) use self::presence::{Member, View};

use self::answers::channel_of;
use self::calls::Call;
use self::presence::Infos;
use self::services::Services;
use super::following::Following;
use super::wire::{self, Frame};
use super::world::GroundTruth;
use crate::clock::Uptime;

/// One connection, from the client's side.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    pub(super) socket: Option<UnixStream>,
    version_1: bool,
    /// Whether it always reads everything that comes, and answers pings.
    pub(super) attentive: bool,
    pub(super) answers_pings: bool,
    /// Whether it sends anything.
    pub(super) token: Option<String>,
    /// The user that the token names, as far as the server takes it.
    pub(super) user: Option<usize>,
    out: Vec<u8>,
    /// How many of the queued bytes the socket has taken.
    written: usize,
    input: Vec<u8>,
    pub(super) phase: Phase,
    pub(super) session: Option<String>,
    /// Calls that are answered in the order in which they were made, except subscriptions that get a part of
    /// the past: they may be answered later.
    calls: VecDeque<Call>,
    /// Calls that the application answers at any time.
    late: BTreeSet<u64>,
    next_cid: u64,
    pub(super) following: BTreeMap<usize, Following>,
    /// The members of the channels that it watches.
    views: BTreeMap<usize, View>,
    infos: Infos,
    services: Services,
    /// The place of the publication that came last.
    last_sequence: u64,
    /// When the client could have known that its connection is open.
    opened_at: Option<Uptime>,
    last_ping: Option<Uptime>,
    connected_at: Uptime,
    /// When all bytes of the last pong had left, and the place of its end in the queued bytes.
    pub(super) pong_at: Option<Uptime>,
    pong_end: Option<usize>,
    /// When the last byte left.
    pub(super) written_at: Uptime,
    pub(super) sent: SentSomething,
    pub(super) code: Option<u16>,
}

/// Actions of the client that may cost it its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SentSomething {
    pub(super) close: bool,
    /// The code of its close frame.
    pub(super) close_code: u16,
    pub(super) fin: bool,
    pub(super) garbage: bool,
    pub(super) before_handshake: bool,
    pub(super) asked_to_go: bool,
    /// It was not attentive for a time.
    pub(super) dozed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The response head has not come.
    Requesting,
    /// Upgraded.
    Upgraded,
    /// The server has sent its close frame.
    Closed,
    /// No socket any more.
    Gone,
}

impl Client {
    pub(super) fn new(index: usize, socket: UnixStream, version_1: bool, now: Uptime) -> Client {
        Client {
            index,
            socket: Some(socket),
            version_1,
            attentive: true,
            answers_pings: true,
            token: None,
            user: None,
            out: wire::REQUEST.as_bytes().to_vec(),
            written: 0,
            input: Vec::new(),
            phase: Phase::Requesting,
            session: None,
            calls: VecDeque::new(),
            late: BTreeSet::new(),
            next_cid: 1,
            following: BTreeMap::new(),
            views: BTreeMap::new(),
            infos: Infos::default(),
            services: Services::default(),
            last_sequence: 0,
            opened_at: None,
            last_ping: None,
            connected_at: now,
            pong_at: None,
            pong_end: None,
            written_at: now,
            sent: SentSomething::default(),
            code: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.session.is_some() && self.phase == Phase::Upgraded
    }

    /// Whether the server may still handle what the client sends.
    pub(super) fn may_send(&self) -> bool {
        self.phase != Phase::Gone && !self.sent.close && !self.sent.fin
    }

    /// Whether one of its calls has not been answered.
    pub(super) fn is_owed_an_answer(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn unwritten(&self) -> usize {
        self.out.len()
    }

    pub(super) fn queue_text(&mut self, truth: &mut GroundTruth, text: &str) {
        wire::push_text(&mut self.out, &mut truth.random, text);
    }

    /// Queues bytes that are no frame, or a frame that no client may send.
    pub(super) fn queue_garbage(&mut self, truth: &mut GroundTruth) {
        self.sent.garbage = true;
        let garbage = truth
            .random
            .of::<&[u8]>(&[b"\xff\xff\xff", b"\x81\x01x", b"\xc1\x80\0\0\0\0"]);
        self.out.extend(garbage);
    }

    pub(super) fn queue_close(&mut self, truth: &mut GroundTruth, code: u16) {
        if !self.sent.close {
            (self.sent.close, self.sent.close_code) = (true, code);
            truth.wills.note_close(self.index, code);
            wire::push_close(&mut self.out, &mut truth.random, code);
        }
    }

    /// Writes as much as the socket takes, `max` bytes at most. Returns whether anything left.
    pub(super) fn write(&mut self, truth: &GroundTruth, max: usize) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let max = max.min(self.out.len());
        if max == 0 || self.sent.fin {
            return false;
        }
        match socket.write(&self.out[..max]) {
            Ok(count) => {
                self.out.drain(..count);
                self.written += count;
                self.note_earliest(truth);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The server has ended the connection; the bytes that it sent before can still be read.
            Err(_) => {
                self.out.clear();
                self.sent.fin = true;
                true
            }
        }
    }

    fn note_earliest(&mut self, truth: &GroundTruth) {
        let (now, claimed) = (truth.time.peek().uptime, truth.log.claimed());
        self.written_at = now;
        for call in &mut self.calls {
            if call.end <= self.written && call.earliest.is_none() {
                call.earliest = Some(claimed);
            }
        }
        if self.pong_end.is_some_and(|end| end <= self.written) {
            (self.pong_at, self.pong_end) = (Some(now), None);
        }
    }

    /// Reads at most `max` bytes; returns whether any came.
    pub(super) fn read(&mut self, truth: &mut GroundTruth, max: usize) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let mut buffer = [0; 8192];
        let room = max.min(buffer.len());
        match socket.read(&mut buffer[..room]) {
            Ok(0) => self.end(truth, false),
            Ok(count) => {
                truth.trace.mix(count as u64);
                self.input.extend_from_slice(&buffer[..count]);
                self.take_input(truth);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.end(truth, true),
        }
        true
    }

    /// Ends its own direction.
    pub(super) fn send_fin(&mut self) {
        if let Some(socket) = &self.socket {
            // It may have been reset.
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.sent.fin = true;
        self.out.clear();
    }

    /// Disappears without a close frame; with a reset, if some bytes have not been read.
    pub(super) fn disappear(&mut self) {
        self.socket = None;
        self.phase = Phase::Gone;
    }

    fn take_input(&mut self, truth: &mut GroundTruth) {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        if self.phase == Phase::Closed && self.code.is_none() {
            // The body of a refusal.
            return;
        }
        if self.phase == Phase::Requesting {
            let Some((status, end)) = wire::response_head(&input) else {
                self.input = input;
                return;
            };
            at = end;
            if status == 101 {
                self.phase = Phase::Upgraded;
            } else {
                self.refused(truth, status);
                return;
            }
        }
        loop {
            match wire::take_frame(&input[at..]) {
                Ok(Some((frame, length))) => {
                    at += length;
                    self.take_frame(truth, &frame);
                }
                Ok(None) => break,
                Err(error) => truth.fail(&format!("client {}: {error}", self.index)),
            }
        }
        input.drain(..at);
        self.input = input;
    }

    fn refused(&mut self, truth: &GroundTruth, status: u16) {
        let limits = &truth.plan.limits;
        let may = match status {
            429 => limits.connections_per_address_max > 0,
            503 => true,
            400 => self.sent.fin || self.sent.garbage,
            _ => false,
        };
        if !may {
            truth.fail(&format!("client {} was answered {status}", self.index));
        }
        self.phase = Phase::Closed;
    }

    fn take_frame(&mut self, truth: &mut GroundTruth, frame: &Frame) {
        if self.phase == Phase::Closed {
            truth.fail(&format!("client {}: {frame:?} after the close frame", self.index));
        }
        match frame.opcode {
            wire::TEXT => match std::str::from_utf8(&frame.payload) {
                Ok(text) => self.take_text(truth, text),
                Err(_) => truth.fail("text that is none"),
            },
            wire::PONG if frame.payload == b"?" => {}
            wire::CLOSE => self.take_close(truth, &frame.payload),
            _ => truth.fail(&format!("client {}: {frame:?}", self.index)),
        }
    }

    fn take_text(&mut self, truth: &mut GroundTruth, text: &str) {
        if text.is_empty() || text == "#1" {
            self.take_ping(truth, text);
            return;
        }
        let Ok(packet) = serde_json::from_str::<Value>(text) else {
            truth.fail(&format!("client {}: no JSON: {text}", self.index));
        };
        if let Some(rid) = packet["rid"].as_u64() {
            self.take_reply(truth, rid, &packet);
            return;
        }
        match packet["event"].as_str() {
            Some("#publish") => self.take_publication(truth, text, &packet),
            Some("#kickOut") => {
                truth.trace.mix(3);
                let channel = channel_of(&packet["data"]["channel"]);
                self.following.retain(|&followed, _| Some(followed) != channel);
                if let Some(channel) = channel {
                    self.infos.note_change(channel);
                    self.watch(channel, false);
                }
            }
            Some("question") => {
                if self.may_send() && truth.random.chance(3, 4) {
                    let answer = format!(r#"{{"rid":{},"data":1}}"#, packet["cid"]);
                    self.queue_text(truth, &answer);
                }
            }
            Some("#disconnect" | "#removeAuthToken") => {}
            Some("$cancel") => self.take_cancel(truth, &packet),
            Some("$unserved") => self.take_unserved(truth, &packet),
            Some(_) if self.take_call(truth, &packet) => {}
            _ => truth.fail(&format!("client {}: {text}", self.index)),
        }
    }

    fn take_ping(&mut self, truth: &mut GroundTruth, text: &str) {
        truth.trace.mix(1);
        if self.session.is_none() {
            truth.fail(&format!("client {} is pinged before its handshake", self.index));
        }
        self.last_ping = Some(truth.time.peek().uptime);
        let is_mine = self.version_1 == (text == "#1");
        if is_mine && self.answers_pings && self.may_send() {
            let pong = if self.version_1 { "#2" } else { "" };
            self.queue_text(truth, pong);
            self.pong_end = Some(self.written + self.out.len());
        }
    }
}
