//! The connections of one core, and the bytes that wait to be sent to them.
//!
//! All replies of a turn are sent at its end. Publications and heartbeats are sent in the order in which they were
//! queued, until the time of the turn is used up; the rest is sent in later turns. Publications that follow meanwhile
//! join them in their outboxes, and are sent with the same system call.
//!
//! ```text
//!  connections.rs  the table, the lanes, and the sums of all outboxes
//!  sending.rs      replies and last words into outboxes           publications.rs  publications for SocketCluster clients
//!  batching.rs     messages for clients that get arrays           mqtt.rs          publications for MQTT clients
//!  flushing.rs     outboxes into sockets                          retained.rs      retained ones, for MQTT clients
//!  held.rs         the bytes that waiting connections hold        replays.rs       histories, for later subscribers
//! ```
//!
//! Invariants
//! 1. Every connection with bytes in its outbox is in the list of its lane; or its outbox is blocked, its
//!    lane is idle, and the poll will report when the socket takes more. An entry of a list counts only while
//!    its connection has that lane.
//! 2. `queued_bytes` is the sum of all outboxes, `unflushed_bytes` the sum of those that are not blocked, and
//!    `conflated_bytes` the sum of the publications that wait behind outboxes.
//! 3. `held` knows the bytes that each waiting connection holds (`held_memory.rs`):
//!    [`Connections::note_held`] is called wherever that number changes.
//! 4. Nothing here ends a connection. A connection that must end is put into `ending` and marked
//!    (`Why::Ending`): it is not read, and gets no publications. Steps of the turn end it
//!    (`Core::close_marked`) after a delivery, before a flush and after it. So the connection is never sent
//!    anything that was queued after a publication it has missed. To publish for one client never closes
//!    another connection, and never reads another's input.

pub(in crate::cores) mod batches;
mod batching;
pub(in crate::cores) mod delivery_inspector;
mod flushing;
mod held_bytes;
#[cfg(test)]
mod invariants;
mod mqtt;
mod publications;
pub(in crate::cores) mod replays;
pub(in crate::cores) mod retained;
mod sending;
pub(in crate::cores) mod slow_consumers;

use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;

use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::SlowConsumer;
use crate::decision::CloseReason;
use crate::metrics::block::CoreMetrics;
use crate::mqtt::Sessions;
use crate::protocols::Framing;
use crate::slab::Slab;
use crate::transport::port::Ticket;
use crate::transport::stream::Stream;

use self::batches::{Batches, Pace};
use self::mqtt::MqttWalk;
use self::slow_consumers::SlowConsumers;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Lane, Leftover, Open, Phase};
use crate::cores::lifecycle::moving::Moving;
use crate::cores::lifecycle::reading::{Reading, Why};
use crate::cores::lifecycle::tally::{Opened, Tally};
use crate::cores::lifecycle::wheel::Slot;
use crate::cores::outgoing::forms::{Form, Forms};
use crate::cores::outgoing::held_memory::Held;
use crate::cores::outgoing::outbox::{FramePool, Outbox};
use crate::cores::outgoing::recoveries::Recoveries;
use crate::cores::outgoing::shared_frames::FrameSpan;
use crate::cores::outgoing::withheld::WithheldPositions;

