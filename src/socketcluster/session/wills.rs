//! The procedure `$will`: a client leaves a publication for the case that its connection ends unexpectedly,
//! or takes it back.
//!
//! ```text
//!  {"event":"$will","data":{"channel":C,"data":D,"delay_ms":MS,"session":KEY,"retain":true},"cid":N} ──► Decision::SetWill
//!  {"event":"$will","data":null,"cid":N}                                               ──► Decision::DropWill
//!  {"rid":N}   or   {"rid":N,"error":E}                                                ◄── Session::will_set
//! ```
//! The session handles it before the application, unless `wills_bytes_max` is 0. Then `$will` is an ordinary
//! event. The client needs the right to publish to the channel, and the application is asked as for a
//! publication, both when the will is set: by the time it is published, the session has ended.
//!
//! Limits: `channel_name_bytes_max`, `will_bytes_max`, `will_delay_max_ms`, [`SESSION_KEY_BYTES_MAX`]; the
//! core keeps `wills_bytes_max`.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::channels::{allowed_data, reserved};
use super::{Environment, Session, refuse, send};
use crate::app::{App, AppError, Refusal, Refused};
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Span};
use crate::session;
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::Event;
use crate::wills::{HeldWill, SessionKey, Will, WillFault};

/// The event that is called.
pub(super) const WILL: &str = "$will";

/// Most bytes of a session key.
const SESSION_KEY_BYTES_MAX: usize = 256;

/// The data of the call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallData<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    delay_ms: u32,
    #[serde(borrow, default)]
    session: Option<Cow<'a, str>>,
    #[serde(default)]
    retain: bool,
}

/// A value that is present, `null` included.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Session {
    /// The client calls `$will`.
    pub(super) fn will<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.common.now, decisions);
        let cid = event.cid.map(Number::text);
        let json = event.data.map_or("null", |value| value.json);
        let given = match serde_json::from_str::<Option<CallData<'_>>>(json) {
            Ok(Some(given)) => given,
            Ok(None) => {
                let token = cid.map(|cid| decisions.write(|out| out.extend_from_slice(cid.as_bytes())));
                decisions.push(Decision::DropWill { token });
                return Ok(());
            }
            Err(_) => return refuse_will(cid, &malformed(), decisions),
        };
        // As in a publish, the name may contain half a surrogate pair, which a `str` cannot hold.
        let Ok(name) = Scanner::new(given.channel.get()).string() else {
            return refuse_will(cid, &malformed(), decisions);
        };
        let mut channel = Vec::new();
        name.write_decoded(&mut channel);
        if let Err(error) = self.check_sizes(&given, channel.len(), env) {
            return refuse_will(cid, &error, decisions);
        }
        if let Some(refusal) = reserved(&channel, env) {
            return refuse_will(cid, &invalid(refusal), decisions);
        }
        let (channels, mqtt) = (&env.common.policy.channels, env.common.settings.mqtt);
        if given.retain
            && let Some(refusal) = session::why_not_retained(&channel, channels, mqtt)
        {
            return refuse_will(cid, &invalid(refusal), decisions);
        }
        if !env.common.settings.allow_client_publish || !self.may(Action::Publish, &channel, env) {
            refuse(cid, &Refusal::silent(), Refused::Publish, decisions);
            return Ok(());
        }
        let mut rewritten = Vec::new();
        let data = given
            .data
            .map(|data| super::passed_on(data.get(), true, &mut rewritten));
        let Some(allowed) = self.ask_to_publish(event, &channel, data, expired, env)? else {
            return Ok(());
        };
        match allowed {
            Ok(allowed) => {
                let data = allowed_data(allowed, data, &env.common.scratch.app);
                let user = self.claims.as_deref().and_then(|claims| claims.user());
                let held = HeldWill {
                    will: Will {
                        channel: channel.into(),
                        data: data.map(Box::from),
                        delay: Duration::from_millis(given.delay_ms.into()),
                        retain: given.retain,
                        claims: self.claims.as_deref().map(|claims| claims.json().into()),
                    },
                    session: given
                        .session
                        .map(|key| SessionKey::new(user.as_deref().map(str::as_bytes), key.as_bytes())),
                };
                let will = decisions.write(|out| held.write(out));
                let token = cid.map(|cid| decisions.write(|out| out.extend_from_slice(cid.as_bytes())));
                decisions.push(Decision::SetWill { will, token });
            }
            Err(refusal) => refuse(cid, &refusal, Refused::Publish, decisions),
        }
        self.carry_out_orders(None, env, decisions)
    }

    /// The answer to a [`Decision::SetWill`] or [`Decision::DropWill`] that was carried out; `None` if there is none.
    /// `token` is the call id.
    pub fn will_set(
        &self,
        token: Option<Span>,
        outcome: Result<(), WillFault>,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        let cid = NumberText::copied(decisions.bytes(token?));
        Some(decisions.write(|out| match outcome {
            Ok(()) => encode::response(cid.as_bytes(), None, out),
            Err(fault) => encode::error(cid.as_bytes(), |out| not_set(fault).write_json(out), out),
        }))
    }

    fn check_sizes<A: App>(
        &self,
        given: &CallData<'_>,
        channel_bytes: usize,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), AppError> {
        let name_max = env.common.settings.channel_name_bytes_max;
        if channel_bytes > name_max as usize {
            env.common.scratch.hit(Limit::ChannelNameBytes);
            return Err(invalid(format!(
                "The channel name of the will is longer than the limit of {name_max} bytes"
            )));
        }
        let bytes_max = env.common.settings.will_bytes_max;
        let data_bytes = given.data.map_or(0, |data| data.get().len());
        if channel_bytes + data_bytes > bytes_max as usize {
            env.common.scratch.hit(Limit::WillBytes);
            return Err(invalid(format!(
                "The channel and the data of a will may take {bytes_max} bytes (will_bytes_max)"
            )));
        }
        let delay_max = env.common.settings.will_delay_max;
        if Duration::from_millis(given.delay_ms.into()) > delay_max {
            env.common.scratch.hit(Limit::WillDelay);
            let ms = delay_max.as_millis();
            return Err(invalid(format!("A will may wait {ms} ms at most")));
        }
        if given
            .session
            .as_ref()
            .is_some_and(|key| key.len() > SESSION_KEY_BYTES_MAX)
        {
            return Err(invalid(format!(
                "The session key is longer than {SESSION_KEY_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

fn refuse_will(
    cid: Option<NumberText>,
    error: &AppError,
    decisions: &mut Decisions,
) -> Result<(), CloseReason> {
    if let Some(cid) = cid {
        send(decisions, |out| {
            encode::error(cid.as_bytes(), |out| error.write_json(out), out);
        });
    }
    Ok(())
}

fn malformed() -> AppError {
    invalid(
        "A will is null, or an object with a channel and, as you need them, data, delay_ms (a whole number of \
         milliseconds), session (a text) and retain (true or false)",
    )
}

fn invalid(message: impl Into<String>) -> AppError {
    AppError::new(message).named("InvalidArgumentsError")
}

fn not_set(fault: WillFault) -> AppError {
    match fault {
        WillFault::NoRoom => {
            AppError::new("The server has no room for another will: the former one stays, if there is one")
                .named("WillsFullError")
        }
        WillFault::NotNow => AppError::new(
            "The will cannot be stored now; the former one stays, if there is one: try again later",
        )
        .named("StoreError"),
        WillFault::NotStored => {
            AppError::new("The will is set, but it could not be stored, so that a crash may lose it")
                .named("StoreError")
        }
    }
}
