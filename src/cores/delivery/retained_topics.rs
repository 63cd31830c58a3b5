//! The retained publications of the topics that this core owns, and the topics whose retained publications
//! pass while clients of this core are sent retained ones.
//!
//! The core stores a retained publication when it begins to deliver it. A question of a core names a place in
//! the ring, and is answered when everything before the place has been read. So an answer does not depend on
//! how far this core lags behind the core that asks (as for histories, `channel_memory.rs`).
//!
//! A page is sent some time after the owner has read it. If the topic has got a newer retained publication
//! meanwhile, the subscriber has already got that one live, and the older one must not follow. So while pages
//! are on their way, the core notes the topics of the retained publications that it delivers.
//!
//! A publication that was retained because of the policy of a channel is dropped when the policy no longer
//! says so, after a reload or a start. So is one that was retained for its publisher, once the policy forbids
//! it (`mqtt_retain = false`).
//!
//! With a store (`data_dir`) they are also on disk: the changes of a turn are recorded at its end, each topic
//! once.
//!
//! Limits: `mqtt_retained_bytes_max`, `mqtt_retained_count_max`; per turn [`ANSWERS_PER_TURN_MAX`] pages of
//! [`PAGE`], [`EXPIRED_PER_TURN_MAX`] topics that are searched for expired publications, and
//! [`REVIEWED_PER_TURN_MAX`] topics after a reload; [`PASSED_MAX`] topics that are noted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::broker::{ChannelHash, Origin, Publication, Sequence};
use crate::config::channels::{MqttPayload, RetainPolicy};
use crate::cores::CoreId;
use crate::cores::post::letter::{RetainedAnswer, RetainedQuestion};
use crate::decision::Limit;
use crate::metrics::block::CoreMetrics;
use crate::mqtt::publication;
use crate::policy::channels::{ChannelPolicy, Channels};
use crate::retained::{Bounds, Cause, Entry, Facts, PageLimits, Retained, Set};
use crate::session;
use crate::store::Record;

use super::core_store::CoreStore;

/// The retained publications of one core.
#[derive(Debug)]
pub(in crate::cores) struct RetainedTopics {
    core: usize,
    cores: usize,
    retained: Retained,
    /// Questions that are not answered, the oldest first.
    questions: VecDeque<Box<RetainedQuestion>>,
    /// Publications that have passed while pages are on their way; `None` while there are none.
    passed: Option<DeliveredTopics>,
    is_sweeping: bool,
    /// After a reload or a start: the policies of channels that are to be applied, and the next topic to look
    /// at.
    unapplied: Option<(Arc<Channels>, Box<[u8]>)>,
    /// A buffer for one value of the store.
    stored: Vec<u8>,
    metrics: Arc<CoreMetrics>,
}

/// The topics of retained publications that were delivered.
#[derive(Debug, Default)]
struct DeliveredTopics {
    newest: HashMap<ChannelHash, Sequence>,
    /// The first place from which on all topics are noted: before it there were too many.
    known_from: u64,
}

impl RetainedTopics {
    /// No retained publications, for one of `cores` cores.
    pub(in crate::cores) fn new(
        core: usize,
        cores: usize,
        bounds: Bounds,
        metrics: Arc<CoreMetrics>,
    ) -> RetainedTopics {
        RetainedTopics {
            core,
            cores,
            retained: Retained::new(bounds),
            questions: VecDeque::new(),
            passed: None,
            is_sweeping: false,
            unapplied: None,
            stored: Vec::new(),
            metrics,
        }
    }

    /// Continues with the publications of a store, as far as these policies of channels allow, and keeps the
    /// store up to date from now on.
    pub(in crate::cores) fn with_store(
        mut self,
        restored: Vec<Entry>,
        channels: &Arc<Channels>,
    ) -> RetainedTopics {
        self.retained.begin_saving();
        for entry in restored {
            let set = self.retained.restore(entry);
            self.count(set);
        }
        self.adopt(channels);
        self
    }

