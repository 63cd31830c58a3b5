//! MQTT packets, made and read by a client's own code, which shares none with the server.

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores::simulation) enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// A CONNECT packet.
#[derive(Debug)]
pub(in crate::cores::simulation) struct Connect<'a> {
    pub(in crate::cores::simulation) client_id: &'a str,
    pub(in crate::cores::simulation) is_clean: bool,
    pub(in crate::cores::simulation) expiry_s: u32,
    pub(in crate::cores::simulation) keep_alive_s: u16,
    pub(in crate::cores::simulation) receive_maximum: Option<u16>,
    pub(in crate::cores::simulation) topic_aliases: u16,
    pub(in crate::cores::simulation) will: Option<Will<'a>>,
    /// The token in the place of the password.
    pub(in crate::cores::simulation) token: &'a str,
}

/// The will in a CONNECT packet.
#[derive(Debug)]
pub(in crate::cores::simulation) struct Will<'a> {
    pub(in crate::cores::simulation) topic: &'a str,
    pub(in crate::cores::simulation) payload: &'a [u8],
    pub(in crate::cores::simulation) qos: u8,
    pub(in crate::cores::simulation) retain: bool,
    pub(in crate::cores::simulation) delay_s: u32,
}

/// A PUBLISH packet, in either direction.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// Zero with QoS 0.
    pub(super) id: u16,
    pub(super) expiry_s: Option<u32>,
}

/// An acknowledgement, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// PUBACK.
    Acknowledged,
    /// PUBREC.
    Received,
    /// PUBREL.
    Release,
    /// PUBCOMP.
    Complete,
}

/// A packet from the server.
#[derive(Debug)]
pub(super) enum Packet {
    ConnAck {
        is_present: bool,
        code: u8,
        /// Most publications that the client may have in flight.
        receive_maximum: u16,
    },
    Publish(Publish),
    Ack {
        ack: Ack,
        id: u16,
        code: u8,
    },
    /// The code of each filter.
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    /// Before MQTT 5 without codes.
    UnsubAck {
        id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Disconnect {
        code: u8,
    },
}

impl Version {
    fn has_properties(self) -> bool {
        self == Version::V5
    }
}

impl Ack {
    const fn first_byte(self) -> u8 {
        match self {
            Ack::Acknowledged => 0x40,
            Ack::Received => 0x50,
            Ack::Release => 0x62,
            Ack::Complete => 0x70,
        }
    }
}

pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];

pub(in crate::cores::simulation) fn connect(version: Version, connect: &Connect<'_>, out: &mut Vec<u8>) {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.push(if version.has_properties() { 5 } else { 4 });
    // A user name and a password, since 3.1.1 allows no password alone.
    let mut flags = 0xC0 | u8::from(connect.is_clean) << 1;
    if let Some(will) = &connect.will {
        flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    body.push(flags);
    body.extend(connect.keep_alive_s.to_be_bytes());
    if version.has_properties() {
        let mut properties = vec![0x11];
        properties.extend(connect.expiry_s.to_be_bytes());
        if let Some(maximum) = connect.receive_maximum {
            properties.push(0x21);
            properties.extend(maximum.to_be_bytes());
        }
        properties.push(0x22);
        properties.extend(connect.topic_aliases.to_be_bytes());
        push_properties(&properties, &mut body);
    }
    push_text(connect.client_id.as_bytes(), &mut body);
    if let Some(will) = &connect.will {
        if version.has_properties() {
            let mut properties = vec![0x18];
            properties.extend(will.delay_s.to_be_bytes());
            push_properties(&properties, &mut body);
        }
        push_text(will.topic.as_bytes(), &mut body);
        push_text(will.payload, &mut body);
    }
    push_text(b"u", &mut body);
    push_text(connect.token.as_bytes(), &mut body);
    push_packet(0x10, &body, out);
}

pub(super) fn publish(version: Version, publish: &Publish, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    push_text(publish.topic.as_bytes(), &mut body);
    if publish.qos > 0 {
        body.extend(publish.id.to_be_bytes());
    }
    if version.has_properties() {
        let mut properties = Vec::new();
        if let Some(seconds) = publish.expiry_s {
            properties.push(0x02);
            properties.extend(seconds.to_be_bytes());
        }
        push_properties(&properties, &mut body);
    }
    body.extend(&publish.payload);
    let flags = u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    push_packet(0x30 | flags, &body, out);
}

pub(super) fn ack(ack: Ack, id: u16, out: &mut Vec<u8>) {
    push_packet(ack.first_byte(), &id.to_be_bytes(), out);
}

/// SUBSCRIBE for these filters, each with its options.
pub(super) fn subscribe(version: Version, id: u16, filters: &[(String, u8)], out: &mut Vec<u8>) {
    let mut body = id.to_be_bytes().to_vec();
    if version.has_properties() {
        push_properties(&[], &mut body);
    }
    for (filter, options) in filters {
        push_text(filter.as_bytes(), &mut body);
        body.push(*options);
    }
    push_packet(0x82, &body, out);
}

pub(super) fn unsubscribe(version: Version, id: u16, filters: &[String], out: &mut Vec<u8>) {
    let mut body = id.to_be_bytes().to_vec();
    if version.has_properties() {
        push_properties(&[], &mut body);
    }
    for filter in filters {
        push_text(filter.as_bytes(), &mut body);
    }
    push_packet(0xA2, &body, out);
}

/// DISCONNECT; the code and the expiry are for MQTT 5.
pub(super) fn disconnect(version: Version, code: u8, expiry_s: Option<u32>, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    if version.has_properties() {
        body.push(code);
        let mut properties = Vec::new();
        if let Some(seconds) = expiry_s {
            properties.push(0x11);
            properties.extend(seconds.to_be_bytes());
        }
        push_properties(&properties, &mut body);
    }
    push_packet(0xE0, &body, out);
}

fn push_packet(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    push_number(body.len(), out);
    out.extend(body);
}

/// A variable byte integer (section 1.5.5).
fn push_number(mut number: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number % 128).expect("below 128");
        number /= 128;
        out.push(low | if number > 0 { 0x80 } else { 0 });
        if number == 0 {
            return;
        }
    }
}

