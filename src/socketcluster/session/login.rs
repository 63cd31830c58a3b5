//! The procedure `login`: a name and a password instead of a token.
//!
//! ```text
//!  {"event":"login","data":{user, password},"cid":N} ──► Decision::Login ──► `login`'s password checks
//!  {"rid":N}, #setAuthToken   or   {"rid":N,"error":E}   ◄── Session::login_answered
//! ```
//!
//! The session handles it before the application only if the server has users. Otherwise `login` is an
//! ordinary event. A transmitted login is handled as well; if it fails there is no answer.
//!
//! Limits: one login at a time for each connection; `login_body_bytes_max` for its data.

use super::{About, Environment, Session, send};
use crate::app::{App, AppError, Refusal, Refused};
use crate::auth::Issued;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Span};
use crate::hooks::Subject;
use crate::session::{Asked, LoginAnswer};
use crate::socketcluster::encode;
use crate::socketcluster::number::{Number, NumberText};
use crate::socketcluster::packet::Event;

/// The event that is called.
pub(super) const LOGIN: &str = "login";

/// A login of the client that has not been answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Login {
    #[default]
    None,
    /// Not answered yet, with the call id if it was a call.
    Open(Option<NumberText>),
}

impl Session {
    pub(super) fn log_in<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        // Whatever the outcome, these bytes may hold a password.
        env.common.scratch.note_credentials();
        let cid = event.cid.map(Number::text);
        let logins = &env.common.settings.logins;
        if matches!(self.login(), Login::Open(_)) {
            env.common.scratch.hit(Limit::LoginsPerConnection);
            return refuse(cid.as_ref(), &under_way(), decisions);
        }
        let data = event.data.map_or("", |value| value.json);
        if data.len() > logins.body_bytes_max as usize {
            env.common.scratch.hit(Limit::LoginBodyBytes);
            return refuse(cid.as_ref(), &too_large(logins.body_bytes_max), decisions);
        }
        let Ok(credentials) = logins.fields.in_json(data) else {
            return refuse(cid.as_ref(), &no_credentials(), decisions);
        };
        decisions.push_login(credentials);
        self.calls.get_or_insert_default().login = Login::Open(cid);
    }

    /// There is no room for the login that was decided: the answer, or `None` if there is none.
    pub fn login_not_taken(&mut self, decisions: &mut Decisions) -> Option<Span> {
        let cid = self.take_login()??;
        let error = busy();
        Some(decisions.write(|out| encode::error(cid.as_bytes(), |out| error.write_json(out), out)))
    }

    /// The login that was decided has been answered.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn login_answered<A: App>(
        &mut self,
        answer: LoginAnswer,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if !self.is_open() {
            return Ok(());
        }
        let Some(cid) = self.take_login() else {
            return Ok(());
        };
        let was_authenticated = self.claims.is_some();
        let result = self.admit(answer, cid.as_ref(), env, decisions);
        self.end_message(was_authenticated, result, env, decisions)
    }

    fn admit<A: App>(
        &mut self,
        answer: LoginAnswer,
        cid: Option<&NumberText>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let issued = match answer {
            LoginAnswer::Accepted(issued) => issued,
            LoginAnswer::Refused => {
                refuse(cid, &wrong(), decisions);
                return Ok(());
            }
            LoginAnswer::TooSoon { retry_after_seconds } => {
                refuse(cid, &too_soon(retry_after_seconds), decisions);
                return Ok(());
            }
            LoginAnswer::Busy => {
                refuse(cid, &busy(), decisions);
                return Ok(());
            }
            LoginAnswer::Unsigned => return Err(CloseReason::SigningFailed),
        };
        self.admit_user(issued, cid, env, decisions)
    }

    /// The user is known, as after a token of the client. Asks the application whether it admits the user.
    pub(super) fn admit_user<A: App>(
        &mut self,
        issued: Issued,
        cid: Option<&NumberText>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.begin(env);
        let client = Asked {
            id: self.id,
            claims: Some(&issued.claims),
            token_expired: None,
        };
        let asked = env.common.ask(
            0,
            client,
            Subject::Authenticate,
            |app, peer| app.authenticate(&issued.claims, peer),
            |_| (),
        );
        let refusal = asked.err();
        if let Some(number) = refusal.as_ref().and_then(Refusal::decision_number) {
            let about = About::Login(Box::new(issued), cid.copied());
            self.await_decision(number, about, Vec::new(), env);
            return Ok(());
        }
        self.settle(env)?;
        if refusal.is_some() {
            env.common.scratch.count_token_refused("application", "login");
        }
        match (refusal, cid) {
            (None, cid) => {
                self.claims = Some(Box::new(issued.claims));
                decisions.push(Decision::UserChanged);
                if let Some(cid) = cid {
                    send(decisions, |out| encode::response(cid.as_bytes(), None, out));
                }
                send(decisions, |out| encode::set_auth_token(&issued.token, None, out));
            }
            (Some(refusal), Some(cid)) => send(decisions, |out| {
                let error = |out: &mut Vec<u8>| refusal.write_json(Refused::Authenticate, out);
                encode::error(cid.as_bytes(), error, out);
            }),
            (Some(_), None) => {}
        }
        self.carry_out_orders(None, env, decisions)
    }

    fn login(&self) -> Login {
        self.calls.as_ref().map_or(Login::None, |calls| calls.login)
    }

    /// Takes the open login, if there is one: it is no longer open.
    fn take_login(&mut self) -> Option<Option<NumberText>> {
        match std::mem::take(&mut self.calls.as_mut()?.login) {
            Login::Open(cid) => Some(cid),
            Login::None => None,
        }
    }
}

fn refuse(cid: Option<&NumberText>, error: &AppError, decisions: &mut Decisions) {
    if let Some(cid) = cid {
        send(decisions, |out| {
            encode::error(cid.as_bytes(), |out| error.write_json(out), out);
        });
    }
}

fn busy() -> AppError {
    AppError::new("Too many logins wait: try again in a moment").named("LoginBusyError")
}

fn wrong() -> AppError {
    AppError::new("Invalid user name or password").named("InvalidCredentialsError")
}

fn too_soon(retry_after_seconds: u64) -> AppError {
    AppError::new(format!(
        "Too many logins have failed: try again in {retry_after_seconds} s"
    ))
    .named("LoginTooSoonError")
    .with("retryAfter", retry_after_seconds)
}

fn under_way() -> AppError {
    AppError::new("Another login of this connection has not been answered yet").named("InvalidActionError")
}

fn too_large(limit: u32) -> AppError {
    AppError::new(format!("The data of a login may take {limit} bytes")).named("InvalidArgumentsError")
}

fn no_credentials() -> AppError {
    AppError::new("A login takes an object with a user name and a password").named("InvalidArgumentsError")
}
