//! The page of load runs: first the figures of all runs together (a sweep, memory), then each run by itself.
//!
//! A figure appears if the results contain enough for it: two rates for a sweep, two numbers of connections for memory.

mod balance;
mod distribution;
mod memory;
mod series;
mod summary;
mod sweep;

use super::super::result::Run;
use super::page::{Page, Section};

/// The page of the runs, in their order.
pub(super) fn page(runs: &[Run]) -> Page {
    let figures: Vec<_> = sweep::figures(runs)
        .into_iter()
        .chain(memory::figure(runs))
        .collect();
    let mut sections = Vec::new();
    if !figures.is_empty() {
        sections.push(Section {
            title: "Rate, latency and memory".to_owned(),
            figures,
            ..Section::default()
        });
    }
    for (index, run) in runs.iter().enumerate() {
        sections.push(section(run, index, runs.len()));
    }
    sections.extend(summary::origin(runs));
    Page {
        title: summary::title(runs),
        lead: summary::lead(runs),
        notices: summary::notices(runs),
        tiles: summary::tiles(runs),
        sections,
    }
}

fn section(run: &Run, index: usize, count: usize) -> Section {
    let name = if count == 1 {
        run.scenario.clone()
    } else {
        format!("{}-{}", run.scenario, index + 1)
    };
    let name = file_name(&name);
    let figures = series::figure(run, &name)
        .into_iter()
        .chain(distribution::figures(run, &name))
        .chain(balance::figures(run, &name))
        .collect();
    let title = if count == 1 {
        "The run".to_owned()
    } else {
        format!(
            "Run {} of {count}: {} on {}",
            index + 1,
            run.scenario,
            run.server.name
        )
    };
    Section {
        title,
        figures,
        tables: summary::tables(run),
        notes: run.notes.clone(),
        ..Section::default()
    }
}

/// The name in a form that is suitable for the name of a file.
fn file_name(name: &str) -> String {
    let kept = |character: char| {
        if character.is_ascii_alphanumeric() {
            character.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(kept).collect()
}
