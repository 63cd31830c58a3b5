//! DISCONNECT and AUTH: sections 3.14 and 3.15.

use super::PacketOrWill;
use super::ack::take_reason;
use crate::mqtt::fault::Fault;
use crate::mqtt::properties::{Properties, Property};
use crate::mqtt::reader::Reader;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::version::Version;

/// The client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// The reason: success before MQTT 5. Only with success the will is dropped.
    pub reason: ReasonCode,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(super) fn decode(version: Version, body: &'a [u8]) -> Result<Disconnect<'a>, Fault> {
        let reader = Reader::new(body);
        let (reason, properties) = match version {
            Version::V3 | Version::V4 => {
                reader.end()?;
                (ReasonCode::Success, Properties::NONE)
            }
            Version::V5 => take_reason(reader, PacketOrWill::DisconnectByClient)?,
        };
        Ok(Disconnect { reason, properties })
    }
}

/// A step of enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step: continue, or authenticate again.
    pub reason: ReasonCode,
    /// The name of the method.
    pub method: &'a str,
    /// The properties.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Auth<'a>, Fault> {
        let (reason, properties) = take_reason(Reader::new(body), PacketOrWill::AuthByClient)?;
        // A packet without a reason code means success, which only a server may send. A packet with any other
        // code names its method (section 3.15.2.2.2).
        let method = properties
            .text(Property::AuthenticationMethod)
            .ok_or(Fault::Protocol)?;
        Ok(Auth {
            reason,
            method,
            properties,
        })
    }
}
