//! The calls `$presence` and `$presence_info`, with which a client asks for the members of a channel and sets
//! its own info.
//!
//! ```text
//!   $presence       {"channel":"room.1","after":0,"limit":100}   →  {"count":2,"members":[…],"next":100}
//!   $presence_info  {"channel":"room.1","info":{"name":"Ann"}}   →  nothing
//! ```
//! They belong to the server only while some policy of channels has presence; otherwise they are the
//! application's, like any other procedure. The core that owns the channel answers (`cores/presence`).
//!
//! Limits: `presence_info_bytes_max`.

use super::recovery::each_member;
use super::{Environment, Session, passed_on, refuse};
use crate::app::{App, AppError, Refusal, Refused};
use crate::config::rules::Action;
use crate::decision::{Decision, Decisions, Limit, PresenceFailure, PresenceRequest};
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::Event;

/// One of the two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PresenceCall {
    Members,
    Info,
}

impl Session {
    /// Decides to ask the owner of the channel. A packet without a call id is ignored.
    pub(super) fn ask_presence<A: App>(
        &mut self,
        call: PresenceCall,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        self.expire(env.common.now, decisions);
        let Some(cid) = event.cid.map(Number::text) else {
            return;
        };
        let fields = event
            .data
            .map_or_else(Fields::default, |value| Fields::of(value.json));
        let name = fields.channel.and_then(|json| Scanner::new(json).string().ok());
        let Some(name) = name else {
            return answer_error(cid, &no_channel(), decisions);
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        if !self.may(Action::Presence, decisions.bytes(channel), env) {
            return refuse(Some(cid), &Refusal::silent(), Refused::Invoke, decisions);
        }
        match self.may_read_channel(event, decisions.bytes(channel), env) {
            Some(Ok(())) => {}
            Some(Err(refusal)) => return refuse(Some(cid), &refusal, Refused::Invoke, decisions),
            None => return,
        }
        let policy = env.common.policy.channels.find(decisions.bytes(channel));
        if !policy.is_some_and(|policy| policy.presence.is_on()) {
            return answer_error(cid, &no_presence(), decisions);
        }
        let mut rewritten = std::mem::take(&mut env.scratch.rewritten);
        let request = match call {
            PresenceCall::Members => fields.page(),
            PresenceCall::Info => {
                let is_rare = event.data.is_some_and(|value| value.rare);
                let bytes_max = env.common.settings.presence_info_bytes_max;
                fields.info(is_rare, &mut rewritten, bytes_max)
            }
        };
        match request {
            Ok(request) => {
                let request = decisions.write(|out| request.write(out));
                let token = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
                decisions.push(Decision::AskPresence {
                    channel,
                    token,
                    request,
                });
            }
            Err(fault) => {
                if let BadRequest::TooLarge(_) = fault {
                    env.common.scratch.hit(Limit::PresenceInfoBytes);
                }
                answer_error(cid, &fault.error(), decisions);
            }
        }
        env.scratch.rewritten = rewritten;
    }

    /// Appends the answer to a [`Decision::AskPresence`]: JSON, or nothing, or the reason why the request
    /// failed. `token` is the call id.
    pub fn presence_answered(
        &self,
        token: &[u8],
        answer: Result<Option<&[u8]>, PresenceFailure>,
        out: &mut Vec<u8>,
    ) {
        match answer {
            Ok(json) => encode::response(token, json, out),
            Err(failure) => encode::error(token, |out| failure_error(failure).write_json(out), out),
        }
    }
}

/// The members of the data that the calls use, each as the text of its value.
#[derive(Clone, Copy, Debug, Default)]
struct Fields<'v> {
    channel: Option<&'v str>,
    after: Option<&'v str>,
    limit: Option<&'v str>,
    info: Option<&'v str>,
}

/// Why the data of a call is refused.
enum BadRequest {
    Page,
    NoInfo,
    TooLarge(u32),
}

impl<'v> Fields<'v> {
    /// For data that is not an object, all fields are absent.
    fn of(json: &'v str) -> Fields<'v> {
        let mut fields = Fields::default();
        let scanned = each_member(json, |key, value| {
            let field = match key {
                "channel" => &mut fields.channel,
                "after" => &mut fields.after,
                "limit" => &mut fields.limit,
                "info" => &mut fields.info,
                _ => return,
            };
            *field = Some(value);
        });
        scanned.map_or_else(|_| Fields::default(), |()| fields)
    }

    fn page<'r>(&self) -> Result<PresenceRequest<'r>, BadRequest> {
        let number = |text: Option<&str>, default| text.map_or(Some(default), whole);
        let after = number(self.after, 0);
        let limit = number(self.limit, PAGE_MEMBERS).filter(|limit| *limit > 0);
        match (after, limit) {
            (Some(after), Some(limit)) => Ok(PresenceRequest::Members { after, limit }),
            (_, None) | (None, _) => Err(BadRequest::Page),
        }
    }

    fn info(
        &self,
        is_rare: bool,
        rewritten: &'v mut Vec<u8>,
        bytes_max: u32,
    ) -> Result<PresenceRequest<'v>, BadRequest> {
        let info = passed_on(self.info.ok_or(BadRequest::NoInfo)?, is_rare, rewritten);
        if info.len() > bytes_max as usize {
            return Err(BadRequest::TooLarge(bytes_max));
        }
        Ok(PresenceRequest::SetInfo(
            (info != "null").then_some(info.as_bytes()),
        ))
    }
}

/// A whole number of 32 bits.
fn whole(value: &str) -> Option<u32> {
    let number = Number::in_value(value)?.as_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with the number below"
    )]
    let whole = number as u32;
    (f64::from(whole) == number).then_some(whole)
}

fn answer_error(cid: NumberText, error: &AppError, decisions: &mut Decisions) {
    super::send(decisions, |out| {
        encode::error(cid.as_bytes(), |out| error.write_json(out), out);
    });
}

impl BadRequest {
    fn error(&self) -> AppError {
        let message = match self {
            BadRequest::Page => {
                "$presence takes {\"channel\":name,\"after\":number,\"limit\":number}, the last two from an earlier \
                 answer and from 1 to 1000"
                    .to_owned()
            }
            BadRequest::NoInfo => "$presence_info takes {\"channel\":name,\"info\":any JSON}".to_owned(),
            BadRequest::TooLarge(limit) => format!("An info may take {limit} bytes (presence_info_bytes_max)"),
        };
        AppError::new(message).named("InvalidArgumentsError")
    }
}

fn no_channel() -> AppError {
    AppError::new("The data must have a member channel with the name of a channel")
        .named("InvalidArgumentsError")
}

fn no_presence() -> AppError {
    AppError::new("The channel has no presence: no policy of [[channels]] turns it on")
        .named("InvalidActionError")
}

fn failure_error(failure: PresenceFailure) -> AppError {
    match failure {
        PresenceFailure::NoMember => {
            AppError::new("The connection is not a member of the channel: subscribe first")
                .named("InvalidActionError")
        }
        PresenceFailure::Full => {
            AppError::new("No room for the info: presence_members_max is reached").named("LimitError")
        }
        PresenceFailure::Busy => {
            AppError::new("Too many calls about presence wait for an answer: try again in a moment")
                .named("BusyError")
        }
        PresenceFailure::TimedOut => {
            AppError::new("The presence of the channel was not read in time: try again").named("TimeoutError")
        }
    }
}

/// Members of a page if the client gives no limit.
const PAGE_MEMBERS: u32 = 100;
