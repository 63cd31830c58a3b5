//! Puts replies and last words into the outboxes of their connections, which never refuse them.

use crate::decision::Limit;
use crate::protocols::{Content, Farewell};

use crate::cores::lifecycle::connection::{Connection, ConnectionId, Leftover, Phase};
use crate::cores::lifecycle::reading::Why;
use crate::cores::outgoing::forms::{self, Forms};
use crate::cores::outgoing::outbox::FramePool;

use super::Connections;

impl Connections {
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

    /// Lists a connection for a flush, so that bytes that wait in the stream itself are sent: records of TLS
    /// that carry no frames.
    pub(in crate::cores) fn send_records(&mut self, id: ConnectionId) {
        self.queue(id, |connection, pool, _| connection.outbox.push(pool, |_| {}));
    }

    pub(super) fn queue(
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

    /// Makes a connection that has ended take no publications, although it is still a subscriber.
    pub(in crate::cores) fn stop_publications(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
        {
            connection.outbox.stop_publications(&mut self.pool);
        }
    }

    /// Undoes [`Connections::stop_publications`].
    pub(in crate::cores) fn resume_publications(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.outbox.resume_publications();
        }
    }

    /// Drops all bytes that wait for a connection whose socket is of no more use.
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
}
