//! The SocketCluster protocol, as the version 20 server speaks it: bytes in, decisions out.
//!
//! A message goes through [`decode`] (by the scanner in [`json`]), becomes a [`packet::Packet`] whose data is still the
//! client's own bytes, and is answered by [`session::Session`], which words its answers with [`encode`]. What the two
//! protocol versions do differently is in [`version`], all of it.
//!
//! Nothing here touches a socket, a clock or a thread.

pub mod decode;
pub mod encode;
pub mod json;
pub mod number;
pub mod packet;
pub mod rewrite;
pub mod session;
pub mod string;
pub mod version;
