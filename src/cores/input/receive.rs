//! Reads sockets into the core's read buffer, and passes the bytes on according to the phase of the connection.
//!
//! A whole frame is parsed in place in the buffer; only an incomplete rest is copied to the connection. Each
//! phase of a connection has its own reader: for the PROXY header and the request in `arrivals/`, for
//! messages in `messages.rs`. `carry_out.rs` carries decisions out. While some decisions have to wait, the
//! connection keeps the rest of its input and is not read, so its peer's TCP window fills up.
//!
//! Limits: `READ_BYTES_PER_TURN_MAX` and `FRAMES_PER_TURN_MAX` for one connection, where each packet of an array counts
//! as a message; the next turn begins with the rest of the input.

use std::io;

use crate::app::App;
use crate::decision::{CloseReason, Limit};
use crate::http::Refusal;
use crate::transport::stream::Arrival;
use crate::wipe::{wipe, wipe_and_drop};

use crate::cores::arrivals::mqtt::DetectedProtocol;
use crate::cores::arrivals::tls::FirstBytes;
use crate::cores::core::Core;
use crate::cores::input::intake::READ_BYTES_PER_TURN_MAX;
use crate::cores::lifecycle::connection::{ConnectionId, Input, Leftover, Phase};

impl<A: App> Core<A> {
    /// Reads a socket until it is empty or its share of this turn is used up. With `to_the_end` a short read does not
    /// count as empty: the peer's FIN may follow, and no event will report it.
    pub(in crate::cores) fn read(&mut self, id: ConnectionId, to_the_end: bool) {
        self.begin_share();
        self.read_on(id, to_the_end);
    }

    /// Begins a connection's share of this turn.
    pub(in crate::cores) fn begin_share(&mut self) {
        self.intake.begin_share();
        self.resources.scratch.common.begin_verifications();
    }

    /// Like [`Core::read`], but with the rest of a share that has already begun.
    pub(in crate::cores) fn read_on(&mut self, id: ConnectionId, to_the_end: bool) {
        // The buffer is lent only here: no input of one connection makes the core read another.
        let mut buffer = self.intake.lend_buffer();
        self.read_into(&mut buffer, id, to_the_end);
        self.intake.give_back(buffer);
    }

