//! The buffers with which a core reads its connections, the share of a turn that one connection may use, and the step
//! from bytes to messages: [`Intake::take_batch`].
//!
//! Limits: `FRAMES_PER_TURN_MAX`, `INFLATED_PER_TURN_MAX` and `VERIFICATIONS_PER_TURN_MAX` of one connection in one
//! turn.

use crate::app::App;
use crate::broker::ChannelHasher;
use crate::config::limits::Limits;
use crate::decision::{CloseReason, Decisions, Message};
use crate::metrics::block::CoreMetrics;
use crate::mqtt::Version;
use crate::mqtt::packet::client_of;
use crate::mqtt::packet::first_byte::{CONNECT, SUBSCRIBE, UNSUBSCRIBE};
use crate::mqtt::receiver::{Step as Packets, close_reason};
use crate::mqtt::session::Placement;
use crate::protocols::{Environment, Farewell, Framing, MinBin, MqttClient, Session, Wire, receive_packet};
use crate::transport::tls::ROOM_BYTES_MIN;
use crate::websocket::close::CloseFrame;
use crate::websocket::deflate::{Compression, Inflater};
use crate::websocket::frame::{self, CONTROL_PAYLOAD_BYTES_MAX};
use crate::websocket::message::{self, Received, SkipResult, Step};
use crate::wipe::wipe;

use crate::clock::Uptime;
use crate::cores::lifecycle::connection::{Connection, Input, Open, Phase};
use crate::cores::lifecycle::meter::Measures;

/// The buffers with which a core reads all its connections, and the share of the connection that is read now.
#[derive(Debug)]
pub(in crate::cores) struct Intake {
    /// Empty while a connection is read.
    buffer: Box<[u8]>,
    /// Records of TLS that were read and are being decrypted; empty without TLS.
    records: Vec<u8>,
    inflater: Inflater,
    min_bin: MinBin,
    limits: message::Limits,
    owners: Owners,
    /// How many more messages, packets of arrays and control frames of the connection that is read now are handled in
    /// this turn.
    frames_left: u64,
}

/// Finds the core that owns the client id of a session.
#[derive(Clone, Debug)]
pub(in crate::cores) struct Owners {
    /// This core.
    pub(in crate::cores) core: usize,
    /// How many cores there are.
    pub(in crate::cores) cores: usize,
    pub(in crate::cores) hasher: ChannelHasher,
}

/// Messages that were taken together, up to a control frame that needs an answer or the end of the input.
pub(in crate::cores) struct Batch<'a> {
    /// Bytes of the input.
    pub(in crate::cores) consumed: usize,
    /// Messages and control frames.
    pub(in crate::cores) frames: u64,
    pub(in crate::cores) messages: u64,
    /// Whether one of the messages has opened the session.
    pub(in crate::cores) has_opened: bool,
    /// The session's result for the last message.
    pub(in crate::cores) result: Result<(), CloseReason>,
    pub(in crate::cores) next: Next<'a>,
}

