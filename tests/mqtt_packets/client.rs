//! Packets of a client that is connected, without their properties.

use super::support::mqtt::{packet, properties, publish, string, subscribe};
use super::{Answer, Case, ILL_FORMED, MALFORMED, PROTOCOL, TOO_LARGE, WELL_FORMED, case, cut};

pub(crate) fn cases(version: u8) -> Vec<Case> {
    let mut cases = flags(version);
    cases.extend(lengths(version));
    cases.extend(cuts(version));
    cases.extend(identifiers(version));
    cases.extend(topics(version));
    cases.extend(filters(version));
    cases.extend(options(version));
    if version == 5 {
        cases.extend(reason_codes());
    }
    cases
}

/// Section 2.1: each type with each of the flags. In MQTT 3.1 most flags are not used, so they may be anything.
fn flags(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let filter = [&b"\0\x01"[..], &none, &string("a")].concat();
    let with_qos = [&filter[..], b"\0"].concat();
    let auth = b"\x18\x04\x15\0\x01m".to_vec();
    let mut cases = Vec::new();
    for first in 0..=u8::MAX {
        let flags = first & 0x0f;
        let (qos, dup) = (flags >> 1 & 3, flags & 8 != 0);
        let only = |flags_of_type: u8, answer: Answer| match flags == flags_of_type || version == 3 {
            true => answer,
            false => Answer::Closed(MALFORMED),
        };
        let publication = [&string("a")[..], if qos > 0 { b"\0\x01" } else { b"" }, &none].concat();
        let id = b"\0\x01".to_vec();
        let (body, answer) = match first >> 4 {
            0 => (vec![], Answer::Closed(MALFORMED)),
            // [MQTT-3.1.0-2], and packets of servers.
            1 | 2 | 9 | 11 | 13 => (vec![], Answer::Closed(PROTOCOL)),
            // [MQTT-3.3.1-2], [MQTT-3.3.1-4]
            3 if qos == 3 || (qos == 0 && dup) => (publication, Answer::Closed(MALFORMED)),
            3 => (publication, Answer::Accepted),
            4 | 5 | 7 => (id, only(0, Answer::Accepted)),
            6 => (id, only(2, Answer::Accepted)), // [MQTT-3.6.1-1]
            8 => (with_qos.clone(), only(2, Answer::SubAck(vec![0]))), // [MQTT-3.8.1-1]
            10 => (filter.clone(), only(2, Answer::Accepted)), // [MQTT-3.10.1-1]
            12 => (vec![], only(0, Answer::Accepted)),
            14 => (vec![], only(0, Answer::Left)), // [MQTT-3.14.1-1]
            // [MQTT-3.15.1-1]; no authentication method in CONNECT [MQTT-4.12.0-7]; the type is reserved before MQTT 5.
            _ if version == 5 => (auth.clone(), only(0, Answer::Closed(PROTOCOL))),
            _ => (vec![], Answer::Closed(MALFORMED)),
        };
        cases.push(case(
            format!("first byte {first:#04x}"),
            packet(first, &body),
            answer,
        ));
    }
    // A publication with RETAIN is not to be there for later cases.
    cases.push(case(
        "clears",
        publish(version, 1, "a", 0, &[], b""),
        Answer::Accepted,
    ));
    cases
}

/// Section 2.1.4, 1.5.5.
fn lengths(version: u8) -> Vec<Case> {
    let mut cases = vec![
        case(
            "a length of five bytes",
            vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
            Answer::Closed(MALFORMED),
        ),
        case(
            "a length of five zeros",
            vec![0xc0, 0x80, 0x80, 0x80, 0x80, 0x00],
            Answer::Closed(MALFORMED),
        ),
        case(
            "the largest packet",
            vec![0x30, 0xff, 0xff, 0xff, 0x7f],
            Answer::Closed(TOO_LARGE),
        ),
        case(
            "a packet of 1 MiB and a byte",
            vec![0x30, 0xfd, 0xff, 0x3f],
            Answer::Closed(TOO_LARGE),
        ),
        case(
            "PINGREQ with a body",
            packet(0xc0, b"\0"),
            Answer::Closed(MALFORMED),
        ),
        case("DISCONNECT", packet(0xe0, b""), Answer::Left),
    ];
    if version < 5 {
        cases.push(case(
            "DISCONNECT with a body",
            packet(0xe0, b"\0"),
            Answer::Closed(MALFORMED),
        ));
        cases.push(case("AUTH", packet(0xf0, b""), Answer::Closed(MALFORMED)));
    }
    cases
}

