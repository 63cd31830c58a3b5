//! The three pages for users on the client port: log in, log out, and "who am I".
//!
//! In: a request with a complete head, and the part of its body that has come. Out: the next [`Step`].
//! Checking passwords and tokens is not done here.
//!
//! Every answer ends its connection, and no cache keeps it. There are no `Access-Control` headers, so a page
//! of another site can neither read an answer nor send a request that needs a CORS preflight.
//!
//! Limits: `login_body_bytes_max` (413). A login needs a body with a `Content-Length` or in chunks (411).

use super::body::{self, BodyError};
use super::cookie::{self, SetCookie};
use super::request::Expectation;
use super::site::is_endpoint;
use super::{Request, Status};
use crate::auth::{CredentialFields, Credentials, NoCredentials};
use crate::client::ambient::Trust;

/// The paths of the pages and their settings.
#[derive(Clone, Debug)]
pub struct LoginPages {
    login_path: String,
    logout_path: String,
    whoami_path: String,
    fields: CredentialFields,
    body_bytes_max: u64,
}

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Takes a name and a password.
    Login,
    /// Deletes the cookie.
    Logout,
    /// Shows the claims of a token.
    Whoami,
}

/// What the caller has to do for a request.
pub enum Step<'a> {
    /// Wait for the rest of the body. With `send_continue`, first send [`CONTINUE`], since the client waits
    /// for it.
    Incomplete {
        /// True for `Expect: 100-continue`.
        send_continue: bool,
    },
    /// Send this answer.
    Answer(PageAnswer<'static>),
    /// Check this name and password.
    LogIn(Credentials),
    /// Answer by deleting the cookie.
    LogOut,
    /// Check this token and show its claims.
    Show(&'a str),
}

/// The answers of the pages.
#[derive(Clone, Copy, Debug)]
pub enum PageAnswer<'a> {
    /// A token, in the body and in the cookie.
    LoggedIn(SetCookie<'a>),
    /// Deletes the cookie.
    LoggedOut(SetCookie<'a>),
    /// The claims of a token, as JSON. For the method HEAD without the body.
    Claims {
        /// The claims.
        json: &'a str,
        /// True for HEAD.
        head_only: bool,
    },
    /// The name or the password is wrong, or there is no valid token.
    Unauthorized {
        /// True for HEAD.
        head_only: bool,
    },
    /// There were too many failed attempts.
    TooSoon {
        /// How long the client has to wait.
        retry_after_seconds: u64,
    },
    /// There is no room for another attempt.
    Busy,
    /// A token could not be signed.
    Unsigned,
    /// The body does not contain a name and a password.
    NoCredentials,
    /// The request comes from a page of another site.
    OtherSite,
    /// The method is not allowed; these are.
    Method(&'static str),
    /// The request has neither a `Content-Length` nor chunks.
    LengthRequired,
    /// The chunks are malformed.
    Chunks,
    /// The body is over the limit.
    TooLarge,
    /// The body is neither JSON nor a form.
    MediaType,
}

impl LoginPages {
    /// The pages of a server: `login_path`, and beside it `logout` and `whoami`.
    pub fn new(login_path: &str, fields: CredentialFields, body_bytes_max: u32) -> LoginPages {
        let folder = login_path.rsplit_once('/').map_or("", |(folder, _)| folder);
        LoginPages {
            login_path: login_path.to_owned(),
            logout_path: format!("{folder}/logout"),
            whoami_path: format!("{folder}/whoami"),
            fields,
            body_bytes_max: body_bytes_max.into(),
        }
    }

    /// The page of a path, with or without a slash at its end.
    pub fn page(&self, path: &str) -> Option<Page> {
        let pages = [
            (&self.login_path, Page::Login),
            (&self.logout_path, Page::Logout),
            (&self.whoami_path, Page::Whoami),
        ];
        let mut pages = pages.into_iter();
        pages
            .find(|(its_path, _)| is_endpoint(its_path, path))
            .map(|(_, page)| page)
    }

    /// The next step for a request for a page, with the part of its body that has come. `trust` tells whether
    /// the request may use the browser's cookie, and `cookie` is the name of the cookie with the token.
    pub fn step<'a>(
        &self,
        page: Page,
        request: &Request<'a>,
        body: &[u8],
        trust: Trust,
        cookie: &str,
    ) -> Step<'a> {
        match (page, request.method(), trust) {
            (Page::Login | Page::Logout, "POST", Trust::Foreign) => Step::Answer(PageAnswer::OtherSite),
            (Page::Login, "POST", Trust::Own) => self.login(request, body).unwrap_or_else(Step::Answer),
            (Page::Logout, "POST", Trust::Own) => Step::LogOut,
            (Page::Whoami, "GET" | "HEAD", _) => {
                let token = bearer(request).or_else(|| cookie::find(request, cookie)?.value_for(trust));
                token.map_or_else(
                    || {
                        let head_only = request.method() == "HEAD";
                        Step::Answer(PageAnswer::Unauthorized { head_only })
                    },
                    Step::Show,
                )
            }
            (Page::Login | Page::Logout, _, _) => Step::Answer(PageAnswer::Method("POST")),
            (Page::Whoami, _, _) => Step::Answer(PageAnswer::Method("GET, HEAD")),
        }
    }

    fn login<'a>(&self, request: &Request<'a>, body: &[u8]) -> Result<Step<'a>, PageAnswer<'static>> {
        let input = body;
        let body = body::read(request, input, self.body_bytes_max).map_err(|error| match error {
            BodyError::None => PageAnswer::LengthRequired,
            BodyError::TooLarge => PageAnswer::TooLarge,
            BodyError::Malformed => PageAnswer::Chunks,
        })?;
        let kind = Kind::of(request.single_header("content-type")).ok_or(PageAnswer::MediaType)?;
        let Some(body) = body else {
            let send_continue = input.is_empty() && request.expectation() == Expectation::Continue;
            return Ok(Step::Incomplete { send_continue });
        };
        let text = std::str::from_utf8(&body).map_err(|_| PageAnswer::NoCredentials)?;
        // `curl -d '{…}'` sends JSON but declares it as a form.
        let found = if kind == Kind::Json || text.trim_ascii_start().starts_with('{') {
            self.fields.in_json(text)
        } else {
            self.fields.in_form(text)
        };
        found
            .map(Step::LogIn)
            .map_err(|NoCredentials| PageAnswer::NoCredentials)
    }
}