/// The table.
#[derive(Debug)]
pub(in crate::cores) struct Connections {
    slab: Slab<Connection>,
    /// A copy of the time of this turn (`TurnTime`), set when the turn begins.
    pub(in crate::cores) now: Uptime,
    generation: u32,
    pool: FramePool,
    /// Records that are being encrypted; empty without TLS.
    records: Vec<u8>,
    /// The lane in which frames are queued now.
    pub(in crate::cores) lane: Lane,
    prompt: Vec<u32>,
    bulk: Vec<u32>,
    /// Places that were ever taken from the front of `bulk`.
    bulk_taken: u64,
    /// The shared frames of the publication under way, by [`Form::index`]; `None` for a form without room in the pool.
    under_way: [Option<FrameSpan>; Form::COUNT],
    ending: Vec<(ConnectionId, CloseReason)>,
    /// Connections that may be read again, since their outboxes have drained.
    resumed: Vec<ConnectionId>,
    queued_bytes: usize,
    unflushed_bytes: usize,
    conflated_bytes: usize,
    pub(in crate::cores) held: Held,
    /// Whether the metrics already say that nothing is held.
    nothing_is_told: bool,
    /// Bytes of publications that wait for the ring and whose publishers have disconnected: a copy of the count of
    /// `AbandonedPublications`, set when the turn begins.
    pub(in crate::cores) abandoned_bytes: usize,
    /// Connections whose sockets have just been found full: the turn asks the poll for writable events
    /// (`turn.rs`), and visits these connections when `write_timeout` is over.
    blocked: Vec<ConnectionId>,
    write_timeout: Duration,
    outbox_bytes_max: usize,
    slow_consumer: SlowConsumer,
    /// `None` unless compression is on or some clients have the codec `min-bin`: then the only form of a
    /// publication is its frame as it was published.
    forms: Option<Box<Forms>>,
    /// The connections that collect their messages; `None` unless `batch_on_handshake` is on.
    pub(in crate::cores) batches: Option<Box<Batches>>,
    /// The subscriptions that are not live yet.
    pub(in crate::cores) recoveries: Recoveries,
    /// The positions of publications that the application has withheld; empty if it does not look at deliveries.
    pub(in crate::cores) withheld: WithheldPositions,
    /// Finds the histories in which a subscriber reads publications later that it does not take now; `None`
    /// if no channel has ever had a policy.
    pub(in crate::cores) histories: Option<Box<replays::ReadLater>>,
    /// The MQTT sessions of the client ids that this core owns; `None` unless the server speaks MQTT.
    pub(in crate::cores) mqtt: Option<Box<Sessions>>,
    /// The publication under way for MQTT subscribers; `None` without sessions.
    mqtt_walk: Option<Box<MqttWalk>>,
    /// A copy of the wall time of this turn in milliseconds since 1970, set when the turn begins.
    pub(in crate::cores) unix_ms: u64,
    /// Clients that do not keep up, to be reported to webhooks; `None` if no webhook asks for them.
    pub(in crate::cores) slow_consumers: Option<Box<SlowConsumers>>,
    metrics: Arc<CoreMetrics>,
}

/// The limits on waiting bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Bounds {
    /// Most bytes in one connection's outbox.
    pub(in crate::cores) outbox_bytes_max: u32,
    /// Most bytes that all connections of the core hold together.
    pub(in crate::cores) held_bytes_max: usize,
    /// Longest time for which a client may take no bytes; zero for no limit.
    pub(in crate::cores) write_timeout: Duration,
    /// How long connections collect their messages after the handshake, if they do.
    pub(in crate::cores) batches: Option<Pace>,
}

impl Connections {
    /// Frees a part of the buffers that were not needed since the last call.
    pub(in crate::cores) fn give_back(&mut self) {
        self.pool.give_back();
    }

    /// Bytes of memory that the table itself takes, without the memory that its connections have elsewhere.
    pub(in crate::cores) fn table_bytes(&self) -> usize {
        self.slab.memory_bytes()
    }

