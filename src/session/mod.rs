//! The common parts of the sessions of all protocols.
//!
//! A session belongs to one connection and speaks one protocol: `socketcluster` and `mqtt` have such
//! sessions, and `protocols` has the one type that a core knows. This module knows no protocol. It has the
//! values that every session is lent ([`Environment`]), the settings for all sessions, the ids that clients
//! are given, and the answers that sessions wait for from the rest of the server.

mod environment;
mod ids;
mod login;
mod marks;
mod protocol;
mod refusals;
mod reserved;
mod rule_hits;
mod scratch;
mod services;
mod settings;

pub use crate::app::SessionId;
pub use environment::{Asked, Environment};
pub use ids::SessionIds;
pub use login::LoginAnswer;
pub use marks::{MqttMarks, mqtt_marks};
pub(crate) use marks::{marks, marks_by};
pub use protocol::ClientProtocol;
pub use refusals::{ActionRefused, Refusals, TokenRefused};
pub use reserved::{SYS, is_of_the_server, is_topic, reserved, why_not_retained};
pub use rule_hits::RuleHits;
pub use scratch::{EventCounts, Hits, Scratch};
pub(crate) use services::ServiceCaller;
pub use settings::{CommonSettings, Logins, MqttUse};
