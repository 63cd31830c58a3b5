//! MQTT: where it is spoken, and its limits.

use std::net::SocketAddr;

use super::form::{Form, Kind, PATH, address_or_off, non_empty, word, words};
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

        /// What clients may speak at `listen` and `tls_listen`: `socketcluster`, or `socketcluster,mqtt` for MQTT as
        /// well, by itself and in WebSockets.
        client_protocols: ClientProtocols = ClientProtocols::SocketCluster, "client_protocols", word();

        /// Path of the endpoint for MQTT in WebSockets, where `client_protocols` names MQTT. A client that offers the
        /// subprotocol `mqtt` or `mqttv3.1` may use `path` as well.
        path: String = "/mqtt".to_owned(), "mqtt_path", PATH;

        /// Where clients of MQTT 5 are to connect when this server stops, such as `other.example:1883`: the Server
        /// Reference of DISCONNECT. Empty for none.
        server_reference: Option<String> = None, "mqtt_server_reference", SERVER_REFERENCE;
    }
}

/// What clients may speak at the addresses for all clients.
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
