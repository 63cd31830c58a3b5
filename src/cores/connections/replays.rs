//! Subscriptions that are not live yet (`outgoing/recoveries.rs`): publications are collected for them, and
//! histories are sent in steps that never fill an outbox. A subscriber that does not take a publication comes
//! here as well, if the channel has a history: to leave the publication out would make a gap that the client
//! never learns of.
//!
//! Limits: `REPLAY_OUTBOX_BYTES_MAX`.

use std::sync::Arc;

use crate::broker::{ChannelHasher, Numbering, Publication};
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::reading::Why;
use crate::cores::outgoing::forms;
use crate::cores::outgoing::recoveries::{Live, OwnerOf, Recovery, SubscriptionKey};
use crate::policy::channels::Channels;
use crate::protocols::Framing;

use super::Connections;
use super::delivery_inspector::DeliveryInspector;

/// Lets a connection whose outbox has no room read publications later, from the history of their channel.
#[derive(Debug)]
pub(in crate::cores) struct ReadLater {
    pub(in crate::cores) channels: Arc<Channels>,
    pub(in crate::cores) numbering: Numbering,
    pub(in crate::cores) hasher: ChannelHasher,
    pub(in crate::cores) cores: usize,
}

/// How far a history was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Replay {
    /// All of it was sent.
    Over,
    /// The outbox has no room for more now.
    OutboxFull,
    /// This turn sends no more of it.
    Paused,
}

impl Connections {
    /// Delivers a publication as [`Connections::deliver`] does, but collects it for subscribers that are not
    /// live yet.
    #[cold]
    pub(in crate::cores) fn deliver_or_collect(
        &mut self,
        subscribers: &[u32],
        channel: u32,
        publication: Publication<'_>,
    ) -> u64 {
        if !self.recoveries.concern(channel) {
            return self.deliver(subscribers, channel, publication);
        }
        let mut taken = 0;
        let mut rest = subscribers;
        while let Some(at) = rest
            .iter()
            .position(|&connection| self.recoveries.has(SubscriptionKey { connection, channel }))
        {
            if at > 0 {
                taken += self.deliver(&rest[..at], channel, publication);
            }
            let connection = rest[at];
            let place = SubscriptionKey { connection, channel };
            let (sequence, frame) = (publication.sequence(), publication.frame());
            self.recoveries
                .collect(place, sequence, frame, self.outbox_bytes_max);
            self.note_held(connection);
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            taken += self.deliver(rest, channel, publication);
        }
        taken
    }

    /// A subscriber does not take a publication, and its connection is to stay open. If the channel has a
    /// history, the subscription is not live from now on: the client gets this publication and all later ones
    /// from the history, once its socket takes more. False if the channel has no history.
    #[cold]
    pub(super) fn read_later(&mut self, index: u32, channel: u32, publication: &Publication<'_>) -> bool {
        let name = publication.channel();
        let Some(histories) = self.histories.as_deref().filter(|histories| {
            let policy = histories.channels.find(name);
            publication.is_remembered() && policy.is_some_and(|policy| policy.history.is_some())
        }) else {
            return false;
        };
        let of = OwnerOf {
            owner: histories.hasher.hash(name).owner(histories.cores),
            owners: histories.cores,
        };
        let place = SubscriptionKey {
            connection: index,
            channel,
        };
        let up_to = histories.numbering.offset(publication.sequence()) - 1;
        self.recoveries.begin_behind(place, of, up_to);
        self.metrics.catch_ups.add(1);
        true
    }

    /// A connection has ended: none of its subscriptions will be live. What is queued for its turn ends with the
    /// subscriptions.
    pub(in crate::cores) fn end_recoveries(&mut self, id: ConnectionId) {
        if !self.withheld.is_empty() {
            self.withheld.end_connection(id.index());
        }
        if !self.recoveries.is_empty() {
            self.recoveries.end_connection(id.index());
            self.tell_recoveries();
            self.note_held(id.index());
        }
    }

    /// Of a connection that has ended, the subscriptions to the channels with the lowest numbers end, at most `max`.
    pub(in crate::cores) fn end_some_recoveries(&mut self, index: u32, max: usize) {
        if !self.recoveries.is_empty() {
            self.recoveries.end_some(index, max);
            self.tell_recoveries();
        }
    }

    /// Whether a connection has ended, though its place is still in use.
    pub(in crate::cores) fn is_over(&self, index: u32) -> bool {
        self.at(index).is_none_or(|connection| connection.phase.is_over())
    }

    /// Tells the metrics how many subscriptions are not live, and how much memory is kept for them.
    pub(in crate::cores) fn tell_recoveries(&self) {
        self.metrics
            .recovery_bytes
            .set(self.recoveries.reading_bytes() as u64);
        self.metrics.recoveries_waiting.set(self.recoveries.len() as u64);
    }

