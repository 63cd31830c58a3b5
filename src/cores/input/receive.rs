//! Input: from bytes in the core's read buffer to decisions.
//!
//! A whole frame is parsed where it lies; only what cannot be consumed yet is copied to the connection. What is decided
//! is carried out by `carry_out.rs`; while something of it has to wait, the rest of the input is kept and the connection
//! is not read: its peer's TCP window then pushes back. The upgrade is `upgrade.rs`'s.
//!
//! Limits: `READ_BYTES_PER_TURN_MAX` and `FRAMES_PER_TURN_MAX` for one connection, an array of packets counting as as many
//! messages; what is left over is first in the next turn.

use std::io;

use crate::app::App;
use crate::decision::{CloseReason, Limit, Message};
use crate::http::Refusal;
use crate::transport::stream::Arrival;
use crate::websocket::close::CloseFrame;
use crate::websocket::deflate::Compression;
use crate::websocket::frame::{self, CONTROL_PAYLOAD_BYTES_MAX, OpCode};
use crate::websocket::message;
use crate::websocket::message::{Passed, Received, Receiver, Step};
use crate::wipe::{wipe, wipe_and_drop};

use crate::cores::Core;
use crate::cores::arrivals::tls::First;
use crate::cores::lifecycle::connection::{ConnectionId, Leftover, Open, Phase, Work};
use crate::cores::turn::ReadUntil;

impl<A: App> Core<A> {
    /// Reads a socket until it is empty or its share of this turn is used up. `to_the_end`: a short read does not mean
    /// that it is empty, since the peer's FIN may follow and no event will tell.
    pub(in crate::cores) fn read(&mut self, id: ConnectionId, to_the_end: bool) {
        self.begin_share();
        self.read_on(id, to_the_end);
    }

    /// A connection begins to use up its share of this turn.
    pub(in crate::cores) fn begin_share(&mut self) {
        self.share_left = frames_per_turn_max();
        self.lent.scratch.common.begin_verifications();
        self.inflater.begin_share();
    }

    /// The connection whose share has been begun has used up so much of it.
    pub(in crate::cores) fn use_share(&mut self, frames: u64) {
        self.share_left = self.share_left.saturating_sub(frames);
    }

