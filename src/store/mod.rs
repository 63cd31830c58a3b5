//! Remembered channels, wills, retained publications and MQTT sessions on disk (`data_dir`).
//!
//! ```text
//!   cores ── records, batch by batch ──► thread of the store ── commits ──► store.redb
//!     ▲                                        │
//!     └────────── committed up to … ◄──────────┘
//! ```
//! [`Store::open`] takes the lock of the directory, checks the file and reads the numbering; a damaged file is set
//! aside. [`Store::read`] gives the histories. [`Store::start`] starts the thread and makes a [`Sink`] for each core.
//! The core that owns a channel records the changes of its history; it never waits for the thread, and never touches a
//! file.
//!
//! Offsets: a process reserves [`OFFSETS_RESERVED`] offsets ahead of the highest offset that any publication has
//! got. The next process begins behind all reserved offsets. So no offset is used twice, even after a loss.
//!
//! | how the last process ended | epoch | answer to a recovery from a position before the start |
//! |---|---|---|
//! | in order, or by a take-over | the same | all missed publications |
//! | otherwise, in strict mode | the same | all missed publications that were acknowledged |
//! | otherwise, in relaxed mode | a new one | `recovered: false`: the last `store_flush_ms` may be lost. `last` and `since` return the stored publications |
//!
//! Limits: `store_queue_bytes_max` (`sink.rs`), `store_bytes_max` (as a full disk, `writer.rs`), `BATCHES_WAITING_MAX`.

mod changes;
mod database;
pub(crate) mod directory;
mod fault;
pub(crate) mod format;
pub(crate) mod records;
mod shared;
#[cfg(test)]
pub(crate) mod simulated;
pub(crate) mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use tracing::{error, info, warn};

use self::changes::Changes;
use self::database::{Check, Content, Database, FILE_NAME, Fault, ReferenceCounts};
use self::directory::{Lock, NoLock};
pub(crate) use self::format::{Generation, StoredWill};
use self::format::{State, StoredChannel, StoredHead, StoredPublication};
use self::records::Batch;
use self::shared::Shared;
use self::writer::{Order, RETRY_EVERY, Taken, Writer, nanoseconds};
use crate::clock::Clock;
use crate::config::{Config, StoreMode};
use crate::metrics::store::StoreMetrics;

pub use self::directory::StoreOwner;
pub use self::fault::StoreError;
pub(crate) use self::records::Record;
pub(crate) use self::shared::{StoreState, Wake};
pub(crate) use self::sink::{Pushed, Sink};

/// The settings of a store.
#[derive(Clone, Debug)]
pub(crate) struct StoreSettings {
    pub(crate) directory: PathBuf,
    pub(crate) mode: StoreMode,
    pub(crate) flush: Duration,
    pub(crate) bytes_max: u64,
    pub(crate) queue_bytes_max: u64,
}

impl StoreSettings {
    /// The settings of a configuration; `None` without `data_dir`.
    pub(crate) fn of(config: &Config) -> Option<StoreSettings> {
        Some(StoreSettings {
            directory: config.store.data_dir.clone()?,
            mode: config.store.mode,
            flush: config.store.flush,
            bytes_max: match config.limits.store_bytes_max {
                0 => u64::MAX,
                bytes => bytes,
            },
            queue_bytes_max: config.limits.store_queue_bytes_max,
        })
    }
}

/// The change that a publication makes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreChange {
    /// The store keeps it.
    Adds,
    /// It clears the retained publication of its topic, and no history keeps it: a full store accepts it, too.
    Clears,
}

impl StoreChange {
    /// The change of a publication with so many bytes of payload.
    pub(crate) const fn of(is_retained: bool, is_remembered: bool, payload_bytes: u32) -> StoreChange {
        match (is_retained, is_remembered, payload_bytes) {
            (true, false, 0) => StoreChange::Clears,
            (_, _, _) => StoreChange::Adds,
        }
    }
}

