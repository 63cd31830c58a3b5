//! JSON as JavaScript reads and prints it.
//!
//! A text is checked once, by [`Json::parse`]; after that it is walked in place, which cannot fail. The usual
//! JSON libraries differ from JavaScript in these points, so they are not used here: of equal keys the last
//! counts, numbers may exceed their type (`1e400` is infinite), strings may contain halves of surrogate
//! pairs, and keys that are array indexes are printed before all others.
//!
//! Invariants
//! 1. The text of a [`Json`] is one value of RFC 8259 without white space around it. `Json::parse` ensures it
//!    with serde_json's check, the walk by cutting only at the boundaries of values.
//!
//! ECMA-262, "`JSON.parse`" and "`JSON.stringify`".

use std::collections::HashMap;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A value within a checked text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Json<'a>(&'a str);

/// A value by its kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind<'a> {
    Null,
    Bool(bool),
    /// May be infinite, as numbers in JavaScript.
    Number(f64),
    /// The text between the quotes, with its escapes.
    String(Escaped<'a>),
    Array,
    Object,
}

/// A string of a checked text, as it is written between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escaped<'a>(&'a str);

/// An object's members in the order in which JavaScript lists them, each key once.
pub(super) type Members<'a> = Vec<(Escaped<'a>, Json<'a>)>;

/// The value is nested deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooDeep;

