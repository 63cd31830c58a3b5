//! Counts single steps on one thread: codecs, the upgrade, and the ring with all its cores on this thread.

use std::hint::black_box;
use std::io;

use ringcast::config::limits::Limits;
use ringcast::config::rules::{Action, Audience, Effect, RuleSpec};
use ringcast::internals::auth::Tokens;
use ringcast::internals::auth::rules::Rules;
use ringcast::internals::broker::{CoreBroker, Facts, Kind, Marks, Origin, SubscriptionLimits, broker};
use ringcast::internals::clock::Clock;
use ringcast::internals::history::{Histories, Keep, NewPublication, Part, Query, Question};
use ringcast::internals::http::request;
use ringcast::internals::mqtt::encode::{Delivery, PublishHead, PublishProperties};
use ringcast::internals::mqtt::packet::decode_connect;
use ringcast::internals::mqtt::{self, Version};
use ringcast::internals::socketcluster::{decode, encode};
use ringcast::internals::websocket::{self, OpCode, Receiver, Step, frame as frames, handshake};

use super::frame::frame;
use super::section;

pub(crate) const PING: &str = r#"{"event":"ping","data":{"param":"hello"},"cid":2}"#;
pub(crate) const PUBLISH: &str =
    r##"{"event":"#publish","data":{"channel":"all","data":{"text":"hello"}},"cid":12}"##;

pub(crate) const PUBLISH_REMEMBERED: &str =
    r##"{"event":"#publish","data":{"channel":"room.all","data":{"text":"hello"}},"cid":12}"##;

pub(crate) fn measure_all() -> io::Result<()> {
    receive_frames()?;
    write_frames()?;
    decode_packets()?;
    encode_packets()?;
    mqtt()?;
    upgrade()?;
    decide_by_rules()?;
    remember()?;
    for cores in [1, 2, 16] {
        ring(cores, Interested::Nobody)?;
    }
    for cores in [2, 16] {
        ring(cores, Interested::Everybody)?;
    }
    Ok(())
}

/// Twenty rules. The last one, about the client's own channels, decides.
fn decide_by_rules() -> io::Result<()> {
    let rule = |pattern: String, who: Audience| RuleSpec {
        effect: Effect::Allow,
        channels: Some(vec![pattern]),
        to: vec![who],
        ..RuleSpec::default()
    };
    let mut specs: Vec<RuleSpec> = (0..19)
        .map(|index| match index % 3 {
            0 => rule(format!("area{index}.*"), Audience::Authenticated),
            1 => rule(format!("user.{{sub}}.area{index}"), Audience::Anyone),
            _ => rule(format!("room{index}.{{rooms}}.**"), Audience::Anyone),
        })
        .collect();
    specs.push(rule("user.{sub}.**".to_owned(), Audience::Authenticated));
    let rules =
        Rules::compile(&specs, &[], '.', None).map_err(|fault| io::Error::other(fault.to_string()))?;
    let tokens = Tokens::from_secret(b"key", None).map_err(io::Error::other)?;
    let token = tokens
        .sign(r#"{"sub":"ann","rooms":["a","b","c"]}"#, None, 0)
        .map_err(io::Error::other)?;
    let mut claims = tokens
        .verify(&token, 0)
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    let facts = claims.facts(&rules);
    for (name, channel) in [
        ("rules: decide by the first of 20", "area0.news"),
        ("rules: decide by the last of 20", "user.ann.mail.inbox"),
        ("rules: 20 do not match", "lobby"),
    ] {
        section(name, MESSAGES as u64, || {
            for _ in 0..MESSAGES {
                let channel = black_box(channel.as_bytes());
                black_box(rules.decide(Action::Publish, channel, Some(facts)));
            }
        })?;
    }
    section("rules: decide again what is remembered", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            let channel = black_box(&b"user.ann.mail.inbox"[..]);
            black_box(rules.decide_for(Action::Publish, channel, facts));
        }
    })?;
    Ok(())
}

