//! The load generator accepts the real server, and detects every wrong answer of servers that misbehave on purpose.

#![allow(clippy::unwrap_used)] // a test
#![allow(clippy::disallowed_types)] // the broker of a test may wait for a lock

#[path = "../benches/load/mod.rs"]
mod load;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use load::mqtt::flow::Flow;
use load::mqtt::wire::{self as packets, Kind, Packet};
use load::mqtt::{Filters, Qos, Speech, Version};
use load::order::Orders;
use load::wire::{self, Message, Publication};

#[test]
fn the_real_server_passes_every_kind_of_load() {
    for words in [
        "ping --clients 20 --in-flight 4 --messages 2000",
        "rate --clients 20 --rate 2000 --seconds 0.2",
        "idle --connections 300 --channels 7 --threads 3 --ping-every 0.2 --seconds 0.4",
        "fan-out --publishers 3 --subscribers 40 --channels 2 --threads 2 --in-flight 2 --bytes 300 --seconds 0.2",
        "churn --connections 10 --seconds 0.2",
        "storm --connections 100 --seconds 0.2",
        "flood --seconds 0.2",
        "fairness --subscribers 100 --seconds 0.2",
        "slow --subscribers 10 --slow 3 --bytes 20000 --seconds 0.3",
        "seed-throughput --rate 4000 --seconds 0.1",
        "seed-concurrency --connections 100 --rate 1000 --seconds 0.2",
        "ping --protocol mqtt --clients 20 --in-flight 4 --messages 2000",
        "idle --protocol mqtt5 --connections 300 --channels 7 --threads 3 --ping-every 0.2 --seconds 0.4",
        "fan-out --protocol mqtt --publishers 9 --subscribers 9 --channels 9 --in-flight 5 --qos 1 --seconds 0.2",
        "fan-out --protocol mqtt5 --publishers 3 --subscribers 40 --channels 2 --threads 2 --in-flight 2 --qos 2 --seconds 0.2",
        "fan-out --protocol mqtt --publishers 5 --subscribers 1 --filters wildcard --bytes 300 --seconds 0.2",
        "churn --protocol mqtt --connections 10 --seconds 0.2",
        "storm --protocol mqtt --connections 100 --seconds 0.2",
    ] {
        let (code, text) = run(words);
        assert_eq!(code, ExitCode::SUCCESS, "{words}: {text}");
        assert!(text.contains("no faults"), "{words}: {text}");
    }
}

