//! What this core tells the other nodes of a cluster, through the bridge (`cluster`): which channels and filters it has
//! subscribers of. A part of the core that exists only with `cluster_url`.
//!
//! The core collects changes in a turn and hands them over at its end. If the bridge has not taken earlier ones, they wait
//! here: a channel that is occupied and vacated again meanwhile leaves nothing, so that what waits is bounded by what the
//! core has subscribers of, and has had when the bridge fell behind.
//!
//! The bridge has no poll, and cores have descriptor tables of their own: it is woken by [`ClusterWaker`], which needs no
//! descriptor.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// The core's end of the bridge.
#[derive(Clone, Debug)]
pub(crate) struct ClusterEnd {
    changes: Sender<Vec<InterestChange>>,
    waker: Arc<ClusterWaker>,
}

/// Wakes the thread of the bridge that reads the ring.
#[derive(Debug, Default)]
pub(crate) struct ClusterWaker(OnceLock<Thread>);

/// A channel or a filter has got its first subscriber of one kind on one core, or has lost its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterestChange {
    pub(crate) subject: Subject,
    pub(crate) is_wanted: bool,
}

/// What a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// The publications on one channel.
    Channel(Box<[u8]>),
    /// The publications on all channels that an MQTT filter with wildcards matches.
    Filter(Box<[u8]>),
}

/// Who wants it: each is told by itself, and the bridge counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cores) enum Wanting {
    /// SocketCluster clients.
    SocketCluster,
    /// MQTT sessions.
    Mqtt,
    /// A subscriber of the program.
    Follower(u64),
}

/// What this core has still to tell the bridge.
#[derive(Debug)]
pub(in crate::cores) struct ClusterInterest {
    end: ClusterEnd,
    untold: HashMap<(Subject, Wanting), bool>,
    /// A list for which there was no room.
    refused: Option<Vec<InterestChange>>,
}

/// Ends for so many cores, and where the changes arrive.
pub(crate) fn cluster_ends(
    cores: usize,
) -> (Vec<ClusterEnd>, Receiver<Vec<InterestChange>>, Arc<ClusterWaker>) {
    let (changes, receiver) = bounded(LISTS_WAITING_MAX);
    let waker = Arc::new(ClusterWaker::default());
    let end = ClusterEnd {
        changes,
        waker: Arc::clone(&waker),
    };
    (vec![end; cores], receiver, waker)
}

impl ClusterWaker {
    /// The thread to be woken is this one.
    pub(crate) fn is_for(&self, thread: Thread) {
        // There is one caller.
        let _ = self.0.set(thread);
    }

    /// Wakes the thread, if it has begun.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl ClusterInterest {
    pub(in crate::cores) fn new(end: ClusterEnd) -> ClusterInterest {
        ClusterInterest {
            end,
            untold: HashMap::new(),
            refused: None,
        }
    }

    /// Wakes the bridge: there is a publication for it.
    pub(in crate::cores) fn wake(&self) {
        self.end.waker.wake();
    }

    /// Notes a change. Two opposite ones leave nothing.
    pub(in crate::cores) fn note(&mut self, subject: Subject, by: Wanting, is_wanted: bool) {
        let key = (subject, by);
        if self.untold.remove(&key).is_none() {
            self.untold.insert(key, is_wanted);
        }
    }

    /// Tells the bridge of the changes, as far as there is room.
    pub(in crate::cores) fn tell(&mut self) {
        if !self.has_untold() {
            return;
        }
        let mut is_told = false;
        loop {
            let list = match self.refused.take() {
                Some(list) => list,
                None if self.untold.is_empty() => break,
                None => self.take_some(),
            };
            match self.end.changes.try_send(list) {
                Ok(()) => is_told = true,
                Err(TrySendError::Full(list)) => {
                    self.refused = Some(list);
                    break;
                }
                // The bridge has ended, and with it the server.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        if is_told {
            self.end.waker.wake();
        }
    }

    /// Whether something waits for room.
    pub(in crate::cores) fn has_untold(&self) -> bool {
        self.refused.is_some() || !self.untold.is_empty()
    }

    fn take_some(&mut self) -> Vec<InterestChange> {
        if self.untold.len() <= CHANGES_PER_LIST_MAX {
            let all = std::mem::take(&mut self.untold);
            return all.into_iter().map(change).collect();
        }
        let keys: Vec<_> = self.untold.keys().take(CHANGES_PER_LIST_MAX).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| self.untold.remove_entry(&key));
        taken.map(change).collect()
    }
}

fn change(((subject, _), is_wanted): ((Subject, Wanting), bool)) -> InterestChange {
    InterestChange { subject, is_wanted }
}

/// Lists of changes that the bridge has not taken, from all cores.
const LISTS_WAITING_MAX: usize = 256;
/// Changes of one list.
const CHANGES_PER_LIST_MAX: usize = 1024;
/// How soon changes are told again for which there was no room.
pub(in crate::cores) const RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn channel(number: u64) -> Subject {
        Subject::Channel(number.to_string().into_bytes().into())
    }

    /// Whatever happens while the bridge takes nothing: what it is told in the end leads to the same state.
    #[test]
    fn changes_are_never_lost_and_no_more_wait_than_there_are_channels() {
        let (mut ends, told, _) = cluster_ends(1);
        let mut interest = ClusterInterest::new(ends.remove(0));
        let (mut truth, mut known) = (HashSet::new(), HashMap::<Subject, i32>::new());
        let mut random = 1_u64;
        let take = |known: &mut HashMap<Subject, i32>| {
            for change in told.try_iter().flatten() {
                *known.entry(change.subject).or_default() += if change.is_wanted { 1 } else { -1 };
            }
        };
        for step in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % 3000;
            let by = [Wanting::SocketCluster, Wanting::Mqtt][(random >> 60) as usize % 2];
            let is_wanted = truth.insert((number, by));
            if !is_wanted {
                truth.remove(&(number, by));
            }
            interest.note(channel(number), by, is_wanted);
            if step % 10 == 0 {
                interest.tell();
            }
            assert!(interest.untold.len() <= 6000);
            if step % 60_000 == 59_999 {
                assert!(interest.has_untold(), "the bridge had fallen behind");
                take(&mut known);
            }
        }
        while interest.has_untold() {
            interest.tell();
            take(&mut known);
        }
        take(&mut known);
        for number in 0..3000 {
            let by = [Wanting::SocketCluster, Wanting::Mqtt];
            let expected = by.iter().filter(|by| truth.contains(&(number, **by))).count();
            let is = known.get(&channel(number)).copied().unwrap_or(0);
            assert_eq!(is, i32::try_from(expected).unwrap());
        }
    }
}
