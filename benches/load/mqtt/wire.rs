//! Encodes the packets of an MQTT client, and decodes the packets of a server, in versions 3.1.1 and 5.
//!
//! The payload of a publication lets a receiver check it: its publisher, its number among the publications of this
//! publisher on the channel, and the time at which it was due, then padding. Its topic contains the channel.

use super::super::wire::Publication;
use super::{Filters, Qos, Sessions, Speech, Version};

/// CONNECT of the client with this number. `group` distinguishes clients with equal numbers.
pub(crate) fn connect(out: &mut Vec<u8>, group: u32, number: u32, keep_alive_s: u16, speech: &Speech) {
    let clean = match speech.sessions {
        Sessions::Clean => CLEAN,
        Sessions::Kept => 0,
    };
    packet_of(out, CONNECT, |out| {
        text(out, b"MQTT");
        out.extend_from_slice(&[level(speech.version), clean]);
        out.extend_from_slice(&keep_alive_s.to_be_bytes());
        match (speech.version, speech.sessions) {
            (Version::V4, _) => {}
            (Version::V5, Sessions::Clean) => out.push(0),
            (Version::V5, Sessions::Kept) => {
                out.extend_from_slice(&[5, SESSION_EXPIRY]);
                out.extend_from_slice(&KEPT_S.to_be_bytes());
            }
        }
        // The process, because a server may have kept the sessions of an earlier run.
        text(
            out,
            format!("l{}g{group}x{number}", std::process::id()).as_bytes(),
        );
    });
}

/// SUBSCRIBE to the channel.
pub(crate) fn subscribe(out: &mut Vec<u8>, channel: u32, speech: &Speech) {
    packet_of(out, SUBSCRIBE, |out| {
        out.extend_from_slice(&SUBSCRIBE_ID.to_be_bytes());
        no_properties(out, speech.version);
        let filter = match speech.filters {
            Filters::Exact => format!("load/c{channel:05}"),
            Filters::Wildcard => format!("+/c{channel:05}/#"),
            Filters::Everything => "load/+/a/#".to_owned(),
            Filters::Prefix => "load/#".to_owned(),
        };
        text(out, filter.as_bytes());
        out.push(speech.qos.level());
    });
}

/// PUBLISH; `id` is its packet identifier if its QoS has one.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    publication: &Publication,
    id: Option<u16>,
    pad: &str,
    speech: &Speech,
) {
    let first = PUBLISH | speech.qos.level() << 1 | u8::from(speech.retain);
    packet_of(out, first, |out| {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        topic(out, publication.channel, speech.filters);
        let length = u16::try_from(out.len() - start - 2).unwrap_or(u16::MAX);
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
        if let Some(id) = id {
            out.extend_from_slice(&id.to_be_bytes());
        }
        no_properties(out, speech.version);
        out.extend_from_slice(&publication.from.to_be_bytes());
        out.extend_from_slice(&publication.number.to_be_bytes());
        out.extend_from_slice(&publication.at.to_be_bytes());
        out.extend_from_slice(pad.as_bytes());
    });
}

pub(crate) fn acknowledge(out: &mut Vec<u8>, kind: Kind, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind.first(), 2, high, low]);
}

pub(crate) fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PINGREQ, 0]);
}

/// DISCONNECT without a reason: a normal end.
pub(crate) fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[DISCONNECT, 0]);
}

/// A packet with only an identifier, and in version 5 perhaps a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// PUBACK
    Ack,
    /// PUBREC
    Received,
    /// PUBREL
    Release,
    /// PUBCOMP
    Complete,
}

impl Kind {
    fn first(self) -> u8 {
        match self {
            Kind::Ack => 0x40,
            Kind::Received => 0x50,
            Kind::Release => 0x62,
            Kind::Complete => 0x70,
        }
    }
}

/// A packet of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The connection is accepted.
    ConnAck {
        session_present: bool,
    },
    /// The subscription is granted with the QoS that it asked for.
    SubAck,
    Pong,
    /// The identifier is 0 with QoS 0.
    Publish {
        id: u16,
        publication: Publication,
    },
    Answer {
        kind: Kind,
        id: u16,
    },
    /// Version 5: the server closes the connection, for this reason.
    Disconnect(u8),
}

/// The packet at the start of `bytes` and its length; `None` if it is incomplete. The error contains a packet that a
/// client does not expect.
#[inline]
pub(crate) fn packet(bytes: &[u8], pad: &str, speech: &Speech) -> Result<Option<(Packet, usize)>, String> {
    let Some((length, header)) = remaining_length(bytes)? else {
        return Ok(None);
    };
    let Some(body) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    match decoded(bytes[0], body, pad, speech) {
        Some(packet) => Ok(Some((packet, header + length))),
        None => Err(shown(&bytes[..header + length])),
    }
}

fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 2)));
        }
    }
    if bytes.len() > LENGTH_BYTES_MAX {
        return Err(format!("no end of a packet's length: {}", shown(bytes)));
    }
    Ok(None)
}

