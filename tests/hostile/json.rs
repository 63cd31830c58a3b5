//! Hostile JSON over live connections: as a whole packet, as the data of a publication, and as the data of a call.
//!
//! serde_json decides whether a text is JSON, and the model of `fuzz` decides its value in JavaScript. A document that
//! is nested too deeply for this server (`json_depth`) counts as invalid. Text that is not JSON is a raw message, which
//! the reference ignores (wire reference, sections 3 and 11): it has no effect, the connection stays open, and no other
//! client receives anything. Only a text message that is not UTF-8 ends its connection: RFC 6455 section 8.1.

use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::internals::app::builtin::Builtin;
use ringcast::internals::decision::{CloseReason, Limit};
use serde_json::value::RawValue;

use super::documents::{DEPTH_MAX, documents};
use super::json_model::{self, Value};
use super::support::{BINARY, Client, Received, Server, TEXT, frame};

/// The built-in application, which here also parses the data of a call and sends it back.
struct Echo(Builtin);

impl App for Echo {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        if call.event.as_str() != Some("echo") {
            return self.0.invoke(call, peer);
        }
        let Some(data) = call.data else {
            return peer.reply_empty();
        };
        // Parsing may fail, but it must not do harm.
        let _ = data.parse::<serde_json::Value>(peer);
        let data = RawValue::from_string(data.as_str().to_owned()).expect("applications are given JSON");
        peer.reply(&data)
    }
}

/// The effect of a message.
#[derive(Debug)]
enum Due {
    /// None: the message is raw, or has another meaning.
    Nothing,
    /// The data arrives.
    Data(Expected),
}

#[derive(Debug)]
enum Expected {
    Absent,
    Value(Value),
    /// The text itself: it is nested too deeply for the model.
    Text(String),
}

fn start() -> Server {
    Server::start_with(|_| {}, |_| Echo(Builtin::new()))
}

/// The member with this path in a text, if the text is JSON.
fn data_in(text: &str, document: &str, path: &[&str], is_about: impl Fn(&Value) -> bool) -> Due {
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    if !is_json || json_model::depth(document) > DEPTH_MAX {
        return Due::Nothing;
    }
    match json_model::parse(text) {
        Ok(value) if is_about(&value) => {
            let found = path.iter().try_fold(&value, |value, name| value.member(name));
            Due::Data(found.map_or(Expected::Absent, |found| {
                Expected::Value(json_model::passed_on(found).expect("no array stands for a number here"))
            }))
        }
        Ok(_) => Due::Nothing,
        Err(json_model::NoValue::TooDeep) => Due::Data(Expected::Text(document.trim().to_owned())),
        Err(json_model::NoValue::Malformed) => panic!("the judges differ about {text:?}"),
    }
}

#[track_caller]
fn arrives(message: &str, path: &[&str], expected: &Expected, from: &str) {
    match expected {
        Expected::Text(text) => assert!(message.contains(text.as_str()), "{from:?}"),
        Expected::Absent | Expected::Value(_) => {
            let value = json_model::parse(message).unwrap_or_else(|_| panic!("{message:?} of {from:?}"));
            let found = path.iter().try_fold(&value, |value, name| value.member(name));
            match expected {
                Expected::Value(expected) => assert_eq!(found, Some(expected), "{from:?}"),
                Expected::Absent | Expected::Text(_) => assert_eq!(found, None, "{from:?}"),
            }
        }
    }
}

/// Sends a message as text or as binary. Text that is not UTF-8 ends a connection, so it is sent on a connection of its
/// own.
fn send(server: &Server, client: &mut Client, opcode: u8, message: &[u8]) -> Option<String> {
    if opcode == TEXT && std::str::from_utf8(message).is_err() {
        let mut other = server.client();
        other.send_bytes(&frame(TEXT, message));
        assert_eq!(
            other.event(),
            Received::Close(Some(1007), String::new()),
            "{message:?}"
        );
        return None;
    }
    client.send_bytes(&frame(opcode, message));
    // The reference reads binary messages in this way.
    Some(String::from_utf8_lossy(message).into_owned())
}

