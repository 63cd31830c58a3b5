//! What other threads ask of a core, and what it tells them.

pub(crate) mod audit_trail;
pub(crate) mod mailbox;
pub(crate) mod report;
pub(crate) mod revoking;
pub(crate) mod rules;