    /// Adopts these policies of channels: reviews some topics in each turn.
    pub(in crate::cores) fn adopt(&mut self, channels: &Arc<Channels>) {
        if !self.retained.is_empty() {
            self.unapplied = Some((Arc::clone(channels), Box::default()));
        }
    }

    /// The history of a channel was removed: removes its last value, too.
    pub(in crate::cores) fn forget_last_value(&mut self, name: &[u8]) {
        self.retained.forget_last_value(name);
    }

    /// Records the changes since the last call, as far as the store takes them.
    pub(in crate::cores) fn record(&mut self, on_disk: &mut CoreStore) {
        let mut value = std::mem::take(&mut self.stored);
        self.retained.save(|topic, entry| {
            value.clear();
            if let Some(entry) = entry {
                entry.write_stored(&mut value);
            }
            on_disk.record_state(&Record::Retained {
                topic,
                value: entry.map(|_| &value[..]),
            })
        });
        value.shrink_to(STORED_KEPT_BYTES_MAX);
        self.stored = value;
    }

    /// Whether there are changes that the store has not taken.
    pub(in crate::cores) fn has_unsaved(&self) -> bool {
        self.retained.has_unsaved()
    }

    /// Whether this core keeps or notes a retained publication on this channel.
    #[inline]
    pub(in crate::cores) fn concerns(&self, hash: ChannelHash) -> bool {
        self.passed.is_some() || hash.owner(self.cores) == self.core
    }

    /// Stores a publication of the ring that is to be the retained one of its topic. `is_unquoted` says
    /// whether MQTT clients get a string of it without its quotes.
    #[cold]
    pub(in crate::cores) fn take_in(
        &mut self,
        hash: ChannelHash,
        publication: Publication<'_>,
        is_unquoted: bool,
    ) {
        if let Some(passed) = &mut self.passed {
            if passed.newest.len() >= PASSED_MAX {
                passed.newest.clear();
                passed.known_from = publication.sequence().as_u64();
            }
            passed.newest.insert(hash, publication.sequence());
        }
        if hash.owner(self.cores) != self.core {
            return;
        }
        let name = publication.channel();
        if !session::is_topic(name) {
            return self.metrics.publications_invisible.add(1);
        }
        let cause = match publication.is_retained() {
            true => Cause::Publisher,
            false => Cause::Policy,
        };
        let set = match publication.origin() {
            Origin::Mqtt => match publication::read(publication.frame()) {
                Some(view) => {
                    let facts = Facts {
                        sequence: publication.sequence(),
                        is_restored: false,
                        qos: view.head.qos,
                        is_text: view.head.is_text,
                        is_json: false,
                        is_unquoted: false,
                        payload_rule: view.head.payload_rule,
                        cause,
                        client_hash: view.head.client_hash,
                        expires_at_ms: view.head.expires_at_ms,
                    };
                    self.retained.set(&facts, name, view.properties, view.payload)
                }
                None => return,
            },
            Origin::SocketCluster => {
                let facts = Facts {
                    sequence: publication.sequence(),
                    is_restored: false,
                    qos: 1,
                    is_text: true,
                    is_json: true,
                    is_unquoted,
                    payload_rule: MqttPayload::Json,
                    cause,
                    client_hash: 0,
                    expires_at_ms: None,
                };
                self.retained.set(&facts, name, &[], publication.payload())
            }
        };
        self.count(set);
    }

    fn count(&self, set: Set) {
        match set {
            Set::Retained | Set::Cleared => {}
            Set::TooMany => self.metrics.limit_hit(Limit::MqttRetainedCount),
            Set::TooLarge => self.metrics.limit_hit(Limit::MqttRetainedBytes),
        }
    }