/// The treatment of a directory that another process has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// The start fails.
    IfFree,
    /// The other process is asked to release it.
    ByTakeOver,
}

/// An open store whose thread does not run yet.
#[derive(Debug)]
pub(crate) struct Store {
    settings: StoreSettings,
    path: PathBuf,
    lock: Lock,
    database: Database,
    head: StoredHead,
    holders: ReferenceCounts,
    content: Content,
    /// Whether the last process has not ended in order, and may have acknowledged what is not here.
    may_miss_some: bool,
    clock: Clock,
}

/// The state of the numbering when a process begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// The epoch of the numbering.
    pub(crate) epoch: [u8; 8],
    /// No earlier publication has a higher offset.
    pub(crate) base: u64,
    /// Publications up to this offset may be missing from any channel.
    pub(crate) unknown_through: u64,
    /// The same for channels that the store does not have.
    pub(crate) removed_through: u64,
}

impl Store {
    /// Takes the directory and opens its database. `epoch` is the epoch of a new numbering, and `policies` a
    /// fingerprint of the channel policies in force.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(
        settings: StoreSettings,
        taking: Taking,
        epoch: [u8; 8],
        policies: u64,
        clock: Clock,
    ) -> Result<Store, StoreError> {
        let directory = &settings.directory;
        let no_lock = |fault| StoreError::lock(directory, fault);
        let lock = match (Lock::take(directory), taking) {
            (Err(NoLock::Held(owner)), Taking::ByTakeOver) => {
                let owner = owner.map_or_else(|| "another process".to_owned(), |owner| owner.to_string());
                info!("store {}: waiting for {owner} to release it", directory.display());
                directory::ask_for(directory);
                directory::wait_for_lock(directory).map_err(no_lock)?
            }
            (taken, _) => taken.map_err(no_lock)?,
        };
        let path = directory.join(FILE_NAME);
        let open = || -> Result<_, Fault> {
            let database = Database::open(directory, settings.bytes_max, Check::Everything)?;
            let head = database.head()?;
            if head.is_some_and(|head| head.ceiling > OFFSET_MAX - 2 * OFFSETS_RESERVED) {
                return Err(Fault::Damaged("all offsets have been given out".to_owned()));
            }
            database.read(|_, _, _| {})?;
            database.read_wills(|_, _| {})?;
            database.read_retained(|_, _| {})?;
            database.read_sessions(|_, _, _| {})?;
            database.read_publications(|_, _| {})?;
            let content = database.content()?;
            Ok((database, head, content))
        };
        let (database, head, mut content) = match open() {
            Err(Fault::Damaged(what)) => {
                let aside = directory::set_aside(&path, clock.now().unix_ms)
                    .map_err(|error| StoreError::system(&path, error))?;
                error!(
                    "store {}: damaged: {what}. It is set aside as {}; the server begins with an empty store, and \
                     recoveries from before this start fail. Put a backup in its place and restart to use that instead",
                    path.display(),
                    aside.display()
                );
                open().map_err(|fault| StoreError::fault(&path, fault))?
            }
            other => other.map_err(|fault| StoreError::fault(&path, fault))?,
        };
        let may_miss_some = head.is_some_and(|head| head.state == State::Relaxed);
        let mut head = begin(head, epoch, policies, settings.mode, &path);
        // The offsets of this process are reserved before a publication gets one.
        let reserved = database.apply(
            &Changes::default(),
            &mut head,
            &mut ReferenceCounts::default(),
            &mut content,
        );
        let database = match reserved {
            Err(Fault::System(cause)) if is_full(&cause) => {
                error!(
                    "store {}: {cause}: the server starts without it, as on a full disk. A new epoch begins, since no offset \
                     could be reserved: recoveries from before this start fail. Make room on the disk, or raise \
                     store_bytes_max and start the server again",
                    path.display()
                );
                head.epoch = epoch;
                head.unknown_through = head.ceiling - OFFSETS_RESERVED;
                Database::open(directory, settings.bytes_max, Check::LastCommit)
            }
            other => other,
        };
        let database = database.map_err(|fault| StoreError::fault(&path, fault))?;
        Ok(Store {
            settings,
            path,
            lock,
            database,
            head,
            holders: ReferenceCounts::default(),
            content,
            may_miss_some,
            clock,
        })
    }

    /// Whether the last process has not ended in order, and may have acknowledged what is not here.
    pub(crate) fn may_miss_some(&self) -> bool {
        self.may_miss_some
    }

    /// The state of the numbering at the start.
    pub(crate) fn beginning(&self) -> Beginning {
        Beginning {
            epoch: self.head.epoch,
            base: self.head.ceiling - OFFSETS_RESERVED,
            unknown_through: self.head.unknown_through,
            removed_through: self.head.removed_through,
        }
    }

    /// Calls `each` once for each channel, with `None`, and then for each of its publications in the order of offsets.
    ///
    /// # Errors
    /// The disk is broken.
    pub(crate) fn read(
        &self,
        each: impl FnMut(&[u8], StoredChannel, Option<(u64, StoredPublication<'_>)>),
    ) -> Result<(), StoreError> {
        self.database
            .read(each)
            .map_err(|fault| StoreError::fault(&self.path, fault))
    }

    /// Calls `each` once for each will.
    ///
    /// # Errors
    /// The disk is broken.
    pub(crate) fn read_wills(&self, each: impl FnMut(&Generation, StoredWill<'_>)) -> Result<(), StoreError> {
        self.database
            .read_wills(each)
            .map_err(|fault| StoreError::fault(&self.path, fault))
    }

    /// Calls `each` with the topic and the value of every retained publication.
    ///
    /// # Errors
    /// The disk is broken.
    pub(crate) fn read_retained(&self, each: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.database
            .read_retained(each)
            .map_err(|fault| StoreError::fault(&self.path, fault))
    }

    /// Calls `each` with the client id, the name and the value of every item of the MQTT sessions, session by session.
    ///
    /// # Errors
    /// The disk is broken.
    pub(crate) fn read_sessions(&self, each: impl FnMut(&[u8], &[u8], &[u8])) -> Result<(), StoreError> {
        self.database
            .read_sessions(each)
            .map_err(|fault| StoreError::fault(&self.path, fault))
    }

    /// Calls `each` with the number and the value of every publication to which items of sessions refer.
    ///
    /// # Errors
    /// The disk is broken.
    pub(crate) fn read_publications(&self, each: impl FnMut(u64, &[u8])) -> Result<(), StoreError> {
        self.database
            .read_publications(each)
            .map_err(|fault| StoreError::fault(&self.path, fault))
    }

    /// Notes that an item refers to a publication.
    pub(crate) fn count_holder(&mut self, number: u64) {
        self.holders.count(number);
    }

    /// The error for a value of another version.
    pub(crate) fn of_other_version(&self, what: String) -> StoreError {
        StoreError::fault(&self.path, Fault::OtherVersion(what))
    }

    /// Commits `changes`, which the caller made while it read the store, and starts the thread, which tries again if
    /// there is no room on the disk. Returns a sink for each core.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn start(
        self,
        cores: usize,
        changes: &Batch,
    ) -> Result<(RunningStore, Vec<Sink>), StoreError> {
        let Store {
            settings,
            path,
            lock,
            database,
            mut head,
            mut holders,
            mut content,
            may_miss_some: _,
            clock,
        } = self;
        let mut first = Changes::default();
        first.add(changes);
        head.removed_through = head.removed_through.max(first.removed_through);
        let shared = Arc::new(Shared::new(cores));
        let (database, changes) = match database.apply(&first, &mut head, &mut holders, &mut content) {
            Ok(database) => (Some(database), Changes::default()),
            Err(Fault::System(cause)) if is_full(&cause) => {
                error!(
                    "store {}: cannot commit: {cause}; the server starts, and the thread of the store tries again",
                    path.display()
                );
                shared.set_state(StoreState::Failing);
                shared.metrics.failed();
                (None, first)
            }
            Err(fault) => return Err(StoreError::fault(&path, fault)),
        };
        shared
            .metrics
            .set_bytes(database.as_ref().map_or(0, Database::bytes));
        let retry = || clock.elapsed_ns() + nanoseconds(RETRY_EVERY);
        let commit_at_ns = database.is_none().then(retry);
        let (outbox, inbox) = bounded(BATCHES_WAITING_MAX);
        let (orders, order_inbox) = bounded(1);
        let bytes_max = settings.queue_bytes_max / (cores.max(1) as u64);
        let sinks = (0..cores)
            .map(|core| {
                Sink::new(
                    core,
                    settings.mode,
                    outbox.clone(),
                    Arc::clone(&shared),
                    bytes_max,
                )
            })
            .collect();
        let (directory, mode) = (settings.directory.clone(), settings.mode);
        let writer = Writer {
            settings,
            path: path.clone(),
            database,
            head,
            holders,
            content,
            lock,
            inbox,
            orders: order_inbox,
            shared: Arc::clone(&shared),
            clock,
            changes,
            taken: vec![Taken::default(); cores].into(),
            place: 0,
            commit_at_ns,
        };
        writer.note_room();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::system(&path, error))?;
        Ok((
            RunningStore {
                handle: StoreHandle {
                    directory,
                    mode,
                    orders,
                    shared,
                },
                thread: Some(thread),
            },
            sinks,
        ))
    }
}

