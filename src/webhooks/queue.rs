//! The waiting events of one webhook, the oldest first.
//!
//! ```text
//!   without data_dir   [ in memory …… ]                       bounded by queue_events and queue_bytes
//!   with data_dir      [ in memory …… ][ on disk alone …… ]   bounded by queue_events and disk_bytes;
//!                        on disk too                          the part in memory by queue_bytes
//! ```
//! A new event that finds the queue full is dropped, so there is no gap among the waiting events. The next event that
//! enters the queue says how many were dropped before it (`dropped_before`): so the receiver learns of the gap and of
//! its place.
//!
//! Invariants
//! 1. The numbers of the events rise. Those in memory come before those that are on disk alone.
//! 2. The intake holds the bytes of the events in memory.
//! 3. `dropped` counts dropped events that no later event has reported.

use std::collections::VecDeque;
use std::sync::Arc;

use super::disk::{Disk, Found, Waiting};
use super::intake::Intake;
use crate::config::webhooks::WebhookSpec;
use crate::metrics::webhooks::WebhookDrop;

/// The events of one webhook that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The events in memory.
    memory: VecDeque<Waiting>,
    memory_bytes: usize,
    /// How many events are on disk alone.
    spilled: u64,
    spilled_bytes: u64,
    /// The number of the first event that is on disk alone, if there is one; else of the next event.
    spilled_from: u64,
    /// The number of the next event.
    next: u64,
    /// Events that were dropped since the last event entered the queue.
    dropped: u64,
}

/// Where a queue keeps its events.
pub(super) struct QueueStorage<'a> {
    pub(super) spec: &'a WebhookSpec,
    pub(super) intake: &'a Intake,
    /// The file, and the number of the webhook in it.
    pub(super) disk: Option<(&'a mut Disk, u32)>,
}

impl Queue {
    /// Takes an event in.
    ///
    /// # Errors
    /// It is dropped, for this reason.
    pub(super) fn push(
        &mut self,
        unix_ms: u64,
        json: &Arc<[u8]>,
        storage: &mut QueueStorage<'_>,
    ) -> Result<(), WebhookDrop> {
        let waiting = Waiting {
            number: self.next,
            unix_ms,
            json: match self.dropped {
                0 => Arc::clone(json),
                dropped => with_gap(json, dropped),
            },
        };
        self.admit(waiting, storage).inspect_err(|_| self.dropped += 1)?;
        self.dropped = 0;
        self.next += 1;
        Ok(())
    }

    fn admit(&mut self, waiting: Waiting, storage: &mut QueueStorage<'_>) -> Result<(), WebhookDrop> {
        let bytes = waiting.bytes();
        if self.len() >= u64::from(storage.spec.queue_events) {
            return Err(WebhookDrop::QueueFull);
        }
        let fits = self.memory_bytes + bytes <= storage.spec.queue_bytes as usize;
        let may_hold = storage.intake.may_hold(self.memory_bytes, bytes);
        match &mut storage.disk {
            None if !fits => return Err(WebhookDrop::QueueFull),
            None if !may_hold => return Err(WebhookDrop::Memory),
            None => {}
            Some(_) if self.bytes() + bytes as u64 > storage.spec.disk_bytes => {
                return Err(WebhookDrop::QueueFull);
            }
            Some((disk, _)) if !disk.has_room(bytes) && (self.spilled > 0 || !fits || !may_hold) => {
                return Err(WebhookDrop::Store);
            }
            // The disk refuses commits: the event waits in memory alone.
            Some((disk, _)) if !disk.has_room(bytes) => {}
            Some((disk, number)) => {
                disk.add(*number, waiting.clone());
                if self.spilled > 0 || !fits || !may_hold {
                    self.spilled += 1;
                    self.spilled_bytes += bytes as u64;
                    return Ok(());
                }
            }
        }
        storage.intake.hold(bytes);
        self.memory_bytes += bytes;
        self.spilled_from = waiting.number + 1;
        self.memory.push_back(waiting);
        Ok(())
    }

    /// Begins with the events of a file. The events that the queue already has come after them.
    pub(super) fn begin_with(&mut self, found: &Found, storage: &mut QueueStorage<'_>) -> u64 {
        let own = std::mem::take(&mut self.memory);
        storage.intake.release(std::mem::take(&mut self.memory_bytes));
        (self.spilled, self.spilled_bytes) = (found.count, found.bytes);
        (self.spilled_from, self.next) = (found.first, found.next.max(1));
        // A gap is behind the events that are pushed again.
        let dropped = std::mem::take(&mut self.dropped);
        let mut refused = 0;
        for waiting in own {
            refused += u64::from(self.push(waiting.unix_ms, &waiting.json, storage).is_err());
        }
        self.dropped += dropped;
        refused
    }

