//! The waits of operations: for a moment, or for the answer of a core.
//!
//! An operation is a future, which some thread polls: a thread of the program that blocks, a runtime of the program,
//! the control plane. To wake it means to run code of that runtime, such as a write to its descriptor. A core must not
//! run that code: in the core's own descriptor table the number may name a client's socket. So one ordinary thread,
//! named `handle`, wakes all operations. It also keeps their time limits.
//!
//! ```text
//!   operation ── begins a wait ──► TABLE ◄── finds what is due ── thread `handle` ── wakes ──► operation
//!                                                                   ▲
//!   core ── Reply::give ──► channel, and unparks the thread ────────┘
//! ```
//! Invariants
//! 1. A wait is in the table from its begin to the drop of its [`Wait`].
//! 2. The thread parks no longer than to the first deadline in the table: a wait that begins with an earlier deadline
//!    unparks it, and so does each answer.
//! 3. Wakers are called and dropped by the thread and by operations, without the lock, and never on a core: a core has
//!    a [`Reply`], which leads to the channel and to nothing else.
//! 4. Each [`Reply`] puts one message into the channel, at the latest when it is dropped, and no more than
//!    [`QUESTIONS_MAX`] exist at a time. So the channel always has room, and no core waits for it.
//!
//! Limits: [`QUESTIONS_MAX`].

#![expect(
    clippy::disallowed_types,
    reason = "threads outside the cores take this lock, never a core"
)]

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle, Thread};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock::{Clock, Uptime};
use crate::cores::operators::questions::{FollowerNotifier, FollowerState};

use super::error::HandleError;

/// All waits, and the thread that ends them.
#[derive(Debug)]
pub(super) struct Waits {
    table: Mutex<Table>,
    answers: Arc<Answers>,
    clock: Clock,
}

/// The way of answers to the thread.
#[derive(Debug)]
struct Answers {
    sender: Sender<Answered>,
    thread: OnceLock<Thread>,
    /// How many answers may still come. Relaxed: it guards nothing.
    under_way: AtomicUsize,
    /// Whether some subscriber has something to read that the thread has not looked for. Set by cores, cleared by the
    /// thread, with acquire and release: the thread sees which subscriber it is.
    has_unread: AtomicBool,
}

/// The answer to a question, or `None` if the question was dropped.
type Answered = (u64, Option<Value>);

/// An answer of any type: the operation knows which.
type Value = Box<dyn Any + Send>;

/// The right to end a wait with an answer, once. If it is dropped unused, the operation learns that there is no answer.
#[derive(Debug)]
pub(super) struct Reply {
    id: u64,
    answers: Arc<Answers>,
    is_given: bool,
}

#[derive(Debug)]
struct Table {
    next_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// The subscribers of the program, by ids of the same sequence.
    listening: HashMap<u64, Listening>,
    /// The deadlines of waits that have not ended.
    deadlines: BTreeSet<(Uptime, u64)>,
    /// Until when the thread parks.
    parked_until: Uptime,
    /// Whether the server has ended: no wait begins any more.
    has_ended: bool,
}

/// One wait in the table.
#[derive(Debug)]
struct Waiting {
    deadline: Uptime,
    /// How the wait has ended; `None` while it has not.
    end: Option<End>,
    waker: Option<Waker>,
}

/// A subscriber of the program.
#[derive(Debug)]
struct Listening {
    told: Arc<FollowerState>,
    /// To be called when there is something to read; `None` while the subscriber does not wait.
    waker: Option<Waker>,
}

/// How a wait has ended.
#[derive(Debug)]
pub(super) enum End {
    /// Its moment has come.
    Due,
    /// It was answered.
    Answered(Value),
    /// There is no answer, and there will be none.
    Unanswered,
    /// The server has ended.
    ServerEnded,
}

/// A wait that an operation has begun.
#[derive(Debug)]
pub(super) struct Wait {
    waits: Arc<Waits>,
    id: u64,
}

