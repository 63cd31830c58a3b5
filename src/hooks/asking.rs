//! The threads of the hooks: they take questions from the cores, and return the answers to them.
//!
//! ```text
//!  core ──► channel ──► thread `hooks intake` ──► thread `hooks`, a runtime: a task for each question ──► core
//! ```
//! A runtime is woken by a descriptor, and a core may have a table of descriptors of its own, in which the number is
//! that of another file. Therefore a core gives its questions to a thread that waits without a descriptor.
//! `concurrency` of each hook bounds the questions that are on their way at once. Both threads end when the last policy
//! with hooks is dropped.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::hook::{Hook, OpenQuestion};
use super::question::Question;
use crate::app::{AppError, DeferredDecision, Undelivered};
use crate::config::hooks::{HOOKS_MAX, WhenAway};
use crate::targets::LOOK_UPS_MAX;

/// The way to the threads.
#[derive(Clone, Debug)]
pub(super) struct Asking(Sender<Box<Sent>>);

/// A question on its way.
pub(super) struct Open {
    pub(super) hook: Arc<Hook>,
    pub(super) question: Question,
    /// `None` if the hook only learns of the action (`disconnect`).
    pub(super) decision: Option<DeferredDecision>,
    /// Counts until the answer is given.
    pub(super) place: OpenQuestion,
}

/// A question, and a share of the way: the threads do not end before it is answered, also if a reload removes all
/// hooks.
struct Sent {
    open: Open,
    way: Asking,
}

impl Asking {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system refuses a thread, or the descriptors of a runtime.
    pub(super) fn start() -> io::Result<Asking> {
        let (sender, questions) = bounded(QUESTIONS_MAX);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("hooks names")
            .max_blocking_threads(LOOK_UPS_MAX * HOOKS_MAX)
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("hooks".to_owned()).spawn(move || {
            // The other end is dropped, too, if the intake could not be started.
            let _ = runtime.block_on(ended);
            // A look-up of a host's name may last longer than the end of the process may wait.
            runtime.shutdown_background();
        })?;
        thread::Builder::new()
            .name("hooks intake".to_owned())
            .spawn(move || take_in(&questions, &handle, u64::from_le_bytes(random), end))?;
        Ok(Asking(sender))
    }

    /// Whether there is room for another question. Another core may take it first.
    pub(super) fn has_room(&self) -> bool {
        !self.0.is_full()
    }

    /// Takes a question. Returns false, and drops the question, if there is no room.
    pub(super) fn take(&self, open: Open) -> bool {
        let way = self.clone();
        self.0.try_send(Box::new(Sent { open, way })).is_ok()
    }
}

/// Hands questions to the runtime until no core and no policy can send any more. Then `end` is dropped.
fn take_in(questions: &Receiver<Box<Sent>>, runtime: &Handle, random: u64, end: oneshot::Sender<()>) {
    for (number, sent) in questions.iter().enumerate() {
        runtime.spawn(answer(*sent, format!("{random:016x}-{number}")));
    }
    drop(end);
}

async fn answer(sent: Sent, id: String) {
    let Sent { open, way } = sent;
    let Open {
        hook,
        question,
        decision,
        place,
    } = open;
    let reply = hook.answer(&question, &id).await;
    let Some(decision) = decision else { return };
    let mut sent = match (reply, hook.spec.when_away) {
        (Some(reply), _) => decision.decide(move |peer| reply.apply(peer)),
        (None, WhenAway::Allow) => decision.allow(),
        (None, WhenAway::Refuse) => decision.refuse(unavailable()),
    };
    // The core takes more with each of its turns.
    while let Err(Undelivered::Full(unsent)) = sent {
        sleep(AGAIN).await;
        sent = unsent.retry();
    }
    drop((place, way));
}

/// The error for a client if the hook gives no decision.
pub(super) fn unavailable() -> AppError {
    AppError::new("The backend that decides this did not answer").named("HookUnavailableError")
}

/// Most questions that wait for the intake.
pub(super) const QUESTIONS_MAX: usize = 8192;
/// How long to wait before an answer is sent again to a core that had no room for it.
const AGAIN: Duration = Duration::from_millis(5);
