//! Who the clients are, and what all threads together know of the channels.
//!
//! Clients are numbered over all threads. Publishers come first, then subscribers, then those that only ping; each kind
//! is dealt out to the channels in turn. A publisher whose kind is smaller than the number of channels goes round them.
//!
//! Each channel counts what was published to it and what was delivered of it, over all threads: written by the thread
//! that does it, read by publishers, who wait for deliveries, and at the end, when the two must agree.

use std::sync::atomic::{AtomicU64, Ordering};

use super::schedule::greatest_common_divisor;

/// The clients of one run, over all threads.
#[derive(Debug)]
pub(crate) struct Crowd {
    sizes: Sizes,
    channels: Box<[Channel]>,
    /// Deliveries that publications so far make, over all channels.
    expected: AtomicU64,
    /// Those that came.
    delivered: AtomicU64,
    /// What is carried by each publication beside its numbers.
    pub(crate) pad: String,
}

/// How many of each kind.
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

/// What a client does besides pinging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    /// Of the channel with this number.
    Subscriber(u32),
    Plain,
}

/// Relaxed throughout: these are counts, and nothing else is read on their word. What a publisher concludes from them
/// is only when to send, and the end of a run reads them when the channel of the last answer has ordered everything.
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

    /// The subscribers of a channel, when all are open.
    pub(crate) fn subscribers(&self, channel: u32) -> u64 {
        u64::from(dealt(self.sizes.subscribers, channel, self.sizes.channels))
    }

    /// The publishers that may publish to a channel.
    fn publishers(&self, channel: u32) -> u64 {
        // Fewer publishers than channels go round; then one is at each channel at a time.
        u64::from(dealt(self.sizes.publishers, channel, self.sizes.channels)).max(1)
    }

    /// Where the publication with this index, among all of its publisher, goes, and its number there.
    pub(crate) fn place(&self, publisher: u32, index: u64) -> (u32, u32) {
        let Sizes {
            publishers, channels, ..
        } = self.sizes;
        let rounds = u64::from(channels) / greatest_common_divisor(publishers.into(), channels.into());
        let channel = (u64::from(publisher) + index % rounds * u64::from(publishers)) % u64::from(channels);
        let number = index / rounds;
        // Both fit: a channel is below the count of them, and no run publishes four billion times to one.
        (
            u32::try_from(channel).unwrap_or(u32::MAX),
            u32::try_from(number).unwrap_or(u32::MAX),
        )
    }

    /// Whether fewer than `in_flight` publications of each publisher are on their way to subscribers of `channel`.
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

/// How many of `count` fall to `place` when they are dealt out to `places`.
fn dealt(count: u32, place: u32, places: u32) -> u32 {
    count / places + u32::from(place < count % places)
}
