//! Calls of this server that wait for the client's answers (wire reference, sections 1 and 6), and the number of the
//! client's calls that wait for a late answer.
//!
//! Invariants
//! 1. Ids are counted from 1 and never given twice, so `waiting` is in the order of ids and of deadlines.
//! 2. Each call leaves `waiting` once: answered, timed out, or with the end of its connection. Each time the
//!    application is told, or the thread that has made the call.
//!
//! Limits: `calls_per_connection_max`, kept by `app::Scratch`, which gives the ids out; `ack_timeout`;
//! `client_calls_max`.

use std::collections::VecDeque;

use super::arrays::Array;
use super::login::Login;
use super::services::Served;
use super::undecided::Undecided;
use super::{Environment, Session, passed_on, send};
use crate::app::{
    AnswerError, AnswerFailure, App, CallId, CallOutcome, OutsideCall, Owed, Peer, PeerOrder,
    REMOVE_AUTH_TOKEN, RawJson, SET_AUTH_TOKEN,
};
use crate::clock::Uptime;
use crate::decision::{CloseReason, Decisions, Limit};
use crate::socketcluster::encode;
use crate::socketcluster::number::Number;
use crate::socketcluster::packet::{Response, is_falsy};

/// The calls of one session in both directions. It exists from the first call on.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The id of the last call.
    pub(super) last: u64,
    waiting: VecDeque<Waiting>,
    /// The client's calls that the application still has to answer.
    owed: Option<Owed>,
    /// The login that is not answered yet.
    pub(super) login: Login,
    /// The rest of an array of packets, which need not hold calls. Boxed, since few sessions have one at any time.
    pub(super) array: Option<Box<Array>>,
    /// The calls that the client has got as a service.
    pub(super) served: Served,
    /// Decisions that the application makes later: about a packet, or a login, or both.
    pub(super) undecided: Vec<Undecided>,
}

/// A call without its answer.
#[derive(Debug)]
struct Waiting {
    call: CallId,
    deadline: Uptime,
    event: Box<str>,
    /// The thread that has made the call; `None` if the application has made it.
    outside: Option<OutsideCall>,
}

impl Calls {
    fn take_answered(&mut self, rid: Number<'_>) -> Option<Waiting> {
        let rid = rid.as_f64();
        let position = self
            .waiting
            .iter()
            .position(|waiting| waiting.call.as_u64() as f64 == rid)?;
        self.waiting.remove(position)
    }

    fn take_due(&mut self, now: Uptime) -> Option<Waiting> {
        self.waiting.pop_front_if(|waiting| waiting.deadline <= now)
    }
}

impl Session {
    /// Prepares the buffers before the application is asked.
    pub(super) fn begin<A: App>(&self, env: &mut Environment<'_, '_, A>) {
        let (last, waiting) = self
            .calls
            .as_ref()
            .map_or((0, 0), |calls| (calls.last, calls.waiting.len()));
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        env.scratch.begin();
        env.common.scratch.app.begin(
            env.common.address,
            last,
            env.settings.calls_max.saturating_sub(waiting),
        );
    }

    /// The client's calls that the application will answer later; `None` if there has never been one.
    pub(super) fn owed(&self) -> Option<&Owed> {
        self.calls.as_ref()?.owed.as_ref()
    }

    /// Keeps the calls that the application still has to answer, after the application was asked.
    pub(super) fn keep_owed(&mut self, owed: Option<Owed>) {
        if owed.is_some() {
            self.calls.get_or_insert_default().owed = owed;
        }
    }

    /// When the oldest call to the client times out.
    pub(super) fn ack_deadline(&self) -> Uptime {
        let Some(calls) = &self.calls else {
            return Uptime::NEVER;
        };
        calls
            .waiting
            .front()
            .map_or(Uptime::NEVER, |waiting| waiting.deadline)
    }

    /// Notes the calls that the application has ordered, whether they will be sent or not.
    pub(super) fn await_answers<A: App>(&mut self, env: &Environment<'_, '_, A>) {
        for order in env.common.scratch.app.orders_to_note() {
            let (call, event) = match *order {
                PeerOrder::Invoke { call, event, .. } => (call, env.common.scratch.app.piece(event)),
                PeerOrder::SetAuthToken { call: Some(call), .. } => (call, SET_AUTH_TOKEN),
                PeerOrder::Deauthenticate { call: Some(call) } => (call, REMOVE_AUTH_TOKEN),
                PeerOrder::Transmit { .. }
                | PeerOrder::Batch
                | PeerOrder::Publish { .. }
                | PeerOrder::SetAuthToken { call: None, .. }
                | PeerOrder::GiveToken { .. }
                | PeerOrder::AuthenticateAs { .. }
                | PeerOrder::Subscribe { .. }
                | PeerOrder::Deauthenticate { call: None }
                | PeerOrder::KickOut { .. }
                | PeerOrder::Disconnect { .. } => continue,
            };
            let calls = self.calls.get_or_insert_default();
            calls.last = call.as_u64();
            calls.waiting.push_back(Waiting {
                call,
                deadline: env.common.now.uptime + env.settings.ack_timeout,
                event: event.into(),
                outside: None,
            });
        }
    }

