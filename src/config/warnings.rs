//! Settings that work but are probably a mistake: each is a warning at the start and in `ringcast check`.

use std::fmt;

use super::tls::{ClientAuth, OnListen};
use super::{Config, Protocol, jwks};

impl Config {
    /// Settings that work but are probably a mistake. `cpus` are the CPUs that this process may run on.
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
        let share = self.limits.ring_bytes_max / core_count.max(1) as u64;
        if share < u64::from(self.limits.message_bytes_max) {
            warnings.push(Warning::RingShareBelowMessage { share });
        }
        let history_share = self.limits.history_bytes_max / core_count.max(1) as u64;
        let beyond = self.channels.iter().enumerate().filter(|(_, spec)| {
            spec.policy
                .history
                .is_some_and(|history| u64::from(history.bytes_max) > history_share)
        });
        warnings.extend(beyond.map(|(index, spec)| Warning::HistoryBeyondShare {
            number: index + 1,
            line: spec.line,
            share: history_share,
        }));
        let proxies = &self.proxies;
        if proxies.trusted.contain_all_addresses() {
            warnings.push(Warning::EveryAddressTrusted);
        } else if !proxies.trusted.is_empty() && !proxies.proxy_protocol && !proxies.x_forwarded_for {
            warnings.push(Warning::ProxiesUnused);
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
        if !self.speaks_tls() && !self.tls.certificate_files.is_empty() {
            warnings.push(Warning::TlsUnused);
        }
        if self.tls.client_auth == ClientAuth::Required && self.tls.on_listen != OnListen::Only {
            warnings.push(Warning::PlainBesideClientAuth);
        }
        if self.admin.address.is_none() && !self.admin.api_keys.is_empty() {
            warnings.push(Warning::ApiWithoutAddress);
        }
        warnings
    }
}

