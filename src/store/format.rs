//! The values of the database, as bytes. Each begins with the version of its form.
//!
//! ```text
//!   publication   1 | origin and kind 1 | payload length 4 | Unix ms 8 | frame …
//!   channel       1 | number 8 | kept after 8 | complete after 8
//!   will          1 | due, as Unix ms 8 | set, as Unix ms 8 | will …
//!   head          3 | state 1 | epoch 8 | ceiling 8 | unknown through 8 | removed through 8 | next number 8 | policies 8
//! ```
//! Retained publications and items of MQTT sessions have forms of their own (`retained/stored.rs`,
//! `mqtt/sessions/stored.rs`), which begin with a version, too. Numbers are little-endian. If the form of a value is
//! unknown, the reader gets `None`, and the store counts as damaged.
//!
//! Pure.

use super::records::KeptBounds;

/// A publication as the store keeps it: its facts, and the frame exactly as subscribers of its publisher's protocol get
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredPublication<'a> {
    /// When it was published, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// The kind of its payload and the protocol of its frame, as a number that only the caller interprets.
    pub(crate) form: u8,
    /// The length of the payload in the frame.
    pub(crate) payload_bytes: u32,
    /// The frame.
    pub(crate) frame: &'a [u8],
}

/// The number of a connection that has or had a will.
pub(crate) type Generation = [u8; 15];

/// A will as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredWill<'a> {
    /// When it is to be published, in milliseconds since 1970; `None` while its connection is open.
    pub(crate) due_unix_ms: Option<u64>,
    /// When it was set: of two connections of a session, the later one counts.
    pub(crate) set_unix_ms: u64,
    /// The will, in a form of the caller, which gets it back.
    pub(crate) will: &'a [u8],
}

impl<'a> StoredWill<'a> {
    /// How many bytes [`StoredWill::write`] appends.
    pub(crate) fn bytes(&self) -> usize {
        1 + 2 * size_of::<u64>() + self.will.len()
    }

    /// Appends the value of the database.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.due_unix_ms.unwrap_or(NOT_DUE).to_le_bytes());
        out.extend_from_slice(&self.set_unix_ms.to_le_bytes());
        out.extend_from_slice(self.will);
    }

    /// Reads a value of the database; `None` if it is not one.
    pub(crate) fn read(mut bytes: &'a [u8]) -> Option<StoredWill<'a>> {
        let version = *bytes.split_off_first()?;
        let due = u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
        let set_unix_ms = u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
        (version == VERSION).then_some(StoredWill {
            due_unix_ms: (due != NOT_DUE).then_some(due),
            set_unix_ms,
            will: bytes,
        })
    }
}

/// The stored due time of a will whose connection is open.
const NOT_DUE: u64 = u64::MAX;
/// The first form of a value.
const VERSION: u8 = 1;
/// The form of the head. Form 2 added the table of wills, form 3 the tables of retained publications and MQTT sessions.
/// A version of Ringcast that does not know a table would leave it as it is, and a later version would then publish old
/// wills or deliver old publications.
const HEAD_VERSION: u8 = 3;
/// Bytes of a publication before its frame.
const HEAD_BYTES: usize = 14;

impl<'a> StoredPublication<'a> {
    /// How many bytes [`StoredPublication::write`] appends.
    pub(crate) fn bytes(&self) -> usize {
        HEAD_BYTES + self.frame.len()
    }

    /// Appends the value of the database.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes());
        out.extend_from_slice(&[VERSION, self.form]);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.unix_ms.to_le_bytes());
        out.extend_from_slice(self.frame);
    }

    /// Reads a value of the database; `None` if it is not one.
    pub(crate) fn read(mut bytes: &'a [u8]) -> Option<StoredPublication<'a>> {
        let [version, form] = *bytes.split_off(..2)?.first_chunk()?;
        let payload_bytes = u32::from_le_bytes(*bytes.split_off(..4)?.first_chunk()?);
        let unix_ms = u64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?);
        let is_whole = version == VERSION && payload_bytes as usize <= bytes.len();
        is_whole.then_some(StoredPublication {
            unix_ms,
            form,
            payload_bytes,
            frame: bytes,
        })
    }
}

/// The entry of a channel, besides its publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredChannel {
    /// Its number in the keys of its publications.
    pub(crate) number: u64,
    /// The bounds of its publications.
    pub(crate) kept: KeptBounds,
}

impl StoredChannel {
    /// The value of the database.
    pub(crate) fn to_bytes(self) -> [u8; 25] {
        let mut bytes = [VERSION; 25];
        let numbers = [self.number, self.kept.after, self.kept.complete_after];
        for (place, number) in bytes[1..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads a value of the database; `None` if it is not one.
    pub(crate) fn read(bytes: &[u8]) -> Option<StoredChannel> {
        let [VERSION, numbers @ ..] = bytes else {
            return None;
        };
        let ([number, after, complete_after], []) = numbers.as_chunks() else {
            return None;
        };
        Some(StoredChannel {
            number: u64::from_le_bytes(*number),
            kept: KeptBounds {
                after: u64::from_le_bytes(*after),
                complete_after: u64::from_le_bytes(*complete_after),
            },
        })
    }
}

/// The numbering, and the state of all channels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredHead {
    /// How the last process left the store.
    pub(crate) state: State,
    /// The epoch of the numbering.
    pub(crate) epoch: [u8; 8],
    /// No publication has a higher offset: the next process begins here.
    pub(crate) ceiling: u64,
    /// Publications up to this offset may be missing from any channel.
    pub(crate) unknown_through: u64,
    /// Publications up to this offset may be missing from any channel that is not in the store, since it has removed
    /// some.
    pub(crate) removed_through: u64,
    /// The number of the next new channel.
    pub(crate) next_number: u64,
    /// A fingerprint of the channel policies that were in force: under other policies, other channels were remembered.
    pub(crate) policies: u64,
}

/// How the last process left the store, or that a process is using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has committed everything.
    Clean = 0,
    /// It did not end in order, and acknowledged publications before they were committed.
    Relaxed = 1,
    /// It did not end in order, and acknowledged publications only after they were committed.
    Strict = 2,
}

