//! The actions that the rules allow a client. They are checked before the application is asked, for each
//! subscribe, publish, call and one-way event.
//!
//! Subscriptions outlive the claims by which they were made. So when a message, a timer or a reload finds
//! that the client's claims or the rules have changed, the session orders the core to check the client's
//! subscriptions again. If rules are in force, an expired token is noticed at the end of any message and at
//! each ping. Otherwise a client that answers pings with anything but pongs would keep it.
//!
//! Wire reference, sections 8, 10 and 14.

use super::{Environment, Session, State};
use crate::app::App;
use crate::auth::rules::Rules;
use crate::config::rules::Action;
use crate::decision::{Decision, Decisions};
use crate::policy::Policy;
use crate::session::Asked;

impl Session {
    /// The client, for a question to the application.
    #[inline]
    pub(super) fn asked(&self, token_expired: Option<f64>) -> Asked<'_> {
        Asked {
            id: self.id,
            claims: self.claims.as_deref(),
            token_expired,
        }
    }

    /// Whether the client may do this. Counts refusals, and decisions on which the shadow rules differ.
    /// Allocates for the first question about new claims.
    #[inline]
    pub(super) fn may<A: App>(
        &mut self,
        action: Action,
        name: &[u8],
        env: &mut Environment<'_, '_, A>,
    ) -> bool {
        let rules = &*env.common.policy.rules;
        if rules.is_empty() {
            return true;
        }
        let decided = match &mut self.claims {
            Some(claims) => rules.decide_for(action, name, claims.facts(rules)),
            None => rules.decide_for_anonymous(action, name, &mut env.common.scratch.recent),
        };
        env.common.scratch.count_decided(action, name, decided);
        decided.verdict.allowed
    }

    /// Whether the client may keep a subscription.
    pub fn may_keep(&mut self, channel: &[u8], policy: &Policy) -> bool {
        let rules = &policy.rules;
        let (action, name) = match policy.channels.announced_on(channel) {
            Some(of) => (Action::Presence, of),
            None => (Action::Subscribe, channel),
        };
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        rules.decide(action, name, facts).verdict.allowed
    }

    /// Orders the subscriptions to be checked again if the client's claims or the rules have changed since
    /// the last check.
    #[inline(always)]
    pub(super) fn keep_to_rules<A: App>(&mut self, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
        if env.common.policy.rules.enforces() {
            self.keep_to(&env.common.policy.rules, env, decisions);
        }
    }

    /// The core has new rules. Orders the client's subscriptions to be checked, unless they were checked by
    /// these rules already.
    pub fn rules_changed<A: App>(&mut self, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
        let was_authenticated = self.claims.is_some();
        self.keep_to_rules(env, decisions);
        if !env.common.settings.allow_anonymous {
            // An expired token may have been found.
            self.watch(was_authenticated, env, decisions);
        }
    }

    fn keep_to<A: App>(&mut self, rules: &Rules, env: &Environment<'_, '_, A>, decisions: &mut Decisions) {
        if !self.is_open() {
            return;
        }
        self.expire(env.common.now, decisions);
        let State::Open {
            subscribed,
            authenticated,
            rules: checked_by,
            ..
        } = &mut self.state
        else {
            return;
        };
        let is_same_client = match &mut self.claims {
            Some(claims) => std::mem::replace(&mut claims.facts(rules).subscriptions_checked, true),
            None => !*authenticated,
        };
        if is_same_client && *checked_by == rules.id() {
            return;
        }
        *authenticated = self.claims.is_some();
        *checked_by = rules.id();
        if *subscribed {
            decisions.push(Decision::CheckSubscriptions);
        }
    }
}
