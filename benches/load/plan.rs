//! What a driver is to do for a while. The parts may be combined.

use std::time::Duration;

/// One stretch of load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) opening: Option<Opening>,
    pub(crate) pings: Pings,
    pub(crate) publishing: Option<Publishing>,
    pub(crate) until: Until,
    pub(crate) reading: Reading,
}

/// Connections to open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// Connects begun a second, or as many as go.
    pub(crate) per_second: Option<f64>,
    /// Connections on their way at a time.
    pub(crate) pending_max: u32,
    pub(crate) then: Then,
}

/// What becomes of a connection that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    /// It is closed, and the next takes its place.
    Close,
}

/// Calls of `ping`, by all clients but publishers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Pings {
    #[default]
    None,
    /// Each client keeps so many unanswered.
    InFlight(u32),
    /// Each client once in this time, spread evenly over it, whatever the answers.
    Every(Duration),
}

/// Publications, by all publishers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    /// Of each publisher, those that have not reached all subscribers.
    pub(crate) in_flight: u32,
    /// Of each publisher, whatever the deliveries; else as fast as `in_flight` allows.
    pub(crate) per_second: Option<f64>,
    /// Of each publisher, in all.
    pub(crate) count: Option<u64>,
}

/// When a stretch is over; what is on its way is always waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Until {
    /// All connections are open and all publications delivered.
    #[default]
    Done,
    Elapsed(Duration),
    /// Whoever began it says that it is enough.
    Told,
    /// So many replies and deliveries have come to this driver.
    Messages(u64),
}

/// Whether open connections are read, and what their end means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All; one that the server closes is a fault.
    #[default]
    Always,
    /// None; the server may close them.
    Never,
}
