//! The three versions of MQTT.

use super::fault::Fault;

/// The version that a CONNECT packet names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3,
    /// MQTT 3.1.1: level 4.
    V4,
    /// MQTT 5.0: level 5.
    V5,
}

impl Version {
    /// The version of a protocol name and level.
    ///
    /// # Errors
    /// `OtherProtocol` for a name that is not MQTT's (MQTT-3.1.2-1), `UnsupportedVersion` for a level that
    /// this server does not speak (MQTT-3.1.2-2).
    pub(super) fn from_wire(name: &[u8], level: u8) -> Result<Version, Fault> {
        match (name, level) {
            (b"MQIsdp", 3) => Ok(Version::V3),
            (b"MQTT", 4) => Ok(Version::V4),
            (b"MQTT", 5) => Ok(Version::V5),
            (b"MQIsdp" | b"MQTT", _) => Err(Fault::UnsupportedVersion),
            (_, _) => Err(Fault::OtherProtocol),
        }
    }

    /// Whether packets have properties and reason codes.
    #[inline]
    pub const fn has_properties(self) -> bool {
        matches!(self, Version::V5)
    }

    /// Whether reserved flags and bits must have the value that the specification gives. MQTT 3.1 says that they are
    /// not used.
    pub(super) const fn checks_reserved_bits(self) -> bool {
        matches!(self, Version::V4 | Version::V5)
    }
}
