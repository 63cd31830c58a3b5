//! The load generator accepts the real server, and detects every wrong answer of servers that misbehave on purpose.

#![allow(clippy::unwrap_used)] // a test

#[path = "../benches/load/mod.rs"]
mod load;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

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
