//! The beginning of connections that speak MQTT without a WebSocket.
//!
//! The first byte of a connection decides: an MQTT client begins with CONNECT, whose first byte begins
//! neither an HTTP request nor TLS. So one port can serve all of them. From then on the connection has a
//! session, which waits for the rest of CONNECT. On a port for MQTT alone, the session also gets a CONNECT
//! with reserved flags: it answers clients of MQTT 5 with a code, and clients of MQTT 3.1 may set the flags.
//!
//! Limits: `handshake_timeout` counts from the first byte of CONNECT to its last (in the session).

use crate::app::App;
use crate::auth::Claims;
use crate::client::ambient::Trust;
use crate::decision::{CloseReason, Limit};
use crate::mqtt::packet::first_byte::CONNECT;
use crate::protocols::{Framing, Wire};
use crate::transport::port::MqttOn;

use crate::cores::arrivals::tls;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Open, Phase};

/// The protocol of the first bytes behind TLS, if there is TLS.
pub(in crate::cores) enum DetectedProtocol {
    /// HTTP, or there are no bytes yet.
    Http,
    /// MQTT: the connection is open now.
    Mqtt,
    /// Neither, on a port for MQTT alone; or MQTT, but the client may not connect. The connection is closed.
    Neither,
}

impl<A: App> Core<A> {
    /// Finds out whether a connection begins with MQTT, and opens it if it does.
    pub(in crate::cores) fn detect_mqtt(&mut self, id: ConnectionId, input: &[u8]) -> DetectedProtocol {
        let Some(Phase::Request { port, .. }) = self.connections.get(id).map(|connection| &connection.phase)
        else {
            return DetectedProtocol::Http;
        };
        let Some(&first) = input.first() else {
            return DetectedProtocol::Http;
        };
        match (self.acceptor.mqtt_on(*port), first == CONNECT) {
            (MqttOn::No, _) | (MqttOn::Beside, false) => return DetectedProtocol::Http,
            (MqttOn::Beside | MqttOn::Only, true) | (MqttOn::Only, false) => {}
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.framing = Framing::Mqtt;
        }
        if first >> 4 == CONNECT >> 4 && first != TLS_HANDSHAKE {
            return self.begin_mqtt(id);
        }
        self.close(id, CloseReason::NotMqtt);
        DetectedProtocol::Neither
    }

    /// Whether a connection that has sent nothing yet came to a port for MQTT alone.
    pub(in crate::cores) fn speaks_only_mqtt(&self, id: ConnectionId) -> bool {
        let phase = self.connections.get(id).map(|connection| &connection.phase);
        matches!(phase, Some(Phase::Request { port, .. }) if self.acceptor.mqtt_on(*port) == MqttOn::Only)
    }

    /// Closes a connection whose client may not connect now. There is no answer: the core does not know yet
    /// which version of CONNACK the client understands.
    pub(in crate::cores) fn refuse_without_answer(&mut self, id: ConnectionId, limit: Option<Limit>) {
        if let Some(limit) = limit {
            self.metrics.limit_hit(limit);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.framing = Framing::Mqtt;
        }
        self.close(id, CloseReason::MqttRefused);
    }

    /// Whether the request of a connection may negotiate MQTT.
    pub(in crate::cores) fn may_speak_mqtt(&self, id: ConnectionId) -> bool {
        let phase = self.connections.get(id).map(|connection| &connection.phase);
        matches!(phase, Some(Phase::Request { port, .. }) if self.acceptor.mqtt_on(*port) != MqttOn::No)
    }

    fn begin_mqtt(&mut self, id: ConnectionId) -> DetectedProtocol {
        let full = if self.acceptor.memory_is_full() {
            Some(Limit::Memory)
        } else {
            let admitted = self.admit_announced(id);
            admitted.is_err().then_some(Limit::ConnectionsPerAddress)
        };
        if full.is_some() {
            self.refuse_without_answer(id, full);
            return DetectedProtocol::Neither;
        }
        let claims = self.claims_of_certificate(id);
        let session = self.resources.new_mqtt_session(self.time.now(), claims);
        let peer = self
            .connections
            .get(id)
            .and_then(|connection| connection.client.socket_address());
        self.resources.begin_context(id, peer);
        let Some(connection) = self.connections.get_mut(id) else {
            return DetectedProtocol::Neither;
        };
        connection.phase = Phase::Open(Open {
            wire: Wire::default(),
            session,
        });
        connection.meter = self.measures.new_meter(self.time.now().uptime);
        self.arm(id);
        DetectedProtocol::Mqtt
    }

    /// The claims of the client's certificate, if it has presented one that counts. Browsers do not speak
    /// MQTT without a WebSocket, so no page can act for its user here.
    fn claims_of_certificate(&mut self, id: ConnectionId) -> Option<Box<Claims>> {
        let certificate = tls::ambient_certificate(&self.connections.get(id)?.stream);
        let claims = certificate?.value_for(Trust::Own)?;
        self.unless_revoked(id, claims)
    }
}

/// The first byte of a client that speaks TLS to a port without TLS.
const TLS_HANDSHAKE: u8 = 0x16;
