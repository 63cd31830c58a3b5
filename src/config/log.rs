//! The log.

use crate::log::Format;

/// The log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// What a log line looks like.
    pub format: Format,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            filter: "info".to_owned(),
            format: Format::Text,
        }
    }
}
