//! Busy polling: if an operator spends CPU time on lower latency, a core looks for work for a while before it
//! sleeps.
//!
//! Work that arrives meanwhile costs no interrupt and no context switch, and cores that publish need not wake this one.
//! A core that shares its CPU with another core does not poll, since it would delay the other core.
//!
//! Limits: `busy_poll_us` after each turn; then the core sleeps.

use std::io;
use std::time::Duration;

use mio::Events;

use crate::app::App;

use super::core::Core;

impl<A: App> Core<A> {
    /// Looks for events, publications and letters until it finds some or the time is over. True if it has
    /// found some.
    pub(super) fn poll_busily(&mut self, events: &mut Events) -> io::Result<bool> {
        if self.busy_poll_ns == 0 || self.shares_cpu || self.has_work_left() {
            return Ok(false);
        }
        let began_ns = self.time.clock().elapsed_ns();
        while self.time.clock().elapsed_ns().saturating_sub(began_ns) < self.busy_poll_ns {
            self.wait(events, Some(Duration::ZERO))?;
            if !events.is_empty() || self.delivery.depth() > 0 || self.post.has_letters() {
                self.metrics.busy_poll_hits.add(1);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
