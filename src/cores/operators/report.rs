//! Answers the questions of operators about single connections: which hold most, and which ended last.
//!
//! Such questions are rare. They come through the mailbox, and the core answers from the numbers that it keeps: without
//! payloads and tokens. To find the connections that hold most it must examine every connection, so it does that in
//! steps, one in each turn.
//!
//! Limits: `SURVEYED_PER_TURN_MAX`.

use std::cmp::Reverse;

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::Connection;
use crate::cores::operators::questions::{Question, Slow, Survey};

impl<A: App> Core<A> {
    /// Answers questions. A survey may be left for the next turn.
    pub(in crate::cores) fn answer_questions(&mut self) {
        loop {
            if let Some(mut survey) = self.operations.take_survey() {
                if !self.look_further(&mut survey) {
                    self.operations.begin_survey(survey);
                    return;
                }
                self.conclude(survey);
            }
            match self.mailbox.try_receive_question() {
                Some(Question::Slow { count_max, answer }) => {
                    self.operations.begin_survey(Survey::new(count_max, answer));
                }
                Some(Question::Closed { answer }) => answer.give(self.ends.latest_first()),
                None => return,
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

    /// Since the survey looked at them, some outboxes have drained, and other connections have taken the places of
    /// ended ones: the answer says how they are now.
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
        let now = self.time.now().uptime;
        Some(Slow {
            id: connection.phase.session_id(),
            client: connection.client,
            waiting_bytes: waiting_bytes(connection),
            input_bytes: input_bytes(connection),
            conflated: outbox.conflated().map_or(0, |conflated| conflated.len()),
            blocked_for: outbox.blocked_since().map(|since| now.since(since)),
            subscriptions: self.delivery.subscriptions().count_of(index),
            tally: connection.tally,
            age: connection.opened.age(now),
        })
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

/// Connections looked at in one turn: one out of the caches costs 0.1 µs.
const SURVEYED_PER_TURN_MAX: u32 = 2048;
