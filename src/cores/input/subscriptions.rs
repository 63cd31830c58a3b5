//! Begins and ends the subscriptions of a connection: by decisions of its session, or because rules no longer
//! allow one.
//!
//! Limits: `CHANNELS_PER_TURN_MAX` (`lifecycle/unsubscribing.rs`) of one connection in one turn.

use std::sync::Arc;

use crate::app::{App, Client, Name};
use crate::broker::SubscriptionLimits;
use crate::decision::{CloseReason, Decisions, Limit, Span, SubscribeOutcome, UnsubscribeOutcome, Wanted};
use crate::protocols::{Content, Session};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::lifecycle::unsubscribing::channels_per_turn_max;

impl<A: App> Core<A> {
    /// Subscribes a connection. The subscription gets exactly the publications after it: all publications
    /// before it have been delivered.
    pub(in crate::cores) fn subscribe(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) {
        if self.session(id).is_none() {
            return;
        }
        let is_by_server = token.is_some_and(|token| decisions.bytes(token).is_empty());
        let outcome = if is_by_server {
            self.subscribe_for_server(id, decisions.bytes(channel))
        } else {
            self.take_server_subscription(id, decisions.bytes(channel));
            self.begin_subscription(id, decisions.bytes(channel))
        };
        if let Some(session) = self.session(id)
            && let Some(answer) = session.subscribed(channel, token, outcome, decisions)
        {
            self.send(id, Content::Text, decisions.bytes(answer));
        }
    }

    /// As [`Core::subscribe`], but the client first gets a part of the channel's past.
    pub(in crate::cores) fn subscribe_from(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Span,
        wanted: Span,
        decisions: &mut Decisions,
    ) {
        if self.session(id).is_none() {
            return;
        }
        let wanted = Wanted::read(decisions.bytes(wanted));
        let before = self.delivery.subscriptions().count_of(id.index());
        let outcome = self.begin_subscription(id, decisions.bytes(channel));
        let was_subscribed = self.delivery.subscriptions().count_of(id.index()) == before;
        let is_first = !was_subscribed || self.take_server_subscription(id, decisions.bytes(channel));
        // A client that is already subscribed and asks for nothing of the past keeps its live subscription,
        // so that it misses nothing.
        let goes_on = !is_first && !wanted.is_asked();
        if outcome == SubscribeOutcome::Subscribed && !goes_on {
            self.recover(id, decisions.bytes(channel), decisions.bytes(token), wanted);
        } else if let Some(session) = self.session(id)
            && let Some(answer) = session.subscribed(channel, Some(token), outcome, decisions)
        {
            self.send(id, Content::Text, decisions.bytes(answer));
        }
    }

    /// Subscribes a client that has not asked for it.
    #[cold]
    fn subscribe_for_server(&mut self, id: ConnectionId, name: &[u8]) -> SubscribeOutcome {
        let count = |core: &Core<A>| core.delivery.subscriptions().count_of(id.index());
        let before = count(self);
        let outcome = self.begin_subscription(id, name);
        if count(self) > before
            && let Some(channel) = self.delivery.number_of(name)
        {
            self.server_subscriptions.add(id.index(), channel);
        }
        outcome
    }

    /// Whether the server had subscribed the connection to a channel, and its client has not asked for the
    /// channel before.
    #[inline]
    fn take_server_subscription(&mut self, id: ConnectionId, name: &[u8]) -> bool {
        if self.server_subscriptions.is_empty() {
            return false;
        }
        let channel = self.delivery.number_of(name);
        channel.is_some_and(|channel| self.server_subscriptions.remove(id.index(), channel))
    }

    fn begin_subscription(&mut self, id: ConnectionId, name: &[u8]) -> SubscribeOutcome {
        let limits = SubscriptionLimits {
            channels_max: self.limits.channels_per_connection_max,
            names_bytes_max: self.limits.channel_names_bytes_max,
        };
        let outcome = self.delivery.subscribe(id.index(), name, limits);
        match outcome {
            SubscribeOutcome::Subscribed => self.enter_room(id, name),
            SubscribeOutcome::TooMany { .. } => self.metrics.limit_hit(Limit::ChannelsPerConnection),
            SubscribeOutcome::TooLong { .. } => self.metrics.limit_hit(Limit::ChannelNamesBytes),
        }
        outcome
    }

    pub(in crate::cores) fn unsubscribe(
        &mut self,
        id: ConnectionId,
        channel: Span,
        token: Option<Span>,
        decisions: &mut Decisions,
    ) {
        let outcome = self.remove_subscription(id, decisions.bytes(channel));
        if let Some(session) = self.session(id)
            && let Some(answer) = session.unsubscribed(channel, token, outcome, decisions)
        {
            self.send(id, Content::Text, decisions.bytes(answer));
        }
    }

    pub(in crate::cores) fn remove_subscription(
        &mut self,
        id: ConnectionId,
        name: &[u8],
    ) -> UnsubscribeOutcome {
        if self.session(id).is_none() {
            return UnsubscribeOutcome::NotSubscribed;
        }
        self.leave_room(id, name);
        self.take_server_subscription(id, name);
        if !self.connections.recoveries.is_empty() {
            self.abandon_recovery(id, name);
        }
        self.forget_withheld(id, name);
        let outcome = self.delivery.unsubscribe(&mut self.connections, id, name);
        if outcome == UnsubscribeOutcome::Unsubscribed {
            self.tell_app(id, |app, client| app.unsubscribed(Name::new(name), client));
        }
        outcome
    }

