//! What SocketCluster clients must agree with: the protocol and its times.

use std::fmt;
use std::time::Duration;

/// The SocketCluster protocol.
#[derive(Clone, Debug)]
pub struct SocketCluster {
    /// Which SocketCluster protocol is spoken.
    pub protocol: Protocol,
    /// Whether connections are pinged and must answer; clients need the same setting.
    pub pings: bool,
    /// Time between two pings to a connection; whole milliseconds.
    pub ping_interval: Duration,
    /// How long a connection may be silent; whole milliseconds, at most 2147483647.
    pub ping_timeout: Duration,
    /// How long a client may take to answer a call of the server's; whole milliseconds.
    pub ack_timeout: Duration,
}

impl Default for SocketCluster {
    fn default() -> SocketCluster {
        SocketCluster {
            protocol: Protocol::Auto,
            pings: true,
            ping_interval: Duration::from_millis(8000),
            ping_timeout: Duration::from_millis(30_000),
            ack_timeout: Duration::from_millis(10_000),
        }
    }
}

/// Which SocketCluster protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Found out for each connection.
    #[default]
    Auto,
    /// Version 1: `#1` and `#2` as ping and pong.
    V1,
    /// Version 2: empty messages as ping and pong.
    V2,
}

impl fmt::Display for Protocol {
    /// As it is set.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Protocol::Auto => "auto",
            Protocol::V1 => "1",
            Protocol::V2 => "2",
        })
    }
}
