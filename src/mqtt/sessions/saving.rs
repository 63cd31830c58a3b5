//! Sessions on disk (`data_dir`): sessions that outlive their connections are saved, first as a whole and
//! then their changes.
//!
//! ```text
//!   a change ──► noted: which part of which session ──── end of the turn: save ───► records of what the parts are now
//! ```
//! A publication that comes and goes within a turn is never recorded. If the disk takes no more
//! ([`Disk::has_room`]), the rest stays noted, which takes little memory: sessions, and numbers of the
//! publications that they have. So a full disk loses nothing that the sessions still have when it takes
//! records again.
//!
//! Saves are numbered. In strict mode an acknowledgement, CONNACK included, waits until the save with the
//! change is committed. A publication with QoS 2 waits likewise before it is sent for the first time: if the
//! server forgot its packet identifier, the client would mistake the next publication with this identifier
//! for the same one.
//!
//! A session that ends may have a queue of thousands of publications on disk. The disk is told of a bounded
//! number of them in each save ([`RELEASES_PER_SAVE_MAX`]).
//!
//! Invariant: a session that outlives its connection is on disk, or noted as a whole; any other is not on
//! disk, or in `ended`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::saved::{SavedEntries, SavedEntry, UNSAVED};
use super::state::{Phase, SessionState, Traffic};
use super::stored::{self, Head, Item};
use super::{SessionRef, Sessions};
use crate::broker::SubscriptionLimits;
use crate::clock::Now;
use crate::mqtt::shares::{Membership, Shares};
use crate::mqtt::subscriptions::{Options, SubscribeOutcome, Subscriber, Subscriptions, UnsubscribeOutcome};
use crate::store::Record;

/// The place where sessions are saved.
pub(crate) trait Disk {
    /// Whether a change may be recorded now.
    fn has_room(&mut self) -> bool;
    /// Records a change.
    fn record(&mut self, record: &Record<'_>);
}

/// The changes of one core's sessions that are to be saved.
#[derive(Debug)]
pub(super) struct Saving {
    /// Whether acknowledgements wait for commits.
    pub(super) is_strict: bool,
    pending: BTreeMap<u32, Pending>,
    /// The client ids of sessions that are on disk and have ended.
    ended: BTreeSet<Box<str>>,
    /// The queues that such sessions had on disk: their publications are to be released.
    ended_queues: VecDeque<Box<SavedEntries>>,
    /// Whether the last save has left some of that for the next turn.
    has_more: bool,
    /// For each publication of this core, how many entries on disk name it. With the last of them the disk
    /// drops it.
    holders: HashMap<u64, u32>,
    /// The number that the next publication gets, and the distance to the one after it.
    next_publication: u64,
    step: u64,
    /// The number of the next save.
    pub(super) save: u64,
    /// Saves up to this one are committed.
    pub(super) committed: u64,
    /// Sessions that wait for a commit before they send the next publication.
    pub(super) gated: Vec<SessionRef>,
    /// After a crash of a server that is not strict: identifiers of QoS 2 publications of which the server
    /// does not know whether clients have released them.
    doubtful: BTreeSet<(u32, u16)>,
    /// In strict mode: identifiers of QoS 2 publications that other cores may not have recorded yet. The disk
    /// gets them later, so that a crash never leaves an identifier without its publication, which the client
    /// would then lose.
    unconfirmed: BTreeSet<(u32, u16)>,
}

/// The parts of one session that are to be saved.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) head: bool,
    pub(super) will: bool,
    pub(super) incoming: bool,
    pub(super) outgoing: bool,
    filters: BTreeSet<Box<str>>,
    /// Whether all of it is to be written anew.
    anew: bool,
}

impl Saving {
    /// For one of `cores` cores. Numbers of publications up to `last_publication` are in use.
    pub(super) fn new(is_strict: bool, core: usize, cores: usize, last_publication: u64) -> Saving {
        Saving {
            is_strict,
            pending: BTreeMap::new(),
            ended: BTreeSet::new(),
            ended_queues: VecDeque::new(),
            has_more: false,
            holders: HashMap::new(),
            next_publication: last_publication + 1 + core as u64,
            step: cores as u64,
            save: 1,
            committed: 0,
            gated: Vec::new(),
            doubtful: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
        }
    }

    /// Notes a part of a session.
    pub(super) fn pending(&mut self, number: u32) -> &mut Pending {
        self.pending.entry(number).or_default()
    }

