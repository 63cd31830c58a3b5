//! The client as a service (`crate::services`): it subscribes to procedures, and gets the calls of other clients.
//!
//! ```text
//!   SUBSCRIBE $share/GROUP/$rpc/math.*, user property window = 8
//!   ◄── SUBACK                                                                      when all cores know the pattern
//!   ◄── PUBLISH $rpc/math.add, Response Topic $rpc/$answer, Correlation Data 7      a call
//!   PUBLISH $rpc/$answer, Correlation Data 7                                        its answer
//!   ◄── PUBLISH $rpc/math.note                                                      a one-way event
//! ```
//! The filter behind `$rpc/` is a pattern as `$serve` takes it, or the equivalent filter of MQTT: `math/#` is
//! `math/*`. The group has no effect, since one service gets each call: all services of a pattern are one
//! pool, whatever their protocol.
//!
//! The filter belongs to the session, and outlives the connection as other filters do (`mqtt/shares.rs`); the
//! service does not. Without a connection the client is no service; with the next connection it becomes one
//! again.
//!
//! Calls come with QoS 0: a call ends with the connection, so it could never be sent again. An answer is not
//! a publication: the rules are not applied to it, and only the caller gets it. An answer to a call that the
//! client has not got, or that has ended, is discarded, and its acknowledgement says so (0x10).
//!
//! Invariants
//! 1. A pattern is registered with the core while `filters` has a filter that stands for it.
//! 2. `calls` are in the order of their numbers.
//!
//! Limits: `services_per_connection_max`, `service_window_max`, the Receive Maximum of CONNECT.

use std::collections::VecDeque;

use super::service_call::ServiceCallParts;
use super::{Open, Refused, Session, State, close_saying, refused};
use crate::app::{App, AppError};
use crate::clock::Uptime;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Limit};
use crate::mqtt::encode::{Delivery, PublishHead, PublishProperties};
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::{Publish, Qos};
use crate::mqtt::properties::{Properties, Property, put_binary};
use crate::mqtt::publication::takes_payload;
use crate::mqtt::shares::{JoinOutcome, Membership, ServiceOffer};
use crate::mqtt::subscriptions::{Options, SubscribeOutcome};
use crate::mqtt::topic::Filter;
use crate::mqtt::{ReasonCode, Version, payload};
use crate::policy::Policy;
use crate::services::{
    CallId, Failure, JoinFailure, Offer, Order, Pattern, ServiceCall, Token, WEIGHT_DEFAULT, WINDOW_DEFAULT,
    meta,
};
use crate::session;

/// The name behind `$rpc/` to which services publish their answers.
pub(super) const ANSWER: &[u8] = b"$answer";
/// The topic of answers.
const ANSWER_TOPIC: &str = "$rpc/$answer";
/// The beginning of the topics of procedures.
const PROCEDURES: &str = "$rpc/";

/// A connection whose client is a service.
#[derive(Debug, Default)]
pub(super) struct Serving {
    filters: Vec<ServedFilter>,
    last_call: u64,
    /// Calls that the client has got and has not answered, with the numbers in their Correlation Data.
    calls: VecDeque<(u64, Box<ServiceCall>)>,
}

/// A filter that makes the client a service.
#[derive(Debug)]
struct ServedFilter {
    text: Box<str>,
    pattern: Box<[u8]>,
    /// The subscription identifier; 0 for none.
    id: u32,
}

/// The SUBSCRIBE packet whose answer waits for the registration of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting<'a> {
    /// Its number ([`Shares::wait`](crate::mqtt::shares::Shares::wait)); 0 if there is no packet, since the
    /// client has resumed its session.
    pub(super) wait: u64,
    /// The distance of the filter's code from the end of SUBACK.
    pub(super) behind: u32,
    /// The filter.
    pub(super) text: &'a str,
}

