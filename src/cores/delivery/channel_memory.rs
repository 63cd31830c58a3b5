//! The publications that this core remembers, of the channels that it owns: it takes them from the ring, and
//! answers the questions of other cores about them.
//!
//! The core appends each remembered publication of its channels when it begins to deliver it, whether the
//! channel has subscribers or not. A question names a place in the ring, and waits here until everything
//! before the place has been appended. So an answer is exact: it does not depend on how far this core lags
//! behind the core that asks.
//!
//! Waits: a question waits for this core's own reader. The reader waits only for cores that are about to fill
//! a place they have claimed.
//!
//! Limits: `history_bytes_max` and `history_channels_max`, in equal shares for each core; per turn
//! `ANSWERS_PER_TURN_MAX` (`cores/owned_channels.rs`), [`CHANNELS_PER_TURN_MAX`] after a reload,
//! [`EXPIRED_PER_TURN_MAX`] publications that have expired. The cores that ask bound the number of their
//! waiting questions.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::{ChannelHash, Numbering, Publication, Sequence};
use crate::clock::{Now, Uptime};
use crate::config::limits::Limits;
use crate::cores::CoreId;
use crate::cores::post::letter::{HistoryAnswer, HistoryQuestion};
use crate::decision::Limit;
use crate::history::{Histories, Keep, NewPublication, Query, Question, Reading, Unknown};
use crate::metrics::block::{CoreMetrics, Eviction};
use crate::policy::channels::{ChannelPolicy, Channels};
use crate::store::Sink;

use super::core_store::CoreStore;
use super::policy_changes::PolicyChanges;

/// The memory of one core.
#[derive(Debug)]
pub(in crate::cores) struct ChannelMemory {
    core: usize,
    cores: usize,
    numbering: Numbering,
    /// The policies in force on this core.
    channels: Arc<Channels>,
    changes: PolicyChanges,
    histories: Histories,
    /// Questions that are not answered, the oldest first.
    questions: VecDeque<Box<HistoryQuestion>>,
    /// After a reload: the next channel to which the policies are to be applied.
    unapplied: Option<u32>,
    /// Whether the owners of channels have yet to be told that this core has adopted policies.
    is_unreported: bool,
    /// Whether expired publications may be left to drop.
    is_sweeping: bool,
    /// The store, if there is one.
    on_disk: Option<CoreStore>,
    metrics: Arc<CoreMetrics>,
}

impl ChannelMemory {
    /// A memory without publications.
    pub(in crate::cores) fn new(
        core: usize,
        cores: usize,
        numbering: Numbering,
        channels: Arc<Channels>,
        limits: &Limits,
        metrics: Arc<CoreMetrics>,
    ) -> ChannelMemory {
        ChannelMemory {
            core,
            cores,
            numbering,
            channels,
            changes: PolicyChanges::new(cores, numbering),
            histories: Histories::of_one_core(numbering.epoch, limits, cores),
            questions: VecDeque::new(),
            unapplied: None,
            is_unreported: false,
            is_sweeping: false,
            on_disk: None,
            metrics,
        }
    }

    /// Continues with the histories of a store, and keeps the store up to date from now on.
    pub(in crate::cores) fn with_store(self, sink: Sink, histories: Histories, now: Now) -> ChannelMemory {
        let on_disk = Some(CoreStore::new(sink, self.cores, self.numbering, now));
        ChannelMemory {
            histories,
            on_disk,
            ..self
        }
    }

    /// The store, if there is one.
    #[inline]
    pub(in crate::cores) fn on_disk(&mut self) -> Option<&mut CoreStore> {
        self.on_disk.as_mut()
    }

    /// Sends the store the changes of this turn.
    pub(in crate::cores) fn tell_store(&mut self, now: Now) {
        if let Some(on_disk) = &mut self.on_disk {
            on_disk.record(&mut self.histories);
            on_disk.flush(now);
        }
    }

    /// Whether a publication of the ring is to be appended: this core owns its channel, and it is to be remembered.
    #[inline]
    pub(in crate::cores) fn takes(&self, hash: ChannelHash, publication: Publication<'_>) -> bool {
        hash.owner(self.cores) == self.core && publication.is_remembered()
    }

    /// Whether the policy of a channel says that its newest publication is kept.
    pub(in crate::cores) fn keeps_last_value(&self, name: &[u8]) -> bool {
        self.channels.find(name).is_some_and(|policy| policy.last_value)
    }

    /// Whether MQTT clients get the strings of a channel without their quotes.
    #[inline]
    pub(in crate::cores) fn unquotes(&self, name: &[u8]) -> bool {
        self.channels.unquotes(name)
    }

    /// Appends a publication, which it [`takes`](ChannelMemory::takes), in the form of SocketCluster.
    pub(in crate::cores) fn append(&mut self, hash: ChannelHash, publication: Publication<'_>) {
        let channels = &self.channels;
        let name = publication.channel();
        self.histories.append(
            name,
            hash,
            &NewPublication::of(&publication, self.numbering),
            channels.version(),
            || keep(channels.find(name)),
        );
        if let Some(on_disk) = &mut self.on_disk {
            on_disk.record(&mut self.histories);
        }
    }

    /// Adopts these policies.
    pub(in crate::cores) fn adopt(&mut self, channels: &Arc<Channels>) {
        if channels.version() != self.channels.version() {
            self.changes.adopt(&self.channels, channels);
            self.channels = Arc::clone(channels);
            self.unapplied = Some(0);
            self.is_unreported = true;
        }
    }

    /// The version of the policies, if the owners of channels have yet to be told that this core follows
    /// them. They count as told from then on.
    pub(in crate::cores) fn take_unreported(&mut self) -> Option<u32> {
        std::mem::take(&mut self.is_unreported).then(|| self.channels.version())
    }

