//! WebSocket: headers, and the messages that frames make.

use std::io::{Cursor, Read, Write};

use ringcast::app::CloseReason;
use ringcast::internals::websocket::frame::{self, Expect, HEADER_BYTES_MAX, Mask};
use ringcast::internals::websocket::{CloseFrame, Inflater, Limits, OpCode, Received, Receiver, Step};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

/// Most bytes of a message in these tests.
pub const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
    frame_bytes_max: 1000,
    fragments_max: 10_000,
};

/// The header of a frame: bytes after it do not change how it is read, and masking twice changes nothing.
pub fn frame(data: &[u8]) {
    for expect in [Expect::Message, Expect::Continuation] {
        let whole = frame::parse_header(data, expect);
        for cut in 0..data.len().min(HEADER_BYTES_MAX) {
            let part = frame::parse_header(&data[..cut], expect);
            assert!(
                part == Ok(None) || part == whole,
                "{part:?} of {whole:?} at {cut}"
            );
        }
        let Ok(Some(header)) = whole else { continue };
        assert!(header.header_len <= data.len().min(HEADER_BYTES_MAX));
        assert!(!header.opcode.is_control() || header.payload_len <= 125);
        let payload = &data[header.header_len..];
        let mut masked = payload.to_vec();
        frame::unmask(&mut masked, header.mask);
        let key: &[u8; 4] = data[header.header_len - 4..header.header_len]
            .try_into()
            .expect("four bytes");
        for (index, byte) in masked.iter().enumerate() {
            assert_eq!(*byte, payload[index] ^ key[index % 4]);
        }
        // In two parts as in one.
        let cut = payload.len() / 3;
        let mut parts = payload.to_vec();
        let (first, second) = parts.split_at_mut(cut);
        frame::unmask(first, Mask::new(*key));
        frame::unmask(second, Mask::new(*key).after(cut));
        assert_eq!(parts, masked);
    }
    let _ = frame::next_frame_len(data);
    for opcode in [OpCode::Text, OpCode::Binary] {
        let mut out = Vec::new();
        frame::write(&mut out, opcode, data);
        assert_eq!(out.len(), frame::header_len(data.len()) + data.len());
        assert_eq!(frame::next_frame_len(&out), Some(out.len()));
        assert_eq!(frame::next_frame_len(&out[..out.len() - 1]), None);
        assert_eq!(out.split_off(out.len() - data.len()), data);
    }
}

/// The bytes of a connection give the same events as in tungstenite, wherever they are cut.
pub fn message(data: &[u8]) {
    let whole = agrees(data);
    for size in [1, 2, 7, 131] {
        assert_eq!(
            ours(&data.chunks(size).collect::<Vec<_>>()),
            whole,
            "in pieces of {size}"
        );
    }
    assert_limits(&whole);
}

/// No message or ping is longer than its limit.
///
/// # Panics
/// One is.
pub fn assert_limits((events, _): &Outcome) {
    for event in events {
        let length = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            Event::Ping(bytes) => bytes.len() + LIMITS.message_bytes_max - 125,
            Event::Pong | Event::Close(_) => 0,
        };
        assert!(length <= LIMITS.message_bytes_max, "{length} bytes");
    }
}

/// A message or control frame that was received.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, with its code and reason.
    Close(Option<(u16, String)>),
}

/// The result of the bytes of a connection: events, and the error if there was one.
pub type Outcome = (Vec<Event>, Option<CloseReason>);

/// Feeds the pieces as a core does: the rest of a piece comes before the next piece.
pub fn ours(pieces: &[&[u8]]) -> Outcome {
    feed(pieces, None)
}

/// As for a connection with compression.
pub fn ours_compressed(pieces: &[&[u8]]) -> Outcome {
    feed(pieces, Some(Inflater::default()))
}

fn feed(pieces: &[&[u8]], mut inflater: Option<Inflater>) -> Outcome {
    let mut receiver = Receiver::new();
    let mut buffer = Vec::new();
    let mut events = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let step = match &mut inflater {
                None => receiver.receive(&mut buffer, &LIMITS),
                Some(inflater) => receiver.receive_compressed(&mut buffer, &LIMITS, inflater),
            };
            let consumed = match step {
                Ok(Step::Message { received, consumed }) => {
                    events.push(event(&received));
                    if matches!(received, Received::Close(_)) {
                        return (events, None);
                    }
                    consumed
                }
                Ok(Step::Incomplete { consumed }) => {
                    buffer.drain(..consumed);
                    assert!(buffer.len() < 6 + 125, "{} bytes left in the input", buffer.len());
                    break;
                }
                Err(reason) => return (events, Some(reason)),
            };
            buffer.drain(..consumed);
        }
    }
    (events, None)
}