#[test]
fn a_correct_server_passes_and_each_wrong_answer_fails_the_run() {
    let (code, text) = ping(|rid, count| vec![reply(rid, count)]);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");

    type Lie = fn(u32, u64) -> Vec<String>;
    for (lie, found) in [
        (
            (|rid, count| vec![reply(rid + 1, count)]) as Lie,
            "a reply to call 3, due was 2",
        ),
        (
            |rid, count| vec![reply(rid, count), reply(rid, count)],
            "a reply to call 2, due was 3",
        ),
        (|rid, _| vec![reply(rid, 7)], "was answered with count Some(7)"),
        (
            |rid, _| vec![format!(r#"{{"rid":{rid}}}"#)],
            "was answered with count None",
        ),
        (
            |rid, _| vec![format!(r#"{{"rid":{rid},"error":{{"name":"Error"}}}}"#)],
            "Error",
        ),
        (|_, _| vec!["nonsense".to_owned()], "nonsense"),
        (
            |_, _| {
                vec![
                    r##"{"event":"#publish","data":{"channel":"load-0","data":{"from":0,"number":0,"at":1}}}"##
                        .to_owned(),
                ]
            },
            "is not subscribed",
        ),
        (|_, _| vec![], "was closed by the server"),
    ] {
        let (code, text) = ping(lie);
        assert_eq!(code, ExitCode::FAILURE, "{text}");
        assert!(text.contains(found), "{found}: {text}");
    }
}

#[test]
fn a_lost_doubled_overtaking_or_foreign_publication_is_not_the_one_that_is_due() {
    let publication = |from, number| Publication {
        channel: 5,
        from,
        number,
        at: 0,
    };
    let mut orders = Orders::default();
    // Two publishers, one order: the first subscriber to receive a publication records its place.
    for (place, came) in [(0, (1, 0)), (1, (2, 0)), (2, (1, 1)), (0, (1, 0)), (1, (2, 0))] {
        assert_eq!(orders.check(&publication(came.0, came.1), place), Ok(()));
    }
    for (place, came) in [
        (3, (1, 3)), // publication 2 was lost
        (3, (1, 1)), // delivered before
        (3, (3, 1)), // its first publication was lost
        (2, (2, 0)), // delivered twice to a subscriber at place 2
        (1, (1, 1)), // before the first publication of publisher 2
        (0, (9, 0)), // no other subscriber has received it
    ] {
        orders.check(&publication(came.0, came.1), place).unwrap_err();
    }
    assert_eq!(orders.check(&publication(2, 1), 3), Ok(()));
    orders.trim(5, 2);
    assert_eq!(orders.check(&publication(1, 1), 2), Ok(()));
    assert_eq!(orders.check(&publication(2, 1), 3), Ok(()));
    assert_eq!(orders.digests().next().unwrap().1.count, 4);
}

#[test]
fn another_order_of_the_same_publications_has_another_digest() {
    let digest = |order: &[u32]| {
        let mut orders = Orders::default();
        for (place, from) in (0..).zip(order) {
            let publication = Publication {
                channel: 1,
                from: *from,
                number: 0,
                at: 0,
            };
            orders.check(&publication, place).unwrap();
        }
        orders.digests().next().unwrap().1
    };
    assert_eq!(digest(&[1, 2, 3]), digest(&[1, 2, 3]));
    assert_ne!(digest(&[1, 2, 3]), digest(&[1, 3, 2]));
    assert_ne!(digest(&[1, 2, 3]), digest(&[1, 2]));
}

#[test]
fn messages_mean_the_same_in_any_form_of_their_json() {
    let reply = Message::Reply {
        rid: 2,
        count: Some(5),
    };
    for text in [
        r#"{"rid":2,"data":{"count":5}}"#,
        r#"{ "rid": 2, "data": {"count": 5} }"#,
        r#"{"data":{"count":5},"rid":2}"#,
    ] {
        assert_eq!(wire::message(text.as_bytes(), "").unwrap(), reply, "{text}");
    }
    let publication = Publication {
        channel: 3,
        from: 1,
        number: 4,
        at: 99,
    };
    for (text, pad) in [
        (
            r##"{"event":"#publish","data":{"channel":"load-3","data":{"from":1,"number":4,"at":99}}}"##,
            "",
        ),
        (
            r##"{"event":"#publish","data":{"channel":"load-3","data":{"from":1,"number":4,"at":99,"pad":"xx"}}}"##,
            "xx",
        ),
        (
            r##"{"data":{"data":{"at":99,"pad":"xx","number":4,"from":1},"channel":"load-3"},"event":"#publish"}"##,
            "xx",
        ),
    ] {
        let message = wire::message(text.as_bytes(), pad).unwrap();
        assert_eq!(message, Message::Publication(publication), "{text}");
        // The payload has changed on its way.
        wire::message(text.as_bytes(), "xxx").unwrap_err();
    }
    for text in [
        r#"{"rid":02,"data":{"count":5}}"#,
        r#"{"rid":99999999999999999999,"data":{"count":5}}"#,
        r#"{"rid":2,"data":{"count":5}}x"#,
        r#"{"rid":2,"error":{}}"#,
        "null",
    ] {
        wire::message(text.as_bytes(), "").unwrap_err();
    }
}

#[test]
fn unknown_arguments_are_refused_and_no_arguments_print_the_help() {
    for words in [
        "pong",
        "ping --clients 0",
        "ping --seconds -1",
        "ping --cpus 3-1",
        "ping --nonsense 1",
    ] {
        assert_eq!(run(words).0, ExitCode::from(64), "{words}");
    }
    let (code, text) = run("");
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.contains("seed-throughput"), "{text}");
}

#[test]
fn a_correct_broker_passes_and_each_wrong_packet_fails_the_run() {
    const FAIR: Lie = |packet, _| vec![packet];
    for words in [
        "ping --clients 5 --in-flight 3 --messages 200",
        "fan-out --publishers 2 --subscribers 2 --channels 2 --in-flight 4 --qos 1 --bytes 300 --seconds 0.1",
        "fan-out --subscribers 3 --filters wildcard --seconds 0.1",
        "churn --connections 5 --seconds 0.1",
    ] {
        let (code, text) = broker_run(words, FAIR);
        assert_eq!(code, ExitCode::SUCCESS, "{words}: {text}");
        assert!(text.contains("no faults"), "{words}: {text}");
    }

    for (lie, found) in [
        (
            (|packet, n| {
                if is(&packet, PUBLISH) && n == 2 {
                    vec![]
                } else {
                    vec![packet]
                }
            }) as Lie,
            "its number 2 was due",
        ),
        (
            |packet, n| {
                if is(&packet, PUBLISH) && n == 2 {
                    vec![packet.clone(), packet]
                } else {
                    vec![packet]
                }
            },
            "number 2 of",
        ),
        (
            |packet, _| vec![changed(packet, PUBLISH, 0, 0x08)],
            "the packet 3a",
        ), // DUP
        (
            |packet, _| vec![changed(packet, PUBLISH, 0, 0x01)],
            "the packet 33",
        ), // retain
        (
            |packet, _| vec![changed(packet, PUBLISH, 0, 0x02)],
            "the packet 30",
        ), // QoS 0
        (
            |packet, _| vec![changed(packet, PUBLISH, 14, 0x01)],
            "is not subscribed",
        ), // another topic
        (
            |packet, _| vec![changed(packet, PUBLISH, 9, 0x01)],
            "the packet 32",
        ), // no topic of a channel
        (
            |packet, n| {
                if n == 0 {
                    vec![changed(packet, PUBLISH, 16, 0x01)]
                } else {
                    vec![packet]
                }
            },
            "the packet 32",
        ), // identifier 0
        (
            |packet, _| vec![changed(packet, PUBLISH, 40, 0x01)],
            "the packet 32",
        ), // padding
        (
            |packet, _| vec![changed(packet, PUBACK, 3, 0x10)],
            "due was Some(1)",
        ),
        (
            |packet, _| {
                if is(&packet, PUBACK) {
                    vec![packet.clone(), packet]
                } else {
                    vec![packet]
                }
            },
            "Ack for identifier 1",
        ),
        (
            |packet, n| {
                if is(&packet, PUBACK) && n == 0 {
                    vec![]
                } else {
                    vec![packet]
                }
            },
            "Ack for identifier 2, due was Some(1)",
        ),
        (
            |packet, _| {
                if is(&packet, PUBACK) {
                    vec![vec![0x70, 2, 0, 1]]
                } else {
                    vec![packet]
                }
            },
            "Complete in a run with QoS 1",
        ),
        (
            |packet, _| vec![changed(packet, CONNACK, 3, 5)],
            "the packet 20 02 00 05",
        ),
        (
            |packet, _| vec![changed(packet, CONNACK, 2, 1)],
            "session_present: true",
        ),
        (
            |packet, _| vec![changed(packet, SUBACK, 4, 0x81)],
            "the packet 90 03 ff ff 80",
        ),
        (
            |packet, _| {
                if is(&packet, SUBACK) {
                    vec![packet, vec![0xd0, 0]]
                } else {
                    vec![packet]
                }
            },
            "Pong",
        ),
        (
            |packet, n| {
                if is(&packet, PUBLISH) && n == 3 {
                    vec![vec![0]]
                } else {
                    vec![packet]
                }
            },
            "was closed by the server",
        ),
    ] {
        let (code, text) = broker_run("fan-out --subscribers 1 --in-flight 4 --qos 1 --seconds 0.1", lie);
        assert_eq!(code, ExitCode::FAILURE, "{found}: {text}");
        assert!(text.contains(found), "{found}: {text}");
    }
}

#[test]
fn packets_cut_anywhere_are_incomplete_and_whole_ones_decode_to_the_sent_packets() {
    let publication = Publication {
        channel: 70_123,
        from: 3,
        number: 9,
        at: 1 << 40,
    };
    let pad = "x".repeat(200);
    for (version, qos, filters, retain) in [
        (Version::V4, Qos::Zero, Filters::Exact, false),
        (Version::V4, Qos::Two, Filters::Everything, true),
        (Version::V5, Qos::One, Filters::Prefix, true),
        (Version::V5, Qos::Zero, Filters::Wildcard, false),
    ] {
        let speech = Speech {
            version,
            qos,
            filters,
            retain,
            ..Speech::PLAIN
        };
        let id = (qos != Qos::Zero).then_some(7);
        let mut bytes = Vec::new();
        packets::publish(&mut bytes, &publication, id, &pad, &speech);
        for count in 0..bytes.len() {
            assert_eq!(
                packets::packet(&bytes[..count], &pad, &speech),
                Ok(None),
                "{count}"
            );
        }
        let whole = Packet::Publish {
            id: id.unwrap_or(0),
            publication,
        };
        assert_eq!(
            packets::packet(&bytes, &pad, &speech),
            Ok(Some((whole, bytes.len())))
        );
        packets::packet(&bytes, &pad[1..], &speech).unwrap_err();
    }
}

#[test]
fn answers_complete_a_publication_only_in_their_order() {
    let mut flow = Flow::default();
    let mut out = Vec::new();
    assert_eq!([flow.begin(), flow.begin()], [1, 2]);
    let mut answer = |kind, id| flow.answered(kind, id, Qos::Two, &mut out);
    assert_eq!(answer(Kind::Received, 1), Ok(false));
    answer(Kind::Complete, 2).unwrap_err();
    let mut flow = Flow::default();
    let mut answer = |flow: &mut Flow, kind, id| flow.answered(kind, id, Qos::Two, &mut out);
    flow.begin();
    answer(&mut flow, Kind::Complete, 1).unwrap_err();
    assert_eq!(answer(&mut flow, Kind::Received, 1), Ok(false));
    assert_eq!(answer(&mut flow, Kind::Complete, 1), Ok(true));
    answer(&mut flow, Kind::Release, 5).unwrap_err();
    flow.delivered(Qos::Two, 5, &mut Vec::new()).unwrap();
    flow.delivered(Qos::Two, 5, &mut Vec::new()).unwrap_err();
    assert_eq!(answer(&mut flow, Kind::Release, 5), Ok(false));
    assert!(out.ends_with(&[0x70, 2, 0, 5]), "PUBCOMP answers PUBREL");
}

/// Changes a packet of a broker with QoS 1; the number counts the packets of this type on this connection before it.
type Lie = fn(Vec<u8>, usize) -> Vec<Vec<u8>>;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

fn is(packet: &[u8], kind: u8) -> bool {
    packet[0] & 0xf0 == kind
}

/// The packet with some bits of one byte changed, if it is of this type.
fn changed(mut packet: Vec<u8>, kind: u8, at: usize, bits: u8) -> Vec<u8> {
    if is(&packet, kind) {
        packet[at] ^= bits;
    }
    packet
}

/// Drives a broker of this test.
fn broker_run(words: &str, lie: Lie) -> (ExitCode, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let subscribers: Subscribers = Arc::default();
    // The threads end with the process or with their clients.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscribers = Arc::clone(&subscribers);
            thread::spawn(move || {
                // The client may end at any time.
                let _ = serve_mqtt(stream, &subscribers, lie);
            });
        }
    });
    run(&format!("{words} --protocol mqtt --address {address}"))
}

