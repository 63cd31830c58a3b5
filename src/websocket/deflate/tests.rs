use super::*;

const MAX: usize = 100_000;

fn inflate(payload: &[u8]) -> Result<Vec<u8>, CloseReason> {
    Inflater::default().inflate(payload, MAX).map(<[u8]>::to_vec)
}

/// A compressed payload of a client. It uses the client's own compressor, so that an error in ours cannot hide itself.
fn deflated(level: u32, window_bits: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut client = Compress::new_with_window_bits(flate2::Compression::new(level), false, window_bits);
    let mut out = Vec::with_capacity(parts.concat().len() * 2 + 1000);
    for part in parts {
        let before = client.total_in();
        client.compress_vec(part, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(client.total_in() - before, part.len() as u64);
    }
    out.truncate(out.len() - TAIL.len());
    out
}

/// How a client reads a frame of the server: whether it is compressed, and the message.
fn received(frame: &[u8], window_bits: u8) -> (bool, Vec<u8>) {
    let length = frame::next_frame_len(frame).unwrap();
    assert_eq!(length, frame.len());
    let header_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = &frame[header_len..];
    if frame[0] & 0x40 == 0 {
        return (false, payload.to_vec());
    }
    let mut client = Decompress::new_with_window_bits(false, window_bits);
    let mut out = Vec::with_capacity(1024 * 1024);
    let whole = [payload, TAIL].concat();
    client
        .decompress_vec(&whole, &mut out, FlushDecompress::Sync)
        .unwrap();
    assert_eq!(client.total_in(), whole.len() as u64);
    (true, out)
}

/// Ordinary text: much of it is repeated, some of it is not.
fn prose(length: usize) -> Vec<u8> {
    let mut seed = 12_345_u32;
    let mut text = Vec::new();
    while text.len() < length {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("{{\"id\":{},\"name\":\"sensor\"}},", seed >> 16).as_bytes());
    }
    text.truncate(length);
    text
}

/// The examples of RFC 7692 section 7.2.3, each "Hello".
#[test]
fn the_examples_of_the_rfc_are_inflated() {
    for (payload, name) in [
        (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], "one block"),
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "no compression"),
        (
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            "a last block, and the empty one",
        ),
        (
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
            "two blocks",
        ),
    ] {
        assert_eq!(inflate(payload).as_deref(), Ok(&b"Hello"[..]), "{name}");
    }
    assert_eq!(inflate(b"\x00"), Ok(Vec::new()), "an empty message");
    // zlib's output for an empty message after a flush; the RFC asks for the byte above.
    assert_eq!(inflate(b""), Ok(Vec::new()), "nothing");
}

