//! The invariants between the tables of sessions. The simulation checks them.

use std::collections::{BTreeMap, HashMap};

use super::{Phase, Sessions};
use crate::clock::Uptime;
use crate::mqtt::shares::{GroupRef, Tag};

impl Sessions {
    /// The first broken invariant, between two turns that leave no work.
    pub(crate) fn broken_invariant(&self) -> Option<String> {
        let mut holders: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut wills_bytes, mut connected, mut lasting, mut deadlines) = (0, 0, 0, 0);
        for (number, state) in self.states.iter() {
            if state.phase == Phase::Ended {
                return Some(format!("session {number} has ended and has something: {state:?}"));
            }
            lasting += 1;
            wills_bytes += state.will_bytes();
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            match state.phase {
                Phase::Connected { .. } | Phase::Connecting { .. } => connected += 1,
                Phase::Waiting { .. } | Phase::Ended => {
                    let deadline = state.deadline();
                    let is_listed = self.deadlines.contains(&(deadline, number));
                    if is_listed == (deadline == Uptime::NEVER) {
                        return Some(format!(
                            "session {number} is not in `deadlines` as it is: {state:?}"
                        ));
                    }
                    deadlines += usize::from(is_listed);
                }
            }
            if self.find(&state.client_id) != Some(number) {
                return Some(format!("session {number} is not found by its client id"));
            }
            if let Some(traffic) = &state.traffic
                && let Some(broken) = traffic.outgoing.broken_invariant(&self.kept, &mut holders)
            {
                return Some(format!("session {number}: {broken}"));
            }
        }
        for (what, counted, real) in [
            ("sessions", self.by_client_id.len(), lasting),
            ("deadlines", self.deadlines.len(), deadlines),
            ("connected", self.connected, connected),
            ("bytes of wills", self.wills_bytes, wills_bytes),
        ] {
            if counted != real {
                return Some(format!("{counted} {what} are counted, there are {real}"));
            }
        }
        self.kept.broken_invariant(&holders)
    }

    /// The publications of groups that sessions of this core have, by the owner of the group, the group, and the serial
    /// number of the session: as many as the group counts.
    pub(crate) fn tags(&self) -> HashMap<(usize, GroupRef, u64), u32> {
        let mut tags = HashMap::new();
        for Tag {
            owner,
            group,
            session,
            ..
        } in self.kept.tags()
        {
            *tags.entry((*owner, *group, session.serial)).or_default() += 1;
        }
        tags
    }
}
