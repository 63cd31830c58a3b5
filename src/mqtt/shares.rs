//! Shared subscriptions: each publication that matches goes to one session of a group (section 4.8.2).
//!
//! ```text
//!   core of a member                          core that owns the group: hash of `$share/GROUP/FILTER`
//!   SUBSCRIBE ── Join ──────────────────────► members, each with its publications in flight
//!   SUBACK ◄──── Joined ─────────────────────
//!                                             publication ─► filter ─► the member with least in flight
//!   session ◄─── Handed ─────────────────────
//!   acknowledged, or dropped ── Settled ────► one less in flight
//!   session ends ─── Left, GivenBack ───────► another member
//! ```
//! The owner alone subscribes to the filter (`Subscriber::Group`), so each publication is dispatched once.
//! Connected members come first, then those with least in flight, then those whose turn was longest ago. Tags
//! on a session's publications (`sessions/kept_publications.rs`) say which of them belong to a group.
//!
//! If a session ends, the publications that it has not got go back to the group, which is named by its number
//! and not by the topic: those with QoS 1 without an acknowledgement, and those that were never sent. A
//! publication with QoS 2 that was sent does not (MQTT-4.8.2-5). Only a session that has ended gives
//! publications back, so it is no longer a member.
//!
//! A session may be in ten thousand groups. When it gets a connection, loses it, or ends, its groups are
//! told, in each turn as many as the turn may.
//!
//! Messages for other cores are collected and sent at the end of the turn, one letter for each core, if there
//! is room. SUBACK waits for the owner: a client that has got it is a member for everything that is published
//! from then on.
//!
//! A filter of procedures, `$share/GROUP/$rpc/NAME`, makes a service, not a member of a group
//! (`session/serve.rs`). It is kept here nevertheless, since it is a subscription of the session and outlives
//! the connection. Messages about it find no group.
//!
//! Limits: those of filters, for the memberships of a session; `JOINS_WAITING_MAX`; for each member as many
//! publications in flight as a session may have in flight and waiting (`mqtt_in_flight_max`,
//! `mqtt_queue_messages_max`); `mqtt_queues_bytes_max` for publications that other cores have not taken, and
//! those that sessions of this core have not been given.

mod groups;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

pub use self::groups::GroupRef;
use self::groups::{Chosen, Groups, Member};
use super::sessions::{Bounds, Content, CoreLocation, Outbound, SessionRef, SharedPublication};
use super::subscriptions::{Options, SubscribeOutcome, UnsubscribeOutcome};
use crate::broker::SubscriptionLimits;
use crate::services::Offer;

/// The groups that a core owns, and the memberships of its sessions in groups of any core.
#[derive(Debug)]
pub struct Shares {
    place: CoreLocation,
    groups: Groups,
    /// By the number of the session, and by the text of the filter.
    memberships: HashMap<u32, Memberships>,
    /// For each core, the messages to tell it.
    messages: Box<[Vec<ShareMessage>]>,
    /// The bytes of the publications in `messages`.
    message_bytes: usize,
    /// Most bytes of publications in `messages` and in `handed`.
    message_bytes_max: usize,
    /// Publications for sessions of this core.
    handed: VecDeque<Handed>,
    /// Their bytes.
    handed_bytes: usize,
    waiting: HashMap<u64, WaitingAnswer>,
    /// Answers to SUBSCRIBE that need not wait any more.
    answers: Vec<WaitingAnswer>,
    last_wait: u64,
    redispatched: u64,
    dropped: u64,
    /// Sessions whose owners have yet to be told whether they have connections, each once.
    unreported: VecDeque<SessionRef>,
}

/// The memberships of one session.
#[derive(Debug, Default)]
struct Memberships {
    filters: BTreeMap<Box<str>, Membership>,
    bytes: usize,
    /// `None` while all owners know whether the session has a connection.
    telling: Option<PresenceReport>,
}

/// The owners of a session's groups are being told whether it has a connection: one group after the other, in
/// the order of their texts, and the first follows the last.
#[derive(Debug)]
struct PresenceReport {
    /// The serial number of the session.
    serial: u64,
    is_connected: bool,
    /// The group that was told last; `None` before the first.
    last: Option<Box<str>>,
    /// How many groups are still to be told.
    left: usize,
}

