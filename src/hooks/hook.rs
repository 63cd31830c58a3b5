//! One hook: its target, its turns, its circuit, its cached answers, its batches, and its counts.

#![expect(
    clippy::disallowed_types,
    reason = "the thread of the hooks alone locks them, never a core"
)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::batches::{self, Answered, Batch, Batches, Joined};
use super::cache::{self, Cache};
use super::circuit::{Change, Circuit};
use super::question::{ForwardedRequest, Question};
use super::reply::{NotReply, Reply};
use crate::app::AppError;
use crate::config::hooks::{HookAction, HookSpec};
use crate::metrics::hooks::{HookMetrics, HookOutcome};
use crate::services::{Failure as Failed, ServiceFailure};
use crate::targets::{Answer, Target, TargetError};

/// One hook.
pub(crate) struct Hook {
    pub(super) spec: HookSpec,
    /// `None` if a service is asked.
    target: Option<Target>,
    turns: Semaphore,
    circuit: Mutex<Circuit>,
    /// `None` if each question has a request of its own.
    batches: Option<Batches>,
    cache: Option<Mutex<Cache>>,
    /// Questions that are open, and the bytes of their data. Relaxed: they bound memory, and order nothing.
    open: AtomicU64,
    open_bytes: AtomicU64,
    /// Counts questions to a service.
    numbers: AtomicU64,
    metrics: Arc<HookMetrics>,
    /// When a failure was last logged.
    told: Mutex<Option<Instant>>,
}

/// An open question counts with its hook until this is dropped.
pub(super) struct OpenQuestion {
    hook: Arc<Hook>,
    bytes: u64,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It has waited for its turn until its time was over.
    NoTurn,
    /// Requests to the target are paused.
    CircuitOpen,
    Target(TargetError),
    Status(StatusCode),
    NotReply(NotReply),
}

impl Hook {
    pub(super) fn new(spec: HookSpec, target: Option<Target>, metrics: Arc<HookMetrics>) -> Hook {
        Hook {
            turns: Semaphore::new(spec.concurrency as usize),
            circuit: Mutex::new(Circuit::new(spec.failures_max)),
            batches: Batches::new(spec.batch_max),
            cache: Cache::new(spec.cache, spec.cache_max).map(Mutex::new),
            target,
            spec,
            open: AtomicU64::new(0),
            open_bytes: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            metrics,
            told: Mutex::new(None),
        }
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its counts.
    pub(crate) fn metrics(&self) -> &Arc<HookMetrics> {
        &self.metrics
    }

    /// How many questions are open.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Accepts a question with so many bytes of data; `None` if too many are open.
    pub(super) fn take_in(self: &Arc<Self>, bytes: usize) -> Option<OpenQuestion> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let place = OpenQuestion {
            hook: Arc::clone(self),
            bytes,
        };
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let open_bytes = self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        let asked_max = u64::from(self.spec.concurrency) * u64::from(self.spec.batch_max);
        let count_max = asked_max + u64::from(self.spec.waiting_max);
        // A single question is accepted, whatever its size.
        let has_room = open < count_max
            && (open == 0 || open_bytes.saturating_add(bytes) <= u64::from(self.spec.waiting_bytes_max));
        has_room.then_some(place)
    }

    /// The service that is asked, if one is.
    pub(crate) fn service(&self) -> Option<&str> {
        self.spec.service.as_deref()
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.spec.timeout
    }

    /// The number of the next question to a service.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads the answer of a service to a question about this action, on the core of the client. Counts.
    pub(super) fn answer_of_service(
        &self,
        action: HookAction,
        answer: Result<Option<&str>, ServiceFailure<'_>>,
    ) -> Option<Result<Reply, AppError>> {
        let (outcome, decision) = match answer {
            Ok(json) => match Reply::of_json(json.unwrap_or_default().as_bytes())
                .and_then(|reply| reply.suits(action).map(|()| reply))
            {
                Ok(reply) if reply.is_refusal() => (HookOutcome::Refused, Some(Ok(reply))),
                Ok(reply) => (HookOutcome::Allowed, Some(Ok(reply))),
                Err(why) => {
                    debug!("hook {}: the answer is none to a question: {why}", self.spec.name);
                    (HookOutcome::Invalid, None)
                }
            },
            Err(ServiceFailure::Refused(json)) => (HookOutcome::Refused, Some(Err(AppError::received(json)))),
            Err(ServiceFailure::Failed(Failed::TimedOut)) => (HookOutcome::TimeOver, None),
            Err(ServiceFailure::Failed(Failed::Gone | Failed::NoService)) => (HookOutcome::Unreachable, None),
            Err(ServiceFailure::Failed(Failed::Busy)) => (HookOutcome::Busy, None),
        };
        self.metrics.count(outcome);
        decision
    }

