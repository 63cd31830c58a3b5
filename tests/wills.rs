//! Last wills: published when a connection ends without its client's consent, once, and never after the session has
//! come back. Over real connections, on several cores.

#![allow(clippy::unwrap_used)] // a test

mod support;

use ringcast::app::{AllowedPublish, App, AppError, Call, CallAnswer, Name, Peer, RawJson, Refusal};
use ringcast::config::Placement;
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, PresencePolicy};
use ringcast::config::rules::{Action, Audience, Effect, RuleSpec};
use ringcast::internals::decision::{CloseReason, Limit};
use support::{Client, Server, close_frame, eventually};

/// A server of four cores.
fn server() -> Server {
    Server::start(|config| config.cores.placement = Placement::Count(4))
}

fn subscriber(server: &Server) -> Client {
    let mut client = server.client();
    client.subscribe("news");
    client
}

/// A client with a will for the channel `news`. `more` follows its data.
fn client_with_will(server: &Server, data: &str, more: &str) -> Client {
    let mut client = server.client();
    leave(&mut client, data, more);
    client
}

fn leave(client: &mut Client, data: &str, more: &str) {
    let answer = client.call("$will", &format!(r#"{{"channel":"news","data":{data}{more}}}"#));
    assert!(
        answer.starts_with(r#"{"rid":"#) && !answer.contains("error"),
        "{answer}"
    );
}

/// Publishes a mark and asserts that no publication comes before it.
#[track_caller]
fn assert_nothing(server: &Server, subscriber: &mut Client, mark: &str) {
    server.client().publish("news", mark);
    assert_eq!(subscriber.publication("news"), mark);
}

/// Waits until so many connections are left.
fn settles(server: &Server, connections: u64) {
    eventually("connections have ended", || server.connections() == connections);
}

#[test]
fn a_will_is_published_when_the_client_vanishes_breaks_the_protocol_or_leaves_the_page() {
    let server = server();
    let mut subscriber = subscriber(&server);

    client_with_will(&server, r#""reset""#, "").reset();
    assert_eq!(subscriber.publication("news"), r#""reset""#);

    let half = client_with_will(&server, r#""end of stream""#, "");
    half.send_fin();
    assert_eq!(subscriber.publication("news"), r#""end of stream""#);

    let mut broken = client_with_will(&server, r#""broken frame""#, "");
    broken.send_bytes(&[0xff; 16]);
    assert_eq!(subscriber.publication("news"), r#""broken frame""#);

    // A browser that leaves the page sends 1001, and the application in it has not disconnected.
    let mut page = client_with_will(&server, r#""page""#, "");
    page.send_bytes(&close_frame(1001, ""));
    assert_eq!(subscriber.publication("news"), r#""page""#);
}

#[test]
fn a_silent_client_leaves_its_will() {
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(2);
        config.socketcluster.ping_interval = std::time::Duration::from_millis(100);
        config.socketcluster.ping_timeout = std::time::Duration::from_secs(2);
    });
    let silent = client_with_will(&server, "1", "");
    let mut subscriber = subscriber(&server);
    assert_eq!(subscriber.publication("news"), "1");
    assert_eq!(server.closes(CloseReason::PongTimeout), 1);
    drop(silent);
}

#[test]
fn a_client_that_disconnects_or_takes_its_will_back_leaves_none() {
    let server = server();
    let mut subscriber = subscriber(&server);
    for frame in [close_frame(1000, "bye"), vec![0x88, 0x80, 0, 0, 0, 0]] {
        for more in [
            "",
            r#","delay_ms":1"#,
            r#","session":"a""#,
            r#","session":"a","delay_ms":1"#,
        ] {
            let mut client = client_with_will(&server, "1", more);
            client.send_bytes(&frame);
            assert_ne!(client.rest(), "", "the server answers with a close frame");
        }
    }
    let mut client = client_with_will(&server, "2", r#","session":"b""#);
    assert!(!client.call("$will", "null").contains("error"));
    client.reset();
    settles(&server, 1);
    assert_nothing(&server, &mut subscriber, "3");
    assert_eq!(server.total(|core| &core.wills), 0);
    assert_eq!(server.total(|core| &core.wills_published), 0);
}

#[test]
fn the_last_will_counts() {
    let server = server();
    let mut subscriber = subscriber(&server);
    let mut client = client_with_will(&server, "1", r#","session":"a""#);
    leave(&mut client, "2", r#","session":"b""#);
    leave(&mut client, "null", "");
    client.reset();
    assert_eq!(subscriber.publication("news"), "null");
    settles(&server, 1);
    assert_nothing(&server, &mut subscriber, "4");
}

#[test]
fn a_session_that_comes_back_in_time_leaves_no_will_and_one_that_does_not_leaves_it() {
    let server = server();
    let mut subscriber = subscriber(&server);
    // The same session returns many times, on any core: each time before the long delay has passed.
    for round in 0..40 {
        let more = r#","session":"phone","delay_ms":3600000"#;
        client_with_will(&server, &round.to_string(), more).reset();
    }
    eventually("the last connection's will waits alone", || {
        server.connections() == 1 && server.total(|core| &core.wills_waiting) == 1
    });
    assert_nothing(&server, &mut subscriber, "\"none so far\"");

    // The session comes back once more, and then stays away for longer than its delay.
    client_with_will(&server, r#""gone""#, r#","session":"phone","delay_ms":20"#).reset();
    assert_eq!(subscriber.publication("news"), r#""gone""#);
    settles(&server, 1);
    assert_nothing(&server, &mut subscriber, "\"once\"");
    assert_eq!(server.total(|core| &core.wills_waiting), 0);
}

#[test]
fn the_late_end_of_an_old_connection_does_not_publish_the_will_of_the_new_one() {
    let server = server();
    let mut subscriber = subscriber(&server);
    for _ in 0..20 {
        let old = client_with_will(&server, r#""old""#, r#","session":"s""#);
        let new = client_with_will(&server, r#""new""#, r#","session":"s""#);
        old.reset();
        eventually("the old connection has ended", || server.connections() == 2);
        assert_nothing(&server, &mut subscriber, "\"mark\"");
        new.reset();
        assert_eq!(subscriber.publication("news"), r#""new""#);
        settles(&server, 1);
    }
}

#[test]
fn two_users_with_the_same_session_key_have_two_sessions() {
    let server = Server::start_with(
        |config| config.cores.placement = Placement::Count(4),
        |_| GivesTokens,
    );
    let mut subscriber = subscriber(&server);
    let log_in = |user: &str, data: &str, more: &str| {
        let mut client = server.client();
        client.call("login as", &format!("\"{user}\""));
        assert!(client.message().contains("#setAuthToken"));
        leave(&mut client, data, more);
        client
    };
    log_in("ann", r#""ann""#, r#","session":"phone","delay_ms":3600000"#).reset();
    eventually("ann's will waits", || {
        server.total(|core| &core.wills_waiting) == 1
    });
    // Bob cannot take it away by the same key, nor an unauthenticated client.
    let bob = log_in("bob", r#""bob""#, r#","session":"phone""#);
    let stranger = client_with_will(&server, r#""stranger""#, r#","session":"phone""#);
    assert_nothing(&server, &mut subscriber, "1");
    assert_eq!(server.total(|core| &core.wills_waiting), 1);
    bob.reset();
    assert_eq!(subscriber.publication("news"), r#""bob""#);
    stranger.reset();
    assert_eq!(subscriber.publication("news"), r#""stranger""#);
    let _ann = log_in("ann", r#""ann is back""#, r#","session":"phone""#);
    eventually("ann's will is dropped", || {
        server.total(|core| &core.wills_waiting) == 0
    });
    assert_nothing(&server, &mut subscriber, "2");
}

/// Gives the client a token of the user that it names.
struct GivesTokens;

impl App for GivesTokens {
    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let user: String = serde_json::from_str(call.data.unwrap().as_str()).unwrap();
        peer.set_auth_token(&serde_json::json!({ "sub": user }), None);
        peer.reply_empty()
    }
}

#[test]
fn a_will_needs_the_right_to_publish_and_the_application_may_rewrite_it() {
    let rule = RuleSpec {
        effect: Effect::Allow,
        actions: vec![Action::Publish, Action::Subscribe],
        channels: Some(vec!["news".to_owned()]),
        to: vec![Audience::Anyone],
        ..RuleSpec::default()
    };
    let server = Server::start_with(|config| config.permissions.rules = vec![rule], |_| Rewrites);
    let mut subscriber = subscriber(&server);
    let mut client = server.client();
    let refused = client.call("$will", r#"{"channel":"secret","data":1}"#);
    assert!(refused.contains("error"), "{refused}");
    let refused = client.call("$will", r#"{"channel":"news","data":"bad"}"#);
    assert!(refused.contains("not this"), "{refused}");
    leave(&mut client, "1", "");
    client.reset();
    assert_eq!(subscriber.publication("news"), r#"{"rewritten":1}"#);
}

/// Refuses one publication and rewrites all others.
struct Rewrites;

impl App for Rewrites {
    fn publish(
        &mut self,
        _channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        let data = data.unwrap().as_str().to_owned();
        if data == r#""bad""# {
            return Err(Refusal::from(AppError::new("not this")));
        }
        Ok(peer.rewrite(&serde_json::json!({ "rewritten": serde_json::from_str::<i32>(&data).unwrap() })))
    }
}

#[test]
fn data_that_is_no_will_is_refused_and_the_former_will_stays() {
    let server = Server::start(|config| {
        config.limits.will_delay_max = std::time::Duration::from_secs(1);
        config.limits.will_bytes_max = 1000;
    });
    let mut subscriber = subscriber(&server);
    let mut client = client_with_will(&server, "1", "");
    let of_bytes = |bytes: usize| format!(r#"{{"channel":"news","data":"{}"}}"#, "x".repeat(bytes - 6));
    assert!(!client.call("$will", &of_bytes(1000)).contains("error"));
    leave(&mut client, "1", "");
    let long = of_bytes(1001);
    let long_key = format!(r#"{{"channel":"news","session":"{}"}}"#, "k".repeat(257));
    for data in [
        "1",
        "[]",
        "{}",
        r#"{"channel":1}"#,
        r#"{"channel":"news","delay_ms":-1}"#,
        r#"{"channel":"news","delay_ms":"5"}"#,
        r#"{"channel":"news","delay_ms":1001}"#,
        r#"{"channel":"news","sesion":"typo"}"#,
        &long_key,
        &long,
    ] {
        let answer = client.call("$will", data);
        assert!(answer.contains("InvalidArgumentsError"), "{data}: {answer}");
    }
    assert_eq!(server.limit_hits(Limit::WillDelay), 1);
    assert_eq!(server.limit_hits(Limit::WillBytes), 1);
    client.reset();
    assert_eq!(subscriber.publication("news"), "1");
}

#[test]
fn wills_take_no_more_than_their_bytes() {
    let server = Server::start(|config| {
        config.cores.placement = Placement::Count(1);
        config.limits.wills_bytes_max = 4000;
    });
    let mut subscriber = subscriber(&server);
    let big = format!("\"{}\"", "x".repeat(2000));
    let mut first = client_with_will(&server, &big, r#","delay_ms":3600000"#);
    let mut second = client_with_will(&server, "2", "");
    let refused = second.call("$will", &format!(r#"{{"channel":"news","data":{big}}}"#));
    assert!(refused.contains("WillsFullError"), "{refused}");
    assert_eq!(server.limit_hits(Limit::WillsBytes), 1);
    second.reset();
    assert_eq!(subscriber.publication("news"), "2");

    // What waits is bounded, too: a will that finds no room is published early rather than lost.
    first.ping();
    first.reset();
    eventually("the first will waits", || {
        server.total(|core| &core.wills_waiting) == 1
    });
    client_with_will(&server, &big, r#","delay_ms":3600000"#).reset();
    assert_eq!(subscriber.publication("news"), big);
    assert_eq!(server.limit_hits(Limit::WillsBytes), 2);
}

#[test]
fn without_room_for_wills_the_call_goes_to_the_application() {
    let server = Server::start_with(|config| config.limits.wills_bytes_max = 0, |_| Answers);
    let answer = server.client().call("$will", r#"{"channel":"news"}"#);
    assert!(answer.contains("mine"), "{answer}");
}

/// Answers every call.
struct Answers;

impl App for Answers {
    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        peer.reply(&"mine")
    }
}

#[test]
fn a_will_cannot_pretend_that_somebody_has_joined_or_left() {
    let server = Server::start(|config| {
        config.channels = vec![ChannelSpec {
            names: vec!["room".to_owned()],
            policy: ChannelPolicy {
                presence: PresencePolicy::MembersAndEvents,
                ..ChannelPolicy::default()
            },
            ..ChannelSpec::default()
        }];
    });
    let mut client = server.client();
    let refused = client.call(
        "$will",
        r#"{"channel":"$presence/room","data":{"joined":[{"user":"eve"}]}}"#,
    );
    assert!(refused.contains("Only the server publishes"), "{refused}");
}

#[test]
fn a_drain_publishes_no_wills() {
    let server = Server::start(|config| config.restart.drain = std::time::Duration::from_secs(10));
    let mut client = client_with_will(&server, "1", "");
    let published = server.running().cores().to_vec();
    server.running().drain();
    assert_eq!(client.close_frame().0, Some(1001));
    drop(client);
    assert_eq!(server.wait(), ringcast::server::Exit::Drained);
    let wills: u64 = published
        .iter()
        .map(|core| core.metrics().wills_published.value())
        .sum();
    assert_eq!(wills, 0);
}

/// Such a text is no UTF-8; JavaScript has it all the same, and publishes to such channels.
#[test]
fn a_will_is_published_on_a_channel_whose_name_has_half_a_surrogate() {
    let server = server();
    let mut subscriber = server.client();
    let channel = r#"{"channel":"\ud800"}"#;
    assert!(!subscriber.call("#subscribe", channel).contains("error"));
    let mut client = server.client();
    let answer = client.call("$will", r#"{"channel":"\ud800","data":1}"#);
    assert!(!answer.contains("error"), "{answer}");
    client.reset();
    let message = subscriber.message();
    assert!(message.contains(r#""data":1"#), "{message}");
}
