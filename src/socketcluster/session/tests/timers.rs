//! Deadlines: the handshake, pings and silence.

use super::*;

#[test]
fn without_a_handshake_the_connection_closes_at_the_timeout_and_not_before() {
    let mut client = Client::new(Probe::default());
    assert_eq!(client.deadline_ms(), 15_000);
    assert_eq!(client.wait_ms(9_999).tick(), NOTHING);
    assert_eq!(client.wait_ms(1).tick(), ["close 4005"]);
}

#[test]
fn pings_keep_the_rhythm_that_began_with_the_connection() {
    let mut client = Client::new(Probe::default());
    client.wait_ms(7_999).shake_hands();
    assert_eq!(client.deadline_ms(), 13_000);
    assert_eq!(client.tick(), NOTHING);
    assert_eq!(client.wait_ms(1).tick(), [""]);
    assert_eq!(client.deadline_ms(), 21_000);
    assert_eq!(client.wait_ms(100).tick(), NOTHING);
    // A late turn sends one ping; the next ping is on time.
    assert_eq!(client.wait_ms(17_000).tick(), [""]);
    assert_eq!(client.deadline_ms(), 37_000);
}

#[test]
fn a_handshake_after_a_ping_was_due_waits_for_the_next() {
    let mut client = Client::new(Probe::default());
    assert_eq!(client.wait_ms(8_000).tick(), NOTHING);
    client.shake_hands();
    assert_eq!(client.deadline_ms(), 21_000);
}

#[test]
fn silence_closes_at_the_ping_timeout_and_pongs_prevent_it() {
    let mut client = Client::open(Probe::default());
    client.wait_ms(29_999);
    assert_eq!(client.tick(), [""]);
    assert_eq!(client.text(""), NOTHING);
    assert_eq!(client.wait_ms(29_999).tick(), [""]);
    assert_eq!(client.wait_ms(1).tick(), ["close 4001"]);
}

#[test]
fn other_messages_reset_the_pong_timer_after_a_quarter_of_it() {
    let late = |wait_ms: u64| {
        let mut client = Client::open(Probe::default());
        client.wait_ms(wait_ms).text("anything");
        client.wait_ms(30_000 - wait_ms).tick()
    };
    assert_eq!(late(7_500), ["close 4001"]);
    assert_eq!(late(7_501), [""]);
}

#[test]
fn without_pings_there_is_no_pong_timer() {
    let settings = SocketClusterSettings {
        ping_interval: None,
        protocol: Protocol::V2,
        ..SocketClusterSettings::default()
    };
    let mut client = Client::with_settings(Probe::default(), settings);
    client.shake_hands();
    assert_eq!(
        client.session.next_deadline(&client.common, &client.settings),
        Uptime::NEVER
    );
    assert_eq!(client.wait_ms(1_000_000).tick(), NOTHING);
}

#[test]
fn an_unknown_version_is_found_out_by_its_pong() {
    for (pong, ping) in [("", ""), ("#2", "#1")] {
        let mut client = Client::with_settings(Probe::default(), SocketClusterSettings::default());
        client.shake_hands();
        assert_eq!(client.wait_ms(8_000).tick(), [""]);
        assert_eq!(client.wait_ms(8_000).tick(), ["#1"]);
        assert_eq!(client.text(pong), NOTHING);
        assert_eq!(client.wait_ms(8_000).tick(), [ping]);
        assert_eq!(client.wait_ms(8_000).tick(), [ping]);
    }
}

#[test]
fn pings_are_counted_over_all_clients_of_a_core() {
    let mut client = Client::open(Builtin::new());
    assert_eq!(
        client.text(r#"{"event":"ping"}"#),
        [r#"{"event":"pong","data":{"count":1}}"#]
    );
    assert_eq!(
        client.text(r#"{"event":"ping","data":{"count":1},"cid":5}"#),
        [r#"{"rid":5,"data":{"count":2}}"#]
    );
    assert_eq!(client.text(r#"{"event":"pong","cid":6}"#), NOTHING);
    let mut other = Client::open(client.app);
    assert_eq!(
        other.text(r#"{"event":"ping","cid":1}"#),
        [r#"{"rid":1,"data":{"count":3}}"#]
    );
}
