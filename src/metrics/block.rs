//! The counters of one core.
//!
//! Written by that core alone with relaxed loads and stores (0.4 ns, no read-modify-write), read by the control plane
//! when it is scraped. The block is aligned so that two cores' blocks never share a cache line.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::audit::Event;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Limit};

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning core calls this: two writers would lose counts.
    pub fn add(&self, count: u64) {
        // Relaxed: a scrape needs no order between counters.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// Replaces the value, for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, for a scrape.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by the index of an enum.
#[derive(Debug)]
pub struct Counters<const COUNT: usize>([Counter; COUNT]);

impl<const COUNT: usize> Default for Counters<COUNT> {
    fn default() -> Counters<COUNT> {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const COUNT: usize> Deref for Counters<COUNT> {
    type Target = [Counter; COUNT];

    fn deref(&self) -> &[Counter; COUNT] {
        &self.0
    }
}

/// Times in buckets whose upper bounds are powers of two, from 1 µs to 8.4 s and above.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BUCKETS],
    sum_ns: Counter,
}

impl Histogram {
    /// How many buckets; the last takes all that is longer.
    pub const BUCKETS: usize = 25;

    /// Counts one time.
    pub fn record_ns(&self, ns: u64) {
        self.record_many_ns(ns, 1);
    }

    /// Counts `count` times of equal length.
    pub fn record_many_ns(&self, ns: u64, count: u64) {
        self.buckets[Self::bucket(ns)].add(count);
        self.sum_ns.add(ns.saturating_mul(count));
    }

    /// Upper bound of a bucket in nanoseconds; `None` for the last, which has none.
    pub const fn upper_bound_ns(bucket: usize) -> Option<u64> {
        if bucket + 1 < Self::BUCKETS {
            Some(1000 << bucket)
        } else {
            None
        }
    }

    /// The counts of all buckets, not cumulated, for a scrape.
    pub fn counts(&self) -> [u64; Self::BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].value())
    }

    /// The sum of all recorded times in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.value()
    }

    fn bucket(ns: u64) -> usize {
        // The first bucket whose bound 1000 << b is not below ns.
        let thousands = ns.div_ceil(1000).max(1);
        (thousands.next_power_of_two().trailing_zeros() as usize).min(Self::BUCKETS - 1)
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Well, with a signature.
    Full,
    /// Well, with a ticket.
    Resumed,
    /// No version, cipher suite, group or signature in common.
    Incompatible,
    /// The client speaks other protocols than HTTP/1.1 only.
    Protocol,
    /// The client has no certificate, or not a good one.
    Certificate,
    /// The client did not like what it saw: our certificate, as a rule.
    Refused,
    /// What came was no TLS, or broke its rules.
    Malformed,
    /// The client went away, or took too long.
    Abandoned,
}

impl Handshake {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All labels, in the order of the variants.
    pub const LABELS: [&'static str; Self::COUNT] = [
        "full",
        "resumed",
        "incompatible",
        "protocol",
        "certificate",
        "refused",
        "malformed",
        "abandoned",
    ];

    /// The place in tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What connections hold in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldKind {
    /// What waits to be sent, in buffers of single connections.
    Outboxes,
    /// Long publications, each once for all connections that it waits for.
    Shared,
    /// The newest publications for connections that have not kept up.
    Conflated,
    /// Messages that have come in part.
    Assemblies,
    /// Input that was read and not consumed.
    Leftovers,
    /// The rest of long arrays of packets, and decisions that wait for the ring or for a delivery.
    Parked,
    /// Records of TLS that have come in part, or that sockets have not taken.
    Tls,
    /// Publications that wait for the ring and whose publishers have left.
    Abandoned,
}

impl HeldKind {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All labels, in the order of the variants.
    pub const LABELS: [&'static str; Self::COUNT] = [
        "outboxes",
        "shared",
        "conflated",
        "assemblies",
        "leftovers",
        "parked",
        "tls",
        "abandoned",
    ];

