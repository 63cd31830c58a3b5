//! The thread of the store: it alone touches the files.
//!
//! It gathers the records of all cores and commits them together: in relaxed mode `store_flush_ms` after the first of
//! them, in strict mode at once, with all that came during the commit before.
//!
//! If a commit fails, the thread keeps the changes, logs the failure once, and tries again every [`RETRY_EVERY`].
//! Meanwhile it accepts up to `store_queue_bytes_max` of further records; then records wait at the cores (`sink.rs`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, never, select};
use tracing::{error, info, warn};

use super::changes::Changes;
use super::database::{Check, Content, Database, Fault, ReferenceCounts};
use super::directory::Lock;
use super::format::{State, StoredHead};
use super::records::Batch;
use super::shared::{Shared, StoreState};
use super::{OFFSETS_RESERVED, StoreSettings};
use crate::clock::Clock;
use crate::config::StoreMode;

/// Records of one core on their way to the thread.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) core: usize,
    pub(super) batch: Batch,
    /// The place in the ring up to which the core has read: all its records up to there are in this batch or earlier
    /// ones.
    pub(super) read: u64,
    /// The highest offset of a publication that the core knows.
    pub(super) place: u64,
}

/// An order to the thread.
#[derive(Debug)]
pub(super) enum Order {
    /// Commit all changes, close the file, release the lock, and answer whether everything is committed.
    Close(Sender<bool>),
    /// End without a commit: the store is left as after a crash.
    Abandon,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) settings: StoreSettings,
    pub(super) path: PathBuf,
    /// `None` after a fault, until it is opened again.
    pub(super) database: Option<Database>,
    pub(super) head: StoredHead,
    pub(super) holders: ReferenceCounts,
    pub(super) content: Content,
    pub(super) lock: Lock,
    pub(super) inbox: Receiver<Sent>,
    pub(super) orders: Receiver<Order>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) changes: Changes,
    /// For each core: the bytes and the highest offset of its records in `changes`.
    pub(super) taken: Box<[Taken]>,
    /// The highest known offset of a publication.
    pub(super) place: u64,
    /// When the changes are committed, by the clock; `None` if there are none.
    pub(super) commit_at_ns: Option<u64>,
}

/// The records of one core that are not committed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    bytes: u64,
    through: u64,
    read: u64,
}

impl Writer {
    /// Takes records and commits them until the store is closed, or no thread is left that could send any.
    pub(super) fn run(mut self) {
        loop {
            let none = never();
            let inbox = if self.changes.bytes > self.queue_bytes_max() {
                &none
            } else {
                &self.inbox
            };
            let wait = self.commit_at_ns.map_or(IDLE, |at| {
                Duration::from_nanos(at.saturating_sub(self.clock.elapsed_ns()))
            });
            select! {
                recv(inbox) -> sent => match sent {
                    Ok(sent) => self.take(&sent),
                    // All cores have ended. An order follows.
                    Err(_) => self.inbox = never(),
                },
                recv(self.orders) -> order => match order {
                    Ok(Order::Close(done)) => return self.close(&done),
                    Ok(Order::Abandon) | Err(_) => return self.abandoned(),
                },
                default(wait) => {}
            }
            let now_ns = self.clock.elapsed_ns();
            if self.commit_at_ns.is_some_and(|at| at <= now_ns) {
                self.take_waiting();
                self.commit();
            }
        }
    }

    fn queue_bytes_max(&self) -> usize {
        usize::try_from(self.settings.queue_bytes_max).unwrap_or(usize::MAX)
    }

    fn take(&mut self, sent: &Sent) {
        self.changes.add(&sent.batch);
        let taken = &mut self.taken[sent.core];
        taken.bytes += sent.batch.len() as u64;
        taken.through = taken.through.max(sent.batch.through());
        taken.read = sent.read;
        self.place = self.place.max(sent.place).max(sent.batch.through());
        if self.changes.is_empty() && !self.must_reserve() {
            self.shared.note_read(sent.core, sent.read);
            return self.shared.wake_waiting();
        }
        if self.commit_at_ns.is_none() {
            let wait = match self.settings.mode {
                StoreMode::Relaxed => self.settings.flush,
                StoreMode::Strict => Duration::ZERO,
            };
            self.commit_at_ns = Some(self.clock.elapsed_ns() + nanoseconds(wait));
        }
    }

    /// Whether publications have used half of the reserved offsets: publications of all channels, also of channels that
    /// the store does not keep.
    fn must_reserve(&self) -> bool {
        self.place + OFFSETS_RESERVED / 2 > self.head.ceiling
    }

    /// Adds records that have come meanwhile to the same commit.
    fn take_waiting(&mut self) {
        while self.changes.bytes <= self.queue_bytes_max()
            && let Ok(sent) = self.inbox.try_recv()
        {
            self.take(&sent);
        }
    }

