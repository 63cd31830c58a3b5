//! The actions that the rules and the application allow the client. The rules are asked first.
//!
//! Filters outlive the claims and the rules by which they were granted. They are checked again when the
//! client resumes its session, and when the core has new rules: some in each turn. A filter that is no longer
//! allowed is dropped. A resuming client gets CONNACK when all of its filters have been checked, and nothing
//! is sent to it before. MQTT has no packet that reports a dropped filter, so the connection of a connected
//! client ends with it: the client connects again, and learns from SUBACK which filters it may have.
//! Publications that wait for a session under a filter that was dropped while the client resumes are dropped
//! too, unless the rules allow the client their topics.

use super::presence::room_of;
use super::{Denied, Refused, Session, call, refused, serve};
use crate::app::{AllowedPublishKind, App, Name, Piece};
use crate::auth::Revocation;
use crate::auth::rules::Decided;
use crate::config::rules::Action;
use crate::decision::{Decision, Decisions, Limit};
use crate::hooks::Subject;
use crate::mqtt::ReasonCode;
use crate::mqtt::environment::Environment;
use crate::mqtt::sessions::SessionRef;
use crate::mqtt::subscriptions::Subscriber;
use crate::mqtt::topic::Filter;
use crate::policy::Policy;
use crate::policy::channels::PRESENCE_PREFIX;
use crate::session::{self, Asked, MqttUse};

/// The outcome of a check of some filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedFilters {
    /// Whether some are not allowed: they are dropped.
    pub has_dropped: bool,
    /// The place at which to continue, if there are more.
    pub next: Option<u32>,
}

/// The outcome of one step of resuming a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Channels with presence that the client is a member of again.
    pub rooms: Vec<Box<str>>,
    /// The place at which to continue, if there is more.
    pub next: Option<u32>,
}

/// The payload that subscribers get of a publication.
#[derive(Clone, Copy, Debug)]
pub(super) enum AllowedPayload {
    /// The payload that the client has sent.
    AsSent,
    /// The payload of the application; `None` is empty.
    Rewritten(Option<Piece>),
}

impl AllowedPayload {
    /// Its bytes.
    #[inline]
    pub(super) fn bytes<'b, A: App>(self, sent: &'b [u8], env: &'b Environment<'_, '_, A>) -> &'b [u8] {
        match self {
            AllowedPayload::AsSent => sent,
            AllowedPayload::Rewritten(None) => &[],
            AllowedPayload::Rewritten(Some(piece)) => env.common.scratch.app.piece_bytes(piece),
        }
    }
}

impl Session {
    /// Whether the client may publish to a topic, and the payload that subscribers get. The caller has called
    /// [`Session::begin`]. `question` is the number of the question to the application about the packet.
    #[inline]
    pub(super) fn may_publish<A: App>(
        &mut self,
        question: usize,
        topic: &[u8],
        payload: &[u8],
        env: &mut Environment<'_, '_, A>,
    ) -> Result<AllowedPayload, Denied> {
        if topic.len() > env.common.settings.channel_name_bytes_max as usize {
            env.common.scratch.hit(Limit::ChannelNameBytes);
            return refused(
                ReasonCode::TopicNameInvalid,
                "the topic is longer than the server allows",
            );
        }
        if !env.common.settings.allow_client_publish {
            return refused(ReasonCode::NotAuthorized, "clients may not publish here");
        }
        if topic.first() == Some(&b'$') {
            check_reserved(topic, env.common.policy)?;
        }
        if !self.may(Action::Publish, topic, env) {
            return refused(
                ReasonCode::NotAuthorized,
                "the rules do not allow the publication",
            );
        }
        let asked = env.common.ask(
            question,
            self.asked(),
            Subject::PublishBytes { topic, payload },
            |app, peer| app.publish_bytes(Name::new(topic), payload, peer),
            |publication| publication,
        );
        match asked {
            Ok(allowed) => Ok(match allowed.kind(&env.common.scratch.app) {
                AllowedPublishKind::AsSent | AllowedPublishKind::Answered(_) => AllowedPayload::AsSent,
                AllowedPublishKind::Rewritten(piece) => AllowedPayload::Rewritten(piece),
            }),
            Err(refusal) => Err(Denied::by_application(
                &refusal,
                question,
                ReasonCode::NotAuthorized,
                "the application refuses the publication",
            )),
        }
    }

