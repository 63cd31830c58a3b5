//! Logins over a session, and the answers of the password checks to all logins.
//!
//! Limits: `LOGINS_PER_TURN_MAX`.

use std::sync::Arc;

use crate::app::App;
use crate::auth::passwords::Users;
use crate::decision::Decisions;
use crate::protocols::{Content, Session};
use crate::session::LoginAnswer;

use crate::cores::arrivals::login::{BY_CALL, BY_CONNECT, BY_PAGE};
use crate::cores::arrivals::login_answers::Answered;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};

impl<A: App> Core<A> {
    /// Takes the answers to logins from the mailbox.
    pub(in crate::cores) fn take_logins(&mut self) {
        for _ in 0..LOGINS_PER_TURN_MAX {
            let Some(answered) = self.mailbox.try_receive_login() else {
                return;
            };
            self.login_answered(answered);
        }
        // The next turn takes the rest: `has_work_left` asks whether there is one.
        self.mailbox.leave_logins();
    }

    /// Passes a login of a session to the password checks.
    pub(in crate::cores) fn log_in_by_call(&mut self, id: ConnectionId, decisions: &mut Decisions) {
        let credentials = decisions.take_credentials();
        let by = self.session(id).map_or(BY_CALL, |session| way_of(session));
        if credentials.is_some_and(|credentials| self.ask(id, by, *credentials).is_ok()) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        let (answer, result) = open.session.login_not_taken(&self.resources.settings, decisions);
        if let Some(answer) = answer {
            self.send(id, Content::Text, decisions.bytes(answer));
        }
        if let Err(reason) = result {
            self.close(id, reason);
        }
    }

    fn login_answered(&mut self, mut answered: Answered) {
        let was_accepted = matches!(answered.answer, LoginAnswer::Accepted(_));
        answered.answer = self.judged_by_now(answered.answer, answered.users.as_ref());
        let id = ConnectionId::from_token(mio::Token(answered.address));
        // The attempt of a client that is gone counts nevertheless.
        let by = match self.connections.get(id).map(|connection| &connection.phase) {
            Some(Phase::LoggingIn { .. }) => BY_PAGE,
            Some(Phase::Open(open)) => way_of(&open.session),
            Some(_) => BY_CALL,
            None => "gone",
        };
        self.audit_login(
            answered.client,
            &answered.user,
            by,
            &answered.answer,
            was_accepted,
        );
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match &mut connection.phase {
            Phase::LoggingIn { is_secure, .. } => {
                let is_secure = *is_secure;
                self.answer_login(id, &answered.answer, is_secure);
            }
            Phase::Open(_) => {
                self.decide(id, |session, environment, decisions| {
                    session.login_answered(answered.answer, environment, decisions)
                });
                self.follow_decision(id);
            }
            Phase::ProxyHeader { .. }
            | Phase::Request { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Emptying { .. } => {}
        }
    }

    /// While a login waits, a reload may replace the users, and an operator may revoke the user's tokens. So an
    /// accepted login is checked again against the present state, and refused if it is no longer valid.
    fn judged_by_now(&self, answer: LoginAnswer, users: Option<&Arc<Users>>) -> LoginAnswer {
        let LoginAnswer::Accepted(issued) = &answer else {
            return answer;
        };
        let policy = &self.resources.policy;
        let same_users = match (users, &policy.users) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (Some(_) | None, _) => false,
        };
        if !same_users {
            return LoginAnswer::TooSoon {
                retry_after_seconds: 1,
            };
        }
        match policy.tokens.verify(&issued.token, self.time.now().unix_ms) {
            Ok(_) => answer,
            Err(_) => LoginAnswer::Refused,
        }
    }
}

/// The way in which a client with this session logs in, for the audit trail.
fn way_of(session: &Session) -> &'static str {
    match session {
        Session::SocketCluster(_) => BY_CALL,
        Session::Mqtt(_) => BY_CONNECT,
    }
}

/// Never reached in practice: the password checks answer some hundred logins a second at most.
const LOGINS_PER_TURN_MAX: usize = 64;
