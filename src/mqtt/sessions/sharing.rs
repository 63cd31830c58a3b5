//! Sessions as members of the groups of shared subscriptions (`mqtt/shares.rs`).

use super::sending::Offered;
use super::{Content, Offer, SessionRef, Sessions};
use crate::broker::SubscriptionLimits;
use crate::mqtt::Qos;
use crate::mqtt::shares::{FilterChange, Handed, JoinOutcome, Membership, ShareMessage};
use crate::mqtt::subscriptions::{Options, Subscriber, UnsubscribeOutcome};
use crate::mqtt::topic::Filter;

impl Sessions {
    /// A session subscribes to `text`, which is `$share/GROUP/FILTER`. `wait` is the number of the SUBSCRIBE packet
    /// ([`Shares::next_wait`](crate::mqtt::shares::Shares::next_wait)).
    pub fn join_group(
        &mut self,
        session: SessionRef,
        text: &str,
        options: Options,
        limits: SubscriptionLimits,
        wait: u64,
    ) -> JoinOutcome {
        let outcome = self.shares.join(session, text, options, limits, wait);
        self.note_filter(session, text);
        self.follow_groups();
        outcome
    }

    /// A session subscribes to `text`, which is `$share/GROUP/$rpc/PROCEDURES`, as a service.
    pub fn serve(
        &mut self,
        session: SessionRef,
        text: &str,
        membership: Membership,
        limits: SubscriptionLimits,
    ) -> JoinOutcome {
        let outcome = self.shares.serve(session, text, membership, limits);
        self.note_filter(session, text);
        outcome
    }

    /// A session unsubscribes from `text`.
    pub fn leave_group(&mut self, session: SessionRef, text: &str) -> UnsubscribeOutcome {
        let outcome = self.shares.leave(session, text);
        self.note_filter(session, text);
        self.follow_groups();
        outcome
    }

    /// Takes messages of another core about groups and their members.
    pub fn receive(&mut self, from: usize, messages: Vec<ShareMessage>) {
        self.shares.receive(from, messages);
        self.follow_groups();
    }

    /// A core has stopped, and its sessions with it.
    pub fn note_stopped(&mut self, core: usize) {
        self.shares.note_stopped(core);
        self.follow_groups();
    }

    /// Offers a publication that a group has given to a session, as [`Sessions::offer`] does, and lets `send` send it with
    /// this packet identifier if it is sent now. If it is dropped, the group is told.
    pub fn offer_handed(
        &mut self,
        handed: Handed,
        has_room: bool,
        send: impl FnOnce(u16, &Content<'_>),
    ) -> Offer {
        let Handed {
            tag,
            outbound,
            publication,
        } = handed;
        let offered = Offered::Handed { tag, publication };
        let (offer, kept) = self.offer_as(tag.session, outbound, offered, has_room);
        match (offer, kept) {
            (Offer::Send { packet_id }, Some(kept)) => send(packet_id, &self.kept.get(kept).0),
            (Offer::Dropped, _) => self.shares.settle(tag),
            (Offer::Send { .. } | Offer::Waits, _) => {}
        }
        offer
    }

    /// Tells groups which of their publications sessions have acknowledged, dropped, or not got at their end.
    #[inline]
    pub fn tell_groups(&mut self) {
        if self.kept.has_results_for_groups() || self.shares.has_changes() {
            self.tell_groups_all();
        }
    }

    #[inline(never)]
    fn tell_groups_all(&mut self) {
        while let Some(tag) = self.kept.next_settled() {
            self.shares.settle(tag);
        }
        for (tag, publication) in self.kept.take_given_back() {
            self.shares.give_back(tag, publication);
        }
        self.follow_groups();
    }

    /// Subscribes the groups of this core to their filters.
    pub(super) fn follow_groups(&mut self) {
        while let Some(change) = self.shares.next_change() {
            match change {
                FilterChange::Added(group, text) => {
                    if let Ok(Filter::Shared { filter, .. }) = Filter::parse(&text) {
                        let group = Subscriber::Group(group);
                        self.subscriptions
                            .subscribe(group, filter, OPTIONS_OF_GROUPS, NO_LIMITS);
                    }
                }
                FilterChange::Removed(group) => {
                    self.subscriptions.end(Subscriber::Group(group), usize::MAX);
                }
            }
        }
    }
}

/// Each member has options of its own.
const OPTIONS_OF_GROUPS: Options = Options {
    qos: Qos::ExactlyOnce,
    no_local: false,
    retain_as_published: true,
    id: 0,
};
/// A group has one filter, and its members count it.
pub(super) const NO_LIMITS: SubscriptionLimits = SubscriptionLimits {
    channels_max: u32::MAX,
    names_bytes_max: u32::MAX,
};

#[cfg(test)]
mod tests;
