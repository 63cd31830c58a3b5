//! What a program that embeds the server chooses beyond the configuration.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::config::FdTables;
use crate::control::SignalHandling;

/// What a program that embeds the server chooses beyond the configuration: how much of the process is the server's.
#[derive(Debug)]
pub struct Embedding {
    /// Who handles SIGTERM, SIGINT and SIGHUP.
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
    /// To the program's own `tracing` subscriber, if it has one. It is called on the cores, so it must not wait: neither for
    /// a disk nor for the reader of a pipe. The settings `log` and `log_format` have no effect.
    Program,
    /// To standard error, as the settings `log` and `log_format` say, by a thread that writes: nothing that logs waits. The
    /// server installs the subscriber of the process, which must have none yet, and has panics logged.
    StandardError,
}

/// Who can authenticate a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginsFrom {
    /// The application may, by [`Peer::set_auth_token`](crate::app::Peer::set_auth_token).
    Application,
    /// Only keys, passwords and certificates of the settings. A server whose settings admit no client does not start
    /// ([`StartError::AdmitsNobody`](super::StartError::AdmitsNobody)).
    Settings,
}

/// Which of the program's descriptors (files, sockets, pipes) the cores see, and with them the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Descriptors {
    /// All of them, at any time, as on every thread of the program. All cores and the program share one limit on open files
    /// (`RLIMIT_NOFILE`), whatever `fd_tables` says.
    #[default]
    OfProgram,
    /// Each core has a descriptor table of its own, where `fd_tables` and the system permit it: the limit on open files
    /// counts for each core, and no lock on descriptors is shared between cores. Right for a program that is only this
    /// server.
    ///
    /// Of what the program has open when the server starts, a core has standard input, output and error, and these
    /// numbers; they stay open until the core ends, whether the program closes them or not. All else is closed there, so
    /// that others see the end of a pipe or a socket when the program closes it.
    ///
    /// **The application must not use any other descriptor on a core**, neither an older one nor one that the program opens
    /// later: on a core its number is nobody's, or that of a client's socket. What the application opens on a core itself is
    /// that core's alone, and is counted among its connections' descriptors. What an application's value holds from before
    /// the start is closed on the core when the core drops the value, and stays open in the program, which has to close it
    /// itself: let it keep an `Arc` of its own. Work on the program's files and sockets belongs on another thread
    /// ([`Peer::defer`](crate::app::Peer::defer)). A log that goes to a file is such a descriptor: list it here, or have it
    /// written by another thread, as [`LogTo::StandardError`] does.
    OfCores {
        /// The numbers of those that stay open on every core.
        kept: Vec<RawFd>,
    },
}

impl Descriptors {
    /// What stays open in the tables of the cores, if they are to have tables of their own.
    pub(super) fn kept(&self, tables: FdTables) -> Option<Arc<[RawFd]>> {
        match (self, tables) {
            (Descriptors::OfCores { kept }, FdTables::Auto) => Some(kept.as_slice().into()),
            (Descriptors::OfCores { .. }, FdTables::Shared) | (Descriptors::OfProgram, _) => None,
        }
    }
}

impl Default for Embedding {
    /// For a program that does other things, too: it keeps its signals and its log, and its descriptors are the same on every
    /// thread.
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
    /// For a program that is only this server, as the `ringcast` binary is: the server handles signals, writes the log to
    /// standard error, and each core has a descriptor table of its own.
    pub fn whole_process() -> Embedding {
        Embedding {
            signals: SignalHandling::ByServer,
            descriptors: Descriptors::OfCores { kept: Vec::new() },
            log: LogTo::StandardError,
            ..Embedding::default()
        }
    }
}
