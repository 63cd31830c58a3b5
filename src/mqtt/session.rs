//! The session of one MQTT client while it is connected: packets in, decisions out.
//!
//! ```text
//!  new ──► AwaitingConnect ──CONNECT──► LoggingIn ──answer──► Deciding ──decision──► Saving ──saved──► Open ──ended──► Ended
//!                 │           no password └───────────►│ prompt └───────────►│ no store └───────────►│
//!                 └── refused: CONNACK with a code, end                                              └── DISCONNECT, fault,
//!                                                                                                        timer: end
//! ```
//! Everything that outlives the connection (subscriptions, packets in flight, queue, will, expiry) is in
//! [`Sessions`], which the core lends. A connection reaches the core that owns its client id before its CONNECT
//! is handled, so everything here happens on that core.
//!
//! Invariants
//! 1. CONNACK is the first packet to the client (MQTT-3.2.0-1), and comes after the older connection of the same client
//!    id was told to end (MQTT-3.1.4-3).
//! 2. While a login is under way, the application decides later, or CONNACK waits for the disk, no packet is handled:
//!    [`Session::is_waiting`].
//! 3. A publication is decided before its acknowledgement, so an acknowledged publication has a place in the order.
//! 4. The application is told of the end of a session once, and only if CONNACK has accepted it.
//!
//! ```text
//!  connect.rs    CONNECT, up to CONNACK          publish.rs    PUBLISH from the client
//!  identity.rs   the identity of the client      aliases.rs    topic aliases of the client
//!  connack.rs    the content of CONNACK          subscribe.rs  SUBSCRIBE, UNSUBSCRIBE
//!  will.rs       the will in CONNECT             answers.rs    acknowledgements, with reasons in words
//!  disconnect.rs DISCONNECT, and the end         permissions.rs actions that the rules allow
//!  timers.rs     keep alive, expiry of tokens    orders.rs     orders of the application
//!  call.rs       procedures, by $rpc/NAME        presence.rs    channels that the client is a member of
//!  undecided.rs  packets whose decision is deferred  serve.rs  the client as a service
//!  long_packets.rs  long SUBSCRIBE and UNSUBSCRIBE
//!  accept.rs     CONNACK, when a strict store has the session
//!  service_call.rs  calls that a service answers
//! ```

mod accept;
mod aliases;
mod answers;
mod call;
mod connack;
mod connect;
mod disconnect;
mod identity;
mod long_packets;
mod orders;
mod permissions;
mod presence;
mod publish;
mod serve;
mod service_call;
mod subscribe;
mod timers;
mod undecided;
mod will;

#[cfg(test)]
mod tests;

use self::accept::Accepting;
use self::aliases::Aliases;
use self::connect::PendingConnect;
use self::long_packets::Parts;
pub use self::orders::KickedOut;
pub use self::permissions::{CheckedFilters, Resumed};
pub(crate) use self::presence::{makes_member, write_member_info};
use self::serve::Serving;
use self::undecided::{KeptPacket, Undecided};
use super::environment::Environment;
use super::fault::Fault;
use super::packet::{Packet, decode};
use super::sessions::{SessionRef, Sessions};
use super::topic;
use super::{ReasonCode, Version};
use crate::app::{App, DecisionNumber, Owed, Refusal, SessionId};
use crate::auth::Claims;
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decision, Decisions};

/// The session of one MQTT client while it is connected.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    state: State,
    /// When the last packet came.
    heard: Uptime,
    /// The claims of the client, if it is authenticated.
    claims: Option<Box<Claims>>,
    /// What the core that reads the connection knows of its place.
    pub(crate) placement: Placement,
}

/// Whether a connection is on the core where its next packet may be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// CONNECT has not been looked at: another core may own the client id.
    Unknown,
    /// It is on the core that owns its client id, or has none.
    Owner,
    /// As before, and the next SUBSCRIBE or UNSUBSCRIBE may be handled: what was published before it came is delivered.
    OwnerMaySubscribe,
}

#[derive(Debug)]
enum State {
    /// Only CONNECT is legal.
    AwaitingConnect { since: Uptime },
    /// A password is being checked. The core reads no further packet.
    LoggingIn(PendingConnect),
    /// The application decides later about CONNECT. The core reads no further packet.
    Deciding(PendingConnect, Box<Undecided>),
    /// CONNACK waits until a strict store has the session. The core reads no further packet.
    Saving(Box<Accepting>),
    /// CONNACK has accepted the client.
    Open(Open),
    /// The connection has ended.
    Ended,
}

/// The state that holds while the client is connected.
#[derive(Debug)]
struct Open {
    /// Its session in `Sessions`.
    session: SessionRef,
    version: Version,
    /// Whether the client wants reasons in words (Request Problem Information).
    explains: bool,
    /// Whether CONNECT has asked for a session that outlives the connection.
    outlives: bool,
    /// The largest packet that the client takes.
    packet_bytes_max: u32,
    /// The Receive Maximum of CONNECT.
    receive_maximum: u16,
    /// Milliseconds without a packet after which the client counts as gone; 0: never.
    silence_ms_max: u32,
    /// Publications with QoS 2 of this connection that the client has not released.
    in_flight: u16,
    /// `None` before the first of it.
    extras: Option<Box<Extras>>,
}

