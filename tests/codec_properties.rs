//! Properties of the codecs over generated input: the result does not depend on where bytes are cut, garbage never
//! causes a panic, and an independent implementation agrees.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::{collection, prop_oneof, sample};
use ringcast::app::CloseReason;
use ringcast::internals::websocket::{Compression, Deflater, Inflater, OpCode};

#[allow(unreachable_pub, dead_code)] // the package for cargo-fuzz
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::frames::{Event, LIMITS, agrees, ours, ours_compressed};

fn frame(first: u8, masked: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match u16::try_from(payload.len()).expect("generated payloads are short") {
        length @ 0..=125 => bytes.push(bit | u8::try_from(length).expect("matched")),
        length => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend_from_slice(&mask);
    }
    let mask = if masked { mask } else { [0; 4] };
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "\\PC{0,40}".prop_map(String::into_bytes),
        2 => "\\PC{0,300}".prop_map(String::into_bytes),
        1 => collection::vec(any::<u8>(), 0..20),
        1 => (sample::select(&[124_usize, 125, 126, 127, 999, 1000, 1001][..])).prop_map(|length| vec![b'x'; length]),
    ]
}

fn close_payload() -> impl Strategy<Value = Vec<u8>> {
    let code = sample::select(
        &[
            1000_u16, 1001, 1003, 1007, 1011, 3000, 4000, 4999, 0, 999, 1005, 1006, 1015, 1016,
        ][..],
    );
    prop_oneof![
        1 => Just(Vec::new()),
        1 => Just(vec![3]),
        6 => (code, "\\PC{0,30}").prop_map(|(code, reason)| [&code.to_be_bytes(), reason.as_bytes()].concat()),
        1 => collection::vec(any::<u8>(), 2..10).prop_map(|reason| [&[3, 232], &reason[..]].concat()),
    ]
}

/// The frames of one legal message with control frames between them. Text is cut at any byte, also within a character.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let ping = proptest::option::of(collection::vec(any::<u8>(), 0..126));
    (payload(), cuts(), ping, 1..=2_u8, any::<[u8; 4]>()).prop_map(|(payload, cuts, ping, opcode, mask)| {
        fragments(opcode, &payload, &cuts, ping.as_deref(), mask)
    })
}

fn cuts() -> impl Strategy<Value = Vec<sample::Index>> {
    collection::vec(any::<sample::Index>(), 0..4)
}

/// A message in frames; a ping follows each frame for which there is one.
fn fragments(
    first: u8,
    payload: &[u8],
    cuts: &[sample::Index],
    ping: Option<&[u8]>,
    mask: [u8; 4],
) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(payload.len());
    let mut bytes = Vec::new();
    let mut start = 0;
    for (index, &end) in cuts.iter().enumerate() {
        let first = if index == 0 { first } else { 0 };
        let fin = if index + 1 == cuts.len() { 0x80 } else { 0 };
        bytes.extend(frame(fin | first, true, mask, &payload[start..end]));
        start = end;
        if let Some(ping) = ping {
            bytes.extend(frame(0x89, true, mask, ping));
        }
    }
    bytes
}

/// One message twice: uncompressed and compressed, each in fragments of its own, with the same number of control
/// frames.
fn message_and_compressed() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    // Level 0 is left out: a stored payload is longer than its message, and could exceed the limit.
    let coding = (1..=9_u32, 9..=15_u8, any::<sample::Index>());
    (payload(), coding, cuts(), 1..=2_u8, any::<[u8; 4]>()).prop_map(
        |(payload, (level, window_bits, flushed), cuts, opcode, mask)| {
            let level = flate2::Compression::new(level);
            let mut compress = flate2::Compress::new_with_window_bits(level, false, window_bits);
            let mut compressed = Vec::with_capacity(2 * payload.len() + 1000);
            let (start, end) = payload.split_at(flushed.index(payload.len() + 1));
            for part in [start, end] {
                compress
                    .compress_vec(part, &mut compressed, flate2::FlushCompress::Sync)
                    .expect("there is room");
            }
            // A flush without input adds nothing.
            compressed.truncate(compressed.len() - 4);
            (
                fragments(opcode, &payload, &cuts, Some(b"p"), mask),
                fragments(0x40 | opcode, &compressed, &cuts, Some(b"p"), mask),
            )
        },
    )
}

