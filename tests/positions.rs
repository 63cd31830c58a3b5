//! Positions in publications, and what cores remember of channels with a policy.

#![allow(clippy::unwrap_used)] // a test

mod support;

use ringcast::config::Config;
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
use serde_json::Value;
use support::{Client, Received, Server, eventually};

/// A policy for these channels.
fn policy(config: &mut Config, names: &[&str], history: Option<u32>, position: bool) {
    config.channels.push(ChannelSpec {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        policy: ChannelPolicy {
            history: history.map(|entries_max| HistoryPolicy {
                entries_max,
                bytes_max: 1 << 20,
                age_ms_max: 3_600_000,
            }),
            position,
            ..ChannelPolicy::default()
        },
        ..ChannelSpec::default()
    });
}

/// The next publication: the whole text, and its data without the frame.
fn publication(client: &mut Client) -> (String, Value) {
    loop {
        if let Received::Text(text) = client.event()
            && text.starts_with(r##"{"event":"#publish""##)
        {
            let value: Value = serde_json::from_str(&text).unwrap();
            return (text, value["data"].clone());
        }
    }
}

#[test]
fn publications_of_channels_with_positions_have_rising_ones_and_others_are_as_ever() {
    let server = Server::start(|config| {
        policy(config, &["kept.*"], Some(10), true);
        policy(config, &["told"], None, true);
        policy(config, &["quiet"], Some(10), false);
    });
    let mut subscriber = server.client();
    for channel in ["kept.a", "kept.b", "told", "quiet", "plain"] {
        subscriber.subscribe(channel);
    }
    let mut publishers = [server.client(), server.client(), server.client()];
    let mut last = 0;
    let mut epochs = Vec::new();
    for round in 0..20 {
        for (channel, is_positioned, is_plain) in [
            ("kept.a", true, false),
            ("plain", false, true),
            ("told", true, false),
            ("kept.b", true, false),
            ("quiet", false, false),
        ] {
            publishers[round % 3].publish(channel, "[1]");
            let (text, data) = publication(&mut subscriber);
            assert_eq!(
                (&data["channel"], &data["data"]),
                (&channel.into(), &serde_json::json!([1]))
            );
            assert_eq!(data.get("position").is_some(), is_positioned, "{text}");
            if is_positioned {
                let offset = data["position"]["offset"].as_u64().unwrap();
                assert!(offset > last, "{text}");
                last = offset;
                epochs.push(data["position"]["epoch"].as_str().unwrap().to_owned());
            }
            if is_plain {
                assert_eq!(
                    text,
                    r##"{"event":"#publish","data":{"channel":"plain","data":[1]}}"##
                );
            }
        }
    }
    epochs.dedup();
    assert_eq!((epochs.len(), epochs[0].len()), (1, 8));
    // A publication without data has a position as well.
    publishers[0].call("#publish", r#"{"channel":"told"}"#);
    let (text, data) = publication(&mut subscriber);
    assert!(
        data.get("data").is_none() && data["position"]["offset"].as_u64().unwrap() > last,
        "{text}"
    );
}

#[test]
fn owners_remember_without_a_subscriber_and_within_the_limits_of_the_policy() {
    let server = Server::start(|config| policy(config, &["room.*"], Some(3), true));
    let mut client = server.client();
    for room in 0..20 {
        for _ in 0..5 {
            client.publish(&format!("room.{room}"), "1");
        }
        client.publish(&format!("other.{room}"), "1");
    }
    eventually("all are remembered", || {
        server.total(|core| &core.history_publications) == 60
            && server.total(|core| &core.history_evicted[0]) == 40
    });
    let owned = server.each(|core| &core.history_channels);
    assert!(
        owned.iter().sum::<u64>() == 20 && owned.iter().all(|&channels| channels > 0),
        "{owned:?}"
    );
}
