//! JSON text to MessagePack, byte for byte as `msgpack-lite` 0.1.26 writes it for the reference's codec.
//!
//! In MessagePack the length of a container stands before its values. So a text is read twice: first to count
//! the values, then to write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BYTES_BEGIN, BYTES_END, Fault, KEPT_BYTES_MAX, Scanner};
use crate::json::string::StringSlice;

/// Writes one message after the other.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// How many values each container of the current value has, in the order in which the containers begin.
    counts: Vec<u32>,
    /// The containers, by their place in `counts`, that the scan is in.
    open: Vec<usize>,
    /// The string or the bytes that are being written, decoded.
    decoded: Vec<u8>,
}

/// The members of a packet that have a place in a short form, as the texts of their values.
#[derive(Clone, Copy, Debug, Default)]
struct Members<'t> {
    event: Option<&'t str>,
    rid: Option<&'t str>,
    cid: Option<&'t str>,
    data: Option<&'t str>,
    error: Option<&'t str>,
}

/// The members of a publication.
struct PublishedData<'t> {
    channel: Option<&'t str>,
    data: &'t str,
}

impl Writer {
    /// Appends the packet or the packets of `text`.
    pub(super) fn write(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut scanner = Scanner::new(text);
        scanner.skip_space();
        match scanner.peek() {
            Some(b'{') => self.packet(&text[scanner.position()..], out),
            Some(b'[') => {
                let packets = elements(text)?;
                write_array_head(packets.len(), out);
                packets
                    .into_iter()
                    .try_for_each(|packet| match packet.starts_with('{') {
                        true => self.packet(packet, out),
                        false => self.value(packet, out),
                    })
            }
            Some(_) | None => Err(Fault::Malformed),
        }
    }

    /// Frees the memory of large messages.
    pub(super) fn shrink(&mut self) {
        let bytes = self.counts.capacity() * size_of::<u32>()
            + self.open.capacity() * size_of::<usize>()
            + self.decoded.capacity();
        if bytes > KEPT_BYTES_MAX {
            *self = Writer::default();
        }
    }

    fn packet(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut members = Members::default();
        let mut others = Vec::new();
        for_each_member(text, |name, key, value| match name {
            name if name.is("event") => members.event = Some(value),
            name if name.is("data") => members.data = Some(value),
            name if name.is("cid") => members.cid = Some(value),
            name if name.is("rid") => members.rid = Some(value),
            name if name.is("error") => members.error = Some(value),
            _ => others.push((key, value)),
        })?;
        let is_set = |value: &&str| *value != "null";
        let Members { data, error, .. } = members;
        let (event, rid) = (members.event.filter(is_set), members.rid.filter(is_set));
        let cid = members.cid.filter(is_set);
        let letters = usize::from(event.is_some() || rid.is_some());
        if letters == 0 {
            return self.value(text, out);
        }
        MAP.write(others.len() + letters, out);
        for (key, value) in others {
            self.value(key, out)?;
            self.value(value, out)?;
        }
        match (event, rid) {
            (Some(event), _) => {
                let published = data.filter(|_| event == "\"#publish\"").and_then(published_data);
                match published {
                    Some(PublishedData { channel, data }) => {
                        self.short_form("p", [channel, Some(data)], cid, out)
                    }
                    None => self.short_form("e", [Some(event), data], cid, out),
                }
            }
            (None, rid) => self.short_form("r", [rid, error], Some(data.unwrap_or("null")), out),
        }
    }

    /// Appends a letter and its array: two values (nil for an absent one), and a third if there is one.
    fn short_form(
        &mut self,
        letter: &str,
        two: [Option<&str>; 2],
        third: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        write_string(letter.as_bytes(), out);
        write_array_head(2 + usize::from(third.is_some()), out);
        for value in two {
            self.value(value.unwrap_or("null"), out)?;
        }
        third.map_or(Ok(()), |value| self.value(value, out))
    }

