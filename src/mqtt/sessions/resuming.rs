//! A client has come back to its session, and what the session has is checked before anything is sent to the client: the
//! filters, whether the rules still allow them, and what waits, if they do not.
//!
//! A session may have ten thousand filters. The caller goes through some of them in each turn. Meanwhile the session keeps
//! what is published, as if the client had not come yet: it has no CONNACK.

use super::state::Phase;
use super::{SessionRef, Sessions};

impl Sessions {
    /// Nothing is sent to the client that has come back to its session, until [`Sessions::accept`].
    pub fn begin_check(&mut self, session: SessionRef) {
        if let Some(state) = self.state_mut(session)
            && let Phase::Connected { address } = state.phase
        {
            let is_new = false;
            state.phase = Phase::Connecting { address, is_new };
        }
    }

    /// Drops those of some publications that wait for a session whose topics are not to be kept: looks at most at `max`,
    /// behind the first `skipped` of those that wait. Returns how many are behind which the caller goes on; `None` if these
    /// were all.
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
