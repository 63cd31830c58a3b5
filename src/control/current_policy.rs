//! The policy that are in force, and how they are changed.
//!
//! Invariants
//! 1. Nobody waits for a core here, neither to ask for the policy nor to change them (`dispatch.rs`).
//! 2. One change at a time: two changes are dispatched to all cores in the same order.
//! 3. Policy that were in force are kept until no core has them any more, so that it is the control plane that drops the
//!    last of them: rules and keys may be large, and freeing them is not a core's work.

use std::sync::{Arc, PoisonError, RwLock};

use crate::policy::Policy;

/// The policy in force and those before them.
#[derive(Debug)]
pub(super) struct CurrentPolicy {
    /// Locked for the time of a copy.
    policy: RwLock<Arc<Policy>>,
    /// Those that some core may still decide by. Locked while policy are changed.
    former: RwLock<Vec<Arc<Policy>>>,
}

impl CurrentPolicy {
    pub(super) fn new(policy: Arc<Policy>) -> CurrentPolicy {
        CurrentPolicy {
            policy: RwLock::new(policy),
            former: RwLock::new(Vec::new()),
        }
    }

    /// The policy in force. Some core may not have been told of them yet.
    pub(super) fn now(&self) -> Arc<Policy> {
        // Whoever panicked while he held it has not changed it.
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force, and has `dispatch` send them on their way to the cores.
    ///
    /// # Errors
    /// The change itself cannot be made: the policy stay as they are.
    pub(super) fn change<E>(
        &self,
        change: impl FnOnce(&Policy) -> Result<Policy, E>,
        dispatch: impl FnOnce(&Arc<Policy>),
    ) -> Result<(), E> {
        let mut former = self.former.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let policy = Arc::new(change(&before)?);
        former.push(before);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
        dispatch(&policy);
        Ok(())
    }

    /// Drops those that nobody decides by any more. To be called now and then.
    pub(super) fn drop_former(&self) {
        // While they are being changed, the next time will do.
        if let Ok(mut former) = self.former.try_write() {
            former.retain(|policy| Arc::strong_count(policy) > 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn doors_that_were_in_force_are_dropped_here_once_no_core_has_them() {
        let first = Arc::new(Policy::open(&Config::default()).unwrap());
        let current_policy = CurrentPolicy::new(Arc::clone(&first));
        let of_a_core = Arc::clone(&first);
        let watched = Arc::downgrade(&first);
        drop(first);
        let unchanged = |policy: &Policy| Ok::<_, std::convert::Infallible>(policy.clone());
        let Ok(()) = current_policy.change(unchanged, |policy| {
            assert!(Arc::ptr_eq(policy, &current_policy.now()))
        });
        current_policy.drop_former();
        drop(of_a_core);
        assert!(watched.upgrade().is_some(), "a core never has the last");
        current_policy.drop_former();
        assert!(watched.upgrade().is_none());
    }
}