impl<'a> Json<'a> {
    /// The value, if the text is one JSON value.
    pub(super) fn parse(text: &'a str) -> Option<Json<'a>> {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        Some(Json(raw.get()))
    }

    pub(super) fn kind(self) -> Kind<'a> {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String(Escaped(&self.0[1..self.0.len() - 1])),
            Some(b't') => Kind::Bool(true),
            Some(b'f') => Kind::Bool(false),
            Some(b'n') => Kind::Null,
            _ => Kind::Number(self.0.parse().unwrap_or(f64::NAN)),
        }
    }

    /// True if JavaScript takes the value as true.
    pub(super) fn is_truthy(self) -> bool {
        match self.kind() {
            Kind::Null => false,
            Kind::Bool(value) => value,
            Kind::Number(value) => value != 0.0,
            Kind::String(value) => !value.0.is_empty(),
            Kind::Array | Kind::Object => true,
        }
    }

    /// The member with that name; if there are several, the last. `None` if the value is not an object.
    pub(super) fn member(self, name: &str) -> Option<Json<'a>> {
        let mut found = None;
        self.each_member(|key, value| {
            if key.is(name) {
                found = Some(value);
            }
        });
        found
    }

    /// All members as JavaScript keeps them: array indexes first, in their order; then the other keys in the
    /// order of their first appearance; each with its last value.
    pub(super) fn members(self) -> Members<'a> {
        let mut members: Vec<(Vec<u16>, Escaped<'a>, Json<'a>)> = Vec::new();
        let mut places = HashMap::new();
        self.each_member(|key, value| {
            let units = key.units();
            match places.get(&units) {
                Some(&place) => {
                    let (_, _, old): &mut (_, _, Json<'a>) = &mut members[place];
                    *old = value;
                }
                None => {
                    places.insert(units.clone(), members.len());
                    members.push((units, key, value));
                }
            }
        });
        members.sort_by_key(|(units, _, _)| array_index(units));
        members.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// Appends the value as `JSON.stringify` prints it.
    pub(super) fn write(self, out: &mut Vec<u8>) -> Result<(), TooDeep> {
        self.write_nested(out, DEPTH_MAX)
    }

    fn write_nested(self, out: &mut Vec<u8>, depth: usize) -> Result<(), TooDeep> {
        match self.kind() {
            Kind::Null | Kind::Bool(_) => out.extend_from_slice(self.0.as_bytes()),
            Kind::Number(value) => write_number(value, out),
            Kind::String(value) => write_string(value.units(), out),
            Kind::Array => {
                let depth = depth.checked_sub(1).ok_or(TooDeep)?;
                out.push(b'[');
                let mut first = true;
                let mut result = Ok(());
                self.each_element(|element| {
                    if result.is_ok() {
                        if !std::mem::take(&mut first) {
                            out.push(b',');
                        }
                        result = element.write_nested(out, depth);
                    }
                });
                result?;
                out.push(b']');
            }
            Kind::Object => {
                let depth = depth.checked_sub(1).ok_or(TooDeep)?;
                out.push(b'{');
                for (index, (key, value)) in self.members().into_iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(key.units(), out);
                    out.push(b':');
                    value.write_nested(out, depth)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }

    fn each_member(self, mut visit: impl FnMut(Escaped<'a>, Json<'a>)) {
        if self.kind() != Kind::Object {
            return;
        }
        let mut walk = Walk::into(self.0);
        while let Some(key) = walk.value() {
            let Some(value) = walk.value() else { return };
            if let Kind::String(key) = key.kind() {
                visit(key, value);
            }
        }
    }

    /// Visits the elements of an array, in order.
    pub(super) fn each_element(self, mut visit: impl FnMut(Json<'a>)) {
        let mut walk = Walk::into(self.0);
        while let Some(element) = walk.value() {
            visit(element);
        }
    }
}

impl<'a> Escaped<'a> {
    /// True if the string equals that text.
    pub(super) fn is(self, text: &str) -> bool {
        if self.0.contains('\\') {
            self.code_units().eq(text.encode_utf16())
        } else {
            self.0 == text
        }
    }

    /// True if the string has more bytes in UTF-8 than that, however it is written. Halves of surrogate pairs
    /// count as three bytes.
    pub(super) fn is_longer_than(self, bytes_max: usize) -> bool {
        // An escape has at most six bytes for each byte that it stands for: so a string that cannot fit is
        // not decoded.
        let least = self.0.len().div_ceil(ESCAPE_BYTES);
        least > bytes_max || {
            let characters = char::decode_utf16(self.code_units());
            let lengths = characters.map(|character| character.map_or(3, char::len_utf8));
            lengths.sum::<usize>() > bytes_max
        }
    }

    /// The string, if it is valid text. It is written only once, into memory that is wiped when it is
    /// dropped, since it may be a password.
    pub(super) fn text(self) -> Option<Zeroizing<String>> {
        // No string is longer than its written form.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len()));
        for character in char::decode_utf16(self.code_units()) {
            text.push(character.ok()?);
        }
        Some(text)
    }

    /// Appends the string as `JSON.stringify` prints it, if it is valid text; else false, and nothing is appended.
    pub(super) fn write(self, out: &mut Vec<u8>) -> bool {
        if !self.0.contains('\\') {
            out.push(b'"');
            out.extend_from_slice(self.0.as_bytes());
            out.push(b'"');
            return true;
        }
        let is_text = char::decode_utf16(self.code_units()).all(|read| read.is_ok());
        if is_text {
            write_string(self.code_units(), out);
        }
        is_text
    }

    /// The string as JavaScript has it, in UTF-16.
    pub(super) fn units(self) -> Vec<u16> {
        self.code_units().collect()
    }

    /// Its UTF-16 units, one after the other.
    fn code_units(self) -> impl Iterator<Item = u16> + 'a {
        let mut rest = self.0.chars();
        let mut second_half = None;
        std::iter::from_fn(move || {
            if let Some(unit) = second_half.take() {
                return Some(unit);
            }
            let character = rest.next()?;
            if character != '\\' {
                let mut units = [0; 2];
                let units = character.encode_utf16(&mut units);
                second_half = units.get(1).copied();
                return Some(units[0]);
            }
            Some(match rest.next() {
                Some('b') => 0x08,
                Some('f') => 0x0C,
                Some('n') => 0x0A,
                Some('r') => 0x0D,
                Some('t') => 0x09,
                Some('u') => {
                    let (digits, after) = rest.as_str().split_at_checked(4).unwrap_or_default();
                    rest = after.chars();
                    u16::from_str_radix(digits, 16).unwrap_or(0xFFFD)
                }
                // A quote, a slash, a backslash.
                Some(other) => u16::try_from(u32::from(other)).unwrap_or(0xFFFD),
                None => 0xFFFD,
            })
        })
    }
}

/// Appends a string, given in UTF-16, as `JSON.stringify` prints it.
pub(super) fn write_string(units: impl IntoIterator<Item = u16>, out: &mut Vec<u8>) {
    out.push(b'"');
    for unit in char::decode_utf16(units) {
        match unit {
            Ok('"') => out.extend_from_slice(b"\\\""),
            Ok('\\') => out.extend_from_slice(b"\\\\"),
            Ok('\u{8}') => out.extend_from_slice(b"\\b"),
            Ok('\u{C}') => out.extend_from_slice(b"\\f"),
            Ok('\n') => out.extend_from_slice(b"\\n"),
            Ok('\r') => out.extend_from_slice(b"\\r"),
            Ok('\t') => out.extend_from_slice(b"\\t"),
            Ok(control @ '\0'..='\u{1F}') => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
            }
            Ok(plain) => out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                out.extend_from_slice(format!("\\u{:04x}", half.unpaired_surrogate()).as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Appends a number as `JSON.stringify` prints it: `null` if it is not finite.
pub(super) fn write_number(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// The key as an array index: digits without a leading zero, below 2³² − 1. Returns `u32::MAX` if the key is
/// not an index.
fn array_index(units: &[u16]) -> u32 {
    let text = String::from_utf16(units).unwrap_or_default();
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| canonical).unwrap_or(u32::MAX)
}

/// Walks through the values directly inside an array or an object; the keys of an object count as values.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    fn into(container: &'a str) -> Walk<'a> {
        Walk {
            text: container,
            at: 1,
        }
    }

    /// The next value; `None` at the end of the container.
    fn value(&mut self) -> Option<Json<'a>> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at)?, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':') {
            self.at += 1;
        }
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match bytes.get(self.at)? {
                b'"' => self.at = end_of_string(bytes, self.at)?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    // At depth 0 this is the end of the container itself.
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.' => {
                    let more = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                    self.at += bytes[self.at..].iter().take_while(|byte| more(byte)).count();
                }
                _ => self.at += 1, // white space and separators further in
            }
            if depth == 0 {
                return self.text.get(start..self.at).map(Json);
            }
        }
    }
}

