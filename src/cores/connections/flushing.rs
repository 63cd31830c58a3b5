//! Writes outboxes to their sockets, and handles the results.

use std::io;

use crate::clock::Uptime;
use crate::decision::CloseReason;

use crate::cores::lifecycle::connection::{ConnectionId, Lane, Phase};
use crate::cores::lifecycle::reading::Why;
use crate::cores::outgoing::outbox::Flush;
use crate::transport::stream::{BeforeFin, Stream};

use super::{Connections, mark_for_closing};

impl Connections {
    /// The poll reports that the socket takes more bytes.
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

    /// Sends our FIN as soon as the outbox is empty: if it is empty now, with the flush of this turn.
    pub(in crate::cores) fn finish(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.mark(id.index(), Lane::Prompt);
        }
    }

    /// Writes the outboxes to their sockets, each with one system call: first all of the prompt lane, then
    /// those of the bulk lane until `is_over` says that the time is used up. `is_over` is called once per
    /// [`FLUSHES_BETWEEN_LOOKS`] connections.
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

    /// Flushes the outboxes of the bulk lane until `is_over`. Not inlined: a turn keeps other values in the
    /// registers that this loop needs.
    #[inline(never)]
    pub(super) fn flush_bulk_lane(&mut self, mut is_over: impl FnMut() -> bool) {
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

    /// Whether there are connections that must end.
    #[inline]
    pub(in crate::cores) fn has_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// The next connection that must end, and the reason.
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

    /// The end of the bulk lane, counted since the core began. When [`Connections::has_flushed`] returns true
    /// for it, every byte that is queued now has been sent, or has found its socket full.
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
    pub(super) fn flush_bulk(&mut self, index: u32) {
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

    pub(super) fn flush_one(&mut self, index: u32) {
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

    /// Handles the result of a flush: counts bytes, resumes reading, sends a FIN or marks the connection for
    /// closing. `was_slow` says that the socket had been found full before.
    pub(super) fn note_flushed(&mut self, index: u32, was_slow: bool, flushed: io::Result<(usize, Flush)>) {
        let Some(connection) = self.slab.get_mut(index as usize) else {
            return;
        };
        let has_tls = connection.stream.tls.is_some();
        // Whether the bytes that the connection holds may have changed: `held` counts connections whose
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
    pub(super) fn note_blocked(&mut self, index: u32, taken: usize) {
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

    /// Whether a client has taken none of the bytes that wait for it for `write_timeout`: the socket took no
    /// bytes, and the peer acknowledged none of the bytes that the socket had taken before. The poll reports
    /// room only when much of the socket's buffer is free, so a peer that reads slowly may have acknowledged
    /// some bytes without an event. Time in which this core stood still does not count, since the peer may
    /// have stood still as well.
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
}

/// To look at the clock costs as much as 1 % of one flush.
pub(super) const FLUSHES_BETWEEN_LOOKS: usize = 8;
