//! The thread of the bridge that reads the ring: it copies out what other nodes want, and takes in what cores tell.
//!
//! It does no I/O and waits for nobody but, for a moment, for the other thread of the bridge: so it never holds the ring for
//! longer than a core does. It sleeps as a core does, and is woken for publications that other nodes want; for others it is
//! woken when half of the ring is in use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::broker::{Origin, Reader};
use crate::clock::Uptime;
use crate::cores::InterestChange;

use super::Shared;
use super::arrivals::Rules;
use super::node::Node;

/// What the thread works with.
pub(super) struct RingThread {
    pub(super) reader: Reader,
    pub(super) changes: Receiver<Vec<InterestChange>>,
    pub(super) rules: Rules,
    pub(super) shared: Arc<Shared>,
}

impl RingThread {
    /// Runs until the bridge ends.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.waker.is_for(thread::current());
        let mut linger_due = Uptime::default();
        while !shared.is_ending.load(Ordering::Acquire) {
            let now = shared.clock.uptime();
            let mut node = shared.node();
            let has_changes = self.take_changes(&mut node, now);
            if now >= linger_due {
                linger_due = node.end_lingering(now).min(now + LINGER_LOOK);
            }
            let passed = self.read(&mut node);
            let has_queued = node.has_queued();
            drop(node);
            self.reader.release();
            if has_queued {
                shared.queued.notify_one();
            }
            if !has_changes && passed == 0 {
                self.sleep();
            }
        }
    }

    fn take_changes(&self, node: &mut Node, now: Uptime) -> bool {
        let mut has_some = false;
        for changes in self.changes.try_iter().take(LISTS_PER_LOOK_MAX) {
            node.change_own(changes, now);
            has_some = true;
        }
        has_some
    }

    /// Passes some publications, and queues those that other nodes want. Returns how many it has passed.
    fn read(&mut self, node: &mut Node) -> usize {
        let mut passed = 0;
        while passed < PASSED_PER_LOOK_MAX
            && let Some(delivery) = self.reader.next()
        {
            passed += 1;
            let publication = delivery.publication;
            let to = node.wanted_by(delivery.hash, || publication.channel());
            if to.is_empty()
                || publication.is_relayed()
                || !self.rules.travels(publication.channel(), publication.marks())
            {
                continue;
            }
            let body = match publication.origin() {
                Origin::SocketCluster => publication.payload(),
                Origin::Mqtt => publication.frame(),
            };
            node.publish(to, publication.origin(), publication.channel(), body);
        }
        passed
    }

    fn sleep(&mut self) {
        if !self.reader.prepare_sleep() {
            // The next place is claimed, and about to be filled.
            thread::yield_now();
            return;
        }
        // What cores tell comes before they wake this thread, and a wake that has come is not lost.
        if self.changes.is_empty() {
            thread::park_timeout(SLEEP_MAX);
        }
        self.reader.mark_awake();
    }
}

/// Publications that are passed before the other thread gets its turn.
const PASSED_PER_LOOK_MAX: usize = 256;
/// Lists of changes that are taken before the ring is read again.
const LISTS_PER_LOOK_MAX: usize = 16;
/// How long the thread sleeps at most.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How often it looks for subjects that nobody wants any more.
const LINGER_LOOK: Duration = Duration::from_millis(50);
