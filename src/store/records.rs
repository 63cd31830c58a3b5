//! Records: changes that cores send to the store, in order, many of them in one buffer.
//!
//! ```text
//!   kind 1 | channel length 4 | channel … | offset 8 | kept after 8 | complete after 8 | publication length 4 | publication …
//!   kind 1 | 15 4 | generation … | 0 8 | will length 4 | will …
//!   kind 1 | topic length 4 | topic … | 0 8 | value length 4 | value …
//!   kind 1 | client id length 4 | client id … | 0 8 | item length 4 | item … | value length 4 | value …
//!   kind 1 | 0 4 | number of a publication 8 | content length 4 | content …
//! ```
//! A core appends to a [`Batch`] without an allocation for each record, and sends the whole batch. The buffer never
//! leaves the process; [`format`](super::format) describes the bytes on disk.
//!
//! Pure. Invariant: a channel's name and a stored publication are shorter than 4 GiB each, as in
//! `broker/publication.rs`.

use super::format::{Generation, StoredPublication, StoredWill};
use crate::history::Change;

/// One change that a core sends to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A publication of a channel that is to be remembered.
    Publication {
        /// The channel's name.
        channel: &'a [u8],
        /// The offset of the publication.
        offset: u64,
        /// What the channel keeps.
        kept: KeptBounds,
        /// The publication.
        publication: StoredPublication<'a>,
    },
    /// Publications of a channel are forgotten; the channel is known further on.
    Forgotten {
        /// The channel's name.
        channel: &'a [u8],
        /// What the channel keeps.
        kept: KeptBounds,
    },
    /// The channel is forgotten: its publications, and the offset at which its history begins.
    Removed {
        /// The channel's name.
        channel: &'a [u8],
        /// The highest offset that the channel may have had.
        through: u64,
    },
    /// A channel that the store does not have may have had publications up to an offset.
    UnknownChannels {
        /// The offset.
        through: u64,
    },
    /// The will of a connection; it replaces the former one.
    Will {
        /// The connection.
        generation: &'a Generation,
        /// The will.
        will: StoredWill<'a>,
    },
    /// A connection has no will any more.
    WillGone {
        /// The connection.
        generation: &'a Generation,
    },
    /// The retained publication of a topic.
    Retained {
        /// The topic.
        topic: &'a [u8],
        /// The publication, in a form of the caller; `None` if the topic has none any more.
        value: Option<&'a [u8]>,
    },
    /// An item of an MQTT session.
    SessionItem {
        /// The client id of the session.
        client_id: &'a [u8],
        /// The name of the item, in a form of the caller.
        item: &'a [u8],
        /// The item, in a form of the caller.
        value: &'a [u8],
        /// Whether the item was never stored, so that nothing is written if it is removed before the commit.
        is_new: bool,
    },
    /// An item of an MQTT session is removed.
    SessionItemGone {
        /// The client id of the session.
        client_id: &'a [u8],
        /// The name of the item.
        item: &'a [u8],
    },
    /// An MQTT session has ended: all its items are gone.
    SessionGone {
        /// The client id of the session.
        client_id: &'a [u8],
    },
    /// One more item refers to a publication.
    Held {
        /// The number of the publication.
        number: u64,
        /// The publication, in a form of the caller; empty if an earlier record of this core had it.
        content: &'a [u8],
    },
    /// One item less refers to a publication: without an item, the publication is removed.
    Released {
        /// The number of the publication.
        number: u64,
    },
    /// Publications up to an offset may be missing from the history of any channel.
    Unknown {
        /// The highest offset that may be missing.
        through: u64,
    },
}

/// The offsets that bound the publications of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptBounds {
    /// The channel keeps publications with higher offsets.
    pub(crate) after: u64,
    /// All publications after this offset are among them. It is higher than `after` if only the last value is left of a
    /// history.
    pub(crate) complete_after: u64,
}

const PUBLICATION: u8 = 1;
const FORGOTTEN: u8 = 2;
const REMOVED: u8 = 3;
const UNKNOWN: u8 = 4;
const UNKNOWN_CHANNELS: u8 = 5;
const WILL: u8 = 6;
const WILL_GONE: u8 = 7;
const RETAINED: u8 = 8;
const RETAINED_GONE: u8 = 9;
const SESSION_ITEM: u8 = 10;
const NEW_SESSION_ITEM: u8 = 11;
const SESSION_ITEM_GONE: u8 = 12;
const SESSION_GONE: u8 = 13;
const HELD: u8 = 14;
const RELEASED: u8 = 15;

