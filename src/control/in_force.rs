//! The doors that are in force, and how they are changed.
//!
//! Invariants
//! 1. Nobody waits for a core here, neither to ask for the doors nor to change them (`dispatch.rs`).
//! 2. One change at a time: two changes are dispatched to all cores in the same order.
//! 3. Doors that were in force are kept until no core has them any more, so that it is the control plane that drops the
//!    last of them: rules and keys may be large, and freeing them is not a core's work.

use std::sync::{Arc, PoisonError, RwLock};

use crate::doors::Doors;

/// The doors in force and those before them.
#[derive(Debug)]
pub(super) struct InForce {
    /// Locked for the time of a copy.
    doors: RwLock<Arc<Doors>>,
    /// Those that some core may still decide by. Locked while doors are changed.
    former: RwLock<Vec<Arc<Doors>>>,
}

impl InForce {
    pub(super) fn new(doors: Arc<Doors>) -> InForce {
        InForce {
            doors: RwLock::new(doors),
            former: RwLock::new(Vec::new()),
        }
    }

    /// The doors in force. Some core may not have been told of them yet.
    pub(super) fn now(&self) -> Arc<Doors> {
        // Whoever panicked while he held it has not changed it.
        Arc::clone(&self.doors.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force, and has `dispatch` send them on their way to the cores.
    ///
    /// # Errors
    /// The change itself cannot be made: the doors stay as they are.
    pub(super) fn change<E>(
        &self,
        change: impl FnOnce(&Doors) -> Result<Doors, E>,
        dispatch: impl FnOnce(&Arc<Doors>),
    ) -> Result<(), E> {
        let mut former = self.former.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let doors = Arc::new(change(&before)?);
        former.push(before);
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&doors);
        dispatch(&doors);
        Ok(())
    }

    /// Drops those that nobody decides by any more. To be called now and then.
    pub(super) fn drop_former(&self) {
        // While they are being changed, the next time will do.
        if let Ok(mut former) = self.former.try_write() {
            former.retain(|doors| Arc::strong_count(doors) > 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn doors_that_were_in_force_are_dropped_here_once_no_core_has_them() {
        let first = Arc::new(Doors::open(&Config::default()).unwrap());
        let in_force = InForce::new(Arc::clone(&first));
        let of_a_core = Arc::clone(&first);
        let watched = Arc::downgrade(&first);
        drop(first);
        let unchanged = |doors: &Doors| Ok::<_, std::convert::Infallible>(doors.clone());
        let Ok(()) = in_force.change(unchanged, |doors| assert!(Arc::ptr_eq(doors, &in_force.now())));
        in_force.drop_former();
        drop(of_a_core);
        assert!(watched.upgrade().is_some(), "a core never has the last");
        in_force.drop_former();
        assert!(watched.upgrade().is_none());
    }
}
