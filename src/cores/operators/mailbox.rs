//! Messages from other threads to a core: orders and questions of the control plane, late answers of the
//! application, answers to logins. In the other direction the core publishes its status and its counters.
//!
//! Each kind of message has a bounded crossbeam channel of its own, so that answers never crowd out an order.
//! The sender wakes the core after each message, and never waits: a message that finds its channel full goes
//! back to it.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::Waker;

use crate::app::{LateAnswer, LateAnswerSender, Returned};
use crate::auth::Revocation;
use crate::metrics::block::CoreMetrics;
use crate::policy::Policy;

use crate::cores::arrivals::login_answers::{Answered, LoginWay};
use crate::cores::operators::questions::{Answer, Question};

/// An order of the control plane to a core.
#[derive(Clone, Debug)]
pub enum Order {
    /// Decide by this policy from now on.
    Adopt(Arc<Policy>),
    /// End the connections whose tokens are revoked. The policy that refuses these tokens comes before this order.
    Revoke {
        /// The revocation.
        revocation: Arc<Revocation>,
        /// Reports how many connections the core has ended.
        done: Done,
    },
    /// Accept no more, close every client within this time, then stop.
    Drain {
        /// Clients are closed one after the other over this time.
        within: Duration,
    },
    /// Close the remaining connections at once, and stop.
    Stop,
}

/// The sender by which a core reports that an order has been carried out. The report goes to the thread
/// `handle`, which wakes the control plane (`handle/waits.rs`). The core itself wakes no runtime: for that it
/// would write to a descriptor of another thread's table, and in the core's own table the same number may
/// belong to a client's socket.
///
/// It holds the answer until it is given. If all clones are dropped before, for example because a core stops,
/// the control plane learns that there is none.
#[derive(Clone, Debug)]
pub struct Done(Receiver<Answer<u64>>);

impl Done {
    /// Reports through this answer.
    pub(crate) fn new(answer: Answer<u64>) -> Done {
        let (sender, receiver) = bounded(1);
        // The channel is empty.
        let _ = sender.try_send(answer);
        Done(receiver)
    }

    /// For orders whose report is of no interest.
    pub(crate) fn unobserved() -> Done {
        Done(bounded(1).1)
    }

    /// Reports that the order has been carried out, on this many connections.
    pub(in crate::cores) fn tell(&self, connections: u64) {
        if let Ok(answer) = self.0.try_recv() {
            answer.give(connections);
        }
    }
}

/// The state of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CoreStatus {
    /// Not listening yet.
    Starting,
    /// Accepting and serving.
    Serving,
    /// Closing its clients.
    Draining,
    /// Its thread has ended, or is about to.
    Stopped,
}

/// The control plane's end of the channels of one core.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    orders: Sender<Order>,
    questions: Sender<Question>,
    waker: Arc<Waker>,
    metrics: Arc<CoreMetrics>,
    status: Arc<Status>,
}

/// Why a core was not asked a question.
#[derive(Debug)]
pub(crate) enum NotAsked {
    /// Too many questions wait already.
    Full(Box<Question>),
    /// The core has ended.
    Ended,
}

/// The core's end.
#[derive(Debug)]
pub(crate) struct Mailbox {
    orders: Receiver<Order>,
    questions: Receiver<Question>,
    late_answers: Receiver<LateAnswer>,
    late_answer_sender: Arc<LateAnswers>,
    logins: Receiver<Answered>,
    login_way: LoginWay,
    /// Logins that have begun and whose answers the core has not taken: never more than the channel has room
    /// for.
    logins_under_way: Cell<usize>,
    /// Whether late answers or answers to logins may have arrived since the core was last woken.
    answers_waiting: Cell<bool>,
    /// Whether there may be questions.
    questions_waiting: Cell<bool>,
    metrics: Arc<CoreMetrics>,
    status: Arc<Status>,
}

/// The queue of late answers for a core.
#[derive(Debug)]
struct LateAnswers {
    late_answers: Sender<LateAnswer>,
    waker: Arc<Waker>,
    /// Answers that were returned to their senders since the core last counted them. Written by all senders
    /// and by the core, relaxed: it orders nothing.
    returned: AtomicU64,
}

/// Written by the core, read by the control plane. Release and acquire: a reader that sees `Serving` also sees the
/// listener.
#[derive(Debug)]
struct Status {
    of_core: AtomicU8,
    /// How many listeners the core has.
    listeners: AtomicUsize,
    /// Why the core cannot use a listener that it was sent.
    lost_listener: OnceLock<String>,
}

