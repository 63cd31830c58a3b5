//! One socket: its transport, its wire, its session, and the phase of its life.
//!
//! ```text
//!            head complete             our farewell             the peer's farewell
//!  Request ───────────────► Open ─────────────────► Closing ──────────────┐
//!     │ answered with HTTP    │ the peer's farewell, answered              ▼
//!     │                       │ or a broken frame, answered            Finishing ──► dropped
//!     └───────────────────────┴───────────────────────────────────────────▲   the peer's FIN, or a deadline
//! ```
//! Behind a proxy that announces its clients, ProxyHeader comes before Request. Between a request and its
//! answer over HTTP there may be LoggingIn, while the password checks run. If the peer's FIN comes while
//! bytes are left in the outbox, the connection goes through Emptying before it is dropped.
//!
//! A connection changes its phase in `upgrade.rs` (a request becomes a WebSocket), `receive.rs` (the peer's farewell)
//! and `ending.rs` (its end). `connections.rs` holds all connections of a core.
//!
//! Limits: `request_timeout`, `handshake_timeout` and the ping timers (in the session), `close_timeout`.

use mio::Token;

use crate::broker::{CoreSet, Sequence};
use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::limits::Limits;
use crate::decision::{CloseReason, Decision, Decisions, Stored};
use crate::protocols::{self, Framing, Session, Wire};
use crate::session::SessionId;
use crate::transport::stream::Stream;
use crate::wipe::wipe_and_drop;

use crate::cores::lifecycle::meter::{Measures, Meter};
use crate::cores::lifecycle::reading::{Reading, Why};
use crate::cores::lifecycle::tally::{Opened, Tally};
use crate::cores::lifecycle::wheel::Slot;
use crate::cores::outgoing::held_memory::HeldBytes;
use crate::cores::outgoing::outbox::Outbox;
use crate::transport::port::Port;

/// Names one connection of a core. It never names the connection that takes the same place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct ConnectionId {
    index: u32,
    generation: u32,
}

/// One socket. It takes three cache lines, and the fields that a delivery touches are in the first, since
/// each line of a thousand subscribers is a cache miss. `repr(C)` keeps the compiler from reordering them.
/// With debug assertions mio's socket has 8 bytes more, which would take a fourth line; such a build does not
/// check this layout.
#[derive(Debug)]
#[cfg_attr(not(debug_assertions), repr(C, align(64)))]
pub(in crate::cores) struct Connection {
    pub(in crate::cores) stream: Stream,
    pub(in crate::cores) outbox: Outbox,
    pub(in crate::cores) tally: Tally,
    /// The lane of its outbox: the list of outboxes to flush in which it stands.
    pub(in crate::cores) lane: Lane,
    /// The framing that client and server agreed on, once it is open.
    pub(in crate::cores) framing: Framing,
    /// Whether it is read, and the reasons why not.
    pub(in crate::cores) reading: Reading,
    /// Whether it has presented a token since its last heartbeat. If so, it is read with the connections that are being
    /// opened or closed.
    pub(in crate::cores) shows_tokens: bool,
    /// Whether it is counted for its address.
    pub(in crate::cores) is_counted: bool,
    pub(in crate::cores) phase: Phase,
    pub(in crate::cores) id: ConnectionId,
    pub(in crate::cores) suspended: Option<Box<Work>>,
    /// Input that was read and not consumed: part of a head or of a frame, or the input behind suspended work.
    pub(in crate::cores) leftover: Leftover,
    /// Its rates and idle time: only while it is open, and only if one of these limits is set.
    pub(in crate::cores) meter: Option<Box<Meter>>,
    /// The client's address.
    pub(in crate::cores) client: ClientAddress,
    /// When the wheel will visit it.
    pub(in crate::cores) armed: Slot,
    pub(in crate::cores) opened: Opened,
}

/// The lane of an outbox: when it is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Lane {
    /// Not at all: it is empty, or the socket takes no more.
    Idle,
    /// In the order of the list, if the turn has time left.
    Bulk,
    /// At the end of this turn.
    Prompt,
    /// With the other messages of an interval (`connections/batches.rs`), or when the connection ends.
    Batch,
}