impl StoredHead {
    /// The value of the database.
    pub(crate) fn to_bytes(self) -> [u8; 50] {
        let mut bytes = [HEAD_VERSION; 50];
        bytes[1] = self.state as u8;
        bytes[2..10].copy_from_slice(&self.epoch);
        let numbers = [
            self.ceiling,
            self.unknown_through,
            self.removed_through,
            self.next_number,
            self.policies,
        ];
        for (place, number) in bytes[10..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads a value of the database; `None` if it is not one.
    pub(crate) fn read(bytes: &[u8]) -> Option<StoredHead> {
        let [VERSION..=HEAD_VERSION, state, rest @ ..] = bytes else {
            return None;
        };
        let (
            [
                epoch,
                ceiling,
                unknown_through,
                removed_through,
                next_number,
                policies,
            ],
            [],
        ) = rest.as_chunks()
        else {
            return None;
        };
        let state = match state {
            0 => State::Clean,
            1 => State::Relaxed,
            2 => State::Strict,
            _ => return None,
        };
        Some(StoredHead {
            state,
            epoch: *epoch,
            ceiling: u64::from_le_bytes(*ceiling),
            unknown_through: u64::from_le_bytes(*unknown_through),
            removed_through: u64::from_le_bytes(*removed_through),
            next_number: u64::from_le_bytes(*next_number),
            policies: u64::from_le_bytes(*policies),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A publication with a frame of its own.
    #[derive(Clone, Debug)]
    pub(in crate::store) struct Owned {
        unix_ms: u64,
        form: u8,
        payload_bytes: u32,
        frame: Vec<u8>,
    }

    impl Owned {
        pub(in crate::store) fn borrowed(&self) -> StoredPublication<'_> {
            StoredPublication {
                unix_ms: self.unix_ms,
                form: self.form,
                payload_bytes: self.payload_bytes,
                frame: &self.frame,
            }
        }
    }

    pub(in crate::store) fn any_publication() -> impl Strategy<Value = Owned> {
        (any::<u64>(), any::<u8>(), vec(any::<u8>(), 0..40), 0..=100_usize).prop_map(
            |(unix_ms, form, frame, share)| Owned {
                unix_ms,
                form,
                payload_bytes: u32::try_from(frame.len() * share / 100).unwrap(),
                frame,
            },
        )
    }

    proptest! {
        #[test]
        fn values_are_read_as_they_were_written_and_cut_or_unknown_ones_are_not(
            publication in any_publication(), number: u64, kept_after: u64
        ) {
            let publication = publication.borrowed();
            let mut bytes = Vec::new();
            publication.write(&mut bytes);
            prop_assert_eq!(bytes.len(), publication.bytes());
            prop_assert_eq!(StoredPublication::read(&bytes), Some(publication));
            for cut in 0..HEAD_BYTES + publication.payload_bytes as usize {
                prop_assert_eq!(StoredPublication::read(&bytes[..cut]), None);
            }
            bytes[0] += 1;
            prop_assert_eq!(StoredPublication::read(&bytes), None);

            let head = StoredHead {
                state: State::Strict,
                epoch: *b"k3j9x0ab",
                ceiling: number,
                unknown_through: kept_after,
                removed_through: number / 2,
                next_number: !number,
                policies: !kept_after,
            };
            let mut bytes = head.to_bytes();
            prop_assert_eq!(StoredHead::read(&bytes), Some(head));
            prop_assert_eq!(StoredHead::read(&bytes[..49]), None);
            bytes[1] = 3;
            prop_assert_eq!(StoredHead::read(&bytes), None);

            let kept = KeptBounds { after: kept_after, complete_after: !number };
            let channel = StoredChannel { number, kept };
            let mut bytes = channel.to_bytes();
            prop_assert_eq!(StoredChannel::read(&bytes), Some(channel));
            prop_assert_eq!(StoredChannel::read(&bytes[..24]), None);
            bytes[0] += 1;
            prop_assert_eq!(StoredChannel::read(&bytes), None);
        }
    }

    #[test]
    fn heads_of_earlier_versions_are_read_and_heads_of_later_versions_are_not() {
        let head = StoredHead {
            state: State::Clean,
            epoch: *b"k3j9x0ab",
            ceiling: 7,
            unknown_through: 1,
            removed_through: 2,
            next_number: 3,
            policies: 4,
        };
        let mut bytes = head.to_bytes();
        for version in VERSION..=HEAD_VERSION {
            bytes[0] = version;
            assert_eq!(StoredHead::read(&bytes), Some(head), "{version}");
        }
        bytes[0] = HEAD_VERSION + 1;
        assert_eq!(StoredHead::read(&bytes), None);
    }

    #[test]
    fn the_bytes_on_disk_are_those_of_version_one() {
        let publication = StoredPublication {
            unix_ms: 0x0102,
            form: 3,
            payload_bytes: 2,
            frame: b"frame",
        };
        let mut bytes = Vec::new();
        publication.write(&mut bytes);
        assert_eq!(bytes, b"\x01\x03\x02\0\0\0\x02\x01\0\0\0\0\0\0frame");
        let channel = StoredChannel {
            number: 7,
            kept: KeptBounds {
                after: 9,
                complete_after: 10,
            },
        };
        assert_eq!(
            channel.to_bytes(),
            *b"\x01\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0"
        );
    }
}
