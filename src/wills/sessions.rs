//! The sessions with keys that a core owns, and the wills that wait there for their delays.
//!
//! The connections of a session may lie on several cores, and their letters to the owner may arrive in any order, but
//! the letters of one connection arrive in the order in which they were sent. The last connection that has *claimed*
//! the key is the session's present generation:
//!
//! - claim by a new generation: the will of the former one is dropped, whether it waits already or is still to come;
//! - end or release by another generation than the present one: without effect.
//!
//! So the late end of an old connection neither publishes a will nor destroys the session of the new one.
//!
//! Wills without a key that have a delay wait here, too, at the core of their connection.

use std::collections::BTreeMap;
use std::mem::size_of;
use std::time::Duration;

use hashbrown::HashMap;

use super::{HeldWill, SessionKey, Will};
use crate::app::SessionId;
use crate::clock::Uptime;

/// The sessions that a core owns.
#[derive(Debug)]
pub struct Sessions {
    by_key: HashMap<SessionKey, Session, foldhash::fast::RandomState>,
    /// The wills that wait, by the time at which each is due.
    waiting: BTreeMap<Due, Waiting>,
    /// The number of the next will that waits.
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Session {
    generation: SessionId,
    /// Where its will waits; `None` while its connection is open.
    waits: Option<Due>,
}

/// The time at which a will is due, and its number among wills with the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(Uptime, u64);

#[derive(Debug)]
struct Waiting {
    will: Will,
    /// The connection that has left it.
    generation: SessionId,
    session: Option<SessionKey>,
}

/// A will that a connection of an earlier process has left.
#[derive(Debug)]
pub struct RestoredWill {
    /// The connection.
    pub generation: SessionId,
    /// The will, and its session.
    pub held: HeldWill,
    /// When it is to be published.
    pub due: Uptime,
}

/// A will that waited when its session came back, and the connection that had left it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Former {
    /// The session has come back in time: the will is dropped.
    Void(SessionId),
    /// The will was due before: the caller publishes it now.
    Due(SessionId, Will),
}

/// The fate of a will whose connection has ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum WillPlan {
    /// It waits until this time.
    Waits(Uptime),
    /// Another generation of the session has made it void.
    Void,
    /// The caller publishes it now.
    Publish(Will),
    /// The caller publishes it now, before its delay has passed: there is no room to keep it.
    PublishEarly(Will),
}

impl Sessions {
    /// No sessions yet, and room for so many bytes of them and of wills that wait.
    pub fn new(bytes_max: usize) -> Sessions {
        Sessions {
            by_key: HashMap::default(),
            waiting: BTreeMap::new(),
            next: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// A connection has begun to use a key, or has used it again, at this time. If a will waited, that drops it, or it
    /// was due before: a core that is late learns of both at once.
    pub fn claim(&mut self, key: SessionKey, generation: SessionId, at: Uptime) -> Option<Former> {
        let bytes = session_bytes(&key);
        let waits = match self.by_key.get_mut(&key) {
            Some(session) => {
                session.generation = generation;
                session.waits.take()
            }
            None => {
                self.bytes += bytes;
                let session = Session {
                    generation,
                    waits: None,
                };
                self.by_key.insert(key, session);
                None
            }
        };
        let due = waits?;
        let Waiting { will, generation, .. } = self.forget(due)?;
        Some(match due.0 <= at {
            true => Former::Due(generation, will),
            false => Former::Void(generation),
        })
    }

    /// A connection no longer uses a key: its client has closed it, or has taken its will back.
    pub fn release(&mut self, key: &SessionKey, generation: SessionId) {
        if self.is_present(key, generation) {
            self.remove(key);
        }
    }

    /// The connection of a generation has ended and has left a will.
    pub fn end(&mut self, key: SessionKey, generation: SessionId, will: Will, now: Uptime) -> WillPlan {
        if !self.is_present(&key, generation) {
            return WillPlan::Void;
        }
        if will.delay == Duration::ZERO {
            self.remove(&key);
            return WillPlan::Publish(will);
        }
        if !self.has_room(&will) {
            self.remove(&key);
            return WillPlan::PublishEarly(will);
        }
        let at = now + will.delay;
        let due = self.wait(will, generation, Some(key.clone()), at);
        if let Some(session) = self.by_key.get_mut(&key) {
            session.waits = Some(due);
        }
        WillPlan::Waits(at)
    }

    /// The will of a connection of an earlier process waits, though it may be more than there is room for.
    pub fn restore(&mut self, restored: RestoredWill) {
        let generation = restored.generation;
        let HeldWill { will, session } = restored.held;
        let due = self.wait(will, generation, session.clone(), restored.due);
        if let Some(key) = session {
            self.bytes += session_bytes(&key);
            let waits = Some(due);
            self.by_key.insert(key, Session { generation, waits });
        }
    }

    /// A connection without a session key has ended and has left a will.
    pub fn end_without_key(&mut self, generation: SessionId, will: Will, now: Uptime) -> WillPlan {
        if will.delay == Duration::ZERO {
            return WillPlan::Publish(will);
        }
        if !self.has_room(&will) {
            return WillPlan::PublishEarly(will);
        }
        let at = now + will.delay;
        self.wait(will, generation, None, at);
        WillPlan::Waits(at)
    }

    /// When the next will is due; [`Uptime::NEVER`] if none waits.
    pub fn next_due(&self) -> Uptime {
        self.waiting
            .first_key_value()
            .map_or(Uptime::NEVER, |(due, _)| due.0)
    }

    /// Takes a will that is due, and the connection that has left it. Its session ends.
    pub fn take_due(&mut self, now: Uptime) -> Option<(SessionId, Will)> {
        let first = self.waiting.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let Waiting {
            will,
            generation,
            session,
        } = first.remove();
        self.bytes -= waiting_bytes(&will);
        if let Some(key) = session {
            self.bytes -= session_bytes(&key);
            self.by_key.remove(&key);
        }
        Some((generation, will))
    }

    /// Whether there are no sessions.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.waiting.is_empty() && self.bytes == 0
    }

    /// How many wills wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    fn is_present(&self, key: &SessionKey, generation: SessionId) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|session| session.generation == generation && session.waits.is_none())
    }

