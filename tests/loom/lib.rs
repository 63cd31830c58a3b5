//! Includes the server's own files, not copies: the broker and the modules that it needs.

#[expect(dead_code, reason = "a core asks for more, for its metrics")]
#[path = "../../src/broker/mod.rs"]
pub mod broker;
#[expect(dead_code, reason = "subscriptions use a part of it")]
#[path = "../../src/slab.rs"]
mod slab;
#[path = "../../src/sync.rs"]
mod sync;
