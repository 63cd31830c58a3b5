//! The application: what a program that embeds the server decides, and what it may answer.
//!
//! One [`App`] value lives on each core and is called with `&mut self`: no locks, and nothing may wait. Every method
//! has a default, and an empty implementation is a working server. The methods stand where the reference has its
//! middleware lines (wire reference, section 14).
//!
//! What a method asks of its [`Peer`] is done after the packet's own answer, in the order asked, as in the reference,
//! where answers overtake transmits (wire reference, section 12). [`Peer::batch`] keeps them together instead. What
//! takes longer than a core may wait is answered later: [`Peer::defer`].
//!
//! **Descriptors.** On which files, sockets and pipes of the program an application may work is chosen by
//! [`Embedding::descriptors`](../server/struct.Embedding.html#structfield.descriptors). By default they are the same on a
//! core as on any other thread. Where cores have tables of their own (`Descriptors::OfCores`) there are only those that were
//! listed, and those that the application has opened on this core; any other number may be that of a client's socket. A value that an
//! application holds from before the start, such as a `File` or a `TcpStream`, is then of no use unless it was listed.

pub mod builtin;
mod calls;
mod deferred;
mod error;
mod peer;
mod refusals;
mod rule_hits;
mod scratch;
mod session_id;

use std::net::SocketAddr;

pub use self::calls::{AnswerError, AnswerFailure, CallId, CallRefused};
pub(crate) use self::calls::{REMOVE_AUTH_TOKEN, SET_AUTH_TOKEN};
pub use self::deferred::{Deferred, Undelivered, Unsent};
pub(crate) use self::deferred::{LateAnswer, Owed, Post, Returned};
pub use self::error::{AppError, Refusal, Refused};
pub use self::peer::{Answer, Name, Peer, Publication, RawJson};
pub(crate) use self::peer::{AnswerKind, PublicationKind};
pub use self::refusals::{ActionRefused, Refusals, TokenRefused};
pub use self::rule_hits::RuleHits;
pub use self::scratch::{Hits, Scratch};
pub(crate) use self::scratch::{Order, Piece};
pub use self::session_id::{SessionId, SessionIds};
use crate::auth::Claims;
use crate::decision::CloseReason;

/// The logic of an application, one value per core.
pub trait App {
    /// May a request become a WebSocket? Comes before anything else (HANDSHAKE_WS).
    fn upgrade(&mut self, _request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        Ok(())
    }

    /// May a client complete its handshake? [`Peer::claims`] are those of its token, if it sent a good one
    /// (HANDSHAKE_SC).
    fn handshake(&mut self, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client be who its token says? Called when the signature has been checked (AUTHENTICATE). An error that
    /// is a bad token makes the client drop the token.
    fn authenticate(&mut self, _claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client subscribe? `data` is what it sent besides the channel (SUBSCRIBE).
    fn subscribe(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        _peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// May a client publish, and what? (PUBLISH_IN)
    fn publish(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        _peer: &mut Peer<'_>,
    ) -> Result<Publication, Refusal> {
        Ok(Publication::as_sent())
    }

    /// Answers a call (INVOKE). The reference gives no answer to procedures it does not know.
    fn invoke(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) -> Answer {
        Answer::silent()
    }

    /// Takes a one-way event (TRANSMIT).
    fn transmit(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) {}

    /// A call that this server has made was answered, or will not be. The data is absent if the client sent none. If the
    /// connection has ended, nothing that is asked of the peer is done any more.
    fn answered(
        &mut self,
        _call: CallId,
        _answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        _peer: &mut Peer<'_>,
    ) {
    }

    /// A client has completed its handshake, and has been told so.
    fn connected(&mut self, _peer: &mut Peer<'_>) {}

    /// A client that was [connected](App::connected) has gone. Called once for each.
    fn disconnected(&mut self, _id: SessionId, _reason: CloseReason) {}
}

/// A request to become a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// What follows the `?`; empty if nothing does.
    pub query: &'a str,
    /// Names and values in the order they came. A browser adds cookies whichever page opens the socket: an application that
    /// reads them itself must look at `Origin`, too.
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
