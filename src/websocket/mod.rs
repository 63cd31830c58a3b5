//! RFC 6455 without I/O: the opening handshake, frames, messages, the close handshake.
//!
//! PURE: bytes in, values out. A core keeps one [`Receiver`] per connection and gives it bytes from the read buffer
//! that all connections of the core share. Messages to clients are framed once, by the code that encodes them, with
//! [`frame::write_header`].
//!
//! ```text
//!   bytes ─► handshake::upgrade ─► 101        bytes ─► Receiver::receive ─► Text | Binary | Ping | Pong | Close
//!                  └─► http::Refusal                        └─► CloseReason: the code of our close frame
//! ```
//!
//! Where RFC 6455 leaves a choice, this code does what the npm package `ws` does, the engine of the reference server.
//! Where `ws` is less strict than the RFC (lengths that are not minimal), it follows the RFC. Where the RFC allows an
//! early error (UTF-8), it reports the error early; `ws` waits for the end of the message. The only extension is
//! permessage-deflate (RFC 7692), if it is switched on.

pub mod close;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod origins;

pub use close::CloseFrame;
pub use deflate::{Compression, Deflater, Inflater};
pub use frame::OpCode;
pub use message::{Limits, Received, Receiver, SkipResult, Step};
