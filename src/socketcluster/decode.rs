//! Decodes a message to its packets, by the rules of the reference's default codec (wire reference, section 3).
//!
//! Text that is not JSON, or is neither an object nor an array, is not an error: it is a raw packet. A
//! message is valid or invalid as a whole: if the end of an array cannot be parsed, no packet of the array is
//! handled. Therefore arrays are scanned twice, first to check them and then to handle them; single packets
//! are scanned once.
//!
//! An array may hold a hundred thousand packets. Both scans can stop between two packets when the caller has done
//! enough for one turn, and [`resume`] continues them from a [`ResumePoint`] in the same text.
//!
//! Limits: `CHECKED_BYTES_MAX` bytes of an array are checked at a time, up to the end of the packet that crosses this
//! limit.

use super::json::{Fault, Scanner};
use super::number::Number;
use super::packet::{Event, Members, Packet, Response, Value};
use super::string::StringSlice;

/// A decoded message.
#[derive(Clone, Debug)]
pub enum Decoded<'a> {
    /// A single packet.
    One(Packet<'a>),
    /// The packets of an array, in order.
    Many(Packets<'a>),
    /// An array that is too long to be checked at once: [`resume`] continues at this place.
    Long(ResumePoint),
    /// A message that is nested too deeply for the scanner. It is handled like `One(Packet::Raw)`, and counted.
    TooDeep,
}

/// The place in the text of an array from which to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumePoint {
    /// The start of a packet; the array has been checked up to here.
    Checking(usize),
    /// The start of the next packet to handle; the whole array has been checked.
    Handling(usize),
}

/// Continues with an array. `text` must be the text of the message to which the place belongs.
pub fn resume(text: &str, place: ResumePoint) -> Decoded<'_> {
    match place {
        ResumePoint::Checking(at) => decoded(check_array(text, at)),
        ResumePoint::Handling(at) => Decoded::Many(Packets::at(text, at)),
    }
}

/// Decodes a message that is not a pong.
#[inline]
pub fn decode(text: &str) -> Decoded<'_> {
    match usual_event(text) {
        Some(event) => Decoded::One(Packet::Event(event)),
        None => decode_any(text),
    }
}

/// Decodes an event in the form in which all clients print it: compact JSON, first the name, then data, then the call
/// id, each at most once, and no other member. `None` if the text has another form. It takes a third of the
/// instructions of `decode_any` and has the same result, except for members that the server does not read.
#[inline]
fn usual_event(text: &str) -> Option<Event<'_>> {
    let mut scanner = Scanner::new(text);
    if !scanner.pass_all(b"{\"event\":") {
        return None;
    }
    let name = scanner.string().ok()?;
    let mut data = None;
    if scanner.pass_all(b",\"data\":") && !scanner.is_at_space() {
        let is_reserved = name.plain().is_none_or(|name| name.starts_with('#'));
        let value = if is_reserved {
            data_value(&mut scanner)
        } else {
            opaque_value(&mut scanner)
        };
        data = Some(value.ok()?);
    }
    let mut cid = None;
    if scanner.pass_all(b",\"cid\":") && !scanner.is_at_space() {
        cid = Number::in_value(text_of_value(&mut scanner).ok()?);
    }
    (scanner.pass(b'}') && scanner.is_at_end()).then_some(Event { name, data, cid })
}

/// Decodes a response in the form in which clients print an answer: compact JSON, first the id of the call,
/// then data, and no other member. `None` if the text has another form. It takes a third of the instructions
/// of [`object`].
#[inline]
fn usual_response(text: &str) -> Option<Response<'_>> {
    let mut scanner = Scanner::new(text);
    if !scanner.pass_all(b"{\"rid\":") || scanner.is_at_space() {
        return None;
    }
    let rid = Number::in_value(text_of_value(&mut scanner).ok()?)?;
    let mut data = None;
    if scanner.pass_all(b",\"data\":") && !scanner.is_at_space() {
        data = Some(opaque_value(&mut scanner).ok()?);
    }
    let error = None;
    (scanner.pass(b'}') && scanner.is_at_end()).then_some(Response { rid, data, error })
}

