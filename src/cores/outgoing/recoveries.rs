//! Subscriptions that are not live yet: their clients first get a part of the channel's past.
//!
//! ```text
//!             its turn               the owner has read                  everything is sent
//!   Queued ────────────► Asked(from) ────────────────► Sending(reading) ────────────────► live: no entry
//!      ▲                   │     ▲                        │     │
//!      │   a newer beginning     └────────────────────────┘     │ the outbox is full and others wait
//!      └────────────────────────────────────────────────────────┘
//! ```
//! A subscription with an entry here is among the core's subscriptions like any other, and counts as one.
//! Delivery skips it: nothing is sent to its connection. While its history is requested or sent, the
//! publications from the place `from` on are collected here, and the history is read up to just before that
//! place. So the client gets every publication exactly once: first the history, then the collected
//! publications, then live ones. While the entry is queued nothing is collected: `from` is chosen when its
//! turn comes.
//!
//! A live subscription also gets an entry here if its client does not take a publication that the history has
//! (`Connections::read_later`).
//!
//! If more bytes are collected than an outbox may hold, they are dropped. Once the history is sent, the owner
//! is asked again, for the publications that the client lacks. Nothing is collected while a part of a long
//! history is sent: the owner is asked for the rest.
//!
//! Each owner has a queue of its own and a share of the turns ([`of_owner_max`]), so that an owner that
//! stands still does not delay the channels of the others. A client waits no longer for such an owner than
//! for one question: once an answer is overdue, the deadline of each waiting client counts from its
//! subscribe.
//!
//! When a connection ends, those of its entries end at once that are under way: they are few. The queued ones hold nothing
//! but their place in the queue. They end with the subscriptions of the connection, a bounded number in each turn
//! (`lifecycle/unsubscribe.rs`), or when their turn comes before.
//!
//! Invariants
//! 1. A subscription has one entry at most.
//! 2. An entry that is queued is in the queue of its owner, by the number of its ticket, unless the core is about to ask
//!    for it. Another entry has a ticket in `active`; other tickets there name nothing.
//! 3. `collected` has the sum over the entries of each connection, without zeros, and `asked` of an owner is the number of
//!    its entries in that stage.
//! 4. `unanswered` of an owner has those of its queue that have no answer yet. The order of their tickets is that of their
//!    deadlines.
//!
//! Limits: [`AT_ONCE_MAX`]; `recovery_bytes_max` for the histories that are sent; `outbox_bytes_max` for the
//! publications that are collected for one subscription.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::broker::Sequence;
use crate::clock::Uptime;
use crate::decision::Wanted;
use crate::history::Reading;

/// The subscriptions of one core that are not live yet.
#[derive(Debug, Default)]
pub(in crate::cores) struct Recoveries {
    entries: BTreeMap<SubscriptionKey, Recovery>,
    /// How many entries each channel has.
    counts: HashMap<u32, u32>,
    /// The owners, by the index of their core.
    owners: Vec<Owner>,
    /// The owner whose turn it is.
    next_owner: usize,
    active: VecDeque<Ticket>,
    last_ticket: u64,
    /// How many bytes are collected for each connection.
    collected: HashMap<u32, usize>,
    /// When they are to be served next.
    pub(in crate::cores) next: Next,
}

/// The subscriptions of channels that one core owns.
#[derive(Debug, Default)]
struct Owner {
    /// The subscriptions that wait for their turn, by the numbers of their tickets.
    queue: BTreeMap<u64, SubscriptionKey>,
    unanswered: BTreeSet<u64>,
    /// How many questions it has not answered.
    asked: usize,
    /// Whether an answer of the owner was overdue, and it has answered nothing since.
    is_silent: bool,
}

/// The owner of a channel: one of `cores` cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct OwnerOf {
    pub(in crate::cores) owner: usize,
    pub(in crate::cores) owners: usize,
}

/// When there is work for subscriptions that are not live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cores) enum Next {
    /// After an event: an answer of an owner, or a socket that takes more.
    #[default]
    Event,
    /// In a moment: the post had no room.
    Soon,
    /// In the next turn.
    Now,
}

/// A subscription: a connection by its index, and a channel as [`Subscriptions`](crate::broker::Subscriptions) numbers
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cores) struct SubscriptionKey {
    pub(in crate::cores) connection: u32,
    pub(in crate::cores) channel: u32,
}

/// Identifies one question of one subscription to its owner. An answer to an earlier question has no entry
/// any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) struct Ticket {
    pub(in crate::cores) place: SubscriptionKey,
    number: u64,
}

/// A subscription that is not live yet.
#[derive(Debug)]
pub(in crate::cores) struct Recovery {
    ticket: u64,
    owner: usize,
    /// When the client must have its answer, if the owner does not answer at all.
    deadline: Uptime,
    pub(in crate::cores) progress: Progress,
    stage: Stage,
}

