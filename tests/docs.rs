//! Checks the documentation: generated tables are up to date, links lead to existing files and headings, and each
//! setting, metric and source file that a page names exists. `UPDATE=1 cargo test --test docs` writes the tables again.

#![allow(clippy::unwrap_used)] // a test

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_tables_of_the_pages_are_those_of_the_code() {
    for (page, name, table) in [
        (
            "docs/configuration.md",
            "settings",
            ringcast::internals::config::settings::markdown(),
        ),
        (
            "docs/configuration.md",
            "channels",
            ringcast::config::channels::markdown(),
        ),
        (
            "docs/configuration.md",
            "services",
            ringcast::config::services::markdown(),
        ),
        (
            "docs/configuration.md",
            "webhooks",
            ringcast::config::webhooks::markdown(),
        ),
        (
            "docs/webhooks.md",
            "events",
            ringcast::config::webhooks::events_markdown(),
        ),
        (
            "docs/configuration.md",
            "hooks",
            ringcast::config::hooks::markdown(),
        ),
        (
            "docs/metrics.md",
            "metrics",
            ringcast::internals::metrics::text::markdown(),
        ),
        (
            "docs/metrics.md",
            "limits",
            ringcast::internals::metrics::limits::markdown(),
        ),
        (
            "docs/close-codes.md",
            "close-codes",
            ringcast::internals::metrics::close_codes::markdown(),
        ),
        ("benches/README.md", "budget", budget()),
    ] {
        let file = root().join(page);
        let found = fs::read_to_string(&file).unwrap();
        let wanted = with_table(&found, name, &table);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, wanted).unwrap();
            continue;
        }
        assert!(
            found == wanted,
            "{page} is not up to date: run UPDATE=1 cargo test --test docs"
        );
    }
}

/// The counts in `benches/budget.toml`, as a table.
fn budget() -> String {
    let file = fs::read_to_string(root().join("benches/budget.toml")).unwrap();
    let rows = file.lines().filter_map(|line| {
        let (step, counts) = line.strip_prefix('"')?.split_once("\" = { instructions = ")?;
        let (instructions, allocations) = counts.split_once(", allocations = ")?;
        Some(format!(
            "| {step} | {instructions} | {} |\n",
            allocations.trim_end_matches(" }")
        ))
    });
    let rows: Vec<String> = rows.collect();
    assert!(rows.len() > 40, "the counts are written as they were");
    format!(
        "| step | instructions | allocations |\n|---|---:|---:|\n{}",
        rows.concat()
    )
}

