//! Subscriptions of MQTT sessions that are to be sent retained publications: what is asked for, and how far it is sent.
//!
//! ```text
//!   waiting ──► active: ask an owner for a page ──► send it ──► the next page, or the next owner ──► done
//! ```
//! A filter without wildcards has one owner; of others, each core may own topics that match. Few are active at a time, so
//! that a storm of subscribers does not hold memory for pages that nobody can take yet; they take turns.
//!
//! Limits: [`ACTIVE_MAX`]; `mqtt_retained_per_subscribe_max`. As many wait as sessions of the core have subscriptions: a
//! new SUBSCRIBE for the same filter takes the place of the one before.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::Sequence;
use crate::mqtt::sessions::SessionRef;
use crate::retained::{Entry, Filter};

/// The retained publications for one subscription.
#[derive(Debug)]
pub(in crate::cores) struct Ask {
    pub(in crate::cores) number: u64,
    pub(in crate::cores) session: SessionRef,
    pub(in crate::cores) text: Box<str>,
    pub(in crate::cores) filter: Arc<Filter>,
    /// The highest QoS that the subscriber wants.
    pub(in crate::cores) qos: u8,
    /// The subscription identifier; 0: none.
    pub(in crate::cores) id: u32,
    /// The subscription is live from this place on.
    pub(in crate::cores) before: Sequence,
    /// The cores that may own topics: the one that is asked, and the end.
    pub(in crate::cores) owners: std::ops::Range<usize>,
    /// How many may still be sent.
    pub(in crate::cores) left: u32,
    pub(in crate::cores) progress: Progress,
}

/// The event that an [`Ask`] is waiting for.
#[derive(Debug)]
pub(in crate::cores) enum Progress {
    /// The owner is to be asked, for the page that begins here.
    ToAsk { from: Option<Box<[u8]>> },
    /// The owner is to answer.
    Asked,
    /// A page is being sent.
    Sending {
        /// The next is the last.
        entries: Vec<Entry>,
        next: Option<Box<[u8]>>,
        /// The place up to which the owner had read.
        read_at: Sequence,
    },
}

/// All of them on a core.
#[derive(Debug, Default)]
pub(in crate::cores) struct RetainedAsks {
    waiting: VecDeque<Ask>,
    active: VecDeque<Ask>,
    /// Of sessions that have no connection.
    parked: Vec<Ask>,
    last_number: u64,
    /// Whether the next turn has something to do although no event comes.
    pub(in crate::cores) has_work: bool,
}

impl RetainedAsks {
    /// Whether there is none.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty() && self.parked.is_empty()
    }

    /// Adds one; one for the same subscription that waits is replaced, one that is active ends.
    pub(in crate::cores) fn add(&mut self, mut ask: Ask) {
        self.last_number += 1;
        ask.number = self.last_number;
        let is_same = |other: &Ask| other.session == ask.session && other.text == ask.text;
        self.active.retain(|other| !is_same(other));
        self.parked.retain(|other| !is_same(other));
        match self.waiting.iter_mut().find(|other| is_same(other)) {
            Some(place) => *place = ask,
            None => self.waiting.push_back(ask),
        }
        self.has_work = true;
    }

    /// Whether some wait for others to end.
    pub(in crate::cores) fn have_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.active.len() < ACTIVE_MAX
    }

    /// How many are active, after as many as may be have become so.
    pub(in crate::cores) fn activate(&mut self) -> usize {
        while self.active.len() < ACTIVE_MAX
            && let Some(ask) = self.waiting.pop_front()
        {
            self.active.push_back(ask);
        }
        self.active.len()
    }

    /// Takes the active one whose turn it is.
    pub(in crate::cores) fn take_next(&mut self) -> Option<Ask> {
        self.active.pop_front()
    }

    /// It has more to do.
    pub(in crate::cores) fn put_back(&mut self, ask: Ask) {
        self.active.push_back(ask);
    }

    /// It has more to do, and its session has no connection. It holds no page meanwhile.
    pub(in crate::cores) fn park(&mut self, mut ask: Ask) {
        if let Progress::Sending { entries, .. } = &ask.progress
            && let Some(first) = entries.last()
        {
            ask.progress = Progress::ToAsk {
                from: Some(first.place().into()),
            };
        }
        self.parked.push(ask);
    }

    /// Sessions may have a connection again. To be called about once a second.
    pub(in crate::cores) fn revive(&mut self) {
        if !self.parked.is_empty() {
            self.waiting.extend(self.parked.drain(..));
            self.has_work = true;
        }
    }

    /// The active one with this number.
    pub(in crate::cores) fn get(&mut self, number: u64) -> Option<&mut Ask> {
        self.active.iter_mut().find(|ask| ask.number == number)
    }

    /// A core has stopped: what it was asked is not answered. The asks go on with the next owner.
    pub(in crate::cores) fn note_stopped(&mut self, core: usize) {
        for ask in &mut self.active {
            if matches!(ask.progress, Progress::Asked) && ask.owners.start == core {
                ask.owners.start += 1;
                ask.progress = Progress::ToAsk { from: None };
                self.has_work = true;
            }
        }
    }
}

/// Most that are active at a time.
const ACTIVE_MAX: usize = 32;
