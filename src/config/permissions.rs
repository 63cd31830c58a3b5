//! What clients may do.

use super::form::{Form, Kind, word, words};
use super::rules::RuleSpec;
use super::settings::settings;

settings! {
    /// What clients may do.
    permissions: Permissions {
        /// Whether unauthenticated clients are served: `on`, `off`, or `auto` (on if `listen`, `tls_listen`,
        /// `mqtt_listen` and `mqtt_tls_listen` are loopback addresses, as far as they are set). With `off` they may
        /// still shake hands, send a token (`#authenticate`) and log in.
        allow_anonymous: Anonymous = Anonymous::Auto, "allow_anonymous", word();

        /// Whether clients may publish.
        allow_client_publish: bool = true, "allow_client_publish", word();

        /// Character that separates the segments of channels and procedures in `[[rules]]`.
        rules_separator: char = '.', "rules_separator", SEPARATOR, on reload;
    }
    and {
        /// The rules that are in force: the first rule that matches decides, and an action that no rule matches is
        /// refused. Without any rules, everything is allowed.
        rules: Vec<RuleSpec> = Vec::new();

        /// Rules on trial: the server counts where they would decide otherwise, and does not act on them.
        shadow_rules: Vec<RuleSpec> = Vec::new();
    }
}

/// One character of ASCII that has no other meaning in a pattern, and is no letter or digit.
const SEPARATOR: Form<char> = Form {
    kind: Kind::Text,
    expects: "one character such as . / : - or _",
    parse: |text| {
        let mut characters = text.chars();
        let separator = characters
            .next()
            .filter(|found| found.is_ascii_punctuation() && !"*{}".contains(*found))?;
        characters.next().is_none().then_some(separator)
    },
    show: char::to_string,
};

/// Whether unauthenticated clients are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// On if all addresses for clients are loopback addresses.
    #[default]
    Auto,
    /// They are served.
    On,
    /// They may authenticate themselves, and nothing else.
    Off,
}

words! {
    Anonymous, Switch, "auto, on or off":
    "auto" => Auto, "on" => On, "off" => Off, "true" => On, "false" => Off,
}
