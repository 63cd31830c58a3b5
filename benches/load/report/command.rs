//! The command `report FILE...`, which draws saved results.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use super::{Output, Results};

/// `report FILE.json... --html FILE --svg DIRECTORY`; `words` are the arguments after `report`. All files go into one
/// page, so that several runs form one sweep. An error is a sentence for the terminal.
pub(crate) fn command(words: &[OsString]) -> Result<(), String> {
    let (files, output) = parse(words).map_err(|error| error.to_string())?;
    if files.is_empty() || output == Output::default() {
        return Err(USAGE.to_owned());
    }
    let mut results = Results::default();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        read(&text, &mut results).map_err(|error| not_a_result(file, &error))?;
    }
    let written = results.write(&output);
    written.map_err(|error| format!("the report cannot be written: {error}"))
}

fn parse(words: &[OsString]) -> Result<(Vec<PathBuf>, Output), lexopt::Error> {
    let mut files = Vec::new();
    let mut output = Output::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next()? {
        match word {
            Arg::Long("html") => output.html = Some(parser.value()?.into()),
            Arg::Long("svg") => output.svg = Some(parser.value()?.into()),
            Arg::Value(file) => files.push(file.into()),
            Arg::Long(_) | Arg::Short(_) => return Err(word.unexpected()),
        }
    }
    Ok((files, output))
}

/// Adds the result in one file: a comparison if it has measures, otherwise a run.
fn read(text: &str, results: &mut Results) -> serde_json::Result<()> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    if value.get("measures").is_some() {
        results.comparisons.push(serde_json::from_value(value)?);
    } else {
        results.runs.push(serde_json::from_value(value)?);
    }
    Ok(())
}

fn not_a_result(file: &Path, error: &serde_json::Error) -> String {
    format!("{} is not a result of this bench: {error}", file.display())
}

const USAGE: &str = "report FILE.json... [--html FILE] [--svg DIRECTORY], one of the two at least";
