//! The values that a core lends a session for one call.

use std::sync::Arc;

use super::{CommonSettings, Scratch};
use crate::app::{AllowedPublish, App, Peer, Piece, Refusal, SessionId};
use crate::auth::rules::Rules;
use crate::auth::{Claims, Issued};
use crate::clock::Now;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Limit};
use crate::hooks::{self, Hook, Hooks, Subject};
use crate::policy::Policy;
use crate::services::Question;

/// The values that a core lends a session of any protocol for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// The time at which this turn of the core began.
    pub now: Now,
    /// Where the core finds this session when an answer comes later.
    pub address: usize,
    /// The settings of all sessions.
    pub settings: &'a CommonSettings,
    /// The keys, rules and users that decide which clients are admitted.
    pub policy: &'a Policy,
    /// The application's value on this core.
    pub app: &'a mut A,
    /// The buffers and counters of this core.
    pub scratch: &'a mut Scratch,
    /// How many packets of one message a session handles in one call. The rest waits for another call.
    pub packets_max: u64,
}

/// The client that a question to the application is about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The id of its session.
    pub id: SessionId,
    /// The claims of its token.
    pub claims: Option<&'a Claims>,
    /// When its token expired, if the session noticed it with this packet.
    pub token_expired: Option<f64>,
}

impl<A: App> Environment<'_, A> {
    /// Signs a token for the client of this session, as the application has ordered.
    ///
    /// # Errors
    /// The token cannot be signed: the connection is to be closed.
    pub(crate) fn issue(&self, claims: Piece, expires_in: Option<u64>) -> Result<Issued, CloseReason> {
        let expires_in = expires_in.unwrap_or(self.settings.auth_default_expiry.as_secs());
        let claims = self.scratch.app.piece(claims);
        let issued = self
            .policy
            .tokens
            .issue(claims, Some(expires_in), self.now.unix_ms);
        issued.map_err(|_| CloseReason::SigningFailed)
    }

    /// Asks for a decision about `subject`: the hook for this subject, or else the application. If the packet
    /// is handled for the second time, takes the decision that has come. `question` counts the questions
    /// about one packet from 0. `allowed` turns a decision that has come into the answer.
    #[inline]
    pub(crate) fn ask<T>(
        &mut self,
        question: usize,
        client: Asked<'_>,
        subject: Subject<'_>,
        ask: impl FnOnce(&mut A, &mut Peer<'_>) -> Result<T, Refusal>,
        allowed: impl FnOnce(AllowedPublish) -> T,
    ) -> Result<T, Refusal> {
        if let Some(decided) = self.decided_elsewhere(question, client, subject) {
            return decided.map(allowed);
        }
        ask(self.app, &mut self.scratch.peer(client))
    }

    /// The decision of a hook, or the decision that has come for a packet that is handled for the second
    /// time; `None` if there is neither.
    #[inline]
    pub(crate) fn decided_elsewhere(
        &mut self,
        question: usize,
        client: Asked<'_>,
        subject: Subject<'_>,
    ) -> Option<Result<AllowedPublish, Refusal>> {
        if self.scratch.app.again.is_some() {
            let Asked {
                id,
                claims,
                token_expired,
            } = client;
            let scratch = &mut self.scratch.app;
            let decided = scratch.decided_before(question, id, claims, token_expired);
            if decided.is_some() {
                return decided;
            }
        }
        let hooks = self.policy.hooks.as_ref()?;
        self.ask_hook(hooks, &subject, client)
    }

    /// Tells the hook for disconnects, if there is one, that a client has disconnected.
    #[inline]
    pub(crate) fn tell_disconnected(&mut self, id: SessionId, claims: Option<&Claims>, reason: CloseReason) {
        if let Some(hooks) = &self.policy.hooks {
            let client = self.scratch.app.client(id, claims, self.address);
            if !hooks.tell_disconnected(&client, reason) {
                self.scratch.hit(Limit::HookQuestions);
            }
        }
    }

    /// Puts a question to the hook that decides it; `None` if no hook does.
    #[cold]
    fn ask_hook(
        &mut self,
        hooks: &Hooks,
        subject: &Subject<'_>,
        client: Asked<'_>,
    ) -> Option<Result<AllowedPublish, Refusal>> {
        let hook = hooks.find(subject)?;
        if let Some(service) = hook.service() {
            // A service that had to wait for a decision about itself could never give it.
            let is_service = may_serve(&self.policy.rules, service, client.claims);
            return (!is_service).then(|| self.ask_service(hook, service, subject, client));
        }
        Some(match hooks.ask(hook, subject, &mut self.scratch.peer(client)) {
            hooks::Asked::Deferred(refusal) => Err(refusal),
            hooks::Asked::Decided(decision) => {
                self.scratch.hit(Limit::HookQuestions);
                decision
            }
        })
    }

    fn ask_service(
        &mut self,
        hook: &Arc<Hook>,
        service: &str,
        subject: &Subject<'_>,
        client: Asked<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        let asked = Hooks::question_to_service(hook, subject, &mut self.scratch.peer(client));
        let Some((refusal, data, reply)) = asked else {
            self.scratch.hit(Limit::HookQuestions);
            return Hooks::unasked(hook);
        };
        let question = Question {
            connection: self.address,
            service: service.as_bytes(),
            timeout: hook.timeout(),
            reply,
        };
        self.scratch.ask_service(question, &data, client);
        Err(refusal)
    }
}

/// Whether the rules allow a client to answer for a service.
fn may_serve(rules: &Rules, service: &str, claims: Option<&Claims>) -> bool {
    if !rules.name_serve() {
        return false;
    }
    let mut claims = claims.cloned();
    let facts = claims.as_mut().map(|claims| &*claims.facts(rules));
    let decided = rules.decide(Action::Serve, service.as_bytes(), facts);
    decided.verdict.allowed
}
