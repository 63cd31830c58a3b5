//! The bytes that wait to be sent: the outbox of a connection, the buffers that outboxes share, the memory they
//! take, subscriptions that are not live yet, and positions of publications that were withheld.

pub(super) mod conflated;
pub(super) mod forms;
pub(super) mod held_memory;
pub(super) mod outbox;
pub(super) mod packets;
pub(super) mod recoveries;
pub(super) mod retained_asks;
pub(super) mod shared_frames;
pub(super) mod withheld;
