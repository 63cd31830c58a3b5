//! The MQTT protocol, versions 3.1, 3.1.1 and 5.0: bytes in, decisions out.
//!
//! [`publication`] is how a client's publication lies in the ring.
//!
//! Nothing here uses a socket, a clock or a thread.

pub mod publication;
