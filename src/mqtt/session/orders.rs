//! The orders that an application may give beside its answer, for a client that speaks MQTT.
//!
//! | order | what happens |
//! |---|---|
//! | publish | the publication, with QoS 0 and the JSON as its payload; none to a channel of the server |
//! | disconnect | the connection ends, with code 0x98 and the text as the reason in words |
//! | kick out | the filters with exactly this name end, or all; the client is not told |
//! | set a token or claims, deauthenticate | the claims hold from then on; the client is given no token |
//! | subscribe | the client is subscribed to this filter with QoS 1, if the rules allow it; the client is not told |
//! | transmit, batch | nothing: MQTT has no events |
//! | invoke | refused at once: MQTT has no calls |

use super::presence::leave_room;
use super::timers::uptime_of;
use super::{Session, close_saying};
use crate::app::{App, PeerOrder};
use crate::auth::Claims;
use crate::clock::Uptime;
use crate::config::channels::MqttPayload;
use crate::decision::{CloseReason, Decision, Decisions, Publish};
use crate::json::{Unquoted, unquote};
use crate::mqtt::environment::Environment;
use crate::mqtt::publication::{self, Head};
use crate::mqtt::subscriptions::UnsubscribeOutcome;
use crate::session::{self, MqttUse};

impl Session {
    /// Prepares the buffers before the application is asked, and drops its earlier orders. It can make no
    /// calls.
    #[inline]
    pub(super) fn begin<A: App>(&self, env: &mut Environment<'_, '_, A>) {
        env.common.scratch.app.begin(env.common.address, 0, 0);
    }

    /// Changes the client's claims as the application has ordered.
    #[inline]
    pub(super) fn settle<A: App>(&mut self, env: &Environment<'_, '_, A>) -> Result<(), CloseReason> {
        if env.common.scratch.app.orders.is_empty() {
            return Ok(());
        }
        self.settle_some(env)
    }

    #[cold]
    fn settle_some<A: App>(&mut self, env: &Environment<'_, '_, A>) -> Result<(), CloseReason> {
        for at in 0..env.common.scratch.app.orders.len() {
            match env.common.scratch.app.orders[at] {
                PeerOrder::SetAuthToken {
                    claims, expires_in, ..
                } => {
                    let issued = env.common.issue(claims, expires_in)?;
                    self.claims = Some(Box::new(issued.claims));
                }
                PeerOrder::AuthenticateAs { claims } => {
                    if let Some(claims) = Claims::of_object(env.common.scratch.app.piece(claims)) {
                        self.claims = Some(Box::new(claims));
                    }
                }
                PeerOrder::Deauthenticate { .. } => self.claims = None,
                PeerOrder::Batch
                | PeerOrder::Transmit { .. }
                | PeerOrder::Invoke { .. }
                | PeerOrder::Publish { .. }
                | PeerOrder::GiveToken { .. }
                | PeerOrder::Subscribe { .. }
                | PeerOrder::KickOut { .. }
                | PeerOrder::Disconnect { .. } => continue,
            }
            let seconds = self.claims.as_deref().and_then(Claims::expires_with_leeway_at);
            let now = env.common.now;
            if let Some(open) = self.open_mut() {
                open.set_expires(seconds.map_or(Uptime::NEVER, |seconds| uptime_of(seconds, now)));
            }
        }
        Ok(())
    }

    /// Carries out the orders of the application.
    #[inline]
    pub(super) fn carry_out_orders<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if env.common.scratch.app.orders.is_empty() {
            return Ok(());
        }
        self.carry_out_some(env, decisions)
    }

    #[cold]
    fn carry_out_some<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let orders = std::mem::take(&mut env.common.scratch.app.orders);
        let mut result = Ok(());
        let mut has_other_claims = false;
        for order in &orders {
            match *order {
                PeerOrder::Publish { channel, data } => {
                    let scratch = &mut *env.common.scratch;
                    let name = scratch.app.piece_bytes(channel);
                    if session::reserved(name, &env.common.policy.channels, MqttUse::WithoutRetained)
                        .is_some()
                    {
                        continue;
                    }
                    let json = data.map_or(&[][..], |data| scratch.app.piece_bytes(data));
                    let (mut unquoted, channels) = (Vec::new(), &env.common.policy.channels);
                    let kind = channels
                        .unquotes(name)
                        .then(|| unquote(json, &mut unquoted))
                        .flatten();
                    let (payload, payload_rule) = match kind {
                        None => (json, MqttPayload::Json),
                        Some(Unquoted::Text) => (&unquoted[..], MqttPayload::Text),
                        Some(Unquoted::Bytes) => (&unquoted[..], MqttPayload::Binary),
                    };
                    let marks = session::marks(&env.common.policy.channels, &mut scratch.channels, name);
                    let channel = decisions.write(|out| out.extend_from_slice(name));
                    let head = Head {
                        is_text: payload_rule != MqttPayload::Binary,
                        payload_rule,
                        ..Head::default()
                    };
                    let message = decisions.write(|out| {
                        publication::write_head(&head, &[], out);
                        out.extend_from_slice(payload);
                    });
                    let publish = Publish::of_mqtt(channel, message, payload, marks, false);
                    decisions.push(Decision::Publish(publish));
                }
                PeerOrder::KickOut { channel, .. } => {
                    let channel = channel.map(|channel| env.common.scratch.app.piece(channel).to_owned());
                    self.kick_out(channel.as_deref(), env);
                    leave_room(channel.as_deref(), env, decisions);
                }
                PeerOrder::Disconnect { code, reason } => {
                    let text = env.common.scratch.app.piece(reason).to_owned();
                    result = close_saying(decisions, CloseReason::Application(code), &text);
                }
                PeerOrder::Subscribe { channel } => {
                    let filter = env.common.scratch.app.piece(channel).to_owned();
                    self.subscribe_by_server(&filter, env, decisions);
                }
                PeerOrder::SetAuthToken { .. }
                | PeerOrder::AuthenticateAs { .. }
                | PeerOrder::Deauthenticate { .. } => {
                    has_other_claims = true;
                    decisions.push(Decision::UserChanged);
                }
                PeerOrder::Batch
                | PeerOrder::Transmit { .. }
                | PeerOrder::Invoke { .. }
                | PeerOrder::GiveToken { .. } => {}
            }
        }
        env.common.scratch.app.orders = orders;
        env.common.scratch.app.orders.clear();
        if has_other_claims {
            decisions.push(Decision::CheckSubscriptions);
        }
        result
    }

    fn kick_out<A: App>(&self, channel: Option<&str>, env: &mut Environment<'_, '_, A>) {
        let Some(session) = self.session_ref() else { return };
        match channel {
            Some(channel) => {
                if env.sessions.unsubscribe(session, channel) == UnsubscribeOutcome::Unsubscribed {
                    self.tell_unsubscribed(channel, env);
                }
            }
            None => {
                for (filter, _) in env.sessions.unsubscribe_all(session) {
                    self.tell_unsubscribed(&String::from_utf8_lossy(&filter), env);
                }
            }
        }
    }
}
