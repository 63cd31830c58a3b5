//! A client's actions on channels: publish, subscribe and unsubscribe, and the texts of the answers.
//!
//! The core keeps the subscriptions. A session decides, and the core carries the decision out and asks the session for
//! the answer. Wire reference, sections 7 and 10.

use super::tokens::tell_expired;
use super::{About, Environment, Session, State, invalid_action, passed_on, refuse, send};
use crate::app::{self, AllowedPublish, AllowedPublishKind, App, Name, RawJson, Refusal, Refused};
use crate::clock::Now;
use crate::config::rules::Action;
use crate::decision::{
    CloseReason, Decision, Decisions, Epoch, Limit, Marks, Publish, Span, Stored, SubscribeOutcome,
    UnsubscribeOutcome,
};
use crate::hooks::Subject;
use crate::session;
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::Event;

impl Session {
    /// The answer to a [`Decision::Subscribe`] that was carried out; `None` if there is none. `token` is the call id.
    pub fn subscribed(
        &self,
        channel: Span,
        token: Option<Span>,
        outcome: SubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        let reason = match outcome {
            SubscribeOutcome::Subscribed if is_by_server(token) => {
                let name = decisions.bytes(channel).to_vec();
                return Some(decisions.write(|out| encode::subscribed(&name, out)));
            }
            // The client has not asked for the subscription, so it gets no answer.
            SubscribeOutcome::TooMany { .. } | SubscribeOutcome::TooLong { .. } if is_by_server(token) => {
                return None;
            }
            SubscribeOutcome::Subscribed => {
                let cid = NumberText::copied(decisions.bytes(token?));
                return Some(decisions.write(|out| encode::response(cid.as_bytes(), None, out)));
            }
            SubscribeOutcome::TooMany { limit } => {
                format!("tried to exceed the channel subscription limit of {limit}")
            }
            SubscribeOutcome::TooLong { limit } => {
                format!("tried to exceed the limit of {limit} bytes for the names of its channels")
            }
        };
        self.broker_error("subscribe socket to", channel, token?, &reason, decisions)
    }

    /// The answer to a [`Decision::Unsubscribe`] that was carried out; `None` if there is none. `token` is the call id.
    pub fn unsubscribed(
        &self,
        channel: Span,
        token: Option<Span>,
        outcome: UnsubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match outcome {
            UnsubscribeOutcome::Unsubscribed => {
                let cid = NumberText::copied(decisions.bytes(token?));
                Some(decisions.write(|out| encode::response(cid.as_bytes(), None, out)))
            }
            UnsubscribeOutcome::NotSubscribed => self.broker_error(
                "unsubscribe socket from",
                channel,
                token?,
                "tried to unsubscribe from a channel which it is not subscribed to",
                decisions,
            ),
        }
    }

    /// The answer to a [`Decision::Acknowledge`] that was carried out. `token` is the call id.
    pub fn stored(&self, token: Span, outcome: Stored, decisions: &mut Decisions) -> Span {
        let cid = NumberText::copied(decisions.bytes(token));
        let why = match outcome {
            Stored::Yes => return decisions.write(|out| encode::response(cid.as_bytes(), None, out)),
            Stored::NotNow => {
                "The publication was not published, since it cannot be stored now; try again later"
            }
            Stored::Elsewhere => {
                "The publication was not published, since another process has the channel now; connect again and publish \
                 it there"
            }
            Stored::Unknown => {
                "The publication was published, but it could not be stored, so that a crash may lose it"
            }
        };
        let error = |out: &mut Vec<u8>| encode::named_error("StoreError", why.as_bytes(), out);
        decisions.write(|out| encode::error(cid.as_bytes(), error, out))
    }

    /// The message for one channel of a [`Decision::KickOutAll`].
    pub fn kicked_out(&self, channel: &[u8], reason: Option<Span>, decisions: &mut Decisions) -> Span {
        let reason = reason.map(|reason| decisions.bytes(reason).to_vec());
        decisions.write(|out| encode::kick_out(channel, reason.as_deref(), out))
    }

    /// The message for a channel that a [`Decision::CheckSubscriptions`] takes away from the client.
    pub fn forbidden(&self, channel: &[u8], decisions: &mut Decisions) -> Span {
        let reason = br#""The subscription is no longer allowed""#;
        decisions.write(|out| encode::kick_out(channel, Some(reason), out))
    }