/// Streams that zlib 1.2.13 made of [`PACKET`] with each of its strategies, codes and kinds of flush.
#[test]
fn streams_of_another_implementation_are_inflated() {
    for (payload, name) in [
        (
            "aa564a2d4bcd2b51b252522e284dcac92cce50d2514a492c4954b2aa564ace48cccb4bcd014ae6a59617c3259432527372f2153048a5da5a0000",
            "fixed codes",
        ),
        (
            "004f00b0ff7b226576656e74223a22237075626c697368222c2264617461223a7b226368616e6e656c223a226e657773222c2264617461223a2268656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f227d7d00",
            "stored",
        ),
        (
            "04c1410a80300c04c0af94f5da17e437d12e445852a1550fc5bf3bb3c0873961d8ae7bd7390215cda7c3168ef04c0a86e43b50d17c3a0c41a997a0d44b50ea2528757cdf0f",
            "codes of its own, no matches",
        ),
        (
            "ab564a2d4bcd2b51b252522e284dcac92cce50d2514a492c4954b2aa564ace48cccb4bcd014ae6a59617c3259432527372f2153048a5da5a00",
            "finished, and nothing behind it",
        ),
        (
            "aa564a2d4bcd2b51b252522e284dcac92cce50d2010820a594c4924425ab6aa5e48cc4bcbcd41ca0641e000000ffff4a2d2f56d2514a492c4954b252ca48cdc9c957c020956a6b0100",
            "three kinds of flushes",
        ),
    ] {
        let bytes: Vec<u8> = (0..payload.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&payload[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(inflate(&bytes).as_deref(), Ok(PACKET), "{name}");
    }
}

const PACKET: &[u8] = br##"{"event":"#publish","data":{"channel":"news","data":"hello hello hello hello"}}"##;

#[test]
fn messages_of_clients_are_inflated_at_every_level_and_window() {
    for length in [0, 1, 2, 100, 1000, 40_000] {
        let message = prose(length);
        for level in 0..=9 {
            for window_bits in [9, 12, 15] {
                let payload = deflated(level, window_bits, &[&message]);
                assert_eq!(
                    inflate(&payload),
                    Ok(message.clone()),
                    "{length} {level} {window_bits}"
                );
            }
        }
        let (start, end) = message.split_at(length / 3);
        let payload = deflated(6, 15, &[start, end]);
        assert_eq!(inflate(&payload), Ok(message.clone()), "{length} in two blocks");
    }
}

#[test]
fn one_message_leaves_nothing_behind_for_the_next() {
    let mut inflater = Inflater::default();
    let payload = deflated(6, 15, &[b"the first of two messages"]);
    inflater.inflate(&payload, MAX).unwrap();
    // "Hello" again, as a client sends it if it has kept its context: RFC 7692 section 7.2.3.2.
    assert_eq!(
        inflater.inflate(b"\xf2\x00\x11\x00\x00", MAX),
        Err(CloseReason::BadCompression)
    );
    assert_eq!(
        inflater.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", MAX),
        Ok(&b"Hello"[..])
    );
}

#[test]
fn streams_follow_one_another_in_one_message() {
    let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00";
    let open = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    for (parts, message) in [
        (&[&last[..], last, open][..], "HelloHelloHello"),
        (&[last, last, b"\0"], "HelloHello"),
        // Without the empty block that should follow.
        (&[last], "Hello"),
        (&[last, last], "HelloHello"),
    ] {
        assert_eq!(
            inflate(&parts.concat()),
            Ok(message.as_bytes().to_vec()),
            "{parts:?}"
        );
    }
}

#[test]
fn a_stream_that_is_cut_or_broken_is_refused() {
    let message = prose(2000);
    for level in [0, 1, 6] {
        let payload = deflated(level, 15, &[&message]);
        for cut in 1..payload.len() {
            // A stored block may begin like an empty message, and the last four bytes of its data may be the four bytes
            // that every payload leaves out.
            if level == 0 && [1, payload.len() - 5].contains(&cut) {
                continue;
            }
            let refused = inflate(&payload[..cut]) == Err(CloseReason::BadCompression);
            assert!(refused, "level {level} cut at {cut} of {}", payload.len());
        }
    }
    for payload in [
        &b"\x06"[..],                        // the fourth kind of block
        b"\x00\x05\x00\xfa\xfe\x48",         // a length that does not agree with itself
        b"\xf2\x48\xcd\xc9\xc9\x07\x00\x06", // behind a whole message
        b"\xff\xff\xff\xff\xff\xff",
        b"hello, this is no stream",
    ] {
        assert_eq!(inflate(payload), Err(CloseReason::BadCompression), "{payload:?}");
    }
}

#[test]
fn the_bound_is_exact_however_the_message_was_cut_into_blocks() {
    let mut inflater = Inflater::default();
    for length in [1, 2, 1023, 1024, 1025, 65_536] {
        let message = prose(length);
        for payload in [
            deflated(6, 15, &[&message]),
            deflated(0, 15, &[&message]),
            deflated(1, 15, &[&message[..length / 2], &message[length / 2..]]),
        ] {
            assert_eq!(inflater.inflate(&payload, length), Ok(&message[..]), "{length}");
            assert_eq!(
                inflater.inflate(&payload, length + 1),
                Ok(&message[..]),
                "{length}"
            );
            assert_eq!(
                inflater.inflate(&payload, length - 1),
                Err(CloseReason::InflatedTooBig),
                "{length}"
            );
        }
    }
}

#[test]
fn a_bomb_is_stopped_at_the_bound_and_leaves_no_memory_behind() {
    let zeros = vec![0; 64 * 1024 * 1024];
    let bomb = deflated(9, 15, &[&zeros]);
    assert!(bomb.len() < 70_000, "{}", bomb.len());
    let mut inflater = Inflater::default();
    let bound = 1024 * 1024;
    assert_eq!(inflater.inflate(&bomb, bound), Err(CloseReason::InflatedTooBig));
    let held = inflater.made.capacity();
    assert!(held <= bound + 1, "{held} bytes for a bound of {bound}");
    // A refused message does not count as work, and none of its output is kept.
    assert_eq!(inflater.take_work(), Work::default());
    assert!(inflater.made.capacity() <= KEPT_BYTES_MAX);
    inflater.inflate(b"\0", bound).unwrap();
    assert_eq!(
        inflater.take_work(),
        Work {
            messages: 1,
            bytes_before: 1,
            bytes_after: 0
        }
    );
}

#[test]
fn clients_inflate_our_messages_with_the_window_they_asked_for() {
    let mut deflater = Deflater::new(0);
    for length in [0, 1, 10, 60, 200, 3000, 70_000, 200_000] {
        let message = prose(length);
        for (compression, window_bits) in [(Compression::Large, 15), (Compression::Small, 9)] {
            let mut frame = Vec::new();
            deflater.write(&mut frame, compression, OpCode::Text, &message);
            let (is_compressed, text) = received(&frame, window_bits);
            assert_eq!(text, message, "{length} {compression:?}");
            assert!(
                is_compressed && (frame.len() < length || length < 200),
                "{length}"
            );
        }
    }
    let work = deflater.take_work();
    assert!(
        work.messages >= 8 && work.bytes_after < work.bytes_before / 2,
        "{work:?}"
    );
    assert_eq!(deflater.take_work(), Work::default());
}

#[test]
fn only_messages_that_are_long_enough_are_compressed() {
    let mut deflater = Deflater::new(1000);
    let compressed = |deflater: &mut Deflater, compression, message: &[u8]| {
        let mut frame = Vec::new();
        deflater.write(&mut frame, compression, OpCode::Binary, message);
        received(&frame, 15).0
    };
    let large = Compression::Large;
    assert!(!compressed(&mut deflater, large, &prose(999)));
    assert!(compressed(&mut deflater, large, &prose(1000)));
    assert!(!compressed(&mut deflater, Compression::Off, &prose(1000)));
    let mut dense = vec![0; 5000];
    getrandom::fill(&mut dense).unwrap();
    // Noise becomes hardly longer.
    assert!(compressed(&mut deflater, large, &dense));
    assert!(
        deflater.made.len() <= dense.len() + 5 + 5,
        "{}",
        deflater.made.len()
    );
    // The memory that is kept is bounded, too.
    compressed(&mut deflater, large, &prose(1_000_000));
    deflater.take_work();
    assert!(deflater.made.capacity() <= KEPT_BYTES_MAX);
}
