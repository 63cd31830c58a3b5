//! The timers that the application has set for clients (`app/timers.rs`), in the wheel: the visit of a
//! connection comes no later than its first timer.

use mio::Token;

use crate::app::{App, Timers};
use crate::clock::Uptime;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Connection, ConnectionId, Phase};

/// When the first timer of a connection is due. Timers wait until the client has completed its handshake.
#[inline]
pub(in crate::cores) fn next_timer(connection: &Connection, timers: &Timers) -> Uptime {
    match &connection.phase {
        Phase::Open(open) if !timers.is_empty() && open.session.is_open() => {
            timers.next_of(connection.id.token().0)
        }
        Phase::Open(_)
        | Phase::ProxyHeader { .. }
        | Phase::Request { .. }
        | Phase::LoggingIn { .. }
        | Phase::Closing { .. }
        | Phase::Finishing { .. }
        | Phase::Emptying { .. } => Uptime::NEVER,
    }
}

impl<A: App> Core<A> {
    /// Asks for visits at the timers that the wheel may not know. Connections that have ended since then have
    /// none.
    #[cold]
    pub(in crate::cores) fn arm_timers(&mut self) {
        while let Some(address) = self.resources.scratch.common.app.timers.take_unarmed() {
            self.arm(ConnectionId::from_token(Token(address)));
        }
    }
}
