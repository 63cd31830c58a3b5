//! Compares the publications that one subscription has received with the log of all publications.
//!
//! A subscription without a position gets exactly the publications between its beginning and its end. From
//! outside, its beginning is known to lie between the request and the moment at which the answer was read,
//! and its end likewise. In between, no publication may be missing, come twice or be out of order. On a
//! channel with a last value, the newest earlier publication may come first, marked as replayed: the newest
//! of those that were published to be remembered, since cores follow a new policy of the channel at different
//! moments. Where nothing is remembered, a client that asks for the newest publication may get the retained
//! one.
//!
//! A subscription that has recovered a part of the past knows its beginning: the answer names the position
//! from which it is live. First come as many replayed publications as the answer says, then each publication
//! behind the position.

use std::ops::Range;

use super::log::{Entry, Log};
use crate::config::SlowConsumer;

/// One subscription of one client.
#[derive(Clone, Debug)]
pub(super) struct Following {
    channel: usize,
    /// The end of the ring when the last byte of the request was written: no earlier publication may come.
    asked: u64,
    /// The end of the ring when the answer was read: all publications from there on must come.
    answered: u64,
    /// The place in the channel's log behind the last that has come.
    next: Option<usize>,
    replay: Replay,
    /// The server has ended it; nothing comes any more.
    has_ended: bool,
}

/// The publications from before the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// None will come: the subscription is live.
    Over,
    /// The last value may come first.
    LastValue,
    /// The retained publication may come first, or a last value. It need not be the newest: of the
    /// publications of MQTT clients only those with RETAIN count, and it outlives a policy with a last value.
    Retained,
    /// This many will come, without a gap between them.
    Exact(usize),
    /// This many will come. Publications between them may be missing, since the server has not remembered the
    /// channel all the time.
    Some(usize),
    /// They have come. Further publications are live, or were published while the others came, and are
    /// replayed too.
    Late,
}

/// The content of an answer to a client that has asked for a part of the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    /// The position from which the subscription is live.
    pub(super) up_to: u64,
    /// How many publications will be replayed.
    pub(super) publications: usize,
}

impl Following {
    /// `has_memory`: the server may remember the channel.
    pub(super) fn new(channel: usize, asked: u64, answered: u64, has_memory: bool) -> Following {
        Following {
            channel,
            asked,
            answered,
            next: None,
            replay: if has_memory {
                Replay::LastValue
            } else {
                Replay::Over
            },
            has_ended: false,
        }
    }

    /// The same for a client that has asked for the newest publication: if nothing is remembered, it gets the
    /// retained one.
    pub(super) fn with_retained(mut self) -> Following {
        self.replay = Replay::Retained;
        self
    }

    /// A subscription that gets everything after the position `after`.
    ///
    /// # Errors
    /// The answer counts more or fewer publications than there were.
    pub(super) fn recovered(
        channel: usize,
        after: u64,
        told: Recovered,
        log: &Log,
    ) -> Result<Following, String> {
        let missed = log.places(channel, after + 1..told.up_to + 1);
        if missed.len() != told.publications {
            return Err(format!(
                "{} publications of c{channel} are behind {after}, and {told:?} was the answer",
                missed.len()
            ));
        }
        Ok(Following {
            next: Some(missed.start),
            ..Following::live_from(channel, told, log, Replay::Exact(told.publications))
        })
    }

    /// A subscription that gets the newest earlier publications. `is_steady`: the server has remembered all
    /// of them.
    ///
    /// # Errors
    /// The answer counts more publications than there were.
    pub(super) fn with_newest(
        channel: usize,
        told: Recovered,
        is_steady: bool,
        log: &Log,
    ) -> Result<Following, String> {
        let end = log.places(channel, 0..told.up_to + 1).end;
        let Some(first) = end.checked_sub(told.publications) else {
            return Err(format!(
                "{end} publications of c{channel} are there, not {told:?}"
            ));
        };
        let replay = if is_steady {
            Replay::Exact(told.publications)
        } else {
            Replay::Some(told.publications)
        };
        let live = Following::live_from(channel, told, log, replay);
        Ok(Following {
            next: live.next.or_else(|| is_steady.then_some(first)),
            ..live
        })
    }

    /// A subscription that the server has ended before it began.
    pub(super) fn ended(channel: usize) -> Following {
        Following {
            has_ended: true,
            ..Following::new(channel, 0, u64::MAX, false)
        }
    }

    fn live_from(channel: usize, told: Recovered, log: &Log, replay: Replay) -> Following {
        let answered = told.up_to + 1;
        let mut following = Following {
            next: None,
            replay,
            ..Following::new(channel, answered, answered, false)
        };
        if told.publications == 0 {
            following.end_replay(log);
        }
        following
    }

    fn end_replay(&mut self, log: &Log) {
        self.replay = Replay::Late;
        self.next = Some(self.first_certain(log));
    }

    /// The first place in the channel's log of which a publication may come.
    pub(super) fn first_possible(&self, log: &Log) -> usize {
        let asked = log.places(self.channel, self.asked..u64::MAX).start;
        self.next.unwrap_or(asked)
    }

    /// Whether everything that is published now comes at once, and not behind a replay.
    pub(super) fn is_live(&self) -> bool {
        self.replay == Replay::Over && !self.has_ended
    }

    /// Whether the client has asked for no part of the past: then the last value comes first, if there is one.
    pub(super) fn wants_last_value(&self) -> bool {
        self.replay == Replay::LastValue
    }

