//! Changes the values that the reference changes when data passes through it, if a client's parser can notice the
//! change.
//!
//! The reference parses data and prints it again. This changes a number that is too large for a double to `null`, `-0`
//! to `0`, and an object `{"type":"Buffer","data":[...]}` to `{"base64":true,"data":"..."}` (wire reference, section
//! 3). A parser reads everything else as before. So data passes as the client's own bytes, unless the scanner has noted
//! that it may contain one of these values. Then this slower code runs: it allocates, and makes two passes, each
//! linear.
//!
//! 1. Find the objects that are buffers. 2. Copy the text and replace the values. A buffer within a buffer is not
//!    replaced, as in the reference.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::json::Scanner;
use super::number::Number;
use super::string::StringSlice;

/// Appends the value in `json`, which must be valid, in the form in which the reference passes it on.
pub fn write_passed_on(json: &str, out: &mut Vec<u8>) {
    let buffers = find_buffers(json);
    let mut buffers = buffers.iter().peekable();
    let mut scanner = Scanner::new(json);
    let mut written = 0;
    while let Some(byte) = scanner.peek() {
        let start = scanner.position();
        match byte {
            b'"' => {
                pass_string(&mut scanner);
                continue;
            }
            b'{' => {
                while buffers.next_if(|buffer| buffer.start < start).is_some() {}
                let Some(buffer) = buffers.next_if(|buffer| buffer.start == start) else {
                    scanner.pass(byte);
                    continue;
                };
                scanner.skip_to(buffer.end);
                out.extend_from_slice(&json.as_bytes()[written..start]);
                out.extend_from_slice(b"{\"base64\":true,\"data\":\"");
                out.extend_from_slice(STANDARD.encode(octets(buffer.data)).as_bytes());
                out.extend_from_slice(b"\"}");
                written = scanner.position();
            }
            b'-' | b'0'..=b'9' => {
                scanner.value().expect("the text was scanned before");
                let number = Number::in_value(scanner.since(start))
                    .expect("it begins as a number")
                    .as_f64();
                let replacement = match number {
                    _ if !number.is_finite() => "null",
                    _ if number == 0.0 && number.is_sign_negative() => "0",
                    _ => continue,
                };
                out.extend_from_slice(&json.as_bytes()[written..start]);
                out.extend_from_slice(replacement.as_bytes());
                written = scanner.position();
            }
            _ => {
                scanner.pass(byte);
            }
        }
    }
    out.extend_from_slice(&json.as_bytes()[written..]);
}

/// An object `{"type":"Buffer","data":[...]}`, other keys allowed.
struct Buffer<'a> {
    start: usize,
    end: usize,
    /// The array.
    data: &'a str,
}

/// An open container during the search for buffers.
struct Open<'a> {
    start: usize,
    /// In an object: the key to which the next value belongs, or that the next string is a key.
    key: Key,
    is_buffer: bool,
    data: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    /// The container is an array.
    None,
    /// The next string is a key.
    Next,
    Type,
    Data,
    Other,
}

impl<'a> Open<'a> {
    /// Notes a value of the container. If a key occurs several times, the last one counts.
    fn note(&mut self, value: &'a str, string: Option<StringSlice<'_>>) {
        match self.key {
            Key::Type => self.is_buffer = string.is_some_and(|string| string.is("Buffer")),
            Key::Data => self.data = value.starts_with('[').then_some(value),
            Key::None | Key::Next | Key::Other => {}
        }
    }
}

