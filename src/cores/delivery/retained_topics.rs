//! Retained publications, as far as this core has to do with them: those of the topics that it owns, and those that pass
//! while clients of this core are sent retained ones.
//!
//! The core sets what it reads from the ring when it begins to deliver it. A question of a core names a place in the ring;
//! it is answered when everything before the place has been read. So an answer does not depend on how far this core lags
//! behind the one that asks (as for histories, `channel_memory.rs`).
//!
//! A page is sent some time after the owner has read it. If the topic has got a newer retained publication meanwhile, its
//! subscriber has had that one live: the older one must not follow. So while pages are on their way, the core notes which
//! topics the retained publications have that it delivers.
//!
//! A publication that the policy of a channel has had retained goes with that policy: after a reload, and after a start.
//! So do those of publishers where the policy forbids them (`mqtt_retain = false`).
//!
//! With a store (`data_dir`) they are on disk, too: what a turn has changed is recorded at its end, each topic once.
//!
//! Limits: `mqtt_retained_bytes_max`, `mqtt_retained_count_max`; per turn [`ANSWERS_PER_TURN_MAX`] pages of [`PAGE`], and
//! [`EXPIRED_PER_TURN_MAX`] topics that are looked at for expired ones, and [`REVIEWED_PER_TURN_MAX`] after a reload; [`PASSED_MAX`] topics that are noted.

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

use super::remembered_on_disk::OnDisk;

/// The retained publications that one core has to do with.
#[derive(Debug)]
pub(in crate::cores) struct RetainedTopics {
    core: usize,
    cores: usize,
    retained: Retained,
    /// Questions that are not answered, the oldest first.
    questions: VecDeque<Box<RetainedQuestion>>,
    /// Publications that have passed while pages are on their way; `None` while there are none.
    passed: Option<Passed>,
    is_sweeping: bool,
    /// After a reload or a start: the policies of channels that are to be applied, and the next topic to look at.
    unapplied: Option<(Arc<Channels>, Box<[u8]>)>,
    /// A buffer for one value of the store.
    stored: Vec<u8>,
    metrics: Arc<CoreMetrics>,
}

/// The topics of retained publications that were delivered.
#[derive(Debug, Default)]
struct Passed {
    newest: HashMap<ChannelHash, Sequence>,
    /// Nothing is known of publications before this place: there were too many.
    known_from: u64,
}

impl RetainedTopics {
    /// Without a publication, for one of so many cores.
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

    /// Goes on with what a store has, as far as these policies of channels have it kept, and keeps the store up to date from
    /// now on.
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

    /// Keeps what these policies of channels have kept: a part in each turn.
    pub(in crate::cores) fn adopt(&mut self, channels: &Arc<Channels>) {
        if !self.retained.is_empty() {
            self.unapplied = Some((Arc::clone(channels), Box::default()));
        }
    }

    /// The history of a channel was removed: so is its last value.
    pub(in crate::cores) fn forget_last_value(&mut self, name: &[u8]) {
        self.retained.forget_last_value(name);
    }

    /// Records what has changed since the last call, as long as the store takes it.
    pub(in crate::cores) fn record(&mut self, on_disk: &mut OnDisk) {
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

    /// Whether something has changed that the store has not taken.
    pub(in crate::cores) fn has_unsaved(&self) -> bool {
        self.retained.has_unsaved()
    }

    /// Whether this core has something to do with a publication that is retained.
    #[inline]
    pub(in crate::cores) fn concerns(&self, hash: ChannelHash) -> bool {
        self.passed.is_some() || hash.owner(self.cores) == self.core
    }

    /// Takes a publication of the ring that is to be the retained one of its topic. `is_unquoted` says whether MQTT clients
    /// get a string of it without its quotes.
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

    /// Notes what passes from now on, while pages are on their way; or forgets it.
    pub(in crate::cores) fn watch(&mut self, is_sending: bool) {
        match (is_sending, &self.passed) {
            (true, None) => self.passed = Some(Passed::default()),
            (false, Some(_)) => self.passed = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Whether it is known what has passed since a place.
    pub(in crate::cores) fn knows_since(&self, place: Sequence) -> bool {
        self.passed
            .as_ref()
            .is_some_and(|passed| passed.known_from <= place.as_u64())
    }

    /// Whether a topic has had a newer retained publication than this one, as far as is known.
    #[inline]
    pub(in crate::cores) fn is_superseded(&self, hash: ChannelHash, facts: &Facts) -> bool {
        let newest = self.passed.as_ref().and_then(|passed| passed.newest.get(&hash));
        newest.is_some_and(|&newest| facts.is_restored || newest > facts.sequence)
    }

    /// Keeps a question until it can be answered.
    pub(in crate::cores) fn ask(&mut self, question: Box<RetainedQuestion>) {
        self.questions.push_back(question);
    }

    /// Answers the next question, if everything that it is about was read, as everything before `appended` was. Returns the
    /// core that gets the answer as well.
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

    /// Applies policies after a reload, and forgets what has expired: a part in each turn.
    pub(in crate::cores) fn tend(&mut self, unix_ms: u64) {
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

    /// Whether the next turn has something to tend or to answer.
    pub(in crate::cores) fn has_work(&self, appended: Sequence) -> bool {
        let next = self.questions.front();
        self.is_sweeping || self.unapplied.is_some() || next.is_some_and(|asked| asked.read_up_to <= appended)
    }

    /// Once a second: sets the metrics, and begins to look for what has expired.
    pub(in crate::cores) fn tell(&mut self) {
        self.is_sweeping = true;
        self.metrics.mqtt_retained.set(self.retained.len() as u64);
        self.metrics.mqtt_retained_bytes.set(self.retained.bytes() as u64);
        self.metrics
            .mqtt_retained_expired
            .add(self.retained.take_expired());
    }
}

/// Whether a publication that is retained for this cause still is where this is the policy.
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