    /// Calls the client for another thread, which gets the outcome.
    pub(crate) fn call_from_outside<A: App>(
        &mut self,
        event: &str,
        data: Option<&str>,
        outside: OutsideCall,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        if !self.is_open() {
            return outside.tell(CallOutcome::ConnectionEnded);
        }
        let calls = self.calls.get_or_insert_default();
        if calls.waiting.len() >= env.settings.calls_max as usize {
            env.common.scratch.hit(Limit::CallsPerConnection);
            return outside.tell(CallOutcome::TooMany);
        }
        calls.last += 1;
        let call = CallId::new(calls.last);
        calls.waiting.push_back(Waiting {
            call,
            deadline: env.common.now.uptime + env.settings.ack_timeout,
            event: event.into(),
            outside: Some(outside),
        });
        let data = data.map(str::as_bytes);
        send(decisions, |out| {
            encode::call(event.as_bytes(), call.as_u64(), data, out)
        });
    }

    /// The client has answered a call. An answer to an unknown call, or to one that was answered before, is ignored.
    pub(super) fn receive_response<A: App>(
        &mut self,
        response: &Response<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.require_open()?;
        let Some(answered) = self
            .calls
            .as_mut()
            .and_then(|calls| calls.take_answered(response.rid))
        else {
            self.answer_as_service(response, env);
            return Ok(());
        };
        let mut rewritten = std::mem::take(&mut env.scratch.rewritten);
        let answer = match response.error {
            Some(error) if !is_falsy(error) => {
                let error = RawJson::new(passed_on(error, true, &mut rewritten));
                Err(AnswerFailure::Refused(error))
            }
            Some(_) | None => Ok(response
                .data
                .map(|value| RawJson::new(passed_on(value.json, value.rare, &mut rewritten)))),
        };
        let result = self.tell(answered, answer, env, decisions);
        env.scratch.rewritten = rewritten;
        result
    }

    /// Makes all waiting calls time out at `deadline`.
    pub(super) fn postpone_calls(&mut self, deadline: Uptime) {
        if let Some(calls) = &mut self.calls {
            for waiting in &mut calls.waiting {
                waiting.deadline = deadline;
            }
        }
    }

    /// Ends the calls that have timed out.
    pub(super) fn expire_calls<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        while let Some(late) = self
            .calls
            .as_mut()
            .and_then(|calls| calls.take_due(env.common.now.uptime))
        {
            env.common.scratch.hit(Limit::AckTime);
            self.tell(late, Err(AnswerFailure::TimedOut), env, decisions)?;
        }
        Ok(())
    }

    /// Ends all calls, since the connection has ended.
    pub(super) fn abandon_calls<A: App>(&mut self, env: &mut Environment<'_, '_, A>) {
        let Some(calls) = self.calls.take() else { return };
        Self::end_served(calls.served, env);
        for waiting in calls.waiting {
            if let Some(outside) = waiting.outside {
                outside.tell(CallOutcome::ConnectionEnded);
                continue;
            }
            env.common.scratch.app.clear(env.common.address);
            let mut peer = Peer::new(self.id, self.claims.as_deref(), None, &mut env.common.scratch.app);
            let error = AnswerError::new(&waiting.event, AnswerFailure::ConnectionEnded);
            env.common.app.answered(waiting.call, Err(error), &mut peer);
        }
    }

    fn tell<A: App>(
        &mut self,
        waiting: Waiting,
        answer: Result<Option<RawJson<'_>>, AnswerFailure<'_>>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if let Some(outside) = waiting.outside {
            outside.tell(outcome(answer));
            return Ok(());
        }
        self.begin(env);
        env.common.app.answered(
            waiting.call,
            answer.map_err(|cause| AnswerError::new(&waiting.event, cause)),
            &mut Peer::new(self.id, self.claims.as_deref(), None, &mut env.common.scratch.app),
        );
        self.settle(env)?;
        self.carry_out_orders(None, env, decisions)
    }
}

/// The outcome of a call for the thread that has made it.
fn outcome(answer: Result<Option<RawJson<'_>>, AnswerFailure<'_>>) -> CallOutcome {
    match answer {
        Ok(data) => CallOutcome::Answered(data.map(|data| data.as_str().to_owned())),
        Err(AnswerFailure::Refused(error)) => CallOutcome::Refused(error.as_str().to_owned()),
        Err(AnswerFailure::TimedOut) => CallOutcome::TimedOut,
        Err(AnswerFailure::ConnectionEnded) => CallOutcome::ConnectionEnded,
    }
}
