//! Subscriptions of MQTT sessions that are to be sent retained publications, and their progress.
//!
//! ```text
//!   session: waiting ──► active: ask an owner for a page ──► send it ──► the next page, or the next owner ──► done
//!               ▲            │ others wait, and its client takes no more; or it has no client
//!               └── event ── parked
//! ```
//! A filter without wildcards has one owner; for any other filter, each core may own topics that match. Few
//! sessions are active at a time, each with one of its subscriptions, so that a storm of subscribers does not
//! hold memory for pages that no client can take yet. Sessions take turns: one with many subscriptions does
//! not delay another with one. A session whose client does not read, or does not acknowledge, gives its place
//! to a waiting session. It gets another place when its client has made room (`mqtt/sessions.rs`,
//! [`Sessions::watch`](crate::mqtt::Sessions::watch)).
//!
//! Invariants
//! 1. `sessions` has each session with subscriptions that are not done. A waiting session stands in `turns`.
//!    An active session has one subscription in `active`, or with the caller of [`RetainedAsks::take_next`].
//! 2. A subscription that is not active holds no page.
//!
//! Limits: [`ACTIVE_MAX`]; `mqtt_retained_per_subscribe_max`. The number of waiting subscriptions is bounded
//! by those of the core's sessions: a new SUBSCRIBE for the same filter replaces the earlier one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::broker::Sequence;
use crate::mqtt::sessions::SessionRef;
use crate::retained::{Entry, Filter};

/// The retained publications for one subscription.
#[derive(Debug)]
pub(in crate::cores) struct Ask {
    pub(in crate::cores) number: u64,
    pub(in crate::cores) session: SessionRef,
    pub(in crate::cores) text: Box<str>,
    pub(in crate::cores) filter: Arc<Filter>,
    pub(in crate::cores) options: RetainedOptions,
    /// The subscription is live from this place on.
    pub(in crate::cores) before: Sequence,
    /// The remaining owners of topics: the first of them is being asked.
    pub(in crate::cores) owners: std::ops::Range<usize>,
    /// How many publications may still be sent.
    pub(in crate::cores) left: u32,
    pub(in crate::cores) progress: Progress,
}

/// The options of a subscriber for retained publications.
#[derive(Clone, Copy, Debug)]
pub(in crate::cores) struct RetainedOptions {
    /// The highest QoS that the subscriber wants.
    pub(in crate::cores) qos: u8,
    /// The subscription identifier; 0: none.
    pub(in crate::cores) id: u32,
    /// The hash of the client whose publications are left out (No Local); 0: none are.
    pub(in crate::cores) except: u64,
}

/// The event that an [`Ask`] is waiting for.
#[derive(Debug)]
pub(in crate::cores) enum Progress {
    /// The owner is to be asked for the page that begins here.
    ToAsk { from: Option<Box<[u8]>> },
    /// The owner has been asked.
    Asked,
    /// A page is being sent.
    Sending {
        /// In reverse order: the last entry is sent next.
        entries: Vec<Entry>,
        next: Option<Box<[u8]>>,
        /// The place up to which the owner had read.
        read_at: Sequence,
    },
}

/// All such subscriptions of a core.
#[derive(Debug, Default)]
pub(in crate::cores) struct RetainedAsks {
    sessions: HashMap<SessionRef, SessionAsks>,
    turns: VecDeque<SessionRef>,
    active: VecDeque<Ask>,
    /// The subscriptions of sessions that have ended. Their memory is freed, some of them in each turn.
    ended: VecDeque<BTreeMap<Box<str>, Ask>>,
    last_number: u64,
    /// Whether the next turn has work even if no event comes.
    pub(in crate::cores) has_work: bool,
    /// Whether the box of an owner was full: the core tries again after a moment.
    pub(in crate::cores) awaits_box: bool,
}

/// The subscriptions of one session that are not done, without the active one.
#[derive(Debug)]
struct SessionAsks {
    asks: BTreeMap<Box<str>, Ask>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It stands in `turns`.
    Waiting,
    Active,
    /// It waits for an event of its client.
    Parked,
}

