//! Subscribers that get a part of the channel's past: from the question to the owner of the channel until the
//! subscription is live.
//!
//! `outgoing/recoveries.rs` has the states and their invariants; `connections/replays.rs` sends the
//! publications.

mod begin;
mod positions;
mod retained;
mod retained_values;
mod serve;
