//! What operators are told about single connections: the longest outboxes, and the last ends.
//!
//! A core is asked rarely, by its mailbox, and answers from the numbers it keeps: no payloads, no tokens. Looking for long
//! outboxes means looking at every connection, so that is done in steps, one each turn.
//!
//! Limits: `SURVEYED_PER_TURN_MAX`; [`ENDS_KEPT`], which are kept in memory that is asked for once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use crate::app::App;
use crate::client::ClientAddress;
use crate::decision::CloseReason;
use crate::session::SessionId;

use crate::cores::Core;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Phase};
use crate::cores::lifecycle::tally::Tally;

/// What a core may be asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// Its connections that hold the most bytes, those that wait for them and those that came of them; at most so many, the
    /// most first.
    Slow {
        count_max: usize,
        answer: Answer<Vec<Slow>>,
    },
    /// Its last ends, the latest first.
    Closed { answer: Answer<Vec<End>> },
}

/// The way of an answer back. Dropped with its question, it tells whoever waits that there is none.
pub(crate) struct Answer<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Answer<T> {
    /// `give` runs on the core, which waits for it.
    pub(crate) fn new(give: impl FnOnce(T) + Send + 'static) -> Answer<T> {
        Answer(Box::new(give))
    }

    fn give(self, value: T) {
        (self.0)(value);
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// A connection with bytes waiting for it, or of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// The socket's id; `None` before the upgrade, and after the end of the session.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    /// What has not been written, with what is conflated.
    pub(crate) waiting_bytes: usize,
    /// What else it holds: input, messages that have come in part, decisions, records of TLS.
    pub(crate) input_bytes: usize,
    /// Of how many channels the newest publication waits until the rest has been written.
    pub(crate) conflated: usize,
    /// How long the socket has not taken all of it.
    pub(crate) blocked_for: Option<Duration>,
    pub(crate) subscriptions: usize,
    pub(crate) tally: Tally,
    pub(crate) age: Duration,
}

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) reason: CloseReason,
    /// In milliseconds since 1970.
    pub(crate) at_unix_ms: u64,
    /// The socket's id, if it has had one.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    pub(crate) age: Duration,
    /// As it was at the end: what waited then may have been written since.
    pub(crate) tally: Tally,
}

/// The last ends of a core.
#[derive(Debug)]
pub(in crate::cores) struct Ends {
    ring: Vec<End>,
    /// Where the next goes, once there are [`ENDS_KEPT`].
    oldest: usize,
}

/// A look at all connections that is under way.
#[derive(Debug)]
pub(in crate::cores) struct Survey {
    count_max: usize,
    answer: Answer<Vec<Slow>>,
    /// The place in the table that is next.
    at: u32,
    /// The bytes and the places of those found so far; the shortest is on top.
    longest: BinaryHeap<Reverse<(usize, u32)>>,
}

impl Ends {
    pub(in crate::cores) fn new() -> Ends {
        Ends {
            ring: Vec::with_capacity(ENDS_KEPT),
            oldest: 0,
        }
    }

    pub(in crate::cores) fn note(&mut self, end: End) {
        if self.ring.len() < ENDS_KEPT {
            self.ring.push(end);
            return;
        }
        self.ring[self.oldest] = end;
        self.oldest = (self.oldest + 1) % ENDS_KEPT;
    }

    fn latest_first(&self) -> Vec<End> {
        let (later, earlier) = self.ring.split_at(self.oldest);
        later.iter().rev().chain(earlier.iter().rev()).copied().collect()
    }
}

impl Survey {
    fn new(count_max: usize, answer: Answer<Vec<Slow>>) -> Survey {
        Survey {
            count_max,
            answer,
            at: 0,
            longest: BinaryHeap::new(),
        }
    }

    fn note(&mut self, held_bytes: usize, index: u32) {
        self.longest.push(Reverse((held_bytes, index)));
        if self.longest.len() > self.count_max {
            self.longest.pop();
        }
    }
}

impl<A: App> Core<A> {
    /// Goes on with what has been asked; some of it may be left for the next turn.
    pub(in crate::cores) fn answer_questions(&mut self) {
        loop {
            if let Some(mut survey) = self.survey.take() {
                if !self.look_further(&mut survey) {
                    self.survey = Some(survey);
                    return;
                }
                self.conclude(survey);
            }
            match self.mailbox.try_receive_question() {
                Some(Question::Slow { count_max, answer }) => {
                    self.survey = Some(Survey::new(count_max, answer));
                }
                Some(Question::Closed { answer }) => answer.give(self.ends.latest_first()),
                None => {
                    self.questions_waiting = false;
                    return;
                }
            }
        }
    }