fn decode_any(text: &str) -> Decoded<'_> {
    if let Some(response) = usual_response(text) {
        return Decoded::One(Packet::Response(response));
    }
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let result = match scanner.peek() {
        Some(b'{') => object(&mut scanner).and_then(|packet| scanner.finish().map(|()| Decoded::One(packet))),
        Some(b'[') => array(text, scanner),
        Some(_) | None => return Decoded::One(Packet::Raw),
    };
    decoded(result)
}

fn decoded(result: Result<Decoded<'_>, Fault>) -> Decoded<'_> {
    match result {
        Ok(decoded) => decoded,
        Err(Fault::Malformed) => Decoded::One(Packet::Raw),
        Err(Fault::TooDeep) => Decoded::TooDeep,
    }
}

/// Begins to check an array, at its opening bracket.
fn array<'a>(text: &'a str, mut scanner: Scanner<'a>) -> Result<Decoded<'a>, Fault> {
    scanner.expect(b'[')?;
    let first = scanner.position();
    scanner.skip_space();
    if scanner.pass(b']') {
        return scanner.finish().map(|()| Decoded::Many(Packets::at(text, first)));
    }
    check_array(text, first)
}

/// Checks an array from the packet at `at`: to its end, or as much as is checked at a time.
fn check_array(text: &str, at: usize) -> Result<Decoded<'_>, Fault> {
    let mut scanner = Scanner::new(text);
    scanner.skip_to(at);
    let enough = at.saturating_add(CHECKED_BYTES_MAX);
    while scanner.position() < enough {
        scanner.value()?;
        scanner.skip_space();
        if !scanner.pass(b',') {
            scanner.expect(b']')?;
            scanner.finish()?;
            return Ok(Decoded::Many(Packets::of(text)));
        }
    }
    Ok(Decoded::Long(ResumePoint::Checking(scanner.position())))
}

/// Number of bytes of an array that are checked at a time. Checking them takes about as long as handling 256 packets.
const CHECKED_BYTES_MAX: usize = 64 * 1024;

/// The packets of an array that has been checked completely.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Packets<'a> {
    /// All packets of an array.
    fn of(text: &'a str) -> Packets<'a> {
        let mut scanner = Scanner::new(text);
        scanner.skip_space();
        scanner.pass(b'[');
        Packets { scanner }
    }

    fn at(text: &'a str, at: usize) -> Packets<'a> {
        let mut scanner = Scanner::new(text);
        scanner.skip_to(at);
        Packets { scanner }
    }

    /// The position that the scanner has reached in the text.
    pub fn position(&self) -> usize {
        self.scanner.position()
    }

    /// The place where [`resume`] continues; `None` after the last packet.
    pub fn place(&self) -> Option<ResumePoint> {
        let mut ahead = self.scanner.clone();
        ahead.skip_space();
        match ahead.peek() {
            None | Some(b']') => None,
            Some(_) => Some(ResumePoint::Handling(self.position())),
        }
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        self.scanner.skip_space();
        let packet = match self.scanner.peek() {
            None | Some(b']') => return None,
            Some(b'{') => object(&mut self.scanner),
            // Nested arrays and scalars.
            Some(_) => self.scanner.value().map(|()| Packet::Raw),
        };
        self.scanner.skip_space();
        self.scanner.pass(b',');
        // An error is impossible: the array was checked before.
        packet.ok()
    }
}

/// Scans an object and returns its packet.
#[inline]
fn object<'a>(scanner: &mut Scanner<'a>) -> Result<Packet<'a>, Fault> {
    let (mut name, mut data, mut cid) = (None, None, None);
    let (mut rid, mut error) = (None, None);
    members(scanner, |key, scanner| {
        match key {
            Key::Event => name = string_value(scanner)?,
            Key::Data => data = Some(data_value(scanner)?),
            Key::Cid => cid = Number::in_value(text_of_value(scanner)?),
            Key::Rid => rid = Number::in_value(text_of_value(scanner)?),
            Key::Error => error = Some(text_of_value(scanner)?),
            Key::Channel | Key::AuthToken | Key::Other => scanner.value()?,
        }
        Ok(())
    })?;
    Ok(match (name, rid) {
        (Some(name), _) => Packet::Event(Event { name, data, cid }),
        (None, Some(rid)) => Packet::Response(Response { rid, data, error }),
        (None, None) => Packet::Raw,
    })
}

