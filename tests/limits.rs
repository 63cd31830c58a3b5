//! What one connection may do: both sides of each limit, over TCP, and that nobody else notices who is over one.
//!
//! How exact the rates are is shown where time is an argument, in `cores/meter.rs`; here the clock is the real one, so
//! that what is asserted of it is only that something has come, or that nothing can have.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::time::Duration;

use ringcast::app::{Answer, App, Call, Deferred, Peer};
use ringcast::config::limits::Limit;
use ringcast::decision::CloseReason;
use support::{Client, PATIENCE, Received, Server, TEXT, eventually, frame, now, publication};

/// So many calls of `ping`, as one piece of bytes, with the call ids from 100 on.
fn pings(count: u64) -> Vec<u8> {
    let calls = (0..count).map(|n| format!(r#"{{"event":"ping","cid":{}}}"#, 100 + n));
    calls.flat_map(|call| frame(TEXT, call.as_bytes())).collect()
}

/// Reads the answers to as many, in order.
#[track_caller]
fn expect_pongs(client: &mut Client, count: u64) {
    for n in 0..count {
        let answer = client.message();
        let start = format!(r#"{{"rid":{},"data":"#, 100 + n);
        assert!(answer.starts_with(&start), "{n}: {answer}");
    }
}

#[test]
fn who_keeps_to_its_rate_is_not_limited_and_who_does_not_is_served_later_and_in_order() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 100;
        config.limits.rate_burst = Duration::from_millis(200);
        config.limits.rate_grace = Duration::ZERO;
    });
    // The burst is 20 messages, and the handshake was one of them.
    let mut decent = server.client();
    decent.send_bytes(&pings(19));
    expect_pongs(&mut decent, 19);
    assert_eq!(server.limit_hits(Limit::MessagesPerSecond), 0);

    // One read, one turn: whatever time has passed since the handshake, 20 of these are all that it may send.
    let mut loud = server.client();
    let begin = now();
    loud.send_bytes(&pings(120));
    expect_pongs(&mut loud, 120);
    assert!(
        now().duration_since(begin) >= Duration::from_millis(980),
        "100 at 100 a second"
    );
    assert!(server.limit_hits(Limit::MessagesPerSecond) >= 1);
    assert_eq!(server.limit_hits(Limit::BytesPerSecond), 0);
    decent.ping();
}

#[test]
fn one_message_over_the_burst_is_one_too_many() {
    // At one a second, of which no second passes here on any machine that is worth testing on.
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 1;
        config.limits.rate_burst = Duration::from_secs(30);
        config.limits.rate_grace = Duration::ZERO;
    });
    let hits = || server.limit_hits(Limit::MessagesPerSecond);
    for (count, over) in [(28, 0), (29, 0)] {
        let mut client = server.client();
        client.send_bytes(&pings(count));
        expect_pongs(&mut client, count);
        assert_eq!(hits(), over, "{count} after the handshake");
    }
    let mut client = server.client();
    client.send_bytes(&pings(40));
    expect_pongs(&mut client, 29);
    eventually("the next is too many", || hits() >= 1);
}

#[test]
fn a_message_larger_than_its_byte_rate_comes_through_in_pieces() {
    let server = Server::start(|config| {
        config.limits.bytes_per_second_max = 100_000;
        config.limits.rate_burst = Duration::from_millis(200);
        config.limits.rate_grace = Duration::ZERO;
    });
    let mut client = server.client();
    client.ping();
    assert_eq!(server.limit_hits(Limit::BytesPerSecond), 0);
    let begin = now();
    let text = "x".repeat(100_000);
    client.send_text(&format!(r#"{{"event":"ping","data":"{text}","cid":100}}"#));
    expect_pongs(&mut client, 1);
    assert!(
        now().duration_since(begin) >= Duration::from_millis(790),
        "80,000 bytes at 100,000 a second"
    );
    assert!(server.limit_hits(Limit::BytesPerSecond) >= 1);
    assert_eq!(server.limit_hits(Limit::MessagesPerSecond), 0);
}

#[test]
fn who_stays_over_its_rate_is_closed_and_delays_nobody() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 200;
        config.limits.rate_burst = Duration::from_millis(500);
        config.limits.rate_grace = Duration::from_millis(500);
    });
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let mut flood = server.client();
    flood.subscribe("news");
    flood.send_bytes(&pings(2000));
    // The publisher of these is another, and so are those who ask.
    for other in &mut others {
        other.ping();
        other.publish("news", "1");
    }
    eventually("it is closed", || server.closes(CloseReason::RateExceeded) == 1);
    assert_eq!(server.limit_hits(Limit::RateGrace), 1);
    let mut news = 0;
    loop {
        match flood.event() {
            Received::Text(message) => news += usize::from(publication(&message, "news") == Some("1")),
            end => {
                assert_eq!(end, Received::Close(Some(4029), String::new()));
                break;
            }
        }
    }
    assert_eq!(news, 4, "it is not read, but it is written to");
    for other in &mut others {
        other.ping();
    }
    assert_eq!(
        server.connections(),
        5,
        "the flood has not answered the close frame"
    );
    flood.send_bytes(&support::close_frame(4029, ""));
    drop(flood);
    server.settles_at(4, 0);
}

