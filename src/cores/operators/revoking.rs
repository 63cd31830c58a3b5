//! Closes the connections whose tokens have been revoked.
//!
//! The core checks every session once, some in each turn, so that a revocation does not delay other work. New
//! connections need no check: the policy that the core got before the revocation refuses their revoked tokens.

use crate::app::App;
use crate::auth::Revocation;
use crate::decision::{CloseReason, Decisions};

use crate::cores::core::Core;

impl<A: App> Core<A> {
    /// Continues the revocations that are under way, as far as a turn may.
    pub(in crate::cores) fn revoke_some(&mut self) {
        let mut effort = EFFORT_PER_TURN_MAX;
        while let Some(mut revoking) = self.operations.take_revoking() {
            while effort > 0 && revoking.next < self.connections.places() {
                effort = effort.saturating_sub(if self.revoke_at(revoking.next, &revoking.revocation) {
                    revoking.ended += 1;
                    EFFORT_OF_AN_END
                } else {
                    1
                });
                revoking.next += 1;
            }
            if revoking.next < self.connections.places() {
                self.operations.go_on_revoking(revoking);
                return;
            }
            revoking.done.tell(revoking.ended);
        }
    }

    /// Closes the connection at this place, if its token is revoked. Returns whether it was closed.
    fn revoke_at(&mut self, index: u32, revocation: &Revocation) -> bool {
        let Some(id) = self.connections.id_at(index) else {
            return false;
        };
        let mut decisions = Decisions::new();
        if !self
            .session(id)
            .is_some_and(|session| session.revoke(revocation, &mut decisions))
        {
            return false;
        }
        self.connections.send_texts(id, decisions.texts_from(0));
        self.close_saying(id, CloseReason::Revoked, "revoked");
        true
    }
}

/// The sessions that one turn checks for revocations. A check takes about 1 µs.
const EFFORT_PER_TURN_MAX: u32 = 2048;
/// The cost of closing a connection, in checks.
const EFFORT_OF_AN_END: u32 = 32;
