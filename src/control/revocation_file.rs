//! Writing revocations to their file, beside the control plane's loop.
//!
//! A disk may take its time, or never answer. So one thread writes, one order at a time, and whoever has asked for it waits
//! for [`FILE_TIME_MAX`] at the most. What was not written then is not lost: the next write is of the whole file.
//!
//! Invariants
//! 1. What is written is what is in force when it is written, not when it was asked for: so the order in which writers
//!    get the file does not matter.
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

/// Whose turn it is to write the file, and whether all of it is to be written.
#[derive(Debug, Default)]
pub(super) struct Turn {
    one_at_a_time: Arc<Mutex<()>>,
    /// Something that is in force, or no longer is, has not been written. Set by whoever could not write it, taken by the
    /// next writer; it orders nothing, since writers have the lock.
    is_behind: AtomicBool,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// One more.
    Added(Arc<Revocation>),
    /// All of it anew.
    Others,
}

/// Why a change is not in the file.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// It may still be, but nobody knows.
    Late,
    /// The system says why.
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

/// Writes a change, if revocations are kept.
///
/// # Errors
/// It is not in the file, as far as is known.
pub(super) async fn write(shared: &Arc<ControlState>, change: Change) -> Result<(), NotWritten> {
    if shared.config.auth.revocations_file.is_none() {
        return Ok(());
    }
    let turn = &shared.revocation_file;
    let written = timeout(FILE_TIME_MAX, async {
        let lock = Arc::clone(&turn.one_at_a_time).lock_owned().await;
        begin(shared, lock, change).await
    });
    match written.await {
        Ok(Ok(written)) => written.map_err(NotWritten::Failed),
        Ok(Err(panicked)) => Err(NotWritten::Failed(io::Error::other(panicked))),
        Err(_) => {
            turn.is_behind.store(true, Ordering::Relaxed);
            // Whoever had the file may have given it back a moment ago, without having seen this.
            if let Ok(lock) = Arc::clone(&turn.one_at_a_time).try_lock_owned() {
                begin(shared, lock, Change::Others);
            }
            Err(NotWritten::Late)
        }
    }
}

/// Has a thread write, which goes on also if nobody waits for it.
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
            change = Change::Others;
        }
        let policy = shared.policy.now();
        let current_policy = policy.tokens.revocations();
        let written = match &change {
            Change::Added(one) if current_policy.iter().any(|other| other == **one) => file.append(one),
            // It has been taken back since.
            Change::Added(_) => Ok(()),
            Change::Others => file.replace(current_policy).map(|rewritten| {
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

/// How long an operator waits for the file.
pub(super) const FILE_TIME_MAX: Duration = Duration::from_secs(5);
