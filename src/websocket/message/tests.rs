use super::*;
use crate::decision::CloseCode;

const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
    frame_bytes_max: 1000,
    fragments_max: 4,
};
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

/// The received messages as text, and the error that ended the connection.
fn receive_all(pieces: &[&[u8]]) -> (Vec<String>, Option<CloseReason>) {
    let mut receiver = Receiver::new();
    let mut buffer = Vec::new();
    let mut received = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match receiver.receive(&mut buffer, &LIMITS) {
                Ok(Step::Message {
                    received: message,
                    consumed,
                }) => {
                    received.push(format!("{message:?}"));
                    buffer.drain(..consumed);
                }
                Ok(Step::Incomplete { consumed }) => {
                    buffer.drain(..consumed);
                    assert!(buffer.len() < 6 + 125, "{} bytes left", buffer.len());
                    break;
                }
                Err(reason) => return (received, Some(reason)),
            }
        }
    }
    (received, None)
}

/// The same messages if the bytes arrive at once, byte by byte, and cut once at each position.
fn receive(bytes: &[u8]) -> (Vec<String>, Option<CloseReason>) {
    let whole = receive_all(&[bytes]);
    assert_eq!(
        receive_all(&bytes.chunks(1).collect::<Vec<_>>()),
        whole,
        "byte by byte"
    );
    for cut in 0..bytes.len() {
        let (start, end) = bytes.split_at(cut);
        assert_eq!(receive_all(&[start, end]), whole, "cut at {cut}");
    }
    whole
}

fn error(frames: &[Vec<u8>]) -> CloseReason {
    receive(&frames.concat()).1.expect("an error")
}

#[test]
fn whole_frames_are_read_where_they_lie() {
    let mut input = [
        frame(FIN | 1, "grüße".as_bytes()),
        frame(FIN | 2, b"\xff\0"),
        frame(FIN | 1, b""),
    ]
    .concat();
    let mut receiver = Receiver::new();
    let mut rest = &mut input[..];
    for expected in [
        Received::Text("grüße"),
        Received::Binary(b"\xff\0"),
        Received::Text(""),
    ] {
        let Ok(Step::Message { received, consumed }) = receiver.receive(rest, &LIMITS) else {
            panic!("a whole frame is a message");
        };
        assert_eq!(received, expected);
        assert!(receiver.assembly.is_none());
        rest = &mut rest[consumed..];
    }
    assert_eq!(
        receiver.receive(rest, &LIMITS),
        Ok(Step::Incomplete { consumed: 0 })
    );
}

#[test]
fn fragments_are_joined_and_control_frames_pass_between_them() {
    let bytes = [
        frame(1, b"gr"),
        frame(FIN | 9, b"are you there"),
        frame(0, b"\xc3"),
        frame(0, b""),
        frame(FIN | 10, b""),
        frame(FIN, b"\xbc\xc3\x9fe"),
        frame(2, b"\xff"),
        frame(FIN, b"\xfe"),
        frame(FIN | 8, b"\x03\xe8bye"),
    ]
    .concat();
    let (received, error) = receive(&bytes);
    let code = CloseCode::new(1000);
    let expected = [
        Received::Ping(b"are you there"),
        Received::Pong,
        Received::Text("grüße"),
        Received::Binary(b"\xff\xfe"),
        Received::Close(CloseFrame { code, reason: "bye" }),
    ];
    assert_eq!(received, expected.map(|message| format!("{message:?}")));
    assert_eq!(error, None);
}

#[test]
fn broken_rules_are_protocol_errors() {
    let unmasked = || vec![FIN | 1, 0];
    for frames in [
        vec![unmasked()],
        vec![frame(1, b"a"), unmasked()],
        vec![frame(FIN, b"a")],
        vec![frame(0, b"a")],
        vec![frame(1, b"a"), frame(FIN | 1, b"b")],
        vec![frame(1, b"a"), frame(2, b"b")],
        vec![frame(2, b"a"), frame(FIN, b"b"), frame(FIN, b"c")],
        vec![frame(FIN | 0x40 | 1, b"a")],
        vec![frame(FIN | 0x20 | 1, b"a")],
        vec![frame(FIN | 0x10 | 1, b"a")],
        vec![frame(FIN | 3, b"")],
        vec![frame(FIN | 7, b"")],
        vec![frame(FIN | 11, b"")],
        vec![frame(FIN | 15, b"")],
        vec![frame(9, b"")],
        vec![frame(10, b"")],
        vec![frame(8, b"")],
        vec![frame(FIN | 9, &[0; 126])],
        vec![frame(FIN | 8, &[0; 126])],
        vec![frame(FIN | 8, b"\x03")],
        vec![frame(FIN | 8, b"\x03\xed")],
        vec![frame(FIN | 8, b"\x07\xd0")],
    ] {
        assert_eq!(error(&frames), CloseReason::ProtocolError, "{frames:x?}");
    }
}

