//! Services: clients that answer calls of other clients.
//!
//! ```text
//!   {"event":"$serve","data":{"procedure":"math.*","weight":1,"window":64},"cid":1}     registers a pattern
//!   {"event":"$unserve","data":{"procedure":"math.*"},"cid":2}                          gives it up
//!   {"event":"math.add","cid":7,"data":{"data":[1,2],"caller":{"id":…}}}                a call, as the service gets it
//!   {"event":"$cancel","data":{"rid":7}}                                                the caller no longer waits
//!   {"event":"$unserved","data":{"procedure":"math.*"}}                                the rules take it away
//! ```
//! If no rule names the action `serve`, `$serve` and `$unserve` are events of the application. A call goes to
//! a service if the application has not answered it. The core carries it to the service (`services::Order`).
//!
//! Limits: `service_window_max`; the core has more.

use std::collections::VecDeque;

use super::recovery::{each_member, whole};
use super::{Environment, Session, invalid_action, passed_on, refuse, send};
use crate::app::{App, Call, Refusal, Refused};
use crate::clock::Uptime;
use crate::config::rules::Action;
use crate::decision::Decisions;
use crate::policy::Policy;
use crate::services::{
    CallId, Ended, Failure, JoinFailure, Offer, Order, PATTERN_BYTES_MAX, Pattern, ServiceCall, Token,
    WEIGHT_DEFAULT, WINDOW_DEFAULT, meta,
};
use crate::session::ServiceCaller;
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::{Event, Response, is_falsy};

/// The names of the calls.
const SERVE: &str = "$serve";
const UNSERVE: &str = "$unserve";

/// Calls that this client has got and not answered, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Served(VecDeque<(u64, Box<ServiceCall>)>);

impl Served {
    fn take(&mut self, rid: Number<'_>) -> Option<Box<ServiceCall>> {
        let rid = rid.as_f64();
        // The cast saturates, and drops a fraction: in these cases no id equals `rid`.
        #[expect(clippy::cast_possible_truncation, reason = "compared below")]
        let cid = rid as u64;
        if cid as f64 != rid {
            return None;
        }
        // Most services answer in the order of the calls.
        if let Some((_, call)) = self.0.pop_front_if(|(first, _)| *first == cid) {
            return Some(call);
        }
        let at = self.0.binary_search_by_key(&cid, |(cid, _)| *cid).ok()?;
        self.0.remove(at).map(|(_, call)| call)
    }
}

impl Session {
    /// Handles `$serve` and `$unserve`; false if the event is another one.
    #[inline(never)]
    pub(super) fn serve_or_unserve<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> bool {
        if event.name.is(SERVE) {
            self.serve(event, env, decisions);
        } else if event.name.is(UNSERVE) {
            self.unserve(event, env, decisions);
        } else {
            return false;
        }
        true
    }

