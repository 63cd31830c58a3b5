//! Positions in publications, and the histories of channels with a policy.

#![allow(clippy::unwrap_used)] // a test

mod support;

use nix::sys::signal::Signal;
use ringcast::config::Config;
use ringcast::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
use serde_json::Value;
use support::process::Process;
use support::{Client, Received, Server, eventually, folder};

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

#[test]
fn a_client_reads_a_history_by_call() {
    let server = Server::start(|config| {
        policy(config, &["room.*"], Some(5), true);
        policy(config, &["told"], None, true);
    });
    let mut publisher = server.client();
    for room in 0..6 {
        for number in 1..=8 {
            publisher.publish(&format!("room.{room}"), &format!("[{room},{number}]"));
        }
    }
    // Its publications have no acknowledgement, but are made before the answer.
    publisher.ping();
    let mut reader = server.client();
    let mut read = |data: &str| -> Value {
        let answer: Value = serde_json::from_str(&reader.call("$history", data)).unwrap();
        answer["data"].clone()
    };
    for room in 0..6 {
        // The rooms have owners on both cores.
        let all = read(&format!(r#"{{"channel":"room.{room}","last":100}}"#));
        let publications = all["publications"].as_array().unwrap();
        let data: Vec<String> = publications.iter().map(|one| one["data"].to_string()).collect();
        assert_eq!(
            data,
            (4..=8)
                .map(|number| format!("[{room},{number}]"))
                .collect::<Vec<_>>()
        );
        assert!(
            all.get("recovered").is_none() && all.get("more").is_none(),
            "{all}"
        );
        let epoch = all["position"]["epoch"].as_str().unwrap();
        let time = publications[2]["time"].as_u64().unwrap();
        assert!(
            publications
                .iter()
                .all(|one| one["time"].as_u64().unwrap().abs_diff(time) < 60_000)
        );
        let offset = publications[2]["offset"].as_u64().unwrap();
        let recover = |offset: u64, limit: u64| {
            format!(
                r#"{{"channel":"room.{room}","recover":{{"epoch":"{epoch}","offset":{offset}}},"limit":{limit}}}"#
            )
        };
        let rest = read(&recover(offset, 100));
        assert_eq!(
            (&rest["recovered"], &rest["publications"]),
            (&true.into(), &Value::from(&publications[3..]))
        );
        // One at a time: the client goes on behind the last one.
        let next = read(&recover(offset, 1));
        assert_eq!(
            (&next["more"], &next["publications"]),
            (&true.into(), &Value::from(&publications[3..4]))
        );
        let next = read(&recover(next["publications"][0]["offset"].as_u64().unwrap(), 1));
        assert_eq!(
            (next.get("more"), &next["publications"]),
            (None, &Value::from(&publications[4..]))
        );
        let lost = read(&recover(publications[0]["offset"].as_u64().unwrap() - 2, 100));
        assert_eq!(
            (&lost["recovered"], &lost["reason"]),
            (&false.into(), &"evicted".into())
        );
        let other = format!(r#"{{"channel":"room.{room}","recover":{{"epoch":"00000000","offset":1}}}}"#);
        assert_eq!(read(&other)["reason"], "other epoch");
        let newest = read(&format!(r#"{{"channel":"room.{room}","last":9,"limit":2}}"#));
        assert_eq!(newest["publications"], Value::from(&publications[3..]));
        let since = read(&format!(
            r#"{{"channel":"room.{room}","since":{}}}"#,
            time + 3_600_000
        ));
        assert_eq!(since["publications"], Value::from(Vec::<Value>::new()));
    }
    assert_eq!(read(r#"{"channel":"told","last":1}"#)["reason"], "no history");
    let position = read(r#"{"channel":"room.1","recover":null}"#);
    assert!(position["position"]["offset"].as_u64().unwrap() >= 48);
    let answer = reader.call("$history", r#"{"channel":"room.1"}"#);
    assert!(answer.contains("InvalidActionError"), "{answer}");
}

#[test]
fn a_policy_of_a_reload_keeps_later_publications_and_reports_earlier_ones_as_unknown() {
    let file = folder::Folder::new();
    let policies = |names: &str| format!("[[channels]]\nnames = {names}\nhistory_entries = 10\n");
    let path = file.write("policies.toml", &policies(r#"["room.a"]"#));
    let process = Process::start(&[
        ("RINGCAST_CONFIG", path.to_str().unwrap()),
        ("RINGCAST_CORES", "2"),
    ]);
    let mut client = process.client();
    client.publish("room.a", "1");
    client.publish("room.b", "1");
    client.ping();
    let mut read = |channel: &str, offset: Option<u64>, epoch: &str| -> Value {
        let recover = match offset {
            Some(offset) => format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#),
            None => "null".to_owned(),
        };
        let data = format!(r#"{{"channel":"{channel}","recover":{recover}}}"#);
        let answer: Value = serde_json::from_str(&client.call("$history", &data)).unwrap();
        answer["data"].clone()
    };
    let position = read("room.a", None, "");
    let epoch = position["position"]["epoch"].as_str().unwrap().to_owned();
    assert_eq!(read("room.a", Some(0), &epoch)["recovered"], true);
    assert_eq!(read("room.b", Some(0), &epoch)["reason"], "no history");
    file.write("policies.toml", &policies(r#"["room.*"]"#));
    process.signal(Signal::SIGHUP);
    eventually("the policy is in force", || {
        read("room.b", Some(0), &epoch)["reason"] == "policy changed"
    });
    // The policy of this channel has not changed.
    assert_eq!(read("room.a", Some(0), &epoch)["recovered"], true);
    let mut after = 0;
    eventually("all cores follow the policy", || {
        after = read("room.b", None, "")["position"]["offset"].as_u64().unwrap();
        read("room.b", Some(after), &epoch)["recovered"] == true
    });
    let mut publisher = process.client();
    publisher.publish("room.b", "2");
    publisher.ping();
    let known = read("room.b", Some(after), &epoch);
    assert_eq!(known["publications"][0]["data"], 2);
}