impl RetainedAsks {
    /// Whether there are no subscriptions.
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.active.is_empty() && self.ended.is_empty()
    }

    /// Whether pages are on their way, or are to be asked for.
    pub(in crate::cores) fn is_sending(&self) -> bool {
        !self.active.is_empty() || !self.turns.is_empty()
    }

    /// Whether sessions wait for others.
    pub(in crate::cores) fn have_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether a waiting session may become active, or sessions that have ended have subscriptions left.
    pub(in crate::cores) fn can_go_on(&self) -> bool {
        !self.turns.is_empty() && self.active.len() < ACTIVE_MAX || !self.ended.is_empty()
    }

    /// Adds a subscription; it replaces an earlier one for the same filter that is not done.
    pub(in crate::cores) fn add(&mut self, mut ask: Ask) {
        self.last_number += 1;
        ask.number = self.last_number;
        self.has_work = true;
        let session = ask.session;
        let own = self.sessions.entry(session).or_insert_with(|| {
            self.turns.push_back(session);
            SessionAsks {
                asks: BTreeMap::new(),
                phase: Phase::Waiting,
            }
        });
        let is_same = |other: &Ask| other.session == session && other.text == ask.text;
        if own.phase == Phase::Active
            && let Some(at) = self.active.iter().position(is_same)
        {
            self.active.remove(at);
            own.phase = Phase::Waiting;
            self.turns.push_back(session);
        }
        own.asks.insert(ask.text.clone(), ask);
    }

    /// Makes as many sessions active as may be. Returns how many are active.
    pub(in crate::cores) fn activate(&mut self) -> usize {
        while self.active.len() < ACTIVE_MAX
            && let Some(session) = self.turns.pop_front()
        {
            if let Some(own) = self.sessions.get_mut(&session)
                && let Some((_, ask)) = own.asks.pop_first()
            {
                own.phase = Phase::Active;
                self.active.push_back(ask);
            }
        }
        self.active.len()
    }

    /// Takes the active subscription whose turn it is.
    pub(in crate::cores) fn take_next(&mut self) -> Option<Ask> {
        self.active.pop_front()
    }

    /// Puts a subscription back that has more to do.
    pub(in crate::cores) fn put_back(&mut self, ask: Ask) {
        self.active.push_back(ask);
    }

    /// Notes that all is sent for a subscription that was taken. Its session waits for another turn if it has
    /// another subscription.
    pub(in crate::cores) fn note_done(&mut self, session: SessionRef) {
        if let Some(own) = self.sessions.get_mut(&session) {
            if own.asks.is_empty() {
                self.sessions.remove(&session);
            } else {
                own.phase = Phase::Waiting;
                self.turns.push_back(session);
            }
        }
    }

    /// Parks a subscription until an event of its session comes: [`RetainedAsks::wake`]. It holds no page
    /// meanwhile.
    pub(in crate::cores) fn suspend(&mut self, mut ask: Ask) {
        if let Progress::Sending { entries, .. } = &ask.progress
            && let Some(first) = entries.last()
        {
            ask.progress = Progress::ToAsk {
                from: Some(first.place().into()),
            };
        }
        if let Some(own) = self.sessions.get_mut(&ask.session) {
            own.phase = Phase::Parked;
            own.asks.insert(ask.text.clone(), ask);
        }
    }

    /// Lets a parked session go on.
    pub(in crate::cores) fn wake(&mut self, session: SessionRef) {
        if let Some(own) = self.sessions.get_mut(&session)
            && own.phase == Phase::Parked
        {
            own.phase = Phase::Waiting;
            self.turns.push_back(session);
            self.has_work = true;
        }
    }

    /// A session has ended: removes its subscriptions, except an active one.
    pub(in crate::cores) fn end(&mut self, session: SessionRef) {
        if let Some(own) = self.sessions.remove(&session) {
            self.ended.push_back(own.asks);
        }
    }

    /// Frees some subscriptions of sessions that have ended.
    pub(in crate::cores) fn free_some(&mut self) {
        for _ in 0..FREED_PER_TURN_MAX {
            match self.ended.front_mut().map(BTreeMap::pop_first) {
                Some(Some(_)) => {}
                Some(None) => drop(self.ended.pop_front()),
                None => return,
            }
        }
    }

    /// The active subscription with this number.
    pub(in crate::cores) fn get(&mut self, number: u64) -> Option<&mut Ask> {
        self.active.iter_mut().find(|ask| ask.number == number)
    }

    /// A core has stopped and answers no more questions. The subscriptions that have asked it go on with the
    /// next owner.
    pub(in crate::cores) fn note_stopped(&mut self, core: usize) {
        for ask in &mut self.active {
            if matches!(ask.progress, Progress::Asked) && ask.owners.start == core {
                ask.owners.start += 1;
                ask.progress = Progress::ToAsk { from: None };
                self.has_work = true;
            }
        }
    }
}

