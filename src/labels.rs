//! Enums whose variants are the values of a metric's label: one row for each variant.

/// Declares an enum with a label for each variant, and what tables of counters need:
///
/// ```text
/// labels! {
///     /// How a door was left.
///     pub enum Door {
///         /// It can be walked through.
///         Open = "open",
///         /// It cannot.
///         Closed = "closed",
///     }
/// }
/// ```
///
/// Labels are exposed in the order of the rows.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$doc:meta])+ $variant:ident = $label:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$doc])+ $variant,)+
        }

        #[allow(dead_code, reason = "each enum uses a part of it")]
        impl $name {
            /// All, in the order of their rows.
            $vis const ALL: [$name; Self::COUNT] = [$($name::$variant),+];

            /// How many there are, for tables.
            $vis const COUNT: usize = [$($label),+].len();

            /// All labels, by [`index`](Self::index).
            $vis const LABELS: [&'static str; Self::COUNT] = [$($label),+];

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
