//! The buffers that a core has once for all of its sessions and lends to the one that is running, and counts
//! of events until the core adds them to its metrics.

use std::sync::Arc;

use super::environment::Asked;
use super::refusals::Refusals;
use super::rule_hits::RuleHits;
use crate::app::{self, LateAnswerSender, Peer};
use crate::auth::rules::{Decided, RecentDecisions};
use crate::config::rules::Action;
use crate::decision::Limit;
use crate::policy::channels::RecentChannels;
use crate::services::Access;

/// The buffers and counts of one core.
#[derive(Default)]
pub struct Scratch {
    /// The buffers for the application's answers and orders.
    pub(crate) app: app::Scratch,
    /// Recent decisions of the rules about clients without claims.
    pub(crate) recent: RecentDecisions,
    /// The policies of the channels that clients have published to lately.
    pub(crate) channels: RecentChannels,
    /// The services, and the orders that sessions have for them.
    pub(crate) services: Access,
    /// Whether a password may lie in the bytes that were received.
    has_credentials: bool,
    /// Checks of tokens for the connection whose turn it is.
    verifications: u32,
    /// Checks of tokens in earlier turns, for a message whose rest is handled now.
    verified_before: u32,
    noted: EventCounts,
    hits: Hits,
    rule_hits: RuleHits,
    refusals: Refusals,
    mqtt_counts: MqttCounts,
}

/// Events that sessions of MQTT could not tell their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MqttCounts {
    /// Publications that were refused, for whatever reason.
    pub publications_refused: u32,
    /// Filters that were dropped, since the rules do not allow them any more.
    pub filters_dropped: u32,
}

/// Counts of the events in sessions since the core last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Packets of arrays. A rate counts each of them like a message.
    pub packets_of_arrays: u64,
    /// Pings sent and pongs received. They do not keep a connection from being idle.
    pub heartbeats: u32,
    /// Limits were met: `Scratch::take_hits`.
    pub hits: bool,
    /// Rules have refused something, or other rules would: `Scratch::take_rule_hits`.
    pub rules: bool,
    /// Tokens or actions were refused: `Scratch::take_refusals`.
    pub refusals: bool,
    /// MQTT publications were refused, or filters dropped: `Scratch::take_mqtt_counts`.
    pub mqtt: bool,
}

/// How often each limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits([u32; Limit::COUNT]);

impl Hits {
    /// How often `limit` was met.
    pub fn of(&self, limit: Limit) -> u32 {
        self.0[limit.index()]
    }

    /// The counts of all limits, by [`Limit::index`].
    pub fn counts(&self) -> &[u32; Limit::COUNT] {
        &self.0
    }
}

impl Default for Hits {
    fn default() -> Hits {
        Hits([0; Limit::COUNT])
    }
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Empty buffers of a core that gets late answers through `sender` and lets each connection have
    /// `timers_per_connection_max` timers.
    pub(crate) fn of_core(sender: Arc<dyn LateAnswerSender>, timers_per_connection_max: u32) -> Scratch {
        Scratch {
            app: app::Scratch::of_core(sender, timers_per_connection_max),
            ..Scratch::default()
        }
    }

    /// A client, in the form in which the application is asked about it.
    #[inline]
    pub(super) fn peer<'a>(&'a mut self, client: Asked<'a>) -> Peer<'a> {
        Peer::new(client.id, client.claims, client.token_expired, &mut self.app)
    }

    /// Notes that a password may lie in the bytes that were received.
    pub(crate) fn note_credentials(&mut self) {
        self.has_credentials = true;
    }

    /// Whether a password may lie in the bytes that were received since the last call of this.
    #[inline]
    pub(crate) fn take_credentials_note(&mut self) -> bool {
        std::mem::take(&mut self.has_credentials)
    }

    /// Begins to count checks of tokens anew, for the turn of another connection.
    pub(crate) fn begin_verifications(&mut self) {
        self.verifications = 0;
    }

    /// Counts a check of a token. Returns [`Scratch::verified`].
    pub(crate) fn count_verification(&mut self) -> u32 {
        self.verifications += 1;
        self.verified()
    }

    /// Says how many tokens of the message that comes now were checked in earlier turns.
    pub(crate) fn set_verified_before(&mut self, count: u32) {
        self.verified_before = count;
    }

    /// How many tokens were checked for this connection in this turn.
    #[inline]
    pub(crate) fn verifications(&self) -> u32 {
        self.verifications
    }

