//! The refusals by rules while sessions ran, until the core counts them.

use crate::auth::rules::Decided;
use crate::config::rules::Action;

/// Counts, by [`Action::index`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    /// Actions that were refused.
    pub denied: [u64; Action::COUNT],
    /// Actions that were allowed, but that the shadow rules would refuse.
    pub would_deny: [u64; Action::COUNT],
    /// Actions that were refused, but that the shadow rules would allow.
    pub would_allow: [u64; Action::COUNT],
    /// The last decision on which the shadow rules differ.
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
