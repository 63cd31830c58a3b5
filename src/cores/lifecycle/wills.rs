//! Wills (`wills/mod.rs`) on a core: kept for its connections, left behind when these end, and published when they are
//! due.
//!
//! A will with a session key waits at the core that owns the key. The connection's core tells the owner by letters of
//! each beginning and end of a generation. Other wills stay on the core of their connection.
//!
//! A will that is published queues behind the publications of connections that have ended before the ring had room
//! (`delivery/abandoned_publications.rs`): nothing waits for the ring here.
//!
//! Limits: `wills_bytes_max`; `WILLS_PER_TURN_MAX`.

use crate::app::App;
use crate::decision::{CloseReason, Limit};
use crate::protocols;
use crate::session::{self, SessionId};
use crate::wills::{HeldWill, SessionKey, Will, WillPlan};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::post::letter::{Letter, WillLetter, WillNews};

impl<A: App> Core<A> {
    /// Takes a connection's will away.
    #[cold]
    pub(in crate::cores) fn forget_will(&mut self, id: ConnectionId, generation: SessionId) {
        if let Some(held) = self.wills.take(id.index())
            && let Some(key) = held.session
        {
            self.tell_owner(key, generation, WillNews::Released);
        }
        self.metrics.wills.set(self.wills.len() as u64);
    }

    /// The session of a connection has ended: its will is published, waits, or is dropped.
    #[inline]
    pub(in crate::cores) fn leave_will(
        &mut self,
        id: ConnectionId,
        generation: Option<SessionId>,
        reason: CloseReason,
    ) {
        if !self.wills.is_empty()
            && let Some(generation) = generation
        {
            self.leave_will_behind(id, generation, reason);
        }
    }

    #[cold]
    fn leave_will_behind(&mut self, id: ConnectionId, generation: SessionId, reason: CloseReason) {
        if !is_published_after(reason) {
            return self.forget_will(id, generation);
        }
        let Some(HeldWill { will, session }) = self.wills.take(id.index()) else {
            return;
        };
        self.metrics.wills.set(self.wills.len() as u64);
        match session {
            Some(key) => self.tell_owner(key, generation, WillNews::Ended(will)),
            None => {
                let plan = self.will_sessions.end_without_key(will, self.time.now().uptime);
                self.follow_plan(plan);
            }
        }
    }

    /// Tells the owner of a session key of one of the session's generations.
    pub(in crate::cores) fn tell_owner(&mut self, key: SessionKey, generation: SessionId, news: WillNews) {
        let owner = self.owner_of(&key);
        self.post.send(owner, will_letter(key, generation, news));
    }

    /// The core that owns a session key.
    pub(in crate::cores) fn owner_of(&self, key: &SessionKey) -> usize {
        self.delivery.owner_of(key.as_bytes())
    }

    /// Takes news about a session whose key this core owns.
    pub(in crate::cores) fn take_will_letter(&mut self, letter: WillLetter) {
        let WillLetter {
            key,
            generation,
            news,
        } = letter;
        match news {
            WillNews::Claimed => {
                if self.will_sessions.claim(key, generation) {
                    self.metrics.wills_cancelled.add(1);
                }
            }
            WillNews::Released => self.will_sessions.release(&key, generation),
            WillNews::Ended(will) => {
                let plan = self
                    .will_sessions
                    .end(key, generation, will, self.time.now().uptime);
                self.follow_plan(plan);
            }
        }
        self.metrics
            .wills_waiting
            .set(self.will_sessions.waiting_len() as u64);
    }

    fn follow_plan(&mut self, plan: WillPlan) {
        match plan {
            WillPlan::Nothing => {}
            WillPlan::Publish(will) => self.publish_will(&will),
            WillPlan::PublishEarly(will) => {
                self.metrics.limit_hit(Limit::WillsBytes);
                self.publish_will(&will);
            }
        }
        self.metrics
            .wills_waiting
            .set(self.will_sessions.waiting_len() as u64);
    }

    /// Publishes wills whose delays have passed, as many as one turn may.
    pub(in crate::cores) fn publish_due_wills(&mut self) {
        let now = self.time.now().uptime;
        if self.will_sessions.next_due() > now {
            return;
        }
        for _ in 0..WILLS_PER_TURN_MAX {
            let Some(will) = self.will_sessions.take_due(now) else {
                break;
            };
            self.publish_will(&will);
        }
        self.metrics
            .wills_waiting
            .set(self.will_sessions.waiting_len() as u64);
    }

    fn publish_will(&mut self, will: &Will) {
        let channels = &self.lent.policy.channels;
        if channels.announced_on(&will.channel).is_some() {
            // A reload has made it a channel of events since the will was set: only the server publishes there.
            return;
        }
        let marks = session::marks(channels, &mut self.lent.scratch.common.channels, &will.channel);
        let epoch = self.lent.settings.common.epoch;
        let publication = protocols::publication(&will.channel, will.data.as_deref(), marks, epoch);
        self.abandoned.add(publication);
        self.metrics.wills_published.add(1);
    }
}

/// A letter with news of a session.
pub(in crate::cores) fn will_letter(key: SessionKey, generation: SessionId, news: WillNews) -> Letter {
    Letter::Will(Box::new(WillLetter {
        key,
        generation,
        news,
    }))
}

/// Whether a will is published after an end for this reason. A server that stops takes its subscribers with it, and the
/// clients come back elsewhere. A user whose token an operator has revoked publishes no more.
fn is_published_after(reason: CloseReason) -> bool {
    !matches!(reason, CloseReason::Draining | CloseReason::Revoked)
}

/// Wills that one turn publishes: a switch that takes a thousand clients with it must not hold up the others.
const WILLS_PER_TURN_MAX: usize = 64;
