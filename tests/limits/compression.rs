//! permessage-deflate over TCP: all messages arrive complete, in both directions, for clients with and without
//! compression. Also: faults of a client with compression.

use flate2::{Compress, FlushCompress};
use ringcast::app::{App, Call, CallAnswer, Peer};
use ringcast::config::{Config, SlowConsumer};
use ringcast::internals::decision::{CloseReason, Limit};

use crate::support::{Client, PING, Received, Server, TEXT, UPGRADE, eventually, frame, publication};

const COMPRESSED: u8 = 0x40;
const OFFER: &str = "permessage-deflate; client_max_window_bits";
const SMALL_OFFER: &str = "permessage-deflate; server_max_window_bits=9";

fn compressing(change: impl FnOnce(&mut Config)) -> Server {
    Server::start(|config| {
        config.delivery.compression = true;
        config.delivery.compression_bytes_min = 100;
        change(config);
    })
}

/// A client that makes this offer and has completed both handshakes, and the extensions in the answer.
fn offering(server: &Server, offer: &str) -> (Client, Option<String>) {
    let mut client = server.connect();
    let agreed = offer_with(&mut client, offer);
    client.handshake();
    (client, agreed)
}

fn offer_with(client: &mut Client, offer: &str) -> Option<String> {
    let request = UPGRADE.replace(
        "\r\n\r\n",
        &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"),
    );
    client.send_bytes(request.as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    line.map(str::to_owned)
}

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(message.len() + 1000);
    compress
        .compress_vec(message, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    out
}

fn send_compressed(client: &mut Client, text: &str) {
    client.send_bytes(&frame(TEXT | COMPRESSED, &deflate(text.as_bytes())));
}

fn publish(channel: &str, data: &str) -> String {
    format!(r##"{{"event":"#publish","data":{{"channel":"{channel}","data":{data}}}}}"##)
}

/// The data of a publication: its number, and repetitive text.
fn data(index: usize, bytes: usize) -> String {
    format!(r#"["{index}","{}"]"#, "ring".repeat(bytes / 4))
}

#[test]
fn an_offer_is_accepted_only_where_compression_is_on() {
    let off = Server::start(|_| {});
    let (mut client, agreed) = offering(&off, OFFER);
    assert_eq!(agreed, None);
    client.send_bytes(&frame(TEXT | COMPRESSED, &deflate(b"\"\"")));
    assert_eq!(client.close_frame().0, Some(1002));

    let on = compressing(|_| {});
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, answer) in [
        (OFFER, Some(both.to_owned())),
        (SMALL_OFFER, Some(format!("{both}; server_max_window_bits=9"))),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-bzip2", None),
    ] {
        let (mut client, agreed) = offering(&on, offer);
        assert_eq!(agreed, answer, "{offer}");
        client.ping();
    }
    assert_eq!(on.total(|core| &core.compression_agreed), 2);
    let mut client = on.connect();
    let malformed = "\r\nSec-WebSocket-Extensions: permessage-deflate;\r\n\r\n";
    client.send_bytes(UPGRADE.replace("\r\n\r\n", malformed).as_bytes());
    assert!(client.rest().ends_with("Sec-WebSocket-Extensions header"));
    // A client that made no offer must not compress.
    let mut client = on.client();
    client.send_bytes(&frame(TEXT | COMPRESSED, &deflate(b"\"\"")));
    assert_eq!(client.close_frame().0, Some(1002));
}

#[test]
fn publications_reach_clients_with_and_without_compression_whole_and_in_order() {
    let server = compressing(|_| {});
    let offers = ["", OFFER, SMALL_OFFER, "", OFFER, SMALL_OFFER, OFFER, ""];
    let mut subscribers: Vec<_> = offers
        .iter()
        .map(|offer| {
            let mut client = offering(&server, offer).0;
            client.subscribe("news");
            client
        })
        .collect();
    let (mut publisher, _) = offering(&server, OFFER);
    // Shorter and longer than the bound, in fragments, uncompressed, and longer than a frame with a short length.
    for index in 0..100 {
        let message = publish("news", &data(index, [8, 400, 3000, 100_000][index % 4]));
        if index % 2 == 0 {
            publisher.send_text(&message);
        } else {
            let payload = deflate(message.as_bytes());
            let (start, end) = payload.split_at(payload.len() / 3);
            publisher.send_bytes(&frame(TEXT & 0x7f | COMPRESSED, start));
            publisher.send_bytes(&frame(PING, b"between"));
            publisher.send_bytes(&frame(0x80, end));
            assert_eq!(publisher.next(), Received::Pong(b"between".to_vec()));
        }
    }
    for (client, offer) in subscribers.iter_mut().zip(offers) {
        for index in 0..100 {
            let expected = data(index, [8, 400, 3000, 100_000][index % 4]);
            let found = client.publication("news");
            assert!(found == expected, "{offer:?}: {index}: {} bytes", found.len());
        }
        // All except the shortest arrived compressed.
        assert_eq!(
            client.compressed,
            if offer.is_empty() { 0 } else { 75 },
            "{offer:?}"
        );
    }
    assert_eq!(server.total(|core| &core.messages_inflated), 50);
    // Each core compresses once for each window, however many subscribers there are.
    let compressed = server.total(|core| &core.messages_deflated);
    assert!((75 * 2..=75 * 2 * 2).contains(&compressed), "{compressed}");
    let before = server.total(|core| &core.deflate_bytes_before);
    let after = server.total(|core| &core.deflate_bytes_after);
    assert!(after * 20 < before, "{before} bytes to {after}");
}

/// An application that answers with as many letters as the call asks for.
struct Letters;

impl App for Letters {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let count = call.data.and_then(|data| data.parse::<usize>(peer).ok());
        peer.reply(&"n".repeat(count.unwrap_or(0)))
    }
}

#[test]
fn replies_are_compressed_from_the_bound_on() {
    let configure = |config: &mut Config| {
        config.delivery.compression = true;
        config.delivery.compression_bytes_min = 200;
    };
    let server = Server::start_with(configure, |_| Letters);
    let (mut client, _) = offering(&server, OFFER);
    let around = r#"{"rid":7,"data":""}"#.len();
    let mut compressed = 0;
    for length in [20, 199 - around, 200 - around, 100_000] {
        send_compressed(
            &mut client,
            &format!(r#"{{"event":"n","data":{length},"cid":7}}"#),
        );
        let answer = client.message();
        assert_eq!(answer, format!(r#"{{"rid":7,"data":"{}"}}"#, "n".repeat(length)));
        compressed += usize::from(answer.len() >= 200);
        assert_eq!(client.compressed, compressed, "{} bytes", answer.len());
    }
}

#[test]
fn a_bomb_closes_its_connection_and_no_other_client_notices() {
    let server = compressing(|config| config.limits.message_bytes_max = 100_000);
    let (mut witness, _) = offering(&server, OFFER);
    witness.subscribe("news");
    let padded = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let (mut client, _) = offering(&server, OFFER);
    send_compressed(&mut client, &padded(100_000));
    client.ping();
    send_compressed(&mut client, &padded(100_001));
    assert_eq!(client.close_frame().0, Some(1009));
    for bomb in [deflate(&vec![0; 50_000_000]), deflate(&vec![0; 1_000_000])] {
        let (mut client, _) = offering(&server, OFFER);
        client.send_bytes(&frame(TEXT | COMPRESSED, &bomb));
        assert_eq!(client.close_frame().0, Some(1009));
    }
    assert_eq!(server.closes(CloseReason::InflatedTooBig), 3);
    assert_eq!(server.limit_hits(Limit::InflatedBytes), 3);
    for (payload, code) in [
        (&b"no stream"[..], 1007),
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\xff\x00", 1007),
    ] {
        let (mut client, _) = offering(&server, OFFER);
        client.send_bytes(&frame(TEXT | COMPRESSED, payload));
        assert_eq!(client.close_frame().0, Some(code));
    }
    assert_eq!(server.closes(CloseReason::BadCompression), 1);
    assert_eq!(server.closes(CloseReason::InvalidUtf8), 1);
    server.client().publish("news", "1");
    assert_eq!(witness.publication("news"), "1");
}

#[test]
fn a_flood_of_messages_that_inflate_to_large_ones_is_spread_over_turns() {
    let server = compressing(|config| {
        config.cores.placement = ringcast::config::Placement::Count(1);
    });
    let (mut flooder, _) = offering(&server, OFFER);
    let large = frame(
        TEXT | COMPRESSED,
        &deflate(format!("\"{}\"", "x".repeat(1_000_000)).as_bytes()),
    );
    let mut other = server.client();
    let turns = server.total(|core| &core.turns);
    // 32 KB that inflate to 32 MB; one read receives them.
    flooder.send_bytes(&large.repeat(32));
    flooder.ping();
    other.ping();
    assert_eq!(server.total(|core| &core.messages_inflated), 32);
    let turns = server.total(|core| &core.turns) - turns;
    assert!(turns >= 32, "{turns} turns");
}

#[test]
fn a_rate_in_bytes_counts_inflated_bytes() {
    let server = compressing(|config| config.limits.bytes_per_second_max = 50_000);
    let (mut client, _) = offering(&server, OFFER);
    // The connection may receive more only after twenty seconds.
    send_compressed(&mut client, &format!("\"{}\"", "x".repeat(1_000_000)));
    eventually("it is read", || server.total(|core| &core.messages_inflated) == 1);
    client.begin_call("ping", "null");
    eventually("it is paused", || server.limit_hits(Limit::BytesPerSecond) > 0);
}

#[test]
fn a_connection_that_is_closing_is_read_up_to_its_close_frame_and_not_inflated() {
    let server = compressing(|config| config.limits.close_timeout = crate::support::PATIENCE);
    let (mut client, _) = offering(&server, OFFER);
    client.send_text(r##"{"event":"#handshake","data":{}}"##);
    assert_eq!(client.close_frame().0, Some(4008));
    client.send_bytes(&frame(TEXT | COMPRESSED, &deflate(&[b'x'; 1000])));
    client.send_bytes(&frame(TEXT | COMPRESSED, b"this is no stream"));
    client.send_bytes(&crate::support::close_frame(4008, ""));
    assert_eq!(client.next(), Received::End);
    assert_eq!(server.total(|core| &core.messages_inflated), 0);
}

/// A subscriber that does not read loses publications by the usual limit, and receives whole frames in order.
#[test]
fn a_slow_subscriber_gets_whole_messages_in_order() {
    let server = compressing(|config| {
        config.limits.outbox_bytes_max = 20_000;
        config.delivery.slow_consumer = SlowConsumer::Conflate;
    });
    let mut slow = Client::connect_narrow(server.address);
    assert!(offer_with(&mut slow, OFFER).is_some());
    slow.handshake();
    slow.subscribe("news");
    let mut publisher = server.client();
    let mut noise = vec![0_u8; 6000];
    let mut number = 1_u32;
    let conflated = |server: &Server| server.total(|core| &core.publications_conflated);
    let mut sent = 0;
    while conflated(&server) < 100 {
        for byte in &mut noise {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = b"0123456789abcdef"[(number >> 28) as usize];
        }
        let text = str::from_utf8(&noise).unwrap();
        publisher.publish("news", &format!(r#"["{sent}","{text}"]"#));
        publisher.ping();
        sent += 1;
        assert!(sent < 20_000, "the sockets hold all of it");
    }
    let mut last = None;
    while last != Some(sent - 1) {
        let message = slow.message();
        let data = publication(&message, "news").expect("a whole publication");
        let index: usize = data.split('"').nth(1).unwrap().parse().unwrap();
        assert!(last.is_none_or(|last| last < index), "{last:?} before {index}");
        last = Some(index);
    }
    assert!(slow.compressed > 0);
}
