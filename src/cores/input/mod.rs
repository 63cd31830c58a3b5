//! From the bytes of a socket to decisions, and what carries these out.

pub(super) mod carry_out;
pub(super) mod login;
pub(super) mod receive;
