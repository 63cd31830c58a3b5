//! Settings that work but are hardly meant: each is a warning at the start and in `ringcast check`.

use std::fmt;

use super::tls::{ClientAuth, OnListen};
use super::{Config, Protocol, jwks};

impl Config {
    /// What is legal but hardly meant. `cpus` are those this process may run on.
    pub fn warnings(&self, cpus: &[usize]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let core_count = self.cores.placement.cpus(cpus).len();
        if core_count > cpus.len() {
            warnings.push(Warning::MoreCoresThanCpus {
                cores: core_count,
                cpus: cpus.len(),
            });
        }
        if self.socketcluster.pings && self.socketcluster.ping_interval >= self.socketcluster.ping_timeout {
            warnings.push(Warning::PingsTooRare);
        } else if self.socketcluster.pings
            && self.socketcluster.protocol != Protocol::V2
            && self.socketcluster.ping_interval * 2 >= self.socketcluster.ping_timeout
        {
            warnings.push(Warning::PingsTooRareForVersion1);
        }
        let share = self.limits.ring_bytes_max / u64::try_from(core_count.max(1)).unwrap_or(u64::MAX);
        if share < u64::from(self.limits.message_bytes_max) {
            warnings.push(Warning::RingShareBelowMessage { share });
        }
        let proxies = &self.proxies;
        if proxies.trusted.contain_all_addresses() {
            warnings.push(Warning::EverybodyTrusted);
        } else if !proxies.trusted.is_empty() && !proxies.proxy_protocol && !proxies.x_forwarded_for {
            warnings.push(Warning::ProxiesUnheard);
        }
        if self.has_random_key() {
            warnings.push(Warning::RandomKey);
        } else if self.auth.key.as_ref().is_some_and(|key| key.expose().len() < 32) {
            warnings.push(Warning::ShortKey);
        }
        if let Some(url) = &self.jwks.url
            && jwks::is_forgeable(url)
        {
            warnings.push(Warning::KeysUnprotected);
        }
        if self.auth.revocation_keep < self.auth.default_expiry {
            warnings.push(Warning::RevocationTooShort);
        }
        if !self.tls.is_used() && !self.tls.certificate_files.is_empty() {
            warnings.push(Warning::TlsUnused);
        }
        if self.tls.client_auth == ClientAuth::Required && self.tls.on_listen != OnListen::Only {
            warnings.push(Warning::PlainBesideClientAuth);
        }
        warnings
    }
}

