//! Makes the parts of all cores together, before any core has a thread: other threads too need the pollers, the wakers,
//! the mailboxes and the sockets over which cores hand connections to each other.

use std::io;
use std::sync::Arc;

use mio::{Poll, Waker};

use super::arrivals::balance::Loads;
use super::arrivals::listeners::WAKER;
use super::operators::mailbox::{CoreHandle, mailbox};
use super::post::letters_waiting_max;
use super::{CoreId, CoreParts};
use crate::broker::{CoreBroker, post};
use crate::transport::hand_over::HandOver;

impl<A> CoreParts<A> {
    /// The parts of as many cores as there are brokers, and the handles by which other threads reach them. No
    /// core is pinned. `app` makes the application's value for each core, on the calling thread.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub(crate) fn all(
        brokers: Vec<CoreBroker>,
        connections_max: u32,
        logins_max: usize,
        mut app: impl FnMut(CoreId) -> A,
    ) -> io::Result<(Vec<CoreParts<A>>, Vec<CoreHandle>)> {
        let count = brokers.len();
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), WAKER).map(Arc::new))
            .collect::<io::Result<Arc<[_]>>>()?;
        let (handles, mailboxes): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|waker| mailbox(Arc::clone(waker), logins_max))
            .unzip();
        let mut polls = polls.into_iter();
        let mut mailboxes = mailboxes.into_iter();
        let mut hand_overs = HandOver::new(count)?.into_iter();
        let mut loads = Loads::new(count, connections_max).into_iter();
        let sleepers = brokers.iter().map(|broker| broker.reader.sleepers()).collect();
        let mut posts = post(letters_waiting_max(), sleepers).into_iter();
        let mut brokers = brokers.into_iter();
        let mut ids = (0..count).map(CoreId::new);
        // Each list has one part for each core, so all lists end together.
        let parts = std::iter::from_fn(|| {
            let id = ids.next()?;
            Some(CoreParts {
                id,
                cpu: None,
                shares_cpu: false,
                poll: polls.next()?,
                wakers: Arc::clone(&wakers),
                hand_over: hand_overs.next()?,
                loads: loads.next()?,
                broker: brokers.next()?,
                post: posts.next()?,
                mailbox: mailboxes.next()?,
                stored: None,
                app: app(id),
            })
        });
        Ok((parts.collect(), handles))
    }

    /// Pins the core to its CPU in `placement`. Several cores may have the same CPU.
    pub(crate) fn pin(&mut self, placement: &[usize]) {
        let Some(cpu) = placement.get(self.id.index()) else {
            return;
        };
        self.cpu = Some(core_affinity::CoreId { id: *cpu });
        self.shares_cpu = placement.iter().filter(|other| *other == cpu).count() > 1;
    }
}
