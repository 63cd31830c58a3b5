//! How a server starts beside its predecessor, and how it stops.

use std::time::Duration;

use super::form::{seconds, word};
use super::settings::settings;

settings! {
    /// How a server starts beside its predecessor, and how it stops.
    restart: Restart {
        /// Whether to start although another process of the same user serves the same addresses, and to take over its
        /// listening sockets. Meant for one start, as the flag `--take-over`.
        take_over: bool = false, "take_over", word();

        /// Seconds over which a stopping server spreads the closing of its connections.
        drain: Duration = Duration::from_secs(10), "drain_seconds", seconds!(0 to 86400);
    }
}