    /// Removes a session from the disk.
    pub(super) fn end(&mut self, number: u32, state: &mut SessionState) {
        self.pending.remove(&number);
        remove_all_of(number, &mut self.doubtful);
        remove_all_of(number, &mut self.unconfirmed);
        let saved = state
            .traffic
            .as_deref_mut()
            .and_then(|traffic| traffic.outgoing.end_saving());
        if std::mem::take(&mut state.is_saved) {
            self.ended.insert(state.client_id.clone());
            self.ended_queues.extend(saved);
        }
    }

    /// A session that was restored and ended at once.
    pub(super) fn end_restored(&mut self, client_id: Box<str>, publications: impl Iterator<Item = u64>) {
        self.ended.insert(client_id);
        self.ended_queues
            .push_back(Box::new(SavedEntries::ended(publications)));
    }

    /// Releases some publications of sessions that have ended.
    fn release_some(&mut self, disk: &mut impl Disk) {
        let mut left = RELEASES_PER_SAVE_MAX;
        while left > 0
            && disk.has_room()
            && let Some(queue) = self.ended_queues.front_mut()
        {
            left -= 1;
            match queue.pop() {
                Some(entry) if entry.publication != UNSAVED && entry.publication > 0 => {
                    self.release(entry.publication, disk);
                }
                Some(_) => {}
                None => {
                    self.ended_queues.pop_front();
                }
            }
        }
        self.has_more = left == 0 && !self.ended_queues.is_empty();
    }

    /// An entry on disk names a publication.
    pub(super) fn hold(&mut self, publication: u64) {
        *self.holders.entry(publication).or_default() += 1;
    }

    /// An entry on disk names a publication no more.
    fn release(&mut self, number: u64, disk: &mut impl Disk) {
        if let Entry::Occupied(mut holders) = self.holders.entry(number) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
            }
        }
        disk.record(&Record::Released { number });
    }

    /// A QoS 2 publication has come with this identifier, and is about to be published.
    pub(super) fn await_publication(&mut self, number: u32, packet_id: u16) {
        self.unconfirmed.insert((number, packet_id));
    }

    /// The client may have released a QoS 2 publication with this identifier.
    pub(super) fn note_possibly_released(&mut self, number: u32, packet_id: u16) {
        self.doubtful.insert((number, packet_id));
    }

    /// Whether the server does not know if the client has released the identifier. From now on it does.
    pub(super) fn take_possibly_released(&mut self, number: u32, packet_id: u16) -> bool {
        !self.doubtful.is_empty() && self.doubtful.remove(&(number, packet_id))
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.ended.is_empty() && self.ended_queues.is_empty()
    }
}

impl Sessions {
    /// Begins to save sessions. Numbers of publications up to `last_publication` are in use on disk.
    pub(crate) fn begin_saving(&mut self, is_strict: bool, last_publication: u64) {
        let (core, cores) = (self.place.core, self.place.cores);
        self.saving = Some(Box::new(Saving::new(is_strict, core, cores, last_publication)));
    }

    /// Subscribes a session to a filter.
    pub fn subscribe(
        &mut self,
        session: SessionRef,
        filter: &str,
        options: Options,
        limits: SubscriptionLimits,
    ) -> SubscribeOutcome {
        let subscriber = Subscriber::Session(session.number);
        let outcome = self.subscriptions.subscribe(subscriber, filter, options, limits);
        self.note_filter(session, filter);
        outcome
    }

    /// Unsubscribes a session from a filter.
    pub fn unsubscribe(&mut self, session: SessionRef, filter: &str) -> UnsubscribeOutcome {
        let outcome = self
            .subscriptions
            .unsubscribe(Subscriber::Session(session.number), filter);
        self.note_filter(session, filter);
        outcome
    }

    /// All cores have recorded the QoS 2 publications of the session's client, so their identifiers may be
    /// saved.
    pub(crate) fn confirm_qos2(&mut self, session: SessionRef) {
        if let Some(saving) = &mut self.saving
            && remove_all_of(session.number, &mut saving.unconfirmed)
        {
            self.note(session.number, |pending| pending.incoming = true);
        }
    }

    /// The subscription of a session to a filter, which may be `$share/GROUP/FILTER`, has changed.
    pub(super) fn note_filter(&mut self, session: SessionRef, filter: &str) {
        self.note(session.number, |pending| {
            pending.filters.insert(filter.into());
            if pending.filters.len() > FILTERS_NOTED_MAX {
                pending.anew = true;
                pending.filters.clear();
            }
        });
    }

    /// Notes that a part of a session has changed, if sessions are saved and this one outlives its
    /// connection.
    #[inline]
    pub(super) fn note(&mut self, number: u32, part: impl FnOnce(&mut Pending)) {
        if let Some(saving) = &mut self.saving
            && self.states[number as usize].is_lasting()
        {
            part(saving.pending(number));
        }
    }

