//! The first packet of a connection: section 3.1.

use super::properties::{Of, Verdict, lists};
use super::support::mqtt::{connect_with, packet, properties, publish, string, subscribe};
use super::{Answer, Case, ILL_FORMED, MALFORMED, PROTOCOL, Parts, WELL_FORMED, case, cut};

pub(crate) fn cases(version: u8) -> Vec<Case> {
    let mut cases = flags(version);
    cases.extend(names_and_levels());
    cases.extend(first_bytes(version));
    cases.extend(cuts(version));
    cases.extend(texts(version));
    if version == 5 {
        cases.extend(of_properties());
    }
    cases
}

/// How a server says that CONNECT cannot be read: in MQTT 5 by a code.
fn refused(version: u8, code: u8) -> Answer {
    match version {
        5 => Answer::Refused(code),
        _ => Answer::Silent,
    }
}

fn flags(version: u8) -> Vec<Case> {
    let mut cases = Vec::new();
    for flags in 0..=u8::MAX {
        let has = |flag: u8| flags & flag != 0;
        let mut payload = string("id");
        if has(0x04) {
            payload.extend([properties(version, &[]), string("will"), string("payload")].concat());
        }
        if has(0x80) {
            payload.extend(string("user"));
        }
        if has(0x40) {
            payload.extend(string("password"));
        }
        let wrong = (has(0x01) && version > 3) // [MQTT-3.1.2-3]
            || (!has(0x04) && has(0x38)) // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
            || flags & 0x18 == 0x18 // [MQTT-3.1.2-12]
            || (has(0x40) && !has(0x80) && version < 5); // 3.1.1 [MQTT-3.1.2-22]
        let answer = match wrong {
            true => refused(version, MALFORMED),
            false => Answer::Accepted,
        };
        let title = format!("CONNECT with the flags {flags:#04x}");
        cases.push(case(
            title,
            connect_with(version, flags, 0, &[], &payload),
            answer,
        ));
    }
    // Flags that announce missing fields, and fields that no flag announces.
    for (flags, rest) in [
        (0x06, &b""[..]),
        (0x82, b""),
        (0xc2, b"\0\x01u"),
        (0x02, b"\0\x01u"),
        (0x82, b"\0\x01u\0\x01p"),
    ] {
        let payload = [&string("id")[..], rest].concat();
        let title = format!("CONNECT with the flags {flags:#04x} and {rest:x?}");
        cases.push(case(
            title,
            connect_with(version, flags, 0, &[], &payload),
            refused(version, MALFORMED),
        ));
    }
    cases
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2]: the answer to a level that the server does not speak is one that every version
/// reads, and that of MQTT 5 for later ones. The highest bit is that of bridges.
fn names_and_levels() -> Vec<Case> {
    let mut cases = Vec::new();
    let connect = |name: &[u8], level: u8| {
        let properties = if level == 5 { &b"\0"[..] } else { b"" };
        packet(
            0x10,
            &[&string(name)[..], &[level, 2, 0, 0], properties, &string("id")].concat(),
        )
    };
    for (name, spoken) in [("MQTT", &[4, 5][..]), ("MQIsdp", &[3])] {
        for level in 0..=u8::MAX {
            let answer = match level {
                _ if spoken.contains(&level) => Answer::Accepted,
                6..=0x7f => Answer::Refused(0x84),
                _ => Answer::Refused(1),
            };
            cases.push(case(
                format!("{name} {level}"),
                connect(name.as_bytes(), level),
                answer,
            ));
        }
    }
    for name in [
        &b""[..],
        b"M",
        b"MQT",
        b"MQTTT",
        b"mqtt",
        b"MQTT\0",
        b"MQIsd",
        b"MQISDP",
        b"HTTP",
        b"\xff\xff\xff\xff",
        &[b'M'; 300],
    ] {
        for level in [3, 4, 5, 6] {
            cases.push(case(
                format!("the name {name:x?}"),
                connect(name, level),
                Answer::Silent,
            ));
        }
    }
    cases
}