#[test]
fn who_is_not_read_for_its_rate_is_not_taken_for_silent() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 10;
        config.limits.rate_burst = Duration::from_millis(100);
        config.limits.rate_grace = Duration::ZERO;
        config.ping_interval = Duration::from_millis(50);
        config.ping_timeout = Duration::from_millis(500);
    });
    let mut client = server.client();
    // Two seconds and a half, four times the timeout; no ping is answered.
    client.send_bytes(&pings(25));
    let mut answers = 0;
    while answers < 25 {
        match client.next() {
            Received::Text(text) => answers += usize::from(text.starts_with(r#"{"rid":1"#)),
            other => panic!("{other:?} after {answers} answers"),
        }
    }
    assert_eq!(server.closes(CloseReason::PongTimeout), 0);
    // Now the silence is its own.
    let end = loop {
        match client.next() {
            Received::Text(_) => {}
            end => break end,
        }
    };
    assert_eq!(end, Received::Close(Some(4001), String::new()));
}

#[test]
fn without_messages_a_connection_is_closed_when_its_idle_time_is_over_whatever_its_heartbeats() {
    let server = Server::start(|config| {
        config.limits.idle_timeout = Duration::from_millis(800);
        config.ping_interval = Duration::from_millis(50);
    });
    let idle = || server.closes(CloseReason::IdleTimeout);
    let (mut silent, mut caller, mut listener) = (server.client(), server.client(), server.client());
    listener.subscribe("news");
    let watch = std::thread::spawn(move || silent.close_frame());
    // The caller's messages come in, the listener's only go out. Both answer their pings meanwhile.
    let deadline = now() + PATIENCE;
    while idle() == 0 {
        caller.ping();
        caller.publish("news", "1");
        assert_eq!(listener.publication("news"), "1");
        assert!(now() < deadline, "nobody is ever idle");
    }
    assert_eq!(watch.join().unwrap(), (Some(4030), String::new()));
    caller.ping();
    assert_eq!((idle(), server.limit_hits(Limit::IdleTime)), (1, 1));
    drop(caller);
    assert_eq!(
        listener.close_frame().0,
        Some(4030),
        "without the caller it is idle as well"
    );
}

#[test]
fn names_of_channels_end_at_their_limit() {
    let server = Server::start(|config| config.limits.channel_name_bytes_max = 10);
    let mut client = server.client();
    for length in [9, 10] {
        let name = "n".repeat(length);
        client.subscribe(&name);
        client.publish(&name, "1");
        assert_eq!(client.publication(&name), "1");
    }
    assert_eq!(server.limit_hits(Limit::ChannelNameBytes), 0);
    // Bytes, not characters; as they are, not as they were written.
    client.subscribe("ééééé");
    client.subscribe(r"\u00e9\u00e8\u00e9\u00e9\u00e9");
    for (event, data, action) in [
        ("#subscribe", r#"{"channel":"nnnnnnnnnnn"}"#, "Subscribe"),
        ("#subscribe", r#"{"channel":"éééééé"}"#, "Subscribe"),
        ("#publish", r#"{"channel":"nnnnnnnnnnn","data":1}"#, "Publish"),
    ] {
        let answer = client.call(event, data);
        let error = format!(
            r#""error":{{"message":"{action} channel name was longer than the limit of 10 bytes","name":"InvalidActionError"}}"#
        );
        assert!(answer.contains(&error), "{answer}");
    }
    // Nor without a call id.
    client.publish("nnnnnnnnnnn", "1");
    client.ping();
    assert_eq!(server.limit_hits(Limit::ChannelNameBytes), 4);
    assert_eq!(server.total(|core| &core.subscriptions), 4);
}

/// Keeps what it owes for `later`; answers the oldest for `answer`, drops it for `drop`.
#[derive(Default)]
struct Debtor(std::collections::VecDeque<Deferred>);

impl App for Debtor {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> Answer {
        match call.event.as_str() {
            Some("later") => {
                let (answer, deferred) = peer.defer();
                self.0.push_back(deferred);
                answer
            }
            Some("answer") => {
                self.0.pop_front().unwrap().reply("late").unwrap();
                peer.reply_empty()
            }
            _ => {
                self.0.pop_front();
                peer.reply_empty()
            }
        }
    }

    fn transmit(&mut self, _: &Call<'_>, peer: &mut Peer<'_>) {
        // What is deferred without a call is nobody's call.
        self.0.push_back(peer.defer().1);
    }
}

#[test]
fn the_application_owes_one_client_no_more_answers_than_the_limit() {
    let server = Server::start_with(
        |config| {
            config.cores = ringcast::config::Cores::Count(1);
            config.limits.client_calls_max = 3;
        },
        |_| Debtor::default(),
    );
    let (mut client, mut other) = (server.client(), server.client());
    let refusal = |client: &Client, cid: u64| {
        format!(
            r#"{{"rid":{cid},"error":{{"message":"Socket {} tried to exceed the limit of 3 calls without an answer","name":"InvalidActionError"}}}}"#,
            client.id
        )
    };
    let first = client.begin_call("later", "null");
    client.begin_call("later", "null");
    client.begin_call("later", "null");
    let fourth = client.begin_call("later", "null");
    assert_eq!(client.message(), refusal(&client, fourth));
    assert_eq!(server.limit_hits(Limit::ClientCalls), 1);
    // Any call is, and no other client's.
    let fifth = client.begin_call("answer", "null");
    assert_eq!(client.message(), refusal(&client, fifth));
    let answered = other.begin_call("answer", "null");
    assert_eq!(other.message(), format!(r#"{{"rid":{answered}}}"#));
    assert_eq!(client.message(), format!(r#"{{"rid":{first},"data":"late"}}"#));
    // Room for one: a dropped answer makes more of it, a transmit takes none.
    client.send_text(r#"{"event":"note"}"#);
    let dropped = other.begin_call("drop", "null");
    assert_eq!(other.message(), format!(r#"{{"rid":{dropped}}}"#));
    client.begin_call("later", "null");
    client.begin_call("later", "null");
    let last = client.begin_call("later", "null");
    assert_eq!(client.message(), refusal(&client, last));
    assert_eq!(server.limit_hits(Limit::ClientCalls), 3);
}