#[test]
fn the_longest_control_frame_passes() {
    let (received, error) = receive(&frame(FIN | 9, &[7; 125]));
    assert_eq!((received.len(), error), (1, None));
}

#[test]
fn text_that_is_not_utf8_is_refused_in_any_shape() {
    for text in [
        &b"\xff"[..],
        b"abc\x80",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"a\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xe2\x82\x41",
    ] {
        assert_eq!(
            error(&[frame(FIN | 1, text)]),
            CloseReason::InvalidUtf8,
            "{text:x?}"
        );
        for cut in 0..=text.len() {
            let (start, end) = text.split_at(cut);
            let fragments = [frame(1, start), frame(FIN, end)];
            assert_eq!(
                error(&fragments),
                CloseReason::InvalidUtf8,
                "{text:x?} cut at {cut}"
            );
        }
    }
    assert_eq!(
        error(&[frame(FIN | 8, b"\x03\xe8\xff")]),
        CloseReason::InvalidUtf8
    );
}

/// A byte that cannot be part of UTF-8 is an error as soon as it arrives, even in the middle of a frame.
#[test]
fn text_fails_in_the_middle_of_a_frame() {
    for (text, fatal) in [
        (&b"ab\xffcdefgh"[..], 2),
        (b"ab\xc3cdefgh", 3),
        (b"ab\xed\xa0\x80def", 3),
        (b"ab\xf4\x90\x80\x80ef", 3),
        (b"ab\xe2\x82cdefg", 4),
    ] {
        for first in [FIN | 1, 1] {
            let bytes = frame(first, text);
            let arrived = bytes.len() - text.len() + fatal + 1;
            assert_eq!(receive_all(&[&bytes[..arrived - 1]]), (vec![], None), "{text:x?}");
            let expected = (vec![], Some(CloseReason::InvalidUtf8));
            assert_eq!(receive_all(&[&bytes[..arrived]]), expected, "{text:x?}");
        }
    }
}

#[test]
fn the_limit_of_a_message_is_exact() {
    let text = |length| vec![b'x'; length];
    assert_eq!(receive(&frame(FIN | 1, &text(1000))).1, None);
    assert_eq!(
        receive(&[frame(1, &text(400)), frame(FIN, &text(600))].concat()).1,
        None
    );
    assert_eq!(
        receive(&[frame(1, &text(1000)), frame(FIN, b"")].concat()).1,
        None
    );
    assert_eq!(error(&[frame(FIN | 1, &text(1001))]), CloseReason::MessageTooBig);
    assert_eq!(
        error(&[frame(2, &text(1000)), frame(FIN, b"x")]),
        CloseReason::MessageTooBig
    );
}

