//! What a session may ask for, and how a connection ends.
//!
//! A session performs nothing: it appends [`Decision`]s to a [`Decisions`], which the core keeps and reuses, and
//! `cores/carry_out.rs` carries them out in order. Text that a decision needs lies in the same [`Decisions`], named
//! by [`Span`], so that in the steady state nothing is allocated.
//!
//! Invariants
//! 1. Decisions are carried out in the order in which they were appended.
//! 2. A [`Span`] is valid for the [`Decisions`] that made it, until [`Decisions::clear`].
//! 3. The bytes of a [`Decisions`] are fewer than 4 GiB, since a [`Span`] holds 32-bit numbers. What would not fit is left
//!    out, and [`Decisions::is_overfull`] says so: then nothing of it may be carried out.
//!
//! Close codes: RFC 6455 section 7.4; wire reference, section 11.

use std::ops::Range;

use crate::auth::Credentials;
pub use crate::broker::{SubscribeOutcome, UnsubscribeOutcome};
use crate::config::limits::Limit;

/// A whole WebSocket message as a session receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message; its UTF-8 has been checked.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// Where some text lies in the bytes of a [`Decisions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One thing that a session wants done. Names of channels are their bytes in WTF-8: UTF-8, but for halves of
/// surrogate pairs, which JavaScript strings may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send one text message to this connection.
    Send {
        /// The message.
        message: Span,
    },
    /// Send one binary message to this connection.
    SendBinary {
        /// The message.
        message: Span,
    },
    /// Subscribe this connection, then tell the session by `Session::subscribed`.
    Subscribe {
        /// The channel's name.
        channel: Span,
        /// The call id to answer, as it stands on the wire; `None` for a packet without one.
        cid: Option<Span>,
    },
    /// Unsubscribe this connection, then tell the session by `Session::unsubscribed`.
    Unsubscribe {
        /// The channel's name.
        channel: Span,
        /// The call id to answer.
        cid: Option<Span>,
    },
    /// Unsubscribe this connection by the server's will and send it `message`, subscribed or not.
    KickOut {
        /// The channel's name.
        channel: Span,
        /// The message.
        message: Span,
    },
    /// Unsubscribe this connection from each of its channels, asking `Session::kicked_out` for each one's message.
    KickOutAll {
        /// What the session needs to word the messages.
        reason: Option<Span>,
    },
    /// Look at each of this connection's channels again: from those for which `Session::may_keep` says no, unsubscribe
    /// it and send it what `Session::forbidden` says.
    CheckSubscriptions,
    /// Publish to all subscribers of a channel.
    Publish {
        /// The channel's name.
        channel: Span,
        /// The whole text message that each subscriber gets.
        message: Span,
    },
    /// Close after all that went before has been sent.
    Close {
        /// Why.
        reason: CloseReason,
        /// What the close frame says besides the code; cut to what fits.
        text: Span,
    },
    /// Ask the login password_checks with [`Decisions::take_credentials`]; the session is told the answer. A session decides no
    /// other before that.
    Login,
}

impl Decision {
    /// The same, with its bytes `by` further on.
    fn shifted(self, by: u32) -> Decision {
        let span = |span: Span| Span {
            start: span.start + by,
            end: span.end + by,
        };
        match self {
            Decision::Send { message } => Decision::Send {
                message: span(message),
            },
            Decision::SendBinary { message } => Decision::SendBinary {
                message: span(message),
            },
            Decision::Subscribe { channel, cid } => Decision::Subscribe {
                channel: span(channel),
                cid: cid.map(span),
            },
            Decision::Unsubscribe { channel, cid } => Decision::Unsubscribe {
                channel: span(channel),
                cid: cid.map(span),
            },
            Decision::KickOut { channel, message } => Decision::KickOut {
                channel: span(channel),
                message: span(message),
            },
            Decision::KickOutAll { reason } => Decision::KickOutAll {
                reason: reason.map(span),
            },
            Decision::CheckSubscriptions => Decision::CheckSubscriptions,
            Decision::Publish { channel, message } => Decision::Publish {
                channel: span(channel),
                message: span(message),
            },
            Decision::Close { reason, text } => Decision::Close {
                reason,
                text: span(text),
            },
            Decision::Login => Decision::Login,
        }
    }
}