    /// Orders a pattern to be registered, if the client may serve it.
    fn serve<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        self.expire(env.common.now, decisions);
        let Some(cid) = event.cid.map(Number::text) else {
            // Without a call id there is no answer, so the client would not know whether it serves.
            return;
        };
        let window_max = env.settings.service_window_max;
        let (pattern, offer, meta) = match parse(event.data.map_or("", |data| data.json), window_max) {
            Ok(parsed) => parsed,
            Err(text) => return invalid_action(Some(cid), text, decisions),
        };
        if !self.may_serve(&pattern, env) {
            return refuse(Some(cid), &Refusal::silent(), Refused::Invoke, decisions);
        }
        env.common.scratch.services.order(Order::Serve {
            connection: env.common.address,
            token: Token::new(cid.as_bytes()),
            pattern,
            offer,
            meta,
        });
    }

    /// Orders a pattern to be given up.
    fn unserve<A: App>(
        &self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let Some(cid) = event.cid.map(Number::text) else {
            return;
        };
        match parse(event.data.map_or("", |data| data.json), 1) {
            Ok((pattern, ..)) => env.common.scratch.services.order(Order::Unserve {
                connection: env.common.address,
                token: Token::new(cid.as_bytes()),
                pattern,
            }),
            Err(text) => invalid_action(Some(cid), text, decisions),
        }
    }

    fn may_serve<A: App>(&mut self, pattern: &[u8], env: &mut Environment<'_, '_, A>) -> bool {
        match Pattern::parse(pattern) {
            Some(Pattern::Name(name)) => self.may(Action::Serve, name, env),
            Some(Pattern::Prefix(beginning)) => {
                let rules = &*env.common.policy.rules;
                let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
                let decided = rules.decide_serve_all(beginning, facts);
                env.common.scratch.count_decided(Action::Serve, pattern, decided);
                decided.verdict.allowed
            }
            None => false,
        }
    }

    /// Whether the client may go on serving a pattern.
    pub fn may_keep_service(&mut self, pattern: &[u8], policy: &Policy) -> bool {
        let rules = &policy.rules;
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        rules.name_serve() && rules.decide_serve(pattern, facts).verdict.allowed
    }

    /// Whether the rules allow the client to serve a procedure, no matter whether it serves it now.
    pub fn may_serve_one(&mut self, procedure: &[u8], policy: &Policy) -> bool {
        let rules = &policy.rules;
        let facts = self.claims.as_mut().map(|claims| &*claims.facts(rules));
        rules.name_serve() && rules.decide(Action::Serve, procedure, facts).verdict.allowed
    }

    /// Orders a call or an event that the application has not answered to be carried to a service, if there
    /// may be one.
    #[inline(never)]
    pub(super) fn call_service<A: App>(
        &self,
        call: &Call<'_>,
        cid: Option<&NumberText>,
        env: &mut Environment<'_, '_, A>,
    ) {
        let caller = ServiceCaller {
            connection: env.common.address,
            id: self.id,
            claims: self.claims.as_deref(),
        };
        let token = cid.map(|cid| Token::new(cid.as_bytes()));
        let rows = &env.common.policy.services;
        env.common.scratch.call_service(call, caller, token, rows);
    }

    /// Calls the client as a service, or sends it an event. Returns the call if the client cannot be called.
    ///
    /// # Errors
    /// The session is not open.
    pub(crate) fn give_call(
        &mut self,
        mut call: Box<ServiceCall>,
        decisions: &mut Decisions,
    ) -> Result<Option<Box<ServiceCall>>, Box<ServiceCall>> {
        if !self.is_open() {
            return Err(call);
        }
        if call.id.is_none() {
            send(decisions, |out| encode::event(&call.event, Some(&call.data), out));
            return Ok(Some(call));
        }
        let calls = self.calls.get_or_insert_default();
        calls.last += 1;
        let cid = calls.last;
        send(decisions, |out| {
            encode::call(&call.event, cid, Some(&call.data), out)
        });
        call.note_sent();
        calls.served.0.push_back((cid, call));
        Ok(None)
    }

    /// The caller no longer waits for the answer to a call. Tells the client, and keeps the call until the
    /// client answers, or until [`Session::take_cancelled`]. False if the client has answered it, or has not
    /// got it.
    pub(crate) fn cancel_call(&mut self, id: CallId, until: Uptime, decisions: &mut Decisions) -> bool {
        let mut served = self.calls.iter_mut().flat_map(|calls| &mut calls.served.0);
        let Some((cid, call)) = served.find(|(_, call)| call.id == Some(id)) else {
            return false;
        };
        (call.is_cancelled, call.deadline) = (true, until);
        send(decisions, |out| encode::cancelled(*cid, out));
        true
    }

    /// Takes a cancelled call that the client has not answered.
    pub(crate) fn take_cancelled(&mut self, id: CallId) -> Option<Box<ServiceCall>> {
        let served = &mut self.calls.as_mut()?.served.0;
        let at = served.iter().position(|(_, call)| call.id == Some(id))?;
        served.remove(at).map(|(_, call)| call)
    }

    /// How many calls the client has got and not answered, and how many of them were cancelled.
    #[cfg(test)]
    pub(crate) fn given_calls(&self) -> (usize, usize) {
        let given = || self.calls.iter().flat_map(|calls| &calls.served.0);
        (
            given().count(),
            given().filter(|(_, call)| call.is_cancelled).count(),
        )
    }

    /// Takes a response, if it answers a call that the client has got as a service.
    pub(super) fn answer_as_service<A: App>(
        &mut self,
        response: &Response<'_>,
        env: &mut Environment<'_, '_, A>,
    ) {
        let Some(mut call) = self
            .calls
            .as_mut()
            .and_then(|calls| calls.served.take(response.rid))
        else {
            return;
        };
        let rewritten = &mut env.scratch.rewritten;
        call.answer(match response.error {
            Some(error) if !is_falsy(error) => Err(passed_on(error, true, rewritten)),
            Some(_) | None => Ok(response
                .data
                .map(|value| passed_on(value.json, value.rare, rewritten))),
        });
        env.common.scratch.services.order(Order::Answer(call));
    }

    /// The connection has ended, and with it the calls that the client has got.
    pub(super) fn end_served<A: App>(served: Served, env: &mut Environment<'_, '_, A>) {
        for (_, mut call) in served.0 {
            call.fail(Failure::Gone);
            env.common.scratch.services.order(Order::Answer(call));
        }
    }

    /// Tells the client the end of its call.
    pub(crate) fn service_ended(&self, token: &[u8], ended: Ended<'_>, decisions: &mut Decisions) {
        if !self.is_open() {
            return;
        }
        send(decisions, |out| match ended {
            Ended::Answered(data) => encode::response(token, data, out),
            Ended::Refused(error) => encode::error(token, |out| out.extend_from_slice(error), out),
            Ended::Failed(failure) => {
                let message = failure.message().as_bytes();
                let error = |out: &mut Vec<u8>| encode::named_error(failure.name(), message, out);
                encode::error(token, error, out);
            }
        });
    }

    /// Answers `$serve`: the pattern was registered on all cores, or could not be registered.
    pub(crate) fn service_registered(
        &self,
        token: &[u8],
        outcome: Result<(&[u8], Offer), JoinFailure>,
        decisions: &mut Decisions,
    ) {
        if !self.is_open() {
            return;
        }
        let message = match outcome {
            Ok((pattern, offer)) => {
                return send(decisions, |out| {
                    encode::serving(token, pattern, offer.weight, offer.window, out);
                });
            }
            // The same answer as if the rules had forbidden it when the call was read.
            Err(JoinFailure::Forbidden) => {
                let cid = Some(NumberText::copied(token));
                return refuse(cid, &Refusal::silent(), Refused::Invoke, decisions);
            }
            Err(JoinFailure::TooManyPatterns) => {
                "Too many patterns are served (service_patterns_max, services_per_connection_max)"
            }
            Err(JoinFailure::TooManyMembers) => "Too many services serve this pattern (service_members_max)",
            Err(JoinFailure::Withdrawn) => "The pattern was given up before all cores knew it",
        };
        send(decisions, |out| {
            let error = |out: &mut Vec<u8>| encode::named_error("LimitError", message.as_bytes(), out);
            encode::error(token, error, out);
        });
    }

    /// Tells the client that the rules do not allow it any more to serve a pattern.
    pub(crate) fn service_forbidden(&self, pattern: &[u8], decisions: &mut Decisions) {
        if self.is_open() {
            send(decisions, |out| encode::unserved(pattern, out));
        }
    }

    /// Answers `$unserve`.
    pub(crate) fn service_given_up(&self, token: &[u8], decisions: &mut Decisions) {
        if self.is_open() {
            send(decisions, |out| encode::response(token, None, out));
        }
    }
}

