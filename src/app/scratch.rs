//! Buffers for the answers and orders of an application: filled and emptied within one packet, and kept for
//! the next one.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use simd_json::Buffers;

use super::calls::{CallId, CallRefused};
use super::context::{Client, Contexts};
use super::current_call::CurrentCall;
use super::deferred::{Deferred, LateAnswerSender};
use super::deferred_decision::{Again, DeferredDecision};
use super::error::Refusal;
use super::peer::{AllowedPublish, Peer};
use super::session_id::SessionId;
use super::timers::{TimerId, TimerRefused, Timers};
use crate::auth::Claims;
use crate::decision::CloseCode;

/// The buffers of one core for the answers and orders of its application.
#[derive(Default)]
pub(crate) struct Scratch {
    generation: u64,
    /// JSON and names that answers and orders are made of.
    pieces: Vec<u8>,
    /// The orders of the application.
    pub(crate) orders: Vec<PeerOrder>,
    /// A copy of data for simd-json, which destroys what it reads.
    pub(super) input: Vec<u8>,
    pub(super) json: Buffers,
    /// How many of the orders the session has already noted ([`Scratch::orders_to_note`]).
    orders_noted: usize,
    /// The question that the application is being asked.
    pub(crate) call: CurrentCall,
    /// The application's decisions about a packet that is handled again; `None` for any other packet.
    pub(crate) again: Option<Box<Again>>,
    /// The calls and timers that the application was refused since the last [`Scratch::take_refused`].
    refused: RefusedToApp,
    /// The facts that the application keeps about connections.
    pub(crate) contexts: Contexts,
    /// The timers that the application has set.
    pub(crate) timers: Timers,
    /// The sender of late answers to this core.
    late_answers: Option<Arc<dyn LateAnswerSender>>,
}

/// How many calls and timers an application was refused, because it has as many as it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusedToApp {
    /// Calls to clients.
    pub(crate) calls: u32,
    /// Timers.
    pub(crate) timers: u32,
}

impl Scratch {
    /// Empty buffers of a core that gets late answers through `sender` and lets each connection have
    /// `timers_per_connection_max` timers.
    pub(crate) fn of_core(sender: Arc<dyn LateAnswerSender>, timers_per_connection_max: u32) -> Scratch {
        Scratch {
            late_answers: Some(sender),
            timers: Timers::new(timers_per_connection_max),
            ..Scratch::default()
        }
    }

    /// Forgets all pieces and orders, before the application is asked something after the end of the connection at
    /// `address`: it can make no calls and defer nothing.
    pub(crate) fn clear(&mut self, address: usize) {
        self.generation = self.generation.wrapping_add(1);
        self.pieces.clear();
        if self.pieces.capacity().max(self.input.capacity()) > BYTES_KEPT_MAX {
            self.give_back();
        }
        self.orders.clear();
        self.orders_noted = 0;
        self.call.clear(address);
    }

    /// Frees the memory that a large message took.
    #[cold]
    fn give_back(&mut self) {
        (self.pieces, self.input) = (Vec::new(), Vec::new());
        self.json = Buffers::default();
    }

    /// Forgets all pieces and orders, before the session at `address` asks the application. The session has made
    /// `last_call` calls and may make `calls_left` more.
    #[inline(always)]
    pub(crate) fn begin(&mut self, address: usize, last_call: u64, calls_left: u32) {
        self.clear(address);
        self.call.begin(address, last_call, calls_left);
    }

