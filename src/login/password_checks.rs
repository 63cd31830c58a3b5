//! The threads that check passwords, and the attempts that wait for them.
//!
//! An attempt is checked against the users of the handle that it was submitted through. A reload gives the
//! cores new handles of the same password checks ([`PasswordChecks::with_users`]): so the users change
//! together with the rest of the policy, while the counted failures stay.
//!
//! Invariants
//! 1. [`PasswordChecks::submit`] never waits: it takes no lock and uses one bounded channel. A thread empties
//!    that channel at once, however long the attempts in the [queue](super::queue) have to wait.
//! 2. Every attempt that was taken is answered exactly once, also if the last handle is dropped while it
//!    waits.
//! 3. Only the threads of the password checks take the locks, one lock at a time, and never while they check
//!    a password or give an answer.

#![expect(
    clippy::disallowed_types,
    reason = "only the threads of the password checks take these locks, never a core"
)]

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing::error;

use super::backoff::{Backoff, BackoffPolicy, Standing};
use super::queue::{Displaced, LEVELS, Path, Queue};
use super::{Attempt, LoginVerdict, Password};
use crate::auth::new_token_id;
use crate::auth::passwords::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX, Users};
use crate::client::network::{ClientNetwork, Nat64Prefixes, Width};
use crate::clock::Clock;
use crate::metrics::logins::{LoginMetrics, LoginOutcome};

/// A handle for submitting logins. All clones share the same threads, which end when the last handle is
/// dropped.
#[derive(Clone)]
pub struct PasswordChecks {
    intake: Sender<Job>,
    users: Arc<Users>,
    shared: Arc<CheckerState>,
}

/// Receives the verdict of an attempt. It runs on a thread of the password checks, which waits until it
/// returns.
pub type LoginCallback = Box<dyn FnOnce(LoginVerdict) + Send>;

/// The settings of the password checks.
#[derive(Clone, Debug)]
pub struct PasswordCheckSettings {
    /// How many threads check passwords; at least one.
    pub threads: u32,
    /// Most attempts that may wait for a thread.
    pub waiting_max: u32,
    /// The prefixes of IPv6 addresses that embed IPv4 addresses.
    pub nat64_prefixes: Nat64Prefixes,
    /// The settings of the back-off.
    pub policy: BackoffPolicy,
}

/// An attempt on its way to a thread.
struct Job {
    attempt: Attempt,
    users: Arc<Users>,
    /// True if no user can have this name or password. It is checked all the same, since that takes time, and
    /// then refused.
    cannot_match: bool,
    submitted_ns: u64,
    answer: LoginCallback,
}

/// The state that the threads share.
struct CheckerState {
    clock: Clock,
    metrics: LoginMetrics,
    nat64: Nat64Prefixes,
    /// Makes the keys of the queue. It is keyed, so that a client cannot construct two equal keys.
    hasher: RandomState,
    backoff: Mutex<Backoff>,
    waiting: Mutex<WaitingAttempts>,
    /// Wakes a thread that waits for an attempt.
    attempt_came: Condvar,
    /// The number of waiting attempts. Written under the lock of the queue, read for metrics; relaxed order
    /// is enough.
    waiting_count: AtomicUsize,
}

/// The attempts that wait for the threads.
struct WaitingAttempts {
    queue: Queue<Job>,
    /// True if no more attempts will come.
    is_closed: bool,
}