/// The messages that the client has got so far.
#[derive(Debug)]
pub(in crate::cores) enum Progress {
    /// None.
    Unanswered {
        wanted: Wanted,
        /// Data that the session needs for its answer.
        token: Box<[u8]>,
    },
    /// Its answer, and all publications of the channel up to this offset that it has asked for.
    Answered { up_to: u64 },
}

#[derive(Debug)]
enum Stage {
    Queued,
    Asked {
        live: Live,
        /// When the owner must have answered.
        deadline: Uptime,
    },
    Sending {
        live: Live,
        reading: Reading,
    },
}

/// The publications that follow the history.
#[derive(Debug)]
pub(in crate::cores) struct Live {
    /// The place of the first of them.
    pub(in crate::cores) from: Sequence,
    pub(in crate::cores) collected: Collected,
}

/// Publications that wait here, as frames one behind the other.
#[derive(Debug, Default)]
pub(in crate::cores) struct Collected {
    pub(in crate::cores) frames: Vec<u8>,
    pub(in crate::cores) count: u64,
    /// Whether publications were dropped because their bytes were too many. Then none are left.
    pub(in crate::cores) is_incomplete: bool,
}

impl Recoveries {
    /// Whether all subscriptions are live.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next turn can go on with some subscriptions.
    #[inline]
    pub(in crate::cores) fn has_work(&self) -> bool {
        !self.is_empty() && self.next == Next::Now
    }

    /// How many subscriptions are not live.
    pub(in crate::cores) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether some subscription to this channel is not live.
    pub(in crate::cores) fn concern(&self, channel: u32) -> bool {
        self.counts.contains_key(&channel)
    }

    /// Whether a subscription is not live.
    pub(in crate::cores) fn has(&self, place: SubscriptionKey) -> bool {
        self.entries.contains_key(&place)
    }

    /// Queues a new subscription, which is not live yet, behind the others that wait for their turn.
    pub(in crate::cores) fn begin(
        &mut self,
        place: SubscriptionKey,
        of: OwnerOf,
        deadline: Uptime,
        wanted: Wanted,
        token: &[u8],
    ) {
        let token = token.into();
        self.hold_back(place, of, deadline, Progress::Unanswered { wanted, token });
    }

    /// Queues a subscription that was live until now: its client has all publications of the channel up to an
    /// offset.
    pub(in crate::cores) fn begin_behind(&mut self, place: SubscriptionKey, of: OwnerOf, up_to: u64) {
        self.hold_back(place, of, Uptime::NEVER, Progress::Answered { up_to });
    }

    fn hold_back(&mut self, place: SubscriptionKey, of: OwnerOf, deadline: Uptime, progress: Progress) {
        debug_assert!(!self.has(place), "invariant 1");
        let number = self.next_number();
        self.entries.insert(
            place,
            Recovery {
                ticket: number,
                owner: of.owner,
                deadline,
                progress,
                stage: Stage::Queued,
            },
        );
        *self.counts.entry(place.channel).or_default() += 1;
        if self.owners.len() < of.owners {
            self.owners.resize_with(of.owners, Owner::default);
        }
        self.enqueue(place);
        self.next = Next::Now;
    }

    /// Puts an entry into the queue of its owner, by the number of its ticket.
    fn enqueue(&mut self, place: SubscriptionKey) {
        if let Some(recovery) = self.entries.get(&place) {
            let owner = &mut self.owners[recovery.owner];
            owner.queue.insert(recovery.ticket, place);
            if matches!(recovery.progress, Progress::Unanswered { .. }) {
                owner.unanswered.insert(recovery.ticket);
            }
        }
    }

    /// The subscription whose turn has come, if fewer than [`AT_ONCE_MAX`] are under way. Owners take turns,
    /// except those that owe as many answers as they may. The caller calls [`Recoveries::asked`],
    /// [`Recoveries::requeue`] or [`Recoveries::end`] for the subscription.
    pub(in crate::cores) fn next_queued(&mut self) -> Option<Ticket> {
        if self.active.len() >= AT_ONCE_MAX {
            self.drop_ended();
        }
        if self.active.len() >= AT_ONCE_MAX {
            return None;
        }
        let (owners, asked_max) = (self.owners.len(), of_owner_max(self.owners.len()));
        for _ in 0..owners {
            let owner = &mut self.owners[self.next_owner % owners];
            self.next_owner = (self.next_owner + 1) % owners;
            if owner.asked < asked_max
                && let Some((number, place)) = owner.queue.pop_first()
            {
                owner.unanswered.remove(&number);
                return Some(Ticket { place, number });
            }
        }
        None
    }

    /// How many subscriptions wait for their turn.
    pub(in crate::cores) fn queued_count(&self) -> usize {
        self.owners.iter().map(|owner| owner.queue.len()).sum()
    }

