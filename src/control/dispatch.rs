//! Orders that cores must get, kept until their mailboxes have room for them.
//!
//! A core takes its orders once per turn, and its mailbox holds only a few. If a core has stopped turning,
//! its mailbox is full: its orders wait here, while the other cores get theirs at once.
//!
//! Invariants
//! 1. A core gets a policy that contains a revocation before it gets the order to carry out that revocation.
//! 2. If several policies wait for a core, the core gets only the last.
//! 3. Nothing here waits for a core: `adopt` and `revoke` return at once, and `deliver` retries the orders
//!    that found no room.
//!
//! Limits: for each core at most one policy waits, and each revocation in force (`revocations_max`) once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::ControlState;
use crate::auth::{Revocation, Revoked};
use crate::cores::operators::mailbox::{CoreHandle, Done, Order};
use crate::policy::Policy;

/// The pending orders of all cores.
#[derive(Debug)]
pub(super) struct Dispatch {
    pending: Vec<RwLock<PendingOrders>>,
    /// Notified when an order has found no room.
    no_room: Notify,
}

/// The pending orders of one core.
#[derive(Debug, Default)]
struct PendingOrders {
    policy: Option<Arc<Policy>>,
    revocations: VecDeque<(Arc<Revocation>, Done)>,
}

impl Dispatch {
    pub(super) fn new(cores: usize) -> Dispatch {
        Dispatch {
            pending: (0..cores).map(|_| RwLock::default()).collect(),
            no_room: Notify::new(),
        }
    }

    /// Puts a policy in force on all cores, on each as soon as it takes the order.
    pub(super) fn adopt(&self, cores: &[CoreHandle], policy: &Arc<Policy>) {
        self.change_each(cores, |pending| pending.policy = Some(Arc::clone(policy)));
    }

    /// Has all cores close the connections that a revocation affects. `done` creates, for each core, the
    /// handle that it reports completion with.
    pub(super) fn revoke(
        &self,
        cores: &[CoreHandle],
        revocation: &Arc<Revocation>,
        mut done: impl FnMut() -> Done,
    ) {
        self.change_each(cores, |pending| {
            pending.forget(revocation.revoked());
            pending.revocations.push_back((Arc::clone(revocation), done()));
        });
    }

    /// Cancels pending orders for a revocation that has been withdrawn.
    pub(super) fn forget(&self, what: &Revoked) {
        for pending in &self.pending {
            let mut pending = pending.write().unwrap_or_else(PoisonError::into_inner);
            pending.forget(what);
        }
    }

    /// Changes the pending orders of each core, and sends those that its mailbox has room for.
    fn change_each(&self, cores: &[CoreHandle], mut change: impl FnMut(&mut PendingOrders)) {
        let mut is_full = false;
        for (core, pending) in cores.iter().zip(&self.pending) {
            let mut pending = pending.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut pending);
            is_full |= !pending.send(core);
        }
        if is_full {
            self.no_room.notify_one();
        }
    }

    /// Sends the pending orders that there is room for. True if none are left.
    fn send(&self, cores: &[CoreHandle]) -> bool {
        let mut all = true;
        for (core, pending) in cores.iter().zip(&self.pending) {
            all &= pending.write().unwrap_or_else(PoisonError::into_inner).send(core);
        }
        all
    }
}

impl PendingOrders {
    /// Sends the pending orders that there is room for. True if none are left.
    fn send(&mut self, core: &CoreHandle) -> bool {
        if let Some(policy) = self.policy.take()
            && !takes(core, Order::Adopt(Arc::clone(&policy)))
        {
            self.policy = Some(policy);
            return false;
        }
        while let Some((revocation, done)) = self.revocations.front() {
            let order = Order::Revoke {
                revocation: Arc::clone(revocation),
                done: done.clone(),
            };
            if !takes(core, order) {
                return false;
            }
            self.revocations.pop_front();
        }
        true
    }

