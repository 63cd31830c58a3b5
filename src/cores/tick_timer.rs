//! When the application's periodic work is due: [`App::tick_every`](crate::app::App::tick_every).

use std::time::Duration;

use crate::clock::Uptime;

/// When the application's periodic work is due.
#[derive(Debug)]
pub(in crate::cores) struct TickTimer {
    /// [`Uptime::NEVER`] for an application without such work.
    next: Uptime,
    every: Option<Duration>,
}

impl TickTimer {
    /// For work that is due so often; `None` if the application has none.
    pub(in crate::cores) fn new(every: Option<Duration>, now: Uptime) -> TickTimer {
        TickTimer {
            next: every.map_or(Uptime::NEVER, |every| now + every),
            every,
        }
    }

    #[inline]
    pub(in crate::cores) fn is_due(&self, now: Uptime) -> bool {
        now >= self.next
    }

    #[inline]
    pub(in crate::cores) fn next(&self) -> Uptime {
        self.next
    }

    /// The work begins now. Sets the time of the next.
    pub(in crate::cores) fn begin(&mut self, now: Uptime) {
        self.next = self
            .every
            .map_or(Uptime::NEVER, |every| now + every.max(SHORTEST));
    }
}

/// The shortest time from one tick to the next.
const SHORTEST: Duration = Duration::from_millis(1);