/// The state that few clients have: one word for all of it.
#[derive(Debug, Default)]
struct Extras {
    /// When the client's token expires; `None`: never.
    expires: Option<Uptime>,
    /// The topics of the client's aliases; `None` before the first.
    aliases: Option<Box<Aliases>>,
    /// The [`client_hash`](super::publication::client_hash) of the client id; 0 before it was needed.
    client_hash: u64,
    /// The client's calls that the application will answer later; `None` while there has been none.
    owed: Option<Owed>,
    /// The client as a service; `None` before it has served something.
    serving: Option<Box<Serving>>,
    /// The packet about which the application decides later.
    undecided: Option<Box<KeptPacket>>,
    /// The long packet that is handled in parts.
    parts: Option<Box<Parts>>,
}

impl Open {
    #[inline]
    fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// When the client's token expires.
    #[inline]
    fn expires(&self) -> Uptime {
        let expires = self.extras().and_then(|extras| extras.expires);
        expires.unwrap_or(Uptime::NEVER)
    }

    /// Changes when the client's token expires.
    fn set_expires(&mut self, expires: Uptime) {
        if expires != self.expires() {
            self.extras_mut().expires = Some(expires);
        }
    }

    /// The client as a service, if it has served something.
    fn serving(&self) -> Option<&Serving> {
        self.extras()?.serving.as_deref()
    }

    fn serving_mut(&mut self) -> Option<&mut Serving> {
        self.extras.as_mut()?.serving.as_deref_mut()
    }

    /// The packet about which the application decides later, if there is one.
    #[inline]
    fn undecided(&self) -> Option<&KeptPacket> {
        self.extras()?.undecided.as_deref()
    }

    /// The long packet that is handled in parts, if there is one.
    #[inline]
    fn parts(&self) -> Option<&Parts> {
        self.extras()?.parts.as_deref()
    }

    fn parts_mut(&mut self) -> Option<&mut Parts> {
        self.extras.as_mut()?.parts.as_deref_mut()
    }
}

impl Session {
    /// The session of a connection whose CONNECT has not come yet. `claims` are those of a certificate, or of the
    /// request of a WebSocket.
    pub fn new(id: SessionId, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session {
            id,
            state: State::AwaitingConnect { since: now.uptime },
            heard: now.uptime,
            claims,
            placement: Placement::Unknown,
        }
    }

    /// The id by which operators and the application know the connection. Clients do not learn it.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether CONNACK has accepted the client and the end has not come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether further packets have to wait for the answer to a login, for a decision of the application, or
    /// for the disk.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        match &self.state {
            State::Open(open) => open.undecided().is_some(),
            State::LoggingIn(_) | State::Deciding(..) | State::Saving(_) => true,
            State::AwaitingConnect { .. } | State::Ended => false,
        }
    }

    /// The claims of the client, if it is authenticated.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_deref()
    }

    /// The entry of this session among those of the core.
    pub fn session_ref(&self) -> Option<SessionRef> {
        match &self.state {
            State::Open(open) => Some(open.session),
            State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Ended => None,
        }
    }

    /// Handles a packet: its first byte, and the bytes behind its fixed header.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn receive<A: App>(
        &mut self,
        first: u8,
        body: &[u8],
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.heard = env.common.now.uptime;
        let version = match &self.state {
            State::Open(open) if open.expires() > self.heard => open.version,
            State::Open(_) => return Err(CloseReason::TokenExpired),
            State::AwaitingConnect { .. } => return self.connect(first, body, env, decisions),
            State::LoggingIn(_) | State::Deciding(..) | State::Saving(_) | State::Ended => {
                return Err(CloseReason::MqttProtocolError);
            }
        };
        self.handle(version, first, body, env, decisions)
    }

    /// Always inlined, so that a packet is not moved.
    #[inline(always)]
    fn receive_packet<A: App>(
        &mut self,
        packet: Packet<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish, env, decisions),
            Packet::PubAck(ack) => self.end_exchange(ack, Sessions::puback, env, decisions),
            Packet::PubRec(ack) => self.receive_pubrec(ack, env, decisions),
            Packet::PubRel(ack) => {
                self.receive_pubrel(ack, env, decisions);
                Ok(())
            }
            Packet::PubComp(ack) => self.end_exchange(ack, Sessions::pubcomp, env, decisions),
            Packet::Subscribe(subscribe) => {
                self.check_filters(subscribe.filters().map(|(filter, _)| filter), decisions)?;
                self.subscribe(subscribe, env, decisions)
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.check_filters(unsubscribe.filters(), decisions)?;
                self.unsubscribe(unsubscribe, env, decisions);
                Ok(())
            }
            Packet::PingReq => {
                env.common.scratch.count_heartbeat();
                send(decisions, super::encode::pingresp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.leave(&disconnect, env, decisions),
            Packet::Auth(_) => close_saying(
                decisions,
                CloseReason::MqttProtocolError,
                "AUTH, but CONNECT named no authentication method",
            ),
        }
    }

    /// Ends the connection of a client before MQTT 5 if a wildcard stands where none may (MQTT-4.7.1-2,
    /// MQTT-4.7.1-3 and section 4.8 of 3.1.1). In MQTT 5 such a filter gets a code of its own, and so does a
    /// malformed shared filter: 3.1.1 has no shared subscriptions.
    fn check_filters<'f>(
        &self,
        mut filters: impl Iterator<Item = &'f str>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let State::Open(open) = &self.state else {
            return Ok(());
        };
        if !open.version.has_properties() && filters.any(|filter| !topic::is_filter(filter)) {
            return close_saying(decisions, CloseReason::MalformedMqtt, "a filter that is none");
        }
        Ok(())
    }

    /// Makes the next answer wait until the changes of the session are on disk, if the store is strict and
    /// the session outlives its connection: state that was acknowledged must not be lost.
    fn await_saved<A: App>(&self, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
        if env.settings.is_durable
            && let State::Open(open) = &self.state
            && env
                .sessions
                .expiry_s(open.session)
                .is_some_and(|seconds| seconds > 0)
        {
            decisions.push(Decision::AwaitSaved);
        }
    }

    #[inline]
    fn open(&self) -> Option<&Open> {
        match &self.state {
            State::Open(open) => Some(open),
            State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Ended => None,
        }
    }

    fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) => Some(open),
            State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Ended => None,
        }
    }
}