    /// As [`Core::read`], within what is left of the share that has been begun.
    pub(in crate::cores) fn read_on(&mut self, id: ConnectionId, to_the_end: bool) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut budget = read_bytes_per_turn_max();
        // Who sends more has this taken in before anybody knows whether it is one large message or a flood of small ones.
        let mut room = FIRST_READ_BYTES_MAX;
        while let Some(connection) = self.connections.get_mut(id) {
            connection.unread = true;
            if connection.is_paused() {
                break;
            }
            if budget == 0 || self.share_left == 0 {
                self.read_next_turn(id);
                break;
            }
            let left = match &connection.meter {
                None => usize::MAX,
                Some(_) if !self.measures.have_rate() => usize::MAX,
                Some(meter) => {
                    room = room.min(FIRST_READ_BYTES_MAX);
                    let left = meter.bytes_left(&self.measures, self.now.uptime);
                    usize::try_from(left).unwrap_or(usize::MAX)
                }
            };
            // One byte more tells who is over its rate from who has just kept it.
            room = room.min(left.saturating_add(1));
            match connection.stream.read(room, &mut buffer, &mut self.records) {
                Ok(Arrival::End) => {
                    self.end_of_input(id);
                    break;
                }
                Ok(Arrival::Broken(broken)) => {
                    self.end_of_tls(id, broken);
                    break;
                }
                Ok(Arrival::Bytes(taken)) => {
                    connection.unread = taken.more || to_the_end;
                    let drained = !connection.unread;
                    connection.tally.bytes_in += taken.wire as u64;
                    if let Some(meter) = &mut connection.meter {
                        meter.charge_bytes(taken.wire as u64, &self.measures, self.now.uptime);
                    }
                    self.metrics.bytes_received.add(taken.wire as u64);
                    if taken.has_tls_work {
                        self.attend_to_tls(id);
                    }
                    self.take_in(id, &mut buffer[..taken.count]);
                    if taken.wire > left {
                        self.pause(id, Limit::BytesPerSecond);
                        break;
                    }
                    budget = budget.saturating_sub(taken.wire);
                    if drained {
                        break;
                    }
                    room = buffer.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.unread = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.close(id, CloseReason::PeerVanished);
                    break;
                }
            }
        }
        self.read_buffer = buffer;
    }

    /// The peer has sent its FIN.
    fn end_of_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        // The answer is on its way to whoever has ended only his own direction.
        if matches!(connection.phase, Phase::LoggingIn { .. }) {
            return;
        }
        if matches!(connection.phase, Phase::Request { .. }) && !connection.leftover.is_empty() {
            // It may still read why half a head is no request.
            self.metrics.http_answers.add(1);
            self.connections
                .send_head(id, |bytes| Refusal::Malformed.write(bytes));
        }
        self.close(id, CloseReason::PeerVanished);
    }

    /// Puts a connection on the list of those to read first in the next turn, once: on that of those who come or go if it
    /// is one of them.
    pub(in crate::cores) fn read_next_turn(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.unfinished
        {
            connection.unfinished = true;
            match connection.shows_tokens {
                true => self.transitional.push_back((id, ReadUntil::End)),
                false => self.unfinished.push_back(id),
            }
        }
    }

    /// Takes in new bytes behind those that were left over.
    pub(in crate::cores) fn take_in(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let leftover = std::mem::take(&mut connection.leftover);
        if leftover.is_empty() {
            let consumed = self.process(id, bytes);
            self.keep_leftover(id, &bytes[consumed..]);
            if self.lent.scratch.common.take_credentials_note() {
                self.wipe_input(bytes);
            }
        } else {
            let mut joined = match self.lent.policy.login {
                None => leftover.into_vec(),
                Some(_) => moved(leftover.into_vec(), bytes.len()),
            };
            joined.extend_from_slice(bytes);
            let consumed = self.process(id, &mut joined);
            self.keep_leftover(id, &joined[consumed..]);
            if self.lent.scratch.common.take_credentials_note() {
                self.wipe_input(bytes);
                wipe_and_drop(joined);
            }
        }
        self.connections.note_input(id);
    }

    /// Wipes what was received where a password may lie in it, and where it lay before: as records of TLS, which are
    /// decrypted in place, and as a message that was compressed.
    #[cold]
    fn wipe_input(&mut self, bytes: &mut [u8]) {
        wipe(bytes);
        wipe(&mut self.records);
        self.inflater.wipe();
    }

    fn keep_leftover(&mut self, id: ConnectionId, rest: &[u8]) {
        if !rest.is_empty()
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.leftover = Leftover::new(rest);
        }
    }

    /// Consumes what can be consumed; returns how much that was. Goes on until nothing more can be, so that a message
    /// put together from fragments gives its memory back.
    fn process(&mut self, id: ConnectionId, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(id)
            && !connection.is_paused()
        {
            let input = &mut bytes[at..];
            let step = match &mut connection.phase {
                Phase::ProxyHeader { .. } => self.receive_proxy_header(id, input),
                Phase::Request { .. } => match self.first_bytes(id, input) {
                    First::Plain => self.receive_request(id, input),
                    First::Tls => Input::Consumed(input.len()),
                },
                Phase::Open(_) => self.receive_messages(id, input),
                Phase::Closing { receiver, .. } => {
                    let step = await_close(receiver, input, &self.message_limits, connection.compression);
                    if matches!(step, AwaitClose::Closed) {
                        let deadline = self.now.uptime + self.limits.close_timeout;
                        connection.phase = Phase::Finishing {
                            deadline,
                            fin_sent: false,
                        };
                        self.connections.finish(id);
                    }
                    match step {
                        AwaitClose::Consumed(count) => Input::Consumed(count),
                        AwaitClose::Incomplete(count) => Input::Incomplete(count),
                        AwaitClose::Closed => Input::Consumed(input.len()),
                    }
                }
                Phase::LoggingIn { .. } | Phase::Finishing { .. } | Phase::Emptying { .. } => {
                    return bytes.len();
                }
            };
            match step {
                Input::Consumed(count) => at += count,
                Input::Incomplete(count) => return at + count,
                Input::Rest => return bytes.len(),
            }
        }
        if self.connections.get(id).is_some() {
            at
        } else {
            bytes.len()
        }
    }

    /// WebSocket messages, up to a control frame that is to be answered or the end of the input. What they decide is
    /// carried out together, which saved each of sixteen messages that came in one read a quarter of its instructions.
    fn receive_messages(&mut self, id: ConnectionId, input: &mut [u8]) -> Input {
        let Some(connection) = self.connections.get_mut(id) else {
            return Input::Consumed(input.len());
        };
        let Phase::Open(Open { receiver, session }) = &mut connection.phase else {
            return Input::Consumed(0);
        };
        if session.has_more() {
            return self.receive_more(id);
        }
        let compression = connection.compression;
        let frames_left = match &connection.meter {
            None => u64::MAX,
            Some(meter) => meter.messages_left(&self.measures, self.now.uptime),
        };
        let frames_max = frames_left.min(self.share_left);
        let mut decisions = std::mem::take(&mut self.decisions);
        decisions.clear();
        let was_open = session.is_open();
        let mut environment = self.lent.environment(self.now, id);
        let (mut consumed, mut frames, mut messages) = (0, 0, 0);
        let mut room = [0; CONTROL_PAYLOAD_BYTES_MAX];
        let (result, next) = loop {
            let counted = frames + environment.common.scratch.packets_of_arrays();
            if counted >= frames_max && consumed < input.len() {
                let next = match counted >= frames_left {
                    true => Next::OverRate,
                    false => Next::Enough,
                };
                break (Ok(()), next);
            }
            // A control frame is answered after what was decided before it, which may have to wait: it is not touched.
            // Nor is a fragment, which one may follow.
            if messages > 0
                && input
                    .get(consumed)
                    .is_some_and(|&first| !frame::is_whole_message(first))
            {
                break (Ok(()), Next::Consumed);
            }
            let rest = &mut input[consumed..];
            let step = match compression {
                Compression::Off => receiver.receive(rest, &self.message_limits),
                Compression::Large | Compression::Small => {
                    receiver.receive_compressed(rest, &self.message_limits, &mut self.inflater)
                }
            };
            let received = match step {
                Ok(Step::Message {
                    received,
                    consumed: by,
                }) => {
                    consumed += by;
                    received
                }
                Ok(Step::Incomplete { consumed: by }) => break (Ok(()), Next::Incomplete(consumed + by)),
                Err(reason) => break (Err(reason), Next::Broken),
            };
            frames += 1;
            let message = match received {
                Received::Text(text) => Message::Text(text),
                Received::Binary(bytes) => Message::Binary(bytes),
                Received::Pong => continue,
                Received::Ping(payload) => break (Ok(()), Next::Pong(copy(payload, &mut room))),
                Received::Close(CloseFrame { code, reason }) => {
                    let reason = copy(reason.as_bytes(), &mut room);
                    let reason = str::from_utf8(reason).expect("it was text before it was copied");
                    break (Ok(()), Next::Close(CloseFrame { code, reason }));
                }
            };
            messages += 1;
            let result = session.receive(message, &mut environment, &mut decisions);
            if session.has_more() {
                receiver.forget_handed_out();
                break (result, Next::Enough);
            }
            if result.is_err() || decisions.bytes_len() >= DECIDED_BYTES_MAX {
                break (result, Next::Consumed);
            }
            let verifications = environment.common.scratch.verifications();
            let mut is_enough = compression.is_on() && self.inflater.share() >= INFLATED_PER_TURN_MAX;
            if verifications > 0 && was_open {
                // The first alone, since nobody could know: then it waits with its like.
                is_enough |= !std::mem::replace(&mut connection.shows_tokens, true)
                    || verifications >= VERIFICATIONS_PER_TURN_MAX;
            }
            if is_enough && consumed < input.len() {
                break (result, Next::Enough);
            }
        };
        let sooner = self
            .wheel
            .is_sooner(session.next_deadline(&self.lent.settings), connection.armed);
        if session.is_open() != was_open {
            self.sessions_open += 1;
            self.metrics.sessions.set(self.sessions_open);
        }
        connection.tally.take_in(messages);
        if let Some(meter) = &mut connection.meter {
            meter.charge_messages(frames, &self.measures, self.now.uptime);
        }
        if compression.is_on() {
            let work = self.inflater.take_work();
            self.metrics.messages_inflated.add(work.messages);
            self.metrics.inflate_bytes_before.add(work.bytes_before);
            self.metrics.inflate_bytes_after.add(work.bytes_after);
            // What was read has been charged.
            if let Some(meter) = &mut connection.meter {
                let more = work.bytes_after.saturating_sub(work.bytes_before);
                meter.charge_bytes(more, &self.measures, self.now.uptime);
            }
        }
        self.use_share(frames);
        self.metrics.messages_received.add(messages);
        self.count_hits(id);
        self.carry_out(id, Work::new(decisions, result));
        if sooner {
            self.arm(id);
        }
        match next {
            Next::Consumed => Input::Consumed(consumed),
            Next::OverRate => {
                self.pause(id, Limit::MessagesPerSecond);
                Input::Consumed(consumed)
            }
            Next::Enough => {
                self.share_left = 0;
                self.read_next_turn(id);
                Input::Incomplete(consumed)
            }
            Next::Broken => Input::Consumed(input.len()),
            Next::Incomplete(consumed) => Input::Incomplete(consumed),
            Next::Pong(payload) => {
                self.connections.send(id, OpCode::Pong, payload);
                Input::Consumed(consumed)
            }
            Next::Close(answer) => {
                self.connections.send_close(id, &answer);
                self.close(id, CloseReason::PeerClosed);
                Input::Consumed(input.len())
            }
        }
    }

    /// Goes on with an array of packets. What is left of it then waits for the next turn, and all input behind it.
    fn receive_more(&mut self, id: ConnectionId) -> Input {
        let Some(connection) = self.connections.get_mut(id) else {
            return Input::Rest;
        };
        let Phase::Open(Open { session, .. }) = &mut connection.phase else {
            return Input::Consumed(0);
        };
        if let Some(meter) = &connection.meter
            && meter.messages_left(&self.measures, self.now.uptime) == 0
        {
            self.pause(id, Limit::MessagesPerSecond);
            return Input::Incomplete(0);
        }
        let mut decisions = std::mem::take(&mut self.decisions);
        decisions.clear();
        let result = session.receive_more(&mut self.lent.environment(self.now, id), &mut decisions);
        let has_more = session.has_more();
        if self.lent.scratch.common.verifications() > 0 {
            connection.shows_tokens = true;
        }
        let sooner = self
            .wheel
            .is_sooner(session.next_deadline(&self.lent.settings), connection.armed);
        self.count_hits(id);
        self.carry_out(id, Work::new(decisions, result));
        if sooner {
            self.arm(id);
        }
        if has_more {
            self.share_left = 0;
            self.read_next_turn(id);
            return Input::Incomplete(0);
        }
        Input::Consumed(0)
    }

    /// Lets a connection wait until its rate has room again.
    fn pause(&mut self, id: ConnectionId, limit: Limit) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(meter) = &mut connection.meter
            && meter.pause(&self.measures, self.now.uptime)
        {
            connection.limited = true;
            self.metrics.limit_hit(limit);
            self.arm(id);
        }
    }

    /// Counts the limits that a session has met, and its heartbeats.
    #[inline]
    pub(in crate::cores) fn count_hits(&mut self, id: ConnectionId) {
        if self.lent.scratch.common.has_noted() {
            self.count_noted(id);
        }
    }

    #[cold]
    fn count_noted(&mut self, id: ConnectionId) {
        let noted = self.lent.scratch.common.take_noted();
        self.use_share(noted.packets_of_arrays);
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(meter) = &mut connection.meter
        {
            meter.count_heartbeats(u64::from(noted.heartbeats));
            // The array itself has been counted as a message.
            let packets = noted.packets_of_arrays;
            meter.charge_messages(packets, &self.measures, self.now.uptime);
        }
        if noted.hits {
            let hits = self.lent.scratch.common.take_hits();
            for (counter, &count) in self.metrics.limit_hits.iter().zip(hits.counts()) {
                counter.add(u64::from(count));
            }
        }
        if noted.rules {
            self.count_rule_hits();
        }
        if noted.refusals {
            self.audit_refusals(id);
        }
    }
}

