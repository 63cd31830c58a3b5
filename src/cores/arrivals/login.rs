//! Identities that clients present over HTTP: the pages for users, the cookie of an upgrade, and logins on
//! their way to the password checks and back.
//!
//! ```text
//!  POST /login  ──► Phase::LoggingIn ──► threads of the checks ──► mailbox ──► 200 with a cookie, 401, 429
//!  "login"      ──► the session waits ──►   check, sign     ──►         ──► its answer, #setAuthToken
//! ```
//!
//! A thread of the password checks checks the password and signs the token. The answer names the id of its
//! connection. If the connection has ended meanwhile, the answer is dropped.
//!
//! Limits: `login_body_bytes_max`; `logins_waiting_max` of the password checks, and the room for answers in
//! the mailbox; for the answer, `request_timeout` once more.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::auth::{Claims, Credentials};
use crate::client::ClientAddress;
use crate::client::ambient::Trust;
use crate::decision::{CloseReason, Limit};
use crate::http::cookie::{self, SetCookie};
use crate::http::login_pages::{self, Page, PageAnswer, Step};
use crate::http::{Refusal, Request};
use crate::login::{Attempt, LoginVerdict};
use crate::session::LoginAnswer;
use crate::websocket::origins::Origins;

use crate::cores::arrivals::login_answers::Answered;
use crate::cores::arrivals::tls;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Input, Phase};

/// The password checks have no room for another login.
pub(in crate::cores) struct Busy;

impl<A: App> Core<A> {
    /// The login page at a path, if the server has users.
    pub(in crate::cores) fn login_page(&self, path: &str) -> Option<Page> {
        let page = self.requests.login_pages().page(path)?;
        self.resources.policy.login.is_some().then_some(page)
    }

    /// Handles a request for a login page, with as much of its body as has arrived.
    pub(in crate::cores) fn receive_page(
        &mut self,
        id: ConnectionId,
        page: Page,
        request: &Request<'_>,
        body: &[u8],
    ) -> Result<Input, Refusal> {
        if page == Page::Login {
            // Whatever the outcome, even if only a part has arrived: the buffers may hold a password, and
            // must be wiped.
            self.resources.scratch.common.note_credentials();
        }
        let is_https = self.is_under_tls(id) || self.proxy_says_https(id, request);
        let trust = self.origins().trust(request, is_https);
        // A page that was loaded over HTTPS sends its requests over HTTPS, even if a proxy ends TLS before this server.
        let of_https = || {
            let origin = request.joined_header("origin");
            origin.is_some_and(|origin| origin.starts_with("https://"))
        };
        let is_secure = is_https || (trust == Trust::Own && of_https());
        let cookie = self.requests.cookie();
        match self
            .requests
            .login_pages()
            .step(page, request, body, trust, cookie)
        {
            Step::Incomplete { send_continue } => {
                self.send_continue(id, send_continue);
                return Ok(Input::Incomplete(0));
            }
            Step::Answer(answer) => self.answer_page(id, &answer),
            Step::LogIn(credentials) => self.log_in_by_page(id, credentials, is_secure),
            Step::LogOut => {
                let name = self.requests.cookie().to_owned();
                let cookie = SetCookie {
                    name: &name,
                    value: "",
                    max_age_seconds: 0,
                    secure: is_secure,
                };
                self.answer_page(id, &PageAnswer::LoggedOut(cookie));
            }
            Step::Show(token) => {
                let head_only = request.method() == "HEAD";
                match self.verified(id, token, "page") {
                    Some(claims) => self.answer_page(
                        id,
                        &PageAnswer::Claims {
                            json: claims.json(),
                            head_only,
                        },
                    ),
                    None => self.answer_page(id, &PageAnswer::Unauthorized { head_only }),
                }
            }
        }
        Ok(Input::Rest)
    }

    /// The claims of a client that its browser presents by itself with an upgrade: those of a valid token in
    /// a cookie, otherwise those of a certificate. Neither counts for a page whose origin may not act for its
    /// user (cross-site WebSocket hijacking). An invalid token or certificate is ignored.
    pub(in crate::cores) fn ambient_claims(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Option<Box<Claims>> {
        let cookie = cookie::find(request, self.requests.cookie());
        let connection = self.connections.get(id)?;
        let certificate = tls::ambient_certificate(&connection.stream);
        if cookie.is_none() && certificate.is_none() {
            return None;
        }
        let is_https = self.is_under_tls(id) || self.proxy_says_https(id, request);
        let trust = self.origins().trust(request, is_https);
        let token = cookie.and_then(|cookie| cookie.value_for(trust));
        if let Some(claims) = token.and_then(|token| self.verified(id, token, "cookie")) {
            return Some(Box::new(claims.without_token()));
        }
        let claims = certificate?.value_for(trust)?;
        self.unless_revoked(id, claims)
    }

    /// The claims of a certificate, unless an operator has revoked them.
    pub(in crate::cores) fn unless_revoked(
        &mut self,
        id: ConnectionId,
        claims: Box<Claims>,
    ) -> Option<Box<Claims>> {
        if self
            .resources
            .policy
            .tokens
            .are_revoked(&claims, self.time.now().unix_ms)
        {
            self.audit_token_refused(id, "revoked", "certificate");
            return None;
        }
        Some(claims)
    }

    fn log_in_by_page(&mut self, id: ConnectionId, credentials: Credentials, is_secure: bool) {
        if self.ask(id, BY_PAGE, credentials).is_err() {
            return self.answer_page(id, &PageAnswer::Busy);
        }
        let deadline = self.time.now().uptime + self.limits.request_timeout;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::LoggingIn { deadline, is_secure };
            self.arm(id);
        }
    }

