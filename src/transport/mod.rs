//! Sockets: listening, passing them on, and reading and writing them plain or under TLS. Knows no WebSocket.

pub(crate) mod hand_over;
pub(crate) mod listener;
pub(crate) mod port;
pub(crate) mod socket_activation;
pub(crate) mod stream;
pub(crate) mod take_over;
pub(crate) mod tls;
pub(crate) mod unacknowledged;
