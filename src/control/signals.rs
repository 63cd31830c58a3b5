//! Signals of the process: SIGTERM and SIGINT end it, SIGHUP reloads.
//!
//! Cores block all signals, since their descriptor tables are their own: a handler running there would write to
//! whatever that table has under the number of the control plane's pipe. Threads inherit the mask of the one that
//! starts them, so that this thread may find them blocked too.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Makes these signals wait, on this thread and those it starts, until [`Signals::take`] has handlers for them: one
/// that comes while the server starts is a drain as well, and not the end of a half-started process.
pub(crate) fn hold_back() -> io::Result<()> {
    Ok(handled().thread_block()?)
}

fn handled() -> SigSet {
    SigSet::from_iter([Number::SIGTERM, Number::SIGINT, Number::SIGHUP])
}

/// The signals that this process gets from now on.
#[derive(Debug)]
pub(super) enum Signals {
    Taken {
        terminate: Stream,
        interrupt: Stream,
        hang_up: Stream,
    },
    /// Somebody else handles them.
    None,
}

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The process is to end.
    End { name: &'static str, number: u8 },
    /// What can be reloaded is to be.
    Reload,
}

impl Signals {
    pub(super) fn none() -> Signals {
        Signals::None
    }

    /// Handles them on this thread. From here on none of them ends the process by itself.
    pub(super) fn take() -> io::Result<Signals> {
        let signals = Signals::Taken {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        // After the handlers stand: a signal that waited while it was blocked must find one.
        handled().thread_unblock()?;
        Ok(signals)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        match self {
            Signals::Taken {
                terminate,
                interrupt,
                hang_up,
            } => tokio::select! {
                _ = terminate.recv() => Signal::End { name: "SIGTERM", number: 15 },
                _ = interrupt.recv() => Signal::End { name: "SIGINT", number: 2 },
                _ = hang_up.recv() => Signal::Reload,
            },
            Signals::None => std::future::pending().await,
        }
    }
}
