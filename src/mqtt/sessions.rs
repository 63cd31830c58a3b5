//! The MQTT sessions of one core: everything about a client id that outlives a connection.
//!
//! ```text
//!              CONNECT                        DISCONNECT, or the connection is lost
//!   (none) ─────────────► connected ─────────────────────────────────► waiting ──── expiry ────► (none)
//!                          │  ▲ │  ▲                  │ expiry 0          │  CONNECT
//!                          │  └─┘  └──────────────────┼───────────────────┘
//!                          │ take-over                └──► (none)
//! ```
//! Each client id has one owner core, and its connections are moved there before CONNECT is read. So
//! everything about a client id happens on one core, in one order, and no state is shared.
//!
//! A session has a number, which is used again after its end, and a serial number, which is not
//! ([`SessionRef`]). A connection is named by its address on the core, which is not used again either. Late
//! events of a connection that no longer has the session change nothing: a take-over has given the session to
//! a newer connection, whose will and state must stay (`mqtt.md`, traps 2, 13 and 20).
//!
//! The session state of section 4.1 lies here: subscriptions (`mqtt/subscriptions.rs`), publications that
//! were sent and not acknowledged and those that wait (`outgoing.rs`), identifiers of QoS 2 publications that
//! have come (`incoming.rs`), the will (`will.rs`), and when the session ends. A publication that several
//! sessions keep is kept once (`kept_publications.rs`).
//!
//! With a store (`data_dir`), sessions that outlive their connections are on disk, too: changes are noted,
//! and saved at the end of the turn (`saving.rs`). If the store is strict, CONNACK waits for that: between
//! CONNECT and [`Sessions::accept`] the session has its connection, and queues publications. If such a
//! connection ends before CONNACK and the session began with it, the session ends too, since its client was
//! never told of it.
//!
//! A session may have ten thousand subscriptions. When it ends, its client id is free at once, and it is sent
//! nothing more. Its groups, its publications and its subscriptions are removed in as many turns as that
//! takes, in this order, so that a publication that it gives back to a group does not come to it again.
//!
//! Invariants
//! 1. `by_client_id` has the numbers of all sessions that have not ended, each under the hash of its client id.
//! 2. `deadlines` has one entry for each session that waits and has a deadline, and no other.
//! 3. A number is not used again before all state of its session is removed. Sessions that have ended and
//!    still have state are in `ending`, each once.
//! 4. `wills_bytes` is the sum of the wills of all sessions; those that are due do not count.
//! 5. A session is in `ready` once at most: `is_listed` says so.
//!
//! Limits: `mqtt_sessions_max`, `mqtt_queue_messages_max`, `mqtt_queue_bytes_max`, `mqtt_queues_bytes_max`,
//! `mqtt_in_flight_max`, `wills_bytes_max`.

mod aliases;
mod incoming;
#[cfg(test)]
mod invariants;
mod kept_publications;
mod outgoing;
mod restore;
mod resuming;
mod saved;
mod saving;
mod sending;
mod settings;
mod sharing;
mod state;
mod stored;
mod will;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashTable;

pub use self::aliases::Alias;
pub use self::incoming::Incoming;
pub use self::kept_publications::{Content, Ids, Quotes, SharedPublication};
pub(crate) use self::restore::{StoredPublications, StoredSession};
pub(crate) use self::saving::Disk;
pub use self::sending::{Client, Offer, Outbound, Packet, Sent, Written};
pub use self::settings::{Bounds, Counts};
pub use self::will::{DueWill, Will};

use self::kept_publications::KeptPublications;
use self::outgoing::Answer;
use self::saving::{Pending, Saving};
use self::state::{Phase, SessionState};
use super::Version;
use super::publication::client_hash;
use super::shares::Shares;
use super::subscriptions::{EndOutcome, Subscriber, Subscriptions};
use crate::broker::ChannelHasher;
use crate::clock::{Now, Uptime};
use crate::slab::Slab;