/// The terms of a session's subscription to a `$share/GROUP/FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The options of the filter.
    pub options: Options,
    /// The client's offer as a service, if the filter is one of procedures: then it is in no group.
    pub service: Option<ServiceOffer>,
}

/// The offer of a client that is a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOffer {
    /// Weight and window.
    pub offer: Offer,
    /// Its description for operators, as JSON.
    pub meta: Option<Box<str>>,
}

/// A message from core to core about shared subscriptions.
#[derive(Debug)]
pub enum ShareMessage {
    /// To the owner: a session joins the group, or changes its options.
    Join(Box<Join>),
    /// To the core of the member: the session has joined. The number is that of the wait.
    Joined(u64),
    /// To the owner: the session has left the group of this text.
    Left {
        /// `$share/GROUP/FILTER`.
        text: Box<str>,
        /// The serial number of the session.
        serial: u64,
    },
    /// To the owner: the session has got a connection, or has lost it.
    Presence {
        /// `$share/GROUP/FILTER`.
        text: Box<str>,
        /// The serial number of the session.
        serial: u64,
        /// Whether it has a connection.
        is_connected: bool,
    },
    /// To the core of the member: a publication for it.
    Handed(Handed),
    /// To the owner: the session is done with one publication.
    Settled(Tag),
    /// To the owner: the session has ended, and its client has not got the publication.
    GivenBack(Tag, SharedPublication),
}

/// A session joins a group.
#[derive(Debug)]
pub struct Join {
    text: Box<str>,
    core: usize,
    session: SessionRef,
    options: Options,
    is_connected: bool,
    wait: u64,
}

/// A publication on its way to one member.
#[derive(Debug)]
pub struct Handed {
    /// The number by which the owner counts it.
    pub tag: Tag,
    /// The QoS and the RETAIN flag for this member.
    pub outbound: Outbound,
    /// The content that is published, and the member's subscription identifier.
    pub publication: SharedPublication,
}

/// Names a publication that a group has given to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The core that owns the group.
    pub owner: usize,
    /// The group.
    pub group: GroupRef,
    /// The member.
    pub session: SessionRef,
    /// Its QoS and flag when it was published, in case it goes to another member.
    pub published: Outbound,
}

/// An answer to SUBSCRIBE that waits until owners have added the session to their groups.
#[derive(Debug)]
pub struct WaitingAnswer {
    /// The session.
    pub session: SessionRef,
    /// The address of the connection that has subscribed.
    pub address: usize,
    /// The packet.
    pub packet: Vec<u8>,
    left: usize,
}

/// How a [`Shares::join`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// As for other filters.
    Is(SubscribeOutcome),
    /// The same, once the owner has answered: SUBACK waits ([`Shares::wait`]).
    Waits(SubscribeOutcome),
    /// Too many answers wait for owners.
    Busy,
}

/// A change of the filters of the groups of this core, for its subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterChange {
    /// There is a new group.
    Added(u32, Box<str>),
    /// The group has no members any more.
    Removed(u32),
}

impl Shares {
    /// No groups.
    pub fn new(bounds: &Bounds, place: CoreLocation) -> Shares {
        let in_flight_max = bounds
            .queue_messages_max
            .saturating_add(bounds.in_flight_max.into());
        Shares {
            groups: Groups::new(u32::try_from(in_flight_max).unwrap_or(u32::MAX)),
            memberships: HashMap::new(),
            messages: (0..place.cores).map(|_| Vec::new()).collect(),
            place,
            message_bytes: 0,
            message_bytes_max: bounds.queues_bytes_max,
            handed: VecDeque::new(),
            handed_bytes: 0,
            waiting: HashMap::new(),
            answers: Vec::new(),
            last_wait: 0,
            redispatched: 0,
            dropped: 0,
            unreported: VecDeque::new(),
        }
    }

    /// The number of the next SUBSCRIBE that may have to wait.
    pub fn next_wait(&mut self) -> u64 {
        self.last_wait += 1;
        self.last_wait
    }

