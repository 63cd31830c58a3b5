//! Subscribes, unsubscribes and publishes.

use super::*;

#[test]
fn subscribes_of_the_wrong_shape_are_refused_if_they_are_calls() {
    let mut client = Client::open(Probe::default());
    for data in [
        "null",
        "\"foo\"",
        "{}",
        r#"{"channel":5}"#,
        r#"{"channel":null}"#,
        r#"[{"channel":"a"}]"#,
        "5",
    ] {
        let text = format!(r##"{{"event":"#subscribe","data":{data},"cid":2}}"##);
        assert_eq!(
            client.text(&text),
            [error("2", "Subscribe channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":2", "")), NOTHING);
    }
    let absent = client.text(r##"{"event":"#subscribe","cid":2}"##);
    assert_eq!(absent, [error("2", "Subscribe channel name was malformatted")]);
}

#[test]
fn subscribes_are_decided_with_the_decoded_name() {
    let mut client = Client::open(Probe::default());
    let mut subscribe = |channel: &str| {
        client.text(&format!(
            r##"{{"event":"#subscribe","data":{{"channel":{channel},"waitForAuth":true}},"cid":2}}"##
        ))
    };
    assert_eq!(subscribe("\"\""), ["subscribe  2"]);
    assert_eq!(subscribe("\"__proto__\""), ["subscribe __proto__ 2"]);
    assert_eq!(subscribe("\"\\u0061 b/ü\""), ["subscribe a b/ü 2"]);
    assert_eq!(
        subscribe("\"told\""),
        ["subscribe told 2", r#"{"event":"told","data":"after"}"#]
    );
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"a"}}"##),
        NOTHING
    );
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":"2"}"##),
        NOTHING
    );
}

#[test]
fn a_refused_subscribe_is_answered_if_it_is_a_call() {
    let mut client = Client::open(Probe::default());
    let text = r##"{"event":"#subscribe","data":{"channel":"denied","data":{"a":1}},"cid":2}"##;
    assert_eq!(
        client.text(text),
        [r#"{"rid":2,"error":{"message":"no","name":"Denied","data":"{\"a\":1}"}}"#]
    );
    assert_eq!(client.text(&text.replace(",\"cid\":2", "")), NOTHING);
}

#[test]
fn outcomes_of_subscribes_and_unsubscribes_are_worded_as_by_the_reference() {
    let client = Client::open(Probe::default());
    let id = client.session.id;
    let mut decisions = Decisions::new();
    let channel = decisions.write(|out| out.extend_from_slice(b"a\"b"));
    let cid = Some(decisions.write(|out| out.extend_from_slice(b"1.5")));
    let mut answers = Vec::new();
    for outcome in [
        SubscribeOutcome::Subscribed,
        SubscribeOutcome::TooMany { limit: 3 },
    ] {
        answers.push(client.session.subscribed(channel, cid, outcome, &mut decisions));
        assert_eq!(
            client.session.subscribed(channel, None, outcome, &mut decisions),
            None
        );
    }
    for outcome in [
        UnsubscribeOutcome::Unsubscribed,
        UnsubscribeOutcome::NotSubscribed,
    ] {
        answers.push(client.session.unsubscribed(channel, cid, outcome, &mut decisions));
        assert_eq!(
            client
                .session
                .unsubscribed(channel, None, outcome, &mut decisions),
            None
        );
    }
    let answers: Vec<_> = answers
        .into_iter()
        .map(|span| String::from_utf8_lossy(decisions.bytes(span.unwrap())).into_owned())
        .collect();
    let broker_error =
        |message: &str| format!(r#"{{"rid":1.5,"error":{{"message":"{message}","name":"BrokerError"}}}}"#);
    assert_eq!(
        answers,
        [
            r#"{"rid":1.5}"#.to_owned(),
            broker_error(&format!(
                "Failed to subscribe socket to the a\\\"b channel - InvalidActionError: \
                 Socket {id} tried to exceed the channel subscription limit of 3"
            )),
            r#"{"rid":1.5}"#.to_owned(),
            broker_error(&format!(
                "Failed to unsubscribe socket from the a\\\"b channel - InvalidActionError: \
                 Socket {id} tried to unsubscribe from a channel which it is not subscribed to"
            )),
        ]
    );
}

#[test]
fn unsubscribes_carry_a_bare_string() {
    let mut client = Client::open(Probe::default());
    for data in ["5", "null", r#"{"channel":"a"}"#, "[\"a\"]"] {
        let text = format!(r##"{{"event":"#unsubscribe","data":{data},"cid":3}}"##);
        assert_eq!(
            client.text(&text),
            [error("3", "Unsubscribe channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":3", "")), NOTHING);
    }
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","cid":2}"##),
        [error("2", "Unsubscribe channel name was malformatted")]
    );
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","data":"u","cid":7}"##),
        ["unsubscribe u 7"]
    );
    assert_eq!(
        client.text(r##"{"event":"#unsubscribe","data":"u"}"##),
        ["unsubscribe u -"]
    );
}

#[test]
fn publishes_of_the_wrong_shape_are_refused_if_they_are_calls() {
    let mut client = Client::open(Probe::default());
    for data in [
        "null",
        "{}",
        r#"{"channel":5,"data":1}"#,
        "\"x\"",
        r#"{"channel":null}"#,
    ] {
        let text = format!(r##"{{"event":"#publish","data":{data},"cid":4}}"##);
        assert_eq!(
            client.text(&text),
            [error("4", "Publish channel name was malformatted")]
        );
        assert_eq!(client.text(&text.replace(",\"cid\":4", "")), NOTHING);
    }
}

#[test]
fn publishes_go_on_as_they_came_and_are_acknowledged_after() {
    let mut client = Client::open(Probe::default());
    for (data, channel, passed_on) in [
        (
            r#"{"data":{ "a" : 1.0 },"channel":"x","extra":9}"#,
            "x",
            r#"{"channel":"x","data":{ "a" : 1.0 }}"#,
        ),
        (r#"{"channel":""}"#, "", r#"{"channel":""}"#),
        (
            r#"{"channel":"x","data":null}"#,
            "x",
            r#"{"channel":"x","data":null}"#,
        ),
        (
            r#"{"channel":"\u0061\/\n","data":1}"#,
            "a/\n",
            r#"{"channel":"a/\n","data":1}"#,
        ),
        (
            r#"{"channel":"x","data":[1e400,-0,1]}"#,
            "x",
            r#"{"channel":"x","data":[null,0,1]}"#,
        ),
        (
            r#"{"channel":"x","data":{"type":"Buffer","data":[104,105]}}"#,
            "x",
            r#"{"channel":"x","data":{"base64":true,"data":"aGk="}}"#,
        ),
        (
            r#"{"channel":"changed","data":7}"#,
            "changed",
            r#"{"channel":"changed","data":[7]}"#,
        ),
    ] {
        let text = format!(r##"{{"event":"#publish","data":{data},"cid":5}}"##);
        let published = format!(r##"publish {channel} {{"event":"#publish","data":{passed_on}}}"##);
        assert_eq!(client.text(&text), [published.as_str(), r#"{"rid":5}"#]);
        assert_eq!(client.text(&text.replace(",\"cid\":5", "")), [published]);
    }
}

#[test]
fn refused_publishes_are_not_published() {
    let mut client = Client::open(Probe::default());
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"denied"},"cid":1}"##),
        [r#"{"rid":1,"error":{"message":"no"}}"#]
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"denied"}}"##),
        NOTHING
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"silent"},"cid":1}"##),
        [concat!(
            r#"{"rid":1,"error":{"message":"The publishIn AGAction was blocked by inbound middleware","#,
            r#""name":"SilentMiddlewareBlockedError","type":"inbound"}}"#
        )]
    );
    client.common.allow_client_publish = false;
    // The server checks this before the shape of the packet.
    assert_eq!(
        client.text(r##"{"event":"#publish","data":5,"cid":2}"##),
        [error("2", "Client publish feature is disabled")]
    );
    assert_eq!(
        client.text(r##"{"event":"#publish","data":{"channel":"a","data":1}}"##),
        NOTHING
    );
}
