//! The subscriptions of one connection, or of one MQTT session (`mqtt/subscriptions`): its channels, and its
//! place in the list of each.

use super::entries::Entries;

/// One subscription, as its connection sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The number of the channel.
    pub(crate) channel: u32,
    /// The place among the channel's subscribers.
    pub(crate) position: u32,
    /// Later subscriptions of a connection have higher numbers; they wrap after 4 billion, which costs only the order
    /// of `channels_of`.
    pub(super) order: u32,
}

/// The subscriptions of one connection; one needs no allocation.
#[derive(Debug)]
pub(crate) enum Held {
    /// Temporary state while the first subscription is added or the last one removed; never stored.
    Nothing,
    One(Entry),
    Many(Box<SeveralChannels>),
}

/// The subscriptions of a connection that has more than one.
#[derive(Debug)]
pub(crate) struct SeveralChannels {
    entries: Entries,
    names_bytes: usize,
    next_order: u32,
}

impl SeveralChannels {
    /// All entries, in the order of their channels.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.to_vec()
    }
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        match self {
            Held::Nothing => 0,
            Held::One(_) => 1,
            Held::Many(many) => many.entries.len(),
        }
    }

    pub(crate) fn has(&self, channel: u32) -> bool {
        match self {
            Held::Nothing => false,
            Held::One(entry) => entry.channel == channel,
            Held::Many(many) => many.entries.has(channel),
        }
    }

    /// The entry of a channel.
    pub(crate) fn get(&self, channel: u32) -> Option<Entry> {
        match self {
            Held::One(entry) if entry.channel == channel => Some(*entry),
            Held::Nothing | Held::One(_) => None,
            Held::Many(many) => many.entries.get(channel),
        }
    }

    /// The bytes of the names of all channels. `length` returns the length of one channel's name.
    pub(crate) fn names_bytes(&self, length: impl FnOnce(u32) -> usize) -> usize {
        match self {
            Held::Nothing => 0,
            Held::One(entry) => length(entry.channel),
            Held::Many(many) => many.names_bytes,
        }
    }

    /// At most `max` entries, from the channel `from` on, in the order of their channels.
    pub(crate) fn some(&self, from: u32, max: usize) -> Vec<Entry> {
        match self {
            Held::One(entry) if entry.channel >= from && max > 0 => vec![*entry],
            Held::Nothing | Held::One(_) => Vec::new(),
            Held::Many(many) => many.entries.some(from, max),
        }
    }

    /// Adds a channel that is not held; `names_bytes` counts its name already.
    pub(crate) fn insert(&mut self, channel: u32, position: u32, names_bytes: usize) {
        let mut entry = Entry {
            channel,
            position,
            order: 0,
        };
        match self {
            Held::Nothing => *self = Held::One(entry),
            Held::One(first) => {
                first.order = 0;
                entry.order = 1;
                *self = Held::Many(Box::new(SeveralChannels {
                    entries: Entries::two([*first, entry]),
                    names_bytes,
                    next_order: 2,
                }));
            }
            Held::Many(many) => {
                entry.order = many.next_order;
                many.next_order = many.next_order.wrapping_add(1);
                many.names_bytes = names_bytes;
                many.entries.insert(entry);
            }
        }
    }

    /// Takes out the entry of a channel whose name has `name_bytes` bytes.
    pub(crate) fn remove(&mut self, channel: u32, name_bytes: usize) -> Option<Entry> {
        match self {
            Held::Nothing => None,
            Held::One(entry) if entry.channel != channel => None,
            Held::One(entry) => {
                let entry = *entry;
                *self = Held::Nothing;
                Some(entry)
            }
            Held::Many(many) => {
                let entry = many.entries.remove(channel)?;
                many.names_bytes -= name_bytes;
                if many.entries.len() == 0 {
                    *self = Held::Nothing;
                }
                Some(entry)
            }
        }
    }

    /// Notes that the entry for the channel of `left`, a subscription that has ended, now has its position.
    pub(crate) fn moved(&mut self, left: Entry) {
        match self {
            Held::Nothing => unreachable!("invariant 1"),
            Held::One(entry) => entry.position = left.position,
            Held::Many(many) => {
                let entry = many.entries.get_mut(left.channel).expect("invariant 1");
                entry.position = left.position;
            }
        }
    }
}

const _: () = assert!(size_of::<Option<Held>>() == 16);