    /// Appends any value. `text` is JSON: the scanner has passed it.
    fn value(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.count(text)?;
        let mut counts = 0;
        let mut scanner = Scanner::new(text);
        loop {
            scanner.skip_space();
            match scanner.peek() {
                None => return Ok(()),
                Some(b'"') => {
                    let string = scanner.string()?;
                    self.string(&string, out);
                }
                Some(b'{') if let Some(length) = self.bytes(&text[scanner.position()..]) => {
                    write_bytes(&self.decoded, out);
                    scanner.skip_to(scanner.position() + length);
                }
                Some(open @ (b'{' | b'[')) => {
                    let count = self.counts.get(counts).copied().ok_or(Fault::Malformed)?;
                    counts += 1;
                    match open {
                        b'{' => MAP.write(count as usize, out),
                        _ => write_array_head(count as usize, out),
                    }
                    scanner.pass(open);
                }
                Some(b't') => {
                    scanner.pass_all(b"true");
                    out.push(0xc3);
                }
                Some(b'f') => {
                    scanner.pass_all(b"false");
                    out.push(0xc2);
                }
                Some(b'n') => {
                    scanner.pass_all(b"null");
                    out.push(0xc0);
                }
                Some(b'-' | b'0'..=b'9') => {
                    let start = scanner.position();
                    scanner.value()?;
                    write_number(scanner.since(start), out);
                }
                // Between two values, or at the end of a container.
                Some(mark) => {
                    scanner.pass(mark);
                }
            }
        }
    }

    /// Counts the values of each container, in the order in which the containers begin.
    fn count(&mut self, text: &str) -> Result<(), Fault> {
        self.counts.clear();
        self.open.clear();
        let mut scanner = Scanner::new(text);
        let mut is_first = false;
        loop {
            scanner.skip_space();
            let Some(byte) = scanner.peek() else {
                return Ok(());
            };
            // A comma announces each value of a container but the first, which announces itself.
            let begins = !matches!(byte, b'}' | b']');
            if std::mem::take(&mut is_first)
                && begins
                && let Some(&container) = self.open.last()
            {
                self.counts[container] = 1;
            }
            match byte {
                b'"' => {
                    scanner.string()?;
                    continue;
                }
                b'{' if let Some(length) = self.bytes(&text[scanner.position()..]) => {
                    scanner.skip_to(scanner.position() + length);
                    continue;
                }
                b'{' | b'[' => {
                    self.open.push(self.counts.len());
                    self.counts.push(0);
                    is_first = true;
                }
                b'}' | b']' => {
                    self.open.pop();
                }
                b',' => {
                    if let Some(&container) = self.open.last() {
                        self.counts[container] += 1;
                    }
                }
                // Colons, and parts of numbers and literals.
                _ => {}
            }
            scanner.skip_to(scanner.position() + 1);
        }
    }

    fn string(&mut self, string: &StringSlice<'_>, out: &mut Vec<u8>) {
        match string.plain() {
            Some(text) => write_string(text.as_bytes(), out),
            None => {
                self.decoded.clear();
                string.write_decoded(&mut self.decoded);
                write_string(&self.decoded, out);
            }
        }
    }

    /// The length of the text if it begins with bytes, which are decoded then.
    fn bytes(&mut self, text: &str) -> Option<usize> {
        let base64 = text.strip_prefix(BYTES_BEGIN)?;
        let length = base64.find('"')?;
        base64[length..].strip_prefix(BYTES_END)?;
        self.decoded.clear();
        STANDARD.decode_vec(&base64[..length], &mut self.decoded).ok()?;
        Some(BYTES_BEGIN.len() + length + BYTES_END.len())
    }
}

/// The channel and the data of a publication, if it has data and nothing else.
fn published_data(text: &str) -> Option<PublishedData<'_>> {
    if !text.starts_with('{') {
        return None;
    }
    let (mut channel, mut data, mut is_plain) = (None, None, true);
    for_each_member(text, |name, _, value| {
        if name.is("channel") {
            channel = Some(value);
        } else if name.is("data") {
            data = Some(value);
        } else {
            is_plain = false;
        }
    })
    .ok()?;
    is_plain.then_some(PublishedData {
        channel,
        data: data.unwrap_or("null"),
    })
}

