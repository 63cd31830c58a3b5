//! How publications reach subscribers: compression, and subscribers that do not keep up.

use super::form::{number, word, words};
use super::settings::settings;

settings! {
    /// How publications reach subscribers: compression, and subscribers that do not keep up.
    delivery: Delivery {
        /// Action on a subscriber whose outbox is full: `close` its connection, `skip` publications for it, or
        /// `conflate` them: it gets the newest of each channel once it has caught up. With `skip` and `conflate`, a
        /// SocketCluster client gets publications of channels with a history from the history once it has caught up,
        /// and none is left out.
        slow_consumer: SlowConsumer = SlowConsumer::Close, "slow_consumer", word();

        /// Whether messages are compressed (permessage-deflate) in both directions, for clients that offer it.
        compression: bool = false, "compression", word();

        /// Size in bytes of the shortest message that the server compresses for clients that agreed on compression.
        compression_bytes_min: u32 = 1024, "compression_bytes_min", number!(0 to 1073741824);
    }
}

/// What the server does with a subscriber whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Close its connection with 4010, so that it comes back and starts afresh.
    #[default]
    Close,
    /// Skip publications for it, and count them, until it has caught up.
    Skip,
    /// Keep the newest publication of each channel until its outbox has been sent. A subscriber for which these take
    /// more than `outbox_bytes_max` again is closed with 4010.
    Conflate,
}

words! {
    SlowConsumer, Text, "close, skip or conflate":
    "close" => Close, "skip" => Skip, "conflate" => Conflate,
}
