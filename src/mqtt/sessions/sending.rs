//! From publications to the packets that a session's client gets: at once, or when it has acknowledged enough.
//!
//! The caller delivers: it knows the outboxes of connections. It offers each publication with QoS 1 or 2 to
//! the session ([`Sessions::offer`]) and sends it at once if the session says so. Waiting publications leave
//! by [`Sessions::send_next`], one packet after the other, while the outbox has room. Publications with QoS 0
//! for connected clients never come here.

use super::kept_publications::{self, KeptPublications, KeptRef, SharedPublication};
use super::outgoing::{Next, Outgoing};
use super::saving::Saving;
use super::{Alias, Content, Ids, Phase, SessionRef, SessionState, Sessions};
use crate::config::QueueFull;
use crate::mqtt::Version;
use crate::mqtt::shares::Tag;

/// The QoS and the flag with which a subscriber gets a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The QoS: the lower one of the publication and the subscription.
    pub qos: u8,
    /// The RETAIN flag.
    pub retain: bool,
}

/// The limits of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where the core finds the connection.
    pub address: usize,
    /// The version that it speaks.
    pub version: Version,
    /// The largest packet that it takes.
    pub packet_bytes_max: u32,
    /// Whether topics may have aliases for it.
    pub takes_aliases: bool,
}

/// The outcome of a publication that was offered to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The caller sends it now, with this packet identifier.
    Send {
        /// The packet identifier.
        packet_id: u16,
    },
    /// It waits in the session.
    Waits,
    /// There was no room for it.
    Dropped,
}

/// A packet for a client.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// PUBLISH.
    Publish {
        /// Its content.
        content: Content<'a>,
        /// The subscription identifiers.
        ids: Ids<'a>,
        /// QoS and RETAIN.
        outbound: Outbound,
        /// `None` for QoS 0.
        packet_id: Option<u16>,
        /// Whether an earlier connection may have sent it.
        dup: bool,
    },
    /// PUBREL.
    Release {
        /// The packet identifier.
        packet_id: u16,
    },
}

/// The result of writing a [`Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the outbox.
    Queued,
    /// The client does not take such a large packet (MQTT-3.1.2-24).
    TooLarge,
    /// The application withholds it from the client.
    Withheld,
}

/// The outcome of [`Sessions::send_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A packet was sent or dropped: there may be another.
    One,
    /// No packet: all are sent, or the client has to acknowledge before it gets more.
    Nothing,
}

impl Sessions {
    /// The connection of a session, if it has one.
    #[inline]
    pub fn client(&self, number: u32, serial: u64) -> Option<Client> {
        let state = self.states.get(number as usize)?;
        state.client().filter(|_| state.serial == serial)
    }

    /// The serial number of the newest session: later sessions have greater numbers.
    pub fn last_serial(&self) -> u64 {
        self.last_serial
    }

    /// The session that has a number now, and its connection. `None` if it has begun after the one with the serial
    /// number `last_serial`: then another session had the number before.
    #[inline]
    pub fn subscriber(&self, number: u32, last_serial: u64) -> Option<(SessionRef, Option<Client>)> {
        let state = self.states.get(number as usize)?;
        let serial = state.serial;
        if serial == 0 || serial > last_serial {
            return None;
        }
        Some((SessionRef { number, serial }, state.client()))
    }

    /// The alias that a topic has for a session's client in the packet that is sent now, if it has one.
    pub fn alias(&mut self, session: SessionRef, topic: &str) -> Option<Alias> {
        let aliases = self.state_mut(session)?.aliases_mut()?;
        aliases.alias(topic.as_bytes())
    }

    /// The next publication that is offered is another one.
    #[inline]
    pub fn end_publication(&mut self) {
        self.kept.end_publication();
    }

    /// Whether publications with QoS 0 queue in a session although its client is connected: if some wait from
    /// the time before, later ones must not overtake them (MQTT-4.6.0-6).
    #[inline]
    pub fn queues_qos0(&self, session: SessionRef) -> bool {
        self.bounds.queues_qos0 && self.state(session).is_some_and(SessionState::has_waiting)
    }

