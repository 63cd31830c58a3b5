//! A client has resumed its session. Before anything is sent to it, the session is checked: whether the rules
//! still allow its filters and, if not, its waiting publications.
//!
//! A session may have ten thousand filters. The caller goes through some of them in each turn. Meanwhile the
//! session queues publications as if the client were still away: it has no CONNACK yet.

use super::state::Phase;
use super::{SessionRef, Sessions};

impl Sessions {
    /// Sends nothing to the client that has resumed its session, until [`Sessions::accept`].
    pub fn begin_check(&mut self, session: SessionRef) {
        if let Some(state) = self.state_mut(session)
            && let Phase::Connected { address } = state.phase
        {
            let is_new = false;
            state.phase = Phase::Connecting { address, is_new };
        }
    }

    /// Looks at no more than `max` publications that wait for a session, behind the first `skipped`, and
    /// drops those whose topics are not to be kept. Returns how many the caller must skip to go on; `None` if
    /// these were all.
    pub fn retain_some_waiting(
        &mut self,
        session: SessionRef,
        skipped: usize,
        max: usize,
        is_kept: impl FnMut(&[u8]) -> bool,
    ) -> Option<usize> {
        let state = self
            .states
            .get_mut(session.number as usize)
            .filter(|state| state.serial == session.serial)?;
        let outgoing = &mut state.traffic.as_deref_mut()?.outgoing;
        let before = outgoing.waiting();
        let next = outgoing.retain_some_waiting(skipped, max, is_kept, &mut self.kept);
        let dropped = before - outgoing.waiting();
        self.counts.dropped_forbidden += dropped as u64;
        if dropped > 0 {
            self.note(session.number, |pending| pending.outgoing = true);
        }
        next
    }
}
