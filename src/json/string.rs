//! Strings of JSON text, and the bytes that name a channel or an event.
//!
//! A JavaScript string may contain half of a surrogate pair. Therefore decoded strings are WTF-8: UTF-8 in which such a
//! half takes three bytes (ED A0..BF 80..BF). Strings are encoded as `JSON.stringify` encodes them.

use super::plain_end;

/// The text of a JSON string between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringSlice<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> StringSlice<'a> {
    /// A string whose text was scanned; `escaped` is true if it contains a backslash.
    pub(crate) fn new(raw: &'a str, escaped: bool) -> StringSlice<'a> {
        StringSlice { raw, escaped }
    }

    /// The string itself, if it contains no escapes.
    pub fn plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// True if the decoded string is `text`.
    pub fn is(&self, text: &str) -> bool {
        if self.escaped {
            self.is_decoded(text)
        } else {
            self.raw == text
        }
    }

    /// True if the string is empty. (An escape stands for at least one character.)
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Appends the decoded string, in WTF-8.
    pub fn write_decoded(&self, out: &mut Vec<u8>) {
        if self.escaped {
            decode(self.raw, out);
        } else {
            out.extend_from_slice(self.raw.as_bytes());
        }
    }

    /// Appends the string as `JSON.stringify` writes it, with quotes.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.escaped {
            let mut decoded = Vec::with_capacity(self.raw.len());
            decode(self.raw, &mut decoded);
            write_json(&decoded, out);
        } else {
            out.push(b'"');
            out.extend_from_slice(self.raw.as_bytes());
            out.push(b'"');
        }
    }

    #[cold]
    fn is_decoded(&self, text: &str) -> bool {
        // An escape takes at most six bytes for one byte of `text`; most strings differ from it in the first byte.
        let first = self.raw.as_bytes().first();
        if self.raw.len() > 6 * text.len() || (first != Some(&b'\\') && first != text.as_bytes().first()) {
            return false;
        }
        let mut decoded = Vec::with_capacity(self.raw.len());
        decode(self.raw, &mut decoded);
        decoded == text.as_bytes()
    }
}

/// Appends the decoded text of a valid JSON string without quotes.
fn decode(raw: &str, out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = decode_escape(&rest[at + 1..], out);
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Appends the character of an escape; `rest` begins after the backslash. Returns the text after the escape.
fn decode_escape<'a>(rest: &'a str, out: &mut Vec<u8>) -> &'a str {
    let byte = match rest.as_bytes().first() {
        Some(b'u') => return decode_units(rest, out),
        Some(b'b') => 8,
        Some(b't') => b'\t',
        Some(b'n') => b'\n',
        Some(b'f') => 12,
        Some(b'r') => b'\r',
        Some(&other) => other,
        None => return rest,
    };
    out.push(byte);
    &rest[1..]
}

/// The same for `uXXXX`, together with the second half of a pair if it follows.
fn decode_units<'a>(rest: &'a str, out: &mut Vec<u8>) -> &'a str {
    let unit = |text: &str| {
        text.get(..4)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
    };
    let first = unit(&rest[1..]).expect("the scanner has seen four digits");
    let rest = &rest[5..];
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = rest.strip_prefix("\\u").and_then(unit)
        && (0xdc00..0xe000).contains(&second)
    {
        write_code_point(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), out);
        return &rest[6..];
    }
    write_code_point(first, out);
    rest
}

/// Appends a code point as UTF-8 would, surrogates included.
fn write_code_point(point: u32, out: &mut Vec<u8>) {
    if let Some(character) = char::from_u32(point) {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let low_six = |bits: u32| 0x80 | (bits & 0x3f) as u8;
        out.extend_from_slice(&[
            0xe0 | (point >> 12 & 0xf) as u8,
            low_six(point >> 6),
            low_six(point),
        ]);
    }
}

/// Appends WTF-8 bytes as a JSON string, with quotes, as `JSON.stringify` writes it.
pub fn write_json(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    // Most names have nothing to escape. To see that takes half of the instructions of the loop.
    if plain_end(bytes, 0) == bytes.len() && !bytes.contains(&0xed) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let half = byte == 0xed && bytes.get(at + 1).is_some_and(|&next| next >= 0xa0);
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && !half {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ if half => {
                let low_six = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0) & 0x3f);
                write_unit(0xd000 | low_six(at + 1) << 6 | low_six(at + 2), out);
                written = (at + 3).min(bytes.len());
            }
            _ => write_unit(u32::from(byte), out),
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// Appends `\uXXXX`.
fn write_unit(unit: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(b"0123456789abcdef"[(unit >> shift & 0xf) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use proptest::{collection, prop_assert_eq};

    use super::super::Scanner;
    use super::*;

    fn scan(json: &str) -> StringSlice<'_> {
        Scanner::new(json).string().expect("a string")
    }

    fn decoded(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        scan(json).write_decoded(&mut out);
        out
    }

    fn rewritten(json: &str) -> String {
        let mut out = Vec::new();
        scan(json).write_json(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn a_string_is_compared_by_what_it_says() {
        assert!(scan(r##""#publish""##).is("#publish"));
        assert!(scan(r##""\u0023publis\u0068""##).is("#publish"));
        assert!(!scan(r##""\u0023publis\u0067""##).is("#publish"));
        assert!(!scan(r#""data ""#).is("data"));
        assert!(scan(r#""""#).is_empty() && !scan(r#""\u0000""#).is_empty());
    }

    #[test]
    fn escapes_are_decoded_and_halves_of_pairs_are_kept() {
        assert_eq!(decoded(r#""a\"\\\/\b\f\n\r\tz""#), b"a\"\\/\x08\x0c\n\r\tz");
        assert_eq!(decoded(r#""\u00e9\ud83d\ude00""#), "é😀".as_bytes());
        assert_eq!(decoded(r#""\ud83d""#), [0xed, 0xa0, 0xbd]);
        assert_eq!(decoded(r#""\ude00\ud83d""#), [0xed, 0xb8, 0x80, 0xed, 0xa0, 0xbd]);
        assert_eq!(decoded(r#""\ud83d\u0041""#), [0xed, 0xa0, 0xbd, b'A']);
    }

    #[test]
    fn strings_are_written_as_javascript_writes_them() {
        // Checked against JSON.stringify(JSON.parse(text)) of Node 20.
        for (text, expected) in [
            (r#""\/\u0041\u00e9""#, r#""/Aé""#),
            (
                r#""\u0000\u0008\u0009\u000a\u000b\u000c\u000d\u001f""#,
                r#""\u0000\b\t\n\u000b\f\r\u001f""#,
            ),
            (r#""\u007f\u2028\"\\""#, "\"\u{7f}\u{2028}\\\"\\\\\""),
            (r#""\uD83D\uDE00 \uD83d \uDE00""#, r#""😀 \ud83d \ude00""#),
            (r#""\ud7ff\ue000\u0041""#, "\"\u{d7ff}\u{e000}A\""),
        ] {
            assert_eq!(rewritten(text), expected);
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(units in collection::vec(any::<u16>(), 0..8)) {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let bytes = decoded(&format!("\"{escaped}\""));
            let mut json = Vec::new();
            write_json(&bytes, &mut json);
            prop_assert_eq!(decoded(std::str::from_utf8(&json).unwrap()), bytes);
        }

        #[test]
        fn plain_text_is_written_as_serde_json_writes_it(text in any::<String>()) {
            let mut json = Vec::new();
            write_json(text.as_bytes(), &mut json);
            prop_assert_eq!(json, serde_json::to_vec(&text).unwrap());
        }
    }
}
