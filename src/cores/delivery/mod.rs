//! From the ring to the outboxes of subscribers.

pub(super) mod abandoned_publications;
pub(super) mod channel_memory;
pub(super) mod core_store;
pub(super) mod fan_out;
pub(super) mod followers;
pub(super) mod policy_changes;
pub(super) mod retained_topics;
mod translation;
pub(super) mod webhook_publications;