/// All buffers, sorted by their start.
fn find_buffers(json: &str) -> Vec<Buffer<'_>> {
    let mut found = Vec::new();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut scanner = Scanner::new(json);
    while let Some(byte) = scanner.peek() {
        let start = scanner.position();
        match byte {
            b'"' => {
                let string = pass_string(&mut scanner);
                let Some(object) = open.last_mut() else { continue };
                if object.key == Key::Next {
                    object.key = if string.is("type") {
                        Key::Type
                    } else if string.is("data") {
                        Key::Data
                    } else {
                        Key::Other
                    };
                } else {
                    object.note(scanner.since(start), Some(string));
                }
                continue;
            }
            b'{' | b'[' => open.push(Open {
                start,
                key: if byte == b'{' { Key::Next } else { Key::None },
                is_buffer: false,
                data: None,
            }),
            b'}' | b']' => {
                let closed = open.pop().expect("brackets match in valid text");
                if let Some(data) = closed.data
                    && closed.is_buffer
                {
                    found.push(Buffer {
                        start: closed.start,
                        end: start + 1,
                        data,
                    });
                }
                scanner.pass(byte);
                if let Some(object) = open.last_mut() {
                    object.note(scanner.since(closed.start), None);
                }
                continue;
            }
            b',' => {
                if let Some(object) = open.last_mut()
                    && object.key != Key::None
                {
                    object.key = Key::Next;
                }
            }
            b':' | b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                scanner.value().expect("the text was scanned before");
                if let Some(object) = open.last_mut() {
                    object.note(scanner.since(start), None);
                }
                continue;
            }
        }
        scanner.pass(byte);
    }
    found.sort_unstable_by_key(|buffer| buffer.start);
    found
}

fn pass_string<'a>(scanner: &mut Scanner<'a>) -> StringSlice<'a> {
    scanner.string().expect("the text was scanned before")
}

/// The bytes that `Buffer.from` makes of an array: each element as a number, modulo 256.
fn octets(array: &str) -> Vec<u8> {
    elements(array)
        .map(|element| {
            let number = to_number(element);
            if !number.is_finite() {
                return 0;
            }
            let octet = number.trunc().rem_euclid(256.0);
            // Below 256 by the line above.
            #[expect(clippy::cast_possible_truncation, reason = "0 to 255")]
            let octet = octet as u8;
            octet
        })
        .collect()
}

/// The elements of a valid array.
fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut scanner = Scanner::new(array);
    scanner.pass(b'[');
    std::iter::from_fn(move || {
        scanner.skip_space();
        if matches!(scanner.peek(), None | Some(b']')) {
            return None;
        }
        let start = scanner.position();
        scanner.value().expect("the text was scanned before");
        let element = scanner.since(start);
        scanner.skip_space();
        scanner.pass(b',');
        Some(element)
    })
}

/// JavaScript's `Number(value)`, except that an array, which JavaScript would print first, is not a number.
fn to_number(value: &str) -> f64 {
    if let Some(number) = Number::in_value(value) {
        return number.as_f64();
    }
    match value {
        "true" => 1.0,
        "false" | "null" => 0.0,
        _ => Scanner::new(value).string().map_or(f64::NAN, |string| {
            let mut text = Vec::new();
            string.write_decoded(&mut text);
            String::from_utf8(text).map_or(f64::NAN, |text| text_to_number(text.trim_matches(is_space)))
        }),
    }
}

/// The number in a string: decimal, or with a prefix for its base.
fn text_to_number(text: &str) -> f64 {
    for (prefixes, radix) in [(["0x", "0X"], 16), (["0o", "0O"], 8), (["0b", "0B"], 2)] {
        if let Some(digits) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            // Rust would accept a sign here.
            if digits.starts_with('+') {
                return f64::NAN;
            }
            return u64::from_str_radix(digits, radix).map_or(f64::NAN, |number| number as f64);
        }
    }
    if text.is_empty() {
        0.0
    } else {
        text.parse().unwrap_or(f64::NAN)
    }
}