    /// Another core, or this one, follows the policies of this version from this place on.
    pub(in crate::cores) fn note_followed(&mut self, core: usize, version: u32, place: Sequence, now: Now) {
        let now_ms = i64::try_from(now.uptime.as_ms()).unwrap_or(i64::MAX);
        self.changes.follow(core, version, place, now_ms);
        if let Some(on_disk) = &mut self.on_disk {
            // The next process will not know about this change.
            on_disk.note_unknown(self.numbering.position_before(place).offset);
        }
    }

    /// Keeps a question until it can be answered.
    pub(in crate::cores) fn ask(&mut self, question: Box<HistoryQuestion>) {
        self.questions.push_back(question);
    }

    /// Answers the next question, if every publication before its place was appended, as everything before
    /// `appended` was. Returns the answer, and the core that gets it.
    pub(in crate::cores) fn next_answer(
        &mut self,
        appended: Sequence,
        now: Now,
    ) -> Option<(CoreId, HistoryAnswer)> {
        // The questions of one core come in the order of their places; those of different cores do not. A
        // question whose place has not been read waits for a few publications at most, and so do the
        // questions behind it.
        let asked = self
            .questions
            .pop_front_if(|asked| asked.question.before <= appended)?;
        let reading = self.read(&asked.question, now);
        self.metrics.history_readings.add(1);
        let purpose = asked.purpose;
        Some((asked.asker, HistoryAnswer { purpose, reading }))
    }

    /// Answers a question. Every publication before its place has been read.
    pub(in crate::cores) fn read(&mut self, question: &Question, now: Now) -> Reading {
        let up_to = self.numbering.offset(question.before) - 1;
        let policy = self.channels.find(&question.name);
        let keeps_none = policy.is_none_or(|policy| policy.history.is_none());
        let is_superseded = self.channels.is_superseded();
        let unknown = |unknown| Reading::unknown(unknown, self.numbering.position_before(question.before));
        match question.query {
            Query::After(_) | Query::Last(_) | Query::Since(_) if keeps_none => unknown(Unknown::NoHistory),
            Query::After(position)
                if position.epoch == self.numbering.epoch
                    && (is_superseded || self.changes.is_unsure(&question.name, position.offset)) =>
            {
                unknown(Unknown::PolicyChanged)
            }
            Query::Since(unix_ms) => {
                let at_ms = self.histories.at_ms(unix_ms, now);
                let reading = self.histories.read(question, up_to, now);
                match is_superseded || self.changes.is_unsure_since(&question.name, at_ms) {
                    true => reading.but(Unknown::PolicyChanged),
                    false => reading,
                }
            }
            Query::After(_) | Query::Last(_) | Query::LastValue | Query::Position => {
                self.histories.read(question, up_to, now)
            }
        }
    }

    /// Removes the history of a channel. Returns how many publications it had.
    pub(in crate::cores) fn remove(&mut self, name: &[u8], hash: ChannelHash) -> usize {
        self.histories.remove(name, hash)
    }

    /// Applies policies after a reload, and drops expired publications: a part in each turn.
    pub(in crate::cores) fn maintain(&mut self, now: Now) {
        if let Some(from) = self.unapplied {
            let channels = &self.channels;
            self.unapplied =
                self.histories
                    .apply_policies(from, CHANNELS_PER_TURN_MAX, channels.version(), |name| {
                        keep(channels.find(name))
                    });
        }
        if self.is_sweeping {
            self.is_sweeping = self.histories.sweep(now, EXPIRED_PER_TURN_MAX);
        }
    }

    /// Whether the next turn has channels to tend or questions to answer.
    pub(in crate::cores) fn has_work(&self, appended: Sequence) -> bool {
        let next = self.questions.front();
        let is_answerable = next.is_some_and(|asked| asked.question.before <= appended);
        self.is_unreported || self.unapplied.is_some() || self.is_sweeping || is_answerable
    }

    /// When the next publication expires.
    pub(in crate::cores) fn next_expiry(&self) -> Option<Uptime> {
        let deadline = self.histories.next_deadline_ms()?;
        Some(Uptime::from_ms(u64::try_from(deadline).unwrap_or(0)))
    }

    /// Once a second: sets the metrics, and begins to look for expired publications.
    pub(in crate::cores) fn tell(&mut self) {
        self.is_sweeping = true;
        let histories = &mut self.histories;
        self.metrics.history_publications.set(histories.publications());
        self.metrics.history_channels.set(histories.channels() as u64);
        self.metrics.history_bytes.set(histories.bytes() as u64);
        let evicted = histories.take_evicted();
        for (eviction, count) in [
            (Eviction::ChannelFull, evicted.channel_full),
            (Eviction::Expired, evicted.expired),
            (Eviction::BytesMax, evicted.bytes_max),
            (Eviction::ChannelsMax, evicted.channels_max),
        ] {
            self.metrics.history_evicted[eviction.index()].add(count);
        }
        for (limit, count) in [
            (Limit::HistoryBytes, evicted.bytes_max),
            (Limit::HistoryChannels, evicted.channels_max),
        ] {
            self.metrics.limit_hits[limit.index()].add(count);
        }
    }
}

/// How much is kept of a channel with this policy.
fn keep(policy: Option<&ChannelPolicy>) -> Option<Keep> {
    policy.and_then(Keep::of)
}

/// Channels that one turn looks at after a reload: 100 µs.
const CHANNELS_PER_TURN_MAX: u32 = 256;
/// Publications that one turn drops because they have expired: 50 µs.
const EXPIRED_PER_TURN_MAX: u32 = 1024;
