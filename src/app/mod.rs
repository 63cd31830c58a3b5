//! The application: the decisions and answers of a program that embeds the server.
//!
//! One [`App`] value lives on each core and is called with `&mut self`, so it needs no locks. Its methods must not
//! wait. Every method has a default, and an empty implementation is a working server. The methods are called where the
//! reference has its middleware lines (wire reference, section 14).
//!
//! The server carries out the orders that a method gives to its [`Peer`] after the packet's own answer, in
//! the order in which they were given, as in the reference, where answers overtake transmits (wire reference,
//! section 12). [`Peer::batch`] keeps them together with the answer instead. A call whose answer takes time
//! is answered later: [`Peer::defer`]. If a method returns a [`Refusal`], a decision that takes time can be
//! deferred: [`Peer::defer_decision`].
//!
//! **Descriptors.** [`Embedding::descriptors`](crate::server::Embedding::descriptors) says which files,
//! sockets and pipes of the program an application may use. By default they are the same on a core as on any
//! other thread. With `Descriptors::OfCores` each core has a table of its own, which has only the descriptors
//! that were listed and those that the application has opened on this core; any other number may belong to a
//! client's socket. Then a `File` or a `TcpStream` that was opened before the start can be used only if it
//! was listed.

pub(crate) mod builtin;
mod calls;
mod context;
mod current_call;
mod data;
mod deferred;
mod deferred_decision;
mod error;
mod inbound;
mod outbound;
mod outside_call;
mod peer;
mod scratch;
mod session_id;
mod tick;
mod timers;

use std::net::SocketAddr;
use std::time::Duration;

pub use self::calls::{AnswerError, AnswerFailure, CallId, CallRefused};
pub(crate) use self::calls::{REMOVE_AUTH_TOKEN, SET_AUTH_TOKEN};
pub use self::context::{Client, Context, UpgradeRequest};
pub use self::data::{Name, RawJson};
pub use self::deferred::{Deferred, Undelivered, Unsent};
pub(crate) use self::deferred::{Late, LateAnswer, LateAnswerSender, Owed, Returned};
pub use self::deferred_decision::DeferredDecision;
pub(crate) use self::deferred_decision::{Again, Decide, DecisionNumber};
pub(crate) use self::error::Refused;
pub use self::error::{AppError, Refusal};
pub use self::inbound::{Inbound, RawPeer};
pub use self::outbound::Outbound;
pub(crate) use self::outbound::OutboundKind;
pub(crate) use self::outside_call::{CallOutcome, OutsideCall};
pub use self::peer::{AllowedPublish, CallAnswer, Peer};
pub(crate) use self::peer::{AllowedPublishKind, AnswerKind};
pub(crate) use self::scratch::{DeferredOrders, PeerOrder, Piece, Scratch};
pub use self::session_id::{NotSessionId, SessionId};
pub use self::tick::Tick;
pub(crate) use self::timers::Timers;
pub use self::timers::{TimerId, TimerRefused};
pub use crate::auth::Claims;
pub use crate::decision::{Blame, CloseCode, CloseReason, Message};

/// The logic of an application. Each core has a value of its own.
pub trait App {
    /// May a request become a WebSocket? Called before all other methods (HANDSHAKE_WS).
    fn upgrade(&mut self, _request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        Ok(())
    }

    /// Returns the facts about a connection that the application wants to use later, in [`Peer`] and
    /// [`Client`]. Called after [`App::upgrade`] has allowed the request; the server may still refuse it for
    /// its origin. A client that speaks MQTT without a WebSocket has sent no request: then path, query and
    /// headers are empty.
    #[inline]
    fn context(&mut self, _request: &Upgrade<'_>) -> Context {
        Context::none()
    }

    /// May the server handle a message? Called with each message of a WebSocket before the server looks at
    /// it, including pongs and messages before the client's handshake (INBOUND_RAW).
    #[inline]
    fn message(&mut self, _message: Message<'_>, _peer: &mut RawPeer<'_>) -> Inbound {
        Inbound::Pass
    }

