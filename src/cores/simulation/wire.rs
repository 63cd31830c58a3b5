//! The bytes between a client and the server, made and read by the client's own code, which shares none with
//! the server.

use super::random::Random;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    pub(super) payload: Vec<u8>,
}

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

pub(super) const REQUEST: &str = "GET /socketcluster/ HTTP/1.1\r\nHost: simulation\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The status of a response head and where it ends, if it is there.
pub(super) fn response_head(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    Some((status, end))
}

/// The frame at the beginning of the bytes and its length, if it is whole.
///
/// # Errors
/// No server may send this.
pub(super) fn take_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    if first & 0xF0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame begins with {first:02x} {second:02x}"));
    }
    let (length, head) = match (second, bytes.get(2..4), bytes.get(2..10)) {
        (126, Some(&[high, low]), _) => (usize::from(u16::from_be_bytes([high, low])), 4),
        (127, _, Some(eight)) => {
            let length = u64::from_be_bytes(eight.try_into().map_err(|_| "eight bytes")?);
            (usize::try_from(length).map_err(|_| "too long")?, 10)
        }
        (126 | 127, _, _) => return Ok(None),
        _ => (usize::from(second), 2),
    };
    let end = head + length;
    let frame = bytes.get(head..end).map(|payload| Frame {
        opcode: first & 0x0F,
        payload: payload.to_vec(),
    });
    Ok(frame.map(|frame| (frame, end)))
}

/// Appends a masked frame.
pub(super) fn push_frame(bytes: &mut Vec<u8>, random: &mut Random, first: u8, payload: &[u8]) {
    bytes.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => bytes.push(0x80 | length),
        (_, Ok(length)) => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
        (_, Err(_)) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let [a, b, c, d, ..] = random.next().to_ne_bytes();
    let mask = [a, b, c, d];
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// Appends a text message, now and then in fragments with a ping between them.
pub(super) fn push_text(bytes: &mut Vec<u8>, random: &mut Random, text: &str) {
    if text.is_empty() || random.chance(9, 10) {
        push_frame(bytes, random, 0x80 | TEXT, text.as_bytes());
        return;
    }
    let (first, rest) = text.as_bytes().split_at(random.below(text.len()));
    push_frame(bytes, random, TEXT, first);
    if random.chance(1, 2) {
        push_frame(bytes, random, 0x80 | PING, b"?");
    }
    push_frame(bytes, random, 0x80, rest);
}

/// Appends a close frame.
pub(super) fn push_close(bytes: &mut Vec<u8>, random: &mut Random, code: u16) {
    push_frame(bytes, random, 0x80 | CLOSE, &code.to_be_bytes());
}
