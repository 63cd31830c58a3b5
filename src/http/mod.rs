//! HTTP/1.1 on the client port: the head of a request, and the answers that refuse it.
//!
//! PURE: bytes in, values out. The client port exists for WebSocket upgrades; everything else is answered here with
//! a few fixed bytes and `Connection: close`, as the reference server answers it (wire reference, section 2).
//! Pages and an API for operators live on the control plane.

pub mod request;
pub mod response;

pub use request::Request;
pub use response::{Refusal, Status};
