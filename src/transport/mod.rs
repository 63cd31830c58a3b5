//! Sockets: listening, passing them on, and reading and writing them plain or under TLS. Knows no WebSocket.

pub(crate) mod given;
pub(crate) mod hand_over;
pub(crate) mod listener;
pub(crate) mod stream;
pub(crate) mod succession;
pub(crate) mod tls;
pub(crate) mod unacknowledged;