    /// A session subscribes to `text`, which is `$share/GROUP/FILTER`. `wait` is the number of the SUBSCRIBE packet.
    pub fn join(
        &mut self,
        session: SessionRef,
        text: &str,
        options: Options,
        limits: SubscriptionLimits,
        wait: u64,
    ) -> JoinOutcome {
        let owner = self.owner(text);
        if owner != self.place.core && self.waiting.len() >= JOINS_WAITING_MAX {
            return JoinOutcome::Busy;
        }
        let membership = Membership {
            options,
            service: None,
        };
        let outcome = self.keep(session, text, membership, limits);
        if let SubscribeOutcome::TooMany { .. } | SubscribeOutcome::TooLong { .. } = outcome {
            return JoinOutcome::Is(outcome);
        }
        self.tell(
            owner,
            ShareMessage::Join(Box::new(Join {
                text: text.into(),
                core: self.place.core,
                session,
                options,
                is_connected: true,
                // This core answers itself at once, and no SUBACK waits for that.
                wait: if owner == self.place.core { 0 } else { wait },
            })),
        );
        if owner == self.place.core {
            JoinOutcome::Is(outcome)
        } else {
            JoinOutcome::Waits(outcome)
        }
    }

    /// A session subscribes to procedures as a service: the answer waits ([`Shares::wait`]) until
    /// [`Shares::note_joined`].
    pub fn serve(
        &mut self,
        session: SessionRef,
        text: &str,
        membership: Membership,
        limits: SubscriptionLimits,
    ) -> JoinOutcome {
        if self.waiting.len() >= JOINS_WAITING_MAX {
            return JoinOutcome::Busy;
        }
        JoinOutcome::Waits(self.keep(session, text, membership, limits))
    }

    /// Keeps a filter of a session, if it may have one more.
    fn keep(
        &mut self,
        session: SessionRef,
        text: &str,
        membership: Membership,
        limits: SubscriptionLimits,
    ) -> SubscribeOutcome {
        // If the filter is refused, the entry stays empty until the session ends.
        let memberships = self.memberships.entry(session.number).or_default();
        let (count, bytes) = (memberships.filters.len(), memberships.bytes + text.len());
        if let Some(old) = memberships.filters.get_mut(text) {
            *old = membership;
            SubscribeOutcome::Replaced
        } else if count >= limits.channels_max as usize {
            let limit = limits.channels_max;
            SubscribeOutcome::TooMany { limit }
        } else if bytes > limits.names_bytes_max as usize {
            let limit = limits.names_bytes_max;
            SubscribeOutcome::TooLong { limit }
        } else {
            memberships.bytes = bytes;
            memberships.filters.insert(text.into(), membership);
            if let Some(telling) = &mut memberships.telling {
                // Its owner learns it from the message about the join. The group may come before groups that
                // are still to be told.
                telling.left += 1;
            }
            SubscribeOutcome::New
        }
    }

    /// Changes a code in an answer that waits: the code is `behind` bytes before the end of the packet.
    pub fn set_code(&mut self, wait: u64, behind: usize, code: u8) {
        let answer = self.waiting.get_mut(&wait);
        let at = answer.and_then(|answer| {
            let at = answer.packet.len().checked_sub(behind)?;
            answer.packet.get_mut(at)
        });
        if let Some(at) = at {
            *at = code;
        }
    }

    /// Keeps the answer to a SUBSCRIBE for which `owners` owners of groups have to answer, or have answered
    /// since [`Shares::begin_wait`].
    pub fn wait(&mut self, wait: u64, session: SessionRef, address: usize, owners: usize, packet: Vec<u8>) {
        let begun = self.waiting.remove(&wait);
        let answered = begun.map_or(0, |begun| usize::MAX - begun.left);
        let answer = WaitingAnswer {
            session,
            address,
            packet,
            left: owners.saturating_sub(answered),
        };
        if answer.left == 0 {
            self.answers.push(answer);
        } else {
            self.waiting.insert(wait, answer);
        }
    }