    /// Offers a publication to a session: with QoS 1 or 2; or with QoS 0, if the client is not connected or
    /// earlier publications wait ([`Sessions::queues_qos0`]). `ids` are its subscription identifiers.
    /// `has_room` says whether the client's outbox takes it now.
    pub fn offer(
        &mut self,
        session: SessionRef,
        outbound: Outbound,
        content: &Content<'_>,
        ids: &[u32],
        has_room: bool,
    ) -> Offer {
        let offered = Offered::Published { content, ids };
        self.offer_as(session, outbound, offered, has_room).0
    }

    /// As [`Sessions::offer`]. Returns the copy as well, if the publication is sent now and kept.
    pub(super) fn offer_as(
        &mut self,
        session: SessionRef,
        outbound: Outbound,
        offered: Offered<'_>,
        has_room: bool,
    ) -> (Offer, Option<KeptRef>) {
        let Some(state) = self
            .states
            .get_mut(session.number as usize)
            .filter(|state| state.serial == session.serial)
        else {
            return (Offer::Dropped, None);
        };
        let is_connected = matches!(state.phase, Phase::Connected { .. });
        if outbound.qos == 0 && !(self.bounds.queues_qos0 && (!is_connected || state.has_waiting())) {
            return (Offer::Dropped, None);
        }
        let is_lasting = state.is_lasting();
        let in_flight_max = state.in_flight_max;
        let outgoing = &mut state.traffic_mut().outgoing;
        let mut is_gated = false;
        if is_lasting && let Some(saving) = &mut self.saving {
            outgoing.begin_saving();
            saving.pending(session.number).outgoing = true;
            is_gated = saving.is_strict && outbound.qos == 2;
        }
        if is_connected && has_room && !is_gated && outbound.qos > 0 && outgoing.is_open(in_flight_max) {
            let is_kept = is_lasting || matches!(offered, Offered::Handed { .. });
            let kept = is_kept.then(|| offered.keep(&mut self.kept));
            let packet_id = outgoing.send_now(outbound, kept, &self.kept);
            return (Offer::Send { packet_id }, kept);
        }
        let (bytes, memory_bytes) = offered.sizes();
        let fits = fits(outgoing, bytes, &self.bounds);
        if !fits || self.kept.bytes() + memory_bytes > self.bounds.queues_bytes_max {
            let new_entry = NewEntry {
                bytes,
                memory_bytes,
                has_copy: offered.has_copy(&self.kept),
            };
            let count = if fits {
                &mut self.counts.dropped_total
            } else {
                &mut self.counts.dropped_queue
            };
            let Some(oldest) = new_entry.costs(outgoing, &self.bounds, &self.kept) else {
                *count += 1;
                return (Offer::Dropped, None);
            };
            *count += oldest as u64;
            for _ in 0..oldest {
                outgoing.drop_oldest(&mut self.kept);
            }
        }
        let kept = offered.keep(&mut self.kept);
        outgoing.wait(outbound, kept, &self.kept);
        if is_connected {
            self.list(session.number);
        }
        (Offer::Waits, None)
    }

    /// A connected session that may have something to send. The caller sends until [`Sent::Nothing`], or lists it again
    /// ([`Sessions::put_back`]).
    pub fn next_ready(&mut self) -> Option<SessionRef> {
        while let Some(number) = self.ready.pop_front() {
            if let Some(state) = self.states.get_mut(number as usize) {
                let serial = state.serial;
                if std::mem::take(&mut state.is_listed) && matches!(state.phase, Phase::Connected { .. }) {
                    return Some(SessionRef { number, serial });
                }
            }
        }
        None
    }

    /// How many sessions are listed for [`Sessions::next_ready`].
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// The outbox of a listed session had no room: lists the session again.
    pub fn put_back(&mut self, session: SessionRef) {
        if self.exists(session) {
            self.list(session.number);
            self.wake(session);
        }
    }

