//! Why a store cannot be opened, in words for operators.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::database::Fault;
use super::directory::{NoLock, StoreOwner};

/// Why a store cannot be opened. The text tells the operator what to do.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the directory.
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other process, if it can be seen.
        owner: Option<StoreOwner>,
    },
    /// The file is in the form of another version.
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// The unknown part.
        what: String,
    },
    /// The system refuses.
    System {
        /// The directory or the file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
}

impl StoreError {
    pub(super) fn lock(directory: &Path, fault: NoLock) -> StoreError {
        match fault {
            NoLock::Held(owner) => StoreError::Held {
                directory: directory.to_owned(),
                owner,
            },
            NoLock::System(cause) => StoreError::system(directory, cause),
        }
    }

    pub(super) fn system(path: &Path, cause: io::Error) -> StoreError {
        StoreError::System {
            path: path.to_owned(),
            cause,
        }
    }

    pub(super) fn fault(path: &Path, fault: Fault) -> StoreError {
        match fault {
            Fault::OtherVersion(what) => StoreError::OtherVersion {
                file: path.to_owned(),
                what,
            },
            Fault::Damaged(what) => {
                StoreError::system(path, io::Error::new(io::ErrorKind::InvalidData, what))
            }
            Fault::System(cause) => StoreError::system(path, cause),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Held { directory, owner } => {
                let owner = owner
                    .as_ref()
                    .map_or_else(|| "another process".to_owned(), StoreOwner::to_string);
                write!(
                    formatter,
                    "data_dir {}: {owner} has it. End that process, or set RINGCAST_DATA_DIR to another directory; to \
                     take over from a Ringcast server without losing a recovery, start with --take-over",
                    directory.display()
                )
            }
            StoreError::OtherVersion { file, what } => write!(
                formatter,
                "data_dir: {} was written by another version of Ringcast: {what}. Start that version, or move the file \
                 away to begin with an empty store",
                file.display()
            ),
            StoreError::System { path, cause } => write!(
                formatter,
                "data_dir: {}: {cause}; give this user the directory and room on its disk, or unset RINGCAST_DATA_DIR",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StoreError {}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Damaged(what) => write!(formatter, "the file is damaged: {what}"),
            Fault::OtherVersion(what) => write!(formatter, "the file is of another version: {what}"),
            Fault::System(error) => error.fmt(formatter),
        }
    }
}
