//! Lets this core's connections join and leave the rooms of channels with presence.

use crate::app::App;
use crate::auth::Claims;
use crate::mqtt::session;
use crate::mqtt::subscriptions::Subscriber;
use crate::presence::Departure;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::unsubscribing::channels_per_turn_max;
use crate::cores::presence::memberships::MemberOf;
use crate::cores::presence::mqtt_rooms::{ReviewPosition, ReviewStage};
use crate::cores::presence::state::Presence;

impl<A: App> Core<A> {
    /// A connection has subscribed to a channel: it joins the room of the channel, if there is one.
    #[inline]
    pub(in crate::cores) fn enter_room(&mut self, id: ConnectionId, name: &[u8]) {
        if self.presence.memberships.is_on() {
            self.enter_room_if_any(id, name);
        }
    }

    #[cold]
    fn enter_room_if_any(&mut self, id: ConnectionId, name: &[u8]) {
        let Some(channel) = self.delivery.number_of(name) else {
            return;
        };
        let channels = &self.resources.policy.channels;
        let has_presence = || channels.find(name).is_some_and(|policy| policy.presence.is_on());
        let subscriptions = self.delivery.subscriptions();
        let memberships = &mut self.presence.memberships;
        if !memberships.mark(channel, subscriptions, has_presence) {
            return;
        }
        let Some(member) = self.member_of(id) else { return };
        self.join_room(id.index(), channel, member);
        self.presence.due = self.time.now().uptime;
    }

    /// A connection is about to leave a channel: it leaves the room, if there is one.
    #[inline]
    pub(in crate::cores) fn leave_room(&mut self, id: ConnectionId, name: &[u8]) {
        if !self.presence.memberships.has_marks() {
            return;
        }
        let Some(channel) = self.delivery.number_of(name) else {
            return;
        };
        let Some(session) = self.session(id).and_then(|session| session.id()) else {
            return;
        };
        let departure = Departure::Unsubscribed;
        let subscriptions = self.delivery.subscriptions();
        self.presence
            .memberships
            .leave(channel, id.index(), session, departure, subscriptions);
        self.presence.due = self.time.now().uptime;
    }

    /// An MQTT client has a filter that names a channel with presence: it joins the room. `info` is the
    /// client's info, as JSON.
    pub(in crate::cores) fn enter_mqtt_room(&mut self, id: ConnectionId, name: &[u8], info: &[u8]) {
        let policy = self.resources.policy.channels.find(name);
        if !policy.is_some_and(|policy| policy.presence.is_on()) {
            // A reload has ended the presence of the channel since the session decided this.
            return;
        }
        let Some(member) = self.member_of(id) else { return };
        self.keeps_state = true;
        let Presence {
            mqtt, memberships, ..
        } = &mut self.presence;
        mqtt.join(
            id.index(),
            name,
            info,
            member,
            self.delivery.hasher(),
            memberships,
        );
        self.presence.due = self.time.now().uptime;
    }

    /// The user of a connection may have changed: then it is another member of its rooms.
    #[cold]
    pub(in crate::cores) fn user_changed(&mut self, id: ConnectionId) {
        if self.connections.speaks_mqtt(id)
            && let Some(member) = self.member_of(id)
        {
            self.presence
                .mqtt
                .rename(id.index(), member, self.delivery.hasher());
            self.go_on_renaming_mqtt(id);
        }
        if self.presence.memberships.identity(id.index()).is_none() {
            return;
        }
        let Some(member) = self.member_of(id) else { return };
        self.presence
            .memberships
            .rename(id.index(), self.delivery.hasher(), &member);
        let looks = self.rename_some_members();
        // A client that changes its user again and again uses up its share of the turn.
        self.intake.use_share(looks as u64 / CHANNELS_PER_MESSAGE);
        self.presence.due = self.time.now().uptime;
    }

    /// Whether the owners of a connection's rooms are being told that it is another member now.
    pub(in crate::cores) fn is_being_renamed(&self, id: ConnectionId) -> bool {
        self.presence.memberships.is_renaming(id.index()) || self.presence.mqtt.is_renaming(id.index())
    }

    /// Goes on with an MQTT connection that is another member now: some of its rooms are told.
    pub(in crate::cores) fn go_on_renaming_mqtt(&mut self, id: ConnectionId) {
        if !self.presence.mqtt.is_renaming(id.index()) {
            return;
        }
        let Presence {
            mqtt, memberships, ..
        } = &mut self.presence;
        let looks = mqtt.rename_some(id.index(), channels_per_turn_max(), memberships);
        self.intake.use_share(looks as u64 / CHANNELS_PER_MESSAGE);
        self.presence.due = self.time.now().uptime;
    }

    /// Goes on with connections that have become other members. Returns how many of their channels it has
    /// looked at.
    pub(super) fn rename_some_members(&mut self) -> usize {
        let subscriptions = self.delivery.subscriptions();
        let memberships = &mut self.presence.memberships;
        memberships.rename_some(channels_per_turn_max(), subscriptions)
    }