/// The decisions of one received message, and the bytes they name.
#[derive(Debug, Default)]
pub struct Decisions {
    bytes: Vec<u8>,
    list: Vec<Decision>,
    held: Vec<Decision>,
    is_overfull: bool,
    /// Of the login that is decided: not among the bytes, which are not wiped.
    credentials: Option<Box<Credentials>>,
}

impl Decisions {
    /// An empty list.
    pub fn new() -> Decisions {
        Decisions::default()
    }

    /// Forgets all decisions; keeps the memory.
    pub fn clear(&mut self) {
        let lists = self.list.capacity().max(self.held.capacity());
        if self.bytes.capacity() > BYTES_KEPT_MAX || lists > DECISIONS_KEPT_MAX {
            *self = Decisions::default();
        }
        self.bytes.clear();
        self.list.clear();
        self.held.clear();
        self.is_overfull = false;
        self.credentials = None;
    }

    /// Decides a login.
    pub fn push_login(&mut self, credentials: Credentials) {
        self.credentials = Some(Box::new(credentials));
        self.push(Decision::Login);
    }

    /// The same, for whoever only looks.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }

    /// Who the client of a decided login claims to be, and what is to prove it; once.
    pub fn take_credentials(&mut self) -> Option<Box<Credentials>> {
        self.credentials.take()
    }

    /// Appends a decision.
    pub fn push(&mut self, decision: Decision) {
        self.list.push(decision);
    }

    /// Lets `write` append to the bytes; what it appended is the span. It may not remove any.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.span_from(start, BYTES_MAX)
    }

    /// The bytes from `start` on; none of them if there are more than `bytes_max`.
    fn span_from(&mut self, start: usize, bytes_max: usize) -> Span {
        if self.bytes.len() > bytes_max {
            self.bytes.truncate(start);
            self.is_overfull = true;
        }
        let position = |at: usize| u32::try_from(at).expect("invariant 3");
        Span {
            start: position(start),
            end: position(self.bytes.len()),
        }
    }

    /// Whether something did not fit: `message_bytes_max` may be 1 GiB, and JSON may grow when it is passed on.
    pub fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    /// Keeps a decision for the end of the message, behind all that is pushed until then.
    pub fn hold(&mut self, decision: Decision) {
        self.held.push(decision);
    }

    /// Appends the decisions that were held, in order.
    #[inline]
    pub fn push_held(&mut self) {
        if !self.held.is_empty() {
            self.list.append(&mut self.held);
        }
    }

    /// The connection is to be closed: appends only what of the held decisions concerns others, and forgets the rest.
    pub fn push_held_publications(&mut self) {
        self.held
            .retain(|decision| matches!(decision, Decision::Publish { .. }));
        self.push_held();
    }

    /// Appends what was decided later, on its own. False, and nothing is appended, if there is no room.
    #[must_use]
    pub fn append(&mut self, later: &mut Decisions) -> bool {
        if later.is_overfull || self.bytes.len() + later.bytes.len() > BYTES_MAX {
            return false;
        }
        if later.credentials.is_some() {
            self.credentials = later.credentials.take();
        }
        let by = u32::try_from(self.bytes.len()).expect("invariant 3");
        self.bytes.extend_from_slice(&later.bytes);
        self.list
            .extend(later.list.iter().map(|decision| decision.shifted(by)));
        true
    }

    /// Only those of the publications from `index` on, in memory of just their size.
    pub fn publications_from(&self, index: usize) -> Decisions {
        let mut publications = Decisions::default();
        for decision in &self.list[index..] {
            if let Decision::Publish { channel, message } = *decision {
                let mut copy = |span| publications.write(|bytes| bytes.extend_from_slice(self.bytes(span)));
                let (channel, message) = (copy(channel), copy(message));
                publications.push(Decision::Publish { channel, message });
            }
        }
        publications.bytes.shrink_to_fit();
        publications.list.shrink_to_fit();
        publications
    }

    /// How many bytes the decisions name.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that all of it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + (self.list.capacity() + self.held.capacity()) * size_of::<Decision>()
    }

    /// Gives back memory that is not used: these decisions wait, perhaps for long.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.list.shrink_to_fit();
        self.held.shrink_to_fit();
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// The texts to send from `index` on, up to a decision of another kind.
    pub fn texts_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.list[index..].iter().map_while(|decision| match *decision {
            Decision::Send { message } => Some(self.bytes(message)),
            Decision::SendBinary { .. }
            | Decision::Subscribe { .. }
            | Decision::Unsubscribe { .. }
            | Decision::KickOut { .. }
            | Decision::KickOutAll { .. }
            | Decision::CheckSubscriptions
            | Decision::Publish { .. }
            | Decision::Close { .. }
            | Decision::Login => None,
        })
    }

    /// The decision at `index`, if there are that many.
    pub fn decision(&self, index: usize) -> Option<Decision> {
        self.list.get(index).copied()
    }

    /// All decisions, in order.
    pub fn list(&self) -> &[Decision] {
        &self.list
    }
}

