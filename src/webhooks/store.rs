//! Whether events are kept on disk: the file is opened when no other process has it, and committed from time to time.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{error, info, warn};

use super::disk::{COMMIT_EVERY, Disk, Found, NotOpened};
use crate::clock::Uptime;
use crate::metrics::counter::Counter;

/// Whether events are kept on disk.
#[derive(Debug)]
pub(super) enum Store {
    /// They are not: `data_dir` is not set, or its file cannot be opened.
    Off,
    /// The file is not open yet.
    Opening {
        directory: PathBuf,
        again: Uptime,
        is_told: bool,
    },
    /// They are.
    Open {
        disk: Disk,
        next_commit: Uptime,
        has_failed: bool,
    },
}

impl Store {
    /// Opens the file, if that is due. Drops events of webhooks that are not among `names`. Returns the stored events
    /// once the file is open. Counts failures.
    pub(super) fn open(
        &mut self,
        names: &[&str],
        failures: &Counter,
        now: Uptime,
    ) -> Option<Vec<(String, Found)>> {
        let Store::Opening {
            directory,
            again,
            is_told,
        } = self
        else {
            return None;
        };
        if *again > now {
            return None;
        }
        match Disk::open(directory) {
            Ok((mut disk, found)) => {
                for (name, found) in found.iter().filter(|(name, _)| !names.contains(&&**name)) {
                    if found.count > 0 {
                        warn!(
                            "webhook {name}: {} events wait for it on disk, and it is not configured: they are dropped",
                            found.count
                        );
                    }
                    disk.forget(name);
                }
                *self = Store::Open {
                    disk,
                    next_commit: now + COMMIT_EVERY,
                    has_failed: false,
                };
                return Some(found);
            }
            Err(NotOpened::Held) => {
                if !std::mem::replace(is_told, true) {
                    info!(
                        "webhooks: another process has the file in data_dir: waiting for its end; events wait in memory"
                    );
                }
                *again = now + OPEN_AGAIN;
            }
            Err(NotOpened::System(cause)) => {
                error!(
                    "webhooks: events are kept in memory only: {cause}; correct this and restart the server"
                );
                failures.add(1);
                *self = Store::Off;
            }
        }
        None
    }

    /// Commits waiting events, if that is due. Counts failures.
    pub(super) fn commit_if_due(&mut self, failures: &Counter, now: Uptime) {
        let Store::Open {
            disk,
            next_commit,
            has_failed,
        } = self
        else {
            return;
        };
        if *next_commit > now {
            return;
        }
        match disk.commit() {
            Ok(()) => {
                if std::mem::take(has_failed) {
                    info!("webhooks: events are kept on disk again");
                }
                *next_commit = now + COMMIT_EVERY;
            }
            Err(cause) => {
                if !std::mem::replace(has_failed, true) {
                    error!("webhooks: events cannot be kept on disk: {cause}; trying again every second");
                }
                failures.add(1);
                *next_commit = now + COMMIT_AGAIN;
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Uptime {
        match self {
            Store::Off => Uptime::NEVER,
            Store::Opening { again, .. } => *again,
            Store::Open {
                disk, next_commit, ..
            } if disk.has_unsaved() => *next_commit,
            Store::Open { .. } => Uptime::NEVER,
        }
    }

    /// Commits waiting events. Returns whether they are on disk. Counts a failure.
    pub(super) fn commit_last(&mut self, failures: &Counter) -> bool {
        match self {
            Store::Open { disk, .. } => match disk.commit() {
                Ok(()) => true,
                Err(cause) => {
                    failures.add(1);
                    error!("webhooks: events that wait cannot be kept on disk: {cause}");
                    false
                }
            },
            Store::Off | Store::Opening { .. } => false,
        }
    }
}

/// How soon a file that another process has is tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(50);
/// How soon a commit that has failed is tried again.
pub(super) const COMMIT_AGAIN: Duration = Duration::from_secs(1);
