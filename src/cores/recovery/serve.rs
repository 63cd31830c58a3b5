//! The recoveries that are under way, some of them in each turn: asks the owners of their channels, sends the
//! answers, and makes subscriptions live.
//!
//! Limits: `AT_ONCE_MAX` of `outgoing/recoveries.rs`; [`REPLAYED_BYTES_PER_TURN_MAX`]; [`ANSWER_TIME_MAX`].

use std::time::Duration;

use crate::app::App;
use crate::broker::{Position, Sent, Sequence};
use crate::clock::Uptime;
use crate::decision::{CloseReason, Gap, Limit, Wanted};
use crate::history::{Part, Query, Question, Reading, Unknown};

use crate::cores::CoreId;
use crate::cores::connections::replays::Replay;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::outgoing::recoveries::{AT_ONCE_MAX, Next, Progress, Recovery, SubscriptionKey, Ticket};
use crate::cores::post::letter::{HistoryPurpose, HistoryQuestion, Letter};
use crate::cores::recovery::retained_values::retained_question;

impl<A: App> Core<A> {
    /// Goes on with subscriptions that are not live yet, after the delivery of a turn.
    #[inline]
    pub(in crate::cores) fn serve_recoveries(&mut self) {
        if !self.connections.recoveries.is_empty() {
            self.serve_some_recoveries();
        }
    }

    #[cold]
    fn serve_some_recoveries(&mut self) {
        self.connections.recoveries.next = Next::Event;
        let now = self.time.now().uptime;
        for _ in 0..GIVEN_UP_PER_TURN_MAX {
            let Some(place) = self.connections.recoveries.overdue_in_queue(now) else {
                break;
            };
            self.answer_and_finish(place, Some(Gap::NoAnswer));
        }
        if self.connections.recoveries.overdue_in_queue(now).is_some() {
            self.connections.recoveries.next = Next::Now;
        }
        self.ask_owners();
        let mut bytes_left = REPLAYED_BYTES_PER_TURN_MAX;
        for _ in 0..self.connections.recoveries.active_count() {
            if let Some(place) = self.connections.recoveries.rotate() {
                self.serve_recovery(place, &mut bytes_left);
            }
        }
        self.ask_owners();
        self.connections.tell_recoveries();
    }

    /// When the next turn is due for subscriptions that are not live, if no event comes.
    pub(in crate::cores) fn next_recovery(&self) -> Uptime {
        let recoveries = &self.connections.recoveries;
        match recoveries.next {
            Next::Soon => self.time.now().uptime + POST_RETRY,
            Next::Event | Next::Now => recoveries.next_deadline(),
        }
    }

    /// Asks the owners of channels for the subscriptions whose turn has come.
    fn ask_owners(&mut self) {
        for _ in 0..self.connections.recoveries.queued_count().min(ASKED_PER_TURN_MAX) {
            let Some(ticket) = self.connections.recoveries.next_queued() else {
                return;
            };
            self.ask_owner(ticket);
        }
    }

    /// Asks the owner for one subscription, or puts it back into the queue.
    fn ask_owner(&mut self, ticket: Ticket) {
        let place = ticket.place;
        if self.connections.is_over(place.connection) {
            self.connections.recoveries.end(place);
            return;
        }
        let Some(recovery) = self.connections.recoveries.get(place) else {
            return;
        };
        let mut publications_max = self.limits.recovery_publications_max;
        let query = match &recovery.progress {
            Progress::Unanswered { wanted, .. } => match *wanted {
                Wanted::After(position) => Some(Query::After(position)),
                Wanted::Last(count) => Some(Query::Last(count)),
                Wanted::Since(unix_ms) => Some(Query::Since(unix_ms)),
                Wanted::LastValue | Wanted::Position | Wanted::OtherEpoch | Wanted::Forbidden => {
                    Some(Query::LastValue)
                }
                Wanted::Retained => None,
            },
            Progress::Answered { up_to } => {
                if self.connections.replay_room(place.connection) == 0 {
                    self.connections.recoveries.requeue(ticket, true);
                    return self.await_room(place);
                }
                // This is the rest of an answer, or was published while the client took the beginning of it.
                publications_max = u32::MAX;
                Some(Query::After(Position {
                    epoch: self.delivery.numbering().epoch,
                    offset: *up_to,
                }))
            }
        };
        let Some((name, hash)) = self.delivery.subscriptions().name_of(place.channel) else {
            return;
        };
        let owner = hash.owner(self.delivery.core_count());
        if !self.post.has_room(owner) {
            self.connections.recoveries.requeue(ticket, false);
            self.connections.recoveries.next = Next::Soon;
            return;
        }
        let from = self.delivery.next_for(place.connection, place.channel);
        let number = self.connections.recoveries.next_number();
        let letter = match query {
            Some(query) => Letter::HistoryQuestion(Box::new(HistoryQuestion {
                asker: self.id,
                purpose: HistoryPurpose::Recovery(number),
                question: Question {
                    name: name.into(),
                    hash,
                    query,
                    publications_max,
                    part: Part::Oldest(self.reading_bytes_max()),
                    before: from,
                },
            })),
            None => retained_question(self.id, number, name, from),
        };
        let now = self.time.now().uptime;
        let deadline = match self.post.send(owner, letter) {
            Sent::Sent | Sent::Kept => now + ANSWER_TIME_MAX,
            Sent::Dropped => {
                self.connections.recoveries.next = Next::Now;
                now
            }
        };
        self.connections.recoveries.asked(place, number, from, deadline);
        self.connections.note_held(place.connection);
    }