    /// Counts a question that was not accepted.
    pub(super) fn count_busy(&self) {
        self.metrics.count(HookOutcome::Busy);
    }

    /// The answer to a question; `None` if there is none. Counts and logs failures.
    pub(super) async fn answer(self: &Arc<Self>, question: &Question, id: &str) -> Option<Arc<Reply>> {
        let passed = question.passed(&self.spec);
        let begin = Instant::now();
        let is_told = question.action() == HookAction::Disconnect;
        let key = self.cache.as_ref().filter(|_| !is_told).map(|cache| {
            let key = cache::key(question, &self.spec.cache_by, &passed);
            (cache, key)
        });
        if let Some((cache, key)) = &key
            && let Some(reply) = locked(cache).find(key, begin)
        {
            self.metrics.count_cached();
            return Some(reply);
        }
        let asked = self.ask(question, id, &passed, begin).await;
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.metrics.seconds.record_ns(took);
        match asked {
            Ok(reply) => {
                let outcome = if reply.is_refusal() {
                    HookOutcome::Refused
                } else {
                    HookOutcome::Allowed
                };
                self.metrics.count(outcome);
                let reply = Arc::new(reply);
                if let Some((cache, key)) = key
                    && reply.bytes() <= CACHED_BYTES_MAX
                {
                    locked(cache).keep(key, Arc::clone(&reply), Instant::now());
                }
                Some(reply)
            }
            Err(failure) => {
                self.metrics.count(failure.outcome());
                debug!("hook {}: {failure}", self.spec.name);
                None
            }
        }
    }

    async fn ask(
        self: &Arc<Self>,
        question: &Question,
        id: &str,
        passed: &ForwardedRequest<'_>,
        begin: Instant,
    ) -> Answered {
        let deadline = begin + self.spec.timeout;
        let json = || question.json(id, &self.spec, passed);
        match &self.batches {
            Some(batches) if question.action() == HookAction::Publish => {
                self.ask_with_others(batches, json().into(), deadline).await
            }
            Some(_) | None => self
                .ask_alone(question.action(), json, deadline)
                .await
                .map_err(Arc::new),
        }
    }

