//! Tells how many lines the audit trail lacks, since more came than its rate allows (`crate::audit`).

use std::sync::atomic::Ordering;

use super::ControlState;
use crate::audit::{self, Event};

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    events: [Told; Event::COUNT],
}

#[derive(Debug, Default)]
struct Told {
    told: u64,
    /// As it was at the last look.
    seen: u64,
    /// Looks since something was told.
    looks: u32,
}

impl LeftOut {
    /// Tells what is new, once the flood is over, or once a minute while it lasts.
    pub(super) fn look(&mut self, shared: &ControlState) {
        for event in Event::ALL {
            let of_cores = shared.cores.iter().map(|core| core.metrics());
            let of_cores: u64 = of_cores
                .map(|core| core.audit_left_out[event.index()].value())
                .sum();
            let of_operators = match event {
                Event::OperatorRefused => shared.operators_left_out.load(Ordering::Relaxed),
                _ => 0,
            };
            if let Some(count) = self.events[event.index()].look(of_cores + of_operators) {
                audit::left_out(event, count);
            }
        }
    }
}

impl Told {
    fn look(&mut self, count: u64) -> Option<u64> {
        let is_over = count == std::mem::replace(&mut self.seen, count);
        self.looks += 1;
        if count == self.told || !(is_over || self.looks >= LOOKS_MAX) {
            return None;
        }
        self.looks = 0;
        Some(count - std::mem::replace(&mut self.told, count))
    }
}

/// A look is taken each second.
const LOOKS_MAX: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_when_no_more_comes_and_meanwhile_once_a_minute() {
        let mut told = Told::default();
        assert_eq!([0, 5, 9].map(|count| told.look(count)), [None; 3]);
        assert_eq!(told.look(9), Some(9));
        assert_eq!(told.look(9), None);
        let flood: Vec<u64> = (10..200).filter_map(|count| told.look(count)).collect();
        assert_eq!(flood.len(), 3);
        assert_eq!(flood.iter().sum::<u64>() + 9 + told.look(199).unwrap(), 199);
    }
}
