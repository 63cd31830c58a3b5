//! Joins the bytes of one connection to whole packets.
//!
//! In: bytes of a stream, or the payloads of binary messages of a WebSocket, one after the other (section
//! 6.0: a packet may span several, and one may hold several packets). Out: one packet at a time. It borrows
//! from the input, or from the memory that the receiver keeps for a packet that did not come in one piece.
//!
//! A WebSocket message is consumed as a whole. If the core stops in its middle, since a connection has used
//! up its share of a turn or is over its rate, the receiver keeps the rest ([`Receiver::keep`]), and the core
//! takes it first when it goes on.
//!
//! Invariants
//! 1. A connection without an unfinished packet owns one null pointer: the memory of a kept packet is freed
//!    by the call after the one that returned it.
//! 2. The memory grows with the bytes that have come, not with the length that a header announces. The length
//!    is checked when the header is complete.
//! 3. The packets and faults do not depend on the places where the input is cut.

use std::ops::Range;

use super::fault::Fault;
use super::frame::{Frame, frame, packet_len};
use crate::decision::CloseReason;
use crate::wipe::wipe_and_drop;

/// The receiving half of one connection.
#[derive(Debug, Default)]
pub struct Receiver {
    kept: Option<Box<Kept>>,
}

/// The result of reading from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// One packet. The caller goes on with the input after `consumed`.
    Packet {
        /// Its first byte: the type and the flags.
        first: u8,
        /// The bytes behind the fixed header.
        body: &'a [u8],
        /// Number of input bytes that are not needed any more.
        consumed: usize,
    },
    /// The input holds no further packet. All of it has been taken.
    Incomplete,
}

/// Received bytes that are kept, since they are not a whole packet of the input.
#[derive(Debug, Default)]
struct Kept {
    /// An incomplete packet, with its fixed header.
    packet: Vec<u8>,
    /// Whether that packet is complete and has been handed out.
    is_handed_out: bool,
    /// The rest of a WebSocket message.
    rest: Vec<u8>,
    /// How much of `rest` has been taken.
    taken: usize,
}

/// The place of a packet, without borrowing it.
enum Found {
    InInput { first: u8, body: Range<usize> },
    Kept { first: u8, body: Range<usize> },
    Nothing,
}