/// The declared type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Form,
}

impl Kind {
    fn of(content_type: Option<&[u8]>) -> Option<Kind> {
        let Some(content_type) = content_type else {
            return Some(Kind::Form);
        };
        let essence = content_type.split(|&byte| byte == b';').next()?.trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Kind::Json)
        } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Some(Kind::Form)
        } else {
            None
        }
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).
fn bearer<'a>(request: &Request<'a>) -> Option<&'a str> {
    let value = std::str::from_utf8(request.single_header("authorization")?).ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii())
}

impl PageAnswer<'_> {
    /// Appends the whole answer. The connection is closed once it has been sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            PageAnswer::LoggedIn(cookie) => {
                write_start(out, "200 OK");
                cookie.write(out);
                write_json(out, &["{\"token\":\"", cookie.value, "\"}"], false);
            }
            PageAnswer::LoggedOut(cookie) => {
                write_start(out, "204 No Content");
                cookie.write(out);
                out.extend_from_slice(b"\r\n");
            }
            PageAnswer::Claims { json, head_only } => {
                write_start(out, "200 OK");
                write_json(out, &[json], head_only);
            }
            PageAnswer::Unauthorized { head_only } => {
                write_status(out, Status::UNAUTHORIZED);
                out.extend_from_slice(b"WWW-Authenticate: Bearer\r\n");
                write_json(out, &["{\"error\":\"Unauthorized\"}"], head_only);
            }
            PageAnswer::TooSoon { retry_after_seconds } => {
                write_status(out, Status::TOO_MANY_REQUESTS);
                write_retry_after(out, retry_after_seconds);
                write_error(out, "Too many logins have failed: try again later");
            }
            PageAnswer::Busy => {
                write_status(out, Status::SERVICE_UNAVAILABLE);
                write_retry_after(out, 1);
                write_error(out, "Too many logins wait: try again in a moment");
            }
            PageAnswer::Unsigned => {
                write_status(out, Status::INTERNAL_SERVER_ERROR);
                write_error(out, "No token could be signed");
            }
            PageAnswer::NoCredentials => {
                write_status(out, Status::BAD_REQUEST);
                write_error(out, "The body is no user name and password, as JSON or as a form");
            }
            PageAnswer::OtherSite => {
                write_status(out, Status::FORBIDDEN);
                write_error(out, "Not from a page of this origin");
            }
            PageAnswer::Method(allowed) => {
                write_status(out, Status::METHOD_NOT_ALLOWED);
                out.extend_from_slice(b"Allow: ");
                out.extend_from_slice(allowed.as_bytes());
                out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
            }
            PageAnswer::LengthRequired => {
                write_status(out, Status::LENGTH_REQUIRED);
                write_error(out, "A Content-Length is needed, or chunks");
            }
            PageAnswer::Chunks => {
                write_status(out, Status::BAD_REQUEST);
                write_error(out, "The chunks of the body cannot be read");
            }
            PageAnswer::TooLarge => {
                write_status(out, Status::PAYLOAD_TOO_LARGE);
                write_error(out, "The body is too large");
            }
            PageAnswer::MediaType => {
                write_status(out, Status::UNSUPPORTED_MEDIA_TYPE);
                write_error(out, "The body must be JSON or a form");
            }
        }
    }
}

fn write_status(out: &mut Vec<u8>, status: Status) {
    write_start(out, &format!("{} {}", status.code(), status.name()));
}

fn write_start(out: &mut Vec<u8>, status: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\nConnection: close\r\nCache-Control: no-store\r\n");
}

fn write_retry_after(out: &mut Vec<u8>, seconds: u64) {
    out.extend_from_slice(b"Retry-After: ");
    out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `text` contains no characters that JSON escapes.
fn write_error(out: &mut Vec<u8>, text: &'static str) {
    write_json(out, &["{\"error\":\"", text, "\"}"], false);
}

/// `nosniff` keeps a browser from treating the answer as a script or a page.
fn write_json(out: &mut Vec<u8>, pieces: &[&str], head_only: bool) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    out.extend_from_slice(
        b"Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nContent-Length: ",
    );
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    for piece in pieces.iter().filter(|_| !head_only) {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Sent first to a client that waits for it before it sends its body (RFC 9110 section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[cfg(test)]
mod tests;
