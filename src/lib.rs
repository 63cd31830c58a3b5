//! Ringcast: a thread-per-core WebSocket publish/subscribe and RPC server.

pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cores;
pub mod decision;
pub mod http;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod server;
pub mod session;
pub mod socketcluster;
mod sync;
mod transport;
pub mod websocket;
