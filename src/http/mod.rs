//! HTTP/1.1 on the client port: the head of a request, the answers that refuse it, and the few pages there are.
//!
//! PURE: bytes in, values out. The client port exists for WebSocket upgrades. Besides there are a probe for balancers and
//! the root ([`site`]) and, where there is a password file, three pages for users ([`account`]). Everything else is
//! answered with a few fixed bytes and `Connection: close`, as the reference server answers it (wire reference, section 2).
//! Pages and an API for operators live on the control plane.

mod authority;
mod body;
pub mod cookie;
pub mod login_pages;
pub mod request;
pub mod response;
pub mod site;

pub(crate) use authority::is_legal as is_legal_authority;
pub use request::Request;
pub use response::{Refusal, Status};
