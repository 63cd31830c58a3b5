//! The events for webhooks, compared with what has happened. The run takes the place of the webhooks' thread:
//! it takes the events of all cores, mostly after each turn; when it does not, the queue is soon full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::client::Member;
use super::world::GroundTruth;
use crate::config::webhooks::{WebhookEvent, WebhookSpec};
use crate::decision::CloseReason;
use crate::webhooks::event::{Occupied, SubscriberKind};
use crate::webhooks::{DatedEvent, Event, Intake};

/// The events of a run.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// `None` without webhooks.
    intake: Option<Arc<Intake>>,
    /// The sessions that have connected, each with the reason of its end.
    sessions: BTreeMap<String, Option<CloseReason>>,
    /// The ends of sessions whose beginning was not told.
    ends: BTreeSet<String>,
    /// The channels with subscribers, by the core and the kind of subscriber.
    pub(super) occupied: BTreeSet<(usize, bool, Vec<u8>)>,
    pub(super) members: BTreeSet<(String, Member)>,
    pub(super) count: u64,
}

/// The webhook of a run: it gets all events but publications.
pub(super) fn spec() -> WebhookSpec {
    WebhookSpec {
        name: "all".to_owned(),
        events: WebhookEvent::ALL
            .into_iter()
            .filter(|&event| event != WebhookEvent::Publication)
            .collect(),
        channels: vec!["**".to_owned()],
        ..WebhookSpec::default()
    }
}

impl Events {
    pub(super) fn new(intake: Option<Arc<Intake>>) -> Events {
        Events {
            intake,
            ..Events::default()
        }
    }

    /// How many events of this kind found no room.
    fn lost(&self, event: WebhookEvent) -> u64 {
        self.intake
            .as_ref()
            .map_or(0, |intake| intake.metrics.lost(event))
    }

    /// Whether an event of a member was lost: then the members of a channel are not known.
    fn has_lost_members(&self) -> bool {
        self.lost(WebhookEvent::MemberJoined) + self.lost(WebhookEvent::MemberLeft) > 0
    }

    fn take(&mut self, told: DatedEvent) -> Result<(), String> {
        self.count += 1;
        let core = told.core;
        match told.event {
            Event::Occupancy(changes) => changes.into_iter().for_each(|change| self.occupy(core, change)),
            Event::Connected(client) => {
                let id = client.connection.to_string();
                if self.ends.contains(&id) || self.sessions.insert(id, None).is_some() {
                    return Err(format!("{client:?} has connected twice, or after its end"));
                }
            }
            Event::Disconnected(client, ended) => {
                let id = client.connection.to_string();
                let may_be_unknown = self.lost(WebhookEvent::Connected) > 0;
                match self.sessions.get_mut(&id) {
                    Some(end @ None) => *end = Some(ended.reason),
                    None if may_be_unknown && self.ends.insert(id) => {}
                    Some(Some(_)) | None => {
                        return Err(format!("{client:?} has ended twice, or has not begun: {ended:?}"));
                    }
                }
            }
            Event::Member(news) if !self.has_lost_members() => {
                let channel = String::from_utf8_lossy(&news.channel).into_owned();
                let member = match (&news.user, news.connection) {
                    (Some(user), None) => Member::User(user.to_string()),
                    (None, Some(id)) => Member::Connection(id.to_string()),
                    (Some(_), Some(_)) | (None, None) => return Err(format!("no member: {news:?}")),
                };
                let member = (channel, member);
                let is_news = match news.is_there {
                    true => self.members.insert(member.clone()),
                    false => self.members.remove(&member),
                };
                let count = self
                    .members
                    .iter()
                    .filter(|(channel, _)| *channel == member.0)
                    .count();
                if !is_news || count != news.count as usize {
                    return Err(format!("{news:?}, and these are known: {:?}", self.members));
                }
            }
            Event::Member(_) | Event::WillSent { .. } | Event::SlowConsumer(..) | Event::LimitHit { .. } => {}
            Event::Channel(_) | Event::Publication { .. } => {
                return Err(format!("nobody has asked for {:?}", told.event));
            }
        }
        Ok(())
    }

    fn occupy(&mut self, core: usize, change: Occupied) {
        let key = (core, change.by == SubscriberKind::Mqtt, change.channel.into_vec());
        match change.is_occupied {
            true => _ = self.occupied.insert(key),
            false => _ = self.occupied.remove(&key),
        }
    }
}

impl GroundTruth {
    /// Takes the events of cores for webhooks. Returns whether there were any.
    pub(super) fn take_webhook_events(&mut self) -> bool {
        let before = self.events_told.count;
        while let Some(told) = self.events_told.intake.as_ref().and_then(|intake| intake.take()) {
            let result = self.events_told.take(told);
            self.expect_of("a webhook", result);
        }
        self.trace.mix(self.events_told.count);
        self.events_told.count > before
    }

    /// Nothing is on its way: each session that has begun or ended was reported, or counted as lost.
    ///
    /// # Errors
    /// A session was neither.
    pub(super) fn check_webhook_events(&self) -> Result<(), String> {
        let events = &self.events_told;
        if events.intake.is_none() {
            return Ok(());
        }
        let told = self.told.borrow();
        let ended = told
            .sessions
            .values()
            .filter(|session| session.end.is_some())
            .count();
        let ends = events.sessions.values().flatten().count() + events.ends.len();
        for (kind, told, real) in [
            (
                WebhookEvent::Connected,
                events.sessions.len(),
                told.sessions.len(),
            ),
            (WebhookEvent::Disconnected, ends, ended),
        ] {
            let lost = events.lost(kind);
            if told as u64 + lost != real as u64 {
                return Err(format!(
                    "{kind:?}: {real} sessions, {told} were told, {lost} lost"
                ));
            }
        }
        for (id, end) in &events.sessions {
            let real = told
                .sessions
                .get(id)
                .map(|session| session.end.map(|end| end.reason));
            let is_right = match (end, real) {
                (_, None) => false,
                (None, Some(real)) => real.is_none() || events.lost(WebhookEvent::Disconnected) > 0,
                (Some(end), Some(real)) => real == Some(*end),
            };
            if !is_right {
                return Err(format!(
                    "{id} has ended: {real:?}, and webhooks were told {end:?}"
                ));
            }
        }
        Ok(())
    }

    /// The members of channels have been the same for a while: they are the members that were reported to
    /// webhooks.
    ///
    /// # Errors
    /// They are not.
    pub(super) fn check_webhook_members(&self, real: &BTreeSet<(String, Member)>) -> Result<(), String> {
        let events = &self.events_told;
        if events.intake.is_none() || events.has_lost_members() || events.members == *real {
            return Ok(());
        }
        Err(format!(
            "webhooks were told of {:?}, and there are {real:?}",
            events.members
        ))
    }
}
