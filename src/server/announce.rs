//! The last step of a start: log lines about the addresses, the keys, the clients that are served, and the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tracing::{debug, info, warn};

use crate::config::load::Loaded;
use crate::config::tls::OnListen;
use crate::config::{Anonymous, Config, FdTables, Warning};
use crate::cores::Started;
use crate::machine::memory::MemoryPlan;
use crate::machine::{self, Target, reading};
use crate::policy::{KeySource, Policy};
use crate::transport::port::{Port, Ports};

/// The target of these lines, which operators filter by, whatever file they are in.
const TARGET: &str = "ringcast::server";

/// Logs which variables are ignored, and which settings have no effect or another effect than expected.
pub(super) fn announce_settings(loaded: &Loaded, cpus: &[usize]) {
    if let Some(first) = loaded.ignored.first() {
        info!(
            target: TARGET,
            count = loaded.ignored.len(),
            "environment: variables such as {first} are ignored: Kubernetes or Docker set them for a service of that name"
        );
    }
    for line in &loaded.inherited {
        warn!(target: TARGET, "environment: {line}");
    }
    for warning in loaded.config.warnings(cpus) {
        // A random key has a longer line of its own.
        if warning != Warning::RandomKey {
            warn!(target: TARGET, "{warning}");
        }
    }
    let config = &loaded.config;
    let cores = config.cores.placement.cpus(cpus).len();
    let memory = MemoryPlan::of(config, cores, &reading::machine(Path::new("/")));
    if let Some(warning) = memory.warning() {
        warn!(target: TARGET, "{warning}");
    }
}

/// Logs the addresses as bound, the keys of tokens, the clients that are served, and the main limits.
pub(super) fn announce(config: &Config, ports: &Ports, admin: Option<SocketAddr>, policy: &Policy) {
    announce_addresses(config, ports, admin);
    announce_keys(config, policy);
    announce_clients(config, ports);
    if let (Some(file), Some(users)) = (&config.login.password_file, &policy.users) {
        info!(target: TARGET,
            "logins: password file {} with {} users",
            file.display(),
            users.count()
        );
    }
    let limits = &config.limits;
    debug!(target: TARGET,
        message_bytes_max = limits.message_bytes_max,
        outbox_bytes_max = limits.outbox_bytes_max,
        channels_per_connection_max = limits.channels_per_connection_max,
        connections_per_core_max = limits.connections_per_core_max,
        ring_slots = limits.ring_slots,
        ring_bytes_max = limits.ring_bytes_max,
        "limits",
    );
}

fn announce_addresses(config: &Config, ports: &Ports, admin: Option<SocketAddr>) {
    let (listen, path) = (ports.main, &config.listen.path);
    let served = match ports.main_tls {
        OnListen::Off => format!("ws://{listen}{path}"),
        OnListen::Shared => format!("ws://{listen}{path} and wss://{listen}{path}"),
        OnListen::Only => format!("wss://{listen}{path}"),
    };
    info!(target: TARGET,
        version = env!("CARGO_PKG_VERSION"),
        "ringcast serves {served}, protocol {}", config.socketcluster.protocol
    );
    if let Some(tls) = ports.tls {
        info!(target: TARGET, "and wss://{tls}{path}");
    }
    let mqtt = [("mqtt", ports.mqtt), ("mqtts", ports.mqtt_tls)];
    for (scheme, address) in mqtt {
        if let Some(address) = address {
            info!(target: TARGET, "and {scheme}://{address}");
        }
    }
    if ports.mqtt_beside {
        info!(target: TARGET,
            "and MQTT at the same addresses, in WebSockets at {} (client_protocols)", config.mqtt.path);
    }
    match admin {
        Some(admin) if config.tls.admin => info!(target: TARGET, "control plane on https://{admin}/"),
        Some(admin) => info!(target: TARGET, "control plane on http://{admin}/"),
        None => info!(target: TARGET, "control plane off"),
    }
    if config.shows_welcome_page() {
        info!(target: TARGET, "to try it out, open {} in a browser", page_url(ports));
    }
}