    /// True if all connections have been looked at.
    fn look_further(&self, survey: &mut Survey) -> bool {
        let places = self.connections.places();
        let end = places.min(survey.at.saturating_add(SURVEYED_PER_TURN_MAX));
        for index in survey.at..end {
            let held_bytes = self.connections.at(index).map_or(0, held_bytes);
            if held_bytes > 0 {
                survey.note(held_bytes, index);
            }
        }
        survey.at = end;
        end == places
    }

    /// Meanwhile some have drained, and others have taken the places of those that ended: what is told is how they are.
    fn conclude(&self, survey: Survey) {
        let found = survey.longest.into_iter();
        let mut slow: Vec<Slow> = found
            .filter_map(|Reverse((_, index))| self.describe(index))
            .filter(|slow| slow.held_bytes() > 0)
            .collect();
        slow.sort_by_key(|slow| Reverse(slow.held_bytes()));
        survey.answer.give(slow);
    }

    fn describe(&self, index: u32) -> Option<Slow> {
        let connection = self.connections.at(index)?;
        let outbox = &connection.outbox;
        let now = self.now.uptime;
        Some(Slow {
            id: session_id(&connection.phase),
            client: connection.client,
            waiting_bytes: waiting_bytes(connection),
            input_bytes: input_bytes(connection),
            conflated: outbox.conflated().map_or(0, |conflated| conflated.len()),
            blocked_for: outbox.blocked_since().map(|since| now.since(since)),
            subscriptions: self.broker.subscriptions.count_of(index),
            tally: connection.tally,
            age: connection.opened.age(now),
        })
    }

    /// Remembers an end. `session` is the id of what has ended with it.
    pub(in crate::cores) fn note_end(
        &mut self,
        id: ConnectionId,
        session: Option<SessionId>,
        reason: CloseReason,
    ) {
        if let Some(connection) = self.connections.get(id) {
            self.ends.note(End {
                reason,
                at_unix_ms: self.now.unix_ms,
                id: session,
                client: connection.client,
                age: connection.opened.age(self.now.uptime),
                tally: connection.tally,
            });
        }
    }
}

/// The id of the session of an open connection.
pub(in crate::cores) fn session_id(phase: &Phase) -> Option<SessionId> {
    match phase {
        Phase::Open(open) => open.session.id(),
        Phase::ProxyHeader { .. }
        | Phase::Request { .. }
        | Phase::LoggingIn { .. }
        | Phase::Closing { .. }
        | Phase::Finishing { .. }
        | Phase::Emptying { .. } => None,
    }
}

impl Slow {
    /// All of it: those that hold most come first.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.input_bytes
    }
}

fn held_bytes(connection: &Connection) -> usize {
    waiting_bytes(connection) + input_bytes(connection)
}

fn input_bytes(connection: &Connection) -> usize {
    let holding = connection.holding();
    holding.total() - holding.outbox
}

fn waiting_bytes(connection: &Connection) -> usize {
    let outbox = &connection.outbox;
    outbox.len() + outbox.conflated().map_or(0, |conflated| conflated.bytes())
}

/// Ends that a core remembers.
pub(crate) const ENDS_KEPT: usize = 1000;
/// Connections looked at in one turn: one out of the caches costs 0.1 µs.
const SURVEYED_PER_TURN_MAX: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ends_are_kept_and_the_latest_comes_first() {
        let mut ends = Ends::new();
        let room = ends.ring.capacity();
        for count in 1..=2 * ENDS_KEPT as u64 + 7 {
            ends.note(End {
                reason: CloseReason::PeerClosed,
                at_unix_ms: count,
                id: None,
                client: ClientAddress::UNKNOWN,
                age: Duration::ZERO,
                tally: Tally::default(),
            });
            if [1, 999, 1000, 1001, 2007].contains(&count) {
                let kept: Vec<u64> = ends.latest_first().iter().map(|end| end.at_unix_ms).collect();
                let expected: Vec<u64> = (1..=count).rev().take(ENDS_KEPT).collect();
                assert_eq!(kept, expected);
            }
        }
        assert_eq!(ends.ring.capacity(), room, "asked for once");
    }
}
