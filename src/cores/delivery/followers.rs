//! Subscribers of the program that embeds the server: copies of publications, in bounded queues.
//!
//! A follower is on one core, which copies each publication of its channel out of the ring as it reads it, so
//! that no follower ever delays the ring. If the queue is full, the publication is left out. Each publication
//! of the channel has a number, counted from 0. The queue holds numbers, and `told.count` is the number of
//! the next publication. So the receiving side knows exactly how many publications were left out, and where.
//! A core without followers pays one comparison for each publication.
//!
//! Invariants
//! 1. `told.count` is stored after the previous publication was put into the queue or left out. So a receiver
//!    that reads the count and then finds the queue empty knows that all earlier publications were left out.
//! 2. The core does not wait: neither for room in the queue nor for the thread that wakes the receiver.
//!
//! Limits: the capacity and the bytes of the queue, chosen by the program.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Sender, TrySendError};

use crate::broker::{ChannelHash, Numbering, Position, Publication, Sequence};

use super::webhook_publications::WebhookPublications;

/// The core's end of a subscriber's queue.
#[derive(Debug)]
pub(crate) struct Follower {
    id: u64,
    channel: Box<[u8]>,
    /// `None` once the follower ends.
    queue: Option<Sender<Copied>>,
    told: Arc<FollowerState>,
    notifier: Arc<dyn FollowerNotifier>,
    /// The number of the next publication.
    count: u64,
    /// Publications before this place are older than the subscription.
    begin: Option<Sequence>,
}

/// A copy of a publication.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Its number among the publications of the channel since the subscription began.
    pub(crate) number: u64,
    /// Its data: JSON, or nothing.
    pub(crate) data: Box<[u8]>,
    /// Its position, if the policy of the channel has positions.
    pub(crate) position: Option<Position>,
}

/// The state that the core and the receiver share.
#[derive(Debug, Default)]
pub(crate) struct FollowerState {
    /// How many publications there were: written by the core with release, read by the receiver with acquire
    /// (invariant 1).
    pub(crate) count: AtomicU64,
    /// The bytes in the queue: raised by the core, lowered by the receiver. Relaxed: it guards nothing.
    pub(crate) queued_bytes: AtomicUsize,
    /// Most bytes in the queue.
    pub(crate) bytes_max: usize,
    /// Whether anything has changed since the receiver was last woken. Set by the core, cleared by the thread
    /// that wakes, both with acquire and release: the woken receiver sees everything that the core did
    /// before.
    pub(crate) has_unread: AtomicBool,
}

impl FollowerState {
    /// For an empty queue that may hold this many bytes.
    pub(crate) fn new(bytes_max: usize) -> FollowerState {
        FollowerState {
            bytes_max,
            ..FollowerState::default()
        }
    }
}

/// Wakes the receivers of changed followers.
pub(crate) trait FollowerNotifier: Send + Sync + std::fmt::Debug {
    /// Some follower has changed. Returns at once.
    fn tell(&self);
}

impl Follower {
    /// A follower of a channel whose publications go into this queue. No two followers have the same id.
    pub(crate) fn new(
        id: u64,
        channel: &str,
        queue: Sender<Copied>,
        told: Arc<FollowerState>,
        notifier: Arc<dyn FollowerNotifier>,
    ) -> Follower {
        Follower {
            id,
            channel: channel.as_bytes().into(),
            queue: Some(queue),
            told,
            notifier,
            count: 0,
            begin: None,
        }
    }

    /// Copies a publication, unless it does not fit.
    fn copy(&mut self, publication: &Publication<'_>, numbering: Numbering) -> Outcome {
        if self.begin.is_some_and(|begin| publication.sequence() < begin) {
            return Outcome::Copied;
        }
        let number = self.count;
        self.count += 1;
        let has_position = publication.marks().is_any();
        let copied = || Copied {
            number,
            data: publication.payload().into(),
            position: has_position.then(|| numbering.position(publication.sequence())),
        };
        let outcome = self.put(publication.payload().len(), copied);
        self.told.count.store(self.count, Ordering::Release);
        self.tell();
        outcome
    }