    fn read_into(&mut self, buffer: &mut [u8], id: ConnectionId, to_the_end: bool) {
        let mut budget = read_bytes_per_turn_max();
        // The first read is short: the bytes may be a flood of small messages rather than one large message.
        let mut read_max = FIRST_READ_BYTES_MAX;
        while let Some(connection) = self.connections.get_mut(id) {
            connection.reading.note_socket(true);
            if connection.reading.is_paused() {
                return;
            }
            if budget == 0 || self.intake.is_share_used_up() {
                return self.waiting.read_next_turn(connection);
            }
            let rate_left = match &connection.meter {
                None => usize::MAX,
                Some(_) if !self.measures.have_rate() => usize::MAX,
                Some(meter) => {
                    read_max = read_max.min(FIRST_READ_BYTES_MAX);
                    let left = meter.bytes_left(&self.measures, self.time.now().uptime);
                    usize::try_from(left).unwrap_or(usize::MAX)
                }
            };
            // One byte beyond the allowance tells a client that exceeds its rate from one that exactly uses it up.
            read_max = read_max.min(rate_left.saturating_add(1));
            match connection.stream.read(read_max, buffer, self.intake.records()) {
                Ok(Arrival::End) => return self.end_of_input(id),
                Ok(Arrival::Broken(broken)) => return self.end_of_tls(id, broken),
                Ok(Arrival::Bytes(taken)) => {
                    let may_hold_more = taken.more || to_the_end;
                    connection.reading.note_socket(may_hold_more);
                    connection.tally.bytes_in += taken.wire as u64;
                    if let Some(meter) = &mut connection.meter {
                        meter.charge_bytes(taken.wire as u64, &self.measures, self.time.now().uptime);
                    }
                    self.metrics.bytes_received.add(taken.wire as u64);
                    if taken.has_tls_work {
                        self.serve_tls(id);
                    }
                    self.take_in(id, &mut buffer[..taken.count]);
                    if taken.wire > rate_left {
                        return self.pause(id, Limit::BytesPerSecond);
                    }
                    budget = budget.saturating_sub(taken.wire);
                    if !may_hold_more {
                        return;
                    }
                    read_max = buffer.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return connection.reading.note_socket(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(id, CloseReason::PeerVanished),
            }
        }
    }

    /// Handles the peer's FIN.
    fn end_of_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        // A client that waits for the answer to its login may have ended only its own direction.
        if matches!(connection.phase, Phase::LoggingIn { .. }) {
            return;
        }
        if matches!(connection.phase, Phase::Request { .. }) && !connection.leftover.is_empty() {
            // The client may still read why its incomplete request head is refused.
            self.metrics.http_answers.add(1);
            self.connections
                .send_head(id, |bytes| Refusal::Malformed.write(bytes));
        }
        self.close(id, CloseReason::PeerVanished);
    }

    /// Handles new bytes behind the bytes that were left over.
    pub(in crate::cores) fn take_in(&mut self, id: ConnectionId, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let leftover = std::mem::take(&mut connection.leftover);
        if leftover.is_empty() {
            let consumed = self.process(id, bytes);
            self.keep_leftover(id, &bytes[consumed..]);
            if self.resources.scratch.common.take_credentials_note() {
                wipe(bytes);
                self.intake.wipe();
            }
        } else {
            let mut joined = match self.resources.policy.login {
                None => leftover.into_vec(),
                Some(_) => moved(leftover.into_vec(), bytes.len()),
            };
            joined.extend_from_slice(bytes);
            let consumed = self.process(id, &mut joined);
            self.keep_leftover(id, &joined[consumed..]);
            if self.resources.scratch.common.take_credentials_note() {
                wipe(bytes);
                self.intake.wipe();
                wipe_and_drop(joined);
            }
        }
        self.connections.note_input(id);
    }

    fn keep_leftover(&mut self, id: ConnectionId, rest: &[u8]) {
        if !rest.is_empty()
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.leftover = Leftover::new(rest);
        }
    }

    /// Consumes whole heads, frames and messages from `bytes`; returns the number of consumed bytes. Goes on
    /// until the rest is incomplete, so that the memory of a message that was joined from fragments is freed.
    fn process(&mut self, id: ConnectionId, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(id)
            && !connection.reading.is_paused()
        {
            let input = &mut bytes[at..];
            let step = match &mut connection.phase {
                Phase::ProxyHeader { .. } => self.receive_proxy_header(id, input),
                Phase::Request { .. } => match self.detect_tls(id, input) {
                    FirstBytes::Plain => match self.detect_mqtt(id, input) {
                        DetectedProtocol::Http => self.receive_request(id, input),
                        DetectedProtocol::Mqtt => Input::Consumed(0),
                        DetectedProtocol::Neither => Input::Consumed(input.len()),
                    },
                    FirstBytes::Tls => Input::Consumed(input.len()),
                },
                Phase::Open(_) => self.receive_messages(id, input),
                Phase::Closing { wire, .. } => {
                    match self.intake.await_farewell(wire, connection.framing, input) {
                        Some(step) => step,
                        None => {
                            let deadline = self.time.now().uptime + self.limits.close_timeout;
                            connection.phase = Phase::Finishing {
                                deadline,
                                fin_sent: false,
                            };
                            self.connections.finish(id);
                            Input::Consumed(input.len())
                        }
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
}

/// Copies bytes, which may hold a password, to a buffer with room for `more`, and wipes the old buffer: a buffer that
/// grows by itself would leave them in freed memory.
fn moved(bytes: Vec<u8>, more: usize) -> Vec<u8> {
    let mut joined = Vec::with_capacity(bytes.len() + more);
    joined.extend_from_slice(&bytes);
    wipe_and_drop(bytes);
    joined
}

/// [`READ_BYTES_PER_TURN_MAX`], or the value of a simulation.
fn read_bytes_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.read_bytes_per_turn_max;
    }
    READ_BYTES_PER_TURN_MAX
}

/// Some 300 short messages.
const FIRST_READ_BYTES_MAX: usize = 16 * 1024;