    /// Puts a subscription whose turn had come back into its queue: at the end, if it cannot go on but others
    /// of the same owner can.
    pub(in crate::cores) fn requeue(&mut self, ticket: Ticket, others_can: bool) {
        if others_can {
            let number = self.next_number();
            if let Some(recovery) = self.entries.get_mut(&ticket.place) {
                recovery.ticket = number;
            }
        }
        self.enqueue(ticket.place);
    }

    /// The owner of a channel has not answered in time. From now on the deadlines of its queued subscriptions
    /// count.
    pub(in crate::cores) fn note_silent(&mut self, place: SubscriptionKey) {
        if let Some(recovery) = self.entries.get(&place) {
            self.owners[recovery.owner].is_silent = true;
        }
    }

    /// The owner of a channel has answered.
    pub(in crate::cores) fn note_answered(&mut self, place: SubscriptionKey) {
        if let Some(recovery) = self.entries.get(&place) {
            self.owners[recovery.owner].is_silent = false;
        }
    }

    /// A queued subscription whose deadline is over because its owner does not answer.
    pub(in crate::cores) fn overdue_in_queue(&self, now: Uptime) -> Option<SubscriptionKey> {
        let first = self.first_of_silent().filter(|(deadline, _)| *deadline <= now);
        first
            .min_by_key(|(deadline, _)| *deadline)
            .map(|(_, place)| place)
    }

    /// The next subscription of each owner that does not answer, with its deadline.
    fn first_of_silent(&self) -> impl Iterator<Item = (Uptime, SubscriptionKey)> {
        let silent = self.owners.iter().filter(|owner| owner.is_silent);
        silent.filter_map(|owner| {
            let place = owner.queue.get(owner.unanswered.first()?)?;
            Some((self.entries.get(place)?.deadline, *place))
        })
    }

