//! Credentials that a browser adds to requests by itself.
//!
//! A browser sends cookies, and shows a client certificate, whichever page makes it send a request; so such a credential
//! says who sits in front of the browser, not whose page asks. If every page could use them, any site could act as its
//! visitor (cross-site request forgery, cross-site WebSocket hijacking).
//!
//! Invariants
//! 1. A credential of this kind leaves the place where it is read as an [`Ambient`], and [`Ambient::heeded`] is the only
//!    way to its value: without a verdict about the page that asks, there is none. A new kind is wrapped where it is read.
//! 2. Tokens that a page has to hold itself (the handshake, `Authorization`, a call) are not of this kind.

use std::fmt;

/// Whether the page that makes a browser ask may speak for the browser's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It may: a page of this server, or of an origin that was named. A program that is no browser speaks for itself.
    Own,
    /// It may not: any page on the net.
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

    /// The credential, if it counts for the page that asks.
    pub fn heeded(self, trust: Trust) -> Option<T> {
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
