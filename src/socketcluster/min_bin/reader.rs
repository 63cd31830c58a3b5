//! MessagePack to JSON text.
//!
//! Invariant: every byte of the message is read at most once and causes at most six written bytes; a declared
//! length reserves no memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BYTES_BEGIN, BYTES_END, KEPT_BYTES_MAX};
use crate::json::string;

/// A message that is not MessagePack, or that has no counterpart in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Reads one message after the other.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The containers that the current value lies in.
    open: Vec<Container>,
}

/// A container that has begun.
#[derive(Clone, Copy, Debug)]
struct Container {
    /// Values that are still to come.
    left: u32,
    is_map: bool,
}

/// The rest of a message.
struct Input<'m>(&'m [u8]);

/// A value, or the beginning of a container.
enum Token<'m> {
    Nil,
    Bool(bool),
    /// JavaScript reads all numbers as doubles.
    Number(f64),
    String(&'m str),
    Bytes(&'m [u8]),
    Array(u32),
    Map(u32),
}

impl Reader {
    /// Appends the JSON text of the first value of `message`: its packets in their long form.
    pub(super) fn read(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let mut input = Input(message);
        match input.token()? {
            Token::Map(count) => self.packet(&mut input, count, out),
            Token::Array(count) => {
                out.push(b'[');
                for number in 0..count {
                    if number > 0 {
                        out.push(b',');
                    }
                    match input.token()? {
                        Token::Map(count) => self.packet(&mut input, count, out)?,
                        token => self.value(&mut input, token, out)?,
                    }
                }
                out.push(b']');
                Ok(())
            }
            // Pongs of version 14.
            Token::String(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            token => self.value(&mut input, token, out),
        }
    }

    /// Frees the memory of deeply nested messages.
    pub(super) fn shrink(&mut self) {
        if self.open.capacity() * size_of::<Container>() > KEPT_BYTES_MAX {
            self.open = Vec::new();
        }
    }

    /// Appends a packet whose map has `count` members. The reference takes the long form as well.
    fn packet(&mut self, input: &mut Input<'_>, count: u32, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        out.push(b'{');
        let start = out.len();
        for _ in 0..count {
            let name = input.token()?;
            let members: &[&str] = match name {
                Token::String("e") => &["event", "data", "cid"],
                Token::String("p") => &["channel", "data", "cid"],
                Token::String("r") => &["rid", "error", "data"],
                name => {
                    separate(out, start);
                    key(name, out)?;
                    let value = input.token()?;
                    self.value(input, value, out)?;
                    continue;
                }
            };
            match input.token()? {
                Token::Array(count) => {
                    let is_publication = members[0] == "channel";
                    self.short_form(input, members, is_publication, count, out, start)?;
                }
                // The reference treats null like an absent letter.
                Token::Nil => {}
                Token::Bool(_) | Token::Number(_) | Token::String(_) | Token::Bytes(_) | Token::Map(_) => {
                    return Err(Unreadable);
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Appends the members that the array of a letter stands for. `start` is the place of the packet's first
    /// member.
    fn short_form(
        &mut self,
        input: &mut Input<'_>,
        members: &[&str],
        is_publication: bool,
        count: u32,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), Unreadable> {
        if is_publication {
            separate(out, start);
            out.extend_from_slice(br##""event":"#publish","data":{"##);
        }
        let mut is_in_data = is_publication;
        for number in 0..count {
            let Some(&name) = members.get(number as usize) else {
                // The reference ignores further members.
                let (length, token) = (out.len(), input.token()?);
                self.value(input, token, out)?;
                out.truncate(length);
                continue;
            };
            let token = input.token()?;
            if name == "cid" {
                if std::mem::take(&mut is_in_data) {
                    out.push(b'}');
                }
                if let Token::Nil = token {
                    continue;
                }
            }
            separate(out, start);
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            self.value(input, token, out)?;
        }
        if is_in_data {
            out.push(b'}');
        }
        Ok(())
    }

    /// Appends a value that begins with `token`.
    fn value(
        &mut self,
        input: &mut Input<'_>,
        token: Token<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        self.open.clear();
        let mut next = Some(token);
        loop {
            let token = match next.take() {
                Some(token) => token,
                None => input.token()?,
            };
            match token {
                Token::Nil => out.extend_from_slice(b"null"),
                Token::Bool(true) => out.extend_from_slice(b"true"),
                Token::Bool(false) => out.extend_from_slice(b"false"),
                Token::Number(number) => write_number(number, out),
                Token::String(text) => string::write_json(text.as_bytes(), out),
                Token::Bytes(bytes) => write_bytes(bytes, out),
                Token::Array(0) => out.extend_from_slice(b"[]"),
                Token::Map(0) => out.extend_from_slice(b"{}"),
                Token::Array(left) => {
                    out.push(b'[');
                    self.open.push(Container { left, is_map: false });
                    continue;
                }
                Token::Map(left) => {
                    out.push(b'{');
                    self.open.push(Container { left, is_map: true });
                    key(input.token()?, out)?;
                    continue;
                }
            }
            // A value has ended, and with it the containers whose last value it was.
            loop {
                let Some(container) = self.open.last_mut() else {
                    return Ok(());
                };
                container.left -= 1;
                if container.left > 0 {
                    out.push(b',');
                    if container.is_map {
                        key(input.token()?, out)?;
                    }
                    break;
                }
                out.push(if container.is_map { b'}' } else { b']' });
                self.open.pop();
            }
        }
    }
}

impl<'m> Input<'m> {
    /// The next value, or the beginning of a container (MessagePack specification, "Formats").
    fn token(&mut self) -> Result<Token<'m>, Unreadable> {
        let [first] = self.array()?;
        Ok(match first {
            0x00..=0x7f => Token::Number(first.into()),
            0x80..=0x8f => Token::Map((first & 0x0f).into()),
            0x90..=0x9f => Token::Array((first & 0x0f).into()),
            0xa0..=0xbf => Token::String(text(self.take((first & 0x1f).into())?)?),
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => Token::Bytes(self.counted::<1>()?),
            0xc5 => Token::Bytes(self.counted::<2>()?),
            0xc6 => Token::Bytes(self.counted::<4>()?),
            0xca => Token::Number(f32::from_be_bytes(self.array()?).into()),
            0xcb => Token::Number(f64::from_be_bytes(self.array()?)),
            0xcc => Token::Number(u8::from_be_bytes(self.array()?).into()),
            0xcd => Token::Number(u16::from_be_bytes(self.array()?).into()),
            0xce => Token::Number(u32::from_be_bytes(self.array()?).into()),
            0xcf => Token::Number(u64::from_be_bytes(self.array()?) as f64),
            0xd0 => Token::Number(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Token::Number(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Token::Number(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Token::Number(i64::from_be_bytes(self.array()?) as f64),
            0xd9 => Token::String(text(self.counted::<1>()?)?),
            0xda => Token::String(text(self.counted::<2>()?)?),
            0xdb => Token::String(text(self.counted::<4>()?)?),
            0xdc => Token::Array(self.number::<2>()?),
            0xdd => Token::Array(self.number::<4>()?),
            0xde => Token::Map(self.number::<2>()?),
            0xdf => Token::Map(self.number::<4>()?),
            0xe0..=0xff => Token::Number(first.cast_signed().into()),
            // Extension types, and the byte that is never used.
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Unreadable),
        })
    }

    /// As many bytes as the next `LENGTH` bytes say.
    fn counted<const LENGTH: usize>(&mut self) -> Result<&'m [u8], Unreadable> {
        let count = self.number::<LENGTH>()?;
        self.take(count as usize)
    }

    /// The number in the next `LENGTH` bytes, which are at most four.
    fn number<const LENGTH: usize>(&mut self) -> Result<u32, Unreadable> {
        let bytes = self.array::<LENGTH>()?;
        Ok(bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Unreadable> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'m [u8], Unreadable> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// The text of a string. A string that is not UTF-8 makes the message unreadable.
fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Unreadable)
}

/// Separates the next member of a packet from the one before it, if there is one. `start` is the place of the
/// first member.
fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start && out.last() != Some(&b'{') {
        out.push(b',');
    }
}

/// Appends the name of a member and its colon. JavaScript makes a text of every name.
fn key(token: Token<'_>, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    match token {
        Token::String(text) => string::write_json(text.as_bytes(), out),
        Token::Nil => out.extend_from_slice(br#""null""#),
        Token::Bool(value) => {
            let text: &[u8] = if value { br#""true""# } else { br#""false""# };
            out.extend_from_slice(text);
        }
        Token::Number(number) => {
            out.push(b'"');
            write_number(number, out);
            out.push(b'"');
        }
        Token::Bytes(_) | Token::Array(_) | Token::Map(_) => return Err(Unreadable),
    }
    out.push(b':');
    Ok(())
}

/// Appends a number as JavaScript prints it.
fn write_number(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(BYTES_BEGIN.as_bytes());
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if STANDARD.encode_slice(bytes, &mut out[start..]).is_err() {
        // There is room for padded Base64, so this does not happen.
        out.truncate(start);
    }
    out.extend_from_slice(BYTES_END.as_bytes());
}