    pub(super) fn publish<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.forget_expired(env.common.now);
        let cid = event.cid.map(Number::text);
        if !env.common.settings.allow_client_publish {
            // A refusal that does not depend on the data comes before `#removeAuthToken`.
            invalid_action(cid, "Client publish feature is disabled", decisions);
            tell_expired(expired, decisions);
            return Ok(());
        }
        let Some((value, name)) = event.data.and_then(|value| Some((value, value.members.channel?))) else {
            invalid_action(cid, "Publish channel name was malformatted", decisions);
            tell_expired(expired, decisions);
            return Ok(());
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        if let Some(refusal) = too_long("Publish", channel, env, decisions) {
            invalid_action(cid, &refusal, decisions);
            tell_expired(expired, decisions);
            return Ok(());
        }
        tell_expired(expired, decisions);
        if let Some(refusal) = reserved(decisions.bytes(channel), env) {
            invalid_action(cid, refusal, decisions);
            return Ok(());
        }
        if !self.may(Action::Publish, decisions.bytes(channel), env) {
            refuse(cid, &Refusal::silent(), Refused::Publish, decisions);
            return Ok(());
        }
        let mut rewritten = std::mem::take(&mut env.scratch.rewritten);
        let data = value
            .members
            .data
            .map(|json| passed_on(json, value.rare, &mut rewritten));
        let asked = self.ask_to_publish(event, decisions.bytes(channel), data, expired, env)?;
        let Some(allowed) = asked else {
            env.scratch.rewritten = rewritten;
            return Ok(());
        };
        match allowed {
            Ok(allowed) => {
                let data = allowed_data(allowed, data, &env.common.scratch.app);
                let marks = session::marks(
                    &env.common.policy.channels,
                    &mut env.common.scratch.channels,
                    decisions.bytes(channel),
                );
                let epoch = env.common.settings.epoch;
                let message =
                    decisions.write(|out| write_publish(|out| name.write_json(out), marks, epoch, data, out));
                let publish = Publish::new(channel, message, data.unwrap_or_default(), marks);
                decisions.push(Decision::Publish(publish));
                if let Some(cid) = cid.filter(|_| marks.remembered && env.common.settings.has_store) {
                    // A store may make the answer wait, or refuse the publication.
                    let token = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
                    decisions.push(Decision::Acknowledge { token });
                } else if let Some(cid) = cid {
                    send(decisions, |out| encode::response(cid.as_bytes(), None, out));
                }
            }
            Err(refusal) => refuse(cid, &refusal, Refused::Publish, decisions),
        }
        env.scratch.rewritten = rewritten;
        self.carry_out_orders(None, env, decisions)
    }

    /// Asks the application whether the client may publish this, and in which form. `expired` is the time at
    /// which its token expired, if it has. `None` if the application decides later: then `event` is kept.
    #[inline]
    pub(super) fn ask_to_publish<A: App>(
        &mut self,
        event: &Event<'_>,
        channel: &[u8],
        data: Option<&str>,
        expired: Option<f64>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Option<Result<AllowedPublish, Refusal>>, CloseReason> {
        let result = env.common.ask(
            0,
            self.asked(expired),
            Subject::Publish { channel, data },
            |app, peer| app.publish(Name::new(channel), data.map(RawJson::new), peer),
            |publication| publication,
        );
        if let Err(refusal) = &result
            && let Some(number) = refusal.decision_number()
        {
            self.await_decision(number, About::event(event), Vec::new(), env);
            return Ok(None);
        }
        self.settle(env)?;
        Ok(Some(result))
    }

    pub(super) fn subscribe<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.common.now, decisions);
        let cid = event.cid.map(Number::text);
        let Some((value, name)) = event.data.and_then(|value| Some((value, value.members.channel?))) else {
            invalid_action(cid, "Subscribe channel name was malformatted", decisions);
            return Ok(());
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        if let Some(refusal) = too_long("Subscribe", channel, env, decisions) {
            invalid_action(cid, &refusal, decisions);
            return Ok(());
        }
        let policy = env.common.policy;
        let allowed = match policy.channels.announced_on(decisions.bytes(channel)) {
            Some(of) => self.may(Action::Presence, of, env),
            None => self.may(Action::Subscribe, decisions.bytes(channel), env),
        };
        if !allowed {
            refuse(cid, &Refusal::silent(), Refused::Subscribe, decisions);
            return Ok(());
        }
        let wanted = if env.common.policy.channels.is_empty() && !env.common.settings.mqtt.retains() {
            None
        } else {
            match self.wanted(decisions.bytes(channel), value.members.data, env) {
                Ok(wanted) => wanted,
                Err(refusal) => {
                    invalid_action(cid, refusal, decisions);
                    return Ok(());
                }
            }
        };
        let bytes = decisions.bytes(channel);
        let subject = Subject::Subscribe {
            channel: bytes,
            data: value.members.data,
        };
        let name = Name::new(bytes);
        let result = env.common.ask(
            0,
            self.asked(expired),
            subject,
            |app, peer| app.subscribe(name, value.members.data.map(RawJson::new), peer),
            |_| (),
        );
        if let Err(refusal) = &result
            && let Some(number) = refusal.decision_number()
        {
            self.await_decision(number, About::event(event), Vec::new(), env);
            return Ok(());
        }
        self.settle(env)?;
        match (result, cid) {
            (Ok(()), Some(cid)) => {
                if let State::Open { subscribed, .. } = &mut self.state {
                    *subscribed = true;
                }
                let cid = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
                let decision = match wanted {
                    None => Decision::Subscribe {
                        channel,
                        token: Some(cid),
                    },
                    Some(wanted) => Decision::SubscribeFrom {
                        channel,
                        token: cid,
                        wanted: decisions.write(|out| wanted.write(out)),
                    },
                };
                decisions.push(decision);
            }
            // Without a call id the reference asks its middleware, and then does not subscribe.
            (Ok(()), None) => {}
            (Err(refusal), cid) => refuse(cid, &refusal, Refused::Subscribe, decisions),
        }
        self.carry_out_orders(None, env, decisions)
    }

