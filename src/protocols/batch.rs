//! Joins the packets that wait in an outbox into arrays. To a client of version 15 and later, an array is the
//! same as its packets one by one (wire reference, section 3).

use super::Framing;
use crate::socketcluster::min_bin::MinBin;
use crate::websocket::frame::{self, OpCode};

/// Joins packets, one outbox at a time.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    joined: Vec<u8>,
    /// The packets of the array that is being made.
    packets: Vec<u8>,
}

impl Joiner {
    /// The frames, with each run of packets replaced by an array. Compressed frames, pings, pongs and arrays
    /// stay as they are.
    pub(crate) fn join(&mut self, framing: Framing, frames: &[u8]) -> &[u8] {
        self.joined.clear();
        self.packets.clear();
        let (mut rest, mut count) = (frames, 0);
        while let Some(length) = frame::next_frame_len(rest) {
            let (frame, behind) = rest.split_at(length);
            match frame::parts(frame) {
                Some((opcode, message)) if is_packet(framing, opcode, message) => {
                    if framing != Framing::MinBin && count > 0 {
                        self.packets.push(b',');
                    }
                    self.packets.extend_from_slice(message);
                    count += 1;
                }
                Some(_) | None => {
                    self.end_array(framing, count);
                    count = 0;
                    self.joined.extend_from_slice(frame);
                }
            }
            rest = behind;
        }
        self.end_array(framing, count);
        // The outbox holds whole frames, so `rest` is empty.
        self.joined.extend_from_slice(rest);
        &self.joined
    }

    /// Writes the packets so far as one array.
    fn end_array(&mut self, framing: Framing, count: usize) {
        if count == 0 {
            return;
        }
        let mut head = Vec::new();
        let (opcode, tail): (_, &[u8]) = match framing {
            Framing::MinBin => {
                MinBin::write_array_head(count, &mut head);
                (OpCode::Binary, b"")
            }
            Framing::WebSocket(_) | Framing::Mqtt | Framing::MqttOverWebSocket => {
                head.push(b'[');
                (OpCode::Text, b"]")
            }
        };
        let bytes = head.len() + self.packets.len() + tail.len();
        frame::write_header(&mut self.joined, opcode, bytes);
        for part in [&head[..], &self.packets, tail] {
            self.joined.extend_from_slice(part);
        }
        self.packets.clear();
    }

    /// Frees the memory of large outboxes.
    pub(crate) fn shrink(&mut self) {
        for buffer in [&mut self.joined, &mut self.packets] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
    }
}

/// Whether a message is a single packet.
fn is_packet(framing: Framing, opcode: OpCode, message: &[u8]) -> bool {
    match framing {
        Framing::WebSocket(_) => opcode == OpCode::Text && message.first() == Some(&b'{'),
        // A map of up to fifteen members, as all packets of the server are.
        Framing::MinBin => opcode == OpCode::Binary && matches!(message.first(), Some(0x80..=0x8f)),
        Framing::Mqtt | Framing::MqttOverWebSocket => false,
    }
}

/// A buffer that grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::deflate::Compression;

    fn frames(messages: &[(OpCode, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (opcode, message) in messages {
            frame::write(&mut out, *opcode, message);
        }
        out
    }

    #[test]
    fn packets_in_a_row_become_one_array_and_other_frames_stay_in_their_places() {
        let text = |text: &'static str| (OpCode::Text, text.as_bytes());
        let mut joiner = Joiner::default();
        for (before, after) in [
            (&[text("{1}"), text("{2}")][..], &[text("[{1},{2}]")][..]),
            (&[text("{1}")], &[text("[{1}]")]),
            (&[], &[]),
            (
                &[
                    text("{1}"),
                    text(""),
                    text("{2}"),
                    text("{3}"),
                    (OpCode::Pong, b"{"),
                    text("#1"),
                    text("[4]"),
                ],
                &[
                    text("[{1}]"),
                    text(""),
                    text("[{2},{3}]"),
                    (OpCode::Pong, b"{"),
                    text("#1"),
                    text("[4]"),
                ],
            ),
        ] {
            let framing = Framing::WebSocket(Compression::Off);
            assert_eq!(joiner.join(framing, &frames(before)), frames(after));
        }
        let packed = |bytes: &'static [u8]| (OpCode::Binary, bytes);
        let joined = joiner.join(
            Framing::MinBin,
            &frames(&[packed(b"\x81\xa1r\x05"), packed(b"\x80"), text("")]),
        );
        assert_eq!(joined, frames(&[packed(b"\x92\x81\xa1r\x05\x80"), text("")]));
    }
}
