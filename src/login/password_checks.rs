//! The password_checks itself: its threads, and what waits for them.
//!
//! An attempt is judged by the users that its asker's handle knows: a reload gives the cores new handles of the same
//! password_checks ([`PasswordChecks::with_users`]), so that users change where all that decides changes, and what was counted stays.
//!
//! Invariants
//! 1. [`PasswordChecks::ask`] never waits: no lock, one bounded channel, which a thread of its own empties at once, however
//!    long the passwords take that wait in the [queue](super::queue).
//! 2. Every attempt that was taken is answered once, in the end; those that wait when the last handle is dropped, too.
//! 3. The locks are held by the threads of the password_checks alone, one at a time, and never while a password is checked or an
//!    answer given.

#![expect(
    clippy::disallowed_types,
    reason = "the locks are the password_checks's threads' own: no core ever takes one"
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
use super::{Attempt, Password, Verdict};
use crate::auth::new_token_id;
use crate::auth::passwords::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX, Users};
use crate::client::network::{ClientNetwork, Nat64Prefixes, Width};
use crate::clock::Clock;
use crate::metrics::logins::{LoginMetrics, LoginOutcome};

/// Where logins are asked for. All copies are the same password_checks; its threads end with the last of them.
#[derive(Clone)]
pub struct PasswordChecks {
    intake: Sender<Job>,
    users: Arc<Users>,
    office: Arc<Office>,
}

/// What is done with a verdict. It runs on a thread of the password_checks, which waits for it.
pub type Answer = Box<dyn FnOnce(Verdict) + Send>;

/// How a password_checks is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passwords that are checked at a time, each on its own thread; at least one.
    pub threads: u32,
    /// Attempts that may wait for a thread.
    pub waiting_max: u32,
    /// How addresses of IPv6 are told that hold one of IPv4.
    pub nat64_prefixes: Nat64Prefixes,
    /// How much patience there is.
    pub policy: BackoffPolicy,
}

/// An attempt on its way to a thread.
struct Job {
    attempt: Attempt,
    users: Arc<Users>,
    /// Nobody has such a name or password: checked, since that takes time, and refused.
    cannot_match: bool,
    asked_ns: u64,
    answer: Answer,
}

/// What the threads share.
struct Office {
    clock: Clock,
    metrics: LoginMetrics,
    nat64: Nat64Prefixes,
    /// Makes the keys of the queue, which nobody can choose so that two are the same.
    hasher: RandomState,
    backoff: Mutex<Backoff>,
    waiting: Mutex<Waiting>,
    /// Wakes a thread that waits for an attempt.
    came: Condvar,
    /// How many wait. Written under the lock of the queue, read by whoever shows it; relaxed: it orders nothing.
    waiting_count: AtomicUsize,
}

/// What waits for the threads.
struct Waiting {
    queue: Queue<Job>,
    /// Whether none will come any more.
    is_closed: bool,
}

impl PasswordChecks {
    /// Opens a password_checks on threads of its own. They inherit signal mask and CPUs of the calling thread,
    /// which must not be a core.
    pub fn open(settings: Settings, users: Arc<Users>, clock: Clock) -> io::Result<PasswordChecks> {
        let (intake, jobs) = bounded(INTAKE_MAX);
        let office = Arc::new(Office {
            clock,
            metrics: LoginMetrics::default(),
            nat64: settings.nat64_prefixes,
            hasher: RandomState::new(),
            backoff: Mutex::new(Backoff::new(settings.policy)),
            waiting: Mutex::new(Waiting {
                queue: Queue::new(settings.waiting_max as usize),
                is_closed: false,
            }),
            came: Condvar::new(),
            waiting_count: AtomicUsize::new(0),
        });
        // First the one whose end ends the others, should the system refuse one of these.
        let queue = Arc::clone(&office);
        thread::Builder::new()
            .name("login queue".to_owned())
            .spawn(move || queue.take_in(&jobs))?;
        for index in 0..settings.threads.max(1) {
            let office = Arc::clone(&office);
            thread::Builder::new()
                .name(format!("login {index}"))
                .spawn(move || office.serve())?;
        }
        Ok(PasswordChecks {
            intake,
            users,
            office,
        })
    }

    /// Asks whether somebody is who he claims to be. Never waits; `answer` is called once, on a thread of the password_checks.
    ///
    /// # Errors
    /// More have come than could be looked at: this one is given back, and counted. The answer is dropped.
    pub fn ask(&self, attempt: Attempt, answer: Answer) -> Result<(), Attempt> {
        let cannot_match =
            attempt.user.len() > NAME_BYTES_MAX || attempt.password.expose().len() > PASSWORD_BYTES_MAX;
        let job = Job {
            attempt: if cannot_match { cut(attempt) } else { attempt },
            users: Arc::clone(&self.users),
            cannot_match,
            asked_ns: self.office.clock.elapsed_ns(),
            answer,
        };
        self.intake.try_send(job).map_err(|error| {
            self.office.metrics.count(LoginOutcome::Busy);
            match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job.attempt,
            }
        })
    }

    /// Counts an attempt that its asker had no room for the answer of: busy as well.
    pub fn count_busy(&self) {
        self.office.metrics.count(LoginOutcome::Busy);
    }

    /// The same password_checks for other users, with the same threads and the same patience.
    pub fn with_users(&self, users: Arc<Users>) -> PasswordChecks {
        PasswordChecks {
            users,
            ..self.clone()
        }
    }

    /// What has come of the attempts so far.
    pub fn metrics(&self) -> &LoginMetrics {
        &self.office.metrics
    }

    /// How many users this handle knows.
    pub fn user_count(&self) -> usize {
        self.users.count()
    }

    /// Attempts that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.office.waiting_count.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for PasswordChecks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PasswordChecks").finish_non_exhaustive()
    }
}

