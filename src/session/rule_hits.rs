//! The refusals by rules while sessions ran, until the core counts them.

use crate::auth::rules::Decided;
use crate::config::rules::Action;

/// Counts, by [`Action::index`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Refused.
    pub denied: [u64; Action::COUNT],
    /// Done, but the shadow rules would refuse it.
    pub would_deny: [u64; Action::COUNT],
    /// Refused, but the shadow rules would allow it.
    pub would_allow: [u64; Action::COUNT],
    /// The last decision that the shadow rules would make otherwise.
    pub difference: Option<(Action, Decided)>,
}

impl RuleHits {
    pub(super) fn count(&mut self, action: Action, decided: Decided) {
        let at = action.index();
        match (decided.verdict.allowed, decided.shadow.allowed) {
            (true, true) => return,
            (false, false) => {
                self.denied[at] += 1;
                return;
            }
            (true, false) => self.would_deny[at] += 1,
            (false, true) => {
                self.denied[at] += 1;
                self.would_allow[at] += 1;
            }
        }
        self.difference = Some((action, decided));
    }
}
