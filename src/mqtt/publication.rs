//! An MQTT client's publication, as it lies in the ring: the facts that MQTT passes on to subscribers, then
//! the payload.
//!
//! ```text
//!   [ flags 1 | publisher 8 | expires at 8 | length of properties 4 | hash of the client id 8, if there is one
//!     | properties … | payload … ]
//!     flags: QoS in bits 0 and 1 | retain 2 | the payload is text 3 | expires 4 | payload rule in bits 5 and 6
//!            | hash of the client id 7
//! ```
//! The publisher's session writes it, once. Reading cores make packets of it, which differ by the
//! subscriber's version and options, or the SocketCluster message ([`payload`](super::payload)), by the rule
//! for payloads. The publisher's core has looked this rule up together with the policy of the channel, so
//! that all cores make the same message.
//!
//! The properties are those that a server passes on (MQTT 5.0 sections 3.3.2.3.5 to 3.3.2.3.9: response
//! topic, correlation data, user properties, content type), as they came. Other properties become facts: the
//! payload format indicator is a flag, the message expiry a deadline. Topic aliases and subscription
//! identifiers belong to one connection, and are not passed on.
//!
//! Numbers are little-endian.

use aws_lc_rs::digest::{SHA256, digest};

use super::properties::Properties;
use crate::config::channels::MqttPayload;
use crate::json;

/// The facts of a publication besides its topic, its properties and its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The QoS with which it was published: 0, 1 or 2.
    pub qos: u8,
    /// Whether it was published with RETAIN 1.
    pub retain: bool,
    /// Whether its publisher says that the payload is UTF-8 (Payload Format Indicator 1).
    pub is_text: bool,
    /// The data that SocketCluster clients get for the payload.
    pub payload_rule: MqttPayload,
    /// The number of the publisher's session, for No Local; 0: none.
    pub publisher: u64,
    /// The [`client_hash`] of the publisher, of a publication that may be retained; 0: none.
    pub client_hash: u64,
    /// When it expires, in Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// A publication that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Its facts.
    pub head: Head,
    /// The properties that are passed on, as they came.
    pub properties: &'a [u8],
    /// The publication.
    pub payload: &'a [u8],
}

/// Appends everything before the payload; `properties` are passed on to subscribers.
pub fn write_head(head: &Head, properties: &[u8], out: &mut Vec<u8>) {
    write_facts(head, properties.len(), out);
    out.extend_from_slice(properties);
}

/// The same for a packet with these properties, some of which may not be passed on.
#[inline]
pub fn write_head_of(head: &Head, properties: Properties<'_>, out: &mut Vec<u8>) {
    write_facts(head, properties.passed_on_bytes(), out);
    for property in properties.passed_on() {
        out.extend_from_slice(property);
    }
}

fn write_facts(head: &Head, properties_len: usize, out: &mut Vec<u8>) {
    let flags = head.qos & QOS_MASK
        | u8::from(head.retain) << RETAIN
        | u8::from(head.is_text) << TEXT
        | u8::from(head.expires_at_ms.is_some()) << EXPIRES
        | head.payload_rule.number() << RULE
        | u8::from(head.client_hash != 0) << CLIENT;
    out.reserve(HEAD_BYTES + CLIENT_BYTES + properties_len);
    // A packet has fewer than 2^28 bytes (section 2.1.4).
    let properties_len = u32::try_from(properties_len).unwrap_or(u32::MAX);
    // In one piece: each piece would check again whether there is room.
    let mut bytes = [0; HEAD_BYTES];
    bytes[0] = flags;
    bytes[1..9].copy_from_slice(&head.publisher.to_le_bytes());
    bytes[9..17].copy_from_slice(&head.expires_at_ms.unwrap_or(0).to_le_bytes());
    bytes[17..].copy_from_slice(&properties_len.to_le_bytes());
    out.extend_from_slice(&bytes);
    if head.client_hash != 0 {
        out.extend_from_slice(&head.client_hash.to_le_bytes());
    }
}

