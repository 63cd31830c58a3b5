//! The bytes that wait to be sent, and what they take: the outbox of one connection and the buffers that outboxes share.

pub(super) mod conflated;
pub(super) mod forms;
pub(super) mod held_memory;
pub(super) mod outbox;
pub(super) mod shared_frames;
