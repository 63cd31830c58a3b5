//! Gives clients tokens, and takes tokens away.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::connections::{one, subject};
use super::error::{ApiError, ErrorCode};
use super::from_body;
use crate::handle::{Handle, Selection};

/// A change of the tokens of some connections.
pub(super) struct ChangeTokens {
    selection: Selection,
    change: Change,
}

enum Change {
    SetClaims {
        claims: Box<RawValue>,
        expires_in: Option<Duration>,
    },
    Refresh {
        expires_in: Option<Duration>,
    },
    Remove,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetClaimsBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    claims: Box<RawValue>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshTokenBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveTokenBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
}

impl ChangeTokens {
    pub(super) fn of_set_claims(body: &Bytes) -> Result<ChangeTokens, ApiError> {
        let body: SetClaimsBody = from_body(body)?;
        if !body.claims.get().starts_with('{') {
            return Err(ApiError::new(
                ErrorCode::InvalidBody,
                "claims: expected a JSON object, such as {\"sub\":\"ann\"}",
            ));
        }
        Ok(ChangeTokens {
            selection: one(&body.user, &body.connection, &body.address)?,
            change: Change::SetClaims {
                claims: body.claims,
                expires_in: expiry(body.expires_in)?,
            },
        })
    }

    pub(super) fn of_refresh_token(body: &Bytes) -> Result<ChangeTokens, ApiError> {
        let body: RefreshTokenBody = from_body(body)?;
        Ok(ChangeTokens {
            selection: one(&body.user, &body.connection, &body.address)?,
            change: Change::Refresh {
                expires_in: expiry(body.expires_in)?,
            },
        })
    }

    pub(super) fn of_remove_token(body: &Bytes) -> Result<ChangeTokens, ApiError> {
        let body: RemoveTokenBody = from_body(body)?;
        Ok(ChangeTokens {
            selection: one(&body.user, &body.connection, &body.address)?,
            change: Change::Remove,
        })
    }

    /// Without the claims, which may say more of a user than an audit trail should.
    pub(super) fn subject(&self) -> Cow<'_, str> {
        subject(&self.selection)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let selection = &self.selection;
        let count = match &self.change {
            Change::SetClaims { claims, expires_in } => {
                handle.set_claims(selection, claims, *expires_in).await
            }
            Change::Refresh { expires_in } => handle.refresh_token(selection, *expires_in).await,
            Change::Remove => handle.remove_token(selection).await,
        }?;
        Ok(json!({ "connections": count }).to_string())
    }
}

impl std::fmt::Debug for ChangeTokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Claims are shown nowhere.
        formatter
            .debug_struct("ChangeTokens")
            .field("selection", &self.selection)
            .finish_non_exhaustive()
    }
}

/// The time after which a new token expires, in seconds.
fn expiry(seconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match seconds {
        Some(seconds) if !(1..=EXPIRY_MAX_S).contains(&seconds) => Err(ApiError::new(
            ErrorCode::InvalidBody,
            format!("expires_in: found {seconds}, expected 1 to {EXPIRY_MAX_S} seconds"),
        )),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// A hundred years.
const EXPIRY_MAX_S: u64 = 3_155_760_000;
