//! How a server starts beside its predecessor, and how it stops.

use std::time::Duration;

/// The start and the end of the process.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Whether this start may share addresses with a process that listens there already, and take over its sockets.
    pub take_over: bool,
    /// Over how long a drain spreads the ends of its connections; whole seconds.
    pub drain: Duration,
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            take_over: false,
            drain: Duration::from_secs(10),
        }
    }
}