    /// Subscribes the client, which has not asked for it, if the rules allow it. The client learns of it by an event
    /// when it is subscribed.
    pub fn subscribe_by_server<A: App>(
        &mut self,
        channel: &str,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> bool {
        if !self.lets_subscribe(channel.as_bytes(), env) {
            return false;
        }
        let decision = by_server(channel.as_bytes(), decisions);
        decisions.push(decision);
        true
    }

    /// Whether the server may subscribe the client to a channel. If so, the client may hold subscriptions from now on.
    pub(super) fn lets_subscribe<A: App>(&mut self, channel: &[u8], env: &Environment<'_, '_, A>) -> bool {
        let policy = env.common.policy;
        if !policy.rules.is_empty() && !self.may_keep(channel, policy) {
            return false;
        }
        let State::Open { subscribed, .. } = &mut self.state else {
            return false;
        };
        *subscribed = true;
        true
    }

    pub(super) fn unsubscribe(&mut self, event: &Event<'_>, now: Now, decisions: &mut Decisions) {
        let expired = self.forget_expired(now);
        let cid = event.cid.map(Number::text);
        match event
            .data
            .and_then(|value| Scanner::new(value.json).string().ok())
        {
            Some(name) => {
                let channel = decisions.write(|out| name.write_decoded(out));
                let cid = cid.map(|cid| decisions.write(|out| out.extend_from_slice(cid.as_bytes())));
                decisions.push(Decision::Unsubscribe { channel, token: cid });
            }
            None => invalid_action(cid, "Unsubscribe channel name was malformatted", decisions),
        }
        // The answer comes before `#removeAuthToken`.
        tell_expired(expired, decisions);
    }

    /// `{"rid":N,"error":{...}}` with a `BrokerError` about a channel.
    fn broker_error(
        &self,
        failed_to: &str,
        channel: Span,
        cid: Span,
        reason: &str,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        let cid = NumberText::copied(decisions.bytes(cid));
        let mut message = format!("Failed to {failed_to} the ").into_bytes();
        message.extend_from_slice(decisions.bytes(channel));
        message.extend_from_slice(
            format!(" channel - InvalidActionError: Socket {} {reason}", self.id).as_bytes(),
        );
        let error = |out: &mut Vec<u8>| encode::named_error("BrokerError", &message, out);
        Some(decisions.write(|out| encode::error(cid.as_bytes(), error, out)))
    }
}

/// The data of a publication that the application has allowed: as the client has sent it, or as the
/// application has rewritten it.
#[inline]
pub(super) fn allowed_data<'d>(
    allowed: AllowedPublish,
    sent: Option<&'d str>,
    scratch: &'d app::Scratch,
) -> Option<&'d [u8]> {
    match allowed.kind(scratch) {
        AllowedPublishKind::AsSent | AllowedPublishKind::Answered(_) => sent.map(str::as_bytes),
        AllowedPublishKind::Rewritten(piece) => piece.map(|piece| scratch.piece_bytes(piece)),
    }
}

/// The decision to subscribe a client that has not asked for it.
pub(super) fn by_server(channel: &[u8], decisions: &mut Decisions) -> Decision {
    let channel = decisions.write(|out| out.extend_from_slice(channel));
    // The call id is empty, since there is no call to answer.
    let token = Some(decisions.write(|_| {}));
    Decision::Subscribe { channel, token }
}

/// Whether the token of a subscription is that of [`Session::subscribe_by_server`]: a call id is never empty.
fn is_by_server(token: Option<Span>) -> bool {
    token.is_some_and(Span::is_empty)
}

/// Writes the message of a publication with these marks.
#[inline]
pub(crate) fn write_publish(
    channel: impl FnOnce(&mut Vec<u8>),
    marks: Marks,
    epoch: Epoch,
    data: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    if marks.is_any() {
        encode::publish_marked(channel, marks, epoch, data, out);
    } else {
        encode::publish(channel, data, out);
    }
}

/// Why clients may not publish to a channel that belongs to the server; `None` for other channels.
#[inline]
pub(super) fn reserved<A: App>(name: &[u8], env: &Environment<'_, '_, A>) -> Option<&'static str> {
    session::reserved(name, &env.common.policy.channels, env.common.settings.mqtt)
}

/// The refusal of a channel's name, if it is longer than names may be.
pub(super) fn too_long<A: App>(
    action: &str,
    channel: Span,
    env: &mut Environment<'_, '_, A>,
    decisions: &Decisions,
) -> Option<String> {
    let limit = env.common.settings.channel_name_bytes_max;
    if decisions.bytes(channel).len() <= limit as usize {
        return None;
    }
    env.common.scratch.hit(Limit::ChannelNameBytes);
    Some(format!(
        "{action} channel name was longer than the limit of {limit} bytes"
    ))
}
