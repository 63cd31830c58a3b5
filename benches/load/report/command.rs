//! The words of the command line that concern the report, and `report FILE...`, which draws saved results.

use std::path::{Path, PathBuf};

use super::write;
use crate::result::Run;

/// Where the report goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// One page: `--html FILE`.
    pub(crate) html: Option<PathBuf>,
    /// Each figure as a file: `--svg DIRECTORY`.
    pub(crate) svg: Option<PathBuf>,
}

/// `report FILE.json... --html FILE --svg DIRECTORY`: the words after `report`. All files go into one page, so that
/// several runs make one sweep. An error is a sentence for the terminal.
pub(crate) fn command(words: &[String]) -> Result<Output, String> {
    let (files, output) = parse(words)?;
    let mut runs = Vec::new();
    for file in &files {
        runs.extend(read(file)?);
    }
    write(&runs, &output).map_err(|error| format!("the report cannot be written: {error}"))?;
    Ok(output)
}

fn parse(words: &[String]) -> Result<(Vec<PathBuf>, Output), String> {
    let mut files = Vec::new();
    let mut output = Output::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut path = || {
            words
                .next()
                .map(PathBuf::from)
                .ok_or(format!("{word} wants a path"))
        };
        match word.as_str() {
            "--html" => output.html = Some(path()?),
            "--svg" => output.svg = Some(path()?),
            option if option.starts_with('-') => return Err(format!("report knows no {option}; {USAGE}")),
            file => files.push(PathBuf::from(file)),
        }
    }
    if files.is_empty() || output == Output::default() {
        return Err(USAGE.to_owned());
    }
    Ok((files, output))
}

/// The runs of one file: one result, or a list of them.
fn read(file: &Path) -> Result<Vec<Run>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let runs = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text)
    } else {
        serde_json::from_str(&text).map(|run| vec![run])
    };
    runs.map_err(|error| format!("{} is not a result of this bench: {error}", file.display()))
}

const USAGE: &str = "report FILE.json... [--html FILE] [--svg DIRECTORY], one of the two at least";
