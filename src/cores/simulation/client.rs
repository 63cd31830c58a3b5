//! A client of a simulation. It sends packets, and checks what it receives.
//!
//! It compares each message with the promises of the protocol and the design: replies come in the order of its calls,
//! publications are those that `following.rs` expects, pings come and must be answered, a close frame has the code of
//! its cause, and nothing follows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use super::actor::SENT_AWAY;
use super::following::{Following, Recovered};
use super::log::{channel_name, number_in};
use super::policies::{Memory, Wanted};
use super::wire::{self, Frame};
use super::world::Ground;
use crate::clock::Uptime;
use crate::config::SlowConsumer;
use crate::config::limits::MemoryMax;
use crate::protocols::PART_BYTES_MAX;

/// One connection, seen from its far end.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    pub(super) socket: Option<UnixStream>,
    version_1: bool,
    /// Whether it reads whenever there is something to read, and answers pings.
    pub(super) attentive: bool,
    pub(super) answers_pings: bool,
    /// Whether it sends anything.
    pub(super) token: Option<String>,
    out: Vec<u8>,
    /// Bytes that the socket has taken, of all that was queued.
    written: usize,
    input: Vec<u8>,
    pub(super) phase: Phase,
    pub(super) session: Option<String>,
    /// Calls that are answered in the order in which they were made, except subscriptions that get something of the
    /// past: they may be answered later.
    calls: VecDeque<Call>,
    /// Calls that the application answers when it likes.
    late: BTreeSet<u64>,
    next_cid: u64,
    pub(super) following: BTreeMap<usize, Following>,
    /// The place of the publication that came last.
    last_sequence: u64,
    /// When it could have known that the server takes it for open.
    opened_at: Option<Uptime>,
    last_ping: Option<Uptime>,
    connected_at: Uptime,
    /// When the last pong had left altogether, and where in its bytes the last one ends.
    pub(super) pong_at: Option<Uptime>,
    pong_end: Option<usize>,
    /// When the last byte left.
    pub(super) written_at: Uptime,
    pub(super) sent: SentSomething,
    pub(super) code: Option<u16>,
}

/// What it has done that may cost it its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SentSomething {
    pub(super) close: bool,
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

/// What it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Handshake,
    Subscribe(usize),
    Recover(usize, Wanted),
    Unsubscribe(usize),
    Publish(usize),
    Forbidden,
    Call,
    /// An answer of so many bytes.
    Much(u16),
    KickMe(usize),
    KickMeOutOfAll,
    SendMeAway,
}

#[derive(Debug)]
struct Call {
    cid: u64,
    asked: Asked,
    /// Where its message ends in all that was queued.
    end: usize,
    /// The end of the ring when that had been written.
    stamp: Option<u64>,
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
            out: wire::REQUEST.as_bytes().to_vec(),
            written: 0,
            input: Vec::new(),
            phase: Phase::Requesting,
            session: None,
            calls: VecDeque::new(),
            late: BTreeSet::new(),
            next_cid: 1,
            following: BTreeMap::new(),
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

    /// Whether it may still send something that is heeded.
    pub(super) fn may_send(&self) -> bool {
        self.phase != Phase::Gone && !self.sent.close && !self.sent.fin
    }

