//! The client's token: offered, checked, signed, expired (wire reference, section 8).
//!
//! No timer watches a token, unless rules are in force or `allow_anonymous` is off: the session notices that
//! it has expired when a pong or a packet for the application arrives.

use std::borrow::Cow;

use super::{About, Environment, Session, State, invalid_action, send};
use crate::app::{App, DecisionNumber, Piece, Refusal, Refused};
use crate::auth::{Claims, Revocation, TokenError};
use crate::clock::Now;
use crate::decision::{CloseReason, Decision, Decisions};
use crate::hooks::Subject;
use crate::session::Asked;
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::NumberText;
use crate::socketcluster::packet::{Event, Value, is_falsy};

/// A part of an array ends when this many tokens were checked in this turn.
pub(super) const VERIFICATIONS_PER_PART: u32 = 4;

/// Most tokens of one message (or array of packets) that are checked: a check costs as much as a hundred packets.
pub(super) const VERIFICATIONS_MAX: u32 = 16;

/// The answer to further tokens.
pub(super) const TOO_MANY_TOKENS: &str = "Too many tokens at once";

impl Session {
    pub(super) fn authenticate<A: App>(
        &mut self,
        cid: &NumberText,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if env.common.scratch.count_verification() > VERIFICATIONS_MAX {
            invalid_action(Some(*cid), TOO_MANY_TOKENS, decisions);
            return Ok(());
        }
        let verified = authenticate_token(event.data.as_ref()).verify(env);
        let failure = self.accept(0, verified, env).err();
        if let Some(AuthFailure::Deferred(number)) = failure {
            self.await_decision(number, About::event(event), Vec::new(), env);
            return Ok(());
        }
        decisions.push(Decision::UserChanged);
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

    /// Authenticates the client by a checked token, or ends its former authentication. `question` is the
    /// number of the question to the application about this packet. If the application decides later, nothing
    /// changes.
    pub(super) fn accept<A: App>(
        &mut self,
        question: usize,
        verified: Result<Claims, TokenError>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<(), AuthFailure> {
        let by = match self.state {
            State::AwaitingHandshake { .. } => "handshake",
            State::Open { .. } | State::Ended => "authenticate",
        };
        let claims = match verified {
            Ok(claims) => claims,
            Err(error) => {
                self.claims = None;
                env.common.scratch.count_token_refused(error.label(), by);
                return Err(AuthFailure::Token(error));
            }
        };
        let client = Asked {
            id: self.id,
            claims: Some(&claims),
            token_expired: None,
        };
        let asked = env.common.ask(
            question,
            client,
            Subject::Authenticate,
            |app, peer| app.authenticate(&claims, peer),
            |_| (),
        );
        if let Err(refusal) = asked {
            if let Some(number) = refusal.decision_number() {
                return Err(AuthFailure::Deferred(number));
            }
            self.claims = None;
            env.common.scratch.count_token_refused("application", by);
            return Err(AuthFailure::Refused(refusal));
        }
        // A payload such as `0` makes a good token that authenticates no user.
        self.claims = claims.is_truthy().then(|| Box::new(claims));
        Ok(())
    }

    /// Signs a token with these claims, which become the client's.
    pub(super) fn sign<A: App>(
        &mut self,
        claims: Piece,
        expires_in: Option<u64>,
        env: &Environment<'_, '_, A>,
    ) -> Result<String, CloseReason> {
        let issued = env.common.issue(claims, expires_in)?;
        self.claims = Some(Box::new(issued.claims));
        Ok(issued.token)
    }

    /// Takes the client's token away if `revocation` revokes it, and tells the client. Returns whether it
    /// has: then the connection is to be closed.
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

    /// Takes the client's token away if it has expired, and tells the client; returns when it expired.
    pub(super) fn expire(&mut self, now: Now, decisions: &mut Decisions) -> Option<f64> {
        let expired = self.forget_expired(now);
        tell_expired(expired, decisions);
        expired
    }

    /// Takes the client's token away if it has expired; returns when it expired. The caller tells the client.
    pub(super) fn forget_expired(&mut self, now: Now) -> Option<f64> {
        let claims = self.claims.take_if(|claims| claims.has_expired(now.unix_ms))?;
        claims.expires_at()
    }
}

/// Tells the client that its token was taken away, if it has expired.
pub(super) fn tell_expired(expired: Option<f64>, decisions: &mut Decisions) {
    if expired.is_some() {
        decisions.push(Decision::UserChanged);
        send(decisions, |out| out.extend_from_slice(encode::REMOVE_AUTH_TOKEN));
    }
}

/// Why a client is not authenticated.
pub(super) enum AuthFailure {
    Token(TokenError),
    Refused(Refusal),
    /// The application decides later.
    Deferred(DecisionNumber),
}

impl AuthFailure {
    pub(super) fn is_bad_token(&self) -> bool {
        match self {
            AuthFailure::Token(error) => error.is_bad_token(),
            AuthFailure::Refused(refusal) => refusal.is_bad_token(),
            AuthFailure::Deferred(_) => false,
        }
    }

    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            AuthFailure::Token(error) => error.write_json(out),
            AuthFailure::Refused(refusal) => refusal.write_json(Refused::Authenticate, out),
            AuthFailure::Deferred(_) => Refusal::silent().write_json(Refused::Authenticate, out),
        }
    }
}

/// A token that a client offers.
pub(super) enum OfferedToken<'a> {
    Text(Cow<'a, str>),
    NotAString,
}

impl<'a> OfferedToken<'a> {
    pub(super) fn verify<A: App>(&self, env: &Environment<'_, '_, A>) -> Result<Claims, TokenError> {
        match self {
            OfferedToken::Text(token) => env.common.policy.tokens.verify(token, env.common.now.unix_ms),
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
                // No valid token contains half a surrogate pair, or U+FFFD, which replaces it here.
                Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
            },
            Cow::Borrowed,
        ))
    }
}

/// The token in a handshake. A value that is false in JavaScript is no token.
pub(super) fn handshake_token<'a>(data: Option<&Value<'a>>) -> Option<OfferedToken<'a>> {
    let json = data?.members.auth_token?;
    (!is_falsy(json)).then(|| OfferedToken::in_value(json))
}

/// The token in an `#authenticate`. A missing token is treated like an empty one.
pub(super) fn authenticate_token<'a>(data: Option<&Value<'a>>) -> OfferedToken<'a> {
    match data.map(|value| value.json) {
        None | Some("null") => OfferedToken::Text(Cow::Borrowed("")),
        Some(json) => OfferedToken::in_value(json),
    }
}
