//! The will of an MQTT client: the publication that the server makes when a connection ends without
//! DISCONNECT.

/// A will from CONNECT. The client was allowed to publish it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The topic's name.
    pub topic: Box<[u8]>,
    /// The payload.
    pub payload: Box<[u8]>,
    /// The properties that are passed on to subscribers, in the order of the client.
    pub properties: Box<[u8]>,
    /// The QoS.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// Whether the payload is said to be UTF-8 (Payload Format Indicator 1).
    pub is_utf8: bool,
    /// For how many seconds after its publication subscribers may still get it.
    pub expiry_s: Option<u32>,
    /// How many seconds after the end of the connection it is published, unless the session ends before.
    pub delay_s: u32,
    /// The claims of the client, JSON, if it had any: a will whose client has been revoked is not published.
    pub claims: Option<Box<str>>,
}

impl Will {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let claims = self.claims.as_ref().map_or(0, |claims| claims.len());
        size_of::<Will>() + self.topic.len() + self.payload.len() + self.properties.len() + claims
    }
}

/// A will that is to be published now.
#[derive(Debug, PartialEq, Eq)]
pub struct DueWill {
    /// The serial number of the session: its own No Local subscriptions do not get the will.
    pub publisher: u64,
    /// The [`client_hash`](crate::mqtt::publication::client_hash) of the client.
    pub client_hash: u64,
    /// The will.
    pub will: Box<Will>,
}
