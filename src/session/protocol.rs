//! The protocols that sessions may speak, by name.

use std::fmt;

/// A protocol that clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientProtocol {
    /// SocketCluster.
    SocketCluster,
    /// MQTT, in any version, by itself or in a WebSocket.
    Mqtt,
}

impl ClientProtocol {
    /// Its name, as operators see it.
    pub const fn name(self) -> &'static str {
        match self {
            ClientProtocol::SocketCluster => "socketcluster",
            ClientProtocol::Mqtt => "mqtt",
        }
    }
}

impl fmt::Display for ClientProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
