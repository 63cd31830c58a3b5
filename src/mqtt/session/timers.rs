//! The deadlines of a session: a client that is silent for one and a half times its keep alive
//! (MQTT-3.1.2-22), and a token that expires.

use std::time::Duration;

use super::{Session, State};
use crate::app::App;
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decisions};
use crate::mqtt::environment::Environment;
use crate::session;

impl Session {
    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, common: &session::CommonSettings) -> Uptime {
        match &self.state {
            State::AwaitingConnect { since } => *since + common.handshake_timeout,
            State::Saving(accepting) => accepting.since() + common.handshake_timeout,
            State::Open(open) => {
                let deadline = self.silent_from(open.silence_ms_max).min(open.expires());
                deadline.min(self.decision_deadline())
            }
            State::Deciding(..) => self.decision_deadline(),
            // The password checks answer each login.
            State::LoggingIn(_) | State::Ended => Uptime::NEVER,
        }
    }

    /// Checks the deadlines.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let now = env.common.now.uptime;
        if self.decision_deadline() <= now {
            self.expire_decision(env, decisions)?;
        }
        match &self.state {
            State::AwaitingConnect { since } if *since + env.common.settings.handshake_timeout <= now => {
                Err(CloseReason::HandshakeTimeout)
            }
            State::Saving(accepting) if accepting.since() + env.common.settings.handshake_timeout <= now => {
                Err(CloseReason::HandshakeTimeout)
            }
            State::Open(open) if self.silent_from(open.silence_ms_max) <= now => {
                Err(CloseReason::KeepAliveTimeout)
            }
            State::Open(open) if open.expires() <= now => Err(CloseReason::TokenExpired),
            State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Open(_)
            | State::Ended => Ok(()),
        }
    }

    /// The server has not read the connection up to now, so silence before this moment is not the client's
    /// fault.
    pub fn reset_silence_timer(&mut self, now: Now) {
        self.heard = now.uptime;
    }

    /// The silence of the client for which the connection is closed.
    pub fn silence_max(&self) -> Duration {
        match &self.state {
            State::Open(open) if open.silence_ms_max > 0 => Duration::from_millis(open.silence_ms_max.into()),
            State::Open(_)
            | State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Ended => Duration::MAX,
        }
    }

    /// Whether the client has sent nothing since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        self.heard < moment
    }

    fn silent_from(&self, silence_ms_max: u32) -> Uptime {
        match silence_ms_max {
            0 => Uptime::NEVER,
            ms => self.heard + Duration::from_millis(ms.into()),
        }
    }
}

/// The moment `seconds` after the beginning of 1970. If the wall clock is set back, the connection ends too early, and
/// its client connects again.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a negative time has come, and one that is too large never will"
)]
pub(super) fn uptime_of(seconds: f64, now: Now) -> Uptime {
    let left_ms = seconds * 1000.0 - now.unix_ms as f64;
    now.uptime + Duration::from_millis(left_ms.max(0.0) as u64 + 1)
}
