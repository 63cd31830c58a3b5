//! The known name that is most like a name that is not known.

/// How alike two names are, from 0 to 1.
pub(super) fn similarity(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(one, other)
}

/// The known name that is most like `name`; empty if there are none.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .max_by(|one, other| similarity(name, one).total_cmp(&similarity(name, other)))
        .unwrap_or_default()
}

/// The nearest name, unless it is so unlike the written one that it would only lead astray.
pub(super) fn alike(written: &str, nearest: String) -> Option<String> {
    Some(nearest).filter(|nearest| similarity(written, nearest) >= ALIKE_MIN)
}

/// `port` and `path` are less alike, `listn` and `listen` more.
const ALIKE_MIN: f64 = 0.75;
