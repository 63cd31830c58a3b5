//! Whether clients that are not authenticated are served.
//!
//! By default they are, as in the reference, and then this file costs no more than one branch. With
//! `allow_anonymous` off, a client that is not authenticated may authenticate itself (`#handshake`,
//! `#authenticate`, `login`), drop its token, and answer pings and calls of the server. All its other packets
//! are refused, and the application does not get them.
//!
//! Invariants, while `allow_anonymous` is off
//! 1. A client that is not authenticated has no subscriptions. When a message, a late answer or a timer finds that a
//!    client is no longer authenticated, the client is kicked out of all its channels before its next packet is
//!    handled; if there are more than 256 channels, in the turns that follow. Kept by [`Session::end_message`].
//! 2. When the token of a client expires, its connection is visited, whatever the client sends.
//!
//! Limits: `authentication_timeout`.

use super::timers::CompactDeadline;
use super::{Environment, Session, State, send};
use crate::app::{App, AppError};
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decision, Decisions};
use crate::session::CommonSettings;
use crate::socketcluster::encode;
use crate::socketcluster::number::Number;
use crate::socketcluster::packet::{Event, Reserved};

impl Session {
    /// Whether an event is handled although only authenticated clients are served. If not, it has been
    /// refused.
    pub(super) fn is_served<A: App>(
        &mut self,
        event: &Event<'_>,
        reserved: Option<Reserved>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> bool {
        match reserved {
            Some(Reserved::Handshake | Reserved::Authenticate | Reserved::RemoveAuthToken) => return true,
            Some(Reserved::Publish | Reserved::Subscribe | Reserved::Unsubscribe) => {}
            Some(Reserved::Presence | Reserved::PresenceInfo) => {}
            // The built-in procedure, or the application's own of that name.
            None if event.name.is(super::login::LOGIN) => return true,
            None => {}
        }
        self.expire(env.common.now, decisions);
        if self.claims.is_some() {
            return true;
        }
        let action = match reserved {
            Some(Reserved::Publish) => "publish",
            Some(Reserved::Subscribe) => "subscribe",
            Some(Reserved::Unsubscribe) => "unsubscribe",
            Some(
                Reserved::Handshake
                | Reserved::Authenticate
                | Reserved::RemoveAuthToken
                | Reserved::Presence
                | Reserved::PresenceInfo,
            )
            | None => "call",
        };
        env.common
            .scratch
            .count_anonymous_refused(action, event.name.plain().unwrap_or_default());
        if let Some(cid) = event.cid.map(Number::text) {
            let error = AppError::new("Only authenticated clients are served").named("AuthError");
            send(decisions, |out| {
                encode::error(cid.as_bytes(), |out| error.write_json(out), out);
            });
        }
        false
    }

    /// When the client of a session that has just opened must be authenticated.
    pub(super) fn first_watch(settings: &CommonSettings, now: Now) -> CompactDeadline {
        if settings.allow_anonymous {
            CompactDeadline::NEVER
        } else {
            authentication_deadline(settings, now.uptime)
        }
    }

    /// The client's claims may have changed: sets the time of the next check, and kicks out a client that is
    /// no longer authenticated.
    pub(super) fn watch<A: App>(
        &mut self,
        was_authenticated: bool,
        env: &Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        let State::Open { watch, .. } = &mut self.state else {
            return;
        };
        match (was_authenticated, &self.claims) {
            (_, Some(claims)) => {
                *watch = claims
                    .expires_with_leeway_at()
                    .map_or(CompactDeadline::NEVER, |seconds| {
                        CompactDeadline::after(expiry(seconds, env.common.now))
                    });
            }
            (true, None) => {
                *watch = authentication_deadline(env.common.settings, env.common.now.uptime);
                let reason = decisions.write(|out| out.extend_from_slice(b"\"No longer authenticated\""));
                decisions.push(Decision::KickOutAll { reason: Some(reason) });
            }
            (false, None) => {}
        }
    }

    /// Takes an expired token away, or ends a connection that had to be authenticated by now.
    pub(super) fn watched_for(&mut self, now: Now, decisions: &mut Decisions) -> Result<(), CloseReason> {
        let State::Open { watch, .. } = &self.state else {
            return Ok(());
        };
        if !watch.has_come(now.uptime) {
            return Ok(());
        }
        if self.claims.is_none() {
            return Err(CloseReason::AuthenticationTimeout);
        }
        self.expire(now, decisions);
        Ok(())
    }
}

fn authentication_deadline(settings: &CommonSettings, now: Uptime) -> CompactDeadline {
    match settings.authentication_timeout {
        Some(timeout) => CompactDeadline::after(now + timeout),
        None => CompactDeadline::NEVER,
    }
}

/// The moment `seconds` after the beginning of 1970. If the wall clock is set back, the connection is visited too
/// early, which does no harm.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a negative time has come, and one that is too large never will"
)]
fn expiry(seconds: f64, now: Now) -> Uptime {
    let left_ms = seconds * 1000.0 - now.unix_ms as f64;
    now.uptime + std::time::Duration::from_millis(left_ms.max(0.0) as u64 + 1)
}