/// The history of one channel: 1,000 publications with 100 bytes of data, as many come as go. They do not pass the ring
/// here: one more user of the ring in this program would change how the compiler inlines it, and so the counts below.
fn remember() -> io::Result<()> {
    let broker = broker(1, 2, 1 << 16).remove(0);
    let channel = b"room.all";
    let hash = broker.hasher.hash(channel);
    let data = format!("\"{}\"", "x".repeat(98));
    let mut message = Vec::new();
    let name = |out: &mut Vec<u8>| out.extend_from_slice(b"\"room.all\"");
    let epoch = broker.numbering.epoch;
    encode::publish_marked(name, REMEMBERED, epoch, Some(data.as_bytes()), &mut message);
    let mut frame = Vec::new();
    frames::write(&mut frame, OpCode::Text, &message);
    let mut histories = Histories::new(epoch, 1 << 30, 1000);
    let keep = Keep {
        entries: 1000,
        bytes: 1 << 20,
        age_ms: 3_600_000,
        last_value: false,
    };
    let mut offset = 0;
    let mut append = |histories: &mut Histories| {
        for _ in 0..BATCH {
            offset += 1;
            let frame = black_box(&frame[..]);
            let publication = NewPublication::restored(offset, 0, 0, Origin::SocketCluster, frame, 100);
            histories.append(channel, hash, &publication, 0, || Some(keep));
        }
    };
    (0..2).for_each(|_| append(&mut histories));
    section("history: append and drop the oldest, 100 bytes", BATCH, || {
        append(&mut histories);
    })?;
    let question = Question {
        name: channel.as_slice().into(),
        hash,
        query: Query::Last(1000),
        publications_max: 1000,
        part: Part::Whole,
        before: broker.reader.claimed(),
    };
    let now = Clock::begin().now();
    let mut out = Vec::with_capacity(1 << 20);
    section(
        "history: read 1,000 of 100 bytes and copy them, for one",
        BATCH,
        || {
            let mut reading = histories.read(black_box(&question), u64::MAX, now);
            while !reading.is_empty() {
                reading.take_frames(64 * 1024, |frames, _| out.extend_from_slice(frames));
            }
            black_box(&out);
        },
    )
}

fn receive_frames() -> io::Result<()> {
    let large = format!("\"{}\"", "x".repeat(16 * 1024));
    for (name, message) in [
        ("frame: receive a ping, 49 bytes", PING),
        ("frame: receive 16 KiB", &large),
    ] {
        // Copies of the frame one after the other, as in a core's read buffer: a frame is unmasked in place, so it can
        // be read once.
        let mut input = frame(0x81, message.as_bytes()).repeat(MESSAGES);
        let mut receiver = Receiver::new();
        section(name, MESSAGES as u64, || {
            assert_eq!(receive_all(&mut receiver, &mut input), MESSAGES);
        })?;
    }
    let mut input = frame(0x81, PING.as_bytes()).repeat(MESSAGES);
    let half = input.len() / MESSAGES / 2;
    let mut receiver = Receiver::new();
    section("frame: receive a ping in two reads", MESSAGES as u64, || {
        let whole = input.chunks_exact_mut(half * 2 + 1);
        let received = whole.map(|message| {
            let (first, second) = message.split_at_mut(half);
            receive_all(&mut receiver, first) + receive_all(&mut receiver, second)
        });
        assert_eq!(received.sum::<usize>(), MESSAGES);
    })
}

fn receive_all(receiver: &mut Receiver, mut input: &mut [u8]) -> usize {
    let limits = websocket::Limits {
        message_bytes_max: 1 << 20,
        frame_bytes_max: 1 << 20,
        fragments_max: 16,
    };
    let mut count = 0;
    loop {
        match receiver.receive(input, &limits).expect("the frames are valid") {
            Step::Message { received, consumed } => {
                black_box(received);
                count += 1;
                input = &mut input[consumed..];
            }
            Step::Incomplete { .. } => return count,
        }
    }
}

