//! Of the configuration, only what bounds subscriptions.

#[path = "../../src/config/limits.rs"]
pub mod limits;
