//! The server's own files, and no copy of them: the broker, and what it needs.

pub mod auth;
#[path = "../../src/broker/mod.rs"]
pub mod broker;
pub mod config;
#[path = "../../src/decision.rs"]
pub mod decision;
#[expect(dead_code, reason = "subscriptions use a part of it")]
#[path = "../../src/slab.rs"]
mod slab;
#[path = "../../src/sync.rs"]
mod sync;
