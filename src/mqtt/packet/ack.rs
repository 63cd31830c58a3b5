//! PUBACK, PUBREC, PUBREL and PUBCOMP: sections 3.4 to 3.7.

use super::{PacketId, PacketOrWill};
use crate::mqtt::fault::Fault;
use crate::mqtt::properties::Properties;
use crate::mqtt::reader::Reader;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::version::Version;

/// One step of the exchange about a message of QoS 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The packet identifier of the message.
    pub packet_id: PacketId,
    /// The client's verdict on the message: success before MQTT 5.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    #[inline]
    pub(super) fn decode(version: Version, place: PacketOrWill, body: &'a [u8]) -> Result<Ack<'a>, Fault> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (reason, properties) = match version {
            Version::V3 | Version::V4 => {
                reader.end()?;
                (ReasonCode::Success, Properties::NONE)
            }
            Version::V5 => take_reason(reader, place)?,
        };
        Ok(Ack {
            packet_id,
            reason,
            properties,
        })
    }
}

/// Takes a reason code and properties, the end of several packets. Both may be absent: the reason is then success
/// (sections 3.4.2.1 and 3.14.2.1).
#[inline]
pub(super) fn take_reason(
    mut reader: Reader<'_>,
    place: PacketOrWill,
) -> Result<(ReasonCode, Properties<'_>), Fault> {
    if reader.is_empty() {
        return Ok((ReasonCode::Success, Properties::NONE));
    }
    let reason = ReasonCode::from_u8(reader.u8()?).ok_or(Fault::Malformed)?;
    if !reason.may_stand_in(place) {
        let other_side = place.of_the_other_side();
        return Err(match other_side.is_some_and(|place| reason.may_stand_in(place)) {
            true => Fault::Protocol,
            false => Fault::Malformed,
        });
    }
    if reader.is_empty() {
        return Ok((reason, Properties::NONE));
    }
    let properties = Properties::take(Version::V5, &mut reader, place)?;
    reader.end()?;
    Ok((reason, properties))
}