fn write_frames() -> io::Result<()> {
    let mut out = Vec::with_capacity(1 << 20);
    for (name, payload) in [
        ("frame: write a reply, 28 bytes", &[b'x'; 28][..]),
        ("frame: write 1,000 bytes", &[b'x'; 1000]),
    ] {
        out.clear();
        section(name, MESSAGES as u64, || {
            for _ in 0..MESSAGES {
                frames::write(&mut out, OpCode::Text, black_box(payload));
            }
        })?;
    }
    Ok(())
}

fn decode_packets() -> io::Result<()> {
    let numbers: Vec<String> = (0..2500).map(|number| format!("{number}.5")).collect();
    let text = "plain words, \\u00e4 and \\\"quotes\\\", ".repeat(450);
    let list = format!(
        r#"{{"event":"save","data":{{"numbers":[{}]}},"cid":7}}"#,
        numbers.join(",")
    );
    let string = format!(r#"{{"event":"save","data":{{"text":"{text}"}},"cid":7}}"#);
    let array = format!("[{}]", [PING; 16].join(","));
    for (name, packet) in [
        ("packet: decode a ping", PING),
        ("packet: decode a #publish", PUBLISH),
        ("packet: decode 2,500 numbers, 16 KB", &list),
        ("packet: decode a string with escapes, 16 KB", &string),
        ("packet: decode an array of 16 pings", &array),
    ] {
        section(name, MESSAGES as u64, || {
            for _ in 0..MESSAGES {
                match decode::decode(black_box(packet)) {
                    decode::Decoded::Many(packets) => {
                        black_box(packets.count());
                    }
                    decoded => drop(black_box(decoded)),
                }
            }
        })?;
    }
    Ok(())
}

fn encode_packets() -> io::Result<()> {
    let mut out = Vec::with_capacity(1 << 20);
    section("packet: encode a reply", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            encode::response(
                black_box(b"2"),
                black_box(Some(&br#"{"count":17}"#[..])),
                &mut out,
            );
        }
    })?;
    out.clear();
    section("packet: encode a #publish", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            let channel = |out: &mut Vec<u8>| out.extend_from_slice(black_box(b"\"all\""));
            encode::publish(channel, black_box(Some(&br#"{"text":"hello"}"#[..])), &mut out);
        }
    })
}

/// The codec of MQTT. Each packet is received from a stream of such packets and decoded.
fn mqtt() -> io::Result<()> {
    let publish_5 = [
        &b"\x32\x59\x00\x0bload/c00000\x00\x01"[..],
        b"\x15\x01\x01\x02\x00\x00\x00\x3c\x26\x00\x04name\x00\x05value",
        &[b'x'; 52],
    ]
    .concat();
    let publish = [&b"\x30\x4d\x00\x0bload/c00000"[..], &[b'x'; 64]].concat();
    let subscribe = b"\x82\x10\x00\x01\x00\x0bload/c00000\x01";
    for (name, version, packet) in [
        ("mqtt: receive a PUBLISH, 64 bytes", Version::V4, &publish[..]),
        (
            "mqtt: receive a PUBLISH, version 5, 3 properties",
            Version::V5,
            &publish_5,
        ),
        ("mqtt: receive a PUBACK", Version::V4, b"\x40\x02\x00\x01"),
        ("mqtt: receive a SUBSCRIBE", Version::V4, subscribe),
    ] {
        let input = packet.repeat(MESSAGES);
        let mut receiver = mqtt::receiver::Receiver::default();
        section(name, MESSAGES as u64, || {
            assert_eq!(receive_packets(&mut receiver, version, &input), MESSAGES);
        })?;
    }
    let body = b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x06client";
    section("mqtt: decode a CONNECT", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            black_box(decode_connect(0x10, black_box(body)).expect("it is a CONNECT"));
        }
    })?;
    let mut out = Vec::with_capacity(1 << 20);
    let head = PublishHead {
        version: Version::V4,
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic: "load/c00000",
        payload_bytes: 64,
        properties: PublishProperties::default(),
    };
    section("mqtt: write the head of a PUBLISH", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            black_box(&head).write(&mut out);
        }
    })
}

