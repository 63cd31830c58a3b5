//! The connections of one core, and what waits to be sent to them.
//!
//! All replies of a turn are sent at its end. Publications and heartbeats are sent in the order in which they were
//! queued, until the time of the turn is used up; the rest is sent in later turns. Publications that follow meanwhile
//! join them in their outboxes, and are sent with the same system call.
//!
//! The table, the lanes and the sums are in one file, because each of the invariants speaks of several of them.
//!
//! Invariants
//! 1. Every connection with bytes in its outbox is in the list of its lane; or its outbox is blocked and its lane idle,
//!    and the poll will tell when the socket takes more. An entry of a list counts only while its connection has that
//!    lane.
//! 2. `queued_bytes` is the sum of all outboxes, `unflushed_bytes` the sum of those that are not blocked, and
//!    `conflated_bytes` the sum of the publications that wait behind outboxes.
//! 3. `held` knows the bytes that each waiting connection holds (`held_memory.rs`), since [`Connections::note_held`] is
//!    called where that changes.
//! 4. Nothing here ends a connection. One that must end is put into `ending` and marked (`Why::Ending`): it is not
//!    read, and publications pass it by. Steps of the turn end it (`Core::close_marked`), after a delivery, before and
//!    after a flush, so that nothing that was queued after a publication it did not take is ever sent. So to publish
//!    for one client never closes another connection, and never reads another's input.

pub(in crate::cores) mod batches;
mod batching;
#[cfg(test)]
mod invariants;
mod mqtt;
mod publications;
pub(in crate::cores) mod replays;
pub(in crate::cores) mod retained;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;

use crate::client::ClientAddress;
use crate::clock::Uptime;
use crate::config::SlowConsumer;
use crate::decision::{CloseReason, Limit};
use crate::metrics::block::{CoreMetrics, HeldKind};
use crate::mqtt::Sessions;
use crate::protocols::{Content, Farewell, Framing};
use crate::slab::Slab;
use crate::transport::port::Ticket;
use crate::transport::stream::{BeforeFin, Stream};

use self::batches::{Batches, Pace};
use self::mqtt::MqttWalk;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Lane, Leftover, Open, Phase};
use crate::cores::lifecycle::moving::Moving;
use crate::cores::lifecycle::reading::{Reading, Why};
use crate::cores::lifecycle::tally::{Opened, Tally};
use crate::cores::lifecycle::wheel::Slot;
use crate::cores::outgoing::forms::{self, Form, Forms};
use crate::cores::outgoing::held_memory::{Held, Holding};
use crate::cores::outgoing::outbox::{Flush, FramePool, Outbox};
use crate::cores::outgoing::recoveries::Recoveries;
use crate::cores::outgoing::shared_frames::FrameSpan;

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
    /// Connections that may be read again: their outboxes have drained.
    resumed: Vec<ConnectionId>,
    queued_bytes: usize,
    unflushed_bytes: usize,
    conflated_bytes: usize,
    pub(in crate::cores) held: Held,
    /// Whether the metrics have been told that nothing is held.
    nothing_is_told: bool,
    /// Bytes of publications that wait for the ring and whose publishers have disconnected: a copy of the count of
    /// `AbandonedPublications`, set when the turn begins.
    pub(in crate::cores) abandoned_bytes: usize,
    /// Connections whose sockets have been found full: the poll is to tell when they take more (`turn.rs`), and they
    /// are to be visited when they must have taken something.
    blocked: Vec<ConnectionId>,
    write_timeout: Duration,
    outbox_bytes_max: usize,
    slow_consumer: SlowConsumer,
    /// Nothing unless compression is on or some clients have the codec `min-bin`: the frame as it was published is then
    /// the only form.
    forms: Option<Box<Forms>>,
    /// The connections that collect their messages; nothing unless `batch_on_handshake` is on.
    pub(in crate::cores) batches: Option<Box<Batches>>,
    /// The subscriptions that are not live yet.
    pub(in crate::cores) recoveries: Recoveries,
    /// The MQTT sessions of the client ids that this core owns; nothing unless the server speaks MQTT.
    pub(in crate::cores) mqtt: Option<Box<Sessions>>,
    /// The publication under way for MQTT subscribers; nothing without sessions.
    mqtt_walk: Option<Box<MqttWalk>>,
    /// A copy of the wall time of this turn in milliseconds since 1970, set when the turn begins.
    pub(in crate::cores) unix_ms: u64,
    metrics: Arc<CoreMetrics>,
}

