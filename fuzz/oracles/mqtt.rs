//! Compares the packets of a client with two other codecs: `mqtt-proto` and `mqtt-protocol-core`.
//!
//! Fields are compared by way of bytes: the other codec encodes the packet that it has decoded, and our codec must
//! decode the same packet from these bytes as from the input. Where another codec is wrong by the specification, or
//! leaves a check to its connection, a comment says so.

use mqtt_proto::{v3, v5};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use ringcast::internals::mqtt::Version;
use ringcast::internals::mqtt::frame::{Frame, PACKET_BYTES_MAX, frame};
use ringcast::internals::mqtt::packet::{Connect, Packet, decode, decode_connect};
use ringcast::internals::mqtt::topic::Filter;

use ringcast_fuzz::mqtt::{summary, summary_of_connect, version};

/// The result of a codec for a packet: its content, or a refusal.
type Reading = Result<String, String>;

/// Faults that our codec leaves to its session, and that the others refuse while they decode.
const A_FILTER: &str = "a filter with a misplaced wildcard";
const THE_PAYLOAD: &str = "a payload that is not what its format indicator says";

/// All three codecs agree about the packets in the input, except for known differences.
pub fn agree(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let version = version(choice);
    while let Ok(Frame::Whole { first, body, length }) = frame(rest, PACKET_BYTES_MAX) {
        let packet = Input {
            version,
            first,
            body: &rest[body],
        };
        let ours = packet.ours();
        compare(
            "mqtt-proto",
            &packet,
            &ours,
            &packet.by_mqtt_proto(&rest[..length]),
            proto_may_differ,
        );
        if let Some(theirs) = packet.by_mqtt_protocol_core() {
            compare("mqtt-protocol-core", &packet, &ours, &theirs, core_may_differ);
        }
        rest = &rest[length..];
    }
}

/// One packet.
#[derive(Debug)]
struct Input<'a> {
    version: Version,
    first: u8,
    body: &'a [u8],
}

fn compare(
    name: &str,
    packet: &Input<'_>,
    ours: &Reading,
    theirs: &Reading,
    may_differ: fn(&Input<'_>, &Reading, &Reading) -> bool,
) {
    let is_same = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(_), Err(_)) => true,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    };
    assert!(
        is_same || may_differ(packet, ours, theirs),
        "{name}\n{packet:02x?}\nours   {ours:?}\ntheirs {theirs:?}"
    );
}

