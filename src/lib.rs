//! Ringcast: a realtime server as a library. SocketCluster clients connect to it unchanged; the program brings the
//! procedures, the permissions and the logins.
//!
//! The server has one event loop for each CPU core, each with its own connections and its own value of the application.
//! Publications go through a lock-free ring that all cores read, so that all subscribers of a channel see its
//! publications in the same order.
//!
//! ```
//! use ringcast::prelude::*;
//!
//! /// Adds numbers. Each core has a value of its own, so that no locks are needed.
//! struct Adder;
//!
//! impl App for Adder {
//!     fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
//!         match (call.event.as_str(), call.data.and_then(|data| data.parse::<Vec<f64>>(peer).ok())) {
//!             (Some("add"), Some(numbers)) => peer.reply(&numbers.iter().sum::<f64>()),
//!             _ => CallAnswer::silent(),
//!         }
//!     }
//! }
//!
//! let sources = ConfigSources::default()
//!     .set("listen", "127.0.0.1:0")
//!     .set("admin", "off");
//! let server = Server::from_sources(sources, Embedding::default(), |_core| Adder)?;
//! println!("serving ws://{}/socketcluster/", server.address());
//! server.drain();
//! server.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A JavaScript client calls it with `await socket.invoke("add", [1, 2, 3])`.
//!
//! | to | read |
//! |---|---|
//! | answer calls, at once or later | [`guide::calls`] |
//! | decide subscribe and publish, at once or later | [`guide::permissions`] |
//! | log clients in, read their tokens | [`guide::logins`] |
//! | know a connection, be told of its client, work at times of one's own | [`guide::connections`] |
//! | choose settings: file, environment, code | [`guide::configuration`] |
//! | reload rules, users, keys and certificates | [`guide::reload`] |
//! | publish, subscribe, look clients up, call them, act on them, from other threads | [`guide::other_threads`] |
//! | watch the server | [`guide::metrics`] |
//! | run it beside other code: threads, descriptors, signals | [`guide::other_code`] |
//! | stop it | [`guide::stopping`] |
//!
//! # What is the API
//! The modules listed below, and nothing else. `internals`, which the documentation does not show, serves this
//! repository's tests, benches and binary and changes without notice. Readers of the source begin with
//! `docs/architecture.md`.

#![deny(missing_docs)] // whatever the lints of the crate say

pub mod app;
mod audit;
mod auth;
mod broker;
mod cli;
mod client;
mod clock;
pub mod config;
mod control;
mod cores;
mod decision;
pub mod guide;
mod handle;
mod history;
mod hooks;
mod http;
#[doc(hidden)]
pub mod internals;
mod json;
mod labels;
mod log;
mod login;
mod machine;
mod metrics;
mod mqtt;
mod policy;
pub mod prelude;
mod presence;
mod protocols;
mod replace;
mod retained;
pub mod server;
mod services;
mod session;
mod slab;
mod socketcluster;
mod store;
mod sync;
mod targets;
mod text;
mod transport;
mod unicode;
mod webhooks;
mod websocket;
mod wills;
mod wipe;
