//! The report of the load generator.
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

#[test]
fn x() {
    let words: Vec<String> = std::env::var("WORDS")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    report::command(&words).unwrap();
}
