//! The packets of an MQTT client.

use ringcast::internals::mqtt::encode::{Delivery, PublishHead, PublishProperties};
use ringcast::internals::mqtt::frame::{Frame, PACKET_BYTES_MAX, frame};
use ringcast::internals::mqtt::packet::{Connect, Packet, Publish, Qos, client_of, decode, decode_connect};
use ringcast::internals::mqtt::properties::{Properties, Property, Value};
use ringcast::internals::mqtt::receiver::{Receiver, Step};
use ringcast::internals::mqtt::{Fault, Version};

/// The first byte chooses the version, the rest are packets. A packet is the same wherever the input is cut, its
/// iterators return as many items as it announces, and an encoded message decodes to itself.
pub fn packets(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let whole = received(rest.chunks(rest.len().max(1)));
    for size in [1, 2, 7, 131] {
        assert_eq!(received(rest.chunks(size)), whole, "in pieces of {size} bytes");
    }
    let version = version(choice);
    while let Ok(Frame::Whole { first, body, length }) = frame(rest, PACKET_BYTES_MAX) {
        for cut in (0..length).step_by(1 + length / 50) {
            assert_eq!(frame(&rest[..cut], PACKET_BYTES_MAX), Ok(Frame::Incomplete));
        }
        assert_eq!(frame(rest, length - 1), Err(Fault::TooLarge));
        early_look(first, &rest[body.clone()]);
        match decode(version, first, &rest[body]) {
            Ok(Packet::Publish(publish)) => written_again(version, &publish),
            Ok(Packet::Subscribe(packet)) => assert_eq!(packet.filters().count(), packet.count),
            Ok(Packet::Unsubscribe(packet)) => assert_eq!(packet.filters().count(), packet.count),
            Ok(_) | Err(_) => {}
        }
        rest = &rest[length..];
    }
}

/// The packets that a connection receives in these pieces, and the fault that ends it.
fn received<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, Option<Fault>) {
    let mut receiver = Receiver::default();
    let mut packets = Vec::new();
    for mut piece in pieces {
        loop {
            match receiver.receive(piece, RECEIVED_BYTES_MAX) {
                Ok(Step::Packet {
                    first,
                    body,
                    consumed,
                }) => {
                    packets.push((first, body.to_vec()));
                    piece = &piece[consumed..];
                }
                Ok(Step::Incomplete) => break,
                Err(fault) => return (packets, Some(fault)),
            }
        }
    }
    (packets, None)
}

/// Small enough that inputs have packets that are larger.
const RECEIVED_BYTES_MAX: usize = 200;

/// The version that the first byte of an input chooses.
pub fn version(choice: u8) -> Version {
    match choice % 3 {
        0 => Version::V3,
        1 => Version::V4,
        _ => Version::V5,
    }
}

/// The version and the client identifier that a core reads before the session decodes CONNECT are those of the packet.
fn early_look(first: u8, body: &[u8]) {
    if let Ok(connect) = decode_connect(first, body) {
        assert_eq!(client_of(body), Some((connect.version, connect.client_id)));
    }
}

/// A message is the same after it has been written and read.
fn written_again(version: Version, publish: &Publish<'_>) {
    let delivery = match (publish.qos, publish.packet_id) {
        (Qos::AtMostOnce, None) => Delivery::AtMostOnce,
        (Qos::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
        (Qos::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
        (qos, id) => panic!("{qos:?} with the identifier {id:?}"),
    };
    let passed_on: Vec<u8> = publish.properties.passed_on().flatten().copied().collect();
    assert_eq!(passed_on.len(), publish.properties.passed_on_bytes());
    let head = PublishHead {
        version,
        dup: publish.dup,
        retain: publish.retain,
        delivery,
        topic: publish.topic,
        payload_bytes: publish.payload.len(),
        properties: PublishProperties {
            payload_is_utf8: publish.properties.number(Property::PayloadFormatIndicator) == Some(1),
            message_expiry_interval: publish.properties.number(Property::MessageExpiryInterval),
            topic_alias: publish.properties.number_16(Property::TopicAlias),
            subscription_ids: &[],
            passed_on: &passed_on,
        },
    };
    let mut packet = Vec::new();
    head.write(&mut packet);
    packet.extend_from_slice(publish.payload);
    assert_eq!(head.packet_bytes(), Some(packet.len()));
    let Ok(Frame::Whole { first, body, .. }) = frame(&packet, PACKET_BYTES_MAX) else {
        panic!("{packet:x?}")
    };
    let again = decode(version, first, &packet[body]);
    // An indicator of 0 means the same as no indicator.
    let says_nothing =
        |property: &(Property, Value<'_>)| *property == (Property::PayloadFormatIndicator, Value::Number(0));
    let facts = |publish: &Publish<'_>| {
        let properties = sorted(publish.properties)
            .into_iter()
            .filter(|property| !says_nothing(property));
        let properties: Vec<_> = properties.map(|property| format!("{property:?}")).collect();
        format!(
            "{:?} {properties:?}",
            Publish {
                properties: Properties::NONE,
                ..*publish
            }
        )
    };
    let Ok(Packet::Publish(again)) = again else {
        panic!("{again:?}")
    };
    assert_eq!(facts(&again), facts(publish));
}

/// The content of a packet, without the order of different properties.
pub fn summary(packet: &Packet<'_>) -> String {
    let without = Properties::NONE;
    match packet {
        Packet::Publish(p) => format!(
            "{:?} {:?}",
            Publish {
                properties: without,
                ..*p
            },
            sorted(p.properties)
        ),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!("{} {:?} {:?}", ack.packet_id, ack.reason, sorted(ack.properties))
        }
        Packet::Subscribe(p) => {
            format!(
                "{} {:?} {:?}",
                p.packet_id,
                p.filters().collect::<Vec<_>>(),
                sorted(p.properties)
            )
        }
        Packet::Unsubscribe(p) => {
            format!(
                "{} {:?} {:?}",
                p.packet_id,
                p.filters().collect::<Vec<_>>(),
                sorted(p.properties)
            )
        }
        Packet::PingReq => String::new(),
        Packet::Disconnect(p) => format!("{:?} {:?}", p.reason, sorted(p.properties)),
        Packet::Auth(p) => format!("{:?} {:?} {:?}", p.reason, p.method, sorted(p.properties)),
    }
}

/// The same of a CONNECT packet.
pub fn summary_of_connect(connect: &Connect<'_>) -> String {
    let will = connect.will.map(|will| {
        format!(
            "{:?} {} {:?} {:?} {:?}",
            will.qos,
            will.retain,
            will.topic,
            will.payload,
            sorted(will.properties)
        )
    });
    let Connect {
        version,
        clean,
        keep_alive,
        client_id,
        user_name,
        password,
        properties,
        ..
    } = connect;
    format!(
        "{version:?} {clean} {keep_alive} {client_id:?} {user_name:?} {password:?} {:?} {will:?}",
        sorted(*properties)
    )
}

/// Properties sorted by their identifiers; properties with the same identifier keep their order.
pub fn sorted(properties: Properties<'_>) -> Vec<(Property, Value<'_>)> {
    let mut list: Vec<_> = properties.iter().collect();
    list.sort_by_key(|(property, _)| property.id());
    list
}
