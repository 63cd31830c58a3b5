//! The bytes that wait to be sent: the outbox of a connection, the buffers that outboxes share, and the memory they
//! take.

pub(super) mod conflated;
pub(super) mod forms;
pub(super) mod held_memory;
pub(super) mod outbox;
pub(super) mod shared_frames;