impl Input<'_> {
    const fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Whether the packet is of MQTT 5.
    fn is_5(&self) -> bool {
        if self.kind() == 1 {
            self.body.get(6) == Some(&5)
        } else {
            self.version == Version::V5
        }
    }

    fn ours(&self) -> Reading {
        let is_filter = |filter| Filter::parse(filter).is_ok();
        if self.kind() == 1
            && let Ok(Connect { will: Some(will), .. }) = decode_connect(self.first, self.body)
            && !will.has_valid_payload()
        {
            return Err(THE_PAYLOAD.to_owned());
        }
        match decode(self.version, self.first, self.body) {
            Ok(Packet::Subscribe(packet)) if !packet.filters().all(|(filter, _)| is_filter(filter)) => {
                Err(A_FILTER.to_owned())
            }
            Ok(Packet::Unsubscribe(packet)) if !packet.filters().all(is_filter) => Err(A_FILTER.to_owned()),
            Ok(Packet::Publish(packet)) if !packet.has_valid_payload() => Err(THE_PAYLOAD.to_owned()),
            Ok(_) | Err(_) => self.read_as(self.first, self.body),
        }
    }

    fn read_as(&self, first: u8, body: &[u8]) -> Reading {
        match first >> 4 {
            1 => decode_connect(first, body)
                .map(|packet| summary_of_connect(&packet))
                .map_err(|r| format!("{r:?}")),
            _ => decode(self.version, first, body)
                .map(|packet| summary(&packet))
                .map_err(|f| format!("{f:?}")),
        }
    }

    /// Decodes the bytes of another codec with ours.
    fn read_again(&self, written: &[u8]) -> Reading {
        match frame(written, PACKET_BYTES_MAX) {
            Ok(Frame::Whole { first, body, .. }) => match self.read_as(first, &written[body]) {
                Ok(summary) => Ok(summary),
                Err(fault) => Ok(format!(
                    "written as something that is refused: {fault} {written:x?}"
                )),
            },
            other => Ok(format!("written as {other:?}")),
        }
    }

    fn by_mqtt_proto(&self, whole: &[u8]) -> Reading {
        if self.is_5() {
            match v5::Packet::decode(whole) {
                Ok(Some(packet)) => {
                    self.read_again(packet.encode().expect("a packet that was read").as_ref())
                }
                Ok(None) => Err("incomplete".to_owned()),
                Err(error) => Err(format!("{error:?}")),
            }
        } else {
            match v3::Packet::decode(whole) {
                Ok(Some(packet)) => {
                    self.read_again(packet.encode().expect("a packet that was read").as_ref())
                }
                Ok(None) => Err("incomplete".to_owned()),
                Err(error) => Err(format!("{error:?}")),
            }
        }
    }

    /// It has no MQTT 3.1.
    fn by_mqtt_protocol_core(&self) -> Option<Reading> {
        let (flags, body) = (self.first & 0x0f, self.body);
        macro_rules! parse {
            ($packet:ty) => {
                match <$packet>::parse(body) {
                    Ok((packet, length)) if length == body.len() => {
                        self.read_again(&packet.to_continuous_buffer())
                    }
                    Ok(_) => Err("bytes behind the packet".to_owned()),
                    Err(error) => Err(format!("{error:?}")),
                }
            };
        }
        macro_rules! parse_publish {
            ($packet:ty) => {
                match <$packet>::parse(flags, body.into()) {
                    Ok((packet, _)) => self.read_again(&packet.to_continuous_buffer()),
                    Err(error) => Err(format!("{error:?}")),
                }
            };
        }
        Some(match (self.kind(), self.is_5()) {
            (1, true) => parse!(v5_0::Connect),
            (3, true) => parse_publish!(v5_0::Publish),
            (4, true) => parse!(v5_0::Puback),
            (5, true) => parse!(v5_0::Pubrec),
            (6, true) => parse!(v5_0::Pubrel),
            (7, true) => parse!(v5_0::Pubcomp),
            (8, true) => parse!(v5_0::Subscribe),
            (10, true) => parse!(v5_0::Unsubscribe),
            (14, true) => parse!(v5_0::Disconnect),
            (15, true) => parse!(v5_0::Auth),
            (1, false) if self.body.get(2..6) == Some(b"MQTT") => parse!(v3_1_1::Connect),
            (_, false) if self.version == Version::V3 => return None,
            (3, false) => parse_publish!(v3_1_1::Publish),
            (4, false) => parse!(v3_1_1::Puback),
            (5, false) => parse!(v3_1_1::Pubrec),
            (6, false) => parse!(v3_1_1::Pubrel),
            (7, false) => parse!(v3_1_1::Pubcomp),
            (8, false) => parse!(v3_1_1::Subscribe),
            (10, false) => parse!(v3_1_1::Unsubscribe),
            _ => return None,
        })
    }
}

