//! The rows of `[[services]]`: finds the row that applies to a pattern or a name.
//!
//! Of several rows that cover a pattern, the one with the longest pattern applies.

use std::sync::Arc;

use crate::config::ListFault;
pub use crate::config::services::{Absent, ServiceSpec, Terms};
use crate::metrics::services::ServiceMeters;
use crate::services::Pattern;

/// The compiled rows.
#[derive(Debug)]
pub struct Services {
    specs: Vec<ServiceSpec>,
    /// A row for each of `specs`, and at the end the row for patterns that no other covers.
    rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The terms of calls.
    pub terms: Terms,
    /// The counters.
    pub meters: Arc<ServiceMeters>,
}

impl Default for Services {
    fn default() -> Services {
        Services {
            specs: Vec::new(),
            rows: vec![Row {
                terms: Terms::default(),
                meters: ServiceMeters::new(OTHER),
            }],
        }
    }
}

impl Services {
    /// Compiles rows. If they are the same as `before`, `before` is returned; rows with the same pattern keep their
    /// counts.
    ///
    /// # Errors
    /// A row has an invalid pattern, or that of another row.
    pub fn compile(
        specs: &[ServiceSpec],
        before: Option<&Arc<Services>>,
    ) -> Result<Arc<Services>, ListFault> {
        if let Some(fault) = Services::faults(specs).into_iter().next() {
            return Err(fault);
        }
        if let Some(before) = before
            && before.specs == specs
        {
            return Ok(Arc::clone(before));
        }
        let meters_of = |pattern: &str| {
            let mut kept = before.iter().flat_map(|before| before.rows.iter());
            let kept = kept.find(|row| &*row.meters.pattern == pattern);
            kept.map_or_else(|| ServiceMeters::new(pattern), |row| Arc::clone(&row.meters))
        };
        let rows = specs.iter().map(|spec| Row {
            terms: spec.terms,
            meters: meters_of(&spec.pattern),
        });
        let other = Row {
            terms: Terms::default(),
            meters: meters_of(OTHER),
        };
        Ok(Arc::new(Services {
            specs: specs.to_vec(),
            rows: rows.chain([other]).collect(),
        }))
    }

    /// The faults of all rows.
    pub fn faults(specs: &[ServiceSpec]) -> Vec<ListFault> {
        let faults = specs.iter().enumerate().filter_map(|(index, spec)| {
            let fault = if Pattern::parse(spec.pattern.as_bytes()).is_none() {
                "found {}, expected the name of a procedure, or a prefix with a final *, that does not begin with # or $"
            } else if specs[..index].iter().any(|other| other.pattern == spec.pattern) {
                "found {}, which another row has: one row for each pattern"
            } else {
                return None;
            };
            Some(ListFault {
                list: "services",
                number: index + 1,
                file: spec.file.clone(),
                line: spec.line,
                fault: format!("pattern: {}", fault.replace("{}", &format!("{:?}", spec.pattern))),
            })
        });
        faults.collect()
    }

    /// Whether there are no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// The rows as written.
    pub fn specs(&self) -> &[ServiceSpec] {
        &self.specs
    }

    /// All rows, the last for the patterns that no other covers.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A row.
    pub fn row(&self, index: usize) -> &Row {
        &self.rows[index.min(self.rows.len() - 1)]
    }

    /// The index of the row that applies to a pattern, or to a name. All rows are compared.
    pub fn row_of(&self, pattern: Pattern<'_>) -> usize {
        self.covering(pattern).unwrap_or(self.rows.len() - 1)
    }

    /// The index of the row that covers a pattern, or a name, if one does.
    pub fn covering(&self, pattern: Pattern<'_>) -> Option<usize> {
        let covering = self.specs.iter().enumerate().filter_map(|(index, spec)| {
            let row = Pattern::parse(spec.pattern.as_bytes())?;
            row.covers(pattern).then_some((index, row))
        });
        let longest = covering.max_by_key(|(_, row)| (row.bytes(), matches!(row, Pattern::Name(_))));
        longest.map(|(index, _)| index)
    }

    /// The index here of a row of `before`.
    pub fn index_after(&self, before: &Services, index: usize) -> usize {
        let pattern = &before.row(index).meters.pattern;
        let mut rows = self.rows.iter();
        rows.position(|row| row.meters.pattern == *pattern)
            .unwrap_or(self.rows.len() - 1)
    }
}

/// The pattern of the row for all patterns that no other covers, as metrics name it. No row can have it.
const OTHER: &str = "";

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(pattern: &str, queue_calls: u32) -> ServiceSpec {
        ServiceSpec {
            pattern: pattern.to_owned(),
            terms: Terms {
                queue_calls,
                ..Terms::default()
            },
            file: None,
            line: 0,
        }
    }

    #[test]
    fn the_longest_row_that_covers_a_pattern_applies_to_it() {
        let specs = [
            spec("math.*", 1),
            spec("*", 2),
            spec("math.add", 3),
            spec("math.add*", 4),
        ];
        let services = Services::compile(&specs, None).unwrap();
        for (pattern, expected) in [
            ("math.add", 3),
            ("math.add*", 4),
            ("math.addition", 4),
            ("math.a*", 1),
            ("math.*", 1),
            ("math*", 2),
            ("math", 2),
            ("x", 2),
        ] {
            let row = services.row_of(Pattern::parse(pattern.as_bytes()).unwrap());
            assert_eq!(services.row(row).terms.queue_calls, expected, "{pattern}");
        }
        let none = Services::default();
        assert_eq!(none.covering(Pattern::Name(b"x")), None);
        assert_eq!(none.row(none.row_of(Pattern::Name(b"x"))).terms, Terms::default());
    }

    #[test]
    fn a_reload_keeps_the_counts_of_patterns_that_stay() {
        let before = Services::compile(&[spec("a", 1), spec("b", 1)], None).unwrap();
        let after = Services::compile(&[spec("c", 1), spec("b", 2)], Some(&before)).unwrap();
        assert!(Arc::ptr_eq(&before.row(1).meters, &after.row(1).meters));
        assert!(Arc::ptr_eq(&before.row(2).meters, &after.row(2).meters));
        assert_eq!([0, 1, 2].map(|row| after.index_after(&before, row)), [2, 1, 2]);
        let again = Services::compile(&[spec("c", 1), spec("b", 2)], Some(&after)).unwrap();
        assert!(Arc::ptr_eq(&after, &again));
    }

    #[test]
    fn patterns_that_are_none_and_twins_are_faults() {
        for bad in ["", "a*b", "**", "$serve", "#x", "$*"] {
            let faults = Services::faults(&[spec(bad, 1)]);
            assert_eq!(faults.len(), 1, "{bad}");
        }
        assert_eq!(
            Services::faults(&[spec("a", 1), spec("a*", 1), spec("a", 2)]).len(),
            1
        );
    }
}