    /// The number that the next question will have.
    pub(in crate::cores) fn next_number(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// The owner of the channel has been asked the question `number`, and must answer by `deadline`. Publications from
    /// `from` on are collected.
    pub(in crate::cores) fn asked(
        &mut self,
        place: SubscriptionKey,
        number: u64,
        from: Sequence,
        deadline: Uptime,
    ) {
        self.leave_stage(place);
        let Some(recovery) = self.entries.get_mut(&place) else {
            return;
        };
        let owner = &mut self.owners[recovery.owner];
        owner.asked += 1;
        let deadline = match recovery.progress {
            Progress::Unanswered { .. } if owner.is_silent => deadline.min(recovery.deadline),
            Progress::Unanswered { .. } | Progress::Answered { .. } => deadline,
        };
        recovery.ticket = number;
        recovery.stage = Stage::Asked {
            live: Live {
                from,
                collected: Collected::default(),
            },
            deadline,
        };
        self.active.push_back(Ticket { place, number });
    }

    /// The place of the subscription that has asked the question `number`, if it still waits for the answer.
    pub(in crate::cores) fn place_of(&self, number: u64) -> Option<SubscriptionKey> {
        let ticket = self.active.iter().find(|ticket| ticket.number == number)?;
        let recovery = self.entries.get(&ticket.place)?;
        (recovery.ticket == number && matches!(recovery.stage, Stage::Asked { .. })).then_some(ticket.place)
    }

    /// The entry of a subscription.
    pub(in crate::cores) fn get(&self, place: SubscriptionKey) -> Option<&Recovery> {
        self.entries.get(&place)
    }

    /// Begins to send the history.
    pub(in crate::cores) fn send(&mut self, place: SubscriptionKey, reading: Reading, told: Progress) {
        if let Some(recovery) = self.entries.get_mut(&place)
            && let Stage::Asked { mut live, .. } = std::mem::replace(&mut recovery.stage, Stage::Queued)
        {
            self.owners[recovery.owner].asked -= 1;
            if reading.left_out() > 0 {
                uncount(&mut self.collected, place.connection, live.collected.frames.len());
                live.collected = Collected::dropped();
            }
            recovery.stage = Stage::Sending { live, reading };
            recovery.progress = told;
        }
    }

    /// The publications that are sent to a subscription before it is live; `None` once they are sent.
    pub(in crate::cores) fn reading(&mut self, place: SubscriptionKey) -> Option<&mut Reading> {
        match &mut self.entries.get_mut(&place)?.stage {
            Stage::Sending { reading, .. } => Some(reading),
            Stage::Queued | Stage::Asked { .. } => None,
        }
    }

    /// How many bytes of memory the histories that are being sent occupy, if their channels have already
    /// dropped them.
    pub(in crate::cores) fn reading_bytes(&self) -> usize {
        let active = self.active.iter();
        let bytes = active.filter_map(|ticket| match &self.entries.get(&ticket.place)?.stage {
            Stage::Sending { reading, .. } if self.names(*ticket) => Some(reading.memory_bytes()),
            Stage::Sending { .. } | Stage::Queued | Stage::Asked { .. } => None,
        });
        bytes.sum()
    }

    /// The next subscription that is under way: each call returns another one.
    pub(in crate::cores) fn rotate(&mut self) -> Option<SubscriptionKey> {
        let ticket = self.active.pop_front()?;
        if !self.names(ticket) {
            return None;
        }
        self.active.push_back(ticket);
        Some(ticket.place)
    }

    /// Whether other subscriptions wait for a turn that a subscription under way would have to give them.
    pub(in crate::cores) fn is_crowded(&self) -> bool {
        let asked_max = of_owner_max(self.owners.len());
        let mut owners = self.owners.iter();
        self.active.len() >= AT_ONCE_MAX
            && owners.any(|owner| owner.asked < asked_max && !owner.queue.is_empty())
    }

    /// How many subscriptions are under way, including some that have ended.
    pub(in crate::cores) fn active_count(&self) -> usize {
        self.active.len()
    }

    /// A subscription that is under way gives its turn to another one: the history read for it and the
    /// collected publications are dropped. When its turn comes again, the owner is asked for the publications
    /// that the client lacks.
    pub(in crate::cores) fn give_way(&mut self, place: SubscriptionKey, up_to: u64) {
        self.leave_stage(place);
        let number = self.next_number();
        if let Some(recovery) = self.entries.get_mut(&place) {
            recovery.ticket = number;
            recovery.stage = Stage::Queued;
            recovery.progress = Progress::Answered { up_to };
            self.enqueue(place);
        }
    }

    /// Removes a subscription that is live from now on, or has ended.
    pub(in crate::cores) fn end(&mut self, place: SubscriptionKey) -> Option<Recovery> {
        self.leave_stage(place);
        let ended = self.entries.remove(&place)?;
        if let Some(count) = self.counts.get_mut(&place.channel) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place.channel);
            }
        }
        if self.entries.is_empty() {
            // The remaining tickets belong to no entry, and there is no work left.
            self.active.clear();
            self.next = Next::Event;
        }
        Some(ended)
    }

    /// A connection has ended: so do its subscriptions that are under way, and nothing is collected for it any more. The
    /// others end by [`Recoveries::end_some`].
    pub(in crate::cores) fn end_connection(&mut self, connection: u32) {
        let tickets = self.active.iter();
        let places = tickets.filter_map(|ticket| {
            (ticket.place.connection == connection && self.names(*ticket)).then_some(ticket.place)
        });
        for place in places.collect::<Vec<SubscriptionKey>>() {
            self.end(place);
        }
    }

    /// Of a connection that has ended, ends the subscriptions with the lowest numbers of channels, at most `max`.
    pub(in crate::cores) fn end_some(&mut self, connection: u32, max: usize) {
        let place = |channel| SubscriptionKey { connection, channel };
        let entries = self.entries.range(place(0)..=place(u32::MAX));
        let places: Vec<SubscriptionKey> = entries.take(max).map(|(place, _)| *place).collect();
        for place in places {
            self.end(place);
        }
    }

    /// Collects a publication of its channel for a subscription that is not live, as long as no more than
    /// `bytes_max` are collected. A single publication may be of any size.
    pub(in crate::cores) fn collect(
        &mut self,
        place: SubscriptionKey,
        sequence: Sequence,
        frame: &[u8],
        bytes_max: usize,
    ) {
        let Some(recovery) = self.entries.get_mut(&place) else {
            return;
        };
        let Some(live) = recovery.stage.live_mut() else {
            return;
        };
        let collected = &mut live.collected;
        if sequence < live.from || collected.is_incomplete {
            return;
        }
        if collected.count > 0 && collected.frames.len() + frame.len() > bytes_max {
            uncount(&mut self.collected, place.connection, collected.frames.len());
            *collected = Collected::dropped();
            return;
        }
        collected.frames.extend_from_slice(frame);
        collected.count += 1;
        *self.collected.entry(place.connection).or_default() += frame.len();
    }

    /// The owner of these channels will not answer: its time ends at `now`.
    pub(in crate::cores) fn expire(&mut self, now: Uptime, concerns: impl Fn(u32) -> bool) {
        for ticket in &self.active {
            if let Some(recovery) = self.entries.get_mut(&ticket.place)
                && let Stage::Asked { deadline, .. } = &mut recovery.stage
                && concerns(ticket.place.channel)
            {
                *deadline = now;
                self.next = Next::Now;
            }
        }
    }

    /// The earliest time by which an owner must have answered, or a client must get the answer that its owner
    /// does not.
    pub(in crate::cores) fn next_deadline(&self) -> Uptime {
        let deadlines = self.active.iter().filter_map(|ticket| {
            let recovery = self.entries.get(&ticket.place)?;
            match recovery.stage {
                Stage::Asked { deadline, .. } => Some(deadline),
                Stage::Queued | Stage::Sending { .. } => None,
            }
        });
        let queued = self.first_of_silent().map(|(deadline, _)| deadline);
        deadlines.chain(queued).min().unwrap_or(Uptime::NEVER)
    }

    /// The bytes that are collected for a connection.
    #[inline]
    pub(in crate::cores) fn bytes_of(&self, connection: u32) -> usize {
        if self.collected.is_empty() {
            return 0;
        }
        self.collected.get(&connection).copied().unwrap_or_default()
    }

    fn names(&self, ticket: Ticket) -> bool {
        self.entries
            .get(&ticket.place)
            .is_some_and(|recovery| recovery.ticket == ticket.number)
    }

    /// Drops the tickets of subscriptions that are not under way any more.
    fn drop_ended(&mut self) {
        let entries = &self.entries;
        self.active.retain(|ticket| {
            let recovery = entries.get(&ticket.place);
            recovery.is_some_and(|recovery| recovery.ticket == ticket.number)
        });
    }

    /// The stage of a subscription ends: its collected bytes, its question and its place in the queue no
    /// longer count.
    fn leave_stage(&mut self, place: SubscriptionKey) {
        let Some(recovery) = self.entries.get(&place) else {
            return;
        };
        let owner = &mut self.owners[recovery.owner];
        match &recovery.stage {
            Stage::Queued => {
                owner.queue.remove(&recovery.ticket);
                owner.unanswered.remove(&recovery.ticket);
            }
            Stage::Asked { live, .. } => {
                owner.asked -= 1;
                uncount(&mut self.collected, place.connection, live.collected.frames.len());
            }
            Stage::Sending { live, .. } => {
                uncount(&mut self.collected, place.connection, live.collected.frames.len());
            }
        }
    }
}

