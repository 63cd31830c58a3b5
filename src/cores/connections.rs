//! The connections of one core, and what waits to be sent to them.
//!
//! Invariants
//! 1. Every connection with bytes in its outbox is in `dirty`, or its outbox is blocked and the poll will tell.
//! 2. `queued_bytes` is the sum of all outboxes.
//! 3. Nothing here ends a connection: those that must end are in `ending`, and the core ends them (`ending.rs`) when no
//!    list is being walked.

use std::sync::Arc;

use mio::net::TcpStream;
use slab::Slab;

use crate::clock::Uptime;
use crate::config::limits::{Limit, SlowConsumer};
use crate::decision::CloseReason;
use crate::metrics::block::CoreMetrics;
use crate::websocket::close::CloseFrame;
use crate::websocket::frame::{self, OpCode};

use super::connection::{Connection, ConnectionId, Phase};
use super::outbox::{Flush, Outbox, POOLED_BUFFERS_MAX, Pool};

/// The table.
#[derive(Debug)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// With no more connections than this, the table gives memory back.
    shrink_at: usize,
    generation: u32,
    pool: Pool,
    dirty: Vec<u32>,
    pub(super) ending: Vec<(ConnectionId, CloseReason)>,
    /// Connections that may be read again: their outboxes have drained.
    pub(super) resumed: Vec<ConnectionId>,
    queued_bytes: usize,
    /// Bytes queued since the last flush.
    unflushed_bytes: usize,
    outbox_bytes_max: usize,
    slow_consumer: SlowConsumer,
    metrics: Arc<CoreMetrics>,
}

