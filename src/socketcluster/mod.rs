//! The SocketCluster protocol, as version 20 of the reference server implements it: bytes in, decisions out.
//!
//! [`decode`] turns a message into a [`packet::Packet`], with the scanner in [`json`]; the packet's data is still the
//! client's own bytes. [`session::Session`] decides about the packet, and writes its answers with [`encode`].
//! [`min_bin`] turns such texts into MessagePack and back, for clients with that codec. [`version`] contains everything
//! in which the two protocol versions differ.
//!
//! Nothing here uses a socket, a clock or a thread.

pub mod decode;
pub mod encode;
pub mod environment;
pub mod min_bin;
pub mod number;
pub mod packet;
pub mod publication;
pub mod rewrite;
pub mod session;
pub mod settings;
pub mod version;

pub(crate) use crate::json::{self, string};