/// The phase of a connection's life.
#[derive(Debug)]
pub(in crate::cores) enum Phase {
    /// The header in which a proxy names its client is not complete.
    ProxyHeader {
        deadline: Uptime,
        port: Port,
    },
    /// The request head is not complete.
    Request {
        deadline: Uptime,
        port: Port,
        /// Whether `100 Continue` was sent.
        sent_continue: bool,
    },
    /// The password checks examine the user name and password of a request; input is discarded.
    LoggingIn {
        deadline: Uptime,
        /// Whether the cookie may travel by HTTPS only.
        is_secure: bool,
    },
    Open(Open),
    /// Our farewell was queued; input is discarded until the peer's farewell comes.
    Closing {
        wire: Wire,
        deadline: Uptime,
    },
    /// After the outbox our FIN follows; input is discarded until the peer's FIN comes.
    Finishing {
        deadline: Uptime,
        fin_sent: bool,
    },
    /// The peer has ended its direction but may still read: once the outbox is empty the socket is dropped. If the
    /// connection has subscriptions left then (`unsubscribing.rs`), it stays in this phase without a deadline.
    Emptying {
        deadline: Uptime,
    },
}

/// An upgraded connection.
#[derive(Debug)]
pub(in crate::cores) struct Open {
    pub(in crate::cores) wire: Wire,
    pub(in crate::cores) session: Session,
}

/// Bytes that few connections have at a time. If it is empty, it takes one pointer.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "one word instead of the three of a vector")]
pub(in crate::cores) struct Leftover(Option<Box<Vec<u8>>>);

/// The decisions about one message or a batch of messages, and how many of them have been carried out.
#[derive(Debug)]
pub(in crate::cores) struct Work {
    pub(in crate::cores) decisions: Decisions,
    /// The index of the next decision.
    pub(in crate::cores) at: usize,
    /// The publications that must be delivered before the next decision.
    pub(in crate::cores) awaited: Awaited,
    /// The place behind all publications when the first decision that changes subscriptions was reached.
    /// Later decisions came with the same messages or before them, and need not wait for more publications.
    pub(in crate::cores) asked: Option<Sequence>,
    /// The reason to close the connection when all decisions are carried out; `None` if it goes on.
    pub(in crate::cores) close_reason: Option<CloseReason>,
    /// The channel with which the next decision goes on, if it is about all channels of the connection.
    pub(in crate::cores) next_channel: u32,
    /// Whether it has waited for room in the ring since it was suspended last: then it is at the head of the queue, and
    /// need not wait behind others.
    pub(in crate::cores) has_stalled: bool,
    /// Whether its next publication has found the queue of the store full.
    pub(in crate::cores) waited_for_store: bool,
    /// The version of the policies of channels by which its first decisions that had to wait were made.
    pub(in crate::cores) policies: Option<u32>,
    /// The commit that the acknowledgement of the last publication waits for, if it waits for one.
    pub(in crate::cores) commit: Option<Commit>,
}

/// The publications that must be delivered before the next decision is carried out.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) enum Awaited {
    /// Not known yet.
    Unknown,
    /// All before this place, since the previous decision has published there: the publisher must get its own
    /// copy before the answer that follows.
    Published(Sequence),
    /// All before this place, since the next decision changes subscriptions: this was the end of the ring
    /// when it was reached.
    Asked(Sequence),
}

/// The commit that the acknowledgement of a publication waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Commit {
    /// The commit of the records that the channel's owner makes up to the publication.
    Of { owner: usize, offset: u64 },
    /// The commits of everything that these cores record of publications up to this offset.
    Read { cores: CoreSet, offset: u64 },
    /// The commit of this core's records before this end.
    Before(u64),
    /// The commit of this save, which has everything about this core's MQTT sessions.
    Saved(u64),
    /// No commit: the publication was refused.
    Refused(Stored),
}

impl ConnectionId {
    pub(in crate::cores) const fn new(index: u32, generation: u32) -> ConnectionId {
        ConnectionId { index, generation }
    }

    pub(in crate::cores) const fn index(self) -> u32 {
        self.index
    }

    /// How many connections have begun after this one, if the latest has the generation `last`.
    pub(in crate::cores) const fn age(self, last: u32) -> u32 {
        last.wrapping_sub(self.generation)
    }

