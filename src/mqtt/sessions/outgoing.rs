//! The publications with QoS 1 and 2 that one session has yet to send, and those that its client has not
//! acknowledged, in order.
//!
//! ```text
//!   entries   [ 7 released | 8 published | 9 published | 11 published | 12 published | waiting | waiting … ]
//!               └──────── sent on this connection ────┘└─ sent on an earlier one ───┘└── not sent yet ───┘
//! ```
//! Entries with a packet identifier come first: they are in flight. An entry leaves when the client has
//! acknowledged all of it, so an entry in the middle may leave first; the order of the others stays. After a
//! reconnect no entry counts as sent on this connection: all entries in flight are sent again from the front,
//! in the original order (MQTT-4.4.0-1, MQTT-4.6.0-1), then the waiting ones.
//!
//! The receive maximum of the client bounds `sent`. An exchange that has been released still counts, as section 4.9 of
//! MQTT 5 has it.
//!
//! Invariants
//! 1. The first `in_flight` entries have packet identifiers, all different, and no other entry has one.
//! 2. `sent <= in_flight`: the first `sent` were sent on this connection.
//! 3. Identifiers are given in ascending order, beginning again with 1 after 65,535. So the identifiers in
//!    use lie between that of the first entry and the last one given, going upward, unless `has_lapped`.
//! 4. `bytes` is the sum of the sizes of the publications that entries hold.

use std::collections::VecDeque;

use super::Acknowledged;
use super::kept_publications::{KeptPublications, KeptRef};
use super::saved::{SavedEntries, SavedEntry};
use super::sending::Outbound;
use super::stored::StoredEntry;

/// The packets that are to be sent to one client.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    entries: VecDeque<Entry>,
    sent: u32,
    in_flight: u32,
    bytes: u32,
    last_id: u16,
    /// Whether identifiers have begun again while an old one was in use: then invariant 3 does not hold, and
    /// each new identifier is searched for among those in use.
    has_lapped: bool,
    /// The part of the entries that the disk has; `None` if it is to have none.
    saved: Option<Box<SavedEntries>>,
}

/// One publication on its way to one client.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The number of the publication, or [`NOT_KEPT`].
    kept: u32,
    /// Zero while it waits.
    packet_id: u16,
    qos: u8,
    facts: u8,
}

const _: () = assert!(size_of::<Entry>() == 8, "an offline client may have thousands");

/// The result of an acknowledgement by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// PUBACK: the end of QoS 1.
    Acknowledged,
    /// PUBREC with a reason code below 0x80: the client has the publication.
    Received,
    /// PUBREC with an error: the end of the exchange.
    Refused,
    /// PUBCOMP: the end of QoS 2.
    Complete,
}

/// The packet that is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A publication that an earlier connection may have sent (DUP is 1), or that has waited.
    Publish {
        kept: KeptRef,
        /// `None` for QoS 0.
        packet_id: Option<u16>,
        qos: u8,
        retain: bool,
        dup: bool,
    },
    /// PUBREL, again.
    Release { packet_id: u16 },
}

impl Outgoing {
    /// Whether a publication with QoS 1 or 2 can be sent at once, since no other comes before it.
    pub(super) fn is_open(&self, in_flight_max: u16) -> bool {
        self.sent as usize == self.entries.len() && self.sent < u32::from(in_flight_max)
    }

    /// Whether there is something to send when the client may get it.
    pub(super) fn has_more(&self) -> bool {
        (self.sent as usize) < self.entries.len()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len() - self.in_flight as usize
    }

    /// The bytes of the publications that are kept, sent or not.
    pub(super) fn kept_bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether nothing is in flight and nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Notes a publication that is sent now; [`Outgoing::is_open`] is true. It is kept for a later connection, unless
    /// the session ends with this one. Returns its packet identifier.
    pub(super) fn send_now(
        &mut self,
        outbound: Outbound,
        kept: Option<KeptRef>,
        kept_all: &KeptPublications,
    ) -> u16 {
        debug_assert_eq!(self.sent as usize, self.entries.len(), "nothing comes before it");
        let packet_id = self.next_id();
        self.bytes += kept.map_or(0, |kept| kept_all.size(kept));
        self.entries.push_back(Entry {
            packet_id,
            ..Entry::new(outbound, kept)
        });
        self.note_pushed();
        self.sent += 1;
        self.in_flight += 1;
        packet_id
    }

    /// Queues a publication.
    pub(super) fn wait(&mut self, outbound: Outbound, kept: KeptRef, kept_all: &KeptPublications) {
        self.bytes += kept_all.size(kept);
        self.entries.push_back(Entry::new(outbound, Some(kept)));
        self.note_pushed();
    }

