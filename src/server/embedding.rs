//! The choices of a program that embeds the server, beyond the configuration.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::config::FdTables;
use crate::control::SignalHandling;

/// The choices of a program that embeds the server, beyond the configuration: how much of the process is the server's.
#[derive(Debug)]
pub struct Embedding {
    /// The side that handles SIGTERM, SIGINT and SIGHUP.
    pub signals: SignalHandling,
    /// Which of the program's descriptors its cores see.
    pub descriptors: Descriptors,
    /// Where log lines go.
    pub log: LogTo,
    /// Who can authenticate a client.
    pub logins: LoginsFrom,
}

/// Where the server's log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// To the program's own `tracing` subscriber, if it has one. It is called on the cores, so it must not wait:
    /// neither for a disk nor for the reader of a pipe. The settings `log` and `log_format` have no effect.
    Program,
    /// To standard error, as the settings `log` and `log_format` say, by a thread that writes: nothing that logs waits.
    /// The server installs the subscriber of the process, which must have none yet, and has panics logged.
    StandardError,
}

/// Who can authenticate a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginsFrom {
    /// The application may, by [`Peer::set_auth_token`](crate::app::Peer::set_auth_token).
    Application,
    /// Only keys, passwords and certificates of the settings. A server whose settings admit no client does not start
    /// ([`StartError::NoWayToLogIn`](super::StartError::NoWayToLogIn)).
    Settings,
}

/// Which of the program's descriptors (files, sockets, pipes) the cores see, and with them the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Descriptors {
    /// All descriptors of the program, at any time, as on every thread of it. All cores and the program share one limit
    /// on open files (`RLIMIT_NOFILE`), whatever `fd_tables` says.
    #[default]
    OfProgram,
    /// Each core has a descriptor table of its own, where `fd_tables` and the system permit it. The limit on open files
    /// then counts for each core, and cores share no lock on descriptors. Right for a program that is only this server.
    ///
    /// Of the descriptors that the program has open when the server starts, a core keeps standard input, output and
    /// error, and the descriptors in `kept`. These stay open on the core until it ends, even if the program closes
    /// them. The core closes its copies of all others, so that the other end of a pipe or a socket sees when the
    /// program closes it.
    ///
    /// **The application must not use any other descriptor of the program on a core**, no matter when it was opened: on
    /// the core its number belongs to nothing, or to a client's socket. A descriptor that the application opens on a
    /// core exists on this core only, and counts as one of its connections does.
    ///
    /// When a core ends, it drops its application value and with it its own copies of descriptors. The program's copies
    /// stay open: a value that holds a `File` should share it with the program in an `Arc`, which the program drops
    /// later.
    ///
    /// Work on the program's files and sockets belongs on another thread ([`Peer::defer`](crate::app::Peer::defer)). A
    /// log file is such a descriptor, too: list it in `kept`, or let another thread write it, as
    /// [`LogTo::StandardError`] does.
    OfCores {
        /// The numbers of the descriptors that stay open on every core.
        kept: Vec<RawFd>,
    },
}

impl Descriptors {
    /// The descriptors that the cores keep; `None` if the cores have no tables of their own.
    pub(super) fn kept(&self, tables: FdTables) -> Option<Arc<[RawFd]>> {
        match (self, tables) {
            (Descriptors::OfCores { kept }, FdTables::Auto) => Some(kept.as_slice().into()),
            (Descriptors::OfCores { .. }, FdTables::Shared) | (Descriptors::OfProgram, _) => None,
        }
    }
}

impl Default for Embedding {
    /// For a program that does other things, too: it keeps its signals and its log, and its descriptors are the same on
    /// every thread.
    fn default() -> Embedding {
        Embedding {
            signals: SignalHandling::ByProgram,
            descriptors: Descriptors::OfProgram,
            log: LogTo::Program,
            logins: LoginsFrom::Application,
        }
    }
}

impl Embedding {
    /// For a program that is only this server, as the `ringcast` binary is: the server handles signals, writes the log
    /// to standard error, and each core has a descriptor table of its own.
    pub fn whole_process() -> Embedding {
        Embedding {
            signals: SignalHandling::ByServer,
            descriptors: Descriptors::OfCores { kept: Vec::new() },
            log: LogTo::StandardError,
            ..Embedding::default()
        }
    }
}