fn cuts(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let user = properties(version, b"\x26\0\x01n\0\x01v");
    let (accepted, closed) = (Some(Answer::Accepted), Some(Answer::Closed(PROTOCOL)));
    let id = || ("identifier", b"\x12\x34".to_vec(), None);
    let five = version == 5;
    let mut cases = Vec::new();

    let head = vec![("topic", string("some/topic"), None)];
    let tail = vec![
        ("properties", user.clone(), accepted.clone()),
        ("payload", b"p".to_vec(), accepted.clone()),
    ];
    // Before MQTT 5 the packet may end behind its topic, and behind its identifier.
    let mut qos_0 = [head.clone(), tail.clone()].concat();
    let mut qos_1 = [head, vec![id()], tail].concat();
    if !five {
        qos_0[0].2.clone_from(&accepted);
        qos_1[1].2.clone_from(&accepted);
    }
    cases.extend(cut("PUBLISH with QoS 0", 0x30, &qos_0, accepted.clone()));
    cases.extend(cut("PUBLISH with QoS 1", 0x32, &qos_1, accepted.clone()));
    cases.extend(cut("PUBLISH with QoS 2", 0x34, &qos_1, accepted.clone()));

    for (name, first) in [
        ("PUBACK", 0x40),
        ("PUBREC", 0x50),
        ("PUBREL", 0x62),
        ("PUBCOMP", 0x70),
    ] {
        let mut parts = vec![("identifier", b"\x12\x34".to_vec(), accepted.clone())];
        if five {
            parts.push(("reason", vec![0], accepted.clone()));
            parts.push(("properties", user.clone(), accepted.clone()));
        }
        cases.extend(cut(name, first, &parts, Some(Answer::Closed(MALFORMED))));
    }

    // [MQTT-3.8.3-2], [MQTT-3.10.3-2]: no filter is a protocol error.
    for (name, first, options) in [("SUBSCRIBE", 0x82, &[0][..]), ("UNSUBSCRIBE", 0xa2, &[])] {
        let answer = |count| match options.len() {
            0 => accepted.clone(),
            _ => Some(Answer::SubAck(vec![0; count])),
        };
        let mut parts = vec![(
            "identifier",
            b"\x12\x34".to_vec(),
            closed.clone().filter(|_| !five),
        )];
        if five {
            parts.push(("properties", user.clone(), closed.clone()));
        }
        for (count, filter) in [(1, "some/+"), (2, "#")] {
            let may_end = answer(count).filter(|_| options.is_empty());
            parts.push(("filter", string(filter), may_end));
            parts.push(("options", options.to_vec(), answer(count)));
        }
        cases.extend(cut(name, first, &parts, Some(Answer::Closed(MALFORMED))));
    }
    if five {
        let parts = vec![
            ("reason", vec![0], Some(Answer::Left)),
            ("properties", user.clone(), Some(Answer::Left)),
        ];
        cases.extend(
            cut("DISCONNECT", 0xe0, &parts, Some(Answer::Closed(MALFORMED)))
                .into_iter()
                .skip(1),
        );
        // CONNECT has named no method, so none of these is legal.
        let parts = vec![
            ("reason", vec![0x18], closed.clone()),
            ("properties", b"\x04\x15\0\x01m".to_vec(), closed.clone()),
        ];
        cases.extend(
            cut("AUTH", 0xf0, &parts, Some(Answer::Closed(MALFORMED)))
                .into_iter()
                .skip(1),
        );
        cases.push(case(
            "AUTH without anything",
            packet(0xf0, b""),
            Answer::Closed(PROTOCOL),
        ));
        cases.push(case(
            "PUBLISH without a length of properties",
            packet(0x30, &string("a")),
            Answer::Closed(MALFORMED),
        ));
        let unsubscribe = [&b"\0\x01"[..], &none].concat();
        cases.push(case(
            "UNSUBSCRIBE of nothing",
            packet(0xa2, &unsubscribe),
            Answer::Closed(PROTOCOL),
        ));
    }
    cases
}