impl<'a> Waiting<'a> {
    fn token(&self) -> Token {
        let mut bytes = Vec::with_capacity(12 + self.text.len());
        bytes.extend_from_slice(&self.wait.to_be_bytes());
        bytes.extend_from_slice(&self.behind.to_be_bytes());
        bytes.extend_from_slice(self.text.as_bytes());
        Token::new(&bytes)
    }

    fn read(token: &'a [u8]) -> Option<Waiting<'a>> {
        let (wait, rest) = token.split_first_chunk()?;
        let (behind, text) = rest.split_first_chunk()?;
        Some(Waiting {
            wait: u64::from_be_bytes(*wait),
            behind: u32::from_be_bytes(*behind),
            text: str::from_utf8(text).ok()?,
        })
    }
}

/// The procedures to which a filter subscribes a service: the text behind `$share/GROUP/$rpc/`. `None` for
/// other filters.
pub(super) fn procedures(text: &str) -> Option<&str> {
    match Filter::parse(text) {
        Ok(Filter::Shared { filter, .. }) => filter.strip_prefix(PROCEDURES),
        Ok(Filter::Plain(_)) | Err(_) => None,
    }
}

/// The pattern for these procedures.
fn pattern_of(procedures: &str) -> Result<Box<[u8]>, Refused> {
    let pattern = match procedures.strip_suffix('#') {
        // `#` stands for whole levels only, which `Filter::parse` has checked.
        Some(beginning) => format!("{beginning}*"),
        None => procedures.to_owned(),
    };
    if pattern.contains('+') || Pattern::parse(pattern.as_bytes()).is_none() {
        return refused(
            ReasonCode::TopicFilterInvalid,
            "a service subscribes to the name of a procedure, or to a beginning of names with a final * or /#, of at most 256 bytes",
        );
    }
    Ok(pattern.into_bytes().into())
}

/// The offer of the client, in the user properties of SUBSCRIBE.
fn offer_of(properties: Properties<'_>, window_max: u32) -> Result<ServiceOffer, Refused> {
    let (mut weight, mut window) = (Some(WEIGHT_DEFAULT), Some(WINDOW_DEFAULT));
    let mut about = None;
    for (name, value) in properties.user() {
        match name {
            "weight" => weight = value.parse().ok(),
            "window" => window = value.parse().ok(),
            "meta" => about = Some(value),
            _ => {}
        }
    }
    let bad = |text| Refused {
        code: ReasonCode::ImplementationSpecific,
        text,
    };
    Ok(ServiceOffer {
        offer: Offer::asked(weight, window, window_max).map_err(bad)?,
        meta: about.map(meta).transpose().map_err(bad)?,
    })
}

impl Session {
    /// Whether the client may serve these procedures.
    pub(super) fn may_serve<A: App>(
        &mut self,
        procedures: &str,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), Refused> {
        if !matches!(&self.state, State::Open(open) if open.version == Version::V5) {
            return refused(
                ReasonCode::NotAuthorized,
                "a service needs the Response Topic of MQTT 5",
            );
        }
        let pattern = pattern_of(procedures)?;
        let rules = &*env.common.policy.rules;
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        let decided = rules.decide_serve(&pattern, facts);
        env.common.scratch.count_decided(Action::Serve, &pattern, decided);
        if rules.name_serve() && decided.verdict.allowed {
            return Ok(());
        }
        refused(
            ReasonCode::NotAuthorized,
            "the rules do not allow the client to serve all that the filter stands for",
        )
    }

    /// Whether the client may go on serving a pattern.
    pub(crate) fn may_keep_service(&mut self, pattern: &[u8], policy: &Policy) -> bool {
        let rules = &policy.rules;
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        rules.name_serve() && rules.decide_serve(pattern, facts).verdict.allowed
    }

