//! Any inputs in any order.

use proptest::prelude::*;

use super::*;

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "-0",
            "1e400",
            "-1E-400",
            "\"\"",
            "\"\\ud800\"",
            "\"Buffer\"",
            "[]",
            "{}",
            "{\"type\":\"Buffer\",\"data\":[1,255]}",
            "{\"__proto__\":1}",
            "[1,",
            "{\"a\"",
            "\"",
            "\\",
            "NaN",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(","))),
            (name(), inner).prop_map(|(key, value)| format!("{{{key}:{value}}}")),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "#handshake", "#authenticate", "#removeAuthToken", "#publish", "#subscribe", "#unsubscribe", "echo",
            "order", "login", "oldLogin", "logout", "kick", "sum", "who", "expired", "call", "confirmLogin", "confirmLogout",
            "batchMe", "batchCall", "later", "fail", "block", "denied", "changed", "silent", "told", "channel", "data",
            "authToken", "__proto__",
        ])
        .prop_map(|name| format!("\"{name}\"")),
        1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => Just("\"\\ud800\"".to_owned()),
    ]
}

fn packet() -> impl Strategy<Value = String> {
    let channel =
        (name(), json()).prop_map(|(channel, data)| format!("{{\"channel\":{channel},\"data\":{data}}}"));
    prop_oneof![
        4 => (name(), prop_oneof![json(), channel], json())
            .prop_map(|(event, data, cid)| format!("{{\"event\":{event},\"data\":{data},\"cid\":{cid}}}")),
        2 => (name(), json(), 0u32..5)
            .prop_map(|(event, data, cid)| format!("{{\"event\":{event},\"data\":{data},\"cid\":{cid}}}")),
        2 => (0u32..6, json(), json())
            .prop_map(|(rid, data, error)| format!("{{\"rid\":{rid},\"data\":{data},\"error\":{error}}}")),
        1 => json(),
        1 => any::<String>(),
    ]
}

fn message() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => packet(),
        1 => prop::collection::vec(packet(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
    ]
}

/// Checks that every message to the client is JSON or a ping.
fn check(outcome: &Outcome) {
    for line in &outcome.0 {
        let text = match line.split_once(' ') {
            Some(("subscribe" | "unsubscribe" | "close", _)) => continue,
            // The line begins with the name of the channel, which may contain any text.
            Some(("publish" | "kick", rest)) => match rest.find(" {\"event\":") {
                Some(at) => &rest[at + 1..],
                None => continue,
            },
            _ => line,
        };
        assert!(
            matches!(text, "" | "#1") || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
            "{line}"
        );
    }
}

proptest! {
    #[test]
    fn no_input_causes_a_panic_or_a_message_that_is_not_json(
        messages in prop::collection::vec((message(), 0u64..6000), 0..12),
        shakes_hands: bool,
    ) {
        let mut client = Client::new(Probe::default());
        if shakes_hands {
            client.shake_hands();
        }
        for (message, wait) in &messages {
            check(&client.text(message));
            check(&client.binary(message.as_bytes()));
            check(&client.wait_ms(*wait).tick());
        }
        end(&mut client);
    }
}
