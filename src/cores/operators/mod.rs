//! Orders and questions of other threads to a core, and its answers.
//!
//! ```text
//!  mailbox.rs     orders, questions and answers come in  rules.rs     a new policy; checks after a reload
//!  operations.rs  unfinished orders                      revoking.rs  ends connections with revoked tokens
//!  questions.rs   questions about connections            drain.rs     the steps of a drain
//!  storing.rs     the end of a turn for the store
//!  report.rs      the answers to questions               draining.rs  which connections a drain closes next
//!  selection.rs   which connections are meant            lookup.rs    answers about connections and channels
//!  channel_policies.rs   new policies of channels        actions.rs   operations on connections
//!  histories.rs   answers about histories of channels    outcomes.rs  of calls to clients, on their way back
//!  services.rs    answers about services                service_lists.rs  the questions about them
//! ```

pub(crate) mod actions;
mod channel_policies;
pub(crate) mod drain;
pub(crate) mod draining;
pub(crate) mod histories;
pub(crate) mod lookup;
pub(crate) mod mailbox;
pub(crate) mod operations;
pub(crate) mod outcomes;
pub(crate) mod questions;
pub(crate) mod report;
pub(crate) mod revoking;
pub(crate) mod rules;
pub(crate) mod selection;
pub(crate) mod service_lists;
mod services;
pub(crate) mod storing;
mod webhooks;
