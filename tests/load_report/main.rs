//! Tests the report of the load generator: its charts and its pages.
#![allow(clippy::unwrap_used)] // a test

#[allow(dead_code)] // the load generator writes these values; the report only reads them
#[path = "../../benches/load/result.rs"]
mod result;
#[allow(dead_code)] // the same: the comparison writes them
#[path = "../../benches/load/compare"]
mod compare {
    pub(crate) mod result;
}
#[path = "../../benches/load/report/mod.rs"]
mod report;

mod charts;
mod pages;
