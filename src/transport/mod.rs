//! Sockets: listening, handing over. Knows no WebSocket.

pub(crate) mod hand_over;
pub(crate) mod listener;
