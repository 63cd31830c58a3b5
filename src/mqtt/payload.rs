//! Payloads between MQTT, whose payloads are bytes, and SocketCluster, whose payloads are JSON.
//!
//! From MQTT to SocketCluster, by the rule for the channel ([`MqttPayload`]):
//!
//! | payload | `auto` | `text` | `binary` | `json` |
//! |---|---|---|---|---|
//! | no bytes | `null` | `null` | `null` | `null` |
//! | JSON | the value | a string | base64 | the value |
//! | other UTF-8 | a string | a string | base64 | refused by the publisher's session; `null` |
//! | other bytes | base64 | base64 | base64 | the same |
//!
//! Base64 is the object that SocketCluster's formatter writes for buffers: `{"base64":true,"data":"…"}`. With
//! the rule `json`, the publisher's session refuses a payload that is not JSON; no other part of the server
//! refuses it. Only that session checks whether a payload is JSON, and the cores that make a SocketCluster
//! message of it: once on each core that has subscribers which need it.
//!
//! JSON is passed on as it is, without the white space around it. It may be nested as deep as JSON of
//! SocketCluster clients; deeper JSON is treated as text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::channels::MqttPayload;
use crate::json::{Scanner, string};

/// Appends the JSON that SocketCluster clients get for the payload of an MQTT publication.
pub fn write_json(rule: MqttPayload, payload: &[u8], out: &mut Vec<u8>) {
    if payload.is_empty() {
        return out.extend_from_slice(NULL);
    }
    match (rule, str::from_utf8(payload)) {
        (MqttPayload::Auto, Ok(text)) => match json(text) {
            Some(json) => out.extend_from_slice(json.as_bytes()),
            None => string::write_json(payload, out),
        },
        (MqttPayload::Json, Ok(text)) => out.extend_from_slice(json(text).map_or(NULL, str::as_bytes)),
        (MqttPayload::Text, Ok(_)) => string::write_json(payload, out),
        (MqttPayload::Json, Err(_)) => out.extend_from_slice(NULL),
        (MqttPayload::Binary, _) | (MqttPayload::Auto | MqttPayload::Text, Err(_)) => {
            out.extend_from_slice(b"{\"base64\":true,\"data\":\"");
            write_base64(payload, out);
            out.extend_from_slice(b"\"}");
        }
    }
}

/// The value in a text, if the text is JSON.
fn json(text: &str) -> Option<&str> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let start = scanner.position();
    scanner.value().ok()?;
    let value = scanner.since(start);
    scanner.finish().ok()?;
    Some(value)
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    let length =
        base64::encoded_len(bytes.len(), true).expect("the length of a packet in base64 is a length");
    out.resize(begin + length, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[begin..]);
    debug_assert_eq!(written, Ok(length));
}

const NULL: &[u8] = b"null";

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, proptest};
    use proptest::{collection, prop_assert_eq, prop_oneof};

    use super::*;

    const RULES: [MqttPayload; 4] = [
        MqttPayload::Auto,
        MqttPayload::Text,
        MqttPayload::Binary,
        MqttPayload::Json,
    ];

    fn mapped(rule: MqttPayload, payload: &[u8]) -> String {
        let mut out = Vec::new();
        write_json(rule, payload, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn payloads_are_mapped_as_the_table_says() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        let deep_text = format!("\"{deep}\"");
        for (payload, [auto, text, binary, json]) in [
            (&b""[..], ["null"; 4]),
            (b"12", ["12", "\"12\"", r#"{"base64":true,"data":"MTI="}"#, "12"]),
            (
                b" {\"a\":[1]}\r\n",
                [
                    "{\"a\":[1]}",
                    r#"" {\"a\":[1]}\r\n""#,
                    r#"{"base64":true,"data":"IHsiYSI6WzFdfQ0K"}"#,
                    "{\"a\":[1]}",
                ],
            ),
            (
                b"on",
                ["\"on\"", "\"on\"", r#"{"base64":true,"data":"b24="}"#, "null"],
            ),
            (
                b"\xff\x00",
                [
                    r#"{"base64":true,"data":"/wA="}"#,
                    r#"{"base64":true,"data":"/wA="}"#,
                    r#"{"base64":true,"data":"/wA="}"#,
                    "null",
                ],
            ),
            (
                "\0é\"".as_bytes(),
                [
                    r#""\u0000é\"""#,
                    r#""\u0000é\"""#,
                    r#"{"base64":true,"data":"AMOpIg=="}"#,
                    "null",
                ],
            ),
        ] {
            for (rule, expected) in RULES.into_iter().zip([auto, text, binary, json]) {
                assert_eq!(mapped(rule, payload), expected, "{rule:?} {payload:?}");
            }
        }
        assert_eq!(mapped(MqttPayload::Auto, deep.as_bytes()), deep_text);
        assert_eq!(mapped(MqttPayload::Json, deep.as_bytes()), "null");
    }

    /// Payloads that are JSON, text and other bytes.
    fn any_payload() -> impl Strategy<Value = Vec<u8>> {
        let json = any::<String>().prop_map(|text| serde_json::json!({ "t": [text, 1.5, null] }));
        prop_oneof![
            json.prop_map(|value| value.to_string().into_bytes()),
            any::<String>().prop_map(String::into_bytes),
            collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        /// Compared with the results of other programs: serde_json for JSON and strings.
        #[test]
        fn each_payload_becomes_json_that_means_it(payload in any_payload()) {
            for rule in RULES {
                let value: serde_json::Value = serde_json::from_str(&mapped(rule, &payload)).unwrap();
                let base64 = || serde_json::json!({ "base64": true, "data": STANDARD.encode(&payload) });
                let text = str::from_utf8(&payload).ok();
                let parsed = text.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
                let expected = match (rule, text, parsed) {
                    (_, Some(""), _) => serde_json::Value::Null,
                    (MqttPayload::Auto | MqttPayload::Json, _, Some(parsed)) => parsed,
                    (MqttPayload::Json, _, None) => serde_json::Value::Null,
                    (MqttPayload::Auto | MqttPayload::Text, Some(text), _) => text.into(),
                    (MqttPayload::Binary, ..) | (MqttPayload::Auto | MqttPayload::Text, None, _) => base64(),
                };
                prop_assert_eq!(value, expected);
            }
        }
    }
}
