//! Encodes the messages of a SocketCluster client, and decodes the messages of a server.
//!
//! Replies and deliveries in the usual form are recognised by their fixed prefix; other forms go through a JSON parser
//! and must mean the same. The data of a publication lets a receiver check it: its publisher, its number among the
//! publications of this publisher on the channel, and the time at which it was due.

use serde_json::Value;

/// The upgrade request. Its key is that of RFC 6455 section 1.3, so the answer is known.
pub(crate) fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The length of the answer to the upgrade, if it is complete; an error if it is not a 101.
pub(crate) fn upgraded(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Err("no end of the answer to the upgrade".to_owned())
        } else {
            Ok(None)
        };
    };
    let head = &bytes[..end];
    let accepted = head.windows(ACCEPT.len()).any(|part| part == ACCEPT);
    if head.starts_with(b"HTTP/1.1 101 ") && accepted {
        Ok(Some(end + 4))
    } else {
        Err(format!("the upgrade was answered with {}", shown(head)))
    }
}

const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A frame of the server: op code, payload, and length in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    pub(crate) bytes: usize,
}

/// The first frame in `bytes`; `None` if it is incomplete. The servers under test neither fragment nor compress.
#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame begins with {first:#04x} {second:#04x}"));
    }
    let (header, length) = match second {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|eight| eight.try_into().ok()) {
            Some(eight) => (
                10,
                usize::try_from(u64::from_be_bytes(eight)).map_err(|error| error.to_string())?,
            ),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(format!("a frame of {length} bytes"));
    }
    Ok(bytes.get(header..header + length).map(|payload| Frame {
        opcode: first & 0x0f,
        payload,
        bytes: header + length,
    }))
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Appends a masked frame whose payload `write` appends.
pub(crate) fn masked(out: &mut Vec<u8>, opcode: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | opcode, 0, MASK[0], MASK[1], MASK[2], MASK[3]]);
    write(out);
    let length = out.len() - start - 6;
    let mut payload = start + 6;
    if let Some(short) = u8::try_from(length).ok().filter(|short| *short < 126) {
        out[start + 1] = 0x80 | short;
    } else if let Ok(middle) = u16::try_from(length) {
        out[start + 1] = 0x80 | 126;
        out.splice(start + 2..start + 2, middle.to_be_bytes());
        payload += 2;
    } else {
        out[start + 1] = 0x80 | 127;
        out.splice(start + 2..start + 2, (length as u64).to_be_bytes());
        payload += 8;
    }
    let (words, rest) = out[payload..].as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(MASK)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(MASK) {
        *byte ^= mask;
    }
}

/// The mask of all frames. Masks protect proxies, and there are none here.
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

pub(crate) fn handshake(out: &mut Vec<u8>, cid: u32) {
    call(
        out,
        br##"{"event":"#handshake","data":{"authToken":null},"cid":"##,
        cid,
    );
}

