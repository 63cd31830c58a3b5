//! JSON as `JSON.parse` reads it, written to be obviously right rather than fast: the codec is compared with it.
//!
//! Unlike the values of other libraries, it has all values of JavaScript: halves of surrogate pairs, infinite numbers,
//! the last of duplicate keys. It recurses, so callers bound the depth by [`DEPTH_MAX`].

use std::collections::BTreeMap;

/// The greatest depth of a text that is read here.
pub const DEPTH_MAX: usize = 600;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` and `false`
    Bool(bool),
    /// A double; may be infinite.
    Number(f64),
    /// UTF-16, perhaps with halves of pairs.
    Text(Vec<u16>),
    /// An array.
    Array(Vec<Value>),
    /// An object; the last of equal keys.
    Object(BTreeMap<Vec<u16>, Value>),
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// The text is not JSON.
    Malformed,
    /// It is nested deeper than is read here.
    TooDeep,
}

impl Value {
    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Object(members) => members.get(&units(name)),
            _ => None,
        }
    }

    /// Whether it is this text.
    pub fn is_text(&self, text: &str) -> bool {
        matches!(self, Value::Text(said) if *said == units(text))
    }
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Value, NoValue> {
    let mut reader = Reader {
        bytes: text.as_bytes(),
        depth: 0,
    };
    let value = reader.value()?;
    reader.space();
    match reader.bytes {
        [] => Ok(value),
        _ => Err(NoValue::Malformed),
    }
}

/// How deep the brackets of a text stand in one another at most, strings left out.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// UTF-16.
pub fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// UTF-16 of WTF-8: UTF-8, but for halves of surrogate pairs, which take three bytes.
pub fn units_of_wtf8(bytes: &[u8]) -> Vec<u16> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let [first, ..] = rest {
        if let [0xed, second @ 0xa0..=0xbf, third, after @ ..] = rest {
            all.push(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f));
            rest = after;
            continue;
        }
        let length = match first {
            0..=0x7f => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        let (character, after) = rest.split_at(length);
        all.extend(units(std::str::from_utf8(character).expect("WTF-8")));
        rest = after;
    }
    all
}

/// A value as the reference passes it on; `None` if a buffer has a value that only JavaScript converts to a number.
pub fn passed_on(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Number(number) if !number.is_finite() => Value::Null,
        // Minus zero as well.
        Value::Number(number) => Value::Number(number + 0.0),
        Value::Array(elements) => Value::Array(elements.iter().map(passed_on).collect::<Option<_>>()?),
        Value::Object(members) => {
            let is_buffer = value.member("type").is_some_and(|kind| kind.is_text("Buffer"));
            if let (true, Some(Value::Array(octets))) = (is_buffer, value.member("data")) {
                let octets = octets.iter().map(octet).collect::<Option<Vec<u8>>>()?;
                return Some(base64_object(&octets));
            }
            let members = members.iter();
            let printed = members.map(|(name, value)| Some((name.clone(), passed_on(value)?)));
            Value::Object(printed.collect::<Option<_>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Text(_) => value.clone(),
    })
}

fn base64_object(octets: &[u8]) -> Value {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(octets);
    let members = [("base64", Value::Bool(true)), ("data", Value::Text(units(&text)))];
    Value::Object(members.map(|(name, value)| (units(name), value)).into())
}

/// `ToUint8(Number(element))`, for elements that are no arrays, and for texts that are plain integers.
fn octet(element: &Value) -> Option<u8> {
    let number = match element {
        Value::Null | Value::Bool(false) => 0.0,
        Value::Bool(true) => 1.0,
        Value::Number(number) => *number,
        // `NaN`, as objects are.
        Value::Object(_) => 0.0,
        Value::Array(_) => return None,
        Value::Text(units) => {
            let text = String::from_utf16(units).ok()?;
            if text.is_empty() || text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            text.parse().ok()?
        }
    };
    if !number.is_finite() {
        return Some(0);
    }
    // Without sign and fraction first; a number from 2^53 on is a multiple of 256, or exact.
    let octet = number.trunc().rem_euclid(256.0);
    (0..=255).find(|byte| f64::from(*byte) == octet)
}

struct Reader<'a> {
    bytes: &'a [u8],
    depth: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.bytes {
            self.bytes = rest;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.bytes.split_first() {
            Some((first, rest)) if *first == byte => {
                self.bytes = rest;
                true
            }
            _ => false,
        }
    }

    fn must_take(&mut self, byte: u8) -> Result<(), NoValue> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(NoValue::Malformed)
        }
    }

    fn value(&mut self) -> Result<Value, NoValue> {
        self.space();
        for (word, value) in [
            (&b"null"[..], Value::Null),
            (b"true", Value::Bool(true)),
            (b"false", Value::Bool(false)),
        ] {
            if let Some(rest) = self.bytes.strip_prefix(word) {
                self.bytes = rest;
                return Ok(value);
            }
        }
        match self.bytes.first() {
            Some(b'"') => self.text().map(Value::Text),
            Some(b'[' | b'{') => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(NoValue::TooDeep);
                }
                let value = if self.take(b'[') {
                    self.array()
                } else {
                    self.object()
                };
                self.depth -= 1;
                value
            }
            _ => self.number(),
        }
    }

    fn array(&mut self) -> Result<Value, NoValue> {
        let mut elements = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            self.space();
            if self.take(b']') {
                return Ok(Value::Array(elements));
            }
            self.must_take(b',')?;
        }
    }

    fn object(&mut self) -> Result<Value, NoValue> {
        self.must_take(b'{')?;
        let mut members = BTreeMap::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let key = self.text()?;
            self.space();
            self.must_take(b':')?;
            members.insert(key, self.value()?);
            self.space();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            self.must_take(b',')?;
        }
    }

    fn text(&mut self) -> Result<Vec<u16>, NoValue> {
        self.must_take(b'"')?;
        let mut all = Vec::new();
        loop {
            let plain = self
                .bytes
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
                .ok_or(NoValue::Malformed)?;
            let (before, rest) = self.bytes.split_at(plain);
            all.extend(units(std::str::from_utf8(before).expect("it ends beside ASCII")));
            self.bytes = rest;
            if self.take(b'"') {
                return Ok(all);
            }
            self.must_take(b'\\')?;
            let (kind, rest) = self.bytes.split_first().ok_or(NoValue::Malformed)?;
            self.bytes = rest;
            all.push(match kind {
                b'"' | b'\\' | b'/' => u16::from(*kind),
                b'b' => 8,
                b'f' => 12,
                b'n' => 10,
                b'r' => 13,
                b't' => 9,
                b'u' => self.unit()?,
                _ => return Err(NoValue::Malformed),
            });
        }
    }

    fn unit(&mut self) -> Result<u16, NoValue> {
        let (digits, rest) = self.bytes.split_at_checked(4).ok_or(NoValue::Malformed)?;
        self.bytes = rest;
        digits.iter().try_fold(0, |unit: u16, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(NoValue::Malformed)?;
            Ok(unit << 4 | u16::try_from(digit).expect("one digit"))
        })
    }

    fn number(&mut self) -> Result<Value, NoValue> {
        let start = self.bytes;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let text = &start[..start.len() - self.bytes.len()];
        let text = std::str::from_utf8(text).expect("ASCII");
        Ok(Value::Number(
            text.parse().expect("a number of JSON's is one of Rust's"),
        ))
    }

    fn digits(&mut self) -> Result<(), NoValue> {
        let count = self.bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.bytes = &self.bytes[count..];
        if count > 0 {
            Ok(())
        } else {
            Err(NoValue::Malformed)
        }
    }
}
