//! Adds the counts of sessions to the metrics: limits, heartbeats, rules.
//!
//! Limits: a difference between the rules and the shadow rules is logged at most once in `LOG_EVERY`.

use tracing::debug;

use crate::app::App;
use crate::auth::rules::RuleVerdict;
use crate::metrics::counter::Counter;
use crate::session::RuleHits;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;

impl<A: App> Core<A> {
    /// Counts the limits that a session has met, and its heartbeats.
    #[inline]
    pub(in crate::cores) fn count_hits(&mut self, id: ConnectionId) {
        if self.resources.scratch.common.has_noted() {
            self.count_noted(id);
        }
    }

    #[cold]
    fn count_noted(&mut self, id: ConnectionId) {
        let noted = self.resources.scratch.common.take_noted();
        self.intake.use_share(noted.packets_of_arrays);
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(meter) = &mut connection.meter
        {
            meter.count_heartbeats(u64::from(noted.heartbeats));
            // The array itself has been counted as a message.
            let packets = noted.packets_of_arrays;
            meter.charge_messages(packets, &self.measures, self.time.now().uptime);
        }
        if noted.hits {
            let hits = self.resources.scratch.common.take_hits();
            for (counter, &count) in self.metrics.limit_hits.iter().zip(hits.counts()) {
                counter.add(u64::from(count));
            }
        }
        if noted.mqtt {
            let counts = self.resources.scratch.common.take_mqtt_counts();
            self.metrics
                .mqtt_publications_refused
                .add(u64::from(counts.publications_refused));
            self.metrics
                .rules_kick_outs
                .add(u64::from(counts.filters_dropped));
        }
        if noted.rules {
            self.count_rule_hits();
        }
        if noted.refusals {
            self.audit_refusals(id);
        }
    }

    /// Counts the actions that the rules have refused, and those on which the shadow rules differ.
    fn count_rule_hits(&mut self) {
        let hits = self.resources.scratch.common.take_rule_hits();
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

    /// Logs, at most once a second, that the shadow rules decide differently: the action and the rules, but
    /// no data of a client.
    fn log_difference(&mut self, hits: &RuleHits) {
        let Some((action, decided)) = hits.difference else {
            return;
        };
        let now = self.time.now().uptime;
        if !self.operations.may_log_difference(now, now + LOG_EVERY) {
            return;
        }
        debug!(
            "rules and shadow_rules differ about {}. rules: {}; shadow_rules: {}. ringcast_rules_would_deny_total and \
             ringcast_rules_would_allow_total count such differences",
            action.word(),
            described(decided.verdict),
            described(decided.shadow)
        );
    }
}

fn described(verdict: RuleVerdict) -> String {
    let word = if verdict.allowed { "allowed" } else { "denied" };
    match verdict.rule {
        Some(rule) => format!("{word} by number {rule}"),
        None if verdict.allowed => format!("{word}, without rules"),
        None => format!("{word}, no rule matches"),
    }
}

/// A flood of differences writes one line in this time.
const LOG_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
