//! The refusals of sessions, until the core writes them to the audit trail.

/// The refusals since they were taken: how many there were, and the last of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals {
    /// Tokens that were refused.
    pub tokens: u64,
    /// The last token that was refused.
    pub token: Option<TokenRefused>,
    /// Actions that were refused by rules, or because the client was not authenticated.
    pub actions: u64,
    /// The last action that was refused.
    pub action: Option<ActionRefused>,
}

/// A token that was refused.
#[derive(Clone, Copy, Debug)]
pub struct TokenRefused {
    /// Why, in a word.
    pub reason: &'static str,
    /// The packet or procedure that brought it, in a word.
    pub by: &'static str,
}

/// Something that a client may not do.
#[derive(Clone, Copy, Debug)]
pub struct ActionRefused {
    /// Why, in a word.
    pub reason: &'static str,
    /// The action that was refused, in a word.
    pub action: &'static str,
    /// The number of the rule that refused the action, if a rule did.
    pub rule: Option<u32>,
    name: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Refusals {
    pub(super) fn note_token(&mut self, reason: &'static str, by: &'static str) {
        self.tokens += 1;
        self.token = Some(TokenRefused { reason, by });
    }

    /// `name` is the name of the channel or the event. Only the part of it that fits a line of the audit
    /// trail is kept.
    pub(super) fn note_action(
        &mut self,
        reason: &'static str,
        action: &'static str,
        rule: Option<u32>,
        name: &[u8],
    ) {
        let mut refused = ActionRefused {
            reason,
            action,
            rule,
            name: [0; NAME_BYTES_MAX],
            length: name.len().min(NAME_BYTES_MAX),
        };
        refused.name[..refused.length].copy_from_slice(&name[..refused.length]);
        self.actions += 1;
        self.action = Some(refused);
    }
}

impl ActionRefused {
    /// The beginning of the name, which may end within a character.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }
}

const NAME_BYTES_MAX: usize = 128;
