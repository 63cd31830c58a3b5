//! Converts bytes that have arrived as a whole to text.
//!
//! Nearly all text is ASCII. Checking for ASCII takes a quarter of the time of a UTF-8 check, which took 160 of the
//! 3,400 instructions of a short call, and 140 of the 380 of decoding a short MQTT message. The `unsafe` blocks avoid a
//! second check.
#![allow(unsafe_code)]

use simdutf8::basic::from_utf8;

/// The bytes as text; `None` if they are not UTF-8.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Some(unsafe { str::from_utf8_unchecked(bytes) });
    }
    from_utf8(bytes).ok()
}

/// The bytes as text; `None` if they are not UTF-8, or contain one of `refused`, which are ASCII. One pass over the
/// bytes answers both.
#[inline]
pub(crate) fn text_without<const N: usize>(bytes: &[u8], refused: [u8; N]) -> Option<&str> {
    let mut seen = Seen::default();
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        seen.look_at(*word, refused);
    }
    if !rest.is_empty() {
        // The last eight bytes, some of them once more; or what there is, filled up with spaces.
        seen.look_at(
            bytes.last_chunk().copied().unwrap_or_else(|| filled_up(rest)),
            refused,
        );
    }
    if seen.refused & HIGH_BITS != 0 {
        return None;
    }
    if seen.all & HIGH_BITS == 0 {
        // SAFETY: no byte has its high bit set, so all are ASCII, which is UTF-8.
        return Some(unsafe { str::from_utf8_unchecked(bytes) });
    }
    from_utf8(bytes).ok()
}

/// What is known of the bytes so far.
#[derive(Default)]
struct Seen {
    /// All bytes, eight side by side, OR-ed.
    all: u64,
    /// Some high bit is set if a byte was refused.
    refused: u64,
}

impl Seen {
    #[inline]
    fn look_at<const N: usize>(&mut self, word: [u8; 8], refused: [u8; N]) {
        let word = u64::from_ne_bytes(word);
        self.all |= word;
        for byte in refused {
            // A byte of the difference is 0 exactly where `byte` stands. If one is, the high bit of the lowest becomes
            // 1; if none is, no high bit does. (Hacker's Delight, section 6-1.)
            let difference = word ^ (LOW_BITS * u64::from(byte));
            self.refused |= difference.wrapping_sub(LOW_BITS) & !difference;
        }
    }
}

/// Fewer than eight bytes, followed by spaces.
#[inline]
fn filled_up(bytes: &[u8]) -> [u8; 8] {
    let mut word = [b' '; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    word
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_the_standard_library_takes_for_it_wherever_a_byte_lies() {
        for length in 0..70 {
            for at in 0..length {
                for last in [0, 0x7f, 0x80, 0xc3, 0xff] {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = last;
                    assert_eq!(text(&bytes), str::from_utf8(&bytes).ok());
                }
                let mut bytes = vec![b'a'; length];
                bytes.splice(at..at, *"é".as_bytes().first_chunk::<2>().unwrap());
                assert_eq!(text(&bytes), str::from_utf8(&bytes).ok());
            }
        }
    }

    #[test]
    fn text_without_some_bytes_is_text_in_which_they_do_not_occur_wherever_a_byte_lies() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let is_refused = [0, b'+', b'#'].contains(&byte);
                    let expected = str::from_utf8(&bytes).ok().filter(|_| !is_refused);
                    assert_eq!(
                        text_without(&bytes, [0, b'+', b'#']),
                        expected,
                        "{byte} at {at} of {length}"
                    );
                    assert_eq!(text_without(&bytes, [0]).is_some(), byte != 0 && byte < 0x80);
                }
                let mut bytes = vec![b'a'; length];
                bytes.splice(at..at, *"é".as_bytes().first_chunk::<2>().unwrap());
                assert_eq!(text_without(&bytes, [0]), str::from_utf8(&bytes).ok());
            }
        }
    }
}
