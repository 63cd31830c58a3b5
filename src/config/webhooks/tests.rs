use std::path::Path;

use super::read::read;
use super::*;
use crate::config::error::ListFault;
use crate::config::list::ListSource;

fn read_webhooks(text: &str) -> Result<Vec<WebhookSpec>, Vec<ListFault>> {
    let table = toml::de::DeTable::parse(text).unwrap();
    let place = ListSource {
        file: Path::new("f"),
        text,
        table: table.get_ref(),
    };
    let (webhooks, faults) = read(place);
    if faults.is_empty() {
        Ok(webhooks)
    } else {
        Err(faults)
    }
}

fn fault(text: &str) -> String {
    let faults = read_webhooks(&format!("[[webhooks]]\n{text}")).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].to_string().strip_prefix("f: ").unwrap().to_owned()
}

#[test]
fn a_webhook_is_read_as_it_is_written() {
    let text = "[[webhooks]]\nname = \"shop\"\nurl = \"https://shop.example/e?x=1\"\nevents = [\"member_left\", \
                \"publication\"]\nchannels = \"room.*\"\nsecret_file = \"s\"\nca_file = \"c\"\nlink_local = true\n\
                batch_events = 1\nbatch_bytes = 1024\ninterval_ms = 0\ntimeout_ms = 10\nqueue_events = 7\n\
                queue_bytes = 2048\ndisk_bytes = 4096\nkeep_ms = 1000\n\n\
                [[webhooks]]\nname = \"all\"\nurl = \"http://127.0.0.1:1/\"\nevents = \"*\"\nchannels = [\"**\"]\n";
    let read = read_webhooks(text).unwrap();
    assert_eq!(
        read[0],
        WebhookSpec {
            name: "shop".to_owned(),
            url: TargetUrl::new("https://shop.example/e?x=1"),
            events: vec![WebhookEvent::MemberLeft, WebhookEvent::Publication],
            channels: vec!["room.*".to_owned()],
            secret_file: Some("s".into()),
            ca_file: Some("c".into()),
            link_local: true,
            batch_events: 1,
            batch_bytes: 1024,
            interval: Duration::ZERO,
            timeout: Duration::from_millis(10),
            queue_events: 7,
            queue_bytes: 2048,
            disk_bytes: 4096,
            keep: Duration::from_secs(1),
            file: Some("f".into()),
            line: 1,
        }
    );
    assert_eq!(read[1].events, WebhookEvent::ALL);
    assert_eq!((read[1].line, read[1].queue_events), (18, 100_000));
}

#[test]
fn a_webhook_that_cannot_be_meant_is_a_fault_with_its_line() {
    const BEGIN: &str = "name = \"a\"\nurl = \"http://x/\"\n";
    let after = |rest: &str| format!("{BEGIN}{rest}");
    for (text, expected) in [
        ("url = \"http://x/\"", "line 1: webhooks number 1: name is missing".to_owned()),
        (
            "name = \"a b\"",
            "line 2: webhooks number 1: name: expected 1 to 64 letters, digits, dots, hyphens or underscores".to_owned(),
        ),
        (
            "name = \"a\"\nevents = \"connected\"\nurl = \"http://user:geheim@x/\"",
            "line 4: webhooks number 1: url: expected an address such as https://shop.example/events, without user and \
             fragment (the value found is not shown)"
                .to_owned(),
        ),
        (
            &after("events = \"conected\""),
            "line 4: webhooks number 1: events: \"conected\" is not an event; did you mean connected?".to_owned(),
        ),
        (
            &after("events = []"),
            "line 4: webhooks number 1: events is empty".to_owned(),
        ),
        (
            &after("events = \"publication\""),
            "line 4: webhooks number 1: channels are missing: publications are sent only of channels that the webhook \
             names; say which, or channels = [\"**\"] for all"
                .to_owned(),
        ),
        (
            &after("events = \"connected\"\nchannels = \"a\""),
            "line 5: webhooks number 1: channels are named, but no event of this webhook is about a channel".to_owned(),
        ),
        (
            &after("secret = \"geheim\""),
            "line 4: webhooks number 1: secret does not belong here: write it into a file, and name that as secret_file"
                .to_owned(),
        ),
        (
            &after("events = \"connected\"\ntimeout_ms = 9"),
            "line 5: webhooks number 1: timeout_ms: found 9, expected a whole number from 10 to 120000".to_owned(),
        ),
        (
            &after("events = \"connected\"\ntime_out_ms = 9"),
            "line 5: webhooks number 1: time_out_ms is not known; did you mean timeout_ms?".to_owned(),
        ),
    ] {
        let found = fault(text);
        assert_eq!(found, expected, "{text}");
        assert!(!found.contains("geheim"));
    }
    let many =
        "[[webhooks]]\nname = \"a\"\nurl = \"http://x/\"\nevents = \"connected\"\n".repeat(WEBHOOKS_MAX + 1);
    assert_eq!(
        read_webhooks(&many).unwrap_err()[0].to_string(),
        "f: line 1: webhooks: found 33 entries, expected at most 32"
    );
}