/// Records in one buffer, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    count: u64,
    /// The highest offset of the records.
    through: u64,
}

impl Batch {
    /// Appends a record; copies its bytes.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        self.count += 1;
        self.through = self.through.max(record.offset());
        match *record {
            Record::Publication {
                channel,
                offset,
                kept,
                publication,
            } => {
                self.head(PUBLICATION, channel, offset);
                self.bytes.extend_from_slice(&kept.complete_after.to_le_bytes());
                self.bytes.extend_from_slice(&kept.after.to_le_bytes());
                self.bytes.extend_from_slice(&length(publication.bytes()));
                publication.write(&mut self.bytes);
            }
            Record::Forgotten { channel, kept } => {
                self.head(FORGOTTEN, channel, kept.complete_after);
                self.bytes.extend_from_slice(&kept.after.to_le_bytes());
            }
            Record::Removed { channel, through } => self.head(REMOVED, channel, through),
            Record::Will { generation, will } => {
                self.head(WILL, generation, 0);
                self.bytes.extend_from_slice(&length(will.bytes()));
                will.write(&mut self.bytes);
            }
            Record::WillGone { generation } => self.head(WILL_GONE, generation, 0),
            Record::Retained {
                topic,
                value: Some(value),
            } => {
                self.head(RETAINED, topic, 0);
                self.sized(value);
            }
            Record::Retained { topic, value: None } => self.head(RETAINED_GONE, topic, 0),
            Record::SessionItem {
                client_id,
                item,
                value,
                is_new,
            } => {
                let kind = if is_new { NEW_SESSION_ITEM } else { SESSION_ITEM };
                self.head(kind, client_id, 0);
                self.sized(item);
                self.sized(value);
            }
            Record::SessionItemGone { client_id, item } => {
                self.head(SESSION_ITEM_GONE, client_id, 0);
                self.sized(item);
            }
            Record::SessionGone { client_id } => self.head(SESSION_GONE, client_id, 0),
            Record::Held { number, content } => {
                self.head(HELD, b"", number);
                self.sized(content);
            }
            Record::Released { number } => self.head(RELEASED, b"", number),
            Record::Unknown { through } => self.head(UNKNOWN, b"", through),
            Record::UnknownChannels { through } => self.head(UNKNOWN_CHANNELS, b"", through),
        }
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&length(bytes.len()));
        self.bytes.extend_from_slice(bytes);
    }

    fn head(&mut self, kind: u8, channel: &[u8], offset: u64) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length(channel.len()));
        self.bytes.extend_from_slice(channel);
        self.bytes.extend_from_slice(&offset.to_le_bytes());
    }

    /// The bytes of all records.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The highest offset of the records.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// The records, in the order in which they were pushed.
    pub(crate) fn records(&self) -> Records<'_> {
        Records { rest: &self.bytes }
    }
}

impl Record<'_> {
    fn offset(&self) -> u64 {
        match *self {
            Record::Publication { offset, .. } => offset,
            Record::Forgotten { kept, .. } => kept.complete_after,
            Record::Will { .. }
            | Record::WillGone { .. }
            | Record::Retained { .. }
            | Record::SessionItem { .. }
            | Record::SessionItemGone { .. }
            | Record::SessionGone { .. }
            | Record::Held { .. }
            | Record::Released { .. } => 0,
            Record::Removed { through, .. }
            | Record::Unknown { through }
            | Record::UnknownChannels { through } => through,
        }
    }
}

impl<'a> From<Change<'a>> for Record<'a> {
    fn from(change: Change<'a>) -> Record<'a> {
        match change {
            Change::Kept {
                channel,
                after,
                complete_after,
                newest,
            } => {
                let kept = KeptBounds {
                    after,
                    complete_after,
                };
                match newest {
                    Some(newest) => Record::Publication {
                        channel,
                        offset: newest.offset,
                        kept,
                        publication: StoredPublication {
                            unix_ms: newest.unix_ms,
                            form: newest.origin.number(),
                            payload_bytes: newest.payload_bytes,
                            frame: newest.frame,
                        },
                    },
                    None => Record::Forgotten { channel, kept },
                }
            }
            Change::Removed { channel, through } => Record::Removed { channel, through },
            Change::Unknown { through } => Record::UnknownChannels { through },
        }
    }
}

