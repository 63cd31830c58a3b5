//! What a session has refused its client, until the core writes it to the audit trail.

/// The refusals since they were taken: how many there were, and the last of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals {
    /// Tokens that were refused.
    pub tokens: u64,
    /// The last of them.
    pub token: Option<TokenRefused>,
    /// Actions that were refused, by rules or since the client was not authenticated.
    pub actions: u64,
    /// The last of them.
    pub action: Option<ActionRefused>,
}

/// A token that was refused.
#[derive(Clone, Copy, Debug)]
pub struct TokenRefused {
    /// Why, in a word.
    pub reason: &'static str,
    /// What it came with.
    pub by: &'static str,
}

/// Something that a client may not do.
#[derive(Clone, Copy, Debug)]
pub struct ActionRefused {
    /// Why, in a word.
    pub reason: &'static str,
    /// What it wanted to do, in a word.
    pub action: &'static str,
    /// The rule that has decided, if one has.
    pub rule: Option<u32>,
    name: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Refusals {
    pub(super) fn note_token(&mut self, reason: &'static str, by: &'static str) {
        self.tokens += 1;
        self.token = Some(TokenRefused { reason, by });
    }

    /// `name` is that of the channel or the event, and is kept as far as a line shows it.
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
