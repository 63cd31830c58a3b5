//! The procedure `$retain`: a client publishes, and the publication becomes the retained one of its channel,
//! like that of an MQTT client with RETAIN 1; or the client clears the retained publication.
//!
//! ```text
//!  {"event":"$retain","data":{"channel":C,"data":D},"cid":N} ──► published with D, and retained
//!  {"event":"$retain","data":{"channel":C},"cid":N}          ──► published without data; nothing is retained any more
//!  {"rid":N}   or   {"rid":N,"error":E}
//! ```
//! The session handles it before the application, if the server retains publications. Otherwise `$retain` is
//! an ordinary event. The client needs the right to publish to the channel, and the application is asked as
//! for a publication.
//!
//! Limits: `channel_name_bytes_max`; `mqtt_retained_count_max` and `mqtt_retained_bytes_max`, beyond which
//! the publication is delivered and not retained.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::channels::{allowed_data, reserved, too_long, write_publish};
use super::wills::present;
use super::{Environment, Session, passed_on, refuse, send};
use crate::app::{AllowedPublish, App, AppError, Refusal, Refused};
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decision, Decisions, Publish, Span};
use crate::session;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::Event;
use crate::socketcluster::{encode, string};

/// The event that is called.
pub(super) const RETAIN: &str = "$retain";

/// The data of the call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallData<'a> {
    #[serde(borrow)]
    channel: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

impl Session {
    /// The client calls `$retain`.
    pub(super) fn retain<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let expired = self.expire(env.common.now, decisions);
        let cid = event.cid.map(Number::text);
        let json = event.data.map_or("null", |value| value.json);
        let given = serde_json::from_str::<CallData<'_>>(json).ok();
        let named = given.and_then(|given| {
            let name = Scanner::new(given.channel.get()).string().ok()?;
            Some((decisions.write(|out| name.write_decoded(out)), given.data))
        });
        let Some((channel, data)) = named else {
            return refuse_retain(cid, MALFORMED, decisions);
        };
        if let Some(refusal) = self.why_not(channel, env, decisions) {
            return refuse_retain(cid, &refusal, decisions);
        }
        let is_allowed = env.common.settings.allow_client_publish
            && self.may(Action::Publish, decisions.bytes(channel), env);
        if !is_allowed {
            refuse(cid, &Refusal::silent(), Refused::Publish, decisions);
            return Ok(());
        }
        let mut rewritten = Vec::new();
        let data = data.map(|data| passed_on(data.get(), true, &mut rewritten));
        let asked = self.ask_to_publish(event, decisions.bytes(channel), data, expired, env)?;
        let Some(allowed) = asked else {
            return Ok(());
        };
        match allowed {
            Ok(allowed) => decide_retained(cid.as_ref(), channel, data, allowed, env, decisions),
            Err(refusal) => refuse(cid, &refusal, Refused::Publish, decisions),
        }
        self.carry_out_orders(None, env, decisions)
    }

    /// Why no publication of the channel can be retained, for any client.
    fn why_not<A: App>(
        &self,
        channel: Span,
        env: &mut Environment<'_, '_, A>,
        decisions: &Decisions,
    ) -> Option<String> {
        if let Some(refusal) = too_long("Retain", channel, env, decisions) {
            return Some(refusal);
        }
        let name = decisions.bytes(channel);
        let (channels, mqtt) = (&env.common.policy.channels, env.common.settings.mqtt);
        let refusal = reserved(name, env).or_else(|| session::why_not_retained(name, channels, mqtt));
        refusal.map(str::to_owned)
    }
}

/// Decides the publication, and its answer.
fn decide_retained<A: App>(
    cid: Option<&NumberText>,
    channel: Span,
    sent: Option<&str>,
    allowed: AllowedPublish,
    env: &mut Environment<'_, '_, A>,
    decisions: &mut Decisions,
) {
    let scratch = &mut *env.common.scratch;
    let data = allowed_data(allowed, sent, &scratch.app);
    let channels = &env.common.policy.channels;
    let marks = session::marks(channels, &mut scratch.channels, decisions.bytes(channel));
    let epoch = env.common.settings.epoch;
    let name = decisions.bytes(channel).to_vec();
    let name = |out: &mut Vec<u8>| string::write_json(&name, out);
    let message = decisions.write(|out| write_publish(name, marks, epoch, data, out));
    let publish = Publish {
        retain: true,
        ..Publish::new(channel, message, data.unwrap_or_default(), marks)
    };
    decisions.push(Decision::Publish(publish));
    let Some(cid) = cid else { return };
    if env.common.settings.has_store {
        // A store may make the answer wait, or refuse the publication.
        let token = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
        decisions.push(Decision::Acknowledge { token });
    } else {
        send(decisions, |out| encode::response(cid.as_bytes(), None, out));
    }
}

fn refuse_retain(
    cid: Option<NumberText>,
    message: &str,
    decisions: &mut Decisions,
) -> Result<(), CloseReason> {
    if let Some(cid) = cid {
        let error = AppError::new(message).named("InvalidArgumentsError");
        send(decisions, |out| {
            encode::error(cid.as_bytes(), |out| error.write_json(out), out);
        });
    }
    Ok(())
}

const MALFORMED: &str = "Expected an object with a channel, and with the data that is to be retained; without data, nothing is retained any more";
