//! Puts publications into the outboxes of their subscribers. If an outbox is full, the publication is skipped
//! or conflated, or its connection is closed; if the channel has a history, the subscriber reads the
//! publication from it later.
//!
//! Limits: `outbox_bytes_max` for each connection; `UNFLUSHED_BYTES_MAX` and `POOLED_BUFFERS_MAX` for all
//! bytes that a core queues before it flushes some.

use crate::broker::Publication;
use crate::config::SlowConsumer;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Lane};
use crate::cores::lifecycle::reading::Why;
use crate::cores::outgoing::conflated::{Conflation, Key};
use crate::cores::outgoing::forms::Form;
use crate::cores::outgoing::outbox::POOLED_BUFFERS_MAX;
use crate::cores::outgoing::packets::topic_in;
use crate::cores::outgoing::shared_frames::FrameSpan;
use crate::decision::{CloseReason, Limit};
use crate::protocols::Framing;
use crate::webhooks::event::Slow;

use super::{Connections, mark_for_closing};

impl Connections {
    /// How many more subscribers a publication may be queued for before something is flushed.
    pub(in crate::cores) fn room(&self, frame_bytes: usize) -> usize {
        let (bytes_max, buffers_max) = room_max();
        let bytes = bytes_max.saturating_sub(self.unflushed_bytes);
        let buffers = buffers_max.saturating_sub(self.bulk.len());
        buffers
            .min(bytes.div_ceil(frame_bytes.max(1)))
            .min(self.room_for_subscribers(frame_bytes))
    }

    /// For how many subscribers there is room before connections have to be closed because all of them
    /// together hold too much. At least one: some connections are closed after its delivery.
    fn room_for_subscribers(&self, frame_bytes: usize) -> usize {
        if self.held.is_empty() {
            return usize::MAX;
        }
        let room_for_subscribers = self.held.bytes_max.saturating_sub(self.held_bytes());
        (room_for_subscribers / frame_bytes.max(1)).max(1)
    }

    /// The publication has been delivered to all of its subscribers: the next frame belongs to another
    /// publication.
    #[inline]
    pub(in crate::cores) fn end_publication(&mut self) {
        for span in &mut self.under_way {
            if let Some(span) = span.take() {
                self.pool.shared.finish(span);
            }
        }
        if let Some(forms) = &mut self.forms {
            forms.end_publication();
        }
    }

    /// Bytes of publications that were encoded in other forms since the last call.
    pub(in crate::cores) fn take_encoded_bytes(&mut self) -> usize {
        self.forms.as_mut().map_or(0, |forms| forms.take_encoded_bytes())
    }

    /// Queues a publication on `channel` for each of `subscribers`, in the form of its connection; returns
    /// how many outboxes took it. If an outbox is full, the publication is conflated or skipped, or the
    /// connection is listed to be closed.
    pub(in crate::cores) fn deliver(
        &mut self,
        subscribers: &[u32],
        channel: u32,
        publication: Publication<'_>,
    ) -> u64 {
        let mut forms = self.forms.take();
        let has_forms = forms.is_some();
        let frames = match &mut forms {
            None => [publication.frame(); Form::COUNT],
            Some(forms) => {
                let wanted = subscribers
                    .iter()
                    .map(|&index| Form::of(self.slab[index as usize].framing));
                forms.frames(publication, wanted)
            }
        };
        let spans = self.share(channel, &frames);
        let taken = if has_forms {
            let form_of = |framing| Form::of(framing).index();
            self.deliver_each(subscribers, channel, &publication, &frames, &spans, form_of)
        } else {
            self.deliver_each(subscribers, channel, &publication, &frames, &spans, |_| 0)
        };
        self.forms = forms;
        self.metrics.messages_sent.add(taken);
        self.metrics.deliveries.add(taken);
        taken
    }

    /// Queues a publication for each of `subscribers`. `form_of` chooses the frame for a connection.
    #[inline]
    fn deliver_each(
        &mut self,
        subscribers: &[u32],
        channel: u32,
        publication: &Publication<'_>,
        frames: &[&[u8]; Form::COUNT],
        spans: &[Option<FrameSpan>; Form::COUNT],
        form_of: impl Fn(Framing) -> usize,
    ) -> u64 {
        let leaves_out = self.leaves_out();
        let mut taken = 0;
        for &index in subscribers {
            let connection = &mut self.slab[index as usize];
            let form = form_of(connection.framing);
            if let Some(span) = spans[form]
                && connection
                    .outbox
                    .try_share(&mut self.pool.shared, span, self.outbox_bytes_max)
            {
                connection.tally.queue(1);
                self.queued_bytes += span.len();
                self.unflushed_bytes += span.len();
                list_in_bulk(connection, &mut self.bulk, index);
                taken += 1;
            } else {
                let (frame, span) = (frames[form], spans[form]);
                taken += self.deliver_apart(index, channel, frame, span, leaves_out, Some(publication));
            }
        }
        taken
    }