    /// The rest of a long SUBSCRIBE comes in later turns: the answers of owners are counted until [`Shares::wait`].
    pub fn begin_wait(&mut self, wait: u64) {
        self.waiting.entry(wait).or_insert_with(|| WaitingAnswer {
            session: SessionRef { number: 0, serial: 0 },
            address: 0,
            packet: Vec::new(),
            left: usize::MAX,
        });
    }

    /// The SUBSCRIBE will not be answered: its connection has ended, or the client does not take the packet.
    pub fn forget_wait(&mut self, wait: u64) {
        self.waiting.remove(&wait);
    }

    /// A session unsubscribes from `text`.
    pub fn leave(&mut self, session: SessionRef, text: &str) -> UnsubscribeOutcome {
        let Some(memberships) = self.memberships.get_mut(&session.number) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        let Some((text, _)) = memberships.filters.remove_entry(text) else {
            return UnsubscribeOutcome::NotSubscribed;
        };
        memberships.bytes -= text.len();
        if memberships.filters.is_empty() {
            self.memberships.remove(&session.number);
        }
        let (owner, serial) = (self.owner(&text), session.serial);
        self.tell(owner, ShareMessage::Left { text, serial });
        UnsubscribeOutcome::Unsubscribed
    }

    /// A session has ended: it leaves some of its groups, at most `max`. Returns how many.
    pub fn end_some(&mut self, session: SessionRef, max: usize) -> usize {
        let mut left = 0;
        while let Some(memberships) = self.memberships.get_mut(&session.number) {
            if memberships.filters.is_empty() {
                self.memberships.remove(&session.number);
                break;
            }
            if left == max {
                break;
            }
            left += 1;
            if let Some((text, _)) = memberships.filters.pop_first() {
                let (owner, serial) = (self.owner(&text), session.serial);
                self.tell(owner, ShareMessage::Left { text, serial });
            }
        }
        left
    }

    /// A session has got a connection, or has lost it: the owners of its groups are told by [`Shares::tell_presence`].
    pub fn note_connected(&mut self, session: SessionRef, is_connected: bool) {
        let Some(memberships) = self.memberships.get_mut(&session.number) else {
            return;
        };
        let left = memberships.filters.len();
        if left == 0 {
            return;
        }
        match &mut memberships.telling {
            // The groups that have already been told are told again, after the others.
            Some(telling) => (telling.is_connected, telling.left) = (is_connected, left),
            telling @ None => {
                *telling = Some(PresenceReport {
                    serial: session.serial,
                    is_connected,
                    last: None,
                    left,
                });
                self.unreported.push_back(session);
            }
        }
    }

    /// Whether owners have yet to be told that sessions have got or lost connections.
    pub fn has_unreported(&self) -> bool {
        !self.unreported.is_empty()
    }

    /// Tells the owners of some groups, at most `max`, that sessions have got or lost connections. Returns
    /// how many. Until then a group may choose a member without a connection as if it had one: then the
    /// publication waits in the session.
    pub fn tell_presence(&mut self, max: usize) -> usize {
        let mut told = 0;
        while told < max
            && let Some(&session) = self.unreported.front()
        {
            let Some((text, is_connected)) = self.next_unreported(session) else {
                self.unreported.pop_front();
                continue;
            };
            let (owner, serial) = (self.owner(&text), session.serial);
            let messages = ShareMessage::Presence {
                text,
                serial,
                is_connected,
            };
            self.tell(owner, messages);
            told += 1;
        }
        told
    }