/// The same bytes with room for more behind them. Where they were they are wiped: a buffer that grows would leave them.
fn moved(bytes: Vec<u8>, more: usize) -> Vec<u8> {
    let mut joined = Vec::with_capacity(bytes.len() + more);
    joined.extend_from_slice(&bytes);
    wipe_and_drop(bytes);
    joined
}

/// What a control frame carries, out of the read buffer, which the answer must not borrow.
fn copy<'r>(payload: &[u8], room: &'r mut [u8; CONTROL_PAYLOAD_BYTES_MAX]) -> &'r [u8] {
    let copied = &mut room[..payload.len()];
    copied.copy_from_slice(payload);
    copied
}

/// [`READ_BYTES_PER_TURN_MAX`], or what a simulation has in its place.
fn read_bytes_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.read_bytes_per_turn_max;
    }
    READ_BYTES_PER_TURN_MAX
}

/// [`FRAMES_PER_TURN_MAX`], or what a simulation has in its place.
pub(in crate::cores) fn frames_per_turn_max() -> u64 {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.frames_per_turn_max;
    }
    FRAMES_PER_TURN_MAX
}

/// What comes after the messages that were taken together.
enum Next<'a> {
    /// The input after them.
    Consumed,
    /// More must come; so much of the input was consumed.
    Incomplete(usize),
    /// The input after them, but later: these were as many as the connection may send now.
    OverRate,
    /// The input after them, in the next turn.
    Enough,
    /// Nothing: the frame behind them cannot be read.
    Broken,
    /// This answer to a ping.
    Pong(&'a [u8]),
    /// This answer to the peer's close frame.
    Close(CloseFrame<'a>),
}

/// What became of a part of the input.
pub(in crate::cores) enum Input {
    Consumed(usize),
    /// So much was consumed; more must come before anything else can be.
    Incomplete(usize),
    /// All that has come: nothing of it will be looked at.
    Rest,
}

enum AwaitClose {
    Consumed(usize),
    Incomplete(usize),
    Closed,
}

/// Steps over input up to the peer's close frame; a frame that cannot be read ends the waiting as well.
fn await_close(
    receiver: &mut Receiver,
    input: &mut [u8],
    limits: &message::Limits,
    compression: Compression,
) -> AwaitClose {
    match receiver.pass(input, limits, compression) {
        Ok(Passed::Close) | Err(_) => AwaitClose::Closed,
        Ok(Passed::Frame(consumed)) => AwaitClose::Consumed(consumed),
        Ok(Passed::Incomplete(consumed)) => AwaitClose::Incomplete(consumed),
    }
}

/// When so much has been decided, it is carried out before the next message is taken.
const DECIDED_BYTES_MAX: usize = 16 * 1024;
/// What one connection may have read in one turn, so that a loud one does not starve the others.
const READ_BYTES_PER_TURN_MAX: usize = 256 * 1024;
/// After so many whole messages, packets of an array and control frames it is a flood: others wait for about 0.1 ms. An
/// array that is begun with something left of this is handled up to as many packets, so twice as many are the most.
const FRAMES_PER_TURN_MAX: u64 = 256;
/// After so much work on compressed messages the rest of the input waits for the next turn, as if it had been read.
const INFLATED_PER_TURN_MAX: u64 = READ_BYTES_PER_TURN_MAX as u64;
/// After so many tokens the rest of the input waits for the next turn: to check a signature of P-521 takes 0.3 ms.
const VERIFICATIONS_PER_TURN_MAX: u32 = 4;
/// Some 300 short messages.
const FIRST_READ_BYTES_MAX: usize = 16 * 1024;
