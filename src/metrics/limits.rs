//! The table of limits in `docs/metrics.md`, made from the rows of [`Limit`].

use crate::decision::Limit;

/// The values of the label `limit` in Markdown, each with the outcome when the limit is reached.
pub fn markdown() -> String {
    let mut table = "| `limit` | the limit, and what happens when it is reached |\n|---|---|\n".to_owned();
    for (label, doc) in Limit::LABELS.iter().zip(Limit::DOCS) {
        table.push_str(&format!("| `{label}` | {doc} |\n"));
    }
    table
}
