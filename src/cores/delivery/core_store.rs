//! A core's access to the store (`data_dir`), if there is one: what it records, and what is committed.

use std::collections::VecDeque;

use crate::app::SessionId;
use crate::broker::{ChannelHash, CoreSet, Numbering, Sequence};
use crate::clock::Now;
use crate::decision::Stored;
use crate::history::Histories;
use crate::mqtt::sessions::Disk;
use crate::store::{Pushed, Record, Sink, StoreChange, StoreState, StoredWill};
use crate::wills::HeldWill;

use crate::cores::lifecycle::connection::Commit;

/// A core's end of the store, and the commits that it has seen.
#[derive(Debug)]
pub(in crate::cores) struct CoreStore {
    sink: Sink,
    cores: usize,
    numbering: Numbering,
    /// How many commits there had been at the last look.
    commits_seen: u64,
    /// Whether records wait for room in the queue of the store's thread.
    has_left: bool,
    /// When the last turn ended, for the times of publications.
    now: Now,
    /// Saves of MQTT sessions that are not committed, each with the end of its records.
    saves: VecDeque<(u64, u64)>,
    /// The last save that is committed.
    committed_save: u64,
}

impl Disk for CoreStore {
    fn has_room(&mut self) -> bool {
        self.sink.takes_state()
    }

    fn record(&mut self, record: &Record<'_>) {
        // Such a record is always kept.
        let (Pushed::Kept | Pushed::Dropped) = self.sink.push(record);
    }
}

/// Whether a publication to a remembered channel may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores) enum Admission {
    Open,
    /// Too many bytes are on their way to the disk: the connection waits for a commit.
    Full,
    /// The publication cannot be stored.
    Refused(Stored),
}

impl CoreStore {
    pub(in crate::cores) fn new(sink: Sink, cores: usize, numbering: Numbering, now: Now) -> CoreStore {
        CoreStore {
            sink,
            cores,
            numbering,
            commits_seen: 0,
            has_left: false,
            now,
            saves: VecDeque::new(),
            committed_save: 0,
        }
    }

    /// Records the changes in the histories of this core.
    pub(in crate::cores) fn record(&mut self, histories: &mut Histories) {
        histories.take_changes(self.now, |change| {
            // The sink counts a change that it drops, and the store learns of the gap.
            let (Pushed::Kept | Pushed::Dropped) = self.sink.push(&Record::from(change));
        });
    }

    /// Whether a client's will may be recorded.
    pub(in crate::cores) fn takes_wills(&self) -> bool {
        self.sink.takes_wills()
    }

    /// Records the will of a connection: the connection is open, or the will waits until `due_unix_ms`.
    /// Returns the commit that makes the will safe, if its acknowledgement waits for one.
    pub(in crate::cores) fn record_will(
        &mut self,
        generation: SessionId,
        held: &HeldWill,
        due_unix_ms: Option<u64>,
        now: Now,
    ) -> Option<Commit> {
        let mut bytes = Vec::new();
        held.write(&mut bytes);
        let record = Record::Will {
            generation: generation.as_bytes(),
            will: StoredWill {
                due_unix_ms,
                set_unix_ms: now.unix_ms,
                will: &bytes,
            },
        };
        self.push_about_will(&record)
    }

    /// Records that a connection has no will any more. Returns the commit that the acknowledgement waits for,
    /// if it waits for one.
    pub(in crate::cores) fn forget_will(&mut self, generation: SessionId) -> Option<Commit> {
        self.push_about_will(&Record::WillGone {
            generation: generation.as_bytes(),
        })
    }

    fn push_about_will(&mut self, record: &Record<'_>) -> Option<Commit> {
        if self.sink.has_finished() {
            // After its last record, this core tells the store nothing more.
            return None;
        }
        // Such a record is always kept.
        let (Pushed::Kept | Pushed::Dropped) = self.sink.push(record);
        self.sink
            .is_strict()
            .then(|| Commit::Before(self.sink.end_of_records()))
    }

    /// Records a change of state that the core also keeps itself, so that it can record the change later.
    /// False if it must do so: then this core is woken at the next commit.
    pub(in crate::cores) fn record_state(&mut self, record: &Record<'_>) -> bool {
        if !self.sink.takes_state() {
            return false;
        }
        // Such a record is always kept.
        let (Pushed::Kept | Pushed::Dropped) = self.sink.push(record);
        true
    }

    /// Notes that the records so far contain everything of the MQTT sessions up to this save.
    pub(in crate::cores) fn note_save(&mut self, save: u64) {
        let end = self.sink.end_of_records();
        match self.saves.back_mut() {
            Some((last, last_end)) if *last_end == end => *last = save,
            Some(_) | None => self.saves.push_back((save, end)),
        }
    }

    /// The last save of MQTT sessions that is committed. If a later save is not, this core is woken at the
    /// next commit.
    pub(in crate::cores) fn committed_save(&mut self) -> u64 {
        while let Some(&(save, end)) = self.saves.front()
            && self.sink.is_done(end)
        {
            self.committed_save = save;
            self.saves.pop_front();
        }
        self.committed_save
    }

