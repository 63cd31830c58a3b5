//! Buffers that a core lends to the session it is running: filled and emptied within one packet, never freed.

use std::sync::Arc;

use serde::Serialize;
use simd_json::Buffers;

use super::calls::{CallId, CallRefused};
use super::deferred::{Deferred, Owed, Post};
use super::refusals::Refusals;
use super::rule_hits::RuleHits;
use crate::auth::rules::{Decided, RecentDecisions};
use crate::config::rules::Action;
use crate::decision::CloseCode;

/// The buffers of one core.
#[derive(Default)]
pub struct Scratch {
    /// Whether a password may lie in what was received.
    has_credentials: bool,
    generation: u64,
    /// JSON and names that answers and orders are made of.
    pieces: Vec<u8>,
    /// What the application has asked for.
    pub(crate) orders: Vec<Order>,
    /// Data that had to be changed in passing.
    pub(crate) rewritten: Vec<u8>,
    /// A copy of data for simd-json, which destroys what it reads.
    pub(super) input: Vec<u8>,
    pub(super) json: Buffers,
    /// What rules have decided lately about clients without claims.
    pub(crate) recent: RecentDecisions,
    /// Checks of tokens for the connection whose turn it is.
    verifications: u32,
    /// Checks of tokens in earlier turns, for the message that is gone on with.
    verified_before: u32,
    /// Whether what is sent to the client goes out as one array.
    pub(crate) in_batch: bool,
    /// The call id of the call that is being answered; empty if none is.
    cid: Vec<u8>,
    /// The client's calls that wait for a late answer; `None` while there has been none.
    owed: Option<Owed>,
    /// Where the core finds the session that is running; `None` once its connection has ended.
    address: Option<usize>,
    /// The way of late answers to this core.
    post: Option<Arc<dyn Post>>,
    calls: CallsLeft,
    hits: Hits,
    rule_hits: RuleHits,
    refusals: Refusals,
}

/// Which calls the session that is running may still make.
#[derive(Clone, Copy, Default)]
enum CallsLeft {
    /// The connection has ended.
    #[default]
    None,
    Some {
        last: u64,
        count: u32,
    },
}