fn receive_packets(receiver: &mut mqtt::receiver::Receiver, version: Version, mut input: &[u8]) -> usize {
    let mut count = 0;
    loop {
        match receiver.receive(input, 1 << 20).expect("the packets are valid") {
            mqtt::receiver::Step::Packet {
                first,
                body,
                consumed,
            } => {
                black_box(mqtt::packet::decode(version, first, body).expect("the packets are valid"));
                count += 1;
                input = &input[consumed..];
            }
            mqtt::receiver::Step::Incomplete => return count,
        }
    }
}

fn upgrade() -> io::Result<()> {
    let mut out = Vec::with_capacity(1 << 20);
    section("upgrade: request to response", MESSAGES as u64, || {
        for _ in 0..MESSAGES {
            let (request, _) = request::parse(black_box(REQUEST), 16 * 1024)
                .expect("the request is valid")
                .expect("the request is complete");
            let upgrade = handshake::upgrade(&request, "/socketcluster/").expect("it asks for an upgrade");
            upgrade.write(&mut out);
        }
    })
}

/// The cores besides the publishing one that have subscribers of the channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interested {
    Nobody,
    Everybody,
}

/// Publishes and reads in batches while all cores are awake; counts each step of a batch separately.
fn ring(cores: usize, interested: Interested) -> io::Result<()> {
    let limits = Limits::default();
    let mut brokers = broker(cores, limits.ring_slots, limits.ring_bytes_max);
    let hash = brokers[0].hasher.hash(b"channel");
    for (core, broker) in brokers.iter_mut().enumerate() {
        if core == 0 || interested == Interested::Everybody {
            let limits = SubscriptionLimits {
                channels_max: 1,
                names_bytes_max: 100,
            };
            broker.subscriptions.subscribe(0, b"channel", hash, limits);
        }
    }
    // Allocate all buffers first.
    for _ in 0..2 {
        publish_batch(&mut brokers[0]);
        brokers.iter_mut().for_each(read_batch);
        brokers[0].publisher.reclaim();
    }
    let whose = match (cores, interested) {
        (1, _) => "1 core".to_owned(),
        (cores, Interested::Nobody) => format!("{cores} cores, others not interested"),
        (cores, Interested::Everybody) => format!("{cores} cores, all interested"),
    };
    section(&format!("ring: publish, {whose}"), BATCH, || {
        publish_batch(&mut brokers[0]);
    })?;
    // The last core only reads; the publisher is another core.
    let reader = cores - 1;
    section(&format!("ring: read, {whose}"), BATCH, || {
        read_batch(&mut brokers[reader]);
    })?;
    brokers.iter_mut().for_each(read_batch);
    section(&format!("ring: take back, {whose}"), BATCH, || {
        brokers[0].publisher.reclaim();
    })
}

fn publish_batch(broker: &mut CoreBroker) {
    let frame: [&[u8]; 2] = [b"\x81\x64", &[b'x'; 100]];
    for _ in 0..BATCH {
        let hash = broker.hasher.hash(black_box(b"channel"));
        let published = broker.publisher.try_publish(b"channel", hash, &frame, FACTS);
        assert!(published.is_ok(), "a batch is a part of the ring");
    }
}

/// Reads like a core that looks up the subscribers and delivers the frame.
fn read_batch(broker: &mut CoreBroker) {
    while let Some(delivery) = broker.reader.next() {
        let publication = delivery.publication;
        broker
            .subscriptions
            .begin_walk(delivery.hash, || publication.channel());
        if !broker.subscriptions.is_walk_over() {
            black_box((broker.subscriptions.walk(usize::MAX), publication.frame()));
        }
    }
    broker.reader.release();
}

const MESSAGES: usize = 200;
const BATCH: u64 = 1000;
const REMEMBERED: Marks = Marks {
    remembered: true,
    positioned: true,
};
const FACTS: Facts = Facts {
    at_ns: 0,
    kind: Kind::Json,
    origin: Origin::SocketCluster,
    payload_bytes: 0,
    marks: Marks {
        remembered: false,
        positioned: false,
    },
    retain: false,
};
const REQUEST: &[u8] = b"GET /socketcluster/ HTTP/1.1\r\nHost: localhost:8000\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n\
    Upgrade: websocket\r\nOrigin: http://localhost:8000\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
