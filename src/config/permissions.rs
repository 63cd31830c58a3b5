//! What clients may do.

use super::rules::RuleSpec;

/// What clients may do.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// Whether clients that are not authenticated are served.
    pub allow_anonymous: Anonymous,
    /// Whether clients may publish.
    pub allow_client_publish: bool,
    /// What clients may do: the first rule that matches decides, and without one it is refused. Without any rules,
    /// everything is allowed.
    pub rules: Vec<RuleSpec>,
    /// Rules that are tried out: what they would decide otherwise is counted, and not done.
    pub shadow_rules: Vec<RuleSpec>,
    /// What parts the segments of names in rules: one character of ASCII.
    pub rules_separator: char,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions {
            allow_anonymous: Anonymous::Auto,
            allow_client_publish: true,
            rules: Vec::new(),
            shadow_rules: Vec::new(),
            rules_separator: '.',
        }
    }
}

/// Whether clients that are not authenticated are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// On a loopback address.
    #[default]
    Auto,
    /// They are.
    On,
    /// They may log in, and nothing else.
    Off,
}