    pub(in crate::cores) fn ask(
        &mut self,
        id: ConnectionId,
        by: &str,
        credentials: Credentials,
    ) -> Result<(), Busy> {
        let user = credentials.user.clone();
        self.ask_password_checks(id, credentials).inspect_err(|_| {
            let client = self.client_of(id);
            self.audit_login_refused(client, &user, by, "busy");
        })
    }

    fn ask_password_checks(&self, id: ConnectionId, credentials: Credentials) -> Result<(), Busy> {
        let Credentials { user, password } = credentials;
        let client = self.client_of(id);
        let named = user.clone();
        let attempt = Attempt {
            user,
            password,
            address: client.ip(),
        };
        let policy = Arc::clone(&self.resources.policy);
        let Some(password_checks) = &self.resources.policy.login else {
            // A reload has removed the users since the page was requested.
            return Err(Busy);
        };
        if !self.mailbox.has_room_for_login() {
            password_checks.count_busy();
            return Err(Busy);
        }
        let (way, clock, expiry) = (
            self.mailbox.login_way(),
            *self.time.clock(),
            self.requests.expiry(),
        );
        let answer = move |verdict| {
            let answer = match verdict {
                LoginVerdict::Accepted { claims } => policy
                    .tokens
                    .issue(&claims, Some(expiry.as_secs()), clock.now().unix_ms)
                    .map_or(LoginAnswer::Unsigned, LoginAnswer::Accepted),
                LoginVerdict::Refused => LoginAnswer::Refused,
                LoginVerdict::TooSoon { retry_after } => LoginAnswer::TooSoon {
                    retry_after_seconds: whole_seconds(retry_after),
                },
                LoginVerdict::Busy => LoginAnswer::Busy,
            };
            way.send(Answered {
                address: id.token().0,
                answer,
                user: named,
                client,
                users: policy.users.clone(),
            });
        };
        password_checks
            .submit(attempt, Box::new(answer))
            .map_err(|_| Busy)?;
        self.mailbox.login_is_under_way();
        Ok(())
    }

    pub(in crate::cores) fn answer_login(&mut self, id: ConnectionId, answer: &LoginAnswer, is_secure: bool) {
        let name = self.requests.cookie().to_owned();
        let answer = match answer {
            LoginAnswer::Accepted(issued) => PageAnswer::LoggedIn(SetCookie {
                name: &name,
                value: &issued.token,
                max_age_seconds: self.requests.expiry().as_secs(),
                secure: is_secure,
            }),
            LoginAnswer::Refused => PageAnswer::Unauthorized { head_only: false },
            LoginAnswer::TooSoon { retry_after_seconds } => PageAnswer::TooSoon {
                retry_after_seconds: *retry_after_seconds,
            },
            LoginAnswer::Unsigned => PageAnswer::Unsigned,
            LoginAnswer::Busy => PageAnswer::Busy,
        };
        self.answer_page(id, &answer);
        // No other event comes for a client that has already sent its FIN, so its socket is read now.
        self.read_again(id);
    }

    fn answer_page(&mut self, id: ConnectionId, answer: &PageAnswer<'_>) {
        self.metrics.http_answers.add(1);
        if matches!(answer, PageAnswer::TooLarge) {
            self.metrics.limit_hit(Limit::LoginBodyBytes);
        }
        self.connections.send_head(id, |bytes| answer.write(bytes));
        self.close(id, CloseReason::HttpAnswered);
    }

    /// Sends `100 Continue` once, if the client waits for it.
    fn send_continue(&mut self, id: ConnectionId, is_wanted: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if let Phase::Request { sent_continue, .. } = &mut connection.phase
            && is_wanted
            && !std::mem::replace(sent_continue, true)
        {
            self.connections
                .send_head(id, |bytes| bytes.extend_from_slice(login_pages::CONTINUE));
        }
    }

    /// Whether a trusted proxy says that it got the request over HTTPS. Asks the system for the peer's
    /// address, since `client` is the address that the proxy has named.
    pub(in crate::cores) fn proxy_says_https(&self, id: ConnectionId, request: &Request<'_>) -> bool {
        let proxies = &self.resources.policy.proxies;
        let says_so = || {
            let scheme = request.single_header("x-forwarded-proto");
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
        };
        let peer = || {
            let peer = self.connections.get(id)?.stream.socket.peer_addr().ok()?;
            Some(ClientAddress::from(peer))
        };
        proxies.x_forwarded_for && says_so() && peer().is_some_and(|peer| proxies.trusted.contain(&peer))
    }

    /// The origins whose pages may connect, and the origins whose pages may act for their users.
    pub(in crate::cores) fn origins(&self) -> Origins<'_> {
        let policy = &self.resources.policy;
        Origins {
            option: &policy.origins,
            list: &policy.allowed_origins,
        }
    }

    /// The claims of a token, if it is valid and authenticates the client.
    fn verified(&mut self, id: ConnectionId, token: &str, by: &str) -> Option<Claims> {
        match self
            .resources
            .policy
            .tokens
            .verify(token, self.time.now().unix_ms)
        {
            Ok(claims) => claims.is_truthy().then_some(claims),
            Err(error) => {
                self.audit_token_refused(id, error.label(), by);
                None
            }
        }
    }
}

/// Rounded up: a client that tries again after that time is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The ways of a login, as the audit trail names them.
pub(in crate::cores) const BY_CALL: &str = "call";
pub(in crate::cores) const BY_PAGE: &str = "page";
pub(in crate::cores) const BY_CONNECT: &str = "connect";
