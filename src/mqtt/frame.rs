//! The fixed header: where the packet at the start of the input ends. Section 2.1.

use std::ops::Range;

use super::fault::Fault;

/// The largest remaining length that four bytes can say (section 1.5.5).
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// The largest size of a packet: first byte, four bytes of remaining length, and the bytes that these announce.
pub const PACKET_BYTES_MAX: usize = 5 + REMAINING_LENGTH_MAX;

/// The packet at the start of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole packet.
    Whole {
        /// The first byte: the type of the packet and its flags.
        first: u8,
        /// Where the bytes behind the fixed header are.
        body: Range<usize>,
        /// The size of the packet with its fixed header.
        length: usize,
    },
    /// The beginning of a packet, or nothing.
    Incomplete,
}

/// Finds the packet at the start of `input`. `packet_bytes_max` bounds its size with the fixed header.
///
/// A remaining length in more bytes than it needs is accepted: MQTT 3.1.1 does not forbid it, and MQTT 5 (MQTT-1.5.5-1)
/// forbids the sender to write it.
///
/// # Errors
/// `Malformed` for packet type 0 and for a remaining length of more than four bytes, `TooLarge` as soon as the
/// announced size is known.
#[inline]
pub fn frame(input: &[u8], packet_bytes_max: usize) -> Result<Frame, Fault> {
    let Some(&first) = input.first() else {
        return Ok(Frame::Incomplete);
    };
    if first < 0x10 {
        return Err(Fault::Malformed); // type 0 is reserved
    }
    let Some((remaining, bytes)) = variable(&input[1..])? else {
        return Ok(Frame::Incomplete);
    };
    let start = 1 + bytes;
    let length = start + remaining as usize;
    if length > packet_bytes_max {
        return Err(Fault::TooLarge);
    }
    if length > input.len() {
        return Ok(Frame::Incomplete);
    }
    let body = start..length;
    Ok(Frame::Whole { first, body, length })
}

/// Reads a variable byte integer (section 1.5.5): its value and its size; `None` if it is not complete.
#[inline]
pub(super) fn variable(input: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() < 4 {
        Ok(None)
    } else {
        Err(Fault::Malformed)
    }
}

/// The size of the packet at the beginning of these bytes; `None` if its fixed header is not complete, or wrong.
#[inline]
pub(crate) fn packet_len(bytes: &[u8]) -> Option<usize> {
    let (remaining, size) = variable(bytes.get(1..)?).ok()??;
    Some(1 + size + remaining as usize)
}

/// How many bytes a variable byte integer takes.
#[inline]
pub(super) const fn variable_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::properties::put_variable;

    fn packet(remaining: usize) -> Vec<u8> {
        let mut bytes = vec![0x30];
        put_variable(&mut bytes, remaining);
        bytes.resize(bytes.len() + remaining, b'x');
        bytes
    }

    #[test]
    fn a_packet_is_whole_with_its_last_byte_and_not_before() {
        for remaining in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let bytes = packet(remaining);
            let header = 1 + variable_bytes(remaining);
            assert_eq!(bytes.len(), header + remaining);
            let whole = Frame::Whole {
                first: 0x30,
                body: header..bytes.len(),
                length: bytes.len(),
            };
            assert_eq!(frame(&bytes, PACKET_BYTES_MAX), Ok(whole.clone()));
            let mut two = bytes.clone();
            two.extend_from_slice(&[0xc0, 0]);
            assert_eq!(
                frame(&two, PACKET_BYTES_MAX),
                Ok(whole),
                "the packet behind it does not matter"
            );
            for cut in (0..header)
                .chain([bytes.len() - 1])
                .filter(|cut| *cut < bytes.len())
            {
                assert_eq!(
                    frame(&bytes[..cut], PACKET_BYTES_MAX),
                    Ok(Frame::Incomplete),
                    "{remaining} at {cut}"
                );
            }
        }
    }

    #[test]
    fn the_size_of_a_packet_counts_with_its_fixed_header_as_soon_as_it_is_announced() {
        let bytes = packet(200);
        assert_eq!(bytes.len(), 203);
        assert_eq!(frame(&bytes[..3], 202), Err(Fault::TooLarge));
        assert_eq!(frame(&bytes[..2], 202), Ok(Frame::Incomplete));
        assert_eq!(frame(&bytes[..3], 203), Ok(Frame::Incomplete));
        assert!(matches!(frame(&bytes, 203), Ok(Frame::Whole { length: 203, .. })));
        assert_eq!(
            frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], PACKET_BYTES_MAX),
            Ok(Frame::Incomplete)
        );
        assert_eq!(
            frame(&[0x30, 0xff, 0xff, 0xff, 0x7f], PACKET_BYTES_MAX - 1),
            Err(Fault::TooLarge)
        );
    }

    #[test]
    fn type_0_and_a_remaining_length_of_five_bytes_are_malformed() {
        for first in 0..0x10 {
            assert_eq!(frame(&[first], PACKET_BYTES_MAX), Err(Fault::Malformed));
        }
        assert_eq!(
            frame(&[0x30, 0x80, 0x80, 0x80], PACKET_BYTES_MAX),
            Ok(Frame::Incomplete)
        );
        assert_eq!(
            frame(&[0x30, 0x80, 0x80, 0x80, 0x80], PACKET_BYTES_MAX),
            Err(Fault::Malformed)
        );
        let longer_than_needed = frame(&[0xc0, 0x80, 0x80, 0x80, 0x00], PACKET_BYTES_MAX);
        assert_eq!(
            longer_than_needed,
            Ok(Frame::Whole {
                first: 0xc0,
                body: 5..5,
                length: 5
            })
        );
    }
}
