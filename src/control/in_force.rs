//! The doors that are in force, and how they are changed.
//!
//! Invariants
//! 1. Who asks for the doors in force never waits for a core. Who changes them may have to, for one whose mailbox is full.
//! 2. One change at a time, until all cores have been told: two changes reach all of them in the same order.
//! 3. Doors that were in force are kept until no core has them any more, so that it is this thread that drops the last
//!    of them: rules and keys may be large, and freeing them is not a core's work.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

use crate::doors::Doors;

/// The doors in force and those before them.
#[derive(Debug)]
pub(super) struct InForce {
    /// Locked for the time of a copy.
    doors: RwLock<Arc<Doors>>,
    /// Those that some core may still decide by. Locked while doors are changed.
    former: Mutex<Vec<Arc<Doors>>>,
}

impl InForce {
    pub(super) fn new(doors: Arc<Doors>) -> InForce {
        InForce {
            doors: RwLock::new(doors),
            former: Mutex::new(Vec::new()),
        }
    }

    /// The doors in force. Some core may not have been told of them yet.
    pub(super) fn now(&self) -> Arc<Doors> {
        // Whoever panicked while he held it has not changed it.
        Arc::clone(&self.doors.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force, and has `tell` tell the cores of them.
    ///
    /// # Errors
    /// The change itself cannot be made: the doors stay as they are.
    pub(super) async fn change<E>(
        &self,
        change: impl FnOnce(&Doors) -> Result<Doors, E>,
        tell: impl AsyncFnOnce(&Arc<Doors>),
    ) -> Result<(), E> {
        let mut former = self.former.lock().await;
        let before = self.now();
        let doors = Arc::new(change(&before)?);
        former.push(before);
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&doors);
        tell(&doors).await;
        Ok(())
    }

    /// Drops those that nobody decides by any more. To be called now and then.
    pub(super) fn drop_former(&self) {
        // While they are being changed, the next time will do.
        if let Ok(mut former) = self.former.try_lock() {
            former.retain(|doors| Arc::strong_count(doors) > 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn doors_that_were_in_force_are_dropped_here_once_no_core_has_them() {
        let first = Arc::new(Doors::open(&Config::default()).unwrap());
        let in_force = InForce::new(Arc::clone(&first));
        let of_a_core = Arc::clone(&first);
        let watched = Arc::downgrade(&first);
        drop(first);
        let unchanged = |doors: &Doors| Ok::<_, std::convert::Infallible>(doors.clone());
        let Ok(()) = in_force.change(unchanged, async |_| {}).await;
        in_force.drop_former();
        drop(of_a_core);
        assert!(watched.upgrade().is_some(), "a core never has the last");
        in_force.drop_former();
        assert!(watched.upgrade().is_none());
    }

    #[tokio::test]
    async fn who_asks_does_not_wait_for_a_core_that_is_being_told() {
        let in_force = InForce::new(Arc::new(Doors::open(&Config::default()).unwrap()));
        let unchanged = |doors: &Doors| Ok::<_, std::convert::Infallible>(doors.clone());
        let told = in_force.change(unchanged, async |doors| {
            assert!(Arc::ptr_eq(doors, &in_force.now()));
            in_force.drop_former();
        });
        let Ok(()) = told.await;
    }
}
