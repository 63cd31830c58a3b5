//! The changes that the next commit makes: the records of all cores since the last one, put together.
//!
//! A publication that is forgotten before the commit is never written. Records of one channel come from its owner
//! alone, in order; those of different channels need no order. The records of one will come in order, too, though from
//! two cores: the owner of a session's key is told of an end when what the core of the connection has recorded is on its
//! way (`cores/lifecycle/wills.rs`).
//!
//! Pure.

use std::collections::BTreeMap;

use super::format::Generation;
use super::records::{Batch, Kept, Record};

/// Changes that are not committed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    channels: BTreeMap<Box<[u8]>, ChannelChanges>,
    /// The wills of connections, as values of the database; `None` for one that is gone.
    wills: BTreeMap<Generation, Option<Box<[u8]>>>,
    /// What was published up to this offset may be missing from any channel.
    pub(super) unknown_through: u64,
    /// The same for channels that are not known otherwise.
    pub(super) removed_through: u64,
    /// The highest offset of all records.
    pub(super) through: u64,
    /// How many records came.
    pub(super) records: u64,
    /// How many bytes the records had.
    pub(super) bytes: usize,
}

/// The changes of one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelChanges {
    /// Whether all that the store has of the channel is removed, before the publications here are added.
    pub(super) is_removed: bool,
    /// What the channel keeps then.
    pub(super) kept: Kept,
    /// Publications to add, as values of the database, by their offsets.
    pub(super) publications: BTreeMap<u64, Box<[u8]>>,
}

impl Changes {
    /// Adds the records of one core.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.records += batch.count();
        self.bytes += batch.len();
        self.through = self.through.max(batch.through());
        for record in batch.records() {
            match record {
                Record::Publication {
                    channel,
                    offset,
                    kept,
                    publication,
                } => {
                    let mut value = Vec::new();
                    publication.write(&mut value);
                    let changes = self.channel(channel);
                    changes.publications.insert(offset, value.into());
                    changes.keep(kept);
                }
                Record::Forgotten { channel, kept } => self.channel(channel).keep(kept),
                Record::Removed { channel, through } => {
                    // The channel may come back, and then nothing is known of the time before.
                    self.removed_through = self.removed_through.max(through);
                    let changes = self.channel(channel);
                    *changes = ChannelChanges {
                        is_removed: true,
                        ..ChannelChanges::default()
                    };
                }
                Record::Will { generation, will } => {
                    let mut value = Vec::new();
                    will.write(&mut value);
                    self.wills.insert(*generation, Some(value.into()));
                }
                Record::WillGone { generation } => {
                    self.wills.insert(*generation, None);
                }
                Record::UnknownChannels { through } => {
                    self.removed_through = self.removed_through.max(through);
                }
                Record::Unknown { through } => self.unknown_through = self.unknown_through.max(through),
            }
        }
    }

    fn channel(&mut self, name: &[u8]) -> &mut ChannelChanges {
        if !self.channels.contains_key(name) {
            self.channels.insert(name.into(), ChannelChanges::default());
        }
        self.channels.get_mut(name).expect("it is there now")
    }

    /// The channels with changes.
    pub(super) fn channels(&self) -> impl Iterator<Item = (&[u8], &ChannelChanges)> {
        self.channels.iter().map(|(name, changes)| (&**name, changes))
    }

    /// The connections whose wills have changed, and the wills.
    pub(super) fn wills(&self) -> impl Iterator<Item = (&Generation, Option<&[u8]>)> {
        self.wills
            .iter()
            .map(|(generation, will)| (generation, will.as_deref()))
    }

    /// Whether no record has come.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }
}

impl ChannelChanges {
    fn keep(&mut self, kept: Kept) {
        self.kept.after = self.kept.after.max(kept.after);
        self.kept.complete_after = self.kept.complete_after.max(kept.complete_after);
        while let Some(oldest) = self.publications.first_entry()
            && *oldest.key() <= self.kept.after
        {
            oldest.remove();
        }
    }
}
