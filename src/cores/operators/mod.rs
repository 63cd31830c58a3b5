//! What other threads ask of a core, and what it tells them.

pub(crate) mod drain;
pub(crate) mod draining;
pub(crate) mod mailbox;
pub(crate) mod operations;
pub(crate) mod questions;
pub(crate) mod report;
pub(crate) mod revoking;
pub(crate) mod rules;