impl Connections {
    /// An empty table.
    pub(super) fn new(
        outbox_bytes_max: u32,
        slow_consumer: SlowConsumer,
        metrics: Arc<CoreMetrics>,
    ) -> Connections {
        Connections {
            slab: Slab::new(),
            shrink_at: 0,
            generation: 0,
            pool: Pool::default(),
            dirty: Vec::new(),
            ending: Vec::new(),
            resumed: Vec::new(),
            queued_bytes: 0,
            unflushed_bytes: 0,
            outbox_bytes_max: outbox_bytes_max as usize,
            slow_consumer,
            metrics,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.slab.iter().map(|(_, connection)| connection.id)
    }

    /// Takes a socket in; `register` makes it known to the poll under the id.
    pub(super) fn insert(
        &mut self,
        mut stream: TcpStream,
        phase: Phase,
        register: impl FnOnce(&mut TcpStream, ConnectionId) -> std::io::Result<()>,
    ) -> std::io::Result<ConnectionId> {
        let entry = self.slab.vacant_entry();
        let index = u32::try_from(entry.key()).expect("descriptors are numbered with 31 bits");
        self.generation = self.generation.wrapping_add(1);
        let id = ConnectionId::new(index, self.generation);
        register(&mut stream, id)?;
        entry.insert(Connection {
            stream,
            id,
            armed: Uptime::NEVER,
            dirty: false,
            unread: false,
            unfinished: false,
            held_back: false,
            outbox: Outbox::default(),
            leftover: Box::default(),
            stalled: None,
            phase,
        });
        self.shrink_at = self.shrink_at.max(self.slab.len() / 4);
        Ok(id)
    }

    /// Takes a connection out and closes its socket. Whatever its outbox holds is lost.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            let mut connection = self.slab.remove(id.index() as usize);
            self.queued_bytes -= connection.outbox.len();
            connection.outbox.release(&mut self.pool);
            if self.slab.len() <= self.shrink_at {
                // Walks the table, so next when half of these are gone as well.
                self.slab.shrink_to_fit();
                self.shrink_at = self.slab.len() / 2;
            }
        }
    }

    /// The connection, if it has not ended.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slab
            .get(id.index() as usize)
            .filter(|connection| connection.id == id)
    }

    /// The connection, if it has not ended.
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slab
            .get_mut(id.index() as usize)
            .filter(|connection| connection.id == id)
    }

    /// Queues one whole frame. Never refused: what fills it up is the connection's own calls, which
    /// are not read any more once it is full, and late answers, which end it (`turn.rs`).
    pub(super) fn send(&mut self, id: ConnectionId, opcode: OpCode, payload: &[u8]) {
        self.metrics.messages_sent.add(u64::from(!opcode.is_control()));
        self.queue(id, |outbox, pool| {
            outbox.push(pool, |bytes| frame::write(bytes, opcode, payload))
        });
    }

    /// Queues text messages, unless the connection has ended in the middle of what it decided: its own publication may
    /// have been the one that its outbox did not take, and nothing may follow a close frame (RFC 6455 section 5.5.1).
    /// Returns how many they were, queued or not.
    pub(super) fn send_texts<'t>(
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
        self.queue(id, |outbox, pool| {
            outbox.push(pool, |bytes| {
                for text in texts {
                    frame::write(bytes, OpCode::Text, text);
                    count += 1;
                }
            });
        });
        self.metrics.messages_sent.add(count as u64);
        count
    }

    /// Queues a close frame.
    pub(super) fn send_close(&mut self, id: ConnectionId, close: &CloseFrame<'_>) {
        self.queue(id, |outbox, pool| outbox.push(pool, |bytes| close.write(bytes)));
    }

    /// Queues the response head.
    pub(super) fn send_head(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.queue(id, |outbox, pool| outbox.push_head(pool, write));
    }

    fn queue(&mut self, id: ConnectionId, push: impl FnOnce(&mut Outbox, &mut Pool)) {
        let Some(connection) = self
            .slab
            .get_mut(id.index() as usize)
            .filter(|connection| connection.id == id)
        else {
            return;
        };
        let before = connection.outbox.len();
        push(&mut connection.outbox, &mut self.pool);
        let after = connection.outbox.len();
        self.queued_bytes += after - before;
        self.unflushed_bytes += after - before;
        if after > self.outbox_bytes_max && !connection.held_back {
            connection.held_back = true;
            self.metrics.limit_hit(Limit::OutboxReplies);
        }
        mark_dirty(connection, &mut self.dirty);
    }

    /// Queues a publication, already a whole frame, for each of `subscribers`; returns how many took it. Those whose
    /// outbox is full are skipped or put on the list of those that end.
    pub(super) fn deliver(&mut self, subscribers: &[u32], frame: &[u8]) -> u64 {
        let mut taken = 0;
        for &index in subscribers {
            if self.unflushed_bytes >= UNFLUSHED_BYTES_MAX || self.dirty.len() >= POOLED_BUFFERS_MAX {
                self.flush();
            }
            if self.outbox_is_full(index, frame.len()) {
                continue;
            }
            let connection = &mut self.slab[index as usize];
            connection
                .outbox
                .push(&mut self.pool, |bytes| bytes.extend_from_slice(frame));
            self.queued_bytes += frame.len();
            self.unflushed_bytes += frame.len();
            mark_dirty(connection, &mut self.dirty);
            taken += 1;
        }
        self.metrics.messages_sent.add(taken);
        self.metrics.deliveries.add(taken);
        taken
    }

    /// Whether a publication does not fit; if so, the policy has been carried out. An empty outbox takes any one frame.
    fn outbox_is_full(&mut self, index: u32, frame_bytes: usize) -> bool {
        let connection = &self.slab[index as usize];
        let bytes_max = self.outbox_bytes_max;
        let fits = |outbox: &Outbox| outbox.is_empty() || outbox.len() + frame_bytes <= bytes_max;
        if fits(&connection.outbox) {
            return false;
        }
        if !connection.outbox.is_blocked() {
            // A burst within one turn: the socket has not been asked yet.
            self.flush_one(index);
            if fits(&self.slab[index as usize].outbox) {
                return false;
            }
        }
        self.metrics.limit_hit(Limit::OutboxBytes);
        match self.slow_consumer {
            SlowConsumer::Skip => self.metrics.publications_skipped.add(1),
            SlowConsumer::Close => self
                .ending
                .push((self.slab[index as usize].id, CloseReason::SlowConsumer)),
        }
        true
    }

    /// Forgets what has not begun to leave, to make room for the close frame.
    pub(super) fn discard_unsent(&mut self, id: ConnectionId) {
        let Some(connection) = self.slab.get_mut(id.index() as usize) else {
            return;
        };
        let before = connection.outbox.len();
        connection.outbox.discard_unsent_frames(&mut self.pool);
        self.queued_bytes -= before - connection.outbox.len();
    }

    /// The poll says that the socket takes more.
    pub(super) fn writable(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
            && connection.outbox.is_blocked()
        {
            connection.outbox.unblock();
            mark_dirty(connection, &mut self.dirty);
        }
    }

    /// Whether something was queued after the last flush.
    pub(super) fn has_unflushed(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Has our FIN sent as soon as the outbox is empty, now if it is.
    pub(super) fn finish(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
        {
            mark_dirty(connection, &mut self.dirty);
        }
    }

    /// Sends what waits, each connection's with one system call.
    pub(super) fn flush(&mut self) {
        while let Some(index) = self.dirty.pop() {
            self.flush_one(index);
        }
        self.unflushed_bytes = 0;
        self.metrics.outbox_bytes.set(self.queued_bytes as u64);
    }

    /// Sends what waits for one connection, out of turn. True if nothing is left.
    pub(super) fn flush_now(&mut self, id: ConnectionId) -> bool {
        if self.get(id).is_some() {
            self.flush_one(id.index());
        }
        self.get(id).is_none_or(|connection| connection.outbox.is_empty())
    }

    fn flush_one(&mut self, index: u32) {
        // A place in `dirty` may have been left by a connection that has ended since.
        let Some(connection) = self.slab.get_mut(index as usize) else {
            return;
        };
        connection.dirty = false;
        if connection.outbox.is_blocked() {
            return;
        }
        match connection.outbox.flush(&mut connection.stream, &mut self.pool) {
            Ok((written, flush)) => {
                self.queued_bytes -= written;
                self.metrics.bytes_sent.add(written as u64);
                if connection.held_back && connection.outbox.len() <= self.outbox_bytes_max / 2 {
                    connection.held_back = false;
                    self.resumed.push(connection.id);
                }
                if flush == Flush::Empty {
                    match &mut connection.phase {
                        Phase::Finishing {
                            fin_sent: fin_sent @ false,
                            ..
                        } => {
                            *fin_sent = true;
                            // The peer may have gone already; then its end is what the next read tells.
                            let _ = connection.stream.shutdown(std::net::Shutdown::Write);
                        }
                        Phase::Emptying { .. } => {
                            self.ending.push((connection.id, CloseReason::PeerVanished));
                        }
                        Phase::Request { .. }
                        | Phase::Open(_)
                        | Phase::Closing { .. }
                        | Phase::Finishing { .. } => {}
                    }
                }
            }
            Err(_) => {
                let unsent = connection.outbox.len();
                self.queued_bytes -= unsent;
                connection.outbox.release(&mut self.pool);
                self.ending.push((connection.id, CloseReason::PeerVanished));
            }
        }
    }
}

fn mark_dirty(connection: &mut Connection, dirty: &mut Vec<u32>) {
    if !connection.dirty && !connection.outbox.is_blocked() {
        connection.dirty = true;
        dirty.push(connection.id.index());
    }
}

/// A fan-out writes what it has queued before it queues more than this, so that a publication to all connections of a
/// core takes no more memory than this beyond what slow ones keep.
const UNFLUSHED_BYTES_MAX: usize = 4 * 1024 * 1024;
