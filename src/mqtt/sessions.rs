//! The sessions of the client ids that a core owns.

/// The sessions of one core.
#[derive(Debug, Default)]
pub struct Sessions {}

impl Sessions {
    /// No sessions.
    pub fn new() -> Sessions {
        Sessions::default()
    }
}
