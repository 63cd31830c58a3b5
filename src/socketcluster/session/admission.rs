//! Whether clients that are not authenticated are served.
//!
//! By default they are, as in the reference, and then nothing here costs more than one branch. With
//! `allow_anonymous` off such a client may say who it is (`#handshake`, `#authenticate`, `login`), drop its token,
//! answer pings and what the server has called it for: nothing else of what it sends is looked at, nor does the
//! application hear of it.
//!
//! Invariants, while `allow_anonymous` is off
//! 1. Who is not authenticated is subscribed to nothing: whoever ceases to be is kicked out of all channels with the
//!    same message, late answer or visit, before anything else that it sends is looked at; of more than 256 channels, in
//!    the turns that follow at once. Kept by [`Session::end_message`].
//! 2. A token is watched: when it expires, its connection is visited, whatever the client sends or does not send.
//!
//! Limits: `authentication_timeout`.

use super::timers::Moment;
use super::{Environment, Session, Settings, State, send};
use crate::app::{App, AppError};
use crate::clock::{Now, Uptime};
use crate::decision::{CloseReason, Decision, Decisions};
use crate::socketcluster::encode;
use crate::socketcluster::number::Number;
use crate::socketcluster::packet::{Event, Reserved};

impl Session {
    /// Whether what this client sent is served, though only the authenticated are; otherwise it has been refused.
    pub(super) fn is_served<A: App>(
        &mut self,
        event: &Event<'_>,
        reserved: Option<Reserved>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> bool {
        match reserved {
            Some(Reserved::Handshake | Reserved::Authenticate | Reserved::RemoveAuthToken) => return true,
            Some(Reserved::Publish | Reserved::Subscribe | Reserved::Unsubscribe) => {}
            // The built-in procedure, or one of the application's own.
            None if event.name.is(super::login::LOGIN) => return true,
            None => {}
        }
        self.expire(env.now, decisions);
        if self.claims.is_some() {
            return true;
        }
        let action = match reserved {
            Some(Reserved::Publish) => "publish",
            Some(Reserved::Subscribe) => "subscribe",
            Some(Reserved::Unsubscribe) => "unsubscribe",
            Some(Reserved::Handshake | Reserved::Authenticate | Reserved::RemoveAuthToken) | None => "call",
        };
        env.scratch
            .count_anonymous_hit(action, event.name.plain().unwrap_or_default());
        if let Some(cid) = event.cid.map(Number::text) {
            let error = AppError::new("Only authenticated clients are served").named("AuthError");
            send(decisions, |out| {
                encode::error(cid.as_bytes(), |out| error.write_json(out), out);
            });
        }
        false
    }

    /// When a session that has just opened must have shown who it is.
    pub(super) fn first_watch(settings: &Settings, now: Now) -> Moment {
        if settings.allow_anonymous {
            Moment::NEVER
        } else {
            authentication_deadline(settings, now.uptime)
        }
    }

    /// Follows a change of who the client is.
    pub(super) fn watch<A: App>(
        &mut self,
        was_authenticated: bool,
        env: &Environment<'_, A>,
        decisions: &mut Decisions,
    ) {
        let State::Open { watch, .. } = &mut self.state else {
            return;
        };
        match (was_authenticated, &self.claims) {
            (_, Some(claims)) => {
                *watch = claims
                    .expires_with_leeway_at()
                    .map_or(Moment::NEVER, |seconds| Moment::after(expiry(seconds, env.now)));
            }
            (true, None) => {
                *watch = authentication_deadline(env.settings, env.now.uptime);
                let reason = decisions.write(|out| out.extend_from_slice(b"\"No longer authenticated\""));
                decisions.push(Decision::KickOutAll { reason: Some(reason) });
            }
            (false, None) => {}
        }
    }

    /// Does what is due at the moment that is watched for.
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

fn authentication_deadline(settings: &Settings, now: Uptime) -> Moment {
    match settings.authentication_timeout {
        Some(timeout) => Moment::after(now + timeout),
        None => Moment::NEVER,
    }
}

/// When it is later than `seconds` since 1970. A wall clock that is set back makes it an early visit, nothing else.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is negative has come, and what is too large never will"
)]
fn expiry(seconds: f64, now: Now) -> Uptime {
    let left_ms = seconds * 1000.0 - now.unix_ms as f64;
    now.uptime + std::time::Duration::from_millis(left_ms.max(0.0) as u64 + 1)
}
