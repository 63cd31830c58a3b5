//! Finds the imports and calls of the sources. The files are read as tokens, so that comments, strings and line breaks
//! make no difference, and neither does the spelling of a path: `crate::a::b`, `super::b`, `self::b`, groups in groups,
//! or a path in the middle of an expression or a macro.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One file of the crate, without the items that only tests have.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The path of the file's module, from the crate's root: `["cores", "input", "intake"]`.
    pub(crate) place: Vec<String>,
    /// All paths of two or more names, and all imports.
    pub(crate) named: Vec<Named>,
    /// The lines with the keyword `unsafe`.
    pub(crate) unsafe_lines: Vec<usize>,
    /// The methods in `impl Core`, each with the names of the methods of the core that it calls, by line.
    pub(crate) steps: BTreeMap<String, Vec<(usize, String)>>,
    /// The modules that the file declares.
    children: BTreeSet<String>,
}

/// A path in a source.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) line: usize,
    /// Whether `path` begins at the root of this crate; otherwise with another crate, or a name of the file.
    pub(crate) is_of_crate: bool,
    pub(crate) path: Vec<String>,
}

impl Source {
    /// Reads a file, whose module is `place`.
    pub(crate) fn read(path: PathBuf, place: Vec<String>, text: &str) -> Source {
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{path:?}: cannot be read as Rust: {error}"));
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut source = Source {
            path,
            place: place.clone(),
            ..Source::default()
        };
        source.children = declared(&tokens);
        source.walk(&tokens, &place);
        source
    }

    /// The module at the top of `src`.
    pub(crate) fn module(&self) -> &str {
        self.place.first().map_or("lib", String::as_str)
    }

    /// The modules at the top of this crate that the file names, by line.
    pub(crate) fn imported_modules(&self) -> impl Iterator<Item = (usize, &str)> {
        let of_crate = self.named.iter().filter(|named| named.is_of_crate);
        let first = of_crate.filter_map(|named| Some((named.line, named.path.first()?.as_str())));
        first.filter(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase()))
    }

    fn walk(&mut self, tokens: &[TokenTree], place: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                token if is_punct(token, '#') => match attribute(tokens, at) {
                    Some((group, after)) if is_for_tests(&group) => {
                        if is_punct(&tokens[at + 1], '!') {
                            return;
                        }
                        at = after_item(tokens, after);
                        continue;
                    }
                    _ => {}
                },
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                        (tokens.get(at + 1), tokens.get(at + 2))
                    {
                        let mut inner = place.to_vec();
                        inner.push(name.to_string());
                        self.walk_group(body, &inner);
                        at += 3;
                        continue;
                    }
                }
                TokenTree::Ident(ident) if ident == "impl" => {
                    if let Some(body) = core_of(&tokens[at + 1..]) {
                        self.read_steps(body);
                    }
                }
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    self.unsafe_lines.push(ident.span().start().line);
                }
                TokenTree::Ident(_) if !goes_on(tokens, at) => {
                    let is_import = at > 0 && is_ident(&tokens[at - 1], "use");
                    at = self.read_path(tokens, at, (place, &[]), is_import);
                    continue;
                }
                TokenTree::Group(group) => self.walk_group(group, place),
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    fn walk_group(&mut self, group: &Group, place: &[String]) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        self.walk(&tokens, place);
    }

    /// Reads the path that begins with the name at `at`, behind the names of `prefix` (the names before a group).
    /// Returns the place of the token behind it.
    fn read_path(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        (place, prefix): (&[String], &[String]),
        is_import: bool,
    ) -> usize {
        let line = tokens[at].span().start().line;
        let mut path = prefix.to_vec();
        path.push(tokens[at].to_string());
        at += 1;
        while is_double_colon(tokens, at) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(name)) => {
                    path.push(name.to_string());
                    at += 3;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for one in inner.split(|token| is_punct(token, ',')) {
                        if matches!(one.first(), Some(TokenTree::Ident(_))) {
                            self.read_path(one, 0, (place, &path), true);
                        }
                    }
                    return at + 3;
                }
                _ => break,
            }
        }
        if path.len() > 1 || is_import {
            let (is_of_crate, path) = self.path_from_root(path, place);
            self.named.push(Named {
                line,
                is_of_crate,
                path,
            });
        }
        at
    }

    /// The path from the crate's root, and true; or the path as it is.
    fn path_from_root(&self, path: Vec<String>, place: &[String]) -> (bool, Vec<String>) {
        let rest = |from: usize| path[from..].iter().filter(|name| *name != "self").cloned();
        match path[0].as_str() {
            "crate" => (true, rest(1).collect()),
            "self" => (true, place.iter().cloned().chain(rest(1)).collect()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let above = &place[..place.len().saturating_sub(ups)];
                (true, above.iter().cloned().chain(rest(ups)).collect())
            }
            name if self.children.contains(name) && place == self.place => {
                (true, place.iter().cloned().chain(rest(0)).collect())
            }
            _ => (false, rest(0).collect()),
        }
    }

    /// Reads the methods of an `impl Core`.
    fn read_steps(&mut self, body: &Group) {
        let tokens: Vec<TokenTree> = body.stream().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if let Some((group, after)) = attribute(&tokens, at)
                && is_for_tests(&group)
            {
                at = after_item(&tokens, after);
                continue;
            }
            if is_ident(&tokens[at], "fn")
                && let Some(TokenTree::Ident(name)) = tokens.get(at + 1)
            {
                let body = tokens[at..].iter().find_map(|token| match token {
                    TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
                    _ => None,
                });
                let mut calls = Vec::new();
                if let Some(body) = body {
                    read_calls(body.stream(), &mut calls);
                }
                self.steps.insert(name.to_string(), calls);
            }
            at += 1;
        }
    }
}