    /// May a client complete its handshake? [`Peer::claims`] are those of its token, if it sent a valid one
    /// (HANDSHAKE_SC).
    fn handshake(&mut self, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client be the user that its token names? Called after the signature was checked (AUTHENTICATE). An error
    /// that says `bad_token` makes the client drop the token.
    fn authenticate(&mut self, _claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client subscribe? `data` is the data that it sent besides the channel (SUBSCRIBE).
    fn subscribe(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        _peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client publish, and which data do subscribers get? (PUBLISH_IN)
    fn publish(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        _peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        Ok(AllowedPublish::as_sent())
    }

    /// May an MQTT client publish, and which payload do subscribers get? By default [`App::publish`] decides:
    /// its data is the payload if that is JSON, and absent otherwise; data that it rewrites becomes the
    /// payload for subscribers. An implementation that does not look at the payload is faster, if clients may
    /// publish much.
    fn publish_bytes(
        &mut self,
        topic: Name<'_>,
        payload: &[u8],
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        self.publish(topic, RawJson::in_payload(payload), peer)
    }

    /// Whether [`App::deliver`] is called. Delivery is compiled for the application: if this is `false`, it
    /// costs nothing.
    const LOOKS_AT_DELIVERIES: bool = false;

    /// What does a client get of a publication? (PUBLISH_OUT) Called for each publication that a client gets, live, from
    /// a history, retained, or from the queue of an MQTT session, when it is about to be queued for the client's
    /// connection, on the core of the client: it must be fast. `data` is absent if the publication has none, or a payload
    /// that is not JSON. It may be called more than once for the same publication and client.
    #[inline]
    fn deliver(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        _client: &mut Client<'_>,
    ) -> Outbound {
        Outbound::pass()
    }

    /// Answers a call (INVOKE). The reference gives no answer to procedures it does not know. A call without
    /// an answer goes to a service, if one serves its name, unless the application has called
    /// [`Peer::handled`].
    fn invoke(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) -> CallAnswer {
        CallAnswer::silent()
    }

    /// Handles a one-way event, which has no answer (TRANSMIT). The event goes to a service, too, if one
    /// serves its name, unless the application has called [`Peer::handled`].
    fn transmit(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) {}

    /// A call that this server has made was answered, or will not be answered. The data is absent if the
    /// client sent none. If the connection has ended, orders to the peer have no effect.
    fn answered(
        &mut self,
        _call: CallId,
        _answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        _peer: &mut Peer<'_>,
    ) {
    }

    /// A timer is due that [`Peer::set_timer`] has set for this client.
    #[inline]
    fn timer(&mut self, _timer: TimerId, _peer: &mut Peer<'_>) {}

    /// A client has completed its handshake, and has got the answer.
    fn connected(&mut self, _peer: &mut Peer<'_>) {}

    /// A client's subscription to a channel has ended: it has unsubscribed, was kicked out, or the rules no
    /// longer allow the subscription. Not called for the channels that a client is subscribed to when it
    /// disconnects. `channel` is a filter if the client speaks MQTT.
    #[inline]
    fn unsubscribed(&mut self, _channel: Name<'_>, _client: &mut Client<'_>) {}

    /// The claims of a connected client have changed: it has authenticated itself or logged in, its token was set or
    /// taken away, or has expired.
    #[inline]
    fn user_changed(&mut self, _client: &mut Client<'_>) {}

    /// A client that was [connected](App::connected) has disconnected. Called once for each client.
    fn disconnected(&mut self, _client: &mut Client<'_>, _reason: CloseReason) {}

    /// How often [`App::tick`] is called; never, if `None`. Asked once, when the core starts.
    fn tick_every(&self) -> Option<Duration> {
        None
    }

    /// Does periodic work. Called on each core, for the first time when the interval of [`App::tick_every`]
    /// has passed once. A core that was late ticks once, not several times.
    fn tick(&mut self, _tick: &mut Tick<'_>) {}
}

/// A request to become a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// The query, after the `?`; empty if there is none.
    pub query: &'a str,
    /// Names and values in the order in which they came. A browser sends its cookies no matter which page
    /// opens the socket: an application that reads cookies itself must check `Origin`, too.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The address of the other end, if it is known.
    pub peer: Option<SocketAddr>,
}

/// A refused request: answered 401 with this message as the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRefused {
    /// The body.
    pub message: String,
}

/// An ordinary event from a client.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The name of the event.
    pub event: Name<'a>,
    /// Its data, unless absent.
    pub data: Option<RawJson<'a>>,
}