/// [MQTT-3.1.0-1], [MQTT-2.1.3-1]
fn first_bytes(version: u8) -> Vec<Case> {
    let connect = connect_with(version, 2, 0, &[], &string("id"));
    let mut cases = Vec::new();
    for first in 0..=u8::MAX {
        let answer = match first {
            // TLS begins like this; over TCP it is not taken for MQTT.
            0x16 => continue,
            0x10 => Answer::Accepted,
            0x11..=0x1f if version == 3 => Answer::Accepted,
            0x11..=0x1f => refused(version, MALFORMED),
            _ => Answer::Silent,
        };
        let title = format!("CONNECT with the first byte {first:#04x}");
        cases.push(case(title, [&[first], &connect[1..]].concat(), answer));
    }
    for (title, packet) in [
        ("PUBLISH", publish(version, 0, "a", 0, &[], b"")),
        ("SUBSCRIBE", subscribe(version, 1, &[], &[("a", 0)])),
        ("AUTH", packet(0xf0, b"\x18\x04\x15\0\x01m")),
        ("CONNACK", packet(0x20, &[0, 0])),
        ("a length of five bytes", vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a packet of 256 MiB", vec![0x10, 0xff, 0xff, 0xff, 0x7f]),
        ("CONNECT without anything", packet(0x10, b"")),
    ] {
        cases.push(case(title, packet, Answer::Silent));
    }
    cases
}

/// Behind the level the version is known, and clients of MQTT 5 are answered.
fn cuts(version: u8) -> Vec<Case> {
    let name = if version == 3 { "MQIsdp" } else { "MQTT" };
    let user = properties(version, b"\x26\0\x01n\0\x01v");
    let parts: Parts = vec![
        ("name", string(name), None),
        ("level", vec![version], None),
        ("flags", vec![0xf6], None),
        ("keep alive", vec![0, 60], None),
        ("properties", user.clone(), None),
        ("client identifier", string("id"), None),
        ("properties of the will", user, None),
        ("topic of the will", string("some/topic"), None),
        ("payload of the will", string("gone"), None),
        ("user name", string("user"), None),
        ("password", string("password"), Some(Answer::Accepted)),
    ];
    let known = 1 + 1 + 2 + name.len() + 1;
    let mut cases = cut("CONNECT", 0x10, &parts, Some(Answer::Closed(MALFORMED)));
    for case in &mut cases {
        if case.answer != Answer::Accepted {
            case.answer = match case.packet.len() >= known {
                true => refused(version, MALFORMED),
                false => Answer::Silent,
            };
        }
    }
    cases
}

/// [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]; [MQTT-4.7.0-1] and [MQTT-4.7.3-1] for the topic of the will. The
/// payload of the will and the password are bytes.
fn texts(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let mut cases = Vec::new();
    let mut push = |field: &str, bytes: &[u8], flags: u8, payload: Vec<u8>, answer: Answer| {
        let title = format!("CONNECT with the {field} {bytes:x?}");
        cases.push(case(
            title,
            connect_with(version, flags, 0, &[], &payload),
            answer,
        ));
    };
    let with_will =
        |topic: &[u8], payload: &[u8]| [&string("id")[..], &none, &string(topic), &string(payload)].concat();
    let texts = ILL_FORMED.map(|bytes| (bytes, refused(version, MALFORMED)));
    let legal = WELL_FORMED.map(|text| (text.as_bytes(), Answer::Accepted));
    for (text, answer) in texts.into_iter().chain(legal) {
        push("client identifier", text, 0x02, string(text), answer.clone());
        push(
            "topic of the will",
            text,
            0x06,
            with_will(text, b"x"),
            answer.clone(),
        );
        push(
            "user name",
            text,
            0x82,
            [string("id"), string(text)].concat(),
            answer,
        );
        push(
            "payload of the will",
            text,
            0x06,
            with_will(b"a", text),
            Answer::Accepted,
        );
        push(
            "password",
            text,
            0xc2,
            [string("id"), string("user"), string(text)].concat(),
            Answer::Accepted,
        );
    }
    for topic in [&b""[..], b"+", b"#", b"a/+/b", b"a#"] {
        push(
            "topic of the will",
            topic,
            0x06,
            with_will(topic, b"x"),
            refused(version, MALFORMED),
        );
    }
    push(
        "user name",
        b"",
        0x82,
        [string("id"), string("")].concat(),
        Answer::Accepted,
    );
    push(
        "payload of the will",
        b"",
        0x06,
        with_will(b"a", b""),
        Answer::Accepted,
    );
    for length in [23, 24, 255, 65_535] {
        let id = vec![b'x'; length];
        push("client identifier", &id[..1], 0x02, string(&id), Answer::Accepted);
    }
    // 3.1.1 [MQTT-3.1.3-8]; section 3.1.3.1 of 3.1.
    for flags in [0x00, 0x02] {
        let answer = match (version, flags) {
            (3, _) | (4, 0) => Answer::Refused(2),
            (_, _) => Answer::Accepted,
        };
        push("client identifier", b"", flags, string(""), answer);
    }
    cases
}

fn of_properties() -> Vec<Case> {
    let mut cases = Vec::new();
    let answer = |verdict| match verdict {
        Verdict::Legal => Answer::Accepted,
        Verdict::Fault(code) => Answer::Refused(code),
    };
    for (title, list, verdict) in lists(Of::Connect, b"") {
        let answer = match (list.first(), verdict) {
            // A method that the server does not have [MQTT-4.12.0-1], and data without a method.
            (Some(0x15), Verdict::Legal) => Answer::Refused(0x8c),
            (Some(0x16), Verdict::Legal) => Answer::Refused(PROTOCOL),
            (_, verdict) => answer(verdict),
        };
        cases.push(case(title, connect_with(5, 2, 0, &list, &string("id")), answer));
    }
    for (title, list, verdict) in lists(Of::Will, b"") {
        let payload = [
            &string("id")[..],
            &properties(5, &list),
            &string("a"),
            &string("x"),
        ]
        .concat();
        cases.push(case(title, connect_with(5, 6, 0, &[], &payload), answer(verdict)));
    }
    let method_and_data = [&[0x15][..], &string("m"), &[0x16], &string("d")].concat();
    cases.push(case(
        "a method with data",
        connect_with(5, 2, 0, &method_and_data, &string("id")),
        Answer::Refused(0x8c),
    ));
    for length in [
        &[0x80, 0x00][..],
        &[0x80, 0x80, 0x80, 0x80, 0x00],
        &[0x7f],
        &[0xff, 0xff, 0xff, 0x7f],
    ] {
        let body = [&string("MQTT")[..], &[5, 2, 0, 0], length, &string("id")].concat();
        let title = format!("CONNECT with properties of the length {length:x?}");
        cases.push(case(title, packet(0x10, &body), Answer::Refused(MALFORMED)));
    }
    cases
}