type Subscribers = Arc<Mutex<Vec<Arc<Mutex<Output>>>>>;

/// The sending side of a connection of the broker.
struct Output {
    stream: TcpStream,
    topic: Vec<u8>,
    lie: Lie,
    sent: [usize; 16],
}

impl Output {
    fn send(&mut self, packet: Vec<u8>) -> io::Result<()> {
        let kind = usize::from(packet[0] >> 4);
        self.sent[kind] += 1;
        for packet in (self.lie)(packet, self.sent[kind] - 1) {
            if packet == [0] {
                return self.stream.shutdown(std::net::Shutdown::Both);
            }
            self.stream.write_all(&packet)?;
        }
        Ok(())
    }
}

fn serve_mqtt(mut stream: TcpStream, subscribers: &Subscribers, lie: Lie) -> io::Result<()> {
    let output = Arc::new(Mutex::new(Output {
        stream: stream.try_clone()?,
        topic: Vec::new(),
        lie,
        sent: [0; 16],
    }));
    loop {
        let mut first = [0];
        stream.read_exact(&mut first)?;
        let (mut head, mut length, mut shift) = (first.to_vec(), 0, 0);
        while head.len() == 1 || head[head.len() - 1] & 0x80 != 0 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            head.push(byte[0]);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        match first[0] & 0xf0 {
            0x10 => output.lock().unwrap().send(vec![0x20, 2, 0, 0])?,
            0x80 => {
                // The last five digits of the number in the filter.
                let filter = &body[4..body.len() - 1];
                let digit = filter.iter().position(u8::is_ascii_digit).unwrap();
                output.lock().unwrap().topic = filter[digit..digit + 5].to_vec();
                // Publishers begin when they know of the SUBACK.
                subscribers.lock().unwrap().push(Arc::clone(&output));
                let suback = vec![0x90, 3, body[0], body[1], body[body.len() - 1]];
                output.lock().unwrap().send(suback)?;
            }
            0x30 => {
                let topic = usize::from(body[1]) + 2;
                if first[0] & 0x06 != 0 {
                    let ack = vec![0x40, 2, body[topic], body[topic + 1]];
                    output.lock().unwrap().send(ack)?;
                }
                for subscriber in subscribers.lock().unwrap().iter() {
                    let mut subscriber = subscriber.lock().unwrap();
                    if body[topic - 5..topic] == subscriber.topic {
                        let mut packet = head.clone();
                        packet.extend_from_slice(&body);
                        // A subscriber may have ended.
                        let _ = subscriber.send(packet);
                    }
                }
            }
            0xc0 => output.lock().unwrap().send(vec![0xd0, 0])?,
            0xe0 => return stream.shutdown(std::net::Shutdown::Both),
            _ => {}
        }
    }
}

