//! The three pages for users on the client port: log in, log out, and who am I.
//!
//! In: a request whose head is complete, and as much of its body as has come. Out: what to do next ([`Step`]). Whether
//! a password is right, and what a token says, is asked elsewhere.
//!
//! Every answer ends its connection and is kept by no cache. There are no `Access-Control` headers: a page of another
//! site that a browser shows can neither read an answer nor send what would need leave.
//!
//! Limits: `login_body_bytes_max` (413). A login needs a body: a `Content-Length` or chunks (411).

use super::body::{self, BodyError};
use super::cookie::{self, SetCookie};
use super::request::Expectation;
use super::site::is_endpoint;
use super::{Request, Status};
use crate::auth::{CredentialFields, Credentials, NoCredentials};
use crate::client::ambient::Trust;

/// Where the pages are and what they take.
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
    /// Has the cookie forgotten.
    Logout,
    /// Shows the claims of a token.
    Whoami,
}

/// What to do about a request.
pub enum Step<'a> {
    /// Wait for the rest of the body; `tell` if the client waits for leave to send it.
    Incomplete {
        /// `Expect: 100-continue`
        tell: bool,
    },
    /// Send this.
    Answer(Answer<'static>),
    /// Ask whether this user is who he says.
    LogIn(Credentials),
    /// Have the cookie forgotten.
    LogOut,
    /// Check this token.
    Show(&'a str),
}

/// Answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A token, in the body and in the cookie.
    LoggedIn(SetCookie<'a>),
    /// The cookie is to be forgotten.
    LoggedOut(SetCookie<'a>),
    /// The claims of a token, as JSON; without the body, which the method HEAD does not want.
    Claims {
        /// JSON.
        json: &'a str,
        /// For HEAD.
        head_only: bool,
    },
    /// No name and password that go together, or no good token.
    Unauthorized {
        /// For HEAD.
        head_only: bool,
    },
    /// Too many attempts have failed.
    TooSoon {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// No room for another attempt.
    Busy,
    /// No token could be signed.
    Unsigned,
    /// The body holds no name and password.
    NoCredentials,
    /// The page that asks is another site's.
    OtherSite,
    /// Another method, and those that are right.
    Method(&'static str),
    /// Neither a `Content-Length` nor chunks.
    LengthRequired,
    /// Chunks that cannot be read.
    Chunks,
    /// A body over the limit.
    TooLarge,
    /// Neither JSON nor a form.
    MediaType,
}

impl LoginPages {
    /// The pages of a server: `login_path` and its neighbours `logout` and `whoami`.
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

    /// The page of a path, with or without the slash at its end.
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

    /// What to do about a request for a page, with as much of its body as has come. `trust` says whether the request comes
    /// from a page that may speak for its user; `cookie` is the name of the cookie that holds a token.
    pub fn step<'a>(
        &self,
        page: Page,
        request: &Request<'a>,
        body: &[u8],
        trust: Trust,
        cookie: &str,
    ) -> Step<'a> {
        match (page, request.method(), trust) {
            (Page::Login | Page::Logout, "POST", Trust::Foreign) => Step::Answer(Answer::OtherSite),
            (Page::Login, "POST", Trust::Own) => self.login(request, body).unwrap_or_else(Step::Answer),
            (Page::Logout, "POST", Trust::Own) => Step::LogOut,
            (Page::Whoami, "GET" | "HEAD", _) => {
                let token = bearer(request).or_else(|| cookie::find(request, cookie)?.heeded(trust));
                token.map_or_else(
                    || {
                        let head_only = request.method() == "HEAD";
                        Step::Answer(Answer::Unauthorized { head_only })
                    },
                    Step::Show,
                )
            }
            (Page::Login | Page::Logout, _, _) => Step::Answer(Answer::Method("POST")),
            (Page::Whoami, _, _) => Step::Answer(Answer::Method("GET, HEAD")),
        }
    }

    fn login<'a>(&self, request: &Request<'a>, body: &[u8]) -> Result<Step<'a>, Answer<'static>> {
        let input = body;
        let body = body::read(request, input, self.body_bytes_max).map_err(|error| match error {
            BodyError::None => Answer::LengthRequired,
            BodyError::TooLarge => Answer::TooLarge,
            BodyError::Malformed => Answer::Chunks,
        })?;
        let kind = Kind::of(request.single_header("content-type")).ok_or(Answer::MediaType)?;
        let Some(body) = body else {
            let tell = input.is_empty() && request.expectation() == Expectation::Continue;
            return Ok(Step::Incomplete { tell });
        };
        let text = std::str::from_utf8(&body).map_err(|_| Answer::NoCredentials)?;
        // What `curl -d '{…}'` sends is declared as a form.
        let found = if kind == Kind::Json || text.trim_ascii_start().starts_with('{') {
            self.fields.in_json(text)
        } else {
            self.fields.in_form(text)
        };
        found
            .map(Step::LogIn)
            .map_err(|NoCredentials| Answer::NoCredentials)
    }
}

/// What a body is declared to be.
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

impl Answer<'_> {
    /// Appends the whole answer. The connection is closed once it has been sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Answer::LoggedIn(cookie) => {
                write_start(out, "200 OK");
                cookie.write(out);
                write_json(out, &["{\"token\":\"", cookie.value, "\"}"], false);
            }
            Answer::LoggedOut(cookie) => {
                write_start(out, "204 No Content");
                cookie.write(out);
                out.extend_from_slice(b"\r\n");
            }
            Answer::Claims { json, head_only } => {
                write_start(out, "200 OK");
                write_json(out, &[json], head_only);
            }
            Answer::Unauthorized { head_only } => {
                write_status(out, Status::UNAUTHORIZED);
                out.extend_from_slice(b"WWW-Authenticate: Bearer\r\n");
                write_json(out, &["{\"error\":\"Unauthorized\"}"], head_only);
            }
            Answer::TooSoon { retry_after_seconds } => {
                write_status(out, Status::TOO_MANY_REQUESTS);
                write_retry_after(out, retry_after_seconds);
                write_error(out, "Too many logins have failed: try again later");
            }
            Answer::Busy => {
                write_status(out, Status::SERVICE_UNAVAILABLE);
                write_retry_after(out, 1);
                write_error(out, "Too many logins wait: try again in a moment");
            }
            Answer::Unsigned => {
                write_status(out, Status::INTERNAL_SERVER_ERROR);
                write_error(out, "No token could be signed");
            }
            Answer::NoCredentials => {
                write_status(out, Status::BAD_REQUEST);
                write_error(out, "The body is no user name and password, as JSON or as a form");
            }
            Answer::OtherSite => {
                write_status(out, Status::FORBIDDEN);
                write_error(out, "Not from a page of this origin");
            }
            Answer::Method(allowed) => {
                write_status(out, Status::METHOD_NOT_ALLOWED);
                out.extend_from_slice(b"Allow: ");
                out.extend_from_slice(allowed.as_bytes());
                out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
            }
            Answer::LengthRequired => {
                write_status(out, Status::LENGTH_REQUIRED);
                write_error(out, "A Content-Length is needed, or chunks");
            }
            Answer::Chunks => {
                write_status(out, Status::BAD_REQUEST);
                write_error(out, "The chunks of the body cannot be read");
            }
            Answer::TooLarge => {
                write_status(out, Status::PAYLOAD_TOO_LARGE);
                write_error(out, "The body is too large");
            }
            Answer::MediaType => {
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

/// `text` holds nothing that JSON escapes.
fn write_error(out: &mut Vec<u8>, text: &'static str) {
    write_json(out, &["{\"error\":\"", text, "\"}"], false);
}

/// `nosniff` keeps a browser from taking it for a script or a page.
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

/// What a client that waits for leave to send its body is told first (RFC 9110 section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[cfg(test)]
mod tests;