fn push_properties(properties: &[u8], out: &mut Vec<u8>) {
    push_number(properties.len(), out);
    out.extend(properties);
}

fn push_text(text: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("a short text");
    out.extend(length.to_be_bytes());
    out.extend(text);
}

/// The packet at the beginning of the bytes and its length, if it is whole.
///
/// # Errors
/// No server may send this.
pub(super) fn take(version: Version, bytes: &[u8]) -> Result<Option<(Packet, usize)>, String> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let (mut length, mut head) = (0_usize, 1);
    loop {
        let Some(&byte) = bytes.get(head) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7F) << (7 * (head - 1));
        head += 1;
        if byte < 0x80 {
            break;
        }
    }
    let Some(body) = bytes.get(head..head + length) else {
        return Ok(None);
    };
    let packet =
        read(version, first, body).ok_or_else(|| format!("a packet {first:02x} with {body:02x?}"))?;
    Ok(Some((packet, head + length)))
}

fn read(version: Version, first: u8, body: &[u8]) -> Option<Packet> {
    let mut rest = body;
    let has_properties = version.has_properties();
    Some(match first {
        0x20 => {
            let (is_present, code) = (take_u8(&mut rest)?, take_u8(&mut rest)?);
            let properties = take_properties(has_properties, &mut rest)?;
            Packet::ConnAck {
                is_present: is_present == 1,
                code,
                receive_maximum: number_of(properties, 0x21)
                    .and_then(|number| u16::try_from(number).ok())
                    .unwrap_or(u16::MAX),
            }
        }
        0x30..=0x3F => {
            let qos = first >> 1 & 3;
            let topic = take_text(&mut rest)?;
            let id = if qos > 0 { take_u16(&mut rest)? } else { 0 };
            let properties = take_properties(has_properties, &mut rest)?;
            Packet::Publish(Publish {
                topic: String::from_utf8(topic.to_vec()).ok()?,
                payload: rest.to_vec(),
                qos: (qos < 3).then_some(qos)?,
                retain: first & 1 == 1,
                dup: first & 8 != 0,
                id,
                expiry_s: number_of(properties, 0x02),
            })
        }
        0x40 | 0x50 | 0x62 | 0x70 => {
            let ack = match first {
                0x40 => Ack::Acknowledged,
                0x50 => Ack::Received,
                0x62 => Ack::Release,
                _ => Ack::Complete,
            };
            let id = take_u16(&mut rest)?;
            let code = take_u8(&mut rest).unwrap_or(0);
            Packet::Ack { ack, id, code }
        }
        0x90 => {
            let id = take_u16(&mut rest)?;
            take_properties(has_properties, &mut rest)?;
            let codes = rest.to_vec();
            Packet::SubAck { id, codes }
        }
        0xB0 => {
            let id = take_u16(&mut rest)?;
            take_properties(has_properties, &mut rest)?;
            let codes = rest.to_vec();
            Packet::UnsubAck { id, codes }
        }
        0xD0 => Packet::PingResp,
        0xE0 => Packet::Disconnect {
            code: take_u8(&mut rest).unwrap_or(0),
        },
        _ => return None,
    })
}

fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    let (two, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*two))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u16(bytes)?;
    let (text, rest) = bytes.split_at_checked(length.into())?;
    *bytes = rest;
    Some(text)
}

fn take_properties<'a>(has_properties: bool, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    if !has_properties {
        return Some(&[]);
    }
    let mut length = usize::from(take_u8(bytes)?);
    if length >= 0x80 {
        length = length & 0x7F | usize::from(take_u8(bytes)?) << 7;
    }
    let (properties, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(properties)
}

/// The value of a numeric property, if it is there.
fn number_of(mut properties: &[u8], wanted: u8) -> Option<u32> {
    while let Some(id) = take_u8(&mut properties) {
        let value = match id {
            0x01 | 0x24 | 0x25 | 0x28..=0x2A => u32::from(take_u8(&mut properties)?),
            0x13 | 0x21..=0x23 => u32::from(take_u16(&mut properties)?),
            0x02 | 0x11 | 0x27 => {
                let high = take_u16(&mut properties)?;
                u32::from(high) << 16 | u32::from(take_u16(&mut properties)?)
            }
            0x0B => {
                let mut number = 0;
                for shift in [0, 7, 14, 21] {
                    let byte = take_u8(&mut properties)?;
                    number |= u32::from(byte & 0x7F) << shift;
                    if byte < 0x80 {
                        break;
                    }
                }
                number
            }
            // Texts, and the two of a user property.
            0x26 => {
                take_text(&mut properties)?;
                take_text(&mut properties)?;
                continue;
            }
            _ => {
                take_text(&mut properties)?;
                continue;
            }
        };
        if id == wanted {
            return Some(value);
        }
    }
    None
}
