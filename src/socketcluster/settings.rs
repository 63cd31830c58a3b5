//! The settings of SocketCluster alone.

use std::time::Duration;

use crate::config::Protocol;

/// What an operator can set for SocketCluster sessions, beside [`crate::session::CommonSettings`].
#[derive(Clone, Debug)]
pub struct SocketClusterSettings {
    /// The version to speak.
    pub protocol: Protocol,
    /// Time between pings; `None` turns pings and the pong timer off.
    pub ping_interval: Option<Duration>,
    /// Longest time without a pong. The handshake tells it to clients.
    pub ping_timeout: Duration,
    /// Time for a client to answer a call of this server.
    pub ack_timeout: Duration,
    /// Most calls of this server that one client may leave unanswered.
    pub calls_max: u32,
    /// Most calls of one client that the application may owe an answer.
    pub client_calls_max: u32,
    /// Most calls in flight of a service.
    pub service_window_max: u32,
}

impl Default for SocketClusterSettings {
    /// The reference's values (wire reference, section 6); for settings that the reference does not have, the
    /// defaults of the configuration.
    fn default() -> SocketClusterSettings {
        SocketClusterSettings {
            protocol: Protocol::Auto,
            ping_interval: Some(Duration::from_secs(8)),
            ping_timeout: Duration::from_secs(30),
            ack_timeout: Duration::from_secs(10),
            calls_max: 1000,
            client_calls_max: 10_000,
            service_window_max: 1024,
        }
    }
}