    fn put(&self, bytes: usize, copied: impl FnOnce() -> Copied) -> Outcome {
        let Some(queue) = self.queue.as_ref().filter(|_| self.has_room(bytes)) else {
            return Outcome::LeftOut;
        };
        // Counted before it is in the queue, since the receiver may take it out at once.
        self.told.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let Err(refused) = queue.try_send(copied()) else {
            return Outcome::Copied;
        };
        self.told.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        match refused {
            TrySendError::Full(_) => Outcome::LeftOut,
            TrySendError::Disconnected(_) => Outcome::Gone,
        }
    }

    /// An empty queue takes any single publication.
    fn has_room(&self, bytes: usize) -> bool {
        let queued = self.told.queued_bytes.load(Ordering::Relaxed);
        queued == 0 || queued.saturating_add(bytes) <= self.told.bytes_max
    }

    fn tell(&self) {
        if !self.told.has_unread.swap(true, Ordering::AcqRel) {
            self.notifier.tell();
        }
    }
}

impl Drop for Follower {
    /// Tells the receiver that no more publications come.
    fn drop(&mut self) {
        // The queue is closed first, so that the receiver finds it closed when it is woken.
        self.queue = None;
        self.tell();
    }
}

/// The result of copying a publication to a follower.
enum Outcome {
    Copied,
    LeftOut,
    /// There is no receiver any more.
    Gone,
}

/// The followers of one core.
#[derive(Debug, Default)]
pub(super) struct Followers {
    by_channel: HashMap<ChannelHash, Vec<Follower>>,
    /// The webhooks that get publications: they are copied in the same place.
    pub(super) webhooks: Option<WebhookPublications>,
}

impl Followers {
    /// Adds a follower. Copies begin at `begin`.
    pub(super) fn add(&mut self, hash: ChannelHash, mut follower: Follower, begin: Sequence) {
        follower.begin = Some(begin);
        self.by_channel.entry(hash).or_default().push(follower);
    }

    /// Removes a follower, if there is one of this id, and returns the hash of its channel.
    pub(super) fn remove(&mut self, id: u64) -> Option<ChannelHash> {
        let (&hash, list) = self
            .by_channel
            .iter_mut()
            .find(|(_, list)| list.iter().any(|follower| follower.id == id))?;
        list.retain(|follower| follower.id != id);
        if list.is_empty() {
            self.by_channel.remove(&hash);
        }
        Some(hash)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_channel.is_empty() && self.webhooks.is_none()
    }

    /// Whether a follower or a webhook may want a publication on this channel.
    pub(super) fn concerns(&mut self, hash: ChannelHash, channel: &[u8]) -> bool {
        self.by_channel.contains_key(&hash) || self.webhooks.as_mut().is_some_and(|told| told.wants(channel))
    }

    /// Tells webhooks of a publication, if a webhook names its channel.
    pub(super) fn tell_webhooks(
        &mut self,
        publication: &Publication<'_>,
        numbering: Numbering,
        unix_ms: u64,
    ) {
        if let Some(told) = &mut self.webhooks
            && told.wants(publication.channel())
        {
            told.tell(publication, numbering, unix_ms);
        }
    }

    /// Copies a publication to the followers of its channel. Returns how many followers it was left out for,
    /// and the ids of followers whose receivers are gone.
    pub(super) fn copy(
        &mut self,
        hash: ChannelHash,
        publication: &Publication<'_>,
        numbering: Numbering,
    ) -> (u64, Vec<u64>) {
        let (mut left_out, mut gone) = (0, Vec::new());
        for follower in self.by_channel.get_mut(&hash).into_iter().flatten() {
            if *follower.channel != *publication.channel() {
                continue;
            }
            match follower.copy(publication, numbering) {
                Outcome::Copied => {}
                Outcome::LeftOut => left_out += 1,
                Outcome::Gone => gone.push(follower.id),
            }
        }
        (left_out, gone)
    }
}

impl Follower {
    /// The channel that it follows.
    pub(super) fn channel(&self) -> &[u8] {
        &self.channel
    }
}
