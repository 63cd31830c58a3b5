//! Counters and their exposition.

pub mod block;
pub mod process;
pub mod text;