    fn forget(&mut self, what: &Revoked) {
        self.revocations.retain(|(pending, _)| pending.revoked() != what);
    }
}

/// True if the core has taken the order, or has ended and needs none.
fn takes(core: &CoreHandle, order: Order) -> bool {
    match core.send(order) {
        Ok(()) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Retries pending orders for as long as the runtime lives.
pub(super) async fn deliver(shared: Arc<ControlState>) {
    loop {
        shared.dispatch.no_room.notified().await;
        while !shared.dispatch.send(&shared.cores) {
            sleep(RETRY_EVERY).await;
        }
    }
}

/// How often pending orders are retried.
const RETRY_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crossbeam_channel::{TryRecvError, bounded};

    use crate::cores::operators::mailbox::{Mailbox, mailbox};
    use crate::cores::operators::questions::Answer;

    fn core() -> (CoreHandle, Mailbox, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (handle, mailbox) = mailbox(Arc::new(waker), 1);
        (handle, mailbox, poll)
    }

    fn policy() -> Arc<Policy> {
        Arc::new(Policy::open(&Config::default()).unwrap())
    }

    fn revocation(json: &str) -> Arc<Revocation> {
        Arc::new(Revocation::new(Revoked::parse(json).unwrap(), 5, 10))
    }

    /// The orders that a core has received, as one word each.
    fn orders(mailbox: &Mailbox) -> Vec<String> {
        std::iter::from_fn(|| mailbox.try_receive())
            .map(|order| match order {
                Order::Adopt(_) => "policy".to_owned(),
                Order::Revoke { revocation, .. } => revocation.revoked().value_json().to_owned(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_core_without_room_does_not_delay_others_and_gets_the_last_policy_and_each_revocation_once() {
        let (standing, turning) = (core(), core());
        let cores = [standing.0, turning.0];
        let dispatch = Dispatch::new(2);
        while cores[0].send(Order::Adopt(policy())).is_ok() {}
        let last = policy();
        for policy in [policy(), last.clone()] {
            dispatch.adopt(&cores, &policy);
        }
        for user in [r#"{"sub":"ann"}"#, r#"{"sub":"bob"}"#, r#"{"sub":"eve"}"#] {
            dispatch.revoke(&cores, &revocation(user), Done::unobserved);
        }
        dispatch.revoke(&cores, &revocation(r#"{"sub":"ann"}"#), Done::unobserved);
        let ann = r#""ann""#;
        assert_eq!(
            orders(&turning.1),
            ["policy", "policy", ann, r#""bob""#, r#""eve""#, ann]
        );
        // Bob's revocation is withdrawn before the core that stands still has taken the order.
        dispatch.forget(&Revoked::parse(r#"{"sub":"bob"}"#).unwrap());
        assert!(!dispatch.send(&cores));
        let before = std::iter::from_fn(|| standing.1.try_receive()).count();
        assert!(before > 0 && dispatch.send(&cores));
        match standing.1.try_receive() {
            Some(Order::Adopt(policy)) => assert!(Arc::ptr_eq(&policy, &last)),
            other => panic!("{other:?}"),
        }
        assert_eq!(orders(&standing.1), [r#""eve""#, ann]);
    }

    #[test]
    fn nothing_waits_for_a_core_that_has_ended() {
        let (handle, mailbox, _poll) = core();
        let cores = [handle];
        let dispatch = Dispatch::new(1);
        while cores[0].send(Order::Adopt(policy())).is_ok() {}
        let (sender, carried) = bounded(1);
        let mut done = Some(Done::new(Answer::new(move |connections: u64| {
            let _ = sender.send(connections);
        })));
        dispatch.revoke(&cores, &revocation(r#"{"sub":"ann"}"#), || done.take().unwrap());
        assert_eq!(carried.try_recv(), Err(TryRecvError::Empty));
        drop(mailbox);
        assert!(dispatch.send(&cores));
        assert_eq!(carried.try_recv(), Err(TryRecvError::Disconnected));
    }
}
