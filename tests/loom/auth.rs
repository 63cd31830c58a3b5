//! What `decision.rs` names of the server's `auth`: no login comes near the ring.

/// Stands for a user's name and password.
#[derive(Debug)]
pub struct Credentials;
