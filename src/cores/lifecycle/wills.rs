//! Wills (`wills/mod.rs`) on a core: it keeps them for its connections, keeps them on when these end, and
//! publishes them when they are due.
//!
//! A will with a session key waits at the core that owns the key. The connection's core sends the owner a
//! letter about each beginning and each end of a generation. Other wills stay on the core of their
//! connection.
//!
//! With a store (`data_dir`) each will is on disk from the moment at which it is set. The core of the
//! connection records it. After the end of the connection, the owner of the session's key records its fate.
//! The owner's record always comes later: the letter about an end leaves the connection's core only after
//! that core's own records.
//!
//! A will that is published queues behind the publications of connections that have ended before the ring had
//! room (`delivery/abandoned_publications.rs`), so this file never waits for the ring.
//!
//! Limits: `wills_bytes_max`; `WILLS_PER_TURN_MAX`.

use crate::app::App;
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Limit};
use crate::protocols;
use crate::session::{self, SessionId};
use crate::wills::{Former, HeldWill, SessionKey, Will, WillPlan};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Commit, Connection, ConnectionId};
use crate::cores::post::letter::{Letter, WillKeyEvent, WillLetter};

impl<A: App> Core<A> {
    /// Takes a connection's will away. Returns the commit that the acknowledgement waits for, if it waits for
    /// one.
    #[cold]
    pub(in crate::cores) fn forget_will(
        &mut self,
        id: ConnectionId,
        generation: SessionId,
    ) -> Option<Commit> {
        let held = self.wills.take(id.index())?;
        if let Some(key) = held.session {
            self.tell_owner(key, generation, WillKeyEvent::Released);
        }
        self.record_will_gone(generation)
    }

    /// The session of a connection has ended: its will is published, waits, or is dropped.
    #[inline]
    pub(in crate::cores) fn leave_will(
        &mut self,
        id: ConnectionId,
        generation: Option<SessionId>,
        reason: CloseReason,
    ) {
        if !self.wills.none_is_held()
            && let Some(generation) = generation
        {
            self.leave_will_behind(id, generation, reason);
        }
    }

    #[cold]
    fn leave_will_behind(&mut self, id: ConnectionId, generation: SessionId, reason: CloseReason) {
        if reason == CloseReason::Draining {
            self.leave_will_to_the_store(id, generation);
        }
        if !is_published_after(reason) {
            // The connection has ended, so no answer waits for the commit.
            let _ = self.forget_will(id, generation);
            return;
        }
        let Some(held) = self.wills.take(id.index()) else {
            return;
        };
        match held.session {
            Some(key) => {
                let event = WillKeyEvent::Ended(held.will);
                if self.delivery.on_disk().is_some() {
                    // This core's own records must be on their way before the owner records the fate of the
                    // will.
                    self.wills.keep_letter(will_letter(key, generation, event));
                } else {
                    self.tell_owner(key, generation, event);
                }
            }
            None => {
                let now = self.time.now().uptime;
                let plan = self.wills.end_without_key(generation, held.will.clone(), now);
                self.follow_plan(generation, held, plan);
            }
        }
    }

    /// The server stops. If there is a store, the will of a session that may be resumed waits on disk for the
    /// next process.
    fn leave_will_to_the_store(&mut self, id: ConnectionId, generation: SessionId) {
        let now = self.time.now();
        let Some(on_disk) = self.delivery.on_disk() else {
            return;
        };
        let Some(held) = self.wills.take(id.index()) else {
            return;
        };
        // The connection ends, so no answer waits for the commit.
        if held.session.is_none() {
            let _ = on_disk.forget_will(generation);
            return;
        }
        let due = due_unix_ms(&held.will, now);
        let _ = on_disk.record_will(generation, &held, Some(due), now);
        if let Some(key) = held.session {
            self.tell_owner(key, generation, WillKeyEvent::Released);
        }
    }

    /// Records that a connection has no will any more, if there is a store.
    fn record_will_gone(&mut self, generation: SessionId) -> Option<Commit> {
        self.delivery.on_disk()?.forget_will(generation)
    }

    /// Sends the letters about wills that had to wait for this core's earlier records, at the end of a turn.
    pub(in crate::cores) fn send_will_letters(&mut self) {
        if self
            .delivery
            .on_disk()
            .is_some_and(|on_disk| !on_disk.has_sent_all())
        {
            return;
        }
        while let Some(letter) = self.wills.take_letter() {
            let owner = self.owner_of(&letter.key);
            self.post.send(owner, Letter::Will(letter));
        }
    }

    /// This core makes no more records. If the server stops, the wills of connections that are still open end
    /// with it. If another process takes the store over, the waiting wills belong to that process. The wills
    /// of open connections stay here, and are dropped when this server stops.
    #[cold]
    pub(in crate::cores) fn settle_wills_on_disk(&mut self) {
        let is_stopping = self.draining.is_some();
        if !is_stopping {
            while self.wills.take_due(Uptime::NEVER).is_some() {}
        }
        for index in self.wills.connections() {
            let Some(id) = self.connections.id_at(index) else {
                continue;
            };
            let generation = self.connections.get(id).and_then(Connection::generation);
            match generation {
                Some(generation) if is_stopping => self.leave_will_to_the_store(id, generation),
                Some(generation) => {
                    // These are the last records: no answer waits for them.
                    let _ = self.record_will_gone(generation);
                }
                None => {}
            }
        }
    }

    /// Tells the owner of a session key of one of the session's generations.
    pub(in crate::cores) fn tell_owner(
        &mut self,
        key: SessionKey,
        generation: SessionId,
        event: WillKeyEvent,
    ) {
        let owner = self.owner_of(&key);
        self.post
            .send(owner, Letter::Will(will_letter(key, generation, event)));
    }

