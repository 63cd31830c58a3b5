//! Applications that handle raw messages themselves, before they are decoded.

use super::*;

/// Handles messages that begin with `raw` itself, and sends them back.
#[derive(Default)]
struct Raw {
    calls: u32,
}

impl App for Raw {
    fn message(&mut self, message: Message<'_>, peer: &mut RawPeer<'_>) -> Inbound {
        match message {
            Message::Text(text) if text.starts_with("raw") => peer.send_text(text),
            Message::Binary(bytes) if bytes.starts_with(b"raw") => peer.send_binary(bytes),
            Message::Text(_) | Message::Binary(_) => return Inbound::Pass,
        }
        Inbound::Drop
    }

    fn transmit(&mut self, _call: &Call<'_>, _peer: &mut Peer<'_>) {
        self.calls += 1;
    }
}

#[test]
fn an_application_may_take_a_message_before_anything_looks_at_it() {
    let mut client = Client::new(Raw::default());
    // This works even before the handshake, when any other message would end the connection.
    assert_eq!(client.text("raw text"), ["raw text"]);
    assert_eq!(client.binary(b"raw\xff"), ["binary [114, 97, 119, 255]"]);
    client.shake_hands();
    assert_eq!(client.text(r#"raw {"event":"e"}"#), [r#"raw {"event":"e"}"#]);
    assert_eq!(client.text(r#"{"event":"e"}"#), NOTHING);
    assert_eq!(client.app.calls, 1);
}

#[test]
fn a_message_that_the_application_has_taken_breaks_the_silence() {
    let mut client = Client::open(Raw::default());
    client.wait_ms(20_000).text("raw");
    assert_eq!(client.wait_ms(20_000).tick(), [""]);
    assert_eq!(client.wait_ms(10_000).tick(), ["close 4001"]);
}