impl Waits {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(clock: Clock) -> io::Result<(Arc<Waits>, JoinHandle<()>)> {
        let (sender, answered) = bounded(QUESTIONS_MAX);
        let waits = Arc::new(Waits {
            table: Mutex::new(Table {
                next_id: 0,
                waiting: HashMap::new(),
                listening: HashMap::new(),
                deadlines: BTreeSet::new(),
                parked_until: Uptime::NEVER,
                has_ended: false,
            }),
            answers: Arc::new(Answers {
                sender,
                thread: OnceLock::new(),
                under_way: AtomicUsize::new(0),
                has_unread: AtomicBool::new(false),
            }),
            clock,
        });
        let of_thread = Arc::clone(&waits);
        let thread = thread::Builder::new()
            .name("handle".to_owned())
            .spawn(move || of_thread.run(&answered))?;
        // Set once, here.
        let _ = waits.answers.thread.set(thread.thread().clone());
        Ok((waits, thread))
    }

    /// Begins a wait until `deadline`.
    pub(super) fn until(self: &Arc<Self>, deadline: Uptime) -> Wait {
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        let end = table.has_ended.then_some(End::ServerEnded);
        if end.is_none() {
            table.deadlines.insert((deadline, id));
        }
        let waiting = Waiting {
            deadline,
            end,
            waker: None,
        };
        table.waiting.insert(id, waiting);
        let is_first = deadline < table.parked_until;
        drop(table);
        if is_first {
            self.unpark();
        }
        Wait {
            waits: Arc::clone(self),
            id,
        }
    }

    /// Begins a wait for an answer, until `deadline` at most.
    ///
    /// # Errors
    /// Too many answers are awaited already.
    pub(super) fn answer(self: &Arc<Self>, deadline: Uptime) -> Result<(Wait, Reply), HandleError> {
        if self.answers.under_way.fetch_add(1, Ordering::Relaxed) >= QUESTIONS_MAX {
            self.answers.under_way.fetch_sub(1, Ordering::Relaxed);
            return Err(HandleError::Busy);
        }
        let wait = self.until(deadline);
        let reply = Reply {
            id: wait.id,
            answers: Arc::clone(&self.answers),
            is_given: false,
        };
        Ok((wait, reply))
    }

