//! The places for operators' connections, and who gives his to another.
//!
//! There are [`PLACES_MAX`]. When all are taken, a newcomer gets that of whoever has been silent for longest, in this
//! order: those who have never asked for anything, those who are between two requests, and those whose request is being
//! answered. So nobody who only connects can keep an operator out.
//!
//! Limits: `PLACES_MAX`; who has given way is counted in `ringcast_admin_connections_ended_total`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::task::AbortHandle;

/// All places. Copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Seats>);

#[derive(Debug, Default)]
struct Seats {
    taken: RwLock<BTreeMap<u64, Place>>,
    /// Signs of life so far: they are told apart by their number, which is their order.
    signs: AtomicU64,
    gave_way: AtomicU64,
}

#[derive(Debug)]
struct Place {
    manners: Manners,
    /// The last sign of life.
    sign: u64,
    /// Ends the connection, once its task has been started.
    end: Option<AbortHandle>,
}

/// How an operator's connection is used; who comes first gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manners {
    /// It has not asked for anything.
    Silent,
    /// What it has asked for has been answered.
    Answered,
    /// An answer is being made.
    Asking,
}

/// One place, free again with the value.
#[derive(Debug)]
pub(super) struct Seat {
    places: Places,
    number: u64,
}

impl Places {
    /// A place for a newcomer.
    pub(super) fn take(&self) -> Seat {
        let number = self.next_sign();
        let mut taken = self.0.taken.write().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= PLACES_MAX {
            let first = taken
                .iter()
                .min_by_key(|(_, place)| (place.manners, place.sign))
                .map(|(number, _)| *number);
            if let Some(Place { end: Some(end), .. }) = first.and_then(|number| taken.remove(&number)) {
                end.abort();
                self.0.gave_way.fetch_add(1, Ordering::Relaxed);
            }
        }
        let place = Place {
            manners: Manners::Silent,
            sign: number,
            end: None,
        };
        taken.insert(number, place);
        Seat {
            places: self.clone(),
            number,
        }
    }

    /// How many have had to give way.
    pub(super) fn gave_way(&self) -> u64 {
        self.0.gave_way.load(Ordering::Relaxed)
    }

    fn next_sign(&self) -> u64 {
        self.0.signs.fetch_add(1, Ordering::Relaxed)
    }
}

impl Seat {
    /// What is to be ended if it has to give way.
    pub(super) fn is_of(&self, end: AbortHandle) {
        self.change(|place| place.end = Some(end));
    }

    /// A request has come.
    pub(super) fn asks(&self) {
        self.shows(Manners::Asking);
    }

    /// It is being sent its answer.
    pub(super) fn is_answered(&self) {
        self.shows(Manners::Answered);
    }

    /// Whether it has ever asked for anything.
    pub(super) fn has_asked(&self) -> bool {
        let mut silent = false;
        self.change(|place| silent = place.manners == Manners::Silent);
        !silent
    }

    fn shows(&self, manners: Manners) {
        let sign = self.places.next_sign();
        self.change(|place| (place.manners, place.sign) = (manners, sign));
    }

    fn change(&self, change: impl FnOnce(&mut Place)) {
        let mut taken = self
            .places
            .0
            .taken
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // It may have had to give way a moment ago.
        if let Some(place) = taken.get_mut(&self.number) {
            change(place);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .0
            .taken
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.number);
    }
}

/// Connections of operators at a time.
pub(super) const PLACES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of those that have a place.
    fn present(places: &Places) -> Vec<u64> {
        places.0.taken.read().unwrap().keys().copied().collect()
    }

    #[tokio::test]
    async fn the_longest_silent_gives_way_and_who_is_being_answered_comes_last() {
        let places = Places::default();
        let seats: Vec<Seat> = (0..PLACES_MAX)
            .map(|_| {
                let seat = places.take();
                seat.is_of(tokio::spawn(std::future::pending::<()>()).abort_handle());
                seat
            })
            .collect();
        assert_eq!(places.gave_way(), 0);
        // The first is being answered, the second has been, and the third has said nothing.
        seats[0].asks();
        seats[1].asks();
        seats[1].is_answered();
        for seat in &seats[3..] {
            seat.asks();
        }
        assert!(seats[0].has_asked() && seats[1].has_asked() && !seats[2].has_asked());
        let mut newcomers = Vec::new();
        for (count, gone) in (1..).zip([2, 1, 0]) {
            let newcomer = places.take();
            newcomer.asks();
            newcomers.push(newcomer);
            assert_eq!(places.gave_way(), count);
            assert_eq!(present(&places).len(), PLACES_MAX);
            assert!(!present(&places).contains(&seats[gone].number), "{gone}");
        }
        // A place that is free again is taken before anybody has to give way.
        drop(newcomers.pop());
        newcomers.push(places.take());
        assert_eq!(places.gave_way(), 3);
        drop((newcomers, seats));
        assert!(present(&places).is_empty());
    }
}
