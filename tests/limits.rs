//! Limits of a connection, over TCP: just below and just above each limit, and that other clients notice nothing.
//!
//! `cores/lifecycle/meter.rs` tests how exact the rates are, with time as an argument. Here the clock is the real one,
//! so the tests assert only that something has arrived, or that nothing can have arrived.

#![allow(clippy::unwrap_used)] // a test

#[path = "limits/compression.rs"]
mod compression;
mod support;

use std::time::Duration;

use ringcast::app::{App, Call, CallAnswer, Deferred, Peer};
use ringcast::internals::decision::{CloseReason, Limit};
use support::{Client, PATIENCE, Received, Server, TEXT, eventually, frame, now, publication};

/// The bytes of `count` calls of `ping`, with the call ids from 100 on.
fn pings(count: u64) -> Vec<u8> {
    let calls = (0..count).map(|n| format!(r#"{{"event":"ping","cid":{}}}"#, 100 + n));
    calls.flat_map(|call| frame(TEXT, call.as_bytes())).collect()
}

/// Reads the answers to `count` such calls, in order.
#[track_caller]
fn expect_pongs(client: &mut Client, count: u64) {
    for n in 0..count {
        let answer = client.message();
        let start = format!(r#"{{"rid":{},"data":"#, 100 + n);
        assert!(answer.starts_with(&start), "{n}: {answer}");
    }
}

#[test]
fn a_client_within_its_rate_is_not_limited_and_one_above_it_is_served_later_and_in_order() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 100;
        config.limits.rate_burst = Duration::from_millis(200);
        config.limits.rate_grace = Duration::ZERO;
    });
    // The burst is 20 messages; the handshake was one of them.
    let mut decent = server.client();
    decent.send_bytes(&pings(19));
    expect_pongs(&mut decent, 19);
    assert_eq!(server.limit_hits(Limit::MessagesPerSecond), 0);

    // One read, one turn: however long ago the handshake was, the client may send at most 20 of these messages.
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
    // One message a second; no machine on which this test runs needs a second here.
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
fn the_packets_of_an_array_count_as_the_messages_that_they_might_have_been() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 100;
        config.limits.rate_burst = Duration::from_millis(200);
        config.limits.rate_grace = Duration::ZERO;
    });
    let mut client = server.client();
    let calls: Vec<_> = (0..100)
        .map(|n| format!(r#"{{"event":"ping","cid":{}}}"#, 100 + n))
        .collect();
    let begin = now();
    let array = frame(TEXT, format!("[{}]", calls.join(",")).as_bytes());
    client.send_bytes(&[array, pings(1)].concat());
    // The array is one message. The server reads the next message only when the time for its packets has passed.
    expect_pongs(&mut client, 100);
    expect_pongs(&mut client, 1);
    assert!(
        now().duration_since(begin) >= Duration::from_millis(800),
        "102 with a burst of 20"
    );
    assert!(server.limit_hits(Limit::MessagesPerSecond) >= 1);
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

/// The close frame is among the bytes that the core had read but not processed when it paused; no new event reports it.
#[test]
fn a_client_that_is_closed_while_paused_does_not_wait_for_the_close_timeout() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 10;
        config.limits.rate_burst = Duration::from_millis(100);
        config.limits.rate_grace = Duration::from_millis(300);
        config.limits.close_timeout = Duration::from_secs(600);
    });
    let mut flood = server.client();
    flood.send_bytes(&[pings(100), support::close_frame(1000, "")].concat());
    eventually("it is closed", || server.closes(CloseReason::RateExceeded) == 1);
    while flood.next() != Received::End {}
    flood.send_fin();
    server.settles_at(0, 0);
}

