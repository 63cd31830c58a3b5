//! The bounds of sessions, and the counters of a core about them.

use crate::config::QueueFull;

/// The bounds of the sessions of one core.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most sessions, connected or not.
    pub sessions_max: usize,
    /// Most publications that wait for one session.
    pub queue_messages_max: usize,
    /// Most bytes of publications that one session keeps, waiting or in flight.
    pub queue_bytes_max: u32,
    /// Most bytes of publications that all sessions keep.
    pub queues_bytes_max: usize,
    /// Most publications with QoS 1 and 2 that one client gets without having acknowledged any of them.
    pub in_flight_max: u16,
    /// Most bytes of the wills of all sessions.
    pub wills_bytes_max: usize,
    /// The publication that gives way when a queue is full.
    pub queue_full: QueueFull,
    /// Whether publications with QoS 0 wait for clients that are not connected.
    pub queues_qos0: bool,
}

/// The counts of events since they were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publications that a queue had no room for.
    pub dropped_queue: u64,
    /// Publications for which all queues together had no room.
    pub dropped_total: u64,
    /// Publications that expired before they were sent.
    pub dropped_expired: u64,
    /// Publications that are larger than the client's Maximum Packet Size.
    pub dropped_too_large: u64,
    /// Publications whose topics the rules do not allow the client any more.
    pub dropped_forbidden: u64,
    /// Sessions that have expired because their clients did not resume them.
    pub expired: u64,
    /// Sessions that a new connection has taken over from an older one.
    pub taken_over: u64,
    /// Sessions that clients have resumed.
    pub resumed: u64,
}