/// A check that another codec does not make, or that it leaves to its connection: packets of this type that our codec
/// refuses for this fault.
struct Unchecked {
    kinds: &'static [u8],
    fault: &'static str,
    when: fn(&Input<'_>) -> bool,
}

/// The known differences of `mqtt-proto` 0.4.0.
fn proto_may_differ(packet: &Input<'_>, ours: &Reading, theirs: &Reading) -> bool {
    let unchecked = [
        // Bytes behind the last field.
        Unchecked {
            kinds: &[1, 4, 5, 6, 7, 12, 14, 15],
            fault: "Malformed",
            when: |_| true,
        },
        // It decodes packets of servers as well.
        Unchecked {
            kinds: &[2, 9, 11, 13],
            fault: "Protocol",
            when: |_| true,
        },
        // U+0000 in strings (MQTT-1.5.4-2), empty topics and filters (MQTT-4.7.3-1), DUP with QoS 0 (MQTT-3.3.1-2).
        Unchecked {
            kinds: &[3, 8, 10],
            fault: "Malformed",
            when: |packet| packet.body.contains(&0) || packet.first & 0x0e == 0x08,
        },
        // Zero where a property forbids it, no topic and no alias, subscription identifiers of clients, authentication
        // data without a method.
        Unchecked {
            kinds: &[1, 3],
            fault: "Protocol",
            when: |packet| packet.is_5(),
        },
        Unchecked {
            kinds: &[3],
            fault: "TopicAlias",
            when: |_| true,
        },
        // No Local with a shared subscription (MQTT-3.8.3-4), subscription identifier 0.
        Unchecked {
            kinds: &[8],
            fault: "Protocol",
            when: |packet| packet.is_5(),
        },
        // Reason codes and properties of servers alone; AUTH without a method.
        Unchecked {
            kinds: &[14, 15],
            fault: "Protocol",
            when: |_| true,
        },
    ];
    // `+` at the start of a level.
    let unchecked_filter = Unchecked {
        kinds: &[8, 10],
        fault: A_FILTER,
        when: |packet| packet.body.contains(&b'+'),
    };
    // MQTT 3.1 does not use the bits that 3.1.1 reserves.
    let old = packet.version == Version::V3 || packet.body.get(2..6) == Some(b"MQIs");
    let stricter = match theirs {
        Err(error) => {
            old && (error.contains("InvalidHeader")
                || error.contains("InvalidQos")
                || error.contains("Flags"))
        }
        Ok(_) => false,
    };
    stricter
        || is_unchecked(&unchecked, packet, ours, theirs)
        || is_unchecked(&[unchecked_filter], packet, ours, theirs)
}

/// The known differences of `mqtt-protocol-core` 0.7.9.
fn core_may_differ(packet: &Input<'_>, ours: &Reading, theirs: &Reading) -> bool {
    let unchecked = [
        // Flags of the fixed header, which its connection checks.
        Unchecked {
            kinds: &[1, 4, 5, 6, 7, 8, 10, 14, 15],
            fault: "Malformed",
            when: |packet| {
                let reserved = if [6, 8, 10].contains(&packet.kind()) { 2 } else { 0 };
                packet.first & 0x0f != reserved
            },
        },
        // Flags of CONNECT: reserved ones, and a will's without a will.
        Unchecked {
            kinds: &[1],
            fault: "Malformed",
            when: |packet| {
                packet
                    .body
                    .get(7)
                    .is_some_and(|flags| flags & 1 != 0 || flags & 4 == 0 && flags & 0x38 != 0)
            },
        },
        // U+0000 in strings, empty topics and filters, a wildcard in the topic of a will.
        Unchecked {
            kinds: &[1, 4, 5, 6, 7, 8, 10, 14, 15],
            fault: "Malformed",
            when: |packet| packet.body.contains(&0),
        },
        // The same, DUP with QoS 0, and a packet that ends before the length of its properties.
        Unchecked {
            kinds: &[3],
            fault: "Malformed",
            when: |_| true,
        },
        // Acknowledgements of 3.1.1 with a third byte.
        Unchecked {
            kinds: &[4, 5, 6, 7],
            fault: "Malformed",
            when: |packet| !packet.is_5() && packet.body.len() > 2,
        },
        Unchecked {
            kinds: &[8, 10],
            fault: A_FILTER,
            when: |_| true,
        },
        Unchecked {
            kinds: &[1, 3],
            fault: THE_PAYLOAD,
            when: |_| true,
        },
        // Packet identifier 0; values and combinations of properties.
        Unchecked {
            kinds: &[1, 3, 8, 10, 14, 15],
            fault: "Protocol",
            when: |_| true,
        },
        Unchecked {
            kinds: &[3],
            fault: "TopicAlias",
            when: |_| true,
        },
    ];
    // A password without a user name: legal in MQTT 5 (section 3.1.2.9).
    let password_alone = packet.kind() == 1 && packet.body.get(7).is_some_and(|flags| flags & 0xc0 == 0x40);
    password_alone && theirs.is_err() || is_unchecked(&unchecked, packet, ours, theirs)
}

fn is_unchecked(unchecked: &[Unchecked], packet: &Input<'_>, ours: &Reading, theirs: &Reading) -> bool {
    let Err(fault) = ours else { return false };
    theirs.is_ok()
        && unchecked.iter().any(|check| {
            check.kinds.contains(&packet.kind()) && fault.contains(check.fault) && (check.when)(packet)
        })
}
