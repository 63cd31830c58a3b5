//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 and 3.10. Each filter has a code of its own, and a refused filter
//! does not keep the others from being granted.
//!
//! The rules apply to a filter as to a channel. A filter with wildcards is allowed only if the rules allow
//! all names that it could match (`auth/rules/filter.rs`); it is never narrowed.
//!
//! SUBACK for a shared subscription waits until the core that owns the group has added the session
//! (`mqtt/shares.rs`); for a subscription to procedures, until all cores know the service (`serve.rs`).
//!
//! Limits: `channels_per_connection_max`, `channel_names_bytes_max`, `channel_name_bytes_max`, `mqtt_levels_max`.

use super::long_packets::PartialAnswer;
use super::presence::leave_room;
use super::serve::{self, Waiting};
use super::{Denied, Refused, Session, State, close_saying, refused};
use crate::app::{App, DecisionNumber, Name, Refusal};
use crate::decision::{CloseReason, Decision, Decisions, Limit};
use crate::hooks::Subject;
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::{PacketId, Qos, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
use crate::mqtt::shares::JoinOutcome;
use crate::mqtt::subscriptions::{Options, SubscribeOutcome, UnsubscribeOutcome};
use crate::mqtt::topic::Filter;
use crate::mqtt::{ReasonCode, encode};

impl Session {
    /// The client subscribes.
    pub(super) fn subscribe<A: App>(
        &mut self,
        subscribe: Subscribe<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let is_own_share = |(filter, options): (&str, SubscribeOptions)| {
            options.no_local && matches!(Filter::parse(filter), Ok(Filter::Shared { .. }))
        };
        if subscribe.filters().any(is_own_share) {
            // MQTT-3.8.3-4
            return close_saying(
                decisions,
                CloseReason::MqttProtocolError,
                "No Local with a shared subscription",
            );
        }
        let id = subscribe.subscription_id.unwrap_or(0);
        let allowed = match self.ask_about(subscribe, env) {
            Ok(allowed) => allowed,
            Err((number, decided)) => {
                self.await_decision(number, decided, env);
                return Ok(());
            }
        };
        self.settle(env)?;
        let wait = self
            .wait_of_parts()
            .unwrap_or_else(|| env.sessions.shares.next_wait());
        let mut owners = 0;
        let mut codes = Vec::with_capacity(subscribe.count);
        let mut granted = Vec::new();
        let mut text = None;
        env.common.scratch.count_packets_of_array(subscribe.count - 1);
        for (at, ((filter, options), allowed)) in subscribe.filters().zip(allowed).enumerate() {
            let outcome = allowed.and_then(|()| match serve::procedures(filter) {
                // Its code is set when the answer is complete.
                Some(_) if self.has_parts() => refused(
                    ReasonCode::QuotaExceeded,
                    "the packet has too many filters to serve procedures: subscribe to them in one of their own",
                ),
                Some(procedures) => {
                    let waiting = Waiting {
                        wait,
                        behind: u32::try_from(subscribe.count - at).unwrap_or(u32::MAX),
                        text: filter,
                    };
                    let asked = (subscribe.properties, id);
                    self.serve(procedures, asked, waiting, env)
                        .map(|_| Granted::Service)
                }
                None => self.subscribe_to(filter, options, id, wait, env),
            });
            codes.push(match outcome {
                Ok(Granted::Plain(outcome)) => {
                    granted.push((filter, options, outcome));
                    granted_code(options.qos)
                }
                Ok(Granted::Shared { waits }) => {
                    owners += usize::from(waits);
                    granted_code(options.qos)
                }
                Ok(Granted::Service) => {
                    owners += 1;
                    granted_code(Qos::AtMostOnce)
                }
                Err(refusal) => {
                    text.get_or_insert(refusal.text);
                    refusal.code
                }
            });
        }
        // Publications from now on come live, and only those retained before are to be sent. So this decision
        // is the first: the decisions behind it may have to wait, for the store or for room in the messages
        // of presence.
        for &(filter, options, outcome) in &granted {
            self.send_retained(filter, options, outcome, id, env, decisions);
        }
        let part = PartialAnswer {
            codes,
            text,
            wait: (owners > 0).then_some(wait),
            owners,
        };
        match self.complete(part) {
            Some(answer) => self.answer_subscribe(subscribe.packet_id, &answer, env, decisions),
            None if owners > 0 => env.sessions.shares.begin_wait(wait),
            None => {}
        }
        for &(filter, _, _) in &granted {
            self.enter_room(filter, env, decisions);
        }
        self.carry_out_orders(env, decisions)
    }

    /// Decides to send SUBACK, or lets it wait for the owners of groups.
    fn answer_subscribe<A: App>(
        &self,
        packet_id: PacketId,
        answer: &PartialAnswer,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let State::Open(open) = &self.state else {
            return;
        };
        let write = |out: &mut Vec<u8>| {
            open.write_explained(answer.text, out, |text, out| {
                encode::suback(out, open.version, packet_id, &answer.codes, text);
            });
        };
        self.await_saved(env, decisions);
        let client = env.sessions.client(open.session.number, open.session.serial);
        if let Some(wait) = answer.wait
            && let Some(client) = client
        {
            let mut packet = Vec::new();
            write(&mut packet);
            if !packet.is_empty() {
                let shares = &mut env.sessions.shares;
                shares.wait(wait, open.session, client.address, answer.owners, packet);
            } else {
                env.sessions.shares.forget_wait(wait);
            }
        } else {
            send_unless_empty(decisions, write);
        }
    }

    /// Decides to send retained publications, if the client wants them.
    fn send_retained<A: App>(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        outcome: SubscribeOutcome,
        id: u32,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let is_wanted = match (options.retain_handling, outcome) {
            (RetainHandling::Always, _) | (RetainHandling::IfNew, SubscribeOutcome::New) => true,
            (RetainHandling::IfNew | RetainHandling::Never, _) => false,
        };
        let State::Open(open) = &mut self.state else {
            return;
        };
        if is_wanted {
            let filter = decisions.write(|out| out.extend_from_slice(filter.as_bytes()));
            decisions.push(Decision::SendRetained {
                filter,
                qos: options.qos as u8,
                id,
                // MQTT-3.8.3-3 applies to all publications.
                except: match options.no_local {
                    true => open.client_hash(env.sessions),
                    false => 0,
                },
            });
        }
    }

    /// Asks the rules and the application about all filters, before any of them is granted.
    ///
    /// # Errors
    /// The application decides later about one of the filters.
    fn ask_about<A: App>(
        &mut self,
        subscribe: Subscribe<'_>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Vec<Result<(), Refused>>, Later> {
        self.begin(env);
        let mut allowed = Vec::with_capacity(subscribe.count);
        for (question, (text, _)) in subscribe.filters().enumerate() {
            match self.ask_about_one(question, text, env) {
                Ok(()) => allowed.push(Ok(())),
                Err(Denied::Refused(refusal)) => allowed.push(Err(refusal)),
                Err(Denied::Deferred { number, .. }) => {
                    let decided = allowed.iter().map(|allowed| match allowed {
                        Ok(()) => Ok(()),
                        Err(_) => Err(Refusal::silent()),
                    });
                    return Err((number, decided.collect()));
                }
            }
        }
        Ok(allowed)
    }

    fn ask_about_one<A: App>(
        &mut self,
        question: usize,
        text: &str,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), Denied> {
        let Ok(Filter::Plain(filter) | Filter::Shared { filter, .. }) = Filter::parse(text) else {
            return refused(
                ReasonCode::TopicFilterInvalid,
                "+ and # stand for whole levels, and # comes last",
            );
        };
        self.check_size(text, filter, env)?;
        if let Some(procedures) = serve::procedures(text) {
            return Ok(self.may_serve(procedures, env)?);
        }
        if !self.may_subscribe(filter, env) {
            return refused(
                ReasonCode::NotAuthorized,
                "the rules do not allow all that the filter could match",
            );
        }
        let subject = Subject::SubscribeFilter { filter };
        let mut hooks = env.common.policy.hooks.iter();
        // With each answer the packet is handled again from its beginning.
        if self.filters_before() + question >= HOOKED_FILTERS_MAX
            && hooks.any(|hooks| hooks.find(&subject).is_some())
        {
            return refused(
                ReasonCode::QuotaExceeded,
                "a hook is asked about no more than the first 100 filters of a packet",
            );
        }
        let asked = env.common.ask(
            question,
            self.asked(),
            subject,
            |app, peer| app.subscribe(Name::new(filter.as_bytes()), None, peer),
            |_| (),
        );
        asked.map_err(|refusal| {
            let text = "the application refuses the subscription";
            Denied::by_application(&refusal, question, ReasonCode::NotAuthorized, text)
        })
    }

    /// Subscribes the client, which has not asked for it, to a filter with QoS 1, if the rules allow it. A group has no
    /// such members.
    pub(super) fn subscribe_by_server<A: App>(
        &mut self,
        filter: &str,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let is_allowed = matches!(Filter::parse(filter), Ok(Filter::Plain(_)))
            && self.check_size(filter, filter, env).is_ok()
            && self.may_subscribe(filter, env);
        let options = SubscribeOptions {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::IfNew,
        };
        if !is_allowed {
            return;
        }
        let Ok(Granted::Plain(outcome)) = self.subscribe_to(filter, options, 0, 0, env) else {
            return;
        };
        self.enter_room(filter, env, decisions);
        if outcome == SubscribeOutcome::New {
            let filter = decisions.write(|out| out.extend_from_slice(filter.as_bytes()));
            decisions.push(Decision::SendRetained {
                filter,
                qos: options.qos as u8,
                id: 0,
                except: 0,
            });
        }
    }

    fn subscribe_to<A: App>(
        &self,
        text: &str,
        options: SubscribeOptions,
        id: u32,
        wait: u64,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Granted, Refused> {
        let (filter, is_shared) = match Filter::parse(text) {
            Ok(Filter::Plain(filter)) => (filter, false),
            Ok(Filter::Shared { filter, .. }) => (filter, true),
            Err(_) => {
                return refused(
                    ReasonCode::TopicFilterInvalid,
                    "+ and # stand for whole levels, and # comes last",
                );
            }
        };
        let Some(session) = self.session_ref() else {
            return refused(ReasonCode::Unspecified, "the connection has ended");
        };
        let options = Options {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        };
        let limits = env.settings.subscription_limits;
        if is_shared {
            return match env.sessions.join_group(session, text, options, limits, wait) {
                JoinOutcome::Is(outcome) => bounded(outcome, env).map(|_| Granted::Shared { waits: false }),
                JoinOutcome::Waits(outcome) => bounded(outcome, env).map(|_| Granted::Shared { waits: true }),
                JoinOutcome::Busy => too_many_wait(env),
            };
        }
        let outcome = env.sessions.subscribe(session, filter, options, limits);
        bounded(outcome, env).map(Granted::Plain)
    }

    fn check_size<A: App>(
        &self,
        text: &str,
        filter: &str,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), Refused> {
        if text.len() > env.common.settings.channel_name_bytes_max as usize {
            env.common.scratch.hit(Limit::ChannelNameBytes);
            return refused(
                ReasonCode::TopicFilterInvalid,
                "the filter is longer than the server allows",
            );
        }
        if filter.split('/').count() > env.settings.levels_max as usize {
            env.common.scratch.hit(Limit::MqttLevels);
            return refused(
                ReasonCode::TopicFilterInvalid,
                "the filter has more levels than the server allows",
            );
        }
        Ok(())
    }

    /// The client unsubscribes.
    pub(super) fn unsubscribe<A: App>(
        &mut self,
        unsubscribe: Unsubscribe<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let Some(session) = self.session_ref() else { return };
        env.common.scratch.count_packets_of_array(unsubscribe.count - 1);
        let codes: Vec<_> = unsubscribe
            .filters()
            .map(|text| {
                let outcome = match Filter::parse(text) {
                    Ok(Filter::Plain(filter)) => env.sessions.unsubscribe(session, filter),
                    Ok(Filter::Shared { .. }) => env.sessions.leave_group(session, text),
                    Err(_) => return ReasonCode::TopicFilterInvalid,
                };
                if outcome == UnsubscribeOutcome::Unsubscribed {
                    self.stop_serving(text, env);
                    self.tell_unsubscribed(text, env);
                    leave_room(text, env, decisions);
                }
                unsubscribed_code(outcome)
            })
            .collect();
        let part = PartialAnswer {
            codes,
            ..PartialAnswer::default()
        };
        let Some(answer) = self.complete(part) else { return };
        self.await_saved(env, decisions);
        let State::Open(open) = &self.state else { return };
        send_unless_empty(decisions, |out| {
            open.write_explained(None, out, |text, out| {
                encode::unsuback(out, open.version, unsubscribe.packet_id, &answer.codes, text);
            });
        });
    }
}

impl Session {
    /// Tells the application that the client is subscribed to a filter no more.
    pub(super) fn tell_unsubscribed<A: App>(&self, filter: &str, env: &mut Environment<'_, '_, A>) {
        let (claims, address) = (self.claims.as_deref(), env.common.address);
        let mut client = env.common.scratch.app.client(self.id, claims, address);
        env.common
            .app
            .unsubscribed(Name::new(filter.as_bytes()), &mut client);
    }
}

/// Decides to send the packet of `write`, unless `write` has written nothing because the packet would be too
/// large for the client.
fn send_unless_empty(decisions: &mut Decisions, write: impl FnOnce(&mut Vec<u8>)) {
    let message = decisions.write(write);
    if !decisions.bytes(message).is_empty() {
        decisions.push(Decision::Send { message });
    }
}

/// The number of the decision about a filter, and the decisions about the filters before it.
type Later = (DecisionNumber, Vec<Result<(), Refusal>>);

const fn unsubscribed_code(outcome: UnsubscribeOutcome) -> ReasonCode {
    match outcome {
        UnsubscribeOutcome::Unsubscribed => ReasonCode::Success,
        UnsubscribeOutcome::NotSubscribed => ReasonCode::NoSubscriptionExisted,
    }
}

/// A hook is asked about at most this many filters of one packet.
const HOOKED_FILTERS_MAX: usize = 100;

/// The subscription that a client is granted with a filter.
enum Granted {
    Plain(SubscribeOutcome),
    /// It becomes a service when all cores know it.
    Service,
    /// It is a member of a group. Retained publications are not for groups.
    Shared {
        /// Whether the owner of the group has to answer before SUBACK is sent.
        waits: bool,
    },
}

/// Refuses a subscription because too many SUBACKs wait.
pub(super) fn too_many_wait<A: App, T>(env: &mut Environment<'_, '_, A>) -> Result<T, Refused> {
    env.common.scratch.hit(Limit::MqttJoins);
    refused(ReasonCode::QuotaExceeded, "too many clients are joining groups")
}

/// Refuses a subscription beyond the limits.
pub(super) fn bounded<A: App>(
    outcome: SubscribeOutcome,
    env: &mut Environment<'_, '_, A>,
) -> Result<SubscribeOutcome, Refused> {
    match outcome {
        SubscribeOutcome::New | SubscribeOutcome::Replaced => Ok(outcome),
        SubscribeOutcome::TooMany { .. } => {
            env.common.scratch.hit(Limit::ChannelsPerConnection);
            refused(
                ReasonCode::QuotaExceeded,
                "the client has as many filters as it may",
            )
        }
        SubscribeOutcome::TooLong { .. } => {
            env.common.scratch.hit(Limit::ChannelNamesBytes);
            refused(
                ReasonCode::QuotaExceeded,
                "the filters of the client are too long together",
            )
        }
    }
}

const fn granted_code(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
