//! Publications to remembered channels where a store keeps them (`data_dir`): they may have to wait for room at the
//! store, and their acknowledgement for a commit. Only the connection itself waits.
//!
//! Waits: for the thread of the store, which waits for the disk and for no core.

use crate::app::App;
use crate::decision::{Decisions, Limit, Publish, Span, Stored};
use crate::protocols::Content;

use crate::cores::core::Core;
use crate::cores::delivery::remembered_on_disk::Admission;
use crate::cores::lifecycle::connection::{Commit, ConnectionId, Phase, Work};

impl<A: App> Core<A> {
    /// Whether a publication may be published now, as far as the store is concerned. If the store refuses it, the work
    /// remembers that for the acknowledgement.
    pub(in crate::cores) fn admit(&mut self, publish: Publish, work: &mut Work) -> Admission {
        if !publish.marks.remembered {
            return Admission::Open;
        }
        let admission = self.delivery.admission();
        match admission {
            Admission::Open => {}
            Admission::Full if !work.has_stalled => {
                work.has_stalled = true;
                self.metrics.limit_hit(Limit::StoreQueueBytes);
            }
            Admission::Full => {}
            Admission::Refused(why) => work.commit = Some(Commit::Refused(why)),
        }
        admission
    }

    /// Answers a publication that is acknowledged when it is stored. False if it has to wait for that.
    pub(in crate::cores) fn acknowledge(
        &mut self,
        id: ConnectionId,
        token: Span,
        commit: &mut Option<Commit>,
        decisions: &mut Decisions,
    ) -> bool {
        let outcome = match commit {
            None => Stored::Yes,
            Some(awaited) => match self.delivery.outcome(*awaited) {
                Some(outcome) => outcome,
                None => return false,
            },
        };
        *commit = None;
        let Some((connection, mqtt)) = self.connections.get_with_mqtt(id) else {
            return true;
        };
        if let Phase::Open(open) = &mut connection.phase {
            let mut environment = self.lent.environment(self.time.now(), id, mqtt);
            match open.session.stored(token, outcome, &mut environment, decisions) {
                Ok(answer) => self.send(id, Content::Text, decisions.bytes(answer)),
                Err(reason) => self.close(id, reason),
            }
        }
        true
    }

    /// Goes on with connections that have waited for a commit, if there was one.
    #[inline]
    pub(in crate::cores) fn resume_awaiting_commit(&mut self) {
        if self.waiting.awaiting_commit_count() > 0 && self.delivery.take_commits() {
            self.resume_after_commit();
        }
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