impl PasswordChecks {
    /// Starts the password checks on threads of their own. The threads inherit signal mask and CPUs of the
    /// calling thread, which must not be a core.
    pub fn open(
        settings: PasswordCheckSettings,
        users: Arc<Users>,
        clock: Clock,
    ) -> io::Result<PasswordChecks> {
        let (intake, jobs) = bounded(INTAKE_MAX);
        let shared = Arc::new(CheckerState {
            clock,
            metrics: LoginMetrics::default(),
            nat64: settings.nat64_prefixes,
            hasher: RandomState::new(),
            backoff: Mutex::new(Backoff::new(settings.policy)),
            waiting: Mutex::new(WaitingAttempts {
                queue: Queue::new(settings.waiting_max as usize),
                is_closed: false,
            }),
            attempt_came: Condvar::new(),
            waiting_count: AtomicUsize::new(0),
        });
        // The queue's thread comes first: if the system refuses a later thread, its end ends the others.
        let queue = Arc::clone(&shared);
        thread::Builder::new()
            .name("login queue".to_owned())
            .spawn(move || queue.receive_attempts(&jobs))?;
        for index in 0..settings.threads.max(1) {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("login {index}"))
                .spawn(move || shared.check_attempts())?;
        }
        Ok(PasswordChecks {
            intake,
            users,
            shared,
        })
    }

    /// Submits an attempt. Never waits. `answer` is called exactly once, on a thread of the password checks.
    ///
    /// # Errors
    /// The intake is full: the attempt is returned and counted, and `answer` is dropped.
    pub fn submit(&self, attempt: Attempt, answer: LoginCallback) -> Result<(), Attempt> {
        let cannot_match =
            attempt.user.len() > NAME_BYTES_MAX || attempt.password.expose().len() > PASSWORD_BYTES_MAX;
        let job = Job {
            attempt: if cannot_match { truncate(attempt) } else { attempt },
            users: Arc::clone(&self.users),
            cannot_match,
            submitted_ns: self.shared.clock.elapsed_ns(),
            answer,
        };
        self.intake.try_send(job).map_err(|error| {
            self.shared.metrics.count(LoginOutcome::Busy);
            match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job.attempt,
            }
        })
    }

    /// Counts an attempt as busy that the caller could not submit for lack of room for its answer.
    pub fn count_busy(&self) {
        self.shared.metrics.count(LoginOutcome::Busy);
    }

    /// The same password checks for other users, with the same threads and the same counted failures.
    pub fn with_users(&self, users: Arc<Users>) -> PasswordChecks {
        PasswordChecks {
            users,
            ..self.clone()
        }
    }

    /// Counts of the outcomes so far.
    pub fn metrics(&self) -> &LoginMetrics {
        &self.shared.metrics
    }

    /// How many users this handle knows.
    pub fn user_count(&self) -> usize {
        self.users.count()
    }

    /// Attempts that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.waiting_count.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for PasswordChecks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PasswordChecks").finish_non_exhaustive()
    }
}

impl CheckerState {
    /// Moves attempts from the intake to the queue until no handle is left.
    fn receive_attempts(&self, intake: &Receiver<Job>) {
        for job in intake {
            catch_panic(|| self.enqueue(job));
        }
        self.waiting().is_closed = true;
        self.attempt_came.notify_all();
    }

    /// Puts an attempt into the queue, and answers the attempt that is displaced, if any; or answers that it
    /// comes too soon.
    fn enqueue(&self, job: Job) {
        let Attempt { user, address, .. } = &job.attempt;
        let Standing { is_familiar, wait } = self.backoff().standing(
            user,
            self.network(*address, Width::Address),
            self.clock.now().uptime,
        );
        if !wait.is_zero() {
            return self.answer(
                job,
                LoginVerdict::TooSoon { retry_after: wait },
                LoginOutcome::TooSoon,
            );
        }
        let path = self.path(user, *address);
        let displaced = {
            let mut waiting = self.waiting();
            let displaced = waiting.queue.push(&path, is_familiar, job);
            self.waiting_count.store(waiting.queue.len(), Ordering::Relaxed);
            displaced
        };
        self.attempt_came.notify_one();
        match displaced {
            Some(Displaced::New(job)) => self.answer(job, LoginVerdict::Busy, LoginOutcome::Busy),
            Some(Displaced::Waiting(job)) => self.answer(job, LoginVerdict::Busy, LoginOutcome::Displaced),
            None => {}
        }
    }

