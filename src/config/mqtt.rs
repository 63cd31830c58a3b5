//! MQTT: where it is spoken, and its limits.

use std::net::SocketAddr;

use super::channels::MqttPayload;
use super::form::{Form, Kind, PATH, address_or_off, non_empty, number, word, words};
use super::settings::settings;

settings! {
    /// MQTT: where it is spoken, and its limits.
    mqtt: Mqtt {
        /// One more address for clients, where only MQTT is spoken, or `off`.
        listen: Option<SocketAddr> = None, "mqtt_listen",
            address_or_off("off, or an address with a port, such as 0.0.0.0:1883");

        /// One more address for clients, where only MQTT over TLS is spoken, with the certificates of
        /// `tls_certificate_files`, or `off`.
        tls_listen: Option<SocketAddr> = None, "mqtt_tls_listen",
            address_or_off("off, or an address with a port, such as 0.0.0.0:8883");

        /// The protocols of clients at `listen` and `tls_listen`: `socketcluster`, or `socketcluster,mqtt` for MQTT as
        /// well, by itself and in WebSockets.
        client_protocols: ClientProtocols = ClientProtocols::SocketCluster, "client_protocols", word();

        /// Path of the endpoint for MQTT in WebSockets, where `client_protocols` names MQTT. A client that offers the
        /// subprotocol `mqtt` or `mqttv3.1` may use `path` as well.
        path: String = "/mqtt".to_owned(), "mqtt_path", PATH;

        /// Where clients of MQTT 5 are to connect when this server stops, such as `other.example:1883`: the Server
        /// Reference of DISCONNECT. Empty for none.
        server_reference: Option<String> = None, "mqtt_server_reference", SERVER_REFERENCE;

        /// Most MQTT sessions, connected or not, in equal shares for each core. A client beyond it is refused (0x97).
        sessions_max: u32 = 1_000_000, "mqtt_sessions_max", number!(1 to 4294967295);

        /// Most publications that wait for one MQTT session: while its client is not connected, or has the most
        /// publications in flight that it may have.
        queue_messages_max: u32 = 1000, "mqtt_queue_messages_max", number!(1 to 4294967295);

        /// Most bytes of publications that are kept for one MQTT session, waiting or not acknowledged.
        queue_bytes_max: u32 = 1024 * 1024, "mqtt_queue_bytes_max", number!(1024 to 4294967295);

        /// Most bytes of publications that are kept for all MQTT sessions, in equal shares for each core. A publication
        /// that waits for several sessions of a core counts once.
        queues_bytes_max: u64 = 256 * 1024 * 1024, "mqtt_queues_bytes_max", number!(65536 to 1099511627776);

        /// The publication that is dropped at `mqtt_queue_messages_max`, `mqtt_queue_bytes_max` or
        /// `mqtt_queues_bytes_max`: the `newest`, or the `oldest` ones of the session, as many bytes as the newest has.
        queue_full: QueueFull = QueueFull::DropNewest, "mqtt_queue_full", word();

        /// Whether publications with QoS 0 are queued for sessions whose clients are not connected.
        queue_qos0: bool = false, "mqtt_queue_qos_zero", word();

        /// Most publications with QoS 1 and 2 in flight to one client, that is, sent and not acknowledged. A lower
        /// Receive Maximum of the client counts instead.
        in_flight_max: u16 = 1000, "mqtt_in_flight_max", number!(1 to 65000);

        /// The field of CONNECT that may hold a JSON Web Token of the user: `password`, `username`, `auto` (either of
        /// them, if it has the form of a token), or `off`.
        token_in: TokenIn = TokenIn::Auto, "mqtt_token_in", word();

        /// The longest keep alive of MQTT clients, in seconds; `0` for any. CONNACK tells a client of MQTT 5 that asks
        /// for a longer one, or for none, to use this one. The server applies it to clients of 3.1.1 as well, although
        /// CONNACK cannot tell them.
        keep_alive_max_seconds: u16 = 0, "mqtt_keep_alive_max_seconds", number!(0 to 65535);

        /// The longest time for which the session of an MQTT client outlives its connection, in seconds; `0` for any.
        session_expiry_max_seconds: u32 = 0, "mqtt_session_expiry_max_seconds", number!(0 to 4294967294);

        /// Most publications with QoS 1 and 2 in flight from an MQTT client: the Receive Maximum of CONNACK. It does
        /// not apply to clients of 3.1.1, which have no Receive Maximum.
        receive_max: u16 = 1024, "mqtt_receive_max", number!(1 to 65535);

        /// The action on an MQTT client with more in flight than `mqtt_receive_max`: `disconnect`, or `count`, which
        /// accepts and counts them.
        receive_excess: ReceiveExcess = ReceiveExcess::Disconnect, "mqtt_receive_excess", word();

        /// Most topic aliases of an MQTT client: the Topic Alias Maximum of CONNACK.
        topic_aliases_max: u16 = 10, "mqtt_topic_aliases_max", number!(0 to 65535);

        /// Most User Properties in one packet of an MQTT client, or in its will. A client that sends more is refused or
        /// disconnected (0x97).
        user_properties_max: u32 = 1000, "mqtt_user_properties_max", number!(0 to 4294967295);

        /// Most levels of a topic filter.
        levels_max: u32 = 256, "mqtt_levels_max", number!(1 to 65535);

        /// Whether the server checks payloads of MQTT 5 that are marked as UTF-8 (Payload Format Indicator 1).
        check_payload_format: bool = true, "mqtt_check_payload_format", word();

        /// The data that SocketCluster clients get for payloads of MQTT publications, unless the policy of the channel
        /// (`[[channels]]`) has its own `mqtt_payload`: `auto` (JSON as that value, other text as a string, other bytes
        /// as base64), `text` (a string, or base64), `binary` (base64), or `json`, which refuses other payloads.
        payload: MqttPayload = MqttPayload::Auto, "mqtt_payload", word();

        /// Most retained publications, in equal shares for each core. A further publication is delivered and not
        /// retained, and the former retained publication of its topic is dropped. `0`: nothing is retained, and CONNACK
        /// says so to MQTT 5 clients.
        retained_count_max: u32 = 1_000_000, "mqtt_retained_count_max", number!(0 to 4294967295);

        /// Most bytes of memory that retained publications take, in equal shares for each core. A further publication
        /// is treated as with `mqtt_retained_count_max`.
        retained_bytes_max: u64 = 256 * 1024 * 1024, "mqtt_retained_bytes_max", number!(65536 to 1099511627776);

        /// Most retained publications that the server sends a client for one filter of a SUBSCRIBE.
        retained_per_subscribe_max: u32 = 1_000_000, "mqtt_retained_per_subscribe_max", number!(1 to 4294967295);

        /// How often the server publishes the topics under `$SYS/broker/` whose values have changed, in seconds; `0`
        /// never.
        sys_interval_seconds: u32 = 10, "mqtt_sys_interval_seconds", number!(0 to 86400);
    }
}

