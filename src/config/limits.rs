//! Every bound of the server in one table: name, default, the metric that shows it being hit, and the outcome.
//!
//! The metric is `ringcast_limit_hits_total{limit="NAME"}` for all of them, but for those of logins, which are no core's:
//! `ringcast_logins_total{outcome="NAME"}`.

use std::time::Duration;

/// The bounds that an operator may move. Field names are the keys of the `[limits]` table of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest WebSocket message, in bytes. The reference allows 100 MiB.
    pub message_bytes_max: u32,
    /// Largest frame, in bytes of its payload; 0 for as much as a message. The reference has no bound of its own for it.
    pub frame_bytes_max: u32,
    /// Most fragments of one message, as in the reference.
    pub fragments_max: u32,
    /// Largest HTTP request head, in bytes: what Node allows, which does not count every separator.
    pub request_head_bytes_max: u32,
    /// Time from the accept to a complete request head, as Node allows.
    pub request_timeout: Duration,
    /// Time from the upgrade to the SocketCluster handshake.
    pub handshake_timeout: Duration,
    /// Where clients that are not authenticated are not served: time from the handshake, or from the end of a token, to
    /// another. Zero leaves them all they like.
    pub authentication_timeout: Duration,
    /// Largest body of a login, in bytes.
    pub login_body_bytes_max: u32,
    /// Time for the peer to answer our close frame.
    pub close_timeout: Duration,
    /// Most connections of the whole server; 0 for no limit beside that of its cores.
    pub connections_max: u32,
    /// Most connections of one core; 0 takes what the descriptor limit allows.
    pub connections_per_core_max: u32,
    /// Most connections of one client: an IPv4 address, or an IPv6 network of 64 bits; 0 for no limit.
    pub connections_per_address_max: u32,
    /// Most sockets accepted in a second, in equal shares for each core; 0 for no limit.
    pub accepts_per_second_max: u32,
    /// Memory from which on nobody new is let in.
    pub memory_bytes_max: MemoryMax,
    /// Most channels one connection may be subscribed to.
    pub channels_per_connection_max: u32,
    /// Most bytes that the names of one connection's channels may take together.
    pub channel_names_bytes_max: u32,
    /// Most calls of the server's that one connection may leave unanswered.
    pub calls_per_connection_max: u32,
    /// Most bytes waiting for one connection. An empty outbox takes any one message. The reference has no bound: the
    /// default leaves room for the bursts that its users send (20,000 messages of 500 bytes in one go).
    pub outbox_bytes_max: u32,
    /// Most bytes that all connections together may hold: what waits for them and is not shared, publications that many
    /// wait for, messages that have come in part, input and decisions that wait. Over it those that hold most are closed.
    pub outbox_bytes_total_max: MemoryMax,
    /// Longest time for which a client may take nothing of what waits for it; zero for any time.
    pub write_timeout: Duration,
    /// Most messages of one connection in a second in the long run, control frames included and each packet of an array
    /// once more; 0 for any number.
    pub messages_per_second_max: u32,
    /// Most bytes of one connection in a second, as they are read, in the long run; 0 for any number.
    pub bytes_per_second_max: u64,
    /// How long a connection may have been silent to make up for it at once: a burst is what the rates allow in this
    /// time, and one message at least.
    pub rate_burst: Duration,
    /// For how much longer a connection may be paused for its rates than not, before it is closed; zero never closes it.
    pub rate_grace: Duration,
    /// Longest time without a message in either direction, heartbeats aside; zero for any time.
    pub idle_timeout: Duration,
    /// Most bytes of a channel's name that a client subscribes or publishes to. The reference has no bound; names of ten
    /// thousand bytes are known to be used.
    pub channel_name_bytes_max: u32,
    /// Most calls of one client's that the application may owe an answer. The reference has no bound.
    pub client_calls_max: u32,
    /// Most logins that wait for their password to be checked. When there are more, one of the network with most of them is
    /// refused: as `busy` if it is the one that has just come, as `displaced` if it waited already.
    pub logins_waiting_max: u32,
    /// Failed logins of one user from one address that cost nothing; a further one is refused as `too_soon`. Four times
    /// as many of an address, twenty times of a user.
    pub login_failures_max: u32,
    /// Longest time for which logins are refused as `too_soon`; whole milliseconds.
    pub login_backoff_max: Duration,
    /// Most addresses, most users and most of both together whose failures are remembered; then those of longest ago
    /// are forgotten, which `ringcast_login_accounts_forgotten_total` counts.
    pub login_accounts_max: u32,
    /// Most lines of refusals in the audit trail in a second, in the long run, half as many of one kind; 0 for any number.
    /// `ringcast_audit_left_out_total` counts the rest, and the log tells how many there were.
    pub audit_lines_per_second_max: u32,
    /// Most revocations of tokens in force at a time.
    pub revocations_max: u32,
    /// Places in the ring; rounded up to a power of two.
    pub ring_slots: u32,
    /// Most bytes of publications in the ring; each core may fill an equal share.
    pub ring_bytes_max: u64,
    /// Most bytes of publications that wait for a full ring and whose publishers have left, for each core.
    pub abandoned_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 1024 * 1024,
            frame_bytes_max: 0,
            fragments_max: 16_384,
            request_head_bytes_max: 16 * 1024 + 256,
            request_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            authentication_timeout: Duration::from_secs(60),
            login_body_bytes_max: 4096,
            close_timeout: Duration::from_secs(30),
            connections_max: 0,
            connections_per_core_max: 0,
            connections_per_address_max: 0,
            accepts_per_second_max: 0,
            memory_bytes_max: MemoryMax::Auto,
            channels_per_connection_max: 10_000,
            channel_names_bytes_max: 1024 * 1024,
            calls_per_connection_max: 1000,
            outbox_bytes_max: 16 * 1024 * 1024,
            outbox_bytes_total_max: MemoryMax::Auto,
            write_timeout: Duration::from_secs(60),
            messages_per_second_max: 0,
            bytes_per_second_max: 0,
            rate_burst: Duration::from_secs(1),
            rate_grace: Duration::from_secs(10),
            idle_timeout: Duration::ZERO,
            channel_name_bytes_max: 65_536,
            client_calls_max: 10_000,
            logins_waiting_max: 64,
            login_failures_max: 5,
            login_backoff_max: Duration::from_secs(900),
            login_accounts_max: 65_536,
            audit_lines_per_second_max: 10,
            revocations_max: 100_000,
            ring_slots: 65_536,
            ring_bytes_max: 64 * 1024 * 1024,
            abandoned_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// A limit on memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryMax {
    /// There is no such limit.
    Off,
    /// A part of what this process may have, which is its control group's limit or the machine's memory: for
    /// `memory_bytes_max` 90 %, for `outbox_bytes_total_max` a quarter.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
}
