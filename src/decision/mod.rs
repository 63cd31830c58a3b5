//! The decisions that a session may make for its connection.
//!
//! A session performs nothing: it appends [`Decision`]s to a [`Decisions`], which the core keeps and reuses, and
//! `cores/input/carry_out.rs` carries them out in order. Text that a decision needs lies in the same [`Decisions`],
//! named by [`Span`], so that in the steady state nothing is allocated.
//!
//! Invariants
//! 1. Decisions are carried out in the order in which they were appended.
//! 2. A [`Span`] is valid for the [`Decisions`] that made it, until [`Decisions::clear`].
//! 3. The bytes of a [`Decisions`] are fewer than 4 GiB, since a [`Span`] holds 32-bit numbers. Text that
//!    would not fit is left out, and [`Decisions::is_overfull`] says so: then none of its decisions may be
//!    carried out.

mod close_reason;
mod limit;
mod presence;
mod recovery;

use std::ops::Range;

pub use close_reason::{Blame, CloseCode, CloseReason};
pub use limit::Limit;
pub use presence::{PresenceFailure, PresenceRequest};
pub use recovery::{Gap, HistoryCall, HistoryFailure, Recovered, Wanted};

use crate::auth::Credentials;
pub use crate::broker::{
    BLANKS, Epoch, Kind, Marks, Numbering, OFFSET_BYTES, Origin, Position, SubscribeOutcome,
    UnsubscribeOutcome,
};

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
    /// Whether it names no bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One action that the core carries out for a session. Names of channels are bytes in WTF-8: UTF-8, except that halves
/// of surrogate pairs may occur, as in strings of JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send one message to this connection: of text, or a packet of MQTT.
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
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Option<Span>,
    },
    /// Subscribe this connection, and send it a part of the channel's past before anything live. Tell the session by
    /// `Session::recovered`, or by `Session::subscribed` if the connection cannot be subscribed.
    SubscribeFrom {
        /// The channel's name.
        channel: Span,
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Span,
        /// A [`Wanted`], as [`Wanted::write`] has written it.
        wanted: Span,
    },
    /// Send the MQTT session of this connection the retained publications that a filter matches, to which it
    /// has subscribed.
    SendRetained {
        /// The filter.
        filter: Span,
        /// The highest QoS that the client wants.
        qos: u8,
        /// The subscription identifier; 0: none.
        id: u32,
        /// The hash of the client whose publications are left out (No Local); 0: none are.
        except: u64,
    },
    /// Unsubscribe this connection, then tell the session by `Session::unsubscribed`.
    Unsubscribe {
        /// The channel's name.
        channel: Span,
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Option<Span>,
    },
    /// Unsubscribe this connection by the server's will and send it `message`, subscribed or not.
    KickOut {
        /// The channel's name.
        channel: Span,
        /// The message.
        message: Span,
    },
    /// Unsubscribe this connection from each of its channels, some in each turn, asking `Session::kicked_out` for each
    /// one's message. The session of an MQTT client ends its filters itself, by `Session::kick_out_some`.
    KickOutAll {
        /// Data that the session needs for the messages, or to find the filters that stay.
        reason: Option<Span>,
    },
    /// Check each of this connection's channels again: unsubscribe it from the channels that
    /// `Session::may_keep` refuses, and send it the message of `Session::forbidden` for each of them.
    CheckSubscriptions,
    /// Read the history of a channel, and tell the session by `Session::history_read`, later.
    ReadHistory {
        /// The channel's name.
        channel: Span,
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Span,
        /// A [`HistoryCall`], as [`HistoryCall::write`] has written it.
        call: Span,
    },
    /// Publish to all subscribers of a channel.
    Publish(Publish),
    /// Answer the call of the publication before, by `Session::stored`, once that publication (remembered,
    /// retained, or kept by MQTT sessions) is as safe as the store mode demands.
    Acknowledge {
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Span,
    },
    /// Close after everything queued before has been sent.
    Close {
        /// Why.
        reason: CloseReason,
        /// The text of the close frame, cut to the size that fits.
        text: Span,
    },
    /// End another connection of the same core, which the new session of its client replaces.
    EndOther {
        /// The address of that connection: `session::Environment::address` of its session.
        connection: usize,
        /// Why it ends.
        reason: CloseReason,
    },
    /// Carry out the following decisions when all changes to the MQTT sessions of this core up to now are on
    /// disk.
    AwaitSaved,
    /// Tell the session by `Session::session_saved` when its MQTT session is on disk, or cannot be written.
    /// Until then no packet of the client is handled.
    SaveSession,
    /// Ask the core that owns a channel about its members, and tell the session by `Session::presence_answered`.
    AskPresence {
        /// The channel's name.
        channel: Span,
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Span,
        /// A [`PresenceRequest`], as [`PresenceRequest::write`] has written it.
        request: Span,
    },
    /// An MQTT client has resumed its session: go through the session's filters by `Session::resume_some`,
    /// some in each turn, and make the connection a member of the channels with presence that are found.
    ResumeSession,
    /// Make this connection of MQTT a member of a channel with presence.
    EnterRoom {
        /// The channel's name.
        channel: Span,
        /// JSON that identifies the client to other clients; empty if there is none.
        info: Span,
    },
    /// End the membership of this MQTT connection in one channel with presence.
    LeaveRoom {
        /// The channel's name.
        channel: Span,
    },
    /// The client's claims have changed: it may be another user now, and so another member of its channels
    /// with presence. Tell the application.
    UserChanged,
    /// Give [`Decisions::take_credentials`] to the password checks, and pass their answer to the session.
    /// Until then the session decides no other login.
    Login,
    /// Keep a will for this connection, replacing the one it has, then tell the session by
    /// `Session::will_set`.
    SetWill {
        /// The will, as `HeldWill::write` has written it.
        will: Span,
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Option<Span>,
    },
    /// Forget this connection's will, then tell the session by `Session::will_set`.
    DropWill {
        /// Data that the session needs for its answer; the core gives it back unread.
        token: Option<Span>,
    },
}