    /// The bytes of the publications that are in flight and kept.
    pub(super) fn in_flight_bytes(&self, kept_all: &KeptPublications) -> usize {
        let in_flight = self.entries.iter().take(self.in_flight as usize);
        let sizes = in_flight.filter_map(|entry| Some(kept_all.size(entry.kept()?) as usize));
        sizes.sum()
    }

    /// The waiting publications, the oldest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = KeptRef> {
        let waiting = self.entries.iter().skip(self.in_flight as usize);
        waiting.filter_map(|entry| entry.kept())
    }

    /// Drops the oldest waiting publication, if there is one.
    pub(super) fn drop_oldest(&mut self, kept_all: &mut KeptPublications) {
        let at = self.in_flight as usize;
        if let Some(entry) = self.entries.remove(at) {
            self.note_removed(at);
            self.release(entry, kept_all);
        }
    }

    /// Looks at no more than `max` waiting publications behind the first `skipped`, and drops those whose
    /// topics are not to be kept. Returns how many the caller must skip to go on; `None` if these were all.
    pub(super) fn retain_some_waiting(
        &mut self,
        skipped: usize,
        max: usize,
        mut is_kept: impl FnMut(&[u8]) -> bool,
        kept_all: &mut KeptPublications,
    ) -> Option<usize> {
        let mut at = self.in_flight as usize + skipped;
        for _ in 0..max {
            let topic = self
                .entries
                .get(at)?
                .kept()
                .map(|kept| kept_all.get(kept).0.topic);
            if topic.is_none_or(&mut is_kept) {
                at += 1;
            } else if let Some(entry) = self.entries.remove(at) {
                self.note_removed(at);
                self.release(entry, kept_all);
            }
        }
        Some(at - self.in_flight as usize)
    }

    /// A new connection: everything in flight is to be sent again.
    pub(super) fn reconnect(&mut self) {
        self.sent = 0;
    }

    /// The packet that is to be sent next, if the client may get one; [`Outgoing::pass`] says that it is sent.
    pub(super) fn next(&self, in_flight_max: u16) -> Option<Next> {
        let entry = self.entries.get(self.sent as usize)?;
        let is_bounded = entry.qos > 0;
        if is_bounded && self.sent >= u32::from(in_flight_max) {
            return None;
        }
        if entry.facts & RELEASED != 0 {
            return Some(Next::Release {
                packet_id: entry.packet_id,
            });
        }
        let has_id = entry.packet_id != 0;
        let dup = has_id && entry.facts & UNSENT == 0;
        let packet_id = match (entry.qos, has_id) {
            (0, _) => None,
            (_, true) => Some(entry.packet_id),
            (_, false) => Some(self.free_id()),
        };
        Some(Next::Publish {
            kept: KeptRef::from_number(entry.kept),
            packet_id,
            qos: entry.qos,
            retain: entry.facts & RETAIN != 0,
            dup,
        })
    }

    /// Notes that the packet of [`Outgoing::next`] is sent. Unless `keeps`, the session ends with its
    /// connection, so the publication is not needed again.
    pub(super) fn pass(&mut self, next: Next, keeps: bool, kept_all: &mut KeptPublications) {
        let at = self.sent as usize;
        match next {
            Next::Release { .. } => self.sent += 1,
            Next::Publish { packet_id: None, .. } => self.remove(at, kept_all),
            Next::Publish {
                kept,
                packet_id: Some(packet_id),
                dup,
                ..
            } => {
                if !dup && self.entries[at].packet_id == 0 {
                    self.give(packet_id);
                    self.in_flight += 1;
                    self.entries[at].packet_id = packet_id;
                    self.note_changed(at);
                }
                self.sent += 1;
                self.entries[at].facts &= !UNSENT;
                if !keeps && !kept_all.is_tagged(kept) {
                    let entry = self.entries[at];
                    self.release(entry, kept_all);
                    self.entries[at].kept = NOT_KEPT;
                }
            }
        }
        self.give_back();
    }

    /// Drops the packet of [`Outgoing::next`]: it is too large for the client, or has expired before it was
    /// sent.
    pub(super) fn drop_next(&mut self, kept_all: &mut KeptPublications) {
        let at = self.sent as usize;
        self.remove(at, kept_all);
        self.give_back();
    }

    /// The client has acknowledged.
    pub(super) fn acknowledge(
        &mut self,
        packet_id: u16,
        answer: Answer,
        kept_all: &mut KeptPublications,
    ) -> Acknowledged {
        let mut in_flight = self.entries.iter().take(self.in_flight as usize);
        let Some(at) = in_flight.position(|entry| entry.packet_id == packet_id) else {
            return Acknowledged::Unknown;
        };
        let entry = self.entries[at];
        let released = entry.facts & RELEASED != 0;
        match (answer, entry.qos) {
            (Answer::Acknowledged, 1) => self.remove(at, kept_all),
            (Answer::Received, 2) => {
                self.release(entry, kept_all);
                self.entries[at].kept = NOT_KEPT;
                self.entries[at].facts |= RELEASED;
                self.note_changed(at);
            }
            (Answer::Refused, 2) | (Answer::Complete, 2) if released || answer == Answer::Refused => {
                self.remove(at, kept_all);
            }
            (Answer::Acknowledged | Answer::Received | Answer::Refused | Answer::Complete, _) => {
                return Acknowledged::OutOfTurn;
            }
        }
        self.give_back();
        Acknowledged::Known
    }

    #[cfg(test)]
    pub(super) fn has_lapped(&self) -> bool {
        self.has_lapped
    }

    /// The session has ended: drops the first entries, at most `max`, and returns how many. Publications that
    /// groups have given to the session go back to them, unless the client may have got them with QoS 2
    /// (MQTT-4.8.2-5).
    pub(super) fn clear_some(&mut self, max: usize, kept_all: &mut KeptPublications) -> usize {
        let count = self.entries.len().min(max);
        for entry in self.entries.drain(..count) {
            let is_in_flight = self.in_flight > 0;
            self.in_flight = self.in_flight.saturating_sub(1);
            let Some(kept) = entry.kept() else {
                continue;
            };
            self.bytes -= kept_all.size(kept);
            if entry.qos == 2 && is_in_flight {
                kept_all.release(kept);
            } else {
                kept_all.give_back(kept);
            }
        }
        self.sent = self.sent.min(self.in_flight);
        count
    }

    /// Begins to keep the entries on disk.
    #[inline]
    pub(super) fn begin_saving(&mut self) {
        if self.saved.is_none() {
            self.saved = Some(Box::new(SavedEntries::new(self.entries.len())));
        }
    }

    /// The part of the entries that the disk has, if it is to have them.
    pub(super) fn saved(&self) -> Option<&SavedEntries> {
        self.saved.as_deref()
    }

    /// The part of the entries that the disk has, if it is to have them.
    pub(super) fn saved_mut(&mut self) -> Option<&mut SavedEntries> {
        self.saved.as_deref_mut()
    }

    /// Ends to keep the entries on disk.
    pub(super) fn end_saving(&mut self) -> Option<Box<SavedEntries>> {
        self.saved.take()
    }

    /// An entry in its form for the disk, and the publication that it needs.
    pub(super) fn stored(&self, at: usize) -> (StoredEntry, Option<KeptRef>) {
        let entry = self.entries[at];
        let stored = StoredEntry {
            packet_id: entry.packet_id,
            qos: entry.qos,
            facts: entry.facts & !UNSENT,
            publication: 0,
        };
        (stored, entry.kept())
    }

    /// Gives packet identifiers to publications with QoS 2 that could be sent next, so that the disk has them
    /// before they are sent. Returns whether it has given any.
    pub(super) fn reserve_ids(&mut self, in_flight_max: u16) -> bool {
        let begin = self.in_flight;
        while self.sent == begin && self.in_flight < u32::from(in_flight_max) {
            let at = self.in_flight as usize;
            match self.entries.get(at) {
                Some(entry) if entry.qos == 2 => {}
                Some(_) | None => break,
            }
            let packet_id = self.next_id();
            let entry = &mut self.entries[at];
            (entry.packet_id, entry.facts) = (packet_id, entry.facts | UNSENT);
            self.in_flight += 1;
            self.note_changed(at);
        }
        self.in_flight > begin
    }

    /// Whether the next publication has never been sent, and its packet identifier was given beforehand.
    pub(super) fn is_next_reserved(&self) -> bool {
        let next = self.entries.get(self.sent as usize);
        next.is_some_and(|entry| entry.facts & UNSENT != 0)
    }

    /// The queue of a session that the disk has: its entries in order, each with its publication, and entries
    /// that are on disk without need. Entries with packet identifiers come first. The next identifier follows
    /// `last_id`, or the identifier of the last entry that has one.
    pub(super) fn restore(
        entries: Vec<(StoredEntry, Option<KeptRef>, SavedEntry)>,
        gone: Vec<SavedEntry>,
        last_id: Option<u16>,
        kept_all: &KeptPublications,
    ) -> Outgoing {
        let mut outgoing = Outgoing::default();
        let mut saved = VecDeque::with_capacity(entries.len());
        for (stored, kept, saved_entry) in entries {
            outgoing.bytes += kept.map_or(0, |kept| kept_all.size(kept));
            outgoing.entries.push_back(Entry {
                kept: kept.map_or(NOT_KEPT, KeptRef::number),
                packet_id: stored.packet_id,
                qos: stored.qos,
                facts: stored.facts,
            });
            if stored.packet_id != 0 {
                outgoing.in_flight += 1;
                outgoing.last_id = stored.packet_id;
            }
            saved.push_back(saved_entry);
        }
        outgoing.last_id = last_id.unwrap_or(outgoing.last_id);
        // Each identifier that is given is searched for among those in use.
        outgoing.has_lapped = outgoing.in_flight > 0;
        outgoing.saved = Some(Box::new(SavedEntries::restored(saved, gone)));
        outgoing
    }

    #[inline]
    fn note_pushed(&mut self) {
        if let Some(saved) = &mut self.saved {
            saved.push();
        }
    }

    #[inline]
    fn note_changed(&mut self, at: usize) {
        if let Some(saved) = &mut self.saved {
            saved.change(at);
        }
    }

    #[inline]
    fn note_removed(&mut self, at: usize) {
        if let Some(saved) = &mut self.saved {
            saved.remove(at);
        }
    }

    fn remove(&mut self, at: usize, kept_all: &mut KeptPublications) {
        // Clients acknowledge in order, so nearly all entries leave at the front.
        let entry = match at {
            0 => self.entries.pop_front(),
            _ => self.entries.remove(at),
        };
        let Some(entry) = entry else { return };
        self.sent -= u32::from(at < self.sent as usize);
        self.in_flight -= u32::from(at < self.in_flight as usize);
        self.note_removed(at);
        self.release(entry, kept_all);
    }

    fn release(&mut self, entry: Entry, kept_all: &mut KeptPublications) {
        if let Some(kept) = entry.kept() {
            self.bytes -= kept_all.size(kept);
            kept_all.release(kept);
        }
    }

    /// Frees the memory of a long queue when it has become short.
    fn give_back(&mut self) {
        if self.entries.capacity() > ENTRIES_KEPT_MAX && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    fn next_id(&mut self) -> u16 {
        let packet_id = self.free_id();
        self.give(packet_id);
        packet_id
    }

    fn give(&mut self, packet_id: u16) {
        self.has_lapped = self.in_flight > 0 && (self.has_lapped || self.is_within(packet_id));
        self.last_id = packet_id;
    }

    /// Whether an identifier lies between the first in flight and the last that was given.
    fn is_within(&self, packet_id: u16) -> bool {
        let first = self.entries.front().map_or(0, |entry| entry.packet_id);
        first != 0 && packet_id.wrapping_sub(first) <= self.last_id.wrapping_sub(first)
    }

    /// The next packet identifier that is not in use. There is one, since fewer are in flight than there are.
    fn free_id(&self) -> u16 {
        let mut candidate = after(self.last_id);
        while (self.has_lapped || self.is_within(candidate)) && self.is_in_use(candidate) {
            candidate = after(candidate);
        }
        candidate
    }

    fn is_in_use(&self, packet_id: u16) -> bool {
        let mut in_flight = self.entries.iter().take(self.in_flight as usize);
        in_flight.any(|entry| entry.packet_id == packet_id)
    }
}