/// The protocols that clients may speak at the addresses for all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientProtocols {
    /// SocketCluster alone.
    #[default]
    SocketCluster,
    /// SocketCluster and MQTT.
    SocketClusterAndMqtt,
}

words! {
    ClientProtocols, Text, "socketcluster, or socketcluster,mqtt":
    "socketcluster" => SocketCluster, "socketcluster,mqtt" => SocketClusterAndMqtt, "mqtt,socketcluster" => SocketClusterAndMqtt,
}

/// The publication that is dropped when the queue of a session is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// The new publication.
    #[default]
    DropNewest,
    /// The publication that has waited longest.
    DropOldest,
}

words! {
    QueueFull, Text, "newest or oldest":
    "newest" => DropNewest, "oldest" => DropOldest,
}

/// Where in CONNECT a token may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenIn {
    /// Nowhere.
    Off,
    /// The password is a token.
    Password,
    /// The user name is a token.
    UserName,
    /// The password or the user name, if it has the form of a token.
    #[default]
    Auto,
}

words! {
    TokenIn, Text, "auto, password, username or off":
    "auto" => Auto, "password" => Password, "username" => UserName, "off" => Off,
}

/// The action on a client that has more publications in flight than it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiveExcess {
    /// The connection ends.
    #[default]
    Disconnect,
    /// The excess is counted and taken.
    Count,
}

words! {
    ReceiveExcess, Text, "disconnect or count":
    "disconnect" => Disconnect, "count" => Count,
}

/// A string of MQTT, or none.
const SERVER_REFERENCE: Form<Option<String>> = Form {
    kind: Kind::Text,
    expects: "a name of at most 1024 bytes, such as other.example:1883",
    parse: |text| match text {
        "" => Some(None),
        name if name.len() <= 1024 => Some(Some(non_empty(name)?)),
        _ => None,
    },
    show: |name| name.clone().unwrap_or_default(),
};

impl Mqtt {
    /// Whether MQTT is spoken anywhere.
    pub fn is_used(&self) -> bool {
        self.listen.is_some() || self.tls_listen.is_some() || self.is_beside()
    }

    /// Whether the addresses for all clients take MQTT.
    pub(crate) fn is_beside(&self) -> bool {
        self.client_protocols == ClientProtocols::SocketClusterAndMqtt
    }
}
