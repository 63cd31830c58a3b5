//! Packets of every kind, each wrong in every way that the specifications of MQTT 3.1, 3.1.1 and 5.0 know: flags, cut
//! at each byte, bytes behind the end, each property in each packet, values, strings, codes; with the exact answer of
//! the server. Packets and answers are put together here from the specifications, without the server's codec and
//! tables.
//!
//! Each case goes to a real server, over TCP; every seventh over TLS and WebSockets too. A healthy client stays served.

#![allow(clippy::unwrap_used)] // a test

#[path = "mqtt_packets/client.rs"]
mod client;
#[path = "mqtt_packets/connect.rs"]
mod connect;
#[path = "mqtt_packets/properties.rs"]
mod properties;
mod support;

use ringcast::config::Placement;
use support::mqtt::{Mqtt, MqttServer, Over, PINGREQ, PINGRESP, ack, body, packet, publish};

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;
const TOPIC_ALIAS: u8 = 0x94;
const TOO_LARGE: u8 = 0x95;

/// A packet, and the reaction of the server.
struct Case {
    title: String,
    packet: Vec<u8>,
    answer: Answer,
}

/// The answer of the server to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The connection goes on.
    Accepted,
    /// SUBACK with these codes.
    SubAck(Vec<u8>),
    /// The connection ends without a word: the client has left.
    Left,
    /// The connection ends: in MQTT 5 with this code in DISCONNECT, before it without a word.
    Closed(u8),
    /// CONNACK with this code, and the end.
    Refused(u8),
    /// The end, whatever the version.
    Silent,
}

fn case(title: impl Into<String>, packet: Vec<u8>, answer: Answer) -> Case {
    Case {
        title: title.into(),
        packet,
        answer,
    }
}

/// Bytes that are no string (section 1.5.4).
const ILL_FORMED: [&[u8]; 13] = [
    b"\0",
    b"a\0b",
    b"\x80",
    b"\xff",
    b"\xc0\x80",         // U+0000 in two bytes
    b"\xc1\xbf",         // longer than it needs to be
    b"\xe0\x80\xaf",     // the same
    b"\xed\xa0\x80",     // U+D800
    b"\xed\xbf\xbf",     // U+DFFF
    b"\xe2\x82",         // cut
    b"\xf4\x90\x80\x80", // U+110000
    b"\xf8\x88\x80\x80\x80",
    b"a\xf0\x9f\x92",
];

/// Strings that are legal: control characters and U+FEFF too (MQTT-1.5.4-3).
const WELL_FORMED: [&str; 7] = [
    "a",
    "\u{1}",
    "\u{7f}\u{9f}",
    "\u{feff}a",
    "\u{ffff}",
    "ä€",
    "\u{10ffff}",
];

/// Each part of a packet with its name, and whether the packet may end behind it.
type Parts = Vec<(&'static str, Vec<u8>, Option<Answer>)>;

/// A packet of these parts, cut at each byte; whole; and with one byte more. `first` is its first byte.
fn cut(name: &str, first: u8, parts: &Parts, more: Option<Answer>) -> Vec<Case> {
    let mut cases = Vec::new();
    let whole: Vec<u8> = parts.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
    let mut end = 0;
    for (part, bytes, ends) in parts {
        for at in end..end + bytes.len() {
            // Between parts, the one before says whether the packet may end.
            let answer = match at == end && at > 0 {
                true => continue,
                false => Answer::Closed(MALFORMED),
            };
            let title = format!("{name} cut in its {part}, at {at}");
            cases.push(case(title, packet(first, &whole[..at]), answer));
        }
        end += bytes.len();
        if !bytes.is_empty() {
            let answer = ends.clone().unwrap_or(Answer::Closed(MALFORMED));
            cases.push(case(
                format!("{name} ends behind its {part}"),
                packet(first, &whole[..end]),
                answer,
            ));
        }
    }
    if let Some(answer) = more {
        cases.push(case(
            format!("{name} with a byte behind it"),
            packet(first, &[&whole[..], b"\0"].concat()),
            answer,
        ));
    }
    cases
}

/// Sends cases to a server, on connections of one version.
struct Runner<'s> {
    server: &'s MqttServer,
    over: Over,
    version: u8,
    open: Option<Mqtt>,
}

