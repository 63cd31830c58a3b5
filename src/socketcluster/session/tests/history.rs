//! The parts of a channel's past that subscribers and callers get.

use super::*;

/// A client of a server that keeps the history of `room`, both of `both`, and the last value of `price`.
fn with_channels() -> Client<Probe> {
    let spec = |name: &str, history: bool, last_value: bool| ChannelSpec {
        names: vec![name.to_owned()],
        policy: ChannelPolicy {
            history: history.then_some(HistoryPolicy {
                entries_max: 10,
                bytes_max: 1000,
                age_ms_max: 1000,
            }),
            last_value,
            position: true,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    };
    let specs = [
        spec("room", true, false),
        spec("both", true, true),
        spec("price", false, true),
        spec("denied", true, false),
    ];
    let mut client = Client::open(Probe::default());
    client.policy.channels = Channels::compile(&specs, b'.', None).unwrap();
    client
}

fn subscribe_with(client: &mut Client<Probe>, channel: &str, data: &str) -> Outcome {
    client.text(&format!(
        r##"{{"event":"#subscribe","data":{{"channel":"{channel}","data":{data}}},"cid":7}}"##
    ))
}

#[test]
fn a_subscriber_gets_of_the_past_what_it_asks_for_and_what_the_policy_says() {
    let mut client = with_channels();
    for (channel, data, expected) in [
        ("room", "null", "subscribe room 7"),
        ("room", r#"{"x":1}"#, "subscribe room 7"),
        ("room", r#"{"recover":null}"#, "subscribe room 7 Position"),
        ("room", r#"{"last":3}"#, "subscribe room 7 Last(3)"),
        ("room", r#"{"since":5}"#, "subscribe room 7 Since(5)"),
        (
            "room",
            r#"{"recover":{"epoch":"k3j9x0ab","offset":12}}"#,
            "subscribe room 7 After(Position { epoch: k3j9x0ab, offset: 12 })",
        ),
        (
            "room",
            r#"{"recover":{"epoch":"","offset":12}}"#,
            "subscribe room 7 OtherEpoch",
        ),
        ("both", "null", "subscribe both 7 LastValue"),
        ("both", r#"{"recover":null}"#, "subscribe both 7 Last(1)"),
        ("both", r#"{"last":3}"#, "subscribe both 7 Last(3)"),
        ("price", "null", "subscribe price 7 LastValue"),
        ("price", r#"{"last":3}"#, "subscribe price 7 LastValue"),
        ("price", r#"{"last":"x"}"#, "subscribe price 7 LastValue"),
        ("other", r#"{"last":"x"}"#, "subscribe other 7"),
        (
            "room",
            r#"{"last":"x"}"#,
            r#"{"rid":7,"error":{"message":"Subscribe option last was malformatted","name":"InvalidActionError"}}"#,
        ),
        (
            "denied",
            r#"{"last":3}"#,
            r#"{"rid":7,"error":{"name":"Denied","message":"no","with":"{\"last\":3}"}}"#,
        ),
    ] {
        let outcome = subscribe_with(&mut client, channel, data);
        if channel == "denied" {
            // The application is asked as usual, and gets the data.
            assert!(
                outcome.0.len() == 1 && outcome.0[0].contains("Denied"),
                "{outcome:?}"
            );
            continue;
        }
        assert_eq!(outcome, [expected], "{channel} {data}");
    }
    // Without a call id there is no subscription, as usual.
    assert_eq!(
        client.text(r##"{"event":"#subscribe","data":{"channel":"room","data":{"last":3}}}"##),
        NOTHING
    );
}

#[test]
fn a_client_that_may_not_ask_for_the_history_is_subscribed_all_the_same() {
    let mut client = with_channels();
    client.policy.rules = rules(&[Action::Subscribe]);
    assert_eq!(
        subscribe_with(&mut client, "both", r#"{"last":3}"#),
        ["subscribe both 7 Forbidden"]
    );
    assert_eq!(
        subscribe_with(&mut client, "both", "null"),
        ["subscribe both 7 LastValue"]
    );
    client.policy.rules = rules(&[Action::Subscribe, Action::History]);
    assert_eq!(
        subscribe_with(&mut client, "both", r#"{"last":3}"#),
        ["subscribe both 7 Last(3)"]
    );
}

#[test]
fn a_history_is_read_by_call_if_the_rules_allow_it_and_channels_have_policies() {
    let call = r##"{"event":"$history","data":{"channel":"room","last":3},"cid":7}"##;
    let mut client = with_channels();
    assert_eq!(client.text(call), ["history room 7 Last(3) 100"]);
    assert_eq!(client.text(&call.replace(r#","cid":7"#, "")), NOTHING);
    // A client for each set of rules: decisions of one set are remembered, and all sets here have the same number.
    let with_rules = |actions: &[Action]| {
        let mut client = with_channels();
        client.policy.rules = rules(actions);
        client
    };
    let refused = with_rules(&[Action::Subscribe, Action::Invoke]).text(call);
    assert!(
        refused.0.len() == 1 && refused.0[0].contains(r#"{"rid":7,"error":"#),
        "{refused:?}"
    );
    let mut client = with_rules(&[Action::History]);
    assert_eq!(client.text(call), ["history room 7 Last(3) 100"]);
    let malformed = client.text(&call.replace("last", "first"));
    assert!(malformed.0[0].contains("InvalidActionError"), "{malformed:?}");
    // Without policies the call belongs to the application, as usual.
    let mut client = with_rules(&[Action::Invoke]);
    client.policy.channels = Arc::default();
    assert!(!client.text(call).0.iter().any(|line| line.starts_with("history")));
}

#[test]
fn the_answer_about_the_history_says_how_it_went() {
    let client = with_channels();
    let position = Position {
        epoch: Epoch::from_text(b"k3j9x0ab").unwrap(),
        offset: 12,
    };
    let answer = |gap, publications| {
        let told = Recovered {
            gap,
            position,
            publications,
        };
        let mut out = Vec::new();
        client.session.recovered(b"7", Some(&told), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        answer(None, 3),
        r#"{"rid":7,"data":{"recovered":true,"position":{"epoch":"k3j9x0ab","offset":12},"publications":3}}"#
    );
    assert_eq!(
        answer(Some(Gap::OtherEpoch), 0),
        r#"{"rid":7,"data":{"recovered":false,"reason":"other epoch","position":{"epoch":"k3j9x0ab","offset":12},"publications":0}}"#
    );
    let mut out = Vec::new();
    client.session.recovered(b"7", None, &mut out);
    assert_eq!(out, br#"{"rid":7}"#);
}
