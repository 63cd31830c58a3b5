//! Retained publications: for each topic the newest publication with RETAIN 1, for later subscribers (MQTT 5.0
//! section 3.3.1.3).
//!
//! Each core has one [`Retained`] with the topics that it owns ([`ChannelHash::owner`](crate::broker::ChannelHash)).
//! The core adds the retained publications that it reads from the ring, in the order of the ring, and answers cores
//! whose clients subscribe. Nothing here knows a connection or another core.
//!
//! ```text
//!   topics.rs  the topics of a core in order, and their bounds     entry.rs   one retained publication
//!   filter.rs  which topics a filter matches, and which to skip    stored.rs  the same as it lies on disk
//! ```

mod entry;
mod filter;
mod stored;
#[cfg(test)]
mod tests;
mod topics;

pub use entry::{Cause, Entry, Facts};
pub use filter::Filter;
pub use topics::{Bounds, Page, PageLimits, Retained, Set};