    /// An empty table.
    pub(in crate::cores) fn new(
        bounds: &Bounds,
        slow_consumer: SlowConsumer,
        forms: Option<Forms>,
        mqtt: Option<Sessions>,
        metrics: Arc<CoreMetrics>,
    ) -> Connections {
        Connections {
            slab: Slab::new(),
            now: Uptime::default(),
            generation: 0,
            pool: FramePool::default(),
            records: Vec::new(),
            lane: Lane::Prompt,
            prompt: Vec::with_capacity(PROMPT_KEPT),
            bulk: Vec::new(),
            bulk_taken: 0,
            under_way: [None; Form::COUNT],
            ending: Vec::new(),
            resumed: Vec::new(),
            queued_bytes: 0,
            unflushed_bytes: 0,
            conflated_bytes: 0,
            held: Held::new(bounds.held_bytes_max),
            nothing_is_told: false,
            abandoned_bytes: 0,
            blocked: Vec::new(),
            write_timeout: bounds.write_timeout,
            outbox_bytes_max: bounds.outbox_bytes_max as usize,
            slow_consumer,
            forms: forms.map(Box::new),
            batches: bounds.batches.map(|pace| Box::new(Batches::new(pace))),
            recoveries: Recoveries::default(),
            withheld: WithheldPositions::default(),
            histories: None,
            mqtt_walk: mqtt.is_some().then(Box::default),
            mqtt: mqtt.map(Box::new),
            unix_ms: 0,
            slow_consumers: None,
            metrics,
        }
    }

    /// The policy for subscribers that do not keep up.
    #[cfg(test)]
    pub(in crate::cores) fn slow_consumer(&self) -> SlowConsumer {
        self.slow_consumer
    }

    /// How many connections there are.
    pub(in crate::cores) fn len(&self) -> usize {
        self.slab.len()
    }