/// Settings that work but are probably a mistake. Each is a warning at the start and in `ringcast check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Cores share CPUs.
    MoreCoresThanCpus {
        /// How many cores.
        cores: usize,
        /// How many CPUs.
        cpus: usize,
    },
    /// Every idle connection times out before its first ping.
    PingsTooRare,
    /// A version-1 client answers the ping of the second interval first.
    PingsTooRareForVersion1,
    /// The largest message does not fit a core's share of the ring.
    RingShareBelowMessage {
        /// The share in bytes.
        share: u64,
    },
    /// The history of one channel may have more bytes than all histories of a core together.
    HistoryBeyondShare {
        /// The place of its policy in the list, from 1.
        number: usize,
        /// The line of its policy in the file, from 1; 0 without a file.
        line: usize,
        /// The share in bytes.
        share: u64,
    },
    /// Every client is a trusted proxy, so that it can claim any address.
    EveryAddressTrusted,
    /// Proxies are trusted, but the server reads neither of the ways in which they name the client.
    ProxiesUnused,
    /// A random key signs tokens, so that they end with the process.
    RandomKey,
    /// The key is shorter than the hash, which RFC 7518 section 3.2 does not allow.
    ShortKey,
    /// Keys are fetched without TLS from another machine.
    KeysUnprotected,
    /// Revocations end before the revoked tokens.
    RevocationTooShort,
    /// Certificates are set, and no address speaks TLS.
    TlsUnused,
    /// A client that connects without TLS needs no certificate.
    PlainBesideClientAuth,
    /// The HTTP API has keys, and no address.
    ApiWithoutAddress,
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
            Warning::HistoryBeyondShare { number, line, share } => {
                write!(formatter, "channels number {number}")?;
                if *line != 0 {
                    write!(formatter, " (line {line})")?;
                }
                write!(
                    formatter,
                    ": history_bytes exceeds a core's share of limits.history_bytes_max ({share} bytes), which is for all \
                     channels of a core: no history gets that long; lower it, or raise limits.history_bytes_max"
                )
            }
            Warning::RandomKey => formatter.write_str(
                "auth_key is not set: a random key is used, so tokens are invalid after a restart; set it: \
                 RINGCAST_AUTH_KEY=$(openssl rand -base64 48)",
            ),
            Warning::KeysUnprotected => formatter.write_str(
                "jwks_url is not https: an attacker on the network can answer in place of that server, and then sign tokens for any user",
            ),
            Warning::RevocationTooShort => formatter.write_str(
                "revocation_keep_seconds is below auth_default_expiry: a revoked token becomes valid again before it expires",
            ),
            Warning::EveryAddressTrusted => formatter.write_str(
                "trusted_proxies contains every address: any client can claim to be at any other address; name only the proxies",
            ),
            Warning::ProxiesUnused => formatter.write_str(
                "trusted_proxies is set, but neither proxy_protocol nor x_forwarded_for is on: every client has the address of a proxy; turn on the one that the proxies use",
            ),
            Warning::TlsUnused => formatter.write_str(
                "tls_certificate_files is set, but no address speaks TLS: set listen_tls, tls_listen or mqtt_tls_listen",
            ),
            Warning::PlainBesideClientAuth => formatter.write_str(
                "tls_client_auth is required, but a client that connects to listen without TLS needs no certificate: set listen_tls to only",
            ),
            Warning::ApiWithoutAddress => formatter.write_str(
                "api_keys are set, but admin is off: the HTTP API is a part of the control plane, so set the address of admin",
            ),
            Warning::ShortKey => formatter.write_str("auth_key is shorter than 32 bytes: it can be guessed sooner than HS256 allows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Placement;
    use crate::config::api_keys::{ApiAction, ApiKeySpec, KeyHash};
    use crate::config::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy};
    use crate::config::secret::Secret;

    #[test]
    fn trust_in_every_address_and_trust_without_effect_are_warned_about() {
        let warnings = |trusted: &str, x_forwarded_for| {
            let mut config = Config::default();
            config.auth.key = Some(Secret::new([1; 32]));
            config.proxies.trusted = trusted.parse().unwrap();
            config.proxies.x_forwarded_for = x_forwarded_for;
            config.warnings(&[0, 1])
        };
        assert_eq!(warnings("10.0.0.0/8", true), []);
        assert_eq!(warnings("10.0.0.0/8", false), [Warning::ProxiesUnused]);
        assert_eq!(
            warnings("10.0.0.0/8, 0.0.0.0/0", true),
            [Warning::EveryAddressTrusted]
        );
        assert_eq!(warnings("", false), []);
    }

    #[test]
    fn keys_of_the_http_api_without_an_address_are_warned_about() {
        let mut config = Config::default();
        config.auth.key = Some(Secret::new([1; 32]));
        config.admin.address = None;
        assert_eq!(config.warnings(&[0]), []);
        config.admin.api_keys.push(ApiKeySpec {
            name: "a".to_owned(),
            hash: KeyHash::new([1; 32]),
            actions: vec![ApiAction::Disconnect],
            channels: Vec::new(),
            rate: 1,
            burst: 1,
            file: None,
            line: 0,
        });
        assert_eq!(config.warnings(&[0]), [Warning::ApiWithoutAddress]);
        config.admin.address = Config::default().admin.address;
        assert_eq!(config.warnings(&[0]), []);
    }

    #[test]
    fn a_warning_begins_where_clients_would_suffer() {
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

        let mut long = quiet.clone();
        long.cores.placement = Placement::Count(2);
        let history = HistoryPolicy {
            entries_max: 1,
            bytes_max: 65_536,
            age_ms_max: 1,
        };
        let policy = ChannelPolicy {
            history: Some(history),
            ..ChannelPolicy::default()
        };
        long.channels = vec![
            ChannelSpec::default(),
            ChannelSpec {
                policy,
                line: 7,
                ..ChannelSpec::default()
            },
        ];
        long.limits.history_bytes_max = 131_072;
        assert_eq!(long.warnings(&[0, 1]), []);
        long.limits.history_bytes_max -= 1;
        let warnings = long.warnings(&[0, 1]);
        assert!(
            matches!(
                warnings[..],
                [Warning::HistoryBeyondShare {
                    number: 2,
                    line: 7,
                    share: 65_535
                }]
            ),
            "{warnings:?}"
        );
        assert!(
            warnings[0]
                .to_string()
                .starts_with("channels number 2 (line 7): history_bytes")
        );

        assert_eq!(Config::default().warnings(&[0]), [Warning::RandomKey]);
        let mut short = Config::default();
        short.auth.key = Some(Secret::new([1; 31]));
        assert_eq!(short.warnings(&[0]), [Warning::ShortKey]);
    }
}