/// Limits met while sessions ran, for their counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Messages too deeply nested: `Limit::JsonDepth`.
    pub json_depth: u64,
    /// Calls refused: `Limit::CallsPerConnection`.
    pub calls: u64,
    /// Calls not answered in time: `Limit::AckTime`.
    pub ack_time: u64,
    /// Names of channels that were too long: `Limit::ChannelNameBytes`.
    pub channel_name_bytes: u64,
    /// Calls of clients refused: `Limit::ClientCalls`.
    pub client_calls: u64,
    /// No limit: packets of arrays, which a rate counts as the messages that they might have been.
    pub packets_of_arrays: u64,
    /// No limit: pings sent and pongs received, which are not what keeps a connection from being idle.
    pub heartbeats: u64,
    /// Whether rules have refused anything, or would: [`Scratch::take_rule_hits`].
    pub rules: bool,
    /// Packets refused since their sender is not authenticated: `Limit::Anonymous`.
    pub anonymous: u64,
    /// Logins refused since another is open: `Limit::LoginsPerConnection`.
    pub logins: u64,
    /// Logins refused for the size of their data: `Limit::LoginBodyBytes`.
    pub login_data: u64,
    /// No limit: tokens refused, for [`Scratch::take_refusals`].
    pub tokens: u64,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Empty buffers of a core that takes late answers by `post`.
    pub(crate) fn with_post(post: Arc<dyn Post>) -> Scratch {
        Scratch {
            post: Some(post),
            ..Scratch::default()
        }
    }

    /// Says that a password may lie in what was received.
    pub(crate) fn note_credentials(&mut self) {
        self.has_credentials = true;
    }

    /// Whether one may, since the last call.
    #[inline]
    pub(crate) fn take_credentials_note(&mut self) -> bool {
        std::mem::take(&mut self.has_credentials)
    }

    /// Begins to count checks of tokens anew: a connection has its turn.
    pub(crate) fn begin_verifications(&mut self) {
        self.verifications = 0;
    }

    /// Counts a check of a token, and returns how many there have been for this connection in this turn, and for this
    /// message before.
    pub(crate) fn count_verification(&mut self) -> u32 {
        self.verifications += 1;
        self.verifications + self.verified_before
    }

    /// Says how many tokens of the message that comes now have been checked in earlier turns.
    pub(crate) fn set_verified_before(&mut self, count: u32) {
        self.verified_before = count;
    }

    /// How many there have been in this turn.
    #[inline]
    pub(crate) fn verifications(&self) -> u32 {
        self.verifications
    }

    /// The same, and those in earlier turns for the message that is gone on with.
    pub(crate) fn verified(&self) -> u32 {
        self.verifications + self.verified_before
    }

    /// Whether there is anything to take.
    #[inline]
    pub fn has_hits(&self) -> bool {
        self.hits != Hits::default()
    }

    /// The limits met since the last call.
    pub fn take_hits(&mut self) -> Hits {
        std::mem::take(&mut self.hits)
    }

    /// What rules have refused since the last call.
    pub fn take_rule_hits(&mut self) -> RuleHits {
        std::mem::take(&mut self.rule_hits)
    }

    /// The refusals since the last call of this.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }

    #[inline]
    pub(crate) fn count_decided(&mut self, action: Action, name: &[u8], decided: Decided) {
        if !decided.verdict.allowed || !decided.shadow.allowed {
            self.count_refusal(action, name, decided);
        }
    }

    #[cold]
    fn count_refusal(&mut self, action: Action, name: &[u8], decided: Decided) {
        self.hits.rules = true;
        self.rule_hits.count(action, decided);
        if !decided.verdict.allowed {
            self.refusals
                .note_action("rules", action.word(), decided.verdict.rule, name);
        }
    }

    pub(crate) fn count_token_refused(&mut self, reason: &'static str, by: &'static str) {
        self.hits.tokens += 1;
        self.refusals.note_token(reason, by);
    }

    pub(crate) fn count_json_depth_hit(&mut self) {
        self.hits.json_depth += 1;
    }

    pub(crate) fn count_heartbeat(&mut self) {
        self.hits.heartbeats += 1;
    }

    pub(crate) fn count_packet_of_array(&mut self) {
        self.hits.packets_of_arrays += 1;
    }

    /// How many there were since the hits were taken.
    pub(crate) fn packets_of_arrays(&self) -> u64 {
        self.hits.packets_of_arrays
    }

    pub(crate) fn count_channel_name_hit(&mut self) {
        self.hits.channel_name_bytes += 1;
    }

    pub(crate) fn count_client_calls_hit(&mut self) {
        self.hits.client_calls += 1;
    }

    pub(crate) fn count_ack_time_hit(&mut self) {
        self.hits.ack_time += 1;
    }

    pub(crate) fn count_anonymous_hit(&mut self, action: &'static str, name: &str) {
        self.hits.anonymous += 1;
        self.refusals
            .note_action("anonymous", action, None, name.as_bytes());
    }

    pub(crate) fn count_login_hit(&mut self) {
        self.hits.logins += 1;
    }

    pub(crate) fn count_login_data_hit(&mut self) {
        self.hits.login_data += 1;
    }

    /// Forgets all pieces and orders, before the application is called, which may make no calls and defer nothing.
    pub(crate) fn clear(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.pieces.clear();
        let longest = self.pieces.capacity().max(self.rewritten.capacity());
        if longest.max(self.input.capacity()) > BYTES_KEPT_MAX {
            self.give_back();
        }
        self.orders.clear();
        self.cid.clear();
        self.owed = None;
        self.in_batch = false;
        self.address = None;
        self.calls = CallsLeft::None;
    }

    /// What the largest message took is not kept for ever.
    #[cold]
    fn give_back(&mut self) {
        (self.pieces, self.rewritten, self.input) = (Vec::new(), Vec::new(), Vec::new());
        self.json = Buffers::default();
    }

    /// The same for the session at `address`, which has made `last_call` calls and may make `calls_left` more.
    pub(crate) fn begin(&mut self, address: usize, last_call: u64, calls_left: u32) {
        self.clear();
        self.address = Some(address);
        self.calls = CallsLeft::Some {
            last: last_call,
            count: calls_left,
        };
    }

    /// Says which call is being answered, by a client that has these unanswered.
    pub(crate) fn answering(&mut self, cid: &[u8], owed: Option<Owed>) {
        self.cid.extend_from_slice(cid);
        self.owed = owed;
    }

    /// What has come of them.
    pub(crate) fn take_owed(&mut self) -> Option<Owed> {
        self.owed.take()
    }

    /// The id of another call.
    pub(super) fn next_call(&mut self) -> Result<CallId, CallRefused> {
        match &mut self.calls {
            CallsLeft::None => Err(CallRefused::Ended),
            CallsLeft::Some { count: 0, .. } => {
                self.hits.calls += 1;
                Err(CallRefused::TooMany)
            }
            CallsLeft::Some { last, count } => {
                *last += 1;
                *count -= 1;
                Ok(CallId::new(*last))
            }
        }
    }

    /// The right to answer later what is being answered.
    pub(super) fn defer(&mut self) -> Deferred {
        match (self.address, &self.post) {
            (Some(address), Some(post)) => {
                let owed = (!self.cid.is_empty()).then(|| self.owed.get_or_insert_default().clone());
                Deferred::new(address, &self.cid, owed, Arc::clone(post))
            }
            (Some(_) | None, Some(_) | None) => Deferred::to_nobody(),
        }
    }

    /// Which packet is being handled: pieces of another are gone.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The text of a piece.
    pub(crate) fn piece(&self, piece: Piece) -> &str {
        std::str::from_utf8(self.piece_bytes(piece)).expect("a piece is text: who writes it sees to that")
    }

    /// The text of a piece, as bytes to be sent.
    pub(crate) fn piece_bytes(&self, piece: Piece) -> &[u8] {
        &self.pieces[piece.start..piece.end]
    }

    /// Keeps a text.
    pub(crate) fn keep(&mut self, text: &str) -> Piece {
        self.write(|out| out.extend_from_slice(text.as_bytes()))
    }

    /// Keeps what `write` writes, which must be text.
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

/// Pieces that grew past this give their memory back.
const BYTES_KEPT_MAX: usize = 256 * 1024;

/// Where some text lies in a [`Scratch`], until it is cleared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    start: usize,
    end: usize,
}

/// Something that an application has asked for, to be done after the packet's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Send an event.
    Transmit { event: Piece, data: Option<Piece> },
    /// Call it.
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
    /// Give the client a token: what `SetAuthToken` becomes once it is signed.
    GiveToken { token: Piece, call: Option<CallId> },
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
