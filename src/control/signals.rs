//! The signals that the process handles.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | the first begins the drain; the second ends the process at once |
//! | SIGHUP | reload |
//! | SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ | only a line in the log: by default they would end the process |
//! | SIGPIPE | nothing (Rust's runtime ignores it): a write to a closed connection returns an error that the writer handles |
//!
//! All other signals keep their default action: SIGKILL and SIGABRT end the process, SIGSTOP stops it and
//! SIGCONT resumes it.
//!
//! Cores block all signals, since their descriptor tables are their own: a handler on a core would write to
//! the number of the control plane's pipe, whatever descriptor the core has under that number. Threads
//! inherit the mask of the thread that starts them, so the control plane's thread may start with these
//! signals blocked too.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Blocks all signals that are handled here, on this thread and the threads that it starts, until
/// [`Signals::install`] has installed their handlers. So a signal during the start of the server leads to a
/// drain, and does not end a half-started process.
pub(crate) fn block_handled() -> io::Result<()> {
    let all: SigSet = HANDLED.iter().map(|(number, _)| *number).collect();
    Ok(all.thread_block()?)
}

/// Blocks only the signals that do not end the process, before the first file is read: an operator may send
/// SIGHUP to a server that has just been started, and may still end a server that is waiting for a file.
pub(crate) fn block_harmless() -> io::Result<()> {
    let harmless = HANDLED.iter().filter(|(_, meaning)| *meaning != Meaning::End);
    let harmless: SigSet = harmless.map(|(number, _)| *number).collect();
    Ok(harmless.thread_block()?)
}

/// What a signal makes the server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    End,
    Reload,
    Nothing,
}

/// All signals that are handled.
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

/// The signals that this process handles; empty if the embedding program handles them.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Stream, Number, Meaning)>);

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The process is to end.
    End { name: &'static str, number: u8 },
    /// The configuration is to be reloaded.
    Reload,
    /// The signal has no effect.
    Nothing { name: &'static str },
}

impl Signals {
    pub(super) fn none() -> Signals {
        Signals(Vec::new())
    }

    /// Installs the handlers on this thread. From now on none of these signals ends the process by itself.
    pub(super) fn install() -> io::Result<Signals> {
        let streams = HANDLED.iter().map(|(number, meaning)| {
            let stream = signal(SignalKind::from_raw(*number as i32))?;
            Ok((stream, *number, *meaning))
        });
        let signals = Signals(streams.collect::<io::Result<Vec<_>>>()?);
        // Unblock only after the handlers are installed: a signal that came meanwhile must find its handler.
        let all: SigSet = HANDLED.iter().map(|(number, _)| *number).collect();
        all.thread_unblock()?;
        Ok(signals)
    }

    /// Waits for the next signal.
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