/// The further way of the input after a batch.
pub(in crate::cores) enum Next<'a> {
    /// The core goes on with the rest of the input.
    Consumed,
    /// The core needs more bytes from the socket: the input ends within a frame.
    Incomplete,
    /// The core goes on with the rest of the input when the connection is below its rate again.
    OverRate,
    /// The core goes on with the rest of the input in the next turn.
    Enough,
    /// The core cannot go on: the frame behind the batch is malformed.
    Broken,
    /// The core sends this answer to a ping, and goes on.
    Pong(&'a [u8]),
    /// The core sends this answer to the peer's farewell.
    Farewell(Farewell<'a>),
    /// The core goes on with the rest of the input when a login is answered, or a decision has come for which
    /// the session waits.
    Decision,
    /// The connection moves to another core, which owns its client id. The rest of the input begins with
    /// CONNECT, unless the session keeps CONNECT.
    Move(usize, Version),
    /// The core goes on with the rest of the input when all publications so far are delivered. The rest
    /// begins with SUBSCRIBE or UNSUBSCRIBE, unless the session keeps that packet.
    Subscribe,
}

/// Room for the payload of a control frame.
pub(in crate::cores) type ControlRoom = [u8; CONTROL_PAYLOAD_BYTES_MAX];
pub(in crate::cores) const CONTROL_ROOM: ControlRoom = [0; CONTROL_PAYLOAD_BYTES_MAX];

impl Intake {
    pub(in crate::cores) fn new(limits: &Limits, owners: Owners) -> Intake {
        Intake {
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            records: Vec::new(),
            inflater: Inflater::default(),
            min_bin: MinBin::default(),
            limits: message::Limits {
                message_bytes_max: limits.message_bytes_max as usize,
                frame_bytes_max: match limits.frame_bytes_max {
                    0 => limits.message_bytes_max,
                    bytes => bytes.min(limits.message_bytes_max),
                } as usize,
                fragments_max: limits.fragments_max,
            },
            owners,
            frames_left: 0,
        }
    }

    /// Lends the read buffer, to be given back by [`Intake::give_back`] when the connection has been read.
    pub(in crate::cores) fn lend_buffer(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.buffer)
    }

    pub(in crate::cores) fn give_back(&mut self, buffer: Box<[u8]>) {
        self.buffer = buffer;
    }

    /// The read buffer, between two connections that are read with it.
    pub(in crate::cores) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The buffer in which records of TLS are decrypted.
    pub(in crate::cores) fn records(&mut self) -> &mut Vec<u8> {
        &mut self.records
    }

    /// Another connection begins to use up its share of this turn.
    pub(in crate::cores) fn begin_share(&mut self) {
        self.frames_left = frames_per_turn_max();
        self.inflater.begin_share();
    }

    /// The connection that is read now has used up `frames` of its share.
    pub(in crate::cores) fn use_share(&mut self, frames: u64) {
        self.frames_left = self.frames_left.saturating_sub(frames);
    }

    /// The connection that is read now has used up its share.
    pub(in crate::cores) fn end_share(&mut self) {
        self.frames_left = 0;
    }

    pub(in crate::cores) fn is_share_used_up(&self) -> bool {
        self.frames_left == 0
    }

    /// Wipes the places where a password may have lain: records of TLS, which are decrypted in place, and the
    /// text of a compressed message.
    #[cold]
    pub(in crate::cores) fn wipe(&mut self) {
        wipe(&mut self.records);
        self.inflater.wipe();
        wipe(self.min_bin.text_mut());
    }

    /// Takes the messages at the beginning of the input and lets the session decide about each. Carries no decision
    /// out, and counts nothing: see [`Intake::account_for`]. `rate_left` is how many messages the connection's rate
    /// allows now. Taking sixteen messages of one read together saved a quarter of the instructions of each.
    #[inline]
    pub(in crate::cores) fn take_batch<'r, A: App>(
        &mut self,
        connection: &mut Connection,
        input: &mut [u8],
        room: &'r mut ControlRoom,
        rate_left: u64,
        environment: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Batch<'r> {
        let (compression, is_min_bin) = match connection.framing {
            Framing::WebSocket(compression) => (compression, false),
            Framing::MinBin => (Compression::Off, true),
            Framing::Mqtt | Framing::MqttOverWebSocket => {
                return self.take_packets(connection, input, room, rate_left, environment, decisions);
            }
        };
        let mut batch = Batch::begin();
        let Phase::Open(Open { wire, session }) = &mut connection.phase else {
            return batch;
        };
        let receiver = &mut wire.receiver;
        let was_open = session.is_open();
        let frames_max = rate_left.min(self.frames_left);
        batch.next = loop {
            let counted = batch.frames + environment.common.scratch.packets_of_arrays();
            if counted >= frames_max && batch.consumed < input.len() {
                break if counted >= rate_left {
                    Next::OverRate
                } else {
                    Next::Enough
                };
            }
            if batch.messages > 0 && waits_for_answers(&input[batch.consumed..]) {
                break Next::Consumed;
            }
            let rest = &mut input[batch.consumed..];
            let step = match compression {
                Compression::Off => receiver.receive(rest, &self.limits),
                Compression::Large | Compression::Small => {
                    receiver.receive_compressed(rest, &self.limits, &mut self.inflater)
                }
            };
            let received = match step {
                Ok(Step::Message { received, consumed }) => {
                    batch.consumed += consumed;
                    received
                }
                Ok(Step::Incomplete { consumed }) => {
                    batch.consumed += consumed;
                    break Next::Incomplete;
                }
                Err(reason) => {
                    batch.result = Err(reason);
                    break Next::Broken;
                }
            };
            batch.frames += 1;
            let message = match received {
                Received::Text(text) => Message::Text(text),
                Received::Binary(bytes) => Message::Binary(bytes),
                Received::Pong => continue,
                Received::Ping(payload) => break Next::Pong(copy(payload, room)),
                Received::Close(close) => {
                    break Next::Farewell(Farewell::WebSocket(copy_close(&close, room)));
                }
            };
            let message = match is_min_bin {
                false => message,
                true => unpacked(&mut self.min_bin, message),
            };
            batch.messages += 1;
            batch.result = session.receive(message, environment, decisions);
            if session.has_more() {
                receiver.forget_handed_out();
                break Next::Enough;
            }
            if batch.result.is_err() || decisions.bytes_len() >= DECIDED_BYTES_MAX {
                break Next::Consumed;
            }
            let verifications = environment.common.scratch.verifications();
            let mut is_enough = compression.is_on() && self.inflater.share() >= INFLATED_PER_TURN_MAX;
            if verifications > 0 && was_open {
                // The first token ends the batch: from then on the connection is read with the connections that are
                // being opened or closed.
                is_enough |= !std::mem::replace(&mut connection.shows_tokens, true)
                    || verifications >= VERIFICATIONS_PER_TURN_MAX;
            }
            if is_enough && batch.consumed < input.len() {
                break Next::Enough;
            }
        };
        batch.has_opened = session.is_open() != was_open;
        if is_min_bin {
            self.min_bin.shrink();
        }
        batch
    }

    /// [`Intake::take_batch`] for a connection that speaks MQTT, whose messages are packets.
    fn take_packets<'r, A: App>(
        &self,
        connection: &mut Connection,
        input: &mut [u8],
        room: &'r mut ControlRoom,
        rate_left: u64,
        environment: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Batch<'r> {
        let mut batch = Batch::begin();
        let Phase::Open(Open {
            wire,
            session: Session::Mqtt(client),
        }) = &mut connection.phase
        else {
            return batch;
        };
        let was_open = client.session.is_open();
        let mut packets = PacketBatch {
            batch: &mut batch,
            frames_max: rate_left.min(self.frames_left),
            over: if rate_left <= self.frames_left {
                BatchLimit::Rate
            } else {
                BatchLimit::Share
            },
            packet_bytes_max: self.limits.message_bytes_max,
            owners: &self.owners,
            client,
        };
        let next = match connection.framing {
            Framing::Mqtt | Framing::WebSocket(_) | Framing::MinBin => {
                let (consumed, next) = packets.take(input, environment, decisions);
                packets.batch.consumed = consumed;
                next
            }
            Framing::MqttOverWebSocket => {
                packets.take_framed(wire, &self.limits, input, room, environment, decisions)
            }
        };
        batch.next = next;
        batch.has_opened = client.session.is_open() != was_open;
        batch
    }

    /// Skips input of a connection that awaits the peer's farewell. `None` if the farewell has come, or if
    /// the input is malformed.
    pub(in crate::cores) fn await_farewell(
        &self,
        wire: &mut Wire,
        framing: Framing,
        input: &mut [u8],
    ) -> Option<Input> {
        match wire.receiver.pass(input, &self.limits, framing.compression()) {
            Ok(SkipResult::Frame(consumed)) => Some(Input::Consumed(consumed)),
            Ok(SkipResult::Incomplete(consumed)) => Some(Input::Incomplete(consumed)),
            Ok(SkipResult::Close) | Err(_) => None,
        }
    }

    /// Counts a batch: against the connection's rates and its share of the turn, and for the metrics.
    #[inline]
    pub(in crate::cores) fn account_for(
        &mut self,
        batch: &Batch<'_>,
        connection: &mut Connection,
        measures: &Measures,
        now: Uptime,
        metrics: &CoreMetrics,
    ) {
        connection.tally.take_in(batch.messages);
        if let Some(meter) = &mut connection.meter {
            meter.charge_messages(batch.frames, measures, now);
        }
        if connection.framing.compression().is_on() {
            let work = self.inflater.take_work();
            metrics.messages_inflated.add(work.messages);
            metrics.inflate_bytes_before.add(work.bytes_before);
            metrics.inflate_bytes_after.add(work.bytes_after);
            // The bytes that were read are charged to the connection already.
            if let Some(meter) = &mut connection.meter {
                let more = work.bytes_after.saturating_sub(work.bytes_before);
                meter.charge_bytes(more, measures, now);
            }
        }
        self.use_share(batch.frames);
        metrics.messages_received.add(batch.messages);
    }
}