/// Most subscriptions that are active at a time.
const ACTIVE_MAX: usize = 32;
/// Subscriptions of sessions that have ended which one turn frees, at some 0.2 µs.
const FREED_PER_TURN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionRef {
        SessionRef {
            number,
            serial: u64::from(number) + 1,
        }
    }

    fn ask(of: SessionRef, text: &str) -> Ask {
        Ask {
            number: 0,
            session: of,
            text: text.into(),
            filter: Arc::new(Filter::new(text)),
            options: RetainedOptions {
                qos: 0,
                id: 0,
                except: 0,
            },
            before: Sequence(0),
            owners: 0..1,
            left: 1,
            progress: Progress::ToAsk { from: None },
        }
    }

    fn texts(asks: &mut RetainedAsks) -> Vec<String> {
        asks.activate();
        let active = std::iter::from_fn(|| asks.take_next()).collect::<Vec<_>>();
        let texts = active.iter().map(|ask| ask.text.to_string()).collect();
        active.into_iter().for_each(|ask| asks.put_back(ask));
        texts
    }

    #[test]
    fn the_subscriptions_of_a_session_that_has_ended_are_freed_in_steps() {
        let mut asks = RetainedAsks::default();
        for number in 0..3 * FREED_PER_TURN_MAX {
            asks.add(ask(session(1), &number.to_string()));
        }
        asks.end(session(1));
        let mut steps = 0;
        while asks.can_go_on() {
            let left = asks.ended.front().map_or(0, BTreeMap::len);
            asks.free_some();
            assert!(left - asks.ended.front().map_or(0, BTreeMap::len) <= FREED_PER_TURN_MAX);
            assert_eq!(asks.activate(), 0);
            steps += 1;
        }
        assert!(asks.is_empty() && steps == 4, "{steps}");
    }

    #[test]
    fn sessions_take_turns_however_many_subscriptions_one_has() {
        let mut asks = RetainedAsks::default();
        for number in 0..10_000 {
            asks.add(ask(session(0), &format!("many/{number:05}")));
        }
        asks.add(ask(session(1), "one"));
        assert_eq!(texts(&mut asks), ["many/00000", "one"]);
        // The same filter again: the older subscription is replaced, active or not.
        asks.add(ask(session(0), "many/00000"));
        asks.add(ask(session(0), "many/00007"));
        assert_eq!(texts(&mut asks), ["one", "many/00000"]);
        for _ in 0..2 {
            let done = asks.take_next().unwrap();
            asks.note_done(done.session);
        }
        assert_eq!(texts(&mut asks), ["many/00001"]);
        asks.end(session(0));
        let done = asks.take_next().unwrap();
        asks.note_done(done.session);
        assert!(!asks.is_sending());
        while asks.can_go_on() {
            asks.free_some();
        }
        assert!(asks.is_empty());
    }

    #[test]
    fn one_that_is_parked_leaves_its_place_to_another_until_it_is_woken() {
        let mut asks = RetainedAsks::default();
        let last = u32::try_from(ACTIVE_MAX).unwrap();
        for number in 0..=last {
            asks.add(ask(session(number), "a"));
        }
        assert_eq!(asks.activate(), ACTIVE_MAX);
        assert!(asks.have_waiting());
        for _ in 0..ACTIVE_MAX {
            let blocked = asks.take_next().unwrap();
            asks.suspend(blocked);
        }
        assert_eq!((asks.activate(), asks.have_waiting()), (1, false));
        let done = asks.take_next().unwrap();
        assert_eq!(done.session, session(last));
        asks.note_done(done.session);
        asks.wake(session(last));
        assert!(!asks.is_sending() && !asks.is_empty());
        asks.wake(session(3));
        assert_eq!(asks.activate(), 1);
        assert_eq!(asks.take_next().unwrap().session, session(3));
    }
}
