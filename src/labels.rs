//! Enums whose variants are the values of a metric's label: one row for each variant, with its documentation.

/// Declares an enum with a label for each variant, and what tables of counters need:
///
/// ```text
/// labels! {
///     /// The result of a lookup in a cache.
///     pub enum Lookup {
///         /// The cache had the value.
///         Hit = "hit",
///         /// The cache did not have the value.
///         Miss = "miss",
///     }
/// }
/// ```
///
/// Labels are exposed in the order of the rows.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        #[allow(dead_code, reason = "each enum uses a part of it")]
        impl $name {
            /// All, in the order of their rows.
            $vis const ALL: [$name; Self::COUNT] = [$($name::$variant),+];

            /// How many there are, for tables.
            $vis const COUNT: usize = [$($label),+].len();

            /// All labels, by [`index`](Self::index).
            $vis const LABELS: [&'static str; Self::COUNT] = [$($label),+];

            /// The documentation of each row in one line, by [`index`](Self::index).
            $vis const DOCS: [&'static str; Self::COUNT] = [$(concat!($($doc),+).trim_ascii()),+];

            /// Its place in tables.
            $vis const fn index(self) -> usize {
                self as usize
            }

            /// The value of the metric's label.
            $vis const fn label(self) -> &'static str {
                Self::LABELS[self.index()]
            }
        }
    };
}

pub(crate) use labels;
