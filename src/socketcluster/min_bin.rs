//! The codec `sc-codec-min-bin`: packets as MessagePack in binary messages, with names of one letter (wire reference,
//! section 3).
//!
//! ```text
//!   client ── MessagePack ──► MinBin::decode ──► JSON text ──► session ──► JSON text ──► MinBin::encode ── MessagePack ──► client
//! ```
//! A session knows JSON text alone, so a client with this codec differs from others only in its frames. Each
//! message of the client becomes the equivalent JSON text, and each text for the client becomes MessagePack,
//! byte for byte as the reference's codec writes it.
//!
//! | packet | MessagePack |
//! | --- | --- |
//! | an event | `{"e":[event, data]}` or `{"e":[event, data, cid]}` |
//! | a publication with data | `{"p":[channel, data]}` or `{"p":[channel, data, cid]}` |
//! | an answer | `{"r":[rid, error, data]}` |
//! | several packets | an array of these |
//!
//! Bytes (the `bin` of MessagePack, an `ArrayBuffer` of JavaScript) are `{"base64":true,"data":"…"}` in the
//! text, as the reference's other codec writes a buffer, and become bytes again on the way out.
//!
//! Differences from the reference: an extension type of MessagePack makes a message unreadable; a number that
//! is not finite becomes `null`; a publication with other members than `channel` and `data`, such as its
//! position, is sent as an event, since `p` has no room for them.
//!
//! Limits: `message_bytes_max` bounds a received message. Its text is at most six times as long, and is
//! nested as deeply as the message: the scanner refuses text that is nested too deeply.

mod reader;
mod writer;

use crate::json::{Fault, Scanner};
use reader::Reader;
use writer::Writer;

/// The buffers of one core for clients with this codec.
#[derive(Debug, Default)]
pub struct MinBin {
    reader: Reader,
    writer: Writer,
    /// The text of the message that was decoded last.
    text: Vec<u8>,
}

impl MinBin {
    /// The JSON text of a message. If the message is a single string, returns that string without quotes.
    /// `None` if the message cannot be read. Bytes behind its first value are ignored, as in the reference.
    pub fn decode(&mut self, message: &[u8]) -> Option<&str> {
        self.text.clear();
        self.reader.read(message, &mut self.text).ok()?;
        simdutf8::basic::from_utf8(&self.text).ok()
    }

    /// Appends the packet, or the packets, of a JSON text as MessagePack.
    pub fn encode(&mut self, text: &str, out: &mut Vec<u8>) {
        let start = out.len();
        if self.writer.write(text, out).is_err() {
            // The text is not a packet: the client gets it as it is.
            out.truncate(start);
            writer::write_string(text.as_bytes(), out);
        }
    }

    /// Appends the head of an array of `count` packets, each of which is one value.
    pub fn write_array_head(count: usize, out: &mut Vec<u8>) {
        writer::write_array_head(count, out);
    }

    /// The memory of the last message's text, to be wiped if it held a password.
    pub fn text_mut(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Frees the memory of large messages.
    pub fn shrink(&mut self) {
        if self.text.capacity() > KEPT_BYTES_MAX {
            self.text = Vec::new();
        }
        self.reader.shrink();
        self.writer.shrink();
    }
}

/// A buffer that grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Bytes in a JSON text stand between these two.
const BYTES_BEGIN: &str = r#"{"base64":true,"data":""#;
const BYTES_END: &str = r#""}"#;