    /// The place in tables of gauges.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// All counters of one core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreMetrics {
    /// Connections open now (gauge).
    pub connections: Counter,
    /// Connections that have completed the SocketCluster handshake and are open now (gauge).
    pub sessions: Counter,
    /// Connections that a drain has still to close (gauge).
    pub drain_left: Counter,
    /// Sockets accepted from the listener.
    pub accepts: Counter,
    /// Accepted sockets handed to a lighter core before their first byte was read.
    pub hand_overs_sent: Counter,
    /// Sockets taken from another core.
    pub hand_overs_received: Counter,
    /// Reads of connections that come or go that were put off to a later turn.
    pub transitions_deferred: Counter,
    /// Reads put off to a later turn since the tokens of others had used up the checks of this one.
    pub token_checks_deferred: Counter,
    /// Connections refused for want of room, or since they came too fast.
    pub connections_refused: Counter,
    /// Ends of TLS handshakes, by [`Handshake::index`].
    pub tls_handshakes: [Counter; Handshake::COUNT],
    /// Requests answered with plain HTTP.
    pub http_answers: Counter,
    /// Whole WebSocket messages received.
    pub messages_received: Counter,
    /// Bytes read from sockets.
    pub bytes_received: Counter,
    /// WebSocket messages queued for sending, publications included.
    pub messages_sent: Counter,
    /// Upgrades that agreed on compression.
    pub compression_agreed: Counter,
    /// Compressed messages received.
    pub messages_inflated: Counter,
    /// Bytes of their payloads as they were sent.
    pub inflate_bytes_before: Counter,
    /// Bytes of their payloads as they were meant.
    pub inflate_bytes_after: Counter,
    /// Messages compressed; a publication once for all clients of this core that share a window.
    pub messages_deflated: Counter,
    /// Bytes of their payloads.
    pub deflate_bytes_before: Counter,
    /// Bytes of their payloads when compressed.
    pub deflate_bytes_after: Counter,
    /// Bytes written to sockets; under TLS those of its records.
    pub bytes_sent: Counter,
    /// Publications this core put into the ring.
    pub publications: Counter,
    /// Publications queued for a subscriber of this core.
    pub deliveries: Counter,
    /// Turns that ended with a publication under way: it goes on in the next, so that other work is not held up.
    pub deliveries_paused: Counter,
    /// Publications not delivered to a subscriber whose outbox was full.
    pub publications_skipped: Counter,
    /// Publications that a newer one of their channel replaced while they waited for a subscriber whose outbox was full.
    pub publications_conflated: Counter,
    /// Subscriptions held now (gauge).
    pub subscriptions: Counter,
    /// Publications in the ring that this core has not yet taken (gauge).
    pub ring_depth: Counter,
    /// Bytes of this core's publications that some core has yet to take (gauge).
    pub ring_bytes: Counter,
    /// Bytes of buffers kept for the next publications of this core (gauge).
    pub ring_kept_bytes: Counter,
    /// Bytes of the tables of connections, channels and subscriptions (gauge).
    pub table_bytes: Counter,
    /// Publishes that found the ring full, or others waiting for room in it, and waited.
    pub ring_stalls: Counter,
    /// Sleeping cores this core has woken.
    pub wakes: Counter,
    /// Bytes waiting in outboxes (gauge).
    pub outbox_bytes: Counter,
    /// Bytes that connections hold, by [`HeldKind::index`] (gauges).
    pub held_bytes: Counters<{ HeldKind::COUNT }>,
    /// Turns of the event loop.
    pub turns: Counter,
    /// Turns that began without a sleep, since busy polling had found something.
    pub busy_poll_hits: Counter,
    /// How long turns took, without the waiting.
    pub turn_seconds: Histogram,
    /// From the publish, of the first publication where several were published together, to the end of the turn that
    /// wrote it or found its socket full, per delivery.
    pub publish_to_write_seconds: Histogram,
    /// Ends of connections, by [`CloseReason::index`].
    pub closes: [Counter; CloseReason::COUNT],
    /// What rules have refused, by [`Action::index`].
    pub rules_denied: [Counter; Action::COUNT],
    /// What was done and the shadow rules would refuse, by [`Action::index`].
    pub rules_would_deny: [Counter; Action::COUNT],
    /// What was refused and the shadow rules would allow, by [`Action::index`].
    pub rules_would_allow: [Counter; Action::COUNT],
    /// Subscriptions ended since the rules no longer allow them.
    pub rules_kick_outs: Counter,
    /// Lines left out of the audit trail, by [`Event::index`].
    pub audit_left_out: [Counter; Event::COUNT],
    /// Limits hit, by [`Limit::index`].
    pub limit_hits: Counters<{ Limit::COUNT }>,
}

impl CoreMetrics {
    /// Counts a limit that was hit.
    pub fn limit_hit(&self, limit: Limit) {
        self.limit_hits[limit.index()].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_is_not_shorter() {
        for (ns, bucket) in [
            (0, 0),
            (1000, 0),
            (1001, 1),
            (2000, 1),
            (2001, 2),
            (u64::MAX, Histogram::BUCKETS - 1),
        ] {
            assert_eq!(Histogram::bucket(ns), bucket, "{ns} ns");
            assert!(Histogram::upper_bound_ns(bucket).is_none_or(|bound| ns <= bound));
        }
    }

    #[test]
    fn blocks_of_two_cores_share_no_cache_line() {
        assert_eq!(align_of::<CoreMetrics>() % 128, 0);
    }
}
