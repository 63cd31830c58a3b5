//! Carries out the decisions of sessions, in order.
//!
//! If a publication finds the ring full, the connection keeps the remaining decisions and the remaining input, and is
//! not read until the ring has room. The same holds while a delivery must be completed before the next decision
//! (`fan_out.rs`), and while a decision about all channels of a connection is carried out, some channels in each turn.
//!
//! Limits: `CHANNELS_PER_TURN_MAX` channels of one connection (`lifecycle/unsubscribing.rs`), for `WALKS_PER_TURN_MAX`
//! connections (`resume.rs`).

use mio::Token;

use crate::app::App;
use crate::broker::{CoreSet, RingFull, Sequence};
use crate::decision::{CloseReason, Decision, Decisions, Limit, Publish, Span, Stored};
use crate::protocols::Content;
use crate::protocols::{Environment, Session};

use crate::cores::core::Core;
use crate::cores::delivery::core_store::Admission;
use crate::cores::lifecycle::connection::{Awaited, Commit, ConnectionId, Phase, Work};
use crate::cores::lifecycle::waiting::WaitsFor;
use crate::cores::outgoing::retained_asks::RetainedOptions;

impl<A: App> Core<A> {
    /// Lets the session of an open connection decide something, and carries its decisions out.
    pub(in crate::cores) fn decide(
        &mut self,
        id: ConnectionId,
        decide: impl FnOnce(&mut Session, &mut Environment<'_, A>, &mut Decisions) -> Result<(), CloseReason>,
    ) {
        let Some((connection, mqtt)) = self.connections.get_with_mqtt(id) else {
            return;
        };
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        self.decisions.clear();
        let mut environment = self.resources.environment(self.time.now(), id, mqtt);
        let was_open = open.session.is_open();
        let result = decide(&mut open.session, &mut environment, &mut self.decisions);
        let has_opened = open.session.is_open() && !was_open;
        let deadline = open.session.next_deadline(&self.resources.settings);
        let sooner = self.wheel.is_sooner(deadline, connection.armed);
        if has_opened {
            self.session_opens(id);
        }
        self.count_hits(id);
        self.carry_out(id, result);
        if has_opened {
            self.connections.begin_batching(id);
            self.resources.scratch.common.app.timers.rearm(id.token().0);
        }
        if sooner {
            self.arm(id);
        }
    }

    /// Carries out the decisions in `self.decisions`, in order. If the ring is full, or a delivery has to
    /// come first, the connection keeps the decisions that are left. Decisions that a timer or a late answer
    /// causes meanwhile queue behind them.
    ///
    /// Only this function takes the core's decisions away. It gives them back when all are carried out; if
    /// the connection keeps them, the core begins with an empty list. To carry out a decision never makes
    /// another decision.
    pub(in crate::cores) fn carry_out(&mut self, id: ConnectionId, result: Result<(), CloseReason>) {
        let done = self.send_first(id);
        if done == self.decisions.list().len() && result.is_ok() && !self.decisions.is_overfull() {
            // Only answers: the usual case, which needs no `Work`.
            return;
        }
        let mut work = Work::new(std::mem::take(&mut self.decisions), result);
        work.at = done;
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(before) = &mut connection.suspended
        {
            let had_room = before.decisions.append(&mut work.decisions);
            before.asked = None;
            before.close_reason = before
                .close_reason
                .or(work.close_reason)
                .or_else(|| no_room(had_room));
            self.decisions = work.decisions;
            self.connections.note_input(id);
            return;
        }
        self.carry_out_work(id, work);
    }

    /// Sends the messages that stand before all other decisions, unless the connection has kept decisions
    /// that come before them. Returns how many messages there were.
    #[inline]
    fn send_first(&mut self, id: ConnectionId) -> usize {
        let is_send = matches!(self.decisions.list().first(), Some(Decision::Send { .. }));
        if !is_send || self.decisions.is_overfull() || self.connections.has_suspended(id) {
            return 0;
        }
        self.connections.send_texts(id, self.decisions.texts_from(0))
    }

    /// Goes on with the decisions that a connection has kept since [`Core::carry_out`] had to stop.
    #[cold]
    pub(in crate::cores) fn carry_out_suspended(&mut self, id: ConnectionId) {
        let kept = self
            .connections
            .get_mut(id)
            .and_then(|connection| connection.take_suspended());
        if let Some(work) = kept {
            self.carry_out_work(id, *work);
            self.connections.note_input(id);
        }
    }

    /// Carries decisions out one after another, until all are done or one has to wait: then the connection
    /// keeps the rest. Inlined, so that the `Work` of a message is not copied.
    #[inline]
    fn carry_out_work(&mut self, id: ConnectionId, mut work: Work) {
        self.delivery.begin_publishing();
        if work.decisions.is_overfull() {
            work = Work::new(Decisions::new(), Err(CloseReason::MessageTooBig));
        }
        loop {
            if let Some(place) = self.delivery.awaits(
                &mut self.connections,
                &mut self.resources.inspector(),
                work.awaited,
            ) {
                return self.suspend(id, work, WaitsFor::Delivery(place));
            }
            let outcome = match work.decisions.list().get(work.at) {
                None => break,
                // The decisions about nearly all messages: in place, so that no decision is copied.
                Some(&Decision::Publish(publish)) => self.publish(publish, &mut work),
                Some(Decision::Send { .. }) => Ok(self.send_some(id, &work)),
                Some(&decision) => self.carry_out_one(id, decision, &mut work),
            };
            match outcome {
                Ok(Outcome::Next { done }) => {
                    work.at += done;
                    work.next_channel = 0;
                    work.awaited = Awaited::Unknown;
                }
                Ok(Outcome::Published(place)) => {
                    work.at += 1;
                    work.awaited = Awaited::Published(place);
                }
                Ok(Outcome::NotBeforeDelivery) => {
                    let place = work.asked.get_or_insert_with(|| self.delivery.claimed());
                    work.awaited = Awaited::Asked(*place);
                }
                Ok(Outcome::NotBeforeCommit) => return self.suspend(id, work, WaitsFor::Commit),
                Ok(Outcome::NotBeforePost) => return self.suspend(id, work, WaitsFor::Post),
                Ok(Outcome::More { next_channel }) => {
                    work.next_channel = next_channel;
                    return self.suspend(id, work, WaitsFor::Channels);
                }
                Ok(Outcome::Closed) => {
                    work.close_reason = None;
                    break;
                }
                Err(RingFull { .. }) => return self.wait_for_ring(id, work),
            }
        }
        if let Some(reason) = work.close_reason {
            self.close(id, reason);
        }
        self.decisions = work.decisions;
    }

    /// Keeps the work on its connection until the ring has room.
    fn wait_for_ring(&mut self, id: ConnectionId, work: Work) {
        if !work.has_stalled {
            self.metrics.ring_stalls.add(1);
            self.metrics.limit_hit(Limit::Ring);
        }
        self.suspend(id, work, WaitsFor::Ring);
    }

    /// Keeps the rest of the work on its connection. The connection is open: only a decision to close it
    /// could have ended it meanwhile, and that decision drops the rest.
    fn suspend(&mut self, id: ConnectionId, mut work: Work, waits_for: WaitsFor) {
        debug_assert!(self.session(id).is_some(), "an ended connection keeps no work");
        work.has_stalled = waits_for == WaitsFor::Ring;
        work.policies
            .get_or_insert_with(|| self.resources.policy.channels.version());
        if let Some(connection) = self.connections.get_mut(id) {
            self.waiting.suspend(connection, work, waits_for);
        }
        self.connections.note_input(id);
    }

    fn carry_out_one(
        &mut self,
        id: ConnectionId,
        decision: Decision,
        work: &mut Work,
    ) -> Result<Outcome, RingFull> {
        if changes_subscriptions(decision) && !matches!(work.awaited, Awaited::Asked(_)) {
            return Ok(Outcome::NotBeforeDelivery);
        }
        let decisions = &mut work.decisions;
        match decision {
            Decision::Send { .. } => return Ok(self.send_some(id, work)),
            Decision::SendBinary { message } => self.send(id, Content::Binary, decisions.bytes(message)),
            Decision::Subscribe { .. }
            | Decision::SubscribeFrom { .. }
            | Decision::ResumeSession
            | Decision::EnterRoom { .. }
                if self.presence.memberships.is_congested() =>
            {
                return Ok(Outcome::NotBeforePost);
            }
            Decision::Subscribe { channel, token } => self.subscribe(id, channel, token, decisions),
            Decision::SubscribeFrom {
                channel,
                token,
                wanted,
            } => self.subscribe_from(id, channel, token, wanted, decisions),
            Decision::SendRetained {
                filter,
                qos,
                id: subscription_id,
                except,
            } => {
                let options = RetainedOptions {
                    qos,
                    id: subscription_id,
                    except,
                };
                self.send_retained(id, decisions.bytes(filter), options);
            }
            Decision::Unsubscribe { channel, token } => self.unsubscribe(id, channel, token, decisions),
            Decision::KickOut { channel, message } => {
                self.remove_subscription(id, decisions.bytes(channel));
                self.send(id, Content::Text, decisions.bytes(message));
            }
            Decision::KickOutAll { reason } => {
                let next = self.kick_out_some(id, reason, work.next_channel, decisions);
                return Ok(Outcome::of_walk(next));
            }
            // The check uses the client's current claims, so if several are queued, only the last one needs to run.
            Decision::CheckSubscriptions if is_checked_later(decisions, work.at) => {}
            Decision::CheckSubscriptions => {
                let next = self.check_subscriptions(id, work.next_channel, decisions);
                return Ok(Outcome::of_walk(next));
            }
            Decision::ReadHistory { channel, token, call } => {
                self.begin_history_call(id, channel, token, call, decisions)
            }
            Decision::Publish(publish) => return self.publish(publish, work),
            Decision::Acknowledge { token } => {
                let mut commit = work.commit;
                if !self.acknowledge(id, token, &mut commit, &mut work.decisions) {
                    return Ok(Outcome::NotBeforeCommit);
                }
                work.commit = commit;
            }
            Decision::AwaitSaved => return Ok(self.await_saved(id, &mut work.commit)),
            Decision::SaveSession => self.waiting.await_save(self.next_save(), id),
            Decision::AskPresence {
                channel,
                token,
                request,
            } => self.ask_presence(id, channel, token, request, decisions),
            Decision::ResumeSession => {
                let next = self.resume_session(id, work.next_channel);
                return Ok(Outcome::of_walk(next));
            }
            Decision::EnterRoom { channel, info } => {
                self.enter_mqtt_room(id, decisions.bytes(channel), decisions.bytes(info));
            }
            Decision::LeaveRoom { channel } => {
                self.presence.leave_mqtt(id.index(), decisions.bytes(channel));
            }
            Decision::UserChanged => {
                if work.next_channel == 0 {
                    self.services.note_changed(id.token().0);
                    self.renew_will(id);
                    self.user_changed(id);
                } else {
                    self.go_on_renaming_mqtt(id);
                }
                if self.is_being_renamed(id) {
                    // Without this, a client could begin one change after the other.
                    work.next_channel = 1;
                    return Ok(match self.presence.memberships.is_congested() {
                        true => Outcome::NotBeforePost,
                        false => Outcome::More { next_channel: 1 },
                    });
                }
                self.tell_app(id, |app, client| app.user_changed(client));
            }
            Decision::Login => self.log_in_by_call(id, decisions),
            Decision::SetWill { will, token } => return Ok(self.change_will(id, Some(will), token, work)),
            Decision::DropWill { token } => return Ok(self.change_will(id, None, token, work)),
            Decision::EndOther { connection, reason } => {
                self.close(ConnectionId::from_token(Token(connection)), reason);
            }
            Decision::Close { reason, text } => {
                let text = String::from_utf8_lossy(decisions.bytes(text));
                self.close_saying(id, reason, &text);
                return Ok(Outcome::Closed);
            }
        }
        Ok(Outcome::Next { done: 1 })
    }

    /// Sends the messages that come next in the work, up to the next decision of another kind.
    #[inline]
    fn send_some(&mut self, id: ConnectionId, work: &Work) -> Outcome {
        let texts = work.decisions.texts_from(work.at);
        Outcome::Next {
            done: self.connections.send_texts(id, texts),
        }
    }

    #[inline]
    fn publish(&mut self, publish: Publish, work: &mut Work) -> Result<Outcome, RingFull> {
        if !work.has_stalled && (self.waiting.stalled_count() > 0 || !self.abandoned.is_empty()) {
            // The free room belongs to publications that have waited for it.
            return Err(RingFull { wake: CoreSet::EMPTY });
        }
        match self.admit(publish, work) {
            Admission::Open => {}
            Admission::Full => return Ok(Outcome::NotBeforeCommit),
            Admission::Refused(_) => return Ok(Outcome::Next { done: 1 }),
        }
        let decisions = &work.decisions;
        let place = self.delivery.publish(
            &mut self.connections,
            &mut self.resources.inspector(),
            self.time.clock(),
            decisions,
            publish,
        )?;
        if publish.marks.remembered || self.awaits_commit_of(publish) {
            let channel = decisions.bytes(publish.channel);
            work.commit = self.delivery.commit_of(publish, channel, place);
        }
        Ok(Outcome::Published(place))
    }

    /// Orders the retained publications that match a filter of an MQTT client to be sent.
    #[inline(never)]
    fn send_retained(&mut self, id: ConnectionId, filter: &[u8], options: RetainedOptions) {
        let session = self.session(id).and_then(|session| session.mqtt_session());
        if let (Some(session), Ok(filter)) = (session, std::str::from_utf8(filter)) {
            self.ask_for_retained(session, filter, options);
        }
    }

    /// Waits until all earlier changes of MQTT sessions are on disk.
    #[inline(never)]
    fn await_saved(&mut self, id: ConnectionId, commit: &mut Option<Commit>) -> Outcome {
        let awaited = match *commit {
            Some(awaited @ Commit::Saved(_)) => awaited,
            Some(_) | None => Commit::Saved(self.next_save()),
        };
        *commit = Some(awaited);
        match self.delivery.outcome(awaited) {
            None => Outcome::NotBeforeCommit,
            Some(Stored::Yes) => {
                *commit = None;
                Outcome::Next { done: 1 }
            }
            Some(Stored::NotNow | Stored::Elsewhere | Stored::Unknown) => {
                self.close(id, CloseReason::NotStored);
                Outcome::Closed
            }
        }
    }

    /// The save that will contain all changes of MQTT sessions up to now.
    fn next_save(&self) -> u64 {
        let sessions = self.connections.mqtt.as_ref();
        sessions.map_or(0, |sessions| sessions.next_save())
    }

    /// Sets a connection's will, or removes it, and answers; with a strict store, answers after the commit.
    fn change_will(
        &mut self,
        id: ConnectionId,
        will: Option<Span>,
        token: Option<Span>,
        work: &mut Work,
    ) -> Outcome {
        let decisions = &mut work.decisions;
        if !matches!(work.commit, Some(Commit::Before(_))) {
            work.commit = match will {
                Some(will) => self.set_will(id, will, token, decisions),
                None => self.drop_will(id, token, decisions),
            };
        }
        if let Some(commit) = work.commit {
            if !self.will_is_stored(id, token, commit, decisions) {
                return Outcome::NotBeforeCommit;
            }
            work.commit = None;
        }
        Outcome::Next { done: 1 }
    }

    /// Sends a message to an open connection: nothing may follow a close frame (RFC 6455 section 5.5.1).
    pub(in crate::cores) fn send(&mut self, id: ConnectionId, content: Content, message: &[u8]) {
        if self.session(id).is_some() {
            self.connections.send(id, content, message);
        }
    }

    /// The session of an open connection.
    pub(in crate::cores) fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        match &mut self.connections.get_mut(id)?.phase {
            Phase::Open(open) => Some(&mut open.session),
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::LoggingIn { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => None,
        }
    }
}

/// The result of carrying out one decision.
enum Outcome {
    /// This many decisions are done.
    Next { done: usize },
    /// A publication was published at this place. The next decision waits until this core has delivered
    /// everything before the place.
    Published(Sequence),
    /// The decision changes subscriptions, and was not carried out: first this core delivers everything
    /// published so far.
    NotBeforeDelivery,
    /// The decision waits for a commit of the store.
    NotBeforeCommit,
    /// The decision needs a letter to another core, whose box is full, and was not carried out.
    NotBeforePost,
    /// The decision goes on in the next turn, from this channel on.
    More { next_channel: u32 },
    /// The connection is closed: later decisions are dropped.
    Closed,
}

impl Outcome {
    fn of_walk(next: Option<u32>) -> Outcome {
        match next {
            Some(next_channel) => Outcome::More { next_channel },
            None => Outcome::Next { done: 1 },
        }
    }
}

/// The reason to close a connection that has no room for more waiting decisions; `None` if it had room.
fn no_room(had_room: bool) -> Option<CloseReason> {
    (!had_room).then_some(CloseReason::SlowConsumer)
}

/// Whether a later decision of the same list checks the subscriptions as well.
fn is_checked_later(decisions: &Decisions, at: usize) -> bool {
    let later = decisions.list().iter().skip(at + 1);
    later
        .rev()
        .any(|decision| matches!(decision, Decision::CheckSubscriptions))
}

/// Whether a decision has its place in the order of publications.
fn changes_subscriptions(decision: Decision) -> bool {
    match decision {
        Decision::Subscribe { .. }
        | Decision::SubscribeFrom { .. }
        | Decision::Unsubscribe { .. }
        | Decision::KickOut { .. }
        | Decision::KickOutAll { .. }
        | Decision::CheckSubscriptions => true,
        Decision::Send { .. }
        | Decision::SendBinary { .. }
        | Decision::SendRetained { .. }
        | Decision::ReadHistory { .. }
        | Decision::Publish { .. }
        | Decision::Acknowledge { .. }
        | Decision::Close { .. }
        | Decision::EndOther { .. }
        | Decision::AwaitSaved
        | Decision::SaveSession
        | Decision::AskPresence { .. }
        | Decision::ResumeSession
        | Decision::EnterRoom { .. }
        | Decision::LeaveRoom { .. }
        | Decision::UserChanged
        | Decision::Login
        | Decision::SetWill { .. }
        | Decision::DropWill { .. } => false,
    }
}
