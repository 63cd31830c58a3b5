//! A core's end of the store: it takes records, and never waits.
//!
//! Records gather in a batch, which the core sends at the end of a turn. Each core may have an equal share of
//! `store_queue_bytes_max` under way: in the batch, on its way to the thread, and waiting for a commit.
//!
//! | a full share | what happens to a publication |
//! |---|---|
//! | relaxed | it is not stored. It stays in memory, and the store notes that publications up to it may be missing: after the next start, a recovery from before it says that it cannot be known |
//! | strict | publishers wait before they publish ([`Sink::has_room`]), so that a share is full at half of it; what was published meanwhile is kept |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};

use super::OFFSETS_RESERVED;
use super::records::{Batch, Record};
use super::shared::{Shared, StoreState};
use super::writer::Sent;
use crate::config::StoreMode;

/// One core's end of the store.
#[derive(Debug)]
pub(crate) struct Sink {
    core: usize,
    mode: StoreMode,
    outbox: Sender<Sent>,
    shared: Arc<Shared>,
    batch: Batch,
    /// Bytes of all batches that were sent.
    sent_bytes: u64,
    bytes_max: u64,
    /// The highest offset of a publication that was not stored, until the store is told.
    lost_through: u64,
    /// The place in the ring up to which this core has read and recorded all publications; other cores are to learn it.
    read: u64,
    /// How much of that the thread has been told.
    told_read: u64,
    /// The highest offset that is known to have been given out.
    place: u64,
    /// How much of that the thread has been told.
    told_place: u64,
    /// Whether this core publishes nothing more to remembered channels.
    is_ending: bool,
    /// Whether it has sent its last record.
    has_finished: bool,
}

/// The outcome of recording a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// It will be committed.
    Kept,
    /// There is no room for it.
    Dropped,
}

impl Sink {
    pub(super) fn new(
        core: usize,
        mode: StoreMode,
        outbox: Sender<Sent>,
        shared: Arc<Shared>,
        bytes_max: u64,
    ) -> Sink {
        Sink {
            core,
            mode,
            outbox,
            shared,
            batch: Batch::default(),
            sent_bytes: 0,
            bytes_max,
            lost_through: 0,
            read: 0,
            told_read: 0,
            place: 0,
            told_place: 0,
            is_ending: false,
            has_finished: false,
        }
    }

