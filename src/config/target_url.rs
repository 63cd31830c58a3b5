//! The URL of another server, to which hooks and webhooks send requests. It may hold a token, so that it is not shown.

use std::fmt;

use super::jwks;
use super::secret::Secret;

/// The URL of another server. It has no `Display`, and its `Debug` shows `…`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TargetUrl(String);

impl TargetUrl {
    /// An address as the configuration has it. [`TargetUrl::parse`] checks it as well.
    pub fn new(text: impl Into<String>) -> TargetUrl {
        TargetUrl(text.into())
    }

    /// `https://` or `http://`, a host, perhaps a port, a path and a query; `None` for any other text. No user, because
    /// its password would be shown, and no fragment.
    pub fn parse(text: &str) -> Option<TargetUrl> {
        jwks::url(text).map(TargetUrl)
    }

    /// The whole address, only for requests.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address without its query, for people.
    pub fn without_query(&self) -> &str {
        self.0.split('?').next().unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether requests go through TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Whether an attacker between this machine and the server of the URL could read requests.
    pub fn is_readable(&self) -> bool {
        jwks::is_forgeable(&self.0)
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Secret::HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::hooks::HookSpec;
    use crate::config::webhooks::WebhookSpec;

    /// The path may be the secret, too.
    #[test]
    fn no_text_for_people_shows_the_secret_parts_of_a_url() {
        let address = "https://backend.example/path-secret?token=query-secret";
        let hook = HookSpec::new("gate", address);
        let webhook = WebhookSpec {
            url: TargetUrl::new(address),
            ..WebhookSpec::default()
        };
        for shown in [format!("{hook:?}"), format!("{webhook:?}")] {
            assert!(shown.contains("url: …") && !shown.contains("-secret"), "{shown}");
        }
        assert_eq!(hook.asked(), "https://backend.example/path-secret");
    }

    #[test]
    fn a_url_has_a_host_and_neither_user_nor_fragment() {
        for (text, is_right) in [
            ("https://a.example", true),
            ("http://127.0.0.1:1/x?y=1", true),
            ("https://user:password@a.example/", false),
            ("https://a.example/#x", false),
            ("ftp://a.example/", false),
            ("", false),
        ] {
            assert_eq!(TargetUrl::parse(text).is_some(), is_right, "{text}");
        }
    }
}
