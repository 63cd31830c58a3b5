//! The bytes that some JSON stands for: the characters of a string, and what base64 holds.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Scanner;

/// The payload that was found in place of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unquoted {
    /// The characters of a string.
    Text,
    /// Other bytes.
    Bytes,
}

/// The object that SocketCluster's formatter writes for buffers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    base64: bool,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// Appends what a JSON text stands for, if it is a string, or the object that stands for bytes. Any other text is left
/// as it is, and nothing is appended.
pub(crate) fn unquote(json: &[u8], out: &mut Vec<u8>) -> Option<Unquoted> {
    let text = str::from_utf8(json).ok()?;
    let start = out.len();
    match json.first()? {
        b'"' => {
            Scanner::new(text).string().ok()?.write_decoded(out);
            // Half of a surrogate pair is no text.
            let is_text = str::from_utf8(&out[start..]).is_ok();
            Some(if is_text { Unquoted::Text } else { Unquoted::Bytes })
        }
        b'{' => {
            let object: Base64<'_> = serde_json::from_str(text).ok()?;
            let is_decoded = object.base64 && STANDARD.decode_vec(&*object.data, out).is_ok();
            if !is_decoded {
                out.truncate(start);
            }
            is_decoded.then_some(Unquoted::Bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_base64_are_unquoted_and_other_json_is_not() {
        for (json, expected) in [
            (r#""on""#, Some((Unquoted::Text, &b"on"[..]))),
            (r#""a\n\u00e9""#, Some((Unquoted::Text, "a\né".as_bytes()))),
            (r#""""#, Some((Unquoted::Text, b""))),
            (r#""\ud800""#, Some((Unquoted::Bytes, b"\xed\xa0\x80"))),
            (
                r#"{"base64":true,"data":"/wA="}"#,
                Some((Unquoted::Bytes, b"\xff\0")),
            ),
            (
                r#"{ "data" : "/wA=", "base64" : true }"#,
                Some((Unquoted::Bytes, b"\xff\0")),
            ),
            (r#"{"base64":false,"data":"/wA="}"#, None),
            (r#"{"base64":true,"data":"/w"}"#, None),
            (r#"{"base64":true,"data":"/wA=","x":1}"#, None),
            (r#"{"base64":true}"#, None),
            ("12", None),
            ("[\"on\"]", None),
            ("null", None),
            ("", None),
        ] {
            let mut out = b"before ".to_vec();
            let found = unquote(json.as_bytes(), &mut out);
            let expected_out = [&b"before "[..], expected.map_or(&b""[..], |(_, bytes)| bytes)].concat();
            assert_eq!(
                (found, &out[..]),
                (expected.map(|(kind, _)| kind), &expected_out[..]),
                "{json}"
            );
        }
    }
}