    /// Whether publications are left out for connections that do not read, because all connections together
    /// hold too much. With the policy `close`, the core has already closed the connections that hold most.
    #[inline]
    pub(super) fn leaves_out(&self) -> bool {
        self.slow_consumer != SlowConsumer::Close && self.hold_too_much()
    }

    /// Queues a publication for a subscriber whose outbox cannot just share it: the outbox has bytes of its
    /// own or of another channel, or is full, or the shared buffers had no room (`span` is `None`). Returns
    /// how many outboxes took it: one or none. `publication` is `None` if the subscriber cannot read it from
    /// a history later.
    #[inline(never)]
    pub(super) fn deliver_apart(
        &mut self,
        index: u32,
        channel: u32,
        frame: &[u8],
        span: Option<FrameSpan>,
        leaves_out: bool,
        publication: Option<&Publication<'_>>,
    ) -> u64 {
        let mut connection = &mut self.slab[index as usize];
        let is_left_out = leaves_out && connection.outbox.is_blocked();
        if is_left_out || !connection.outbox.takes(frame.len(), self.outbox_bytes_max) {
            if !self.make_room(index, channel, frame, publication) {
                return 0;
            }
            connection = &mut self.slab[index as usize];
        }
        match span {
            Some(span) => connection.outbox.push_shared(&mut self.pool, span),
            None => connection
                .outbox
                .push(&mut self.pool, |bytes| bytes.extend_from_slice(frame)),
        }
        connection.tally.queue(1);
        self.note_queued(index, frame.len());
        1
    }

    /// Counts bytes of publications that were queued for a connection, and lists it for a flush.
    #[inline]
    pub(super) fn note_queued(&mut self, index: u32, bytes: usize) {
        let connection = &mut self.slab[index as usize];
        self.queued_bytes += bytes;
        if !connection.outbox.is_blocked() {
            self.unflushed_bytes += bytes;
            list_in_bulk(connection, &mut self.bulk, index);
        }
        if connection.outbox.is_slow() {
            let collected = self.recoveries.bytes_of(index);
            self.held.note(index, connection.holding(collected));
        }
    }

    /// Writes the frames of the publication under way to the buffers that outboxes share, as far as there is
    /// room. Forms whose frame is the published one share one span.
    fn share(&mut self, channel: u32, frames: &[&[u8]; Form::COUNT]) -> [Option<FrameSpan>; Form::COUNT] {
        let mut spans = [None; Form::COUNT];
        for (form, frame) in frames.iter().enumerate() {
            let form_shared = if std::ptr::eq(*frame, frames[0]) { 0 } else { form };
            let under_way = &mut self.under_way[form_shared];
            if under_way.is_none() {
                *under_way = self.pool.shared.write(channel, frame);
            }
            spans[form] = *under_way;
        }
        spans
    }

    /// Makes room in an outbox that has none for a publication, by writing to its socket. If the socket takes too
    /// little, carries out the policy for slow subscribers and returns false.
    fn make_room(
        &mut self,
        index: u32,
        channel: u32,
        frame: &[u8],
        publication: Option<&Publication<'_>>,
    ) -> bool {
        let connection = &self.slab[index as usize];
        if connection.reading.is_paused_by(Why::Ending) || connection.outbox.takes_no_publications() {
            // The connection has missed an earlier publication and is about to be closed for that, or it has
            // ended.
            return false;
        }
        let blocked = self.slab[index as usize].outbox.is_blocked();
        if !blocked {
            // A burst within one turn: nothing has been written to the socket yet.
            self.flush_one(index);
            let outbox = &self.slab[index as usize].outbox;
            if outbox.takes(frame.len(), self.outbox_bytes_max) {
                return true;
            }
        }
        let outbox = &self.slab[index as usize].outbox;
        // While publications wait behind the outbox, it counts as full.
        let is_full = outbox.conflated().is_some() || !outbox.takes(frame.len(), self.outbox_bytes_max);
        self.metrics.limit_hit(match is_full {
            true => Limit::OutboxBytes,
            false => Limit::OutboxBytesTotal,
        });
        let stays_open = self.slow_consumer != SlowConsumer::Close;
        if let Some(publication) = publication.filter(|_| stays_open)
            && self.read_later(index, channel, publication)
        {
            return false;
        }
        match self.slow_consumer {
            SlowConsumer::Skip => {
                self.metrics.publications_skipped.add(1);
                self.note_slow(index, Slow::Skipped);
            }
            SlowConsumer::Conflate => {
                self.conflate(index, channel, frame);
                self.note_slow(index, Slow::Conflated);
            }
            SlowConsumer::Close => {
                let connection = &mut self.slab[index as usize];
                mark_for_closing(&mut self.ending, connection, CloseReason::SlowConsumer);
            }
        }
        false
    }

