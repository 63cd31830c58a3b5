//! Other HTTP servers, to which this server sends requests: `POST` with a JSON body, and an answer.
//!
//! ```text
//!  caller ──► Target::post ──► an idle connection, or a new one ──► request, signed ──► answer, bounded
//! ```
//! A [`Target`] is one URL of the configuration: its connections stay open between requests (HTTP/1.1 keep-alive), each
//! request has a deadline for everything from the look-up of the host's name to the last byte of the answer, and
//! answers are bounded in bytes. Redirects are not followed, and no proxy is used: a URL comes from the configuration,
//! never from a client or an answer.
//!
//! Not here: how many requests a caller makes at once, and whether it tries again.

mod address;
mod connect;
mod error;
mod look_ups;
mod signature;
mod target;

pub(crate) use self::address::Address;
pub(crate) use self::connect::{LinkLocal, Stream, connect, tls_of_authority, tls_of_system};
pub(crate) use self::error::ExchangeError;
pub(crate) use self::look_ups::{LOOK_UPS_MAX, LookUps};
pub(crate) use self::signature::Signer;
pub(crate) use self::target::{Answer, Target, TargetError, TargetSettings};

#[cfg(test)]
mod tests;