/// As many as a [`Span`] can name.
const BYTES_MAX: usize = u32::MAX as usize;
/// A list that grew past this gives its memory back.
const BYTES_KEPT_MAX: usize = 256 * 1024;
const DECISIONS_KEPT_MAX: usize = 8192;

/// A close code that may stand in a close frame: RFC 6455 section 7.4, as the reference's WebSocket engine checks it
/// (1000 to 1014 without 1004, 1005 and 1006, and 3000 to 4999).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The code, if it may be sent.
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

/// Whose doing the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The peer left, as peers do.
    Nobody,
    /// The peer broke a rule.
    Peer,
    /// A limit was reached.
    Limit,
    /// This server is stopping.
    Draining,
    /// The application asked for it.
    App,
    /// An operator asked for it.
    Operator,
    /// This server has a bug.
    Bug,
}

/// Why a connection ends. The one table of close codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer sent a close frame; its code was echoed.
    PeerClosed,
    /// The peer ended or reset the TCP connection without a close frame.
    PeerVanished,
    /// The request was answered with plain HTTP.
    HttpAnswered,
    /// A balancer has asked whether clients are served, and has been told.
    Probed,
    /// No complete request head in time.
    RequestTimeout,
    /// The TLS handshake failed, or what came after it could not be decrypted.
    TlsFailed,
    /// A trusted proxy began with something else than a PROXY header.
    BadProxyHeader,
    /// A frame that RFC 6455 forbids.
    ProtocolError,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A message over `message_bytes_max`.
    MessageTooBig,
    /// A message in more than `fragments_max` fragments.
    TooManyFragments,
    /// No handshake within `handshake_timeout`.
    HandshakeTimeout,
    /// Anything else before the handshake.
    MessageBeforeHandshake,
    /// `#handshake` or `#authenticate` without a numeric call id.
    CallIdMissing,
    /// The application refused the handshake; its code or 4008.
    HandshakeRefused(CloseCode),
    /// Nothing from the client within `ping_timeout`.
    PongTimeout,
    /// A token could not be signed.
    SigningFailed,
    /// The outbox is full of publications that the client does not read.
    SlowConsumer,
    /// The server is stopping.
    Draining,
    /// The application disconnected the client.
    Application(CloseCode),
    /// Over its rates for too long.
    RateExceeded,
    /// No message for `idle_timeout`.
    IdleTimeout,
    /// A frame over `frame_bytes_max`.
    FrameTooBig,
    /// Not authenticated within `authentication_timeout`, and others are not served.
    AuthenticationTimeout,
    /// An operator has revoked the token by which the client came in.
    Revoked,
    /// A compressed message that inflates to more than `message_bytes_max`.
    InflatedTooBig,
    /// A compressed message that cannot be inflated.
    BadCompression,
    /// Nothing of what waits for the client was taken for `write_timeout`.
    WriteTimeout,
    /// The connections of its core held more than their share of `outbox_bytes_total_max`, and it was one of those that
    /// held most.
    HoldsMost,
}

impl CloseReason {
    /// How many reasons there are, for tables of counters.
    pub const COUNT: usize = 29;