    /// The token of this connection in the poll. An event may arrive after the connection has ended and its place is
    /// taken; the generation tells the two apart.
    pub(in crate::cores) const fn token(self) -> Token {
        Token(self.index as usize | (self.generation as usize) << 32)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of what `token` put together"
    )]
    pub(in crate::cores) const fn from_token(token: Token) -> ConnectionId {
        ConnectionId {
            index: token.0 as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

/// How much of the input was consumed.
pub(in crate::cores) enum Input {
    Consumed(usize),
    /// This much was consumed; more bytes must arrive before the rest can be.
    Incomplete(usize),
    /// All of it: the rest is discarded unread.
    Rest,
}

impl Leftover {
    pub(in crate::cores) fn new(bytes: &[u8]) -> Leftover {
        Leftover((!bytes.is_empty()).then(|| Box::new(bytes.to_vec())))
    }

    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(in crate::cores) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |bytes| bytes.len())
    }

    pub(in crate::cores) fn into_vec(mut self) -> Vec<u8> {
        self.0.take().map_or_else(Vec::new, |bytes| *bytes)
    }
}

impl Drop for Leftover {
    /// Wipes the bytes: if the connection ends in the middle of a login, they may hold a password.
    fn drop(&mut self) {
        if let Some(bytes) = self.0.take() {
            wipe_and_drop(*bytes);
        }
    }
}

impl Work {
    /// Whether the connection ends when all decisions are carried out.
    pub(in crate::cores) fn is_ending(&self) -> bool {
        let mut list = self.decisions.list().iter();
        self.close_reason.is_some() || list.any(|decision| matches!(decision, Decision::Close { .. }))
    }

    /// Whether the work goes through the session that an MQTT client has resumed; CONNACK follows.
    pub(in crate::cores) fn resumes_session(&self) -> bool {
        matches!(self.decisions.list().get(self.at), Some(Decision::ResumeSession))
    }

    /// Makes a copy to keep while the connection waits, in memory of just its size: the core's own buffers
    /// may be much larger.
    pub(in crate::cores) fn into_parked(mut self) -> Box<Work> {
        self.decisions.shrink();
        Box::new(self)
    }

    /// The work for all decisions of a session about a message or a batch of messages.
    pub(in crate::cores) fn new(decisions: Decisions, result: Result<(), CloseReason>) -> Work {
        Work {
            decisions,
            at: 0,
            awaited: Awaited::Unknown,
            asked: None,
            close_reason: result.err(),
            next_channel: 0,
            has_stalled: false,
            waited_for_store: false,
            policies: None,
            commit: None,
        }
    }
}

impl Connection {
    /// Takes the suspended work, in order to continue it.
    pub(in crate::cores) fn take_suspended(&mut self) -> Option<Box<Work>> {
        self.reading.resume(Why::Work);
        self.suspended.take()
    }

