//! Questions to cores, and their answers.
//!
//! A core that has no room for another question is asked again every few milliseconds, within the time limit of the
//! operation.
//!
//! Limits: [`ANSWER_TIME_MAX`]; `QUESTIONS_WAITING_MAX` for each core (`cores/operators/mailbox.rs`).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Uptime;
use crate::cores::operators::mailbox::{CoreHandle, NotAsked};
use crate::cores::operators::questions::{ActCounts, ActStep, Answer, Question};

use super::error::HandleError;
use super::waits::{End, Reply, Wait};
use super::{Handle, Shared};

/// The answer of one core.
#[derive(Debug)]
pub(super) enum Asked<T> {
    /// It has answered.
    Answered(T),
    /// It has ended, and its connections with it.
    Ended,
    /// It has not answered in time.
    Unanswered,
}

/// The answers of all cores.
#[derive(Debug)]
pub(super) struct Answers<T> {
    pub(super) given: Vec<T>,
    /// The indexes of the cores that have not answered in time.
    pub(super) unanswered: Vec<usize>,
}

/// How a question to a core ended; `None` if its end was not awaited.
type AskedOrNot<T> = Option<Result<Asked<T>, HandleError>>;

impl<T> Answers<T> {
    /// The answers among the ends of questions to all cores.
    fn of(asked: Vec<AskedOrNot<T>>) -> Result<Answers<T>, HandleError> {
        let mut answers = Answers {
            given: Vec::new(),
            unanswered: Vec::new(),
        };
        for (core, asked) in asked.into_iter().enumerate() {
            match asked.transpose()? {
                Some(Asked::Answered(answer)) => answers.given.push(answer),
                Some(Asked::Unanswered) => answers.unanswered.push(core),
                Some(Asked::Ended) | None => {}
            }
        }
        Ok(answers)
    }

    /// The answers, if no core is missing that has not ended.
    fn of_all(self) -> Result<Vec<T>, HandleError> {
        match self.unanswered.is_empty() {
            true => Ok(self.given),
            false => Err(HandleError::Unanswered {
                cores: self.unanswered,
            }),
        }
    }
}

