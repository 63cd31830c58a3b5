//! The outcomes of the calls that another thread makes to clients, on their way to that thread.
//!
//! ```text
//!   core 0: Calling ─► CoreCalls ◄─ one share for each call that waits ─┐
//!   core 1: Calling ─► CoreCalls ◄─ …                                   ├─► Outcomes ─► the thread that calls
//! ```
//! All cores put the outcomes into one [`Outcomes`]. A core answers the question when the last share of its
//! [`CoreCalls`] is dropped: then all of its clients have been called, and each call has had its outcome. A
//! thread that stops waiting earlier still finds the outcomes so far.
//!
//! No lock is taken, and nothing waits for room: each call reserves room for its two entries.
//!
//! Limits: [`CALLED_MAX`] clients and [`ANSWER_BYTES_MAX`] for each operation.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::app::{CallOutcome, OutsideCall};
use crate::cores::operators::questions::Answer;
use crate::session::SessionId;

/// The outcomes of the calls of one operation, from all cores.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// For how many calls there is room. Relaxed, as the next: they order nothing.
    room: AtomicUsize,
    /// For how many bytes of answers there is room.
    bytes_left: AtomicUsize,
    /// How many cores have looked at all of their connections.
    through: AtomicUsize,
    /// Whether there was no room for a call.
    is_full: AtomicBool,
    sender: Sender<Entry>,
    entries: Receiver<Entry>,
}

/// A call was made, or has had its outcome.
type Entry = (SessionId, Option<CallOutcome>);

/// The result of a core that has finished its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallsDone {
    /// How many clients it has called.
    pub(crate) called: usize,
    /// Whether one of them has answered.
    pub(crate) has_answer: bool,
}

/// When a core has finished its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// When each call has had its outcome.
    All,
    /// When the first client has answered.
    FirstAnswer,
}

/// The calls of one operation on one core.
pub(crate) struct CoreCalls {
    outcomes: Arc<Outcomes>,
    until: Until,
    called: AtomicUsize,
    /// Holds the answer to the question: the first caller that takes it gives it.
    answer: Receiver<Answer<CallsDone>>,
}

impl Outcomes {
    /// Room for the calls of one operation to `calls_max` clients, and for `bytes_max` bytes of their
    /// answers.
    pub(crate) fn new(calls_max: usize, bytes_max: usize) -> Arc<Outcomes> {
        let calls_max = calls_max.clamp(1, CALLED_MAX);
        let (sender, entries) = bounded(2 * calls_max);
        Arc::new(Outcomes {
            room: AtomicUsize::new(calls_max),
            bytes_left: AtomicUsize::new(bytes_max),
            through: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            sender,
            entries,
        })
    }

    /// Whether at least this many cores have looked at all of their connections.
    pub(crate) fn are_through(&self, cores: usize) -> bool {
        self.through.load(Ordering::Relaxed) >= cores
    }

    /// Whether a client was not called because there was no room.
    pub(crate) fn left_clients_out(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The clients that were called, in the order of the calls, each with its outcome if that is known.
    pub(crate) fn take(&self) -> Vec<Entry> {
        let mut called: Vec<Entry> = Vec::new();
        let mut places = HashMap::new();
        for (id, outcome) in self.entries.try_iter() {
            let place = *places.entry(id).or_insert(called.len());
            match called.get_mut(place) {
                Some((_, known)) => *known = outcome,
                None => called.push((id, outcome)),
            }
        }
        called
    }

    /// The outcome, or an outcome that says there is no room for it.
    fn bounded(&self, outcome: CallOutcome) -> CallOutcome {
        let bytes = match &outcome {
            CallOutcome::Answered(Some(json)) | CallOutcome::Refused(json) => json.len(),
            CallOutcome::Answered(None)
            | CallOutcome::TimedOut
            | CallOutcome::ConnectionEnded
            | CallOutcome::TooMany
            | CallOutcome::TooLarge
            | CallOutcome::NoCalls
            | CallOutcome::IsService => 0,
        };
        let take = |left: usize| left.checked_sub(bytes);
        match self
            .bytes_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => outcome,
            Err(_) => CallOutcome::TooLarge,
        }
    }

    fn put(&self, entry: Entry) {
        // There is room: `begin` has taken it.
        let _ = self.sender.try_send(entry);
    }
}

impl CoreCalls {
    /// No call yet. `answer` is given when the core is done.
    pub(super) fn new(outcomes: Arc<Outcomes>, until: Until, answer: Answer<CallsDone>) -> Arc<CoreCalls> {
        let (sender, receiver) = bounded(1);
        // It is empty.
        let _ = sender.try_send(answer);
        Arc::new(CoreCalls {
            outcomes,
            until,
            called: AtomicUsize::new(0),
            answer: receiver,
        })
    }

    /// Begins a call to this client; it reports its outcome. `None` if the operation may call no more
    /// clients.
    pub(super) fn begin(self: &Arc<Self>, id: SessionId) -> Option<OutsideCall> {
        let take_one = |room: usize| room.checked_sub(1);
        let room = &self.outcomes.room;
        if room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
            .is_err()
        {
            self.outcomes.is_full.store(true, Ordering::Relaxed);
            return None;
        }
        self.called.fetch_add(1, Ordering::Relaxed);
        self.outcomes.put((id, None));
        let calls = Arc::clone(self);
        Some(OutsideCall::new(move |outcome| calls.note(id, outcome)))
    }

