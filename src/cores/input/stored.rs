//! Publications that a store keeps (`data_dir`): those to remembered channels, and those of MQTT clients that
//! are retained or that sessions keep. They may have to wait for room at the store, and their acknowledgement
//! for a commit. Only the connection itself waits. The same holds for CONNACK of MQTT clients whose sessions
//! a strict store keeps.
//!
//! Limits: `ACCEPTED_PER_TURN_MAX`.
//!
//! Waits: for the thread of the store, which waits for the disk but for no core.

use crate::app::App;
use crate::broker::Origin;
use crate::decision::{Decisions, Limit, Publish, Span, Stored};
use crate::mqtt::publication;
use crate::protocols::Content;

use crate::cores::core::Core;
use crate::cores::delivery::core_store::Admission;
use crate::cores::lifecycle::connection::{Commit, ConnectionId, Phase, Work};

impl<A: App> Core<A> {
    /// Whether the store allows a publication to be published now. If the store refuses it, the work keeps
    /// that for the acknowledgement.
    pub(in crate::cores) fn admit(&mut self, publish: Publish, work: &mut Work) -> Admission {
        if !publish.marks.remembered && !self.needs_store(publish, &work.decisions) {
            return Admission::Open;
        }
        let admission = self.delivery.admission(publish);
        match admission {
            Admission::Open => work.waited_for_store = false,
            Admission::Full if !work.waited_for_store => {
                work.waited_for_store = true;
                self.metrics.limit_hit(Limit::StoreQueueBytes);
            }
            Admission::Full => {}
            Admission::Refused(why) => {
                if self.delivery.on_disk().is_some_and(|on_disk| on_disk.is_full()) {
                    self.metrics.limit_hit(Limit::StoreBytes);
                }
                work.commit = Some(Commit::Refused(why));
            }
        }
        admission
    }

    /// Whether the acknowledgement of a publication waits until the sessions and the retained publications
    /// that it changes are on disk: it comes from an MQTT client or is retained, and the store is strict.
    #[inline]
    pub(in crate::cores) fn awaits_commit_of(&self, publish: Publish) -> bool {
        (publish.origin == Origin::Mqtt || publish.retain) && self.resources.settings.mqtt.is_durable
    }

    /// Whether a publication would have to be stored before it is acknowledged, though its channel is not remembered.
    fn needs_store(&self, publish: Publish, decisions: &Decisions) -> bool {
        let is_acknowledged = || match publish.origin {
            Origin::SocketCluster => true,
            Origin::Mqtt => {
                let view = publication::read(decisions.bytes(publish.message));
                view.is_some_and(|view| view.head.qos > 0)
            }
        };
        self.awaits_commit_of(publish)
            && is_acknowledged()
            && (publish.retain || self.delivery.has_subscribers(decisions.bytes(publish.channel)))
    }

    /// Answers a publication whose acknowledgement depends on the store. False if the acknowledgement has to
    /// wait.
    pub(in crate::cores) fn acknowledge(
        &mut self,
        id: ConnectionId,
        token: Span,
        commit: &mut Option<Commit>,
        decisions: &mut Decisions,
    ) -> bool {
        if let Some(Commit::Read { cores, .. }) = *commit
            && cores.len() <= 1
        {
            // It is recorded on this core alone, in this turn: the packet identifier is committed with it.
            self.confirm_qos2(id);
        }
        let outcome = match commit {
            None => Stored::Yes,
            Some(awaited) => match self.delivery.outcome(*awaited) {
                Some(outcome) => outcome,
                None => return false,
            },
        };
        if matches!(commit, Some(Commit::Read { .. })) && outcome == Stored::Yes {
            self.confirm_qos2(id);
        }
        *commit = None;
        let Some((connection, mqtt)) = self.connections.get_with_mqtt(id) else {
            return true;
        };
        if let Phase::Open(open) = &mut connection.phase {
            let mut environment = self.resources.environment(self.time.now(), id, mqtt);
            match open.session.stored(token, outcome, &mut environment, decisions) {
                // An MQTT client may take no packet of that size.
                Ok(answer) if answer.is_empty() => {}
                Ok(answer) => self.send(id, Content::Text, decisions.bytes(answer)),
                Err(reason) => self.close(id, reason),
            }
        }
        true
    }

    /// The QoS 2 publication of a connection is recorded, so its packet identifier may be recorded as well.
    fn confirm_qos2(&mut self, id: ConnectionId) {
        let session = self.session(id).and_then(|session| session.mqtt_session());
        if let (Some(session), Some(sessions)) = (session, &mut self.connections.mqtt) {
            sessions.confirm_qos2(session);
        }
    }

    /// Resumes connections that have waited for a commit, if there was one.
    #[inline]
    pub(in crate::cores) fn resume_awaiting_commit(&mut self) {
        if self.waiting.first_save().is_some() {
            self.accept_saved();
        }
        if self.waiting.awaiting_commit_count() > 0 && self.delivery.take_commits() {
            self.resume_after_commit();
        }
    }

    /// Admits MQTT clients whose sessions are on disk, as many as one turn may; and answers clients whose
    /// sessions cannot be written.
    #[cold]
    fn accept_saved(&mut self) {
        let mut left = ACCEPTED_PER_TURN_MAX;
        while let Some(save) = self.waiting.first_save()
            && let Some(outcome) = self.delivery.outcome(Commit::Saved(save))
        {
            if left == 0 {
                return self.waiting.leave_saved(true);
            }
            left -= 1;
            if let Some(id) = self.waiting.next_awaiting_save() {
                self.decide(id, |session, environment, decisions| {
                    session.session_saved(outcome, environment, decisions)
                });
                self.follow_decision(id);
            }
        }
        self.waiting.leave_saved(false);
    }

    #[cold]
    fn resume_after_commit(&mut self) {
        for _ in 0..self.waiting.awaiting_commit_count() {
            if let Some(id) = self.waiting.next_awaiting_commit() {
                self.carry_out_suspended(id);
                self.take_in_again(id);
            }
        }
    }
}

/// MQTT clients that one turn admits after a commit, at some microseconds each.
const ACCEPTED_PER_TURN_MAX: usize = 256;
