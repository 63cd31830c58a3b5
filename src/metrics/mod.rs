//! Counters and their exposition.

pub mod api;
pub mod block;
pub mod close_codes;
pub mod counter;
pub mod hooks;
pub mod limits;
pub mod logins;
pub mod outside;
pub mod process;
pub mod server;
pub mod services;
pub mod store;
pub mod text;
pub mod webhooks;
