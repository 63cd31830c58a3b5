//! The beginning of a recovery, its answer, and its early end.

use crate::app::App;
use crate::broker::Sequence;
use crate::decision::{Gap, Recovered, Wanted};
use crate::metrics::block::RecoveryOutcome;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::outgoing::recoveries::{OwnerOf, Progress, SubscriptionKey};
use crate::cores::recovery::serve::ANSWER_TIME_MAX;

impl<A: App> Core<A> {
    /// Begins to send a subscriber the part of the channel's past that it wants. The connection has just been
    /// subscribed, or was subscribed before: then the stream behind the answer begins anew.
    pub(in crate::cores) fn recover(&mut self, id: ConnectionId, name: &[u8], token: &[u8], wanted: Wanted) {
        let Some(channel) = self.delivery.number_of(name) else {
            return;
        };
        let place = SubscriptionKey {
            connection: id.index(),
            channel,
        };
        self.forget_withheld(id, name);
        let gap = match wanted {
            Wanted::After(_) | Wanted::Last(_) | Wanted::Since(_) | Wanted::LastValue | Wanted::Retained => {
                if !self.connections.recoveries.has(place) {
                    self.keeps_state = true;
                    self.connections.forget_conflated(id, channel);
                    let deadline = self.time.now().uptime + ANSWER_TIME_MAX;
                    let owner = self.history_owner(name);
                    self.connections
                        .recoveries
                        .begin(place, owner, deadline, wanted, token);
                    return;
                }
                Some(Gap::InProgress)
            }
            Wanted::OtherEpoch => Some(Gap::OtherEpoch),
            Wanted::Forbidden => Some(Gap::NotAllowed),
            // A client that still gets older publications is not live from any position yet.
            Wanted::Position => self.connections.recoveries.has(place).then_some(Gap::InProgress),
        };
        // The client assumes that it has everything up to the position, so the publications that wait behind
        // its outbox come first.
        self.connections.end_conflation(id, true);
        let live_from = self.delivery.next_for(place.connection, channel);
        self.answer_recovery(id, token, wanted, &self.told(gap, live_from, 0));
    }

    /// The core that owns a channel.
    fn history_owner(&self, name: &[u8]) -> OwnerOf {
        let (owner, _) = self.delivery.owner(name);
        OwnerOf {
            owner,
            owners: self.delivery.core_count(),
        }
    }

    /// A subscription ends. If its client still waits for the answer, it gets the answer now.
    pub(in crate::cores) fn abandon_recovery(&mut self, id: ConnectionId, name: &[u8]) {
        let Some(channel) = self.delivery.number_of(name) else {
            return;
        };
        let place = SubscriptionKey {
            connection: id.index(),
            channel,
        };
        let Some(ended) = self.connections.recoveries.end(place) else {
            return;
        };
        self.connections.note_held(place.connection);
        self.connections.tell_recoveries();
        match ended.progress {
            Progress::Unanswered { wanted, token } => {
                let told = self.told(Some(Gap::Unsubscribed), self.delivery.appended(), 0);
                self.answer_recovery(id, &token, wanted, &told);
            }
            Progress::Answered { .. } => {}
        }
    }

    /// The answer for a client whose subscription is live from a place.
    pub(super) fn told(&self, gap: Option<Gap>, live_from: Sequence, publications: usize) -> Recovered {
        Recovered {
            gap,
            position: self.delivery.numbering().position_before(live_from),
            publications,
        }
    }

    /// Answers a subscriber, and counts how its recovery went.
    pub(super) fn answer_recovery(
        &mut self,
        id: ConnectionId,
        token: &[u8],
        wanted: Wanted,
        told: &Recovered,
    ) {
        self.metrics.recoveries[RecoveryOutcome::of(wanted, told.gap).index()].add(1);
        let Some(Phase::Open(open)) = self.connections.get(id).map(|connection| &connection.phase) else {
            return;
        };
        let mut answer = Vec::new();
        open.session
            .recovered(token, wanted.is_asked().then_some(told), &mut answer);
        self.connections.send_texts(id, std::iter::once(&answer[..]));
    }
}