/// [MQTT-2.2.1-3]: 0 is no packet identifier; all other numbers are.
fn identifiers(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let mut cases = Vec::new();
    for id in [0_u16, 1, 0x00ff, 0x0100, 0x7fff, 0x8000, 0xffff] {
        let answer = |legal: Answer| if id == 0 { Answer::Closed(PROTOCOL) } else { legal };
        let id = id.to_be_bytes();
        let mut push = |name: &str, first: u8, rest: &[u8], legal: Answer| {
            let body = [&id[..], rest].concat();
            cases.push(case(
                format!("{name} with the identifier {id:x?}"),
                packet(first, &body),
                answer(legal),
            ));
        };
        for (name, first) in [
            ("PUBACK", 0x40),
            ("PUBREC", 0x50),
            ("PUBREL", 0x62),
            ("PUBCOMP", 0x70),
        ] {
            push(name, first, &[], Answer::Accepted);
        }
        push(
            "SUBSCRIBE",
            0x82,
            &[&none[..], &string("a"), &[0]].concat(),
            Answer::SubAck(vec![0]),
        );
        push(
            "UNSUBSCRIBE",
            0xa2,
            &[&none[..], &string("a")].concat(),
            Answer::Accepted,
        );
        for first in [0x32, 0x34] {
            let body = [&string("some/topic")[..], &id, &none].concat();
            cases.push(case(
                format!("PUBLISH with the identifier {id:x?}"),
                packet(first, &body),
                answer(Answer::Accepted),
            ));
        }
        // So that the identifier of QoS 2 is free again.
        cases.push(case("PUBREL", packet(0x62, &id), answer(Answer::Accepted)));
    }
    cases
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.3.2-2], [MQTT-4.7.3-1]
fn topics(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let publish = |topic: &[u8]| packet(0x30, &[&string(topic)[..], &none].concat());
    let closed = || Answer::Closed(MALFORMED);
    let mut cases: Vec<Case> = Vec::new();
    for topic in ILL_FORMED {
        cases.push(case(format!("PUBLISH to {topic:x?}"), publish(topic), closed()));
    }
    for topic in ["+", "#", "a/+", "a/#", "+/a", "a+", "a#b", "a/b+/c"] {
        cases.push(case(
            format!("PUBLISH to {topic}"),
            publish(topic.as_bytes()),
            closed(),
        ));
    }
    for topic in WELL_FORMED
        .into_iter()
        .chain(["/", "//", "a//b", " ", "$own/a", "$SYS/a", "$share/g/a"])
    {
        cases.push(case(
            format!("PUBLISH to {topic}"),
            publish(topic.as_bytes()),
            Answer::Accepted,
        ));
    }
    for length in [255, 256, 65_535] {
        let topic = vec![b'x'; length];
        cases.push(case(
            format!("PUBLISH to {length} bytes"),
            publish(&topic),
            Answer::Accepted,
        ));
    }
    // Section 3.3.2.1: without a topic there is to be an alias.
    let code = if version == 5 { PROTOCOL } else { MALFORMED };
    cases.push(case(
        "PUBLISH without a topic",
        publish(b""),
        Answer::Closed(code),
    ));
    cases
}

/// [MQTT-3.8.3-1], [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
fn filters(version: u8) -> Vec<Case> {
    let none = properties(version, &[]);
    let subscribe = |filter: &[u8]| packet(0x82, &[b"\0\x01", &none[..], &string(filter), b"\0"].concat());
    let unsubscribe = |filter: &[u8]| packet(0xa2, &[b"\0\x01", &none[..], &string(filter)].concat());
    let mut cases = Vec::new();
    for filter in ILL_FORMED.into_iter().chain([&b""[..]]) {
        cases.push(case(
            format!("SUBSCRIBE to {filter:x?}"),
            subscribe(filter),
            Answer::Closed(MALFORMED),
        ));
        cases.push(case(
            format!("UNSUBSCRIBE from {filter:x?}"),
            unsubscribe(filter),
            Answer::Closed(MALFORMED),
        ));
    }
    let legal = [
        "#",
        "+",
        "/",
        "+/+",
        "a/#",
        "a/+/b",
        "/#",
        "$own/#",
        "$share",
        "$share/g/a",
        "$share/g/#",
        "$share/g//",
    ];
    for filter in WELL_FORMED.into_iter().chain(legal) {
        cases.push(case(
            format!("SUBSCRIBE to {filter}"),
            subscribe(filter.as_bytes()),
            Answer::SubAck(vec![0]),
        ));
        cases.push(case(
            format!("UNSUBSCRIBE from {filter}"),
            unsubscribe(filter.as_bytes()),
            Answer::Accepted,
        ));
    }
    // In MQTT 5 each filter has a code of its own; before, a wildcard where none may be ends the connection.
    for filter in [
        "a#", "#/a", "a/#/b", "a+", "+a", "++", "##", "a/b#", "a/+b/c", "/+a",
    ] {
        let answer = match version {
            5 => Answer::SubAck(vec![0x8f]),
            _ => Answer::Closed(MALFORMED),
        };
        cases.push(case(
            format!("SUBSCRIBE to {filter}"),
            subscribe(filter.as_bytes()),
            answer,
        ));
    }
    // 3.1.1 has no shared subscriptions; a filter with `$share` in a wrong form is refused all the same.
    for filter in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a"] {
        let code = if version == 5 { 0x8f } else { 0x80 };
        cases.push(case(
            format!("SUBSCRIBE to {filter}"),
            subscribe(filter.as_bytes()),
            Answer::SubAck(vec![code]),
        ));
    }
    cases
}