/// Whether there is no room on the disk, or in the file.
fn is_full(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::StorageFull
}

/// The head of a process that continues the store of the last one.
fn begin(
    before: Option<StoredHead>,
    epoch: [u8; 8],
    policies: u64,
    mode: StoreMode,
    path: &Path,
) -> StoredHead {
    let state = match mode {
        StoreMode::Relaxed => State::Relaxed,
        StoreMode::Strict => State::Strict,
    };
    let Some(before) = before else {
        return StoredHead {
            state,
            epoch,
            ceiling: OFFSETS_RESERVED,
            unknown_through: 0,
            removed_through: 0,
            next_number: 0,
            policies,
        };
    };
    let base = before.ceiling;
    let mut head = StoredHead {
        state,
        ceiling: base + OFFSETS_RESERVED,
        policies,
        ..before
    };
    if before.state == State::Relaxed {
        warn!(
            "store {}: the last process did not end in order, so that its last publications may be missing: a new epoch \
             begins, and recoveries from before this start fail",
            path.display()
        );
        head.epoch = epoch;
        head.unknown_through = base;
    }
    if before.policies != policies {
        info!(
            "store {}: the channel policies have changed since the last start: recoveries of channels that are not on disk \
             fail",
            path.display()
        );
        // The history of a channel that is on disk is known up to now.
        head.removed_through = base;
    }
    head
}