    /// The client, for a question to the application.
    #[inline]
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            id: self.id,
            claims: self.claims.as_deref(),
            token_expired: None,
        }
    }

    /// Whether the client may subscribe to a filter. Counts refusals.
    pub(super) fn may_subscribe<A: App>(&mut self, filter: &str, env: &mut Environment<'_, '_, A>) -> bool {
        if env.common.policy.rules.is_empty() {
            return true;
        }
        let (action, decided) = self.judge(filter, env.common.policy);
        env.common
            .scratch
            .count_decided(action, filter.as_bytes(), decided);
        decided.verdict.allowed
    }

    /// The core has new rules: decides to check the filters ([`Session::recheck_filters`]).
    pub fn rules_changed(&self, decisions: &mut Decisions) {
        if self.is_open() {
            decisions.push(Decision::CheckSubscriptions);
        }
    }

    /// Checks at most `max` filters of the session, from `from` on, and drops those that the rules do not
    /// allow. A caller begins with 0, and closes the connection if any were dropped.
    pub fn recheck_filters<A: App>(
        &mut self,
        from: u32,
        max: usize,
        env: &mut Environment<'_, '_, A>,
    ) -> CheckedFilters {
        match self.session_ref() {
            Some(session) if env.common.policy.rules.enforces() => {
                self.check_some(session, from, max, env, |_, _| {})
            }
            Some(_) | None => CheckedFilters {
                has_dropped: false,
                next: None,
            },
        }
    }

    /// Decides to go through the filters of the session that the client has resumed
    /// ([`Session::resume_some`]), if rules or presence make that necessary. The client is sent nothing
    /// before.
    pub(super) fn begin_resuming<A: App>(&self, env: &mut Environment<'_, '_, A>, decisions: &mut Decisions) {
        let policy = env.common.policy;
        if let Some(session) = self.session_ref()
            && (policy.rules.enforces() || policy.channels.has_presence())
        {
            env.sessions.begin_check(session);
            decisions.push(Decision::ResumeSession);
        }
    }

    /// The client has resumed its session. Goes through at most `max` of its filters, from `from` on: drops
    /// those that the rules do not allow, and finds the rooms of the others. If some were dropped, then goes
    /// through the publications that wait for the client, and drops those that the rules no longer allow it.
    /// A caller begins with 0.
    pub fn resume_some<A: App>(
        &mut self,
        from: u32,
        max: usize,
        env: &mut Environment<'_, '_, A>,
    ) -> Resumed {
        let mut resumed = Resumed {
            rooms: Vec::new(),
            next: None,
        };
        let Some(session) = self.session_ref() else {
            return resumed;
        };
        if from < WAITING_FROM {
            let had_dropped = from & HAS_DROPPED != 0;
            let checked = self.check_some(session, from & !HAS_DROPPED, max, env, |filter, env| {
                resumed.rooms.extend(room_of(filter, env));
            });
            let has_dropped = had_dropped || checked.has_dropped;
            resumed.next = match checked.next {
                Some(next) => Some(if has_dropped { next | HAS_DROPPED } else { next }),
                None => (has_dropped && env.sessions.outgoing_len(session).1 > 0).then_some(WAITING_FROM),
            };
        } else {
            let (policy, skipped) = (env.common.policy, (from - WAITING_FROM) as usize);
            let next = env.sessions.retain_some_waiting(session, skipped, max, |topic| {
                let topic = String::from_utf8_lossy(topic);
                self.judge(&topic, policy).1.verdict.allowed
            });
            let next = next.and_then(|skipped| u32::try_from(skipped).ok());
            resumed.next = next.and_then(|skipped| WAITING_FROM.checked_add(skipped));
        }
        if resumed.next.is_none() {
            env.sessions.accept(session, env.common.address);
        }
        resumed
    }

    /// Checks some filters, and drops those that the rules do not allow. Calls `keeps` with the others,
    /// except shared ones.
    fn check_some<A: App>(
        &mut self,
        session: SessionRef,
        from: u32,
        max: usize,
        env: &mut Environment<'_, '_, A>,
        mut keeps: impl FnMut(&str, &Environment<'_, '_, A>),
    ) -> CheckedFilters {
        let policy = env.common.policy;
        let mut checked = CheckedFilters {
            has_dropped: false,
            next: None,
        };
        if from >= SHARED_FROM {
            let mut at = from;
            let texts = env.sessions.shares.texts_of(session, from - SHARED_FROM, max);
            let is_last = texts.len() < max;
            for text in texts {
                let is_allowed = match (serve::procedures(&text), Filter::parse(&text)) {
                    (Some(procedures), _) => self.serves_on(procedures, &text, env),
                    (None, Ok(Filter::Shared { filter, .. })) => self.allows(filter, policy),
                    (None, Ok(Filter::Plain(_)) | Err(_)) => true,
                };
                if is_allowed {
                    at += 1;
                } else {
                    env.common.scratch.count_filter_dropped();
                    env.sessions.leave_group(session, &text);
                    self.stop_serving(&text, env);
                    self.tell_unsubscribed(&text, env);
                    checked.has_dropped = true;
                }
            }
            checked.next = (!is_last).then_some(at);
            return checked;
        }
        let subscriber = Subscriber::Session(session.number);
        let (filters, next) = env.sessions.subscriptions.some_filters_of(subscriber, from, max);
        for (filter, _) in filters {
            // A filter is text.
            let text = String::from_utf8_lossy(&filter);
            if self.allows(&text, policy) {
                keeps(&text, env);
            } else {
                env.common.scratch.count_filter_dropped();
                env.sessions.unsubscribe(session, &text);
                self.tell_unsubscribed(&text, env);
                checked.has_dropped = true;
            }
        }
        let has_shared = env.sessions.shares.count_of(session) > 0;
        checked.next = next.or_else(|| has_shared.then_some(SHARED_FROM));
        checked
    }

    /// Whether the rules allow a filter now; always true if there are none.
    fn allows(&mut self, filter: &str, policy: &Policy) -> bool {
        !policy.rules.enforces() || self.judge(filter, policy).1.verdict.allowed
    }

    /// Takes the client's claims away if `revocation` revokes them. Returns whether it has: then the
    /// connection is to be closed.
    pub fn revoke(&mut self, revocation: &Revocation) -> bool {
        self.claims
            .take_if(|claims| revocation.applies_to(claims))
            .is_some()
    }

    /// Applies the rules to a filter: `$presence/CHANNEL` needs the permission to ask who is in the channel.
    fn judge(&mut self, filter: &str, policy: &Policy) -> (Action, Decided) {
        let rules = &policy.rules;
        let members_of = filter
            .strip_prefix(PRESENCE_PREFIX)
            .filter(|_| policy.channels.has_presence());
        let (action, filter) = match members_of {
            Some(of) => (Action::Presence, of),
            None => (Action::Subscribe, filter),
        };
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        (action, rules.decide_filter(action, filter, facts))
    }

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
}

/// From this number on, a check has reached the shared subscriptions; lower numbers are those of filters.
const SHARED_FROM: u32 = 1 << 31;
/// From this number on, a check has reached the publications that wait.
const WAITING_FROM: u32 = SHARED_FROM | 1 << 30;
/// Marks a check that has dropped a filter and has not reached the shared subscriptions. Filters have lower
/// numbers.
const HAS_DROPPED: u32 = 1 << 29;

/// Topics that no client publishes to.
pub(super) fn check_reserved(topic: &[u8], policy: &Policy) -> Result<(), Refused> {
    if let Some(text) = session::reserved(topic, &policy.channels, MqttUse::WithoutRetained) {
        return refused(ReasonCode::NotAuthorized, text);
    }
    if topic.starts_with(b"$share/") {
        return refused(ReasonCode::NotAuthorized, "$share/ belongs to filters");
    }
    if topic.starts_with(call::PREFIX) {
        return refused(ReasonCode::NotAuthorized, "$rpc/ belongs to calls");
    }
    Ok(())
}