impl Office {
    /// Takes attempts in as they come, until no handle is left.
    fn take_in(&self, intake: &Receiver<Job>) {
        for job in intake {
            guarded(|| self.enqueue(job));
        }
        self.waiting().is_closed = true;
        self.came.notify_all();
    }

    /// Lets an attempt wait, or answers it, or another in its place.
    fn enqueue(&self, job: Job) {
        let Attempt { user, address, .. } = &job.attempt;
        let Standing { is_familiar, wait } = self.backoff().standing(
            user,
            self.network(*address, Width::Address),
            self.clock.now().uptime,
        );
        if !wait.is_zero() {
            return self.answer(job, Verdict::TooSoon { retry_after: wait }, LoginOutcome::TooSoon);
        }
        let path = self.path(user, *address);
        let displaced = {
            let mut waiting = self.waiting();
            let displaced = waiting.queue.push(&path, is_familiar, job);
            self.waiting_count.store(waiting.queue.len(), Ordering::Relaxed);
            displaced
        };
        self.came.notify_one();
        match displaced {
            Some(Displaced::Newcomer(job)) => self.answer(job, Verdict::Busy, LoginOutcome::Busy),
            Some(Displaced::Waiting(job)) => self.answer(job, Verdict::Busy, LoginOutcome::Displaced),
            None => {}
        }
    }

    /// Checks what waits, until nothing does and nothing will come.
    fn serve(&self) {
        while let Some(job) = self.next() {
            guarded(|| {
                let verdict = self.verdict(&job);
                let outcome = match &verdict {
                    Verdict::Welcome { .. } => LoginOutcome::Welcome,
                    Verdict::Refused => LoginOutcome::Refused,
                    Verdict::TooSoon { .. } => LoginOutcome::TooSoon,
                    Verdict::Busy => LoginOutcome::Busy,
                };
                self.answer(job, verdict, outcome);
            });
        }
    }

    fn next(&self) -> Option<Job> {
        let waiting = self.waiting();
        let mut waiting = self
            .came
            .wait_while(waiting, |waiting| waiting.queue.len() == 0 && !waiting.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        let job = waiting.queue.pop();
        self.waiting_count.store(waiting.queue.len(), Ordering::Relaxed);
        job
    }

    fn answer(&self, job: Job, verdict: Verdict, outcome: LoginOutcome) {
        let Job {
            attempt,
            asked_ns,
            answer,
            ..
        } = job;
        // Wiped before anybody hears of it.
        drop(attempt);
        {
            let backoff = self.backoff();
            self.metrics.count(outcome);
            // Under the lock: the histogram takes one writer at a time.
            self.metrics
                .seconds
                .record_ns(self.clock.elapsed_ns().saturating_sub(asked_ns));
            self.metrics.accounts_forgotten.set(backoff.forgotten());
        }
        answer(verdict);
    }

    /// Where an attempt waits: each width of its network, then its user.
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

    fn verdict(&self, job: &Job) -> Verdict {
        let Attempt {
            user,
            password,
            address,
        } = &job.attempt;
        let network = self.network(*address, Width::Address);
        // Looked at again: others may have failed while it waited.
        let admitted = self.backoff().admit(user, network, self.clock.now().uptime);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(retry_after) => return Verdict::TooSoon { retry_after },
        };
        let right = job.users.verify(user, password.expose());
        if !right || job.cannot_match {
            return Verdict::Refused;
        }
        self.backoff().succeeded(admitted, self.clock.now().uptime);
        Verdict::Welcome {
            // With an id of its own each token can be revoked alone.
            claims: serde_json::json!({ "sub": user, "username": user, "jti": new_token_id() }).to_string(),
        }
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        // A panic while it was held leaves counts that are at worst one short.
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Office {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // What is done under it does not panic; the queue is whole either way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer is the caller's code: if it panics, one answer is lost, and the next attempt is heard.
fn guarded(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        error!("a login was not answered: this is a bug, see above");
    }
}

/// What fits of an attempt that does not: a queue full of them must not hold their megabytes.
fn cut(attempt: Attempt) -> Attempt {
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

/// How many logins may be under way from their question to the answer, with a password_checks like this: those that wait, those that
/// are checked and those that have not been looked at.
pub(crate) fn under_way_max(waiting_max: u32, threads: u32) -> usize {
    waiting_max as usize + threads as usize + INTAKE_MAX
}

/// Attempts that may come before the thread of the queue looks at them, which takes it microseconds for each.
pub const INTAKE_MAX: usize = 256;
