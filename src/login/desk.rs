//! The desk itself: its threads, and what waits for them.
//!
//! An attempt is judged by the users that its asker's handle knows: a reload gives the cores new handles of the same
//! desk ([`LoginDesk::with_users`]), so that users change where all that decides changes, and what was counted stays.
//!
//! Invariants
//! 1. [`LoginDesk::ask`] never waits: no lock, one bounded channel.
//! 2. Every attempt that was taken is answered once, in the end; those that wait when the last handle is dropped, too.
//! 3. The lock is held by the threads of the desk alone, and never while a password is checked.

#![expect(
    clippy::disallowed_types,
    reason = "the lock is the desk's threads' own: no core ever takes it"
)]

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing::error;

use super::backoff::{Backoff, Policy};
use super::{Attempt, Password, Verdict};
use crate::auth::new_token_id;
use crate::auth::passwords::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX, Users};
use crate::clock::Clock;
use crate::metrics::logins::{LoginMetrics, LoginOutcome};

/// Where logins are asked for. All copies are the same desk; its threads end with the last of them.
#[derive(Clone)]
pub struct LoginDesk {
    waiting: Sender<Job>,
    users: Arc<Users>,
    office: Arc<Office>,
}

/// What is done with a verdict. It runs on a thread of the desk, which waits for it.
pub type Answer = Box<dyn FnOnce(Verdict) + Send>;

/// How a desk is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Passwords that are checked at a time, each on its own thread; at least one.
    pub threads: u32,
    /// Attempts that may wait for a thread.
    pub waiting_max: u32,
    /// How much patience there is.
    pub policy: Policy,
}

/// An attempt on its way to a thread.
struct Job {
    attempt: Attempt,
    users: Arc<Users>,
    /// Nobody has such a name or password: checked, since that takes time, and refused.
    hopeless: bool,
    asked_ns: u64,
    answer: Answer,
}

/// What the threads share.
struct Office {
    clock: Clock,
    metrics: LoginMetrics,
    backoff: Mutex<Backoff>,
}

impl LoginDesk {
    /// Opens a desk on threads of its own. They inherit signal mask and CPUs of the calling thread,
    /// which must not be a core.
    pub fn open(settings: Settings, users: Arc<Users>, clock: Clock) -> io::Result<LoginDesk> {
        let (waiting, jobs) = bounded(settings.waiting_max.max(1) as usize);
        let office = Arc::new(Office {
            clock,
            metrics: LoginMetrics::default(),
            backoff: Mutex::new(Backoff::new(settings.policy)),
        });
        for index in 0..settings.threads.max(1) {
            let (jobs, office) = (jobs.clone(), Arc::clone(&office));
            thread::Builder::new()
                .name(format!("login {index}"))
                .spawn(move || office.serve(&jobs))?;
        }
        Ok(LoginDesk {
            waiting,
            users,
            office,
        })
    }

    /// Asks whether somebody is who he claims to be. Never waits; `answer` is called once, on a thread of the desk.
    ///
    /// # Errors
    /// As many attempts wait as may: this one is given back, and counted. The answer is dropped.
    pub fn ask(&self, attempt: Attempt, answer: Answer) -> Result<(), Attempt> {
        let hopeless =
            attempt.user.len() > NAME_BYTES_MAX || attempt.password.expose().len() > PASSWORD_BYTES_MAX;
        let job = Job {
            attempt: if hopeless { cut(attempt) } else { attempt },
            users: Arc::clone(&self.users),
            hopeless,
            asked_ns: self.office.clock.elapsed_ns(),
            answer,
        };
        self.waiting.try_send(job).map_err(|error| {
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

    /// The same desk for other users, with the same threads and the same patience.
    pub fn with_users(&self, users: Arc<Users>) -> LoginDesk {
        LoginDesk {
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
        self.waiting.len()
    }
}

impl fmt::Debug for LoginDesk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoginDesk").finish_non_exhaustive()
    }
}

impl Office {
    fn serve(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            // The answer is the caller's code: if it panics, one answer is lost, and the next attempt is heard.
            if catch_unwind(AssertUnwindSafe(|| self.judge(job))).is_err() {
                error!("a login was not answered: this is a bug, see above");
            }
        }
    }

    fn judge(&self, job: Job) {
        let verdict = self.verdict(&job);
        let Job { asked_ns, answer, .. } = job;
        let outcome = match &verdict {
            Verdict::Welcome { .. } => LoginOutcome::Welcome,
            Verdict::Refused => LoginOutcome::Refused,
            Verdict::TooSoon { .. } => LoginOutcome::TooSoon,
        };
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

    fn verdict(&self, job: &Job) -> Verdict {
        let Attempt {
            user,
            password,
            address,
        } = &job.attempt;
        let admitted = self.backoff().admit(user, *address, self.clock.now().uptime);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(retry_after) => return Verdict::TooSoon { retry_after },
        };
        let right = job.users.verify(user, password.expose());
        if !right || job.hopeless {
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
