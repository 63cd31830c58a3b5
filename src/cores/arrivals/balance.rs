//! Bad-luck correction: which core an accepted socket belongs to.
//!
//! `SO_REUSEPORT` spreads connections by a hash, so some cores get more than their share. Each core's load is the
//! number of connections it has or has been sent; a core that accepts while another is lighter hands the socket on.
//! The acceptor raises the load of the core it chose at once, so that sockets still on their way count.
//!
//! A place is taken before the socket is accepted, so that no core has more than it may, nor have all together.
//!
//! A core that drains closes its load: nobody chooses it any more, and while sockets are on their way to it, it is not
//! empty. Closing and choosing change the same atomic, so that one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The loads of all cores, and whose copy this is.
#[derive(Clone, Debug)]
pub(crate) struct Loads {
    own: usize,
    all: Arc<[Load]>,
    /// Connections of all cores together, if there is a limit to them.
    together: Option<Arc<Together>>,
}

/// Written by every core that accepts and by the core that closes; read when accepting. Relaxed: a count that is a
/// moment old costs one connection of balance, and a limit is met by exchanging exactly the count that was compared
/// with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

/// Written as [`Load`] is, and exact for the same reason.
#[derive(Debug)]
#[repr(align(128))]
struct Together {
    count: AtomicU32,
    max: u32,
}

/// There is no room for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum NoRoom {
    /// On no core.
    Core,
    /// In the whole server.
    Server,
}

impl Loads {
    /// One for each core; 0 for any number of connections together.
    pub(crate) fn new(cores: usize, connections_max: u32) -> Vec<Loads> {
        let all: Arc<[Load]> = (0..cores).map(|_| Load::default()).collect();
        let together = (connections_max > 0).then(|| {
            Arc::new(Together {
                count: AtomicU32::new(0),
                max: connections_max,
            })
        });
        (0..cores)
            .map(|own| Loads {
                own,
                all: Arc::clone(&all),
                together: together.clone(),
            })
            .collect()
    }

    /// Chooses the core for one more connection and counts it there: this core, unless another has fewer. None may have
    /// more than `per_core_max`, and never has.
    ///
    /// # Errors
    /// Which limit is met.
    pub(in crate::cores) fn assign(&self, per_core_max: u32) -> Result<usize, NoRoom> {
        if let Some(together) = &self.together {
            let one_more = |count| (count < together.max).then_some(count + 1);
            if together
                .count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_err()
            {
                return Err(NoRoom::Server);
            }
        }
        loop {
            let (chosen, least) = self.lightest();
            // One that drains is heavier than any may be.
            if least >= per_core_max {
                self.count_out();
                return Err(NoRoom::Core);
            }
            let load = &self.all[chosen].0;
            if load
                .compare_exchange(least, least + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Ok(chosen);
            }
            // Another core has chosen the same, or it has begun to drain.
        }
    }

    /// Gives back a place for which no connection came.
    pub(in crate::cores) fn give_back(&self, core: usize) {
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
        self.count_out();
    }

    fn lightest(&self) -> (usize, u32) {
        let (mut chosen, mut least) = (self.own, self.load(self.own));
        // Start behind the own place, so that cores that accept at the same moment choose different equals.
        for step in 1..self.all.len() {
            let other = (self.own + step) % self.all.len();
            let load = self.load(other);
            if load < least {
                (chosen, least) = (other, load);
            }
        }
        (chosen, least)
    }

    fn count_out(&self) {
        if let Some(together) = &self.together {
            together.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Moves a connection that was assigned to `core` but could not be sent there to this core. False if this one has no
    /// room for it; then its place is given back.
    pub(in crate::cores) fn keep(&self, core: usize, per_core_max: u32) -> bool {
        let one_more = |load| (load < per_core_max).then_some(load + 1);
        let own = &self.all[self.own].0;
        if own
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_err()
        {
            self.give_back(core);
            return false;
        }
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Counts the end of a connection of this core.
    pub(in crate::cores) fn end(&self) {
        self.give_back(self.own);
    }

    /// Has no core choose this one any more.
    pub(in crate::cores) fn close(&self) {
        self.all[self.own].0.fetch_add(CLOSED, Ordering::Relaxed);
    }

    /// Whether this core is closed, has no connection, and none is on its way to it.
    pub(in crate::cores) fn is_closed_and_empty(&self) -> bool {
        self.load(self.own) == CLOSED
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

    const MANY: u32 = 1000;

    fn assigned(loads: &Loads) -> usize {
        loads.assign(MANY).unwrap()
    }

    #[test]
    fn a_closed_core_is_chosen_by_nobody_and_waits_for_what_was_on_its_way() {
        let cores = Loads::new(2, 0);
        assert_eq!((assigned(&cores[0]), assigned(&cores[0])), (0, 1));
        cores[1].close();
        assert!(!cores[1].is_closed_and_empty(), "one is on its way");
        assert_eq!([assigned(&cores[0]), assigned(&cores[0])], [0, 0]);
        cores[1].end();
        assert!(cores[1].is_closed_and_empty());
        assert!(!cores[0].is_closed_and_empty(), "it is not closed");
        cores[0].close();
        assert_eq!(cores[0].assign(MANY), Err(NoRoom::Core));
    }

    #[test]
    fn whichever_core_accepts_the_loads_stay_equal() {
        let cores = Loads::new(4, 0);
        // All luck on one core.
        let chosen: Vec<usize> = (0..100).map(|_| assigned(&cores[2])).collect();
        for core in 0..4 {
            assert_eq!(chosen.iter().filter(|&&c| c == core).count(), 25);
        }
        cores[1].end();
        assert_eq!(assigned(&cores[3]), 1, "the place that was freed is filled first");
    }

    #[test]
    fn a_connection_that_cannot_be_sent_counts_where_it_stays() {
        let cores = Loads::new(2, 0);
        assert_eq!((assigned(&cores[0]), assigned(&cores[0])), (0, 1));
        assert!(cores[0].keep(1, 2));
        assert_eq!(assigned(&cores[0]), 1);
        assert!(!cores[0].keep(1, 2), "it would be one too many");
        assert_eq!(assigned(&cores[0]), 1);
    }

    #[test]
    fn places_are_given_up_to_the_limits_and_again_when_one_is_free() {
        let cores = Loads::new(2, 3);
        assert_eq!((cores[0].assign(1), cores[0].assign(1)), (Ok(0), Ok(1)));
        assert_eq!(cores[1].assign(1), Err(NoRoom::Core));
        assert!(cores[1].assign(2).is_ok(), "who found no core has left no trace");
        assert_eq!(cores[0].assign(2), Err(NoRoom::Server));
        cores[1].end();
        assert!(cores[0].assign(2).is_ok());
        assert_eq!(cores[0].assign(2), Err(NoRoom::Server));
        cores[0].give_back(0);
        assert!(cores[0].assign(2).is_ok());
    }

    #[test]
    fn cores_that_accept_at_once_exceed_no_limit() {
        for (per_core_max, connections_max, most) in [(100, 0, 400), (1000, 250, 250), (100, 250, 250)] {
            let cores = Loads::new(4, connections_max);
            let taken: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = cores
                    .iter()
                    .map(|loads| {
                        scope.spawn(|| (0..1000).filter(|_| loads.assign(per_core_max).is_ok()).count())
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(taken, most);
            for core in 0..4 {
                assert!(cores[0].load(core) <= per_core_max);
            }
        }
    }
}
