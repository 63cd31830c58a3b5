//! Connections that collect their messages for a while after the handshake (`batches.rs`).
//!
//! Limits: if the collected bytes reach half of `UNFLUSHED_BYTES_MAX`, they are sent at once. So they never
//! take the room that deliveries to other connections need.

use crate::clock::Uptime;
use crate::cores::connections::publications::UNFLUSHED_BYTES_MAX;
use crate::cores::lifecycle::connection::{ConnectionId, Lane};
use crate::session::ClientProtocol;

use super::Connections;
use super::batches::Batching;

impl Connections {
    /// The handshake of a connection is done. Its answer leaves now. Messages behind the answer are
    /// collected, if `batch_on_handshake` is on. Packets of MQTT are never collected, since MQTT has no
    /// arrays.
    #[inline]
    pub(in crate::cores) fn begin_batching(&mut self, id: ConnectionId) {
        let protocol = || self.get(id).map(|connection| connection.framing.protocol());
        if self.batches.is_some() && protocol() == Some(ClientProtocol::SocketCluster) {
            self.flush_one(id.index());
            self.collect(id);
        }
    }

    fn collect(&mut self, id: ConnectionId) {
        let now = self.now;
        if let Some(batches) = &mut self.batches {
            batches.begin(id, now);
            self.slab[id.index() as usize].lane = Lane::Batch;
        }
    }

    /// A connection is about to end: the messages that it has collected leave with its last bytes.
    #[inline]
    pub(in crate::cores) fn end_batching(&mut self, id: ConnectionId) {
        if self.batches.is_some()
            && let Some(connection) = self.get_mut(id)
            && connection.lane == Lane::Batch
        {
            connection.lane = Lane::Idle;
            self.join_packets(id.index());
            self.mark(id.index(), Lane::Prompt);
        }
    }

    /// When the next connection is due to send its messages; `NEVER` if there is none.
    pub(in crate::cores) fn next_batch(&self) -> Uptime {
        self.batches
            .as_ref()
            .map_or(Uptime::NEVER, |batches| batches.next_due())
    }

    /// Sends the messages of connections whose interval is over; sends those of all connections if too many
    /// bytes wait.
    pub(in crate::cores) fn send_batches(&mut self) {
        let now = self.now;
        let is_much = self.unflushed_bytes > UNFLUSHED_BYTES_MAX / 2;
        let count = self.batches.as_ref().map_or(0, |batches| batches.len());
        for _ in 0..count {
            let due = |connections: &Connections| is_much || connections.next_batch() <= now;
            if !due(self) {
                break;
            }
            let next = self.batches.as_mut().and_then(|batches| batches.take_next());
            if let Some(batching) = next {
                self.send_batch(batching);
            }
        }
        if let Some(batches) = &mut self.batches {
            batches.shrink();
        }
    }

    fn send_batch(&mut self, batching: Batching) {
        let id = batching.connection;
        let is_batching = |connection: &&mut super::Connection| connection.lane == Lane::Batch;
        if self.get_mut(id).filter(is_batching).is_none() {
            // The connection has ended, or its socket is full: then everything is sent as soon as the socket
            // takes it.
            return;
        }
        self.join_packets(id.index());
        self.flush_one(id.index());
        let now = self.now;
        let is_blocked = self
            .get(id)
            .is_none_or(|connection| connection.outbox.is_blocked());
        if !is_blocked
            && let Some(batches) = &mut self.batches
            && batches.go_on(batching, now)
        {
            self.slab[id.index() as usize].lane = Lane::Batch;
        }
    }

    /// Joins the packets that wait for a connection into one array.
    fn join_packets(&mut self, index: u32) {
        let connection = &mut self.slab[index as usize];
        let Some(batches) = &mut self.batches else { return };
        let (framing, before) = (connection.framing, connection.outbox.len());
        connection
            .outbox
            .rewrite(&mut self.pool, |frames| batches.join(framing, frames));
        let after = connection.outbox.len();
        self.queued_bytes = self.queued_bytes + after - before;
        if !connection.outbox.is_blocked() {
            self.unflushed_bytes = self.unflushed_bytes + after - before;
        }
        self.note_held(index);
    }
}