/// The sessions of one core.
#[derive(Debug)]
pub struct Sessions {
    /// The subscriptions of the sessions.
    pub subscriptions: Subscriptions,
    /// Shared subscriptions: the groups of this core, and the memberships of the sessions.
    pub shares: Shares,
    bounds: Bounds,
    states: Slab<SessionState>,
    by_client_id: HashTable<u32>,
    place: CoreLocation,
    last_serial: u64,
    deadlines: BTreeSet<(Uptime, u32)>,
    /// Sessions that have ended and still have state, by their former names, in the order of their ends.
    ending: VecDeque<SessionRef>,
    /// How many groups, publications and subscriptions of sessions that end, begin or lose a connection this
    /// turn may still go through.
    steps_left: usize,
    kept: KeptPublications,
    /// Connected sessions that may have something to send.
    ready: VecDeque<u32>,
    /// Sessions that were watched and have had an event.
    woken: Vec<SessionRef>,
    due_wills: VecDeque<DueWill>,
    wills_bytes: usize,
    /// How many sessions have a connection.
    connected: usize,
    counts: Counts,
    /// The changes that are to be saved on disk; `None` without one.
    saving: Option<Box<Saving>>,
    /// Whether another process has the sessions now.
    is_elsewhere: bool,
    /// The connections of the sessions before this place have been told so.
    told_elsewhere: usize,
}

/// The core that the sessions are on.
#[derive(Clone, Debug)]
pub struct CoreLocation {
    /// The index of the core.
    pub core: usize,
    /// How many cores there are.
    pub cores: usize,
    /// The hasher of names that all cores share.
    pub hasher: ChannelHasher,
}

/// Names a session of a core. It never names a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRef {
    /// Its number, by which subscriptions know it. A later session may have the same.
    pub number: u32,
    /// Its serial number, by which its publications know it: no other session of any core has it.
    pub serial: u64,
}

/// The part of CONNECT that is about the session.
#[derive(Debug)]
pub struct Connect<'a> {
    /// The client id; not empty.
    pub client_id: &'a str,
    /// The user to whom the session belongs, if the client has authenticated.
    pub user: Option<&'a str>,
    /// The version that the connection speaks.
    pub version: Version,
    /// Where the core finds the connection.
    pub address: usize,
    /// Whether an earlier session with the client id ends.
    pub clean_start: bool,
    /// For how many seconds the session outlives the connection: 0 ends it with the connection, `u32::MAX` never.
    pub expiry_s: u32,
    /// Most publications with QoS 1 and 2 that the client wants to have without an acknowledgement.
    pub receive_maximum: u16,
    /// The largest packet that the client takes.
    pub packet_bytes_max: u32,
    /// How many topic aliases the client takes.
    pub topic_alias_maximum: u16,
    /// The will.
    pub will: Option<Box<Will>>,
}

/// The client has its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The session.
    pub session: SessionRef,
    /// Whether it is one that the client had before (Session Present).
    pub is_present: bool,
    /// The address of an older connection with this client id, which the core has to end.
    pub displaced: Option<usize>,
    /// Whether CONNACK waits for the disk: then [`Sessions::accept`] follows.
    pub awaits_disk: bool,
}

/// The client gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectRefused {
    /// The session with this client id belongs to another user.
    OtherUser,
    /// There are `mqtt_sessions_max` sessions.
    SessionsFull,
    /// The wills of all sessions have `wills_bytes_max`.
    WillsFull,
    /// Another process has the sessions now.
    Elsewhere,
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has sent DISCONNECT.
    Orderly {
        /// Whether its reason code has the will published (0x04).
        with_will: bool,
        /// The session expiry of the packet, which replaces that of CONNECT.
        expiry_s: Option<u32>,
    },
    /// In any other way.
    Lost,
}

/// The outcome of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The exchange goes on, or has ended.
    Known,
    /// There is no such exchange. Nothing has changed.
    Unknown,
    /// There is such an exchange, but this is not its next step. Nothing has changed.
    OutOfTurn,
}

impl Sessions {
    /// No sessions.
    pub fn new(bounds: Bounds, place: CoreLocation) -> Sessions {
        // Serial numbers of cores differ in their upper bits.
        let last_serial = (place.core as u64 + 1) << 48;
        Sessions {
            subscriptions: Subscriptions::new(place.hasher.clone()),
            shares: Shares::new(&bounds, place.clone()),
            bounds,
            states: Slab::new(),
            by_client_id: HashTable::new(),
            place,
            last_serial,
            deadlines: BTreeSet::new(),
            ending: VecDeque::new(),
            steps_left: usize::MAX,
            kept: KeptPublications::new(),
            ready: VecDeque::new(),
            woken: Vec::new(),
            due_wills: VecDeque::new(),
            wills_bytes: 0,
            connected: 0,
            counts: Counts::default(),
            saving: None,
            is_elsewhere: false,
            told_elsewhere: 0,
        }
    }

