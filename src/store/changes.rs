//! The changes that the next commit makes: the records of all cores since the last one, put together.
//!
//! A publication that is forgotten before the commit is never written. All records of a channel come from the core that
//! owns it, in order; records of different channels need no order. The records of one will come in order, too, although
//! two cores make them: the core of the connection sends its records before it tells the owner of the session's key
//! that the connection has ended (`cores/lifecycle/wills.rs`). Records about an MQTT session come from the core that
//! owns its client id, and records about a retained publication from the core that owns its topic. Items of several
//! cores may refer to one publication: their records are counted together.
//!
//! Pure.

use std::collections::BTreeMap;

use super::format::Generation;
use super::records::{Batch, KeptBounds, Record};

/// Changes that are not committed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    channels: BTreeMap<Box<[u8]>, ChannelChanges>,
    /// The wills of connections, as values of the database; `None` for one that is gone.
    wills: BTreeMap<Generation, Option<Box<[u8]>>>,
    /// The retained publications of topics; `None` for one that is gone.
    retained: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    /// The MQTT sessions with changes, by client id.
    sessions: BTreeMap<Box<[u8]>, SessionChanges>,
    /// The publications to which items of sessions refer, by their numbers.
    publications: BTreeMap<u64, PublicationChanges>,
    /// Publications up to this offset may be missing from any channel.
    pub(super) unknown_through: u64,
    /// The same for channels of which the store knows nothing else.
    pub(super) removed_through: u64,
    /// How many records came.
    pub(super) records: u64,
    /// How many bytes the records had.
    pub(super) bytes: usize,
}

/// The changes of one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelChanges {
    /// Whether all stored publications of the channel are removed before the publications here are added.
    pub(super) is_removed: bool,
    /// The bounds of the channel's history afterwards.
    pub(super) kept: KeptBounds,
    /// Publications to add, as values of the database, by their offsets.
    pub(super) publications: BTreeMap<u64, Box<[u8]>>,
}

/// The changes of one MQTT session.
#[derive(Debug, Default)]
pub(super) struct SessionChanges {
    /// Whether all stored items of the session are removed before the items here are written.
    pub(super) is_removed: bool,
    items: BTreeMap<Box<[u8]>, ItemChange>,
}

/// The change of one item of a session.
#[derive(Debug)]
struct ItemChange {
    /// `None` if the item is gone.
    value: Option<Box<[u8]>>,
    /// Whether the item was never stored.
    is_new: bool,
}

/// The changes of one publication to which items of sessions refer.
#[derive(Debug, Default)]
pub(super) struct PublicationChanges {
    /// The publication, if one of the records had it.
    pub(super) content: Option<Box<[u8]>>,
    /// By how many the number of items that refer to it grows; negative if it falls.
    pub(super) holders: i64,
}

impl Changes {
    /// Adds the records of one core.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.records += batch.count();
        self.bytes += batch.len();
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
                    // If the channel comes back, nothing is known of the time before.
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
                Record::Retained { topic, value } => {
                    self.retained.insert(topic.into(), value.map(Box::from));
                }
                Record::SessionItem {
                    client_id,
                    item,
                    value,
                    is_new,
                } => self.session(client_id).put(item, value, is_new),
                Record::SessionItemGone { client_id, item } => self.session(client_id).remove(item),
                Record::SessionGone { client_id } => {
                    *self.session(client_id) = SessionChanges {
                        is_removed: true,
                        items: BTreeMap::new(),
                    };
                }
                Record::Held { number, content } => {
                    let changes = self.publications.entry(number).or_default();
                    changes.holders += 1;
                    if !content.is_empty() {
                        changes.content = Some(content.into());
                    }
                }
                Record::Released { number } => self.publications.entry(number).or_default().holders -= 1,
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

    fn session(&mut self, client_id: &[u8]) -> &mut SessionChanges {
        if !self.sessions.contains_key(client_id) {
            self.sessions.insert(client_id.into(), SessionChanges::default());
        }
        self.sessions.get_mut(client_id).expect("it is there now")
    }

    /// The topics whose retained publications have changed, with the new ones.
    pub(super) fn retained(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.retained
            .iter()
            .map(|(topic, value)| (&**topic, value.as_deref()))
    }

    /// The MQTT sessions with changes, by client id.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&[u8], &SessionChanges)> {
        self.sessions
            .iter()
            .map(|(client_id, changes)| (&**client_id, changes))
    }

    /// The changed publications to which items of sessions refer, by their numbers.
    pub(super) fn publications(&self) -> impl Iterator<Item = (u64, &PublicationChanges)> {
        self.publications
            .iter()
            .map(|(number, changes)| (*number, changes))
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

impl SessionChanges {
    fn put(&mut self, item: &[u8], value: &[u8], is_new: bool) {
        let value = Some(value.into());
        match self.items.get_mut(item) {
            Some(change) => change.value = value,
            None => {
                self.items.insert(item.into(), ItemChange { value, is_new });
            }
        }
    }

    fn remove(&mut self, item: &[u8]) {
        match self.items.get_mut(item) {
            Some(change) if change.is_new => {
                self.items.remove(item);
            }
            Some(change) => change.value = None,
            None => {
                let gone = ItemChange {
                    value: None,
                    is_new: false,
                };
                self.items.insert(item.into(), gone);
            }
        }
    }

    /// The items that have changed; `None` for one that is gone.
    pub(super) fn items(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.items
            .iter()
            .map(|(item, change)| (&**item, change.value.as_deref()))
    }
}

impl ChannelChanges {
    fn keep(&mut self, kept: KeptBounds) {
        self.kept.after = self.kept.after.max(kept.after);
        self.kept.complete_after = self.kept.complete_after.max(kept.complete_after);
        while let Some(oldest) = self.publications.first_entry()
            && *oldest.key() <= self.kept.after
        {
            oldest.remove();
        }
    }
}