/// Scans the data of a packet, and notes the members that reserved events use.
#[inline]
fn data_value<'a>(scanner: &mut Scanner<'a>) -> Result<Value<'a>, Fault> {
    scanner.take_rare();
    let start = scanner.position();
    let mut noted = Members::default();
    if scanner.peek() == Some(b'{') {
        members(scanner, |key, scanner| {
            match key {
                Key::Channel => noted.channel = string_value(scanner)?,
                Key::Data => noted.data = Some(text_of_value(scanner)?),
                Key::AuthToken => noted.auth_token = Some(text_of_value(scanner)?),
                Key::Event | Key::Cid | Key::Rid | Key::Error | Key::Other => scanner.value()?,
            }
            Ok(())
        })?;
    } else {
        scanner.value()?;
    }
    Ok(Value {
        json: scanner.since(start),
        rare: scanner.take_rare(),
        members: noted,
    })
}

/// Scans the data of an application's event or of a response, whose members the server does not read.
#[inline]
fn opaque_value<'a>(scanner: &mut Scanner<'a>) -> Result<Value<'a>, Fault> {
    scanner.take_rare();
    let start = scanner.position();
    scanner.value()?;
    Ok(Value {
        json: scanner.since(start),
        rare: scanner.take_rare(),
        members: Members::default(),
    })
}

/// Scans an object. It calls `member` at each value, with the key; `member` must scan the value.
#[inline]
fn members<'a>(
    scanner: &mut Scanner<'a>,
    mut member: impl FnMut(Key, &mut Scanner<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    scanner.expect(b'{')?;
    scanner.skip_space();
    if scanner.pass(b'}') {
        return Ok(());
    }
    loop {
        scanner.skip_space();
        let key = Key::pass(scanner)?;
        scanner.skip_space();
        member(key, scanner)?;
        scanner.skip_space();
        if !scanner.pass(b',') {
            return scanner.expect(b'}');
        }
    }
}

/// A key that has a meaning, in a packet or in its data.
enum Key {
    Event,
    Data,
    Cid,
    Rid,
    Error,
    Channel,
    AuthToken,
    Other,
}

impl Key {
    /// Scans a key and its colon. The most frequent keys are compared as a whole, without a search for their end.
    #[inline]
    fn pass(scanner: &mut Scanner<'_>) -> Result<Key, Fault> {
        Ok(if scanner.pass_all(b"\"channel\":") {
            Key::Channel
        } else if scanner.pass_all(b"\"data\":") {
            Key::Data
        } else {
            Key::named(scanner.key()?)
        })
    }

    fn named(key: StringSlice<'_>) -> Key {
        if key.is("event") {
            Key::Event
        } else if key.is("data") {
            Key::Data
        } else if key.is("cid") {
            Key::Cid
        } else if key.is("rid") {
            Key::Rid
        } else if key.is("error") {
            Key::Error
        } else if key.is("channel") {
            Key::Channel
        } else if key.is("authToken") {
            Key::AuthToken
        } else {
            Key::Other
        }
    }
}

/// Scans a value; returns it if it is a string.
#[inline]
fn string_value<'a>(scanner: &mut Scanner<'a>) -> Result<Option<StringSlice<'a>>, Fault> {
    if scanner.peek() == Some(b'"') {
        return scanner.noted_string().map(Some);
    }
    scanner.value()?;
    Ok(None)
}

