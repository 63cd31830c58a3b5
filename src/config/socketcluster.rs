//! The SocketCluster protocol: its version, and its times, which clients must agree with.

use std::fmt;
use std::time::Duration;

use super::form::{Words, milliseconds, word, words};
use super::settings::settings;

settings! {
    /// The SocketCluster protocol: its version, and its times, which clients must agree with.
    socketcluster: SocketCluster {
        /// Version of the SocketCluster protocol: `1`, `2`, or `auto` to find out for each connection.
        protocol: Protocol = Protocol::Auto, "protocol", word();

        /// Whether the server pings connections and expects answers. Clients need the same setting
        /// (`pingTimeoutDisabled`).
        pings: bool = true, "pings", word();

        /// Milliseconds between two pings to a connection.
        ping_interval: Duration = Duration::from_millis(8000), "ping_interval_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds of silence after which a connection is closed. Clients are told this time and close as well.
        ping_timeout: Duration = Duration::from_millis(30_000), "ping_timeout_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds for a client to answer a call from the server; then the call has failed.
        ack_timeout: Duration = Duration::from_millis(10_000), "ack_timeout_ms", milliseconds!(1 to 2147483647);
    }
}

/// Which version of the SocketCluster protocol is spoken.
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

words! { Protocol, TextOrNumber, "auto, 1 or 2": "auto" => Auto, "1" => V1, "2" => V2 }

impl fmt::Display for Protocol {
    /// As it is set.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.word())
    }
}
