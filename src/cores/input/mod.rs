//! Input of open connections: from bytes to decisions that are carried out.
//!
//! ```text
//!  receive.rs       reads a socket                       carry_out.rs      carries decisions out, in order
//!  messages.rs      the messages of one read             subscriptions.rs  subscribe, unsubscribe, check by the rules
//!  intake.rs        the read buffer and the turn's       login.rs          logins over a session
//!                   shares; calls the session            late_answers.rs   answers from other threads
//!  session_counts.rs  adds counts of sessions to metrics resume.rs         continues work that had to wait
//!  wills.rs         wills that clients set               history_calls.rs  calls of $history
//!  stored.rs        publications that a store keeps
//! ```

pub(super) mod carry_out;
pub(super) mod history_calls;
pub(super) mod intake;
pub(in crate::cores) mod late_answers;
pub(super) mod login;
pub(super) mod messages;
pub(super) mod receive;
pub(super) mod resume;
pub(super) mod server_subscriptions;
pub(super) mod session_counts;
pub(super) mod stored;
pub(super) mod subscriptions;
mod wills;
