//! The orders that an application may give beside its answer, for a client that speaks MQTT.
//!
//! | order | what happens |
//! |---|---|
//! | publish | the publication, with QoS 0 and the JSON as its payload; none to a channel of the server |
//! | disconnect | the connection ends, with code 0x98 and the text as the reason in words |
//! | kick out | the filters with exactly this name end, or all, some in each turn; the client is not told |
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
use crate::mqtt::subscriptions::{Subscriber, UnsubscribeOutcome};
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
        for (at, order) in orders.iter().enumerate() {
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
                PeerOrder::KickOut {
                    channel: Some(channel),
                    ..
                } => {
                    let filter = env.common.scratch.app.piece(channel).to_owned();
                    self.kick_out(&filter, env);
                    leave_room(&filter, env, decisions);
                }
                PeerOrder::KickOut { channel: None, .. } => {
                    let scratch = &env.common.scratch.app;
                    let reason = decisions.write(|out| {
                        for later in &orders[at + 1..] {
                            if let PeerOrder::Subscribe { channel } = *later {
                                out.extend_from_slice(scratch.piece_bytes(channel));
                                out.push(BEHIND_A_FILTER);
                            }
                        }
                    });
                    let reason = Some(reason);
                    decisions.push(Decision::KickOutAll { reason });
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

    fn kick_out<A: App>(&self, filter: &str, env: &mut Environment<'_, '_, A>) {
        let Some(session) = self.session_ref() else { return };
        if env.sessions.unsubscribe(session, filter) == UnsubscribeOutcome::Unsubscribed {
            self.tell_unsubscribed(filter, env);
        }
    }

    /// Ends some filters of the client, for a [`Decision::KickOutAll`]: looks at no more than `max` from `from` on, and
    /// keeps those of `reason`, which the application has added since. Shared subscriptions stay. A caller begins with 0.
    pub fn kick_out_some<A: App>(
        &self,
        from: u32,
        max: usize,
        reason: &[u8],
        env: &mut Environment<'_, '_, A>,
    ) -> KickedOut {
        let mut kicked_out = KickedOut {
            filters: Vec::new(),
            next: None,
        };
        let Some(session) = self.session_ref() else {
            return kicked_out;
        };
        let subscriber = Subscriber::Session(session.number);
        let (filters, next) = env.sessions.subscriptions.some_filters_of(subscriber, from, max);
        for (filter, _) in filters {
            let mut added = reason.split(|&byte| byte == BEHIND_A_FILTER);
            if added.any(|added| !added.is_empty() && *added == *filter) {
                continue;
            }
            // A filter is text.
            let text = String::from_utf8_lossy(&filter);
            self.kick_out(&text, env);
            kicked_out.filters.push(filter);
        }
        kicked_out.next = next;
        kicked_out
    }
}

/// The outcome of one step of kicking a client out of all channels.
#[derive(Debug, PartialEq, Eq)]
pub struct KickedOut {
    /// The filters that have ended.
    pub filters: Vec<Box<[u8]>>,
    /// Where to go on, if there are more.
    pub next: Option<u32>,
}

/// No filter contains it (MQTT-4.7.3-2).
const BEHIND_A_FILTER: u8 = 0;
