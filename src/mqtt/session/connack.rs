//! The content of CONNACK: section 3.2.
//!
//! An accepting CONNACK of MQTT 5 has only the properties whose values differ from the defaults that a client
//! assumes without them; all features that are announced there are available.

use super::{Open, send};
use crate::decision::{CloseReason, Decision, Decisions};
use crate::mqtt::encode::{self, ConnAckProperties, SessionPresent};
use crate::mqtt::frame::PACKET_BYTES_MAX;
use crate::mqtt::packet::Connect;
use crate::mqtt::properties::Property;
use crate::mqtt::settings::MqttSettings;
use crate::mqtt::{ReasonCode, Version};

/// The client that gets the CONNACK.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnAck {
    pub(super) version: Version,
    /// The largest packet that it takes.
    pub(super) packet_bytes_max: u32,
}

/// The facts about its connection that CONNACK tells an accepted client.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Whether its session is one that it had before.
    pub(super) is_present: bool,
    /// Its client id, if it has brought none.
    pub(super) assigned_client_id: Option<Box<str>>,
    /// For how many seconds its session outlives the connection, if not as long as it has asked for.
    pub(super) session_expiry_s: Option<u32>,
    /// The keep alive that it is to use, if not its own.
    pub(super) keep_alive_s: Option<u16>,
}

impl ConnAck {
    /// The client that has sent this CONNECT.
    pub(super) fn of(connect: &Connect<'_>) -> ConnAck {
        let packet_bytes_max = connect.properties.number(Property::MaximumPacketSize);
        ConnAck {
            version: connect.version,
            packet_bytes_max: packet_bytes_max.unwrap_or(u32::MAX),
        }
    }

    /// The client of a connection.
    pub(super) fn to(open: &Open) -> ConnAck {
        ConnAck {
            version: open.version,
            packet_bytes_max: open.packet_bytes_max,
        }
    }

    /// Accepts the client.
    ///
    /// # Errors
    /// The client takes no packet of that size (MQTT-3.1.2-24): no CONNACK can be sent, and the connection
    /// ends.
    pub(super) fn accept(
        self,
        accepted: &Accepted,
        settings: &MqttSettings,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        // In 3.1 the byte with the flag is reserved.
        let session = if accepted.is_present && self.version != Version::V3 {
            SessionPresent::Yes
        } else {
            SessionPresent::No
        };
        if !self.version.has_properties() {
            send(decisions, |out| {
                encode::connack(out, session, ReasonCode::Success.return_code());
            });
            return Ok(());
        }
        let receive_maximum = settings.receive_maximum;
        let packet_bytes_max = settings.packet_bytes_max;
        let properties = ConnAckProperties {
            session_expiry_interval: accepted.session_expiry_s,
            receive_maximum: (receive_maximum < u16::MAX).then_some(receive_maximum),
            retain_available: (!settings.retain_available).then_some(false),
            maximum_packet_size: ((packet_bytes_max as usize) < PACKET_BYTES_MAX).then_some(packet_bytes_max),
            assigned_client_id: accepted.assigned_client_id.as_deref(),
            topic_alias_maximum: (settings.topic_aliases_max > 0).then_some(settings.topic_aliases_max),
            server_keep_alive: accepted.keep_alive_s,
            ..ConnAckProperties::default()
        };
        let message = decisions.write(|out| {
            encode::connack_5(out, session, ReasonCode::Success, &properties);
        });
        if decisions.bytes(message).len() > self.packet_bytes_max as usize {
            return Err(CloseReason::MqttRefused);
        }
        decisions.push(Decision::Send { message });
        Ok(())
    }

    /// Refuses the client.
    pub(super) fn refuse(
        self,
        code: ReasonCode,
        text: &str,
        server_reference: Option<&str>,
        decisions: &mut Decisions,
    ) {
        let message = decisions.write(|out| self.write_refusal(code, text, server_reference, out));
        decisions.push(Decision::Send { message });
    }

    /// Appends the refusal. The text is left out if the client takes no packet of that size.
    pub(super) fn write_refusal(
        self,
        code: ReasonCode,
        text: &str,
        server_reference: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if !self.version.has_properties() {
            return encode::connack(out, SessionPresent::No, code.return_code());
        }
        let names_other_server = matches!(code, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        let mut properties = ConnAckProperties {
            reason_string: Some(text),
            server_reference: server_reference.filter(|_| names_other_server),
            ..ConnAckProperties::default()
        };
        let start = out.len();
        encode::connack_5(out, SessionPresent::No, code, &properties);
        if out.len() - start > self.packet_bytes_max as usize {
            out.truncate(start);
            properties.reason_string = None;
            encode::connack_5(out, SessionPresent::No, code, &properties);
        }
    }
}