/// The position after the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The longest escape for one byte of UTF-8: `\u` and four digits.
const ESCAPE_BYTES: usize = 6;
/// Claims with a deeper nesting are not signed. `JSON.stringify` would accept some thousand levels.
const DEPTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let mut out = Vec::new();
        Json::parse(text).unwrap().write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_printed_as_node_prints_them() {
        let table = [
            (" { } ", "{}"),
            ("[ ]", "[]"),
            ("[1, [2, {\"a\" : [ ]}], \"]\" ]", "[1,[2,{\"a\":[]}],\"]\"]"),
            ("-0", "0"),
            ("1.0", "1"),
            ("1e21", "1e+21"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("[1e400,-1e400,1e-400]", "[null,null,0]"),
            (
                r#""\u0041\/\"\\\b\f\n\r\t\u001F\u007f""#,
                "\"A/\\\"\\\\\\b\\f\\n\\r\\t\\u001f\u{7f}\"",
            ),
            (
                r#""\ud83d\ude00 \uD83D \ude00x""#,
                "\"\u{1F600} \\ud83d \\ude00x\"",
            ),
            (
                r#"{"b":1,"10":2,"9":3,"a":4,"b":5,"01":6,"-1":7}"#,
                r#"{"9":3,"10":2,"b":5,"a":4,"01":6,"-1":7}"#,
            ),
            (
                r#"{"4294967295":1,"4294967294":2,"x":{"\u0031":3,"0":4}}"#,
                r#"{"4294967294":2,"4294967295":1,"x":{"0":4,"1":3}}"#,
            ),
            (
                r#"{"__proto__":{"exp":1},"":0}"#,
                r#"{"__proto__":{"exp":1},"":0}"#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(printed(text), expected, "{text}");
        }
    }

    #[test]
    fn of_equal_keys_the_last_counts_also_when_it_is_escaped() {
        let object = Json::parse(r#"{"exp":1,"inner":{"exp":9},"\u0065xp":2,"x":[{"exp":3}]}"#).unwrap();
        assert_eq!(object.member("exp").map(Json::kind), Some(Kind::Number(2.0)));
        assert_eq!(object.member("absent"), None);
        assert_eq!(Json::parse(r#"["exp",1]"#).unwrap().member("exp"), None);
    }

    #[test]
    fn a_string_is_measured_and_read_in_its_decoded_form() {
        let string = |text: &'static str| match Json::parse(text).unwrap().kind() {
            Kind::String(string) => string,
            other => panic!("{other:?}"),
        };
        for (written, decoded) in [
            (r#""""#, ""),
            (r#""ann""#, "ann"),
            (r#""\u0061nn""#, "ann"),
            (r#""\u00e9""#, "\u{e9}"),
            ("\"\u{e9}\"", "\u{e9}"),
            (r#""\ud83d\ude00\/\"\\\n""#, "\u{1F600}/\"\\\n"),
            ("\"\u{1F600}\"", "\u{1F600}"),
        ] {
            let string = string(written);
            assert_eq!(
                string.text().as_deref().map(String::as_str),
                Some(decoded),
                "{written}"
            );
            assert!(string.is(decoded), "{written}");
            assert!(!string.is_longer_than(decoded.len()), "{written}");
            assert!(
                decoded.is_empty() || string.is_longer_than(decoded.len() - 1),
                "{written}"
            );
        }
        let half = string(r#""a\ud83d""#);
        assert!(half.text().is_none() && half.is_longer_than(3) && !half.is_longer_than(4));
    }

    #[test]
    fn nesting_is_bounded_when_printing_and_not_when_parsing() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let write = |text: &str| Json::parse(text).unwrap().write(&mut Vec::new());
        assert_eq!(write(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(write(&nested(DEPTH_MAX + 1)), Err(TooDeep));
        assert_eq!(write(&nested(100_000)), Err(TooDeep));
    }
}
