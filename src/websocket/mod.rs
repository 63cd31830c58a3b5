//! RFC 6455 without I/O: the opening handshake, frames, messages, the close handshake.
//!
//! PURE: bytes in, values out. The core keeps one [`Receiver`] per connection and feeds it from the read buffer that
//! all its connections share; what is sent is framed once, by whoever encodes it, with [`frame::write_header`].
//!
//! ```text
//!   bytes ─► handshake::upgrade ─► 101        bytes ─► Receiver::receive ─► Text | Binary | Ping | Pong | Close
//!                  └─► http::Refusal                        └─► CloseReason: the code of our close frame
//! ```
//!
//! Where RFC 6455 leaves a choice, the npm package `ws` decides: it is the reference server's engine. Where `ws` is
//! laxer than the RFC (lengths that are not minimal) the RFC decides; where the RFC allows to fail early (UTF-8) we
//! do, and `ws` waits for the end of the message. The one extension is permessage-deflate (RFC 7692), if it is switched on.

pub mod close;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod origins;
mod utf8;

pub use close::CloseFrame;
pub use deflate::{Compression, Deflater, Inflater};
pub use frame::OpCode;
pub use message::{Limits, Passed, Received, Receiver, Step};