/// Calls `act` with the name, the text of the name, and the text of the value of each member of an object.
fn for_each_member<'t>(
    text: &'t str,
    mut act: impl FnMut(StringSlice<'t>, &'t str, &'t str),
) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    scanner.expect(b'{')?;
    scanner.skip_space();
    if scanner.pass(b'}') {
        return Ok(());
    }
    loop {
        scanner.skip_space();
        let start = scanner.position();
        let name = scanner.string()?;
        let key = scanner.since(start);
        scanner.skip_space();
        scanner.expect(b':')?;
        scanner.skip_space();
        let start = scanner.position();
        scanner.value()?;
        act(name, key, scanner.since(start));
        scanner.skip_space();
        if !scanner.pass(b',') {
            return scanner.expect(b'}');
        }
    }
}

/// The texts of the values of an array.
fn elements(text: &str) -> Result<Vec<&str>, Fault> {
    let mut elements = Vec::new();
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    scanner.expect(b'[')?;
    scanner.skip_space();
    if !scanner.pass(b']') {
        loop {
            scanner.skip_space();
            let start = scanner.position();
            scanner.value()?;
            elements.push(scanner.since(start));
            scanner.skip_space();
            if !scanner.pass(b',') {
                break scanner.expect(b']')?;
            }
        }
    }
    scanner.finish()?;
    Ok(elements)
}

/// The forms in which the length of a value stands before it (MessagePack specification, "Formats").
struct Head {
    /// The first byte that holds the length as well, and the longest such length.
    in_first: Option<(u8, usize)>,
    /// The first byte before a length of one byte, and the longest such length.
    one_byte: Option<(u8, usize)>,
    two_bytes: u8,
    four_bytes: u8,
}

const STRING: Head = Head {
    in_first: Some((0xa0, 31)),
    one_byte: Some((0xd9, 0xff)),
    two_bytes: 0xda,
    four_bytes: 0xdb,
};
/// `msgpack-lite` writes the length 255 in two bytes.
const BYTES: Head = Head {
    in_first: None,
    one_byte: Some((0xc4, 0xfe)),
    two_bytes: 0xc5,
    four_bytes: 0xc6,
};
const ARRAY: Head = Head {
    in_first: Some((0x90, 15)),
    one_byte: None,
    two_bytes: 0xdc,
    four_bytes: 0xdd,
};
const MAP: Head = Head {
    in_first: Some((0x80, 15)),
    one_byte: None,
    two_bytes: 0xde,
    four_bytes: 0xdf,
};

impl Head {
    fn write(&self, length: usize, out: &mut Vec<u8>) {
        // No message is longer than four bytes can say.
        let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        match (self.in_first, self.one_byte) {
            (Some((first, longest)), _) if length <= longest => out.push(first | d),
            (_, Some((first, longest))) if length <= longest => out.extend_from_slice(&[first, d]),
            _ if length <= 0xffff => out.extend_from_slice(&[self.two_bytes, c, d]),
            _ => out.extend_from_slice(&[self.four_bytes, a, b, c, d]),
        }
    }
}

/// Appends a string.
pub(super) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    STRING.write(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends the head of an array.
pub(super) fn write_array_head(count: usize, out: &mut Vec<u8>) {
    ARRAY.write(count, out);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    BYTES.write(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends the number of a JSON text: a whole number of 32 bits in as few bytes as it takes, any other one as a double.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a number that is not whole, or too large, is told by comparison"
)]
fn write_number(text: &str, out: &mut Vec<u8>) {
    // Rust's grammar of numbers includes JSON's.
    let number: f64 = text.parse().unwrap_or(f64::INFINITY);
    let whole = number as i32;
    if !number.is_finite() {
        // Too large for a double: the reference's other codec writes null as well.
        return out.push(0xc0);
    }
    if f64::from(whole) != number {
        out.push(0xcb);
        return out.extend_from_slice(&number.to_be_bytes());
    }
    let [a, b, c, d] = whole.to_be_bytes();
    match whole {
        -0x20..=0x7f => out.push(d),
        0x80..=0xff => out.extend_from_slice(&[0xcc, d]),
        0x100..=0xffff => out.extend_from_slice(&[0xcd, c, d]),
        0x1_0000.. => out.extend_from_slice(&[0xce, a, b, c, d]),
        -0x80..=-0x21 => out.extend_from_slice(&[0xd0, d]),
        -0x8000..=-0x81 => out.extend_from_slice(&[0xd1, c, d]),
        ..=-0x8001 => out.extend_from_slice(&[0xd2, a, b, c, d]),
    }
}