    /// Whether its session waits for the answer to a login, for a decision of the application, or for the disk.
    pub(in crate::cores) fn awaits_decision(&self) -> bool {
        match &self.phase {
            Phase::Open(open) => open.session.is_waiting(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => false,
        }
    }

    /// Whether it is about to end: a decision closes it, or it is in the list of connections to close.
    pub(in crate::cores) fn is_ending(&self) -> bool {
        self.reading.is_paused_by(Why::Ending) || self.suspended.as_deref().is_some_and(Work::is_ending)
    }

    /// Whether it has input that was read and not yet handled completely.
    pub(in crate::cores) fn has_input(&self) -> bool {
        let has_more = match &self.phase {
            Phase::Open(open) => open.session.has_more() || open.session.has_input(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => false,
        };
        has_more || !self.leftover.is_empty()
    }

    /// Bytes that are to be sent to it and have not been written yet.
    pub(in crate::cores) fn waiting_bytes(&self) -> usize {
        self.outbox.len()
            + self
                .suspended
                .as_ref()
                .map_or(0, |work| work.decisions.bytes_len())
    }

    /// The memory that it holds while it waits: for its socket, for more input, with suspended work, or for
    /// the history of a channel. `collected` is the size of the publications that are collected for such a
    /// history elsewhere.
    pub(in crate::cores) fn holding(&self, collected: usize) -> HeldBytes {
        let outbox = if self.outbox.is_slow() {
            self.outbox.len() + self.outbox.conflated_bytes()
        } else {
            0
        };
        HeldBytes {
            outbox,
            leftover: self.leftover.len(),
            assembly: self.assembly_bytes(),
            parked: self.parked_bytes(),
            tls: self.stream.kept_bytes(),
            collected,
        }
    }

    /// Bytes of the unhandled part of a long array, and of decisions that wait.
    fn parked_bytes(&self) -> usize {
        let array = match &self.phase {
            Phase::Open(open) => open.session.kept_bytes(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => 0,
        };
        array
            + self
                .suspended
                .as_ref()
                .map_or(0, |work| work.decisions.memory_bytes())
    }

    /// Whether it holds input, suspended work, a partial message, or a packet that waits for a decision or
    /// the disk.
    #[inline]
    pub(in crate::cores) fn holds_input(&self) -> bool {
        self.has_input()
            || self.suspended.is_some()
            || self.reading.is_paused_by(Why::Decision)
            || self.assembly_bytes() > 0
            || (self.stream.tls.is_some() && self.stream.kept_bytes() > 0)
    }

    /// Bytes of an incomplete message, frame or packet.
    #[inline]
    fn assembly_bytes(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.wire.assembly_bytes() + open.session.assembly_bytes(),
            Phase::Closing { wire, .. } => wire.assembly_bytes(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => 0,
        }
    }

    /// The next deadline of its session.
    #[inline]
    pub(in crate::cores) fn deadline_of_session(&self, settings: &protocols::ProtocolSettings) -> Uptime {
        match &self.phase {
            Phase::Open(open) => open.session.next_deadline(settings),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => Uptime::NEVER,
        }
    }

    /// When it must be visited next.
    pub(in crate::cores) fn deadline(
        &self,
        settings: &protocols::ProtocolSettings,
        measures: &Measures,
    ) -> Uptime {
        match &self.phase {
            Phase::ProxyHeader { deadline, .. }
            | Phase::Request { deadline, .. }
            | Phase::LoggingIn { deadline, .. }
            | Phase::Closing { deadline, .. }
            | Phase::Finishing { deadline, .. }
            | Phase::Emptying { deadline } => *deadline,
            Phase::Open(open) => {
                let deadline = open.session.next_deadline(settings).min(self.outbox.taken_by());
                match &self.meter {
                    None => deadline,
                    Some(meter) => deadline.min(meter.deadline(measures)),
                }
            }
        }
    }
}

impl Connection {
    /// The id of its session, if its handshake is complete.
    pub(in crate::cores) fn generation(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Open(open) => open.session.id(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => None,
        }
    }
}

impl Phase {
    /// Whether the protocol's handshake is not complete yet.
    pub(in crate::cores) fn is_opening(&self) -> bool {
        match self {
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => true,
            Phase::Open(open) => !open.session.is_open(),
            Phase::Closing { .. } | Phase::Finishing { .. } | Phase::Emptying { .. } => false,
        }
    }

    /// Whether the connection has ended, and only its socket is left.
    pub(in crate::cores) const fn is_over(&self) -> bool {
        match self {
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } | Phase::Open(_) => {
                false
            }
            Phase::Closing { .. } | Phase::Finishing { .. } | Phase::Emptying { .. } => true,
        }
    }

    /// The id of the session, while it is open.
    pub(in crate::cores) fn session_id(&self) -> Option<SessionId> {
        match self {
            Phase::Open(open) => open.session.id(),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => None,
        }
    }

    /// The phase of a new socket.
    pub(in crate::cores) fn begin(now: Uptime, port: Port, has_proxy_header: bool, limits: &Limits) -> Phase {
        let deadline = now + limits.request_timeout;
        if has_proxy_header {
            Phase::ProxyHeader { deadline, port }
        } else {
            Phase::Request {
                deadline,
                port,
                sent_continue: false,
            }
        }
    }
}

// There is one for each client, in three cache lines. The client's address takes 18 bytes, since it is needed
// until the end; the pointer to TLS takes 8. The tally and the time of arrival take 28. They are here rather
// than in a table of their own, since a delivery and a flush touch this line anyway.
const _: () = assert!(size_of::<Option<Connection>>() == if cfg!(debug_assertions) { 200 } else { 192 });
#[cfg(not(debug_assertions))]
const _: () = assert!(std::mem::offset_of!(Connection, phase) == 64);
const _: () = assert!(usize::BITS == 64, "a token holds two 32-bit numbers");