    /// The client of the connection at `address`, for a hook that only looks.
    pub(crate) fn client<'a>(
        &'a mut self,
        id: SessionId,
        claims: Option<&'a Claims>,
        address: usize,
    ) -> Client<'a> {
        Client::new(id, claims, self.contexts.get_mut(address))
    }

    /// The id of another call to the client.
    pub(super) fn next_call(&mut self) -> Result<CallId, CallRefused> {
        let call = self.call.next_call();
        if call == Err(CallRefused::TooMany) {
            self.refused.calls += 1;
        }
        call
    }

    /// Sets a timer of the client.
    pub(super) fn set_timer(&mut self, after: Duration) -> Result<TimerId, TimerRefused> {
        if self.call.has_ended() {
            return Err(TimerRefused::Ended);
        }
        let set = self.timers.set(self.call.address(), after);
        if set == Err(TimerRefused::TooMany) {
            self.refused.timers += 1;
        }
        set
    }

    /// Forgets a timer of the client. False if it has come already.
    pub(super) fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.timers.cancel(self.call.address(), timer)
    }

    /// Whether something was refused since the last [`Scratch::take_refused`].
    #[inline]
    pub(crate) fn has_refused(&self) -> bool {
        self.refused != RefusedToApp::default()
    }

    /// The refusals since the last call of this.
    pub(crate) fn take_refused(&mut self) -> RefusedToApp {
        std::mem::take(&mut self.refused)
    }

    /// The right to answer the present call later.
    pub(super) fn defer(&mut self) -> Deferred {
        self.call.defer(self.late_answers.as_ref())
    }

    /// The right to decide the present question later.
    pub(super) fn defer_decision(&mut self) -> (Refusal, DeferredDecision) {
        self.call.defer_decision(self.late_answers.as_ref())
    }

    /// The application's decision, if the packet is handled again: the answer to the question with this
    /// number about the packet, from 0. `None` if this question has not been asked yet.
    #[cold]
    pub(crate) fn decided_before(
        &mut self,
        question: usize,
        id: SessionId,
        claims: Option<&Claims>,
        token_expired: Option<f64>,
    ) -> Option<Result<AllowedPublish, Refusal>> {
        let again = self.again.as_mut()?;
        if let Some(decided) = again.decided.get(question) {
            return Some(decided.clone().map(|()| AllowedPublish::as_sent()));
        }
        if question > again.decided.len() {
            return None;
        }
        let decide = again.decide.take()?;
        let kept = std::mem::take(&mut again.kept);
        self.put_back_orders(kept);
        Some(decide(&mut Peer::new(id, claims, token_expired, self)))
    }

    /// Takes the application's orders to its peer, to be kept until it has decided. All of them have been
    /// noted.
    pub(crate) fn keep_orders(&mut self) -> DeferredOrders {
        let orders = std::mem::take(&mut self.orders);
        DeferredOrders {
            pieces: std::mem::take(&mut self.pieces),
            noted: orders.len(),
            orders,
        }
    }

    /// Goes on with orders that were kept.
    pub(crate) fn put_back_orders(&mut self, kept: DeferredOrders) {
        // Pieces lie where they lay when the orders were made, so the buffers must be empty.
        debug_assert!(self.pieces.is_empty() && self.orders.is_empty(), "asked first");
        (self.pieces, self.orders, self.orders_noted) = (kept.pieces, kept.orders, kept.noted);
    }

    /// Whether the application has ordered anything.
    #[inline]
    pub(crate) fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// The orders that no [`DeferredOrders`] has held: the session has yet to note the calls among them.
    pub(crate) fn orders_to_note(&self) -> &[PeerOrder] {
        self.orders.get(self.orders_noted..).unwrap_or(&[])
    }

    /// The number of the packet that is being handled. Pieces of another packet are gone.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The text of a piece.
    pub(crate) fn piece(&self, piece: Piece) -> &str {
        std::str::from_utf8(self.piece_bytes(piece)).expect("a piece is text: its writer ensures that")
    }

    /// The text of a piece, as bytes to be sent.
    pub(crate) fn piece_bytes(&self, piece: Piece) -> &[u8] {
        &self.pieces[piece.start..piece.end]
    }

    /// Keeps a text.
    pub(crate) fn keep(&mut self, text: &str) -> Piece {
        self.write(|out| out.extend_from_slice(text.as_bytes()))
    }

    /// Keeps the text that `write` writes.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Piece {
        let start = self.pieces.len();
        write(&mut self.pieces);
        Piece {
            start,
            end: self.pieces.len(),
        }
    }

    /// Keeps a value as JSON; `None` if it has no such form.
    pub(super) fn write_json(&mut self, value: &(impl Serialize + ?Sized)) -> Option<Piece> {
        let start = self.pieces.len();
        if serde_json::to_writer(&mut self.pieces, value).is_err() {
            self.pieces.truncate(start);
            return None;
        }
        Some(Piece {
            start,
            end: self.pieces.len(),
        })
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its contents are clients' data.
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// The orders of an application to its peer, while a decision is deferred.
#[derive(Default)]
pub(crate) struct DeferredOrders {
    pieces: Vec<u8>,
    orders: Vec<PeerOrder>,
    noted: usize,
}

impl DeferredOrders {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.len() + size_of_val(&*self.orders)
    }
}

impl std::fmt::Debug for DeferredOrders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its contents are the application's.
        formatter.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// Pieces that grew past this give their memory back.
const BYTES_KEPT_MAX: usize = 256 * 1024;

/// Where some text lies in a [`Scratch`], until it is cleared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    start: usize,
    end: usize,
}

/// An order of an application, to be carried out after the packet's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PeerOrder {
    /// Send all packets for the client that this packet causes as one array.
    Batch,
    /// Send an event.
    Transmit { event: Piece, data: Option<Piece> },
    /// Call a procedure of the client.
    Invoke {
        call: CallId,
        event: Piece,
        data: Option<Piece>,
    },
    /// Publish to a channel.
    Publish { channel: Piece, data: Option<Piece> },
    /// Sign a token and give it to the client, by a call if there is one.
    SetAuthToken {
        claims: Piece,
        expires_in: Option<u64>,
        call: Option<CallId>,
    },
    /// Give the client a token: `SetAuthToken` becomes this once the token is signed.
    GiveToken { token: Piece, call: Option<CallId> },
    /// Make these claims the client's, without a token.
    AuthenticateAs { claims: Piece },
    /// Subscribe it to a channel.
    Subscribe { channel: Piece },
    /// Take the client's token away, by a call if there is one.
    Deauthenticate { call: Option<CallId> },
    /// End one subscription, or all.
    KickOut {
        channel: Option<Piece>,
        message: Option<Piece>,
    },
    /// Close the connection.
    Disconnect { code: CloseCode, reason: Piece },
}