pub(crate) fn ping(out: &mut Vec<u8>, cid: u32) {
    call(out, br#"{"event":"ping","data":{"param":"hello"},"cid":"#, cid);
}

pub(crate) fn subscribe(out: &mut Vec<u8>, channel: u32, cid: u32) {
    masked(out, TEXT, |out| {
        out.extend_from_slice(br##"{"event":"#subscribe","data":{"channel":"load-"##);
        number(out, channel);
        out.extend_from_slice(br#""},"cid":"#);
        number(out, cid);
        out.push(b'}');
    });
}

/// Publishes without a call id; the check is that the publication arrives.
pub(crate) fn publish(out: &mut Vec<u8>, publication: &Publication, pad: &str) {
    masked(out, TEXT, |out| {
        out.extend_from_slice(DELIVERY);
        number(out, publication.channel);
        out.extend_from_slice(FROM);
        number(out, publication.from);
        out.extend_from_slice(NUMBER);
        number(out, publication.number);
        out.extend_from_slice(AT);
        number(out, publication.at);
        if !pad.is_empty() {
            out.extend_from_slice(PAD);
            out.extend_from_slice(pad.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"}}}");
    });
}

const DELIVERY: &[u8] = br##"{"event":"#publish","data":{"channel":"load-"##;
const FROM: &[u8] = br#"","data":{"from":"#;
const NUMBER: &[u8] = br#","number":"#;
const AT: &[u8] = br#","at":"#;
const PAD: &[u8] = br#","pad":""#;

pub(crate) fn close(out: &mut Vec<u8>) {
    masked(out, CLOSE, |out| out.extend_from_slice(&NORMAL.to_be_bytes()));
}

/// Close code of a normal end: RFC 6455 section 7.4.1.
const NORMAL: u16 = 1000;

fn call(out: &mut Vec<u8>, packet: &[u8], cid: u32) {
    masked(out, TEXT, |out| {
        out.extend_from_slice(packet);
        number(out, cid);
        out.push(b'}');
    });
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The data of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) channel: u32,
    /// The number of its publisher among all clients.
    pub(crate) from: u32,
    /// Its number among the publications of its publisher on this channel, from 0.
    pub(crate) number: u32,
    /// The time at which it was due, in nanoseconds of the generator's clock.
    pub(crate) at: u64,
}

/// A text message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A ping of protocol version 2; the answer is the same text.
    Heartbeat,
    /// A ping of protocol version 1, `#1`; the answer is `#2`.
    HeartbeatV1,
    /// The answer to a call; `count` is that in the answer to a ping.
    Reply { rid: u32, count: Option<u64> },
    /// A delivery.
    Publication(Publication),
}

/// Reads a text message. The error contains a message that a client does not expect.
#[inline]
pub(crate) fn message(text: &[u8], pad: &str) -> Result<Message, String> {
    if text.is_empty() {
        return Ok(Message::Heartbeat);
    }
    if let Some(message) = reply(text) {
        return Ok(message);
    }
    if let Some(publication) = delivery(text, pad) {
        return Ok(Message::Publication(publication));
    }
    if text == b"#1" {
        return Ok(Message::HeartbeatV1);
    }
    other_form(text, pad).ok_or_else(|| shown(text))
}

/// `{"rid":2,"data":{"count":5}}` or `{"rid":2}`.
fn reply(text: &[u8]) -> Option<Message> {
    let (rid, rest) = digits(text.strip_prefix(br#"{"rid":"#)?)?;
    let rid = u32::try_from(rid).ok()?;
    if rest == b"}" {
        return Some(Message::Reply { rid, count: None });
    }
    let (count, rest) = digits(rest.strip_prefix(br#","data":{"count":"#)?)?;
    (rest == b"}}").then_some(Message::Reply {
        rid,
        count: Some(count),
    })
}

fn delivery(text: &[u8], pad: &str) -> Option<Publication> {
    let (channel, rest) = digits(text.strip_prefix(DELIVERY)?)?;
    let (from, rest) = digits(rest.strip_prefix(FROM)?)?;
    let (number, rest) = digits(rest.strip_prefix(NUMBER)?)?;
    let (at, mut rest) = digits(rest.strip_prefix(AT)?)?;
    if !pad.is_empty() {
        rest = rest
            .strip_prefix(PAD)?
            .strip_prefix(pad.as_bytes())?
            .strip_prefix(b"\"")?;
    }
    (rest == b"}}}").then_some(())?;
    Some(Publication {
        channel: u32::try_from(channel).ok()?,
        from: u32::try_from(from).ok()?,
        number: u32::try_from(number).ok()?,
        at,
    })
}

/// A number without sign, leading zeros or overflow, and the text after it.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > DIGITS_MAX || (count > 1 && text[0] == b'0') {
        return None;
    }
    let value = text[..count]
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, &text[count..]))
}

/// Ten to this power is below 2^64.
const DIGITS_MAX: usize = 19;

/// Reads the same messages with other blanks, another order of keys, or further keys.
#[cold]
fn other_form(text: &[u8], pad: &str) -> Option<Message> {
    let value: Value = serde_json::from_slice(text).ok()?;
    if value.get("error").is_some_and(|error| !error.is_null()) {
        return None;
    }
    let small = |value: &Value| u32::try_from(value.as_u64()?).ok();
    if let Some(rid) = value.get("rid") {
        return Some(Message::Reply {
            rid: small(rid)?,
            count: value.pointer("/data/count").and_then(Value::as_u64),
        });
    }
    (value.get("event")? == "#publish").then_some(())?;
    let channel = value.pointer("/data/channel")?.as_str()?;
    let data = value.pointer("/data/data")?;
    (data.get("pad").map_or(Some(""), Value::as_str)? == pad).then_some(())?;
    Some(Message::Publication(Publication {
        channel: channel.strip_prefix("load-")?.parse().ok()?,
        from: small(data.get("from")?)?,
        number: small(data.get("number")?)?,
        at: data.get("at")?.as_u64()?,
    }))
}

/// The first bytes as readable text.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    let more = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{text:?}{more}")
}

const SHOWN_BYTES: usize = 200;