/// A publication: its payload, in a message of the publisher's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The channel's name.
    pub channel: Span,
    /// The whole message, as subscribers of the same protocol get it; for MQTT, the frame of the ring.
    pub message: Span,
    /// The length of the payload. The end of the payload in the message follows from the protocol
    /// (`broker::Origin`).
    pub payload_bytes: u32,
    /// The marks by the policy of the channel.
    pub marks: Marks,
    /// The protocol of the message.
    pub origin: Origin,
    /// Whether it is to be the retained publication of the channel.
    pub retain: bool,
}

impl Publish {
    /// A publication of SocketCluster with this payload, which stands in the message.
    pub fn new(channel: Span, message: Span, payload: &[u8], marks: Marks) -> Publish {
        Publish {
            channel,
            message,
            // A payload that does not fit makes the list overfull, and then no decision is carried out.
            payload_bytes: u32::try_from(payload.len()).unwrap_or(0),
            marks,
            origin: Origin::SocketCluster,
            retain: false,
        }
    }

    /// A publication of MQTT with this payload, which stands in the message: `mqtt/publication.rs` has written it.
    pub fn of_mqtt(channel: Span, message: Span, payload: &[u8], marks: Marks, retain: bool) -> Publish {
        Publish {
            origin: Origin::Mqtt,
            retain,
            ..Publish::new(channel, message, payload, marks)
        }
    }

    /// The kind of its payload.
    pub const fn kind(&self) -> Kind {
        match self.origin {
            Origin::SocketCluster => Kind::Json,
            Origin::Mqtt => Kind::Opaque,
        }
    }
}

/// The fate of a publication, or of a session, that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is as safe as the store mode demands.
    Yes,
    /// It was not published: the disk accepts no writes now.
    NotNow,
    /// It was not published: another process owns the channels now.
    Elsewhere,
    /// It was published, and could not be stored.
    Unknown,
}

impl Decision {
    /// The same decision, with its spans moved by `by` bytes.
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
            Decision::Subscribe { channel, token } => Decision::Subscribe {
                channel: span(channel),
                token: token.map(span),
            },
            Decision::SubscribeFrom {
                channel,
                token,
                wanted,
            } => Decision::SubscribeFrom {
                channel: span(channel),
                token: span(token),
                wanted: span(wanted),
            },
            Decision::SendRetained {
                filter,
                qos,
                id,
                except,
            } => Decision::SendRetained {
                filter: span(filter),
                qos,
                id,
                except,
            },
            Decision::Unsubscribe { channel, token } => Decision::Unsubscribe {
                channel: span(channel),
                token: token.map(span),
            },
            Decision::KickOut { channel, message } => Decision::KickOut {
                channel: span(channel),
                message: span(message),
            },
            Decision::KickOutAll { reason } => Decision::KickOutAll {
                reason: reason.map(span),
            },
            Decision::CheckSubscriptions => Decision::CheckSubscriptions,
            Decision::ReadHistory { channel, token, call } => Decision::ReadHistory {
                channel: span(channel),
                token: span(token),
                call: span(call),
            },
            Decision::Publish(publish) => Decision::Publish(Publish {
                channel: span(publish.channel),
                message: span(publish.message),
                ..publish
            }),
            Decision::Close { reason, text } => Decision::Close {
                reason,
                text: span(text),
            },
            Decision::EndOther { connection, reason } => Decision::EndOther { connection, reason },
            Decision::Acknowledge { token } => Decision::Acknowledge { token: span(token) },
            Decision::AwaitSaved => Decision::AwaitSaved,
            Decision::SaveSession => Decision::SaveSession,
            Decision::AskPresence {
                channel,
                token,
                request,
            } => Decision::AskPresence {
                channel: span(channel),
                token: span(token),
                request: span(request),
            },
            Decision::ResumeSession => Decision::ResumeSession,
            Decision::EnterRoom { channel, info } => Decision::EnterRoom {
                channel: span(channel),
                info: span(info),
            },
            Decision::LeaveRoom { channel } => Decision::LeaveRoom {
                channel: span(channel),
            },
            Decision::UserChanged => Decision::UserChanged,
            Decision::Login => Decision::Login,
            Decision::SetWill { will, token } => Decision::SetWill {
                will: span(will),
                token: token.map(span),
            },
            Decision::DropWill { token } => Decision::DropWill {
                token: token.map(span),
            },
        }
    }
}