/// Logs which keys sign and check tokens.
fn announce_keys(config: &Config, policy: &Policy) {
    match &policy.keys {
        // A server without a key works, and everything about it looks right until the first restart.
        KeySource::Random(_)
            if config.serves_anonymous() && config.permissions.allow_anonymous == Anonymous::Auto =>
        {
            warn!(target: TARGET,
                "auth_key is not set: tokens are signed with a random key that ends with this process; fine for a trial, else set \
             RINGCAST_AUTH_KEY"
            )
        }
        KeySource::Random(_) => warn!(target: TARGET,
            "auth_key is not set: tokens are signed with a random key. After a restart every user has to log in again, and no \
             other server or service can check or issue tokens. Start each server with the same key, kept secret: \
             RINGCAST_AUTH_KEY=$(openssl rand -hex 32)"
        ),
        KeySource::Shared => info!(target: TARGET, "tokens: the key auth_key"),
        KeySource::Files => {
            info!(target: TARGET, "tokens: the keys of auth_private_key_file and auth_public_key_file")
        }
        KeySource::PublicFile => {
            info!(target: TARGET, "tokens: the key of auth_public_key_file, which can check but not sign")
        }
        KeySource::Sets => info!(target: TARGET, "tokens: the keys of jwks_file and jwks_url"),
    }
}

/// Logs whether clients that are not authenticated are served, and which setting says so.
fn announce_clients(config: &Config, ports: &Ports) {
    match (config.serves_anonymous(), config.permissions.allow_anonymous) {
        (true, Anonymous::Auto) if ports.others().next().is_some() => {
            info!(target: TARGET,
                "all clients are served: listen and the other addresses for clients are loopback addresses (allow_anonymous = auto)"
            );
        }
        (true, Anonymous::Auto) => {
            info!(target: TARGET, "all clients are served: listen is a loopback address (allow_anonymous = auto)");
        }
        (true, Anonymous::On | Anonymous::Off) => {
            info!(target: TARGET, "all clients are served: allow_anonymous = on")
        }
        (false, Anonymous::Auto) => info!(target: TARGET,
            "only authenticated clients are served: {} is not a loopback address (allow_anonymous = auto)",
            ports
                .others()
                .chain([(Port::Main, ports.main)])
                .find(|(_, address)| !address.ip().is_loopback())
                .map_or(Port::Main, |(port, _)| port)
                .setting()
        ),
        (false, Anonymous::On | Anonymous::Off) => {
            info!(target: TARGET, "only authenticated clients are served: allow_anonymous = off");
        }
    }
}

/// The address at which a browser on this machine finds the welcome page.
fn page_url(ports: &Ports) -> String {
    let scheme = match ports.main_tls {
        OnListen::Off | OnListen::Shared => "http",
        OnListen::Only => "https",
    };
    let mut address = ports.main;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}/")
}

/// Logs how many cores run on which CPUs, and the settings that the system has not granted.
pub(super) fn report(config: &Config, started: &[Started], placement: Vec<usize>) {
    let connections_max: u64 = started.iter().map(|core| u64::from(core.connections_max)).sum();
    let own_fd_tables = started.iter().all(|core| core.own_fd_table);
    let target = Target::new(config, None, placement, own_fd_tables);
    let cpus: Vec<String> = target.placement.iter().map(ToString::to_string).collect();
    info!(target: TARGET,
        connections_max,
        "{} cores on CPUs {}: {}",
        started.len(),
        cpus.join(", "),
        machine::summary(&reading::machine(Path::new("/")), &target)
    );
    if started.iter().any(|core| !core.pinned) {
        warn!(target: TARGET, "not every core could be pinned to its CPU");
    }
    if config.cores.fd_tables == FdTables::Auto && started.iter().any(|core| !core.own_fd_table) {
        warn!(target: TARGET, "descriptor tables cannot be split here: the limit on open files holds for all cores together");
    }
}