#[test]
fn a_client_that_stays_above_its_rate_is_closed_and_delays_no_other() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 200;
        config.limits.rate_burst = Duration::from_millis(500);
        config.limits.rate_grace = Duration::from_millis(500);
    });
    let mut others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let mut flood = server.client();
    flood.subscribe("news");
    flood.send_bytes(&pings(2000));
    // Another client publishes these, and others ask.
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
fn a_client_that_is_paused_for_its_rate_does_not_count_as_silent() {
    let server = Server::start(|config| {
        config.limits.messages_per_second_max = 10;
        config.limits.rate_burst = Duration::from_millis(100);
        config.limits.rate_grace = Duration::ZERO;
        config.socketcluster.ping_interval = Duration::from_millis(50);
        config.socketcluster.ping_timeout = Duration::from_millis(500);
    });
    let mut client = server.client();
    // Two and a half seconds, four times the timeout, in which the server reads no pong.
    client.send_bytes(&pings(25));
    let mut answers = 0;
    while answers < 25 {
        match client.next() {
            Received::Text(text) => answers += usize::from(text.starts_with(r#"{"rid":1"#)),
            other => panic!("{other:?} after {answers} answers"),
        }
    }
    // After that the client is silent: the close frame arrives after the answers.
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
        // Longer than a busy machine ever delays the next call of this test.
        config.limits.idle_timeout = Duration::from_secs(4);
        config.socketcluster.ping_interval = Duration::from_millis(50);
    });
    let idle = || server.closes(CloseReason::IdleTimeout);
    let (mut silent, mut caller, mut listener) = (server.client(), server.client(), server.client());
    listener.subscribe("news");
    let watch = std::thread::spawn(move || silent.close_frame());
    // The server receives messages of the caller and sends messages to the listener. Both answer pings meanwhile.
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
    // The limit counts bytes, not characters, and the decoded name, not its JSON text.
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
    // The same without a call id.
    client.publish("nnnnnnnnnnn", "1");
    client.ping();
    assert_eq!(server.limit_hits(Limit::ChannelNameBytes), 4);
    assert_eq!(server.total(|core| &core.subscriptions), 4);
}

#[test]
fn frames_end_at_their_limit_and_messages_of_several_at_theirs() {
    let server = Server::start(|config| {
        config.limits.frame_bytes_max = 100;
        config.limits.message_bytes_max = 250;
    });
    let padded = |bytes: usize| {
        let call = r#"{"event":"ping","cid":100,"data":""}"#;
        call.replace(r#""}"#, &format!(r#"{}"}}"#, "x".repeat(bytes - call.len())))
    };
    let mut client = server.client();
    for bytes in [99, 100] {
        client.send_text(&padded(bytes));
        expect_pongs(&mut client, 1);
    }
    // Three fragments of the largest size: together shorter than the message limit, which three times 100 bytes more
    // exceed.
    let message = padded(250);
    let fragments = [
        frame(0x01, &message.as_bytes()[..100]),
        frame(0x00, &message.as_bytes()[100..200]),
        frame(0x80, &message.as_bytes()[200..]),
    ];
    client.send_bytes(&fragments.concat());
    expect_pongs(&mut client, 1);
    assert_eq!(server.limit_hits(Limit::FrameBytes), 0);
    client.send_text(&padded(101));
    assert_eq!(client.close_frame().0, Some(1009));
    assert_eq!(server.closes(CloseReason::FrameTooBig), 1);
    // In one frame or in fragments, also in the middle of a message.
    let mut client = server.client();
    let too_big = [frame(0x01, b"\""), frame(0x00, &[b'x'; 101])];
    client.send_bytes(&too_big.concat());
    assert_eq!(client.close_frame().0, Some(1009));
    assert_eq!(server.limit_hits(Limit::FrameBytes), 2);
    assert_eq!(server.limit_hits(Limit::MessageBytes), 0);
}

/// An application that calls its client as often as `call` says, and counts refused and unanswered calls.
#[derive(Default)]
struct Caller {
    refused: u64,
    unanswered: u64,
}

impl App for Caller {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let count = call
            .data
            .and_then(|data| data.parse::<u64>(peer).ok())
            .unwrap_or(0);
        for _ in 0..count {
            self.refused += u64::from(peer.invoke("question", &()).is_err());
        }
        peer.reply(&[self.refused, self.unanswered])
    }

    fn answered(
        &mut self,
        _: ringcast::app::CallId,
        answer: Result<Option<ringcast::app::RawJson<'_>>, ringcast::app::AnswerError<'_>>,
        _: &mut Peer<'_>,
    ) {
        self.unanswered += u64::from(answer.is_err());
    }
}