    /// Checks waiting attempts until none is left and none can come.
    fn check_attempts(&self) {
        while let Some(job) = self.next() {
            catch_panic(|| {
                let verdict = self.verdict(&job);
                let outcome = match &verdict {
                    LoginVerdict::Accepted { .. } => LoginOutcome::Accepted,
                    LoginVerdict::Refused => LoginOutcome::Refused,
                    LoginVerdict::TooSoon { .. } => LoginOutcome::TooSoon,
                    LoginVerdict::Busy => LoginOutcome::Busy,
                };
                self.answer(job, verdict, outcome);
            });
        }
    }

    fn next(&self) -> Option<Job> {
        let waiting = self.waiting();
        let mut waiting = self
            .attempt_came
            .wait_while(waiting, |waiting| waiting.queue.len() == 0 && !waiting.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        let job = waiting.queue.pop();
        self.waiting_count.store(waiting.queue.len(), Ordering::Relaxed);
        job
    }

    fn answer(&self, job: Job, verdict: LoginVerdict, outcome: LoginOutcome) {
        let Job {
            attempt,
            submitted_ns,
            answer,
            ..
        } = job;
        // Wipes the password before the answer is given.
        drop(attempt);
        {
            let backoff = self.backoff();
            self.metrics.count(outcome);
            // Under the lock: the histogram takes one writer at a time.
            self.metrics
                .seconds
                .record_ns(self.clock.elapsed_ns().saturating_sub(submitted_ns));
            self.metrics.accounts_forgotten.set(backoff.forgotten());
        }
        answer(verdict);
    }

    /// The path of an attempt in the queue: each width of its network, then its user.
    fn path(&self, user: &str, address: IpAddr) -> Path {
        let network = |width| self.hasher.hash_one(self.network(address, width));
        let path: [u64; LEVELS] = [
            network(Width::Provider),
            network(Width::Site),
            network(Width::Customer),
            network(Width::Address),
            self.hasher.hash_one(user),
        ];
        path
    }

    fn network(&self, address: IpAddr, width: Width) -> ClientNetwork {
        self.nat64.network(address, width)
    }

    fn verdict(&self, job: &Job) -> LoginVerdict {
        let Attempt {
            user,
            password,
            address,
        } = &job.attempt;
        let network = self.network(*address, Width::Address);
        // Ask the back-off again: others may have failed while this attempt waited.
        let admitted = self.backoff().admit(user, network, self.clock.now().uptime);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(retry_after) => return LoginVerdict::TooSoon { retry_after },
        };
        let right = job.users.verify(user, password.expose());
        if !right || job.cannot_match {
            return LoginVerdict::Refused;
        }
        self.backoff().succeeded(admitted, self.clock.now().uptime);
        LoginVerdict::Accepted {
            // With an id of its own each token can be revoked alone.
            claims: serde_json::json!({ "sub": user, "username": user, "jti": new_token_id() }).to_string(),
        }
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        // A thread that panicked while it held the lock has left counts that are at most one too low.
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckerState {
    fn waiting(&self) -> MutexGuard<'_, WaitingAttempts> {
        // The code that runs under the lock does not panic, and the queue would be consistent even so.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs code that includes the caller's answer: if that panics, one answer is lost, and the thread goes on.
fn catch_panic(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        error!("a login was not answered because of a bug; see the panic above");
    }
}

/// Truncates a name and a password that are too long to match: a queue full of them must not hold megabytes.
fn truncate(attempt: Attempt) -> Attempt {
    let Attempt {
        user,
        password,
        address,
    } = attempt;
    let user_end = user.floor_char_boundary(NAME_BYTES_MAX);
    let password_end = password.expose().len().min(PASSWORD_BYTES_MAX);
    Attempt {
        user: user[..user_end].to_owned(),
        password: Password::new(&password.expose()[..password_end]),
        address,
    }
}

/// How many logins may be pending with these settings, from their submission to the answer: logins in the intake, in
/// the queue and under check.
pub(crate) fn pending_max(waiting_max: u32, threads: u32) -> usize {
    waiting_max as usize + threads as usize + INTAKE_MAX
}

/// Most attempts in the intake. The queue's thread takes microseconds for each.
pub const INTAKE_MAX: usize = 256;
