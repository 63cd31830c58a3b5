//! The policy in force, and the settings of the last reload: how they are read and changed.
//!
//! Invariants
//! 1. Nothing here waits for a core, neither reading the policy nor changing it (`dispatch.rs`).
//! 2. Changes are made one at a time, so that all cores get two changes in the same order.
//! 3. A former policy is kept until no core uses it any more, so that the control plane drops the last
//!    reference: rules and keys may be large, and freeing them is not a core's work.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Config;
use crate::policy::Policy;

/// The policy in force and the former ones that cores may still use.
#[derive(Debug)]
pub(super) struct CurrentPolicy {
    /// Locked only while its `Arc` is copied.
    policy: RwLock<Arc<Policy>>,
    /// Policies that some core may still use. Locked while the policy is changed.
    former: RwLock<Vec<Arc<Policy>>>,
    /// The configuration that the last reload has read; `None` before the first reload. Locked only while its `Arc` is copied.
    reloaded: RwLock<Option<Arc<Config>>>,
}

impl CurrentPolicy {
    pub(super) fn new(policy: Arc<Policy>) -> CurrentPolicy {
        CurrentPolicy {
            policy: RwLock::new(policy),
            former: RwLock::new(Vec::new()),
            reloaded: RwLock::new(None),
        }
    }

    /// The policy in force. Some cores may not have received it yet.
    pub(super) fn now(&self) -> Arc<Policy> {
        // A thread that panicked while it held the lock has not changed the policy.
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new policy in force; `dispatch` sends it to the cores.
    ///
    /// # Errors
    /// The change itself fails: the policy stays as it is.
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

    /// The configuration that the last reload has read: the settings that take effect on reload have its values. `None`
    /// if there was no reload.
    pub(super) fn reloaded(&self) -> Option<Arc<Config>> {
        let reloaded = self.reloaded.read().unwrap_or_else(PoisonError::into_inner);
        reloaded.clone()
    }

    /// A reload has read this, and its policy is in force.
    pub(super) fn note_reloaded(&self, config: Config) {
        let config = Some(Arc::new(config));
        *self.reloaded.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Drops the former policies that no core uses any more. The control plane calls it once a second.
    pub(super) fn drop_former(&self) {
        // If a change is being made just now, the next call drops them.
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
    fn a_former_policy_is_dropped_here_once_no_core_uses_it() {
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
        assert!(
            watched.upgrade().is_some(),
            "a core never holds the last reference"
        );
        current_policy.drop_former();
        assert!(watched.upgrade().is_none());
    }
}