impl Entry {
    fn new(outbound: Outbound, kept: Option<KeptRef>) -> Entry {
        Entry {
            kept: kept.map_or(NOT_KEPT, KeptRef::number),
            packet_id: 0,
            qos: outbound.qos,
            facts: if outbound.retain { RETAIN } else { 0 },
        }
    }

    fn kept(self) -> Option<KeptRef> {
        (self.kept != NOT_KEPT).then_some(KeptRef::from_number(self.kept))
    }
}

#[cfg(test)]
impl Outgoing {
    /// The first broken invariant. Adds to `holders` how often each copy is held.
    pub(super) fn broken_invariant(
        &self,
        kept: &KeptPublications,
        holders: &mut std::collections::BTreeMap<u32, u32>,
    ) -> Option<String> {
        let mut ids = std::collections::BTreeMap::new();
        let mut bytes = 0;
        for (at, entry) in self.entries.iter().enumerate() {
            let is_in_flight = at < self.in_flight as usize;
            if is_in_flight != (entry.packet_id != 0)
                || ids.insert(entry.packet_id, at).is_some() && is_in_flight
            {
                return Some(format!("entry {at} of {self:?}"));
            }
            if let Some(copy) = entry.kept() {
                bytes += kept.size(copy);
                *holders.entry(copy.number()).or_default() += 1;
            }
        }
        if self.sent > self.in_flight || bytes != self.bytes {
            return Some(format!("{bytes} bytes, in {self:?}"));
        }
        None
    }
}

/// The packet identifier after this one: zero is none.
const fn after(packet_id: u16) -> u16 {
    match packet_id.checked_add(1) {
        Some(next) => next,
        None => 1,
    }
}

const NOT_KEPT: u32 = u32::MAX;
const RETAIN: u8 = 1;
/// The client has the publication, and PUBREL was sent.
const RELEASED: u8 = 2;
/// It has a packet identifier, and was not sent.
const UNSENT: u8 = 4;
const ENTRIES_KEPT_MAX: usize = 64;