/// The decisions of a session about one message or a batch of messages, and the bytes they name.
#[derive(Debug, Default)]
pub struct Decisions {
    bytes: Vec<u8>,
    list: Vec<Decision>,
    held: Vec<Decision>,
    is_overfull: bool,
    /// The credentials of the decided login. They are kept apart from the bytes, which are not wiped.
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

    /// The credentials of a decided login, without taking them.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }

    /// Takes the credentials of a decided login: the name that the client claims, and the password.
    pub fn take_credentials(&mut self) -> Option<Box<Credentials>> {
        self.credentials.take()
    }

    /// Appends a decision.
    pub fn push(&mut self, decision: Decision) {
        self.list.push(decision);
    }

    /// Lets `write` append to the bytes; the span names the bytes that it appended. It may not remove any.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.span_from(start, BYTES_MAX)
    }

    /// The bytes from `start` on; none of them if there are more than `bytes_max`.
    #[inline(always)]
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

    /// Keeps a decision for the end of the message, to follow all decisions that are pushed until then.
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

    /// For a connection that is to be closed: appends the held publications, which concern other clients, and forgets
    /// the other held decisions.
    pub fn push_held_publications(&mut self) {
        self.held
            .retain(|decision| matches!(decision, Decision::Publish { .. }));
        self.push_held();
    }

    /// Appends the decisions of a later message. Returns false, and appends nothing, if there is no room.
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

    /// Only the publications from `index` on, in memory of just their size.
    pub fn publications_from(&self, index: usize) -> Decisions {
        let mut publications = Decisions::default();
        for decision in &self.list[index..] {
            if let Decision::Publish(publish) = *decision {
                let mut copy = |span| publications.write(|bytes| bytes.extend_from_slice(self.bytes(span)));
                let (channel, message) = (copy(publish.channel), copy(publish.message));
                publications.push(Decision::Publish(Publish {
                    channel,
                    message,
                    ..publish
                }));
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

    /// Bytes of memory that the decisions take.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + (self.list.capacity() + self.held.capacity()) * size_of::<Decision>()
    }

    /// Gives back unused memory, since these decisions may wait for a long time.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.list.shrink_to_fit();
        self.held.shrink_to_fit();
    }

    /// The bytes of a span.
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// The texts to send from `index` on, up to a decision of another kind.
    pub fn texts_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.list[index..].iter().map_while(|decision| match *decision {
            Decision::Send { message } => Some(self.bytes(message)),
            Decision::SendBinary { .. }
            | Decision::Subscribe { .. }
            | Decision::SubscribeFrom { .. }
            | Decision::Unsubscribe { .. }
            | Decision::SendRetained { .. }
            | Decision::KickOut { .. }
            | Decision::KickOutAll { .. }
            | Decision::CheckSubscriptions
            | Decision::ReadHistory { .. }
            | Decision::Publish { .. }
            | Decision::Acknowledge { .. }
            | Decision::Close { .. }
            | Decision::EndOther { .. }
            | Decision::AwaitSaved
            | Decision::SaveSession
            | Decision::AskPresence { .. }
            | Decision::ResumeSession
            | Decision::EnterRoom { .. }
            | Decision::LeaveRoom { .. }
            | Decision::UserChanged
            | Decision::Login
            | Decision::SetWill { .. }
            | Decision::DropWill { .. } => None,
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

/// The most bytes that a [`Span`] can name.
const BYTES_MAX: usize = u32::MAX as usize;
/// A list that grew past this gives its memory back.
const BYTES_KEPT_MAX: usize = 256 * 1024;
const DECISIONS_KEPT_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_decisions_still_name_their_own_bytes() {
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
    fn text_that_does_not_fit_is_left_out_and_reported() {
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
    fn spans_name_the_written_bytes() {
        let mut decisions = Decisions::new();
        let first = decisions.write(|bytes| bytes.extend_from_slice(b"one"));
        let second = decisions.write(|bytes| bytes.extend_from_slice(b"two"));
        assert_eq!(
            (decisions.bytes(first), decisions.bytes(second)),
            (&b"one"[..], &b"two"[..])
        );
    }
}