impl Receiver {
    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.kept
            .as_ref()
            .map_or(0, |kept| kept.packet.len() + kept.rest.len() - kept.taken)
    }

    /// Whether the rest of a WebSocket message is kept, which may hold whole packets.
    #[inline]
    pub fn has_rest(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.rest.is_empty())
    }

    /// Takes the rest of a WebSocket message, and how much of it was already taken, for one or several calls
    /// of [`Receiver::receive`]. [`Receiver::put_back`] gives it back.
    pub fn take_rest(&mut self) -> (Vec<u8>, usize) {
        match &mut self.kept {
            Some(kept) => (std::mem::take(&mut kept.rest), std::mem::take(&mut kept.taken)),
            None => (Vec::new(), 0),
        }
    }

    /// Gives the rest of a WebSocket message back, of which `taken` bytes have been taken.
    pub fn put_back(&mut self, rest: Vec<u8>, taken: usize) {
        if taken < rest.len() {
            let kept = self.kept.get_or_insert_default();
            (kept.rest, kept.taken) = (rest, taken);
        } else {
            wipe_and_drop(rest);
        }
    }

    /// Keeps the rest of a WebSocket message.
    pub fn keep(&mut self, rest: &[u8]) {
        self.put_back(rest.to_vec(), 0);
    }

    /// Makes the next call return the packet that was handed out last once more, if it was kept here. Returns
    /// whether it was; if not, the caller passes the same input again.
    pub fn hand_out_again(&mut self) -> bool {
        match &mut self.kept {
            Some(kept) => std::mem::take(&mut kept.is_handed_out),
            None => false,
        }
    }

    /// Whether a whole packet waits here.
    pub fn has_packet(&self) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| !kept.is_handed_out && is_whole(&kept.packet))
    }

    /// Reads one packet from the input. `packet_bytes_max` bounds its size with the fixed header.
    ///
    /// # Errors
    /// The header cannot be read, or announces too many bytes. Do not call it again afterwards.
    #[inline]
    pub fn receive<'a>(&'a mut self, input: &'a [u8], packet_bytes_max: usize) -> Result<Step<'a>, Fault> {
        let (found, consumed) = self.advance(input, packet_bytes_max)?;
        Ok(match found {
            Found::InInput { first, body } => Step::Packet {
                first,
                body: &input[body],
                consumed,
            },
            Found::Kept { first, body } => {
                let kept = self.kept.as_ref().expect("a packet was completed just now");
                Step::Packet {
                    first,
                    body: &kept.packet[body],
                    consumed,
                }
            }
            Found::Nothing => Step::Incomplete,
        })
    }

    #[inline]
    fn advance(&mut self, input: &[u8], packet_bytes_max: usize) -> Result<(Found, usize), Fault> {
        self.forget_handed_out();
        if self.kept.as_ref().is_none_or(|kept| kept.packet.is_empty()) {
            match frame(input, packet_bytes_max)? {
                Frame::Whole { first, body, length } => return Ok((Found::InInput { first, body }, length)),
                Frame::Incomplete if input.is_empty() => return Ok((Found::Nothing, 0)),
                Frame::Incomplete => {}
            }
        }
        self.complete(input, packet_bytes_max)
    }

    /// Adds input to the incomplete packet.
    #[cold]
    fn complete(&mut self, input: &[u8], packet_bytes_max: usize) -> Result<(Found, usize), Fault> {
        let kept = self.kept.get_or_insert_default();
        let mut consumed = 0;
        let length = loop {
            match announced(&kept.packet, packet_bytes_max)? {
                Some(length) => break length,
                None => {
                    let Some(&byte) = input.get(consumed) else {
                        return Ok((Found::Nothing, consumed));
                    };
                    kept.packet.push(byte);
                    consumed += 1;
                }
            }
        };
        let more = (length - kept.packet.len()).min(input.len() - consumed);
        append(&mut kept.packet, &input[consumed..consumed + more]);
        consumed += more;
        match frame(&kept.packet, packet_bytes_max)? {
            Frame::Whole { first, body, .. } => {
                kept.is_handed_out = true;
                Ok((Found::Kept { first, body }, consumed))
            }
            Frame::Incomplete => Ok((Found::Nothing, consumed)),
        }
    }

    fn forget_handed_out(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        if kept.is_handed_out {
            kept.is_handed_out = false;
            wipe_and_drop(std::mem::take(&mut kept.packet));
        }
        if kept.packet.is_empty() && kept.rest.is_empty() {
            self.kept = None;
        }
    }
}

/// The reason to close a connection whose input cannot be read.
pub fn close_reason(fault: Fault) -> CloseReason {
    match fault {
        Fault::Malformed => CloseReason::MalformedMqtt,
        Fault::TooLarge => CloseReason::MessageTooBig,
        Fault::Protocol | Fault::TopicAlias => CloseReason::MqttProtocolError,
        Fault::OtherProtocol => CloseReason::NotMqtt,
        Fault::UnsupportedVersion => CloseReason::MqttRefused,
    }
}

impl Drop for Kept {
    /// Wipes the bytes: a CONNECT packet holds a password.
    fn drop(&mut self) {
        wipe_and_drop(std::mem::take(&mut self.packet));
        wipe_and_drop(std::mem::take(&mut self.rest));
    }
}

/// The size of the packet that begins with these bytes; `None` if its fixed header is not complete.
fn announced(begun: &[u8], packet_bytes_max: usize) -> Result<Option<usize>, Fault> {
    // `frame` checks the bytes of the header that have come.
    if let Frame::Whole { length, .. } = frame(begun, packet_bytes_max)? {
        return Ok(Some(length));
    }
    Ok(packet_len(begun))
}

fn is_whole(packet: &[u8]) -> bool {
    announced(packet, usize::MAX).is_ok_and(|length| length == Some(packet.len()))
}

