//! The report of the load generator: what its charts and its pages keep to.
#![allow(clippy::unwrap_used)] // a test

#[allow(dead_code)] // the load generator writes what the report only reads
#[path = "../../benches/load/result.rs"]
mod result;
#[allow(dead_code)] // likewise: the comparison writes it
#[path = "../../benches/load/compare"]
mod compare {
    pub(crate) mod result;
}
#[path = "../../benches/load/report/mod.rs"]
mod report;

mod charts;
mod pages;
