//! The README's tables are those of the code. `UPDATE=1 cargo test --test readme` writes them anew.

use std::fs;
use std::path::Path;

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let found = fs::read_to_string(&file).unwrap();
    let mut wanted = found.clone();
    for (name, table) in [
        ("settings", ringcast::config::options::markdown()),
        ("metrics", ringcast::metrics::text::markdown()),
        ("close-codes", ringcast::metrics::close_codes::markdown()),
    ] {
        wanted = with_table(&wanted, name, &table);
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, wanted).unwrap();
        return;
    }
    assert!(
        found == wanted,
        "README.md is not up to date: run UPDATE=1 cargo test --test readme"
    );
}

/// The text with the table between the comments of that name replaced.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("README.md lacks {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("README.md lacks {end}"));
    format!("{before}{begin}{table}{end}{after}")
}