impl Batch<'_> {
    fn begin() -> Self {
        Batch {
            consumed: 0,
            frames: 0,
            messages: 0,
            has_opened: false,
            result: Ok(()),
            next: Next::Broken,
        }
    }
}

/// A batch of packets, with its bounds.
struct PacketBatch<'b, 'r> {
    batch: &'b mut Batch<'r>,
    client: &'b mut MqttClient,
    /// Most frames and packets of the batch, including those used up before it.
    frames_max: u64,
    over: BatchLimit,
    packet_bytes_max: usize,
    owners: &'b Owners,
}

impl Owners {
    /// The core that owns the client id of a CONNECT packet, and the version of the packet, if it is another core.
    fn other_owner(&self, first: u8, body: &[u8]) -> Option<(usize, Version)> {
        if self.cores == 1 || first >> 4 != CONNECT >> 4 {
            return None;
        }
        let (version, client_id) = client_of(body).filter(|(_, client_id)| !client_id.is_empty())?;
        let owner = self.hasher.hash(client_id.as_bytes()).owner(self.cores);
        (owner != self.core).then_some((owner, version))
    }
}

/// The bound that has ended a batch.
#[derive(Clone, Copy)]
enum BatchLimit {
    /// The messages that the connection's rate allows.
    Rate,
    /// The connection's share of the turn.
    Share,
}