/// A running store: the server ends it when all cores have ended.
#[derive(Debug)]
pub(crate) struct RunningStore {
    handle: StoreHandle,
    /// `None` once the thread has been joined.
    thread: Option<JoinHandle<()>>,
}

/// Another thread's end of a running store.
#[derive(Clone, Debug)]
pub(crate) struct StoreHandle {
    directory: PathBuf,
    mode: StoreMode,
    orders: Sender<Order>,
    shared: Arc<Shared>,
}

/// A publication to a remembered channel that a thread outside the cores makes.
#[derive(Debug)]
pub(crate) struct Outside<'a>(&'a Shared);

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.0.end_outside();
    }
}

/// A core did not send its last records in time, so that the process keeps the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotReleased;

impl RunningStore {
    /// The end for other threads.
    pub(crate) fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Ends the store in order, if all cores have sent their last records; else it is left as after a crash. Cores send
    /// them before they end.
    pub(crate) fn close(mut self) {
        if self.handle.shared.all_have_finished() {
            self.handle.close();
        } else if self.handle.state() != StoreState::Closed {
            warn!(
                "store {}: not all cores have ended in order: it is left as after a crash",
                self.handle.directory.display()
            );
        }
        self.end_thread();
    }

    fn end_thread(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread may have ended. A panic of the thread has been reported.
            let _ = self.handle.orders.send(Order::Abandon);
            let _ = thread.join();
        }
    }
}

