//! Logs how many lines the audit trail has left out because its rate limit was reached (`crate::audit`).

use std::sync::atomic::Ordering;

use super::ControlState;
use crate::audit::{self, Event};

/// The number of omitted lines that the log has named so far, for each event.
#[derive(Debug, Default)]
pub(super) struct AuditOmissions {
    events: [Reported; Event::COUNT],
}

#[derive(Debug, Default)]
struct Reported {
    reported: u64,
    /// The count at the last check.
    seen: u64,
    /// Checks since the last line.
    checks: u32,
}

impl AuditOmissions {
    /// Logs new omissions when no more are added, and once a minute while they last.
    pub(super) fn check(&mut self, shared: &ControlState) {
        for event in Event::ALL {
            let in_cores = shared.cores.iter().map(|core| core.metrics());
            let in_cores: u64 = in_cores
                .map(|core| core.audit_left_out[event.index()].value())
                .sum();
            let in_control_plane = shared.audit_left_out[event.index()].load(Ordering::Relaxed);
            if let Some(count) = self.events[event.index()].check(in_cores + in_control_plane) {
                audit::left_out(event, count);
            }
        }
    }
}

impl Reported {
    fn check(&mut self, count: u64) -> Option<u64> {
        let has_ended = count == std::mem::replace(&mut self.seen, count);
        self.checks += 1;
        if count == self.reported || !(has_ended || self.checks >= CHECKS_MAX) {
            return None;
        }
        self.checks = 0;
        Some(count - std::mem::replace(&mut self.reported, count))
    }
}

/// Checks run once a second, so this is a minute.
const CHECKS_MAX: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omissions_are_logged_when_they_end_and_once_a_minute_while_they_last() {
        let mut reported = Reported::default();
        assert_eq!([0, 5, 9].map(|count| reported.check(count)), [None; 3]);
        assert_eq!(reported.check(9), Some(9));
        assert_eq!(reported.check(9), None);
        let flood: Vec<u64> = (10..200).filter_map(|count| reported.check(count)).collect();
        assert_eq!(flood.len(), 3);
        assert_eq!(flood.iter().sum::<u64>() + 9 + reported.check(199).unwrap(), 199);
    }
}