    /// Takes a record. Copies it; allocates until the batch has its size.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Pushed {
        match record {
            Record::Publication { offset, .. } if self.is_full() => {
                self.lost_through = self.lost_through.max(*offset);
                self.shared.metrics.count_dropped();
                Pushed::Dropped
            }
            Record::Publication { .. }
            | Record::Forgotten { .. }
            | Record::Removed { .. }
            | Record::Will { .. }
            | Record::WillGone { .. }
            | Record::Retained { .. }
            | Record::SessionItem { .. }
            | Record::SessionItemGone { .. }
            | Record::SessionGone { .. }
            | Record::Held { .. }
            | Record::Released { .. }
            | Record::Unknown { .. }
            | Record::UnknownChannels { .. } => {
                self.batch.push(record);
                Pushed::Kept
            }
        }
    }

    fn is_full(&self) -> bool {
        match self.mode {
            StoreMode::Relaxed => self.under_way() > self.bytes_max,
            // Publishers wait at half of the share.
            StoreMode::Strict => false,
        }
    }

    /// Whether a will may be recorded: a client can set one after another.
    pub(crate) fn takes_wills(&self) -> bool {
        match self.mode {
            StoreMode::Relaxed => !self.is_full(),
            StoreMode::Strict => self.has_room() && self.state() == StoreState::Open,
        }
    }

    /// Whether a change may be recorded that the core also has in memory: not while a whole share is under way. Then
    /// this core is woken at the next commit. The last records are accepted in any case.
    pub(crate) fn takes_state(&self) -> bool {
        let has_room = || self.is_ending || self.under_way() <= self.bytes_max;
        if has_room() {
            return true;
        }
        self.shared.wait_for_commit(self.core);
        has_room()
    }

    /// The end of the records so far: [`Sink::is_done`] says when they are committed.
    pub(crate) fn end_of_records(&self) -> u64 {
        self.sent_bytes + self.batch.len() as u64
    }

    /// Whether all records of this core up to an end are committed. If not, this core is woken after the next commit.
    pub(crate) fn is_done(&self, end: u64) -> bool {
        let done = || self.shared.cores[self.core].done_bytes.load(Ordering::Relaxed) >= end;
        if done() {
            return true;
        }
        self.shared.wait_for_commit(self.core);
        done()
    }

    /// Bytes of records that are not committed.
    fn under_way(&self) -> u64 {
        let done = self.shared.cores[self.core].done_bytes.load(Ordering::Relaxed);
        self.sent_bytes.saturating_sub(done) + self.batch.len() as u64
    }

    /// Whether a publication to a remembered channel may be published now. In strict mode it waits while a half of this
    /// core's share is under way.
    pub(crate) fn has_room(&self) -> bool {
        match self.mode {
            StoreMode::Relaxed => true,
            StoreMode::Strict => self.under_way() <= self.bytes_max / 2,
        }
    }

    /// Sends the batch, at the end of a turn. Returns whether records are left, so that the core calls again soon.
    pub(crate) fn flush(&mut self) -> bool {
        if self.lost_through > 0 && !self.is_full() {
            let through = std::mem::take(&mut self.lost_through);
            self.batch.push(&Record::Unknown { through });
        }
        let is_far = self.place - self.told_place >= PLACE_TOLD_EVERY;
        if self.batch.is_empty() && self.read == self.told_read && !is_far {
            return false;
        }
        let bytes = self.batch.len() as u64;
        let sent = Sent {
            core: self.core,
            batch: std::mem::take(&mut self.batch),
            read: self.read,
            place: self.place,
        };
        match self.outbox.try_send(sent) {
            Ok(()) => {
                self.sent_bytes += bytes;
                self.told_read = self.read;
                self.told_place = self.place;
                false
            }
            Err(TrySendError::Full(sent)) => {
                self.batch = sent.batch;
                true
            }
            // The thread has ended: the store is closed.
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Whether an acknowledgement has to wait for a commit.
    pub(crate) fn is_strict(&self) -> bool {
        self.mode == StoreMode::Strict
    }

    /// Whether records can be committed, as far as is known now.
    pub(crate) fn state(&self) -> StoreState {
        self.shared.state()
    }

    /// Whether all records of `owner` up to an offset are committed. If not, this core is woken after the next commit.
    pub(crate) fn is_committed(&self, owner: usize, offset: u64) -> bool {
        if self.shared.is_committed(owner, offset) {
            return true;
        }
        self.shared.wait_for_commit(self.core);
        self.shared.is_committed(owner, offset)
    }

    /// Notes that publications have offsets up to this one: no other process may use these offsets.
    pub(crate) fn note_place(&mut self, through: u64) {
        self.place = self.place.max(through);
    }

    /// Notes that this core has read the ring up to an offset, and has recorded all publications that the store keeps:
    /// the next [`Sink::flush`] sends the offset.
    pub(crate) fn note_read(&mut self, through: u64) {
        self.read = through;
    }

    /// Whether a core has read the ring up to an offset, and its records are committed. If not, this core is woken when
    /// it may have.
    pub(crate) fn has_read(&self, core: usize, offset: u64) -> bool {
        if self.shared.has_read(core, offset) {
            return true;
        }
        self.shared.wait_for_commit(self.core);
        self.shared.has_read(core, offset)
    }

    /// How many commits there have been, with those that failed.
    pub(crate) fn commits(&self) -> u64 {
        self.shared.commits()
    }

    /// Notes that this core publishes nothing more to remembered channels, and returns whether this holds for all
    /// cores: then the ring gets no further publication for the store.
    pub(crate) fn end(&mut self) -> bool {
        if !self.is_ending {
            self.is_ending = true;
            self.shared.note_ending();
        }
        self.shared.all_are_ending()
    }

    /// Whether the last record has been sent.
    pub(crate) fn has_finished(&self) -> bool {
        self.has_finished
    }

    /// Sends the last records: this core has read the whole ring. It may wait for a slow thread, because this core does
    /// nothing more for remembered channels.
    pub(crate) fn finish(&mut self) {
        if self.has_finished {
            return;
        }
        self.has_finished = true;
        if self.flush() {
            let sent = Sent {
                core: self.core,
                batch: std::mem::take(&mut self.batch),
                read: self.read,
                place: self.place,
            };
            if self.outbox.send_timeout(sent, FINISH_TIME_MAX).is_err() {
                return;
            }
        }
        self.shared.cores[self.core]
            .has_finished
            .store(true, Ordering::Release);
    }
}

/// After so many offsets, the thread is told the highest one, if it has got no other record.
const PLACE_TOLD_EVERY: u64 = OFFSETS_RESERVED / 64;
/// How long the last records of a core may wait for the thread of the store.
const FINISH_TIME_MAX: Duration = Duration::from_secs(2);
