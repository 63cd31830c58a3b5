//! HTTP/1.1 on the client port: the head of a request, the answers that refuse it, and three pages for users.
//!
//! PURE: bytes in, values out. The client port exists for WebSocket upgrades; everything else is answered here with
//! a few fixed bytes and `Connection: close`, as the reference server answers it (wire reference, section 2), but for
//! the pages of [`account`], where there is a password file.
//! Pages and an API for operators live on the control plane.

pub mod account;
pub mod cookie;
pub mod request;
pub mod response;

pub use request::Request;
pub use response::{Refusal, Status};
