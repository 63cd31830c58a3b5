//! A new policy in a core. If its rules differ from the former ones, the session of each connection checks
//! the client's subscriptions again: some connections in each turn.
//!
//! `input/subscriptions.rs` ends the subscriptions that the rules no longer allow.
//!
//! Limits: `EFFORT_PER_TURN_MAX`.

use std::sync::Arc;

use crate::app::App;
use crate::mqtt::subscriptions::Subscriber;
use crate::policy::Policy;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::unsubscribing::CHANNELS_PER_TURN_MAX;

impl<A: App> Core<A> {
    /// Adopts this policy.
    pub(in crate::cores) fn adopt_policy(&mut self, policy: Arc<Policy>) {
        let has_other_rules = policy.rules.id() != self.resources.policy.rules.id();
        if policy.channels.version() != self.resources.policy.channels.version() {
            self.adopt_channels(&policy.channels);
            self.presence
                .memberships
                .begin_review(policy.channels.has_presence());
            if policy.channels.has_presence() || !self.presence.mqtt.is_empty() {
                self.presence.mqtt.begin_review();
            }
            self.presence.due = self.time.now().uptime;
        }
        self.adopt_services(&policy);
        if policy.webhooks.version() != self.resources.policy.webhooks.version() {
            self.adopt_webhooks(&policy.webhooks);
        }
        self.resources.policy = policy;
        if has_other_rules && self.resources.policy.rules.enforces() {
            self.operations.begin_check();
        }
    }

    /// How many filters the MQTT session of a connection has.
    fn mqtt_filters_of(&mut self, id: ConnectionId) -> usize {
        let session = self.session(id).and_then(|session| session.mqtt_session());
        match (session, &self.connections.mqtt) {
            (Some(session), Some(sessions)) => {
                let subscriber = Subscriber::Session(session.number);
                sessions.subscriptions.count_of(subscriber) + sessions.shares.count_of(session)
            }
            (_, _) => 0,
        }
    }

    /// Tells the sessions of some more connections that the rules have changed.
    pub(in crate::cores) fn check_some(&mut self) {
        let mut effort = effort_per_turn_max();
        while effort > 0
            && let Some(index) = self.operations.next_unchecked(self.connections.places())
        {
            let Some(id) = self.connections.id_at(index) else {
                effort -= 1;
                continue;
            };
            let subscriptions = self.delivery.subscriptions().count_of(id.index()) + self.mqtt_filters_of(id);
            let looks = subscriptions.min(CHANNELS_PER_TURN_MAX);
            effort = effort.saturating_sub(EFFORT_OF_A_CONNECTION + looks);
            self.decide(id, |session, environment, decisions| {
                session.rules_changed(environment, decisions);
                Ok(())
            });
        }
    }
}

/// [`EFFORT_PER_TURN_MAX`], or the limit of a simulation.
fn effort_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.places_per_turn_max.saturating_mul(EFFORT_OF_A_CONNECTION);
    }
    EFFORT_PER_TURN_MAX
}

/// Subscriptions that one turn checks after a reload: they take a millisecond.
const EFFORT_PER_TURN_MAX: usize = 4096;
/// To visit a connection costs about as much as to check this many subscriptions.
const EFFORT_OF_A_CONNECTION: usize = 16;