    /// Subscribes the client to the procedures of a filter, which [`Session::may_serve`] has allowed. The
    /// answer waits.
    pub(super) fn serve<A: App>(
        &mut self,
        procedures: &str,
        (properties, id): (Properties<'_>, u32),
        waiting: Waiting<'_>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<SubscribeOutcome, Refused> {
        let pattern = pattern_of(procedures)?;
        let service = offer_of(properties, env.settings.service_window_max)?;
        let State::Open(open) = &self.state else {
            return refused(ReasonCode::Unspecified, "the connection has ended");
        };
        // No more filters than patterns, so that looking through them costs little.
        let is_full = open.serving().is_some_and(|serving| {
            serving.filters.len() >= env.settings.services_max as usize && !serving.has(waiting.text)
        });
        if is_full {
            env.common.scratch.hit(Limit::ServicePatterns);
            return refused(
                ReasonCode::QuotaExceeded,
                "the client serves as many patterns as it may (services_per_connection_max)",
            );
        }
        let options = Options {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            id,
        };
        let membership = Membership {
            options,
            service: Some(service.clone()),
        };
        let limits = env.settings.subscription_limits;
        let joined = env.sessions.serve(open.session, waiting.text, membership, limits);
        let outcome = match joined {
            JoinOutcome::Is(outcome) | JoinOutcome::Waits(outcome) => {
                super::subscribe::bounded(outcome, env)?
            }
            JoinOutcome::Busy => return super::subscribe::too_many_wait(env),
        };
        self.register(pattern, id, service, waiting, env);
        Ok(outcome)
    }

    /// Whether the client may still serve the procedures of the filter `text` of its session. If it has
    /// resumed the session, it serves them from now on.
    pub(super) fn serves_on<A: App>(
        &mut self,
        procedures: &str,
        text: &str,
        env: &mut Environment<'_, '_, A>,
    ) -> bool {
        let (State::Open(open), Ok(pattern)) = (&self.state, pattern_of(procedures)) else {
            return false;
        };
        let (session, version) = (open.session, open.version);
        let serves = open.serving().is_some_and(|serving| serving.has(text));
        if !self.may_keep_service(&pattern, env.common.policy) {
            return false;
        }
        let membership = env.sessions.shares.membership_of(session.number, text);
        if version == Version::V5
            && !serves
            && let Some((options, service)) = membership.map(|one| (one.options, one.service.clone()))
            && let Some(service) = service
        {
            let waiting = Waiting {
                wait: 0,
                behind: 0,
                text,
            };
            self.register(pattern, options.id, service, waiting, env);
        }
        true
    }

    /// Orders a pattern to be registered.
    fn register<A: App>(
        &mut self,
        pattern: Box<[u8]>,
        id: u32,
        ServiceOffer { mut offer, meta }: ServiceOffer,
        waiting: Waiting<'_>,
        env: &mut Environment<'_, '_, A>,
    ) {
        let Some(open) = self.open_mut() else { return };
        // Calls come with QoS 0, but the Receive Maximum of the client says how many it can handle at the
        // same time.
        offer.window = offer
            .window
            .min(env.settings.service_window_max)
            .min(u32::from(open.receive_maximum));
        let serving = open.extras_mut().serving.get_or_insert_default();
        serving.filters.retain(|filter| *filter.text != *waiting.text);
        serving.filters.push(ServedFilter {
            text: waiting.text.into(),
            pattern: pattern.clone(),
            id,
        });
        env.common.scratch.services.order(Order::Serve {
            connection: env.common.address,
            token: waiting.token(),
            pattern,
            offer,
            meta,
        });
    }

    /// A filter of the client has ended: so has the service, unless another filter stands for the same pattern.
    pub(super) fn stop_serving<A: App>(&mut self, text: &str, env: &mut Environment<'_, '_, A>) {
        let Some(serving) = self.open_mut().and_then(Open::serving_mut) else {
            return;
        };
        let Some(at) = serving.filters.iter().position(|filter| *filter.text == *text) else {
            return;
        };
        let ServedFilter { pattern, .. } = serving.filters.swap_remove(at);
        if serving.filters.iter().all(|filter| filter.pattern != pattern) {
            env.common.scratch.services.order(Order::Unserve {
                connection: env.common.address,
                token: Token::new(b""),
                pattern,
            });
        }
    }

    /// A pattern of the client was registered on all cores, or could not be registered: SUBACK may be sent.
    ///
    /// # Errors
    /// The client has resumed its session, and its filter has ended: the connection is to be closed, since no
    /// packet could report that to the client.
    pub(crate) fn service_registered<A: App>(
        &mut self,
        token: &[u8],
        outcome: Result<(), JoinFailure>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let (Some(Waiting { wait, behind, text }), Some(session)) =
            (Waiting::read(token), self.session_ref())
        else {
            return Ok(());
        };
        let code = match outcome {
            // The client has unsubscribed meanwhile, and has been told so.
            Ok(()) | Err(JoinFailure::Withdrawn) => None,
            Err(JoinFailure::Forbidden) => Some(ReasonCode::NotAuthorized),
            Err(JoinFailure::TooManyPatterns | JoinFailure::TooManyMembers) => {
                Some(ReasonCode::QuotaExceeded)
            }
        };
        let mut result = Ok(());
        if let Some(code) = code
            && env.sessions.is_of(session, env.common.address)
        {
            env.sessions.leave_group(session, text);
            self.stop_serving(text, env);
            env.sessions.shares.set_code(wait, behind as usize, code.as_u8());
            if wait == 0 {
                result = close_saying(
                    decisions,
                    CloseReason::NoLongerAllowed,
                    "the client may not serve any more what its session has subscribed to",
                );
            }
        }
        env.sessions.shares.note_joined(wait);
        result
    }

    /// Calls the client as a service, or sends it an event. Returns the call if it is over at once: an event,
    /// or a call that no packet can carry, which has its answer then.
    ///
    /// # Errors
    /// The call, if the session is not open or is no service.
    pub(crate) fn give_call(
        &mut self,
        mut call: Box<ServiceCall>,
        now: Uptime,
        decisions: &mut Decisions,
    ) -> Result<Option<Box<ServiceCall>>, Box<ServiceCall>> {
        let Some(open) = self.open_mut() else {
            return Err(call);
        };
        let packet_bytes_max = open.packet_bytes_max;
        let Some(serving) = open.serving_mut() else {
            return Err(call);
        };
        serving.last_call += 1;
        let number = serving.last_call;
        let mut packet = Vec::new();
        if !serving.write_call(&call, (number, now), packet_bytes_max, &mut packet) {
            let error =
                AppError::new("The call is too large for the service, or its name is no topic of MQTT");
            let mut json = Vec::new();
            error.named("InvalidArgumentsError").write_json(&mut json);
            call.answer(Err(&String::from_utf8_lossy(&json)));
            return Ok(Some(call));
        }
        let message = decisions.write(|out| out.extend_from_slice(&packet));
        decisions.push(Decision::Send { message });
        if call.id.is_none() {
            return Ok(Some(call));
        }
        call.note_sent();
        serving.calls.push_back((number, call));
        Ok(None)
    }

    /// The caller no longer waits for the answer to a call. MQTT has no packet that says so. The call is kept
    /// until the client answers, or until [`Session::take_cancelled`]; false if the client has answered it,
    /// or has not got it.
    pub(crate) fn cancel_call(&mut self, id: CallId, until: Uptime) -> bool {
        let serving = self.open_mut().and_then(Open::serving_mut);
        let mut calls = serving.into_iter().flat_map(|serving| &mut serving.calls);
        let Some((_, call)) = calls.find(|(_, call)| call.id == Some(id)) else {
            return false;
        };
        (call.is_cancelled, call.deadline) = (true, until);
        true
    }

    /// Takes a cancelled call that the client has not answered.
    pub(crate) fn take_cancelled(&mut self, id: CallId) -> Option<Box<ServiceCall>> {
        let calls = &mut self.open_mut()?.serving_mut()?.calls;
        let at = calls.iter().position(|(_, call)| call.id == Some(id))?;
        calls.remove(at).map(|(_, call)| call)
    }

    /// The client publishes an answer. The caller has called [`Session::begin`].
    #[cold]
    pub(super) fn answer_as_service<A: App>(
        &mut self,
        publish: &Publish<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.settle(env)?;
        if (env.settings.checks_payload_format && !publish.has_valid_payload())
            || !takes_payload(env.settings.payload, publish.payload)
        {
            self.refuse_publication(publish, BAD_ANSWER, env, decisions);
            return self.carry_out_orders(env, decisions);
        }
        let correlation = publish.properties.binary(Property::CorrelationData);
        let serving = self.open_mut().and_then(Open::serving_mut);
        let call = correlation.and_then(|number| serving?.take(number));
        let nobody = call.is_none();
        if let Some(mut call) = call {
            let mut json = Vec::new();
            let error = publish.properties.user().find(|(name, _)| *name == "error");
            match error {
                None if publish.payload.is_empty() => call.answer(Ok(None)),
                None => {
                    payload::write_json(env.settings.payload, publish.payload, &mut json);
                    call.answer(Ok(Some(&String::from_utf8_lossy(&json))));
                }
                Some((_, text)) => {
                    write_error(env, publish.payload, text, &mut json);
                    call.answer(Err(&String::from_utf8_lossy(&json)));
                }
            }
            env.common.scratch.services.order(Order::Answer(call));
        }
        self.take_request(publish, nobody.then_some(NOBODY_WAITS), env, decisions);
        self.carry_out_orders(env, decisions)
    }

    /// The connection has ended, and with it the calls that the client has got.
    pub(super) fn end_serving<A: App>(serving: Serving, env: &mut Environment<'_, '_, A>) {
        for (_, mut call) in serving.calls {
            call.fail(Failure::Gone);
            env.common.scratch.services.order(Order::Answer(call));
        }
    }
}

/// Appends the error in an answer: an object or a string as it is. Any other value would be no error for a
/// caller, so it is replaced by an error with the text of the user property.
fn write_error<A: App>(env: &Environment<'_, '_, A>, payload: &[u8], text: &str, out: &mut Vec<u8>) {
    if !payload.is_empty() {
        payload::write_json(env.settings.payload, payload, out);
        let is_text = out.first() == Some(&b'"') && out.len() > 2;
        if is_text || out.first() == Some(&b'{') {
            return;
        }
        out.clear();
    }
    AppError::new(text).named("Error").write_json(out);
}

impl Serving {
    /// Whether this filter makes the client a service.
    fn has(&self, text: &str) -> bool {
        self.filters.iter().any(|filter| *filter.text == *text)
    }

