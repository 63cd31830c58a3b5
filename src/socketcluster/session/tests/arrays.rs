//! Several packets in one array.

use super::*;

#[test]
fn an_array_is_handled_in_parts_and_its_answers_are_those_of_as_many_messages() {
    let calls: Vec<_> = (1..=20)
        .map(|cid| match cid % 4 {
            0 => format!(r#"{{"event":"order","cid":{cid}}}"#),
            1 => format!(r##"{{"event":"#subscribe","data":{{"channel":"c{cid}"}},"cid":{cid}}}"##),
            _ => format!(r#"{{"event":"empty","cid":{cid}}}"#),
        })
        .collect();
    let array = format!("[{}]", calls.join(","));
    for packets_max in [1, 7, 19, 20, 256] {
        let mut client = Client::open(Probe::default());
        client.packets_max = packets_max;
        let mut lines = Vec::new();
        let mut parts = 0;
        let mut outcome = client.text(&array);
        loop {
            lines.extend(outcome.0);
            parts += 1;
            if !client.session.has_more() {
                break;
            }
            assert!(client.session.kept_bytes() >= array.len());
            outcome = client.more();
        }
        assert_eq!(parts, 20_u64.div_ceil(packets_max));
        assert_eq!(client.session.kept_bytes(), 0);
        let mut single = Client::open(Probe::default());
        let each = usize::try_from(packets_max).unwrap();
        let expected: Vec<_> = calls
            .chunks(each)
            .flat_map(|part| single.text(&format!("[{}]", part.join(","))).0)
            .collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn nothing_of_a_long_array_is_handled_if_its_end_is_malformed() {
    let calls = r#"{"event":"empty","cid":1},"#.repeat(10_000);
    for (end, answers) in [("5]", 10_000), ("5", 0)] {
        let mut client = Client::open(Probe::default());
        let mut lines = client.text(&format!("[{calls}{end}")).0;
        while client.session.has_more() {
            lines.extend(client.more().0);
        }
        assert_eq!(lines.len(), answers);
    }
}

#[test]
fn an_end_in_the_middle_of_an_array_is_its_end() {
    let mut client = Client::open(Probe::default());
    client.packets_max = 2;
    let empty = r#"{"event":"empty","cid":3}"#;
    client.text(&format!(
        r#"[{empty},{empty},{{"event":"leave","cid":2}},{empty}]"#
    ));
    let sent = client.more();
    assert!(sent.0.last().unwrap().starts_with("close"), "{sent:?}");
    assert!(!client.session.has_more());
}

/// Answers are sent, or fill the outbox, before the next part of the array is handled.
#[test]
fn a_part_of_an_array_is_over_when_its_answers_have_grown_large() {
    let calls: Vec<_> = (1..=100)
        .map(|cid| format!(r#"{{"event":"large","cid":{cid}}}"#))
        .collect();
    let mut client = Client::open(Probe::default());
    let mut answers = client.text(&format!("[{}]", calls.join(","))).0.len();
    assert!(client.session.has_more());
    while client.session.has_more() {
        let part = client.more().0;
        let bytes: usize = part.iter().map(String::len).sum();
        assert!(bytes < 6 * 1024 * 1024, "{bytes}");
        answers += part.len();
    }
    assert_eq!(answers, 100);
}