/// The limits of what waits for connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct Bounds {
    /// Most bytes that wait for one connection.
    pub(in crate::cores) outbox_bytes_max: u32,
    /// Most bytes that all connections of the core hold.
    pub(in crate::cores) held_bytes_max: usize,
    /// Longest time for which a client may take nothing; zero for any time.
    pub(in crate::cores) write_timeout: Duration,
    /// How long connections collect their messages after the handshake, if they do.
    pub(in crate::cores) batches: Option<Pace>,
}

impl Connections {
    /// Frees a part of the buffers that were not needed since the last call.
    pub(in crate::cores) fn give_back(&mut self) {
        self.pool.give_back();
    }

    /// Bytes of memory that the table takes, without what its connections have elsewhere.
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
            mqtt_walk: mqtt.is_some().then(Box::default),
            mqtt: mqtt.map(Box::new),
            unix_ms: 0,
            metrics,
        }
    }

    /// The policy for subscribers that do not keep up.
    #[cfg(test)]
    pub(in crate::cores) fn slow_consumer(&self) -> SlowConsumer {
        self.slow_consumer
    }

    /// How many there are.
    pub(in crate::cores) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All ids.
    #[cfg(test)]
    pub(in crate::cores) fn ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.slab.iter().map(|(_, connection)| connection.id)
    }

    /// The generation of the connection that came last: [`ConnectionId::age`].
    pub(in crate::cores) fn last_generation(&self) -> u32 {
        self.generation
    }

    /// Takes a socket in; `register` makes it known to the poll under the id.
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

    /// Removes an open connection that another core goes on with, and returns all of it but its socket, which that core
    /// has. `rest` is input that was read and not handled.
    pub(in crate::cores) fn depart(
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

    /// Whether a connection has nothing but packets of MQTT on its socket: no frames, which have a farewell of their own,
    /// and no TLS, which has one too.
    pub(in crate::cores) fn is_plain_mqtt(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.framing == Framing::Mqtt && connection.stream.tls.is_none())
    }

    /// Queues one whole frame in the outbox, which never refuses it. A full outbox keeps its connection from being
    /// read, so no further calls fill it; a late answer that finds it full ends the connection (`late_answers.rs`).
    pub(in crate::cores) fn send(&mut self, id: ConnectionId, content: Content, payload: &[u8]) {
        let messages = u64::from(content.is_message());
        self.metrics.messages_sent.add(messages);
        self.queue(id, |connection, pool, forms| {
            connection.tally.queue(messages);
            let framing = connection.framing;
            connection.outbox.push(pool, |bytes| {
                forms::write_reply(forms, framing, bytes, content, payload);
            });
        });
    }

    /// Queues text messages in the outbox of an open connection: nothing may follow a close frame (RFC 6455 section
    /// 5.5.1). Returns the number of messages, queued or not.
    pub(in crate::cores) fn send_texts<'t>(
        &mut self,
        id: ConnectionId,
        texts: impl Iterator<Item = &'t [u8]>,
    ) -> usize {
        let is_open = self
            .get(id)
            .is_some_and(|connection| matches!(connection.phase, Phase::Open(_)));
        if !is_open {
            return texts.count();
        }
        let mut count = 0;
        self.queue(id, |connection, pool, mut forms| {
            let framing = connection.framing;
            connection.outbox.push(pool, |bytes| {
                for text in texts {
                    let forms = forms.as_deref_mut();
                    forms::write_reply(forms, framing, bytes, Content::Text, text);
                    count += 1;
                }
            });
            connection.tally.queue(count as u64);
        });
        self.metrics.messages_sent.add(count as u64);
        count
    }

    /// Queues the last frame of a connection.
    pub(in crate::cores) fn send_farewell(&mut self, id: ConnectionId, farewell: &Farewell<'_>) {
        self.queue(id, |connection, pool, _| {
            connection.outbox.push(pool, |bytes| farewell.write(bytes));
        });
    }

    /// Queues the response head.
    pub(in crate::cores) fn send_head(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue(id, |connection, pool, _| connection.outbox.push_head(pool, write));
    }

    /// Lists a connection for a flush, so that bytes are sent that wait in the stream itself: records of TLS that carry
    /// no frames.
    pub(in crate::cores) fn send_records(&mut self, id: ConnectionId) {
        self.queue(id, |connection, pool, _| connection.outbox.push(pool, |_| {}));
    }

    fn queue(
        &mut self,
        id: ConnectionId,
        push: impl FnOnce(&mut Connection, &mut FramePool, Option<&mut Forms>),
    ) {
        let Some(connection) = self
            .slab
            .get_mut(id.index() as usize)
            .filter(|connection| connection.id == id)
        else {
            return;
        };
        let before = connection.outbox.len();
        push(connection, &mut self.pool, self.forms.as_deref_mut());
        let after = connection.outbox.len();
        self.queued_bytes += after - before;
        if !connection.outbox.is_blocked() {
            self.unflushed_bytes += after - before;
        }
        if connection.outbox.is_slow() {
            let collected = self.recoveries.bytes_of(id.index());
            self.held.note(id.index(), connection.holding(collected));
        }
        // A connection that is closing is read only for the peer's close frame.
        if after > self.outbox_bytes_max
            && !connection.reading.is_paused_by(Why::Replies)
            && matches!(connection.phase, Phase::Open(_))
        {
            connection.reading.pause(Why::Replies);
            self.metrics.limit_hit(Limit::OutboxReplies);
        }
        self.mark(id.index(), self.lane);
    }

    /// Discards the frames that have not begun to leave, to make room for the close frame.
    pub(in crate::cores) fn discard_unsent(&mut self, id: ConnectionId) {
        let Some(connection) = self.slab.get_mut(id.index() as usize) else {
            return;
        };
        let before = connection.outbox.len();
        let blocked = connection.outbox.is_blocked();
        self.conflated_bytes -= connection.outbox.conflated_bytes();
        connection.outbox.discard_unsent_frames(&mut self.pool);
        let discarded = before - connection.outbox.len();
        self.queued_bytes -= discarded;
        if !blocked {
            self.unflushed_bytes -= discarded;
        }
        self.note_held(id.index());
    }

    /// Has a connection that has ended take no publications, although it is a subscriber still.
    pub(in crate::cores) fn seal(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
        {
            connection.outbox.seal(&mut self.pool);
        }
    }

    /// Undoes [`Connections::seal`].
    pub(in crate::cores) fn unseal(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.outbox.unseal();
        }
    }

    /// Drops all that waits for a connection whose socket is of no more use.
    pub(in crate::cores) fn drop_unsent(&mut self, id: ConnectionId) {
        let Some(connection) = self.slab.get_mut(id.index() as usize) else {
            return;
        };
        if connection.id != id {
            return;
        }
        let (waiting, is_blocked) = (connection.outbox.len(), connection.outbox.is_blocked());
        self.conflated_bytes -= connection.outbox.conflated_bytes();
        self.queued_bytes -= waiting;
        if !is_blocked {
            self.unflushed_bytes -= waiting;
        }
        connection.outbox.release(&mut self.pool);
        connection.leftover = Leftover::default();
        self.held.forget(id.index());
    }

    /// The poll reports that the socket takes more.
    pub(in crate::cores) fn writable(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
            && connection.outbox.is_blocked()
        {
            connection.outbox.unblock();
            self.unflushed_bytes += connection.outbox.len();
            self.mark(id.index(), Lane::Bulk);
            if self.mqtt.is_some() {
                self.unblock_mqtt(id.index());
            }
        }
    }

    /// Whether something was queued after the last flush.
    pub(in crate::cores) fn has_unflushed(&self) -> bool {
        !self.prompt.is_empty() || !self.bulk.is_empty()
    }

    /// Sends our FIN as soon as the outbox is empty: with the flush of this turn if it is empty now.
    pub(in crate::cores) fn finish(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.mark(id.index(), Lane::Prompt);
        }
    }

    /// Writes the outboxes to their sockets, each with one system call: all of the prompt lane, then those of the bulk
    /// lane until `is_over` says that the time is used up. It is asked once per [`FLUSHES_BETWEEN_LOOKS`] connections.
    pub(in crate::cores) fn flush(&mut self, is_over: impl FnMut() -> bool) {
        // In the order in which they were queued: the connection that was read first is answered first.
        let mut sent = 0;
        while let Some(&index) = self.prompt.get(sent) {
            if self
                .slab
                .get(index as usize)
                .is_some_and(|connection| connection.lane == Lane::Prompt)
            {
                self.flush_one(index);
            }
            sent += 1;
        }
        self.prompt.clear();
        if !self.bulk.is_empty() {
            self.flush_bulk_lane(is_over);
        }
        let waiting = self.queued_bytes + self.conflated_bytes;
        self.metrics.outbox_bytes.set(waiting as u64);
        self.tell_held();
        if let Some(forms) = &mut self.forms {
            let work = forms.take_compression_work();
            self.metrics.messages_deflated.add(work.messages);
            self.metrics.deflate_bytes_before.add(work.bytes_before);
            self.metrics.deflate_bytes_after.add(work.bytes_after);
        }
    }

    /// Flushes the outboxes of the bulk lane until `is_over`. Not inlined: the loop needs the registers that a turn has
    /// other values in.
    #[inline(never)]
    fn flush_bulk_lane(&mut self, mut is_over: impl FnMut() -> bool) {
        let mut sent = 0;
        while let Some(&index) = self.bulk.get(sent) {
            sent += 1;
            self.flush_bulk(index);
            if sent.is_multiple_of(FLUSHES_BETWEEN_LOOKS) && is_over() {
                break;
            }
        }
        self.bulk.drain(..sent);
        self.bulk_taken += sent as u64;
    }

    /// Whether connections were found to end.
    #[inline]
    pub(in crate::cores) fn has_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// The next connection that was found to end, and why.
    pub(in crate::cores) fn next_ending(&mut self) -> Option<(ConnectionId, CloseReason)> {
        self.ending.pop()
    }

    /// The next connection whose socket was found full.
    pub(in crate::cores) fn next_blocked(&mut self) -> Option<ConnectionId> {
        self.blocked.pop()
    }

    /// The next connection that may be read again, since its outbox has drained.
    pub(in crate::cores) fn next_resumed(&mut self) -> Option<ConnectionId> {
        self.resumed.pop()
    }

    /// The end of the bulk lane, counted since the core began. When [`Connections::has_flushed`] returns true for it,
    /// all that is queued now has been sent, or has found its socket full.
    pub(in crate::cores) fn end_of_bulk(&self) -> u64 {
        self.bulk_taken + self.bulk.len() as u64
    }

    /// Whether the flush has reached this end of the bulk lane.
    pub(in crate::cores) fn has_flushed(&self, end_of_bulk: u64) -> bool {
        self.bulk_taken >= end_of_bulk
    }

    /// Flushes a connection from the list of the bulk lane, unless the connection has changed its lane since. Nearly
    /// all have only publications to send, have no TLS, and stay open: a connection that ends sends its last bytes in
    /// the prompt lane, or at once.
    #[inline]
    fn flush_bulk(&mut self, index: u32) {
        let Some(connection) = self.slab.get_mut(index as usize) else {
            return;
        };
        if connection.lane != Lane::Bulk {
            return;
        }
        let (Some(span), None) = (connection.outbox.shared(), &connection.stream.tls) else {
            return self.flush_one(index);
        };
        debug_assert!(
            !connection.reading.is_paused_by(Why::Replies)
                && !matches!(connection.phase, Phase::Finishing { .. } | Phase::Emptying { .. }),
            "publications alone wait for a connection that goes on"
        );
        connection.lane = Lane::Idle;
        self.unflushed_bytes -= span.len();
        let socket = &mut connection.stream.socket;
        match connection
            .outbox
            .flush_shared(span, connection.framing, socket, &mut self.pool)
        {
            Ok((written, Flush::Empty)) => {
                self.queued_bytes -= written;
                self.metrics.bytes_sent.add(written as u64);
                connection.tally.bytes_out += written as u64;
            }
            other => self.note_flushed(index, false, other),
        }
    }

    /// Flushes one connection at once. True if nothing is left.
    pub(in crate::cores) fn flush_now(&mut self, id: ConnectionId) -> bool {
        if self.get(id).is_some() {
            self.flush_one(id.index());
        }
        self.get(id).is_none_or(|connection| connection.outbox.is_empty())
    }

    fn flush_one(&mut self, index: u32) {
        let Some(connection) = self.slab.get_mut(index as usize) else {
            return;
        };
        connection.lane = Lane::Idle;
        if connection.outbox.is_blocked() {
            return;
        }
        let is_slow = connection.outbox.is_slow();
        self.unflushed_bytes -= connection.outbox.len();
        let framing = connection.framing;
        let Stream { socket, tls } = &mut connection.stream;
        let ends = matches!(connection.phase, Phase::Finishing { fin_sent: false, .. });
        let flushed = match tls {
            None if ends => connection
                .outbox
                .flush(framing, &mut BeforeFin(socket), &mut self.pool),
            None => connection.outbox.flush(framing, socket, &mut self.pool),
            Some(tls) => {
                let mut writer = tls.writer(socket, &mut self.records);
                let flushed = connection.outbox.flush(framing, &mut writer, &mut self.pool);
                connection.outbox.hold(framing, tls.held(), &self.pool);
                flushed
            }
        };
        self.note_flushed(index, is_slow, flushed);
    }

    /// Does what follows from the result of a flush: counts bytes, resumes reading, sends a FIN or marks the connection
    /// for closing. `was_slow` says that the socket had been found full before.
    fn note_flushed(&mut self, index: u32, was_slow: bool, flushed: io::Result<(usize, Flush)>) {
        let Some(connection) = self.slab.get_mut(index as usize) else {
            return;
        };
        let has_tls = connection.stream.tls.is_some();
        // Whether the bytes that it holds may have changed: `held` counts connections whose sockets were found full, or
        // whose TLS keeps records.
        let mut is_held = was_slow;
        match flushed {
            Ok((written, flush)) => {
                self.queued_bytes -= written;
                let tls = connection.stream.tls.as_mut();
                let taken = tls.map_or(written, |tls| tls.take_written());
                self.metrics.bytes_sent.add(taken as u64);
                connection.tally.bytes_out += taken as u64;
                if connection.reading.is_paused_by(Why::Replies)
                    && connection.outbox.len() <= self.outbox_bytes_max / 2
                {
                    connection.reading.resume(Why::Replies);
                    self.resumed.push(connection.id);
                }
                match flush {
                    Flush::Blocked => {
                        is_held = true;
                        self.note_blocked(index, taken);
                    }
                    Flush::Refilled(count) => self.queue_refilled(index, count),
                    Flush::Empty => match &mut connection.phase {
                        Phase::Finishing {
                            fin_sent: fin_sent @ false,
                            ..
                        } => {
                            *fin_sent = connection.stream.finish();
                            if !*fin_sent {
                                connection.outbox.block(&mut self.pool);
                                self.blocked.push(connection.id);
                            }
                        }
                        Phase::Emptying { .. } => {
                            mark_for_closing(&mut self.ending, connection, CloseReason::PeerVanished);
                        }
                        Phase::ProxyHeader { .. }
                        | Phase::Request { .. }
                        | Phase::LoggingIn { .. }
                        | Phase::Open(_)
                        | Phase::Closing { .. }
                        | Phase::Finishing { .. } => {}
                    },
                }
            }
            Err(_) => {
                self.queued_bytes -= connection.outbox.len();
                self.conflated_bytes -= connection.outbox.conflated_bytes();
                connection.outbox.release(&mut self.pool);
                mark_for_closing(&mut self.ending, connection, CloseReason::PeerVanished);
            }
        }
        if is_held || has_tls {
            self.note_held(index);
        }
    }

    /// Notes that a flush has found a socket full after it had taken `taken` bytes.
    fn note_blocked(&mut self, index: u32, taken: usize) {
        let connection = &mut self.slab[index as usize];
        let is_first = connection.outbox.note_blocked(self.now);
        if is_first {
            self.blocked.push(connection.id);
        }
        if self.write_timeout.is_zero() {
            return;
        }
        let unacknowledged = connection.stream.unacknowledged_bytes().unwrap_or(u32::MAX);
        if is_first || taken > 0 || unacknowledged < connection.outbox.unacknowledged() {
            let by = self.now + self.write_timeout;
            connection.outbox.expect_progress(by, unacknowledged);
        }
    }

    /// Whether a client has taken nothing of what waits for it for `write_timeout`: the socket no byte, and its peer
    /// none of those that the socket had taken before. The socket tells of room only when much of its buffer is free,
    /// so that a peer which reads slowly may have acknowledged some in the meantime. What fell into a time when this
    /// core stood still does not count: the peer may have stood still as well.
    pub(in crate::cores) fn takes_nothing(&mut self, id: ConnectionId, responsive_since: Uptime) -> bool {
        let (now, timeout) = (self.now, self.write_timeout);
        let Some(connection) = self.get_mut(id) else {
            return false;
        };
        if connection.outbox.taken_by() > now {
            return false;
        }
        let unacknowledged = connection.stream.unacknowledged_bytes().unwrap_or(u32::MAX);
        if unacknowledged < connection.outbox.unacknowledged() {
            connection.outbox.expect_progress(now + timeout, unacknowledged);
            return false;
        }
        if responsive_since + timeout > now {
            connection
                .outbox
                .expect_progress(responsive_since + timeout, unacknowledged);
            return false;
        }
        true
    }

    /// Counts again the bytes that a connection holds.
    pub(in crate::cores) fn note_held(&mut self, index: u32) {
        if let Some(connection) = self.slab.get(index as usize) {
            let collected = self.recoveries.bytes_of(index);
            self.held.note(index, connection.holding(collected));
        }
    }

    /// Counts them again after input was taken in or carried out. Does nothing for a connection that held none before
    /// and holds none now.
    #[inline]
    pub(in crate::cores) fn note_input(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id)
            && (connection.holds_input() || self.held.knows(id.index()))
        {
            self.note_held(id.index());
        }
    }

    /// Tells the metrics how much is held. Nothing is told twice when nothing is held.
    #[inline]
    fn tell_held(&mut self) {
        let is_nothing = self.held.is_empty() && self.queued_bytes == 0 && self.abandoned_bytes == 0;
        if is_nothing && self.nothing_is_told {
            return;
        }
        self.nothing_is_told = is_nothing;
        for (gauge, (_, bytes)) in self.metrics.held_bytes.iter().zip(self.held_by_kind()) {
            gauge.set(bytes as u64);
        }
    }

    /// The bytes that all connections hold together, by kind.
    fn held_by_kind(&self) -> [(HeldKind, usize); HeldKind::COUNT] {
        let sums: &Holding = self.held.sums();
        let shared = &self.pool.shared;
        [
            (
                HeldKind::Outboxes,
                self.queued_bytes.saturating_sub(shared.lent_bytes()),
            ),
            (HeldKind::Shared, shared.alone_bytes()),
            (HeldKind::Conflated, self.conflated_bytes),
            (HeldKind::Assemblies, sums.assembly),
            (HeldKind::Leftovers, sums.leftover),
            (HeldKind::Parked, sums.parked),
            (HeldKind::Tls, sums.tls),
            (HeldKind::Collected, sums.collected),
            (HeldKind::Abandoned, self.abandoned_bytes),
        ]
    }

    fn held_bytes(&self) -> usize {
        self.held_by_kind().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether all connections together hold more than they may.
    #[inline]
    pub(in crate::cores) fn hold_too_much(&self) -> bool {
        self.held_bytes() > self.held.bytes_max
    }

    /// Whether connections have to be closed because all together hold too much. If the policy can leave publications
    /// out, that begins an eighth above the limit. If no connection waits, there is none to close.
    #[inline]
    pub(in crate::cores) fn must_shed(&self) -> bool {
        !self.held.is_empty() && self.holds_too_much_to_leave_out()
    }

    fn holds_too_much_to_leave_out(&self) -> bool {
        let held_bytes = self.held_bytes();
        let max = self.held.bytes_max;
        held_bytes > max
            && match self.slow_consumer {
                SlowConsumer::Close => true,
                SlowConsumer::Skip | SlowConsumer::Conflate => held_bytes - max > max / 8,
            }
    }

    /// Whether connections are still to be closed for what all of them hold.
    pub(in crate::cores) fn is_shedding(&self) -> bool {
        self.must_shed() && self.holds_most().is_some()
    }

    /// Whether enough connections have been closed: the bytes held are a sixteenth below the limit.
    pub(in crate::cores) fn has_shed(&self) -> bool {
        let max = self.held.bytes_max;
        self.held_bytes() <= max - max / 16
    }

    /// A connection that holds most.
    pub(in crate::cores) fn holds_most(&self) -> Option<ConnectionId> {
        self.held.most().and_then(|index| self.id_at(index))
    }

    /// Puts a connection into the list of a lane, unless it is in that of a prompter one or its outbox is blocked.
    fn mark(&mut self, index: u32, lane: Lane) {
        let connection = &mut self.slab[index as usize];
        if connection.outbox.is_blocked() {
            return;
        }
        match (connection.lane, lane) {
            // Nothing is queued in these two lanes, and a connection that collects leaves its own by itself.
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

/// Marks a connection that must be closed, once. From now on it is not read and gets no publications; the core closes
/// it before the next flush.
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
/// A look at the clock costs as much as 1 % of one flush.
const FLUSHES_BETWEEN_LOOKS: usize = 8;

#[cfg(test)]
mod tests;