/// So many bytes are not collected any more for a connection.
fn uncount(collected: &mut HashMap<u32, usize>, connection: u32, bytes: usize) {
    if bytes > 0
        && let Some(sum) = collected.get_mut(&connection)
    {
        *sum -= bytes;
        if *sum == 0 {
            collected.remove(&connection);
        }
    }
}

#[cfg(test)]
impl Recoveries {
    /// Keeps the invariants at the head of the file.
    fn expect_consistent(&self) {
        assert_eq!(self.broken_invariant(|_| true), None);
    }

    /// A description of the first invariant that does not hold; `None` if all hold. `is_subscribed` says whether the
    /// broker has the subscription.
    pub(in crate::cores) fn broken_invariant(
        &self,
        is_subscribed: impl Fn(SubscriptionKey) -> bool,
    ) -> Option<String> {
        let mut collected: HashMap<u32, usize> = HashMap::new();
        let mut counts: HashMap<u32, u32> = HashMap::new();
        let (mut queued, mut unanswered) = (0, 0);
        for (place, recovery) in &self.entries {
            *counts.entry(place.channel).or_default() += 1;
            let owner = &self.owners[recovery.owner];
            let is_listed = match &recovery.stage {
                Stage::Queued => {
                    queued += 1;
                    unanswered += usize::from(owner.unanswered.contains(&recovery.ticket));
                    owner.queue.get(&recovery.ticket) == Some(place)
                        && owner.unanswered.contains(&recovery.ticket)
                            == matches!(recovery.progress, Progress::Unanswered { .. })
                }
                Stage::Asked { live, .. } | Stage::Sending { live, .. } => {
                    let bytes = live.collected.frames.len();
                    if bytes > 0 {
                        *collected.entry(place.connection).or_default() += bytes;
                    }
                    self.active
                        .iter()
                        .any(|ticket| ticket.place == *place && ticket.number == recovery.ticket)
                }
            };
            if !is_listed || !is_subscribed(*place) {
                return Some(format!("{place:?} is in no list or not subscribed: {recovery:?}"));
            }
        }
        let listed = self.queued_count();
        let listed_unanswered: usize = self.owners.iter().map(|owner| owner.unanswered.len()).sum();
        let asked: usize = self.owners.iter().map(|owner| owner.asked).sum();
        let are_asked = |recovery: &&Recovery| matches!(recovery.stage, Stage::Asked { .. });
        let is_right = (queued, unanswered) == (listed, listed_unanswered)
            && asked == self.entries.values().filter(are_asked).count()
            && (&collected, &counts) == (&self.collected, &self.counts);
        (!is_right)
            .then(|| format!("{queued} queued, {unanswered} unanswered, {collected:?}, {counts:?}: {self:?}"))
    }
}

impl Collected {
    /// Collected publications that were dropped because there were too many.
    fn dropped() -> Collected {
        Collected {
            is_incomplete: true,
            ..Collected::default()
        }
    }
}

