//! State that the thread of the store and the cores share without locks.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::metrics::store::StoreMetrics;

/// Whether records can be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StoreState {
    /// The last commit has succeeded.
    Open,
    /// The last commit has succeeded, and little is left of `store_bytes_max`: a strict store accepts only changes that
    /// make room, and no new publication.
    Full,
    /// The last commit has failed; the thread tries again.
    Failing,
    /// Another process has asked for the store, or the server ends: no core publishes to remembered channels any more.
    Closing,
    /// This process does not have the store any more.
    Closed,
}

/// Written by the thread of the store, by cores and by the control plane, each field as it says.
pub(super) struct Shared {
    /// A [`StoreState`]. Written by the thread of the store, by the handle and by the last core that ends.
    state: AtomicU8,
    /// Written by the thread of the store, or by one core, each its own.
    pub(super) cores: Box<[PerCore]>,
    /// How many cores publish nothing more to remembered channels. Written by all cores.
    ending: AtomicUsize,
    /// Publications that threads outside the cores are making now. Written by these threads.
    outside: AtomicUsize,
    /// Commits, with those that failed. Written by the thread of the store.
    commits: AtomicU64,
    /// Wakes a core.
    wake: OnceLock<Wake>,
    pub(super) metrics: StoreMetrics,
}

/// Wakes the core with this index.
pub(crate) type Wake = Box<dyn Fn(usize) + Send + Sync>;

/// The part of one core, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct PerCore {
    /// All records of this core up to this offset are committed. Release by the thread, acquire by cores.
    committed: AtomicU64,
    /// This core has read the ring up to this offset, and all that it has recorded of it is committed. Release by the
    /// thread, acquire by cores.
    read: AtomicU64,
    /// Bytes of its records that are committed, or that the thread has dropped. Written by the thread, relaxed.
    pub(super) done_bytes: AtomicU64,
    /// Whether some connection of this core waits for a commit. Set by the core, taken by the thread.
    waits: AtomicBool,
    /// Whether this core has sent its last record. Written by the core with release, read by the handle with acquire.
    pub(super) has_finished: AtomicBool,
}

impl Shared {
    pub(super) fn new(cores: usize) -> Shared {
        Shared {
            state: AtomicU8::new(StoreState::Open as u8),
            cores: (0..cores).map(|_| PerCore::default()).collect(),
            ending: AtomicUsize::new(0),
            outside: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            wake: OnceLock::new(),
            metrics: StoreMetrics::default(),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        match self.state.load(Ordering::SeqCst) {
            state if state == StoreState::Open as u8 => StoreState::Open,
            state if state == StoreState::Full as u8 => StoreState::Full,
            state if state == StoreState::Failing as u8 => StoreState::Failing,
            state if state == StoreState::Closing as u8 => StoreState::Closing,
            _ => StoreState::Closed,
        }
    }

    /// Replaces the state if it is `from`; returns whether it was.
    pub(super) fn change_state(&self, from: StoreState, to: StoreState) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn set_state(&self, state: StoreState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Sets the function that wakes cores. Only the first one counts.
    pub(super) fn set_wake(&self, wake: Wake) {
        // There is one start.
        let _ = self.wake.set(wake);
    }

    pub(super) fn wake(&self, core: usize) {
        if let Some(wake) = self.wake.get() {
            wake(core);
        }
    }

    /// Notes that the records of a core are committed up to an offset.
    pub(super) fn note_committed(&self, core: usize, through: u64) {
        self.cores[core].committed.fetch_max(through, Ordering::SeqCst);
    }

    /// Notes that a core has read the ring up to an offset, and that its records are committed.
    pub(super) fn note_read(&self, core: usize, through: u64) {
        self.cores[core].read.fetch_max(through, Ordering::SeqCst);
    }

    /// Whether a core has read the ring up to an offset, and its records are committed.
    pub(super) fn has_read(&self, core: usize, offset: u64) -> bool {
        self.cores[core].read.load(Ordering::SeqCst) >= offset
    }

    /// How many commits there have been, with those that failed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// Notes a commit, and wakes the cores whose connections wait for one.
    pub(super) fn wake_waiting(&self) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        for (index, core) in self.cores.iter().enumerate() {
            // Sequentially consistent, as in `is_committed_or_wait`: either that core sees the commit, or this thread
            // sees that it waits.
            if core.waits.swap(false, Ordering::SeqCst) {
                self.wake(index);
            }
        }
    }

    /// Whether the records of `owner` are committed up to an offset.
    pub(super) fn is_committed(&self, owner: usize, offset: u64) -> bool {
        self.cores[owner].committed.load(Ordering::SeqCst) >= offset
    }

    /// Asks for a wake at the next commit.
    pub(super) fn wait_for_commit(&self, core: usize) {
        self.cores[core].waits.store(true, Ordering::SeqCst);
    }

    /// Notes that one more core publishes nothing more.
    pub(super) fn note_ending(&self) {
        self.ending.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no core publishes any more to remembered channels, nor any thread outside the cores: when no core does,
    /// the store is closing.
    pub(super) fn all_are_ending(&self) -> bool {
        if self.ending.load(Ordering::Acquire) < self.cores.len() {
            return false;
        }
        self.begin_closing();
        // Sequentially consistent, as in `begin_outside`: either that thread sees that the store is closing, or this
        // core sees that it publishes.
        self.outside.load(Ordering::SeqCst) == 0
    }

    /// Lets no publication to remembered channels begin any more.
    pub(super) fn begin_closing(&self) {
        // The thread of the store may change the state meanwhile, once for each commit.
        while let state @ (StoreState::Open | StoreState::Full | StoreState::Failing) = self.state() {
            self.change_state(state, StoreState::Closing);
        }
    }

    /// Notes that a thread outside the cores begins a publication to a remembered channel, and returns the state that
    /// decides whether it may.
    pub(super) fn begin_outside(&self) -> StoreState {
        self.outside.fetch_add(1, Ordering::SeqCst);
        self.state()
    }

    /// Notes that this publication is made, or was not.
    pub(super) fn end_outside(&self) {
        self.outside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether all cores have sent their last record.
    pub(super) fn all_have_finished(&self) -> bool {
        let mut cores = self.cores.iter();
        cores.all(|core| core.has_finished.load(Ordering::Acquire))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shared = formatter.debug_struct("Shared");
        shared.field("state", &self.state());
        shared.field("cores", &self.cores).finish_non_exhaustive()
    }
}