    fn remove(&mut self, key: &SessionKey) {
        if self.by_key.remove(key).is_some() {
            self.bytes -= session_bytes(key);
        }
    }

    fn has_room(&self, will: &Will) -> bool {
        self.bytes + waiting_bytes(will) <= self.bytes_max
    }

    fn wait(&mut self, will: Will, generation: SessionId, session: Option<SessionKey>, at: Uptime) -> Due {
        let due = Due(at, self.next);
        self.next += 1;
        self.bytes += waiting_bytes(&will);
        let waiting = Waiting {
            will,
            generation,
            session,
        };
        self.waiting.insert(due, waiting);
        due
    }

    /// Drops a will that waits; its session stays.
    fn forget(&mut self, due: Due) -> Option<Waiting> {
        let waiting = self.waiting.remove(&due)?;
        self.bytes -= waiting_bytes(&waiting.will);
        Some(waiting)
    }
}

/// Bytes of memory for a session without its will: the key stands in the table, and beside a will that waits.
fn session_bytes(key: &SessionKey) -> usize {
    2 * key.bytes() + size_of::<Session>()
}

fn waiting_bytes(will: &Will) -> usize {
    will.bytes() + size_of::<Due>() + size_of::<Waiting>() - size_of::<Will>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
    use proptest::{collection, sample};

    use super::*;

    fn generation(number: u8) -> SessionId {
        let mut bytes = [0; SessionId::BYTES];
        bytes[0] = number;
        SessionId::new(bytes)
    }

    fn key() -> SessionKey {
        SessionKey::new(Some(b"ann"), b"phone")
    }

    fn will(data: u8, delay_ms: u64) -> Will {
        Will {
            channel: b"c".as_slice().into(),
            data: Some([data].into()),
            delay: Duration::from_millis(delay_ms),
            retain: false,
            claims: None,
        }
    }

    fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    /// A connection of a session without a waiting will.
    fn claim(sessions: &mut Sessions, name: u8) {
        assert_eq!(sessions.claim(key(), generation(name), at(0)), None);
    }

    fn assert_is_empty(sessions: &Sessions) {
        assert!(sessions.is_empty(), "{sessions:?}");
    }

    #[test]
    fn a_will_waits_for_its_delay_and_no_longer() {
        let mut sessions = Sessions::new(10_000);
        assert_eq!(sessions.claim(key(), generation(1), at(0)), None);
        assert_eq!(
            sessions.end(key(), generation(1), will(1, 50), at(100)),
            WillPlan::Waits(at(150))
        );
        assert_eq!(sessions.next_due(), at(150));
        assert_eq!(sessions.take_due(at(149)), None);
        assert_eq!(sessions.take_due(at(150)), Some((generation(1), will(1, 50))));
        assert_is_empty(&sessions);
    }

    #[test]
    fn a_session_that_comes_back_has_no_will_of_its_former_connection_whichever_letter_comes_first() {
        let mut sessions = Sessions::new(10_000);
        claim(&mut sessions, 1);
        assert_eq!(
            sessions.end(key(), generation(1), will(1, 50), at(100)),
            WillPlan::Waits(at(150))
        );
        assert_eq!(
            sessions.claim(key(), generation(2), at(149)),
            Some(Former::Void(generation(1))),
            "the will that waited is dropped"
        );
        assert_eq!(sessions.next_due(), Uptime::NEVER);

        claim(&mut sessions, 3);
        assert_eq!(
            sessions.end(key(), generation(2), will(2, 0), at(200)),
            WillPlan::Void
        );
        sessions.release(&key(), generation(2));
        assert_eq!(
            sessions.end(key(), generation(3), will(3, 0), at(300)),
            WillPlan::Publish(will(3, 0)),
            "the late end of the second destroyed the third"
        );
        assert_is_empty(&sessions);
    }

    /// The core is late: it has not looked for due wills since, and learns now that the session has come back.
    #[test]
    fn a_will_was_due_if_its_session_has_come_back_after_its_delay() {
        for (back_at, is_due) in [(149, false), (150, true)] {
            let mut sessions = Sessions::new(10_000);
            claim(&mut sessions, 1);
            assert_eq!(
                sessions.end(key(), generation(1), will(1, 50), at(100)),
                WillPlan::Waits(at(150))
            );
            let former = match is_due {
                true => Former::Due(generation(1), will(1, 50)),
                false => Former::Void(generation(1)),
            };
            assert_eq!(sessions.claim(key(), generation(2), at(back_at)), Some(former));
            sessions.release(&key(), generation(2));
            assert_is_empty(&sessions);
        }
    }

    #[test]
    fn a_will_of_an_earlier_process_waits_until_its_session_comes_back() {
        let mut sessions = Sessions::new(0);
        for (name, session) in [(1, Some(key())), (2, None)] {
            let held = HeldWill {
                will: will(name, 50),
                session,
            };
            sessions.restore(RestoredWill {
                generation: generation(name),
                held,
                due: at(70),
            });
        }
        assert_eq!(
            sessions.claim(key(), generation(3), at(69)),
            Some(Former::Void(generation(1)))
        );
        assert_eq!(sessions.take_due(at(69)), None);
        assert_eq!(sessions.take_due(at(70)), Some((generation(2), will(2, 50))));
        sessions.release(&key(), generation(3));
        assert_is_empty(&sessions);
    }

    #[test]
    fn a_will_for_which_there_is_no_room_is_published_early_rather_than_lost() {
        let mut sessions = Sessions::new(0);
        claim(&mut sessions, 1);
        assert_eq!(
            sessions.end(key(), generation(1), will(1, 50), at(0)),
            WillPlan::PublishEarly(will(1, 50))
        );
        assert_eq!(
            sessions.end_without_key(generation(2), will(2, 50), at(0)),
            WillPlan::PublishEarly(will(2, 50))
        );
        assert_is_empty(&sessions);
    }

    /// The last action of a connection of the session.
    #[derive(Clone, Copy, Debug)]
    enum Last {
        End { delay_ms: u64 },
        Release,
    }

    /// One letter of a connection to the owner, or time that passes.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Letter(u8),
        Time(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..3_u8, any::<u8>(), 0..80_u64).prop_map(|(kind, connection, ms)| match kind {
            0 => Step::Time(ms),
            _ => Step::Letter(connection),
        });
        collection::vec(step, 0..60)
    }

    fn connections() -> impl Strategy<Value = Vec<(u8, Last)>> {
        let last = (sample::select(&[0, 40, 100][..]), any::<bool>()).prop_map(|(delay_ms, ends)| {
            if ends {
                Last::End { delay_ms }
            } else {
                Last::Release
            }
        });
        collection::vec((1..3_u8, last), 1..6)
    }

    proptest! {
        /// Each connection claims the key once or several times, then ends or releases it. Its letters keep their
        /// order, and calls of different connections mix in any way. A naive model knows the whole history.
        #[test]
        fn a_will_is_published_exactly_if_its_connection_was_the_last_to_claim(
            connections in connections(), steps in steps(),
        ) {
            let mut sessions = Sessions::new(1_000_000);
            let mut sent = vec![0_u8; connections.len()];
            let mut last_claim = None;
            let mut expected: Vec<(u64, u8)> = Vec::new();
            let mut published: Vec<(u64, u8)> = Vec::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Time(ms) => {
                        for _ in 0..ms {
                            now += 1;
                            while let Some((_, will)) = sessions.take_due(at(now)) {
                                published.push((now, will.data.unwrap()[0]));
                            }
                        }
                    }
                    Step::Letter(connection) => {
                        let index = usize::from(connection) % connections.len();
                        let (claims, last) = connections[index];
                        let name = u8::try_from(index).unwrap();
                        sent[index] += 1;
                        if sent[index] <= claims {
                            // The naive model looks for due wills at each moment: none is due here.
                            let former = sessions.claim(key(), generation(name), at(now));
                            prop_assert!(!matches!(former, Some(Former::Due(..))));
                            last_claim = Some(name);
                            expected.retain(|&(due, _)| due <= now);
                        } else if sent[index] == claims + 1 {
                            match last {
                                Last::Release => sessions.release(&key(), generation(name)),
                                Last::End { delay_ms } => {
                                    if last_claim == Some(name) {
                                        expected.push((now + delay_ms, name));
                                    }
                                    match sessions.end(key(), generation(name), will(name, delay_ms), at(now)) {
                                        WillPlan::Waits(_) | WillPlan::Void => {}
                                        WillPlan::Publish(will) => published.push((now, will.data.unwrap()[0])),
                                        WillPlan::PublishEarly(_) => prop_assert!(false, "there is room"),
                                    }
                                }
                            }
                            if last_claim == Some(name) {
                                last_claim = None;
                            }
                        }
                    }
                }
            }
            while let Some((_, will)) = sessions.take_due(Uptime::NEVER) {
                let due = expected.iter().map(|&(due, _)| due).max().unwrap_or(0);
                published.push((due, will.data.unwrap()[0]));
            }
            prop_assert_eq!(published, expected);
            prop_assert_eq!(sessions.waiting_len(), 0);
        }
    }
}
