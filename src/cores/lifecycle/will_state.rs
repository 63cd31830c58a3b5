//! The wills that a core has: those of its open connections, and those that wait here because their connections have
//! ended.
//!
//! The steps are in `wills.rs` and `input/wills.rs`. They change wills only by the methods of this part, which also set
//! the metrics of both numbers.
//!
//! Limit: `wills_bytes_max`, once for each of the two.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Uptime;
use crate::metrics::block::CoreMetrics;
use crate::session::SessionId;
use crate::wills::{Former, HeldWill, HeldWills, NoRoom, RestoredWill, SessionKey, Sessions, Will, WillPlan};

use crate::cores::post::letter::WillLetter;

/// The wills of one core.
#[derive(Debug)]
pub(in crate::cores) struct WillState {
    /// The wills of the core's open connections.
    held: HeldWills,
    /// The sessions with wills whose keys the core owns, and the wills that wait here.
    sessions: Sessions,
    /// Letters about wills, each to the owner of its session's key. They wait until the store has committed this core's
    /// earlier records.
    letters: VecDeque<Box<WillLetter>>,
    metrics: Arc<CoreMetrics>,
}

impl WillState {
    /// With the wills that a former process has left to this core.
    pub(in crate::cores) fn new(
        bytes_max: usize,
        restored: Vec<RestoredWill>,
        metrics: Arc<CoreMetrics>,
    ) -> WillState {
        let mut sessions = Sessions::new(bytes_max);
        restored.into_iter().for_each(|will| sessions.restore(will));
        let wills = WillState {
            held: HeldWills::new(bytes_max),
            sessions,
            letters: VecDeque::new(),
            metrics,
        };
        wills.count_waiting();
        wills
    }

    /// Whether no open connection has a will.
    #[inline]
    pub(in crate::cores) fn none_is_held(&self) -> bool {
        self.held.is_empty()
    }

    /// The open connections that have wills, by their indices.
    pub(in crate::cores) fn connections(&self) -> Vec<u32> {
        self.held.connections()
    }

    /// The will of an open connection.
    pub(in crate::cores) fn get(&self, connection: u32) -> Option<&HeldWill> {
        self.held.get(connection)
    }

    /// Whether there is room for a connection's will in place of the one that it has.
    pub(in crate::cores) fn has_room(&self, connection: u32, held: &HeldWill) -> bool {
        self.held.has_room(connection, held)
    }

    /// Gives a connection a will in place of the one that it has.
    ///
    /// # Errors
    /// There is no room; it keeps the one that it has.
    pub(in crate::cores) fn set(&mut self, connection: u32, held: HeldWill) -> Result<(), NoRoom> {
        let outcome = self.held.set(connection, held);
        self.count_held();
        outcome
    }

    /// The will of a connection has other claims now: JSON.
    pub(in crate::cores) fn renew(&mut self, connection: u32, claims: &str) {
        self.held.renew(connection, claims);
    }

    /// Takes the will of a connection.
    pub(in crate::cores) fn take(&mut self, connection: u32) -> Option<HeldWill> {
        let held = self.held.take(connection);
        self.count_held();
        held
    }

    /// A connection begins to use a session key that this core owns. Returns what becomes of the former one's will.
    pub(in crate::cores) fn claim(
        &mut self,
        key: SessionKey,
        generation: SessionId,
        at: Uptime,
    ) -> Option<Former> {
        let former = self.sessions.claim(key, generation, at);
        self.count_waiting();
        former
    }

    /// A connection no longer uses a session key that this core owns.
    pub(in crate::cores) fn release(&mut self, key: &SessionKey, generation: SessionId) {
        self.sessions.release(key, generation);
        self.count_waiting();
    }

    /// A connection that used a session key of this core has ended and leaves a will. Returns what becomes of it.
    pub(in crate::cores) fn end(
        &mut self,
        key: SessionKey,
        generation: SessionId,
        will: Will,
        now: Uptime,
    ) -> WillPlan {
        let plan = self.sessions.end(key, generation, will, now);
        self.count_waiting();
        plan
    }

    /// A connection of this core without a session key has ended and leaves a will. Returns what becomes of it.
    pub(in crate::cores) fn end_without_key(
        &mut self,
        generation: SessionId,
        will: Will,
        now: Uptime,
    ) -> WillPlan {
        let plan = self.sessions.end_without_key(generation, will, now);
        self.count_waiting();
        plan
    }

    /// When the next waiting will is to be published.
    #[inline]
    pub(in crate::cores) fn next_due(&self) -> Uptime {
        self.sessions.next_due()
    }

    /// Takes a will that is to be published by now.
    pub(in crate::cores) fn take_due(&mut self, now: Uptime) -> Option<(SessionId, Will)> {
        let due = self.sessions.take_due(now);
        self.count_waiting();
        due
    }

    /// Keeps a letter until this core's earlier records are on their way.
    pub(in crate::cores) fn keep_letter(&mut self, letter: Box<WillLetter>) {
        self.letters.push_back(letter);
    }

    /// Takes the letter that was kept first.
    pub(in crate::cores) fn take_letter(&mut self) -> Option<Box<WillLetter>> {
        self.letters.pop_front()
    }

    /// Whether no will is held or waits, and no session is known.
    #[cfg(test)]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.sessions.is_empty()
    }

    fn count_held(&self) {
        self.metrics.wills.set(self.held.len() as u64);
    }

    fn count_waiting(&self) {
        self.metrics.wills_waiting.set(self.sessions.waiting_len() as u64);
    }
}
