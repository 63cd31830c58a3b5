//! Orders that a core must get, and that wait until it has room for them.
//!
//! A core takes its orders once per turn, and its mailbox holds a few. A core that stands still has no room for more: what
//! it is to get waits here, and the other cores get theirs at once.
//!
//! Invariants
//! 1. A core is given the policy that know a revocation before the order to carry that revocation out.
//! 2. Of several policy that wait for a core, it gets the last alone.
//! 3. Nobody waits here: `adopt` and `revoke` return at once, and `deliver` goes on with what found no room.
//!
//! Limits: for each core there wait one value of policy, and of the revocations in force (`revocations_max`) each once.

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

/// What waits for each core.
#[derive(Debug)]
pub(super) struct Dispatch {
    waiting: Vec<RwLock<Waiting>>,
    /// Told when something has found no room.
    stuck: Notify,
}

/// What waits for one core.
#[derive(Debug, Default)]
struct Waiting {
    policy: Option<Arc<Policy>>,
    revocations: VecDeque<(Arc<Revocation>, Done)>,
}

impl Dispatch {
    pub(super) fn new(cores: usize) -> Dispatch {
        Dispatch {
            waiting: (0..cores).map(|_| RwLock::default()).collect(),
            stuck: Notify::new(),
        }
    }

    /// Has all cores decide by these, each as soon as it takes them.
    pub(super) fn adopt(&self, cores: &[CoreHandle], policy: &Arc<Policy>) {
        self.each(cores, |waiting| waiting.policy = Some(Arc::clone(policy)));
    }

    /// Has all cores end the connections that this concerns; `done` makes for each core what it reports by.
    pub(super) fn revoke(
        &self,
        cores: &[CoreHandle],
        revocation: &Arc<Revocation>,
        mut done: impl FnMut() -> Done,
    ) {
        self.each(cores, |waiting| {
            waiting.forget(revocation.what());
            waiting.revocations.push_back((Arc::clone(revocation), done()));
        });
    }

    /// Does not carry out a revocation that has been taken back, where it still waits.
    pub(super) fn forget(&self, what: &Revoked) {
        for waiting in &self.waiting {
            let mut waiting = waiting.write().unwrap_or_else(PoisonError::into_inner);
            waiting.forget(what);
        }
    }

    /// Changes what waits for each core, and sends what there is room for.
    fn each(&self, cores: &[CoreHandle], mut change: impl FnMut(&mut Waiting)) {
        let mut is_stuck = false;
        for (core, waiting) in cores.iter().zip(&self.waiting) {
            let mut waiting = waiting.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut waiting);
            is_stuck |= !waiting.send(core);
        }
        if is_stuck {
            self.stuck.notify_one();
        }
    }

    /// Sends what there is room for; whether nothing is left.
    fn send(&self, cores: &[CoreHandle]) -> bool {
        let mut all = true;
        for (core, waiting) in cores.iter().zip(&self.waiting) {
            all &= waiting.write().unwrap_or_else(PoisonError::into_inner).send(core);
        }
        all
    }
}

impl Waiting {
    /// Sends what there is room for; whether nothing is left.
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
        self.revocations.retain(|(waiting, _)| waiting.what() != what);
    }
}

/// Whether a core has taken an order, or has ended and needs none.
fn takes(core: &CoreHandle, order: Order) -> bool {
    match core.send(order) {
        Ok(()) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Goes on with what found no room, for as long as the runtime lives.
pub(super) async fn deliver(shared: Arc<ControlState>) {
    loop {
        shared.dispatch.stuck.notified().await;
        while !shared.dispatch.send(&shared.cores) {
            sleep(TRY_EVERY).await;
        }
    }
}

/// How often it is tried whether a core has room again.
const TRY_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::cores::operators::mailbox::{Mailbox, Progress, mailbox};

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

    /// What a core has got, a word for each order.
    fn orders(mailbox: &Mailbox) -> Vec<String> {
        std::iter::from_fn(|| mailbox.try_receive())
            .map(|order| match order {
                Order::Adopt(_) => "policy".to_owned(),
                Order::Revoke { revocation, .. } => revocation.what().value_json().to_owned(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_core_without_room_holds_no_other_back_and_gets_the_last_doors_and_each_revocation_once() {
        let (standing, turning) = (core(), core());
        let cores = [standing.0, turning.0];
        let dispatch = Dispatch::new(2);
        while cores[0].send(Order::Adopt(policy())).is_ok() {}
        let last = policy();
        for policy in [policy(), last.clone()] {
            dispatch.adopt(&cores, &policy);
        }
        for user in [r#"{"sub":"ann"}"#, r#"{"sub":"bob"}"#, r#"{"sub":"eve"}"#] {
            dispatch.revoke(&cores, &revocation(user), || Done::new(1).0);
        }
        dispatch.revoke(&cores, &revocation(r#"{"sub":"ann"}"#), || Done::new(1).0);
        let ann = r#""ann""#;
        assert_eq!(
            orders(&turning.1),
            ["policy", "policy", ann, r#""bob""#, r#""eve""#, ann]
        );
        // It was taken back before the core that stands still could end anybody for it.
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
        let (done, carried) = Done::new(1);
        let mut done = Some(done);
        dispatch.revoke(&cores, &revocation(r#"{"sub":"ann"}"#), || done.take().unwrap());
        assert_eq!(carried.next(), Progress::Pending);
        drop(mailbox);
        assert!(dispatch.send(&cores));
        assert_eq!(carried.next(), Progress::Finished);
    }
}
