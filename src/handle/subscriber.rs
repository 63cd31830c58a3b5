//! A subscriber of the program itself.
//!
//! The core that owns the channel copies its publications into a bounded queue (`cores/delivery/followers.rs`), so that
//! a program that is slow never holds the ring, nor a core. What does not fit is left out, and the program is told how
//! many publications were, at the place in their order where they are missing.
//!
//! Limits: the capacity that the program chooses, [`CAPACITY_MAX`] at most; `subscriber_queue_bytes_max`;
//! `program_subscribers_max`: each time that one subscriber has something to read, the thread of the handles looks at
//! all.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::cores::operators::questions::{Copied, Follower, FollowerState, Question};

use super::asking::Asked;
use super::error::HandleError;
use super::pending::{Pending, block_on};
use super::{Handle, Position, Shared};

/// Receives the publications on one channel, for the program. Dropping it ends the subscription.
pub struct Subscriber {
    shared: Arc<Shared>,
    id: u64,
    core: usize,
    queue: Receiver<Copied>,
    told: Arc<FollowerState>,
    /// The number of the next publication.
    next: u64,
    /// A publication that comes after others were left out, which the program is told first.
    ahead: Option<Copied>,
}

/// What a subscriber of the program receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A publication.
    Publication {
        /// Its data: JSON, or nothing.
        data: Option<String>,
        /// Its position, if the policy of the channel has positions. After [`Received::Missed`], [`Handle::history`]
        /// has what came after the position of the last publication before, if the channel remembers it.
        position: Option<Position>,
    },
    /// So many publications were left out here, since the queue was full: the program was too slow.
    Missed {
        /// How many.
        count: u64,
    },
    /// The server has ended.
    Ended,
}

impl Handle {
    /// Subscribes the program to a channel: it receives all that is published from then on. At most `capacity`
    /// publications (1 to 65,536) of 16 MiB together (`subscriber_queue_bytes_max`) wait for the program; if there are
    /// more, the newest are left out, and [`Received::Missed`] says how many. A program may have 1024 subscribers at a
    /// time (`program_subscribers_max`).
    ///
    /// # Errors
    /// [`HandleError::NameTooLong`]; [`HandleError::Unanswered`]; [`HandleError::Busy`] if the program has as many
    /// subscribers as it may; or an error of every operation.
    pub fn subscribe(&self, channel: &str, capacity: usize) -> Pending<Subscriber> {
        let shared = Arc::clone(&self.0);
        let channel = channel.to_owned();
        Pending::new(async move {
            shared.publishing.check_name(&channel)?;
            subscribe(shared, &channel, capacity.clamp(1, CAPACITY_MAX)).await
        })
    }
}

async fn subscribe(shared: Arc<Shared>, channel: &str, capacity: usize) -> Result<Subscriber, HandleError> {
    let (sender, queue) = bounded(capacity);
    let told = Arc::new(FollowerState::new(shared.subscriber_queue_bytes_max));
    let id = shared.waits.listen(&told, shared.subscribers_max);
    let id = id.inspect_err(|_| shared.publishing.count_refused_subscriber())?;
    let core = shared.publishing.owner(channel, shared.cores.len());
    // From here on, a drop cleans up.
    let subscriber = Subscriber {
        shared: Arc::clone(&shared),
        id,
        core,
        queue,
        told: Arc::clone(&told),
        next: 0,
        ahead: None,
    };
    let follower = Box::new(Follower::new(id, channel, sender, told, shared.waits.notifier()));
    let follow = |answer| Question::Follow { follower, answer };
    let deadline = shared.answer_deadline();
    match shared.ask(&shared.cores[core], deadline, follow).await? {
        Asked::Answered(()) => Ok(subscriber),
        Asked::Ended => Err(HandleError::Ended),
        Asked::Unanswered => Err(HandleError::Unanswered { cores: vec![core] }),
    }
}

impl Subscriber {
    /// Waits for what comes next. A future that is dropped loses nothing.
    pub async fn next(&mut self) -> Received {
        poll_fn(|context| self.poll(context)).await
    }

    /// As [`Subscriber::next`]; blocks the thread. Not for the methods of an application.
    pub fn wait(&mut self) -> Received {
        block_on(self.next())
    }

    /// What comes next, if it is there.
    pub fn try_next(&mut self) -> Option<Received> {
        let copied = match self.ahead.take() {
            Some(ahead) => ahead,
            None => match self.take() {
                Ok(copied) => copied,
                Err(None) => return None,
                Err(Some(other)) => return Some(other),
            },
        };
        let missed = copied.number - self.next;
        if missed > 0 {
            self.next = copied.number;
            self.ahead = Some(copied);
            return Some(Received::Missed { count: missed });
        }
        self.next += 1;
        let data = (!copied.data.is_empty()).then(|| String::from_utf8_lossy(&copied.data).into_owned());
        let position = copied.position.map(Position::of);
        Some(Received::Publication { data, position })
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Received> {
        if let Some(received) = self.try_next() {
            return Poll::Ready(received);
        }
        if !self.shared.waits.wake_on_publication(self.id, context.waker()) {
            return Poll::Ready(Received::Ended);
        }
        // What has come meanwhile may have found no waker.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes a publication out of the queue. If there is none: what the program is to be told instead.
    fn take(&mut self) -> Result<Copied, Option<Received>> {
        let mut taken = self.queue.try_recv();
        if taken.is_err() {
            // By the order in which the core writes, all before `count` was in the queue or was left out. So if the
            // queue is empty now, all from `next` to `count` was left out.
            let count = self.told.count.load(Ordering::Acquire);
            taken = self.queue.try_recv();
            if taken.is_err() && count > self.next {
                let missed = count - self.next;
                self.next = count;
                return Err(Some(Received::Missed { count: missed }));
            }
        }
        match taken {
            Ok(copied) => {
                let bytes = copied.data.len();
                self.told.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Ok(copied)
            }
            Err(TryRecvError::Empty) => Err(None),
            Err(TryRecvError::Disconnected) => Err(Some(Received::Ended)),
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.waits.forget(self.id);
        // A core without room for the question finds with the next publication that nobody receives it.
        let _ = self.shared.cores[self.core].ask(Question::Unfollow { id: self.id });
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Subscriber")
            .field("core", &self.core)
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// Most publications in the queue of a subscriber.
const CAPACITY_MAX: usize = 65_536;