    /// The core that owns a session key.
    pub(in crate::cores) fn owner_of(&self, key: &SessionKey) -> usize {
        self.delivery.owner_of(key.as_bytes())
    }

    /// Takes a letter about a session whose key this core owns.
    pub(in crate::cores) fn take_will_letter(&mut self, letter: WillLetter) {
        let WillLetter {
            key,
            generation,
            event,
        } = letter;
        match event {
            WillKeyEvent::Claimed(at) => match self.wills.claim(key, generation, at) {
                None => {}
                Some(Former::Void(former)) => {
                    self.metrics.wills_cancelled.add(1);
                    // No answer waits for the commit. If it is lost, the later of both wills counts
                    // (`server/restore.rs`).
                    let _ = self.record_will_gone(former);
                }
                Some(Former::Due(former, will)) => {
                    // As in `publish_due_wills`.
                    let _ = self.record_will_gone(former);
                    self.publish_will(&will, former);
                }
            },
            WillKeyEvent::Released => self.wills.release(&key, generation),
            WillKeyEvent::Ended(will) => {
                let held = HeldWill {
                    will,
                    session: Some(key.clone()),
                };
                let now = self.time.now().uptime;
                let plan = self.wills.end(key, generation, held.will.clone(), now);
                self.follow_plan(generation, held, plan);
            }
        }
    }

    /// Keeps, publishes or drops a will, by `plan`. `held` is the will that the connection of this generation has left.
    fn follow_plan(&mut self, generation: SessionId, held: HeldWill, plan: WillPlan) {
        let now = self.time.now();
        if let Some(on_disk) = self.delivery.on_disk() {
            // The connection has ended, so no answer waits for the commit.
            match plan {
                WillPlan::Waits(_) => {
                    let due = Some(due_unix_ms(&held.will, now));
                    let _ = on_disk.record_will(generation, &held, due, now);
                }
                WillPlan::Void | WillPlan::Publish(_) | WillPlan::PublishEarly(_) => {
                    let _ = on_disk.forget_will(generation);
                }
            }
        }
        match plan {
            WillPlan::Waits(_) | WillPlan::Void => {}
            WillPlan::Publish(will) => self.publish_will(&will, generation),
            WillPlan::PublishEarly(will) => {
                self.metrics.limit_hit(Limit::WillsBytes);
                self.publish_will(&will, generation);
            }
        }
    }

    /// Publishes wills whose delays have passed, as many as one turn may.
    pub(in crate::cores) fn publish_due_wills(&mut self) {
        let now = self.time.now().uptime;
        if self.wills.next_due() > now {
            return;
        }
        if self.post.has_letters() {
            // This turn has left letters over. One of them may say that the session of a will was resumed in
            // time.
            return;
        }
        for _ in 0..WILLS_PER_TURN_MAX {
            let Some((generation, will)) = self.wills.take_due(now) else {
                break;
            };
            // No answer waits for the commit. If it is lost, the next process publishes the will again.
            let _ = self.record_will_gone(generation);
            self.publish_will(&will, generation);
        }
    }

    /// Whether an operator has revoked the token of a will's client.
    pub(super) fn is_will_revoked(&self, claims: Option<&str>) -> bool {
        let tokens = &self.resources.policy.tokens;
        claims.is_some_and(|claims| tokens.is_revoked(claims, self.time.now().unix_ms))
    }

    fn publish_will(&mut self, will: &Will, generation: SessionId) {
        if self.is_will_revoked(will.claims.as_deref()) {
            self.metrics.wills_cancelled.add(1);
            return;
        }
        let channels = &self.resources.policy.channels;
        if session::reserved(&will.channel, channels, self.resources.settings.common.mqtt).is_some() {
            // A reload, or a restart, has given the channel to the server since the will was set.
            return;
        }
        let marks = session::marks(
            channels,
            &mut self.resources.scratch.common.channels,
            &will.channel,
        );
        let epoch = self.resources.settings.common.epoch;
        // A reload may have forbidden retaining since the will was set: then the will is published without
        // it.
        let is_retained = will.retain
            && session::why_not_retained(&will.channel, channels, self.resources.settings.common.mqtt)
                .is_none();
        let data = will.data.as_deref();
        let publication = protocols::publication(&will.channel, data, marks, epoch, is_retained);
        self.abandoned.add(publication);
        self.metrics.wills_published.add(1);
        self.tell_will(will, generation);
    }
}

/// A letter about a session.
pub(in crate::cores) fn will_letter(
    key: SessionKey,
    generation: SessionId,
    event: WillKeyEvent,
) -> Box<WillLetter> {
    Box::new(WillLetter {
        key,
        generation,
        event,
    })
}

/// When the will of a connection that ends now is to be published.
fn due_unix_ms(will: &Will, now: Now) -> u64 {
    let delay_ms = u64::try_from(will.delay.as_millis()).unwrap_or(u64::MAX);
    now.unix_ms.saturating_add(delay_ms)
}

/// Whether a will is published after an end for this reason. When a server stops, its subscribers end as
/// well, and the clients connect elsewhere. A user whose token an operator has revoked publishes no more.
fn is_published_after(reason: CloseReason) -> bool {
    !matches!(reason, CloseReason::Draining | CloseReason::Revoked)
}

/// Wills that one turn publishes. If a network switch fails, a thousand clients may end at once, and their
/// wills must not delay other clients.
const WILLS_PER_TURN_MAX: usize = 64;