#[test]
fn a_message_is_too_big_before_its_payload_arrives() {
    let header = [FIN | 2, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(receive_all(&[&header]).1, Some(CloseReason::MessageTooBig));
    let header = [FIN | 2, 0x80 | 126, 0x03, 0xe9, 1, 2, 3, 4];
    assert_eq!(receive_all(&[&header]).1, Some(CloseReason::MessageTooBig));
}

#[test]
fn the_limit_of_fragments_is_exact() {
    let four = [frame(1, b"a"), frame(0, b""), frame(0, b"c"), frame(FIN, b"d")];
    assert_eq!(
        receive(&four.concat()),
        (vec![format!("{:?}", Received::Text("acd"))], None)
    );
    let five = [
        frame(1, b""),
        frame(0, b""),
        frame(0, b""),
        frame(0, b""),
        frame(FIN, b""),
    ];
    assert_eq!(error(&five), CloseReason::TooManyFragments);
}

#[test]
fn an_idle_receiver_is_one_pointer_and_owns_nothing() {
    assert_eq!(size_of::<Receiver>(), size_of::<usize>());
    let mut receiver = Receiver::new();
    let mut input = [frame(1, b"a"), frame(FIN, b"b")].concat();
    let step = receiver.receive(&mut input, &LIMITS);
    let consumed = 14;
    let received = Received::Text("ab");
    assert_eq!(step, Ok(Step::Message { received, consumed }));
    assert!(receiver.assembly.is_some());
    assert_eq!(
        receiver.receive(&mut [], &LIMITS),
        Ok(Step::Incomplete { consumed: 0 })
    );
    assert!(receiver.assembly.is_none());
}

#[test]
fn memory_follows_what_arrived_and_not_what_was_announced() {
    let limits = Limits {
        message_bytes_max: 1 << 30,
        frame_bytes_max: 1 << 30,
        fragments_max: 1,
    };
    for first in [FIN | 1, FIN | 2] {
        let mut receiver = Receiver::new();
        let mut input = [first, 0x80 | 127, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0].to_vec();
        input.extend_from_slice(&[b'x'; 100]);
        let step = receiver.receive(&mut input, &limits);
        assert_eq!(step, Ok(Step::Incomplete { consumed: 114 }));
        let capacity = match &receiver.assembly.as_ref().unwrap().body {
            Body::Text { checked, .. } => checked.capacity(),
            Body::Binary(bytes) | Body::Compressed { bytes, .. } => bytes.capacity(),
        };
        assert!((100..=200).contains(&capacity), "{capacity}");
    }
}

#[test]
fn input_that_is_left_is_untouched() {
    let ping = frame(FIN | 9, b"hello");
    for cut in 0..ping.len() {
        let mut input = [frame(1, b"a"), ping[..cut].to_vec()].concat();
        let mut receiver = Receiver::new();
        let step = receiver.receive(&mut input, &LIMITS);
        assert_eq!(step, Ok(Step::Incomplete { consumed: 7 }));
        assert_eq!(input[7..], ping[..cut]);
    }
}

/// The messages received from compressed frames, at once and cut at each position, as text.
fn receive_compressed(bytes: &[u8], limits: &Limits) -> (Vec<String>, Option<CloseReason>) {
    let all = |pieces: &[&[u8]]| {
        let (mut receiver, mut inflater) = (Receiver::new(), Inflater::default());
        let (mut buffer, mut received) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let consumed = match receiver.receive_compressed(&mut buffer, limits, &mut inflater) {
                    Ok(Step::Message {
                        received: message,
                        consumed,
                    }) => {
                        received.push(format!("{message:?}"));
                        consumed
                    }
                    Ok(Step::Incomplete { consumed }) => {
                        buffer.drain(..consumed);
                        break;
                    }
                    Err(reason) => return (received, Some(reason)),
                };
                buffer.drain(..consumed);
            }
        }
        assert!(receiver.assembly.is_none() || !buffer.is_empty() || received.len() < 5);
        (received, None)
    };
    let whole = all(&[bytes]);
    assert_eq!(all(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    for cut in 0..bytes.len() {
        let (start, end) = bytes.split_at(cut);
        assert_eq!(all(&[start, end]), whole, "cut at {cut}");
    }
    whole
}

/// RFC 7692 section 7.2.3.1.
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
const COMPRESSED: u8 = 0x40;

#[test]
fn compressed_messages_are_whole_however_they_were_fragmented() {
    let first = frame(FIN | COMPRESSED | 1, HELLO);
    for at in 0..=HELLO.len() {
        for second in at..=HELLO.len() {
            let bytes = [
                first.clone(),
                frame(COMPRESSED | 2, &HELLO[..at]),
                frame(FIN | 9, b"between"),
                frame(0, &HELLO[at..second]),
                frame(FIN, &HELLO[second..]),
                // Uncompressed messages may stand between compressed ones.
                frame(FIN | 1, b"plain"),
            ]
            .concat();
            let expected = [
                "Text(\"Hello\")",
                "Ping([98, 101, 116, 119, 101, 101, 110])",
                "Binary([72, 101, 108, 108, 111])",
                "Text(\"plain\")",
            ];
            let expected = expected.map(str::to_owned).to_vec();
            assert_eq!(
                receive_compressed(&bytes, &LIMITS),
                (expected, None),
                "{at} {second}"
            );
        }
    }
}

#[test]
fn the_bit_of_compression_is_legal_where_a_message_begins_and_nowhere_else() {
    let refused = |frames: &[Vec<u8>]| receive_compressed(&frames.concat(), &LIMITS).1;
    let protocol_error = Some(CloseReason::ProtocolError);
    for first in [FIN, 0] {
        let begun = frame(COMPRESSED | 1, b"");
        assert_eq!(
            refused(&[begun, frame(first | COMPRESSED, HELLO)]),
            protocol_error
        );
        let begun = frame(1, b"");
        assert_eq!(
            refused(&[begun, frame(first | COMPRESSED, HELLO)]),
            protocol_error
        );
    }
    for opcode in [8, 9, 10, 0, 3, 11] {
        assert_eq!(
            refused(&[frame(FIN | COMPRESSED | opcode, b"")]),
            protocol_error,
            "{opcode}"
        );
    }
    for reserved in [0x10, 0x20, 0x30, 0x50, 0x60, 0x70] {
        assert_eq!(
            refused(&[frame(FIN | reserved | 1, HELLO)]),
            protocol_error,
            "{reserved:x}"
        );
    }
    // Without an agreement the bit is never legal.
    assert_eq!(
        error(&[frame(FIN | COMPRESSED | 1, HELLO)]),
        CloseReason::ProtocolError
    );
    assert_eq!(error(&[frame(COMPRESSED | 1, HELLO)]), CloseReason::ProtocolError);
}

#[test]
fn compressed_text_is_text_and_both_lengths_are_bounded() {
    let closed = |first: u8, payload: &[u8], message_bytes_max| {
        let limits = Limits {
            message_bytes_max,
            frame_bytes_max: message_bytes_max,
            ..LIMITS
        };
        let (received, reason) = receive_compressed(&frame(first, payload), &limits);
        assert_eq!(received.len(), usize::from(reason.is_none()));
        reason
    };
    // "Hell\xff", stored.
    let no_text = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\xff\x00";
    assert_eq!(
        closed(FIN | COMPRESSED | 1, no_text, 100),
        Some(CloseReason::InvalidUtf8)
    );
    assert_eq!(closed(FIN | COMPRESSED | 2, no_text, 100), None);
    assert_eq!(
        closed(FIN | COMPRESSED | 1, b"Hello", 100),
        Some(CloseReason::BadCompression)
    );
    // Seven bytes that inflate to five, and eleven that inflate to eleven.
    assert_eq!(closed(FIN | COMPRESSED | 1, HELLO, 7), None);
    assert_eq!(
        closed(FIN | COMPRESSED | 1, HELLO, 6),
        Some(CloseReason::MessageTooBig)
    );
    // 300 times "a" in eight bytes.
    let many = b"\x4a\x4c\x1c\x05\xc4\x02\x00\x00";
    assert_eq!(closed(FIN | COMPRESSED | 1, many, 300), None);
    assert_eq!(
        closed(FIN | COMPRESSED | 1, many, 299),
        Some(CloseReason::InflatedTooBig)
    );
}

#[test]
fn skipped_messages_are_checked_as_frames_and_not_inflated() {
    let passed = |bytes: &[u8], compression| {
        let (mut receiver, mut input, mut steps) = (Receiver::new(), bytes.to_vec(), Vec::new());
        loop {
            let step = receiver.pass(&mut input, &LIMITS, compression);
            steps.push(step);
            match step {
                Ok(SkipResult::Frame(consumed)) => drop(input.drain(..consumed)),
                Ok(SkipResult::Close | SkipResult::Incomplete(_)) | Err(_) => return steps,
            }
        }
    };
    let bytes = [
        frame(FIN | COMPRESSED | 1, b"not to be inflated"),
        frame(COMPRESSED | 2, b"nor"),
        frame(FIN, b"this"),
        frame(FIN | 8, b""),
    ];
    let whole = |at: usize| Ok(SkipResult::Frame(bytes[at].len()));
    let both = Ok(SkipResult::Frame(bytes[1].len() + bytes[2].len()));
    assert_eq!(
        passed(&bytes.concat(), Compression::Small),
        [whole(0), both, Ok(SkipResult::Close)]
    );
    assert_eq!(
        passed(&bytes.concat(), Compression::Off),
        [Err(CloseReason::ProtocolError)]
    );
    assert_eq!(
        passed(&bytes[..2].concat(), Compression::Large),
        [whole(0), Ok(SkipResult::Incomplete(bytes[1].len()))]
    );
}
