//! The settings of MQTT sessions.

/// What an operator can set for MQTT sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most bytes of a packet from a client, with its fixed header.
    pub packet_bytes_max: u32,
    /// Where clients are to go when the server stops: the Server Reference of DISCONNECT (section 3.14.2.2.5).
    pub server_reference: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            packet_bytes_max: 64 * 1024 * 1024,
            server_reference: None,
        }
    }
}