/// The pattern of `$serve`, the offer of the service, and its description of itself.
type Wanted = (Box<[u8]>, Offer, Option<Box<str>>);

/// Reads the data of `$serve`.
fn parse(data: &str, window_max: u32) -> Result<Wanted, &'static str> {
    let (mut procedure, mut about) = (None, None);
    let (mut weight, mut window) = (Some(WEIGHT_DEFAULT), Some(WINDOW_DEFAULT));
    let scanned = each_member(data, |key, value| match key {
        "procedure" => procedure = Scanner::new(value).string().ok(),
        "weight" => weight = whole(value, u64::MAX),
        "window" => window = whole(value, u64::MAX),
        "meta" => about = Some(value),
        _ => {}
    });
    let procedure = procedure.filter(|_| scanned.is_ok()).ok_or(PROCEDURE)?;
    let mut pattern = Vec::new();
    procedure.write_decoded(&mut pattern);
    if Pattern::parse(&pattern).is_none() || std::str::from_utf8(&pattern).is_err() {
        return Err(PROCEDURE);
    }
    let offer = Offer::asked(weight, window, window_max)?;
    Ok((pattern.into(), offer, about.map(meta).transpose()?))
}

const PROCEDURE: &str = "$serve and $unserve take {\"procedure\":name}: the name of a procedure, or a prefix with a final *, of at most 256 bytes, that does not begin with # or $";
const _: () = assert!(PATTERN_BYTES_MAX == 256, "the text above says so");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read_within_its_bounds() {
        for (data, expected) in [
            (r#"{"procedure":"a"}"#, Some(("a", 1, 64))),
            (
                r#"{"weight":3,"procedure":"a.*","window":7,"meta":{"x":1}}"#,
                Some(("a.*", 3, 7)),
            ),
            (
                r#"{"procedure":"a","weight":1e9,"window":1e9}"#,
                Some(("a", 1000, 100)),
            ),
            (r#"{"procedure":"a","window":0}"#, None),
            (r#"{"procedure":"a","weight":-1}"#, None),
            (r#"{"procedure":"a","weight":1.5}"#, None),
            (r#"{"procedure":"a","window":"7"}"#, None),
            (r#"{"procedure":"a*b"}"#, None),
            (r##"{"procedure":"#x"}"##, None),
            (r#"{"procedure":"$x*"}"#, None),
            (r#"{"procedure":""}"#, None),
            (r#"{"procedure":7}"#, None),
            (r#"{"procedure":"\ud800"}"#, None),
            (r#"["a"]"#, None),
            (r#"{"procedure":"a","meta":"\ud800"}"#, None),
            ("", None),
        ] {
            let parsed = parse(data, 100).ok();
            let parsed = parsed.map(|(pattern, offer, meta)| {
                assert_eq!(meta.is_some(), data.contains("meta"));
                (
                    String::from_utf8(pattern.into()).unwrap(),
                    offer.weight,
                    offer.window,
                )
            });
            let expected = expected.map(|(pattern, weight, window)| (pattern.to_owned(), weight, window));
            assert_eq!(parsed, expected, "{data}");
        }
    }
}
