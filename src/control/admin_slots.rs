//! The slots for operators' connections, and which connection loses its slot to a new one.
//!
//! There are [`ADMIN_SLOTS_MAX`] slots. When all are taken, a new connection evicts another: first a connection
//! that has never sent a request, then one that is between two requests, last one whose request is being
//! answered; among equals the one that has been inactive for longest. So a peer that only opens connections
//! cannot keep an operator out.
//!
//! Limits: `ADMIN_SLOTS_MAX`; evictions are counted in `ringcast_admin_connections_ended_total`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::task::AbortHandle;

/// All slots. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct AdminSlots(Arc<SlotTable>);

#[derive(Debug, Default)]
struct SlotTable {
    taken: RwLock<BTreeMap<u64, SlotState>>,
    /// Number of the next event. Events are ordered by their numbers; a slot's key is the number of its first
    /// event.
    events: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct SlotState {
    activity: Activity,
    /// The number of its last event.
    last_event: u64,
    /// Ends the connection, once its task has been started.
    end: Option<AbortHandle>,
}

/// What an operator's connection is doing. Smaller values are evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    /// It has not sent a request yet.
    NoRequest,
    /// All of its requests have been answered.
    Idle,
    /// A request is being answered.
    Answering,
}

/// One slot, freed when the value is dropped.
#[derive(Debug)]
pub(super) struct AdminSlot {
    slots: AdminSlots,
    number: u64,
}

impl AdminSlots {
    /// Takes a slot for a new connection; evicts another connection if none is free.
    pub(super) fn take(&self) -> AdminSlot {
        let number = self.next_event();
        let mut taken = self.0.taken.write().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= ADMIN_SLOTS_MAX {
            let first = taken
                .iter()
                .min_by_key(|(_, slot)| (slot.activity, slot.last_event))
                .map(|(number, _)| *number);
            if let Some(SlotState { end: Some(end), .. }) = first.and_then(|number| taken.remove(&number)) {
                end.abort();
                self.0.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        let slot = SlotState {
            activity: Activity::NoRequest,
            last_event: number,
            end: None,
        };
        taken.insert(number, slot);
        AdminSlot {
            slots: self.clone(),
            number,
        }
    }

    /// How many connections have been evicted.
    pub(super) fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }

    fn next_event(&self) -> u64 {
        self.0.events.fetch_add(1, Ordering::Relaxed)
    }
}

impl AdminSlot {
    /// Sets the task to abort if the connection is evicted.
    pub(super) fn set_task(&self, end: AbortHandle) {
        self.change(|slot| slot.end = Some(end));
    }

    /// A request has come.
    pub(super) fn begin_request(&self) {
        self.set_activity(Activity::Answering);
    }

    /// Its answer is being sent.
    pub(super) fn end_request(&self) {
        self.set_activity(Activity::Idle);
    }

    /// True if the connection has ever sent a request.
    pub(super) fn has_requested(&self) -> bool {
        let mut silent = false;
        self.change(|slot| silent = slot.activity == Activity::NoRequest);
        !silent
    }

    fn set_activity(&self, activity: Activity) {
        let last_event = self.slots.next_event();
        self.change(|slot| (slot.activity, slot.last_event) = (activity, last_event));
    }

    fn change(&self, change: impl FnOnce(&mut SlotState)) {
        let mut taken = self.slots.0.taken.write().unwrap_or_else(PoisonError::into_inner);
        // The slot may have been taken away a moment ago.
        if let Some(slot) = taken.get_mut(&self.number) {
            change(slot);
        }
    }
}

impl Drop for AdminSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.taken.write().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.number);
    }
}

/// Most connections of operators at a time.
pub(super) const ADMIN_SLOTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the taken slots.
    fn present(slots: &AdminSlots) -> Vec<u64> {
        slots.0.taken.read().unwrap().keys().copied().collect()
    }

    #[tokio::test]
    async fn the_connection_inactive_for_longest_is_evicted_first_and_one_being_answered_last() {
        let slots = AdminSlots::default();
        let connections: Vec<AdminSlot> = (0..ADMIN_SLOTS_MAX)
            .map(|_| {
                let slot = slots.take();
                slot.set_task(tokio::spawn(std::future::pending::<()>()).abort_handle());
                slot
            })
            .collect();
        assert_eq!(slots.evicted(), 0);
        // The first is being answered, the second has been answered, and the third has sent no request.
        connections[0].begin_request();
        connections[1].begin_request();
        connections[1].end_request();
        for slot in &connections[3..] {
            slot.begin_request();
        }
        assert!(
            connections[0].has_requested()
                && connections[1].has_requested()
                && !connections[2].has_requested()
        );
        let mut newer = Vec::new();
        for (count, gone) in (1..).zip([2, 1, 0]) {
            let new = slots.take();
            new.begin_request();
            newer.push(new);
            assert_eq!(slots.evicted(), count);
            assert_eq!(present(&slots).len(), ADMIN_SLOTS_MAX);
            assert!(!present(&slots).contains(&connections[gone].number), "{gone}");
        }
        // A free slot is taken before any connection is evicted.
        drop(newer.pop());
        newer.push(slots.take());
        assert_eq!(slots.evicted(), 3);
        drop((newer, connections));
        assert!(present(&slots).is_empty());
    }
}
