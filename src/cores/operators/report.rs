//! Answers the questions of other threads, one after the other. This file has the answers about the
//! connections that hold most bytes and the connections that ended last; `lookup.rs` and `actions.rs` have the
//! others.
//!
//! Such questions are rare. They come through the mailbox. The core answers from its counters, without
//! payloads and tokens. To find the connections that hold most bytes it must examine every connection, so it
//! does that in steps, one in each turn.
//!
//! Limits: [`EFFORT_PER_TURN_MAX`], for all questions of a turn together.

use std::cmp::Reverse;

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::Connection;
use crate::cores::operators::questions::{EFFORT_PER_TURN_MAX, LargestSearch, Question, Slow};

impl<A: App> Core<A> {
    /// Answers questions, as far as a turn may. If a question takes longer, it and the questions behind it
    /// wait for the next turn.
    pub(in crate::cores) fn answer_questions(&mut self) {
        let mut effort = EFFORT_PER_TURN_MAX;
        while let Some(question) = self
            .operations
            .take_question()
            .or_else(|| self.mailbox.try_receive_question())
        {
            if let Some(question) = self.answer(question, &mut effort) {
                self.operations.keep_question(question);
                return;
            }
        }
    }

    /// Answers a question; returns it if the turn has spent its effort.
    fn answer(&mut self, question: Question, effort: &mut u32) -> Option<Question> {
        match question {
            Question::Slow(mut survey) => {
                if !self.survey_some(&mut survey, effort) {
                    return Some(Question::Slow(survey));
                }
                self.conclude(survey);
            }
            Question::Closed { answer } => answer.give(self.ends.latest_first()),
            Question::ConnectionSearch(mut search) => {
                if !self.search_some(&mut search, effort) {
                    return Some(Question::ConnectionSearch(search));
                }
                search.answer.give(search.found);
            }
            Question::ChannelsOf(mut channels) => {
                if !self.find_channels_of(&mut channels, effort) {
                    return Some(Question::ChannelsOf(channels));
                }
                channels.answer.give(channels.found);
            }
            Question::Channels(mut channels) => {
                if !self.list_some_channels(&mut channels, effort) {
                    return Some(Question::Channels(channels));
                }
                channels.conclude();
            }
            Question::Services(mut list) => {
                if !self.list_some_services(&mut list, effort) {
                    return Some(Question::Services(list));
                }
                list.conclude();
            }
            Question::DescribeMembers(mut describe) => {
                if !self.describe_some_members(&mut describe, effort) {
                    return Some(Question::DescribeMembers(describe));
                }
                describe.conclude();
            }
            Question::Call(mut calling) => {
                if !self.call_some(&mut calling, effort) {
                    return Some(Question::Call(calling));
                }
            }
            Question::Follow { follower, answer } => {
                self.delivery.follow(*follower);
                answer.give(());
            }
            Question::Unfollow { id } => self.delivery.unfollow(id),
            Question::History(ask) => return self.answer_history(ask).map(Question::History),
            Question::Members {
                channel,
                after,
                limit,
                answer,
            } => {
                let hash = self.delivery.hasher().hash(&channel);
                answer.give(self.presence.rooms.page(&channel, hash, after, limit));
            }
            Question::Act(mut acting) => {
                if !self.act_some(&mut acting, effort) {
                    return Some(Question::Act(acting));
                }
                acting.conclude();
            }
        }
        None
    }

    /// True if all connections have been looked at.
    fn survey_some(&self, survey: &mut LargestSearch, effort: &mut u32) -> bool {
        let places = self.connections.places();
        let end = places.min(survey.at.saturating_add(*effort));
        *effort -= end.saturating_sub(survey.at);
        for index in survey.at..end {
            let held_bytes = self.connections.at(index).map_or(0, held_bytes);
            if held_bytes > 0 {
                survey.note(held_bytes, index);
            }
        }
        survey.at = survey.at.max(end);
        survey.at >= places
    }

    /// Since the survey looked at the connections, some outboxes have drained, and other connections have
    /// taken the places of ended ones. The answer describes the present state.
    fn conclude(&self, survey: LargestSearch) {
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
        let session = connection.phase.session_id();
        Some(Slow {
            protocol: session.map(|_| connection.framing.protocol()),
            id: session,
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
    let holding = connection.holding(0);
    holding.total() - holding.outbox
}

fn waiting_bytes(connection: &Connection) -> usize {
    let outbox = &connection.outbox;
    outbox.len() + outbox.conflated().map_or(0, |conflated| conflated.bytes())
}
