//! The client's token: offered, checked, signed, expired (wire reference, section 8).
//!
//! No timer watches a token: that it has expired is noticed when a pong or an application's packet arrives.

use std::borrow::Cow;

use super::{Environment, Session, State, invalid_action, send};
use crate::app::{App, Peer, Piece, Refusal, Refused};
use crate::auth::{Claims, Revocation, TokenError};
use crate::clock::Now;
use crate::decision::{CloseReason, Decisions};
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::NumberText;
use crate::socketcluster::packet::{Value, is_falsy};

/// A part of an array is over when so many tokens have been checked in this turn.
pub(super) const VERIFICATIONS_PER_PART: u32 = 4;

/// Tokens of one message that are checked, an array of packets being one: each costs what a hundred packets cost.
pub(super) const VERIFICATIONS_MAX: u32 = 16;

/// What further ones are answered.
pub(super) const TOO_MANY_TOKENS: &str = "Too many tokens at once";

impl Session {
    pub(super) fn authenticate<A: App>(
        &mut self,
        cid: &NumberText,
        data: Option<&Value<'_>>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if env.scratch.count_verification() > VERIFICATIONS_MAX {
            invalid_action(Some(*cid), TOO_MANY_TOKENS, decisions);
            return Ok(());
        }
        let verified = authenticate_token(data).verify(env);
        let failure = self.accept(verified, env).err();
        self.settle(env)?;
        match failure {
            Some(failure) if failure.is_bad_token() => {
                send(decisions, |out| {
                    encode::error(cid.as_bytes(), |out| failure.write_json(out), out);
                });
                send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
            }
            failure => send(decisions, |out| {
                let error = failure
                    .as_ref()
                    .map(|failure| |out: &mut Vec<u8>| failure.write_json(out));
                encode::authenticate_response(cid.as_bytes(), self.claims.is_some(), error, out);
            }),
        }
        self.carry_out_orders(None, env, decisions)
    }

    /// Authenticates the client by a checked token, or takes its former authentication away.
    pub(super) fn accept<A: App>(
        &mut self,
        verified: Result<Claims, TokenError>,
        env: &mut Environment<'_, A>,
    ) -> Result<(), AuthFailure> {
        self.claims = None;
        let by = match self.state {
            State::AwaitingHandshake { .. } => "handshake",
            State::Open { .. } | State::Ended => "authenticate",
        };
        let claims = verified.map_err(|error| {
            env.scratch.count_token_refused(error.label(), by);
            AuthFailure::Token(error)
        })?;
        let mut peer = Peer::new(self.id, Some(&claims), None, env.scratch);
        let asked = env.app.authenticate(&claims, &mut peer);
        asked.map_err(|refusal| {
            env.scratch.count_token_refused("application", by);
            AuthFailure::Refused(refusal)
        })?;
        // A payload such as `0` is a good token that authenticates nobody.
        self.claims = claims.is_truthy().then(|| Box::new(claims));
        Ok(())
    }

    /// A token with these claims, which are the client's from now on.
    pub(super) fn sign<A: App>(
        &mut self,
        claims: Piece,
        expires_in: Option<u64>,
        env: &Environment<'_, A>,
    ) -> Result<String, CloseReason> {
        let expires_in = expires_in.unwrap_or(env.settings.auth_default_expiry.as_secs());
        let issued = env
            .policy
            .tokens
            .issue(env.scratch.piece(claims), Some(expires_in), env.now.unix_ms)
            .map_err(|_| CloseReason::SigningFailed)?;
        self.claims = Some(Box::new(issued.claims));
        Ok(issued.token)
    }

    /// Takes the client's token away if this revokes it, and tells it; whether it does. The connection is to be closed.
    pub fn revoke(&mut self, revocation: &Revocation, decisions: &mut Decisions) -> bool {
        if self
            .claims
            .take_if(|claims| revocation.applies_to(claims))
            .is_none()
        {
            return false;
        }
        if self.is_open() {
            send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
        }
        true
    }

    /// Takes the client's token away if it has expired, and tells it; returns when that was.
    pub(super) fn expire(&mut self, now: Now, decisions: &mut Decisions) -> Option<f64> {
        let expired = self.forget_expired(now);
        tell_expired(expired, decisions);
        expired
    }

    /// Takes the client's token away if it has expired; returns when that was. The caller tells the client.
    pub(super) fn forget_expired(&mut self, now: Now) -> Option<f64> {
        let claims = self.claims.take_if(|claims| claims.has_expired(now.unix_ms))?;
        claims.expires_at()
    }
}

/// Tells a client that its token was taken away, if it was.
pub(super) fn tell_expired(expired: Option<f64>, decisions: &mut Decisions) {
    if expired.is_some() {
        send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
    }
}

/// Why a client is not authenticated.
pub(super) enum AuthFailure {
    Token(TokenError),
    Refused(Refusal),
}

impl AuthFailure {
    pub(super) fn is_bad_token(&self) -> bool {
        match self {
            AuthFailure::Token(error) => error.is_bad_token(),
            AuthFailure::Refused(refusal) => refusal.is_bad_token(),
        }
    }

    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            AuthFailure::Token(error) => error.write_json(out),
            AuthFailure::Refused(refusal) => refusal.write_json(Refused::Authenticate, out),
        }
    }
}

/// What a client offers as its token.
pub(super) enum OfferedToken<'a> {
    Text(Cow<'a, str>),
    NotAString,
}

impl<'a> OfferedToken<'a> {
    pub(super) fn verify<A: App>(&self, env: &Environment<'_, A>) -> Result<Claims, TokenError> {
        match self {
            OfferedToken::Text(token) => env.policy.tokens.verify(token, env.now.unix_ms),
            OfferedToken::NotAString => Err(TokenError::NotAString),
        }
    }

    fn in_value(json: &'a str) -> OfferedToken<'a> {
        let Ok(string) = Scanner::new(json).string() else {
            return OfferedToken::NotAString;
        };
        OfferedToken::Text(string.plain().map_or_else(
            || {
                let mut decoded = Vec::new();
                string.write_decoded(&mut decoded);
                // Half a surrogate pair is in no good token, and neither is what stands for it here.
                Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
            },
            Cow::Borrowed,
        ))
    }
}

/// The token in a handshake. What is false in JavaScript counts as none.
pub(super) fn handshake_token<'a>(data: Option<&Value<'a>>) -> Option<OfferedToken<'a>> {
    let json = data?.members.auth_token?;
    (!is_falsy(json)).then(|| OfferedToken::in_value(json))
}

/// The token in an `#authenticate`. None is as bad as an empty one.
pub(super) fn authenticate_token<'a>(data: Option<&Value<'a>>) -> OfferedToken<'a> {
    match data.map(|value| value.json) {
        None | Some("null") => OfferedToken::Text(Cow::Borrowed("")),
        Some(json) => OfferedToken::in_value(json),
    }
}
