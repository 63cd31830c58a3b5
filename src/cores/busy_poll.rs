//! Looking for work for a while before sleeping, where an operator has CPU time to spare for latency.
//!
//! What comes meanwhile is found without the sleep, the interrupt and the switch that waking takes, and cores that publish
//! need not wake this one. Not where cores share a CPU: there the others' work is what it would keep waiting.
//!
//! Limits: `busy_poll_us` after each turn; then the core sleeps as it does without.

use std::io;
use std::time::Duration;

use mio::Events;

use crate::app::App;

use super::core::Core;

impl<A: App> Core<A> {
    /// Looks for events and publications until there are some or the time for it is over. True if there are some.
    pub(super) fn poll_busily(&mut self, events: &mut Events) -> io::Result<bool> {
        if self.busy_poll_ns == 0 || self.shares_cpu || self.has_work_left() {
            return Ok(false);
        }
        let began_ns = self.time.clock().elapsed_ns();
        while self.time.clock().elapsed_ns().saturating_sub(began_ns) < self.busy_poll_ns {
            self.wait(events, Some(Duration::ZERO))?;
            if !events.is_empty() || self.delivery.depth() > 0 {
                self.metrics.busy_poll_hits.add(1);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