/// One frame of any kind, which is often illegal at its position.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => sample::select(&[0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a][..]),
        1 => any::<u8>(),
    ];
    (first, proptest::bool::weighted(0.97), any::<[u8; 4]>(), payload())
        .prop_map(|(first, masked, mask, payload)| frame(first, masked, mask, &payload))
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 4]>(), close_payload()).prop_map(|(mask, payload)| frame(0x88, true, mask, &payload))
}

/// The bytes of a connection, sometimes cut off.
fn connection() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![12 => message(), 4 => any_frame(), 1 => close()];
    let early = proptest::option::weighted(0.3, any::<sample::Index>());
    (collection::vec(part, 0..8), early).prop_map(|(parts, early)| {
        let mut bytes = parts.concat();
        if let Some(end) = early {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes
    })
}

/// Random bytes, without frames whose length takes two bytes or more: only our parser refuses lengths that are not
/// minimal.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if byte & 0x7f >= 126 { 0x85 } else { byte });
    let first = sample::select(&[0x81_u8, 0x82, 0x01, 0x89, 0x88, 0x00][..]);
    (proptest::option::of(first), collection::vec(byte, 0..300)).prop_map(|(first, mut bytes)| {
        if let (Some(first), [start, length, ..]) = (first, &mut bytes[..]) {
            *start = first;
            *length |= 0x80;
            if *length >= 0x80 | 126 {
                *length = 0x85;
            }
        }
        bytes
    })
}

