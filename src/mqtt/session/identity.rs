//! The identity of a client: a user by a token, by a user name and a password or by a certificate, or none.
//!
//! | CONNECT has | the client is |
//! |---|---|
//! | a token as its password or user name, where `mqtt_token_in` looks for one | the user of the token; a bad token is refused |
//! | a user name and a password, and the server has users | the user, once the password checks have answered |
//! | neither, but the connection has a certificate or a token of its own | that user |
//! | anything else | anonymous: served only with `allow_anonymous` |
//!
//! In MQTT 3.1.1 a refusal has return code 5 or 4: many clients know only these.

use super::{Refused, Session, refused};
use crate::app::App;
use crate::auth::{Claims, Credentials, Password};
use crate::decision::Limit;
use crate::mqtt::ReasonCode;
use crate::mqtt::environment::Environment;
use crate::mqtt::packet::Connect;
use crate::mqtt::settings::TokenIn;

/// The identity of a client.
pub(super) enum Identity {
    /// This user.
    Known(Box<Claims>),
    /// Anonymous.
    Anonymous,
    /// The user with this name, if the password is right.
    ToBeChecked(Credentials),
}

impl Session {
    /// Finds out the identity of the client.
    pub(super) fn identify<A: App>(
        &mut self,
        connect: &Connect<'_>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Identity, Refused> {
        if let Some(token) = token_of(connect, env.settings.token_in) {
            return self.identify_by_token(token, env);
        }
        if let (Some(user), Some(password)) = (connect.user_name, connect.password)
            && env.common.policy.login.is_some()
        {
            let bytes_max = env.common.settings.logins.body_bytes_max as usize;
            if user.len() + password.len() > bytes_max {
                env.common.scratch.hit(Limit::LoginBodyBytes);
                return refused(
                    ReasonCode::BadUserNameOrPassword,
                    "the user name and the password are too long",
                );
            }
            return Ok(Identity::ToBeChecked(Credentials {
                user: user.to_owned(),
                password: Password::new(password),
            }));
        }
        // The claims of a certificate, or of the request of a WebSocket.
        if let Some(claims) = self.claims.take() {
            return Ok(Identity::Known(claims));
        }
        if !env.common.settings.allow_anonymous && !env.common.policy.asks_about_connect() {
            env.common
                .scratch
                .count_anonymous_refused("connect", connect.client_id);
            return refused(ReasonCode::NotAuthorized, "only authenticated clients are served");
        }
        Ok(Identity::Anonymous)
    }

    fn identify_by_token<A: App>(
        &self,
        token: &str,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Identity, Refused> {
        env.common.scratch.count_verification();
        match env.common.policy.tokens.verify(token, env.common.now.unix_ms) {
            // A payload such as `0` makes a good token that authenticates no user.
            Ok(claims) if claims.is_truthy() => Ok(Identity::Known(Box::new(claims))),
            Ok(_) => refused(ReasonCode::BadUserNameOrPassword, "the token names no user"),
            Err(error) => {
                env.common.scratch.count_token_refused(error.label(), "connect");
                refused(ReasonCode::BadUserNameOrPassword, "the token is not accepted")
            }
        }
    }
}

/// The token in CONNECT, if there is one.
pub(super) fn token_of<'a>(connect: &Connect<'a>, token_in: TokenIn) -> Option<&'a str> {
    let password = connect
        .password
        .and_then(|password| str::from_utf8(password).ok());
    match token_in {
        TokenIn::Off => None,
        // Bytes that are not text cannot be a token, but were meant to be one.
        TokenIn::Password => connect.password.map(|_| password.unwrap_or_default()),
        TokenIn::UserName => connect.user_name,
        TokenIn::Auto => [password, connect.user_name]
            .into_iter()
            .flatten()
            .find(|text| looks_like_a_token(text)),
    }
}

/// Whether a text has the form of a JSON Web Token: three parts, of which the first is an object in base64url, and so
/// begins with `eyJ` (RFC 7519 section 3).
fn looks_like_a_token(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.starts_with("eyJ")
        && text.bytes().filter(|byte| *byte == b'.').count() == 2
        && text.bytes().all(|byte| byte == b'.' || is_base64url(byte))
}