/// Section 3.8.3.1, and [MQTT-3.8.3-4] of 3.1.1: each value of the byte behind a filter.
fn options(version: u8) -> Vec<Case> {
    let mut cases = Vec::new();
    for options in 0..=u8::MAX {
        let granted = Answer::SubAck(vec![options & 3]);
        let (qos, handling) = (options & 3, options >> 4 & 3);
        let answer = match version {
            3 if qos < 3 => granted,
            4 if options < 3 => granted,
            5 if options > 0x3f => Answer::Closed(MALFORMED), // [MQTT-3.8.3-5]
            5 if qos == 3 || handling == 3 => Answer::Closed(PROTOCOL),
            5 => granted,
            _ => Answer::Closed(MALFORMED),
        };
        let title = format!("SUBSCRIBE with the options {options:#04x}");
        cases.push(case(title, subscribe(version, 1, &[], &[("a", options)]), answer));
        if version == 5 && options < 0x40 {
            let title = format!("SUBSCRIBE to a group with the options {options:#04x}");
            let answer = match options {
                _ if qos == 3 || handling == 3 => Answer::Closed(PROTOCOL),
                _ if options & 4 != 0 => Answer::Closed(PROTOCOL), // [MQTT-3.8.3-4]
                _ => Answer::SubAck(vec![qos]),
            };
            cases.push(case(
                title,
                subscribe(version, 1, &[], &[("$share/g/a", options)]),
                answer,
            ));
        }
    }
    cases
}

/// Each number as the reason of each packet that has one (tables 2-6 and 3-10).
fn reason_codes() -> Vec<Case> {
    const ACKNOWLEDGED: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: [u8; 2] = [0x00, 0x92];
    const LEAVES: [u8; 14] = [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ];
    // A server says these in DISCONNECT, and no client.
    const SERVER_LEAVES: [u8; 15] = [
        0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1,
    ];
    let mut cases = Vec::new();
    for code in 0..=u8::MAX {
        for (name, first, legal) in [
            ("PUBACK", 0x40, &ACKNOWLEDGED[..]),
            ("PUBREC", 0x50, &ACKNOWLEDGED),
            ("PUBREL", 0x62, &RELEASED),
            ("PUBCOMP", 0x70, &RELEASED),
        ] {
            let answer = match legal.contains(&code) {
                true => Answer::Accepted,
                false => Answer::Closed(MALFORMED),
            };
            cases.push(case(
                format!("{name} with the reason {code:#04x}"),
                packet(first, &[0, 9, code]),
                answer,
            ));
        }
        let answer = match code {
            _ if LEAVES.contains(&code) => Answer::Left,
            0xa2 => Answer::Closed(PROTOCOL),
            _ if SERVER_LEAVES.contains(&code) => Answer::Closed(PROTOCOL),
            _ => Answer::Closed(MALFORMED),
        };
        cases.push(case(
            format!("DISCONNECT with the reason {code:#04x}"),
            packet(0xe0, &[code]),
            answer,
        ));
        let answer = match code {
            0x00 | 0x18 | 0x19 => Answer::Closed(PROTOCOL),
            _ => Answer::Closed(MALFORMED),
        };
        let body = [&[code, 4, 0x15][..], &string("m")].concat();
        cases.push(case(
            format!("AUTH with the reason {code:#04x}"),
            packet(0xf0, &body),
            answer,
        ));
    }
    cases
}