    /// The next group of a session whose owner is to be told whether the session has a connection.
    fn next_unreported(&mut self, session: SessionRef) -> Option<(Box<str>, bool)> {
        let memberships = self.memberships.get_mut(&session.number)?;
        let telling = memberships
            .telling
            .as_mut()
            .filter(|telling| telling.serial == session.serial)?;
        let filters = &memberships.filters;
        let after = telling.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = filters.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| filters.first_key_value());
        let left = telling.left.checked_sub(1);
        let (Some((text, _)), Some(left)) = (next, left) else {
            memberships.telling = None;
            return None;
        };
        (telling.left, telling.last) = (left, Some(text.clone()));
        Some((text.clone(), telling.is_connected))
    }

    /// The shared subscriptions of a session, as `$share/GROUP/FILTER`: at most `max`, behind the first `skipped`.
    pub fn texts_of(&self, session: SessionRef, skipped: u32, max: usize) -> Vec<Box<str>> {
        let memberships = self.memberships.get(&session.number);
        memberships.map_or_else(Vec::new, |memberships| {
            let texts = memberships.filters.keys().skip(skipped as usize);
            texts.take(max).cloned().collect()
        })
    }

    /// The terms on which a session has subscribed to `text`.
    pub fn membership_of(&self, number: u32, text: &str) -> Option<&Membership> {
        self.memberships.get(&number)?.filters.get(text)
    }

    /// How many groups a session is a member of.
    pub fn count_of(&self, session: SessionRef) -> usize {
        let memberships = self.memberships.get(&session.number);
        memberships.map_or(0, |memberships| memberships.filters.len())
    }

    /// The generation of the newest group of this core.
    pub fn last_generation(&self) -> u64 {
        self.groups.last_generation()
    }

    /// Gives a publication that matches the filter of a group of this core to one of its members. Groups that
    /// are newer than `last_generation` began after the publication.
    pub fn dispatch(&mut self, group: u32, last_generation: u64, content: &Content<'_>, published: Outbound) {
        if let Some(group) = self.groups.reference(group, last_generation) {
            self.give(group, published, |id| SharedPublication::new(content, id));
        }
    }

    /// A session of this core is done with one publication of a group.
    pub fn settle(&mut self, tag: Tag) {
        self.tell(tag.owner, ShareMessage::Settled(tag));
    }

    /// A session of this core has ended, and its client has not got one publication of a group.
    pub fn give_back(&mut self, tag: Tag, publication: SharedPublication) {
        self.tell(tag.owner, ShareMessage::GivenBack(tag, publication));
    }

    /// Takes messages of another core.
    pub fn receive(&mut self, from: usize, messages: Vec<ShareMessage>) {
        for one in messages {
            if let Some(answer) = self.take(one) {
                self.tell(from, answer);
            }
        }
    }

    /// Takes the messages for a core; the caller has room for a letter.
    pub fn take_messages(&mut self, core: usize) -> Vec<ShareMessage> {
        let messages = std::mem::take(&mut self.messages[core]);
        self.message_bytes -= messages.iter().map(ShareMessage::bytes).sum::<usize>();
        messages
    }

    /// Whether there are messages for a core.
    pub fn has_messages_for(&self, core: usize) -> bool {
        !self.messages[core].is_empty()
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.place.cores
    }

    /// Whether there are messages for any core.
    pub fn has_messages(&self) -> bool {
        self.messages.iter().any(|messages| !messages.is_empty())
    }

    /// The next publication for a session of this core.
    pub fn next_handed(&mut self) -> Option<Handed> {
        let handed = self.handed.pop_front()?;
        self.handed_bytes -= handed.publication.bytes();
        Some(handed)
    }

    /// Whether there are publications for sessions of this core, or answers.
    pub fn has_work(&self) -> bool {
        !self.handed.is_empty() || !self.answers.is_empty()
    }

    /// The next answer to SUBSCRIBE that need not wait any more.
    pub fn next_answer(&mut self) -> Option<WaitingAnswer> {
        self.answers.pop()
    }

    /// Whether the filters of groups have changed.
    #[inline]
    pub fn has_changes(&self) -> bool {
        self.groups.has_changes()
    }

    /// The next change of the filters of groups.
    pub fn next_change(&mut self) -> Option<FilterChange> {
        self.groups.next_change()
    }

    /// A core has stopped, and its sessions with it. No answer waits for it any more.
    pub fn note_stopped(&mut self, core: usize) {
        self.take_messages(core);
        self.groups.remove_core(core);
        // Which answers wait for that core is not known; the server is stopping.
        self.answers
            .extend(self.waiting.drain().map(|(_, answer)| answer));
    }

    /// How many publications each member of this core's groups has in flight, by the group and the serial number of its
    /// session.
    #[cfg(test)]
    pub(crate) fn in_flight_of_members(&self) -> Vec<(GroupRef, u64, u32)> {
        self.groups.in_flight_of_members()
    }

    /// How many publications went to another member, and how many no member had room for, since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        let counts = (self.redispatched, self.dropped);
        (self.redispatched, self.dropped) = (0, 0);
        counts
    }

    /// How many groups this core owns.
    pub fn groups_len(&self) -> usize {
        self.groups.len()
    }

    fn owner(&self, text: &str) -> usize {
        self.place.hasher.hash(text.as_bytes()).owner(self.place.cores)
    }

    /// Tells a core a message. This core takes it at once.
    fn tell(&mut self, core: usize, messages: ShareMessage) {
        if core != self.place.core {
            self.message_bytes += messages.bytes();
            self.messages[core].push(messages);
        } else if let Some(answer) = self.take(messages) {
            let further = self.take(answer);
            debug_assert!(further.is_none(), "an answer has no answer");
        }
    }

    /// Handles a message. Returns the answer to the core that has sent it.
    fn take(&mut self, messages: ShareMessage) -> Option<ShareMessage> {
        match messages {
            ShareMessage::Join(join) => {
                let Join {
                    text,
                    core,
                    session,
                    options,
                    is_connected,
                    wait,
                } = *join;
                self.groups
                    .join(text, Member::new(core, session, options, is_connected));
                return Some(ShareMessage::Joined(wait));
            }
            ShareMessage::Joined(wait) => self.note_joined(wait),
            ShareMessage::Left { text, serial } => self.groups.leave(&text, serial),
            ShareMessage::Presence {
                text,
                serial,
                is_connected,
            } => self.groups.set_connected(&text, serial, is_connected),
            ShareMessage::Handed(handed) => {
                self.handed_bytes += handed.publication.bytes();
                self.handed.push_back(handed);
            }
            ShareMessage::Settled(tag) => self.groups.settle(tag.group, tag.session.serial),
            ShareMessage::GivenBack(tag, publication) => {
                // The session has ended, and may have more groups to leave than one turn may: without this, the group
                // could choose it again.
                self.groups.remove_member(tag.group, tag.session.serial);
                self.redispatched += 1;
                self.give(tag.group, tag.published, |id| publication.with_id(id));
            }
        }
        None
    }

    /// One of the owners that an answer waits for has answered.
    pub fn note_joined(&mut self, wait: u64) {
        let Some(answer) = self.waiting.get_mut(&wait) else {
            return; // that of a group of this core, or one that does not wait
        };
        answer.left = answer.left.saturating_sub(1);
        if answer.left == 0
            && let Some(answer) = self.waiting.remove(&wait)
        {
            self.answers.push(answer);
        }
    }

    fn give(
        &mut self,
        group: GroupRef,
        published: Outbound,
        publication: impl FnOnce(u32) -> SharedPublication,
    ) {
        if self.message_bytes + self.handed_bytes > self.message_bytes_max {
            self.dropped += 1;
            return;
        }
        let member = match self.groups.choose(group) {
            Chosen::Member(member) => member,
            Chosen::None => return,
            Chosen::Full => {
                self.dropped += 1;
                return;
            }
        };
        let handed = Handed {
            tag: Tag {
                owner: self.place.core,
                group,
                session: member.session,
                published,
            },
            outbound: Outbound {
                qos: published.qos.min(member.options.qos as u8),
                retain: published.retain && member.options.retain_as_published,
            },
            publication: publication(member.options.id),
        };
        self.tell(member.core, ShareMessage::Handed(handed));
    }
}

impl ShareMessage {
    fn bytes(&self) -> usize {
        match self {
            ShareMessage::Handed(handed) => handed.publication.bytes(),
            ShareMessage::GivenBack(_, publication) => publication.bytes(),
            ShareMessage::Join(_)
            | ShareMessage::Joined(_)
            | ShareMessage::Left { .. }
            | ShareMessage::Presence { .. }
            | ShareMessage::Settled(_) => 0,
        }
    }
}

/// Most SUBSCRIBE packets of one core whose answers wait for owners of groups.
const JOINS_WAITING_MAX: usize = 4096;

#[cfg(test)]
mod tests;
