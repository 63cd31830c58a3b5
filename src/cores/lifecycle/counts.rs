//! How many connections of a core have not ended, and how many of their sessions are open.

use std::sync::Arc;

use crate::metrics::block::CoreMetrics;

/// The counts of one core, and the gauge for sessions, which is set when their count changes.
#[derive(Debug)]
pub(in crate::cores) struct Counts {
    alive: u64,
    sessions: u64,
    metrics: Arc<CoreMetrics>,
}

impl Counts {
    pub(in crate::cores) fn new(metrics: Arc<CoreMetrics>) -> Counts {
        Counts {
            alive: 0,
            sessions: 0,
            metrics,
        }
    }

    /// Connections that have not ended.
    pub(in crate::cores) fn alive(&self) -> u64 {
        self.alive
    }

    /// Sessions that are open.
    #[cfg(test)]
    pub(in crate::cores) fn sessions(&self) -> u64 {
        self.sessions
    }

    pub(in crate::cores) fn connection_begins(&mut self) {
        self.alive += 1;
    }

    pub(in crate::cores) fn connection_ends(&mut self) {
        self.alive -= 1;
    }

    pub(in crate::cores) fn session_opens(&mut self) {
        self.sessions += 1;
        self.metrics.sessions.set(self.sessions);
    }

    pub(in crate::cores) fn session_ends(&mut self) {
        self.sessions -= 1;
        self.metrics.sessions.set(self.sessions);
    }
}