impl Recovery {
    /// The offset after which the client lacks publications that were not collected, once it has the history
    /// that was read.
    pub(in crate::cores) fn missing_after(&self) -> Option<u64> {
        match (&self.progress, self.live()) {
            (Progress::Answered { up_to }, Some(live)) if live.collected.is_incomplete => Some(*up_to),
            (Progress::Answered { .. } | Progress::Unanswered { .. }, Some(_) | None) => None,
        }
    }

    /// The publications that follow the history; `None` while the subscription waits for its turn.
    pub(in crate::cores) fn live(&self) -> Option<&Live> {
        match &self.stage {
            Stage::Queued => None,
            Stage::Asked { live, .. } | Stage::Sending { live, .. } => Some(live),
        }
    }

    /// Whether its client can become live without the history: it has asked for the newest publication only,
    /// and a newer one was collected.
    pub(in crate::cores) fn has_newer_value(&self) -> bool {
        let wants_value = matches!(
            self.progress,
            Progress::Unanswered {
                wanted: Wanted::LastValue,
                ..
            }
        );
        wants_value && self.live().is_some_and(|live| live.collected.count > 0)
    }

    /// The publications that follow the history.
    pub(in crate::cores) fn into_live(self) -> Option<Live> {
        match self.stage {
            Stage::Queued => None,
            Stage::Asked { live, .. } | Stage::Sending { live, .. } => Some(live),
        }
    }

    /// Whether the answer of the owner is overdue.
    pub(in crate::cores) fn is_overdue(&self, now: Uptime) -> bool {
        match self.stage {
            Stage::Asked { deadline, .. } => deadline <= now,
            Stage::Queued | Stage::Sending { .. } => false,
        }
    }
}

impl Stage {
    fn live_mut(&mut self) -> Option<&mut Live> {
        match self {
            Stage::Queued => None,
            Stage::Asked { live, .. } | Stage::Sending { live, .. } => Some(live),
        }
    }
}

/// Most subscriptions of a core whose history is requested or sent at the same time; the others wait for
/// their turn. Together with `recovery_bytes_max`, it bounds the memory of the histories that cannot be
/// freed, and of the collected publications.
pub(in crate::cores) const AT_ONCE_MAX: usize = 64;

/// How many of [`AT_ONCE_MAX`] one owner may leave without an answer: an equal share, but a few at least.
fn of_owner_max(owners: usize) -> usize {
    (AT_ONCE_MAX / owners.max(1)).max(ASKED_OF_OWNER_MIN)
}

