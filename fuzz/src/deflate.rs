//! Compression: offers of it, streams, and the frames that carry them.

use ringcast::app::CloseReason;
use ringcast::internals::websocket::deflate::{Compression, Deflater, Inflater, agree};
use ringcast::internals::websocket::{OpCode, frame};

use super::frames::{self, LIMITS, ours_compressed};

/// No stream inflates to more than the limit; a compressed message inflates to itself; frames give the same messages
/// wherever they are cut; and the answer to an offer is one line.
pub fn deflate(data: &[u8]) {
    let mut inflater = Inflater::default();
    let first = inflater
        .inflate(data, LIMITS.message_bytes_max)
        .map(<[u8]>::to_vec);
    match &first {
        Ok(made) => assert!(made.len() <= LIMITS.message_bytes_max),
        Err(reason) => assert!(matches!(
            reason,
            CloseReason::BadCompression | CloseReason::InflatedTooBig
        )),
    }
    // Earlier streams leave no state behind.
    assert_eq!(
        inflater
            .inflate(data, LIMITS.message_bytes_max)
            .map(<[u8]>::to_vec),
        first
    );
    if let Ok(made) = &first
        && !made.is_empty()
    {
        let less = inflater.inflate(data, made.len() - 1).map(<[u8]>::to_vec);
        assert_eq!(less, Err(CloseReason::InflatedTooBig));
    }

    for compression in [Compression::Large, Compression::Small] {
        let mut frame = Vec::new();
        Deflater::new(0).write(&mut frame, compression, OpCode::Binary, data);
        assert_eq!(frame::next_frame_len(&frame), Some(frame.len()));
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = &frame[header..];
        if frame[0] & 0x40 == 0 {
            assert_eq!(payload, data);
        } else {
            assert_eq!(inflater.inflate(payload, data.len()), Ok(data));
        }
    }

    let whole = ours_compressed(&[data]);
    frames::assert_limits(&whole);
    for size in [1, 7] {
        assert_eq!(
            ours_compressed(&data.chunks(size).collect::<Vec<_>>()),
            whole,
            "in pieces of {size}"
        );
    }
    // Without a compressed frame, the result is as without compression.
    if frames::ours(&[data]).1 != Some(CloseReason::ProtocolError) {
        assert_eq!(whole, frames::ours(&[data]));
    }

    if let Ok(Some(agreement)) = agree(data.split(|&byte| byte == b'\n')) {
        let mut line = Vec::new();
        agreement.write(&mut line);
        assert!(line.starts_with(b"Sec-WebSocket-Extensions: permessage-deflate"));
        let ends = line.iter().filter(|byte| byte.is_ascii_control()).count();
        assert!(ends == 2 && line.ends_with(b"\r\n"));
    }
}
