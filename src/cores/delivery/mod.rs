//! From the ring to the outboxes of subscribers.

pub(super) mod abandoned_publications;
pub(super) mod channel_memory;
pub(super) mod fan_out;
pub(super) mod followers;
pub(super) mod policy_changes;
pub(super) mod remembered_on_disk;
pub(super) mod retained_topics;
pub(super) mod told_publications;
mod translation;
