//! A plan: the work of a driver for some time. The parts of a plan can be combined.

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
    /// Number of connects a second; `None` for as many as possible.
    pub(crate) per_second: Option<f64>,
    /// Number of connections that are being opened at a time.
    pub(crate) pending_max: u32,
    pub(crate) then: Then,
}

/// What to do with a connection when it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    /// Close it, and open the next one.
    Close,
}

/// Calls of `ping` by all clients except publishers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Pings {
    #[default]
    None,
    /// Each client always has this many calls in flight.
    InFlight(u32),
    /// Each client calls once in this time, evenly spread, whether earlier calls are answered or not.
    Every(Duration),
}

/// Publications by all publishers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing {
    /// For each publisher, the number of publications that may not have reached all subscribers.
    pub(crate) in_flight: u32,
    /// For each publisher, publications a second, independent of deliveries. `None`: as fast as `in_flight` allows.
    pub(crate) per_second: Option<f64>,
    /// For each publisher, the total number of publications.
    pub(crate) count: Option<u64>,
}

/// When a plan ends. The driver always waits for messages that are on their way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Until {
    /// All connections are open and all publications delivered.
    #[default]
    Done,
    Elapsed(Duration),
    /// When the caller ends it.
    Told,
    /// When this driver has received this many replies and deliveries.
    Messages(u64),
}

/// Whether the driver reads from open connections, and what their end means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It reads from all; if the server closes one, this is a fault.
    #[default]
    Always,
    /// It reads from none; the server may close them.
    Never,
}
