//! A new policy in a core: when the rules have been replaced, all connections are gone through, some in each turn.
//!
//! Limits: `EFFORT_PER_TURN_MAX`.

use std::sync::Arc;

use crate::app::App;
use crate::policy::Policy;

use crate::cores::core::Core;
use crate::cores::input::subscriptions::CHANNELS_PER_TURN_MAX;

impl<A: App> Core<A> {
    /// Decides by these from now on.
    pub(in crate::cores) fn adopt_policy(&mut self, policy: Arc<Policy>) {
        let has_other_rules = policy.rules.id() != self.lent.policy.rules.id();
        self.lent.policy = policy;
        if has_other_rules && self.lent.policy.rules.enforces() {
            self.operations.begin_check();
        }
    }

    /// Has some more connections keep to the rules that have come.
    pub(in crate::cores) fn check_some(&mut self) {
        let mut effort = effort_per_turn_max();
        while effort > 0
            && let Some(index) = self.operations.next_unchecked(self.connections.places())
        {
            let Some(id) = self.connections.id_at(index) else {
                effort -= 1;
                continue;
            };
            let subscriptions = self.delivery.subscriptions().count_of(id.index());
            let looks = subscriptions.min(CHANNELS_PER_TURN_MAX);
            effort = effort.saturating_sub(EFFORT_OF_A_CONNECTION + looks);
            self.decide(id, |session, environment, decisions| {
                session.look_again(environment, decisions);
                Ok(())
            });
        }
    }
}

/// [`EFFORT_PER_TURN_MAX`], or what a simulation has in its place.
fn effort_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.places_per_turn_max.saturating_mul(EFFORT_OF_A_CONNECTION);
    }
    EFFORT_PER_TURN_MAX
}

/// After a reload, what is looked at in one turn, in subscriptions: a millisecond.
const EFFORT_PER_TURN_MAX: usize = 4096;
/// To look at a connection without any costs about as much as so many.
const EFFORT_OF_A_CONNECTION: usize = 16;