    /// Commits the changes, and tells the cores.
    fn commit(&mut self) {
        let begun_ns = self.clock.elapsed_ns();
        match self.try_commit() {
            Ok(()) => {
                let took_ns = self.clock.elapsed_ns().saturating_sub(begun_ns);
                self.shared.metrics.committed(self.changes.records, took_ns);
                self.commit_at_ns = None;
                self.changes = Changes::default();
                // First the state: else a core could see that the store fails, although this commit has succeeded.
                if self.shared.change_state(StoreState::Failing, StoreState::Open) {
                    info!(
                        "store {}: commits succeed again; everything up to now is on disk{}",
                        self.path.display(),
                        match self.settings.mode {
                            StoreMode::Relaxed => " that was not reported as dropped",
                            StoreMode::Strict => "",
                        }
                    );
                }
                self.note_room();
                for (index, taken) in self.taken.iter_mut().enumerate() {
                    let taken = std::mem::take(taken);
                    self.shared.note_committed(index, taken.through);
                    self.shared.note_read(index, taken.read);
                    self.shared.cores[index]
                        .done_bytes
                        .fetch_add(taken.bytes, Ordering::Relaxed);
                }
                self.shared.wake_waiting();
            }
            Err(fault) => {
                self.commit_at_ns = Some(self.clock.elapsed_ns() + nanoseconds(RETRY_EVERY));
                self.shared.metrics.failed();
                if self.shared.change_state(StoreState::Open, StoreState::Failing)
                    || self.shared.change_state(StoreState::Full, StoreState::Failing)
                {
                    let meanwhile = match self.settings.mode {
                        StoreMode::Relaxed => {
                            "histories are kept in memory alone until a commit succeeds; a crash would lose them"
                        }
                        StoreMode::Strict => {
                            "publications to remembered channels are refused until a commit succeeds"
                        }
                    };
                    error!(
                        "store {}: cannot commit: {fault}; {meanwhile}. The next try is in {} s",
                        self.path.display(),
                        RETRY_EVERY.as_secs()
                    );
                    self.shared.wake_waiting();
                }
            }
        }
        let bytes = self.database.as_ref().map_or(0, Database::bytes);
        self.shared.metrics.set_bytes(bytes);
    }

    /// After a commit, or at the start: tells the cores and the operator whether the bounded file is nearly full.
    pub(super) fn note_room(&self) {
        let Some(max) = self.database.as_ref().and_then(Database::content_max) else {
            return;
        };
        let has_neared = self.shared.metrics.full.value() > 0;
        let is_near = self.content.is_nearly(max, has_neared);
        self.shared
            .metrics
            .set_content(self.content.bytes(), max.bytes(), is_near);
        let path = self.path.display();
        if is_near {
            self.shared.change_state(StoreState::Open, StoreState::Full);
        } else {
            self.shared.change_state(StoreState::Full, StoreState::Open);
        }
        match (has_neared, is_near) {
            (false, true) => warn!(
                "store {path}: nearly full: its content takes {} of the {} bytes that store_bytes_max leaves to it; {}. To make \
                 room, let clients acknowledge their queued publications or end their sessions, clear retained \
                 publications, or remove histories; or raise limits.store_bytes_max and restart the server",
                self.content.bytes(),
                max.bytes(),
                match self.settings.mode {
                    StoreMode::Relaxed => "soon, further publications will be in memory alone",
                    StoreMode::Strict =>
                        "publications that it would have to keep are refused until there is room",
                }
            ),
            (true, false) => info!(
                "store {path}: there is room again: its content takes {} of {} bytes",
                self.content.bytes(),
                max.bytes()
            ),
            (true, true) | (false, false) => {}
        }
    }

    fn try_commit(&mut self) -> Result<(), Fault> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::open(
                &self.settings.directory,
                self.settings.bytes_max,
                Check::LastCommit,
            )?,
        };
        let must_reserve = self.must_reserve();
        let head = &mut self.head;
        let changes = &self.changes;
        head.unknown_through = head.unknown_through.max(changes.unknown_through);
        head.removed_through = head.removed_through.max(changes.removed_through);
        if must_reserve {
            head.ceiling = self.place + OFFSETS_RESERVED;
        }
        self.database = Some(database.apply(changes, head, &mut self.holders, &mut self.content)?);
        Ok(())
    }

    /// Commits the rest and marks the store as closed in order.
    fn close(mut self, done: &Sender<bool>) {
        while let Ok(sent) = self.inbox.try_recv() {
            self.take(&sent);
        }
        let before = std::mem::replace(&mut self.head.state, State::Clean);
        self.commit();
        let is_committed = self.commit_at_ns.is_none();
        if !is_committed {
            self.head.state = before;
            error!(
                "store {}: ends with {} records that could not be committed",
                self.path.display(),
                self.changes.records
            );
        }
        if let Some(database) = self.database.take()
            && let Err(fault) = database.close()
        {
            error!("store {}: cannot close the file: {fault}", self.path.display());
        }
        self.shared.set_state(StoreState::Closed);
        self.shared.wake_waiting();
        drop(self.lock);
        // The asking thread waits, or has given up.
        let _ = done.send(is_committed);
    }

    /// The server has gone without closing the store. It is left as after a crash.
    fn abandoned(mut self) {
        if !self.changes.is_empty() {
            self.commit();
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the thread waits if there is nothing to commit. It is woken by records.
const IDLE: Duration = Duration::from_secs(3600);
/// How long after a commit that failed the next one is tried.
pub(super) const RETRY_EVERY: Duration = Duration::from_secs(1);
