//! The report: draws results as one page with plots.
//!
//! In: results of this run, or saved as JSON. Out: one HTML file, or each figure as an SVG file. The HTML file needs no
//! other file (no scripts, no fonts, no network), has a light and a dark theme, and can be printed. `chart` draws and
//! knows no results; `runs` and `comparison` make the figures of runs and comparisons; `page` is the HTML around them.
//!
//! Not here: the measurements, and the table on the terminal.

pub(crate) mod chart;
mod command;
mod comparison;
mod page;
mod runs;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use command::command;
use page::Page;

use super::compare::result::{self as compared, Comparison};
use super::result::{self, Run};

/// The content of a page: any number of runs and comparisons.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) runs: Vec<Run>,
    pub(crate) comparisons: Vec<Comparison>,
}

/// The files to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// One page: `--html FILE`.
    pub(crate) html: Option<PathBuf>,
    /// Each figure as a file: `--svg DIRECTORY`.
    pub(crate) svg: Option<PathBuf>,
}

impl From<Run> for Results {
    fn from(run: Run) -> Self {
        Self {
            runs: vec![run],
            comparisons: Vec::new(),
        }
    }
}

impl From<Comparison> for Results {
    fn from(comparison: Comparison) -> Self {
        Self {
            runs: Vec::new(),
            comparisons: vec![comparison],
        }
    }
}

impl Results {
    /// The page.
    pub(crate) fn html(&self) -> String {
        self.page().html()
    }

    /// Each figure as a file: its name without extension, and the SVG.
    pub(crate) fn svgs(&self) -> Vec<(String, String)> {
        self.page().svgs()
    }

    /// Writes the files.
    pub(crate) fn write(&self, output: &Output) -> io::Result<()> {
        if let Some(path) = &output.html {
            std::fs::write(path, self.html())?;
        }
        if let Some(directory) = &output.svg {
            self.write_svgs(directory)?;
        }
        Ok(())
    }

    fn write_svgs(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        for (name, svg) in self.svgs() {
            std::fs::write(directory.join(name).with_extension("svg"), svg)?;
        }
        Ok(())
    }

    /// Comparisons come first, because most readers look for them.
    fn page(&self) -> Page {
        if self.runs.is_empty()
            && let [only] = self.comparisons.as_slice()
        {
            return comparison::page(only);
        }
        let mut page = runs::page(&self.runs);
        for compared in self.comparisons.iter().rev() {
            page.notices.splice(0..0, comparison::notices(compared));
            page.sections.splice(0..0, comparison::sections(compared));
        }
        page
    }
}