/// Settings that work but are hardly meant. Each is a warning at the start and in `ringcast check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Cores share CPUs.
    MoreCoresThanCpus {
        /// How many cores.
        cores: usize,
        /// How many CPUs.
        cpus: usize,
    },
    /// Every connection times out.
    PingsTooRare,
    /// A version-1 client answers the ping of the second interval first.
    PingsTooRareForVersion1,
    /// The largest message does not fit a core's share of the ring.
    RingShareBelowMessage {
        /// The share in bytes.
        share: u64,
    },
    /// Whoever connects may say whom the connection is from.
    EverybodyTrusted,
    /// Proxies are trusted, but nothing that they say is read.
    ProxiesUnheard,
    /// Tokens end with the process.
    RandomKey,
    /// RFC 7518 section 3.2 asks for a key as long as the hash.
    ShortKey,
    /// Keys are fetched without TLS from another machine.
    KeysUnprotected,
    /// Revocations end before the tokens that they are about.
    RevocationTooShort,
    /// Certificates for nobody.
    TlsUnused,
    /// Who speaks no TLS needs no certificate.
    PlainBesideClientAuth,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::MoreCoresThanCpus { cores, cpus } => {
                write!(
                    formatter,
                    "cores: {cores} event loops share {cpus} CPUs and wait for each other; auto starts one for each CPU"
                )
            }
            Warning::PingsTooRare => formatter.write_str(
                "ping_interval_ms is not below ping_timeout_ms: idle connections will time out before a ping",
            ),
            Warning::PingsTooRareForVersion1 => formatter.write_str(
                "twice ping_interval_ms is not below ping_timeout_ms: a protocol-1 client's first answer comes after two intervals, too late",
            ),
            Warning::RingShareBelowMessage { share } => write!(
                formatter,
                "limits.message_bytes_max exceeds a core's share of limits.ring_bytes_max ({share} bytes)"
            ),
            Warning::RandomKey => formatter.write_str(
                "auth_key is not set: a random key is used, so tokens end with this process; set it: \
                 RINGCAST_AUTH_KEY=$(openssl rand -base64 48)",
            ),
            Warning::KeysUnprotected => formatter.write_str(
                "jwks_url is not https: whoever can answer in the place of that server can sign tokens for anybody",
            ),
            Warning::RevocationTooShort => formatter.write_str(
                "revocation_keep_seconds is below auth_default_expiry: a revoked token is good again before it expires",
            ),
            Warning::EverybodyTrusted => formatter.write_str(
                "trusted_proxies names every address there is: whoever connects can say whom the connection is from",
            ),
            Warning::ProxiesUnheard => formatter.write_str(
                "trusted_proxies is set, but neither proxy_protocol nor x_forwarded_for is on: all clients have the proxies' addresses",
            ),
            Warning::TlsUnused => formatter.write_str(
                "tls_certificate_files is set, but nothing speaks TLS: set listen_tls or tls_listen",
            ),
            Warning::PlainBesideClientAuth => formatter.write_str(
                "tls_client_auth is required, but who connects to listen without TLS needs no certificate: set listen_tls to only",
            ),
            Warning::ShortKey => formatter.write_str("auth_key is shorter than 32 bytes: it can be guessed sooner than HS256 allows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::secret::Secret;
    use crate::config::{Anonymous, Placement};

    #[test]
    fn trust_in_everybody_and_trust_without_effect_are_doubted() {
        let warnings = |trusted: &str, x_forwarded_for| {
            let mut config = Config::default();
            config.auth.key = Some(Secret::new([1; 32]));
            config.proxies.trusted = trusted.parse().unwrap();
            config.proxies.x_forwarded_for = x_forwarded_for;
            config.warnings(&[0, 1])
        };
        assert_eq!(warnings("10.0.0.0/8", true), []);
        assert_eq!(warnings("10.0.0.0/8", false), [Warning::ProxiesUnheard]);
        assert_eq!(
            warnings("10.0.0.0/8, 0.0.0.0/0", true),
            [Warning::EverybodyTrusted]
        );
        assert_eq!(warnings("", false), []);
    }

    #[test]
    fn a_doubt_begins_where_clients_would_suffer() {
        let mut quiet = Config::default();
        quiet.auth.key = Some(Secret::new([1; 32]));
        assert_eq!(quiet.warnings(&[0, 1]), []);

        let milliseconds = |interval, timeout, protocol| {
            let mut config = quiet.clone();
            config.socketcluster.ping_interval = Duration::from_millis(interval);
            config.socketcluster.ping_timeout = Duration::from_millis(timeout);
            config.socketcluster.protocol = protocol;
            config
        };
        for (interval, timeout, protocol, warnings) in [
            (4999, 10_000, Protocol::Auto, vec![]),
            (
                5000,
                10_000,
                Protocol::Auto,
                vec![Warning::PingsTooRareForVersion1],
            ),
            (5000, 10_000, Protocol::V1, vec![Warning::PingsTooRareForVersion1]),
            (5000, 10_000, Protocol::V2, vec![]),
            (9999, 10_000, Protocol::V2, vec![]),
            (10_000, 10_000, Protocol::V2, vec![Warning::PingsTooRare]),
        ] {
            assert_eq!(
                milliseconds(interval, timeout, protocol).warnings(&[0]),
                warnings,
                "{interval} {timeout}"
            );
        }

        let mut crowded = quiet.clone();
        crowded.cores.placement = Placement::Count(3);
        assert_eq!(
            crowded.warnings(&[0, 1]),
            [Warning::MoreCoresThanCpus { cores: 3, cpus: 2 }]
        );
        assert_eq!(crowded.warnings(&[0, 1, 2]), []);

        let mut tight = quiet.clone();
        tight.cores.placement = Placement::Count(2);
        tight.limits.ring_bytes_max = 2 * u64::from(tight.limits.message_bytes_max);
        assert_eq!(tight.warnings(&[0, 1]), []);
        tight.limits.ring_bytes_max -= 1;
        assert!(matches!(
            tight.warnings(&[0, 1])[..],
            [Warning::RingShareBelowMessage { .. }]
        ));

        assert_eq!(Config::default().warnings(&[0]), [Warning::RandomKey]);
        let mut closed = Config::default();
        closed.listen.address = "0.0.0.0:8000".parse().unwrap();
        assert!(closed.admits_nobody() && !Config::default().admits_nobody() && !quiet.admits_nobody());
        closed.login.password_file = Some("passwords".into());
        assert!(!closed.admits_nobody());
        closed.login.password_file = None;
        closed.tls.client_auth = ClientAuth::Optional;
        assert!(closed.admits_nobody(), "certificates without TLS");
        closed.tls.on_listen = OnListen::Only;
        assert!(!closed.admits_nobody());
        closed.tls.client_auth = ClientAuth::Off;
        closed.permissions.allow_anonymous = Anonymous::On;
        assert!(!closed.admits_nobody());
        let mut short = Config::default();
        short.auth.key = Some(Secret::new([1; 31]));
        assert_eq!(short.warnings(&[0]), [Warning::ShortKey]);
    }
}