    /// Whether this core owns a client id.
    pub fn owns(&self, client_id: &str) -> bool {
        self.place
            .hasher
            .hash(client_id.as_bytes())
            .owner(self.place.cores)
            == self.place.core
    }

    /// Gives the client that has sent CONNECT its session: its earlier one, or a new one. If an older
    /// connection has the session, it loses it.
    ///
    /// # Errors
    /// The client gets no session, and nothing has changed.
    pub fn connect(&mut self, connect: Connect<'_>, now: Now) -> Result<Connected, ConnectRefused> {
        if self.is_elsewhere {
            return Err(ConnectRefused::Elsewhere);
        }
        let mut known = self.find(connect.client_id);
        if let Some(number) = known
            && self.states[number as usize].expires_at() <= now.uptime
        {
            self.expire(number);
            known = None;
        }
        let new_will_bytes = connect.will.as_ref().map_or(0, |will| will.bytes());
        let mut old_will_bytes = 0;
        match known {
            Some(number) => {
                let state = &self.states[number as usize];
                if state.user() != connect.user {
                    return Err(ConnectRefused::OtherUser);
                }
                old_will_bytes = state.will_bytes();
            }
            None if self.len() >= self.bounds.sessions_max => return Err(ConnectRefused::SessionsFull),
            None => {}
        }
        let others = self.wills_bytes - old_will_bytes;
        if new_will_bytes > 0 && others + new_will_bytes > self.bounds.wills_bytes_max {
            return Err(ConnectRefused::WillsFull);
        }
        let mut displaced = None;
        let mut resumed = None;
        let was_saved = known.is_some_and(|number| self.states[number as usize].is_saved);
        if let Some(number) = known {
            // The core may be late: the will of a waiting session may already be due though the session has
            // not ended.
            let is_due = self.states[number as usize].deadline() <= now.uptime;
            let is_connack_pending = self.states[number as usize].is_connack_pending();
            displaced = self.detach(number);
            let continues =
                !connect.clean_start && !is_connack_pending && self.states[number as usize].expiry_s > 0;
            // The delay of a will ends at the latest with the session; the session's next connection cancels
            // the will (MQTT-3.1.3-9). A will without a delay is due at the end of the connection.
            if let Some(will) = self.take_will_of(number)
                && (!continues || is_due || (displaced.is_some() && will.will.delay_s == 0))
            {
                self.due_wills.push_back(will);
            }
            if continues {
                resumed = Some(number);
            } else {
                self.end(number);
            }
        }
        let number = match resumed {
            Some(number) => number,
            None => self.create(&connect),
        };
        let is_strict = self.saving.as_ref().is_some_and(|saving| saving.is_strict);
        let awaits_disk = is_strict && (connect.expiry_s > 0 || was_saved);
        let address = connect.address;
        self.attach(number, connect);
        if awaits_disk {
            let is_new = resumed.is_none();
            self.states[number as usize].phase = Phase::Connecting { address, is_new };
        } else {
            self.begin_sending(number);
        }
        self.counts.resumed += u64::from(resumed.is_some());
        self.counts.taken_over += u64::from(displaced.is_some());
        Ok(Connected {
            session: self.name(number),
            is_present: resumed.is_some(),
            displaced,
            awaits_disk,
        })
    }

    /// The changes that the CONNECT of the connection at this address made are on disk: accepts its client.
    /// Does nothing if another connection has the session by now.
    pub fn accept(&mut self, session: SessionRef, address: usize) {
        if let Some(state) = self.state_mut(session)
            && matches!(state.phase, Phase::Connecting { address: own, .. } if own == address)
        {
            state.phase = Phase::Connected { address };
            self.begin_sending(session.number);
        }
    }

    /// CONNACK refuses the client of the connection at this address, with which the session began: the
    /// session ends, and its will is dropped.
    pub fn refuse(&mut self, session: SessionRef, address: usize) {
        if self.is_of(session, address) {
            self.detach(session.number);
            self.take_will_of(session.number);
            self.end(session.number);
        }
    }