    /// The owner of a channel has answered the question `number`.
    pub(in crate::cores) fn history_was_read(&mut self, number: u64, reading: Reading) {
        let Some(place) = self.connections.recoveries.place_of(number) else {
            return;
        };
        self.connections.recoveries.note_answered(place);
        let Some((id, from)) = self.live_from(place) else {
            return;
        };
        debug_assert_eq!(
            reading.up_to(),
            self.delivery.numbering().position_before(from),
            "the owner reads up to the place that it was told"
        );
        let Some(recovery) = self.connections.recoveries.get(place) else {
            return;
        };
        // Once the reading is sent, the client has everything before `from`, or before the publications that
        // this part leaves out.
        let up_to = Progress::Answered {
            up_to: reading.complete_up_to(),
        };
        if reading.left_out() > 0 {
            self.metrics.limit_hit(Limit::RecoveryBytes);
        }
        match (&recovery.progress, reading.why_unknown()) {
            (Progress::Answered { .. }, Some(_)) => self.close(id, CloseReason::HistoryLost),
            (Progress::Answered { .. }, None) => self.connections.recoveries.send(place, reading, up_to),
            (Progress::Unanswered { .. }, Some(unknown)) if reading.is_empty() => {
                self.note_incomplete(unknown);
                self.answer_and_finish(place, Some(gap(unknown)));
            }
            (Progress::Unanswered { wanted, token }, lack) => {
                let (wanted, token) = (*wanted, token.clone());
                lack.into_iter().for_each(|unknown| self.note_incomplete(unknown));
                let told = self.told(lack.map(gap), from, reading.len() + reading.left_out());
                self.answer_recovery(id, &token, wanted, &told);
                self.connections.recoveries.send(place, reading, up_to);
            }
        }
        self.connections.tell_recoveries();
        self.connections.recoveries.next = Next::Now;
    }

    /// Counts that a subscriber does not get all that it has asked for, if a limit is the reason.
    fn note_incomplete(&self, unknown: Unknown) {
        if unknown == Unknown::TooMany {
            self.metrics.limit_hit(Limit::RecoveryPublications);
        }
    }

    /// Goes on with one subscription that is under way.
    fn serve_recovery(&mut self, place: SubscriptionKey, bytes_left: &mut usize) {
        let now = self.time.now().uptime;
        let Some(recovery) = self.connections.recoveries.get(place) else {
            return;
        };
        if recovery.has_newer_value() {
            return self.answer_and_finish(place, None);
        }
        if recovery.is_overdue(now) {
            return self.give_up(place);
        }
        if self.connections.recoveries.reading(place).is_none() {
            return;
        }
        let Some((name, _)) = self.delivery.subscriptions().name_of(place.channel) else {
            return;
        };
        let inspector = &mut self.resources.inspector();
        match self.connections.replay(place, name, bytes_left, inspector) {
            Replay::Over => self.finish(place),
            Replay::Paused => self.connections.recoveries.next = Next::Now,
            Replay::OutboxFull if self.connections.recoveries.is_crowded() => self.give_way(place),
            Replay::OutboxFull => self.await_room(place),
        }
    }

    /// The outbox of a connection is full. Its flush at the end of this turn may make room; if the socket
    /// takes no more, the poll reports when it does.
    fn await_room(&mut self, place: SubscriptionKey) {
        if !self.connections.is_blocked(place.connection) {
            self.connections.recoveries.next = Next::Now;
        }
    }

    /// A core has stopped: it answers no more questions.
    pub(in crate::cores) fn end_questions_to(&mut self, core: CoreId) {
        let (cores, subscriptions) = (self.delivery.core_count(), self.delivery.subscriptions());
        let now = self.time.now().uptime;
        self.connections.recoveries.expire(now, |channel| {
            let name = subscriptions.name_of(channel);
            name.is_some_and(|(_, hash)| hash.owner(cores) == core.index())
        });
    }