    /// Appends the PUBLISH packet for a call, or for an event; false if no packet can carry it.
    fn write_call(
        &self,
        call: &ServiceCall,
        (number, now): (u64, Uptime),
        packet_bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut topic = PROCEDURES.to_owned();
        match str::from_utf8(&call.event) {
            Ok(name) => topic.push_str(name),
            Err(_) => return false,
        }
        if !session::is_topic(topic.as_bytes()) {
            return false;
        }
        let Some(parts) = ServiceCallParts::read(&call.data) else {
            return false;
        };
        let mut properties = Vec::new();
        let mut message_expiry_interval = None;
        if call.id.is_some() {
            properties.push(Property::ResponseTopic.id());
            put_binary(&mut properties, ANSWER_TOPIC.as_bytes());
            properties.push(Property::CorrelationData.id());
            put_binary(&mut properties, number.to_string().as_bytes());
            let left_ms = call.deadline.since(now).as_millis();
            message_expiry_interval = Some(u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX));
        }
        let of_caller = [
            ("caller_id", Some(parts.id)),
            ("caller_user", parts.user.as_deref()),
            ("caller_claims", parts.claims),
        ];
        for (name, value) in of_caller {
            // A string of MQTT has no U+0000, and 65,535 bytes at most.
            let value = value.filter(|value| value.len() <= usize::from(u16::MAX) && !value.contains('\0'));
            if let Some(value) = value {
                properties.push(Property::UserProperty.id());
                put_binary(&mut properties, name.as_bytes());
                put_binary(&mut properties, value.as_bytes());
            }
        }
        // MQTT-3.3.4-3
        let filters = self.filters.iter().filter(|filter| {
            let pattern = Pattern::parse(&filter.pattern);
            filter.id > 0 && pattern.is_some_and(|pattern| pattern.covers(Pattern::Name(&call.event)))
        });
        let subscription_ids: Vec<u32> = filters.map(|filter| filter.id).collect();
        let head = PublishHead {
            version: Version::V5,
            dup: false,
            retain: false,
            delivery: Delivery::AtMostOnce,
            topic: &topic,
            payload_bytes: parts.data.len(),
            properties: PublishProperties {
                payload_is_utf8: true,
                message_expiry_interval,
                topic_alias: None,
                subscription_ids: &subscription_ids,
                passed_on: &properties,
            },
        };
        let packet_bytes = head.packet_bytes();
        if packet_bytes.is_none_or(|bytes| bytes > packet_bytes_max as usize) {
            return false;
        }
        head.write(out);
        out.extend_from_slice(parts.data.as_bytes());
        true
    }

