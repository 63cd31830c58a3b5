//! Bad-luck correction: which core an accepted socket belongs to.
//!
//! `SO_REUSEPORT` spreads connections by a hash, so some cores get more than their share. Each core's load is the
//! number of connections it has or has been sent; a core that accepts while another is lighter hands the socket on.
//! The acceptor raises the load of the core it chose at once, so that sockets still on their way count.
//!
//! A core that drains closes its load: nobody chooses it any more, and while sockets are on their way to it, it is not
//! empty. Closing and choosing are both one addition to the same atomic, so that one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The loads of all cores, and whose copy this is.
#[derive(Clone, Debug)]
pub(crate) struct Loads {
    own: usize,
    all: Arc<[Load]>,
}

/// Written by every core that accepts and by the core that closes; read when accepting. Relaxed: a count that is a
/// moment old costs one connection of balance, nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

impl Loads {
    /// One for each core.
    pub(crate) fn new(cores: usize) -> Vec<Loads> {
        let all: Arc<[Load]> = (0..cores).map(|_| Load::default()).collect();
        (0..cores)
            .map(|own| Loads {
                own,
                all: Arc::clone(&all),
            })
            .collect()
    }

    /// Chooses the core for one more connection and counts it there: this core, unless another has fewer.
    pub(super) fn assign(&self) -> usize {
        let mut chosen = self.own;
        let mut least = self.load(self.own);
        // Start behind the own place, so that cores that accept at the same moment choose different equals.
        for step in 1..self.all.len() {
            let other = (self.own + step) % self.all.len();
            if self.load(other) < least {
                (chosen, least) = (other, self.load(other));
            }
        }
        let before = self.all[chosen].0.fetch_add(1, Ordering::Relaxed);
        if before >= CLOSED && chosen != self.own {
            // It has begun to drain since we looked, and may not wait for this socket.
            self.keep(chosen);
            return self.own;
        }
        chosen
    }

    /// Moves a connection that was assigned to `core` but could not be sent there to this core.
    pub(super) fn keep(&self, core: usize) {
        self.all[self.own].0.fetch_add(1, Ordering::Relaxed);
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts the end of a connection of this core.
    pub(super) fn end(&self) {
        self.all[self.own].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Has no core choose this one any more.
    pub(super) fn close(&self) {
        self.all[self.own].0.fetch_add(CLOSED, Ordering::Relaxed);
    }

    /// Whether this core is closed, has no connection, and none is on its way to it.
    pub(super) fn is_closed_and_empty(&self) -> bool {
        self.load(self.own) == CLOSED
    }

    /// The least load of any core. Cores that accept at the same moment may find the same last place below a limit, which
    /// then is exceeded by one connection for each of them; descriptor tables have more to spare than that.
    pub(super) fn least(&self) -> u32 {
        (0..self.all.len()).map(|core| self.load(core)).min().unwrap_or(0)
    }

    fn load(&self, core: usize) -> u32 {
        self.all[core].0.load(Ordering::Relaxed)
    }
}

/// Added to the load of a core that drains; more than any core has connections.
const CLOSED: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_core_is_chosen_by_nobody_and_waits_for_what_was_on_its_way() {
        let cores = Loads::new(2);
        assert_eq!((cores[0].assign(), cores[0].assign()), (0, 1));
        cores[1].close();
        assert!(!cores[1].is_closed_and_empty(), "one is on its way");
        assert_eq!([cores[0].assign(), cores[0].assign()], [0, 0]);
        cores[1].end();
        assert!(cores[1].is_closed_and_empty());
        assert!(!cores[0].is_closed_and_empty(), "it is not closed");
    }

    #[test]
    fn whichever_core_accepts_the_loads_stay_equal() {
        let cores = Loads::new(4);
        // All luck on one core.
        let chosen: Vec<usize> = (0..100).map(|_| cores[2].assign()).collect();
        for core in 0..4 {
            assert_eq!(chosen.iter().filter(|&&c| c == core).count(), 25);
        }
        cores[1].end();
        assert_eq!(cores[3].assign(), 1, "the place that was freed is filled first");
    }

    #[test]
    fn a_connection_that_cannot_be_sent_counts_where_it_stays() {
        let cores = Loads::new(2);
        assert_eq!((cores[0].assign(), cores[0].assign()), (0, 1));
        cores[0].keep(1);
        assert_eq!(cores[0].assign(), 1);
    }
}