/// A mailbox and the handle that sends to it. `waker` belongs to the poll of the core. At most `logins_max`
/// logins of the core's clients may be under way.
pub(crate) fn mailbox(waker: Arc<Waker>, logins_max: usize) -> (CoreHandle, Mailbox) {
    let (sender, orders) = bounded(ORDERS_WAITING_MAX);
    let (question_sender, questions) = bounded(QUESTIONS_WAITING_MAX);
    let (late_sender, late_answers) = bounded(LATE_ANSWERS_WAITING_MAX);
    let (login_sender, logins) = bounded(logins_max.max(1));
    let login_way = LoginWay {
        logins: login_sender,
        waker: Arc::clone(&waker),
    };
    let late_answer_sender = Arc::new(LateAnswers {
        late_answers: late_sender,
        waker: Arc::clone(&waker),
        returned: AtomicU64::new(0),
    });
    let metrics = Arc::new(CoreMetrics::default());
    let status = Arc::new(Status {
        of_core: AtomicU8::new(CoreStatus::Starting as u8),
        listeners: AtomicUsize::new(0),
        lost_listener: OnceLock::new(),
    });
    let handle = CoreHandle {
        orders: sender,
        questions: question_sender,
        waker,
        metrics: Arc::clone(&metrics),
        status: Arc::clone(&status),
    };
    (
        handle,
        Mailbox {
            orders,
            questions,
            late_answers,
            late_answer_sender,
            logins,
            login_way,
            logins_under_way: Cell::new(0),
            answers_waiting: Cell::new(false),
            questions_waiting: Cell::new(false),
            metrics,
            status,
        },
    )
}

impl CoreHandle {
    /// Gives an order and wakes the core. Fails if the core has ended, or if it has not taken earlier orders and the
    /// channel is full.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::from(io::ErrorKind::WouldBlock),
            TrySendError::Disconnected(_) => io::Error::from(io::ErrorKind::BrokenPipe),
        })?;
        self.waker.wake()
    }

    /// Asks a question and wakes the core.
    ///
    /// # Errors
    /// The core has ended, or it has not taken earlier questions and the channel is full.
    pub(crate) fn ask(&self, question: Question) -> Result<(), NotAsked> {
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(question) => NotAsked::Full(Box::new(question)),
            TrySendError::Disconnected(_) => NotAsked::Ended,
        })?;
        self.request_turn();
        Ok(())
    }

    /// Wakes the core for one turn: its counter of turns then shows that it is alive.
    pub(crate) fn request_turn(&self) {
        // An eventfd write fails only when its counter is full: then the core is being woken anyway.
        let _ = self.waker.wake();
    }

    /// Whether the core has stopped, for example after a drain.
    pub(crate) fn has_stopped(&self) -> bool {
        self.status() == CoreStatus::Stopped
    }

    /// How many of the listeners that were sent to the core it has taken.
    ///
    /// # Errors
    /// The core cannot use one of them, for this reason.
    pub(crate) fn listeners(&self) -> Result<usize, &str> {
        match self.status.lost_listener.get() {
            Some(cause) => Err(cause),
            None => Ok(self.status.listeners.load(Ordering::Acquire)),
        }
    }

    /// The core's counters.
    pub fn metrics(&self) -> &CoreMetrics {
        &self.metrics
    }

    /// The state of the core.
    pub fn status(&self) -> CoreStatus {
        match self.status.of_core.load(Ordering::Acquire) {
            status if status == CoreStatus::Starting as u8 => CoreStatus::Starting,
            status if status == CoreStatus::Serving as u8 => CoreStatus::Serving,
            status if status == CoreStatus::Draining as u8 => CoreStatus::Draining,
            _ => CoreStatus::Stopped,
        }
    }
}

