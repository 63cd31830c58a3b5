//! API keys in the configuration file: which programs may use the HTTP API of the control plane, and for what.
//!
//! ```toml
//! [[api_keys]]
//! name = "shop"                              # stands in the log
//! hash = "sha256:9f86d081884c7d65…"          # of the key; `ringcast api-key` makes both
//! actions = ["publish", "history"]           # or "*" for all
//! channels = ["shop.**"]                     # for actions on channels
//! rate = 100                                 # requests a second in the long run
//! burst = 100                                # requests at once
//! ```
//!
//! `read` checks the shape of keys in the file: names, actions, kinds of values. `auth::api_keys` compiles patterns and
//! finds the key of a request.
//!
//! Limits: [`API_KEYS_MAX`] keys.

pub(super) mod read;

use std::fmt;
use std::path::PathBuf;

use crate::labels::labels;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySpec {
    /// Its name in the log; no two keys have the same.
    pub name: String,
    /// The hash of the key. The key itself is nowhere in the configuration.
    pub hash: KeyHash,
    /// What a request with the key may do.
    pub actions: Vec<ApiAction>,
    /// Patterns of the channels that the actions on channels are allowed for, as in rules, but without claims.
    pub channels: Vec<String>,
    /// Requests a second in the long run; 0 sets no limit.
    pub rate: u32,
    /// Requests that may come at once after a pause.
    pub burst: u32,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

/// The SHA-256 of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Takes over a hash.
    pub const fn new(sha256: [u8; 32]) -> KeyHash {
        KeyHash(sha256)
    }

    /// The hash in the form of the file: `sha256:` and 64 hexadecimal digits, as `sha256sum` prints them.
    pub fn parse(text: &str) -> Option<KeyHash> {
        let digits = text.strip_prefix(HASH_PREFIX)?.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut hash = [0; 32];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(KeyHash(hash))
    }

    /// The hash in the form of the file.
    pub fn text(&self) -> String {
        let mut text = HASH_PREFIX.to_owned();
        for byte in self.0 {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// The bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    /// A hash does not reveal the key, but a log needs no hash either.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

const HASH_PREFIX: &str = "sha256:";

labels! {
    /// An action of the HTTP API. The labels are its words in the file as well.
    pub enum ApiAction {
        /// Publishes to channels.
        Publish = "publish",
        /// Reads the history of channels.
        History = "history",
        /// Removes the history of channels.
        RemoveHistory = "remove-history",
        /// Reads the members of channels, and their count.
        Presence = "presence",
        /// Lists channels with subscribers.
        Channels = "channels",
        /// Lists connections of users, addresses and channels.
        Connections = "connections",
        /// Lists services.
        Services = "services",
        /// Closes connections.
        Disconnect = "disconnect",
        /// Subscribes connections to channels.
        Subscribe = "subscribe",
        /// Ends subscriptions of connections.
        Unsubscribe = "unsubscribe",
        /// Calls procedures of clients.
        Call = "call",
        /// Sends clients events.
        Transmit = "transmit",
        /// Gives clients tokens with any claims: a program with this action can make any client any user.
        SetClaims = "set-claims",
        /// Gives clients new tokens with the claims that they have.
        RefreshToken = "refresh-token",
        /// Takes tokens away from clients.
        RemoveToken = "remove-token",
    }
}

impl ApiAction {
    /// The action with this word.
    pub fn named(word: &str) -> Option<ApiAction> {
        ApiAction::ALL.into_iter().find(|action| action.label() == word)
    }

    /// Whether it can apply to channels that the key must name.
    pub const fn may_be_on_channel(self) -> bool {
        match self {
            // Connections can be listed by channel, and without.
            ApiAction::Connections => true,
            ApiAction::Publish
            | ApiAction::History
            | ApiAction::RemoveHistory
            | ApiAction::Presence
            | ApiAction::Channels
            | ApiAction::Subscribe
            | ApiAction::Unsubscribe
            | ApiAction::Services
            | ApiAction::Disconnect
            | ApiAction::Call
            | ApiAction::Transmit
            | ApiAction::SetClaims
            | ApiAction::RefreshToken
            | ApiAction::RemoveToken => self.is_on_channel(),
        }
    }

    /// Whether it always applies to channels that the key must name; the others apply to connections.
    pub const fn is_on_channel(self) -> bool {
        match self {
            ApiAction::Publish
            | ApiAction::History
            | ApiAction::RemoveHistory
            | ApiAction::Presence
            | ApiAction::Channels
            | ApiAction::Subscribe
            | ApiAction::Unsubscribe => true,
            ApiAction::Connections
            | ApiAction::Services
            | ApiAction::Disconnect
            | ApiAction::Call
            | ApiAction::Transmit
            | ApiAction::SetClaims
            | ApiAction::RefreshToken
            | ApiAction::RemoveToken => false,
        }
    }
}

/// Most keys: a request is compared with all of them.
pub const API_KEYS_MAX: usize = 1000;

/// Requests a second of a key that does not say how many.
pub const RATE_DEFAULT: u32 = 100;

/// The largest rate and burst.
pub const RATE_MAX: u32 = 1_000_000;

/// Whether a text may be the name of a key: 1 to 64 letters, digits, dots, hyphens and underscores.
pub fn is_key_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_legal)
}

#[cfg(test)]
mod tests;