    /// The core has looked at all of its connections.
    pub(super) fn note_through(&self) {
        self.outcomes.through.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clients were called.
    pub(super) fn called(&self) -> usize {
        self.called.load(Ordering::Relaxed)
    }

    fn note(&self, id: SessionId, outcome: CallOutcome) {
        let outcome = self.outcomes.bounded(outcome);
        let has_answer = matches!(outcome, CallOutcome::Answered(_));
        self.outcomes.put((id, Some(outcome)));
        if has_answer && self.until == Until::FirstAnswer {
            self.tell(has_answer);
        }
    }

    /// Answers the question, unless it is answered already.
    fn tell(&self, has_answer: bool) {
        if let Ok(answer) = self.answer.try_recv() {
            let called = self.called();
            answer.give(CallsDone { called, has_answer });
        }
    }
}

impl Drop for CoreCalls {
    fn drop(&mut self) {
        self.tell(false);
    }
}

impl fmt::Debug for CoreCalls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CoreCalls")
            .field("called", &self.called())
            .finish_non_exhaustive()
    }
}

/// Most clients that one operation calls. The others of its selection are not called.
pub(crate) const CALLED_MAX: usize = 1000;
/// Most bytes of the answers of all clients that one operation calls.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::new([number; SessionId::BYTES])
    }

    fn calls(outcomes: &Arc<Outcomes>, until: Until) -> (Arc<CoreCalls>, Receiver<CallsDone>) {
        let (sender, told) = bounded(2);
        let answer = Answer::new(move |value| {
            // A test may have dropped the receiver.
            let _ = sender.try_send(value);
        });
        (CoreCalls::new(Arc::clone(outcomes), until, answer), told)
    }

    #[test]
    fn a_core_answers_once_and_only_when_all_of_its_calls_have_ended() {
        let outcomes = Outcomes::new(10, usize::MAX);
        let (calls, told) = calls(&outcomes, Until::All);
        let (first, second) = (calls.begin(session(1)).unwrap(), calls.begin(session(2)).unwrap());
        drop(calls);
        second.tell(CallOutcome::Answered(None));
        assert!(told.try_recv().is_err());
        // A call that is dropped has no outcome, but its core answers.
        drop(first);
        let all = CallsDone {
            called: 2,
            has_answer: false,
        };
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [all]);
        let entries = [
            (session(1), None),
            (session(2), Some(CallOutcome::Answered(None))),
        ];
        assert_eq!(outcomes.take(), entries);
    }

    #[test]
    fn the_first_answer_is_told_at_once_and_a_failure_is_not() {
        let outcomes = Outcomes::new(10, usize::MAX);
        let (calls, told) = calls(&outcomes, Until::FirstAnswer);
        let [first, second, third] = [1, 2, 3].map(|number| calls.begin(session(number)).unwrap());
        drop(calls);
        first.tell(CallOutcome::TimedOut);
        assert!(told.try_recv().is_err());
        second.tell(CallOutcome::Answered(Some("2".to_owned())));
        let answered = CallsDone {
            called: 3,
            has_answer: true,
        };
        assert_eq!(told.try_recv(), Ok(answered));
        third.tell(CallOutcome::Answered(Some("3".to_owned())));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn the_bytes_of_all_answers_together_are_bounded() {
        let outcomes = Outcomes::new(10, 5);
        let (calls, _told) = calls(&outcomes, Until::All);
        let answer = |text: &str| CallOutcome::Answered(Some(text.to_owned()));
        for (number, outcome) in [
            (1, answer("123")),
            (2, CallOutcome::Refused("456".to_owned())),
            (3, answer("45")),
            (4, answer("6")),
            (5, CallOutcome::TimedOut),
        ] {
            calls.begin(session(number)).unwrap().tell(outcome);
        }
        let taken: Vec<_> = outcomes
            .take()
            .into_iter()
            .filter_map(|(_, outcome)| outcome)
            .collect();
        let expected = [
            answer("123"),
            CallOutcome::TooLarge,
            answer("45"),
            CallOutcome::TooLarge,
            CallOutcome::TimedOut,
        ];
        assert_eq!(taken, expected);
    }

    #[test]
    fn no_more_clients_are_called_than_there_is_room_for_on_all_cores() {
        let outcomes = Outcomes::new(3, usize::MAX);
        let ((one, _), (other, _)) = (calls(&outcomes, Until::All), calls(&outcomes, Until::All));
        let begun = [1, 2, 3, 4].map(|number| [&one, &other][usize::from(number) % 2].begin(session(number)));
        assert_eq!(begun.iter().flatten().count(), 3);
        assert!(outcomes.left_clients_out());
        begun
            .into_iter()
            .flatten()
            .for_each(|call| call.tell(CallOutcome::TimedOut));
        let taken = outcomes.take();
        assert_eq!(taken.len(), 3);
        assert!(taken.iter().all(|(_, outcome)| outcome.is_some()));
    }
}