    /// Calls `write` with the next packet of a session. Drops publications that have expired at `unix_ms`
    /// before they were sent for the first time, and publications that are too large for the client.
    pub fn send_next(
        &mut self,
        session: SessionRef,
        unix_ms: u64,
        write: impl FnOnce(Client, &Packet<'_>) -> Written,
    ) -> Sent {
        let Some(client) = self.client(session.number, session.serial) else {
            return Sent::Nothing;
        };
        let state = &mut self.states[session.number as usize];
        let (in_flight_max, is_lasting) = (state.in_flight_max, state.is_lasting());
        let Some(traffic) = state.traffic.as_deref_mut() else {
            return Sent::Nothing;
        };
        let outgoing = &mut traffic.outgoing;
        if is_lasting && let Some(saving) = &mut self.saving {
            saving.pending(session.number).outgoing = true;
            if saving.is_strict && !may_send(outgoing, in_flight_max, saving) {
                saving.gated.push(session);
                return Sent::Nothing;
            }
        }
        let Some(next) = outgoing.next(in_flight_max) else {
            return Sent::Nothing;
        };
        let packet = match next {
            Next::Release { packet_id } => Packet::Release { packet_id },
            Next::Publish {
                kept,
                packet_id,
                qos,
                retain,
                dup,
            } => {
                let (content, ids) = self.kept.get(kept);
                if !dup && content.expires_at.is_some_and(|at| at <= unix_ms) {
                    self.counts.dropped_expired += 1;
                    outgoing.drop_next(&mut self.kept);
                    return Sent::One;
                }
                Packet::Publish {
                    content,
                    ids,
                    outbound: Outbound { qos, retain },
                    packet_id,
                    dup,
                }
            }
        };
        match write(client, &packet) {
            Written::Queued => outgoing.pass(next, is_lasting, &mut self.kept),
            Written::TooLarge => {
                self.counts.dropped_too_large += 1;
                outgoing.drop_next(&mut self.kept);
            }
            Written::Withheld => outgoing.drop_next(&mut self.kept),
        }
        Sent::One
    }

    /// Whether a publication with QoS 1 or 2 is sent to a session's client at once, if its outbox takes it:
    /// no other comes before it, and the client may get one more without an acknowledgement.
    pub fn sends_at_once(&self, session: SessionRef) -> bool {
        self.state(session).is_some_and(|state| {
            let traffic = state.traffic.as_deref();
            traffic.is_none_or(|traffic| traffic.outgoing.is_open(state.in_flight_max))
        })
    }

    /// How many publications a session has sent with QoS 1 and 2 that are not acknowledged, and how many wait.
    pub fn outgoing_len(&self, session: SessionRef) -> (usize, usize) {
        self.state(session)
            .and_then(|state| state.traffic.as_deref())
            .map_or((0, 0), |traffic| {
                (traffic.outgoing.in_flight() as usize, traffic.outgoing.waiting())
            })
    }

    /// Counts a publication that was too large for a client.
    pub fn count_too_large(&mut self) {
        self.counts.dropped_too_large += 1;
    }

    /// Counts a publication that had expired.
    pub fn count_expired(&mut self) {
        self.counts.dropped_expired += 1;
    }
}

/// Whether the next publication of a session may be sent, in strict mode: a publication with QoS 2 gets its
/// packet identifier first, and is sent when the disk has the identifier.
fn may_send(outgoing: &mut Outgoing, in_flight_max: u16, saving: &Saving) -> bool {
    if outgoing.reserve_ids(in_flight_max)
        && let Some(saved) = outgoing.saved_mut()
    {
        saved.gate = saving.save;
    }
    let gate = outgoing.saved().map_or(0, |saved| saved.gate);
    !outgoing.is_next_reserved() || gate <= saving.committed
}

/// A publication that a session is offered.
pub(super) enum Offered<'a> {
    /// One that the ring holds.
    Published {
        content: &'a Content<'a>,
        ids: &'a [u32],
    },
    /// One that a group has given to the session.
    Handed {
        tag: Tag,
        publication: SharedPublication,
    },
}

