//! How publications reach subscribers.

/// How publications reach subscribers.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What happens to a subscriber that does not keep up.
    pub slow_consumer: SlowConsumer,
    /// Whether messages may be compressed (permessage-deflate), for clients that offer it.
    pub compression: bool,
    /// The shortest message that is compressed, in bytes.
    pub compression_bytes_min: u32,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            slow_consumer: SlowConsumer::Close,
            compression: false,
            compression_bytes_min: 1024,
        }
    }
}

/// What happens to a subscriber whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Close it with 4010, so that it comes back and starts afresh.
    #[default]
    Close,
    /// Skip publications for it, and count them, until it has caught up.
    Skip,
    /// Keep the newest publication of each channel until its outbox has been sent. One for which that takes more than
    /// `outbox_bytes_max` again is closed with 4010.
    Conflate,
}
