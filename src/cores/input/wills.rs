//! Wills that clients set, take back, or renounce with their farewell (`lifecycle/wills.rs` has the rest).

use crate::app::App;
use crate::auth::Claims;
use crate::decision::{Decisions, Limit, Span, Stored};
use crate::protocols::Content;
use crate::session::SessionId;
use crate::wills::{HeldWill, NoRoom, WillFault};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Commit, ConnectionId};
use crate::cores::lifecycle::wills::will_letter;
use crate::cores::post::letter::{Letter, WillKeyEvent};

impl<A: App> Core<A> {
    /// Gives a connection a will in place of the one that it has, and answers the client. If the answer has
    /// to wait for a commit of the store, returns that commit instead.
    pub(in crate::cores) fn set_will(
        &mut self,
        id: ConnectionId,
        will: Span,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) -> Option<Commit> {
        let generation = self.generation(id)?;
        let held = HeldWill::read(decisions.bytes(will)).expect("the session has written it");
        self.keeps_state = true;
        let outcome = self.try_set_will(id, generation, held);
        if outcome.is_ok()
            && let Some(commit) = self.record_will(id, generation)
        {
            return Some(commit);
        }
        self.answer_will(id, token, outcome, decisions);
        None
    }

    /// Answers a client whose will has waited for a commit. False if it must wait longer.
    pub(in crate::cores) fn will_is_stored(
        &mut self,
        id: ConnectionId,
        token: Option<Span>,
        commit: Commit,
        decisions: &mut Decisions,
    ) -> bool {
        let outcome = match self.delivery.outcome(commit) {
            None => return false,
            Some(Stored::Yes) => Ok(()),
            Some(Stored::NotNow | Stored::Elsewhere | Stored::Unknown) => Err(WillFault::NotStored),
        };
        self.answer_will(id, token, outcome, decisions);
        true
    }

    /// Records a connection's will, if there is a store.
    fn record_will(&mut self, id: ConnectionId, generation: SessionId) -> Option<Commit> {
        let now = self.time.now();
        let held = self.wills.get(id.index())?;
        self.delivery.on_disk()?.record_will(generation, held, None, now)
    }

    /// The client is answered when its claim of the session is on the way to the owner: so a claim by a later
    /// connection of the session reaches the owner later.
    fn try_set_will(
        &mut self,
        id: ConnectionId,
        generation: SessionId,
        held: HeldWill,
    ) -> Result<(), WillFault> {
        if self
            .delivery
            .on_disk()
            .is_some_and(|on_disk| !on_disk.takes_wills())
        {
            self.metrics.limit_hit(Limit::StoreQueueBytes);
            return Err(WillFault::NotNow);
        }
        if !self.wills.has_room(id.index(), &held) {
            self.metrics.limit_hit(Limit::WillsBytes);
            return Err(NoRoom.into());
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
            let letter = will_letter(key, generation, WillKeyEvent::Claimed(self.time.now().uptime));
            (owner, Letter::Will(letter))
        });
        if !has_room || claim.is_some_and(|(owner, letter)| self.post.try_send(owner, letter).is_err()) {
            self.metrics.limit_hit(Limit::Letters);
            return Err(NoRoom.into());
        }
        if let Some(former) = former
            && held.session.as_ref() != Some(&former)
        {
            self.tell_owner(former, generation, WillKeyEvent::Released);
        }
        Ok(self.wills.set(id.index(), held)?)
    }

    /// Takes a connection's will away at the client's request, and answers. If the answer has to wait for a
    /// commit of the store, returns that commit instead.
    pub(in crate::cores) fn drop_will(
        &mut self,
        id: ConnectionId,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) -> Option<Commit> {
        let generation = self.generation(id)?;
        let commit = self.forget_will(id, generation);
        if commit.is_none() {
            self.answer_will(id, token, Ok(()), decisions);
        }
        commit
    }

    /// The client of a connection leaves on purpose, so its will is dropped.
    #[inline]
    pub(in crate::cores) fn delete_will(&mut self, id: ConnectionId) {
        if !self.wills.none_is_held()
            && let Some(generation) = self.generation(id)
        {
            // The connection ends, so no answer waits for the commit.
            let _ = self.forget_will(id, generation);
        }
    }

    /// A client has new claims. If they are a later token of the same user, the will outlives the revocation
    /// of the earlier token.
    pub(in crate::cores) fn renew_will(&mut self, id: ConnectionId) {
        if self.wills.none_is_held() {
            return;
        }
        let Some(claims) = self.session(id).and_then(|session| session.claims().cloned()) else {
            return;
        };
        let held = self.wills.get(id.index());
        let former = held.and_then(|held| held.will.claims.as_deref());
        if former.is_some_and(|former| Claims::user_in(former) == claims.user()) {
            self.wills.renew(id.index(), claims.json());
        }
    }

    fn answer_will(
        &mut self,
        id: ConnectionId,
        token: Option<Span>,
        outcome: Result<(), WillFault>,
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
