//! HTTP/1.1 on the client port: the head of a request, the answers that refuse a request, and a few pages.
//!
//! PURE: bytes in, values out. The client port is for WebSocket upgrades. It also has a probe for load
//! balancers and a root page ([`site`]) and, if there is a password file, three pages for users
//! ([`login_pages`]). Every other request is answered with a few fixed bytes and `Connection: close`, as the
//! reference server does (wire reference, section 2). Pages and an API for operators are on the control
//! plane.

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