    /// Begins to note topics from now on, while pages are on their way; or stops and forgets them.
    pub(in crate::cores) fn watch(&mut self, is_sending: bool) {
        match (is_sending, &self.passed) {
            (true, None) => self.passed = Some(DeliveredTopics::default()),
            (false, Some(_)) => self.passed = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Whether all topics since a place are noted.
    pub(in crate::cores) fn knows_since(&self, place: Sequence) -> bool {
        self.passed
            .as_ref()
            .is_some_and(|passed| passed.known_from <= place.as_u64())
    }

    /// Whether a topic is known to have had a newer retained publication than this one.
    #[inline]
    pub(in crate::cores) fn is_superseded(&self, hash: ChannelHash, facts: &Facts) -> bool {
        let newest = self.passed.as_ref().and_then(|passed| passed.newest.get(&hash));
        newest.is_some_and(|&newest| facts.is_restored || newest > facts.sequence)
    }

    /// Keeps a question until it can be answered.
    pub(in crate::cores) fn ask(&mut self, question: Box<RetainedQuestion>) {
        self.questions.push_back(question);
    }

    /// Answers the next question, if every publication before its place was read, as everything before
    /// `appended` was. Returns the answer, and the core that gets it.
    pub(in crate::cores) fn next_answer(
        &mut self,
        appended: Sequence,
        unix_ms: u64,
    ) -> Option<(CoreId, RetainedAnswer)> {
        let asked = self
            .questions
            .pop_front_if(|asked| asked.read_up_to <= appended)?;
        let limits = PageLimits {
            entries_max: PAGE.entries_max.min(asked.entries_max),
            ..PAGE
        };
        let page = self.retained.page(
            &asked.filter,
            asked.from.as_deref(),
            asked.before,
            unix_ms,
            limits,
        );
        let answer = RetainedAnswer {
            purpose: asked.purpose,
            page,
            read_at: appended,
        };
        Some((asked.asker, answer))
    }

    /// Applies policies after a reload, and forgets expired publications: a part in each turn.
    pub(in crate::cores) fn maintain(&mut self, unix_ms: u64) {
        if let Some((channels, from)) = self.unapplied.take() {
            let next = self
                .retained
                .review(&from, REVIEWED_PER_TURN_MAX, |topic, cause| {
                    keeps(channels.find(topic), cause)
                });
            self.unapplied = next.map(|next| (channels, next));
        }
        if self.is_sweeping {
            self.is_sweeping = self.retained.sweep(unix_ms, EXPIRED_PER_TURN_MAX);
        }
    }

    /// Whether the next turn has topics to tend or questions to answer.
    pub(in crate::cores) fn has_work(&self, appended: Sequence) -> bool {
        let next = self.questions.front();
        self.is_sweeping || self.unapplied.is_some() || next.is_some_and(|asked| asked.read_up_to <= appended)
    }

    /// Once a second: sets the metrics, and begins to look for expired publications.
    pub(in crate::cores) fn tell(&mut self) {
        self.is_sweeping = true;
        self.metrics.mqtt_retained.set(self.retained.len() as u64);
        self.metrics.mqtt_retained_bytes.set(self.retained.bytes() as u64);
        self.metrics
            .mqtt_retained_expired
            .add(self.retained.take_expired());
    }
}

/// Whether a publication that was retained for this cause stays retained under this policy.
fn keeps(policy: Option<&ChannelPolicy>, cause: Cause) -> bool {
    let has_last_value = policy.is_some_and(|policy| policy.last_value);
    match cause {
        Cause::Policy => has_last_value,
        Cause::Publisher => {
            has_last_value || policy.is_none_or(|policy| policy.mqtt.retain == RetainPolicy::Kept)
        }
    }
}

/// Pages that one turn answers, at up to 50 µs each.
pub(in crate::cores) const ANSWERS_PER_TURN_MAX: usize = 4;
/// The bounds of a page.
const PAGE: PageLimits = PageLimits {
    visits_max: 512,
    entries_max: 256,
    bytes_max: 256 * 1024,
};
/// Topics that one turn looks at for expired publications: 50 µs.
const EXPIRED_PER_TURN_MAX: usize = 512;
/// Topics that one step looks at after a reload; a turn takes as many steps as it answers pages.
const REVIEWED_PER_TURN_MAX: usize = 128;
/// Most topics that are noted: 2 MiB.
const PASSED_MAX: usize = 65_536;
/// A buffer for one value that grew past this gives memory back.
const STORED_KEPT_BYTES_MAX: usize = 64 * 1024;