/// The calls of methods of the core: by `self`, as the `core` of a closure, or by the name of the type.
fn read_calls(tokens: TokenStream, calls: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => read_calls(group.stream(), calls),
            token if is_ident(token, "self") || is_ident(token, "core") => {
                if let [_, dot, TokenTree::Ident(name), TokenTree::Group(_), ..] = &tokens[at..]
                    && is_punct(dot, '.')
                {
                    calls.push((name.span().start().line, name.to_string()));
                }
            }
            token if is_ident(token, "Self") || is_ident(token, "Core") => {
                if is_double_colon(&tokens, at + 1)
                    && let Some(TokenTree::Ident(name)) = tokens.get(at + 3)
                {
                    calls.push((name.span().start().line, name.to_string()));
                }
            }
            _ => {}
        }
    }
}

/// The body of an `impl` of the core itself, if the tokens behind the keyword are one.
fn core_of(tokens: &[TokenTree]) -> Option<&Group> {
    let head = tokens
        .iter()
        .take_while(|token| !matches!(token, TokenTree::Group(_)));
    let head: Vec<String> = head.map(ToString::to_string).collect();
    let is_core = head.iter().any(|word| word == "Core") && !head.iter().any(|word| word == "for");
    match tokens.get(head.len()) {
        Some(TokenTree::Group(body)) if is_core && body.delimiter() == Delimiter::Brace => Some(body),
        _ => None,
    }
}

/// Whether the name at `at` goes on with a path, as `new` in `Vec::<u8>::new` does.
fn goes_on(tokens: &[TokenTree], at: usize) -> bool {
    let Some([before, one, two]) = at.checked_sub(3).map(|from| &tokens[from..at]) else {
        return false;
    };
    let is_name = matches!(before, TokenTree::Ident(name) if name != "use");
    (is_name || is_punct(before, '>')) && is_punct(one, ':') && is_punct(two, ':')
}

/// The names of the modules that are declared at this level, in other files.
fn declared(tokens: &[TokenTree]) -> BTreeSet<String> {
    let declared = tokens.windows(3).filter_map(|three| match three {
        [word, TokenTree::Ident(name), end] if is_ident(word, "mod") && is_punct(end, ';') => {
            Some(name.to_string())
        }
        _ => None,
    });
    declared.collect()
}

/// The brackets of the attribute at `at`, and the place behind it.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(Group, usize)> {
    if !is_punct(tokens.get(at)?, '#') {
        return None;
    }
    let at = at + 1 + usize::from(is_punct(tokens.get(at + 1)?, '!'));
    match tokens.get(at)? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => Some((group.clone(), at + 1)),
        _ => None,
    }
}

/// Whether an attribute is `cfg(test)` or `cfg(all(test, …))`.
fn is_for_tests(attribute: &Group) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

/// The place behind an item, a field, a statement or an arm that begins at `at`.
fn after_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some((_, after)) = attribute(tokens, at) {
        at = after;
    }
    const ITEMS: &[&str] = &[
        "fn", "impl", "struct", "enum", "trait", "mod", "use", "const", "static", "type", "let", "unsafe",
    ];
    let visibility = |token: &TokenTree| {
        is_ident(token, "pub")
            || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
    };
    let first = tokens[at..].iter().find(|token| !visibility(token));
    let is_item = first.is_some_and(|token| ITEMS.iter().any(|word| is_ident(token, word)));
    // The braces of an import, and of the value of a constant, do not end it.
    let ends_at_braces = !first.is_some_and(|token| {
        ["use", "const", "static", "let"]
            .iter()
            .any(|word| is_ident(token, word))
    }) || is_const_fn(&tokens[at..]);
    while let Some(token) = tokens.get(at) {
        at += 1;
        let is_end = match token {
            TokenTree::Group(group) => ends_at_braces && group.delimiter() == Delimiter::Brace,
            token => is_punct(token, ';') || (!is_item && is_punct(token, ',')),
        };
        if is_end {
            break;
        }
    }
    at
}

/// Whether the item at the beginning of `tokens` is a `const fn`.
fn is_const_fn(tokens: &[TokenTree]) -> bool {
    tokens
        .windows(2)
        .take(4)
        .any(|two| is_ident(&two[0], "const") && is_ident(&two[1], "fn"))
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

fn is_ident(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at..at + 2), Some([one, two]) if is_punct(one, ':') && is_punct(two, ':'))
}

/// All sources of the crate but the files of unit tests.
pub(crate) fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let relative = path.strip_prefix(&root).unwrap().with_extension("");
                let names = relative.iter().map(|name| name.to_str().unwrap().to_owned());
                let place: Vec<String> = names.filter(|name| name != "mod" && name != "lib").collect();
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source::read(path, place, &text));
            }
        }
    }
    assert!(found.len() > 30, "the sources are where this test looks for them");
    found
}
