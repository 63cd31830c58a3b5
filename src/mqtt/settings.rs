//! The settings of MQTT sessions.

use crate::broker::SubscriptionLimits;
use crate::config::channels::MqttPayload;
pub use crate::config::{ReceiveExcess, TokenIn};

/// What an operator can set for MQTT sessions, beside [`crate::session::CommonSettings`].
#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// Most bytes of a packet from a client, with its fixed header.
    pub packet_bytes_max: u32,
    /// Where clients are to go when the server stops: the Server Reference of DISCONNECT (section 3.14.2.2.5).
    pub server_reference: Option<String>,
    /// The longest keep alive, in seconds; 0: any, none included.
    pub keep_alive_s_max: u16,
    /// The longest time for which a session outlives its connection, in seconds; `u32::MAX`: for ever.
    pub session_expiry_s_max: u32,
    /// Most publications with QoS 1 and 2 that a client may have in flight.
    pub receive_maximum: u16,
    /// The treatment of a client that has more.
    pub receive_excess: ReceiveExcess,
    /// Most topic aliases of a client.
    pub topic_aliases_max: u16,
    /// Whether publications can be retained.
    pub retain_available: bool,
    /// Whether payloads that are said to be UTF-8 are checked.
    pub checks_payload_format: bool,
    /// Whether an acknowledgement waits until the acknowledged change is on disk.
    pub is_durable: bool,
    /// Where in CONNECT a token may be.
    pub token_in: TokenIn,
    /// The bounds of a client's filters.
    pub subscription_limits: SubscriptionLimits,
    /// Most calls of one client that the application may owe an answer.
    pub client_calls_max: u32,
    /// Most filters by which a client is a service.
    pub services_max: u32,
    /// Most calls of one pattern that a client has open as a service.
    pub service_window_max: u32,
    /// Most user properties of one packet, or of a will.
    pub user_properties_max: u32,
    /// Most levels of a filter.
    pub levels_max: u32,
    /// The rule for the data that SocketCluster clients get for payloads, if the channel's policy has none.
    pub payload: MqttPayload,
}

impl Default for MqttSettings {
    fn default() -> MqttSettings {
        MqttSettings {
            packet_bytes_max: 64 * 1024 * 1024,
            server_reference: None,
            keep_alive_s_max: 0,
            session_expiry_s_max: u32::MAX,
            receive_maximum: 1024,
            receive_excess: ReceiveExcess::Disconnect,
            topic_aliases_max: 10,
            retain_available: true,
            checks_payload_format: true,
            is_durable: false,
            token_in: TokenIn::Auto,
            subscription_limits: SubscriptionLimits {
                channels_max: 10_000,
                names_bytes_max: 1024 * 1024,
            },
            client_calls_max: 10_000,
            services_max: 64,
            service_window_max: 1024,
            user_properties_max: 1000,
            levels_max: 256,
            payload: MqttPayload::Auto,
        }
    }
}
