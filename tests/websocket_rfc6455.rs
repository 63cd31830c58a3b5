//! Compares how the reference server's WebSocket engine and Ringcast treat legal, illegal and truncated frames.
//!
//! Each line of `data/websocket-frames.txt` has the bytes of one connection in hex, and the result of the receiver in
//! the npm package `ws` 8.23: its events, and the close code of the error that ended it. The receiver allowed at most
//! 1000 bytes and 4 fragments per message.

use ringcast::internals::websocket::{CloseFrame, Limits, Received, Receiver, Step};

const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
    frame_bytes_max: 1000,
    fragments_max: 4,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs
        .iter()
        .map(|pair| byte(pair).expect("two hexadecimal digits"))
        .collect()
}

/// Our result for the bytes, in the words of the data file.
fn words(bytes: &mut [u8]) -> Vec<String> {
    let mut receiver = Receiver::new();
    let mut words = Vec::new();
    let mut rest = bytes;
    loop {
        let step = match receiver.receive(rest, &LIMITS) {
            Ok(step) => step,
            Err(reason) => {
                words.push(format!(
                    "error:{}",
                    reason.code().expect("a receiver's errors have codes").as_u16()
                ));
                return words;
            }
        };
        let Step::Message { received, consumed } = step else {
            return words;
        };
        words.push(match received {
            Received::Text(text) => format!("text:{}", hex(text.as_bytes())),
            Received::Binary(bytes) => format!("binary:{}", hex(bytes)),
            Received::Ping(payload) => format!("ping:{}", hex(payload)),
            Received::Pong => "pong".to_owned(),
            Received::Close(CloseFrame { code: None, .. }) => {
                words.push("close".to_owned());
                return words;
            }
            Received::Close(CloseFrame {
                code: Some(code),
                reason,
            }) => {
                words.push(format!("close:{}:{}", code.as_u16(), hex(reason.as_bytes())));
                return words;
            }
        });
        rest = &mut rest[consumed..];
    }
}

#[test]
fn frames_give_the_same_result_as_in_the_reference() {
    let mut lines = 0;
    for line in include_str!("data/websocket-frames.txt").lines() {
        let (bytes, expected) = line.split_once(' ').expect("bytes, then words");
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let ours = words(&mut unhex(bytes));
        // The reference checks text when the message is complete, and counts a fragment when it is complete; Ringcast
        // does so when the bytes, or the header, arrive. So Ringcast may stop where the reference goes on or still
        // waits.
        let (last, before) = ours
            .split_last()
            .map_or(("", &ours[..]), |(last, before)| (last, before));
        let stopped_early = match last {
            "error:1007" => expected.len() >= before.len() && before == &expected[..before.len()],
            "error:1008" => before == expected,
            _ => false,
        };
        assert!(
            ours == expected || stopped_early,
            "{bytes}: {ours:?}, reference {expected:?}"
        );
        lines += 1;
    }
    assert!(lines >= 300);
}