    /// Tells the application of an event of an open connection whose handshake is complete.
    pub(in crate::cores) fn tell_app(
        &mut self,
        id: ConnectionId,
        tell: impl FnOnce(&mut A, &mut Client<'_>),
    ) {
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if let Phase::Open(open) = &connection.phase
            && open.session.is_open()
            && let Some(session) = open.session.id()
        {
            let scratch = &mut self.resources.scratch.common.app;
            let mut client = scratch.client(session, open.session.claims(), id.token().0);
            tell(&mut self.resources.app, &mut client);
        }
    }

    /// Kicks a connection out of some of its channels. Returns the place at which to continue, if there are
    /// more.
    pub(in crate::cores) fn kick_out_some(
        &mut self,
        id: ConnectionId,
        reason: Option<Span>,
        from: u32,
        decisions: &mut Decisions,
    ) -> Option<u32> {
        if matches!(self.session(id)?, Session::Mqtt(_)) {
            let reason = reason.map_or(&[][..], |reason| decisions.bytes(reason));
            return self.kick_out_of_some_filters(id, reason, from);
        }
        let (names, next) = self.some_channels_of(id, from);
        for name in names {
            self.remove_subscription(id, &name);
            if let Some(session) = self.session(id) {
                let message = session.kicked_out(&name, reason, decisions);
                self.send(id, Content::Text, decisions.bytes(message));
            }
        }
        next
    }

    /// Checks some subscriptions of a connection against the rules, from channel `from` on, and ends the ones that are
    /// no longer allowed. The client gets a `#kickOut` for each. Returns the channel to go on with, if there are more.
    pub(in crate::cores) fn check_subscriptions(
        &mut self,
        id: ConnectionId,
        from: u32,
        decisions: &mut Decisions,
    ) -> Option<u32> {
        if matches!(self.session(id)?, Session::Mqtt(_)) {
            return self.recheck_filters(id, from);
        }
        let (names, next) = self.some_channels_of(id, from);
        // A client that causes such checks again and again uses up its share of the turn.
        self.intake
            .use_share(names.len() as u64 / SUBSCRIPTIONS_PER_MESSAGE);
        let policy = Arc::clone(&self.resources.policy);
        for name in names {
            let session = self.session(id)?;
            if session.may_keep(&name, &policy) {
                continue;
            }
            let message = session.forbidden(&name, decisions);
            self.remove_subscription(id, &name);
            self.metrics.rules_kick_outs.add(1);
            self.send(id, Content::Text, decisions.bytes(message));
        }
        next
    }

    /// Checks some filters of an MQTT session against the rules, from `from` on. If one is no longer allowed,
    /// the connection ends. Returns the place at which to continue, if there are more.
    fn recheck_filters(&mut self, id: ConnectionId, from: u32) -> Option<u32> {
        let (connection, mqtt) = self.connections.get_with_mqtt(id)?;
        let Phase::Open(open) = &mut connection.phase else {
            return None;
        };
        let mut environment = self.resources.environment(self.time.now(), id, mqtt);
        let max = channels_per_turn_max();
        let checked = open.session.recheck_filters(from, max, &mut environment)?;
        self.count_hits(id);
        if checked.has_dropped {
            // The rest is checked when the client resumes its session.
            let text = "the rules do not allow a subscription any more";
            self.close_saying(id, CloseReason::NoLongerAllowed, text);
            return None;
        }
        checked.next
    }

    /// Ends some filters of an MQTT session. Returns where to go on, if there are more.
    fn kick_out_of_some_filters(&mut self, id: ConnectionId, reason: &[u8], from: u32) -> Option<u32> {
        let (connection, mqtt) = self.connections.get_with_mqtt(id)?;
        let Phase::Open(open) = &mut connection.phase else {
            return None;
        };
        let mut environment = self.resources.environment(self.time.now(), id, mqtt);
        let max = channels_per_turn_max();
        let kicked_out = open.session.kick_out_some(from, max, reason, &mut environment)?;
        for filter in &kicked_out.filters {
            self.presence.leave_mqtt(id.index(), filter);
        }
        kicked_out.next
    }

    /// Goes through some filters of the session that an MQTT client has resumed, from `from` on, and makes
    /// the client a member of their channels with presence. Returns the place at which to continue, if there
    /// are more.
    pub(in crate::cores) fn resume_session(&mut self, id: ConnectionId, from: u32) -> Option<u32> {
        let (connection, mqtt) = self.connections.get_with_mqtt(id)?;
        let Phase::Open(open) = &mut connection.phase else {
            return None;
        };
        let mut environment = self.resources.environment(self.time.now(), id, mqtt);
        let max = channels_per_turn_max();
        let (resumed, info) = open.session.resume_some(from, max, &mut environment)?;
        self.count_hits(id);
        for room in &resumed.rooms {
            self.enter_mqtt_room(id, room.as_bytes(), &info);
        }
        resumed.next
    }

    /// The names of as many of a connection's channels as one turn may go through, and the place at which to
    /// continue.
    pub(in crate::cores) fn some_channels_of(
        &self,
        id: ConnectionId,
        from: u32,
    ) -> (Vec<Box<[u8]>>, Option<u32>) {
        self.delivery
            .subscriptions()
            .some_channels_of(id.index(), from, channels_per_turn_max())
    }
}

/// To check this many subscriptions costs about as much as a message.
const SUBSCRIPTIONS_PER_MESSAGE: u64 = 16;