    /// How many tokens were checked for this connection in this turn, and for the same message in earlier
    /// turns.
    pub(crate) fn verified(&self) -> u32 {
        self.verifications + self.verified_before
    }

    /// Whether there is anything to take by [`Scratch::take_noted`].
    #[inline]
    pub(crate) fn has_noted(&self) -> bool {
        self.noted != EventCounts::default() || self.app.has_refused()
    }

    /// The events since the last call of this.
    pub(crate) fn take_noted(&mut self) -> EventCounts {
        self.note_refused();
        std::mem::take(&mut self.noted)
    }

    /// The limits met since the last call of this.
    pub fn take_hits(&mut self) -> Hits {
        self.note_refused();
        std::mem::take(&mut self.hits)
    }

    /// The refusals by rules since the last call of this.
    pub(crate) fn take_rule_hits(&mut self) -> RuleHits {
        std::mem::take(&mut self.rule_hits)
    }

    /// The refusals since the last call of this.
    pub(crate) fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }

    /// A limit was met.
    #[cold]
    pub(crate) fn hit(&mut self, limit: Limit) {
        self.add_hits(limit, 1);
    }

    /// Adds the limits that the application itself meets when it asks for a call or for a timer.
    fn note_refused(&mut self) {
        let refused = self.app.take_refused();
        for (limit, count) in [
            (Limit::CallsPerConnection, refused.calls),
            (Limit::Timers, refused.timers),
        ] {
            if count > 0 {
                self.add_hits(limit, count);
            }
        }
    }

    fn add_hits(&mut self, limit: Limit, count: u32) {
        self.noted.hits = true;
        let hits = &mut self.hits.0[limit.index()];
        *hits = hits.saturating_add(count);
    }

    /// A publication of an MQTT client was refused.
    #[cold]
    pub(crate) fn count_publication_refused(&mut self) {
        self.noted.mqtt = true;
        let count = &mut self.mqtt_counts.publications_refused;
        *count = count.saturating_add(1);
    }

    /// A filter of an MQTT client was dropped.
    #[cold]
    pub(crate) fn count_filter_dropped(&mut self) {
        self.noted.mqtt = true;
        let count = &mut self.mqtt_counts.filters_dropped;
        *count = count.saturating_add(1);
    }

    /// The counts of MQTT since the last call of this.
    pub(crate) fn take_mqtt_counts(&mut self) -> MqttCounts {
        std::mem::take(&mut self.mqtt_counts)
    }

    #[inline]
    pub(crate) fn count_decided(&mut self, action: Action, name: &[u8], decided: Decided) {
        if !decided.verdict.allowed || !decided.shadow.allowed {
            self.count_refusal(action, name, decided);
        }
    }

    #[cold]
    fn count_refusal(&mut self, action: Action, name: &[u8], decided: Decided) {
        self.noted.rules = true;
        self.rule_hits.count(action, decided);
        if !decided.verdict.allowed {
            self.noted.refusals = true;
            self.refusals
                .note_action("rules", action.word(), decided.verdict.rule, name);
        }
    }

    /// A token that came with `by` was refused.
    #[cold]
    pub(crate) fn count_token_refused(&mut self, reason: &'static str, by: &'static str) {
        self.noted.refusals = true;
        self.refusals.note_token(reason, by);
    }

    /// A client that is not authenticated was refused an action on the channel or event `name`.
    #[cold]
    pub(crate) fn count_anonymous_refused(&mut self, action: &'static str, name: &str) {
        self.hit(Limit::Anonymous);
        self.noted.refusals = true;
        self.refusals
            .note_action("anonymous", action, None, name.as_bytes());
    }

    /// A ping was sent, or a pong received.
    pub(crate) fn count_heartbeat(&mut self) {
        self.noted.heartbeats = self.noted.heartbeats.saturating_add(1);
    }

    /// A packet of an array is handled.
    pub(crate) fn count_packet_of_array(&mut self) {
        self.noted.packets_of_arrays += 1;
    }

    /// Counts `count` parts of a packet as if each were a packet of an array.
    pub(crate) fn count_packets_of_array(&mut self, count: usize) {
        self.noted.packets_of_arrays += count as u64;
    }

    /// How many packets of arrays were handled since the last [`Scratch::take_noted`].
    #[inline]
    pub(crate) fn packets_of_arrays(&self) -> u64 {
        self.noted.packets_of_arrays
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its contents are clients' data.
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}