impl<'r> PacketBatch<'_, 'r> {
    /// Takes the packets at the beginning of these bytes, and returns how many bytes that were.
    fn take<A: App>(
        &mut self,
        bytes: &[u8],
        environment: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> (usize, Next<'r>) {
        let mut at = 0;
        loop {
            let has_more = at < bytes.len() || self.client.receiver.has_packet();
            if has_more && let Some(next) = self.is_over(environment) {
                return (at, next);
            }
            let step = self.client.receiver.receive(&bytes[at..], self.packet_bytes_max);
            let (first, body) = match step {
                Ok(Packets::Packet {
                    first,
                    body,
                    consumed,
                }) => {
                    let later = match self.client.session.placement {
                        Placement::Unknown => {
                            let owner = self.owners.other_owner(first, body);
                            owner.map(|(owner, version)| Next::Move(owner, version))
                        }
                        Placement::Owner if matches!(first, SUBSCRIBE | UNSUBSCRIBE) => Some(Next::Subscribe),
                        Placement::Owner | Placement::OwnerMaySubscribe => None,
                    };
                    if let Some(later) = later {
                        if self.client.receiver.hand_out_again() {
                            at += consumed;
                        }
                        return (at, later);
                    }
                    self.client.session.placement = Placement::Owner;
                    at += consumed;
                    (first, body)
                }
                Ok(Packets::Incomplete) => return (bytes.len(), Next::Incomplete),
                Err(fault) => {
                    self.batch.result = Err(close_reason(fault));
                    return (at, Next::Broken);
                }
            };
            self.batch.frames += 1;
            self.batch.messages += 1;
            let session = &mut self.client.session;
            self.batch.result = receive_packet(session, first, body, environment, decisions);
            if self.batch.result.is_err() || decisions.bytes_len() >= DECIDED_BYTES_MAX {
                return (at, Next::Consumed);
            }
            if session.is_waiting() {
                return (at, Next::Decision);
            }
            if session.has_more() {
                return (at, Next::Enough);
            }
        }
    }

    /// Takes the packets of the WebSocket messages at the beginning of the input, beginning with the rest of
    /// an earlier message.
    fn take_framed<A: App>(
        &mut self,
        wire: &mut Wire,
        limits: &message::Limits,
        input: &mut [u8],
        room: &'r mut ControlRoom,
        environment: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Next<'r> {
        if self.client.receiver.has_rest() || self.client.receiver.has_packet() {
            let (rest, taken) = self.client.receiver.take_rest();
            let (more, next) = self.take(&rest[taken..], environment, decisions);
            self.client.receiver.put_back(rest, taken + more);
            if !matches!(next, Next::Incomplete) {
                return next;
            }
        }
        loop {
            let rest = &mut input[self.batch.consumed..];
            if !rest.is_empty()
                && let Some(next) = self.is_over(environment)
            {
                return next;
            }
            if self.batch.messages > 0 && waits_for_answers(rest) {
                return Next::Consumed;
            }
            let received = match wire.receiver.receive(rest, limits) {
                Ok(Step::Message { received, consumed }) => {
                    self.batch.consumed += consumed;
                    received
                }
                Ok(Step::Incomplete { consumed }) => {
                    self.batch.consumed += consumed;
                    return Next::Incomplete;
                }
                Err(reason) => {
                    self.batch.result = Err(reason);
                    return Next::Broken;
                }
            };
            let before = self.batch.frames;
            match received {
                Received::Binary(bytes) => {
                    let (taken, next) = self.take(bytes, environment, decisions);
                    if taken < bytes.len() && !matches!(next, Next::Broken) {
                        self.client.receiver.keep(&bytes[taken..]);
                    }
                    if !matches!(next, Next::Incomplete) {
                        wire.receiver.forget_handed_out();
                        return next;
                    }
                    // A frame without a whole packet counts as well: it may be empty, or a byte.
                    self.batch.frames = self.batch.frames.max(before + 1);
                }
                Received::Text(_) => {
                    self.batch.result = Err(CloseReason::TextFrame);
                    return Next::Broken;
                }
                Received::Pong => self.batch.frames += 1,
                Received::Ping(payload) => {
                    self.batch.frames += 1;
                    return Next::Pong(copy(payload, room));
                }
                Received::Close(close) => {
                    self.batch.frames += 1;
                    return Next::Farewell(Farewell::WebSocket(copy_close(&close, room)));
                }
            }
        }
    }

    /// The further way of the input, if the batch is full.
    fn is_over<A: App>(&self, environment: &Environment<'_, A>) -> Option<Next<'r>> {
        let counted = self.batch.frames + environment.common.scratch.packets_of_arrays();
        (counted >= self.frames_max).then_some(match self.over {
            BatchLimit::Rate => Next::OverRate,
            BatchLimit::Share => Next::Enough,
        })
    }
}

/// Whether the input goes on with a control frame. Its answer comes after the decisions about earlier messages, and
/// these may have to wait, so the frame is left unread. The same goes for a fragment, since a control frame may follow
/// it.
fn waits_for_answers(input: &[u8]) -> bool {
    input
        .first()
        .is_some_and(|&first| !frame::is_whole_message(first))
}

/// The text that a message of a client with the codec `min-bin` means. A message that cannot be read becomes
/// a text that is not a packet: the reference ignores it, or closes the connection before the handshake.
#[cold]
fn unpacked<'m>(codec: &'m mut MinBin, message: Message<'m>) -> Message<'m> {
    const NO_PACKET: Message<'_> = Message::Text("?");
    match message {
        // Pongs, which do not pass through the codec.
        Message::Text("" | "#1" | "#2") => message,
        Message::Text(_) => NO_PACKET,
        Message::Binary(bytes) => codec.decode(bytes).map_or(NO_PACKET, Message::Text),
    }
}

/// Copies the payload of a control frame out of the read buffer, which the answer must not borrow.
fn copy<'r>(payload: &[u8], room: &'r mut ControlRoom) -> &'r [u8] {
    let copied = &mut room[..payload.len()];
    copied.copy_from_slice(payload);
    copied
}