/// True for JavaScript's white space: that of Unicode without the next-line control character, and the byte-order mark.
fn is_space(character: char) -> bool {
    character == '\u{feff}' || character != '\u{85}' && character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;
    use proptest::prop_assert_eq;

    use super::*;

    fn passed_on(json: &str) -> String {
        let mut out = Vec::new();
        write_passed_on(json, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn values_that_read_the_same_are_left_alone() {
        for json in [
            r#"{"a":[1.0,1e2,0.10,-1,"-0","1e999"],"b":{"b":1,"b":2}}"#,
            r#"{"type":"Buffer"}"#,
            r#"{"type":"Buffer","data":"AA=="}"#,
            r#"{"type":"buffer","data":[1]}"#,
            r#"{"type":"Buffer","data":[1],"type":1}"#,
            r#"{"type":"Buffer","data":[1],"data":null}"#,
            r#"["type","Buffer","data",[1]]"#,
            r#""\"Buffer\" -0 1e999""#,
        ] {
            assert_eq!(passed_on(json), json);
        }
    }

    #[test]
    fn numbers_beyond_doubles_and_negative_zero_change() {
        assert_eq!(
            passed_on(r#"[1e400, -1E400,-0,-0.0 ,-0e5,-1e-400,{"a":-0}]"#),
            r#"[null, null,0,0 ,0,0,{"a":0}]"#
        );
        assert_eq!(passed_on(&"9".repeat(400)), "null");
        assert_eq!(passed_on("-0"), "0");
    }

    #[test]
    fn buffers_become_base64_as_sc_formatter_writes_them() {
        // Checked against sc-formatter 4.0.0 on Node 20.
        for (json, expected) in [
            (
                r#"{"type":"Buffer","data":[104,105]}"#,
                r#"{"base64":true,"data":"aGk="}"#,
            ),
            (
                r#"{"data":[],"x":1,"type":"Buffer"}"#,
                r#"{"base64":true,"data":""}"#,
            ),
            (
                r#"[{"\u0074ype":"\u0042uffer","data":[ 1 , 2 ]},3]"#,
                r#"[{"base64":true,"data":"AQI="},3]"#,
            ),
            (
                r#"{"type":"Buffer","data":[256,-1,1.9,"7","0x10",true,null,{},1e400,"a",-1.5,4294967297,""]}"#,
                r#"{"base64":true,"data":"AP8BBxABAAAAAP8BAA=="}"#,
            ),
            (
                r#"{"type":"Buffer","data":[{"type":"Buffer","data":[1]}]}"#,
                r#"{"base64":true,"data":"AA=="}"#,
            ),
            (
                r#"{"type":"Buffer","a":{"type":"Buffer","data":[1]},"b":{"type":"Buffer","data":[2]}}"#,
                r#"{"type":"Buffer","a":{"base64":true,"data":"AQ=="},"b":{"base64":true,"data":"Ag=="}}"#,
            ),
        ] {
            assert_eq!(passed_on(json), expected);
        }
    }

    #[test]
    fn the_texts_of_a_buffer_are_numbers_as_javascript_has_them() {
        // Checked against Buffer.from of Node 20.
        for (text, octet) in [
            ("0x+5", 0),
            ("0b+1", 0),
            ("+5", 5),
            ("\u{feff}7", 7),
            ("\u{2007}7", 7),
            ("\u{85}7", 0),
            ("\u{180e}7", 0),
            ("\u{200b}7", 0),
            ("\u{b}8\u{c}", 8),
            ("1_0", 0),
            ("0x1F", 31),
            ("infinity", 0),
            ("0xffffffffffffffffff01", 0),
        ] {
            let json = serde_json::json!({ "type": "Buffer", "data": [text] });
            let expected = serde_json::json!({ "base64": true, "data": STANDARD.encode([octet]) });
            let passed_on: serde_json::Value = passed_on(&json.to_string()).parse().unwrap();
            assert_eq!(passed_on, expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_nesting_takes_linear_time() {
        let depth = 2000;
        let json = format!(
            "{}[{}]{}",
            r#"{"type":"Buffer","data":["#.repeat(depth),
            "1,".repeat(200_000) + "1",
            "]}".repeat(depth)
        );
        assert_eq!(passed_on(&json), r#"{"base64":true,"data":"AA=="}"#);
    }

    proptest! {
        #[test]
        fn text_without_such_values_is_copied(numbers: Vec<i32>, text: String) {
            let json = serde_json::json!({ "a": numbers, "type": "Buffer", "b": { "data": text } }).to_string();
            prop_assert_eq!(passed_on(&json), json);
        }
    }
}
