//! JSON: the scanner, the packets of messages, and data that the server rewrites when it passes it on.

use ringcast::internals::json::{self, DEPTH_MAX, Fault};
use ringcast::internals::socketcluster::decode::{Decoded, decode};
use ringcast::internals::socketcluster::encode;
use ringcast::internals::socketcluster::packet::{Packet, Value as Data};
use ringcast::internals::socketcluster::rewrite::write_passed_on;
use serde_json::value::RawValue;

use super::json_model::{self, NoValue, Value};

/// The scanner accepts the same texts as serde_json and as the model, up to its own depth.
pub fn json(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let ours = json::check(&text);
    if ours == Err(Fault::TooDeep) {
        assert!(json_model::depth(&text) > DEPTH_MAX);
        return;
    }
    assert_eq!(
        ours.is_ok(),
        serde_json::from_str::<&RawValue>(&text).is_ok(),
        "{text:?}"
    );
    match json_model::parse(&text) {
        Err(NoValue::TooDeep) => {}
        model => assert_eq!(ours.is_ok(), model.is_ok(), "{text:?}"),
    }
}

/// The packets of a message are those that a JSON library finds in it, and a message that is not JSON is raw.
pub fn envelope(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let decoded = decode(&text);
    let value = match json_model::parse(&text) {
        Ok(value) => value,
        Err(NoValue::TooDeep) => return,
        Err(NoValue::Malformed) => {
            let is_raw = matches!(decoded, Decoded::One(Packet::Raw));
            let is_too_deep = matches!(decoded, Decoded::TooDeep) && json_model::depth(&text) > DEPTH_MAX;
            assert!(is_raw || is_too_deep, "{text:?}: {decoded:?}");
            return;
        }
    };
    match (value, decoded) {
        (Value::Array(elements), Decoded::Many(packets)) => {
            let packets: Vec<Packet<'_>> = packets.collect();
            assert_eq!(packets.len(), elements.len(), "{text:?}");
            for (packet, element) in packets.iter().zip(&elements) {
                check_packet(packet, element);
            }
        }
        (value, Decoded::One(packet)) if !matches!(value, Value::Array(_)) => check_packet(&packet, &value),
        (value, decoded) => panic!("{text:?}: {value:?} {decoded:?}"),
    }
}

fn check_packet(packet: &Packet<'_>, value: &Value) {
    let number = |name: &str| match value.member(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    match (packet, value.member("event"), number("rid")) {
        (Packet::Event(event), Some(Value::Text(name)), _) => {
            let mut decoded = Vec::new();
            event.name.write_decoded(&mut decoded);
            assert_eq!(json_model::units_of_wtf8(&decoded), *name);
            assert_eq!(event.cid.map(|cid| cid.as_f64()), number("cid"));
            check_data(event.data.as_ref(), value.member("data"));
        }
        (Packet::Response(response), event, Some(rid)) => {
            assert!(!matches!(event, Some(Value::Text(_))));
            assert_eq!(response.rid.as_f64(), rid);
            check_data(response.data.as_ref(), value.member("data"));
            let error = response.error.map(|json| json_model::parse(json).expect("JSON"));
            assert_eq!(error.as_ref(), value.member("error"));
        }
        (Packet::Raw, event, rid) => assert!(!matches!(event, Some(Value::Text(_))) && rid.is_none()),
        other => panic!("{other:?} of {value:?}"),
    }
}

fn check_data(data: Option<&Data<'_>>, expected: Option<&Value>) {
    let value = data.map(|data| json_model::parse(data.json).expect("JSON"));
    assert_eq!(value.as_ref(), expected);
    let (Some(data), Some(value)) = (data, value) else {
        return;
    };
    // The data of reserved events, read at its place in the text.
    if let Some(channel) = data.members.channel {
        let mut name = Vec::new();
        channel.write_decoded(&mut name);
        let name = Value::Text(json_model::units_of_wtf8(&name));
        assert_eq!(value.member("channel"), Some(&name));
    }
    for (found, name) in [
        (data.members.data, "data"),
        (data.members.auth_token, "authToken"),
    ] {
        if let Some(found) = found {
            assert_eq!(json_model::parse(found).as_ref().ok(), value.member(name));
        }
    }
    let passed_on = rewritten(data.json);
    if !data.rare {
        assert_eq!(passed_on, data.json, "not noted as one that is rewritten");
    }
}

/// An encoded packet decodes to the same packet, with numbers as JavaScript prints a double.
pub fn packet(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Decoded::One(packet) = decode(&text) else {
        return;
    };
    if json_model::depth(&text) >= json_model::DEPTH_MAX {
        return;
    }
    let (number, data) = match packet {
        Packet::Event(event) => (event.cid, event.data),
        Packet::Response(response) => (Some(response.rid), response.data),
        Packet::Raw => return,
    };
    let data = data.map(|data| rewritten(data.json));
    let data = data.as_deref().map(str::as_bytes);
    let expected = data.map(parsed);
    if let Packet::Event(event) = packet {
        let (mut name, mut out) = (Vec::new(), Vec::new());
        event.name.write_decoded(&mut name);
        encode::event(&name, data, &mut out);
        let again = parsed(&out);
        assert_eq!(again.member("data"), expected.as_ref());
        assert_eq!(
            again.member("event"),
            Some(&Value::Text(json_model::units_of_wtf8(&name)))
        );

        let mut out = Vec::new();
        encode::publish(|out| event.name.write_json(out), data, &mut out);
        let again = parsed(&out);
        let inner = again.member("data").expect("what was written");
        assert_eq!(inner.member("data"), expected.as_ref());
        assert_eq!(
            inner.member("channel"),
            Some(&Value::Text(json_model::units_of_wtf8(&name)))
        );
    }
    if let Some(number) = number {
        let mut out = Vec::new();
        encode::response(number.text().as_bytes(), data, &mut out);
        let again = parsed(&out);
        assert_eq!(again.member("data"), expected.as_ref());
        let printed = match number.as_f64() {
            number if number.is_finite() => Value::Number(number),
            _ => Value::Null,
        };
        assert_eq!(again.member("rid"), Some(&printed));
    }
}

/// Data that is passed on reads as the reference prints it.
pub fn rewrite(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(value) = json_model::parse(&text) else {
        return;
    };
    let passed_on = rewritten(text.trim_ascii());
    let again = parsed(passed_on.as_bytes());
    if let Some(expected) = json_model::passed_on(&value) {
        assert_eq!(again, expected, "{text:?} {passed_on:?}");
    }
    // Data that was passed on once does not change when it is passed on again.
    assert_eq!(rewritten(&passed_on), passed_on);
}

fn rewritten(json: &str) -> String {
    let mut out = Vec::new();
    write_passed_on(json, &mut out);
    String::from_utf8(out).expect("it is made of text")
}

fn parsed(json: &[u8]) -> Value {
    let text = std::str::from_utf8(json).expect("JSON is text");
    json_model::parse(text).unwrap_or_else(|fault| panic!("{fault:?}: {text:?}"))
}