    /// How many bytes of a history the outbox of a connection takes now. An empty outbox takes any single
    /// publication.
    pub(in crate::cores) fn replay_room(&self, index: u32) -> usize {
        let Some(connection) = self.at(index) else {
            return 0;
        };
        let outbox = &connection.outbox;
        if outbox.conflated().is_some() || connection.reading.is_paused_by(Why::Ending) {
            return 0;
        }
        let room = REPLAY_OUTBOX_BYTES_MAX.min(self.outbox_bytes_max / 2);
        room.saturating_sub(outbox.len())
            .max(usize::from(outbox.is_empty()))
    }

    /// Whether the socket of a connection is known to take no more: the poll reports when it does.
    pub(in crate::cores) fn is_blocked(&self, index: u32) -> bool {
        self.at(index)
            .is_some_and(|connection| connection.outbox.is_blocked())
    }

    /// Sends some of the history of the channel `name` that was read for a subscription, and subtracts its
    /// size from `bytes_left`.
    pub(in crate::cores) fn replay<L: DeliveryInspector>(
        &mut self,
        place: SubscriptionKey,
        name: &[u8],
        bytes_left: &mut usize,
        inspector: &mut L,
    ) -> Replay {
        let Some(id) = self.id_at(place.connection) else {
            return Replay::Over;
        };
        // The history is read while the outbox is written: neither knows the other.
        let mut recoveries = std::mem::take(&mut self.recoveries);
        let cost = match self.at(place.connection).map(|connection| connection.framing) {
            Some(Framing::WebSocket(compression)) if compression.is_on() => COMPRESSION_COST,
            Some(Framing::MinBin) => MIN_BIN_COST,
            Some(Framing::WebSocket(_) | Framing::Mqtt | Framing::MqttOverWebSocket) | None => 1,
        };
        let mut outcome = Replay::Over;
        let mut follows = false;
        if L::INSPECTS {
            let live = recoveries.get(place).and_then(Recovery::live);
            follows = live.is_some_and(|live| live.collected.count > 0);
        }
        while let Some(reading) = recoveries.reading(place)
            && !reading.is_empty()
        {
            let room = self.replay_room(place.connection);
            if room == 0 || *bytes_left == 0 {
                outcome = match room {
                    0 => Replay::OutboxFull,
                    _ => Replay::Paused,
                };
                break;
            }
            if L::INSPECTS {
                let next = reading.publications().next();
                let sent = next.map_or(0, |next| {
                    self.replay_looked_at(place, name, &next, follows, inspector)
                });
                *bytes_left = bytes_left.saturating_sub((sent * cost).max(LOOK_COST_BYTES));
                reading.take_frames(1, |_, _| {});
                continue;
            }
            reading.take_frames(room.min(*bytes_left / cost), |frames, count| {
                *bytes_left = bytes_left.saturating_sub(frames.len() * cost);
                self.metrics.publications_replayed.add(count as u64);
                self.send_frames(id, frames, count as u64);
            });
        }
        self.recoveries = recoveries;
        self.note_held(place.connection);
        outcome
    }

    /// Sends the publications that were collected for a subscription which is live from now on.
    pub(in crate::cores) fn send_collected(&mut self, id: ConnectionId, live: &Live) {
        let collected = &live.collected;
        if collected.count > 0 {
            self.send_frames(id, &collected.frames, collected.count);
        }
        self.note_held(id.index());
    }

    /// Queues whole frames of publications, one behind the other, in the form for the connection.
    pub(super) fn send_frames(&mut self, id: ConnectionId, frames: &[u8], count: u64) {
        self.metrics.messages_sent.add(count);
        self.metrics.deliveries.add(count);
        self.queue(id, |connection, pool, forms| {
            connection.tally.queue(count);
            let framing = connection.framing;
            connection
                .outbox
                .push(pool, |bytes| forms::write_frames(forms, framing, bytes, frames));
        });
    }
}

/// To compress a byte takes as long as to copy this many.
const COMPRESSION_COST: usize = 16;
/// A byte that is written in the codec `min-bin` is read three times and written once: by counting, not measured.
const MIN_BIN_COST: usize = 4;
/// A look of the application at a publication counts like so many bytes at least: a turn looks at 1024.
const LOOK_COST_BYTES: usize = 256;
/// A history is sent only while the outbox has fewer bytes than this. The rest of `outbox_bytes_max` is for
/// live publications, so that a long history alone never makes the client a slow consumer.
const REPLAY_OUTBOX_BYTES_MAX: usize = 64 * 1024;
