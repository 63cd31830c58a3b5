//! Signals of the process.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | begin the drain; a second one ends at once |
//! | SIGHUP | reloads |
//! | SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ | nothing but a line in the log: by default they would end the process |
//! | SIGPIPE | nothing: a write to a connection that has gone is an error that its writer handles (Rust's start ignores it) |
//!
//! Others keep what the system does by default: SIGKILL and SIGABRT end the process, SIGSTOP and SIGCONT stop it and let
//! it go on.
//!
//! Cores block all signals, since their descriptor tables are their own: a handler running there would write to
//! whatever that table has under the number of the control plane's pipe. Threads inherit the mask of the one that
//! starts them, so that this thread may find them blocked too.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Makes all that is handled here wait, on this thread and those it starts, until [`Signals::take`] has handlers for it: a
/// signal that comes while the server starts is a drain as well, and not the end of a half-started process.
pub(crate) fn hold_back() -> io::Result<()> {
    let all: SigSet = HANDLED.iter().map(|(number, _)| *number).collect();
    Ok(all.thread_block()?)
}

/// The same for those that end nothing, before the first file is read: an operator may reload a server that has just been
/// started, and may still end one that waits for a file.
pub(crate) fn hold_back_harmless() -> io::Result<()> {
    let harmless = HANDLED.iter().filter(|(_, meaning)| *meaning != Meaning::End);
    let harmless: SigSet = harmless.map(|(number, _)| *number).collect();
    Ok(harmless.thread_block()?)
}

/// What a signal is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    End,
    Reload,
    Nothing,
}

/// All that is handled.
const HANDLED: [(Number, Meaning); 8] = [
    (Number::SIGTERM, Meaning::End),
    (Number::SIGINT, Meaning::End),
    (Number::SIGQUIT, Meaning::End),
    (Number::SIGHUP, Meaning::Reload),
    (Number::SIGUSR1, Meaning::Nothing),
    (Number::SIGUSR2, Meaning::Nothing),
    (Number::SIGALRM, Meaning::Nothing),
    (Number::SIGXFSZ, Meaning::Nothing),
];

/// The signals that this process gets from now on: none, if somebody else handles them.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Stream, Number, Meaning)>);

/// One that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The process is to end.
    End { name: &'static str, number: u8 },
    /// What can be reloaded is to be.
    Reload,
    /// It has no meaning here.
    Nothing { name: &'static str },
}

impl Signals {
    pub(super) fn none() -> Signals {
        Signals(Vec::new())
    }

    /// Handles them on this thread. From here on none of them ends the process by itself.
    pub(super) fn take() -> io::Result<Signals> {
        let streams = HANDLED.iter().map(|(number, meaning)| {
            let stream = signal(SignalKind::from_raw(*number as i32))?;
            Ok((stream, *number, *meaning))
        });
        let signals = Signals(streams.collect::<io::Result<Vec<_>>>()?);
        // After the handlers stand: a signal that waited while it was blocked must find one.
        let all: SigSet = HANDLED.iter().map(|(number, _)| *number).collect();
        all.thread_unblock()?;
        Ok(signals)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (stream, number, meaning) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(Signal::of(*number, *meaning));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Signal {
    fn of(number: Number, meaning: Meaning) -> Signal {
        let name = number.as_str();
        match meaning {
            Meaning::End => Signal::End {
                name,
                // Numbers of signals are below 65.
                number: u8::try_from(number as i32).unwrap_or(u8::MAX),
            },
            Meaning::Reload => Signal::Reload,
            Meaning::Nothing => Signal::Nothing { name },
        }
    }
}