/// Each link within the repository leads to an existing file, and to one of its headings if it names one.
#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let leads_somewhere = target.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(heading)));
            if !leads_somewhere {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

#[test]
fn every_setting_and_metric_that_a_page_names_exists() {
    let settings = ringcast::internals::config::settings::markdown();
    let metrics = ringcast::internals::metrics::text::markdown();
    let mut unknown = Vec::new();
    for page in pages().into_iter().chain(files_for_prometheus()) {
        // The changelog may name settings that do not exist any more.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words {
            let is_known = match word {
                _ if word.ends_with('_') || NOT_SETTINGS.contains(&word) => true,
                _ if word.starts_with("RINGCAST_") => settings.contains(&format!("`{word}`")),
                _ if word.starts_with("ringcast_") => {
                    let name = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| word.strip_suffix(suffix))
                        .unwrap_or(word);
                    metrics.contains(&format!("`{word}`")) || metrics.contains(&format!("`{name}`"))
                }
                _ => true,
            };
            if !is_known {
                unknown.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "neither a setting nor a metric:\n{}",
        unknown.join("\n")
    );
}

/// An alert on a label that no metric has would never fire.
#[test]
fn every_value_of_a_label_that_an_alert_names_exists() {
    let mut sources = Vec::new();
    for folder in ["src/metrics", "src/decision"] {
        add_source_files(&root().join(folder), &mut sources);
    }
    let sources: String = sources
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let rules = fs::read_to_string(root().join("tuning/alerts.yml")).unwrap();
    let mut named = 0;
    for matcher in ["=~\"", "!~\""] {
        for values in rules.split(matcher).skip(1) {
            for value in values.split('"').next().unwrap().split('|') {
                named += 1;
                assert!(
                    sources.contains(&format!("\"{value}\"")),
                    "tuning/alerts.yml names {value}, which is no label of a metric"
                );
            }
        }
    }
    assert!(named > 10, "alerts.yml names labels in another form");
}

/// Pages that describe the sources must be adapted when a file is moved.
#[test]
fn every_source_file_that_a_page_names_is_there() {
    let mut missing = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for name in text
            .split('`')
            .filter(|word| word.ends_with(".rs") && word.contains('/'))
        {
            if !root().join(name).exists() && !root().join("src").join(name).exists() {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "files that are not there:\n{}",
        missing.join("\n")
    );
}

/// Pages say where something is as "`name` in `file.rs`", and must be adapted when it is moved.
#[test]
fn every_name_that_a_page_puts_into_a_source_file_is_there() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap().replace('\n', " ");
        for (names, file) in named_in_files(&text) {
            let paths = [root().join(&file), root().join("src").join(&file)];
            let Some(source) = paths.iter().find_map(|path| fs::read_to_string(path).ok()) else {
                missing.push(format!("{}: {file}", page.display()));
                continue;
            };
            for name in names {
                found += 1;
                if !defines(&source, name.rsplit("::").next().unwrap()) {
                    missing.push(format!("{}: {name} in {file}", page.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
    assert!(found > 20, "names are found: {found}");
}

/// What a text says to be in source files: names, and the file after them.
fn named_in_files(text: &str) -> Vec<(Vec<&str>, String)> {
    let words: Vec<&str> = text.split('`').collect();
    // Every second piece is between backticks.
    let mut named = Vec::new();
    for at in (3..words.len()).step_by(2) {
        if !words[at].ends_with(".rs") || words[at - 1].trim() != "in" {
            continue;
        }
        let mut names = vec![words[at - 2]];
        let mut before = at - 2;
        while before >= 3
            && matches!(words[before - 1], ", " | " and ")
            && words[before - 2]
                .chars()
                .all(|char| char.is_alphanumeric() || matches!(char, '_' | ':'))
        {
            before -= 2;
            names.push(words[before]);
        }
        named.push((names, words[at].to_owned()));
    }
    named
}

/// Whether a source file defines something of this name.
fn defines(source: &str, name: &str) -> bool {
    let kinds = [
        "fn ",
        "struct ",
        "enum ",
        "trait ",
        "type ",
        "const ",
        "static ",
        "mod ",
        "macro_rules! ",
    ];
    kinds.iter().any(|kind| {
        let item = format!("{kind}{name}");
        let mut ends = source.split(&item).skip(1);
        ends.any(|end| !end.starts_with(|char: char| char.is_alphanumeric() || char == '_'))
    })
}

#[test]
fn names_in_files_are_found_in_all_their_spellings() {
    let text = "| `a` in `x/y.rs`, `b.rs` | `B::c`, `d` and `e` in `z.rs` | `f` in words | `h` (in `w.rs`) |";
    let found = named_in_files(text);
    let expected = [(vec!["a"], "x/y.rs"), (vec!["e", "d", "B::c"], "z.rs")];
    let expected = expected.map(|(names, file)| (names, file.to_owned()));
    assert_eq!(found, expected);
    assert!(defines("pub fn begin<A>() {}", "begin") && !defines("fn begin_all() {}", "begin"));
}

/// A reader of the sources finds every module in the table of modules.
#[test]
fn the_architecture_lists_every_module() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = text.split("## The modules").nth(1).unwrap();
    let rows = table.split("\n## ").next().unwrap().lines();
    let listed: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let modules: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .filter(|name| !["lib", "main", "openapi.json"].contains(&&**name))
        .collect();
    let unlisted: Vec<&String> = modules
        .iter()
        .filter(|module| !listed.contains(&***module))
        .collect();
    assert!(unlisted.is_empty(), "modules without a row: {unlisted:?}");
    let gone: Vec<&&str> = listed
        .iter()
        .filter(|module| !modules.contains(**module))
        .collect();
    assert!(gone.is_empty(), "rows without a module: {gone:?}");
}

/// A row that is marked `on reload` promises an effect. What has an effect on reload is in the policy, except for the
/// filter of the log.
#[test]
fn every_setting_that_takes_effect_on_reload_is_read_by_the_policy() {
    let mut readers = vec![root().join("src/control/reload.rs")];
    add_source_files(&root().join("src/policy"), &mut readers);
    let read: String = readers
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let mut files = Vec::new();
    add_source_files(&root().join("src/config"), &mut files);
    let (mut marked, mut unread) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut section = "";
        for statement in text.split(';') {
            let code = || {
                statement
                    .lines()
                    .map(str::trim)
                    .filter(|line| !line.starts_with("//"))
            };
            let mut heads = code().filter(|line| line.ends_with('{') && line.contains(": "));
            if let Some(head) = heads.next_back() {
                section = head.split(':').next().unwrap();
            }
            if !statement.trim_end().ends_with(", on reload") {
                continue;
            }
            marked += 1;
            let row = code()
                .find(|line| line.contains(": ") && line.contains(" = "))
                .unwrap();
            let field = row.split(':').next().unwrap();
            let is_read = [format!(".{field}"), format!("config.{section}.clone()")]
                .iter()
                .any(|use_of_it| read.contains(use_of_it));
            if !is_read {
                unread.push(format!("{section}.{field}"));
            }
        }
    }
    assert!(marked > 10, "rows are found: {marked}");
    assert!(
        unread.is_empty(),
        "on reload, but not read at a reload: {unread:?}"
    );
}

/// Comments that name a source file must be adapted when the file is moved.
#[test]
fn every_source_file_that_a_comment_names_is_there() {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz/src", "docs"] {
        add_source_files(&root().join(folder), &mut files);
    }
    let mut missing = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let comments = text.lines().filter_map(|line| line.split_once("//"));
        for name in comments.flat_map(|(_, comment)| comment.split('`').skip(1).step_by(2)) {
            let names_file = name.ends_with(".rs") && !name.contains(' ');
            if names_file && !files.iter().any(|file| file.ends_with(name)) {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "files that are not there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_index_of_the_documentation_lists_every_page() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for page in pages_in("docs") {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "docs/README.md lacks {name}"
        );
    }
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md"))
        .unwrap()
        .lines()
        .count();
    assert!(
        lines <= 150,
        "README.md has {lines} lines of 150: what is for those who stay belongs in docs/"
    );
}

/// Words in the documentation that are not settings or metrics of the server: the name of the configuration file,
/// variables of tests and of other services, the package for Python.
const NOT_SETTINGS: &[&str] = &[
    "RINGCAST_CONFIG",
    "RINGCAST_API_URL",
    "RINGCAST_API_KEY",
    "RINGCAST_API_KEY_FILE",
    "RINGCAST_SEEDS",
    "RINGCAST_PORT",
    "RINGCAST_SERVICE_HOST",
    "ringcast_client",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All pages of documentation.
fn pages() -> Vec<PathBuf> {
    [
        "",
        "docs",
        "docs/embedding",
        "tuning",
        "benches",
        "benches/load",
        "benches/peers",
        "clients/js",
        "clients/python",
        "examples",
        "examples/hooks",
        "examples/moving",
        "fuzz",
    ]
    .iter()
    .flat_map(|folder| pages_in(folder))
    .collect()
}

/// Alert rules, their tests, and the dashboard.
fn files_for_prometheus() -> Vec<PathBuf> {
    ["alerts.yml", "alerts.test.yml", "grafana.json"]
        .iter()
        .map(|name| root().join("tuning").join(name))
        .collect()
}

fn add_source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn pages_in(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Targets of links within the repository. Links in code do not count.
fn links(text: &str) -> Vec<String> {
    let prose: String = text
        .split("```")
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\n")
        .split('`')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("");
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

/// The anchors of all headings: in lower case, with hyphens for blanks, and only letters, digits and underscores.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    text.lines()
        .filter(|line| {
            in_code ^= line.starts_with("```");
            !in_code && line.starts_with('#')
        })
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter_map(|c| match c {
                    ' ' | '-' => Some('-'),
                    c if c.is_alphanumeric() || c == '_' => Some(c),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

/// The text with a new table between the comments of that name.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("the page lacks {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("the page lacks {end}"));
    format!("{before}{begin}{table}{end}{after}")
}