impl Runner<'_> {
    /// A packet of a client that is connected. Returns the server's answer if it is not the expected one.
    fn run(&mut self, case: &Case) -> Result<(), Answer> {
        let mut client = match self.open.take() {
            Some(client) => client,
            None => self.server.connect_over(self.over, self.version, "client"),
        };
        // The server may end the connection before it has read all of this.
        client.try_send(&[&case.packet[..], PINGREQ].concat());
        // PINGREQ has an answer of its own. SUBACK for a shared subscription may come after PINGRESP.
        let mut pings = if case.packet[0] >> 4 == 0xc { 2 } else { 1 };
        let mut codes_of_suback = None;
        let mut waits = matches!(case.answer, Answer::SubAck(_));
        let came = loop {
            if pings == 0 && !waits {
                self.open = Some(client);
                break codes_of_suback.map_or(Answer::Accepted, Answer::SubAck);
            }
            match client.next() {
                Some(packet) if packet == PINGRESP => pings -= 1,
                Some(packet) if packet[0] == 0xe0 && client.next().is_none() => {
                    break Answer::Closed(body(&packet)[0]);
                }
                Some(packet) if packet[0] == 0x90 => {
                    (codes_of_suback, waits) = (Some(codes(self.version, &packet)), false);
                }
                Some(_) => {}
                None => break Answer::Silent,
            }
        };
        let expected = match &case.answer {
            Answer::Left => Answer::Silent,
            Answer::Closed(_) if self.version < 5 => Answer::Silent,
            answer => answer.clone(),
        };
        if came == expected { Ok(()) } else { Err(came) }
    }

    /// The first packet of a connection.
    fn run_first(&self, case: &Case) -> Result<(), Answer> {
        let mut client = self.server.open(self.over, self.version);
        client.try_send(&[&case.packet[..], PINGREQ].concat());
        let came = match client.next() {
            Some(packet) if packet[0] == 0x20 => match (body(&packet)[0], body(&packet)[1], client.next()) {
                (_, 0, Some(next)) if next == PINGRESP => Answer::Accepted,
                // [MQTT-3.2.2-6], [MQTT-3.2.2-7]
                (0, code @ 1.., None) => Answer::Refused(code),
                other => panic!("{}: {other:x?}", case.title),
            },
            Some(packet) => panic!("{}: {packet:x?}", case.title),
            None => Answer::Silent,
        };
        if came == case.answer { Ok(()) } else { Err(came) }
    }
}

/// The codes in SUBACK.
fn codes(version: u8, packet: &[u8]) -> Vec<u8> {
    let rest = &body(packet)[2..];
    match version {
        5 => rest[1 + usize::from(rest[0])..].to_vec(),
        _ => rest.to_vec(),
    }
}

/// Runs each case over TCP, and every seventh over the other transports; a healthy client stays served.
#[track_caller]
fn run_all(version: u8, cases: &[Case], run: impl Fn(&mut Runner<'_>, &Case) -> Result<(), Answer>) {
    let mut wrong = Vec::new();
    let server = MqttServer::start(|config| config.cores.placement = Placement::Count(2));
    let mut to = server.connect(5, "healthy-to");
    to.subscribe("healthy", 1);
    let mut from = server.connect(4, "healthy-from");
    for (offset, (over, stride)) in [(Over::Tcp, 1), (Over::Tls, 7), (Over::WebSocket, 7)]
        .into_iter()
        .enumerate()
    {
        let mut runner = Runner {
            server: &server,
            over,
            version,
            open: None,
        };
        for (number, case) in cases.iter().enumerate().skip(offset).step_by(stride) {
            if let Err(came) = run(&mut runner, case) {
                let Case {
                    title,
                    packet,
                    answer,
                } = case;
                wrong.push(format!(
                    "{over:?}, {title}: {came:x?} instead of {answer:x?} to {packet:x?}"
                ));
            }
            if number % 100 == 0 {
                from.send(&publish(4, 0x02, "healthy", 1, &[], b"x"));
                from.expect(&ack(0x40, 1));
                let message = to.message();
                to.send(&ack(0x40, message.id));
            }
        }
    }
    let (count, first) = (
        wrong.len(),
        wrong.iter().take(40).map(|line| format!("{line:.300}\n")),
    );
    assert!(
        wrong.is_empty(),
        "{count} answers are wrong, such as\n{}",
        first.collect::<String>()
    );
}

#[test]
fn packets_of_clients_of_3_1() {
    run_all(3, &client::cases(3), |runner, case| runner.run(case));
}

#[test]
fn packets_of_clients_of_3_1_1() {
    run_all(4, &client::cases(4), |runner, case| runner.run(case));
}

#[test]
fn packets_of_clients_of_5() {
    run_all(5, &client::cases(5), |runner, case| runner.run(case));
}

#[test]
fn properties_of_clients_of_5() {
    run_all(5, &properties::cases(), |runner, case| runner.run(case));
}

#[test]
fn first_packets_of_3_1() {
    run_all(3, &connect::cases(3), |runner, case| runner.run_first(case));
}

#[test]
fn first_packets_of_3_1_1() {
    run_all(4, &connect::cases(4), |runner, case| runner.run_first(case));
}

#[test]
fn first_packets_of_5() {
    run_all(5, &connect::cases(5), |runner, case| runner.run_first(case));
}