    /// Whether publications are refused since little is left of `store_bytes_max`.
    pub(in crate::cores) fn is_full(&self) -> bool {
        self.sink.state() == StoreState::Full
    }

    /// Whether acknowledgements wait for commits.
    pub(in crate::cores) fn is_strict(&self) -> bool {
        self.sink.is_strict()
    }

    /// Whether all records are on their way to the thread of the store.
    pub(in crate::cores) fn has_sent_all(&self) -> bool {
        !self.has_left
    }

    /// Records that publications up to an offset may be missing from any channel.
    pub(in crate::cores) fn note_unknown(&mut self, through: u64) {
        // Such a record is always kept.
        let (Pushed::Kept | Pushed::Dropped) = self.sink.push(&Record::Unknown { through });
    }

    /// Whether a publication may be published now.
    pub(in crate::cores) fn admission(&self, change: StoreChange) -> Admission {
        let takes_more = || match self.sink.has_room() {
            true => Admission::Open,
            false => Admission::Full,
        };
        match (self.sink.state(), self.sink.is_strict(), change) {
            (StoreState::Open, _, _)
            | (StoreState::Full | StoreState::Failing, false, _)
            | (StoreState::Full | StoreState::Failing, true, StoreChange::Clears) => takes_more(),
            (StoreState::Full | StoreState::Failing, true, StoreChange::Adds) => {
                Admission::Refused(Stored::NotNow)
            }
            (StoreState::Closing | StoreState::Closed, _, _) => Admission::Refused(Stored::Elsewhere),
        }
    }

    /// The commit that the acknowledgement of a publication waits for, if it waits for one. `place` is the place behind
    /// the publication.
    pub(in crate::cores) fn commit_of(&self, hash: ChannelHash, place: Sequence) -> Option<Commit> {
        self.sink.is_strict().then(|| Commit::Of {
            owner: hash.owner(self.cores),
            offset: self.numbering.offset(place) - 1,
        })
    }

    /// The same for a publication that MQTT sessions of these cores may keep, or that one of these cores
    /// retains or remembers.
    pub(in crate::cores) fn commit_of_all(&self, cores: CoreSet, place: Sequence) -> Option<Commit> {
        self.sink.is_strict().then(|| Commit::Read {
            cores,
            offset: self.numbering.offset(place) - 1,
        })
    }

    /// Notes that the offsets before a place are in use: publications that may not be recorded have them.
    pub(in crate::cores) fn note_place(&mut self, place: Sequence) {
        self.sink.note_place(self.numbering.position_before(place).offset);
    }

    /// Notes that this core has delivered everything before a place, and has recorded the publications that
    /// it keeps.
    pub(in crate::cores) fn note_read(&mut self, place: Sequence) {
        if self.sink.is_strict() {
            self.sink.note_read(self.numbering.position_before(place).offset);
        }
    }

    /// The fate of a publication; `None` while it is not known. Then this core is woken at the next commit.
    pub(in crate::cores) fn outcome(&mut self, commit: Commit) -> Option<Stored> {
        match commit {
            Commit::Saved(save) if self.committed_save() >= save => Some(Stored::Yes),
            Commit::Refused(why) => Some(why),
            Commit::Of { owner, offset } if self.sink.is_committed(owner, offset) => Some(Stored::Yes),
            Commit::Before(end) if self.sink.is_done(end) => Some(Stored::Yes),
            Commit::Read { cores, offset }
                if cores.into_iter().all(|core| self.sink.has_read(core, offset)) =>
            {
                Some(Stored::Yes)
            }
            Commit::Of { .. } | Commit::Read { .. } | Commit::Before(_) | Commit::Saved(_) => {
                match self.sink.state() {
                    StoreState::Open | StoreState::Full | StoreState::Closing => None,
                    StoreState::Failing | StoreState::Closed => Some(Stored::Unknown),
                }
            }
        }
    }

    /// Whether there was a commit, or an attempt at one, since the last call.
    pub(in crate::cores) fn take_commits(&mut self) -> bool {
        let before = self.commits_seen;
        self.commits_seen = self.sink.commits();
        self.commits_seen != before
    }

    /// Sends the records of a turn.
    pub(in crate::cores) fn flush(&mut self, now: Now) {
        self.now = now;
        self.has_left = self.sink.flush();
    }

    /// Whether the core must take another turn soon even if no event comes.
    pub(in crate::cores) fn is_waiting(&self) -> bool {
        self.has_left || self.is_closing()
    }

    /// Whether the store is to be closed, and this core has not sent its last records.
    pub(in crate::cores) fn is_closing(&self) -> bool {
        self.sink.state() == StoreState::Closing && !self.sink.has_finished()
    }

    /// Notes that this core publishes nothing more to remembered channels. Returns whether this holds for all
    /// cores.
    pub(in crate::cores) fn end(&mut self) -> bool {
        self.sink.end()
    }

    /// Sends the last records.
    pub(in crate::cores) fn finish(&mut self) {
        self.sink.finish();
    }

    /// Whether the last records have been sent.
    pub(in crate::cores) fn has_finished(&self) -> bool {
        self.sink.has_finished()
    }
}
