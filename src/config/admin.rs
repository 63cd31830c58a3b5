//! The address for operators: the control plane.

use std::net::SocketAddr;
use std::time::Duration;

use super::secret::Secret;

/// The control plane.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where the control plane listens; `None` for nowhere.
    pub address: Option<SocketAddr>,
    /// What requests to the control plane must bear; required on an address that is not loopback.
    pub key: Option<Secret>,
    /// Names by which the control plane may be asked without its key, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whether `/healthz` and `/readyz` of the control plane are answered without the key.
    pub probes_without_key: KeylessProbes,
    /// How long a core may stand still before `/healthz` and `/readyz` answer 503; whole milliseconds.
    pub liveness_timeout: Duration,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            key: None,
            hosts: Vec::new(),
            probes_without_key: KeylessProbes::Auto,
            liveness_timeout: Duration::from_secs(5),
        }
    }
}

/// Whether probes of the control plane are answered without its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeylessProbes {
    /// On a loopback address.
    #[default]
    Auto,
    /// They are.
    On,
    /// They need it, too.
    Off,
}
