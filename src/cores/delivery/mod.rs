//! From the ring to the outboxes of subscribers.

pub(super) mod abandoned_publications;
pub(super) mod fan_out;