    fn take(&mut self, correlation: &[u8]) -> Option<Box<ServiceCall>> {
        let number: u64 = str::from_utf8(correlation).ok()?.parse().ok()?;
        let at = self
            .calls
            .binary_search_by_key(&number, |(number, _)| *number)
            .ok()?;
        self.calls.remove(at).map(|(_, call)| call)
    }
}

const BAD_ANSWER: Refused = Refused {
    code: ReasonCode::PayloadFormatInvalid,
    text: "the payload of the answer is not JSON, or not the UTF-8 that it is said to be",
};
const NOBODY_WAITS: Refused = Refused {
    code: ReasonCode::NoMatchingSubscribers,
    text: "no call with this Correlation Data waits for the client's answer",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_of_procedures_is_read_as_a_pattern() {
        for (text, expected) in [
            ("$share/g/$rpc/math.add", Some("math.add")),
            ("$share/g/$rpc/math.*", Some("math.*")),
            ("$share/g/$rpc/math/#", Some("math/*")),
            ("$share/g/$rpc/#", Some("*")),
            ("$share/g/$rpc/*", Some("*")),
            ("$share/g/$rpc/a/b", Some("a/b")),
            ("$share/g/$rpc/math/+", None),
            ("$share/g/$rpc/+/#", None),
            ("$share/g/$rpc/a*b", None),
            ("$share/g/$rpc/a*/#", None),
            ("$share/g/$rpc/$answer", None),
            ("$share/g/$rpc/", None),
        ] {
            let pattern = pattern_of(procedures(text).unwrap()).ok();
            assert_eq!(pattern.as_deref(), expected.map(str::as_bytes), "{text}");
        }
        for text in [
            "$rpc/math.add",
            "$share/g/rpc/a",
            "$share/g/#",
            "$share/g/$rpc",
            "$share/g/$rpc/a#",
        ] {
            assert_eq!(procedures(text), None, "{text}");
        }
    }

    #[test]
    fn the_packet_that_waits_is_read_as_it_was_written() {
        let waiting = Waiting {
            wait: 1 << 40,
            behind: 3,
            text: "$share/g/$rpc/a",
        };
        let token = waiting.token();
        assert_eq!(Waiting::read(token.as_bytes()), Some(waiting));
        assert_eq!(Waiting::read(b"short"), None);
    }
}