    /// Whether a call of its has not been answered.
    pub(super) fn is_owed_an_answer(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn unwritten(&self) -> usize {
        self.out.len()
    }

    /// Queues a packet as a message of its own; `packet` is told the call id.
    pub(super) fn ask(&mut self, ground: &mut Ground, asked: Asked) {
        let packet = self.packet(ground, asked);
        ground.log.end_message();
        self.queue_text(ground, &packet);
        self.mark(1);
    }

    /// Queues packets as one array. What becomes of it is the same for all publications of a part.
    pub(super) fn ask_all(&mut self, ground: &mut Ground, all: &[Asked]) {
        let (mut array, mut part_began, mut part_count) = ("[".to_owned(), 1, 0);
        for &asked in all {
            array += &self.packet(ground, asked);
            array.push(',');
            part_count += 1;
            if ground.plan.defers || asked == Asked::SendMeAway {
                // The packets that follow are not handled, or later: a part ends where a decision is deferred.
                ground.log.end_message();
            }
            if part_count == ground.plan.scale.frames_per_turn_max
                || array.len() - part_began >= PART_BYTES_MAX
            {
                ground.log.end_message();
                (part_began, part_count) = (array.len(), 0);
            }
        }
        array.pop();
        array.push(']');
        ground.log.end_message();
        self.queue_text(ground, &array);
        self.mark(all.len());
    }

    /// Queues a call of a procedure. `is_late`: its answer comes when it likes, or never.
    pub(super) fn call(&mut self, ground: &mut Ground, event: &str, data: &str, is_late: bool) {
        let packet = self.call_packet(event, data, is_late);
        ground.log.end_message();
        self.queue_text(ground, &packet);
        self.mark(usize::from(!is_late));
    }

    fn call_packet(&mut self, event: &str, data: &str, is_late: bool) -> String {
        let cid = self.next_cid;
        self.next_cid += 1;
        self.sent.before_handshake |= cid == 1;
        if is_late {
            self.late.insert(cid);
        } else {
            self.calls.push_back(Call {
                cid,
                asked: Asked::Call,
                end: usize::MAX,
                stamp: None,
            });
        }
        call_text(event, data, cid)
    }

    fn packet(&mut self, ground: &mut Ground, asked: Asked) -> String {
        let cid = self.next_cid;
        self.next_cid += 1;
        self.calls.push_back(Call {
            cid,
            asked,
            end: usize::MAX,
            stamp: None,
        });
        if self.session.is_none() && asked != Asked::Handshake && cid == 1 {
            self.sent.before_handshake = true;
        }
        match asked {
            Asked::Handshake => {
                let token = self
                    .token
                    .as_ref()
                    .map_or_else(|| "null".to_owned(), |token| format!("\"{token}\""));
                format!(r##"{{"event":"#handshake","data":{{"authToken":{token}}},"cid":{cid}}}"##)
            }
            Asked::Subscribe(channel) => {
                format!(r##"{{"event":"#subscribe","data":{{"channel":"c{channel}"}},"cid":{cid}}}"##)
            }
            Asked::Recover(channel, wanted) => {
                let wanted = wanted_text(ground, wanted);
                format!(
                    r##"{{"event":"#subscribe","data":{{"channel":"c{channel}","data":{wanted}}},"cid":{cid}}}"##
                )
            }
            Asked::Unsubscribe(channel) => {
                format!(r##"{{"event":"#unsubscribe","data":"c{channel}","cid":{cid}}}"##)
            }
            Asked::Publish(channel) => {
                let number = ground.log.begin(self.index, channel);
                let padding = "p".repeat(ground.random.below(ground.plan.padding_max));
                format!(
                    r##"{{"event":"#publish","data":{{"channel":"c{channel}","data":"{number}:{padding}"}},"cid":{cid}}}"##
                )
            }
            Asked::Forbidden => {
                format!(r##"{{"event":"#publish","data":{{"channel":"forbidden","data":1}},"cid":{cid}}}"##)
            }
            Asked::Call => call_text("echo", cid, cid),
            Asked::Much(bytes) => call_text("much", bytes, cid),
            Asked::KickMe(channel) => call_text("kick me", format!("\"c{channel}\""), cid),
            Asked::KickMeOutOfAll => call_text("kick me out of all", 1, cid),
            Asked::SendMeAway => {
                self.sent.asked_to_go = true;
                call_text("send me away", 1, cid)
            }
        }
    }

    /// The last so many calls end with what is queued by now.
    fn mark(&mut self, count: usize) {
        let end = self.written + self.out.len();
        for call in self.calls.iter_mut().rev().take(count) {
            call.end = end;
        }
    }

    pub(super) fn queue_text(&mut self, ground: &mut Ground, text: &str) {
        wire::push_text(&mut self.out, &mut ground.random, text);
    }

    /// Queues bytes that are no frame, or none that a client may send.
    pub(super) fn queue_garbage(&mut self, ground: &mut Ground) {
        self.sent.garbage = true;
        let garbage = ground
            .random
            .of::<&[u8]>(&[b"\xff\xff\xff", b"\x81\x01x", b"\xc1\x80\0\0\0\0"]);
        self.out.extend(garbage);
    }

    pub(super) fn queue_close(&mut self, ground: &mut Ground, code: u16) {
        if !self.sent.close {
            self.sent.close = true;
            wire::push_close(&mut self.out, &mut ground.random, code);
        }
    }

    /// Writes as much as the socket takes, `max` bytes at most. Returns whether anything left.
    pub(super) fn write(&mut self, ground: &Ground, max: usize) -> bool {
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
                self.stamp(ground);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The server has gone; what it said before can be read.
            Err(_) => {
                self.out.clear();
                self.sent.fin = true;
                true
            }
        }
    }

    fn stamp(&mut self, ground: &Ground) {
        let (now, claimed) = (ground.time.peek().uptime, ground.log.claimed());
        self.written_at = now;
        for call in &mut self.calls {
            if call.end <= self.written && call.stamp.is_none() {
                call.stamp = Some(claimed);
            }
        }
        if self.pong_end.is_some_and(|end| end <= self.written) {
            (self.pong_at, self.pong_end) = (Some(now), None);
        }
    }

    /// Reads at most so much; returns whether anything came.
    pub(super) fn read(&mut self, ground: &mut Ground, max: usize) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let mut buffer = [0; 8192];
        let room = max.min(buffer.len());
        match socket.read(&mut buffer[..room]) {
            Ok(0) => self.end(ground, false),
            Ok(count) => {
                ground.trace.mix(count as u64);
                self.input.extend_from_slice(&buffer[..count]);
                self.take_input(ground);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.end(ground, true),
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

    /// Goes without a word; a reset, if something has not been read.
    pub(super) fn disappear(&mut self) {
        self.socket = None;
        self.phase = Phase::Gone;
    }

    fn take_input(&mut self, ground: &mut Ground) {
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
                self.refused(ground, status);
                return;
            }
        }
        loop {
            match wire::take_frame(&input[at..]) {
                Ok(Some((frame, length))) => {
                    at += length;
                    self.take_frame(ground, &frame);
                }
                Ok(None) => break,
                Err(error) => ground.fail(&format!("client {}: {error}", self.index)),
            }
        }
        input.drain(..at);
        self.input = input;
    }

    fn refused(&mut self, ground: &Ground, status: u16) {
        let limits = &ground.plan.limits;
        let may = match status {
            429 => limits.connections_per_address_max > 0,
            503 => true,
            400 => self.sent.fin || self.sent.garbage,
            _ => false,
        };
        if !may {
            ground.fail(&format!("client {} was answered {status}", self.index));
        }
        self.phase = Phase::Closed;
    }

    fn take_frame(&mut self, ground: &mut Ground, frame: &Frame) {
        if self.phase == Phase::Closed {
            ground.fail(&format!("client {}: {frame:?} after the close frame", self.index));
        }
        match frame.opcode {
            wire::TEXT => match std::str::from_utf8(&frame.payload) {
                Ok(text) => self.take_text(ground, text),
                Err(_) => ground.fail("text that is none"),
            },
            wire::PONG if frame.payload == b"?" => {}
            wire::CLOSE => self.take_close(ground, &frame.payload),
            _ => ground.fail(&format!("client {}: {frame:?}", self.index)),
        }
    }

    fn take_text(&mut self, ground: &mut Ground, text: &str) {
        if text.is_empty() || text == "#1" {
            self.take_ping(ground, text);
            return;
        }
        let Ok(packet) = serde_json::from_str::<Value>(text) else {
            ground.fail(&format!("client {}: no JSON: {text}", self.index));
        };
        if let Some(rid) = packet["rid"].as_u64() {
            self.take_reply(ground, rid, &packet);
            return;
        }
        match packet["event"].as_str() {
            Some("#publish") => self.take_publication(ground, text, &packet),
            Some("#kickOut") => {
                ground.trace.mix(3);
                let channel = channel_of(&packet["data"]["channel"]);
                self.following.retain(|&followed, _| Some(followed) != channel);
            }
            Some("question") => {
                if self.may_send() && ground.random.chance(3, 4) {
                    let answer = format!(r#"{{"rid":{},"data":1}}"#, packet["cid"]);
                    self.queue_text(ground, &answer);
                }
            }
            Some("#disconnect" | "#removeAuthToken") => {}
            _ => ground.fail(&format!("client {}: {text}", self.index)),
        }
    }

    fn take_ping(&mut self, ground: &mut Ground, text: &str) {
        ground.trace.mix(1);
        if self.session.is_none() {
            ground.fail(&format!("client {} is pinged before its handshake", self.index));
        }
        self.last_ping = Some(ground.time.peek().uptime);
        let is_mine = self.version_1 == (text == "#1");
        if is_mine && self.answers_pings && self.may_send() {
            let pong = if self.version_1 { "#2" } else { "" };
            self.queue_text(ground, pong);
            self.pong_end = Some(self.written + self.out.len());
        }
    }

    fn take_reply(&mut self, ground: &mut Ground, rid: u64, packet: &Value) {
        ground.trace.mix(rid);
        if self.late.remove(&rid) {
            return;
        }
        let has_memory = ground.plan.memory.is_some();
        let at = self.calls.iter().position(|call| call.cid == rid);
        let is_next = |at: &usize| {
            self.calls
                .iter()
                .take(*at)
                .all(|call| has_memory && call.may_be_late())
        };
        let Some(call) = at.filter(is_next).and_then(|at| self.calls.remove(at)) else {
            ground.fail(&format!(
                "client {}: a reply to {rid}, and the next is {:?}",
                self.index,
                self.calls.front()
            ));
        };
        let stamp = call.stamp.unwrap_or_else(|| {
            ground.fail(&format!(
                "client {}: {rid} was answered before it was sent",
                self.index
            ))
        });
        let is_error = !packet["error"].is_null();
        let may = match call.asked {
            Asked::Handshake => {
                self.session = packet["data"]["id"].as_str().map(str::to_owned);
                self.opened_at = Some(ground.time.peek().uptime);
                self.session.is_some() && !is_error
            }
            Asked::Subscribe(channel) => self.subscribed(ground, channel, &call, stamp, is_error),
            Asked::Recover(channel, wanted) => self.recovered(ground, channel, wanted, &call, stamp, packet),
            Asked::Unsubscribe(channel) => self.unsubscribed(ground, channel, stamp, is_error),
            Asked::Publish(channel) => {
                self.published(ground, channel, stamp);
                !is_error
            }
            Asked::Forbidden => is_error,
            Asked::Call | Asked::Much(_) | Asked::KickMe(_) | Asked::KickMeOutOfAll | Asked::SendMeAway => {
                !is_error || ground.plan.limits.client_calls_max < 1000
            }
        };
        if !may {
            ground.fail(&format!("client {}: {call:?} was answered {packet}", self.index));
        }
    }

    fn subscribed(
        &mut self,
        ground: &Ground,
        channel: usize,
        call: &Call,
        stamp: u64,
        is_error: bool,
    ) -> bool {
        let is_full = self.is_full(ground, call);
        if is_error {
            return is_full;
        }
        let answered = ground.log.claimed();
        if ground.plan.memory.is_some() {
            // A subscription that is there already goes on, and one that has not been answered begins with its answer.
            if self.is_subscribing_before(call, channel) {
                return true;
            }
            self.following
                .entry(channel)
                .or_insert_with(|| Following::new(channel, stamp, answered, true));
            return true;
        }
        self.following
            .entry(channel)
            .or_insert_with(|| Following::new(channel, stamp, answered, false));
        !is_full
    }

    /// Whether it had as many subscriptions as it may have when this call was handled.
    fn is_full(&self, ground: &Ground, call: &Call) -> bool {
        let mut channels: BTreeSet<usize> = self.following.keys().copied().collect();
        let before = self.calls.iter().filter(|other| other.cid < call.cid);
        channels.extend(before.filter_map(|other| other.subscribes_to()));
        channels.len() >= ground.plan.limits.channels_per_connection_max as usize
    }

    /// Whether a subscription to the channel has not been answered.
    fn is_subscribing(&self, channel: usize) -> bool {
        self.calls
            .iter()
            .any(|call| call.subscribes_to() == Some(channel))
    }

    /// Whether an earlier subscription to the channel than this one has not been answered.
    fn is_subscribing_before(&self, call: &Call, channel: usize) -> bool {
        let mut before = self.calls.iter().filter(|other| other.cid < call.cid);
        before.any(|other| other.subscribes_to() == Some(channel))
    }

    /// The subscription to a channel, if all that is published must reach it at once.
    fn live(&self, channel: usize, ground: &Ground) -> Option<&Following> {
        let following = self.following.get(&channel)?;
        let is_live = !ground.plan.memory.is_some() || following.is_live();
        (is_live && !self.is_subscribing(channel)).then_some(following)
    }

    /// The answer to a subscription that wants something of the past.
    fn recovered(
        &mut self,
        ground: &mut Ground,
        channel: usize,
        wanted: Wanted,
        call: &Call,
        stamp: u64,
        packet: &Value,
    ) -> bool {
        let data = &packet["data"];
        let Some(is_whole) = data["recovered"].as_bool() else {
            // The channel has no history by now, or the subscription is refused.
            let is_error = !packet["error"].is_null();
            return (is_error || ground.plan.memory == Memory::Some)
                && self.subscribed(ground, channel, call, stamp, is_error);
        };
        let told = Recovered {
            up_to: ground.offset_of(&data["position"]),
            publications: data["publications"]
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(0),
        };
        if told.up_to + 1 < stamp || told.up_to >= ground.log.claimed() {
            return false;
        }
        ground.recoveries += u64::from(is_whole && told.publications > 0);
        let reason = data["reason"].as_str();
        if is_whole != reason.is_none() || !ground.may_lack(wanted, told, reason) {
            return false;
        }
        if reason == Some("in progress") {
            // The earlier one is answered later, or has been, and what it gets of the past is on its way.
            let is_live = self.following.get(&channel).is_none_or(Following::is_live);
            return self.is_subscribing_before(call, channel) || !is_live;
        }
        if reason == Some("unsubscribed") {
            self.following.insert(channel, Following::ended(channel));
            return true;
        }
        let log = &ground.log;
        let following = match wanted {
            Wanted::After(after) if is_whole => Following::recovered(channel, after, told, log),
            Wanted::Last(max) if told.publications > max => return false,
            Wanted::After(_) | Wanted::OtherEpoch if told.publications > 0 => return false,
            Wanted::Position if told.publications > 1 => return false,
            Wanted::After(_) | Wanted::OtherEpoch | Wanted::Position | Wanted::Last(_) => {
                Following::with_newest(channel, told, ground.plan.memory == Memory::Everything, log)
            }
        };
        match following {
            Ok(following) => {
                self.following.insert(channel, following);
                true
            }
            Err(error) => ground.fail(&format!("client {}: {call:?}: {error}", self.index)),
        }
    }

    fn unsubscribed(&mut self, ground: &Ground, channel: usize, stamp: u64, is_error: bool) -> bool {
        if ground.plan.slow_consumer == SlowConsumer::Close
            && let Some(following) = self.live(channel, ground)
        {
            let all = following.expect_until(stamp, &ground.log, SlowConsumer::Close);
            ground.expect(self.index, "at the end of a subscription", all);
        }
        self.following.remove(&channel).is_some() != is_error
    }

    /// What it has published has come back to it before it is told so, and is in the ring.
    fn published(&self, ground: &Ground, channel: usize, stamp: u64) {
        if ground.plan.slow_consumer == SlowConsumer::Close
            && let Some(following) = self.live(channel, ground)
        {
            // Its own lies at `stamp` or behind it; all before have come at least.
            let all = following.expect_until(stamp, &ground.log, SlowConsumer::Close);
            ground.expect(self.index, "before it is told that it has published", all);
        }
    }

    fn take_publication(&mut self, ground: &mut Ground, text: &str, packet: &Value) {
        let (Some(channel), Some(number)) = (channel_of(&packet["data"]["channel"]), number_in(text)) else {
            ground.fail(&format!("client {}: {text}", self.index));
        };
        ground.trace.mix(number as u64);
        ground.deliveries += 1;
        let policy = ground.plan.slow_consumer;
        let Some(following) = self.following.get_mut(&channel) else {
            ground.fail(&format!(
                "client {}: publication {number} of {}, to which it is not subscribed",
                self.index,
                channel_name(channel)
            ));
        };
        if !packet["data"]["position"].is_null() {
            let offset = ground.offset_of(&packet["data"]["position"]);
            if ground
                .log
                .entry(number)
                .is_none_or(|(_, entry)| entry.sequence != offset)
            {
                ground.fail(&format!("client {}: {text} has a wrong position", self.index));
            }
        } else if ground.plan.memory == Memory::Everything {
            ground.fail(&format!("client {}: {text} has no position", self.index));
        }
        let is_replayed = packet["data"]["replayed"] == true;
        ground.replayed += u64::from(is_replayed);
        match following.take(number, is_replayed, &ground.log, policy) {
            Ok(missing) => ground.missing += missing,
            Err(error) => ground.fail(&format!("client {}: {error}", self.index)),
        }
        if policy != SlowConsumer::Conflate
            && !ground.plan.memory.is_some()
            && let Some((_, entry)) = ground.log.entry(number)
        {
            if entry.sequence <= self.last_sequence {
                ground.fail(&format!("client {}: {number} overtook another", self.index));
            }
            self.last_sequence = entry.sequence;
        }
    }

    fn take_close(&mut self, ground: &mut Ground, payload: &[u8]) {
        let code = match payload {
            &[high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        };
        ground.trace.mix(u64::from(code));
        self.code = Some(code);
        self.phase = Phase::Closed;
        if !self.may_be_closed(ground, code) {
            ground.fail(&format!("client {} was closed with {code}: {self:?}", self.index));
        }
        if let Some(id) = &self.session {
            ground.expect(self.index, "at its close", self.check_end(ground, id, code));
        }
        self.queue_close(ground, code);
    }

    /// Whether a close with this code has a cause.
    fn may_be_closed(&self, ground: &Ground, code: u16) -> bool {
        let (limits, sent) = (&ground.plan.limits, &self.sent);
        match code {
            1000 => sent.close,
            1001 => ground.draining,
            1002 | 1009 => sent.garbage,
            // Silence counts from the upgrade on, and not while the core stood still.
            4001 => self.session.is_none() || sent.dozed || !self.answers_pings,
            4005 => self.session.is_none(),
            4009 => sent.before_handshake,
            4010 => {
                ground.plan.slow_consumer != SlowConsumer::Skip
                    || !self.late.is_empty()
                    || limits.outbox_bytes_total_max != MemoryMax::Off
            }
            4029 => limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0,
            4030 => !limits.idle_timeout.is_zero(),
            4032 => self.token.is_some() && ground.revoked,
            // The rest of a history was lost, or its owner did not answer.
            4034 => ground.plan.memory.is_some(),
            4033 => !limits.write_timeout.is_zero() && sent.dozed,
            SENT_AWAY => sent.asked_to_go,
            _ => false,
        }
    }

    /// The application was told the same end, and what was delivered before it has come.
    fn check_end(&self, ground: &Ground, id: &str, code: u16) -> Result<(), String> {
        let told = ground.told.borrow();
        let Some(end) = told.sessions.get(id).and_then(|session| session.end) else {
            return Err("the application has not been told of the end".to_owned());
        };
        let told_code = end.reason.code().map_or(1000, |code| code.as_u16());
        if told_code != code {
            return Err(format!(
                "closed with {code}, and the application was told {end:?}"
            ));
        }
        // The server does not read a client whose outbox is full. If this client did not read, its pong may be unread
        // for long. A turn has the time of its beginning: a pong that left during the turn that has read it counts a little
        // earlier than it left.
        if code == 4001 && !self.sent.dozed {
            let silent_since = self.pong_at.unwrap_or(self.connected_at);
            if end.turn.now.since(silent_since) + READ_EARLY_MAX < ground.plan.ping_timeout {
                return Err(format!("a pong left at {silent_since:?}, {end:?}"));
            }
        }
        if ![4010, 4033].contains(&code) && ground.plan.slow_consumer == SlowConsumer::Close {
            for following in self
                .following
                .keys()
                .filter_map(|&channel| self.live(channel, ground))
            {
                following.expect_until(end.turn.undelivered, &ground.log, SlowConsumer::Close)?;
            }
        }
        // Replies that a paused connection had coming may be lost with it; one that left by itself gets them all.
        // A recovery that was under way may be lost as well.
        let has_memory = ground.plan.memory.is_some();
        let is_lost = self.calls.iter().any(|call| !has_memory || !call.may_be_late());
        if code == 1000 && is_lost {
            return Err(format!(
                "{:?} were not answered before its close frame",
                self.calls
            ));
        }
        Ok(())
    }

    fn end(&mut self, ground: &mut Ground, is_reset: bool) {
        ground.trace.mix(u64::from(is_reset));
        let was = std::mem::replace(&mut self.phase, Phase::Gone);
        self.socket = None;
        let sent = &self.sent;
        let is_expected = match was {
            Phase::Closed => true,
            // Too slow with its request, or it has ended its own direction.
            Phase::Requesting => true,
            // Nor is there time for a word where memory is short.
            Phase::Upgraded => {
                let total_max = ground.plan.limits.outbox_bytes_total_max;
                sent.fin || sent.close || sent.dozed || total_max != MemoryMax::Off
            }
            Phase::Gone => false,
        };
        if !is_expected {
            ground.fail(&format!(
                "client {} was dropped without a word: {self:?}",
                self.index
            ));
        }
    }

    /// Nothing is on its way any more: what should have come by now?
    pub(super) fn check_at_rest(&self, ground: &Ground) -> Result<(), String> {
        if !self.is_open() || !self.attentive || !self.out.is_empty() || self.sent.close || self.sent.fin {
            return Ok(());
        }
        let limits = &ground.plan.limits;
        let is_limited = limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0;
        if !is_limited && !self.calls.is_empty() {
            return Err(format!("{:?} are not answered", self.calls));
        }
        if ground.plan.slow_consumer != SlowConsumer::Skip {
            for (&channel, following) in &self.following {
                if self.is_subscribing(channel) {
                    continue;
                }
                following.expect_until(ground.log.claimed(), &ground.log, ground.plan.slow_consumer)?;
                let is_certain = ground.plan.memory.has_last_value(channel) && ground.owners_answer();
                if is_certain && following.wants_last_value() {
                    following.expect_newest(&ground.log)?;
                }
            }
        }
        let now = ground.time.peek().uptime;
        if let (Some(interval), Some(opened)) = (ground.plan.ping_interval, self.opened_at) {
            let last = self.last_ping.unwrap_or(opened).max(opened);
            if now.since(last) > interval + PING_LATE_MAX {
                return Err(format!("no ping since {last:?}, now it is {now:?}"));
            }
        }
        Ok(())
    }
}

impl Call {
    fn subscribes_to(&self) -> Option<usize> {
        match self.asked {
            Asked::Subscribe(channel) | Asked::Recover(channel, _) => Some(channel),
            _ => None,
        }
    }

    /// Whether others may be answered before it: the server asks the core that owns the channel.
    fn may_be_late(&self) -> bool {
        self.subscribes_to().is_some()
    }
}

/// The data of a subscription.
fn wanted_text(ground: &Ground, wanted: Wanted) -> String {
    let recover = |epoch: &str, offset| format!(r#"{{"recover":{{"epoch":"{epoch}","offset":{offset}}}}}"#);
    match (wanted, &ground.epoch) {
        (Wanted::After(offset), Some(epoch)) => recover(epoch, offset),
        (Wanted::OtherEpoch, _) => recover("otherone", 1),
        (Wanted::Last(count), _) => format!(r#"{{"last":{count}}}"#),
        (Wanted::Position, _) | (Wanted::After(_), None) => r#"{"recover":null}"#.to_owned(),
    }
}

fn call_text(event: &str, data: impl std::fmt::Display, cid: u64) -> String {
    format!(r#"{{"event":"{event}","data":{data},"cid":{cid}}}"#)
}

fn channel_of(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix('c')?.parse().ok()
}

/// How much later than the beginning of a turn a pong may leave that this turn reads.
const READ_EARLY_MAX: Duration = Duration::from_millis(1);
/// A tick of the wheel, and what the looks at the clock add.
const PING_LATE_MAX: Duration = Duration::from_millis(60);