    /// The client of a session is accepted: begins to send the packets in flight again, and then the waiting
    /// ones.
    fn begin_sending(&mut self, number: u32) {
        if self.states[number as usize].has_waiting() {
            self.list(number);
        }
        self.wake(self.name(number));
        self.note_connected(number, true);
    }

    /// The client at this address has sent DISCONNECT. Applies its fields about the will and the expiry of
    /// the session at once: the end of the connection may have to wait for the client's publications, and
    /// another connection may ask for the session before that. Does nothing if another connection has the
    /// session by now.
    pub fn leave(&mut self, session: SessionRef, address: usize, end: End) {
        let End::Orderly { with_will, expiry_s } = end else {
            return;
        };
        if !self.is_of(session, address) {
            return;
        }
        let number = session.number;
        if !with_will && self.take_will_of(number).is_some() {
            self.note(number, |pending| pending.will = true);
        }
        if let Some(expiry_s) = expiry_s
            && self.states[number as usize].expiry_s > 0
        {
            self.note(number, |pending| pending.head = true);
            self.states[number as usize].expiry_s = expiry_s;
        }
    }

    /// The connection at this address has ended. Does nothing if the session has another one now.
    pub fn disconnect(&mut self, session: SessionRef, address: usize, end: End, now: Now) {
        if !self.is_of(session, address) {
            return;
        }
        self.leave(session, address, end);
        let number = session.number;
        let state = &self.states[number as usize];
        let expiry_s = if state.is_connack_pending() {
            0
        } else {
            state.expiry_s
        };
        self.detach(number);
        // The next process publishes it.
        let is_left = self.is_elsewhere && expiry_s > 0;
        if let Some(will) = self.take_will_of(number) {
            if (will.will.delay_s == 0 && !is_left) || expiry_s == 0 {
                self.due_wills.push_back(will);
            } else {
                self.wills_bytes += will.will.bytes();
                self.states[number as usize].set_will(will.will);
            }
        }
        self.note(number, |pending| pending.will = true);
        if expiry_s == 0 {
            self.end(number);
        } else {
            let state = &mut self.states[number as usize];
            let deadline = state.begin_waiting(now.uptime);
            self.note(number, |pending| pending.head = true);
            if deadline != Uptime::NEVER {
                self.deadlines.insert((deadline, number));
            }
        }
    }

    /// Whether the session exists, and the connection at this address has it.
    pub fn is_of(&self, session: SessionRef, address: usize) -> bool {
        self.state(session)
            .is_some_and(|state| state.address() == Some(address))
    }

    /// Whether the session exists.
    pub fn exists(&self, session: SessionRef) -> bool {
        self.state(session).is_some()
    }

    /// For how many seconds the session will outlive its connection.
    pub fn expiry_s(&self, session: SessionRef) -> Option<u32> {
        self.state(session).map(|state| state.expiry_s)
    }

    /// The client id of a session.
    pub fn client_id(&self, session: SessionRef) -> Option<&str> {
        self.state(session).map(|state| &*state.client_id)
    }

    /// PUBACK for a publication of the server.
    pub fn puback(&mut self, session: SessionRef, packet_id: u16) -> Acknowledged {
        self.acknowledge(session, packet_id, Answer::Acknowledged)
    }

    /// PUBREC for a publication of the server. If it is known and no error, PUBREL is owed, also if it has come before.
    pub fn pubrec(&mut self, session: SessionRef, packet_id: u16, is_error: bool) -> Acknowledged {
        let answer = if is_error {
            Answer::Refused
        } else {
            Answer::Received
        };
        self.acknowledge(session, packet_id, answer)
    }

    /// PUBCOMP for a publication of the server.
    pub fn pubcomp(&mut self, session: SessionRef, packet_id: u16) -> Acknowledged {
        self.acknowledge(session, packet_id, Answer::Complete)
    }

    /// A publication with QoS 2 has come from the client.
    pub fn receive_qos2(&mut self, session: SessionRef, packet_id: u16) -> Incoming {
        let Some(state) = self.state_mut(session) else {
            return Incoming::Duplicate;
        };
        let incoming = state.traffic_mut().incoming.receive(packet_id);
        match &mut self.saving {
            Some(saving) if saving.is_strict => saving.await_publication(session.number, packet_id),
            Some(_) | None => self.note(session.number, |pending| pending.incoming = true),
        }
        incoming
    }

