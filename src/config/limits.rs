//! Every bound of the server in one table: name, default, the metric that shows it being hit, and the outcome.
//!
//! The metric is `ringcast_limit_hits_total{limit="NAME"}` for all of them.

use std::time::Duration;

/// The bounds that an operator may move. Field names are the keys of the `[limits]` table of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest WebSocket message, in bytes. The reference allows 100 MiB.
    pub message_bytes_max: u32,
    /// Most fragments of one message, as in the reference.
    pub fragments_max: u32,
    /// Largest HTTP request head, in bytes: what Node allows, which does not count every separator.
    pub request_head_bytes_max: u32,
    /// Time from the accept to a complete request head, as Node allows.
    pub request_timeout: Duration,
    /// Time from the upgrade to the SocketCluster handshake.
    pub handshake_timeout: Duration,
    /// Time for the peer to answer our close frame.
    pub close_timeout: Duration,
    /// Most connections of one core; 0 takes what the descriptor limit allows.
    pub connections_per_core_max: u32,
    /// Most channels one connection may be subscribed to.
    pub channels_per_connection_max: u32,
    /// Most bytes that the names of one connection's channels may take together.
    pub channel_names_bytes_max: u32,
    /// Most calls of the server's that one connection may leave unanswered.
    pub calls_per_connection_max: u32,
    /// Most bytes waiting for one connection. An empty outbox takes any one message. The reference has no bound: the
    /// default leaves room for the bursts that its users send (20,000 messages of 500 bytes in one go).
    pub outbox_bytes_max: u32,
    /// Most revocations of tokens in force at a time.
    pub revocations_max: u32,
    /// Places in the ring; rounded up to a power of two.
    pub ring_slots: u32,
    /// Most bytes of publications in the ring; each core may fill an equal share.
    pub ring_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 1024 * 1024,
            fragments_max: 16_384,
            request_head_bytes_max: 16 * 1024 + 256,
            request_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
            connections_per_core_max: 0,
            channels_per_connection_max: 10_000,
            channel_names_bytes_max: 1024 * 1024,
            calls_per_connection_max: 1000,
            outbox_bytes_max: 16 * 1024 * 1024,
            revocations_max: 100_000,
            ring_slots: 65_536,
            ring_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A bound that can be hit, as the metric labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A message over `message_bytes_max`, or a packet array whose answers together are over 64 MiB: closed with 1009.
    MessageBytes,
    /// A message in more than `fragments_max` fragments: closed with 1008.
    Fragments,
    /// A request head over `request_head_bytes_max`: answered 431.
    RequestHeadBytes,
    /// No request head within `request_timeout`: TCP connection closed.
    RequestTime,
    /// No handshake within `handshake_timeout`: closed with 4005.
    HandshakeTime,
    /// No answer to our close frame within `close_timeout`: TCP connection closed.
    CloseTime,
    /// Nothing from the client within `ping_timeout`: closed with 4001.
    PongTime,
    /// `connections_per_core_max`: the core stops accepting until there is room; the rest wait in the backlog.
    ConnectionsPerCore,
    /// The system refused a descriptor or a socket: the core stops accepting for a moment, the rest wait in the backlog.
    Descriptors,
    /// `channels_per_connection_max`: the subscribe is answered with a `BrokerError`.
    ChannelsPerConnection,
    /// `channel_names_bytes_max`: the subscribe is answered with a `BrokerError`.
    ChannelNamesBytes,
    /// `outbox_bytes_max` met by a publication: the connection is closed, or the publication skipped for it.
    OutboxBytes,
    /// `outbox_bytes_max` met by replies: the connection is not read until its outbox has drained.
    OutboxReplies,
    /// `ring_slots` or `ring_bytes_max`: the publishing connections are not read until there is room.
    Ring,
    /// `calls_per_connection_max`: the application's call is refused.
    CallsPerConnection,
    /// No answer to a call of the server's within `ack_timeout`: the application is told.
    AckTime,
    /// More answers for a core than it has taken yet: the thread that sent one keeps it.
    LateAnswers,
    /// JSON nested deeper than the scanner's limit: the packet is ignored, as unparsable text is.
    JsonDepth,
}

impl Limit {
    /// How many there are.
    pub const COUNT: usize = 18;

    /// All labels, in the order of the variants.
    pub const LABELS: [&'static str; Self::COUNT] = [
        "message_bytes",
        "fragments",
        "request_head_bytes",
        "request_time",
        "handshake_time",
        "close_time",
        "pong_time",
        "connections_per_core",
        "descriptors",
        "channels_per_connection",
        "channel_names_bytes",
        "outbox_bytes",
        "outbox_replies",
        "ring",
        "calls_per_connection",
        "ack_time",
        "late_answers",
        "json_depth",
    ];

    /// The place in tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What happens to a subscriber whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Close it with 4010, so that it comes back and starts afresh.
    #[default]
    Close,
    /// Skip publications for it, and count them, until it has caught up.
    Skip,
}