/// At least this many, so that in a server with many cores an owner gets more than one question in a turn of
/// the asker.
const ASKED_OF_OWNER_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Epoch, Position};

    const PLACE: SubscriptionKey = SubscriptionKey {
        connection: 7,
        channel: 3,
    };

    const ONE: OwnerOf = OwnerOf { owner: 0, owners: 1 };
    const DEADLINE: Uptime = Uptime::from_ms(100);

    fn place(connection: u32) -> SubscriptionKey {
        SubscriptionKey { connection, ..PLACE }
    }

    fn reading() -> Reading {
        Reading::empty(Position {
            epoch: Epoch::from_text(b"k3j9x0ab").unwrap(),
            offset: 9,
        })
    }

    /// Begins and asks: publications from 10 on are collected.
    fn asked(recoveries: &mut Recoveries, wanted: Wanted) -> u64 {
        recoveries.begin(PLACE, ONE, DEADLINE, wanted, b"5");
        let ticket = recoveries.next_queued().unwrap();
        assert_eq!(ticket.place, PLACE);
        let number = recoveries.next_number();
        recoveries.asked(PLACE, number, Sequence(10), Uptime::from_ms(100));
        number
    }

    fn collect(recoveries: &mut Recoveries, sequence: u64, frame: &[u8]) {
        recoveries.collect(PLACE, Sequence(sequence), frame, 100);
    }

    fn live(recoveries: &Recoveries) -> (u64, Vec<u8>, bool) {
        let live = recoveries.get(PLACE).unwrap().live().unwrap();
        let collected = &live.collected;
        (
            live.from.as_u64(),
            collected.frames.clone(),
            collected.is_incomplete,
        )
    }

    #[test]
    fn publications_are_collected_from_the_place_where_the_history_ends() {
        let mut recoveries = Recoveries::default();
        recoveries.begin(PLACE, ONE, DEADLINE, Wanted::Last(5), b"5");
        collect(&mut recoveries, 8, b"queued");
        let ticket = recoveries.next_queued().unwrap();
        let number = recoveries.next_number();
        recoveries.asked(ticket.place, number, Sequence(10), Uptime::from_ms(100));
        for (sequence, frame) in [(9, b"9"), (10, b"a"), (11, b"b")] {
            collect(&mut recoveries, sequence, frame);
        }
        assert_eq!(live(&recoveries), (10, b"ab".to_vec(), false));
        assert_eq!(recoveries.bytes_of(7), 2);
        assert_eq!(recoveries.place_of(number), Some(PLACE));
        assert_eq!(recoveries.next_deadline(), Uptime::from_ms(100));
        recoveries.send(PLACE, reading(), Progress::Answered { up_to: 9 });
        assert_eq!(recoveries.place_of(number), None, "it has its answer");
        collect(&mut recoveries, 12, b"c");
        let ended = recoveries.end(PLACE).unwrap().into_live().unwrap();
        assert_eq!(
            (ended.collected.frames, ended.collected.count),
            (b"abc".to_vec(), 3)
        );
        assert!(recoveries.is_empty() && recoveries.bytes_of(7) == 0 && !recoveries.concern(3));
    }

    #[test]
    fn too_much_is_dropped_and_nothing_more_is_collected_until_the_owner_is_asked_again() {
        let mut recoveries = Recoveries::default();
        asked(&mut recoveries, Wanted::Last(5));
        collect(&mut recoveries, 10, &[b'x'; 50]);
        collect(&mut recoveries, 11, &[b'x'; 50]);
        assert_eq!((live(&recoveries).1.len(), recoveries.bytes_of(7)), (100, 100));
        collect(&mut recoveries, 12, b"y");
        collect(&mut recoveries, 13, b"z");
        assert_eq!(live(&recoveries), (10, Vec::new(), true));
        assert_eq!(recoveries.bytes_of(7), 0);
        recoveries.send(PLACE, reading(), Progress::Answered { up_to: 9 });
        recoveries.give_way(PLACE, 9);
        collect(&mut recoveries, 14, b"queued");
        assert_eq!(recoveries.next_queued().unwrap().place, PLACE);
        let number = recoveries.next_number();
        recoveries.asked(PLACE, number, Sequence(15), Uptime::NEVER);
        collect(&mut recoveries, 15, b"again");
        assert_eq!(live(&recoveries), (15, b"again".to_vec(), false));
    }

    #[test]
    fn one_publication_of_any_size_is_collected() {
        let mut recoveries = Recoveries::default();
        asked(&mut recoveries, Wanted::LastValue);
        assert!(!recoveries.get(PLACE).unwrap().has_newer_value());
        collect(&mut recoveries, 10, &[b'x'; 200]);
        assert!(recoveries.get(PLACE).unwrap().has_newer_value());
        assert_eq!(live(&recoveries).0, 10);
    }

    #[test]
    fn an_answer_to_an_earlier_question_names_nothing() {
        let mut recoveries = Recoveries::default();
        let first = asked(&mut recoveries, Wanted::Last(5));
        recoveries.give_way(PLACE, 9);
        assert_eq!(recoveries.place_of(first), None);
        recoveries.next_queued().unwrap();
        let second = recoveries.next_number();
        recoveries.asked(PLACE, second, Sequence(20), Uptime::NEVER);
        assert_eq!(recoveries.place_of(first), None);
        assert_eq!(recoveries.place_of(second), Some(PLACE));
        recoveries.end_connection(7);
        assert_eq!(recoveries.place_of(second), None);
        // The same place again is another recovery.
        let third = asked(&mut recoveries, Wanted::Last(5));
        assert_eq!(
            (recoveries.place_of(second), recoveries.place_of(third)),
            (None, Some(PLACE))
        );
    }

    #[test]
    fn so_many_are_under_way_at_once_and_the_others_wait_in_their_order() {
        let mut recoveries = Recoveries::default();
        let count = u32::try_from(AT_ONCE_MAX).unwrap() + 3;
        for connection in 0..count {
            recoveries.begin(place(connection), ONE, DEADLINE, Wanted::LastValue, b"1");
        }
        let mut begun = Vec::new();
        let ask = |recoveries: &mut Recoveries, begun: &mut Vec<u32>| {
            while let Some(ticket) = recoveries.next_queued() {
                let number = recoveries.next_number();
                recoveries.asked(ticket.place, number, Sequence(1), Uptime::NEVER);
                begun.push(ticket.place.connection);
            }
        };
        ask(&mut recoveries, &mut begun);
        assert_eq!((begun.len(), recoveries.queued_count()), (AT_ONCE_MAX, 3));
        assert!(!recoveries.is_crowded(), "the owner has its share");
        recoveries.send(place(1), reading(), Progress::Answered { up_to: 9 });
        assert!(recoveries.is_crowded());
        // One subscription that is under way ends, and one that waits.
        recoveries.end(place(5));
        recoveries.end_some(count - 3, 1);
        ask(&mut recoveries, &mut begun);
        assert_eq!(begun.len(), AT_ONCE_MAX + 1);
        // One gives way to the last, and comes after it.
        recoveries.give_way(place(0), 4);
        ask(&mut recoveries, &mut begun);
        assert_eq!(begun[AT_ONCE_MAX..], [count - 2, count - 1]);
        assert_eq!(recoveries.queued_count(), 1);
        let mut served: Vec<u32> = (0..recoveries.active_count())
            .filter_map(|_| Some(recoveries.rotate()?.connection))
            .collect();
        served.sort_unstable();
        let under_way: Vec<u32> = (1..count).filter(|&one| one != 5 && one != count - 3).collect();
        assert_eq!(served, under_way);
    }

    #[test]
    fn when_a_connection_ends_what_is_under_way_ends_at_once_and_the_rest_in_steps() {
        let mut recoveries = Recoveries::default();
        let place = |connection, channel| SubscriptionKey { connection, channel };
        for channel in 0..1000 {
            for connection in [7, 8] {
                recoveries.begin(place(connection, channel), ONE, DEADLINE, Wanted::LastValue, b"1");
            }
        }
        for _ in 0..20 {
            let ticket = recoveries.next_queued().unwrap();
            let number = recoveries.next_number();
            recoveries.asked(ticket.place, number, Sequence(1), Uptime::NEVER);
            recoveries.collect(ticket.place, Sequence(1), &[b'x'; 10], 1000);
        }
        recoveries.expect_consistent();
        assert_eq!((recoveries.bytes_of(7), recoveries.bytes_of(8)), (100, 100));
        recoveries.end_connection(7);
        // Nothing is collected for it, and nothing keeps a history from being freed: that much is done in one turn.
        assert_eq!((recoveries.bytes_of(7), recoveries.bytes_of(8)), (0, 100));
        assert_eq!((recoveries.len(), recoveries.queued_count()), (1990, 1980));
        recoveries.expect_consistent();
        for step in 1..=10 {
            recoveries.end_some(7, 100);
            assert_eq!(recoveries.len(), (1990 - 100 * step).max(1000));
            recoveries.expect_consistent();
        }
        assert!(!recoveries.has(place(7, 999)) && recoveries.has(place(8, 0)));
        recoveries.end_connection(8);
        recoveries.end_some(8, usize::MAX);
        recoveries.expect_consistent();
        assert!(recoveries.is_empty() && recoveries.active_count() == 0);
    }

    #[test]
    fn an_owner_that_does_not_answer_holds_up_no_channel_of_another_and_no_client_longer_than_its_time() {
        let mut recoveries = Recoveries::default();
        let of = |owner| OwnerOf { owner, owners: 4 };
        let ms = Uptime::from_ms;
        // The subscribers of the stuck owner come first, one in each millisecond.
        for connection in 0..200 {
            let deadline = ms(5000 + u64::from(connection));
            recoveries.begin(place(connection), of(2), deadline, Wanted::LastValue, b"1");
        }
        for connection in 200..210 {
            recoveries.begin(place(connection), of(0), ms(6000), Wanted::LastValue, b"1");
        }
        let mut asked = Vec::new();
        while let Some(ticket) = recoveries.next_queued() {
            let number = recoveries.next_number();
            recoveries.asked(ticket.place, number, Sequence(1), ms(5300));
            asked.push(ticket.place.connection);
        }
        let of_others = asked.iter().filter(|&&connection| connection >= 200).count();
        assert_eq!((asked.len(), of_others), (AT_ONCE_MAX / 4 + 10, 10));
        assert!(!recoveries.is_crowded());
        // While the owner is not known to be silent, its other subscriptions only wait for their turn.
        assert_eq!(recoveries.overdue_in_queue(ms(5299)), None);
        assert_eq!(recoveries.next_deadline(), ms(5300));
        recoveries.note_silent(place(0));
        recoveries.end(place(0));
        assert_eq!(recoveries.next_deadline(), ms(5016));
        for connection in 16..200 {
            let now = ms(5000 + u64::from(connection));
            assert_eq!(recoveries.overdue_in_queue(ms(now.as_ms() - 1)), None);
            assert_eq!(recoveries.overdue_in_queue(now), Some(place(connection)));
            recoveries.end(place(connection));
        }
        // A subscription that comes now has its own deadline, and an answer ends the silence.
        recoveries.begin(place(16), of(2), ms(5400), Wanted::LastValue, b"1");
        let number = recoveries.next_number();
        assert_eq!(
            recoveries.next_queued().map(|ticket| ticket.place),
            Some(place(16))
        );
        recoveries.asked(place(16), number, Sequence(1), ms(9000));
        recoveries.begin(place(17), of(2), ms(5500), Wanted::LastValue, b"1");
        assert!(recoveries.get(place(16)).unwrap().is_overdue(ms(5400)));
        recoveries.note_answered(place(16));
        recoveries.send(place(16), reading(), Progress::Answered { up_to: 9 });
        assert_eq!(recoveries.overdue_in_queue(ms(9999)), None);
        for connection in 0..210 {
            recoveries.end_connection(connection);
            recoveries.end_some(connection, 1);
        }
        assert!(recoveries.owners.iter().all(|owner| owner.asked == 0) && recoveries.is_empty());
    }
}