/// Appends bytes that may be a part of a password: the former buffer is wiped when the bytes move.
fn append(packet: &mut Vec<u8>, bytes: &[u8]) {
    if packet.capacity() - packet.len() < bytes.len() {
        let mut larger = Vec::with_capacity((2 * packet.capacity()).max(packet.len() + bytes.len()));
        larger.extend_from_slice(packet);
        wipe_and_drop(std::mem::replace(packet, larger));
    }
    packet.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 200;

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let mut length = body.len();
        loop {
            let low = u8::try_from(length & 0x7f).unwrap();
            length >>= 7;
            bytes.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        bytes.extend_from_slice(body);
        bytes
    }

    /// The packets of the input when it comes in these pieces, and the fault that ends it.
    fn received<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, Option<Fault>) {
        let mut receiver = Receiver::default();
        let mut packets = Vec::new();
        for mut piece in pieces {
            loop {
                match receiver.receive(piece, MAX) {
                    Ok(Step::Packet {
                        first,
                        body,
                        consumed,
                    }) => {
                        packets.push((first, body.to_vec()));
                        piece = &piece[consumed..];
                    }
                    Ok(Step::Incomplete) => break,
                    Err(fault) => return (packets, Some(fault)),
                }
            }
        }
        assert!(receiver.kept.is_none() || receiver.bytes() > 0);
        (packets, None)
    }

    fn stream() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let packets = vec![
            (0x10, vec![1; 12]),
            (0xc0, vec![]),
            (0x30, vec![7; 150]),
            (0x30, vec![8; 127]),
            (0x30, vec![9; 128]),
            (0xe0, vec![]),
        ];
        let bytes = packets.iter().flat_map(|(first, body)| packet(*first, body));
        (bytes.collect(), packets)
    }

    #[test]
    fn the_packets_do_not_depend_on_where_the_input_is_cut() {
        let (bytes, packets) = stream();
        for size in 1..=bytes.len() {
            assert_eq!(received(bytes.chunks(size)), (packets.clone(), None), "{size}");
        }
        for at in 0..bytes.len() {
            let (before, behind) = bytes.split_at(at);
            assert_eq!(
                received([before, &[], behind].into_iter()),
                (packets.clone(), None),
                "{at}"
            );
        }
    }

    #[test]
    fn a_packet_that_is_too_large_is_refused_by_its_header_alone() {
        let fits = packet(0x30, &[0; MAX - 3]);
        assert_eq!(received([&fits[..]].into_iter()).1, None);
        let header = &packet(0x30, &[0; MAX - 2])[..3];
        for size in 1..=3 {
            let (packets, fault) = received(header.chunks(size));
            assert_eq!((packets.len(), fault), (0, Some(Fault::TooLarge)), "{size}");
        }
        let endless = [0x30, 0xff, 0xff, 0xff, 0xff, 0x7f];
        for size in 1..=6 {
            assert_eq!(received(endless.chunks(size)).1, Some(Fault::Malformed), "{size}");
        }
    }

    #[test]
    fn the_memory_grows_with_what_has_come_and_is_freed_with_the_packet() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(&[0x30, 100], MAX), Ok(Step::Incomplete));
        assert_eq!(receiver.bytes(), 2);
        assert_eq!(receiver.receive(&[5; 99], MAX), Ok(Step::Incomplete));
        assert!(matches!(
            receiver.receive(&[6, 0xc0], MAX),
            Ok(Step::Packet { first: 0x30, body, consumed: 1 }) if body.len() == 100
        ));
        assert!(matches!(
            receiver.receive(&[0xc0, 0], MAX),
            Ok(Step::Packet { first: 0xc0, .. })
        ));
        assert!(receiver.kept.is_none());
    }

    #[test]
    fn a_packet_comes_again_on_request() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.receive(&[0x30, 2, 1], MAX), Ok(Step::Incomplete));
        for _ in 0..3 {
            assert!(!receiver.has_packet() || receiver.bytes() == 4);
            let step = receiver.receive(if receiver.bytes() < 4 { &[2] } else { &[] }, MAX);
            assert!(matches!(step, Ok(Step::Packet { body: [1, 2], .. })));
            assert!(receiver.hand_out_again() && receiver.has_packet());
        }
    }

    #[test]
    fn the_rest_of_a_message_is_kept_until_it_is_taken() {
        let mut receiver = Receiver::default();
        receiver.keep(&[]);
        assert!(!receiver.has_rest() && receiver.kept.is_none());
        receiver.keep(&[0xc0, 0, 0xc0, 0]);
        let (rest, taken) = receiver.take_rest();
        let step = receiver.receive(&rest[taken..], MAX);
        assert!(matches!(step, Ok(Step::Packet { consumed: 2, .. })));
        receiver.put_back(rest, taken + 2);
        assert!(receiver.has_rest() && receiver.bytes() == 2);
        let (rest, taken) = receiver.take_rest();
        assert_eq!((&rest[taken..], receiver.bytes()), (&[0xc0, 0][..], 0));
        receiver.put_back(rest, 4);
        assert!(!receiver.has_rest());
    }
}