impl Mailbox {
    /// The next order, if there is one.
    pub(crate) fn try_receive(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// Notes that the core was woken: any channel may hold a message.
    pub(in crate::cores) fn note_wake(&self) {
        self.answers_waiting.set(true);
        self.questions_waiting.set(true);
    }

    /// Whether there may be late answers, or answers to logins.
    pub(in crate::cores) fn has_answers(&self) -> bool {
        self.answers_waiting.get()
    }

    /// Whether there may be questions.
    pub(in crate::cores) fn has_questions(&self) -> bool {
        self.questions_waiting.get()
    }

    /// The next question, if there is one.
    pub(in crate::cores) fn try_receive_question(&self) -> Option<Question> {
        let question = self.questions.try_recv().ok();
        self.questions_waiting.set(question.is_some());
        question
    }

    /// The next late answer, if there is one. Then there may be more.
    pub(in crate::cores) fn try_receive_late(&self) -> Option<LateAnswer> {
        let answer = self.late_answers.try_recv().ok();
        self.answers_waiting.set(answer.is_some());
        answer
    }

    /// How many late answers may wait: a core takes all of them in one turn.
    pub(in crate::cores) fn late_answers_max(&self) -> usize {
        self.late_answers.capacity().unwrap_or(LATE_ANSWERS_WAITING_MAX)
    }

    /// Notes that answers to logins may be left for the next turn.
    pub(in crate::cores) fn leave_logins(&self) {
        self.answers_waiting.set(true);
    }

    /// The next answer to a login, if there is one.
    pub(in crate::cores) fn try_receive_login(&self) -> Option<Answered> {
        let answered = self.logins.try_recv().ok()?;
        self.logins_under_way.set(self.logins_under_way.get() - 1);
        Some(answered)
    }

    /// Whether there is room for the answer to another login.
    pub(in crate::cores) fn has_room_for_login(&self) -> bool {
        self.logins
            .capacity()
            .is_some_and(|max| self.logins_under_way.get() < max)
    }

    /// Notes that a login has begun, and reserves room for its answer.
    pub(in crate::cores) fn login_is_under_way(&self) {
        self.logins_under_way.set(self.logins_under_way.get() + 1);
    }

    /// The sender with which the password checks answer this core.
    pub(in crate::cores) fn login_way(&self) -> LoginWay {
        self.login_way.clone()
    }

    /// How many late answers went back to their senders since the last call.
    pub(in crate::cores) fn take_returned(&self) -> u64 {
        self.late_answer_sender.returned.swap(0, Ordering::Relaxed)
    }

    /// The sending end for late answers to this core.
    pub(in crate::cores) fn late_answer_sender(&self) -> Arc<dyn LateAnswerSender> {
        Arc::clone(&self.late_answer_sender) as Arc<dyn LateAnswerSender>
    }

    /// The block this core writes.
    pub(in crate::cores) fn metrics(&self) -> Arc<CoreMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Notes that the core accepts the connections of one more listener.
    pub(in crate::cores) fn note_listener(&self) {
        self.status.listeners.fetch_add(1, Ordering::Release);
    }

    /// Notes that the core cannot use a listener.
    pub(in crate::cores) fn note_lost_listener(&self, cause: String) {
        // The first cause is enough for the start to fail.
        let _ = self.status.lost_listener.set(cause);
    }

    /// Publishes the state of the core.
    pub(crate) fn set_status(&self, status: CoreStatus) {
        self.status.of_core.store(status as u8, Ordering::Release);
    }
}

impl LateAnswerSender for LateAnswers {
    fn send(&self, answer: LateAnswer) -> Result<(), Returned> {
        self.late_answers.try_send(answer).map_err(|error| match error {
            TrySendError::Full(answer) => {
                self.returned.fetch_add(1, Ordering::Relaxed);
                Returned::Full(answer)
            }
            TrySendError::Disconnected(_) => Returned::Gone,
        })?;
        // An eventfd write fails only when its counter is full: then the core is being woken anyway.
        let _ = self.waker.wake();
        Ok(())
    }
}

/// Late answers that may wait for a core, which takes them all in one turn.
const LATE_ANSWERS_WAITING_MAX: usize = 4096;
/// Questions that may wait for a core, which answers one after the other.
const QUESTIONS_WAITING_MAX: usize = 64;
/// More orders than the control plane gives before it reads the reports about them.
const ORDERS_WAITING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::app::{CallAnswer, Late};
    use crate::client::ClientAddress;
    use crate::session::LoginAnswer;

    fn late(address: usize) -> LateAnswer {
        LateAnswer {
            address,
            answer: Late::Call {
                token: Box::default(),
                owed: None,
                answer: Box::new(|_| CallAnswer::silent()),
            },
        }
    }

    #[test]
    fn a_full_mailbox_gives_answers_back_and_takes_orders_all_the_same() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (handle, mailbox) = mailbox(waker, 64);
        let sender = mailbox.late_answer_sender();
        for address in 0..LATE_ANSWERS_WAITING_MAX {
            assert!(sender.send(late(address)).is_ok());
        }
        assert_eq!(mailbox.take_returned(), 0);
        let Err(Returned::Full(returned)) = sender.send(late(77)) else {
            panic!("the mailbox is full");
        };
        assert_eq!((returned.address, mailbox.take_returned()), (77, 1));
        assert!(handle.send(Order::Stop).is_ok());

        assert_eq!(mailbox.try_receive_late().map(|first| first.address), Some(0));
        assert!(sender.send(returned).is_ok());
        drop(mailbox);
        assert!(matches!(sender.send(late(78)), Err(Returned::Gone)));
    }

    #[test]
    fn the_answer_to_a_login_has_room_however_long_the_core_stands_still() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (_handle, mailbox) = mailbox(waker, 64);
        let answered = |address| Answered {
            address,
            answer: LoginAnswer::Refused,
            user: String::new(),
            client: ClientAddress::UNKNOWN,
            users: None,
        };
        let mut asked = 0;
        while mailbox.has_room_for_login() {
            mailbox.login_is_under_way();
            asked += 1;
        }
        // The core takes none of them meanwhile, and no sender waits.
        for address in 0..asked {
            mailbox.login_way().send(answered(address));
        }
        assert!(!mailbox.has_room_for_login());
        for address in 0..asked {
            assert_eq!(
                mailbox.try_receive_login().map(|answered| answered.address),
                Some(address)
            );
            assert!(mailbox.has_room_for_login());
        }
        assert!(mailbox.try_receive_login().is_none());
    }
}
