//! Counters and their exposition.

pub mod block;
