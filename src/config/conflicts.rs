//! Settings that cannot go together: the server does not start with them.

use std::fmt;
use std::net::SocketAddr;

use super::Config;

impl Config {
    /// Whether all settings go together. A server does not start with settings that conflict.
    ///
    /// # Errors
    /// The first conflict; [`Config::conflicts`] has all.
    pub fn check(&self) -> Result<(), Conflict> {
        self.conflicts().into_iter().next().map_or(Ok(()), Err)
    }

    /// All conflicts between settings.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        if let Some(admin) = self.admin.address {
            if !admin.ip().is_loopback() && self.admin.key.is_none() {
                conflicts.push(Conflict::AdminWithoutKey(admin));
            }
            if admin == self.listen.address && admin.port() != 0 {
                conflicts.push(Conflict::SameAddress(admin));
            }
        }
        if self.auth.private_key_file.is_some() && self.auth.public_key_file.is_none() {
            conflicts.push(Conflict::PrivateKeyAlone);
        }
        if self.auth.key.is_some() && self.auth.public_key_file.is_some() {
            conflicts.push(Conflict::TwoKeys);
        }
        self.tls.conflicts(
            self.listen.address,
            self.admin.address,
            self.speaks_tls(),
            &mut conflicts,
        );
        conflicts.extend(self.mqtt_on_same_address());
        if self.proxies.trusted.is_empty() {
            let used = [
                (self.proxies.proxy_protocol, "proxy_protocol"),
                (self.proxies.x_forwarded_for, "x_forwarded_for"),
            ];
            let used = used.into_iter().filter(|(is_on, _)| *is_on);
            conflicts.extend(used.map(|(_, name)| Conflict::NoTrustedProxy(name)));
        }
        if let Some(name) = self
            .login
            .user_fields
            .iter()
            .find(|name| self.login.password_fields.contains(name))
        {
            conflicts.push(Conflict::SameField(name.clone()));
        }
        if self.login.password_file.is_some()
            && self.auth.public_key_file.is_some()
            && self.auth.private_key_file.is_none()
        {
            conflicts.push(Conflict::LoginWithoutKey);
        }
        let deadline = self.limits.decision_timeout;
        let too_slow = self.hooks.iter().find(|hook| hook.timeout >= deadline);
        conflicts.extend(too_slow.map(|hook| Conflict::HookTooSlow {
            name: hook.name.clone(),
            line: hook.line,
        }));
        conflicts
    }

    /// An address for MQTT alone that another setting has as well.
    fn mqtt_on_same_address(&self) -> Option<Conflict> {
        let admin = self.admin.address.map(|address| ("admin", address));
        let mut before: Vec<(&str, SocketAddr)> = admin.into_iter().collect();
        for (setting, address) in self.client_addresses() {
            let same = before.iter().find(|(_, other)| *other == address);
            if let Some(&(other, _)) = same
                && setting.starts_with("mqtt")
                && address.port() != 0
            {
                return Some(Conflict::MqttOnSameAddress {
                    setting,
                    other,
                    address,
                });
            }
            before.push((setting, address));
        }
        None
    }
}

/// Settings that cannot go together, each with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The control plane can be reached from other machines, and asks for no key.
    AdminWithoutKey(SocketAddr),
    /// Clients and operators have the same port.
    SameAddress(SocketAddr),
    /// A private key file without the public one.
    PrivateKeyAlone,
    /// A shared key and key files.
    TwoKeys,
    /// Not as many keys as certificates.
    TlsFilesUnpaired {
        /// How many certificate files.
        certificates: usize,
        /// How many key files.
        keys: usize,
    },
    /// TLS without a certificate.
    TlsWithoutCertificate,
    /// Clients' certificates without an authority, or an authority without clients' certificates.
    TlsClientAuthUnpaired,
    /// The port for TLS is the port for all clients.
    TlsOnSameAddress(SocketAddr),
    /// The port for TLS is the port for operators.
    TlsOnAdminAddress(SocketAddr),
    /// The port for MQTT alone is another port as well.
    MqttOnSameAddress {
        /// The setting of the port.
        setting: &'static str,
        /// The setting of the other port.
        other: &'static str,
        /// The address of both.
        address: SocketAddr,
    },
    /// This setting takes clients' addresses from proxies, and no proxy is trusted.
    NoTrustedProxy(&'static str),
    /// One field is both a user's name and its password.
    SameField(String),
    /// Logins without a key that signs their tokens.
    LoginWithoutKey,
    /// A hook may answer later than a decision may come.
    HookTooSlow {
        /// Its name.
        name: String,
        /// Its line in the file, from 1; 0 without a file.
        line: usize,
    },
}