    /// Whether a publication with QoS 2 has come before and was not released. `dup` is its DUP flag: after a
    /// crash, only a packet with DUP certainly repeats an earlier one.
    pub fn is_repeated(&mut self, session: SessionRef, packet_id: u16, dup: bool) -> bool {
        if !self.has_received_qos2(session, packet_id) {
            return false;
        }
        let is_doubtful = self
            .saving
            .as_mut()
            .is_some_and(|saving| saving.take_possibly_released(session.number, packet_id));
        if is_doubtful && !dup {
            self.release_qos2(session, packet_id);
            return false;
        }
        self.confirm_qos2(session);
        true
    }

    /// Whether a publication with QoS 2 and this identifier has come and was not released.
    pub fn has_received_qos2(&self, session: SessionRef, packet_id: u16) -> bool {
        self.state(session)
            .and_then(|state| state.traffic.as_deref())
            .is_some_and(|traffic| traffic.incoming.has(packet_id))
    }

    /// PUBREL from the client, or the end of an exchange that was refused. `false` if the identifier is not known.
    pub fn release_qos2(&mut self, session: SessionRef, packet_id: u16) -> bool {
        let is_known = self
            .state_mut(session)
            .and_then(|state| state.traffic.as_deref_mut())
            .is_some_and(|traffic| traffic.incoming.release(packet_id));
        if is_known {
            self.note(session.number, |pending| pending.incoming = true);
        }
        is_known
    }

    /// How many publications with QoS 2 have come from the client that it has not released.
    pub fn incoming_len(&self, session: SessionRef) -> usize {
        self.state(session)
            .and_then(|state| state.traffic.as_deref())
            .map_or(0, |traffic| traffic.incoming.len())
    }

    /// Begins a turn, which may go through this many groups, publications and subscriptions of sessions that
    /// end. Before the first turn there is no bound.
    pub fn begin_turn(&mut self, steps_max: usize) {
        self.steps_left = steps_max;
    }

    /// Whether sessions that have ended have something left.
    pub fn has_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// When [`Sessions::end_due`] has work next.
    pub fn next_due(&self) -> Uptime {
        if self.has_ending() || self.shares.has_unreported() {
            return Uptime::default();
        }
        if self.is_elsewhere {
            return Uptime::NEVER;
        }
        self.deadlines
            .first()
            .map_or(Uptime::NEVER, |&(deadline, _)| deadline)
    }

    /// Removes state of sessions that have ended, ends sessions whose time is over, and finds wills whose
    /// delay has passed: as much as this turn may.
    pub fn end_due(&mut self, now: Uptime) {
        self.end_some();
        self.tell_presence();
        while self.steps_left > 0 && !self.is_elsewhere {
            let Some(&(deadline, number)) = self.deadlines.first() else {
                return;
            };
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            if self.states[number as usize].expires_at() <= now {
                self.expire(number);
                continue;
            }
            self.steps_left -= 1;
            if let Some(will) = self.take_will_of(number) {
                self.due_wills.push_back(will);
                self.note(number, |pending| pending.will = true);
            }
            let deadline = self.states[number as usize].expires_at();
            if deadline != Uptime::NEVER {
                self.deadlines.insert((deadline, number));
            }
        }
    }

    /// The next will that is to be published.
    pub fn take_will(&mut self) -> Option<DueWill> {
        self.due_wills.pop_front()
    }

    /// Whether a will is to be published.
    pub fn has_due_wills(&self) -> bool {
        !self.due_wills.is_empty()
    }

    /// Leaves the saved sessions to the next process: from now on no client gets a session, no session
    /// expires, and no will of a session is published. Does nothing without a disk.
    pub(crate) fn freeze(&mut self) {
        self.is_elsewhere = self.saving.is_some();
    }

    /// After [`Sessions::freeze`]: the addresses of at most `max` more connections that have sessions. Looks at `places_max`
    /// places at most. `None` if all have been looked at.
    pub(crate) fn next_connected(&mut self, max: usize, places_max: usize) -> Option<Vec<usize>> {
        let begin = self.told_elsewhere;
        let end = self.states.places().min(begin + places_max);
        let mut found = Vec::new();
        while self.told_elsewhere < end && found.len() < max {
            let state = self.states.get(self.told_elsewhere);
            found.extend(state.and_then(SessionState::address));
            self.told_elsewhere += 1;
        }
        (begin < end).then_some(found)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_client_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_client_id.is_empty()
    }

