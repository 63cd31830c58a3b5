//! Balances connections over the cores: chooses the core for each accepted socket.
//!
//! `SO_REUSEPORT` spreads connections by a hash, so some cores get more than their share. The load of a core is the
//! number of connections that it has or that were sent to it. A core that accepts a socket while another core has a
//! smaller load hands the socket to that core. The accepting core raises the other's load at once, so that sockets on
//! their way count.
//!
//! A place is taken before the socket is accepted, so neither a core nor the whole server exceeds its limit.
//!
//! A core that drains closes its load: no core chooses it any more. It does not count as empty while sockets
//! are on their way to it. Closing and choosing change the same atomic, so one of the two sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The loads of all cores, from the view of one core.
#[derive(Clone, Debug)]
pub(crate) struct Loads {
    own: usize,
    all: Arc<[Load]>,
    /// Connections of all cores together, if their number has a limit.
    totals: Option<Arc<ServerTotals>>,
}

/// The load of one core. Written by every core that accepts a connection and by the core that closes it; read when
/// accepting. Relaxed: an outdated count makes the balance worse by one connection, and limits stay exact because the
/// compare-and-exchange replaces exactly the count that was compared with the limit.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

/// The connections of the whole server. Written like [`Load`], and exact for the same reason.
#[derive(Debug)]
#[repr(align(128))]
struct ServerTotals {
    count: AtomicU32,
    max: u32,
}

/// There is no room for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum NoRoom {
    /// No core has room.
    Core,
    /// The whole server has no room.
    Server,
}

impl Loads {
    /// Makes the loads for each core. `connections_max` is the limit for all cores together, 0 for none.
    pub(crate) fn new(cores: usize, connections_max: u32) -> Vec<Loads> {
        let all: Arc<[Load]> = (0..cores).map(|_| Load::default()).collect();
        let totals = (connections_max > 0).then(|| {
            Arc::new(ServerTotals {
                count: AtomicU32::new(0),
                max: connections_max,
            })
        });
        (0..cores)
            .map(|own| Loads {
                own,
                all: Arc::clone(&all),
                totals: totals.clone(),
            })
            .collect()
    }

    /// Chooses the core for one more connection and counts it there: this core, unless another has fewer connections.
    /// No core ever has more than `per_core_max`.
    ///
    /// # Errors
    /// A limit is met: that of the server, or that of every core.
    pub(in crate::cores) fn assign(&self, per_core_max: u32) -> Result<usize, NoRoom> {
        self.count_in()?;
        self.choose(per_core_max)
    }

    /// Counts one more connection on this core. If this core is full, does the same as [`Loads::assign`].
    ///
    /// # Errors
    /// As [`Loads::assign`].
    pub(in crate::cores) fn assign_own(&self, per_core_max: u32) -> Result<usize, NoRoom> {
        self.count_in()?;
        if self.count_at(self.own, per_core_max) {
            return Ok(self.own);
        }
        self.choose(per_core_max)
    }

    fn count_in(&self) -> Result<(), NoRoom> {
        if let Some(totals) = &self.totals {
            let one_more = |count| (count < totals.max).then_some(count + 1);
            if totals
                .count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_err()
            {
                return Err(NoRoom::Server);
            }
        }
        Ok(())
    }

    fn choose(&self, per_core_max: u32) -> Result<usize, NoRoom> {
        loop {
            let (chosen, least) = self.lightest();
            // The load of a core that drains is above every limit.
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
            // Another core has chosen the same core, or the chosen core has begun to drain: choose again.
        }
    }

    /// Gives back a place on `core`.
    pub(in crate::cores) fn give_back(&self, core: usize) {
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
        self.count_out();
    }

    fn lightest(&self) -> (usize, u32) {
        let (mut chosen, mut least) = (self.own, self.load(self.own));
        // Start behind this core's own number, so that cores that accept at the same moment choose different cores of
        // equal load.
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
        if let Some(totals) = &self.totals {
            totals.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Moves the place of a connection from `core` to this core, because the connection could not be sent. False if
    /// this core has no room for it; then the place is given back.
    pub(in crate::cores) fn keep(&self, core: usize, per_core_max: u32) -> bool {
        if !self.count_at(self.own, per_core_max) {
            self.give_back(core);
            return false;
        }
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Takes a place on `core` for a connection that has one here. False if that core has no room for it, or
    /// drains. The connection has two places until [`Loads::has_moved`] or [`Loads::has_not_moved`], so that
    /// no limit is ever exceeded.
    pub(in crate::cores) fn begin_move(&self, core: usize, per_core_max: u32) -> bool {
        self.count_at(core, per_core_max)
    }

    /// The connection has left: it has no place here any more.
    pub(in crate::cores) fn has_moved(&self) {
        self.all[self.own].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The connection could not be sent: its place on `core` is given back.
    pub(in crate::cores) fn has_not_moved(&self, core: usize) {
        self.all[core].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one more connection on a core, if it has room. The load of a core that drains is above every
    /// limit.
    fn count_at(&self, core: usize, per_core_max: u32) -> bool {
        let one_more = |load| (load < per_core_max).then_some(load + 1);
        self.all[core]
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    /// Counts the end of a connection of this core.
    pub(in crate::cores) fn end(&self) {
        self.give_back(self.own);
    }

    /// Closes this core's load: from now on no core chooses this one.
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

/// Added to the load of a core that drains. No core has that many connections.
const CLOSED: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u32 = 1000;

    fn assigned(loads: &Loads) -> usize {
        loads.assign(MANY).unwrap()
    }

    #[test]
    fn a_closed_core_is_chosen_by_no_core_and_waits_for_connections_on_their_way() {
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
        // One core accepts every connection.
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
    fn a_connection_that_moves_has_a_place_all_the_time_and_exceeds_no_limit() {
        let cores = Loads::new(2, 3);
        assert_eq!((cores[0].assign_own(2), cores[0].assign_own(2)), (Ok(0), Ok(0)));
        assert_eq!(cores[0].assign_own(2), Ok(1), "this core is full");
        assert!(cores[0].begin_move(1, 2));
        assert!(!cores[0].begin_move(1, 2), "the other core is full");
        cores[0].has_not_moved(1);
        assert!(cores[0].begin_move(1, 2));
        cores[0].has_moved();
        assert_eq!((cores[0].load(0), cores[0].load(1)), (1, 2));
        assert_eq!(cores[1].assign(9), Err(NoRoom::Server));
        cores[1].end();
        assert_eq!(cores[1].assign(9), Ok(1));
        cores[1].close();
        assert!(!cores[0].begin_move(1, 9), "it drains");
    }

    #[test]
    fn places_are_given_up_to_the_limits_and_again_when_one_is_free() {
        let cores = Loads::new(2, 3);
        assert_eq!((cores[0].assign(1), cores[0].assign(1)), (Ok(0), Ok(1)));
        assert_eq!(cores[1].assign(1), Err(NoRoom::Core));
        assert!(
            cores[1].assign(2).is_ok(),
            "a connection for which no core had room has left no count"
        );
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