    /// Whether there are changes to save.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| !saving.is_empty())
    }

    /// Whether the last save has left something for the next turn, though the disk has room.
    #[inline]
    pub(crate) fn has_more_to_save(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| saving.has_more)
    }

    /// The number of the next save, which will have all changes up to now.
    pub(crate) fn next_save(&self) -> u64 {
        self.saving.as_ref().map_or(0, |saving| saving.save)
    }

    /// Saves the changes; of sessions with long queues that have ended, a part of the publications. Returns the
    /// number of the save if it has all changes.
    pub(crate) fn save(&mut self, now: Now, disk: &mut impl Disk) -> Option<u64> {
        let mut saving = self.saving.take()?;
        saving.has_more = false;
        while disk.has_room()
            && let Some(client_id) = saving.ended.pop_first()
        {
            disk.record(&Record::SessionGone {
                client_id: client_id.as_bytes(),
            });
        }
        if saving.ended.is_empty() {
            saving.release_some(disk);
            while disk.has_room()
                && let Some((number, pending)) = saving.pending.pop_first()
            {
                self.save_session(number, pending, &mut saving, now, disk);
            }
        }
        let number = saving.is_empty().then_some(saving.save);
        saving.save += u64::from(number.is_some());
        self.saving = Some(saving);
        number
    }

    /// Everything up to this save is committed: sessions that have waited for it may send.
    pub(crate) fn note_committed(&mut self, save: u64) {
        let Some(saving) = &mut self.saving else { return };
        if save > saving.committed {
            saving.committed = save;
            for session in std::mem::take(&mut saving.gated) {
                self.put_back(session);
            }
        }
    }

    fn save_session(
        &mut self,
        number: u32,
        mut pending: Pending,
        saving: &mut Saving,
        now: Now,
        disk: &mut impl Disk,
    ) {
        let Some(state) = self.states.get_mut(number as usize) else {
            return;
        };
        let subscriber = Subscriber::Session(number);
        let mut record = Recorder {
            client_id: state.client_id.as_bytes(),
            name: Vec::new(),
            value: Vec::new(),
            disk,
        };
        if pending.anew {
            record.disk.record(&Record::SessionGone {
                client_id: record.client_id,
            });
            let saved = state
                .traffic
                .as_deref_mut()
                .and_then(|traffic| traffic.outgoing.saved_mut());
            for number in saved.into_iter().flat_map(|saved| saved.begin_again()) {
                saving.release(number, record.disk);
            }
            pending = Pending {
                filters: all_filters(number, state.serial, &self.subscriptions, &self.shares),
                ..Pending::whole()
            };
        }
        if pending.head {
            let head = head(state, now);
            record.put(Item::Head, false, |out| head.write(out));
        }
        if pending.will {
            match state.will() {
                Some(will) => record.put(Item::Will, false, |out| stored::write_will(will, out)),
                None => record.remove(Item::Will),
            }
        }
        for filter in &pending.filters {
            let membership = match filter.starts_with(SHARE) {
                true => self.shares.membership_of(number, filter).cloned(),
                false => self
                    .subscriptions
                    .options_of(subscriber, filter)
                    .map(|options| Membership {
                        options,
                        service: None,
                    }),
            };
            match membership {
                Some(membership) => record.put(Item::Subscription(filter), false, |out| {
                    stored::write_subscription(&membership, out);
                }),
                None => record.remove(Item::Subscription(filter)),
            }
        }
        let Some(traffic) = state.traffic.as_deref_mut() else {
            // A session that waits without a packet has no memory for packets any more.
            if pending.incoming {
                record.remove(Item::Incoming);
            }
            state.is_saved = true;
            return;
        };
        if pending.incoming {
            let is_confirmed = |id: &u16| !saving.unconfirmed.contains(&(number, *id));
            let ids = traffic.incoming.all().iter().copied();
            let ids: Vec<u16> = ids.filter(is_confirmed).collect();
            match &ids[..] {
                [] => record.remove(Item::Incoming),
                ids => record.put(Item::Incoming, false, |out| stored::write_ids(ids, out)),
            }
        }
        if pending.outgoing {
            save_outgoing(traffic, &mut self.kept, saving, &mut record);
        }
        state.is_saved = true;
        if matches!(state.phase, Phase::Waiting { .. }) {
            state.drop_empty_traffic();
        }
    }
}