    /// How many of them have a connection.
    pub fn connected_len(&self) -> usize {
        self.connected
    }

    /// Bytes of the publications that sessions keep.
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Bytes of memory that the tables themselves take.
    pub fn table_bytes(&self) -> usize {
        self.states.memory_bytes() + self.by_client_id.allocation_size() + self.subscriptions.table_bytes()
    }

    /// Takes the counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn acknowledge(&mut self, session: SessionRef, packet_id: u16, answer: Answer) -> Acknowledged {
        let Some(state) = self
            .states
            .get_mut(session.number as usize)
            .filter(|state| state.serial == session.serial)
        else {
            return Acknowledged::Unknown;
        };
        let Some(traffic) = state.traffic.as_deref_mut() else {
            return Acknowledged::Unknown;
        };
        let outcome = traffic.outgoing.acknowledge(packet_id, answer, &mut self.kept);
        if outcome != Acknowledged::Known {
            return outcome;
        }
        if traffic.outgoing.has_more() {
            self.list(session.number);
        }
        self.note(session.number, |pending| pending.outgoing = true);
        self.wake(session);
        Acknowledged::Known
    }

    /// Requests to be told of the next event of a session ([`Sessions::next_woken`]): it gets a connection,
    /// its client acknowledges a publication, its socket takes more, all its waiting publications are sent,
    /// or it ends.
    pub fn watch(&mut self, session: SessionRef) {
        if let Some(state) = self.state_mut(session) {
            state.is_watched = true;
        }
    }

    /// A session has had an event: if it is watched, it is reported, and not watched any more.
    #[inline]
    pub fn wake(&mut self, session: SessionRef) {
        if let Some(state) = self.state_mut(session)
            && std::mem::take(&mut state.is_watched)
        {
            self.woken.push(session);
        }
    }

    /// The next session that was watched and has had an event.
    pub fn next_woken(&mut self) -> Option<SessionRef> {
        self.woken.pop()
    }

    /// Whether a session that was watched has had an event.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Lists a connected session for [`Sessions::next_ready`].
    fn list(&mut self, number: u32) {
        let state = &mut self.states[number as usize];
        if !state.is_listed {
            state.is_listed = true;
            self.ready.push_back(number);
        }
    }

    fn name(&self, number: u32) -> SessionRef {
        let serial = self.states[number as usize].serial;
        SessionRef { number, serial }
    }

    fn state(&self, session: SessionRef) -> Option<&SessionState> {
        self.states
            .get(session.number as usize)
            .filter(|state| state.serial == session.serial)
    }

    fn state_mut(&mut self, session: SessionRef) -> Option<&mut SessionState> {
        self.states
            .get_mut(session.number as usize)
            .filter(|state| state.serial == session.serial)
    }

    fn find(&self, client_id: &str) -> Option<u32> {
        let same = |&number: &u32| *self.states[number as usize].client_id == *client_id;
        self.by_client_id.find(self.place.hash(client_id), same).copied()
    }

    fn create(&mut self, connect: &Connect<'_>) -> u32 {
        self.last_serial += 1;
        self.insert(SessionState::new(self.last_serial, connect))
    }

    fn insert(&mut self, state: SessionState) -> u32 {
        let hash = self.place.hash(&state.client_id);
        let number =
            u32::try_from(self.states.insert(state)).expect("4 billion sessions do not fit into memory");
        let (states, place) = (&self.states, &self.place);
        self.by_client_id.insert_unique(hash, number, |&other| {
            place.hash(&states[other as usize].client_id)
        });
        number
    }

    /// Gives a session to a connection.
    fn attach(&mut self, number: u32, connect: Connect<'_>) {
        self.wills_bytes += connect.will.as_ref().map_or(0, |will| will.bytes());
        let state = &mut self.states[number as usize];
        state.connect(connect, self.bounds.in_flight_max);
        self.connected += 1;
        if let Some(saving) = &mut self.saving {
            if state.is_lasting() {
                let Pending { head, will, .. } = saving.pending(number);
                (*head, *will) = (true, true);
            } else {
                saving.end(number, state);
            }
        }
    }

    /// Takes the session from its connection, or its deadline from a session that waits. Returns the address of the
    /// connection.
    fn detach(&mut self, number: u32) -> Option<usize> {
        let state = &self.states[number as usize];
        match state.phase {
            Phase::Connected { address } => {
                self.connected -= 1;
                self.note_connected(number, false);
                Some(address)
            }
            Phase::Connecting { address, .. } => {
                self.connected -= 1;
                Some(address)
            }
            Phase::Waiting { .. } | Phase::Ended => {
                self.deadlines.remove(&(state.deadline(), number));
                None
            }
        }
    }

    #[inline]
    fn take_will_of(&mut self, number: u32) -> Option<DueWill> {
        // Most sessions have none.
        self.states.get(number as usize)?.will()?;
        self.take_will_that_is_there(number)
    }

    #[inline(never)]
    fn take_will_that_is_there(&mut self, number: u32) -> Option<DueWill> {
        let state = &mut self.states[number as usize];
        let will = state.take_will()?;
        self.wills_bytes -= will.bytes();
        Some(DueWill {
            publisher: state.serial,
            client_hash: client_hash(&state.client_id),
            will,
        })
    }

    /// Ends a session whose client has not resumed it in time.
    fn expire(&mut self, number: u32) {
        self.detach(number);
        if let Some(will) = self.take_will_of(number) {
            self.due_wills.push_back(will);
        }
        self.end(number);
        self.counts.expired += 1;
    }

    /// Ends a session that is detached and has no will.
    fn end(&mut self, number: u32) {
        let session = self.name(number);
        self.wake(session);
        let state = &mut self.states[number as usize];
        if let Some(saving) = &mut self.saving {
            saving.end(number, state);
        }
        state.end();
        let hash = self.place.hash(&state.client_id);
        if let Ok(found) = self.by_client_id.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        if self.by_client_id.len() < self.by_client_id.capacity() / 8 {
            let (states, place) = (&self.states, &self.place);
            self.by_client_id
                .shrink_to(self.by_client_id.len() * 2, |&other| {
                    place.hash(&states[other as usize].client_id)
                });
        }
        self.ending.push_back(session);
        self.end_some();
    }

    /// Removes state of sessions that have ended, as far as this turn may. A session without state loses its
    /// number.
    fn end_some(&mut self) {
        while self.steps_left > 0
            && let Some(&session) = self.ending.front()
        {
            if !self.end_some_of(session) {
                return;
            }
            self.steps_left = self.steps_left.saturating_sub(1);
            self.ending.pop_front();
            self.states.remove(session.number as usize);
        }
    }

    /// Removes groups, publications and subscriptions of a session that has ended, as many as this turn may.
    /// Returns whether all are removed.
    fn end_some_of(&mut self, session: SessionRef) -> bool {
        self.steps_left -= self.shares.end_some(session, self.steps_left);
        self.follow_groups();
        if self.shares.count_of(session) > 0 {
            return false;
        }
        let state = &mut self.states[session.number as usize];
        if let Some(traffic) = &mut state.traffic {
            self.steps_left -= traffic.outgoing.clear_some(self.steps_left, &mut self.kept);
            if !traffic.outgoing.is_empty() {
                self.tell_groups();
                return false;
            }
            state.traffic = None;
        }
        self.tell_groups();
        let subscriber = Subscriber::Session(session.number);
        let before = self.subscriptions.count_of(subscriber);
        let outcome = self.subscriptions.end(subscriber, self.steps_left);
        self.steps_left -= before - self.subscriptions.count_of(subscriber);
        outcome == EndOutcome::Ended
    }

    /// A session has got a connection, or has lost it: tells its groups, as many of them as this turn may.
    fn note_connected(&mut self, number: u32, is_connected: bool) {
        self.shares.note_connected(self.name(number), is_connected);
        self.tell_presence();
    }

    fn tell_presence(&mut self) {
        if self.shares.has_unreported() {
            self.steps_left -= self.shares.tell_presence(self.steps_left);
        }
    }
}

impl CoreLocation {
    fn hash(&self, client_id: &str) -> u64 {
        self.hasher.hash(client_id.as_bytes()).as_u64()
    }
}
