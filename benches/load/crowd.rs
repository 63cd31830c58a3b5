//! The clients of a run with their roles, and the counts of each channel over all threads.
//!
//! Clients have numbers over all threads: first the publishers, then the subscribers, then the clients that only ping.
//! Publishers and subscribers are assigned to the channels in turn. If there are fewer publishers than channels, each
//! publisher publishes on several channels in turn.
//!
//! Each channel counts its publications and deliveries over all threads. The thread that publishes or receives writes
//! the counts. Publishers, which wait for deliveries, read them, and so does the check at the end: the counts must
//! agree.

use std::sync::atomic::{AtomicU64, Ordering};

use super::schedule::greatest_common_divisor;

/// The clients of one run, over all threads.
#[derive(Debug)]
pub(crate) struct Crowd {
    sizes: Sizes,
    channels: Box<[Channel]>,
    /// Number of deliveries that the publications so far must cause, over all channels.
    expected: AtomicU64,
    /// Number of deliveries so far.
    delivered: AtomicU64,
    /// Additional data of each publication.
    pub(crate) pad: String,
}

/// Number of clients of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) plain: u32,
    pub(crate) channels: u32,
}

impl Sizes {
    pub(crate) fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.plain
    }
}

/// The role of a client besides pinging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    /// A subscriber of the channel with this number.
    Subscriber(u32),
    Plain,
}

/// The counts of a channel. All accesses are relaxed, because no other data depends on them: a publisher uses them only
/// to decide when to send, and the check at the end reads them after messages from all threads, which order everything.
#[derive(Debug, Default)]
struct Channel {
    published: AtomicU64,
    delivered: AtomicU64,
}

impl Crowd {
    pub(crate) fn new(sizes: Sizes, pad_bytes: usize) -> Crowd {
        Crowd {
            sizes,
            channels: (0..sizes.channels).map(|_| Channel::default()).collect(),
            expected: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            pad: "x".repeat(pad_bytes),
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The role of the client with this number.
    pub(crate) fn role(&self, number: u32) -> Role {
        let Sizes {
            publishers,
            subscribers,
            channels,
            ..
        } = self.sizes;
        if number < publishers {
            Role::Publisher
        } else if number < publishers + subscribers {
            Role::Subscriber((number - publishers) % channels)
        } else {
            Role::Plain
        }
    }

    /// Number of subscribers of a channel, when all connections are open.
    pub(crate) fn subscribers(&self, channel: u32) -> u64 {
        u64::from(dealt(self.sizes.subscribers, channel, self.sizes.channels))
    }

    /// Number of publishers that may publish on a channel.
    fn publishers(&self, channel: u32) -> u64 {
        // If there are fewer publishers than channels, each channel has one publisher at a time.
        u64::from(dealt(self.sizes.publishers, channel, self.sizes.channels)).max(1)
    }

    /// The channel of a publisher's publication with this index, and its number on that channel.
    pub(crate) fn place(&self, publisher: u32, index: u64) -> (u32, u32) {
        let Sizes {
            publishers, channels, ..
        } = self.sizes;
        let rounds = u64::from(channels) / greatest_common_divisor(publishers.into(), channels.into());
        let channel = (u64::from(publisher) + index % rounds * u64::from(publishers)) % u64::from(channels);
        let number = index / rounds;
        // Both fit: a channel's number is below their count, and no run publishes four billion times on one channel.
        (
            u32::try_from(channel).unwrap_or(u32::MAX),
            u32::try_from(number).unwrap_or(u32::MAX),
        )
    }

    /// True if fewer than `in_flight` publications of each publisher are on their way to subscribers of `channel`.
    pub(crate) fn has_room(&self, channel: u32, in_flight: u32) -> bool {
        let counts = &self.channels[channel as usize];
        let delivered = counts.delivered.load(Ordering::Relaxed) / self.subscribers(channel).max(1);
        counts.published.load(Ordering::Relaxed).saturating_sub(delivered)
            < u64::from(in_flight) * self.publishers(channel)
    }

    pub(crate) fn published(&self, channel: u32) {
        self.channels[channel as usize]
            .published
            .fetch_add(1, Ordering::Relaxed);
        self.expected
            .fetch_add(self.subscribers(channel), Ordering::Relaxed);
    }

    /// Notes deliveries; whether one publication more has reached everybody, which a publisher may wait for.
    pub(crate) fn delivered(&self, channel: u32, count: u32) -> bool {
        self.delivered.fetch_add(count.into(), Ordering::Relaxed);
        let before = self.channels[channel as usize]
            .delivered
            .fetch_add(count.into(), Ordering::Relaxed);
        let subscribers = self.subscribers(channel).max(1);
        before / subscribers != (before + u64::from(count)) / subscribers
    }

    /// How many were published to a channel so far.
    pub(crate) fn published_to(&self, channel: u32) -> u64 {
        self.channels[channel as usize].published.load(Ordering::Relaxed)
    }

    /// Deliveries that have not come yet, over all channels.
    pub(crate) fn missing(&self) -> u64 {
        let expected = self.expected.load(Ordering::Relaxed);
        expected.saturating_sub(self.delivered.load(Ordering::Relaxed))
    }
}

/// Number of items for `place` if `count` items are assigned to `places` in turn.
fn dealt(count: u32, place: u32, places: u32) -> u32 {
    count / places + u32::from(place < count % places)
}
