//! Faults made on purpose, each beside eight healthy clients on the real binary with two cores.
//!
//! What must hold beside every one of them: each call of a healthy client is answered, each publication arrives at each
//! of them exactly once and in the one order; and afterwards everything is released. Each fault is made twice: what the
//! process has in memory after the second time is no more than a tenth above what it had after the first, which has
//! filled the pools; if it is, by chance, the fault is made again, and what grows each time is a leak. Latencies are measured and printed, never judged.
//!
//! Small by default. The full sizes, with the table of `benches/faults.md`:
//!
//! ```sh
//! FAULTS=full cargo test --release --test faults -- --nocapture --test-threads=1
//! ```

#![allow(clippy::unwrap_used)] // a test

mod clocks;
mod deaf;
mod exhaustion;
mod floods;
mod harness;
mod healthy;
mod slow;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