/// The exit code and the output.
fn run(words: &str) -> (ExitCode, String) {
    let mut out = Vec::new();
    let code = load::run(words.split_whitespace().map(OsString::from), &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

/// Pings a server of this test. `answers` returns the messages for the `n`th ping of a connection with this call id; if
/// there are none, the server closes the connection.
fn ping(answers: fn(u32, u64) -> Vec<String>) -> (ExitCode, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // The thread ends with the process; its connections end when their clients do.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // The client may end at any time.
                let _ = serve(stream, answers);
            });
        }
    });
    run_against(address)
}

fn run_against(address: SocketAddr) -> (ExitCode, String) {
    run(&format!("ping --clients 2 --seconds 0.1 --address {address}"))
}

fn serve(mut stream: TcpStream, answers: fn(u32, u64) -> Vec<String>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    let mut pings = 0;
    loop {
        let text = receive(&mut stream)?;
        let rid: u32 = text
            .split_once(r#""cid":"#)
            .and_then(|(_, rest)| rest.trim_end_matches('}').parse().ok())
            .unwrap();
        if text.contains("#handshake") {
            send(&mut stream, &format!(r#"{{"rid":{rid},"data":{{"id":"one"}}}}"#))?;
            continue;
        }
        pings += 1;
        let answers = answers(rid, pings);
        if answers.is_empty() {
            return Ok(());
        }
        for answer in answers {
            send(&mut stream, &answer)?;
        }
    }
}

/// The text of a short masked frame.
fn receive(stream: &mut TcpStream) -> io::Result<String> {
    let mut header = [0; 6];
    stream.read_exact(&mut header)?;
    let mut payload = vec![0; usize::from(header[1] & 0x7f)];
    stream.read_exact(&mut payload)?;
    for (byte, mask) in payload.iter_mut().zip(header[2..].iter().cycle()) {
        *byte ^= mask;
    }
    String::from_utf8(payload).map_err(io::Error::other)
}

fn send(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let mut frame = vec![0x81, u8::try_from(text.len()).unwrap()];
    frame.extend_from_slice(text.as_bytes());
    stream.write_all(&frame)
}

fn reply(rid: u32, count: u64) -> String {
    format!(r#"{{"rid":{rid},"data":{{"count":{count}}}}}"#)
}
