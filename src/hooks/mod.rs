//! Decisions about clients that another program makes: asked over HTTP, or of a service (`[[hooks]]`).
//!
//! ```text
//!  session ──► Hooks::find ──► Hooks::ask ──► thread `hooks` ──► cache, circuit, a turn ──► Target::post
//!     ▲                                                                                        │
//!     └── mailbox of the core ◄── DeferredDecision::decide ◄── Reply::of_json ◄── answer ──────┘
//! ```
//! A session asks where it would ask the application, and the packet waits as for a decision that the application has
//! deferred (`app/deferred_decision.rs`): its connection is not read, and no other connection waits. The thread `hooks`
//! has a runtime of its own, so that a slow target holds neither a core nor the control plane.
//!
//! Publications of several connections share a request if the hook says so (`batches`).
//!
//! A hook with a `service` is asked by a call of that service instead, which the session makes
//! (`session/environment.rs`): no thread takes part, and the answer is read on the core of the client.
//!
//! [`Hooks`] are compiled once from the configuration and shared by all cores. A reload keeps unchanged hooks, with
//! their connections, cached answers and counts.
//!
//! Not here: HTTP (`targets`), and the effect of a decision (the session).
//!
//! Limits: the settings of each hook (`config/hooks.rs`); [`QUESTIONS_MAX`](asking::QUESTIONS_MAX) for all hooks.

mod asking;
mod batches;
mod cache;
mod circuit;
mod compiled;
mod hook;
mod question;
mod reply;

pub(crate) use self::compiled::Hooks;
pub(crate) use self::compiled::{Asked, COOKIES};
pub(crate) use self::hook::Hook;
pub(crate) use self::question::{MqttConnect, Subject};