    /// Brings events from disk into memory, if there is room for them. If they cannot be committed now, they come
    /// later.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn refill(&mut self, storage: &mut QueueStorage<'_>) -> Result<(), String> {
        let room = (storage.spec.queue_bytes as usize).saturating_sub(self.memory_bytes);
        let is_low = self.memory.is_empty() || self.memory_bytes < storage.spec.queue_bytes as usize / 2;
        let Some((disk, number)) = storage.disk.as_mut().filter(|_| self.spilled > 0 && is_low) else {
            return Ok(());
        };
        if disk.commit().is_err() {
            // The regular commits log and count the failure.
            return Ok(());
        }
        let room = room.min(REFILL_BYTES_MAX);
        let read = disk.read(*number, self.spilled_from, room)?;
        if read.is_empty() {
            return Err("events are missing that were written".to_owned());
        }
        for waiting in read {
            let bytes = waiting.bytes();
            if !self.memory.is_empty() && !storage.intake.may_hold(self.memory_bytes, bytes) {
                break;
            }
            storage.intake.hold(bytes);
            self.memory_bytes += bytes;
            self.spilled = self.spilled.saturating_sub(1);
            self.spilled_bytes = self.spilled_bytes.saturating_sub(bytes as u64);
            self.spilled_from = waiting.number + 1;
            self.memory.push_back(waiting);
        }
        Ok(())
    }

    /// Gives up the events that are on disk alone, since they cannot be read. Returns how many.
    pub(super) fn give_up_spilled(&mut self) -> u64 {
        self.spilled_bytes = 0;
        self.spilled_from = self.next;
        self.dropped += self.spilled;
        std::mem::take(&mut self.spilled)
    }

    /// The first events: as many as one request takes.
    pub(super) fn batch(&self, spec: &WebhookSpec) -> impl Iterator<Item = &Waiting> {
        let mut bytes = 0;
        self.memory
            .iter()
            .take(spec.batch_events as usize)
            .enumerate()
            .take_while(move |(index, waiting)| {
                bytes += waiting.json.len();
                *index == 0 || bytes <= spec.batch_bytes as usize
            })
            .map(|(_, waiting)| waiting)
    }

    /// Whether the first events fill a request.
    pub(super) fn has_full_batch(&self, spec: &WebhookSpec) -> bool {
        self.memory.len() >= spec.batch_events as usize || self.memory_bytes >= spec.batch_bytes as usize
    }

    /// Drops the first events up to this number: they are delivered, or given up. Returns how many.
    pub(super) fn pop_through(&mut self, through: u64, storage: &mut QueueStorage<'_>) -> u64 {
        let mut count = 0;
        while let Some(waiting) = self.memory.pop_front_if(|waiting| waiting.number <= through) {
            self.memory_bytes -= waiting.bytes();
            storage.intake.release(waiting.bytes());
            count += 1;
        }
        if let Some((disk, number)) = storage.disk.as_mut().filter(|_| count > 0) {
            disk.done(*number, through);
        }
        count
    }

    /// Drops the first events if they are from before this time. Returns how many.
    pub(super) fn expire(&mut self, before_unix_ms: u64, storage: &mut QueueStorage<'_>) -> u64 {
        let old = self
            .memory
            .iter()
            .take_while(|waiting| waiting.unix_ms < before_unix_ms);
        let (mut through, mut missing) = (None, 0);
        for waiting in old {
            through = Some(waiting.number);
            missing += 1 + gap(&waiting.json).map_or(0, |(count, _)| count);
        }
        let Some(through) = through else { return 0 };
        let count = self.pop_through(through, storage);
        match self.memory.front_mut() {
            Some(next) => {
                let before = next.bytes();
                next.json = with_gap(&next.json, missing);
                let more = next.bytes().saturating_sub(before);
                self.memory_bytes += more;
                storage.intake.hold(more);
            }
            None => self.dropped += missing,
        }
        count
    }

    /// Drops everything. Returns how many events that were.
    pub(super) fn clear(&mut self, intake: &Intake) -> u64 {
        let count = self.len();
        intake.release(std::mem::take(&mut self.memory_bytes));
        *self = Queue {
            next: self.next,
            spilled_from: self.next,
            ..Queue::default()
        };
        count
    }

    /// Counts events that were dropped before they came here.
    pub(super) fn note_lost(&mut self, count: u64) {
        self.dropped += count;
    }

    /// How many events wait.
    pub(super) fn len(&self) -> u64 {
        self.memory.len() as u64 + self.spilled
    }

    /// The bytes of the events that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.memory_bytes as u64 + self.spilled_bytes
    }

    /// Whether some event is in memory, so that it can be sent.
    pub(super) fn is_sendable(&self) -> bool {
        !self.memory.is_empty()
    }
}

/// The event with `dropped_before` increased by this number.
fn with_gap(json: &[u8], dropped: u64) -> Arc<[u8]> {
    let (before, rest) = gap(json).unwrap_or_else(|| (0, json.strip_prefix(b"{").unwrap_or(json)));
    let mut with_gap = GAP.to_vec();
    with_gap.extend_from_slice(format!("{},", before + dropped).as_bytes());
    with_gap.extend_from_slice(rest);
    with_gap.into()
}

/// The value of `dropped_before` in an event, and the text behind it; `None` if the event has no such member.
fn gap(json: &[u8]) -> Option<(u64, &[u8])> {
    let rest = json.strip_prefix(GAP)?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    let count = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((count, &rest[end + 1..]))
}

/// The beginning of an event that says how many were dropped before it.
const GAP: &[u8] = br#"{"dropped_before":"#;
/// Most bytes that are read from disk at once.
const REFILL_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
