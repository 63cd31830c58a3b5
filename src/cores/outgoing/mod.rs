//! The connections of a core and what waits to be sent to each.

pub(super) mod conflated;
pub(super) mod connections;
pub(super) mod forms;
pub(super) mod held_memory;
pub(super) mod outbox;
pub(super) mod shared_frames;
