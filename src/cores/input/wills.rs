//! Wills as clients set them, take them back, and renounce them by their farewell (`lifecycle/wills.rs` has the rest).

use crate::app::App;
use crate::decision::{Decisions, Limit, Span};
use crate::protocols::Content;
use crate::session::SessionId;
use crate::wills::{HeldWill, NoRoom};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::wills::will_letter;
use crate::cores::post::letter::WillNews;

impl<A: App> Core<A> {
    /// Gives a connection a will in place of the one that it has.
    pub(in crate::cores) fn set_will(
        &mut self,
        id: ConnectionId,
        will: Span,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) {
        let Some(generation) = self.generation(id) else {
            return;
        };
        let held = HeldWill::read(decisions.bytes(will)).expect("the session has written it");
        self.keeps_state = true;
        let outcome = self.try_set_will(id, generation, held);
        self.metrics.wills.set(self.wills.len() as u64);
        self.answer_will(id, token, outcome, decisions);
    }

    /// The client is answered when its claim of the session is on the way to the owner: so a claim by a later connection
    /// of the session reaches the owner later.
    fn try_set_will(
        &mut self,
        id: ConnectionId,
        generation: SessionId,
        held: HeldWill,
    ) -> Result<(), NoRoom> {
        if !self.wills.has_room(id.index(), &held) {
            self.metrics.limit_hit(Limit::WillsBytes);
            return Err(NoRoom);
        }
        let former = self
            .wills
            .get(id.index())
            .and_then(|former| former.session.clone());
        let has_room = former
            .as_ref()
            .is_none_or(|key| self.post.has_room(self.owner_of(key)));
        let claim = held.session.clone().map(|key| {
            let owner = self.owner_of(&key);
            (owner, will_letter(key, generation, WillNews::Claimed))
        });
        if !has_room || claim.is_some_and(|(owner, letter)| self.post.try_send(owner, letter).is_err()) {
            self.metrics.limit_hit(Limit::Letters);
            return Err(NoRoom);
        }
        if let Some(former) = former
            && held.session.as_ref() != Some(&former)
        {
            self.tell_owner(former, generation, WillNews::Released);
        }
        self.wills.set(id.index(), held)
    }

    /// Takes a connection's will away, since the client asks for it.
    pub(in crate::cores) fn drop_will(
        &mut self,
        id: ConnectionId,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) {
        if let Some(generation) = self.generation(id) {
            self.forget_will(id, generation);
            self.answer_will(id, token, Ok(()), decisions);
        }
    }

    /// The client of a connection leaves of its own accord: it leaves no will.
    #[inline]
    pub(in crate::cores) fn renounce_will(&mut self, id: ConnectionId) {
        if !self.wills.is_empty()
            && let Some(generation) = self.generation(id)
        {
            self.forget_will(id, generation);
        }
    }

    fn answer_will(
        &mut self,
        id: ConnectionId,
        token: Option<Span>,
        outcome: Result<(), NoRoom>,
        decisions: &mut Decisions,
    ) {
        if let Some(session) = self.session(id)
            && let Some(answer) = session.will_set(token, outcome, decisions)
        {
            self.send(id, Content::Text, decisions.bytes(answer));
        }
    }

    fn generation(&mut self, id: ConnectionId) -> Option<SessionId> {
        self.session(id)?.id()
    }
}
