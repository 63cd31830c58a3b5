//! The pattern that a service registers: a name, or a prefix with a final `*`.

/// A checked pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<'a> {
    /// One name.
    Name(&'a [u8]),
    /// All names that begin like this, the prefix itself included.
    Prefix(&'a [u8]),
}

impl<'a> Pattern<'a> {
    /// Reads a pattern; `None` if it is none: it is empty or longer than [`PATTERN_BYTES_MAX`], has a `*` before its
    /// end, or begins like the names that belong to the server.
    pub fn parse(text: &'a [u8]) -> Option<Pattern<'a>> {
        let pattern = Pattern::checked(text);
        let (Pattern::Name(rest) | Pattern::Prefix(rest)) = pattern;
        let is_good = !text.is_empty() && text.len() <= PATTERN_BYTES_MAX && !rest.contains(&b'*');
        (is_good && !belongs_to_server(text)).then_some(pattern)
    }

    /// Reads a pattern that was checked before, by [`Pattern::parse`].
    #[inline]
    pub fn checked(text: &'a [u8]) -> Pattern<'a> {
        match text.strip_suffix(b"*") {
            Some(prefix) => Pattern::Prefix(prefix),
            None => Pattern::Name(text),
        }
    }

    /// Whether the pattern matches every name that `other` matches.
    pub fn covers(self, other: Pattern<'_>) -> bool {
        match (self, other) {
            (Pattern::Name(own), Pattern::Name(name)) => own == name,
            (Pattern::Name(_), Pattern::Prefix(_)) => false,
            (Pattern::Prefix(own), Pattern::Name(name) | Pattern::Prefix(name)) => name.starts_with(own),
        }
    }

    /// How many bytes of a name it fixes.
    pub fn bytes(self) -> usize {
        match self {
            Pattern::Name(name) | Pattern::Prefix(name) => name.len(),
        }
    }
}

/// Whether an event belongs to the protocol or the server, and never to a service.
#[inline]
pub(super) fn belongs_to_server(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'#' | b'$'))
}

/// The longest pattern.
pub const PATTERN_BYTES_MAX: usize = 256;
