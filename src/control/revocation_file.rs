//! Writes revocations to their file, on a thread other than the control plane's.
//!
//! A disk may take long, or never answer. So one thread at a time writes, and a request waits for it at most
//! [`FILE_TIME_MAX`]. A change that was not written by then is not lost: the next write replaces the whole
//! file.
//!
//! Invariants
//! 1. A writer writes the revocations that are in force at the time of the write, not at the time of the
//!    request: so the order in which writers get the lock does not matter.
//!
//! Limits: one writer; `FILE_TIME_MAX`.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::warn;

use super::ControlState;
use crate::auth::Revocation;
use crate::policy::RevocationsFile;

/// The lock of the file, and whether the file has fallen behind the revocations in force.
#[derive(Debug, Default)]
pub(super) struct WriteState {
    writer: Arc<Mutex<()>>,
    /// Set after a failed or late write: some change is not in the file. The next writer clears it and writes
    /// the whole file. Relaxed order is enough, since writers hold the lock.
    is_behind: AtomicBool,
}

/// A change that the file is to get.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// One more revocation, to be appended.
    Append(Arc<Revocation>),
    /// Any other change: the whole file is written anew.
    Rewrite,
}

/// Why a change is not in the file.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// The time is over. The write may still succeed.
    Late,
    /// The system reports an error.
    Failed(io::Error),
}

impl fmt::Display for NotWritten {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotWritten::Late => write!(
                formatter,
                "the file could not be written within {} s",
                FILE_TIME_MAX.as_secs()
            ),
            NotWritten::Failed(error) => write!(formatter, "the file cannot be written: {error}"),
        }
    }
}

/// Writes a change, if the configuration names a file.
///
/// # Errors
/// The change is not in the file, as far as is known.
pub(super) async fn write(shared: &Arc<ControlState>, change: Change) -> Result<(), NotWritten> {
    if shared.config.auth.revocations_file.is_none() {
        return Ok(());
    }
    let state = &shared.revocation_file;
    let written = timeout(FILE_TIME_MAX, async {
        let lock = Arc::clone(&state.writer).lock_owned().await;
        begin(shared, lock, change).await
    });
    match written.await {
        Ok(Ok(written)) => written.map_err(NotWritten::Failed),
        Ok(Err(panicked)) => Err(NotWritten::Failed(io::Error::other(panicked))),
        Err(_) => {
            state.is_behind.store(true, Ordering::Relaxed);
            // The writer may have released the lock just before `is_behind` was set, and so not have seen it.
            if let Ok(lock) = Arc::clone(&state.writer).try_lock_owned() {
                begin(shared, lock, Change::Rewrite);
            }
            Err(NotWritten::Late)
        }
    }
}

/// Starts the write on another thread. It goes on even if nobody waits for its result.
fn begin(
    shared: &Arc<ControlState>,
    lock: OwnedMutexGuard<()>,
    change: Change,
) -> JoinHandle<io::Result<()>> {
    let shared = Arc::clone(shared);
    spawn_blocking(move || {
        let written = match &shared.config.auth.revocations_file {
            Some(file) => write_now(&shared, file, change),
            None => Ok(()),
        };
        drop(lock);
        written
    })
}

fn write_now(shared: &ControlState, path: &Path, mut change: Change) -> io::Result<()> {
    let file = RevocationsFile::new(path);
    let is_behind = &shared.revocation_file.is_behind;
    loop {
        if is_behind.swap(false, Ordering::Relaxed) {
            change = Change::Rewrite;
        }
        let policy = shared.policy.now();
        let current = policy.tokens.revocations();
        let written = match &change {
            Change::Append(one) if current.iter().any(|other| other == **one) => file.append(one),
            // It has been withdrawn since.
            Change::Append(_) => Ok(()),
            Change::Rewrite => file.replace(current).map(|rewritten| {
                for remark in rewritten.remarks() {
                    warn!("{}: {remark}", path.display());
                }
            }),
        };
        if written.is_err() {
            is_behind.store(true, Ordering::Relaxed);
        }
        if written.is_err() || !is_behind.load(Ordering::Relaxed) {
            return written;
        }
    }
}

/// How long a request of an operator waits for the file.
pub(super) const FILE_TIME_MAX: Duration = Duration::from_secs(5);
