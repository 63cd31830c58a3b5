//! The next deadline of a session, and the actions at it: pings, the check for silence, and the end of calls
//! without an answer.
//!
//! Pings keep the rhythm that began with the connection, whatever the traffic. No client is pinged before its handshake
//! (wire reference, section 4).

use std::time::Duration;

use super::{Environment, Session, SocketClusterSettings, State, send};
use crate::app::App;
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decisions};
use crate::session;

impl Session {
    /// The server has neither read the connection up to now, nor sent what the session decided. So silence
    /// before this moment is not the client's fault.
    pub fn reset_silence_timer(&mut self, now: Now, settings: &SocketClusterSettings) {
        self.heard = now.uptime;
        self.postpone_calls(now.uptime + settings.ack_timeout);
    }

    /// Whether the client has sent nothing since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        self.heard < moment
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(
        &self,
        common: &session::CommonSettings,
        settings: &SocketClusterSettings,
    ) -> Uptime {
        match self.state {
            // The client has sent its handshake, and waits for the server.
            State::AwaitingHandshake { .. } if self.is_waiting() => {
                self.decision_deadline().unwrap_or(Uptime::NEVER)
            }
            State::AwaitingHandshake { created } => {
                (created + common.handshake_timeout).min(self.pong_deadline(settings))
            }
            State::Open { next_ping, watch, .. } => {
                let deadline = next_ping
                    .min(self.pong_deadline(settings))
                    .min(self.ack_deadline())
                    .min(self.decision_deadline().unwrap_or(Uptime::NEVER));
                if common.allow_anonymous {
                    deadline
                } else {
                    deadline.min(watch.uptime())
                }
            }
            State::Ended => Uptime::NEVER,
        }
    }

    /// Does the work that is due: sends a ping, ends calls without an answer, or ends a connection whose
    /// client is silent.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let now = env.common.now.uptime;
        let pong_deadline = self.pong_deadline(env.settings);
        let is_waiting = self.is_waiting();
        match &mut self.state {
            State::AwaitingHandshake { .. } if is_waiting => {}
            State::AwaitingHandshake { created } => {
                let deadline = *created + env.common.settings.handshake_timeout;
                if deadline <= now && deadline <= pong_deadline {
                    return Err(CloseReason::HandshakeTimeout);
                }
            }
            State::Open { next_ping, .. } => {
                if *next_ping <= now && now < pong_deadline {
                    *next_ping = next_tick(*next_ping, env.settings.ping_interval, now);
                    let ping = self.version.ping();
                    env.common.scratch.count_heartbeat();
                    send(decisions, |out| out.extend_from_slice(ping.as_bytes()));
                }
            }
            State::Ended => {}
        }
        if pong_deadline <= now {
            Err(CloseReason::PongTimeout)
        } else {
            let was_authenticated = self.claims.is_some();
            let mut result = self.expire_calls(env, decisions);
            if result.is_ok() && is_waiting {
                result = self.expire_decisions(env, decisions);
            }
            if !env.common.settings.allow_anonymous {
                result = result.and_then(|()| self.watched_for(env.common.now, decisions));
            }
            self.end_message(was_authenticated, result, env, decisions)
        }
    }

    pub(super) fn pong_deadline(&self, settings: &SocketClusterSettings) -> Uptime {
        match settings.ping_interval {
            Some(_) => self.heard + settings.ping_timeout,
            None => Uptime::NEVER,
        }
    }

    pub(super) fn receive_pong<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        env.common.scratch.count_heartbeat();
        self.heard = env.common.now.uptime;
        self.require_open()?;
        self.expire(env.common.now, decisions);
        Ok(())
    }
}

/// A deadline in 4 bytes instead of 8, since every session has one: tenths of a second since the process began, for 13
/// years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompactDeadline(u32);

impl CompactDeadline {
    pub(super) const NEVER: CompactDeadline = CompactDeadline(u32::MAX);
    const MS: u64 = 100;

    /// The first moment that is not before `time`.
    pub(super) fn after(time: Uptime) -> CompactDeadline {
        CompactDeadline(u32::try_from(time.as_ms().div_ceil(CompactDeadline::MS)).unwrap_or(u32::MAX))
    }

    pub(super) fn has_come(self, now: Uptime) -> bool {
        self.uptime() <= now
    }

    pub(super) fn uptime(self) -> Uptime {
        if self == CompactDeadline::NEVER {
            Uptime::NEVER
        } else {
            Uptime::from_ms(u64::from(self.0) * CompactDeadline::MS)
        }
    }
}

/// The first time after `now` in a rhythm that began at `from`; never, without an interval.
pub(super) fn next_tick(from: Uptime, interval: Option<Duration>, now: Uptime) -> Uptime {
    let Some(interval) = interval else {
        return Uptime::NEVER;
    };
    let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    let passed = now.as_ms().saturating_sub(from.as_ms()) / interval;
    Uptime::from_ms(from.as_ms().saturating_add((passed + 1).saturating_mul(interval)))
}
