//! The counters of a cluster (`cluster_url`). The threads of the bridge write them, one at a time.

use super::counter::{Counter, Counters};
use crate::labels::labels;

labels! {
    /// Why a publication did not reach other nodes, or was not taken from one, as far as this node knows.
    pub enum ClusterLoss {
        /// `cluster_queue_bytes_max`: it was not sent.
        QueueFull = "queue_full",
        /// NATS takes no message of that size (`max_payload`): it was not sent.
        TooLarge = "too_large",
        /// It came from another node, and the ring had no room within a second.
        NoRoom = "no_room",
        /// It came from another node, and is larger than this node allows, or its channel remembers on this node.
        Refused = "refused",
        /// It came from another node, and is none.
        Malformed = "malformed",
    }
}

/// The counters of a node.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// 1 while there is a connection to NATS.
    pub connected: Counter,
    /// Connections to NATS that were made, the first included.
    pub connects: Counter,
    /// Other nodes that are alive.
    pub nodes: Counter,
    /// Nodes that had no place.
    pub nodes_refused: Counter,
    /// Nodes that share their id with another one that is alive.
    pub duplicate_ids: Counter,
    /// Publications that were sent, counted once for each node.
    pub sent: Counter,
    /// Publications of other nodes that were published here.
    pub received: Counter,
    /// Publications that were lost, by [`ClusterLoss::index`].
    pub lost: Counters<{ ClusterLoss::COUNT }>,
    /// Publications for this node that did not arrive.
    pub missed: Counter,
    /// Places where some did not arrive.
    pub gaps: Counter,
    /// Frames that came a second time.
    pub repeated: Counter,
    /// Bytes that wait to be sent.
    pub queue_bytes: Counter,
    /// Channels and filters that this node wants of others.
    pub wanted: Counter,
    /// Channels and filters that other nodes want of this one, counted once for each node.
    pub wanted_by_others: Counter,
    /// The longest time of the last round trips to other nodes, in nanoseconds.
    pub round_trip_ns: Counter,
    /// Times that the client of NATS dropped messages since this node took them too slowly.
    pub slow: Counter,
}