    /// The code of our close frame; `None` if we send none.
    pub const fn code(self) -> Option<CloseCode> {
        let code = match self {
            CloseReason::PeerClosed
            | CloseReason::PeerVanished
            | CloseReason::HttpAnswered
            | CloseReason::Probed
            | CloseReason::RequestTimeout
            | CloseReason::TlsFailed
            | CloseReason::BadProxyHeader => return None,
            CloseReason::ProtocolError => 1002,
            CloseReason::InvalidUtf8 | CloseReason::BadCompression => 1007,
            CloseReason::MessageTooBig | CloseReason::FrameTooBig | CloseReason::InflatedTooBig => 1009,
            CloseReason::TooManyFragments => 1008,
            CloseReason::HandshakeTimeout => 4005,
            CloseReason::MessageBeforeHandshake => 4009,
            CloseReason::CallIdMissing => 4008,
            CloseReason::PongTimeout => 4001,
            CloseReason::SigningFailed => 4002,
            CloseReason::SlowConsumer | CloseReason::HoldsMost => 4010,
            CloseReason::RateExceeded => 4029,
            CloseReason::IdleTimeout => 4030,
            CloseReason::AuthenticationTimeout => 4031,
            CloseReason::Draining => 1001,
            CloseReason::Revoked => 4032,
            CloseReason::WriteTimeout => 4033,
            CloseReason::HandshakeRefused(code) | CloseReason::Application(code) => return Some(code),
        };
        Some(CloseCode(code))
    }

    /// The value of the `reason` label in metrics.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// All labels, by [`CloseReason::index`].
    pub const LABELS: [&'static str; Self::COUNT] = [
        "peer_closed",
        "peer_vanished",
        "http_answered",
        "request_timeout",
        "protocol_error",
        "invalid_utf8",
        "message_too_big",
        "too_many_fragments",
        "handshake_timeout",
        "message_before_handshake",
        "call_id_missing",
        "handshake_refused",
        "pong_timeout",
        "signing_failed",
        "slow_consumer",
        "draining",
        "application",
        "tls_failed",
        "rate_exceeded",
        "idle_timeout",
        "bad_proxy_header",
        "frame_too_big",
        "authentication_timeout",
        "revoked",
        "inflated_too_big",
        "bad_compression",
        "write_timeout",
        "holds_most",
        "probed",
    ];

    /// The place of this reason in tables of counters.
    pub const fn index(self) -> usize {
        match self {
            CloseReason::PeerClosed => 0,
            CloseReason::PeerVanished => 1,
            CloseReason::HttpAnswered => 2,
            CloseReason::RequestTimeout => 3,
            CloseReason::ProtocolError => 4,
            CloseReason::InvalidUtf8 => 5,
            CloseReason::MessageTooBig => 6,
            CloseReason::TooManyFragments => 7,
            CloseReason::HandshakeTimeout => 8,
            CloseReason::MessageBeforeHandshake => 9,
            CloseReason::CallIdMissing => 10,
            CloseReason::HandshakeRefused(_) => 11,
            CloseReason::PongTimeout => 12,
            CloseReason::SigningFailed => 13,
            CloseReason::SlowConsumer => 14,
            CloseReason::Draining => 15,
            CloseReason::Application(_) => 16,
            CloseReason::TlsFailed => 17,
            CloseReason::RateExceeded => 18,
            CloseReason::IdleTimeout => 19,
            CloseReason::BadProxyHeader => 20,
            CloseReason::FrameTooBig => 21,
            CloseReason::AuthenticationTimeout => 22,
            CloseReason::Revoked => 23,
            CloseReason::InflatedTooBig => 24,
            CloseReason::BadCompression => 25,
            CloseReason::WriteTimeout => 26,
            CloseReason::HoldsMost => 27,
            CloseReason::Probed => 28,
        }
    }

    /// The limit that was hit, if one was.
    pub const fn limit(self) -> Option<Limit> {
        match self {
            CloseReason::RequestTimeout => Some(Limit::RequestTime),
            CloseReason::MessageTooBig => Some(Limit::MessageBytes),
            CloseReason::FrameTooBig => Some(Limit::FrameBytes),
            CloseReason::InflatedTooBig => Some(Limit::InflatedBytes),
            CloseReason::TooManyFragments => Some(Limit::Fragments),
            CloseReason::HandshakeTimeout => Some(Limit::HandshakeTime),
            CloseReason::PongTimeout => Some(Limit::PongTime),
            CloseReason::RateExceeded => Some(Limit::RateGrace),
            CloseReason::IdleTimeout => Some(Limit::IdleTime),
            CloseReason::AuthenticationTimeout => Some(Limit::AuthenticationTime),
            CloseReason::WriteTimeout => Some(Limit::WriteTime),
            CloseReason::HoldsMost => Some(Limit::OutboxBytesTotal),
            // Counted where they are met, since more can come of them than a close.
            CloseReason::SlowConsumer => None,
            CloseReason::PeerClosed
            | CloseReason::PeerVanished
            | CloseReason::HttpAnswered
            | CloseReason::Probed
            | CloseReason::TlsFailed
            | CloseReason::BadProxyHeader
            | CloseReason::ProtocolError
            | CloseReason::InvalidUtf8
            | CloseReason::BadCompression
            | CloseReason::MessageBeforeHandshake
            | CloseReason::CallIdMissing
            | CloseReason::HandshakeRefused(_)
            | CloseReason::SigningFailed
            | CloseReason::Draining
            | CloseReason::Application(_)
            | CloseReason::Revoked => None,
        }
    }