    /// By a request of its own.
    async fn ask_alone(
        &self,
        action: HookAction,
        json: impl FnOnce() -> Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            return Err(Failure::NoTurn);
        };
        let now = Instant::now();
        if self.is_too_late(deadline, now) {
            return Err(Failure::NoTurn);
        }
        let target = self.reachable(now)?;
        let answer = self.post(target, json(), deadline - now).await;
        let asked = match answer {
            Ok(answer) if answer.status.is_success() && action == HookAction::Disconnect => {
                Ok(Reply::allowing())
            }
            Ok(answer) => read(answer).and_then(|body| {
                Reply::of_json(&body)
                    .and_then(|reply| reply.suits(action).map(|()| reply))
                    .map_err(Failure::NotReply)
            }),
            Err(failure) => Err(failure),
        };
        match &asked {
            Ok(_) => self.succeeded(),
            Err(failure) => self.failed(failure),
        }
        asked
    }

    /// By a request that questions about other publications share.
    async fn ask_with_others(
        self: &Arc<Self>,
        batches: &Batches,
        json: Arc<[u8]>,
        deadline: Instant,
    ) -> Answered {
        let (answer, answered) = oneshot::channel();
        let joined = Joined {
            json: Arc::downgrade(&json),
            deadline,
            answer,
        };
        if let Some(batch) = batches.join(&json, joined) {
            tokio::spawn(Arc::clone(self).send(batch));
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(answered)) => answered,
            // It was left out.
            Ok(Err(_)) => Err(Arc::new(Failure::NoTurn)),
            Err(_) => Err(Arc::new(Failure::Target(TargetError::TimeOver))),
        }
    }

    /// Waits for questions that join the batch and for a turn, and sends the batch.
    async fn send(self: Arc<Self>, batch: Arc<Batch>) {
        let Some(batches) = &self.batches else { return };
        // Whether it is full or not, the batch is sent then.
        let _ = timeout(self.spec.batch_wait, batch.filled()).await;
        let Ok(_turn) = self.turns.acquire().await else {
            return;
        };
        let now = Instant::now();
        let (mut questions, mut answers, mut last) = (Vec::new(), Vec::new(), now);
        for joined in batches.close(&batch) {
            // The sender that is dropped with the others tells them that they have no turn.
            if let Some(json) = joined.json.upgrade()
                && !self.is_too_late(joined.deadline, now)
            {
                questions.push(json);
                answers.push(joined.answer);
                last = last.max(joined.deadline);
            }
        }
        if questions.is_empty() {
            return;
        }
        let body = batches::body(&questions);
        drop(questions);
        let replies = self.replies(body, answers.len(), now, last).await;
        match replies {
            // Some questions do not wait any more.
            Ok(replies) => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    let _ = answer.send(reply.map_err(Failure::NotReply).map_err(Arc::new));
                }
            }
            Err(failure) => {
                let failure = Arc::new(failure);
                for answer in answers {
                    let _ = answer.send(Err(Arc::clone(&failure)));
                }
            }
        }
    }

    /// The answers to a request with so many questions, in their order.
    async fn replies(
        &self,
        body: Vec<u8>,
        count: usize,
        now: Instant,
        deadline: Instant,
    ) -> Result<Vec<Result<Reply, NotReply>>, Failure> {
        let target = self.reachable(now)?;
        let answer = self.post(target, body, deadline - now).await;
        let replies = answer.and_then(read).and_then(|body| {
            let replies = Reply::of_array(&body, count, HookAction::Publish);
            replies.map_err(Failure::NotReply)
        });
        match &replies {
            Ok(_) => self.succeeded(),
            Err(failure) => self.failed(failure),
        }
        replies
    }

    /// Whether the time left is too short for an answer. The request would be cut off, which would prove nothing about
    /// the target.
    fn is_too_late(&self, deadline: Instant, now: Instant) -> bool {
        deadline.saturating_duration_since(now) < self.spec.timeout / 4
    }

    /// The target, unless requests to it are paused. If there is one, the caller reports the outcome of a request.
    fn reachable(&self, now: Instant) -> Result<&Target, Failure> {
        let target = self.target.as_ref().ok_or(Failure::CircuitOpen)?;
        let is_tried = locked(&self.circuit).allows_request(now);
        is_tried.then_some(target).ok_or(Failure::CircuitOpen)
    }

    async fn post(&self, target: &Target, body: Vec<u8>, within: Duration) -> Result<Answer, Failure> {
        self.metrics.count_request();
        let answer = target.post(body.into(), &[], within).await;
        answer.map_err(Failure::Target)
    }

    fn succeeded(&self) {
        match locked(&self.circuit).succeeded() {
            Change::Closed => info!("hook {}: its target answers again", self.spec.name),
            Change::None | Change::Opened => {}
        }
    }

    /// Logs the first failure, and later ones at most every [`TELL_EVERY`].
    fn failed(&self, failure: &Failure) {
        let now = Instant::now();
        let change = locked(&self.circuit).failed(now);
        let mut told = locked(&self.told);
        let is_news = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if change == Change::Opened {
            warn!(
                "hook {}: {failure}; after {} failures its target is not asked for a while, and questions are decided \
                 by when_away",
                self.spec.name, self.spec.failures_max
            );
        } else if is_news {
            warn!("hook {}: {failure}", self.spec.name);
        } else {
            return;
        }
        *told = Some(now);
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        self.hook.open.fetch_sub(1, Ordering::Relaxed);
        self.hook.open_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Failure {
    fn outcome(&self) -> HookOutcome {
        match self {
            Failure::NoTurn | Failure::Target(TargetError::TimeOver) => HookOutcome::TimeOver,
            Failure::CircuitOpen => HookOutcome::CircuitOpen,
            Failure::Target(TargetError::Exchange(_)) => HookOutcome::Unreachable,
            Failure::Status(_) => HookOutcome::Status,
            Failure::NotReply(_) => HookOutcome::Invalid,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoTurn => {
                formatter.write_str("no turn in time: its requests take too long, or are too many")
            }
            Failure::CircuitOpen => {
                formatter.write_str("its target is not asked for a while, after failures")
            }
            Failure::Target(error) => error.fmt(formatter),
            Failure::Status(status) if status.is_redirection() => write!(
                formatter,
                "the answer is {status}: set url to the address that it redirects to; redirects are not followed"
            ),
            Failure::Status(status) => write!(formatter, "the answer is {status}, expected 200"),
            Failure::NotReply(why) => write!(formatter, "the answer is none to a question: {why}"),
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hook")
            .field("name", &self.spec.name)
            .finish_non_exhaustive()
    }
}

/// The body of an answer.
fn read(answer: Answer) -> Result<Bytes, Failure> {
    match answer.status {
        StatusCode::OK => answer.body.map_err(Failure::Target),
        status => Err(Failure::Status(status)),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only the thread of the hooks locks it, but for tests.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer with more bytes is not kept.
const CACHED_BYTES_MAX: usize = 4096;
/// Failures are logged no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);