fn decoded(first: u8, body: &[u8], pad: &str, speech: &Speech) -> Option<Packet> {
    if first & 0xf0 == PUBLISH {
        return published(first, body, pad, speech);
    }
    match first {
        CONNACK => match *without_properties(body, 2, speech.version)? {
            [present @ (0 | 1), 0] => Some(Packet::ConnAck {
                session_present: present == 1,
            }),
            _ => None,
        },
        SUBACK => {
            let (id, rest) = identifier(body)?;
            let codes = match speech.version {
                Version::V4 => rest,
                Version::V5 => after_properties(rest)?,
            };
            (id == SUBSCRIBE_ID && *codes == [speech.qos.level()]).then_some(Packet::SubAck)
        }
        PINGRESP => body.is_empty().then_some(Packet::Pong),
        DISCONNECT if speech.version == Version::V5 => Some(Packet::Disconnect(*body.first().unwrap_or(&0))),
        _ => {
            let kinds = [Kind::Ack, Kind::Received, Kind::Release, Kind::Complete];
            let kind = kinds.into_iter().find(|kind| kind.first() == first)?;
            let (id, rest) = identifier(body)?;
            let is_success = match (speech.version, rest) {
                (_, []) => true,
                (Version::V4, _) => false,
                (Version::V5, [reason, ..]) => *reason < FAILURE,
            };
            is_success.then_some(Packet::Answer { kind, id })
        }
    }
}

/// A delivery must have the QoS and the retain flag of the run, no DUP flag, the topic of its channel, and the payload
/// as it was sent.
fn published(first: u8, body: &[u8], pad: &str, speech: &Speech) -> Option<Packet> {
    (first == PUBLISH | speech.qos.level() << 1 | u8::from(speech.retain)).then_some(())?;
    let (topic_bytes, mut rest) = identifier(body)?;
    let name = rest.split_off(..usize::from(topic_bytes))?;
    let mut id = 0;
    if speech.qos != Qos::Zero {
        (id, rest) = identifier(rest)?;
        (id != 0).then_some(())?;
    }
    if speech.version == Version::V5 {
        rest = after_properties(rest)?;
    }
    let (from, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let publication = Publication {
        channel: channel_of(name, speech.filters)?,
        from: u32::from_be_bytes(*from),
        number: u32::from_be_bytes(*number),
        at: u64::from_be_bytes(*at),
    };
    (rest == pad.as_bytes()).then_some(Packet::Publish { id, publication })
}

/// Appends the topic of a channel.
fn topic(out: &mut Vec<u8>, channel: u32, filters: Filters) {
    out.extend_from_slice(TOPIC);
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(channel).as_bytes();
    out.extend_from_slice(&b"00000"[..5_usize.saturating_sub(digits.len())]);
    out.extend_from_slice(digits);
    if filters == Filters::Everything {
        out.extend_from_slice(DEEPER);
    }
}

fn channel_of(name: &[u8], filters: Filters) -> Option<u32> {
    let number = name.strip_prefix(TOPIC)?;
    let number = match filters {
        Filters::Everything => number.strip_suffix(DEEPER)?,
        Filters::Exact | Filters::Wildcard | Filters::Prefix => number,
    };
    (number.len() >= 5).then_some(())?;
    number.iter().try_fold(0_u32, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The bytes of a body of this length; in version 5, properties follow them.
fn without_properties(body: &[u8], length: usize, version: Version) -> Option<&[u8]> {
    let (fixed, rest) = body.split_at_checked(length)?;
    let rest = match version {
        Version::V4 => rest,
        Version::V5 => after_properties(rest)?,
    };
    rest.is_empty().then_some(fixed)
}

fn after_properties(bytes: &[u8]) -> Option<&[u8]> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1 + length..);
        }
    }
    None
}

fn identifier(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (two, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*two), rest))
}

fn no_properties(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::V4 => {}
        Version::V5 => out.push(0),
    }
}

/// Appends a packet whose body `write` appends.
fn packet_of(out: &mut Vec<u8>, first: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[first, 0]);
    write(out);
    let mut length = out.len() - start - 2;
    if let Some(short) = u8::try_from(length).ok().filter(|short| *short < 0x80) {
        out[start + 1] = short;
        return;
    }
    let mut bytes = [0_u8; LENGTH_BYTES_MAX];
    let mut count = 0;
    while length > 0 {
        // The remainder is below 128.
        bytes[count] = u8::try_from(length % 0x80).unwrap_or(0) | if length < 0x80 { 0 } else { 0x80 };
        length /= 0x80;
        count += 1;
    }
    out.splice(start + 1..start + 2, bytes[..count].iter().copied());
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

fn level(version: Version) -> u8 {
    match version {
        Version::V4 => 4,
        Version::V5 => 5,
    }
}

/// The first bytes in hexadecimal.
fn shown(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes[..bytes.len().min(SHOWN_BYTES)]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let more = if bytes.len() > SHOWN_BYTES { " …" } else { "" };
    format!("the packet {}{more}", hex.join(" "))
}

/// The payload of a publication without padding.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 16;
/// The identifier of SUBSCRIBE packets. A client sends one before it publishes anything.
const SUBSCRIBE_ID: u16 = 0xffff;
/// How long a server keeps the session of a client that has left.
const KEPT_S: u32 = 3600;
const CLEAN: u8 = 2;
/// Property 17, Session Expiry Interval.
const SESSION_EXPIRY: u8 = 17;
/// Reason codes from here on are failures.
const FAILURE: u8 = 0x80;
const LENGTH_BYTES_MAX: usize = 4;
const SHOWN_BYTES: usize = 120;
const TOPIC: &[u8] = b"load/c";
const DEEPER: &[u8] = b"/a/x";
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;
