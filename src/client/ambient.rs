//! Credentials that a browser adds to requests by itself.
//!
//! A browser sends cookies and client certificates with every request, whichever page causes it. So such a
//! credential identifies the user of the browser, but not the page that makes the request. If every page
//! could use it, any site could act as its visitor (cross-site request forgery, cross-site WebSocket
//! hijacking).
//!
//! Invariants
//! 1. Code that reads such a credential returns it as an [`Ambient`], and [`Ambient::value_for`] is the only
//!    way to its value: it needs a decision about the page that makes the request. New kinds of such
//!    credentials must be wrapped in the same way.
//! 2. Tokens that a page has to hold itself (in the handshake, `Authorization` or a call) are not of this
//!    kind.

use std::fmt;

/// Whether the page that makes a request may act for the browser's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It may: it is a page of this server or of an allowed origin, or the client is not a browser.
    Own,
    /// It may not: it can be any page on the internet.
    Foreign,
}

/// A credential that a browser adds by itself.
#[derive(Clone, Copy)]
pub struct Ambient<T>(T);

impl<T> Ambient<T> {
    /// Wraps a credential where it is read.
    pub const fn new(credential: T) -> Ambient<T> {
        Ambient(credential)
    }

    /// The credential, if the page that makes the request is trusted.
    pub fn value_for(self, trust: Trust) -> Option<T> {
        match trust {
            Trust::Own => Some(self.0),
            Trust::Foreign => None,
        }
    }
}

impl<T> fmt::Debug for Ambient<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ambient(…)")
    }
}