    /// Whether all that has not begun to leave is dropped, so that the close frame is next: the client does not read.
    pub const fn drops_unsent(self) -> bool {
        matches!(
            self,
            CloseReason::SlowConsumer | CloseReason::WriteTimeout | CloseReason::HoldsMost
        )
    }

    /// Whose doing it is; only a bug is logged as an error.
    pub const fn blame(self) -> Blame {
        match self {
            CloseReason::PeerClosed
            | CloseReason::PeerVanished
            | CloseReason::HttpAnswered
            | CloseReason::Probed => Blame::Nobody,
            CloseReason::RequestTimeout
            | CloseReason::TlsFailed
            | CloseReason::BadProxyHeader
            | CloseReason::ProtocolError
            | CloseReason::InvalidUtf8
            | CloseReason::BadCompression
            | CloseReason::HandshakeTimeout
            | CloseReason::MessageBeforeHandshake
            | CloseReason::CallIdMissing
            | CloseReason::PongTimeout
            | CloseReason::WriteTimeout
            | CloseReason::AuthenticationTimeout => Blame::Peer,
            CloseReason::MessageTooBig
            | CloseReason::FrameTooBig
            | CloseReason::InflatedTooBig
            | CloseReason::TooManyFragments
            | CloseReason::SlowConsumer
            | CloseReason::HoldsMost
            | CloseReason::RateExceeded
            | CloseReason::IdleTimeout => Blame::Limit,
            CloseReason::Draining => Blame::Draining,
            CloseReason::HandshakeRefused(_) | CloseReason::Application(_) => Blame::App,
            CloseReason::Revoked => Blame::Operator,
            CloseReason::SigningFailed => Blame::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent_are_those_of_the_reference() {
        for legal in [1000, 1001, 1003, 1007, 1014, 3000, 4000, 4999] {
            assert_eq!(CloseCode::new(legal).map(CloseCode::as_u16), Some(legal));
        }
        for illegal in [0, 401, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
            assert_eq!(CloseCode::new(illegal), None);
        }
    }

    #[test]
    fn what_is_appended_still_names_its_own_bytes() {
        let decided = |text: &str| {
            let mut decisions = Decisions::new();
            let message = decisions.write(|bytes| bytes.extend_from_slice(text.as_bytes()));
            decisions.push(Decision::Send { message });
            decisions
        };
        let mut decisions = decided("first");
        assert!(decisions.append(&mut decided("later")));
        let texts: Vec<_> = decisions
            .list()
            .iter()
            .map(|decision| match decision {
                Decision::Send { message } => decisions.bytes(*message),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, [&b"first"[..], b"later"]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let mut decisions = Decisions::new();
        let first = decisions.write(|bytes| bytes.extend_from_slice(b"one"));
        decisions.bytes.extend_from_slice(b"two");
        let second = decisions.span_from(3, 6);
        assert!(!decisions.is_overfull());
        decisions.bytes.extend_from_slice(b"three");
        let third = decisions.span_from(6, 10);
        assert!(decisions.is_overfull());
        let bytes = [first, second, third].map(|span| decisions.bytes(span).to_vec());
        assert_eq!(bytes, [&b"one"[..], b"two", b""]);
        assert!(!Decisions::new().append(&mut decisions));
        decisions.clear();
        assert!(!decisions.is_overfull());
    }

    #[test]
    fn spans_name_what_was_written() {
        let mut decisions = Decisions::new();
        let first = decisions.write(|bytes| bytes.extend_from_slice(b"one"));
        let second = decisions.write(|bytes| bytes.extend_from_slice(b"two"));
        assert_eq!(
            (decisions.bytes(first), decisions.bytes(second)),
            (&b"one"[..], &b"two"[..])
        );
    }
}