/// Scans a value; returns its text.
#[inline]
fn text_of_value<'a>(scanner: &mut Scanner<'a>) -> Result<&'a str, Fault> {
    let start = scanner.position();
    scanner.value()?;
    Ok(scanner.since(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection, option, prop_assert, prop_assert_eq};

    use super::super::encode;
    use super::super::json::DEPTH_MAX;
    use super::super::packet::Reserved;
    use super::*;

    fn one(text: &str) -> Packet<'_> {
        match decode(text) {
            Decoded::One(packet) => packet,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn event(text: &str) -> Event<'_> {
        match one(text) {
            Packet::Event(event) => event,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn cid(text: &str) -> Option<String> {
        event(text)
            .cid
            .map(|cid| String::from_utf8(cid.text().as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn an_event_is_taken_apart_and_its_data_is_not_touched() {
        let event = event(" \n\t{ \"event\" : \"echo\" , \"data\" : { \"a\" : [ 1.0 ] } , \"cid\" : 5 } \r");
        assert!(event.name.is("echo"));
        assert_eq!(event.data.map(|data| data.json), Some("{ \"a\" : [ 1.0 ] }"));
        assert!(event.cid.is_some());
    }

    #[test]
    fn events_as_clients_print_them_take_the_short_way() {
        for text in [
            r#"{"event":"a"}"#,
            r#"{"event":"a","cid":1}"#,
            r#"{"event":"a","data":{"b":[1,{}]},"cid":12}"#,
            r##"{"event":"#publish","data":{"channel":"c","data":null}}"##,
        ] {
            assert!(usual_event(text).is_some(), "{text}");
        }
    }

    #[test]
    fn answers_as_clients_print_them_take_the_short_way_and_have_the_same_result() {
        for text in [
            r#"{"rid":1}"#,
            r#"{"rid":12,"data":null}"#,
            r#"{"rid":1.5e3,"data":"Buffer"}"#,
            r#"{"rid":7,"data":{"b":[1,{"c":-0}],"d":{}}}"#,
        ] {
            let short = usual_response(text).expect("it has the usual form");
            let long = object(&mut Scanner::new(text)).expect("it is an object");
            assert_eq!(Packet::Response(short), long, "{text}");
        }
        for text in [
            r#"{"rid":1,"data":2,"error":3}"#,
            r#"{"rid":1,"error":{}}"#,
            r#"{"rid":1,"data":2,"rid":3}"#,
            r#"{"rid":1,"event":"a"}"#,
            r#"{"rid":"1"}"#,
            r#"{"rid":null,"data":1}"#,
            r#"{"rid": 1}"#,
            r#"{"rid":1,"data": 2}"#,
            r#"{"rid":1} "#,
            r#"{"rid":1}}"#,
            r#"{"rid":1,"data":}"#,
        ] {
            assert_eq!(usual_response(text), None, "{text}");
        }
    }

    #[test]
    fn absent_data_and_null_are_different() {
        assert_eq!(event(r#"{"event":"a"}"#).data, None);
        assert_eq!(event(r#"{"event":"a","data":null}"#).data.unwrap().json, "null");
    }

    #[test]
    fn text_that_is_not_a_packet_is_raw() {
        for text in [
            "",
            " ",
            "null",
            "true",
            "5",
            "\"x\"",
            "hello",
            "#1",
            "#2",
            "{}",
            "{\"event\":",
            "{\"data\":1,\"cid\":9}",
            "{\"event\":5,\"cid\":2}",
            "{\"event\":{},\"cid\":2}",
            "{\"event\":null}",
            "{\"rid\":\"x\"}",
            "{\"rid\":null}",
            "\u{feff}{\"event\":\"a\"}",
            "\u{b}{\"event\":\"a\"}",
            "{\"event\":\"a\"}x",
            "{\"event\":\"a\"}{}",
            "[{\"event\":\"a\"},",
            "[{\"event\":\"a\"}]]",
            "{\"event\":\"a\",}",
        ] {
            assert_eq!(one(text), Packet::Raw, "{text}");
        }
    }

    #[test]
    fn an_event_wins_over_a_response() {
        assert!(matches!(
            one(r#"{"rid":5,"event":"a","foo":1}"#),
            Packet::Event(_)
        ));
        assert!(matches!(one(r#"{"rid":5,"event":null}"#), Packet::Response(_)));
        assert!(matches!(one(r#"{"rid":99,"data":1}"#), Packet::Response(_)));
    }

    #[test]
    fn only_numbers_are_call_ids() {
        assert_eq!(cid(r#"{"event":"a","cid":-1.5}"#).as_deref(), Some("-1.5"));
        for text in ["\"5\"", "true", "null", "[1]", "{\"a\":1}"] {
            assert_eq!(cid(&format!("{{\"event\":\"a\",\"cid\":{text}}}")), None);
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_wins_even_if_it_is_of_the_wrong_kind() {
        let last = event(r#"{"event":"a","cid":1,"data":{"channel":"x"},"event":"b","cid":2,"data":7}"#);
        assert!(last.name.is("b"));
        assert_eq!(last.data.unwrap().json, "7");
        assert_eq!(last.data.unwrap().members, Members::default());
        assert_eq!(cid(r#"{"event":"a","cid":1,"cid":"x"}"#), None);
        assert_eq!(one(r#"{"event":"a","event":5}"#), Packet::Raw);
        let channel = event(r#"{"event":"a","data":{"channel":"x","channel":5}}"#);
        assert_eq!(channel.data.unwrap().members.channel, None);
    }

    #[test]
    fn a_response_has_data_or_an_error_or_neither() {
        let response = |text: &'static str| match one(text) {
            Packet::Response(response) => (response.data.map(|data| data.json), response.error),
            other => panic!("{other:?}"),
        };
        assert_eq!(response(r#"{"rid":1}"#), (None, None));
        assert_eq!(response(r#"{"rid":1,"data":null}"#), (Some("null"), None));
        assert_eq!(
            response(r#"{"error":{"message":"m"},"rid":1,"data":[1]}"#),
            (Some("[1]"), Some(r#"{"message":"m"}"#))
        );
    }

    #[test]
    fn keys_may_be_escaped() {
        let event = event(r#"{"\u0065vent":"a","d\u0061ta":{"ch\u0061nnel":"c"},"c\u0069d":3}"#);
        assert!(event.name.is("a") && event.cid.is_some());
        assert!(event.data.unwrap().members.channel.unwrap().is("c"));
    }

    #[test]
    fn members_are_noted_in_any_order_and_only_in_objects() {
        let data = event(r##"{"event":"#publish","data":{"data":[1],"x":{"channel":"no"},"channel":"c"}}"##)
            .data
            .unwrap();
        assert!(data.members.channel.unwrap().is("c"));
        assert_eq!(data.members.data, Some("[1]"));
        let array = event(r##"{"event":"#publish","data":[{"channel":"c"}]}"##)
            .data
            .unwrap();
        assert_eq!(array.members, Members::default());
    }

    #[test]
    fn the_elements_of_an_array_come_in_order() {
        let Decoded::Many(packets) =
            decode(r#" [ [{"event":"n"}] , {"event":"a"},null,5,"x",{} , {"rid":1} ] "#)
        else {
            panic!("an array");
        };
        let kinds: Vec<_> = packets
            .map(|packet| match packet {
                Packet::Event(event) => event.name.plain().unwrap(),
                Packet::Response(_) => "response",
                Packet::Raw => "raw",
            })
            .collect();
        assert_eq!(kinds, ["raw", "a", "raw", "raw", "raw", "raw", "response"]);
        assert!(matches!(decode("[]"), Decoded::Many(packets) if packets.clone().next().is_none()));
    }

    /// Decodes a text to the end, in as many parts as necessary; returns the number of parts too.
    fn decoded_in_parts(text: &str) -> (Decoded<'_>, usize) {
        let (mut decoded, mut parts) = (decode(text), 1);
        while let Decoded::Long(place) = decoded {
            decoded = resume(text, place);
            parts += 1;
        }
        (decoded, parts)
    }

    #[test]
    fn a_long_array_is_checked_in_parts_as_it_would_be_at_once() {
        let element = r#"{"event":"a","data":[1,{"b":null}]} , "#;
        let count = 3 * CHECKED_BYTES_MAX / element.len() + 10;
        let array = |last: &str| format!(" [ {}{last} ] ", element.repeat(count));
        for last in ["5", "{}", r#"{"event":"b"}"#, "[]"] {
            let text = array(last);
            let (decoded, parts) = decoded_in_parts(&text);
            assert_eq!(parts, 4);
            assert!(matches!(decoded, Decoded::Many(packets) if packets.clone().count() == count + 1));
        }
        for last in ["", "{", "{]", "5 5", "5,", "\"", "5 ]", "5 ] ["] {
            let text = array(last);
            let (decoded, _) = decoded_in_parts(&text);
            assert!(
                matches!(decoded, Decoded::One(Packet::Raw)),
                "{last}: {decoded:?}"
            );
        }
        let text = array(&"[".repeat(DEPTH_MAX + 2));
        assert!(matches!(decoded_in_parts(&text).0, Decoded::TooDeep));
        // A single packet is never divided, however large it is.
        let text = format!("[\"{}\",1]", "x".repeat(5 * CHECKED_BYTES_MAX));
        assert_eq!(decoded_in_parts(&text).1, 2);
        let text = format!("[\"{}\"]", "x".repeat(5 * CHECKED_BYTES_MAX));
        assert_eq!(decoded_in_parts(&text).1, 1);
    }

    #[test]
    fn the_packets_of_an_array_are_the_same_wherever_it_is_left_and_gone_on_with() {
        let text = r#" [ {"event":"a"} ,5, [ ] ,{"rid":1}, {"event":"b","data":[ "]" ]} ] "#;
        let Decoded::Many(all) = decode(text) else {
            panic!("an array")
        };
        let expected: Vec<_> = all.clone().collect();
        let (mut packets, mut found) = (all, Vec::new());
        loop {
            found.extend(packets.next());
            let Some(place) = packets.place() else { break };
            let Decoded::Many(rest) = resume(text, place) else {
                panic!("{place:?}")
            };
            packets = rest;
        }
        assert_eq!(found, expected);
        assert!(matches!(decode(" [ ] "), Decoded::Many(packets) if packets.place().is_none()));
    }

    #[test]
    fn nesting_beyond_the_limit_is_told_apart() {
        let nested = |depth: usize| {
            format!(
                "{{\"event\":\"a\",\"data\":{}{}}}",
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert!(matches!(
            decode(&nested(DEPTH_MAX)),
            Decoded::One(Packet::Event(_))
        ));
        assert!(matches!(decode(&nested(DEPTH_MAX + 2)), Decoded::TooDeep));
        assert!(matches!(decode(&"[".repeat(100_000)), Decoded::TooDeep));
        assert!(matches!(decode(&"{\"a\":".repeat(100_000)), Decoded::TooDeep));
    }

    #[test]
    fn rare_values_are_noted_where_they_are() {
        assert!(event(r#"{"event":"a","data":{"data":-0}}"#).data.unwrap().rare);
        assert!(
            event(r#"{"event":"a","data":{"channel":"Buffer"}}"#)
                .data
                .unwrap()
                .rare
        );
        assert!(event(r#"{"event":"a","data":"Buffer"}"#).data.unwrap().rare);
        assert!(
            !event(r#"{"event":"a","cid":1e5,"data":{"data":0}}"#)
                .data
                .unwrap()
                .rare
        );
    }

    /// Texts that resemble the usual form; most of them have an error or are unusual.
    fn nearly_usual() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{\"event\":"),
            Just("\"ping\""),
            Just("\"#publish\""),
            Just("\"\\u0023publish\""),
            Just(",\"data\":"),
            Just("{\"channel\":\"c\",\"data\":[1e5]}"),
            Just("{\"a\":\"Buffer\"}"),
            Just("[]"),
            Just(",\"cid\":"),
            Just("7"),
            Just("07"),
            Just("-0"),
            Just("\"x\""),
            Just(" "),
            Just("}"),
        ];
        let usual = vec![
            "{\"event\":",
            "\"#publish\"",
            ",\"data\":",
            "[]",
            ",\"cid\":",
            "7",
            "}",
        ];
        (collection::vec((0..7usize, piece), 0..3), any::<bool>()).prop_map(move |(changes, insert)| {
            let mut pieces = usual.clone();
            for (at, piece) in changes {
                if insert {
                    pieces.insert(at, piece);
                } else {
                    pieces[at] = piece;
                }
            }
            pieces.concat()
        })
    }

    proptest! {
        #[test]
        fn the_short_way_finds_what_the_long_way_finds(text in nearly_usual()) {
            if let Some(mut usual) = usual_event(&text) {
                let Decoded::One(Packet::Event(mut any)) = decode_any(&text) else {
                    panic!("{text}");
                };
                if Reserved::named(&any.name).is_none() {
                    any.data = any.data.map(|data| Value { members: Members::default(), ..data });
                    usual.data = usual.data.map(|data| Value { members: Members::default(), ..data });
                }
                prop_assert_eq!(usual, any);
            }
        }

        #[test]
        fn decoding_undoes_encoding(name: String, number in option::of(any::<i32>()), call in option::of(0u32..)) {
            let data = number.map(|number| number.to_string());
            let mut out = Vec::new();
            encode::event(name.as_bytes(), data.as_deref().map(str::as_bytes), &mut out);
            if let Some(call) = call {
                out.pop();
                out.extend_from_slice(format!(",\"cid\":{call}}}").as_bytes());
            }
            let text = String::from_utf8(out).unwrap();
            let event = event(&text);
            prop_assert!(event.name.is(&name));
            prop_assert_eq!(event.data.map(|data| data.json), data.as_deref());
            prop_assert_eq!(cid(&text), call.map(|call| call.to_string()));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            if let Decoded::Many(packets) = decode(&text) {
                packets.for_each(drop);
            }
        }
    }
}