/// Reads a publication; `None` if [`write_head`] has not written it.
#[inline]
pub fn read(frame: &[u8]) -> Option<View<'_>> {
    let (head, rest) = frame.split_first_chunk::<HEAD_BYTES>()?;
    let (&[flags], head) = head.split_first_chunk::<1>()?;
    let (publisher, head) = head.split_first_chunk()?;
    let (expires_at, properties_len) = head.split_first_chunk()?;
    let properties_len = u32::from_le_bytes(properties_len.try_into().ok()?);
    let has = |bit: u8| flags >> bit & 1 != 0;
    let (client_hash, rest) = match has(CLIENT) {
        true => rest.split_first_chunk::<CLIENT_BYTES>()?,
        false => (&[0; CLIENT_BYTES], rest),
    };
    let (properties, payload) = rest.split_at_checked(properties_len as usize)?;
    Some(View {
        head: Head {
            qos: flags & QOS_MASK,
            retain: has(RETAIN),
            is_text: has(TEXT),
            payload_rule: MqttPayload::of_number(flags >> RULE),
            publisher: u64::from_le_bytes(*publisher),
            client_hash: u64::from_le_bytes(*client_hash),
            expires_at_ms: has(EXPIRES).then(|| u64::from_le_bytes(*expires_at)),
        },
        properties,
        payload,
    })
}

/// A number for a client id that is the same in all processes, so that the publisher of a retained
/// publication is recognised even after a restart; never 0. It is made with SHA-256: if an attacker could
/// find a client id with the number of another one, it could withhold the publications of the one from the
/// other.
pub fn client_hash(client_id: &str) -> u64 {
    let hash = digest(&SHA256, client_id.as_bytes());
    let (words, _) = hash.as_ref().as_chunks();
    u64::from_le_bytes(words[0]).max(1)
}

/// Whether this rule allows a payload: `json` takes JSON and no bytes, the others take anything.
#[inline]
pub fn takes_payload(rule: MqttPayload, payload: &[u8]) -> bool {
    match rule {
        MqttPayload::Auto | MqttPayload::Text | MqttPayload::Binary => true,
        MqttPayload::Json => {
            payload.is_empty() || str::from_utf8(payload).is_ok_and(|text| json::check(text).is_ok())
        }
    }
}

/// Bytes before the hash of the client id and the properties.
const HEAD_BYTES: usize = 21;
const CLIENT_BYTES: usize = 8;
const QOS_MASK: u8 = 0b11;
const RETAIN: u8 = 2;
const TEXT: u8 = 3;
const EXPIRES: u8 = 4;
const RULE: u8 = 5;
const CLIENT: u8 = 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, proptest};
    use proptest::{option, prop_assert_eq, prop_oneof, sample};

    use super::*;

    fn any_head() -> impl Strategy<Value = Head> {
        let rules = [
            MqttPayload::Auto,
            MqttPayload::Text,
            MqttPayload::Binary,
            MqttPayload::Json,
        ];
        (
            0..3_u8,
            any::<[bool; 2]>(),
            sample::select(rules.to_vec()),
            any::<u64>(),
            prop_oneof![Just(0), any::<u64>()],
            option::of(any::<u64>()),
        )
            .prop_map(
                |(qos, [retain, is_text], payload_rule, publisher, client_hash, expires_at_ms)| Head {
                    qos,
                    retain,
                    is_text,
                    payload_rule,
                    publisher,
                    client_hash,
                    expires_at_ms,
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(head in any_head(), properties: Vec<u8>, payload: Vec<u8>) {
            let mut frame = Vec::new();
            write_head(&head, &properties, &mut frame);
            let head_bytes = frame.len();
            frame.extend_from_slice(&payload);
            let view = View { head, properties: &properties, payload: &payload };
            prop_assert_eq!(read(&frame), Some(view));
            for length in 0..head_bytes {
                prop_assert_eq!(read(&frame[..length]), None);
            }
        }

        #[test]
        fn no_bytes_are_misread_as_more_than_there_are(frame: Vec<u8>) {
            if let Some(view) = read(&frame) {
                let head_bytes = HEAD_BYTES + usize::from(frame[0] >> CLIENT) * CLIENT_BYTES;
                prop_assert_eq!(head_bytes + view.properties.len() + view.payload.len(), frame.len());
            }
        }
    }
}