    /// Goes on with a review after a reload, and tells owners about some of the subscribers of channels whose
    /// presence was turned on or off.
    pub(super) fn review_presence(&mut self) {
        let channels = &self.resources.policy.channels;
        let has_presence = |name: &[u8]| channels.find(name).is_some_and(|policy| policy.presence.is_on());
        let subscriptions = self.delivery.subscriptions();
        self.presence.memberships.review_some(subscriptions, has_presence);
        let Some(step) = self.presence.memberships.next_step(subscriptions) else {
            return;
        };
        for &index in &step.subscribers {
            let Some(id) = self.connections.id_at(index) else {
                continue;
            };
            let member = self.member_of(id);
            if step.joins {
                if let Some(member) = member {
                    self.join_room(index, step.channel, member);
                }
                continue;
            }
            let session = member.map(|member| member.session);
            if let Some(session) = session.or_else(|| self.unsubscribing.session_of(id)) {
                let subscriptions = self.delivery.subscriptions();
                self.presence
                    .memberships
                    .step_leaves(&step, index, session, subscriptions);
            }
        }
        self.presence.memberships.note_step(&step);
    }

    /// Goes on with a review of the rooms of MQTT connections.
    pub(super) fn review_mqtt_rooms(&mut self) {
        let mut looks = 0;
        while looks < MQTT_LOOKS_PER_TURN_MAX
            && let Some(place) = self.presence.mqtt.take_place()
        {
            if place.connection >= self.connections.places() {
                self.presence.mqtt.end_review();
                return;
            }
            let (next, count) = self.review_mqtt_at(place, MQTT_LOOKS_PER_TURN_MAX - looks);
            self.presence.mqtt.go_on_at(next);
            looks += 1 + count;
        }
    }

    /// Looks at no more than `max` rooms or filters of a connection. Returns the next place, and how many it
    /// has looked at.
    fn review_mqtt_at(&mut self, place: ReviewPosition, max: usize) -> (ReviewPosition, usize) {
        let ReviewPosition { connection, stage } = place;
        let after = ReviewPosition::of(connection.saturating_add(1));
        let id = self.connections.id_at(connection);
        let Some(id) = id.filter(|&id| self.connections.speaks_mqtt(id)) else {
            return (after, 0);
        };
        let session = self.session(id).and_then(|session| session.mqtt_session());
        let (Some(session), Some(member)) = (session, self.member_of(id)) else {
            return (after, 0);
        };
        let subscriber = Subscriber::Session(session.number);
        let Some(sessions) = &self.connections.mqtt else {
            return (after, 0);
        };
        let channels = &self.resources.policy.channels;
        let has_presence = |name: &[u8]| channels.find(name).is_some_and(|policy| policy.presence.is_on());
        let subscriptions = &sessions.subscriptions;
        match stage {
            ReviewStage::Rooms(name) => {
                let has_filter =
                    |name: &[u8]| str::from_utf8(name).is_ok_and(|name| subscriptions.has(subscriber, name));
                let Presence {
                    mqtt, memberships, ..
                } = &mut self.presence;
                let (last, count) = mqtt.review_some(
                    connection,
                    (name.as_deref(), max),
                    &member,
                    |name| has_presence(name) && has_filter(name),
                    memberships,
                );
                let stage = match last {
                    Some(_) => ReviewStage::Rooms(last),
                    None => ReviewStage::Filters(0),
                };
                (ReviewPosition { connection, stage }, count)
            }
            ReviewStage::Filters(_) if !channels.has_presence() => (after, 0),
            ReviewStage::Filters(from) => {
                let (filters, next) = subscriptions.some_filters_of(subscriber, from, max);
                let mut info = Vec::new();
                let bytes_max = self.resources.settings.common.presence_info_bytes_max as usize;
                let client_id = sessions.client_id(session).unwrap_or_default();
                session::write_member_info(client_id, bytes_max, &mut info);
                let count = filters.len();
                let names = filters.into_iter().map(|(name, _)| name);
                let names: Vec<_> = names
                    .filter(|name| session::makes_member(name) && has_presence(name))
                    .collect();
                for name in names {
                    self.enter_mqtt_room(id, &name, &info);
                }
                let next = next.map(|next| ReviewPosition {
                    connection,
                    stage: ReviewStage::Filters(next),
                });
                (next.unwrap_or(after), count)
            }
        }
    }

    /// A connection joins the room of a channel that is marked.
    fn join_room(&mut self, connection: u32, channel: u32, member: MemberOf) {
        let (subscriptions, hasher) = (self.delivery.subscriptions(), self.delivery.hasher());
        let memberships = &mut self.presence.memberships;
        // Its user may differ from the user in its other rooms.
        memberships.rename(connection, hasher, &member);
        if let Some(channel) = subscriptions.name_of(channel) {
            memberships.join(channel, connection, hasher, member);
        }
    }

    fn member_of(&mut self, id: ConnectionId) -> Option<MemberOf> {
        let session = self.session(id)?;
        Some(MemberOf {
            session: session.id()?,
            user: session.claims().and_then(Claims::user),
        })
    }
}

/// To look at this many channels of a connection costs about as much as a message.
const CHANNELS_PER_MESSAGE: u64 = 16;
/// Connections, and rooms and filters of MQTT connections, that a review looks at in one turn, at about 1 µs.
const MQTT_LOOKS_PER_TURN_MAX: usize = 512;