    /// The ids of all connections.
    #[cfg(test)]
    pub(in crate::cores) fn ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.slab.iter().map(|(_, connection)| connection.id)
    }

    /// The generation of the newest connection: [`ConnectionId::age`].
    pub(in crate::cores) fn last_generation(&self) -> u32 {
        self.generation
    }

    /// Adds a socket to the table; `register` registers it with the poll under the id.
    pub(in crate::cores) fn insert(
        &mut self,
        mut stream: TcpStream,
        client: ClientAddress,
        phase: Phase,
        register: impl FnOnce(&mut TcpStream, ConnectionId) -> std::io::Result<()>,
    ) -> std::io::Result<ConnectionId> {
        let index = u32::try_from(self.slab.vacant()).expect("descriptors are numbered with 31 bits");
        self.generation = self.generation.wrapping_add(1);
        let id = ConnectionId::new(index, self.generation);
        register(&mut stream, id)?;
        self.slab.insert(Connection {
            stream: Stream::plain(stream),
            id,
            client,
            opened: Opened::at(self.now),
            is_counted: false,
            armed: Slot::NONE,
            lane: Lane::Idle,
            reading: Reading::default(),
            framing: Framing::UNKNOWN,
            shows_tokens: false,
            outbox: Outbox::default(),
            leftover: Leftover::default(),
            suspended: None,
            tally: Tally::default(),
            meter: None,
            phase,
        });
        Ok(id)
    }

    /// Removes a connection and closes its socket. The bytes in its outbox are lost.
    pub(in crate::cores) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some()
            && let Some(mut connection) = self.slab.remove(id.index() as usize)
        {
            connection.stream.part();
            self.held.forget(id.index());
            self.forget(&connection.outbox);
            connection.outbox.release(&mut self.pool);
        }
    }

    /// Removes an open connection that moves to another core, and returns all of it but its socket, which
    /// that core already has. `rest` is input that was read and not handled.
    pub(in crate::cores) fn remove_moved(
        &mut self,
        id: ConnectionId,
        ticket: Ticket,
        rest: &[u8],
    ) -> Option<Moving> {
        self.get(id)?;
        let mut connection = self.slab.remove(id.index() as usize)?;
        self.held.forget(id.index());
        self.forget(&connection.outbox);
        let unsent = connection.outbox.unsent(&self.pool);
        connection.outbox.release(&mut self.pool);
        let Phase::Open(Open { wire, session }) = connection.phase else {
            return None;
        };
        Some(Moving {
            ticket,
            client: connection.client,
            is_counted: connection.is_counted,
            opened: connection.opened,
            tally: connection.tally,
            framing: connection.framing,
            wire,
            session,
            tls: connection.stream.tls,
            meter: connection.meter,
            context: None,
            leftover: Leftover::new(rest),
            unsent,
        })
    }

    /// One more than the highest index that a connection may have now.
    pub(in crate::cores) fn places(&self) -> u32 {
        u32::try_from(self.slab.places()).unwrap_or(u32::MAX)
    }

    /// The connection that has this index now.
    pub(in crate::cores) fn at(&self, index: u32) -> Option<&Connection> {
        self.slab.get(index as usize)
    }

    /// The id of the connection that has this index now.
    pub(in crate::cores) fn id_at(&self, index: u32) -> Option<ConnectionId> {
        self.slab.get(index as usize).map(|connection| connection.id)
    }

    /// The connection, if it has not ended.
    #[inline]
    pub(in crate::cores) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slab
            .get(id.index() as usize)
            .filter(|connection| connection.id == id)
    }

    /// The connection, if it has not ended.
    pub(in crate::cores) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slab
            .get_mut(id.index() as usize)
            .filter(|connection| connection.id == id)
    }

    /// Whether a connection keeps decisions that could not be carried out.
    #[inline]
    pub(in crate::cores) fn has_suspended(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.suspended.is_some())
    }

    /// The connection, if it has not ended, and the MQTT sessions, which its session may need.
    #[inline]
    pub(in crate::cores) fn get_with_mqtt(
        &mut self,
        id: ConnectionId,
    ) -> Option<(&mut Connection, Option<&mut Sessions>)> {
        let connection = self
            .slab
            .get_mut(id.index() as usize)
            .filter(|connection| connection.id == id)?;
        Some((connection, self.mqtt.as_deref_mut()))
    }

    /// Whether a connection speaks MQTT. A server without MQTT pays one comparison.
    #[inline]
    pub(in crate::cores) fn speaks_mqtt(&self, id: ConnectionId) -> bool {
        let framing = || self.get(id).map(|connection| connection.framing);
        self.mqtt.is_some() && matches!(framing(), Some(Framing::Mqtt | Framing::MqttOverWebSocket))
    }

    /// Whether the socket of a connection carries packets of MQTT alone: neither frames nor TLS, which both
    /// have a farewell of their own.
    pub(in crate::cores) fn is_plain_mqtt(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.framing == Framing::Mqtt && connection.stream.tls.is_none())
    }

    /// Puts a connection into the list of a lane, unless it is in the list of a more urgent lane or its
    /// outbox is blocked.
    fn mark(&mut self, index: u32, lane: Lane) {
        let connection = &mut self.slab[index as usize];
        if connection.outbox.is_blocked() {
            return;
        }
        match (connection.lane, lane) {
            // No bytes are queued in these two lanes, and a connection that collects leaves its lane by
            // itself.
            (_, Lane::Idle | Lane::Batch) | (Lane::Batch, _) => {}
            (Lane::Prompt, Lane::Bulk | Lane::Prompt) | (Lane::Bulk, Lane::Bulk) => {}
            (Lane::Idle | Lane::Bulk, Lane::Prompt) => {
                connection.lane = lane;
                self.prompt.push(index);
            }
            (Lane::Idle, Lane::Bulk) => {
                connection.lane = lane;
                self.bulk.push(index);
            }
        }
    }

    /// Subtracts an outbox from the counts.
    fn forget(&mut self, outbox: &Outbox) {
        self.conflated_bytes -= outbox.conflated_bytes();
        self.queued_bytes -= outbox.len();
        if !outbox.is_blocked() {
            self.unflushed_bytes -= outbox.len();
        }
    }
}

/// Marks a connection that must be closed, unless it is marked already. From now on it is not read and gets
/// no publications. The core closes it before the next flush.
fn mark_for_closing(
    ending: &mut Vec<(ConnectionId, CloseReason)>,
    connection: &mut Connection,
    reason: CloseReason,
) {
    if !connection.reading.is_paused_by(Why::Ending) {
        connection.reading.pause(Why::Ending);
        ending.push((connection.id, reason));
    }
}

/// Room for the replies of one turn, from the beginning, so that the list does not grow in the middle of serving.
const PROMPT_KEPT: usize = 1024;

#[cfg(test)]
mod tests;