fn copy_close<'r>(close: &CloseFrame<'_>, room: &'r mut ControlRoom) -> CloseFrame<'r> {
    let reason = copy(close.reason.as_bytes(), room);
    let reason = str::from_utf8(reason).expect("it was text before it was copied");
    CloseFrame {
        code: close.code,
        reason,
    }
}

/// [`FRAMES_PER_TURN_MAX`], or the value of a simulation.
pub(in crate::cores) fn frames_per_turn_max() -> u64 {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.frames_per_turn_max;
    }
    FRAMES_PER_TURN_MAX
}

/// When decisions hold this many bytes, they are carried out before the next message is taken.
const DECIDED_BYTES_MAX: usize = 16 * 1024;
/// Most messages, packets of arrays and control frames of one connection in one turn: more are a flood. Other
/// connections wait for about 0.1 ms meanwhile. An array that begins within this number is handled up to as many
/// packets again, so a turn handles at most twice as many.
const FRAMES_PER_TURN_MAX: u64 = 256;
/// After this much work on compressed messages, the rest of the input waits for the next turn: inflated bytes count
/// like bytes that were read.
const INFLATED_PER_TURN_MAX: u64 = READ_BYTES_PER_TURN_MAX as u64;
/// Most bytes that one connection has read in one turn, so that a busy connection does not starve the others.
pub(in crate::cores) const READ_BYTES_PER_TURN_MAX: usize = 256 * 1024;
/// After this many checks of tokens, the rest of the input waits for the next turn: checking a signature of P-521 takes
/// 0.3 ms.
const VERIFICATIONS_PER_TURN_MAX: u32 = 4;
/// One shared read buffer per core. A read that fills it is followed by another.
const READ_BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BUFFER_BYTES >= ROOM_BYTES_MIN);