impl Shared {
    /// Asks a core.
    ///
    /// # Errors
    /// Too many operations wait, or the server has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        core: &CoreHandle,
        deadline: Uptime,
        question: impl FnOnce(Answer<T>) -> Question,
    ) -> Result<Asked<T>, HandleError> {
        let place = self.waits.answer(deadline)?;
        self.ask_with(place, core, deadline, question).await
    }

    /// Asks a core whose answer has a place.
    async fn ask_with<T: Send + 'static>(
        &self,
        (wait, reply): (Wait, Reply),
        core: &CoreHandle,
        deadline: Uptime,
        question: impl FnOnce(Answer<T>) -> Question,
    ) -> Result<Asked<T>, HandleError> {
        if self.has_ended() {
            return Err(HandleError::Ended);
        }
        let mut question = question(Answer::new(move |value| reply.give(value)));
        loop {
            question = match core.ask(question) {
                Ok(()) => break,
                Err(NotAsked::Ended) => return Ok(Asked::Ended),
                Err(NotAsked::Full(question)) => *question,
            };
            let now = self.clock.uptime();
            if now >= deadline {
                return Ok(Asked::Unanswered);
            }
            self.sleep_until(now + ASK_AGAIN).await?;
        }
        match wait.await {
            End::Answered(value) => {
                let value = value.downcast::<T>();
                Ok(Asked::Answered(
                    *value.expect("the question has answers of this type"),
                ))
            }
            End::Unanswered if core.has_stopped() => Ok(Asked::Ended),
            End::Unanswered | End::Due => Ok(Asked::Unanswered),
            End::ServerEnded => Err(HandleError::Ended),
        }
    }

    /// Asks all cores at the same time. The answers come in the order of the cores, without those of cores that have
    /// ended.
    ///
    /// # Errors
    /// Some cores have not answered in time; too many operations wait; or the server has ended.
    pub(super) async fn ask_all<T: Send + 'static>(
        &self,
        question: impl Fn(Answer<T>) -> Question,
    ) -> Result<Vec<T>, HandleError> {
        let answers = self
            .ask_until(self.answer_deadline(), question, |_| false)
            .await?;
        answers.of_all()
    }

    /// Has all cores carry out an operation at the same time, each in steps: `question` asks for the step that goes on
    /// from a place. Each step has its own time, so that the operation lasts as long as its connections need. Returns
    /// the counts of each core.
    ///
    /// # Errors
    /// As [`Shared::ask_all`]. A core that has no place for a further step counts as one that has not answered.
    pub(super) async fn ask_all_in_steps(
        &self,
        question: impl Fn(u32, Answer<ActStep>) -> Question,
    ) -> Result<Vec<ActCounts>, HandleError> {
        let deadline = self.answer_deadline();
        let asked = self.cores.iter().zip(self.places(deadline)?);
        let asked = asked.map(|(core, place)| Box::pin(self.ask_in_steps(place, core, deadline, &question)));
        let asked = all(asked.collect(), Result::is_err).await;
        Answers::of(asked)?.of_all()
    }

    async fn ask_in_steps(
        &self,
        mut place: (Wait, Reply),
        core: &CoreHandle,
        mut deadline: Uptime,
        question: impl Fn(u32, Answer<ActStep>) -> Question,
    ) -> Result<Asked<ActCounts>, HandleError> {
        let mut counts = ActCounts::default();
        let mut from = 0;
        loop {
            let step = |answer| question(from, answer);
            match self.ask_with(place, core, deadline, step).await? {
                Asked::Answered(step) => {
                    counts += step.counts;
                    let Some(next) = step.next else {
                        return Ok(Asked::Answered(counts));
                    };
                    from = next;
                }
                // What it did before its end was done.
                Asked::Ended => return Ok(Asked::Answered(counts)),
                Asked::Unanswered => return Ok(Asked::Unanswered),
            }
            deadline = self.answer_deadline();
            let Ok(next) = self.waits.answer(deadline) else {
                // "Busy" would say that nothing was done.
                return Ok(Asked::Unanswered);
            };
            place = next;
        }
    }

    /// Asks all cores at the same time, and waits until all have answered, or one has given an answer that is enough.
    ///
    /// # Errors
    /// Too many operations wait, or the server has ended.
    pub(super) async fn ask_until<T: Send + 'static>(
        &self,
        deadline: Uptime,
        question: impl Fn(Answer<T>) -> Question,
        is_enough: impl Fn(&T) -> bool,
    ) -> Result<Answers<T>, HandleError> {
        let is_last = |asked: &Result<Asked<T>, HandleError>| match asked {
            Ok(Asked::Answered(answer)) => is_enough(answer),
            Ok(Asked::Ended | Asked::Unanswered) => false,
            Err(_) => true,
        };
        Answers::of(self.ask_each(deadline, question, is_last).await?)
    }

    /// Asks all cores at the same time. Returns how that ended for each core, in their order; `None` for a core whose
    /// answer was not awaited, since another's was the last.
    ///
    /// # Errors
    /// Too many operations wait: no core is asked.
    async fn ask_each<T: Send + 'static>(
        &self,
        deadline: Uptime,
        question: impl Fn(Answer<T>) -> Question,
        is_last: impl Fn(&Result<Asked<T>, HandleError>) -> bool,
    ) -> Result<Vec<AskedOrNot<T>>, HandleError> {
        let asked = self.cores.iter().zip(self.places(deadline)?);
        let asked = asked.map(|(core, place)| Box::pin(self.ask_with(place, core, deadline, &question)));
        Ok(all(asked.collect(), is_last).await)
    }

    /// A place for the answer of each core.
    fn places(&self, deadline: Uptime) -> Result<Vec<(Wait, Reply)>, HandleError> {
        let cores = self.cores.iter();
        cores.map(|_| self.waits.answer(deadline)).collect()
    }

    /// When a question that begins now must be answered.
    pub(super) fn answer_deadline(&self) -> Uptime {
        self.clock.uptime() + ANSWER_TIME_MAX
    }

    /// Waits until then.
    ///
    /// # Errors
    /// The server has ended.
    pub(super) async fn sleep_until(&self, deadline: Uptime) -> Result<(), HandleError> {
        match self.waits.until(deadline).await {
            End::Due => Ok(()),
            End::ServerEnded | End::Unanswered | End::Answered(_) => Err(HandleError::Ended),
        }
    }
}

impl Handle {
    /// Asks all cores the same for an operator. Returns the answers that come within `time`, with the indexes of their
    /// cores, and the indexes of the other cores.
    pub(crate) async fn survey<T: Send + 'static>(
        &self,
        time: Duration,
        question: impl Fn(Answer<T>) -> Question,
    ) -> (Vec<(usize, T)>, Vec<usize>) {
        let shared = &self.0;
        let deadline = shared.clock.uptime() + time;
        let (mut answers, mut unanswered) = (Vec::new(), Vec::new());
        let asked = shared.ask_each(deadline, question, |_| false).await;
        let asked = asked.unwrap_or_else(|_| shared.cores.iter().map(|_| None).collect());
        for (core, asked) in asked.into_iter().enumerate() {
            match asked {
                Some(Ok(Asked::Answered(answer))) => answers.push((core, answer)),
                Some(Ok(Asked::Ended | Asked::Unanswered) | Err(_)) | None => unanswered.push(core),
            }
        }
        (answers, unanswered)
    }
}

/// Runs futures side by side, until all are done or one has a result that is the last; returns the results in the order
/// of the futures.
async fn all<F: Future>(
    futures: Vec<Pin<Box<F>>>,
    is_last: impl Fn(&F::Output) -> bool,
) -> Vec<Option<F::Output>> {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if let Some(running) = future
                && let Poll::Ready(output) = running.as_mut().poll(context)
            {
                let ends = is_last(&output);
                (*future, *result) = (None, Some(output));
                if ends {
                    return Poll::Ready(());
                }
            }
        }
        match futures.iter().all(Option::is_none) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    results
}

/// How long cores have to answer, or to answer a step of an operation: as long as for a revocation.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How soon a core is asked again that has no room for another question.
const ASK_AGAIN: Duration = Duration::from_millis(2);
