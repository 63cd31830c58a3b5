//! Why a packet is refused. Each fault ends the connection.

use super::reason::ReasonCode;

/// The fault of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes cannot be read as the specification says (section 1.2, *Malformed Packet*).
    Malformed,
    /// The bytes can be read, but the protocol does not allow their content (section 1.2, *Protocol Error*).
    Protocol,
    /// The CONNECT packet names another protocol than MQTT.
    OtherProtocol,
    /// The CONNECT packet names a version that this server does not speak. All versions of the client's library know
    /// the answer of 3.1.1: return code 1.
    UnsupportedVersion,
    /// The topic alias is 0 (section 3.3.2.3.4).
    TopicAlias,
    /// The packet is larger than the server accepts (MQTT-3.2.2-15).
    TooLarge,
}

impl Fault {
    /// The code for a DISCONNECT or CONNACK packet of MQTT 5.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Fault::Malformed => ReasonCode::MalformedPacket,
            Fault::Protocol => ReasonCode::ProtocolError,
            Fault::OtherProtocol | Fault::UnsupportedVersion => ReasonCode::UnsupportedProtocolVersion,
            Fault::TopicAlias => ReasonCode::TopicAliasInvalid,
            Fault::TooLarge => ReasonCode::PacketTooLarge,
        }
    }
}
