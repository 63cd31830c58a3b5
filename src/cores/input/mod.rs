//! Input of open connections, and what is decided about it: from bytes to decisions that are carried out.

pub(super) mod carry_out;
pub(super) mod hits;
pub(super) mod intake;
pub(super) mod late_answers;
pub(super) mod login;
pub(super) mod messages;
pub(super) mod receive;
pub(super) mod resume;
pub(super) mod subscriptions;