impl Offered<'_> {
    /// Its size in the queue of a session, and the memory that a copy of it takes.
    fn sizes(&self) -> (usize, usize) {
        let sizes = |content: &Content<'_>, ids: &[u32]| {
            let bytes = content.topic.len() + content.properties.len() + content.payload.len();
            (bytes, kept_publications::memory_bytes_of(content, ids))
        };
        match self {
            Offered::Published { content, ids } => sizes(content, ids),
            Offered::Handed { publication, .. } => match publication.id() {
                0 => sizes(&publication.content(), &[]),
                id => sizes(&publication.content(), &[id]),
            },
        }
    }

    /// Whether it is kept already for another session.
    fn has_copy(&self, kept: &KeptPublications) -> bool {
        match self {
            Offered::Published { ids, .. } => kept.has_copy(ids),
            Offered::Handed { .. } => false,
        }
    }

    fn keep(self, kept: &mut KeptPublications) -> KeptRef {
        match self {
            Offered::Published { content, ids } => kept.keep(content, ids),
            Offered::Handed { tag, publication } => kept.keep_tagged(publication, tag),
        }
    }
}

/// A publication that is to wait in the queue of a session.
struct NewEntry {
    /// Its size in the queue of the session.
    bytes: usize,
    /// The memory that it takes in all queues together, if no other session keeps it.
    memory_bytes: usize,
    /// Whether another session keeps it already, so that it takes no further memory.
    has_copy: bool,
}

impl NewEntry {
    /// Whether there is room for it in all queues together.
    fn fits_in_all(&self, bounds: &super::Bounds, kept: &KeptPublications) -> bool {
        match (self.has_copy, bounds.queue_full) {
            (true, QueueFull::DropNewest) => true,
            (true, QueueFull::DropOldest) => kept.bytes() <= bounds.queues_bytes_max,
            (false, _) => kept.bytes() + self.memory_bytes <= bounds.queues_bytes_max,
        }
    }

    /// How many of the oldest waiting publications are dropped for it; `None` if it is dropped itself, and
    /// they stay.
    ///
    /// At the limit of all queues, a session gives as many bytes as it gets, and no more. Other sessions may
    /// keep its oldest publications as well; then the memory is freed only when the last of them has dropped
    /// these, too. So the limit may be exceeded by one publication meanwhile, but by no more.
    fn costs(&self, outgoing: &Outgoing, bounds: &super::Bounds, kept: &KeptPublications) -> Option<usize> {
        if bounds.queue_full == QueueFull::DropNewest {
            let fits = fits(outgoing, self.bytes, bounds) && self.fits_in_all(bounds, kept);
            return fits.then_some(0);
        }
        let adds = if self.has_copy { 0 } else { self.memory_bytes };
        let (in_flight_bytes, all_bytes) = (outgoing.in_flight_bytes(kept), outgoing.kept_bytes() as usize);
        if in_flight_bytes > 0 && in_flight_bytes + self.bytes > bounds.queue_bytes_max as usize {
            return None;
        }
        let (mut given, mut freed) = (0, 0);
        let mut oldest = outgoing.oldest();
        for count in 0..=outgoing.waiting() {
            let left = all_bytes - given;
            let fits = outgoing.waiting() - count < bounds.queue_messages_max
                && (left == 0 || left + self.bytes <= bounds.queue_bytes_max as usize);
            if fits && self.fits_in_all(bounds, kept) {
                return Some(count);
            }
            if fits && given >= self.bytes {
                let fits_in_all = kept.bytes() - freed + adds <= bounds.queues_bytes_max + self.memory_bytes;
                return fits_in_all.then_some(count);
            }
            let next = oldest.next()?;
            given += kept.size(next) as usize;
            freed += kept.bytes_of_last_holder(next);
        }
        None
    }
}

/// Whether a publication of this many bytes fits into the queue of a session.
fn fits(outgoing: &Outgoing, bytes: usize, bounds: &super::Bounds) -> bool {
    let kept_bytes = outgoing.kept_bytes() as usize;
    outgoing.waiting() < bounds.queue_messages_max
        && (kept_bytes == 0 || kept_bytes + bytes <= bounds.queue_bytes_max as usize)
}
