//! Ringcast: a thread-per-core WebSocket publish/subscribe and RPC server.

pub mod auth;
pub mod broker;
pub mod cli;
pub mod app;
pub mod clock;
pub mod config;
pub mod control;
pub mod decision;
pub mod http;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod websocket;
mod sync;
pub mod server;
pub mod session;
pub mod socketcluster;