/// Compares with tungstenite, except for known differences; returns the events.
///
/// # Panics
/// They differ.
pub fn agrees(bytes: &[u8]) -> Outcome {
    let (events, error) = ours(&[bytes]);
    let (mut expected_events, mut expected_error) = oracle(bytes);
    let mut judged = bytes.to_vec();
    if error.is_some() && expected_error.is_none() && events == expected_events {
        // Tungstenite checks a frame when it is complete, Ringcast at the fault. So give it the rest of the frame.
        judged.resize(bytes.len() + 10 + 4 + 1000, 0);
        (expected_events, expected_error) = oracle(&judged);
    }
    if error == Some(CloseReason::ProtocolError) && has_long_form(&judged) {
        // Tungstenite accepts lengths that are not minimal; RFC 6455 section 5.2 forbids them.
        assert!(
            expected_events.starts_with(&events),
            "{events:?} {expected_events:?}"
        );
        return (events, error);
    }
    if let Some((Event::Close(Some((1014, _))), before)) = events.split_last() {
        // A code registered after RFC 6455, which the reference accepts.
        assert_eq!(
            (before, expected_error),
            (&expected_events[..], Some(CloseReason::ProtocolError))
        );
        return (events, error);
    }
    assert_eq!(events, expected_events);
    let differs_knowingly = match (error, expected_error) {
        // Tungstenite checks the length first; the reference and Ringcast check the first two bytes.
        (Some(CloseReason::ProtocolError), Some(CloseReason::MessageTooBig)) => true,
        // Tungstenite checks the reason of a close frame before its code; the reference and Ringcast, its code first.
        (Some(CloseReason::ProtocolError), Some(CloseReason::InvalidUtf8)) => true,
        _ => false,
    };
    if !differs_knowingly {
        assert_eq!(error, expected_error);
    }
    (events, error)
}

/// Whether one of the frames has a length that is not minimal: it is in two or eight bytes without need.
fn has_long_form(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [_, second, after @ ..] = rest {
        let (length, least, length_bytes) = match second & 0x7f {
            126 => (after.get(..2).map(number), 126, 2),
            127 => (after.get(..8).map(number), 0x1_0000, 8),
            short => (Some(u64::from(short)), 0, 0),
        };
        let Some(length) = length else { return false };
        if length < least {
            return true;
        }
        let frame = usize::try_from(length)
            .ok()
            .and_then(|length| after.get(length_bytes + 4..)?.get(length..));
        let Some(next) = frame else { return false };
        rest = next;
    }
    false
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The event of a received message.
pub fn event(received: &Received<'_>) -> Event {
    match received {
        Received::Text(text) => Event::Text((*text).to_owned()),
        Received::Binary(bytes) => Event::Binary(bytes.to_vec()),
        Received::Ping(payload) => Event::Ping(payload.to_vec()),
        Received::Pong => Event::Pong,
        Received::Close(CloseFrame { code, reason }) => {
            Event::Close(code.map(|code| (code.as_u16(), (*reason).to_owned())))
        }
    }
}

/// A stream that ends after the given bytes, and ignores written bytes.
struct Input<'a>(Cursor<&'a [u8]>);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The same by tungstenite.
fn oracle(bytes: &[u8]) -> Outcome {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let mut socket = WebSocket::from_raw_socket(Input(Cursor::new(bytes)), Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        let event = match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Event::Text(text.as_str().to_owned()),
            Ok(tungstenite::Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(payload)) => Event::Ping(payload.to_vec()),
            Ok(tungstenite::Message::Pong(_)) => Event::Pong,
            Ok(tungstenite::Message::Close(frame)) => {
                // Tungstenite answers an illegal code with 1002, and returns this answer as if it had received it.
                if frame
                    .as_ref()
                    .is_some_and(|frame| frame.reason.as_str() == "Protocol violation")
                {
                    return (events, Some(CloseReason::ProtocolError));
                }
                events.push(Event::Close(
                    frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())),
                ));
                return (events, None);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("frames are never read raw"),
            Err(tungstenite::Error::Io(_)) => return (events, None),
            Err(tungstenite::Error::Protocol(_)) => return (events, Some(CloseReason::ProtocolError)),
            Err(tungstenite::Error::Utf8(_)) => return (events, Some(CloseReason::InvalidUtf8)),
            Err(tungstenite::Error::Capacity(_)) => return (events, Some(CloseReason::MessageTooBig)),
            Err(error) => panic!("unexpected {error}"),
        };
        events.push(event);
    }
}