/// Decides to send the packet that `write` writes.
fn send(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>)) {
    let message = decisions.write(write);
    decisions.push(Decision::Send { message });
}

/// Closes the connection with a text for the developer of the client: a client of MQTT 5 gets it as the
/// Reason String of DISCONNECT.
fn close_saying(decisions: &mut Decisions, reason: CloseReason, text: &str) -> Result<(), CloseReason> {
    let text = decisions.write(|out| out.extend_from_slice(text.as_bytes()));
    decisions.push(Decision::Close { reason, text });
    Err(reason)
}

/// Decodes a packet of a connected client, or decides to close the connection.
#[inline]
fn decode_and_close<'p>(
    version: Version,
    first: u8,
    body: &'p [u8],
    decisions: &mut Decisions,
) -> Result<Packet<'p>, CloseReason> {
    decode(version, first, body).map_err(|fault| {
        let reason = closed_by(fault);
        // It returns this same reason.
        let _ = close_saying(decisions, reason, explained(fault, first));
        reason
    })
}

/// Why a connection ends whose client has sent a packet with this fault.
fn closed_by(fault: Fault) -> CloseReason {
    match fault {
        Fault::Malformed => CloseReason::MalformedMqtt,
        Fault::Protocol | Fault::OtherProtocol | Fault::UnsupportedVersion => CloseReason::MqttProtocolError,
        Fault::TopicAlias => CloseReason::TopicAliasInvalid,
        Fault::TooLarge => CloseReason::MessageTooBig,
    }
}

/// The text for the developer of a client that has sent a packet with this fault. `first` is the first byte
/// of the packet.
fn explained(fault: Fault, first: u8) -> &'static str {
    match (fault, first >> 4) {
        (Fault::Malformed, 3) => "PUBLISH: its flags, topic, packet identifier or properties are malformed",
        (Fault::Malformed, 8) => "SUBSCRIBE: a filter, its options or the properties are malformed",
        (Fault::Malformed, _) => "the packet cannot be read as MQTT says",
        (Fault::Protocol, 1) => "a second CONNECT",
        (Fault::Protocol, 2 | 9 | 11 | 13) => "a packet that only servers send",
        (Fault::Protocol, 3) => {
            "PUBLISH without a topic, or with a property that is not allowed or comes twice"
        }
        (Fault::Protocol, _) => "a property that is not allowed or comes twice, or no filter",
        (Fault::OtherProtocol | Fault::UnsupportedVersion, _) => {
            "the version of the protocol is not supported"
        }
        (Fault::TopicAlias, _) => "topic alias 0",
        (Fault::TooLarge, _) => "the packet is larger than Maximum Packet Size",
    }
}

/// A request that is answered with a code, and with a text for the developer of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    code: ReasonCode,
    text: &'static str,
}

/// Why a request is not carried out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Refused(Refused),
    /// The application decides later. `question` is the number of the question about the packet.
    Deferred {
        number: DecisionNumber,
        question: usize,
    },
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Denied {
        Denied::Refused(refused)
    }
}

impl Denied {
    /// The application refuses the request with `code` and `text`, or decides later, or has not decided in time.
    fn by_application(refusal: &Refusal, question: usize, code: ReasonCode, text: &'static str) -> Denied {
        match refusal.decision_number() {
            Some(number) => Denied::Deferred { number, question },
            None if refusal.is_too_late() => Denied::Refused(Refused {
                code: ReasonCode::Unspecified,
                text: "the application did not decide in time",
            }),
            None => Denied::Refused(Refused { code, text }),
        }
    }
}

/// Refuses a request.
fn refused<T, E: From<Refused>>(code: ReasonCode, text: &'static str) -> Result<T, E> {
    Err(Refused { code, text }.into())
}
