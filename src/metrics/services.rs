//! Counts of services, for each row of `[[services]]` and each core. A row keeps its counts over reloads.

use std::sync::{Arc, OnceLock};

use super::counter::{Counter, Counters, Histogram};
use crate::labels::labels;

labels! {
    /// How a call of a service ended for its caller.
    pub enum ServiceEnd {
        /// Answered.
        Answered = "answered",
        /// Answered with an error of the service.
        Refused = "refused",
        /// The service has disconnected before its answer.
        Gone = "gone",
        /// No answer in time.
        TimedOut = "timed_out",
        /// There was no service.
        NoService = "no_service",
        /// All services were busy, and too many calls waited.
        Busy = "busy",
        /// The caller has gone before the answer.
        CallerGone = "caller_gone",
    }
}

labels! {
    /// The fate of a one-way event for a service.
    pub enum ServiceEvent {
        /// Sent to a service.
        Sent = "sent",
        /// Dropped, since no service had room.
        Dropped = "dropped",
    }
}

/// The counts of one row, for all cores.
#[derive(Debug)]
pub struct ServiceMeters {
    /// The pattern of the row; empty for the row of all patterns that no other covers.
    pub pattern: Box<str>,
    /// The pattern as the value of a label.
    pub(super) label: Box<str>,
    cores: Box<[OnceLock<Box<ServiceMetrics>>]>,
}

/// The counts of one row and one core, which alone writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServiceMetrics {
    /// Calls of this core's clients that have ended.
    pub ends: Counters<{ ServiceEnd::COUNT }>,
    /// One-way events that this core has sent to a service of its own, or has dropped.
    pub events: Counters<{ ServiceEvent::COUNT }>,
    /// How long the calls took that a service has answered.
    pub seconds: Histogram,
    /// Open calls of this core's clients.
    pub open: Counter,
    /// Calls that wait on this core for a service with room.
    pub waiting: Counter,
}

impl ServiceMeters {
    /// The counts of a row with this pattern.
    pub fn new(pattern: &str) -> Arc<ServiceMeters> {
        Arc::new(ServiceMeters {
            pattern: pattern.into(),
            label: pattern
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('\n', r"\n")
                .into(),
            cores: (0..CORES_MAX).map(|_| OnceLock::new()).collect(),
        })
    }

    /// The counts of a core.
    #[inline]
    pub fn of(&self, core: usize) -> &ServiceMetrics {
        self.cores[core].get_or_init(Box::default)
    }

    /// Whether the row is shown: it is in the configuration, or something was counted.
    pub(super) fn is_shown(&self) -> bool {
        !self.pattern.is_empty() || self.cores().next().is_some()
    }

    /// The sum of a number over all cores.
    pub fn sum(&self, of: impl Fn(&ServiceMetrics) -> u64) -> u64 {
        self.cores().fold(0, |sum, core| sum.wrapping_add(of(core)))
    }

    pub(super) fn cores(&self) -> impl Iterator<Item = &ServiceMetrics> {
        self.cores
            .iter()
            .filter_map(|core| core.get().map(|metrics| &**metrics))
    }
}

/// Most cores of one process.
const CORES_MAX: usize = 128;
