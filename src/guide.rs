//! How to embed the server: a page for each task.
//!
//! The pages lie in `docs/embedding` of the repository; each example is compiled, and run where it needs no fixed port.

#[doc = include_str!("../docs/embedding/calls.md")]
///
/// Types: [`App::invoke`](crate::app::App::invoke), [`Peer`](crate::app::Peer),
/// [`CallAnswer`](crate::app::CallAnswer), [`Deferred`](crate::app::Deferred), [`AppError`](crate::app::AppError).
pub mod calls {}

#[doc = include_str!("../docs/embedding/permissions.md")]
///
/// Types: [`App`](crate::app::App), [`AllowedPublish`](crate::app::AllowedPublish), [`Refusal`](crate::app::Refusal),
/// [`Peer::defer_decision`](crate::app::Peer::defer_decision), [`DeferredDecision`](crate::app::DeferredDecision),
/// [`App::deliver`](crate::app::App::deliver), [`Outbound`](crate::app::Outbound),
/// [`RuleSpec`](crate::config::rules::RuleSpec).
pub mod permissions {}

#[doc = include_str!("../docs/embedding/logins.md")]
///
/// Types: [`Claims`](crate::app::Claims), [`Peer::set_auth_token`](crate::app::Peer::set_auth_token).
pub mod logins {}

#[doc = include_str!("../docs/embedding/connections.md")]
///
/// Types: [`App::context`](crate::app::App::context), [`Context`](crate::app::Context),
/// [`UpgradeRequest`](crate::app::UpgradeRequest), [`Client`](crate::app::Client), [`Tick`](crate::app::Tick),
/// [`Peer::set_timer`](crate::app::Peer::set_timer).
pub mod connections {}

#[doc = include_str!("../docs/embedding/configuration.md")]
///
/// Types: [`ConfigSources`](crate::config::ConfigSources), [`Config`](crate::config::Config).
pub mod configuration {}

#[doc = include_str!("../docs/embedding/reload.md")]
///
/// Types: [`Server::reload`](crate::server::Server::reload), [`Reloaded`](crate::server::Reloaded),
/// [`ReloadError`](crate::server::ReloadError).
pub mod reload {}

#[doc = include_str!("../docs/embedding/other-threads.md")]
///
/// Types: [`Server::handle`](crate::server::Server::handle), [`Handle`](crate::server::Handle),
/// [`Pending`](crate::server::Pending), [`Selection`](crate::server::Selection),
/// [`History`](crate::server::History), [`Server::subscribe`](crate::server::Server::subscribe),
/// [`Subscriber`](crate::server::Subscriber), [`HandleError`](crate::server::HandleError).
pub mod other_threads {}

#[doc = include_str!("../docs/embedding/metrics.md")]
///
/// Types: [`Server::admin_address`](crate::server::Server::admin_address), [`LogTo`](crate::server::LogTo).
pub mod metrics {}

#[doc = include_str!("../docs/embedding/other-code.md")]
///
/// Types: [`Embedding`](crate::server::Embedding), [`Descriptors`](crate::server::Descriptors),
/// [`SignalHandling`](crate::server::SignalHandling).
pub mod other_code {}

#[doc = include_str!("../docs/embedding/stopping.md")]
///
/// Types: [`Server`](crate::server::Server), [`Exit`](crate::server::Exit).
pub mod stopping {}