impl Conflict {
    /// The settings that conflict. While one of them has no accepted value, it is unknown whether they do.
    pub(super) const fn settings(&self) -> &'static [&'static str] {
        match self {
            Conflict::AdminWithoutKey(_) => &["admin", "admin_key"],
            Conflict::SameAddress(_) => &["admin", "listen"],
            Conflict::PrivateKeyAlone => &["auth_private_key_file", "auth_public_key_file"],
            Conflict::TwoKeys => &["auth_key", "auth_public_key_file"],
            Conflict::TlsFilesUnpaired { .. } => &["tls_certificate_files", "tls_key_files"],
            Conflict::TlsWithoutCertificate => &[
                "listen_tls",
                "tls_listen",
                "admin_tls",
                "mqtt_tls_listen",
                "tls_certificate_files",
                "tls_key_files",
            ],
            Conflict::TlsClientAuthUnpaired => &["tls_client_auth", "tls_client_ca_file"],
            Conflict::TlsOnSameAddress(_) => &["tls_listen", "listen"],
            Conflict::TlsOnAdminAddress(_) => &["tls_listen", "admin"],
            Conflict::MqttOnSameAddress { .. } => {
                &["mqtt_listen", "mqtt_tls_listen", "listen", "tls_listen", "admin"]
            }
            Conflict::NoTrustedProxy(_) => &["trusted_proxies", "proxy_protocol", "x_forwarded_for"],
            Conflict::SameField(_) => &["login_user_fields", "login_password_fields"],
            Conflict::HookTooSlow { .. } => &["decision_timeout_ms"],
            Conflict::LoginWithoutKey => &[
                "password_file",
                "auth_key",
                "auth_public_key_file",
                "auth_private_key_file",
            ],
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::AdminWithoutKey(address) => write!(
                formatter,
                "admin: {address} can be reached from other machines: set admin_key, or use a loopback address"
            ),
            Conflict::SameAddress(address) => {
                write!(
                    formatter,
                    "admin and listen are both {address}: give each its own port"
                )
            }
            Conflict::PrivateKeyAlone => formatter
                .write_str("auth_private_key_file is set without auth_public_key_file: set both, or neither"),
            Conflict::SameField(name) => write!(
                formatter,
                "login_user_fields and login_password_fields both name {name}: keep it in one of them"
            ),
            Conflict::LoginWithoutKey => formatter.write_str(
                "password_file: no key is set that could sign the tokens of logins: set auth_private_key_file, or auth_key instead",
            ),
            Conflict::HookTooSlow { name, line } => write!(
                formatter,
                "line {line}: hooks: {name}: timeout_ms is not less than limits.decision_timeout_ms, after which the client \
                 is refused: lower the one, or raise the other"
            ),
            Conflict::TwoKeys => {
                formatter.write_str("auth_key and auth_public_key_file are both set: keep one of them")
            }
            Conflict::TlsFilesUnpaired { certificates, keys } => write!(
                formatter,
                "tls_certificate_files names {certificates} and tls_key_files {keys}: name the key of each certificate, in the same order"
            ),
            Conflict::TlsWithoutCertificate => formatter.write_str(
                "TLS is spoken (listen_tls, tls_listen, mqtt_tls_listen or admin_tls) without a certificate: set tls_certificate_files and tls_key_files",
            ),
            Conflict::TlsClientAuthUnpaired => formatter.write_str(
                "tls_client_auth and tls_client_ca_file belong together: set both, or neither",
            ),
            Conflict::TlsOnSameAddress(address) => write!(
                formatter,
                "tls_listen and listen are both {address}: leave tls_listen off and set listen_tls to shared or only"
            ),
            Conflict::TlsOnAdminAddress(address) => write!(
                formatter,
                "tls_listen and admin are both {address}: give each its own port"
            ),
            Conflict::MqttOnSameAddress {
                setting,
                other,
                address,
            } => write!(
                formatter,
                "{setting} and {other} are both {address}: give each its own port, or turn {setting} off and set \
                 client_protocols to socketcluster,mqtt"
            ),
            Conflict::NoTrustedProxy(setting) => write!(
                formatter,
                "{setting} is on without trusted_proxies: set the addresses of the proxies; the server believes no other peer"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    #[test]
    fn a_control_plane_beyond_loopback_needs_a_key() {
        let mut config = Config::default();
        for (admin, needs_key) in [
            ("127.0.0.2:1", false),
            ("[::1]:1", false),
            ("0.0.0.0:1", true),
            ("10.0.0.1:1", true),
        ] {
            config.admin.address = Some(admin.parse().unwrap());
            config.admin.key = None;
            assert_eq!(config.check().is_err(), needs_key, "{admin}");
            config.admin.key = Some(Secret::new("key"));
            assert_eq!(config.check(), Ok(()), "{admin}");
        }
    }

    #[test]
    fn clients_and_operators_need_two_addresses() {
        let mut config = Config::default();
        config.admin.address = Some(config.listen.address);
        assert!(matches!(config.check(), Err(Conflict::SameAddress(_))));
        config.listen.address.set_port(0);
        config.admin.address = Some(config.listen.address);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn mqtt_alone_needs_an_address_of_its_own() {
        let set: [fn(&mut Config); 4] = [
            |config| config.mqtt.listen = Some(config.listen.address),
            |config| config.mqtt.listen = config.admin.address,
            |config| {
                config.mqtt.listen = Some("127.0.0.1:1883".parse().unwrap());
                config.mqtt.tls_listen = config.mqtt.listen;
            },
            |config| {
                config.tls.listen = Some("127.0.0.1:8883".parse().unwrap());
                config.mqtt.tls_listen = config.tls.listen;
            },
        ];
        for set in set {
            let mut config = Config::default();
            config.tls.certificate_files = vec!["certificate".into()];
            config.tls.key_files = vec!["key".into()];
            assert_eq!(config.check(), Ok(()));
            set(&mut config);
            assert!(matches!(config.check(), Err(Conflict::MqttOnSameAddress { .. })));
            for address in [&mut config.mqtt.listen, &mut config.mqtt.tls_listen] {
                *address = address.map(|_| "127.0.0.1:0".parse().unwrap());
            }
            assert_eq!(config.check(), Ok(()));
        }
        let mut config = Config::default();
        config.mqtt.tls_listen = Some("127.0.0.1:8883".parse().unwrap());
        assert_eq!(config.check(), Err(Conflict::TlsWithoutCertificate));
    }

    #[test]
    fn keys_come_from_one_place() {
        let mut config = Config::default();
        config.auth.private_key_file = Some("private.pem".into());
        assert_eq!(config.check(), Err(Conflict::PrivateKeyAlone));
        config.auth.public_key_file = Some("public.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.auth.key = Some(Secret::new("key"));
        assert_eq!(config.check(), Err(Conflict::TwoKeys));
    }

    #[test]
    fn proxies_name_clients_only_if_some_are_trusted() {
        for (proxy_protocol, x_forwarded_for) in [(true, false), (false, true), (true, true)] {
            let mut config = Config::default();
            config.proxies.proxy_protocol = proxy_protocol;
            config.proxies.x_forwarded_for = x_forwarded_for;
            assert!(matches!(config.check(), Err(Conflict::NoTrustedProxy(_))));
            config.proxies.trusted = "10.0.0.0/8".parse().unwrap();
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn logins_need_a_key_that_signs_and_fields_of_their_own() {
        let mut config = Config::default();
        config.auth.public_key_file = Some("public.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.login.password_file = Some("passwords".into());
        assert_eq!(config.check(), Err(Conflict::LoginWithoutKey));
        config.auth.private_key_file = Some("private.pem".into());
        assert_eq!(config.check(), Ok(()));
        config.login.password_fields.push("user".to_owned());
        assert_eq!(config.check(), Err(Conflict::SameField("user".to_owned())));
    }
}
