//! Writes a core's lines of the audit trail (`crate::audit`). Nothing is formatted or allocated before the limit on
//! lines has permitted the line.

use crate::app::App;
use crate::audit::{self, Event, Subject};
use crate::auth::Claims;
use crate::client::ClientAddress;
use crate::http::Refusal;
use crate::session::LoginAnswer;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};

impl<A: App> Core<A> {
    /// Whether a line about the last of `count` events may be written. Counts the other events as left out.
    fn may_audit(&mut self, event: Event, count: u64) -> bool {
        let may = self.audit.allows(event, self.time.now().uptime);
        let left_out = if may { count.saturating_sub(1) } else { count };
        if left_out > 0 {
            self.metrics.audit_left_out[event.index()].add(left_out);
        }
        may
    }

    /// Records the outcome of a login. `was_accepted`: the password was right.
    pub(in crate::cores) fn audit_login(
        &mut self,
        client: ClientAddress,
        user: &str,
        by: &str,
        answer: &LoginAnswer,
        was_accepted: bool,
    ) {
        let reason = match (answer, was_accepted) {
            (LoginAnswer::Accepted(_), _) => {
                if self.may_audit(Event::LoginAccepted, 1) {
                    audit::login_accepted(subject(client, Some(user)), by);
                }
                return;
            }
            (LoginAnswer::Refused, false) => "credentials",
            (LoginAnswer::Refused, true) => "revoked",
            (LoginAnswer::TooSoon { .. }, false) => "too_soon",
            (LoginAnswer::TooSoon { .. }, true) => "reloaded",
            (LoginAnswer::Busy, _) => "busy",
            (LoginAnswer::Unsigned, _) => "unsigned",
        };
        self.audit_login_refused(client, user, by, reason);
    }

    /// Records a refused login.
    pub(in crate::cores) fn audit_login_refused(
        &mut self,
        client: ClientAddress,
        user: &str,
        by: &str,
        reason: &str,
    ) {
        if self.may_audit(Event::LoginRefused, 1) {
            audit::login_refused(subject(client, Some(user)), reason, by);
        }
    }

    /// Records a refused token that was not presented to a session.
    pub(in crate::cores) fn audit_token_refused(&mut self, id: ConnectionId, reason: &str, by: &str) {
        if self.may_audit(Event::TokenRefused, 1) {
            audit::token_refused(subject(self.client_of(id), None), reason, by);
        }
    }

    /// Records a request that was refused for its origin or by the application. Faults of the protocol and limits are
    /// counted elsewhere.
    pub(in crate::cores) fn audit_request_refused(&mut self, id: ConnectionId, refusal: &Refusal) {
        let (reason, origin) = match refusal {
            Refusal::Origin(origin) => ("origin", Some(origin.as_str())),
            Refusal::Application { .. } => ("application", None),
            _ => return,
        };
        if self.may_audit(Event::RequestRefused, 1) {
            audit::request_refused(subject(self.client_of(id), None), reason, origin);
        }
    }

    /// Records the tokens and actions that a session has refused.
    pub(in crate::cores) fn audit_refusals(&mut self, id: ConnectionId) {
        let refusals = self.resources.scratch.common.take_refusals();
        let client = self.client_of(id);
        if let Some(token) = refusals.token
            && self.may_audit(Event::TokenRefused, refusals.tokens)
        {
            audit::token_refused(subject(client, None), token.reason, token.by);
        }
        if let Some(refused) = refusals.action
            && self.may_audit(Event::ActionRefused, refusals.actions)
        {
            let name = String::from_utf8_lossy(refused.name());
            let user = self.user_of(id);
            let subject = subject(client, user.as_deref());
            audit::action_refused(subject, refused.reason, refused.action, &name, refused.rule);
        }
    }

    pub(in crate::cores) fn client_of(&self, id: ConnectionId) -> ClientAddress {
        self.connections
            .get(id)
            .map_or(ClientAddress::UNKNOWN, |connection| connection.client)
    }

    /// The user of a connection: the claim `sub` of its token, as everywhere.
    fn user_of(&self, id: ConnectionId) -> Option<Box<str>> {
        match &self.connections.get(id)?.phase {
            Phase::Open(open) => open.session.claims().and_then(Claims::user),
            _ => None,
        }
    }
}

fn subject(client: ClientAddress, user: Option<&str>) -> Subject<'_> {
    let address = client.socket_address().map(|address| address.ip());
    Subject { address, user }
}
