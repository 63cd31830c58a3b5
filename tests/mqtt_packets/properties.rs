//! Properties of MQTT 5: each one in each packet of a client, with values at its bounds, twice, cut, and in strings
//! that are none (section 2.2.2, table 2-4).

use super::support::mqtt::{packet, properties, string};
use super::{Answer, Case, ILL_FORMED, MALFORMED, PROTOCOL, TOPIC_ALIAS, WELL_FORMED, case};

/// A packet with properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Connect,
    Will,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

/// The verdict about a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Legal,
    Fault(u8),
}

use Of::{Auth, Connect, Disconnect, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe, Unsubscribe, Will};
use Verdict::{Fault, Legal};

/// A property: its identifier, the packets of a client in which it may stand, and values with their meaning. `None`:
/// the server alone sends it.
pub(crate) struct Row {
    pub(crate) id: u8,
    of: &'static [Of],
    pub(crate) values: Vec<(Vec<u8>, Verdict)>,
}

/// All properties.
pub(crate) fn rows() -> Vec<Row> {
    const MESSAGE: &[Of] = &[Publish, Will];
    const AUTHENTICATES: &[Of] = &[Connect, Auth];
    const EXPLAINED: &[Of] = &[PubAck, PubRec, PubRel, PubComp, Disconnect, Auth];
    const ALL: &[Of] = &[
        Connect,
        Will,
        Publish,
        PubAck,
        PubRec,
        PubRel,
        PubComp,
        Subscribe,
        Unsubscribe,
        Disconnect,
        Auth,
    ];
    let row = |id, of, values| Row { id, of, values };
    vec![
        row(0x01, MESSAGE, booleans()),
        row(0x02, MESSAGE, numbers(4, &[0, 1, 0xffff_ffff], &[], PROTOCOL)),
        row(0x03, MESSAGE, strings()),
        row(0x08, MESSAGE, topics()),
        row(0x09, MESSAGE, binary()),
        row(0x0b, &[Subscribe], variables()),
        row(0x11, &[Connect, Disconnect], numbers(4, &[0], &[], PROTOCOL)),
        row(0x12, &[], strings()),
        row(0x13, &[], numbers(2, &[10], &[], PROTOCOL)),
        row(0x15, AUTHENTICATES, strings()),
        row(0x16, AUTHENTICATES, binary()),
        row(0x17, &[Connect], booleans()),
        row(0x18, &[Will], numbers(4, &[0, 1], &[], PROTOCOL)),
        row(0x19, &[Connect], booleans()),
        row(0x1a, &[], strings()),
        row(0x1c, &[], strings()),
        row(0x1f, EXPLAINED, strings()),
        row(0x21, &[Connect], numbers(2, &[1, 0xffff], &[0], PROTOCOL)),
        row(0x22, &[Connect], numbers(2, &[0, 1, 0xffff], &[], PROTOCOL)),
        row(
            0x23,
            &[Publish],
            numbers(2, &[1, 10], &[0, 11, 0xffff], TOPIC_ALIAS),
        ),
        row(0x24, &[], booleans()),
        row(0x25, &[], booleans()),
        row(0x26, ALL, pairs()),
        row(0x27, &[Connect], numbers(4, &[1000, 0xffff_ffff], &[0], PROTOCOL)),
        row(0x28, &[], booleans()),
        row(0x29, &[], booleans()),
        row(0x2a, &[], booleans()),
    ]
}

impl Row {
    /// The property in a packet of a client: legal, or wrong by its place alone.
    pub(crate) fn place(&self, of: Of) -> Verdict {
        match (self.id, of) {
            _ if self.of.contains(&of) => Legal,
            // Servers send these properties in such a packet: [MQTT-3.3.4-6] and section 3.14.2.2.5.
            (0x0b, Publish) | (0x1c, Disconnect) => Fault(PROTOCOL),
            (_, _) => Fault(MALFORMED),
        }
    }
}

fn booleans() -> Vec<(Vec<u8>, Verdict)> {
    [
        (0, Legal),
        (1, Legal),
        (2, Fault(PROTOCOL)),
        (0xff, Fault(PROTOCOL)),
    ]
    .map(|(value, verdict)| (vec![value], verdict))
    .to_vec()
}

fn numbers(width: usize, legal: &[u32], wrong: &[u32], code: u8) -> Vec<(Vec<u8>, Verdict)> {
    let bytes = |number: &u32| number.to_be_bytes()[4 - width..].to_vec();
    let legal = legal.iter().map(|number| (bytes(number), Legal));
    legal
        .chain(wrong.iter().map(|number| (bytes(number), Fault(code))))
        .collect()
}

/// Section 1.5.5: as few bytes as possible, four at most; 0 is no subscription identifier (section 3.8.2.1.2).
fn variables() -> Vec<(Vec<u8>, Verdict)> {
    vec![
        (vec![1], Legal),
        (vec![0x7f], Legal),
        (vec![0x80, 1], Legal),
        (vec![0xff, 0xff, 0xff, 0x7f], Legal),
        (vec![0], Fault(PROTOCOL)),
        (vec![0x81, 0], Fault(MALFORMED)),
        (vec![0x80, 0x80, 0x80, 0], Fault(MALFORMED)),
        (vec![0x80, 0x80, 0x80, 0x80, 1], Fault(MALFORMED)),
    ]
}

fn strings() -> Vec<(Vec<u8>, Verdict)> {
    let legal = WELL_FORMED
        .into_iter()
        .chain([""])
        .map(|text| (string(text), Legal));
    legal
        .chain(ILL_FORMED.iter().map(|bytes| (string(bytes), Fault(MALFORMED))))
        .collect()
}

