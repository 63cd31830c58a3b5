//! Faults that are injected into the real binary with two cores, while eight healthy clients are connected.
//!
//! During each fault, every call of a healthy client must be answered, and every publication must arrive at each
//! healthy client exactly once and in the same order. Afterwards the server must have released everything. Each fault
//! is injected twice: the process may hold at most a tenth more memory after the second time than after the first,
//! which has filled the pools. If it holds more, perhaps by chance, the fault is injected again; memory that grows each
//! time is a leak. Latencies are measured and printed, but no test fails because of them.
//!
//! The faults are small by default. This command uses the full sizes and prints the table of `benches/faults.md`:
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