/// The records of a [`Batch`].
#[derive(Debug)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let kind = *self.rest.split_off_first()?;
        let channel = self.sized();
        let through = self.number();
        Some(match kind {
            PUBLICATION => {
                let complete_after = self.number();
                let after = self.number();
                let publication = StoredPublication::read(self.sized());
                Record::Publication {
                    channel,
                    offset: through,
                    kept: KeptBounds {
                        after,
                        complete_after,
                    },
                    publication: publication.expect("`push` wrote it"),
                }
            }
            FORGOTTEN => Record::Forgotten {
                channel,
                kept: KeptBounds {
                    after: self.number(),
                    complete_after: through,
                },
            },
            REMOVED => Record::Removed { channel, through },
            WILL => Record::Will {
                generation: generation(channel),
                will: StoredWill::read(self.sized()).expect("`push` wrote it"),
            },
            WILL_GONE => Record::WillGone {
                generation: generation(channel),
            },
            RETAINED => Record::Retained {
                topic: channel,
                value: Some(self.sized()),
            },
            RETAINED_GONE => Record::Retained {
                topic: channel,
                value: None,
            },
            SESSION_ITEM | NEW_SESSION_ITEM => Record::SessionItem {
                client_id: channel,
                item: self.sized(),
                value: self.sized(),
                is_new: kind == NEW_SESSION_ITEM,
            },
            SESSION_ITEM_GONE => Record::SessionItemGone {
                client_id: channel,
                item: self.sized(),
            },
            SESSION_GONE => Record::SessionGone { client_id: channel },
            HELD => Record::Held {
                number: through,
                content: self.sized(),
            },
            RELEASED => Record::Released { number: through },
            UNKNOWN => Record::Unknown { through },
            UNKNOWN_CHANNELS => Record::UnknownChannels { through },
            other => unreachable!("kind {other}, which `push` has never written"),
        })
    }
}

impl<'a> Records<'a> {
    fn sized(&mut self) -> &'a [u8] {
        let length = u32::from_le_bytes(self.fixed());
        self.rest
            .split_off(..length as usize)
            .expect("`push` wrote as many bytes as it said")
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.fixed())
    }

    fn fixed<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let bytes = self.rest.split_off(..BYTES).expect("`push` wrote whole records");
        bytes.try_into().expect("as many bytes as asked for")
    }
}

fn generation(bytes: &[u8]) -> &Generation {
    bytes.try_into().expect("`push` wrote a generation")
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes)
        .expect("the invariant at the head")
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::store::format::tests::any_publication;

    proptest! {
        #[test]
        fn a_batch_gives_back_the_records_that_were_pushed_in_their_order(
            records in vec((0..15_u8, vec(any::<u8>(), 15..40), any::<u64>(), any::<u64>(), any_publication()), 0..20)
        ) {
            let records: Vec<Record<'_>> = records
                .iter()
                .map(|(kind, channel, offset, after, publication)| match kind {
                    0 => Record::Publication {
                        channel,
                        offset: *offset,
                        kept: KeptBounds { after: *after, complete_after: !*after },
                        publication: publication.borrowed(),
                    },
                    1 => Record::Forgotten { channel, kept: KeptBounds { after: *after, complete_after: *offset } },
                    2 => Record::Removed { channel, through: *offset },
                    3 => Record::UnknownChannels { through: *offset },
                    4 => Record::Will {
                        generation: channel.first_chunk().unwrap(),
                        will: StoredWill { due_unix_ms: (*after % 2 == 0).then_some(*after), set_unix_ms: *offset, will: channel },
                    },
                    5 => Record::WillGone { generation: channel.first_chunk().unwrap() },
                    6 | 7 => Record::Retained { topic: channel, value: (*kind == 6).then_some(&channel[3..]) },
                    8 | 9 => Record::SessionItem {
                        client_id: channel,
                        item: &channel[..3],
                        value: &channel[5..],
                        is_new: *kind == 9,
                    },
                    10 => Record::SessionItemGone { client_id: channel, item: &channel[7..] },
                    11 => Record::SessionGone { client_id: channel },
                    12 => Record::Held { number: *after, content: channel },
                    13 => Record::Released { number: *after },
                    _ => Record::Unknown { through: *offset },
                })
                .collect();
            let mut batch = Batch::default();
            records.iter().for_each(|record| batch.push(record));
            prop_assert_eq!(batch.records().collect::<Vec<_>>(), records.clone());
            prop_assert_eq!(batch.count(), records.len() as u64);
            prop_assert_eq!(batch.through(), records.iter().map(Record::offset).max().unwrap_or(0));
            prop_assert_eq!(batch.is_empty(), records.is_empty());
        }
    }
}