/// [MQTT-3.3.2-14], [MQTT-4.7.3-1]
fn topics() -> Vec<(Vec<u8>, Verdict)> {
    let mut topics = strings();
    topics.retain(|(topic, _)| topic.len() > 2);
    topics.extend(["", "+", "#", "a/+/b", "a#"].map(|topic| (string(topic), Fault(PROTOCOL))));
    topics
}

fn binary() -> Vec<(Vec<u8>, Verdict)> {
    [&b""[..], b"\0", b"\xff\xfe"]
        .map(|bytes| (string(bytes), Legal))
        .to_vec()
}

fn pairs() -> Vec<(Vec<u8>, Verdict)> {
    let mut pairs = Vec::new();
    for (text, verdict) in strings() {
        pairs.push(([&text[..], &string("v")].concat(), verdict));
        pairs.push(([&string("n")[..], &text].concat(), verdict));
    }
    pairs
}

/// Each property of a packet with its effect on the packet. `base` are properties that the packet has as well.
pub(crate) fn lists(of: Of, base: &[u8]) -> Vec<(String, Vec<u8>, Verdict)> {
    let mut lists = Vec::new();
    for row in rows() {
        let title = |what: &str| format!("{of:?} with the property {:#04x}{what}", row.id);
        let one = |value: &[u8]| [base, &[row.id], value].concat();
        let place = row.place(of);
        let (first, _) = &row.values[0];
        // Only the name of a method that CONNECT has as well may be here.
        let is_base = base.first() == Some(&row.id);
        for (value, verdict) in &row.values {
            let verdict = match (place, verdict) {
                // The value is read before its place is judged.
                (Fault(_), Fault(MALFORMED)) => Fault(MALFORMED),
                (Fault(code), _) => Fault(code),
                (Legal, Legal) if is_base => Fault(PROTOCOL),
                (Legal, verdict) => *verdict,
            };
            lists.push((title(&format!(": {value:x?}")), one(value), verdict));
        }
        let twice = [one(first), vec![row.id], first.clone()].concat();
        let verdict = match place {
            Legal if row.id != 0x26 => Fault(PROTOCOL),
            place => place,
        };
        lists.push((title(" twice"), twice, verdict));
        let cut = one(&first[..first.len() - 1]);
        lists.push((title(", cut"), cut, Fault(MALFORMED)));
        lists.push((title(" without a value"), one(b""), Fault(MALFORMED)));
    }
    let known: Vec<u8> = rows().iter().map(|row| row.id).collect();
    for id in (0..=0x7f).filter(|id| !known.contains(id)) {
        let list = [base, &[id, 0, 0, 0, 0]].concat();
        lists.push((
            format!("{of:?} with the property {id:#04x}"),
            list,
            Fault(MALFORMED),
        ));
    }
    // Identifiers of several bytes: none is known, and none is shorter than it could be.
    for id in [
        &[0x80, 0x01][..],
        &[0x81, 0x00],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0xa6, 0x00],
        &[0xff],
    ] {
        let list = [base, id, b"\0\0\0\0"].concat();
        lists.push((
            format!("{of:?} with the property {id:x?}"),
            list,
            Fault(MALFORMED),
        ));
    }
    lists
}

/// Properties in the packets of a client that is connected.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let ofs = [
        Publish,
        PubAck,
        PubRec,
        PubRel,
        PubComp,
        Subscribe,
        Unsubscribe,
        Disconnect,
        Auth,
    ];
    for of in ofs {
        let legal = match of {
            Disconnect => Answer::Left,
            Auth => Answer::Closed(PROTOCOL),
            Subscribe => Answer::SubAck(vec![0]),
            _ => Answer::Accepted,
        };
        let base = if of == Auth { &b"\x15\0\x01m"[..] } else { b"" };
        for (title, list, verdict) in lists(of, base) {
            let answer = match verdict {
                Legal => legal.clone(),
                Fault(code) => Answer::Closed(code),
            };
            cases.push(case(title, with(of, &properties(5, &list)), answer));
        }
        // The length of the properties: not in as few bytes as possible, in five, and more than the packet has.
        for length in [
            &[0x80, 0x00][..],
            &[0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x7f],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0xff],
        ] {
            let title = format!("{of:?} with properties of the length {length:x?}");
            cases.push(case(title, with(of, length), Answer::Closed(MALFORMED)));
        }
    }
    // MQTT-3.14.2-2: CONNECT has asked for no session that lasts.
    for (interval, answer) in [
        (0_u32, Answer::Left),
        (1, Answer::Closed(PROTOCOL)),
        (u32::MAX, Answer::Closed(PROTOCOL)),
    ] {
        let list = [&[0x11][..], &interval.to_be_bytes()].concat();
        cases.push(case(
            "DISCONNECT with a session expiry",
            with(Disconnect, &properties(5, &list)),
            answer,
        ));
    }
    cases
}

/// A packet with these properties, whose length is among the bytes.
fn with(of: Of, properties: &[u8]) -> Vec<u8> {
    let filter = string("some/topic");
    let (first, parts): (u8, [&[u8]; 3]) = match of {
        Publish => (0x30, [&filter, properties, b"payload"]),
        PubAck => (0x40, [b"\0\x09\0", properties, b""]),
        PubRec => (0x50, [b"\0\x09\0", properties, b""]),
        PubRel => (0x62, [b"\0\x09\0", properties, b""]),
        PubComp => (0x70, [b"\0\x09\0", properties, b""]),
        Subscribe => (0x82, [b"\0\x09", properties, b"\0\x01a\0"]),
        Unsubscribe => (0xa2, [b"\0\x09", properties, b"\0\x01a"]),
        Disconnect => (0xe0, [b"\0", properties, b""]),
        Auth => (0xf0, [b"\x18", properties, b""]),
        Connect | Will => unreachable!("the first packet of a connection"),
    };
    packet(first, &parts.concat())
}
