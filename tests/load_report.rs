//! The report of the load generator: its tests lie beside its sources, and are run from here, since a bench has none.
#![allow(clippy::unwrap_used)] // a test

#[allow(dead_code)] // the load generator writes what the report only reads
#[path = "../benches/load/result.rs"]
mod result;
#[allow(dead_code)]
#[path = "../benches/load/compare"]
mod compare {
    pub(crate) mod result;
}
#[path = "../benches/load/report/mod.rs"]
mod report;