    /// Notes for webhooks that a client does not take publications.
    fn note_slow(&mut self, index: u32, slow: Slow) {
        if let Some(slow_consumers) = &mut self.slow_consumers {
            slow_consumers.note(self.slab[index as usize].id, slow, self.now);
        }
    }

    /// Keeps a publication as the newest of its channel until the outbox has been sent.
    fn conflate(&mut self, index: u32, channel: u32, frame: &[u8]) {
        let bytes_max = self.outbox_bytes_max;
        let connection = &mut self.slab[index as usize];
        let key = match connection.framing {
            Framing::WebSocket(_) | Framing::MinBin => Key::Channel(channel),
            framing @ (Framing::Mqtt | Framing::MqttOverWebSocket) => {
                Key::Topic(topic_in(frame, framing).into())
            }
        };
        self.conflated_bytes -= connection.outbox.conflated_bytes();
        match connection.outbox.conflate(key, frame, bytes_max) {
            Conflation::Added => {}
            Conflation::Replaced => self.metrics.publications_conflated.add(1),
            Conflation::Full => mark_for_closing(&mut self.ending, connection, CloseReason::SlowConsumer),
        }
        self.conflated_bytes += connection.outbox.conflated_bytes();
        self.note_held(index);
    }

    /// Whether conflated publications wait behind the outbox of a connection.
    pub(in crate::cores) fn is_conflating(&self, id: ConnectionId) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.outbox.conflated().is_some())
    }

    /// Drops the publication of a channel that waits behind the outbox: the subscription has ended.
    pub(in crate::cores) fn forget_conflated(&mut self, id: ConnectionId, channel: u32) {
        if let Some(connection) = self.slab.get_mut(id.index() as usize)
            && connection.id == id
        {
            self.conflated_bytes -= connection.outbox.conflated_bytes();
            connection.outbox.forget_conflated(channel);
            self.conflated_bytes += connection.outbox.conflated_bytes();
            self.note_held(id.index());
        }
    }

    /// Ends the conflation of a connection that closes. Queues the publications that wait behind its outbox, since
    /// nothing may follow the close frame; or drops them, if `send` is false.
    pub(in crate::cores) fn end_conflation(&mut self, id: ConnectionId, send: bool) {
        let Some(connection) = self.slab.get_mut(id.index() as usize) else {
            return;
        };
        if connection.id != id || connection.outbox.conflated().is_none() {
            return;
        }
        self.conflated_bytes -= connection.outbox.conflated_bytes();
        if !send {
            connection.outbox.forget_all_conflated();
            return self.note_held(id.index());
        }
        let before = connection.outbox.len();
        let count = connection.outbox.settle_conflated() as u64;
        let queued = connection.outbox.len() - before;
        self.queued_bytes += queued;
        if !connection.outbox.is_blocked() {
            self.unflushed_bytes += queued;
        }
        connection.tally.queue(count);
        self.metrics.messages_sent.add(count);
        self.metrics.deliveries.add(count);
        self.note_held(id.index());
    }

    /// Counts the conflated publications that have been queued after the outbox was sent, and lists the connection for
    /// a flush.
    pub(super) fn queue_refilled(&mut self, index: u32, count: usize) {
        let connection = &mut self.slab[index as usize];
        let queued = connection.outbox.len();
        self.conflated_bytes -= queued;
        self.queued_bytes += queued;
        self.unflushed_bytes += queued;
        connection.tally.queue(count as u64);
        self.metrics.messages_sent.add(count as u64);
        self.metrics.deliveries.add(count as u64);
        self.mark(index, Lane::Bulk);
    }
}

/// [`UNFLUSHED_BYTES_MAX`] and [`POOLED_BUFFERS_MAX`], or the values of a simulation.
fn room_max() -> (usize, usize) {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return (scale.unflushed_bytes_max, scale.buffers_max);
    }
    (UNFLUSHED_BYTES_MAX, POOLED_BUFFERS_MAX)
}

/// Most bytes that a core queues before it flushes some of them. It bounds the memory for a publication to
/// all of the core's connections, without the bytes that wait for slow connections.
pub(super) const UNFLUSHED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Lists a connection whose outbox has bytes and is not blocked, to be flushed when there is time, unless it is in a list.
#[inline]
pub(super) fn list_in_bulk(connection: &mut Connection, bulk: &mut Vec<u32>, index: u32) {
    if connection.lane == Lane::Idle {
        connection.lane = Lane::Bulk;
        bulk.push(index);
    }
}