    /// Takes a publication; returns how many are certainly missing before it. `policy` says what happens to
    /// publications for a client that does not read, and `of_channel` what happens to those of this channel.
    ///
    /// # Errors
    /// It must not come here, or not yet.
    pub(super) fn take(
        &mut self,
        number: usize,
        is_replayed: bool,
        log: &Log,
        policy: SlowConsumer,
        of_channel: SlowConsumer,
    ) -> Result<usize, String> {
        let (place, entry) = log.entry(number).ok_or("what never was in the ring")?;
        let error = |what: String| {
            Err(format!(
                "publication {number} at {}: {what}: {self:?}",
                entry.sequence
            ))
        };
        if self.has_ended {
            return error("the subscription has ended".to_owned());
        }
        let was = self.replay;
        match (was, is_replayed) {
            (Replay::Exact(left) | Replay::Some(left), true) => {
                let expected = self.next.unwrap_or(0);
                let is_exact = matches!(self.replay, Replay::Exact(_));
                if place < expected || (is_exact && place > expected) || entry.sequence >= self.answered {
                    return error(format!(
                        "expected the replay of the publication in place {expected}"
                    ));
                }
                (self.next, self.replay) = match self.replay {
                    Replay::Exact(_) => (Some(place + 1), Replay::Exact(left - 1)),
                    _ => (Some(place + 1), Replay::Some(left - 1)),
                };
                if left == 1 {
                    self.end_replay(log);
                }
                return Ok(0);
            }
            (Replay::Exact(_) | Replay::Some(_), false) => return error("live before the replay".to_owned()),
            (Replay::LastValue, true) if self.next.is_none() => {
                self.next = Some(place + 1);
                self.replay = Replay::Late;
                return Ok(0);
            }
            (Replay::Retained, true) if self.next.is_none() => {
                let newest = log.newest_retained(self.channel, self.asked);
                if newest.is_some_and(|(sequence, _)| sequence > entry.sequence) {
                    return error(format!("{newest:?} is retained"));
                }
                self.replay = Replay::Late;
                return Ok(0);
            }
            // The client did not read, and gets the publications that it has missed from the history.
            (Replay::Over, true) if policy != SlowConsumer::Close => self.replay = Replay::Late,
            (Replay::Over | Replay::LastValue | Replay::Retained, true) => {
                return error("must not be a replay".to_owned());
            }
            (Replay::Late, true) | (Replay::Over, false) => {}
            (Replay::Late | Replay::LastValue | Replay::Retained, false) => self.replay = Replay::Over,
        }
        if entry.sequence < self.asked {
            return Err(format!(
                "publication {number} at {} from before the subscription was asked for, at {}",
                entry.sequence, self.asked
            ));
        }
        let expected = self.next.unwrap_or_else(|| self.first_certain(log).min(place));
        if place < expected {
            return Err(format!("publication {number} comes twice, or after a later one"));
        }
        let missing = self.certain(expected..place, was, log).count();
        // Without a history, some may have been skipped before.
        let comes_to_it = is_replayed && was == Replay::Over;
        if missing > 0 && (of_channel == SlowConsumer::Close || (is_replayed && !comes_to_it)) {
            return Err(format!("{missing} missing before publication {number}"));
        }
        self.next = Some(place + 1);
        Ok(missing)
    }

    /// Everything that was published before `end` should have come by now.
    ///
    /// # Errors
    /// A publication has not.
    pub(super) fn expect_until(&self, end: u64, log: &Log, policy: SlowConsumer) -> Result<(), String> {
        if let Replay::Exact(left) | Replay::Some(left) = self.replay {
            return Err(format!("{left} replayed publications did not come: {self:?}"));
        }
        let next = self.next.unwrap_or_else(|| self.first_certain(log));
        let end = log.places(self.channel, self.asked..end).end;
        if next >= end {
            return Ok(());
        }
        match policy {
            // The number of missing publications is counted, not their places.
            SlowConsumer::Skip => Ok(()),
            // Of the waiting publications the newest comes, whatever the fate of the others.
            SlowConsumer::Close | SlowConsumer::Conflate => {
                let missing = self.certain(next..end, self.replay, log);
                let numbers: Vec<usize> = missing.map(|entry| entry.number).collect();
                match numbers.is_empty() {
                    true => Ok(()),
                    false => Err(format!("c{}: {numbers:?} did not come: {self:?}", self.channel)),
                }
            }
        }
    }

    /// The newest publication should have come by now, whenever it was published.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn expect_newest(&self, log: &Log) -> Result<(), String> {
        let count = log.of_channel(self.channel).len();
        if count > 0 && self.next.is_none() {
            return Err(format!(
                "c{}: none of {count} publications came: {self:?}",
                self.channel
            ));
        }
        Ok(())
    }

    /// Of these publications, those that must come. Between a last value and the first live publication there
    /// may be some that were not published to be remembered.
    fn certain<'a>(
        &self,
        places: Range<usize>,
        replay: Replay,
        log: &'a Log,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let (answered, is_behind_replay) = (self.answered, replay == Replay::Late);
        let entries = log.of_channel(self.channel)[places].iter();
        entries.filter(move |entry| !is_behind_replay || entry.remembered || entry.sequence >= answered)
    }

    fn first_certain(&self, log: &Log) -> usize {
        log.places(self.channel, self.answered..u64::MAX).start
    }
}
