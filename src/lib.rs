//! Ringcast: a thread-per-core WebSocket publish/subscribe and RPC server for SocketCluster clients.
//!
//! ```text
//!              core 0 (pinned thread)                      core 1 (pinned thread)
//!   accept ─► transport ─► websocket ─► session ─► app       the same, sharing nothing
//!              ▲                          │                         ▲  but the ring
//!              │                          ▼                         │
//!            outbox ◄── subscriptions ◄── RING (one total order) ───┘
//!
//!   control plane (one ordinary thread): metrics, health, signals, drain
//! ```
//!
//! Data flows one way: bytes in, frame, packet, the session's decision, then a reply into the outbox or a publication
//! into the ring, and from there to every interested core. No layer calls back up.
//!
//! | to find | look in |
//! |---|---|
//! | the event loop, accept, delivery, how connections end | [`cores`] |
//! | frames, messages, the upgrade | [`websocket`], [`http`] |
//! | packets, the handshake, every reserved event | [`socketcluster`] |
//! | what sessions of all protocols share; the one type over all of them | [`session`], [`protocols`] |
//! | the ring, channels and their subscribers | [`broker`] |
//! | tokens, password files | [`auth`], [`policy`] |
//! | who checks passwords, and how often | [`login`] |
//! | addresses of clients | [`client`] |
//! | what a program may decide | [`app`] |
//! | limits, settings | [`config`] |
//! | what text files may look like | [`text`] |
//! | what the machine allows | `machine` |
//! | files that are replaced as a whole | `replace` |
//! | metrics, health, signals, drain | [`metrics`], [`control`] |
//! | log lines, who came in and who was refused | [`log`], [`audit`] |
//!
//! A program that brings its own procedures implements [`app::App`] and starts a [`server::Server`]:
//!
//! ```
//! use ringcast::app::{Answer, App, Call, Peer};
//! use ringcast::config::Config;
//! use ringcast::server::{Embedding, Server};
//!
//! /// Adds numbers; there is one value per core, so that no locks are needed.
//! struct Adder;
//!
//! impl App for Adder {
//!     fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> Answer {
//!         match (call.event.as_str(), call.data.and_then(|data| data.parse::<Vec<f64>>(peer).ok())) {
//!             (Some("add"), Some(numbers)) => peer.reply(&numbers.iter().sum::<f64>()),
//!             _ => Answer::silent(),
//!         }
//!     }
//! }
//!
//! let mut config = Config::default();
//! config.listen.address = "127.0.0.1:0".parse()?;
//! config.admin.address = None;
//! let server = Server::start(&config, Embedding::default(), |_core| Adder)?;
//! println!("serving ws://{}/socketcluster/", server.address());
//! server.drain();
//! server.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod app;
pub mod audit;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod cores;
pub mod decision;
pub mod http;
mod labels;
pub mod log;
pub mod login;
mod machine;
pub mod metrics;
pub mod policy;
pub mod protocols;
mod replace;
pub mod server;
pub mod session;
mod slab;
pub mod socketcluster;
mod sync;
pub mod text;
mod transport;
pub mod websocket;
mod wipe;