/// Runs the corpus of the fuzz targets: each input reached new code, or once found an error.
#[test]
fn the_corpus_of_the_fuzz_targets_finds_no_error() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut found = Vec::new();
    for (name, target) in fuzz::TARGETS {
        let folder = corpus.join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("an entry").path();
            let data = fs::read(&path).expect("an input");
            if catch_unwind(|| target(&data)).is_err() {
                found.push(path);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
    assert!(found.is_empty(), "by {found:#?}");
}

/// JSON that a client may send, with values that JavaScript changes in passing, and with keys of packets.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => sample::select(&["null", "true", "-0", "1e400", "0.10", "9007199254740993", r#""Buffer""#, r#""\ud800""#][..])
            .prop_map(str::to_owned),
        1 => any::<f64>().prop_filter("JSON's", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        2 => any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    let key = prop_oneof![
        4 => sample::select(&["event", "data", "cid", "rid", "error", "channel", "authToken", "type"][..])
            .prop_map(str::to_owned),
        1 => "[a-z]{0,3}",
    ];
    leaf.prop_recursive(4, 30, 5, move |inner| {
        let space = sample::select(&["", "", " ", "\n\t"][..]);
        prop_oneof![
            (collection::vec(inner.clone(), 0..5), space)
                .prop_map(|(all, space)| format!("[{space}{}]", all.join(","))),
            collection::vec((key.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

/// A packet that has a meaning for the server, or for the application of `fuzz::connection`.
fn packet() -> impl Strategy<Value = String> {
    let event = sample::select(
        &[
            "#handshake",
            "#authenticate",
            "#removeAuthToken",
            "#publish",
            "#subscribe",
            "#unsubscribe",
            "echo",
            "several",
            "ask",
            "publish",
            "token",
            "confirm",
            "forget",
            "kick",
            "bye",
            "later",
            "refuse",
            "nobody's",
        ][..],
    );
    let channel = sample::select(&["open", "open/a", "open/other", "of/bob/x", "no", "a", "\\ud800"][..]);
    let data = prop_oneof![
        2 => (channel, document()).prop_map(|(name, data)| format!(r#"{{"channel":"{name}","data":{data}}}"#)),
        1 => channel_text(),
        1 => document(),
    ];
    let cid = proptest::option::weighted(0.7, 1..9_u32);
    prop_oneof![
        8 => (event, data, cid).prop_map(|(event, data, cid)| {
            let cid = cid.map(|cid| format!(",\"cid\":{cid}")).unwrap_or_default();
            format!(r#"{{"event":"{event}","data":{data}{cid}}}"#)
        }),
        1 => (1..5_u32, document()).prop_map(|(rid, data)| format!(r#"{{"rid":{rid},"data":{data}}}"#)),
        1 => document(),
    ]
}

fn channel_text() -> impl Strategy<Value = String> {
    sample::select(&[r#""open""#, r#""a""#, r#""no""#][..]).prop_map(str::to_owned)
}

/// A script of `fuzz::connection`.
fn script() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        8 => packet().prop_map(|packet| format!("t{packet}")),
        1 => collection::vec(packet(), 0..4).prop_map(|all| format!("t[{}]", all.join(","))),
        1 => packet().prop_map(|packet| format!("b{packet}")),
        2 => (0..40_000_u32).prop_map(|ms| format!("+{ms}")),
        2 => sample::select(&["t", "t#2", "~", "w", "wabc", "x", "r\u{8a}"][..]).prop_map(str::to_owned),
        2 => sample::select(&[r#"!{"sub":"bob"}"#, r#"!{"sub":"bob","exp":1700000030}"#, r#"!{"bad":1}"#,
            r#"k{"sub":"bob"}"#][..]).prop_map(str::to_owned),
    ];
    let steps = collection::vec(step.prop_map(|step| step.replace('\n', " ")), 0..12);
    ("[12anrp]{0,3}", any::<bool>(), steps).prop_map(|(letters, begins, steps)| {
        let handshake = r##"t{"event":"#handshake","data":{"authToken":null},"cid":1}"##;
        let start = if begins { handshake } else { "t" };
        format!("{letters}\n{start}\n{}", steps.join("\n"))
    })
}

/// A script of `fuzz::rules`.
fn rules_script() -> impl Strategy<Value = String> {
    let claims = sample::select(
        &[
            "",
            r#" {"sub":"a"}"#,
            r#" {"sub":"*","b":["a","b",7,""]}"#,
            r#" {"sub":"a/b","b":-0}"#,
            r#" "x""#,
        ][..],
    );
    let segments = |all: &'static [&'static str]| {
        collection::vec(sample::select(all), 1..4).prop_map(|segments| segments.join("/"))
    };
    let pattern = segments(&["a", "*", "{sub}", "{sub}", "{b}", "", "**"]);
    let name = segments(&["a", "b", "*", "7", "0", ""]);
    let line = prop_oneof![
        2 => pattern.clone().prop_map(|pattern| format!("+{pattern}")),
        1 => pattern.prop_map(|pattern| format!("-{pattern}")),
        4 => name.prop_map(|name| format!("?{name}")),
    ];
    (claims, collection::vec(line, 0..24))
        .prop_map(|(claims, lines)| format!("/{claims}\n{}", lines.join("\n")))
}

proptest! {
    #[test]
    fn json_has_the_same_value_as_in_javascript(text in prop_oneof![document(), packet()], cut in any::<sample::Index>()) {
        for target in [fuzz::envelope::json, fuzz::envelope::envelope, fuzz::envelope::packet, fuzz::envelope::rewrite] {
            target(text.as_bytes());
            target(&text.as_bytes()[..cut.index(text.len() + 1)]);
        }
    }

    #[test]
    fn connections_do_the_same_however_their_bytes_come(script in script()) {
        fuzz::connection::connection(script.as_bytes());
    }

    #[test]
    fn rules_decide_as_a_simpler_reading_does(script in rules_script()) {
        fuzz::rules::rules(script.as_bytes());
    }

    #[test]
    fn tokens_say_what_was_signed(claims in document()) {
        fuzz::tokens::jwt(format!("{{\"alg\":\"HS256\"}}\n{claims}").as_bytes());
        fuzz::tokens::jwt(format!("{{\"alg\":\"HS512\",\"typ\":\"JWT\"}}\n{{\"a\":{claims},\"nbf\":1}}").as_bytes());
    }
}

proptest! {
    #[test]
    fn websocket_frames_mean_what_tungstenite_reads(bytes in connection()) {
        agrees(&bytes);
    }

    #[test]
    fn websocket_garbage_is_what_tungstenite_reads(bytes in garbage()) {
        agrees(&bytes);
    }

    #[test]
    fn websocket_bytes_may_be_cut_anywhere(
        bytes in prop_oneof![4 => connection(), 1 => collection::vec(any::<u8>(), 0..400)],
        cuts in collection::vec(any::<sample::Index>(), 0..6),
        size in 1..40_usize,
    ) {
        let whole = ours(&[&bytes]);
        prop_assert_eq!(&ours(&bytes.chunks(size).collect::<Vec<_>>()), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().rev() {
            let (start, piece) = rest.split_at(*cut);
            pieces.push(piece);
            rest = start;
        }
        pieces.push(rest);
        pieces.reverse();
        prop_assert_eq!(&ours(&pieces), &whole);
    }

    /// Compressed or not, the same messages arrive and the connection ends in the same way.
    #[test]
    fn websocket_messages_are_the_same_when_they_come_compressed(
        messages in collection::vec(message_and_compressed(), 0..5),
        size in 1..40_usize,
    ) {
        let (plain, compressed): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let (plain, compressed) = (plain.concat(), compressed.concat());
        let no_pings = |events: Vec<Event>| -> Vec<_> {
            events.into_iter().filter(|event| !matches!(event, Event::Ping(_))).collect()
        };
        let (events, error) = ours(&[&plain]);
        let (found, found_error) = ours_compressed(&[&compressed]);
        prop_assert_eq!(no_pings(events), no_pings(found));
        // In uncompressed frames, the length is checked when the header announces it, before the payload has arrived.
        let error = error.map(|error| match error {
            CloseReason::MessageTooBig => CloseReason::InflatedTooBig,
            other => other,
        });
        prop_assert_eq!(error, found_error);
        let pieces: Vec<_> = compressed.chunks(size).collect();
        prop_assert_eq!(ours_compressed(&pieces), ours_compressed(&[&compressed]));
        // A connection with compression also accepts uncompressed messages.
        prop_assert_eq!(ours_compressed(&[&plain]), ours(&[&plain]));
    }

    /// No payload inflates to more than the bound or causes a panic, and our decompressor reads our compressor's
    /// output.
    #[test]
    fn websocket_payloads_are_inflated_within_their_bound(
        payload in collection::vec(any::<u8>(), 0..300),
        flips in collection::vec((any::<sample::Index>(), any::<u8>()), 0..3),
        bytes_max in 0..2000_usize,
        small in any::<bool>(),
    ) {
        let mut inflater = Inflater::default();
        if let Ok(made) = inflater.inflate(&payload, bytes_max) {
            prop_assert!(made.len() <= bytes_max);
        }
        let message: Vec<u8> = payload.iter().map(|byte| b'a' + byte % 8).collect();
        let compression = if small { Compression::Small } else { Compression::Large };
        let mut frame = Vec::new();
        Deflater::new(0).write(&mut frame, compression, OpCode::Binary, &message);
        if frame[0] & 0x40 != 0 {
            let start = if frame[1] < 126 { 2 } else { 4 };
            prop_assert_eq!(inflater.inflate(&frame[start..], 300), Ok(&message[..]));
            for (index, byte) in flips {
                let at = start + index.index(frame.len() - start);
                frame[at] = byte;
            }
            if let Ok(made) = inflater.inflate(&frame[start..], bytes_max) {
                prop_assert!(made.len() <= bytes_max);
            }
        }
    }

    /// No message that the receiver returns is longer than the limit.
    #[test]
    fn websocket_messages_keep_the_limit(bytes in connection()) {
        for event in ours(&[&bytes]).0 {
            let length = match event {
                Event::Text(text) => text.len(),
                Event::Binary(bytes) | Event::Ping(bytes) => bytes.len(),
                Event::Pong | Event::Close(_) => 0,
            };
            prop_assert!(length <= LIMITS.message_bytes_max);
        }
    }

    #[test]
    fn http_heads_may_be_cut_anywhere_and_never_panic(
        head in "(GET|POST|get) /[a-z?=]{0,5} HTTP/1.[01]\r\n([A-Za-z-]{1,8}:[ -~\t]{0,9}\r\n){0,4}\r\n",
        tail in collection::vec(any::<u8>(), 0..20),
        flips in collection::vec((any::<sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut bytes = [head.as_bytes(), &tail].concat();
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let parse = |bytes| ringcast::internals::http::request::parse(bytes, 16 * 1024).map(|found| found.map(|(_, length)| length));
        let whole = parse(&bytes);
        if let Ok(Some(length)) = whole {
            prop_assert_eq!(parse(&bytes[..length]), whole.clone());
        }
        for end in 0..bytes.len() {
            // Of a prefix, the parser says either "incomplete" or the same as of the whole.
            let part = parse(&bytes[..end]);
            prop_assert!(part == Ok(None) || part == whole, "{:?} of {:?}", part, whole);
        }
    }
}
