//! Positions: the places of publications in the order, as clients know them.
//!
//! The place of a publication is its [`Sequence`], which begins at 1 in each process. A client may know a
//! publication of an earlier process. So a position is an offset with the name of its numbering: the epoch.
//! Offsets of different epochs cannot be compared.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::publication::Sequence;

/// The name of a numbering: eight characters of `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Epoch([u8; Epoch::BYTES]);

impl Epoch {
    /// The length of each epoch.
    pub const BYTES: usize = 8;

    /// The epoch with this text; `None` if there is none.
    pub fn from_text(text: &[u8]) -> Option<Epoch> {
        let bytes: [u8; Epoch::BYTES] = text.try_into().ok()?;
        bytes
            .iter()
            .all(|byte| CHARACTERS.contains(byte))
            .then_some(Epoch(bytes))
    }

    /// Its text, as bytes.
    pub const fn as_bytes(&self) -> &[u8; Epoch::BYTES] {
        &self.0
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("every character is ASCII")
    }

    /// A random epoch. There are 2.8 million million, so an earlier process has hardly had the same one.
    fn random() -> Epoch {
        // The standard library keys its own tables with random numbers of the system.
        let mut number = RandomState::new().hash_one(0);
        Epoch(std::array::from_fn(|_| {
            let digit = number % CHARACTERS.len() as u64;
            number /= CHARACTERS.len() as u64;
            #[expect(clippy::cast_possible_truncation, reason = "it is below 36")]
            CHARACTERS[digit as usize]
        }))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The place of a publication in the order of all publications of one numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The numbering.
    pub epoch: Epoch,
    /// The place in it. The offsets of a channel's publications rise, with gaps.
    pub offset: u64,
}

/// How positions are made of sequences. It is chosen once, at the start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The name of the numbering.
    pub epoch: Epoch,
    /// This plus the sequence of a publication is the publication's offset.
    pub base: u64,
}

impl Numbering {
    /// A new numbering, which begins with this process.
    pub fn new() -> Numbering {
        Numbering {
            epoch: Epoch::random(),
            base: 0,
        }
    }

    /// The offset of a publication.
    pub fn offset(&self, sequence: Sequence) -> u64 {
        self.base + sequence.as_u64()
    }

    /// The position of a publication.
    pub fn position(&self, sequence: Sequence) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.offset(sequence),
        }
    }
}

impl Numbering {
    /// The position right before a place: a client at this position has got every publication before the
    /// place.
    pub fn position_before(&self, place: Sequence) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.offset(place) - 1,
        }
    }
}

impl Default for Numbering {
    fn default() -> Numbering {
        Numbering::new()
    }
}

const CHARACTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_eight_characters_and_each_process_has_its_own() {
        let (one, other) = (Epoch::random(), Epoch::random());
        assert_ne!(one, other);
        assert_eq!(Epoch::from_text(one.as_str().as_bytes()), Some(one));
        for text in ["", "1234567", "123456789", "1234567A", "1234567\"", "1234567ä"] {
            assert_eq!(Epoch::from_text(text.as_bytes()), None, "{text}");
        }
    }
}