fn save_outgoing(
    traffic: &mut Traffic,
    kept_all: &mut super::kept_publications::KeptPublications,
    saving: &mut Saving,
    record: &mut Recorder<'_, impl Disk>,
) {
    let Some(saved) = traffic.outgoing.saved_mut() else {
        return;
    };
    let (gone, changed) = (saved.take_gone(), saved.take_changed());
    for SavedEntry { number, publication } in gone {
        record.remove(Item::Outgoing(number));
        if publication > 0 {
            saving.release(publication, record.disk);
        }
    }
    for at in changed {
        let (mut stored, kept) = traffic.outgoing.stored(at);
        let mut content = None;
        if let Some(kept) = kept {
            let holders = &saving.holders;
            let next = saving.next_publication;
            let (number, bytes) = kept_all.saved_number(kept, next, |number| holders.contains_key(&number));
            saving.next_publication += if number == next { saving.step } else { 0 };
            stored.publication = number;
            content = bytes;
        }
        let Some(saved) = traffic.outgoing.saved_mut() else {
            return;
        };
        let entry = saved.entry_mut(at);
        let before = std::mem::replace(&mut entry.publication, stored.publication);
        let (number, is_new) = (entry.number, before == UNSAVED);
        if stored.publication > 0 && before != stored.publication {
            record.value.clear();
            if let Some(content) = content {
                stored::write_publication(content, &mut record.value);
            }
            record.disk.record(&Record::Held {
                number: stored.publication,
                content: &record.value,
            });
            saving.hold(stored.publication);
        }
        record.put(Item::Outgoing(number), is_new, |out| stored.write(out));
        if !is_new && before > 0 && before != stored.publication {
            saving.release(before, record.disk);
        }
    }
}

/// Removes the identifiers of one session; returns whether there were any.
fn remove_all_of(number: u32, ids: &mut BTreeSet<(u32, u16)>) -> bool {
    let mut has_removed = false;
    while let Some(&id) = ids.range((number, 0)..=(number, u16::MAX)).next() {
        ids.remove(&id);
        has_removed = true;
    }
    has_removed
}

impl Pending {
    /// Everything but the filters.
    pub(super) fn whole() -> Pending {
        Pending {
            head: true,
            will: true,
            incoming: true,
            outgoing: true,
            filters: BTreeSet::new(),
            anew: false,
        }
    }
}

/// Records items of one session.
struct Recorder<'a, D> {
    client_id: &'a [u8],
    name: Vec<u8>,
    value: Vec<u8>,
    disk: &'a mut D,
}

impl<D: Disk> Recorder<'_, D> {
    fn put(&mut self, item: Item<'_>, is_new: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.name.clear();
        item.write(&mut self.name);
        self.value.clear();
        write(&mut self.value);
        self.disk.record(&Record::SessionItem {
            client_id: self.client_id,
            item: &self.name,
            value: &self.value,
            is_new,
        });
    }

    fn remove(&mut self, item: Item<'_>) {
        self.name.clear();
        item.write(&mut self.name);
        self.disk.record(&Record::SessionItemGone {
            client_id: self.client_id,
            item: &self.name,
        });
    }
}

fn head(state: &SessionState, now: Now) -> Head<'_> {
    Head {
        version: state.version,
        expiry_s: state.expiry_s,
        since_unix_ms: match state.phase {
            Phase::Waiting { since } => {
                let ago = u64::try_from(now.uptime.since(since).as_millis()).unwrap_or(u64::MAX);
                Some(now.unix_ms.saturating_sub(ago).max(1))
            }
            Phase::Connected { .. } | Phase::Connecting { .. } | Phase::Ended => None,
        },
        user: state.user(),
    }
}

fn all_filters(
    number: u32,
    serial: u64,
    subscriptions: &Subscriptions,
    shares: &Shares,
) -> BTreeSet<Box<str>> {
    let (plain, _) = subscriptions.some_filters_of(Subscriber::Session(number), 0, usize::MAX);
    let plain = plain
        .into_iter()
        .map(|(filter, _)| String::from_utf8_lossy(&filter).into());
    plain
        .chain(shares.texts_of(SessionRef { number, serial }, 0, usize::MAX))
        .collect()
}

/// How the filters of shared subscriptions begin.
pub(super) const SHARE: &str = "$share/";
/// Publications of sessions that have ended which one save releases, at some 50 ns.
const RELEASES_PER_SAVE_MAX: usize = if cfg!(test) { 8 } else { 1024 };
/// If more filters of a session have changed, all of the session is written again.
const FILTERS_NOTED_MAX: usize = 20_000;

#[cfg(test)]
mod tests;