    /// The owner has not answered in time.
    fn give_up(&mut self, place: SubscriptionKey) {
        self.connections.recoveries.note_silent(place);
        let progress = self
            .connections
            .recoveries
            .get(place)
            .map(|recovery| &recovery.progress);
        match (progress, self.connections.id_at(place.connection)) {
            (Some(Progress::Unanswered { .. }), _) => self.answer_and_finish(place, Some(Gap::NoAnswer)),
            (Some(Progress::Answered { .. }), Some(id)) => self.close(id, CloseReason::HistoryLost),
            (Some(Progress::Answered { .. }), None) | (None, _) => {}
        }
    }

    /// Answers a subscription that gets nothing of the history, and makes it live: from the place at which
    /// collecting began, or from now on, if there were too many publications to collect.
    fn answer_and_finish(&mut self, place: SubscriptionKey, gap: Option<Gap>) {
        let Some(ended) = self.connections.recoveries.end(place) else {
            return;
        };
        let id = self.connections.id_at(place.connection);
        let Some(id) = id.filter(|_| !self.connections.is_over(place.connection)) else {
            return;
        };
        let is_incomplete = ended.live().is_some_and(|live| live.collected.is_incomplete);
        let from = match ended.live() {
            Some(live) if !is_incomplete => live.from,
            Some(_) | None => self.delivery.next_for(place.connection, place.channel),
        };
        let up_to = self.delivery.numbering().position_before(from).offset;
        self.connections.withheld.pass(place, up_to);
        if let Progress::Unanswered { wanted, token } = &ended.progress {
            self.answer_recovery(id, token, *wanted, &self.told(gap, from, 0));
            if is_incomplete && !wanted.is_asked() {
                // Its client has no position by which it could notice the gap.
                return self.close(id, CloseReason::HistoryLost);
            }
        }
        if let Some(live) = ended.into_live() {
            self.connections.send_collected(id, &live);
        }
    }

    /// The outbox has taken all publications that were read from the history. The subscription is live from
    /// now on, unless the owner has sent a part only, or more was published meanwhile than could be
    /// collected: then the client gets the rest from the history as well.
    fn finish(&mut self, place: SubscriptionKey) {
        let Some((id, _)) = self.live_from(place) else {
            return;
        };
        let Some(recovery) = self.connections.recoveries.get(place) else {
            return;
        };
        if let Some(up_to) = recovery.missing_after() {
            self.connections.recoveries.give_way(place, up_to);
            self.connections.recoveries.next = Next::Now;
            self.connections.note_held(place.connection);
        } else if let Some(live) = self
            .connections
            .recoveries
            .end(place)
            .and_then(Recovery::into_live)
        {
            self.connections.send_collected(id, &live);
        }
    }

    /// Gives the turn of a subscription whose outbox is full to another one.
    fn give_way(&mut self, place: SubscriptionKey) {
        let next = self.connections.recoveries.reading(place).and_then(|reading| {
            let next = reading.publications().next()?;
            Some(next.offset - 1)
        });
        if let Some(up_to) = next {
            self.connections.recoveries.give_way(place, up_to);
            self.connections.note_held(place.connection);
        }
    }

    /// How many bytes of memory one history may keep in use while it is sent.
    fn reading_bytes_max(&self) -> usize {
        let share = self.limits.recovery_bytes_max / self.delivery.core_count() as u64;
        usize::try_from(share).unwrap_or(usize::MAX) / AT_ONCE_MAX
    }

    /// The connection of a subscription that is under way, and the place from which it is live.
    pub(super) fn live_from(&self, place: SubscriptionKey) -> Option<(ConnectionId, Sequence)> {
        let live = self.connections.recoveries.get(place)?.live()?;
        Some((self.connections.id_at(place.connection)?, live.from))
    }
}

/// The reason in the form for the client.
fn gap(unknown: Unknown) -> Gap {
    match unknown {
        Unknown::OtherEpoch => Gap::OtherEpoch,
        Unknown::Evicted => Gap::Evicted,
        Unknown::Expired => Gap::Expired,
        Unknown::TooMany => Gap::TooMany,
        Unknown::NoHistory => Gap::NoHistory,
        Unknown::PolicyChanged => Gap::PolicyChanged,
        Unknown::UnknownPosition => Gap::UnknownPosition,
    }
}

/// Most bytes of histories that one turn sends: some hundred publications for each of a few clients, in a
/// tenth of a millisecond. The others wait for the next turn; the replies to all clients leave before that.
const REPLAYED_BYTES_PER_TURN_MAX: usize = 256 * 1024;
/// How soon the owner of a channel is asked again if the post had no room.
const POST_RETRY: Duration = Duration::from_millis(1);
/// Questions that one turn asks.
const ASKED_PER_TURN_MAX: usize = AT_ONCE_MAX;
/// Subscriptions that one turn gives up because the owner of their channels answers nobody.
const GIVEN_UP_PER_TURN_MAX: usize = AT_ONCE_MAX;
/// How long the owner of a channel may take to answer. Then the client is told that its history cannot be read.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