impl Drop for RunningStore {
    fn drop(&mut self) {
        self.end_thread();
    }
}

impl StoreHandle {
    /// Sets how the thread wakes cores.
    pub(crate) fn set_wake(&self, wake: Wake) {
        self.shared.set_wake(wake);
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The counters.
    pub(crate) fn metrics(&self) -> &StoreMetrics {
        &self.shared.metrics
    }

    /// Whether records can be committed.
    pub(crate) fn state(&self) -> StoreState {
        self.shared.state()
    }

    /// Whether a publication is acknowledged when it is committed.
    pub(crate) fn is_strict(&self) -> bool {
        self.mode == StoreMode::Strict
    }

    /// Begins a publication to a remembered channel, on a thread outside the cores. The publication is under way until
    /// the value is dropped.
    ///
    /// # Errors
    /// The state of the store does not allow the publication.
    pub(crate) fn begin_publication(&self, change: StoreChange) -> Result<Outside<'_>, StoreState> {
        let outside = Outside(&self.shared);
        match self.shared.begin_outside() {
            StoreState::Open => Ok(outside),
            StoreState::Full | StoreState::Failing if !self.is_strict() || change == StoreChange::Clears => {
                Ok(outside)
            }
            state @ (StoreState::Full | StoreState::Failing | StoreState::Closing | StoreState::Closed) => {
                Err(state)
            }
        }
    }

    /// Whether the records of the core `owner` are committed up to an offset.
    pub(crate) fn is_committed(&self, owner: usize, offset: u64) -> bool {
        self.shared.is_committed(owner, offset)
    }

    /// Whether a core has read the ring up to an offset, and its records of these publications are committed.
    pub(crate) fn has_read(&self, core: usize, offset: u64) -> bool {
        self.shared.has_read(core, offset)
    }

    /// Releases the store while the cores run: they stop publishing to remembered channels and send their last records;
    /// then the file is closed and the lock released. Waits, so it is never called on a core or on the control plane's
    /// own thread.
    ///
    /// # Errors
    /// A core did not answer in time.
    pub(crate) fn release(&self) -> Result<(), NotReleased> {
        if self.state() == StoreState::Closed {
            return Ok(());
        }
        // After an attempt in vain it is closing already.
        self.shared.begin_closing();
        let mut tries = CORES_END_TIME_MAX.as_millis() / NUDGE_EVERY.as_millis();
        while !self.shared.all_have_finished() {
            if tries == 0 {
                return Err(NotReleased);
            }
            tries -= 1;
            (0..self.shared.cores.len()).for_each(|core| self.shared.wake(core));
            thread::sleep(NUDGE_EVERY);
        }
        self.close();
        Ok(())
    }

    /// Has the thread commit the rest, close the file and release the lock, and waits until it has.
    fn close(&self) {
        let (done, outcome) = bounded(1);
        if self.orders.send(Order::Close(done)).is_ok() {
            // The thread has logged that a commit failed.
            let _ = outcome.recv();
        }
    }
}

/// The highest offset: JavaScript's numbers are exact up to there.
const OFFSET_MAX: u64 = (1 << 53) - 1;
/// How many offsets are reserved ahead. An offset is below 2^53, and 2^36 of them are enough for two hours at ten
/// million publications a second: so there is room for 100,000 starts.
const OFFSETS_RESERVED: u64 = 1 << 36;
/// Batches on their way to the thread: one for each turn of a core that has records.
const BATCHES_WAITING_MAX: usize = 1024;
/// How long the cores may take to send their last records at a take-over.
const CORES_END_TIME_MAX: Duration = Duration::from_secs(20);
const NUDGE_EVERY: Duration = Duration::from_millis(5);
