//! What rules ask of a core: counting what they refuse, ending subscriptions that they no longer allow, and going through
//! all connections when they are replaced.
//!
//! Limits: `EFFORT_PER_TURN_MAX`.

use std::sync::Arc;

use tracing::debug;

use crate::app::App;
use crate::auth::rules::RuleVerdict;
use crate::clock::Uptime;
use crate::decision::Decisions;
use crate::metrics::counter::Counter;
use crate::policy::Policy;
use crate::session::RuleHits;
use crate::websocket::frame::OpCode;

use crate::cores::Core;
use crate::cores::input::carry_out::CHANNELS_PER_TURN_MAX;
use crate::cores::lifecycle::connection::{ConnectionId, Phase, Work};

/// What a core keeps for it.
#[derive(Debug, Default)]
pub(in crate::cores) struct Watch {
    /// The next place to look at since the rules are others. Connections that come in meanwhile are let in by the new ones.
    unchecked: Option<u32>,
    /// When a difference to the shadow rules may be logged again.
    silent_until: Option<Uptime>,
}

impl Watch {
    /// Whether there is something left to do.
    pub(in crate::cores) fn has_unchecked(&self) -> bool {
        self.unchecked.is_some()
    }
}

impl<A: App> Core<A> {
    /// Decides by these from now on.
    pub(in crate::cores) fn adopt_policy(&mut self, policy: Arc<Policy>) {
        let has_other_rules = policy.rules.id() != self.lent.policy.rules.id();
        self.lent.policy = policy;
        if has_other_rules && self.lent.policy.rules.enforces() {
            self.rules.unchecked = Some(0);
        }
    }

    /// Has some more connections keep to the rules that have come.
    pub(in crate::cores) fn check_some(&mut self) {
        let mut effort = effort_per_turn_max();
        while effort > 0
            && let Some(index) = self.rules.unchecked
        {
            self.rules.unchecked = (index < self.connections.places()).then_some(index + 1);
            let Some(id) = self.connections.id_at(index) else {
                effort -= 1;
                continue;
            };
            let subscriptions = self.broker.subscriptions.count_of(id.index());
            let looks = subscriptions.min(CHANNELS_PER_TURN_MAX);
            effort = effort.saturating_sub(EFFORT_OF_A_CONNECTION + looks);
            let Some(connection) = self.connections.get_mut(id) else {
                continue;
            };
            let Phase::Open(open) = &mut connection.phase else {
                continue;
            };
            let mut decisions = std::mem::take(&mut self.decisions);
            decisions.clear();
            let mut env = self.lent.environment(self.now, id);
            open.session.look_again(&mut env, &mut decisions);
            let sooner = self
                .wheel
                .is_sooner(open.session.next_deadline(&self.lent.settings), connection.armed);
            self.count_hits(id);
            self.carry_out(id, Work::new(decisions, Ok(())));
            if sooner {
                self.arm(id);
            }
        }
    }

    /// Ends those of some of a connection's subscriptions that it may no longer have; returns where to go on, if there are
    /// more.
    pub(in crate::cores) fn check_subscriptions(
        &mut self,
        id: ConnectionId,
        from: u32,
        decisions: &mut Decisions,
    ) -> Option<u32> {
        let (names, next) = self.some_channels_of(id, from);
        // Whoever makes the server look again and again has used up his share of the turn.
        self.use_share(names.len() as u64 / SUBSCRIPTIONS_PER_MESSAGE);
        let policy = Arc::clone(&self.lent.policy);
        for name in names {
            // Sending may have ended it.
            let session = self.session(id)?;
            if session.may_keep(&name, &policy.rules) {
                continue;
            }
            let message = session.forbidden(&name, decisions);
            self.remove_subscription(id, &name);
            self.metrics.rules_kick_outs.add(1);
            self.send(id, OpCode::Text, decisions.bytes(message));
        }
        next
    }

    /// Counts what rules have refused, and would refuse.
    pub(in crate::cores) fn count_rule_hits(&mut self) {
        let hits = self.lent.scratch.common.take_rule_hits();
        let add = |counters: &[Counter], counts: &[u64]| {
            for (counter, count) in counters.iter().zip(counts) {
                counter.add(*count);
            }
        };
        add(&self.metrics.rules_denied[..], &hits.denied);
        add(&self.metrics.rules_would_deny[..], &hits.would_deny);
        add(&self.metrics.rules_would_allow[..], &hits.would_allow);
        self.log_difference(&hits);
    }

    /// Tells of shadow rules that decide otherwise, at most once a second: which action and which rules, nothing that a
    /// client has sent.
    fn log_difference(&mut self, hits: &RuleHits) {
        let Some((action, decided)) = hits.difference else {
            return;
        };
        let now = self.now.uptime;
        if self.rules.silent_until.is_some_and(|until| now < until) {
            return;
        }
        self.rules.silent_until = Some(now + LOG_EVERY);
        debug!(
            "{}: {}; by shadow_rules {}",
            action.word(),
            told(decided.verdict),
            told(decided.shadow)
        );
    }
}

fn told(verdict: RuleVerdict) -> String {
    let word = if verdict.allowed { "allowed" } else { "denied" };
    match verdict.rule {
        Some(rule) => format!("{word} by number {rule}"),
        None if verdict.allowed => format!("{word}, without rules"),
        None => format!("{word}, no rule matches"),
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
/// To look at so many costs about as much as a message.
const SUBSCRIPTIONS_PER_MESSAGE: u64 = 16;
/// A flood of differences is one line in this time.
const LOG_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
