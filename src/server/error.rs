//! Why a server did not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::port_in_use::{PortOwner, Starting};
use nix::errno::Errno;

use crate::config::ConfigErrors;
use crate::control::ControlError;
use crate::log::FilterError;
use crate::policy::PolicyError;
use crate::store::StoreError;
use crate::transport::socket_activation::ActivationError;

/// Why a server did not start. Its text says what to do.
#[derive(Debug)]
pub enum StartError {
    /// Settings are wrong.
    Config(ConfigErrors),
    /// The server cannot write the log: the filter is invalid, or the program has set up a log of its own.
    Log(FilterError),
    /// The process may not run on CPUs that the setting `cores` lists.
    Cpus(String),
    /// The sockets that the service manager passed are wrong.
    SocketActivation(ActivationError),
    /// A key, or a file that the settings name, is missing or wrong.
    Policy(PolicyError),
    /// Only authenticated clients are served, and none can become authenticated.
    NoWayToLogIn,
    /// Another process listens on an address, and this start was not asked to take over from it, or cannot.
    Served {
        /// What the address is for.
        setting: PortSetting,
        /// The address.
        address: SocketAddr,
        /// The other process, if it can be seen.
        owner: Option<PortOwner>,
    },
    /// Another process of the same user is starting on the same port, and has not finished in time.
    Starting {
        /// The port.
        port: u16,
        /// The other process.
        process: i32,
    },
    /// The server cannot listen on an address.
    Listen {
        /// What it is for.
        setting: PortSetting,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The directory of `data_dir` cannot be had.
    Store(StoreError),
    /// The control plane cannot run.
    Control(ControlError),
    /// The system refused something else: descriptors, memory or threads.
    System(io::Error),
}

/// What an address is for, by the setting that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSetting {
    /// Clients.
    Listen,
    /// Clients that speak TLS.
    TlsListen,
    /// Clients that speak MQTT.
    MqttListen,
    /// Clients that speak MQTT over TLS.
    MqttTlsListen,
    /// Operators.
    Admin,
}

impl PortSetting {
    fn variable(self) -> &'static str {
        match self {
            PortSetting::Listen => "RINGCAST_LISTEN",
            PortSetting::TlsListen => "RINGCAST_TLS_LISTEN",
            PortSetting::MqttListen => "RINGCAST_MQTT_LISTEN",
            PortSetting::MqttTlsListen => "RINGCAST_MQTT_TLS_LISTEN",
            PortSetting::Admin => "RINGCAST_ADMIN",
        }
    }

    /// What an operator can do if the address is in use or invalid.
    fn advice(self) -> String {
        let or_off = match self {
            PortSetting::Listen => "",
            PortSetting::TlsListen
            | PortSetting::MqttListen
            | PortSetting::MqttTlsListen
            | PortSetting::Admin => ", or to off",
        };
        format!(
            "set {} to a free address of this machine{or_off}",
            self.variable()
        )
    }
}

impl StartError {
    pub(super) fn served(setting: PortSetting, address: SocketAddr) -> StartError {
        StartError::Served {
            setting,
            address,
            owner: PortOwner::of(address),
        }
    }

    pub(super) fn listening(setting: PortSetting, address: SocketAddr, cause: io::Error) -> StartError {
        match cause.kind() {
            io::ErrorKind::AddrInUse => StartError::served(setting, address),
            _ => StartError::Listen {
                setting,
                address,
                cause,
            },
        }
    }

    pub(super) fn starting(Starting { port, process }: Starting) -> StartError {
        StartError::Starting { port, process }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(errors) => errors.fmt(f),
            StartError::Log(error) => write!(f, "log: {error}"),
            StartError::Cpus(text) => f.write_str(text),
            StartError::SocketActivation(error) => error.fmt(f),
            StartError::Policy(error) => error.fmt(f),
            StartError::NoWayToLogIn => f.write_str(
                "no client could log in: only authenticated clients are served (listen or tls_listen is not a loopback \
                 address, or allow_anonymous is off), and nothing is set that authenticates one; set a key \
                 (RINGCAST_AUTH_KEY=$(openssl rand -hex 32), key files, jwks_file or jwks_url), a password_file or \
                 tls_client_auth, or serve everybody with RINGCAST_ALLOW_ANONYMOUS=on",
            ),
            StartError::Served {
                setting,
                address,
                owner,
            } => {
                match owner {
                    Some(owner) => write!(f, "{address} is in use: {owner} listens there. ")?,
                    None => write!(
                        f,
                        "{address} is in use by a process that cannot be seen from here, of another user or another \
                         container. "
                    )?,
                }
                write!(
                    f,
                    "End it, or {}. To take over from a Ringcast server of the same user without refusing a client, start \
                     with --take-over, and end the other afterwards",
                    setting.advice()
                )
            }
            StartError::Starting { port, process } => write!(
                f,
                "process {process} of this user is starting on port {port} and has not come to an end: end it, or wait"
            ),
            StartError::Listen {
                setting,
                address,
                cause,
            } => match has_no_descriptor(cause) {
                true => write!(f, "cannot listen on {address}: {cause}; {MORE_DESCRIPTORS}"),
                false => write!(f, "cannot listen on {address}: {cause}; {}", setting.advice()),
            },
            StartError::Store(error) => error.fmt(f),
            StartError::Control(error) => error.fmt(f),
            StartError::System(cause) if has_no_descriptor(cause) => {
                write!(f, "the system refused resources for a core: {cause}; {MORE_DESCRIPTORS}")
            }
            StartError::System(cause) => write!(f, "the system refused resources for a core: {cause}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Whether the process, or the system, has as many open files as it may.
fn has_no_descriptor(cause: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE]
        .iter()
        .any(|&errno| cause.raw_os_error() == Some(errno as i32))
}

const MORE_DESCRIPTORS: &str = "raise the limit on open files (LimitNOFILE, or ulimit -n)";