#[test]
fn a_client_owes_the_server_no_more_answers_than_the_limit_and_none_for_longer_than_the_time() {
    let server = |ack_timeout| {
        Server::start_with(
            |config| {
                config.limits.calls_per_connection_max = 3;
                config.socketcluster.ack_timeout = ack_timeout;
            },
            |_| Caller::default(),
        )
    };
    let patient = server(10 * PATIENCE);
    let mut client = patient.client();
    assert_eq!(refused_and_unanswered(&mut client, "3"), "0,0");
    assert_eq!(patient.limit_hits(Limit::CallsPerConnection), 0);
    assert_eq!(refused_and_unanswered(&mut client, "2"), "2,0");
    assert_eq!(patient.limit_hits(Limit::CallsPerConnection), 2);
    let strict = server(Duration::from_millis(200));
    let mut client = strict.client();
    assert_eq!(refused_and_unanswered(&mut client, "3"), "0,0");
    eventually("nobody answers", || strict.limit_hits(Limit::AckTime) == 3);
    assert_eq!(
        refused_and_unanswered(&mut client, "3"),
        "0,3",
        "there is room again"
    );
}

/// Makes the server call this client `count` times; returns the count of the application.
fn refused_and_unanswered(client: &mut Client, count: &str) -> String {
    client.begin_call("call", count);
    loop {
        let message = client.message();
        if let Some((_, data)) = message.split_once("\"data\":[") {
            return data.trim_end_matches("]}").to_owned();
        }
    }
}

/// An application that defers the answers to `later`, answers the oldest one at `answer`, and drops it at `drop`.
#[derive(Default)]
struct DefersAnswers(std::collections::VecDeque<Deferred>);

impl App for DefersAnswers {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
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
        // A deferred answer to an event belongs to no call.
        self.0.push_back(peer.defer().1);
    }
}

#[test]
fn the_application_owes_one_client_no_more_answers_than_the_limit() {
    let server = Server::start_with(
        |config| {
            config.cores.placement = ringcast::config::Placement::Count(1);
            config.limits.client_calls_max = 3;
        },
        |_| DefersAnswers::default(),
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
    // The limit counts calls of all names, but only of this client.
    let fifth = client.begin_call("answer", "null");
    assert_eq!(client.message(), refusal(&client, fifth));
    let answered = other.begin_call("answer", "null");
    assert_eq!(other.message(), format!(r#"{{"rid":{answered}}}"#));
    assert_eq!(client.message(), format!(r#"{{"rid":{first},"data":"late"}}"#));
    // A dropped answer makes room for another call; a one-way event takes no room.
    client.send_text(r#"{"event":"note"}"#);
    let dropped = other.begin_call("drop", "null");
    assert_eq!(other.message(), format!(r#"{{"rid":{dropped}}}"#));
    client.begin_call("later", "null");
    client.begin_call("later", "null");
    let last = client.begin_call("later", "null");
    assert_eq!(client.message(), refusal(&client, last));
    assert_eq!(server.limit_hits(Limit::ClientCalls), 3);
}

/// An application that answers all `later` calls at once at `now`, and reports how many answers the core could not
/// take.
#[derive(Default)]
struct Burst(Vec<Deferred>);

impl App for Burst {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        if call.event.as_str() == Some("later") {
            let (answer, deferred) = peer.defer();
            self.0.push(deferred);
            return answer;
        }
        let not_taken = self.0.drain(..).filter_map(|deferred| deferred.reply(&1).err());
        peer.reply(&not_taken.count())
    }
}

#[test]
fn a_core_takes_a_limited_number_of_late_answers_at_a_time_and_the_caller_keeps_the_rest() {
    let server = Server::start_with(|_| {}, |_| Burst::default());
    for (count, too_many) in [(4096, 0), (4097, 1)] {
        let mut client = server.client();
        let before = server.limit_hits(Limit::LateAnswers);
        let calls: Vec<u8> = (0..count)
            .flat_map(|n| {
                frame(
                    TEXT,
                    format!(r#"{{"event":"later","cid":{}}}"#, 100 + n).as_bytes(),
                )
            })
            .collect();
        client.send_bytes(&calls);
        let now = format!(r#"{{"rid":{},"#, client.begin_call("now", "null"));
        let prompt = loop {
            let message = client.message();
            if message.starts_with(&now) {
                break message;
            }
        };
        assert!(prompt.ends_with(&format!(r#""data":{too_many}}}"#)), "{prompt}");
        eventually("it is counted", || {
            server.limit_hits(Limit::LateAnswers) == before + too_many
        });
    }
}
