//! The report: results as one page with plots that a person would rather look at than read.
//!
//! In come results as they were measured a moment ago or saved as JSON; out goes one HTML file that needs nothing else
//! (no scripts, no fonts, no network), follows the reader's light or dark theme and prints, or each figure as an SVG
//! file. `chart` draws and knows no results; `runs` composes the figures of load runs; `page` is the HTML around them.
//!
//! Not here: measuring, and the table on the terminal.

pub(crate) mod chart;
mod command;
mod page;
mod runs;

use std::path::Path;

pub(crate) use command::{Output, command};
use page::Page;

use crate::result::Run;

/// The page of some runs.
pub(crate) fn html(runs: &[Run]) -> String {
    runs::page(runs).html()
}

/// Writes what `output` asks for.
pub(crate) fn write(runs: &[Run], output: &Output) -> std::io::Result<()> {
    let page = runs::page(runs);
    if let Some(path) = &output.html {
        std::fs::write(path, page.html())?;
    }
    if let Some(directory) = &output.svg {
        write_svgs(&page, directory)?;
    }
    Ok(())
}

fn write_svgs(page: &Page, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for (name, svg) in page.svgs() {
        std::fs::write(directory.join(name).with_extension("svg"), svg)?;
    }
    Ok(())
}