#[test]
fn there_are_documents_enough_of_each_kind() {
    let all = documents();
    let texts: Vec<&str> = all
        .iter()
        .filter_map(|bytes| std::str::from_utf8(bytes).ok())
        .collect();
    let valid = texts
        .iter()
        .filter(|text| serde_json::from_str::<&RawValue>(text).is_ok())
        .count();
    assert!(
        all.len() >= 300 && valid >= 150 && texts.len() - valid >= 150,
        "{} {valid}",
        all.len()
    );
    assert!(all.len() - texts.len() >= 30);
}

#[test]
fn a_document_in_the_place_of_a_packet_does_nothing() {
    let server = start();
    let mut client = server.client();
    let mut ended = 0;
    for document in documents() {
        for opcode in [TEXT, BINARY] {
            // The next message is the answer to the next call.
            let taken = send(&server, &mut client, opcode, &document).is_some();
            ended += u64::from(!taken);
            client.ping();
        }
    }
    assert_eq!(server.closes(CloseReason::InvalidUtf8), ended);
    assert!(server.limit_hits(Limit::JsonDepth) > 0);
}

#[test]
fn a_document_that_is_published_arrives_if_it_is_json_and_is_ignored_if_not() {
    let server = start();
    let (mut client, mut watcher) = (server.client(), server.client());
    watcher.subscribe("c");
    watcher.subscribe("fence");
    let mut published = 0;
    for (number, document) in documents().into_iter().enumerate() {
        for opcode in [TEXT, BINARY] {
            let start = br##"{"event":"#publish","data":{"channel":"c","data":"##;
            let message = [start, &document[..], br#"},"cid":90000}"#].concat();
            if let Some(text) = send(&server, &mut client, opcode, &message) {
                let is_about = |value: &Value| {
                    let channel = value.member("data").and_then(|data| data.member("channel"));
                    value
                        .member("event")
                        .is_some_and(|event| event.is_text("#publish"))
                        && channel.is_some_and(|channel| channel.is_text("c"))
                };
                let document = String::from_utf8_lossy(&document);
                if let Due::Data(expected) = data_in(&text, &document, &["data", "data"], is_about) {
                    arrives(&watcher.message(), &["data", "data"], &expected, &document);
                    published += 1;
                }
                // The server answers if the packet has an id, whatever else it contains.
                let answered = json_model::depth(&document) <= DEPTH_MAX
                    && serde_json::from_str::<&RawValue>(&text).is_ok()
                    && is_publish(&text);
                if answered {
                    assert!(client.message().starts_with("{\"rid\":90000"), "{document:?}");
                }
            }
            client.ping();
            client.publish("fence", &number.to_string());
            assert_eq!(watcher.publication("fence"), number.to_string());
        }
    }
    assert!(published > 300, "{published}");
}

/// True if a text that is JSON is a call of `#publish`. The model does not read some texts; they are such calls.
fn is_publish(text: &str) -> bool {
    json_model::parse(text).map_or(true, |value| {
        let is_call = matches!(value.member("cid"), Some(Value::Number(_)));
        is_call
            && value
                .member("event")
                .is_some_and(|event| event.is_text("#publish"))
    })
}

#[test]
fn a_document_that_a_call_brings_comes_back_if_it_is_json_and_is_ignored_if_not() {
    let server = start();
    let mut client = server.client();
    let mut answered = 0;
    for document in documents() {
        for opcode in [TEXT, BINARY] {
            let message = [br#"{"event":"echo","data":"#, &document[..], br#","cid":90000}"#].concat();
            if let Some(text) = send(&server, &mut client, opcode, &message) {
                let is_about = |value: &Value| {
                    value.member("event").is_some_and(|event| event.is_text("echo"))
                        && matches!(value.member("cid"), Some(Value::Number(_)))
                };
                let document = String::from_utf8_lossy(&document);
                if let Due::Data(expected) = data_in(&text, &document, &["data"], is_about) {
                    arrives(&client.message(), &["data"], &expected, &document);
                    answered += 1;
                }
            }
            client.ping();
        }
    }
    assert!(answered > 300, "{answered}");
}