    /// Adds a subscriber, of at most `count_max`; returns its id.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn listen(&self, told: &Arc<FollowerState>, count_max: usize) -> Result<u64, HandleError> {
        let mut table = self.table();
        if table.listening.len() >= count_max {
            return Err(HandleError::Busy);
        }
        let id = table.next_id;
        table.next_id += 1;
        let listening = Listening {
            told: Arc::clone(told),
            waker: None,
        };
        table.listening.insert(id, listening);
        Ok(id)
    }

    /// Has a subscriber woken when there is something to read. False if there will be nothing, since the server has
    /// ended.
    pub(super) fn wake_on_publication(&self, id: u64, waker: &Waker) -> bool {
        let mut table = self.table();
        if table.has_ended {
            return false;
        }
        let listening = table.listening.get_mut(&id);
        let before = listening.and_then(|listening| listening.waker.replace(waker.clone()));
        drop(table);
        drop(before);
        true
    }

    /// Removes a subscriber.
    pub(super) fn forget(&self, id: u64) {
        let removed = self.table().listening.remove(&id);
        // Its waker goes without the lock.
        drop(removed);
    }

    /// How many subscribers there are.
    pub(super) fn listening_count(&self) -> usize {
        self.table().listening.len()
    }

    /// By this, cores tell that a subscriber has something to read.
    pub(super) fn notifier(&self) -> Arc<dyn FollowerNotifier> {
        Arc::clone(&self.answers) as Arc<dyn FollowerNotifier>
    }

    /// Whether the server has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.table().has_ended
    }

    /// Ends all waits, and the thread.
    pub(super) fn end(&self) {
        self.table().has_ended = true;
        self.unpark();
    }

    fn unpark(&self) {
        self.answers.unpark();
    }

    /// The thread.
    fn run(&self, answered: &Receiver<Answered>) {
        let mut wakers = Vec::new();
        loop {
            while let Ok((id, value)) = answered.try_recv() {
                self.answers.under_way.fetch_sub(1, Ordering::Relaxed);
                let end = value.map_or(End::Unanswered, End::Answered);
                // If the operation has been dropped, so is the answer: here, not on the core.
                let not_awaited = self.table().end(id, end, &mut wakers);
                drop(not_awaited);
            }
            let has_unread = self.answers.has_unread.swap(false, Ordering::AcqRel);
            let now = self.clock.uptime();
            let (until, has_ended) = {
                let mut table = self.table();
                table.end_due(now, &mut wakers);
                if has_unread || table.has_ended {
                    table.take_wakers_of_unread(&mut wakers);
                }
                table.parked_until = table.first_deadline();
                (table.parked_until, table.has_ended)
            };
            wakers.drain(..).for_each(Waker::wake);
            if has_ended {
                return;
            }
            if until == Uptime::NEVER {
                thread::park();
            } else {
                thread::park_timeout(until.since(now));
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The code that runs under the lock does not panic, and the table would be consistent even so.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn first_deadline(&self) -> Uptime {
        self.deadlines
            .first()
            .map_or(Uptime::NEVER, |(deadline, _)| *deadline)
    }

    /// Ends the waits whose deadlines have come, or all waits if the server has ended.
    fn end_due(&mut self, now: Uptime, wakers: &mut Vec<Waker>) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && (deadline <= now || self.has_ended)
        {
            let end = if self.has_ended {
                End::ServerEnded
            } else {
                End::Due
            };
            self.deadlines.remove(&(deadline, id));
            let ended_before = self.end(id, end, wakers);
            debug_assert!(ended_before.is_none(), "it has a deadline while it has not ended");
        }
    }

    /// Takes the wakers of the subscribers that have something to read, or of all if the server has ended.
    fn take_wakers_of_unread(&mut self, wakers: &mut Vec<Waker>) {
        for listening in self.listening.values_mut() {
            if listening.told.has_unread.swap(false, Ordering::AcqRel) || self.has_ended {
                wakers.extend(listening.waker.take());
            }
        }
    }

    /// Ends a wait. Gives `end` back if nothing waits for it any more.
    fn end(&mut self, id: u64, end: End, wakers: &mut Vec<Waker>) -> Option<End> {
        let waiting = self.waiting.get_mut(&id);
        let Some(waiting) = waiting.filter(|waiting| waiting.end.is_none()) else {
            return Some(end);
        };
        waiting.end = Some(end);
        self.deadlines.remove(&(waiting.deadline, id));
        wakers.extend(waiting.waker.take());
        None
    }
}

impl Answers {
    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn send(&self, answered: Answered) {
        // Invariant 4. If the thread has ended, so have all waits.
        let _ = self.sender.try_send(answered);
        self.unpark();
    }
}

impl FollowerNotifier for Answers {
    fn tell(&self) {
        if !self.has_unread.swap(true, Ordering::AcqRel) {
            self.unpark();
        }
    }
}

impl Reply {
    /// Answers. A core may call this: it waits for nothing.
    pub(super) fn give(mut self, value: impl Any + Send) {
        self.is_given = true;
        self.answers.send((self.id, Some(Box::new(value))));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_given {
            self.answers.send((self.id, None));
        }
    }
}

impl Future for Wait {
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let mut table = self.waits.table();
        let waiting = table.waiting.get_mut(&self.id).expect("invariant 1");
        if let Some(end) = waiting.end.take() {
            waiting.end = Some(End::Due);
            return Poll::Ready(end);
        }
        let before = waiting.waker.replace(context.waker().clone());
        drop(table);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut table = self.waits.table();
        let waiting = table.waiting.remove(&self.id);
        if let Some(waiting) = &waiting {
            table.deadlines.remove(&(waiting.deadline, self.id));
        }
        drop(table);
        // The waker goes without the lock.
        drop(waiting);
    }
}

/// Most answers that operations of all handles may await at the same time.
const QUESTIONS_MAX: usize = 4096;
